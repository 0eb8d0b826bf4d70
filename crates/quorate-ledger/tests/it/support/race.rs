//! Writers that race for positions while something goes wrong: nothing that one of them was told is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_ledger::shared::SharedLedger;
use tokio::task::JoinSet;

use super::{claim, entries, eventually, next, within};

const WRITERS: usize = 3;
const ENTRIES: usize = 30;

/// How many entries there are in the end.
pub(crate) const ALL: u64 = (WRITERS * ENTRIES) as u64;

/// Writers that race for positions.
pub(crate) struct Race {
    writers: JoinSet<Vec<(u64, Vec<u8>)>>,
    done: Arc<AtomicU64>,
}

impl Race {
    /// `open` gives each its client.
    pub(crate) fn start(open: impl Fn(usize) -> SharedLedger) -> Self {
        let done = Arc::new(AtomicU64::new(0));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let ledger = open(writer);
            let done = Arc::clone(&done);
            writers.spawn(async move { write(&ledger, writer, &done).await });
        }
        Self { writers, done }
    }

    pub(crate) async fn reaches(&self, count: u64) {
        eventually("appends", || self.done.load(Ordering::SeqCst) >= count).await;
    }

    /// Waits for the writers: what each of them was told is in the one history, once.
    pub(crate) async fn assert_nothing_is_lost(mut self, ledger: &SharedLedger) {
        let mut told = Vec::new();
        while let Some(writer) = within("a writer", self.writers.join_next()).await {
            told.extend(writer.expect("a writer does not fail"));
        }
        assert_eq!(next(ledger).await, ALL + 1, "each is there once");
        told.sort_unstable();
        let log = entries(ledger, 1, told.len()).await;
        for ((position, entry), (at, found)) in told.iter().zip((1..).zip(&log)) {
            assert_eq!((position, entry), (&at, found));
        }
        assert_eq!(told.len() as u64, ALL);
    }
}

async fn write(ledger: &SharedLedger, writer: usize, done: &AtomicU64) -> Vec<(u64, Vec<u8>)> {
    let mut told = Vec::new();
    for number in 0..ENTRIES {
        let entry = format!("{writer}:{number}").into_bytes();
        let mut at = next(ledger).await;
        while !claim(ledger, at, &entry).await {
            at = next(ledger).await.max(at + 1);
        }
        told.push((at, entry));
        done.fetch_add(1, Ordering::SeqCst);
    }
    told
}
