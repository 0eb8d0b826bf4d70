//! Agents of this process that hold partitions and run nothing, and claims that are made when they are wanted.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use quorate_api::client::Client;
use quorate_api::resources::ApplyRequest;
use quorate_api::session::Claim;
use quorate_benches::fleet::{Arrived, Bereft, Fleet, Session, reach};
use quorate_benches::quorum::{NAMES, Quorum};
use quorate_benches::renewing::Counts;
use serde_json::json;
use tokio::task::JoinSet;

/// Between the first calls of two agents for their work: a handshake costs both sides together a millisecond or
/// two, all agents share this process, and what is measured begins when all of them are there.
const APART: Duration = Duration::from_millis(10);
/// Calls for lists of work that are made at once.
const ASKING: usize = 16;

/// Claims that one agent has not made yet. It reports one thing after the other.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) session: Arc<Session>,
    pub(crate) claims: Vec<Claim>,
}

impl Offer {
    /// Adds what the same agent was told later.
    fn add(offers: &mut Vec<Self>, session: &Arc<Session>, claims: Vec<Claim>) {
        let known = offers
            .iter_mut()
            .find(|offer| Arc::ptr_eq(&offer.session, session));
        match known {
            Some(offer) => offer.claims.extend(claims),
            None => offers.push(Self {
                session: Arc::clone(session),
                claims,
            }),
        }
    }
}

/// Claims that wait, while they are to wait.
#[derive(Debug, Default)]
struct Held {
    holding: AtomicBool,
    /// Claims that came too late.
    refused: AtomicUsize,
    offers: Mutex<Vec<Offer>>,
}

/// Agents with sessions at all three directors, a third of them at each.
#[derive(Debug)]
pub(crate) struct Workers {
    fleet: Fleet,
    arrived: Arc<Arrived>,
    held: Arc<Held>,
    following: JoinSet<anyhow::Result<()>>,
    admin: Client,
    services: usize,
    limit: Duration,
}

/// Counts that are waited for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    assigned: usize,
    assumed: usize,
}

/// How long a roll-out took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rollout {
    pub(crate) applied: Duration,
    pub(crate) assigned: Duration,
    pub(crate) assumed: Duration,
    /// Claims that came so late that they were refused: their partitions were assigned anew.
    pub(crate) refused: usize,
}

impl Workers {
    /// Lets so many agents join, which claim at once what they are given. Nothing that they wait for may take
    /// longer than the limit.
    pub(crate) async fn join(
        quorum: &Quorum,
        agents: usize,
        limit: Duration,
    ) -> anyhow::Result<Self> {
        let clients = NAMES
            .into_iter()
            .map(|first| quorum.admin(quorum.addresses_from(first)));
        let clients = clients.collect::<anyhow::Result<Vec<_>>>()?;
        let fleet = Fleet::join(&clients, agents).await?;
        let arrived = Arc::new(Arrived::default());
        let held = Arc::new(Held::default());
        let mut following = JoinSet::new();
        for (session, n) in fleet.sessions.iter().zip(0..) {
            let (held, own) = (Arc::clone(&held), Arc::clone(session));
            let take = async move |session: &Session, claims: Vec<Claim>| {
                if !held.holding.load(Ordering::SeqCst) {
                    let (assumed, refused) = session.assume_some(claims).await?;
                    held.refused.fetch_add(refused, Ordering::Relaxed);
                    return Ok(assumed);
                }
                // It is whole after each step.
                let mut offers = held.offers.lock().unwrap_or_else(PoisonError::into_inner);
                Offer::add(&mut offers, &own, claims);
                Ok(0)
            };
            let follow = Arc::clone(session).follow(Arc::clone(&arrived), take);
            following.spawn(async move {
                // Machines do not all connect at the same moment either.
                tokio::time::sleep(APART * n).await;
                follow.await
            });
        }
        let count = u32::try_from(agents).unwrap_or(u32::MAX);
        tokio::time::sleep(APART.saturating_mul(count)).await;
        Ok(Self {
            fleet,
            arrived,
            held,
            following,
            admin: quorum.admin_of_all()?,
            services: 0,
            limit,
        })
    }

