//! What operators do all day: drain, change the list, stop, start, look.

use rustix::process::Signal;

use crate::cluster::{Cluster, even};
use crate::support::{eventually, quorate, signal};

#[test]
fn a_drained_agent_gives_everything_away_and_takes_work_again() {
    let cluster = Cluster::start(12);
    let drained = cluster.run(&["drain", "a1", "--wait", "60s"]);
    assert_eq!(drained.code, Some(0), "{}", drained.err);
    let without = cluster.all_run(12);
    assert_eq!(Cluster::spread(&without).get("a1"), None);
    let back = cluster.run(&["uncordon", "a1"]);
    assert_eq!(back.code, Some(0), "{}", back.err);
    cluster.until("an even spread again", |all| {
        Cluster::spread(all) == even(4) && all.values().all(|seen| seen.running)
    });
    cluster.judged();
}

#[test]
fn a_changed_list_has_its_effect_and_touches_nothing_else() {
    let cluster = Cluster::start(10);
    let before = cluster.all_run(10);
    // p00 goes, p01 gets other data, p99 comes.
    let keys = (1..10).map(|n| (format!("p{n:02}"), if n == 1 { 2 } else { 1 }));
    cluster.list(keys.chain([("p99".to_owned(), 1)]));
    eventually("the new one and the changed one run", || {
        let judged = cluster.judged();
        let runs = |key: &str, x: &str| {
            judged
                .runs
                .iter()
                .any(|run| run.key == key && run.data.contains(x))
        };
        (runs("p99", "\"x\":1") && runs("p01", "\"x\":2")).then_some(())
    });
    let after = cluster.until("the one that went is gone", |all| {
        all.len() == 10 && !all.contains_key("p00") && all.values().all(|seen| seen.running)
    });
    for (key, seen) in &after {
        let touched = key == "p99" || key == "p01";
        assert!(
            touched || before[key].token == seen.token,
            "{key} was not to be touched"
        );
    }
    let judged = cluster.judged();
    let gone = judged.runs.iter().find(|run| run.key == "p00");
    assert!(gone.is_some_and(|run| run.stopped), "it was asked to stop");
}

#[test]
fn names_that_do_not_exist_are_told_with_the_one_that_was_meant() {
    let cluster = Cluster::start(3);
    for (args, near) in [
        (&["status", "z"][..], "s"),
        (&["why", "s/p001"], "s/p00"),
        (&["history", "s/p0l"], "s/p0"),
        (&["stop", "s/p02x"], "s/p02"),
        (&["logs", "s/p02x"], "s/p02"),
        (&["drain", "a11"], "a1"),
    ] {
        let done = cluster.run(args);
        assert_eq!(done.code, Some(3), "{args:?}: {}", done.err);
        assert!(
            done.err.starts_with("error[not_found]"),
            "{args:?}: {}",
            done.err
        );
        assert!(
            done.err.contains(&format!("did you mean {near}")),
            "{args:?}: {}",
            done.err
        );
    }
    let second = quorate()
        .args([
            "up",
            "job.toml",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            "data",
        ])
        .current_dir(cluster.dir())
        .output()
        .expect("it starts");
    let second = crate::support::done(&second);
    assert_eq!(second.code, Some(1), "{}", second.err);
    assert!(
        second.err.starts_with("error[data_dir_locked]"),
        "{}",
        second.err
    );
}

#[test]
fn everything_that_shows_the_cluster_answers() {
    let cluster = Cluster::start(3);
    for args in [
        &["status"][..],
        &["status", "s"],
        &["status", "s/p00"],
        &["ls", "services"],
        &["ls", "directors"],
        &["ls", "agents", "-o", "wide"],
        &["why", "s/p00"],
        &["history", "s/p00"],
        &["events"],
        &["logs", "s/p00"],
        &["plan", "job.toml", "--exit-code"],
        &["wait", "--settled"],
        &["api", "GET", "/v1/agents"],
        &["apply", "job.toml", "--wait", "60s"],
    ] {
        let done = cluster.run(args);
        assert_eq!(done.code, Some(0), "{args:?}: {}", done.err);
    }
    let stopped = cluster.run(&["stop", "s/p00"]);
    assert_eq!(stopped.code, Some(0), "{}", stopped.err);
    cluster.until("it is stopped", |all| {
        !all["p00"].running && all["p00"].agent.is_none()
    });
    let started = cluster.run(&["start", "s/p00"]);
    assert_eq!(started.code, Some(0), "{}", started.err);
    cluster.all_run(3);
    let rolled = cluster.run(&["restart", "s", "--rolling", "--max", "2"]);
    assert_eq!(
        (rolled.code, rolled.out.as_str()),
        (Some(0), "s: 3 restarted\n"),
        "{}",
        rolled.err
    );
    let removed = cluster.run(&["rm", "service/s"]);
    assert_eq!(removed.code, Some(0), "{}", removed.err);
    cluster.until("nothing is left", |all| all.is_empty());
    cluster.judged();
}

#[test]
fn an_interrupted_wait_leaves_the_operation_going_on() {
    let cluster = Cluster::start(6);
    let mut waiting = std::process::Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["drain", "a2", "--wait"])
        .env("QUORATE_ADDRESS", cluster.address())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    cluster.until("the drain has begun", |all| {
        Cluster::spread(all).get("a2").copied().unwrap_or(0) < 2
    });
    signal(waiting.id(), Signal::INT);
    let code = waiting.wait().expect("it ends").code();
    // It may have been done before it heard the signal.
    assert!(matches!(code, Some(130 | 0)), "{code:?}");
    cluster.until("the drain goes on to its end", |all| {
        !Cluster::spread(all).contains_key("a2") && all.values().all(|seen| seen.running)
    });
}
