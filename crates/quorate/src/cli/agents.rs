//! `drain`, `cordon`, `uncordon`, `evict`: what an agent may be given, and what is taken from it.

use std::time::{Duration, Instant};

use quorate_api::client::{PartitionFilter, Wait};
use quorate_api::resources::{Done, EvictRequest};
use quorate_core::ids::AgentName;

use super::args::{AgentNameArgs, DrainArgs, EvictArgs};
use super::remote::{Remote, failure_of};
use crate::failure::{Code, Exit, Failure};
use crate::output::{Bar, one_line, partitions, say};

/// One blocking query at most.
const ROUND: Duration = Duration::from_secs(5);
/// Partitions that stay are named, but not all of a thousand.
const NAMED_MAX: u32 = 5;

pub(super) async fn drain(args: &DrainArgs, remote: &Remote) -> Result<Exit, Failure> {
    let name = args.agent.as_str();
    let done = match remote.client.drain(name).await {
        Ok(done) => done,
        Err(error) => return Err(remote.about_agent(name, error).await),
    };
    let Some(limit) = args.wait else {
        told(remote, &args.agent, &done, "is draining")?;
        return Ok(Exit::Done);
    };
    let until = Instant::now() + limit.0;
    let mut bar = Bar::new(&format!("draining {name}"));
    let mut wait = None;
    loop {
        let agent = match remote.client.agent(name, wait).await {
            Ok(agent) => agent,
            Err(error) => return Err(remote.about_agent(name, error).await),
        };
        if agent.index >= done.index && agent.value.partitions == 0 {
            break;
        }
        bar.note(&format!("{} left", partitions(agent.value.partitions)));
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            drop(bar);
            say_what_stays(remote, name).await?;
            return Err(Failure::new(
                Code::WaitRanOut,
                format!(
                    "after {limit} agent {name} still has {}; the drain goes on",
                    partitions(agent.value.partitions)
                ),
                format!("`quorate ls partitions --agent {name}` shows them"),
            ));
        }
        wait = Some(Wait {
            index: agent.index,
            wait: ROUND.min(left),
        });
    }
    drop(bar);
    told(remote, &args.agent, &done, "is drained")?;
    Ok(Exit::Done)
}

/// Names what an agent still holds, and why: nothing else may be able to take it.
async fn say_what_stays(remote: &Remote, agent: &str) -> Result<(), Failure> {
    let filter = PartitionFilter {
        agent: Some(agent.to_owned()),
        ..PartitionFilter::default()
    };
    let page = remote.client.partitions_page(&filter, NAMED_MAX, None);
    for partition in page.await.map_err(failure_of)?.items {
        let why = remote.client.why(&partition.service, &partition.key).await;
        let why = why.map_err(failure_of)?;
        say(&format!(
            "{}/{}: {}",
            why.service,
            why.key,
            one_line(&why.reason)
        ));
        let others = why.excluded.iter().filter(|other| other.agent != agent);
        for other in others {
            say(&format!(
                "  not on {}: {}",
                other.agent,
                one_line(&other.rule)
            ));
        }
    }
    Ok(())
}

pub(super) async fn cordon(args: &AgentNameArgs, remote: &Remote) -> Result<Exit, Failure> {
    let name = args.agent.as_str();
    match remote.client.cordon(name).await {
        Ok(done) => told(remote, &args.agent, &done, "is cordoned")?,
        Err(error) => return Err(remote.about_agent(name, error).await),
    }
    Ok(Exit::Done)
}

pub(super) async fn uncordon(args: &AgentNameArgs, remote: &Remote) -> Result<Exit, Failure> {
    let name = args.agent.as_str();
    match remote.client.uncordon(name).await {
        Ok(done) => told(remote, &args.agent, &done, "takes work again")?,
        Err(error) => return Err(remote.about_agent(name, error).await),
    }
    Ok(Exit::Done)
}

pub(super) async fn evict(args: &EvictArgs, remote: &Remote) -> Result<Exit, Failure> {
    let name = args.agent.as_str();
    let request = EvictRequest {
        accept_duplicate_risk: args.accept_duplicate_risk,
        reason: args.reason.clone(),
    };
    match remote.client.evict(name, &request).await {
        Ok(done) if done.changed => told(remote, &args.agent, &done, "is evicted")?,
        Ok(done) => told(
            remote,
            &args.agent,
            &done,
            "was not evicted: there was nothing to take",
        )?,
        Err(error) => return Err(remote.about_agent(name, error).await),
    }
    Ok(Exit::Done)
}

fn told(remote: &Remote, agent: &AgentName, done: &Done, what: &str) -> Result<(), Failure> {
    for note in &done.notes {
        say(note);
    }
    let name = format!("agent/{agent}");
    remote
        .output
        .one(done, &name, || format!("{name} {what}\n"))
}
