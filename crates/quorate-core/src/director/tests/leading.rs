//! Elections, appends of unknown outcome, deposed leaders, snapshots.

use super::*;

fn elections(world: &World) -> usize {
    let records = world.records();
    let elections = records
        .iter()
        .filter(|r| matches!(r, Record::Elected { .. }));
    elections.count()
}

#[test]
fn a_director_that_should_lead_is_elected_once_and_serves() {
    let mut world = World::led();
    assert_eq!(elections(&world), 1);
    assert!(matches!(world.ask(apply("s", &["p"])), Answer::Done { .. }));
    assert_eq!(world.ledger.len(), 2);
}

#[test]
fn a_follower_reads_everything_and_answers_with_the_leader_to_ask() {
    let mut world = World::new(2);
    world.lead(0);
    for name in ["s", "t", "u", "v", "w"] {
        world.ask(apply(name, &["p"]));
    }
    world.hint(1, Some(false));
    assert!(world.nodes[0].director.cluster() == world.nodes[1].director.cluster());
    let id = world.ask_later(1, apply("x", &[]));
    let leader = Some("address of d1".to_owned());
    world.run(1);
    assert_eq!(world.nodes[1].answers[&id], Answer::NotLeader { leader });
}

#[test]
fn calls_gather_while_an_append_is_outstanding_and_share_the_next_entry() {
    let mut world = World::led();
    world.append = Append::Held;
    world.ask_later(0, apply("s", &["p"]));
    world.run(0);
    for agent in 1..=5 {
        world.ask_later(
            0,
            register(&format!("a{agent}"), agent, &format!("{agent}")),
        );
    }
    world.run(0);
    assert!(
        world.nodes[0].answers.is_empty(),
        "nothing leaves before the fold"
    );
    let order = world.held(0);
    let Effect::Append { append, .. } = order else {
        panic!()
    };
    let outcome = world.land(&order);
    world.append = Append::Works;
    world.tell(0, Event::AppendAnswered { append, outcome });
    assert_eq!(world.ledger.len(), 3);
    assert_eq!(world.nodes[0].answers.len(), 6);
    assert_eq!(world.cluster().sessions().len(), 5);
}

#[test]
fn more_calls_than_the_queue_holds_are_told_to_come_again() {
    let mut world = World::led();
    world.append = Append::Held;
    for _ in 0..10 {
        world.ask_later(0, apply("s", &["p"]));
    }
    let refusals = world.nodes[0].orders.iter();
    let refusals = refusals.filter(|order| {
        matches!(
            order,
            Effect::Answer {
                answer: Answer::Refused(_),
                ..
            }
        )
    });
    assert_eq!(refusals.count(), 1, "one in flight, eight in the queue");
}

#[test]
fn an_append_of_unknown_outcome_that_landed_is_found_and_counts_once() {
    let mut world = World::led();
    world.append = Append::LandsUnknown;
    let id = world.ask_later(0, apply("s", &["p"]));
    world.run(0);
    let answer = &world.nodes[0].answers[&id];
    assert!(
        matches!(
            answer,
            Answer::Done {
                position: Position(2),
                ..
            }
        ),
        "{answer:?}"
    );
    world.pass(Duration::from_secs(3));
    assert_eq!(world.ledger.len(), 2);
    assert_eq!(world.nodes[0].appends, 2, "the election and this one");
}

#[test]
fn an_append_of_unknown_outcome_that_was_lost_is_done_again_at_the_same_position() {
    for lost in [Append::LostUnknown, Append::Refuses] {
        let mut world = World::led();
        world.append = lost;
        let id = world.ask_later(0, apply("s", &["p"]));
        world.run(0);
        world.pass(Duration::from_secs(3));
        assert!(world.nodes[0].answers.is_empty());
        assert!(world.nodes[0].appends < 20, "it pauses in between");
        world.append = Append::Works;
        world.pass(Duration::from_secs(3));
        assert!(matches!(
            world.nodes[0].answers[&id],
            Answer::Done {
                position: Position(2),
                ..
            }
        ));
        assert_eq!(world.ledger.len(), 2);
    }
}

#[test]
fn a_late_answer_to_an_earlier_append_is_ignored() {
    let mut world = World::led();
    world.ask(apply("s", &["p"]));
    world.append = Append::Held;
    let id = world.ask_later(0, apply("t", &["p"]));
    world.run(0);
    for append in [1, 2] {
        let append = super::super::event::AppendId(append);
        let outcome = AppendOutcome::Appended;
        world.tell(0, Event::AppendAnswered { append, outcome });
    }
    assert_eq!(world.cluster().position(), Position(2));
    assert!(!world.nodes[0].answers.contains_key(&id));
}

#[test]
fn a_deposed_leader_says_unknown_of_what_may_have_been_written_and_not_leader_of_the_rest() {
    let mut world = World::new(2);
    world.lead(0);
    world.append = Append::Held;
    let flying = world.ask_later(0, apply("s", &["p"]));
    world.run(0);
    let queued = world.ask_later(0, apply("t", &["p"]));
    world.hint(0, Some(false));
    assert_eq!(world.nodes[0].answers[&flying], Answer::Unknown);
    let answer = &world.nodes[0].answers[&queued];
    assert!(matches!(answer, Answer::NotLeader { .. }));

    // It lands before the next election, and everybody folds it.
    let order = world.held(0);
    world.land(&order);
    world.append = Append::Works;
    world.lead(1);
    world.hint(0, Some(false));
    let known = world.cluster().service(&service("s"));
    assert!(known.is_some());
    assert!(world.nodes[0].director.cluster() == world.nodes[1].director.cluster());
}

