//! Claims per second that a majority has on disk, beside three servers of etcd.

use std::time::Duration;

use anyhow::Context as _;
use quorate_benches::claiming::{self, BATCH};
use quorate_benches::program::processor_time;
use quorate_benches::{etcd, load};

use crate::Place;

/// Reports under way, and claims in each.
const ROWS: [(usize, usize); 7] = [
    (1, 1),
    (16, 1),
    (64, 1),
    (256, 1),
    (1, BATCH),
    (16, BATCH),
    (64, BATCH),
];
/// How long each sample takes.
const TIME: Duration = Duration::from_secs(2);

/// Measures every row and prints them.
pub(crate) async fn measure(place: &Place, samples: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(&place.dir).context("no folder for the data")?;
    let peer = etcd::start(folder.path(), 3).await;
    if let Err(reason) = &peer {
        println!("etcd: not run: {reason:#}");
    }
    println!(
        "| claims outstanding | each | three directors/s (p50, p99 ms) | us of processor, all three | \
         three of etcd/s (p50, p99 ms) | directors/etcd |\n|---|---|---|---|---|---|"
    );
    for (outstanding, each) in ROWS {
        let (mut ours, mut costs, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..samples {
            if let Ok(peer) = &peer {
                theirs.push(load::run(peer, outstanding, each, TIME).await);
            }
            let sample = sample(place, (outstanding, each)).await;
            let (measured, cost) = sample.context("a sample of the directors")?;
            ours.push(measured);
            costs.push(cost);
        }
        costs.sort_by(f64::total_cmp);
        let cost = costs.get(costs.len() / 2).copied().unwrap_or_default();
        let ours = load::median(&ours);
        let (peer, ratio) = if theirs.is_empty() {
            (String::from("not run"), String::from("-"))
        } else {
            let theirs = load::median(&theirs);
            let ratio = format!("{:.1}x", ours.per_second / theirs.per_second);
            (theirs.to_string(), ratio)
        };
        println!("| {outstanding} | {each} | {ours} | {cost:.1} | {peer} | {ratio} |");
    }
    Ok(())
}

/// One sample with directors of its own, whose leader is asked, and the processor time of all three for
/// each claim in microseconds.
async fn sample(place: &Place, row: (usize, usize)) -> anyhow::Result<(load::Measured, f64)> {
    let (_folder, quorum) = place.found().await?;
    let client = quorum.admin(quorum.addresses_from(quorum.leader().await?))?;
    let names = quorum.running();
    let pids = names.into_iter().map(|name| quorum.pid(name));
    let pids = pids.collect::<anyhow::Result<Vec<u32>>>()?;
    let used = || pids.iter().map(|pid| processor_time(*pid)).sum();
    claiming::sample(&client, row, TIME, used).await
}
