//! The session protocol as a worker in any language speaks it.

use std::time::Duration;

use quorate_api::client::{Client, Error, Options};
use quorate_api::problem::Code;
use quorate_api::resources::AgentState;
use quorate_api::session::{
    CloseRequest, RenewRequest, RenewResponse, ReportRequest, ResumeRequest, SessionProof,
};
use serde_json::json;

use crate::desk::{CLUSTER, Desk, Worker, listed, registration, until};

pub(crate) fn renewal(worker: &Worker, counter: u64) -> RenewRequest {
    RenewRequest {
        incarnation: worker.opened.incarnation,
        counter,
        nonce: counter * 7,
        sent_ms: 0,
        also: Vec::new(),
    }
}

async fn renew(worker: &Worker, counter: u64) -> Result<RenewResponse, Error> {
    let (session, secret) = (worker.opened.session, &worker.secret);
    let request = renewal(worker, counter);
    worker.client.renew(session, secret, &request).await
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> Code {
    result.unwrap_err().problem().unwrap().code
}

#[tokio::test]
async fn a_worker_registers_renews_resumes_and_leaves() {
    let desk = Desk::start().await;
    let worker = Worker::join(&desk, "a1", 10_000).await;
    let again = desk
        .client
        .register(&registration("a1", 10_000))
        .await
        .unwrap();
    assert_eq!(again, worker.opened, "the same secret is the same session");
    assert_eq!(worker.opened.renew_every_ms, 2000);
    assert_eq!(worker.opened.cluster, CLUSTER.0);

    let answer = renew(&worker, 1).await.unwrap();
    assert_eq!(answer.renewed, [worker.opened.session]);
    let agents = desk.client.agents(None).await.unwrap().value;
    assert_eq!(agents.len(), 1);
    assert_eq!(
        (agents[0].name.as_str(), agents[0].state),
        ("a1", AgentState::Active)
    );
    assert!(agents[0].lease_margin_ms.unwrap() > 9000);

    let next = ResumeRequest { process: 8 };
    let resumed = desk
        .client
        .resume(worker.opened.session, &worker.secret, &next)
        .await
        .unwrap();
    assert!(resumed.incarnation > worker.opened.incarnation);
    let fenced = renew(&worker, 2).await.unwrap();
    assert!(
        fenced.renewed.is_empty() && fenced.lost.len() == 1,
        "the older process is fenced"
    );

    let leave = async |incarnation| {
        let close = CloseRequest {
            incarnation,
            reason: "left".to_owned(),
        };
        let (session, secret) = (worker.opened.session, &worker.secret);
        worker.client.close(session, secret, &close).await
    };
    let late = leave(Some(worker.opened.incarnation)).await;
    assert_eq!(code(late), Code::Fenced, "the older process leaves nothing");
    assert_eq!(code(leave(None).await), Code::MalformedRequest);
    leave(Some(resumed.incarnation)).await.unwrap();
    let agents = desk.client.agents(None).await.unwrap().value;
    assert_eq!(agents[0].state, AgentState::Gone);
    let lost = renew(&worker, 3).await.unwrap();
    assert_eq!(lost.lost[0].session, worker.opened.session);
    desk.stop().await;
}

#[tokio::test]
async fn only_the_secret_speaks_for_a_session() {
    let desk = Desk::start().await;
    let mut worker = Worker::join(&desk, "a1", 10_000).await;
    let other = Worker::join(&desk, "a2", 10_000).await;
    let mut request = renewal(&worker, 1);
    request.also = vec![SessionProof {
        session: other.opened.session,
        secret: "guess".to_owned(),
    }];
    let answer = worker
        .client
        .renew(worker.opened.session, &worker.secret, &request)
        .await
        .unwrap();
    assert_eq!(
        answer.renewed,
        [worker.opened.session],
        "a guess renews nothing"
    );
    assert!(answer.lost.is_empty(), "and a guess loses nothing");

    let id = worker.opened.session;
    worker.secret = "0".repeat(64);
    assert_eq!(code(renew(&worker, 2).await), Code::Unauthenticated);
    let work = worker
        .client
        .work(id, &worker.secret, 0, Duration::ZERO)
        .await;
    assert_eq!(code(work), Code::Unauthenticated);
    let report = ReportRequest::default();
    let report = worker.client.report(id, &worker.secret, &report).await;
    assert_eq!(code(report), Code::Unauthenticated);
    let close = CloseRequest {
        incarnation: Some(worker.opened.incarnation),
        reason: "left".to_owned(),
    };
    let close = worker.client.close(id, &worker.secret, &close).await;
    assert_eq!(code(close), Code::Unauthenticated);
    desk.stop().await;
}

#[tokio::test]
async fn a_session_that_is_silent_for_longer_than_its_lease_expires() {
    let desk = Desk::start().await;
    let worker = Worker::join(&desk, "a1", 3000).await;
    until("the session has expired", async || {
        let agents = desk.client.agents(None).await.unwrap().value;
        agents[0].state == AgentState::Gone
    })
    .await;
    let lost = renew(&worker, 1).await.unwrap();
    assert_eq!(lost.lost.len(), 1);
    let work = worker
        .client
        .work(worker.opened.session, &worker.secret, 0, Duration::ZERO);
    assert_eq!(code(work.await), Code::Fenced);
    desk.stop().await;
}

#[tokio::test]
async fn a_waiting_worker_hears_of_a_new_lease_class_at_once() {
    let desk = Desk::start().await;
    let worker = Worker::join(&desk, "a1", 10_000).await;
    let (id, secret) = (worker.opened.session, worker.secret.clone());
    let first = worker
        .client
        .work(id, &secret, 0, Duration::ZERO)
        .await
        .unwrap();
    let waiting = tokio::spawn({
        let client = worker.client.clone();
        async move {
            client
                .work(id, &secret, first.index, Duration::from_secs(60))
                .await
        }
    });
    let mut service = listed(&["a"]);
    service["lease"] = json!("3s");
    desk.apply(json!({ "fast": service })).await;
    let answer = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    let answer = answer.unwrap().unwrap().unwrap();
    assert_eq!(answer.leases_ms, [3000]);
    assert!(answer.index > first.index);
    desk.stop().await;
}

#[tokio::test]
async fn what_a_worker_says_wrong_is_told_by_field() {
    let desk = Desk::start().await;
    let mut request = registration("a1", 10_000);
    request.lease_ms = 100;
    let error = desk.client.register(&request).await.unwrap_err();
    assert!(
        error.to_string().contains("lease_ms: 100ms is too short"),
        "{error}"
    );
    let mut request = registration("a1", 10_000);
    request.secret = "short".to_owned();
    assert_eq!(
        code(desk.client.register(&request).await),
        Code::MalformedRequest
    );
    let mut request = registration("a1", 10_000);
    request.agent = "../etc".to_owned();
    let error = desk.client.register(&request).await.unwrap_err();
    assert!(error.to_string().contains("not allowed"), "{error}");
    let worker = Worker::join(&desk, "a1", 10_000).await;
    let report: ReportRequest = serde_json::from_value(json!({
        "incarnation": 1, "sequence": 1,
        "observed": [{"partition": 0, "token": 1, "phase": "dancing", "attempt": 1}],
    }))
    .unwrap();
    let error = worker
        .client
        .report(worker.opened.session, &worker.secret, &report)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("dancing"), "{error}");
    desk.stop().await;
}

#[tokio::test]
async fn a_director_without_a_leader_says_so_and_nobody_is_lost() {
    let desk = Desk::start().await;
    let worker = Worker::join(&desk, "a1", 10_000).await;
    desk.ledger.hint_leadership(Some(false));
    let address = desk.address.to_string();
    let time = Duration::from_secs(5);
    let options = Options {
        call_time: time,
        leader_time: Duration::ZERO,
        ..Options::default()
    };
    let client = Client::with(vec![address], options).unwrap();
    until("the director has stepped down", async || {
        let answer = client
            .renew(worker.opened.session, &worker.secret, &renewal(&worker, 9))
            .await;
        matches!(answer, Err(Error::NoLeader))
    })
    .await;
    let apply = client.drain("a1").await;
    assert!(matches!(apply, Err(Error::NoLeader)), "{apply:?}");
    desk.stop().await;
}
