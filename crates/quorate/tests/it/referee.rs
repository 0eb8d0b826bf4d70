//! Judges what jobs have written down: whether a partition was ever executed twice at once, and whether
//! its tokens only rise. Shares no code with quorate.

use std::collections::BTreeMap;
use std::path::Path;

/// One execution of one partition.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) key: String,
    pub(crate) token: u64,
    pub(crate) attempt: u64,
    pub(crate) data: String,
    /// CLOCK_BOOTTIME in nanoseconds of its first line.
    pub(crate) start: u64,
    /// The same of its last.
    pub(crate) end: u64,
    /// It said itself that it stops.
    pub(crate) stopped: bool,
}

/// What the record says.
#[derive(Debug)]
pub(crate) struct Judged {
    /// All runs by the time of their start.
    pub(crate) runs: Vec<Run>,
    /// Everything that must never be.
    pub(crate) problems: Vec<String>,
}

/// Now, on the clock of the record.
pub(crate) fn boot_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).expect("after the start");
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).expect("not negative")
}

/// Reads the record and judges it.
pub(crate) fn judge(file: &Path) -> Judged {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut all: BTreeMap<(String, u64, u64), Run> = BTreeMap::new();
    let mut problems = Vec::new();
    // The last line may be half written while the record is read.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [at, what, key, token, attempt, data] = words[..] else {
            problems.push(format!("a line that is none: {line:?}"));
            continue;
        };
        let at: u64 = at.parse().expect("a time");
        let token: u64 = token.parse().expect("a token");
        let attempt: u64 = attempt.parse().expect("an attempt");
        let id = (key.to_owned(), token, attempt);
        if what == "START" && all.contains_key(&id) {
            problems.push(format!(
                "{key} was started twice as attempt {attempt} under token {token}"
            ));
        }
        let run = all.entry(id).or_insert_with(|| Run {
            key: key.to_owned(),
            token,
            attempt,
            data: data.to_owned(),
            start: at,
            end: at,
            stopped: false,
        });
        run.start = run.start.min(at);
        run.end = run.end.max(at);
        run.stopped |= what == "STOP";
    }
    let mut runs: Vec<Run> = all.into_values().collect();
    runs.sort_by_key(|run| run.start);
    let mut last: BTreeMap<&str, &Run> = BTreeMap::new();
    for run in &runs {
        if let Some(before) = last.insert(&run.key, run) {
            if run.start <= before.end {
                problems.push(format!(
                    "{} was executed twice at once: token {} until {}, token {} from {}",
                    run.key, before.token, before.end, run.token, run.start
                ));
            }
            if (run.token, run.attempt) <= (before.token, before.attempt) {
                problems.push(format!(
                    "{} went from token {} attempt {} back to token {} attempt {}",
                    run.key, before.token, before.attempt, run.token, run.attempt
                ));
            }
        }
    }
    Judged { runs, problems }
}

#[test]
fn the_referee_sees_two_copies_at_once_and_tokens_that_fall() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("record");
    let told = |text: &str| {
        std::fs::write(&file, text).expect("written");
        judge(&file).problems
    };
    let fine = "10 START a 1 1 -\n20 BEAT a 1 1 -\n30 START a 2 1 -\n31 START b 1 1 -\n";
    assert_eq!(told(fine), Vec::<String>::new());
    let twice = "10 START a 1 1 -\n20 START a 2 1 -\n25 BEAT a 1 1 -\n";
    assert!(told(twice)[0].contains("twice at once"));
    let falls = "10 START a 2 1 -\n20 START a 1 1 -\n";
    assert!(told(falls)[0].contains("back to token"));
    let again = "10 START a 2 1 -\n20 START a 2 1 -\n";
    assert!(told(again)[0].contains("started twice"));
}
