//! The embedded ledger as its callers see it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::errors::{ClientWriteError, RaftError};
use openraft::{Config, EntryPayload, ReadPolicy, SnapshotPolicy};
use quorate_core::ids::{DirectorName, Epoch, Position};
use quorate_core::record::ENTRY_BYTES_MAX;
use quorate_ledger::{
    AppendError, Appended, Cause, Committed, Hints, Ledger, READ_BYTES_MAX, ReadError, Snapshot,
    Tail,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::error::{Failure, OpenError};
use crate::files;
use crate::identity::{self, Identity};
use crate::keeper::{Keeper, Save};
use crate::log::{self, LogStore, Sizes};
use crate::machine::{Machine, View};
use crate::network::NoPeers;
use crate::snapshot;
use crate::types::{Entry, Member, Outcome, Proposal, Raft};
use crate::watch::Watcher;

/// An append that takes longer has an unknown outcome.
const APPEND_LIMIT: Duration = Duration::from_secs(5);
/// A read that takes longer is unavailable.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// A large snapshot on a slow disk takes its time.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of a segment of the log: large enough that a new one is rare, small enough that the folder of a
/// trial on one machine stays small.
const SEGMENT_BYTES: u32 = 16 * 1024 * 1024;
/// Bytes of entries kept in memory, so that directors that follow closely are served without the disk.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// How to open the embedded ledger.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder that holds everything; made if need be, locked while the ledger is open.
    pub dir: PathBuf,
    /// The name of this director, which the folder belongs to.
    pub name: DirectorName,
    /// Where the other directors reach this one; empty while it is alone.
    pub address: String,
    /// Bytes of a segment file of the log, at least 64 KiB.
    pub segment_bytes: u32,
    /// Bytes of entries kept in memory.
    pub cache_bytes: usize,
}

impl Options {
    /// The usual options of a director that is alone.
    #[must_use]
    pub const fn new(dir: PathBuf, name: DirectorName) -> Self {
        Self {
            dir,
            name,
            address: String::new(),
            segment_bytes: SEGMENT_BYTES,
            cache_bytes: CACHE_BYTES,
        }
    }
}

/// The ledger on this machine's disk, replicated by Raft.
#[derive(Debug)]
pub struct Embedded {
    identity: Identity,
    raft: Raft,
    view: Arc<View>,
    log: LogStore,
    running: Mutex<Option<Running>>,
}

/// What is stopped by [`Embedded::shutdown`].
#[derive(Debug)]
struct Running {
    /// Dropping it ends the keeper.
    saves: mpsc::Sender<Save>,
    keeper: JoinHandle<()>,
    /// Dropping it ends the watcher.
    stop: oneshot::Sender<()>,
    watcher: JoinHandle<()>,
}

