//! Folding who may run what: assigned, assumed, stopping, released (S1, S3, S5, R8-R11).

use crate::history::What;
use crate::ids::{PartitionId, SessionId, Token};
use crate::record::{Exit, ExitClass, MoveReason, ReleaseOutcome, RunPhase, RunReport};

use super::apply::Fold;
use super::partition::{Freed, Holder, State};
use super::run::Run;
use super::{Cluster, Refused};

/// How an assumption ended.
pub(super) struct Ending {
    pub(super) token: Token,
    pub(super) outcome: ReleaseOutcome,
    pub(super) exit: Option<Exit>,
    pub(super) failures: u32,
}

impl Cluster {
    pub(super) fn assign(
        &mut self,
        fold: &mut Fold,
        id: PartitionId,
        session: SessionId,
        token: Token,
    ) -> Result<(), Refused> {
        if token.era() != self.era || token <= self.last_token {
            return Err(Refused::Token);
        }
        // Even a refused assignment uses its token up, so that none is ever seen twice in the log.
        self.last_token = token;
        if self.lost.is_some() {
            return Err(Refused::Lost);
        }
        if self.exiled(session) {
            return Err(Refused::NoSession);
        }
        let partition = self.partition(id).ok_or(Refused::NoPartition)?;
        if partition.holder().is_some() {
            return Err(Refused::Held);
        }
        if !self.wanted(partition) {
            return Err(Refused::NotWanted);
        }
        let holder = self.sessions.get_mut(&session).ok_or(Refused::NoSession)?;
        holder.held.insert(id);
        if let Some(partition) = self.partitions.get_mut(id.0) {
            partition.flee();
        }
        self.enter(fold, id, State::Assigned(Holder { session, token }));
        self.tell_holder(fold, id);
        self.note(fold, id, Some((session, token)), What::Assigned);
        Ok(())
    }

    pub(super) fn withdraw(
        &mut self,
        fold: &mut Fold,
        id: PartitionId,
        token: Token,
        reason: MoveReason,
    ) -> Result<(), Refused> {
        let partition = self.partition(id).ok_or(Refused::NoPartition)?;
        match partition.state {
            State::Assigned(holder) if holder.token == token => {}
            State::Assigned(_) | State::Unassigned(_) | State::Assumed(_) | State::Stopping(..) => {
                return Err(Refused::NotHolder);
            }
        }
        self.vacate(fold, id, What::Withdrawn(reason), |from| Freed::Taken {
            reason,
            from,
        });
        Ok(())
    }

    pub(super) fn assume(
        &mut self,
        fold: &mut Fold,
        id: PartitionId,
        session: SessionId,
        token: Token,
    ) -> Result<(), Refused> {
        // What was assigned before the restore may have been taken back and given to another since.
        if !self.sessions.contains_key(&session) || self.exiled(session) {
            return Err(Refused::NoSession);
        }
        let partition = self.partitions.get_mut(id.0);
        let partition = partition.ok_or(Refused::NoPartition)?;
        let holder = Holder { session, token };
        if partition.state != State::Assigned(holder) {
            return Err(Refused::NotHolder);
        }
        partition.set_run(None);
        // The holder asked for this and is answered; it need not hear it again with its work.
        self.enter(fold, id, State::Assumed(holder));
        self.note(fold, id, Some((session, token)), What::Assumed);
        Ok(())
    }

    pub(super) fn revoke(
        &mut self,
        fold: &mut Fold,
        id: PartitionId,
        token: Token,
        reason: MoveReason,
    ) -> Result<(), Refused> {
        let partition = self.partition(id).ok_or(Refused::NoPartition)?;
        match partition.state {
            State::Assumed(holder) if holder.token == token => {
                self.begin_stop(fold, id, holder, reason);
                Ok(())
            }
            State::Assumed(_) | State::Unassigned(_) | State::Assigned(_) | State::Stopping(..) => {
                Err(Refused::NotHolder)
            }
        }
    }

    pub(super) fn begin_stop(
        &mut self,
        fold: &mut Fold,
        id: PartitionId,
        holder: Holder,
        reason: MoveReason,
    ) {
        self.enter(fold, id, State::Stopping(holder, reason));
        self.tell_holder(fold, id);
        let holder = Some((holder.session, holder.token));
        self.note(fold, id, holder, What::Revoked(reason));
    }

