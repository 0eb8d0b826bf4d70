//! Renewals, proofs of leadership and expiry (R4-R7, R13).

use super::*;

const X: Duration = Duration::from_millis(11_223);

fn lost(answer: &RenewalAnswer, why: &str) -> bool {
    match answer {
        RenewalAnswer::Answered { renewed, lost } => {
            renewed.is_empty() && lost.len() == 1 && lost[0].1.contains(why)
        }
        RenewalAnswer::NotLeader { .. } => false,
    }
}

/// Neither a yes nor the end of anything.
fn nothing() -> RenewalAnswer {
    RenewalAnswer::Answered {
        renewed: Vec::new(),
        lost: Vec::new(),
    }
}

fn open(world: &World) -> bool {
    world.cluster().session(SessionId(1)).is_some()
}

#[test]
fn a_silent_session_is_expired_after_x_and_not_before() {
    let mut world = World::with_session(&["p"]);
    world.pass(X - Duration::from_millis(1));
    assert!(open(&world));
    world.pass(Duration::from_millis(2));
    assert!(!open(&world));
    assert_eq!(
        world.records().last(),
        Some(&Record::SessionExpired {
            session: SessionId(1)
        })
    );
}

#[test]
fn a_renewal_moves_the_expiry_from_its_receipt() {
    let mut world = World::with_session(&["p"]);
    for counter in 1..=5 {
        world.pass(Duration::from_secs(8));
        assert_eq!(world.renew(counter), renewed());
    }
    world.pass(X - Duration::from_millis(1));
    assert!(open(&world));
    world.pass(Duration::from_millis(2));
    assert!(!open(&world));
    assert!(lost(&world.renew(6), "over"));
}

#[test]
fn no_renewal_is_answered_before_a_proof_that_began_after_it() {
    let mut world = World::with_session(&["p"]);
    world.proofs_held = true;
    let first = world.renew_later(0, renewal(1));
    world.run(0);
    let second = world.renew_later(0, renewal(2));
    world.run(0);
    let Effect::ProveTail { proof } = world.held(0) else {
        panic!()
    };
    let tail = Some(world.tail());
    world.tell(0, Event::TailAnswered { proof, tail });
    assert_eq!(world.nodes[0].renewals.get(&first), Some(&renewed()));
    assert_eq!(
        world.nodes[0].renewals.get(&second),
        None,
        "that proof is too old for it"
    );
    let Effect::ProveTail { proof } = world.held(0) else {
        panic!()
    };
    world.tell(0, Event::TailAnswered { proof, tail });
    assert_eq!(world.nodes[0].renewals.get(&second), Some(&renewed()));
}

#[test]
fn renewals_are_gathered_for_one_proof_and_a_call_waits_for_none_of_it() {
    let mut world = World::with_session(&["p"]);
    world.nodes[0].director.config.gather_renewals = super::super::GATHER_RENEWALS;
    let answered = |world: &World, id: u64| world.nodes[0].renewals.contains_key(&id);
    let renew = |world: &mut World, counter| {
        let id = world.renew_later(0, renewal(counter));
        world.run(0);
        id
    };
    let first = renew(&mut world, 1);
    assert!(answered(&world, first), "nothing was proven a moment ago");
    let second = renew(&mut world, 2);
    let third = renew(&mut world, 3);
    world.pass(Duration::from_millis(9));
    assert!(!answered(&world, second) && !answered(&world, third));
    world.pass(Duration::from_millis(1));
    assert!(answered(&world, second) && answered(&world, third));
    // Who asks for something gets his proof at once, and what was gathered its answer with it.
    let fourth = renew(&mut world, 4);
    assert!(!answered(&world, fourth));
    let nothing = Call::Remove {
        services: vec![service("unknown")],
    };
    world.ask(nothing);
    assert!(answered(&world, fourth));
}

#[test]
fn an_own_append_begun_after_the_renewal_is_a_proof_and_one_begun_before_is_not() {
    let mut world = World::with_session(&["p"]);
    world.proofs_held = true;
    world.append = Append::Held;
    world.ask_later(0, register("b", 2, "other"));
    world.run(0);
    let id = world.renew_later(0, renewal(1));
    world.run(0);
    let mut before = world.nodes[0].held.iter();
    let before = before
        .position(|order| matches!(order, Effect::Append { .. }))
        .unwrap();
    let order = world.nodes[0].held.remove(before);
    world.nodes[0].held.clear();
    let Effect::Append { append, .. } = order else {
        panic!()
    };
    let outcome = world.land(&order);
    world.append = Append::Works;
    world.tell(0, Event::AppendAnswered { append, outcome });
    assert_eq!(world.nodes[0].renewals.get(&id), None);
    world.ask(register("c", 3, "third"));
    assert_eq!(world.nodes[0].renewals.get(&id), Some(&renewed()));
}

