//! The tokens of the cluster: a part of the replicated state.
//!
//! What has ended, by its time or by a person, is shown for a while and then forgotten, so that the state
//! is bounded however many come and go. Whether time has ended one is told by the wall time of the entry
//! that asks, which is the same on every director.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{CredentialId, NodeName, Position};
use crate::time::WallTime;

use super::{
    Admission, Bars, Change, ENDED_MAX, JOIN_TTL_MAX, JoinGrant, LIVE_MAX, Node, Record, Refused,
    Role, TokenGrant, USES_MAX,
};

/// All tokens, and which certificates count no longer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    tokens: BTreeMap<CredentialId, ApiToken>,
    join_tokens: BTreeMap<CredentialId, JoinToken>,
    #[serde(default, skip_serializing_if = "Bars::is_empty")]
    bars: Bars,
}

/// An API token and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiToken {
    /// As it was created.
    pub grant: TokenGrant,
    /// When, by the leader's wall time.
    pub created: WallTime,
    /// Where.
    pub at: Position,
    /// When it was revoked.
    pub revoked: Option<WallTime>,
}

impl ApiToken {
    /// Whether it counts at this wall time.
    #[must_use]
    pub fn counts(&self, wall: WallTime) -> bool {
        self.revoked.is_none() && !self.expired(wall)
    }

    /// Whether its time is over.
    #[must_use]
    pub fn expired(&self, wall: WallTime) -> bool {
        self.grant.expires.is_some_and(|expires| wall >= expires)
    }
}

/// A join token and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// As it was created.
    pub grant: JoinGrant,
    /// When, by the leader's wall time.
    pub created: WallTime,
    /// Where.
    pub at: Position,
    /// When it was revoked.
    pub revoked: Option<WallTime>,
    /// Whom it has let in.
    pub used: Vec<Use>,
}

/// A machine that a join token has let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// What it is called.
    pub name: NodeName,
    /// SHA-256 of what it asked to be signed, in hexadecimal.
    pub request: String,
}

impl JoinToken {
    /// How many more it lets in.
    #[must_use]
    pub fn left(&self) -> u32 {
        let used = u32::try_from(self.used.len()).unwrap_or(u32::MAX);
        self.grant.uses.saturating_sub(used)
    }

    /// Whether it lets anybody in at this wall time.
    #[must_use]
    pub fn counts(&self, wall: WallTime) -> bool {
        self.revoked.is_none() && wall < self.grant.expires && self.left() > 0
    }

    /// Whether it lets this one in, or why not. Who was let in already and asks the same again, because the
    /// answer was lost, takes no further use.
    ///
    /// # Errors
    /// When it does not.
    pub fn admits(
        &self,
        wall: WallTime,
        node: Node,
        name: &NodeName,
        request: &str,
    ) -> Result<(), Refused> {
        if self.revoked.is_some() {
            return Err(Refused::Revoked);
        }
        if wall >= self.grant.expires {
            return Err(Refused::Expired);
        }
        if self.grant.admits != node {
            return Err(Refused::OtherKind);
        }
        if self.left() == 0 && !self.has_let_in(name, request) {
            return Err(Refused::UsedUp);
        }
        Ok(())
    }

    /// Whether it has let this one in already, for the very same request.
    #[must_use]
    pub fn has_let_in(&self, name: &NodeName, request: &str) -> bool {
        let mut used = self.used.iter();
        used.any(|used| used.name == *name && used.request == request)
    }
}

impl Credentials {
    /// API tokens by id, those that have ended included.
    #[must_use]
    pub fn tokens(&self) -> &BTreeMap<CredentialId, ApiToken> {
        &self.tokens
    }

    /// Join tokens by id, those that have ended included.
    #[must_use]
    pub fn join_tokens(&self) -> &BTreeMap<CredentialId, JoinToken> {
        &self.join_tokens
    }

