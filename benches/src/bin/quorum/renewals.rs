//! What the renewals of many sessions cost the leader, and whether any is too late while leaders change.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use quorate_benches::program::{processor_time, resident};
use quorate_benches::quorum::{NAMES, Quorum, until};
use quorate_pki::{Identity, Role, Validity};

use crate::Place;
use crate::load::{Counts, Plan};

/// Lease of the sessions: the default of a service.
const LEASE_MS: u64 = 10_000;
/// How long all of them may take to come in.
const JOIN_LIMIT: Duration = Duration::from_secs(300);
/// After they came in, and after a change: longer than a lease with all that belongs to it.
const CALM: Duration = Duration::from_secs(12);

/// Measures all three and prints them.
pub(crate) async fn measure(place: &Place, sessions: u64, time: Duration) -> anyhow::Result<()> {
    println!("{sessions} sessions, lease {LEASE_MS} ms, each on a TLS connection of its own");
    println!(
        "| renewals come to | each second | leader: % of a core | us for each | MB resident (before) | \
         tries failed | late | beyond the lease | lost | oldest lease, ms |\n\
         |---|---|---|---|---|---|---|---|---|---|"
    );
    cost(place, To::Leader, sessions, time).await?;
    cost(place, To::Others, sessions, time).await?;
    changes(place, sessions).await
}

/// Where agents renew first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Leader,
    Others,
    All,
}

/// A row: renewals while nothing else happens.
async fn cost(place: &Place, to: To, sessions: u64, time: Duration) -> anyhow::Result<()> {
    let (folder, quorum) = place.found().await?;
    let leader = quorum.leader().await?;
    let pid = quorum.pid(leader)?;
    let empty = resident(pid)?;
    let mut load = Load::start(&quorum, leader, to, sessions, &folder).await?;
    let (before, began) = (processor_time(pid)?, Instant::now());
    load.take()?;
    tokio::time::sleep(time).await;
    let counts = load.take()?;
    let took = began.elapsed().as_secs_f64();
    let used = processor_time(pid)?.saturating_sub(before).as_secs_f64();
    anyhow::ensure!(
        quorum.leader().await? == leader,
        "the leader changed meanwhile"
    );
    let where_to = match to {
        To::Leader => "the leader",
        To::Others => "the other two",
        To::All => "all three",
    };
    let renewed = counts.renewed as f64;
    println!(
        "| {where_to} | {:.0} | {:.1} | {:.1} | {:.0} ({:.0}) | {} |",
        renewed / took,
        100.0 * used / took,
        used * 1e6 / renewed,
        megabytes(resident(pid)?),
        megabytes(empty),
        misses(&counts)
    );
    Ok(())
}

/// Rows: a leader hands over, and one is killed.
async fn changes(place: &Place, sessions: u64) -> anyhow::Result<()> {
    let (folder, mut quorum) = place.found().await?;
    let leader = quorum.leader().await?;
    let mut load = Load::start(&quorum, leader, To::All, sessions, &folder).await?;
    load.take()?;
    quorum.admin_of_all()?.transfer_leader(None).await?;
    until("another one leads", async || {
        Ok(quorum.leader().await? != leader)
    })
    .await?;
    tokio::time::sleep(CALM).await;
    row("all three; the leader hands over", &load.take()?);
    let leader = quorum.leader().await?;
    quorum.kill(leader)?;
    tokio::time::sleep(CALM).await;
    row("all three; the leader is killed", &load.take()?);
    quorum.start(leader)?;
    quorum.until_caught_up().await
}

fn row(what: &str, counts: &Counts) {
    println!("| {what} | | | | | {} |", misses(counts));
}

fn misses(counts: &Counts) -> String {
    let Counts {
        failed,
        late,
        beyond,
        lost,
        oldest_ms,
        connected: _,
        renewed: _,
    } = counts;
    format!("{failed} | {late} | {beyond} | {lost} | {oldest_ms}")
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// The process of the agents. It ends when this is dropped.
#[derive(Debug)]
struct Load {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Load {
    /// Starts it and waits until every session is there and has renewed for a while.
    async fn start(
        quorum: &Quorum,
        leader: &str,
        to: To,
        sessions: u64,
        folder: &tempfile::TempDir,
    ) -> anyhow::Result<Self> {
        let authority = quorum.authority()?;
        let cluster = authority.trust().cluster();
        let identity = Identity::new(cluster, Role::Agent, "load")?;
        let validity = Validity::usual(std::time::SystemTime::now());
        let papers = authority.papers(&identity, &[], validity)?;
        let firsts = NAMES.into_iter().filter(|name| match to {
            To::Leader => *name == leader,
            To::Others => *name != leader,
            To::All => true,
        });
        let plan = Plan {
            trust: quorum.trust().pem().to_owned(),
            papers: format!("{}{}", papers.chain_pem(), papers.key_pem()),
            token: quorum.token().to_owned(),
            lease_ms: LEASE_MS,
            sessions,
            orders: firsts.map(|first| quorum.addresses_from(first)).collect(),
        };
        let file = folder.path().join("load.json");
        std::fs::write(&file, serde_json::to_vec(&plan)?)?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--load")
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let asks = child.stdin.take().context("it is piped")?;
        let answers = BufReader::new(child.stdout.take().context("it is piped")?);
        let mut load = Self {
            child,
            asks,
            answers,
        };
        let began = Instant::now();
        loop {
            let there = load.take()?.connected;
            if there == sessions {
                break;
            }
            let limit = began.elapsed() < JOIN_LIMIT;
            anyhow::ensure!(limit, "only {there} of {sessions} sessions came in");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let joined = began.elapsed().as_secs_f64();
        tokio::time::sleep(CALM).await;
        eprintln!("all came in within {joined:.1} s: {:?}", load.take()?);
        Ok(load)
    }

    /// What it has counted since the last time.
    fn take(&mut self) -> anyhow::Result<Counts> {
        writeln!(self.asks)?;
        self.asks.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).context("the process of the agents has ended")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
