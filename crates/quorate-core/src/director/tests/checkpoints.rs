//! Checkpoints: one entry for many, nothing for a repeat, nothing for a stale owner, and the next owner
//! finds the last one.

use super::super::call::{Checkpoints, Refusal, Release, Written};
use super::*;
use crate::checkpoint::Content;
use crate::record::ReleaseOutcome;

fn content(text: &str) -> Content {
    Content::new(text.as_bytes()).unwrap()
}

fn of_session(given: &[(PartitionId, Token, u64, &str)]) -> Call {
    let given = given.iter();
    Call::Checkpoints(Checkpoints {
        session: SessionId(1),
        incarnation: Incarnation(1),
        given: given
            .map(|&(partition, token, number, text)| Written {
                partition,
                token,
                number,
                content: content(text),
            })
            .collect(),
    })
}

fn direct(token: Token, text: &str) -> Call {
    Call::PutCheckpoint {
        service: service("s"),
        key: PartitionKey::new("p").unwrap(),
        token,
        number: None,
        content: content(text),
    }
}

fn kept(tokens: &[Token]) -> Answer {
    Answer::Checkpoints {
        kept: tokens.to_vec(),
        refused: Vec::new(),
    }
}

fn refused(answer: &Answer) -> Vec<Token> {
    let Answer::Checkpoints { kept, refused } = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(kept, &[]);
    refused.iter().map(|(token, _)| *token).collect()
}

fn fenced(answer: &Answer) -> bool {
    matches!(answer, Answer::Refused(Refusal::Fenced(_)))
}

/// Agent `a` has assumed these.
fn holding(keys: &[&str]) -> (World, Vec<(PartitionId, Token)>) {
    let mut world = World::with_session(keys);
    let held: Vec<_> = keys.iter().map(|key| world.assign(key)).collect();
    let mut claim = report(1);
    claim.assume.clone_from(&held);
    world.ask(Call::Report(Box::new(claim)));
    (world, held)
}

fn text_of(world: &World, id: PartitionId) -> Option<String> {
    let partition = world.cluster().partition(id).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    partition.checkpoint().map(|c| text(c.content.as_bytes()))
}

