//! One partition in the fold. A million of them are kept in memory, so what is rare is boxed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::ids::{AgentName, PartitionKey, Position, ServiceId, SessionId, Token};
use crate::record::{CloseReason, Desired, MoveReason, ReleaseOutcome};
use crate::spec::PartitionSpec;
use crate::time::WallTime;

use super::kept::Kept;
use super::run::{Told, Troubles};

/// One unit of work and who holds it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Kept")]
pub struct Partition {
    pub(super) key: PartitionKey,
    pub(super) service: ServiceId,
    pub(super) weight: u32,
    pub(super) state: State,
    pub(super) since: WallTime,
    pub(super) changed: Position,
    pub(super) data_version: Position,
    pub(super) run: Option<Told>,
    pub(super) desired: Desired,
    pub(super) doomed: bool,
    pub(super) troubles: Option<Box<Troubles>>,
    pub(super) extra: Option<Box<Extra>>,
    pub(super) revision: Position,
}

/// What few partitions have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extra {
    pub(super) data: Option<Arc<str>>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) priority: i32,
    /// Stored last, and absent in snapshots from before there were any.
    #[serde(default)]
    pub(super) checkpoint: Option<Box<Checkpoint>>,
}

/// Who holds a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Nobody.
    Unassigned(Freed),
    /// The leader chose a session; nothing runs yet.
    Assigned(Holder),
    /// The session acknowledged: it runs, or may at any moment.
    Assumed(Holder),
    /// The leader wants it back; it runs until the session has released it.
    Stopping(Holder, MoveReason),
}

/// The right to run a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Whose it is.
    pub session: SessionId,
    /// The fencing token.
    pub token: Token,
}

/// Why nobody holds a partition. The name of the agent is apart, because nearly all are held and have none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Freed {
    /// It never had an agent since it was created or somebody started it again.
    New,
    /// The leader took it back.
    Taken {
        /// Why.
        reason: MoveReason,
        /// From whom.
        from: Box<AgentName>,
    },
    /// The agent gave it back of its own accord. After [`ReleaseOutcome::Done`] and
    /// [`ReleaseOutcome::Failed`] it stays down until somebody starts it again.
    GivenBack {
        /// How it ended.
        outcome: ReleaseOutcome,
        /// By whom.
        from: Box<AgentName>,
    },
    /// The session that held it expired. `takeover_delay` counts from the folding of that.
    Expired {
        /// Its agent.
        from: Box<AgentName>,
    },
    /// The session that held it was closed with proof of death.
    Closed {
        /// Why.
        reason: CloseReason,
        /// Its agent.
        from: Box<AgentName>,
    },
}

impl Freed {
    /// The agent that had it last.
    #[must_use]
    pub fn from(&self) -> Option<&AgentName> {
        match self {
            Self::New => None,
            Self::Taken { from, .. }
            | Self::GivenBack { from, .. }
            | Self::Expired { from }
            | Self::Closed { from, .. } => Some(from),
        }
    }

    /// The agent that it should rather not go back to: it failed there.
    #[must_use]
    pub fn avoid(&self) -> Option<&AgentName> {
        match self {
            Self::Taken {
                reason: MoveReason::Failing,
                from,
            }
            | Self::GivenBack {
                outcome: ReleaseOutcome::Move,
                from,
            } => Some(from),
            Self::New
            | Self::Taken { .. }
            | Self::GivenBack { .. }
            | Self::Expired { .. }
            | Self::Closed { .. } => None,
        }
    }
}

impl Partition {
    pub(super) fn new(
        spec: &PartitionSpec,
        service: ServiceId,
        at: Position,
        wall: WallTime,
    ) -> Self {
        Self {
            key: spec.key.clone(),
            service,
            weight: spec.weight.max(1),
            state: State::Unassigned(Freed::New),
            since: wall,
            changed: at,
            data_version: at,
            run: None,
            desired: Desired::Running,
            doomed: false,
            troubles: None,
            extra: Extra::of(spec, None),
            revision: at,
        }
    }

    /// Its name within its service.
    #[must_use]
    pub fn key(&self) -> &PartitionKey {
        &self.key
    }

    /// Its service.
    #[must_use]
    pub fn service(&self) -> ServiceId {
        self.service
    }

    /// How heavy it is, at least 1.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Who starts first, higher first.
    #[must_use]
    pub fn priority(&self) -> i32 {
        self.extra.as_ref().map_or(0, |extra| extra.priority)
    }

