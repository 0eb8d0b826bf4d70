//! `cluster drill`: leadership changes on purpose, and it is measured from outside what that costs. The report
//! is for whoever has to show that failing over was tried.
//!
//! It must never be the reason of an outage: it changes nothing unless three healthy directors vote and
//! everything has settled.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use quorate_api::client::{Client, Error, PartitionFilter};
use quorate_api::resources::{ClusterView, DirectorRole, MemberView};
use quorate_core::ids::DirectorName;
use quorate_core::spec::Span;
use serde::Serialize;
use tokio::sync::watch;

use super::args::DrillArgs;
use super::remote::{Remote, failure_of};
use super::settle::{Goal, settle};
use crate::failure::{Code, Exit, Failure};

/// A voter that has not answered the leader for longer is not healthy.
const HEARD_WITHIN: u64 = 2_000;
/// One that lacks more records than this has not caught up.
const BEHIND_MAX: u64 = 1_000;
/// Pause between two probes.
const PROBE_EVERY: Duration = Duration::from_millis(5);
/// A probe that has no answer within this is made anew, perhaps at another director.
const PROBE_WITHIN: Duration = Duration::from_millis(500);
/// Another one leads within a second or two, and everything is at rest soon after.
const LEADS_WITHIN: Duration = Duration::from_secs(15);
const SETTLES_WITHIN: Duration = Duration::from_secs(60);
/// How long the probes go on after everything is at rest again.
const AFTER: Duration = Duration::from_millis(500);

/// What the drill found.
#[derive(Debug, Serialize)]
struct Report {
    cluster: String,
    began: String,
    ended: String,
    leader_before: String,
    leader_after: String,
    epoch_before: u64,
    epoch_after: u64,
    voters: u32,
    /// How long nothing was answered that only the leader answers: from the last answer before to the first
    /// after.
    unavailable_ms: u64,
    probes: u64,
    probes_failed: u64,
    partitions: usize,
    /// Partitions that have another agent or token, were started anew, or came or went.
    changed: Vec<String>,
    passed: bool,
}

/// What must stay as it is.
type Standing = BTreeMap<String, (Option<String>, Option<u64>, u32)>;

pub(super) async fn drill(args: &DrillArgs, remote: &Remote) -> Result<Exit, Failure> {
    let before = remote.client.cluster().await.map_err(failure_of)?;
    let leader = bears_it(&before, args.to.as_ref())?;
    let rest = Goal {
        service: None,
        index: 0,
        at_least: 0,
        refused: None,
    };
    settle(remote, &rest, SETTLES_WITHIN, "before").await?;
    let standing = standing(remote).await?;
    let began = Timestamp::now();
    let (stop, stopped) = watch::channel(false);
    let probes = tokio::spawn(probe(remote.client.impatient(PROBE_WITHIN), stopped));
    let to = args.to.as_ref().map(DirectorName::as_str);
    let transferred = remote.client.transfer_leader(to).await;
    let after = match transferred {
        // Who hands over may be gone as a leader before it can say so: then it is looked who leads.
        Ok(_) | Err(Error::OutcomeUnknown { .. }) => another_leads(remote, &leader).await,
        Err(error) => Err(failure_of(error)),
    };
    let settled = match after {
        Ok(after) => settle(remote, &rest, SETTLES_WITHIN, "after")
            .await
            .map(|_| after),
        Err(failure) => Err(failure),
    };
    tokio::time::sleep(AFTER).await;
    // The prober ends with its next probe, whatever became of the rest.
    stop.send_replace(true);
    let probes = probes.await.unwrap_or_default();
    let after = settled?;
    let report = Report {
        cluster: after.cluster.clone(),
        began: told(began),
        ended: told(Timestamp::now()),
        leader_after: leads(&after).unwrap_or_default(),
        leader_before: leader,
        epoch_before: before.epoch,
        epoch_after: after.epoch,
        voters: after.voters,
        unavailable_ms: u64::try_from(probes.longest.as_millis()).unwrap_or(u64::MAX),
        probes: probes.made,
        probes_failed: probes.failed,
        partitions: standing.len(),
        changed: changed(&standing, &self::standing(remote).await?),
        passed: false,
    };
    finish(args, remote, report)
}

fn finish(args: &DrillArgs, remote: &Remote, mut report: Report) -> Result<Exit, Failure> {
    report.passed = report.changed.is_empty() && report.leader_after != report.leader_before;
    let text = markdown(&report);
    if let Some(path) = &args.report {
        std::fs::write(path, &text).map_err(|error| {
            Failure::new(
                Code::Output,
                format!("{} was not written: {error}", path.display()),
                "the drill itself is over; choose another file and run it again",
            )
        })?;
    }
    let passed = report.passed;
    remote.output.one(&report, "drill", || text)?;
    Ok(if passed { Exit::Done } else { Exit::Failed })
}

