//! Directors over a store that does not tell who should lead.

use super::*;
use crate::director::{SILENCE, Shared};

/// Directors that have just started, and whom the store never hints at anything.
fn world(directors: u64) -> World {
    let mut world = World::new(0);
    for number in 1..=directors {
        world.nodes.push(node(number, None));
    }
    for node in 0..world.nodes.len() {
        world.hint_nothing(node);
    }
    world
}

fn node(number: u64, folded: Option<(Position, u64)>) -> Node {
    node_of(
        number,
        Shared {
            silence: SILENCE,
            folded,
            stopped: false,
        },
    )
}

fn node_of(number: u64, shared: Shared) -> Node {
    Node::with(Config {
        shared: Some(shared),
        ..Node::config(number, FORMATS)
    })
}

impl World {
    fn hint_nothing(&mut self, node: usize) {
        let hint = Event::Hint {
            should_lead: None,
            occupied: Position(0),
        };
        self.tell(node, hint);
    }

    fn leaders(&self) -> Vec<usize> {
        let nodes = self.nodes.iter().enumerate();
        let leaders = nodes.filter(|(_, node)| *node.director.role() == Role::Leader);
        leaders.map(|(at, _)| at).collect()
    }

    fn role(&self, node: usize) -> &Role {
        self.nodes[node].director.role()
    }

    /// It is asked and woken no more.
    fn dies(&mut self, node: usize) {
        self.nodes[node].wake = None;
    }

    /// A leader that somebody has to notice, and another director.
    fn pair() -> (Self, usize, usize) {
        let mut world = world(2);
        world.pass(SILENCE * 3);
        let leaders = world.leaders();
        assert_eq!(leaders.len(), 1);
        (world, leaders[0], 1 - leaders[0])
    }
}

#[test]
fn on_an_empty_store_somebody_leads_soon() {
    let mut world = world(1);
    world.pass(SILENCE / 3);
    assert_eq!(world.leaders(), [0]);
}

#[test]
fn a_leader_with_nothing_to_say_is_heard_and_stays() {
    let (mut world, leader, other) = World::pair();
    let (epoch, before) = (world.cluster().epoch(), world.ledger.len());
    world.pass(Duration::from_secs(60));
    assert_eq!(world.leaders(), [leader]);
    assert_eq!(world.nodes[other].director.cluster().epoch(), epoch);
    let beats = world.ledger.len() - before;
    assert!((150..=151).contains(&beats), "{beats} beats in 60 s");
}

#[test]
fn who_follows_a_dead_leader_leads_within_two_silences() {
    let (mut world, leader, other) = World::pair();
    world.dies(leader);
    world.pass(SILENCE * 2);
    assert_eq!(*world.role(other), Role::Leader);
}

#[test]
fn a_deposed_leader_that_goes_on_is_told_by_the_ledger() {
    let (mut world, leader, other) = World::pair();
    let frozen = world.nodes[leader].wake.take();
    world.pass(SILENCE * 2);
    assert_eq!(*world.role(other), Role::Leader);
    world.nodes[leader].wake = frozen;
    world.pass(SILENCE);
    assert_eq!(world.leaders(), [other]);
    world.pass(SILENCE * 30);
    assert_eq!(world.leaders(), [other]);
}

#[test]
fn a_director_that_does_not_reach_the_store_neither_stands_nor_stays() {
    let (mut world, leader, other) = World::pair();
    world.cut = [leader, other].into();
    world.pass(SILENCE * 10);
    assert_eq!(world.leaders(), [0; 0]);
    assert_eq!(*world.role(other), Role::Follower);
    let id = world.renew_later(leader, renewal(1));
    world.run(leader);
    assert!(matches!(
        world.nodes[leader].renewals[&id],
        RenewalAnswer::NotLeader { .. }
    ));
    world.cut.clear();
    world.pass(SILENCE * 2);
    assert_eq!(world.leaders().len(), 1);
}

#[test]
fn two_that_cannot_see_each_other_do_not_depose_each_other() {
    let (mut world, leader, other) = World::pair();
    world.cut = [other].into();
    world.pass(SILENCE * 20);
    assert_eq!(world.leaders(), [leader]);
    world.cut.clear();
    world.pass(SILENCE * 20);
    assert_eq!(world.leaders(), [leader]);
    assert_eq!(
        world.nodes[other].director.cluster().epoch(),
        world.nodes[leader].director.cluster().epoch()
    );
}

#[test]
fn a_leader_of_a_store_that_takes_nothing_more_still_answers_renewals() {
    let mut world = world(1);
    world.pass(SILENCE);
    world.ask(apply("s", &["p"]));
    world.ask(register("a", 1, "secret"));
    world.append = Append::Refuses;
    for counter in 1..=20 {
        world.pass(SILENCE / 2);
        assert_eq!(world.renew(counter), renewed());
    }
}

