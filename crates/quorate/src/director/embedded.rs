//! The ledger that a director has in its own folder: its own alone, or that of a quorum.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quorate_api::client::{self, Client};
use quorate_core::ids::ClusterId;
use quorate_director::quorum::{Quorum as _, heir};
use quorate_director::{Bound, Config, Joining, folded};
use quorate_raft::{Embedded, OpenError, Options, Peers, Start, Timing};
use tokio_util::sync::CancellationToken;

use super::{OpenLedger, bind};
use crate::daemon::{LedgerThreads, next, of_director};
use crate::failure::{Code, Failure, chain};
use crate::papers::DirectorPapers;
use crate::quorum::EmbeddedQuorum;

/// Handing leadership over before the end takes a round and an election; longer, and the others elect one by
/// themselves.
const HAND_OVER_TIME: Duration = Duration::from_secs(4);

/// How a director takes part in a quorum.
#[derive(Clone, Debug)]
pub(crate) struct Peering {
    /// Where it listens for other directors.
    pub(crate) listen: SocketAddr,
    /// Where they reach it, when that is another address.
    pub(crate) advertise: Option<String>,
    /// APIs of directors that are in the quorum, when this one is to come into it.
    pub(crate) join: Vec<String>,
    /// It is to follow without a vote.
    pub(crate) learner: bool,
    /// From 0 to 10: of those that could lead, the highest does.
    pub(crate) priority: Option<u8>,
}

/// An open embedded ledger.
#[derive(Debug)]
pub(super) struct EmbeddedLedger {
    ledger: Arc<Embedded>,
    joining: Option<Joining>,
    /// Where the other directors reach it.
    peer_address: Option<String>,
    /// Ends after the ledger.
    threads: LedgerThreads,
}

impl EmbeddedLedger {
    /// Opens it below the data folder; without `peering` it is alone.
    pub(super) async fn open(
        config: Config,
        papers: Option<&DirectorPapers>,
        peering: Option<Peering>,
    ) -> Result<(Bound, OpenLedger), Failure> {
        not_over_a_store(&config.data_dir)?;
        let mut options = Options::new(config.data_dir.join("ledger"), config.name.clone());
        let mut joining = None;
        if let Some(peering) = peering {
            let papers = papers.ok_or_else(|| no_papers(&config.data_dir))?;
            joining = joining_of(&peering, papers)?;
            take_part(&mut options, papers, peering)?;
        }
        let peer_address = options.peers.is_some().then(|| options.address.clone());
        let bound = bind(config).await?;
        let threads = LedgerThreads::start()?;
        let ledger = open_ledger(&threads, options).await?;
        alone_by_mistake(&ledger)?;
        if let Some(papers) = papers {
            of_this_cluster(&ledger, papers)?;
        }
        let opened = Self {
            ledger,
            joining,
            peer_address,
            threads,
        };
        Ok((bound, OpenLedger::Embedded(Box::new(opened))))
    }

