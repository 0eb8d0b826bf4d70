//! What a crash or a bad disk leaves in a stopped director's folder: it recovers, or refuses with the
//! reason. It never tells anything wrong.

use std::fs;
use std::path::{Path, PathBuf};

use quorate_core::ids::Position;
use quorate_ledger::Ledger;
use quorate_raft::OpenError;
use tempfile::TempDir;

use crate::support::{PATIENCE, check, fill, folder, open};

/// A stopped ledger with entries at positions 1 to `end`, exclusive.
async fn stopped(end: u64) -> TempDir {
    let folder = folder();
    let ledger = open(folder.path()).await.unwrap();
    fill(&ledger, 1, end).await;
    ledger.shutdown().await;
    folder
}

fn copy(from: &Path) -> TempDir {
    let to = folder();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
    }
    to
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    let mut segments: Vec<PathBuf> = files
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.strip_prefix("log-")
                .is_some_and(|rest| rest.len() == 20)
        })
        .collect();
    segments.sort();
    segments
}

/// Offsets of the frames of a segment, and where the last one ends.
fn frames(segment: &[u8]) -> (Vec<usize>, usize) {
    let mut offsets = Vec::new();
    let mut at = 64;
    loop {
        let length = u32::from_le_bytes(segment[at..at + 4].try_into().unwrap());
        if length == 0 {
            return (offsets, at);
        }
        offsets.push(at);
        at += 8 + usize::try_from(length).unwrap();
    }
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

async fn refused(dir: &Path) -> String {
    match open(dir).await {
        Ok(_) => panic!("it was opened"),
        Err(error @ OpenError::Damaged { .. }) => error.to_string(),
        Err(error) => panic!("it was refused for another reason: {error}"),
    }
}

/// A folder in which the last records were written but not acknowledged: the marks are of an earlier
/// moment, as after a power cut. Gives also the number of entries then acknowledged.
async fn unacknowledged() -> (TempDir, u64) {
    let folder = stopped(20).await;
    let marks = fs::read(folder.path().join("acknowledged")).unwrap();
    let ledger = open(folder.path()).await.unwrap();
    fill(&ledger, 20, 21).await;
    ledger.shutdown().await;
    fs::write(folder.path().join("acknowledged"), marks).unwrap();
    (folder, 20)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_record_torn_at_any_byte_before_its_acknowledgement_is_removed() {
    let (torn, next) = unacknowledged().await;
    let segment = segments(torn.path()).pop().unwrap();
    let bytes = fs::read(&segment).unwrap();
    let (offsets, end) = frames(&bytes);
    let start = *offsets.last().unwrap();
    for cut in start..end {
        let copied = copy(torn.path());
        let segment = segments(copied.path()).pop().unwrap();
        change(&segment, |bytes| bytes[cut..end].fill(0));
        let ledger = open(copied.path())
            .await
            .unwrap_or_else(|error| panic!("torn at {cut}: {error}"));
        let found = check(&ledger, 1).await;
        // A record whose last bytes are zeros anyway is whole.
        assert!(found == next || bytes[cut..end].iter().all(|byte| *byte == 0));
        if cut % 10 == 0 {
            // The place is free again, and what goes there is kept.
            fill(&ledger, found, found + 2).await;
            ledger.shutdown().await;
            let ledger = open(copied.path()).await.unwrap();
            assert_eq!(check(&ledger, 1).await, found + 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_last_record_that_is_torn_is_refused() {
    let whole = stopped(20).await;
    let segment = segments(whole.path()).pop().unwrap();
    let (offsets, end) = frames(&fs::read(&segment).unwrap());
    let start = *offsets.last().unwrap();
    for cut in (start..end).step_by(5) {
        let copied = copy(whole.path());
        let segment = segments(copied.path()).pop().unwrap();
        change(&segment, |bytes| bytes[cut..end].fill(0));
        let reason = refused(copied.path()).await;
        assert!(reason.contains("acknowledged"), "{cut}: {reason}");
        assert!(reason.contains("Restore"), "it says what to do: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_flip_anywhere_before_the_end_is_refused_and_changes_nothing() {
    let whole = stopped(12).await;
    let segment = segments(whole.path()).pop().unwrap();
    let (_, end) = frames(&fs::read(&segment).unwrap());
    for at in (0..end).step_by(3) {
        let copied = copy(whole.path());
        let segment = segments(copied.path()).pop().unwrap();
        change(&segment, |bytes| bytes[at] ^= 1 << (at % 8));
        let before = fs::read(&segment).unwrap();
        refused(copied.path()).await;
        assert!(fs::read(&segment).unwrap() == before, "byte {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_with_later_ones_behind_it_is_refused_without_any_mark() {
    let (folder, _) = unacknowledged().await;
    let segment = segments(folder.path()).pop().unwrap();
    let (offsets, _) = frames(&fs::read(&segment).unwrap());
    // The record before the last was synced before the last was written, whatever the marks say.
    let at = offsets[offsets.len() - 2] + 20;
    change(&segment, |bytes| bytes[at] ^= 0x10);
    let reason = refused(folder.path()).await;
    assert!(reason.contains("later ones behind it"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_before_what_was_acknowledged_is_refused() {
    let folder = stopped(1500).await;
    let all = segments(folder.path());
    assert!(all.len() > 1, "the log has several segments");
    for gone in [0, all.len() - 1] {
        let copied = copy(folder.path());
        fs::remove_file(&segments(copied.path())[gone]).unwrap();
        refused(copied.path()).await;
    }
    let copied = copy(folder.path());
    let last = segments(copied.path()).pop().unwrap();
    change(&last, |bytes| bytes[64..].fill(0));
    let reason = refused(copied.path()).await;
    assert!(reason.contains("ends before record"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_that_are_empty_damaged_or_missing_are_refused() {
    let whole = stopped(5).await;
    for name in ["identity", "vote", "acknowledged"] {
        let empty = copy(whole.path());
        fs::write(empty.path().join(name), b"").unwrap();
        let reason = refused(empty.path()).await;
        assert!(reason.contains(name), "{reason}");

        let missing = copy(whole.path());
        fs::remove_file(missing.path().join(name)).unwrap();
        let reason = refused(missing.path()).await;
        assert!(reason.contains("is missing"), "{reason}");

        let flipped = copy(whole.path());
        change(&flipped.path().join(name), |bytes| {
            for byte in bytes {
                *byte ^= 4;
            }
        });
        refused(flipped.path()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_of_an_earlier_term_than_the_log_is_refused() {
    let folder = stopped(3).await;
    let older = fs::read(folder.path().join("vote")).unwrap();
    let ledger = open(folder.path()).await.unwrap();
    fill(&ledger, 3, 5).await;
    ledger.shutdown().await;
    fs::write(folder.path().join("vote"), older).unwrap();
    let reason = refused(folder.path()).await;
    assert!(reason.contains("older than the log"), "{reason}");
}

async fn with_snapshots() -> TempDir {
    let folder = stopped(31).await;
    let ledger = open(folder.path()).await.unwrap();
    for next in [11, 21] {
        let state = format!("before {next}").into_bytes();
        ledger.save_snapshot(Position(next), state).await.unwrap();
    }
    let trimmed = async {
        while !folder.path().join("purged").exists() {
            tokio::task::yield_now().await;
        }
    };
    let trimmed = tokio::time::timeout(PATIENCE, trimmed).await;
    trimmed.expect("the log is trimmed in time");
    ledger.shutdown().await;
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_replaced_by_the_one_before_and_the_log() {
    let whole = with_snapshots().await;
    let size = fs::metadata(whole.path().join("snapshot")).unwrap().len();
    for cut in [0, 1, size / 2, size - 1] {
        let copied = copy(whole.path());
        let path = copied.path().join("snapshot");
        change(&path, |bytes| bytes.truncate(usize::try_from(cut).unwrap()));
        let ledger = open(copied.path())
            .await
            .unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        let snapshot = ledger.load_snapshot().await.unwrap().unwrap();
        assert_eq!(snapshot.next, Position(11));
        assert_eq!(snapshot.bytes, b"before 11");
        assert_eq!(check(&ledger, 11).await, 31);
        let later = b"before 25".to_vec();
        ledger.save_snapshot(Position(25), later).await.unwrap();
        ledger.shutdown().await;
        let ledger = open(copied.path()).await.unwrap();
        assert_eq!(
            ledger.load_snapshot().await.unwrap().unwrap().next,
            Position(25)
        );
        assert_eq!(check(&ledger, 11).await, 31);
        ledger.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_without_any_whole_snapshot_is_refused_once_its_log_was_trimmed() {
    let folder = with_snapshots().await;
    for name in ["snapshot", "snapshot-before"] {
        let path = folder.path().join(name);
        change(&path, |bytes| bytes[40] ^= 1);
    }
    refused(folder.path()).await;
    for name in ["snapshot", "snapshot-before"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let reason = refused(folder.path()).await;
    assert!(reason.contains("is missing"), "{reason}");
}
