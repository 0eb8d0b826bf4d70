//! Three directors and three agents as processes of their own, and the faults that they must bear.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Instant, SystemTime};

use quorate_core::ids::{ClusterId, DirectorName};
use quorate_pki::{Authority, Identity, PAPERS, Role, TRUST, Validity};
use quorate_raft::Start;
use rustix::process::Signal;
use serde_json::Value;

use crate::referee::judge;
use crate::support::{Done, Machine, done, eventually, signal};

const AGENTS: [&str; 3] = ["a1", "a2", "a3"];

/// Directors `d1` to `d3`, of which `d1` founded the cluster, and agents `a1` to `a3`.
struct Quorum {
    dir: tempfile::TempDir,
    /// Of each director: its API, and its port for the others.
    ports: BTreeMap<String, (u16, u16)>,
    authority: Authority,
    cluster: ClusterId,
    directors: BTreeMap<String, Child>,
    agents: BTreeMap<String, Child>,
    _machine: Machine,
}

impl Quorum {
    /// One director that leads.
    fn found() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("q")
            .tempdir()
            .expect("a folder");
        let name = DirectorName::new("d1").expect("a name");
        let ledger = dir.path().join("d1/ledger");
        std::fs::create_dir_all(&ledger).expect("made");
        let ids = quorate_raft::ids(&ledger, &name, Start::Found).expect("an identity");
        let cluster = ClusterId(ids.cluster);
        let mut quorum = Self {
            dir,
            ports: ports(),
            authority: Authority::new(cluster, SystemTime::now()).expect("an authority"),
            cluster,
            directors: BTreeMap::new(),
            agents: BTreeMap::new(),
            _machine: Machine::shared(),
        };
        quorum.papers("d1");
        quorum.director("d1");
        quorum
    }

    /// The same with three.
    fn of_three() -> Self {
        let mut quorum = Self::found();
        for name in ["d2", "d3"] {
            quorum.papers(name);
            quorum.director(name);
            quorum.until_voters("d1", if name == "d2" { 2 } else { 3 });
        }
        quorum
    }

    fn papers(&self, name: &str) {
        let identity = Identity::new(self.cluster, Role::Director, name).expect("a name");
        let validity = Validity::usual(SystemTime::now());
        let papers = self.authority.papers(&identity, &[], validity);
        let pki = self.dir.path().join(name).join("pki");
        std::fs::create_dir_all(&pki).expect("made");
        papers
            .expect("signed")
            .store(&pki.join(PAPERS))
            .expect("written");
        self.authority
            .trust()
            .store(&pki.join(TRUST))
            .expect("written");
    }

    fn log(&self, name: &str) -> std::fs::File {
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("{name}.log")))
            .expect("a log")
    }

    /// Starts a director; all but the first join it.
    fn director(&mut self, name: &str) {
        let (api, peer) = self.ports[name];
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command
            .args(["director", "--name", name])
            .arg("--data-dir")
            .arg(self.dir.path().join(name))
            .arg("--source-root")
            .arg(self.dir.path())
            .args(["--listen", &format!("127.0.0.1:{api}")])
            .args(["--peer-listen", &format!("127.0.0.1:{peer}")]);
        if name != "d1" {
            command.args(["--join", &format!("127.0.0.1:{}", self.ports["d1"].0)]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log(name))
            .spawn()
            .expect("a director starts");
        self.directors.insert(name.to_owned(), child);
    }

    /// Starts an agent that knows one director.
    fn agent(&mut self, name: &str, director: &str) {
        let child = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(["agent", "--name", name])
            .args(["--join", &self.address(director)])
            .arg("--data-dir")
            .arg(self.dir.path().join(name))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log(name))
            .spawn()
            .expect("an agent starts");
        self.agents.insert(name.to_owned(), child);
    }

    fn address(&self, director: &str) -> String {
        format!("127.0.0.1:{}", self.ports[director].0)
    }

    /// Runs a command at one director.
    fn at(&self, director: &str, args: &[&str]) -> Done {
        let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(args)
            .env("QUORATE_ADDRESS", self.address(director))
            .current_dir(self.dir.path())
            .output()
            .expect("it starts");
        done(&output)
    }

    /// Runs a command that may be repeated until it is done.
    fn done(&self, director: &str, args: &[&str]) -> Done {
        eventually("it is done", || {
            let done = self.at(director, args);
            (done.code == Some(0)).then_some(done)
        })
    }

    fn json(&self, director: &str, args: &[&str]) -> Option<Value> {
        let mut all = args.to_vec();
        all.extend(["-o", "json"]);
        let done = self.at(director, &all);
        (done.code == Some(0)).then(|| serde_json::from_str(&done.out).expect("JSON"))
    }

    fn until_voters(&self, director: &str, count: u64) {
        eventually("so many vote", || {
            let cluster = self.json(director, &["cluster", "status"])?;
            (cluster["voters"].as_u64() == Some(count)).then_some(())
        });
    }

    /// Who leads, as a living director says.
    fn leader(&self) -> String {
        eventually("somebody leads", || {
            self.directors.keys().find_map(|name| {
                let all = self.json(name, &["ls", "directors"])?;
                let all = all.as_array()?;
                let leads = all.iter().find(|row| row["role"] == "leader")?;
                let leader = leads["name"].as_str()?.to_owned();
                self.directors.contains_key(&leader).then_some(leader)
            })
        })
    }

    fn kill(&mut self, director: &str) {
        let mut child = self.directors.remove(director).expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// Puts a service of so many partitions that write down that they execute, and waits until all run.
    fn apply(&self, partitions: usize) {
        let command = serde_json::to_string(&crate::recorder::command()).expect("JSON");
        let record = self.dir.path().join("record");
        let keys: Vec<String> = (0..partitions).map(|n| format!("'p{n:02}'")).collect();
        let job = format!(
            "[service.s]\ncommand = {command}\nlease = '10s'\nenv = {{ RECORD_FILE = '{}' }}\n\
             [service.s.ready]\nafter = '100ms'\n[service.s.ramp]\nsettle = '1s'\n\
             [service.s.partitions]\nlist = [{}]\n",
            record.display(),
            keys.join(", ")
        );
        std::fs::write(self.dir.path().join("job.toml"), job).expect("written");
        // A new quorum may still elect its leader; to apply twice is to apply once.
        self.done("d2", &["apply", "job.toml"]);
        self.all_run("d3", partitions);
    }

    /// Waits until so many run; their tokens.
    fn all_run(&self, director: &str, count: usize) -> BTreeMap<String, u64> {
        eventually("all partitions run", || {
            let rows = self.json(director, &["ls", "partitions"])?;
            let rows = rows.as_array()?;
            let run = rows.iter().filter(|row| row["running"] == true);
            let run: BTreeMap<String, u64> = run
                .filter_map(|row| Some((row["key"].as_str()?.to_owned(), row["token"].as_u64()?)))
                .collect();
            (run.len() == count).then_some(run)
        })
    }

    /// How many runs began so far; nothing must be wrong with them.
    fn runs(&self) -> usize {
        let judged = judge(&self.dir.path().join("record"));
        assert_eq!(judged.problems, Vec::<String>::new());
        judged.runs.len()
    }
}

