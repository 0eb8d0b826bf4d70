//! What `cluster` takes.

use clap::{Args, Subcommand};
use quorate_core::ids::DirectorName;

use super::recovery::{AdoptArgs, BackupArgs, DrillArgs, RestoreArgs};

#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    pub(crate) command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show who votes, who follows, and how far each has come
    Status,
    /// Give a director that follows a vote
    Add(MemberArgs),
    /// Remove a director for good; its folder cannot come back
    Remove(MemberArgs),
    /// Let another director lead
    TransferLeader(TransferArgs),
    /// Write the whole state to a file, or check such a file
    Backup(BackupArgs),
    /// Make the data folder of a director whose cluster is what a backup says
    Restore(RestoreArgs),
    /// Go on with what a store has that has lost history, in a new era
    AdoptHistory(AdoptArgs),
    /// Change the leader on purpose, and report what that cost
    Drill(DrillArgs),
}

#[derive(Debug, Args)]
pub(crate) struct MemberArgs {
    /// The director
    #[arg(value_name = "DIRECTOR")]
    pub(crate) director: DirectorName,
}

#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// Who is to lead [default: the one that lacks least]
    #[arg(long, value_name = "DIRECTOR")]
    pub(crate) to: Option<DirectorName>,
}
