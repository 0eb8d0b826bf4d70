//! Where the kernel does not contain a run: its processes are found by a cookie in the environment
//! that they were executed with.
//!
//! A weak proof, and shown as such: a process that clears its environment and lives on elsewhere, or
//! forks faster than it is found, escapes. Must never signal a process that it cannot tell to be of
//! one of its own runs or its own stray child.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use rustix::process::{Pid, getpid};

use super::protocol::RunId;
use crate::sys::signal_process;

/// Name of the variable that holds the cookie.
const VARIABLE: &str = "QUORATE_WARDEN";

/// Finds the processes of one warden.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    /// Unique on this host since its boot.
    warden: String,
    /// Children that had no environment at all in the pass before.
    blank: BTreeSet<i32>,
}

impl Scan {
    /// For the warden with this process id that began at this time.
    pub(crate) fn new(pid: u32, began: u64) -> Self {
        Self {
            warden: format!("{pid}-{began}"),
            blank: BTreeSet::new(),
        }
    }

    /// The variable for the environment of a run.
    pub(crate) fn cookie(&self, run: RunId) -> String {
        format!("{VARIABLE}={}/{}.{}", self.warden, run.token, run.attempt)
    }

    /// Sends a signal to every process of a run that is found.
    pub(crate) fn signal(&self, run: RunId, signal: i32) {
        // A signal that cannot be sent is sent again, or the kill follows.
        for (pid, found) in self.find().unwrap_or_default() {
            if found == run {
                signal_process(pid, signal);
            }
        }
    }

    /// Kills what is left of these runs, and strays that nobody can tell the run of; tells which runs
    /// had something left. A stray counts for all of them; who `is_held` otherwise is none.
    pub(crate) fn kill_left(
        &mut self,
        runs: &[RunId],
        inits: &[i32],
        is_held: impl Fn(Pid) -> bool,
    ) -> BTreeSet<RunId> {
        let mut left = BTreeSet::new();
        // The children first: whoever is listed then carries its parent's cookie when it is looked
        // at. The other way round, a process that a live run forks in between has none to be found.
        // What cannot be seen may be alive: only a scan that worked can show that nothing is left.
        let (Ok(children), Ok(found)) = (children(), self.find()) else {
            return runs.iter().copied().collect();
        };
        for &(pid, run) in &found {
            if runs.contains(&run) {
                signal_process(pid, libc::SIGKILL);
                left.insert(run);
            }
        }
        let mut blank = BTreeSet::new();
        for pid in children {
            let number = pid.as_raw_nonzero().get();
            let known = inits.contains(&number) || found.iter().any(|&(found, _)| found == pid);
            if known || is_held(pid) {
                continue;
            }
            if !executes(pid) {
                // It has ended while this looked, perhaps behind a child that nobody has seen. What has
                // ended before is reaped by now, so a look that finds nobody is possible.
                left.extend(runs);
                continue;
            }
            match self.look_at(pid) {
                // It executed another program just when all were looked at, and has done so by now.
                Seen::Of(run) if runs.contains(&run) => {
                    signal_process(pid, libc::SIGKILL);
                    left.insert(run);
                }
                Seen::Of(_) => {}
                // In the middle of executing another program a process has no environment for a
                // moment, and may well be a live run's.
                Seen::Blank if !self.blank.contains(&number) => {
                    blank.insert(number);
                    left.extend(runs);
                }
                Seen::Blank | Seen::Stray => {
                    signal_process(pid, libc::SIGKILL);
                    left.extend(runs);
                }
            }
        }
        self.blank = blank;
        left
    }

    /// Kills everything of this warden and all children of this process; tells whether there was any.
    pub(crate) fn kill_everything(&self) -> bool {
        let mut any = self.kill_found();
        let Ok(children) = children() else {
            return true;
        };
        for pid in children {
            if executes(pid) {
                signal_process(pid, libc::SIGKILL);
                any = true;
            }
        }
        any
    }

