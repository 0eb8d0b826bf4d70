//! What a director is told when it starts, and why it ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::format::{FORMATS, Format, Formats};
use quorate_core::ids::{DirectorName, HookName, Position};
use quorate_core::spec::validate::TAKEOVER_MAX;
use quorate_pki::{Authority, ClientTls, ServerTls};

/// What a director is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name, unique in the cluster.
    pub name: DirectorName,
    /// Folder for its identity and its history. Created when it is not there.
    pub data_dir: PathBuf,
    /// Where it listens. Beyond loopback only with TLS and authentication.
    pub listen: SocketAddr,
    /// Where others reach it, `host:port`, when that is not where it listens. With TLS it is told to them with
    /// `https://` before it.
    pub advertise: Option<String>,
    /// What the API is encrypted with and proves itself by; plain HTTP when `None`. Whoever holds it may
    /// renew the certificate while the director runs.
    pub tls: Option<Arc<ServerTls>>,
    /// How it proves itself to other directors when it passes requests on to them; they are asked over plain
    /// HTTP when `None`. Whoever holds it may renew the certificate, too.
    pub to_directors: Option<ClientTls>,
    /// Folders that the `file` sources of specifications may be read from.
    pub source_roots: Vec<PathBuf>,
    /// How many agents to wait for before the very first placement, if that is known.
    pub expect_agents: Option<u32>,
    /// What makes sure that a silent agent can do no more harm, by the names that specifications use.
    pub fences: BTreeMap<HookName, FenceHook>,
    /// How long a change of leader takes at most over its ledger. A lease whose work would not survive
    /// that is refused.
    pub takeover: Duration,
    /// Set when the ledger is in a store that several directors share.
    pub store: Option<Store>,
    /// Formats of the ledger that it reads, and tells the others that it does: those of this build, or fewer to hold
    /// the cluster at an earlier one.
    pub formats: Formats,
    /// Whether everybody is asked who he is: people for an API token, agents for a certificate. Without, who
    /// reaches it may do everything.
    pub authentication: bool,
    /// Signs the certificates of machines that are let in by a join token, and renews them. Without, nobody is
    /// let in.
    pub authority: Option<Arc<Authority>>,
    /// What it takes at most.
    pub limits: Limits,
}

impl Config {
    /// A configuration with the usual limits, over the embedded ledger.
    #[must_use]
    pub fn new(name: DirectorName, data_dir: PathBuf, listen: SocketAddr) -> Self {
        Self {
            name,
            data_dir,
            listen,
            advertise: None,
            tls: None,
            to_directors: None,
            source_roots: Vec::new(),
            expect_agents: None,
            fences: BTreeMap::new(),
            takeover: TAKEOVER_MAX,
            store: None,
            formats: FORMATS,
            authentication: false,
            authority: None,
            limits: Limits::default(),
        }
    }
}

/// A store that several directors share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Where it is, for people: never with a password.
    pub at: String,
    /// For how long a leader may be silent there before another one leads.
    pub silence: Duration,
}

/// A command that makes sure that an agent's machine can do no more harm: switches it off, cuts its network,
/// takes away its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceHook {
    /// Program and arguments; no shell. `{{agent}}` is replaced, and the environment has `QUORATE_AGENT`,
    /// `QUORATE_SESSION` and `QUORATE_HOOK`. Exit code 0 means that it is certain. It may be run again for
    /// the same session.
    pub command: Vec<String>,
    /// After this it is killed and counts as failed.
    pub timeout: Duration,
}

