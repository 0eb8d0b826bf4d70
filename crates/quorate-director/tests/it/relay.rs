//! Three directors over one ledger: any of them takes any request.

use std::time::Duration;

use quorate_api::client::{Client, Error, EventFilter, Options};
use quorate_api::logs::LogChunk;
use quorate_api::problem::{Code, Problem};
use quorate_api::resources::DirectorRole;
use quorate_api::routes::{RELAYED_HEADER, SESSION_RENEWALS};
use quorate_api::session::{Claim, PassedAnswers, RenewRequest, ReportRequest, WorkState};
use quorate_director::Limits;
use quorate_ledger::Leader;
use quorate_ledger::memory::MemoryLedger;
use serde_json::json;
use tempfile::TempDir;

use crate::desk::{Desk, PATIENCE, Worker, listed, named, registration, until};
use crate::sessions::renewal;

/// Directors `d1` to `d3`.
pub(crate) struct Trio {
    pub(crate) desks: Vec<Desk>,
}

fn leader(at: usize) -> Option<Leader> {
    Some(Leader {
        name: format!("d{}", at + 1),
        address: String::new(),
    })
}

impl Trio {
    /// The first one leads.
    pub(crate) async fn start() -> Self {
        let ledger = MemoryLedger::new();
        let mut desks = Vec::new();
        for at in 0..3 {
            let ledger = ledger.another();
            ledger.hint_leader(at == 0, leader(0));
            let folder = TempDir::new().unwrap();
            let config = named(&format!("d{}", at + 1), &folder, Limits::default());
            desks.push(Desk::configured(ledger, folder, config).await);
        }
        Self { desks }
    }

    /// Another one leads from here on.
    pub(crate) async fn elect(&self, at: usize) {
        for (other, desk) in self.desks.iter().enumerate() {
            desk.ledger.hint_leader(other == at, leader(at));
        }
        for desk in &self.desks {
            let name = format!("d{}", at + 1);
            until("everybody knows who leads", async || {
                let known = desk.client.directors().await.unwrap().value;
                known
                    .iter()
                    .any(|director| director.role == DirectorRole::Leader && director.name == name)
            })
            .await;
        }
    }

    /// Nobody leads.
    fn depose(&self) {
        for desk in &self.desks {
            desk.ledger.hint_leader(false, None);
        }
    }

    fn client(&self, at: usize) -> Client {
        self.desks.get(at).unwrap().client.clone()
    }

    pub(crate) async fn stop(self) {
        for desk in self.desks.into_iter().rev() {
            desk.stop().await;
        }
    }
}

async fn renew(client: &Client, worker: &Worker, counter: u64) -> Result<Vec<u64>, Error> {
    let (session, secret) = (worker.opened.session, &worker.secret);
    let request = renewal(worker, counter);
    Ok(client.renew(session, secret, &request).await?.renewed)
}

#[tokio::test]
async fn a_write_at_any_director_is_seen_at_once_at_any_other() {
    let trio = Trio::start().await;
    for round in 0..6 {
        let key = format!("k{round}");
        let index = trio.desks[round % 3].apply(listed_in(&key)).await;
        for at in 0..3 {
            let client = trio.client(at);
            let history = client.history("s", &key).await.unwrap();
            assert!(!history.entries.is_empty(), "round {round}, director {at}");
            let services = client.services(None).await.unwrap();
            assert!(services.index >= index, "round {round}, director {at}");
        }
    }
    trio.stop().await;
}

fn listed_in(key: &str) -> serde_json::Value {
    json!({ "s": listed(&[key]) })
}

