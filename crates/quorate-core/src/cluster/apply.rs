//! Folding one entry: who may write, then each record to its module.

use std::collections::BTreeSet;

use crate::audit::Audit;
use crate::format::{FORMATS, Formats};
use crate::history::{Change, What};
use crate::ids::{BatchId, PartitionId, Position, ServiceName, SessionId, Token};
use crate::record::{self, DecodeError, Entry, Header, Record};
use crate::repeats::{Answered, Before};
use crate::time::WallTime;

use super::partition::{Freed, Holder, State};
use super::{Applied, Cluster, Leader, Outcome, Refused, Staged};

/// Why the bytes at a position cannot be folded; all of them mean stop.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// Not an entry of a format that this director reads.
    #[error("position {position} cannot be folded")]
    Decode {
        /// Where.
        position: Position,
        /// Why.
        #[source]
        cause: DecodeError,
    },
    /// The entry does not follow the one folded before it: the store lost or changed its history.
    #[error("position {position} belongs to another history than what this director has folded")]
    OtherHistory {
        /// Where.
        position: Position,
    },
}

/// What the folding of one entry carries along.
pub(super) struct Fold {
    pub(super) at: Position,
    pub(super) wall: WallTime,
    pub(super) changes: Vec<Change>,
}

impl Cluster {
    /// Decodes and folds the entry at the next position, in any format that this build reads.
    ///
    /// # Errors
    /// As [`fold_of`](Self::fold_of).
    pub fn fold(&mut self, bytes: &[u8]) -> Result<(Header, Applied), FoldError> {
        self.fold_of(bytes, FORMATS)
    }

    /// Decodes and folds the entry at the next position, in one of these formats, and checks that it follows
    /// the one before.
    ///
    /// # Errors
    /// When it cannot be read or does not follow; nothing is changed then.
    pub fn fold_of(
        &mut self,
        bytes: &[u8],
        formats: Formats,
    ) -> Result<(Header, Applied), FoldError> {
        let position = self.position.next();
        let entry = Entry::decode_of(bytes, formats);
        let entry = entry.map_err(|cause| FoldError::Decode { position, cause })?;
        let header = entry.header;
        if header.predecessor != self.last_hash {
            return Err(FoldError::OtherHistory { position });
        }
        let applied = self.apply(position, entry);
        self.last_hash = record::hash(bytes);
        Ok((header, applied))
    }

    /// Folds the entry at the next position.
    ///
    /// # Panics
    /// When it is not the next position: folding with a gap would silently make another state.
    pub fn apply(&mut self, position: Position, entry: Entry) -> Applied {
        assert_eq!(
            position,
            self.position.next(),
            "entry {position} folded after {}",
            self.position
        );
        self.position = position;
        let mut fold = Fold {
            at: position,
            wall: entry.header.wall,
            changes: Vec::new(),
        };
        let outcomes = match elected(entry) {
            Ok((header, leader)) => vec![self.elect(&mut fold, header, leader).into()],
            Err(entry) if entry.header.epoch != self.epoch => {
                vec![Outcome::Refused(Refused::Epoch); entry.records.len()]
            }
            Err(entry) => {
                let mut outcomes = Vec::with_capacity(entry.records.len());
                for record in entry.records {
                    let folded = if let Record::Audited(audit) = record {
                        audited(&mut fold, *audit, &outcomes);
                        Ok(())
                    } else if let Record::Answered(answered) = record {
                        self.remember(&fold, *answered, &outcomes);
                        Ok(())
                    } else {
                        self.record(&mut fold, record)
                    };
                    outcomes.push(folded.into());
                }
                outcomes
            }
        };
        self.revise(position, &fold.changes);
        Applied {
            outcomes,
            changes: fold.changes,
        }
    }

    fn elect(&mut self, fold: &mut Fold, header: Header, leader: Leader) -> Result<(), Refused> {
        if header.epoch != self.epoch.next() {
            return Err(Refused::Epoch);
        }
        self.epoch = header.epoch;
        self.staged = None;
        fold.changes.push(Change::Elected {
            name: leader.name.clone(),
            epoch: header.epoch,
        });
        self.leader = Some(leader);
        Ok(())
    }

