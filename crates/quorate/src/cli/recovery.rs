//! `cluster backup` and `cluster restore`: the whole state as a file, and a cluster made of one.
//!
//! A backup is checked before it is called one, and again when it lies on the disk. Restoring asks no cluster: it
//! makes the data folder of a director, which begins a new era when it is started.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_core::cluster::{Cluster, NewEra, Restored};
use quorate_core::ids::{ClusterId, DirectorName, Era, Position};
use quorate_core::spec::Span;
use quorate_core::time::WallTime;
use quorate_director::backup::{self, Backup, Head};
use quorate_pki::FOLDER;
use quorate_raft::{Beginning, OpenError, Stopped, found_with};
use serde::Serialize;

use super::args::{BackupArgs, RestoreArgs};
use super::remote::{Remote, failure_of};
use super::{folder, ledger};
use crate::failure::{Code, Exit, Failure, chain};
use crate::output::say;
use crate::papers;

/// The result of a restore.
#[derive(Debug, Serialize)]
struct Report<'a> {
    cluster: &'a str,
    era: u16,
    from: &'a Head,
    #[serde(rename = "data_dir")]
    place: &'a str,
    /// Nothing is given away for so long after its director leads.
    waits_ms: u64,
    /// Services that come back stopped, because their work is kept without a lease.
    stopped: Vec<String>,
}

pub(super) async fn backup(args: &BackupArgs, remote: &Remote) -> Result<Exit, Failure> {
    let file = match (&args.check, &args.data_dir) {
        (Some(path), _) => {
            let backup = load(path)?;
            tell(remote, path, &backup.head)?;
            return Ok(Exit::Done);
        }
        (None, Some(dir)) => of_stopped(dir)?,
        (None, None) => of_cluster(remote).await?,
    };
    let whole = backup::read(&file).map_err(|error| {
        Failure::new(
            Code::BackupInvalid,
            format!("what came is no backup: {}", chain(&error)),
            "ask again, or another director with --address",
        )
    })?;
    let Some(path) = args.to.as_ref().filter(|path| path.as_os_str() != "-") else {
        remote.output.bytes(&file)?;
        return Ok(Exit::Done);
    };
    write(path, &file)?;
    tell(remote, path, &whole.head)?;
    Ok(Exit::Done)
}

async fn of_cluster(remote: &Remote) -> Result<Vec<u8>, Failure> {
    let mut stream = remote.client.backup().await.map_err(failure_of)?;
    let mut file = Vec::new();
    while let Some(mut piece) = stream.next().await.map_err(failure_of)? {
        file.append(&mut piece);
    }
    Ok(file)
}

/// What a director that does not run has folded, and all that its log has beyond.
fn of_stopped(data_dir: &Path) -> Result<Vec<u8>, Failure> {
    let ledger = data_dir.join("ledger");
    let stopped = Stopped::open(&ledger).map_err(of_ledger)?;
    let Some(stopped) = stopped else {
        return Err(Failure::new(
            Code::DataDir,
            format!("{} has no ledger", data_dir.display()),
            "name the data folder of a director: the one that it is given with --data-dir",
        ));
    };
    let cluster = fold_stopped(&stopped, data_dir)?;
    let name = DirectorName::new(&stopped.name);
    let name = name.map_err(|error| unreadable(data_dir, &chain(&error)))?;
    Ok(backup::write(ClusterId(stopped.cluster), &name, &cluster))
}

/// The state after all that the log of a director has which does not run.
///
/// # Errors
/// When a part of it cannot be read.
pub(super) fn fold_stopped(stopped: &Stopped, data_dir: &Path) -> Result<Cluster, Failure> {
    let mut cluster = match stopped.fold() {
        Some(fold) => {
            Cluster::decode(fold).map_err(|error| unreadable(data_dir, &chain(&error)))?
        }
        None => Cluster::default(),
    };
    let mut broken = None;
    let take = |_: Position, bytes: &[u8]| match cluster.fold(bytes) {
        Ok(_) => true,
        Err(error) => {
            broken = Some(chain(&error));
            false
        }
    };
    let read = stopped.entries(take);
    read.map_err(|error| unreadable(data_dir, &chain(&error)))?;
    if let Some(why) = broken {
        return Err(unreadable(data_dir, &why));
    }
    Ok(cluster)
}

fn unreadable(data_dir: &Path, why: &str) -> Failure {
    Failure::new(
        Code::DataDir,
        format!("the ledger in {} cannot be read: {why}", data_dir.display()),
        "try the folder of another director, or an older backup",
    )
}

/// Writes the file so that it is whole or not there, readable by its owner alone, and reads it back.
fn write(path: &Path, file: &[u8]) -> Result<(), Failure> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".unfinished");
    let draft = PathBuf::from(draft);
    let written = || -> io::Result<()> {
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut out = OpenOptions::new();
        let mut out = out.write(true).create_new(true).mode(0o600).open(&draft)?;
        out.write_all(file)?;
        out.sync_all()?;
        drop(out);
        if fs::read(&draft)? != file {
            return Err(io::Error::other(
                "what was read back is not what was written",
            ));
        }
        fs::rename(&draft, path)?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    written().map_err(|error| {
        // It may never have been made; what it is in the way of is said again next time.
        let _ = fs::remove_file(&draft);
        Failure::new(
            Code::Output,
            format!("{} was not written: {error}", path.display()),
            "look at the disk and the rights of the folder, then make the backup again",
        )
    })
}

