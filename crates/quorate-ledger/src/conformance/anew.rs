//! Beginning a log anew: the further rules of ledgers in stores of others.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::ids::{Epoch, Position};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::{
    Claim, Log, begin, claim, fill, load, read, read_all, save, tail, text, within_long,
};
use super::{InStore, Stand};
use crate::shared::BeginError;
use crate::{Appended, Ledger, ReadError, Tail};

async fn two<S: Stand>(stand: &S) -> [Arc<S::Ledger>; 2] {
    match stand.fresh(2).await.try_into() {
        Ok(two) => two,
        Err(_) => panic!("the stand gave other than two ledgers"),
    }
}

/// A log that has just begun is what it was told to be, for every client that has asked for its end.
async fn assert_begun<L: Ledger>(ledger: &L, log: &Log) {
    assert_eq!(tail(ledger).await, log.tail());
    assert!(load(ledger).await == Some(log.state()), "its snapshot");
    let found = read(ledger, Position(log.next), 10).await;
    assert!(matches!(&found, Ok(found) if found.is_empty()), "{found:?}");
    assert_given_up(ledger, log.next).await;
}

/// Nothing before a position is there.
async fn assert_given_up<L: Ledger>(ledger: &L, next: u64) {
    let before = [1, 2, 15, next / 2, next - 1].into_iter();
    for before in before.filter(|before| (1..next).contains(before)) {
        let found = read(ledger, Position(before), 10).await;
        assert!(
            matches!(&found, Err(ReadError::Trimmed { first }) if *first >= Position(next)),
            "{before}: {found:?}"
        );
    }
}

/// As every log lives.
async fn live_on<L: Ledger>(ledger: &L, next: u64) {
    fill(ledger, next, 20, 9).await;
    let expected = Tail {
        next: Position(next + 20),
        epoch: Epoch(9),
    };
    assert_eq!(tail(ledger).await, expected);
    for covered in [next + 8, next + 15, next + 20] {
        save(ledger, covered, format!("state {covered}").as_bytes()).await;
        let kept = load(ledger).await;
        assert_eq!(kept.map(|kept| kept.next), Some(Position(covered)));
    }
    let left = read_all(ledger, Position(next + 15), Position(next + 20)).await;
    assert_eq!(
        left.last().map(|last| last.entry.clone()),
        Some(text(next + 19))
    );
    assert_given_up(ledger, next).await;
    let late = ledger
        .append(Position(next), Epoch(1), b"late".to_vec())
        .await;
    assert!(!matches!(late, Ok(Appended::Appended)), "{late:?}");
    fill(ledger, next + 20, 5, 10).await;
}

/// A copy, or a backup that is restored.
pub async fn a_log_begins_in_an_empty_store_and_lives_on<S>(stand: &S)
where
    S: Stand,
    S::Ledger: InStore,
{
    for log in [Log::at(2, 1), Log::at(7 << 40, 7 << 40)] {
        let ledgers = two(stand).await;
        let begun = begin(&*ledgers[0], &log, None).await;
        assert!(begun.is_ok(), "{begun:?}");
        for ledger in &ledgers {
            assert_begun(&**ledger, &log).await;
        }
        let gap = ledgers[1].append(Position(log.next + 1), Epoch(9), b"gap".to_vec());
        assert!(gap.await.is_err(), "a gap came into being");
        live_on(&*ledgers[1], log.next).await;
    }
}

/// Whoever is wrong about what is there changes nothing.
pub async fn a_log_is_given_up_only_for_one_above_it_by_who_has_seen_its_end<S>(stand: &S)
where
    S: Stand,
    S::Ledger: InStore,
{
    let ledgers = two(stand).await;
    let [ledger, other] = &ledgers;
    let log = Log::at(1000, 5);
    let backwards = begin(&**ledger, &Log::at(1, 5), None).await;
    assert!(matches!(
        backwards,
        Err(BeginError::Backwards { free: Position(1) })
    ));
    let moved = begin(&**ledger, &log, Some(2)).await;
    assert!(matches!(
        moved,
        Err(BeginError::Moved { next: Position(1) })
    ));
    fill(&**ledger, 1, 20, 1).await;
    for entries in ["alone", "with a snapshot"] {
        let not_empty = begin(&**other, &log, None).await;
        assert!(matches!(not_empty, Err(BeginError::NotEmpty)), "{entries}");
        for seen in [1, 20, 22, 1000] {
            let moved = begin(&**other, &log, Some(seen)).await;
            assert!(
                matches!(moved, Err(BeginError::Moved { next: Position(21) })),
                "{entries}: {moved:?}"
            );
        }
        for next in [1, 20, 21] {
            let backwards = begin(&**other, &Log::at(next, 5), Some(21)).await;
            assert!(
                matches!(backwards, Err(BeginError::Backwards { free: Position(21) })),
                "{entries}: {backwards:?}"
            );
        }
        assert_eq!(tail(&**ledger).await.next, Position(21));
        let all = read_all(&**other, Position(10), Position(21)).await;
        assert_eq!(all.len(), 11);
        save(&**ledger, 10, b"state").await;
        assert_eq!(
            load(&**other).await.map(|kept| kept.bytes),
            Some(b"state".to_vec())
        );
    }
    let begun = begin(&**other, &log, Some(21)).await;
    assert!(begun.is_ok(), "{begun:?}");
    assert_begun(&**ledger, &log).await;
    // A log that was begun can be given up as well, before and after something is in it.
    for (next, seen) in [(2000, 1000), (3000, 2020)] {
        let log = Log::at(next, next);
        let moved = begin(&**ledger, &log, Some(21)).await;
        assert!(matches!(moved, Err(BeginError::Moved { .. })), "{moved:?}");
        let begun = begin(&**ledger, &log, Some(seen)).await;
        assert!(begun.is_ok(), "{begun:?}");
        for ledger in &ledgers {
            assert_begun(&**ledger, &log).await;
        }
        fill(&**other, next, 20, 9).await;
    }
    let log = Log::at(4000, 11);
    let begun = begin(&**ledger, &log, Some(3020)).await;
    assert!(begun.is_ok(), "{begun:?}");
    live_on(&**ledger, log.next).await;
}