    fn record(&mut self, fold: &mut Fold, record: Record) -> Result<(), Refused> {
        match record {
            Record::Elected { .. } => Err(Refused::Epoch),
            Record::Beat => Ok(()),
            Record::DirectorKnown { director } => self.know_director(fold, director),
            Record::DirectorForgotten { director } => self.forget_director(fold, director),
            Record::ServicePut { name, spec } => {
                self.put_service(fold, name, *spec);
                Ok(())
            }
            Record::ServiceRemoved { name } => self.remove_service(fold, &name),
            Record::PartitionsPut {
                service,
                partitions,
            } => self.put_partitions(fold, &service, &partitions),
            Record::PartitionsRemoved { service, keys } => {
                self.remove_partitions(fold, &service, &keys)
            }
            Record::Staged {
                change,
                records,
                last,
            } => self.stage(fold, change, records, last),
            Record::SourceStatus { service, problem } => {
                self.set_source_status(fold, &service, problem)
            }
            Record::DesiredSet {
                service,
                key,
                desired,
            } => self.set_desired(fold, &service, key.as_ref(), desired),
            Record::RestartAsked { service, key } => self.ask_restart(fold, &service, key.as_ref()),
            Record::AgentSet { agent, schedulable } => self.set_agent(fold, agent, schedulable),
            Record::AgentForgotten { agent } => self.forget_agent(fold, agent),
            Record::SessionOpened {
                session,
                incarnation,
                agent,
                lease,
                secret_hash,
                process,
            } => self.open_session(
                fold,
                super::sessions::Opening {
                    session,
                    incarnation,
                    agent: *agent,
                    lease,
                    secret_hash,
                    process,
                },
            ),
            Record::SessionResumed {
                session,
                incarnation,
                process,
            } => self.resume_session(fold, session, incarnation, process),
            Record::SessionClosed { session, reason } => self.close_session(fold, session, reason),
            Record::SessionExpired { session } => self.expire_session(fold, session),
            Record::Evicted { agent, reason } => self.evict(fold, &agent, reason),
            Record::Silent { session, for_ms } => self.note_silence(session, for_ms),
            Record::Heard { session } => self.note_silence(session, 0),
            Record::Fenced {
                session,
                agent,
                hook,
            } => {
                self.fence(fold, session, agent, &hook);
                Ok(())
            }
            Record::Drifts { agent, ppm } => self.note_drift(fold, agent, ppm),
            Record::Assigned {
                partition,
                session,
                token,
            } => self.assign(fold, partition, session, token),
            Record::Withdrawn {
                partition,
                token,
                reason,
            } => self.withdraw(fold, partition, token, reason),
            Record::Assumed {
                partition,
                session,
                token,
            } => self.assume(fold, partition, session, token),
            Record::Revoked {
                partition,
                token,
                reason,
            } => self.revoke(fold, partition, token, reason),
            Record::Released {
                partition,
                token,
                outcome,
                exit,
                failures,
            } => self.release(
                fold,
                partition,
                super::rights::Ending {
                    token,
                    outcome,
                    exit,
                    failures,
                },
            ),
            Record::Observed {
                partition,
                token,
                run,
            } => self.observe(fold, partition, token, run),
            Record::CheckpointPut {
                partition,
                token,
                number,
                content,
                tell,
            } => self.put_checkpoint(
                fold,
                partition,
                super::checkpoints::Written {
                    token,
                    number,
                    content,
                    tell,
                },
            ),
            Record::Access(record) => self.fold_access(fold, record),
            Record::Format { format } => self.raise_format(fold, format),
            // They are about the records before them in their entry, and a part of a change has none.
            Record::Audited(_) | Record::Answered(_) => Err(Refused::Staged),
        }
    }

    /// Collects the parts of a large change; all of them count at once with the last one.
    fn stage(
        &mut self,
        fold: &mut Fold,
        change: BatchId,
        mut records: Vec<Record>,
        last: bool,
    ) -> Result<(), Refused> {
        let mut whole = match self.staged.take() {
            Some(staged) if staged.change == change => staged.records,
            Some(_) | None => Vec::new(),
        };
        whole.append(&mut records);
        if !last {
            self.staged = Some(Staged {
                change,
                records: whole,
            });
            return Ok(());
        }
        self.check_staged(&whole)?;
        for record in whole {
            self.record(fold, record)?;
        }
        Ok(())
    }

    /// Whether every record of a staged change would be accepted: it is all or nothing.
    fn check_staged(&self, records: &[Record]) -> Result<(), Refused> {
        let mut put: BTreeSet<&ServiceName> = BTreeSet::new();
        for record in records {
            let service = match record {
                Record::ServicePut { name, .. } => {
                    put.insert(name);
                    continue;
                }
                Record::PartitionsPut { service, .. }
                | Record::PartitionsRemoved { service, .. }
                | Record::SourceStatus { service, .. } => service,
                Record::Elected { .. }
                | Record::Beat
                | Record::DirectorKnown { .. }
                | Record::DirectorForgotten { .. }
                | Record::ServiceRemoved { .. }
                | Record::Staged { .. }
                | Record::DesiredSet { .. }
                | Record::RestartAsked { .. }
                | Record::AgentSet { .. }
                | Record::AgentForgotten { .. }
                | Record::SessionOpened { .. }
                | Record::SessionResumed { .. }
                | Record::SessionClosed { .. }
                | Record::SessionExpired { .. }
                | Record::Evicted { .. }
                | Record::Silent { .. }
                | Record::Heard { .. }
                | Record::Fenced { .. }
                | Record::Drifts { .. }
                | Record::Assigned { .. }
                | Record::Withdrawn { .. }
                | Record::Assumed { .. }
                | Record::Revoked { .. }
                | Record::Released { .. }
                | Record::Observed { .. }
                | Record::CheckpointPut { .. }
                | Record::Access(_)
                | Record::Format { .. }
                | Record::Audited(_)
                | Record::Answered(_) => return Err(Refused::Staged),
            };
            if !put.contains(service) && self.service(service).is_none() {
                return Err(Refused::Staged);
            }
        }
        Ok(())
    }

