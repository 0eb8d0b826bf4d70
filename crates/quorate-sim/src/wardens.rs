//! Model wardens: they obey the protocol, hold processes, and kill everything at the deadline.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::agent::{Event, Kept, RunEnd, RunId, WardenId};
use quorate_core::director::call::Call;
use quorate_core::ids::{SessionId, Token};
use quorate_core::lease::LeaseTimes;
use quorate_core::record::{Cause, CloseReason};
use quorate_core::time::Moment;

use crate::bug::Bug;
use crate::clock::{Instant, MILLI, SECOND};
use crate::hosts::Host;
use crate::oracle::{Process, Word};
use crate::world::{Happening, Origin, World};

/// How runs end by themselves: clean, crash, interrupted, and by signals of a fault and of others.
const EXITS: [u8; 7] = [0, 1, 2, 75, 128 + 11, 128 + 9, 128 + 15];
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
        /// How far the runs before it have come.
        found: Option<Word>,
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
    /// When its deadline is looked at next.
    alarm: Option<Instant>,
    /// K of its class: nothing lives longer than this after the deadline (M3).
    kill_within: u64,
    /// It is stopped until then; the kernel's timer is not.
    pub(crate) frozen_until: Instant,
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

impl RunModel {
    /// What a warden tells of a run that it holds already.
    fn told(&self, warden: WardenId, run: RunId) -> Event {
        match self.ended {
            None => Event::Started {
                warden,
                run,
                pid: self.pid,
            },
            Some(RunEnd { code, signal }) => Event::Ended {
                warden,
                run,
                code,
                signal,
            },
        }
    }
}

impl Warden {
    fn new(lease: Duration) -> Self {
        let kill = LeaseTimes::of(lease).kill.as_nanos();
        Self {
            connected: true,
            deadline: None,
            alarm: None,
            kill_within: u64::try_from(kill).unwrap_or(SECOND),
            frozen_until: Instant::default(),
            kept: None,
            runs: BTreeMap::new(),
            killing: false,
            will: None,
            orders_until: Instant::default(),
            answers_until: Instant::default(),
        }
    }

    /// Whether something of a run executes.
    pub(crate) fn lives(&self, run: RunId) -> bool {
        let model = self.runs.get(&run);
        model.is_some_and(|model| model.ended.is_none())
    }

    fn is_empty(&self) -> bool {
        self.runs.values().all(|run| run.ended.is_some())
    }
}

impl World {
    pub(crate) fn warden(&mut self, n: usize, warden: WardenId) -> Option<&mut Warden> {
        self.hosts.get_mut(n)?.wardens.get_mut(&warden)
    }

