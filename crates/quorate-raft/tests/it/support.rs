//! A ledger in a folder of its own.

use std::path::Path;
use std::time::Duration;

use quorate_core::ids::{DirectorName, Epoch, Position};
use quorate_ledger::{Appended, Ledger};
use quorate_raft::{Embedded, OpenError, Options};
use tempfile::TempDir;

/// How long anything may take on a busy machine before it is called stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The smallest segments, so that a test fills several.
pub(crate) fn options(dir: &Path) -> Options {
    let name = DirectorName::new("d1").expect("a name");
    Options {
        segment_bytes: 64 * 1024,
        ..Options::new(dir.to_owned(), name)
    }
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

pub(crate) async fn open(dir: &Path) -> Result<Embedded, OpenError> {
    let ledger = Embedded::open(options(dir)).await?;
    leading(&ledger).await;
    Ok(ledger)
}

pub(crate) async fn leading(ledger: &Embedded) {
    let mut hints = ledger.hints();
    let leading = hints.wait_for(|hints| hints.should_lead == Some(true));
    let leading = tokio::time::timeout(PATIENCE, leading).await;
    leading.expect("it leads in time").expect("it is alive");
}

/// The entry of a position: its length differs, so that frames begin anywhere.
pub(crate) fn entry(position: u64) -> Vec<u8> {
    let length = usize::try_from(position * 7 % 90).expect("small");
    let mut entry = format!("{position}:").into_bytes();
    entry.resize(entry.len() + length, b'x');
    entry
}

pub(crate) async fn fill(ledger: &Embedded, from: u64, end: u64) {
    for position in from..end {
        let appended = ledger
            .append(Position(position), Epoch(1), entry(position))
            .await;
        assert_eq!(appended.expect("it is appended"), Appended::Appended);
    }
}

/// Checks that the entries from `from` on are those of [`fill`], and gives the first free position.
pub(crate) async fn check(ledger: &Embedded, from: u64) -> u64 {
    let next = ledger.tail().await.expect("a tail").next.0;
    let mut position = from;
    while position < next {
        let found = ledger.read(Position(position), 1000).await.expect("a read");
        assert!(!found.is_empty(), "position {position} is there");
        for committed in found {
            assert_eq!(committed.position, Position(position));
            assert_eq!(committed.entry, entry(position), "position {position}");
            position += 1;
        }
    }
    next
}
