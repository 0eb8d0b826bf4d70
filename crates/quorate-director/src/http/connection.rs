//! One connection: served until its client has gone, it has nothing to do, or its place is needed.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Version, header};
use axum::response::{IntoResponse as _, Response};
use axum::{BoxError, Router};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use quorate_api::problem::Code;
use quorate_api::routes::SESSIONS;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::answer::Failure;
use super::channel::Channel;
use super::peer::PeerAddress;
use super::places::{Place, Places, Use};

/// What a connection is served with.
pub(crate) struct Connection {
    pub(crate) place: Place,
    /// The address at its other end.
    pub(crate) peer: IpAddr,
    pub(crate) places: Arc<Places>,
    pub(crate) header_time: Duration,
    pub(crate) idle_time: Duration,
    pub(crate) shutdown: CancellationToken,
}

/// Serves one connection to its end.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    builder: Arc<auto::Builder<TokioExecutor>>,
    stream: TokioIo<S>,
    router: Router,
    channel: Channel,
    Connection {
        place,
        peer,
        places,
        header_time,
        idle_time,
        shutdown,
    }: Connection,
) {
    if channel.is_agents() {
        // What others prove by their first request its certificate has proven.
        places.prove(place.id());
    }
    let in_flight = watch::Sender::new(0_usize);
    let unused = unused(in_flight.subscribe(), header_time, idle_time);
    // Told when this connection is to take no further request.
    let last = shutdown.child_token();
    let service = {
        let (last, id, usable_for) = (last.clone(), place.id(), place.usable_for);
        tower::service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(PeerAddress(peer));
            if let Some(identity) = channel.machine() {
                request.extensions_mut().insert(identity);
            }
            request.extensions_mut().insert(channel.clone());
            let in_flight = InFlight::begin(&in_flight);
            let turned_away = match usable_for {
                Use::Anything => None,
                Use::Sessions if is_of_session(&request) => {
                    places.prove(id);
                    None
                }
                Use::Sessions => {
                    last.cancel();
                    Some(turned_away(request.version()))
                }
            };
            let router = router.clone();
            async move {
                let response = match turned_away {
                    Some(response) => response,
                    None => router.oneshot(request).await?,
                };
                let counted = |body| Counted {
                    body,
                    _in_flight: in_flight,
                };
                Ok::<_, Infallible>(response.map(counted))
            }
        })
    };
    let connection = builder.serve_connection(stream, TowerToHyperService::new(service));
    let (mut connection, mut unused) = (pin!(connection.into_owned()), pin!(unused));
    let mut ending = false;
    loop {
        tokio::select! {
            // How a connection ends is its client's affair.
            _ = &mut connection => return,
            () = &mut unused => return,
            () = place.taken_away.cancelled() => return,
            () = last.cancelled(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Returns when there is nothing to answer for as long as that may be: before the first request, and
/// between requests.
async fn unused(mut in_flight: watch::Receiver<usize>, first: Duration, later: Duration) {
    let mut patience = first;
    loop {
        let quiet = *in_flight.borrow_and_update() == 0;
        tokio::select! {
            changed = in_flight.changed() => match changed {
                Ok(()) => patience = later,
                // The service is gone, and the connection with it.
                Err(_) => return,
            },
            () = tokio::time::sleep(patience), if quiet => return,
        }
    }
}

fn is_of_session(request: &Request) -> bool {
    let rest = request.uri().path().strip_prefix(SESSIONS);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn turned_away(version: Version) -> Response {
    let detail =
        "this director has as many connections as it can serve; what is left is for agents";
    let mut response = Failure::new(Code::Unavailable, detail)
        .next_step("close some, ask another director, or try again in a moment")
        .into_response();
    if version <= Version::HTTP_11 {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// Counts a request from its head to the end of its answer.
struct InFlight(watch::Sender<usize>);

impl InFlight {
    fn begin(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// The body of an answer, in flight until it has all been taken.
struct Counted {
    body: Body,
    _in_flight: InFlight,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
