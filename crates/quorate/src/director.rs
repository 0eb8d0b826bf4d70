//! A director with its embedded ledger: alone, or in a quorum with others.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quorate_api::client::Client;
use quorate_core::ids::ClusterId;
use quorate_director::quorum::{Quorum as _, heir};
use quorate_director::{Bound, Config, Joining};
use quorate_pki::{PAPERS, Papers, TRUST, Trust};
use quorate_raft::{Embedded, OpenError, Options, PeerTls, Peers, Start, Timing};
use tokio_util::sync::CancellationToken;

use crate::daemon::{next, of_director};
use crate::failure::{Code, Failure, chain};
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

/// A director that has its folder and its address, and its ledger.
#[derive(Debug)]
pub(crate) struct Director {
    bound: Bound,
    ledger: Arc<Embedded>,
    joining: Option<Joining>,
    /// Where the other directors reach it.
    peer_address: Option<String>,
}

impl Director {
    /// Opens everything that a director needs, below its data folder; without `peering` it is alone.
    ///
    /// # Errors
    /// When the folder, the papers or an address cannot be used.
    pub(crate) async fn open(config: Config, peering: Option<Peering>) -> Result<Self, Failure> {
        let mut options = Options::new(config.data_dir.join("ledger"), config.name.clone());
        let mut joining = None;
        if let Some(peering) = peering {
            joining = joining_of(&peering)?;
            take_part(&mut options, &config.data_dir, peering)?;
        }
        let peer_address = options.peers.is_some().then(|| options.address.clone());
        let bound = quorate_director::bind(config).await.map_err(of_director)?;
        let ledger = open_ledger(options).await?;
        alone_by_mistake(&ledger)?;
        Ok(Self {
            bound,
            ledger,
            joining,
            peer_address,
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
        let Self {
            bound,
            ledger,
            joining,
            peer_address,
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
        let ended = tokio::select! {
            ended = running => ended.map_err(of_director),
            failed = ledger.failed() => Err(Failure::new(
                Code::DataDir,
                chain(&failed),
                "look at the disk, then start again: what was acknowledged is kept",
            )),
            () = leave => Ok(()),
        };
        ledger.shutdown().await;
        ended
    }
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

fn joining_of(peering: &Peering) -> Result<Option<Joining>, Failure> {
    if peering.join.is_empty() {
        return Ok(None);
    }
    let client = Client::new(peering.join.clone(), None).map_err(|error| {
        let next = "write the APIs of directors of the cluster: --join HOST:PORT,HOST:PORT";
        Failure::new(Code::Usage, chain(&error), next)
    })?;
    Ok(Some(Joining {
        client,
        learner: peering.learner,
    }))
}

/// What the ledger must know to be one of several.
fn take_part(options: &mut Options, data_dir: &Path, peering: Peering) -> Result<(), Failure> {
    if peering.listen.port() == 0 {
        return Err(Failure::new(
            Code::Usage,
            "the port for other directors must be known to them before this one starts",
            "write it: --peer-listen ADDR:7401",
        ));
    }
    let pki = data_dir.join("pki");
    let no_papers = |error: quorate_pki::Error| {
        Failure::new(
            Code::Config,
            format!("the papers of this director: {}", chain(&error)),
            format!(
                "put {TRUST} and {PAPERS} of this cluster's authority into {}; docs/security.md tells more",
                pki.display()
            ),
        )
    };
    let trust = Trust::load(&pki.join(TRUST)).map_err(no_papers)?;
    let papers = Papers::load(&pki.join(PAPERS)).map_err(no_papers)?;
    if !peering.join.is_empty() {
        options.start = Start::Await {
            cluster: papers.identity().cluster().0,
        };
    }
    options.address = peering
        .advertise
        .unwrap_or_else(|| peering.listen.to_string());
    options.peers = Some(Peers {
        listen: peering.listen,
        from: None,
        tls: PeerTls {
            chain: papers.chain_pem().into(),
            key: papers.key_pem().into(),
            authority: trust.pem().into(),
        },
    });
    if let Some(priority) = peering.priority {
        options.timing = Timing {
            priority,
            ..options.timing
        };
    }
    Ok(())
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

async fn open_ledger(options: Options) -> Result<Arc<Embedded>, Failure> {
    let opened = Embedded::open(options).await;
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
