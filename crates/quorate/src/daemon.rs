//! What the daemons have in common: signals, threads, and their errors in a person's words.

use std::path::Path;

use quorate_core::format::{FORMATS, Format};
use quorate_director::RunError;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::{Code, Exit, Failure, chain};

/// The threads of a daemon.
///
/// # Errors
/// When this process may not have them.
pub(crate) fn threads() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| no_threads(&error))
}

fn no_threads(error: &std::io::Error) -> Failure {
    Failure::new(
        Code::Failed,
        format!("the threads of this process cannot be started: {error}"),
        "look at the limits of this machine (open files, threads)",
    )
}

/// Threads for the ledger alone, so that heartbeats and votes wait for nothing that people or agents ask.
#[derive(Debug)]
pub(crate) struct LedgerThreads(Option<tokio::runtime::Runtime>);

impl LedgerThreads {
    /// One follows the log while the other one talks to the other directors.
    const COUNT: usize = 2;

    /// Starts them.
    ///
    /// # Errors
    /// When this process may not have them.
    pub(crate) fn start() -> Result<Self, Failure> {
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(Self::COUNT)
            .thread_name("ledger")
            .enable_all()
            .build()
            .map_err(|error| no_threads(&error))?;
        Ok(Self(Some(threads)))
    }

    /// Runs something on them to its end.
    ///
    /// # Errors
    /// When it panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        what: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Failure> {
        let broken = |why: String| Failure::new(Code::Failed, why, "report this as a defect");
        let Some(threads) = &self.0 else {
            return Err(broken("the threads of the ledger have ended".to_owned()));
        };
        let ran = threads.spawn(what).await;
        ran.map_err(|error| broken(error.to_string()))
    }
}

impl Drop for LedgerThreads {
    fn drop(&mut self) {
        // What is dropped on another runtime may not wait. The ledger was closed before, or never opened.
        if let Some(threads) = self.0.take() {
            threads.shutdown_background();
        }
    }
}

/// Cancelled by the first Ctrl-C or SIGTERM, or when the terminal is closed. The second ends the process at once.
///
/// # Errors
/// When signals cannot be heard.
pub(crate) fn leave_on_signal(
    at_once: impl Fn() + Send + 'static,
) -> Result<CancellationToken, Failure> {
    let fail = |error: std::io::Error| {
        Failure::new(
            Code::Failed,
            format!("signals cannot be heard: {error}"),
            "report this as a defect",
        )
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
    // Whoever started it with `nohup` wants it to outlive the terminal.
    let mut hangup = if ignores_hangup() {
        None
    } else {
        Some(signal(SignalKind::hangup()).map_err(fail)?)
    };
    let leave = CancellationToken::new();
    let told = leave.clone();
    tokio::spawn(async move {
        let mut heard = async || {
            let closed = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = closed => {}
            }
        };
        heard().await;
        told.cancel();
        heard().await;
        at_once();
        #[expect(
            clippy::exit,
            reason = "whoever asks twice wants no more of it, whatever is under way"
        )]
        std::process::exit(i32::from(Exit::Interrupted.number()));
    });
    Ok(leave)
}

/// Whether this process was started so that it does not hear SIGHUP.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status, SignalKind::hangup().as_raw_value())
}

/// Whether a signal is among those that are ignored, as `proc_pid_status(5)` writes them: bits in hexadecimal, the
/// lowest one for signal 1.
fn ignored_in(status: &str, number: i32) -> bool {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = u32::try_from(number - 1).ok();
    let bit = bit.and_then(|bit| 1_u64.checked_shl(bit));
    mask.zip(bit).is_some_and(|(mask, bit)| mask & bit != 0)
}

/// The next step after an error of this kind.
pub(crate) fn next(code: Code) -> String {
    if code == Code::PortInUse {
        "stop what listens there, or choose another address with --listen".to_owned()
    } else if code == Code::DataDirLocked {
        "stop the other process, or choose another folder with --data-dir".to_owned()
    } else if code == Code::DataDir {
        "check the folder, or choose another with --data-dir".to_owned()
    } else {
        format!("`quorate explain {}` tells more", code.name())
    }
}

