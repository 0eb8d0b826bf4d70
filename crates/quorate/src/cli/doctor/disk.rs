//! The disk of a data folder: what it is, how much room there is, how fast it makes something durable.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Finding;

const FOLDER: &str = "data folder";
const ROOM: &str = "disk space";
const SYNC: &str = "disk sync";

/// Room that a daemon needs to go on at all, and to go on for long.
const ROOM_MIN: u64 = 64 << 20;
const ROOM_WARN: u64 = 1 << 30;
/// How often something is made durable for the measurement, and how long that may take in all.
const SYNCS: usize = 8;
const SYNCS_WITHIN: Duration = Duration::from_secs(3);
/// A director whose disk is slower than this gives up leading, and well before it everything waits.
const SYNC_MAX: Duration = Duration::from_secs(2);
const SYNC_WARN: Duration = Duration::from_millis(50);

/// Kinds of file systems by what the kernel calls them, and what is wrong with them for a data folder.
const KINDS: [(u64, &str, Option<&str>); 15] = [
    (0xef53, "ext4", None),
    (0x5846_5342, "xfs", None),
    (0x9123_683e, "btrfs", None),
    (0x2fc1_2fc1, "zfs", None),
    (0xf2f5_2010, "f2fs", None),
    (0xca45_1a4e, "bcachefs", None),
    (
        0x0102_1994,
        "tmpfs",
        Some("it is gone when the machine restarts"),
    ),
    (
        0x8584_58f6,
        "ramfs",
        Some("it is gone when the machine restarts"),
    ),
    (
        0x794c_7630,
        "overlayfs",
        Some("in a container it is gone with it; mount a volume"),
    ),
    (
        0x6969,
        "nfs",
        Some("locks and durability depend on the server"),
    ),
    (
        0xff53_4d42,
        "cifs",
        Some("locks and durability depend on the server"),
    ),
    (
        0xfe53_4d42,
        "smb2",
        Some("locks and durability depend on the server"),
    ),
    (
        0x0102_1997,
        "9p",
        Some("locks and durability depend on the host"),
    ),
    (
        0x6573_5546,
        "fuse",
        Some("durability depends on the program behind it"),
    ),
    (
        0x00c3_6400,
        "ceph",
        Some("durability depends on the network"),
    ),
];

pub(super) fn findings(data_dir: Option<&Path>) -> Vec<Finding> {
    let Some(wanted) = data_dir else {
        return vec![Finding::unknown(
            FOLDER,
            "not looked at",
            "name it: quorate doctor --data-dir DIR",
        )];
    };
    let Some(folder) = existing(wanted) else {
        return vec![Finding::bad(
            FOLDER,
            format!("{} cannot be found", wanted.display()),
            "check the path",
        )];
    };
    let mut findings = vec![];
    let shown = if folder == wanted {
        folder.display().to_string()
    } else {
        format!(
            "{} does not exist yet; {}",
            wanted.display(),
            folder.display()
        )
    };
    match rustix::fs::statfs(&folder) {
        Ok(system) => {
            findings.push(kind(&shown, u64::try_from(system.f_type).unwrap_or(0)));
            let unit = u64::try_from(system.f_bsize).unwrap_or(0);
            findings.push(room(system.f_bavail.saturating_mul(unit)));
        }
        Err(error) => findings.push(Finding::bad(
            FOLDER,
            format!("{shown} cannot be looked at: {error}"),
            "check its permissions",
        )),
    }
    findings.push(match syncs(&folder) {
        Ok(times) => sync(times),
        Err(error) => Finding::bad(
            SYNC,
            format!("a file in {} cannot be written: {error}", folder.display()),
            "give the folder to the user that runs the daemon",
        ),
    });
    findings
}

/// The file system of a folder that is or will be there; nothing when that cannot be found out.
pub(super) fn file_system(data_dir: &Path) -> Option<Finding> {
    let folder = existing(data_dir)?;
    let system = rustix::fs::statfs(&folder).ok()?;
    let shown = data_dir.display().to_string();
    Some(kind(&shown, u64::try_from(system.f_type).unwrap_or(0)))
}

