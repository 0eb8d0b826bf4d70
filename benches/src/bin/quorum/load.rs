//! The process of the agents: many sessions, each with a connection of its own, which renew as an agent does.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_api::client::{Client, Options};
use quorate_api::session::{RegisterRequest, SessionOpened};
use quorate_benches::renewing::{AGAIN_AFTER, ANSWER_WITHIN, Counts, Tally, renew};
use quorate_pki::{ClientTls, Papers, Trust};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

/// Sessions that make their first connection at the same time.
const CONNECTING: usize = 32;

/// What this process is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The authority's certificate, as PEM.
    pub(crate) trust: String,
    /// Certificate and key of an agent, as PEM. Every connection shows them.
    pub(crate) papers: String,
    /// Token of an admin, who may register agents of any name.
    pub(crate) token: String,
    /// Lease of the sessions, in milliseconds.
    pub(crate) lease_ms: u64,
    /// How many sessions there are.
    pub(crate) sessions: u64,
    /// Directors in the order in which they are asked. The sessions take one of these orders after the other.
    pub(crate) orders: Vec<Vec<String>>,
}

/// What this process has seen since it was last asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Sessions that were registered, since the process started.
    pub(crate) connected: u64,
    /// What has become of renewals.
    pub(crate) counts: Counts,
}

#[derive(Debug, Default)]
struct Here {
    connected: AtomicU64,
    tally: Tally,
}

/// Renews until standard input ends; answers each line on it with what was counted since the one before.
pub(crate) async fn run(file: &Path) -> anyhow::Result<()> {
    let plan: Plan = serde_json::from_slice(&std::fs::read(file)?)?;
    let trust = Trust::from_pem(&plan.trust)?;
    let tls = ClientTls::new(&trust, Some(&Papers::from_pem(&plan.papers)?))?;
    let here = Arc::new(Here::default());
    let connecting = Arc::new(Semaphore::new(CONNECTING));
    for (n, order) in (1..=plan.sessions).zip(plan.orders.iter().cycle()) {
        let options = Options {
            token: Some(plan.token.clone()),
            tls: Some(tls.config()),
            call_time: ANSWER_WITHIN,
            leader_time: Duration::ZERO,
            ..Options::default()
        };
        let client = Client::with(order.clone(), options)?;
        let (here, connecting) = (Arc::clone(&here), Arc::clone(&connecting));
        let lease_ms = plan.lease_ms;
        tokio::spawn(async move {
            let connecting = connecting.acquire_owned().await;
            let (opened, secret) = open(&client, n, lease_ms, &here.tally).await;
            here.connected.fetch_add(1, Ordering::Relaxed);
            drop(connecting);
            renew(&client, &opened, &secret, &here.tally).await;
        });
    }
    tokio::task::spawn_blocking(move || answer(&here)).await?
}

fn answer(here: &Here) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    for line in std::io::stdin().lines() {
        line?;
        let seen = Seen {
            connected: here.connected.load(Ordering::Relaxed),
            counts: here.tally.take(),
        };
        writeln!(out, "{}", serde_json::to_string(&seen)?)?;
        out.flush()?;
    }
    Ok(())
}

/// Registers until it is done.
async fn open(client: &Client, n: u64, lease_ms: u64, tally: &Tally) -> (SessionOpened, String) {
    let secret = format!("{n:064x}");
    let request = RegisterRequest {
        agent: format!("a{n:05}"),
        agent_id: n,
        boot_id: format!("boot-{n}"),
        machine_id: format!("machine-{n}"),
        folder: n,
        labels: BTreeMap::new(),
        capacity: None,
        containment: String::from("kernel"),
        lease_ms,
        secret: secret.clone(),
        process: n,
        version: String::from("bench"),
    };
    loop {
        match client.register(&request).await {
            Ok(opened) => return (opened, secret),
            Err(cause) => {
                tally.failed(&cause);
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }
}
