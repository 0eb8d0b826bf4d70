//! The state as people see it: from the fold's types to those of the API. Looks, and decides nothing.

use std::collections::BTreeMap;

use quorate_api::checkpoint::{CheckpointSummary, CheckpointView, Content};
use quorate_api::resources::{
    AgentState, AgentView, Counts, ExitView, PartitionState, PartitionView, ServiceState,
    ServiceView, SourceView,
};
use quorate_api::session::WorkResponse;
use quorate_api::session::{WorkItem, WorkService, WorkState};
use quorate_core::checkpoint::Checkpoint;
use quorate_core::cluster::{Agent, Cluster, Freed, Partition, Run, Service, State};
use quorate_core::director::{self as machine, WorkDelta};
use quorate_core::ids::PartitionId;
use quorate_core::planner::given_up;
use quorate_core::record::{
    Containment, Desired, Exit, ExitClass, ReleaseOutcome, RunPhase, Schedulable,
};
use quorate_core::spec::ServiceSpec;
use serde_json::value::RawValue;

use crate::clock;
use crate::engine::Reading;

/// A service, without its specification.
pub(crate) fn service(service: &Service, partitions: Counts) -> ServiceView {
    let spec = service.spec();
    ServiceView {
        name: service.name().to_string(),
        state: match service.desired() {
            _ if service.removed() => ServiceState::Removing,
            Desired::Running => ServiceState::Active,
            Desired::Stopped => ServiceState::Stopped,
        },
        stopped: service.desired() == Desired::Stopped,
        partitions,
        source: source(service),
        lease_ms: clock::millis(spec.lease_class()),
        spec_version: service.spec_version().0,
        spec: None,
        agents: BTreeMap::new(),
    }
}

/// A specification in the shape of the file.
pub(crate) fn spec(spec: &ServiceSpec) -> serde_json::Value {
    // Its keys are texts and its numbers finite, so this cannot fail.
    serde_json::to_value(spec).unwrap_or_default()
}

fn source(service: &Service) -> SourceView {
    let source = service.spec().partitions.as_ref();
    let file = source.and_then(|source| source.file.clone());
    let kind = match source {
        None => "single",
        Some(source) if source.list.is_some() => "list",
        Some(source) if source.range.is_some() => "range",
        Some(_) => "file",
    };
    SourceView {
        kind: kind.to_owned(),
        location: file,
        problem: service.problem().map(str::to_owned),
    }
}

/// Where a partition is in its life, as people see it.
pub(crate) fn state(cluster: &Cluster, partition: &Partition) -> PartitionState {
    match partition.state() {
        State::Assigned(_) => PartitionState::Assigned,
        State::Assumed(_) => PartitionState::Assumed,
        State::Stopping(..) => PartitionState::Stopping,
        State::Unassigned(_) => match partition.finished() {
            Some(ReleaseOutcome::Failed) => PartitionState::Failed,
            Some(ReleaseOutcome::Done | ReleaseOutcome::Stopped | ReleaseOutcome::Move) => {
                PartitionState::Stopped
            }
            None if cluster.wanted(partition) => PartitionState::Unassigned,
            None => PartitionState::Stopped,
        },
    }
}

/// Whether the agent that holds a partition is silent: it may run, and nobody knows. That ends with the
/// lease, or never by time alone where the work is kept.
pub(crate) fn is_unknown(reading: &Reading<'_>, partition: &Partition) -> bool {
    let holder = partition.running_under();
    holder.is_some_and(|holder| reading.director.silent(holder.session))
}

/// Whether a partition waits for a fence hook after its agent was silent for longer than its lease.
pub(crate) fn is_fencing(cluster: &Cluster, partition: &Partition) -> bool {
    let expired = cluster.expired();
    let holder = partition.running_under();
    !expired.is_empty() && holder.is_some_and(|holder| expired.contains_key(&holder.session))
}

/// Whether the run of a partition is up, as its agent last told.
pub(crate) fn is_up(partition: &Partition) -> bool {
    partition.running_under().is_some()
        && partition.run().is_some_and(|run| match run.phase {
            RunPhase::Starting | RunPhase::Ready | RunPhase::Stopping => true,
            RunPhase::Backoff => false,
        })
}

