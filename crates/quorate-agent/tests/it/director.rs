//! A stand-in for the directors: one table, no log, no rules but those of a session.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is its failure")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use quorate_api::checkpoint::CheckpointView;
use quorate_api::session::{
    CheckpointsRequest, CheckpointsResponse, LostSession, RegisterRequest, RenewRequest,
    RenewResponse, ReportRequest, ReportResponse, ResumeRequest, SessionOpened, WorkItem,
    WorkResponse, WorkService, WorkState,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// What the director knows.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) index: u64,
    pub(crate) items: BTreeMap<u64, WorkItem>,
    pub(crate) spec: Value,
    pub(crate) spec_version: u64,
    pub(crate) registered: Vec<RegisterRequest>,
    pub(crate) resumed: Vec<u64>,
    pub(crate) reports: Vec<ReportRequest>,
    pub(crate) closed: Vec<(u64, String)>,
    pub(crate) checkpoints: Vec<CheckpointsRequest>,
    /// Checkpoints have no answer while this is set.
    pub(crate) forgetful: bool,
    /// How many calls had no answer for that reason.
    pub(crate) forgotten: usize,
    /// Renewals have no answer while this is set.
    pub(crate) silent: bool,
    /// Reports that give something back are lost on their way while this is set; they are kept here.
    pub(crate) mute: bool,
}

/// The director; dropping it ends its server.
pub(crate) struct Director {
    pub(crate) address: String,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

struct Shared {
    table: Mutex<Table>,
    changed: Notify,
}

impl Drop for Director {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(crate) const LEASE: Duration = Duration::from_secs(10);

impl Director {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared {
            table: Mutex::new(Table {
                index: 1,
                ..Table::default()
            }),
            changed: Notify::new(),
        });
        let routes = Router::new()
            .route("/v1/sessions", post(register))
            .route("/v1/sessions/{id}/resume", post(resume))
            .route("/v1/sessions/{id}/renew", post(renew))
            .route("/v1/sessions/{id}/work", get(work))
            .route("/v1/sessions/{id}/report", post(report))
            .route("/v1/sessions/{id}/close", post(close))
            .route("/v1/sessions/{id}/checkpoints", post(checkpoints))
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            axum::serve(listener, routes).await.unwrap();
        });
        Self {
            address,
            shared,
            server,
        }
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let answer = {
            let mut table = self.shared.table.lock().unwrap();
            table.index += 1;
            change(&mut table)
        };
        self.shared.changed.notify_waiters();
        answer
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&Table) -> T) -> T {
        look(&self.shared.table.lock().unwrap())
    }

    /// Assigns a partition named like its token.
    pub(crate) fn assign(&self, token: u64, spec: Value) {
        self.change(|table| {
            table.spec = spec;
            table.spec_version += 1;
            let spec_version = table.spec_version;
            let item = WorkItem {
                partition: u32::try_from(token).unwrap(),
                token,
                state: WorkState::Assigned,
                service: "feeds".to_owned(),
                key: format!("key {token}"),
                data: serde_json::from_str(r#"{"url":"tcp://x"}"#).unwrap(),
                data_version: 1,
                spec_version,
                restarts_asked: 0,
                failures: 0,
                checkpoint: None,
            };
            table.items.insert(token, item);
        });
    }

    pub(crate) fn set(&self, token: u64, set: impl FnOnce(&mut WorkItem)) {
        self.change(|table| set(table.items.get_mut(&token).unwrap()));
    }
}

type Answer<T> = Result<Json<T>, (StatusCode, Json<Value>)>;

fn opened() -> SessionOpened {
    let times = quorate_core::lease::LeaseTimes::of(LEASE);
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap();
    SessionOpened {
        session: 7,
        incarnation: 1,
        cluster: 0xc1,
        lease_ms: millis(times.lease),
        renew_every_ms: 100,
        grace_ms: millis(times.grace),
        kill_ms: millis(times.kill),
    }
}

