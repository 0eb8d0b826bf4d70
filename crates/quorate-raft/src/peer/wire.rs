//! What directors say to each other: our own types, so that a new version of the Raft library changes
//! nothing on the wire.
//!
//! [`Hello`] and [`Welcome`] are for ever: fields may be added, none may change. What follows them is of
//! the version that they agreed on. Each message is a map with names, so fields that a newer version adds
//! are passed over by an older one.

use std::fmt;
use std::io;
use std::sync::Arc;

use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use quorate_core::ids::{Epoch, Position};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::log::Members;
use crate::types::{self, LogId, Proposal, SnapshotMeta, Types, log_id, term_of};

/// The oldest version of the messages that this build speaks.
pub(crate) const OLDEST: u16 = 1;
/// The newest version of the messages that this build speaks.
pub(crate) const NEWEST: u16 = 1;

/// The first word, so that a stranger is told from a director.
pub(crate) const GREETING: &str = "quorate director";

/// The first message on a connection, of who dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) greeting: String,
    /// The versions that it speaks.
    pub(crate) oldest: u16,
    pub(crate) newest: u16,
    pub(crate) cluster: u64,
    /// Who dialled.
    pub(crate) from: u64,
    /// Who it means to have reached.
    pub(crate) to: u64,
    /// Whether its folder has nothing yet: it was made to be added to a cluster, and was not.
    pub(crate) empty: bool,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Welcome {
    /// Requests may follow, in this version.
    Accepted { version: u16 },
    /// The connection ends here.
    Refused { why: String },
}

/// A request; the next one follows when it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    Append(Append),
    Vote(Ballot),
    PreVote(Ballot),
    /// Followed by the bytes of the file in chunks, ended by an empty one.
    Snapshot(SnapshotHead),
    Transfer(Transfer),
    /// Asks the leader up to which record somebody must have applied who wants to read what is true now.
    ReadIndex,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Append(Appended),
    /// Also to a pre-vote.
    Vote(Voted),
    Snapshot(Vote),
    Transfer(Transferred),
    ReadIndex(u64),
    /// It was not done; nothing was granted.
    Failed(String),
}

/// The place of a record in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    term: u64,
    index: u64,
}

/// Whom a director follows or votes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vote {
    term: u64,
    pub(crate) node: u64,
    committed: bool,
}

/// Records for a follower; none in a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Append {
    pub(crate) vote: Vote,
    before: Option<Mark>,
    committed: Option<Mark>,
    records: Vec<Record>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    at: Mark,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Content {
    Blank,
    Proposal { at: u64, epoch: u64, entry: Bytes },
    Members(Members),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Appended {
    /// All of it.
    Whole,
    /// Up to this record.
    UpTo(Option<Mark>),
    /// The record before the first is another one.
    Conflict,
    /// It follows somebody newer.
    Newer(Vote),
}

/// A request for a vote, or for what would be voted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ballot {
    pub(crate) vote: Vote,
    last: Option<Mark>,
    /// The leader itself wants this election.
    pub(crate) transfer: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Voted {
    vote: Vote,
    granted: bool,
    last: Option<Mark>,
}

/// What a snapshot holds, before its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    pub(crate) vote: Vote,
    /// Bytes that follow.
    pub(crate) bytes: u64,
    last: Option<Mark>,
    members: Members,
    members_from: Option<Mark>,
}

/// The leader wants `to` to lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transfer {
    pub(crate) leader: Vote,
    to: u64,
    last: Option<Mark>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Transferred {
    Done,
    VoteChanged {
        expected: Vote,
        actual: Vote,
    },
    Behind {
        expected: Option<Mark>,
        actual: Option<Mark>,
    },
}

impl From<LogId> for Mark {
    fn from(id: LogId) -> Self {
        Self {
            term: term_of(&id),
            index: id.index,
        }
    }
}

impl From<Mark> for LogId {
    fn from(mark: Mark) -> Self {
        log_id(mark.term, mark.index)
    }
}

impl From<types::Vote> for Vote {
    fn from(vote: types::Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            node: vote.leader_id.voted_for,
            committed: vote.committed,
        }
    }
}

impl From<Vote> for types::Vote {
    fn from(vote: Vote) -> Self {
        if vote.committed {
            Self::new_committed(vote.term, vote.node)
        } else {
            Self::new(vote.term, vote.node)
        }
    }
}

impl From<AppendEntriesRequest<Types>> for Append {
    fn from(request: AppendEntriesRequest<Types>) -> Self {
        let record = |entry: types::Entry| Record {
            at: entry.log_id.into(),
            content: match entry.payload {
                EntryPayload::Blank => Content::Blank,
                EntryPayload::Normal(Proposal { at, epoch, entry }) => Content::Proposal {
                    at: at.0,
                    epoch: epoch.0,
                    entry: Bytes(entry),
                },
                EntryPayload::Membership(membership) => Content::Members(Members::of(&membership)),
            },
        };
        Self {
            vote: request.vote.into(),
            before: request.prev_log_id.map(Mark::from),
            committed: request.leader_commit.map(Mark::from),
            records: request.entries.into_iter().map(record).collect(),
        }
    }
}

