//! A cluster of real processes: a director, machines with agents, and a service file whose runs are
//! [workers](crate::worker). It talks to the cluster as a person does, by the program's commands.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::clock::{boot_nanos, nanos};
use crate::machine::{Kind, Machine, PORT, Place, log, offset};
use crate::process::{Held, within};
use crate::stage::Stage;

/// The lease of every service, short so that many faults fit in.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// After so long without a renewal its work may run elsewhere, as `docs/adr/0002-lease-arithmetic.md` has it:
/// X = (L + K)(1 + ρ)/(1 − ρ), with K = 0.5 s and ρ = 1 %.
pub(crate) const EXPIRY: Duration = Duration::from_millis(2551);
/// Keys of the service whose list is a file that grows and shrinks.
const PLAIN: std::ops::Range<u32> = 0..14;
/// A director of a small cluster is ready in well under a second.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long the director may take to answer what it has in memory or on disk.
const GET_WITHIN: Duration = Duration::from_secs(2);
/// How long an agent may take to leave in order.
const LEAVE_WITHIN: Duration = Duration::from_secs(60);
const AGENTS: u8 = 3;

/// A cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) place: Place,
    pub(crate) machines: Vec<Machine>,
    director: Option<Held>,
    /// Keys of the service that has a list.
    keys: BTreeSet<String>,
    /// Partitions that somebody has stopped.
    pub(crate) stopped: BTreeSet<String>,
    next_key: u32,
    /// Counts changes of the service file.
    version: u64,
}

/// What a cluster is to be like.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) program: &'a Path,
    pub(crate) stage: &'a Stage,
    /// Its own folder.
    pub(crate) folder: &'a Path,
    /// Where the sockets of the referee and the register are.
    pub(crate) desk: &'a Path,
    pub(crate) containment: Option<&'static str>,
    /// Number of its first machine: two clusters share no network.
    pub(crate) first: u8,
}

/// The machines of a cluster: the first one's wardens wait for nobody, the last one's clock is ahead.
fn kinds(first: u8) -> impl Iterator<Item = Kind> {
    (0..AGENTS).map(move |number| Kind {
        name: format!("a{}", number + 1),
        number: first + number,
        adopt_within: Duration::from_millis(if number == 0 { 0 } else { 1200 }),
        small_disk: number == 1,
        ahead: number == AGENTS - 1,
    })
}

/// From each agent's clock to that of the referee.
pub(crate) fn offsets() -> impl Iterator<Item = (String, i64)> {
    kinds(0).map(|kind| (kind.name, offset(kind.ahead)))
}

impl Cluster {
    /// Starts it, and applies its services.
    pub(crate) fn start(wanted: &Wanted<'_>) -> Result<Self> {
        fs::create_dir_all(wanted.folder)?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let director = if wanted.stage.private && wanted.first == 0 {
            SocketAddr::from(([127, 0, 0, 1], PORT))
        } else {
            TcpListener::bind(any)?.local_addr()?
        };
        let place = Place {
            program: wanted.program.to_owned(),
            folder: wanted.folder.to_owned(),
            stage: wanted.stage.clone(),
            director,
            containment: wanted.containment,
        };
        let machines = kinds(wanted.first).map(|kind| Machine::new(kind, &place));
        let mut cluster = Self {
            machines: machines.collect::<Result<_>>()?,
            place,
            director: None,
            keys: PLAIN.map(key).collect(),
            stopped: BTreeSet::new(),
            next_key: PLAIN.end,
            version: 1,
        };
        cluster.write_list()?;
        cluster.start_director()?;
        cluster.ready()?;
        for machine in &mut cluster.machines {
            machine.start()?;
        }
        cluster.apply(wanted.desk)?;
        Ok(cluster)
    }

