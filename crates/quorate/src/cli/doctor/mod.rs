//! `doctor`: whether this machine is fit for a director or an agent.
//!
//! Each check is one function that tells findings and changes nothing; what it starts or writes, it
//! removes. Must work without a cluster, and must not stay longer than a few seconds.

mod clock;
mod directors;
mod disk;
mod kill_path;
mod ledger;
mod limits;

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::args::{DoctorArgs, Global};
use crate::failure::{Code, Exit, Failure};
use crate::output::{Cell, Column, Output, Row, Style, say};

/// How something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// As it should be.
    Ok,
    /// Not known, or not looked at.
    Unknown,
    /// It works, with less than it could.
    Warn,
    /// A daemon does not work with this, or not safely.
    Bad,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }

    const fn style(self) -> Style {
        match self {
            Self::Ok => Style::Good,
            Self::Unknown => Style::Faint,
            Self::Warn => Style::Warn,
            Self::Bad => Style::Bad,
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    found: String,
    /// What would make it better.
    next: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl ToString) -> Self {
        Self {
            check,
            state: State::Ok,
            found: found.to_string(),
            next: None,
        }
    }

    fn unknown(check: &'static str, found: impl ToString, next: impl ToString) -> Self {
        Self::not_ok(State::Unknown, check, found, next)
    }

    fn warn(check: &'static str, found: impl ToString, next: impl ToString) -> Self {
        Self::not_ok(State::Warn, check, found, next)
    }

    fn bad(check: &'static str, found: impl ToString, next: impl ToString) -> Self {
        Self::not_ok(State::Bad, check, found, next)
    }

    fn not_ok(
        state: State,
        check: &'static str,
        found: impl ToString,
        next: impl ToString,
    ) -> Self {
        Self {
            check,
            state,
            found: found.to_string(),
            next: Some(next.to_string()),
        }
    }
}

impl Row for Finding {
    const COLUMNS: &'static [Column] = &[
        Column {
            name: "CHECK",
            wide: false,
        },
        Column {
            name: "STATE",
            wide: false,
        },
        Column {
            name: "FOUND",
            wide: false,
        },
        Column {
            name: "NEXT",
            wide: false,
        },
    ];

    fn name(&self) -> String {
        self.check.to_owned()
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::text(self.check),
            Cell::Styled(self.state.name().to_owned(), self.state.style()),
            Cell::text(&self.found),
            Cell::maybe(self.next.as_ref()),
        ]
    }
}

/// Logs what is odd about the folder and the clock of a daemon that starts, as `doctor` tells it: who starts a
/// daemon has not always asked before.
pub(crate) fn warn_at_start(data_dir: &Path) {
    for Finding { found, next, .. } in odd_at_start(data_dir, Timestamp::now()) {
        tracing::warn!(next, "{found}");
    }
}

fn odd_at_start(data_dir: &Path, now: Timestamp) -> Vec<Finding> {
    let looked = [disk::file_system(data_dir), Some(clock::wall(now))];
    let mut found: Vec<Finding> = looked.into_iter().flatten().collect();
    found.retain(|finding| finding.state == State::Warn);
    found
}

pub(super) async fn doctor(
    args: &DoctorArgs,
    global: &Global,
    output: Output,
) -> Result<Exit, Failure> {
    let mut findings = kill_path::findings().await?;
    findings.extend(clock::findings());
    findings.extend(disk::findings(args.data_dir.as_deref()));
    findings.extend(limits::open_files());
    findings.extend(limits::port(args.listen, global).await);
    findings.extend(directors::findings(global).await?);
    if let Some(said) = &args.ledger {
        findings.extend(ledger::findings(said).await?);
    }
    output.list(&findings)?;
    let worst = findings.iter().map(|finding| finding.state).max();
    if worst == Some(State::Bad) {
        let bad = findings
            .iter()
            .filter(|finding| finding.state == State::Bad);
        return Err(Failure::new(
            Code::Unhealthy,
            format!("{} of {} checks are bad", bad.count(), findings.len()),
            "mend what the list names, and run it again",
        ));
    }
    if output.terminal && !output.is_json() {
        say("nothing is bad");
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_warned_of_a_folder_that_forgets_and_of_a_clock_before_2020() {
        let memory = Path::new("/dev/shm/not/there/yet");
        let odd = odd_at_start(memory, Timestamp::UNIX_EPOCH);
        let odd: Vec<&str> = odd.iter().map(|finding| finding.found.as_str()).collect();
        assert_eq!(
            odd,
            [
                "/dev/shm/not/there/yet is on tmpfs: it is gone when the machine restarts",
                "1970-01-01T00:00:00Z is before 2020"
            ]
        );
        let disk = Path::new(env!("CARGO_MANIFEST_DIR"));
        let odd = odd_at_start(disk, Timestamp::now());
        assert!(
            odd.iter().all(|finding| finding.check != "wall clock"),
            "{odd:?}"
        );
    }
}
