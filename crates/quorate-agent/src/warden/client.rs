//! The agent's side of the warden: start one, find and adopt one, talk to it, and know for sure that
//! everything it held is dead.
//!
//! Must never take a warden's silence for its death: only [`Proof`] says that nothing executes any more.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Command;
use tokio::time::timeout;

use crate::sys::watch;

use super::group::Leftover;
use super::protocol::{Order, PROTOCOL, Reply};
use super::wire::{self, Inbox, WireError};
use super::{LOG, SOCKET};

/// What a warden writes on its standard output once it listens; anything else is why it does not.
pub(crate) const READY: &str = "ready";

/// A warden proves its kill path before it listens; on a host so slow that this takes longer, no
/// run should be started.
const SPAWN_WITHIN: Duration = Duration::from_secs(20);
/// A living warden answers in microseconds; a frozen one never.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The kernel empties a control group in milliseconds; what takes longer waits for a device.
const CLEAR_WITHIN: Duration = Duration::from_secs(2);
/// Longest path a unix socket address holds.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Why there is no connection to a warden.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No warden listens in this folder.
    #[error("no warden lives in {}", dir.display())]
    Absent {
        /// The folder.
        dir: PathBuf,
    },
    /// Another agent is connected to it.
    #[error("the warden in {} serves another agent", dir.display())]
    Busy {
        /// The folder.
        dir: PathBuf,
    },
    /// It speaks a protocol that this agent does not know; it is left to its runs until they end.
    #[error("the warden in {} speaks protocol {protocol}, this agent {PROTOCOL}", dir.display())]
    Protocol {
        /// The folder.
        dir: PathBuf,
        /// What the warden speaks.
        protocol: u32,
    },
    /// It did not answer in time: frozen, or the host is overloaded.
    #[error("the warden in {} does not answer within {within:?}", dir.display())]
    Silent {
        /// The folder.
        dir: PathBuf,
        /// How long was waited.
        within: Duration,
    },
    /// It could not be started.
    #[error("a warden cannot be started in {}: {reason}", dir.display())]
    NotStarted {
        /// The folder.
        dir: PathBuf,
        /// What it said, or the end of its log.
        reason: String,
    },
    /// Talking to it failed.
    #[error("talking to the warden in {} failed", dir.display())]
    Talk {
        /// The folder.
        dir: PathBuf,
        /// How.
        #[source]
        cause: TalkError,
    },
}

/// Why an established connection to a warden is of no use any more. Its runs may live: ask [`Proof`].
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    /// The warden closed the connection.
    #[error("the warden closed the connection")]
    Closed,
    /// The socket failed.
    #[error("the warden's socket failed")]
    Socket(#[from] io::Error),
    /// What came or was to be sent is no frame of the protocol.
    #[error("the warden's protocol is broken")]
    Wire(#[from] WireError),
}

/// Why it is not known that everything a warden held is dead.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    /// Something may still execute.
    #[error("something of the warden may still execute after {within:?}")]
    Alive {
        /// How long was waited.
        within: Duration,
    },
    /// The warden ended without a proof; only its deadline and a new boot of the host prove it now.
    #[error("the warden ended without a proof that its runs are dead")]
    NoProof,
    /// The proof cannot be read.
    #[error("the proof of death cannot be read")]
    Unreadable(#[from] io::Error),
}

/// What a warden said of itself at the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Process id of the holder of the kill timer.
    pub pid: u32,
    /// What it could prove of its kill path.
    pub containment: String,
    /// Why that is not better, a sentence each, for people.
    pub shortfalls: Vec<String>,
    /// The blob last kept.
    pub blob: Option<Vec<u8>>,
    /// The deadline as armed, CLOCK_BOOTTIME in nanoseconds.
    pub deadline: Option<u64>,
    /// How many runs it tells of next, each by one [`Reply::Started`].
    pub runs: u32,
}

/// On what terms a warden is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long it waits for a new agent when the connection to the last one is lost.
    pub adopt_within: Duration,
    /// The lease of its class: no deadline is farther ahead.
    pub lease: Duration,
    /// How many open files runs may have unless they raise that themselves; as the warden when absent.
    pub files: Option<u64>,
}

impl Terms {
    /// Those of a warden that serves no lease class: its deadlines are bounded by a day.
    #[must_use]
    pub const fn of_a_trial(adopt_within: Duration) -> Self {
        Self {
            adopt_within,
            lease: Duration::from_secs(24 * 3600),
            files: None,
        }
    }
}

/// A connection to a living warden, greeted and answered.
#[derive(Debug)]
pub struct Client {
    /// What it said of itself.
    pub state: State,
    /// For orders.
    pub sender: Sender,
    /// For replies: first those that tell what it holds, see [`Reply::State`].
    pub receiver: Receiver,
    /// Tells its death.
    pub proof: Proof,
}

