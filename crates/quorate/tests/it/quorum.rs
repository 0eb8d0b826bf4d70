//! Three directors and three agents as processes of their own, and the faults that they must bear.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Instant, SystemTime};

use quorate_pki::{Authority, Identity, PAPERS, Role, Validity};
use rustix::process::Signal;
use serde_json::Value;

use crate::referee::judge;
use crate::support::{Done, Machine, done, eventually, signal};

const AGENTS: [&str; 3] = ["a1", "a2", "a3"];

/// Directors `d1` to `d3`, of which `d1` founded the cluster, and agents `a1` to `a3`, all with certificates.
pub(crate) struct Quorum {
    pub(crate) dir: tempfile::TempDir,
    /// Of each director: its API, and its port for the others.
    pub(crate) ports: BTreeMap<String, (u16, u16)>,
    pub(crate) directors: BTreeMap<String, Child>,
    agents: BTreeMap<String, Child>,
    /// Variables of the daemons that are started from now on.
    pub(crate) env: BTreeMap<&'static str, &'static str>,
    /// The store of the ledger, where the directors do not keep it themselves.
    pub(crate) ledger: Option<String>,
    _machine: Machine,
}

impl Quorum {
    /// One director that leads.
    pub(crate) fn found() -> Self {
        Self::found_with(BTreeMap::new(), None)
    }

