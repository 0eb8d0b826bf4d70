//! The output of runs, pulled over the agents' own connections: this director hands out requests and
//! passes on what comes; it stores nothing. An agent waits at one director; the others ask that one.
//!
//! ```text
//!  person ──GET …/logs──► director ◄──long poll── agent (takes the request)
//!         ◄──text──────── director ◄──chunks───── agent
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::FutureExt as _;
use quorate_api::logs::{LogChunk, LogRequest, LogRequests};
use quorate_api::problem::{Code, Problem};
use quorate_api::resources::Done;
use quorate_api::routes;
use quorate_core::ids::{PartitionKey, ServiceName, SessionId};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::no_partition;
use super::sessions::{authorize, over};
use crate::clock;
use crate::engine::Reading;
use crate::http::App;
use crate::http::answer::{Failure, Indexed};
use crate::http::extract::{JsonBody, Names, Params, bad};
use crate::http::relay;

/// How long an agent may take to answer at all.
const FIRST_TIME: Duration = Duration::from_secs(10);
/// How long an agent may take between two polls: a way there and back, and a little.
const LISTEN_TIME: Duration = Duration::from_millis(500);
/// How often a stream that is followed looks whether its session is still open.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a person's connection may take no text before the agent is told to stop.
const TAKE_TIME: Duration = Duration::from_secs(20);
/// Chunks that may wait for a person's connection.
const CHUNKS_MAX: usize = 16;
/// Requests that are open at once.
const OPEN_MAX: usize = 256;
/// Lines that are sent when the request does not say.
const LINES_DEFAULT: u32 = 100;
/// The most lines that may be asked for.
const LINES_MAX: u64 = 100_000;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(logs))
        .routes(routes!(requests))
        .routes(routes!(chunk))
}

/// The requests that are open.
#[derive(Debug)]
pub(crate) struct LogHub {
    inner: Mutex<Inner>,
    /// An agent waits from now on.
    heard: Notify,
}