#[tokio::test]
async fn an_agent_may_speak_to_a_different_director_in_every_call() {
    let trio = Trio::start().await;
    let worker = Worker::join(&trio.desks[1], "a1", 10_000).await;
    let (session, secret) = (worker.opened.session, &worker.secret);
    trio.desks[2]
        .apply(json!({ "s": listed(&["k1", "k2"]) }))
        .await;
    let mut counter = 0;
    let mut held = Vec::new();
    until("both are assigned", async || {
        for at in [1, 2, 0] {
            counter += 1;
            let renewed = renew(&trio.client(at), &worker, counter).await;
            assert_eq!(renewed.unwrap(), [session]);
        }
        let wait = Duration::from_millis(100);
        let work = trio.desks[2]
            .client
            .work(session, secret, 0, wait)
            .await
            .unwrap();
        held = work.items;
        held.len() == 2
    })
    .await;
    let claim = ReportRequest {
        incarnation: worker.opened.incarnation,
        sequence: 1,
        assume: held
            .iter()
            .map(|item| Claim {
                partition: item.partition,
                token: item.token,
            })
            .collect(),
        ..ReportRequest::default()
    };
    let reported = trio
        .client(1)
        .report(session, secret, &claim)
        .await
        .unwrap();
    assert_eq!(reported.assumed.len(), 2);
    // The whole list of a director that is behind would lack what was just assumed.
    for at in 0..3 {
        let work = trio.desks[at]
            .client
            .work(session, secret, 0, Duration::ZERO);
        let work = work.await.unwrap();
        assert!(work.whole);
        let states: Vec<WorkState> = work.items.iter().map(|item| item.state).collect();
        assert_eq!(states, [WorkState::Assumed; 2], "director {at}");
    }
    trio.stop().await;
}

#[tokio::test]
async fn renewals_are_gathered_and_each_is_answered_for_itself() {
    let trio = Trio::start().await;
    let mut workers = Vec::new();
    for n in 0..40 {
        workers.push(Worker::join(&trio.desks[0], &format!("a{n}"), 10_000).await);
    }
    let follower = trio.client(1);
    let all = workers.iter().map(|worker| renew(&follower, worker, 1));
    let all = futures::future::join_all(all).await;
    for (renewed, worker) in all.into_iter().zip(&workers) {
        assert_eq!(renewed.unwrap(), [worker.opened.session]);
    }

    // One with a wrong secret, one of a session that never was, and a right one, in one request.
    let passed = |session: u64, secret: &str, request: &RenewRequest| json!({ "session": session, "secret": secret, "request": request });
    let (first, second) = (&workers[0], &workers[1]);
    let body = json!({ "renewals": [
        passed(first.opened.session, &"0".repeat(64), &renewal(first, 2)),
        passed(9999, &first.secret, &renewal(first, 3)),
        passed(second.opened.session, &second.secret, &renewal(second, 4)),
    ] });
    let ask = async |at: usize| {
        let desk = &trio.desks[at];
        let request = desk.http.post(desk.url(SESSION_RENEWALS)).json(&body);
        let answers: PassedAnswers = request.send().await.unwrap().json().await.unwrap();
        answers.answers
    };
    let answers = ask(0).await;
    let code = |at: usize, answers: &[quorate_api::session::PassedAnswer]| {
        answers[at].problem.as_ref().map(|problem| problem.code)
    };
    assert_eq!(code(0, &answers), Some(Code::Unauthenticated));
    let over = answers[1].renewed.as_ref().unwrap();
    assert!(over.renewed.is_empty() && over.lost.len() == 1);
    let right = answers[2].renewed.as_ref().unwrap();
    assert_eq!(right.renewed, [second.opened.session]);
    // Who does not lead passes nothing on that was passed on already.
    let answers = ask(1).await;
    assert!((0..3).all(|at| code(at, &answers).is_some()));
    assert_eq!(code(2, &answers), Some(Code::NotLeader));
    trio.stop().await;
}

