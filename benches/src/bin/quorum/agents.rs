//! Starts the process of the agents that only renew, and asks it what has become of that.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use quorate_benches::quorum::{NAMES, Quorum};
use quorate_pki::{Identity, Role, Validity};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::load::{Plan, Seen};

/// Lease of the sessions: the default of a service.
pub(crate) const LEASE_MS: u64 = 10_000;
/// How long all of them may take to come in.
const JOIN_LIMIT: Duration = Duration::from_secs(300);
/// How often it is looked whether they are; nothing is measured by it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the process may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Where agents ask first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// At the leader.
    Leader,
    /// At the others, half of them at each.
    Others,
    /// At each a third.
    All,
}

/// The process of the agents. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Load {
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Load {
    /// Starts it and waits until every session is there.
    pub(crate) async fn start(
        quorum: &Quorum,
        leader: &str,
        to: To,
        sessions: u64,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let file = folder.join("load.json");
        let plan = plan(quorum, leader, to, sessions)?;
        std::fs::write(&file, serde_json::to_vec(&plan)?)?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--load")
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let asks = child.stdin.take().context("it is piped")?;
        let answers = BufReader::new(child.stdout.take().context("it is piped")?);
        let mut load = Self {
            asks,
            answers: answers.lines(),
            _child: child,
        };
        let began = Instant::now();
        let mut trouble = None;
        loop {
            let Seen { connected, counts } = load.take().await?;
            trouble = trouble.or(counts.trouble);
            if connected == sessions {
                break;
            }
            anyhow::ensure!(
                began.elapsed() < JOIN_LIMIT,
                "only {connected} of {sessions} sessions came in; the first trouble: {trouble:?}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let joined = began.elapsed().as_secs_f64();
        eprintln!("{sessions} sessions came in within {joined:.1} s; trouble: {trouble:?}");
        Ok(load)
    }

    /// What it has counted since the last time.
    pub(crate) async fn take(&mut self) -> anyhow::Result<Seen> {
        let answer = async {
            self.asks.write_all(b"\n").await?;
            self.asks.flush().await?;
            self.answers.next_line().await
        };
        let line = tokio::time::timeout(ANSWER_LIMIT, answer).await;
        let line = line.context("the process of the agents does not answer")??;
        let line = line.context("the process of the agents has ended")?;
        Ok(serde_json::from_str(&line)?)
    }
}

fn plan(quorum: &Quorum, leader: &str, to: To, sessions: u64) -> anyhow::Result<Plan> {
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
    Ok(Plan {
        trust: quorum.trust().pem().to_owned(),
        papers: format!("{}{}", papers.chain_pem(), papers.key_pem()),
        token: quorum.token().to_owned(),
        lease_ms: LEASE_MS,
        sessions,
        orders: firsts.map(|first| quorum.addresses_from(first)).collect(),
    })
}
