//! The agents of `up`: real processes of the same program, so that they can be killed like machines.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use tokio::process::{Child, ChildStdin, Command};
use tokio_util::task::AbortOnDropHandle;

use crate::daemon;
use crate::failure::{Code, Failure};
use crate::output::{one_line, say};

/// A log of an agent that is larger than this is begun anew; the one before is kept.
const LOG_BYTES_MAX: u64 = 1 << 20;
/// So much of the end of a log is looked at for why an agent ended, and so many lines are told.
const WORDS_BYTES_MAX: u64 = 16 << 10;
const WORDS_MAX: usize = 3;
/// The logs are looked at this often.
const LOOK_AT_LOGS: Duration = Duration::from_secs(30);

/// An agent that runs.
#[derive(Debug)]
struct Agent {
    name: String,
    data_dir: PathBuf,
    log: PathBuf,
    /// Where in its log this life of it begins.
    begins: u64,
    child: Child,
    /// The agent's standard input, to which nobody writes: it ends with this process, which is how the
    /// agent notices. Held apart, because waiting for a child closes what the child still has of it.
    _tie: Option<ChildStdin>,
}

/// An agent that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// How; unknown when the system did not tell.
    pub(super) status: Option<ExitStatus>,
    name: String,
    data_dir: PathBuf,
    log: PathBuf,
    begins: u64,
}

/// All that run.
#[derive(Debug)]
pub(super) struct Agents {
    running: Vec<Agent>,
    address: String,
    leaving: bool,
    /// Keeps their logs small. Ends with this.
    _logs: AbortOnDropHandle<()>,
}

impl Agents {
    /// Starts so many.
    ///
    /// # Errors
    /// When one cannot be started; those that were are ended.
    pub(super) fn start(count: u32, data_dir: &Path, address: &str) -> Result<Self, Failure> {
        let folder = folder(data_dir);
        let fail = |what: String, error: std::io::Error| {
            Failure::new(
                Code::DataDir,
                format!("{what}: {error}"),
                "check the folder, or choose another with --data-dir",
            )
        };
        std::fs::create_dir_all(&folder)
            .map_err(|error| fail(format!("{} cannot be made", folder.display()), error))?;
        let program = daemon::program()?;
        let mut running = Vec::new();
        for number in 1..=count {
            let name = format!("a{number}");
            let log = folder.join(format!("{name}.log"));
            let data_dir = folder.join(&name);
            let output = open_log(&log)
                .map_err(|error| fail(format!("{} cannot be written", log.display()), error))?;
            let begins = output.metadata().map_or(0, |found| found.len());
            let mut child = Command::new(&program)
                .arg("agent")
                .args(["--name", &name, "--join", address, "--tied"])
                .arg("--data-dir")
                .arg(&data_dir)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(output)
                // Ctrl-C on the terminal is for `up`, which then tells its agents.
                .process_group(0)
                .kill_on_drop(true)
                .spawn()
                .map_err(|error| fail(format!("agent {name} cannot be started"), error))?;
            with_usual_files(&child);
            running.push(Agent {
                name,
                data_dir,
                log,
                begins,
                _tie: child.stdin.take(),
                child,
            });
        }
        let logs = running.iter().map(|agent: &Agent| agent.log.clone());
        let logs = tokio::spawn(keep_small(logs.collect()));
        Ok(Self {
            running,
            address: address.to_owned(),
            leaving: false,
            _logs: AbortOnDropHandle::new(logs),
        })
    }

    /// How many run.
    pub(super) fn count(&self) -> usize {
        self.running.len()
    }

    /// Those that run.
    pub(super) fn names(&self) -> Vec<&str> {
        self.running
            .iter()
            .map(|agent| agent.name.as_str())
            .collect()
    }

    /// An agent to try the failure of a machine with: its name and process id.
    pub(super) fn victim(&self) -> Option<(&str, u32)> {
        let agent = self.running.last()?;
        Some((&agent.name, agent.child.id()?))
    }

    /// Waits until one of them has ended, for ever when none runs. May be dropped and called again.
    pub(super) async fn ended(&mut self) -> Ended {
        if self.running.is_empty() {
            std::future::pending::<()>().await;
        }
        let waits = self
            .running
            .iter_mut()
            .map(|agent| Box::pin(agent.child.wait()));
        let (status, at, _) = futures::future::select_all(waits).await;
        let agent = self.running.remove(at);
        Ended {
            status: status.ok(),
            name: agent.name,
            data_dir: agent.data_dir,
            log: agent.log,
            begins: agent.begins,
        }
    }

