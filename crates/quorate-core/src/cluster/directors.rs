//! The directors as they describe themselves: where each is reached, and what it can read.
//!
//! Nothing here makes anybody a voter: who belongs to a quorum is the ledger's affair.

use std::collections::{BTreeMap, BTreeSet};

use crate::access::Node;
use crate::format::Format;
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

    /// The highest format that every member of the quorum reads, and everybody else who has told of himself;
    /// `None` while one of the members has not told.
    #[must_use]
    pub fn read_by_all(&self, members: &BTreeSet<DirectorName>) -> Option<Format> {
        let mut members = members.iter();
        let all_told = members.all(|member| self.directors.contains_key(member));
        let formats = self.directors.values().map(|director| director.format);
        formats.min().filter(|_| all_told)
    }

    /// It rises only to what everybody reads who has told of himself, and never falls.
    pub(super) fn raise_format(&mut self, fold: &mut Fold, format: Format) -> Result<(), Refused> {
        let mut directors = self.directors.values();
        if format <= self.format || directors.any(|director| director.format < format) {
            return Err(Refused::Format);
        }
        self.format = format;
        fold.changes.push(Change::FormatRaised { format });
        Ok(())
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
        if director.format < self.format {
            return Err(Refused::Format);
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
