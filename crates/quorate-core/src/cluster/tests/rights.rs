//! Who may run what, by example.

use super::*;
use crate::cluster::{Freed, Holder, State};
use crate::history::{Change, What};
use crate::record::{
    Cause, CloseReason, Desired, Exit, ExitClass, MoveReason, ReleaseOutcome, RunPhase, RunReport,
};

fn released(partition: PartitionId, token: Token, outcome: ReleaseOutcome) -> Record {
    Record::Released {
        partition,
        token,
        outcome,
        exit: None,
        failures: 3,
    }
}

fn removed(name: &str) -> Record {
    Record::PartitionsRemoved {
        service: service("s"),
        keys: vec![key(name)],
    }
}

fn put(name: &str, data: Option<&str>) -> Record {
    Record::PartitionsPut {
        service: service("s"),
        partitions: vec![partition(name, data)],
    }
}

fn desired(name: Option<&str>, desired: Desired) -> Record {
    Record::DesiredSet {
        service: service("s"),
        key: name.map(key),
        desired,
    }
}

#[test]
fn an_expiry_frees_everything_of_its_session_and_late_claims_are_refused() {
    let mut log = Log::with(&["p", "q", "r"]);
    let p = log.assume("p", 1);
    let q = log.assign("q", 1);
    let r = log.assume("r", 2);
    let expired = Record::SessionExpired {
        session: SessionId(1),
    };
    let changes = log.apply(vec![expired.clone()]).changes;
    assert!(matches!(
        &changes[0],
        Change::SessionExpired { freed: 2, .. }
    ));
    assert!(matches!(
        log.state("p"),
        State::Unassigned(Freed::Expired { .. })
    ));
    assert!(matches!(
        log.state("q"),
        State::Unassigned(Freed::Expired { .. })
    ));
    assert!(matches!(log.state("r"), State::Assumed(holder) if holder.token == r));
    log.refuse(assumed(log.id("q"), 1, q), Refused::NoSession);
    log.refuse(
        released(log.id("p"), p, ReleaseOutcome::Stopped),
        Refused::NotHolder,
    );
    log.refuse(expired, Refused::NoSession);
}

#[test]
fn a_held_partition_is_never_assigned_again_and_no_token_is_used_twice() {
    let mut log = Log::with(&["p", "q"]);
    let token = log.assume("p", 1);
    let assigned = |log: &Log, name: &str, session, token| Record::Assigned {
        partition: log.id(name),
        session: SessionId(session),
        token,
    };
    let next = log.cluster.next_token();
    let record = assigned(&log, "p", 2, next);
    log.refuse(record, Refused::Held);
    // The refused one used its token up.
    for used in [token, next] {
        let record = assigned(&log, "q", 2, used);
        log.refuse(record, Refused::Token);
    }
    let next = log.cluster.next_token();
    let record = assigned(&log, "q", 77, next);
    log.refuse(record, Refused::NoSession);
    assert!(log.assign("q", 2) > next);
}

#[test]
fn only_the_assigned_session_may_assume_and_only_with_that_token() {
    let mut log = Log::with(&["p"]);
    let token = log.assign("p", 1);
    let id = log.id("p");
    log.refuse(assumed(id, 2, token), Refused::NotHolder);
    log.refuse(assumed(id, 1, Token(token.0 + 1)), Refused::NotHolder);
    log.refuse(
        released(id, token, ReleaseOutcome::Stopped),
        Refused::NotHolder,
    );
    log.accept(vec![assumed(id, 1, token)]);
    log.refuse(assumed(id, 1, token), Refused::NotHolder);
    log.refuse(
        Record::Withdrawn {
            partition: id,
            token,
            reason: MoveReason::Balance,
        },
        Refused::NotHolder,
    );
}

