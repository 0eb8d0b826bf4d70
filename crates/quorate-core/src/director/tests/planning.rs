//! The planner at work inside the machine: from an applied list to claims, expiry and removal.

use super::super::call::Release;
use super::*;
use crate::cluster::State;
use crate::record::{MoveReason, ReleaseOutcome, RunPhase, RunReport};

const READY: RunReport = RunReport {
    phase: RunPhase::Ready,
    attempt: 1,
    pid: None,
    exit: None,
};

/// An agent that does at once whatever its work says.
fn serve(world: &mut World, session: u64, sequence: &mut u64) {
    for _ in 0..50 {
        let delta = world.nodes[0]
            .director
            .work(SessionId(session), Position(0));
        let items = delta.unwrap().items;
        let agent = world.cluster().agent_of(SessionId(session)).unwrap();
        let mut done = report(*sequence);
        done.session = SessionId(session);
        done.incarnation = agent.incarnation();
        for item in items {
            match item.state {
                super::super::WorkState::Assigned => done.assume.push((item.partition, item.token)),
                super::super::WorkState::Assumed => {
                    let partition = world.cluster().partition(item.partition).unwrap();
                    if partition.run().is_none() {
                        done.observed.push((item.partition, item.token, READY));
                    }
                }
                super::super::WorkState::Stopping => done.release.push(Release {
                    partition: item.partition,
                    token: item.token,
                    outcome: ReleaseOutcome::Stopped,
                    exit: None,
                    failures: 0,
                }),
            }
        }
        if done.assume.is_empty() && done.release.is_empty() && done.observed.is_empty() {
            return;
        }
        *sequence += 1;
        world.ask(Call::Report(Box::new(done)));
        world.pass(Duration::from_millis(100));
    }
    panic!("session {session} always has something to do");
}

fn renew(world: &mut World, session: u64, counter: u64) {
    let incarnation = world
        .cluster()
        .agent_of(SessionId(session))
        .unwrap()
        .incarnation();
    let renewal = Renewal {
        sessions: vec![SessionId(session)],
        incarnation,
        counter,
        nonce: counter,
        sent_ms: 0,
    };
    world.renew_later(0, renewal);
    world.run(0);
}

fn running(world: &World, session: u64) -> usize {
    let partitions = world.cluster().partitions();
    let mine = partitions.filter(|(_, partition)| {
        matches!(partition.state(), State::Assumed(holder) if holder.session == SessionId(session))
    });
    mine.count()
}

/// Agents `a1`..., with sessions 1..., and everything settled.
fn settled(agents: u64, keys: &[&str]) -> (World, u64) {
    let mut world = World::led();
    world.ask(apply("s", keys));
    for agent in 1..=agents {
        world.ask(register(
            &format!("a{agent}"),
            agent,
            &format!("secret {agent}"),
        ));
    }
    let mut sequence = 1;
    for counter in 1..=10 {
        world.pass(Duration::from_secs(1));
        for session in 1..=agents {
            renew(&mut world, session, counter);
            serve(&mut world, session, &mut sequence);
        }
    }
    (world, sequence)
}

#[test]
fn an_applied_list_is_spread_claimed_and_then_the_ledger_is_quiet() {
    let (mut world, _) = settled(3, &["a", "b", "c", "d", "e", "f"]);
    assert_eq!([1, 2, 3].map(|session| running(&world, session)), [2, 2, 2]);
    let written = world.ledger.len();
    for counter in 11..=20 {
        world.pass(Duration::from_secs(2));
        for session in 1..=3 {
            renew(&mut world, session, counter);
        }
    }
    assert_eq!(world.ledger.len(), written);
}

#[test]
fn a_silent_agent_loses_its_partitions_after_its_expiry_and_not_before() {
    let (mut world, mut sequence) = settled(2, &["a", "b", "c", "d"]);
    assert_eq!(running(&world, 1), 2);
    for counter in 11..=21 {
        world.pass(Duration::from_secs(1));
        renew(&mut world, 2, counter);
        serve(&mut world, 2, &mut sequence);
        let open = world.cluster().session(SessionId(1)).is_some();
        assert!(
            !open || running(&world, 2) == 2,
            "only what is free is given away"
        );
    }
    world.pass(Duration::from_secs(1));
    renew(&mut world, 2, 22);
    serve(&mut world, 2, &mut sequence);
    assert_eq!(running(&world, 2), 4);
}

