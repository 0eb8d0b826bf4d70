//! About this director itself: its document, whether it lives and is ready, its gauges.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use quorate_api::problem::{Code, Problem};
use quorate_api::routes;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::engine::LedgerTimes;
use crate::http::App;
use crate::http::answer::Failure;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(openapi))
        .routes(routes!(livez))
        .routes(routes!(readyz))
        .routes(routes!(metrics))
}

/// This document.
#[utoipa::path(
    get, path = routes::OPENAPI, tag = "meta", operation_id = "openapi",
    responses((status = 200, description = "OpenAPI", content_type = "application/json"))
)]
async fn openapi(State(app): State<App>) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, app.openapi.to_string()).into_response()
}

/// The process lives.
#[utoipa::path(
    get, path = routes::LIVEZ, tag = "meta", operation_id = "livez",
    responses((status = 200, description = "It does", content_type = "text/plain"))
)]
async fn livez() -> &'static str {
    "ok\n"
}

/// This director has folded the ledger and knows who leads.
#[utoipa::path(
    get, path = routes::READYZ, tag = "meta", operation_id = "readyz",
    responses(
        (status = 200, description = "It does", content_type = "text/plain"),
        (status = 503, body = Problem, description = "It does not yet, or no more"),
    )
)]
async fn readyz(State(app): State<App>) -> Result<&'static str, Failure> {
    let led = app.query(app_is_led);
    if app.shutdown.is_cancelled() {
        return Err(Failure::stopping());
    }
    if led.await? {
        Ok("ok\n")
    } else {
        Err(Failure::new(Code::Unavailable, "no director leads yet")
            .next_step("try again in a moment"))
    }
}

fn app_is_led(reading: &crate::engine::Reading<'_>) -> bool {
    *reading.director.role() == quorate_core::director::Role::Leader
        || reading.director.leader_address().is_some()
}

/// Gauges as text.
#[utoipa::path(
    get, path = routes::METRICS, tag = "meta", operation_id = "metrics",
    responses((status = 200, description = "Prometheus text", content_type = "text/plain"))
)]
async fn metrics(State(app): State<App>) -> Result<Response, Failure> {
    let seen = app.handle.seen();
    let (sessions, agents, partitions, services) = app
        .query(|reading| {
            let cluster = reading.cluster();
            (
                cluster.sessions().len(),
                cluster.agents().len(),
                cluster.partition_count(),
                cluster.services().count(),
            )
        })
        .await?;
    let streams = app.limits.event_streams - app.streams.available_permits();
    let held = app.held_max - app.held.available_permits();
    let (general, session) = app.places.taken();
    let gauges: [(&str, &str, u64); 11] = [
        (
            "quorate_ledger_position",
            "Last ledger position folded.",
            seen.position.0,
        ),
        ("quorate_epoch", "Term of the leader.", seen.epoch.0),
        (
            "quorate_leading",
            "1 while this director leads.",
            u64::from(seen.leading),
        ),
        ("quorate_sessions", "Open sessions.", sessions as u64),
        (
            "quorate_agents",
            "Agents known, gone ones included.",
            agents as u64,
        ),
        (
            "quorate_partitions",
            "Partitions of all services.",
            partitions as u64,
        ),
        ("quorate_services", "Services.", services as u64),
        (
            "quorate_event_streams",
            "Open streams of events.",
            streams as u64,
        ),
        (
            "quorate_held_requests",
            "Requests of people that wait for something to happen.",
            held as u64,
        ),
        (
            "quorate_connections",
            "Open connections that may ask anything.",
            general as u64,
        ),
        (
            "quorate_session_connections",
            "Further open connections, which serve sessions only.",
            session as u64,
        ),
    ];
    let mut text = String::new();
    for (name, help, value) in gauges {
        text.push_str(&format!(
            "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"
        ));
    }
    text.push_str(&of_ledger(app.handle.ledger_times()));
    let plain = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((plain, text).into_response())
}

/// How long the calls of the ledger take that everything waits for, and how many failed.
fn of_ledger(times: &LedgerTimes) -> String {
    let calls = [("append", &times.append), ("tail", &times.tail)];
    let mut text = String::from(
        "# HELP quorate_ledger_seconds Calls of the ledger that were answered.\n# TYPE quorate_ledger_seconds summary\n",
    );
    for (call, calls) in calls {
        let (answered, took, _) = calls.told();
        let took = took.as_secs_f64();
        text.push_str(&format!(
            "quorate_ledger_seconds_sum{{call=\"{call}\"}} {took}\nquorate_ledger_seconds_count{{call=\"{call}\"}} {answered}\n"
        ));
    }
    text.push_str(
        "# HELP quorate_ledger_failures_total Calls of the ledger that were not done, or of which that is not known.\n\
         # TYPE quorate_ledger_failures_total counter\n",
    );
    for (call, calls) in calls {
        let (_, _, failed) = calls.told();
        text.push_str(&format!(
            "quorate_ledger_failures_total{{call=\"{call}\"}} {failed}\n"
        ));
    }
    text
}