#[test]
fn what_is_assumed_comes_back_only_by_its_release() {
    let mut log = Log::with(&["p"]);
    let token = log.assume("p", 1);
    let id = log.id("p");
    log.accept(vec![Record::Revoked {
        partition: id,
        token,
        reason: MoveReason::Drain,
    }]);
    let holder = Holder {
        session: SessionId(1),
        token,
    };
    assert_eq!(*log.state("p"), State::Stopping(holder, MoveReason::Drain));
    let next = log.cluster.next_token();
    log.refuse(
        Record::Assigned {
            partition: id,
            session: SessionId(2),
            token: next,
        },
        Refused::Held,
    );
    log.accept(vec![released(id, token, ReleaseOutcome::Stopped)]);
    let taken = log.cluster.partition(id).unwrap().freed().unwrap();
    assert!(
        matches!(taken, Freed::Taken { reason: MoveReason::Drain, from } if from.as_str() == "a")
    );
    assert_eq!(log.cluster.partition(id).unwrap().failures(), 3);
}

#[test]
fn removing_frees_what_does_not_run_and_stops_what_does() {
    let mut log = Log::with(&["idle", "chosen", "runs"]);
    log.assign("chosen", 1);
    let token = log.assume("runs", 1);
    let id = log.id("runs");
    log.accept(vec![removed("idle"), removed("chosen"), removed("runs")]);
    assert_eq!(log.cluster.partition_count(), 1);
    assert!(matches!(
        log.state("runs"),
        State::Stopping(_, MoveReason::Removed)
    ));
    log.accept(vec![released(id, token, ReleaseOutcome::Stopped)]);
    assert_eq!(log.cluster.partition_count(), 0);
}

#[test]
fn what_comes_back_while_it_stops_gets_a_new_token_after_its_release() {
    let mut log = Log::with(&["p"]);
    let token = log.assume("p", 1);
    let id = log.id("p");
    log.accept(vec![removed("p"), put("p", Some("1"))]);
    let partition = log.cluster.partition(id).unwrap();
    assert!(!partition.doomed());
    assert!(matches!(partition.state(), State::Stopping(..)));
    log.accept(vec![released(id, token, ReleaseOutcome::Stopped)]);
    assert_eq!(log.id("p"), id);
    assert!(log.assume("p", 2) > token);
}

#[test]
fn a_removed_service_goes_with_its_last_run_and_may_come_back_before() {
    let mut log = Log::with(&["p", "q"]);
    let token = log.assume("p", 1);
    let id = log.id("p");
    log.accept(vec![Record::ServiceRemoved { name: service("s") }]);
    assert!(log.cluster.service(&service("s")).is_none());
    assert_eq!(log.cluster.services().count(), 1);
    log.refuse(put("p", None), Refused::NoService);
    let mut back = Log {
        cluster: log.cluster.clone(),
        entries: log.entries.clone(),
    };
    log.accept(vec![released(id, token, ReleaseOutcome::Stopped)]);
    assert_eq!(log.cluster.services().count(), 0);

    back.accept(vec![
        Record::ServicePut {
            name: service("s"),
            spec: spec("x"),
        },
        put("p", None),
        released(id, token, ReleaseOutcome::Stopped),
    ]);
    assert!(back.cluster.service(&service("s")).is_some());
    assert!(back.cluster.wanted(back.cluster.partition(id).unwrap()));
}

#[test]
fn what_is_done_or_failed_stays_down_until_it_is_started_and_new_data_forgives_a_failure() {
    for (outcome, forgiven) in [
        (ReleaseOutcome::Done, false),
        (ReleaseOutcome::Failed, true),
    ] {
        let mut log = Log::with(&["p"]);
        let token = log.assume("p", 1);
        let id = log.id("p");
        log.accept(vec![released(id, token, outcome)]);
        let token = log.cluster.next_token();
        let again = Record::Assigned {
            partition: id,
            session: SessionId(1),
            token,
        };
        log.refuse(again, Refused::NotWanted);
        log.accept(vec![put("p", Some("2"))]);
        let wanted = |log: &Log| log.cluster.wanted(log.cluster.partition(id).unwrap());
        assert_eq!(wanted(&log), forgiven, "{outcome:?}");
        log.accept(vec![desired(None, Desired::Running)]);
        assert!(wanted(&log));
        assert_eq!(log.cluster.partition(id).unwrap().failures(), 0);
    }
}

