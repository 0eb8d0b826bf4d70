//! Model wardens: they obey the protocol, hold processes, and kill everything at the deadline.

use std::collections::BTreeMap;

use quorate_core::agent::{Event, Kept, RunEnd, RunId, WardenId};
use quorate_core::director::call::Call;
use quorate_core::ids::SessionId;
use quorate_core::record::{Cause, CloseReason};
use quorate_core::time::Moment;

use crate::clock::{Instant, MILLI, SECOND};
use crate::hosts::Host;
use crate::oracle::Process;
use crate::world::{Happening, Origin, World};

/// Nothing lives longer than this after the deadline: within K of the fastest class.
const KILL_WITHIN: u64 = 400 * MILLI;
const SIGTERM: u8 = 15;
const SIGKILL: u8 = 9;

/// What an agent orders a warden.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Arm(Moment),
    Start {
        run: RunId,
        session: SessionId,
        name: String,
    },
    Signal(RunId, u8),
    Kill(RunId),
    Forget(RunId),
    Keep(String, Box<Kept>),
    End,
}

/// A warden.
pub(crate) struct Warden {
    pub(crate) connected: bool,
    pub(crate) deadline: Option<Moment>,
    /// Secret and what the agent keeps.
    pub(crate) kept: Option<(String, Kept)>,
    pub(crate) runs: BTreeMap<RunId, RunModel>,
    /// Everything is being killed; it takes no more orders and ends.
    pub(crate) killing: bool,
    /// Its agent died: close the session when all is dead.
    will: Option<SessionId>,
    /// Orders and answers keep their order.
    orders_until: Instant,
    answers_until: Instant,
}

/// A process tree.
pub(crate) struct RunModel {
    pub(crate) pid: u32,
    pub(crate) ended: Option<RunEnd>,
    name: String,
    process: Process,
    /// What it dies of.
    signal: u8,
    deaf: bool,
}

impl Warden {
    fn new() -> Self {
        Self {
            connected: true,
            deadline: None,
            kept: None,
            runs: BTreeMap::new(),
            killing: false,
            will: None,
            orders_until: Instant::default(),
            answers_until: Instant::default(),
        }
    }

    fn is_empty(&self) -> bool {
        self.runs.values().all(|run| run.ended.is_some())
    }
}

impl World {
    fn warden(&mut self, n: usize, warden: WardenId) -> Option<&mut Warden> {
        self.hosts.get_mut(n)?.wardens.get_mut(&warden)
    }

    pub(crate) fn warden_up(&mut self, n: usize, generation: u64, warden: WardenId) {
        let fails = !self.quiet && self.random.permille(20);
        let host = self.host(n);
        let Some(host) = host.filter(|host| host.generation == generation) else {
            return;
        };
        if fails {
            let event = Event::WardenGone {
                warden,
                proven: false,
            };
            return self.tell_agent(n, generation, event);
        }
        // It may have been discarded while it came up.
        let wanted = host.process.as_ref();
        if !wanted.is_some_and(|process| process.holders.contains_key(&warden)) {
            return;
        }
        host.wardens.insert(warden, Warden::new());
        self.tell_agent(n, generation, Event::Spawned { warden });
    }

    /// Hands an order to the socket of a warden.
    pub(crate) fn order(&mut self, n: usize, id: WardenId, order: Order) {
        let delay = self.random.between(MILLI / 20, 2 * MILLI);
        let now = self.now;
        let Some(warden) = self.warden(n, id) else {
            return;
        };
        let at = warden.orders_until.max(now + delay);
        warden.orders_until = at;
        self.at(at, Happening::Warden(n, id, Box::new(order)));
    }

    /// Tells the agent something, if it is there.
    fn answer(&mut self, n: usize, id: WardenId, event: Event) {
        let delay = self.random.between(MILLI / 20, 2 * MILLI);
        let now = self.now;
        let Some(host) = self.hosts.get_mut(n) else {
            return;
        };
        let generation = host.generation;
        let Some(warden) = host.wardens.get_mut(&id).filter(|warden| warden.connected) else {
            return;
        };
        let at = warden.answers_until.max(now + delay);
        warden.answers_until = at;
        self.at(at, Happening::Agent(n, generation, Box::new(event)));
    }