    /// Whether the token of this admission has let in this machine already, for the very same request.
    #[must_use]
    pub(crate) fn has_let_in(&self, admission: &Admission) -> bool {
        let token = self.join_tokens.get(&admission.token);
        token.is_some_and(|token| token.has_let_in(&admission.name, &admission.request))
    }

    /// The certificates that count no longer.
    #[must_use]
    pub fn bars(&self) -> &Bars {
        &self.bars
    }

    /// What was handed out to this machine so far counts no longer, and a join token that has let it in lets it
    /// in again only by another use.
    pub(crate) fn bar(&mut self, node: Node, name: &NodeName, at: (Position, WallTime)) {
        for token in self.join_tokens.values_mut() {
            if token.grant.admits == node {
                // The use stays used up; only its request counts no longer.
                let used = token.used.iter_mut().filter(|used| used.name == *name);
                used.for_each(|used| used.request.clear());
            }
        }
        self.bars.set(node, name.clone(), at);
    }

    /// Whether anybody may still give out tokens.
    #[must_use]
    pub fn has_admin(&self, wall: WallTime) -> bool {
        let mut tokens = self.tokens.values();
        tokens.any(|token| token.grant.role == Role::Admin && token.counts(wall))
    }

    /// Whether a record would be accepted.
    pub(crate) fn check(&self, wall: WallTime, record: &Record) -> Result<(), Refused> {
        match record {
            Record::TokenCreated(grant) => self.check_token(wall, grant),
            Record::JoinTokenCreated(grant) => self.check_join_token(wall, grant),
            Record::TokenRevoked { id } => {
                let known = self.tokens.contains_key(id);
                known.then_some(()).ok_or(Refused::Unknown)
            }
            Record::JoinTokenRevoked { id } => {
                let known = self.join_tokens.contains_key(id);
                known.then_some(()).ok_or(Refused::Unknown)
            }
            Record::Admitted(admission) => {
                let Admission {
                    token,
                    node,
                    name,
                    request,
                } = &**admission;
                let token = self.join_tokens.get(token).ok_or(Refused::Unknown)?;
                token.admits(wall, *node, name, request)
            }
        }
    }

    fn check_token(&self, wall: WallTime, grant: &TokenGrant) -> Result<(), Refused> {
        if self.tokens.contains_key(&grant.id) {
            return Err(Refused::Known);
        }
        if grant.role == Role::Admin && grant.scope.is_some() {
            return Err(Refused::ScopedAdmin);
        }
        if grant.expires.is_some_and(|expires| expires <= wall) {
            return Err(Refused::Expiry);
        }
        let live = self.tokens.values().filter(|token| token.counts(wall));
        if live.count() >= LIVE_MAX {
            return Err(Refused::TooMany);
        }
        Ok(())
    }

    fn check_join_token(&self, wall: WallTime, grant: &JoinGrant) -> Result<(), Refused> {
        if self.join_tokens.contains_key(&grant.id) {
            return Err(Refused::Known);
        }
        if !(1..=USES_MAX).contains(&grant.uses) {
            return Err(Refused::Uses);
        }
        let longest = i64::try_from(JOIN_TTL_MAX.as_millis()).unwrap_or(i64::MAX);
        let latest = wall.0.saturating_add(longest);
        if grant.expires <= wall || grant.expires.0 > latest {
            return Err(Refused::Expiry);
        }
        let live = self.join_tokens.values().filter(|token| token.counts(wall));
        if live.count() >= LIVE_MAX {
            return Err(Refused::TooMany);
        }
        Ok(())
    }

