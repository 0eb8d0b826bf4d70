//! Claims of agents through the API, as many at once as wanted: a claim is an agent's acknowledgement of a
//! partition that it was given, which is answered when it is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quorate_api::client::Client;
use quorate_api::resources::ApplyRequest;
use quorate_api::session::Claim;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::fleet::{Arrived, Fleet, Session, reach};
use crate::load::Measured;

/// Claims in one report, in rows of batches.
pub const BATCH: usize = 128;
/// Agents: as many as claim at once at most.
const AGENTS: usize = 256;
/// Claims that wait to be made in each sample. When some agent has none left, the sample ends.
const SINGLE: usize = 20_000;
const BATCHED: usize = 250_000;
/// How long until all of them are handed out.
const LIMIT: Duration = Duration::from_secs(60);
/// A sample that ends sooner than after this part of its time says too little.
const PART_MIN: u32 = 10;

/// What one agent has been given and not yet claimed.
type Given = Arc<Mutex<(Arc<Session>, Vec<Claim>)>>;

/// One sample of directors without agents, and the processor time for each claim in microseconds, as
/// `processor_time` tells it. `outstanding` callers make reports of `each` claims.
///
/// # Errors
/// When something does not come to pass, or a claim is refused.
pub async fn sample(
    client: &Client,
    (outstanding, each): (usize, usize),
    time: Duration,
    processor_time: impl Fn() -> anyhow::Result<Duration>,
) -> anyhow::Result<(Measured, f64)> {
    let fleet = Fleet::join(std::slice::from_ref(client), AGENTS).await?;
    let count = if each == 1 { SINGLE } else { BATCHED };
    let (given, following) = hand_out(client, &fleet, count).await?;
    let before = processor_time()?;
    let began = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for caller in 0..outstanding {
        let mine: Vec<Given> = given
            .iter()
            .skip(caller)
            .step_by(outstanding)
            .cloned()
            .collect();
        callers.spawn(claim(mine, each, began + time, Arc::clone(&over)));
    }
    let mut times = Vec::new();
    while let Some(some) = callers.join_next().await {
        times.extend(some??);
    }
    let took = began.elapsed();
    anyhow::ensure!(
        took >= time / PART_MIN,
        "{count} claims were made within {took:?}, which is too short to say anything"
    );
    let used = processor_time()?.saturating_sub(before);
    let claims = (times.len() * each) as f64;
    drop(following);
    let measured = Measured::of(times, each, took);
    Ok((measured, used.as_secs_f64() * 1e6 / claims))
}

/// Applies a service and waits until its partitions are in the hands of the agents, unclaimed.
async fn hand_out(
    client: &Client,
    fleet: &Fleet,
    count: usize,
) -> anyhow::Result<(Vec<Given>, JoinSet<anyhow::Result<()>>)> {
    let spec = json!({ "service": { "feeds": {
        "command": ["/bin/feed", "{{key}}"],
        "partitions": { "range": format!("0..{count}") },
        "ramp": { "settle": "0s" },
    }}});
    client.apply(&ApplyRequest { spec, base: None }).await?;
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
    reach(&arrived.assigned, count, &mut following, LIMIT).await?;
    Ok((given, following))
}

/// Makes claims, one report after the other, until the time is over or an agent has none left; how long each
/// took.
async fn claim(
    mine: Vec<Given>,
    each: usize,
    until: Instant,
    over: Arc<AtomicBool>,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for given in mine.iter().cycle() {
        let mut given = given.lock().await;
        let left = given.1.len().checked_sub(each);
        let Some(left) = left.filter(|_| Instant::now() < until && !over.load(Ordering::Relaxed))
        else {
            over.store(true, Ordering::Relaxed);
            break;
        };
        let claims = given.1.split_off(left);
        let asked = Instant::now();
        given.0.assume(claims).await?;
        times.push(asked.elapsed());
    }
    Ok(times)
}
