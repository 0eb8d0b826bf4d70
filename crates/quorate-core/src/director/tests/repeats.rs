//! Requests that come again under their idempotency key: done once, whoever leads meanwhile.

use super::super::call::{AccessCall, Applied, Attributed, Conditional, Object, Refusal};
use super::*;
use crate::access::{JoinGrant, Node as Machine, Record as Access, Role as Rights, TokenGrant};
use crate::audit::{By, Who};
use crate::director::call::{Condition, Membership};
use crate::ids::{CredentialId, TokenName};
use crate::record::Desired;
use crate::repeats::{Digest, KEPT_FOR, Key};

/// The call of somebody under a key; its request is told by another number.
fn keyed((key, request): (u128, u128), call: Call) -> Call {
    let by = By {
        who: Who::Local,
        from: None,
    };
    let key = Some(Key {
        of: Digest(key),
        request: Digest(request),
    });
    Call::Attributed(Box::new(Attributed { by, key, call }))
}

fn restart() -> Call {
    Call::Restart {
        service: service("s"),
        key: None,
    }
}

fn set(desired: Desired) -> Call {
    Call::SetDesired {
        service: service("s"),
        key: None,
        desired,
    }
}

fn token(id: &str) -> Call {
    let grant = TokenGrant {
        id: CredentialId::new(id).unwrap(),
        hash: format!("hash of {id}"),
        name: TokenName::new("n").unwrap(),
        role: Rights::Viewer,
        scope: None,
        expires: None,
        bootstrap: false,
    };
    access(Access::TokenCreated(Box::new(grant)))
}

fn access(record: Access) -> Call {
    Call::Access(Box::new(AccessCall::Change(record)))
}

fn restarts(world: &World) -> usize {
    let records = world.records().into_iter();
    let restarts = records.filter(|record| matches!(record, Record::RestartAsked { .. }));
    restarts.count()
}

/// Two directors over one ledger, of which the first leads, with a service.
fn pair() -> World {
    let mut world = World::new(2);
    world.lead(0);
    world.ask(apply("s", &["a", "b"]));
    world
}

impl World {
    /// The second one leads from here on.
    fn hand_over(&mut self) {
        self.hint(0, Some(false));
        self.lead(1);
    }

    fn ask_second(&mut self, call: Call) -> Answer {
        let id = self.ask_later(1, call);
        self.run(1);
        self.nodes[1].answers[&id].clone()
    }
}

#[test]
fn what_a_leader_did_before_it_died_is_answered_by_the_next_and_not_done_again() {
    let mut world = pair();
    let first = world.ask(keyed((7, 1), restart()));
    assert_eq!(restarts(&world), 1);
    world.hand_over();
    let length = world.ledger.len();
    assert_eq!(world.ask_second(keyed((7, 1), restart())), first);
    let other = world.ask_second(keyed((7, 2), restart()));
    assert_eq!(other, Answer::Refused(Refusal::OtherRequest));
    assert_eq!(world.ledger.len(), length, "nothing is written for it");
    // Another key is another request, and so is none.
    for call in [keyed((8, 1), restart()), restart()] {
        let answer = world.ask_second(call);
        assert!(matches!(answer, Answer::Done { changed: true, .. }));
    }
    assert_eq!(restarts(&world), 3);
}

#[test]
fn a_leader_that_does_not_know_what_became_of_a_request_does_it_once() {
    for lands in [Append::LandsUnknown, Append::LostUnknown] {
        let mut world = pair();
        world.append = lands;
        let asked = world.ask_later(0, keyed((7, 1), restart()));
        // It does not come to rest while the ledger tells nothing.
        world.step(0, Event::Woke);
        world.append = Append::Held;
        world.run(0);
        world.hint(0, Some(false));
        world.append = Append::Works;
        world.run(0);
        let told = world.nodes[0].answers.get(&asked).cloned();
        assert!(
            told.is_none_or(|told| told == Answer::Unknown || matches!(told, Answer::Done { .. }))
        );
        world.lead(1);
        let again = world.ask_second(keyed((7, 1), restart()));
        assert!(
            matches!(again, Answer::Done { changed: true, .. }),
            "{again:?}"
        );
        assert_eq!(restarts(&world), 1, "{lands:?}");
    }
}

