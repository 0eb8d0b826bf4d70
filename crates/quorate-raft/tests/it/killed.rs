//! A process that is killed in the middle of its work has lost nothing that it was told is safe.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use quorate_core::ids::{Epoch, Position};
use quorate_ledger::{Appended, Ledger};

use crate::support::{check, entry, folder, open};

const FOLDER: &str = "QUORATE_TEST_LEDGER";

/// Not a test by itself: the process that gets killed. Appends, keeps snapshots, and says after each
/// answer what it was told.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_appends_until_it_is_killed() {
    let Some(dir) = std::env::var_os(FOLDER) else {
        return;
    };
    let ledger = open(Path::new(&dir)).await.unwrap();
    let mut position = ledger.tail().await.unwrap().next;
    loop {
        let appended = ledger
            .append(position, Epoch(1), entry(position.0))
            .await
            .unwrap();
        assert_eq!(appended, Appended::Appended);
        // Past the test harness, which would keep it.
        let told = format!("acknowledged {position}\n");
        std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes()).unwrap();
        if position.0.is_multiple_of(50) {
            let state = position.0.to_be_bytes().to_vec();
            ledger.save_snapshot(position.next(), state).await.unwrap();
        }
        position = position.next();
    }
}

fn start(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "killed::child_that_appends_until_it_is_killed",
            "--nocapture",
        ])
        .env(FOLDER, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Lets a child append for about `time` after its first acknowledgement, kills it, and gives the last
/// position that it acknowledged.
fn run_and_kill(dir: &Path, time: Duration) -> u64 {
    let mut child = start(dir);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut last = None;
    let mut began = None;
    let mut other = Vec::new();
    for line in lines.by_ref() {
        let line = line.unwrap();
        match line.strip_prefix("acknowledged ") {
            Some(position) => last = Some(position.parse().unwrap()),
            None => other.push(line),
        }
        if last.is_some() && began.get_or_insert_with(Instant::now).elapsed() >= time {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines.map_while(Result::ok) {
        // A line may be cut off by the kill; a whole one ends with the full number.
        if let Some(position) = line.strip_prefix("acknowledged ")
            && let Ok(position) = position.parse::<u64>()
        {
            last = last.max(Some(position));
        }
    }
    last.unwrap_or_else(|| panic!("the child acknowledged nothing: {other:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_entry_survives_kills_at_any_moment() {
    let folder = folder();
    let mut acknowledged = 0;
    for round in 0..12_u64 {
        let time = Duration::from_micros(round * 7919 % 60_000);
        let dir = folder.path().to_owned();
        let killed = tokio::task::spawn_blocking(move || run_and_kill(&dir, time));
        let last = killed.await.unwrap();
        assert!(
            last > acknowledged,
            "round {round} went on from {acknowledged}"
        );
        acknowledged = last;

        let ledger = open(folder.path()).await.unwrap();
        let first = match ledger.load_snapshot().await.unwrap() {
            Some(snapshot) => {
                let covered = u64::from_be_bytes(snapshot.bytes.try_into().unwrap());
                assert_eq!(snapshot.next, Position(covered + 1));
                snapshot.next.0
            }
            None => 1,
        };
        let next = check(&ledger, first).await;
        assert!(next > last, "position {last} was acknowledged and is gone");
        // One append was in flight: it is there or not, and nothing else is.
        assert!(next <= last + 2, "{next} follows {last}");
        acknowledged = acknowledged.max(next - 1);
        ledger.shutdown().await;
    }
}
