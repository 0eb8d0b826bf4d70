//! What `init` and `join` take: the commands that make a data folder.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use quorate_core::ids::{DirectorName, NodeName};

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The name of the first director [default: the host's name]
    #[arg(long, env = "QUORATE_DIRECTOR__NAME", value_name = "NAME")]
    pub(crate) name: Option<DirectorName>,
    /// Where that director is to keep its data; new or empty
    #[arg(long, env = "QUORATE_DIRECTOR__DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Where its API is to listen
    #[arg(
        long,
        env = "QUORATE_DIRECTOR__LISTEN",
        default_value = "127.0.0.1:7400",
        value_name = "ADDR"
    )]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// Directors of the cluster, comma-separated
    #[arg(required = true, value_delimiter = ',', value_name = "ADDR")]
    pub(crate) directors: Vec<String>,
    /// The join token; better in the environment or in a file, where no other user sees it
    #[arg(
        long,
        env = "QUORATE_JOIN_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        hide = true
    )]
    pub(crate) join_token: Option<String>,
    /// A file that holds the join token, for you alone; `-` is standard input
    #[arg(
        long,
        env = "QUORATE_JOIN_TOKEN_FILE",
        value_name = "FILE",
        required_unless_present = "join_token"
    )]
    pub(crate) join_token_file: Option<PathBuf>,
    /// The name of this machine in the cluster [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<NodeName>,
    /// Where its daemon is to keep its data; new or empty
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Where the API of a director is to listen [default: the address by which this machine reaches the cluster]
    #[arg(long, env = "QUORATE_DIRECTOR__LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Where a director is beside its API.
#[derive(Clone, Debug, Args)]
pub(crate) struct PlaceArgs {
    /// Where others reach its API [default: where it listens]
    #[arg(long, env = "QUORATE_DIRECTOR__ADVERTISE", value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// A store that keeps the ledger of all directors: postgres://…, etcd://…, zookeeper://… or consul://…
    /// [default: the directors keep it themselves]
    #[arg(
        long,
        env = "QUORATE_DIRECTOR__LEDGER",
        hide_env_values = true,
        value_name = "URL",
        conflicts_with_all = ["peer_listen", "peer_advertise"]
    )]
    pub(crate) ledger: Option<String>,
    /// Where it is to listen for other directors [default: port 7401 beside its API]
    #[arg(long, env = "QUORATE_DIRECTOR__PEER_LISTEN", value_name = "ADDR")]
    pub(crate) peer_listen: Option<SocketAddr>,
    /// Where other directors reach it [default: where it listens for them]
    #[arg(
        long,
        env = "QUORATE_DIRECTOR__PEER_ADVERTISE",
        value_name = "HOST:PORT"
    )]
    pub(crate) peer_advertise: Option<String>,
}
