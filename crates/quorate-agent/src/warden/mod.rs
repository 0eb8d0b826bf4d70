//! The warden: a tiny process beside the agent that starts, holds and kills the runs of one lease
//! class, and owns the kernel kill timer.
//!
//! It is two processes, neither with threads nor a runtime: the timekeeper, which the agent starts, and
//! the holder below it; see [`run`] and the modules. It must never need the agent to be safe: whatever
//! dies, is killed or frozen, nothing that it holds executes after the deadline.

mod birth;
pub mod client;
pub mod group;
mod holder;
mod init;
mod job;
pub mod protocol;
mod scan;
pub(crate) mod timekeeper;
mod trial;
mod wire;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

pub use wire::WireError;

use crate::planted::{self, Planted};

/// Name of the socket in a warden's folder.
pub const SOCKET: &str = "warden.sock";
/// Name of the file in a warden's folder that the agent writes so that its session can be closed
/// when no agent comes back.
pub const LAST_WILL: &str = "last-will.json";
/// Name of the file in a warden's folder that says that none of its runs executes any more, nor ever will.
pub const PROVEN_DEAD: &str = "proven-dead";
/// Name of the file in a warden's folder with what it says to people.
pub const LOG: &str = "warden.log";
/// Containment that the kernel itself proves.
pub const KERNEL: &str = "kernel";
/// Containment by a control group, which the warden or the agent must live to kill.
pub const CGROUP: &str = "cgroup";
/// Containment by scanning the process table.
pub const SCAN: &str = "scan";

/// The weakest of these grades: what is said of all of them must hold for each.
pub(crate) fn weakest<'a>(grades: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const FROM_THE_WEAKEST: [&str; 3] = [SCAN, CGROUP, KERNEL];
    grades.min_by_key(|grade| FROM_THE_WEAKEST.iter().position(|known| known == grade))
}

/// A deadline is never farther ahead than the lease of the warden's class, because it counts from when a
/// renewal was sent (R1): whatever is said to a warden, its timer cannot be moved out of reach.
fn reachable(deadline: u64, lease: Duration) -> u64 {
    if planted::has(Planted::EndlessDeadline) {
        return deadline;
    }
    deadline.min(crate::sys::boot_nanos().saturating_add(nanos(lease)))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Tells people something, in its log. What cannot be written, on a full disk, is lost: nothing that a warden
/// does for its runs may depend on it.
fn say(text: std::fmt::Arguments<'_>) {
    let line = format!("warden: {text}\n");
    let _lost = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

/// What a warden is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Its folder: socket, lock, log, last will.
    pub dir: PathBuf,
    /// How long it waits for a new agent when the connection to the last one is lost.
    pub adopt_within: Duration,
    /// The lease of its class: no deadline is farther ahead.
    pub lease: Duration,
    /// The program that knows `agent --last-will DIR`.
    pub program: PathBuf,
    /// Open files that runs may have unless they raise that themselves; as this process when absent.
    pub files: Option<u64>,
}

/// Why a warden cannot be started with these arguments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a warden is started by its agent, as: warden --dir DIR --adopt-within 5000ms --lease 10000ms [--files 1024]"
)]
pub struct ArgumentError;

impl Options {
    /// Reads the arguments that [`client::Client::spawn`] passes after the word `warden`.
    ///
    /// # Errors
    /// When they are not those.
    pub fn from_args(
        program: PathBuf,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, ArgumentError> {
        let mut dir = None;
        let (mut adopt_within, mut lease) = (None, None);
        let mut files = None;
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(ArgumentError)?;
            match name.to_str() {
                Some("--dir") => dir = Some(PathBuf::from(value)),
                Some("--adopt-within") => adopt_within = millis(&value),
                Some("--lease") => lease = millis(&value),
                Some("--files") => {
                    let number = value.to_str().and_then(|text| text.parse().ok());
                    files = Some(number.ok_or(ArgumentError)?);
                }
                Some(_) | None => return Err(ArgumentError),
            }
        }
        match (dir, adopt_within, lease) {
            (Some(dir), Some(adopt_within), Some(lease)) => Ok(Self {
                dir,
                adopt_within,
                lease,
                program,
                files,
            }),
            (_, _, _) => Err(ArgumentError),
        }
    }
}

fn millis(value: &OsStr) -> Option<Duration> {
    let digits = value.to_str()?.strip_suffix("ms")?;
    digits.parse().ok().map(Duration::from_millis)
}

/// Serves as a warden until everything it held is dead.
///
/// To be called before anything has made a second thread. The first line on standard output is
/// `ready`, or why it cannot serve.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    match timekeeper::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            say(format_args!("{cause}"));
            // Nobody may listen any more.
            let _gone = rustix::io::write(std::io::stdout(), format!("{cause}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_wardens_the_weakest_grade_is_told() {
        assert_eq!(weakest([KERNEL, SCAN, CGROUP].into_iter()), Some(SCAN));
        assert_eq!(weakest([KERNEL, CGROUP].into_iter()), Some(CGROUP));
        assert_eq!(
            weakest([KERNEL, "new"].into_iter()),
            Some("new"),
            "not known to be any good"
        );
        assert_eq!(weakest(std::iter::empty()), None);
    }
}
