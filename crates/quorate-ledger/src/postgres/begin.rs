//! Beginning the log anew.
//!
//! The parts of its snapshot are written first; then one statement moves the row of `head`, if it still is as it was seen.
//! Appends to the old log find another first free position there, and its entries are before the first that is left.

use quorate_core::ids::Position;
use tokio_postgres::types::Type;

use crate::ReadError;
use crate::hints::occupied;
use crate::shared::BeginError;
use crate::store::{Anew, StoreError, sha256, unavailable};

use super::lane::Parameter;
use super::snapshots::{Kept, TRIES};
use super::{Head, Postgres, bigint};

/// Whether this log has begun already: its snapshot is there, and nothing before it is.
fn has_begun(new: Anew<'_>, head: &Head, kept: &Kept) -> bool {
    let next = new.next.0;
    let is_epoch = head.next != next || head.epoch == new.epoch.0;
    let is_place = kept.covers == next && head.first == next;
    let is_snapshot =
        kept.bytes == new.snapshot.len() as u64 && kept.sha256 == sha256(new.snapshot);
    is_epoch && is_place && is_snapshot
}

impl Postgres {
    pub(crate) async fn begin(&self, new: Anew<'_>) -> Result<(), BeginError> {
        for _ in 0..TRIES {
            // In this order: what was seen first is committed when the second is told.
            let kept = self.kept().await?;
            let head = self.head().await?;
            if has_begun(new, &head, &kept) {
                self.tidy().await;
                return Ok(());
            }
            if let Some(to) = head.moved_to() {
                let to = to.to_owned();
                return Err(BeginError::Left { to });
            }
            let is_empty = head.next == 1 && kept.serial == 0;
            new.may_begin(Position(head.next), is_empty)?;
            let snapshot = kept.followed_by(new.next, new.snapshot);
            self.write_parts(&snapshot, new.snapshot).await?;
            if self.replace(&head, new, &snapshot).await? {
                occupied(&self.hints, Position(new.next.0 - 1));
                self.tidy().await;
                return Ok(());
            }
        }
        let cause = format!("others changed the ledger at the same time, {TRIES} times in a row");
        Err(unavailable(cause).into())
    }

    /// Has the new log take the place of the one that ends there, if that and its snapshot are as they were seen; whether
    /// it has.
    async fn replace(
        &self,
        head: &Head,
        new: Anew<'_>,
        snapshot: &Kept,
    ) -> Result<bool, ReadError> {
        let (next, epoch, seen) = (bigint(new.next.0), bigint(new.epoch.0), bigint(head.next));
        let bytes = bigint(snapshot.bytes);
        let parameters: [Parameter<'_>; 8] = [
            (&next, Type::INT8),
            (&epoch, Type::INT8),
            (&snapshot.serial, Type::INT8),
            (&snapshot.writer, Type::INT8),
            (&snapshot.parts, Type::INT8),
            (&bytes, Type::INT8),
            (&snapshot.sha256, Type::TEXT),
            (&seen, Type::INT8),
        ];
        match self.writes.ask(&self.sql.begin, &parameters).await {
            Ok(rows) => Ok(!rows.is_empty()),
            Err(StoreError::Unknown(_)) => Ok(self.kept().await? == *snapshot),
            Err(error @ StoreError::Refused(_)) => Err(error.into()),
        }
    }
}
