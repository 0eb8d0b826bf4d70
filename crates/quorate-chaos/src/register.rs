//! The resource that every run writes to: a register for each partition, once *fenced*, which refuses a
//! token that is lower than the highest one it has seen, and once *open*, which takes everything and
//! remembers whether it came in the order of the tokens. Where only one copy executes nothing is ever
//! refused and nothing ever comes out of order.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, poll};

use crate::clock::boot_nanos;
use crate::lines::Lines;

/// Name of its socket.
pub(crate) const SOCKET: &str = "register.sock";
/// So many contradictions are kept as text; the others are only counted.
const KEPT_MAX: usize = 100;

/// How a write is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A lower token is refused.
    Fenced,
    /// Everything is taken.
    Open,
}

/// A write of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) mode: Mode,
    pub(crate) partition: String,
    pub(crate) token: u64,
}

impl Write {
    /// As it is sent.
    pub(crate) fn line(&self) -> String {
        let mode = match self.mode {
            Mode::Fenced => "fenced",
            Mode::Open => "open",
        };
        format!("{mode} {} {}", self.partition, self.token)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mode = match words.next()? {
            "fenced" => Mode::Fenced,
            "open" => Mode::Open,
            _ => return None,
        };
        Some(Self {
            mode,
            partition: words.next()?.to_owned(),
            token: words.next()?.parse().ok()?,
        })
    }
}

/// Everything that was written.
#[derive(Debug, Default)]
pub(crate) struct Register {
    highest: BTreeMap<(String, bool), u64>,
    /// When a partition was written to last.
    last: BTreeMap<String, u64>,
    /// Writes that were taken.
    pub(crate) taken: u64,
    /// Writes under a lower token than one before.
    pub(crate) late: u64,
    /// The first of them that nobody has taken yet.
    pub(crate) kept: Vec<Late>,
}

/// A write under a lower token than one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Late {
    pub(crate) partition: String,
    pub(crate) token: u64,
    /// The highest token before it.
    pub(crate) after: u64,
    pub(crate) at: u64,
}

impl Register {
    /// Takes or refuses a write at this moment; `false` when it is refused.
    pub(crate) fn write(&mut self, write: &Write, at: u64) -> bool {
        let fenced = write.mode == Mode::Fenced;
        let key = (write.partition.clone(), fenced);
        let highest = self.highest.entry(key).or_default();
        let late = write.token < *highest;
        if late {
            self.late += 1;
            if self.kept.len() < KEPT_MAX {
                self.kept.push(Late {
                    partition: write.partition.clone(),
                    token: write.token,
                    after: *highest,
                    at,
                });
            }
        }
        *highest = write.token.max(*highest);
        self.last.insert(write.partition.clone(), at);
        let refused = late && fenced;
        self.taken += u64::from(!refused);
        !refused
    }

    /// When this partition was last written to.
    pub(crate) fn last(&self, partition: &str) -> Option<u64> {
        self.last.get(partition).copied()
    }
}

/// A register that serves.
#[derive(Clone, Debug)]
pub(crate) struct Server(Arc<Mutex<Register>>);

impl Server {
    /// Serves in this folder until the process ends.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let listener = UnixListener::bind(folder.join(SOCKET)).context("the register's socket")?;
        listener.set_nonblocking(true)?;
        let server = Self(Arc::default());
        let served = server.clone();
        let thread = std::thread::Builder::new().name("register".to_owned());
        thread.spawn(move || served.serve(&listener))?;
        Ok(server)
    }

    /// What it holds.
    pub(crate) fn look(&self) -> MutexGuard<'_, Register> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, listener: &UnixListener) {
        let mut open: Vec<Lines> = Vec::new();
        loop {
            let mut waits = vec![PollFd::new(listener, PollFlags::IN)];
            waits.extend(open.iter().map(|one| PollFd::new(one, PollFlags::IN)));
            // It can only be interrupted.
            let _some = poll(&mut waits, None);
            while let Ok((stream, _)) = listener.accept() {
                open.extend(Lines::new(stream));
            }
            self.round(&mut open);
        }
    }

    /// Takes everything that is there. What lies in several sockets at once came in an order that nobody
    /// knows; the lower token is taken first, because its process must have died before the other began.
    fn round(&self, open: &mut Vec<Lines>) {
        let mut writes = Vec::new();
        let mut still = Vec::with_capacity(open.len());
        for mut one in open.drain(..) {
            if let Some(lines) = one.read() {
                let parsed = lines.iter().filter_map(|line| Write::parse(line));
                writes.extend(parsed.map(|write| (write, still.len())));
                still.push(one);
            }
        }
        writes.sort_by_key(|(write, _)| write.token);
        let now = boot_nanos();
        let mut register = self.look();
        for (write, from) in writes {
            let taken = register.write(&write, now);
            if let Some(one) = still.get(from) {
                one.tell(if taken { "ok" } else { "fenced" });
            }
        }
        drop(register);
        *open = still;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(mode: Mode, partition: &str, token: u64) -> Write {
        Write {
            mode,
            partition: partition.to_owned(),
            token,
        }
    }

    #[test]
    fn a_lower_token_is_refused_where_it_is_fenced_and_seen_where_it_is_not() {
        let mut register = Register::default();
        for mode in [Mode::Fenced, Mode::Open] {
            assert!(register.write(&write(mode, "s/a", 4), 1));
            assert!(register.write(&write(mode, "s/a", 4), 2));
            assert!(register.write(&write(mode, "s/b", 3), 3), "another one");
        }
        assert_eq!(register.late, 0);
        assert!(!register.write(&write(Mode::Fenced, "s/a", 3), 4));
        assert!(register.write(&write(Mode::Open, "s/a", 3), 5));
        assert_eq!((register.late, register.taken), (2, 7));
        assert_eq!(register.kept.len(), 2);
    }

    #[test]
    fn a_write_is_read_as_it_was_sent() {
        let sent = write(Mode::Open, "s/a", 9);
        assert_eq!(Write::parse(&sent.line()), Some(sent));
        assert_eq!(Write::parse("open s/a"), None);
    }

    #[test]
    fn what_lies_in_two_sockets_at_once_is_taken_in_the_order_of_tokens() {
        let server = Server(Arc::default());
        let pair = || std::os::unix::net::UnixStream::pair().unwrap();
        let ((near, new), (other, old)) = (pair(), pair());
        Lines::new(new).unwrap().tell("open s/a 8");
        Lines::new(old).unwrap().tell("open s/a 7");
        let mut open = vec![Lines::new(near).unwrap(), Lines::new(other).unwrap()];
        server.round(&mut open);
        let register = server.look();
        assert_eq!((register.late, register.taken), (0, 2));
    }
}
