//! A cluster on this machine: the real `quorate up` with real agents, wardens and recording jobs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::referee::{Judged, judge};
use crate::support::{Done, Machine, done, eventually, free_port, signal};

/// A folder with a job file, a partition list and a record, and the `up` that runs it.
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    port: u16,
    up: Option<Child>,
    /// Agents that were started by hand.
    others: Vec<Child>,
    _machine: Machine,
}

/// A partition as `ls partitions -o json` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) agent: Option<String>,
    pub(crate) token: Option<u64>,
    pub(crate) running: bool,
}

impl Cluster {
    /// Three agents and this job, which may name files in the folder that it is given.
    pub(crate) fn of(job: impl Fn(&Path) -> String) -> Self {
        let mut cluster = Self::new();
        let job = job(cluster.dir());
        std::fs::write(cluster.dir.path().join("job.toml"), job).expect("written");
        cluster.up();
        cluster
    }

    fn new() -> Self {
        Self {
            dir: tempfile::Builder::new()
                .prefix("q")
                .tempdir()
                .expect("a folder"),
            port: free_port(),
            up: None,
            others: Vec::new(),
            _machine: Machine::shared(),
        }
    }

    /// Starts three agents and so many partitions, and waits until all run.
    pub(crate) fn start(partitions: usize) -> Self {
        let cluster = Self::new();
        let command = serde_json::to_string(&crate::recorder::command()).expect("JSON");
        let record = cluster.record();
        let job = format!(
            "[service.s]\ncommand = {command}\nlease = '10s'\nenv = {{ RECORD_FILE = '{}' }}\n\
             [service.s.ready]\nafter = '100ms'\n[service.s.ramp]\nsettle = '1s'\n\
             [service.s.partitions]\nfile = 'list.jsonl'\n",
            record.display()
        );
        std::fs::write(cluster.dir.path().join("job.toml"), job).expect("written");
        cluster.list((0..partitions).map(|n| (format!("p{n:02}"), 1)));
        let mut cluster = cluster;
        cluster.up();
        cluster.all_run(partitions);
        cluster
    }

    /// The record of the jobs.
    pub(crate) fn record(&self) -> PathBuf {
        self.dir.path().join("record")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Where its director listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Writes the partition list: keys with a value in their data.
    pub(crate) fn list(&self, partitions: impl Iterator<Item = (String, u32)>) {
        let text: String = partitions
            .map(|(key, x)| format!("{{\"key\":\"{key}\",\"x\":{x}}}\n"))
            .collect();
        let draft = self.dir.path().join("list.draft");
        std::fs::write(&draft, text).expect("written");
        std::fs::rename(draft, self.dir.path().join("list.jsonl")).expect("renamed");
    }

    /// Starts `up`.
    pub(crate) fn up(&mut self) {
        let errors = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("up.err"))
            .expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args([
                "up",
                "job.toml",
                "--agents",
                "3",
                "--listen",
                &self.address(),
            ])
            .arg("--data-dir")
            .arg(self.data())
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .expect("up starts");
        self.up = Some(child);
    }

    /// Sends `up` a signal and waits until it has ended.
    pub(crate) fn end_up(&mut self, with: Signal) -> Option<i32> {
        let mut up = self.up.take()?;
        signal(up.id(), with);
        up.wait().expect("it ends").code()
    }

    /// The process of an agent, found by its command line.
    pub(crate) fn agent_pid(&self, name: &str) -> u32 {
        let folder = self.data().join("agents").join(name);
        let folder = folder.to_str().expect("text").to_owned();
        eventually("the agent's process is there", || {
            std::fs::read_dir("/proc")
                .expect("/proc")
                .find_map(|entry| {
                    let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
                    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                    let line = String::from_utf8(line).ok()?;
                    let words: Vec<&str> = line.split('\0').collect();
                    (words.get(1) == Some(&"agent") && words.contains(&folder.as_str()))
                        .then_some(pid)
                })
        })
    }

    /// Starts an agent by hand, as `up` says when one was killed.
    pub(crate) fn start_agent(&mut self, name: &str) {
        let child = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(["agent", "--name", name, "--join", &self.address()])
            .arg("--data-dir")
            .arg(self.data().join("agents").join(name))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the agent starts");
        self.others.push(child);
    }

    /// Runs a command against the cluster.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(args)
            .env("QUORATE_ADDRESS", self.address())
            .current_dir(self.dir.path())
            .output()
            .expect("it starts");
        done(&output)
    }

    fn json(&self, args: &[&str]) -> Option<Vec<Value>> {
        let mut all = args.to_vec();
        all.extend(["-o", "json"]);
        let done = self.run(&all);
        (done.code == Some(0)).then(|| serde_json::from_str(&done.out).expect("JSON"))
    }

    /// All partitions by key, when a director answers.
    pub(crate) fn partitions(&self) -> Option<BTreeMap<String, Seen>> {
        let rows = self.json(&["ls", "partitions"])?;
        let seen = |row: Value| {
            let key = row["key"].as_str().expect("a key").to_owned();
            let seen = Seen {
                agent: row["agent"].as_str().map(str::to_owned),
                token: row["token"].as_u64(),
                running: row["running"].as_bool().expect("a flag"),
            };
            (key, seen)
        };
        Some(rows.into_iter().map(seen).collect())
    }

    /// Waits until so many partitions run and there are no others.
    pub(crate) fn all_run(&self, count: usize) -> BTreeMap<String, Seen> {
        self.until("all partitions run", |all| {
            all.len() == count && all.values().all(|seen| seen.running)
        })
    }

    /// Waits until the partitions are as wanted.
    pub(crate) fn until(
        &self,
        what: &str,
        wanted: impl Fn(&BTreeMap<String, Seen>) -> bool,
    ) -> BTreeMap<String, Seen> {
        eventually(what, || self.partitions().filter(|all| wanted(all)))
    }

    /// How many partitions each agent has.
    pub(crate) fn spread(all: &BTreeMap<String, Seen>) -> BTreeMap<String, usize> {
        let mut spread = BTreeMap::new();
        for agent in all.values().filter_map(|seen| seen.agent.clone()) {
            *spread.entry(agent).or_insert(0) += 1;
        }
        spread
    }

    /// What the record says now; there must be nothing wrong in it.
    pub(crate) fn judged(&self) -> Judged {
        let judged = judge(&self.record());
        assert_eq!(judged.problems, Vec::<String>::new());
        judged
    }

    /// The last of what director and agents have logged, for whoever reads of a failure.
    fn tell_logs(&self) {
        let agents = ["a1", "a2", "a3"].map(|name| self.data().join(format!("agents/{name}.log")));
        let up = self.dir.path().join("up.err");
        for path in std::iter::once(up).chain(agents) {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- {}", path.display());
            lines.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }

    /// Where everything is.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell_logs();
        }
        for child in &self.others {
            signal(child.id(), Signal::TERM);
        }
        for child in &mut self.others {
            child.wait().expect("it ends");
        }
        // In order, so that no job outlives the test.
        self.end_up(Signal::TERM);
    }
}

/// So many each on a1, a2 and a3.
pub(crate) fn even(each: usize) -> BTreeMap<String, usize> {
    ["a1", "a2", "a3"]
        .into_iter()
        .map(|name| (name.to_owned(), each))
        .collect()
}
