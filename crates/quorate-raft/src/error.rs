//! Why the embedded ledger cannot be opened, and why it stopped.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_ledger::Cause;

/// Why [`Embedded::open`](crate::Embedded::open) refused.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the folder open; two would corrupt it.
    #[error(
        "the folder {} is in use by another director process; stop that one first, or give this one a \
         folder of its own",
        dir.display()
    )]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// The disk did not do what was asked: rights, space, or a device that fails.
    #[error("cannot {doing} {}", path.display())]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Something that was acknowledged is damaged or missing. Nothing was changed.
    #[error(
        "{} {what}; nothing was changed. Restore the whole folder {} from a backup, or move it away: an \
         empty folder starts a new, empty ledger under a new identity",
        path.display(), dir.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// The folder.
        dir: PathBuf,
    },
    /// The folder belongs to another director.
    #[error(
        "the folder {} belongs to the director {owner:?}, this one is {name:?}; give each director a \
         folder of its own, or use its name",
        dir.display()
    )]
    Foreign {
        /// The folder.
        dir: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who wanted it.
        name: String,
    },
    /// A newer version of quorate wrote it.
    #[error(
        "{} has format {found}, this version reads up to {known}; start the version that wrote it, or a \
         newer one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The highest format that this build reads.
        known: u32,
    },
    /// The folder belongs to another cluster.
    #[error(
        "the folder {} belongs to cluster {owner}, not to cluster {cluster}; give this director an empty \
         folder to add it",
        dir.display()
    )]
    OtherCluster {
        /// The folder.
        dir: PathBuf,
        /// Whose it is.
        owner: u64,
        /// Which one it should be added to.
        cluster: u64,
    },
    /// What is shown to the other directors is not fit for it.
    #[error("the other directors would refuse this one: {0}; renew its certificate")]
    Certificate(String),
    /// The port for the other directors cannot be had.
    #[error(
        "cannot listen for other directors on {address}; choose another port, or stop what has it"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The Raft library did not start.
    #[error("the replicated log did not start")]
    Start(#[source] Cause),
}

impl OpenError {
    /// Wraps what the system said about a path.
    pub(crate) fn disk(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Disk {
            doing,
            path,
            source,
        }
    }

    /// Something acknowledged at `path` is damaged; its folder is the ledger's.
    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            what: what.into(),
            dir: path.parent().unwrap_or(path).to_owned(),
        }
    }
}

/// Why the ledger stopped for good. The process must end: after a failed write nobody knows what is on
/// disk, and only reopening finds out (R15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(Arc<str>);

impl Failure {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(Arc::from(why.into()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}
