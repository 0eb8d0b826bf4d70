//! What the renewals of many sessions cost the directors, and whether any is too late while leaders change.

use std::time::{Duration, Instant};

use quorate_benches::program::{processor_time, resident, written};
use quorate_benches::quorum::{Quorum, until};
use quorate_benches::renewing::Counts;

use crate::Place;
use crate::agents::{LEASE_MS, Load, To};

/// Sessions that one director takes: of its 10,000 connections the other directors and whoever asks who leads
/// need some.
const AT_ONE_MAX: u64 = 9_500;
/// How long directors are watched that nobody renews at.
const IDLE: Duration = Duration::from_secs(5);
/// After a change: longer than a lease with all that belongs to it.
const CALM: Duration = Duration::from_secs(12);

/// Measures all three and prints them.
pub(crate) async fn measure(place: &Place, sessions: u64, time: Duration) -> anyhow::Result<()> {
    println!("renewals: lease {LEASE_MS} ms, each session on a TLS connection of its own");
    println!(
        "| renewals come to | sessions | each second | leader: % of a core (idle), us for each, MB (idle), \
         kB written each second | the other two together | tries failed | late | stopped runs | lost | \
         oldest lease, ms |\n|---|---|---|---|---|---|---|---|---|---|"
    );
    cost(place, To::Leader, sessions.min(AT_ONE_MAX), time).await?;
    cost(place, To::Others, sessions, time).await?;
    changes(place, sessions).await
}

/// What a director has used until now.
#[derive(Clone, Copy, Debug)]
struct Used {
    processor: f64,
    resident: f64,
    written: f64,
}

impl Used {
    /// By all of these together.
    fn by(pids: &[u32]) -> anyhow::Result<Self> {
        let mut all = Self {
            processor: 0.0,
            resident: 0.0,
            written: 0.0,
        };
        for pid in pids {
            all.processor += processor_time(*pid)?.as_secs_f64();
            all.resident += resident(*pid)? as f64 / 1e6;
            all.written += written(*pid)? as f64 / 1e3;
        }
        Ok(all)
    }

    /// What was used since.
    fn until(self, now: Self, took: Duration) -> Rate {
        Rate {
            core: (now.processor - self.processor) / took.as_secs_f64(),
            resident: now.resident,
            written: (now.written - self.written) / took.as_secs_f64(),
        }
    }
}

/// What is used for some time.
#[derive(Clone, Copy, Debug)]
struct Rate {
    /// Of a core, 1 being all of it.
    core: f64,
    /// Megabytes in the end.
    resident: f64,
    /// Kilobytes each second.
    written: f64,
}

impl Rate {
    /// Watches these for a while.
    async fn of(pids: &[u32], time: Duration) -> anyhow::Result<Self> {
        let (before, began) = (Used::by(pids)?, Instant::now());
        tokio::time::sleep(time).await;
        Ok(before.until(Used::by(pids)?, began.elapsed()))
    }

    fn told(self, idle: Self, each_second: f64) -> String {
        format!(
            "{:.1} % ({:.1}), {:.1}, {:.0} ({:.0}), {:.1}",
            100.0 * self.core,
            100.0 * idle.core,
            self.core * 1e6 / each_second,
            self.resident,
            idle.resident,
            self.written
        )
    }
}

/// A row: renewals while nothing else happens.
async fn cost(place: &Place, to: To, sessions: u64, time: Duration) -> anyhow::Result<()> {
    let (folder, quorum) = place.found().await?;
    let leader = quorum.leader().await?;
    let others = quorum.running().into_iter().filter(|name| *name != leader);
    let others = others.map(|name| quorum.pid(name));
    let (leads, others) = (
        [quorum.pid(leader)?],
        others.collect::<anyhow::Result<Vec<_>>>()?,
    );
    let watch = async |time| tokio::try_join!(Rate::of(&leads, time), Rate::of(&others, time));
    let idle = watch(IDLE).await?;
    let mut load = Load::start(&quorum, leader, to, sessions, folder.path()).await?;
    tokio::time::sleep(CALM).await;
    eprintln!("while they came in: {:?}", load.take().await?.counts);
    let began = Instant::now();
    let used = watch(time).await?;
    let counts = load.take().await?.counts;
    let each_second = counts.renewed as f64 / began.elapsed().as_secs_f64();
    let leads = quorum.leader().await?;
    anyhow::ensure!(leads == leader, "the leader changed meanwhile");
    println!(
        "| {} | {sessions} | {each_second:.0} | {} | {} | {} |",
        where_to(to),
        used.0.told(idle.0, each_second),
        used.1.told(idle.1, each_second),
        misses(&counts)
    );
    Ok(())
}

const fn where_to(to: To) -> &'static str {
    match to {
        To::Leader => "the leader",
        To::Others => "the other two, which pass them on",
        To::All => "all three",
    }
}

/// Rows: a leader hands over, and one is killed.
async fn changes(place: &Place, sessions: u64) -> anyhow::Result<()> {
    let (folder, mut quorum) = place.found().await?;
    let leader = quorum.leader().await?;
    let mut load = Load::start(&quorum, leader, To::All, sessions, folder.path()).await?;
    tokio::time::sleep(CALM).await;
    load.take().await?;
    let began = Instant::now();
    quorum.admin_of_all()?.transfer_leader(None).await?;
    until("another one leads", async || {
        Ok(quorum.leader().await? != leader)
    })
    .await?;
    row("the leader hands over", sessions, &mut load, began).await?;
    let leader = quorum.leader().await?;
    let began = Instant::now();
    quorum.kill(leader)?;
    row("the leader is killed", sessions, &mut load, began).await?;
    let began = Instant::now();
    quorum.start(leader)?;
    quorum.until_caught_up().await?;
    row("it is back", sessions, &mut load, began).await?;
    stopped(&quorum, sessions, &mut load).await
}

/// A row: the leader stands still for longer than a lease with all that belongs to it.
async fn stopped(quorum: &Quorum, sessions: u64, load: &mut Load) -> anyhow::Result<()> {
    let leader = quorum.leader().await?;
    let began = Instant::now();
    let stopped = quorum.stop(leader)?;
    row("the leader stands still", sessions, load, began).await?;
    stopped.go_on()?;
    quorum.until_caught_up().await
}

/// What came of something that began then.
async fn row(what: &str, sessions: u64, load: &mut Load, began: Instant) -> anyhow::Result<()> {
    tokio::time::sleep(CALM).await;
    let counts = load.take().await?.counts;
    let each_second = counts.renewed as f64 / began.elapsed().as_secs_f64();
    println!(
        "| {}; {what} | {sessions} | {each_second:.0} | | | {} |",
        where_to(To::All),
        misses(&counts)
    );
    if let Some(trouble) = &counts.trouble {
        eprintln!("{what}: the first try that failed heard: {trouble}");
    }
    Ok(())
}

fn misses(counts: &Counts) -> String {
    let Counts {
        failed,
        late,
        beyond,
        lost,
        oldest_ms,
        renewed: _,
        trouble: _,
    } = counts;
    format!("{failed} | {late} | {beyond} | {lost} | {oldest_ms}")
}
