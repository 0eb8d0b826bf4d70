//! How soon a write is accepted after the leader was killed, and how long none is while it hands over.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use quorate_api::client::Client;
use quorate_api::session::RegisterRequest;
use quorate_benches::quorum::{PATIENCE, Quorum, until};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Place;
use crate::times::Times;

/// The goals, of the tables in the documentation.
const GOAL_KILLED_MS: u64 = 150;
const GOAL_PLANNED_MS: u64 = 30;
/// The agents that the writes are about: one for each who writes, so that each write changes something.
const AGENTS: [&str; 3] = ["a1", "a2", "a3"];
/// How long one write may take before its director is asked again.
const WRITE_TIME: Duration = Duration::from_secs(2);
/// Between a refused write and the next at the same director.
const AGAIN_AFTER: Duration = Duration::from_millis(1);
/// Writes that may wait to be counted: far more than are made while a leader changes.
const COUNTED_MAX: usize = 1 << 16;

/// Measures both and prints them.
pub(crate) async fn measure(place: &Place, rounds: usize) -> anyhow::Result<()> {
    let (_folder, mut quorum) = place.found().await?;
    let quorum = &mut quorum;
    for (agent, id) in AGENTS.into_iter().zip(1_u64..) {
        let request: RegisterRequest = serde_json::from_value(json!({
            "agent": agent, "agent_id": id, "boot_id": agent, "machine_id": agent, "folder": id,
            "containment": "kernel", "lease_ms": 10_000, "secret": format!("{id:064x}"),
            "process": id, "version": "bench",
        }))?;
        quorum.admin_of_all()?.register(&request).await?;
    }
    quorum.until_caught_up().await?;
    let mut killed = Times::default();
    for _ in 0..rounds {
        killed.add(kill(quorum).await.context("a leader was killed")?);
    }
    println!("leader killed, next write accepted: {killed} (goal p99 {GOAL_KILLED_MS})");
    let mut planned = Times::default();
    for _ in 0..rounds {
        planned.add(hand_over(quorum).await.context("a leader hands over")?);
    }
    println!("leader hands over, no write accepted for: {planned} (goal {GOAL_PLANNED_MS})");
    Ok(())
}

/// Kills the leader; how long until one of the others accepts a write.
async fn kill(quorum: &mut Quorum) -> anyhow::Result<Duration> {
    let leader = quorum.leader().await?;
    let others = quorum.running().into_iter().filter(|name| *name != leader);
    let others: Vec<&str> = others.collect();
    let writers = clients(quorum, &others)?;
    // Connections are there already, as those of whoever writes all the time are.
    for (writer, agent) in writers.iter().zip(AGENTS) {
        writer.cordon(agent).await?;
    }
    let began = Instant::now();
    quorum.kill(leader)?;
    let (accepted, mut seen) = mpsc::channel(COUNTED_MAX);
    let mut writing = write_at_all(&writers, &accepted);
    let first = next(&mut seen).await?;
    writing.shutdown().await;
    quorum.start(leader)?;
    quorum.until_caught_up().await?;
    Ok(first.duration_since(began))
}

/// Lets the leader hand over; the longest time in which nobody accepted a write.
async fn hand_over(quorum: &Quorum) -> anyhow::Result<Duration> {
    let leader = quorum.leader().await?;
    let writers = clients(quorum, &quorum.running())?;
    let (accepted, mut seen) = mpsc::channel(COUNTED_MAX);
    let mut writing = write_at_all(&writers, &accepted);
    let mut times = Vec::new();
    times.push(next(&mut seen).await?);
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
    writing.shutdown().await;
    quorum.until_caught_up().await?;
    times.sort_unstable();
    let gaps = times.iter().zip(times.iter().skip(1));
    let longest = gaps.map(|(one, next)| next.duration_since(*one)).max();
    longest.context("writes were accepted")
}

/// When the next write was accepted.
async fn next(seen: &mut mpsc::Receiver<Instant>) -> anyhow::Result<Instant> {
    let next = tokio::time::timeout(PATIENCE, seen.recv()).await;
    next.ok().flatten().context("nobody accepts a write")
}

fn clients(quorum: &Quorum, names: &[&str]) -> anyhow::Result<Vec<Client>> {
    let one = |name: &&str| {
        let client = quorum.admin(vec![quorum.address(name)])?;
        anyhow::Ok(client.impatient(WRITE_TIME))
    };
    names.iter().map(one).collect()
}

/// Writes at each of these again and again, and tells when a write was accepted.
fn write_at_all(writers: &[Client], accepted: &mpsc::Sender<Instant>) -> JoinSet<()> {
    let mut writing = JoinSet::new();
    for (client, agent) in writers.iter().zip(AGENTS) {
        writing.spawn(write(client.clone(), agent, accepted.clone()));
    }
    writing
}

async fn write(client: Client, agent: &str, accepted: mpsc::Sender<Instant>) {
    let mut cordoned = true;
    loop {
        let written = if cordoned {
            client.uncordon(agent).await
        } else {
            client.cordon(agent).await
        };
        if written.is_err() {
            tokio::time::sleep(AGAIN_AFTER).await;
            continue;
        }
        cordoned = !cordoned;
        if accepted.send(Instant::now()).await.is_err() {
            return;
        }
    }
}
