//! Keeps snapshots and trims the log behind them: one task, one snapshot at a time.
//!
//! A snapshot that cannot be written is an error for who handed it over, not the end of the ledger: the
//! log still has everything.

use std::sync::Arc;
use std::time::Duration;

use openraft::LogIdOptionExt;
use quorate_core::ids::Position;
use quorate_ledger::{Cause, ReadError};
use tokio::sync::{mpsc, oneshot};

use crate::log::LogStore;
use crate::machine::View;
use crate::types::Raft;

/// How long the Raft library may take to notice a snapshot that is already on disk.
const NOTICE_LIMIT: Duration = Duration::from_secs(5);

/// A snapshot to keep.
#[derive(Debug)]
pub(crate) struct Save {
    pub(crate) next: Position,
    pub(crate) fold: Vec<u8>,
    pub(crate) done: oneshot::Sender<Result<(), ReadError>>,
}

/// What the task works with.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) view: Arc<View>,
    pub(crate) log: LogStore,
    pub(crate) raft: Raft,
}

impl Keeper {
    /// Works until nobody can hand over snapshots any more.
    pub(crate) async fn run(self, mut saves: mpsc::Receiver<Save>) {
        while let Some(Save { next, fold, done }) = saves.recv().await {
            let saved = self.save(next, fold).await;
            // Whoever asked may have gone; the snapshot is kept all the same.
            drop(done.send(saved.map_err(ReadError::Unavailable)));
        }
    }

    async fn save(&self, next: Position, fold: Vec<u8>) -> Result<(), Cause> {
        let (head, before) = {
            let applied = self.view.applied();
            if next > applied.next {
                return Err(
                    format!("position {next} and what is before it is not all there").into(),
                );
            }
            if applied.kept.as_ref().is_some_and(|kept| kept.next >= next) {
                return Ok(());
            }
            let head = applied
                .cut(next, &self.log)
                .ok_or_else(|| format!("nothing can be cut before position {next} yet"))?;
            (head, applied.kept.clone())
        };
        let (view, last) = (Arc::clone(&self.view), head.last);
        tokio::task::spawn_blocking(move || view.keep(head, &fold)).await??;
        self.raft.trigger().snapshot().await?;
        self.raft
            .wait(Some(NOTICE_LIMIT))
            .metrics(
                |metrics| metrics.snapshot.index() >= Some(last.index),
                "the snapshot is noticed",
            )
            .await?;
        if let Some(before) = before {
            self.raft.trigger().purge_log(before.last.index).await?;
        }
        Ok(())
    }
}