    /// Starts the director.
    pub(crate) fn start_director(&mut self) -> Result<()> {
        let mut command = Command::new(&self.place.program);
        command
            .args(["director", "--name", "d1", "--listen"])
            .arg(self.place.director.to_string())
            .arg("--data-dir")
            .arg(self.place.folder.join("director"))
            .arg("--source-root")
            .arg(&self.place.folder)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log(&self.place.folder, "director")?);
        self.director = Some(Held::start(&mut command)?);
        Ok(())
    }

    /// Kills it.
    pub(crate) fn kill_director(&mut self) {
        if let Some(director) = self.director.take() {
            director.kill();
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal_director(&mut self, signal: Signal) {
        if let Some(director) = &mut self.director {
            director.signal(signal);
        }
    }

    /// Waits until the director says that it can answer.
    pub(crate) fn ready(&self) -> Result<()> {
        within(READY_WITHIN, "the director is ready", || {
            self.asks_ready().ok()?.then_some(())
        })
    }

    fn asks_ready(&self) -> Result<bool> {
        Ok(self.get("/readyz")?.0 == 200)
    }

    /// Reads a path of the director's: the status, and the body.
    fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.place.director)?;
        stream.set_read_timeout(Some(GET_WITHIN))?;
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
        let status = head.split(' ').nth(1).context("no status")?;
        Ok((status.parse()?, body.to_owned()))
    }

    /// The tokens under which a partition has been assumed, as far as the director has kept that.
    pub(crate) fn assumed(&self, partition: &str) -> Result<BTreeSet<u64>> {
        let (service, key) = partition.split_once('/').context("no partition")?;
        let path = format!("/v1/services/{service}/partitions/{key}/history");
        let (status, body) = self.get(&path)?;
        if status != 200 {
            bail!("{path}: {status}: {body}");
        }
        let view: serde_json::Value = serde_json::from_str(&body)?;
        let entries = view.get("entries").and_then(|entries| entries.as_array());
        let entries = entries.context("a history has entries")?;
        let assumed = entries
            .iter()
            .filter(|entry| entry.get("kind").is_some_and(|kind| kind == "assumed"));
        Ok(assumed
            .filter_map(|entry| entry.get("token")?.as_u64())
            .collect())
    }

    /// Whether the director knows every agent to take work, also under the lease of our services: an agent has
    /// another session by which it is known, and only one of the shorter lease can be so near to its expiry
    /// and be renewed all the same.
    pub(crate) fn all_here(&self) -> bool {
        let Ok(text) = self.quorate(&["ls", "agents", "-o", "json"]) else {
            return false;
        };
        let agents: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let renewed = EXPIRY.saturating_sub(LEASE / 4)..=EXPIRY;
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

    /// Runs a command of the program to its end; it must succeed.
    pub(crate) fn quorate(&self, args: &[&str]) -> Result<String> {
        let mut command = self.command(args);
        let output = command.output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "quorate {}: {}: {}",
                args.join(" "),
                output.status,
                said.trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A command of the program, not started yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.place.program);
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("QUORATE_ADDRESS", self.place.director.to_string())
            .stdin(Stdio::null());
        command
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
        let program = std::env::current_exe()?;
        let service = |name: &str, arguments: &str, partitions: &str, version: u64| {
            format!(
                "[service.{name}]
                 command = ['{}', 'worker'{arguments}]
                 env = {{ CHAOS_FOLDER = '{}', VERSION = '{version}' }}
                 lease = '{}ms'
                 stop = {{ timeout = '1s' }}
                 restart = {{ backoff = '100ms..1s' }}
                 ready = {{ after = '100ms' }}
                 ramp = {{ settle = '1s', expect_agents = {AGENTS} }}
                 [service.{name}.partitions]
                 {partitions}\n",
                program.display(),
                desk.display(),
                LEASE.as_millis(),
            )
        };
        let hiding = match self.place.containment {
            None => "",
            Some(_) => ", '--hiding'",
        };
        let daemons = format!(", '--daemons', '2'{hiding}");
        let list = "file = 'list.jsonl'\nshrink_guard = '100%'\nevery = '200ms'";
        Ok([
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

    /// Every partition that is to run.
    pub(crate) fn wanted(&self) -> BTreeSet<String> {
        let plain = self.keys.iter().map(|key| format!("plain/{key}"));
        let ranges = [("daemons", 6), ("deaf", 4), ("slow", 4)];
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
        self.kill_director();
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
