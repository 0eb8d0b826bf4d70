//! Three directors whose ledger is in a store, over the real ones, and what such a cluster must bear: the loss of
//! directors, of the store's own leader, of the whole store for a while, and of a part of its history.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use quorate_servers::etcd::EtcdCluster;
use quorate_servers::postgres::Postgres;
use quorate_servers::zookeeper::ZookeeperCluster;
use rustix::process::Signal;

use crate::quorum::Quorum;
use crate::support::{eventually, lacks};

/// A lease of ten seconds has ended by then, whatever was last heard.
const LEASE_OVER: Duration = Duration::from_secs(12);

/// A store that can be lost.
trait Store {
    fn url(&self) -> String;
    /// Nothing of it answers.
    fn stop(&mut self);
    /// It answers again.
    fn go_on(&mut self);
}

impl Store for Postgres {
    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/quorate", self.port())
    }

    fn stop(&mut self) {
        self.signal_all(Signal::STOP).expect("it is stopped");
    }

    fn go_on(&mut self) {
        self.signal_all(Signal::CONT).expect("it goes on");
    }
}

impl Store for EtcdCluster {
    fn url(&self) -> String {
        format!("etcd://{}/quorate", self.hosts().join(","))
    }

    fn stop(&mut self) {
        for member in 0..self.count() {
            self.pause(member).expect("it is stopped");
        }
    }

    fn go_on(&mut self) {
        for member in 0..self.count() {
            self.resume(member).expect("it goes on");
        }
    }
}

impl Store for ZookeeperCluster {
    fn url(&self) -> String {
        format!("zookeeper://{}/quorate", self.hosts())
    }

    fn stop(&mut self) {
        for member in 0..self.members() {
            self.pause(member).expect("it is stopped");
        }
    }

    fn go_on(&mut self) {
        for member in 0..self.members() {
            self.resume(member).expect("it goes on");
        }
    }
}

fn postgres() -> Option<Postgres> {
    let server = Postgres::start();
    if server.is_none() {
        lacks("PostgreSQL is not installed");
    }
    server.map(|server| server.expect("it comes up"))
}

fn etcd(members: usize) -> Option<EtcdCluster> {
    let servers = EtcdCluster::start(members);
    if servers.is_none() {
        lacks("etcd is not installed");
    }
    servers.map(|servers| servers.expect("they come up"))
}

fn zookeeper(members: usize) -> Option<ZookeeperCluster> {
    let servers = ZookeeperCluster::start(members).expect("they come up");
    if servers.is_none() {
        lacks("ZooKeeper is not installed");
    }
    servers
}

/// Three directors, two agents and so many partitions.
fn cluster(ledger: &str, partitions: usize) -> Quorum {
    let mut quorum = Quorum::over(ledger);
    for (agent, director) in [("a1", "d1"), ("a2", "d2")] {
        quorum.agent(agent, director);
    }
    quorum.apply(partitions);
    quorum
}

fn writes(quorum: &Quorum, director: &str) {
    eventually("a write succeeds", || {
        let done = quorum.at(director, &["cordon", "a1"]);
        (done.code == Some(0)).then_some(())
    });
    quorum.done(director, &["uncordon", "a1"]);
}

/// Both agents are heard by whoever leads now: a lease bears a change of leader, not one after the other without a renewal
/// in between.
fn renewed(quorum: &Quorum, director: &str) {
    let mut before = BTreeMap::new();
    let mut heard = BTreeSet::new();
    eventually("both agents have renewed", || {
        let agents = quorum.json(director, &["ls", "agents"])?;
        for agent in agents.as_array()? {
            let (name, left) = (agent["name"].as_str()?, agent["lease_margin_ms"].as_u64()?);
            if before
                .insert(name.to_owned(), left)
                .is_some_and(|before| left > before)
            {
                heard.insert(name.to_owned());
            }
        }
        (heard.len() == 2).then_some(())
    });
}

/// Each director is lost once while it leads.
fn bears_the_loss_of_any_director(quorum: &mut Quorum, partitions: usize) {
    let before = quorum.all_run("d1", partitions);
    let begun = quorum.runs();
    for _ in 0..2 {
        let leader = quorum.leader();
        let killed = Instant::now();
        quorum.kill(&leader);
        let left: Vec<String> = quorum.directors.keys().cloned().collect();
        for name in &left {
            writes(quorum, name);
        }
        eprintln!(
            "{leader} killed, both others wrote after {:?}",
            killed.elapsed()
        );
        quorum.director(&leader);
        writes(quorum, &leader);
        renewed(quorum, &left[0]);
    }
    assert_eq!(
        before,
        quorum.all_run("d1", partitions),
        "nothing has moved"
    );
    assert_eq!(quorum.runs(), begun, "nothing was restarted");
}