impl Client {
    /// Starts a warden in `dir` (made if it is missing) that outlives this process, and connects.
    ///
    /// `program` is called as `program warden --dir DIR --adopt-within 5000ms --lease 10000ms`, and
    /// `--files 1024` when that is told, and hands these arguments to
    /// [`crate::warden::Options::from_args`].
    ///
    /// # Errors
    /// When it cannot be started, or refuses, or another one lives there.
    pub async fn spawn(program: &Path, dir: &Path, terms: Terms) -> Result<Self, ConnectError> {
        let not_started = |reason: String| ConnectError::NotStarted {
            dir: dir.to_owned(),
            reason,
        };
        let log = open_log(dir).map_err(|cause| not_started(cause.to_string()))?;
        let files = terms
            .files
            .map(|files| ["--files".to_owned(), files.to_string()]);
        let mut child = Command::new(program)
            .arg("warden")
            .arg("--dir")
            .arg(dir)
            .arg("--adopt-within")
            .arg(format!("{}ms", terms.adopt_within.as_millis()))
            .arg("--lease")
            .arg(format!("{}ms", terms.lease.as_millis()))
            .args(files.into_iter().flatten())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .spawn()
            .map_err(|cause| not_started(format!("{}: {cause}", program.display())))?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            timeout(SPAWN_WITHIN, BufReader::new(output).read_line(&mut line))
                .await
                .map_err(|_elapsed| ConnectError::Silent {
                    dir: dir.to_owned(),
                    within: SPAWN_WITHIN,
                })?
                .map_err(|cause| not_started(cause.to_string()))?;
        }
        match line.trim() {
            READY => Self::connect(dir).await,
            "" => Err(not_started(format!(
                "it ended at once; see {}",
                dir.join(LOG).display()
            ))),
            reason => Err(not_started(reason.to_owned())),
        }
    }

    /// Connects to the warden that lives in `dir`.
    ///
    /// # Errors
    /// When none lives there, it is another agent's, or it does not answer.
    pub async fn connect(dir: &Path) -> Result<Self, ConnectError> {
        match timeout(ANSWER_WITHIN, Self::greet(dir)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(ConnectError::Silent {
                dir: dir.to_owned(),
                within: ANSWER_WITHIN,
            }),
        }
    }

    async fn greet(dir: &Path) -> Result<Self, ConnectError> {
        let dir = dir.to_owned();
        let socket = match open_socket(&dir).await {
            Ok(socket) => socket,
            Err(cause) => return Err(refused(dir, cause)),
        };
        let (read, write) = socket.into_split();
        let mut sender = Sender { write };
        let mut receiver = Receiver {
            read,
            inbox: Inbox::default(),
        };
        let hello = Order::Hello { protocol: PROTOCOL };
        if let Err(cause) = sender.send(&hello).await {
            return Err(ConnectError::Talk { dir, cause });
        }
        match receiver.recv().await {
            Ok((
                Reply::State {
                    protocol: PROTOCOL,
                    pid,
                    containment,
                    shortfalls,
                    blob,
                    deadline,
                    runs,
                },
                descriptors,
            )) => {
                let by_kernel = containment == super::KERNEL;
                let group = Leftover::of(&dir).filter(|_| containment == super::CGROUP);
                let proof = Proof::new(by_kernel, group, descriptors);
                let state = State {
                    pid,
                    containment,
                    shortfalls,
                    blob,
                    deadline,
                    runs,
                };
                proof
                    .map(|proof| Self {
                        state,
                        sender,
                        receiver,
                        proof,
                    })
                    .map_err(|cause| ConnectError::Talk { dir, cause })
            }
            Ok((Reply::State { protocol, .. }, _)) => Err(ConnectError::Protocol { dir, protocol }),
            Ok((Reply::Busy, _)) => Err(ConnectError::Busy { dir }),
            Ok((
                Reply::Started { .. }
                | Reply::NotStarted { .. }
                | Reply::Ended { .. }
                | Reply::Empty,
                _,
            )) => Err(ConnectError::Talk {
                dir,
                cause: TalkError::Closed,
            }),
            Err(cause) => Err(ConnectError::Talk { dir, cause }),
        }
    }
}

fn refused(dir: PathBuf, cause: io::Error) -> ConnectError {
    if matches!(
        cause.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory
    ) {
        ConnectError::Absent { dir }
    } else {
        ConnectError::Talk {
            dir,
            cause: cause.into(),
        }
    }
}

fn open_log(dir: &Path) -> io::Result<std::fs::File> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(dir.join(LOG))
}

/// A path to the socket that fits an address; a deep folder is reached through a descriptor of it,
/// which must live until the address was used.
pub(crate) fn socket_path(dir: &Path) -> io::Result<(PathBuf, Option<OwnedFd>)> {
    use rustix::fs::{Mode, OFlags};
    let path = dir.join(SOCKET);
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok((path, None));
    }
    let folder = rustix::fs::open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()));
    Ok((path, Some(folder)))
}

async fn open_socket(dir: &Path) -> io::Result<UnixStream> {
    let (path, _folder) = socket_path(dir)?;
    UnixStream::connect(path).await
}

/// The folders directly below `dir` in which a warden listens, in the order of their names.
/// A frozen one is among them.
#[must_use]
pub fn find(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| listens(path))
        .collect();
    found.sort();
    found
}

