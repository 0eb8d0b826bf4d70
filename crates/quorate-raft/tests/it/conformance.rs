//! The embedded ledger keeps the rules of every ledger, alone and behind a bad network.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use quorate_ledger::conformance::{DurableStand, Stand};
use quorate_ledger::ledger_conformance;
use quorate_raft::Embedded;
use tempfile::TempDir;

use crate::support::{folder, open};

/// Folders by the identity of their director.
#[derive(Default)]
struct OnDisk {
    folders: Mutex<BTreeMap<u64, TempDir>>,
}

impl Stand for OnDisk {
    type Ledger = Embedded;

    async fn fresh(&self, clients: usize) -> Vec<Arc<Embedded>> {
        let folder = folder();
        let ledger = Arc::new(open(folder.path()).await.expect("it opens"));
        let mut folders = self.folders.lock().unwrap();
        folders.insert(ledger.node_id(), folder);
        vec![ledger; clients]
    }
}

impl DurableStand for OnDisk {
    async fn reopen(&self, ledger: Arc<Embedded>) -> Arc<Embedded> {
        ledger.shutdown().await;
        let dir = {
            let folders = self.folders.lock().unwrap();
            folders[&ledger.node_id()].path().to_owned()
        };
        drop(ledger);
        Arc::new(open(&dir).await.expect("it opens again"))
    }
}

ledger_conformance!(OnDisk::default());
ledger_conformance!(durable OnDisk::default());

mod behind_a_bad_network {
    use quorate_ledger::conformance::BadNetwork;

    use super::OnDisk;

    super::ledger_conformance!(BadNetwork(OnDisk::default()));
}
