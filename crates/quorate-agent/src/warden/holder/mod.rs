//! The holder: forks the runs, reaps them, and talks to the agent. In grade `kernel` it is init of a
//! PID namespace in which those of the runs are nested, so that its end is theirs.
//!
//! One thread that waits only in its loop. Must never tell the end of a run before it is proven, start
//! one without an armed deadline, or die of anything that an agent sends.

mod agent;
mod ending;
mod orders;
mod runs;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use self::agent::Agent;
use self::ending::Ending;
use self::runs::Run;
use super::group::Groups;
use super::init::Common;
use super::nanos;
use super::protocol::RunId;
use super::say;
use super::scan::Scan;
use crate::sys::{Alarm, KillTimer, SingleThreaded, boot_nanos, take_signals};

/// Exit code: everything is dead, and the agent was told so.
pub(crate) const ENDED: i32 = 0;
/// Exit code: everything is dead, and nobody was there to be told.
pub(crate) const ABANDONED: i32 = 10;
/// Exit code: the holder cannot go on.
pub(crate) const BROKEN: i32 = 11;

/// An agent that starts a warden connects at once; this is for a host that is slow.
const FIRST_AGENT_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked at what is left of runs that end.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Events taken from the kernel at once.
const EVENTS: usize = 256;
/// Connections that have not said Hello; an agent says it at once.
const GUESTS_MAX: usize = 8;

const SIGNALS: u64 = 0;
const LISTENER: u64 = 1;
const TIMEKEEPER: u64 = 2;
const DEADLINE: u64 = 3;
/// Connections count up from here, runs from [`RUNS`].
const CONNECTIONS: u64 = 16;
const RUNS: u64 = 1 << 40;

/// What the timekeeper hands to the holder at its birth.
#[derive(Debug)]
pub(crate) struct Inheritance {
    pub(crate) alone: SingleThreaded,
    pub(crate) signals: OwnedFd,
    pub(crate) listener: UnixListener,
    pub(crate) timekeeper: OwnedFd,
    /// The kernel's kill of this process at the deadline, where the end of the timekeeper is not its own.
    pub(crate) timer: Option<KillTimer>,
    /// Wakes this process at the deadline: should the timekeeper be frozen so that not even its timer
    /// ends it, this is the second of the two that end everything.
    pub(crate) alarm: Alarm,
    pub(crate) timekeeper_pid: u32,
    pub(crate) adopt_within: Duration,
    /// No deadline is farther ahead than this.
    pub(crate) lease: Duration,
    pub(crate) common: Common,
    /// Names this holder in the environment of its runs, where they are found by scanning.
    pub(crate) scan: Option<Scan>,
    /// One for each run, where there are such.
    pub(crate) groups: Option<Groups>,
    /// Why containment is not better.
    pub(crate) shortfalls: Vec<String>,
    /// See [`super::protocol::Reply::State`].
    pub(crate) proof: [OwnedFd; 2],
    /// Removes the name of the socket.
    pub(crate) socket: std::path::PathBuf,
}

#[derive(Debug)]
struct Holder {
    born: Inheritance,
    epoll: OwnedFd,
    /// Moves forward only.
    deadline: Option<u64>,
    blob: Option<Vec<u8>>,
    runs: BTreeMap<RunId, Run>,
    run_by_key: BTreeMap<u64, RunId>,
    run_by_pid: BTreeMap<i32, RunId>,
    next_run: u64,
    agent: Option<Agent>,
    guests: Vec<Agent>,
    next_connection: u64,
    /// The present agent announced that another is to come, and within which time.
    await_next: Option<Duration>,
    /// Until when an agent may come, in nanoseconds; `None` while one is there.
    adopt_until: Option<u64>,
    /// When it is next looked at what is left of runs; `None` while nothing drains.
    look_at: Option<u64>,
    ending: Option<Ending>,
}

/// Serves until the end of everything; the result is the exit code.
pub(crate) fn run(born: Inheritance) -> i32 {
    match Holder::new(born).and_then(Holder::serve) {
        Ok(code) => code,
        Err(cause) => {
            say(format_args!("the holder of the runs fails: {cause}"));
            BROKEN
        }
    }
}

