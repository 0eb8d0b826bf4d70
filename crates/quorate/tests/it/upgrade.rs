//! Directors and agents are upgraded and downgraded one by one while work runs (U1).
//!
//! The version before is this one with `hold_format`: it reads and writes the format before, and nothing else.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quorum::Quorum;
use crate::support::eventually;

const DIRECTORS: [&str; 3] = ["d1", "d2", "d3"];
const PARTITIONS: usize = 8;
const HOLD: &str = "QUORATE_DIRECTOR__HOLD_FORMAT";

/// What `cluster status` says, and what it warns of.
struct Status {
    view: Value,
    warnings: String,
}

impl Status {
    fn format(&self) -> u64 {
        self.view["format"].as_u64().expect("a format")
    }

    /// The highest format that a director reads, when it has told.
    fn reads(&self, director: &str) -> Option<u64> {
        let members = self.view["members"].as_array()?;
        let member = members.iter().find(|member| member["name"] == director)?;
        member["formats"]["newest"].as_u64()
    }
}

fn status(quorum: &Quorum, director: &str) -> Option<Status> {
    let done = quorum.at(director, &["cluster", "status", "-o", "json"]);
    (done.code == Some(0)).then(|| Status {
        view: serde_json::from_str(&done.out).expect("JSON"),
        warnings: done.err,
    })
}

/// Stops a director in order and starts it as another version: of the format before, or without a limit.
fn replace(quorum: &mut Quorum, director: &str, held: bool) {
    quorum.end(director);
    start(quorum, director, held);
    eventually("it takes part again and has told what it reads", || {
        let status = status(quorum, director)?;
        let told = status.reads(director)? == if held { 1 } else { 2 };
        (told && status.view["voters"] == 3).then_some(())
    });
}

fn start(quorum: &mut Quorum, director: &str, held: bool) {
    match held {
        true => quorum.env.insert(HOLD, "1"),
        false => quorum.env.remove(HOLD),
    };
    quorum.director(director);
}

/// The kinds of the events so far, with what each says.
fn events(quorum: &Quorum, director: &str) -> Vec<(String, String)> {
    let all = quorum.done(director, &["events", "-o", "ndjson"]).out;
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let all = all
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    all.map(|event| (text(&event, "kind"), text(&event, "text")))
        .collect()
}

/// How often agents' processes have spoken anew for what earlier ones ran.
fn resumed(quorum: &Quorum) -> usize {
    let events = events(quorum, "d1");
    events
        .iter()
        .filter(|(kind, _)| kind == "session.resumed")
        .count()
}

#[test]
fn directors_and_agents_are_upgraded_one_by_one_and_nothing_that_runs_is_touched() {
    let before = BTreeMap::from([(HOLD, "1"), ("QUORATE_AGENT__ADOPT_WITHIN", "1m")]);
    let mut quorum = Quorum::of_three_with(before);
    for agent in ["a1", "a2"] {
        quorum.agent(agent, "d1");
    }
    quorum.apply(PARTITIONS);
    let tokens = quorum.all_run("d1", PARTITIONS);
    let begun = quorum.runs();
    let untouched = |quorum: &Quorum, director: &str| {
        assert_eq!(
            quorum.all_run(director, PARTITIONS),
            tokens,
            "none has moved"
        );
        assert_eq!(quorum.runs(), begun, "none was started again");
    };
    let told = status(&quorum, "d1").expect("a status");
    assert_eq!(told.format(), 1);
    assert!(!told.warnings.contains("upgrade"), "{}", told.warnings);

    // The way back is open as long as one of them is of the version before.
    replace(&mut quorum, "d1", false);
    replace(&mut quorum, "d1", true);
    for (at, director) in DIRECTORS.into_iter().enumerate() {
        let told = status(&quorum, director).expect("a status");
        assert_eq!(told.format(), 1, "{director} is not upgraded yet");
        if at > 0 {
            let waits = format!("format 2 of the ledger waits for {director}, ");
            let later = DIRECTORS[at + 1..]
                .iter()
                .map(|name| format!("and for {name}, "));
            for waits in std::iter::once(waits).chain(later) {
                assert!(told.warnings.contains(&waits), "{}", told.warnings);
            }
        }
        replace(&mut quorum, director, false);
        untouched(&quorum, director);
    }
    let done = eventually("the ledger has the new format", || {
        status(&quorum, "d2").filter(|told| told.format() == 2)
    });
    assert!(!done.warnings.contains("upgrade"), "{}", done.warnings);
    let all = events(&quorum, "d3");
    let last = |wanted: &str| all.iter().rposition(|(kind, _)| kind == wanted);
    let raised = last("ledger.format");
    assert!(
        raised > last("director.known"),
        "only once all had told: {all:?}"
    );
    assert_eq!(
        all.iter()
            .filter(|(kind, _)| kind == "ledger.format")
            .count(),
        1
    );

    for (number, agent) in ["a1", "a2"].into_iter().enumerate() {
        quorum.kill(agent);
        quorum.agent_again(agent);
        eventually("its runs are taken over", || {
            (resumed(&quorum) > number).then_some(())
        });
        untouched(&quorum, "d1");
    }

    no_way_back(&mut quorum);
    untouched(&quorum, "d3");
}

/// A director of the version before is refused from here on, says so, and loses nothing by it.
fn no_way_back(quorum: &mut Quorum) {
    quorum.end("d3");
    start(quorum, "d3", true);
    let mut child = quorum.directors.remove("d3").expect("it was started");
    let ended = eventually("it ends by itself", || child.try_wait().expect("a child"));
    assert_eq!(ended.code(), Some(1));
    let log = quorum.logged("d3");
    for told in [
        "error[ledger_format]",
        "the ledger has format 2 there, and this director reads 1",
        "leave hold_format out, and start it again; nothing in its folder has changed",
    ] {
        assert!(log.contains(told), "{told}: {log}");
    }
    start(quorum, "d3", false);
    eventually("it is back with what it had", || {
        let told = status(quorum, "d3")?;
        (told.format() == 2 && told.view["voters"] == 3).then_some(())
    });
}

#[test]
fn a_director_of_the_version_before_is_not_let_into_a_cluster_that_has_gone_over() {
    let mut quorum = Quorum::found();
    eventually("the ledger has the new format", || {
        status(&quorum, "d1").filter(|told| told.format() == 2)
    });
    quorum.let_in("d2");
    start(&mut quorum, "d2", true);
    eventually("it is refused and told why", || {
        let log = quorum.logged("d2");
        let why = "reads format 1 of the ledger, and that of this cluster has format 2";
        (log.contains(why) && log.contains("install the version that the other directors run"))
            .then_some(())
    });
    let told = status(&quorum, "d1").expect("a status");
    assert_eq!(told.view["members"].as_array().map(Vec::len), Some(1));
    quorum.end("d2");
    start(&mut quorum, "d2", false);
    quorum.until_voters("d1", 2);
}
