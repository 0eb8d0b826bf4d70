//! Calls that are done only while their object is as the caller knows it.
//!
//! The condition is compared with the fold, so a call must never be decided while the entry in the making
//! already holds something that may change its object: it waits for the next entry.

use crate::ids::{PartitionId, Position, ServiceName, SessionId};
use crate::record::Record;

use super::Director;
use super::batch::Batch;
use super::call::{Call, Condition, Conditional, Object, Refusal, Revision};
use super::calls::Decided;
use super::event::Now;

impl Director {
    /// The revision of an object in this director's fold; `None` when there is no such object.
    #[must_use]
    pub fn revision(&self, object: &Object) -> Option<Revision> {
        let position = self.revised_at(object)?;
        let era = self.cluster.era();
        Some(Revision { era, position })
    }

    fn revised_at(&self, object: &Object) -> Option<Position> {
        match object {
            Object::Service(name) => self.cluster.service_revision(name),
            Object::Partition(service, key) => self.cluster.partition_revision(service, key),
            Object::Agent(name) => self.cluster.agent_revision(name),
        }
    }

    /// Decides the call itself first: of what does not exist at all, a caller hears that.
    pub(super) fn decide_conditional(
        &mut self,
        now: Now,
        batch: &mut Batch,
        conditional: Conditional,
    ) -> Decided {
        let Conditional {
            object,
            condition,
            call,
        } = conditional;
        let decided = self.decide_call(now, batch, call)?;
        let unmet = self.unmet(&object, &condition);
        unmet.map_or(Ok(decided), |why| Err(Refusal::Condition(why)))
    }

    fn unmet(&self, object: &Object, condition: &Condition) -> Option<String> {
        let found = self.revision(object);
        match (condition, found) {
            (Condition::Exists, Some(_)) | (Condition::Absent, None) => None,
            (Condition::At(known), Some(found)) if known.contains(&found) => None,
            (Condition::Exists | Condition::At(_), None) => {
                Some(format!("{object} does not exist"))
            }
            (Condition::Absent, Some(_)) => Some(format!("{object} exists already")),
            (Condition::At(_), Some(_)) => Some(format!("{object} has changed since it was read")),
        }
    }

    /// Whether the entry in the making holds something that may change what a call is conditional on.
    pub(super) fn may_be_another(&self, call: &Call, batch: &Batch) -> bool {
        let Call::Conditional(conditional) = call.itself() else {
            return false;
        };
        self.changes_in(batch, &conditional.object)
    }

    /// Whether an object may be another one after the records that are gathered so far.
    pub(super) fn changes_in(&self, batch: &Batch, object: &Object) -> bool {
        let mut records = batch.records().iter();
        records.any(|record| self.may_change(object, record))
    }

    fn may_change(&self, object: &Object, record: &Record) -> bool {
        match record {
            // What counts only with its last part may be about anything.
            Record::Staged { .. } => true,
            Record::Elected { .. }
            | Record::Beat
            | Record::DirectorKnown { .. }
            | Record::DirectorForgotten { .. }
            | Record::Format { .. }
            | Record::Silent { .. }
            | Record::Heard { .. }
            // How far a run has come is no new revision of its partition.
            | Record::CheckpointPut { .. }
            // No condition is about tokens.
            | Record::Access(_)
            | Record::Audited(_)
            | Record::Answered(_) => false,
            Record::ServicePut { name, .. } | Record::ServiceRemoved { name } => {
                self.is_of_service(object, name)
            }
            Record::PartitionsPut { service, .. }
            | Record::PartitionsRemoved { service, .. }
            | Record::SourceStatus { service, .. }
            | Record::DesiredSet { service, .. }
            | Record::RestartAsked { service, .. } => self.is_of_service(object, service),
            Record::Assigned { partition, .. }
            | Record::Withdrawn { partition, .. }
            | Record::Assumed { partition, .. }
            | Record::Revoked { partition, .. }
            | Record::Released { partition, .. }
            | Record::Observed { partition, .. } => self.is_partition(object, *partition),
            Record::AgentSet { agent, .. }
            | Record::AgentForgotten { agent }
            | Record::Drifts { agent, .. } => {
                matches!(object, Object::Agent(name) if name == agent)
            }
            Record::SessionOpened { agent, .. } => {
                matches!(object, Object::Agent(name) if *name == agent.name)
            }
            Record::SessionResumed { session, .. }
            | Record::SessionClosed { session, .. }
            | Record::SessionExpired { session }
            | Record::Fenced { session, .. } => self.is_of_session(object, *session),
            // What it frees is of many services: a rare thing, and to wait for it costs one entry.
            Record::Evicted { .. } => true,
        }
    }

    fn is_of_service(&self, object: &Object, service: &ServiceName) -> bool {
        match object {
            Object::Service(name) | Object::Partition(name, _) => name == service,
            Object::Agent(_) => false,
        }
    }

    /// A release of the last run of a removed partition changes the list of its service as well.
    fn is_partition(&self, object: &Object, id: PartitionId) -> bool {
        let Some(partition) = self.cluster.partition(id) else {
            return false;
        };
        let service = self.cluster.service_of(partition);
        let service = service.map(crate::cluster::Service::name);
        match object {
            Object::Service(name) => partition.doomed() && service == Some(name),
            Object::Partition(name, key) => partition.key() == key && service == Some(name),
            Object::Agent(_) => false,
        }
    }

    fn is_of_session(&self, object: &Object, id: SessionId) -> bool {
        let open = self.cluster.session(id);
        let Some(session) = open.or_else(|| self.cluster.expired().get(&id)) else {
            return false;
        };
        let mut held = session.held().iter();
        match object {
            Object::Agent(name) => session.agent() == name,
            Object::Service(_) | Object::Partition(..) => {
                held.any(|partition| self.is_partition(object, *partition))
            }
        }
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service {name}"),
            Self::Partition(service, key) => write!(f, "partition {service}/{key}"),
            Self::Agent(name) => write!(f, "agent {name}"),
        }
    }
}
