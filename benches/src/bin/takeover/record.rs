//! What runs write down, and reading it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{SignalKind, signal};

/// What a run has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// CLOCK_BOOTTIME in nanoseconds.
    pub(crate) at: u64,
    /// It starts; else it stops.
    pub(crate) start: bool,
    pub(crate) key: String,
    pub(crate) token: u64,
}

/// Now, on the clock of the lines.
pub(crate) fn boot_nanos() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}

/// What a run is: says that it starts, waits for SIGTERM, says that it stops.
pub(crate) async fn execute(file: &Path) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let (key, token) = (
        std::env::var("QUORATE_KEY")?,
        std::env::var("QUORATE_TOKEN")?,
    );
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    let mut write = |what: &str| {
        // One write of one line: lines of many processes in one file do not mix.
        file.write_all(format!("{} {what} {key} {token}\n", boot_nanos()).as_bytes())
    };
    write("START")?;
    terminate.recv().await;
    write("STOP")?;
    Ok(())
}

/// All that was written so far.
pub(crate) fn read(file: &Path) -> anyhow::Result<Vec<Line>> {
    let text = std::fs::read_to_string(file)?;
    // The last line may be half written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let line = |line: &str| {
        let mut words = line.split(' ');
        let mut next = || words.next().context("a line is too short");
        anyhow::Ok(Line {
            at: next()?.parse()?,
            start: next()? == "START",
            key: next()?.to_owned(),
            token: next()?.parse()?,
        })
    };
    whole.lines().map(line).collect()
}
