//! `status`, `why`, `history`: how everything is, how one thing is, and how it came to be.

use std::fmt::Write as _;

use quorate_api::checkpoint::CheckpointSummary;
use quorate_api::client::PartitionFilter;
use quorate_api::resources::{
    AgentState, AgentView, DirectorRole, DirectorView, ExitView, HistoryEntry, PartitionView,
    Progress, ServiceState, ServiceView, Why,
};
use quorate_api::routes::PAGE_MAX;
use quorate_core::ids::{PartitionKey, ServiceName};
use serde::Serialize;

use super::args::{PartitionArgs, StatusArgs, Target};
use super::list::{state_style, state_word};
use super::logs;
use super::remote::{Remote, failure_of};
use super::settle::{counted, summary};
use crate::failure::{Exit, Failure};
use crate::output::{Cell, Column, Row, Style, ago, one_line, partitions};

/// Steps of a partition's life that `status` shows.
const LAST_EVENTS: usize = 5;
/// Lines of a partition's log that `status` shows.
const LAST_LOG_LINES: u32 = 5;
/// Characters that it shows of each.
const LOG_LINE_SHOWN: usize = 200;
/// Problems that `status` names.
const PROBLEMS_SHOWN: usize = 10;

pub(super) async fn status(args: &StatusArgs, remote: &Remote) -> Result<Exit, Failure> {
    match &args.target {
        None => everything(remote).await,
        Some(Target { service, key: None }) => of_service(service, remote).await,
        Some(Target {
            service,
            key: Some(key),
        }) => of_partition(service, key, remote).await,
    }
}

/// All that `status` knows of the whole cluster.
#[derive(Serialize)]
struct Everything {
    progress: Progress,
    directors: Vec<DirectorView>,
    agents: Vec<AgentView>,
    services: Vec<ServiceView>,
    /// The first of them; `progress` tells how many there are.
    problems: Vec<PartitionView>,
}

/// One page of what does not run as it should: the list may be as long as that of all partitions.
async fn problems(
    filter: &PartitionFilter,
    remote: &Remote,
) -> Result<Vec<PartitionView>, Failure> {
    let page = remote.client.partitions_page(filter, PAGE_MAX, None);
    Ok(page.await.map_err(failure_of)?.items)
}

async fn everything(remote: &Remote) -> Result<Exit, Failure> {
    let client = &remote.client;
    let filter = PartitionFilter {
        problems: true,
        ..PartitionFilter::default()
    };
    let all = Everything {
        progress: client.progress(None, None).await.map_err(failure_of)?,
        directors: client.directors().await.map_err(failure_of)?.value,
        agents: client.agents(None).await.map_err(failure_of)?.value,
        services: client.services(None).await.map_err(failure_of)?.value,
        problems: problems(&filter, remote).await?,
    };
    let color = remote.output.color;
    remote
        .output
        .one(&all, "cluster", || describe(&all, color))?;
    Ok(Exit::Done)
}

/// The cluster on one screen. Writing to a string cannot fail.
fn describe(all: &Everything, color: bool) -> String {
    let mut text = String::new();
    let leader = all
        .directors
        .iter()
        .find(|director| director.role == DirectorRole::Leader);
    let _ = match leader {
        Some(leader) => writeln!(
            text,
            "directors   {} ({} leads, epoch {})",
            all.directors.len(),
            leader.name,
            leader.epoch
        ),
        None => writeln!(
            text,
            "directors   {}",
            Style::Bad.paint("none leads", color)
        ),
    };
    let away = all
        .agents
        .iter()
        .filter(|agent| agent.state != AgentState::Active)
        .count();
    let _ = write!(text, "agents      {}", all.agents.len());
    if away > 0 {
        let note = format!(" ({away} not active)");
        text.push_str(&Style::Warn.paint(&note, color));
    }
    text.push('\n');
    let healthy = all.progress.running >= all.progress.total && all.progress.failed == 0;
    let style = if healthy { Style::Good } else { Style::Warn };
    let line = summary(&all.progress);
    let _ = writeln!(text, "partitions  {}", style.paint(line.trim_end(), color));
    for service in &all.services {
        let counts = counted(&service.partitions);
        let _ = write!(text, "  {}: {counts}", service.name);
        let note = match service.state {
            ServiceState::Active => "",
            ServiceState::Stopped => "; the service is stopped",
            ServiceState::Removing => "; it is being removed",
        };
        let _ = writeln!(
            text,
            "{}",
            Style::Warn.paint(note, color && !note.is_empty())
        );
        if let Some(problem) = &service.source.problem {
            let _ = writeln!(text, "    {}", Style::Bad.paint(&one_line(problem), color));
        }
    }
    for agent in &all.agents {
        let _ = writeln!(
            text,
            "  {}: {}, {}",
            agent.name,
            partitions(agent.partitions),
            agent.state.as_str()
        );
    }
    for partition in all.problems.iter().take(PROBLEMS_SHOWN) {
        let why = one_line(partition.waiting.as_deref().unwrap_or("no reason is known"));
        let word = state_style(partition).paint(state_word(partition), color);
        let _ = writeln!(text, "! {} {word}: {why}", partition.name());
    }
    if all.problems.len() > PROBLEMS_SHOWN {
        // The list is one page; with a full one there may be more than it holds.
        let full = all.problems.len() >= PAGE_MAX as usize;
        let _ = writeln!(
            text,
            "  and {}{} more: quorate ls partitions --problems",
            if full { "at least " } else { "" },
            all.problems.len() - PROBLEMS_SHOWN
        );
    }
    text
}

