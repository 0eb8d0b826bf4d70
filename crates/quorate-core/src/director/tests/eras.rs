//! Directors of a restored cluster (S1, S3, R6, R16).

use super::*;
use crate::cluster::{LOST, NewEra};
use crate::ids::Era;

const X: Duration = Duration::from_millis(11_223);
const MOMENT: Duration = Duration::from_millis(2);

fn restored(world: &World) -> World {
    world.restored(NewEra {
        history: 7,
        ..NewEra::default()
    })
}

fn assigned(world: &World) -> Vec<Token> {
    let records = world.records().into_iter();
    let tokens = records.filter_map(|record| {
        let Record::Assigned { token, .. } = record else {
            return None;
        };
        Some(token)
    });
    tokens.collect()
}

fn with_work() -> World {
    let mut world = World::with_session(&["p"]);
    world.assign("p");
    world
}

fn register_anew(world: &mut World) -> (SessionId, Incarnation) {
    let answer = world.ask(register("a", 1, "another secret"));
    let Answer::Opened {
        session,
        incarnation,
        ..
    } = answer
    else {
        panic!("{answer:?}")
    };
    (session, incarnation)
}

fn renew_anew(world: &mut World, (session, incarnation): (SessionId, Incarnation), counter: u64) {
    let id = world.renew_later(
        0,
        Renewal {
            sessions: vec![session],
            incarnation,
            ..renewal(counter)
        },
    );
    world.run(0);
    let RenewalAnswer::Answered { renewed, .. } = &world.nodes[0].renewals[&id] else {
        panic!("it leads")
    };
    assert_eq!(*renewed, [session]);
}

#[test]
fn nothing_is_given_away_before_every_lease_of_before_is_over() {
    let mut world = restored(&with_work());
    let session = register_anew(&mut world);
    for counter in 1..=5 {
        world.pass((X - MOMENT / 2) / 5);
        renew_anew(&mut world, session, counter);
    }
    assert_eq!(assigned(&world), []);
    world.pass(MOMENT);
    let expired = Record::SessionExpired { session: LOST };
    assert!(world.records().contains(&expired), "{:?}", world.records());
    world.pass(Duration::from_secs(1));
    let tokens = assigned(&world);
    assert!(
        tokens.iter().all(|token| token.era() == Era(1)) && tokens.len() == 1,
        "{tokens:?}"
    );
    assert_eq!(world.cluster().lost(), None);
}

#[test]
fn a_longer_lease_that_a_person_knows_of_is_waited_for() {
    let before = with_work();
    let hour = Duration::from_secs(3600);
    let mut world = before.restored(NewEra {
        longest_lease: hour,
        ..NewEra::default()
    });
    world.pass(hour);
    assert!(world.cluster().lost().is_some());
    // Leaders record in eighths how long they have waited, so a new one does not begin at nothing.
    world.lead_again();
    world.pass(hour / 7);
    assert_eq!(world.cluster().lost(), None);
}

#[test]
fn a_leader_that_comes_in_between_waits_anew() {
    let mut world = restored(&with_work());
    world.pass(X - MOMENT);
    world.lead_again();
    world.pass(X - MOMENT);
    assert!(world.cluster().lost().is_some());
    world.pass(MOMENT * 2);
    assert_eq!(world.cluster().lost(), None);
}

#[test]
fn sessions_of_before_are_over_for_whoever_speaks_for_them() {
    let before = with_work();
    let token = assigned(&before)[0];
    let mut world = restored(&before);
    let RenewalAnswer::Answered { renewed, lost } = world.renew(1) else {
        panic!("it leads")
    };
    assert!(
        renewed.is_empty() && lost[0].1.contains("restored"),
        "{lost:?}"
    );
    let over = |answer: Answer| answer == Answer::Refused(super::super::calls::over());
    // A claim of what was assigned before: since then it may have been taken back and given to another.
    let claim = Report {
        assume: vec![(world.id("p"), token)],
        ..report(1)
    };
    assert!(over(world.ask(Call::Report(Box::new(claim)))));
    assert!(over(world.ask(Call::Resume {
        session: SessionId(1),
        process: 9,
    })));
    assert!(over(world.ask(register("a", 1, "secret"))));
    let work = world.nodes[0].director.work(SessionId(1), Position(0));
    assert_eq!(work, None);
}

#[test]
fn a_proof_of_death_counts_and_frees_nothing_before_its_time() {
    let mut world = restored(&with_work());
    let answer = world.ask(Call::Close {
        session: SessionId(1),
        incarnation: Some(Incarnation(1)),
        reason: crate::record::CloseReason::WardenDied,
    });
    assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
    assert!(world.cluster().session(SessionId(1)).is_none());
    register_anew(&mut world);
    world.pass(Duration::from_secs(5));
    assert_eq!(assigned(&world), [], "another session may hold it");
}
