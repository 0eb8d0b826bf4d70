//! What the daemons take.

use std::path::PathBuf;

use clap::Args;
use quorate_core::ids::{AgentName, DirectorName};
use quorate_core::spec::Span;
use quorate_core::spec::constraint::CONTAINMENT_LABEL;

use super::label;

#[derive(Debug, Args)]
pub(crate) struct DirectorArgs {
    /// Configuration file with the same keys
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Its name, unique in the cluster [default: the host's name]
    #[arg(long, env = "QUORATE_DIRECTOR__NAME", value_name = "NAME")]
    pub(crate) name: Option<DirectorName>,
    /// Where it keeps its data
    #[arg(long, env = "QUORATE_DIRECTOR__DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where its API listens [default: 127.0.0.1:7400]
    #[arg(long, env = "QUORATE_DIRECTOR__LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// Where agents, people and other directors reach its API [default: where it listens]
    #[arg(long, env = "QUORATE_DIRECTOR__ADVERTISE", value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// A store that keeps its ledger and that of the other directors: postgres://…, etcd://…, zookeeper://… or
    /// consul://…; without it, the ledger is in its own folder
    #[arg(
        long,
        env = "QUORATE_DIRECTOR__LEDGER",
        hide_env_values = true,
        value_name = "URL",
        conflicts_with_all = ["peer_listen", "peer_advertise", "join", "learner", "priority"]
    )]
    pub(crate) ledger: Option<String>,
    /// Where it listens for other directors; without it, it is alone
    #[arg(long, env = "QUORATE_DIRECTOR__PEER_LISTEN", value_name = "ADDR")]
    pub(crate) peer_listen: Option<std::net::SocketAddr>,
    /// Where other directors reach it [default: where it listens for them]
    #[arg(
        long,
        env = "QUORATE_DIRECTOR__PEER_ADVERTISE",
        value_name = "HOST:PORT",
        requires = "peer_listen"
    )]
    pub(crate) peer_advertise: Option<String>,
    /// Directors of the cluster that it is to come into, by their APIs, comma-separated
    #[arg(
        long,
        env = "QUORATE_DIRECTOR__JOIN",
        value_delimiter = ',',
        value_name = "ADDR",
        requires = "peer_listen"
    )]
    pub(crate) join: Vec<String>,
    /// Follow without a vote
    #[arg(long, env = "QUORATE_DIRECTOR__LEARNER", requires = "join")]
    pub(crate) learner: bool,
    /// From 0 to 10: of those that could lead, the highest does
    #[arg(
        long,
        env = "QUORATE_DIRECTOR__PRIORITY",
        value_name = "N",
        value_parser = clap::value_parser!(u8).range(0..=10)
    )]
    pub(crate) priority: Option<u8>,
    /// Keep the ledger of the cluster at this format while it is upgraded, so that the way back stays open
    #[arg(long, env = "QUORATE_DIRECTOR__HOLD_FORMAT", value_name = "N")]
    pub(crate) hold_format: Option<u16>,
    /// A folder in which `partitions.file` may be; may be given several times
    #[arg(
        long,
        env = "QUORATE_DIRECTOR__SOURCE_ROOT",
        value_delimiter = ':',
        value_name = "DIR"
    )]
    pub(crate) source_root: Vec<PathBuf>,
}

/// Where the help shows what may be run.
const ALLOW: &str = "What may be run here, whatever the directors say";

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// Configuration file with the same keys
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Its name, unique in the cluster [default: the host's name]
    #[arg(long, env = "QUORATE_AGENT__NAME", value_name = "NAME")]
    pub(crate) name: Option<AgentName>,
    /// Where it keeps its data
    #[arg(long, env = "QUORATE_AGENT__DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where the directors are, comma-separated [default: those of QUORATE_ADDRESS, else 127.0.0.1:7400]
    #[arg(
        long,
        env = "QUORATE_AGENT__JOIN",
        value_delimiter = ',',
        value_name = "ADDR"
    )]
    pub(crate) join: Vec<String>,
    /// A label that services may require; may be given several times
    #[arg(long = "label", env = "QUORATE_AGENT__LABEL", value_delimiter = ',', value_name = "K=V", value_parser = own_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Most weight it holds [default: no limit]
    #[arg(long, env = "QUORATE_AGENT__CAPACITY", value_name = "N")]
    pub(crate) capacity: Option<u64>,
    /// Services that may run here, comma-separated; NAME* is for all that begin so [default: all]
    #[arg(long, env = "QUORATE_AGENT__ALLOW__SERVICES", value_delimiter = ',', value_name = "NAME", help_heading = ALLOW)]
    pub(crate) allow_services: Vec<String>,
    /// Programs that may run here, by their whole path, comma-separated; DIR/ is for all below it [default: all]
    #[arg(long, env = "QUORATE_AGENT__ALLOW__COMMANDS", value_delimiter = ',', value_name = "PATH", help_heading = ALLOW)]
    pub(crate) allow_commands: Vec<PathBuf>,
    /// Users that runs may have, comma-separated; a service must then name one [default: all]
    #[arg(long, env = "QUORATE_AGENT__ALLOW__USERS", value_delimiter = ',', value_name = "USER", help_heading = ALLOW)]
    pub(crate) allow_users: Vec<String>,
    /// Folders that runs may begin in, comma-separated [default: all]
    #[arg(long, env = "QUORATE_AGENT__ALLOW__DIRECTORIES", value_delimiter = ',', value_name = "DIR", help_heading = ALLOW)]
    pub(crate) allow_directories: Vec<PathBuf>,
    /// Whether a run may be that of root [default: true]
    #[arg(long, env = "QUORATE_AGENT__ALLOW__ROOT", action = clap::ArgAction::Set, value_name = "true|false", help_heading = ALLOW)]
    pub(crate) allow_root: Option<bool>,
    /// How long a warden waits for the next agent process before it ends its runs [default: 0s; 5s as a
    /// service of systemd]
    #[arg(long, env = "QUORATE_AGENT__ADOPT_WITHIN", value_name = "TIME")]
    pub(crate) adopt_within: Option<Span>,
    /// End when standard input ends, leaving the runs to their wardens; `up` starts its agents so
    #[arg(long, hide = true)]
    pub(crate) tied: bool,
    /// Close the sessions that a warden left in this folder, and end; started by a warden
    #[arg(long, hide = true, value_name = "DIR")]
    pub(crate) last_will: Option<PathBuf>,
}

/// Reads a label that an agent may be given.
fn own_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = label(text)?;
    if name == CONTAINMENT_LABEL {
        return Err(format!(
            "every agent has the label {name:?} by itself; leave it out, `quorate doctor` shows its value here"
        ));
    }
    Ok((name, value))
}
