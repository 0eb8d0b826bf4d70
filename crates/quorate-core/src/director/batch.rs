//! One entry in the making: records of many calls, as many as fit.

use std::collections::VecDeque;

use crate::cluster::Cluster;
use crate::ids::{Incarnation, PartitionId, PartitionKey, Position, ServiceName, SessionId, Token};
use crate::record::{ENTRY_BYTES_MAX, Exit, Record};
use crate::spec::PartitionSpec;

use super::call::{Applied, CallId, Refusal};

/// Room for the header and the frame of an entry.
const FRAME_BYTES: usize = 1024;
/// Most bytes of records in one entry.
const RECORDS_BYTES_MAX: usize = ENTRY_BYTES_MAX - FRAME_BYTES;

/// A call whose records are in an entry.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: CallId,
    /// Its records in the entry; of one that was carried over, those in the last entry.
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) reply: Reply,
}

/// How to answer once the entry is folded, or leadership proven: the answer is read from the fold.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    Done {
        notes: Vec<String>,
        applied: Vec<(ServiceName, Applied)>,
        /// Something was written for it.
        changed: bool,
    },
    /// It was done before, at this position, and is answered as it was then.
    Again {
        position: Position,
        notes: Vec<String>,
        applied: Vec<(ServiceName, Applied)>,
    },
    /// Not done, certainly.
    Refused(Refusal),
    /// A source was read. What is told of it may be done, and the reader hears a refusal all the same: a
    /// list that lost too much, or that could not be read.
    Listed {
        service: ServiceName,
        refusal: Option<Refusal>,
    },
    Opened {
        secret_hash: String,
        process: u64,
    },
    Resumed {
        session: SessionId,
        process: u64,
    },
    Reported {
        session: SessionId,
        sequence: u64,
        claims: Vec<(PartitionId, Token)>,
    },
    Checkpoints {
        asked: Vec<(PartitionId, Token, u64)>,
    },
}

impl Reply {
    /// It is done, and there is nothing to say about it.
    pub(super) fn done() -> Self {
        Self::noted(Vec::new())
    }

    /// It is done, and this is to be told.
    pub(super) fn noted(notes: Vec<String>) -> Self {
        Self::Done {
            notes,
            applied: Vec::new(),
            changed: true,
        }
    }

    /// The same when it turned out that nothing had to be written.
    pub(super) fn unwritten(mut self) -> Self {
        if let Self::Done { changed, .. } = &mut self {
            *changed = false;
        }
        self
    }
}

/// What is left of a call that did not fit one entry; it goes first into the next.
#[derive(Debug)]
pub(super) struct Carry {
    job: (CallId, Reply),
    /// With the bytes of each: a large change is carried through many entries, and weighed once.
    records: VecDeque<(usize, Record)>,
    /// Bytes of all of them.
    bytes: usize,
    /// None of its records is written yet, and they fit one entry: they wait for one with room for all.
    pub(super) whole: bool,
}

impl Carry {
    pub(super) fn new(job: (CallId, Reply), records: Vec<Record>) -> Self {
        let weighed = |record| (weigh(&record), record);
        let records: VecDeque<_> = records.into_iter().map(weighed).collect();
        Self {
            job,
            bytes: records.iter().map(|(bytes, _)| bytes).sum(),
            records,
            whole: false,
        }
    }

    pub(super) fn id(&self) -> CallId {
        self.job.0
    }

    /// Whether an entry can hold each record, and the last ones together. One that none can would never be
    /// written, and nothing behind it either.
    pub(super) fn fits(&self) -> bool {
        let last = self.records.iter().rev().take(self.together());
        let last: usize = last.map(|(bytes, _)| bytes).sum();
        let mut records = self.records.iter();
        last <= RECORDS_BYTES_MAX && records.all(|(bytes, _)| *bytes <= RECORDS_BYTES_MAX)
    }

    /// How many of the last records are never apart: with the last part of a change goes what stands behind
    /// it, so that a leader that dies in between leaves no change that nobody has asked for, and none whose
    /// repeat is not known.
    fn together(&self) -> usize {
        let records = self.records.iter().rev();
        let behind = records.take_while(|(_, record)| stands_behind(record));
        behind.count() + 1
    }

    /// The next record, if an entry with so much room has some for it.
    fn next(&mut self, room: usize) -> Option<(usize, Record)> {
        if self.records.len() <= self.together() && self.bytes > room {
            return None;
        }
        let next = self.records.pop_front_if(|(bytes, _)| *bytes <= room);
        self.bytes -= next.as_ref().map_or(0, |(bytes, _)| *bytes);
        next
    }
}

#[derive(Debug)]
pub(super) struct Batch {
    records: Vec<Record>,
    jobs: Vec<Job>,
    bytes: usize,
    /// Its records change what other calls about specifications would be compared with.
    pub(super) changes_specs: bool,
    next_session: SessionId,
    next_incarnation: Incarnation,
    next_token: Token,
}

