//! What a warden achieves on hosts that give it less.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is its failure")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use quorate_agent::warden::client::Unproven;
use quorate_agent::warden::protocol::Order;
use quorate_agent::warden::{CGROUP, KERNEL, SCAN};
use rustix::process::Signal;

use crate::support::{
    Rig, SOON, again, boot_nanos, children, eventually, is_again, kill, lacks, processes_with,
    program, run, state, text,
};
use crate::warden_faults::{is_proven_dead, start_trees};
use crate::warden_groups::kill_both;

#[tokio::test]
async fn without_namespaces_a_scan_finds_daemons_and_the_grade_says_so() {
    let mut rig = Rig::of_grade(SCAN).await;
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
    let mut rig = Rig::of_grade(SCAN).await;
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
        let mut rig = Rig::of_grade(SCAN).await;
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
    let mut rig = Rig::of_grade(SCAN).await;
    rig.arm_in(Duration::from_secs(4)).await;
    let _outputs = start_trees(&mut rig).await;
    is_proven_dead(&rig).await;
}

/// A run whose command has an ordinary child and one that hides; the command, and everything of it.
async fn start_family(rig: &mut Rig) -> (u32, Vec<u32>) {
    let order = rig.script(1, "sleep 1000 & (setsid sleep 1000 &) ; echo up; wait");
    let (command, _output) = rig.start(order).await;
    let sleeps = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
    };
    eventually("all are up", || {
        let all = rig.processes();
        all.len() == 3 && all.iter().filter(|pid| sleeps(pid)).count() == 2
    })
    .await;
    (command, rig.processes())
}

/// The command alone has died, and what it has started executes.
async fn only_the_command_dies(rig: &Rig, (command, all): &(u32, Vec<u32>)) {
    eventually("the command is gone", || !rig.processes().contains(command)).await;
    let left: Vec<u32> = all.iter().copied().filter(|pid| pid != command).collect();
    assert_eq!(
        rig.processes(),
        left,
        "its children are its warden's to end"
    );
}

#[tokio::test]
async fn without_namespaces_the_kernel_ends_the_command_of_a_stopped_warden_and_that_the_others() {
    for grade in [CGROUP, SCAN] {
        let mut rig = Rig::of_grade(grade).await;
        if rig.client.state.containment != grade {
            lacks(&format!("this host allows no {grade}"));
            continue;
        }
        let deadline = rig.arm_in(Duration::from_millis(2500)).await;
        let family = start_family(&mut rig).await;
        let timekeeper = rig.client.state.pid;
        let holder = children(timekeeper)[0];
        let stopped = [timekeeper, holder, children(holder)[0]];
        for &pid in stopped.iter().chain(&family.1) {
            kill(pid, Signal::STOP);
        }
        eventually("all are stopped", || {
            let all = stopped.iter().chain(&family.1);
            all.copied().all(|pid| state(pid) == Some('T'))
        })
        .await;
        assert!(
            boot_nanos() < deadline,
            "the host is too slow for this test"
        );
        only_the_command_dies(&rig, &family).await;
        assert!(boot_nanos() >= deadline, "not before the deadline");
        kill(timekeeper, Signal::CONT);
        is_proven_dead(&rig).await;
    }
}

#[tokio::test]
async fn what_a_command_has_started_outlives_both_processes_of_a_warden_that_only_scans() {
    let mut rig = Rig::of_grade(SCAN).await;
    rig.arm_in(Duration::from_secs(600)).await;
    let family = start_family(&mut rig).await;
    kill_both(rig.client.state.pid).await;
    only_the_command_dies(&rig, &family).await;
    let unproven = rig.client.proof.proven_dead(SOON).await;
    assert!(matches!(unproven, Err(Unproven::NoProof)), "{unproven:?}");
}

const OTHER_USER: [&str; 4] = [
    "setpriv",
    "--reuid=65533",
    "--regid=65533",
    "--clear-groups",
];
/// No way to any namespace: an inner user namespace in which none may be made, and no capability.
const NO_NAMESPACES: [&str; 6] = [
    "unshare",
    "--user",
    "--map-root-user",
    "sh",
    "-c",
    "echo 0 > /proc/sys/user/max_user_namespaces && \
     exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs \"$0\" \"$@\"",
];

/// A folder of the other user; `None`, which is told, when this one cannot act for it.
fn folder_of_other_user() -> Option<tempfile::TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let reachable = Command::new(OTHER_USER[0])
        .args(&OTHER_USER[1..])
        .args(["test", "-x"])
        .arg(program())
        .status();
    if !reachable.is_ok_and(|status| status.success()) {
        lacks("another user cannot read the programs under test");
        return None;
    }
    std::os::unix::fs::chown(folder.path(), Some(65_533), Some(65_533)).unwrap();
    Some(folder)
}

