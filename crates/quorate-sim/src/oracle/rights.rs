//! By what a right to run something may end, by the records alone: it was given back, its session was
//! closed as proven dead, its lease is over and no hook is asked for, the hook that is asked for has
//! succeeded, or a person has waived the proof. Nothing else lets the next one begin, however long an
//! agent is silent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use quorate_core::ids::{
    AgentName, HookName, Incarnation, PartitionId, ServiceName, SessionId, Token,
};
use quorate_core::record::{CloseReason, Record};

use super::Oracle;
use crate::clock::{Instant, MILLI, SECOND};

/// L and K of the usual lease, by real time at least: what everybody is waited for.
const USUAL: u64 = 11 * SECOND;
/// How many renewals are remembered of each session, which is longer than a hook waits for a proof.
const REMEMBERED: usize = 30;
/// How long a question to take an agent's work may be on its way.
const ASKED: u64 = 60 * SECOND;
/// Leases that are longer than any life are none.
const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

/// When each session was last heard.
type Heard = BTreeMap<SessionId, Instant>;

/// Who holds what, and what hooks and people have done about it.
#[derive(Debug, Default)]
pub(super) struct Rights {
    sessions: BTreeMap<SessionId, Session>,
    /// What was offered last for each slot and neither taken nor taken back.
    offered: BTreeMap<PartitionId, (Token, SessionId)>,
    /// What was taken and has not ended.
    open: BTreeMap<PartitionId, BTreeMap<Token, Right>>,
    /// The hook that each service asks for.
    fences: BTreeMap<ServiceName, Option<HookName>>,
    /// Hooks that have succeeded.
    succeeded: BTreeSet<(SessionId, HookName)>,
    /// What a person has taken though it may execute.
    waived: BTreeSet<SessionId>,
    /// The last attempt of each process that was answered with yes: a repeat tells nothing new, and one that
    /// was overtaken by one for other sessions is about what its agent has given up.
    newest: BTreeMap<Incarnation, u64>,
    /// When the ledger last said of each director that it leads.
    proven: BTreeMap<usize, Instant>,
    /// When somebody asked for an agent's work, and when each of its sessions had been heard by then.
    asked: BTreeMap<AgentName, Vec<(Instant, Heard)>>,
}

#[derive(Debug)]
struct Right {
    session: SessionId,
    /// Its agent was told, or something has started. Before that the entry may have been refused, because
    /// the partition was stopped or removed meanwhile.
    sure: bool,
}

#[derive(Debug)]
struct Session {
    agent: AgentName,
    lease: Duration,
    /// How often it renews.
    renews: Duration,
    /// When the last renewals arrived that were answered with yes.
    heard: VecDeque<Instant>,
    /// The last of them.
    attempt: (Incarnation, u64),
    held: BTreeSet<(PartitionId, Token)>,
}

impl Rights {
    /// Whether a person has taken what this session held: its processes may go on for a while.
    pub(super) fn waived(&self, session: SessionId) -> bool {
        self.waived.contains(&session)
    }

    /// Whether the right of a token has begun and not ended.
    pub(super) fn is_open(&self, slot: PartitionId, token: Token) -> bool {
        let open = self.open.get(&slot);
        let right = open.and_then(|open| open.get(&token));
        right.is_some_and(|right| right.sure)
    }

    /// Tokens whose right to a slot has not ended.
    pub(super) fn open_tokens(&self, slot: PartitionId) -> impl Iterator<Item = Token> {
        let open = self.open.get(&slot).into_iter();
        open.flat_map(|open| open.keys().copied())
    }

    /// The hook that each service asks for.
    pub(super) fn fences(&self) -> &BTreeMap<ServiceName, Option<HookName>> {
        &self.fences
    }

    pub(super) fn set_fences(&mut self, fences: BTreeMap<ServiceName, Option<HookName>>) {
        self.fences = fences;
    }