#[test]
fn a_leader_that_finds_another_election_at_its_position_knows_that_nothing_was_written() {
    let mut world = World::new(2);
    world.lead(0);
    world.append = Append::Held;
    let id = world.ask_later(0, apply("s", &["p"]));
    world.run(0);
    let order = world.held(0);
    world.append = Append::Works;
    world.lead(1);
    let Effect::Append { append, .. } = order else {
        panic!()
    };
    let outcome = world.land(&order);
    assert_eq!(outcome, AppendOutcome::PositionTaken);
    world.hint(0, Some(false));
    let leader = Some("address of d2".to_owned());
    world.tell(0, Event::AppendAnswered { append, outcome });
    let answer = &world.nodes[0].answers[&id];
    assert!(matches!(answer, Answer::Unknown) || *answer == Answer::NotLeader { leader });
    assert!(world.cluster().service(&service("s")).is_none());
    assert_eq!(*world.nodes[0].director.role(), Role::Follower);
}

#[test]
fn a_stale_entry_at_the_position_of_a_leader_moves_its_batch_one_further() {
    let mut world = World::new(2);
    world.lead(0);
    world.hint(1, Some(false));
    world.append = Append::Held;
    let stale = world.ask_later(0, apply("stale", &["p"]));
    world.run(0);
    let late = world.held(0);
    world.hint(0, Some(false));
    assert_eq!(world.nodes[0].answers[&stale], Answer::Unknown);
    // Written behind an entry that is not there yet: a model of an append that lands late.
    let Effect::Append { epoch, .. } = late else {
        panic!()
    };
    world.append = Append::Works;
    world.lead(1);
    world.append = Append::Held;
    let id = world.ask_later(1, apply("s", &["p"]));
    world.run(1);
    let order = world.held(1);
    let old = Entry {
        header: crate::record::Header {
            format: crate::format::Format::FIRST,
            epoch,
            batch: crate::ids::BatchId::default(),
            predecessor: world.nodes[1].director.cluster().last_hash(),
            wall: WallTime(0),
        },
        records: vec![Record::Beat],
    };
    world.ledger.push((epoch, old.encode()));
    world.append = Append::Works;
    let Effect::Append { append, .. } = order else {
        panic!()
    };
    let outcome = world.land(&order);
    world.tell(1, Event::AppendAnswered { append, outcome });
    let answer = &world.nodes[1].answers[&id];
    assert!(
        matches!(
            answer,
            Answer::Done {
                position: Position(4),
                ..
            }
        ),
        "{answer:?}"
    );
}

#[test]
fn two_that_both_should_lead_pause_between_their_elections() {
    let mut world = World::new(2);
    world.lead(0);
    world.lead(1);
    for _ in 0..5 {
        world.hint(0, None);
        world.hint(1, None);
    }
    assert_eq!(elections(&world), 2);
}

#[test]
fn a_director_far_behind_takes_a_snapshot_and_reads_on() {
    let mut world = World::new(2);
    world.lead(0);
    for name in ["s", "t", "u", "v", "w"] {
        world.ask(apply(name, &["p"]));
        let cluster = world.cluster();
        if name == "u" {
            let kept = (cluster.position().next(), cluster.encode());
            world.nodes[0].snapshots.push(kept);
        }
    }
    world.trimmed = 3;
    world.hint(1, Some(false));
    assert!(world.nodes[0].director.cluster() == world.nodes[1].director.cluster());
}

#[test]
fn snapshots_are_ordered_every_so_many_entries() {
    let mut world = World::led();
    let registered = (0..1000).map(|n| register(&format!("a{n}"), n, &format!("secret {n}")));
    for call in registered {
        world.ask(call);
    }
    let snapshots = &world.nodes[0].snapshots;
    assert_eq!(snapshots.len(), 1);
    let kept = crate::cluster::Cluster::decode(&snapshots[0].1).unwrap();
    assert_eq!(kept.position(), Position(1000));
}

#[test]
fn another_history_or_a_newer_format_stops_the_director_for_ever() {
    let mut world = World::led();
    let mut entry = Entry::decode(&world.ledger[0].1).unwrap();
    entry.header.predecessor = 77;
    world.ledger.push((Epoch(1), entry.encode()));
    world.hint(0, None);
    let role = world.nodes[0].director.role();
    assert!(
        matches!(role, Role::Halted(why) if why.contains("another history")),
        "{role:?}"
    );
    let answer = world.ask(apply("s", &["p"]));
    assert!(matches!(answer, Answer::NotLeader { leader: None }));

    let mut world = World::led();
    entry.header.predecessor = world.cluster().last_hash();
    entry.header.format = crate::format::Format(crate::format::FORMATS.newest.0 + 1);
    world.ledger.push((Epoch(1), entry.encode()));
    world.hint(0, None);
    let role = world.nodes[0].director.role();
    assert!(
        matches!(role, Role::Halted(why) if why.contains("this director reads")),
        "{role:?}"
    );
}

#[test]
fn a_ledger_that_has_lost_its_end_stops_the_director() {
    let mut world = World::with_session(&["p"]);
    world.ledger.truncate(1);
    world.renew_later(0, renewal(1));
    world.run(0);
    let role = world.nodes[0].director.role();
    assert!(
        matches!(role, Role::Halted(why) if why.contains("other history")),
        "{role:?}"
    );
}
