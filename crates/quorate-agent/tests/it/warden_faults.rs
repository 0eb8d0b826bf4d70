//! Whatever is killed or frozen, nothing that a warden held executes after its deadline, and what is
//! told of death is true.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is its failure")]

use std::time::Duration;

use quorate_agent::warden::client::{Client, ConnectError, Terms, Unproven, find};
use quorate_agent::warden::group::Leftover;
use quorate_agent::warden::protocol::{Order, Reply};
use quorate_agent::warden::{CGROUP, KERNEL, SCAN};
use rustix::process::Signal;

use crate::support::{
    Rig, SOON, boot_nanos, children, eventually, kill, lacks, program, run, state, text,
};

/// Three trees with daemons that hid, all up.
pub(crate) async fn start_trees(rig: &mut Rig) -> Vec<std::os::fd::OwnedFd> {
    let mut outputs = Vec::new();
    for token in 1..=3 {
        let script = "(setsid sh -c '(setsid sleep 1000 &) ; sleep 1000' &) ; echo up; sleep 1000";
        let order = rig.script(token, script);
        outputs.extend(rig.start(order).await.1);
    }
    eventually("all processes are up", || rig.processes().len() >= 12).await;
    outputs
}

pub(crate) async fn is_proven_dead(rig: &Rig) {
    rig.client.proof.proven_dead(SOON).await.unwrap();
    assert_eq!(
        rig.processes(),
        Vec::<u32>::new(),
        "after the proof nothing executes"
    );
}

#[tokio::test]
async fn killing_either_process_of_a_warden_kills_every_run_and_the_proof_arrives() {
    for which in ["timekeeper", "holder"] {
        let mut rig = Rig::armed().await;
        let _outputs = start_trees(&mut rig).await;
        let alive = rig.client.proof.proven_dead(Duration::ZERO).await;
        assert!(matches!(alive, Err(Unproven::Alive { .. })));
        let timekeeper = rig.client.state.pid;
        match which {
            "timekeeper" => kill(timekeeper, Signal::KILL),
            _ => kill(children(timekeeper)[0], Signal::KILL),
        }
        is_proven_dead(&rig).await;
        eventually("no warden is left", || {
            find(rig.dir().parent().unwrap())
                .iter()
                .all(|dir| dir != rig.dir())
        })
        .await;
    }
}

#[tokio::test]
async fn the_kernel_kills_everything_at_the_deadline_though_everything_is_stopped() {
    let mut rig = Rig::new(Duration::from_secs(60)).await;
    all_dies_at_the_deadline_though_stopped(&mut rig).await;
}

/// How late the kill may be: K of the lease arithmetic.
const KILL_WITHIN: Duration = Duration::from_secs(1);

/// Stops everything, and sees it dead at the deadline and not before.
pub(crate) async fn all_dies_at_the_deadline_though_stopped(rig: &mut Rig) {
    let deadline = rig.arm_in(Duration::from_millis(1500)).await;
    let _outputs = start_trees(rig).await;
    let timekeeper = rig.client.state.pid;
    let holders = children(timekeeper);
    let inits: Vec<u32> = holders.iter().flat_map(|&pid| children(pid)).collect();
    assert_eq!((holders.len(), inits.len()), (1, 3));
    for pid in rig
        .processes()
        .into_iter()
        .chain(inits)
        .chain(holders.iter().copied())
        .chain([timekeeper])
    {
        kill(pid, Signal::STOP);
    }
    eventually("both are stopped", || {
        state(timekeeper) == Some('T') && holders.iter().all(|&pid| state(pid) == Some('T'))
    })
    .await;
    assert!(
        boot_nanos() < deadline,
        "the host is too slow for this test"
    );
    is_proven_dead_by(rig, deadline).await;
}

/// Sees everything dead at this deadline, not before and no later than may be.
pub(crate) async fn is_proven_dead_by(rig: &Rig, deadline: u64) {
    let left = Duration::from_nanos(deadline.saturating_sub(boot_nanos()));
    let proven = rig.client.proof.proven_dead(left + KILL_WITHIN).await;
    assert!(
        proven.is_ok(),
        "{proven:?} {KILL_WITHIN:?} after the deadline"
    );
    assert!(boot_nanos() >= deadline, "not before the deadline");
    assert_eq!(
        rig.processes(),
        Vec::<u32>::new(),
        "after the proof nothing executes"
    );
}

