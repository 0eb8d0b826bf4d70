//! The way to the ledger and back: one append outstanding, entries folded in order, tries again after
//! silence. Nothing here knows what the records mean.

use std::time::Duration;

use crate::cluster::{Applied, FoldError, SnapshotError};
use crate::format;
use crate::history::Change;
use crate::ids::{BatchId, Epoch, Position, SessionId};
use crate::planted::Planted;
use crate::record::{DecodeError, Entry, Header, Record};
use crate::time::Moment;

use super::batch::Job;
use super::effect::{Effect, Why};
use super::event::{AppendId, AppendOutcome, Now, ReadOutcome};
use super::proofs::Arrival;
use super::{Director, Role};

const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Pause before standing again after another director was elected.
const STAND_AGAIN: Duration = Duration::from_millis(500);

/// What is outstanding.
#[derive(Debug)]
pub(super) struct Log {
    writer: u64,
    sequence: u64,
    append: Option<Append>,
    reading: Option<Position>,
    loading: bool,
    /// Something may be there that nobody hinted at: the append of unknown outcome.
    peek: bool,
    occupied: Position,
    append_again: Option<Moment>,
    read_again: Option<Moment>,
    stand_again: Option<Moment>,
    tries: u32,
}

/// The append that is outstanding, or of unknown outcome.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) id: AppendId,
    pub(super) batch: BatchId,
    pub(super) position: Position,
    epoch: Epoch,
    bytes: Vec<u8>,
    /// To be written again elsewhere, when something without meaning took the position.
    pub(super) records: Vec<Record>,
    pub(super) jobs: Vec<Job>,
    pub(super) covers: Arrival,
    /// Another entry is known to be at its position, or this one: reading tells.
    taken: bool,
}

impl Log {
    pub(super) fn new(writer: u64) -> Self {
        Self {
            writer,
            sequence: 0,
            append: None,
            reading: None,
            loading: false,
            peek: false,
            occupied: Position(0),
            append_again: None,
            read_again: None,
            stand_again: None,
            tries: 0,
        }
    }

    /// Whether nothing can be appended yet: an append is outstanding, or more is in the ledger than was
    /// folded, as far as is known.
    pub(super) fn busy(&self, folded: Position) -> bool {
        self.append.is_some() || self.loading || self.occupied > folded
    }

    pub(super) fn stand_later(&mut self, now: Moment) {
        self.stand_again = Some(now + STAND_AGAIN);
    }

    pub(super) fn stands_later(&self, now: Moment) -> bool {
        self.stand_again.is_some_and(|at| at > now)
    }

    pub(super) fn writes(&self, batch: BatchId) -> bool {
        batch.writer == self.writer
    }

    /// Whether an entry on its way says that a session has been silent.
    pub(super) fn records_silence(&self, session: SessionId) -> bool {
        let mut on_its_way = self.append.iter().flat_map(|append| &append.records);
        on_its_way.any(
            |record| matches!(record, Record::Silent { session: silent, .. } if *silent == session),
        )
    }

    /// Everything up to here is in the ledger, somebody says.
    pub(super) fn occupied(&mut self, position: Position) {
        self.occupied = self.occupied.max(position);
    }

    pub(super) fn retry_at(&self) -> Option<Moment> {
        let again = [self.append_again, self.read_again, self.stand_again];
        again.into_iter().flatten().min()
    }

    /// The name of the next batch.
    pub(super) fn next_batch(&self) -> BatchId {
        BatchId {
            writer: self.writer,
            sequence: self.sequence + 1,
        }
    }

    /// Takes the jobs of an append that nobody will wait for any longer.
    pub(super) fn abandon(&mut self) -> Vec<Job> {
        let jobs = self.append.as_mut().map(|append| &mut append.jobs);
        jobs.map(std::mem::take).unwrap_or_default()
    }

    fn delay(&mut self) -> Duration {
        let delay = RETRY_FIRST * 2u32.saturating_pow(self.tries.min(10));
        self.tries += 1;
        delay.min(RETRY_MAX)
    }
}

