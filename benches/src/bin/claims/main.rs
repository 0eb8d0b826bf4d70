//! Claims per second, durable, on one machine (goals G4 and G5).
//!
//! Every caller has one claim, or one batch of 128, outstanding. A claim is answered when the entry that
//! holds its record is on disk. As in a director, one append is outstanding and what arrives meanwhile
//! is the next entry. Beside it: the same grouping with nothing but a write and an fdatasync (the floor),
//! and etcd through its JSON gateway, whose claim is a transaction that puts a key if it does not exist.
//!
//! Not measured here: the session protocol over HTTP, the fold and the answers to agents.

mod floor;
mod ours;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;

use quorate_benches::etcd;
use quorate_benches::load::{self, Measured, Target};

/// Claims per second through the embedded ledger, beside the disk and etcd.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds of each sample.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Rounds; each takes two samples of ours, of the peer and of the floor. The medians are shown.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where the data of all of them goes: the disk that is measured.
    #[arg(long)]
    dir: Option<PathBuf>,
}

const OUTSTANDING: [usize; 4] = [1, 16, 64, 256];
const BATCH: usize = 128;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let folder = match &arguments.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    }
    .context("no folder for the data")?;
    let time = Duration::from_secs_f64(arguments.seconds);
    let (ours, first, again) = ours::open_twice(folder.path()).await?;
    let floor = floor::open(folder.path())?;
    let peer = etcd::start(folder.path(), 1).await;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "opened and leading: new folder {:.0} ms, again {:.0} ms",
        first.as_secs_f64() * 1000.0,
        again.as_secs_f64() * 1000.0
    )?;
    if let Err(reason) = &peer {
        writeln!(out, "etcd: not run: {reason:#}")?;
    }
    writeln!(
        out,
        "| claims outstanding | each | ours/s (p50, p99 ms) | etcd/s (p50, p99 ms) | floor/s (p50, p99 ms) | \
         ours/etcd | ours/floor | floor drift |\n|---|---|---|---|---|---|---|---|"
    )?;
    for each in [1, BATCH] {
        for outstanding in OUTSTANDING {
            let mut samples = Samples::default();
            for _ in 0..arguments.rounds {
                samples
                    .round(&ours, peer.as_ref().ok(), &floor, (outstanding, each), time)
                    .await;
            }
            writeln!(out, "| {outstanding} | {each} {}", samples.row())?;
            out.flush()?;
        }
    }
    ours.close().await;
    Ok(())
}

/// All samples of one row.
#[derive(Debug, Default)]
struct Samples {
    ours: Vec<Measured>,
    peer: Vec<Measured>,
    floor_first: Vec<Measured>,
    floor_last: Vec<Measured>,
}

impl Samples {
    /// Floor, peer, ours, peer, ours, floor: so that what changes on the machine meets all of them.
    async fn round(
        &mut self,
        ours: &ours::Ours,
        peer: Option<&etcd::Peer>,
        floor: &floor::Floor,
        (outstanding, each): (usize, usize),
        time: Duration,
    ) {
        self.floor_first
            .push(load::run(floor, outstanding, each, time).await);
        for _ in 0..2 {
            if let Some(peer) = peer {
                self.peer
                    .push(load::run(peer, outstanding, each, time).await);
            }
            self.ours
                .push(load::run(ours, outstanding, each, time).await);
        }
        self.floor_last
            .push(load::run(floor, outstanding, each, time).await);
    }

    fn row(&self) -> String {
        let ours = load::median(&self.ours);
        let first = load::median(&self.floor_first);
        let last = load::median(&self.floor_last);
        let both: Vec<Measured> = [self.floor_first.as_slice(), &self.floor_last].concat();
        let floor = load::median(&both);
        let (peer, times) = if self.peer.is_empty() {
            ("not run".to_owned(), "-".to_owned())
        } else {
            let peer = load::median(&self.peer);
            (
                peer.to_string(),
                format!("{:.1}x", ours.per_second / peer.per_second),
            )
        };
        format!(
            "| {ours} | {peer} | {floor} | {times} | {:.0} % | {:.0} % |",
            100.0 * ours.per_second / floor.per_second,
            100.0 * (last.per_second / first.per_second - 1.0).abs(),
        )
    }
}

/// The bytes of a claim that has no other form: key and owner.
fn claim_bytes() -> usize {
    64
}

const _: fn() = || {
    fn any_thread<T: Target + Send + Sync>() {}
    any_thread::<ours::Ours>();
    any_thread::<etcd::Peer>();
    any_thread::<floor::Floor>();
};
