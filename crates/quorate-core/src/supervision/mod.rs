//! Supervision: the life of one run under one token, from its first start to its release.
//!
//! The machine says when to start, ask, kill, wait and give back. It never decides whether a start
//! is *allowed*: it stays [`State::Held`] until the agent, which knows the lease, says
//! [`Event::Begin`] (R9). It must never give a token back while a process of it may live (R10): every
//! way to [`State::Over`] leads through `Ended`, `NotStarted`, or a state in which nothing runs.
//!
//! | state \ event | Begin | Started | NotStarted | Notified | Ended | StopAsked | PauseAsked | RestartAsked | DataChanged | KillAsked | Woke |
//! |---|---|---|---|---|---|---|---|---|---|---|---|
//! | Held | Starting⁴ | · | · | · | end held | Over | · | · | · | Over | · |
//! | Starting | · | Running (or Stopping) | fail (asked: Over) | · | as Running | then stop | then again | then again | change¹ | Killing | Killing after the time limit |
//! | Running | · | · | · | Ready² | fail | Stopping | Stopping, again | Stopping, again | change¹ | Killing | Ready or Stopping, not ready |
//! | Ready | · | · | · | · | fail | Stopping | Stopping, again | Stopping, again | change¹ | Killing | · |
//! | Stopping | · | · | · | · | Over, Held, or fail | asked | · | again³ | again³ | Killing, asked | Killing after the time limit |
//! | Killing | · | · | as Ended | · | Over, Held, or fail | asked | · | again³ | again³ | asked | · |
//! | Backoff | · | · | · | · | end held | Over | · | Held | Held if restart | Over | Held after the wait |
//! | Over | · | · | · | · | end held | · | · | · | · | · | · |
//!
//! `·` nothing happens. *fail*: Backoff, or Over with `move`, `done` or `failed`, as the policy says.
//! ¹ `restart`: as RestartAsked; `signal`: the new data is written and the run gets SIGHUP once it is
//! ready; `ignore`: nothing. ² When the service asked for notification. ³ Unless it was asked to stop.
//! ⁴ The end of the attempt before is forgotten. Every `Ended` is *held* until then, or until the
//! directors have answered what became of it.

mod policy;
mod signal;
#[cfg(test)]
mod tests;

pub use policy::Policy;

use std::time::Duration;

use crate::ids::Token;
use crate::record::{Cause, Exit, ExitClass, ReleaseOutcome, RunPhase, RunReport};
use crate::spec::{ExitPolicy, OnChange};
use crate::time::Moment;

/// How long a warden may take to start a run. It forks and executes within milliseconds; a program on
/// a disk or a network that does not answer may never.
const START_WITHIN: Duration = Duration::from_secs(60);

/// Why a run is being ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is to be given back.
    Asked,
    /// It is to be started again in place, when that is allowed. No failure.
    Again,
    /// It did not start or become ready in time. A failure.
    NotReady,
}

