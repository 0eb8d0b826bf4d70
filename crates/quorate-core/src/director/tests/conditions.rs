//! Calls on a condition: what counts as a change of an object, and that nothing comes in between.

use super::super::call::{Condition, Conditional, Object, Refusal, Revision};
use super::*;
use crate::record::{Desired, RunPhase, RunReport, Schedulable};

fn the_service() -> Object {
    Object::Service(service("s"))
}

fn the_partition(key: &str) -> Object {
    Object::Partition(service("s"), PartitionKey::new(key).unwrap())
}

fn the_agent() -> Object {
    Object::Agent(AgentName::new("a").unwrap())
}

fn seen(world: &World, object: &Object) -> Revision {
    world.nodes[0].director.revision(object).unwrap()
}

fn at(revision: Revision) -> Condition {
    Condition::At(vec![revision])
}

fn only(object: Object, condition: Condition, call: Call) -> Call {
    Call::Conditional(Box::new(Conditional {
        object,
        condition,
        call,
    }))
}

fn desired(key: Option<&str>, desired: Desired) -> Call {
    Call::SetDesired {
        service: service("s"),
        key: key.map(|key| PartitionKey::new(key).unwrap()),
        desired,
    }
}

fn set(schedulable: Schedulable) -> Call {
    Call::SetAgent {
        agent: AgentName::new("a").unwrap(),
        schedulable,
    }
}

#[track_caller]
fn assert_done(answer: &Answer) {
    assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
}

#[track_caller]
fn assert_unmet(answer: &Answer, why: &str) {
    let Answer::Refused(Refusal::Condition(text)) = answer else {
        panic!("{answer:?}")
    };
    assert!(text.contains(why), "{text}");
}

#[test]
fn what_has_changed_since_it_was_seen_is_not_written() {
    let mut world = World::with_session(&["p"]);
    let first = seen(&world, &the_service());
    assert_done(&world.ask(only(the_service(), at(first), apply("s", &["p", "q"]))));
    let written = world.ledger.len();
    let again = world.ask(only(the_service(), at(first), apply("s", &["r"])));
    assert_unmet(&again, "service s has changed since it was read");
    assert_eq!(world.ledger.len(), written);
    let either = Condition::At(vec![first, seen(&world, &the_service())]);
    assert_done(&world.ask(only(the_service(), either, apply("s", &["r"]))));
}

#[test]
fn two_that_saw_the_same_cannot_both_write() {
    let stop = |object: Object, call: Call| {
        let mut world = World::with_session(&["p", "q"]);
        let condition = at(seen(&world, &object));
        // Everything that waits is decided for one entry.
        let asked = [1, 2, 3].map(|_| {
            let call = only(object.clone(), condition.clone(), call.clone());
            world.ask_later(0, call)
        });
        world.run(0);
        let answers = asked.map(|id| world.nodes[0].answers[&id].clone());
        assert_done(&answers[0]);
        assert_unmet(&answers[1], "has changed");
        assert_unmet(&answers[2], "has changed");
    };
    stop(the_service(), apply("s", &["p"]));
    stop(the_service(), desired(None, Desired::Stopped));
    stop(the_partition("p"), desired(Some("p"), Desired::Stopped));
    stop(the_agent(), set(Schedulable::Cordoned));
}

#[test]
fn an_unconditional_write_before_it_in_the_same_entry_counts() {
    let mut world = World::with_session(&["p"]);
    let condition = at(seen(&world, &the_partition("p")));
    world.append = Append::Held;
    world.ask_later(0, desired(Some("p"), Desired::Stopped));
    world.run(0);
    // The first entry is on its way; both of these wait for the next one.
    let other = world.ask_later(0, desired(Some("p"), Desired::Running));
    let call = only(
        the_partition("p"),
        condition,
        desired(Some("p"), Desired::Stopped),
    );
    let conditional = world.ask_later(0, call);
    world.append = Append::Works;
    let order = world.held(0);
    let Effect::Append { append, .. } = order else {
        panic!("{order:?}")
    };
    let outcome = world.land(&order);
    world.tell(0, Event::AppendAnswered { append, outcome });
    assert_done(&world.nodes[0].answers[&other]);
    assert_unmet(&world.nodes[0].answers[&conditional], "has changed");
}

#[test]
fn what_exists_is_not_created_again_and_what_does_not_is_not_changed() {
    let mut world = World::led();
    let create = || only(the_service(), Condition::Absent, apply("s", &["p"]));
    let change = || only(the_service(), Condition::Exists, apply("s", &["q"]));
    assert_unmet(&world.ask(change()), "does not exist");
    assert_done(&world.ask(create()));
    assert_unmet(&world.ask(create()), "exists already");
    assert_done(&world.ask(change()));
    // Of what does not exist at all, that is told.
    let gone = Call::Remove {
        services: vec![service("x")],
    };
    let gone = only(Object::Service(service("x")), Condition::Exists, gone);
    let answer = world.ask(gone);
    assert!(matches!(answer, Answer::Refused(Refusal::NotFound { .. })));
    // One that is removed may be created again.
    world.ask(Call::Remove {
        services: vec![service("s")],
    });
    assert_done(&world.ask(create()));
}

#[test]
fn what_runs_changes_its_partition_and_not_what_people_asked_of_the_service() {
    let mut world = World::with_session(&["p", "q"]);
    let (before, other) = (
        seen(&world, &the_service()),
        seen(&world, &the_partition("q")),
    );
    let list = world.cluster().list_revision(&service("s"));
    let mut last = seen(&world, &the_partition("p"));
    let mut moved = |world: &World| {
        let now = seen(world, &the_partition("p"));
        assert!(now > last, "{now:?} after {last:?}");
        last = now;
    };
    let (p, token) = world.assign("p");
    moved(&world);
    let mut claim = report(1);
    claim.assume = vec![(p, token)];
    world.ask(Call::Report(Box::new(claim)));
    moved(&world);
    for (sequence, phase) in [
        (2, RunPhase::Starting),
        (3, RunPhase::Ready),
        (4, RunPhase::Stopping),
    ] {
        let run = RunReport {
            phase,
            attempt: 1,
            pid: Some(7),
            exit: None,
        };
        let mut seen = report(sequence);
        seen.observed = vec![(p, token, run)];
        world.ask(Call::Report(Box::new(seen)));
        moved(&world);
    }
    assert_eq!(seen(&world, &the_service()), before);
    assert_eq!(seen(&world, &the_partition("q")), other);
    assert!(world.cluster().list_revision(&service("s")) > list);
    world.ask(apply("s", &["p"]));
    assert!(seen(&world, &the_service()) > before);
}

#[test]
fn an_agent_changes_with_its_sessions_and_with_what_people_ask_of_it() {
    let mut world = World::with_session(&["p"]);
    let first = seen(&world, &the_agent());
    world.assign("p");
    assert_eq!(seen(&world, &the_agent()), first);
    world.ask(set(Schedulable::Cordoned));
    let second = seen(&world, &the_agent());
    assert!(second > first);
    world.ask(set(Schedulable::Cordoned));
    assert_eq!(seen(&world, &the_agent()), second);
    world.ask(register("a", 1, "another secret"));
    assert!(seen(&world, &the_agent()) > second);
}
