//! What an agent wants to be woken for: never for something that is due already and stays so.

use super::*;

/// A warden of the same class lives, so none has to be started: waking for it would never end. Found by
/// the simulator.
#[test]
fn a_second_warden_of_a_class_that_ends_does_not_wake_the_agent_again_and_again() {
    let mut agent = Agent::new(&[LEASE], W);
    for warden in [W, WardenId(2)] {
        let found = Event::Found {
            warden,
            kept: Kept {
                session: SessionId(warden.0),
                times: LeaseTimes::of(LEASE),
                notes: BTreeMap::new(),
            },
            deadline: Some(NOW + LEASE),
            runs: Vec::new(),
        };
        take(&mut agent, NOW, found);
    }
    take(&mut agent, NOW, Event::Began);
    take(&mut agent, NOW, Event::Lost { warden: W });
    let later = NOW + Duration::from_secs(1);
    let mut effects = Vec::new();
    agent.step(later, Event::Woke, &mut effects);
    let due = |effect: &Effect| matches!(effect, Effect::WakeAt(at) if *at <= later);
    assert!(!effects.iter().any(due), "{effects:?}");
    // When the other one ends as well, the class gets a new one.
    let other = WardenId(2);
    take(&mut agent, later, Event::Lost { warden: other });
    let effects = take(&mut agent, later + Duration::from_secs(1), Event::Woke);
    let spawned = |effect: &Effect| matches!(effect, Effect::SpawnWarden { .. });
    assert!(effects.iter().any(spawned), "{effects:?}");
}