/// Where a run is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing runs; the next attempt waits for permission.
    Held,
    /// The warden was told to start it and has not answered.
    Starting {
        /// Since when.
        since: Moment,
        /// What to do as soon as it has.
        then: Option<Why>,
    },
    /// It runs and is not ready yet.
    Running {
        /// Since when.
        since: Moment,
    },
    /// It runs and is ready.
    Ready {
        /// Since when it has run.
        since: Moment,
    },
    /// It was asked to end.
    Stopping {
        /// Why.
        why: Why,
        /// When it is killed instead.
        kill_at: Moment,
    },
    /// Its whole tree was killed; the proof of its death is awaited.
    Killing {
        /// Why.
        why: Why,
    },
    /// Nothing runs; the next attempt waits for its time.
    Backoff {
        /// Until when.
        until: Moment,
    },
    /// Nothing runs, and nothing will under this token.
    Over(ReleaseOutcome),
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The next attempt may start now.
    Begin,
    /// The command executes.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// The command could not be executed; nothing of it lives.
    NotStarted {
        /// Why.
        cause: Cause,
    },
    /// The run said that it is ready.
    Notified,
    /// Nothing of the run executes any more.
    Ended {
        /// Exit code of the command.
        code: Option<u8>,
        /// Signal that ended the command.
        signal: Option<u8>,
    },
    /// The partition is to be given back.
    StopAsked,
    /// The lease runs out: stop, and start again when it is renewed.
    PauseAsked,
    /// Somebody wants it stopped and started again.
    RestartAsked,
    /// The data of the partition is another now.
    DataChanged,
    /// The token is not ours any more: end it at once.
    KillAsked,
    /// Time has passed.
    Woke,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start this attempt.
    Start {
        /// The how-manieth, from 1.
        attempt: u32,
    },
    /// The next attempt waits for [`Event::Begin`].
    Wanted,
    /// Send a signal to the command.
    Signal {
        /// Its number.
        signal: u8,
    },
    /// Write the new data where the run finds it.
    WriteData,
    /// Kill the whole tree.
    Kill,
    /// The end of this attempt was taken in: an agent process that begins now would start the next.
    Forget {
        /// The attempt.
        attempt: u32,
    },
    /// Tell the directors.
    Observe(RunReport),
    /// Give the token back.
    Release {
        /// How it ended.
        outcome: ReleaseOutcome,
        /// How the last attempt ended, if there was one.
        exit: Option<Exit>,
        /// Failed attempts in a row, those under earlier tokens included.
        failures: u32,
    },
}

/// The life of one run under one token.
#[derive(Clone, Debug)]
pub struct Supervision {
    token: Token,
    policy: Policy,
    state: State,
    /// The last attempt that was ordered.
    attempt: u32,
    pid: Option<u32>,
    /// Failures in a row before this token.
    failures_before: u32,
    /// Failures in a row under this token.
    failures_here: u32,
    exit: Option<Exit>,
    /// This attempt has ended, and the warden still tells so. It is forgotten when the next one starts
    /// or the directors know of it, so that an agent process that takes over in between learns it again.
    held_end: Option<u32>,
    /// New data was written before the run could be told.
    signal_when_ready: bool,
}

impl Supervision {
    /// A run that has not started yet.
    #[must_use]
    pub fn new(token: Token, policy: Policy, failures_before: u32) -> Self {
        Self {
            token,
            policy,
            state: State::Held,
            attempt: 0,
            pid: None,
            failures_before,
            failures_here: 0,
            exit: None,
            held_end: None,
            signal_when_ready: false,
        }
    }

    /// A run that an earlier agent process started and that the warden still holds. It counts as
    /// ready: whether it said so went with that process.
    #[must_use]
    pub fn adopted(token: Token, policy: Policy, attempt: u32, pid: u32, now: Moment) -> Self {
        let mut run = Self::new(token, policy, 0);
        run.attempt = attempt;
        run.pid = Some(pid);
        run.state = State::Ready { since: now };
        run
    }

    /// Where it is in its life.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// The last attempt that was ordered, 0 before the first.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The attempt that has ended and is not forgotten.
    #[must_use]
    pub const fn held_end(&self) -> Option<u32> {
        self.held_end
    }

    /// Whether a process of it may live.
    #[must_use]
    pub const fn may_live(&self) -> bool {
        match self.state {
            State::Starting { .. }
            | State::Running { .. }
            | State::Ready { .. }
            | State::Stopping { .. }
            | State::Killing { .. } => true,
            State::Held | State::Backoff { .. } | State::Over(_) => false,
        }
    }

    /// Another specification counts from here on.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// What the directors know of the failures under earlier tokens.
    pub fn set_failures_before(&mut self, failures: u32) {
        self.failures_before = failures;
    }

    /// When [`Event::Woke`] is due.
    #[must_use]
    pub fn wake_at(&self) -> Option<Moment> {
        match self.state {
            State::Starting { since, .. } => Some(since + START_WITHIN),
            State::Running { since } => Some(self.ready_limit(since)),
            State::Stopping { kill_at, .. } => Some(kill_at),
            State::Backoff { until } => Some(until),
            State::Held | State::Ready { .. } | State::Killing { .. } | State::Over(_) => None,
        }
    }

