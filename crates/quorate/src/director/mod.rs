//! A director with its ledger: embedded, alone or in a quorum with others, or in a store that several share.

mod embedded;
mod store;

use std::net::SocketAddr;
use std::path::Path;

use quorate_director::{Bound, Config};
use quorate_ledger::address::Address;
use tokio_util::sync::CancellationToken;

use crate::daemon::of_director;
use crate::failure::{Code, Failure};
use crate::papers::DirectorPapers;

pub(crate) use embedded::Peering;
pub(crate) use store::{address, open as open_store, unready};

use embedded::EmbeddedLedger;
use store::StoreLedger;

/// Where a director has its ledger.
#[derive(Clone, Debug)]
pub(crate) enum Home {
    /// In its own folder, and there is no other director.
    Alone,
    /// In its own folder, and in those of the others.
    Quorum(Peering),
    /// In a store, with which any number of directors do the same.
    Store(Box<Address>),
}

/// A director that has its folder and its address, and its ledger.
#[derive(Debug)]
pub(crate) struct Director {
    bound: Bound,
    ledger: OpenLedger,
    papers: Option<DirectorPapers>,
}

#[derive(Debug)]
enum OpenLedger {
    Embedded(Box<EmbeddedLedger>),
    Store(Box<StoreLedger>),
}

impl Director {
    /// Opens everything that a director needs, below its data folder.
    ///
    /// # Errors
    /// When the folder, the papers, an address or the store cannot be used.
    pub(crate) async fn open(mut config: Config, home: Home) -> Result<Self, Failure> {
        can_be_a_folder(&config.data_dir)?;
        let papers = DirectorPapers::find(&config.data_dir)?;
        if let Some(papers) = &papers {
            papers.protect(&mut config)?;
        }
        let (bound, ledger) = match home {
            Home::Alone => EmbeddedLedger::open(config, papers.as_ref(), None).await?,
            Home::Quorum(peering) => {
                EmbeddedLedger::open(config, papers.as_ref(), Some(peering)).await?
            }
            Home::Store(address) => StoreLedger::open(config, papers.as_ref(), &address).await?,
        };
        Ok(Self {
            bound,
            ledger,
            papers,
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.bound.address()
    }

    /// Runs it until it is told to stop, and closes its ledger.
    ///
    /// # Errors
    /// When it must end by itself.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> Result<(), Failure> {
        let (bound, papers) = (self.bound, self.papers);
        match self.ledger {
            OpenLedger::Embedded(ledger) => ledger.run(bound, papers.as_ref(), shutdown).await,
            OpenLedger::Store(ledger) => ledger.run(bound, papers.as_ref(), shutdown).await,
        }
    }
}

/// Opens its folder and its address.
async fn bind(config: Config) -> Result<Bound, Failure> {
    quorate_director::bind(config).await.map_err(of_director)
}

/// Refuses a data folder whose way leads through something that is no folder, before anything is looked for in it.
fn can_be_a_folder(data_dir: &Path) -> Result<(), Failure> {
    let there = data_dir
        .ancestors()
        .find_map(|path| Some((path, std::fs::metadata(path).ok()?)));
    match there {
        Some((path, found)) if !found.is_dir() => Err(Failure::new(
            Code::DataDir,
            format!(
                "{} cannot be the data folder: {} is no folder",
                data_dir.display(),
                path.display()
            ),
            crate::daemon::next(Code::DataDir),
        )),
        Some(_) | None => Ok(()),
    }
}
