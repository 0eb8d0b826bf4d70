//! Agents.

use axum::extract::State;
use quorate_api::problem::Problem;
use quorate_api::resources::{AgentState, AgentView, Done, EvictRequest, Page};
use quorate_api::routes;
use quorate_core::cluster::Agent;
use quorate_core::director::call::{Call, Object};
use quorate_core::ids::AgentName;
use quorate_core::record::{Cause, Schedulable};
use quorate_core::spec::constraint::CONTAINMENT_LABEL;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::no_agent;
use super::sessions::wrong;
use crate::engine::Reading;
use crate::http::App;
use crate::http::access::Caller;
use crate::http::answer::{Failure, Indexed};
use crate::http::condition::{Given, IF_MATCH_HELP, Tagged};
use crate::http::extract::{JsonBody, Names, NoBody, Params, bad};
use crate::tally::STEP;
use crate::views;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(one, forget))
        .routes(routes!(drain))
        .routes(routes!(cordon))
        .routes(routes!(uncordon))
        .routes(routes!(evict))
}

/// All agents, those without a session included.
#[utoipa::path(
    get, path = routes::AGENTS, tag = "agents", operation_id = "list_agents",
    params(
        ("problems" = Option<bool>, Query, description = "Only those that are not active"),
        ("label" = Option<String>, Query, description = "With this label, `name=value`; may be repeated"),
        ("limit" = Option<u32>, Query, description = "Items of a page, at most 1000"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
        ("index" = Option<u64>, Query, description = "Answer only when something has changed past this"),
        ("wait" = Option<String>, Query, description = "How long to wait for that, `60s`"),
    ),
    responses((status = 200, body = Page<AgentView>), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    mut params: Params,
) -> Result<Indexed<Page<AgentView>>, Failure> {
    let filter = Filter {
        problems: params.flag("problems")?,
        labels: params.labels()?,
    };
    let limit = params.limit()?;
    let cursor = params.text("cursor")?;
    let blocking = params.blocking()?;
    params.end()?;
    let mut after = cursor.map(|cursor| agent_of(&cursor)).transpose()?;
    app.wait(blocking, |reading| reading.tracker.changed())
        .await?;
    let index = app.handle.seen().position.0;
    let mut items: Vec<AgentView> = Vec::new();
    let next = loop {
        let (filter, from, room) = (filter.clone(), after.take(), limit - items.len());
        let (found, next) = app
            .query(move |reading| step(reading, &filter, from.as_ref(), room))
            .await?;
        items.extend(found);
        if next.is_none() || items.len() >= limit {
            break next;
        }
        after = next;
    };
    let next = next.map(|name| format!("agent:{name}"));
    Ok(Indexed(index, Page { index, items, next }))
}

/// Which agents to list.
#[derive(Clone, Debug)]
struct Filter {
    problems: bool,
    labels: Vec<(String, String)>,
}

impl Filter {
    fn lets_through(&self, agent: &AgentView) -> bool {
        let labels = &agent.labels;
        let mut wanted = self.labels.iter();
        (!self.problems || agent.state != AgentState::Active)
            && wanted.all(|(name, value)| match name.as_str() {
                CONTAINMENT_LABEL => agent.containment.as_str() == value,
                name => labels.get(name) == Some(value),
            })
    }
}

/// At most `room` agents after `from` that the filter lets through, and no more partitions than one step
/// may visit.
fn step(
    reading: &Reading<'_>,
    filter: &Filter,
    from: Option<&AgentName>,
    room: usize,
) -> (Vec<AgentView>, Option<AgentName>) {
    let (mut items, mut visited) = (Vec::new(), 0);
    let agents = reading.cluster().agents().iter();
    let mut later = agents.filter(|(name, _)| from.is_none_or(|from| *name > from));
    while let Some((name, agent)) = later.next() {
        let (view, partitions) = view(reading, agent);
        visited += partitions;
        if filter.lets_through(&view) {
            items.push(view);
        }
        if items.len() >= room || visited >= STEP {
            let more = later.next().is_some();
            return (items, more.then(|| name.clone()));
        }
    }
    (items, None)
}

/// The agent, and how many partitions were visited for it.
fn view(reading: &Reading<'_>, agent: &Agent) -> (AgentView, usize) {
    let cluster = reading.cluster();
    let (mut weight, mut visited) = (0, 0);
    let open = agent.sessions().iter();
    let open = open.filter_map(|id| cluster.session(*id));
    let expired = agent.expired().iter();
    let expired = expired.filter_map(|id| cluster.expired().get(id));
    for session in open.chain(expired) {
        let held = session
            .held()
            .iter()
            .filter_map(|id| cluster.partition(*id));
        weight += held
            .map(|partition| u64::from(partition.weight()))
            .sum::<u64>();
        visited += session.held().len();
    }
    (views::agent(reading, agent, weight), visited)
}

fn agent_of(cursor: &str) -> Result<AgentName, Failure> {
    match cursor.strip_prefix("agent:").map(AgentName::new) {
        Some(Ok(name)) => Ok(name),
        Some(Err(_)) | None => Err(bad("cursor", "it is not from this list")),
    }
}

/// One agent.
#[utoipa::path(
    get, path = routes::AGENT, tag = "agents", operation_id = "get_agent",
    params(("name" = String, Path)),
    responses(
        (status = 200, body = AgentView, headers(("etag" = String, description = "Of this state; for `If-Match`"))),
        (status = "default", body = Problem),
    )
)]
async fn one(
    State(app): State<App>,
    Names(name): Names<AgentName>,
    mut params: Params,
) -> Result<Tagged<AgentView>, Failure> {
    let blocking = params.blocking()?;
    params.end()?;
    app.wait(blocking, |reading| reading.tracker.changed())
        .await?;
    let found = app.query(move |reading| {
        let agent = reading.cluster().agents().get(&name);
        let agent = agent.ok_or_else(|| no_agent(reading, &name))?;
        let found = Indexed(reading.index(), view(reading, agent).0);
        let revision = reading.director.revision(&Object::Agent(name));
        Ok(Tagged(revision, found))
    });
    found.await?
}

