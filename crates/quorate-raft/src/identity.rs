//! Who this director is: a random id, minted once into its folder and never used again elsewhere.
//!
//! A folder that was wiped must come back under a new id: a quorum that counted the old one would count
//! on a log that is gone.

use std::path::Path;

use quorate_core::ids::DirectorName;
use serde::{Deserialize, Serialize};

use crate::error::OpenError;
use crate::files::{self, Kind};
use crate::options::Start;

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
    /// It was made to be added to a cluster, so it never founds one.
    #[serde(default)]
    pub(crate) awaits: bool,
}

/// Who a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// The director.
    pub node: u64,
    /// The cluster that it belongs to.
    pub cluster: u64,
}

/// The identity of a folder, which is minted if the folder is new, so that certificates can be made for it
/// before it is opened.
///
/// # Errors
/// As [`Embedded::open`](crate::Embedded::open).
pub fn ids(dir: &Path, name: &DirectorName, start: Start) -> Result<Ids, OpenError> {
    let _lock = files::lock(dir)?;
    let Identity { node, cluster, .. } = load_or_mint(dir, name.as_str(), start)?;
    Ok(Ids { node, cluster })
}

/// The identity of a folder that has one.
pub(crate) fn load(dir: &Path) -> Result<Option<Identity>, OpenError> {
    let path = dir.join(FILE);
    let Some(payload) = files::read_sealed(&path, Kind::Identity)? else {
        return Ok(None);
    };
    rmp_serde::from_slice(&payload)
        .map(Some)
        .map_err(|error| OpenError::damaged(&path, format!("cannot be read: {error}")))
}

/// A new identity of a director that founds its quorum anew, in a cluster that is there already.
pub(crate) fn mint(dir: &Path, name: &str, cluster: u64) -> Result<Ids, OpenError> {
    let minted = || -> std::io::Result<Ids> {
        let node = files::random_id()?;
        write(dir, node, (cluster, false), name)?;
        Ok(Ids { node, cluster })
    };
    minted().map_err(OpenError::disk("write", &dir.join(FILE)))
}

fn write(
    dir: &Path,
    node: u64,
    (cluster, awaits): (u64, bool),
    name: &str,
) -> std::io::Result<Identity> {
    let identity = Identity {
        node,
        cluster,
        name: name.to_owned(),
        awaits,
    };
    let payload = rmp_serde::to_vec_named(&identity).map_err(std::io::Error::other)?;
    files::replace(dir, FILE, &files::seal(Kind::Identity, &[&payload]))?;
    Ok(identity)
}

/// Loads the identity of a folder, or mints one if the folder is new.
pub(crate) fn load_or_mint(dir: &Path, name: &str, start: Start) -> Result<Identity, OpenError> {
    let path = dir.join(FILE);
    if let Some(identity) = load(dir)? {
        if identity.name != name {
            return Err(OpenError::Foreign {
                dir: dir.to_owned(),
                owner: identity.name,
                name: name.to_owned(),
            });
        }
        return belongs(dir, &identity, start).map(|()| identity);
    }
    let ours = |name: &&String| OURS.iter().any(|ours| name.starts_with(ours));
    if let Some(left) = files::names(dir)?.iter().find(ours) {
        let what = format!("is missing although the folder has {left:?}");
        return Err(OpenError::damaged(&path, what));
    }
    let minted = || -> std::io::Result<Identity> {
        let of = match start {
            Start::Found => (files::random_id()?, false),
            Start::Await { cluster } => (cluster, true),
        };
        write(dir, files::random_id()?, of, name)
    };
    minted().map_err(OpenError::disk("write", &path))
}

/// A folder of one cluster is not added to another.
fn belongs(dir: &Path, identity: &Identity, start: Start) -> Result<(), OpenError> {
    match start {
        Start::Await { cluster } if cluster != identity.cluster => Err(OpenError::OtherCluster {
            dir: dir.to_owned(),
            owner: identity.cluster,
            cluster,
        }),
        Start::Found | Start::Await { .. } => Ok(()),
    }
}
