//! Runs the program in a clean environment and keeps what it printed.

use std::cell::Cell;
use std::io::Write as _;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use assert_cmd::Command;

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The program with an environment in which nothing of the machine shows.
pub(crate) fn quorate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str], dir: &Path) -> Done {
    let output = quorate()
        .args(args)
        .current_dir(dir)
        .output()
        .expect("the program starts");
    done(&output)
}

/// What an ended process printed.
pub(crate) fn done(output: &std::process::Output) -> Done {
    Done {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A port on which nobody listens now.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

/// How long anything may take that takes seconds at most on an idle machine. The workers of the
/// demonstration alone keep two processors busy, and other tests run beside them.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(180);

/// The machine, as one test holds it: shared with others, or alone by one that keeps every processor busy and
/// whose agents must be heard in time all the same.
#[derive(Debug)]
pub(crate) struct Machine {
    _held: Held,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held for what happens when it is let go")]
enum Held {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
    /// This test has it already.
    Again,
}

static MACHINE: RwLock<()> = RwLock::new(());

std::thread_local! {
    static TIMES: Cell<usize> = const { Cell::new(0) };
}

impl Machine {
    /// Beside other tests.
    pub(crate) fn shared() -> Self {
        Self::hold(|| Held::Shared(MACHINE.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Alone. What a failed test leaves is nothing that another could trip over.
    pub(crate) fn alone() -> Self {
        Self::hold(|| Held::Alone(MACHINE.write().unwrap_or_else(PoisonError::into_inner)))
    }

    fn hold(take: impl FnOnce() -> Held) -> Self {
        let before = TIMES.get();
        let held = if before == 0 { take() } else { Held::Again };
        TIMES.set(before + 1);
        Self { _held: held }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        TIMES.set(TIMES.get() - 1);
    }
}

/// Waits until a condition gives a value.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Sends a signal to a process that this test has started.
pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid).expect("a process id");
    let pid = rustix::process::Pid::from_raw(pid).expect("not zero");
    rustix::process::kill_process(pid, signal).expect("it can be told");
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
    told.expect("standard error");
}
