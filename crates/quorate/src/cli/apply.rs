//! `apply`, `plan`, `validate`, `rm`: files and what they put in force.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use quorate_api::client::Error;
use quorate_api::resources::{ApplyRequest, Plan, PlannedStop, ServiceChangeKind, ServiceState};
use quorate_core::ids::{AgentName, ServiceName};
use quorate_core::spec::{File, PartitionSource, ServiceSpec};
use serde::Serialize;

use super::args::{ApplyArgs, FilesArgs, PlanArgs, Removable, RmArgs, Target};
use super::remote::{Remote, failure_of};
use super::settle::{Goal, settle, summary, verdict};
use crate::failure::{Code, Exit, Failure};
use crate::files::{self, Loaded};
use crate::output::{Cell, Column, Output, Row, Style, one_line, say};

/// Moves, starts and stops that a plan shows one by one.
const SHOWN_MAX: usize = 20;

pub(super) async fn apply(args: &ApplyArgs, remote: &Remote) -> Result<Exit, Failure> {
    let loaded = files::load(&args.files.files)?;
    let answer = remote
        .client
        .apply(&request(&loaded)?)
        .await
        .map_err(failure_of)?;
    for note in &answer.notes {
        say(note);
    }
    remote.output.one(&answer, &names(&loaded.file), || {
        answer.changes.iter().fold(String::new(), |mut text, one| {
            let _ = writeln!(text, "service/{} {}", one.service, one.change.as_str());
            text
        })
    })?;
    let Some(limit) = args.wait else {
        return Ok(Exit::Done);
    };
    let mut worst = Exit::Done;
    for name in loaded.file.service.keys() {
        let goal = Goal {
            service: Some(name.as_str()),
            index: answer.index,
            // A list from outside comes a moment after the service.
            at_least: loaded.partitions(name),
            refused: answer
                .refused
                .iter()
                .find(|one| one.service == name.as_str()),
        };
        let progress = settle(remote, &goal, limit.0, name.as_str()).await?;
        if verdict(remote, &goal, &progress).await? != Exit::Done {
            worst = Exit::Unhealthy;
        }
        say(&format!("{name}: {}", summary(&progress).trim_end()));
    }
    Ok(worst)
}

/// The services of the files as the directors take them.
///
/// # Errors
/// When they cannot be written as JSON.
pub(crate) fn request(loaded: &Loaded) -> Result<ApplyRequest, Failure> {
    let spec = serde_json::to_value(&loaded.file).map_err(|error| {
        Failure::new(
            Code::Failed,
            format!("the files cannot be written as JSON: {error}"),
            "report this as a defect",
        )
    })?;
    Ok(ApplyRequest {
        spec,
        base: loaded
            .folders
            .first()
            .map(|folder| folder.display().to_string()),
    })
}

fn names(file: &File) -> String {
    let names: Vec<String> = file
        .service
        .keys()
        .map(|name| format!("service/{name}"))
        .collect();
    names.join("\n")
}

pub(super) fn validate(args: &FilesArgs, output: Output) -> Result<Exit, Failure> {
    let loaded = files::load(&args.files)?;
    let rows: Vec<Checked> = loaded
        .file
        .service
        .iter()
        .map(|(name, spec)| Checked {
            name: name.to_string(),
            partitions: loaded.partitions(name),
            source: source(spec),
            command: spec.command.clone(),
        })
        .collect();
    output.list(&rows)?;
    let count = rows.len();
    say(&format!(
        "valid: {count} service{}",
        if count == 1 { "" } else { "s" }
    ));
    Ok(Exit::Done)
}

/// A service that passed the checks.
#[derive(Serialize)]
struct Checked {
    name: String,
    partitions: u64,
    source: String,
    command: Vec<String>,
}

fn source(spec: &ServiceSpec) -> String {
    match &spec.partitions {
        None => "single".to_owned(),
        Some(PartitionSource {
            file: Some(file), ..
        }) => file.clone(),
        Some(PartitionSource {
            range: Some(range), ..
        }) => range.clone(),
        Some(_) => "list".to_owned(),
    }
}

impl Row for Checked {
    const COLUMNS: &'static [Column] = &[
        Column {
            name: "SERVICE",
            wide: false,
        },
        Column {
            name: "PARTITIONS",
            wide: false,
        },
        Column {
            name: "SOURCE",
            wide: false,
        },
        Column {
            name: "COMMAND",
            wide: false,
        },
    ];

    fn name(&self) -> String {
        format!("service/{}", self.name)
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::text(&self.name),
            Cell::text(self.partitions),
            Cell::text(&self.source),
            Cell::text(self.command.join(" ")),
        ]
    }
}