/// Forgets an agent that is gone for good, and what was wanted of it.
#[utoipa::path(
    delete, path = routes::AGENT, tag = "agents", operation_id = "forget_agent",
    params(
        ("name" = String, Path),
        ("If-Match" = Option<String>, Header, description = "Only if it is still as in the answer with this `ETag`; `*`: only if it exists"),
    ),
    responses(
        (status = 200, body = Done),
        (status = 409, body = Problem, description = "It is not gone"),
        (status = 412, body = Problem, description = "It has changed"),
        (status = "default", body = Problem),
    )
)]
async fn forget(
    State(app): State<App>,
    caller: Caller,
    Names(agent): Names<AgentName>,
    given: Given,
) -> Result<Indexed<Done>, Failure> {
    let object = Object::Agent(agent.clone());
    app.change(caller.asks(given.of(object, Call::ForgetAgent { agent })))
        .await
}

/// Moves everything off an agent and gives it nothing new.
#[utoipa::path(
    post, path = routes::AGENT_DRAIN, tag = "agents", operation_id = "drain_agent",
    params(
        ("name" = String, Path),
        ("If-Match" = Option<String>, Header, description = IF_MATCH_HELP),
    ),
    responses(
        (status = 200, body = Done),
        (status = 412, body = Problem, description = "It has changed"),
        (status = "default", body = Problem),
    )
)]
async fn drain(
    State(app): State<App>,
    caller: Caller,
    Names(agent): Names<AgentName>,
    given: Given,
    _: NoBody,
) -> Result<Indexed<Done>, Failure> {
    set(app, caller, agent, given, Schedulable::Draining).await
}

/// Gives an agent nothing new; what it has stays.
#[utoipa::path(
    post, path = routes::AGENT_CORDON, tag = "agents", operation_id = "cordon_agent",
    params(
        ("name" = String, Path),
        ("If-Match" = Option<String>, Header, description = IF_MATCH_HELP),
    ),
    responses(
        (status = 200, body = Done),
        (status = 412, body = Problem, description = "It has changed"),
        (status = "default", body = Problem),
    )
)]
async fn cordon(
    State(app): State<App>,
    caller: Caller,
    Names(agent): Names<AgentName>,
    given: Given,
    _: NoBody,
) -> Result<Indexed<Done>, Failure> {
    set(app, caller, agent, given, Schedulable::Cordoned).await
}

/// Gives an agent work again.
#[utoipa::path(
    post, path = routes::AGENT_UNCORDON, tag = "agents", operation_id = "uncordon_agent",
    params(
        ("name" = String, Path),
        ("If-Match" = Option<String>, Header, description = IF_MATCH_HELP),
    ),
    responses(
        (status = 200, body = Done),
        (status = 412, body = Problem, description = "It has changed"),
        (status = "default", body = Problem),
    )
)]
async fn uncordon(
    State(app): State<App>,
    caller: Caller,
    Names(agent): Names<AgentName>,
    given: Given,
    _: NoBody,
) -> Result<Indexed<Done>, Failure> {
    set(app, caller, agent, given, Schedulable::Active).await
}

/// Takes everything from a silent agent at once, without proof that nothing of it executes.
#[utoipa::path(
    post, path = routes::AGENT_EVICT, tag = "agents", operation_id = "evict_agent",
    params(("name" = String, Path)), request_body = EvictRequest,
    responses((status = 200, body = Done), (status = "default", body = Problem))
)]
async fn evict(
    State(app): State<App>,
    caller: Caller,
    Names(agent): Names<AgentName>,
    JsonBody(request): JsonBody<EvictRequest>,
) -> Result<Indexed<Done>, Failure> {
    if !request.accept_duplicate_risk {
        return Err(wrong(
            "accept_duplicate_risk",
            "it must be true: nothing proves that the agent's processes are dead",
        ));
    }
    if request.reason.trim().is_empty() {
        return Err(wrong("reason", "say why; it stays in the ledger"));
    }
    let reason = Cause::new(&request.reason);
    app.change(caller.asks(Call::Evict { agent, reason })).await
}

async fn set(
    app: App,
    caller: Caller,
    agent: AgentName,
    given: Given,
    schedulable: Schedulable,
) -> Result<Indexed<Done>, Failure> {
    let object = Object::Agent(agent.clone());
    let call = Call::SetAgent { agent, schedulable };
    app.change(caller.asks(given.of(object, call))).await
}
