//! A warden of one test, with everything that it started ended when the test ends.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is its failure")]

use std::io::{Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use quorate_agent::warden::client::{Client, ConnectError, Terms};
use quorate_agent::warden::group::Leftover;
use quorate_agent::warden::protocol::{Order, Reply, RunId, StartRun};
use rustix::process::{Pid, Signal, kill_process};

/// Everything that is waited for happens in milliseconds; this is for a host under load.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_quorate-test-warden"))
}

/// A program in this folder whose wardens use no better containment than this.
pub(crate) fn program_of_grade(folder: &Path, grade: &str) -> PathBuf {
    let wrapper = folder.join("wrapper");
    let script = format!(
        "#!/bin/sh\nQUORATE_WARDEN_CONTAINMENT={grade} exec {} \"$@\"\n",
        program().display()
    );
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o700)).unwrap();
    wrapper
}

/// A folder and the warden in it. Dropping it kills the warden.
pub(crate) struct Rig {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) client: Client,
    dir: PathBuf,
    mark: String,
}

impl Drop for Rig {
    fn drop(&mut self) {
        kill(self.client.state.pid, Signal::KILL);
        // Its end is that of the other one, unless that is what a test finds wrong.
        for pid in self.processes().into_iter().chain(wardens_in(&self.dir)) {
            kill(pid, Signal::KILL);
        }
        // A killed warden removes nothing; that is for the next agent to do.
        if let Some(left) = Leftover::of(&self.dir) {
            let _left = left.clear(SOON);
        }
    }
}

impl Rig {
    pub(crate) async fn new(adopt_within: Duration) -> Self {
        Self::of_program(&program(), Terms::of_a_trial(adopt_within), "").await
    }

    /// With a warden that is told to use no better containment than this.
    pub(crate) async fn of_grade(grade: &str) -> Self {
        Self::of_grade_below(grade, "").await
    }

    /// The same, in a folder below that of the rig.
    pub(crate) async fn of_grade_below(grade: &str, below: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = program_of_grade(folder.path(), grade);
        Self::of_program(&program, Terms::of_a_trial(Duration::from_secs(60)), below).await
    }

    /// With runs that may have so many open files.
    pub(crate) async fn with_files(files: u64) -> Self {
        let terms = Terms {
            files: Some(files),
            ..Terms::of_a_trial(Duration::from_secs(60))
        };
        let mut rig = Self::of_program(&program(), terms, "").await;
        rig.arm_in(Duration::from_secs(600)).await;
        rig
    }

    async fn of_program(program: &Path, terms: Terms, below: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join(below);
        let client = Client::spawn(program, &dir, terms).await.unwrap();
        let mark = format!("QUORATE_TEST_MARK={}", folder.path().display());
        Self {
            folder,
            client,
            dir,
            mark,
        }
    }

    /// With a deadline far away.
    pub(crate) async fn armed() -> Self {
        let mut rig = Self::new(Duration::from_secs(60)).await;
        rig.arm_in(Duration::from_secs(600)).await;
        rig
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) async fn send(&mut self, order: Order) {
        self.client.sender.send(&order).await.unwrap();
    }

    pub(crate) async fn arm_in(&mut self, span: Duration) -> u64 {
        let deadline = boot_nanos() + u64::try_from(span.as_nanos()).unwrap();
        self.send(Order::Arm { deadline }).await;
        deadline
    }

    pub(crate) async fn recv(&mut self) -> (Reply, Vec<OwnedFd>) {
        tokio::time::timeout(SOON, self.client.receiver.recv())
            .await
            .expect("the warden answers")
            .unwrap()
    }

    /// An order to start a shell script, marked so that its processes are found.
    pub(crate) fn script(&self, token: u64, script: &str) -> StartRun {
        self.command(token, &["/bin/sh", "-c", script])
    }

    pub(crate) fn command(&self, token: u64, command: &[&str]) -> StartRun {
        let (name, value) = self.mark.split_once('=').unwrap();
        StartRun {
            run: run(token),
            command: command.iter().map(|&text| text.to_owned()).collect(),
            program: None,
            env: vec![
                (name.to_owned(), value.to_owned()),
                ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            ],
            working_dir: "/".to_owned(),
            user: None,
            root: true,
            files_max: None,
            notify_socket: None,
            api_socket: None,
            handed_over: Vec::new(),
        }
    }

    /// Starts and waits until it executes; its process id and descriptors.
    pub(crate) async fn start(&mut self, order: StartRun) -> (u32, Vec<OwnedFd>) {
        let wanted = order.run;
        self.send(Order::Start(Box::new(order))).await;
        match self.recv().await {
            (Reply::Started { run, pid, .. }, descriptors) if run == wanted => (pid, descriptors),
            (other, _) => panic!("{other:?}"),
        }
    }

