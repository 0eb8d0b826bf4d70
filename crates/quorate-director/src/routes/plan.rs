//! Planning: what an apply would change, without changing anything.
//!
//! The state is copied in the loop and everything else is done beside it, since a plan of many
//! partitions takes its time.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use quorate_api::problem::{Code, FieldError, Problem};
use quorate_api::resources::{
    ApplyRequest, Plan, PlannedMove, PlannedStart, PlannedStop, PlannedWait, ServiceChange,
    ServiceChangeKind,
};
use quorate_api::routes;
use quorate_core::access::Verb;
use quorate_core::agent::Service as HowToRun;
use quorate_core::cluster::{Cluster, Service};
use quorate_core::director::event::Now;
use quorate_core::ids::{AgentName, PartitionKey, ServiceName, SessionId};
use quorate_core::planner::{self, what_if};
use quorate_core::record::{Record, Schedulable};
use quorate_core::spec::{File, OnChange, PartitionSpec, ServiceSpec, expand};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::apply::{Request, file, valid};
use super::lists;
use crate::duties::sources;
use crate::http::App;
use crate::http::access::Caller;
use crate::http::answer::{Failure, Indexed, refused};
use crate::http::extract::JsonBody;
use crate::views;

/// Items of each list of a plan; the counts tell of the others.
const SHOWN_MAX: usize = 1000;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(plan))
}

/// What an apply would change.
#[utoipa::path(
    post, path = routes::PLAN, tag = "services", operation_id = "plan",
    request_body = ApplyRequest,
    responses((status = 200, body = Plan), (status = "default", body = Problem))
)]
async fn plan(
    State(app): State<App>,
    caller: Caller,
    JsonBody(request): JsonBody<Request>,
) -> Result<Indexed<Plan>, Failure> {
    let file = file(&request)?;
    caller.may_all(Verb::Define, file.service.keys())?;
    valid(&file)?;
    let put: Vec<(ServiceName, ServiceSpec)> = file.service.clone().into_iter().collect();
    let allowed = app.query(move |reading| reading.director.may_put(&put));
    allowed.await?.map_err(|refusal| refused(&refusal))?;
    let mut wanted = read(&app, file).await?;
    let (cluster, silent, now) = app
        .query(|reading| {
            let cluster = reading.cluster();
            let sessions = cluster.sessions().keys().copied();
            let silent = sessions.filter(|id| reading.director.silent(*id));
            let silent: BTreeSet<SessionId> = silent.collect();
            (cluster.clone(), silent, reading.now)
        })
        .await?;
    let index = cluster.position().0;
    let config = app.planner;
    let planned = tokio::task::spawn_blocking(move || {
        guard(&cluster, &mut wanted);
        planned(config, now, &cluster, &silent, &wanted)
    });
    match planned.await {
        Ok(plan) => Ok(Indexed(index, plan)),
        Err(error) => Err(Failure::new(Code::Internal, error.to_string())),
    }
}

/// A service as it is to be, with the whole list of its partitions.
struct Wanted {
    spec: ServiceSpec,
    partitions: Vec<PartitionSpec>,
    /// Why its list would be refused; `partitions` are then those in force.
    refused: Option<String>,
}

/// Expands lists and ranges, and reads files as the sources would.
async fn read(app: &App, file: File) -> Result<BTreeMap<ServiceName, Wanted>, Failure> {
    let mut wanted = BTreeMap::new();
    for (name, spec) in file.service {
        let listed = expand::partitions(&name, &spec)
            .map_err(|problem| unreadable(problem.path, problem.message))?;
        let partitions = match (listed, &spec.partitions) {
            (Some(listed), _) => listed,
            (None, Some(source)) => sources::read_once(&name, source, &app.roots)
                .await
                .map_err(|why| unreadable(format!("service.{name}.partitions.file"), why))?,
            (None, None) => Vec::new(),
        };
        let refused = None;
        let one = Wanted {
            spec,
            partitions,
            refused,
        };
        wanted.insert(name, one);
    }
    Ok(wanted)
}

