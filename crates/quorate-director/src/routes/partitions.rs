//! Partitions: lists, one, why, history, and what people do with them.

use axum::extract::State;
use quorate_api::problem::Problem;
use quorate_api::resources::{
    Done, ExcludedAgent, HistoryEntry, HistoryView, Page, PartitionState, PartitionView, Why,
};
use quorate_api::routes;
use quorate_core::access::Verb;
use quorate_core::cluster::{Partition, Service};
use quorate_core::director::call::{Call, Object, Revision};
use quorate_core::history::Change;
use quorate_core::ids::{AgentName, PartitionKey, ServiceName};
use quorate_core::record::Desired;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::services::desired;
use super::{no_agent, no_partition, no_service};
use crate::clock;
use crate::engine::Reading;
use crate::history::Recorded;
use crate::http::App;
use crate::http::access::Caller;
use crate::http::answer::{Failure, Indexed};
use crate::http::condition::{Given, IF_MATCH_HELP, Tagged};
use crate::http::extract::{Names, NoBody, Params, bad};
use crate::tally::{Place, walk};
use crate::views;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(list_of_service))
        .routes(routes!(one))
        .routes(routes!(why))
        .routes(routes!(history))
        .routes(routes!(restart))
        .routes(routes!(stop))
        .routes(routes!(start))
}

/// Which partitions to list.
#[derive(Clone, Debug)]
struct Filter {
    caller: Caller,
    service: Option<ServiceName>,
    state: Option<PartitionState>,
    agent: Option<AgentName>,
    problems: bool,
    labels: Vec<(String, String)>,
}

/// Partitions of all services, in the order of their names.
#[utoipa::path(
    get, path = routes::PARTITIONS, tag = "partitions", operation_id = "list_partitions",
    params(
        ("service" = Option<String>, Query, description = "Of this service only"),
        ("state" = Option<PartitionState>, Query, description = "In this state only"),
        ("agent" = Option<String>, Query, description = "On this agent only"),
        ("problems" = Option<bool>, Query, description = "Only those that should run and do not"),
        ("label" = Option<String>, Query, description = "With this label, `name=value`; may be repeated"),
        ("limit" = Option<u32>, Query, description = "Items of a page, at most 1000"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
        ("index" = Option<u64>, Query, description = "Answer only when something has changed past this"),
        ("wait" = Option<String>, Query, description = "How long to wait for that, `60s`"),
    ),
    responses((status = 200, body = Page<PartitionView>), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    mut params: Params,
) -> Result<Indexed<Page<PartitionView>>, Failure> {
    let service: Option<ServiceName> = params.value("service")?;
    caller.may_all(Verb::Read, &service)?;
    Ok(page(app, caller, service, params).await?.1)
}

/// Partitions of one service.
#[utoipa::path(
    get, path = routes::SERVICE_PARTITIONS, tag = "partitions",
    operation_id = "list_partitions_of_service",
    params(("name" = String, Path)),
    responses(
        (status = 200, body = Page<PartitionView>, headers(("etag" = String, description = "Of the whole list and of what runs"))),
        (status = "default", body = Problem),
    )
)]
async fn list_of_service(
    State(app): State<App>,
    caller: Caller,
    Names(name): Names<ServiceName>,
    params: Params,
) -> Result<Tagged<Page<PartitionView>>, Failure> {
    page(app, caller, Some(name), params).await
}

