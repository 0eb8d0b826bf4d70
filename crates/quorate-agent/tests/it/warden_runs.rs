//! What a warden starts is what it was told to start, and it tells truthfully what became of it.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is its failure")]

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use quorate_agent::warden::protocol::{Order, Reply};
use quorate_agent::warden::{KERNEL, SCAN};
use rustix::process::Signal;

use crate::support::{Rig, children, eventually, lacks, run, state, text};

#[tokio::test]
async fn a_command_has_exactly_the_environment_folder_streams_and_limits_it_was_given() {
    let mut rig = Rig::armed().await;
    let mut order = rig.script(
        1,
        "env | sort; pwd; umask; ulimit -n; readlink /proc/self/fd/0; ls /proc/self/fd | wc -l; \
         trap | wc -l; grep -E 'Sig(Blk|Ign)' /proc/self/status; echo err >&2; echo pid $$",
    );
    order.working_dir = "/tmp".to_owned();
    order.files_max = Some(77);
    order.env.push(("WITH SPACE".to_owned(), "a=b".to_owned()));
    let mark = order.env[0].1.clone();
    let (output, code, signal) = rig.result(order).await;
    assert_eq!((code, signal), (Some(0), None), "{output}");
    let lines: Vec<&str> = output.lines().collect();
    // The shell adds PWD itself; names that are no shell names it passes on.
    assert!(lines.contains(&"PATH=/usr/bin:/bin"), "{output}");
    assert!(lines.contains(&format!("QUORATE_TEST_MARK={mark}").as_str()));
    assert!(!output.contains("CARGO"), "{output}");
    assert!(
        output.contains("\n/tmp\n0077\n77\n/dev/null\n4\n0\n"),
        "{output}"
    );
    assert!(
        output.contains("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nerr\n"),
        "{output}"
    );
    assert!(
        !output.contains("pid 1\n"),
        "the command is never PID 1: {output}"
    );
}

/// What an agent and its warden need for themselves is not for programs that wait with `select`.
#[tokio::test]
async fn a_run_has_the_limit_of_open_files_that_its_agent_was_started_with() {
    let mut rig = Rig::with_files(777).await;
    let order = rig.script(1, "ulimit -Sn; ulimit -Hn");
    let (output, ..) = rig.result(order).await;
    let (soft, hard) = output.trim().split_once('\n').unwrap();
    assert_eq!(soft, "777");
    assert!(
        hard == "unlimited" || hard.parse::<u64>().unwrap() > 777,
        "{hard}"
    );
}

#[tokio::test]
async fn exit_code_and_signal_of_the_command_are_told() {
    let mut rig = Rig::armed().await;
    for (token, script, wanted) in [
        (1, "exit 0", (Some(0), None)),
        (2, "exit 42", (Some(42), None)),
        (3, "kill -USR1 $$", (None, Some(10))),
        (4, "kill -SEGV $$", (None, Some(11))),
    ] {
        let order = rig.script(token, script);
        let (_, code, signal) = rig.result(order).await;
        assert_eq!((code, signal), wanted, "{script}");
    }
}

#[tokio::test]
async fn a_signal_reaches_the_command_which_can_handle_it_as_usual() {
    let mut rig = Rig::armed().await;
    let order = rig.script(
        1,
        "trap 'echo got it; exit 5' TERM; echo up; while :; do sleep 0.01; done",
    );
    let (_, descriptors) = rig.start(order).await;
    let output = descriptors[0].try_clone().unwrap();
    eventually("the trap is set", || has_bytes(&output)).await;
    rig.send(Order::Signal {
        run: run(1),
        signal: 15,
        whole_tree: false,
    })
    .await;
    assert_eq!(rig.ended(1).await, (Some(5), None));
    assert_eq!(text(descriptors), "up\ngot it\n");
}

#[tokio::test]
async fn a_plain_command_ends_by_sigterm_as_it_would_anywhere() {
    let mut rig = Rig::armed().await;
    let order = rig.command(1, &["sleep", "1000"]);
    rig.start(order).await;
    rig.send(Order::Signal {
        run: run(1),
        signal: 15,
        whole_tree: false,
    })
    .await;
    assert_eq!(rig.ended(1).await, (None, Some(15)));
}