#[test]
fn a_deposed_leader_never_answers_a_renewal_with_yes() {
    let mut world = World::new(2);
    world.lead(0);
    world.ask(register("a", 1, "secret"));
    // The other one is elected, and the old leader has not heard of it.
    world.lead(1);
    assert_eq!(*world.nodes[0].director.role(), Role::Leader);
    let id = world.renew_later(0, renewal(1));
    world.run(0);
    let answer = &world.nodes[0].renewals[&id];
    assert!(
        matches!(answer, RenewalAnswer::NotLeader { .. }),
        "{answer:?}"
    );
    assert_ne!(*world.nodes[0].director.role(), Role::Leader);
}

#[test]
fn without_an_answer_of_the_ledger_there_is_no_yes() {
    let mut world = World::with_session(&["p"]);
    world.proofs_held = true;
    let id = world.renew_later(0, renewal(1));
    world.run(0);
    let Effect::ProveTail { proof } = world.held(0) else {
        panic!()
    };
    world.tell(0, Event::TailAnswered { proof, tail: None });
    assert_eq!(world.nodes[0].renewals[&id], not_leader(None));
}

#[test]
fn a_late_entry_of_an_earlier_leader_at_the_tail_makes_the_leader_write_a_proof() {
    let mut world = World::with_session(&["p"]);
    let stale = Entry {
        header: crate::record::Header {
            format: crate::format::Format::FIRST,
            epoch: Epoch(0),
            batch: crate::ids::BatchId::default(),
            predecessor: world.cluster().last_hash(),
            wall: WallTime(0),
        },
        records: vec![Record::Beat],
    };
    world.ledger.push((Epoch(0), stale.encode()));
    assert_eq!(world.renew(1), renewed());
    let (_, last) = world.ledger.last().unwrap();
    assert_eq!(Entry::decode(last).unwrap().header.epoch, Epoch(1));
}

#[test]
fn a_new_leader_gives_everybody_the_whole_time_again() {
    let mut world = World::new(2);
    world.lead(0);
    world.ask(register("a", 1, "secret"));
    world.pass(Duration::from_secs(11));
    world.lead(1);
    let session = |world: &World| {
        world.nodes[1]
            .director
            .cluster()
            .session(SessionId(1))
            .is_some()
    };
    world.hint(0, Some(false));
    world.pass(X - Duration::from_millis(1));
    assert!(session(&world));
    world.pass(Duration::from_millis(2));
    assert!(!session(&world));
}

#[test]
fn a_session_whose_time_is_over_is_not_renewed_even_before_its_expiry_is_committed() {
    let mut world = World::with_session(&[]);
    world.append = Append::Held;
    world.pass(X);
    assert!(open(&world));
    assert!(lost(&world.renew(1), "silent"));
    let order = world.held(0);
    let Effect::Append { append, .. } = order else {
        panic!()
    };
    let outcome = world.land(&order);
    world.tell(0, Event::AppendAnswered { append, outcome });
    assert!(!open(&world));
}

#[test]
fn the_same_attempt_with_another_nonce_is_a_copy_and_identical_bytes_are_a_repeat() {
    let mut world = World::with_session(&["p"]);
    assert_eq!(world.renew(1), renewed());
    assert_eq!(world.renew(1), renewed());
    let mut copy = renewal(1);
    copy.nonce = 99;
    let id = world.renew_later(0, copy.clone());
    world.run(0);
    assert!(lost(&world.nodes[0].renewals[&id], "copy"));
    assert_eq!(world.renew(2), renewed());
    copy.counter = 1;
    let id = world.renew_later(0, copy);
    world.run(0);
    assert!(lost(&world.nodes[0].renewals[&id], "copy"), "nor later");
}

