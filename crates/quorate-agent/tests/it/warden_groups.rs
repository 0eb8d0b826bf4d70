//! Control groups as the second line of the kill, and as the only one where there are no namespaces.

use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_agent::warden::client::{Client, Terms, Unproven};
use quorate_agent::warden::group::Leftover;
use quorate_agent::warden::protocol::Order;
use quorate_agent::warden::{CGROUP, KERNEL, SCAN};
use rustix::process::Signal;

use crate::support::{Rig, SOON, boot_nanos, children, eventually, kill, lacks, run, state};

/// Leaves nothing that a scan could tell it by.
const HIDE: &str = "(env -i setsid sh -c '(setsid sleep 1000 &) ; exec sleep 1000' &)";

/// The control group of the rig's warden; `None`, which is told, where there are none.
pub(crate) fn group(dir: &Path) -> Option<PathBuf> {
    let named = std::fs::read_to_string(dir.join("group")).ok();
    let group = named.map(PathBuf::from).filter(|path| path.exists());
    if group.is_none() {
        lacks("this host allows no control groups of version 2");
    }
    group
}

/// The processes in a group.
fn members(group: &Path) -> Vec<u32> {
    let listed = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    listed.lines().filter_map(|pid| pid.parse().ok()).collect()
}

pub(crate) fn execute(pids: &[u32]) -> bool {
    pids.iter()
        .any(|&pid| !matches!(state(pid), None | Some('Z' | 'X')))
}

fn sleeps(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
}

/// A run with processes that no scan can find; all of its processes.
pub(crate) async fn start_hidden(rig: &mut Rig, group: &Path, token: u64) -> Vec<u32> {
    let order = rig.script(token, &format!("{HIDE}; echo up; exec sleep 1000"));
    rig.start(order).await;
    let own = group.join(format!("{token}.1"));
    // Init and three that sleep: the command, and the two that hide.
    eventually("all processes are in the group", || {
        let pids = members(&own);
        pids.len() == 4 && pids.iter().filter(|&&pid| sleeps(pid)).count() == 3
    })
    .await;
    members(&own)
}

#[tokio::test]
async fn each_run_is_in_a_group_that_is_gone_before_its_end_is_told() {
    for grade in [KERNEL, CGROUP] {
        let mut rig = Rig::of_grade(grade).await;
        let Some(group) = group(rig.dir()) else {
            return;
        };
        assert_eq!(rig.client.state.containment, grade);
        rig.arm_in(Duration::from_secs(600)).await;
        let first = start_hidden(&mut rig, &group, 1).await;
        let second = start_hidden(&mut rig, &group, 2).await;
        // Groups of a run's own below that of the run are no hiding place either.
        let nested = group.join("1.1/own/deeper");
        std::fs::create_dir_all(&nested).unwrap();
        std::fs::write(nested.join("cgroup.procs"), first[3].to_string()).unwrap();
        rig.send(Order::Kill { run: run(1) }).await;
        assert_eq!(rig.ended(1).await, (None, Some(9)));
        assert!(!execute(&first), "{grade}: after Ended nothing executes");
        assert!(!group.join("1.1").exists(), "{grade}");
        assert!(second.iter().all(|&pid| execute(&[pid])), "{grade}");
        // A run that ends by itself takes what hid along, too.
        let order = rig.script(3, &format!("{HIDE}; echo up; exit 4"));
        assert_eq!(rig.result(order).await.1, Some(4));
        assert!(!group.join("3.1").exists(), "{grade}");
        // What cannot be executed leaves none.
        let order = rig.command(4, &["/nonexistent"]);
        rig.refused(order).await;
        assert!(!group.join("4.1").exists(), "{grade}");
        rig.send(Order::End).await;
        rig.client.proof.proven_dead(SOON).await.unwrap();
        assert!(
            !execute(&second),
            "{grade}: after the proof nothing executes"
        );
        eventually("the group is removed", || !group.exists()).await;
    }
}

#[tokio::test]
async fn without_namespaces_the_agent_ends_what_a_killed_warden_leaves_in_its_group() {
    let mut rig = Rig::of_grade(CGROUP).await;
    let Some(group) = group(rig.dir()) else {
        return;
    };
    rig.arm_in(Duration::from_secs(600)).await;
    let pids = start_hidden(&mut rig, &group, 1).await;
    let alive = rig.client.proof.proven_dead(Duration::ZERO).await;
    assert!(matches!(alive, Err(Unproven::Alive { .. })));
    assert!(execute(&pids), "the proof alone kills nothing");
    kill_both(rig.client.state.pid).await;
    rig.client.proof.proven_dead(SOON).await.unwrap();
    assert!(!execute(&pids), "after the proof nothing executes");
    assert!(!group.exists());
}

#[tokio::test]
async fn a_warden_holds_its_group_for_as_long_as_it_lives() {
    let rig = Rig::of_grade(KERNEL).await;
    let Some(group) = group(rig.dir()) else {
        return;
    };
    let file = std::fs::File::options()
        .write(true)
        .open(group.join("cgroup.kill"))
        .unwrap();
    let hold = || rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    assert_eq!(hold(), Err(rustix::io::Errno::WOULDBLOCK));
    kill_both(rig.client.state.pid).await;
    eventually("it is free", || hold().is_ok()).await;
    drop(file);
    // As the next agent start does: the folder is still there.
    assert!(Leftover::of(rig.dir()).unwrap().clear(SOON));
}

