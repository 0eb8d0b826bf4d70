//! A store that the directors share for their ledger: real servers on 127.0.0.1 of the stage. A director reaches
//! each by a relay of its own, so that it can be cut from the store, or the store be slow for it.
//!
//! ```text
//! d1 10.77.50.2 ── cable ── 10.77.50.1:7500 (relay) ── 127.0.0.1 (first server of the store)
//!                                     :7501 (relay) ── 127.0.0.1 (second one) …
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use quorate_servers::etcd::{EtcdCluster, Options};
use quorate_servers::postgres::Postgres;
use quorate_servers::zookeeper::ZookeeperCluster;
use rustix::process::Signal;

use crate::faults::Needs;
use crate::process::within;

/// Port of the relays to the first server.
pub(crate) const PORT: u16 = 7500;
/// Servers of a store that has several.
const MEMBERS: usize = 3;
/// How long a server may take to serve again after it was started, or the others to go on without it.
const SERVES_WITHIN: Duration = Duration::from_secs(60);
/// Those that etcd has by itself: it elects another leader within two seconds, which a lease bears.
const ELECTIONS: [&str; 2] = ["--heartbeat-interval=100", "--election-timeout=1000"];

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// One server
    Postgres,
    /// Three members
    Etcd,
    /// Three members
    Zookeeper,
}

impl Kind {
    /// As people call it.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Etcd => "etcd",
            Self::Zookeeper => "ZooKeeper",
        }
    }

    /// Whether what a fault needs of a store is there.
    pub(crate) const fn fits(self, needs: Needs) -> bool {
        let several = !matches!(self, Self::Postgres);
        match needs {
            Needs::Server => !several,
            Needs::Members => several,
            Needs::Nothing
            | Needs::Adoption
            | Needs::Networks
            | Needs::Groups
            | Needs::SmallDisk
            | Needs::Quorum
            | Needs::QuorumNetworks
            | Needs::QuorumStore
            | Needs::Store => true,
        }
    }

    /// The address of a ledger there, by these relays.
    pub(crate) fn url(self, relays: &[SocketAddr]) -> String {
        let (scheme, user) = match self {
            Self::Postgres => ("postgres", "postgres@"),
            Self::Etcd => ("etcd", ""),
            Self::Zookeeper => ("zookeeper", ""),
        };
        let hosts: Vec<String> = relays.iter().map(SocketAddr::to_string).collect();
        format!("{scheme}://{user}{}/quorate", hosts.join(","))
    }
}

/// Where a store is, for whoever makes relays to it.
#[derive(Clone, Debug)]
pub(crate) struct At {
    pub(crate) kind: Kind,
    pub(crate) servers: Vec<SocketAddr>,
}

/// A store that runs. It ends with this.
#[derive(Debug)]
pub(crate) struct Store {
    kind: Kind,
    servers: Servers,
}

#[derive(Debug)]
enum Servers {
    Postgres(Box<Postgres>),
    Etcd(Box<EtcdCluster>),
    Zookeeper(Box<ZookeeperCluster>),
}

impl Store {
    /// Starts its servers, and waits until they serve.
    pub(crate) fn start(kind: Kind) -> Result<Self> {
        let servers = match kind {
            Kind::Postgres => {
                let server = Postgres::start().transpose()?;
                server.map(|server| Servers::Postgres(Box::new(server)))
            }
            Kind::Etcd => {
                let options = Options::members(MEMBERS);
                let options = ELECTIONS.into_iter().fold(options, Options::argument);
                let members = EtcdCluster::start_with(options).transpose()?;
                members.map(|members| Servers::Etcd(Box::new(members)))
            }
            Kind::Zookeeper => {
                let members = ZookeeperCluster::start(MEMBERS)?;
                members.map(|members| Servers::Zookeeper(Box::new(members)))
            }
        };
        let servers = servers.with_context(|| format!("{} is not installed", kind.text()))?;
        Ok(Self { kind, servers })
    }

    /// Where it is.
    pub(crate) fn at(&self) -> Result<At> {
        let hosts = match &self.servers {
            Servers::Postgres(server) => vec![format!("127.0.0.1:{}", server.port())],
            Servers::Etcd(members) => members.hosts(),
            Servers::Zookeeper(members) => (0..members.members())
                .map(|member| members.host(member))
                .collect(),
        };
        let servers = hosts.iter().map(|host| host.parse());
        Ok(At {
            kind: self.kind,
            servers: servers.collect::<Result<_, _>>()?,
        })
    }

    /// How many servers it has.
    pub(crate) fn count(&self) -> usize {
        match &self.servers {
            Servers::Postgres(_) => 1,
            Servers::Etcd(members) => members.count(),
            Servers::Zookeeper(members) => members.members(),
        }
    }

    /// Which server leads, as they say.
    fn leads(&self) -> Option<usize> {
        match &self.servers {
            Servers::Postgres(_) => Some(0),
            Servers::Etcd(members) => members.leader().ok(),
            Servers::Zookeeper(members) => members.leader(),
        }
    }

    /// Waits until one of them leads, and tells which.
    pub(crate) fn leader(&self) -> Result<usize> {
        within(SERVES_WITHIN, "a server of the store leads", || {
            self.leads()
        })
    }

    /// Waits until another one leads.
    pub(crate) fn goes_on_without(&self, server: usize) -> Result<()> {
        within(SERVES_WITHIN, "another server of the store leads", || {
            self.leads()
                .is_some_and(|leader| leader != server)
                .then_some(())
        })
    }

    /// Kills a server at once.
    pub(crate) fn kill(&mut self, server: usize) -> Result<()> {
        match &mut self.servers {
            Servers::Postgres(server) => server.kill()?,
            Servers::Etcd(members) => members.kill(server)?,
            Servers::Zookeeper(members) => members.kill(server)?,
        }
        Ok(())
    }

    /// Starts one that was killed, and waits until it serves.
    pub(crate) fn start_again(&mut self, server: usize) -> Result<()> {
        match &mut self.servers {
            Servers::Postgres(server) => server.start_again()?,
            Servers::Etcd(members) => members.restart(server)?,
            Servers::Zookeeper(members) => {
                members.restart(server)?;
                within(SERVES_WITHIN, "a server of the store serves", || {
                    members.serves(server).then_some(())
                })?;
            }
        }
        Ok(())
    }

    /// Makes a server stand still, or go on.
    pub(crate) fn pause(&mut self, server: usize, paused: bool) -> Result<()> {
        match &mut self.servers {
            Servers::Postgres(server) => {
                server.signal_all(if paused { Signal::STOP } else { Signal::CONT })?;
            }
            Servers::Etcd(members) if paused => members.pause(server)?,
            Servers::Etcd(members) => members.resume(server)?,
            Servers::Zookeeper(members) if paused => members.pause(server)?,
            Servers::Zookeeper(members) => members.resume(server)?,
        }
        Ok(())
    }

    /// Makes all of it stand still, or go on.
    pub(crate) fn pause_all(&mut self, paused: bool) -> Result<()> {
        for server in 0..self.count() {
            self.pause(server, paused)?;
        }
        Ok(())
    }

    /// Where it keeps what it has and says; it is deleted with it.
    pub(crate) fn folder(&self) -> PathBuf {
        let folder = match &self.servers {
            Servers::Postgres(server) => server.folder_path(),
            Servers::Etcd(members) => members.folder(),
            Servers::Zookeeper(members) => members.folder(),
        };
        folder.to_owned()
    }
}
