//! One connection of a run: one request of HTTP/1.1, one answer of JSON, within limits of size and time.

use std::convert::Infallible;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use quorate_api::problem::{self, Code, Problem};
use quorate_core::agent::{Fate, Item, Latest};
use quorate_core::checkpoint::Content;
use quorate_core::time::Moment;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Ask, Place, Question, Reply};
use crate::shell::clock;

/// A program on this machine sends its request in milliseconds.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// How long a checkpoint may wait for the directors. What became of it is not known then.
const KEPT_WITHIN: Duration = Duration::from_secs(30);
/// The whole of a connection.
const DONE_WITHIN: Duration = Duration::from_secs(45);
/// Bytes of the head of a request; the least that the library takes.
const HEAD_BYTES: usize = 8 << 10;
/// Headers that tell under which token a checkpoint was written, and which one it is.
const TOKEN: &str = "quorate-token";
const NUMBER: &str = "quorate-number";

type Answer = Response<Full<Bytes>>;

/// Serves one request.
pub(super) async fn serve(stream: UnixStream, asker: u32, place: &Place) {
    let service = service_fn(|request| async move {
        let answer = answer(request, asker, place).await;
        Ok::<_, Infallible>(answer.unwrap_or_else(|problem| refusal(&problem)))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_WITHIN)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // How a connection ends is its program's affair.
    let _ended = timeout(DONE_WITHIN, connection).await;
}

async fn answer(
    request: Request<Incoming>,
    asker: u32,
    place: &Place,
) -> Result<Answer, Box<Problem>> {
    let made = owner(place).await.ok_or_else(ended)?;
    if asker != made.uid() {
        let detail = format!("user {asker} is not the user of this run");
        return Err(problem(Code::Forbidden, &detail, "ask as the run itself"));
    }
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/self") => this(&look(place).await?, made.modified().ok(), place),
        (&Method::GET, "/self/lease") => lease(&look(place).await?),
        (&Method::GET, "/self/checkpoint") => checkpoint(look(place).await?.checkpoint),
        (&Method::POST, "/self/ready") => {
            ask(place, Question::Ready).await?;
            json(&serde_json::json!({ "ready": true }))
        }
        (&Method::PUT, "/self/checkpoint") => {
            let content = body(request).await?;
            kept(ask(place, Question::Keep(content)).await?)
        }
        (_, "/self" | "/self/lease") => Err(wrong_method(&request, "GET")),
        (_, "/self/ready") => Err(wrong_method(&request, "POST")),
        (_, "/self/checkpoint") => Err(wrong_method(&request, "GET or PUT")),
        (_, _) => Err(problem(
            Code::UnknownPath,
            &format!("there is no path {path:?}"),
            "/self, /self/lease, /self/ready and /self/checkpoint are here",
        )),
    }
}

/// Whose the socket of a run is, and since when it is there: the warden makes it just before the command is
/// started. Looked up beside the runtime's own threads, because a disk may take its time.
async fn owner(place: &Place) -> Option<Metadata> {
    let socket = place.shared.socket(place.endpoint.run);
    let looked = timeout(REQUEST_WITHIN, tokio::fs::symlink_metadata(socket)).await;
    looked.ok()?.ok()
}

/// What a run may know of itself.
struct Seen {
    item: Option<std::sync::Arc<Item>>,
    checkpoint: Option<Latest>,
    deadline: Option<Moment>,
}

async fn look(place: &Place) -> Result<Seen, Box<Problem>> {
    match ask(place, Question::Look).await? {
        Reply::Seen {
            item,
            checkpoint,
            deadline,
        } => Ok(Seen {
            item,
            checkpoint,
            deadline,
        }),
        Reply::Noted | Reply::Kept(_) => Err(ended()),
    }
}

async fn ask(place: &Place, question: Question) -> Result<Reply, Box<Problem>> {
    let (answer, answered) = oneshot::channel();
    let ask = Ask {
        warden: place.endpoint.warden,
        run: place.endpoint.run,
        question,
        answer,
    };
    let asked = async {
        place.shared.asks.send(ask).await.ok()?;
        answered.await.ok()
    };
    match timeout(KEPT_WITHIN, asked).await {
        Ok(Some(reply)) => Ok(reply),
        Ok(None) => Err(ended()),
        Err(_) => Err(unknown("the directors did not answer in time")),
    }
}

#[derive(Serialize)]
struct This<'a> {
    service: &'a str,
    key: &'a str,
    token: u64,
    attempt: u32,
    agent: &'a str,
    data: Option<&'a RawValue>,
    since: Option<String>,
}

