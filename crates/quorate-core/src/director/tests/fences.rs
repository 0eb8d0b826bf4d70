//! Fence hooks, and work that is kept without a lease (T9, the isolation policies).

use super::*;
use crate::checkpoint::Content;
use crate::director::call::{Checkpoints, Refusal, Written};
use crate::director::event::ProofId;
use crate::lease::KEPT;
use crate::record::{CloseReason, Place};

const X: Duration = Duration::from_millis(11_223);

fn hook() -> HookName {
    HookName::new("power-off").unwrap()
}

/// Service `name` with one partition `key`, and what else its table says.
fn put(name: &str, key: &str, more: &serde_json::Value) -> Call {
    let mut spec = serde_json::json!({ "command": ["x"], "partitions": { "list": [key] } });
    let table = spec.as_object_mut().unwrap();
    table.extend(more.as_object().unwrap().clone());
    Call::Apply {
        services: vec![(service(name), serde_json::from_value(spec).unwrap())],
    }
}

fn joins(agent: &str, id: u64, lease: Duration) -> Call {
    let Call::Register { mut agent, .. } = register(agent, id, "") else {
        panic!()
    };
    agent.place = Place {
        machine: format!("uuid:{id}"),
        boot: "1".to_owned(),
        folder: 1,
    };
    Call::Register {
        agent,
        lease: LeaseTimes::of(lease),
        secret_hash: format!("secret {id}"),
        process: id,
    }
}

/// The entry by which another director is elected next.
fn elected_elsewhere(world: &World, epoch: Epoch) -> Vec<u8> {
    let header = crate::record::Header {
        format: crate::format::Format::FIRST,
        epoch,
        batch: crate::ids::BatchId {
            writer: 999,
            sequence: 1,
        },
        predecessor: world.cluster().last_hash(),
        wall: world.now.wall,
    };
    let records = vec![Record::Elected {
        name: crate::ids::DirectorName::new("other").unwrap(),
        id: 999,
        address: "other:7400".to_owned(),
        format: crate::format::Format::FIRST,
    }];
    Entry { header, records }.encode()
}

/// Agent `a` runs `s/p` with this table, under a session of this class.
fn running(table: &serde_json::Value, lease: Duration) -> (World, PartitionId, Token) {
    let mut world = World::led();
    world.ask(put("s", "p", table));
    world.ask(joins("a", 1, lease));
    settle(&mut world);
    let partition = world.id("p");
    let holder = world.cluster().partition(partition).unwrap().holder();
    let token = holder.unwrap().token;
    let assume = Report {
        assume: vec![(partition, token)],
        ..report(1)
    };
    let answer = world.ask(Call::Report(Box::new(assume)));
    assert!(matches!(&answer, Answer::Reported { assumed, .. } if *assumed == [token]));
    assert_eq!(world.renew(4), renewed());
    (world, partition, token)
}

/// The settle window passes while session 1 is heard, so that its agent gets what it is to have.
fn settle(world: &mut World) {
    for counter in 1..=3 {
        assert_eq!(world.renew(counter), renewed());
        world.pass(Duration::from_secs(2));
    }
}

fn holds(world: &World, partition: PartitionId, token: Token) -> bool {
    let holder = world.cluster().partition(partition).unwrap().holder();
    holder.is_some_and(|holder| holder.token == token)
}

fn ended(world: &mut World, problem: Option<&str>) {
    let event = Event::Fenced {
        session: SessionId(1),
        hook: hook(),
        problem: problem.map(crate::record::Cause::new),
    };
    world.tell(0, event);
}

fn fenced() -> serde_json::Value {
    serde_json::json!({ "fence": "power-off" })
}

const TEN: Duration = Duration::from_secs(10);
/// Pause after the first failure of a hook.
const AGAIN: Duration = Duration::from_secs(1);

