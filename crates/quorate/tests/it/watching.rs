//! Commands that go on: `ls --watch`, `logs -f`, `events -f`; and what `logs` and `events` remember.

use rustix::process::Signal;
use serde_json::Value;

use crate::one::One;
use crate::support::{eventually, signal};

/// One that prints a line every tenth of a second, one that fails, under another lease.
const JOB: &str = r#"
[service.s]
command = ["sh", "-c", "i=0; while :; do i=$((i+1)); echo attempt $QUORATE_ATTEMPT line $i; sleep 0.1; done"]
lease   = "3s"
[service.s.partitions]
list = ["a", "b"]
[service.bad]
command = ["sh", "-c", "echo no luck; exit 3"]
restart = { backoff = "100ms..200ms", move_after = 0 }
ready   = { after = "50ms" }
"#;

/// A job that comes up, so that `up` need not wait for one that does not.
fn started() -> One {
    let one = One::start(JOB.split("[service.bad]").next().expect("the first"));
    std::fs::write(one.dir().join("job.toml"), JOB).expect("written");
    one
}

#[test]
fn a_list_that_is_watched_is_shown_again_when_something_has_changed() {
    let one = started();
    let watched = one.follow(&["ls", "partitions", "--watch", "-o", "ndjson"]);
    // On a machine that is late the first lists may show it unknown, and that too is a change.
    let shown = |running: bool, state: &str| {
        let line = watched.until_one("partition `b`", |line| {
            let row: Value = serde_json::from_str(line).expect("JSON");
            row["key"] == "b" && row["running"] == running && row["state"] == state
        });
        assert!(line.contains("\"service\":\"s\""), "{line}");
    };
    shown(true, "assumed");
    one.ok(&["stop", "s/b"]);
    shown(false, "stopped");
    // That is how it is meant to end, so there is nothing to be told.
    assert_eq!(watched.interrupt(), (Some(130), String::new()));
}

#[test]
fn a_list_that_is_watched_shows_that_an_agent_is_silent_and_that_it_is_back() {
    let one = One::start(
        &JOB.split("[service.bad]")
            .next()
            .expect("the first")
            .replace("3s", "40s"),
    );
    let watched = one.follow(&[
        "ls",
        "partitions",
        "--watch",
        "--service",
        "s",
        "-o",
        "ndjson",
    ]);
    let shown = |running: bool| {
        watched.until_one("partition `a`", |line| {
            let row: Value = serde_json::from_str(line).expect("JSON");
            row["key"] == "a" && row["state"] == "assumed" && row["running"] == running
        })
    };
    shown(true);
    // Silence is no entry of the ledger, so no index tells of it.
    let agent = u32::try_from(one.process_with("agent").expect("an agent")).expect("a process");
    signal(agent, Signal::STOP);
    shown(false);
    signal(agent, Signal::CONT);
    shown(true);
}

#[test]
fn a_rolling_restart_tells_programs_what_it_has_done() {
    let one = started();
    let told = |format| one.ok(&["restart", "s", "--rolling", "-o", format]);
    let told: Value = serde_json::from_str(&told("json")).expect("JSON");
    assert_eq!(told, serde_json::json!({ "service": "s", "restarted": 2 }));
    let one_of_it = one.ok(&["restart", "s/a", "--rolling", "-o", "ndjson"]);
    assert_eq!(
        one_of_it,
        "{\"service\":\"s\",\"key\":\"a\",\"restarted\":1}\n"
    );
    assert_eq!(
        one.ok(&["restart", "s/a", "--rolling", "-o", "name"]),
        "s/a\n"
    );
}