    pub(crate) fn warden_up(
        &mut self,
        n: usize,
        generation: u64,
        warden: WardenId,
        lease: Duration,
    ) {
        let fails = !self.quiet && !self.profile.gentle && self.random.permille(20);
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
        host.wardens.insert(warden, Warden::new(lease));
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
    pub(crate) fn answer(&mut self, n: usize, id: WardenId, event: Event) {
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
        if warden.frozen_until > now {
            let thaw = warden.frozen_until;
            return self.at(thaw, Happening::Warden(n, id, Box::new(order)));
        }
        match order {
            Order::Arm(deadline) => {
                let deadline = warden.deadline.unwrap_or_default().max(deadline);
                warden.deadline = Some(deadline);
                if warden.alarm.is_none() {
                    let at = clock.when(deadline, now);
                    warden.alarm = Some(at);
                    self.at(at, Happening::Deadline(n, id));
                }
            }
            Order::Start {
                run,
                session,
                name,
                found,
            } => {
                let armed = warden
                    .deadline
                    .is_some_and(|deadline| clock.read(now) < deadline);
                self.start_run(n, id, run, (session, name, found), armed);
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
            // Whoever is connected by now hears of the end: that may be a later process than the one
            // that ordered it.
            Order::End => self.kill_all(n, id, 50 * MILLI),
        }
    }

    fn start_run(
        &mut self,
        n: usize,
        id: WardenId,
        run: RunId,
        (session, name, found): (SessionId, String, Option<Word>),
        armed: bool,
    ) {
        let held = self.warden(n, id).and_then(|warden| warden.runs.get(&run));
        if let Some(known) = held {
            // Ordered by two processes of its agent, one after the other.
            let told = known.told(id, run);
            return self.answer(n, id, told);
        }
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
        let token = process.token;
        self.oracle.starts(now, &name, process);
        self.oracle.reads(now, &name, token, found);
        self.may_say(n, id, run);
        self.writes(&name, token);
        let started = Event::Started {
            warden: id,
            run,
            pid,
        };
        self.answer(n, id, started);
        if self.random.permille(self.profile.crashes) {
            let lives = self.random.between(MILLI, self.profile.lives);
            let code = self.random.pick(&EXITS).unwrap_or(1);
            self.after(lives, Happening::RunExits(n, id, run, code));
        }
    }

    /// A run writes to what it works on, and the network may hold that back for long.
    fn writes(&mut self, name: &str, token: Token) {
        let delay = self.random.between(MILLI, 20 * SECOND);
        self.after(delay, Happening::Write(name.to_owned(), token));
        self.after(MILLI, Happening::Write(name.to_owned(), token));
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
        // Above 128 stands for a signal, as a shell tells it.
        match code.checked_sub(128) {
            Some(signal) => self.ends(n, id, run, None, Some(signal)),
            None => self.ends(n, id, run, Some(code), None),
        }
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
        let now = self.now;
        self.oracle.ends(now, &name, &process);
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
        let (at, now) = (self.now, clock.read(self.now));
        let lives_on = self.has(Bug::FrozenTimer);
        let Some(warden) = self.warden(n, id) else {
            return;
        };
        if lives_on && warden.frozen_until > at {
            let thaw = warden.frozen_until;
            return self.at(thaw, Happening::Deadline(n, id));
        }
        if warden.alarm.is_some_and(|alarm| alarm > at) {
            return;
        }
        warden.alarm = None;
        let (within, Some(deadline)) = (warden.kill_within, warden.deadline) else {
            return;
        };
        if deadline <= now {
            return self.kill_all(n, id, within);
        }
        let next = clock.when(deadline, at);
        warden.alarm = Some(next);
        self.at(next, Happening::Deadline(n, id));
    }

    /// The machine was suspended: a deadline that has passed kills before anything else executes, and
    /// one that has not is still to come.
    pub(crate) fn wake_warden(&mut self, n: usize, id: WardenId) {
        let Some(clock) = self.hosts.get(n).map(|host: &Host| host.clock) else {
            return;
        };
        let now = self.now;
        let Some(deadline) = self.warden(n, id).and_then(|warden| warden.deadline) else {
            return;
        };
        if deadline <= clock.read(now) {
            self.lose_runs(n, id);
            return self.kill_all(n, id, 0);
        }
        let next = clock.when(deadline, now);
        if let Some(warden) = self.warden(n, id) {
            warden.alarm = Some(next);
        }
        self.at(next, Happening::Deadline(n, id));
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
            // The whole time in many cases: that is where it matters.
            let most = self.random.permille(500);
            let delay = if most {
                within
            } else {
                self.random.below(within)
            };
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
    pub(crate) fn crash_host(&mut self, n: usize, boots_after: Option<u64>) {
        self.resume_host(n);
        let Some(host) = self.host(n) else {
            return;
        };
        host.process = None;
        host.generation += 1;
        host.frozen_until = Instant::default();
        host.trip = None;
        let wardens: Vec<_> = host.wardens.keys().copied().collect();
        for id in wardens {
            self.lose_runs(n, id);
        }
        if let Some(host) = self.host(n) {
            host.wardens.clear();
        }
        if let Some(pause) = boots_after {
            self.after(pause, Happening::HostBoots(n));
        }
    }

    /// The machine loses power for ever.
    pub(crate) fn lose_host(&mut self, n: usize) {
        self.crash_host(n, None);
        if let Some(host) = self.host(n) {
            host.lost = true;
        }
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
        let now = self.now;
        for (name, process) in alive {
            self.oracle.ends(now, &name, &process);
        }
        let dead = self.warden(n, id).into_iter();
        for run in dead.flat_map(|warden| warden.runs.values_mut()) {
            run.ended.get_or_insert(RunEnd {
                code: None,
                signal: Some(SIGKILL),
            });
        }
    }
}
