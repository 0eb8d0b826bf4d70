//! How far everything that is wanted has come up.

use axum::extract::State;
use quorate_api::problem::Problem;
use quorate_api::resources::Progress;
use quorate_api::routes;
use quorate_core::access::Verb;
use quorate_core::ids::{Position, ServiceName};
use quorate_core::planner::Settling;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::no_service;
use crate::clock;
use crate::engine::Reading;
use crate::http::App;
use crate::http::access::Caller;
use crate::http::answer::{Failure, Indexed, not_leader};
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
        ("leader" = Option<bool>, Query, description = "Only from the leader, who alone knows whether everything has settled"),
        ("index" = Option<u64>, Query, description = "Answer only when something has changed past this"),
        ("wait" = Option<String>, Query, description = "How long to wait for that, `60s`"),
    ),
    responses((status = 200, body = Progress), (status = "default", body = Problem))
)]
async fn progress(
    State(app): State<App>,
    caller: Caller,
    mut params: Params,
) -> Result<Indexed<Progress>, Failure> {
    let service: Option<ServiceName> = params.value("service")?;
    caller.may_all(Verb::Read, &service)?;
    let leader = params.flag("leader")?;
    let blocking = params.blocking()?;
    params.end()?;
    app.wait(blocking, |reading| reading.tracker.changed())
        .await?;
    let (of, by) = (service.clone(), caller.clone());
    let looked = app.query(move |reading| look(reading, &by, of.as_ref(), leader));
    let Looked {
        index,
        changed,
        settling,
        refused,
    } = looked.await??;
    let tally = tally(&app, service.clone()).await?;
    let seen = tally.iter().filter(|(name, _)| caller.sees(name));
    let mut progress = sum(index, seen.map(|(_, tallied)| tallied));
    progress.unplaceable = settling.unplaceable as u64;
    progress.refused = refused;
    // When what fails or has no place will run, nobody can promise.
    let never = progress.failing + progress.unplaceable;
    let left = (progress.starting + progress.waiting).saturating_sub(never);
    let after = app.query(move |reading| {
        let eta = (left > 0).then(|| reading.tracker.time_for(left, reading.now.moment));
        (changed_of(reading, service.as_ref()), eta.flatten())
    });
    let (changed_since, eta) = after.await?;
    progress.eta_ms = eta.map(clock::millis);
    // What changed while it was counted may stand in the counts only half. And an agent that stops runs by
    // itself, before a lease that it could not renew ends, tells it as how they are, which is no change that
    // the planner looks at.
    progress.settled = settling.settled && changed_since == changed && progress.starting == 0;
    Ok(Indexed(index, progress))
}

/// What is known at one position.
struct Looked {
    index: u64,
    changed: Position,
    settling: Settling,
    /// Services whose list was refused.
    refused: u64,
}

fn look(
    reading: &Reading<'_>,
    caller: &Caller,
    service: Option<&ServiceName>,
    leader: bool,
) -> Result<Looked, Failure> {
    let cluster = reading.cluster();
    if let Some(name) = service
        && cluster.service_id(name).is_none()
    {
        return Err(no_service(reading, name));
    }
    let planner = reading.director.planner();
    if leader && planner.is_none() {
        return Err(not_leader(reading.director.leader_address()));
    }
    let settling = planner.map(|planner| {
        let of = |service| planner.settling(reading.now.moment, cluster, service);
        if service.is_some() || caller.sees_all() {
            return of(service);
        }
        let names = cluster.services().map(|(_, service)| service.name());
        let each = names.filter(|name| caller.sees(name));
        each.map(|name| of(Some(name)))
            .fold(None, |all: Option<Settling>, one| {
                Some(match all {
                    None => one,
                    Some(all) => Settling {
                        settled: all.settled && one.settled,
                        unplaceable: all.unplaceable + one.unplaceable,
                    },
                })
            })
            .unwrap_or_else(|| of(None))
    });
    let services = cluster.services().map(|(_, one)| one);
    let seen = services.filter(|one| service.is_none_or(|name| one.name() == name));
    let refused = seen.filter(|one| caller.sees(one.name()) && one.problem().is_some());
    Ok(Looked {
        refused: refused.count() as u64,
        index: reading.index(),
        changed: changed_of(reading, service),
        settling: settling.unwrap_or_default(),
    })
}

/// Where something of it changed last.
fn changed_of(reading: &Reading<'_>, service: Option<&ServiceName>) -> Position {
    match service {
        Some(service) => reading.tracker.service_changed(service),
        None => reading.tracker.changed(),
    }
}

fn sum<'a>(index: u64, tallies: impl Iterator<Item = &'a Tallied>) -> Progress {
    let mut progress = Progress {
        index,
        ..Progress::default()
    };
    for Tallied {
        counts,
        fencing,
        unknown,
        failing,
    } in tallies
    {
        let others = counts.running + fencing + unknown;
        progress.running += counts.running;
        progress.starting += counts.assigned + (counts.assumed - others);
        progress.fencing += fencing;
        progress.unknown += unknown;
        progress.failing += failing;
        progress.waiting += counts.unassigned;
        progress.stopping += counts.stopping;
        progress.failed += counts.failed;
        progress.stopped += counts.stopped;
    }
    let held = progress.running + progress.starting + progress.fencing + progress.unknown;
    progress.total = held + progress.waiting;
    progress
}
