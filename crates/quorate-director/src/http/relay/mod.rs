//! Any director takes any request: what only the leader can answer is passed on to it, and its answer back.
//!
//! ```text
//!  request ─► served here ──────────────────────────────────────► handler
//!         ├─► answered from the fold: first catch up ───────────► handler
//!         └─► the leader's: this director leads ────────────────► handler
//!                           another one leads ─► passed on, once ─► its answer, or who leads now
//! ```
//!
//! A passed request is never passed again: who gets it and does not lead says so. Whatever breaks on the way
//! is told as what it means for the caller: certainly not done, or not known.

mod lanes;
mod renewals;

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use quorate_api::problem::{Code, Problem};
use quorate_api::resources::DirectorAnnouncement;
use quorate_api::routes::{self, RELAYED_HEADER};
use quorate_core::ids::{DirectorName, Position};
use quorate_core::record::DirectorInfo;
use quorate_pki::ClientTls;
use tokio::sync::watch;
use tokio::time::Instant;

use super::App;
use super::answer::{Failure, not_leader};
use super::peer;
use crate::engine::Led;

use lanes::Lanes;
pub(crate) use renewals::{Renewals, unproven};

/// Headers that speak of one connection only (RFC 9110, 7.6.1), and those by which a browser tells where a
/// request comes from, which were looked at here.
const NOT_PASSED: [HeaderName; 10] = [
    header::HOST,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    header::PROXY_AUTHORIZATION,
    header::ORIGIN,
    HeaderName::from_static("keep-alive"),
];
/// The same, for a header that only browsers send.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How long a leader may take to write down where a director is.
const ANNOUNCE_TIME: Duration = Duration::from_secs(5);
/// A leader that hands over in order answers what it has decided, and may be just a little later with it than
/// the news of the next.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// The part of a query by which a reader takes whatever a director knows.
const STALE: &str = "stale=true";

/// Who can answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    /// Any director, from what it has at hand.
    Here,
    /// Any director that has folded everything that was committed when it was asked.
    Caught,
    /// The leader alone.
    ByLeader,
}

/// Who passes requests on, and how he proves it to the other directors.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// The director.
    pub(crate) by: DirectorName,
    /// Plain HTTP when `None`.
    pub(crate) tls: Option<ClientTls>,
}

/// The way to the leader.
#[derive(Debug)]
pub(crate) struct Relay {
    name: DirectorName,
    lanes: Lanes,
}

impl Relay {
    /// The way of the director to the others.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub(crate) fn new(Way { by, tls }: &Way) -> Result<Self, reqwest::Error> {
        Ok(Self {
            name: by.clone(),
            lanes: Lanes::new(tls.as_ref())?,
        })
    }

    /// Tells the leader at this address of this director.
    ///
    /// # Errors
    /// With what came in between, for the log: it is told again later.
    pub(crate) async fn announce(
        &self,
        address: &str,
        own: &DirectorInfo,
    ) -> Result<(), Unannounced> {
        let told = DirectorAnnouncement {
            id: own.id,
            address: own.address.clone(),
            version: own.version.clone(),
            format: own.format.0,
            oldest_format: own.oldest_format.0,
        };
        let path = routes::fill(routes::DIRECTOR, &[own.name.as_str()]);
        let uri: Uri = path
            .parse()
            .map_err(|_| Unannounced::Failed(format!("{path:?} is no path")))?;
        let answered = self
            .lanes
            .of(&Method::PUT, &uri)
            .http
            .put(url(address, &uri))
            .timeout(ANNOUNCE_TIME)
            .json(&told)
            .send();
        let failed = |error: reqwest::Error| Unannounced::Failed(error.to_string());
        let answered = answered.await.map_err(failed)?;
        match answered.status() {
            status if status.is_success() => Ok(()),
            StatusCode::FORBIDDEN => {
                let problem: Problem = answered.json().await.map_err(failed)?;
                Err(Unannounced::Refused(problem.detail))
            }
            status => Err(Unannounced::Failed(status.to_string())),
        }
    }
}

/// Why the cluster does not know yet where a director is.
#[derive(Debug)]
pub(crate) enum Unannounced {
    /// The others want to know nothing of it, and say why.
    Refused(String),
    /// Something came in between.
    Failed(String),
}

/// Answers here, or passes the request on.
pub(crate) async fn relay(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let stale = take_stale(&mut request);
    let served = if stale {
        Served::Here
    } else {
        served(request.method(), request.uri().path())
    };
    let led = app.handle.led();
    let passed = match (served, led) {
        (Served::Here, _) | (_, Led::Here) => None,
        (Served::Caught, Led::By { .. } | Led::Nobody) => app.catch_up().await.err(),
        (Served::ByLeader, Led::Nobody) => Some(not_leader(None)),
        (Served::ByLeader, Led::By { address, .. }) => {
            if request.headers().contains_key(RELAYED_HEADER) {
                Some(not_leader(Some(address)))
            } else {
                return match pass(&app, &address, request).await {
                    Ok(response) => response,
                    Err(failure) => failure.into_response(),
                };
            }
        }
    };
    match passed {
        None => next.run(request).await,
        Some(failure) => failure.into_response(),
    }
}

