//! Everything that the ledger does to files, in one place, so that a test can cut the power after any of it.
//!
//! The functions add nothing to those of the system: what is written is durable after a sync of the file,
//! a name (new, changed or gone) after a sync of the folder. In tests, what is done in a watched folder is
//! recorded as well.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

#[cfg(test)]
pub(crate) mod hung;
#[cfg(test)]
pub(crate) mod watched;

/// An open file of the ledger.
#[derive(Debug)]
pub(crate) struct Handle {
    file: File,
    #[cfg(test)]
    watched: Option<watched::Open>,
    #[cfg(test)]
    dir: std::path::PathBuf,
}

impl Handle {
    fn new(
        file: File,
        #[cfg(test)] path: &Path,
        #[cfg(test)] watched: Option<watched::Open>,
    ) -> Self {
        Self {
            file,
            #[cfg(test)]
            watched,
            #[cfg(test)]
            dir: path.parent().unwrap_or(path).to_owned(),
        }
    }

    /// Writes all of `bytes` at an offset; durable with the next sync.
    pub(crate) fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)?;
        #[cfg(test)]
        watched::written(self.watched.as_ref(), bytes, at);
        Ok(())
    }

    /// Fills `bytes` from an offset.
    pub(crate) fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, at)
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        hung::wait(&self.dir);
        self.file.sync_data()?;
        #[cfg(test)]
        watched::synced(self.watched.as_ref());
        Ok(())
    }
}

/// Creates or empties a file that only its owner may read.
pub(crate) fn create(path: &Path) -> io::Result<Handle> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    Ok(Handle::new(
        file,
        #[cfg(test)]
        path,
        #[cfg(test)]
        watched::created(path),
    ))
}

/// Opens a file that is there, to read and write it.
pub(crate) fn open(path: &Path) -> io::Result<Handle> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    Ok(Handle::new(
        file,
        #[cfg(test)]
        path,
        #[cfg(test)]
        watched::opened(path),
    ))
}

/// Gives a file another name in the same folder, in place of the file that had it.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    #[cfg(test)]
    watched::renamed(from, to);
    Ok(())
}

/// Gives a file a second name in the same folder.
pub(crate) fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)?;
    #[cfg(test)]
    watched::linked(from, to);
    Ok(())
}

/// Takes a name away.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    #[cfg(test)]
    watched::removed(path);
    Ok(())
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()?;
    #[cfg(test)]
    watched::dir_synced(dir);
    Ok(())
}

/// Makes a folder that only its owner may enter, with those above it, durably.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let missing: Vec<&Path> = dir
        .ancestors()
        .take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists())
        .collect();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    for made in missing {
        match made.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all()?,
            Some(_) | None => File::open(".")?.sync_all()?,
        }
    }
    Ok(())
}