/// A list that has lost too much would be refused, and what is in force would stay.
fn guard(cluster: &Cluster, wanted: &mut BTreeMap<ServiceName, Wanted>) {
    for (name, wanted) in wanted {
        let source = wanted.spec.partitions.as_ref();
        let source = source.filter(|source| source.file.is_some());
        let Some((source, known)) = source.zip(cluster.service(name)) else {
            continue;
        };
        wanted.refused = lists::shrunk(cluster, known, source, &wanted.partitions);
        if wanted.refused.is_some() {
            wanted.partitions = lists::in_force(cluster, known);
        }
    }
}

fn unreadable(at: String, message: String) -> Failure {
    let mut failure = Failure::new(Code::InvalidSpecification, format!("{at}: {message}"));
    failure.0.errors = vec![FieldError {
        at,
        message,
        hint: None,
    }];
    failure
}

fn planned(
    config: planner::PlannerConfig,
    now: Now,
    cluster: &Cluster,
    silent: &BTreeSet<SessionId>,
    wanted: &BTreeMap<ServiceName, Wanted>,
) -> Plan {
    let services = wanted.iter().map(|(name, w)| change(cluster, name, w));
    let services: Vec<ServiceChange> = services.collect();
    let records = records(cluster, wanted);
    let found = what_if(config, now, cluster, silent, records);
    let restarts = restarts(cluster, wanted, &found);
    let place = |(service, key, agent): &(ServiceName, PartitionKey, AgentName)| {
        (service.to_string(), key.to_string(), agent.to_string())
    };
    Plan {
        services,
        move_count: found.moves.len() as u64,
        start_count: found.starts.len() as u64,
        stop_count: found.stops.len() as u64,
        restart_count: restarts.len() as u64,
        restarts: first(&restarts, Clone::clone),
        waiting_count: found.waiting.len() as u64,
        moves: first(&found.moves, |step| PlannedMove {
            service: step.service.to_string(),
            key: step.key.to_string(),
            from: step.from.to_string(),
            to: step.to.to_string(),
            reason: why_moved(cluster, &step.from).to_owned(),
        }),
        starts: first(&found.starts, |start| {
            let (service, key, agent) = place(start);
            PlannedStart {
                service,
                key,
                agent,
            }
        }),
        stops: first(&found.stops, |stop| {
            let (service, key, agent) = place(stop);
            PlannedStop {
                service,
                key,
                agent,
                reason: "it is no longer to run".to_owned(),
            }
        }),
        waiting: first(&found.waiting, |(service, key, reason)| PlannedWait {
            service: service.to_string(),
            key: key.to_string(),
            reason: reason.clone(),
        }),
    }
}

/// What runs and stays where it is, and is yet to be started anew.
fn restarts(
    cluster: &Cluster,
    wanted: &BTreeMap<ServiceName, Wanted>,
    found: &planner::Plan,
) -> Vec<PlannedStop> {
    let moves = found.moves.iter().map(|step| (&step.service, &step.key));
    let stops = found.stops.iter().map(|(service, key, _)| (service, key));
    let elsewhere: BTreeSet<(&ServiceName, &PartitionKey)> = moves.chain(stops).collect();
    let mut restarts = Vec::new();
    for (name, wanted) in wanted {
        let Some(before) = cluster.service(name) else {
            continue;
        };
        let all = anew(before.spec(), &wanted.spec);
        let by_data = wanted.spec.on_change == OnChange::Restart;
        for spec in &wanted.partitions {
            let id = before.partitions().get(&spec.key);
            let partition = id.and_then(|id| cluster.partition(*id));
            let Some(partition) = partition.filter(|partition| views::is_up(partition)) else {
                continue;
            };
            let other_data = partition.data().map(|data| &**data) != spec.data.as_deref();
            let data = (by_data && other_data).then_some("its data changes");
            let holder = partition.holder();
            let agent = holder.and_then(|holder| cluster.agent_of(holder.session));
            if let (Some(reason), Some(agent), false) =
                (all.or(data), agent, elsewhere.contains(&(name, &spec.key)))
            {
                restarts.push(PlannedStop {
                    service: name.to_string(),
                    key: spec.key.to_string(),
                    agent: agent.name().to_string(),
                    reason: reason.to_owned(),
                });
            }
        }
    }
    restarts
}

