//! The rules of every ledger.

use std::sync::Arc;

use quorate_core::ids::{Epoch, Position};
use quorate_core::record::ENTRY_BYTES_MAX;

use super::Stand;
use super::client::{Claim, claim, fill, load, read, read_all, save, tail, text, within};
use crate::{AppendError, Appended, Ledger, READ_BYTES_MAX, ReadError, Snapshot, Tail};

async fn one<S: Stand>(stand: &S) -> Arc<S::Ledger> {
    match stand.fresh(1).await.pop() {
        Some(ledger) => ledger,
        None => panic!("the stand gave no ledger"),
    }
}

/// Nothing is there at first.
pub async fn an_empty_ledger_begins_at_position_one<S: Stand>(stand: &S) {
    let ledger = one(stand).await;
    let empty = Tail {
        next: Position(1),
        epoch: Epoch(0),
    };
    assert_eq!(tail(&*ledger).await, empty);
    assert!(matches!(read(&*ledger, Position(1), 10).await, Ok(found) if found.is_empty()));
    assert_eq!(load(&*ledger).await, None);
}

/// Positions are taken one after the other, and each once.
pub async fn an_entry_is_appended_only_at_the_first_free_position<S: Stand>(stand: &S) {
    let ledger = one(stand).await;
    for position in 1..=5 {
        fill(&*ledger, position, 1, 1).await;
        assert_eq!(tail(&*ledger).await.next, Position(position + 1));
        let again = claim(&*ledger, Position(position), 1, b"again").await;
        assert_eq!(again, Claim::Others, "position {position} was taken twice");
    }
}

/// A gap cannot come into being, whatever is asked.
pub async fn an_entry_never_follows_a_free_position<S: Stand>(stand: &S) {
    let ledger = one(stand).await;
    fill(&*ledger, 1, 1, 1).await;
    for at in [3, 4, 100] {
        let answer = within("an append", async {
            ledger.append(Position(at), Epoch(1), b"gap".to_vec()).await
        })
        .await;
        assert!(
            matches!(
                answer,
                Err(AppendError::Refused { .. } | AppendError::OutcomeUnknown { .. })
            ),
            "an append at {at} with a free position before it was answered by {answer:?}"
        );
    }
    assert_eq!(tail(&*ledger).await.next, Position(2));
    assert!(matches!(read(&*ledger, Position(2), 10).await, Ok(found) if found.is_empty()));
}

/// The first entry of a position stays, byte for byte.
pub async fn a_taken_position_keeps_its_entry<S: Stand>(stand: &S) {
    let ledger = one(stand).await;
    let binary: Vec<u8> = (0..=255).collect();
    assert_eq!(claim(&*ledger, Position(1), 1, &binary).await, Claim::Mine);
    assert_eq!(
        claim(&*ledger, Position(1), 2, b"other").await,
        Claim::Others
    );
    assert_eq!(claim(&*ledger, Position(1), 1, &binary).await, Claim::Mine);
    let found = read_all(&*ledger, Position(1), Position(2)).await;
    assert_eq!(found.first().map(|first| first.entry.clone()), Some(binary));
    assert_eq!(tail(&*ledger).await.next, Position(2));
}

/// The limit of an entry is the same everywhere, so that a ledger can be copied to another.
pub async fn an_entry_of_the_largest_size_is_kept_and_a_larger_one_is_refused<S: Stand>(stand: &S) {
    let ledger = one(stand).await;
    let largest = vec![7; ENTRY_BYTES_MAX];
    assert_eq!(claim(&*ledger, Position(1), 1, &largest).await, Claim::Mine);
    let larger = vec![7; ENTRY_BYTES_MAX + 1];
    let answer = ledger.append(Position(2), Epoch(1), larger).await;
    assert!(
        answer.is_err(),
        "an entry that is too large was answered by {answer:?}"
    );
    assert_eq!(tail(&*ledger).await.next, Position(2));
    let found = read_all(&*ledger, Position(1), Position(2)).await;
    assert!(found.first().is_some_and(|first| first.entry == largest));
    assert_eq!(
        claim(&*ledger, Position(2), 1, b"").await,
        Claim::Mine,
        "an empty entry is one"
    );
}

/// However many want a position, one has it and all know which.
pub async fn many_writers_of_one_position_have_one_winner<S: Stand>(stand: &S) {
    const WRITERS: usize = 8;
    let ledgers = stand.fresh(WRITERS).await;
    for position in 1..=10 {
        let mut tasks = tokio::task::JoinSet::new();
        for (writer, ledger) in ledgers.iter().enumerate() {
            let ledger = Arc::clone(ledger);
            let entry = format!("writer {writer} at {position}").into_bytes();
            tasks.spawn(async move {
                let claim = claim(&*ledger, Position(position), 1, &entry).await;
                (claim, entry)
            });
        }
        let mut winners = Vec::new();
        while let Some(done) = tasks.join_next().await {
            match done {
                Ok((Claim::Mine, entry)) => winners.push(entry),
                Ok((Claim::Others, _)) => {}
                Err(error) => panic!("a writer failed: {error}"),
            }
        }
        assert_eq!(winners.len(), 1, "position {position} has one winner");
        for ledger in &ledgers {
            let found = read_all(&**ledger, Position(position), Position(position + 1)).await;
            assert_eq!(
                found.first().map(|first| &first.entry),
                winners.first(),
                "every client reads the winner"
            );
        }
    }
}

