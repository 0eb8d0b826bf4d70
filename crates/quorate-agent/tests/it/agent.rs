//! The whole agent with a real warden and real processes, and a stand-in for the directors.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is its failure")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quorate_agent::warden::{CGROUP, KERNEL, SCAN};
use quorate_agent::{Allow, Config, RunError, Stops, last_will, run};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::director::Director;
use crate::support::{Rig, SOON, program, program_of_grade};
use crate::warden_groups::{execute, group, kill_both, start_hidden};

pub(crate) struct Running {
    stops: Stops,
    task: JoinHandle<Result<(), RunError>>,
}

pub(crate) fn start(director: &Director, data_dir: &Path) -> Running {
    start_adopting(director, data_dir, Duration::from_secs(30))
}

fn start_adopting(director: &Director, data_dir: &Path, adopt_within: Duration) -> Running {
    start_with(director, data_dir, adopt_within, program())
}

fn start_with(
    director: &Director,
    data_dir: &Path,
    adopt_within: Duration,
    program: PathBuf,
) -> Running {
    let config = Config {
        name: "a1".parse().unwrap(),
        data_dir: data_dir.to_owned(),
        join: vec![director.address.clone()],
        ca_file: None,
        labels: BTreeMap::new(),
        capacity: None,
        allow: Allow::default(),
        adopt_within,
        program,
        token: None,
    };
    let stops = Stops::default();
    let task = tokio::spawn(run(config, stops.clone()));
    Running { stops, task }
}

impl Running {
    pub(crate) async fn leave(self) {
        self.stops.leave.cancel();
        self.ended().await;
    }

    async fn hand_over(self) {
        self.stops.hand_over.cancel();
        self.ended().await;
    }

    async fn ended(self) {
        tokio::time::timeout(SOON, self.task)
            .await
            .expect("the agent ends")
            .unwrap()
            .unwrap();
    }

    /// As if the process were killed: no task of it does anything any more.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _aborted = self.task.await;
    }
}

/// Waits for a condition; says what it was when it never comes.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let late = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < late, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn script(text: &str) -> Value {
    json!({"command": ["/bin/sh", "-c", text], "stop": {"timeout": "2s"}})
}

pub(crate) fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// The process id that was reported with this phase.
pub(crate) fn reported(director: &Director, token: u64, phase: &str) -> Option<(u32, u32)> {
    director.look(|table| {
        let observed = table.reports.iter().flat_map(|report| &report.observed);
        observed
            .filter(|seen| seen.token == token && seen.phase == phase)
            .find_map(|seen| Some((seen.pid?, seen.attempt)))
    })
}