    /// Runs a director with it until it is told to stop, and closes it.
    pub(super) async fn run(
        self,
        bound: Bound,
        papers: Option<&DirectorPapers>,
        shutdown: CancellationToken,
    ) -> Result<(), Failure> {
        let Self {
            ledger,
            joining,
            peer_address,
            threads,
        } = self;
        let cluster = ClusterId(ledger.cluster_id());
        let quorum = Arc::new(EmbeddedQuorum {
            ledger: Arc::clone(&ledger),
            address: peer_address,
        });
        let stop = CancellationToken::new();
        let bound = bound.in_quorum(Arc::clone(&quorum) as _, joining);
        let running = bound.run(Arc::clone(&ledger), cluster, stop.clone());
        let leave = async {
            shutdown.cancelled().await;
            hand_over(&quorum).await;
            stop.cancel();
            std::future::pending::<()>().await;
        };
        let keep = async {
            match papers {
                Some(papers) => papers.keep(Some(&ledger)).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = running => ended.map_err(of_director),
            failed = ledger.failed() => Err(Failure::new(
                Code::DataDir,
                chain(&failed),
                "look at the disk, then start again: what was acknowledged is kept",
            )),
            () = leave => Ok(()),
            () = keep => Ok(()),
        };
        ledger.shutdown().await;
        drop(threads);
        ended
    }
}

/// A director over a store that is started without it would found a cluster of its own.
fn not_over_a_store(data_dir: &Path) -> Result<(), Failure> {
    let noted = folded::read(data_dir).map_err(|error| {
        let path = data_dir.join(folded::FILE);
        Failure::new(
            Code::DataDir,
            format!("{} cannot be read: {error}", path.display()),
            "the ledger of this director is in a store: start it with --ledger URL and an empty data folder with its pki",
        )
    })?;
    let Some(noted) = noted else {
        return Ok(());
    };
    Err(Failure::new(
        Code::Config,
        format!(
            "the ledger of this director is in {}, and it was started without one",
            noted.ledger
        ),
        "start it with --ledger URL; for a ledger of its own choose a new --data-dir",
    ))
}

/// Lets another director lead before this one ends, so that nobody has to miss it first.
async fn hand_over(quorum: &EmbeddedQuorum) {
    let members = quorum.members();
    if !members
        .iter()
        .any(|member| member.leads && member.id == quorum.id())
    {
        return;
    }
    let Some(heir) = heir(&members, quorum.id()) else {
        return;
    };
    match tokio::time::timeout(HAND_OVER_TIME, quorum.transfer(heir.id)).await {
        Ok(Ok(())) => tracing::info!(to = heir.name, "leadership is handed over"),
        Ok(Err(error)) => tracing::warn!(%error, "leadership was not handed over"),
        Err(_) => tracing::warn!("leadership was not handed over in time"),
    }
}

fn joining_of(peering: &Peering, papers: &DirectorPapers) -> Result<Option<Joining>, Failure> {
    if peering.join.is_empty() {
        return Ok(None);
    }
    let options = client::Options {
        tls: Some(papers.client().config()),
        ..client::Options::default()
    };
    let client = Client::with(peering.join.clone(), options).map_err(|error| {
        let next = "write the APIs of directors of the cluster: --join HOST:PORT,HOST:PORT";
        Failure::new(Code::Usage, chain(&error), next)
    })?;
    Ok(Some(Joining {
        client,
        learner: peering.learner,
    }))
}

/// Directors trust each other by their papers alone.
fn no_papers(data_dir: &Path) -> Failure {
    Failure::new(
        Code::Config,
        format!(
            "to be one of several directors takes a certificate of the cluster, and {} has none",
            data_dir.display()
        ),
        "`quorate init` makes the first director of a cluster, `quorate join` each further one",
    )
}

/// What the ledger must know to be one of several.
fn take_part(
    options: &mut Options,
    papers: &DirectorPapers,
    peering: Peering,
) -> Result<(), Failure> {
    if peering.listen.port() == 0 {
        return Err(Failure::new(
            Code::Usage,
            "the port for other directors must be known to them before this one starts",
            "write it: --peer-listen ADDR:7401",
        ));
    }
    if !peering.join.is_empty() {
        options.start = Start::Await {
            cluster: papers.cluster().0,
        };
    }
    options.address = peering
        .advertise
        .unwrap_or_else(|| peering.listen.to_string());
    options.peers = Some(Peers {
        listen: peering.listen,
        from: None,
        tls: papers.of_peer(),
    });
    if let Some(priority) = peering.priority {
        options.timing = Timing {
            priority,
            ..options.timing
        };
    }
    Ok(())
}

/// Papers of another cluster would let nobody in, and nobody would be let in by them.
fn of_this_cluster(ledger: &Embedded, papers: &DirectorPapers) -> Result<(), Failure> {
    let (own, theirs) = (ClusterId(ledger.cluster_id()), papers.cluster());
    if own == theirs {
        return Ok(());
    }
    Err(Failure::new(
        Code::DataDir,
        format!(
            "the ledger is that of cluster {own}, the certificates are those of cluster {theirs}"
        ),
        format!(
            "put the {} of this director back beside its ledger",
            papers.folder().display()
        ),
    ))
}

/// A folder of a quorum that is started without the others would wait for them for ever.
fn alone_by_mistake(ledger: &Embedded) -> Result<(), Failure> {
    let members = ledger.members().len();
    if members > 1 && ledger.peer_address().is_none() {
        return Err(Failure::new(
            Code::Config,
            format!("this director is one of {members}, and has no port for the others"),
            "start it with --peer-listen ADDR, the address that `quorate cluster status` shows",
        ));
    }
    Ok(())
}

async fn open_ledger(threads: &LedgerThreads, options: Options) -> Result<Arc<Embedded>, Failure> {
    let opened = threads.run(Embedded::open(options)).await?;
    opened.map(Arc::new).map_err(|error| {
        let code = match &error {
            OpenError::Locked { .. } => Code::DataDirLocked,
            OpenError::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
                Code::PortInUse
            }
            OpenError::Certificate(_) => Code::Config,
            OpenError::Listen { .. } | OpenError::Start(_) => Code::Failed,
            OpenError::Disk { .. }
            | OpenError::Damaged { .. }
            | OpenError::Foreign { .. }
            | OpenError::Newer { .. }
            | OpenError::OtherCluster { .. } => Code::DataDir,
        };
        Failure::new(code, chain(&error), next(code))
    })
}