    /// What to tell the directors of it now, while it goes on.
    #[must_use]
    pub fn report(&self) -> Option<RunReport> {
        let phase = match self.state {
            State::Held | State::Over(_) => return None,
            State::Starting { .. } | State::Running { .. } => RunPhase::Starting,
            State::Ready { .. } => RunPhase::Ready,
            State::Stopping { .. } | State::Killing { .. } => RunPhase::Stopping,
            State::Backoff { .. } => RunPhase::Backoff,
        };
        Some(RunReport {
            phase,
            attempt: self.attempt,
            pid: self.pid,
            exit: self.exit.clone().map(Box::new),
        })
    }

    /// Takes in what has happened; appends what is to be done.
    pub fn step(&mut self, now: Moment, event: Event, orders: &mut Vec<Order>) {
        match event {
            Event::Begin => self.begin(now, orders),
            Event::Started { pid } => self.started(now, pid, orders),
            Event::NotStarted { cause } => self.not_started(now, cause, orders),
            Event::Notified => self.notified(orders),
            Event::Ended { code, signal } => self.ended(now, code, signal, orders),
            Event::StopAsked => self.stop(now, orders),
            Event::PauseAsked => self.pause(now, orders),
            Event::RestartAsked => self.restart(now, orders),
            Event::DataChanged => self.data_changed(now, orders),
            Event::KillAsked => self.kill(orders),
            Event::Woke => self.woke(now, orders),
        }
    }

    fn begin(&mut self, now: Moment, orders: &mut Vec<Order>) {
        if self.state == State::Held {
            orders.extend(
                self.held_end
                    .take()
                    .map(|attempt| Order::Forget { attempt }),
            );
            self.attempt += 1;
            self.signal_when_ready = false;
            self.state = State::Starting {
                since: now,
                then: None,
            };
            orders.push(Order::Start {
                attempt: self.attempt,
            });
        }
    }

    fn started(&mut self, now: Moment, pid: u32, orders: &mut Vec<Order>) {
        let State::Starting { then, .. } = self.state else {
            return;
        };
        self.pid = Some(pid);
        self.state = State::Running { since: now };
        match then {
            Some(why) => self.ask_to_end(now, why, orders),
            None => {
                self.observe(orders);
                self.woke(now, orders);
            }
        }
    }

    fn not_started(&mut self, now: Moment, cause: Cause, orders: &mut Vec<Order>) {
        let why = match self.state {
            State::Starting { then, .. } => then,
            State::Killing { why } => Some(why),
            State::Held
            | State::Running { .. }
            | State::Ready { .. }
            | State::Stopping { .. }
            | State::Backoff { .. }
            | State::Over(_) => return,
        };
        self.held_end = Some(self.attempt);
        let exit = Exit {
            class: ExitClass::NotStarted,
            code: None,
            signal: None,
            cause: Some(cause),
        };
        if why == Some(Why::Asked) {
            self.exit = Some(exit);
            self.over(ReleaseOutcome::Stopped, orders);
        } else {
            self.failed(now, exit, false, orders);
        }
    }

    fn notified(&mut self, orders: &mut Vec<Order>) {
        if let State::Running { since } = self.state
            && self.policy.ready.notify
        {
            self.become_ready(since, orders);
        }
    }

    fn ended(
        &mut self,
        now: Moment,
        code: Option<u8>,
        signal: Option<u8>,
        orders: &mut Vec<Order>,
    ) {
        self.held_end = Some(self.attempt);
        match self.state {
            State::Held | State::Backoff { .. } | State::Over(_) => {}
            State::Starting { then, .. } => match then {
                Some(why) => self.ended_as_asked(now, why, code, signal, orders),
                None => {
                    let exit = self.policy.classify(code, signal);
                    self.failed(now, exit, false, orders);
                }
            },
            State::Running { since } | State::Ready { since } => {
                let exit = self.policy.classify(code, signal);
                let lasted = now.since(since) >= self.policy.reset_after;
                self.failed(now, exit, lasted, orders);
            }
            State::Stopping { why, .. } | State::Killing { why } => {
                self.ended_as_asked(now, why, code, signal, orders);
            }
        }
    }