/// The store is away for less than a lease, and then for more.
fn bears_the_loss_of_the_store(quorum: &mut Quorum, store: &mut impl Store, partitions: usize) {
    let before = quorum.all_run("d1", partitions);
    let begun = quorum.runs();
    store.stop();
    std::thread::sleep(Duration::from_secs(3));
    store.go_on();
    writes(quorum, "d2");
    assert_eq!(
        before,
        quorum.all_run("d1", partitions),
        "nothing has moved"
    );
    assert_eq!(quorum.runs(), begun, "nothing was restarted");

    store.stop();
    let refused = eventually("who asks is told", || {
        let done = quorum.at("d3", &["cordon", "a1"]);
        (done.code == Some(6)).then_some(done)
    });
    assert!(!refused.err.is_empty());
    std::thread::sleep(LEASE_OVER);
    store.go_on();
    eventually("every lease had ended, and all run again", || {
        let again = quorum.all_run("d1", partitions);
        let higher = again.iter().filter(|(key, token)| **token > before[*key]);
        (higher.count() == partitions).then_some(())
    });
    // The referee has looked whether two ever executed at once.
    assert_eq!(quorum.runs(), begun + partitions);
}

#[test]
fn over_postgresql_work_goes_on_through_the_loss_of_directors_and_ends_with_its_lease() {
    let Some(mut server) = postgres() else { return };
    let mut quorum = cluster(&server.url(), 8);
    let status = quorum.done("d3", &["cluster", "status"]);
    assert!(
        status.out.contains("any one of the directors is enough"),
        "{}",
        status.out
    );
    let doctor = ["doctor", "--ledger", &server.url()].map(str::to_owned);
    let told = quorum.run(&doctor).out;
    assert!(told.contains("a director leads"), "{told}");
    bears_the_loss_of_any_director(&mut quorum, 8);
    bears_the_loss_of_the_store(&mut quorum, &mut server, 8);
    server.kill().expect("it is killed");
    server.start_again().expect("it recovers");
    writes(&quorum, "d1");
    // One director is enough.
    quorum.kill("d1");
    quorum.kill("d2");
    writes(&quorum, "d3");
    quorum.runs();
}

#[test]
fn over_etcd_work_goes_on_through_the_loss_of_directors_and_of_members() {
    let Some(mut members) = etcd(3) else { return };
    let mut quorum = cluster(&members.url(), 8);
    bears_the_loss_of_any_director(&mut quorum, 8);
    let (before, begun) = (quorum.all_run("d1", 8), quorum.runs());
    let leader = members.leader().expect("it is told");
    members.kill(leader).expect("it is killed");
    for name in ["d1", "d2", "d3"] {
        writes(&quorum, name);
    }
    members.restart(leader).expect("it comes back");
    assert_eq!(before, quorum.all_run("d1", 8), "nothing has moved");
    assert_eq!(quorum.runs(), begun, "nothing was restarted");
    renewed(&quorum, "d1");
    bears_the_loss_of_the_store(&mut quorum, &mut members, 8);
}

#[test]
fn over_zookeeper_work_goes_on_through_the_loss_of_directors_and_of_servers() {
    let Some(mut servers) = zookeeper(3) else {
        return;
    };
    let mut quorum = cluster(&servers.url(), 8);
    bears_the_loss_of_any_director(&mut quorum, 8);
    let (before, begun) = (quorum.all_run("d1", 8), quorum.runs());
    let leader = servers.leader().expect("one leads");
    servers.kill(leader).expect("it is killed");
    for name in ["d1", "d2", "d3"] {
        writes(&quorum, name);
    }
    servers.restart(leader).expect("it comes back");
    assert_eq!(before, quorum.all_run("d1", 8), "nothing has moved");
    assert_eq!(quorum.runs(), begun, "nothing was restarted");
    renewed(&quorum, "d1");
    bears_the_loss_of_the_store(&mut quorum, &mut servers, 8);
}

/// Ends by itself with this code; what it has logged.
fn stops(quorum: &mut Quorum, director: &str, code: i32) -> String {
    let mut child = quorum.directors.remove(director).expect("it runs");
    let ended = eventually("it stops", || child.try_wait().expect("it is ours"));
    assert_eq!(ended.code(), Some(code));
    quorum.logged(director)
}

