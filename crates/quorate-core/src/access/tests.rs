//! Who may do what, as tables; and tokens under random use.

use proptest::prelude::*;

use super::*;
use crate::ids::{AgentName, Position, ServiceName};

fn token(role: Role, scope: Option<&str>) -> Principal {
    Principal::Token {
        id: CredentialId::new("t1").unwrap(),
        name: TokenName::new("ci").unwrap(),
        role,
        scope: scope.map(|scope| ServicePrefix::new(scope).unwrap()),
    }
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

#[test]
fn each_role_may_what_those_before_it_may_and_one_thing_more() {
    for (rank, role) in Role::ALL.into_iter().enumerate() {
        for (needed, verb) in Verb::ALL.into_iter().enumerate() {
            let decided = decide(&token(role, None), verb, Object::Cluster);
            assert_eq!(decided.is_ok(), rank >= needed, "{role} to {verb}");
        }
    }
    let denied = decide(
        &token(Role::Viewer, None),
        Verb::Define,
        Object::Service(&service("s")),
    );
    let denied = denied.unwrap_err();
    assert_eq!(
        denied.to_string(),
        "token \"ci\" has the role viewer, and to define what is executed takes the role definer"
    );
    assert!(denied.next_step().contains("--role definer"));
}

#[test]
fn a_scope_is_compared_with_the_name_of_the_object_itself() {
    let agent = AgentName::new("feeds-1").unwrap();
    let (inside, outside, almost) = (service("feeds-eu"), service("imports"), service("feeds"));
    for verb in [Verb::Read, Verb::Operate, Verb::Define] {
        let scoped = token(Role::Definer, Some("feeds-"));
        assert_eq!(decide(&scoped, verb, Object::Service(&inside)), Ok(()));
        for name in [&outside, &almost] {
            let denied = decide(&scoped, verb, Object::Service(name)).unwrap_err();
            assert!(matches!(denied, Denied::Scope { .. }), "{denied}");
            assert!(denied.to_string().contains("feeds-"), "{denied}");
        }
        // What serves all services is none of one team's, even when its name begins so; looking does no harm.
        for object in [Object::Cluster, Object::Agent(&agent)] {
            let decided = decide(&scoped, verb, object);
            assert_eq!(decided.is_ok(), verb == Verb::Read, "{verb}");
        }
    }
    assert!(token(Role::Viewer, Some("feeds-")).sees(&inside));
    assert!(!token(Role::Viewer, Some("feeds-")).sees(&outside));
}

#[test]
fn a_machine_does_nothing_that_people_do() {
    for node in [Node::Agent, Node::Director] {
        let name = NodeName::new("a1").unwrap();
        let machine = Principal::Machine { node, name };
        for verb in Verb::ALL {
            let denied = decide(&machine, verb, Object::Cluster).unwrap_err();
            assert!(matches!(denied, Denied::Machine { .. }), "{denied}");
        }
    }
    for verb in Verb::ALL {
        assert_eq!(decide(&Principal::Local, verb, Object::Cluster), Ok(()));
    }
}

#[test]
fn what_changed_is_read_from_the_history_as_it_was_written() {
    let id = id("t1");
    let changes = [
        crate::history::Change::Access(Change::TokenCreated {
            id: id.clone(),
            name: TokenName::new("n").unwrap(),
            role: Role::Admin,
        }),
        crate::history::Change::Access(Change::JoinTokenRevoked { id }),
        crate::history::Change::Audited(crate::audit::Audit {
            by: crate::audit::By {
                who: crate::audit::Who::Local,
                from: None,
            },
            did: "stop".to_owned(),
            to: vec!["service/s".to_owned()],
            more: 0,
            records: 1,
        }),
    ];
    for change in changes {
        let text = serde_json::to_string(&change).unwrap();
        let read: crate::history::Change = serde_json::from_str(&text).unwrap();
        assert_eq!(read, change, "{text}");
    }
}

const HOUR: i64 = 3_600_000;

fn id(text: &str) -> CredentialId {
    CredentialId::new(text).unwrap()
}

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn created(number: usize, role: Role, expires: Option<i64>) -> Record {
    Record::TokenCreated(Box::new(TokenGrant {
        id: id(&format!("t{number}")),
        hash: "h".to_owned(),
        name: TokenName::new("n").unwrap(),
        role,
        scope: None,
        expires: expires.map(WallTime),
        bootstrap: false,
    }))
}

fn join(uses: u32, expires: i64) -> Record {
    Record::JoinTokenCreated(Box::new(JoinGrant {
        id: id("j"),
        hash: "h".to_owned(),
        admits: Node::Agent,
        uses,
        expires: WallTime(expires),
    }))
}

fn admitted(node: Node, who: &str, request: &str) -> Record {
    Record::Admitted(Box::new(Admission {
        token: id("j"),
        node,
        name: name(who),
        request: request.to_owned(),
    }))
}

/// Credentials with a clock of their own.
#[derive(Default)]
struct Log {
    credentials: Credentials,
    at: u64,
    wall: i64,
}

impl Log {
    fn fold(&mut self, record: Record) -> Result<bool, Refused> {
        self.at += 1;
        let when = (Position(self.at), WallTime(self.wall));
        let changed = self.credentials.fold(when, record, false)?;
        assert_eq!(self.credentials.contradictions(), Vec::<String>::new());
        Ok(changed.is_some())
    }
}

#[test]
fn a_join_token_lets_in_as_many_as_it_says_of_its_kind_and_for_its_time() {
    let mut log = Log::default();
    assert_eq!(
        log.fold(admitted(Node::Agent, "a1", "r1")),
        Err(Refused::Unknown)
    );
    assert_eq!(log.fold(join(2, HOUR)), Ok(true));
    assert_eq!(
        log.fold(admitted(Node::Director, "a1", "r1")),
        Err(Refused::OtherKind)
    );
    assert_eq!(log.fold(admitted(Node::Agent, "a1", "r1")), Ok(true));
    assert_eq!(
        log.fold(admitted(Node::Agent, "a1", "r1")),
        Ok(false),
        "a repeat"
    );
    assert_eq!(
        log.fold(admitted(Node::Agent, "a1", "r2")),
        Ok(true),
        "another key"
    );
    assert_eq!(
        log.fold(admitted(Node::Agent, "a2", "r3")),
        Err(Refused::UsedUp)
    );
    assert_eq!(
        log.fold(admitted(Node::Agent, "a1", "r2")),
        Ok(false),
        "a repeat of the last"
    );
    log.wall = HOUR;
    assert_eq!(
        log.fold(admitted(Node::Agent, "a1", "r1")),
        Err(Refused::Expired)
    );

    let mut log = Log::default();
    log.fold(join(5, HOUR)).unwrap();
    assert_eq!(log.fold(Record::JoinTokenRevoked { id: id("j") }), Ok(true));
    assert_eq!(
        log.fold(Record::JoinTokenRevoked { id: id("j") }),
        Ok(false)
    );
    assert_eq!(
        log.fold(admitted(Node::Agent, "a1", "r1")),
        Err(Refused::Revoked)
    );
}

#[test]
fn what_would_outlast_its_bounds_is_refused() {
    let mut log = Log {
        wall: 5,
        ..Log::default()
    };
    let longest = i64::try_from(JOIN_TTL_MAX.as_millis()).unwrap();
    for (record, why) in [
        (join(0, HOUR), Refused::Uses),
        (join(USES_MAX + 1, HOUR), Refused::Uses),
        (join(1, 5), Refused::Expiry),
        (join(1, longest + 6), Refused::Expiry),
        (created(1, Role::Viewer, Some(5)), Refused::Expiry),
        (Record::TokenRevoked { id: id("t1") }, Refused::Unknown),
    ] {
        assert_eq!(log.fold(record.clone()), Err(why), "{record:?}");
    }
    let Record::TokenCreated(mut admin) = created(1, Role::Admin, None) else {
        unreachable!()
    };
    admin.scope = Some(ServicePrefix::new("s").unwrap());
    assert_eq!(
        log.fold(Record::TokenCreated(admin)),
        Err(Refused::ScopedAdmin)
    );
    assert_eq!(log.fold(join(USES_MAX, longest + 5)), Ok(true));
    assert_eq!(log.fold(created(1, Role::Admin, None)), Ok(true));
    assert_eq!(
        log.fold(created(1, Role::Viewer, None)),
        Err(Refused::Known)
    );
}

#[test]
fn there_are_at_most_so_many_and_the_oldest_that_ended_are_forgotten() {
    let mut log = Log::default();
    for number in 0..LIVE_MAX {
        log.fold(created(number, Role::Viewer, None)).unwrap();
    }
    let more = created(LIVE_MAX, Role::Viewer, None);
    assert_eq!(log.fold(more), Err(Refused::TooMany));
    for number in 0..ENDED_MAX + 10 {
        let id = id(&format!("t{number}"));
        log.fold(Record::TokenRevoked { id }).unwrap();
    }
    log.fold(created(5000, Role::Viewer, None)).unwrap();
    let known = log.credentials.tokens();
    assert!(!known.contains_key(&id("t0")) && !known.contains_key(&id("t9")));
    assert!(known.contains_key(&id("t10")));
    assert_eq!(known.len(), LIVE_MAX + 1 - 10);
}

#[test]
fn what_came_from_a_folder_is_not_forgotten_when_it_was_revoked() {
    let mut log = Log::default();
    let Record::TokenCreated(mut first) = created(9999, Role::Admin, None) else {
        unreachable!()
    };
    first.bootstrap = true;
    log.fold(Record::TokenCreated(first)).unwrap();
    assert!(log.credentials.has_admin(WallTime(0)));
    log.fold(Record::TokenRevoked { id: id("t9999") }).unwrap();
    assert!(!log.credentials.has_admin(WallTime(0)));
    for number in 0..ENDED_MAX * 2 {
        log.wall += 2;
        let expires = Some(log.wall + 1);
        log.fold(created(number, Role::Viewer, expires)).unwrap();
    }
    assert!(log.credentials.tokens().contains_key(&id("t9999")));
    assert!(log.credentials.tokens().len() <= ENDED_MAX + 2);
}

proptest! {
    /// However it is used, repeated and timed: never more machines than uses, none after its end.
    #[test]
    fn a_join_token_is_never_used_more_often_than_it_may(
        uses in 1_u32..4,
        steps in prop::collection::vec((0_u8..4, 0_u8..6, 0_i64..HOUR / 4), 1..40),
    ) {
        let mut log = Log::default();
        log.fold(join(uses, HOUR)).unwrap();
        let mut let_in = std::collections::BTreeSet::new();
        for (who, request, passed) in steps {
            log.wall += passed;
            let (who, request) = (format!("a{who}"), format!("r{request}"));
            let record = admitted(Node::Agent, &who, &request);
            if let Ok(new) = log.fold(record) {
                prop_assert!(log.wall < HOUR);
                prop_assert_eq!(let_in.insert((who, request)), new);
            }
            prop_assert!(let_in.len() <= uses as usize);
            let left = log.credentials.join_tokens()[&id("j")].left();
            prop_assert_eq!(left as usize, uses as usize - let_in.len());
        }
    }
}
