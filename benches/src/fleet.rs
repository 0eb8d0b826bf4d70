//! Agents that speak the session protocol and run nothing: what is measured is the director.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use quorate_api::client::Client;
use quorate_api::session::{
    Claim, RegisterRequest, RenewRequest, ReportRequest, SessionOpened, WorkState,
};
use serde_json::json;
use tokio::task::JoinSet;

/// Lease of the sessions: the default of a service.
const LEASE_MS: u64 = 10_000;
/// Registrations in flight.
const JOINING: usize = 64;
/// How long a call for work waits for some.
const WAIT: Duration = Duration::from_secs(20);

/// A session, and what it counts its reports by. Whoever holds it may report for it.
#[derive(Debug)]
pub struct Session {
    client: Client,
    secret: String,
    opened: SessionOpened,
    reports: AtomicU64,
}

/// Sessions of agents, kept alive until this is dropped.
#[derive(Debug)]
pub struct Fleet {
    /// All of them.
    pub sessions: Vec<Arc<Session>>,
    _renewals: JoinSet<()>,
}

/// What has come to the agents.
#[derive(Debug, Default)]
pub struct Arrived {
    /// Partitions that were handed out to them.
    pub assigned: AtomicUsize,
    /// Those that they have acknowledged, durably.
    pub assumed: AtomicUsize,
}

impl Fleet {
    /// Lets so many agents join.
    ///
    /// # Errors
    /// When one is refused, or the directors do not answer.
    pub async fn join(client: &Client, count: usize) -> anyhow::Result<Self> {
        let sessions: Vec<Arc<Session>> = stream::iter(0..count)
            .map(|n| Session::open(client.clone(), n))
            .buffered(JOINING)
            .try_collect()
            .await?;
        let mut renewals = JoinSet::new();
        for session in &sessions {
            renewals.spawn(renew(Arc::clone(session)));
        }
        Ok(Self {
            sessions,
            _renewals: renewals,
        })
    }
}

impl Session {
    async fn open(client: Client, n: usize) -> anyhow::Result<Arc<Self>> {
        let secret = format!("{:064x}", n + 1);
        let request: RegisterRequest = serde_json::from_value(json!({
            "agent": format!("a{n:05}"),
            "agent_id": n + 1,
            "boot_id": format!("boot-{n}"),
            "machine_id": format!("machine-{n}"),
            "folder": n + 1,
            "containment": "kernel",
            "lease_ms": LEASE_MS,
            "secret": secret,
            "process": n + 1,
            "version": "bench",
        }))?;
        let opened = client.register(&request).await?;
        Ok(Arc::new(Self {
            client,
            secret,
            opened,
            reports: AtomicU64::new(0),
        }))
    }

    /// Acknowledges partitions; returns when that is on the director's disk.
    ///
    /// One report of a session at a time.
    ///
    /// # Errors
    /// When a claim is refused, or the directors do not answer.
    pub async fn assume(&self, claims: Vec<Claim>) -> anyhow::Result<usize> {
        let request = ReportRequest {
            incarnation: self.opened.incarnation,
            sequence: self.reports.fetch_add(1, Ordering::Relaxed) + 1,
            assume: claims,
            ..ReportRequest::default()
        };
        let report = self
            .client
            .report(self.opened.session, &self.secret, &request);
        let answer = report.await?;
        let refusal = answer.refused.first();
        anyhow::ensure!(refusal.is_none(), "a claim was refused: {refusal:?}");
        Ok(answer.assumed.len())
    }

    /// Hears of what it is given, for ever; what to do with new claims is up to the caller.
    ///
    /// # Errors
    /// When the directors do not answer, or the caller fails.
    pub async fn follow(
        self: Arc<Self>,
        arrived: Arc<Arrived>,
        mut take: impl AsyncFnMut(&Self, Vec<Claim>) -> anyhow::Result<usize>,
    ) -> anyhow::Result<()> {
        let mut index = 0;
        let mut seen = BTreeSet::new();
        loop {
            let id = self.opened.session;
            let work = self.client.work(id, &self.secret, index, WAIT).await;
            let work = work.context("no answer about work")?;
            index = work.index;
            let items = work.items.into_iter();
            let fresh = items.filter(|item| item.state == WorkState::Assigned);
            let claims: Vec<Claim> = fresh
                .filter(|item| seen.insert(item.token))
                .map(|item| Claim {
                    partition: item.partition,
                    token: item.token,
                })
                .collect();
            if claims.is_empty() {
                continue;
            }
            arrived.assigned.fetch_add(claims.len(), Ordering::Relaxed);
            let assumed = take(&self, claims).await?;
            arrived.assumed.fetch_add(assumed, Ordering::Relaxed);
        }
    }
}

/// Renews a session for ever, as often as the director said.
async fn renew(session: Arc<Session>) {
    let mut counter = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(session.opened.renew_every_ms)).await;
        counter += 1;
        let request = RenewRequest {
            incarnation: session.opened.incarnation,
            counter,
            nonce: counter,
            sent_ms: counter * session.opened.renew_every_ms,
            also: Vec::new(),
        };
        let renewal = session
            .client
            .renew(session.opened.session, &session.secret, &request);
        if let Err(cause) = renewal.await {
            eprintln!("a renewal failed: {cause}");
        }
    }
}

/// Waits until a count is complete.
///
/// # Errors
/// When that takes too long, or an agent has failed.
pub async fn reach(
    count: &AtomicUsize,
    wanted: usize,
    following: &mut JoinSet<anyhow::Result<()>>,
    limit: Duration,
) -> anyhow::Result<()> {
    let began = Instant::now();
    while count.load(Ordering::Relaxed) < wanted {
        if let Some(ended) = following.try_join_next() {
            ended??;
        }
        anyhow::ensure!(
            began.elapsed() < limit,
            "after {} s there are {} of {wanted}",
            limit.as_secs(),
            count.load(Ordering::Relaxed)
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