    /// Kills everything that carries a cookie of this warden; tells whether there was any, or may be.
    pub(crate) fn kill_found(&self) -> bool {
        let Ok(found) = self.find() else {
            return true;
        };
        for &(pid, _) in &found {
            signal_process(pid, libc::SIGKILL);
        }
        !found.is_empty()
    }

    /// Every process with a cookie of this warden; an error when some could not be looked at.
    fn find(&self) -> io::Result<Vec<(Pid, RunId)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let entry = entry?;
            let pid = entry.file_name().to_str().and_then(|pid| pid.parse().ok());
            let pid = pid.and_then(Pid::from_raw);
            let Some(pid) = pid.filter(|&pid| pid != getpid()) else {
                continue;
            };
            let environment = match std::fs::read(entry.path().join("environ")) {
                Ok(environment) => environment,
                Err(error) if is_gone_or_foreign(&error) => continue,
                Err(error) => return Err(error),
            };
            found.extend(self.run_in(&environment).map(|run| (pid, run)));
        }
        Ok(found)
    }

    /// What the environment of a child says now.
    fn look_at(&self, pid: Pid) -> Seen {
        let path = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        match self.run_in(&environment) {
            Some(run) => Seen::Of(run),
            None if environment.is_empty() => Seen::Blank,
            None => Seen::Stray,
        }
    }

    /// The run that an environment names, if it is of this warden.
    fn run_in(&self, environment: &[u8]) -> Option<RunId> {
        environment.split(|&byte| byte == 0).find_map(|variable| {
            let text = std::str::from_utf8(variable).ok()?;
            let value = text.strip_prefix(VARIABLE)?.strip_prefix('=')?;
            let (token, attempt) = value
                .strip_prefix(&self.warden)?
                .strip_prefix('/')?
                .split_once('.')?;
            Some(RunId {
                token: token.parse().ok()?,
                attempt: attempt.parse().ok()?,
            })
        })
    }
}

/// What a child's environment says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It belongs to this run.
    Of(RunId),
    /// It has none: it is just executing another program, is ending, or was executed without any.
    Blank,
    /// It has no cookie: its run has cleared it.
    Stray,
}

/// The children of this process, which the kernel also gives those whose own parents ended.
pub(crate) fn children() -> io::Result<Vec<Pid>> {
    let pid = getpid().as_raw_nonzero();
    let listed = match std::fs::read_to_string(format!("/proc/self/task/{pid}/children")) {
        Ok(listed) => listed,
        // This kernel does not list them; the cookies are what is left.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let children = listed.split_whitespace();
    Ok(children
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .collect())
}

/// The process has ended meanwhile, is on its way to, or belongs to a user whose processes this one
/// cannot have started.
fn is_gone_or_foreign(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
    ) || error.raw_os_error() == Some(libc::ESRCH)
}

/// Not a zombie, which executes nothing and only waits to be reaped.
fn executes(pid: Pid) -> bool {
    let stat = Path::new("/proc")
        .join(pid.as_raw_nonzero().to_string())
        .join("stat");
    match std::fs::read_to_string(stat) {
        Ok(stat) => {
            let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
            state.is_some_and(|state| !state.starts_with(['Z', 'X']))
        }
        Err(error) => !is_gone_or_foreign(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cookie_of_this_very_warden_names_a_run() {
        let run = RunId {
            token: 70_001,
            attempt: 2,
        };
        let scan = Scan::new(12, 345);
        let cookie = scan.cookie(run);
        let environment = format!("A=b\0{cookie}\0C=d\0");
        assert_eq!(scan.run_in(environment.as_bytes()), Some(run));
        for other in [
            Scan::new(12, 34).cookie(run),
            Scan::new(2, 345).cookie(run),
            format!("X{cookie}"),
            format!("X={cookie}"),
            cookie.replace('.', ""),
            String::new(),
        ] {
            assert_eq!(scan.run_in(other.as_bytes()), None, "{other}");
        }
    }
}
