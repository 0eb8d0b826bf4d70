//! Tokens through the machine: answered after the commit, refused with a reason, never more than once.

use super::super::call::{AccessCall, Attributed, Refusal};
use super::*;
use crate::access::{
    Admission, JoinGrant, Node as Machine, Record as Access, Role as Rights, TokenGrant,
};
use crate::audit::{By, Who};
use crate::ids::{CredentialId, NodeName, TokenName};

const HOUR: i64 = 3_600_000;

fn id(text: &str) -> CredentialId {
    CredentialId::new(text).unwrap()
}

fn grant(name: &str, role: Rights) -> TokenGrant {
    TokenGrant {
        id: id(name),
        hash: "h".to_owned(),
        name: TokenName::new("n").unwrap(),
        role,
        scope: None,
        expires: None,
        bootstrap: false,
    }
}

fn change(record: Access) -> Call {
    Call::Access(Box::new(AccessCall::Change(record)))
}

fn bootstrap(name: &str) -> Call {
    let grant = grant(name, Rights::Admin);
    Call::Access(Box::new(AccessCall::Bootstrap(grant)))
}

fn join(uses: u32, admits: Machine) -> Call {
    change(Access::JoinTokenCreated(Box::new(JoinGrant {
        id: id("j"),
        hash: "h".to_owned(),
        admits,
        uses,
        expires: WallTime(HOUR),
    })))
}

fn admit(node: Machine, name: &str, request: &str, machine: Option<&str>) -> Call {
    Call::Access(Box::new(AccessCall::Admit {
        admission: Admission {
            token: id("j"),
            node,
            name: NodeName::new(name).unwrap(),
            request: request.to_owned(),
        },
        machine: machine.map(str::to_owned),
    }))
}

#[track_caller]
fn assert_done(answer: &Answer, written: bool) {
    let Answer::Done { changed, .. } = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(*changed, written);
}

#[track_caller]
fn assert_refused(answer: &Answer, why: &str) {
    let Answer::Refused(Refusal::Conflict(text)) = answer else {
        panic!("{answer:?}")
    };
    assert!(text.contains(why), "{text}");
}

/// Asks for two things that meet in one entry, and gives both answers.
fn together(world: &mut World, first: Call, second: Call) -> [Answer; 2] {
    world.append = Append::Held;
    world.ask_later(0, apply("before", &["p"]));
    world.run(0);
    let asked = [world.ask_later(0, first), world.ask_later(0, second)];
    world.append = Append::Works;
    let order = world.held(0);
    let Effect::Append { append, .. } = order else {
        panic!("{order:?}")
    };
    let outcome = world.land(&order);
    let appends = world.nodes[0].appends;
    world.tell(0, Event::AppendAnswered { append, outcome });
    assert_eq!(world.nodes[0].appends, appends + 1, "in one entry");
    asked.map(|id| world.nodes[0].answers[&id].clone())
}

#[test]
fn a_token_counts_from_its_commit_until_it_is_revoked_once() {
    let mut world = World::led();
    let token = grant("t1", Rights::Viewer);
    let create = || change(Access::TokenCreated(Box::new(token.clone())));
    let revoke = || change(Access::TokenRevoked { id: id("t1") });
    assert_refused(&world.ask(revoke()), "no token");
    assert_done(&world.ask(create()), true);
    assert_refused(&world.ask(create()), "used before");
    assert_done(&world.ask(revoke()), true);
    assert_done(&world.ask(revoke()), false);
    let known = &world.cluster().credentials().tokens()[&id("t1")];
    assert!(!known.counts(WallTime(0)));
}

#[test]
fn a_cluster_without_an_admin_takes_one_from_a_folder_and_each_only_once() {
    let mut world = World::led();
    assert_done(&world.ask(bootstrap("b1")), true);
    assert_done(&world.ask(bootstrap("b1")), false);
    assert_done(&world.ask(bootstrap("b2")), false);
    let revoked = change(Access::TokenRevoked { id: id("b1") });
    assert_done(&world.ask(revoked), true);
    assert_done(&world.ask(bootstrap("b1")), false);
    assert!(!world.cluster().credentials().has_admin(WallTime(0)));
    // Whoever has lost every admin token and may write to a director's folder begins anew.
    assert_done(&world.ask(bootstrap("b2")), true);
    assert!(world.cluster().credentials().has_admin(WallTime(0)));
}

