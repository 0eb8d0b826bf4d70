//! Files of partitions: watched, read whole and at rest, and handed in as readings.
//!
//! Runs while this director leads, one task for each service with a file. Every reading is either
//! the whole list or the reason why there is none; what follows from it is the core's to decide. A
//! problem with a file never stops anything that runs. Must never hand in a part of a list.
//!
//! ```text
//!  kernel ──hint──┐
//!                 ▼
//!  clock ──look──► task of a service ──reading──► loop ──Call::Partitions──► core
//! ```

mod csv;
mod file;
mod json;
mod jsonl;
mod strict;
mod text;
mod toml;
mod watch;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::ids::ServiceName;
use quorate_core::spec::{PartitionSource, PartitionSpec, records};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, mpsc, oneshot, watch as channel};
use tokio::task::JoinHandle;

pub use file::{FILE_BYTES_MAX, ReadError, Roots};
pub use text::{ParseError, rows};

use file::{LOOKS_MAX, SETTLE, Source, Stamp};
use watch::Hints;

/// The sources to be read now: those of every service with a file while this director leads, none
/// while it does not.
pub type Wanted = BTreeMap<ServiceName, Follow>;

/// A source to be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    /// Any number that is another one when the service was removed and made anew: the new one has no
    /// partitions yet, though its file is the same.
    pub generation: u64,
    /// The source, with a `file`.
    pub source: PartitionSource,
}

/// What one look at a source gave.
#[derive(Debug)]
pub struct Reading {
    /// Whose source.
    pub service: ServiceName,
    /// The whole list, or why there is none.
    pub partitions: Result<Vec<PartitionSpec>, String>,
    /// Answered `true` once the reading is decided, whichever way. When it is answered `false` or
    /// dropped, the same reading is handed in again.
    pub decided: oneshot::Sender<bool>,
}

/// Longest that a reading may wait to be decided before it is handed in again.
const DECIDED_WITHIN: Duration = Duration::from_secs(30);

/// Longest until a reading that was not decided is handed in again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Longest that a file system may take to answer before that is told as a problem.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// Reads the wanted sources until the sender of `wanted` is dropped.
pub async fn run(
    roots: Roots,
    mut wanted: channel::Receiver<Wanted>,
    readings: mpsc::Sender<Reading>,
) {
    let mut followed: BTreeMap<ServiceName, Followed> = BTreeMap::new();
    loop {
        let now = wanted.borrow_and_update().clone();
        let gone: Vec<ServiceName> = followed
            .iter()
            .filter(|(name, old)| now.get(*name) != Some(&old.follow))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some(old) = followed.remove(&name) {
                old.end().await;
            }
        }
        for (name, follow) in now {
            followed
                .entry(name)
                .or_insert_with_key(|name| Followed::new(name, follow, &roots, &readings));
        }
        if wanted.changed().await.is_err() {
            break;
        }
    }
    for (_, old) in followed {
        old.end().await;
    }
}

/// Reads a file once, for a plan: nothing is handed in.
///
/// # Errors
/// With a sentence that says what is wrong with the file.
pub(crate) async fn read_once(
    service: &ServiceName,
    source: &PartitionSource,
    roots: &Roots,
) -> Result<Vec<PartitionSpec>, String> {
    let (nobody, _) = mpsc::channel(1);
    let follower = Follower::new(service.clone(), source.clone(), roots, nobody);
    let read = async {
        match follower.read_at_rest().await? {
            Some((_, bytes)) => Ok(follower.parse(bytes).await?.1),
            // Nothing was told before, so it cannot be as it was told last.
            None => Ok(Vec::new()),
        }
    };
    match tokio::time::timeout(READ_WITHIN, read).await {
        Ok(read) => read,
        Err(_) => {
            let seconds = READ_WITHIN.as_secs();
            let file = follower.file.shown();
            Err(format!("{file} could not be read within {seconds} s"))
        }
    }
}

/// A source and the task that follows it.
struct Followed {
    follow: Follow,
    stop: oneshot::Sender<Infallible>,
    task: JoinHandle<()>,
}

impl Followed {
    fn new(
        service: &ServiceName,
        follow: Follow,
        roots: &Roots,
        readings: &mpsc::Sender<Reading>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let follower = Follower::new(
            service.clone(),
            follow.source.clone(),
            roots,
            readings.clone(),
        );
        let task = tokio::spawn(async move {
            tokio::select! {
                () = follower.run() => {}
                _ = stopped => {}
            }
        });
        Self { follow, stop, task }
    }

    async fn end(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task of a source failed");
        }
    }
}

/// What was handed in last and decided; the same again would say nothing new.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    List([u8; 32]),
    Problem(String),
}

/// Follows one file.
struct Follower {
    service: ServiceName,
    source: PartitionSource,
    file: Source,
    readings: mpsc::Sender<Reading>,
    told: Option<Told>,
    /// The state of the file behind `told`.
    stamp: Option<Stamp>,
    /// Held by the thread that is at the disk.
    disk: Arc<Semaphore>,
}