#[test]
fn work_with_a_hook_stays_where_it_was_until_the_hook_has_succeeded() {
    let (mut world, partition, token) = running(&fenced(), TEN);
    world.pass(X + Duration::from_millis(1));
    assert!(
        world.cluster().session(SessionId(1)).is_none(),
        "it is over"
    );
    assert!(holds(&world, partition, token), "and holds what it held");
    assert_eq!(world.nodes[0].fenced, [(SessionId(1), hook())]);
    let told = world.nodes[0].director.planner().unwrap();
    let told = told.waiting(world.now.moment, world.cluster(), partition);
    assert!(told.unwrap().contains("waiting for fence hook power-off"));

    ended(&mut world, Some("no such outlet"));
    assert!(holds(&world, partition, token));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.nodes[0].fenced.len(), 2, "it is tried again");
    let how = world.nodes[0]
        .director
        .fencing(world.now.moment, SessionId(1), &hook());
    assert!(
        how.unwrap()
            .contains("failed 1 times, last: no such outlet")
    );

    ended(&mut world, None);
    assert!(!holds(&world, partition, token));
    assert!(world.cluster().expired().is_empty());
    world.pass(Duration::from_secs(600));
    assert_eq!(world.nodes[0].fenced.len(), 2, "and not run any more");
}

#[test]
fn other_work_of_the_same_agent_does_not_wait_for_the_hook() {
    let (mut world, partition, token) = running(&fenced(), TEN);
    world.ask(put("t", "q", &serde_json::json!({})));
    world.pass(Duration::from_secs(1));
    let key = PartitionKey::new("q").unwrap();
    let other = world.cluster().partition_id(&service("t"), &key).unwrap();
    assert!(world.cluster().partition(other).unwrap().holder().is_some());
    world.pass(X);
    assert!(world.cluster().partition(other).unwrap().holder().is_none());
    assert!(holds(&world, partition, token));
}

/// A checkpoint by way of the session, and one on the word of the owner.
fn writes(partition: PartitionId, token: Token) -> [Call; 2] {
    let content = Content::new(b"offset 17").unwrap();
    let written = Written {
        partition,
        token,
        number: 1,
        content: content.clone(),
    };
    let of_session = Checkpoints {
        session: SessionId(1),
        incarnation: Incarnation(1),
        given: vec![written],
    };
    let direct = Call::PutCheckpoint {
        service: service("s"),
        key: PartitionKey::new("p").unwrap(),
        token,
        number: None,
        content,
    };
    [Call::Checkpoints(of_session), direct]
}

#[test]
fn an_expired_session_can_do_nothing_any_more_but_prove_that_it_is_dead() {
    let (mut world, partition, token) = running(&fenced(), TEN);
    world.pass(X + Duration::from_millis(1));
    let answer = world.renew(5);
    assert!(
        matches!(&answer, RenewalAnswer::Answered { renewed, lost } if renewed.is_empty() && lost.len() == 1),
        "{answer:?}"
    );
    let answer = world.ask(Call::Report(Box::new(report(2))));
    assert!(matches!(answer, Answer::Refused(Refusal::Fenced(_))));
    let resume = Call::Resume {
        session: SessionId(1),
        process: 9,
    };
    assert!(matches!(
        world.ask(resume),
        Answer::Refused(Refusal::Fenced(_))
    ));
    for call in writes(partition, token) {
        assert!(matches!(
            world.ask(call),
            Answer::Refused(Refusal::Fenced(_))
        ));
    }
    let written = world.cluster().partition(partition).unwrap().checkpoint();
    assert_eq!(written, None);
    world.ask(Call::Close {
        session: SessionId(1),
        incarnation: None,
        reason: CloseReason::AgentDied,
    });
    assert!(
        !holds(&world, partition, token),
        "a proof is better than a hook"
    );
}

#[test]
fn to_remove_and_list_again_is_no_way_around_a_hook_and_to_change_the_service_is() {
    let (mut world, partition, token) = running(&fenced(), TEN);
    world.pass(X + Duration::from_millis(1));
    world.ask(put("s", "another", &fenced()));
    world.ask(put("s", "p", &fenced()));
    assert_eq!(world.id("p"), partition);
    assert!(holds(&world, partition, token));
    world.ask(put("s", "p", &serde_json::json!({})));
    assert!(
        !holds(&world, partition, token),
        "nobody asks for a hook now"
    );
}