#[tokio::test]
async fn a_signal_to_the_whole_tree_reaches_those_who_left_the_group() {
    let mut rig = Rig::armed().await;
    let order = rig.script(
        1,
        "setsid sh -c 'trap \"echo child; exit\" USR1; echo up; while :; do sleep 0.01; done' &
         trap 'wait; echo parent; exit 3' USR1; echo up; while :; do sleep 0.01; done",
    );
    let (_, descriptors) = rig.start(order).await;
    let output = descriptors[0].try_clone().unwrap();
    eventually("both traps are set", || bytes_in(&output) >= 6).await;
    rig.send(Order::Signal {
        run: run(1),
        signal: 10,
        whole_tree: true,
    })
    .await;
    assert_eq!(rig.ended(1).await, (Some(3), None));
    // The shells also tell that their sleeps were signalled.
    let output = text(descriptors);
    assert!(
        output.contains("child\n") && output.contains("parent\n"),
        "{output}"
    );
}

#[tokio::test]
async fn a_command_deaf_to_signals_dies_by_kill() {
    let mut rig = Rig::armed().await;
    let order = rig.script(
        1,
        "trap '' TERM INT HUP; echo up; while :; do sleep 0.01; done",
    );
    let (pid, descriptors) = rig.start(order).await;
    eventually("it is deaf", || has_bytes(&descriptors[0])).await;
    rig.send(Order::Signal {
        run: run(1),
        signal: 15,
        whole_tree: true,
    })
    .await;
    assert!(state(pid).is_some());
    rig.send(Order::Kill { run: run(1) }).await;
    assert_eq!(rig.ended(1).await, (None, Some(9)));
    assert_eq!(rig.processes(), Vec::<u32>::new());
}

#[tokio::test]
async fn daemons_that_hid_are_gone_when_the_end_is_told() {
    let mut rig = Rig::armed().await;
    assert_eq!(rig.client.state.containment, KERNEL);
    let hide = "(setsid sh -c 'trap \"\" TERM; (setsid sleep 1000 &) ; sleep 1000' &) ; \
                (env -i setsid sleep 1000 &)";
    for token in 1..=5 {
        let order = rig.script(token, &format!("{hide}; exit 7"));
        let (_, code, _) = rig.result(order).await;
        assert_eq!(code, Some(7));
        assert_eq!(
            rig.processes(),
            Vec::<u32>::new(),
            "after Ended nothing executes"
        );
        let order = rig.script(token + 100, &format!("{hide}; echo up; sleep 1000"));
        let (_, descriptors) = rig.start(order).await;
        eventually("daemons are up", || has_bytes(&descriptors[0])).await;
        rig.send(Order::Kill {
            run: run(token + 100),
        })
        .await;
        assert_eq!(rig.ended(token + 100).await, (None, Some(9)));
        assert_eq!(rig.processes(), Vec::<u32>::new());
    }
}

#[tokio::test]
async fn a_fork_bomb_is_gone_when_its_end_is_told() {
    let mut rig = Rig::armed().await;
    // Each generation doubles and stays: bounded by the pids that a user limit would leave.
    let bomb =
        "b() { [ $1 -gt 0 ] && { b $(($1-1)) & b $(($1-1)) & }; sleep 1000; }; b 7 & echo up; wait";
    let order = rig.script(1, bomb);
    rig.start(order).await;
    eventually("it has spread", || rig.processes().len() > 60).await;
    rig.send(Order::Kill { run: run(1) }).await;
    rig.ended(1).await;
    assert_eq!(rig.processes(), Vec::<u32>::new());
}

