//! What `up` says once everything has come up: what runs where, and what to try.

use std::fmt::Write as _;

use quorate_api::client::PartitionFilter;
use quorate_api::resources::{AgentState, AgentView, Progress};

use super::Up;
use crate::cli::{DEFAULT_ADDRESS, counted, failure_of, progress_summary};
use crate::daemon;
use crate::failure::Failure;
use crate::output::{Style, one_line, partitions as partitions_of};

/// Partitions that do not run are named, but not all of a thousand.
const NAMED_MAX: usize = 10;

/// The summary. Writing to a string cannot fail.
pub(super) async fn summary(up: &Up<'_>, progress: &Progress) -> Result<String, Failure> {
    let client = &up.client;
    let color = up.output.color;
    let agents = client.agents(None).await.map_err(failure_of)?.value;
    let services = client.services(None).await.map_err(failure_of)?.value;
    let everything = PartitionFilter::default();
    let partitions = client.partitions(&everything, None).await;
    let partitions = partitions.map_err(failure_of)?.value;
    let mut text = String::new();
    let healthy = progress.running >= progress.total && progress.failed == 0;
    let style = if healthy { Style::Good } else { Style::Warn };
    let counts = progress_summary(progress);
    // `4 of 7 run, 1 waiting`: where they run belongs to the first part.
    let (run, others) = counts
        .trim_end()
        .split_at(counts.find(',').unwrap_or(counts.trim_end().len()));
    let here = agents.iter().filter(|a| a.state != AgentState::Gone);
    let here = here.count();
    let line = format!(
        "{run} on {} of {} agents{others}",
        agents.iter().filter(|agent| agent.partitions > 0).count(),
        // Somebody may have started more beside this `up`.
        here.max(up.args.agents as usize),
    );
    let _ = writeln!(text, "{}", style.paint(&line, color));
    for service in &services {
        let counts = counted(&service.partitions);
        let _ = write!(text, "  {}: {counts}", service.name);
        let ours = up.loaded.file.service.contains_key(service.name.as_str());
        text.push_str(if ours {
            "\n"
        } else {
            "  (from before; it is in none of these files)\n"
        });
        if let Some(problem) = &service.source.problem {
            let _ = writeln!(text, "    {}", Style::Bad.paint(&one_line(problem), color));
        }
    }
    for agent in &agents {
        let _ = writeln!(
            text,
            "  {}: {}, {}",
            agent.name,
            partitions_of(agent.partitions),
            agent.state.as_str()
        );
    }
    let mut waiting = partitions
        .iter()
        .filter_map(|partition| Some((partition, partition.waiting.as_ref()?)));
    for (partition, why) in waiting.by_ref().take(NAMED_MAX) {
        let _ = writeln!(
            text,
            "! {}/{}: {}",
            partition.service,
            partition.key,
            one_line(why)
        );
    }
    let more = waiting.count();
    if more > 0 {
        let _ = writeln!(
            text,
            "! and {more} more: {} ls partitions --problems",
            daemon::typed()
        );
    }
    text.push_str(&hints(
        up,
        partitions.first().map(|p| (&*p.service, &*p.key)),
    ));
    Ok(text)
}

/// What is said at the end. `apart` are agents that are still there, if that is known.
pub(super) fn farewell(apart: Option<&[AgentView]>) -> String {
    let goes_on = "the same command goes on from here";
    let Some(apart) = apart else {
        return format!("what this `up` has started is stopped; {goes_on}");
    };
    if apart.is_empty() {
        return format!("everything is stopped; {goes_on}");
    }
    let each = apart.iter().map(|agent| {
        let how = match agent.state {
            AgentState::Silent => "is silent and may still run what it held",
            AgentState::Active | AgentState::Draining | AgentState::Cordoned => {
                "was started apart and goes on; Ctrl-C or SIGTERM ends it"
            }
            AgentState::Gone => "is gone",
        };
        format!("\n  agent {} {how}", agent.name)
    });
    let each: String = each.collect();
    format!("what this `up` has started is stopped; {goes_on}{each}")
}

/// Commands to try from another terminal.
fn hints(up: &Up<'_>, example: Option<(&str, &str)>) -> String {
    let mut text = String::from("try, in another terminal:\n");
    if up.address != DEFAULT_ADDRESS {
        let _ = writeln!(text, "  export QUORATE_ADDRESS={}", up.address);
    }
    let q = daemon::typed();
    let _ = writeln!(text, "  {q} status\n  {q} ls partitions --watch");
    if let Some((service, key)) = example {
        let name = daemon::quoted(&format!("{service}/{key}"));
        let _ = writeln!(text, "  {q} why {name}\n  {q} logs {name} -f");
    }
    if up.agents.count() > 1
        && let Some((name, pid)) = up.agents.victim()
    {
        let _ = writeln!(
            text,
            "  kill -9 {pid}    # agent {name} dies, and its partitions move"
        );
    }
    let _ = writeln!(
        text,
        "data: {}; Ctrl-C stops what this `up` has started, in order",
        up.data_dir.display()
    );
    text
}
