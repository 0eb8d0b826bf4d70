//! Puts a director together: its folder, its listener, the loop, the server, the duties.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use quorate_core::director::{self, Shared};
use quorate_core::ids::ClusterId;
use quorate_core::planner::PlannerConfig;
use quorate_core::record::DirectorInfo;
use quorate_ledger::Ledger;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::bootstrap;
use crate::config::{Config, RunError, Store};
use crate::descriptors::{self, Budget};
use crate::duties::announce::announce;
use crate::duties::join::{Joining, join};
use crate::duties::note_folded::note_folded;
use crate::duties::readings;
use crate::duties::sources::{self, Roots};
use crate::engine::{Engine, Handle};
use crate::folded::{self, Folded};
use crate::history::{self, History, Recorder};
use crate::http::places::Places;
use crate::http::relay::{Relay, Renewals, Way};
use crate::http::{App, server};
use crate::identity::{self, Identity};
use crate::quorum::Quorum;
use crate::routes;

/// Calls that wait to be decided. A leader takes thousands a second, so this is some seconds of them.
const QUEUE_MAX: usize = 16_384;
/// Entries between two snapshots: few enough to be folded again in a second or two.
const SNAPSHOT_EVERY: u64 = 10_000;
/// Readings of sources that may wait for their commit.
const READINGS_MAX: usize = 16;

/// A director that has its folder and its address and does not run yet.
#[derive(Debug)]
pub struct Bound {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    identity: Identity,
    /// What was folded of the store that the configuration names.
    folded: Option<Folded>,
    history: (History, Recorder),
    budget: Budget,
    quorum: Option<Arc<dyn Quorum>>,
    joining: Option<Joining>,
}

/// Opens the address and the data folder.
///
/// # Errors
/// When either cannot be used, or the address is beyond loopback and nothing protects it.
pub async fn bind(config: Config) -> Result<Bound, RunError> {
    let listen = config.listen;
    let protected = config.tls.is_some() && config.authentication;
    if !listen.ip().is_loopback() && !protected {
        return Err(RunError::NotLoopback { listen });
    }
    // Before the folder: an address that is in use must not leave a new one behind.
    let unheard = |cause| RunError::Listen { listen, cause };
    let listener = TcpListener::bind(listen).await.map_err(unheard)?;
    let address = listener.local_addr().map_err(unheard)?;
    let budget = Budget::of(descriptors::raise(), &config.limits);
    let identity = identity::open(&config.data_dir)?;
    let folded = config.store.as_ref();
    let folded = folded.map(|store| folded_of(&config.data_dir, store));
    let folded = folded.transpose()?;
    let folder = config.data_dir.join("history");
    let limits = &config.limits;
    let history =
        history::open(&folder, limits.history_bytes, limits.events_kept).map_err(|cause| {
            RunError::DataDir {
                path: folder,
                cause,
            }
        })?;
    Ok(Bound {
        config,
        listener,
        address,
        identity,
        folded,
        history,
        budget,
        quorum: None,
        joining: None,
    })
}

/// Opens and runs a director of this cluster until it is told to stop.
///
/// # Errors
/// As [`RunError`] says.
pub async fn run<L: Ledger>(
    config: Config,
    ledger: L,
    cluster: ClusterId,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    bind(config).await?.run(ledger, cluster, shutdown).await
}

impl Bound {
    /// Where it listens; the port that was given when 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its ledger is an embedded quorum, whose members are shown and changed by this; a new director comes
    /// into it as `joining` says.
    #[must_use]
    pub fn in_quorum(self, quorum: Arc<dyn Quorum>, joining: Option<Joining>) -> Self {
        Self {
            quorum: Some(quorum),
            joining,
            ..self
        }
    }

    /// What the machine is told of a store.
    fn shared(&self) -> Option<Shared> {
        let store = self.config.store.as_ref()?;
        let folded = self.folded.as_ref().filter(|folded| folded.position > 0);
        Some(Shared {
            silence: store.silence,
            folded: folded.map(Folded::known),
            stopped: folded.is_some_and(|folded| folded.stopped),
        })
    }

