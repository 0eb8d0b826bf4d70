//! The job of the cluster tests: it writes down that it executes, every 20 ms, until it is killed.
//!
//! It is this test program itself, called as `it --exact recorder::…` with `RECORD_FILE` set. It shares
//! no code with quorate: only the environment that every job gets.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use crate::referee::{Judged, boot_nanos, judge};

/// Time between two beats.
const BEAT: Duration = Duration::from_millis(20);

/// The command line that runs [`writes_down_that_it_executes_until_it_is_asked_to_stop`] as a job.
pub(crate) fn command() -> Vec<String> {
    let program = std::env::current_exe().expect("this program has a path");
    let program = program.to_str().expect("it is text").to_owned();
    let test = "recorder::writes_down_that_it_executes_until_it_is_asked_to_stop";
    [&program, "--exact", test, "--nocapture", "--quiet"]
        .iter()
        .map(|word| (*word).to_owned())
        .collect()
}

#[test]
fn writes_down_that_it_executes_until_it_is_asked_to_stop() {
    if let Ok(file) = std::env::var("RECORD_FILE") {
        record(&file);
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("record");
    let command = command();
    let (program, args) = command.split_first().expect("a program");
    let mut job = std::process::Command::new(program)
        .args(args)
        .env("RECORD_FILE", &file)
        .envs([
            ("QUORATE_KEY", "k"),
            ("QUORATE_TOKEN", "7"),
            ("QUORATE_ATTEMPT", "1"),
        ])
        .env("QUORATE_DATA", "{\"x\":1}")
        .spawn()
        .expect("it starts");
    crate::support::eventually("three beats", || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        (text.matches(" BEAT ").count() >= 3).then_some(())
    });
    crate::support::signal(job.id(), rustix::process::Signal::TERM);
    assert!(job.wait().expect("it ends").success());
    let Judged { runs, problems } = judge(&file);
    assert_eq!(problems, Vec::<String>::new());
    let run = runs.first().expect("one run");
    assert_eq!((runs.len(), run.key.as_str(), run.token), (1, "k", 7));
    assert!(run.stopped);
    assert!(run.end > run.start);
}

/// Beats until SIGTERM, then says that it stops.
fn record(file: &str) {
    let var = |name: &str| std::env::var(name).expect("every job is told");
    let (key, token, attempt) = (
        var("QUORATE_KEY"),
        var("QUORATE_TOKEN"),
        var("QUORATE_ATTEMPT"),
    );
    let data = std::env::var("QUORATE_DATA")
        .unwrap_or_default()
        .replace(' ', "");
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .expect("the record opens");
    let mut write = |what: &str| {
        // One write of one line: lines of many processes in one file do not mix.
        let line = format!("{} {what} {key} {token} {attempt} {data}\n", boot_nanos());
        file.write_all(line.as_bytes())
            .expect("the record takes it");
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let terminate = tokio::signal::unix::SignalKind::terminate();
        let mut terminate = tokio::signal::unix::signal(terminate).expect("signals are heard");
        write("START");
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                () = tokio::time::sleep(BEAT) => write("BEAT"),
            }
        }
        write("STOP");
    });
}
