//! The end of a holder: refuse everybody, kill everything, prove it, tell it, go.

use std::time::Duration;

use rustix::event::epoll;

use super::super::nanos;
use super::super::protocol::Reply;
use super::super::say;
use super::{ABANDONED, ENDED, Holder};
use crate::sys::boot_nanos;

/// How long an agent may take to read that nothing executes any more.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// How far the end has come.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// Until when the agent may read that everything is dead; set once it is.
    told_until: Option<u64>,
}

impl Ending {
    pub(super) fn told_until(&self) -> Option<u64> {
        self.told_until
    }
}

impl Holder {
    /// Begins the end. It is not taken back.
    pub(super) fn end(&mut self, why: &str) {
        if self.ending.is_some() {
            return;
        }
        say(format_args!(
            "ends with {} runs held: {why}",
            self.runs.len()
        ));
        self.ending = Some(Ending::default());
        self.adopt_until = None;
        // Nobody can adopt a warden that kills: whoever connects from here on is refused.
        let _gone = epoll::delete(&self.epoll, &self.born.listener);
        let _gone = std::fs::remove_file(&self.born.socket);
        self.guests.clear();
        self.kill_all();
    }

    /// The exit code, once everything is dead and told.
    pub(super) fn ended(&mut self, now: u64) -> Option<i32> {
        self.ending.as_ref()?;
        if !self.is_empty() {
            return None;
        }
        if self.agent.is_none() {
            // Told and closed by the agent, or nobody was there.
            let told = self
                .ending
                .as_ref()
                .is_some_and(|end| end.told_until.is_some());
            return Some(if told { ENDED } else { ABANDONED });
        }
        let told_until = self.ending.as_ref().and_then(|end| end.told_until);
        let Some(until) = told_until else {
            self.ending = Some(Ending {
                told_until: Some(boot_nanos().saturating_add(nanos(TOLD_WITHIN))),
            });
            self.reply(&Reply::Empty);
            self.settle(Ok(()));
            return self.ended(now);
        };
        let unsent = self.agent.as_ref().is_some_and(super::Agent::has_unsent);
        (!unsent || until <= now).then_some(ENDED)
    }
}
