//! A server as a process: found, started, stopped, killed and started again.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// How long a server may take to come up on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);

/// How long a server may take to end when it is asked to, before it is killed.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at a server that comes up or ends.
const LOOK: Duration = Duration::from_millis(20);

/// A program in `PATH` or in one of the folders where Debian puts what only administrators and services start.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let versions = versions.into_iter().flatten().filter_map(Result::ok);
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push(PathBuf::from("/usr/sbin"));
    folders.extend(versions.map(|version| version.path().join("bin")));
    let mut paths = folders.into_iter().map(|folder| folder.join(program));
    paths.find(|path| path.is_file())
}

/// Says on standard error that a test cannot run because this machine lacks something. Where everything is asked for
/// (`QUORATE_TEST_REQUIRE=all`) that is a failure, so that nothing is left out unseen where changes are judged.
///
/// # Panics
/// Where everything is asked for.
pub fn lacks(why: &str) {
    let required = std::env::var_os("QUORATE_TEST_REQUIRE").is_some_and(|value| value == "all");
    assert!(!required, "not run: {why}");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    // Past the capture of output, which would show it for failed tests only.
    drop(writeln!(io::stderr(), "{test}: not run: {why}"));
}

/// So many free ports of this machine, all different. Somebody else may take one before it is used: whoever starts a
/// server looks whether it has come up.
///
/// # Errors
/// When there is none.
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0"));
    // All are held until the last one is found.
    let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
    let ports = listeners.iter().map(|listener| listener.local_addr());
    ports.map(|address| Ok(address?.port())).collect()
}

/// A folder that is deleted with its guard; its path is short enough for sockets.
///
/// # Errors
/// When none can be made.
pub fn folder() -> io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("q").tempdir()
}

/// A server of our own. It ends with this guard, and with the thread that started it.
#[derive(Debug)]
pub struct Server {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    /// What asks it to end without waiting for its clients.
    end_with: Signal,
    /// The account it runs under when we are root.
    account: Option<&'static str>,
    child: Option<Child>,
}

impl Server {
    /// A server that is not started yet; what it says goes to the end of `log`.
    #[must_use]
    pub fn new(program: PathBuf, arguments: Vec<String>, log: PathBuf) -> Self {
        Self {
            program,
            arguments,
            environment: Vec::new(),
            log,
            end_with: Signal::TERM,
            account: None,
            child: None,
        }
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With another signal that asks it to end.
    #[must_use]
    pub fn ended_by(mut self, signal: Signal) -> Self {
        self.end_with = signal;
        self
    }

    /// Other arguments, from the next start on.
    pub fn set_arguments(&mut self, arguments: Vec<String>) {
        self.arguments = arguments;
    }

    /// Under this account if we are root, which some servers refuse to be.
    #[must_use]
    pub fn as_account(mut self, account: &'static str) -> Self {
        self.account = Some(account);
        self
    }

    /// Starts it; again after it was ended.
    ///
    /// # Errors
    /// When it cannot be started. That it answers is for [`wait_until`](Self::wait_until) to see.
    pub fn start(&mut self) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = bound(&self.program, self.account);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.child = Some(command.spawn()?);
        Ok(())
    }

    /// Waits until `ready` says yes.
    ///
    /// # Errors
    /// When the server ends before, or never is; with the last of what it said.
    pub fn wait_until(&mut self, mut ready: impl FnMut() -> bool) -> io::Result<()> {
        let began = Instant::now();
        while !ready() {
            let status = match &mut self.child {
                Some(child) => child.try_wait()?,
                None => None,
            };
            if status.is_some() || began.elapsed() > START_LIMIT {
                let name = self.program.display();
                let said = self.last_words();
                return Err(io::Error::other(format!(
                    "{name} does not come up ({status:?}): {said}"
                )));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Sends it a signal: `STOP` and `CONT` make a server that stands still.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the server does not run"))?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Kills it at once, as a machine that loses power does; returns when it is gone.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to end, waits for that, and kills it if it takes too long.
    pub fn end(&mut self) {
        if self.signal(self.end_with).is_ok() {
            let began = Instant::now();
            while began.elapsed() < END_LIMIT {
                let child = self.child.as_mut();
                if !child.is_some_and(|child| matches!(child.try_wait(), Ok(None))) {
                    break;
                }
                std::thread::sleep(LOOK);
            }
        }
        // It may have ended by itself.
        drop(self.kill());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that was stopped hears nothing else.
        drop(self.signal(Signal::CONT));
        self.end();
    }
}

/// A command that ends even if the thread that starts it is killed; under this account if we are root.
#[must_use]
pub fn bound(program: &Path, account: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=KILL").current_dir("/");
    if let Some(account) = account.filter(|_| rustix::process::geteuid().is_root()) {
        command
            .arg(format!("--reuid={account}"))
            .arg(format!("--regid={account}"))
            .arg("--clear-groups");
    }
    command.arg(program);
    command
}
