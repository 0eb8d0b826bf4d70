//! The silence of patient sessions, which outlives a change of leader (R6's second half), and drifting
//! clocks (R14).

use super::*;
use crate::record::Schedulable;

const LEASE: Duration = Duration::from_secs(600);
const MINUTE: Duration = Duration::from_secs(60);

fn x() -> Duration {
    LeaseTimes::of(LEASE).expiry()
}

/// Two directors, the first leads, and a patient session of agent `a`.
fn patient() -> World {
    let mut world = World::new(2);
    world.lead(0);
    let Call::Register { agent, .. } = register("a", 1, "") else {
        panic!()
    };
    world.ask(Call::Register {
        agent,
        lease: LeaseTimes::of(LEASE),
        secret_hash: "secret".to_owned(),
        process: 1,
    });
    world
}

fn open(world: &World, node: usize) -> bool {
    let cluster = world.nodes[node].director.cluster();
    cluster.session(SessionId(1)).is_some()
}

fn silences(world: &World) -> Vec<u64> {
    let records = world.records().into_iter();
    let silent = records.filter_map(|record| {
        let Record::Silent { for_ms, .. } = record else {
            return None;
        };
        Some(for_ms)
    });
    silent.collect()
}

#[test]
fn silence_is_recorded_in_steps_of_an_eighth_and_only_for_patient_sessions() {
    let mut world = patient();
    world.pass(x() / 2 + Duration::from_secs(1));
    let step = u64::try_from((x() / 8).as_millis()).unwrap();
    let silent = silences(&world);
    assert_eq!(silent.len(), 4, "{silent:?}");
    assert!(silent[3].abs_diff(4 * step) < 10, "{silent:?}");
    let mut usual = World::with_session(&[]);
    usual.pass(Duration::from_secs(10));
    assert!(silences(&usual).is_empty());
}

#[test]
fn a_chain_of_leaders_expires_a_dead_host_in_little_more_than_its_time() {
    let mut world = patient();
    let (mut passed, mut leader) = (Duration::ZERO, 0);
    while open(&world, leader) {
        world.pass(MINUTE * 3);
        passed += MINUTE * 3;
        assert!(
            passed < x() * 2,
            "a leader every three minutes keeps it alive"
        );
        leader = 1 - leader;
        world.hint(1 - leader, Some(false));
        world.lead(leader);
    }
    assert!(
        passed >= x().mul_f64(0.99),
        "and not sooner than its lease allows"
    );
}

#[test]
fn what_was_recorded_is_counted_as_the_least_that_it_can_have_been() {
    let mut world = patient();
    world.pass(x() / 2 + Duration::from_secs(1));
    let recorded = Duration::from_millis(*silences(&world).last().unwrap());
    world.hint(0, Some(false));
    world.lead(1);
    let left = x() - recorded.mul_f64(100.0 / 101.0);
    world.pass(left - Duration::from_millis(10));
    assert!(open(&world, 1));
    world.pass(Duration::from_millis(20));
    assert!(!open(&world, 1));
}

#[test]
fn whoever_is_heard_again_gets_a_yes_only_after_the_ledger_knows() {
    let mut world = patient();
    world.pass(x() / 4);
    assert!(!silences(&world).is_empty());
    world.append = Append::Held;
    let id = world.renew_later(0, renewal(1));
    world.run(0);
    assert_eq!(world.nodes[0].renewals.get(&id), None);
    let order = world.held(0);
    let outcome = world.land(&order);
    let Effect::Append { append, .. } = order else {
        panic!()
    };
    world.append = Append::Works;
    world.tell(0, Event::AppendAnswered { append, outcome });
    assert_eq!(world.nodes[0].renewals.get(&id), Some(&renewed()));
    let session = SessionId(1);
    assert!(world.records().contains(&Record::Heard { session }));

    world.hint(0, Some(false));
    world.lead(1);
    world.pass(x() - Duration::from_millis(10));
    assert!(open(&world, 1), "the whole time again");
}

#[test]
fn a_silence_that_is_on_its_way_into_the_ledger_counts_as_recorded() {
    let mut world = patient();
    world.append = Append::Held;
    world.pass(x() / 8 + Duration::from_millis(1));
    let id = world.renew_later(0, renewal(1));
    world.run(0);
    assert_eq!(
        world.nodes[0].renewals.get(&id),
        None,
        "if it lands, the next leader believes it"
    );
    let order = world.held(0);
    let outcome = world.land(&order);
    let Effect::Append { append, .. } = order else {
        panic!()
    };
    world.append = Append::Works;
    world.tell(0, Event::AppendAnswered { append, outcome });
    assert_eq!(world.nodes[0].renewals.get(&id), Some(&renewed()));
    let last = world.records().pop();
    let session = SessionId(1);
    assert_eq!(last, Some(Record::Heard { session }));
}

#[test]
fn a_clock_beyond_the_bound_is_told_and_its_agent_drained() {
    let mut world = World::with_session(&[]);
    let mut sent = 0.0;
    for counter in 1..=160 {
        world.pass(Duration::from_secs(2));
        sent += 2000.0 * 1.03;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a test"
        )]
        let sent_ms = sent as u64;
        let renewal = Renewal {
            sent_ms,
            ..renewal(counter)
        };
        let id = world.renew_later(0, renewal);
        world.run(0);
        assert_eq!(world.nodes[0].renewals[&id], renewed());
    }
    let agent = AgentName::new("a").unwrap();
    let told = world.records().into_iter();
    let told = told.filter(|record| {
        matches!(
            record,
            Record::Drifts {
                ppm: 29_000..31_000,
                ..
            }
        )
    });
    assert!(told.count() >= 2);
    let known = &world.cluster().agents()[&agent];
    assert_eq!(known.schedulable(), Schedulable::Draining);
    let ppm = world.nodes[0].director.drift(&agent);
    assert!(
        ppm.is_some_and(|ppm| (29_000..31_000).contains(&ppm)),
        "{ppm:?}"
    );
}
