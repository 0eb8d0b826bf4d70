//! Runs the fence hooks that the machine orders, beside the loop, and tells how each has ended.
//!
//! A hook is a command of the directors' own file, never of a specification: who may apply services must
//! not be able to run commands on the directors. Success is exit code 0 within its time; anything else is
//! a problem that people see, and the machine orders the hook again.
//!
//! Each is begun at once, because the machine orders it right after it has proven that it leads, and never
//! many at a time.

use std::collections::BTreeMap;
use std::future;
use std::process::Stdio;
use std::time::Duration;

use quorate_core::director::event::Event;
use quorate_core::ids::{AgentName, HookName, SessionId};
use quorate_core::record::Cause;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::config::FenceHook;

/// Most bytes that are kept of what a hook says on standard error.
const SAID_MAX: u64 = 16 << 10;
/// A hook that has ended may have left somebody who holds its standard error open.
const SAID_WITHIN: Duration = Duration::from_millis(500);

/// The hooks of this director and those that run.
#[derive(Debug)]
pub(super) struct Hooks {
    known: BTreeMap<HookName, FenceHook>,
    tasks: JoinSet<Event>,
}

impl Hooks {
    pub(super) fn new(known: BTreeMap<HookName, FenceHook>) -> Self {
        Self {
            known,
            tasks: JoinSet::new(),
        }
    }

    /// Starts a hook.
    pub(super) fn start(&mut self, session: SessionId, agent: AgentName, name: HookName) {
        let hook = self.known.get(&name).cloned();
        self.tasks.spawn(async move {
            let ended = match hook {
                Some(hook) => run(&hook, session, &agent, &name).await,
                None => Err("the director's own file describes no such hook".to_owned()),
            };
            let problem = ended.err();
            match &problem {
                None => tracing::info!(%agent, %session, hook = %name, "fenced"),
                Some(problem) => {
                    tracing::warn!(%agent, %session, hook = %name, problem, "a fence hook has failed");
                }
            }
            Event::Fenced {
                session,
                hook: name,
                problem: problem.as_deref().map(Cause::new),
            }
        });
    }

    /// The next hook that has ended; waits for ever when none runs.
    pub(super) async fn next(&mut self) -> Event {
        match self.tasks.join_next().await {
            None => future::pending().await,
            Some(Ok(event)) => event,
            Some(Err(error)) => panic!("a task that runs a fence hook has ended: {error}"),
        }
    }
}

async fn run(
    hook: &FenceHook,
    session: SessionId,
    agent: &AgentName,
    name: &HookName,
) -> Result<(), String> {
    let mut words = hook
        .command
        .iter()
        .map(|word| word.replace("{{agent}}", agent.as_str()));
    let program = words.next().unwrap_or_default();
    let mut child = Command::new(&program)
        .args(words)
        .env("QUORATE_AGENT", agent.as_str())
        .env("QUORATE_SESSION", session.to_string())
        .env("QUORATE_HOOK", name.as_str())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let said = listen(&mut child);
    // Dropping the child kills it, and only its own end counts.
    let status = tokio::time::timeout(hook.timeout, child.wait()).await;
    match status {
        Err(_) => Err(format!("no end after {} s", hook.timeout.as_secs_f64())),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => {
            let said = tokio::time::timeout(SAID_WITHIN, said).await;
            let said = said.ok().and_then(Result::ok).unwrap_or_default();
            Err(match said.trim().lines().next_back() {
                Some(line) => format!("{status}: {line}"),
                None => status.to_string(),
            })
        }
    }
}

/// Reads what a hook says for as long as it says something, so that it never waits for us.
fn listen(child: &mut Child) -> tokio::task::JoinHandle<String> {
    let stderr = child.stderr.take();
    tokio::spawn(async move {
        let mut said = Vec::new();
        if let Some(mut stderr) = stderr {
            // What cannot be read is not told; the end of the hook is what counts.
            let _ = (&mut stderr).take(SAID_MAX).read_to_end(&mut said).await;
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        }
        String::from_utf8_lossy(&said).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Duration) -> FenceHook {
        FenceHook {
            command: ["/bin/sh", "-c", script, "sh", "{{agent}}"]
                .map(str::to_owned)
                .into(),
            timeout,
        }
    }

    async fn ended(script: &str, timeout: Duration) -> Option<String> {
        let name = HookName::new("power-off").unwrap();
        let mut hooks = Hooks::new([(name.clone(), hook(script, timeout))].into());
        hooks.start(SessionId(7), AgentName::new("a1").unwrap(), name);
        let Event::Fenced {
            session: SessionId(7),
            problem,
            ..
        } = hooks.next().await
        else {
            panic!("another event")
        };
        problem.map(|problem| problem.as_str().to_owned())
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_hook_is_told_whom_to_fence_and_only_exit_code_0_is_success() {
        let told =
            "test \"$1 $QUORATE_AGENT $QUORATE_SESSION $QUORATE_HOOK\" = 'a1 a1 7 power-off'";
        assert_eq!(ended(told, LONG).await, None);
        let failed = ended("echo one >&2; echo 'no such outlet' >&2; exit 3", LONG).await;
        let failed = failed.unwrap();
        assert!(
            failed.contains('3') && failed.ends_with("no such outlet"),
            "{failed}"
        );
    }

    #[tokio::test]
    async fn a_hook_that_hangs_or_talks_without_end_holds_up_nobody() {
        let hung = ended("sleep 60", Duration::from_millis(100)).await.unwrap();
        assert!(hung.contains("no end after 0.1 s"), "{hung}");
        assert_eq!(ended("head -c 10000000 /dev/zero >&2", LONG).await, None);
        let heir = ended("sleep 60 & echo gone >&2; exit 1", LONG).await;
        assert!(
            heir.is_some(),
            "who holds its standard error is not waited for"
        );
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_and_a_hook_that_is_not_known_are_told() {
        let name = HookName::new("gone").unwrap();
        let command = vec!["/no/such/program".to_owned()];
        let gone = FenceHook {
            command,
            timeout: LONG,
        };
        let mut hooks = Hooks::new([(name.clone(), gone)].into());
        for (name, expected) in [
            (name, "/no/such/program"),
            (HookName::new("other").unwrap(), "describes no such hook"),
        ] {
            hooks.start(SessionId(7), AgentName::new("a1").unwrap(), name);
            let Event::Fenced { problem, .. } = hooks.next().await else {
                panic!("another event")
            };
            let problem = problem.unwrap();
            assert!(problem.as_str().contains(expected), "{}", problem.as_str());
        }
    }
}