/// What a lease file says, which is all of it.
pub(crate) fn deadline(lease: &str) -> u64 {
    let rest = lease.strip_suffix("cluster=00000000000000c1\n").unwrap();
    let deadline = rest.strip_prefix("deadline_boottime_ms=").unwrap();
    deadline.trim_end().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_runs_prints_becomes_ready_and_is_given_back_when_the_agent_leaves() {
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let agent = start(&director, dir.path());
    let out = dir.path().join("out");
    let text = format!(
        "env > {0}.new; mv {0}.new {0}; echo hello; exec sleep 600",
        out.display()
    );
    director.assign(3, script(&text));
    let (pid, attempt) = until("ready", || reported(&director, 3, "ready")).await;
    assert_eq!(attempt, 1);
    assert!(lives(pid));
    let env = until("environment", || read(&out)).await;
    for line in [
        "QUORATE_SERVICE=feeds",
        "QUORATE_KEY=key 3",
        r#"QUORATE_DATA={"url":"tcp://x"}"#,
        "QUORATE_TOKEN=3",
        "QUORATE_CLUSTER=00000000000000c1",
        "QUORATE_AGENT=a1",
        "QUORATE_RUN=3.1",
        "QUORATE_ATTEMPT=1",
    ] {
        assert!(
            env.lines().any(|present| present == line),
            "{line} in {env}"
        );
    }
    let file = |name: &str| {
        let path = env.lines().find_map(|line| line.strip_prefix(name));
        Path::new(path.unwrap()).to_owned()
    };
    assert_eq!(
        read(&file("QUORATE_TOKEN_FILE=")).as_deref(),
        Some("token=3\ncluster=00000000000000c1\n")
    );
    let lease = file("QUORATE_LEASE_FILE=");
    let first = deadline(&read(&lease).unwrap());
    until("a later deadline", || {
        read(&lease).filter(|text| deadline(text) > first)
    })
    .await;
    let log = dir.path().join("logs/feeds/key 3/current.log");
    until("output", || read(&log).filter(|text| text == "hello\n")).await;

    agent.leave().await;
    assert!(!lives(pid));
    assert!(!lease.exists());
    director.look(|table| {
        let released: Vec<_> = table.reports.iter().flat_map(|r| &r.release).collect();
        assert_eq!(released.len(), 1);
        assert_eq!(
            (released[0].token, released[0].outcome.as_str()),
            (3, "stopped")
        );
        assert_eq!(table.closed, [(7, "left".to_owned())]);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_survives_the_death_of_its_agent_untouched_and_the_next_one_takes_it_over() {
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let agent = start(&director, dir.path());
    director.assign(
        4,
        script("echo one; while :; do sleep 0.05; echo more; done"),
    );
    let (pid, _) = until("ready", || reported(&director, 4, "ready")).await;
    agent.kill().await;
    assert!(lives(pid));
    director.change(|table| table.reports.clear());

    let agent = start(&director, dir.path());
    let (adopted, attempt) = until("adopted", || reported(&director, 4, "ready")).await;
    assert_eq!((adopted, attempt), (pid, 1));
    director.look(|table| assert_eq!((table.registered.len(), table.resumed.len()), (1, 1)));
    // Its output goes on into the same file.
    let log = dir.path().join("logs/feeds/key 4/current.log");
    let before = read(&log).unwrap_or_default().len();
    until("more output", || {
        read(&log).filter(|text| text.len() > before)
    })
    .await;
    agent.leave().await;
    assert!(!lives(pid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_handed_over_waits_for_the_next_agent_though_a_crash_would_end_it() {
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let at_once = Duration::ZERO;
    let agent = start_adopting(&director, dir.path(), at_once);
    director.assign(4, script("exec sleep 600"));
    let (pid, _) = until("ready", || reported(&director, 4, "ready")).await;
    agent.hand_over().await;
    director.change(|table| table.reports.clear());

    let agent = start_adopting(&director, dir.path(), at_once);
    let (adopted, _) = until("adopted", || reported(&director, 4, "ready")).await;
    assert_eq!(adopted, pid);
    // What was announced once does not hold for the process after: its crash ends the run.
    agent.kill().await;
    until("the run ended", || (!lives(pid)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_somebody_asks_for_is_a_new_attempt_under_the_same_token() {
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let agent = start(&director, dir.path());
    director.assign(5, script("exec sleep 600"));
    let (first, _) = until("ready", || reported(&director, 5, "ready")).await;
    director.set(5, |item| item.restarts_asked += 1);
    let (second, _) = until("second attempt", || {
        director.look(|table| {
            let observed = table.reports.iter().flat_map(|report| &report.observed);
            let mut ready = observed.filter(|seen| seen.attempt == 2 && seen.phase == "ready");
            ready.find_map(|seen| Some((seen.pid?, ())))
        })
    })
    .await;
    assert!(!lives(first) && lives(second));
    director.look(|table| {
        assert!(table.reports.iter().all(|report| report.release.is_empty()));
    });
    agent.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_does_not_exist_is_told_with_its_class_and_moves_after_its_limit() {
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let agent = start(&director, dir.path());
    let spec = json!({
        "command": ["/nonexistent/program"],
        "restart": {"backoff": "10ms..20ms", "move_after": 3},
    });
    director.assign(6, spec);
    let release = until("release", || {
        director.look(|table| {
            table
                .reports
                .iter()
                .flat_map(|r| &r.release)
                .next()
                .cloned()
        })
    })
    .await;
    assert_eq!(release.outcome, "move");
    assert_eq!(release.failures, 3);
    let exit = release.exit.unwrap();
    assert_eq!(exit.class, "not_started");
    let cause = exit.cause.unwrap();
    assert!(cause.contains("/nonexistent/program"), "{cause}");
    // Who looks for the output finds why there is none.
    let log = dir.path().join("logs/feeds/key 6/current.log");
    until("the reason in the log", || {
        let told = format!("quorate: attempt 3 could not be started: {cause}\n");
        read(&log).filter(|text| text.contains(&told))
    })
    .await;
    // Nothing of it is left behind.
    let run = dir.path().join("runs/6");
    until("its folder is gone", || (!run.exists()).then_some(())).await;
    agent.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_is_done_is_not_done_again_by_the_agent_that_takes_over() {
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let agent = start(&director, dir.path());
    director.change(|table| table.mute = true);
    let times = dir.path().join("times");
    let mut spec = script(&format!("echo once >> {}", times.display()));
    spec["restart"] = json!({"on": {"clean": "stop"}});
    director.assign(11, spec);
    let given_back = || {
        director.look(|table| {
            let mut given = table.reports.iter().flat_map(|report| &report.release);
            given.next().map(|release| release.outcome.clone())
        })
    };
    assert_eq!(until("done", given_back).await, "done");
    // The agent dies before any director knows.
    agent.kill().await;
    director.change(|table| {
        table.reports.clear();
        table.mute = false;
    });
    let agent = start(&director, dir.path());
    assert_eq!(until("done, told by the next", given_back).await, "done");
    agent.leave().await;
    assert_eq!(read(&times).unwrap(), "once\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_folder_to_run_in_may_depend_on_the_partition() {
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let agent = start(&director, dir.path());
    std::fs::create_dir(dir.path().join("key 12")).unwrap();
    let mut spec = script("pwd; exec sleep 600");
    spec["working_dir"] = format!("{}/{{{{key}}}}", dir.path().display()).into();
    director.assign(12, spec);
    let log = dir.path().join("logs/feeds/key 12/current.log");
    let told = until("output", || read(&log).filter(|text| text.ends_with('\n'))).await;
    assert!(told.ends_with("/key 12\n"), "{told}");
    agent.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_left_that_died_with_a_machine_is_swept_up() {
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let left = dir.path().join("runs/77");
    std::fs::create_dir_all(&left).unwrap();
    let agent = start(&director, dir.path());
    until("swept", || (!left.exists()).then_some(())).await;
    agent.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_are_stopped_before_the_deadline_when_no_director_renews_and_come_back_when_one_does()
{
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let agent = start(&director, dir.path());
    director.assign(8, script("exec sleep 600"));
    let (pid, _) = until("ready", || reported(&director, 8, "ready")).await;
    director.change(|table| table.silent = true);
    // The lease is 10 s with 2 s of grace: stopped in order, not killed.
    until("stopped", || (!lives(pid)).then_some(())).await;
    director.change(|table| table.silent = false);
    let (again, _) = until("again", || {
        director.look(|table| {
            let observed = table.reports.iter().flat_map(|report| &report.observed);
            let mut later = observed.filter(|seen| seen.attempt > 1 && seen.phase == "ready");
            later.find_map(|seen| Some((seen.pid?, ())))
        })
    })
    .await;
    assert!(lives(again));
    agent.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_will_closes_the_session_of_a_dead_agent() {
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let agent = start(&director, dir.path());
    director.assign(9, script("exec sleep 600"));
    until("ready", || reported(&director, 9, "ready")).await;
    let folder = dir.path().join("wardens/1");
    // A director whose quorum was given up when the cluster was restored is none.
    let era = dir.path().join("era");
    std::fs::write(&era, "9\n").unwrap();
    let soon = Duration::from_millis(500);
    let believed = tokio::time::timeout(soon, last_will(&folder)).await;
    assert!(!matches!(believed, Ok(Ok(()))), "{believed:?}");
    std::fs::remove_file(&era).unwrap();
    last_will(&folder).await.unwrap();
    let died = (7, "agent_died".to_owned());
    director.look(|table| assert!(table.closed.iter().all(|closed| *closed == died)));
    agent.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_agent_on_the_same_folder_is_refused() {
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let first = start(&director, dir.path());
    until("registered", || {
        director.look(|table| (!table.registered.is_empty()).then_some(()))
    })
    .await;
    let second = start(&director, dir.path());
    let refused = second.task.await.unwrap().unwrap_err();
    assert!(
        refused.to_string().contains("another agent runs"),
        "{refused}"
    );
    first.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_warden_left_is_ended_before_the_next_agent_is_known_to_anybody() {
    let mut rig = Rig::of_grade_below(CGROUP, "wardens/5").await;
    let Some(group) = group(rig.dir()) else {
        return;
    };
    rig.arm_in(Duration::from_secs(600)).await;
    let pids = start_hidden(&mut rig, &group, 1).await;
    kill_both(rig.client.state.pid).await;
    assert!(execute(&pids), "nobody has ended what hid");
    let director = Director::start().await;
    leave_will(rig.dir());
    let agent = start(&director, rig.folder.path());
    until("the agent has registered", || {
        director.look(|table| (!table.registered.is_empty()).then_some(()))
    })
    .await;
    assert!(!execute(&pids));
    until("the session of the dead warden is closed", || {
        director.look(|table| table.closed.first().cloned())
    })
    .await;
    director.look(|table| assert_eq!(table.closed, [(7, "warden_died".to_owned())]));
    until("its folder is removed", || {
        (!rig.dir().exists()).then_some(())
    })
    .await;
    // The folder of the next warden may be the same to the kernel, and its group have the same name.
    assert!(!group.join("1.1").exists());
    agent.leave().await;
}

/// The will of the session that the director of these tests has open.
fn leave_will(dir: &Path) {
    let will = serde_json::json!({
        "session": 7,
        "secret": format!("{:064x}", 7),
        "directors": [],
        "token": null,
        "expiry_ms": 11_300,
    });
    std::fs::write(dir.join("last-will.json"), will.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_closed_for_a_dead_warden_only_where_its_end_is_proven() {
    let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
    let [unproven, proven] = ["wardens/5", "wardens/6"].map(|name| dir.path().join(name));
    for warden in [&unproven, &proven] {
        std::fs::create_dir_all(warden).unwrap();
        leave_will(warden);
    }
    std::fs::write(proven.join("proven-dead"), "").unwrap();
    let agent = start(&director, dir.path());
    until("the session of one is closed", || {
        director.look(|table| table.closed.first().cloned())
    })
    .await;
    until("both folders are removed", || {
        (!unproven.exists() && !proven.exists()).then_some(())
    })
    .await;
    director.look(|table| assert_eq!(table.closed.len(), 1));
    agent.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directors_are_told_the_grade_that_was_proven() {
    for grade in [KERNEL, CGROUP, SCAN] {
        let (director, dir) = (Director::start().await, tempfile::tempdir().unwrap());
        let proven = Rig::of_grade(grade).await.client.state.containment.clone();
        let program = program_of_grade(dir.path(), grade);
        let agent = start_with(&director, dir.path(), Duration::ZERO, program);
        let told = until("the agent has registered", || {
            director.look(|table| Some(table.registered.first()?.containment.clone()))
        })
        .await;
        assert_eq!(told, proven);
        agent.leave().await;
        let left = group_folders(dir.path());
        assert_eq!(
            left,
            Vec::<PathBuf>::new(),
            "what the agent made, it removes"
        );
    }
}

/// The groups that wardens of an agent have left.
fn group_folders(data_dir: &Path) -> Vec<PathBuf> {
    let wardens = std::fs::read_dir(data_dir.join("wardens")).unwrap();
    wardens
        .filter_map(|entry| group(&entry.unwrap().path()))
        .collect()
}
