//! A snapshot on its way in.
//!
//! It is collected in a file without a name, so that whatever happens on the way nothing is left of it,
//! and what was there before stays until the whole is checked and durable.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt};

use super::client::within;
use super::frame::{self, CHUNK};
use crate::files::UNFINISHED;

/// One chunk is given up after this time.
const CHUNK_LIMIT: Duration = Duration::from_secs(10);
/// Most bytes of a snapshot: it is held in memory as a whole when it is read.
const SNAPSHOT_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Collects exactly so many bytes in a file in `dir`.
pub(super) async fn to_file(
    stream: &mut (impl AsyncRead + Unpin),
    dir: &Path,
    bytes: u64,
) -> io::Result<File> {
    if bytes > SNAPSHOT_MAX {
        return Err(invalid(format!("{bytes} bytes are too many")));
    }
    let mut file = tokio::fs::File::from_std(nameless(dir)?);
    let mut received = 0;
    loop {
        let chunk = within(CHUNK_LIMIT, frame::read_bytes(stream, CHUNK)).await?;
        received += chunk.len() as u64;
        if chunk.is_empty() && received == bytes {
            file.flush().await?;
            let mut file = file.into_std().await;
            file.rewind()?;
            return Ok(file);
        }
        if chunk.is_empty() || received > bytes {
            return Err(invalid(format!(
                "{received} bytes came, {bytes} were announced"
            )));
        }
        file.write_all(&chunk).await?;
    }
}

fn nameless(dir: &Path) -> io::Result<File> {
    // Only one snapshot is received at a time; what a crash left under the name is replaced.
    let path = dir.join(format!("received{UNFINISHED}"));
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    async fn received(sent: &[&[u8]], announced: u64, dir: &Path) -> io::Result<File> {
        let mut stream = Vec::new();
        for chunk in sent {
            frame::write_bytes(&mut stream, chunk).await.unwrap();
        }
        to_file(&mut stream.as_slice(), dir, announced).await
    }

    #[tokio::test]
    async fn a_snapshot_is_collected_and_leaves_no_name_behind() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = received(&[b"some ", b"snapshot", b""], 13, dir.path())
            .await
            .unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "some snapshot");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn more_less_or_too_many_bytes_than_announced_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (chunks, announced) in [
            (vec![&b"some"[..], b""], 5),
            (vec![b"some", b""], 3),
            (vec![b"some"], 4),
            (vec![b"some", b""], SNAPSHOT_MAX + 1),
        ] {
            assert!(received(&chunks, announced, dir.path()).await.is_err());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
