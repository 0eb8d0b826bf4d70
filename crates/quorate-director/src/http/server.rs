//! Accepts connections and serves them, within limits that nobody has to ask for.
//!
//! The HTTP library ends a head that comes too slowly only if it is given a timer, and it has no limit
//! at all before it knows which version a client speaks. Both are set here: until the first request
//! has come whole, a connection lives no longer than `header_time`; with nothing to answer, no longer
//! than `idle_time`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use quorate_pki::ServerTls;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::channel::{self, Channel};
use super::connection::{self, Connection};
use super::places::{Full, Places};
use crate::config::Limits;

/// How long to wait after the system refused a connection, usually for want of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// How often the log tells of connections that were turned away.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// A head may be read to so many times its limit: what is only a little too large is then refused with
/// problem details, and not with the bare status of the HTTP library.
const READ_AHEAD: usize = 2;
/// Data that a client does not take for this long ends its connection.
const STALLED_MS: u32 = 60_000;

/// What connections are taken on.
#[derive(Debug)]
pub(crate) struct Terms {
    /// Plain HTTP when `None`.
    pub(crate) tls: Option<Arc<ServerTls>>,
    pub(crate) places: Arc<Places>,
    pub(crate) limits: Arc<Limits>,
}

/// Serves until it is told to stop; then connections get `stop_time` to end.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    Terms {
        tls,
        places,
        limits,
    }: Terms,
    shutdown: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let mut refused = Refused::default();
    let builder = Arc::new(builder(&limits));
    let at_once = Arc::new(Semaphore::new(channel::HANDSHAKES_MAX));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "connection not accepted"
                );
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let place = match places.take(peer.ip()) {
            Ok(place) => place,
            Err(full) => {
                refused.note(full, peer);
                continue;
            }
        };
        set_options(&stream);
        let connection = Connection {
            place,
            peer: peer.ip(),
            places: Arc::clone(&places),
            header_time: limits.header_time,
            idle_time: limits.idle_time,
            shutdown: shutdown.clone(),
        };
        let (builder, router) = (Arc::clone(&builder), router.clone());
        let Some(tls) = tls.clone() else {
            let stream = TokioIo::new(stream);
            connections.spawn(connection::serve(
                builder,
                stream,
                router,
                Channel::Plain,
                connection,
            ));
            continue;
        };
        let (limit, at_once) = (limits.handshake_time, Arc::clone(&at_once));
        connections.spawn(async move {
            // It has its place while it shakes hands, and may be told to leave it.
            let greeted = tokio::select! {
                greeted = channel::greet(&tls, &at_once, stream, limit) => greeted,
                () = connection.place.taken_away.cancelled() => None,
                () = connection.shutdown.cancelled() => None,
            };
            if let Some((stream, channel)) = greeted {
                let stream = TokioIo::new(stream);
                connection::serve(builder, stream, router, channel, connection).await;
            }
        });
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.stop_time, all).await.is_err() {
        tracing::warn!("connections had to be cut");
    }
    connections.shutdown().await;
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let head = limits.header_bytes.saturating_mul(READ_AHEAD);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(limits.header_time);
    builder
}

/// Connections that were turned away since the log last told of them: a flood must not flood the log.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
    told: Option<Instant>,
}

impl Refused {
    fn note(&mut self, full: Full, peer: SocketAddr) {
        self.count += 1;
        if self.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return;
        }
        let reason = match full {
            Full::Address => "its address has as many as one may have",
            Full::All => "there are as many as this process can serve",
        };
        tracing::warn!(%peer, reason, count = self.count, "connections were turned away");
        *self = Self {
            count: 0,
            told: Some(Instant::now()),
        };
    }
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