    pub(crate) fn order_warden(&mut self, n: usize, id: WardenId, order: Order) {
        let Some(clock) = self.hosts.get(n).map(|host: &Host| host.clock) else {
            return;
        };
        let now = self.now;
        let Some(warden) = self.warden(n, id).filter(|warden| !warden.killing) else {
            return;
        };
        match order {
            Order::Arm(deadline) => {
                let deadline = warden.deadline.unwrap_or_default().max(deadline);
                warden.deadline = Some(deadline);
                self.at(clock.when(deadline, now), Happening::Deadline(n, id));
            }
            Order::Start { run, session, name } => {
                let armed = warden
                    .deadline
                    .is_some_and(|deadline| clock.read(now) < deadline);
                self.start_run(n, id, run, session, name, armed);
            }
            Order::Signal(run, signal) => self.signal(n, id, run, signal),
            Order::Kill(run) => {
                let delay = self.random.between(MILLI / 10, 10 * MILLI);
                self.dies(n, id, run, SIGKILL, delay);
            }
            Order::Forget(run) => {
                let ended = warden.runs.get(&run).is_some_and(|run| run.ended.is_some());
                if ended {
                    warden.runs.remove(&run);
                }
            }
            Order::Keep(secret, kept) => warden.kept = Some((secret, *kept)),
            Order::End => {
                warden.connected = false;
                self.kill_all(n, id, 50 * MILLI);
            }
        }
    }

    fn start_run(
        &mut self,
        n: usize,
        id: WardenId,
        run: RunId,
        session: SessionId,
        name: String,
        armed: bool,
    ) {
        let fails = !self.quiet && self.random.permille(self.profile.start_fails);
        if !armed || fails {
            let cause = Cause::new(if armed {
                "no such program"
            } else {
                "no deadline"
            });
            let event = Event::NotStarted {
                warden: id,
                run,
                cause,
            };
            return self.answer(n, id, event);
        }
        let process = Process {
            host: n,
            session,
            token: run.token,
            attempt: run.attempt,
        };
        let pid = u32::try_from(self.number() & 0xffff_ffff).unwrap_or(1);
        let model = RunModel {
            pid,
            ended: None,
            name: name.clone(),
            process: process.clone(),
            signal: SIGKILL,
            deaf: self.random.permille(self.profile.deaf),
        };
        if let Some(warden) = self.warden(n, id) {
            warden.runs.insert(run, model);
        }
        let now = self.now;
        self.oracle.starts(now, &name, process);
        let started = Event::Started {
            warden: id,
            run,
            pid,
        };
        self.answer(n, id, started);
        if self.random.permille(self.profile.crashes) {
            let lives = self.random.between(MILLI, 15 * SECOND);
            let code = self.random.pick(&[0, 1, 75]).unwrap_or(1);
            self.after(lives, Happening::RunExits(n, id, run, code));
        }
    }

    fn signal(&mut self, n: usize, id: WardenId, run: RunId, signal: u8) {
        let quiet = self.quiet;
        let model = self.warden(n, id).and_then(|warden| warden.runs.get(&run));
        let deaf = model.is_none_or(|model| model.deaf && !quiet);
        if deaf || signal != SIGTERM {
            return;
        }
        let slow = self.random.between(MILLI, 1500 * MILLI);
        self.dies(n, id, run, SIGTERM, slow);
    }

    /// A signal ends a run after a while.
    fn dies(&mut self, n: usize, id: WardenId, run: RunId, signal: u8, after: u64) {
        let model = self
            .warden(n, id)
            .and_then(|warden| warden.runs.get_mut(&run));
        if let Some(model) = model.filter(|model| model.ended.is_none()) {
            model.signal = signal;
            self.after(after, Happening::RunDies(n, id, run));
        }
    }

    pub(crate) fn run_exits(&mut self, n: usize, id: WardenId, run: RunId, code: u8) {
        if self.quiet {
            return;
        }
        self.ends(n, id, run, Some(code), None);
    }

    pub(crate) fn run_dies(&mut self, n: usize, id: WardenId, run: RunId) {
        let model = self.warden(n, id).and_then(|warden| warden.runs.get(&run));
        let signal = model.map(|model| model.signal);
        self.ends(n, id, run, None, signal);
    }

    fn ends(&mut self, n: usize, id: WardenId, run: RunId, code: Option<u8>, signal: Option<u8>) {
        let Some(warden) = self.warden(n, id) else {
            return;
        };
        let killing = warden.killing;
        let model = warden.runs.get_mut(&run);
        let Some(model) = model.filter(|model| model.ended.is_none()) else {
            return;
        };
        model.ended = Some(RunEnd { code, signal });
        let (name, process) = (model.name.clone(), model.process.clone());
        self.oracle.ends(&name, &process);
        let ended = Event::Ended {
            warden: id,
            run,
            code,
            signal,
        };
        self.answer(n, id, ended);
        if killing {
            self.after(MILLI, Happening::WardenEmpty(n, id));
        }
    }

