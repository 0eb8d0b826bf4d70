//! What is sent comes back the same, and one byte more or less of it is no message.

use std::collections::{BTreeMap, BTreeSet};

use openraft::Membership;

use super::*;
use crate::types::Member;

fn back<T: Serialize + de::DeserializeOwned>(message: &T) -> T {
    rmp_serde::from_slice(&rmp_serde::to_vec_named(message).unwrap()).unwrap()
}

fn membership() -> Membership<u64, Member> {
    let member = |name: &str| Member {
        name: name.to_owned(),
        address: format!("{name}:7402"),
    };
    let nodes = BTreeMap::from([(1, member("d1")), (2, member("d2"))]);
    let configs = vec![BTreeSet::from([1]), BTreeSet::from([1, 2])];
    Membership::new(configs, nodes).unwrap()
}

fn append() -> AppendEntriesRequest<Types> {
    let proposal = Proposal {
        at: Position(7),
        epoch: Epoch(2),
        entry: Arc::from(&b"\x00hello\xff"[..]),
    };
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(proposal),
        EntryPayload::Membership(membership()),
    ];
    let entry = |(index, payload)| types::Entry {
        log_id: log_id(3, index),
        payload,
    };
    AppendEntriesRequest {
        vote: types::Vote::new_committed(3, 1),
        prev_log_id: Some(log_id(2, 8)),
        leader_commit: Some(log_id(2, 7)),
        entries: (9..).zip(payloads).map(entry).collect(),
    }
}

#[test]
fn records_come_back_as_they_were_sent() {
    let sent = append();
    let wire = back(&Append::from(sent.clone()));
    let received = AppendEntriesRequest::try_from(wire).unwrap();
    assert_eq!(received.vote, sent.vote);
    assert_eq!(received.prev_log_id, sent.prev_log_id);
    assert_eq!(received.leader_commit, sent.leader_commit);
    assert_eq!(received.entries, sent.entries);
}

#[test]
fn an_entry_takes_few_bytes_more_than_it_has() {
    let mut request = append();
    request.entries.truncate(2);
    let mut large = request.clone();
    if let EntryPayload::Normal(proposal) = &mut large.entries[1].payload {
        proposal.entry = Arc::from(vec![0xee; 1007]);
    }
    let size = |request: AppendEntriesRequest<Types>| {
        rmp_serde::to_vec_named(&Append::from(request))
            .unwrap()
            .len()
    };
    assert_eq!(
        size(large) - size(request),
        1001,
        "1000 bytes and a longer length"
    );
}

#[test]
fn every_answer_comes_back_as_it_was_given() {
    let vote = types::Vote::new(4, 2);
    for response in [
        AppendEntriesResponse::Success,
        AppendEntriesResponse::PartialSuccess(None),
        AppendEntriesResponse::PartialSuccess(Some(log_id(1, 5))),
        AppendEntriesResponse::Conflict,
        AppendEntriesResponse::HigherVote(vote),
    ] {
        let wire = back(&Answer::Append(response.clone().into()));
        let Answer::Append(appended) = wire else {
            panic!("it is the same kind of answer")
        };
        assert_eq!(AppendEntriesResponse::from(appended), response);
    }
    let last = Some(log_id(2, 6));
    for granted in [true, false] {
        let response = VoteResponse::new(vote, last, granted);
        assert_eq!(
            VoteResponse::from(back(&Voted::from(response.clone()))),
            response
        );
        let mut request = VoteRequest::new(vote, last);
        request.leadership_transfer = granted;
        assert_eq!(
            VoteRequest::from(back(&Ballot::from(request.clone()))),
            request
        );
    }
    let expected = types::Vote::new_committed(4, 2);
    for response in [
        Ok(()),
        Err(TransferLeaderError::VoteChanged {
            expected,
            actual: vote,
        }),
        Err(TransferLeaderError::LogNotFlushed {
            expected: last,
            actual: None,
        }),
    ] {
        let wire = back(&Transferred::from(response.clone()));
        assert_eq!(Result::from(wire), response);
    }
    let request = TransferLeaderRequest::new(expected, 2, last);
    assert_eq!(
        TransferLeaderRequest::from(back(&Transfer::from(request.clone()))),
        request
    );
}

#[test]
fn the_head_of_a_snapshot_comes_back_as_it_was_sent() {
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(3, 40)),
        last_membership: types::StoredMembership::new(Some(log_id(2, 11)), membership()),
    };
    let head = back(&SnapshotHead::new(
        types::Vote::new_committed(3, 1),
        99,
        &meta,
    ));
    assert_eq!((head.bytes, head.meta().unwrap()), (99, meta));
}

#[test]
fn a_field_that_a_newer_version_adds_to_the_greeting_is_passed_over() {
    #[derive(Serialize)]
    struct Newer {
        greeting: &'static str,
        oldest: u16,
        newest: u16,
        cluster: u64,
        from: u64,
        to: u64,
        empty: bool,
        mood: &'static str,
    }
    let newer = Newer {
        greeting: GREETING,
        oldest: 1,
        newest: 9,
        cluster: 5,
        from: 1,
        to: 2,
        empty: false,
        mood: "good",
    };
    let read: Hello = rmp_serde::from_slice(&rmp_serde::to_vec_named(&newer).unwrap()).unwrap();
    assert_eq!((read.newest, read.to), (9, 2));
}

#[test]
fn a_message_that_is_cut_short_is_no_message() {
    let bytes = rmp_serde::to_vec_named(&Request::Append(append().into())).unwrap();
    for size in 0..bytes.len() {
        assert!(
            rmp_serde::from_slice::<Request>(&bytes[..size]).is_err(),
            "{size}"
        );
    }
}
