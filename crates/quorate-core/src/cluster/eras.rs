//! Eras: what holds of a cluster whose history after some moment is lost (S3, R6, R16).
//!
//! A backup is the past. What was granted after it was made nobody knows any more, and some of it may still be
//! in force: sessions that it does not know, and of those that it knows other work than it says. So a restored
//! cluster begins a new era. Every number that it gives begins above all that any earlier era can have given.
//! Sessions of earlier eras are over for everybody: whoever comes back opens a new one. And nothing at all is
//! given away until the longest lease that can have been granted is over, counted by each leader from the
//! beginning (R6) as if it were one more session. The number of that session is [`LOST`].
//!
//! Work that is kept without a lease never becomes free by waiting. Its services come back stopped, for a person
//! to start once it is certain that nothing of them executes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::history::Change;
use crate::ids::{Epoch, Era, Incarnation, PartitionId, Position, ServiceName, SessionId, Token};
use crate::lease::LeaseTimes;
use crate::record::{Desired, MoveReason};
use crate::spec::ServiceSpec;
use crate::time::WallTime;

use super::apply::Fold;
use super::{Cluster, Refused, Session, State};

/// Stands for every session that the lost history may have opened. No session has this number.
pub const LOST: SessionId = SessionId(0);

/// What may still be in force of a history that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lost {
    /// The longest lease that it can have granted, with the longest `takeover_delay`.
    lease: LeaseTimes,
    /// For how long leaders have recorded that they waited.
    silent_ms: u64,
}

/// How a new era is begun.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewEra {
    /// At least this one; the one after the backup's when it says nothing.
    pub era: Era,
    /// Leases up to this length may have been granted after the backup was made, beside those that it knows.
    pub longest_lease: Duration,
    /// Random: tells this restoration from any other of the same backup.
    pub history: u64,
    /// For people.
    pub wall: WallTime,
}

/// What people must know of a restored cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The state.
    pub cluster: Cluster,
    /// How long its first leader gives nothing away.
    pub waits: Duration,
    /// Services that were stopped because their work is kept without a lease.
    pub stopped: Vec<ServiceName>,
}

/// Why no new era can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EraError {
    /// The one that was asked for is not above that of the backup.
    #[error("era {} was asked for, and the backup is of era {}", asked.0, backup.0)]
    NotAbove {
        /// What was asked for.
        asked: Era,
        /// That of the backup.
        backup: Era,
    },
    /// There are no more.
    #[error("all {} eras are used up", Era::LAST.0)]
    Spent,
}

impl Cluster {
    /// This state as the beginning of a new era.
    ///
    /// # Errors
    /// When there is no such era.
    pub fn in_new_era(mut self, new: NewEra) -> Result<Restored, EraError> {
        let next = Era(self.era.0.saturating_add(1));
        if new.era != Era::default() && new.era < next {
            return Err(EraError::NotAbove {
                asked: new.era,
                backup: self.era,
            });
        }
        let era = next.max(new.era);
        if era > Era::LAST {
            return Err(EraError::Spent);
        }
        let lease = LeaseTimes::of(self.longest_lease().max(new.longest_lease));
        self.era = era;
        self.last_token = Token::new(era, 0);
        self.position = Position(era.first());
        self.epoch = Epoch(era.first());
        self.last_session = SessionId(era.first());
        self.last_incarnation = Incarnation(era.first());
        self.last_hash = new.history;
        self.leader = None;
        // They tell of themselves again, those that there are.
        self.directors.clear();
        self.staged = None;
        self.lost = Some(Lost {
            lease,
            silent_ms: 0,
        });
        for session in self.sessions.values_mut() {
            // It may have been heard again in the lost history.
            session.silent_ms = 0;
        }
        let mut fold = Fold {
            at: self.position,
            wall: new.wall,
            changes: Vec::new(),
        };
        self.forget_runs(&mut fold);
        let stopped = self.stop_kept(&mut fold);
        Ok(Restored {
            cluster: self,
            waits: lease.expiry(),
            stopped,
        })
    }

    /// The longest lease that this state knows of, and the longest delay before anything is taken over.
    fn longest_lease(&self) -> Duration {
        let services = self.services().map(|(_, service)| service.spec());
        let (mut longest, mut delay) = (ServiceSpec::default_lease().0, Duration::ZERO);
        for spec in services {
            if LeaseTimes::of(spec.lease_class()).ends() {
                longest = longest.max(spec.lease.0);
            }
            delay = delay.max(spec.takeover_delay.0);
        }
        let sessions = self.sessions.values().map(|session| session.lease);
        let sessions = sessions.filter(LeaseTimes::ends);
        let sessions = sessions.map(|times| times.lease).max();
        longest.max(sessions.unwrap_or_default()) + delay
    }

    /// Nobody can say any more what became of a run, and what was only assigned can be assumed no more.
    fn forget_runs(&mut self, fold: &mut Fold) {
        let ids: Vec<PartitionId> = self.partitions().map(|(id, _)| id).collect();
        for id in ids {
            let Some(partition) = self.partitions.get_mut(id.0) else {
                continue;
            };
            partition.set_run(None);
            if let State::Assigned(holder) = partition.state {
                let withdrawn = self.withdraw(fold, id, holder.token, MoveReason::Unacknowledged);
                debug_assert_eq!(withdrawn, Ok(()), "{id} is held under that token");
            }
        }
    }

    fn stop_kept(&mut self, fold: &mut Fold) -> Vec<ServiceName> {
        let services = self.services().filter(|(_, service)| {
            let kept = !LeaseTimes::of(service.spec().lease_class()).ends();
            kept && service.desired() == Desired::Running && !service.removed()
        });
        let kept: Vec<ServiceName> = services
            .map(|(_, service)| service.name().clone())
            .collect();
        for service in &kept {
            let stopped = self.set_desired(fold, service, None, Desired::Stopped);
            debug_assert_eq!(stopped, Ok(()), "{service} is there");
        }
        kept
    }

    /// Whether a session is of an earlier era, and so over for everybody but who takes what it held.
    #[must_use]
    pub fn exiled(&self, session: SessionId) -> bool {
        session.0 <= self.era.first()
    }

    /// An open session of this era, which its agent can speak for.
    #[must_use]
    pub fn in_force(&self, session: SessionId) -> Option<&Session> {
        let open = self.session(session);
        open.filter(|session| !self.exiled(session.id))
    }

    /// The longest lease that a lost history can have granted, while something of it may be in force, and for
    /// how long leaders have recorded that they waited for its end.
    #[must_use]
    pub fn lost(&self) -> Option<(LeaseTimes, Duration)> {
        let lost = self.lost?;
        Some((lost.lease, Duration::from_millis(lost.silent_ms)))
    }

    pub(super) fn note_lost_silence(&mut self, for_ms: u64) -> Result<(), Refused> {
        let lost = self.lost.as_mut().ok_or(Refused::NoSession)?;
        lost.silent_ms = for_ms;
        Ok(())
    }

    /// Nothing that the lost history has granted is in force any more, but what is kept without a lease.
    pub(super) fn begin_era(&mut self, fold: &mut Fold) -> Result<(), Refused> {
        if self.lost.take().is_none() {
            return Err(Refused::NoSession);
        }
        let over = self.sessions.values();
        let over = over.filter(|session| self.exiled(session.id) && session.lease.ends());
        let over: Vec<SessionId> = over.map(Session::id).collect();
        for session in over {
            self.expire_session(fold, session)?;
        }
        fold.changes.push(Change::EraBegan { era: self.era });
        Ok(())
    }
}
