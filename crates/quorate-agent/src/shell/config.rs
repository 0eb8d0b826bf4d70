//! What an agent is told at its start, and why it cannot run.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use quorate_api::client::AddressError;
use quorate_core::ids::AgentName;

pub use super::allow::Allow;

/// Configuration of an agent.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name in the cluster.
    pub name: AgentName,
    /// Where it keeps its identity, its wardens and the output of runs.
    pub data_dir: PathBuf,
    /// The directors, `host:port`, with `http://` or `https://` before it.
    pub join: Vec<String>,
    /// The certificates of the cluster's authority; `pki/ca.pem` in the data folder when `None`, if it is
    /// there. What the agent proves itself with is `pki/papers.pem`, if that is there; it is renewed in time.
    pub ca_file: Option<PathBuf>,
    /// Labels that services may require.
    pub labels: BTreeMap<String, String>,
    /// Most weight it wants to hold.
    pub capacity: Option<u64>,
    /// What may be run on this machine, whatever the directors say.
    pub allow: Allow,
    /// How long a warden waits for the next agent process when this one has died.
    pub adopt_within: Duration,
    /// The quorate program, which is started again as warden.
    pub program: PathBuf,
    /// API token, if the directors ask for one.
    pub token: Option<String>,
}

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data folder cannot be used.
    #[error("the data folder {} cannot be used", path.display())]
    DataDir {
        /// The path in question.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Another agent uses the data folder.
    #[error("another agent runs with the data folder {}", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The data folder was copied from that of an agent that runs on this machine.
    #[error("{} is a copy of the folder of an agent that runs on this machine", path.display())]
    Copied {
        /// The folder.
        path: PathBuf,
    },
    /// The agent's identity in the data folder is damaged.
    #[error("{} does not hold an agent's identity; remove it to become a new agent", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
    },
    /// An address of a director cannot be used.
    #[error("the directors' addresses cannot be used")]
    Address(#[from] AddressError),
    /// The cluster's authority or the own papers cannot be used.
    #[error("the agent's certificates cannot be used")]
    Papers(#[from] quorate_pki::Error),
    /// A thread cannot be started.
    #[error("the thread {name} cannot be started")]
    Thread {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        cause: io::Error,
    },
}