/// The leader of a quorum that bears to be without it for a moment.
fn bears_it(cluster: &ClusterView, to: Option<&DirectorName>) -> Result<String, Failure> {
    let refused = |why: String, next: &str| Err(Failure::new(Code::Unhealthy, why, next));
    let healthy = |member: &&MemberView| {
        let heard = member.silent_ms.is_some_and(|ms| ms <= HEARD_WITHIN);
        let caught_up = member.behind.is_none_or(|behind| behind <= BEHIND_MAX);
        match member.role {
            DirectorRole::Leader => true,
            DirectorRole::Follower => heard && caught_up,
            DirectorRole::Learner | DirectorRole::Unreachable => false,
        }
    };
    let count = cluster.members.iter().filter(healthy).count();
    if count < 3 {
        return refused(
            format!(
                "{count} healthy directors vote, and a drill takes three: with less, one that fails stops all"
            ),
            "`quorate cluster status` shows who is missing; `quorate join` makes another one",
        );
    }
    let Some(leader) = leads(cluster) else {
        return refused(
            "nobody leads at the moment".to_owned(),
            "try again in a moment",
        );
    };
    if to.is_some_and(|to| to.as_str() == leader) {
        return refused(
            format!("{leader} leads already"),
            "name another director, or leave --to out",
        );
    }
    Ok(leader)
}

fn leads(cluster: &ClusterView) -> Option<String> {
    let mut members = cluster.members.iter();
    let leader = members.find(|member| member.role == DirectorRole::Leader);
    leader.map(|leader| leader.name.clone())
}

async fn another_leads(remote: &Remote, before: &str) -> Result<ClusterView, Failure> {
    let until = Instant::now() + LEADS_WITHIN;
    loop {
        if let Ok(cluster) = remote.client.cluster().await
            && leads(&cluster).is_some_and(|leader| leader != before)
        {
            return Ok(cluster);
        }
        if Instant::now() >= until {
            return Err(Failure::new(
                Code::WaitRanOut,
                format!(
                    "after {} {before} still leads, or nobody",
                    Span(LEADS_WITHIN)
                ),
                "`quorate cluster status` shows who leads",
            ));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn standing(remote: &Remote) -> Result<Standing, Failure> {
    let filter = PartitionFilter::default();
    let all = remote.client.partitions(&filter, None).await;
    let all = all.map_err(failure_of)?.value.into_iter();
    Ok(all
        .map(|one| {
            let name = format!("{}/{}", one.service, one.key);
            (name, (one.agent, one.token, one.restarts))
        })
        .collect())
}

fn changed(before: &Standing, after: &Standing) -> Vec<String> {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let differs = names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name));
    differs.cloned().collect()
}

/// What the probes saw.
#[derive(Debug, Default)]
struct Probes {
    made: u64,
    failed: u64,
    /// The longest time between two answers.
    longest: Duration,
}

/// Asks what the leader alone answers, after a proof that it leads, until it is told to stop.
async fn probe(client: Client, stop: watch::Receiver<bool>) -> Probes {
    let mut probes = Probes::default();
    let mut answered = None;
    while !*stop.borrow() {
        probes.made += 1;
        match client.settling(None, None).await {
            Ok(_) => {
                let now = Instant::now();
                let since = answered.map(|before| now.duration_since(before));
                probes.longest = probes.longest.max(since.unwrap_or_default());
                answered = Some(now);
            }
            Err(_) => probes.failed += 1,
        }
        tokio::time::sleep(PROBE_EVERY).await;
    }
    probes
}

fn told(at: Timestamp) -> String {
    format!("{at:.3}")
}

fn markdown(report: &Report) -> String {
    let verdict = if report.passed { "passed" } else { "failed" };
    let mut text = format!(
        "# Failover drill: {verdict}\n\n\
         | | |\n| --- | --- |\n\
         | cluster | {} |\n\
         | began | {} |\n\
         | ended | {} |\n\
         | voters | {} |\n\
         | led before | {}, epoch {} |\n\
         | leads after | {}, epoch {} |\n\
         | without a leader that answers | {} ms at most |\n\
         | probes | {}, {} without an answer |\n\
         | partitions looked at | {} |\n\
         | moved, restarted or under another token | {} |\n",
        report.cluster,
        report.began,
        report.ended,
        report.voters,
        report.leader_before,
        report.epoch_before,
        report.leader_after,
        report.epoch_after,
        report.unavailable_ms,
        report.probes,
        report.probes_failed,
        report.partitions,
        report.changed.len()
    );
    for name in &report.changed {
        let _ = writeln!(text, "\n- {name}");
    }
    text
}
