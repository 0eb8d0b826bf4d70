//! The referee's desk: every process of every run comes here before it does anything. The desk takes a pidfd
//! of it, which is readable from the moment on that it is gone, and only then lets it begin. Nothing that
//! executes is unknown, and no exit is ever inferred.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::clock::boot_nanos;
use crate::judge::{Announced, Id, Judge};
use crate::lines::Lines;
use crate::records::{self, Record};
use crate::wire::{Hello, Order};

/// Name of its socket.
pub(crate) const SOCKET: &str = "referee.sock";
/// A line for each process that has ended.
const PROCESSES: &str = "processes.log";

/// A process that lives, as the desk holds it.
#[derive(Debug)]
struct Known {
    pidfd: OwnedFd,
    talk: Lines,
}

impl Known {
    /// Whether it is gone, which only the kernel can tell.
    fn is_gone(&self) -> bool {
        let mut waits = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut waits, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}

#[derive(Debug)]
struct State {
    judge: Judge,
    known: BTreeMap<Id, Arc<Known>>,
    /// Partitions whose runs are told to fail until then, and with which code.
    failing: BTreeMap<String, (u64, i32)>,
    /// From an agent's clock to that of the referee, in nanoseconds.
    offsets: BTreeMap<String, i64>,
    log: File,
}

/// The desk. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    folder: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Desk {
    /// Opens it in this folder, until the process ends.
    pub(crate) fn open(folder: &Path, offsets: BTreeMap<String, i64>) -> Result<Self> {
        std::fs::create_dir(folder.join(records::FOLDER))?;
        let listener = UnixListener::bind(folder.join(SOCKET)).context("the referee's socket")?;
        listener.set_nonblocking(true)?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join(PROCESSES))?;
        let state = State {
            judge: Judge::default(),
            known: BTreeMap::new(),
            failing: BTreeMap::new(),
            offsets,
            log,
        };
        let desk = Self {
            folder: folder.to_owned(),
            state: Arc::new(Mutex::new(state)),
        };
        let serving = desk.clone();
        let thread = std::thread::Builder::new().name("referee".to_owned());
        thread.spawn(move || serving.serve(&listener))?;
        Ok(desk)
    }

    /// What it knows, through which everything is asked and told.
    pub(crate) fn judge<T>(&self, ask: impl FnOnce(&mut Judge) -> T) -> T {
        ask(&mut self.lock().judge)
    }

    /// Takes in the exits that have happened until now.
    pub(crate) fn take_exits(&self) {
        self.lock().sweep(&self.folder, None);
    }

    /// Lets every start of a partition fail with this code until then.
    pub(crate) fn fail(&self, partition: &str, until: u64, code: i32) {
        let mut state = self.lock();
        state.failing.insert(partition.to_owned(), (until, code));
    }

    /// Sends a process a signal. It is certainly this one: its pidfd names no other.
    pub(crate) fn signal(&self, id: Id, signal: Signal) {
        if let Some(known) = self.lock().known.get(&id) {
            // It may be gone already.
            let _gone = pidfd_send_signal(&known.pidfd, signal);
        }
    }

    /// Tells a process to end with this code.
    pub(crate) fn exit(&self, id: Id, code: i32) {
        if let Some(known) = self.lock().known.get(&id) {
            known.talk.tell(&Order::Exit(code).line());
        }
    }

    /// Ends everything that it knows.
    pub(crate) fn kill_all(&self) {
        let all: Vec<Id> = self.lock().known.keys().copied().collect();
        for id in all {
            self.signal(id, Signal::KILL);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, listener: &UnixListener) {
        let mut waiting: Vec<Lines> = Vec::new();
        let second = Timespec::try_from(Duration::from_secs(1)).ok();
        loop {
            let known: Vec<Arc<Known>> = self.lock().known.values().cloned().collect();
            let mut waits = vec![PollFd::new(listener, PollFlags::IN)];
            waits.extend(waiting.iter().map(|one| PollFd::new(one, PollFlags::IN)));
            let pidfds = known.iter().map(|one| &one.pidfd);
            waits.extend(pidfds.map(|pidfd| PollFd::new(pidfd, PollFlags::IN)));
            // It can only be interrupted.
            let _some = poll(&mut waits, second.as_ref());
            self.lock().sweep(&self.folder, None);
            while let Ok((stream, _)) = listener.accept() {
                waiting.extend(Lines::new(stream));
            }
            let before = std::mem::take(&mut waiting);
            waiting.extend(before.into_iter().filter_map(|one| self.hear(one)));
        }
    }

    /// Takes in the greeting of a process if it is there; gives its connection back if it is not.
    fn hear(&self, mut talk: Lines) -> Option<Lines> {
        let lines = talk.read()?;
        let Some(line) = lines.first() else {
            return Some(talk);
        };
        let Some(hello) = Hello::parse(line) else {
            let text = format!("a greeting that is none: {line:?}");
            eprintln!("referee: {text}");
            return None;
        };
        if let Err(cause) = self.lock().admit(&self.folder, hello, talk) {
            eprintln!("referee: {line:?}: {cause}");
        }
        None
    }
}

