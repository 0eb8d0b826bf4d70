//! Dials other directors and asks them.
//!
//! Whoever asks waits as long as it wants to; the exchange itself goes on a little longer, so that a
//! connection is not lost because one answer was late. It must never give one answer to two questions,
//! so a connection that broke is thrown away.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::frame::{self, CHUNK, FRAME_MAX, GREETING_MAX};
use super::wire::{Answer, GREETING, Hello, NEWEST, OLDEST, Request, SnapshotHead, Welcome};
use super::{Tls, Us, tls};
use crate::types::Member;

/// A connection that takes longer to be made, greeting included, is given up.
const DIAL_LIMIT: Duration = Duration::from_millis(1500);
/// An answer that takes longer ends the connection.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(2);
/// Connections to one director at a time: for heartbeats, entries, votes and readers; more would only
/// wait for the same peer.
const CONNECTIONS: usize = 8;
/// A connection that was idle for longer is closed; the other side waits longer than that.
const IDLE_LIMIT: Duration = Duration::from_secs(20);
/// One chunk of a snapshot is given up after this time.
const CHUNK_LIMIT: Duration = Duration::from_secs(10);
/// A director that was sent a whole snapshot may need this long to write it.
const INSTALL_LIMIT: Duration = Duration::from_secs(60);

type Stream = TlsStream<TcpStream>;

/// Another director.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) id: u64,
    pub(crate) member: Member,
}

/// The way to the other directors.
#[derive(Debug)]
pub(crate) struct Client {
    us: Us,
    tls: Arc<Tls>,
    from: Option<IpAddr>,
    /// Whether this director's folder has nothing yet.
    empty: AtomicBool,
    /// Where everybody is reached now. The Raft library keeps the address that it began with until the
    /// leader changes.
    members: Mutex<BTreeMap<u64, Member>>,
    ways: Mutex<BTreeMap<u64, Arc<Way>>>,
    /// Where connections live, whoever asks: what holds up the asker must not hold up heartbeats.
    threads: Handle,
}

/// The way to one director at one address.
#[derive(Debug)]
struct Way {
    target: Target,
    idle: Mutex<Vec<(Instant, Stream)>>,
    free: Arc<Semaphore>,
    /// Why it was not reached the last time.
    problem: Mutex<Option<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these locks is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    pub(crate) fn new(us: Us, tls: Arc<Tls>, from: Option<IpAddr>) -> Arc<Self> {
        Arc::new(Self {
            us,
            tls,
            from,
            empty: AtomicBool::new(true),
            members: Mutex::new(BTreeMap::new()),
            ways: Mutex::new(BTreeMap::new()),
            threads: Handle::current(),
        })
    }

    /// Says from now on that this director's folder has something.
    pub(crate) fn not_empty(&self) {
        self.empty.store(false, Ordering::Relaxed);
    }

    /// Where everybody is reached from now on.
    pub(crate) fn know(&self, members: BTreeMap<u64, Member>) {
        *locked(&self.members) = members;
    }

    fn now_at(&self, target: &Target) -> Target {
        let known = locked(&self.members).get(&target.id).cloned();
        let member = known.unwrap_or_else(|| target.member.clone());
        Target {
            id: target.id,
            member,
        }
    }

