//! A director, agents, and what is done to them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use quorate_api::resources::ApplyRequest;
use quorate_benches::program::Director;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::record::{Line, read};

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked for; nothing is measured by it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Everything that runs. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    agents: Vec<Option<Child>>,
    director: Director,
    program: PathBuf,
    partitions: usize,
    folder: tempfile::TempDir,
}

/// Processes that stand still.
#[derive(Debug)]
pub(crate) struct Stopped(Vec<Pid>);

impl Stopped {
    /// Lets them go on.
    pub(crate) fn go_on(self) {
        for pid in self.0 {
            // Whose deadline is over was killed meanwhile.
            let _ = kill_process(pid, Signal::CONT);
        }
    }
}

fn name(agent: usize) -> String {
    format!("a{}", agent + 1)
}

impl Cluster {
    /// Starts all and waits until every partition runs.
    pub(crate) async fn start(
        program: &Path,
        agents: usize,
        partitions: usize,
        lease: Duration,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let director = Director::start(program, &folder.path().join("director")).await?;
        let mut cluster = Self {
            agents: (0..agents).map(|_| None).collect(),
            director,
            program: program.to_owned(),
            partitions,
            folder,
        };
        for agent in 0..agents {
            cluster.revive(agent)?;
        }
        let spec = json!({ "service": { "s": {
            "command": [std::env::current_exe()?, "--run", cluster.record()],
            "partitions": { "range": format!("0..{partitions}") },
            "lease": format!("{}ms", lease.as_millis()),
            "ready": { "after": "10ms" },
            "ramp": { "settle": "0s" },
        }}});
        let request = ApplyRequest { spec, base: None };
        cluster.director.client.apply(&request).await?;
        cluster.settled().await?;
        Ok(cluster)
    }

    fn record(&self) -> PathBuf {
        self.folder.path().join("record")
    }

    fn data(&self, agent: usize) -> PathBuf {
        self.folder.path().join(name(agent))
    }

    /// Starts an agent, or starts it again.
    pub(crate) fn revive(&mut self, agent: usize) -> anyhow::Result<()> {
        let child = Command::new(&self.program)
            .args(["agent", "--log-level", "error", "--adopt-within", "0s"])
            .args(["--name", &name(agent)])
            .arg("--join")
            .arg(self.director.address.to_string())
            .arg("--data-dir")
            .arg(self.data(agent))
            .stdin(Stdio::null())
            .spawn()?;
        *self.agents.get_mut(agent).context("no such agent")? = Some(child);
        Ok(())
    }

    /// Waits until every agent holds its share and nothing is under way.
    pub(crate) async fn settled(&self) -> anyhow::Result<()> {
        let share = (self.partitions / self.agents.len()) as u64;
        let even = async || {
            let agents = self.director.client.agents(None).await?.value;
            let full = agents.iter().filter(|agent| agent.partitions >= share);
            let progress = self.director.client.settling(None, None).await?;
            let all = progress.running == self.partitions as u64;
            anyhow::Ok(full.count() == self.agents.len() && progress.settled && all)
        };
        until("everything has settled", even).await
    }

    /// What an agent holds: keys with their tokens.
    pub(crate) async fn held_by(&self, agent: usize) -> anyhow::Result<BTreeMap<String, u64>> {
        let filter = quorate_api::client::PartitionFilter {
            agent: Some(name(agent)),
            ..Default::default()
        };
        let held = self.director.client.partitions(&filter, None).await?.value;
        let held = held.into_iter();
        Ok(held.filter_map(|one| Some((one.key, one.token?))).collect())
    }

    /// Kills an agent; its machine goes on.
    pub(crate) fn kill(&mut self, agent: usize) -> anyhow::Result<()> {
        let child = self.agents.get_mut(agent).and_then(Option::take);
        let mut child = child.context("no such agent")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops everything of an agent: itself, its wardens and its runs, as if its machine stood still.
    pub(crate) fn stand_still(&self, agent: usize) -> anyhow::Result<Stopped> {
        let folder = self.data(agent).to_string_lossy().into_owned();
        let of_agent = format!("QUORATE_AGENT={}", name(agent));
        let of_cluster = self.folder.path().to_string_lossy().into_owned();
        let mut all = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path();
            let pid = path
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            let Some(pid) = pid.and_then(Pid::from_raw) else {
                continue;
            };
            let has = |file: &str, word: &str| {
                let bytes = std::fs::read(path.join(file)).unwrap_or_default();
                String::from_utf8_lossy(&bytes).contains(word)
            };
            let run = has("environ", &of_agent) && has("environ", &of_cluster);
            if run || has("cmdline", &folder) {
                all.push(pid);
            }
        }
        for pid in &all {
            // It may have ended since.
            let _ = kill_process(*pid, Signal::STOP);
        }
        Ok(Stopped(all))
    }

    /// Moves everything off an agent.
    pub(crate) async fn drain(&self, agent: usize) -> anyhow::Result<()> {
        self.director.client.drain(&name(agent)).await?;
        Ok(())
    }

    /// Gives it work again.
    pub(crate) async fn uncordon(&self, agent: usize) -> anyhow::Result<()> {
        self.director.client.uncordon(&name(agent)).await?;
        Ok(())
    }

    /// Waits until all of these run under later tokens; when each of them started.
    pub(crate) async fn starts_elsewhere(
        &self,
        held: &BTreeMap<String, u64>,
        since: u64,
    ) -> anyhow::Result<Vec<u64>> {
        let mut starts = BTreeMap::new();
        until("all run elsewhere", async || {
            for line in self.lines(held, since)? {
                if line.start {
                    starts.entry(line.key).or_insert(line.at);
                }
            }
            Ok(starts.len() == held.len())
        })
        .await?;
        Ok(starts.into_values().collect())
    }

    /// How long each of these was executed by nobody, from its own word that it stops to the next start.
    pub(crate) fn gaps(
        &self,
        held: &BTreeMap<String, u64>,
        since: u64,
    ) -> anyhow::Result<Vec<u64>> {
        let mut stops = BTreeMap::new();
        let mut gaps = Vec::new();
        for line in read(&self.record())? {
            if line.at < since || !held.contains_key(&line.key) {
                continue;
            }
            if !line.start {
                stops.insert(line.key, line.at);
            } else if let Some(stop) = stops.remove(&line.key) {
                gaps.push(line.at.saturating_sub(stop));
            }
        }
        Ok(gaps)
    }

    /// What was written of these since then under later tokens.
    fn lines(&self, held: &BTreeMap<String, u64>, since: u64) -> anyhow::Result<Vec<Line>> {
        let mut lines = read(&self.record())?;
        lines.retain(|line| {
            let later = held.get(&line.key).is_some_and(|token| line.token > *token);
            later && line.at >= since
        });
        Ok(lines)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.agents.iter_mut().flatten() {
            // Killed, its warden ends the runs.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

async fn until(
    what: &str,
    mut met: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !met().await? {
        anyhow::ensure!(Instant::now() < end, "waited too long until {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