#[test]
fn an_election_that_lands_late_is_taken_up() {
    let mut world = world(1);
    world.append = Append::Held;
    world.pass(SILENCE);
    let order = world.held(0);
    let Effect::Append { append, .. } = order else {
        panic!()
    };
    let outcome = AppendOutcome::Unknown;
    world.tell(0, Event::AppendAnswered { append, outcome });
    assert_eq!(*world.role(0), Role::Candidate);
    world.land(&order);
    world.append = Append::Works;
    world.pass(SILENCE * 2);
    assert_eq!(world.leaders(), [0]);
    let elections = world.records().into_iter();
    let elections = elections.filter(|record| matches!(record, Record::Elected { .. }));
    assert_eq!(elections.count(), 1);
}

#[test]
fn only_the_leader_keeps_snapshots() {
    let (mut world, leader, other) = World::pair();
    for _ in 0..100 {
        world.pass(SILENCE * 5);
    }
    assert!(!world.nodes[leader].snapshots.is_empty());
    assert!(world.nodes[other].snapshots.is_empty());
    assert_eq!(
        world.nodes[other].director.cluster().position().0 / 100,
        world.nodes[leader].director.cluster().position().0 / 100
    );
}

#[test]
fn a_store_that_ends_before_what_was_folded_stops_whoever_has_folded_it() {
    let (mut world, leader, other) = World::pair();
    world.ask(apply("s", &["p"]));
    world.pass(SILENCE * 2);
    world.ledger.truncate(1);
    world.lost_history = true;
    world.pass(SILENCE * 2);
    for node in [leader, other] {
        assert_eq!(world.nodes[node].stopped, Some(Why::OtherHistory));
    }
}

#[test]
fn a_store_that_has_lost_history_is_noticed_after_a_restart() {
    let (mut world, leader, _) = World::pair();
    world.ask(apply("s", &["p"]));
    let cluster = world.nodes[leader].director.cluster();
    let folded = (cluster.position(), cluster.last_hash());
    let whole = world.ledger.clone();
    let stopped = |ledger: &[(Epoch, Vec<u8>)], folded| {
        let mut world = World::new(0);
        world.ledger = ledger.to_vec();
        world.nodes.push(node(7, Some(folded)));
        world.hint_nothing(0);
        world.pass(SILENCE * 3);
        (world.nodes[0].stopped, world.leaders().len())
    };
    assert_eq!(stopped(&whole, folded), (None, 1));
    let shorter = &whole[..whole.len() - 1];
    assert_eq!(stopped(shorter, folded), (Some(Why::OtherHistory), 0));
    // Others have gone on without what was lost.
    let other = (folded.0, folded.1 ^ 1);
    assert_eq!(stopped(&whole, other), (Some(Why::OtherHistory), 0));
}

#[test]
fn who_has_stopped_over_lost_history_takes_part_again_in_a_new_era_alone() {
    let (mut world, leader, _) = World::pair();
    world.ask(apply("s", &["p"]));
    let cluster = world.nodes[leader].director.cluster();
    let shared = Shared {
        silence: SILENCE,
        folded: Some((cluster.position(), cluster.last_hash())),
        stopped: true,
    };
    // Others write on, so that nothing is missing any more and nothing else is at that position.
    world.ask(apply("t", &["p"]));
    let last = world.ledger.len() as u64;
    world.nodes.push(node_of(7, shared));
    let hint = Event::Hint {
        should_lead: None,
        occupied: Position(last),
    };
    world.tell(2, hint);
    world.pass(SILENCE);
    assert_eq!(world.nodes[2].stopped, Some(Why::OtherHistory));

    // A snapshot that has jumped over the position tells it as well.
    let cluster = world.nodes[leader].director.cluster().clone();
    let reset = |cluster: &crate::cluster::Cluster| {
        let mut world = World::new(0);
        world.nodes.push(node_of(7, shared));
        let next = cluster.position().next();
        let bytes = cluster.encode();
        world.tell(0, Event::Reset { next, bytes });
        world.nodes[0].stopped
    };
    assert_eq!(reset(&cluster), Some(Why::OtherHistory));
    let adopted = cluster.in_new_era(crate::cluster::NewEra::default());
    assert_eq!(reset(&adopted.unwrap().cluster), None);
}

#[test]
fn a_leader_whose_appends_take_long_stays_while_it_sees_the_end() {
    let mut world = world(1);
    world.pass(SILENCE);
    world.append = Append::Held;
    for _ in 0..5 {
        // Each beat is answered after more than a silence.
        world.pass(SILENCE * 3 / 2);
        assert_eq!(*world.role(0), Role::Leader);
        let order = world.held(0);
        let Effect::Append { append, .. } = order else {
            panic!()
        };
        let outcome = world.land(&order);
        world.tell(0, Event::AppendAnswered { append, outcome });
    }
    world.cut = [0].into();
    world.pass(SILENCE * 2);
    assert_eq!(*world.role(0), Role::Follower);
}