#[test]
fn the_last_use_of_a_join_token_goes_to_one_of_two_that_ask_at_once() {
    let mut world = World::led();
    assert_done(&world.ask(join(1, Machine::Agent)), true);
    let [first, second] = together(
        &mut world,
        admit(Machine::Agent, "a1", "r1", None),
        admit(Machine::Agent, "a2", "r2", None),
    );
    assert_done(&first, true);
    assert_refused(&second, "used up");
    // Who has lost the answer asks again with the same request.
    assert_done(&world.ask(admit(Machine::Agent, "a1", "r1", None)), false);
    assert_refused(
        &world.ask(admit(Machine::Agent, "a1", "r3", None)),
        "used up",
    );
}

#[test]
fn nothing_is_handed_out_while_it_is_not_known_whether_the_use_is_written() {
    let mut world = World::led();
    assert_done(&world.ask(join(1, Machine::Agent)), true);
    world.append = Append::Held;
    let asked = world.ask_later(0, admit(Machine::Agent, "a1", "r1", None));
    world.run(0);
    assert_eq!(world.nodes[0].answers.get(&asked), None);
    world.hint(0, Some(false));
    world.run(0);
    assert_eq!(world.nodes[0].answers[&asked], Answer::Unknown);
}

#[test]
fn nobody_is_let_in_under_the_name_of_another() {
    let mut world = World::led();
    world.ask(register("a1", 1, "secret"));
    assert_done(&world.ask(join(9, Machine::Agent)), true);
    let stranger = admit(Machine::Agent, "a1", "r1", Some("another machine"));
    assert_refused(&world.ask(stranger), "rm agent/a1");
    let unnamed = admit(Machine::Agent, "a1", "r1", None);
    assert_refused(&world.ask(unnamed), "another machine");
    let own = Place::default().machine;
    let same = admit(Machine::Agent, "a1", "r1", Some(&own));
    assert_refused(&world.ask(same.clone()), "is alive");
    world.pass(Duration::from_secs(12));
    assert_done(&world.ask(same), true);
    let director = admit(Machine::Director, "x", "r2", None);
    assert_refused(&world.ask(director), "not for this kind");

    let mut world = World::led();
    assert_done(&world.ask(join(9, Machine::Director)), true);
    let leader = world.cluster().leader().unwrap().name.to_string();
    let second = admit(Machine::Director, &leader, "r1", None);
    assert_refused(&world.ask(second), "cluster remove");
    assert_done(
        &world.ask(admit(Machine::Director, "new", "r1", None)),
        true,
    );
}

/// Whether what was handed out to this machine up to now counts no longer.
fn barred(world: &World, node: Machine, name: &str) -> bool {
    let cluster = world.cluster();
    let bars = cluster.credentials().bars();
    let before = Position(cluster.position().0.saturating_sub(1));
    bars.bar(node, &NodeName::new(name).unwrap(), before)
}

#[test]
fn what_was_handed_out_counts_no_longer_once_its_machine_is_forgotten_or_comes_anew() {
    let mut world = World::led();
    assert_done(&world.ask(join(9, Machine::Agent)), true);
    let first = admit(Machine::Agent, "a1", "r1", None);
    assert_done(&world.ask(first.clone()), true);
    world.ask(register("a1", 1, "secret"));
    assert!(!barred(&world, Machine::Agent, "a1"));
    // The answer was lost: nothing is new, although it is known by now and alive.
    let own = Place::default().machine;
    let again = admit(Machine::Agent, "a1", "r1", Some(&own));
    assert_done(&world.ask(again.clone()), false);
    assert!(!barred(&world, Machine::Agent, "a1"));

    world.pass(Duration::from_secs(12));
    let anew = admit(Machine::Agent, "a1", "r2", Some(&own));
    assert_done(&world.ask(anew), true);
    assert!(barred(&world, Machine::Agent, "a1"), "who came before it");
    // The earlier request is nobody's any more.
    assert_done(&world.ask(again), true);

    let agent = crate::ids::AgentName::new("a1").unwrap();
    assert_done(&world.ask(Call::ForgetAgent { agent }), true);
    assert!(barred(&world, Machine::Agent, "a1"));
    assert!(!barred(&world, Machine::Director, "a1"));
    assert_done(&world.ask(first), true);
}