#[test]
fn a_drained_agent_gives_everything_away() {
    let (mut world, mut sequence) = settled(2, &["a", "b", "c", "d"]);
    world.ask(Call::SetAgent {
        agent: AgentName::new("a1").unwrap(),
        schedulable: crate::record::Schedulable::Draining,
    });
    for counter in 11..=30 {
        world.pass(Duration::from_millis(500));
        for session in [1, 2] {
            renew(&mut world, session, counter);
            serve(&mut world, session, &mut sequence);
        }
    }
    let states = world.cluster().partitions();
    let states: Vec<_> = states.map(|(_, partition)| partition.state()).collect();
    assert_eq!(
        (running(&world, 1), running(&world, 2)),
        (0, 4),
        "{states:?}"
    );
}

#[test]
fn what_is_removed_stops_and_what_comes_back_meanwhile_runs_again_under_a_new_token() {
    let (mut world, mut sequence) = settled(1, &["a", "b"]);
    let id = world.id("a");
    let token = world
        .cluster()
        .partition(id)
        .unwrap()
        .holder()
        .unwrap()
        .token;
    world.ask(apply("s", &["b"]));
    let partition = world.cluster().partition(id).unwrap();
    assert!(matches!(
        partition.state(),
        State::Stopping(_, MoveReason::Removed)
    ));
    world.ask(apply("s", &["a", "b"]));
    serve(&mut world, 1, &mut sequence);
    assert_eq!(running(&world, 1), 2);
    let again = world
        .cluster()
        .partition(id)
        .unwrap()
        .holder()
        .unwrap()
        .token;
    assert!(again > token);
}

fn tokens(world: &World) -> Vec<Token> {
    let held = world.cluster().partitions();
    let mut tokens: Vec<_> = held.filter_map(|(_, p)| Some(p.holder()?.token)).collect();
    tokens.sort_unstable();
    tokens
}

#[test]
fn a_service_applied_again_while_it_is_being_removed_starts_only_behind_its_old_runs() {
    let (mut world, mut sequence) = settled(2, &["a", "b", "c", "d"]);
    let old = tokens(&world);
    world.ask(Call::Remove {
        services: vec![service("s")],
    });
    assert!(world.cluster().service(&service("s")).is_none());
    // Another list than before: some stay, some are new, some go for good.
    world.ask(apply("s", &["a", "b", "e"]));
    let stopping = |world: &World| {
        let partitions = world.cluster().partitions();
        let stopping = partitions.filter(|(_, p)| matches!(p.state(), State::Stopping(..)));
        stopping.count()
    };
    world.pass(Duration::from_secs(1));
    assert_eq!(
        stopping(&world),
        4,
        "nothing is given to anybody while it still runs"
    );
    let unassumed = world.cluster().partition(world.id("e")).unwrap();
    assert!(unassumed.running_under().is_none());
    // One agent after the other lets go; what it held starts anew, wherever, under higher tokens.
    for session in [1, 2, 1, 2] {
        serve(&mut world, session, &mut sequence);
        world.pass(Duration::from_millis(100));
        let fresh = tokens(&world)
            .into_iter()
            .filter(|token| !old.contains(token));
        assert!(fresh.min() > old.last().copied());
    }
    assert_eq!(running(&world, 1) + running(&world, 2), 3);
    let keys: Vec<_> = world
        .cluster()
        .partitions()
        .map(|(_, p)| p.key().to_string())
        .collect();
    assert_eq!(keys.len(), 3, "{keys:?}");
}

#[test]
fn a_service_has_not_settled_before_its_file_was_read() {
    let (mut world, _) = settled(1, &["a"]);
    let settling = |world: &World| {
        let director = &world.nodes[0].director;
        let planner = director.planner().unwrap();
        planner
            .settling(world.now.moment, world.cluster(), None)
            .settled
    };
    assert!(settling(&world));
    let spec = serde_json::json!({ "command": ["x"], "partitions": { "file": "/x.jsonl" } });
    let spec: crate::spec::ServiceSpec = serde_json::from_value(spec).unwrap();
    world.ask(Call::Apply {
        services: vec![(service("t"), spec)],
    });
    assert!(!settling(&world));
    let read = |reading| Call::Partitions {
        service: service("t"),
        reading,
    };
    world.ask(read(Ok(Vec::new())));
    assert!(settling(&world), "an empty file is no reason to wait");
    world.lead_again();
    assert!(!settling(&world), "a new leader reads it once more");
    world.ask(read(Err("it is gone".to_owned())));
    assert!(settling(&world), "what cannot be read is not waited for");
}