#[test]
fn a_newer_process_fences_the_one_before_it() {
    let mut world = World::with_session(&["p"]);
    let resume = Call::Resume {
        session: SessionId(1),
        process: 8,
    };
    let opened = world.ask(resume.clone());
    let again = world.ask(resume);
    assert_eq!(opened, again, "a repeat gets the same incarnation");
    let Answer::Opened { incarnation, .. } = opened else {
        panic!("{opened:?}")
    };
    assert!(incarnation > Incarnation(1));
    assert!(lost(&world.renew(1), "newer process"));
    let mut new = renewal(1);
    new.incarnation = incarnation;
    let id = world.renew_later(0, new);
    world.run(0);
    assert_eq!(world.nodes[0].renewals[&id], renewed());
    let answer = world.ask(Call::Report(Box::new(report(1))));
    assert!(matches!(
        answer,
        Answer::Refused(super::super::call::Refusal::Fenced(_))
    ));
}

#[test]
fn who_leaves_must_be_the_present_process_because_a_message_may_come_late() {
    let mut world = World::with_session(&["p"]);
    let leaves = |incarnation| Call::Close {
        session: SessionId(1),
        incarnation: Some(incarnation),
        reason: crate::record::CloseReason::Left,
    };
    let resumed = world.ask(Call::Resume {
        session: SessionId(1),
        process: 8,
    });
    let Answer::Opened { incarnation, .. } = resumed else {
        panic!("{resumed:?}")
    };
    let answer = world.ask(leaves(Incarnation(1)));
    assert!(matches!(
        answer,
        Answer::Refused(super::super::call::Refusal::Fenced(_))
    ));
    assert!(open(&world), "what the next process runs has not ended");
    world.ask(leaves(incarnation));
    assert!(!open(&world));
}

#[test]
fn who_leaves_in_the_same_moment_as_the_next_process_resumes_is_too_late() {
    let mut world = World::with_session(&["p"]);
    world.append = Append::Held;
    world.ask_later(0, register("b", 2, "other"));
    world.run(0);
    // Both are decided for the next entry.
    world.ask_later(
        0,
        Call::Resume {
            session: SessionId(1),
            process: 8,
        },
    );
    let leaves = Call::Close {
        session: SessionId(1),
        incarnation: Some(Incarnation(1)),
        reason: crate::record::CloseReason::Left,
    };
    let id = world.ask_later(0, leaves);
    let order = world.held(0);
    let Effect::Append { append, .. } = order else {
        panic!()
    };
    let outcome = world.land(&order);
    world.append = Append::Works;
    world.tell(0, Event::AppendAnswered { append, outcome });
    let answer = &world.nodes[0].answers[&id];
    assert!(
        matches!(
            answer,
            Answer::Refused(super::super::call::Refusal::Fenced(_))
        ),
        "{answer:?}"
    );
    assert!(open(&world));
}

#[test]
fn a_copy_that_lags_behind_its_original_is_never_renewed() {
    let mut world = World::with_session(&["p"]);
    for counter in 100..140 {
        world.pass(Duration::from_secs(2));
        assert_eq!(world.renew(counter), renewed());
        assert_eq!(
            world.renew(counter - 90),
            nothing(),
            "it would execute for ever"
        );
    }
    assert!(open(&world), "the original goes on");
}

#[test]
fn what_a_network_repeats_or_delivers_late_keeps_no_session_open() {
    let mut world = World::with_session(&["p"]);
    assert_eq!(world.renew(1), renewed());
    assert_eq!(world.renew(3), renewed());
    for _ in 0..3 {
        world.pass(Duration::from_secs(3));
        assert_eq!(world.renew(3), renewed(), "a repeat is answered again");
        assert_eq!(world.renew(2), nothing(), "whoever sent it has given it up");
    }
    world.pass(X - Duration::from_secs(9) + Duration::from_millis(1));
    assert!(!open(&world));
}

#[test]
fn an_agent_that_has_let_its_shorter_lease_expire_is_silent_in_its_longer_one() {
    let mut world = World::with_session(&["p"]);
    let Call::Register { agent, .. } = register("a", 1, "") else {
        panic!()
    };
    world.ask(Call::Register {
        agent,
        lease: LeaseTimes::of(Duration::from_secs(3)),
        secret_hash: "shorter".to_owned(),
        process: 1,
    });
    let both = |counter| Renewal {
        sessions: vec![SessionId(1), SessionId(2)],
        ..renewal(counter)
    };
    world.renew_later(0, both(1));
    world.run(0);
    let silent = |world: &World| world.nodes[0].director.silent(SessionId(1));
    world.pass(Duration::from_millis(3_570));
    assert!(!silent(&world), "half of 10 s is not over");
    world.pass(Duration::from_millis(2));
    assert!(world.cluster().session(SessionId(2)).is_none());
    assert!(silent(&world), "one message would have renewed both");
    assert_eq!(world.renew(2), renewed());
    assert!(!silent(&world));
}
