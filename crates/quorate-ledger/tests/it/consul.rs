//! The ledger in Consul. Debian has no Consul, so that the rules of every ledger run against one only where
//! `QUORATE_TEST_CONSUL` says where it is; everywhere they run against a server that does what Consul's documentation
//! says, and that keeps what it was asked, which is compared with what is documented.

mod documented;
mod exchanges;

use std::io::Write as _;
use std::sync::Arc;

use quorate_ledger::conformance::Stand;
use quorate_ledger::ledger_conformance;
use quorate_ledger::shared::SharedLedger;

use documented::Documented;

use crate::support::long;

/// Where a real Consul is: `host:port`, or a whole address without a prefix.
const VARIABLE: &str = "QUORATE_TEST_CONSUL";

/// One that nobody has used.
fn prefix() -> String {
    format!("test/{:016x}", rand::random::<u64>())
}

fn open(address: &str) -> SharedLedger {
    SharedLedger::open(&address.parse().expect("an address")).expect("it is fit")
}

/// A server as documented.
struct AsDocumented;

impl Stand for AsDocumented {
    type Ledger = SharedLedger;

    async fn fresh(&self, clients: usize) -> Vec<Arc<SharedLedger>> {
        let consul = Documented::start().await;
        let address = format!("consul://{}/{}", consul.host, prefix());
        let clients = (0..clients).map(|_| Arc::new(open(&address)));
        clients.collect()
    }
}

ledger_conformance!(in_store AsDocumented);

/// The real thing.
struct Consul {
    address: String,
}

impl Consul {
    /// `None`, which is said, where there is none. That is no failure, wherever that is.
    fn find() -> Option<Self> {
        let Ok(place) = std::env::var(VARIABLE) else {
            let thread = std::thread::current();
            let test = thread.name().unwrap_or_default();
            // Past the capture of output, which would show it for failed tests only.
            drop(writeln!(
                std::io::stderr(),
                "{test}: not run: {VARIABLE} does not say where a Consul is"
            ));
            return None;
        };
        let address = if place.contains("://") {
            place
        } else {
            format!("consul://{place}")
        };
        Some(Self { address })
    }
}

impl Stand for Consul {
    type Ledger = SharedLedger;

    async fn fresh(&self, clients: usize) -> Vec<Arc<SharedLedger>> {
        let (place, options) = match self.address.split_once('?') {
            Some((place, options)) => (place, format!("?{options}")),
            None => (self.address.as_str(), String::new()),
        };
        let address = format!("{}/{}{options}", place.trim_end_matches('/'), prefix());
        let clients = (0..clients).map(|_| Arc::new(open(&address)));
        clients.collect()
    }
}

mod on_a_real_one {
    use super::Consul;

    quorate_ledger::ledger_conformance!(in_store match Consul::find() {
        Some(consul) => consul,
        None => return,
    });
}

mod behind_a_bad_network {
    use quorate_ledger::faulty::{Faults, FaultyLedger};

    use super::{Arc, AsDocumented, SharedLedger, Stand};

    struct BadNetwork;

    impl Stand for BadNetwork {
        type Ledger = FaultyLedger<SharedLedger>;

        async fn fresh(&self, clients: usize) -> Vec<Arc<Self::Ledger>> {
            let within = AsDocumented.fresh(clients).await;
            (7..)
                .zip(within)
                .map(|(seed, ledger)| Arc::new(FaultyLedger::new(ledger, Faults::rough(), seed)))
                .collect()
        }
    }

    quorate_ledger::ledger_conformance!(in_store BadNetwork);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_long_log_is_left_after_another_one_has_begun() {
    let (consul, prefix) = (Documented::start().await, prefix());
    let ledger = open(&format!("consul://{}/{prefix}", consul.host));
    // The stand-in looks through everything that it has for each call.
    long::is_given_up(&ledger, 600, async || {
        let keys = consul.keys();
        long::numbered(&prefix, keys.iter().map(String::as_str))
    })
    .await;
}
