//! What planted bugs do to the fold. Without the feature `planted` nothing here does anything.

use crate::history::Change;
use crate::ids::SessionId;
use crate::planted::{Planted, Plants};
use crate::record::{self, Entry, Header, Record};
use crate::time::WallTime;

use super::apply::{Fold, FoldError};
use super::snapshot::SnapshotError;
use super::{Applied, Cluster};
use crate::ids::Token;

impl Plants {
    /// The state that a snapshot holds.
    pub(crate) fn decode(self, bytes: &[u8]) -> Result<Cluster, SnapshotError> {
        let mut cluster = Cluster::decode(bytes)?;
        if self.has(Planted::ForgottenCounter) {
            cluster.last_token = Token::new(cluster.era, 0);
        }
        Ok(cluster)
    }

    /// Folds the next entry.
    pub(crate) fn fold(
        self,
        director: u64,
        cluster: &mut Cluster,
        bytes: &[u8],
    ) -> Result<(Header, Applied), FoldError> {
        if self.has(Planted::FoldOrder) && director.is_multiple_of(2) {
            return cluster.fold_backwards(bytes);
        }
        cluster.fold(bytes)
    }
}

impl Cluster {
    /// Folds the releases of an entry from the last to the first, as a hash table might.
    fn fold_backwards(&mut self, bytes: &[u8]) -> Result<(Header, Applied), FoldError> {
        let released = |record: &Record| matches!(record, Record::Released { .. });
        let Ok(mut entry) = Entry::decode(bytes) else {
            return self.fold(bytes);
        };
        if entry.header.predecessor != self.last_hash || !entry.records.iter().all(released) {
            return self.fold(bytes);
        }
        entry.records.reverse();
        let header = entry.header;
        let mut applied = self.apply(self.position.next(), entry);
        applied.outcomes.reverse();
        self.last_hash = record::hash(bytes);
        Ok((header, applied))
    }

    /// Expires a session though no entry says so.
    pub(crate) fn expire_early(&mut self, session: SessionId) -> Vec<Change> {
        let mut fold = Fold {
            at: self.position,
            wall: WallTime::default(),
            changes: Vec::new(),
        };
        match self.expire_session(&mut fold, session) {
            Ok(()) => fold.changes,
            Err(_) => Vec::new(),
        }
    }
}
