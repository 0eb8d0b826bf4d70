//! Snapshots in parts, and trimming.
//!
//! Parts are written first, under a serial number one higher than that of the snapshot there is and a number that their
//! writer has drawn; then the row of `head` is made to name them, if it still names the snapshot before; then what it no
//! longer names is deleted. Whatever is cut short in between leaves the snapshot before in place.

use quorate_core::ids::Position;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::store::{StoreError, sha256, unavailable};
use crate::{ReadError, Snapshot};

use super::lane::Parameter;
use super::{Postgres, bigint, column, no_head, number};

/// Size of a part: one row, and one message.
const PART_BYTES: usize = 256 * 1024;

/// How many parts are read at once.
const PARTS_AT_ONCE: i64 = 16;

/// How often to begin again when others keep snapshots at the same time: they are at most a handful of directors, and
/// each time one of them has got further.
pub(super) const TRIES: usize = 5;

/// The snapshot that the row of `head` names. Serial number 0 is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) serial: i64,
    pub(super) writer: i64,
    pub(super) covers: u64,
    pub(super) parts: i64,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

impl Kept {
    fn of(row: &Row) -> Result<Self, ReadError> {
        Ok(Self {
            serial: column(row, "serial")?,
            writer: column(row, "writer")?,
            covers: number(row, "covers")?,
            parts: column(row, "parts")?,
            bytes: number(row, "bytes")?,
            sha256: column(row, "sha256")?,
        })
    }

    /// The one after this.
    pub(super) fn followed_by(&self, next: Position, snapshot: &[u8]) -> Self {
        Self {
            serial: self.serial + 1,
            writer: rand::random(),
            covers: next.0,
            parts: bigint(snapshot.chunks(PART_BYTES).len() as u64),
            bytes: snapshot.len() as u64,
            sha256: sha256(snapshot),
        }
    }
}

impl Postgres {
    pub(super) async fn kept(&self) -> Result<Kept, ReadError> {
        let rows = self.reads.ask(&self.sql.look, &[]).await?;
        Kept::of(rows.first().ok_or_else(no_head)?)
    }

    pub(super) async fn keep(&self, next: Position, snapshot: &[u8]) -> Result<(), ReadError> {
        for _ in 0..TRIES {
            let head = self.head().await?;
            if next.0 > head.next {
                return Err(unavailable(format!(
                    "a snapshot up to position {next} covers entries that are not there"
                )));
            }
            let before = self.kept().await?;
            if before.covers >= next.0 {
                return Ok(());
            }
            let new = before.followed_by(next, snapshot);
            self.write_parts(&new, snapshot).await?;
            if self.point(&new).await? {
                self.tidy().await;
                return Ok(());
            }
        }
        Err(unavailable(format!(
            "others kept snapshots at the same time, {TRIES} times in a row"
        )))
    }

    pub(super) async fn write_parts(&self, new: &Kept, snapshot: &[u8]) -> Result<(), ReadError> {
        for (number, bytes) in (0_i64..).zip(snapshot.chunks(PART_BYTES)) {
            let parameters: [Parameter<'_>; 4] = [
                (&new.serial, Type::INT8),
                (&new.writer, Type::INT8),
                (&number, Type::INT8),
                (&bytes, Type::BYTEA),
            ];
            self.reads.ask(&self.sql.put_part, &parameters).await?;
        }
        Ok(())
    }

    /// Makes the row of `head` name a snapshot, if it still names the one before; whether it does now.
    async fn point(&self, new: &Kept) -> Result<bool, ReadError> {
        let (covers, bytes) = (bigint(new.covers), bigint(new.bytes));
        let parameters: [Parameter<'_>; 6] = [
            (&new.serial, Type::INT8),
            (&new.writer, Type::INT8),
            (&covers, Type::INT8),
            (&new.parts, Type::INT8),
            (&bytes, Type::INT8),
            (&new.sha256, Type::TEXT),
        ];
        let pointed = self.writes.ask(&self.sql.point, &parameters);
        match pointed.await {
            Ok(rows) => Ok(!rows.is_empty()),
            Err(StoreError::Unknown(_)) => Ok(self.kept().await? == *new),
            Err(error @ StoreError::Refused(_)) => Err(error.into()),
        }
    }

    /// Deletes what is no longer named. The snapshot is kept already: what is left over goes with the next one.
    pub(super) async fn tidy(&self) {
        for sql in &self.sql.trim {
            if let Err(error) = self.reads.ask(sql, &[]).await {
                tracing::debug!(%error, "what an earlier snapshot covers could not be deleted yet");
            }
        }
    }

    pub(super) async fn load(&self) -> Result<Option<Snapshot>, ReadError> {
        for _ in 0..TRIES {
            let kept = self.kept().await?;
            if kept.serial == 0 {
                return Ok(None);
            }
            if let Some(bytes) = self.read_parts(&kept).await? {
                let next = Position(kept.covers);
                return Ok(Some(Snapshot { next, bytes }));
            }
            // A newer one may have replaced it meanwhile. The same one again is damaged.
            if self.kept().await? == kept {
                return Err(unavailable(format!(
                    "the snapshot up to position {} is damaged: its rows in table parts are not those that were \
                     written; restore the database or the cluster from a backup",
                    kept.covers
                )));
            }
        }
        Err(unavailable(format!(
            "the snapshot was replaced while it was read, {TRIES} times in a row"
        )))
    }

    /// The whole snapshot; `None` when it is not what the row of `head` says.
    async fn read_parts(&self, kept: &Kept) -> Result<Option<Vec<u8>>, ReadError> {
        let mut whole = Vec::new();
        let mut from = 0;
        while from < kept.parts {
            let to = from + PARTS_AT_ONCE;
            let parameters: [Parameter<'_>; 4] = [
                (&kept.serial, Type::INT8),
                (&kept.writer, Type::INT8),
                (&from, Type::INT8),
                (&to, Type::INT8),
            ];
            let rows = self.reads.ask(&self.sql.parts, &parameters);
            for row in rows.await? {
                let bytes: &[u8] = column(&row, "bytes")?;
                whole.extend_from_slice(bytes);
            }
            from = to;
        }
        let right = whole.len() as u64 == kept.bytes && sha256(&whole) == kept.sha256;
        Ok(right.then_some(whole))
    }
}
