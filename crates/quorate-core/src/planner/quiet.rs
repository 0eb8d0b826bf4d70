//! Moves for the sake of balance wait for a quiet time after a change of what is wanted: somebody who
//! stops a partition, or whose partition has finished, is likely to start it again soon, and nothing
//! else is to move there and back for that.
//!
//! The quiet time of a service is its `ramp.settle`, counted from the last such change anywhere, but
//! never more than a few times as long in all, so that a cluster in which something always happens gets
//! even as well. An agent that comes, goes or changes is no such change and has rules of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::history::{Change, What};
use crate::ids::PartitionId;
use crate::record::ReleaseOutcome;
use crate::time::Moment;

use super::Planner;

/// A move is put off at most so many times `ramp.settle`.
const PUT_OFF_MAX: u32 = 10;

/// Moves that are put off.
#[derive(Clone, Debug, Default)]
pub(super) struct Quiet {
    put_off: BTreeMap<PartitionId, PutOff>,
}

#[derive(Clone, Copy, Debug)]
struct PutOff {
    /// When it was planned.
    planned: Moment,
    until: Moment,
}

impl Quiet {
    /// Until when the move of this partition is put off, if it is.
    pub(super) fn until(&self, id: PartitionId, now: Moment) -> Option<Moment> {
        let put_off = self.put_off.get(&id);
        put_off
            .map(|put_off| put_off.until)
            .filter(|until| *until > now)
    }
}

/// Whether a change is one of what is wanted: somebody or a source asked for it, or a run ended for good.
pub(super) fn stirs(change: &Change) -> bool {
    match change {
        Change::ServiceCreated { .. }
        | Change::ServiceChanged { .. }
        | Change::ServiceRemoved { .. }
        | Change::ServiceDesired { .. } => true,
        Change::Partition { what, .. } => match what {
            What::Created
            | What::Changed
            | What::Restored
            | What::Removed
            | What::Desired(_)
            | What::Revived
            | What::RestartAsked => true,
            What::Released { outcome, .. } => match outcome {
                ReleaseOutcome::Done | ReleaseOutcome::Failed => true,
                ReleaseOutcome::Stopped | ReleaseOutcome::Move => false,
            },
            What::Assigned
            | What::Withdrawn(_)
            | What::Assumed
            | What::Started { .. }
            | What::Ready
            | What::Exited { .. }
            | What::Revoked(_)
            | What::Expired
            | What::Fenced(_)
            | What::Closed(_) => false,
        },
        Change::Elected { .. }
        | Change::DirectorKnown { .. }
        | Change::DirectorForgotten { .. }
        | Change::FormatRaised { .. }
        | Change::SourceRefused { .. }
        | Change::SourceRecovered { .. }
        | Change::SessionOpened { .. }
        | Change::SessionResumed { .. }
        | Change::SessionClosed { .. }
        | Change::SessionExpired { .. }
        | Change::AgentEvicted { .. }
        | Change::AgentFenced { .. }
        | Change::AgentDrifts { .. }
        | Change::AgentSet { .. }
        | Change::AgentForgotten { .. }
        | Change::EraBegan { .. }
        | Change::Access(_)
        | Change::Audited(_) => false,
    }
}

impl Planner {
    /// Places were settled anew. `before` was misplaced already; `by_agents`: an agent has come, gone or
    /// changed, so what is misplaced since then need not wait.
    pub(super) fn put_off(
        &mut self,
        now: Moment,
        cluster: &Cluster,
        before: &BTreeSet<PartitionId>,
        by_agents: bool,
    ) {
        let misplaced = &self.misplaced;
        self.quiet.put_off.retain(|id, _| misplaced.contains(id));
        if by_agents {
            return;
        }
        let new = misplaced.difference(before).copied();
        for id in new.collect::<Vec<_>>() {
            if let Some(settle) = self.settle_of(cluster, id) {
                let (planned, until) = (now, now + settle);
                self.quiet.put_off.insert(id, PutOff { planned, until });
            }
        }
    }

    /// Something that is wanted has changed: whatever is put off waits for quiet from here on.
    pub(super) fn put_off_further(&mut self, now: Moment, cluster: &Cluster) {
        let mut put_off = std::mem::take(&mut self.quiet.put_off);
        for (id, PutOff { planned, until }) in &mut put_off {
            if let Some(settle) = self.settle_of(cluster, *id) {
                *until = (now + settle).min(*planned + settle * PUT_OFF_MAX);
            }
        }
        self.quiet.put_off = put_off;
    }

    fn settle_of(&self, cluster: &Cluster, id: PartitionId) -> Option<Duration> {
        let service = cluster.partition(id)?.service();
        self.services.get(&service).map(|row| row.settle)
    }
}
