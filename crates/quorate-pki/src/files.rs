//! Certificates and keys on disk: written whole or not at all, keys for their owner only.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use crate::error::Error;

/// The folder of papers, in the data folder of a director or an agent.
pub const FOLDER: &str = "pki";
/// The certificates that are trusted, in a folder of papers.
pub const TRUST: &str = "ca.pem";
/// The key of the authority, only where certificates are signed.
pub const AUTHORITY_KEY: &str = "ca.key";
/// Own certificate and key in one file, so that both are replaced at once.
pub const PAPERS: &str = "papers.pem";

/// For everybody to read.
pub(crate) const PUBLIC: u32 = 0o644;
/// For the owner alone.
pub(crate) const PRIVATE: u32 = 0o600;
/// Longer files are none of ours; a chain and a key are a few KiB.
const BYTES_MAX: u64 = 1 << 20;

fn disk(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |cause| Error::Disk {
        action,
        path: path.to_owned(),
        cause,
    }
}

/// Writes a file that must not be there yet.
pub(crate) fn create(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    write_new(path, text, mode).map_err(disk("write", path))?;
    sync_folder(path)
}

/// Writes a file over the one that is there: after a crash either is whole.
pub(crate) fn replace(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = Path::new(&draft);
    let write = || -> io::Result<()> {
        match std::fs::remove_file(draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        write_new(draft, text, mode)?;
        std::fs::rename(draft, path)
    };
    write().map_err(disk("write", path))?;
    sync_folder(path)
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(disk("write", folder))
}

/// Reads a file that anybody may read.
pub(crate) fn read(path: &Path) -> Result<String, Error> {
    let file = File::open(path).map_err(disk("read", path))?;
    text(path, file)
}

/// Reads a private key, if only its owner may.
pub(crate) fn read_private(path: &Path) -> Result<String, Error> {
    let file = File::open(path).map_err(disk("read", path))?;
    let mode = file.metadata().map_err(disk("read", path))?.permissions();
    let mode = mode.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    text(path, file)
}

fn text(path: &Path, file: File) -> Result<String, Error> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, BYTES_MAX), &mut text)
        .map_err(disk("read", path))?;
    Ok(text)
}
