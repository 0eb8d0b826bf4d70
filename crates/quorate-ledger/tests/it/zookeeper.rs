//! The ledger in `ZooKeeper` keeps the rules of every ledger: on one server, on three, and behind a bad network.

mod access;
mod faults;
mod support;

use std::sync::{Arc, Mutex};

use quorate_ledger::conformance::{DurableStand, Stand};
use quorate_ledger::ledger_conformance;
use quorate_ledger::shared::SharedLedger;
use quorate_servers::zookeeper::ZookeeperCluster;

use support::{Members, ensemble, eventually, first, lock, open, prefix, single};

use crate::support::long;

/// Servers that all tests share, a prefix for each ledger, and a server for each client in turn.
struct Servers(Arc<Members>);

impl Stand for Servers {
    type Ledger = SharedLedger;

    async fn fresh(&self, clients: usize) -> Vec<Arc<SharedLedger>> {
        let prefix = prefix();
        let hosts = self.0.told.iter().cycle().take(clients);
        hosts.map(|host| Arc::new(open(host, &prefix))).collect()
    }
}

ledger_conformance!(in_store match single() {
    Some(kept) => Servers(kept),
    None => return,
});

mod on_three_servers {
    use super::{Servers, ensemble};

    quorate_ledger::ledger_conformance!(in_store match ensemble() {
        Some(kept) => Servers(kept),
        None => return,
    });
}

mod behind_a_bad_network {
    use quorate_ledger::conformance::BadNetwork;

    use super::{Servers, single};

    quorate_ledger::ledger_conformance!(in_store match single() {
        Some(kept) => BadNetwork(Servers(kept)),
        None => return,
    });
}

/// A server of its own, which is killed and started again.
struct OnDisk {
    server: Mutex<ZookeeperCluster>,
    prefix: String,
}

impl OnDisk {
    fn start() -> Option<Self> {
        Some(Self {
            server: Mutex::new(ZookeeperCluster::start(1).expect("it comes up")?),
            prefix: prefix(),
        })
    }

    fn open(&self) -> Arc<SharedLedger> {
        Arc::new(open(&lock(&self.server).hosts(), &self.prefix))
    }
}

impl Stand for OnDisk {
    type Ledger = SharedLedger;

    async fn fresh(&self, clients: usize) -> Vec<Arc<SharedLedger>> {
        (0..clients).map(|_| self.open()).collect()
    }
}

impl DurableStand for OnDisk {
    async fn reopen(&self, ledger: Arc<SharedLedger>) -> Arc<SharedLedger> {
        drop(ledger);
        {
            let mut server = lock(&self.server);
            server.kill(0).expect("it runs");
            server.restart(0).expect("it starts again");
        }
        eventually("the server", || lock(&self.server).serves(0)).await;
        self.open()
    }
}

ledger_conformance!(durable match OnDisk::start() {
    Some(stand) => stand,
    None => return,
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_long_log_is_left_after_another_one_has_begun() {
    let Some(kept) = single() else { return };
    let (host, prefix) = (first(&kept), prefix());
    let ledger = open(host, &prefix);
    let others = zookeeper_client::Client::connect(host)
        .await
        .expect("it serves");
    long::is_given_up(&ledger, long::ENTRIES, async || {
        let mut keys = Vec::new();
        for folder in ["entries", "log", "parts"] {
            let path = format!("/{prefix}/{folder}");
            let names = others.list_children(&path).await.expect("it serves");
            keys.extend(names.into_iter().map(|name| format!("{folder}/{name}")));
        }
        long::numbered("", keys.iter().map(String::as_str))
    })
    .await;
}