    /// Applies so many services with so many partitions together, one after the other, and waits until every one
    /// of them is claimed.
    pub(crate) async fn roll_out(
        &mut self,
        services: usize,
        partitions: usize,
    ) -> anyhow::Result<Rollout> {
        let began = Instant::now();
        let refused = self.held.refused.load(Ordering::Relaxed);
        let Wanted { assigned, assumed } = self.wanted(partitions);
        for n in 0..services {
            let share = partitions * (n + 1) / services - partitions * n / services;
            self.apply(share).await?;
        }
        let applied = began.elapsed();
        self.until_assigned(assigned).await?;
        let assigned = began.elapsed();
        let following = &mut self.following;
        let reached = reach(&self.arrived.assumed, assumed, following, self.limit).await;
        reached.with_context(|| self.plight("not everything is assumed"))?;
        let assumed = began.elapsed();
        Ok(Rollout {
            applied,
            assigned,
            assumed,
            refused: self.held.refused.load(Ordering::Relaxed) - refused,
        })
    }

    /// Applies a service with so many partitions and waits until all are in the hands of agents, unclaimed: one
    /// offer for each agent that has any.
    pub(crate) async fn offers(&mut self, partitions: usize) -> anyhow::Result<Vec<Offer>> {
        self.held.holding.store(true, Ordering::SeqCst);
        let Wanted { assigned, .. } = self.wanted(partitions);
        self.apply(partitions).await?;
        self.until_assigned(assigned).await?;
        self.held.holding.store(false, Ordering::SeqCst);
        let mut offers = self
            .held
            .offers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut offers))
    }

    /// What the counts are to come to with so many partitions more.
    fn wanted(&self, partitions: usize) -> Wanted {
        Wanted {
            assigned: self.arrived.assigned.load(Ordering::Relaxed) + partitions,
            assumed: self.arrived.assumed.load(Ordering::Relaxed) + partitions,
        }
    }

    async fn apply(&mut self, partitions: usize) -> anyhow::Result<()> {
        self.services += 1;
        let name = format!("feeds-{}", self.services);
        let spec = json!({ "service": { name: {
            "command": ["/bin/feed", "{{key}}"],
            "partitions": { "range": format!("0..{partitions}") },
            "ramp": { "settle": "0s" },
        }}});
        let request = ApplyRequest { spec, base: None };
        let applied = self.admin.apply(&request).await;
        applied.with_context(|| self.plight("not applied"))?;
        Ok(())
    }

    async fn until_assigned(&mut self, count: usize) -> anyhow::Result<()> {
        let following = &mut self.following;
        let reached = reach(&self.arrived.assigned, count, following, self.limit).await;
        reached.with_context(|| self.plight("not everything is assigned"))
    }

    /// What has become of renewals until something went wrong, which may be why.
    fn plight(&self, wrong: &'static str) -> String {
        format!("{wrong}; renewals until then: {:?}", self.renewals())
    }

    /// Takes note that somebody has made claims that were held back.
    pub(crate) fn note_claimed(&self, claims: usize) {
        self.arrived.assumed.fetch_add(claims, Ordering::Relaxed);
    }

    /// What has become of the renewals since this was last asked.
    pub(crate) fn renewals(&self) -> Counts {
        self.fleet.renewals.take()
    }

    /// What has become, as the directors have it, of the partitions that were claimed.
    pub(crate) async fn bereft(&self) -> anyhow::Result<Bereft> {
        let bereft = stream::iter(&self.fleet.sessions).map(|session| session.bereft());
        let all = bereft.buffer_unordered(ASKING).try_fold(
            Bereft::default(),
            async |all, Bereft { stopping, lost }| {
                Ok(Bereft {
                    stopping: all.stopping + stopping,
                    lost: all.lost + lost,
                })
            },
        );
        let all = tokio::time::timeout(self.limit, all).await;
        all.context("the directors do not tell what agents hold")?
    }
}
