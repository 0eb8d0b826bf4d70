//! The members of an embedded quorum, as whoever opened the ledger offers them. Over a shared store there are
//! none: whoever can write to it is a director.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;
use quorate_core::ids::DirectorName;

/// One member, as this director knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its random identity in the quorum.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where the other directors reach it.
    pub peer_address: String,
    /// Whether it votes; a learner only follows.
    pub voter: bool,
    /// Whether it leads.
    pub leads: bool,
    /// How many records it lacks; only the leader knows.
    pub behind: Option<u64>,
    /// How long ago it last answered; only the leader knows.
    pub silent_for: Option<Duration>,
}

/// Who is to lead after one of them: the other voter that lacks least.
#[must_use]
pub fn heir(members: &[Member], after: u64) -> Option<&Member> {
    let others = members.iter();
    let others = others.filter(|member| member.voter && member.id != after);
    others.min_by_key(|member| member.behind.unwrap_or(u64::MAX))
}

/// Why the members were not changed, by what can be done about it.
#[derive(Debug, thiserror::Error)]
pub enum QuorumError {
    /// Only the leader changes them.
    #[error("this director does not lead")]
    NotLeading,
    /// It follows and has not caught up yet; again in a moment.
    #[error("{0}")]
    NotYet(String),
    /// Not done, certainly, and trying again helps only once something else has changed.
    #[error("{0}")]
    Refused(String),
    /// It may be done now or later.
    #[error("{0}")]
    Unknown(String),
}

/// What a change of members comes to.
pub type Changed<'a> = BoxFuture<'a, Result<(), QuorumError>>;

/// The quorum of directors. Every call has a time limit of its own.
pub trait Quorum: fmt::Debug + Send + Sync {
    /// The identity of this director in it.
    fn id(&self) -> u64;
    /// Where this director is reached by the others; `None` when it is alone for good.
    fn peer_address(&self) -> Option<String>;
    /// The members.
    fn members(&self) -> Vec<Member>;
    /// Adds a director that waits to be added; it follows, and does not vote. Done twice is done once.
    fn add<'a>(&'a self, id: u64, name: &'a DirectorName, peer_address: &'a str) -> Changed<'a>;
    /// Gives a member that has caught up a vote.
    fn promote(&self, id: u64) -> Changed<'_>;
    /// Removes a member for good.
    fn remove(&self, id: u64) -> Changed<'_>;
    /// Hands leadership over to another voter.
    fn transfer(&self, to: u64) -> Changed<'_>;
}
