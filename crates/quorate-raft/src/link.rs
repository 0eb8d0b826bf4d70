//! The transport between directors, put together: what is needed before the Raft library starts, and what
//! needs the Raft library.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::embedded::Embedded;
use crate::error::OpenError;
use crate::identity::Identity;
use crate::log::LogStore;
use crate::options::Options;
use crate::orphaned::Orphaned;
use crate::peer::{Client, Configs, Contact, PeerTls, Peers, Server, Ties, Tls, Us};
use crate::types::Raft;

/// The port is bound and nobody is answered yet.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: Arc<Client>,
    us: Us,
    tls: Arc<Tls>,
    listener: TcpListener,
    address: SocketAddr,
}

/// The transport of a director that is at work.
#[derive(Debug)]
pub(crate) struct LinkedPeers {
    pub(crate) client: Arc<Client>,
    tls: Arc<Tls>,
    address: SocketAddr,
}

/// The task that answers, and the one that notices when the leader's process ends.
#[derive(Debug)]
pub(crate) struct Serving {
    /// Dropping it ends the task that answers.
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) server: JoinHandle<()>,
    /// Ends with this.
    pub(crate) orphaned: JoinSet<()>,
}

impl Link {
    pub(crate) async fn new(identity: &Identity, peers: &Peers) -> Result<Self, OpenError> {
        let us = Us {
            cluster: identity.cluster,
            node: identity.node,
            name: identity.name.clone(),
        };
        let configs = Configs::new(&peers.tls, us.cluster, &us.name);
        let tls = Arc::new(Tls::new(configs.map_err(OpenError::Certificate)?));
        let listen = |source| OpenError::Listen {
            address: peers.listen,
            source,
        };
        let listener = TcpListener::bind(peers.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok(Self {
            client: Client::new(us.clone(), Arc::clone(&tls), peers.from),
            us,
            tls,
            listener,
            address,
        })
    }

    /// Answers others from here on.
    pub(crate) fn serve(
        self,
        options: &Options,
        (raft, log): (&Raft, &LogStore),
        contact: &Arc<Contact>,
    ) -> (LinkedPeers, Serving) {
        let (ties, lost) = Ties::new();
        let ties = Arc::new(ties);
        let orphaned = Orphaned {
            raft: raft.clone(),
            log: log.clone(),
            client: Arc::clone(&self.client),
            ties: Arc::clone(&ties),
            timing: options.timing,
        };
        let server = Server {
            us: self.us,
            tls: Arc::clone(&self.tls),
            raft: raft.clone(),
            contact: Arc::clone(contact),
            ties,
            dir: options.dir.clone(),
            no_votes_for: options.timing.loyalty(),
        };
        let (stop, stopped) = oneshot::channel();
        let peers = LinkedPeers {
            client: self.client,
            tls: self.tls,
            address: self.address,
        };
        let server = tokio::spawn(server.run(self.listener, stopped));
        let mut orphans = JoinSet::new();
        orphans.spawn(orphaned.run(lost));
        let serving = Serving {
            stop,
            server,
            orphaned: orphans,
        };
        (peers, serving)
    }
}

impl Embedded {
    /// Where this director listens for others; `None` when it is alone.
    #[must_use]
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.peers.as_ref().map(|peers| peers.address)
    }

    /// Shows another certificate from now on, and checks the others by another authority. Connections
    /// that are at work end by themselves when they are idle.
    ///
    /// # Errors
    /// When the others would refuse it; then what was before stays. A director that is alone has none.
    pub fn renew_certificate(&self, tls: &PeerTls) -> Result<(), OpenError> {
        let alone = || OpenError::Certificate("this director is alone".to_owned());
        let peers = self.peers.as_ref().ok_or_else(alone)?;
        let configs = Configs::new(tls, self.identity.cluster, &self.identity.name);
        peers.tls.renew(configs.map_err(OpenError::Certificate)?);
        peers.client.forget_idle();
        Ok(())
    }
}
