//! A short way to the folder of the runs, for the names of their sockets.
//!
//! The name of a unix socket has at most 107 bytes, and the data folder is where a person wants it. Where it is too
//! long for the highest token, a link in a folder with a short name leads to it. It must never lead elsewhere: who
//! could choose that, would be asked instead of the agent.

use std::io;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use super::launch::NOTIFY;

/// Longest path that a unix socket can have, without the byte that ends it.
const SOCKET_PATH_MAX: usize = 107;
/// Digits of the highest token.
const TOKEN_DIGITS: usize = 20;
/// The longest name of a socket in the folder of a run.
const SOCKET_NAME_MAX: usize = NOTIFY.len();

/// The folder of the runs under a name that is short enough for sockets: its own, or a link that is made here and
/// told apart from those of other agents by the number of the data folder.
///
/// # Errors
/// When no link can be made anywhere.
pub(crate) fn way_to(runs: &Path, folder: u64) -> io::Result<PathBuf> {
    if fits(runs) {
        return Ok(runs.to_owned());
    }
    let mut failed = None;
    for base in bases() {
        let link = base.join(format!("quorate-{folder:x}"));
        match lead(&link, runs) {
            Ok(()) if fits(&link) => return Ok(link),
            Ok(()) => {}
            Err(cause) => failed = Some((link, cause)),
        }
    }
    let (link, cause) = failed.unwrap_or_else(|| {
        let cause = io::Error::from(io::ErrorKind::InvalidFilename);
        (runs.to_owned(), cause)
    });
    Err(io::Error::new(
        cause.kind(),
        format!(
            "its path is too long for the sockets of runs, and the short way {} cannot be made ({cause}); choose a \
             folder with a path of at most {} bytes",
            link.display(),
            SOCKET_PATH_MAX - below("/runs".len())
        ),
    ))
}

const fn below(name: usize) -> usize {
    name + 1 + TOKEN_DIGITS + 1 + SOCKET_NAME_MAX
}

fn fits(runs: &Path) -> bool {
    runs.as_os_str().len() + below(0) <= SOCKET_PATH_MAX
}

/// Where short names may be: not below `/tmp` as long as there is a folder that nobody cleans.
fn bases() -> Vec<PathBuf> {
    let own = if rustix::process::geteuid().is_root() {
        Some(PathBuf::from("/run"))
    } else {
        std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
    };
    let own = own.filter(|path| path.is_absolute());
    own.into_iter().chain([PathBuf::from("/tmp")]).collect()
}

/// Makes a link of this user that leads there, also where an earlier one of this user leads elsewhere.
fn lead(link: &Path, runs: &Path) -> io::Result<()> {
    match symlink(runs, link) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    let found = std::fs::symlink_metadata(link)?;
    let own = found.is_symlink() && found.uid() == rustix::process::geteuid().as_raw();
    if !own {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "somebody else has something there",
        ));
    }
    if std::fs::read_link(link)? == runs {
        return Ok(());
    }
    std::fs::remove_file(link)?;
    symlink(runs, link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_folder_is_taken_as_it_is_and_a_long_one_by_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let short = Path::new("/var/lib/quorate/runs");
        assert_eq!(way_to(short, 1).unwrap(), short);
        let runs = dir.path().join("d".repeat(90)).join("runs");
        std::fs::create_dir_all(&runs).unwrap();
        let folder = std::fs::metadata(&runs).unwrap().ino();
        let link = way_to(&runs, folder).unwrap();
        assert_eq!(std::fs::read_link(&link).unwrap(), runs);
        assert_eq!(way_to(&runs, folder).unwrap(), link, "again");
        let longest = link.join("9".repeat(TOKEN_DIGITS));
        std::fs::create_dir(&longest).unwrap();
        std::os::unix::net::UnixListener::bind(longest.join(NOTIFY)).unwrap();
        std::fs::remove_file(&link).unwrap();
    }

    #[test]
    fn a_link_of_this_user_is_led_anew_and_what_is_no_link_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let (link, runs) = (dir.path().join("link"), dir.path().join("runs"));
        symlink("/nowhere", &link).unwrap();
        lead(&link, &runs).unwrap();
        assert_eq!(std::fs::read_link(&link).unwrap(), runs);
        let file = dir.path().join("file");
        std::fs::write(&file, "text").unwrap();
        let refused = lead(&file, &runs).unwrap_err();
        assert!(refused.to_string().contains("somebody else"), "{refused}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "text");
    }
}