#[tokio::test]
async fn another_leader_is_followed_and_the_one_before_passes_requests_on() {
    let trio = Trio::start().await;
    let worker = Worker::join(&trio.desks[2], "a1", 10_000).await;
    for (round, at) in [1, 2, 0].into_iter().enumerate() {
        trio.elect(at).await;
        for (director, desk) in trio.desks.iter().enumerate() {
            let key = format!("k{round}-{director}");
            desk.apply(listed_in(&key)).await;
            let counter = (round * 3 + director) as u64 + 1;
            let renewed = renew(&desk.client, &worker, counter).await.unwrap();
            assert_eq!(renewed, [worker.opened.session]);
        }
    }
    trio.stop().await;
}

#[tokio::test]
async fn a_request_is_passed_on_once_only() {
    let trio = Trio::start().await;
    let desk = &trio.desks[1];
    let request = desk.http.get(desk.url("/v1/agents"));
    let plain = request.try_clone().unwrap().send().await.unwrap();
    assert!(plain.status().is_success());
    let passed = request.header(RELAYED_HEADER, "d9").send().await.unwrap();
    let problem: Problem = passed.json().await.unwrap();
    assert_eq!(problem.code, Code::NotLeader);
    assert_eq!(problem.leader, Some(trio.desks[0].address.to_string()));
    trio.stop().await;
}

/// A client of one director that looks for no leader.
fn impatient(address: String) -> Client {
    let options = Options {
        call_time: PATIENCE,
        leader_time: Duration::ZERO,
        ..Options::default()
    };
    Client::with(vec![address], options).unwrap()
}

#[tokio::test]
async fn without_a_leader_nothing_is_done_and_what_is_known_can_be_read() {
    let trio = Trio::start().await;
    trio.desks[0].apply(listed_in("k1")).await;
    let worker = Worker::join(&trio.desks[0], "a1", 10_000).await;
    trio.depose();
    let desk = &trio.desks[1];
    until("nobody leads", async || {
        let answer = desk.http.get(desk.url("/v1/agents")).send().await.unwrap();
        !answer.status().is_success()
    })
    .await;
    let lone = impatient(desk.address.to_string());
    let refused = lone.register(&registration("a2", 10_000)).await;
    assert!(matches!(refused, Err(Error::NoLeader)), "{refused:?}");
    let refused = renew(&lone, &worker, 1).await;
    assert!(matches!(refused, Err(Error::NoLeader)), "{refused:?}");
    let stale = desk.http.get(desk.url("/v1/services?stale=true"));
    let stale: serde_json::Value = stale.send().await.unwrap().json().await.unwrap();
    assert_eq!(stale["items"][0]["name"], "s");
    trio.stop().await;
}

#[tokio::test]
async fn a_leader_that_died_is_told_as_none_and_not_as_a_lost_write() {
    let mut trio = Trio::start().await;
    trio.desks.remove(0).stop().await;
    // The hints still name it.
    let lone = impatient(trio.desks[0].address.to_string());
    let refused = lone.register(&registration("a1", 10_000)).await;
    assert!(matches!(refused, Err(Error::NoLeader)), "{refused:?}");
    trio.stop().await;
}

#[tokio::test]
async fn a_renewal_does_not_wait_for_a_leader_that_was_stopped_when_another_one_leads() {
    let mut trio = Trio::start().await;
    let worker = Worker::join(&trio.desks[1], "a1", 10_000).await;
    let stopped = trio.desks.remove(0);
    let address = stopped.address;
    stopped.stop().await;
    // As a process that is stopped: it is reached, and answers nothing.
    let silent = tokio::net::TcpListener::bind(address).await.unwrap();
    let lone = impatient(trio.desks[0].address.to_string());
    let election = async {
        let passed = silent.accept().await.unwrap();
        for (at, desk) in (1..).zip(&trio.desks) {
            desk.ledger.hint_leader(at == 2, leader(2));
        }
        passed
    };
    let (renewed, _passed) = tokio::join!(renew(&lone, &worker, 1), election);
    assert_eq!(renewed.unwrap(), [worker.opened.session]);
    trio.stop().await;
}