fn listens(dir: &Path) -> bool {
    socket_path(dir).is_ok_and(|(path, _folder)| {
        // A frozen warden's queue of connections may be full: it lives all the same.
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => true,
            Err(cause) => cause.kind() == io::ErrorKind::WouldBlock,
        }
    })
}

/// Sends orders.
#[derive(Debug)]
pub struct Sender {
    write: OwnedWriteHalf,
}

impl Sender {
    /// Sends one order. Not to be cancelled: half a frame makes the connection useless.
    ///
    /// # Errors
    /// When the warden closed the connection, or the order is too long for a frame.
    pub async fn send(&mut self, order: &Order) -> Result<(), TalkError> {
        let frame = wire::encode(order)?;
        self.write.write_all(&frame).await?;
        Ok(())
    }
}

/// Receives replies.
#[derive(Debug)]
pub struct Receiver {
    read: OwnedReadHalf,
    inbox: Inbox,
}

impl Receiver {
    /// The next reply with its descriptors; waits for it. May be cancelled without loss.
    ///
    /// # Errors
    /// When the connection is of no use any more.
    pub async fn recv(&mut self) -> Result<(Reply, Vec<OwnedFd>), TalkError> {
        loop {
            if let Some(reply) = self.inbox.frame::<Reply>()? {
                let descriptors = self.inbox.descriptors(wire::descriptors_of(&reply))?;
                return Ok((reply, descriptors));
            }
            self.read.readable().await?;
            let socket: &UnixStream = self.read.as_ref();
            let inbox = &mut self.inbox;
            match socket.try_io(Interest::READABLE, || inbox.read(socket.as_fd())) {
                Ok(0) => return Err(TalkError::Closed),
                Ok(_) => {}
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
                Err(cause) => return Err(cause.into()),
            }
        }
    }
}

/// What tells that a warden and everything it held is dead, however it died.
///
/// In grade `kernel` all runs live in PID namespaces inside that of one process. The kernel lets that
/// process become a zombie, and its pidfd readable, only after every process of the namespace and of
/// those within it is gone. In the other grades one of the warden's two processes looks until nothing
/// is found, and says so by a byte. In grade `cgroup` whoever holds this is the third: once the process
/// that held the runs is dead, it empties their control group itself.
#[derive(Debug)]
pub struct Proof {
    by_kernel: bool,
    group: Option<Leftover>,
    holder: OwnedFd,
    scanned: OwnedFd,
    proven: AtomicBool,
}

impl Proof {
    fn new(
        by_kernel: bool,
        group: Option<Leftover>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Self, TalkError> {
        let [holder, scanned] = <[OwnedFd; 2]>::try_from(descriptors)
            .map_err(|_other| TalkError::Wire(WireError::DescriptorsMissing))?;
        Ok(Self {
            by_kernel,
            group,
            holder,
            scanned,
            proven: AtomicBool::new(false),
        })
    }

    /// Waits until it is proven that nothing of the warden executes any more. Kills nothing while the
    /// process that holds the runs lives.
    ///
    /// # Errors
    /// When it is not proven within that time, or never can be.
    pub async fn proven_dead(&self, within: Duration) -> Result<(), Unproven> {
        match timeout(within, self.proof()).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Unproven::Alive { within }),
        }
    }

    async fn proof(&self) -> Result<(), Unproven> {
        if self.proven.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.by_kernel {
            return self.holder_ended().await;
        }
        match &self.group {
            None => self.found_empty().await,
            Some(group) => {
                self.holder_ended().await?;
                self.emptied(group.clone()).await
            }
        }
    }

    async fn holder_ended(&self) -> Result<(), Unproven> {
        let holder = watch(self.holder.try_clone()?)?;
        let _ready = holder.readable().await?;
        Ok(())
    }

    async fn found_empty(&self) -> Result<(), Unproven> {
        let scanned = watch(self.scanned.try_clone()?)?;
        loop {
            let mut ready = scanned.readable().await?;
            let mut byte = [0];
            match ready.try_io(|pipe| Ok(rustix::io::read(pipe.get_ref(), &mut byte)?)) {
                // There is one byte, and another task may have been the one that read it.
                Ok(Ok(0)) if self.proven.load(Ordering::Acquire) => return Ok(()),
                Ok(Ok(0)) => return Err(Unproven::NoProof),
                Ok(Ok(_)) => {
                    self.proven.store(true, Ordering::Release);
                    return Ok(());
                }
                Ok(Err(cause)) if cause.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(cause)) => return Err(cause.into()),
                Err(_would_block) => {}
            }
        }
    }

    async fn emptied(&self, group: Leftover) -> Result<(), Unproven> {
        let cleared = tokio::task::spawn_blocking(move || group.clear(CLEAR_WITHIN));
        if cleared.await.is_ok_and(|cleared| cleared) {
            self.proven.store(true, Ordering::Relaxed);
            Ok(())
        } else {
            Err(Unproven::NoProof)
        }
    }
}
