//! Every event in every role.

use std::collections::BTreeSet;

use super::*;

/// A director in each role; a candidate and a leader with an append that is not answered yet, and without.
fn roles() -> Vec<(&'static str, World)> {
    let follower = World::new(1);
    let mut candidate = World::new(1);
    candidate.append = Append::Held;
    candidate.hint(0, Some(true));
    let mut behind = World::new(1);
    let occupied = Position(1);
    behind.step(
        0,
        Event::Hint {
            should_lead: Some(true),
            occupied,
        },
    );
    let mut leader = World::led();
    leader.append = Append::Held;
    leader.proofs_held = true;
    leader.ask_later(0, apply("s", &["p"]));
    leader.run(0);
    leader.renew_later(0, renewal(1));
    leader.run(0);
    let mut halted = World::led();
    reads(&mut halted);
    let from = halted.tail().0;
    let outcome = ReadOutcome::Entries(vec![b"no entry".to_vec()]);
    halted.step(0, Event::ReadAnswered { from, outcome });
    vec![
        ("follower", follower),
        ("candidate", candidate),
        // It has to read before it may stand.
        ("candidate behind", behind),
        ("leader", leader),
        ("leader at rest", World::led()),
        ("halted", halted),
    ]
}

/// Makes a director read: the ledger tells of a position behind those that it knows.
fn reads(world: &mut World) {
    let (next, _) = world.tail();
    let hint = Event::Hint {
        should_lead: None,
        occupied: next,
    };
    world.step(0, hint);
}

/// The entry of another director's election, behind everything that is there.
fn election_of_another(world: &World) -> Vec<u8> {
    let cluster = world.cluster();
    let header = crate::record::Header {
        format: crate::format::Format::FIRST,
        epoch: cluster.epoch().next(),
        batch: crate::ids::BatchId::default(),
        predecessor: cluster.last_hash(),
        wall: WallTime(0),
    };
    let elected = Record::Elected {
        name: DirectorName::new("another").unwrap(),
        id: 99,
        address: String::new(),
        format: crate::format::Format::FIRST,
    };
    Entry {
        header,
        records: vec![elected],
    }
    .encode()
}

/// The snapshot of a director that has folded one more entry than anybody here: another's election.
fn newer_snapshot(world: &World) -> Event {
    let mut cluster = world.cluster().clone();
    cluster.fold(&election_of_another(world)).unwrap();
    let next = cluster.position().next();
    let bytes = cluster.encode();
    Event::Reset { next, bytes }
}

/// The place of an event's variant among all. A new one does not compile here before it has its place, and
/// then the table wants a row of it.
const fn variant(event: &Event) -> usize {
    match event {
        Event::Hint { .. } => 0,
        Event::ReadAnswered { .. } => 1,
        Event::Reset { .. } => 2,
        Event::AppendAnswered { .. } => 3,
        Event::TailAnswered { .. } => 4,
        Event::Asked { .. } => 5,
        Event::Renewed { .. } => 6,
        Event::Fenced { .. } => 7,
        Event::Woke => 8,
    }
}