    /// Every token whose right has begun and not ended.
    pub(super) fn all_open(&self) -> BTreeSet<Token> {
        let open = self.open.values().flat_map(BTreeMap::keys);
        open.copied().collect()
    }

    /// The rights of these tokens have ended.
    pub(super) fn end_all(&mut self, tokens: &BTreeSet<Token>) {
        let slots = self.open.iter().flat_map(|(slot, open)| {
            let ended = open.keys().filter(|token| tokens.contains(token));
            ended.map(move |token| (*slot, *token))
        });
        for (slot, token) in slots.collect::<Vec<_>>() {
            self.end(slot, token);
        }
    }

    fn end(&mut self, slot: PartitionId, token: Token) {
        let Some(open) = self.open.get_mut(&slot) else {
            return;
        };
        if let Some(right) = open.remove(&token)
            && let Some(session) = self.sessions.get_mut(&right.session)
        {
            session.held.remove(&(slot, token));
        }
        if open.is_empty() {
            self.open.remove(&slot);
        }
    }

    fn held(&self, session: SessionId) -> Vec<(PartitionId, Token)> {
        let session = self.sessions.get(&session).into_iter();
        session.flat_map(|session| &session.held).copied().collect()
    }
}

impl Oracle {
    /// What a record says about who may run what.
    pub(super) fn follow_rights(&mut self, now: Instant, record: &Record) {
        match record {
            Record::ServicePut { name, spec } => {
                self.rights.fences.insert(name.clone(), spec.fence.clone());
            }
            Record::SessionOpened {
                session,
                agent,
                lease,
                ..
            } => {
                let opened = Session {
                    agent: agent.name.clone(),
                    lease: lease.lease,
                    renews: lease.renew_every,
                    heard: VecDeque::new(),
                    attempt: (Incarnation(0), 0),
                    held: BTreeSet::new(),
                };
                // What was refused before has not used up its number.
                self.rights.sessions.insert(*session, opened);
            }
            Record::Assigned {
                partition,
                session,
                token,
            } => {
                self.rights.offered.insert(*partition, (*token, *session));
            }
            Record::Withdrawn {
                partition, token, ..
            } => {
                let offered = self.rights.offered.get(partition);
                if offered.is_some_and(|(offered, _)| offered == token) {
                    self.rights.offered.remove(partition);
                }
            }
            Record::Assumed {
                partition,
                session,
                token,
            } => self.right_begins(*partition, *token, *session),
            Record::Released {
                partition, token, ..
            } => self.rights.end(*partition, *token),
            Record::SessionClosed { session, reason } => {
                if *reason == CloseReason::Evicted && !self.ended.contains_key(session) {
                    self.rights.waived.insert(*session);
                }
                for (slot, token) in self.rights.held(*session) {
                    self.rights.end(slot, token);
                }
            }
            Record::SessionExpired { session } => self.lease_over(*session),
            Record::Fenced { session, hook, .. } => self.fenced(*session, hook),
            Record::Silent { session, for_ms } => self.silent(now, *session, *for_ms),
            Record::Elected { .. }
            | Record::Beat
            | Record::DirectorKnown { .. }
            | Record::DirectorForgotten { .. }
            | Record::Format { .. }
            | Record::ServiceRemoved { .. }
            | Record::PartitionsPut { .. }
            | Record::PartitionsRemoved { .. }
            | Record::Staged { .. }
            | Record::SourceStatus { .. }
            | Record::DesiredSet { .. }
            | Record::RestartAsked { .. }
            | Record::AgentSet { .. }
            | Record::AgentForgotten { .. }
            | Record::SessionResumed { .. }
            | Record::Evicted { .. }
            | Record::Heard { .. }
            | Record::Drifts { .. }
            | Record::Revoked { .. }
            | Record::Observed { .. }
            | Record::CheckpointPut { .. }
            | Record::Access(_)
            | Record::Audited(_)
            | Record::Answered(_) => {}
        }
    }