impl Director {
    /// Appends records behind the last entry folded.
    ///
    /// # Panics
    /// When an append is outstanding: a second one could land without the first. When a record is of a later
    /// format than the ledger has: another director may not read it.
    pub(super) fn append(
        &mut self,
        now: Now,
        epoch: Epoch,
        records: Vec<Record>,
        jobs: Vec<Job>,
        effects: &mut Vec<Effect>,
    ) {
        assert!(
            self.log.append.is_none(),
            "second append while {:?} is outstanding",
            self.log.append.as_ref().map(|append| append.id)
        );
        let format = format::of_entry(self.cluster.format(), &records);
        let later = records.iter().find(|record| record.since() > format);
        assert!(later.is_none(), "{later:?} in a ledger of format {format}");
        let batch = self.log.next_batch();
        self.log.sequence = batch.sequence;
        let entry = Entry {
            header: Header {
                format,
                epoch,
                batch,
                predecessor: self.cluster.last_hash(),
                wall: now.wall,
            },
            records,
        };
        let bytes = entry.encode();
        let append = Append {
            id: AppendId(batch.sequence),
            batch,
            position: self.cluster.position().next(),
            epoch,
            bytes,
            records: entry.records,
            jobs,
            covers: self.proofs.arrived(),
            taken: false,
        };
        effects.push(append.order());
        self.log.append = Some(append);
        self.log.tries = 0;
        self.standing.speaks(now.moment);
    }

    pub(super) fn append_answered(
        &mut self,
        now: Now,
        id: AppendId,
        outcome: AppendOutcome,
        effects: &mut Vec<Effect>,
    ) {
        let current = self.log.append.as_mut();
        let Some(append) = current.filter(|append| append.id == id) else {
            return;
        };
        match outcome {
            AppendOutcome::Appended if append.position == self.cluster.position().next() => {
                // Durable at the position that this fold needs next: no need to read it back.
                let bytes = append.bytes.clone();
                self.fold(now, &bytes, effects);
            }
            AppendOutcome::Appended | AppendOutcome::PositionTaken => {
                append.taken = true;
                let position = append.position;
                self.log.occupied(position);
            }
            AppendOutcome::Refused | AppendOutcome::Unknown => match self.role {
                Role::Leader | Role::Candidate => {
                    self.doubt(now, effects);
                    let again = now.moment + self.log.delay();
                    self.log.append_again = Some(again);
                    self.log.peek = outcome == AppendOutcome::Unknown;
                    if self.log.peek && self.plants.has(Planted::RetryAsNew) {
                        self.append_anew(now, effects);
                    }
                }
                // It is no leader's word any more. If it lands all the same, reading shows it.
                Role::Follower | Role::Halted(_) => self.log.append = None,
            },
        }
    }

    /// What may have been written is written once more, under another name.
    fn append_anew(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if let Some(append) = self.log.append.take() {
            self.append(now, append.epoch, append.records, append.jobs, effects);
        }
    }

    /// Tries again what is due for it.
    pub(super) fn retry(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.log.append_again.is_some_and(|at| at <= now.moment) {
            self.log.append_again = None;
            effects.extend(self.log.append.as_ref().map(Append::order));
        }
        if self.log.read_again.is_some_and(|at| at <= now.moment) {
            self.log.read_again = None;
        }
        if self.log.stand_again.is_some_and(|at| at <= now.moment) {
            self.log.stand_again = None;
        }
    }

    /// Reads on while more is known to be there.
    pub(super) fn read_on(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let from = self.cluster.position().next();
        let log = &mut self.log;
        let waits = log.read_again.is_some_and(|at| at > now.moment);
        // The own append on its way is what the hint speaks of: its answer says more than a read.
        let own = log.append.as_ref().is_some_and(|append| {
            !append.taken && log.append_again.is_none() && log.occupied <= append.position
        });
        if own {
            return;
        }
        if log.reading.is_some() || log.loading || waits || (log.occupied < from && !log.peek) {
            return;
        }
        log.peek = false;
        log.reading = Some(from);
        effects.push(Effect::Read { from });
    }

    pub(super) fn read_answered(
        &mut self,
        now: Now,
        from: Position,
        outcome: ReadOutcome,
        effects: &mut Vec<Effect>,
    ) {
        if self
            .log
            .reading
            .take_if(|reading| *reading == from)
            .is_none()
        {
            return;
        }
        match outcome {
            ReadOutcome::Entries(entries) if entries.is_empty() => self.read_nothing(now),
            ReadOutcome::Entries(entries) => {
                self.log.tries = 0;
                let mut position = from;
                for bytes in entries {
                    // An own append may have been folded while the read was under way.
                    if position == self.cluster.position().next() {
                        self.fold(now, &bytes, effects);
                    }
                    if let Role::Halted(_) = self.role {
                        return;
                    }
                    position = position.next();
                }
            }
            ReadOutcome::Trimmed => {
                self.log.loading = true;
                effects.push(Effect::LoadSnapshot);
            }
            ReadOutcome::Failed => {
                let again = now.moment + self.log.delay();
                self.log.read_again = Some(again);
            }
        }
    }

