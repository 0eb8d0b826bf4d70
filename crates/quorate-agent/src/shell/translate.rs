//! Between the wire and the core: numbers become identifiers, texts become meanings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_api::checkpoint::{CheckpointView, Content as WireContent};
use quorate_api::session::{
    CheckpointsRequest, Claim, ExitReport, Observation, Release, ReportRequest, SessionOpened,
    WorkItem, WorkResponse, WorkState, WrittenCheckpoint,
};
use quorate_core::agent::{Checkpoints, Item, Latest, Opened, Report, Service, Wanted, Work};
use quorate_core::checkpoint::Content;
use quorate_core::ids::{
    ClusterId, Incarnation, PartitionId, PartitionKey, ServiceName, SessionId, Token,
};
use quorate_core::lease::LeaseTimes;
use quorate_core::record::{Exit, ExitClass, ReleaseOutcome, RunPhase};
use quorate_core::spec::ServiceSpec;

/// The services that a session has heard of, each read once.
#[derive(Debug, Default)]
pub(crate) struct Services {
    known: BTreeMap<(String, u64), Arc<Service>>,
}

impl Services {
    /// Reads what a director says. Items of a service that this agent cannot read are left out: they
    /// stay with the directors, who say that nobody has acknowledged them.
    pub(crate) fn work(&mut self, response: WorkResponse) -> Work {
        for service in response.services {
            let read = serde_json::from_value::<ServiceSpec>(service.spec)
                .map_err(|error| error.to_string())
                .and_then(|spec| Service::new(spec).map_err(|error| error.to_string()));
            match read {
                Ok(read) => {
                    let name = (service.service, service.spec_version);
                    self.known.insert(name, Arc::new(read));
                }
                Err(problem) => {
                    tracing::error!(
                        service = service.service,
                        problem,
                        "cannot read how to run a service; is this agent older than the directors?"
                    );
                }
            }
        }
        let items: Vec<Item> = response
            .items
            .into_iter()
            .filter_map(|item| self.item(item))
            .collect();
        if response.whole {
            let used: Vec<*const Service> =
                items.iter().map(|item| Arc::as_ptr(&item.how)).collect();
            self.known
                .retain(|_, service| used.contains(&Arc::as_ptr(service)));
        }
        Work {
            whole: response.whole,
            items,
            gone: response.gone.into_iter().map(Token).collect(),
        }
    }

    fn item(&self, item: WorkItem) -> Option<Item> {
        let name = (item.service, item.spec_version);
        let Some(how) = self.known.get(&name) else {
            tracing::error!(
                service = name.0,
                key = item.key,
                "a partition was assigned without a readable specification"
            );
            return None;
        };
        let (Ok(service), Ok(key)) = (ServiceName::new(&name.0), PartitionKey::new(&item.key))
        else {
            tracing::error!(
                service = name.0,
                key = item.key,
                "not a name that can run here"
            );
            return None;
        };
        Some(Item {
            partition: PartitionId(item.partition),
            token: Token(item.token),
            wanted: match item.state {
                WorkState::Assigned | WorkState::Assumed => Wanted::Running,
                WorkState::Stopping => Wanted::Stopped,
            },
            service,
            key,
            data: item.data.map(|data| Arc::from(data.get())),
            data_version: item.data_version,
            restarts_asked: item.restarts_asked,
            failures: item.failures,
            checkpoint: item.checkpoint.as_ref().and_then(latest),
            how: Arc::clone(how),
        })
    }
}

/// One that this agent cannot read is none: the next owner begins at the beginning, and says so.
fn latest(view: &CheckpointView) -> Option<Latest> {
    let bytes = view.content.bytes().map_err(|error| error.to_string());
    let content = bytes.and_then(|bytes| Content::new(&bytes).map_err(|error| error.to_string()));
    match content {
        Ok(content) => Some(Latest {
            token: Token(view.token),
            number: view.number,
            content,
        }),
        Err(problem) => {
            tracing::error!(token = view.token, problem, "cannot read a checkpoint");
            None
        }
    }
}

pub(crate) fn checkpoints(checkpoints: &Checkpoints) -> CheckpointsRequest {
    let given = checkpoints.given.iter().map(|written| WrittenCheckpoint {
        partition: written.partition.0,
        token: written.token.0,
        number: written.number,
        content: WireContent::of(written.content.as_bytes()),
    });
    CheckpointsRequest {
        incarnation: checkpoints.incarnation.0,
        checkpoints: given.collect(),
    }
}

pub(crate) fn opened(answer: &SessionOpened) -> Opened {
    Opened {
        session: SessionId(answer.session),
        incarnation: Incarnation(answer.incarnation),
        cluster: ClusterId(answer.cluster),
        times: LeaseTimes {
            lease: Duration::from_millis(answer.lease_ms),
            renew_every: Duration::from_millis(answer.renew_every_ms.max(10)),
            grace: Duration::from_millis(answer.grace_ms),
            kill: Duration::from_millis(answer.kill_ms),
        },
    }
}

pub(crate) fn report(report: &Report) -> ReportRequest {
    ReportRequest {
        incarnation: report.incarnation.0,
        sequence: report.sequence,
        assume: report
            .assume
            .iter()
            .map(|&(partition, token)| Claim {
                partition: partition.0,
                token: token.0,
            })
            .collect(),
        release: report
            .release
            .iter()
            .map(|release| Release {
                partition: release.partition.0,
                token: release.token.0,
                outcome: outcome(release.outcome).to_owned(),
                exit: release.exit.as_ref().map(exit),
                failures: release.failures,
            })
            .collect(),
        observed: report
            .observed
            .iter()
            .map(|(partition, token, run)| Observation {
                partition: partition.0,
                token: token.0,
                phase: phase(run.phase).to_owned(),
                attempt: run.attempt,
                pid: run.pid,
                exit: run.exit.as_deref().map(exit),
            })
            .collect(),
    }
}

const fn outcome(outcome: ReleaseOutcome) -> &'static str {
    match outcome {
        ReleaseOutcome::Stopped => "stopped",
        ReleaseOutcome::Move => "move",
        ReleaseOutcome::Done => "done",
        ReleaseOutcome::Failed => "failed",
    }
}

const fn phase(phase: RunPhase) -> &'static str {
    match phase {
        RunPhase::Starting => "starting",
        RunPhase::Ready => "ready",
        RunPhase::Backoff => "backoff",
        RunPhase::Stopping => "stopping",
    }
}

fn exit(exit: &Exit) -> ExitReport {
    let class = match exit.class {
        ExitClass::Clean => "clean",
        ExitClass::Interrupted => "interrupted",
        ExitClass::Crash => "crash",
        ExitClass::Killed => "killed",
        ExitClass::Stopped => "stopped",
        ExitClass::NotStarted => "not_started",
    };
    ExitReport {
        class: class.to_owned(),
        code: exit.code,
        signal: exit.signal,
        cause: exit.cause.as_ref().map(|cause| cause.as_str().to_owned()),
    }
}
