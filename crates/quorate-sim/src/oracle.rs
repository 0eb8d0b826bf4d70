//! Judges what happened by looking at records and processes only. It must never ask a machine what it
//! believes, nor use its code.
//!
//! - S1: the processes of one partition never overlap.
//! - S3: tokens that are assigned rise strictly, over all elections.
//! - S5: a process starts only under a token whose assumption by its session is committed, and whose
//!   session has neither ended nor given it back.
//! - S8: directors that have folded the same position have the same state.

use std::collections::BTreeMap;

use quorate_core::ids::{Epoch, Position, SessionId, Token};
use quorate_core::record::{Entry, Record};

use crate::clock::Instant;

/// A process tree on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Where.
    pub host: usize,
    /// The session of its warden.
    pub session: SessionId,
    /// Under which token.
    pub token: Token,
    /// The how-manieth start.
    pub attempt: u32,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub promise: &'static str,
    /// What was seen.
    pub seen: String,
}

/// What it remembers.
#[derive(Debug, Default)]
pub struct Oracle {
    /// What executes, by service and key.
    executing: BTreeMap<String, Vec<Process>>,
    epoch: Epoch,
    highest: Token,
    assumed: BTreeMap<Token, SessionId>,
    released: BTreeMap<Token, Position>,
    ended: BTreeMap<SessionId, Position>,
    last: Position,
    hashes: BTreeMap<Position, (usize, u64)>,
    /// How many processes have ever started.
    pub starts: u64,
    violation: Option<Violation>,
}

impl Oracle {
    /// The first thing that went wrong.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Something went wrong.
    pub fn blame(&mut self, promise: &'static str, seen: String) {
        self.violation.get_or_insert(Violation { promise, seen });
    }

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
            } => {
                if *token <= self.highest {
                    let seen = format!(
                        "partition {partition} got token {token} at {position}, {} was given before",
                        self.highest
                    );
                    self.blame("S3", seen);
                }
                self.highest = (*token).max(self.highest);
            }
            Record::Assumed { session, token, .. } => {
                self.assumed.entry(*token).or_insert(*session);
            }
            Record::Released { token, .. } => {
                self.released.entry(*token).or_insert(position);
            }
            Record::SessionClosed { session, .. } | Record::SessionExpired { session } => {
                self.ended.entry(*session).or_insert(position);
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
            | Record::RestartAsked { .. }
            | Record::AgentSet { .. }
            | Record::SessionOpened { .. }
            | Record::SessionResumed { .. }
            | Record::Withdrawn { .. }
            | Record::Revoked { .. }
            | Record::Silent { .. }
            | Record::Heard { .. }
            | Record::Fenced { .. }
            | Record::Drifts { .. }
            | Record::Evicted { .. }
            | Record::Observed { .. }
            | Record::CheckpointPut { .. } => {}
        }
    }

    /// A director has folded up to a position.
    pub fn folded(&mut self, director: usize, position: Position, hash: u64) {
        if position > self.last {
            let seen = format!("director {director} has folded {position}, which is not there");
            self.blame("S4", seen);
        }
        let (other, expected) = *self.hashes.entry(position).or_insert((director, hash));
        if expected != hash {
            let seen = format!("directors {director} and {other} differ at position {position}");
            self.blame("S8", seen);
        }
    }

    /// A call was answered as done.
    pub fn acknowledged(&mut self, position: Position) {
        if position > self.last {
            let seen = format!("a call was answered as done at {position}, which is not there");
            self.blame("S4", seen);
        }
    }

    /// A process begins to execute.
    pub fn starts(&mut self, now: Instant, partition: &str, process: Process) {
        self.starts += 1;
        let Process { session, token, .. } = process;
        if self.assumed.get(&token) != Some(&session) {
            let seen =
                format!("{now}: {partition} started, not assumed by its session: {process:?}");
            self.blame("S5", seen);
        }
        let over = self.ended.get(&session).or(self.released.get(&token));
        if let Some(position) = over {
            let seen =
                format!("{now}: {partition} started, its right ended at {position}: {process:?}");
            self.blame("S5", seen);
        }
        let executing = self.executing.entry(partition.to_owned()).or_default();
        executing.push(process);
        if executing.len() > 1 {
            let seen = format!("{now}: {partition} executes more than once: {executing:?}");
            self.blame("S1", seen);
        }
    }

    /// Nothing of a process executes any more.
    pub fn ends(&mut self, partition: &str, process: &Process) {
        if let Some(executing) = self.executing.get_mut(partition) {
            executing.retain(|other| other != process);
            if executing.is_empty() {
                self.executing.remove(partition);
            }
        }
    }

    /// Where a partition executes.
    #[must_use]
    pub fn host_of(&self, partition: &str) -> Option<usize> {
        let executing = self.executing.get(partition)?;
        executing.first().map(|process| process.host)
    }

    /// Everything that executes and where.
    pub fn executing(&self) -> impl Iterator<Item = (&str, usize)> {
        let all = self.executing.iter();
        all.flat_map(|(name, all)| all.iter().map(|process| (name.as_str(), process.host)))
    }
}
