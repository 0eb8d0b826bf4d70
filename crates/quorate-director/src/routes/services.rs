//! Services.

use axum::extract::State;
use quorate_api::problem::Problem;
use quorate_api::resources::{ApplyAnswer, Done, Page, ServiceView};
use quorate_api::routes;
use quorate_core::access::Verb;
use quorate_core::director::call::{Call, Object};
use quorate_core::ids::{PartitionKey, ServiceName};
use quorate_core::record::Desired;
use serde_json::value::RawValue;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{apply, no_service};
use crate::http::App;
use crate::http::access::Caller;
use crate::http::answer::{Failure, Indexed};
use crate::http::condition::{Given, IF_MATCH_HELP, Tagged};
use crate::http::extract::{JsonBody, Names, NoBody, Params, bad};
use crate::tally::{by_agent, tally};
use crate::views;

/// Services that one request removes: their records fit one entry of the ledger.
const REMOVED_MAX: usize = 1000;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, remove_many))
        .routes(routes!(one, put, remove))
        .routes(routes!(restart))
        .routes(routes!(stop))
        .routes(routes!(start))
}

/// All services.
#[utoipa::path(
    get, path = routes::SERVICES, tag = "services", operation_id = "list_services",
    params(
        ("problems" = Option<bool>, Query, description = "Only those with something that does not run as it should, or whose source is refused"),
        ("limit" = Option<u32>, Query, description = "Items of a page, at most 1000"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
        ("index" = Option<u64>, Query, description = "Answer only when something has changed past this"),
        ("wait" = Option<String>, Query, description = "How long to wait for that, `60s`"),
    ),
    responses((status = 200, body = Page<ServiceView>), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    mut params: Params,
) -> Result<Indexed<Page<ServiceView>>, Failure> {
    let problems = params.flag("problems")?;
    let limit = params.limit()?;
    let cursor = params.text("cursor")?;
    let blocking = params.blocking()?;
    params.end()?;
    let after = cursor.map(|cursor| service_cursor(&cursor)).transpose()?;
    app.wait(blocking, |reading| reading.tracker.changed())
        .await?;
    let index = app.handle.seen().position.0;
    let tally = tally(&app, None).await?;
    let page = app.query(move |reading| {
        let all = reading.cluster().services().map(|(_, service)| service);
        let all = all.filter(|service| caller.sees(service.name()));
        let later = all.filter(|s| after.as_ref().is_none_or(|after| s.name() > after));
        let views = later.map(|service| {
            let counts = tally.get(service.name()).copied().unwrap_or_default();
            views::service(service, counts.counts)
        });
        let mut later = views.filter(|view| !problems || is_problem(view));
        let items = later.by_ref().take(limit);
        let items: Vec<ServiceView> = items.collect();
        let more = later.next().is_some();
        let next = items.last().filter(|_| more);
        let next = next.map(|last| format!("service:{}", last.name));
        Page { index, items, next }
    });
    Ok(Indexed(index, page.await?))
}

/// Whether something of a service does not run as it should.
fn is_problem(service: &ServiceView) -> bool {
    let counts = &service.partitions;
    service.source.problem.is_some()
        || counts.failed > 0
        || counts.running + counts.stopped < counts.total
}

fn service_cursor(cursor: &str) -> Result<ServiceName, Failure> {
    let name = cursor.strip_prefix("service:").map(ServiceName::new);
    match name {
        Some(Ok(name)) => Ok(name),
        Some(Err(_)) | None => Err(bad("cursor", "it is not from this list")),
    }
}

/// One service with its specification, also while it is being removed.
#[utoipa::path(
    get, path = routes::SERVICE, tag = "services", operation_id = "get_service",
    params(("name" = String, Path)),
    responses(
        (status = 200, body = ServiceView, headers(("etag" = String, description = "Of this state; for `If-Match`"))),
        (status = "default", body = Problem),
    )
)]
async fn one(
    State(app): State<App>,
    Names(name): Names<ServiceName>,
    mut params: Params,
) -> Result<Tagged<ServiceView>, Failure> {
    let blocking = params.blocking()?;
    params.end()?;
    let watched = name.clone();
    app.wait(blocking, move |reading| {
        reading.tracker.service_changed(&watched)
    })
    .await?;
    let counted = tally(&app, Some(name.clone())).await?;
    let counts = counted.get(&name).copied().unwrap_or_default().counts;
    let agents = by_agent(&app, &name).await?;
    let found = app.query(move |reading| {
        let cluster = reading.cluster();
        let id = cluster.service_id(&name);
        let service = id.and_then(|id| cluster.service_by_id(id));
        let service = service.ok_or_else(|| no_service(reading, &name))?;
        let mut view = views::service(service, counts);
        view.spec = Some(views::spec(service.spec()));
        view.agents = agents;
        let revision = reading.director.revision(&Object::Service(name));
        Ok(Tagged(revision, Indexed(reading.index(), view)))
    });
    found.await?
}