    /// The deadline may have come, or have moved on.
    pub(crate) fn deadline(&mut self, n: usize, id: WardenId) {
        let Some(clock) = self.hosts.get(n).map(|host: &Host| host.clock) else {
            return;
        };
        let now = clock.read(self.now);
        let due = self
            .warden(n, id)
            .is_some_and(|warden| warden.deadline.is_some_and(|deadline| deadline <= now));
        if due {
            self.kill_all(n, id, KILL_WITHIN);
        }
    }

    /// Kills everything that a warden holds; then it ends.
    pub(crate) fn kill_all(&mut self, n: usize, id: WardenId, within: u64) {
        let Some(warden) = self.warden(n, id).filter(|warden| !warden.killing) else {
            return;
        };
        warden.killing = true;
        let alive: Vec<RunId> = warden
            .runs
            .iter()
            .filter(|(_, run)| run.ended.is_none())
            .map(|(id, _)| *id)
            .collect();
        for run in alive {
            let delay = self.random.below(within);
            self.dies(n, id, run, SIGKILL, delay);
        }
        self.after(MILLI, Happening::WardenEmpty(n, id));
    }

    /// A warden that was killing may be done.
    pub(crate) fn warden_empty(&mut self, n: usize, id: WardenId) {
        let Some(warden) = self.warden(n, id).filter(|warden| warden.is_empty()) else {
            return;
        };
        let will = warden.will;
        let gone = Event::WardenGone {
            warden: id,
            proven: true,
        };
        self.answer(n, id, gone);
        if let Some(host) = self.host(n) {
            host.wardens.remove(&id);
        }
        if let Some(session) = will {
            self.after(5 * MILLI, Happening::LastWill(n, session, 0));
        }
    }

    /// No agent came for it in time.
    pub(crate) fn orphaned(&mut self, n: usize, id: WardenId, generation: u64) {
        // A later process may have come and gone: it has its own time.
        let same = self
            .host(n)
            .is_some_and(|host| host.generation == generation);
        let Some(warden) = self.warden(n, id).filter(|_| same) else {
            return;
        };
        if warden.connected || warden.killing {
            return;
        }
        warden.will = warden.kept.as_ref().map(|(_, kept)| kept.session);
        self.kill_all(n, id, 100 * MILLI);
    }

    /// A short-lived process closes the session of a dead agent.
    pub(crate) fn last_will(&mut self, host: usize, session: SessionId, tries: u32) {
        if tries > 20 {
            return;
        }
        let origin = Origin::LastWill {
            host,
            session,
            tries,
        };
        let reason = CloseReason::AgentDied;
        let close = Call::Close {
            session,
            incarnation: None,
            reason,
        };
        self.call(origin, close);
    }

    /// The warden itself dies, and everything that it holds with it.
    pub(crate) fn crash_warden(&mut self, n: usize, id: WardenId, proven: bool) {
        self.lose_runs(n, id);
        self.answer(n, id, Event::WardenGone { warden: id, proven });
        if let Some(host) = self.host(n) {
            host.wardens.remove(&id);
        }
    }

    /// The machine loses power.
    pub(crate) fn crash_host(&mut self, n: usize) {
        let Some(host) = self.host(n) else {
            return;
        };
        host.process = None;
        host.generation += 1;
        host.frozen_until = Instant::default();
        let wardens: Vec<_> = host.wardens.keys().copied().collect();
        for id in wardens {
            self.lose_runs(n, id);
        }
        if let Some(host) = self.host(n) {
            host.wardens.clear();
        }
        let pause = self.random.between(SECOND / 2, 20 * SECOND);
        self.after(pause, Happening::HostBoots(n));
    }

    fn lose_runs(&mut self, n: usize, id: WardenId) {
        let Some(warden) = self.warden(n, id) else {
            return;
        };
        let runs = warden.runs.values();
        let alive = runs.filter(|run| run.ended.is_none());
        let alive: Vec<_> = alive
            .map(|run| (run.name.clone(), run.process.clone()))
            .collect();
        for (name, process) in alive {
            self.oracle.ends(&name, &process);
        }
    }
}
