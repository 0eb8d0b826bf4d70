//! History outlives the process, stays within its bounds, and says what it does not know.

use quorate_core::history::{Subject, What};
use quorate_core::ids::{PartitionId, PartitionKey, ServiceName};

use super::*;

fn partition(key: &str, what: What) -> Change {
    Change::Partition {
        subject: Subject {
            partition: PartitionId(1),
            service: ServiceName::new("feeds").unwrap(),
            key: PartitionKey::new(key).unwrap(),
        },
        token: None,
        agent: None,
        what,
    }
}

fn id(position: u64, sequence: u32) -> EventId {
    EventId {
        position: Position(position),
        sequence,
    }
}

#[test]
fn a_new_process_knows_what_the_one_before_it_wrote_and_writes_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let open = || open(dir.path(), 1 << 20, 100).unwrap();
    let (_, mut recorder) = open();
    for position in 1..=3 {
        let changes = vec![partition("a", What::Created), partition("b\"", What::Ready)];
        recorder.record(Position(position), WallTime(7), changes);
    }
    recorder.close();

    let (history, mut recorder) = open();
    assert_eq!(history.newest(), id(3, 2));
    recorder.record(Position(3), WallTime(7), vec![partition("a", What::Ready)]);
    recorder.record(Position(4), WallTime(8), vec![partition("a", What::Ready)]);
    let found = history.of_partition("feeds", "a").unwrap();
    let ids: Vec<_> = found.entries.iter().map(|e| e.id.to_string()).collect();
    assert_eq!(ids, ["1.1", "2.1", "3.1", "4.1"]);
    assert_eq!(found.known_since, Position(1));
    assert_eq!(
        history.of_partition("feeds", "b\"").unwrap().entries.len(),
        3
    );
    assert_eq!(history.of_partition("feeds", "c").unwrap().entries.len(), 0);
    recorder.close();
}

#[test]
fn a_reader_that_is_too_late_is_told_from_where_on_it_may_read() {
    let dir = tempfile::tempdir().unwrap();
    let (history, mut recorder) = open(dir.path(), 1 << 20, 4).unwrap();
    for position in 1..=6 {
        recorder.record(
            Position(position),
            WallTime(0),
            vec![partition("a", What::Ready)],
        );
    }
    let after = history.after(id(4, 1), 10).unwrap();
    assert_eq!(
        after.iter().map(|e| e.id).collect::<Vec<_>>(),
        [id(5, 1), id(6, 1)]
    );
    let gone = history.after(id(1, 1), 10).unwrap_err();
    assert_eq!(gone.known_after, id(2, 1));
    assert_eq!(history.after(gone.known_after, 10).unwrap().len(), 4);
    recorder.close();
}

#[test]
fn from_the_beginning_everything_that_is_kept_is_told_by_the_next_process_too() {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut recorder) = open(dir.path(), 1 << 20, 100).unwrap();
    for position in 1..=3 {
        let changes = vec![partition("a", What::Ready)];
        recorder.record(Position(position), WallTime(0), changes);
    }
    recorder.close();
    let (history, recorder) = open(dir.path(), 1 << 20, 100).unwrap();
    let told = history.after(EventId::default(), 10).unwrap();
    let ids: Vec<_> = told.iter().map(|event| event.id).collect();
    assert_eq!(ids, [id(1, 1), id(2, 1), id(3, 1)]);
    recorder.close();
}

#[test]
fn a_snapshot_leaves_a_gap_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (history, mut recorder) = open(dir.path(), 1 << 20, 100).unwrap();
    recorder.record(Position(1), WallTime(0), vec![partition("a", What::Ready)]);
    recorder.gap(Position(50));
    recorder.record(Position(51), WallTime(0), vec![partition("a", What::Ready)]);
    assert!(history.after(id(1, 1), 10).is_err());
    assert_eq!(
        history
            .after(EventId::end_of(Position(50)), 10)
            .unwrap()
            .len(),
        1
    );
    recorder.close();
    let found = history.of_partition("feeds", "a").unwrap();
    assert_eq!((found.entries.len(), found.known_since), (1, Position(50)));
}

#[test]
fn the_files_stay_within_their_bound_and_a_torn_line_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let bound = 16 << 10;
    let (_, mut recorder) = open(dir.path(), bound, 10).unwrap();
    for position in 1..=2000 {
        recorder.record(
            Position(position),
            WallTime(0),
            vec![partition("a", What::Ready)],
        );
    }
    recorder.close();
    let size = |item: std::io::Result<std::fs::DirEntry>| item.unwrap().metadata().unwrap().len();
    let bytes: u64 = std::fs::read_dir(dir.path()).unwrap().map(size).sum();
    assert!(
        bytes > bound / 2 && bytes < bound * 5 / 4,
        "{bytes} of {bound}"
    );

    let last = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|f| f.unwrap().path())
        .max()
        .unwrap();
    let mut text = std::fs::read_to_string(&last).unwrap();
    text.truncate(text.len() - 20);
    std::fs::write(&last, text).unwrap();
    let (history, recorder) = open(dir.path(), bound, 10).unwrap();
    assert_eq!(history.newest(), id(1999, 1));
    assert!(history.of_partition("feeds", "a").unwrap().known_since > Position(1));
    recorder.close();
}

