//! What a request came through: plain TCP, or TLS with or without a certificate of the client.
//!
//! It must never say that somebody is who the handshake has not proven.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use quorate_api::problem::{self, Code, Problem};
use quorate_core::access::Node;
use quorate_core::ids::NodeName;
use quorate_pki::{Identity, Role, ServerTls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::peer::PeerIdentity;

/// The first byte of every TLS connection: a handshake message. No HTTP request begins with it.
const TLS_HANDSHAKE: u8 = 0x16;
/// What is read of a request that cannot be answered, so that its client reads why.
const UNREAD_MAX: u64 = 64 << 10;

/// What a request came through. It is among the extensions of every request.
#[derive(Clone, Debug)]
pub(crate) enum Channel {
    /// TCP as it is: on this machine only.
    Plain,
    /// TLS.
    Tls {
        /// Who the client is, when it has shown a certificate of this cluster.
        identity: Option<Arc<Identity>>,
    },
}

impl Channel {
    /// That of a request. What the server did not mark is trusted with nothing.
    pub(crate) fn of(request: &Request) -> &Self {
        request.extensions().get().unwrap_or(&Self::Plain)
    }

    /// Whether the client has proven that it is an agent of this cluster.
    pub(crate) fn is_agents(&self) -> bool {
        let machine = self.machine();
        machine.is_some_and(|machine| machine.node == Node::Agent)
    }

    /// The machine of this cluster that the client has proven to be.
    pub(crate) fn machine(&self) -> Option<PeerIdentity> {
        let Self::Tls {
            identity: Some(identity),
        } = self
        else {
            return None;
        };
        let node = match identity.role() {
            Role::Director => Node::Director,
            Role::Agent => Node::Agent,
            Role::Person => return None,
        };
        let name = NodeName::new(identity.name()).ok()?;
        let since = identity.since();
        Some(PeerIdentity { node, name, since })
    }

    /// The scheme of its addresses.
    pub(crate) const fn scheme(&self) -> &'static str {
        match self {
            Self::Plain => "http",
            Self::Tls { .. } => "https",
        }
    }
}

/// How many shake hands at the same time. Each takes some tenths of a millisecond of a processor, so this many
/// take about as long as a client waits for its answer. With more none would get there in time.
pub(crate) const HANDSHAKES_MAX: usize = 1_000;

/// Shakes hands; `None` when that came to nothing, which is the client's affair. Who comes when too many do it
/// is sent away at once, to another director or to come again.
pub(crate) async fn greet(
    tls: &ServerTls,
    at_once: &Semaphore,
    stream: TcpStream,
    limit: Duration,
) -> Option<(TlsStream<TcpStream>, Channel)> {
    match tokio::time::timeout(limit, handshake(tls, at_once, stream)).await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(error)) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "no TLS handshake");
            None
        }
        Err(_) => None,
    }
}

async fn handshake(
    tls: &ServerTls,
    at_once: &Semaphore,
    mut stream: TcpStream,
) -> io::Result<Option<(TlsStream<TcpStream>, Channel)>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    if first != [TLS_HANDSHAKE] {
        explain(&mut stream).await?;
        return Ok(None);
    }
    // Whoever is silent has no part in it yet.
    let _turn = at_once
        .try_acquire()
        .map_err(|_| io::Error::other("too many shake hands at the same time"))?;
    let stream = TlsAcceptor::from(tls.config()).accept(stream).await?;
    let shown = stream.get_ref().1.peer_certificates();
    let identity = tls.peer(shown).map_err(io::Error::other)?.map(Arc::new);
    Ok(Some((stream, Channel::Tls { identity })))
}

/// Tells a client of plain HTTP what this is. It takes no part of the request in.
async fn explain(stream: &mut TcpStream) -> io::Result<()> {
    let problem = Problem::new(Code::TlsRequired, "this port speaks TLS")
        .next_step("write https:// before the address, and name the cluster's CA file");
    let body = serde_json::to_string(&problem)?;
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        problem::MEDIA_TYPE,
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await?;
    // Closing on what was not read would take the answer away from its reader.
    let mut rest = stream.take(UNREAD_MAX);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}
