//! What a specification says about the life of a run, with its texts read, and what an exit means.

use std::time::Duration;

use crate::ids::Token;
use crate::record::{Exit, ExitClass};
use crate::spec::backoff::BackoffRange;
use crate::spec::values::ValueError;
use crate::spec::{ExitPolicies, ExitPolicy, OnChange, Ready, ServiceSpec, signal as names};

use super::signal;

/// How one run is kept alive, asked to end, and judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Signal that asks it to end.
    pub stop_signal: u8,
    /// After this the whole tree is killed.
    pub stop_timeout: Duration,
    /// Wait before the next attempt.
    pub backoff: BackoffRange,
    /// Failures in a row under one token before it moves; 0 means never.
    pub move_after: u32,
    /// Failures in a row, those of earlier agents included, before it is given up; 0 means never.
    pub give_up_after: u32,
    /// Staying up this long is a success.
    pub reset_after: Duration,
    /// What follows each class of exit.
    pub on: ExitPolicies,
    /// When it counts as started.
    pub ready: Ready,
    /// What a change of its data does.
    pub on_change: OnChange,
}

impl Policy {
    /// Reads the policy of a specification.
    ///
    /// # Errors
    /// When its back-off or its stop signal cannot be read, which validation refuses earlier.
    pub fn of(spec: &ServiceSpec) -> Result<Self, ValueError> {
        let stop_signal = names::number(&spec.stop.signal).ok_or_else(|| ValueError {
            what: "signal",
            given: spec.stop.signal.clone(),
            example: "TERM, INT, QUIT, HUP, USR1 or KILL",
        })?;
        Ok(Self {
            stop_signal,
            stop_timeout: spec.stop.timeout.0,
            backoff: BackoffRange::parse(&spec.restart.backoff)?,
            move_after: spec.restart.move_after,
            give_up_after: spec.restart.give_up_after,
            reset_after: spec.restart.reset_after.0,
            on: spec.restart.on.clone(),
            ready: spec.ready.clone(),
            on_change: spec.on_change,
        })
    }

    /// What the exit of a run means that nobody asked to end.
    pub(super) fn classify(&self, code: Option<u8>, signal: Option<u8>) -> Exit {
        let class = match (code, signal) {
            (_, Some(number)) if signal::is_fault(number) => ExitClass::Crash,
            (_, Some(_)) => ExitClass::Killed,
            (Some(0), None) => ExitClass::Clean,
            (Some(code), None) if self.on.interrupted_codes.contains(&code) => {
                ExitClass::Interrupted
            }
            // Neither is known only when somebody else reaped the command: it did not end well.
            (Some(_) | None, None) => ExitClass::Crash,
        };
        Exit {
            class,
            code,
            signal,
            cause: None,
        }
    }

    /// What follows a class of exit. One that could not be started at all is treated like a crash.
    pub(super) fn follows(&self, class: ExitClass) -> ExitPolicy {
        match class {
            ExitClass::Clean => self.on.clean,
            ExitClass::Interrupted => self.on.interrupted,
            ExitClass::Killed => self.on.killed,
            ExitClass::Crash | ExitClass::NotStarted => self.on.crash,
            ExitClass::Stopped => ExitPolicy::Restart,
        }
    }

    /// The wait before the next attempt after so many failures in a row. The same token and attempt
    /// always wait equally long; different ones do not come back together.
    #[must_use]
    pub fn wait(&self, token: Token, attempt: u32, failures: u32) -> Duration {
        let seed = token.0.rotate_left(32) ^ u64::from(attempt);
        self.backoff.delay(failures, seed)
    }
}

impl Default for Policy {
    /// The defaults of a specification that says nothing.
    fn default() -> Self {
        Self {
            stop_signal: 15,
            stop_timeout: Duration::from_secs(10),
            backoff: BackoffRange::DEFAULT,
            move_after: 5,
            give_up_after: 0,
            reset_after: Duration::from_secs(60),
            on: ExitPolicies::default(),
            ready: Ready::default(),
            on_change: OnChange::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Era;

    fn token() -> Token {
        Token::new(Era(0), 7)
    }

    #[test]
    fn the_same_attempt_always_waits_equally_long_and_another_one_does_not() {
        let policy = Policy::default();
        assert_eq!(policy.wait(token(), 3, 2), policy.wait(token(), 3, 2));
        assert_ne!(policy.wait(token(), 3, 2), policy.wait(token(), 4, 2));
        assert!(policy.wait(token(), 9, 40) <= Duration::from_secs(60));
    }

    #[test]
    fn every_exit_has_the_documented_class() {
        let policy = Policy::default();
        let class = |code, signal| policy.classify(code, signal).class;
        assert_eq!(class(Some(0), None), ExitClass::Clean);
        assert_eq!(class(Some(75), None), ExitClass::Interrupted);
        assert_eq!(class(Some(1), None), ExitClass::Crash);
        for fault in [11, 6, 7, 8, 4, 31] {
            assert_eq!(class(None, Some(fault)), ExitClass::Crash);
        }
        for other in [9, 15, 2, 1] {
            assert_eq!(class(None, Some(other)), ExitClass::Killed);
        }
        assert_eq!(class(None, None), ExitClass::Crash);
    }
}
