//! The ledger of an address, whichever store that is.

use std::path::PathBuf;

use quorate_core::ids::{ClusterId, Epoch, Position};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::address::Address;
#[cfg(any(
    feature = "etcd",
    feature = "zookeeper",
    feature = "consul",
    feature = "postgres"
))]
use crate::address::Scheme;
#[cfg(any(feature = "etcd", feature = "zookeeper", feature = "consul"))]
use crate::keyed::Keyed;
#[cfg(any(
    feature = "etcd",
    feature = "zookeeper",
    feature = "consul",
    feature = "postgres"
))]
use crate::store::Anew;
use crate::{AppendError, Appended, Cause, Committed, Hints, Ledger, ReadError, Snapshot, Tail};

/// Most bytes of the text that says where a cluster has moved.
pub const MOVED_TO_BYTES_MAX: usize = 300;

/// Where a log can begin at most, so that no number which is counted from there on ever comes to an end.
pub const BEGIN_MAX: Position = Position(1 << 53);

/// Why a ledger cannot even be tried. Whether its store answers is told by each call.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address asks for what this store does not do: why, and what to do instead.
    #[error("{0}")]
    Unfit(String),
    /// A file that the address names cannot be used.
    #[error("{} cannot be used", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        cause: crate::Cause,
    },
}

/// Whose ledger it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The cluster that was there first.
    pub cluster: ClusterId,
    /// Where that cluster has moved, for people: this ledger takes nothing any more.
    pub moved_to: Option<String>,
}

/// Why a log did not begin anew. The one that was there is as it was, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// The ledger has an entry or a snapshot, and an empty one was expected. Look at whose it is.
    #[error("ledger is not empty")]
    NotEmpty,
    /// Its first free position is not the one that was seen: somebody appends, or has begun the log anew. Look again.
    #[error("the first free position of the ledger is {next} by now")]
    Moved {
        /// The first free position.
        next: Position,
    },
    /// The new log would not be above all that an append to the old one could still want. Begin further up.
    #[error("the first free position of the ledger is {free}, and a log must begin above it")]
    Backwards {
        /// The first free position.
        free: Position,
    },
    /// The cluster that this ledger is of has moved, so it takes nothing any more. Use another prefix or schema.
    #[error("the cluster of this ledger has moved to {to}")]
    Left {
        /// What [`SharedLedger::mark_moved`] was told.
        to: String,
    },
    /// The store did not answer in time or not as it should. The new log may have begun, now or later: the same call
    /// again finds out, and does it if it is not done.
    #[error("ledger is unavailable")]
    Unavailable(#[source] Cause),
}

impl From<ReadError> for BeginError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(cause) => Self::Unavailable(cause),
            error @ ReadError::Trimmed { .. } => Self::Unavailable(error.into()),
        }
    }
}

/// A ledger in a store that several directors share.
#[derive(Debug)]
pub struct SharedLedger(Store);

#[derive(Debug)]
enum Store {
    #[cfg(feature = "etcd")]
    Etcd(Keyed<crate::etcd::Etcd>),
    #[cfg(feature = "consul")]
    Consul(Keyed<crate::consul::Consul>),
    #[cfg(feature = "postgres")]
    Postgres(Box<crate::postgres::Postgres>),
    #[cfg(feature = "zookeeper")]
    Zookeeper(Keyed<crate::zookeeper::Zookeeper>),
}

/// The same call on whichever store it is.
macro_rules! on {
    ($shared:expr, $ledger:ident => $call:expr) => {
        match $shared.0 {
            #[cfg(feature = "etcd")]
            Store::Etcd(ref $ledger) => $call,
            #[cfg(feature = "consul")]
            Store::Consul(ref $ledger) => $call,
            #[cfg(feature = "postgres")]
            Store::Postgres(ref $ledger) => $call,
            #[cfg(feature = "zookeeper")]
            Store::Zookeeper(ref $ledger) => $call,
        }
    };
}

impl SharedLedger {
    /// The ledger at an address. It does not connect: it reads the files that the address names, and each call tells
    /// whether the store answers. Must be called within a Tokio runtime, which runs the task that follows the log.
    ///
    /// # Errors
    /// When the store cannot do what the address asks for, or a file cannot be used.
    pub fn open(address: &Address) -> Result<Self, OpenError> {
        #[cfg(feature = "etcd")]
        if address.scheme == Scheme::Etcd {
            let store = crate::etcd::Etcd::new(address)?;
            return Ok(Self(Store::Etcd(Keyed::new(store))));
        }
        #[cfg(feature = "consul")]
        if address.scheme == Scheme::Consul {
            let store = crate::consul::Consul::new(address)?;
            return Ok(Self(Store::Consul(Keyed::new(store))));
        }
        #[cfg(feature = "postgres")]
        if address.scheme == Scheme::Postgres {
            let store = crate::postgres::Postgres::new(address)?;
            return Ok(Self(Store::Postgres(Box::new(store))));
        }
        #[cfg(feature = "zookeeper")]
        if address.scheme == Scheme::Zookeeper {
            let store = crate::zookeeper::Zookeeper::new(address)?;
            return Ok(Self(Store::Zookeeper(Keyed::new(store))));
        }
        let name = address.scheme.name();
        Err(OpenError::Unfit(format!(
            "this build of quorate has no {name} in it: build it with feature {name}"
        )))
    }
}

