//! Runs that say by themselves that they execute, and who listens to them.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream as Stream;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// How long runs may take until they say something.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a message: key and nanoseconds of the clock.
const MESSAGE: usize = 16;

/// What a run does: says that it executes, and waits until it is killed.
pub(crate) fn execute(socket: &Path, key: &str) -> anyhow::Result<()> {
    let now = now();
    let mut stream = Stream::connect(socket)?;
    let key: u64 = key.parse()?;
    stream.write_all(&key.to_le_bytes())?;
    stream.write_all(&u64::try_from(now.as_nanos())?.to_le_bytes())?;
    // Whoever listens never answers; its end is ours.
    let mut nothing = [0];
    let _ended = stream.read(&mut nothing);
    Ok(())
}

/// The clock that all processes of a machine share.
fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// A run that has said that it executes.
#[derive(Debug)]
struct Executing {
    key: u64,
    /// As seen from here, whatever namespace it is in.
    pid: i32,
    since: Duration,
    /// Open for as long as it is to stay.
    stream: UnixStream,
}

/// All that have said so.
#[derive(Debug)]
pub(crate) struct Runs {
    heard: mpsc::Receiver<Executing>,
    executing: BTreeMap<u64, Executing>,
}

impl Runs {
    /// Listens at a socket.
    pub(crate) fn listen(socket: &Path) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let (sender, heard) = mpsc::channel(1024);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sender = sender.clone();
                tokio::spawn(async move {
                    if let Ok(run) = hear(stream).await {
                        // Nobody listens any more when the measurement is over.
                        drop(sender.send(run).await);
                    }
                });
            }
        });
        Ok(Self {
            heard,
            executing: BTreeMap::new(),
        })
    }

    /// Waits for so many more.
    pub(crate) async fn expect(&mut self, count: usize) -> anyhow::Result<()> {
        for seen in 0..count {
            let next = tokio::time::timeout(LIMIT, self.heard.recv()).await;
            let run = next
                .with_context(|| format!("{seen} of {count} runs execute"))?
                .context("nobody listens")?;
            self.executing.insert(run.key, run);
        }
        Ok(())
    }

    /// Lets all of them go.
    pub(crate) fn forget(&mut self) {
        self.executing.clear();
    }

    /// Kills one; returns how long it took until it executed again.
    pub(crate) async fn kill(&mut self, n: usize) -> anyhow::Result<Duration> {
        let key = u64::try_from(n)?;
        let run = self.executing.remove(&key).context("no such run")?;
        let pid = Pid::from_raw(run.pid).context("no process")?;
        let killed = now();
        kill_process(pid, Signal::KILL)?;
        self.expect(1).await?;
        drop(run.stream);
        let next = self.executing.get(&key).context("another run began")?;
        Ok(next.since.saturating_sub(killed))
    }
}

async fn hear(mut stream: UnixStream) -> anyhow::Result<Executing> {
    let pid = stream.peer_cred()?.pid().context("no process")?;
    let mut message = [0; MESSAGE];
    stream.read_exact(&mut message).await?;
    let (key, since) = message.split_at(MESSAGE / 2);
    Ok(Executing {
        key: u64::from_le_bytes(key.try_into()?),
        pid,
        since: Duration::from_nanos(u64::from_le_bytes(since.try_into()?)),
        stream,
    })
}