/// Kills both processes of a warden so that neither can do anything about the death of the other.
pub(crate) async fn kill_both(timekeeper: u32) {
    let holder = children(timekeeper)
        .into_iter()
        .next()
        .unwrap_or(timekeeper);
    for signal in [Signal::STOP, Signal::KILL] {
        kill(timekeeper, signal);
        kill(holder, signal);
        let wanted: &[Option<char>] = match signal {
            Signal::STOP => &[Some('T')],
            _ => &[None, Some('Z')],
        };
        eventually("both took the signal", || {
            wanted.contains(&state(timekeeper)) && wanted.contains(&state(holder))
        })
        .await;
    }
}

#[tokio::test]
async fn a_later_start_ends_what_a_warden_left_that_died_with_its_agent() {
    let mut rig = Rig::of_grade(CGROUP).await;
    let Some(group) = group(rig.dir()) else {
        return;
    };
    rig.arm_in(Duration::from_secs(600)).await;
    let pids = start_hidden(&mut rig, &group, 1).await;
    kill_both(rig.client.state.pid).await;
    let hidden: Vec<u32> = pids.into_iter().filter(|&pid| execute(&[pid])).collect();
    assert!(!hidden.is_empty(), "nobody has ended what hid");
    // Of a folder that is a copy, nothing is touched.
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(rig.dir().join("group"), copy.path().join("group")).unwrap();
    assert_eq!(Leftover::of(copy.path()), None);
    let left = Leftover::of(rig.dir()).unwrap();
    assert!(left.clear(SOON));
    assert!(!execute(&hidden));
    assert!(!group.exists());
    assert_eq!(Leftover::of(rig.dir()), None);
}

#[tokio::test]
async fn a_warden_in_the_folder_of_one_that_died_ends_what_that_one_left() {
    let mut rig = Rig::of_grade(CGROUP).await;
    let Some(group) = group(rig.dir()) else {
        return;
    };
    rig.arm_in(Duration::from_secs(600)).await;
    let pids = start_hidden(&mut rig, &group, 1).await;
    kill_both(rig.client.state.pid).await;
    let next = Client::spawn(
        &crate::support::program(),
        rig.dir(),
        Terms::of_a_trial(Duration::ZERO),
    )
    .await
    .unwrap();
    assert!(!execute(&pids), "before it says that it is ready");
    rig.client = next;
    assert_eq!(members(&group), Vec::<u32>::new());
    assert!(!group.join("1.1").exists());
}

#[tokio::test]
async fn without_namespaces_either_process_of_a_warden_ends_all_at_the_deadline_alone() {
    for grade in [CGROUP, SCAN] {
        for stopped in ["timekeeper", "holder", "both"] {
            let mut rig = Rig::of_grade(grade).await;
            if rig.client.state.containment != grade {
                lacks(&format!("this host allows no {grade}"));
                continue;
            }
            let deadline = rig.arm_in(Duration::from_millis(2500)).await;
            let _outputs = crate::warden_faults::start_trees(&mut rig).await;
            let timekeeper = rig.client.state.pid;
            let holder = children(timekeeper)[0];
            if stopped != "holder" {
                kill(timekeeper, Signal::STOP);
            }
            if stopped != "timekeeper" {
                kill(holder, Signal::STOP);
            }
            assert!(
                boot_nanos() < deadline,
                "the host is too slow for this test"
            );
            // The promise of a scan ends here: its daemons live until one of the two goes on. With a
            // group the agent is the third that can end them.
            if grade == SCAN && stopped != "holder" {
                eventually("the kernel ends the holder", || {
                    matches!(state(holder), None | Some('Z'))
                })
                .await;
                kill(timekeeper, Signal::CONT);
            }
            rig.client.proof.proven_dead(SOON).await.unwrap();
            assert!(boot_nanos() >= deadline, "{grade} {stopped}: not before");
            assert_eq!(rig.processes(), Vec::<u32>::new(), "{grade} {stopped}");
        }
    }
}

#[tokio::test]
async fn a_run_that_is_frozen_by_its_group_is_killed_all_the_same() {
    for grade in [KERNEL, CGROUP] {
        let mut rig = Rig::of_grade(grade).await;
        let Some(group) = group(rig.dir()) else {
            return;
        };
        rig.arm_in(Duration::from_secs(600)).await;
        let pids = start_hidden(&mut rig, &group, 1).await;
        let own = group.join("1.1");
        std::fs::write(own.join("cgroup.freeze"), "1").unwrap();
        eventually("it is frozen", || {
            let events = std::fs::read_to_string(own.join("cgroup.events")).unwrap();
            events.contains("frozen 1")
        })
        .await;
        rig.send(Order::Kill { run: run(1) }).await;
        assert_eq!(rig.ended(1).await, (None, Some(9)), "{grade}");
        assert!(!execute(&pids), "{grade}");
        // And by the deadline.
        let pids = start_hidden(&mut rig, &group, 2).await;
        std::fs::write(group.join("cgroup.freeze"), "1").unwrap();
        kill(rig.client.state.pid, Signal::KILL);
        rig.client.proof.proven_dead(SOON).await.unwrap();
        assert!(!execute(&pids), "{grade}");
    }
}
