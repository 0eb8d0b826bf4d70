//! Waiting until everything has come up, with progress; and `wait`.

use std::time::{Duration, Instant};

use quorate_api::client::{PartitionFilter, Wait};
use quorate_api::resources::{Counts, PartitionState, Progress, RefusedList};

use super::args::WaitArgs;
use super::remote::{Remote, failure_of};
use crate::failure::{Code, Exit, Failure};
use crate::output::{Bar, ON_SILENT, WAITS_FOR_FENCE, say};

/// One blocking query at most; short, so that the time that is left is shown as it shrinks.
const ROUND: Duration = Duration::from_secs(1);
/// A list that stays refused for so long is: one that was just corrected is read anew well within it.
const REFUSED_FOR: Duration = Duration::from_secs(2);
/// What has no place for so long has none: an agent that was started a moment ago has opened its session by then.
const PLACELESS_FOR: Duration = Duration::from_secs(10);
/// Partitions that do not run are named, but not all of a thousand.
const NAMED_MAX: u32 = 10;

/// What to wait for.
#[derive(Debug)]
pub(crate) struct Goal<'a> {
    /// One service, or all.
    pub(crate) service: Option<&'a str>,
    /// Not before this ledger position is seen.
    pub(crate) index: u64,
    /// How many partitions there will be at least, where that is known.
    pub(crate) at_least: u64,
    /// The answer to an apply, where that said that a list is refused: nothing more of it will come.
    pub(crate) refused: Option<&'a RefusedList>,
}

impl Goal<'_> {
    /// Whether it is reached, or will not be because a list is refused. `refused` is when that was first seen
    /// in a row.
    pub(crate) fn ended(
        &self,
        progress: &Progress,
        now: Instant,
        refused: &mut Option<Instant>,
    ) -> bool {
        if progress.refused == 0 {
            *refused = None;
        }
        if progress.index < self.index || !progress.settled || self.refused.is_some() {
            return progress.index >= self.index && progress.settled;
        }
        if progress.refused > 0 {
            let since = *refused.get_or_insert(now);
            return now.saturating_duration_since(since) >= REFUSED_FOR;
        }
        let known = progress.total + progress.failed + progress.stopped;
        known >= self.at_least
    }
}

/// Waits until nothing is on its way, as the leader sees it. What has no place for some seconds is no reason to
/// wait on, and neither is a list that is refused: [`verdict`] tells of them.
///
/// # Errors
/// When the time is over, or no director answers.
pub(crate) async fn settle(
    remote: &Remote,
    goal: &Goal<'_>,
    limit: Duration,
    title: &str,
) -> Result<Progress, Failure> {
    let until = Instant::now() + limit;
    let mut bar = Bar::new(title);
    let (mut wait, mut refused, mut placeless) = (None, None, None);
    loop {
        let progress = remote
            .client
            .settling(goal.service, wait)
            .await
            .map_err(failure_of)?;
        let now = Instant::now();
        let patient = progress.unplaceable > 0 && {
            let since = *placeless.get_or_insert(now);
            now.saturating_duration_since(since) < PLACELESS_FOR
        };
        if progress.unplaceable == 0 {
            placeless = None;
        }
        if goal.ended(&progress, now, &mut refused) && !patient {
            return Ok(progress);
        }
        bar.show(&progress);
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            drop(bar);
            return Err(Failure::new(
                Code::WaitRanOut,
                format!(
                    "after {}: {}; the operation goes on",
                    quorate_core::spec::Span(limit),
                    summary(&progress).trim_end()
                ),
                "`quorate wait --settled` waits on; `quorate ls partitions --problems` shows what is missing",
            ));
        }
        // A director that answers at once although nothing has changed must not be asked in a loop.
        wait = Some(Wait {
            index: progress.index,
            wait: ROUND.min(left),
        });
    }
}

pub(super) async fn wait(args: &WaitArgs, remote: &Remote) -> Result<Exit, Failure> {
    let service = args.service.as_ref().map(ToString::to_string);
    if let Some(name) = &args.service {
        let target = super::args::Target {
            service: name.clone(),
            key: None,
        };
        if let Err(error) = remote.client.service(name.as_str()).await {
            return Err(remote.about(&target, error).await);
        }
    }
    let goal = Goal {
        service: service.as_deref(),
        index: 0,
        at_least: 0,
        refused: None,
    };
    let progress = settle(remote, &goal, args.timeout.0, "settling").await?;
    let healthy = verdict(remote, &goal, &progress).await?;
    remote
        .output
        .one(&progress, "settled", || summary(&progress))?;
    Ok(healthy)
}