#[test]
fn stopping_a_service_stops_runs_and_starting_it_leaves_single_stops_alone() {
    let mut log = Log::with(&["p", "q"]);
    let token = log.assume("p", 1);
    log.assign("q", 1);
    let id = log.id("p");
    log.accept(vec![
        desired(Some("q"), Desired::Stopped),
        desired(None, Desired::Stopped),
    ]);
    assert!(matches!(
        log.state("p"),
        State::Stopping(_, MoveReason::Stopped)
    ));
    assert!(matches!(log.state("q"), State::Unassigned(_)));
    log.accept(vec![
        released(id, token, ReleaseOutcome::Stopped),
        desired(None, Desired::Running),
    ]);
    let wanted = |name| {
        log.cluster
            .wanted(log.cluster.partition(log.id(name)).unwrap())
    };
    assert!(wanted("p"));
    assert!(!wanted("q"));
}

#[test]
fn a_restart_reaches_what_runs_and_counts_up() {
    let mut log = Log::with(&["p", "q"]);
    log.assume("p", 1);
    let ask = Record::RestartAsked {
        service: service("s"),
        key: None,
    };
    log.accept(vec![ask.clone(), ask]);
    let count = |name| {
        log.cluster
            .partition(log.id(name))
            .unwrap()
            .restarts_asked()
    };
    assert_eq!((count("p"), count("q")), (2, 0));
    let at = log.cluster.position();
    assert_eq!(log.cluster.session(SessionId(1)).unwrap().changed(), at);
}

#[test]
fn closing_frees_everything_and_remembers_why() {
    let mut log = Log::with(&["p"]);
    log.assume("p", 1);
    log.accept(vec![Record::SessionClosed {
        session: SessionId(1),
        reason: CloseReason::WardenDied,
    }]);
    let freed = log.cluster.partition(log.id("p")).unwrap().freed();
    assert!(matches!(
        freed,
        Some(Freed::Closed {
            reason: CloseReason::WardenDied,
            ..
        })
    ));
}

#[test]
fn reports_of_a_run_become_a_start_a_readiness_and_an_end_once_each() {
    let mut log = Log::with(&["p"]);
    let token = log.assume("p", 1);
    let report = |phase, attempt, exit| Record::Observed {
        partition: log.cluster.partition_id(&service("s"), &key("p")).unwrap(),
        token,
        run: RunReport {
            phase,
            attempt,
            pid: Some(9),
            exit,
        },
    };
    let exit = Exit {
        class: ExitClass::Crash,
        code: Some(1),
        signal: None,
        cause: Some(Cause::new("no such file")),
    };
    let ended = Some(Box::new(exit.clone()));
    let reports = vec![
        report(RunPhase::Starting, 1, None),
        report(RunPhase::Ready, 1, None),
        report(RunPhase::Ready, 1, None),
        report(RunPhase::Backoff, 1, ended.clone()),
        report(RunPhase::Ready, 2, ended.clone()),
        // This one began and ended between two reports.
        report(RunPhase::Backoff, 3, ended.clone()),
        report(RunPhase::Starting, 4, ended),
        Record::Released {
            partition: log.id("p"),
            token,
            outcome: ReleaseOutcome::Failed,
            exit: Some(exit.clone()),
            failures: 3,
        },
    ];
    let changes = log.apply(reports).changes;
    let told = changes.iter().map(|change| {
        let Change::Partition { what, .. } = change else {
            panic!("{change}");
        };
        what.clone()
    });
    let started = |attempt| What::Started {
        attempt,
        pid: Some(9),
    };
    let exited = |attempt| What::Exited {
        attempt,
        exit: exit.clone(),
    };
    let expected = [
        started(1),
        What::Ready,
        exited(1),
        started(2),
        What::Ready,
        started(3),
        exited(3),
        started(4),
        exited(4),
        What::Released {
            outcome: ReleaseOutcome::Failed,
            exit: Some(exit.clone()),
        },
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}
