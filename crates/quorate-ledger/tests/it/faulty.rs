//! The rules hold over a bad network too, and the bad network is really bad.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::ids::{Epoch, Position};
use quorate_ledger::conformance::Stand;
use quorate_ledger::faulty::{Faults, FaultyLedger};
use quorate_ledger::memory::MemoryLedger;
use quorate_ledger::{AppendError, Appended, Ledger, ledger_conformance};

/// One store in memory behind a bad network for each client.
struct BadNetwork {
    seed: u64,
}

impl Stand for BadNetwork {
    type Ledger = FaultyLedger<MemoryLedger>;

    async fn fresh(&self, clients: usize) -> Vec<Arc<Self::Ledger>> {
        let store = Arc::new(MemoryLedger::new());
        (self.seed..)
            .take(clients)
            .map(|seed| {
                let within = Arc::clone(&store);
                Arc::new(FaultyLedger::new(within, Faults::rough(), seed))
            })
            .collect()
    }
}

ledger_conformance!(BadNetwork { seed: 1 });

mod another_seed {
    use super::BadNetwork;

    quorate_ledger::ledger_conformance!(BadNetwork { seed: 424_242 });
}

fn only(change: impl FnOnce(&mut Faults)) -> Faults {
    let mut faults = Faults {
        refused: 0,
        lost: 0,
        late: 0,
        repeated: 0,
        shortened: 0,
        hint_lost: 0,
        delay_max: Duration::ZERO,
        late_max: Duration::from_millis(5),
    };
    change(&mut faults);
    faults
}

#[tokio::test]
async fn a_lost_answer_is_an_unknown_outcome_of_an_entry_that_is_there() {
    let store = Arc::new(MemoryLedger::new());
    let faulty = FaultyLedger::new(Arc::clone(&store), only(|faults| faults.lost = 1000), 1);
    let answer = faulty.append(Position(1), Epoch(1), b"a".to_vec()).await;
    assert!(matches!(answer, Err(AppendError::OutcomeUnknown { .. })));
    assert_eq!(store.tail().await.unwrap().next, Position(2));
}

#[tokio::test]
async fn a_late_append_lands_after_its_unknown_outcome() {
    let store = Arc::new(MemoryLedger::new());
    let faulty = FaultyLedger::new(Arc::clone(&store), only(|faults| faults.late = 1000), 1);
    let answer = faulty.append(Position(1), Epoch(1), b"a".to_vec()).await;
    assert!(matches!(answer, Err(AppendError::OutcomeUnknown { .. })));
    assert_eq!(store.tail().await.unwrap().next, Position(1));
    faulty.settled().await;
    assert_eq!(store.tail().await.unwrap().next, Position(2));
}

#[tokio::test]
async fn a_repeated_append_finds_its_own_entry_and_a_refused_one_writes_nothing() {
    let store = Arc::new(MemoryLedger::new());
    let faults = only(|faults| faults.repeated = 1000);
    let repeated = FaultyLedger::new(Arc::clone(&store), faults, 1);
    let answer = repeated.append(Position(1), Epoch(1), b"a".to_vec()).await;
    assert_eq!(answer.unwrap(), Appended::PositionTaken);
    let refused = FaultyLedger::new(Arc::clone(&store), only(|faults| faults.refused = 1000), 1);
    let answer = refused.append(Position(2), Epoch(1), b"b".to_vec()).await;
    assert!(matches!(answer, Err(AppendError::Refused { .. })));
    assert_eq!(store.tail().await.unwrap().next, Position(2));
    assert!(refused.tail().await.is_err());
}