pub(super) async fn plan(args: &PlanArgs, remote: &Remote) -> Result<Exit, Failure> {
    let loaded = files::load(&args.files.files)?;
    let plan = remote
        .client
        .plan(&request(&loaded)?)
        .await
        .map_err(failure_of)?;
    let color = remote.output.color;
    remote
        .output
        .one(&plan, &names(&loaded.file), || describe(&plan, color))?;
    if args.exit_code && changes(&plan) {
        Ok(Exit::Changes)
    } else {
        Ok(Exit::Done)
    }
}

/// Whether the files differ from what is in force; a list that is refused does, though it changes nothing. What moves anyway, such as off an agent that drains,
/// is no change of theirs.
fn changes(plan: &Plan) -> bool {
    let services = &plan.services;
    services
        .iter()
        .any(|service| service.change != ServiceChangeKind::Unchanged || service.refused.is_some())
}

/// A plan for people. Writing to a string cannot fail.
fn describe(plan: &Plan, color: bool) -> String {
    let mut text = String::new();
    for service in &plan.services {
        let (sign, style) = match service.change {
            ServiceChangeKind::Added => ("+", Style::Good),
            ServiceChangeKind::Changed => ("~", Style::Warn),
            ServiceChangeKind::Unchanged => ("=", Style::Faint),
        };
        let mut line = format!("{sign} service/{}", service.service);
        if !service.fields.is_empty() {
            let _ = write!(line, " ({})", service.fields.join(", "));
        }
        let counts = [
            (service.partitions_added, "new"),
            (service.partitions_removed, "gone"),
            (service.partitions_changed, "changed"),
        ];
        for (count, word) in counts {
            if count > 0 {
                let _ = write!(line, ", {count} {word}");
            }
        }
        let _ = writeln!(text, "{}", style.paint(&line, color));
        if let Some(why) = &service.refused {
            let line = format!(
                "! its list would be refused: {}; its partitions stay as they are",
                one_line(why)
            );
            let _ = writeln!(text, "  {}", Style::Bad.paint(&line, color));
        }
    }
    if plan.is_empty() {
        text.push_str("nothing would change\n");
    } else if !changes(plan) {
        text.push_str("these files change nothing; this is under way anyway:\n");
    }
    let part = |service: &str, key: &str| format!("{service}/{key}");
    section(
        &mut text,
        "would start",
        plan.start_count,
        &plan.starts,
        |start| format!("{} on {}", part(&start.service, &start.key), start.agent),
    );
    section(
        &mut text,
        "would move",
        plan.move_count,
        &plan.moves,
        |planned| {
            let name = part(&planned.service, &planned.key);
            format!(
                "{name} {} -> {}: {}",
                planned.from, planned.to, planned.reason
            )
        },
    );
    let line = |stop: &PlannedStop| {
        let name = part(&stop.service, &stop.key);
        format!("{name} on {}: {}", stop.agent, stop.reason)
    };
    section(&mut text, "would stop", plan.stop_count, &plan.stops, line);
    section(
        &mut text,
        "would restart in place",
        plan.restart_count,
        &plan.restarts,
        line,
    );
    section(
        &mut text,
        // What waits in any case is no change, and yet what a person looks for here.
        if plan.is_empty() {
            "waiting as now"
        } else {
            "would wait"
        },
        plan.waiting_count,
        &plan.waiting,
        |wait| format!("{}: {}", part(&wait.service, &wait.key), wait.reason),
    );
    text
}

fn section<T>(text: &mut String, word: &str, count: u64, items: &[T], line: impl Fn(&T) -> String) {
    if count == 0 {
        return;
    }
    let _ = writeln!(text, "{count} {word}:");
    let shown = items.len().min(SHOWN_MAX);
    for item in items.iter().take(shown) {
        let _ = writeln!(text, "  {}", line(item));
    }
    let more = usize::try_from(count)
        .unwrap_or(usize::MAX)
        .saturating_sub(shown);
    if more > 0 {
        let _ = writeln!(text, "  and {more} more (-o json lists up to 1000)");
    }
}

