//! A cluster of real processes: [directors](crate::quorum), machines with agents, and a service file whose runs
//! are [workers](crate::worker). It talks to the cluster as a person does, by the program's commands.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::clock::{boot_nanos, nanos};
use crate::director;
use crate::grade::Grade;
use crate::machine::{Kind, Machine, Place, offset};
use crate::privileges::Privileges;
use crate::process::within;
use crate::quorum::Quorum;
use crate::stage::Stage;
use crate::store::{self, Store};
use crate::times::Times;

/// MiB of the small disk of an agent, when there is no crowd.
const DISK: u32 = 12;
/// Keys of the service whose list is a file that grows and shrinks.
const PLAIN: std::ops::Range<u32> = 0..14;
/// How long it may take until a write is accepted after the leader was lost.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);
/// How long an agent may take to leave in order.
const LEAVE_WITHIN: Duration = Duration::from_secs(60);

/// A cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) place: Place,
    pub(crate) machines: Vec<Machine>,
    pub(crate) quorum: Quorum,
    /// The store of the ledger, where the directors share one.
    pub(crate) store: Option<Store>,
    /// Keys of the service that has a list.
    keys: BTreeSet<String>,
    /// Partitions that somebody has stopped.
    pub(crate) stopped: BTreeSet<String>,
    next_key: u32,
    /// Keys of the service whose workers write little.
    crowd: u32,
    /// Counts changes of the service file.
    version: u64,
}

/// What a cluster is to be like.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) program: &'a Path,
    /// What runs execute.
    pub(crate) worker: &'a Path,
    pub(crate) stage: &'a Stage,
    /// Its own folder.
    pub(crate) folder: &'a Path,
    /// Where the sockets of the referee and the register are.
    pub(crate) desk: &'a Path,
    pub(crate) containment: Option<&'static str>,
    pub(crate) grade: Grade,
    pub(crate) privileges: &'a Privileges,
    /// Number of its first machine: two clusters share no network.
    pub(crate) first: u8,
    pub(crate) size: Size,
    /// The store of the ledger; none when the directors keep it themselves.
    pub(crate) ledger: Option<store::Kind>,
}

/// How many of each a cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct Size {
    /// How many directors
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) directors: u8,
    /// How many agents
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=40))]
    pub(crate) agents: u8,
    /// How many partitions more, whose workers write down that they execute every 200 ms instead of every 10, so that
    /// hundreds fit on one machine
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=2000))]
    pub(crate) crowd: u32,
}

/// The machines of a cluster: the first one's wardens wait for nobody, the last one's clock is ahead.
fn kinds(first: u8, size: Size) -> impl Iterator<Item = Kind> {
    let Size { agents, crowd, .. } = size;
    // What a run keeps takes less than 100 KiB, and one agent may have all.
    let disk = DISK + crowd / 10;
    (0..agents).map(move |number| Kind {
        name: format!("a{}", number + 1),
        number: first + number,
        adopt_within: Duration::from_millis(if number == 0 { 0 } else { 1200 }),
        small_disk: (number == 1).then_some(disk),
        ahead: number + 1 == agents,
    })
}

/// From each agent's clock to that of the referee.
pub(crate) fn offsets(size: Size) -> impl Iterator<Item = (String, i64)> {
    kinds(0, size).map(|kind| (kind.name, offset(kind.ahead)))
}

/// The times of a cluster that has its ledger there.
pub(crate) const fn times(ledger: Option<store::Kind>) -> Times {
    match ledger {
        None => Times::EMBEDDED,
        Some(_) => Times::STORE,
    }
}

