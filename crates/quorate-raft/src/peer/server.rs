//! Listens for other directors and answers them.
//!
//! It must never let anybody vote, append or ask whose certificate, cluster and identity were not
//! checked, nor somebody speak for another director, nor wait for anybody without a limit.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::Snapshot;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::AppendEntriesResponse;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::client::within;
use super::frame::{self, FRAME_MAX, GREETING_MAX};
use super::wire::{
    Answer, Append, Ballot, GREETING, Hello, NEWEST, OLDEST, Request, SnapshotHead, Transfer, Vote,
    Welcome,
};
use super::{Contact, Ties, Tls, Us, receive, tls};
use crate::snapshot;
use crate::types::{Raft, SnapshotMeta, StoredMembership};

/// TLS and greeting must be done within this time.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// A connection on which nobody asks anything for longer is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// Longer than anybody waits for an answer, so that a disk that hangs does not collect connections.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Installing a snapshot takes as long as the disk needs to write it.
const INSTALL_LIMIT: Duration = Duration::from_secs(60);
/// Connections in all: seven directors with their eight each, and learners.
const CONNECTIONS: usize = 128;
/// Connections that one address may have at a time before they are greeted, so that a stranger does
/// not keep the others out.
const STRANGERS: u32 = 16;
/// Pause after an error of accepting, which mostly means that there are too many files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

type Stream = TlsStream<TcpStream>;

/// The side that listens.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) us: Us,
    pub(crate) tls: Arc<Tls>,
    pub(crate) raft: Raft,
    pub(crate) contact: Arc<Contact>,
    pub(crate) ties: Arc<Ties>,
    /// Where snapshots that are received lie until they are whole.
    pub(crate) dir: PathBuf,
    /// For this time after the start nobody gets a vote: the promise to a leader that was given before
    /// it is not on disk.
    pub(crate) no_votes_for: Duration,
}

/// What is counted.
#[derive(Debug)]
struct Limits {
    connections: Arc<Semaphore>,
    strangers: Mutex<BTreeMap<IpAddr, u32>>,
    snapshots: Semaphore,
}

/// One connection that was not greeted yet, counted until this is dropped.
struct Stranger<'a> {
    limits: &'a Limits,
    address: IpAddr,
}

impl Limits {
    fn strangers(&self) -> MutexGuard<'_, BTreeMap<IpAddr, u32>> {
        self.strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn stranger(&self, address: IpAddr) -> Option<Stranger<'_>> {
        let mut strangers = self.strangers();
        let count = strangers.entry(address).or_default();
        if *count >= STRANGERS {
            return None;
        }
        *count += 1;
        Some(Stranger {
            limits: self,
            address,
        })
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        let mut strangers = self.limits.strangers();
        if let Some(count) = strangers.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                strangers.remove(&self.address);
            }
        }
    }
}

