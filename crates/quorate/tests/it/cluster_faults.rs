//! What happens when processes are killed.

use rustix::process::Signal;

use crate::cluster::{Cluster, even};
use crate::support::signal;

#[test]
fn a_killed_agents_partitions_run_elsewhere_and_come_back_with_the_least_moves() {
    let mut cluster = Cluster::start(30);
    let before = cluster.until("an even spread", |all| Cluster::spread(all) == even(10));

    signal(cluster.agent_pid("a3"), Signal::KILL);
    let during = cluster.until("all run on the other two", |all| {
        all.values()
            .all(|seen| seen.running && seen.agent.as_deref().is_some_and(|name| name != "a3"))
    });
    for (key, seen) in &before {
        let moved = during[key].token != seen.token;
        assert_eq!(
            moved,
            seen.agent.as_deref() == Some("a3"),
            "{key}: only a3's move"
        );
    }
    cluster.judged();

    cluster.start_agent("a3");
    let after = cluster.until("an even spread again", |all| {
        Cluster::spread(all) == even(10) && all.values().all(|seen| seen.running)
    });
    let moved = after
        .iter()
        .filter(|(key, seen)| seen.token != during[*key].token);
    assert_eq!(moved.count(), 10, "exactly what a3 has now has moved");
    cluster.judged();
}

#[test]
fn an_up_that_is_killed_and_started_again_loses_nothing_and_runs_nothing_twice() {
    let mut cluster = Cluster::start(12);
    let before = cluster.all_run(12);
    assert_eq!(cluster.end_up(Signal::KILL), None);
    cluster.up();
    let after = cluster.until("all run again", |all| {
        all.len() == 12 && all.values().all(|seen| seen.running)
    });
    assert!(
        after
            .iter()
            .all(|(key, seen)| seen.token >= before[key].token),
        "tokens never fall"
    );
    cluster.judged();
    assert_eq!(cluster.end_up(Signal::TERM), Some(0));
    let judged = cluster.judged();
    let last = judged.runs.iter().map(|run| run.end).max();
    // Whoever left in order has stopped every job before it ended.
    assert!(last.is_some_and(|last| last < crate::referee::boot_nanos()));
    let again = cluster.judged().runs.iter().map(|run| run.end).max();
    assert_eq!(again, last, "nothing executes any more");
}