    pub(super) fn release(
        &mut self,
        fold: &mut Fold,
        id: PartitionId,
        ending: Ending,
    ) -> Result<(), Refused> {
        let partition = self.partitions.get_mut(id.0);
        let partition = partition.ok_or(Refused::NoPartition)?;
        let taken = match partition.state {
            State::Assumed(holder) if holder.token == ending.token => None,
            State::Stopping(holder, reason) if holder.token == ending.token => Some(reason),
            State::Assumed(_) | State::Stopping(..) | State::Unassigned(_) | State::Assigned(_) => {
                return Err(Refused::NotHolder);
            }
        };
        partition.set_failures(ending.failures);
        partition.end_run(ending.exit.clone());
        let last = last_exit(partition.run(), &ending);
        let holder = partition.running_under();
        if let (Some(what), Some(holder)) = (last, holder) {
            self.note(fold, id, Some((holder.session, holder.token)), what);
        }
        let what = What::Released {
            outcome: ending.outcome,
            exit: ending.exit,
        };
        self.vacate(fold, id, what, |from| match (taken, ending.outcome) {
            (Some(reason), ReleaseOutcome::Stopped | ReleaseOutcome::Move) => {
                Freed::Taken { reason, from }
            }
            // It ended for good just before it was to be stopped: that counts.
            (Some(_), outcome @ (ReleaseOutcome::Done | ReleaseOutcome::Failed))
            | (None, outcome) => Freed::GivenBack { outcome, from },
        });
        Ok(())
    }

    pub(super) fn observe(
        &mut self,
        fold: &mut Fold,
        id: PartitionId,
        token: Token,
        run: RunReport,
    ) -> Result<(), Refused> {
        let partition = self.partitions.get_mut(id.0);
        let partition = partition.ok_or(Refused::NoPartition)?;
        let holder = partition.running_under().ok_or(Refused::NotHolder)?;
        if holder.token != token {
            return Err(Refused::NotHolder);
        }
        let (before, now) = (partition.run(), Run::from(&run));
        let news = seen(before, now);
        let differs = before != Some(now);
        partition.set_run(Some(run));
        if differs {
            // Not everything that a report tells is worth a line of history.
            self.revise_partition(fold.at, id);
        }
        let holder = Some((holder.session, holder.token));
        for what in news {
            self.note(fold, id, holder, what);
        }
        Ok(())
    }

    fn enter(&mut self, fold: &Fold, id: PartitionId, state: State) {
        if let Some(partition) = self.partitions.get_mut(id.0) {
            partition.state = state;
            partition.since = fold.wall;
        }
    }
}

/// How the last attempt under a token ended, where no report has told it: no other attempt follows, so
/// there is no pause to report it with. That somebody stopped it is told by its release.
fn last_exit(run: Option<Run<'_>>, ending: &Ending) -> Option<What> {
    let run = run.filter(|run| run.phase != RunPhase::Backoff)?;
    let exit = ending.exit.clone()?;
    let attempt = run.attempt;
    match ending.outcome {
        ReleaseOutcome::Stopped | ReleaseOutcome::Move if exit.class == ExitClass::Stopped => None,
        ReleaseOutcome::Stopped
        | ReleaseOutcome::Move
        | ReleaseOutcome::Done
        | ReleaseOutcome::Failed => Some(What::Exited { attempt, exit }),
    }
}

/// What a report tells that the one before did not.
fn seen(before: Option<Run<'_>>, now: Run<'_>) -> Vec<What> {
    let attempt = now.attempt;
    let same = before.filter(|before| before.attempt == attempt);
    let was = same.map(|before| before.phase);
    let mut what = Vec::new();
    let begun = match (now.phase, now.exit) {
        // It may have begun and ended between two reports.
        (RunPhase::Backoff, Some(exit)) => exit.class != ExitClass::NotStarted,
        (RunPhase::Backoff, None) => false,
        (RunPhase::Starting | RunPhase::Ready | RunPhase::Stopping, _) => true,
    };
    if same.is_none() && begun {
        what.push(What::Started {
            attempt,
            pid: now.pid,
        });
    }
    if now.phase == RunPhase::Ready && was != Some(RunPhase::Ready) {
        what.push(What::Ready);
    }
    if now.phase == RunPhase::Backoff && was != Some(RunPhase::Backoff) {
        let exit = now.exit.cloned();
        what.extend(exit.map(|exit| What::Exited { attempt, exit }));
    }
    what
}