/// Whether it is up and has said so.
pub(crate) fn is_ready(partition: &Partition) -> bool {
    matches!(partition.state(), State::Assumed(_))
        && partition
            .run()
            .is_some_and(|run| run.phase == RunPhase::Ready)
}

/// Whether its last run has failed and the next is not ready yet.
pub(crate) fn is_failing(partition: &Partition) -> bool {
    matches!(partition.state(), State::Assumed(_))
        && partition.run().is_some_and(|run| {
            run.phase != RunPhase::Ready
                && run
                    .exit
                    .is_some_and(|exit| exit.class != ExitClass::Stopped)
        })
}

/// A partition.
pub(crate) fn partition(
    reading: &Reading<'_>,
    service: &Service,
    partition: &Partition,
) -> PartitionView {
    let cluster = reading.cluster();
    let holder = partition.holder();
    let agent = holder.and_then(|holder| cluster.agent_holding(holder));
    let run = partition
        .run()
        .filter(|_| partition.running_under().is_some());
    let exit = partition.run().and_then(|run| run.exit);
    let unknown = is_unknown(reading, partition);
    let health = run.map(|run| if unknown { "unknown" } else { phase(run) });
    PartitionView {
        service: service.name().to_string(),
        key: partition.key().to_string(),
        state: state(cluster, partition),
        running: is_up(partition) && !unknown,
        agent: agent.map(ToString::to_string),
        token: holder.map(|holder| holder.token.0),
        since: Some(clock::text(partition.since())),
        restarts: run.map_or(0, |run| run.attempt.saturating_sub(1)),
        health: health.map(str::to_owned),
        waiting: waiting(reading, service, partition),
        attempt: run.map(|run| run.attempt),
        pid: run.and_then(|run| run.pid),
        exit: exit.map(exit_view),
        weight: partition.weight(),
        labels: partition.labels().cloned().unwrap_or_default(),
        data: partition.data().and_then(|data| raw(data)),
        checkpoint: partition.checkpoint().map(checkpoint_summary),
    }
}

/// A checkpoint with what is in it.
pub(crate) fn checkpoint(checkpoint: &Checkpoint) -> CheckpointView {
    CheckpointView {
        token: checkpoint.token.0,
        number: checkpoint.number,
        at: clock::text(checkpoint.at),
        content: Content::of(checkpoint.content.as_bytes()),
    }
}

fn checkpoint_summary(checkpoint: &Checkpoint) -> CheckpointSummary {
    CheckpointSummary {
        token: checkpoint.token.0,
        number: checkpoint.number,
        at: clock::text(checkpoint.at),
        bytes: checkpoint.content.as_bytes().len() as u64,
    }
}

/// Why a partition does not run; `None` when it does.
pub(crate) fn waiting(
    reading: &Reading<'_>,
    service: &Service,
    partition: &Partition,
) -> Option<String> {
    if let Some(why) = of_the_silent(reading, service, partition) {
        return Some(why);
    }
    if is_ready(partition) {
        return None;
    }
    // The planner knows best what a partition waits for, while this director leads.
    if let (Some(planner), Some(id)) = (reading.director.planner(), id(service, partition))
        && let Some(why) = planner.waiting(reading.now.moment, reading.cluster(), id)
    {
        return Some(why);
    }
    let down = || {
        if service.removed() || partition.doomed() {
            Some("it was removed")
        } else if service.desired() == Desired::Stopped {
            Some("its service is stopped")
        } else if partition.desired() == Desired::Stopped {
            Some("somebody stopped it")
        } else {
            None
        }
    };
    let text = match partition.state() {
        State::Unassigned(freed) => match partition.finished() {
            Some(ReleaseOutcome::Failed) => given_up(service.name(), partition),
            Some(_) => "its work is done".to_owned(),
            None => down().map_or_else(|| unassigned(reading, freed), str::to_owned),
        },
        State::Assigned(_) => "its agent has not acknowledged yet".to_owned(),
        State::Stopping(_, reason) => format!("being stopped: {reason}"),
        State::Assumed(_) => match partition.run() {
            None => "its agent is about to start it".to_owned(),
            Some(run) => match run.phase {
                RunPhase::Starting => "started, not ready yet".to_owned(),
                RunPhase::Ready => return None,
                RunPhase::Stopping => "being stopped by its agent".to_owned(),
                RunPhase::Backoff => match run.exit {
                    Some(exit) => format!("waiting for its next attempt: {exit}"),
                    None => "waiting for its next attempt".to_owned(),
                },
            },
        },
    };
    Some(text)
}

