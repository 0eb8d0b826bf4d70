//! What planted bugs do to the fold. Without the feature `planted` nothing here does anything.

use crate::checkpoint::Checkpoint;
use crate::format::Formats;
use crate::history::{Change, What};
use crate::ids::{PartitionId, SessionId, Token};
use crate::planted::{Planted, Plants};
use crate::record::{self, Entry, Header, Record};
use crate::time::WallTime;

use super::apply::{Fold, FoldError};
use super::eras::{EraError, NewEra, Restored};
use super::partition::Freed;
use super::snapshot::SnapshotError;
use super::{Applied, Cluster, Outcome};

impl Plants {
    /// The state that a snapshot holds.
    pub(crate) fn decode(self, bytes: &[u8]) -> Result<Cluster, SnapshotError> {
        let mut cluster = Cluster::decode(bytes)?;
        if self.has(Planted::ForgottenCounter) {
            cluster.last_token = Token::new(cluster.era, 0);
        }
        if self.has(Planted::ForgottenCheckpoints) {
            cluster.forget_checkpoints();
        }
        Ok(cluster)
    }

    /// The state of a backup as the beginning of a new era.
    ///
    /// # Errors
    /// As [`Cluster::in_new_era`].
    pub fn in_new_era(self, backup: Cluster, new: NewEra) -> Result<Restored, EraError> {
        let before = self.has(Planted::RestoreWithoutEra).then(|| backup.clone());
        let mut restored = backup.in_new_era(new)?;
        let cluster = &mut restored.cluster;
        if let Some(before) = before {
            cluster.era = before.era;
            cluster.last_token = before.last_token;
            cluster.position = before.position;
            cluster.epoch = before.epoch;
            cluster.last_session = before.last_session;
            cluster.last_incarnation = before.last_incarnation;
        }
        if self.has(Planted::RestoreWithoutWait) {
            cluster.lost = None;
        }
        Ok(restored)
    }

    /// Folds the next entry.
    pub(crate) fn fold(
        self,
        (director, formats): (u64, Formats),
        cluster: &mut Cluster,
        bytes: &[u8],
    ) -> Result<(Header, Applied), FoldError> {
        if self.has(Planted::FoldOrder) && director.is_multiple_of(2) {
            return cluster.fold_backwards(bytes);
        }
        let mut folded = cluster.fold_of(bytes, formats)?;
        if self.has(Planted::UnfencedExpiry) {
            cluster.free_unfenced(folded.0.wall, &mut folded.1.changes);
        }
        if self.has(Planted::TokenlessCheckpoints) {
            cluster.take_refused_checkpoints(bytes, &folded.1.outcomes);
        }
        Ok(folded)
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

    fn forget_checkpoints(&mut self) {
        let ids: Vec<PartitionId> = self.partitions().map(|(id, _)| id).collect();
        for id in ids {
            let partition = self.partitions.get_mut(id.0);
            if let Some(extra) = partition.and_then(|partition| partition.extra.as_mut()) {
                extra.checkpoint = None;
            }
        }
    }

    /// Frees what waits for a fence hook.
    fn free_unfenced(&mut self, wall: WallTime, changes: &mut Vec<Change>) {
        let waiting = self.expired.values();
        let waiting = waiting.flat_map(|session| session.held.iter().copied());
        let waiting: Vec<PartitionId> = waiting.collect();
        let mut fold = Fold {
            at: self.position,
            wall,
            changes: Vec::new(),
        };
        for partition in waiting {
            self.vacate(&mut fold, partition, What::Expired, |from| Freed::Expired {
                from,
            });
        }
        changes.append(&mut fold.changes);
    }

    /// Takes the checkpoints of an entry that were refused.
    fn take_refused_checkpoints(&mut self, bytes: &[u8], outcomes: &[Outcome]) {
        let Ok(entry) = Entry::decode(bytes) else {
            return;
        };
        let at = entry.header.wall;
        for (record, outcome) in entry.records.into_iter().zip(outcomes) {
            let Record::CheckpointPut {
                partition,
                token,
                number,
                content,
                tell: _,
            } = record
            else {
                continue;
            };
            let partition = self.partitions.get_mut(partition.0);
            if let (Some(partition), Outcome::Refused(_)) = (partition, outcome) {
                let extra = partition.extra.get_or_insert_default();
                extra.checkpoint = Some(Box::new(Checkpoint {
                    token,
                    number,
                    at,
                    content,
                }));
            }
        }
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