#[tokio::test]
async fn a_deadline_moves_forward_and_never_back() {
    let mut rig = Rig::new(Duration::from_secs(60)).await;
    let far = rig.arm_in(Duration::from_secs(600)).await;
    rig.arm_in(Duration::from_secs(300)).await;
    rig.adopt().await;
    let armed = rig.client.state.deadline;
    assert_eq!(armed, Some(far), "an earlier one counts for nothing");
    rig.send(Order::Arm {
        deadline: boot_nanos() + 1_000_000,
    })
    .await;
    rig.send(Order::Arm { deadline: 0 }).await;
    let order = rig.command(1, &["sleep", "0.2"]);
    assert_eq!(rig.result(order).await.1, Some(0));
    rig.send(Order::Forget { run: run(1) }).await;
    rig.adopt().await;
    assert_eq!(rig.client.state.deadline, Some(far));
    let farther = rig.arm_in(Duration::from_secs(700)).await;
    rig.adopt().await;
    assert_eq!(rig.client.state.deadline, Some(farther));
    rig.send(Order::Arm { deadline: u64::MAX }).await;
    let order = rig.command(2, &["true"]);
    assert_eq!(rig.result(order).await.1, Some(0));
}

#[tokio::test]
async fn the_first_deadline_when_past_kills_at_once() {
    let mut rig = Rig::new(Duration::from_secs(60)).await;
    rig.send(Order::Arm { deadline: 0 }).await;
    is_proven_dead(&rig).await;
}

