//! The routes, a file for each resource. A handler takes a request apart, sends a message to the loop,
//! and puts the answer together; it holds no state.

mod agents;
mod apply;
mod audit;
mod certificates;
mod checkpoints;
mod cluster;
mod directors;
mod document;
mod enrol;
mod events;
mod lists;
mod logs;
mod meta;
mod partitions;
mod plan;
mod progress;
mod services;
mod sessions;
mod tokens;
mod upgrade;

use axum::http::{Method, Uri};
use axum::{Router, middleware};
use quorate_api::problem::Code;
use quorate_core::ids::{AgentName, PartitionKey, ServiceName};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::engine::Reading;
use crate::http::answer::Failure;
use crate::http::{App, access, guard, idempotency, relay};

pub(crate) use document::document;
pub(crate) use logs::LogHub;

/// What the document says of the whole.
#[derive(OpenApi)]
#[openapi(info(
    title = "quorate",
    description = "Runs each long-lived job on exactly one machine of a cluster, whatever fails.",
    license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
))]
struct Document;

/// Every route that the document describes.
fn described() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(services::router())
        .merge(partitions::router())
        .merge(checkpoints::router())
        .merge(apply::router())
        .merge(plan::router())
        .merge(agents::router())
        .merge(directors::router())
        .merge(cluster::router())
        .merge(events::router())
        .merge(progress::router())
        .merge(sessions::router())
        .merge(logs::router())
        .merge(tokens::router())
        .merge(enrol::router())
        .merge(certificates::router())
        .merge(audit::router())
        .merge(meta::router())
}

/// Everything that is served.
pub(crate) fn router(app: App) -> Router {
    let (router, _) = described().split_for_parts();
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(
            app.clone(),
            idempotency::remember,
        ))
        // The answers to repeats are where they were first given.
        .layer(middleware::from_fn_with_state(app.clone(), relay::relay))
        .layer(middleware::from_fn_with_state(app.clone(), access::access))
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}

async fn unknown_path(uri: Uri) -> Failure {
    let path = uri.path();
    let mut failure = Failure::new(Code::UnknownPath, format!("there is no path {path:?}"));
    if !path.starts_with("/v1/") {
        failure = failure.next_step("the paths of this version begin with /v1/");
    } else {
        failure = failure.next_step("/openapi.json lists all paths");
    }
    failure
}

async fn wrong_method(method: Method, uri: Uri) -> Failure {
    let detail = format!("{method} is not possible at {:?}", uri.path());
    Failure::new(Code::MethodNotAllowed, detail)
        .next_step("/openapi.json lists what each path can do")
}

/// A service of a path that must exist.
fn no_service(reading: &Reading<'_>, name: &ServiceName) -> Failure {
    let services = reading.cluster().services();
    let names: Vec<&str> = services.map(|(_, s)| s.name().as_str()).collect();
    Failure::not_found("service", name.as_str(), names)
}

/// A partition of a path that must exist.
fn no_partition(reading: &Reading<'_>, service: &ServiceName, key: &PartitionKey) -> Failure {
    /// Looking for similar names must not hold the loop.
    const LOOK_MAX: usize = 2000;
    let Some(known) = reading.cluster().service(service) else {
        return no_service(reading, service);
    };
    let keys = known.partitions().keys().take(LOOK_MAX);
    let mut failure = Failure::not_found("partition", key.as_str(), keys.map(PartitionKey::as_str));
    failure.0.detail = format!("service {service} has no partition {:?}", key.as_str());
    failure
}

/// An agent of a path that must exist.
fn no_agent(reading: &Reading<'_>, name: &AgentName) -> Failure {
    let names = reading.cluster().agents().keys().map(AgentName::as_str);
    Failure::not_found("agent", name.as_str(), names)
}
