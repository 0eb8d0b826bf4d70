//! The replicated log behind one small trait.
//!
//! A ledger is a log on some consistent store. Nothing else is asked of the store: leadership, epochs,
//! sessions, leases and tokens are entries, derived in `quorate-core`. Entries are opaque bytes here.

pub mod address;
pub mod conformance;
#[cfg(feature = "consul")]
mod consul;
#[cfg(feature = "etcd")]
mod etcd;
pub mod faulty;
#[cfg(any(
    feature = "etcd",
    feature = "zookeeper",
    feature = "consul",
    feature = "postgres"
))]
mod hints;
#[cfg(any(feature = "etcd", feature = "consul"))]
mod http;
#[cfg(any(feature = "etcd", feature = "zookeeper", feature = "consul"))]
mod keyed;
pub mod memory;
#[cfg(feature = "postgres")]
mod postgres;
pub mod shared;
#[cfg(any(
    feature = "etcd",
    feature = "zookeeper",
    feature = "consul",
    feature = "postgres"
))]
mod store;
#[cfg(any(feature = "etcd", feature = "consul", feature = "postgres"))]
mod tls;
#[cfg(feature = "zookeeper")]
mod zookeeper;

use std::future::Future;

use quorate_core::ids::{Epoch, Position};

/// About how many bytes of entries one [`Ledger::read`] tells at most; a first entry is told whatever
/// its size.
pub const READ_BYTES_MAX: usize = 1024 * 1024;

/// The log. All methods may be called at any time from several tasks; each has its own time limit
/// inside, and a call that is dropped has an unknown outcome.
pub trait Ledger: Send + Sync + 'static {
    /// Creates the entry at exactly `at`, if `at` is free **and the position before it is occupied**,
    /// in one atomic step. Position 1 needs no predecessor. A trimmed position stays occupied, so an
    /// append that arrives late never lands there.
    ///
    /// An append whose predecessor is free and one of more than
    /// [`ENTRY_BYTES_MAX`](quorate_core::record::ENTRY_BYTES_MAX) bytes is refused.
    ///
    /// `epoch` is that of the entry, which [`tail`](Self::tail) tells again.
    fn append(
        &self,
        at: Position,
        epoch: Epoch,
        entry: Vec<u8>,
    ) -> impl Future<Output = Result<Appended, AppendError>> + Send;

    /// The first free position and the epoch of the entry before it, linearizable: true at some
    /// moment after the call began.
    fn tail(&self) -> impl Future<Output = Result<Tail, ReadError>> + Send;

    /// A contiguous run of committed entries from `from` on, at most `limit` of them and about 1 MiB;
    /// empty at the tail, stops before a gap. It may be shorter than it could be, and it may lag behind
    /// [`tail`](Self::tail); it is never empty when an entry at `from` was seen by this client before.
    /// Position 0 is read as position 1.
    ///
    /// A `from` that was trimmed away is an error of its own: load the snapshot instead.
    fn read(
        &self,
        from: Position,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Committed>, ReadError>> + Send;

    /// Keeps `snapshot` as the state after every entry before `next`, unless a later one is kept, and
    /// trims entries that the snapshot before it covers; never the last entry. An older or equal
    /// snapshot is dropped without an error; one that covers entries which are not there is refused.
    fn save_snapshot(
        &self,
        next: Position,
        snapshot: Vec<u8>,
    ) -> impl Future<Output = Result<(), ReadError>> + Send;

    /// The newest snapshot, if there is one.
    fn load_snapshot(&self) -> impl Future<Output = Result<Option<Snapshot>, ReadError>> + Send;

    /// Hints, each of which may be lost, repeated or late.
    fn hints(&self) -> tokio::sync::watch::Receiver<Hints>;
}

/// A ledger that is shared, so that whoever opened it can close it.
impl<L: Ledger> Ledger for std::sync::Arc<L> {
    fn append(
        &self,
        at: Position,
        epoch: Epoch,
        entry: Vec<u8>,
    ) -> impl Future<Output = Result<Appended, AppendError>> + Send {
        L::append(self, at, epoch, entry)
    }

    fn tail(&self) -> impl Future<Output = Result<Tail, ReadError>> + Send {
        L::tail(self)
    }

    fn read(
        &self,
        from: Position,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Committed>, ReadError>> + Send {
        L::read(self, from, limit)
    }

    fn save_snapshot(
        &self,
        next: Position,
        snapshot: Vec<u8>,
    ) -> impl Future<Output = Result<(), ReadError>> + Send {
        L::save_snapshot(self, next, snapshot)
    }

    fn load_snapshot(&self) -> impl Future<Output = Result<Option<Snapshot>, ReadError>> + Send {
        L::load_snapshot(self)
    }

    fn hints(&self) -> tokio::sync::watch::Receiver<Hints> {
        L::hints(self)
    }
}

/// Answer to an append: both are facts, not failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The entry is durable at the position.
    Appended,
    /// Some entry was already there, perhaps this very one from an earlier try.
    PositionTaken,
}

/// The end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// First free position.
    pub next: Position,
    /// Epoch of the entry before it; zero when there is none.
    pub epoch: Epoch,
}

/// One committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Where it is.
    pub position: Position,
    /// What was appended.
    pub entry: Vec<u8>,
}

/// The state after a part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// First position that it does not cover.
    pub next: Position,
    /// What was handed to [`Ledger::save_snapshot`].
    pub bytes: Vec<u8>,
}

/// Hints of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Some position that was seen to be occupied; reading up to it may show something new.
    pub occupied: Position,
    /// Whether this director should lead (embedded quorum); `None` on shared stores, where only
    /// silence tells.
    pub should_lead: Option<bool>,
    /// Who leads (embedded quorum), as far as this director knows; perhaps itself.
    pub leader: Option<Leader>,
}

/// The director that leads an embedded quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its name.
    pub name: String,
    /// Where the other directors reach it; empty while it is alone.
    pub address: String,
}

/// What a caller cannot mend: text for people.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why an append gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Certainly not written and never will be by this call; trying again is safe.
    #[error("ledger refused append at position {at}")]
    Refused {
        /// The position.
        at: Position,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// The entry may be there now or appear later; append the same entry there again.
    #[error("ledger append at position {at} has an unknown outcome")]
    OutcomeUnknown {
        /// The position.
        at: Position,
        /// Why.
        #[source]
        cause: Cause,
    },
}

/// Why a read or the keeping of a snapshot failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The position is older than the log: its first one left is `first`.
    #[error("ledger has trimmed everything before position {first}")]
    Trimmed {
        /// First position left.
        first: Position,
    },
    /// The store did not answer in time or not as it should; trying again later may help.
    #[error("ledger is unavailable")]
    Unavailable(#[source] Cause),
}
