//! What a director costs that leads many owned partitions: memory for each, and how long a restart takes
//! until it can plan again (G14).
//!
//! `cargo run --release -p quorate-benches --bin million [-- PARTITIONS AGENTS]`
//!
//! Memory is resident memory of the process, of which what it had before is taken off; it is given back
//! only in part when something is dropped, so the order of the rows is that of a director's life. The
//! limit beside it is what the keys, owners and tokens alone would take in arrays.

#![expect(
    clippy::print_stdout,
    reason = "a measurement is read on standard output"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a measurement that fails is no measurement"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use quorate_core::cluster::{Cluster, Outcome};
use quorate_core::format::Format;
use quorate_core::ids::{
    AgentName, BatchId, DirectorName, Epoch, Incarnation, PartitionKey, Position, ServiceName,
    SessionId,
};
use quorate_core::lease::LeaseTimes;
use quorate_core::planner::{Planner, PlannerConfig};
use quorate_core::record::{
    AgentInfo, Containment, Entry, Header, Place, Record, RunPhase, RunReport,
};
use quorate_core::spec::PartitionSpec;
use quorate_core::time::{Moment, WallTime};

/// Partitions of one entry: about as many as fit the largest entry.
const BATCH: usize = 1_000;

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse().unwrap());
    let partitions: usize = numbers.next().unwrap_or(1_000_000);
    let agents = u64::try_from(numbers.next().unwrap_or(1_000)).unwrap();
    println!("{partitions} partitions owned by {agents} agents, one director, no network\n");
    let empty = resident();
    let (cluster, folding) = owned(partitions, agents);
    let fold = resident() - empty;
    row(
        "fold: every partition owned and ready",
        fold,
        partitions,
        folding,
    );
    let begin = Instant::now();
    let mut planner = Planner::new(PlannerConfig::default(), WallTime::default());
    let decision = planner.decide(Moment::from_millis(1), &cluster, &BTreeSet::new());
    let planned = begin.elapsed();
    assert!(decision.is_empty(), "what is even stays where it is");
    row(
        "planner of a new leader",
        resident() - empty - fold,
        partitions,
        planned,
    );
    let begin = Instant::now();
    let bytes = cluster.encode();
    println!(
        "{:<42} {:>8.1} MB {:>8.1} B/partition {:>8.0} ms",
        "snapshot written",
        megabytes(bytes.len()),
        each(bytes.len(), partitions),
        millis(begin.elapsed())
    );
    let before = cluster.state_hash();
    drop((cluster, planner));
    let begin = Instant::now();
    let cluster = Cluster::decode(&bytes).unwrap();
    let read = begin.elapsed();
    let mut planner = Planner::new(PlannerConfig::default(), WallTime::default());
    let decision = planner.decide(Moment::from_millis(1), &cluster, &BTreeSet::new());
    let restarted = begin.elapsed();
    assert!(decision.is_empty() && cluster.state_hash() == before);
    println!(
        "{:<42} {:>32} {:>8.0} ms   (goal 2000)",
        "restart: snapshot read, first plan",
        format!("read {:.0} ms", millis(read)),
        millis(restarted)
    );
}

/// A cluster in which every partition has an owner and is ready, and how long folding that took.
fn owned(partitions: usize, agents: u64) -> (Cluster, Duration) {
    let mut cluster = Cluster::default();
    let mut took = Duration::ZERO;
    let mut fold = |cluster: &mut Cluster, records: Vec<Record>| {
        let begin = Instant::now();
        let position = Position(cluster.position().0 + 1);
        let header = Header {
            format: Format::FIRST,
            epoch: Epoch(1),
            batch: BatchId {
                writer: 1,
                sequence: position.0,
            },
            predecessor: 0,
            wall: WallTime(0),
        };
        let applied = cluster.apply(position, Entry { header, records });
        took += begin.elapsed();
        assert!(
            applied
                .outcomes
                .iter()
                .all(|outcome| *outcome == Outcome::Accepted)
        );
    };
    let service = ServiceName::new("feeds").unwrap();
    let name = DirectorName::new("d1").unwrap();
    let elected = Record::Elected {
        name,
        id: 1,
        address: String::new(),
        format: Format::FIRST,
    };
    fold(&mut cluster, vec![elected]);
    let spec = serde_json::json!({ "command": ["/bin/feed", "{{key}}"], "partitions": { "range": "0..1" } });
    let spec = Box::new(serde_json::from_value(spec).unwrap());
    fold(
        &mut cluster,
        vec![Record::ServicePut {
            name: service.clone(),
            spec,
        }],
    );
    for first in (0..partitions).step_by(BATCH) {
        let keys = first..(first + BATCH).min(partitions);
        let listed = keys.map(|n| PartitionSpec {
            key: PartitionKey::new(&n.to_string()).unwrap(),
            data: None,
            weight: 1,
            labels: BTreeMap::new(),
            priority: 0,
        });
        let put = Record::PartitionsPut {
            service: service.clone(),
            partitions: listed.collect(),
        };
        fold(&mut cluster, vec![put]);
    }
    for n in 0..agents {
        fold(&mut cluster, vec![opened(n)]);
    }
    let ids: Vec<_> = cluster.partitions().map(|(id, _)| id).collect();
    for batch in ids.chunks(BATCH) {
        let mut records = Vec::with_capacity(batch.len() * 3);
        let mut token = cluster.next_token();
        for &partition in batch {
            let session = SessionId(u64::from(partition.0) % agents + 1);
            records.push(Record::Assigned {
                partition,
                session,
                token,
            });
            records.push(Record::Assumed {
                partition,
                session,
                token,
            });
            let run = RunReport {
                phase: RunPhase::Ready,
                attempt: 1,
                pid: Some(1),
                exit: None,
            };
            records.push(Record::Observed {
                partition,
                token,
                run,
            });
            token.0 += 1;
        }
        fold(&mut cluster, records);
    }
    (cluster, took)
}

fn opened(n: u64) -> Record {
    Record::SessionOpened {
        session: SessionId(n + 1),
        incarnation: Incarnation(n + 1),
        agent: Box::new(AgentInfo {
            name: AgentName::new(&format!("a{n}")).unwrap(),
            id: n,
            place: Place::default(),
            labels: BTreeMap::new(),
            capacity: None,
            containment: Containment::Kernel,
            version: String::new(),
        }),
        lease: LeaseTimes::of(Duration::from_secs(10)),
        secret_hash: format!("{n:064}"),
        process: n,
    }
}

fn row(what: &str, bytes: usize, partitions: usize, took: Duration) {
    println!(
        "{what:<42} {:>8.1} MB {:>8.1} B/partition {:>8.0} ms   (goal 250 MB and 200 B in all)",
        megabytes(bytes),
        each(bytes, partitions),
        millis(took)
    );
}

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let bytes = quorate_benches::program::resident(std::process::id());
    usize::try_from(bytes.unwrap()).unwrap()
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn each(bytes: usize, partitions: usize) -> f64 {
    bytes as f64 / partitions as f64
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