impl Batch {
    pub(super) fn new(cluster: &Cluster) -> Self {
        Self {
            records: Vec::new(),
            jobs: Vec::new(),
            bytes: 0,
            changes_specs: false,
            next_session: cluster.next_session(),
            next_incarnation: cluster.next_incarnation(),
            next_token: cluster.next_token(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What it holds so far.
    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    /// Whether this entry would hold the record.
    pub(super) fn has_room_for(&self, record: &Record) -> bool {
        self.bytes + weigh(record) <= RECORDS_BYTES_MAX
    }

    /// Takes one record; `false` when there is no room for it.
    pub(super) fn push(&mut self, record: Record) -> bool {
        let bytes = weigh(&record);
        let fits = self.bytes + bytes <= RECORDS_BYTES_MAX;
        if fits {
            self.bytes += bytes;
            self.records.push(record);
        }
        fits
    }

    /// Takes the records of a call. What fits one entry is never spread over two, so that a leader that
    /// dies in between leaves no half of it; of what does not, as much as fits is taken. The rest is
    /// given back.
    pub(super) fn take(&mut self, mut carry: Carry) -> Option<Carry> {
        let first = self.records.len();
        let room = RECORDS_BYTES_MAX - self.bytes;
        carry.whole = (room + 1..=RECORDS_BYTES_MAX).contains(&carry.bytes) && first > 0;
        if carry.whole {
            return Some(carry);
        }
        while let Some((bytes, record)) = carry.next(RECORDS_BYTES_MAX - self.bytes) {
            self.bytes += bytes;
            self.records.push(record);
        }
        if !carry.records.is_empty() {
            return Some(carry);
        }
        let (id, reply) = carry.job;
        self.jobs.push(Job {
            id,
            first,
            count: self.records.len() - first,
            reply,
        });
        None
    }

    /// Whether another process begins to speak for a session in this very entry.
    pub(super) fn resumes(&self, session: SessionId) -> bool {
        let mut records = self.records.iter();
        records.any(|record| matches!(record, Record::SessionResumed { session: resumed, .. } if *resumed == session))
    }

    /// The tokens of this batch are counted from here.
    pub(super) fn count_tokens_from(&mut self, token: Token) {
        self.next_token = token;
    }

    pub(super) fn mint_session(&mut self) -> SessionId {
        let minted = self.next_session;
        self.next_session = minted.next();
        minted
    }

    pub(super) fn mint_incarnation(&mut self) -> Incarnation {
        let minted = self.next_incarnation;
        self.next_incarnation = minted.next();
        minted
    }

    pub(super) fn mint_token(&mut self) -> Token {
        let minted = self.next_token;
        self.next_token = Token::new(minted.era(), minted.counter() + 1);
        minted
    }

    pub(super) fn finish(self) -> (Vec<Record>, Vec<Job>) {
        (self.records, self.jobs)
    }
}

/// Whether a record is about those before it in its entry.
fn stands_behind(record: &Record) -> bool {
    matches!(record, Record::Audited(_) | Record::Answered(_))
}

fn cause_bytes(exit: Option<&Exit>) -> usize {
    let cause = exit.and_then(|exit| exit.cause.as_ref());
    cause.map_or(0, |cause| cause.as_str().len())
}

/// At least as many bytes as the record has when it is encoded.
pub(super) fn weigh(record: &Record) -> usize {
    match record {
        Record::Assigned { .. }
        | Record::Assumed { .. }
        | Record::Beat
        | Record::SessionExpired { .. }
        | Record::Silent { .. }
        | Record::Heard { .. }
        | Record::SessionClosed { .. }
        | Record::SessionResumed { .. } => 80,
        Record::Withdrawn { .. } | Record::Revoked { .. } => 96,
        Record::Released { exit, .. } => 200 + cause_bytes(exit.as_ref()),
        Record::Observed { run, .. } => 200 + cause_bytes(run.exit.as_deref()),
        Record::CheckpointPut { content, .. } => 112 + content.as_bytes().len(),
        Record::PartitionsPut {
            service,
            partitions,
        } => 64 + service.as_str().len() + partitions.iter().map(weigh_partition).sum::<usize>(),
        Record::PartitionsRemoved { service, keys } => {
            64 + service.as_str().len() + keys.iter().map(weigh_key).sum::<usize>()
        }
        Record::Staged { records, .. } => 112 + records.iter().map(weigh).sum::<usize>(),
        Record::Elected { .. }
        | Record::DirectorKnown { .. }
        | Record::DirectorForgotten { .. }
        | Record::ServicePut { .. }
        | Record::ServiceRemoved { .. }
        | Record::SourceStatus { .. }
        | Record::DesiredSet { .. }
        | Record::RestartAsked { .. }
        | Record::AgentSet { .. }
        | Record::AgentForgotten { .. }
        | Record::Evicted { .. }
        | Record::Fenced { .. }
        | Record::Drifts { .. }
        | Record::SessionOpened { .. }
        | Record::Access(_)
        | Record::Format { .. }
        | Record::Audited(_)
        | Record::Answered(_) => encoded(record),
    }
}

/// The same of one partition in a list.
pub(super) fn weigh_partition(partition: &PartitionSpec) -> usize {
    let labels = partition.labels.iter();
    let labels = labels.map(|(name, value)| name.len() + value.len() + 10);
    let labels: usize = labels.sum();
    let more = usize::from(labels > 0) * 12;
    let data = partition.data.as_ref().map_or(0, |data| data.len() + 10);
    40 + partition.key.as_str().len() + data + labels + more
}

/// The same of one key in a list.
pub(super) fn weigh_key(key: &PartitionKey) -> usize {
    key.as_str().len() + 2
}

fn encoded(record: &Record) -> usize {
    let bytes = rmp_serde::to_vec_named(record);
    bytes.map_or(usize::MAX / 2, |bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Content;
    use crate::ids::BatchId;
    use crate::record::CloseReason;
    use crate::record::{Cause, ExitClass, MoveReason, ReleaseOutcome, RunPhase, RunReport};
    use crate::repeats::{Answered, Key, Told};

    #[test]
    fn the_last_part_of_a_change_is_never_in_another_entry_than_what_stands_behind_it() {
        let part = |last, keys: usize| Record::Staged {
            change: BatchId::default(),
            records: vec![Record::PartitionsRemoved {
                service: ServiceName::new("s").unwrap(),
                keys: vec![PartitionKey::new("k").unwrap(); keys],
            }],
            last,
        };
        let empty = weigh(&part(false, 0)) + weigh(&part(true, 0));
        let keys = (RECORDS_BYTES_MAX - empty) / weigh_key(&PartitionKey::new("k").unwrap());
        // Both parts fill an entry to the last bytes.
        let (first, last) = (part(false, keys / 2), part(true, keys - keys / 2));
        let behind = Record::Answered(Box::new(Answered {
            key: Key::default(),
            records: 1,
            told: Told::default(),
        }));
        let whole = Carry::new((CallId(1), Reply::done()), vec![first, last, behind]);
        assert!(whole.fits() && whole.bytes > RECORDS_BYTES_MAX);
        let mut batch = Batch::new(&Cluster::default());
        let rest = batch.take(whole).unwrap();
        assert_eq!(batch.records.len(), 1);
        let mut next = Batch::new(&Cluster::default());
        assert!(next.take(rest).is_none());
        assert_eq!((next.records.len(), next.jobs[0].count), (2, 2));
    }

    #[test]
    fn no_record_is_larger_than_it_is_weighed() {
        let (partition, token) = (PartitionId(u32::MAX), Token(u64::MAX));
        let (session, incarnation) = (SessionId(u64::MAX), Incarnation(u64::MAX));
        let exit = Some(Exit {
            class: ExitClass::Interrupted,
            code: Some(255),
            signal: Some(255),
            cause: Some(Cause::new(&"x".repeat(1000))),
        });
        let run = RunReport {
            phase: RunPhase::Starting,
            attempt: u32::MAX,
            pid: Some(u32::MAX),
            exit: exit.clone().map(Box::new),
        };
        let service = ServiceName::new(&"s".repeat(63)).unwrap();
        let key = |length| PartitionKey::new(&"k".repeat(length)).unwrap();
        let text = |length| "t".repeat(length);
        let lengths = [1, 31, 32, 200];
        let keys = lengths.map(key).to_vec();
        let partitions = lengths.map(|length| PartitionSpec {
            key: key(length),
            data: (length > 1).then(|| text(length * length * 2)),
            weight: u32::MAX,
            labels: (31..length).map(|n| (text(n), text(length * 2))).collect(),
            priority: i32::MIN,
        });
        let put = Record::PartitionsPut {
            service: service.clone(),
            partitions: partitions.to_vec(),
        };
        let many = Record::PartitionsPut {
            service: service.clone(),
            partitions: vec![partitions[0].clone(); 70_000],
        };
        let removed = Record::PartitionsRemoved { service, keys };
        for record in [
            Record::Assigned {
                partition,
                session,
                token,
            },
            Record::Assumed {
                partition,
                session,
                token,
            },
            Record::SessionExpired { session },
            Record::Silent {
                session,
                for_ms: u64::MAX,
            },
            Record::Heard { session },
            Record::SessionClosed {
                session,
                reason: CloseReason::WardenDied,
            },
            Record::SessionResumed {
                session,
                incarnation,
                process: u64::MAX,
            },
            Record::Withdrawn {
                partition,
                token,
                reason: MoveReason::LeaseChanged,
            },
            Record::Revoked {
                partition,
                token,
                reason: MoveReason::LeaseChanged,
            },
            Record::Released {
                partition,
                token,
                outcome: ReleaseOutcome::Stopped,
                exit,
                failures: u32::MAX,
            },
            Record::Observed {
                partition,
                token,
                run,
            },
            Record::CheckpointPut {
                partition,
                token,
                number: u64::MAX,
                content: Content::new(&[255; Content::MAX]).unwrap(),
                tell: false,
            },
            Record::Staged {
                change: BatchId {
                    writer: u64::MAX,
                    sequence: u64::MAX,
                },
                records: vec![put.clone(), removed.clone()],
                last: false,
            },
            put,
            many,
            removed,
        ] {
            assert!(encoded(&record) <= weigh(&record), "{record:?}");
        }
    }
}