/// Puts one service, in the shape of its table in a file.
#[utoipa::path(
    put, path = routes::SERVICE, tag = "services", operation_id = "put_service",
    params(
        ("name" = String, Path),
        ("If-Match" = Option<String>, Header, description = IF_MATCH_HELP),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if it does not exist yet"),
    ), request_body = Object,
    responses(
        (status = 200, body = ApplyAnswer),
        (status = 412, body = Problem, description = "It has changed"),
        (status = "default", body = Problem),
    )
)]
async fn put(
    State(app): State<App>,
    caller: Caller,
    Names(name): Names<ServiceName>,
    given: Given,
    JsonBody(spec): JsonBody<Box<RawValue>>,
) -> Result<Indexed<ApplyAnswer>, Failure> {
    let file = apply::file_of_service(&name, &spec)?;
    let object = Object::Service(name);
    apply::put(&app, &caller, file, |call| given.of(object, call)).await
}

/// Removes a service; its runs are stopped.
#[utoipa::path(
    delete, path = routes::SERVICE, tag = "services", operation_id = "remove_service",
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
async fn remove(
    State(app): State<App>,
    caller: Caller,
    Names(service): Names<ServiceName>,
    given: Given,
) -> Result<Indexed<Done>, Failure> {
    let object = Object::Service(service.clone());
    let services = vec![service];
    app.change(caller.asks(given.of(object, Call::Remove { services })))
        .await
}

/// Removes several services, all or nothing; their runs are stopped.
#[utoipa::path(
    delete, path = routes::SERVICES, tag = "services", operation_id = "remove_services",
    params(("name" = String, Query, description = "A service to remove; repeated for each")),
    responses((status = 200, body = Done), (status = "default", body = Problem))
)]
async fn remove_many(
    State(app): State<App>,
    caller: Caller,
    mut params: Params,
) -> Result<Indexed<Done>, Failure> {
    let names = params.many("name");
    params.end()?;
    if names.is_empty() || names.len() > REMOVED_MAX {
        let message = format!("name 1 to {REMOVED_MAX} services");
        return Err(bad("name", &message));
    }
    let named = |name: &String| ServiceName::new(name).map_err(|e| bad("name", &e.to_string()));
    let services: Vec<ServiceName> = names.iter().map(named).collect::<Result<_, _>>()?;
    caller.may_all(Verb::Define, &services)?;
    app.change(caller.asks(Call::Remove { services })).await
}

/// Stops and starts every run of a service where it is.
#[utoipa::path(
    post, path = routes::SERVICE_RESTART, tag = "services", operation_id = "restart_service",
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
async fn restart(
    State(app): State<App>,
    caller: Caller,
    Names(service): Names<ServiceName>,
    given: Given,
    _: NoBody,
) -> Result<Indexed<Done>, Failure> {
    let object = Object::Service(service.clone());
    let call = Call::Restart { service, key: None };
    app.change(caller.asks(given.of(object, call))).await
}

/// Wants a service stopped.
#[utoipa::path(
    post, path = routes::SERVICE_STOP, tag = "services", operation_id = "stop_service",
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
async fn stop(
    State(app): State<App>,
    caller: Caller,
    Names(service): Names<ServiceName>,
    given: Given,
    _: NoBody,
) -> Result<Indexed<Done>, Failure> {
    let object = Object::Service(service.clone());
    let call = desired(service, None, Desired::Stopped);
    app.change(caller.asks(given.of(object, call))).await
}

/// Wants a service to run.
#[utoipa::path(
    post, path = routes::SERVICE_START, tag = "services", operation_id = "start_service",
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
async fn start(
    State(app): State<App>,
    caller: Caller,
    Names(service): Names<ServiceName>,
    given: Given,
    _: NoBody,
) -> Result<Indexed<Done>, Failure> {
    let object = Object::Service(service.clone());
    let call = desired(service, None, Desired::Running);
    app.change(caller.asks(given.of(object, call))).await
}

pub(super) fn desired(service: ServiceName, key: Option<PartitionKey>, desired: Desired) -> Call {
    Call::SetDesired {
        service,
        key,
        desired,
    }
}