fn why_moved(cluster: &Cluster, from: &AgentName) -> &'static str {
    let agent = cluster.agents().get(from);
    if agent.is_some_and(|agent| agent.schedulable() == Schedulable::Draining) {
        "its agent drains"
    } else {
        "so that the spread stays even and within its limits"
    }
}

/// Why every run of a service would be started anew, if it would be.
fn anew(before: &ServiceSpec, after: &ServiceSpec) -> Option<&'static str> {
    let recipe = |spec: &ServiceSpec| Some(HowToRun::new(spec.clone()).ok()?.recipe);
    if before.lease_class() != after.lease_class() {
        Some("its lease changes")
    } else if recipe(before) != recipe(after) {
        Some("its command or what it runs with changes")
    } else {
        None
    }
}

fn first<T, U>(all: &[T], show: impl Fn(&T) -> U) -> Vec<U> {
    all.iter().take(SHOWN_MAX).map(show).collect()
}

/// What the leader would write.
fn records(cluster: &Cluster, wanted: &BTreeMap<ServiceName, Wanted>) -> Vec<Record> {
    let mut records = Vec::new();
    for (name, wanted) in wanted {
        let listed: BTreeSet<&PartitionKey> = wanted.partitions.iter().map(|p| &p.key).collect();
        let known = cluster.service(name).map(Service::partitions);
        let known = known.into_iter().flat_map(BTreeMap::keys);
        let gone = known.filter(|key| !listed.contains(key)).cloned().collect();
        records.push(Record::ServicePut {
            name: name.clone(),
            spec: Box::new(wanted.spec.clone()),
        });
        records.push(Record::PartitionsPut {
            service: name.clone(),
            partitions: wanted.partitions.clone(),
        });
        records.push(Record::PartitionsRemoved {
            service: name.clone(),
            keys: gone,
        });
    }
    records
}

fn change(cluster: &Cluster, name: &ServiceName, wanted: &Wanted) -> ServiceChange {
    let before = cluster.service(name);
    let spec = &wanted.spec;
    let fields = before.map_or_else(Vec::new, |before| differing(before.spec(), spec));
    let mut change = ServiceChange {
        service: name.to_string(),
        change: ServiceChangeKind::Unchanged,
        fields,
        partitions_added: 0,
        partitions_removed: 0,
        partitions_changed: 0,
        refused: wanted.refused.clone(),
    };
    let known = before.map(Service::partitions);
    let mut kept = 0;
    for partition in &wanted.partitions {
        let id = known.and_then(|known| known.get(&partition.key));
        match id.and_then(|id| cluster.partition(*id)) {
            None => change.partitions_added += 1,
            Some(before) => {
                kept += 1;
                change.partitions_changed += u64::from(!before.described_by(partition));
            }
        }
    }
    let listed = before.map_or(0, |before| before.listed() as u64);
    change.partitions_removed = listed.saturating_sub(kept);
    let moved = change.partitions_added + change.partitions_removed + change.partitions_changed;
    change.change = match before {
        None => ServiceChangeKind::Added,
        Some(_) if !change.fields.is_empty() || moved > 0 => ServiceChangeKind::Changed,
        Some(_) => ServiceChangeKind::Unchanged,
    };
    change
}

/// Paths of the fields in which two specifications differ.
fn differing(before: &ServiceSpec, after: &ServiceSpec) -> Vec<String> {
    let mut fields = Vec::new();
    let values = (views::spec(before), views::spec(after));
    differ("", &values.0, &values.1, &mut fields);
    fields
}

fn differ(
    at: &str,
    before: &serde_json::Value,
    after: &serde_json::Value,
    fields: &mut Vec<String>,
) {
    use serde_json::Value::Object;
    match (before, after) {
        (before, after) if before == after => {}
        (Object(before), Object(after)) => {
            let names: std::collections::BTreeSet<&String> =
                before.keys().chain(after.keys()).collect();
            for name in names {
                let path = if at.is_empty() {
                    name.clone()
                } else {
                    format!("{at}.{name}")
                };
                let none = serde_json::Value::Null;
                let of = |map: &serde_json::Map<_, _>| map.get(name).unwrap_or(&none).clone();
                differ(&path, &of(before), &of(after), fields);
            }
        }
        _ => fields.push(at.to_owned()),
    }
}
