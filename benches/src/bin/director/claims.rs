//! Claims per second through a whole director, beside etcd.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use quorate_api::resources::ApplyRequest;
use quorate_api::session::Claim;
use quorate_benches::program::Director;
use quorate_benches::{etcd, load};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::fleet::{Arrived, Fleet, Session};

const OUTSTANDING: [usize; 4] = [1, 16, 64, 256];
const BATCH: usize = 128;
/// Agents: as many as claim at once at most.
const AGENTS: usize = 256;
/// Claims that wait to be made in each sample: more than are made in its time.
const SINGLE: usize = 100_000;
const BATCHED: usize = 500_000;
/// How long until all of them are handed out.
const LIMIT: Duration = Duration::from_secs(60);

/// What one agent has been given and not yet claimed.
type Given = Arc<Mutex<(Arc<Session>, Vec<Claim>)>>;

/// Measures every row and prints them.
pub(crate) async fn measure(
    program: &Path,
    folder: &Path,
    rounds: usize,
    time: Duration,
) -> anyhow::Result<()> {
    let peer = etcd::start(folder).await;
    if let Err(reason) = &peer {
        println!("etcd: not run: {reason:#}");
    }
    println!(
        "| claims outstanding | each | director/s (p50, p99 ms) | director us of processor | \
         etcd/s (p50, p99 ms) | director/etcd |\n|---|---|---|---|---|---|"
    );
    for each in [1, BATCH] {
        for outstanding in OUTSTANDING {
            let (mut ours, mut costs, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
            for round in 0..rounds {
                if let Ok(peer) = &peer {
                    theirs.push(load::run(peer, outstanding, each, time).await);
                }
                let folder = folder.join(format!("{each}-{outstanding}-{round}"));
                let sample = sample(program, &folder, (outstanding, each), time).await;
                let (measured, cost) = sample.context("a sample of the director")?;
                ours.push(measured);
                costs.push(cost);
            }
            costs.sort_by(f64::total_cmp);
            let cost = costs.get(costs.len() / 2).copied().unwrap_or_default();
            let ours = load::median(&ours);
            let (peer, ratio) = if theirs.is_empty() {
                ("not run".to_owned(), "-".to_owned())
            } else {
                let theirs = load::median(&theirs);
                let ratio = format!("{:.1}x", ours.per_second / theirs.per_second);
                (theirs.to_string(), ratio)
            };
            println!("| {outstanding} | {each} | {ours} | {cost:.1} | {peer} | {ratio} |");
        }
    }
    Ok(())
}

/// One sample with a director of its own, and its processor time for each claim in microseconds.
async fn sample(
    program: &Path,
    folder: &Path,
    (outstanding, each): (usize, usize),
    time: Duration,
) -> anyhow::Result<(load::Measured, f64)> {
    let director = Director::start(program, folder).await?;
    let fleet = Fleet::join(&director.client, AGENTS).await?;
    let count = if each == 1 { SINGLE } else { BATCHED };
    let (given, following) = hand_out(&director, &fleet, count).await?;
    let before = director.processor_time()?;
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..outstanding {
        let mine: Vec<Given> = given
            .iter()
            .skip(caller)
            .step_by(outstanding)
            .cloned()
            .collect();
        callers.spawn(claim(mine, each, began, time));
    }
    let mut times = Vec::new();
    while let Some(some) = callers.join_next().await {
        times.extend(some??);
    }
    let took = began.elapsed();
    let used = director.processor_time()?.saturating_sub(before);
    let claims = (times.len() * each) as f64;
    drop(following);
    let measured = load::Measured::of(times, each, took);
    Ok((measured, used.as_secs_f64() * 1e6 / claims))
}

/// Applies a service and waits until its partitions are in the hands of the agents, unclaimed.
async fn hand_out(
    director: &Director,
    fleet: &Fleet,
    count: usize,
) -> anyhow::Result<(Vec<Given>, JoinSet<anyhow::Result<()>>)> {
    let spec = json!({ "service": { "feeds": {
        "command": ["/bin/feed", "{{key}}"],
        "partitions": { "range": format!("0..{count}") },
        "ramp": { "settle": "0s" },
    }}});
    director
        .client
        .apply(&ApplyRequest { spec, base: None })
        .await?;
    let arrived = Arc::new(Arrived::default());
    let mut following = JoinSet::new();
    let mut given = Vec::new();
    for session in &fleet.sessions {
        let mine: Given = Arc::new(Mutex::new((Arc::clone(session), Vec::new())));
        given.push(Arc::clone(&mine));
        let keep = async move |_: &Session, claims: Vec<Claim>| {
            mine.lock().await.1.extend(claims);
            Ok(0)
        };
        following.spawn(Arc::clone(session).follow(Arc::clone(&arrived), keep));
    }
    crate::rollout::reach(&arrived.assigned, count, &mut following, LIMIT).await?;
    Ok((given, following))
}

/// Makes claims, one report after the other, until the time is over; how long each took.
async fn claim(
    mine: Vec<Given>,
    each: usize,
    began: Instant,
    time: Duration,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for given in mine.iter().cycle() {
        if began.elapsed() >= time {
            break;
        }
        let mut given = given.lock().await;
        let at = given.1.len().checked_sub(each);
        let at = at.context("an agent has nothing left to claim: too few were handed out")?;
        let claims = given.1.split_off(at);
        let asked = Instant::now();
        given.0.assume(claims).await?;
        times.push(asked.elapsed());
    }
    Ok(times)
}
