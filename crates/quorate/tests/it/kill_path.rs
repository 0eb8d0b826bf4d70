//! What is promised of the kill path, as a person meets it: `doctor`, the grade as a placement rule, and
//! a deadline for each lease class, kept with agent and director frozen.

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::one::One;
use crate::support::{Done, done, eventually, free_port, quorate, signal};

/// Runs `doctor` with results as JSON; what it found, and how it ended.
fn doctor(args: &[&str], variables: &[(&str, &Path)]) -> (Vec<Value>, Done) {
    let output = quorate()
        .args(["doctor", "-o", "json"])
        .args(args)
        .envs(variables.iter().copied())
        .output()
        .expect("the program starts");
    let done = done(&output);
    let found = serde_json::from_str(&done.out);
    (
        found.unwrap_or_else(|error| panic!("{error}: {done:?}")),
        done,
    )
}

/// What was found by a check.
fn by<'a>(found: &'a [Value], check: &str) -> Vec<&'a Value> {
    found
        .iter()
        .filter(|finding| finding["check"] == check)
        .collect()
}

#[test]
fn doctor_finds_a_machine_fit_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("made");
    let data_dir = data.to_str().expect("text");
    let args = ["--data-dir", data_dir, "--listen", "127.0.0.1:0"];
    let (found, done) = doctor(&args, &[("TMPDIR", folder.path())]);
    assert_eq!(done.code, Some(0), "{done:?}");
    for check in [
        "kill path",
        "lease clock",
        "clock source",
        "wall clock",
        "clock rate",
        "data folder",
        "disk space",
        "disk sync",
        "open files",
        "port",
        "directors",
    ] {
        let found = by(&found, check);
        assert!(!found.is_empty(), "{check}");
        // Whatever could be better has a next step.
        for one in found {
            assert_eq!(one["state"] != "ok", one["next"].is_string(), "{one}");
        }
    }
    assert_eq!(by(&found, "directors")[0]["state"], "unknown");
    let mut left = std::fs::read_dir(folder.path()).expect("a folder");
    assert_eq!(left.next().expect("data").expect("data").path(), data);
    assert!(left.next().is_none());
    assert_eq!(std::fs::read_dir(&data).expect("a folder").count(), 0);
}

#[test]
fn doctor_ends_with_8_and_a_next_step_for_what_is_bad() {
    let nobody = format!("127.0.0.1:{}", free_port());
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let taken = stranger.local_addr().expect("an address").to_string();
    let args = ["--address", &nobody, "--listen", &taken];
    let (found, done) = doctor(&args, &[]);
    assert_eq!(done.code, Some(8), "{done:?}");
    assert!(done.err.starts_with("error[unhealthy]: 2 of "), "{done:?}");
    let directors = by(&found, "directors")[0];
    assert_eq!(directors["state"], "bad");
    let text = directors["found"].as_str().expect("text");
    assert!(text.contains(&nobody), "{directors}");
    let port = by(&found, "port")[0];
    assert_eq!(port["state"], "bad");
    let text = port["found"].as_str().expect("text");
    let own = format!("(pid {})", std::process::id());
    assert!(text.contains(&own), "{port}");
}

#[test]
fn doctor_tells_why_the_grade_is_not_better_and_what_would_raise_it() {
    let variables = [("QUORATE_WARDEN_CONTAINMENT", Path::new("scan"))];
    let (found, done) = doctor(&[], &variables);
    assert_eq!(done.code, Some(0), "{done:?}");
    let found = by(&found, "kill path");
    let text = found[0]["found"].as_str().expect("text");
    assert!(text.starts_with("scan, proven in "), "{found:?}");
    assert_eq!(found[0]["state"], "warn");
    assert!(
        found.iter().any(|one| one["next"] == "unset it"),
        "{found:?}"
    );
}

