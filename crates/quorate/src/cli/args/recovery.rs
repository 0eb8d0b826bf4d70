//! What `cluster backup`, `restore` and `drill` take.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use quorate_core::ids::DirectorName;
use quorate_core::spec::Span;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["to", "check"])))]
pub(crate) struct BackupArgs {
    /// Write the whole state to this file, readable by you alone; `-` writes to standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
    /// Check this file and tell what is in it, without a cluster
    #[arg(long, value_name = "FILE")]
    pub(crate) check: Option<PathBuf>,
    /// Take it from the data folder of a director that does not run, without a cluster
    #[arg(long, value_name = "DIR", requires = "to")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Data folder of the first director of the restored cluster: a new one, or one that has only `pki`
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "ledger",
        requires = "name"
    )]
    pub(crate) data_dir: Option<PathBuf>,
    /// Its name
    #[arg(long, value_name = "NAME", required_unless_present = "ledger")]
    pub(crate) name: Option<DirectorName>,
    /// Put the cluster into this store instead, where none is: another prefix or schema than before
    #[arg(
        long,
        env = "QUORATE_DIRECTOR__LEDGER",
        hide_env_values = true,
        value_name = "URL",
        conflicts_with_all = ["data_dir", "name", "peer_advertise"]
    )]
    pub(crate) ledger: Option<String>,
    /// Where other directors will reach it, when it is to be one of several
    #[arg(long, value_name = "ADDR")]
    pub(crate) peer_advertise: Option<String>,
    /// Leases up to this long may have been granted since the backup; those in it are known
    #[arg(long, value_name = "TIME")]
    pub(crate) longest_lease: Option<Span>,
    /// Begin at least this era, because the one after the backup's was begun before [default: the next]
    #[arg(long, value_name = "N")]
    pub(crate) era: Option<u16>,
}

#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// The store whose history was lost
    #[arg(
        long,
        env = "QUORATE_DIRECTOR__LEDGER",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) ledger: String,
    /// Leases up to this long may have been granted in what is lost; those of what is left are known
    #[arg(long, value_name = "TIME")]
    pub(crate) longest_lease: Option<Span>,
    /// Begin at least this era, because the one after that of what is left was begun before [default: the next]
    #[arg(long, value_name = "N")]
    pub(crate) era: Option<u16>,
}

#[derive(Debug, Args)]
pub(crate) struct LedgerArgs {
    #[command(subcommand)]
    pub(crate) command: LedgerCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Move a stopped cluster to another ledger
    Copy(CopyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// Where it is: postgres://…, etcd://…, zookeeper://…, consul://…, or the data folder of a director
    #[arg(long, value_name = "URL|DIR")]
    pub(crate) from: String,
    /// Where it is to be: the same, with no cluster in it
    #[arg(long, value_name = "URL|DIR")]
    pub(crate) to: String,
    /// The name of the director whose folder --to is
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<DirectorName>,
}

#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    /// Who is to lead [default: the one that lacks least]
    #[arg(long, value_name = "DIRECTOR")]
    pub(crate) to: Option<DirectorName>,
    /// Write the report to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}