async fn page(
    app: App,
    caller: Caller,
    service: Option<ServiceName>,
    mut params: Params,
) -> Result<Tagged<Page<PartitionView>>, Failure> {
    let filter = Filter {
        caller,
        service,
        state: params.text("state")?.as_deref().map(state).transpose()?,
        agent: params.value("agent")?,
        problems: params.flag("problems")?,
        labels: params.labels()?,
    };
    let limit = params.limit()?;
    let cursor = params.text("cursor")?;
    let blocking = params.blocking()?;
    params.end()?;
    let mut place = cursor.map(|cursor| place_of(&cursor)).transpose()?;
    let watched = filter.service.clone();
    let changed = move |reading: &Reading<'_>| match &watched {
        Some(service) => reading.tracker.service_changed(service),
        None => reading.tracker.changed(),
    };
    app.wait(blocking, changed).await?;
    let mut revision = None;
    if let Some(name) = filter.service.clone() {
        // Before the walk: what changes while it goes on has a later one.
        let known = app.query(move |reading| list_revision(reading, &name));
        revision = Some(known.await??);
    }
    if let Some(name) = filter.agent.clone() {
        let known = app.query(move |reading| {
            let known = reading.cluster().agents().contains_key(&name);
            known.then_some(()).ok_or_else(|| no_agent(reading, &name))
        });
        known.await??;
    }
    let index = app.handle.seen().position.0;
    let mut items = Vec::new();
    loop {
        let (filter, from, room) = (filter.clone(), place.take(), limit - items.len());
        let step = app.query(move |reading| step(reading, &filter, from.as_ref(), room));
        let (found, next) = step.await?;
        items.extend(found);
        place = next;
        if place.is_none() || items.len() >= limit {
            break;
        }
    }
    let next = place.map(|place| cursor_of(&place));
    let page = Indexed(index, Page { index, items, next });
    Ok(Tagged(revision, page))
}

fn list_revision(reading: &Reading<'_>, name: &ServiceName) -> Result<Revision, Failure> {
    let position = reading.cluster().list_revision(name);
    let position = position.ok_or_else(|| no_service(reading, name))?;
    let era = reading.cluster().era();
    Ok(Revision { era, position })
}

/// One step of a walk: at most `room` partitions that the filter lets through.
fn step(
    reading: &Reading<'_>,
    filter: &Filter,
    from: Option<&Place>,
    room: usize,
) -> (Vec<PartitionView>, Option<Place>) {
    let mut items = Vec::new();
    let place = walk(
        reading,
        filter.service.as_ref(),
        from,
        |service, partition| {
            if filter.caller.sees(service.name()) && filter.lets_through(reading, partition) {
                items.push(views::partition(reading, service, partition));
            }
            items.len() < room
        },
    );
    (items, place)
}

impl Filter {
    fn lets_through(&self, reading: &Reading<'_>, partition: &Partition) -> bool {
        let cluster = reading.cluster();
        if let Some(wanted) = &self.agent {
            let holder = partition.holder();
            let agent = holder.and_then(|holder| cluster.agent_holding(holder));
            if agent != Some(wanted) {
                return false;
            }
        }
        if self.state.is_none() && !self.problems && self.labels.is_empty() {
            return true;
        }
        let state = views::state(cluster, partition);
        let problem = match state {
            PartitionState::Stopped => false,
            PartitionState::Failed => true,
            PartitionState::Unassigned
            | PartitionState::Assigned
            | PartitionState::Assumed
            | PartitionState::Stopping => {
                !views::is_ready(partition) || views::is_unknown(reading, partition)
            }
        };
        let labels = partition.labels();
        self.state.is_none_or(|wanted| wanted == state)
            && (!self.problems || problem)
            && self
                .labels
                .iter()
                .all(|(name, value)| labels.and_then(|labels| labels.get(name)) == Some(value))
    }
}

fn state(text: &str) -> Result<PartitionState, Failure> {
    let value = serde_json::Value::String(text.to_owned());
    serde_json::from_value(value).map_err(|_| {
        bad("state", &format!("{text:?} is not a state"))
            .next_step("unassigned, assigned, assumed, stopping, failed or stopped")
    })
}

fn cursor_of((service, key): &Place) -> String {
    match key {
        Some(key) => format!("partition:{service}/{key}"),
        None => format!("partition:{service}/"),
    }
}

fn place_of(cursor: &str) -> Result<Place, Failure> {
    let names = cursor
        .strip_prefix("partition:")
        .and_then(|names| names.split_once('/'));
    let place = names.and_then(|(service, key)| {
        let service = ServiceName::new(service).ok()?;
        let key = PartitionKey::new(key).ok()?;
        Some((service, Some(key)))
    });
    place.ok_or_else(|| bad("cursor", "it is not from this list"))
}

