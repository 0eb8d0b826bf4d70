//! The fold: all state of the cluster, computed from the entries of the ledger and nothing else.
//!
//! [`Cluster::apply`] takes one entry after the other. It is deterministic and cannot fail: a record
//! whose precondition does not hold is folded as *refused*, with the same result on every director.
//! It must never look at a clock. Wall times in it are for people, and end tokens by what the entry says
//! that it is.
//!
//! Removing or stopping takes effect here at once: what was only assigned is free, what is assumed is
//! `Stopping`. So an `Assumed` partition is always one that is wanted, unless its service changed.
//!
//! ```text
//!  Unassigned ──Assigned──► Assigned ──Assumed──► Assumed ──Revoked, stop, remove──► Stopping
//!      ▲                       │ Withdrawn, stop, remove │ Released by the agent itself     │ Released
//!      └───────────────────────┴───────── SessionExpired, SessionClosed ────────────────┘
//! ```

mod apply;
mod check;
mod checkpoints;
mod credentials;
mod directors;
mod eras;
mod fencing;
mod hash;
mod kept;
mod partition;
mod planted;
mod revisions;
mod rights;
mod run;
mod service;
mod services;
mod session;
mod sessions;
mod slab;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::access::{self, Credentials};
use crate::format::Format;
use crate::history::{Change, Subject};
use crate::ids::{
    AgentName, BatchId, DirectorName, Epoch, Era, Incarnation, PartitionId, PartitionKey, Position,
    ServiceId, ServiceName, SessionId, Token,
};
use crate::record::{Desired, DirectorInfo, Record};
use crate::repeats::Repeats;

pub use apply::FoldError;
pub use directors::DIRECTORS_MAX;
pub use eras::{EraError, LOST, NewEra, Restored};
pub use partition::{Freed, Holder, Partition, State};
pub use run::{Fled, Run};
pub use service::Service;
pub use session::{Agent, GONE_MAX, Session};
pub use snapshot::SnapshotError;

use slab::Slab;

/// All state of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    position: Position,
    last_hash: u64,
    format: Format,
    epoch: Epoch,
    leader: Option<Leader>,
    directors: BTreeMap<DirectorName, DirectorInfo>,
    era: Era,
    /// What may still be in force of a history that is lost.
    lost: Option<eras::Lost>,
    last_token: Token,
    last_session: SessionId,
    last_incarnation: Incarnation,
    spec_changed: Position,
    services: Slab<Service>,
    service_ids: BTreeMap<ServiceName, ServiceId>,
    partitions: Slab<Partition>,
    agents: BTreeMap<AgentName, Agent>,
    sessions: BTreeMap<SessionId, Session>,
    expired: BTreeMap<SessionId, Session>,
    staged: Option<Staged>,
    credentials: Credentials,
    repeats: Repeats,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Its name.
    pub name: DirectorName,
    /// Its identity.
    pub id: u64,
    /// Where its API is reached.
    pub address: String,
    /// The batch of its election: tells which process it was.
    pub elected_by: BatchId,
}

/// A change that is still coming in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Staged {
    change: BatchId,
    records: Vec<Record>,
}

/// What an entry did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// One for each record of the entry, in order.
    pub outcomes: Vec<Outcome>,
    /// What changed, in order.
    pub changes: Vec<Change>,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Accepted,
    /// It changed nothing.
    Refused(Refused),
}

/// Why a record changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It was written by a leader that was none any more, or is an election that does not follow.
    Epoch,
    /// There is no such service.
    NoService,
    /// There is no such partition.
    NoPartition,
    /// There is no such agent.
    NoAgent,
    /// There is no such director.
    NoDirector,
    /// As many directors are known as may be.
    DirectorsMax,
    /// The format of the ledger would fall, or somebody would not read it.
    Format,
    /// The session is over or never was.
    NoSession,
    /// Somebody holds the partition.
    Held,
    /// The partition is not to run.
    NotWanted,
    /// The token is not above every token so far.
    Token,
    /// The partition is not held under this token, or not in the state for this.
    NotHolder,
    /// The id of the session or incarnation was used before.
    Number,
    /// Another machine has this agent name and is alive.
    AgentId,
    /// A later checkpoint under this token is there.
    Superseded,
    /// An open session has this secret.
    Secret,
    /// The parts of a staged change do not fit together, or one of them would be refused.
    Staged,
    /// Something that a lost history has granted may still be in force.
    Lost,
    /// It would change who may do what, and may not.
    Access(access::Refused),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Access(refused) => return refused.fmt(f),
            Self::Epoch => "written by a leader that was none any more",
            Self::NoService => "the service does not exist",
            Self::NoPartition => "the partition does not exist",
            Self::NoAgent => "the agent is not known",
            Self::NoDirector => "the director is not known",
            Self::DirectorsMax => "as many directors are known as may be",
            Self::Format => "a director does not read this format of the ledger",
            Self::NoSession => "the session is over",
            Self::Held => "the partition is held under another token",
            Self::NotWanted => "the partition is not to run",
            Self::Token => "the token is not above every token so far",
            Self::NotHolder => "the partition is not held under this token",
            Self::Number => "the number was used before",
            Self::AgentId => "another machine has this agent name and is alive",
            Self::Superseded => "a later checkpoint under this token is there",
            Self::Secret => "an open session has this secret",
            Self::Staged => "the parts of the change do not fit together",
            Self::Lost => "what was granted before the restore may still be in force",
        })
    }
}

impl Cluster {
    /// Position of the last entry folded.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Hash of the last entry folded, which the next one must name as its predecessor.
    #[must_use]
    pub fn last_hash(&self) -> u64 {
        self.last_hash
    }