impl Default for LogHub {
    fn default() -> Self {
        let inner = Inner {
            last: rand::random::<u64>() >> 24,
            ..Inner::default()
        };
        Self {
            inner: Mutex::new(inner),
            heard: Notify::new(),
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// Begins anywhere, so that the number of a request at another director means nothing here.
    last: u64,
    /// Not taken by their agents yet.
    lanes: BTreeMap<SessionId, Lane>,
    open: BTreeMap<u64, Open>,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<LogRequest>,
    arrived: Arc<Notify>,
}

#[derive(Debug)]
struct Open {
    session: SessionId,
    chunks: mpsc::Sender<LogChunk>,
}

impl LogHub {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change is whole before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a request to the agent of a session. `None`: too many are open.
    fn open(
        &self,
        session: SessionId,
        mut request: LogRequest,
    ) -> Option<mpsc::Receiver<LogChunk>> {
        let (chunks, received) = mpsc::channel(CHUNKS_MAX);
        let mut inner = self.lock();
        inner.open.retain(|_, open| !open.chunks.is_closed());
        if inner.open.len() >= OPEN_MAX {
            return None;
        }
        inner.last += 1;
        request.id = inner.last;
        inner.open.insert(request.id, Open { session, chunks });
        let open: Vec<u64> = inner.open.keys().copied().collect();
        inner.lanes.retain(|_, lane| {
            lane.waiting.retain(|waiting| open.contains(&waiting.id));
            !lane.waiting.is_empty() || Arc::strong_count(&lane.arrived) > 1
        });
        let lane = inner.lanes.entry(session).or_default();
        lane.waiting.push_back(request);
        lane.arrived.notify_one();
        Some(received)
    }

    /// What waits for a session, and a way to be woken.
    fn take(&self, session: SessionId) -> (Vec<LogRequest>, Arc<Notify>) {
        let mut inner = self.lock();
        let lane = inner.lanes.entry(session).or_default();
        let taken = (lane.waiting.drain(..).collect(), Arc::clone(&lane.arrived));
        drop(inner);
        self.heard.notify_waiters();
        taken
    }

    /// Whether the agent of a session waits here, or does within this time.
    async fn listens(&self, session: SessionId, within: Duration) -> bool {
        let until = Instant::now() + within;
        loop {
            let heard = self.heard.notified();
            let lane = |inner: &Inner| {
                let lane = inner.lanes.get(&session);
                lane.is_some_and(|lane| Arc::strong_count(&lane.arrived) > 1)
            };
            if lane(&self.lock()) {
                return true;
            }
            if tokio::time::timeout_at(until, heard).await.is_err() {
                return false;
            }
        }
    }

    fn chunks(&self, session: SessionId, id: u64) -> Option<mpsc::Sender<LogChunk>> {
        let inner = self.lock();
        let open = inner.open.get(&id)?;
        (open.session == session).then(|| open.chunks.clone())
    }

    fn close(&self, id: u64) {
        self.lock().open.remove(&id);
    }
}

/// What a partition printed, as text. With `follow` it goes on until the run moves.
#[utoipa::path(
    get, path = routes::PARTITION_LOGS, tag = "partitions", operation_id = "logs",
    params(
        ("name" = String, Path), ("key" = String, Path),
        ("lines" = Option<u32>, Query, description = "So many of the last lines, 100 by default"),
        ("follow" = Option<bool>, Query, description = "Go on with what is printed from then on"),
        ("previous" = Option<bool>, Query, description = "The file before the current one"),
        ("since" = Option<String>, Query, description = "Only what was printed in the last `10m`; all lines of it unless `lines` says fewer"),
    ),
    responses(
        (status = 200, description = "Text", content_type = "text/plain"),
        (status = "default", body = Problem),
    )
)]
async fn logs(
    State(app): State<App>,
    Names((service, key)): Names<(ServiceName, PartitionKey)>,
    mut params: Params,
    parts: Parts,
) -> Result<Response, Failure> {
    let lines = params.number("lines")?;
    let since = params.value::<quorate_core::spec::Span>("since")?;
    let (follow, previous) = (params.flag("follow")?, params.flag("previous")?);
    params.end()?;
    if lines.is_some_and(|lines| lines > LINES_MAX) {
        return Err(bad(
            "lines",
            &format!("at most {LINES_MAX} lines can be asked for"),
        ));
    }
    if previous && since.is_some() {
        return Err(bad(
            "since",
            "it is looked for in all files, and previous names one of them",
        ));
    }
    let lines = match (lines, since) {
        (Some(lines), _) => u32::try_from(lines).unwrap_or(u32::MAX),
        (None, Some(_)) => u32::MAX,
        (None, None) => LINES_DEFAULT,
    };
    let request = LogRequest {
        id: 0,
        service: service.to_string(),
        key: key.to_string(),
        lines,
        follow,
        previous,
        since_ms: since.map(|since| clock::millis(since.0)),
    };
    let session = app
        .query(move |reading| holder(reading, &service, &key))
        .await??;
    let passed = parts.headers.contains_key(routes::RELAYED_HEADER);
    if !app.logs.listens(session, LISTEN_TIME).await {
        if passed {
            let detail = "the agent that has the log does not wait at this director";
            return Err(Failure::new(Code::Unavailable, detail));
        }
        if let Some(answer) = elsewhere(&app, &parts).await {
            return Ok(answer);
        }
    }
    let held = app.hold()?;
    let mut chunks = app.logs.open(session, request).ok_or_else(|| {
        Failure::new(Code::TooManyRequests, "too many logs are being read")
            .next_step("close one and try again")
    })?;
    let silent = || {
        Failure::new(Code::TimedOut, "the agent that has the log did not answer")
            .next_step("`quorate ls agents` shows whether it is alive")
    };
    let first = tokio::time::timeout(FIRST_TIME, chunks.recv()).await;
    let first = first.ok().flatten().ok_or_else(silent)?;
    if let Some(problem) = first.problem {
        return Err(Failure::new(Code::NotFound, problem));
    }
    let body = Text {
        app,
        session,
        chunks,
        first: Some(first),
        ended: false,
        _held: held,
    };
    let stream = futures::stream::unfold(body, |mut body| async {
        let text = body.next().await?;
        Some((Ok::<_, Infallible>(text), body))
    });
    let plain = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        // Whatever a run prints is text, never a page.
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((plain, Body::from_stream(stream)).into_response())
}

/// The answer of the director at which the agent waits. `None`: at none of them.
async fn elsewhere(app: &App, parts: &Parts) -> Option<Response> {
    let own = app.name.clone();
    let others = app.query(move |reading| {
        let others = reading.cluster().directors().values();
        let others = others.filter(|director| director.name != own);
        others.map(|d| d.address.clone()).collect::<Vec<_>>()
    });
    let asked = others.await.ok()?;
    let asked = asked.iter().map(|address| {
        async move { relay::ask_another(app, address, parts).await.ok_or(()) }.boxed()
    });
    let asked: Vec<_> = asked.collect();
    if asked.is_empty() {
        return None;
    }
    let (answer, _) = futures::future::select_ok(asked).await.ok()?;
    Some(answer)
}

