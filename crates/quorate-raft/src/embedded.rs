//! The embedded ledger as its callers see it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::errors::{ClientWriteError, RaftError};
use openraft::{EntryPayload, ReadPolicy};
use quorate_core::ids::{Epoch, Position};
use quorate_core::record::ENTRY_BYTES_MAX;
use quorate_ledger::{
    AppendError, Appended, Cause, Committed, Hints, Ledger, READ_BYTES_MAX, ReadError, Snapshot,
    Tail,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::error::{Failure, OpenError};
use crate::identity::Identity;
use crate::keeper::{Keeper, Save};
use crate::link::{Link, LinkedPeers, Serving};
use crate::log::LogStore;
use crate::machine::View;
use crate::options::{Options, Timing};
use crate::peer::{Answer, Contact, Request};
use crate::snapshot;
use crate::start;
use crate::types::{Entry, Outcome, Proposal, Raft};
use crate::watch::Watcher;

/// An append that takes longer has an unknown outcome.
const APPEND_LIMIT: Duration = Duration::from_secs(5);
/// A read that takes longer is unavailable.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// A large snapshot on a slow disk takes its time.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(60);

/// The ledger on this machine's disk, replicated by Raft.
#[derive(Debug)]
pub struct Embedded {
    pub(crate) identity: Identity,
    pub(crate) raft: Raft,
    view: Arc<View>,
    log: LogStore,
    pub(crate) peers: Option<LinkedPeers>,
    pub(crate) timing: Timing,
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
    server: Option<Serving>,
}

impl Embedded {
    /// Opens the folder and starts the replicated log. A new folder becomes a new quorum of one.
    ///
    /// Returns before this director leads; [`Ledger::hints`] tells when. All of the ledger's own tasks run on the
    /// runtime that this is called on: a director that gives it one of its own does not lose its leadership
    /// because its other threads have too much to do.
    ///
    /// # Errors
    /// When the folder is in use, belongs to another director, cannot be written, or is damaged in a way
    /// that could lose what was acknowledged; then nothing in it was changed.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let on_disk = options.clone();
        let opened = tokio::task::spawn_blocking(move || start::open_disk(&on_disk)).await;
        let (identity, view, log) =
            opened.map_err(|panicked| OpenError::Start(panicked.into()))??;
        let link = match &options.peers {
            Some(peers) => Some(Link::new(&identity, peers).await?),
            None => None,
        };
        let client = link.as_ref().map(|link| Arc::clone(&link.client));
        let raft = start::raft(&identity, &options, &view, &log, client)
            .await
            .map_err(OpenError::Start)?;
        tracing::info!(
            dir = %options.dir.display(),
            director = identity.name,
            id = identity.node,
            "the ledger is open"
        );
        let contact = Contact::new();
        // One at a time: the next snapshot makes the one that waits needless.
        let (saves, received) = mpsc::channel(1);
        let keeper = Keeper {
            view: Arc::clone(&view),
            log: log.clone(),
            raft: raft.clone(),
        };
        let (peers, server) = match link {
            Some(link) => {
                let (peers, server) = link.serve(&options, (&raft, &log), &contact);
                (Some(peers), Some(server))
            }
            None => (None, None),
        };
        let watcher = Watcher {
            view: Arc::clone(&view),
            log: log.clone(),
            raft: raft.clone(),
            contact,
            timing: options.timing,
            client: peers.as_ref().map(|peers| Arc::clone(&peers.client)),
        };
        let (stop, stopped) = oneshot::channel();
        let running = Running {
            saves,
            keeper: tokio::spawn(keeper.run(received)),
            stop,
            watcher: tokio::spawn(watcher.run(stopped)),
            server,
        };
        Ok(Self {
            identity,
            raft,
            view,
            log,
            peers,
            timing: options.timing,
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
        if let Some(Serving {
            stop,
            server,
            orphaned,
        }) = running.server
        {
            drop(orphaned);
            drop(stop);
            if let Err(error) = server.await {
                tracing::warn!(%error, "the port for other directors was not closed well");
            }
        }
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

    /// Waits until everything is applied here that was committed anywhere when this was called: by a
    /// round with a majority that begins after the call, here or, if another director leads, there.
    async fn confirm_read(&self) -> Result<(), Cause> {
        let Some((leader, peers)) = self.other_leader() else {
            self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await?;
            return Ok(());
        };
        let asked = peers.client.ask(&leader, &Request::ReadIndex, READ_LIMIT);
        match asked.await? {
            Answer::ReadIndex(index) => {
                self.raft
                    .wait(Some(READ_LIMIT))
                    .applied_index_at_least(Some(index), "what the leader committed is applied")
                    .await?;
                Ok(())
            }
            Answer::Failed(why) => Err(why.into()),
            Answer::Append(_) | Answer::Vote(_) | Answer::Snapshot(_) | Answer::Transfer(_) => {
                Err("the leader answered another question".into())
            }
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
        let confirmed = tokio::time::timeout(READ_LIMIT, self.confirm_read());
        match confirmed.await {
            Ok(Ok(())) => {
                let applied = self.view.applied();
                Ok(Tail {
                    next: applied.next,
                    epoch: applied.epoch,
                })
            }
            Ok(Err(cause)) => Err(ReadError::Unavailable(cause)),
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