/// What `status` knows of a service.
#[derive(Serialize)]
struct OfService {
    #[serde(flatten)]
    service: ServiceView,
    /// The first of them.
    problems: Vec<PartitionView>,
}

async fn of_service(name: &ServiceName, remote: &Remote) -> Result<Exit, Failure> {
    let service = match remote.client.service(name.as_str()).await {
        Ok(service) => service.value,
        Err(error) => {
            let target = Target {
                service: name.clone(),
                key: None,
            };
            return Err(remote.about(&target, error).await);
        }
    };
    let filter = PartitionFilter {
        service: Some(name.to_string()),
        problems: true,
        ..PartitionFilter::default()
    };
    let problems = problems(&filter, remote).await?;
    let all = OfService { service, problems };
    let color = remote.output.color;
    remote.output.one(&all, &format!("service/{name}"), || {
        describe_service(&all, color)
    })?;
    Ok(Exit::Done)
}

fn describe_service(all: &OfService, color: bool) -> String {
    let mut text = String::new();
    let service = &all.service;
    let counts = &service.partitions;
    let style = if counts.running + counts.stopping + counts.stopped >= counts.total {
        Style::Good
    } else {
        Style::Warn
    };
    let running = counted(counts);
    let _ = writeln!(text, "{}", Style::Strong.paint(&service.name, color));
    let _ = writeln!(text, "  state   {}", style.paint(&running, color));
    let _ = write!(text, "  source  {}", service.source.kind);
    if let Some(location) = &service.source.location {
        let _ = write!(text, " {}", one_line(location));
    }
    text.push('\n');
    if let Some(problem) = &service.source.problem {
        let _ = writeln!(
            text,
            "          {}",
            Style::Bad.paint(&one_line(problem), color)
        );
    }
    match service.state {
        ServiceState::Active => {}
        ServiceState::Stopped => {
            let _ = writeln!(text, "          stopped; `quorate start {}`", service.name);
        }
        ServiceState::Removing => {
            let _ = writeln!(
                text,
                "          being removed; it is gone when its last run has ended"
            );
        }
    }
    for (agent, count) in &service.agents {
        let _ = writeln!(text, "  {agent}: {}", partitions(*count));
    }
    for partition in all.problems.iter().take(PROBLEMS_SHOWN) {
        let why = one_line(partition.waiting.as_deref().unwrap_or_default());
        let _ = writeln!(text, "! {}: {why}", partition.name());
    }
    text
}

/// What `status` knows of a partition.
#[derive(Serialize)]
struct OfPartition {
    #[serde(flatten)]
    partition: PartitionView,
    last_events: Vec<HistoryEntry>,
    /// Empty also when its agent does not tell them in time.
    last_log_lines: Vec<String>,
}

async fn of_partition(
    service: &ServiceName,
    key: &PartitionKey,
    remote: &Remote,
) -> Result<Exit, Failure> {
    let (name, key) = (service.as_str(), key.as_str());
    let partition = match remote.client.partition(name, key, None).await {
        Ok(partition) => partition.value,
        Err(error) => return Err(about(service, key, error, remote).await),
    };
    let mut last_events = remote
        .client
        .history(name, key)
        .await
        .map_err(failure_of)?
        .entries;
    let skipped = last_events.len().saturating_sub(LAST_EVENTS);
    last_events.drain(..skipped);
    let all = OfPartition {
        partition,
        last_events,
        last_log_lines: logs::last_lines(&remote.client, name, key, LAST_LOG_LINES).await,
    };
    let color = remote.output.color;
    remote.output.one(&all, &all.partition.name(), || {
        describe_partition(&all, color)
    })?;
    Ok(Exit::Done)
}

async fn about(
    service: &ServiceName,
    key: &str,
    error: quorate_api::client::Error,
    remote: &Remote,
) -> Failure {
    let target = Target {
        service: service.clone(),
        key: PartitionKey::new(key).ok(),
    };
    remote.about(&target, error).await
}

