//! Who may speak for an agent, and what a reboot or a person ends (R13, S7).

use super::*;
use crate::director::call::Refusal;
use crate::record::{Cause, CloseReason, Place};

/// A machine of its own.
fn place(machine: &str, boot: &str, folder: u64) -> Place {
    Place {
        machine: machine.to_owned(),
        boot: boot.to_owned(),
        folder,
    }
}

/// A process of agent `a` with identity 1 in a place.
fn joins(process: u64, place: Place) -> Call {
    let Call::Register {
        mut agent, lease, ..
    } = register("a", 1, "")
    else {
        panic!()
    };
    agent.place = place;
    Call::Register {
        agent,
        lease,
        secret_hash: format!("secret of {process}"),
        process,
    }
}

fn refused(answer: &Answer) -> &str {
    let Answer::Refused(Refusal::Conflict(why)) = answer else {
        panic!("{answer:?}")
    };
    why
}

fn evict(agent: &str) -> Call {
    Call::Evict {
        agent: AgentName::new(agent).unwrap(),
        reason: Cause::new("its rack burnt"),
    }
}

#[test]
fn a_copy_is_refused_while_the_original_is_heard_and_told_what_to_do() {
    let home = place("uuid:1", "b1", 7);
    for (copy, difference) in [
        (place("uuid:2", "b9", 7), "on another machine"),
        (place("uuid:1", "b2", 7), "in another boot"),
        (place("uuid:1", "b1", 8), "with another data folder"),
    ] {
        let mut world = World::led();
        world.ask(joins(1, home.clone()));
        world.pass(Duration::from_secs(3));
        let answer = world.ask(joins(2, copy));
        let why = refused(&answer);
        assert!(why.contains(difference), "{why}");
        assert!(why.contains("--data-dir") && why.contains("3.0 s"), "{why}");
        assert_eq!(world.renew(1), renewed(), "the original goes on");
    }
}

#[test]
fn the_next_process_in_the_same_place_is_let_in_at_once() {
    let mut world = World::led();
    let home = place("uuid:1", "b1", 7);
    world.ask(joins(1, home.clone()));
    let answer = world.ask(joins(2, home));
    assert!(matches!(answer, Answer::Opened { .. }), "{answer:?}");
}

#[test]
fn the_same_process_opens_further_sessions_wherever_it_is() {
    let mut world = World::led();
    world.ask(joins(1, place("uuid:1", "b1", 7)));
    let Call::Register {
        agent,
        lease,
        process,
        ..
    } = joins(1, place("uuid:1", "b1", 7))
    else {
        panic!()
    };
    let answer = world.ask(Call::Register {
        agent,
        lease,
        secret_hash: "another".to_owned(),
        process,
    });
    assert!(matches!(answer, Answer::Opened { .. }), "{answer:?}");
}

#[test]
fn one_that_is_not_heard_any_more_is_replaced_and_what_it_holds_ends_by_its_lease() {
    let mut world = World::led();
    world.ask(joins(1, place("uuid:1", "b1", 7)));
    world.pass(Duration::from_secs(6));
    let answer = world.ask(joins(2, place("uuid:2", "b2", 7)));
    assert!(matches!(answer, Answer::Opened { .. }), "{answer:?}");
    assert!(
        world.cluster().session(SessionId(1)).is_some(),
        "another machine proves nothing about this one"
    );
    let lost = world.renew(1);
    assert!(
        matches!(&lost, RenewalAnswer::Answered { renewed, .. } if renewed.is_empty()),
        "the one before is fenced: {lost:?}"
    );
}

#[test]
fn the_name_of_another_identity_is_free_once_that_is_stopped_or_evicted_and_each_is_told_in_its_time()
 {
    let another = || {
        let Call::Register { mut agent, .. } = register("a", 2, "") else {
            panic!()
        };
        agent.place = place("uuid:2", "b2", 9);
        Call::Register {
            agent,
            lease: LeaseTimes::of(Duration::from_secs(10)),
            secret_hash: "another".to_owned(),
            process: 2,
        }
    };
    let mut world = World::led();
    world.ask(joins(1, place("uuid:1", "b1", 7)));
    let answer = world.ask(another());
    let why = refused(&answer);
    assert!(
        why.contains("is alive") && why.contains("stop that"),
        "{why}"
    );
    assert!(!why.contains("evict"), "{why}");
    world.pass(Duration::from_secs(6));
    let answer = world.ask(another());
    let why = refused(&answer);
    assert!(
        why.contains("is not heard") && why.contains("`quorate evict a`"),
        "{why}"
    );
    world.ask(evict("a"));
    let answer = world.ask(another());
    assert!(matches!(answer, Answer::Opened { .. }), "{answer:?}");
}

/// A renewal of this session by the process that opened it.
fn renews(world: &mut World, session: u64) -> RenewalAnswer {
    let session = SessionId(session);
    let incarnation = world.cluster().session(session).unwrap().incarnation();
    let sent = Renewal {
        sessions: vec![session],
        incarnation,
        ..renewal(1)
    };
    let id = world.renew_later(0, sent);
    world.run(0);
    world.nodes[0].renewals[&id].clone()
}

/// Agent `a` in this boot of machine 1 runs `p` in session 1, and is then silent for a while.
fn runs_and_is_silent(boot: &str) -> (World, PartitionId, Token) {
    let mut world = World::led();
    world.ask(apply("s", &["p"]));
    world.ask(joins(1, place("uuid:1", boot, 7)));
    let (partition, token) = world.assign("p");
    let assume = Report {
        assume: vec![(partition, token)],
        ..report(1)
    };
    world.ask(Call::Report(Box::new(assume)));
    world.pass(Duration::from_secs(6));
    (world, partition, token)
}