fn events(world: &World) -> Vec<(&'static str, Event)> {
    let (next, epoch) = world.tail();
    let hint = |should_lead| Event::Hint {
        should_lead,
        occupied: Position(next.0.saturating_sub(1)),
    };
    let read = |outcome| Event::ReadAnswered {
        from: next,
        outcome,
    };
    let held = || world.nodes[0].held.iter();
    let waited = held().find_map(|order| {
        let Effect::Append { append, .. } = order else {
            return None;
        };
        Some(*append)
    });
    let append = waited.unwrap_or(super::super::event::AppendId(77));
    let answered = |outcome| Event::AppendAnswered { append, outcome };
    let asked = held().find_map(|order| {
        let Effect::ProveTail { proof } = order else {
            return None;
        };
        Some(*proof)
    });
    let proof = asked.unwrap_or(super::super::event::ProofId(77));
    let proven = |tail| Event::TailAnswered { proof, tail };
    vec![
        ("hint: lead", hint(Some(true))),
        ("hint: follow", hint(Some(false))),
        ("hint: not known", hint(None)),
        ("read: nothing new", read(ReadOutcome::Entries(Vec::new()))),
        (
            "read: another is elected",
            read(ReadOutcome::Entries(vec![election_of_another(world)])),
        ),
        (
            "read: no entry of ours",
            read(ReadOutcome::Entries(vec![b"?".to_vec()])),
        ),
        ("read: too old", read(ReadOutcome::Trimmed)),
        ("read: failed", read(ReadOutcome::Failed)),
        ("reset: newer", newer_snapshot(world)),
        (
            "reset: older",
            Event::Reset {
                next: world.cluster().position().next(),
                bytes: world.cluster().encode(),
            },
        ),
        (
            "reset: no snapshot of ours",
            Event::Reset {
                next: next.next(),
                bytes: b"?".to_vec(),
            },
        ),
        ("append: appended", answered(AppendOutcome::Appended)),
        (
            "append: position taken",
            answered(AppendOutcome::PositionTaken),
        ),
        ("append: refused", answered(AppendOutcome::Refused)),
        ("append: unknown", answered(AppendOutcome::Unknown)),
        ("tail: own epoch", proven(Some((next, epoch)))),
        ("tail: a later epoch", proven(Some((next, epoch.next())))),
        ("tail: not known", proven(None)),
        (
            "asked",
            Event::Asked {
                id: CallId(900),
                call: apply("t", &["q"]),
            },
        ),
        (
            "renewed",
            Event::Renewed {
                id: CallId(901),
                renewal: renewal(9),
            },
        ),
        (
            "fenced",
            Event::Fenced {
                session: SessionId(1),
                hook: HookName::new("hook").unwrap(),
                problem: None,
            },
        ),
        ("woke", Event::Woke),
    ]
}

fn order(effect: &Effect) -> String {
    match effect {
        Effect::Append { .. } => "append".to_owned(),
        Effect::ProveTail { .. } => "prove".to_owned(),
        Effect::Read { .. } => "read".to_owned(),
        Effect::LoadSnapshot => "load snapshot".to_owned(),
        Effect::SaveSnapshot { .. } => "save snapshot".to_owned(),
        Effect::Answer { answer, .. } => format!("answer {}", kind(&format!("{answer:?}"))),
        Effect::AnswerRenewal { answer, .. } => {
            format!("answer renewal {}", kind(&format!("{answer:?}")))
        }
        Effect::WakeAt(_) => "wake".to_owned(),
        Effect::Fence { .. } => "fence".to_owned(),
        Effect::Changed { .. } => "tell changes".to_owned(),
        Effect::Replaced { .. } => "tell another state".to_owned(),
        Effect::Halt { .. } => "halt".to_owned(),
    }
}

/// The variant in front of its fields.
fn kind(text: &str) -> &str {
    text.split([' ', '(', '{']).next().unwrap_or_default()
}

fn role(world: &World) -> String {
    kind(&format!("{:?}", world.nodes[0].director.role())).to_lowercase()
}

#[test]
fn no_event_is_left_out_of_the_table() {
    let all = events(&World::new(1)).into_iter();
    let all: BTreeSet<usize> = all.map(|(_, event)| variant(&event)).collect();
    assert_eq!(all, BTreeSet::from_iter(0..=variant(&Event::Woke)));
}

#[test]
fn every_event_in_every_role_does_as_documented() {
    let mut table = String::new();
    let count = events(&World::new(1)).len();
    for (from, _) in roles() {
        for at in 0..count {
            let fresh = roles().into_iter().find(|(name, _)| *name == from);
            let (_, mut world) = fresh.unwrap();
            assert!(from.starts_with(&role(&world)), "{from}");
            reads(&mut world);
            world.nodes[0].orders.clear();
            let (what, event) = events(&world).swap_remove(at);
            world.step(0, event);
            let orders: Vec<String> = world.nodes[0].orders.iter().map(order).collect();
            table.push_str(&format!(
                "{from} · {what} → {} [{}]\n",
                role(&world),
                orders.join(", ")
            ));
        }
    }
    insta::assert_snapshot!(table);
}