#[cfg_attr(
    not(any(
        feature = "etcd",
        feature = "zookeeper",
        feature = "consul",
        feature = "postgres"
    )),
    expect(
        unused_variables,
        clippy::unused_async,
        reason = "without any store there is nobody to ask"
    )
)]
impl SharedLedger {
    /// Whose ledger it is, linearizable; `None` while nobody has claimed it.
    ///
    /// # Errors
    /// When the store does not answer in time or not as it should.
    pub async fn owner(&self) -> Result<Option<Owner>, ReadError> {
        on!(self, ledger => ledger.owner().await)
    }

    /// Makes the ledger this cluster's if it is nobody's, in one step, and tells whose it is then. That it is another
    /// cluster's is no error: the caller compares.
    ///
    /// # Errors
    /// When the store does not answer in time or not as it should. It may be claimed all the same: ask again.
    pub async fn claim(&self, cluster: ClusterId) -> Result<Owner, ReadError> {
        on!(self, ledger => ledger.claim(cluster).await)
    }

    /// Says where this cluster has moved, for people, and in the same step closes the log: no append lands in it any
    /// more, however late, and none is taken. All that is there can be read. Said again, it changes the text alone.
    ///
    /// # Errors
    /// When the ledger is not this cluster's, the text has more than [`MOVED_TO_BYTES_MAX`] bytes or a password in it,
    /// or the store does not answer in time or not as it should; then it may have been done: ask again.
    pub async fn mark_moved(&self, cluster: ClusterId, to: &str) -> Result<(), ReadError> {
        check_moved_to(to)?;
        on!(self, ledger => ledger.mark_moved(cluster, to).await)
    }

    /// Begins the log anew: from now on it begins at `next`, with `snapshot` as the state before that and `epoch` as the
    /// epoch of what would be the entry before it. Everything that was there is given up, in one step: whatever is cut
    /// short leaves the old log or the new one. `next` must be above the first free position, so that a late append of
    /// the old log never lands. What is left of that is deleted now, by the same call again, or with the next snapshot.
    ///
    /// `None` as `instead_of`: the ledger has no entry and no snapshot. Otherwise its first free position is still this
    /// one, which [`tail`](Ledger::tail) told: whoever else appends or does the same thing meanwhile is noticed.
    ///
    /// The same call again, with equal arguments, succeeds without doing anything until a later snapshot is kept. A
    /// client that was opened before may read entries of the old log until it asks for the tail or finds none any more.
    ///
    /// # Errors
    /// See [`BeginError`].
    pub async fn begin(
        &self,
        next: Position,
        epoch: Epoch,
        snapshot: Vec<u8>,
        instead_of: Option<Position>,
    ) -> Result<(), BeginError> {
        if next > BEGIN_MAX {
            let cause = format!("a log begins at position {BEGIN_MAX} at most");
            return Err(BeginError::Unavailable(cause.into()));
        }
        on!(self, ledger => {
            let new = Anew { next, epoch, snapshot: &snapshot, instead_of };
            ledger.begin(new).await
        })
    }
}

/// It is shown to whoever looks.
fn check_moved_to(to: &str) -> Result<(), ReadError> {
    if to.len() > MOVED_TO_BYTES_MAX {
        let cause =
            format!("where a cluster has moved is said in at most {MOVED_TO_BYTES_MAX} bytes");
        return Err(ReadError::Unavailable(cause.into()));
    }
    let place = to.split_once("://").map_or("", |(_, place)| place);
    let place = place.split('/').next().unwrap_or_default();
    let user = place.rsplit_once('@').map_or("", |(user, _)| user);
    if user.contains(':') {
        let cause = "where a cluster has moved is said without a password";
        return Err(ReadError::Unavailable(cause.into()));
    }
    Ok(())
}

#[cfg_attr(
    not(any(
        feature = "etcd",
        feature = "zookeeper",
        feature = "consul",
        feature = "postgres"
    )),
    expect(unused_variables, reason = "without any store there is nobody to ask")
)]
impl Ledger for SharedLedger {
    async fn append(
        &self,
        at: Position,
        epoch: Epoch,
        entry: Vec<u8>,
    ) -> Result<Appended, AppendError> {
        on!(self, ledger => ledger.append(at, epoch, entry).await)
    }

    async fn tail(&self) -> Result<Tail, ReadError> {
        on!(self, ledger => ledger.tail().await)
    }

    async fn read(&self, from: Position, limit: usize) -> Result<Vec<Committed>, ReadError> {
        on!(self, ledger => ledger.read(from, limit).await)
    }

    async fn save_snapshot(&self, next: Position, snapshot: Vec<u8>) -> Result<(), ReadError> {
        on!(self, ledger => ledger.save_snapshot(next, snapshot).await)
    }

    async fn load_snapshot(&self) -> Result<Option<Snapshot>, ReadError> {
        on!(self, ledger => ledger.load_snapshot().await)
    }

    fn hints(&self) -> watch::Receiver<Hints> {
        on!(self, ledger => ledger.hints())
    }
}