    /// Folds one record; what it changed, if anything. `known`: the cluster knows the machine that it lets in.
    pub(crate) fn fold(
        &mut self,
        (at, wall): (Position, WallTime),
        record: Record,
        known: bool,
    ) -> Result<Option<Change>, Refused> {
        self.check(wall, &record)?;
        Ok(match record {
            Record::TokenCreated(grant) => {
                let (id, name, role) = (grant.id.clone(), grant.name.clone(), grant.role);
                let token = ApiToken {
                    grant: *grant,
                    created: wall,
                    at,
                    revoked: None,
                };
                self.tokens.insert(id.clone(), token);
                self.forget_tokens(wall);
                Some(Change::TokenCreated { id, name, role })
            }
            Record::TokenRevoked { id } => {
                let token = self.tokens.get_mut(&id);
                let token = token.filter(|token| token.revoked.is_none());
                token.map(|token| {
                    token.revoked = Some(wall);
                    let name = token.grant.name.clone();
                    Change::TokenRevoked { id, name }
                })
            }
            Record::JoinTokenCreated(grant) => {
                let (id, admits, uses) = (grant.id.clone(), grant.admits, grant.uses);
                let token = JoinToken {
                    grant: *grant,
                    created: wall,
                    at,
                    revoked: None,
                    used: Vec::new(),
                };
                self.join_tokens.insert(id.clone(), token);
                self.forget_join_tokens(wall);
                Some(Change::JoinTokenCreated { id, admits, uses })
            }
            Record::JoinTokenRevoked { id } => {
                let token = self.join_tokens.get_mut(&id);
                let token = token.filter(|token| token.revoked.is_none());
                token.map(|token| {
                    token.revoked = Some(wall);
                    Change::JoinTokenRevoked { id }
                })
            }
            Record::Admitted(admission) => {
                if known && !self.has_let_in(&admission) {
                    // It comes as if it were new; whoever has the certificate of before is somebody else.
                    self.bar(admission.node, &admission.name, (at, wall));
                }
                self.admit(*admission)
            }
        })
    }

    fn admit(&mut self, admission: Admission) -> Option<Change> {
        let Admission {
            token: id,
            node,
            name,
            request,
        } = admission;
        let token = self.join_tokens.get_mut(&id)?;
        if token.has_let_in(&name, &request) {
            return None;
        }
        let by = Use {
            name: name.clone(),
            request,
        };
        token.used.push(by);
        Some(Change::Admitted {
            token: id,
            node,
            name,
        })
    }

    /// Of those that count no longer the oldest go. What a director's folder brought stays: the file may
    /// still be there.
    fn forget_tokens(&mut self, wall: WallTime) {
        let ended = self.tokens.iter();
        let ended = ended.filter(|(_, token)| !token.counts(wall) && !token.grant.bootstrap);
        for id in oldest(ended.map(|(id, token)| (token.at, id))) {
            self.tokens.remove(&id);
        }
    }

    fn forget_join_tokens(&mut self, wall: WallTime) {
        let ended = self.join_tokens.iter();
        let ended = ended.filter(|(_, token)| !token.counts(wall));
        for id in oldest(ended.map(|(id, token)| (token.at, id))) {
            self.join_tokens.remove(&id);
        }
    }

    /// Every contradiction found, as sentences.
    pub(crate) fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (id, token) in &self.tokens {
            if token.grant.id != *id {
                found.push(format!("API token {id} has a wrong id"));
            }
            if token.grant.role == Role::Admin && token.grant.scope.is_some() {
                found.push(format!("API token {id} is an admin with a scope"));
            }
        }
        for (id, token) in &self.join_tokens {
            if token.grant.id != *id {
                found.push(format!("join token {id} has a wrong id"));
            }
            if token.used.len() > token.grant.uses as usize {
                found.push(format!("join token {id} was used too often"));
            }
        }
        found
    }
}

/// Those of the ended ones that are too many, by where they were created.
fn oldest<'a>(ended: impl Iterator<Item = (Position, &'a CredentialId)>) -> Vec<CredentialId> {
    let mut ended: Vec<_> = ended.collect();
    ended.sort_unstable();
    let surplus = ended.len().saturating_sub(ENDED_MAX);
    let oldest = ended.into_iter().take(surplus);
    oldest.map(|(_, id)| id.clone()).collect()
}
