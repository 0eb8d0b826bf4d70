//! From `apply` until every agent has heard of every partition that it is to hold.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_api::resources::ApplyRequest;
use quorate_benches::fleet::{Arrived, Fleet, reach};
use quorate_benches::program::Director;
use serde_json::json;
use tokio::task::JoinSet;

/// The goal: so long from `apply` until everything is delivered, for a million partitions.
const GOAL: Duration = Duration::from_millis(1500);
/// Longest roll-out that is waited for.
const LIMIT: Duration = Duration::from_secs(120);

/// Measures one roll-out and prints it.
pub(crate) async fn measure(
    program: &Path,
    folder: &Path,
    (partitions, agents): (usize, usize),
) -> anyhow::Result<()> {
    println!("{partitions} partitions on {agents} agents, one director");
    let director = Director::start(program, &folder.join("rollout")).await?;
    let began = Instant::now();
    let fleet = Fleet::join(std::slice::from_ref(&director.client), agents).await?;
    row("agents joined", began.elapsed(), &director, agents)?;
    let arrived = Arc::new(Arrived::default());
    let mut following = JoinSet::new();
    for session in &fleet.sessions {
        let follow = Arc::clone(session).follow(Arc::clone(&arrived), async |session, claims| {
            session.assume(claims).await
        });
        following.spawn(follow);
    }
    let spec = json!({ "service": { "feeds": {
        "command": ["/bin/feed", "{{key}}"],
        "partitions": { "range": format!("0..{partitions}") },
        "ramp": { "settle": "0s" },
    }}});
    let began = Instant::now();
    let request = ApplyRequest { spec, base: None };
    director.client.apply(&request).await?;
    row("apply answered", began.elapsed(), &director, partitions)?;
    reach(&arrived.assigned, partitions, &mut following, LIMIT).await?;
    let delivered = began.elapsed();
    row("all delivered", delivered, &director, partitions)?;
    reach(&arrived.assumed, partitions, &mut following, LIMIT).await?;
    row("all assumed", began.elapsed(), &director, partitions)?;
    println!(
        "goal for 1,000,000: delivered within {} ms; here {:.0} % of it\n",
        GOAL.as_millis(),
        100.0 * delivered.as_secs_f64() / GOAL.as_secs_f64()
    );
    Ok(())
}

fn row(what: &str, took: Duration, director: &Director, count: usize) -> anyhow::Result<()> {
    println!(
        "{what:<16} {:>8.0} ms {:>10.0}/s   director: {:>6.2} s of processor, {:>5} MB resident",
        took.as_secs_f64() * 1e3,
        count as f64 / took.as_secs_f64(),
        director.processor_time()?.as_secs_f64(),
        director.resident()? / 1_000_000,
    );
    Ok(())
}