impl Drop for Quorum {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in self.ports.keys().map(String::as_str).chain(AGENTS) {
                let log = std::fs::read_to_string(self.dir.path().join(format!("{name}.log")));
                let log = log.unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(25).collect();
                eprintln!("--- {name}");
                end.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
        // Agents first, in order, so that no job outlives the test.
        for all in [&mut self.agents, &mut self.directors] {
            for child in all.values() {
                signal(child.id(), Signal::TERM);
            }
            for child in all.values_mut() {
                child.wait().expect("it ends");
            }
        }
    }
}

/// Six free ports, all found before the first is let go.
fn ports() -> BTreeMap<String, (u16, u16)> {
    let bind = || TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let held: Vec<TcpListener> = (0..6).map(|_| bind()).collect();
    let port = |at: usize| held[at].local_addr().expect("it has an address").port();
    let pair = |n: usize| (format!("d{}", n + 1), (port(n * 2), port(n * 2 + 1)));
    (0..3).map(pair).collect()
}

#[test]
fn directors_come_in_one_after_the_other_and_work_goes_on_through_the_loss_of_any() {
    let mut quorum = Quorum::found();
    quorum.papers("d2");
    quorum.director("d2");
    quorum.until_voters("d1", 2);
    let status = quorum.done("d2", &["cluster", "status"]);
    assert!(status.err.contains("bears the loss of 0"), "{}", status.err);
    quorum.papers("d3");
    quorum.director("d3");
    quorum.until_voters("d1", 3);
    let status = quorum.done("d3", &["cluster", "status"]);
    assert!(
        status.out.contains("one of which may be lost"),
        "{}",
        status.out
    );

    // Each agent knows only one director at first, and learns of the others.
    for (agent, director) in AGENTS.into_iter().zip(["d1", "d2", "d3"]) {
        quorum.agent(agent, director);
    }
    quorum.apply(12);
    let before = quorum.all_run("d1", 12);
    let begun = quorum.runs();

    for _ in 0..3 {
        let leader = quorum.leader();
        let killed = Instant::now();
        quorum.kill(&leader);
        let left: Vec<String> = quorum.directors.keys().cloned().collect();
        for name in &left {
            let done = eventually("a write succeeds at each that is left", || {
                let done = quorum.at(name, &["cordon", "a1"]);
                (done.code == Some(0)).then_some(done)
            });
            assert!(done.err.is_empty(), "{}", done.err);
            assert_eq!(quorum.at(name, &["uncordon", "a1"]).code, Some(0));
        }
        eprintln!(
            "{leader} killed, both others wrote after {:?}",
            killed.elapsed()
        );
        quorum.director(&leader);
        quorum.until_voters(&left[0], 3);
        eventually("it follows again", || {
            let done = quorum.at(&leader, &["ls", "agents"]);
            (done.code == Some(0)).then_some(())
        });
    }
    // The agent that was told of d1 alone has learned of the others: its lease outlives d1.
    let learned = std::fs::read_to_string(quorum.dir.path().join("a1/directors"));
    assert_eq!(learned.expect("what it has learned").lines().count(), 3);
    quorum.kill("d1");
    let killed = Instant::now();
    let after = eventually("more than a lease is over and all run", || {
        let run = quorum.all_run("d2", 12);
        (killed.elapsed() > std::time::Duration::from_secs(11)).then_some(run)
    });
    assert_eq!(before, after, "no partition has moved");
    assert_eq!(quorum.runs(), begun, "nothing was restarted");
}