#[test]
fn two_that_come_at_once_under_one_key_are_done_once() {
    let mut world = pair();
    let calls = [(7, 1), (7, 1), (7, 2)];
    let asked = calls.map(|key| world.ask_later(0, keyed(key, restart())));
    world.run(0);
    let [first, again, other] = asked.map(|id| world.nodes[0].answers[&id].clone());
    assert!(matches!(first, Answer::Done { .. }));
    assert_eq!(again, first);
    assert_eq!(other, Answer::Refused(Refusal::OtherRequest));
    assert_eq!(restarts(&world), 1);
}

#[test]
fn what_is_in_the_way_of_the_request_itself_is_not_in_the_way_of_its_repeat() {
    let mut world = pair();
    let object = Object::Service(service("s"));
    let revision = world.nodes[0].director.revision(&object).unwrap();
    let remove = || {
        let conditional = Conditional {
            object: object.clone(),
            condition: Condition::At(vec![revision]),
            call: Call::Remove {
                services: vec![service("s")],
            },
        };
        keyed((7, 1), Call::Conditional(Box::new(conditional)))
    };
    let first = world.ask(remove());
    assert!(matches!(first, Answer::Done { .. }), "{first:?}");
    world.hand_over();
    // The service is gone, and its revision with it.
    assert_eq!(world.ask_second(remove()), first);
}

#[test]
fn an_apply_is_answered_again_with_what_became_of_each_service() {
    let mut world = pair();
    let Call::Apply { mut services } = apply("s", &["a", "b"]) else {
        unreachable!()
    };
    let Call::Apply { services: mut new } = apply("t", &["c"]) else {
        unreachable!()
    };
    services.append(&mut new);
    let both = || {
        let services = services.clone();
        keyed((7, 1), Call::Apply { services })
    };
    let first = world.ask(both());
    let Answer::Done { applied, .. } = &first else {
        panic!("{first:?}")
    };
    assert_eq!(
        applied.as_slice(),
        [
            (service("s"), Applied::Unchanged),
            (service("t"), Applied::Created)
        ]
    );
    world.hand_over();
    assert_eq!(world.ask_second(both()), first);
}

#[test]
fn a_change_of_many_entries_is_remembered_with_its_last_part_and_not_before() {
    let large = || {
        let spec = serde_json::json!({ "command": ["x"], "partitions": { "range": "0..12000" } });
        let spec = serde_json::from_value(spec).unwrap();
        let services = vec![(service("large"), spec)];
        keyed((7, 1), Call::Apply { services })
    };
    let mut world = pair();
    let before = world.ledger.len();
    let first = world.ask(large());
    assert!(world.ledger.len() > before + 2, "it takes several entries");
    let (_, last) = world.ledger.last().unwrap();
    let last = Entry::decode(last).unwrap().records;
    let [
        ..,
        Record::Staged { last: true, .. },
        Record::Audited(audit),
        Record::Answered(answered),
    ] = last.as_slice()
    else {
        panic!("{} records are in the last entry", last.len())
    };
    assert_eq!((audit.records, answered.records), (1, 2));
    world.hand_over();
    let length = world.ledger.len();
    assert_eq!(world.ask_second(large()), first);
    assert_eq!(world.ledger.len(), length);

    // A leader that dies before the last part has done nothing, and the repeat does all of it.
    let mut world = pair();
    let asked = world.ask_later(0, large());
    world.append = Append::Held;
    world.run(0);
    for _ in 0..2 {
        let order = world.held(0);
        let Effect::Append { append, .. } = order else {
            panic!("{order:?}")
        };
        let outcome = world.land(&order);
        world.tell(0, Event::AppendAnswered { append, outcome });
    }
    world.nodes[0].held.clear();
    world.hint(0, Some(false));
    assert_eq!(world.nodes[0].answers[&asked], Answer::Unknown);
    world.append = Append::Works;
    world.lead(1);
    let cluster = world.nodes[1].director.cluster();
    assert!(cluster.service(&service("large")).is_none());
    let again = world.ask_second(large());
    assert!(
        matches!(again, Answer::Done { changed: true, .. }),
        "{again:?}"
    );
    let cluster = world.nodes[1].director.cluster();
    assert_eq!(cluster.partition_count(), 12_002);
}

