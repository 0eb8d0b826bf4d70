//! Agents that speak the session protocol and run nothing: what is measured is the director.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use quorate_api::client::Client;
use quorate_api::session::{
    Claim, RegisterRequest, ReportRequest, ReportResponse, SessionOpened, WorkResponse, WorkState,
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::renewing::{ANSWER_WITHIN, Tally, is_over, renew};

/// Lease of the sessions: the default of a service.
const LEASE_MS: u64 = 10_000;
/// Registrations in flight.
const JOINING: usize = 64;
/// How long a call for work waits for some.
const WAIT: Duration = Duration::from_secs(20);
/// How long calls of a session may come to nothing, one after the other, before it is given up: longer than any
/// change of leader takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two of them.
const CALL_AGAIN: Duration = Duration::from_millis(100);

/// A session, and what it counts its reports by. Whoever holds it may report for it.
#[derive(Debug)]
pub struct Session {
    client: Client,
    secret: String,
    opened: SessionOpened,
    reports: AtomicU64,
    /// Tokens that it has assumed.
    assumed: Mutex<BTreeSet<u64>>,
}

/// Sessions of agents, kept alive until this is dropped.
#[derive(Debug)]
pub struct Fleet {
    /// All of them.
    pub sessions: Vec<Arc<Session>>,
    /// What has become of their renewals.
    pub renewals: Arc<Tally>,
    _renewing: JoinSet<()>,
}

/// Partitions that an agent has assumed and does not simply hold any more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bereft {
    /// It is to stop and give back so many.
    pub stopping: usize,
    /// So many are its own no more.
    pub lost: usize,
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
    /// Lets so many agents join, which speak by these clients in turn.
    ///
    /// # Errors
    /// When one is refused, or the directors do not answer.
    pub async fn join(clients: &[Client], count: usize) -> anyhow::Result<Self> {
        let renewals = Arc::new(Tally::default());
        let mut renewing = JoinSet::new();
        let mut sessions = Vec::new();
        let mut opening = stream::iter(clients.iter().cycle().zip(0..count))
            .map(|(client, n)| Session::open(client.clone(), n))
            .buffered(JOINING);
        // Each renews from the moment at which it came in, so that not all do at the same moment ever after.
        while let Some(session) = opening.try_next().await? {
            let (renewed, tally) = (Arc::clone(&session), Arc::clone(&renewals));
            renewing.spawn(async move {
                let client = renewed.client.impatient(ANSWER_WITHIN);
                renew(&client, &renewed.opened, &renewed.secret, &tally).await;
            });
            sessions.push(session);
        }
        drop(opening);
        Ok(Self {
            sessions,
            renewals,
            _renewing: renewing,
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
            assumed: Mutex::default(),
        }))
    }

    /// Acknowledges partitions; returns when that is durable.
    ///
    /// One report of a session at a time.
    ///
    /// # Errors
    /// When a claim is refused, or the directors do not answer.
    pub async fn assume(&self, claims: Vec<Claim>) -> anyhow::Result<usize> {
        let request = self.report_of(claims);
        let report = self
            .client
            .report(self.opened.session, &self.secret, &request);
        self.note_assumed(&report.await?)
    }

    /// The same where a claim may be refused, because it came so late that its partition was given to somebody
    /// else: how many it has assumed, and how many claims were refused.
    ///
    /// # Errors
    /// When the directors do not answer.
    pub async fn assume_some(&self, claims: Vec<Claim>) -> anyhow::Result<(usize, usize)> {
        let request = self.report_of(claims);
        let report = self
            .client
            .report(self.opened.session, &self.secret, &request);
        let mut answer = report.await?;
        let refused = std::mem::take(&mut answer.refused).len();
        Ok((self.note_assumed(&answer)?, refused))
    }

    /// The same by another client, again and again until the directors answer.
    ///
    /// # Errors
    /// When a claim is refused, or the directors do not answer for long.
    pub async fn assume_by(
        &self,
        client: &Client,
        claims: Vec<Claim>,
        again_after: Duration,
    ) -> anyhow::Result<usize> {
        let request = self.report_of(claims);
        let began = Instant::now();
        loop {
            let report = client.report(self.opened.session, &self.secret, &request);
            match report.await {
                Ok(answer) => return self.note_assumed(&answer),
                Err(cause) if is_over(&cause) || began.elapsed() > PATIENCE => {
                    return Err(cause).context("no answer to a claim");
                }
                // The same report again is no other one.
                Err(_) => tokio::time::sleep(again_after).await,
            }
        }
    }

    fn report_of(&self, claims: Vec<Claim>) -> ReportRequest {
        ReportRequest {
            incarnation: self.opened.incarnation,
            sequence: self.reports.fetch_add(1, Ordering::Relaxed) + 1,
            assume: claims,
            ..ReportRequest::default()
        }
    }

    fn note_assumed(&self, answer: &ReportResponse) -> anyhow::Result<usize> {
        let refusal = answer.refused.first();
        anyhow::ensure!(refusal.is_none(), "a claim was refused: {refusal:?}");
        // It is whole after each step.
        let mut assumed = self.assumed.lock().unwrap_or_else(PoisonError::into_inner);
        assumed.extend(&answer.assumed);
        Ok(answer.assumed.len())
    }

    /// What has become of the partitions that it has assumed, as the directors have it.
    ///
    /// # Errors
    /// When they do not answer.
    pub async fn bereft(&self) -> anyhow::Result<Bereft> {
        if self.count_assumed() == 0 {
            return Ok(Bereft::default());
        }
        let began = Instant::now();
        let items = loop {
            let work = self.work_since(0).await?;
            // A question that another one of this session has pushed aside is told nothing.
            if work.index > 0 {
                break work.items;
            }
            anyhow::ensure!(began.elapsed() < PATIENCE, "no list of work");
        };
        let held = |state| {
            let held = items.iter().filter(move |item| item.state == state);
            held.map(|item| item.token).collect::<BTreeSet<u64>>()
        };
        let (own, stopping) = (held(WorkState::Assumed), held(WorkState::Stopping));
        let assumed = self.assumed.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = assumed.difference(&own).copied().collect::<BTreeSet<u64>>();
        let to_stop = gone.intersection(&stopping).count();
        Ok(Bereft {
            stopping: to_stop,
            lost: gone.len() - to_stop,
        })
    }

    fn count_assumed(&self) -> usize {
        let assumed = self.assumed.lock();
        assumed.unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Hears of what it is given, for ever; what to do with new claims is up to the caller.
    ///
    /// # Errors
    /// When the session is over, the directors do not answer for long, or the caller fails.
    pub async fn follow(
        self: Arc<Self>,
        arrived: Arc<Arrived>,
        mut take: impl AsyncFnMut(&Self, Vec<Claim>) -> anyhow::Result<usize>,
    ) -> anyhow::Result<()> {
        let mut index = 0;
        let mut seen = BTreeSet::new();
        loop {
            let work = self.work_since(index).await?;
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

    async fn work_since(&self, index: u64) -> anyhow::Result<WorkResponse> {
        let mut failing: Option<Instant> = None;
        loop {
            let work = self
                .client
                .work(self.opened.session, &self.secret, index, WAIT);
            match work.await {
                Ok(work) => return Ok(work),
                Err(cause) => {
                    let since = *failing.get_or_insert_with(Instant::now);
                    if is_over(&cause) || since.elapsed() > PATIENCE {
                        return Err(cause).context("no answer about work");
                    }
                    tokio::time::sleep(CALL_AGAIN).await;
                }
            }
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
