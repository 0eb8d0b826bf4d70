//! Folding a cluster whose history after a backup is lost (S3, R16).

use std::time::Duration;

use super::{Log, assumed, opened, service, spec};
use crate::cluster::{Cluster, EraError, LOST, NewEra, Outcome, Refused, State};
use crate::history::Change;
use crate::ids::{Era, Position, SessionId, Token};
use crate::record::{Desired, Record};

const NEW: NewEra = NewEra {
    era: Era(0),
    longest_lease: Duration::ZERO,
    history: 77,
    wall: crate::time::WallTime(0),
};

/// Session 1 holds `p`.
fn hold(log: &mut Log) {
    let (partition, token) = (log.id("p"), log.cluster.next_token());
    log.accept(vec![Record::Assigned {
        partition,
        session: SessionId(1),
        token,
    }]);
    log.accept(vec![assumed(partition, 1, token)]);
}

fn restored(log: &Log) -> Log {
    let mut log = Log {
        cluster: log.cluster.clone().in_new_era(NEW).unwrap().cluster,
        ..Log::default()
    };
    assert_eq!(log.cluster.check(), Vec::<String>::new());
    log.elect();
    log
}

#[test]
fn every_number_of_a_new_era_is_above_all_of_earlier_ones() {
    let mut log = Log::with(&["p"]);
    hold(&mut log);
    let old = log.cluster.clone();
    let new = restored(&log).cluster;
    let above = 1 << 40;
    assert_eq!(new.era(), Era(1));
    assert!(new.position().0 > above && new.epoch().0 > above);
    assert!(new.next_session().0 > above && new.next_incarnation().0 > above);
    assert!(new.next_token() > Token::new(Era(0), (1 << 40) - 1));
    assert!(new.next_token().0 < 1 << 53 && new.position().0 < 1 << 53);
    assert!(old.position() < Position(above));
}

#[test]
fn what_a_lost_history_may_have_granted_keeps_everything_from_being_given_away() {
    let mut log = Log::with(&["p", "q"]);
    hold(&mut log);
    let mut log = restored(&log);
    let open = opened(&log.cluster, "c", 3);
    log.accept(vec![open]);
    let session = log.cluster.sessions().keys().next_back().copied().unwrap();
    let partition = log.id("q");
    let assign = |log: &Log| Record::Assigned {
        partition,
        session,
        token: log.cluster.next_token(),
    };
    let epoch = log.cluster.epoch();
    let early = assign(&log);
    let outcomes = log.fold(epoch, vec![early]).outcomes;
    assert_eq!(outcomes, [Outcome::Refused(Refused::Lost)]);
    let applied = log.fold(epoch, vec![Record::SessionExpired { session: LOST }]);
    assert_eq!(applied.outcomes, [Outcome::Accepted]);
    assert!(applied.changes.contains(&Change::EraBegan { era: Era(1) }));
    // With it ends what was held by the backup.
    let p = log.id("p");
    let p = log.cluster.partition(p).unwrap().state().clone();
    assert!(matches!(p, State::Unassigned(_)), "{p:?}");
    assert!(log.cluster.session(SessionId(1)).is_none());
    let now = assign(&log);
    log.accept(vec![now]);
    assert_eq!(log.cluster.check(), Vec::<String>::new());
    let twice = log.fold(epoch, vec![Record::SessionExpired { session: LOST }]);
    assert_eq!(twice.outcomes, [Outcome::Refused(Refused::NoSession)]);
}

#[test]
fn an_assignment_of_before_cannot_be_assumed() {
    let mut log = Log::with(&["p"]);
    let partition = log.id("p");
    let token = log.cluster.next_token();
    let session = SessionId(1);
    log.accept(vec![Record::Assigned {
        partition,
        session,
        token,
    }]);
    let mut log = restored(&log);
    let epoch = log.cluster.epoch();
    let claim = assumed(partition, 1, token);
    let outcomes = log.fold(epoch, vec![claim]).outcomes;
    assert_eq!(outcomes, [Outcome::Refused(Refused::NoSession)]);
}

#[test]
fn kept_work_comes_back_stopped() {
    let mut log = Log::with(&["p"]);
    let kept = crate::spec::ServiceSpec {
        isolation: crate::spec::Isolation::Keep,
        ..*spec("x")
    };
    log.accept(vec![Record::ServicePut {
        name: service("kept"),
        spec: Box::new(kept),
    }]);
    let restored = log.cluster.clone().in_new_era(NEW).unwrap();
    assert_eq!(restored.stopped, [service("kept")]);
    let desired = |name| restored.cluster.service(&service(name)).unwrap().desired();
    assert_eq!(desired("kept"), Desired::Stopped);
    assert_eq!(desired("s"), Desired::Running);
}

#[test]
fn a_restored_state_is_kept_and_no_older_build_takes_it_over() {
    let log = restored(&Log::with(&["p"]));
    let bytes = log.cluster.encode();
    assert_eq!(Cluster::decode(&bytes).unwrap(), log.cluster);
    let format = b"\xa6format\x02";
    assert!(
        bytes.windows(format.len()).any(|window| window == format),
        "builds that know no eras read format 1 only"
    );
}

#[test]
fn eras_rise_and_end() {
    let cluster = Log::with(&["p"]).cluster;
    let third = NewEra { era: Era(3), ..NEW };
    let cluster = cluster.in_new_era(third).unwrap().cluster;
    assert_eq!(cluster.era(), Era(3));
    let again = cluster.clone().in_new_era(third).unwrap_err();
    let (asked, backup) = (Era(3), Era(3));
    assert_eq!(again, EraError::NotAbove { asked, backup });
    let last = NewEra {
        era: Era::LAST,
        ..NEW
    };
    let cluster = cluster.in_new_era(last).unwrap().cluster;
    assert_eq!(cluster.in_new_era(NEW).unwrap_err(), EraError::Spent);
}
