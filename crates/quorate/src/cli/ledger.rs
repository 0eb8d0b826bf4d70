//! `ledger copy` and `cluster adopt-history`: a stopped cluster in another ledger, and one whose store has lost what
//! directors had seen. Both begin a new era, so that nothing of before counts any more and tokens go on rising.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_core::cluster::{Cluster, FoldError, NewEra, Restored};
use quorate_core::director::TAKEOVER;
use quorate_core::ids::{ClusterId, DirectorName, Era, Position};
use quorate_core::spec::Span;
use quorate_core::time::WallTime;
use quorate_director::folded::{self, Folded};
use quorate_ledger::address::Address;
use quorate_ledger::shared::{BeginError, Owner, SharedLedger};
use quorate_ledger::{Ledger as _, ReadError, Tail};
use quorate_raft::{Beginning, Stopped, found_with};
use serde::Serialize;

use super::args::{AdoptArgs, CopyArgs};
use super::folder;
use crate::director::{address, open_store, unready};
use crate::failure::{Code, Exit, Failure, chain};
use crate::output::{Output, say};

/// Entries of one read; the ledger bounds the bytes.
const READ_LIMIT: usize = 1024;
/// A director that leads says something within this, and so does one that has just begun to wait for another.
const QUIET: Duration = TAKEOVER.saturating_add(Duration::from_secs(1));
/// Most bytes of what a ledger that is left says of where its cluster is.
const MOVED_TO_MAX: usize = 300;

/// A ledger by what a person writes for it.
#[derive(Debug)]
enum Place {
    /// The data folder of a director with an embedded ledger.
    Folder(PathBuf),
    /// A store.
    Store(Box<Address>),
}

impl Place {
    fn of(said: &str) -> Result<Self, Failure> {
        if said.contains("://") {
            return Ok(Self::Store(Box::new(address(said)?)));
        }
        Ok(Self::Folder(crate::daemon::absolute(Path::new(said))?))
    }

    /// For people, and for the ledger that is left: short enough for that.
    fn told(&self) -> String {
        let mut told = match self {
            Self::Folder(dir) => dir.display().to_string(),
            Self::Store(at) => at.to_string(),
        };
        while told.len() > MOVED_TO_MAX {
            told.pop();
        }
        told
    }
}

/// A ledger that is being left.
#[derive(Debug)]
enum Source {
    /// The folder, held so that no director can be started on it, and where it goes.
    Folder(PathBuf, Box<Stopped>, String),
    Store(Box<Address>),
}

impl Source {
    /// From now on nobody goes on with this ledger.
    async fn close(from: &Place, there: &str) -> Result<Self, Failure> {
        match from {
            Place::Store(at) => {
                let ledger = of_somebody(at, Some(there)).await?;
                if ledger.1.moved_to.is_none() {
                    quiet(&ledger.0, at).await?;
                    let marked = ledger.0.mark_moved(ledger.1.cluster, there).await;
                    marked.map_err(|error| unready(at, &error))?;
                }
                say(&format!("the ledger at {at} takes nothing any more"));
                Ok(Self::Store(at.clone()))
            }
            Place::Folder(dir) => {
                if let Some(noted) = noted(dir)?.filter(|noted| noted.ledger != there) {
                    return Err(moved(dir.display(), &noted.ledger));
                }
                let stopped = open_stopped(dir)?;
                let noted = folded::write(dir, &Folded::nothing(there));
                noted.map_err(|error| folder::unwritable(&dir.join(folded::FILE), &error))?;
                Ok(Self::Folder(
                    dir.clone(),
                    Box::new(stopped),
                    there.to_owned(),
                ))
            }
        }
    }

    async fn state(&self) -> Result<State, Failure> {
        match self {
            Self::Store(at) => {
                let ledger = open_store(at)?;
                let owner = ledger.owner().await.map_err(|error| unready(at, &error))?;
                let cluster = owner.ok_or_else(|| nobodys(at))?.cluster;
                let tail = ledger.tail().await.map_err(|error| unready(at, &error))?;
                let folded = fold(&ledger, at, tail).await?;
                Ok(State { cluster, folded })
            }
            Self::Folder(dir, stopped, _) => Ok(State {
                cluster: ClusterId(stopped.cluster),
                folded: super::recovery::fold_stopped(stopped, dir)?,
            }),
        }
    }

