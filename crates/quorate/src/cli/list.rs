//! `ls`: services, partitions, agents, directors, once or at every change.

use std::time::Duration;

use quorate_api::client::{AgentFilter, Indexed, PartitionFilter, Wait};
use quorate_api::resources::{
    AgentState, AgentView, DirectorRole, DirectorView, PartitionState, PartitionView, ServiceState,
    ServiceView,
};

use super::args::{Kind, LsArgs};
use super::remote::{Remote, failure_of};
use super::settle::refused_lists;
use crate::failure::{Code, Exit, Failure};
use crate::output::{Cell, Column, Row, Style, say};

/// A blocking query comes back after this long even when nothing has changed. That an agent is silent or
/// back is no change of the ledger, so a list that is watched learns of it then at the latest.
const WATCH_WAIT: Duration = Duration::from_secs(3);
/// Directors have no index to wait on, so their list is fetched again this often.
const DIRECTORS_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn ls(args: &LsArgs, remote: &Remote) -> Result<Exit, Failure> {
    check(args)?;
    let mut wait = None;
    let mut shown = None;
    loop {
        let index = show(args, remote, wait, &mut shown).await?;
        if !args.watch {
            return Ok(Exit::Done);
        }
        if args.kind == Kind::Directors {
            tokio::time::sleep(DIRECTORS_EVERY).await;
        }
        wait = Some(Wait {
            index,
            wait: WATCH_WAIT,
        });
    }
}

/// Options that mean nothing for a kind are errors, not silence.
fn check(args: &LsArgs) -> Result<(), Failure> {
    let only_partitions = [
        ("--service", args.service.is_some()),
        ("--agent", args.agent.is_some()),
    ];
    let wrong = only_partitions
        .into_iter()
        .find(|(_, given)| *given && args.kind != Kind::Partitions)
        .map(|(option, _)| option);
    let no_labels = matches!(args.kind, Kind::Services | Kind::Directors);
    let wrong = wrong.or((no_labels && !args.labels.is_empty()).then_some("--label"));
    match wrong {
        None => Ok(()),
        Some(option) => Err(Failure::new(
            Code::Usage,
            format!("{option} chooses among other things than these"),
            "leave it out, or list partitions",
        )),
    }
}

/// A list as it was shown last, for nothing that is there already is shown again.
type Shown = Option<Vec<u8>>;

async fn show(
    args: &LsArgs,
    remote: &Remote,
    wait: Option<Wait>,
    shown: &mut Shown,
) -> Result<u64, Failure> {
    let client = &remote.client;
    match args.kind {
        Kind::Services => {
            let list = if args.problems {
                client.services_with_problems(wait).await
            } else {
                client.services(wait).await
            };
            print(args, remote, list.map_err(failure_of)?, &[], shown)
        }
        Kind::Partitions => {
            let filter = PartitionFilter {
                service: args.service.as_ref().map(ToString::to_string),
                agent: args.agent.as_ref().map(ToString::to_string),
                problems: args.problems,
                state: None,
                labels: pairs(&args.labels),
            };
            let list = client.partitions(&filter, wait).await.map_err(failure_of)?;
            // What a refused list would bring is no partition yet, and is missing all the same.
            let refused = if args.problems && args.agent.is_none() && args.labels.is_empty() {
                refused_lists(remote, filter.service.as_deref()).await?
            } else {
                Vec::new()
            };
            let notes: Vec<String> = refused.iter().map(ToString::to_string).collect();
            print(args, remote, list, &notes, shown)
        }
        Kind::Agents => {
            let filter = AgentFilter {
                problems: args.problems,
                labels: pairs(&args.labels),
            };
            let list = client.agents_where(&filter, wait).await;
            print(args, remote, list.map_err(failure_of)?, &[], shown)
        }
        Kind::Directors => {
            let mut list = client.directors().await.map_err(failure_of)?;
            if args.problems {
                list.value
                    .retain(|director| director.role == DirectorRole::Unreachable);
            }
            print(args, remote, list, &[], shown)
        }
    }
}

/// As the API takes them.
fn pairs(labels: &[(String, String)]) -> Vec<String> {
    labels.iter().map(|(k, v)| format!("{k}={v}")).collect()
}

fn print<T: Row>(
    args: &LsArgs,
    remote: &Remote,
    list: Indexed<Vec<T>>,
    notes: &[String],
    shown: &mut Shown,
) -> Result<u64, Failure> {
    if args.watch {
        let now = serde_json::to_vec(&(&list.value, notes)).ok();
        if now.is_some() && *shown == now {
            return Ok(list.index);
        }
        *shown = now;
        remote.output.clear()?;
    }
    remote.output.list(&list.value)?;
    for note in notes {
        say(note);
    }
    if list.value.is_empty()
        && notes.is_empty()
        && remote.output.terminal
        && !remote.output.is_json()
    {
        say(if args.problems { "no problems" } else { "none" });
    }
    Ok(list.index)
}

pub(super) const fn column(name: &'static str) -> Column {
    Column { name, wide: false }
}

pub(super) const fn wide(name: &'static str) -> Column {
    Column { name, wide: true }
}

fn labels(labels: &std::collections::BTreeMap<String, String>) -> Cell {
    if labels.is_empty() {
        return Cell::None;
    }
    let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    Cell::Text(pairs.join(","))
}

