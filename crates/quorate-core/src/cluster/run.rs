//! What an agent has told of the run of a partition, as it is kept: what few runs have is apart, because
//! there may be a million of them.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::ids::AgentName;
use crate::record::{Exit, RunPhase, RunReport};

use crate::time::WallTime;

use super::partition::{Freed, Partition};

/// What an agent last told of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Run<'a> {
    /// Where it is in its life.
    pub phase: RunPhase,
    /// The how-manieth start under its token, from 1.
    pub attempt: u32,
    /// Process id of the command on its machine, while there is one.
    pub pid: Option<u32>,
    /// How the last attempt ended.
    pub exit: Option<&'a Exit>,
}

impl<'a> From<&'a RunReport> for Run<'a> {
    fn from(report: &'a RunReport) -> Self {
        let RunReport {
            phase,
            attempt,
            pid,
            exit,
        } = report;
        Self {
            phase: *phase,
            attempt: *attempt,
            // No process has the number 0.
            pid: pid.filter(|pid| *pid > 0),
            exit: exit.as_deref(),
        }
    }
}

/// A run without its exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) phase: RunPhase,
    pub(super) attempt: u32,
    pub(super) pid: Option<NonZeroU32>,
}

/// What only those have that ended or were restarted; never kept while there is nothing in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Troubles {
    /// Of the run that was last told of.
    pub(super) exit: Option<Exit>,
    pub(super) restarts_asked: u32,
    pub(super) failures: u32,
    pub(super) fled: Option<Fled>,
}

/// From which agent a partition came to its present one because it failed there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fled {
    /// The agent on which it failed.
    pub from: AgentName,
    /// When it was given back there, as the wall clock of the leader said: compared only to end the time in which
    /// it counts apart from the balance.
    pub at: WallTime,
}

impl Partition {
    /// What its agent last told of its run; of the last run when nobody holds it.
    #[must_use]
    pub fn run(&self) -> Option<Run<'_>> {
        let Told {
            phase,
            attempt,
            pid,
        } = self.run?;
        let troubles = self.troubles.as_deref();
        Some(Run {
            phase,
            attempt,
            pid: pid.map(NonZeroU32::get),
            exit: troubles.and_then(|troubles| troubles.exit.as_ref()),
        })
    }

    /// Rises with every restart that somebody asks for.
    #[must_use]
    pub fn restarts_asked(&self) -> u32 {
        let troubles = self.troubles.as_ref();
        troubles.map_or(0, |troubles| troubles.restarts_asked)
    }

    /// Failed attempts in a row before its present token.
    #[must_use]
    pub fn failures(&self) -> u32 {
        let troubles = self.troubles.as_ref();
        troubles.map_or(0, |troubles| troubles.failures)
    }

    pub(super) fn set_run(&mut self, run: Option<RunReport>) {
        self.run = run.as_ref().map(|run| Told {
            phase: run.phase,
            attempt: run.attempt,
            pid: run.pid.and_then(NonZeroU32::new),
        });
        let exit = run.and_then(|run| run.exit).map(|exit| *exit);
        self.trouble(|troubles| troubles.exit = exit);
    }

    /// Where it failed before it came to the agent that holds it, if that is why it is there.
    #[must_use]
    pub fn fled(&self) -> Option<&Fled> {
        self.troubles.as_ref()?.fled.as_ref()
    }

    /// Somebody is to have it. What it flees from decides for whom, and a leader that comes later must know.
    pub(super) fn flee(&mut self) {
        let from = self.freed().and_then(Freed::avoid).cloned();
        let at = self.since;
        self.trouble(|troubles| troubles.fled = from.map(|from| Fled { from, at }));
    }

    /// Puts back what a snapshot holds.
    pub(super) fn set_kept(
        &mut self,
        run: Option<RunReport>,
        restarts_asked: u32,
        failures: u32,
        fled: Option<Fled>,
    ) {
        self.set_run(run);
        self.trouble(|troubles| {
            troubles.restarts_asked = restarts_asked;
            troubles.failures = failures;
            troubles.fled = fled;
        });
    }

    /// Its process has ended, and how, if that is known.
    pub(super) fn end_run(&mut self, exit: Option<Exit>) {
        if self.run.is_some() && exit.is_some() {
            self.trouble(|troubles| troubles.exit = exit);
        }
    }

    pub(super) fn forget_process(&mut self) {
        if let Some(run) = &mut self.run {
            run.pid = None;
        }
    }

    pub(super) fn ask_restart(&mut self) {
        self.trouble(|troubles| troubles.restarts_asked += 1);
    }

    pub(super) fn set_failures(&mut self, failures: u32) {
        self.trouble(|troubles| troubles.failures = failures);
    }

    fn trouble(&mut self, change: impl FnOnce(&mut Troubles)) {
        let mut troubles = self
            .troubles
            .take()
            .map_or_else(Troubles::default, |some| *some);
        change(&mut troubles);
        self.troubles = (troubles != Troubles::default()).then(|| Box::new(troubles));
    }
}