    /// What is left of it is put aside.
    fn leave(self) -> Result<(), Failure> {
        let Self::Folder(dir, stopped, there) = self else {
            return Ok(());
        };
        let names = std::iter::once("ledger.moved".to_owned());
        let names = names.chain((2..).map(|number| format!("ledger.moved.{number}")));
        let mut names = names.map(|name| dir.join(name));
        let aside = names.find(|path| !path.exists());
        let aside = aside.unwrap_or_else(|| dir.join("ledger.moved"));
        let left = std::fs::rename(dir.join("ledger"), &aside);
        left.map_err(|error| folder::unwritable(&aside, &error))?;
        drop(stopped);
        say(&format!(
            "the ledger that was moved to {there} is now {}; no other director of before may ever run with its own again",
            aside.display()
        ));
        Ok(())
    }
}

fn moved(from: impl std::fmt::Display, to: &str) -> Failure {
    Failure::new(
        Code::Conflict,
        format!("the ledger of {from} was moved to {to}"),
        "go on with the new one",
    )
}

fn nobodys(at: &Address) -> Failure {
    Failure::new(
        Code::NotFound,
        format!("there is no ledger at {at}"),
        "check the address; `quorate cluster restore` makes the ledger of a backup",
    )
}

/// The ledger of a cluster, that has not moved to anywhere else than `to`.
async fn of_somebody(at: &Address, to: Option<&str>) -> Result<(SharedLedger, Owner), Failure> {
    let ledger = open_store(at)?;
    let owner = ledger.owner().await.map_err(|error| unready(at, &error))?;
    let owner = owner.ok_or_else(|| nobodys(at))?;
    match &owner.moved_to {
        Some(moved_to) if to != Some(moved_to) => Err(moved(at, moved_to)),
        Some(_) | None => Ok((ledger, owner)),
    }
}

/// Nobody writes there for longer than a director waits before it leads.
async fn quiet(ledger: &SharedLedger, at: &Address) -> Result<Tail, Failure> {
    let unready = |error: ReadError| unready(at, &error);
    let before = ledger.tail().await.map_err(unready)?;
    tokio::time::sleep(QUIET).await;
    let tail = ledger.tail().await.map_err(unready)?;
    if tail == before {
        return Ok(tail);
    }
    Err(Failure::new(
        Code::Conflict,
        format!("a director writes to the ledger at {at}"),
        "stop every director first",
    ))
}

/// Whether nobody has begun to copy a ledger to there.
async fn is_open(from: &Place, there: &str) -> Result<bool, Failure> {
    match from {
        Place::Store(at) => Ok(of_somebody(at, Some(there)).await?.1.moved_to.is_none()),
        Place::Folder(dir) => Ok(noted(dir)?.is_none()),
    }
}

/// Refuses a place that has a cluster, be it the one that is to come there.
async fn is_free(to: &Place) -> Result<(), Failure> {
    match to {
        Place::Folder(dir) => has_no_ledger(dir),
        Place::Store(at) => {
            let owner = open_store(at)?.owner().await;
            match owner.map_err(|error| unready(at, &error))? {
                Some(owner) => Err(taken(at, &owner)),
                None => Ok(()),
            }
        }
    }
}

fn taken(at: &Address, owner: &Owner) -> Failure {
    Failure::new(
        Code::Conflict,
        format!("the ledger at {at} is that of cluster {}", owner.cluster),
        "choose another prefix or schema",
    )
}

fn has_no_ledger(dir: &Path) -> Result<(), Failure> {
    let ledger = dir.join("ledger");
    if !ledger.exists() {
        return Ok(());
    }
    Err(Failure::new(
        Code::Conflict,
        format!("{} is there already", ledger.display()),
        "choose another folder",
    ))
}

/// Where the ledger of a folder is, when it is in a store or on its way there.
fn noted(dir: &Path) -> Result<Option<Folded>, Failure> {
    folded::read(dir).map_err(|error| {
        let path = dir.join(folded::FILE);
        folder::unusable(format!("{} cannot be read: {error}", path.display()))
    })
}

/// The era of this cluster in a ledger, if it is there.
async fn era_in(to: &Place, id: ClusterId) -> Result<Option<Era>, Failure> {
    let folded = match to {
        Place::Folder(dir) if !dir.join("ledger").exists() => return Ok(None),
        Place::Folder(dir) => {
            let stopped = open_stopped(dir)?;
            if stopped.cluster != id.0 {
                return Ok(None);
            }
            super::recovery::fold_stopped(&stopped, dir)?
        }
        Place::Store(at) => {
            let ledger = open_store(at)?;
            let unready = |error: ReadError| unready(at, &error);
            let owner = ledger.owner().await.map_err(unready)?;
            if owner.is_none_or(|owner| owner.cluster != id) {
                return Ok(None);
            }
            let tail = ledger.tail().await.map_err(unready)?;
            fold(&ledger, at, tail).await?
        }
    };
    Ok(Some(folded.era()))
}