#[test]
fn ids_of_events_read_back_as_written() {
    assert_eq!("812.3".parse(), Ok(id(812, 3)));
    assert_eq!("812".parse(), Ok(EventId::end_of(Position(812))));
    for bad in ["", "x", "1.", "-1", "1.2.3", "99999999999999999999999"] {
        assert_eq!(bad.parse::<EventId>(), Err(()), "{bad:?}");
    }
}

#[test]
fn a_time_stands_for_the_first_change_from_then_on_unless_some_may_be_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (history, mut recorder) = open(dir.path(), 1 << 20, 4).unwrap();
    let mut write = |position: u64| {
        let wall = WallTime(i64::try_from(position).unwrap() * 10);
        recorder.record(Position(position), wall, vec![partition("a", What::Ready)]);
    };
    let before = |wall| history.before(WallTime(wall));
    assert_eq!(
        before(5),
        Ok(EventId::default()),
        "nothing has happened yet"
    );
    for position in 1..=4 {
        write(position);
    }
    assert_eq!(before(0), Ok(EventId::default()), "everything is kept");
    assert_eq!(before(20), Ok(id(1, 1)));
    assert_eq!(before(41), Ok(id(4, 1)), "only what comes");
    write(5);
    assert_eq!(before(21), Ok(id(2, 1)));
    let gone = before(20).unwrap_err();
    assert_eq!(gone.known_after, id(1, 1));
    recorder.close();
}

#[test]
fn a_history_that_begins_with_the_first_leader_is_whole_for_the_next_process_too() {
    for (epoch, whole) in [(1, true), (2, false)] {
        let dir = tempfile::tempdir().unwrap();
        let (_, mut recorder) = open(dir.path(), 1 << 20, 4).unwrap();
        let elected = Change::Elected {
            name: quorate_core::ids::DirectorName::new("d1").unwrap(),
            epoch: quorate_core::ids::Epoch(epoch),
        };
        recorder.record(Position(1), WallTime(10), vec![elected]);
        recorder.close();
        let (history, recorder) = open(dir.path(), 1 << 20, 4).unwrap();
        assert_eq!(history.before(WallTime(0)).is_ok(), whole, "epoch {epoch}");
        recorder.close();
    }
}

#[test]
fn an_entry_of_very_many_changes_is_kept_and_found_like_many_small_ones() {
    let dir = tempfile::tempdir().unwrap();
    let many = 3_000;
    let changes = |n| (0..n).map(|n| partition(&format!("p{n}"), What::Created));
    let (history, mut recorder) = open(dir.path(), 16 << 10, 2_000).unwrap();
    recorder.record(Position(1), WallTime(0), changes(1).collect());
    recorder.record(Position(2), WallTime(0), changes(many).collect());
    recorder.record(Position(2), WallTime(0), changes(many).collect());
    assert_eq!(history.newest(), id(2, many));
    let gone = history.after(id(1, 1), 10).unwrap_err();
    assert_eq!(gone.known_after, id(2, 1_000));
    let later = history.after(id(2, 2_040), 20).unwrap();
    let ids: Vec<_> = later.iter().map(|event| event.id.sequence).collect();
    assert_eq!(ids, (2_041..=2_060).collect::<Vec<_>>());
    recorder.close();
    let found = history.of_partition("feeds", "p5").unwrap();
    assert_eq!(found.entries.len(), 1, "also what is no longer in memory");
    assert_eq!(
        (found.entries[0].id, found.known_since),
        (id(2, 6), Position(1))
    );
}

#[test]
fn a_line_is_what_is_derived_from_what_it_records() {
    let mut held = partition("a \"quoted\" größe", What::Assigned);
    if let Change::Partition { token, agent, .. } = &mut held {
        *token = Some(quorate_core::ids::Token(7));
        *agent = Some(quorate_core::ids::AgentName::new("a-1").unwrap());
    }
    let exited = What::Exited {
        attempt: 2,
        exit: quorate_core::record::Exit {
            class: quorate_core::record::ExitClass::Crash,
            code: Some(1),
            signal: None,
            cause: None,
        },
    };
    let service = ServiceName::new("feeds").unwrap();
    let changes = vec![
        held,
        partition("b", exited),
        Change::ServiceCreated { service },
    ];
    let derived = changes.iter().zip(1..).map(|(change, sequence)| {
        let recorded = Recorded {
            id: id(9, sequence),
            wall: WallTime(-3),
            change: change.clone(),
        };
        serde_json::to_string(&recorded).unwrap() + "\n"
    });
    let derived: String = derived.collect();
    let mut batches = batch::split(Position(9), WallTime(-3), changes, EventId::default());
    let lines = batches.next().unwrap().lines().unwrap();
    assert_eq!(String::from_utf8(lines).unwrap(), derived);
    assert!(batches.next().is_none());
}