impl Cluster {
    /// Starts it, and applies its services.
    pub(crate) fn start(wanted: &Wanted<'_>) -> Result<Self> {
        fs::create_dir_all(wanted.folder)?;
        let Size {
            directors, crowd, ..
        } = wanted.size;
        let address = |at| director::address(wanted.stage, wanted.first, at);
        let store = wanted.ledger.map(Store::start).transpose()?;
        let place = Place {
            store: store.as_ref().map(Store::at).transpose()?,
            times: times(wanted.ledger),
            program: wanted.program.to_owned(),
            worker: wanted.worker.to_owned(),
            folder: wanted.folder.to_owned(),
            stage: wanted.stage.clone(),
            directors: (0..directors).map(address).collect(),
            containment: wanted.containment,
            grade: wanted.grade,
            privileges: wanted.privileges.clone(),
        };
        let quorum = Quorum::found(&place, wanted.first)?;
        let machines = kinds(wanted.first, wanted.size).map(|kind| Machine::new(kind, &place));
        let mut cluster = Self {
            machines: machines.collect::<Result<_>>()?,
            quorum,
            store,
            place,
            keys: PLAIN.map(key).collect(),
            stopped: BTreeSet::new(),
            next_key: PLAIN.end,
            crowd,
            version: 1,
        };
        cluster.write_list()?;
        // Before there is anybody who could run it.
        cluster.write(None)?;
        cluster.quorate(&["stop", "probe"])?;
        let token = cluster.quorum.join_token("agent", cluster.machines.len())?;
        for machine in &mut cluster.machines {
            machine.join(&token)?;
            machine.start()?;
        }
        cluster.apply(wanted.desk)?;
        Ok(cluster)
    }

    /// Whether the leader knows every agent to take work, also under the lease of our services: an agent has
    /// another session by which it is known, and only one of the shorter lease can be so near to its expiry
    /// and be renewed all the same.
    pub(crate) fn all_here(&self) -> bool {
        let Ok(agents) = self.quorum.json(&["ls", "agents"]) else {
            return false;
        };
        let Times { lease } = self.place.times;
        let expiry = self.place.times.expiry();
        let renewed = expiry.saturating_sub(lease / 4)..=expiry;
        let here = |agent: &&serde_json::Value| {
            let margin = agent
                .get("lease_margin_ms")
                .and_then(|margin| margin.as_u64());
            agent.get("state").is_some_and(|state| state == "active")
                && margin.is_some_and(|margin| renewed.contains(&Duration::from_millis(margin)))
        };
        let agents = agents.as_array();
        agents.is_some_and(|all| all.iter().filter(here).count() == self.machines.len())
    }

    /// That every agent has proven the grade that it must have, as the directors are told: a run with another one
    /// would prove nothing.
    pub(crate) fn is_of_grade(&self) -> Result<()> {
        let wanted = self.place.grade;
        let agents = self.quorum.json(&["ls", "agents"])?;
        let agents = agents.as_array().context("agents are listed")?;
        for machine in &self.machines {
            let named = |agent: &&Value| {
                let name = agent.get("name").and_then(Value::as_str);
                name == Some(machine.name())
            };
            let agent = agents.iter().find(named);
            let proven = agent.and_then(|agent| agent.get("containment")?.as_str());
            if proven != Some(wanted.name()) {
                bail!(
                    "agent {} has proven the grade {}, and this run is about {wanted}: see its log, and --grade",
                    machine.name(),
                    proven.unwrap_or("none")
                );
            }
        }
        Ok(())
    }

    /// Runs a command of the program to its end; it must succeed.
    pub(crate) fn quorate(&self, args: &[&str]) -> Result<String> {
        self.quorum.quorate(args)
    }

    /// Puts the services in force, each time with another environment for the one that is changed.
    pub(crate) fn apply(&mut self, desk: &Path) -> Result<()> {
        let file = self.place.folder.join("services.toml");
        fs::write(&file, self.services(desk)?)?;
        self.version += 1;
        self.quorate(&["apply", &file.to_string_lossy()])?;
        Ok(())
    }

    fn services(&self, desk: &Path) -> Result<String> {
        let program = &self.place.worker;
        let agents = self.machines.len();
        let service = |name: &str, arguments: &str, partitions: &str, version: u64| {
            format!(
                "[service.{name}]
                 command = ['{}', 'worker'{arguments}]
                 env = {{ CHAOS_FOLDER = '{}', VERSION = '{version}' }}
                 lease = '{}ms'
                 stop = {{ timeout = '1s' }}
                 restart = {{ backoff = '100ms..1s' }}
                 ready = {{ after = '100ms' }}
                 ramp = {{ settle = '1s', expect_agents = {agents} }}
                 [service.{name}.partitions]
                 {partitions}\n",
                program.display(),
                desk.display(),
                self.place.times.lease.as_millis(),
            )
        };
        let hiding = match self.place.containment {
            None => "",
            Some(_) => ", '--hiding'",
        };
        let daemons = format!(", '--daemons', '2'{hiding}");
        let list = "file = 'list.jsonl'\nshrink_guard = '100%'\nevery = '200ms'";
        let crowd = match self.crowd {
            0 => String::new(),
            many => service(
                "crowd",
                ", '--beat', '200'",
                &format!("range = '0..{many}'"),
                1,
            ),
        };
        Ok([
            crowd,
            service("plain", "", list, 1),
            service("daemons", &daemons, "range = '0..6'", 1),
            service("deaf", ", '--deaf'", "range = '0..4'", 1),
            service(
                "slow",
                ", '--slow-stop', '600'",
                "range = '0..4'",
                self.version,
            ),
        ]
        .concat())
    }