/// The folder, or the nearest one above it that is there.
fn existing(folder: &Path) -> Option<PathBuf> {
    let whole = std::path::absolute(folder).ok()?;
    if folder.is_dir() {
        return Some(folder.to_owned());
    }
    whole
        .ancestors()
        .find(|folder| folder.is_dir())
        .map(Path::to_owned)
}

fn kind(shown: &str, magic: u64) -> Finding {
    match KINDS.iter().find(|(known, _, _)| *known == magic) {
        Some((_, name, None)) => Finding::ok(FOLDER, format!("{shown} is on {name}")),
        Some((_, name, Some(why))) => Finding::warn(
            FOLDER,
            format!("{shown} is on {name}: {why}"),
            "choose a folder on a disk of this machine",
        ),
        None => Finding::unknown(
            FOLDER,
            format!("{shown} is on a file system of kind {magic:#x}"),
            "see that it keeps what it has synced",
        ),
    }
}

fn room(bytes: u64) -> Finding {
    let found = if bytes < ROOM_WARN {
        format!("{} MiB free", bytes >> 20)
    } else {
        format!("{} GiB free", bytes >> 30)
    };
    if bytes < ROOM_MIN {
        Finding::bad(ROOM, found, "make room: nothing can be written soon")
    } else if bytes < ROOM_WARN {
        Finding::warn(ROOM, found, "make room: output of jobs and the ledger grow")
    } else {
        Finding::ok(ROOM, found)
    }
}

/// How long it took each time until a few bytes were durable.
fn syncs(folder: &Path) -> io::Result<Vec<Duration>> {
    let path = folder.join(format!(".quorate-doctor-{:016x}", rand::random::<u64>()));
    let mut file = File::options().write(true).create_new(true).open(&path)?;
    let began = Instant::now();
    let mut measure = || -> io::Result<Vec<Duration>> {
        let mut times = Vec::new();
        while times.len() < SYNCS && began.elapsed() < SYNCS_WITHIN {
            file.write_all(&[0; 4096])?;
            let begun = Instant::now();
            file.sync_data()?;
            times.push(begun.elapsed());
        }
        Ok(times)
    };
    let times = measure();
    let removed = std::fs::remove_file(&path);
    let times = times?;
    removed?;
    Ok(times)
}

fn sync(mut times: Vec<Duration>) -> Finding {
    times.sort();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    let worst = times.last().copied().unwrap_or_default();
    let found = format!(
        "{:.1} ms as a rule, {:.1} ms at worst of {}",
        middle.as_secs_f64() * 1e3,
        worst.as_secs_f64() * 1e3,
        times.len()
    );
    if worst >= SYNC_MAX {
        Finding::bad(
            SYNC,
            found,
            "a director on this disk would give up leading; take another",
        )
    } else if middle >= SYNC_WARN {
        Finding::warn(
            SYNC,
            found,
            "a director here is slow to decide; take a faster disk",
        )
    } else {
        Finding::ok(SYNC, found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_folder_that_forgets_is_warned_of_and_one_that_is_none_is_bad() {
        assert_eq!(kind("/x", 0xef53).state, State::Ok);
        assert_eq!(kind("/x", 0x0102_1994).state, State::Warn);
        assert_eq!(kind("/x", 0x6969).state, State::Warn);
        assert_eq!(kind("/x", 1).state, State::Unknown);
        let found = findings(Some(Path::new("/proc/nothing/here")));
        assert!(
            found.iter().any(|finding| finding.state == State::Bad),
            "{found:?}"
        );
    }

    #[test]
    fn room_and_speed_have_limits() {
        assert_eq!(room(1 << 20).state, State::Bad);
        assert_eq!(room(500 << 20).state, State::Warn);
        assert_eq!(room(5 << 30).state, State::Ok);
        let millis = |times: &[u64]| times.iter().copied().map(Duration::from_millis).collect();
        assert_eq!(sync(millis(&[1, 2, 60])).state, State::Ok);
        assert_eq!(sync(millis(&[60, 70, 80])).state, State::Warn);
        assert_eq!(sync(millis(&[1, 1, 2_100])).state, State::Bad);
    }

    #[test]
    fn the_measurement_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("not/yet");
        let found = findings(Some(&missing));
        assert!(found.iter().all(|finding| finding.state != State::Bad));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
