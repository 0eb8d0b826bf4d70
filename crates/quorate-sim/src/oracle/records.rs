//! What the oracle makes of the ledger: who was given what, and whether that was right by what really
//! executes at that moment.

use quorate_core::ids::{PartitionId, Position, SessionId, Token};
use quorate_core::record::{Entry, Record};

use super::Oracle;

impl Oracle {
    /// An entry is in the ledger.
    pub fn committed(&mut self, position: Position, bytes: &[u8]) {
        self.last = position;
        let entry = match Entry::decode(bytes) {
            Ok(entry) => entry,
            Err(error) => return self.blame("S8", format!("entry {position}: {error}")),
        };
        if let Some(Record::Elected { .. }) = entry.records.first() {
            if entry.header.epoch.0 == self.epoch.0 + 1 {
                self.epoch = entry.header.epoch;
            }
            return;
        }
        if entry.header.epoch != self.epoch {
            return;
        }
        for record in &entry.records {
            self.record(position, record);
        }
    }

    fn record(&mut self, position: Position, record: &Record) {
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
            Record::Released { token, .. } => {
                self.released.entry(*token).or_insert(position);
                if self.executes(*token) {
                    let seen = format!("{token} was given back at {position} and still executes");
                    self.blame("S5", seen);
                }
            }
            Record::SessionOpened { session, .. } => {
                self.opened.insert(*session);
            }
            Record::SessionClosed { session, .. } => {
                self.session_ended(position, *session, "closed as proven dead");
            }
            Record::SessionExpired { session } => {
                if self.timed {
                    self.session_ended(position, *session, "expired");
                } else {
                    self.ended.entry(*session).or_insert(position);
                }
            }
            Record::AgentSet { agent, schedulable } => {
                let known = self.agents.entry(agent.clone()).or_default();
                known.push((position, *schedulable));
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
            | Record::ServicePut { .. }
            | Record::ServiceRemoved { .. }
            | Record::PartitionsPut { .. }
            | Record::PartitionsRemoved { .. }
            | Record::Staged { .. }
            | Record::SourceStatus { .. }
            | Record::DesiredSet { .. }
            | Record::SessionResumed { .. }
            | Record::Withdrawn { .. }
            | Record::Revoked { .. }
            | Record::Silent { .. }
            | Record::Heard { .. }
            | Record::CheckpointPut { .. }
            | Record::Drifts { .. }
            | Record::Fenced { .. }
            | Record::Evicted { .. }
            | Record::Observed { .. } => {}
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
        let alive = slot.copied().find(|token| self.executes(*token));
        if let (Some(alive), true) = (alive, self.timed) {
            let seen = format!(
                "partition {partition} was given on under {token} at {position} while {alive} executes"
            );
            self.blame("S5", seen);
        }
    }

    fn session_ended(&mut self, position: Position, session: SessionId, how: &str) {
        self.ended.entry(session).or_insert(position);
        let all = self.executing.iter();
        let mut of_it = all.flat_map(|(name, all)| all.iter().map(move |one| (name, one)));
        let alive = of_it.find(|(_, process)| {
            process.session == session && !self.paused.contains(&process.host)
        });
        if let Some((name, process)) = alive {
            let seen =
                format!("session {session} {how} at {position} while {name} executes: {process:?}");
            self.blame("S5", seen);
        }
    }
}