/// The session whose agent has the log: that which holds the partition, or one of the agent that had it.
fn holder(
    reading: &Reading<'_>,
    service: &ServiceName,
    key: &PartitionKey,
) -> Result<SessionId, Failure> {
    let cluster = reading.cluster();
    let id = cluster.partition_id(service, key);
    let partition = id.and_then(|id| cluster.partition(id));
    let partition = partition.ok_or_else(|| no_partition(reading, service, key))?;
    if let Some(holder) = partition.holder() {
        return Ok(holder.session);
    }
    let agent = partition.freed().and_then(|freed| freed.from());
    let agent = agent.and_then(|name| cluster.agents().get(name));
    let session = agent.and_then(|agent| agent.sessions().first());
    session.copied().ok_or_else(|| {
        Failure::new(
            Code::NotFound,
            format!("no agent has a log of {service}/{key} now"),
        )
        .next_step(format!(
            "`quorate why {service}/{key}` says why it does not run"
        ))
    })
}

/// The text on its way to a person.
struct Text {
    app: App,
    session: SessionId,
    chunks: mpsc::Receiver<LogChunk>,
    first: Option<LogChunk>,
    ended: bool,
    _held: OwnedSemaphorePermit,
}

impl Text {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.ended {
                return None;
            }
            let chunk = match self.first.take() {
                Some(first) => first,
                None => self.wait().await?,
            };
            self.ended = chunk.end;
            if !chunk.text.is_empty() {
                return Some(Bytes::from(chunk.text));
            }
        }
    }

    /// The next chunk; nothing when the session has ended or the director stops.
    async fn wait(&mut self) -> Option<LogChunk> {
        loop {
            tokio::select! {
                chunk = self.chunks.recv() => return chunk,
                () = self.app.shutdown.cancelled() => return None,
                () = tokio::time::sleep(LOOK_EVERY) => {
                    let session = self.session;
                    let open = self.app.query(move |r| r.cluster().session(session).is_some());
                    if !open.await.unwrap_or(false) {
                        return None;
                    }
                }
            }
        }
    }
}

/// What people want to see of the output of the session's runs; waits for it.
#[utoipa::path(
    get, path = routes::SESSION_LOG_REQUESTS, tag = "sessions", operation_id = "log_requests",
    params(("id" = u64, Path), ("wait" = Option<String>, Query, description = "How long to wait, `30s`")),
    responses((status = 200, body = LogRequests), (status = "default", body = Problem))
)]
async fn requests(
    State(app): State<App>,
    Names(id): Names<u64>,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Indexed<LogRequests>, Failure> {
    let wait = params.value::<quorate_core::spec::Span>("wait")?;
    params.end()?;
    let session = authorize(&app, id, &headers).await?;
    let wait = wait.map_or(Duration::from_secs(30), |wait| wait.0);
    let longest = Duration::from_secs(routes::WAIT_SECONDS_MAX);
    let until = Instant::now() + wait.min(longest);
    let requests = loop {
        let open = app.query(move |reading| reading.cluster().session(session).is_some());
        if !open.await? {
            return Err(over(id));
        }
        let (requests, arrived) = app.logs.take(session);
        if !requests.is_empty() {
            break requests;
        }
        tokio::select! {
            () = arrived.notified() => {}
            () = tokio::time::sleep_until(until) => break Vec::new(),
            () = app.shutdown.cancelled() => break Vec::new(),
        }
    };
    Ok(Indexed(
        app.handle.seen().position.0,
        LogRequests { requests },
    ))
}

/// A part of the answer to a log request.
#[utoipa::path(
    post, path = routes::SESSION_LOG_CHUNKS, tag = "sessions", operation_id = "log_chunk",
    params(("id" = u64, Path)), request_body = LogChunk,
    responses((status = 200, body = Done), (status = "default", body = Problem))
)]
async fn chunk(
    State(app): State<App>,
    Names(id): Names<u64>,
    headers: HeaderMap,
    JsonBody(chunk): JsonBody<LogChunk>,
) -> Result<Indexed<Done>, Failure> {
    let session = authorize(&app, id, &headers).await?;
    let gone = || Failure::new(Code::Gone, "nobody waits for this log any more");
    let request = chunk.id;
    let last = chunk.end;
    let chunks = app.logs.chunks(session, request).ok_or_else(gone)?;
    let taken = tokio::time::timeout(TAKE_TIME, chunks.send(chunk)).await;
    if last || !matches!(taken, Ok(Ok(()))) {
        app.logs.close(request);
    }
    match taken {
        Ok(Ok(())) => {
            let index = app.handle.seen().position.0;
            let done = Done {
                index,
                notes: Vec::new(),
                changed: true,
            };
            Ok(Indexed(index, done))
        }
        Ok(Err(_)) | Err(_) => Err(gone()),
    }
}
