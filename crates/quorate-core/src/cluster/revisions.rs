//! Where each object last changed. A caller names the revision that it has seen, and the leader refuses
//! to change an object that is another by now.
//!
//! Every change that history tells is a new revision of what it is about. Nothing in the fold depends on
//! a revision: what the leader decides by it is recorded, and never decided again.

use crate::history::{Change, What};
use crate::ids::{AgentName, PartitionId, PartitionKey, Position, ServiceName};
use crate::record::MoveReason;

use super::Cluster;

impl Cluster {
    /// Where anything last changed that people ask of a service: its specification, its list, whether it
    /// is to run, or what they are told of its source. `None` when there is none, or it is removed.
    #[must_use]
    pub fn service_revision(&self, name: &ServiceName) -> Option<Position> {
        self.service(name).map(|service| service.revision)
    }

    /// Where a partition last changed in any way. `None` when there is none.
    #[must_use]
    pub fn partition_revision(
        &self,
        service: &ServiceName,
        key: &PartitionKey,
    ) -> Option<Position> {
        let partition = self.partition(self.partition_id(service, key)?)?;
        Some(partition.revision)
    }

    /// Where an agent last described itself, opened or ended a session, or was drained or cordoned.
    /// `None` when it is not known.
    #[must_use]
    pub fn agent_revision(&self, name: &AgentName) -> Option<Position> {
        self.agents.get(name).map(|agent| agent.revision)
    }

    /// Where any partition of a service last changed, or the service itself.
    #[must_use]
    pub fn list_revision(&self, name: &ServiceName) -> Option<Position> {
        let service = self.service_by_id(self.service_id(name)?)?;
        Some(service.list_revision)
    }

    /// Notes what an entry changed.
    pub(super) fn revise(&mut self, at: Position, changes: &[Change]) {
        for change in changes {
            match change {
                Change::ServiceCreated { service }
                | Change::ServiceChanged { service }
                | Change::ServiceRemoved { service }
                | Change::ServiceDesired { service, .. }
                | Change::SourceRefused { service, .. }
                | Change::SourceRecovered { service } => self.revise_service(at, service),
                Change::Partition { subject, what, .. } => {
                    self.revise_partition(at, subject.partition);
                    if lists(what) {
                        self.revise_service(at, &subject.service);
                    }
                }
                Change::SessionOpened { agent, .. }
                | Change::SessionResumed { agent, .. }
                | Change::SessionClosed { agent, .. }
                | Change::SessionExpired { agent, .. }
                | Change::AgentEvicted { agent, .. }
                | Change::AgentFenced { agent, .. }
                | Change::AgentDrifts { agent, .. }
                | Change::AgentSet { agent, .. }
                | Change::AgentForgotten { agent } => {
                    if let Some(agent) = self.agents.get_mut(agent) {
                        agent.revision = at;
                    }
                }
                Change::Elected { .. }
                | Change::DirectorKnown { .. }
                | Change::DirectorForgotten { .. }
                | Change::FormatRaised { .. }
                | Change::EraBegan { .. }
                | Change::Access(_)
                | Change::Audited(_) => {}
            }
        }
    }

    pub(super) fn revise_partition(&mut self, at: Position, id: PartitionId) {
        let Some(partition) = self.partitions.get_mut(id.0) else {
            return;
        };
        partition.revision = at;
        if let Some(service) = self.services.get_mut(partition.service.0) {
            service.list_revision = at;
        }
    }

    fn revise_service(&mut self, at: Position, name: &ServiceName) {
        let id = self.service_ids.get(name);
        let Some(service) = id.and_then(|id| self.services.get_mut(id.0)) else {
            return;
        };
        service.list_revision = at;
        service.revision = at;
    }
}

/// Whether the list of the service is another with this, and not only what became of one partition.
fn lists(what: &What) -> bool {
    match what {
        What::Created
        | What::Changed
        | What::Restored
        | What::Removed
        | What::Withdrawn(MoveReason::Removed)
        | What::Revoked(MoveReason::Removed) => true,
        What::Desired(_)
        | What::Revived
        | What::RestartAsked
        | What::Assigned
        | What::Withdrawn(_)
        | What::Assumed
        | What::Started { .. }
        | What::Ready
        | What::Exited { .. }
        | What::Revoked(_)
        | What::Released { .. }
        | What::Expired
        | What::Fenced(_)
        | What::Closed(_) => false,
    }
}
