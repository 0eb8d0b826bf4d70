//! The floor: the same grouping of what waits, with nothing but a write and an fdatasync of zeroed,
//! preallocated space. No ledger on this disk can be faster.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;
use tokio::sync::{mpsc, oneshot};

use quorate_benches::load::Target;

const FILE_BYTES: u64 = 64 * 1024 * 1024;
/// As many as an entry of the ledger holds at most.
const GROUP_BYTES: usize = 256 * 1024;

/// A thread that syncs what waits.
#[derive(Clone, Debug)]
pub(crate) struct Floor {
    waiting: mpsc::Sender<(usize, oneshot::Sender<()>)>,
}

/// Makes the file and starts the thread, which ends with the last [`Floor`].
pub(crate) fn open(dir: &Path) -> anyhow::Result<Floor> {
    let mut file = File::create(dir.join("floor")).context("no file for the floor")?;
    let zeros = vec![0; 1024 * 1024];
    for _ in 0..FILE_BYTES / (1024 * 1024) {
        file.write_all(&zeros)?;
    }
    file.sync_all()?;
    let (waiting, work) = mpsc::channel(1024);
    std::thread::Builder::new()
        .name("floor".to_owned())
        .spawn(move || {
            if let Err(error) = sync_all(&file, work) {
                panic!("the floor cannot be measured: {error}");
            }
        })?;
    Ok(Floor { waiting })
}

fn sync_all(
    file: &File,
    mut work: mpsc::Receiver<(usize, oneshot::Sender<()>)>,
) -> std::io::Result<()> {
    let mut at = 0;
    while let Some((bytes, done)) = work.blocking_recv() {
        let (mut bytes, mut answers) = (bytes, vec![done]);
        while bytes < GROUP_BYTES
            && let Ok((more, done)) = work.try_recv()
        {
            bytes += more;
            answers.push(done);
        }
        if at + bytes as u64 > FILE_BYTES {
            at = 0;
        }
        file.write_all_at(&vec![b'c'; bytes], at)?;
        file.sync_data()?;
        at += bytes as u64;
        for done in answers {
            // A caller whose time is over does not wait for its last answer.
            let _ = done.send(());
        }
    }
    Ok(())
}

impl Target for Floor {
    async fn claim(&self, _first: u64, each: usize) {
        let (done, answer) = oneshot::channel();
        let sent = self.waiting.send((each * crate::claim_bytes(), done)).await;
        assert!(sent.is_ok() && answer.await.is_ok(), "the floor is gone");
    }
}