/// Why a director cannot run, in a person's words.
pub(crate) fn of_director(error: RunError) -> Failure {
    let code = match &error {
        RunError::Listen { cause, .. } if cause.kind() == std::io::ErrorKind::AddrInUse => {
            Code::PortInUse
        }
        RunError::InUse { .. } => Code::DataDirLocked,
        RunError::DataDir { .. } | RunError::Identity { .. } => Code::DataDir,
        RunError::NotLoopback { .. } => Code::Usage,
        RunError::Unread { .. } => Code::LedgerFormat,
        RunError::OtherHistory { .. } => Code::OtherHistory,
        RunError::Listen { .. }
        | RunError::Client(_)
        | RunError::Halted { .. }
        | RunError::Broken { .. } => Code::Failed,
    };
    let next = match error {
        RunError::NotLoopback { .. } => {
            "`quorate init` makes certificates and a first token for a \
             cluster of several machines; `quorate join` lets a machine into one"
                .to_owned()
        }
        RunError::Listen { ref cause, .. }
            if cause.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            "ports below 1024 are for root; choose another one with --listen, such as 127.0.0.1:7400"
                .to_owned()
        }
        RunError::Listen { ref cause, .. }
            if cause.kind() == std::io::ErrorKind::AddrNotAvailable =>
        {
            "this machine has no such address; `ip address` lists those it has, and --listen takes one"
                .to_owned()
        }
        RunError::Unread { found, .. } => understand(found),
        RunError::OtherHistory { .. } => {
            "stop every director; if the store cannot be brought back to what it had, `quorate cluster adopt-history --ledger URL` \
             goes on with what it has"
                .to_owned()
        }
        RunError::Listen { .. }
        | RunError::InUse { .. }
        | RunError::DataDir { .. }
        | RunError::Identity { .. }
        | RunError::Client(_)
        | RunError::Halted { .. }
        | RunError::Broken { .. } => next(code),
    };
    Failure::new(code, chain(&error), next)
}

/// What makes a director understand a ledger of this format.
fn understand(found: Format) -> String {
    if FORMATS.check(found).is_ok() {
        "its version would read it, and hold_format keeps it from that: leave hold_format out, and start it again; \
         nothing in its folder has changed"
            .to_owned()
    } else {
        "install the version that the other directors run, and start it again; nothing in its folder has changed"
            .to_owned()
    }
}

/// Why an agent cannot run, in a person's words.
pub(crate) fn of_agent(error: quorate_agent::RunError) -> Failure {
    let code = match &error {
        quorate_agent::RunError::InUse { .. } | quorate_agent::RunError::Copied { .. } => {
            Code::DataDirLocked
        }
        quorate_agent::RunError::DataDir { .. } | quorate_agent::RunError::Identity { .. } => {
            Code::DataDir
        }
        quorate_agent::RunError::Address(_) => Code::Usage,
        quorate_agent::RunError::Papers(_) => Code::Config,
        quorate_agent::RunError::Thread { .. } => Code::Failed,
    };
    let next = if matches!(error, quorate_agent::RunError::Copied { .. }) {
        // Never the original: whoever is heard keeps the identity.
        "give this agent an empty folder with --data-dir and a name of its own with --name"
            .to_owned()
    } else {
        next(code)
    };
    Failure::new(code, chain(&error), next)
}

/// An absolute path of a folder that may not exist yet.
///
/// # Errors
/// When the current folder is gone.
pub(crate) fn absolute(path: &Path) -> Result<std::path::PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| {
        Failure::new(
            Code::DataDir,
            format!("{} cannot be found: {error}", path.display()),
            "name the folder from the root: --data-dir /…",
        )
    })
}

/// This program as a person can type it in the same folder: as it was typed, when that leads here.
pub(crate) fn typed() -> String {
    let typed = std::env::args().next().unwrap_or_default();
    let here = std::env::current_exe().ok();
    // Without a slash it was found in PATH, and is found there again.
    let found = |path: &str| std::fs::canonicalize(path).ok();
    let works =
        !typed.is_empty() && (!typed.contains('/') || (here.is_some() && found(&typed) == here));
    let program = match here {
        Some(here) if !works => here.to_string_lossy().into_owned(),
        Some(_) | None => typed,
    };
    quoted(&program)
}

/// A word as a shell takes it whole.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// This program, to be started again.
///
/// # Errors
/// When the system does not tell.
pub(crate) fn program() -> Result<std::path::PathBuf, Failure> {
    std::env::current_exe().map_err(|error| {
        Failure::new(
            Code::Failed,
            format!("the path of this program is not known: {error}"),
            "is /proc mounted?",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_told_to_become_another_agent_and_never_to_stop_the_original() {
        let path = std::path::PathBuf::from("/var/lib/a1");
        let failure = of_agent(quorate_agent::RunError::Copied { path });
        assert_eq!(failure.first.code, Code::DataDirLocked);
        let next = failure.first.next;
        assert!(
            next.contains("--data-dir") && next.contains("--name"),
            "{next}"
        );
        assert!(!next.contains("stop"), "{next}");
    }

    #[test]
    fn a_signal_that_is_ignored_is_seen_in_the_status_of_a_process() {
        let status = "Name:\tquorate\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        assert!(ignored_in(status, 1));
        assert!(ignored_in(status, 13));
        assert!(!ignored_in(status, 2));
        assert!(!ignored_in("", 1));
    }

    #[test]
    fn words_are_quoted_only_where_a_shell_would_split_or_change_them() {
        assert_eq!(quoted("target/release/quorate"), "target/release/quorate");
        assert_eq!(quoted("feeds/eu 1"), "'feeds/eu 1'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
