//! A minute of chaos with real processes, and clusters that are broken on purpose, which the referee must
//! find out.
#![expect(
    clippy::expect_used,
    reason = "a test that cannot be set up has failed"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Each has a cluster that wants a machine of its own.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs the program with the product beside it.
fn chaos(args: &[&str]) -> Output {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let chaos = Path::new(env!("CARGO_BIN_EXE_quorate-chaos"));
    let output = Command::new(chaos)
        .args(args)
        .arg("--program")
        .arg(product(chaos))
        .output()
        .expect("it starts");
    for told in [&output.stderr, &output.stdout] {
        eprintln!("{}", String::from_utf8_lossy(told));
    }
    output
}

/// The program quorate of the same build. Cargo makes it for the tests of its own package and when the whole
/// workspace is tested, but not for this package alone.
fn product(chaos: &Path) -> PathBuf {
    let folder = chaos.parent().expect("a folder");
    let program = folder.join("quorate");
    if !is_fresh(&program) {
        let profile = match folder.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let built = Command::new(env!("CARGO"))
            .args(["build", "--locked", "-p", "quorate", "--profile", profile])
            .arg("--target-dir")
            .arg(folder.parent().expect("a target folder"))
            .status();
        assert!(built.expect("cargo starts").success());
    }
    program
}

/// Whether a program is newer than everything it was made of.
fn is_fresh(program: &Path) -> bool {
    let changed = |path: &Path| {
        std::fs::metadata(path)
            .and_then(|found| found.modified())
            .ok()
    };
    let made_of = std::fs::read_to_string(program.with_extension("d")).unwrap_or_default();
    let sources = made_of.split_once(':').map_or("", |(_, sources)| sources);
    let newest = sources
        .split_whitespace()
        .map(|path| changed(Path::new(path)));
    let newest: Option<SystemTime> = newest.max().flatten();
    newest.is_some() && changed(program) > newest
}

#[test]
fn a_minute_of_chaos_breaks_no_promise() {
    let output = chaos(&["run", "--minutes", "1", "--seed", "1"]);
    if lacks(&output) {
        return;
    }
    assert!(output.status.success(), "{}", output.status);
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(report.contains("**No promise was broken.**"));
    let injected = report.lines().filter(|line| line.ends_with(" 1 |")).count();
    assert!(injected > 5, "only {injected} kinds of faults in a minute");
    let left_out = report.lines().skip_while(|line| *line != "Left out:");
    let left_out: Vec<&str> = left_out.filter(|line| line.starts_with("- ")).collect();
    let required = std::env::var_os("QUORATE_TEST_REQUIRE").is_some_and(|value| value == "all");
    assert!(!required || left_out.is_empty(), "not run: {left_out:?}");
}

/// Whether this host gives agents no such grade, or has no such store, which is looked at before anything is injected;
/// told, and a failure where everything is asked for.
fn lacks(output: &Output) -> bool {
    let told = String::from_utf8_lossy(&output.stderr);
    let cannot = [
        "no agent can earn",
        "has proven the grade",
        "no privilege",
        "is not installed",
    ];
    let Some(why) = told
        .lines()
        .find(|line| cannot.iter().any(|what| line.contains(what)))
    else {
        return false;
    };
    let required = std::env::var_os("QUORATE_TEST_REQUIRE").is_some_and(|value| value == "all");
    assert!(!required, "not run: {why}");
    // Past the capture of output, which would show it for failed tests only.
    let mut out = std::io::stderr();
    std::io::Write::write_fmt(&mut out, format_args!("not run: {why}\n")).expect("it is told");
    true
}

/// A round or two of these faults, with an option that the report repeats in such words.
fn some_rounds_of(option: [&str; 2], words: &str, faults: &[&str]) {
    let mut args = vec!["run", "--minutes", "0.1", "--seed", "1"];
    args.extend(option);
    args.extend(faults.iter().flat_map(|fault| ["--only", fault]));
    let output = chaos(&args);
    if lacks(&output) {
        return;
    }
    assert!(output.status.success(), "{}", output.status);
    let report = String::from_utf8_lossy(&output.stdout);
    let first = report.lines().nth(2).unwrap_or_default();
    assert!(first.starts_with("**No promise was broken.**"), "{first}");
    assert!(first.contains(words), "{first}");
    let table = report.lines().skip_while(|line| *line != "## Injections");
    let times = table.filter_map(|line| {
        let last = line.strip_suffix(" |")?.rsplit(' ').next()?;
        last.parse::<u64>().ok()
    });
    let injected: u64 = times.sum();
    assert!(injected > 0, "nothing was injected");
}

#[test]
fn unprivileged_agents_keep_what_a_scan_of_processes_promises() {
    some_rounds_of(
        ["--grade", "scan"],
        "containment `scan`",
        &["runs stopped", "timekeepers of wardens"],
    );
}

#[test]
fn unprivileged_agents_keep_what_a_control_group_promises() {
    some_rounds_of(
        ["--grade", "cgroup"],
        "containment `cgroup`",
        &["agent and both processes", "holders of wardens"],
    );
}

#[test]
fn over_postgresql_no_promise_is_broken() {
    some_rounds_of(
        ["--ledger", "postgres"],
        "3 directors over PostgreSQL",
        &["only server of the store", "leader cut from the store"],
    );
}

#[test]
fn over_etcd_no_promise_is_broken() {
    some_rounds_of(
        ["--ledger", "etcd"],
        "3 directors over etcd",
        &["leading server of the store killed"],
    );
}

#[test]
fn over_zookeeper_no_promise_is_broken() {
    some_rounds_of(
        ["--ledger", "zookeeper"],
        "3 directors over ZooKeeper",
        &["whole store stopped for less"],
    );
}

#[test]
fn two_clusters_that_run_the_same_partitions_are_found_out() {
    let output = chaos(&["teeth", "two-clusters"]);
    assert!(output.status.success(), "{}", output.status);
    assert!(String::from_utf8_lossy(&output.stdout).contains("began while there was still"));
}

#[test]
fn a_daemon_that_outlives_its_run_is_found_out() {
    let output = chaos(&["teeth", "hidden-daemon"]);
    assert!(output.status.success(), "{}", output.status);
    assert!(String::from_utf8_lossy(&output.stdout).contains("there was still the daemon"));
}