    fn ended_as_asked(
        &mut self,
        now: Moment,
        why: Why,
        code: Option<u8>,
        signal: Option<u8>,
        orders: &mut Vec<Order>,
    ) {
        let (class, cause) = match why {
            Why::Asked | Why::Again => (ExitClass::Stopped, None),
            Why::NotReady => (ExitClass::Crash, Some(Cause::new("not ready in time"))),
        };
        let exit = Exit {
            class,
            code,
            signal,
            cause,
        };
        match why {
            Why::NotReady => self.failed(now, exit, false, orders),
            Why::Asked => {
                self.exit = Some(exit);
                self.over(ReleaseOutcome::Stopped, orders);
            }
            Why::Again => {
                self.exit = Some(exit);
                self.hold(orders);
            }
        }
    }

    fn stop(&mut self, now: Moment, orders: &mut Vec<Order>) {
        match self.state {
            State::Held | State::Backoff { .. } => self.over(ReleaseOutcome::Stopped, orders),
            State::Starting { since, .. } => {
                self.state = State::Starting {
                    since,
                    then: Some(Why::Asked),
                };
            }
            State::Running { .. } | State::Ready { .. } => {
                self.ask_to_end(now, Why::Asked, orders);
            }
            State::Stopping { .. } | State::Killing { .. } => self.set_why(Why::Asked),
            State::Over(_) => {}
        }
    }

    fn pause(&mut self, now: Moment, orders: &mut Vec<Order>) {
        match self.state {
            State::Starting { since, then } => {
                self.state = State::Starting {
                    since,
                    then: then.or(Some(Why::Again)),
                };
            }
            State::Running { .. } | State::Ready { .. } => {
                self.ask_to_end(now, Why::Again, orders);
            }
            State::Held
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::Backoff { .. }
            | State::Over(_) => {}
        }
    }

    fn restart(&mut self, now: Moment, orders: &mut Vec<Order>) {
        match self.state {
            State::Starting { .. } | State::Running { .. } | State::Ready { .. } => {
                self.pause(now, orders);
            }
            State::Stopping { why, .. } | State::Killing { why } => {
                if why == Why::NotReady {
                    self.set_why(Why::Again);
                }
            }
            // Whoever asks has perhaps mended the cause: do not let them wait.
            State::Backoff { .. } => self.hold(orders),
            State::Held | State::Over(_) => {}
        }
    }

    fn data_changed(&mut self, now: Moment, orders: &mut Vec<Order>) {
        match self.policy.on_change {
            OnChange::Restart => self.restart(now, orders),
            OnChange::Ignore => {}
            OnChange::Signal => match self.state {
                State::Ready { .. } => {
                    orders.push(Order::WriteData);
                    orders.push(Order::Signal {
                        signal: signal::HUP,
                    });
                }
                // A program that has not yet set its handler would be ended by SIGHUP.
                State::Starting { .. } | State::Running { .. } => {
                    orders.push(Order::WriteData);
                    self.signal_when_ready = true;
                }
                State::Held
                | State::Stopping { .. }
                | State::Killing { .. }
                | State::Backoff { .. }
                | State::Over(_) => {}
            },
        }
    }

    fn kill(&mut self, orders: &mut Vec<Order>) {
        match self.state {
            State::Held | State::Backoff { .. } => self.over(ReleaseOutcome::Stopped, orders),
            State::Starting { .. }
            | State::Running { .. }
            | State::Ready { .. }
            | State::Stopping { .. } => {
                self.state = State::Killing { why: Why::Asked };
                orders.push(Order::Kill);
            }
            State::Killing { .. } => self.set_why(Why::Asked),
            State::Over(_) => {}
        }
    }

    fn woke(&mut self, now: Moment, orders: &mut Vec<Order>) {
        if self.wake_at().is_none_or(|due| now < due) {
            return;
        }
        match self.state {
            State::Running { since } => {
                if self.policy.ready.notify {
                    self.ask_to_end(now, Why::NotReady, orders);
                } else {
                    self.become_ready(since, orders);
                }
            }
            State::Starting { then, .. } => {
                self.state = State::Killing {
                    why: then.unwrap_or(Why::NotReady),
                };
                orders.push(Order::Kill);
            }
            State::Stopping { why, .. } => {
                self.state = State::Killing { why };
                orders.push(Order::Kill);
            }
            State::Backoff { .. } => self.hold(orders),
            State::Held | State::Ready { .. } | State::Killing { .. } | State::Over(_) => {}
        }
    }

