//! Who has changed what. It is in the ledger beside each change; what is shown is what this director has kept
//! of it in its history.

use axum::extract::State;
use quorate_api::access::{AuditEntry, AuditView};
use quorate_api::problem::Problem;
use quorate_api::routes;
use quorate_core::history::Change;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::partitions::unreadable;
use crate::clock;
use crate::history::Recorded;
use crate::http::App;
use crate::http::answer::{Failure, Indexed};
use crate::http::extract::Params;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(audit))
}

/// Who has changed what: the newest thousand changes that this director has kept.
#[utoipa::path(
    get, path = routes::AUDIT, tag = "access", operation_id = "audit",
    responses((status = 200, body = AuditView), (status = "default", body = Problem))
)]
async fn audit(State(app): State<App>, params: Params) -> Result<Indexed<AuditView>, Failure> {
    params.end()?;
    let index = app.handle.seen().position.0;
    let history = app.handle.history().clone();
    // Files are read beside the runtime's own threads.
    let searched = match tokio::task::spawn_blocking(move || history.audit()).await {
        Ok(Ok(searched)) => searched,
        Ok(Err(error)) => return Err(unreadable(&error)),
        Err(error) => return Err(unreadable(&error)),
    };
    let view = AuditView {
        index,
        known_since: searched.known_since.0,
        entries: searched.entries.into_iter().filter_map(entry).collect(),
    };
    Ok(Indexed(index, view))
}

fn entry(recorded: Recorded) -> Option<AuditEntry> {
    let Change::Audited(audit) = recorded.change else {
        return None;
    };
    Some(AuditEntry {
        index: recorded.id.position.0,
        at: clock::text(recorded.wall),
        by: audit.by.who.to_string(),
        from: audit.by.from,
        action: audit.did,
        objects: audit.to,
        more: audit.more as u64,
    })
}
