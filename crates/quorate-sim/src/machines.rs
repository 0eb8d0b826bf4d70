//! Worker machines as a whole: booting, standing still, going on, and the alarms of their agents.

use quorate_core::agent::Event;

use crate::bug::Bug;
use crate::clock::Instant;
use crate::hosts::Host;
use crate::world::{Happening, World};

impl World {
    /// Only the latest order to be woken counts, and one alarm at a time is in the queue.
    pub(crate) fn set_agent_alarm(&mut self, n: usize, generation: u64, at: Instant) {
        let Some(process) = self.host(n).and_then(|host| host.process.as_mut()) else {
            return;
        };
        process.wake = Some(at);
        if process.alarm.is_none_or(|alarm| at < alarm) {
            process.alarm = Some(at);
            self.at(at, Happening::AgentAlarm(n, generation));
        }
    }

    pub(crate) fn agent_alarm(&mut self, n: usize, generation: u64) {
        let now = self.now;
        let host = self.host(n).filter(|host| host.generation == generation);
        let Some(process) = host.and_then(|host| host.process.as_mut()) else {
            return;
        };
        if process.alarm.is_some_and(|alarm| alarm > now) {
            return;
        }
        process.alarm = None;
        match process.wake {
            Some(wake) if wake > now => self.set_agent_alarm(n, generation, wake),
            Some(_) => {
                process.wake = None;
                self.tell_agent(n, generation, Event::Woke);
            }
            None => {}
        }
    }

    pub(crate) fn freeze_agent(&mut self, n: usize, until: Instant) {
        let now = self.now;
        let awake = |host: &&mut Host| {
            host.process.is_some() && host.frozen_until <= now && host.suspended_until <= now
        };
        if let Some(host) = self.host(n).filter(awake) {
            host.frozen_until = until;
        }
    }

    /// A machine that lost power has booted again.
    pub(crate) fn boot(&mut self, n: usize) {
        // One that lost power twice before it was up boots once.
        let down = |host: &&mut Host| host.process.is_none() && host.wardens.is_empty();
        if let Some(host) = self.host(n).filter(down) {
            host.boots += 1;
        }
        self.start_agent(n);
    }

    /// Nothing on the machine executes until then. Its boot time goes on.
    pub(crate) fn suspend_host(&mut self, n: usize, until: Instant) {
        let now = self.now;
        // Whoever stands still already goes on in its own time: what came to it keeps its order.
        let awake = |host: &&mut Host| {
            let mut wardens = host.wardens.values();
            host.suspended_until <= now
                && host.frozen_until <= now
                && wardens.all(|warden| warden.frozen_until <= now)
                && !host.lost
        };
        let Some(host) = self.host(n).filter(awake) else {
            return;
        };
        host.suspended_until = until;
        host.suspended_at = now;
        self.oracle.pauses(n);
        self.at(until, Happening::HostResumes(n));
    }

    /// A suspended machine goes on: timers that came due in the meantime fire first.
    pub(crate) fn resume_host(&mut self, n: usize) {
        let (now, stops) = (self.now, self.has(Bug::StoppedClock));
        let Some(host) = self
            .host(n)
            .filter(|host| host.suspended_at > Instant::default())
        else {
            return;
        };
        let stood = now.0 - host.suspended_at.0;
        host.suspended_until = Instant::default();
        host.suspended_at = Instant::default();
        if stops {
            host.clock.stood += stood;
        }
        let generation = host.generation;
        let wardens: Vec<_> = host.wardens.keys().copied().collect();
        for id in wardens {
            self.wake_warden(n, id);
        }
        self.oracle.resumes(now, n);
        self.tell_agent(n, generation, Event::Woke);
        self.renew_soon(n, generation);
    }
}