#[tokio::test]
async fn an_ordinary_user_gets_the_kernels_containment_where_user_namespaces_are_allowed() {
    if rustix::process::geteuid().is_root() {
        if let Some(folder) = folder_of_other_user() {
            let name =
                "an_ordinary_user_gets_the_kernels_containment_where_user_namespaces_are_allowed";
            again(
                &format!("warden_grades::{name}"),
                &OTHER_USER,
                folder.path(),
            );
        }
        return;
    }
    let mut rig = Rig::new(Duration::from_secs(60)).await;
    if rig.client.state.containment != KERNEL {
        lacks("this host allows no user namespaces");
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
    let mut with_socket = rig.script(3, "true");
    with_socket.user = Some("daemon".to_owned());
    let socket = rig.dir().join("api.sock");
    with_socket.api_socket = Some(socket.to_str().unwrap().to_owned());
    for order in [order, with_socket] {
        let reason = rig.refused(order).await;
        assert!(
            reason.contains("only root can run a command as daemon"),
            "{reason}"
        );
    }
    let _outputs = start_trees_after(&mut rig).await;
    kill(rig.client.state.pid, Signal::KILL);
    is_proven_dead(&rig).await;
}

/// What a grade promises of its kill path, with a warden that is not told which it shall have.
async fn keeps_its_promise(wanted: &str) {
    let mut rig = Rig::new(Duration::from_secs(60)).await;
    let state = rig.client.state.clone();
    if state.containment != wanted {
        lacks(&format!(
            "the grade here is {}: {:?}",
            state.containment, state.shortfalls
        ));
        return;
    }
    let told = |begin: &str| state.shortfalls.iter().any(|text| text.starts_with(begin));
    assert!(told("no namespaces: "), "{state:?}");
    assert!(told("no namespaces of a user: "), "{state:?}");
    assert_eq!(
        told("no kill by control groups: "),
        wanted == SCAN,
        "{state:?}"
    );
    let deadline = rig.arm_in(Duration::from_millis(2500)).await;
    let order = rig.script(20, "(setsid sleep 1000 &) ; echo up; exit 7");
    assert_eq!(rig.result(order).await.1, Some(7));
    assert_eq!(rig.processes(), Vec::<u32>::new(), "after Ended");
    let _outputs = start_trees(&mut rig).await;
    is_proven_dead(&rig).await;
    assert!(crate::support::boot_nanos() >= deadline);
}

#[tokio::test]
async fn an_ordinary_user_without_namespaces_has_a_scan_and_is_told_why() {
    if is_again() {
        keeps_its_promise(SCAN).await;
    } else if rustix::process::geteuid().is_root()
        && let Some(folder) = folder_of_other_user()
    {
        let prefix = [OTHER_USER.as_slice(), &NO_NAMESPACES].concat();
        let name = "an_ordinary_user_without_namespaces_has_a_scan_and_is_told_why";
        again(&format!("warden_grades::{name}"), &prefix, folder.path());
    } else {
        lacks("only root can become another user");
    }
}

#[tokio::test]
async fn an_ordinary_user_without_namespaces_has_a_control_group_where_one_is_delegated() {
    if is_again() {
        keeps_its_promise(CGROUP).await;
        return;
    }
    let Some((folder, delegated)) = folder_of_other_user().zip(Delegated::new()) else {
        lacks("no control group can be delegated here");
        return;
    };
    let join = format!(
        "echo 0 > {}/cgroup.procs && exec \"$0\" \"$@\"",
        delegated.0.display()
    );
    let prefix = [["sh", "-c", &join].as_slice(), &OTHER_USER, &NO_NAMESPACES].concat();
    let name = "an_ordinary_user_without_namespaces_has_a_control_group_where_one_is_delegated";
    again(&format!("warden_grades::{name}"), &prefix, folder.path());
}

/// A control group that belongs to the other user. Dropping it removes it.
struct Delegated(PathBuf);

impl Delegated {
    fn new() -> Option<Self> {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
        let mount = mounts
            .into_iter()
            .map(Path::new)
            .find(|mount| mount.join("cgroup.procs").exists())?;
        let group = mount.join(format!("quorate-test-{}", std::process::id()));
        std::fs::create_dir(&group).ok()?;
        for file in ["", "cgroup.procs", "cgroup.subtree_control"] {
            std::os::unix::fs::chown(group.join(file), Some(65_533), Some(65_533)).ok()?;
        }
        Some(Self(group))
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        // Its processes have ended; the kernel may need a moment to see it.
        let late = std::time::Instant::now() + SOON;
        while std::fs::remove_dir(&self.0).is_err() && std::time::Instant::now() < late {
            std::thread::yield_now();
        }
    }
}

/// Under tokens that are still free.
async fn start_trees_after(rig: &mut Rig) -> Vec<std::os::fd::OwnedFd> {
    let order = rig.script(10, "(setsid sleep 1000 &) ; echo up; sleep 1000");
    let (_, outputs) = rig.start(order).await;
    eventually("both are up", || rig.processes().len() >= 3).await;
    outputs
}
