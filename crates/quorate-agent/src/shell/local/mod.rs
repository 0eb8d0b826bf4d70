//! The local API of the runs: each has a unix socket of its own, so the socket itself says who asks.
//!
//! ```text
//! listeners (one a run, held by the warden too) ─► epoll ─► one task ─► a task a connection ─► asks ─► machine
//! ```
//!
//! An idle run costs a descriptor and an entry in a table: all listeners are in one epoll, which one
//! task waits for. Whatever runs do, they hold up nobody but themselves: each has few connections at a
//! time, each connection a time limit, and what they ask comes to the machine by a queue of its own.
//! This must decide nothing: what a run may, the machine and the directors say.

mod http;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_core::agent::{Fate, Item, Latest, RunId, WardenId};
use quorate_core::checkpoint::Content;
use quorate_core::time::Moment;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::launch::API;
use crate::sys::peer_uid;

/// Connections of one run at a time; more wait in its socket.
const OF_A_RUN_MAX: usize = 4;
/// Connections of all runs at a time. One that waits for a commit holds about 10 KiB.
pub(super) const OF_ALL_MAX: usize = 1024;
/// Questions that wait for the machine, which answers each within microseconds.
pub(super) const ASKS_MAX: usize = 64;
/// Listeners looked at in one go.
const EVENTS_MAX: usize = 64;

/// What a run asks.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) warden: WardenId,
    pub(super) run: RunId,
    pub(super) question: Question,
    /// Dropped without an answer: the run is none of this agent's.
    pub(super) answer: oneshot::Sender<Reply>,
}

#[derive(Debug)]
pub(super) enum Question {
    /// What it is and how things stand.
    Look,
    /// It is ready.
    Ready,
    /// Keep this for the next owner.
    Keep(Content),
}

#[derive(Debug)]
pub(super) enum Reply {
    Seen {
        item: Option<Arc<Item>>,
        checkpoint: Option<Latest>,
        deadline: Option<Moment>,
    },
    Noted,
    Kept(Fate),
}

/// The socket of a run.
#[derive(Debug)]
struct Endpoint {
    key: u64,
    warden: WardenId,
    run: RunId,
    listener: UnixListener,
    connections: AtomicUsize,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    endpoints: BTreeMap<u64, Arc<Endpoint>>,
    keys: BTreeMap<(WardenId, RunId), u64>,
}

/// The sockets of all runs. Dropped, it takes no connection any more and cuts those that are open.
#[derive(Debug)]
pub(super) struct Local {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    agent: String,
    /// The folder of the folders of all runs.
    runs: PathBuf,
    epoll: AsyncFd<OwnedFd>,
    table: Mutex<Table>,
    asks: mpsc::Sender<Ask>,
    places: Arc<Semaphore>,
    connections: TaskTracker,
    ended: CancellationToken,
}

