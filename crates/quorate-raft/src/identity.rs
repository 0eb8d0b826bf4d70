//! Who this director is: a random id, minted once into its folder and never used again elsewhere.
//!
//! A folder that was wiped must come back under a new id: a quorum that counted the old one would count
//! on a log that is gone.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::OpenError;
use crate::files::{self, Kind};

const FILE: &str = "identity";

/// How the names of the other files begin: with one of them here, the folder is not new.
const OURS: [&str; 5] = ["acknowledged", "log-", "purged", "snapshot", "vote"];

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// This director.
    pub(crate) node: u64,
    /// The cluster that it belongs to.
    pub(crate) cluster: u64,
    /// Its name when the folder was made.
    pub(crate) name: String,
}

/// Loads the identity of a folder, or mints one if the folder is new.
pub(crate) fn load_or_mint(dir: &Path, name: &str) -> Result<Identity, OpenError> {
    let path = dir.join(FILE);
    if let Some(payload) = files::read_sealed(&path, Kind::Identity)? {
        let identity: Identity = rmp_serde::from_slice(&payload)
            .map_err(|error| OpenError::damaged(&path, format!("cannot be read: {error}")))?;
        if identity.name != name {
            return Err(OpenError::Foreign {
                dir: dir.to_owned(),
                owner: identity.name,
                name: name.to_owned(),
            });
        }
        return Ok(identity);
    }
    let ours = |name: &&String| OURS.iter().any(|ours| name.starts_with(ours));
    if let Some(left) = files::names(dir)?.iter().find(ours) {
        let what = format!("is missing although the folder has {left:?}");
        return Err(OpenError::damaged(&path, what));
    }
    let mint = || -> std::io::Result<Identity> {
        let identity = Identity {
            node: files::random_id()?,
            cluster: files::random_id()?,
            name: name.to_owned(),
        };
        let payload = rmp_serde::to_vec_named(&identity).map_err(std::io::Error::other)?;
        files::replace(dir, FILE, &files::seal(Kind::Identity, &[&payload]))?;
        Ok(identity)
    };
    mint().map_err(OpenError::disk("write", &path))
}
