//! How directors reach each other: mutual TLS on a port of its own, one request at a time on a
//! connection, a few connections to each.
//!
//! ```text
//!  dials: TLS ─ Hello { cluster, from, to } ─►            frame   a length and so many bytes
//!                    ◄─ Welcome, or why not               wire    what is in them
//!         Request ─►                                      tls     who may speak
//!                    ◄─ Answer                            client  dials, keeps idle connections
//!         Request ─► …                                    server  listens, checks, answers
//!                                                         ties    who is connected
//! ```
//!
//! One request at a time needs no numbers to match answers by, and a large batch of entries or a snapshot
//! never holds up a heartbeat, since that takes another connection. Connections are kept, because a
//! handshake may take longer than the answer to a heartbeat is waited for.
//!
//! Nothing is granted to somebody whose certificate, cluster or identity is not the one that it must be,
//! and nothing is believed of somebody who was not reached.

mod client;
mod frame;
mod receive;
mod server;
mod ties;
mod tls;
mod wire;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use client::{Client, Target};
pub(crate) use server::Server;
pub(crate) use ties::Ties;
pub(crate) use tls::Configs;
pub use tls::{DIRECTOR_DNS_NAME, PeerTls, director_uri};
pub(crate) use wire::{Answer, Append, Ballot, Request, SnapshotHead, Transfer};
#[cfg(test)]
pub(crate) use wire::{GREETING, Hello};

/// How a director reaches the others and is reached by them.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Where to listen for the other directors. Where they dial is the address in the membership.
    pub listen: SocketAddr,
    /// The own address that connections to others come from; the system's choice when `None`.
    pub from: Option<IpAddr>,
    /// What is shown to the others and what they are checked by.
    pub tls: PeerTls,
}

/// Who this director is, as it tells the others.
#[derive(Clone, Debug)]
pub(crate) struct Us {
    pub(crate) cluster: u64,
    pub(crate) node: u64,
    pub(crate) name: String,
}

/// The TLS of both sides, which may be renewed while they are at work.
#[derive(Debug)]
pub(crate) struct Tls(Mutex<Configs>);

impl Tls {
    pub(crate) const fn new(configs: Configs) -> Self {
        Self(Mutex::new(configs))
    }

    fn now(&self) -> Configs {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn renew(&self, configs: Configs) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = configs;
    }
}

/// When this director last heard a leader.
#[derive(Debug)]
pub(crate) struct Contact {
    started: Instant,
    heard: Mutex<Instant>,
}

impl Contact {
    pub(crate) fn new() -> Arc<Self> {
        let started = Instant::now();
        Arc::new(Self {
            started,
            heard: Mutex::new(started),
        })
    }

    /// Since this director was opened.
    pub(crate) fn up(&self) -> Duration {
        self.started.elapsed()
    }

    /// Since a leader was last heard, or since this director was opened.
    pub(crate) fn silence(&self) -> Duration {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }

    fn heard(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}