    fn right_begins(&mut self, slot: PartitionId, token: Token, session: SessionId) {
        if self.rights.offered.get(&slot) != Some(&(token, session))
            || self.ended.contains_key(&session)
        {
            return;
        }
        self.rights.offered.remove(&slot);
        self.checkpoint_found(slot, token);
        let open = self.rights.open.entry(slot).or_default();
        let sure = false;
        open.insert(token, Right { session, sure });
        if let Some(session) = self.rights.sessions.get_mut(&session) {
            session.held.insert((slot, token));
        }
    }

    /// A right has begun for certain: every one before it must have ended.
    pub(super) fn right_is_sure(&mut self, token: Token) {
        let Some(slot) = self.assigned.get(&token).copied() else {
            return;
        };
        let open = self.rights.open.get_mut(&slot);
        let Some(open) = open else { return };
        let Some(right) = open.get_mut(&token).filter(|right| !right.sure) else {
            return;
        };
        right.sure = true;
        let mut others = open.iter();
        let before = others.find(|(other, right)| **other != token && right.sure);
        if let Some((before, _)) = before {
            let seen = format!(
                "partition {slot} was taken under token {token} though the right of {before} has not ended"
            );
            self.blame("S5", seen);
        }
    }

    /// The directors have waited for long enough: what asks for no hook is free.
    pub(super) fn lease_over(&mut self, session: SessionId) {
        let lease = self.rights.sessions.get(&session);
        if lease.is_some_and(|session| session.lease > FOREVER) {
            let seen = format!("session {session} has expired, and its work is kept for ever");
            self.blame("S5", seen);
        }
        for (slot, token) in self.rights.held(session) {
            if self.fence_of(token).is_none() {
                self.rights.end(slot, token);
            }
        }
    }

    /// The hook that the service of a token asks for. What never started has nothing to be fenced.
    fn fence_of(&self, token: Token) -> Option<&HookName> {
        let (service, _) = self.names.get(&token)?.split_once('/')?;
        let service = ServiceName::new(service).ok()?;
        self.rights.fences.get(&service)?.as_ref()
    }

    fn fenced(&mut self, session: SessionId, hook: &HookName) {
        if !self.rights.succeeded.contains(&(session, hook.clone())) {
            let seen = format!("hook {hook} is said to have fenced {session}, which it never has");
            self.blame("S5", seen);
        }
        for (slot, token) in self.rights.held(session) {
            // Of what never started nobody knows the service, and there is nothing to be fenced.
            if self.names.contains_key(&token) && self.fence_of(token) != Some(hook) {
                continue;
            }
            if self.executes(token) {
                let seen = format!("{token} was fenced by {hook} and still executes");
                self.blame("S5", seen);
            }
            self.rights.end(slot, token);
        }
    }

    /// A director is the leader at this moment for certain: the ledger says so.
    pub(crate) fn leader_proven(&mut self, now: Instant, director: usize) {
        self.rights.proven.insert(director, now);
    }

    /// A director begins a hook for a session. When the ledger last said that it leads, the lease of the
    /// session was over, or its agent had been silent for as long as usual.
    pub(crate) fn hook_begins(&mut self, now: Instant, director: usize, session: SessionId) {
        if !self.timed || self.ended.contains_key(&session) {
            return;
        }
        let proven = self.rights.proven.get(&director);
        let proven = proven.copied().unwrap_or_default();
        let known = self.rights.sessions.get(&session);
        let heard = known.into_iter().flat_map(|session| session.heard.iter());
        let before = heard.copied().filter(|heard| *heard <= proven).max();
        if let Some(before) = before.filter(|before| proven.0 < before.0 + USUAL) {
            let seen = format!(
                "{now}: a hook began for {session}, which was heard at {before}, by a leader as of {proven}"
            );
            self.blame("S5", seen);
        }
    }

    /// A hook has succeeded: nothing of the session executes any more.
    pub(crate) fn hook_succeeded(&mut self, session: SessionId, hook: &HookName) {
        self.rights.succeeded.insert((session, hook.clone()));
    }