#[test]
fn a_reboot_of_the_same_machine_frees_everything_at_once() {
    let (mut world, partition, token) = runs_and_is_silent("b1");
    let answer = world.ask(joins(2, place("uuid:1", "b2", 7)));
    assert!(matches!(answer, Answer::Opened { .. }), "{answer:?}");
    let renewed = renews(&mut world, 2);
    assert!(matches!(&renewed, RenewalAnswer::Answered { lost, .. } if lost.is_empty()));
    assert!(world.cluster().session(SessionId(1)).is_none());
    let closed = Record::SessionClosed {
        session: SessionId(1),
        reason: CloseReason::Rebooted,
    };
    assert!(world.records().contains(&closed));
    let holder = world.cluster().partition(partition).unwrap().holder();
    assert_ne!(holder.map(|holder| holder.token), Some(token));
}

#[test]
fn a_registration_from_before_a_reboot_that_comes_late_frees_nothing_of_after_it() {
    let (mut world, partition, token) = runs_and_is_silent("b2");
    world.ask(joins(2, place("uuid:1", "b1", 7)));
    world.pass(Duration::from_secs(1));
    let holder = world.cluster().partition(partition).unwrap().holder();
    assert_eq!(
        holder.map(|holder| holder.token),
        Some(token),
        "it executes"
    );
    assert!(world.cluster().session(SessionId(1)).is_some());
}

#[test]
fn a_session_of_before_a_reboot_that_is_opened_late_is_not_held_against_the_one_of_after_it() {
    let mut world = World::led();
    world.ask(joins(2, place("uuid:1", "b2", 7)));
    world.pass(Duration::from_secs(6));
    world.ask(joins(1, place("uuid:1", "b1", 7)));
    world.pass(Duration::from_millis(5_100));
    world.ask(joins(3, place("uuid:1", "b2", 7)));
    renews(&mut world, 3);
    let open = |session| world.cluster().session(SessionId(session)).is_some();
    assert!(open(1), "it is of the boot that goes on");
    assert!(!open(2), "and this one of the boot that is over");
}

#[test]
fn a_new_boot_proves_nothing_when_the_machine_may_be_another_one() {
    for machine in ["machine-id:1", "host:a", ""] {
        let mut world = World::led();
        world.ask(joins(1, place(machine, "b1", 7)));
        world.pass(Duration::from_secs(6));
        world.ask(joins(2, place(machine, "b2", 7)));
        assert!(world.cluster().session(SessionId(1)).is_some(), "{machine}");
    }
}

#[test]
fn what_dead_wardens_held_can_be_evicted_from_an_agent_that_is_alive() {
    let mut world = World::led();
    let home = place("uuid:1", "b1", 7);
    world.ask(joins(1, home.clone()));
    world.pass(Duration::from_secs(6));
    world.ask(joins(2, home));
    let done = world.ask(evict("a"));
    assert!(matches!(done, Answer::Done { .. }), "{done:?}");
    assert!(world.cluster().session(SessionId(1)).is_none());
    assert!(
        world.cluster().session(SessionId(2)).is_some(),
        "it is heard"
    );
    assert!(refused(&world.ask(evict("a"))).contains("all its sessions"));
}

#[test]
fn only_a_silent_agent_can_be_evicted_and_the_ledger_keeps_the_reason() {
    let mut world = World::with_session(&["p"]);
    let answer = world.ask(evict("a"));
    assert!(refused(&answer).contains("quorate drain a"), "{answer:?}");
    world.pass(Duration::from_secs(6));
    let answer = world.ask(evict("a"));
    assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
    assert!(world.cluster().session(SessionId(1)).is_none());
    let kept = Record::Evicted {
        agent: AgentName::new("a").unwrap(),
        reason: Cause::new("its rack burnt"),
    };
    assert!(world.records().contains(&kept));
    let lost = world.renew(1);
    assert!(
        matches!(&lost, RenewalAnswer::Answered { renewed, .. } if renewed.is_empty()),
        "if it lives after all, it hears that its sessions are over: {lost:?}"
    );
    let Answer::Done { notes, changed, .. } = world.ask(evict("a")) else {
        panic!()
    };
    assert_eq!(notes, ["agent a holds nothing"]);
    assert!(!changed, "and nothing is said to be done");
    let answer = world.ask(evict("nobody"));
    assert!(matches!(
        answer,
        Answer::Refused(Refusal::NotFound { what: "agent", .. })
    ));
}

#[test]
fn an_agent_cannot_say_by_a_label_how_surely_it_ends_a_process() {
    let mut world = World::led();
    let mut call = register("a", 1, "secret");
    if let Call::Register { agent, .. } = &mut call {
        agent
            .labels
            .insert("containment".to_owned(), "kernel".to_owned());
    }
    let written = world.ledger.len();
    let answer = world.ask(call);
    let Answer::Refused(refusal @ Refusal::Invalid(_)) = &answer else {
        panic!("{answer:?}")
    };
    assert_eq!(
        refusal.to_string(),
        "labels.containment: every agent has this label by itself; leave it out; the field \"containment\" says the grade that was proven"
    );
    assert_eq!(world.ledger.len(), written);
    let answer = world.ask(register("a", 1, "secret"));
    assert!(matches!(answer, Answer::Opened { .. }), "{answer:?}");
}