    fn ready_limit(&self, since: Moment) -> Moment {
        if self.policy.ready.notify {
            since + self.policy.ready.timeout.0
        } else {
            since + self.policy.ready.after.0
        }
    }

    fn become_ready(&mut self, since: Moment, orders: &mut Vec<Order>) {
        self.state = State::Ready { since };
        self.observe(orders);
        if std::mem::take(&mut self.signal_when_ready) {
            orders.push(Order::Signal {
                signal: signal::HUP,
            });
        }
    }

    fn ask_to_end(&mut self, now: Moment, why: Why, orders: &mut Vec<Order>) {
        if let State::Running { since } | State::Ready { since } = self.state
            && now.since(since) >= self.policy.reset_after
        {
            self.reset_failures();
        }
        self.state = State::Stopping {
            why,
            kill_at: now + self.policy.stop_timeout,
        };
        orders.push(Order::Signal {
            signal: self.policy.stop_signal,
        });
        self.observe(orders);
    }

    fn set_why(&mut self, why: Why) {
        match &mut self.state {
            State::Stopping { why: present, .. } | State::Killing { why: present } => {
                *present = why;
            }
            State::Held
            | State::Starting { .. }
            | State::Running { .. }
            | State::Ready { .. }
            | State::Backoff { .. }
            | State::Over(_) => {}
        }
    }

    /// An attempt has ended by itself. `lasted`: it stayed up long enough to count as a success.
    fn failed(&mut self, now: Moment, exit: Exit, lasted: bool, orders: &mut Vec<Order>) {
        let class = exit.class;
        self.exit = Some(exit);
        self.pid = None;
        if lasted {
            self.reset_failures();
        }
        let follows = self.policy.follows(class);
        let again = matches!(follows, ExitPolicy::Move | ExitPolicy::Restart);
        if again && !lasted {
            self.failures_here += 1;
        }
        match (follows, self.limit_reached()) {
            (ExitPolicy::Stop, _) => self.over(ReleaseOutcome::Done, orders),
            (ExitPolicy::Fail, _) => self.over(ReleaseOutcome::Failed, orders),
            (ExitPolicy::Move | ExitPolicy::Restart, Some(outcome)) => self.over(outcome, orders),
            (ExitPolicy::Move, None) => self.over(ReleaseOutcome::Move, orders),
            (ExitPolicy::Restart, None) => self.back_off(now, orders),
        }
    }

    fn limit_reached(&self) -> Option<ReleaseOutcome> {
        let reached = |limit: u32, count: u32| limit > 0 && count >= limit;
        if reached(self.policy.give_up_after, self.failures()) {
            Some(ReleaseOutcome::Failed)
        } else if reached(self.policy.move_after, self.failures_here) {
            Some(ReleaseOutcome::Move)
        } else {
            None
        }
    }

    fn failures(&self) -> u32 {
        self.failures_before.saturating_add(self.failures_here)
    }

    fn reset_failures(&mut self) {
        self.failures_before = 0;
        self.failures_here = 0;
    }

    /// Those of earlier agents count: where nothing helps, the wait grows to its longest all the same.
    fn back_off(&mut self, now: Moment, orders: &mut Vec<Order>) {
        let failures = self.failures();
        let wait = self.policy.wait(self.token, self.attempt, failures);
        self.state = State::Backoff { until: now + wait };
        self.observe(orders);
    }

    fn hold(&mut self, orders: &mut Vec<Order>) {
        self.pid = None;
        self.state = State::Held;
        orders.push(Order::Wanted);
    }

    fn over(&mut self, outcome: ReleaseOutcome, orders: &mut Vec<Order>) {
        self.pid = None;
        self.state = State::Over(outcome);
        orders.push(Order::Release {
            outcome,
            exit: self.exit.clone(),
            failures: self.failures(),
        });
    }

    fn observe(&self, orders: &mut Vec<Order>) {
        orders.extend(self.report().map(Order::Observe));
    }
}