/// What is to be said of a partition whose agent is silent.
pub(crate) fn of_the_silent(
    reading: &Reading<'_>,
    service: &Service,
    partition: &Partition,
) -> Option<String> {
    unfenced(reading, service, partition).or_else(|| unknown(reading, service, partition))
}

/// What is to be said of a partition that a silent agent holds.
fn unknown(reading: &Reading<'_>, service: &Service, partition: &Partition) -> Option<String> {
    if !is_unknown(reading, partition) {
        return None;
    }
    let cluster = reading.cluster();
    let holder = partition.running_under()?;
    let agent = cluster.agent_holding(holder)?;
    let session = cluster.session(holder.session)?;
    if session.lease().ends() {
        let expires = reading.director.expires(holder.session)?;
        let left = expires.since(reading.now.moment).as_secs_f64();
        return Some(format!(
            "{agent} is silent: it may still run there, for {left:.1} s at most, unless {agent} is heard again"
        ));
    }
    let stops = match partition.state() {
        State::Stopping(_, reason) => format!("; once it is heard it stops it: {reason}"),
        State::Assumed(_) | State::Assigned(_) | State::Unassigned(_) => String::new(),
    };
    let hook = id(service, partition).and_then(|id| cluster.fence_of(id));
    let takes_over = match hook {
        Some(hook) => {
            let now = reading.now.moment;
            let how = reading.director.fencing(now, holder.session, hook);
            let how = how.map_or_else(String::new, |how| format!(": {how}"));
            format!("fence hook {hook} must succeed first{how}")
        }
        None => format!(
            "nothing takes over by itself; `quorate evict {agent}` is for a person to decide"
        ),
    };
    Some(format!(
        "kept on {agent}, which is silent: it may still run there, and {takes_over}{stops}"
    ))
}

/// What is to be said of a partition whose former agent is to be fenced.
fn unfenced(reading: &Reading<'_>, service: &Service, partition: &Partition) -> Option<String> {
    let cluster = reading.cluster();
    let holder = partition.running_under()?;
    let session = cluster.expired().get(&holder.session)?;
    let hook = cluster.fence_of(id(service, partition)?)?;
    let how = reading
        .director
        .fencing(reading.now.moment, holder.session, hook);
    Some(format!(
        "{} was silent for longer than its lease; fence hook {hook} must succeed first{}",
        session.agent(),
        how.map_or_else(String::new, |how| format!(": {how}"))
    ))
}

/// The slot of a partition.
pub(crate) fn id(service: &Service, partition: &Partition) -> Option<PartitionId> {
    service.partitions().get(partition.key()).copied()
}

fn unassigned(reading: &Reading<'_>, freed: &Freed) -> String {
    let open = reading.cluster().sessions();
    if open.is_empty() {
        return "no agent is connected".to_owned();
    }
    match freed {
        Freed::New => "no agent has been chosen yet".to_owned(),
        Freed::Taken { reason, from } => format!("taken from {from}: {reason}"),
        Freed::GivenBack { outcome, from } => format!("given back by {from}: {outcome}"),
        Freed::Expired { from } => format!("{from} was silent for longer than its lease"),
        Freed::Closed { reason, from } => format!("freed from {from}: {reason}"),
    }
}