#[test]
fn doctor_knows_a_director_at_the_port_and_how_far_it_is() {
    let one = One::start(JOB);
    let address = one.address();
    let args = ["--address", &address, "--listen", &address];
    let (found, done) = doctor(&args, &[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let port = by(&found, "port")[0];
    assert_eq!(port["found"], format!("{address} is a director's"));
    let text = by(&found, "directors")[0]["found"].as_str().expect("text");
    assert!(text.starts_with(&address) && text.ends_with(" leads"));
}

const JOB: &str = "[service.s]\ncommand = ['sleep', '1000']\n[service.s.ramp]\nsettle = '1s'\n";

#[test]
fn a_service_that_requires_the_kernels_containment_waits_and_why_names_the_grade() {
    let lax = "
[service.lax]
command = ['sleep', '1000']
placement.require = ['containment in (kernel, cgroup, scan)']
[service.lax.ramp]
settle = '1s'
";
    let strict = "
[service.strict]
command = ['sleep', '1000']
placement.require = ['containment = kernel']
";
    let one = One::start_with(lax, &[("QUORATE_WARDEN_CONTAINMENT", "scan")]);
    std::fs::write(one.dir().join("job.toml"), format!("{lax}{strict}")).expect("written");
    one.ok(&["apply", "job.toml"]);
    eventually("the lax one runs", || {
        one.ok(&["status", "lax"]).contains("1 of 1").then_some(())
    });
    let agents: Value =
        serde_json::from_str(&one.ok(&["ls", "agents", "-o", "json"])).expect("JSON");
    assert_eq!(agents[0]["containment"], "scan");
    let why = one.ok(&["why", "strict/strict"]);
    assert!(why.contains("containment = kernel"), "{why}");
    let strict: Value =
        serde_json::from_str(&one.ok(&["status", "strict/strict", "-o", "json"])).expect("JSON");
    assert_eq!(strict["state"], "unassigned", "{strict}");
}

/// The command of a run that sleeps so long, if it lives.
fn sleeper(one: &One, seconds: &str) -> Option<u32> {
    let mark = one.dir().to_str().expect("text");
    std::fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(Result::ok)
        .find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let environment = std::fs::read(entry.path().join("environ")).ok()?;
            let of_this = String::from_utf8_lossy(&environment).contains(mark);
            (of_this && line == format!("sleep\0{seconds}\0").into_bytes()).then_some(pid)
        })
}

#[test]
fn each_lease_class_has_a_deadline_of_its_own_that_holds_with_everything_frozen() {
    let job: String = [
        ("fast", "3s", 1003),
        ("normal", "10s", 1010),
        ("patient", "6h", 1006),
    ]
    .map(|(name, lease, seconds)| {
        format!(
            "[service.{name}]\ncommand = ['sleep', '{seconds}']\nlease = '{lease}'\n\
                 [service.{name}.ramp]\nsettle = '1s'\n"
        )
    })
    .concat();
    let one = One::start(&job);
    let [fast, normal, patient] = ["1003", "1010", "1006"]
        .map(|seconds| eventually(&format!("sleep {seconds}"), || sleeper(&one, seconds)));
    let wardens = std::fs::read_dir(one.dir().join("quorate-data/agents/a1/wardens"));
    assert_eq!(wardens.expect("a folder").count(), 3, "one for each class");
    let agent = one.process_with("agent").expect("an agent");
    let agent = u32::try_from(agent).expect("a process id");
    let frozen = std::time::Instant::now();
    for pid in [agent, one.up_pid()] {
        signal(pid, Signal::STOP);
    }
    let lives = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_some_and(|state| !state.starts_with(['Z', 'X']))
    };
    eventually("the fast one is ended", || (!lives(fast)).then_some(()));
    let after = frozen.elapsed().as_secs_f64();
    assert!((1.0..6.0).contains(&after), "{after} s");
    assert!(lives(normal) && lives(patient));
    eventually("the normal one is ended", || (!lives(normal)).then_some(()));
    let after = frozen.elapsed().as_secs_f64();
    assert!((7.0..13.0).contains(&after), "{after} s");
    assert!(lives(patient));
    for pid in [one.up_pid(), agent] {
        signal(pid, Signal::CONT);
    }
    // What was lost comes back, and what was not is the same process still.
    for seconds in ["1003", "1010"] {
        eventually(&format!("sleep {seconds}"), || sleeper(&one, seconds));
    }
    assert_eq!(sleeper(&one, "1006"), Some(patient));
}