#[test]
fn logs_that_are_followed_go_on_through_a_restart() {
    let one = started();
    let followed = one.follow(&["logs", "s/a", "-f"]);
    followed.until("attempt 1 line 3");
    one.ok(&["restart", "s/a"]);
    followed.until("attempt 2 line 1");
    followed.until("attempt 2 line 9");
    assert_eq!(followed.interrupt(), (Some(130), String::new()));
    // Of several partitions, every line says whose it is and is whole.
    let both = one.ok(&["logs", "s", "-n", "50"]);
    let whose = |line: &str| {
        let (key, text) = line.split_once(" | ").expect("a key and a text");
        assert!(
            text.starts_with("attempt ") && text.contains(" line "),
            "{line}"
        );
        key.to_owned()
    };
    let keys: std::collections::BTreeSet<String> = both.lines().map(whose).collect();
    assert_eq!(keys, ["a".to_owned(), "b".to_owned()].into());
}

#[test]
fn logs_since_a_moment_are_the_end_of_all_logs() {
    let one = started();
    let all = || one.ok(&["logs", "s/a", "-n", "10000"]);
    eventually("five seconds of output", || {
        (all().lines().count() > 50).then_some(())
    });
    let recent = one.ok(&["logs", "s/a", "--since", "1s"]);
    let all = all();
    assert!(recent.lines().count() >= 5, "{recent}");
    assert!(
        all.contains(&recent),
        "whole lines, none left out in between"
    );
    assert!(!recent.contains("line 1\n"), "{recent}");
    let hour = one.ok(&["logs", "s/a", "--since", "1h"]);
    assert!(hour.starts_with("attempt 1 line 1\n"), "{hour}");
    assert_eq!(
        one.ok(&["logs", "s/a", "--since", "1h", "-n", "2"])
            .lines()
            .count(),
        2
    );
    let both = one.run(&["logs", "s/a", "--since", "1h", "--previous"]);
    assert_eq!(both.code, Some(2));
    assert!(both.err.contains("exclude each other"), "{}", both.err);
}

#[test]
fn what_fails_again_and_again_is_counted_and_no_time_is_promised_for_it() {
    let one = started();
    one.ok(&["apply", "job.toml"]);
    eventually("it is seen to fail", || {
        let progress: Value =
            serde_json::from_str(&one.ok(&["api", "GET", "/v1/progress"])).ok()?;
        (progress["failing"] == 1 && progress["eta_ms"].is_null()).then_some(())
    });
    assert!(one.ok(&["logs", "bad"]).contains("no luck"));
    // It has one session for each lease, and has joined once.
    let events = one.ok(&["events"]);
    assert_eq!(events.matches("agent a1 joined").count(), 1, "{events}");
    assert_eq!(events.matches("agent a1 opened").count(), 1, "{events}");
    let plan = one.ok(&["plan", "job.toml"]);
    assert_eq!(plan, "= service/bad\n= service/s\nnothing would change\n");
    // What would be started anew is told.
    std::fs::write(
        one.dir().join("job.toml"),
        JOB.replace("line $i", "line: $i"),
    )
    .expect("written");
    let plan = one.run(&["plan", "job.toml", "--exit-code"]);
    let why = "its command or what it runs with changes";
    let told = format!(
        "= service/bad\n~ service/s (command)\n2 would restart in place:\n  s/a on a1: {why}\n  s/b on a1: {why}\n"
    );
    assert_eq!((plan.code, plan.out), (Some(10), told));
}

#[test]
fn what_cannot_be_started_says_why_wherever_a_person_looks() {
    let one = started();
    let job = format!("{JOB}\n[service.gone]\ncommand = [\"/opt/no/such/feed\"]\n");
    std::fs::write(one.dir().join("job.toml"), job).expect("written");
    one.ok(&["apply", "job.toml"]);
    let why = "/opt/no/such/feed does not exist on this host";
    for look in [
        ["status", "gone/gone"],
        ["why", "gone/gone"],
        ["history", "gone/gone"],
        ["logs", "gone/gone"],
        ["ls", "partitions"],
    ] {
        eventually(&format!("{look:?}"), || {
            one.ok(&look).contains(why).then_some(())
        });
    }
    let all = one.ok(&["status", "gone/gone", "-o", "json"]);
    let all: Value = serde_json::from_str(&all).expect("JSON");
    assert_eq!(all["exit"]["class"], "not_started", "{all}");
    assert_eq!(all["exit"]["cause"], why, "{all}");
}