/// Looks at one partition.
pub(super) fn look<T>(
    reading: &Reading<'_>,
    (service, key): &(ServiceName, PartitionKey),
    view: impl FnOnce(&Service, &Partition) -> T,
) -> Result<Indexed<T>, Failure> {
    let cluster = reading.cluster();
    let id = cluster.partition_id(service, key);
    let partition = id.and_then(|id| cluster.partition(id));
    let partition = partition.ok_or_else(|| no_partition(reading, service, key))?;
    let service = cluster.service_of(partition);
    let service = service.ok_or_else(|| Failure::not_found("service", key.as_str(), []))?;
    Ok(Indexed(reading.index(), view(service, partition)))
}

/// One partition.
#[utoipa::path(
    get, path = routes::PARTITION, tag = "partitions", operation_id = "get_partition",
    params(("name" = String, Path), ("key" = String, Path)),
    responses(
        (status = 200, body = PartitionView, headers(("etag" = String, description = "Of this state; for `If-Match`"))),
        (status = "default", body = Problem),
    )
)]
async fn one(
    State(app): State<App>,
    Names(names): Names<(ServiceName, PartitionKey)>,
    mut params: Params,
) -> Result<Tagged<PartitionView>, Failure> {
    let blocking = params.blocking()?;
    params.end()?;
    let service = names.0.clone();
    app.wait(blocking, move |reading| {
        reading.tracker.service_changed(&service)
    })
    .await?;
    let found = app.query(move |reading| {
        let found = look(reading, &names, |service, partition| {
            views::partition(reading, service, partition)
        })?;
        let (service, key) = names;
        let object = Object::Partition(service, key);
        Ok(Tagged(reading.director.revision(&object), found))
    });
    found.await?
}

/// Why a partition is where it is, or nowhere.
#[utoipa::path(
    get, path = routes::PARTITION_WHY, tag = "partitions", operation_id = "why",
    params(("name" = String, Path), ("key" = String, Path)),
    responses((status = 200, body = Why), (status = "default", body = Problem))
)]
async fn why(
    State(app): State<App>,
    Names(names): Names<(ServiceName, PartitionKey)>,
    params: Params,
) -> Result<Indexed<Why>, Failure> {
    params.end()?;
    let found = app.query(move |reading| {
        look(reading, &names, |service, partition| {
            reason(reading, service, partition)
        })
    });
    found.await?
}

fn reason(reading: &Reading<'_>, service: &Service, partition: &Partition) -> Why {
    let view = views::partition(reading, service, partition);
    let exit = view.exit.clone().filter(|_| !view.running);
    let explained = reading.director.planner().and_then(|planner| {
        let id = views::id(service, partition)?;
        planner.why(reading.now.moment, reading.cluster(), id)
    });
    if let Some(why) = explained {
        let excluded = why.agents.into_iter().filter(|agent| !agent.eligible);
        return Why {
            service: view.service,
            key: view.key,
            state: view.state,
            agent: view.agent,
            token: view.token,
            since: view.since,
            // The planner does not know how far a hook is.
            reason: views::of_the_silent(reading, service, partition).unwrap_or(why.because),
            exit,
            excluded: excluded
                .map(|agent| ExcludedAgent {
                    agent: agent.agent.to_string(),
                    rule: agent.text,
                })
                .collect(),
        };
    }
    let reason = match (&view.waiting, &view.agent) {
        (Some(waiting), _) => waiting.clone(),
        (None, Some(agent)) => format!("it runs on {agent}"),
        (None, None) => "it does not run".to_owned(),
    };
    Why {
        service: view.service,
        key: view.key,
        state: view.state,
        agent: view.agent,
        token: view.token,
        since: view.since,
        reason,
        exit,
        excluded: Vec::new(),
    }
}

