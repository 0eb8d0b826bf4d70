//! The ledger of an address, whichever store that is.

use std::path::PathBuf;

use quorate_core::ids::{Epoch, Position};
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
use crate::{AppendError, Appended, Committed, Hints, Ledger, ReadError, Snapshot, Tail};

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