impl Server {
    /// Serves until `stop` is sent or dropped; then every connection is closed.
    pub(crate) async fn run(self, listener: TcpListener, mut stop: oneshot::Receiver<()>) {
        let limits = Arc::new(Limits {
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            strangers: Mutex::new(BTreeMap::new()),
            snapshots: Semaphore::new(1),
        });
        let server = Arc::new(self);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = &mut stop => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, from)) => {
                    // Without a permit the socket is dropped, which is all that is said to so many.
                    if let Ok(permit) = Arc::clone(&limits.connections).try_acquire_owned() {
                        let (server, limits) = (Arc::clone(&server), Arc::clone(&limits));
                        connections.spawn(async move {
                            server.connection(socket, from.ip(), &limits).await;
                            drop(permit);
                        });
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection of a director was not accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
        connections.shutdown().await;
    }

    async fn connection(&self, socket: TcpStream, address: IpAddr, limits: &Limits) {
        let Some(stranger) = limits.stranger(address) else {
            return;
        };
        let greeted = within(HANDSHAKE_LIMIT, self.greet(socket)).await;
        drop(stranger);
        match greeted {
            Ok((stream, from)) => {
                let _tie = self.ties.tie(from);
                // However it ends: whoever dialled notices and dials again.
                drop(self.converse(stream, from, limits).await);
            }
            Err(error) => {
                tracing::info!(%address, %error, "somebody was refused on the port of the directors");
            }
        }
    }

    async fn greet(&self, socket: TcpStream) -> io::Result<(Stream, u64)> {
        socket.set_nodelay(true)?;
        let acceptor = TlsAcceptor::from(self.tls.now().server);
        let mut stream = acceptor.accept(socket).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let named = tls::director_of(shown, self.us.cluster);
        let hello: Hello = frame::read(&mut stream, GREETING_MAX).await?;
        let members = self
            .raft
            .metrics()
            .borrow_watched()
            .membership_config
            .clone();
        let checked = named.and_then(|name| check(&self.us, &name, &hello, &members));
        match checked {
            Ok(version) => {
                frame::write(&mut stream, &Welcome::Accepted { version }).await?;
                Ok((stream, hello.from))
            }
            Err(why) => {
                let refused = Welcome::Refused { why: why.clone() };
                frame::write(&mut stream, &refused).await?;
                Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
            }
        }
    }

    async fn converse(&self, mut stream: Stream, from: u64, limits: &Limits) -> io::Result<()> {
        loop {
            let request = within(IDLE_LIMIT, frame::read(&mut stream, FRAME_MAX)).await?;
            if let Request::Snapshot(head) = request {
                let answer = self.snapshot(&mut stream, from, head, limits).await;
                // What is left of it on the way is not read any more.
                return within(ANSWER_LIMIT, frame::write(&mut stream, &answer)).await;
            }
            let answer = match tokio::time::timeout(ANSWER_LIMIT, self.answer(from, request)).await
            {
                Ok(Ok(answer)) => answer,
                Ok(Err(why)) => Answer::Failed(why),
                Err(_) => Answer::Failed(format!("it took more than {ANSWER_LIMIT:?}")),
            };
            within(ANSWER_LIMIT, frame::write(&mut stream, &answer)).await?;
        }
    }

    async fn answer(&self, from: u64, request: Request) -> Result<Answer, String> {
        match request {
            Request::Append(append) => self.append(from, append).await,
            Request::Vote(ballot) => self.vote(from, ballot).await,
            Request::PreVote(ballot) => self.pre_vote(from, ballot).await,
            Request::Transfer(transfer) => self.transfer(from, transfer).await,
            Request::ReadIndex => self.read_index().await,
            Request::Snapshot(_) => Err("a snapshot comes with what follows it".to_owned()),
        }
    }

    async fn append(&self, from: u64, append: Append) -> Result<Answer, String> {
        speaks_for_itself(from, append.vote)?;
        let request = append
            .try_into()
            .map_err(|error: io::Error| error.to_string())?;
        let response = self.raft.append_entries(request).await;
        let response = response.map_err(|error| error.to_string())?;
        if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
            self.contact.heard();
        }
        Ok(Answer::Append(response.into()))
    }

    async fn vote(&self, from: u64, ballot: Ballot) -> Result<Answer, String> {
        self.may_vote(from, &ballot)?;
        let voted = self.raft.vote(ballot.into()).await;
        Ok(Answer::Vote(
            voted.map_err(|error| error.to_string())?.into(),
        ))
    }

    async fn pre_vote(&self, from: u64, ballot: Ballot) -> Result<Answer, String> {
        self.may_vote(from, &ballot)?;
        let voted = self.raft.pre_vote(ballot.into()).await;
        Ok(Answer::Vote(
            voted.map_err(|error| error.to_string())?.into(),
        ))
    }

    fn may_vote(&self, from: u64, ballot: &Ballot) -> Result<(), String> {
        speaks_for_itself(from, ballot.vote)?;
        if self.contact.up() < self.no_votes_for && !ballot.transfer {
            return Err("this director has just been started and votes in a moment".to_owned());
        }
        Ok(())
    }

    async fn transfer(&self, from: u64, transfer: Transfer) -> Result<Answer, String> {
        speaks_for_itself(from, transfer.leader)?;
        let transferred = self.raft.handle_transfer_leader(transfer.into()).await;
        let transferred = transferred.map_err(|error| error.to_string())?;
        Ok(Answer::Transfer(transferred.into()))
    }

    /// A round with a majority that begins now, so that who waits for it never reads the past.
    async fn read_index(&self) -> Result<Answer, String> {
        let index = self.raft.get_read_log_id(ReadPolicy::ReadIndex).await;
        let (index, _) = index.map_err(|error| error.to_string())?;
        Ok(Answer::ReadIndex(index.log_id().index))
    }

    async fn snapshot(
        &self,
        stream: &mut Stream,
        from: u64,
        head: SnapshotHead,
        limits: &Limits,
    ) -> Answer {
        let installed = async {
            speaks_for_itself(from, head.vote)?;
            let _only = limits
                .snapshots
                .try_acquire()
                .map_err(|_| "another snapshot is being received".to_owned())?;
            let meta = head.meta().map_err(|error| error.to_string())?;
            let file = receive::to_file(stream, &self.dir, head.bytes).await;
            let file = file.map_err(|error| format!("it was not received: {error}"))?;
            let snapshot = checked(file, &meta).await?;
            let snapshot = Snapshot { meta, snapshot };
            let installing = self.raft.install_full_snapshot(head.vote.into(), snapshot);
            match tokio::time::timeout(INSTALL_LIMIT, installing).await {
                Ok(installed) => installed.map_err(|error| error.to_string()),
                Err(elapsed) => Err(elapsed.to_string()),
            }
        };
        match installed.await {
            Ok(response) => Answer::Snapshot(response.vote.into()),
            Err(why) => Answer::Failed(why),
        }
    }
}