    fn found_with(env: BTreeMap<&'static str, &'static str>, ledger: Option<String>) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("q")
            .tempdir()
            .expect("a folder");
        let mut quorum = Self {
            dir,
            ports: ports(),
            directors: BTreeMap::new(),
            agents: BTreeMap::new(),
            env,
            ledger,
            _machine: Machine::shared(),
        };
        let mut init = ["init", "--name", "d1", "--data-dir", "d1"]
            .map(str::to_owned)
            .to_vec();
        init.extend(quorum.listens("d1"));
        let made = quorum.run(&init);
        assert_eq!(made.code, Some(0), "{}", made.err);
        quorum.secret("admin", &made.out);
        quorum.director("d1");
        for (role, uses) in [("director", "2"), ("agent", "3")] {
            let create = ["join-token", "create", "--role", role, "--uses", uses];
            let token = quorum.done("d1", &create);
            quorum.secret(role, &token.out);
        }
        quorum
    }

    /// The same with three.
    pub(crate) fn of_three() -> Self {
        Self::of_three_with(BTreeMap::new())
    }

    /// The same, all daemons with these variables.
    pub(crate) fn of_three_with(env: BTreeMap<&'static str, &'static str>) -> Self {
        let mut quorum = Self::found_with(env, None);
        for name in ["d2", "d3"] {
            quorum.let_in(name);
            quorum.director(name);
            quorum.until_voters("d1", if name == "d2" { 2 } else { 3 });
        }
        quorum
    }

    /// Three that have their ledger in a store.
    pub(crate) fn over(ledger: &str) -> Self {
        let mut quorum = Self::found_with(BTreeMap::new(), Some(ledger.to_owned()));
        for name in ["d2", "d3"] {
            quorum.let_in(name);
            quorum.director(name);
        }
        eventually("all three are known", || {
            let cluster = quorum.json("d1", &["cluster", "status"])?;
            (cluster["members"].as_array()?.len() == 3).then_some(())
        });
        quorum
    }

    /// Where a director is to listen, or has its ledger.
    fn listens(&self, name: &str) -> [String; 4] {
        let at = |port: u16| format!("127.0.0.1:{port}");
        let (api, peer) = self.ports[name];
        let (key, value) = match &self.ledger {
            Some(ledger) => ("--ledger", ledger.clone()),
            None => ("--peer-listen", at(peer)),
        };
        ["--listen".into(), at(api), key.into(), value]
    }

    /// Keeps a token in a file for its owner alone.
    pub(crate) fn secret(&self, name: &str, token: &str) {
        let path = self.dir.path().join(name);
        let mut file = std::fs::File::options()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .expect("a file");
        file.write_all(token.as_bytes()).expect("written");
    }

    /// Makes the folder of a director that joins.
    pub(crate) fn let_in(&self, name: &str) {
        let mut args = self.joining(name, "director", &self.address("d1"));
        args.extend(self.listens(name));
        let joined = self.run(&args);
        assert_eq!(joined.code, Some(0), "{}", joined.err);
    }

    pub(crate) fn joining(&self, name: &str, role: &str, at: &str) -> Vec<String> {
        let args = [
            "join",
            at,
            "--join-token-file",
            role,
            "--name",
            name,
            "--data-dir",
            name,
        ];
        args.map(str::to_owned).to_vec()
    }

    /// Runs a command that asks no cluster, or a director that it names itself.
    pub(crate) fn run(&self, args: &[String]) -> Done {
        let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(args)
            .current_dir(self.dir.path())
            .output()
            .expect("it starts");
        done(&output)
    }

    /// Puts papers of a director, and the authority, into another folder than its own.
    pub(crate) fn papers_in(&self, folder: &str, name: &str) {
        let authority = Authority::load(&self.dir.path().join("d1/pki")).expect("an authority");
        let cluster = authority.trust().cluster();
        let identity = Identity::new(cluster, Role::Director, name).expect("a name");
        let validity = Validity::usual(SystemTime::now());
        let papers = authority.papers(&identity, &[], validity).expect("signed");
        let pki = self.dir.path().join(folder).join("pki");
        std::fs::create_dir_all(&pki).expect("made");
        papers.store(&pki.join(PAPERS)).expect("written");
        authority.store_over(&pki).expect("written");
    }

    fn log(&self, name: &str) -> std::fs::File {
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("{name}.log")))
            .expect("a log")
    }

    /// Starts a director in another folder than that of `join`; all but the first join it.
    pub(crate) fn director_in(&mut self, folder: &str, name: &str) {
        let (api, peer) = self.ports[name];
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command
            .args(["director", "--name", name])
            .arg("--data-dir")
            .arg(self.dir.path().join(folder))
            .arg("--source-root")
            .arg(self.dir.path())
            .args(["--listen", &format!("127.0.0.1:{api}")])
            .args(["--peer-listen", &format!("127.0.0.1:{peer}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log(name));
        if name != "d1" {
            command.args(["--join", &format!("127.0.0.1:{}", self.ports["d1"].0)]);
        }
        let child = command.spawn().expect("a director starts");
        self.directors.insert(name.to_owned(), child);
    }

    fn daemon(&self, role: &str, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command
            .arg(role)
            .arg("--config")
            .arg(self.dir.path().join(name).join("quorate.toml"))
            .envs(&self.env)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log(name));
        command
    }

    /// Starts a director; all but the first join it.
    pub(crate) fn director(&mut self, name: &str) {
        let mut command = self.daemon("director", name);
        command.arg("--source-root").arg(self.dir.path());
        let child = command.spawn().expect("a director starts");
        self.directors.insert(name.to_owned(), child);
    }

    /// Lets an agent in and starts it; it knows one director.
    pub(crate) fn agent(&mut self, name: &str, director: &str) {
        let joining = self.joining(name, "agent", &self.address(director));
        let joined = self.run(&joining);
        assert_eq!(joined.code, Some(0), "{}", joined.err);
        self.agent_again(name);
    }

    pub(crate) fn address(&self, director: &str) -> String {
        format!("127.0.0.1:{}", self.ports[director].0)
    }

    /// Runs a command at one director.
    pub(crate) fn at(&self, director: &str, args: &[&str]) -> Done {
        let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(args)
            .env("QUORATE_ADDRESS", self.address(director))
            .env("QUORATE_CA_FILE", "d1/pki/ca.pem")
            .env("QUORATE_API_TOKEN_FILE", "admin")
            .current_dir(self.dir.path())
            .output()
            .expect("it starts");
        done(&output)
    }

    /// Runs a command that may be repeated until it is done.
    pub(crate) fn done(&self, director: &str, args: &[&str]) -> Done {
        eventually("it is done", || {
            let done = self.at(director, args);
            (done.code == Some(0)).then_some(done)
        })
    }

    pub(crate) fn json(&self, director: &str, args: &[&str]) -> Option<Value> {
        let mut all = args.to_vec();
        all.extend(["-o", "json"]);
        let done = self.at(director, &all);
        (done.code == Some(0)).then(|| serde_json::from_str(&done.out).expect("JSON"))
    }

    pub(crate) fn until_voters(&self, director: &str, count: u64) {
        eventually("so many vote", || {
            let cluster = self.json(director, &["cluster", "status"])?;
            (cluster["voters"].as_u64() == Some(count)).then_some(())
        });
    }

    /// Who leads, as a living director says.
    pub(crate) fn leader(&self) -> String {
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

    /// Ends a director or an agent in order.
    pub(crate) fn end(&mut self, name: &str) {
        let child = self.directors.remove(name);
        let mut child = child.or_else(|| self.agents.remove(name)).expect("it runs");
        signal(child.id(), Signal::TERM);
        assert!(child.wait().expect("it ends").success());
    }

    /// Starts an agent that was let in before.
    pub(crate) fn agent_again(&mut self, name: &str) {
        let child = self.daemon("agent", name).spawn();
        self.agents
            .insert(name.to_owned(), child.expect("an agent starts"));
    }

    /// Kills a director or an agent.
    pub(crate) fn kill(&mut self, name: &str) {
        let child = self.directors.remove(name);
        let mut child = child.or_else(|| self.agents.remove(name)).expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// Starts a director with the papers that it has, and its ledger in a store or in this folder.
    pub(crate) fn director_at(&mut self, name: &str, ledger: &str) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command
            .args(["director", "--name", name, "--listen", &self.address(name)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log(name));
        if ledger.contains("://") {
            let dir = self.dir.path().join(name);
            command
                .args(["--ledger", ledger])
                .arg("--data-dir")
                .arg(dir);
        } else {
            command.args(["--data-dir", ledger]);
        }
        let child = command.spawn().expect("a director starts");
        self.directors.insert(name.to_owned(), child);
    }

    /// Puts a service of so many partitions that write down that they execute, and waits until all run.
    pub(crate) fn apply(&self, partitions: usize) {
        self.put_service(partitions);
        // A new quorum may still elect its leader; to apply twice is to apply once.
        self.done("d2", &["apply", "job.toml"]);
        // An agent that registered late gets its share after the others began.
        self.done("d3", &["wait", "--settled"]);
        self.all_run("d3", partitions);
    }

    /// The same where there is one director.
    pub(crate) fn apply_at(&self, director: &str, partitions: usize) {
        self.put_service(partitions);
        self.done(director, &["apply", "job.toml"]);
        self.all_run(director, partitions);
    }

    fn put_service(&self, partitions: usize) {
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
    }

    /// Waits until so many run; their tokens.
    pub(crate) fn all_run(&self, director: &str, count: usize) -> BTreeMap<String, u64> {
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

    /// What a director or an agent has logged.
    pub(crate) fn logged(&self, name: &str) -> String {
        let log = std::fs::read_to_string(self.dir.path().join(format!("{name}.log")));
        log.unwrap_or_default()
    }

    /// How many runs began so far; nothing must be wrong with them.
    pub(crate) fn runs(&self) -> usize {
        let judged = judge(&self.dir.path().join("record"));
        assert_eq!(judged.problems, Vec::<String>::new());
        judged.runs.len()
    }
}

impl Drop for Quorum {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in self.ports.keys().map(String::as_str).chain(AGENTS) {
                let log = self.logged(name);
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
    quorum.let_in("d2");
    quorum.director("d2");
    quorum.until_voters("d1", 2);
    let status = quorum.done("d2", &["cluster", "status"]);
    assert!(status.err.contains("bears the loss of 0"), "{}", status.err);
    quorum.let_in("d3");
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
    quorum.end(&leader);
    let log = std::fs::read_to_string(quorum.dir.path().join(format!("{leader}.log")));
    assert!(log.expect("a log").contains("leadership is handed over"));
    quorum.director(&leader);

    let leader = "d2".to_owned();
    for to in ["d3", "d2"] {
        eventually("it leads", || {
            quorum.done("d1", &["cluster", "transfer-leader", "--to", to]);
            (quorum.leader() == to).then_some(())
        });
    }
    // One that leads hands over before it goes; asked again, it is not there any more.
    eventually("it is removed", || {
        let gone = quorum.at("d1", &["cluster", "remove", &leader]);
        [Some(0), Some(3)].contains(&gone.code).then_some(())
    });
    quorum.kill(&leader);
    let left = quorum.leader();
    assert_ne!(left, leader);
    eventually("nobody knows it", || {
        let unknown = quorum.at(&left, &["cluster", "remove", &leader]);
        (unknown.code == Some(3)).then_some(())
    });
    let audit = quorum.done(&left, &["audit"]).out;
    for told in [
        "add director/d3",
        "promote director/d3",
        "transfer-leader director/d2",
        "remove director/d2",
    ] {
        let words: Vec<&str> = told.split(' ').collect();
        let line = audit
            .lines()
            .find(|line| words.iter().all(|word| line.contains(word)));
        assert!(line.is_some(), "{told}: {audit}");
    }
    let status = quorum.done(&left, &["cluster", "status"]);
    assert!(status.out.contains("2 directors vote"), "{}", status.out);
    assert!(status.err.contains("bears the loss of 0"), "{}", status.err);
    assert_eq!(quorum.all_run(&left, 4), before, "no partition has moved");

    // It was off when it was removed, and is told. With what it has it does not come in again, as little as with
    // an empty ledger.
    let told = |quorum: &Quorum, times: usize| {
        eventually("it is told", || {
            let log = quorum.dir.path().join(format!("{leader}.log"));
            let log = std::fs::read_to_string(log).ok()?;
            (log.matches("counts no longer").count() >= times).then_some(())
        });
    };
    quorum.director(&leader);
    told(&quorum, 1);
    quorum.kill(&leader);
    let folder = quorum.dir.path().join(&leader);
    for entry in std::fs::read_dir(&folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let kept = ["pki", "quorate.toml"]
            .iter()
            .any(|name| path.ends_with(name));
        match path.is_dir() {
            _ if kept => {}
            true => std::fs::remove_dir_all(path).expect("removed"),
            false => std::fs::remove_file(path).expect("removed"),
        }
    }
    quorum.director(&leader);
    told(&quorum, 2);
    let status = quorum.done(&left, &["cluster", "status"]);
    assert!(status.out.contains("2 directors vote"), "{}", status.out);
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
    // Who only looks is shown what is known, and told that it is that.
    for look in [
        &["ls", "services", "-o", "name"][..],
        &["status"],
        &["cluster", "status"],
    ] {
        let stale = quorum.at(&left, look);
        assert_eq!(stale.code, Some(6), "{}", stale.err);
        assert!(stale.err.contains("may be of the past"), "{}", stale.err);
        assert!(!stale.out.is_empty());
    }
    for name in &others {
        quorum.director(name);
    }
    quorum.all_run(&left, 2);
    // Whatever became of the runs in between, none was ever there twice.
    quorum.runs();
}