#[test]
fn a_new_leader_runs_the_hook_again_and_an_expired_session_stays_so() {
    let mut world = World::new(2);
    world.lead(0);
    world.ask(put("s", "p", &fenced()));
    world.ask(joins("a", 1, TEN));
    settle(&mut world);
    let partition = world.id("p");
    let token = world.cluster().partition(partition).unwrap().holder();
    let token = token.unwrap().token;
    let assume = Report {
        assume: vec![(partition, token)],
        ..report(1)
    };
    world.ask(Call::Report(Box::new(assume)));
    world.pass(X);
    assert_eq!(world.nodes[0].fenced.len(), 1);
    world.lead(1);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.nodes[1].fenced, [(SessionId(1), hook())]);
    let cluster = world.nodes[1].director.cluster();
    assert!(cluster.session(SessionId(1)).is_none());
}

#[test]
fn a_hook_that_the_directors_do_not_know_is_refused_at_once() {
    let mut world = World::led();
    let unknown = serde_json::json!({ "fence": "reset" });
    let answer = world.ask(put("s", "p", &unknown));
    let Answer::Refused(Refusal::Conflict(why)) = answer else {
        panic!("{answer:?}")
    };
    assert!(
        why.contains("fence hook reset") && why.contains("power-off"),
        "{why}"
    );
}

#[test]
fn kept_work_is_never_given_away_by_waiting() {
    let kept = serde_json::json!({ "isolation": "keep" });
    let (mut world, partition, token) = running(&kept, KEPT);
    world.pass(Duration::from_secs(7 * 86_400));
    assert!(holds(&world, partition, token));
    assert!(world.nodes[0].director.silent(SessionId(1)), "but told");
    assert_eq!(world.nodes[0].fenced, []);
    assert_eq!(world.renew(5), renewed(), "and it may come back");
    world.pass(Duration::from_secs(60));
    world.ask(Call::Evict {
        agent: AgentName::new("a").unwrap(),
        reason: crate::record::Cause::new("its rack burnt"),
    });
    assert!(!holds(&world, partition, token), "a person decides");
}

#[test]
fn kept_work_with_a_hook_moves_when_its_agent_is_silent_and_fenced() {
    let kept = serde_json::json!({ "isolation": "keep", "fence": "power-off" });
    let (mut world, partition, token) = running(&kept, KEPT);
    world.pass(X - Duration::from_millis(1));
    assert_eq!(world.nodes[0].fenced, []);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.nodes[0].fenced, [(SessionId(1), hook())]);
    ended(&mut world, None);
    assert!(!holds(&world, partition, token));
    assert!(
        world.cluster().session(SessionId(1)).is_some(),
        "it may live"
    );
    assert_eq!(world.renew(5), renewed());
    let delta = world.nodes[0].director.work(SessionId(1), Position(0));
    assert!(delta.unwrap().items.iter().all(|item| item.token != token));
}

#[test]
fn kept_work_whose_agent_is_heard_in_time_is_not_fenced() {
    let kept = serde_json::json!({ "isolation": "keep", "fence": "power-off" });
    let (mut world, partition, token) = running(&kept, KEPT);
    for counter in 5..23 {
        world.pass(Duration::from_secs(8));
        assert_eq!(world.renew(counter), renewed());
    }
    assert_eq!(world.nodes[0].fenced, []);
    assert!(holds(&world, partition, token));
}

/// A director that was deposed while it stood still has heard nobody since, and finds everybody silent.
#[test]
fn a_leader_that_was_deposed_without_knowing_begins_no_hook() {
    let kept = serde_json::json!({ "isolation": "keep", "fence": "power-off" });
    for expires in [false, true] {
        let (mut world, ..) = if expires {
            running(&fenced(), TEN)
        } else {
            running(&kept, KEPT)
        };
        if expires {
            world.pass(X);
            assert_eq!(world.nodes[0].fenced.len(), 1);
            ended(&mut world, Some("no such host"));
        }
        // Another leader is elected past this one.
        let epoch = world.cluster().epoch().next();
        world.ledger.push((epoch, elected_elsewhere(&world, epoch)));
        // By now the next try is due, or the agent is overdue; later this director may be elected again.
        let due = if expires { AGAIN } else { X };
        world.pass(due);
        assert_eq!(world.nodes[0].fenced.len(), usize::from(expires));
        assert_ne!(*world.nodes[0].director.role(), Role::Leader);
    }
}

