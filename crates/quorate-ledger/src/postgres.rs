//! The ledger in `PostgreSQL`: three tables in a schema of the cluster's own.
//!
//! ```text
//! head     one row: the first free position, the epoch of the entry before it, the first position left, the snapshot,
//!          whose ledger it is, and where that cluster has moved
//! entries  position, entry
//! parts    serial and writer of a snapshot, number, bytes
//! ```
//!
//! Every step is one statement, so that a step is whole or nothing, and works behind a pooler that gives each
//! transaction another session. Who wants the end of the log locks the row of `head`: that is a transaction which is
//! committed like any other, with the synchronous standby if there is one. A primary that was replaced cannot do that
//! any more, and so never tells an old end. It must never rest on advisory locks, sessions or time-outs of the server.
//!
//! What a transaction has committed may be lost where the server is told to lose it (`fsync = off`), or when a standby
//! takes over that does not follow synchronously. The latter is another history, which directors detect.

mod begin;
mod follow;
mod lane;
mod owner;
mod snapshots;
mod sort;
mod sql;

use std::sync::Arc;

use quorate_core::ids::{Epoch, Position};
use tokio::sync::watch;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

use crate::address::Address;
use crate::hints::{Follower, occupied};
use crate::shared::{OpenError, Owner};
use crate::store::{fits, has_moved, not_put};
use crate::{
    AppendError, Appended, Committed, Hints, Ledger, READ_BYTES_MAX, ReadError, Snapshot, Tail,
};

use follow::Log;
use lane::{Lane, Parameter, Server};
use sql::Sql;

/// The ledger in a schema.
#[derive(Debug)]
pub(crate) struct Postgres {
    sql: Sql,
    /// What locks the row of `head`. It may wait for others that do, and for a standby.
    writes: Lane,
    /// What waits for nobody.
    reads: Lane,
    hints: watch::Sender<Hints>,
    _follower: Follower,
}

/// What `head` tells of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    next: u64,
    epoch: u64,
    first: u64,
    owner: Option<Owner>,
}

impl Head {
    /// Where the cluster has moved.
    fn moved_to(&self) -> Option<&str> {
        self.owner.as_ref()?.moved_to.as_deref()
    }
}

/// A number as the database keeps it. Nothing that is counted here comes near the end of those.
fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A column, which is there and of this type unless somebody else made the table.
fn column<'a, T: FromSql<'a>>(row: &'a Row, name: &str) -> Result<T, ReadError> {
    row.try_get(name).map_err(|error| {
        let cause = format!(
            "column {name} is not what this version of quorate keeps there ({error}); is the schema used by something \
             else?"
        );
        ReadError::Unavailable(cause.into())
    })
}

fn number(row: &Row, name: &str) -> Result<u64, ReadError> {
    let number: i64 = column(row, name)?;
    Ok(u64::try_from(number).unwrap_or(0))
}

impl Postgres {
    /// The ledger at this address. Must be called within a Tokio runtime, which runs the task that follows the end.
    pub(crate) fn new(address: &Address) -> Result<Self, OpenError> {
        let server = Server::new(address)?;
        let sql = Sql::of(address.schema.as_deref());
        let hints = watch::Sender::new(Hints::default());
        let log = Log {
            server: server.clone(),
            sql: sql.clone(),
        };
        let follower = Follower::spawn(Arc::new(log), hints.clone());
        Ok(Self {
            writes: Lane::new(server.clone(), sql.setup.clone()),
            reads: Lane::new(server, sql.setup.clone()),
            sql,
            hints,
            _follower: follower,
        })
    }

    /// The end of the log, linearizable.
    async fn head(&self) -> Result<Head, ReadError> {
        let rows = self.writes.ask(&self.sql.tail, &[]).await?;
        let row = rows.first().ok_or_else(no_head)?;
        Ok(Head {
            next: number(row, "next")?,
            epoch: number(row, "epoch")?,
            first: number(row, "first")?,
            owner: owner::of(row)?,
        })
    }

    /// What it means that an append was not done.
    async fn not_created(&self, at: Position) -> Result<Appended, AppendError> {
        match self.head().await {
            Ok(head) => match head.moved_to() {
                Some(to) if at.0 == head.next => Err(has_moved(at, to)),
                Some(_) | None => not_put(at, Ok(head.next)),
            },
            Err(error) => not_put(at, Err(error)),
        }
    }
}

fn no_head() -> ReadError {
    let cause =
        "table head has no row; it is made with the table, and nothing of quorate deletes it";
    ReadError::Unavailable(cause.into())
}

impl Ledger for Postgres {
    async fn append(
        &self,
        at: Position,
        epoch: Epoch,
        entry: Vec<u8>,
    ) -> Result<Appended, AppendError> {
        fits(at, &entry)?;
        let (position, epoch) = (bigint(at.0.max(1)), bigint(epoch.0));
        let parameters: [Parameter<'_>; 3] = [
            (&position, Type::INT8),
            (&epoch, Type::INT8),
            (&entry, Type::BYTEA),
        ];
        let put = self.writes.ask(&self.sql.append, &parameters);
        match put.await {
            Ok(rows) if !rows.is_empty() => {
                occupied(&self.hints, at);
                Ok(Appended::Appended)
            }
            Ok(_) => self.not_created(at).await,
            Err(error) => Err(error.of_append(at)),
        }
    }

    async fn tail(&self) -> Result<Tail, ReadError> {
        let head = self.head().await?;
        Ok(Tail {
            next: Position(head.next),
            epoch: Epoch(head.epoch),
        })
    }

    async fn read(&self, from: Position, limit: usize) -> Result<Vec<Committed>, ReadError> {
        let from = from.max(Position(1));
        let (begin, most) = (bigint(from.0), bigint(limit as u64));
        let bytes = bigint(READ_BYTES_MAX as u64);
        let parameters: [Parameter<'_>; 3] = [
            (&begin, Type::INT8),
            (&most, Type::INT8),
            (&bytes, Type::INT8),
        ];
        let read = self.reads.ask(&self.sql.read, &parameters);
        let mut found = Vec::new();
        for (expected, row) in (from.0..).zip(read.await?) {
            let position = number(&row, "position")?;
            if position != expected {
                break;
            }
            found.push(Committed {
                position: Position(position),
                entry: column(&row, "entry")?,
            });
        }
        if found.is_empty() && limit > 0 {
            let rows = self.reads.ask(&self.sql.look, &[]).await?;
            let first = Position(number(rows.first().ok_or_else(no_head)?, "first")?);
            if from < first {
                return Err(ReadError::Trimmed { first });
            }
        }
        Ok(found)
    }

    async fn save_snapshot(&self, next: Position, snapshot: Vec<u8>) -> Result<(), ReadError> {
        self.keep(next, &snapshot).await
    }

    async fn load_snapshot(&self) -> Result<Option<Snapshot>, ReadError> {
        self.load().await
    }

    fn hints(&self) -> watch::Receiver<Hints> {
        self.hints.subscribe()
    }
}
