//! Very many partitions over three directors: how long until all are assumed, what they cost in memory, how long
//! and large their state is as a file, and how soon a new leader serves with them.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use quorate_benches::fleet::Bereft;
use quorate_benches::program::{processor_time, resident};
use quorate_benches::quorum::{NAMES, Quorum};

use crate::Place;
use crate::takeover;
use crate::workers::{Rollout, Workers};

/// Longest of anything that is waited for.
const LIMIT: Duration = Duration::from_secs(600);
/// How often the leader is killed.
const KILLS: usize = 3;
/// Files of state in the folder of a director: the newest, and the one before.
const SNAPSHOTS: [&str; 2] = ["snapshot", "snapshot-before"];

/// How much there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) partitions: usize,
    pub(crate) services: usize,
    pub(crate) agents: usize,
}

/// Measures it and prints it.
pub(crate) async fn measure(place: &Place, size: Size) -> anyhow::Result<()> {
    let Size {
        partitions,
        services,
        agents,
    } = size;
    println!(
        "ready: {partitions} partitions of {services} services on {agents} agents, three directors"
    );
    let (folder, mut quorum) = place.found().await?;
    let mut workers = Workers::join(&quorum, agents, LIMIT).await?;
    let leader = quorum.leader().await?;
    let empty = memory(&quorum)?;
    let Rollout {
        applied,
        assigned,
        assumed,
        refused,
    } = {
        let done = workers.roll_out(services, partitions).await;
        done.with_context(|| last_words(&quorum))?
    };
    println!(
        "apply answered after {:.2} s, all assigned after {:.2} s, all assumed after {:.2} s; claims that came \
         too late: {refused}",
        applied.as_secs_f64(),
        assigned.as_secs_f64(),
        assumed.as_secs_f64()
    );
    quorum.until_caught_up().await?;
    for ((name, before), (_, now)) in empty.into_iter().zip(memory(&quorum)?) {
        println!(
            "{name}{}: {:.0} MB resident, {:.0} B more for each partition (goal 200 in all), {:.1} s of \
             processor",
            if name == leader { " (leads)" } else { "" },
            now as f64 / 1e6,
            now.saturating_sub(before) as f64 / partitions as f64,
            processor_time(quorum.pid(name)?)?.as_secs_f64()
        );
    }
    let renewals = workers.renewals();
    println!(
        "sessions that stopped runs or were lost meanwhile: {} of {agents}; tries to renew that failed: {}, \
         oldest lease {} ms",
        renewals.missed(),
        renewals.failed,
        renewals.oldest_ms
    );
    backup(&quorum).await?;
    for name in NAMES {
        println!(
            "{name}: snapshots on disk: {}",
            snapshots(&folder.path().join(name))?
        );
    }
    for _ in 0..KILLS {
        let killed = takeover::kill(&mut quorum, &mut workers).await;
        let (leader, took) = killed.with_context(|| last_words(&quorum))?;
        let began = Instant::now();
        quorum.start(leader)?;
        quorum.until_caught_up().await?;
        println!(
            "leader killed: a claim is committed after {:.0} ms; started again, it has caught up after {:.2} s \
             (goal 2 s)",
            took.as_secs_f64() * 1e3,
            began.elapsed().as_secs_f64()
        );
    }
    let renewals = workers.renewals();
    let Bereft { stopping, lost } = workers.bereft().await?;
    println!(
        "sessions that stopped runs or were lost meanwhile: {} of {agents}, oldest lease {} ms; partitions to \
         stop: {stopping}, lost: {lost}",
        renewals.missed(),
        renewals.oldest_ms,
    );
    for (name, now) in memory(&quorum)? {
        println!("{name}: {:.0} MB resident in the end", now as f64 / 1e6);
    }
    Ok(())
}

fn last_words(quorum: &Quorum) -> String {
    format!("the directors' last words:\n{}", quorum.last_words())
}

fn memory(quorum: &Quorum) -> anyhow::Result<Vec<(&'static str, u64)>> {
    let names = quorum.running().into_iter();
    let of = |name| anyhow::Ok((name, resident(quorum.pid(name)?)?));
    names.map(of).collect()
}

/// The state as a file, which has the same content as a snapshot.
async fn backup(quorum: &Quorum) -> anyhow::Result<()> {
    let client = quorum.admin_of_all()?;
    let began = Instant::now();
    let all = async {
        let mut bytes = 0;
        let mut stream = client.backup().await?;
        while let Some(piece) = stream.next().await? {
            bytes += piece.len();
        }
        anyhow::Ok(bytes)
    };
    let bytes = tokio::time::timeout(LIMIT, all).await;
    let bytes = bytes.context("no backup")??;
    println!(
        "backup: {:.1} MB in {:.2} s",
        bytes as f64 / 1e6,
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The sizes of those in a folder and all in it.
fn snapshots(folder: &Path) -> anyhow::Result<String> {
    let mut told = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if SNAPSHOTS.iter().any(|snapshot| name == *snapshot) {
                let megabytes = metadata.len() as f64 / 1e6;
                told.push(format!("{} {megabytes:.1} MB", name.display()));
            }
        }
    }
    told.sort_unstable();
    Ok(if told.is_empty() {
        String::from("none yet")
    } else {
        told.join(", ")
    })
}
