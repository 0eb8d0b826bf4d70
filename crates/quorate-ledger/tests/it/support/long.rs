//! A log that is long, and what is left of it after another one has begun.

use quorate_core::ids::{ClusterId, Epoch, Position};
use quorate_ledger::Ledger as _;
use quorate_ledger::shared::SharedLedger;

use super::{entries, fill, next, text, within};

/// As many as a store of keys has in some hours.
pub(crate) const ENTRIES: u64 = 10_000;

/// What is in a store, by its own tools: keys or rows, each as `entries/7` or `parts/3` or `log/7` with numbers at the end.
pub(crate) type Left = Vec<(String, u64)>;

/// The keys below a prefix that have a number.
pub(crate) fn numbered<'a>(prefix: &str, keys: impl Iterator<Item = &'a str>) -> Left {
    let numbered = keys.filter_map(|key| {
        let key = key.strip_prefix(prefix)?.trim_start_matches('/');
        let (kind, name) = key.split_once('/')?;
        let number = name.split(['-', '/']).next()?;
        Some((kind.to_owned(), number.parse().ok()?))
    });
    let mut numbered: Left = numbered.collect();
    numbered.sort();
    numbered.dedup();
    numbered
}

fn of(left: &Left, kind: &str) -> Vec<u64> {
    let its = left.iter().filter(|(its, _)| its == kind);
    its.map(|(_, number)| *number).collect()
}

/// Fills the ledger, gives it up and lives on; nothing of the old log is in the store after that.
pub(crate) async fn is_given_up(
    ledger: &SharedLedger,
    entries_before: u64,
    look: impl AsyncFn() -> Left,
) {
    fill(ledger, 1..=entries_before).await;
    let (first, second) = (entries_before * 3 / 10, entries_before * 7 / 10);
    for covered in [first, second] {
        let saved = ledger.save_snapshot(Position(covered), vec![7; 700_000]);
        within("a snapshot", saved).await.expect("it is kept");
    }
    let left = of(&look().await, "entries");
    assert_eq!(left, (first..=entries_before).collect::<Vec<_>>());
    let begin = 5 << 40;
    let begun = ledger.begin(
        Position(begin),
        Epoch(begin),
        vec![8; 1_000_000],
        Some(Position(entries_before + 1)),
    );
    within("a begin", begun)
        .await
        .expect("nobody else is there");
    assert_eq!(next(ledger).await, begin);
    let late = ledger
        .append(Position(entries_before + 1), Epoch(1), text(1))
        .await;
    assert!(
        !matches!(late, Ok(quorate_ledger::Appended::Appended)),
        "{late:?}"
    );
    fill(ledger, begin..begin + 20).await;
    for covered in [begin + 10, begin + 20] {
        let saved = ledger.save_snapshot(Position(covered), vec![9; 700_000]);
        within("a snapshot", saved).await.expect("it is kept");
    }
    let left = look().await;
    assert_eq!(
        of(&left, "entries"),
        (begin + 10..begin + 20).collect::<Vec<_>>()
    );
    assert_eq!(of(&left, "parts"), [5]);
    let logs = of(&left, "log");
    assert!(logs.is_empty() || logs == [begin], "{logs:?}");
    assert_eq!(entries(ledger, begin + 19, 1).await, [text(begin + 19)]);
}

/// All that is done to a ledger beside what directors do all the time: it is claimed, its log is given up for another one,
/// and its cluster moves.
pub(crate) async fn begins_and_moves(ledger: &SharedLedger, seen: u64) {
    let cluster = ClusterId(7);
    let owner = within("a claim", ledger.claim(cluster)).await;
    assert_eq!(owner.expect("it answers").cluster, cluster);
    let (begin, seen) = (Position(seen + 100), Position(seen));
    let begun = ledger.begin(begin, Epoch(1), b"state".to_vec(), Some(seen));
    within("a begin", begun)
        .await
        .expect("nobody else is there");
    fill(ledger, begin.0..begin.0 + 3).await;
    let moved = ledger.mark_moved(cluster, "elsewhere");
    within("a move", moved).await.expect("it is theirs");
    let said = super::refusal(ledger, begin.0 + 3).await;
    assert!(said.contains("has moved to elsewhere"), "{said}");
}