/// R5 rests on this: who begins to ask for the tail after an answer sees what was answered.
pub async fn a_tail_shows_every_append_that_was_answered_before_it_began<S: Stand>(stand: &S) {
    let ledgers = stand.fresh(3).await;
    for position in 1..=30_u64 {
        let writer = usize::try_from(position).unwrap_or(0) % ledgers.len();
        for (at, ledger) in ledgers.iter().enumerate() {
            if at == writer {
                fill(&**ledger, position, 1, position).await;
            }
        }
        for ledger in &ledgers {
            let seen = tail(&**ledger).await;
            let expected = Tail {
                next: Position(position + 1),
                epoch: Epoch(position),
            };
            assert_eq!(seen, expected);
        }
    }
}

/// The tail's epoch is that of the entry before it, trimmed entries or not.
pub async fn a_tail_tells_the_epoch_of_the_last_entry<S: Stand>(stand: &S) {
    let ledger = one(stand).await;
    for (position, epoch) in [(1, 1), (2, 1), (3, 7), (4, 5), (5, u64::from(u32::MAX) + 9)] {
        fill(&*ledger, position, 1, epoch).await;
        assert_eq!(tail(&*ledger).await.epoch, Epoch(epoch));
    }
    for next in [3, 6] {
        save(&*ledger, next, b"state").await;
        assert_eq!(tail(&*ledger).await.epoch, Epoch(u64::from(u32::MAX) + 9));
    }
}

/// A read never leaves anything out and never tells more than was asked for.
pub async fn reads_are_contiguous_and_keep_their_limit<S: Stand>(stand: &S) {
    let ledger = one(stand).await;
    fill(&*ledger, 1, 25, 1).await;
    for (from, limit) in [(1, 1), (1, 10), (7, 3), (20, 100), (25, 1), (0, 5), (3, 0)] {
        let found = match read(&*ledger, Position(from), limit).await {
            Ok(found) => found,
            Err(error) => panic!("a read from {from} was answered by {error}"),
        };
        assert!(
            found.len() <= limit,
            "a read from {from} told more than {limit}"
        );
        assert_eq!(
            found.is_empty(),
            limit == 0,
            "a read from {from} told nothing"
        );
        for (expected, committed) in (from.max(1)..).zip(&found) {
            assert_eq!(committed.position, Position(expected));
            assert_eq!(committed.entry, text(expected));
        }
    }
    assert_eq!(
        read_all(&*ledger, Position(1), Position(26)).await.len(),
        25
    );
}

/// The tail is no error.
pub async fn a_read_beyond_the_tail_is_empty<S: Stand>(stand: &S) {
    let ledger = one(stand).await;
    fill(&*ledger, 1, 3, 1).await;
    for from in [4, 5, 1000, u64::MAX - 1] {
        assert!(
            matches!(read(&*ledger, Position(from), 10).await, Ok(found) if found.is_empty()),
            "a read from {from} is empty"
        );
    }
}

/// Whoever reads needs a bound for its memory.
pub async fn a_read_stays_within_about_a_mebibyte<S: Stand>(stand: &S) {
    let ledger = one(stand).await;
    for position in 1..=6 {
        let entry = vec![u8::try_from(position).unwrap_or(0); ENTRY_BYTES_MAX];
        assert_eq!(
            claim(&*ledger, Position(position), 1, &entry).await,
            Claim::Mine
        );
    }
    let found = match read(&*ledger, Position(1), 1000).await {
        Ok(found) => found,
        Err(error) => panic!("the read was answered by {error}"),
    };
    let bytes: usize = found.iter().map(|committed| committed.entry.len()).sum();
    assert!(!found.is_empty());
    assert!(
        bytes <= READ_BYTES_MAX + ENTRY_BYTES_MAX,
        "{bytes} bytes at once"
    );
    assert_eq!(read_all(&*ledger, Position(1), Position(7)).await.len(), 6);
}

/// The pointer to the snapshot moves forward only.
pub async fn the_newest_snapshot_is_kept_and_never_goes_back<S: Stand>(stand: &S) {
    let ledger = one(stand).await;
    fill(&*ledger, 1, 10, 1).await;
    for (next, kept) in [(4, 4), (8, 8), (5, 8), (8, 8), (11, 11), (1, 11)] {
        save(&*ledger, next, format!("state before {next}").as_bytes()).await;
        let expected = Snapshot {
            next: Position(kept),
            bytes: format!("state before {kept}").into_bytes(),
        };
        assert_eq!(
            load(&*ledger).await,
            Some(expected),
            "after one up to {next}"
        );
    }
}

