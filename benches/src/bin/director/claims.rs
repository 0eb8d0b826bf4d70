//! Claims per second through a whole director, beside etcd.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use quorate_benches::claiming::{self, BATCH};
use quorate_benches::program::Director;
use quorate_benches::{etcd, load};

const OUTSTANDING: [usize; 4] = [1, 16, 64, 256];

/// Measures every row and prints them.
pub(crate) async fn measure(
    program: &Path,
    folder: &Path,
    rounds: usize,
    time: Duration,
) -> anyhow::Result<()> {
    let peer = etcd::start(folder, 1).await;
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
    row: (usize, usize),
    time: Duration,
) -> anyhow::Result<(load::Measured, f64)> {
    let director = Director::start(program, folder).await?;
    claiming::sample(&director.client, row, time, || director.processor_time()).await
}