#[test]
fn what_changed_nothing_or_was_refused_is_decided_anew() {
    let mut world = pair();
    // It runs already.
    let start = || keyed((7, 1), set(Desired::Running));
    let answer = world.ask(start());
    assert!(matches!(answer, Answer::Done { changed: false, .. }));
    world.ask(set(Desired::Stopped));
    let answer = world.ask(start());
    assert!(matches!(answer, Answer::Done { changed: true, .. }));

    let remove = || {
        let services = vec![service("t")];
        keyed((8, 1), Call::Remove { services })
    };
    assert!(matches!(
        world.ask(remove()),
        Answer::Refused(Refusal::NotFound { .. })
    ));
    world.ask(apply("t", &["c"]));
    assert!(matches!(
        world.ask(remove()),
        Answer::Done { changed: true, .. }
    ));
}

#[test]
fn a_key_is_free_again_after_a_while() {
    let mut world = pair();
    let long = i64::try_from(KEPT_FOR.as_millis()).unwrap();
    let first = world.ask(keyed((7, 1), restart()));
    world.now.wall = WallTime(long - 1);
    assert_eq!(world.ask(keyed((7, 1), restart())), first);
    world.now.wall = WallTime(long);
    assert_ne!(world.ask(keyed((7, 2), restart())), first);
    assert_eq!(restarts(&world), 2);
    let former = world.ask(keyed((7, 1), restart()));
    assert_eq!(former, Answer::Refused(Refusal::OtherRequest));
}

#[test]
fn a_token_is_made_once_and_its_secret_is_told_once() {
    let mut world = pair();
    let join = |id: &str| {
        access(Access::JoinTokenCreated(Box::new(JoinGrant {
            id: CredentialId::new(id).unwrap(),
            hash: format!("hash of {id}"),
            admits: Machine::Agent,
            uses: 1,
            expires: WallTime(3_600_000),
        })))
    };
    world.ask(keyed((7, 1), token("t1")));
    world.ask(keyed((8, 1), join("j1")));
    world.hand_over();
    // Another id and secret were drawn for the repeat.
    for (key, call, what, id) in [
        ((7, 1), token("t2"), "token", "t1"),
        ((8, 1), join("j2"), "join-token", "j1"),
    ] {
        let answer = world.ask_second(keyed(key, call));
        let id = CredentialId::new(id).unwrap();
        assert_eq!(answer, Answer::Refused(Refusal::ShownOnce { what, id }));
    }
    let credentials = world.nodes[1].director.cluster().credentials();
    assert_eq!(credentials.tokens().len(), 1);
    assert_eq!(credentials.join_tokens().len(), 1);
    let other = world.ask_second(keyed((7, 2), token("t2")));
    assert_eq!(other, Answer::Refused(Refusal::OtherRequest));
}

#[test]
fn a_change_of_the_members_is_for_the_quorum_to_judge() {
    let mut world = pair();
    let added = || {
        let call = Call::Membership {
            change: Membership::Added,
            director: DirectorName::new("d9").unwrap(),
        };
        keyed((7, 1), call)
    };
    world.ask(added());
    world.ask(added());
    assert!(world.cluster().repeats().is_empty());
    let records = world.records().into_iter();
    let told = records.filter(|record| matches!(record, Record::Audited(_)));
    assert_eq!(told.count(), 2, "each is told");
}