fn open_stopped(dir: &Path) -> Result<Stopped, Failure> {
    let stopped = Stopped::open(&dir.join("ledger")).map_err(super::recovery::of_ledger)?;
    stopped.ok_or_else(|| {
        Failure::new(
            Code::DataDir,
            format!("{} has no ledger", dir.display()),
            "name the data folder of a director: the one that it is given with --data-dir",
        )
    })
}

/// Everything that a ledger says.
#[derive(Debug)]
struct State {
    cluster: ClusterId,
    folded: Cluster,
}

/// What has become of a cluster.
#[derive(Debug, Serialize)]
struct Report {
    cluster: String,
    era: u16,
    ledger: String,
    services: usize,
    partitions: usize,
    /// Nothing is given away for so long after a director leads.
    waits_ms: u64,
    /// Services that come back stopped, because their work is kept without a lease.
    stopped: Vec<String>,
}

/// First the old ledger takes nothing any more, then what it has is put into the new one: cut short anywhere, no
/// director can go on with either, and the same command goes on from there.
pub(super) async fn copy(args: &CopyArgs, output: Output) -> Result<Exit, Failure> {
    let (from, to) = (Place::of(&args.from)?, Place::of(&args.to)?);
    let there = to.told();
    if matches!(to, Place::Folder(_)) && args.name.is_none() {
        return Err(nameless());
    }
    if is_open(&from, &there).await? {
        // Closed for a place that cannot take it, it could go nowhere else.
        is_free(&to).await?;
    }
    let source = Source::close(&from, &there).await?;
    let state = source.state().await?;
    let id = state.cluster;
    if era_in(&to, id)
        .await?
        .is_some_and(|era| era > state.folded.era())
    {
        say(&format!("it is in {there} already, from an earlier try"));
        source.leave()?;
        return Ok(Exit::Done);
    }
    let restored = in_new_era(state.folded, None, Duration::ZERO)?;
    match &to {
        Place::Folder(dir) => into_folder(dir, args.name.as_ref(), id, &restored.cluster)?,
        Place::Store(at) => into_empty_store(at, id, &restored.cluster).await?,
    }
    source.leave()?;
    tell(id, &restored, there, output)
}

pub(super) async fn adopt(args: &AdoptArgs, output: Output) -> Result<Exit, Failure> {
    let at = address(&args.ledger)?;
    let (state, ledger, tail) = of_store(&at).await?;
    let longest = args.longest_lease.map_or(Duration::ZERO, |span| span.0);
    let restored = in_new_era(state.folded, args.era, longest)?;
    begin(&ledger, &at, &restored.cluster, Some(tail.next)).await?;
    tell(state.cluster, &restored, at.to_string(), output)
}

/// Puts the state of a backup into a store that has no ledger.
pub(super) async fn restore(said: &str, id: ClusterId, state: &Cluster) -> Result<String, Failure> {
    let at = address(said)?;
    into_empty_store(&at, id, state).await?;
    Ok(at.to_string())
}

/// This state as the beginning of an era that nobody has had.
fn in_new_era(
    state: Cluster,
    era: Option<u16>,
    longest_lease: Duration,
) -> Result<Restored, Failure> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let wall = since.map_or(0, |since| since.as_millis());
    let new = NewEra {
        era: Era(era.unwrap_or_default()),
        longest_lease,
        history: rand::random(),
        wall: WallTime(i64::try_from(wall).unwrap_or(i64::MAX)),
    };
    state.in_new_era(new).map_err(|error| {
        Failure::new(
            Code::Conflict,
            error,
            "leave --era out, or name one above every era that this cluster has had",
        )
    })
}

/// All that a store has, once nobody writes there.
async fn of_store(at: &Address) -> Result<(State, SharedLedger, Tail), Failure> {
    let (ledger, owner) = of_somebody(at, None).await?;
    let tail = quiet(&ledger, at).await?;
    let folded = fold(&ledger, at, tail).await?;
    let state = State {
        cluster: owner.cluster,
        folded,
    };
    Ok((state, ledger, tail))
}

