//! The further rules of ledgers that outlive their process.

use std::sync::Arc;

use quorate_core::ids::{Epoch, Position};

use super::DurableStand;
use super::client::{Claim, claim, fill, load, read, read_all, save, tail, text};
use crate::{Ledger, ReadError, Snapshot, Tail};

async fn one<S: DurableStand>(stand: &S) -> Arc<S::Ledger> {
    match stand.fresh(1).await.pop() {
        Some(ledger) => ledger,
        None => panic!("the stand gave no ledger"),
    }
}

async fn assert_all<L: Ledger>(ledger: &L, from: u64, end: u64) {
    let found = read_all(ledger, Position(from), Position(end)).await;
    assert_eq!(found.len() as u64, end - from);
    for committed in found {
        assert_eq!(committed.entry, text(committed.position.0));
    }
}

/// S4: what was acknowledged is there, in its order, and the ledger goes on after it.
pub async fn what_was_appended_is_there_after_reopening<S: DurableStand>(stand: &S) {
    let mut ledger = one(stand).await;
    let mut next = 1;
    for round in 1..=4 {
        fill(&*ledger, next, 25, round).await;
        next += 25;
        ledger = stand.reopen(ledger).await;
        let expected = Tail {
            next: Position(next),
            epoch: Epoch(round),
        };
        assert_eq!(tail(&*ledger).await, expected);
        assert_all(&*ledger, 1, next).await;
        assert_eq!(
            claim(&*ledger, Position(3), 1, b"late").await,
            Claim::Others
        );
    }
}

/// A snapshot, the entries it left and those appended since are all there.
pub async fn a_snapshot_and_what_follows_it_are_there_after_reopening<S: DurableStand>(stand: &S) {
    let mut ledger = one(stand).await;
    let mut next = 1;
    for round in 1..=5_u64 {
        fill(&*ledger, next, 10, round).await;
        let covered = next + 6;
        next += 10;
        let state = format!("state {round}");
        save(&*ledger, covered, state.as_bytes()).await;
        ledger = stand.reopen(ledger).await;
        let expected = Snapshot {
            next: Position(covered),
            bytes: state.into_bytes(),
        };
        assert_eq!(load(&*ledger).await, Some(expected));
        let expected = Tail {
            next: Position(next),
            epoch: Epoch(round),
        };
        assert_eq!(tail(&*ledger).await, expected);
        // One snapshot behind: what follows the one before is there too.
        let before = covered.saturating_sub(10).max(1);
        assert_all(&*ledger, before, next).await;
    }
}

/// Reopening gives no position back.
pub async fn a_trimmed_position_stays_taken_after_reopening<S: DurableStand>(stand: &S) {
    let ledger = one(stand).await;
    fill(&*ledger, 1, 20, 2).await;
    for covered in [10, 21] {
        save(&*ledger, covered, b"state").await;
    }
    let ledger = stand.reopen(ledger).await;
    assert_eq!(tail(&*ledger).await.next, Position(21));
    assert_eq!(
        claim(&*ledger, Position(20), 2, b"late").await,
        Claim::Others
    );
    match read(&*ledger, Position(1), 1).await {
        Err(ReadError::Trimmed { first }) => assert!(first <= Position(10)),
        Ok(found) => assert!(
            found
                .iter()
                .all(|entry| entry.entry == text(entry.position.0))
        ),
        Err(error @ ReadError::Unavailable(_)) => panic!("{error}"),
    }
    let late = ledger.append(Position(1), Epoch(1), b"late".to_vec()).await;
    assert!(!matches!(late, Ok(crate::Appended::Appended)));
    assert_all(&*ledger, 10, 21).await;
    fill(&*ledger, 21, 5, 2).await;
}
