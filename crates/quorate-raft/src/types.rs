//! The types that the Raft library is told to work with.
//!
//! They are ours where they reach a disk or a wire; their stored form is in [`crate::log`] and
//! [`crate::snapshot`], so that a new version of the library changes nothing that is kept.

use std::fmt;
use std::sync::Arc;

use openraft::impls::leader_id_std;
use quorate_core::ids::{Epoch, Position};
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// The Raft library, configured: at most one leader in a term, as in the paper.
    pub(crate) Types:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = Member,
        LeaderId = leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

pub(crate) type Raft = openraft::Raft<Types, crate::machine::Machine>;
pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
type CommittedLeader = openraft::alias::CommittedLeaderIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;

/// The id of a log record.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeader::from(term), index)
}

/// The term of a log record.
pub(crate) fn term_of(log_id: &LogId) -> u64 {
    log_id.committed_leader_id().term
}

/// An append on its way through the log. Whether it takes its position is decided when it is applied.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal {
    pub(crate) at: Position,
    pub(crate) epoch: Epoch,
    pub(crate) entry: Arc<[u8]>,
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, epoch, entry } = self;
        write!(f, "entry of {} bytes at {at}, epoch {epoch}", entry.len())
    }
}

/// What became of a [`Proposal`] when it was applied; the same on every director.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// It took its position.
    Appended,
    /// Another was there before it.
    PositionTaken,
    /// The position before it is free: this one is.
    Gap { next: Position },
    /// It was no proposal.
    Nothing,
}

/// A director, as the membership records it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Its name, for people; its identity is the random id.
    pub(crate) name: String,
    /// Where the others reach it; empty while it is alone.
    pub(crate) address: String,
}