fn describe_partition(all: &OfPartition, color: bool) -> String {
    let partition = &all.partition;
    let mut text = String::new();
    let word = state_style(partition).paint(state_word(partition), color);
    let _ = writeln!(text, "{}", Style::Strong.paint(&partition.name(), color));
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    line("state", word);
    if let Some(waiting) = &partition.waiting {
        line("waiting", one_line(waiting));
    }
    if let Some(agent) = &partition.agent {
        line("agent", agent.clone());
    }
    if let Some(since) = &partition.since {
        line("since", format!("{} ago ({since})", ago(since)));
    }
    if let Some(token) = partition.token {
        line("token", token.to_string());
    }
    if let Some(pid) = partition.pid {
        line("pid", pid.to_string());
    }
    if let Some(health) = &partition.health {
        line("health", one_line(health));
    }
    line("restarts", partition.restarts.to_string());
    if let Some(checkpoint) = &partition.checkpoint {
        line("checkpoint", checkpoint_text(checkpoint));
    }
    if let Some(exit) = &partition.exit {
        line("last exit", exit_text(exit));
    }
    if !all.last_events.is_empty() {
        let _ = writeln!(text, "  last events");
        for entry in &all.last_events {
            let _ = writeln!(
                text,
                "    {:>6} ago  {}",
                ago(&entry.at),
                one_line(&entry.text)
            );
        }
    }
    if !all.last_log_lines.is_empty() {
        let _ = writeln!(text, "  last log lines");
        for line in &all.last_log_lines {
            let shown: String = line.chars().take(LOG_LINE_SHOWN).collect();
            let _ = writeln!(text, "    {}", one_line(&shown));
        }
    }
    let name = partition.name();
    let _ = writeln!(text, "  output     quorate logs {name}");
    text
}

fn checkpoint_text(checkpoint: &CheckpointSummary) -> String {
    let (bytes, token) = (checkpoint.bytes, checkpoint.token);
    let unit = if bytes == 1 { "byte" } else { "bytes" };
    let written = ago(&checkpoint.at);
    format!("{bytes} {unit}, written {written} ago under token {token}")
}

/// How a run ended, in a few words.
pub(crate) fn exit_text(exit: &ExitView) -> String {
    let class = exit.class.replace('_', " ");
    let cause = exit.cause.as_deref().map(one_line);
    let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
    match (exit.code, exit.signal) {
        (Some(code), _) => format!("{class} (code {code}){cause}"),
        (None, Some(signal)) => format!("{class} (signal {signal}){cause}"),
        (None, None) => format!("{class}{cause}"),
    }
}

pub(super) async fn why(args: &PartitionArgs, remote: &Remote) -> Result<Exit, Failure> {
    let (service, key) = (&args.partition.service, args.partition.key.as_str());
    let why = match remote.client.why(service.as_str(), key).await {
        Ok(why) => why,
        Err(error) => return Err(about(service, key, error, remote).await),
    };
    let name = format!("{}/{}", why.service, why.key);
    remote.output.one(&why, &name, || describe_why(&why))?;
    Ok(Exit::Done)
}

fn describe_why(why: &Why) -> String {
    let mut text = format!("{}/{} ", why.service, why.key);
    let _ = match &why.agent {
        Some(agent) => writeln!(text, "is {} on {agent}", why.state.as_str()),
        None => writeln!(text, "is {}", why.state.as_str()),
    };
    let _ = writeln!(text, "  {}", one_line(&why.reason));
    for excluded in &why.excluded {
        let _ = writeln!(
            text,
            "  not on {}: {}",
            excluded.agent,
            one_line(&excluded.rule)
        );
    }
    text
}

pub(super) async fn history(args: &PartitionArgs, remote: &Remote) -> Result<Exit, Failure> {
    let (service, key) = (&args.partition.service, args.partition.key.as_str());
    let history = match remote.client.history(service.as_str(), key).await {
        Ok(history) => history,
        Err(error) => return Err(about(service, key, error, remote).await),
    };
    remote.output.list(&history.entries)?;
    if history.known_since > 1 && !remote.output.is_json() {
        crate::output::say(&format!(
            "nothing is known before ledger position {}",
            history.known_since
        ));
    }
    Ok(Exit::Done)
}

impl Row for HistoryEntry {
    const COLUMNS: &'static [Column] = &[
        Column {
            name: "WHEN",
            wide: false,
        },
        Column {
            name: "WHAT",
            wide: false,
        },
        Column {
            name: "AGENT",
            wide: false,
        },
        Column {
            name: "TOKEN",
            wide: false,
        },
        Column {
            name: "POSITION",
            wide: true,
        },
        Column {
            name: "WHY",
            wide: false,
        },
    ];

    fn name(&self) -> String {
        self.index.to_string()
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::Time(Some(self.at.clone())),
            Cell::text(&self.kind),
            Cell::maybe(self.agent.as_ref()),
            Cell::maybe(self.token),
            Cell::text(self.index),
            Cell::text(&self.text),
        ]
    }
}