/// Whether somebody may speak, and in which version.
fn check(us: &Us, name: &str, hello: &Hello, members: &StoredMembership) -> Result<u16, String> {
    if hello.greeting != GREETING {
        return Err("this is the port of the directors; clients have another one".to_owned());
    }
    let version = hello.newest.min(NEWEST);
    if version < hello.oldest.max(OLDEST) {
        return Err(format!(
            "it speaks versions {} to {}, this director {OLDEST} to {NEWEST}; update the older one",
            hello.oldest, hello.newest
        ));
    }
    if hello.cluster != us.cluster {
        let (found, ours) = (hello.cluster, us.cluster);
        return Err(format!(
            "it belongs to cluster {found}, this director to cluster {ours}"
        ));
    }
    if hello.to != us.node {
        return Err(format!(
            "this is director {:?} with the id {}, not {}: one folder was made anew; remove the old id \
             from the cluster and add the new one",
            us.name, us.node, hello.to
        ));
    }
    if let Some(known) = members.get_node(&hello.from)
        && known.name != name
    {
        return Err(format!(
            "the id {} is that of director {:?}, not of {name:?}",
            hello.from, known.name
        ));
    }
    let other = |(id, member): (&u64, &crate::types::Member)| {
        (*id != hello.from && member.name == name).then_some(*id)
    };
    if hello.empty
        && let Some(known) = members.nodes().find_map(other)
    {
        return Err(format!(
            "director {name:?} is a member with the id {known}, this one has a new folder: remove the \
             old one from the cluster and add the new one"
        ));
    }
    Ok(version)
}

/// A snapshot that is damaged is refused here: the Raft library would stop this director for it.
async fn checked(mut file: File, meta: &SnapshotMeta) -> Result<File, String> {
    let meta = meta.clone();
    let checking =
        tokio::task::spawn_blocking(move || snapshot::check(&mut file, &meta).map(|()| file));
    let checked = checking.await.map_err(|error| error.to_string())?;
    checked.map_err(|error| format!("it is not whole: {error}"))
}

/// Who leads or wants to speaks for itself only.
fn speaks_for_itself(from: u64, vote: Vote) -> Result<(), String> {
    if vote.node == from {
        Ok(())
    } else {
        Err(format!("director {from} cannot speak for {}", vote.node))
    }
}