/// What a director takes at most. Everything beyond is refused with a problem that says so.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections, all clients together; fewer when the process may not open so many files, since
    /// each takes a descriptor, and what the ledger and the history need comes first.
    pub connections: usize,
    /// Of a hundred connections, how many only ever serve the calls of sessions. An agent needs two or
    /// three, and loses what it runs when it cannot renew: people must not be able to take them all.
    pub session_percent: usize,
    /// Of a hundred connections of anybody, how many may be held by requests that wait for something to
    /// happen: blocking queries, events, logs. The others go on answering at once.
    pub held_percent: usize,
    /// Open connections from one address, so that one machine cannot take all of them.
    pub connections_per_address: usize,
    /// The same for a loopback address. `None`: no limit of its own, because all agents and people of
    /// this machine share it.
    pub connections_of_loopback: Option<usize>,
    /// How long a TLS handshake may take.
    pub handshake_time: Duration,
    /// How long a connection may take to send a whole request head.
    pub header_time: Duration,
    /// How long a connection may stay open with nothing to answer, after its first request. In HTTP/1,
    /// where the next head may begin at any moment, `header_time` ends it if that is shorter.
    pub idle_time: Duration,
    /// How long a body may take.
    pub body_time: Duration,
    /// Bytes of a request head. Twice as many are read, so that the refusal can tell what is wrong.
    pub header_bytes: usize,
    /// Bytes of a path with its query.
    pub uri_bytes: usize,
    /// Bytes of any body but that of an apply.
    pub body_bytes: usize,
    /// Bytes of the body of an apply or plan: many services of up to 256 KiB each.
    pub apply_bytes: usize,
    /// Nesting of JSON.
    pub json_depth: usize,
    /// How long a write may wait for its commit before its outcome counts as unknown.
    pub call_time: Duration,
    /// How long a read may wait for its turn.
    pub query_time: Duration,
    /// Streams of events that are open at once.
    pub event_streams: usize,
    /// Bytes of history on disk.
    pub history_bytes: u64,
    /// Changes that are kept in memory, from which streams of events can be resumed.
    pub events_kept: usize,
    /// How long connections may take to end when the director stops.
    pub stop_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            session_percent: 25,
            held_percent: 50,
            connections_per_address: 200,
            connections_of_loopback: None,
            handshake_time: Duration::from_secs(5),
            header_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(60),
            body_time: Duration::from_secs(30),
            header_bytes: 16 << 10,
            uri_bytes: 8 << 10,
            body_bytes: 1 << 20,
            apply_bytes: 16 << 20,
            json_depth: 32,
            call_time: Duration::from_secs(20),
            query_time: Duration::from_secs(10),
            event_streams: 256,
            history_bytes: 64 << 20,
            events_kept: 65_536,
            stop_time: Duration::from_secs(3),
        }
    }
}

/// Why a director could not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Without TLS and authentication it serves its own machine only.
    #[error(
        "refused to listen on {listen}: beyond loopback a director needs TLS and authentication"
    )]
    NotLoopback {
        /// The address.
        listen: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The data folder cannot be used.
    #[error("cannot use the data folder {}", .path.display())]
    DataDir {
        /// The folder or a file in it.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// Another process uses the data folder.
    #[error("another director already uses the data folder {}", .path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The identity in the data folder cannot be read.
    #[error("the identity in {} cannot be read: {what}", .path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The way to other directors cannot be set up.
    #[error("the way to other directors cannot be set up")]
    Client(#[source] reqwest::Error),
    /// The ledger is of a format that this director does not read. It stops before it folds any of it.
    #[error("this director does not understand the ledger: {reason}")]
    Unread {
        /// What, as a sentence.
        reason: String,
        /// The format that was found.
        found: Format,
    },
    /// The store does not have what this director has folded: it was restored from a copy, or failed over to a server
    /// that had not followed.
    #[error("the ledger has lost history: {reason}")]
    OtherHistory {
        /// What, as a sentence.
        reason: String,
        /// The last position that was folded, and the hash of its entry.
        folded: (Position, u64),
    },
    /// Going on could do harm; a person must look.
    #[error("the director has stopped for safety: {reason}")]
    Halted {
        /// Why, as a sentence.
        reason: String,
    },
    /// A part of it ended that must not; a defect.
    #[error("a part of the director ended unexpectedly: {part}")]
    Broken {
        /// Which.
        part: &'static str,
    },
}
