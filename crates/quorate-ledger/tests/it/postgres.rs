//! The ledger in `PostgreSQL` keeps the rules of every ledger: at a server, behind a pooler, behind a bad network, and
//! with a synchronous standby.

mod faults;
mod limits;

use std::sync::{Arc, Mutex, MutexGuard, Weak};

use quorate_ledger::conformance::{DurableStand, Stand};
use quorate_ledger::ledger_conformance;
use quorate_ledger::shared::SharedLedger;
use quorate_servers::postgres::{Following, Pooler, Postgres, is_installed};

use crate::support::{Kept, fresh, long, open_at};

/// The address of a schema of a server.
fn address(port: u16, schema: &str) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/quorate?schema={schema}")
}

fn schema() -> String {
    format!("q{}", fresh())
}

/// One server for all tests; its port.
fn single() -> Option<Arc<Kept<u16>>> {
    static NOW: Mutex<Weak<Kept<u16>>> = Mutex::new(Weak::new());
    is_installed().then(|| {
        Kept::shared(&NOW, || {
            let server = Postgres::start().expect("it is installed");
            let server = server.expect("it comes up");
            let port = server.port();
            (server, port)
        })
    })
}

/// A server behind a pooler; the port of that.
fn pooled() -> Option<Arc<Kept<u16>>> {
    static NOW: Mutex<Weak<Kept<u16>>> = Mutex::new(Weak::new());
    (is_installed() && Pooler::is_installed()).then(|| {
        Kept::shared(&NOW, || {
            let server = Postgres::start().expect("it is installed");
            let server = server.expect("it comes up");
            let pooler = Pooler::start(&server).expect("it is installed");
            let pooler = pooler.expect("it comes up");
            let port = pooler.port();
            ((pooler, server), port)
        })
    })
}

/// A server with a standby that is waited for.
fn followed() -> Option<Arc<Kept<u16>>> {
    static NOW: Mutex<Weak<Kept<u16>>> = Mutex::new(Weak::new());
    is_installed().then(|| {
        Kept::shared(&NOW, || {
            let server = Postgres::start().expect("it is installed");
            let server = server.expect("it comes up");
            let standby = server.standby(Following::Synchronous);
            let standby = standby.expect("it follows");
            let port = server.port();
            ((server, standby), port)
        })
    })
}

/// A schema for each ledger.
struct Schemas(Arc<Kept<u16>>);

impl Stand for Schemas {
    type Ledger = SharedLedger;

    async fn fresh(&self, clients: usize) -> Vec<Arc<SharedLedger>> {
        let address = address(self.0.told, &schema());
        (0..clients).map(|_| Arc::new(open_at(&address))).collect()
    }
}

ledger_conformance!(in_store match single() {
    Some(kept) => Schemas(kept),
    None => return,
});

mod behind_a_pooler {
    use super::{Schemas, pooled};

    quorate_ledger::ledger_conformance!(in_store match pooled() {
        Some(kept) => Schemas(kept),
        None => return,
    });
}

mod with_a_synchronous_standby {
    use super::{Schemas, followed};

    quorate_ledger::ledger_conformance!(in_store match followed() {
        Some(kept) => Schemas(kept),
        None => return,
    });
}

mod behind_a_bad_network {
    use quorate_ledger::conformance::BadNetwork;

    use super::{Schemas, single};

    quorate_ledger::ledger_conformance!(in_store match single() {
        Some(kept) => BadNetwork(Schemas(kept)),
        None => return,
    });
}

/// A server of its own, which is killed and started again.
struct OnDisk(Mutex<Postgres>);

impl OnDisk {
    fn server(&self) -> MutexGuard<'_, Postgres> {
        self.0.lock().expect("nobody failed with it")
    }

    fn open(&self) -> Arc<SharedLedger> {
        Arc::new(open_at(&address(self.server().port(), "quorate")))
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
        tokio::task::block_in_place(|| {
            let mut server = self.server();
            server.kill().expect("it runs");
            server.start_again().expect("it starts again");
        });
        self.open()
    }
}

ledger_conformance!(durable match Postgres::start() {
    Some(server) => OnDisk(Mutex::new(server.expect("it comes up"))),
    None => return,
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_long_log_is_left_after_another_one_has_begun() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let server = server.expect("it comes up");
    let ledger = open_at(&address(server.port(), "quorate"));
    long::is_given_up(&ledger, long::ENTRIES, async || {
        let rows = "select 'entries/' || position from quorate.entries \
                    union select 'parts/' || serial from quorate.parts";
        let rows = tokio::task::block_in_place(|| server.sql("quorate", rows));
        long::numbered("", rows.expect("it answers").lines())
    })
    .await;
}