    /// Writes something that only a leader can accept, and waits until it is accepted: a service that is stopped,
    /// each time with another environment. One director may be left out of those that are asked.
    pub(crate) fn write(&mut self, without: Option<usize>) -> Result<()> {
        self.write_within(WRITTEN_WITHIN, without)
    }

    /// The same within another limit.
    pub(crate) fn write_within(&mut self, limit: Duration, without: Option<usize>) -> Result<()> {
        self.version += 1;
        let file = self.place.folder.join("probe.toml");
        let text = format!(
            "[service.probe]\ncommand = ['/bin/true']\nenv = {{ VERSION = '{}' }}\n\
             [service.probe.partitions]\nlist = ['stopped']\n",
            self.version
        );
        fs::write(&file, text)?;
        let all = self.place.directors.iter().enumerate();
        let asked = all.filter(|&(at, _)| Some(at) != without);
        let asked: Vec<String> = asked.map(|(_, address)| address.to_string()).collect();
        let (file, asked) = (file.to_string_lossy(), asked.join(","));
        let mut last = Ok(String::new());
        let written = within(limit, "a write is accepted", || {
            last = self.quorate(&["apply", &file, "--address", &asked]);
            last.is_ok().then_some(())
        });
        written.and(last.map(drop))
    }

    /// Every partition that is to run.
    pub(crate) fn wanted(&self) -> BTreeSet<String> {
        let plain = self.keys.iter().map(|key| format!("plain/{key}"));
        let ranges = [
            ("daemons", 6),
            ("deaf", 4),
            ("slow", 4),
            ("crowd", self.crowd),
        ];
        let others = ranges
            .into_iter()
            .flat_map(|(name, count)| (0..count).map(move |key| format!("{name}/{key}")));
        let all = plain.chain(others);
        all.filter(|partition| !self.stopped.contains(partition))
            .collect()
    }

    /// Adds so many partitions to the list.
    pub(crate) fn grow(&mut self, count: u32) -> Result<()> {
        for _ in 0..count {
            self.keys.insert(key(self.next_key));
            self.next_key += 1;
        }
        self.write_list()
    }

    /// Takes the first so many partitions off the list.
    pub(crate) fn shrink(&mut self, count: u32) -> Result<()> {
        for _ in 0..count {
            if let Some(first) = self.keys.pop_first() {
                self.stopped.remove(&format!("plain/{first}"));
            }
        }
        self.write_list()
    }

    /// How many partitions the list has.
    pub(crate) fn listed(&self) -> usize {
        self.keys.len()
    }

    fn write_list(&self) -> Result<()> {
        let lines = self
            .keys
            .iter()
            .map(|key| format!("{{\"key\":\"{key}\"}}\n"));
        let draft = self.place.folder.join("list.draft");
        fs::write(&draft, lines.collect::<String>())?;
        fs::rename(&draft, self.place.folder.join("list.jsonl"))?;
        Ok(())
    }

    /// The machine of this name.
    pub(crate) fn machine(&mut self, at: usize) -> Result<&mut Machine> {
        self.machines.get_mut(at).context("no such machine")
    }

    /// Lets every agent leave in order; what it ran has ended when it has.
    pub(crate) fn leave(&mut self) -> Result<()> {
        for machine in &mut self.machines {
            machine.signal_agent(Signal::TERM);
        }
        let until = boot_nanos() + nanos(LEAVE_WITHIN);
        for machine in &mut self.machines {
            if let Some(mut agent) = machine.agent.take() {
                let left = Duration::from_nanos(until.saturating_sub(boot_nanos()));
                let ended = agent.wait(left).context("an agent leaves")?;
                if !ended.success() {
                    bail!("{} left with {ended}", machine.name());
                }
            }
        }
        for director in &mut self.quorum.directors {
            director.kill();
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for machine in &mut self.machines {
            machine.kill_everything();
        }
    }
}

fn key(number: u32) -> String {
    format!("p{number:04}")
}
