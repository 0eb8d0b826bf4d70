//! The leader is gone: how soon a claim is committed by another one.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use quorate_api::client::Client;
use quorate_benches::quorum::{PATIENCE, Quorum};
use tokio::task::JoinSet;

use crate::workers::{Offer, Workers};

/// How long one claim may take before its director is asked again.
const CLAIM_TIME: Duration = Duration::from_secs(2);
/// Between a claim that came to nothing and the next try at the same director.
pub(crate) const AGAIN_AFTER: Duration = Duration::from_millis(1);
/// Partitions that are handed out for it: so many that two agents have one.
const OFFERED: usize = 8;

/// One claim for each of the other two directors, and the rest.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) leader: &'static str,
    claims: Vec<(Client, Offer)>,
}

/// Hands out partitions, and connects to the directors that do not lead, as whoever claims all the time is.
pub(crate) async fn prepare(quorum: &Quorum, workers: &mut Workers) -> anyhow::Result<Prepared> {
    let leader = quorum.leader().await?;
    let mut offers = workers.offers(OFFERED).await?;
    anyhow::ensure!(offers.len() >= 2, "one agent was given everything");
    let rest = offers.split_off(2);
    for offer in rest {
        let claims = offer.claims.len();
        offer.session.assume(offer.claims).await?;
        workers.note_claimed(claims);
    }
    let others = quorum.running().into_iter().filter(|name| *name != leader);
    let clients = others.map(|name| client(quorum, name));
    let clients = clients.collect::<anyhow::Result<Vec<_>>>()?;
    for client in &clients {
        client.ready().await?;
    }
    let claims = clients.into_iter().zip(offers).collect();
    Ok(Prepared { leader, claims })
}

/// A client of one director that waits for no other one.
pub(crate) fn client(quorum: &Quorum, name: &str) -> anyhow::Result<Client> {
    let client = quorum.admin(vec![quorum.address(name)])?;
    Ok(client.impatient(CLAIM_TIME))
}

/// Makes the claims; when the first of them is committed.
pub(crate) async fn first_claim(
    claims: Vec<(Client, Offer)>,
    workers: &Workers,
) -> anyhow::Result<Instant> {
    let mut claiming = JoinSet::new();
    for (client, Offer { session, claims }) in claims {
        claiming.spawn(async move {
            let made = session.assume_by(&client, claims, AGAIN_AFTER).await?;
            anyhow::Ok((made, Instant::now()))
        });
    }
    let mut first: Option<Instant> = None;
    while let Some(made) = next(&mut claiming).await? {
        let (made, at) = made;
        workers.note_claimed(made);
        first = Some(first.map_or(at, |first| first.min(at)));
    }
    first.context("there was nothing to claim")
}

async fn next(
    claiming: &mut JoinSet<anyhow::Result<(usize, Instant)>>,
) -> anyhow::Result<Option<(usize, Instant)>> {
    let next = tokio::time::timeout(PATIENCE, claiming.join_next()).await;
    let Some(next) = next.context("nobody takes a claim")? else {
        return Ok(None);
    };
    Ok(Some(next??))
}

/// Kills the leader; how long until another one has committed a claim. It stays dead.
pub(crate) async fn kill(
    quorum: &mut Quorum,
    workers: &mut Workers,
) -> anyhow::Result<(&'static str, Duration)> {
    let Prepared { leader, claims } = prepare(quorum, workers).await?;
    let began = Instant::now();
    quorum.kill(leader)?;
    let first = first_claim(claims, workers).await?;
    Ok((leader, first.duration_since(began)))
}

/// Lets the leader stand still; how long until another one has committed a claim. Then it goes on.
pub(crate) async fn stop(quorum: &Quorum, workers: &mut Workers) -> anyhow::Result<Duration> {
    let Prepared { leader, claims } = prepare(quorum, workers).await?;
    let began = Instant::now();
    let stopped = quorum.stop(leader)?;
    let first = first_claim(claims, workers).await?;
    stopped.go_on()?;
    Ok(first.duration_since(began))
}
