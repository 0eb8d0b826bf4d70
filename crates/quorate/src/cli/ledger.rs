//! `ledger copy` and `cluster adopt-history`: a stopped cluster in another ledger, and one whose store has lost what
//! directors had seen. Both begin a new era, so that nothing of before counts any more and tokens go on rising.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_core::cluster::{Cluster, FoldError, NewEra, Restored};
use quorate_core::director::SILENCE;
use quorate_core::ids::{ClusterId, DirectorName, Era, Position};
use quorate_core::spec::Span;
use quorate_core::time::WallTime;
use quorate_director::folded::{self, Folded};
use quorate_ledger::address::Address;
use quorate_ledger::shared::{BeginError, SharedLedger};
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
/// A director that leads says something within this.
const QUIET: Duration = SILENCE.saturating_mul(2);

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

pub(super) async fn copy(args: &CopyArgs, output: Output) -> Result<Exit, Failure> {
    let (from, to) = (Place::of(&args.from)?, Place::of(&args.to)?);
    let state = match &from {
        Place::Folder(dir) => of_folder(dir)?,
        Place::Store(at) => of_store(at).await?.0,
    };
    let id = state.cluster;
    if let Place::Store(at) = &to
        && is_there(at, &state).await?
    {
        // A copy that was cut short at its last step.
        leave(&from, &at.to_string(), id).await?;
        say(&format!(
            "the cluster was copied to {at} before; start its directors there"
        ));
        return Ok(Exit::Done);
    }
    let restored = in_new_era(state.folded, None, Duration::ZERO)?;
    let there = match &to {
        Place::Folder(dir) => {
            into_folder(dir, args.name.as_ref(), id, &restored.cluster)?;
            dir.display().to_string()
        }
        Place::Store(at) => {
            into_empty_store(at, id, &restored.cluster).await?;
            at.to_string()
        }
    };
    leave(&from, &there, id).await?;
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

/// Puts the state of a backup into a store that has none, or whose cluster is the same one and which lost it.
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

/// What a director that does not run has folded, and all that its log has beyond.
fn of_folder(dir: &Path) -> Result<State, Failure> {
    let Some(stopped) = Stopped::open(&dir.join("ledger")).map_err(super::recovery::of_ledger)?
    else {
        return Err(Failure::new(
            Code::DataDir,
            format!("{} has no ledger", dir.display()),
            "name the data folder of a director: the one that it is given with --data-dir",
        ));
    };
    let folded = super::recovery::fold_stopped(&stopped, dir)?;
    Ok(State {
        cluster: ClusterId(stopped.cluster),
        folded,
    })
}

/// All that a store has, once nobody writes there.
async fn of_store(at: &Address) -> Result<(State, SharedLedger, Tail), Failure> {
    let ledger = open_store(at)?;
    let unready = |error: ReadError| unready(at, &error);
    let owner = ledger.owner().await.map_err(unready)?;
    let Some(owner) = owner else {
        return Err(Failure::new(
            Code::NotFound,
            format!("there is no ledger at {at}"),
            "check the address; `quorate cluster restore` makes the ledger of a backup",
        ));
    };
    if let Some(to) = owner.moved_to {
        return Err(Failure::new(
            Code::Conflict,
            format!("the ledger at {at} was moved to {to}"),
            "go on with the new address",
        ));
    }
    let before = ledger.tail().await.map_err(unready)?;
    tokio::time::sleep(QUIET).await;
    let tail = ledger.tail().await.map_err(unready)?;
    if tail != before {
        return Err(Failure::new(
            Code::Conflict,
            format!("a director writes to the ledger at {at}"),
            "stop every director first",
        ));
    }
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

/// Whether a ledger has this cluster already, in a later era than it has where it is copied from.
async fn is_there(at: &Address, state: &State) -> Result<bool, Failure> {
    let ledger = open_store(at)?;
    let unready = |error: ReadError| unready(at, &error);
    let owner = ledger.owner().await.map_err(unready)?;
    if owner.is_none_or(|owner| owner.cluster != state.cluster || owner.moved_to.is_some()) {
        return Ok(false);
    }
    let tail = ledger.tail().await.map_err(unready)?;
    let folded = fold(&ledger, at, tail).await?;
    Ok(folded.era() > state.folded.era())
}

async fn into_empty_store(at: &Address, id: ClusterId, state: &Cluster) -> Result<(), Failure> {
    let ledger = open_store(at)?;
    let owner = ledger
        .claim(id)
        .await
        .map_err(|error| unready(at, &error))?;
    if owner.cluster != id {
        return Err(Failure::new(
            Code::Conflict,
            format!("the ledger at {at} is that of cluster {}", owner.cluster),
            "choose another prefix or schema",
        ));
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
            BeginError::NotEmpty => (Code::Conflict, "choose another prefix or schema"),
            BeginError::Moved { .. } => (Code::Conflict, "stop every director first"),
            BeginError::Backwards { .. } => (
                Code::Conflict,
                "name a higher era with --era: the one after this was begun before",
            ),
            BeginError::Left { .. } => (Code::Conflict, "choose another prefix or schema"),
            BeginError::Unavailable(_) => (
                Code::Unreachable,
                "run the same command again: what was done is found",
            ),
        };
        Failure::new(code, format!("{at}: {}", chain(&error)), next)
    })
}

fn into_folder(
    dir: &Path,
    name: Option<&DirectorName>,
    id: ClusterId,
    state: &Cluster,
) -> Result<(), Failure> {
    let Some(name) = name else {
        return Err(Failure::new(
            Code::Usage,
            "a folder is that of one director, and no name was given",
            "say which with --name",
        ));
    };
    let ledger = dir.join("ledger");
    if ledger.exists() {
        return Err(Failure::new(
            Code::Conflict,
            format!("{} is there already", ledger.display()),
            "choose another folder",
        ));
    }
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

/// Nobody may go on with the ledger that was copied.
async fn leave(from: &Place, there: &str, id: ClusterId) -> Result<(), Failure> {
    match from {
        Place::Store(at) => {
            let ledger = open_store(at)?;
            let marked = ledger.mark_moved(id, there).await;
            marked.map_err(|error| unready(at, &error))?;
            say(&format!("the ledger at {at} takes nothing any more"));
        }
        Place::Folder(dir) => {
            let (ledger, aside) = (dir.join("ledger"), dir.join("ledger.moved"));
            let moved = std::fs::rename(&ledger, &aside);
            moved.map_err(|error| folder::unwritable(&aside, &error))?;
            let noted = Folded {
                ledger: there.to_owned(),
                position: 0,
                hash: 0,
            };
            let noted = folded::write(dir, &noted);
            noted.map_err(|error| folder::unwritable(&dir.join(folded::FILE), &error))?;
            say(&format!(
                "the ledger that was copied is now {}; no other director of before may ever run with its own again",
                aside.display()
            ));
        }
    }
    Ok(())
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