    /// Runs until it is told to stop, or must. `cluster` is that of the ledger, the same in all its
    /// directors.
    ///
    /// # Errors
    /// As [`RunError`] says.
    pub async fn run<L: Ledger>(
        self,
        ledger: L,
        cluster: ClusterId,
        shutdown: CancellationToken,
    ) -> Result<(), RunError> {
        // A director that ends by itself takes its server with it.
        let shutdown = shutdown.child_token();
        let address = told(&self.config, self.address);
        let machine = director::Config {
            name: self.config.name.clone(),
            id: self.identity.id,
            writer: rand::random(),
            address: address.clone(),
            formats: self.config.formats,
            queue_max: QUEUE_MAX,
            snapshot_every: SNAPSHOT_EVERY,
            shared: self.shared(),
            takeover: self.config.takeover,
            gather_renewals: match self.config.store {
                Some(_) => director::GATHER_OVER_STORE,
                None => director::GATHER_RENEWALS,
            },
            planner: planner(&self.config),
            drain_drifting: true,
            fences: self.config.fences.keys().cloned().collect(),
        };
        let limits = Arc::new(self.config.limits.clone());
        // The loop ends last: whoever still waits for an answer gets it or hears that it is unknown.
        let loop_shutdown = CancellationToken::new();
        let (engine, handle, wanted) = Engine::new(
            machine,
            Arc::new(ledger),
            self.config.fences.clone(),
            self.history,
            loop_shutdown.clone(),
        );
        let engine = tokio::spawn(engine.run());
        // Each reading waits for its commit; a few more may be on their way.
        let (to_readings, readings) = mpsc::channel(READINGS_MAX);
        let roots = Roots::new(self.config.source_roots.clone());
        let sources = tokio::spawn(sources::run(roots, wanted, to_readings));
        let readings = tokio::spawn(readings::hand_in(handle.clone(), readings));
        let first_token = tokio::spawn(bootstrap::hand_in(
            handle.clone(),
            self.config.data_dir.clone(),
            shutdown.clone(),
        ));
        let places = Arc::new(Places::new(self.budget, &limits));
        let relays = relays(&self.config, &handle).map_err(RunError::Client)?;
        let app = app(
            &self.config,
            cluster,
            (self.budget, &places),
            (&address, relays),
            (handle, self.quorum.clone()),
            &shutdown,
        );
        let writes = app.writes.clone();
        let mut duties = JoinSet::new();
        let own = DirectorInfo {
            name: self.config.name.clone(),
            id: self.identity.id,
            address: address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            format: self.config.formats.newest,
            oldest_format: self.config.formats.oldest,
        };
        if let (Some(quorum), Some(joining)) = (self.quorum, self.joining) {
            let us = own.clone();
            duties.spawn(join(joining, us, quorum, shutdown.clone()));
        }
        let noted = self.folded.clone();
        if let Some(folded) = self.folded {
            let data_dir = self.config.data_dir.clone();
            folded::write(&data_dir, &folded).map_err(unnoted(&data_dir))?;
            let noted = (data_dir, folded);
            duties.spawn(note_folded(app.clone(), noted, shutdown.clone()));
        }
        duties.spawn(announce(app.clone(), own, shutdown.clone()));
        let server = server::serve(
            self.listener,
            routes::router(app),
            server::Terms {
                tls: self.config.tls.clone(),
                places,
                limits,
            },
            shutdown.clone(),
        );
        let server = tokio::spawn(server);
        tracing::info!(
            name = %self.config.name,
            address,
            tls = self.config.tls.is_some(),
            connections = self.budget.general,
            session_connections = self.budget.sessions,
            held_requests = self.budget.held,
            "director is listening"
        );

        let mut engine = engine;
        let ended = tokio::select! {
            ended = &mut engine => Some(ended),
            () = shutdown.cancelled() => None,
        };
        shutdown.cancel();
        let served = server.await;
        writes.close();
        let stop_time = self.config.limits.stop_time;
        if tokio::time::timeout(stop_time, writes.wait())
            .await
            .is_err()
        {
            tracing::warn!("writes were still waiting for their commit");
        }
        loop_shutdown.cancel();
        let ended = match ended {
            Some(ended) => ended,
            None => engine.await,
        };
        // Both end with the loop: the one when nobody tells it what to read, the other with it.
        let sources = sources.await.and(readings.await);
        // They have been told, and wait for nothing that takes long.
        duties.shutdown().await;
        let first_token = first_token.await;
        drop(self.identity);
        sources.map_err(|_| RunError::Broken { part: "sources" })?;
        first_token.map_err(|_| RunError::Broken {
            part: "first token",
        })?;
        served.map_err(|_| RunError::Broken { part: "server" })?;
        let ended = ended.map_err(|_| RunError::Broken { part: "loop" })?;
        note_stop(&self.config.data_dir, noted, &ended);
        ended
    }
}