fn load(path: &Path) -> Result<Backup, Failure> {
    let file = fs::read(path).map_err(|error| {
        Failure::new(
            Code::FileUnreadable,
            format!("{}: {error}", path.display()),
            "check the path",
        )
    })?;
    backup::read(&file).map_err(|error| {
        Failure::new(
            Code::BackupInvalid,
            format!("{}: {}", path.display(), chain(&error)),
            "use another backup: `quorate cluster backup --check FILE` tells which are whole",
        )
    })
}

fn tell(remote: &Remote, path: &Path, head: &Head) -> Result<(), Failure> {
    let text = || {
        format!(
            "{}: whole\n\
             cluster {}, era {}, position {}, made {} from {} by version {}\n\
             {} services, {} partitions, {} agents, {} bytes\n",
            path.display(),
            head.cluster,
            head.era,
            head.position,
            head.created,
            head.director,
            head.version,
            head.services,
            head.partitions,
            head.agents,
            head.bytes
        )
    };
    remote.output.one(head, &path.display().to_string(), text)
}

pub(super) async fn restore(args: &RestoreArgs, remote: &Remote) -> Result<Exit, Failure> {
    let backup = load(&args.file)?;
    if let Some(dir) = &args.data_dir {
        is_new(dir)?;
    }
    let Backup {
        head,
        cluster: id,
        state,
    } = backup;
    let new = NewEra {
        era: Era(args.era.unwrap_or_default()),
        longest_lease: args.longest_lease.map_or(Duration::ZERO, |span| span.0),
        history: rand::random(),
        wall: now(),
    };
    let restored = state.in_new_era(new).map_err(|error| {
        Failure::new(
            Code::Conflict,
            error,
            "leave --era out, or name one above every era that this cluster has had",
        )
    })?;
    let Restored {
        cluster,
        waits,
        stopped,
    } = restored;
    let (place, start) = match (&args.ledger, &args.data_dir, &args.name) {
        (Some(ledger), _, _) => {
            let at = ledger::restore(ledger, id, &cluster).await?;
            (at, "start its directors with this --ledger".to_owned())
        }
        (None, Some(data_dir), Some(name)) => {
            into_folder(args, (data_dir, name), id, &cluster)?;
            let place = data_dir.display().to_string();
            let start = format!("start it: quorate director --name {name} --data-dir {place}");
            (place, start)
        }
        (None, _, _) => return Err(nowhere()),
    };
    let report = Report {
        cluster: &head.cluster,
        era: cluster.era().0,
        from: &head,
        place: &place,
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
    say("no director of before may ever run again: stop them for good before this one starts");
    let text = || {
        format!(
            "cluster {}, as of {}, is in {place}, and begins era {}\n\
             {start}\n\
             it gives nothing away for {} after it leads\n",
            report.cluster,
            head.created,
            report.era,
            Span(waits)
        )
    };
    let name = match &args.name {
        Some(name) => format!("director/{name}"),
        None => format!("cluster/{}", head.cluster),
    };
    remote.output.one(&report, &name, text)?;
    Ok(Exit::Done)
}

/// Makes the data folder of the first director.
fn into_folder(
    args: &RestoreArgs,
    (data_dir, name): (&Path, &DirectorName),
    id: ClusterId,
    cluster: &Cluster,
) -> Result<(), Failure> {
    papers::fit(data_dir, id, name.as_str())?;
    folder::make(data_dir)?;
    let beginning = Beginning {
        cluster: id.0,
        address: args.peer_advertise.clone().unwrap_or_default(),
        next: cluster.position().next(),
        epoch: cluster.epoch(),
        fold: cluster.encode(),
    };
    found_with(&data_dir.join("ledger"), name, &beginning).map_err(of_ledger)?;
    Ok(())
}

fn nowhere() -> Failure {
    Failure::new(
        Code::Usage,
        "where the cluster is to be was not said",
        "name the folder of its first director with --data-dir DIR --name NAME, or a store with --ledger URL",
    )
}

/// Whether no director was ever in a folder.
fn is_new(data_dir: &Path) -> Result<(), Failure> {
    let found = match fs::read_dir(data_dir) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(Failure::new(
                Code::DataDir,
                format!("{}: {error}", data_dir.display()),
                "choose another folder with --data-dir",
            ));
        }
    };
    let names = found.flatten().map(|entry| entry.file_name());
    let mut other = names.filter(|name| name != FOLDER);
    match other.next() {
        None => Ok(()),
        Some(other) => Err(Failure::new(
            Code::Conflict,
            format!(
                "{} is in use: it has {}",
                data_dir.display(),
                other.display()
            ),
            "restore into a new folder; only the `pki` folder of this director may be there before",
        )),
    }
}

pub(super) fn of_ledger(error: OpenError) -> Failure {
    let code = match &error {
        OpenError::Locked { .. } => Code::DataDirLocked,
        OpenError::Listen { .. }
        | OpenError::Start(_)
        | OpenError::Certificate(_)
        | OpenError::Disk { .. }
        | OpenError::Damaged { .. }
        | OpenError::Foreign { .. }
        | OpenError::Newer { .. }
        | OpenError::OtherCluster { .. } => Code::DataDir,
    };
    Failure::new(code, chain(&error), crate::daemon::next(code))
}

fn now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    WallTime(i64::try_from(millis).unwrap_or(i64::MAX))
}
