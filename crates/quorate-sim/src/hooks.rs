//! Fence hooks: what a director's shell does when it is told to run one. A hook that succeeds has cut the
//! power of every machine with the agent's name, and nothing else it says is worth anything: it fails, with
//! and without having done it, hangs until its time is up, comes late, or answers twice.

use quorate_core::director::event::Event;
use quorate_core::ids::{AgentName, HookName, SessionId};
use quorate_core::record::Cause;

use crate::clock::{MILLI, SECOND};
use crate::world::{Happening, World};

/// The hooks that the directors' own file describes.
pub(crate) const HOOKS: [&str; 2] = ["power-off", "reset"];

/// One hook under way.
#[derive(Clone, Debug)]
pub(crate) struct Hook {
    pub(crate) session: SessionId,
    pub(crate) agent: AgentName,
    pub(crate) hook: HookName,
    /// Whether it will say that it has succeeded.
    succeeds: bool,
}

/// How a hook goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It does its work, soon or late, and says so.
    Works { after: u64 },
    /// It does nothing and says so.
    Fails,
    /// It does its work and ends with an error all the same.
    SaysNo,
    /// It is ended when its time is up, and has done nothing.
    Hangs,
    /// It is run twice over: fails, and succeeds later.
    Twice,
}

impl World {
    /// A director wants this hook to be run.
    pub(crate) fn run_hook(
        &mut self,
        n: usize,
        generation: u64,
        (session, agent, hook): (SessionId, AgentName, HookName),
    ) {
        self.oracle.hook_begins(self.now, n, session);
        let soon = self.random.between(20 * MILLI, 2 * SECOND);
        let late = self.random.between(2 * SECOND, 20 * SECOND);
        let fates = [
            Fate::Works { after: soon },
            Fate::Works { after: soon },
            Fate::Works { after: late },
            Fate::Fails,
            Fate::SaysNo,
            Fate::Hangs,
            Fate::Twice,
        ];
        let fate = if self.quiet {
            Fate::Works { after: soon }
        } else {
            self.random.pick(&fates).unwrap_or(Fate::Fails)
        };
        let now = self.now;
        self.remark(|| format!("{now} hook {hook} for {session} of {agent}: {fate:?}"));
        let hook = Hook {
            session,
            agent,
            hook,
            succeeds: !matches!(fate, Fate::Fails | Fate::SaysNo | Fate::Hangs),
        };
        match fate {
            Fate::Works { after } => self.hook_acts(n, generation, hook, after),
            Fate::Fails => self.hook_fails(n, generation, &hook, soon),
            Fate::SaysNo => {
                self.hook_fails(n, generation, &hook, soon);
                self.hook_acts(n, generation, hook, soon);
            }
            Fate::Hangs => self.hook_fails(n, generation, &hook, 30 * SECOND),
            Fate::Twice => {
                self.hook_fails(n, generation, &hook, soon);
                self.hook_acts(n, generation, hook.clone(), soon + late);
                self.hook_acts(n, generation, hook, soon + 2 * late);
            }
        }
    }

    fn hook_acts(&mut self, n: usize, generation: u64, hook: Hook, after: u64) {
        self.after(after, Happening::Hook(n, generation, Box::new(hook)));
    }

    fn hook_fails(&mut self, n: usize, generation: u64, hook: &Hook, after: u64) {
        let event = Event::Fenced {
            session: hook.session,
            hook: hook.hook.clone(),
            problem: Some(Cause::new("exit code 1")),
        };
        self.after(after, Happening::Director(n, generation, Box::new(event)));
    }

    /// A hook does its work: the machines lose power, and boot again some time later.
    pub(crate) fn hook(&mut self, n: usize, generation: u64, hook: &Hook) {
        // A director that has died took its hook along.
        let same = self.node(n).map(|node| node.generation) == Some(generation);
        if !same {
            return;
        }
        for host in 0..self.hosts.len() {
            let there = self.hosts.get(host);
            if there.is_some_and(|host| host.name == hook.agent.as_str() && !host.lost) {
                let pause = self.random.between(SECOND, 8 * SECOND);
                self.crash_host(host, Some(pause));
            }
        }
        if !hook.succeeds {
            return;
        }
        self.oracle.hook_succeeded(hook.session, &hook.hook);
        let event = Event::Fenced {
            session: hook.session,
            hook: hook.hook.clone(),
            problem: None,
        };
        let delay = self.random.between(MILLI, SECOND);
        self.after(delay, Happening::Director(n, generation, Box::new(event)));
    }
}
