//! Agents and their sessions in the fold.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{AgentName, Incarnation, PartitionId, Position, SessionId, Token};
use crate::lease::LeaseTimes;
use crate::record::{AgentInfo, Place, Schedulable};
use crate::time::WallTime;

/// Most ended tokens that a session remembers for work deltas; an agent that is further behind gets
/// the whole of its work again.
pub const GONE_MAX: usize = 1024;

/// An agent, remembered by its name even while it has no session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    pub(super) info: AgentInfo,
    pub(super) schedulable: Schedulable,
    pub(super) incarnation: Incarnation,
    pub(super) process: u64,
    pub(super) sessions: BTreeSet<SessionId>,
    pub(super) expired: BTreeSet<SessionId>,
    pub(super) last_seen: WallTime,
    pub(super) joined: Position,
    #[serde(default)]
    pub(super) revision: Position,
}

impl Agent {
    /// Whether it has no session, and nothing that it held waits for a fence hook.
    pub(super) fn is_gone(&self) -> bool {
        self.sessions.is_empty() && self.expired.is_empty()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &AgentName {
        &self.info.name
    }

    /// As it last described itself.
    #[must_use]
    pub fn info(&self) -> &AgentInfo {
        &self.info
    }

    /// What it may be given.
    #[must_use]
    pub fn schedulable(&self) -> Schedulable {
        self.schedulable
    }

    /// The process that speaks for it now; lower ones are fenced.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The random number of that process.
    #[must_use]
    pub fn process(&self) -> u64 {
        self.process
    }

    /// Its open sessions, one per lease class in use. Older ones that nobody renews any more may still
    /// be among them until they expire.
    #[must_use]
    pub fn sessions(&self) -> &BTreeSet<SessionId> {
        &self.sessions
    }

    /// Sessions of it that have expired while something that they held waits for a fence hook.
    #[must_use]
    pub fn expired(&self) -> &BTreeSet<SessionId> {
        &self.expired
    }

    /// Wall time of the last entry about its sessions: for people.
    #[must_use]
    pub fn last_seen(&self) -> WallTime {
        self.last_seen
    }

    /// Where its newest session was opened.
    #[must_use]
    pub fn joined(&self) -> Position {
        self.joined
    }
}

/// The life of one warden.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub(super) id: SessionId,
    pub(super) agent: AgentName,
    pub(super) place: Arc<Place>,
    pub(super) lease: LeaseTimes,
    pub(super) secret_hash: Arc<str>,
    pub(super) incarnation: Incarnation,
    pub(super) opened: Position,
    pub(super) held: BTreeSet<PartitionId>,
    pub(super) gone: VecDeque<(Position, Token)>,
    pub(super) gone_known_from: Position,
    pub(super) changed: Position,
    pub(super) silent_ms: u64,
}

impl Session {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Its agent.
    #[must_use]
    pub fn agent(&self) -> &AgentName {
        &self.agent
    }

    /// Where it was opened: its runs are there and nowhere else.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The times of its lease class.
    #[must_use]
    pub fn lease(&self) -> LeaseTimes {
        self.lease
    }

    /// SHA-256 of its secret, in hexadecimal.
    #[must_use]
    pub fn secret_hash(&self) -> &str {
        &self.secret_hash
    }

    /// The lowest agent process that may still speak for it.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Where it was opened.
    #[must_use]
    pub fn opened(&self) -> Position {
        self.opened
    }

    /// Every partition that is assigned to it, assumed by it, or stopping on it.
    #[must_use]
    pub fn held(&self) -> &BTreeSet<PartitionId> {
        &self.held
    }

    /// The last position that changed what it is to hold.
    #[must_use]
    pub fn changed(&self) -> Position {
        self.changed
    }

    /// For how long leaders have recorded that they answered no renewal of it; zero once it was heard (R6).
    #[must_use]
    pub fn silent_for(&self) -> Duration {
        Duration::from_millis(self.silent_ms)
    }

    /// Whether it is known which tokens ended after `since`.
    #[must_use]
    pub fn knows_gone_since(&self, since: Position) -> bool {
        since >= self.gone_known_from
    }

    /// Tokens that ended after `since`, or `None` when that is too long ago to know.
    #[must_use]
    pub fn gone_since(&self, since: Position) -> Option<Vec<Token>> {
        self.knows_gone_since(since).then(|| {
            let tokens = self.gone.iter().rev();
            let later = tokens.take_while(|(at, _)| *at > since);
            later.map(|(_, token)| *token).collect()
        })
    }

    pub(super) fn lose(&mut self, partition: PartitionId, token: Token, at: Position) {
        self.held.remove(&partition);
        self.changed = at;
        if self.gone.len() == GONE_MAX
            && let Some((dropped, _)) = self.gone.pop_front()
        {
            self.gone_known_from = dropped;
        }
        self.gone.push_back((at, token));
    }
}