#[tokio::test]
async fn a_command_runs_as_the_user_it_was_told_without_a_way_back() {
    if !rustix::process::geteuid().is_root() {
        lacks("needs root to become another user");
        return;
    }
    let mut rig = Rig::armed().await;
    let mut order = rig.script(
        1,
        "id -un; id -G; grep NoNewPrivs /proc/self/status; kill -9 -1; exit 3",
    );
    order.user = Some("nobody".to_owned());
    let (output, code, signal) = rig.result(order).await;
    assert!(
        output.starts_with("nobody\n65534\nNoNewPrivs:\t1\n"),
        "{output}"
    );
    assert!(code == Some(3) || signal == Some(9));
    let mut order = rig.script(2, "true");
    order.user = Some("nobody-of-that-name".to_owned());
    let reason = rig.refused(order).await;
    assert!(
        reason.contains("nobody-of-that-name does not exist"),
        "{reason}"
    );
}

#[tokio::test]
async fn whatever_cannot_be_executed_is_told_with_its_reason_and_next_step() {
    let mut rig = Rig::armed().await;
    let folder = rig.dir().to_owned();
    let file = |name: &str, text: &str, mode| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let cases = [
        (
            vec!["/no/such/feed".to_owned()],
            "/no/such/feed does not exist",
        ),
        (vec!["no-such-feed".to_owned()], "not found in PATH"),
        (vec!["/tmp".to_owned()], "is a directory"),
        (vec![file("plain", "x", 0o600)], "chmod +x"),
        (
            vec![file("broken", "#!/no/interpreter\n", 0o700)],
            "interpreter",
        ),
        (vec![file("garbage", "\u{1}\u{2}", 0o700)], "not a program"),
        (
            vec!["true".to_owned(), "x".repeat(200_000)],
            "longer than the system allows",
        ),
        (vec!["true".to_owned(), "a\0b".to_owned()], "NUL"),
        (vec![], "empty"),
    ];
    for (token, (command, wanted)) in (1..).zip(cases) {
        let mut order = rig.command(token, &[]);
        order.command = command;
        let reason = rig.refused(order).await;
        assert!(reason.contains(wanted), "{wanted}: {reason}");
    }
    let mut order = rig.command(50, &["true"]);
    order.working_dir = "/no/such/folder".to_owned();
    assert!(
        rig.refused(order)
            .await
            .contains("/no/such/folder does not exist")
    );
    let mut order = rig.command(51, &["true"]);
    order.env.push(("A\0B".to_owned(), "c".to_owned()));
    assert!(rig.refused(order).await.contains("NUL"));
    let mut order = rig.command(52, &["true"]);
    order.notify_socket = Some("/no/such/folder/notify".to_owned());
    assert!(rig.refused(order).await.contains("notify socket"));
    // What was refused is forgotten: the same run may be tried again.
    let order = rig.command(50, &["true"]);
    assert_eq!(rig.result(order).await.1, Some(0));
}

#[tokio::test]
async fn an_order_too_long_for_a_frame_is_refused_before_it_is_sent() {
    let mut rig = Rig::armed().await;
    let order = rig.command(1, &["true", &"x".repeat(9 << 20)]);
    let sent = rig.client.sender.send(&Order::Start(Box::new(order))).await;
    assert!(sent.is_err());
    let order = rig.command(2, &["true"]);
    assert_eq!(rig.result(order).await.1, Some(0));
}

#[tokio::test]
async fn nothing_is_started_before_a_deadline_is_armed_nor_twice() {
    let mut rig = Rig::new(Duration::from_secs(60)).await;
    let order = rig.command(1, &["sleep", "1000"]);
    let reason = rig.refused(order.clone()).await;
    assert!(reason.contains("no deadline"), "{reason}");
    rig.arm_in(Duration::from_secs(600)).await;
    let (pid, _) = rig.start(order.clone()).await;
    let (again, _) = rig.start(order).await;
    assert_eq!(pid, again);
    assert_eq!(rig.processes(), [pid]);
}

