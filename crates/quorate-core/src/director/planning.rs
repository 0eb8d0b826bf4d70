//! What the planner wants, as records: withdrawn, revoked and assigned, with new tokens.

use crate::planner::{Decision, Planner};
use crate::record::Record;
use crate::time::Moment;

use super::Director;
use super::batch::Batch;

/// The planner of this leadership, and when it wants to be asked again.
#[derive(Debug)]
pub(super) struct Planning {
    pub(super) planner: Planner,
    wake_at: Option<Moment>,
}

impl Planning {
    pub(super) fn new(planner: Planner) -> Self {
        Self {
            planner,
            wake_at: None,
        }
    }

    /// When the planner wants to be asked again.
    pub(super) fn next(&self) -> Option<Moment> {
        self.wake_at
    }
}

impl Director {
    /// The planner of this leadership: tells what waits and why. `None` while another director leads.
    #[must_use]
    pub fn planner(&self) -> Option<&Planner> {
        self.planning.as_ref().map(|planning| &planning.planner)
    }

    /// Puts what is to be done now into the batch, before anything else changes the partitions that the
    /// planner has looked at. What does not fit is decided again after the fold.
    pub(super) fn plan(&mut self, now: Moment, batch: &mut Batch) {
        let Some(planning) = &mut self.planning else {
            return;
        };
        let silent = self.clocks.silent();
        let decision = planning.planner.decide(now, &self.cluster, silent);
        // A time that is past already would wake this director for nothing, again and again.
        planning.wake_at = decision.wake_at.filter(|at| *at > now);
        if self.cluster.lost().is_some() {
            // Who holds what is known only as of the backup, and it may execute elsewhere. The planner is asked
            // all the same, so that it can tell what it will do.
            planning.wake_at = None;
            return;
        }
        // As it is in nearly every step.
        if decision.is_empty() {
            return;
        }
        let Decision {
            assign,
            withdraw,
            revoke,
            wake_at: _,
        } = decision;
        let withdrawn = withdraw.into_iter();
        let mut records: Vec<Record> = withdrawn
            .map(|(partition, token, reason)| Record::Withdrawn {
                partition,
                token,
                reason,
            })
            .collect();
        let revoked = revoke.into_iter();
        records.extend(revoked.map(|(partition, token, reason)| Record::Revoked {
            partition,
            token,
            reason,
        }));
        let assigned = assign.into_iter();
        records.extend(assigned.map(|(partition, session)| Record::Assigned {
            partition,
            session,
            token: batch.mint_token(),
        }));
        for record in records {
            if !batch.push(record) {
                return;
            }
        }
    }
}