    /// Starts what cannot be started; the reason.
    pub(crate) async fn refused(&mut self, order: StartRun) -> String {
        let wanted = order.run;
        self.send(Order::Start(Box::new(order))).await;
        let reply = self.recv().await.0;
        let Reply::NotStarted { run, reason } = reply else {
            panic!("{reply:?}")
        };
        assert_eq!(run, wanted);
        reason
    }

    /// Waits for the end of a run: exit code and signal.
    pub(crate) async fn ended(&mut self, token: u64) -> (Option<u8>, Option<u8>) {
        loop {
            let (
                Reply::Ended {
                    run: id,
                    code,
                    signal,
                },
                _,
            ) = self.recv().await
            else {
                continue;
            };
            if id == run(token) {
                return (code, signal);
            }
        }
    }

    /// Starts a script and waits for its end: what it wrote, exit code and signal.
    pub(crate) async fn result(&mut self, order: StartRun) -> (String, Option<u8>, Option<u8>) {
        let token = order.run.token;
        let (_, descriptors) = self.start(order).await;
        let (code, signal) = self.ended(token).await;
        (text(descriptors), code, signal)
    }

    /// Every process of this test's runs that can execute.
    pub(crate) fn processes(&self) -> Vec<u32> {
        processes_with(&self.mark)
    }

    /// Ends this agent's connection as its crash would, and connects as the next one.
    pub(crate) async fn adopt(&mut self) {
        let dir = self.dir().to_owned();
        // A connection to another warden stands in while the old one is closed.
        let (other, _guard) = spare().await;
        drop(std::mem::replace(&mut self.client, other));
        let started = Instant::now();
        self.client = loop {
            match Client::connect(&dir).await {
                Ok(client) => break client,
                Err(ConnectError::Busy { .. }) if started.elapsed() < SOON => {}
                Err(cause) => panic!("{cause}"),
            }
        };
    }
}

async fn spare() -> (Client, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::spawn(&program(), folder.path(), Terms::of_a_trial(Duration::ZERO))
        .await
        .unwrap();
    (client, folder)
}

pub(crate) fn run(token: u64) -> RunId {
    RunId { token, attempt: 1 }
}

pub(crate) fn boot_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

pub(crate) fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _gone = kill_process(pid, signal);
}

/// All that is in a pipe whose writers are gone.
pub(crate) fn text(descriptors: Vec<OwnedFd>) -> String {
    let output = descriptors.into_iter().next().unwrap();
    let mut text = String::new();
    std::fs::File::from(output)
        .read_to_string(&mut text)
        .expect("nobody can write to it any more");
    text
}

/// The processes that were executed with this variable and are no zombies.
pub(crate) fn processes_with(variable: &str) -> Vec<u32> {
    processes_where(|folder| {
        let environment = std::fs::read(folder.join("environ")).unwrap_or_default();
        let mut variables = environment.split(|&byte| byte == 0);
        variables.any(|text| text == variable.as_bytes())
    })
}

/// The processes of whose folder in `/proc` this is so.
fn processes_where(so: impl Fn(&Path) -> bool) -> Vec<u32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            so(&entry.path()).then_some(pid)
        })
        .collect()
}

/// The processes of a warden that was started in this folder.
fn wardens_in(dir: &Path) -> Vec<u32> {
    let dir = dir.as_os_str().as_encoded_bytes();
    processes_where(|folder| {
        let line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
        let mut words = line.split(|&byte| byte == 0);
        words.any(|word| word == b"--dir") && words.next() == Some(dir)
    })
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The state letter of a process, `None` when there is none of that number.
pub(crate) fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The children of a process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Set in a test that [`again`] runs.
const AGAIN: &str = "QUORATE_TEST_AGAIN";

/// Runs the test of this name again in a process with less, or with something else, as the words of `prefix`
/// make it.
pub(crate) fn again(test: &str, prefix: &[&str], folder: &Path) {
    let (program, words) = prefix.split_first().unwrap();
    let output = Command::new(program)
        .args(words)
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env("TMPDIR", folder)
        .env(AGAIN, "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{prefix:?}: {told}");
    eprintln!("{told}");
}

/// Whether this is a test that runs again.
pub(crate) fn is_again() -> bool {
    std::env::var_os(AGAIN).is_some()
}

/// Says that a test cannot run because this machine lacks something; a failure where everything is asked
/// for (`QUORATE_TEST_REQUIRE=all`), so that nothing is left out unseen where changes are judged.
pub(crate) fn lacks(why: &str) {
    let required = std::env::var_os("QUORATE_TEST_REQUIRE").is_some_and(|value| value == "all");
    assert!(!required, "not run: {why}");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    // Past the capture of output, which would show it for failed tests only.
    let told = writeln!(std::io::stderr(), "{test}: not run: {why}");
    told.unwrap();
}