/// Two people who do the same thing at once hear of each other.
pub async fn of_two_that_begin_at_once_one_does<S>(stand: &S)
where
    S: Stand,
    S::Ledger: InStore,
{
    let ledgers = two(stand).await;
    let mut seen = None;
    for round in 1..=4_u64 {
        let mut beginning = JoinSet::new();
        for (who, ledger) in (1..).zip(&ledgers) {
            let ledger = Arc::clone(ledger);
            // They differ in where they begin, or in their snapshots alone.
            let mut log = Log::at(round * 1000 + who * (round % 2), round);
            log.snapshot.push(u8::try_from(who).unwrap_or(0));
            beginning.spawn(async move {
                let begun = begin(&*ledger, &log, seen).await;
                (log, begun)
            });
        }
        let told = within_long("both", beginning.join_all()).await;
        let mut winners = Vec::new();
        for (log, begun) in told {
            match begun {
                Ok(()) => winners.push(log),
                Err(BeginError::NotEmpty) => assert_eq!(seen, None),
                Err(BeginError::Moved { .. }) => assert!(seen.is_some()),
                Err(error) => panic!("a begin was answered by {error}"),
            }
        }
        let [winner] = winners.as_slice() else {
            panic!("{} have begun it", winners.len())
        };
        for ledger in &ledgers {
            assert_begun(&**ledger, winner).await;
        }
        fill(&*ledgers[1], winner.next, 5, round).await;
        seen = Some(winner.next + 5);
    }
}

/// Whoever does not know what came of it asks again.
pub async fn the_same_begin_again_is_done_already<S>(stand: &S)
where
    S: Stand,
    S::Ledger: InStore,
{
    let ledgers = two(stand).await;
    let [ledger, other] = &ledgers;
    fill(&**ledger, 1, 5, 1).await;
    let log = Log::at(1000, 3);
    for _ in 0..3 {
        let begun = begin(&**ledger, &log, Some(6)).await;
        assert!(begun.is_ok(), "{begun:?}");
        assert_begun(&**other, &log).await;
    }
    // Another one is another one, whatever it has in common with it.
    let mut different = log.clone();
    different.snapshot.push(1);
    let mut later = log.clone();
    later.epoch = 4;
    for other in [different, later] {
        let begun = begin(&**ledger, &other, Some(6)).await;
        assert!(
            matches!(
                begun,
                Err(BeginError::Moved {
                    next: Position(1000)
                })
            ),
            "{begun:?}"
        );
    }
    fill(&**other, 1000, 5, 4).await;
    let begun = begin(&**ledger, &log, Some(6)).await;
    assert!(begun.is_ok(), "{begun:?}");
    assert_eq!(tail(&**other).await.next, Position(1005));
    // Its snapshot is no longer there, so that nobody can tell.
    save(&**other, 1003, b"state").await;
    let begun = begin(&**ledger, &log, Some(6)).await;
    assert!(
        matches!(
            begun,
            Err(BeginError::Moved {
                next: Position(1005)
            })
        ),
        "{begun:?}"
    );
    fill(&**other, 1005, 5, 4).await;
}