/// An agent. How heavy its partitions are is counted by the caller.
pub(crate) fn agent(reading: &Reading<'_>, agent: &Agent, weight: u64) -> AgentView {
    let cluster = reading.cluster();
    let sessions = || {
        agent
            .sessions()
            .iter()
            .filter_map(|id| cluster.session(*id))
    };
    // A session of an earlier life that has yet to expire does not make it silent.
    let newest = cluster.sessions_in_use(agent);
    let expiries = newest
        .values()
        .filter_map(|id| reading.director.expires(*id));
    let margin = expiries.map(|at| at.since(reading.now.moment)).min();
    let silent = newest.values().any(|id| reading.director.silent(*id));
    let state = match agent.schedulable() {
        _ if agent.sessions().is_empty() => AgentState::Gone,
        _ if silent => AgentState::Silent,
        Schedulable::Active => AgentState::Active,
        Schedulable::Cordoned => AgentState::Cordoned,
        Schedulable::Draining => AgentState::Draining,
    };
    // What an expired session holds waits for a fence hook, and is nobody else's until then.
    let expired = agent.expired().iter();
    let expired = expired.filter_map(|id| cluster.expired().get(id));
    let held: usize = sessions().chain(expired).map(|s| s.held().len()).sum();
    let info = agent.info();
    AgentView {
        name: agent.name().to_string(),
        state,
        partitions: held as u64,
        weight,
        capacity: info.capacity,
        labels: info.labels.clone(),
        containment: containment(info.containment).to_owned(),
        lease_margin_ms: margin.map(clock::millis),
        sessions: agent.sessions().iter().map(|id| id.0).collect(),
        version: info.version.clone(),
    }
}

/// Work as it is told to an agent.
pub(crate) fn work(delta: WorkDelta, leases_ms: Vec<u64>, directors: Vec<String>) -> WorkResponse {
    let items = delta.items.into_iter().map(|item| WorkItem {
        partition: item.partition.0,
        token: item.token.0,
        state: match item.state {
            machine::WorkState::Assigned => WorkState::Assigned,
            machine::WorkState::Assumed => WorkState::Assumed,
            machine::WorkState::Stopping => WorkState::Stopping,
        },
        service: item.service.as_str().to_owned(),
        key: item.key.as_str().to_owned(),
        data: item.data.and_then(|data| raw(&data)),
        data_version: item.data_version.0,
        spec_version: item.spec_version.0,
        restarts_asked: item.restarts_asked,
        failures: item.failures,
        checkpoint: item.checkpoint.as_ref().map(checkpoint),
    });
    let services = delta.services.into_iter().map(|service| WorkService {
        service: service.service.to_string(),
        spec_version: service.spec_version.0,
        spec: spec(&service.spec),
    });
    WorkResponse {
        index: delta.index.0,
        whole: delta.whole,
        items: items.collect(),
        gone: delta.gone.into_iter().map(|token| token.0).collect(),
        services: services.collect(),
        leases_ms,
        directors,
    }
}

/// JSON text as it is. It was checked when it was taken in.
fn raw(data: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(data.to_owned()).ok()
}

pub(crate) fn phase(run: Run<'_>) -> &'static str {
    match run.phase {
        RunPhase::Starting => "starting",
        RunPhase::Ready => "ready",
        RunPhase::Backoff => "backoff",
        RunPhase::Stopping => "stopping",
    }
}

fn exit_view(exit: &Exit) -> ExitView {
    let class = match exit.class {
        ExitClass::Clean => "clean",
        ExitClass::Interrupted => "interrupted",
        ExitClass::Crash => "crash",
        ExitClass::Killed => "killed",
        ExitClass::Stopped => "stopped",
        ExitClass::NotStarted => "not_started",
    };
    ExitView {
        class: class.to_owned(),
        code: exit.code,
        signal: exit.signal,
        cause: exit.cause.as_ref().map(|cause| cause.as_str().to_owned()),
    }
}

fn containment(grade: Containment) -> &'static str {
    match grade {
        Containment::Kernel => "kernel",
        Containment::Cgroup => "cgroup",
        Containment::Scan => "scan",
        Containment::Cooperative => "cooperative",
    }
}
