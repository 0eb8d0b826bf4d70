//! Folding the end of silent sessions: what is free at once, and what waits until a fence hook has made
//! sure that its former agent can do no harm (R7, T9).
//!
//! A session that has expired is over for everybody: it cannot be renewed, resumed or reported for. What it
//! held for services with a fence hook stays held by it, so that nothing can start in its place, and
//! removing and listing it again is no way around the hook.

use std::collections::BTreeSet;

use crate::history::{Change, What};
use crate::ids::{AgentName, HookName, PartitionId, SessionId};

use super::apply::Fold;
use super::eras::LOST;
use super::partition::Freed;
use super::session::Session;
use super::{Cluster, Refused};

impl Cluster {
    /// The hook that must succeed before a partition that runs under a silent session is free.
    #[must_use]
    pub fn fence_of(&self, id: PartitionId) -> Option<&HookName> {
        let partition = self.partition(id)?;
        // What was only assigned has never run.
        partition.running_under()?;
        self.service_of(partition)?.spec().fence.as_ref()
    }

    /// The hooks that a session waits for, or would wait for.
    #[must_use]
    pub fn fences_of(&self, session: &Session) -> BTreeSet<&HookName> {
        let held = session.held.iter();
        held.filter_map(|id| self.fence_of(*id)).collect()
    }

    pub(super) fn expire_session(&mut self, fold: &mut Fold, id: SessionId) -> Result<(), Refused> {
        if id == LOST {
            return self.begin_era(fold);
        }
        let open = self.sessions.remove(&id);
        let session = open.or_else(|| self.expired.remove(&id));
        let session = session.ok_or(Refused::NoSession)?;
        let held: Vec<PartitionId> = session.held.iter().copied().collect();
        if let Some(agent) = self.agents.get_mut(&session.agent) {
            agent.sessions.remove(&id);
            agent.expired.insert(id);
            agent.last_seen = fold.wall;
        }
        let agent = session.agent.clone();
        self.expired.insert(id, session);
        let fenced = held.iter().filter(|id| self.fence_of(**id).is_some());
        let fenced: BTreeSet<PartitionId> = fenced.copied().collect();
        fold.changes.push(Change::SessionExpired {
            session: id,
            agent,
            freed: held.len() - fenced.len(),
            unfenced: fenced.len(),
        });
        for partition in held {
            if fenced.contains(&partition) {
                // Nobody can say any more what became of its run.
                if let Some(partition) = self.partitions.get_mut(partition.0) {
                    partition.set_run(None);
                }
            } else {
                self.vacate(fold, partition, What::Expired, |from| Freed::Expired {
                    from,
                });
            }
        }
        self.end_if_empty(fold, id);
        Ok(())
    }

    /// A hook has succeeded: what waited for it is free. Of a session that is still open, because its work
    /// is kept without a lease, only that is taken.
    pub(super) fn fence(
        &mut self,
        fold: &mut Fold,
        id: SessionId,
        agent: AgentName,
        hook: &HookName,
    ) {
        let open = self.sessions.get(&id).or_else(|| self.expired.get(&id));
        let held = open.into_iter().flat_map(|session| session.held.iter());
        let waiting = held.filter(|partition| self.fence_of(**partition) == Some(hook));
        let waiting: Vec<PartitionId> = waiting.copied().collect();
        fold.changes.push(Change::AgentFenced {
            agent,
            session: id,
            hook: hook.clone(),
            freed: waiting.len(),
        });
        for partition in waiting {
            let what = What::Fenced(hook.clone());
            self.vacate(fold, partition, what, |from| Freed::Expired { from });
        }
    }

    /// An expired session ends with the last thing that it held.
    pub(super) fn end_if_empty(&mut self, fold: &Fold, id: SessionId) {
        let expired = self.expired.get(&id);
        if expired.is_some_and(|session| session.held.is_empty()) {
            self.end_session(fold, id);
        }
    }
}
