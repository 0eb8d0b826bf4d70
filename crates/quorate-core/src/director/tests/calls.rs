//! Calls: what they write, what they answer, and what a repeat of them does.

use super::super::call::{Applied, Refusal, Release};
use super::super::{WorkDelta, WorkState};
use super::*;
use crate::cluster::{Freed, State};
use crate::record::{CloseReason, Desired, MoveReason, ReleaseOutcome, RunPhase, RunReport};
use crate::spec::PartitionSpec;

fn done(answer: &Answer) -> bool {
    matches!(answer, Answer::Done { .. })
}

fn state(world: &World, name: &str) -> State {
    world
        .cluster()
        .partition(world.id(name))
        .unwrap()
        .state()
        .clone()
}

fn claim(world: &mut World, sequence: u64, id: PartitionId, token: Token) -> Answer {
    let mut claim = report(sequence);
    claim.assume = vec![(id, token)];
    world.ask(Call::Report(Box::new(claim)))
}

fn release(world: &mut World, sequence: u64, partition: PartitionId, token: Token) -> Answer {
    let mut given = report(sequence);
    given.release = vec![Release {
        partition,
        token,
        outcome: ReleaseOutcome::Stopped,
        exit: None,
        failures: 0,
    }];
    world.ask(Call::Report(Box::new(given)))
}

fn work(world: &World, since: Position) -> Option<WorkDelta> {
    world.nodes[0].director.work(SessionId(1), since)
}

#[test]
fn applying_the_same_again_writes_nothing_and_waits_for_a_proof() {
    let mut world = World::led();
    assert!(done(&world.ask(apply("s", &["p", "q"]))));
    let written = world.ledger.len();
    assert!(done(&world.ask(apply("s", &["q", "p"]))));
    // The list is written differently: the specification is put, no partition is touched.
    assert_eq!(world.ledger.len(), written + 1);
    world.proofs_held = true;
    let id = world.ask_later(0, apply("s", &["q", "p"]));
    world.run(0);
    assert_eq!(world.ledger.len(), written + 1);
    assert!(!world.nodes[0].answers.contains_key(&id));
    let Effect::ProveTail { proof } = world.held(0) else {
        panic!()
    };
    let tail = Some(world.tail());
    world.tell(0, Event::TailAnswered { proof, tail });
    assert!(done(&world.nodes[0].answers[&id]));
}

#[test]
fn a_new_list_adds_and_removes_and_leaves_the_rest_alone() {
    let mut world = World::with_session(&["a", "b"]);
    let (b, token) = world.assign("b");
    claim(&mut world, 1, b, token);
    let answer = world.ask(apply("s", &["a", "c"]));
    let Answer::Done { notes, .. } = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(
        notes,
        ["1 partition of s is no longer listed and is being stopped"]
    );
    assert!(matches!(
        state(&world, "b"),
        State::Stopping(_, MoveReason::Removed)
    ));
    release(&mut world, 2, b, token);
    assert_eq!(world.cluster().partition_count(), 2);
}

#[test]
fn two_lists_for_one_service_at_once_are_decided_one_after_the_other() {
    let mut world = World::led();
    world.ask_later(0, apply("s", &["a"]));
    world.ask_later(0, apply("s", &["a", "b"]));
    world.ask_later(0, apply("s", &["b", "c"]));
    world.run(0);
    let service = world.cluster().service(&service("s")).unwrap();
    let keys: Vec<_> = service
        .partitions()
        .keys()
        .map(PartitionKey::as_str)
        .collect();
    assert_eq!(keys, ["b", "c"]);
    assert!(world.nodes[0].answers.values().all(done));
}