fn served(method: &Method, path: &str) -> Served {
    let read = is_read(method);
    let mut parts = path.split('/').skip(1);
    if parts.next() != Some("v1") {
        return Served::Here;
    }
    let parts: Vec<&str> = parts.collect();
    match (read, parts.as_slice()) {
        (true, ["services", _, "partitions", _, "logs"] | ["cluster", "authority"])
        | (
            _,
            ["sessions", _, "log-requests" | "log-chunks" | "renew"] | ["sessions", "renewals"],
        ) => Served::Here,
        (
            true,
            ["events"]
            | ["sessions", _, "work"]
            | ["services", _, "partitions", _, "history" | "checkpoint"],
        ) => Served::Caught,
        (_, _) => Served::ByLeader,
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether a reader wants whatever this director knows, though it may be of the past. The handlers need not
/// know of it.
fn take_stale(request: &mut Request) -> bool {
    let Some(query) = request.uri().query().filter(|_| is_read(request.method())) else {
        return false;
    };
    let rest: Vec<&str> = query.split('&').filter(|part| *part != STALE).collect();
    if rest.len() == query.split('&').count() {
        return false;
    }
    let path = request.uri().path();
    let rest = if rest.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", rest.join("&"))
    };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = rest.parse().ok();
    match Uri::from_parts(parts) {
        Ok(uri) => *request.uri_mut() = uri,
        // A part of a path that was read before is a path.
        Err(_) => return false,
    }
    true
}

impl App {
    /// Waits until everything is folded here that was committed when this was called.
    async fn catch_up(&self) -> Result<(), Failure> {
        let until = Instant::now() + self.limits.query_time;
        let behind = || {
            let detail = "this director cannot make sure that it knows everything: no majority of the \
                          directors answers it";
            Failure::new(Code::Unavailable, detail)
                .next_step("ask another director, or with stale=true for what this one knows")
        };
        let confirmed = tokio::time::timeout_at(until, self.handle.confirm()).await;
        let Ok(confirmed) = confirmed else {
            return Err(behind());
        };
        let occupied: Position = confirmed?.ok_or_else(behind)?;
        let mut seen = self.handle.watch();
        let folded = seen.wait_for(|seen| seen.position >= occupied);
        match tokio::time::timeout_at(until, folded).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Failure::stopping()),
            Err(_) => Err(behind()),
        }
    }
}

/// Passes a request on and its answer back.
async fn pass(app: &App, address: &str, request: Request) -> Result<Response, Failure> {
    let read = is_read(request.method());
    let lane = app.relay.lanes.of(request.method(), request.uri());
    let _place = lane.place(app.limits.query_time).await?;
    let (parts, body) = request.into_parts();
    let outgoing = lane
        .http
        .request(parts.method.clone(), url(address, &parts.uri))
        .headers(to_pass(&parts, &app.relay.name))
        .body(reqwest::Body::wrap_stream(body.into_data_stream()));
    let answered = outgoing.send();
    let mut led = app.handle.watch_led();
    let answered = tokio::select! {
        answered = tokio::time::timeout(lane.limit(&app.limits), answered) => answered,
        () = deposed(&mut led, address) => return Err(broken(read, "the leader changed")),
        () = app.shutdown.cancelled() => return Err(broken(read, "this director is stopping")),
    };
    match answered {
        Ok(Ok(response)) => Ok(to_answer(response, _place)),
        // A connection that was never made has carried nothing.
        Ok(Err(error)) if error.is_connect() => {
            tracing::debug!(
                address,
                error = &error as &dyn std::error::Error,
                "the leader is not reached"
            );
            Err(not_leader(None))
        }
        Ok(Err(error)) => {
            tracing::warn!(
                address,
                error = &error as &dyn std::error::Error,
                "a passed request broke"
            );
            Err(broken(read, "the way to the leader broke"))
        }
        Err(_) => Err(broken(read, "the leader did not answer in time")),
    }
}

/// Asks another director the same, for what it alone has at hand. It passes nothing on. `None` when it has
/// not got it either, or does not answer.
pub(crate) async fn ask_another(app: &App, address: &str, parts: &Parts) -> Option<Response> {
    let lane = app.relay.lanes.of(&parts.method, &parts.uri);
    let place = lane.place(app.limits.query_time).await.ok()?;
    let asked = lane
        .http
        .get(url(address, &parts.uri))
        .headers(to_pass(parts, &app.relay.name))
        .send();
    let answered = tokio::time::timeout(lane.limit(&app.limits), asked).await;
    let answered = answered.ok()?.ok()?;
    let has_it = answered.status() != StatusCode::SERVICE_UNAVAILABLE;
    has_it.then(|| to_answer(answered, place))
}

/// What it means for the caller that the answer was lost.
fn broken(read: bool, why: &str) -> Failure {
    if read {
        // Asking again is harmless, here or elsewhere.
        let mut failure = not_leader(None);
        failure.0.detail = format!("{why}: nothing was answered");
        return failure;
    }
    Failure::new(
        Code::OutcomeUnknown,
        format!("{why} before the outcome was known"),
    )
    .next_step("look whether it was done; repeating it with the same Idempotency-Key is safe")
}

