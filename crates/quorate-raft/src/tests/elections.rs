//! Who is elected, and by whom.

use std::sync::Arc;
use std::time::Duration;

use quorate_ledger::Ledger;

use super::cluster::{Cluster, PATIENCE, TIMING, timed, until};
use super::proxy::source;
use crate::Timing;
use crate::peer::{Answer, Ballot, Client, Configs, Request, Target, Tls, Us};
use crate::types::{Member, Vote, log_id};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_survivors_the_one_with_priority_leads() {
    let mut cluster = Cluster::of(3).await;
    let (first, heirs) = (0, [1, 2]);
    for number in heirs {
        cluster.nodes[number].priority = 0;
        cluster.stop(number).await;
        cluster.start(number).await;
    }
    for round in 0..4 {
        // One of the others leads, and both that are left have everything.
        let heir = heirs[round % 2];
        cluster
            .change("another leads", async |leader| {
                leader.transfer_leadership(cluster.nodes[heir].id).await
            })
            .await;
        assert_eq!(cluster.leader_among(&[heir]).await, heir);
        let last = cluster.append_among(&[heir]).await;
        cluster.check(&[0, 1, 2], last).await;
        cluster.crash(heir);
        assert_eq!(cluster.leader().await, first, "round {round}");
        cluster.start(heir).await;
        let last = cluster.append_among(&[first]).await;
        cluster.check(&[heir], last).await;
    }
}

/// So loyal to a leader that nobody is elected in the usual way while a test runs.
const LOYAL: Timing = Timing {
    election_min: Duration::from_secs(10),
    election_max: Duration::from_secs(11),
    ..TIMING
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_whose_processes_have_ended_are_replaced_before_loyalty_ends() {
    let mut cluster = Cluster::of_with(5, LOYAL).await;
    let last = cluster.fill(3).await;
    cluster.check(&[0, 1, 2, 3, 4], last).await;
    // Nobody votes just after the start.
    tokio::time::sleep(LOYAL.election_max).await;
    for _ in 0..2 {
        let leader = cluster.leader().await;
        cluster.crash(leader);
        cluster.nodes[leader].proxy.refuse().await;
        let (heir, took) = timed(cluster.leader()).await;
        assert_ne!(heir, leader);
        assert!(took < LOYAL.election_max, "{took:?}");
        let last = cluster.append_among(&[heir]).await;
        cluster.check(&cluster.up(), last).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_connections_break_goes_on_leading() {
    let cluster = Cluster::of_with(3, LOYAL).await;
    let leader = cluster.leader().await;
    let term = cluster.term(leader);
    for _ in 0..5 {
        for node in &cluster.nodes {
            node.proxy.break_all();
        }
        let last = cluster.append_among(&[leader]).await;
        cluster.check(&[0, 1, 2], last).await;
    }
    assert_eq!(cluster.term(leader), term);
}

/// Somebody with the papers of one of the directors, which is down.
fn impostor(cluster: &Cluster, number: usize) -> Arc<Client> {
    let node = &cluster.nodes[number];
    let us = Us {
        cluster: cluster.id,
        node: node.id,
        name: node.name.to_string(),
    };
    let papers = cluster.authority.director(us.cluster, &us.name);
    let configs = Configs::new(&papers, us.cluster, &us.name).unwrap();
    Client::new(us, Arc::new(Tls::new(configs)), Some(source(number)))
}

fn target(cluster: &Cluster, number: usize) -> Target {
    let node = &cluster.nodes[number];
    Target {
        id: node.id,
        member: Member {
            name: node.name.to_string(),
            address: cluster.options(number).address,
        },
    }
}

/// Asks for the vote of a director, in the name of another, until it says yes or no.
async fn vote(cluster: &Cluster, from: usize, voter: usize, term: u64, last: u64) -> bool {
    let client = impostor(cluster, from);
    let target = target(cluster, voter);
    let vote = Vote::new(term, cluster.nodes[from].id);
    let request = openraft::raft::VoteRequest::new(vote, Some(log_id(term - 1, last)));
    let request = Request::Vote(Ballot::from(request));
    until("an answer to a request for a vote", async || {
        let answer = client.ask(&target, &request, PATIENCE).await;
        match answer {
            Ok(Answer::Vote(voted)) => {
                let voted = openraft::raft::VoteResponse::<crate::types::Types>::from(voted);
                Some(voted.vote_granted && voted.vote == vote)
            }
            // It has just been started, or its leader is not forgotten yet.
            Ok(_) | Err(_) => None,
        }
    })
    .await
}

/// A voter that has everything, and the two others, which have crashed.
async fn lone_voter() -> (Cluster, [usize; 3]) {
    let mut cluster = Cluster::of(3).await;
    let last = cluster.fill(3).await;
    let [voter, one, other] = [0, 1, 2];
    cluster.check(&[voter], last).await;
    cluster.crash(one);
    cluster.crash(other);
    (cluster, [voter, one, other])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_is_given_once_in_a_term_also_across_a_restart() {
    let (mut cluster, [voter, one, other]) = lone_voter().await;
    let term = cluster.term(voter) + 100;
    let far = 1_000_000;
    // As long as it is loyal to a leader that it heard, it refuses; then it grants.
    until("the vote", async || {
        vote(&cluster, one, voter, term, far).await.then_some(())
    })
    .await;
    assert!(
        !vote(&cluster, other, voter, term, far).await,
        "it has voted in this term"
    );
    cluster.crash(voter);
    cluster.start(voter).await;
    assert!(
        !vote(&cluster, other, voter, term, far).await,
        "it still has"
    );
    assert!(
        vote(&cluster, one, voter, term, far).await,
        "the same may ask again"
    );
    assert!(
        vote(&cluster, other, voter, term + 1, far).await,
        "a new term, a new vote"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_lacks_something_committed_gets_a_vote_and_seeing_a_term_is_not_voting_in_it() {
    let (cluster, [voter, one, other]) = lone_voter().await;
    let loyal = cluster.ledger(voter);
    // It forgets its leader first, so that the log alone decides.
    let forgotten = async || loyal.tail().await.is_err().then_some(());
    until("its leader is gone", forgotten).await;
    drop(loyal);
    let began = std::time::Instant::now();
    until("its loyalty ends", async || {
        (began.elapsed() > TIMING.election_max * 2).then_some(())
    })
    .await;
    let term = cluster.term(voter) + 100;
    let client = impostor(&cluster, one);
    let short = Vote::new(term, cluster.nodes[one].id);
    let request = openraft::raft::VoteRequest::new(short, Some(log_id(1, 0)));
    let request = Request::Vote(Ballot::from(request));
    let answer = client
        .ask(&target(&cluster, voter), &request, Duration::from_secs(5))
        .await;
    let Ok(Answer::Vote(voted)) = answer else {
        panic!("{answer:?}")
    };
    let voted = openraft::raft::VoteResponse::<crate::types::Types>::from(voted);
    assert!(!voted.vote_granted && voted.vote != short, "{voted}");
    assert!(
        vote(&cluster, other, voter, term, 1_000_000).await,
        "nobody had its vote"
    );
}