#[test]
fn a_store_that_is_restored_from_an_older_copy_stops_every_director_until_somebody_adopts_it() {
    let Some(mut members) = etcd(1) else { return };
    let url = members.url();
    let mut quorum = cluster(&url, 4);
    let copy = members.snapshot().expect("a copy");
    let before = quorum.all_run("d1", 4);
    // What is decided from here on will be forgotten.
    quorum.done("d1", &["stop", "s"]);
    quorum.all_run("d1", 0);
    quorum.done("d1", &["start", "s"]);
    let later = eventually("all run anew", || {
        let run = quorum.all_run("d1", 4);
        run.iter()
            .all(|(key, token)| *token > before[key])
            .then_some(run)
    });
    // One of them does not run while it happens.
    quorum.end("d3");
    members.restore(&copy).expect("it is restored");
    for name in ["d1", "d2"] {
        let log = stops(&mut quorum, name, 1);
        assert!(log.contains("has lost history"), "{log}");
        assert!(log.contains("adopt-history"), "{log}");
        // As whatever looks after it does.
        quorum.director(name);
        stops(&mut quorum, name, 1);
    }
    quorum.director("d3");
    let log = stops(&mut quorum, "d3", 1);
    assert!(log.contains("has lost history"), "{log}");

    let adopt = ["cluster", "adopt-history", "--ledger", &url];
    let adopted = quorum.run(&adopt.map(str::to_owned));
    assert_eq!(adopted.code, Some(0), "{}", adopted.err);
    assert!(adopted.out.contains("begins era 1"), "{}", adopted.out);
    for name in ["d1", "d2", "d3"] {
        quorum.director(name);
    }
    let after = quorum.all_run("d2", 4);
    let rose = after.iter().filter(|(key, token)| **token > later[*key]);
    assert_eq!(rose.count(), 4, "tokens rise through it (S3)");
    quorum.runs();
    let status = quorum.done("d1", &["cluster", "status"]);
    assert!(status.out.contains("era 1"), "{}", status.out);
}

#[test]
fn a_stopped_cluster_moves_between_ledgers_and_tokens_go_on_rising() {
    let (Some(members), Some(server)) = (etcd(1), postgres()) else {
        return;
    };
    let mut quorum = Quorum::found();
    quorum.agent("a1", "d1");
    let mut tokens = BTreeMap::new();
    let mut rises = |quorum: &Quorum| {
        let run = quorum.all_run("d1", 3);
        for (key, token) in run {
            let before = tokens.insert(key, token);
            assert!(before.is_none_or(|before| token > before), "S3");
        }
    };
    quorum.apply_at("d1", 3);
    rises(&quorum);
    // Another cluster is there.
    let taken = format!("{}x", members.url());
    let init = ["init", "--name", "x", "--data-dir", "x", "--ledger", &taken];
    let made = quorum.run(&init.map(str::to_owned));
    assert_eq!(made.code, Some(0), "{}", made.err);
    // From its own folder into etcd, from there into PostgreSQL, and back into a folder.
    let (first, second) = (members.url(), server.url());
    let back = quorum.dir.path().join("back").display().to_string();
    let own = quorum.dir.path().join("d1").display().to_string();
    for (from, to) in [(&own, &first), (&first, &second), (&second, &back)] {
        let copy = ["ledger", "copy", "--from", from, "--to", to, "--name", "d1"];
        let copy = copy.map(str::to_owned);
        let refused = quorum.run(&copy);
        assert_ne!(refused.code, Some(0), "a director runs: {}", refused.out);
        quorum.end("d1");
        // Where nothing can go, nothing is closed for it.
        for occupied in [from, &taken] {
            let copy = [
                "ledger", "copy", "--from", from, "--to", occupied, "--name", "d1",
            ];
            let refused = quorum.run(&copy.map(str::to_owned));
            assert_eq!(refused.code, Some(4), "{}", refused.err);
        }
        if *to == back {
            quorum.papers_in("back", "d1");
        }
        let copied = quorum.run(&copy);
        assert_eq!(copied.code, Some(0), "{}", copied.err);
        let again = quorum.run(&copy);
        assert!(
            again.err.contains("already") || again.err.contains("no ledger"),
            "{}",
            again.err
        );
        quorum.director_at("d1", to);
        rises(&quorum);
        quorum.runs();
    }
    quorum.end("d1");
    // Whoever starts one as it was before is told where its ledger is now.
    for old in [&first, &second] {
        quorum.director_at("d1", old);
        let log = stops(&mut quorum, "d1", 2);
        assert!(log.contains("was moved to"), "{log}");
    }
}
