//! How soon a claim is committed after the leader was killed or stands still, and how long none is while it hands
//! over; and what becomes of the agents meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use quorate_api::client::Client;
use quorate_benches::fleet::Bereft;
use quorate_benches::quorum::{PATIENCE, Quorum, until};
use quorate_benches::renewing::Counts;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Place;
use crate::takeover::{self, AGAIN_AFTER};
use crate::workers::{Offer, Workers};
use quorate_benches::times::Times;

/// Agents, and the partitions that they hold all the time.
const AGENTS: usize = 30;
const HELD: usize = 1_000;
/// How long anything of them may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Partitions that are claimed one by one while a leader hands over: enough for longer than that takes.
const CLAIMED: usize = 1_500;
/// Between two rounds: every session renews once, and whoever was started again votes again. Without it there is no
/// leader most of the time, which no lease bears for long.
const REST: Duration = Duration::from_secs(3);
/// Between two claims of the same director.
const PAUSE: Duration = Duration::from_millis(1);

/// How often each is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounds {
    pub(crate) kills: usize,
    pub(crate) stops: usize,
    pub(crate) hand_overs: usize,
}

/// Measures all three and prints them.
pub(crate) async fn measure(place: &Place, rounds: Rounds) -> anyhow::Result<()> {
    let (_folder, mut quorum) = place.found().await?;
    let mut workers = Workers::join(&quorum, AGENTS, LIMIT).await?;
    workers.roll_out(1, HELD).await?;
    println!("failover: {AGENTS} agents at three directors hold {HELD} partitions at first\n");
    println!(
        "| the leader | times | claims committed again after: p50, p99, worst, ms | goal, ms | \
         sessions that stopped runs or were lost | oldest lease, ms | partitions to stop, lost |\n\
         |---|---|---|---|---|---|---|"
    );
    workers.renewals();
    let mut killed = Times::default();
    for _ in 0..rounds.kills {
        let (leader, took) = takeover::kill(&mut quorum, &mut workers)
            .await
            .context("a leader was killed")?;
        killed.add(took);
        quorum.start(leader)?;
        quorum.until_caught_up().await?;
        tokio::time::sleep(REST).await;
    }
    row("is killed", &killed, "p99 150", &workers).await?;
    let mut stopped = Times::default();
    for _ in 0..rounds.stops {
        let took = takeover::stop(&quorum, &mut workers).await;
        stopped.add(took.context("a leader stands still")?);
        quorum.until_caught_up().await?;
        tokio::time::sleep(REST).await;
    }
    row("stands still", &stopped, "1000", &workers).await?;
    let mut planned = Times::default();
    for _ in 0..rounds.hand_overs {
        let gap = hand_over(&quorum, &mut workers).await;
        planned.add(gap.context("a leader hands over")?);
        quorum.until_caught_up().await?;
    }
    row("hands over", &planned, "30", &workers).await
}

async fn row(what: &str, times: &Times, goal: &str, workers: &Workers) -> anyhow::Result<()> {
    if times.is_empty() {
        return Ok(());
    }
    let renewals: Counts = workers.renewals();
    let Bereft { stopping, lost } = workers.bereft().await?;
    println!(
        "| {what} | {times} | {goal} | {} of {AGENTS} | {} | {stopping}, {lost} |",
        renewals.missed(),
        renewals.oldest_ms,
    );
    Ok(())
}

/// Lets the leader hand over; the longest time in which nobody committed a claim.
async fn hand_over(quorum: &Quorum, workers: &mut Workers) -> anyhow::Result<Duration> {
    let leader = quorum.leader().await?;
    let offers = workers.offers(CLAIMED).await?;
    let (told, mut seen) = mpsc::channel(CLAIMED);
    let enough = Arc::new(AtomicBool::new(false));
    let mut claiming = claim_at_all(quorum, offers, &told, &enough)?;
    drop(told);
    let mut times = vec![next(&mut seen).await?];
    quorum.admin_of_all()?.transfer_leader(None).await?;
    until("another one leads", async || {
        Ok(quorum.leader().await? != leader)
    })
    .await?;
    // One more, under whoever leads now.
    let led = Instant::now();
    while times.iter().all(|time| *time < led) {
        times.push(next(&mut seen).await?);
    }
    enough.store(true, Ordering::SeqCst);
    while let Some(made) = claiming.join_next().await {
        workers.note_claimed(made??);
    }
    times.sort_unstable();
    let gaps = times.iter().zip(times.iter().skip(1));
    let longest = gaps.map(|(one, next)| next.duration_since(*one)).max();
    longest.context("claims were committed")
}

/// When the next claim was committed.
async fn next(seen: &mut mpsc::Receiver<Instant>) -> anyhow::Result<Instant> {
    let next = tokio::time::timeout(PATIENCE, seen.recv()).await;
    let next = next.context("nobody takes a claim")?;
    next.context("there is nothing left to claim: too few were handed out")
}

/// Claims at every director, one partition after the other, and tells of each when it was committed. How many
/// each has made in the end.
fn claim_at_all(
    quorum: &Quorum,
    offers: Vec<Offer>,
    told: &mpsc::Sender<Instant>,
    enough: &Arc<AtomicBool>,
) -> anyhow::Result<JoinSet<anyhow::Result<usize>>> {
    let mut claiming = JoinSet::new();
    let names = quorum.running();
    let mut shares: Vec<Vec<Offer>> = names.iter().map(|_| Vec::new()).collect();
    let count = shares.len();
    for (n, offer) in offers.into_iter().enumerate() {
        shares
            .get_mut(n % count)
            .context("no director runs")?
            .push(offer);
    }
    for (name, share) in names.into_iter().zip(shares) {
        let client = takeover::client(quorum, name)?;
        claiming.spawn(claim_all(client, share, told.clone(), Arc::clone(enough)));
    }
    Ok(claiming)
}

async fn claim_all(
    client: Client,
    share: Vec<Offer>,
    told: mpsc::Sender<Instant>,
    enough: Arc<AtomicBool>,
) -> anyhow::Result<usize> {
    let mut made = 0;
    for Offer { session, claims } in share {
        let mut claims = claims.into_iter();
        while !enough.load(Ordering::SeqCst)
            && let Some(claim) = claims.next()
        {
            made += session.assume_by(&client, vec![claim], AGAIN_AFTER).await?;
            // It has room for all.
            told.send(Instant::now()).await?;
            tokio::time::sleep(PAUSE).await;
        }
        let rest: Vec<_> = claims.collect();
        if !rest.is_empty() {
            made += session.assume_by(&client, rest, AGAIN_AFTER).await?;
        }
    }
    Ok(made)
}