    /// The hint was wrong, or the store showed an older state than it should have.
    fn read_nothing(&mut self, now: Now) {
        self.log.occupied = self.cluster.position();
        if self.log.append.as_ref().is_some_and(|append| append.taken) {
            let again = now.moment + self.log.delay();
            self.log.append_again = Some(again);
        }
    }

    pub(super) fn reset(
        &mut self,
        now: Now,
        next: Position,
        bytes: &[u8],
        effects: &mut Vec<Effect>,
    ) {
        self.log.loading = false;
        if next <= self.cluster.position().next() {
            return;
        }
        let decoded = self.plants.decode(bytes);
        let cluster = match decoded {
            Ok(cluster) if cluster.position().next() == next => cluster,
            Ok(cluster) => {
                let covered = cluster.position();
                let reason = format!("snapshot before position {next} covers {covered}");
                return self.halt(reason, Why::Malformed, effects);
            }
            Err(error) => {
                let why = match &error {
                    SnapshotError::Unread(unread) => Why::Unread(*unread),
                    SnapshotError::NewerFormat { .. }
                    | SnapshotError::Malformed(_)
                    | SnapshotError::Inconsistent(_) => Why::Malformed,
                };
                return self.halt(told(&error), why, effects);
            }
        };
        // A director that is held at a format reads no later one, though its build would.
        if let Err(unread) = self.config.formats.check(cluster.format()) {
            return self.halt(unread.to_string(), Why::Unread(unread), effects);
        }
        if self.role == Role::Leader {
            // Whoever made it has folded more than this leader has decided: another one leads.
            self.step_down(effects);
            if self.should_lead {
                self.role = Role::Candidate;
            }
        }
        self.log.append = None;
        self.log.append_again = None;
        self.heard(now, None);
        self.cluster = cluster;
        self.saved = self.cluster.position();
        let position = self.cluster.position();
        effects.push(Effect::Replaced { position });
        let hash = self.cluster.last_hash();
        if let Some(reason) = self.standing.contradiction(position, hash) {
            self.halt(reason, Why::OtherHistory, effects);
        }
    }

    /// Folds the next entry, tells people, and settles what waited for it.
    fn fold(&mut self, now: Now, bytes: &[u8], effects: &mut Vec<Effect>) {
        let reads = (self.config.id, self.config.formats);
        let folded = self.plants.fold(reads, &mut self.cluster, bytes);
        let (header, applied) = match folded {
            Ok(folded) => folded,
            Err(error) => {
                let why = match &error {
                    FoldError::Decode {
                        cause: DecodeError::Unread(unread),
                        ..
                    } => Why::Unread(*unread),
                    FoldError::Decode {
                        cause: DecodeError::Malformed(_),
                        ..
                    } => Why::Malformed,
                    FoldError::OtherHistory { .. } => Why::OtherHistory,
                };
                return self.halt(told(&error), why, effects);
            }
        };
        let position = self.cluster.position();
        let hash = self.cluster.last_hash();
        if let Some(reason) = self.standing.contradiction(position, hash) {
            return self.halt(reason, Why::OtherHistory, effects);
        }
        self.log.occupied(position);
        self.heard(now, Some(header.batch));
        let elected = applied.changes.iter();
        let elected = elected
            .filter(|change| matches!(change, Change::Elected { .. }))
            .count();
        self.observe(now, &applied.changes);
        let Applied { outcomes, changes } = applied;
        effects.push(Effect::Changed {
            position,
            wall: header.wall,
            changes,
        });
        let settled = self
            .log
            .append
            .take_if(|append| append.position <= position);
        if settled.is_some() {
            self.log.append_again = None;
        }
        if elected > 0 {
            self.led(now, header.batch, effects);
        }
        match settled {
            Some(append) if append.batch == header.batch => {
                self.committed(now, append, &outcomes, effects);
            }
            Some(append) => self.displaced(now, append, effects),
            None => {}
        }
        self.save(effects);
    }

    fn save(&mut self, effects: &mut Vec<Effect>) {
        let position = self.cluster.position();
        if position.0 - self.saved.0 < self.config.snapshot_every {
            return;
        }
        self.saved = position;
        if !self.standing.keeps(&self.role) {
            return;
        }
        effects.push(Effect::SaveSnapshot {
            next: position.next(),
            bytes: self.cluster.encode(),
        });
    }
}

impl Append {
    fn order(&self) -> Effect {
        Effect::Append {
            append: self.id,
            position: self.position,
            epoch: self.epoch,
            bytes: self.bytes.clone(),
        }
    }
}

/// An error and its causes in one sentence.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