/// What is known of a store from an earlier life.
fn folded_of(data_dir: &Path, store: &Store) -> Result<Folded, RunError> {
    let folded = folded::read(data_dir).map_err(unnoted(data_dir))?;
    Ok(match folded {
        Some(folded) => Folded {
            ledger: store.at.clone(),
            ..folded
        },
        None => Folded::nothing(&store.at),
    })
}

fn unnoted(data_dir: &Path) -> impl FnOnce(std::io::Error) -> RunError {
    let path = data_dir.join(folded::FILE);
    move |cause| RunError::DataDir { path, cause }
}

/// A director that stopped over lost history must not go on after the next start as if it had not: what it noted last
/// may be from before what is lost.
fn note_stop(data_dir: &Path, noted: Option<Folded>, ended: &Result<(), RunError>) {
    let (Some(noted), Err(RunError::OtherHistory { folded, .. })) = (noted, ended) else {
        return;
    };
    let further = folded.0.0 > noted.position;
    let (position, hash) = if further {
        (folded.0.0, folded.1)
    } else {
        (noted.position, noted.hash)
    };
    let noted = Folded {
        position,
        hash,
        stopped: true,
        ..noted
    };
    if let Err(error) = folded::write(data_dir, &noted) {
        tracing::error!(
            %error,
            "that the ledger has lost history could not be noted: do not start this director again before \
             `quorate cluster adopt-history`"
        );
    }
}

fn relays(config: &Config, handle: &Handle) -> Result<(Relay, Renewals), reqwest::Error> {
    let way = Way {
        by: config.name.clone(),
        tls: config.to_directors.clone(),
    };
    let relay = Relay::new(&way)?;
    let renewals = Renewals::start(handle.clone(), way)?;
    Ok((relay, renewals))
}

/// The address that others are told. Those who know the cluster's authority take none without a scheme for
/// plain HTTP; the scheme is for those who do not.
fn told(config: &Config, bound: SocketAddr) -> String {
    let address = config.advertise.clone();
    let address = address.unwrap_or_else(|| bound.to_string());
    if config.tls.is_some() && !address.contains("://") {
        format!("https://{address}")
    } else {
        address
    }
}

fn planner(config: &Config) -> PlannerConfig {
    PlannerConfig {
        expect_agents: config.expect_agents,
        ..PlannerConfig::default()
    }
}

fn app(
    config: &Config,
    cluster: ClusterId,
    (budget, places): (Budget, &Arc<Places>),
    (address, (relay, renewals)): (&str, (Relay, Renewals)),
    (handle, quorum): (Handle, Option<Arc<dyn Quorum>>),
    shutdown: &CancellationToken,
) -> App {
    App {
        handle,
        limits: Arc::new(config.limits.clone()),
        name: config.name.clone(),
        cluster,
        address: Arc::from(address),
        roots: Roots::new(config.source_roots.clone()),
        planner: planner(config),
        shutdown: shutdown.clone(),
        streams: Arc::new(Semaphore::new(config.limits.event_streams)),
        held: Arc::new(Semaphore::new(budget.held)),
        held_max: budget.held,
        places: Arc::clone(places),
        writes: TaskTracker::new(),
        repeats: Arc::default(),
        logs: Arc::default(),
        quorum,
        relay: Arc::new(relay),
        renewals,
        openapi: routes::document(),
        authentication: config.authentication,
        authority: config.authority.clone(),
        store: config
            .store
            .as_ref()
            .map(|store| Arc::from(store.at.as_str())),
    }
}