/// Says whether all that is wanted runs, and names what does not.
///
/// # Errors
/// When no director answers.
pub(crate) async fn verdict(
    remote: &Remote,
    goal: &Goal<'_>,
    progress: &Progress,
) -> Result<Exit, Failure> {
    let lists = match goal.refused {
        Some(list) => vec![list.clone()],
        None if progress.refused == 0 => Vec::new(),
        None => refused_lists(remote, goal.service).await?,
    };
    for list in &lists {
        say(&list.to_string());
    }
    if progress.running >= progress.total && progress.failed == 0 {
        return Ok(if lists.is_empty() {
            Exit::Done
        } else {
            Exit::Unhealthy
        });
    }
    let filter = PartitionFilter {
        service: goal.service.map(str::to_owned),
        problems: true,
        ..PartitionFilter::default()
    };
    let page = remote.client.partitions_page(&filter, NAMED_MAX, None);
    let named = page.await.map_err(failure_of)?.items;
    for partition in &named {
        let why = partition.waiting.as_deref().unwrap_or("it does not run");
        let state = match partition.state {
            _ if partition.health.as_deref() == Some("unknown") => "may run or not",
            PartitionState::Failed => "failed",
            PartitionState::Unassigned
            | PartitionState::Assigned
            | PartitionState::Assumed
            | PartitionState::Stopping
            | PartitionState::Stopped => "not running",
        };
        say(&format!(
            "{}/{} {state}: {why}",
            partition.service, partition.key
        ));
    }
    let all = progress.total.saturating_sub(progress.running) + progress.failed;
    let more = all.saturating_sub(named.len() as u64);
    if more > 0 {
        say(&format!("and {more} more"));
    }
    Ok(Exit::Unhealthy)
}

/// The lists that the directors refuse, of one service or of all.
///
/// # Errors
/// When no director answers.
pub(crate) async fn refused_lists(
    remote: &Remote,
    service: Option<&str>,
) -> Result<Vec<RefusedList>, Failure> {
    let services = remote.client.services_with_problems(None).await;
    let services = services.map_err(failure_of)?.value.into_iter();
    let lists = services.filter(|one| service.is_none_or(|service| one.name == service));
    let lists = lists.filter_map(|one| {
        Some(RefusedList {
            problem: one.source.problem?,
            service: one.name,
        })
    });
    Ok(lists.collect())
}

/// One line for people.
pub(crate) fn summary(progress: &Progress) -> String {
    let waiting = progress.waiting.saturating_sub(progress.unplaceable);
    let counts = [
        (
            progress.starting.saturating_sub(progress.failing),
            "starting",
        ),
        (progress.failing, "failing"),
        (waiting, "waiting"),
        (progress.unplaceable, "without a place"),
        (progress.fencing, WAITS_FOR_FENCE),
        (progress.unknown, ON_SILENT),
        (progress.stopping, "stopping"),
        (progress.failed, "failed"),
        (progress.stopped, "stopped"),
    ];
    let mut text = sentence(progress.running, progress.total, &counts);
    match progress.refused {
        0 => {}
        1 => text.push_str(", 1 list refused"),
        many => text.push_str(&format!(", {many} lists refused")),
    }
    text + "\n"
}

/// The same of one service: the numbers of all of them add up to those of [`summary`].
pub(crate) fn counted(counts: &Counts) -> String {
    let aside = [
        (counts.stopping, "stopping"),
        (counts.failed, "failed"),
        (counts.stopped, "stopped"),
    ];
    let away: u64 = aside.iter().map(|(count, _)| count).sum();
    sentence(counts.running, counts.total.saturating_sub(away), &aside)
}

fn sentence(running: u64, total: u64, counts: &[(u64, &str)]) -> String {
    let mut text = format!("{running} of {total} run");
    for (count, word) in counts {
        if *count > 0 {
            text.push_str(&format!(", {count} {word}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_stays_refused_ends_the_wait_and_one_that_is_corrected_does_not() {
        let goal = Goal {
            service: None,
            index: 5,
            at_least: 6,
            refused: None,
        };
        let begun = Instant::now();
        let refused = Progress {
            index: 5,
            total: 6,
            running: 6,
            settled: true,
            refused: 1,
            ..Progress::default()
        };
        let right = Progress {
            refused: 0,
            ..refused
        };
        let mut since = None;
        assert!(!goal.ended(&refused, begun, &mut since));
        assert!(goal.ended(&refused, begun + REFUSED_FOR, &mut since));
        assert!(goal.ended(&right, begun, &mut since));
        assert!(!goal.ended(&refused, begun + REFUSED_FOR, &mut since));
        // What still comes up is waited for all the same.
        let coming = Progress {
            settled: false,
            ..refused
        };
        assert!(!goal.ended(&coming, begun + 3 * REFUSED_FOR, &mut since));
        let list = RefusedList {
            service: "feeds".to_owned(),
            problem: "it is not there".to_owned(),
        };
        let told = Goal {
            refused: Some(&list),
            ..goal
        };
        assert!(told.ended(&right, begun, &mut None));
        assert_eq!(summary(&refused), "6 of 6 run, 1 list refused\n");
    }

    #[test]
    fn the_services_add_up_to_the_whole() {
        let counts = Counts {
            total: 9,
            running: 4,
            assumed: 5,
            unassigned: 1,
            stopping: 1,
            failed: 0,
            stopped: 2,
            ..Counts::default()
        };
        let progress = Progress {
            total: 6,
            running: 4,
            waiting: 1,
            unknown: 1,
            stopping: 1,
            stopped: 2,
            ..Progress::default()
        };
        assert_eq!(counted(&counts), "4 of 6 run, 1 stopping, 2 stopped");
        assert_eq!(
            summary(&progress),
            "4 of 6 run, 1 waiting, 1 on a silent agent, 1 stopping, 2 stopped\n"
        );
    }
}
