//! How far everything that is wanted has come up.

use axum::extract::State;
use quorate_api::problem::Problem;
use quorate_api::resources::Progress;
use quorate_api::routes;
use quorate_core::ids::ServiceName;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::no_service;
use crate::http::App;
use crate::http::answer::{Failure, Indexed};
use crate::http::extract::Params;
use crate::tally::{Tallied, tally};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(progress))
}

/// How far everything has come up: of one service, or of all.
#[utoipa::path(
    get, path = routes::PROGRESS, tag = "partitions", operation_id = "progress",
    params(
        ("service" = Option<String>, Query, description = "Of this service only"),
        ("index" = Option<u64>, Query, description = "Answer only when something has changed past this"),
        ("wait" = Option<String>, Query, description = "How long to wait for that, `60s`"),
    ),
    responses((status = 200, body = Progress), (status = "default", body = Problem))
)]
async fn progress(
    State(app): State<App>,
    mut params: Params,
) -> Result<Indexed<Progress>, Failure> {
    let service: Option<ServiceName> = params.value("service")?;
    let blocking = params.blocking()?;
    params.end()?;
    app.wait(blocking, |reading| reading.tracker.changed())
        .await?;
    if let Some(name) = service.clone() {
        let known = app.query(move |reading| {
            let known = reading.cluster().service(&name);
            known.map(|_| ()).ok_or_else(|| no_service(reading, &name))
        });
        known.await??;
    }
    let index = app.handle.seen().position.0;
    let tally = tally(&app, service).await?;
    let mut progress = sum(index, tally.values());
    // When what fails will run, nobody can promise.
    let left = (progress.starting + progress.waiting).saturating_sub(progress.failing);
    if left > 0 {
        let eta = app.query(move |reading| reading.tracker.time_for(left, reading.now.moment));
        progress.eta_ms = eta
            .await?
            .map(|eta| u64::try_from(eta.as_millis()).unwrap_or(u64::MAX));
    }
    Ok(Indexed(index, progress))
}

fn sum<'a>(index: u64, tallies: impl Iterator<Item = &'a Tallied>) -> Progress {
    let mut progress = Progress {
        index,
        ..Progress::default()
    };
    for Tallied {
        counts,
        ready,
        failing,
    } in tallies
    {
        progress.running += ready;
        progress.starting += counts.assigned + (counts.assumed - ready);
        progress.failing += failing;
        progress.waiting += counts.unassigned;
        progress.stopping += counts.stopping;
        progress.failed += counts.failed;
        progress.stopped += counts.stopped;
    }
    progress.total = progress.running + progress.starting + progress.waiting;
    progress.settled = progress.starting + progress.waiting + progress.stopping == 0;
    progress
}
