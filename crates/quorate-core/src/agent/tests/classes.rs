//! For which lease classes an agent has sessions, and for how long.

use super::*;

const OTHER: Duration = Duration::from_secs(30);

fn classes(leases: &[u64]) -> Event {
    Event::Classes(leases.iter().copied().map(Duration::from_secs).collect())
}

fn spawned(effects: &[Effect]) -> Vec<(WardenId, Duration)> {
    let spawn = |effect: &Effect| {
        if let Effect::SpawnWarden { warden, lease } = effect {
            return Some((*warden, *lease));
        }
        None
    };
    effects.iter().filter_map(spawn).collect()
}

/// A session of the other class that is open and holds nothing, beside the one of the first class.
fn agent_with_both() -> (Agent, WardenId) {
    let mut agent = agent_in(Phase::Live);
    let effects = take(&mut agent, NOW, classes(&[30]));
    let [(warden, OTHER)] = spawned(&effects)[..] else {
        panic!("{effects:?}")
    };
    take(&mut agent, NOW, Event::Spawned { warden });
    let opened = Opened {
        session: SessionId(6),
        times: LeaseTimes::of(OTHER),
        ..opened()
    };
    take(&mut agent, NOW, Event::Opened { warden, opened });
    renew(&mut agent, NOW, warden);
    (agent, warden)
}

fn renew(agent: &mut Agent, sent: Moment, warden: WardenId) -> Vec<Effect> {
    take(agent, sent, Event::Renewed { warden, sent })
}

/// Time passes, with the sessions renewed and this said of the classes in use.
fn pass(agent: &mut Agent, from: u64, to: u64, leases: &[u64]) -> Vec<Effect> {
    let mut effects = Vec::new();
    for second in from..to {
        let now = NOW + Duration::from_secs(second);
        let wardens: Vec<WardenId> = agent.sessions().map(|(warden, ..)| warden).collect();
        for warden in wardens {
            effects.extend(renew(agent, now, warden));
        }
        effects.extend(take(agent, now, classes(leases)));
    }
    effects
}

#[test]
fn a_class_that_no_service_asks_for_any_more_is_given_up_after_a_while() {
    let (mut agent, warden) = agent_with_both();
    let closes = |effects: &[Effect]| {
        let close = Effect::Close {
            warden,
            reason: CloseReason::Left,
        };
        effects.contains(&close)
    };
    let effects = pass(&mut agent, 0, 59, &[]);
    assert!(!closes(&effects), "an answer from before may say so");
    let effects = pass(&mut agent, 59, 62, &[]);
    assert!(closes(&effects), "{effects:?}");
    let closed = take(
        &mut agent,
        NOW + Duration::from_secs(62),
        Event::Closed { warden },
    );
    assert!(
        closed
            .iter()
            .any(|one| matches!(one, Effect::Discard { .. }))
    );
    let effects = pass(&mut agent, 63, 70, &[]);
    assert_eq!(spawned(&effects), [], "nobody wants another one");
    assert_eq!(
        agent.sessions().count(),
        1,
        "the first class is always there"
    );
    let effects = pass(&mut agent, 70, 72, &[30]);
    assert_eq!(spawned(&effects).len(), 1, "somebody asks for it again");
}

#[test]
fn a_class_is_kept_while_something_is_held_under_it_or_somebody_asks_for_it_in_time() {
    let (mut agent, warden) = agent_with_both();
    let effects = pass(&mut agent, 0, 40, &[]);
    let again = pass(&mut agent, 40, 41, &[30]);
    let later = pass(&mut agent, 41, 95, &[]);
    let all = [effects, again, later].concat();
    assert!(!all.iter().any(|one| matches!(one, Effect::Close { .. })));
    let mut held = item(7, Wanted::Running);
    held.token = token(7);
    let work = Work {
        items: vec![held],
        ..Work::default()
    };
    take(
        &mut agent,
        NOW + Duration::from_secs(95),
        Event::Work { warden, work },
    );
    let effects = pass(&mut agent, 96, 120, &[]);
    assert!(
        !effects
            .iter()
            .any(|one| matches!(one, Effect::Close { .. })),
        "{effects:?}"
    );
}

#[test]
fn an_agent_has_no_more_sessions_than_one_renewal_can_carry() {
    let mut agent = Agent::new(&[LEASE], W);
    take(&mut agent, NOW, Event::Began);
    let many: Vec<u64> = (20..60).collect();
    take(&mut agent, NOW, classes(&many));
    assert_eq!(agent.sessions().count(), 16);
}