fn by_somebody(call: Call) -> Call {
    let who = Who::Token {
        id: id("t0"),
        name: TokenName::new("anna").unwrap(),
    };
    let from = Some("192.0.2.7".to_owned());
    let by = By { who, from };
    let key = None;
    Call::Attributed(Box::new(Attributed { by, key, call }))
}

fn audits(world: &World) -> Vec<(String, Vec<String>)> {
    let records = world.records().into_iter();
    let audits = records.filter_map(|record| {
        let Record::Audited(audit) = record else {
            return None;
        };
        Some((audit.did, audit.to))
    });
    audits.collect()
}

#[test]
fn who_asked_stands_behind_what_was_changed_in_the_same_entry() {
    let mut world = World::led();
    assert_done(&world.ask(by_somebody(apply("s", &["a", "b"]))), true);
    let last = world.records();
    assert!(matches!(last.last(), Some(Record::Audited(audit)) if audit.records == last.len() - 2));
    let stop = Call::SetDesired {
        service: service("s"),
        key: Some(PartitionKey::new("a").unwrap()),
        desired: crate::record::Desired::Stopped,
    };
    assert_done(&world.ask(by_somebody(stop.clone())), true);
    // The members of the quorum are no records; who changed them is told all the same.
    let added = Call::Membership {
        change: super::super::call::Membership::Added,
        director: crate::ids::DirectorName::new("d2").unwrap(),
    };
    assert_done(&world.ask(by_somebody(added.clone())), true);
    let before = world.records().len();
    world.ask(added);
    assert_eq!(world.records().len(), before, "nobody is known who asked");
    // What changes nothing is not told, nor what a source or an agent does.
    assert_done(&world.ask(by_somebody(stop)), false);
    world.ask(by_somebody(apply("s", &["a", "b"])));
    world.ask(apply("t", &["a"]));
    let nothing = by_somebody(Call::Remove {
        services: vec![service("unknown")],
    });
    assert!(matches!(world.ask(nothing), Answer::Refused(_)));
    let told = |did: &str, to: &str| (did.to_owned(), vec![to.to_owned()]);
    assert_eq!(
        audits(&world),
        [
            told("apply", "service/s"),
            told("stop", "partition/s/a"),
            told("add", "director/d2")
        ]
    );
}

#[test]
fn nobody_is_said_to_have_done_what_was_refused_by_the_fold() {
    let mut world = World::led();
    assert_done(&world.ask(join(1, Machine::Agent)), true);
    let [first, second] = together(
        &mut world,
        by_somebody(admit(Machine::Agent, "a1", "r1", None)),
        by_somebody(admit(Machine::Agent, "a2", "r2", None)),
    );
    assert_done(&first, true);
    assert_refused(&second, "used up");
    assert_eq!(audits(&world).len(), 2, "both are in the entry");
    let changes = world.nodes[0].changes.iter();
    let audited = changes.filter(|change| matches!(change, Change::Audited(_)));
    assert_eq!(audited.count(), 1, "and one is told");
}

#[test]
fn a_join_token_ends_by_the_wall_time_of_the_leader() {
    let mut world = World::led();
    assert_done(&world.ask(join(9, Machine::Agent)), true);
    world.now.wall = WallTime(HOUR);
    let late = admit(Machine::Agent, "a1", "r1", None);
    assert_refused(&world.ask(late), "expired");
}