    /// Leaders have answered no renewal of a session for so long, on clocks that are one percent fast at most.
    fn silent(&mut self, now: Instant, session: SessionId, for_ms: u64) {
        let known = self.rights.sessions.get(&session);
        let heard = known.and_then(|session| session.heard.iter().max());
        let least = for_ms.saturating_mul(MILLI) / 102 * 100;
        if let (Some(heard), true) = (heard, self.timed)
            && now.0 < heard.0.saturating_add(least)
        {
            let seen = format!(
                "{now}: session {session} is said to be silent for {for_ms} ms, it was heard at {heard}"
            );
            self.blame("S5", seen);
        }
    }

    /// A renewal that arrived then is answered with yes.
    pub(super) fn heard(
        &mut self,
        arrived: Instant,
        session: SessionId,
        (incarnation, counter): (Incarnation, u64),
    ) {
        let newest = self.rights.newest.entry(incarnation).or_default();
        if counter < *newest {
            return;
        }
        let repeated = counter == *newest;
        *newest = counter;
        if let Some(session) = self.rights.sessions.get_mut(&session) {
            if repeated && session.attempt == (incarnation, counter) {
                return;
            }
            session.attempt = (incarnation, counter);
            if session.heard.len() == REMEMBERED {
                session.heard.pop_front();
            }
            session.heard.push_back(arrived);
        }
    }

    /// Somebody asks a director to take an agent's work.
    pub(super) fn eviction_asked(&mut self, now: Instant, agent: &AgentName) {
        let sessions = self.rights.sessions.iter();
        let heard = sessions.filter(|(_, session)| session.agent == *agent);
        let heard = heard.filter_map(|(id, session)| Some((*id, *session.heard.iter().max()?)));
        let heard = heard.collect();
        let asked = self.rights.asked.entry(agent.clone()).or_default();
        asked.retain(|(at, _)| at.0 + ASKED >= now.0);
        asked.push((now, heard));
    }

    /// A person has taken what a session held. That must have been asked for, and the agent must have
    /// been silent in this session.
    pub(super) fn evicted(&mut self, now: Instant, session: SessionId) {
        let Some(known) = self.rights.sessions.get(&session) else {
            return;
        };
        let Some(asked) = self.rights.asked.get(&known.agent) else {
            let seen = format!("session {session} was taken, and nobody had asked for that");
            return self.blame("S4", seen);
        };
        // Of several questions the first: whoever decided knew at least what was known by then.
        // Alive is who was heard within two renewals and a second, on a clock that is one percent fast.
        let renews = u64::try_from(known.renews.as_nanos()).unwrap_or(0);
        let alive = (2 * renews + SECOND) * 98 / 100;
        let first = asked.iter().find(|(at, _)| at.0 + ASKED >= now.0);
        let heard = first.and_then(|(_, heard)| heard.get(&session));
        if self.timed
            && !self.ended.contains_key(&session)
            && let Some(heard) = heard.filter(|heard| now.0 < heard.0 + alive)
        {
            let seen =
                format!("{now}: session {session} was taken, though it had been heard at {heard}");
            self.blame("S5", seen);
        }
    }

    /// A process starts under a session that a person has taken: right as long as its lease may last.
    pub(super) fn starts_after_waiver(&mut self, now: Instant, session: SessionId) {
        let Some(taken) = self.rights.sessions.get(&session) else {
            return;
        };
        let lease = u64::try_from(taken.lease.as_nanos()).unwrap_or(u64::MAX);
        let heard = taken.heard.iter().max();
        let least = heard.map(|heard| heard.0.saturating_add(lease));
        // A clock that is one percent slow lets it last longer.
        let until = least.map(|least| least.saturating_add(lease / 99));
        if self.timed && until.is_some_and(|until| now.0 > until) {
            let seen = format!("{now}: something starts under {session} after its lease");
            self.blame("S5", seen);
        }
    }
}