#[tokio::test]
async fn a_notify_socket_is_made_before_the_command_and_handed_to_the_agent() {
    let mut rig = Rig::armed().await;
    let path = rig.dir().join("notify").display().to_string();
    let mut order = rig.script(
        1,
        "python3 -c 'import os,socket; \
         socket.socket(1,2).sendto(b\"READY=1\", os.environ[\"NOTIFY_SOCKET\"])'; sleep 1000",
    );
    order.env.push(("NOTIFY_SOCKET".to_owned(), path.clone()));
    order.notify_socket = Some(path.clone());
    let (_, mut descriptors) = rig.start(order).await;
    assert_eq!(descriptors.len(), 2);
    let notify = std::os::unix::net::UnixDatagram::from(descriptors.remove(1));
    let mut bytes = [0; 64];
    let mut count = 0;
    eventually("READY=1 comes", || {
        notify.recv(&mut bytes).is_ok_and(|n| {
            count = n;
            true
        })
    })
    .await;
    assert_eq!(&bytes[..count], b"READY=1");
    rig.send(Order::Kill { run: run(1) }).await;
    rig.ended(1).await;
    assert!(!std::path::Path::new(&path).exists());
}

#[tokio::test]
async fn three_hundred_runs_three_times_leave_no_zombie_and_no_descriptor() {
    let mut rig = Rig::armed().await;
    let timekeeper = rig.client.state.pid;
    let holder = children(timekeeper)[0];
    let descriptors = || {
        std::fs::read_dir(format!("/proc/{holder}/fd"))
            .unwrap()
            .count()
    };
    let before = descriptors();
    for round in 0..3 {
        let tokens: Vec<u64> = (1..=300).map(|n| round * 1000 + n).collect();
        for &token in &tokens {
            let order = rig.command(token, &["sleep", "1000"]);
            rig.send(Order::Start(Box::new(order))).await;
        }
        for _ in &tokens {
            assert!(matches!(rig.recv().await.0, Reply::Started { .. }));
        }
        assert_eq!(rig.processes().len(), 300);
        for &token in &tokens {
            rig.send(Order::Kill { run: run(token) }).await;
        }
        for _ in &tokens {
            let (Reply::Ended { run, .. }, _) = rig.recv().await else {
                panic!("not Ended")
            };
            rig.send(Order::Forget { run }).await;
        }
        assert_eq!(rig.processes(), Vec::<u32>::new());
    }
    // The first count may have seen those of the greeting, which the holder was about to close.
    eventually("all is forgotten", || descriptors() <= before).await;
    assert_eq!(children(holder), Vec::<u32>::new());
    assert_eq!(children(timekeeper), [holder]);
}

#[tokio::test]
async fn ctrl_c_and_hang_up_do_not_reach_a_warden_or_its_runs() {
    let mut rig = Rig::armed().await;
    let order = rig.command(1, &["sleep", "1000"]);
    let (pid, _) = rig.start(order).await;
    let timekeeper = rig.client.state.pid;
    for target in [timekeeper, children(timekeeper)[0]] {
        for signal in [
            Signal::HUP,
            Signal::INT,
            Signal::QUIT,
            Signal::USR1,
            Signal::PIPE,
            Signal::ALARM,
        ] {
            crate::support::kill(target, signal);
        }
    }
    let order = rig.command(2, &["true"]);
    assert_eq!(rig.result(order).await.1, Some(0));
    assert!(state(pid).is_some());
    assert_ne!(SCAN, rig.client.state.containment);
}

fn bytes_in(pipe: impl std::os::fd::AsFd) -> u64 {
    rustix::io::ioctl_fionread(pipe).unwrap()
}

fn has_bytes(pipe: impl std::os::fd::AsFd) -> bool {
    bytes_in(pipe) > 0
}

#[tokio::test]
async fn root_runs_nothing_where_that_is_not_allowed() {
    if !rustix::process::geteuid().is_root() {
        lacks("only root can start runs of root");
        return;
    }
    let mut rig = Rig::new(Duration::from_secs(60)).await;
    rig.arm_in(Duration::from_secs(600)).await;
    // Whatever name the user 0 has.
    for (token, user) in [(1, None), (2, Some("root")), (3, Some("0"))] {
        let mut order = rig.script(token, "true");
        order.root = false;
        order.user = user.map(str::to_owned);
        let reason = rig.refused(order).await;
        assert!(reason.contains("does not allow runs of root"), "{reason}");
    }
    let mut order = rig.script(4, "exit 3");
    order.root = false;
    order.user = Some("nobody".to_owned());
    rig.start(order).await;
    assert_eq!(rig.ended(4).await, (Some(3), None));
}