impl Holder {
    fn new(born: Inheritance) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        born.listener.set_nonblocking(true)?;
        let first = nanos(FIRST_AGENT_WITHIN.max(born.adopt_within));
        let holder = Self {
            epoll,
            deadline: None,
            blob: None,
            runs: BTreeMap::new(),
            run_by_key: BTreeMap::new(),
            run_by_pid: BTreeMap::new(),
            next_run: RUNS,
            agent: None,
            guests: Vec::new(),
            next_connection: CONNECTIONS,
            await_next: None,
            adopt_until: Some(boot_nanos().saturating_add(first)),
            look_at: None,
            ending: None,
            born,
        };
        holder.watch(holder.born.signals.as_fd(), SIGNALS)?;
        holder.watch(holder.born.listener.as_fd(), LISTENER)?;
        holder.watch(holder.born.timekeeper.as_fd(), TIMEKEEPER)?;
        holder.watch(holder.born.alarm.as_fd(), DEADLINE)?;
        Ok(holder)
    }

    fn watch(&self, descriptor: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        epoll::add(
            &self.epoll,
            descriptor,
            EventData::new_u64(key),
            EventFlags::IN,
        )?;
        Ok(())
    }

    fn serve(mut self) -> io::Result<i32> {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            if let Some(code) = self.tick()? {
                return Ok(code);
            }
            events.clear();
            let wait = self.wait();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                wait.as_ref(),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(cause) => return Err(cause.into()),
            }
            for event in &events {
                let flags = event.flags;
                self.take(event.data.u64(), flags)?;
            }
        }
    }

    /// What is due by the clock. An exit code ends the holder.
    fn tick(&mut self) -> io::Result<Option<i32>> {
        let now = boot_nanos();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.kill_all();
            return Ok(Some(BROKEN));
        }
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at_draining(now);
        }
        if self.adopt_until.is_some_and(|until| until <= now) {
            self.adopt_until = None;
            self.end("no agent came back");
        }
        Ok(self.ended(now))
    }

    /// How long nothing is due.
    fn wait(&self) -> Option<rustix::event::Timespec> {
        let next = [
            self.look_at,
            self.adopt_until,
            self.ending.as_ref().and_then(Ending::told_until),
        ]
        .into_iter()
        .flatten()
        .min()?;
        let span = Duration::from_nanos(next.saturating_sub(boot_nanos()));
        rustix::event::Timespec::try_from(span).ok()
    }

    fn take(&mut self, key: u64, flags: EventFlags) -> io::Result<()> {
        match key {
            SIGNALS => self.take_signals(),
            LISTENER => {
                self.accept();
                Ok(())
            }
            TIMEKEEPER => {
                self.take_timekeeper();
                Ok(())
            }
            // That it came is seen at the next turn of the loop.
            DEADLINE => Ok(()),
            key if key >= RUNS => {
                if let Some(&run) = self.run_by_key.get(&key) {
                    self.take_messages(run);
                }
                Ok(())
            }
            key => {
                self.take_connection(key, flags);
                Ok(())
            }
        }
    }

    fn take_signals(&mut self) -> io::Result<()> {
        let (mut child, mut terminate) = (false, false);
        take_signals(&self.born.signals, |signal| match signal {
            libc::SIGCHLD => child = true,
            libc::SIGTERM => terminate = true,
            // A warden has no terminal and no configuration to read again.
            _ => {}
        })?;
        if child {
            self.reap();
        }
        if terminate {
            self.end("it was told to by SIGTERM");
        }
        Ok(())
    }

    /// The timekeeper says nothing between its answers to `arm`, so this is its end.
    fn take_timekeeper(&mut self) {
        let mut bytes = [0; 8];
        let read = rustix::net::recv(
            &self.born.timekeeper,
            &mut bytes,
            rustix::net::RecvFlags::DONTWAIT,
        );
        if let Ok((_, 0)) = read {
            let _gone = epoll::delete(&self.epoll, &self.born.timekeeper);
            self.end("the holder of the kill timer died");
        }
    }
}
