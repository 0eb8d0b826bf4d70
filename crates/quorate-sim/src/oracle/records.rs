//! What the oracle makes of the ledger: who was given what, and whether that was right by what really
//! executes at that moment.

use quorate_core::ids::{PartitionId, Position, SessionId, Token};
use quorate_core::record::{CloseReason, Entry, Record, ReleaseOutcome, Schedulable};

use super::Oracle;
use crate::clock::Instant;

/// The number that stands for all that a lost history has opened.
const LOST: SessionId = SessionId(0);

/// What must be so of processes whose session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    /// There are none, not even on a machine that is suspended: that was said to be proven.
    ForGood,
    /// None executes. On a suspended machine they are ended before they go on.
    OrStill,
}

impl Oracle {
    /// An entry is in the ledger.
    pub(crate) fn committed(&mut self, now: Instant, position: Position, bytes: &[u8]) {
        self.last = position;
        let entry = match Entry::decode(bytes) {
            Ok(entry) => entry,
            Err(error) => return self.blame("S8", format!("entry {position}: {error}")),
        };
        if let Some(Record::Elected { id, .. }) = entry.records.first() {
            if entry.header.epoch.0 == self.epoch.0 + 1 {
                self.epoch = entry.header.epoch;
                self.staged.clear();
                self.leads(*id);
            }
            return;
        }
        if entry.header.epoch != self.epoch {
            return;
        }
        for record in &entry.records {
            self.record(now, position, record);
        }
    }

    fn record(&mut self, now: Instant, position: Position, record: &Record) {
        self.follow_rights(now, record);
        self.follow_words(record);
        match record {
            Record::Assigned {
                partition, token, ..
            } => self.assigned(position, *partition, *token),
            Record::Assumed {
                partition,
                session,
                token,
            } => {
                self.assumed.entry(*token).or_insert(*session);
                self.newest.insert(*partition, *token);
            }
            Record::Released { token, outcome, .. } => {
                self.failed_somewhere |= *outcome == ReleaseOutcome::Move;
                self.released.entry(*token).or_insert(position);
                if self.exists(*token) {
                    let seen = format!("{token} was given back at {position} and is still there");
                    self.blame("S5", seen);
                }
            }
            Record::SessionOpened { session, .. } => {
                self.opened.insert(*session);
            }
            Record::SessionClosed {
                session,
                reason: CloseReason::Evicted,
            } => {
                self.evicted(now, *session);
                self.ended.entry(*session).or_insert(position);
            }
            Record::SessionClosed { session, .. } => {
                self.session_ended(position, *session, "closed as proven dead", Gone::ForGood);
            }
            Record::SessionExpired { session: LOST } => self.era_begins(position),
            Record::SessionExpired { session } => {
                if self.timed {
                    self.session_ended(position, *session, "expired", Gone::OrStill);
                } else {
                    self.ended.entry(*session).or_insert(position);
                }
            }
            Record::Staged { records, last, .. } => self.staged(now, position, records, *last),
            Record::Drifts { agent, ppm } => self.drifts(agent, *ppm),
            Record::AgentSet { agent, schedulable } => {
                if *schedulable == Schedulable::Draining {
                    self.drained(agent);
                }
                let known = self.agents.entry(agent.clone()).or_default();
                known.push((position, *schedulable));
            }
            Record::AgentForgotten { agent } => {
                // With it is gone what was wanted of it.
                let known = self.agents.entry(agent.clone()).or_default();
                known.push((position, Schedulable::Active));
            }
            Record::RestartAsked { service, .. } => {
                self.restarts += 1;
                if self.restarts > self.restarts_asked {
                    let seen =
                        format!("{service} is restarted once more at {position} than was asked");
                    self.blame("S4", seen);
                }
            }
            Record::Elected { .. }
            | Record::Beat
            | Record::DirectorKnown { .. }
            | Record::DirectorForgotten { .. }
            | Record::Format { .. }
            | Record::ServicePut { .. }
            | Record::ServiceRemoved { .. }
            | Record::PartitionsPut { .. }
            | Record::PartitionsRemoved { .. }
            | Record::SourceStatus { .. }
            | Record::DesiredSet { .. }
            | Record::SessionResumed { .. }
            | Record::Withdrawn { .. }
            | Record::Revoked { .. }
            | Record::Silent { .. }
            | Record::Heard { .. }
            | Record::CheckpointPut { .. }
            | Record::Fenced { .. }
            | Record::Evicted { .. }
            | Record::Observed { .. }
            | Record::Access(_)
            | Record::Audited(_)
            | Record::Answered(_) => {}
        }
    }

    /// The parts of a large change count together with the last one.
    fn staged(&mut self, now: Instant, position: Position, records: &[Record], last: bool) {
        self.staged.extend(records.iter().cloned());
        if last {
            for record in std::mem::take(&mut self.staged) {
                self.record(now, position, &record);
            }
        }
    }

    fn assigned(&mut self, position: Position, partition: PartitionId, token: Token) {
        if token <= self.highest {
            let seen = format!(
                "partition {partition} got token {token} at {position}, {} was given before",
                self.highest
            );
            self.blame("S3", seen);
        }
        if token.0 >= 1 << 53 {
            let seen = format!("token {token} is too large for a number of JavaScript");
            self.blame("S3", seen);
        }
        self.highest = token.max(self.highest);
        self.assigned.insert(token, partition);
        let slot = self.slots.get(&partition).into_iter().flatten();
        let mut alive = slot.copied().filter(|token| self.executes(*token));
        let alive = alive.find(|token| {
            let session = self.assumed.get(token);
            session.is_none_or(|session| !self.rights.waived(*session))
        });
        if let (Some(alive), true) = (alive, self.timed) {
            let seen = format!(
                "partition {partition} was given on under {token} at {position} while {alive} executes"
            );
            self.blame("S5", seen);
        }
    }

    /// Nothing of a session executes any more, it is said.
    pub(super) fn session_is_over(&mut self, position: Position, session: SessionId) {
        self.session_ended(position, session, "is of before the new era", Gone::OrStill);
    }

    fn session_ended(&mut self, position: Position, session: SessionId, how: &str, gone: Gone) {
        self.ended.entry(session).or_insert(position);
        let all = self.executing.iter();
        let mut of_it = all.flat_map(|(name, all)| all.iter().map(move |one| (name, one)));
        let alive = of_it.find(|(_, process)| {
            let counts = gone == Gone::ForGood || !self.paused.contains(&process.host);
            process.session == session && counts
        });
        if let Some((name, process)) = alive {
            let seen =
                format!("session {session} {how} at {position} while {name} executes: {process:?}");
            self.blame("S5", seen);
        }
    }
}
