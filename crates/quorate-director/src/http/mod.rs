//! Speaking HTTP: who may connect, what is taken at most, and how answers look. The routes themselves
//! are in [`crate::routes`].

pub(crate) mod access;
pub(crate) mod answer;
pub(crate) mod blocking;
pub(crate) mod channel;
pub(crate) mod condition;
mod connection;
pub(crate) mod extract;
pub(crate) mod guard;
pub(crate) mod idempotency;
pub(crate) mod json;
mod once;
pub(crate) mod peer;
pub(crate) mod places;
pub(crate) mod relay;
pub(crate) mod server;
mod words;

use std::sync::Arc;

use quorate_core::ids::{ClusterId, DirectorName};
use quorate_core::planner::PlannerConfig;
use quorate_pki::Authority;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use crate::duties::sources::Roots;
use crate::engine::Handle;
use crate::quorum::Quorum;
use crate::routes::LogHub;

pub use peer::PeerIdentity;

/// What every handler may use. It holds no state of the cluster: that is behind `handle`.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) handle: Handle,
    pub(crate) limits: Arc<Limits>,
    pub(crate) name: DirectorName,
    pub(crate) cluster: ClusterId,
    pub(crate) address: Arc<str>,
    /// Folders that files of partitions may be read from.
    pub(crate) roots: Roots,
    pub(crate) planner: PlannerConfig,
    /// Told when the director stops: whoever waits then answers at once.
    pub(crate) shutdown: CancellationToken,
    /// One permit for each stream of events.
    pub(crate) streams: Arc<Semaphore>,
    /// One permit for each request of a person that waits for something to happen.
    pub(crate) held: Arc<Semaphore>,
    /// How many of those there are.
    pub(crate) held_max: usize,
    /// The connections.
    pub(crate) places: Arc<places::Places>,
    /// Writes that go on although their client has gone.
    pub(crate) writes: TaskTracker,
    pub(crate) repeats: Arc<idempotency::Repeats>,
    pub(crate) logs: Arc<LogHub>,
    /// The members of the ledger's quorum, when it has some.
    pub(crate) quorum: Option<Arc<dyn Quorum>>,
    /// Where the ledger is, when it is in a store that several share.
    pub(crate) store: Option<Arc<str>>,
    /// The way to the leader, when it is another director.
    pub(crate) relay: Arc<relay::Relay>,
    /// The same for renewals.
    pub(crate) renewals: relay::Renewals,
    pub(crate) openapi: Arc<str>,
    /// Whether everybody is asked who he is.
    pub(crate) authentication: bool,
    /// Signs the certificates of machines.
    pub(crate) authority: Option<Arc<Authority>>,
}
