//! The highest era of the cluster that this agent has seen, kept on disk: a director of an earlier one, whose
//! quorum was given up when the cluster was restored, is not believed, also not by the next process.

use std::fs;
use std::path::{Path, PathBuf};

use quorate_api::client::{Eras, Options};

use super::data_dir::{DataDir, write_whole};

const FILE: &str = "era";

/// The options of clients that believe no director of an earlier era than was ever seen. What is seen is written
/// down as long as one of those clients lives.
pub(crate) fn followed(options: Options, data: &DataDir) -> Options {
    let path = data.root().join(FILE);
    let eras = Eras::seen(read(&path));
    tokio::spawn(keep(eras.watch(), path));
    Options {
        eras: Some(eras),
        ..options
    }
}

/// What the agent has seen whose warden has this folder.
pub(crate) fn seen(warden: &Path) -> Eras {
    let root = warden.ancestors().nth(2);
    Eras::seen(root.map_or(0, |root| read(&root.join(FILE))))
}

/// One that cannot be read is taken for the first: then directors of any are heard, as by a new agent.
fn read(path: &Path) -> u16 {
    let text = fs::read_to_string(path);
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or_default()
}

async fn keep(mut seen: tokio::sync::watch::Receiver<u16>, path: PathBuf) {
    while seen.changed().await.is_ok() {
        let era = *seen.borrow_and_update();
        tracing::warn!(
            era,
            "the cluster was restored: sessions of before are over, and what ran under them ends"
        );
        let path = path.clone();
        let text = format!("{era}\n");
        let written =
            tokio::task::spawn_blocking(move || write_whole(&path, 0o644, text.as_bytes()));
        if let Ok(Err(error)) = written.await {
            tracing::warn!(%error, "the era of the cluster was not written down");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_era_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        assert_eq!(read(&path), 0);
        fs::write(&path, "3\n").unwrap();
        assert_eq!(read(&path), 3);
        fs::write(&path, "three").unwrap();
        assert_eq!(read(&path), 0);
    }
}