async fn register(
    State(shared): State<Arc<Shared>>,
    Json(request): Json<RegisterRequest>,
) -> Answer<SessionOpened> {
    shared.table.lock().unwrap().registered.push(request);
    Ok(Json(opened()))
}

async fn resume(
    State(shared): State<Arc<Shared>>,
    Json(request): Json<ResumeRequest>,
) -> Answer<SessionOpened> {
    shared.table.lock().unwrap().resumed.push(request.process);
    Ok(Json(opened()))
}

fn unavailable() -> (StatusCode, Json<Value>) {
    let problem =
        json!({"type": "x", "title": "x", "status": 503, "code": "not_leader", "detail": "x"});
    (StatusCode::SERVICE_UNAVAILABLE, Json(problem))
}

async fn renew(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<u64>,
    Json(request): Json<RenewRequest>,
) -> Answer<RenewResponse> {
    if shared.table.lock().unwrap().silent {
        return Err(unavailable());
    }
    Ok(Json(RenewResponse {
        counter: request.counter,
        renewed: vec![id],
        lost: Vec::<LostSession>::new(),
    }))
}

#[derive(Deserialize)]
struct Since {
    index: u64,
}

async fn work(
    State(shared): State<Arc<Shared>>,
    Query(since): Query<Since>,
) -> Answer<WorkResponse> {
    let changed = shared.changed.notified();
    if shared.table.lock().unwrap().index <= since.index {
        let _late = tokio::time::timeout(Duration::from_secs(1), changed).await;
    }
    let table = shared.table.lock().unwrap();
    Ok(Json(WorkResponse {
        index: table.index,
        whole: true,
        items: table.items.values().cloned().collect(),
        gone: Vec::new(),
        services: (1..=table.spec_version)
            .map(|spec_version| WorkService {
                service: "feeds".to_owned(),
                spec_version,
                spec: table.spec.clone(),
            })
            .collect(),
        leases_ms: Vec::new(),
        directors: Vec::new(),
    }))
}

async fn report(
    State(shared): State<Arc<Shared>>,
    Json(request): Json<ReportRequest>,
) -> Answer<ReportResponse> {
    let mut table = shared.table.lock().unwrap();
    if table.mute && !request.release.is_empty() {
        table.reports.push(request);
        return Err(unavailable());
    }
    table.index += 1;
    let mut assumed = Vec::new();
    for claim in &request.assume {
        if let Some(item) = table.items.get_mut(&claim.token) {
            item.state = WorkState::Assumed;
            assumed.push(claim.token);
        }
    }
    for release in &request.release {
        table.items.remove(&release.token);
    }
    let sequence = request.sequence;
    table.reports.push(request);
    drop(table);
    shared.changed.notify_waiters();
    Ok(Json(ReportResponse {
        sequence,
        assumed,
        refused: Vec::new(),
    }))
}

async fn close(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<u64>,
    Json(request): Json<quorate_api::session::CloseRequest>,
) -> Answer<Value> {
    let mut table = shared.table.lock().unwrap();
    table.closed.push((id, request.reason));
    Ok(Json(json!({})))
}

async fn checkpoints(
    State(shared): State<Arc<Shared>>,
    Json(request): Json<CheckpointsRequest>,
) -> Answer<CheckpointsResponse> {
    let mut table = shared.table.lock().unwrap();
    if table.forgetful {
        table.forgotten += 1;
        return Err(unavailable());
    }
    let mut answer = CheckpointsResponse {
        kept: Vec::new(),
        refused: Vec::new(),
    };
    for written in &request.checkpoints {
        let Some(item) = table.items.get_mut(&written.token) else {
            answer.refused.push(quorate_api::session::Refusal {
                token: written.token,
                reason: "it has ended".to_owned(),
            });
            continue;
        };
        item.checkpoint = Some(CheckpointView {
            token: written.token,
            number: written.number,
            at: "2026-01-01T00:00:00Z".to_owned(),
            content: written.content.clone(),
        });
        answer.kept.push(written.token);
    }
    table.checkpoints.push(request);
    Ok(Json(answer))
}