async fn fold(ledger: &SharedLedger, at: &Address, tail: Tail) -> Result<Cluster, Failure> {
    let unreadable = |why: String| {
        Failure::new(
            Code::Failed,
            format!("the ledger at {at} cannot be read: {why}"),
            "restore the store, or the cluster from a backup",
        )
    };
    let unready = |error: ReadError| unready(at, &error);
    let mut folded = match ledger.load_snapshot().await.map_err(unready)? {
        Some(kept) => Cluster::decode(&kept.bytes).map_err(|error| unreadable(chain(&error)))?,
        None => Cluster::default(),
    };
    while folded.position().next() < tail.next {
        let from = folded.position().next();
        let entries = ledger.read(from, READ_LIMIT).await.map_err(unready)?;
        if entries.is_empty() {
            return Err(unreadable(format!("position {from} is not there")));
        }
        for found in entries {
            match folded.fold(&found.entry) {
                Ok(_) => {}
                // Somebody who had seen what is lost has written behind what is left. It counts for nobody.
                Err(FoldError::OtherHistory { position }) => {
                    say(&format!(
                        "position {position} follows what is lost; it and what comes after it is left out"
                    ));
                    return Ok(folded);
                }
                Err(error @ FoldError::Decode { .. }) => return Err(unreadable(chain(&error))),
            }
        }
    }
    Ok(folded)
}

async fn into_empty_store(at: &Address, id: ClusterId, state: &Cluster) -> Result<(), Failure> {
    let ledger = open_store(at)?;
    let owner = ledger
        .claim(id)
        .await
        .map_err(|error| unready(at, &error))?;
    if owner.cluster != id {
        return Err(taken(at, &owner));
    }
    begin(&ledger, at, state, None).await
}

async fn begin(
    ledger: &SharedLedger,
    at: &Address,
    state: &Cluster,
    instead_of: Option<Position>,
) -> Result<(), Failure> {
    let (next, epoch) = (state.position().next(), state.epoch());
    let begun = ledger.begin(next, epoch, state.encode(), instead_of).await;
    begun.map_err(|error| {
        let (code, next) = match &error {
            BeginError::NotEmpty => (
                Code::Conflict,
                "the cluster is there, perhaps from an earlier try: start its directors there, or choose another prefix \
                 or schema",
            ),
            BeginError::Moved { .. } => (Code::Conflict, "stop every director first"),
            BeginError::Backwards { .. } => (
                Code::Conflict,
                "name a higher era with --era: the one after this was begun before",
            ),
            BeginError::Left { .. } => (Code::Conflict, "choose another prefix or schema"),
            BeginError::Unavailable(_) => (
                Code::Unreachable,
                "see with `quorate doctor --ledger URL` what is there, then run the same command again",
            ),
        };
        Failure::new(code, format!("{at}: {}", chain(&error)), next)
    })
}

fn nameless() -> Failure {
    Failure::new(
        Code::Usage,
        "a folder is that of one director, and no name was given",
        "say which with --name",
    )
}

fn into_folder(
    dir: &Path,
    name: Option<&DirectorName>,
    id: ClusterId,
    state: &Cluster,
) -> Result<(), Failure> {
    let name = name.ok_or_else(nameless)?;
    has_no_ledger(dir)?;
    let ledger = dir.join("ledger");
    crate::papers::fit(dir, id, name.as_str())?;
    folder::make(dir)?;
    let beginning = Beginning {
        cluster: id.0,
        address: String::new(),
        next: state.position().next(),
        epoch: state.epoch(),
        fold: state.encode(),
    };
    found_with(&ledger, name, &beginning).map_err(super::recovery::of_ledger)?;
    // What it had folded of a store is nothing that its own ledger could have.
    match std::fs::remove_file(dir.join(folded::FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(folder::unwritable(&dir.join(folded::FILE), &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn tell(
    id: ClusterId,
    restored: &Restored,
    ledger: String,
    output: Output,
) -> Result<Exit, Failure> {
    let Restored {
        cluster,
        waits,
        stopped,
    } = restored;
    let report = Report {
        cluster: id.to_string(),
        era: cluster.era().0,
        ledger,
        services: cluster.services().count(),
        partitions: cluster.partition_count(),
        waits_ms: u64::try_from(waits.as_millis()).unwrap_or(u64::MAX),
        stopped: stopped.iter().map(ToString::to_string).collect(),
    };
    if !stopped.is_empty() {
        say(&format!(
            "their work is kept without a lease, so they come back stopped: {}; once nothing of them executes \
             anywhere, `quorate start NAME`",
            report.stopped.join(", ")
        ));
    }
    let text = || {
        format!(
            "cluster {} is in {} and begins era {}: {} services, {} partitions\n\
             start its directors; nothing is given away for {} after one leads\n",
            report.cluster,
            report.ledger,
            report.era,
            report.services,
            report.partitions,
            Span(*waits)
        )
    };
    output.one(&report, &format!("cluster/{}", report.cluster), text)?;
    Ok(Exit::Done)
}