impl Local {
    /// Starts the task that takes connections.
    pub(super) fn start(agent: String, runs: PathBuf, asks: mpsc::Sender<Ask>) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let shared = Arc::new(Shared {
            agent,
            runs,
            epoll: crate::sys::watch(epoll)?,
            table: Mutex::default(),
            asks,
            places: Arc::new(Semaphore::new(OF_ALL_MAX)),
            connections: TaskTracker::new(),
            ended: CancellationToken::new(),
        });
        let accepting = Arc::clone(&shared);
        shared.connections.spawn(async move {
            let ended = accepting.ended.clone();
            if let Some(Err(error)) = ended.run_until_cancelled(accept(accepting)).await {
                tracing::error!(%error, "the local API of the runs has failed");
            }
        });
        Ok(Self { shared })
    }

    /// Serves a run at its listener.
    pub(super) fn attach(&self, warden: WardenId, run: RunId, listener: OwnedFd) -> io::Result<()> {
        let listener = UnixListener::from(listener);
        listener.set_nonblocking(true)?;
        let mut table = self.shared.table();
        let key = table.next;
        table.next += 1;
        let endpoint = Arc::new(Endpoint {
            key,
            warden,
            run,
            listener,
            connections: AtomicUsize::new(0),
        });
        epoll::add(
            self.shared.epoll.get_ref(),
            endpoint.listener.as_fd(),
            EventData::new_u64(key),
            EventFlags::IN,
        )?;
        table.keys.insert((warden, run), key);
        table.endpoints.insert(key, endpoint);
        Ok(())
    }

    /// The run has ended.
    pub(super) fn detach(&self, warden: WardenId, run: RunId) {
        let mut table = self.shared.table();
        if let Some(key) = table.keys.remove(&(warden, run)) {
            self.shared.forget(&mut table, key);
        }
    }

    /// All runs of a warden are none of this agent's any more.
    pub(super) fn detach_all(&self, warden: WardenId) {
        let mut table = self.shared.table();
        let keys = std::mem::take(&mut table.keys);
        let (gone, left) = keys.into_iter().partition(|((of, _), _)| *of == warden);
        table.keys = left;
        let gone: BTreeMap<(WardenId, RunId), u64> = gone;
        for key in gone.into_values() {
            self.shared.forget(&mut table, key);
        }
    }

    /// Takes no connection any more, and waits until those that were open are cut.
    pub(super) async fn end(self) {
        let connections = self.shared.connections.clone();
        drop(self);
        connections.close();
        connections.wait().await;
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.shared.ended.cancel();
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, table: &mut Table, key: u64) {
        if let Some(endpoint) = table.endpoints.remove(&key) {
            // Its warden holds the listener too, so closing it here would not end its place there.
            let _gone = epoll::delete(self.epoll.get_ref(), endpoint.listener.as_fd());
        }
    }

    /// Runs that somebody connects to, without waiting.
    fn called(&self) -> io::Result<Vec<Arc<Endpoint>>> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let at_once = Timespec::default();
        let room = rustix::buffer::spare_capacity(&mut events);
        epoll::wait(self.epoll.get_ref(), room, Some(&at_once))?;
        let table = self.table();
        let keys = events.iter().map(|event| event.data.u64());
        Ok(keys
            .filter_map(|key| table.endpoints.get(&key).cloned())
            .collect())
    }

    /// The name of a run's socket, which belongs to the user of the run.
    fn socket(&self, run: RunId) -> PathBuf {
        self.runs.join(run.token.to_string()).join(API)
    }

    fn listen(&self, endpoint: &Endpoint, events: EventFlags) {
        // One that was detached meanwhile is in no epoll.
        let _gone = epoll::modify(
            self.epoll.get_ref(),
            endpoint.listener.as_fd(),
            EventData::new_u64(endpoint.key),
            events,
        );
    }

    /// Takes a place for a connection of a run. With the last one it is not listened to until one ends.
    fn begin(self: &Arc<Self>, endpoint: &Arc<Endpoint>) -> Place {
        let _order = self.table();
        let open = endpoint.connections.fetch_add(1, Ordering::Relaxed) + 1;
        if open >= OF_A_RUN_MAX {
            self.listen(endpoint, EventFlags::empty());
        }
        Place {
            shared: Arc::clone(self),
            endpoint: Arc::clone(endpoint),
        }
    }
}

/// A connection of a run, as long as it is open.
#[derive(Debug)]
struct Place {
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _order = self.shared.table();
        if self.endpoint.connections.fetch_sub(1, Ordering::Relaxed) == OF_A_RUN_MAX {
            self.shared.listen(&self.endpoint, EventFlags::IN);
        }
    }
}

async fn accept(shared: Arc<Shared>) -> io::Result<()> {
    loop {
        let mut ready = shared.epoll.readable().await?;
        loop {
            let called = shared.called()?;
            if called.is_empty() {
                ready.clear_ready();
                break;
            }
            for endpoint in called {
                accept_one(&shared, &endpoint).await?;
            }
            // Runs that connect without end must not keep this thread to themselves.
            tokio::task::yield_now().await;
        }
    }
}

async fn accept_one(shared: &Arc<Shared>, endpoint: &Arc<Endpoint>) -> io::Result<()> {
    // Each has a time limit, so one ends soon.
    let place = Arc::clone(&shared.places).acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    if shared.ended.is_cancelled() {
        // It waits at its warden for the next process.
        return Ok(());
    }
    let stream = match endpoint.listener.accept() {
        Ok((stream, _)) => stream,
        // It has gone again; or there is no descriptor left, and the next try comes at once.
        Err(error) => {
            tracing::debug!(%error, token = endpoint.run.token.0, "local API");
            return Ok(());
        }
    };
    let Ok(asker) = peer_uid(stream.as_fd()) else {
        return Ok(());
    };
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    let of_run = shared.begin(endpoint);
    let ended = shared.ended.clone();
    shared.connections.spawn(async move {
        let served = http::serve(stream, asker, &of_run);
        let _ended = ended.run_until_cancelled(served).await;
        drop((of_run, place));
    });
    Ok(())
}