#[test]
fn many_are_one_entry_and_a_repeat_is_none() {
    let keys: Vec<String> = (0..500).map(|n| format!("p{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let (mut world, held) = holding(&keys);
    let written = world.ledger.len();
    let given: Vec<_> = held
        .iter()
        .map(|&(p, t)| (p, t, 1, "offset 4711"))
        .collect();
    let tokens: Vec<Token> = held.iter().map(|&(_, token)| token).collect();
    assert_eq!(world.ask(of_session(&given)), kept(&tokens));
    assert_eq!(world.ledger.len(), written + 1);
    assert_eq!(world.ask(of_session(&given)), kept(&tokens));
    assert_eq!(world.ledger.len(), written + 1, "a repeat");
}

#[test]
fn what_is_larger_than_an_entry_is_written_in_several_and_answered_once() {
    let keys: Vec<String> = (0..40).map(|n| format!("p{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let (mut world, held) = holding(&keys);
    let large = "x".repeat(Content::MAX);
    let given: Vec<_> = held.iter().map(|&(p, t)| (p, t, 1, &*large)).collect();
    let tokens: Vec<Token> = held.iter().map(|&(_, token)| token).collect();
    let written = world.ledger.len();
    assert_eq!(world.ask(of_session(&given)), kept(&tokens));
    assert!(world.ledger.len() > written + 2);
    assert!(held.iter().all(|&(id, _)| text_of(&world, id).is_some()));
}

#[test]
fn an_older_one_that_comes_late_changes_nothing_and_counts_as_kept() {
    let (mut world, held) = holding(&["p"]);
    let (p, token) = held[0];
    world.ask(of_session(&[(p, token, 2, "newer")]));
    let late = world.ask(of_session(&[(p, token, 1, "older")]));
    assert_eq!(late, kept(&[token]));
    assert_eq!(text_of(&world, p).as_deref(), Some("newer"));
}

#[test]
fn a_stale_owner_is_refused_by_either_way_and_the_next_one_finds_the_last() {
    let (mut world, held) = holding(&["p"]);
    let (p, first) = held[0];
    world.ask(of_session(&[(p, first, 1, "last")]));
    let mut given_back = report(2);
    given_back.release = vec![Release {
        partition: p,
        token: first,
        outcome: ReleaseOutcome::Stopped,
        exit: None,
        failures: 0,
    }];
    world.ask(Call::Report(Box::new(given_back)));
    let index = world.cluster().position();
    let late = world.ask(of_session(&[(p, first, 2, "too late")]));
    assert_eq!(refused(&late), [first]);
    let (_, second) = world.assign("p");
    let work = world.nodes[0].director.work(SessionId(1), index).unwrap();
    let found = work.items[0].checkpoint.as_ref().unwrap();
    assert_eq!(
        (found.token, found.content.clone()),
        (first, content("last"))
    );

    let early = world.ask(of_session(&[(p, second, 1, "too early")]));
    assert_eq!(refused(&early), [second]);
    let other = world.ask(of_session(&[(PartitionId(77), first, 1, "of nothing")]));
    assert_eq!(refused(&other), [first]);
    assert!(fenced(&world.ask(direct(first, "stale"))));
    assert!(fenced(&world.ask(direct(second, "early"))));
    assert_eq!(text_of(&world, p).as_deref(), Some("last"));
}

#[test]
fn a_session_or_process_that_is_over_writes_nothing() {
    let (mut world, held) = holding(&["p"]);
    let (p, token) = held[0];
    let mut call = |session, incarnation| {
        let Call::Checkpoints(mut of) = of_session(&[(p, token, 1, "x")]) else {
            unreachable!()
        };
        (of.session, of.incarnation) = (session, incarnation);
        world.ask(Call::Checkpoints(of))
    };
    assert!(fenced(&call(SessionId(9), Incarnation(1))));
    assert!(fenced(&call(SessionId(1), Incarnation(7))));
    assert_eq!(text_of(&world, p), None);
    // Another agent's session does not speak for this partition.
    world.ask(register("b", 2, "other"));
    let Call::Checkpoints(mut of) = of_session(&[(p, token, 1, "x")]) else {
        unreachable!()
    };
    (of.session, of.incarnation) = (SessionId(2), Incarnation(2));
    let answer = world.ask(Call::Checkpoints(of));
    assert_eq!(refused(&answer), [token]);
}

#[test]
fn an_owner_may_speak_for_itself_and_its_agent_is_told() {
    let (mut world, held) = holding(&["p"]);
    let (p, token) = held[0];
    world.ask(of_session(&[(p, token, 40, "through the agent")]));
    let index = world.cluster().position();
    assert_eq!(world.nodes[0].director.work(SessionId(1), index), None);
    for text in ["one", "two"] {
        let answer = world.ask(direct(token, text));
        assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
    }
    let work = world.nodes[0].director.work(SessionId(1), index).unwrap();
    let told = work.items[0].checkpoint.as_ref().unwrap();
    assert_eq!((told.number, told.content.clone()), (42, content("two")));
    let nothing = Call::PutCheckpoint {
        service: service("s"),
        key: PartitionKey::new("missing").unwrap(),
        token,
        number: None,
        content: content("x"),
    };
    let answer = world.ask(nothing);
    assert!(matches!(answer, Answer::Refused(Refusal::NotFound { .. })));
}

#[test]
fn one_that_comes_late_replaces_nothing_newer_when_the_owner_counts() {
    let (mut world, held) = holding(&["p"]);
    let (p, token) = held[0];
    let mut put = |number, text: &str| {
        world.ask(Call::PutCheckpoint {
            service: service("s"),
            key: PartitionKey::new("p").unwrap(),
            token,
            number: Some(number),
            content: content(text),
        })
    };
    let done = |answer: &Answer| matches!(answer, Answer::Done { .. });
    assert!(done(&put(10, "ten")));
    assert!(done(&put(20, "twenty")));
    let late = put(10, "ten");
    assert!(
        matches!(&late, Answer::Refused(Refusal::Conflict(why)) if why.contains("number 20")),
        "{late:?}"
    );
    assert!(done(&put(20, "twenty")), "its answer was lost");
    let other = put(20, "other");
    assert!(matches!(other, Answer::Refused(Refusal::Conflict(_))));
    assert_eq!(text_of(&world, p).as_deref(), Some("twenty"));
    // Who does not count goes on from there.
    assert!(done(&world.ask(direct(token, "next"))));
    let partition = world.cluster().partition(p).unwrap();
    assert_eq!(partition.checkpoint().unwrap().number, 21);
}

#[test]
fn two_that_an_owner_sends_at_once_are_not_both_called_the_last() {
    let (mut world, held) = holding(&["p"]);
    let (p, token) = held[0];
    // Both are decided before either is folded.
    world.append = Append::Held;
    let blocker = world.ask_later(0, register("b", 2, "other"));
    let first = world.ask_later(0, direct(token, "one"));
    let second = world.ask_later(0, direct(token, "two"));
    world.run(0);
    world.append = Append::Works;
    let order = world.held(0);
    let Effect::Append { append, .. } = order else {
        panic!()
    };
    let outcome = world.land(&order);
    world.tell(0, Event::AppendAnswered { append, outcome });
    let answers = &world.nodes[0].answers;
    assert!(matches!(answers[&blocker], Answer::Opened { .. }));
    assert!(matches!(answers[&first], Answer::Done { .. }));
    assert!(matches!(
        answers[&second],
        Answer::Refused(Refusal::Conflict(_))
    ));
    assert_eq!(text_of(&world, p).as_deref(), Some("one"));
}
