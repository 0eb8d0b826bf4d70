//! The log under the Raft library's own suite, and what the suite does not look at.

use std::path::Path;
use std::sync::Arc;

use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, StorageError};
use quorate_core::ids::{Epoch, Position};
use tempfile::TempDir;

use super::{LogStore, Sizes, open};
use crate::files;
use crate::machine::{Machine, View};
use crate::types::{Entry, Proposal, Types, Vote, log_id};

pub(super) const SIZES: Sizes = Sizes {
    segment: 4096,
    cache: 4000,
};

pub(super) fn opened(dir: &Path) -> LogStore {
    open(dir, SIZES, files::lock(dir).unwrap()).unwrap()
}

struct Fresh;

impl StoreBuilder<Types, LogStore, Machine, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let log = opened(dir.path());
        let view = View::restore(dir.path().to_owned(), None, &log).unwrap();
        Ok((dir, log, Machine::new(view)))
    }
}

type Suites = Suite<Types, LogStore, Machine, Fresh, TempDir>;

/// Runs rules of the library's suite, each on a fresh log. Two kinds are left out: those that build a
/// snapshot, since ours hold a fold that only the director has, and those that begin a log in the middle
/// of nowhere, which ours refuses as the hole it is.
macro_rules! rules {
    ($($rule:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $rule() {
                let (_dir, log, machine) = Fresh.build().await.unwrap();
                Suites::$rule(log, machine).await.unwrap();
            }
        )*
    };
}

mod suite {
    use super::{Fresh, StoreBuilder, Suites};

    rules! {
        last_membership_in_log_initial get_membership_initial get_membership_from_empty_log_and_sm
        get_initial_state_without_init get_initial_state_with_state
        save_vote get_log_entries limited_get_log_entries leader_bounded_stream entries_stream
        try_get_log_entry log_reader_reads_new_entries initial_logs get_log_state get_log_id
        last_id_in_log last_applied_state purge_logs_upto_0 purge_logs_upto_5 purge_logs_upto_20
        delete_logs_after_11 delete_logs_after_5 delete_logs_after_0 delete_logs_after_none
        append_to_log apply_single apply_multiple
    }
}

pub(super) fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(Proposal {
            at: Position(index),
            epoch: Epoch(term),
            entry: vec![u8::try_from(index % 251).unwrap(); bytes].into(),
        }),
    }
}

async fn append(log: &mut LogStore, entries: impl IntoIterator<Item = Entry>) {
    let entries: Vec<Entry> = entries.into_iter().collect();
    log.blocking_append(entries).await.unwrap();
}

async fn all(log: &mut LogStore) -> Vec<Entry> {
    log.try_get_log_entries(..).await.unwrap()
}

#[tokio::test]
async fn the_log_is_the_same_after_every_cut_and_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = opened(dir.path());
    log.save_vote(&Vote::new_committed(9, 1)).await.unwrap();
    let mut model: Vec<Entry> = Vec::new();
    for round in 0..40_u64 {
        // From within a segment, at its edge and across several.
        let keep = model
            .len()
            .saturating_sub(usize::try_from(round * 5 % 23).unwrap());
        let last = keep.checked_sub(1).map(|at| model[at].log_id);
        log.truncate_after(last).await.unwrap();
        model.truncate(keep);
        let from = u64::try_from(keep).unwrap();
        let added = (from..from + 11).map(|index| entry(1 + round / 5, index, 300));
        append(&mut log, added.clone()).await;
        model.extend(added);
        assert_eq!(all(&mut log).await, model, "round {round}");
        if round % 3 == 0 {
            log.close().await.unwrap();
            drop(log);
            log = opened(dir.path());
            assert_eq!(all(&mut log).await, model, "round {round}, reopened");
            assert_eq!(
                log.read_vote().await.unwrap(),
                Some(Vote::new_committed(9, 1))
            );
        }
    }
}

#[tokio::test]
async fn purging_deletes_whole_segments_and_survives_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = opened(dir.path());
    log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    append(&mut log, (0..100).map(|index| entry(1, index, 300))).await;
    let files = || {
        let names = files::names(dir.path()).unwrap();
        names
            .iter()
            .filter(|name| name.starts_with("log-0"))
            .count()
    };
    let before = files();
    log.purge(log_id(1, 70)).await.unwrap();
    assert!(
        files() < before / 2,
        "{} of {before} segments are left",
        files()
    );
    let rest: Vec<Entry> = (71..100).map(|index| entry(1, index, 300)).collect();
    assert_eq!(all(&mut log).await, rest);
    log.close().await.unwrap();
    let mut log = opened(dir.path());
    assert_eq!(all(&mut log).await, rest);
    assert_eq!(log.purged(), Some(log_id(1, 70)));
    // A snapshot from elsewhere: the log goes on beyond what it has.
    log.purge(log_id(1, 500)).await.unwrap();
    append(&mut log, [entry(1, 501, 10)]).await;
    log.close().await.unwrap();
    let mut log = opened(dir.path());
    assert_eq!(all(&mut log).await, [entry(1, 501, 10)]);
}

#[tokio::test]
async fn memory_is_bounded_and_what_left_it_is_read_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = opened(dir.path());
    let entries: Vec<Entry> = (0..200).map(|index| entry(1, index, 200)).collect();
    for some in entries.chunks(7) {
        append(&mut log, some.to_vec()).await;
        let cached = log.cached_bytes();
        assert!(cached <= SIZES.cache, "{cached} bytes are in memory");
    }
    assert!(!log.in_memory(&[0]) && log.in_memory(&[199]));
    assert_eq!(all(&mut log).await, entries);
    let limited = log.read(0..200, 1000).unwrap();
    assert!(!limited.is_empty() && limited.len() < 5);
}

#[tokio::test]
async fn after_a_failed_write_nothing_is_written_and_everyone_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = opened(dir.path());
    append(&mut log, [entry(1, 0, 10)]).await;
    // From here on the folder cannot take a new segment: the first one has no room for this.
    let moved = dir.path().with_extension("moved");
    std::fs::rename(dir.path(), &moved).unwrap();
    let written = log.blocking_append([entry(1, 1, 8000)]).await;
    assert!(written.is_err(), "the write failed");
    assert!(log.failed().borrow().is_some(), "the failure is told");
    std::fs::rename(&moved, dir.path()).unwrap();
    // The disk would work again, but nobody knows what it holds.
    assert!(
        log.append([entry(1, 2, 10)], IOFlushed::noop())
            .await
            .is_err()
    );
    assert!(log.save_vote(&Vote::new(5, 5)).await.is_err());
    drop(log);
}

#[test]
fn the_shared_parts_can_be_used_from_any_thread() {
    fn any_thread<T: Send + Sync>() {}
    any_thread::<LogStore>();
    any_thread::<Arc<View>>();
}
