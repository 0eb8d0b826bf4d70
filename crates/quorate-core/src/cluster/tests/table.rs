//! The life of a partition, every record in every state.

use super::*;
use crate::cluster::{Freed, State};
use crate::record::{CloseReason, Desired, MoveReason, ReleaseOutcome, RunPhase, RunReport};

/// A partition `p` in one state; agent `a` has session 1 and is the holder where there is one.
fn states() -> Vec<(&'static str, Log, Token)> {
    let new = || Log::with(&["p"]);
    let none = Token::new(crate::ids::Era(0), 0);
    let mut stopped = new();
    stopped.accept(vec![desired(Desired::Stopped)]);
    let mut ended = new();
    let token = ended.assume("p", 1);
    let released = released(&ended, token, ReleaseOutcome::Done);
    ended.accept(vec![released]);
    let mut assigned = new();
    let of_assigned = assigned.assign("p", 1);
    let mut assumed = new();
    let of_assumed = assumed.assume("p", 1);
    let mut stopping = new();
    let of_stopping = stopping.assume("p", 1);
    let revoked = revoked(&stopping, of_stopping);
    stopping.accept(vec![revoked]);
    vec![
        ("new", new(), none),
        ("new, to be stopped", stopped, none),
        ("done", ended, none),
        ("assigned", assigned, of_assigned),
        ("assumed", assumed, of_assumed),
        ("stopping", stopping, of_stopping),
    ]
}

fn desired(desired: Desired) -> Record {
    Record::DesiredSet {
        service: service("s"),
        key: Some(key("p")),
        desired,
    }
}

fn released(log: &Log, token: Token, outcome: ReleaseOutcome) -> Record {
    Record::Released {
        partition: log.id("p"),
        token,
        outcome,
        exit: None,
        failures: 0,
    }
}

fn revoked(log: &Log, token: Token) -> Record {
    Record::Revoked {
        partition: log.id("p"),
        token,
        reason: MoveReason::Balance,
    }
}

/// Every record that can change the state of a partition, by the holder's token and by another one.
fn records(log: &Log, token: Token) -> Vec<(&'static str, Record)> {
    let partition = log.id("p");
    let next = log.cluster.next_token();
    let assigned = |session: u64, token: Token| Record::Assigned {
        partition,
        session: SessionId(session),
        token,
    };
    let withdrawn = |token: Token| Record::Withdrawn {
        partition,
        token,
        reason: MoveReason::Balance,
    };
    let observed = |token: Token| Record::Observed {
        partition,
        token,
        run: RunReport {
            phase: RunPhase::Ready,
            attempt: 1,
            pid: Some(7),
            exit: None,
        },
    };
    let session = SessionId(1);
    let reason = CloseReason::Left;
    vec![
        ("assigned to b, next token", assigned(2, next)),
        ("assigned to b, old token", assigned(2, token)),
        ("assigned to nobody's session", assigned(99, next)),
        ("withdrawn", withdrawn(token)),
        ("withdrawn, other token", withdrawn(next)),
        ("assumed by its holder", assumed(partition, 1, token)),
        ("assumed by b", assumed(partition, 2, token)),
        ("assumed, other token", assumed(partition, 1, next)),
        ("revoked", revoked(log, token)),
        ("revoked, other token", revoked(log, next)),
        (
            "released stopped",
            released(log, token, ReleaseOutcome::Stopped),
        ),
        (
            "released to move",
            released(log, token, ReleaseOutcome::Move),
        ),
        ("released done", released(log, token, ReleaseOutcome::Done)),
        (
            "released failed",
            released(log, token, ReleaseOutcome::Failed),
        ),
        (
            "released, other token",
            released(log, next, ReleaseOutcome::Done),
        ),
        ("seen ready", observed(token)),
        ("seen ready, other token", observed(next)),
        (
            "session of a closed",
            Record::SessionClosed { session, reason },
        ),
        ("session of a expired", Record::SessionExpired { session }),
        ("to be stopped", desired(Desired::Stopped)),
        ("to run", desired(Desired::Running)),
        (
            "restart asked",
            Record::RestartAsked {
                service: service("s"),
                key: Some(key("p")),
            },
        ),
        (
            "taken off the list",
            Record::PartitionsRemoved {
                service: service("s"),
                keys: vec![key("p")],
            },
        ),
        (
            "service removed",
            Record::ServiceRemoved { name: service("s") },
        ),
    ]
}

fn shown(log: &Log) -> String {
    let Some(id) = log.cluster.partition_id(&service("s"), &key("p")) else {
        return "gone".to_owned();
    };
    let partition = log.cluster.partition(id).unwrap();
    let state = match partition.state() {
        State::Unassigned(Freed::New) => "free, new".to_owned(),
        State::Unassigned(Freed::Taken { reason, .. }) => format!("free, taken for {reason:?}"),
        State::Unassigned(Freed::GivenBack { outcome, .. }) => {
            format!("free, gave back {outcome:?}")
        }
        State::Unassigned(Freed::Expired { .. }) => "free, expired".to_owned(),
        State::Unassigned(Freed::Closed { .. }) => "free, closed".to_owned(),
        State::Assigned(holder) => format!("assigned to {}", holder.session),
        State::Assumed(holder) => format!("assumed by {}", holder.session),
        State::Stopping(holder, reason) => format!("stopping at {} for {reason:?}", holder.session),
    };
    let wanted = if log.cluster.wanted(partition) {
        ""
    } else {
        ", not wanted"
    };
    format!("{state}{wanted}")
}

#[test]
fn every_record_in_every_state_does_as_documented() {
    let mut table = String::new();
    let count = {
        let (_, log, token) = states().remove(0);
        records(&log, token).len()
    };
    for (from, _, _) in states() {
        for at in 0..count {
            let fresh = states().into_iter().find(|(name, _, _)| *name == from);
            let (_, mut log, token) = fresh.unwrap();
            let (what, record) = records(&log, token).swap_remove(at);
            let before = shown(&log);
            let outcome = match log.apply(vec![record]).outcomes[0] {
                Outcome::Accepted => String::new(),
                Outcome::Refused(refused) => format!(" (refused: {refused:?})"),
            };
            let after = shown(&log);
            let after = if after == before { "the same" } else { &after };
            table.push_str(&format!("{from} · {what} → {after}{outcome}\n"));
        }
    }
    insta::assert_snapshot!(table);
}
