//! The ledger in a store that several directors share.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::director::{SILENCE, TAKEOVER};
use quorate_core::ids::ClusterId;
use quorate_director::{Bound, Config, Store};
use quorate_ledger::ReadError;
use quorate_ledger::address::Address;
use quorate_ledger::shared::{OpenError, Owner, SharedLedger};
use tokio_util::sync::CancellationToken;

use super::{OpenLedger, bind};
use crate::daemon::of_director;
use crate::failure::{Code, Failure, chain};
use crate::papers::DirectorPapers;

/// A machine that starts may be up before its database is.
const STORE_PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries.
const STORE_AGAIN: Duration = Duration::from_secs(1);

/// An open ledger in a store, and whose it is.
#[derive(Debug)]
pub(super) struct StoreLedger {
    ledger: Arc<SharedLedger>,
    cluster: ClusterId,
}

impl StoreLedger {
    /// Opens it, and sees that it is this cluster's.
    pub(super) async fn open(
        mut config: Config,
        papers: Option<&DirectorPapers>,
        address: &Address,
    ) -> Result<(Bound, OpenLedger), Failure> {
        has_none_of_its_own(&config.data_dir)?;
        let ledger = open(address)?;
        config.store = Some(Store {
            at: address.to_string(),
            silence: SILENCE,
        });
        config.takeover = TAKEOVER;
        // Before the store is asked: who may not listen need not wait for it.
        let bound = bind(config).await?;
        let cluster = cluster_of(&ledger, address, papers.map(DirectorPapers::cluster)).await?;
        let opened = Self {
            ledger: Arc::new(ledger),
            cluster,
        };
        Ok((bound, OpenLedger::Store(Box::new(opened))))
    }

    /// Runs a director with it until it is told to stop.
    pub(super) async fn run(
        self,
        bound: Bound,
        papers: Option<&DirectorPapers>,
        shutdown: CancellationToken,
    ) -> Result<(), Failure> {
        let running = bound.run(self.ledger, self.cluster, shutdown);
        let keep = async {
            match papers {
                Some(papers) => papers.keep(None).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = running => ended.map_err(of_director),
            () = keep => Ok(()),
        }
    }
}

/// The ledger at an address. Whether its store answers is seen later.
///
/// # Errors
/// When the address asks for what is not there.
pub(crate) fn open(address: &Address) -> Result<SharedLedger, Failure> {
    SharedLedger::open(address).map_err(|error| {
        let next = match &error {
            OpenError::Unfit(_) => "docs/ledgers.md tells what each store can do".to_owned(),
            OpenError::File { file, .. } => {
                format!("check {} and who may read it", file.display())
            }
        };
        Failure::new(Code::Config, chain(&error), next)
    })
}

/// The address of a ledger.
///
/// # Errors
/// When the text is none.
pub(crate) fn address(text: &str) -> Result<Address, Failure> {
    text.parse().map_err(|error| {
        Failure::new(
            Code::Usage,
            format!("--ledger: {}", chain(&error)),
            "docs/ledgers.md tells what an address of each store is like",
        )
    })
}

/// A store that does not answer as it should.
pub(crate) fn unready(address: &Address, error: &ReadError) -> Failure {
    Failure::new(
        Code::Unreachable,
        format!("the ledger at {address}: {}", chain(error)),
        "check the address, and that the store runs and lets this machine in",
    )
}

/// The cluster whose ledger this is. The first director without certificates founds one; with certificates it is theirs.
async fn cluster_of(
    ledger: &SharedLedger,
    address: &Address,
    papers: Option<ClusterId>,
) -> Result<ClusterId, Failure> {
    let owner = match (owner_of(ledger, address).await?, papers) {
        (Some(owner), _) => owner,
        (None, Some(cluster)) => return Err(empty(address, cluster)),
        (None, None) => {
            let new = ClusterId(rand::random_range(1..1_u64 << 53));
            let claimed = ledger.claim(new).await;
            claimed.map_err(|error| unready(address, &error))?
        }
    };
    if let Some(to) = &owner.moved_to {
        return Err(Failure::new(
            Code::Config,
            format!("the ledger at {address} was moved to {to}"),
            "start this director with --ledger and the new address",
        ));
    }
    match papers {
        Some(own) if own != owner.cluster => Err(Failure::new(
            Code::Config,
            format!(
                "the ledger at {address} is that of cluster {}, the certificates are those of cluster {own}",
                owner.cluster
            ),
            "check the address: clusters that share a store differ in its prefix or schema",
        )),
        Some(_) | None => Ok(owner.cluster),
    }
}

/// Waits for the store as long as a machine may take to start it.
async fn owner_of(ledger: &SharedLedger, address: &Address) -> Result<Option<Owner>, Failure> {
    let until = tokio::time::Instant::now() + STORE_PATIENCE;
    loop {
        let error = match ledger.owner().await {
            Ok(owner) => return Ok(owner),
            Err(error) => error,
        };
        let failure = unready(address, &error);
        if tokio::time::Instant::now() >= until {
            return Err(failure);
        }
        tracing::warn!(why = failure.first.sentence, "the ledger is not there yet");
        tokio::time::sleep(STORE_AGAIN).await;
    }
}

/// Nobody has ever made a cluster here, and this director is of one.
fn empty(address: &Address, cluster: ClusterId) -> Failure {
    Failure::new(
        Code::Config,
        format!("there is no ledger at {address}, and this director is of cluster {cluster}"),
        "check the address; if the store was lost, `quorate cluster restore` makes the ledger of a backup",
    )
}

/// A folder with an embedded ledger is that of another kind of director.
fn has_none_of_its_own(data_dir: &Path) -> Result<(), Failure> {
    let own = data_dir.join("ledger");
    if !own.exists() {
        return Ok(());
    }
    Err(Failure::new(
        Code::Config,
        format!(
            "{} is an embedded ledger, and --ledger names another one",
            own.display()
        ),
        "`quorate ledger copy` moves a cluster; for a new one choose another --data-dir",
    ))
}
