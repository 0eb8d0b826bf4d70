//! Claims through the embedded ledger, gathered as a leader gathers them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use quorate_core::format::Format;
use quorate_core::ids::{BatchId, DirectorName, Epoch, PartitionId, SessionId, Token};
use quorate_core::record::{ENTRY_BYTES_MAX, Entry, Header, Record};
use quorate_core::time::WallTime;
use quorate_ledger::{Appended, Ledger};
use quorate_raft::{Embedded, Options};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use quorate_benches::load::Target;

/// What a record of a claim takes in an entry, at most.
const RECORD_BYTES: usize = 96;
/// A snapshot after so many entries keeps the folder small, as a director does.
const SNAPSHOT_EVERY: u64 = 20_000;

type Claim = (u64, usize, oneshot::Sender<()>);

/// A leader with one append outstanding.
#[derive(Clone, Debug)]
pub(crate) struct Ours {
    claims: mpsc::Sender<Claim>,
    ledger: Arc<Embedded>,
    leader: Arc<JoinHandle<anyhow::Result<()>>>,
}

/// Opens a new ledger and leads.
pub(crate) async fn open(dir: &Path) -> anyhow::Result<Ours> {
    let name = DirectorName::new("d1")?;
    let ledger = Embedded::open(Options::new(dir.join("ours"), name)).await?;
    let mut hints = ledger.hints();
    let leading = hints.wait_for(|hints| hints.should_lead == Some(true));
    tokio::time::timeout(Duration::from_secs(10), leading)
        .await
        .context("the ledger does not lead")??;
    let ledger = Arc::new(ledger);
    // As many as may be outstanding in any row.
    let (claims, waiting) = mpsc::channel(1024);
    let leader = tokio::spawn(lead(Arc::clone(&ledger), waiting));
    Ok(Ours {
        claims,
        ledger,
        leader: Arc::new(leader),
    })
}

/// Opens a new ledger, closes it and opens it again; gives how long it took each time until it led.
pub(crate) async fn open_twice(dir: &Path) -> anyhow::Result<(Ours, Duration, Duration)> {
    let began = Instant::now();
    let ours = open(dir).await?;
    let first = began.elapsed();
    ours.close().await;
    let began = Instant::now();
    let ours = open(dir).await?;
    Ok((ours, first, began.elapsed()))
}

impl Ours {
    /// Closes the ledger.
    pub(crate) async fn close(self) {
        self.leader.abort();
        self.ledger.shutdown().await;
    }
}

async fn lead(ledger: Arc<Embedded>, mut waiting: mpsc::Receiver<Claim>) -> anyhow::Result<()> {
    let mut at = ledger.tail().await?.next;
    let mut sequence = 0;
    while let Some(first) = waiting.recv().await {
        let mut records = Vec::new();
        let mut answers = Vec::new();
        let mut next = Some(first);
        while let Some((key, each, done)) = next {
            records.extend((key..).take(each).map(record));
            answers.push(done);
            let full = (records.len() + each) * RECORD_BYTES > ENTRY_BYTES_MAX;
            next = if full { None } else { waiting.try_recv().ok() };
        }
        sequence += 1;
        let header = Header {
            format: Format::FIRST,
            epoch: Epoch(1),
            batch: BatchId {
                writer: 1,
                sequence,
            },
            predecessor: sequence,
            wall: WallTime(0),
        };
        let entry = Entry { header, records }.encode();
        let appended = ledger.append(at, Epoch(1), entry).await?;
        anyhow::ensure!(appended == Appended::Appended, "position {at} was taken");
        at = at.next();
        for done in answers {
            // A caller whose time is over does not wait for its last answer.
            let _ = done.send(());
        }
        if at.0.is_multiple_of(SNAPSHOT_EVERY) {
            ledger.save_snapshot(at, vec![0; 1024]).await?;
        }
    }
    Ok(())
}

/// The record of one claim.
fn record(key: u64) -> Record {
    Record::Assumed {
        partition: PartitionId(u32::try_from(key % 1_000_000).unwrap_or(0)),
        session: SessionId(key % 1000),
        token: Token(key),
    }
}

impl Target for Ours {
    async fn claim(&self, first: u64, each: usize) {
        let (done, answer) = oneshot::channel();
        let sent = self.claims.send((first, each, done)).await;
        assert!(sent.is_ok() && answer.await.is_ok(), "the leader is gone");
    }
}