#[tokio::test]
async fn people_who_wait_at_a_follower_hold_up_no_agent() {
    let trio = Trio::start().await;
    let desk = &trio.desks[1];
    let index = trio.desks[0].apply(listed_in("k1")).await;
    let url = desk.url(&format!("/v1/agents?index={index}&wait=60s"));
    let waiting: Vec<_> = (0..70)
        .map(|_| tokio::spawn(desk.http.get(&url).send()))
        .collect();
    // More of them than may wait at the leader are told so.
    let mut turned_away = 0;
    until("some are turned away", async || {
        turned_away = waiting.iter().filter(|one| one.is_finished()).count();
        turned_away >= 6
    })
    .await;
    let worker = Worker::join(desk, "a1", 10_000).await;
    let renewed = renew(&desk.client, &worker, 1).await.unwrap();
    assert_eq!(renewed, [worker.opened.session]);
    desk.client.services(None).await.unwrap();
    // The agent that joined is what the others waited for.
    for one in waiting {
        let answered = one.await.unwrap().unwrap().status().as_u16();
        assert!([200, 429].contains(&answered), "{answered}");
    }
    trio.stop().await;
}

#[tokio::test]
async fn events_go_on_at_another_director() {
    let trio = Trio::start().await;
    let filter = EventFilter::default();
    let mut here = trio.client(1).events(&filter, None).await.unwrap();
    trio.desks[2].apply(listed_in("k1")).await;
    let first = here.next().await.unwrap();
    let last = here.last_id().unwrap().to_owned();
    let mut there = trio.client(2).events(&filter, Some(last)).await.unwrap();
    let mut next = here.next().await.unwrap();
    let same = there.next().await.unwrap();
    assert_eq!((same.index, &same.kind), (next.index, &next.kind));
    assert_eq!(there.last_id(), here.last_id());
    assert_ne!(next.kind, first.kind);
    trio.elect(2).await;
    trio.desks[0].apply(listed_in("k2")).await;
    let end = tokio::time::timeout(PATIENCE, async {
        while next.kind != "director.elected" {
            next = here.next().await.unwrap();
        }
    });
    end.await.unwrap();
    trio.stop().await;
}

#[tokio::test]
async fn a_log_is_read_at_any_director_wherever_its_agent_waits() {
    let trio = Trio::start().await;
    until("the directors know each other", async || {
        let known = trio.client(0).directors().await.unwrap().value;
        known.len() == 3
    })
    .await;
    let worker = Worker::join(&trio.desks[0], "a1", 10_000).await;
    let (session, secret) = (worker.opened.session, worker.secret.clone());
    trio.desks[0].apply(listed_in("k1")).await;
    let agents = trio.client(2);
    let mut items = Vec::new();
    let mut counter = 0;
    until("it is assigned", async || {
        counter += 1;
        renew(&agents, &worker, counter).await.unwrap();
        let wait = Duration::from_millis(100);
        let work = agents.work(session, &secret, 0, wait).await.unwrap();
        items = work.items;
        !items.is_empty()
    })
    .await;
    let claim = ReportRequest {
        incarnation: worker.opened.incarnation,
        sequence: 1,
        assume: vec![Claim {
            partition: items[0].partition,
            token: items[0].token,
        }],
        ..ReportRequest::default()
    };
    agents.report(session, &secret, &claim).await.unwrap();
    for desk in &trio.desks {
        let asked = desk.http.get(desk.url("/v1/services/s/partitions/k1/logs"));
        let asked = tokio::spawn(asked.send());
        let wait = Duration::from_secs(20);
        let requests = agents.log_requests(session, &secret, wait).await.unwrap();
        let chunk = LogChunk {
            id: requests.requests[0].id,
            text: "one\n".to_owned(),
            end: true,
            problem: None,
        };
        agents.log_chunk(session, &secret, &chunk).await.unwrap();
        let text = asked.await.unwrap().unwrap().text().await.unwrap();
        assert_eq!(text, "one\n");
    }
    trio.stop().await;
}
