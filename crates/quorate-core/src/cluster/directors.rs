//! The directors as they describe themselves: where each is reached, and what it can read.
//!
//! Nothing here makes anybody a voter: who belongs to a quorum is the ledger's affair.

use std::collections::BTreeMap;

use crate::access::Node;
use crate::history::Change;
use crate::ids::DirectorName;
use crate::record::DirectorInfo;

use super::apply::Fold;
use super::{Cluster, Refused};

/// Most directors that are known: seven voters, and as many again that only follow, with room for those
/// that are being replaced.
pub const DIRECTORS_MAX: usize = 32;

impl Cluster {
    /// The directors that have told of themselves, by name.
    #[must_use]
    pub fn directors(&self) -> &BTreeMap<DirectorName, DirectorInfo> {
        &self.directors
    }

    pub(super) fn know_director(
        &mut self,
        fold: &mut Fold,
        director: DirectorInfo,
    ) -> Result<(), Refused> {
        let known = self.directors.contains_key(&director.name);
        if !known && self.directors.len() >= DIRECTORS_MAX {
            return Err(Refused::DirectorsMax);
        }
        fold.changes.push(Change::DirectorKnown {
            name: director.name.clone(),
            address: director.address.clone(),
            version: director.version.clone(),
        });
        self.directors.insert(director.name.clone(), director);
        Ok(())
    }

    pub(super) fn forget_director(
        &mut self,
        fold: &mut Fold,
        name: DirectorName,
    ) -> Result<(), Refused> {
        self.directors.remove(&name).ok_or(Refused::NoDirector)?;
        self.bar(fold, Node::Director, name.as_str());
        fold.changes.push(Change::DirectorForgotten { name });
        Ok(())
    }
}