#[tokio::test]
async fn the_next_agent_finds_every_run_untouched_and_every_end_untold() {
    let mut rig = Rig::armed().await;
    rig.send(Order::Keep {
        blob: b"session".to_vec(),
    })
    .await;
    let order = rig.script(
        1,
        "echo before; read line < /proc/self/fd/0; while :; do echo tick; sleep 0.01; done",
    );
    let (pid, first_output) = rig.start(order).await;
    let order = rig.script(2, "echo last words; sleep 0.3; exit 9");
    rig.start(order).await;
    let order = rig.command(3, &["true"]);
    rig.start(order).await;
    assert_eq!(rig.ended(3).await, (Some(0), None));
    rig.send(Order::Forget { run: run(3) }).await;
    let holder = children(rig.client.state.pid)[0];
    let deadline = rig.client.state.deadline;
    assert_eq!(deadline, None, "as it was told at the beginning");
    // The agent crashes, and the second run ends while there is none.
    rig.adopt().await;
    eventually("the second run has ended", || children(holder).len() == 1).await;
    rig.adopt().await;
    assert_eq!(
        rig.client.state.blob.as_deref(),
        Some(b"session".as_slice())
    );
    let (reply, output) = rig.recv().await;
    assert_eq!(
        reply,
        Reply::Started {
            run: run(1),
            pid,
            notify: false,
            api: false
        }
    );
    let (reply, rest) = rig.recv().await;
    assert!(matches!(reply, Reply::Started { run: id, .. } if id == run(2)));
    let (reply, _) = rig.recv().await;
    assert_eq!(
        reply,
        Reply::Ended {
            run: run(2),
            code: Some(9),
            signal: None
        }
    );
    assert_eq!(text(rest), "last words\n", "what nobody has read is kept");
    drop(first_output);
    let mut bytes = [0; 4096];
    let mut seen = String::new();
    eventually("its output goes on", || {
        if let Ok(count) = rustix::io::read(&output[0], &mut bytes) {
            seen.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        seen.starts_with("before\n") && seen.matches("tick\n").count() > 10
    })
    .await;
    rig.send(Order::Forget { run: run(2) }).await;
    rig.adopt().await;
    let (reply, _) = rig.recv().await;
    assert_eq!(
        reply,
        Reply::Started {
            run: run(1),
            pid,
            notify: false,
            api: false
        }
    );
    let order = rig.command(4, &["true"]);
    assert_eq!(
        rig.result(order).await.1,
        Some(0),
        "nothing of run 2 is told any more"
    );
}

#[tokio::test]
async fn a_second_agent_is_refused_while_the_first_is_there() {
    let rig = Rig::armed().await;
    let second = Client::connect(rig.dir()).await;
    assert!(
        matches!(second, Err(ConnectError::Busy { .. })),
        "{second:?}"
    );
    let second = Client::spawn(&program(), rig.dir(), Terms::of_a_trial(Duration::ZERO)).await;
    let Err(ConnectError::NotStarted { reason, .. }) = second else {
        panic!("{second:?}")
    };
    assert!(reason.contains("another warden lives"), "{reason}");
    assert_eq!(
        find(rig.dir().parent().unwrap())
            .iter()
            .filter(|dir| *dir == rig.dir())
            .count(),
        1
    );
}

#[tokio::test]
async fn with_no_time_to_adopt_all_is_killed_and_the_last_will_executed() {
    let mut rig = Rig::new(Duration::ZERO).await;
    rig.arm_in(Duration::from_secs(600)).await;
    let _outputs = start_trees(&mut rig).await;
    std::fs::write(rig.dir().join("last-will.json"), "{}").unwrap();
    rig.send(Order::Keep {
        blob: vec![1; 100_000],
    })
    .await;
    let Rig { client, .. } = &mut rig;
    let timekeeper = client.state.pid;
    // The crash of an agent closes its socket; the proof it held dies with it, so a copy is looked at.
    let other = tempfile::tempdir().unwrap();
    let spare = Client::spawn(&program(), other.path(), Terms::of_a_trial(Duration::ZERO))
        .await
        .unwrap();
    let Client { proof, .. } = std::mem::replace(client, spare);
    let told = rig.dir().join("last-will.told");
    eventually("the last will is executed", || told.exists()).await;
    proof.proven_dead(Duration::ZERO).await.unwrap();
    assert_eq!(rig.processes(), Vec::<u32>::new());
    eventually(
        "the warden has ended",
        || !matches!(state(timekeeper), Some(state) if state != 'Z'),
    )
    .await;
    assert!(!rig.dir().join("warden.sock").exists());
    let gone = Client::connect(rig.dir()).await;
    assert!(matches!(gone, Err(ConnectError::Absent { .. })), "{gone:?}");
    drop(rig);
    // The one that stood in was killed with the rig.
    if let Some(left) = Leftover::of(other.path()) {
        assert!(left.clear(SOON));
    }
}

#[tokio::test]
async fn end_and_sigterm_kill_all_prove_it_and_tell_it() {
    for by_signal in [false, true] {
        let mut rig = Rig::armed().await;
        std::fs::write(rig.dir().join("last-will.json"), "{}").unwrap();
        let _outputs = start_trees(&mut rig).await;
        if by_signal {
            kill(rig.client.state.pid, Signal::TERM);
        } else {
            rig.send(Order::End).await;
        }
        let mut ends = 0;
        loop {
            let reply = rig.recv().await.0;
            if reply == Reply::Empty {
                break;
            }
            assert!(matches!(reply, Reply::Ended { .. }), "{reply:?}");
            ends += 1;
        }
        assert_eq!(ends, 3);
        assert_eq!(rig.processes(), Vec::<u32>::new());
        is_proven_dead(&rig).await;
        let timekeeper = rig.client.state.pid;
        eventually(
            "the warden has ended",
            || !matches!(state(timekeeper), Some(state) if state != 'Z'),
        )
        .await;
        assert!(
            rig.dir().join("last-will.json").exists(),
            "an agent that is there closes its session itself"
        );
    }
}

#[tokio::test]
async fn malformed_orders_close_the_connection_and_harm_no_run() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    let mut rig = Rig::armed().await;
    let order = rig.command(1, &["sleep", "1000"]);
    let (pid, _) = rig.start(order).await;
    let socket = rig.dir().join("warden.sock");
    let hello = [
        &[0x81, 0xa5][..],
        b"hello",
        &[0x81, 0xa8],
        b"protocol",
        &[1],
    ]
    .concat();
    let framed = |body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap().to_le_bytes();
        [&length[..], body].concat()
    };
    let bad: Vec<Vec<u8>> = vec![
        u32::MAX.to_le_bytes().to_vec(),
        framed(&[0xc1; 64]),
        framed(b""),
        framed(&[0xa3, b'e', b'n', b'd']),
        vec![0; 3],
        [framed(&hello), framed(&hello)].concat(),
        [framed(&hello), vec![0xff; 70_000]].concat(),
    ];
    for bytes in bad {
        // With the agent there, and with none.
        for alone in [false, true] {
            if alone {
                let dir = tempfile::tempdir().unwrap();
                let spare =
                    Client::spawn(&program(), dir.path(), Terms::of_a_trial(Duration::ZERO))
                        .await
                        .unwrap();
                drop(std::mem::replace(&mut rig.client, spare));
            }
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            let _closed = stream.write_all(&bytes);
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            // Whatever is answered, the end of it comes.
            let _reset = stream.read_to_end(&mut Vec::new());
            if alone {
                let started = std::time::Instant::now();
                rig.client = loop {
                    match Client::connect(rig.dir()).await {
                        Ok(client) => break client,
                        Err(cause) => assert!(started.elapsed() < SOON, "{cause}"),
                    }
                };
                let (reply, _) = rig.recv().await;
                assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
            }
        }
    }
    assert_eq!(rig.processes(), [pid]);
}