#[test]
fn a_list_too_large_for_one_entry_is_all_there_or_not_at_all() {
    let keys: Vec<String> = (0..20_000).map(|n| format!("partition-{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let large = |keys: &[&str]| {
        let named = |key: &&str| PartitionSpec {
            key: PartitionKey::new(key).unwrap(),
            data: Some(format!("{{\"url\":\"{key}\"}}")),
            weight: 1,
            labels: BTreeMap::new(),
            priority: 0,
        };
        Call::Partitions {
            service: service("s"),
            reading: Ok(keys.iter().map(named).collect()),
        }
    };
    let file = serde_json::json!({ "command": ["x"], "partitions": { "file": "/x.jsonl" } });
    let file = Call::Apply {
        services: vec![(service("s"), serde_json::from_value(file).unwrap())],
    };

    let mut world = World::led();
    world.ask(file.clone());
    world.append = Append::Held;
    let id = world.ask_later(0, large(&keys));
    let other = world.ask_later(0, register("a", 1, "secret"));
    world.run(0);
    let mut parts = 0;
    while !world.nodes[0].held.is_empty() {
        assert_eq!(world.cluster().partition_count(), 0);
        assert!(!world.nodes[0].answers.contains_key(&id));
        parts += 1;
        let order = world.held(0);
        let Effect::Append { append, .. } = order else {
            panic!()
        };
        let outcome = world.land(&order);
        world.tell(0, Event::AppendAnswered { append, outcome });
    }
    assert!(parts > 3, "{parts}");
    assert_eq!(world.cluster().partition_count(), keys.len());
    assert!(done(&world.nodes[0].answers[&id]));
    assert!(matches!(
        world.nodes[0].answers[&other],
        Answer::Opened { .. }
    ));

    // Deposed in the middle: nothing of it remains.
    let mut world = World::new(2);
    world.lead(0);
    world.ask(file);
    world.append = Append::Held;
    let id = world.ask_later(0, large(&keys));
    world.run(0);
    let order = world.held(0);
    world.land(&order);
    world.append = Append::Works;
    world.lead(1);
    world.hint(0, Some(false));
    assert_eq!(world.nodes[0].answers[&id], Answer::Unknown);
    assert_eq!(world.cluster().partition_count(), 0);
    assert!(world.nodes[0].director.cluster() == world.nodes[1].director.cluster());
}

#[test]
fn a_reading_that_loses_too_much_is_refused_once_and_everything_stays() {
    let mut world = World::led();
    let file = serde_json::json!({ "command": ["x"], "partitions": { "file": "/x.jsonl" } });
    world.ask(Call::Apply {
        services: vec![(service("s"), serde_json::from_value(file).unwrap())],
    });
    let reading = |count: usize| Call::Partitions {
        service: service("s"),
        reading: Ok((0..count)
            .map(|n| PartitionSpec {
                key: PartitionKey::new(&format!("p{n}")).unwrap(),
                data: None,
                weight: 1,
                labels: BTreeMap::new(),
                priority: 0,
            })
            .collect()),
    };
    let problem = |world: &World| {
        let known = world.cluster().service(&service("s")).unwrap();
        known.problem().map(str::to_owned)
    };
    assert!(done(&world.ask(reading(10))));
    assert!(done(&world.ask(reading(8))), "a fifth may go");
    let written = world.ledger.len();
    for _ in 0..3 {
        let answer = world.ask(reading(4));
        assert!(
            matches!(answer, Answer::Refused(Refusal::Conflict(_))),
            "{answer:?}"
        );
    }
    assert_eq!(world.ledger.len(), written + 1, "told once");
    assert!(problem(&world).unwrap().contains("drop 4 of 8"));
    assert_eq!(world.cluster().partition_count(), 8);
    assert!(done(&world.ask(reading(9))));
    assert_eq!(problem(&world), None);
    assert!(!done(&world.ask(reading(0))));
    let unreadable = Call::Partitions {
        service: service("s"),
        reading: Err("line 3 is not JSON".to_owned()),
    };
    assert!(!done(&world.ask(unreadable)));
    assert_eq!(problem(&world).as_deref(), Some("line 3 is not JSON"));
    assert_eq!(world.cluster().partition_count(), 9);
}

#[test]
fn registering_again_with_the_same_secret_is_the_same_session() {
    let mut world = World::with_session(&[]);
    let written = world.ledger.len();
    let again = world.ask(register("a", 1, "secret"));
    let Answer::Opened {
        session,
        incarnation,
        ..
    } = again
    else {
        panic!("{again:?}")
    };
    assert_eq!((session, incarnation), (SessionId(1), Incarnation(1)));
    assert_eq!(world.ledger.len(), written);
    // Twice in one entry.
    world.append = Append::Held;
    let first = world.ask_later(0, register("b", 2, "other"));
    world.run(0);
    let order = world.held(0);
    let second = world.ask_later(0, register("c", 3, "third"));
    let third = world.ask_later(0, register("c", 3, "third"));
    let Effect::Append { append, .. } = order else {
        panic!()
    };
    let outcome = world.land(&order);
    world.append = Append::Works;
    world.tell(0, Event::AppendAnswered { append, outcome });
    let answers = &world.nodes[0].answers;
    assert_ne!(answers[&first], answers[&second]);
    assert_eq!(answers[&second], answers[&third]);
    let stranger = world.ask(register("a", 77, "fourth"));
    assert!(matches!(stranger, Answer::Refused(Refusal::Conflict(_))));
}

#[test]
fn a_claim_is_granted_after_its_commit_and_again_when_it_is_repeated() {
    let mut world = World::with_session(&["p"]);
    let (id, token) = world.assign("p");
    let granted = |sequence| Answer::Reported {
        sequence,
        assumed: vec![token],
        refused: Vec::new(),
    };
    assert_eq!(claim(&mut world, 1, id, token), granted(1));
    let written = world.ledger.len();
    assert_eq!(claim(&mut world, 1, id, token), granted(1));
    assert_eq!(claim(&mut world, 2, id, token), granted(2));
    assert_eq!(world.ledger.len(), written);
    let wrong = claim(&mut world, 3, id, Token(token.0 + 1));
    assert!(matches!(wrong, Answer::Reported { refused, .. } if refused.len() == 1));
}

#[test]
fn a_claim_that_meets_the_expiry_of_its_session_is_refused() {
    let mut world = World::with_session(&["p"]);
    let (id, token) = world.assign("p");
    world.append = Append::Held;
    world.pass(Duration::from_millis(11_223));
    let mut late = report(1);
    late.assume = vec![(id, token)];
    let call = world.ask_later(0, Call::Report(Box::new(late)));
    let order = world.held(0);
    let Effect::Append { append, .. } = order else {
        panic!()
    };
    let outcome = world.land(&order);
    world.append = Append::Works;
    world.tell(0, Event::AppendAnswered { append, outcome });
    assert!(matches!(
        world.nodes[0].answers[&call],
        Answer::Refused(Refusal::Fenced(_))
    ));
    assert!(matches!(state(&world, "p"), State::Unassigned(_)));
}

#[test]
fn an_agent_that_does_not_want_an_assignment_gives_it_back_unstarted() {
    let mut world = World::with_session(&["p"]);
    let (id, token) = world.assign("p");
    release(&mut world, 1, id, token);
    let partition = world.cluster().partition(id).unwrap();
    let reason = MoveReason::Unacknowledged;
    let from = Box::new(AgentName::new("a").unwrap());
    let freed = Freed::Taken { reason, from };
    assert_eq!(partition.freed(), Some(&freed));
}

#[test]
fn an_older_report_that_comes_late_does_not_undo_what_a_newer_one_saw() {
    let mut world = World::with_session(&["p"]);
    let (id, token) = world.assign("p");
    claim(&mut world, 1, id, token);
    let mut saw = |sequence, phase| {
        let mut seen = report(sequence);
        let run = RunReport {
            phase,
            attempt: 1,
            pid: None,
            exit: None,
        };
        seen.observed = vec![(id, token, run)];
        world.ask(Call::Report(Box::new(seen)));
        let run = world.cluster().partition(id).unwrap().run();
        run.unwrap().phase
    };
    assert_eq!(saw(3, RunPhase::Ready), RunPhase::Ready);
    assert_eq!(saw(2, RunPhase::Starting), RunPhase::Ready);
    assert_eq!(saw(4, RunPhase::Backoff), RunPhase::Backoff);
}

#[test]
fn what_no_entry_can_hold_is_refused_and_blocks_nobody() {
    let mut world = World::led();
    let mut huge = register("a", 1, "secret");
    if let Call::Register { agent, .. } = &mut huge {
        agent.version = "v".repeat(300 * 1024);
    }
    let refused = world.ask(huge);
    assert!(matches!(refused, Answer::Refused(Refusal::Conflict(_))));
    assert!(done(&world.ask(apply("s", &["p"]))));
}

#[test]
fn work_is_the_whole_at_first_and_then_what_changed() {
    let mut world = World::with_session(&["p", "q"]);
    let first = work(&world, Position(0)).unwrap();
    assert!(first.whole && first.items.is_empty());
    assert_eq!(work(&world, first.index), None);
    let (p, p_token) = world.assign("p");
    let (q, q_token) = world.assign("q");
    let delta = work(&world, first.index).unwrap();
    assert!(!delta.whole);
    assert_eq!(delta.items.len(), 2);
    assert_eq!(delta.services.len(), 1);
    assert!(
        delta
            .items
            .iter()
            .all(|item| item.state == WorkState::Assigned)
    );

    // The answer to the claim told it; the whole, which the next process of the agent asks for, holds it.
    claim(&mut world, 1, p, p_token);
    assert_eq!(work(&world, delta.index), None);
    let whole = work(&world, Position(0)).unwrap();
    let states: Vec<_> = whole.items.iter().map(|i| (i.token, i.state)).collect();
    assert_eq!(
        states,
        [
            (p_token, WorkState::Assumed),
            (q_token, WorkState::Assigned)
        ]
    );

    world.decree(vec![Record::Withdrawn {
        partition: q,
        token: q_token,
        reason: MoveReason::Balance,
    }]);
    let after = work(&world, delta.index).unwrap();
    assert_eq!(
        (after.items.len(), after.gone.as_slice()),
        (0, [q_token].as_slice())
    );

    world.ask(Call::Restart {
        service: service("s"),
        key: None,
    });
    let after = work(&world, after.index).unwrap();
    assert_eq!(after.items[0].restarts_asked, 1);
    world.ask(Call::SetDesired {
        service: service("s"),
        key: None,
        desired: Desired::Stopped,
    });
    let after = work(&world, after.index).unwrap();
    assert_eq!(after.items[0].state, WorkState::Stopping);
    release(&mut world, 2, p, p_token);
    let after = work(&world, after.index).unwrap();
    assert_eq!(after.gone, [p_token]);
    assert_eq!(work(&world, after.index), None);
    // A director that has folded less than the one asked before must not call the rest ended.
    assert_eq!(work(&world, Position(10_000)), None);
}

#[test]
fn what_runs_or_is_stopped_already_is_not_written_again() {
    let mut world = World::with_session(&["p", "q"]);
    let p = Some(PartitionKey::new("p").unwrap());
    let set = |key: &Option<PartitionKey>, desired| Call::SetDesired {
        service: service("s"),
        key: key.clone(),
        desired,
    };
    let changed = |answer: &Answer| {
        let Answer::Done { changed, .. } = answer else {
            panic!("{answer:?}")
        };
        *changed
    };
    for key in [&p, &None] {
        let before = world.cluster().position();
        assert!(!changed(&world.ask(set(key, Desired::Running))));
        assert_eq!(world.cluster().position(), before);
        assert!(changed(&world.ask(set(key, Desired::Stopped))));
        let before = world.cluster().position();
        assert!(!changed(&world.ask(set(key, Desired::Stopped))));
        assert_eq!(world.cluster().position(), before);
        assert!(changed(&world.ask(set(key, Desired::Running))));
    }
    // What has failed runs again, though it was to run all the time.
    let (id, token) = world.assign("p");
    claim(&mut world, 1, id, token);
    let mut given_up = report(2);
    given_up.release = vec![Release {
        partition: id,
        token,
        outcome: ReleaseOutcome::Failed,
        exit: None,
        failures: 1,
    }];
    world.ask(Call::Report(Box::new(given_up)));
    assert!(changed(&world.ask(set(&p, Desired::Running))));
    // Of two that come at once the later one counts, whatever was so before.
    let stop = world.ask_later(0, set(&p, Desired::Stopped));
    let start = world.ask_later(0, set(&p, Desired::Running));
    world.run(0);
    for call in [stop, start] {
        assert!(changed(&world.nodes[0].answers[&call]));
    }
    let partition = world.cluster().partition(id).unwrap();
    assert_eq!(partition.desired(), Desired::Running);
}

#[test]
fn what_is_stopped_is_not_restarted_and_the_person_hears_what_starts_it() {
    let mut world = World::with_session(&["p", "q"]);
    let p = Some(PartitionKey::new("p").unwrap());
    let stop = |key| Call::SetDesired {
        service: service("s"),
        key,
        desired: Desired::Stopped,
    };
    let restart = |world: &mut World, key| {
        let service = service("s");
        let Answer::Done { notes, changed, .. } = world.ask(Call::Restart { service, key }) else {
            panic!()
        };
        (notes, changed)
    };
    assert_eq!(restart(&mut world, p.clone()), (Vec::new(), true));
    world.ask(stop(p.clone()));
    let (notes, changed) = restart(&mut world, p.clone());
    assert_eq!(notes, ["s/p is stopped; `quorate start s/p` starts it"]);
    assert!(!changed);
    let (notes, changed) = restart(&mut world, None);
    assert!(changed, "the other one runs");
    assert!(notes[0].starts_with("1 partition was stopped by its key"));
    world.ask(stop(None));
    for key in [p, None] {
        let (notes, changed) = restart(&mut world, key);
        assert!(notes[0].contains("`quorate start s`"), "{notes:?}");
        assert!(!changed);
    }
}

#[test]
fn closing_twice_is_done_twice_and_calls_about_nothing_are_refused() {
    let mut world = World::with_session(&["p"]);
    let close = Call::Close {
        session: SessionId(1),
        incarnation: Some(Incarnation(1)),
        reason: CloseReason::Left,
    };
    assert!(done(&world.ask(close.clone())));
    assert!(done(&world.ask(close)));
    let nothing = [
        Call::Remove {
            services: vec![service("s"), service("t")],
        },
        Call::Restart {
            service: service("s"),
            key: Some(PartitionKey::new("x").unwrap()),
        },
        Call::SetAgent {
            agent: AgentName::new("x").unwrap(),
            schedulable: crate::record::Schedulable::Draining,
        },
    ];
    for call in nothing {
        let answer = world.ask(call);
        assert!(
            matches!(answer, Answer::Refused(Refusal::NotFound { .. })),
            "{answer:?}"
        );
    }
    let resume = Call::Resume {
        session: SessionId(1),
        process: 1,
    };
    assert!(matches!(
        world.ask(resume),
        Answer::Refused(Refusal::Fenced(_))
    ));
}

fn remove(names: &[&str]) -> Call {
    Call::Remove {
        services: names.iter().map(|name| service(name)).collect(),
    }
}

#[test]
fn several_services_are_removed_by_one_entry_or_none_of_them() {
    let mut world = World::led();
    for name in ["a", "b", "c"] {
        world.ask(apply(name, &["p"]));
    }
    let written = world.ledger.len();
    let answer = world.ask(remove(&["a", "x", "b"]));
    let Answer::Refused(Refusal::NotFound { what, name }) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!((what, name.as_str()), ("service", "x"));
    assert_eq!(
        (world.ledger.len(), world.cluster().services().count()),
        (written, 3)
    );
    assert!(done(&world.ask(remove(&["a", "c", "a"]))));
    assert_eq!(world.ledger.len(), written + 1);
    let left: Vec<_> = world
        .cluster()
        .services()
        .map(|(_, s)| s.name().clone())
        .collect();
    assert_eq!(left, [service("b")]);
}

#[test]
fn what_fits_one_entry_is_never_spread_over_two() {
    let mut world = World::led();
    world.append = Append::Held;
    // The first goes out alone; the others gather behind it and fill more than one entry.
    world.ask_later(0, apply("first", &["p"]));
    world.run(0);
    let keys: Vec<String> = (0..1_200).map(|n| format!("partition-{n:04}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let services = ["a", "b"].map(|name| {
        let spec = serde_json::json!({ "command": ["x"], "partitions": { "list": keys } });
        (service(name), serde_json::from_value(spec).unwrap())
    });
    for agent in 1..=7 {
        let Call::Register {
            mut agent,
            lease,
            secret_hash,
            process,
        } = register(&format!("a{agent}"), agent, &format!("secret {agent}"))
        else {
            panic!()
        };
        agent.version = "v".repeat(20_000);
        world.ask_later(
            0,
            Call::Register {
                agent,
                lease,
                secret_hash,
                process,
            },
        );
    }
    let id = world.ask_later(
        0,
        Call::Apply {
            services: services.to_vec(),
        },
    );
    world.run(0);
    let mut entries = 0;
    while !world.nodes[0].held.is_empty() {
        let order = world.held(0);
        let Effect::Append { append, .. } = order else {
            panic!()
        };
        let outcome = world.land(&order);
        world.tell(0, Event::AppendAnswered { append, outcome });
        let there = |name| world.cluster().service(&service(name)).is_some();
        assert_eq!(there("a"), there("b"), "half of it after {entries} entries");
        entries += 1;
    }
    assert_eq!(
        entries, 3,
        "the first, the sessions, and then the two services"
    );
    assert!(done(&world.nodes[0].answers[&id]));
}

#[test]
fn an_apply_tells_what_became_of_each_service() {
    let mut world = World::with_session(&["a", "b"]);
    let two = |s: &[&str], t: &[&str]| {
        let mut both = Vec::new();
        for call in [apply("s", s), apply("t", t)] {
            let Call::Apply { services } = call else {
                panic!()
            };
            both.extend(services);
        }
        Call::Apply { services: both }
    };
    let became = |answer: &Answer| {
        let Answer::Done { applied, .. } = answer else {
            panic!("{answer:?}")
        };
        applied.iter().map(|(_, a)| *a).collect::<Vec<_>>()
    };
    let first = world.ask(two(&["a", "b"], &["x"]));
    assert_eq!(became(&first), [Applied::Unchanged, Applied::Created]);
    let written = world.ledger.len();
    let same = world.ask(two(&["a", "b"], &["x"]));
    assert_eq!(became(&same), [Applied::Unchanged, Applied::Unchanged]);
    assert_eq!(world.ledger.len(), written);
    let other = world.ask(two(&["a", "b", "c"], &["x"]));
    assert_eq!(became(&other), [Applied::Changed, Applied::Unchanged]);
    // Removed, and not gone yet: what comes back is new.
    let (a, token) = world.assign("a");
    claim(&mut world, 1, a, token);
    world.ask(remove(&["s"]));
    assert!(world.cluster().service_id(&service("s")).is_some());
    let back = world.ask(two(&["a", "b"], &["x"]));
    assert_eq!(became(&back), [Applied::Created, Applied::Unchanged]);
}

#[test]
fn a_lease_that_would_not_survive_a_change_of_leader_is_refused_with_the_shortest_allowed() {
    let mut world = World::led();
    // A ledger over which a change of leader takes longer than over the embedded one.
    world.nodes[0].director.config.takeover = Duration::from_secs(3);
    let with = |lease: &str| {
        let spec = serde_json::json!({ "command": ["x"], "lease": lease });
        Call::Apply {
            services: vec![(service("s"), serde_json::from_value(spec).unwrap())],
        }
    };
    let written = world.ledger.len();
    let answer = world.ask(with("3s"));
    let Answer::Refused(Refusal::Invalid(problem)) = &answer else {
        panic!("{answer:?}")
    };
    assert_eq!(
        problem.to_string(),
        "service.s.lease: 3s is too short: a mere change of leader would stop the work; write 8s200ms or more"
    );
    let mut session = register("a", 1, "secret");
    if let Call::Register { lease, .. } = &mut session {
        *lease = LeaseTimes::of(Duration::from_secs(3));
    }
    let answer = world.ask(session);
    let Answer::Refused(refusal) = answer else {
        panic!("{answer:?}")
    };
    assert!(refusal.to_string().starts_with("lease_ms: 3s is too short"));
    assert_eq!(world.ledger.len(), written);
    assert!(done(&world.ask(with("8s200ms"))));
}

#[test]
fn all_files_together_have_no_more_leases_than_one_may() {
    let mut world = World::led();
    let mut put = |name: &str, lease: &str| {
        let spec = serde_json::json!({ "command": ["x"], "lease": lease });
        world.ask(Call::Apply {
            services: vec![(service(name), serde_json::from_value(spec).unwrap())],
        })
    };
    for (name, lease) in [("a", "10s"), ("b", "20s"), ("c", "30s"), ("d", "40s")] {
        assert!(matches!(put(name, lease), Answer::Done { .. }));
    }
    let answer = put("e", "50s");
    let Answer::Refused(Refusal::Invalid(problem)) = &answer else {
        panic!("{answer:?}")
    };
    assert!(
        problem
            .message
            .contains("5 different leases: 10s, 20s, 30s, 40s, 50s")
    );
    for (name, lease) in [("e", "40s"), ("d", "50s")] {
        let answer = put(name, lease);
        let last = name == "d";
        assert_eq!(
            matches!(answer, Answer::Done { .. }),
            !last,
            "{name}: {answer:?}"
        );
    }
    assert!(matches!(put("e", "10s"), Answer::Done { .. }));
    assert!(
        matches!(put("d", "50s"), Answer::Done { .. }),
        "40s is free again"
    );
}