    /// The format of the ledger: that of the next entry, and no lower one comes any more.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Term of the present leader.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Who was elected last.
    #[must_use]
    pub fn leader(&self) -> Option<&Leader> {
        self.leader.as_ref()
    }

    /// The upper part of every new token.
    #[must_use]
    pub fn era(&self) -> Era {
        self.era
    }

    /// The next token that may be given.
    #[must_use]
    pub fn next_token(&self) -> Token {
        Token::new(self.era, self.last_token.counter() + 1)
    }

    /// The id of the next session.
    #[must_use]
    pub fn next_session(&self) -> SessionId {
        self.last_session.next()
    }

    /// The next incarnation of any agent.
    #[must_use]
    pub fn next_incarnation(&self) -> Incarnation {
        self.last_incarnation.next()
    }

    /// The last position at which any specification was put.
    #[must_use]
    pub fn spec_changed(&self) -> Position {
        self.spec_changed
    }

    /// Services by name, removed ones that still have runs included.
    pub fn services(&self) -> impl Iterator<Item = (ServiceId, &Service)> {
        let ids = self.service_ids.values();
        ids.filter_map(|id| Some((*id, self.service_by_id(*id)?)))
    }

    /// A service that is not removed.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        let service = self.service_by_id(*self.service_ids.get(name)?)?;
        (!service.removed).then_some(service)
    }

    /// The slot of a service, removed or not.
    #[must_use]
    pub fn service_id(&self, name: &ServiceName) -> Option<ServiceId> {
        self.service_ids.get(name).copied()
    }

    /// The service in a slot, removed or not.
    #[must_use]
    pub fn service_by_id(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(id.0)
    }

    /// The partition in a slot.
    #[must_use]
    pub fn partition(&self, id: PartitionId) -> Option<&Partition> {
        self.partitions.get(id.0)
    }

    /// The slot of a partition by its names.
    #[must_use]
    pub fn partition_id(&self, service: &ServiceName, key: &PartitionKey) -> Option<PartitionId> {
        let service = self.service_by_id(self.service_id(service)?)?;
        service.partitions.get(key).copied()
    }

    /// Every partition by slot.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, &Partition)> {
        self.partitions.iter().map(|(id, p)| (PartitionId(id), p))
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    /// One more than the highest slot ever in use: the length of a table by slot.
    #[must_use]
    pub fn partition_slots(&self) -> usize {
        self.partitions.slots()
    }

    /// The service of a partition, removed or not.
    #[must_use]
    pub fn service_of(&self, partition: &Partition) -> Option<&Service> {
        self.service_by_id(partition.service)
    }

    /// Whether a partition is to run: it and its service are, neither is removed, and it has not ended
    /// for good.
    #[must_use]
    pub fn wanted(&self, partition: &Partition) -> bool {
        let Some(service) = self.service_of(partition) else {
            return false;
        };
        service.desired == Desired::Running
            && partition.desired == Desired::Running
            && !service.removed
            && !partition.doomed
            && partition.finished().is_none()
    }

    /// A partition by all its names.
    #[must_use]
    pub fn subject(&self, id: PartitionId) -> Option<Subject> {
        let partition = self.partition(id)?;
        Some(Subject {
            partition: id,
            service: self.service_of(partition)?.name.clone(),
            key: partition.key.clone(),
        })
    }

    /// Agents by name, those without a session included.
    #[must_use]
    pub fn agents(&self) -> &BTreeMap<AgentName, Agent> {
        &self.agents
    }

    /// Open sessions.
    #[must_use]
    pub fn sessions(&self) -> &BTreeMap<SessionId, Session> {
        &self.sessions
    }

    /// An open session.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// Sessions that are over, while something that they held waits for a fence hook.
    #[must_use]
    pub fn expired(&self) -> &BTreeMap<SessionId, Session> {
        &self.expired
    }

    /// Whose a right is, also when its session is over and it waits for a fence hook.
    #[must_use]
    pub fn agent_holding(&self, holder: Holder) -> Option<&AgentName> {
        let open = self.sessions.get(&holder.session);
        let session = open.or_else(|| self.expired.get(&holder.session));
        session.map(Session::agent)
    }

    /// The agent of an open session.
    #[must_use]
    pub fn agent_of(&self, id: SessionId) -> Option<&Agent> {
        self.agents.get(&self.sessions.get(&id)?.agent)
    }

    /// Of each lease class the open session that an agent uses: the newest, as ids rise. Others are of an
    /// earlier life of it, or of an earlier era.
    #[must_use]
    pub fn sessions_in_use(&self, agent: &Agent) -> BTreeMap<Duration, SessionId> {
        let open = agent.sessions.iter().filter(|id| !self.exiled(**id));
        let open = open.filter_map(|id| self.session(*id));
        open.map(|session| (session.lease().lease, session.id()))
            .collect()
    }

    /// The open session with this secret: the answer to a repeated registration.
    #[must_use]
    pub fn session_by_secret(&self, secret_hash: &str) -> Option<&Session> {
        let mut sessions = self.sessions.values();
        sessions.find(|session| &*session.secret_hash == secret_hash)
    }

    /// What requests with an idempotency key were answered lately.
    #[must_use]
    pub fn repeats(&self) -> &Repeats {
        &self.repeats
    }

    /// The specification of a service by slot, shared.
    #[must_use]
    pub fn spec(&self, id: ServiceId) -> Option<&Arc<crate::spec::ServiceSpec>> {
        self.service_by_id(id).map(Service::spec)
    }
}