/// Who held a partition, when, with which token, and why it moved.
#[utoipa::path(
    get, path = routes::PARTITION_HISTORY, tag = "partitions", operation_id = "history",
    params(("name" = String, Path), ("key" = String, Path)),
    responses((status = 200, body = HistoryView), (status = "default", body = Problem))
)]
async fn history(
    State(app): State<App>,
    Names(names): Names<(ServiceName, PartitionKey)>,
    params: Params,
) -> Result<Indexed<HistoryView>, Failure> {
    params.end()?;
    let index = app.handle.seen().position.0;
    let (service, key) = (names.0.to_string(), names.1.to_string());
    let history = app.handle.history().clone();
    // Files are read beside the runtime's own threads.
    let searched = tokio::task::spawn_blocking({
        let (service, key) = (service.clone(), key.clone());
        move || history.of_partition(&service, &key)
    });
    let searched = match searched.await {
        Ok(Ok(searched)) => searched,
        Ok(Err(error)) => return Err(unreadable(&error)),
        Err(error) => return Err(unreadable(&error)),
    };
    if searched.entries.is_empty() {
        // Nothing is known: then at least it must exist. One that is gone may still have a history.
        let known = app.query(move |reading| look(reading, &names, |_, _| ()));
        known.await??;
    }
    let view = HistoryView {
        service,
        key,
        known_since: searched.known_since.0,
        entries: searched.entries.iter().filter_map(entry).collect(),
    };
    Ok(Indexed(index, view))
}

pub(super) fn unreadable(error: &(dyn std::error::Error + 'static)) -> Failure {
    tracing::warn!(error, "history cannot be read");
    let detail = format!("the history of this director cannot be read: {error}");
    Failure::new(quorate_api::problem::Code::Internal, detail)
}

fn entry(recorded: &Recorded) -> Option<HistoryEntry> {
    let Change::Partition {
        token, agent, what, ..
    } = &recorded.change
    else {
        return None;
    };
    let kind = what.name();
    Some(HistoryEntry {
        index: recorded.id.position.0,
        at: clock::text(recorded.wall),
        kind: kind.strip_prefix("partition.").unwrap_or(kind).to_owned(),
        agent: agent.as_ref().map(ToString::to_string),
        token: token.map(|token| token.0),
        text: what.to_string(),
    })
}

/// Stops and starts one run where it is.
#[utoipa::path(
    post, path = routes::PARTITION_RESTART, tag = "partitions", operation_id = "restart_partition",
    params(
        ("name" = String, Path), ("key" = String, Path),
        ("If-Match" = Option<String>, Header, description = IF_MATCH_HELP),
    ),
    responses(
        (status = 200, body = Done),
        (status = 412, body = Problem, description = "It has changed"),
        (status = "default", body = Problem),
    )
)]
async fn restart(
    State(app): State<App>,
    caller: Caller,
    Names((service, key)): Names<(ServiceName, PartitionKey)>,
    given: Given,
    _: NoBody,
) -> Result<Indexed<Done>, Failure> {
    let object = Object::Partition(service.clone(), key.clone());
    let key = Some(key);
    let call = Call::Restart { service, key };
    app.change(caller.asks(given.of(object, call))).await
}

/// Wants one partition stopped.
#[utoipa::path(
    post, path = routes::PARTITION_STOP, tag = "partitions", operation_id = "stop_partition",
    params(
        ("name" = String, Path), ("key" = String, Path),
        ("If-Match" = Option<String>, Header, description = IF_MATCH_HELP),
    ),
    responses(
        (status = 200, body = Done),
        (status = 412, body = Problem, description = "It has changed"),
        (status = "default", body = Problem),
    )
)]
async fn stop(
    State(app): State<App>,
    caller: Caller,
    Names((service, key)): Names<(ServiceName, PartitionKey)>,
    given: Given,
    _: NoBody,
) -> Result<Indexed<Done>, Failure> {
    let object = Object::Partition(service.clone(), key.clone());
    let call = desired(service, Some(key), Desired::Stopped);
    app.change(caller.asks(given.of(object, call))).await
}

/// Wants one partition to run.
#[utoipa::path(
    post, path = routes::PARTITION_START, tag = "partitions", operation_id = "start_partition",
    params(
        ("name" = String, Path), ("key" = String, Path),
        ("If-Match" = Option<String>, Header, description = IF_MATCH_HELP),
    ),
    responses(
        (status = 200, body = Done),
        (status = 412, body = Problem, description = "It has changed"),
        (status = "default", body = Problem),
    )
)]
async fn start(
    State(app): State<App>,
    caller: Caller,
    Names((service, key)): Names<(ServiceName, PartitionKey)>,
    given: Given,
    _: NoBody,
) -> Result<Indexed<Done>, Failure> {
    let object = Object::Partition(service.clone(), key.clone());
    let call = desired(service, Some(key), Desired::Running);
    app.change(caller.asks(given.of(object, call))).await
}