/// Kept work whose agent is silent: its hook waits for the proof that this director leads.
fn before_a_hook() -> (World, ProofId) {
    let kept = serde_json::json!({ "isolation": "keep", "fence": "power-off" });
    let (mut world, ..) = running(&kept, KEPT);
    world.proofs_held = true;
    world.pass(X);
    let Effect::ProveTail { proof } = world.held(0) else {
        panic!("a hook begins with a proof")
    };
    world.proofs_held = false;
    (world, proof)
}

#[test]
fn a_hook_waits_while_nobody_can_say_who_leads() {
    let (mut world, proof) = before_a_hook();
    world.tell(0, Event::TailAnswered { proof, tail: None });
    assert_eq!(world.nodes[0].fenced, []);
    world.pass(Duration::from_secs(1));
    assert_eq!(
        world.nodes[0].fenced,
        [(SessionId(1), hook())],
        "it is tried again"
    );
}

#[test]
fn a_hook_does_not_begin_when_its_agent_is_heard_during_the_proof() {
    let (mut world, proof) = before_a_hook();
    world.renew_later(0, renewal(5));
    let tail = Some(world.tail());
    world.tell(0, Event::TailAnswered { proof, tail });
    assert_eq!(world.nodes[0].fenced, []);
    world.pass(X);
    assert_eq!(world.nodes[0].fenced.len(), 1, "later it is silent again");
}

#[test]
fn an_eviction_says_what_it_frees_without_its_hook() {
    for expired in [false, true] {
        let (mut world, partition, token) = running(&fenced(), TEN);
        world.pass(if expired {
            X * 2
        } else {
            Duration::from_secs(6)
        });
        assert!(holds(&world, partition, token));
        let answer = world.ask(Call::Evict {
            agent: AgentName::new("a").unwrap(),
            reason: crate::record::Cause::new("its rack burnt"),
        });
        let Answer::Done { notes, changed, .. } = answer else {
            panic!("{answer:?}")
        };
        assert!(changed && !holds(&world, partition, token));
        assert_eq!(
            notes,
            ["1 partition freed without fence hook power-off, which has not succeeded"]
        );
    }
}

#[test]
fn a_hook_that_waits_for_others_is_begun_with_a_proof_of_its_own() {
    let mut world = World::led();
    let agents: Vec<u64> = (1..=20).collect();
    let keys: Vec<String> = agents.iter().map(|n| format!("p{n}")).collect();
    let spec = serde_json::json!({
        "command": ["x"], "partitions": { "list": keys }, "fence": "power-off",
    });
    world.ask(Call::Apply {
        services: vec![(service("s"), serde_json::from_value(spec).unwrap())],
    });
    for agent in &agents {
        world.ask(joins(&format!("a{agent}"), *agent, TEN));
    }
    for (agent, key) in agents.iter().zip(&keys) {
        let partition = world.id(key);
        let token = world.cluster().next_token();
        world.decree(vec![
            Record::Assigned {
                partition,
                session: SessionId(*agent),
                token,
            },
            Record::Assumed {
                partition,
                session: SessionId(*agent),
                token,
            },
        ]);
        world.run(0);
    }
    world.pass(X + Duration::from_secs(30));
    let begun = world.nodes[0].fenced.clone();
    assert_eq!(begun.len(), 16, "the others wait: {begun:?}");
    world.proofs_held = true;
    let (session, hook) = begun[0].clone();
    world.tell(
        0,
        Event::Fenced {
            session,
            hook,
            problem: Some(crate::record::Cause::new("no such outlet")),
        },
    );
    assert_eq!(world.nodes[0].fenced.len(), 16, "not before it is proven");
    world.proofs_held = false;
    let Effect::ProveTail { proof } = world.held(0) else {
        panic!()
    };
    let tail = Some(world.tail());
    world.tell(0, Event::TailAnswered { proof, tail });
    assert_eq!(world.nodes[0].fenced.len(), 17);
}
