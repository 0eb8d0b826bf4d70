//! Directors that come and go.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use quorate_core::ids::{DirectorName, Epoch};
use quorate_ledger::Ledger;

use super::cluster::{Cluster, entry, hinted, timed, until, voters_of};
use crate::{ChangeError, Embedded, OpenError, Options, Start, ids};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_grows_from_one_to_five_and_shrinks_to_three_while_it_is_written_to() {
    let mut cluster = Cluster::found().await;
    let mut last = cluster.fill(5).await;
    for number in 1..5 {
        assert_eq!(cluster.join().await, number);
        let next = cluster.append_among(&cluster.up()).await;
        assert!(next > last);
        last = next;
        if number % 2 == 0 {
            let voters: Vec<usize> = (0..=number).collect();
            cluster.vote(&voters).await;
            cluster.agree_on_voters(&voters).await;
            last = cluster.fill(3).await;
        }
    }
    cluster.check(&[0, 1, 2, 3, 4], last).await;
    // The leader goes as well as another.
    let leader = cluster.leader().await;
    let mut rest = cluster.up();
    rest.retain(|number| *number != leader);
    cluster.vote(&rest[1..]).await;
    for gone in [leader, rest[0]] {
        let id = cluster.nodes[gone].id;
        cluster
            .change("a member is removed", async |leader| {
                match leader.remove(id).await {
                    Err(ChangeError::NoMember { .. }) => Ok(()),
                    other => other,
                }
            })
            .await;
        cluster.stop(gone).await;
    }
    cluster.agree_on_voters(&rest[1..]).await;
    let last = cluster.fill(3).await;
    cluster.check(&rest[1..], last).await;
    // Of the three that are left, one may go.
    let leader = cluster.leader().await;
    cluster.crash(leader);
    let next = cluster.append_among(&cluster.up()).await;
    assert!(next > last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_was_removed_disturbs_nobody() {
    let cluster = Cluster::of(3).await;
    cluster.fill(3).await;
    let leader = cluster.leader().await;
    let gone = cluster
        .up()
        .into_iter()
        .find(|number| *number != leader)
        .unwrap();
    let id = cluster.nodes[gone].id;
    // It does not hear of it.
    let rest: Vec<usize> = cluster.up().into_iter().filter(|n| *n != gone).collect();
    cluster.net.split(&[gone], &rest);
    cluster
        .change("a voter is removed", async |leader| leader.remove(id).await)
        .await;
    let leader = cluster.leader_among(&rest).await;
    let before = cluster.term(leader);
    cluster.net.mend();
    let began = std::time::Instant::now();
    let mut last = 0;
    // As long as it takes to ask for votes some times.
    while began.elapsed() < Duration::from_secs(4) {
        last = cluster.append_among(&rest).await;
    }
    assert_eq!(cluster.term(leader), before);
    assert_eq!(cluster.leader_among(&rest).await, leader);
    cluster.check(&rest, last).await;
    assert!(
        cluster.ledger(gone).tail().await.is_err(),
        "it is told nothing"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_within_a_second_and_nothing_is_lost() {
    let cluster = Cluster::of(3).await;
    let mut quickest = Duration::MAX;
    let mut last = cluster.fill(5).await;
    for _ in 0..6 {
        let leader = cluster.leader().await;
        let heir = (leader + 1) % 3;
        let to = cluster.nodes[heir].id;
        let ledger = cluster.ledger(leader);
        let handing = async {
            ledger.transfer_leadership(to).await.unwrap();
            cluster.append_among(&[heir]).await
        };
        let (next, took) = timed(handing).await;
        assert_eq!(next, last + 1);
        quickest = quickest.min(took);
        last = next;
        // Who led before tells who leads now.
        let name = cluster.nodes[heir].name.as_str();
        hinted(&ledger, |hints| {
            hints
                .leader
                .as_ref()
                .is_some_and(|leader| leader.name == name)
        })
        .await;
    }
    // On a busy machine one or another may be held up; an election by time-out takes longer than this.
    eprintln!("the quickest of six took {quickest:?}");
    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
    cluster.check(&[0, 1, 2], last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_leader_changes_the_members_and_only_to_what_is_possible() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.ledger((leader + 1) % 3);
    let leading = cluster.ledger(leader);
    let learner = cluster
        .open_new(Start::Await {
            cluster: cluster.id,
        })
        .await;
    let node = &cluster.nodes[learner];
    let refused = follower
        .add_learner(node.id, &node.name, "127.0.0.1:1")
        .await;
    assert!(
        matches!(refused, Err(ChangeError::NotLeading { .. })),
        "{refused:?}"
    );
    let refused = follower.transfer_leadership(leading.node_id()).await;
    assert!(
        matches!(refused, Err(ChangeError::NotLeading { .. })),
        "{refused:?}"
    );
    let refused = leading.promote(node.id).await;
    assert!(
        matches!(refused, Err(ChangeError::NoMember { .. })),
        "{refused:?}"
    );
    let refused = leading.remove(node.id).await;
    assert!(
        matches!(refused, Err(ChangeError::NoMember { .. })),
        "{refused:?}"
    );
    let refused = leading.change_voters(BTreeSet::new()).await;
    assert!(
        matches!(refused, Err(ChangeError::Voters { count: 0 })),
        "{refused:?}"
    );
    let refused = leading.change_voters((1..=8).collect()).await;
    assert!(
        matches!(refused, Err(ChangeError::Voters { count: 8 })),
        "{refused:?}"
    );
    let refused = leading.transfer_leadership(node.id).await;
    assert!(
        matches!(refused, Err(ChangeError::NoMember { .. })),
        "{refused:?}"
    );
    // One that nobody reaches follows nobody, so it does not become a voter.
    let added = leading
        .add_learner(node.id, &node.name, "127.0.0.1:1")
        .await;
    added.unwrap();
    let refused = leading.promote(node.id).await;
    assert!(
        matches!(refused, Err(ChangeError::Behind { .. })),
        "{refused:?}"
    );
    // With the right address it does.
    cluster.add(learner).await;
    cluster
        .change("a learner is promoted", async |leader| {
            leader.promote(node.id).await
        })
        .await;
    cluster.agree_on_voters(&[0, 1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_whose_folder_was_wiped_does_not_come_back_under_its_name() {
    let mut cluster = Cluster::of(3).await;
    let last = cluster.fill(10).await;
    let leader = cluster.leader().await;
    let wiped = (leader + 1) % 3;
    let other = (leader + 2) % 3;
    let old = cluster.nodes[wiped].id;
    cluster.crash(wiped);
    cluster.nodes[wiped].folder = tempfile::tempdir().unwrap();
    let start = Start::Await {
        cluster: cluster.id,
    };
    let node = &mut cluster.nodes[wiped];
    node.id = ids(node.folder.path(), &node.name, start).unwrap().node;
    node.restart_as(start);
    assert_ne!(node.id, old);
    cluster.start(wiped).await;
    // It is dialled as the old one and answers for nobody: with the other down, there is no majority.
    cluster.crash(other);
    let leading = cluster.ledger(leader);
    let at = leading.hints().borrow().occupied.next();
    let appended = leading.append(at, Epoch(1), entry(at.0)).await;
    assert!(
        appended.is_err(),
        "one of three with an empty folder is no majority"
    );
    assert_eq!(cluster.ledger(wiped).hints().borrow().occupied.0, 0);
    cluster.start(other).await;
    cluster.append_among(&[leader, other]).await;
    // Its name is that of a voter, so it is not added beside it either.
    let (id, name) = (cluster.nodes[wiped].id, cluster.nodes[wiped].name.clone());
    let leader = cluster.leader().await;
    let refused = cluster
        .ledger(leader)
        .add_learner(id, &name, "127.0.0.1:1")
        .await;
    let taken = matches!(refused, Err(ChangeError::NameTaken { id, .. }) if id == old);
    assert!(taken, "{refused:?}");
    // Once the old one is gone, the new one comes under its own id.
    cluster
        .change("the old one is removed", async |leader| {
            match leader.remove(old).await {
                Err(ChangeError::NoMember { .. }) => Ok(()),
                other => other,
            }
        })
        .await;
    cluster.add(wiped).await;
    cluster.vote(&[0, 1, 2]).await;
    let next = cluster.fill(2).await;
    assert!(next > last);
    cluster.check(&[wiped], next).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_director_that_waits_to_be_added_never_founds_a_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let name = DirectorName::new("d9").unwrap();
    let options = |start| Options {
        start,
        ..Options::new(folder.path().to_owned(), name.clone())
    };
    let waiting = Embedded::open(options(Start::Await { cluster: 77 }))
        .await
        .unwrap();
    assert_eq!(waiting.cluster_id(), 77);
    assert_eq!(voters_of(&waiting), BTreeSet::new());
    waiting.shutdown().await;
    // Not even when it is started like one that founds.
    let waiting = Embedded::open(options(Start::Found)).await.unwrap();
    assert_eq!(waiting.cluster_id(), 77);
    assert!(waiting.tail().await.is_err());
    assert_eq!(voters_of(&waiting), BTreeSet::new());
    waiting.shutdown().await;
    let refused = Embedded::open(options(Start::Await { cluster: 78 })).await;
    assert!(
        matches!(refused, Err(OpenError::OtherCluster { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_members_tell_who_leads_who_follows_and_who_is_silent() {
    let mut cluster = Cluster::of(3).await;
    cluster.join().await;
    let last = cluster.fill(3).await;
    cluster.check(&[0, 1, 2, 3], last).await;
    let leader = cluster.leader().await;
    let silent = (leader + 1) % 3;
    cluster.crash(silent);
    let ledger = cluster.ledger(leader);
    until("the silence is told", async || {
        let members = ledger.members();
        let of = |number: usize| {
            let id = cluster.nodes[number].id;
            members.iter().find(|member| member.id == id).unwrap()
        };
        assert_eq!(members.len(), 4);
        assert!(of(leader).leads && of(leader).voter && !of(3).voter);
        assert!(!of(silent).leads && !of(3).leads);
        let lost = of(silent)
            .silent_for
            .is_none_or(|time| time > Duration::from_secs(1));
        let heard = of(3)
            .silent_for
            .is_some_and(|time| time < Duration::from_millis(500));
        (lost && heard && of(3).matched == of(leader).matched).then_some(())
    })
    .await;
    // Who follows knows less, but who leads.
    let follower = cluster.ledger((leader + 2) % 3);
    let told = follower.leader().unwrap();
    assert_eq!(told.name, cluster.nodes[leader].name.as_str());
    assert_eq!(
        follower
            .members()
            .iter()
            .filter(|member| member.leads)
            .count(),
        1
    );
}

/// Waits until a change of voters has taken its first step and not its second.
async fn first_step(ledger: &Embedded) {
    let mut metrics = ledger.raft.metrics();
    loop {
        let voters = metrics
            .borrow_watched()
            .membership_config
            .get_joint_config()
            .len();
        if voters > 1 {
            return;
        }
        metrics.changed().await.expect("the ledger is open");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_was_left_half_done_is_finished_by_whoever_leads() {
    let mut cluster = Cluster::of(3).await;
    let voters_at_first: BTreeSet<u64> = cluster.nodes.iter().map(|node| node.id).collect();
    for _ in 0..2 {
        cluster.join().await;
    }
    let voters: BTreeSet<u64> = cluster.nodes.iter().map(|node| node.id).collect();
    let joint = |ledger: &Embedded| {
        let metrics = ledger.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.get_joint_config().len() > 1
    };
    let leader = cluster.leader().await;
    let ledger = cluster.ledger(leader);
    until("both have caught up", async || {
        // Whoever called it is gone as soon as the first step is on its way.
        tokio::select! {
            biased;
            () = first_step(&ledger) => Some(()),
            changed = ledger.change_voters(voters.clone()) => {
                // It was done before anybody saw it half done: once more, from the start.
                if changed.is_ok() {
                    let three = voters_at_first.clone();
                    ledger.change_voters(three).await.expect("it shrinks again");
                }
                None
            }
        }
    })
    .await;
    let last = cluster.fill(2).await;
    // The leader goes as well, so that another finds it.
    drop(ledger);
    cluster.crash(leader);
    let next = cluster.append_among(&cluster.up()).await;
    assert!(next > last);
    cluster.start(leader).await;
    until("it is finished", async || {
        let done = |number: usize| !joint(&cluster.ledger(number));
        cluster.up().into_iter().all(done).then_some(())
    })
    .await;
    cluster.agree_on_voters(&[0, 1, 2, 3, 4]).await;
    cluster.check(&[0, 1, 2, 3, 4], next).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_cannot_make_itself_the_only_voter() {
    let cluster = Cluster::of(3).await;
    let last = cluster.fill(3).await;
    let old = cluster.leader().await;
    let rest: Vec<usize> = (0..3).filter(|number| *number != old).collect();
    cluster.net.split(&[old], &rest);
    let alone = cluster.ledger(old);
    let coup = alone.change_voters(BTreeSet::from([alone.node_id()]));
    let (coup, next) = tokio::join!(coup, cluster.append_among(&rest));
    assert!(coup.is_err(), "{coup:?}");
    assert_eq!(next, last + 1);
    assert!(alone.tail().await.is_err());
    let at = quorate_core::ids::Position(last + 1);
    let appended = alone.append(at, Epoch(1), b"alone".to_vec()).await;
    assert!(appended.is_err(), "{appended:?}");
    cluster.net.mend();
    let last = cluster.fill(2).await;
    cluster.check(&[0, 1, 2], last).await;
    cluster.agree_on_voters(&[0, 1, 2]).await;
}
