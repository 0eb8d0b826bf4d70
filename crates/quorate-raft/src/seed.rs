//! A folder that begins with a state instead of with nothing: the first director of a cluster that is restored.
//!
//! It gets an identity that no director ever had, so that none of the former quorum takes it for a member, nor
//! it one of them; and it is made beside its place and moved there whole, so that there is never half of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use openraft::Membership;
use quorate_core::ids::{DirectorName, Epoch, Position};

use crate::disk;
use crate::error::OpenError;
use crate::files;
use crate::identity::{self, Ids};
use crate::log;
use crate::snapshot::{self, Head};
use crate::types::{Member, StoredMembership, log_id};

/// The term and index of the record that stands for everything before: the log goes on behind it.
const FIRST: (u64, u64) = (1, 0);

/// What a ledger begins with.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// The cluster that it is of.
    pub cluster: u64,
    /// Where other directors reach this one; empty while it is alone.
    pub address: String,
    /// The first position that the state does not cover.
    pub next: Position,
    /// The epoch before it.
    pub epoch: Epoch,
    /// The state, as a snapshot of the fold.
    pub fold: Vec<u8>,
}

/// Makes the folder of a director that is a quorum of one and begins with this state. Blocks.
///
/// # Errors
/// When the folder is there and not empty, or the disk does not do what is asked; then there is no folder.
pub fn found_with(
    dir: &Path,
    name: &DirectorName,
    beginning: &Beginning,
) -> Result<Ids, OpenError> {
    let draft = dir.with_extension("restoring");
    let made = || -> io::Result<()> {
        if draft.exists() {
            // An attempt that was broken off.
            fs::remove_dir_all(&draft)?;
        }
        // Only an empty one can be replaced.
        match fs::remove_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    };
    made().map_err(OpenError::disk("make a new ledger in", dir))?;
    let _lock = files::lock(&draft)?;
    let cluster = beginning.cluster;
    let ids = identity::mint(&draft, name.as_str(), cluster)?;
    let written = || -> io::Result<()> {
        log::begin_behind(&draft, FIRST, ids.node)?;
        snapshot::save(&draft, &head(ids.node, name, beginning)?, &beginning.fold)?;
        disk::rename(&draft, dir)?;
        dir.parent().map_or(Ok(()), disk::sync_dir)
    };
    written().map_err(OpenError::disk("write", &draft))?;
    Ok(ids)
}

fn head(node: u64, name: &DirectorName, beginning: &Beginning) -> io::Result<Head> {
    let member = Member {
        name: name.as_str().to_owned(),
        address: beginning.address.clone(),
    };
    let alone = Membership::new(
        vec![BTreeSet::from([node])],
        BTreeMap::from([(node, member)]),
    );
    let last = log_id(FIRST.0, FIRST.1);
    Ok(Head {
        last,
        membership: StoredMembership::new(Some(last), alone.map_err(io::Error::other)?),
        next: beginning.next,
        epoch: beginning.epoch,
        kept: beginning.next,
        kept_after: Some(last.index),
    })
}
