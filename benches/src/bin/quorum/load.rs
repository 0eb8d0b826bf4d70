//! The process of the agents: many sessions, each with a connection of its own, which renew as an agent does
//! (a second for each answer, a quarter of a second until the next try, all directors in turn).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quorate_api::client::{Client, Options};
use quorate_api::session::{RegisterRequest, RenewRequest, SessionOpened};
use quorate_pki::{ClientTls, Papers, Trust};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

/// As an agent has it.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
const AGAIN_AFTER: Duration = Duration::from_millis(250);
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
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Sessions that were registered, since the process started.
    pub(crate) connected: u64,
    /// Renewals that were answered.
    pub(crate) renewed: u64,
    /// Tries that came to nothing; each is tried again.
    pub(crate) failed: u64,
    /// Renewals that took longer than the time between two, with all their tries.
    pub(crate) late: u64,
    /// Renewals whose answer came when the lease was over: what runs would have been stopped.
    pub(crate) beyond: u64,
    /// Sessions that the directors have ended.
    pub(crate) lost: u64,
    /// The longest time from the sending of a renewal to the answer of the next, in milliseconds.
    pub(crate) oldest_ms: u64,
}

#[derive(Debug, Default)]
struct Tally {
    connected: AtomicU64,
    counts: Mutex<Counts>,
}

impl Tally {
    fn note(&self, note: impl FnOnce(&mut Counts)) {
        // Counts are whole after each step.
        note(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn take(&self) -> Counts {
        let mut taken = Counts::default();
        self.note(|counts| taken = std::mem::take(counts));
        taken.connected = self.connected.load(Ordering::Relaxed);
        taken
    }
}

/// Renews until standard input ends; answers each line on it with what was counted since the one before.
pub(crate) async fn run(file: &Path) -> anyhow::Result<()> {
    let plan: Plan = serde_json::from_slice(&std::fs::read(file)?)?;
    let trust = Trust::from_pem(&plan.trust)?;
    let tls = ClientTls::new(&trust, Some(&Papers::from_pem(&plan.papers)?))?;
    let tally = Arc::new(Tally::default());
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
        let (tally, connecting) = (Arc::clone(&tally), Arc::clone(&connecting));
        let lease_ms = plan.lease_ms;
        tokio::spawn(async move {
            let connecting = connecting.acquire_owned().await;
            let (opened, secret) = open(&client, n, lease_ms).await;
            tally.connected.fetch_add(1, Ordering::Relaxed);
            drop(connecting);
            renew(&client, &opened, &secret, &tally).await;
        });
    }
    tokio::task::spawn_blocking(move || answer(&tally)).await?
}

fn answer(tally: &Tally) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    for line in std::io::stdin().lines() {
        line?;
        writeln!(out, "{}", serde_json::to_string(&tally.take())?)?;
        out.flush()?;
    }
    Ok(())
}

/// Registers until it is done.
async fn open(client: &Client, n: u64, lease_ms: u64) -> (SessionOpened, String) {
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
            Err(_) => tokio::time::sleep(AGAIN_AFTER).await,
        }
    }
}

/// Renews a session until it is lost.
async fn renew(client: &Client, opened: &SessionOpened, secret: &str, tally: &Tally) {
    let every = Duration::from_millis(opened.renew_every_ms);
    let lease = Duration::from_millis(opened.lease_ms);
    let began = Instant::now();
    let (mut last_sent, mut due) = (began, began);
    for counter in 1.. {
        let sent = Instant::now();
        let request = RenewRequest {
            incarnation: opened.incarnation,
            counter,
            nonce: counter,
            sent_ms: millis(began.elapsed()),
            also: Vec::new(),
        };
        match client.renew(opened.session, secret, &request).await {
            Ok(answer) if answer.renewed.contains(&opened.session) => {
                let age = last_sent.elapsed();
                tally.note(|counts| {
                    counts.renewed += 1;
                    counts.late += u64::from(due.elapsed() > every);
                    counts.beyond += u64::from(age > lease);
                    counts.oldest_ms = counts.oldest_ms.max(millis(age));
                });
                last_sent = sent;
                tokio::time::sleep(every).await;
                due = Instant::now();
            }
            Ok(_lost) => {
                tally.note(|counts| counts.lost += 1);
                return;
            }
            Err(_) => {
                tally.note(|counts| counts.failed += 1);
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
