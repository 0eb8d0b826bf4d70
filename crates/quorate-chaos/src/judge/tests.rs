//! The referee sees what must never be, and nothing else.

use super::*;

fn who(partition: &str, run: Run, daemon: u32, clock: u64) -> Announced {
    Announced {
        partition: partition.to_owned(),
        run,
        agent: "a1".to_owned(),
        daemon,
        pid: 1,
        clock,
        filed: run.0,
    }
}

fn record(first: u64, last: u64) -> Record {
    Record {
        first,
        last,
        beats: 3,
        ..Record::default()
    }
}

fn found(judge: &Judge) -> Vec<Promise> {
    judge.violations.iter().map(|one| one.promise).collect()
}

#[test]
fn runs_that_follow_one_another_are_fine_with_their_daemons() {
    let mut judge = Judge::default();
    let first = judge.announced(who("s/a", (1, 1), 0, 10), 10);
    let daemon = judge.announced(who("s/a", (1, 1), 1, 12), 12);
    let other = judge.announced(who("s/b", (2, 1), 0, 13), 13);
    judge.exited(first, 20, record(11, 19));
    judge.exited(daemon, 21, record(12, 21));
    judge.announced(who("s/a", (1, 2), 0, 22), 22);
    assert_eq!(found(&judge), []);
    assert_eq!((judge.began, judge.ended, judge.beats), (4, 2, 6));
    let wanted = ["s/a", "s/b"].map(str::to_owned).into();
    assert_eq!(judge.differs(&wanted), Vec::<String>::new());
    judge.exited(other, 30, record(13, 29));
    assert_eq!(judge.differs(&wanted), ["s/b runs 0 times"]);
    assert_eq!(judge.differs(&["s/b".to_owned()].into()).len(), 2);
    let starts = judge.take_starts();
    let before = End {
        at: 21,
        agent: "a1".to_owned(),
        asked: false,
        wrote: 21,
    };
    assert_eq!(starts[2].before, Some(before));
    assert!(judge.take_starts().is_empty());
}

#[test]
fn a_second_command_is_seen_while_the_first_one_lives() {
    let mut judge = Judge::default();
    judge.announced(who("s/a", (1, 1), 0, 10), 10);
    judge.announced(who("s/a", (2, 1), 0, 20), 20);
    assert_eq!(found(&judge), [Promise::S1]);
}

#[test]
fn two_copies_under_the_same_token_are_seen_as_two() {
    let mut judge = Judge::default();
    judge.announced(who("s/a", (1, 1), 0, 10), 10);
    judge.announced(who("s/a", (1, 1), 1, 11), 11);
    judge.announced(who("s/a", (1, 1), 2, 12), 12);
    assert_eq!(found(&judge), []);
    judge.announced(who("s/a", (1, 1), 0, 20), 20);
    assert_eq!(found(&judge), [Promise::S1, Promise::S5]);
    judge.announced(who("s/a", (1, 1), 1, 21), 21);
    assert_eq!(found(&judge).len(), 3);
}

#[test]
fn a_daemon_that_outlives_its_run_is_seen_when_the_next_run_begins() {
    let mut judge = Judge::default();
    let command = judge.announced(who("s/a", (1, 1), 0, 10), 10);
    judge.announced(who("s/a", (1, 1), 1, 11), 11);
    judge.exited(command, 20, record(10, 19));
    assert_eq!(found(&judge), []);
    judge.announced(who("s/a", (2, 1), 0, 30), 30);
    assert_eq!(found(&judge), [Promise::S1]);
}

#[test]
fn a_daemon_of_an_ended_run_that_begins_beside_the_next_one_is_seen() {
    let mut judge = Judge::default();
    let command = judge.announced(who("s/a", (1, 1), 0, 10), 10);
    judge.exited(command, 20, record(10, 19));
    judge.announced(who("s/a", (2, 1), 0, 30), 30);
    judge.announced(who("s/a", (1, 1), 1, 31), 31);
    assert_eq!(found(&judge), [Promise::S1]);
}

#[test]
fn what_a_run_wrote_after_the_next_one_began_is_seen_even_when_its_exit_was_told_before() {
    let mut judge = Judge::default();
    let command = judge.announced(who("s/a", (1, 1), 0, 10), 10);
    judge.exited(command, 26, record(10, 25));
    judge.announced(who("s/a", (2, 1), 0, 25), 27);
    assert_eq!(found(&judge), [Promise::S1]);
}