    /// Its labels.
    #[must_use]
    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.extra.as_ref().map(|extra| &extra.labels)
    }

    /// Its configuration as JSON text.
    #[must_use]
    pub fn data(&self) -> Option<&Arc<str>> {
        self.extra.as_ref().and_then(|extra| extra.data.as_ref())
    }

    /// Where its data was last changed.
    #[must_use]
    pub fn data_version(&self) -> Position {
        self.data_version
    }

    /// Who holds it.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The session and token that hold it, whether assigned, assumed or stopping.
    #[must_use]
    pub fn holder(&self) -> Option<Holder> {
        match self.state {
            State::Assigned(holder) | State::Assumed(holder) | State::Stopping(holder, _) => {
                Some(holder)
            }
            State::Unassigned(_) => None,
        }
    }

    /// The right under which something may execute now: assumed or stopping.
    #[must_use]
    pub fn running_under(&self) -> Option<Holder> {
        match self.state {
            State::Assumed(holder) | State::Stopping(holder, _) => Some(holder),
            State::Assigned(_) | State::Unassigned(_) => None,
        }
    }

    /// Why nobody holds it.
    #[must_use]
    pub fn freed(&self) -> Option<&Freed> {
        match &self.state {
            State::Unassigned(freed) => Some(freed),
            State::Assigned(_) | State::Assumed(_) | State::Stopping(..) => None,
        }
    }

    /// Since when it is in this state, as the leader's wall clock said: for people.
    #[must_use]
    pub fn since(&self) -> WallTime {
        self.since
    }

    /// The last position that changed what its agent is told of it.
    #[must_use]
    pub fn changed(&self) -> Position {
        self.changed
    }

    /// How far its owners have come, as the last of them said.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.extra.as_ref()?.checkpoint.as_deref()
    }

    /// Whether it by itself is to run. Its service may be stopped all the same: see
    /// [`Cluster::wanted`](super::Cluster::wanted).
    #[must_use]
    pub fn desired(&self) -> Desired {
        self.desired
    }

    /// Whether it is gone from its source and exists only until its run has ended.
    #[must_use]
    pub fn doomed(&self) -> bool {
        self.doomed
    }

    /// How it ended for good, if it is to stay down until somebody starts it again:
    /// [`ReleaseOutcome::Done`] or [`ReleaseOutcome::Failed`].
    #[must_use]
    pub fn finished(&self) -> Option<ReleaseOutcome> {
        match self.freed()? {
            Freed::GivenBack {
                outcome: outcome @ (ReleaseOutcome::Done | ReleaseOutcome::Failed),
                ..
            } => Some(*outcome),
            Freed::GivenBack {
                outcome: ReleaseOutcome::Stopped | ReleaseOutcome::Move,
                ..
            }
            | Freed::New
            | Freed::Taken { .. }
            | Freed::Expired { .. }
            | Freed::Closed { .. } => None,
        }
    }

    /// Whether a source that describes it so has nothing new to say.
    #[must_use]
    pub fn described_by(&self, spec: &PartitionSpec) -> bool {
        let plain = Extra::default();
        let extra = self.extra.as_deref().unwrap_or(&plain);
        !self.doomed
            && self.weight == spec.weight.max(1)
            && extra.data.as_deref() == spec.data.as_deref()
            && extra.labels == spec.labels
            && extra.priority == spec.priority
    }

    /// As its source describes it.
    #[must_use]
    pub fn description(&self) -> PartitionSpec {
        let plain = Extra::default();
        let extra = self.extra.as_deref().unwrap_or(&plain);
        PartitionSpec {
            key: self.key.clone(),
            data: extra.data.as_deref().map(Into::into),
            weight: self.weight,
            labels: extra.labels.clone(),
            priority: extra.priority,
        }
    }
}

impl Extra {
    pub(super) fn of(
        spec: &PartitionSpec,
        checkpoint: Option<Box<Checkpoint>>,
    ) -> Option<Box<Self>> {
        let extra = Self {
            data: spec.data.as_deref().map(Arc::from),
            labels: spec.labels.clone(),
            priority: spec.priority,
            checkpoint,
        };
        (extra != Self::default()).then(|| Box::new(extra))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_stays_small_because_there_may_be_a_million() {
        assert!(
            size_of::<Option<Partition>>() <= 112,
            "{}",
            size_of::<Option<Partition>>()
        );
    }
}