#[test]
fn names_are_taken_as_lists_write_them_and_those_that_are_none_are_told() {
    let one = started();
    let agent = one.ok(&["ls", "agents", "-o", "name"]);
    let agent = agent.lines().next().expect("an agent");
    assert!(agent.starts_with("agent/"), "{agent}");
    one.ok(&["cordon", agent]);
    one.ok(&["uncordon", agent]);
    one.ok(&["ls", "partitions", "--agent", agent]);
    for args in [
        &["events", "nosuch"][..],
        &["events", "--agent", "nosuch"],
        &["events", "-f", "s/nosuch"],
        &["ls", "partitions", "--agent", "nosuch"],
    ] {
        let done = one.run(args);
        assert_eq!(done.code, Some(3), "{args:?}: {}{}", done.out, done.err);
    }
    let drained = one.run(&["drain", agent, "--wait", "1s"]);
    assert_eq!(drained.code, Some(7), "{}", drained.err);
    let stays = "that agent drains, and no other may take it";
    assert_eq!(drained.err.matches(stays).count(), 2, "{}", drained.err);
    one.ok(&["uncordon", agent]);
    let metrics = one.ok(&["api", "GET", "/metrics"]);
    assert!(metrics.starts_with("# HELP quorate_"), "{metrics}");
    assert_eq!(one.ok(&["api", "GET", "/livez"]), "ok\n");
    let kernel = one.ok(&["ls", "agents", "-o", "json"]);
    let kernel: Value = serde_json::from_str(&kernel).expect("JSON");
    let grade = kernel[0]["containment"].as_str().expect("a grade");
    let label = format!("containment={grade}");
    assert_eq!(
        one.ok(&["ls", "agents", "-l", &label, "-o", "name"]).trim(),
        agent
    );
    assert_eq!(
        one.ok(&["ls", "agents", "-l", "containment=none", "-o", "name"]),
        ""
    );
}

#[test]
fn logs_for_programs_are_one_object_a_line() {
    let one = started();
    let line = eventually("it has printed", || {
        let logs = one.ok(&["logs", "s/a", "-n", "1", "-o", "ndjson"]);
        Some(logs.lines().next()?.to_owned())
    });
    let line: Value = serde_json::from_str(&line).expect("an object");
    assert_eq!((&line["service"], &line["key"]), (&"s".into(), &"a".into()));
    assert!(
        line["line"].as_str().expect("text").contains("line "),
        "{line}"
    );
}

#[test]
fn what_was_given_up_says_how_it_ended_and_what_starts_it() {
    let one = started();
    let job = format!(
        "{JOB}\n[service.over]\ncommand = [\"/bin/sh\", \"-c\", \"exit 3\"]\nrestart.give_up_after = 1\nrestart.move_after = 0\n"
    );
    std::fs::write(one.dir().join("job.toml"), job).expect("written");
    one.ok(&["apply", "job.toml"]);
    let why = "given up after 1 failed attempt (crashed, code 3); `quorate start over/over` tries it again";
    for look in [
        &["why", "over/over"][..],
        &["status", "over/over"],
        &["status"],
    ] {
        eventually(&format!("{look:?}"), || {
            one.ok(look).contains(why).then_some(())
        });
    }
    let all = one.ok(&["why", "over/over", "-o", "json"]);
    let all: Value = serde_json::from_str(&all).expect("JSON");
    assert_eq!(all["exit"]["code"], 3, "{all}");
    let history = one.ok(&["history", "over/over", "-o", "json"]);
    let history: Value = serde_json::from_str(&history).expect("JSON");
    let kinds = history.as_array().expect("a list").iter();
    let kinds: Vec<&str> = kinds.filter_map(|entry| entry["kind"].as_str()).collect();
    assert!(
        kinds.contains(&"started") && kinds.contains(&"exited"),
        "{kinds:?}"
    );
}