#[tokio::test]
async fn an_agent_that_does_not_read_slows_nobody_but_itself() {
    let mut rig = Rig::armed().await;
    let order = rig.command(1, &["sleep", "1000"]);
    rig.start(order.clone()).await;
    // Each is answered, and no answer is read until the warden stops reading.
    let mut sent = 0;
    while sent < 50_000 {
        let order = Order::Start(Box::new(order.clone()));
        match tokio::time::timeout(Duration::from_millis(300), rig.client.sender.send(&order)).await
        {
            Ok(result) => result.unwrap(),
            Err(_full) => break,
        }
        sent += 1;
    }
    assert!(sent > 100 && sent < 50_000, "{sent}");
    let holder = children(rig.client.state.pid)[0];
    let status = std::fs::read_to_string(format!("/proc/{holder}/status")).unwrap();
    let resident: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse().ok())
        .unwrap();
    assert!(resident < 32 * 1024, "{resident} KiB");
    for _ in 0..sent {
        assert!(matches!(rig.recv().await.0, Reply::Started { .. }));
    }
}

/// A frozen group of version 1, which not even SIGKILL thaws. Dropping it thaws and removes it.
struct Freezer(std::path::PathBuf);

impl Freezer {
    /// `None`, which is told, where there is no such thing.
    fn new(dir: &std::path::Path) -> Option<Self> {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        let path = std::path::Path::new("/sys/fs/cgroup/freezer").join(format!("quorate{name}"));
        let made = std::fs::create_dir(&path);
        if made.is_err() || !path.join("freezer.state").exists() {
            lacks("this host has no freezer of version 1 that may be used");
            return None;
        }
        Some(Self(path))
    }

    async fn freeze(&self, pids: &[u32]) {
        for pid in pids {
            std::fs::write(self.0.join("tasks"), pid.to_string()).unwrap();
        }
        std::fs::write(self.0.join("freezer.state"), "FROZEN").unwrap();
        eventually("they are frozen", || {
            std::fs::read_to_string(self.0.join("freezer.state")).unwrap() == "FROZEN\n"
        })
        .await;
    }

    fn thaw(&self) {
        let _gone = std::fs::write(self.0.join("freezer.state"), "THAWED");
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
        let late = std::time::Instant::now() + SOON;
        while std::fs::remove_dir(&self.0).is_err() && std::time::Instant::now() < late {
            std::thread::yield_now();
        }
    }
}

#[tokio::test]
async fn a_timekeeper_that_not_even_a_kill_wakes_leaves_the_deadline_to_the_holder() {
    for grade in [KERNEL, SCAN] {
        let mut rig = Rig::of_grade(grade).await;
        let Some(freezer) = Freezer::new(rig.dir()) else {
            return;
        };
        let deadline = rig.arm_in(Duration::from_millis(2500)).await;
        let _outputs = start_trees(&mut rig).await;
        freezer.freeze(&[rig.client.state.pid]).await;
        assert!(
            boot_nanos() < deadline,
            "the host is too slow for this test"
        );
        eventually("nothing executes", || {
            rig.processes().is_empty() || grade == SCAN && boot_nanos() > deadline + 200_000_000
        })
        .await;
        assert!(boot_nanos() >= deadline, "not before the deadline");
        if grade == SCAN {
            // What hid is left to the timekeeper, and nobody says that it is gone before.
            let proven = rig.client.proof.proven_dead(Duration::ZERO).await;
            assert!(proven.is_err(), "{proven:?}");
            freezer.thaw();
        }
        is_proven_dead(&rig).await;
    }
}