impl Row for ServiceView {
    const COLUMNS: &'static [Column] = &[
        column("NAME"),
        column("STATE"),
        column("PARTITIONS"),
        column("RUNNING"),
        column("WAITING"),
        column("FAILED"),
        column("STOPPED"),
        column("SOURCE"),
        wide("LEASE"),
        wide("LOCATION"),
        column("PROBLEM"),
    ];

    fn name(&self) -> String {
        format!("service/{}", self.name)
    }

    fn cells(&self) -> Vec<Cell> {
        let counts = &self.partitions;
        let expected = counts.total - counts.stopped.min(counts.total);
        let running = if counts.running >= expected {
            Style::Good
        } else {
            Style::Warn
        };
        let failed = if counts.failed > 0 {
            Style::Bad
        } else {
            Style::Plain
        };
        let state = match self.state {
            ServiceState::Active => Style::Plain,
            ServiceState::Stopped => Style::Faint,
            ServiceState::Removing => Style::Warn,
        };
        vec![
            Cell::text(&self.name),
            Cell::Styled(self.state.as_str().to_owned(), state),
            Cell::text(counts.total),
            Cell::Styled(counts.running.to_string(), running),
            Cell::text(counts.unassigned),
            Cell::Styled(counts.failed.to_string(), failed),
            Cell::text(counts.stopped),
            Cell::text(&self.source.kind),
            Cell::text(format!("{}s", self.lease_ms / 1000)),
            Cell::maybe(self.source.location.as_ref()),
            match &self.source.problem {
                Some(problem) => Cell::Styled(problem.clone(), Style::Bad),
                None => Cell::None,
            },
        ]
    }
}

/// The colour of a partition's state.
pub(super) fn state_style(partition: &PartitionView) -> Style {
    match partition.state {
        PartitionState::Assumed if partition.running => Style::Good,
        PartitionState::Assumed
        | PartitionState::Assigned
        | PartitionState::Stopping
        | PartitionState::Unassigned => Style::Warn,
        PartitionState::Failed => Style::Bad,
        PartitionState::Stopped => Style::Faint,
    }
}

/// The state in the words of people: `running` rather than `assumed` when it is up.
pub(super) fn state_word(partition: &PartitionView) -> &str {
    match partition.state {
        PartitionState::Assumed if partition.running => "running",
        PartitionState::Assumed => partition.health.as_deref().unwrap_or("assumed"),
        PartitionState::Assigned
        | PartitionState::Stopping
        | PartitionState::Unassigned
        | PartitionState::Failed
        | PartitionState::Stopped => partition.state.as_str(),
    }
}

impl Row for PartitionView {
    const COLUMNS: &'static [Column] = &[
        column("PARTITION"),
        column("STATE"),
        column("AGENT"),
        column("SINCE"),
        column("RESTARTS"),
        wide("TOKEN"),
        wide("PID"),
        wide("WEIGHT"),
        wide("LABELS"),
        column("WAITING"),
    ];

    fn name(&self) -> String {
        format!("{}/{}", self.service, self.key)
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::text(self.name()),
            Cell::Styled(state_word(self).to_owned(), state_style(self)),
            Cell::maybe(self.agent.as_ref()),
            Cell::Time(self.since.clone()),
            Cell::text(self.restarts),
            Cell::maybe(self.token),
            Cell::maybe(self.pid),
            Cell::text(self.weight),
            labels(&self.labels),
            Cell::maybe(self.waiting.as_ref()),
        ]
    }
}

impl Row for AgentView {
    const COLUMNS: &'static [Column] = &[
        column("NAME"),
        column("STATE"),
        column("PARTITIONS"),
        column("WEIGHT"),
        column("CAPACITY"),
        column("CONTAINMENT"),
        wide("LEASE-MARGIN"),
        wide("VERSION"),
        column("LABELS"),
    ];

    fn name(&self) -> String {
        format!("agent/{}", self.name)
    }

    fn cells(&self) -> Vec<Cell> {
        let style = match self.state {
            AgentState::Active => Style::Good,
            AgentState::Draining | AgentState::Cordoned => Style::Warn,
            AgentState::Silent | AgentState::Gone => Style::Bad,
        };
        vec![
            Cell::text(&self.name),
            Cell::Styled(self.state.as_str().to_owned(), style),
            Cell::text(self.partitions),
            Cell::text(self.weight),
            Cell::maybe(self.capacity),
            Cell::text(&self.containment),
            Cell::maybe(self.lease_margin_ms.map(|ms| format!("{ms} ms"))),
            Cell::text(&self.version),
            labels(&self.labels),
        ]
    }
}

/// What a director does, in the colour of how good that is.
pub(super) fn director_role(role: DirectorRole) -> Cell {
    let style = match role {
        DirectorRole::Leader => Style::Good,
        DirectorRole::Follower | DirectorRole::Learner => Style::Plain,
        DirectorRole::Unreachable => Style::Bad,
    };
    Cell::Styled(role.as_str().to_owned(), style)
}

impl Row for DirectorView {
    const COLUMNS: &'static [Column] = &[
        column("NAME"),
        column("ROLE"),
        column("ADDRESS"),
        column("EPOCH"),
        column("POSITION"),
    ];

    fn name(&self) -> String {
        format!("director/{}", self.name)
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::text(&self.name),
            director_role(self.role),
            Cell::text(&self.address),
            Cell::text(self.epoch),
            Cell::maybe(self.position),
        ]
    }
}
