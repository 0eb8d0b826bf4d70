//! Accepts connections and serves them, within limits that nobody has to ask for.
//!
//! The HTTP library ends a head that comes too slowly only if it is given a timer, and it has no limit
//! at all before it knows which version a client speaks. Both are set here: until the first request
//! has come whole, a connection lives no longer than `header_time`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::config::Limits;

/// How long to wait after the system refused a connection, usually for want of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// Data that a client does not take for this long ends its connection.
const STALLED_MS: u32 = 60_000;

/// Serves until it is told to stop; then connections get `stop_time` to end.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Arc<Limits>,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let builder = builder(&limits);
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "connection not accepted"
                );
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(connections = limits.connections, "too many connections");
            continue;
        };
        set_options(&stream);
        let asked = Arc::new(AtomicBool::new(false));
        let service = counted(router.clone(), Arc::clone(&asked));
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection.into_owned());
        let header_time = limits.header_time;
        connections.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                // How a connection ends is its client's affair.
                _ = &mut connection => {}
                () = tokio::time::sleep(header_time) => {
                    if asked.load(Ordering::Relaxed) {
                        let _ = connection.await;
                    }
                }
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.stop_time, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("connections had to be cut");
    }
    connections.shutdown().await;
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(limits.header_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(limits.header_time);
    builder
}

/// The router as a service that notes that a request has come.
fn counted(
    router: Router,
    asked: Arc<AtomicBool>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = axum::response::Response,
    Error = Infallible,
    Future: Send + 'static,
> + Send
+ Clone
+ 'static {
    let service = tower::service_fn(move |request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        router.clone().oneshot(request.map(axum::body::Body::new))
    });
    TowerToHyperService::new(service)
}

/// Small answers at once, and no connection held for ever by a client that takes none.
fn set_options(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = &error as &dyn std::error::Error, "no TCP_NODELAY");
    }
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, STALLED_MS) {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "no TCP_USER_TIMEOUT"
        );
    }
}