impl Embedded {
    /// Opens the folder and starts the replicated log. A new folder becomes a new quorum of one.
    ///
    /// Returns before this director leads; [`Ledger::hints`] tells when.
    ///
    /// # Errors
    /// When the folder is in use, belongs to another director, cannot be written, or is damaged in a way
    /// that could lose what was acknowledged; then nothing in it was changed.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let on_disk = options.clone();
        let opened = tokio::task::spawn_blocking(move || open_disk(&on_disk)).await;
        let (identity, view, log) =
            opened.map_err(|panicked| OpenError::Start(panicked.into()))??;
        let raft = start(&identity, &options, &view, &log)
            .await
            .map_err(OpenError::Start)?;
        tracing::info!(
            dir = %options.dir.display(),
            director = identity.name,
            id = identity.node,
            "the ledger is open"
        );
        // One at a time: the next snapshot makes the one that waits needless.
        let (saves, received) = mpsc::channel(1);
        let keeper = Keeper {
            view: Arc::clone(&view),
            log: log.clone(),
            raft: raft.clone(),
        };
        let watcher = Watcher {
            view: Arc::clone(&view),
            log: log.clone(),
            raft: raft.clone(),
        };
        let (stop, stopped) = oneshot::channel();
        let running = Running {
            saves,
            keeper: tokio::spawn(keeper.run(received)),
            stop,
            watcher: tokio::spawn(watcher.run(stopped)),
        };
        Ok(Self {
            identity,
            raft,
            view,
            log,
            running: Mutex::new(Some(running)),
        })
    }

    /// The random identity of this director, minted with its folder.
    #[must_use]
    pub const fn node_id(&self) -> u64 {
        self.identity.node
    }

    /// The random identity of the cluster.
    #[must_use]
    pub const fn cluster_id(&self) -> u64 {
        self.identity.cluster
    }

    /// Waits until the ledger has failed for good. Whoever hears of it must end the process: what is on
    /// disk is known again only after reopening.
    pub async fn failed(&self) -> Failure {
        let mut failed = self.log.failed();
        if let Ok(failure) = failed.wait_for(Option::is_some).await
            && let Some(failure) = failure.clone()
        {
            return failure;
        }
        // The log was closed in good order, and so will never fail.
        std::future::pending().await
    }

    /// Closes the ledger: everything is synced and the folder is free for another process. Calls from
    /// here on fail. Closing twice does nothing.
    pub async fn shutdown(&self) {
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(running) = running else { return };
        drop(running.stop);
        drop(running.saves);
        for (task, done) in [
            ("watcher", running.watcher.await),
            ("keeper", running.keeper.await),
            ("replicated log", self.raft.shutdown().await),
        ] {
            if let Err(error) = done {
                tracing::warn!(task, %error, "a task of the ledger did not end well");
            }
        }
        if let Err(error) = self.log.close().await {
            tracing::warn!(%error, "the log was not closed in good order");
        }
    }

    async fn propose(&self, proposal: Proposal) -> Result<Appended, AppendError> {
        let at = proposal.at;
        let refused = |cause: Cause| AppendError::Refused { at, cause };
        let unknown = |cause: Cause| AppendError::OutcomeUnknown { at, cause };
        let written = tokio::time::timeout(APPEND_LIMIT, self.raft.client_write(proposal)).await;
        let outcome = match written {
            Ok(Ok(response)) => response.data,
            // This answer is given only before the proposal got into the log.
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(error)))) => {
                return Err(refused(error.into()));
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error)))) => {
                return Err(refused(error.into()));
            }
            Ok(Err(error)) => return Err(unknown(error.into())),
            Err(elapsed) => return Err(unknown(elapsed.into())),
        };
        match outcome {
            Outcome::Appended => Ok(Appended::Appended),
            Outcome::PositionTaken => Ok(Appended::PositionTaken),
            Outcome::Gap { next } => Err(refused(gap(next))),
            Outcome::Nothing => Err(unknown("the proposal was applied as something else".into())),
        }
    }

    async fn read_entries(&self, indices: Vec<u64>) -> Result<Vec<Entry>, Cause> {
        if self.log.in_memory(&indices) {
            return Ok(self.log.read(indices, READ_BYTES_MAX)?);
        }
        let log = self.log.clone();
        let read = tokio::task::spawn_blocking(move || log.read(indices, READ_BYTES_MAX));
        Ok(tokio::time::timeout(READ_LIMIT, read).await???)
    }
}

fn gap(next: Position) -> Cause {
    format!("position {next} before it is still free").into()
}

fn open_disk(options: &Options) -> Result<(Identity, Arc<View>, LogStore), OpenError> {
    let dir = &options.dir;
    let lock = files::lock(dir)?;
    let identity = identity::load_or_mint(dir, options.name.as_str())?;
    let head = snapshot::load_newest(dir)?;
    let sizes = Sizes {
        segment: options.segment_bytes.max(64 * 1024),
        cache: options.cache_bytes,
    };
    let log = log::open(dir, sizes, lock)?;
    if let Some(purged) = log.purged()
        && head
            .as_ref()
            .is_none_or(|head| head.last.index < purged.index)
    {
        let what = "does not reach the records that were purged, or is missing";
        return Err(OpenError::damaged(&snapshot::path(dir), what));
    }
    let view = View::restore(dir.clone(), head, &log).map_err(|error| {
        OpenError::damaged(
            &snapshot::path(dir),
            format!("does not fit the log: {error}"),
        )
    })?;
    Ok((identity, view, log))
}

async fn start(
    identity: &Identity,
    options: &Options,
    view: &Arc<View>,
    log: &LogStore,
) -> Result<Raft, Cause> {
    let config = Config {
        cluster_name: format!("{:x}", identity.cluster),
        heartbeat_interval: 50,
        election_timeout_min: 150,
        election_timeout_max: 300,
        enable_pre_vote: Some(true),
        // A leader that comes back asks again, since others may have followed it.
        enable_leader_restore: Some(false),
        // Snapshots are made of the fold, which only the director has.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // Who lags behind gets the log as long as the log has it.
        replication_lag_threshold: u64::MAX / 2,
        install_snapshot_timeout: 60_000,
        ..Config::default()
    };
    let config = Arc::new(config.validate()?);
    let machine = Machine::new(Arc::clone(view));
    let raft = Raft::new(identity.node, config, NoPeers, log.clone(), machine).await?;
    if !raft.is_initialized().await? {
        let member = Member {
            name: identity.name.clone(),
            address: options.address.clone(),
        };
        raft.initialize(BTreeMap::from([(identity.node, member)]))
            .await?;
    }
    Ok(raft)
}

