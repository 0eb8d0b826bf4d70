//! `start`, `stop`, `restart`: of a service or one of its partitions.

use std::time::{Duration, Instant};

use quorate_api::client::{PartitionFilter, Wait};
use quorate_api::resources::{Done, PartitionView};
use serde::Serialize;

use super::args::{RestartArgs, Target, TargetArgs};
use super::remote::{Remote, failure_of};
use crate::failure::{Code, Exit, Failure};
use crate::output::{Bar, say};

/// One blocking query at most.
const ROUND: Duration = Duration::from_secs(5);

pub(super) async fn start(args: &TargetArgs, remote: &Remote) -> Result<Exit, Failure> {
    let (service, key) = parts(&args.target);
    let done = remote.client.start(service, key).await;
    let what = match &done {
        Ok(done) if !done.changed => "was to run already",
        Ok(_) | Err(_) => "is to run",
    };
    told(remote, &args.target, done, what).await
}

pub(super) async fn stop(args: &TargetArgs, remote: &Remote) -> Result<Exit, Failure> {
    let (service, key) = parts(&args.target);
    let done = remote.client.stop(service, key).await;
    let what = match &done {
        Ok(done) if !done.changed => "was to stop already",
        Ok(_) | Err(_) => "is to stop",
    };
    told(remote, &args.target, done, what).await
}

pub(super) async fn restart(args: &RestartArgs, remote: &Remote) -> Result<Exit, Failure> {
    if args.rolling {
        return rolling(args, remote).await;
    }
    let (service, key) = parts(&args.target);
    let done = remote.client.restart(service, key).await;
    let what = match &done {
        Ok(done) if !done.changed => "was not restarted",
        Ok(_) | Err(_) => "is to restart",
    };
    told(remote, &args.target, done, what).await
}

fn parts(target: &Target) -> (&str, Option<&str>) {
    let key = target.key.as_ref().map(|key| key.as_str());
    (target.service.as_str(), key)
}

async fn told(
    remote: &Remote,
    target: &Target,
    done: Result<Done, quorate_api::client::Error>,
    what: &str,
) -> Result<Exit, Failure> {
    let done = match done {
        Ok(done) => done,
        Err(error) => return Err(remote.about(target, error).await),
    };
    for note in &done.notes {
        say(note);
    }
    let name = target.to_string();
    remote
        .output
        .one(&done, &name, || format!("{name} {what}\n"))?;
    Ok(Exit::Done)
}

/// A few at a time. Ends at the first that does not come back, so that a bad version stops here.
async fn rolling(args: &RestartArgs, remote: &Remote) -> Result<Exit, Failure> {
    let (service, key) = parts(&args.target);
    if let Err(error) = remote.client.service(service).await {
        return Err(remote.about(&args.target, error).await);
    }
    let filter = PartitionFilter {
        service: Some(service.to_owned()),
        ..PartitionFilter::default()
    };
    let mut all = remote
        .client
        .partitions(&filter, None)
        .await
        .map_err(failure_of)?
        .value;
    all.retain(|partition| partition.running && key.is_none_or(|key| partition.key == key));
    let total = all.len();
    if total == 0 {
        say("nothing of it runs; `quorate start` starts what was stopped");
    }
    let mut bar = Bar::new(&format!("restarting {}", args.target));
    let size = usize::try_from(args.max).unwrap_or(usize::MAX);
    let mut finished = 0;
    for batch in all.chunks(size) {
        bar.note(&format!("{finished} of {total}"));
        for partition in batch {
            remote
                .client
                .restart(service, Some(&partition.key))
                .await
                .map_err(failure_of)?;
        }
        let until = Instant::now() + args.timeout.0;
        for partition in batch {
            again(remote, partition, until).await?;
        }
        finished += batch.len();
    }
    drop(bar);
    let name = args.target.to_string();
    let rolled = Rolled {
        service,
        key,
        restarted: finished,
    };
    remote
        .output
        .one(&rolled, &name, || format!("{name}: {finished} restarted\n"))?;
    Ok(Exit::Done)
}

/// What a rolling restart has done.
#[derive(Serialize)]
struct Rolled<'a> {
    service: &'a str,
    /// Absent when the whole service was restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    /// Partitions that were restarted and run again.
    restarted: usize,
}

/// Waits until a partition runs in another attempt than before.
async fn again(remote: &Remote, before: &PartitionView, until: Instant) -> Result<(), Failure> {
    let mut wait = None;
    loop {
        let now = remote
            .client
            .partition(&before.service, &before.key, wait)
            .await
            .map_err(failure_of)?;
        let other = now.value.token != before.token || now.value.attempt > before.attempt;
        if other && now.value.running {
            return Ok(());
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let name = format!("{}/{}", before.service, before.key);
            return Err(Failure::new(
                Code::WaitRanOut,
                format!("{name} does not run again; the others were left as they are"),
                format!("`quorate logs {name}` shows why"),
            ));
        }
        wait = Some(Wait {
            index: now.index,
            wait: ROUND.min(left),
        });
    }
}