/// One change: all of them or, when one of the names is none, nothing.
pub(super) async fn rm(args: &RmArgs, remote: &Remote) -> Result<Exit, Failure> {
    let services = args.targets.iter().filter_map(|target| match target {
        Removable::Service(name) => Some(name),
        Removable::Agent(_) => None,
    });
    let services: BTreeSet<&ServiceName> = services.collect();
    if !services.is_empty() {
        remove_services(&services, remote).await?;
    }
    for target in &args.targets {
        if let Removable::Agent(name) = target {
            forget(name, remote).await?;
        }
    }
    Ok(Exit::Done)
}

async fn forget(name: &AgentName, remote: &Remote) -> Result<(), Failure> {
    let forgotten = remote.client.forget_agent(name.as_str()).await;
    let done = forgotten.map_err(failure_of)?;
    let line = format!("agent/{name}");
    remote
        .output
        .one(&done, &line, || format!("{line} is forgotten\n"))
}

async fn remove_services(targets: &BTreeSet<&ServiceName>, remote: &Remote) -> Result<(), Failure> {
    let names: Vec<&str> = targets.iter().map(|name| name.as_str()).collect();
    let done = match remote.client.remove_services(&names).await {
        Ok(done) => done,
        Err(error) => return Err(not_removed(targets, error, remote).await),
    };
    for note in &done.notes {
        say(note);
    }
    let lines: Vec<String> = names.iter().map(|name| format!("service/{name}")).collect();
    remote.output.one(&done, &lines.join("\n"), || {
        lines.iter().fold(String::new(), |mut text, name| {
            let _ = writeln!(text, "{name} removed; its runs are stopped");
            text
        })
    })
}

/// Why nothing was removed, with the name that was probably meant.
async fn not_removed(targets: &BTreeSet<&ServiceName>, error: Error, remote: &Remote) -> Failure {
    let known = remote.client.services(None).await;
    let known = known.map_or_else(|_| Vec::new(), |known| known.value);
    let active = |name: &ServiceName| {
        let mut named = known.iter().filter(|s| s.name == name.as_str());
        named.any(|service| service.state != ServiceState::Removing)
    };
    let Some(missing) = targets.iter().find(|name| !active(name)) else {
        return failure_of(error);
    };
    let target = Target {
        service: (*missing).clone(),
        key: None,
    };
    let mut failure = remote.about(&target, error).await;
    if targets.len() > 1 && failure.first.code == Code::NotFound {
        failure.first.sentence.push_str("; nothing was removed");
    }
    failure
}

#[cfg(test)]
mod tests {
    use quorate_api::resources::{PlannedWait, ServiceChange};

    use super::*;

    fn plan(change: ServiceChangeKind) -> Plan {
        Plan {
            services: vec![ServiceChange {
                service: "feeds".to_owned(),
                change,
                fields: Vec::new(),
                partitions_added: 0,
                partitions_removed: 0,
                partitions_changed: 0,
                refused: None,
            }],
            waiting: vec![PlannedWait {
                service: "feeds".to_owned(),
                key: "ci".to_owned(),
                reason: "no agent may hold it".to_owned(),
            }],
            waiting_count: 1,
            ..Plan::default()
        }
    }

    #[test]
    fn a_plan_that_changes_nothing_says_so_before_it_tells_what_waits_anyway() {
        assert_eq!(
            describe(&plan(ServiceChangeKind::Unchanged), false),
            "= service/feeds\nnothing would change\n1 waiting as now:\n  feeds/ci: no agent may hold it\n"
        );
        let mut refused = plan(ServiceChangeKind::Unchanged);
        refused.services[0].refused = Some("it would drop 4 of 6 partitions".to_owned());
        assert!(changes(&refused), "the files differ");
        let text = describe(&refused, false);
        assert!(
            text.starts_with(
                "= service/feeds\n  ! its list would be refused: it would drop 4 of 6 partitions; \
                 its partitions stay as they are\nnothing would change\n"
            ),
            "{text}"
        );
        let mut moving = plan(ServiceChangeKind::Unchanged);
        moving.move_count = 1;
        assert!(describe(&moving, false).contains("these files change nothing"));
        assert!(!changes(&moving));
        assert!(changes(&plan(ServiceChangeKind::Added)));
        assert_eq!(
            describe(&plan(ServiceChangeKind::Added), false),
            "+ service/feeds\n1 would wait:\n  feeds/ci: no agent may hold it\n"
        );
    }
}
