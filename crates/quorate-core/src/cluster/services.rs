//! Folding what people and sources ask for: services, their partitions, and whether they run.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::history::{Change, What};
use crate::ids::{PartitionId, PartitionKey, ServiceId, ServiceName};
use crate::record::{Desired, MoveReason, ReleaseOutcome};
use crate::spec::validate::{Problem, too_many_leases};
use crate::spec::{PartitionSpec, ServiceSpec};

use super::apply::Fold;
use super::partition::{Extra, Freed, Partition, State};
use super::service::Service;
use super::{Cluster, Refused};

/// Which ends for good are undone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Revive {
    /// Somebody starts it: whatever had ended it.
    Finished,
    /// Its data or specification is new: what failed with the old one may well run now.
    Failed,
}

impl Cluster {
    /// What would be wrong with the leases of all services if these were put: however many files people
    /// apply, agents keep a warden for each lease of all of them.
    pub fn too_many_leases<'a>(
        &'a self,
        put: impl Iterator<Item = (&'a ServiceName, &'a ServiceSpec)>,
    ) -> Option<Problem> {
        let in_force = self.services().filter(|(_, service)| !service.removed);
        let in_force = in_force.map(|(_, service)| (&service.name, service.spec.lease_class()));
        let mut leases: BTreeMap<&ServiceName, Duration> = in_force.collect();
        let before: BTreeSet<Duration> = leases.values().copied().collect();
        leases.extend(put.map(|(name, spec)| (name, spec.lease_class())));
        let after: BTreeSet<Duration> = leases.into_values().collect();
        // What is in force already makes nothing worse.
        if after.is_subset(&before) {
            return None;
        }
        too_many_leases("the services of the cluster would", after)
    }

    pub(super) fn put_service(&mut self, fold: &mut Fold, name: ServiceName, spec: ServiceSpec) {
        let id = self.service_ids.get(&name).copied();
        let Some((id, service)) = id.and_then(|id| Some((id, self.services.get_mut(id.0)?))) else {
            let service = Service {
                name: name.clone(),
                spec: Arc::new(spec),
                spec_version: fold.at,
                desired: Desired::Running,
                removed: false,
                problem: None,
                partitions: BTreeMap::new(),
                doomed: 0,
                revision: fold.at,
                list_revision: fold.at,
            };
            let id = ServiceId(self.services.insert(service));
            self.service_ids.insert(name.clone(), id);
            self.spec_changed = fold.at;
            fold.changes.push(Change::ServiceCreated { service: name });
            return;
        };
        let back = service.removed;
        if back {
            service.removed = false;
            service.desired = Desired::Running;
            service.problem = None;
            fold.changes.push(Change::ServiceCreated {
                service: name.clone(),
            });
        }
        if *service.spec == spec {
            return;
        }
        service.spec = Arc::new(spec);
        service.spec_version = fold.at;
        self.spec_changed = fold.at;
        if !back {
            fold.changes.push(Change::ServiceChanged { service: name });
        }
        for partition in self.partitions_of(id) {
            self.revive(fold, partition, Revive::Failed);
        }
    }

    pub(super) fn remove_service(
        &mut self,
        fold: &mut Fold,
        name: &ServiceName,
    ) -> Result<(), Refused> {
        let id = self.live_service(name)?;
        fold.changes.push(Change::ServiceRemoved {
            service: name.clone(),
        });
        let partitions = self.partitions_of(id);
        if let Some(service) = self.services.get_mut(id.0) {
            service.removed = true;
            service.problem = None;
        }
        if partitions.is_empty() {
            self.services.remove(id.0);
            self.service_ids.remove(name);
        }
        for partition in partitions {
            self.remove_partition(fold, partition);
        }
        Ok(())
    }

    pub(super) fn put_partitions(
        &mut self,
        fold: &mut Fold,
        service: &ServiceName,
        specs: &[PartitionSpec],
    ) -> Result<(), Refused> {
        let service_id = self.live_service(service)?;
        for spec in specs {
            let service = self.services.get_mut(service_id.0);
            let Some(place) = service.map(|service| service.partitions.entry(spec.key.clone()))
            else {
                continue;
            };
            match place {
                Entry::Occupied(known) => {
                    let id = *known.get();
                    self.change_partition(fold, id, spec);
                }
                Entry::Vacant(place) => {
                    let partition = Partition::new(spec, service_id, fold.at, fold.wall);
                    let id = PartitionId(self.partitions.insert(partition));
                    place.insert(id);
                    self.note(fold, id, None, What::Created);
                }
            }
        }
        Ok(())
    }

    fn change_partition(&mut self, fold: &mut Fold, id: PartitionId, spec: &PartitionSpec) {
        let Some(partition) = self.partitions.get_mut(id.0) else {
            return;
        };
        if partition.described_by(spec) {
            return;
        }
        let restored = std::mem::take(&mut partition.doomed);
        if restored {
            // It is as good as new; what still runs under the old token ends first.
            partition.desired = Desired::Running;
            partition.set_failures(0);
            if let Some(service) = self.services.get_mut(partition.service.0) {
                service.doomed -= 1;
            }
        }
        let data_changed = partition.data().map(|data| &**data) != spec.data.as_deref();
        partition.weight = spec.weight.max(1);
        let checkpoint = partition.extra.take().and_then(|extra| extra.checkpoint);
        partition.extra = Extra::of(spec, checkpoint);
        if data_changed {
            partition.data_version = fold.at;
        }
        let what = if restored {
            What::Restored
        } else {
            What::Changed
        };
        self.note(fold, id, None, what);
        if data_changed {
            self.tell_holder(fold, id);
            self.revive(fold, id, Revive::Failed);
        }
    }

    pub(super) fn remove_partitions(
        &mut self,
        fold: &mut Fold,
        service: &ServiceName,
        keys: &[PartitionKey],
    ) -> Result<(), Refused> {
        let service_id = self.live_service(service)?;
        for key in keys {
            let service = self.services.get_mut(service_id.0);
            if let Some(id) = service.and_then(|service| service.partitions.get(key).copied()) {
                self.remove_partition(fold, id);
            }
        }
        Ok(())
    }

    fn remove_partition(&mut self, fold: &mut Fold, id: PartitionId) {
        let Some(partition) = self.partitions.get_mut(id.0) else {
            return;
        };
        if partition.doomed {
            return;
        }
        partition.doomed = true;
        if let Some(extra) = &mut partition.extra {
            extra.checkpoint = None;
        }
        let held = partition.holder().is_some();
        if let Some(service) = self.services.get_mut(partition.service.0) {
            service.doomed += 1;
        }
        if held {
            self.take_back(fold, id, MoveReason::Removed);
        } else {
            self.erase(fold, id);
        }
    }

    pub(super) fn set_source_status(
        &mut self,
        fold: &mut Fold,
        name: &ServiceName,
        problem: Option<String>,
    ) -> Result<(), Refused> {
        let id = self.live_service(name)?;
        let Some(service) = self.services.get_mut(id.0) else {
            return Err(Refused::NoService);
        };
        if service.problem == problem {
            return Ok(());
        }
        service.problem.clone_from(&problem);
        let service = name.clone();
        fold.changes.push(match problem {
            Some(problem) => Change::SourceRefused { service, problem },
            None => Change::SourceRecovered { service },
        });
        Ok(())
    }

    pub(super) fn set_desired(
        &mut self,
        fold: &mut Fold,
        name: &ServiceName,
        key: Option<&PartitionKey>,
        desired: Desired,
    ) -> Result<(), Refused> {
        let ids = self.selected(name, key)?;
        if key.is_none() {
            let id = self.live_service(name)?;
            let service = self.services.get_mut(id.0);
            if let Some(service) = service.filter(|service| service.desired != desired) {
                service.desired = desired;
                fold.changes.push(Change::ServiceDesired {
                    service: name.clone(),
                    desired,
                });
            }
        }
        for id in ids {
            if key.is_some() {
                self.set_partition_desired(fold, id, desired);
            }
            match desired {
                Desired::Running => self.revive(fold, id, Revive::Finished),
                Desired::Stopped => self.take_back(fold, id, MoveReason::Stopped),
            }
        }
        Ok(())
    }

    /// Whether it is so already, and to set it would change nothing.
    pub(crate) fn is_desired(
        &self,
        name: &ServiceName,
        key: Option<&PartitionKey>,
        desired: Desired,
    ) -> bool {
        let Ok(ids) = self.selected(name, key) else {
            return false;
        };
        let said = match key {
            None => self.service(name).is_some_and(|s| s.desired == desired),
            Some(_) => true,
        };
        let mut partitions = ids.into_iter().filter_map(|id| self.partition(id));
        said && partitions.all(|partition| {
            let said = key.is_none() || partition.desired == desired;
            let done = match desired {
                Desired::Running => partition.finished().is_none(),
                Desired::Stopped => match partition.state {
                    State::Unassigned(_) | State::Stopping(..) => true,
                    State::Assigned(_) | State::Assumed(_) => false,
                },
            };
            said && done
        })
    }

    fn set_partition_desired(&mut self, fold: &mut Fold, id: PartitionId, desired: Desired) {
        let Some(partition) = self.partitions.get_mut(id.0) else {
            return;
        };
        if partition.desired != desired {
            partition.desired = desired;
            self.note(fold, id, None, What::Desired(desired));
        }
    }

    pub(super) fn ask_restart(
        &mut self,
        fold: &mut Fold,
        name: &ServiceName,
        key: Option<&PartitionKey>,
    ) -> Result<(), Refused> {
        for id in self.selected(name, key)? {
            self.revive(fold, id, Revive::Finished);
            let Some(partition) = self.partitions.get_mut(id.0) else {
                continue;
            };
            let State::Assumed(holder) = partition.state else {
                // What does not run starts afresh anyway.
                continue;
            };
            partition.ask_restart();
            self.tell_holder(fold, id);
            let holder = Some((holder.session, holder.token));
            self.note(fold, id, holder, What::RestartAsked);
        }
        Ok(())
    }

    /// What had ended for good may run again.
    fn revive(&mut self, fold: &mut Fold, id: PartitionId, which: Revive) {
        let Some(partition) = self.partitions.get_mut(id.0) else {
            return;
        };
        let Some(finished) = partition.finished() else {
            return;
        };
        if which == Revive::Failed && finished != ReleaseOutcome::Failed {
            return;
        }
        partition.state = State::Unassigned(Freed::New);
        partition.since = fold.wall;
        partition.set_failures(0);
        self.note(fold, id, None, What::Revived);
    }

    /// Ends a right by a person's or a source's wish: at once when nothing runs under it yet.
    fn take_back(&mut self, fold: &mut Fold, id: PartitionId, reason: MoveReason) {
        let Some(partition) = self.partitions.get_mut(id.0) else {
            return;
        };
        match &mut partition.state {
            // Whatever it was stopped for: should it be listed again before its run has ended, that run is
            // of its former life.
            State::Stopping(_, stopped_for) if reason == MoveReason::Removed => {
                *stopped_for = reason;
            }
            State::Unassigned(_) | State::Stopping(..) => {}
            State::Assigned(_) => self.vacate(fold, id, What::Withdrawn(reason), |from| {
                Freed::Taken { reason, from }
            }),
            State::Assumed(holder) => {
                let holder = *holder;
                self.begin_stop(fold, id, holder, reason);
            }
        }
    }

    /// The holder finds this partition in its next piece of work.
    pub(super) fn tell_holder(&mut self, fold: &Fold, id: PartitionId) {
        let Some(partition) = self.partitions.get_mut(id.0) else {
            return;
        };
        partition.changed = fold.at;
        let Some(holder) = partition.holder() else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&holder.session) {
            session.changed = fold.at;
        }
    }

    fn live_service(&self, name: &ServiceName) -> Result<ServiceId, Refused> {
        let id = self.service_ids.get(name).ok_or(Refused::NoService)?;
        let service = self.services.get(id.0).ok_or(Refused::NoService)?;
        if service.removed {
            return Err(Refused::NoService);
        }
        Ok(*id)
    }

    fn partitions_of(&self, id: ServiceId) -> Vec<PartitionId> {
        let service = self.services.get(id.0);
        service.map_or_else(Vec::new, |s| s.partitions.values().copied().collect())
    }

    /// One partition, or all of a service that are not just going.
    fn selected(
        &self,
        name: &ServiceName,
        key: Option<&PartitionKey>,
    ) -> Result<Vec<PartitionId>, Refused> {
        let id = self.live_service(name)?;
        let live = |id: &PartitionId| self.partition(*id).is_some_and(|p| !p.doomed);
        let Some(key) = key else {
            let mut ids = self.partitions_of(id);
            ids.retain(live);
            return Ok(ids);
        };
        let service = self.services.get(id.0).ok_or(Refused::NoService)?;
        let id = service.partitions.get(key).copied().filter(live);
        Ok(vec![id.ok_or(Refused::NoPartition)?])
    }
}