#[tokio::test]
async fn the_end_of_a_run_that_cannot_die_is_not_told_before_it_has() {
    for grade in [KERNEL, SCAN] {
        let mut rig = Rig::of_grade(grade).await;
        let Some(freezer) = Freezer::new(rig.dir()) else {
            return;
        };
        rig.arm_in(Duration::from_secs(600)).await;
        let order = rig.script(1, "(setsid sleep 1000 &) ; echo up; sleep 1000");
        rig.start(order).await;
        eventually("all is up", || rig.processes().len() >= 3).await;
        let pids = rig.processes();
        freezer.freeze(&pids).await;
        rig.send(Order::Kill { run: run(1) }).await;
        // Another run ends meanwhile, so the warden goes on; the first is not among what it tells.
        let order = rig.command(2, &["true"]);
        rig.start(order).await;
        assert_eq!(rig.ended(2).await, (Some(0), None));
        let told = tokio::time::timeout(Duration::from_millis(200), rig.client.receiver.recv());
        assert!(told.await.is_err(), "{grade}: nothing is told");
        freezer.thaw();
        assert_eq!(rig.ended(1).await, (None, Some(9)), "{grade}");
        assert!(
            !pids
                .iter()
                .any(|&pid| matches!(state(pid), Some('R' | 'S' | 'D' | 'T')))
        );
    }
}

#[tokio::test]
async fn a_tree_that_forks_without_end_dies_in_every_grade() {
    for grade in [KERNEL, CGROUP, SCAN] {
        let mut rig = Rig::of_grade(grade).await;
        if rig.client.state.containment != grade {
            lacks(&format!("this host allows no {grade}"));
            continue;
        }
        rig.arm_in(Duration::from_secs(600)).await;
        // Twenty that replace themselves by a child as fast as they can; no more at a time.
        let chain = "chain() { (chain &) ; } ; i=0; while [ $i -lt 20 ]; do (chain &) ; i=$((i+1)); done; sleep 1000";
        let order = rig.script(1, chain);
        rig.start(order).await;
        eventually("they fork", || rig.processes().len() >= 5).await;
        rig.send(Order::Kill { run: run(1) }).await;
        assert_eq!(rig.ended(1).await, (None, Some(9)), "{grade}");
        assert_eq!(rig.processes(), Vec::<u32>::new(), "{grade}");
    }
}

#[tokio::test]
async fn nothing_is_started_while_the_holder_of_the_timer_does_not_say_that_it_is_armed() {
    let mut rig = Rig::new(Duration::from_secs(60)).await;
    let timekeeper = rig.client.state.pid;
    kill(timekeeper, Signal::STOP);
    eventually("it is stopped", || state(timekeeper) == Some('T')).await;
    rig.arm_in(Duration::from_secs(600)).await;
    let order = rig.command(1, &["sleep", "1000"]);
    rig.send(Order::Start(Box::new(order))).await;
    let told = tokio::time::timeout(SOON, rig.client.receiver.recv()).await;
    assert!(matches!(told, Ok(Err(_))), "it gives up: {told:?}");
    assert_eq!(rig.processes(), Vec::<u32>::new());
}

#[tokio::test]
async fn no_deadline_is_so_far_that_the_timer_is_as_good_as_removed() {
    let mut rig = Rig::new(Duration::from_secs(60)).await;
    rig.send(Order::Arm { deadline: u64::MAX }).await;
    let order = rig.command(1, &["true"]);
    assert_eq!(rig.result(order).await.1, Some(0));
    rig.send(Order::Forget { run: run(1) }).await;
    rig.adopt().await;
    let armed = rig.client.state.deadline.unwrap();
    let month = Duration::from_secs(30 * 24 * 3600 + 60);
    assert!(armed < boot_nanos() + u64::try_from(month.as_nanos()).unwrap());
}

#[tokio::test]
async fn a_run_whose_output_somebody_else_holds_open_ends_all_the_same() {
    let mut rig = Rig::armed().await;
    let order = rig.script(1, "echo up; sleep 1000");
    let (pid, output) = rig.start(order).await;
    // A process that is none of the warden's opens the write end.
    let held = std::fs::File::options()
        .write(true)
        .open(format!("/proc/{pid}/fd/1"))
        .unwrap();
    rig.send(Order::Kill { run: run(1) }).await;
    assert_eq!(rig.ended(1).await, (None, Some(9)));
    rig.send(Order::End).await;
    is_proven_dead(&rig).await;
    drop((held, output));
}