impl Ledger for Embedded {
    async fn append(
        &self,
        at: Position,
        epoch: Epoch,
        entry: Vec<u8>,
    ) -> Result<Appended, AppendError> {
        if entry.len() > ENTRY_BYTES_MAX {
            let bytes = entry.len();
            let cause =
                format!("an entry has at most {ENTRY_BYTES_MAX} bytes, this one has {bytes}");
            return Err(AppendError::Refused {
                at,
                cause: cause.into(),
            });
        }
        // What is occupied stays occupied, so a losing append costs no write.
        if at < self.view.applied().next {
            return Ok(Appended::PositionTaken);
        }
        self.propose(Proposal {
            at,
            epoch,
            entry: Arc::from(entry),
        })
        .await
    }

    async fn tail(&self) -> Result<Tail, ReadError> {
        let confirmed = tokio::time::timeout(
            READ_LIMIT,
            self.raft.ensure_linearizable(ReadPolicy::ReadIndex),
        );
        match confirmed.await {
            Ok(Ok(_)) => {
                let applied = self.view.applied();
                Ok(Tail {
                    next: applied.next,
                    epoch: applied.epoch,
                })
            }
            Ok(Err(error)) => Err(ReadError::Unavailable(error.into())),
            Err(elapsed) => Err(ReadError::Unavailable(elapsed.into())),
        }
    }

    async fn read(&self, from: Position, limit: usize) -> Result<Vec<Committed>, ReadError> {
        let from = from.max(Position(1));
        let trimmed = |first: Position| (from < first).then_some(ReadError::Trimmed { first });
        let indices = {
            let applied = self.view.applied();
            if let Some(trimmed) = trimmed(applied.first) {
                return Err(trimmed);
            }
            // Entries are a few bytes at least; more than this is never within the limit of bytes.
            applied.indices(from, limit.min(READ_BYTES_MAX / 128))
        };
        let entries = self
            .read_entries(indices)
            .await
            .map_err(ReadError::Unavailable)?;
        // It may have been trimmed while it was read.
        if let Some(trimmed) = trimmed(self.view.applied().first) {
            return Err(trimmed);
        }
        let mut found = Vec::with_capacity(entries.len());
        for (position, entry) in (from.0..).map(Position).zip(entries) {
            match entry.payload {
                EntryPayload::Normal(proposal) if proposal.at == position => {
                    found.push(Committed {
                        position,
                        entry: proposal.entry.to_vec(),
                    });
                }
                EntryPayload::Normal(_) | EntryPayload::Blank | EntryPayload::Membership(_) => {
                    let cause = format!("position {position} is not where it was applied");
                    return Err(ReadError::Unavailable(cause.into()));
                }
            }
        }
        Ok(found)
    }

    async fn save_snapshot(&self, next: Position, snapshot: Vec<u8>) -> Result<(), ReadError> {
        let closed = || ReadError::Unavailable("the ledger was closed".into());
        let saves = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(|running| running.saves.clone())
            .ok_or_else(closed)?;
        let saved = async {
            let (done, answer) = oneshot::channel();
            let save = Save {
                next,
                fold: snapshot,
                done,
            };
            saves.send(save).await.map_err(|_| closed())?;
            drop(saves);
            answer.await.map_err(|_| closed())?
        };
        match tokio::time::timeout(SNAPSHOT_LIMIT, saved).await {
            Ok(saved) => saved,
            Err(elapsed) => Err(ReadError::Unavailable(elapsed.into())),
        }
    }

    async fn load_snapshot(&self) -> Result<Option<Snapshot>, ReadError> {
        if self.view.applied().kept.is_none() {
            return Ok(None);
        }
        let view = Arc::clone(&self.view);
        let loaded = tokio::task::spawn_blocking(move || {
            let mut file = snapshot::open_newest(view.dir())?;
            snapshot::read(&mut file)
        });
        let loaded = match tokio::time::timeout(SNAPSHOT_LIMIT, loaded).await {
            Ok(Ok(Ok(loaded))) => loaded,
            Ok(Ok(Err(error))) => return Err(ReadError::Unavailable(error.into())),
            Ok(Err(panicked)) => return Err(ReadError::Unavailable(panicked.into())),
            Err(elapsed) => return Err(ReadError::Unavailable(elapsed.into())),
        };
        Ok(Some(Snapshot {
            next: loaded.head.next,
            bytes: loaded.fold,
        }))
    }

    fn hints(&self) -> watch::Receiver<Hints> {
        self.view.hints().subscribe()
    }
}
