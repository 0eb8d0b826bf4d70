//! Processes of the product, found by their command lines, and children that end with whoever holds them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A child that is killed when nobody holds it any more.
#[derive(Debug)]
pub(crate) struct Held(Child);

impl Held {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn();
        child
            .map(Self)
            .with_context(|| format!("{} cannot be started", command.get_program().display()))
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }

    /// Sends it a signal; it is still ours, so its number is no other's.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            tell(self.pid(), signal);
        }
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        within(limit, "a process ends", || self.ended())
    }

    /// Ends it at once.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.signal(Signal::CONT);
        // Both fail only where it has ended.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sends a signal to a process that may be gone.
pub(crate) fn tell(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _gone = kill_process(pid, signal);
    }
}

/// Waits for something.
pub(crate) fn within<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if begun.elapsed() > limit {
            bail!("not within {limit:?}: {what}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Runs a command to its end and gives what it printed; it must succeed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{} cannot be started", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A process of a warden: a timekeeper, a holder, or the init of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OfWarden {
    pub(crate) pid: u32,
    pub(crate) part: Part,
}

/// What it is, by its parents: all three have the same command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Timekeeper,
    Holder,
    Init,
}

/// The processes of the wardens whose folders are below this one.
pub(crate) fn of_wardens(folder: &Path) -> Vec<OfWarden> {
    let all = std::fs::read_dir("/proc").into_iter().flatten();
    let found: Vec<(u32, u32)> = all
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let pid = path.file_name()?.to_str()?.parse().ok()?;
            is_warden(&path, folder).then_some((pid, parent(&path)?))
        })
        .collect();
    let parent_of = |pid| {
        found
            .iter()
            .find(|&&(own, _)| own == pid)
            .map(|&(_, up)| up)
    };
    let part = |&(pid, up): &(u32, u32)| {
        let part = match (parent_of(up), parent_of(up).and_then(parent_of)) {
            (None, _) => Part::Timekeeper,
            (Some(_), None) => Part::Holder,
            (Some(_), Some(_)) => Part::Init,
        };
        OfWarden { pid, part }
    };
    found.iter().map(part).collect()
}

fn is_warden(path: &Path, folder: &Path) -> bool {
    let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut words = line.split('\0');
    words.nth(1) == Some("warden") && words.any(|word| PathBuf::from(word).starts_with(folder))
}

fn parent(path: &Path) -> Option<u32> {
    let status = std::fs::read_to_string(path.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}