    /// Asks all of them to stop what they run, to give it back, and to end.
    pub(super) fn ask_to_leave(&mut self) {
        self.leaving = true;
        for agent in &self.running {
            let pid = agent.child.id().and_then(|id| i32::try_from(id).ok());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                // It has ended already when it cannot be told, and is waited for anyway.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
    }

    /// Tells a person that an agent has ended, and how to start it again.
    pub(super) fn told(&self, ended: &Ended) {
        let how = ended.status.map_or_else(
            || "in an unknown way".to_owned(),
            |status| status.to_string(),
        );
        say(&format!("agent {} ended ({how})", ended.name));
        for line in last_words(&ended.log, ended.begins) {
            say(&format!("  {line}"));
        }
        if quorate_agent::is_running(&ended.data_dir) {
            say("  another process is this agent; it goes on apart from this `up`");
            return;
        }
        if self.leaving {
            say(&format!("  its log: {}", ended.log.display()));
            return;
        }
        let others = if self.running.is_empty() {
            "waits for another agent"
        } else {
            "moves to the other agents"
        };
        say(&format!(
            "  what it held {others}; its log: {}",
            ended.log.display()
        ));
        say(&format!(
            "  start it again: {} agent --name {} --data-dir {} --join {}",
            daemon::typed(),
            ended.name,
            daemon::quoted(&ended.data_dir.to_string_lossy()),
            self.address
        ));
    }
}

/// Where the folders of all agents are.
pub(super) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("agents")
}

/// The director in this process has raised its limit of open files for its connections. What agents run
/// has the usual one: programs that use `select` break beyond it.
fn with_usual_files(child: &Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    let Some(pid) = pid.and_then(Pid::from_raw) else {
        return;
    };
    let Some(soft) = quorate_director::descriptors::before() else {
        return;
    };
    let hard = getrlimit(Resource::Nofile).maximum;
    let usual = Rlimit {
        current: Some(soft),
        maximum: hard,
    };
    if let Err(error) = prlimit(Some(pid), Resource::Nofile, usual) {
        tracing::warn!(%error, "an agent has the raised limit of open files");
    }
}

/// The error with which an agent that could not go on has ended, and the next step: the lines from its last
/// `error[` on. None when it was killed, or when the log was begun anew meanwhile.
fn last_words(log: &Path, begins: u64) -> Vec<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(
            begins.max(end.saturating_sub(WORDS_BYTES_MAX)),
        ))?;
        let mut bytes = Vec::new();
        file.take(WORDS_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let error = lines.iter().rposition(|line| line.starts_with("error["));
    let words = error.and_then(|at| lines.get(at..)).unwrap_or_default();
    words
        .iter()
        .take(WORDS_MAX)
        .map(|line| one_line(line))
        .collect()
}

/// Keeps logs small while they are written.
async fn keep_small(logs: Vec<PathBuf>) {
    let mut look = tokio::time::interval(LOOK_AT_LOGS);
    loop {
        look.tick().await;
        for log in &logs {
            let path = log.clone();
            let cut = tokio::task::spawn_blocking(move || cut(&path));
            if let Ok(Err(error)) = cut.await {
                tracing::warn!(log = %log.display(), %error, "a log of an agent grows");
            }
        }
    }
}

/// Begins a log anew that is too large. The agent goes on writing to the same file, so what is in it is copied
/// and cut off; a line that comes in between is lost.
fn cut(path: &Path) -> std::io::Result<()> {
    if std::fs::metadata(path)?.len() <= LOG_BYTES_MAX {
        return Ok(());
    }
    std::fs::copy(path, path.with_extension("log.1"))?;
    OpenOptions::new().write(true).open(path)?.set_len(0)
}

fn open_log(path: &Path) -> std::io::Result<File> {
    if std::fs::metadata(path).is_ok_and(|found| found.len() > LOG_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn an_agent_that_cannot_go_on_is_told_with_its_last_error_of_this_life() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a1.log");
        let before = "error[data_dir]: of a life before\n  next: nothing\n";
        let now = "WARN late\nerror[data_dir]: agent_id is damaged\n  next: remove it\n";
        std::fs::write(&path, format!("{before}{now}")).expect("written");
        assert_eq!(
            last_words(&path, before.len() as u64),
            ["error[data_dir]: agent_id is damaged", "  next: remove it"]
        );
        let end = (before.len() + now.len()) as u64;
        assert!(last_words(&path, end).is_empty(), "it was killed");
        assert!(last_words(&path, end + 7).is_empty(), "it was begun anew");
        assert!(last_words(&dir.path().join("none"), 0).is_empty());
    }

    #[test]
    fn a_log_that_grew_is_begun_anew_while_its_writer_goes_on() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a1.log");
        let mut writer = open_log(&path).expect("it opens");
        writer.write_all(b"short\n").expect("written");
        cut(&path).expect("looked at");
        let length = |path: &Path| std::fs::metadata(path).expect("it is there").len();
        assert_eq!(length(&path), 6, "a short one stays");
        let long = vec![b'x'; usize::try_from(LOG_BYTES_MAX).expect("fits")];
        writer.write_all(&long).expect("written");
        cut(&path).expect("cut");
        assert_eq!(length(&path), 0);
        assert_eq!(length(&path.with_extension("log.1")), LOG_BYTES_MAX + 6);
        writer.write_all(b"next\n").expect("written");
        assert_eq!(std::fs::read(&path).expect("read"), b"next\n");
    }
}
