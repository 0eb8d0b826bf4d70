//! Folding who may do what.

use crate::access::{self, Credentials};
use crate::history::Change;

use super::apply::Fold;
use super::{Cluster, Refused};

impl Cluster {
    /// The tokens of people and of machines that join.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub(super) fn fold_access(
        &mut self,
        fold: &mut Fold,
        record: access::Record,
    ) -> Result<(), Refused> {
        let changed = self.credentials.fold((fold.at, fold.wall), record);
        let changed = changed.map_err(Refused::Access)?;
        fold.changes.extend(changed.map(Change::Access));
        Ok(())
    }
}
