//! What a run has shown, for people: Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cluster::Size;
use crate::desk::Desk;
use crate::drama::Told;
use crate::faults::{FAULTS, Fault};
use crate::grade::{Grade, Treatment};
use crate::judge::{Promise, Violation};
use crate::register::Server;
use crate::store;

/// What a report says beside what came of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    pub(crate) seed: u64,
    /// What every agent has proven, again and again.
    pub(crate) grade: Grade,
    pub(crate) size: Size,
    /// The store of the ledger.
    pub(crate) ledger: Option<store::Kind>,
    /// Partitions that were to run at the end.
    pub(crate) partitions: usize,
    pub(crate) took: Duration,
    /// Whether processes, mounts and the network were its own.
    pub(crate) private: bool,
    /// Whether one machine's clock is ahead.
    pub(crate) ahead: bool,
    /// Whether it could not go on.
    pub(crate) failed: bool,
    /// The program's build, as its folder is named.
    pub(crate) build: &'a str,
    pub(crate) cores: usize,
}

/// The report. Writing to a string cannot fail.
pub(crate) fn report(about: About<'_>, told: &Told, desk: &Desk, register: &Server) -> String {
    let (violations, began, ended, beats) = desk.judge(|judge| {
        let counts = (judge.began, judge.ended, judge.beats);
        (judge.violations.clone(), counts.0, counts.1, counts.2)
    });
    let injected: u64 = told.injected.values().sum();
    let mut text = String::from("# Chaos with real processes: a report\n\n");
    let verdict = match (violations.is_empty(), about.failed) {
        (true, false) => "**No promise was broken.**",
        (true, true) => "**It could not be carried out to its end.**",
        (false, _) => "**Promises were broken.**",
    };
    let _ = writeln!(
        text,
        "{verdict} Seed {}, {:.1} minutes, {} rounds, {injected} injections of {} kinds; {} directors{} and {} agents, each \
         of which had proven containment `{}` after every round, {} partitions; {} build, {} cores, {}.\n",
        about.seed,
        about.took.as_secs_f64() / 60.0,
        told.rounds,
        told.injected.len(),
        about.size.directors,
        about
            .ledger
            .map_or_else(String::new, |store| format!(" over {}", store.text())),
        about.size.agents,
        about.grade,
        about.partitions,
        about.build,
        about.cores,
        if about.private {
            "in namespaces of its own"
        } else {
            "without namespaces"
        },
    );
    text.push_str(&of_grade(about.grade, desk));
    let (taken, late) = {
        let register = register.look();
        (register.taken, register.late)
    };
    let _ = writeln!(
        text,
        "Processes that began {began}, that ended {ended}; starts of commands {}; moments written down by processes \
         that ended {beats}; writes to the register {taken}, of which too late {late}.\n",
        told.starts
    );
    let mut loads = told.loads.clone();
    loads.sort_unstable();
    let _ = writeln!(
        text,
        "This machine had other things to do: its load average was {} at the median and {} at most, and a thread that \
         sleeps 10 ms, works 6 ms or writes to the disk was late by {} ms at most. In {} rounds that was too late for what must happen in time: they \
         are not in the times, and L2 was not judged there.\n",
        hundredths(loads.get(loads.len() / 2)),
        hundredths(loads.last()),
        told.latest.as_millis(),
        told.late_rounds
    );
    if about.ahead {
        text.push_str(
            "The clock of one machine was a day ahead of the others' (C1) all the time.\n\n",
        );
    }
    text.push_str(&verdicts(told, &violations));
    let _ = write!(text, "\n## Times\n\n{}", told.figures.table());
    text.push_str(&injections(told, about.ledger));
    text
}

/// What a grade below `kernel` does not promise, and what was made of that.
fn of_grade(grade: Grade, desk: &Desk) -> String {
    let mut text = String::new();
    if !grade.is_lower() {
        return text;
    }
    let lists = [
        (
            Treatment::LeftOut,
            "left out, because nothing is promised that could be judged",
        ),
        (
            Treatment::DaemonsLinger,
            "injected and judged, but that daemons of runs may be there beside the next run, and write, from the deadline \
             until 1 s after the heal",
        ),
        (
            Treatment::ByGroup,
            "injected in another way, and judged as ever",
        ),
    ];
    let _ = writeln!(
        text,
        "Agents and runs were those of an unprivileged user without namespaces. What containment `{grade}` does not bear \
         as `kernel` does:\n"
    );
    for (treatment, what) in lists {
        for fault in grade.told(treatment) {
            let _ = writeln!(text, "- {fault} ({what})");
        }
    }
    let lingered = desk.judge(|judge| judge.lingered());
    let _ = writeln!(
        text,
        "\nDaemons that were there beside the next run, and that nobody could end yet: {lingered}.\n"
    );
    text
}

fn hundredths(load: Option<&u64>) -> String {
    let load = load.copied().unwrap_or_default();
    format!("{}.{:02}", load / 100, load % 100)
}

fn verdicts(told: &Told, violations: &[Violation]) -> String {
    let mut text =
        String::from("## Promises\n\n| | promise | judged | broken |\n| --- | --- | --- | --- |\n");
    for promise in Promise::ALL {
        let broken = violations
            .iter()
            .filter(|one| one.promise == promise)
            .count();
        let judged = match promise {
            Promise::S1 | Promise::S2 | Promise::S3 => "always".to_owned(),
            Promise::S5 | Promise::L1 | Promise::L2 => {
                let times = told.judged.get(&promise).copied().unwrap_or_default();
                format!("{times} times")
            }
        };
        let _ = writeln!(
            text,
            "| {promise:?} | {} | {judged} | {broken} |",
            promise.text()
        );
    }
    if !violations.is_empty() {
        text.push_str("\n```text\n");
        for Violation {
            promise,
            at,
            text: what,
        } in violations.iter().take(50)
        {
            let _ = writeln!(text, "{promise:?} at {at}: {what}");
        }
        text.push_str("```\n");
    }
    text
}

/// Those of a store are nothing to whoever has none, and those of a quorum nothing over a store.
fn injections(told: &Told, ledger: Option<store::Kind>) -> String {
    let mut text = String::from("\n## Injections\n\n| | what | times |\n| --- | --- | --- |\n");
    let is_there = |fault: &&Fault| match ledger {
        None => !fault.is_of_store(),
        Some(kind) => fault.without_quorum().is_none() && kind.fits(fault.needs),
    };
    for fault in FAULTS.iter().filter(is_there) {
        let times = told.injected.get(fault.text).copied().unwrap_or_default();
        let _ = writeln!(text, "| {} | {} | {times} |", fault.id, fault.text);
    }
    if !told.left_out.is_empty() {
        text.push_str("\nLeft out:\n\n");
        for what in &told.left_out {
            let _ = writeln!(text, "- {what}");
        }
    }
    text
}