impl TryFrom<Append> for AppendEntriesRequest<Types> {
    type Error = io::Error;

    fn try_from(append: Append) -> io::Result<Self> {
        let entry = |record: Record| {
            let payload = match record.content {
                Content::Blank => EntryPayload::Blank,
                Content::Proposal { at, epoch, entry } => EntryPayload::Normal(Proposal {
                    at: Position(at),
                    epoch: Epoch(epoch),
                    entry: entry.0,
                }),
                Content::Members(members) => EntryPayload::Membership(members.membership()?),
            };
            Ok(types::Entry {
                log_id: record.at.into(),
                payload,
            })
        };
        Ok(Self {
            vote: append.vote.into(),
            prev_log_id: append.before.map(LogId::from),
            leader_commit: append.committed.map(LogId::from),
            entries: append
                .records
                .into_iter()
                .map(entry)
                .collect::<io::Result<_>>()?,
        })
    }
}

impl From<AppendEntriesResponse<Types>> for Appended {
    fn from(response: AppendEntriesResponse<Types>) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::Whole,
            AppendEntriesResponse::PartialSuccess(upto) => Self::UpTo(upto.map(Mark::from)),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::Newer(vote.into()),
        }
    }
}

impl From<Appended> for AppendEntriesResponse<Types> {
    fn from(appended: Appended) -> Self {
        match appended {
            Appended::Whole => Self::Success,
            Appended::UpTo(upto) => Self::PartialSuccess(upto.map(LogId::from)),
            Appended::Conflict => Self::Conflict,
            Appended::Newer(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<VoteRequest<Types>> for Ballot {
    fn from(request: VoteRequest<Types>) -> Self {
        Self {
            vote: request.vote.into(),
            last: request.last_log_id.map(Mark::from),
            transfer: request.leadership_transfer,
        }
    }
}

impl From<Ballot> for VoteRequest<Types> {
    fn from(ballot: Ballot) -> Self {
        let mut request = Self::new(ballot.vote.into(), ballot.last.map(LogId::from));
        request.leadership_transfer = ballot.transfer;
        request
    }
}

impl From<VoteResponse<Types>> for Voted {
    fn from(response: VoteResponse<Types>) -> Self {
        Self {
            vote: response.vote.into(),
            granted: response.vote_granted,
            last: response.last_log_id.map(Mark::from),
        }
    }
}

impl From<Voted> for VoteResponse<Types> {
    fn from(voted: Voted) -> Self {
        let vote: types::Vote = voted.vote.into();
        Self::new(vote, voted.last.map(LogId::from), voted.granted)
    }
}

impl SnapshotHead {
    pub(crate) fn new(vote: types::Vote, bytes: u64, meta: &SnapshotMeta) -> Self {
        Self {
            vote: vote.into(),
            bytes,
            last: meta.last_log_id.map(Mark::from),
            members: Members::of(meta.last_membership.membership()),
            members_from: meta.last_membership.log_id().map(Mark::from),
        }
    }

    pub(crate) fn meta(&self) -> io::Result<SnapshotMeta> {
        let from = self.members_from.map(LogId::from);
        Ok(SnapshotMeta {
            last_log_id: self.last.map(LogId::from),
            last_membership: self.members.clone().stored(from)?,
        })
    }
}

impl From<TransferLeaderRequest<Types>> for Transfer {
    fn from(request: TransferLeaderRequest<Types>) -> Self {
        Self {
            leader: (*request.from_leader()).into(),
            to: *request.to_node_id(),
            last: request.last_log_id().copied().map(Mark::from),
        }
    }
}

impl From<Transfer> for TransferLeaderRequest<Types> {
    fn from(transfer: Transfer) -> Self {
        let last = transfer.last.map(LogId::from);
        Self::new(transfer.leader.into(), transfer.to, last)
    }
}

impl From<Result<(), TransferLeaderError<Types>>> for Transferred {
    fn from(response: Result<(), TransferLeaderError<Types>>) -> Self {
        match response {
            Ok(()) => Self::Done,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => Self::VoteChanged {
                expected: expected.into(),
                actual: actual.into(),
            },
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => Self::Behind {
                expected: expected.map(Mark::from),
                actual: actual.map(Mark::from),
            },
        }
    }
}

impl From<Transferred> for Result<(), TransferLeaderError<Types>> {
    fn from(transferred: Transferred) -> Self {
        match transferred {
            Transferred::Done => Ok(()),
            Transferred::VoteChanged { expected, actual } => {
                Err(TransferLeaderError::VoteChanged {
                    expected: expected.into(),
                    actual: actual.into(),
                })
            }
            Transferred::Behind { expected, actual } => Err(TransferLeaderError::LogNotFlushed {
                expected: expected.map(LogId::from),
                actual: actual.map(LogId::from),
            }),
        }
    }
}

/// An entry, as one piece of bytes instead of a list of numbers.
#[derive(Clone, PartialEq, Eq)]
struct Bytes(Arc<[u8]>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl Visitor<'_> for Any {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(Arc::from(bytes)))
            }
        }

        deserializer.deserialize_bytes(Any)
    }
}

#[cfg(test)]
mod tests;
