//! What a warden achieves on hosts that give it less.

use std::process::Command;
use std::time::Duration;

use quorate_agent::warden::protocol::Order;
use quorate_agent::warden::{KERNEL, SCAN};
use rustix::process::Signal;

use crate::support::{Rig, children, eventually, kill, processes_with, program, run, text};
use crate::warden_faults::{is_proven_dead, start_trees};

#[tokio::test]
async fn without_namespaces_a_scan_finds_daemons_and_the_grade_says_so() {
    let mut rig = Rig::scanning(Duration::from_secs(60)).await;
    assert_eq!(rig.client.state.containment, SCAN);
    rig.arm_in(Duration::from_secs(600)).await;
    let hide = "(setsid sh -c '(setsid sleep 1000 &) ; sleep 1000' &)";
    for token in 11..=13 {
        let order = rig.script(token, &format!("{hide}; echo up; exit 7"));
        let (output, code, _) = rig.result(order).await;
        assert_eq!((output.as_str(), code), ("up\n", Some(7)));
        assert_eq!(
            rig.processes(),
            Vec::<u32>::new(),
            "after Ended nothing executes"
        );
    }
    let _outputs = start_trees(&mut rig).await;
    let mut order = rig.script(20, &format!("{hide}; echo up; sleep 1000"));
    let own = format!("{}/20", rig.dir().display());
    order.env.push(("QUORATE_TEST_RUN".to_owned(), own.clone()));
    let own = format!("QUORATE_TEST_RUN={own}");
    let _output = rig.start(order).await;
    eventually("its daemons are up", || processes_with(&own).len() >= 4).await;
    rig.send(Order::Kill { run: run(20) }).await;
    assert_eq!(rig.ended(20).await, (None, Some(9)));
    assert!(processes_with(&own).is_empty());
    assert!(rig.processes().len() >= 12, "the others are untouched");
    rig.send(Order::End).await;
    is_proven_dead(&rig).await;
}

#[tokio::test]
async fn without_namespaces_the_end_of_a_run_costs_no_other_run_a_daemon() {
    const DAEMONS: usize = 200;
    let mut rig = Rig::scanning(Duration::from_secs(60)).await;
    rig.arm_in(Duration::from_secs(600)).await;
    let all = format!(
        "i=0; while [ $i -lt {DAEMONS} ]; do (setsid sleep 1000 &) ; i=$((i+1)); done; sleep 1000"
    );
    let order = rig.script(1, &all);
    let _output = rig.start(order).await;
    for token in 11..=40 {
        let order = rig.script(token, "(setsid sleep 1000 &) ; exit 7");
        assert_eq!(rig.result(order).await.1, Some(7));
    }
    // Its shell, what that waits for, and every daemon.
    eventually("every daemon is up", || rig.processes().len() > DAEMONS + 1).await;
}

#[tokio::test]
async fn without_namespaces_each_process_of_a_warden_guards_the_other() {
    for which in ["timekeeper", "holder"] {
        let mut rig = Rig::scanning(Duration::from_secs(60)).await;
        rig.arm_in(Duration::from_secs(600)).await;
        let _outputs = start_trees(&mut rig).await;
        let timekeeper = rig.client.state.pid;
        let holder = children(timekeeper)[0];
        kill(
            if which == "holder" {
                holder
            } else {
                timekeeper
            },
            Signal::KILL,
        );
        is_proven_dead(&rig).await;
    }
}

#[tokio::test]
async fn without_namespaces_the_deadline_still_kills() {
    let mut rig = Rig::scanning(Duration::from_secs(60)).await;
    rig.arm_in(Duration::from_secs(4)).await;
    let _outputs = start_trees(&mut rig).await;
    is_proven_dead(&rig).await;
}

#[tokio::test]
async fn an_ordinary_user_gets_the_kernels_containment_where_user_namespaces_are_allowed() {
    const NAME: &str = "warden_grades::an_ordinary_user_gets_the_kernels_containment_where_user_namespaces_are_allowed";
    if rustix::process::geteuid().is_root() {
        // The same test as another user, who must be able to read what it consists of.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let reachable = Command::new("setpriv")
            .args([
                "--reuid=65533",
                "--regid=65533",
                "--clear-groups",
                "test",
                "-x",
            ])
            .arg(program())
            .status();
        if !reachable.is_ok_and(|status| status.success()) {
            eprintln!("not run: another user cannot read the programs under test");
            return;
        }
        std::os::unix::fs::chown(folder.path(), Some(65_533), Some(65_533)).unwrap();
        let output = Command::new("setpriv")
            .args(["--reuid=65533", "--regid=65533", "--clear-groups"])
            .arg(std::env::current_exe().unwrap())
            .args([NAME, "--exact", "--nocapture"])
            .env("TMPDIR", path.to_string())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        eprintln!("{told}");
        return;
    }
    let mut rig = Rig::new(Duration::from_secs(60)).await;
    if rig.client.state.containment != KERNEL {
        eprintln!("not run: this host allows no user namespaces");
        return;
    }
    rig.arm_in(Duration::from_secs(600)).await;
    let order = rig.script(1, "id -u; (env -i setsid sleep 1000 &) ; exit 4");
    let (_, descriptors) = rig.start(order).await;
    assert_eq!(rig.ended(1).await, (Some(4), None));
    assert_eq!(
        text(descriptors).trim(),
        rustix::process::geteuid().as_raw().to_string()
    );
    let mut order = rig.script(2, "true");
    order.user = Some("daemon".to_owned());
    let reason = rig.refused(order).await;
    assert!(
        reason.contains("only root can run a command as daemon"),
        "{reason}"
    );
    let _outputs = start_trees_after(&mut rig).await;
    kill(rig.client.state.pid, Signal::KILL);
    is_proven_dead(&rig).await;
}

/// Under tokens that are still free.
async fn start_trees_after(rig: &mut Rig) -> Vec<std::os::fd::OwnedFd> {
    let order = rig.script(10, "(setsid sleep 1000 &) ; echo up; sleep 1000");
    let (_, outputs) = rig.start(order).await;
    eventually("both are up", || rig.processes().len() >= 3).await;
    outputs
}