impl State {
    /// Takes in the exits that have happened: of one partition, or of all.
    fn sweep(&mut self, folder: &Path, partition: Option<&str>) {
        let of_it = |who: &Announced| partition.is_none_or(|name| who.partition == name);
        let asked = self.judge.living().filter(|(_, who)| of_it(who));
        let gone: Vec<(Id, String)> = asked
            .filter(|(id, _)| self.known.get(id).is_some_and(|known| known.is_gone()))
            .map(|(id, who)| (id, who.to_string()))
            .collect();
        for (id, who) in gone {
            self.known.remove(&id);
            let at = boot_nanos();
            let path = records::path(folder, id);
            let record = Record::parse(&std::fs::read_to_string(&path).unwrap_or_default());
            self.judge.exited(id, at, record);
            let Record {
                first, last, beats, ..
            } = record;
            // The file is for people, after a failure; so are the records then.
            let _unwritten = writeln!(
                self.log,
                "{id} {who}: gone {at}, wrote {first} to {last}, {beats} beats"
            );
            if self.judge.violations.is_empty() {
                let _absent = std::fs::remove_file(path);
            }
        }
    }

    /// A process has come. It does nothing before it is answered, and has nothing to hand on.
    fn admit(&mut self, folder: &Path, hello: Hello, talk: Lines) -> io::Result<()> {
        let peer = rustix::net::sockopt::socket_peercred(talk.stream())?;
        let pidfd = match pidfd_open(peer.pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            // It was killed before it began.
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(cause) => return Err(cause.into()),
        };
        // If it has died meanwhile the pidfd may be another one's; but then its connection has ended.
        let alive = recv(
            talk.as_fd(),
            &mut [0; 1],
            RecvFlags::DONTWAIT | RecvFlags::PEEK,
        );
        if !matches!(alive, Err(rustix::io::Errno::AGAIN)) {
            return Ok(());
        }
        self.sweep(folder, Some(&hello.partition));
        let now = boot_nanos();
        let offset = self.offsets.get(&hello.agent).copied().unwrap_or_default();
        let failing = self.failing.get(&hello.partition).copied();
        let who = Announced {
            partition: hello.partition,
            run: (hello.token, hello.attempt),
            agent: hello.agent,
            daemon: hello.daemon,
            pid: peer.pid.as_raw_nonzero().get().unsigned_abs(),
            clock: hello.clock.saturating_add_signed(offset),
            filed: hello.filed,
        };
        let id = self.judge.announced(who, now);
        let order = match failing {
            Some((until, code)) if now < until => Order::Exit(code),
            Some(_) | None => Order::Go { id, offset },
        };
        talk.tell(&order.line());
        self.known.insert(id, Arc::new(Known { pidfd, talk }));
        Ok(())
    }
}