/// Whenever it ends, there is the old log or the new one, and the same call brings about the new one.
pub async fn a_begin_that_is_cut_short_leaves_one_log<S>(stand: &S)
where
    S: Stand,
    S::Ledger: InStore,
{
    let ledgers = two(stand).await;
    let [ledger, other] = &ledgers;
    let mut old = Log::at(1, 0);
    fill(&**ledger, 1, 20, 1).await;
    save(&**ledger, 15, &old.snapshot).await;
    old.next = 15;
    let mut seen = 21;
    for round in 1..=8_u64 {
        let log = Log::at(round * 1000, round);
        let (next, epoch) = (Position(log.next), Epoch(log.epoch));
        let begin_once = ledger.begin(next, epoch, log.snapshot.clone(), Some(Position(seen)));
        // From one at which nothing can have been done to one at which most has.
        let limit = Duration::from_micros(200 << round);
        drop(tokio::time::timeout(limit, begin_once).await);
        // What was cut short may be done at any moment, so all is looked at while the end stays.
        let (end, kept, last) = within_long("an end that stays", async {
            loop {
                let before = tail(&**other).await;
                let kept = load(&**other).await;
                let last = other.read(Position(seen - 1), 1).await;
                let told = last.as_ref().is_ok_and(|last| !last.is_empty());
                let gone = matches!(last, Err(ReadError::Trimmed { .. }));
                if (told || gone) && tail(&**other).await == before {
                    return (before, kept, last);
                }
            }
        })
        .await;
        if end.next == Position(seen) {
            assert!(kept == Some(old.state()), "the old log has its snapshot");
            let last = last.ok().and_then(|last| last.into_iter().next());
            assert_eq!(last.map(|last| last.entry), Some(text(seen - 1)));
        } else {
            assert_eq!(end, log.tail());
            assert!(kept == Some(log.state()), "the new log has its own");
            assert_given_up(&**other, log.next).await;
        }
        let begun = begin(&**ledger, &log, Some(seen)).await;
        assert!(begun.is_ok(), "{begun:?}");
        assert_begun(&**other, &log).await;
        fill(&**other, log.next, 3, 1).await;
        seen = log.next + 3;
        old = log;
    }
    live_on(&**other, seen).await;
}

/// It may have been on its way for long, and come from whoever knows nothing of the new log.
pub async fn an_append_of_the_old_log_never_lands<S>(stand: &S)
where
    S: Stand,
    S::Ledger: InStore,
{
    let ledgers = stand.fresh(3).await;
    let [ledger, busy, idle] = ledgers.as_slice() else {
        panic!("the stand gave other than three ledgers")
    };
    let mut old = 1;
    // Right above the old log, and far above it.
    for next in [42, 200, 10_000] {
        fill(&**busy, old, 20, 1).await;
        assert_eq!(tail(&**idle).await.next, Position(old + 20));
        if next == 200 {
            save(&**busy, old + 5, b"state").await;
            save(&**busy, old + 15, b"state").await;
        }
        let (last, seen) = (old + 19, old + 20);
        let log = Log::at(next.max(seen + 1), 7);
        let begun = begin(&**ledger, &log, Some(seen)).await;
        assert!(begun.is_ok(), "{begun:?}");
        for writer in [busy, idle, ledger, busy] {
            for at in [seen, seen + 1, last, last - 1, 1, log.next - 1] {
                if at >= log.next {
                    continue;
                }
                let late = writer
                    .append(Position(at), Epoch(1), b"late".to_vec())
                    .await;
                assert!(!matches!(late, Ok(Appended::Appended)), "{at}: {late:?}");
            }
        }
        for reader in &ledgers {
            assert_begun(&**reader, &log).await;
        }
        // Whoever was idle goes on in the new one at once.
        assert_eq!(
            claim(&**idle, Position(log.next), 8, b"new").await,
            Claim::Mine
        );
        fill(&**busy, log.next + 1, 3, 8).await;
        old = log.next + 4;
    }
    live_on(&**idle, old).await;
}

/// Appends as long as it can; the positions that it was told of.
async fn grow<L: Ledger>(ledger: &L, mut is_over: watch::Receiver<bool>) -> Vec<Position> {
    let mut told = Vec::new();
    let mut at = Position(1);
    within_long("the writer", async {
        loop {
            if at > Position(60) {
                // What comes now is late.
                drop(is_over.wait_for(|is_over| *is_over).await);
            }
            match ledger.append(at, Epoch(1), text(at.0)).await {
                Ok(Appended::Appended) => {
                    told.push(at);
                    at = at.next();
                }
                Ok(Appended::PositionTaken) => match read(ledger, at, 1).await {
                    Ok(found) if !found.is_empty() => at = at.next(),
                    Ok(_) => {}
                    Err(_) => return told,
                },
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
}

/// What somebody was told to be appended is not given up by who has not seen it.
pub async fn a_log_that_grows_is_not_given_up_unseen<S>(stand: &S)
where
    S: Stand,
    S::Ledger: InStore,
{
    let ledgers = two(stand).await;
    let [ledger, writer] = &ledgers;
    let (over, is_over) = watch::channel(false);
    let writing = tokio::spawn({
        let writer = Arc::clone(writer);
        async move { grow(&*writer, is_over).await }
    });
    let (seen, log) = within_long("a log that begins", async {
        loop {
            let seen = tail(&**ledger).await.next.0;
            let log = Log::at(seen + 1000, 7);
            match begin(&**ledger, &log, Some(seen)).await {
                Ok(()) => return (seen, log),
                Err(BeginError::Moved { next }) => assert!(next > Position(seen)),
                Err(error) => panic!("a begin was answered by {error}"),
            }
        }
    })
    .await;
    over.send_replace(true);
    let told = match within_long("the writer", writing).await {
        Ok(told) => told,
        Err(error) => panic!("the writer failed: {error}"),
    };
    assert!(
        told.iter().all(|at| *at < Position(seen)),
        "{told:?} {seen}"
    );
    assert_begun(&**ledger, &log).await;
    live_on(&**writer, log.next).await;
}