/// A snapshot from another history, or from the future, would be a lie.
pub async fn a_snapshot_of_entries_that_are_not_there_is_not_kept<S: Stand>(stand: &S) {
    let ledger = one(stand).await;
    fill(&*ledger, 1, 3, 1).await;
    save(&*ledger, 3, b"state").await;
    let saved = ledger.save_snapshot(Position(6), b"future".to_vec()).await;
    assert!(saved.is_err(), "a snapshot of the future was kept");
    let kept = load(&*ledger).await;
    assert_eq!(kept.map(|snapshot| snapshot.next), Some(Position(3)));
    fill(&*ledger, 4, 1, 1).await;
}

/// Who loaded the snapshot before finds all that follows it.
pub async fn trimming_stays_one_snapshot_behind<S: Stand>(stand: &S) {
    let ledger = one(stand).await;
    fill(&*ledger, 1, 20, 1).await;
    save(&*ledger, 6, b"first").await;
    assert_eq!(
        read_all(&*ledger, Position(1), Position(21)).await.len(),
        20
    );
    save(&*ledger, 16, b"second").await;
    let left = read_all(&*ledger, Position(6), Position(21)).await;
    assert_eq!(left.len(), 15);
    assert_eq!(left.first().map(|first| first.entry.clone()), Some(text(6)));
}

/// A reader that lags behind learns that it needs the snapshot, and never reads a wrong entry.
pub async fn a_read_of_a_trimmed_position_says_what_is_left<S: Stand>(stand: &S) {
    let ledger = one(stand).await;
    fill(&*ledger, 1, 20, 1).await;
    for next in [5, 10, 15] {
        save(&*ledger, next, b"state").await;
    }
    within("the trimming", async {
        loop {
            match read(&*ledger, Position(1), 5).await {
                Err(ReadError::Trimmed { first }) => {
                    assert!(
                        first > Position(1) && first <= Position(10),
                        "{first} is left"
                    );
                    let left = read_all(&*ledger, first, Position(21)).await;
                    assert_eq!(
                        left.first().map(|entry| entry.entry.clone()),
                        Some(text(first.0))
                    );
                    return;
                }
                Ok(found) => {
                    let first = found.first().map(|first| first.entry.clone());
                    assert_eq!(first, Some(text(1)), "not trimmed yet, so it is the entry");
                }
                Err(error @ ReadError::Unavailable(_)) => panic!("{error}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// The next append needs its predecessor, so it stays even when all is in snapshots.
pub async fn the_last_entry_is_never_trimmed<S: Stand>(stand: &S) {
    let ledger = one(stand).await;
    fill(&*ledger, 1, 10, 3).await;
    save(&*ledger, 11, b"all").await;
    save(&*ledger, 11, b"all again").await;
    let last = read_all(&*ledger, Position(10), Position(11)).await;
    assert_eq!(last.first().map(|last| last.entry.clone()), Some(text(10)));
    fill(&*ledger, 11, 1, 3).await;
    save(&*ledger, 12, b"all").await;
    let last = read_all(&*ledger, Position(11), Position(12)).await;
    assert_eq!(last.first().map(|last| last.entry.clone()), Some(text(11)));
    fill(&*ledger, 12, 1, 4).await;
    let expected = Tail {
        next: Position(13),
        epoch: Epoch(4),
    };
    assert_eq!(tail(&*ledger).await, expected);
}

/// An append of unknown outcome may arrive after everything else; by then its position must not look
/// free.
pub async fn a_late_append_does_not_land_at_a_trimmed_position<S: Stand>(stand: &S) {
    let ledger = one(stand).await;
    fill(&*ledger, 1, 20, 1).await;
    for next in [8, 15, 21] {
        save(&*ledger, next, b"state").await;
    }
    for at in [1, 2, 7, 14, 19] {
        let answer = ledger
            .append(Position(at), Epoch(1), b"late".to_vec())
            .await;
        assert!(
            !matches!(answer, Ok(Appended::Appended)),
            "a late append landed at {at}"
        );
    }
    assert_eq!(tail(&*ledger).await.next, Position(21));
    match read(&*ledger, Position(1), 1).await {
        Err(ReadError::Trimmed { .. }) => {}
        Ok(found) => assert!(
            found
                .iter()
                .all(|entry| entry.entry == text(entry.position.0))
        ),
        Err(error @ ReadError::Unavailable(_)) => panic!("{error}"),
    }
    let left = read_all(&*ledger, Position(15), Position(21)).await;
    assert!(
        left.iter()
            .all(|entry| entry.entry == text(entry.position.0))
    );
}

/// Hints may be lost, but not all of them, and none names a position that is free.
pub async fn a_hint_tells_that_something_was_appended<S: Stand>(stand: &S) {
    let ledger = one(stand).await;
    let mut hints = ledger.hints();
    within("a hint", async {
        for position in 1.. {
            fill(&*ledger, position, 1, 1).await;
            let pause = std::time::Duration::from_millis(50);
            if tokio::time::timeout(pause, hints.changed()).await.is_ok() {
                let occupied = hints.borrow_and_update().occupied;
                assert!(
                    occupied <= Position(position),
                    "position {occupied} is still free"
                );
                if occupied > Position(0) {
                    return;
                }
            }
        }
    })
    .await;
}