impl Follower {
    fn new(
        service: ServiceName,
        source: PartitionSource,
        roots: &Roots,
        readings: mpsc::Sender<Reading>,
    ) -> Self {
        let path = source.file.clone().unwrap_or_default();
        Self {
            service,
            source,
            file: Source::new(&path, roots.clone()),
            readings,
            told: None,
            stamp: None,
            disk: Arc::new(Semaphore::new(1)),
        }
    }

    async fn run(mut self) {
        let mut hints = Hints::new();
        loop {
            // Watch first, then look: what changes in between gives a hint.
            let folders = self.disk(Source::folders);
            if let Ok(Ok(folders)) = tokio::time::timeout(READ_WITHIN, folders).await {
                hints.follow(folders);
            }
            let again = if self.look().await {
                self.source.every.0
            } else {
                self.source.every.0.min(AGAIN_AFTER)
            };
            tokio::select! {
                // Other files in the folder may change without a pause.
                () = hints.next() => tokio::time::sleep(SETTLE / 2).await,
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// Looks at the file, and hands in what is new. Whether everything found is decided.
    async fn look(&mut self) -> bool {
        let looked = tokio::time::timeout(READ_WITHIN, self.read_at_rest()).await;
        let (stamp, found) = match looked {
            Ok(Ok(None)) => return true,
            Ok(Ok(Some((stamp, bytes)))) => (Some(stamp), self.parse(bytes).await),
            Ok(Err(error)) => (None, Err(error)),
            Err(_) => {
                let seconds = READ_WITHIN.as_secs();
                let problem = format!("{} could not be read within {seconds} s", self.file.shown());
                (None, Err(problem))
            }
        };
        let (telling, partitions) = match found {
            Ok((hash, partitions)) => (Told::List(hash), Ok(partitions)),
            Err(problem) => (Told::Problem(problem.clone()), Err(problem)),
        };
        if self.told.as_ref() == Some(&telling) {
            self.stamp = stamp;
            return true;
        }
        if let Err(problem) = &partitions {
            tracing::warn!(service = %self.service, %problem, "a source cannot be read; what runs goes on");
        }
        let decided = self.hand_in(partitions).await;
        if decided {
            self.told = Some(telling);
            self.stamp = stamp;
        }
        decided
    }

    /// The file once it has stopped changing; `None` when it is as it was told last.
    async fn read_at_rest(&self) -> Result<Option<(Stamp, Vec<u8>)>, String> {
        for _ in 0..LOOKS_MAX {
            let stamp = self.disk(Source::stamp).await?.map_err(shown)?;
            if self.stamp == Some(stamp) {
                return Ok(None);
            }
            tokio::time::sleep(SETTLE).await;
            let read = self.disk(move |file| file.read(stamp)).await?;
            if let Some(bytes) = read.map_err(shown)? {
                return Ok(Some((stamp, bytes)));
            }
        }
        Err(shown(self.file.restless()))
    }

    async fn parse(&self, bytes: Vec<u8>) -> Result<([u8; 32], Vec<PartitionSpec>), String> {
        let source = self.source.clone();
        self.disk(move |file| {
            let partitions = parse(&file.shown(), &bytes, &source)?;
            Ok((Sha256::digest(&bytes).into(), partitions))
        })
        .await?
    }

    /// Does what may wait for a disk on a thread of its own, one at a time: a file system that no
    /// longer answers holds one thread, not another at every look.
    async fn disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Source) -> T + Send + 'static,
    ) -> Result<T, String> {
        let failed = |error: &dyn std::error::Error| format!("{}: {error}", self.file.shown());
        let permit = Arc::clone(&self.disk)
            .acquire_owned()
            .await
            .map_err(|error| failed(&error))?;
        let file = self.file.clone();
        tokio::task::spawn_blocking(move || {
            let result = work(&file);
            drop(permit);
            result
        })
        .await
        .map_err(|error| failed(&error))
    }

    /// Whether the reading was decided.
    async fn hand_in(&self, partitions: Result<Vec<PartitionSpec>, String>) -> bool {
        let (decided, decision) = oneshot::channel();
        let reading = Reading {
            service: self.service.clone(),
            partitions,
            decided,
        };
        let handed_in = async {
            self.readings.send(reading).await.ok()?;
            decision.await.ok()
        };
        matches!(
            tokio::time::timeout(DECIDED_WITHIN, handed_in).await,
            Ok(Some(true))
        )
    }
}

/// The partitions that the bytes of a file describe, or a sentence that names the file and the line.
///
/// # Errors
/// When the file is not a whole list of records, or a record is not a partition.
pub fn parse(
    name: &str,
    bytes: &[u8],
    source: &PartitionSource,
) -> Result<Vec<PartitionSpec>, String> {
    let rows = text::rows(name, bytes).map_err(|error| format!("{name}: {error}"))?;
    records::partitions(&rows, source).map_err(|errors| format!("{name}: {errors}"))
}

fn shown(error: ReadError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests;