#[test]
fn a_leader_that_stops_in_order_hands_over_first_and_one_that_is_removed_does_too() {
    let mut quorum = Quorum::of_three();
    quorum.agent("a1", "d3");
    quorum.apply(4);
    let before = quorum.all_run("d1", 4);

    let leader = quorum.leader();
    let mut child = quorum.directors.remove(&leader).expect("it runs");
    signal(child.id(), Signal::TERM);
    assert!(child.wait().expect("it ends").success());
    let log = std::fs::read_to_string(quorum.dir.path().join(format!("{leader}.log")));
    assert!(log.expect("a log").contains("leadership is handed over"));
    quorum.director(&leader);

    let second = quorum.leader();
    eventually("it leads", || {
        quorum.done(&second, &["cluster", "transfer-leader", "--to", &leader]);
        (quorum.leader() == leader).then_some(())
    });
    // One that leads hands over before it goes; asked again, it is not there any more.
    eventually("it is removed", || {
        let gone = quorum.at(&second, &["cluster", "remove", &leader]);
        [Some(0), Some(3)].contains(&gone.code).then_some(())
    });
    quorum.kill(&leader);
    let left = quorum.leader();
    assert_ne!(left, leader);
    eventually("nobody knows it", || {
        let unknown = quorum.at(&left, &["cluster", "remove", &leader]);
        (unknown.code == Some(3)).then_some(())
    });
    let status = quorum.done(&left, &["cluster", "status"]);
    assert!(status.out.contains("2 directors vote"), "{}", status.out);
    assert!(status.err.contains("bears the loss of 0"), "{}", status.err);
    assert_eq!(quorum.all_run(&left, 4), before, "no partition has moved");
}

#[test]
fn without_a_majority_work_goes_on_until_its_lease_and_what_is_known_can_be_read() {
    let mut quorum = Quorum::of_three();
    quorum.agent("a1", "d1");
    quorum.apply(2);
    let leader = quorum.leader();
    let left = ["d1", "d2", "d3"].into_iter().find(|name| *name != leader);
    let left = left.expect("another").to_owned();
    let others: Vec<String> = quorum
        .directors
        .keys()
        .filter(|d| **d != left)
        .cloned()
        .collect();
    for name in &others {
        quorum.kill(name);
    }
    let refused = quorum.at(&left, &["cordon", "a1"]);
    assert_eq!(refused.code, Some(6), "{}", refused.err);
    assert!(
        refused.err.contains("none of them leads"),
        "{}",
        refused.err
    );
    let stale = quorum.at(&left, &["api", "GET", "/v1/services?stale=true"]);
    assert!(stale.out.contains("\"s\""), "{} {}", stale.out, stale.err);
    for name in &others {
        quorum.director(name);
    }
    quorum.all_run(&left, 2);
    // Whatever became of the runs in between, none was ever there twice.
    quorum.runs();
}