fn this(seen: &Seen, since: Option<SystemTime>, place: &Place) -> Result<Answer, Box<Problem>> {
    let item = seen.item.as_ref().ok_or_else(not_yet)?;
    let run = place.endpoint.run;
    let data = item.data.as_deref().map(serde_json::from_str);
    json(&This {
        service: item.service.as_str(),
        key: item.key.as_str(),
        token: run.token.0,
        attempt: run.attempt,
        agent: &place.shared.agent,
        data: data.transpose().ok().flatten(),
        since: since.and_then(wall),
    })
}

/// RFC 3339 in UTC, to the millisecond.
fn wall(time: SystemTime) -> Option<String> {
    let time = Timestamp::try_from(time).ok()?;
    Some(format!("{time:.3}"))
}

fn lease(seen: &Seen) -> Result<Answer, Box<Problem>> {
    let deadline = seen.deadline.ok_or_else(not_yet)?;
    json(&serde_json::json!({
        "deadline_boottime_ms": deadline.as_nanos() / 1_000_000,
        "remaining_ms": u64::try_from(deadline.since(clock::now()).as_millis()).unwrap_or(u64::MAX),
    }))
}

fn checkpoint(latest: Option<Latest>) -> Result<Answer, Box<Problem>> {
    let latest = latest.ok_or_else(|| {
        problem(
            Code::NotFound,
            "no owner of this partition has written a checkpoint yet",
            "begin at the beginning, and write one with PUT /self/checkpoint",
        )
    })?;
    let bytes = Bytes::copy_from_slice(latest.content.as_bytes());
    let mut answer = Response::new(Full::new(bytes));
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(TOKEN, HeaderValue::from(latest.token.0));
    headers.insert(NUMBER, HeaderValue::from(latest.number));
    Ok(answer)
}

fn kept(reply: Reply) -> Result<Answer, Box<Problem>> {
    match reply {
        Reply::Kept(Fate::Kept { token, number }) => {
            json(&serde_json::json!({ "token": token.0, "number": number }))
        }
        Reply::Kept(Fate::Ended { token }) => {
            let detail = format!("token {} has ended: this run may not write", token.0);
            Err(problem(
                Code::Fenced,
                &detail,
                "stop: another owner may go on already",
            ))
        }
        Reply::Kept(Fate::Unknown) => Err(unknown("the session of this run has ended meanwhile")),
        Reply::Seen { .. } | Reply::Noted => Err(ended()),
    }
}

/// The bytes of a checkpoint, whatever they say they are.
async fn body(request: Request<Incoming>) -> Result<Content, Box<Problem>> {
    let read = Limited::new(request.into_body(), Content::MAX).collect();
    let bytes = match timeout(REQUEST_WITHIN, read).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("a checkpoint has at most {} bytes", Content::MAX);
            let next = "keep the work itself elsewhere and only its name here";
            return Err(problem(Code::TooLarge, &detail, next));
        }
        Ok(Err(error)) => {
            let detail = format!("the body broke off: {error}");
            return Err(problem(Code::MalformedRequest, &detail, "send it again"));
        }
        Err(_) => {
            let detail = format!("the body took longer than {} s", REQUEST_WITHIN.as_secs());
            return Err(problem(Code::SlowRequest, &detail, "send it at once"));
        }
    };
    Content::new(&bytes).map_err(|error| problem(Code::TooLarge, &error.to_string(), "write less"))
}

fn json(value: &impl Serialize) -> Result<Answer, Box<Problem>> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| problem(Code::Internal, &error.to_string(), "report this"))?;
    let mut answer = Response::new(Full::new(Bytes::from(bytes)));
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(answer)
}

fn refusal(problem: &Problem) -> Answer {
    let bytes = serde_json::to_vec(problem).unwrap_or_default();
    let mut answer = Response::new(Full::new(Bytes::from(bytes)));
    *answer.status_mut() =
        StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = HeaderValue::from_static(problem::MEDIA_TYPE);
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
        let soon = HeaderValue::from_static("1");
        answer.headers_mut().insert(header::RETRY_AFTER, soon);
    }
    answer
}

fn problem(code: Code, detail: &str, next_step: &str) -> Box<Problem> {
    Box::new(Problem::new(code, detail).next_step(next_step))
}

fn wrong_method(request: &Request<Incoming>, allowed: &str) -> Box<Problem> {
    let (method, path) = (request.method(), request.uri().path());
    let detail = format!("{method} is not possible at {path:?}");
    problem(Code::MethodNotAllowed, &detail, &format!("use {allowed}"))
}

fn ended() -> Box<Problem> {
    let detail = "this run is over, or the agent is ending";
    problem(Code::Unavailable, detail, "ask again in a moment")
}

fn not_yet() -> Box<Problem> {
    let detail = "the agent has only just taken this run over from another process";
    problem(Code::Unavailable, detail, "ask again in a moment")
}

fn unknown(detail: &str) -> Box<Problem> {
    let next = "write it again: a later one replaces it either way";
    problem(Code::OutcomeUnknown, detail, next)
}