/// Returns when the director at this address does not lead any more, as far as this one knows, and has had a
/// moment to give the answers that it owes.
async fn deposed(led: &mut watch::Receiver<Led>, leader: &str) {
    let other = led.wait_for(|led| match led {
        Led::By { address, .. } => address != leader,
        Led::Here | Led::Nobody => true,
    });
    if other.await.is_err() {
        // The loop has ended, and with it this director.
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(LAST_ANSWERS).await;
}

fn url(address: &str, uri: &Uri) -> String {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    if address.contains("://") {
        format!("{address}{path}")
    } else {
        format!("http://{address}{path}")
    }
}

fn to_pass(given: &Parts, by: &DirectorName) -> HeaderMap {
    let mut headers = given.headers.clone();
    for name in &NOT_PASSED {
        headers.remove(name);
    }
    headers.remove(FETCH_SITE);
    // Names of directors are letters, digits, dots and dashes.
    if let Ok(by) = HeaderValue::from_str(by.as_str()) {
        headers.insert(RELAYED_HEADER, by);
    }
    peer::tell(given, &mut headers);
    headers
}

/// The leader's answer as it is; the place in the lane is free at its end.
fn to_answer(response: reqwest::Response, place: lanes::Place) -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = response.status();
    let headers = answer.headers_mut();
    headers.clone_from(response.headers());
    for name in &NOT_PASSED {
        headers.remove(name);
    }
    let stream = futures::stream::unfold((response, place), |(mut response, place)| async move {
        let piece = response.chunk().await.transpose()?;
        Some((piece, (response, place)))
    });
    *answer.body_mut() = Body::from_stream(stream);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_the_leader_goes_to_it() {
        let cases = [
            ("GET", "/livez", Served::Here),
            ("GET", "/openapi.json", Served::Here),
            ("GET", "/v1/directors", Served::ByLeader),
            // A key takes no way that is longer than it must be.
            ("GET", "/v1/cluster/authority", Served::Here),
            ("POST", "/v1/certificates", Served::ByLeader),
            ("GET", "/v1/services/s/partitions/k/logs", Served::Here),
            ("POST", "/v1/sessions/7/renew", Served::Here),
            ("POST", "/v1/sessions/renewals", Served::Here),
            ("GET", "/v1/sessions/7/log-requests", Served::Here),
            ("POST", "/v1/sessions/7/log-chunks", Served::Here),
            ("GET", "/v1/sessions/7/work", Served::Caught),
            ("GET", "/v1/events", Served::Caught),
            ("GET", "/v1/services/s/partitions/k/history", Served::Caught),
            (
                "GET",
                "/v1/services/s/partitions/k/checkpoint",
                Served::Caught,
            ),
            (
                "PUT",
                "/v1/services/s/partitions/k/checkpoint",
                Served::ByLeader,
            ),
            ("POST", "/v1/sessions", Served::ByLeader),
            ("POST", "/v1/sessions/7/report", Served::ByLeader),
            ("GET", "/v1/agents", Served::ByLeader),
            (
                "GET",
                "/v1/services/events/partitions/k/why",
                Served::ByLeader,
            ),
            ("POST", "/v1/apply", Served::ByLeader),
            ("PUT", "/v1/directors/d2", Served::ByLeader),
        ];
        for (method, path, expected) in cases {
            let method = method.parse().unwrap();
            assert_eq!(served(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn who_takes_what_is_known_is_served_here() {
        for (uri, stale, rest) in [
            ("/v1/services", false, "/v1/services"),
            ("/v1/services?limit=2", false, "/v1/services?limit=2"),
            ("/v1/services?stale=true", true, "/v1/services"),
            (
                "/v1/services?a=1&stale=true&b=2",
                true,
                "/v1/services?a=1&b=2",
            ),
            (
                "/v1/services?stale=trueish",
                false,
                "/v1/services?stale=trueish",
            ),
        ] {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = uri.parse().unwrap();
            assert_eq!(take_stale(&mut request), stale, "{uri}");
            assert_eq!(request.uri().to_string(), rest);
            *request.method_mut() = Method::POST;
            *request.uri_mut() = uri.parse().unwrap();
            assert!(!take_stale(&mut request), "nothing is written by hearsay");
        }
    }

    #[test]
    fn what_speaks_of_one_connection_stays_behind() {
        let (mut given, ()) = axum::http::Request::new(()).into_parts();
        for (name, value) in [
            ("host", "d2:7400"),
            ("connection", "keep-alive"),
            ("origin", "http://d2:7400"),
            ("sec-fetch-site", "same-origin"),
            ("authorization", "Bearer x"),
            ("if-match", "\"0.7\""),
        ] {
            given.headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        let passed = to_pass(&given, &DirectorName::new("d2").unwrap());
        let mut names: Vec<&str> = passed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "if-match", RELAYED_HEADER]);
        assert_eq!(passed.get(RELAYED_HEADER).unwrap(), "d2");
    }
}