    /// Remembers how a request was answered. One of which something was refused is to be tried again when it
    /// is repeated.
    fn remember(&mut self, fold: &Fold, answered: Answered, outcomes: &[Outcome]) {
        let Answered { key, records, told } = answered;
        let mut its_own = outcomes.iter().rev().take(records);
        if its_own.all(|outcome| *outcome == Outcome::Accepted) {
            let (at, wall) = (fold.at, fold.wall);
            self.repeats.keep(Before {
                key,
                at,
                wall,
                told,
            });
        }
    }

    /// Tells history about a partition.
    pub(super) fn note(
        &self,
        fold: &mut Fold,
        id: PartitionId,
        holder: Option<(SessionId, Token)>,
        what: What,
    ) {
        let Some(subject) = self.subject(id) else {
            return;
        };
        let holder = holder.map(|(session, token)| Holder { session, token });
        fold.changes.push(Change::Partition {
            subject,
            token: holder.map(|holder| holder.token),
            agent: holder.and_then(|holder| self.agent_holding(holder).cloned()),
            what,
        });
    }

    /// Nobody holds the partition any more. One that is doomed is gone with that.
    pub(super) fn vacate(
        &mut self,
        fold: &mut Fold,
        id: PartitionId,
        what: What,
        freed: impl FnOnce(Box<crate::ids::AgentName>) -> Freed,
    ) {
        let Some(holder) = self.partition(id).and_then(super::Partition::holder) else {
            return;
        };
        self.note(fold, id, Some((holder.session, holder.token)), what);
        let open = self.sessions.get_mut(&holder.session);
        let session = open
            .or_else(|| self.expired.get_mut(&holder.session))
            .unwrap_or_else(|| panic!("partition {id} is held by no session {}", holder.session));
        session.lose(id, holder.token, fold.at);
        let from = session.agent.clone();
        let Some(partition) = self.partitions.get_mut(id.0) else {
            return;
        };
        partition.state = State::Unassigned(freed(Box::new(from)));
        partition.since = fold.wall;
        partition.changed = fold.at;
        partition.forget_process();
        if partition.doomed {
            self.erase(fold, id);
        }
        self.end_if_empty(fold, holder.session);
    }

    /// The slot of a partition that nobody holds becomes free; a removed service goes with its last one.
    pub(super) fn erase(&mut self, fold: &mut Fold, id: PartitionId) {
        self.note(fold, id, None, What::Removed);
        let Some(partition) = self.partitions.remove(id.0) else {
            return;
        };
        let Some(service) = self.services.get_mut(partition.service.0) else {
            return;
        };
        service.partitions.remove(&partition.key);
        service.doomed -= usize::from(partition.doomed);
        if service.removed && service.partitions.is_empty() {
            let name = service.name.clone();
            self.services.remove(partition.service.0);
            self.service_ids.remove(&name);
        }
    }
}

/// Tells who asked for the records before, unless all of them were refused: then nothing has changed. Without
/// records it tells of a change of the ledger's members, which is no record.
fn audited(fold: &mut Fold, audit: Audit, outcomes: &[Outcome]) {
    let mut its_own = outcomes.iter().rev().take(audit.records);
    if audit.records == 0 || its_own.any(|outcome| *outcome == Outcome::Accepted) {
        fold.changes.push(Change::Audited(audit));
    }
}

/// Takes apart the entry of an election, which has exactly one record.
fn elected(mut entry: Entry) -> Result<(Header, Leader), Entry> {
    match (entry.records.pop(), entry.records.is_empty()) {
        (
            Some(Record::Elected {
                name,
                id,
                address,
                format: _,
            }),
            true,
        ) => Ok((
            entry.header,
            Leader {
                name,
                id,
                address,
                elected_by: entry.header.batch,
            },
        )),
        (Some(record), _) => {
            entry.records.push(record);
            Err(entry)
        }
        (None, _) => Err(entry),
    }
}

impl From<Result<(), Refused>> for Outcome {
    fn from(result: Result<(), Refused>) -> Self {
        match result {
            Ok(()) => Self::Accepted,
            Err(refused) => Self::Refused(refused),
        }
    }
}
