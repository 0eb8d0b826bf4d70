//! The last will of a session: what a warden whose agent is gone lets a short-lived process do, after
//! it has killed everything and proven it: close the session, so that its partitions need not wait
//! for the lease to end. Where nobody was left to do that, the next agent process does.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_api::client::{AddressError, Client, Options};
use quorate_api::session::CloseRequest;
use serde::{Deserialize, Serialize};

use super::calls::is_over;
use super::eras;
use super::files::Job;
use super::tls::{self, Tls};
use crate::warden::LAST_WILL;

/// Pause after the first try; it doubles up to [`AGAIN_AFTER_MAX`].
const AGAIN_AFTER: Duration = Duration::from_millis(200);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(2);
/// A will of work that is kept without a lease is told for as long as directors may be away.
const TRIES_FOR: Duration = Duration::from_secs(24 * 3600);

/// What is needed to close a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastWill {
    pub(crate) session: u64,
    pub(crate) secret: String,
    pub(crate) directors: Vec<String>,
    pub(crate) token: Option<String>,
    /// Where the files of TLS are; absent in wills of versions without it.
    #[serde(default)]
    pub(crate) tls: Option<Tls>,
    /// After this the session has expired anyway.
    pub(crate) expiry_ms: u64,
}

impl LastWill {
    /// Leaves it in a warden's folder, for nobody but this user. Without it the work of an agent that
    /// dies waits for its lease.
    pub(crate) fn job(&self, dir: &Path) -> Job {
        Job::Write {
            what: "the last will of a session",
            path: dir.join(LAST_WILL),
            mode: 0o600,
            bytes: serde_json::to_vec(self).unwrap_or_default(),
        }
    }
}

/// Why a session could not be closed.
#[derive(Debug, thiserror::Error)]
pub enum LastWillError {
    /// There is none, or it cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// An address in it cannot be used.
    #[error("the directors' addresses cannot be used")]
    Address(#[from] AddressError),
    /// The cluster's authority or the own papers cannot be used.
    #[error("the agent's certificates cannot be used")]
    Papers(#[from] quorate_pki::Error),
    /// No director took it until the lease was over.
    #[error("no director closed the session before its lease ended")]
    Late(#[source] Option<quorate_api::client::Error>),
}

impl LastWill {
    /// The one that is in a warden's folder.
    pub(crate) fn read(dir: &Path) -> Result<Self, LastWillError> {
        let path = dir.join(LAST_WILL);
        let read = std::fs::read(&path)
            .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
        read.map_err(|cause| LastWillError::Unreadable { path, cause })
    }

    /// Closes the session; tries until a director has done it or the lease is over.
    pub(crate) async fn execute(&self, client: &Client, reason: &str) -> Result<(), LastWillError> {
        let request = CloseRequest {
            incarnation: None,
            reason: reason.to_owned(),
        };
        let (mut last, mut pause) = (None, AGAIN_AFTER);
        let close = async {
            loop {
                match client.close(self.session, &self.secret, &request).await {
                    Ok(()) => return,
                    Err(error) if is_over(&error) => return,
                    Err(error) => last = Some(error),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(AGAIN_AFTER_MAX);
            }
        };
        let limit = Duration::from_millis(self.expiry_ms).min(TRIES_FOR);
        let closed = tokio::time::timeout(limit, close).await;
        closed.map_err(|_elapsed| LastWillError::Late(last))
    }
}

/// Closes the session of the warden in `dir`, whose runs are all proven dead; tries until a director
/// has done it or the lease is over.
///
/// # Errors
/// When there is no last will, or no director took it in time.
pub async fn last_will(dir: &Path) -> Result<(), LastWillError> {
    let will = LastWill::read(dir)?;
    let loaded = will.tls.as_ref().map(Tls::load).transpose()?;
    let options = Options {
        // A director whose quorum was given up takes anything for closed.
        eras: Some(eras::seen(dir)),
        ..tls::options(loaded.as_ref(), will.token.as_deref())
    };
    let client = Client::with(will.directors.clone(), options)?;
    tokio::select! {
        closed = will.execute(&client, "agent_died") => closed,
        // The next agent process has told it, or nobody is left who would want it told.
        () = taken_away(dir) => Ok(()),
    }
}

/// Returns when there is no last will in the folder any more.
async fn taken_away(dir: &Path) {
    let will = dir.join(LAST_WILL);
    while tokio::fs::try_exists(&will).await.unwrap_or(true) {
        tokio::time::sleep(AGAIN_AFTER_MAX).await;
    }
}
