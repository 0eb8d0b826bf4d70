//! By which clock a warden keeps the deadline.

use std::process::Command;
use std::time::Duration;

use quorate_agent::warden::{KERNEL, SCAN};
use rustix::time::{ClockId, clock_gettime};

use crate::support::{Rig, again, is_again, lacks};
use crate::warden_faults::{
    all_dies_at_the_deadline_though_stopped, is_proven_dead_by, start_trees,
};

/// Its clocks are those of a machine that was suspended for almost twelve days: CLOCK_BOOTTIME has counted
/// them and CLOCK_MONOTONIC has not.
const SUSPENDED: [&str; 6] = [
    "unshare",
    "--user",
    "--map-root-user",
    "--time",
    "--boottime",
    "1000000",
];

#[tokio::test]
async fn the_deadline_is_kept_by_the_clock_that_counts_while_the_machine_is_suspended() {
    if !is_again() {
        let (unshare, words) = SUSPENDED.split_first().unwrap();
        let possible = Command::new(unshare).args(words).arg("true").status();
        if !possible.is_ok_and(|status| status.success()) {
            lacks("this host lets nobody move a clock in a time namespace");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let name = "warden_clock::the_deadline_is_kept_by_the_clock_that_counts_while_the_machine_is_suspended";
        again(name, &SUSPENDED, folder.path());
        return;
    }
    let (boot, running) = (ClockId::Boottime, ClockId::Monotonic);
    let suspended = clock_gettime(boot).tv_sec - clock_gettime(running).tv_sec;
    assert!(suspended >= 1_000_000, "{suspended} s");
    // Where the warden has to do it itself, and by the kernel's timer alone.
    let mut rig = Rig::of_grade(SCAN).await;
    let deadline = rig.arm_in(Duration::from_millis(1500)).await;
    let _outputs = start_trees(&mut rig).await;
    is_proven_dead_by(&rig, deadline).await;
    let mut rig = Rig::new(Duration::from_secs(60)).await;
    let state = &rig.client.state;
    assert_eq!(state.containment, KERNEL, "{:?}", state.shortfalls);
    all_dies_at_the_deadline_though_stopped(&mut rig).await;
}
