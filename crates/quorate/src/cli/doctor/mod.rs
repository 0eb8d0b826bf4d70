//! `doctor`: whether this machine is fit for a director or an agent.
//!
//! Each check is one function that tells findings and changes nothing; what it starts or writes, it
//! removes. Must work without a cluster, and must not stay longer than a few seconds.

mod clock;
mod directors;
mod disk;
mod kill_path;
mod limits;

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
