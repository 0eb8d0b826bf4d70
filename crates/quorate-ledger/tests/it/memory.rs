//! The ledger in memory keeps the rules of every ledger.

use std::sync::Arc;

use quorate_ledger::conformance::Stand;
use quorate_ledger::ledger_conformance;
use quorate_ledger::memory::MemoryLedger;

struct InMemory;

impl Stand for InMemory {
    type Ledger = MemoryLedger;

    async fn fresh(&self, clients: usize) -> Vec<Arc<MemoryLedger>> {
        let store = MemoryLedger::new();
        (0..clients).map(|_| Arc::new(store.clone())).collect()
    }
}

ledger_conformance!(InMemory);