    /// Asks and waits for the answer, at most `limit`.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        target: &Target,
        request: &Request,
        limit: Duration,
    ) -> Result<Answer, String> {
        let frame = frame::encode(request).map_err(|error| error.to_string())?;
        let way = self.way(&self.now_at(target));
        let asked = async {
            let free = Arc::clone(&way.free);
            let permit = free.acquire_owned().await.map_err(|e| e.to_string())?;
            let exchange = Arc::clone(self).exchange(Arc::clone(&way), frame, permit);
            self.threads
                .spawn(exchange)
                .await
                .map_err(|e| e.to_string())?
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(format!(
                "director {:?} at {} did not answer within {limit:?}{}",
                way.target.member.name,
                way.target.member.address,
                match &*locked(&way.problem) {
                    Some(problem) => format!("; before that: {problem}"),
                    None => String::new(),
                }
            )),
        }
    }

    async fn exchange(
        self: Arc<Self>,
        way: Arc<Way>,
        frame: Vec<u8>,
        _permit: OwnedSemaphorePermit,
    ) -> Result<Answer, String> {
        let exchanged = match way.take() {
            Some(stream) => match converse(stream, &frame).await {
                // It may have been started again since; nobody else is asked on what is left of it.
                Err(_) => {
                    locked(&way.idle).clear();
                    self.dial_and_converse(&way, &frame).await
                }
                done => done,
            },
            None => self.dial_and_converse(&way, &frame).await,
        };
        match exchanged {
            Ok((answer, stream)) => {
                way.note(None);
                way.put(stream);
                Ok(answer)
            }
            Err(error) => {
                let problem = error.to_string();
                way.note(Some(problem.clone()));
                Err(problem)
            }
        }
    }

    async fn dial_and_converse(&self, way: &Way, frame: &[u8]) -> io::Result<(Answer, Stream)> {
        let stream = self.dial(&way.target).await?;
        converse(stream, frame).await
    }

    /// Sends a snapshot on a connection of its own.
    pub(crate) async fn send_snapshot(
        &self,
        target: &Target,
        head: SnapshotHead,
        file: File,
    ) -> Result<Answer, String> {
        let sent = async {
            let mut stream = self.dial(&self.now_at(target)).await?;
            let written = write_snapshot(&mut stream, head, file).await;
            // Who refuses it says why before it closes.
            let answer = within(INSTALL_LIMIT, frame::read(&mut stream, FRAME_MAX)).await;
            match (answer, written) {
                (Ok(answer), _) => Ok(answer),
                (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
            }
        };
        sent.await.map_err(|error| error.to_string())
    }

    async fn dial(&self, target: &Target) -> io::Result<Stream> {
        let Member { name, address } = &target.member;
        let dialled = within(DIAL_LIMIT, self.connect(target)).await;
        dialled.map_err(|error| {
            let what = format!("director {name:?} at {address} cannot be reached: {error}");
            io::Error::new(error.kind(), what)
        })
    }

    async fn connect(&self, target: &Target) -> io::Result<Stream> {
        let socket = self.open_socket(&target.member.address).await?;
        socket.set_nodelay(true)?;
        let connector = TlsConnector::from(self.tls.now().client);
        let mut stream = connector.connect(tls::server_name(), socket).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let found = tls::director_of(shown, self.us.cluster).map_err(denied)?;
        if found != target.member.name {
            return Err(denied(format!("director {found:?} is there instead")));
        }
        let hello = Hello {
            greeting: GREETING.to_owned(),
            oldest: OLDEST,
            newest: NEWEST,
            cluster: self.us.cluster,
            from: self.us.node,
            to: target.id,
            empty: self.empty.load(Ordering::Relaxed),
        };
        frame::write(&mut stream, &hello).await?;
        match frame::read(&mut stream, GREETING_MAX).await? {
            Welcome::Accepted { version } if (OLDEST..=NEWEST).contains(&version) => Ok(stream),
            Welcome::Accepted { version } => Err(denied(format!(
                "it wants version {version}, this one speaks {OLDEST} to {NEWEST}"
            ))),
            Welcome::Refused { why } => Err(denied(why)),
        }
    }

    async fn open_socket(&self, address: &str) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for found in tokio::net::lookup_host(address).await? {
            match self.open_socket_to(found).await {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn open_socket_to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(from) = self.from {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        socket.connect(address).await
    }

    /// Whether the host of a director answers that nobody listens where it did, at each of its addresses.
    pub(crate) async fn is_refused(&self, target: &Target, limit: Duration) -> bool {
        let target = self.now_at(target);
        let asked = async {
            let found = tokio::net::lookup_host(&target.member.address).await;
            let Ok(found) = found else { return false };
            let mut some = false;
            for address in found {
                match self.open_socket_to(address).await {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => some = true,
                    Ok(_) | Err(_) => return false,
                }
            }
            some
        };
        tokio::time::timeout(limit, asked).await.unwrap_or(false)
    }

    fn way(&self, target: &Target) -> Arc<Way> {
        let mut ways = locked(&self.ways);
        let way = ways.entry(target.id).or_insert_with(|| Way::new(target));
        if way.target != *target {
            *way = Way::new(target);
        }
        Arc::clone(way)
    }

    /// Closes what is idle, so that the next connection shows the certificate of now.
    pub(crate) fn forget_idle(&self) {
        for way in locked(&self.ways).values() {
            locked(&way.idle).clear();
        }
    }
}

impl Way {
    fn new(target: &Target) -> Arc<Self> {
        Arc::new(Self {
            target: target.clone(),
            idle: Mutex::new(Vec::new()),
            free: Arc::new(Semaphore::new(CONNECTIONS)),
            problem: Mutex::new(None),
        })
    }

    fn take(&self) -> Option<Stream> {
        let mut idle = locked(&self.idle);
        idle.retain(|(since, _)| since.elapsed() < IDLE_LIMIT);
        idle.pop().map(|(_, stream)| stream)
    }

    fn put(&self, stream: Stream) {
        locked(&self.idle).push((Instant::now(), stream));
    }

    /// Tells once when a way is lost, when the reason changes, and when it is back.
    fn note(&self, problem: Option<String>) {
        let mut before = locked(&self.problem);
        if *before == problem {
            return;
        }
        let director = &self.target.member.name;
        match &problem {
            Some(problem) => tracing::warn!(director, problem, "a director is not reached"),
            None => tracing::info!(director, "a director is reached again"),
        }
        *before = problem;
    }
}

async fn converse(mut stream: Stream, frame: &[u8]) -> io::Result<(Answer, Stream)> {
    use tokio::io::AsyncWriteExt;
    let exchanged = async {
        stream.write_all(frame).await?;
        stream.flush().await?;
        frame::read(&mut stream, FRAME_MAX).await
    };
    let answer = within(EXCHANGE_LIMIT, exchanged).await?;
    Ok((answer, stream))
}

async fn write_snapshot(stream: &mut Stream, head: SnapshotHead, file: File) -> io::Result<()> {
    let mut file = tokio::fs::File::from_std(file);
    let mut chunk = vec![0; CHUNK];
    within(CHUNK_LIMIT, frame::write(stream, &Request::Snapshot(head))).await?;
    loop {
        let read = file.read(&mut chunk).await?;
        let bytes = chunk.get(..read).unwrap_or_default();
        within(CHUNK_LIMIT, frame::write_bytes(stream, bytes)).await?;
        if bytes.is_empty() {
            return Ok(());
        }
    }
}

/// Does it within a limit.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("nothing came within {limit:?}"),
        )),
    }
}

fn denied(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}