#[test]
fn a_record_that_goes_on_after_the_exit_is_seen() {
    let mut judge = Judge::default();
    let command = judge.announced(who("s/a", (1, 1), 0, 10), 10);
    judge.exited(command, 20, record(10, 21));
    assert_eq!(found(&judge), [Promise::S1]);
}

#[test]
fn tokens_that_fall_are_seen_and_those_of_two_partitions_too() {
    let mut judge = Judge::default();
    let first = judge.announced(who("s/a", (5, 1), 0, 10), 10);
    judge.exited(first, 20, record(10, 19));
    let second = judge.announced(who("s/a", (4, 1), 0, 30), 30);
    assert_eq!(found(&judge), [Promise::S3]);
    judge.exited(second, 40, record(30, 39));
    judge.announced(who("s/b", (5, 1), 0, 50), 50);
    assert_eq!(found(&judge), [Promise::S3, Promise::S3]);
    let mut other = who("s/c", (9, 1), 0, 60);
    other.filed = 8;
    judge.announced(other, 60);
    assert_eq!(found(&judge).len(), 3, "another token in its file");
}

#[test]
fn the_same_start_twice_is_seen_and_an_attempt_that_falls_too() {
    let mut judge = Judge::default();
    let first = judge.announced(who("s/a", (5, 2), 0, 10), 10);
    judge.exited(first, 20, record(10, 19));
    let again = judge.announced(who("s/a", (5, 2), 0, 30), 30);
    assert_eq!(found(&judge), [Promise::S5]);
    judge.exited(again, 40, record(30, 39));
    judge.announced(who("s/a", (5, 1), 0, 50), 50);
    assert_eq!(found(&judge), [Promise::S5, Promise::S3]);
}

fn on(agent: &str, run: Run, daemon: u32, clock: u64) -> Announced {
    Announced {
        agent: agent.to_owned(),
        ..who("s/a", run, daemon, clock)
    }
}

#[test]
fn only_daemons_of_a_frozen_agent_may_linger_and_only_from_its_deadline_on() {
    // When the next run begins, on which agent the one before is, and whether that is its command.
    let cases = [
        (100, "a1", 1, None),
        (99, "a1", 1, Some(Promise::S1)),
        (100, "a1", 0, Some(Promise::S1)),
        (100, "a3", 1, Some(Promise::S1)),
    ];
    for (at, agent, daemon, wanted) in cases {
        let mut judge = Judge::default();
        judge.announced(on(agent, (1, 1), daemon, 10), 10);
        judge.freezes("a1", 100);
        judge.announced(on("a2", (2, 1), 0, at), at);
        assert_eq!(
            found(&judge),
            Vec::from_iter(wanted),
            "{at} {agent} {daemon}"
        );
        assert_eq!(judge.lingered(), usize::from(wanted.is_none()));
    }
}

#[test]
fn what_lingers_is_gone_and_writes_no_more_in_time_after_the_thaw() {
    let mut judge = Judge::default();
    let daemon = judge.announced(on("a1", (1, 1), 1, 10), 10);
    judge.freezes("a1", 100);
    judge.announced(on("a2", (2, 1), 0, 150), 150);
    // Forked before, it comes to say so only now.
    let late = judge.announced(on("a1", (1, 1), 2, 205), 205);
    assert_eq!((found(&judge), judge.lingered()), (vec![], 2));
    judge.thaws("a1", 200, 50);
    assert_eq!(judge.lingers_until(), 250);
    assert!(judge.may_write_late("s/a", 1, 250));
    assert!(!judge.may_write_late("s/a", 1, 251), "too late");
    assert!(!judge.may_write_late("s/a", 2, 210), "it does not linger");
    judge.exited(daemon, 210, record(11, 209));
    assert_eq!(judge.take_lingered(), [(200, 210)]);
    judge.outlived(251);
    assert_eq!(found(&judge), [Promise::S1], "the other one is still there");
    judge.exited(late, 260, record(205, 259));
    judge.outlived(261);
    assert_eq!(found(&judge).len(), 1);
    judge.announced(on("a1", (1, 1), 3, 270), 270);
    assert_eq!(found(&judge).len(), 2, "no daemon comes any more");
}
