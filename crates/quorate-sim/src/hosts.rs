//! Hosts: the agent's machine, the model of its shell, and its connection to the directors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::agent::{
    Agent, Effect, Event, FoundRun, Item, Kept, Latest, Opened, Report, Service, Wanted, WardenId,
    Work,
};
use quorate_core::director::call::{Answer, Call, Renewal};
use quorate_core::director::{WorkDelta, WorkItem, WorkState};
use quorate_core::ids::{AgentName, ClusterId, Position, ServiceName, SessionId};
use quorate_core::lease::LeaseTimes;
use quorate_core::record::{AgentInfo, CloseReason, Containment, Place};
use quorate_core::time::Moment;

use crate::bug::Bug;
use crate::calls::{fits, is_over};
use crate::clock::{Clock, Instant, MILLI, SECOND};
use crate::directors::{Poll, PollAnswer};
use crate::profile::Profile;
use crate::random::Random;
use crate::trip::Trip;
use crate::wardens::{Order, Warden};
use crate::words::found;
use crate::world::{Happening, Origin, Party, PendingRenewal, What, World};

const POLL_WITHIN: u64 = 6 * SECOND;

/// A worker machine.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) id: u64,
    machine_id: u64,
    pub(crate) boots: u64,
    zone: &'static str,
    pub(crate) clock: Clock,
    pub(crate) process: Option<Process>,
    /// Rises with every agent process.
    pub(crate) generation: u64,
    pub(crate) wardens: BTreeMap<WardenId, Warden>,
    next_warden: WardenId,
    /// The director that it asks first.
    pub(crate) favourite: usize,
    /// Its agent process is stopped until then.
    pub(crate) frozen_until: Instant,
    /// The whole machine is suspended until then, since then.
    pub(crate) suspended_until: Instant,
    pub(crate) suspended_at: Instant,
    /// Its agent process is killed or stopped in the middle of a step.
    pub(crate) trip: Option<Trip>,
    /// It has the name of another machine.
    pub(crate) copy: bool,
    /// It is about to leave for ever.
    pub(crate) leaving: bool,
    /// It is gone for ever.
    pub(crate) lost: bool,
    pub(crate) adopt_within: Duration,
}

/// One agent process.
pub(crate) struct Process {
    machine: Agent,
    number: u64,
    pub(crate) holders: BTreeMap<WardenId, Holder>,
    counter: u64,
    tick: u64,
    /// When it wants to be woken, and when that is looked at next.
    pub(crate) wake: Option<Instant>,
    pub(crate) alarm: Option<Instant>,
}

/// A warden as the shell knows it.
pub(crate) struct Holder {
    secret: String,
    opened: Option<Opened>,
    followed: bool,
    poll: u64,
    index: Position,
    services: BTreeMap<(ServiceName, Position), Arc<Service>>,
}

impl Holder {
    fn new(secret: String) -> Self {
        Self {
            secret,
            opened: None,
            followed: false,
            poll: 0,
            index: Position(0),
            services: BTreeMap::new(),
        }
    }
}

impl Host {
    pub(crate) fn new(n: u64, name: String, random: &mut Random, profile: &Profile) -> Self {
        Self {
            name,
            id: random.any() >> 12,
            machine_id: n,
            boots: 0,
            zone: if n.is_multiple_of(2) { "even" } else { "odd" },
            clock: profile.agent_clock(random),
            process: None,
            generation: 0,
            wardens: BTreeMap::new(),
            next_warden: WardenId(1),
            favourite: 0,
            frozen_until: Instant::default(),
            suspended_until: Instant::default(),
            suspended_at: Instant::default(),
            trip: None,
            copy: false,
            leaving: false,
            lost: false,
            adopt_within: random
                .pick(&[
                    Duration::ZERO,
                    Duration::from_secs(3),
                    Duration::from_secs(3),
                ])
                .unwrap_or_default(),
        }
    }

    fn info(&self, name: AgentName) -> AgentInfo {
        let zone = ("zone".to_owned(), self.zone.to_owned());
        AgentInfo {
            name,
            id: self.id,
            place: Place {
                machine: format!("{}m{}", Place::CERTAIN, self.machine_id),
                boot: format!("{}-{}", self.machine_id, self.boots),
                folder: self.machine_id,
            },
            labels: BTreeMap::from([zone]),
            capacity: None,
            containment: Containment::Kernel,
            version: String::new(),
        }
    }

    /// Whether it is there for good.
    pub(crate) const fn stays(&self) -> bool {
        !self.copy && !self.leaving && !self.lost
    }

    fn holder(&mut self, warden: WardenId) -> Option<&mut Holder> {
        self.process.as_mut()?.holders.get_mut(&warden)
    }
}

impl World {
    pub(crate) fn host(&mut self, n: usize) -> Option<&mut Host> {
        self.hosts.get_mut(n)
    }

    /// An agent process begins and takes over the wardens that live.
    pub(crate) fn start_agent(&mut self, n: usize) {
        let number = self.random.any() >> 12;
        let plants = self.bug.map(Bug::plants).unwrap_or_default();
        let Some(host) = self
            .hosts
            .get_mut(n)
            .filter(|host| host.process.is_none() && !host.lost)
        else {
            return;
        };
        host.generation += 1;
        let generation = host.generation;
        host.process = Some(Process {
            machine: Agent::new(&[Duration::from_secs(10)], host.next_warden).with_plants(plants),
            number,
            holders: BTreeMap::new(),
            counter: 0,
            tick: 0,
            wake: None,
            alarm: None,
        });
        let mut found = Vec::new();
        let mut unknown = Vec::new();
        for (id, warden) in &mut host.wardens {
            if warden.killing {
                continue;
            }
            let Some((secret, kept)) = warden.kept.clone() else {
                unknown.push(*id);
                continue;
            };
            warden.connected = true;
            if let Some(process) = &mut host.process {
                process.holders.insert(*id, Holder::new(secret));
            }
            found.push(Event::Found {
                warden: *id,
                kept,
                deadline: warden.deadline,
                runs: found_runs(warden),
            });
        }
        for warden in unknown {
            self.kill_all(n, warden, 50 * MILLI);
        }
        for event in found {
            self.tell_agent(n, generation, event);
        }
        self.tell_agent(n, generation, Event::Began);
    }

    /// The agent process is gone; its wardens live on for a while.
    pub(crate) fn end_agent(&mut self, n: usize) {
        let Some(host) = self.hosts.get_mut(n) else {
            return;
        };
        host.process = None;
        host.generation += 1;
        host.frozen_until = Instant::default();
        host.trip = None;
        let (generation, adopt) = (host.generation, host.adopt_within);
        let clock = host.clock;
        let until = clock.when(clock.read(self.now) + adopt, self.now);
        let wardens: Vec<_> = host.wardens.keys().copied().collect();
        for warden in host.wardens.values_mut() {
            warden.connected = false;
        }
        for warden in wardens {
            self.at(until, Happening::Orphaned(n, warden, generation));
        }
    }

    /// One fact for the agent of this generation, and the orders that follow.
    pub(crate) fn tell_agent(&mut self, n: usize, generation: u64, event: Event) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(n) else {
            return;
        };
        if host.generation != generation {
            return;
        }
        let thaw = host.frozen_until.max(host.suspended_until);
        if thaw > now {
            return self.at(thaw, Happening::Agent(n, generation, Box::new(event)));
        }
        let moment = host.clock.read(now);
        let Some(process) = &mut host.process else {
            return;
        };
        let mut effects = std::mem::take(&mut self.spare.agent);
        process.machine.step(moment, event, &mut effects);
        let tripped = Trip::split(&mut host.trip, &mut effects);
        self.agent_acts(n, generation, effects.drain(..));
        self.spare.agent = effects;
        match tripped {
            Some((Trip { freeze: None, .. }, _)) => {
                self.end_agent(n);
                let pause = Profile::restarts(&mut self.random);
                self.after(pause, Happening::AgentStarts(n));
            }
            Some((
                Trip {
                    freeze: Some(lasts),
                    ..
                },
                rest,
            )) => {
                let until = now + lasts;
                self.at(until, Happening::AgentActs(n, generation, rest));
                self.freeze_agent(n, until);
            }
            None => {}
        }
    }

    /// Carries out orders of the agent, however late that is.
    pub(crate) fn agent_acts(
        &mut self,
        n: usize,
        generation: u64,
        effects: impl IntoIterator<Item = Effect>,
    ) {
        for effect in effects {
            let now = self.now;
            self.remark(|| format!("{now} a{n}: {effect:?}"));
            if self
                .host(n)
                .is_some_and(|host| host.generation == generation)
            {
                self.obey_agent(n, generation, effect);
            }
        }
    }

    fn obey_agent(&mut self, n: usize, generation: u64, effect: Effect) {
        match effect {
            Effect::SpawnWarden { warden, lease } => {
                let secret = format!("{:016x}{:016x}", self.random.any(), n);
                let delay = self.random.between(2 * MILLI, 30 * MILLI);
                if let Some(process) = self.host(n).and_then(|host| host.process.as_mut()) {
                    process.holders.insert(warden, Holder::new(secret));
                }
                if let Some(host) = self.host(n) {
                    host.next_warden = WardenId(warden.0 + 1);
                }
                self.after(delay, Happening::WardenUp(n, generation, warden, lease));
            }
            Effect::Open { warden, lease } => self.open(n, warden, lease),
            Effect::Resume { warden, session } => {
                let process = self.host(n).and_then(|host| host.process.as_ref());
                if let Some(process) = process.map(|process| process.number) {
                    let call = Call::Resume { session, process };
                    self.agent_call(n, warden, What::Resume, call);
                }
            }
            Effect::Follow { warden, opened } => {
                if let Some(holder) = self.host(n).and_then(|host| host.holder(warden)) {
                    holder.opened = Some(opened);
                    holder.followed = true;
                }
                self.renew_soon(n, generation);
                self.poll(n, generation, warden);
            }
            Effect::Keep { warden, kept } => self.keep(n, warden, kept),
            Effect::Arm { warden, deadline } => self.order(n, warden, Order::Arm(deadline)),
            Effect::Start {
                warden,
                run,
                item,
                checkpoint,
            } => {
                let opened = self.host(n).and_then(|host| host.holder(warden));
                let Some(session) = opened.and_then(|holder| holder.opened) else {
                    return;
                };
                let session = session.session;
                let name = format!("{}/{}", item.service, item.key);
                let found = found(checkpoint.as_ref());
                let start = Order::Start {
                    run,
                    session,
                    name,
                    found,
                };
                self.order(n, warden, start);
            }
            Effect::Signal {
                warden,
                run,
                signal,
            } => self.order(n, warden, Order::Signal(run, signal)),
            Effect::WriteData { .. } => {}
            Effect::Checkpoints {
                warden,
                call,
                checkpoints,
            } => self.send_words(n, warden, call, checkpoints),
            Effect::AnswerCheckpoint { ask, outcome } => self.word_answered(n, ask, outcome),
            Effect::Kill { warden, run } => self.order(n, warden, Order::Kill(run)),
            Effect::Forget { warden, run } => self.order(n, warden, Order::Forget(run)),
            Effect::Report { warden, report } => self.report(n, warden, report),
            Effect::Close { warden, reason } => self.close(n, warden, reason),
            Effect::Discard { warden, why: _ } => {
                if let Some(process) = self.host(n).and_then(|host| host.process.as_mut()) {
                    process.holders.remove(&warden);
                }
                self.order(n, warden, Order::End);
            }
            Effect::WakeAt(moment) => {
                let Some(clock) = self.host(n).map(|host| host.clock) else {
                    return;
                };
                let at = clock.when(moment, self.now);
                self.set_agent_alarm(n, generation, at);
            }
            Effect::Done => {
                self.end_agent(n);
                if self.host(n).is_none_or(|host| host.leaving) {
                    return;
                }
                if !self.quiet {
                    let pause = self.random.between(100 * MILLI, 10 * SECOND);
                    self.after(pause, Happening::AgentStarts(n));
                } else {
                    self.after(100 * MILLI, Happening::AgentStarts(n));
                }
            }
        }
    }

    pub(crate) fn agent_call(&mut self, n: usize, warden: WardenId, what: What, call: Call) {
        let Some(generation) = self.host(n).map(|host| host.generation) else {
            return;
        };
        let origin = Origin::Agent {
            host: n,
            generation,
            warden,
            what,
        };
        self.call(origin, call);
    }

    fn open(&mut self, n: usize, warden: WardenId, lease: Duration) {
        let Some(host) = self.host(n) else {
            return;
        };
        let (Ok(name), Some(process)) = (AgentName::new(&host.name), &host.process) else {
            return;
        };
        let Some(holder) = process.holders.get(&warden) else {
            return;
        };
        let call = Call::Register {
            agent: host.info(name),
            lease: LeaseTimes::of(lease),
            secret_hash: holder.secret.clone(),
            process: process.number,
        };
        self.agent_call(n, warden, What::Open, call);
    }

    fn report(&mut self, n: usize, warden: WardenId, report: Report) {
        let what = What::Report(report.sequence);
        self.agent_call(n, warden, what, Call::Report(Box::new(report)));
    }

    fn close(&mut self, n: usize, warden: WardenId, reason: CloseReason) {
        let holder = self.host(n).and_then(|host| host.holder(warden));
        let Some(opened) = holder.and_then(|holder| holder.opened) else {
            return;
        };
        let close = Call::Close {
            session: opened.session,
            incarnation: Some(opened.incarnation),
            reason,
        };
        self.agent_call(n, warden, What::Close, close);
    }

    fn keep(&mut self, n: usize, warden: WardenId, kept: Kept) {
        let holder = self.host(n).and_then(|host| host.holder(warden));
        let Some(secret) = holder.map(|holder| holder.secret.clone()) else {
            return;
        };
        self.order(n, warden, Order::Keep(secret, Box::new(kept)));
    }

    pub(crate) fn agent_answered(
        &mut self,
        host: usize,
        generation: u64,
        warden: WardenId,
        what: What,
        answer: Answer,
    ) {
        if is_over(&answer) {
            let event = match what {
                // Whether the session is over, reports and renewals tell.
                What::Checkpoints(call) => Event::CheckpointsUnanswered { warden, call },
                What::Open => Event::OpenFailed { warden },
                What::Close => Event::Closed { warden },
                What::Resume | What::Report(_) => Event::Lost { warden },
            };
            return self.tell_agent(host, generation, event);
        }
        if !fits(what, &answer) {
            return self.agent_unanswered(host, generation, warden, what);
        }
        let event = match answer {
            Answer::Opened {
                session,
                incarnation,
                lease,
            } => Event::Opened {
                warden,
                opened: Opened {
                    session,
                    incarnation,
                    times: lease,
                    cluster: ClusterId(1),
                },
            },
            Answer::Reported {
                sequence,
                assumed,
                refused,
            } => Event::Reported {
                warden,
                sequence,
                assumed,
                refused: refused.into_iter().map(|(token, _)| token).collect(),
            },
            Answer::Done { .. } => Event::Closed { warden },
            Answer::Checkpoints { kept, .. } => match what {
                What::Checkpoints(call) => Event::CheckpointsAnswered { warden, call, kept },
                What::Open | What::Resume | What::Report(_) | What::Close => return,
            },
            Answer::Refused(_) | Answer::Unknown | Answer::NotLeader { .. } => return,
        };
        self.tell_agent(host, generation, event);
    }

    pub(crate) fn agent_unanswered(
        &mut self,
        host: usize,
        generation: u64,
        warden: WardenId,
        what: What,
    ) {
        let event = match what {
            What::Open | What::Resume => Event::OpenFailed { warden },
            What::Report(sequence) => Event::ReportUnanswered { warden, sequence },
            What::Checkpoints(call) => Event::CheckpointsUnanswered { warden, call },
            What::Close => Event::CloseUnanswered { warden },
        };
        self.tell_agent(host, generation, event);
    }

    /// Renews now rather than later.
    pub(crate) fn renew_soon(&mut self, n: usize, generation: u64) {
        let host = self.host(n).filter(|host| host.generation == generation);
        let Some(process) = host.and_then(|host| host.process.as_mut()) else {
            return;
        };
        process.tick += 1;
        let tick = process.tick;
        let pause = self.random.between(MILLI, 60 * MILLI);
        self.after(pause, Happening::RenewalDue(n, generation, tick));
    }

    /// The renewal thread: one message for all sessions.
    pub(crate) fn renew(&mut self, n: usize, generation: u64, tick: u64) {
        let now = self.now;
        let Some(host) = self
            .hosts
            .get_mut(n)
            .filter(|host| host.generation == generation)
        else {
            return;
        };
        if host.frozen_until > now {
            let thaw = host.frozen_until;
            return self.at(thaw, Happening::RenewalDue(n, generation, tick));
        }
        let (clock, favourite) = (host.clock, host.favourite);
        let Some(process) = host.process.as_mut().filter(|process| process.tick == tick) else {
            return;
        };
        let followed: Vec<(WardenId, Opened)> = process
            .holders
            .iter()
            .filter(|(_, holder)| holder.followed)
            .filter_map(|(warden, holder)| Some((*warden, holder.opened?)))
            .collect();
        let Some(incarnation) = followed.iter().map(|(_, opened)| opened.incarnation).max() else {
            return;
        };
        process.counter += 1;
        let counter = process.counter;
        // R1: the lease counts from here.
        let sent = clock.read(now);
        let renewal = Renewal {
            sessions: followed.iter().map(|(_, opened)| opened.session).collect(),
            incarnation,
            counter,
            nonce: self.random.any(),
            sent_ms: sent.as_nanos() / MILLI,
        };
        let sessions = followed
            .iter()
            .map(|(warden, opened)| (opened.session, *warden));
        let pending = PendingRenewal {
            awaited: true,
            host: n,
            generation,
            renewal: renewal.clone(),
            tries: 0,
            sent,
            arrived: None,
            sessions: sessions.collect(),
        };
        let number = self.number();
        self.renewals.insert(number, pending);
        self.ask_renewal(n, number, favourite, renewal);
    }

    /// Renews again when the shortest class wants it.
    fn renew_later(&mut self, n: usize, generation: u64) {
        let host = self.hosts.get_mut(n);
        let Some(host) = host.filter(|host| host.generation == generation) else {
            return;
        };
        let (clock, now) = (host.clock, self.now);
        let Some(process) = &mut host.process else {
            return;
        };
        let opened = process.holders.values().filter_map(|holder| holder.opened);
        let Some(every) = opened.map(|opened| opened.times.renew_every).min() else {
            return;
        };
        process.tick += 1;
        let due = Happening::RenewalDue(n, generation, process.tick);
        self.at(clock.when(clock.read(now) + every, now), due);
    }

    pub(crate) fn agent_renewed(
        &mut self,
        pending: &PendingRenewal,
        renewed: &[SessionId],
        lost: &[(SessionId, String)],
    ) {
        let sent: Moment = pending.sent;
        self.renew_later(pending.host, pending.generation);
        for session in renewed {
            if let Some(&warden) = pending.sessions.get(session) {
                let event = Event::Renewed { warden, sent };
                self.tell_agent(pending.host, pending.generation, event);
            }
        }
        for (session, _) in lost {
            if let Some(&warden) = pending.sessions.get(session) {
                let event = Event::Lost { warden };
                self.tell_agent(pending.host, pending.generation, event);
            }
        }
    }

    /// Asks some director for news of a session.
    fn poll(&mut self, n: usize, generation: u64, warden: WardenId) {
        let number = self.number();
        let director = if self.random.permille(300) {
            self.any_director()
        } else {
            self.host(n).map_or(0, |host| host.favourite)
        };
        let Some(holder) = self
            .host(n)
            .filter(|host| host.generation == generation)
            .and_then(|host| host.holder(warden))
        else {
            return;
        };
        let Some(opened) = holder.opened else {
            return;
        };
        holder.poll = number;
        let poll = Poll {
            number,
            host: n,
            generation,
            warden,
            session: opened.session,
            since: holder.index,
        };
        let arrives = Happening::PollArrives(director, poll);
        self.send(Party::Host(n), Party::Director(director), arrives);
        self.after(POLL_WITHIN, Happening::PollTimedOut(poll));
    }

    fn is_current(&mut self, poll: &Poll) -> bool {
        let host = self.host(poll.host);
        let host = host.filter(|host| host.generation == poll.generation);
        let holder = host.and_then(|host| host.holder(poll.warden));
        holder.is_some_and(|holder| holder.poll == poll.number)
    }

    pub(crate) fn poll_timed_out(&mut self, poll: Poll) {
        if self.is_current(&poll) {
            self.poll(poll.host, poll.generation, poll.warden);
        }
    }

    pub(crate) fn poll_answered(&mut self, poll: Poll, answer: PollAnswer) {
        if !self.is_current(&poll) {
            return;
        }
        let frozen = self.host(poll.host).map(|host| host.frozen_until);
        if let Some(thaw) = frozen.filter(|thaw| *thaw > self.now) {
            return self.at(thaw, Happening::PollAnswered(poll, Box::new(answer)));
        }
        let (n, generation, warden) = (poll.host, poll.generation, poll.warden);
        self.tell_agent(n, generation, Event::Classes(answer.leases));
        if let Some(delta) = answer.work {
            let holder = self.host(n).and_then(|host| host.holder(warden));
            if let Some(holder) = holder {
                holder.index = delta.index;
                let work = translate(holder, delta);
                self.tell_agent(n, generation, Event::Work { warden, work });
            }
        }
        self.poll(n, generation, warden);
    }
}

fn translate(holder: &mut Holder, delta: WorkDelta) -> Work {
    for service in delta.services {
        let name = (service.service, service.spec_version);
        if holder.services.contains_key(&name) {
            continue;
        }
        if let Ok(read) = Service::new((*service.spec).clone()) {
            holder.services.insert(name, Arc::new(read));
        }
    }
    let items = delta.items.into_iter();
    Work {
        whole: delta.whole,
        items: items.filter_map(|item| to_item(holder, item)).collect(),
        gone: delta.gone,
    }
}

fn to_item(holder: &Holder, item: WorkItem) -> Option<Item> {
    let how = holder
        .services
        .get(&(item.service.clone(), item.spec_version))?;
    Some(Item {
        partition: item.partition,
        token: item.token,
        wanted: match item.state {
            WorkState::Assigned | WorkState::Assumed => Wanted::Running,
            WorkState::Stopping => Wanted::Stopped,
        },
        service: item.service,
        key: item.key,
        data: item.data,
        data_version: item.data_version.0,
        restarts_asked: item.restarts_asked,
        failures: item.failures,
        checkpoint: item.checkpoint.map(|checkpoint| Latest {
            token: checkpoint.token,
            number: checkpoint.number,
            content: checkpoint.content,
        }),
        how: Arc::clone(how),
    })
}

fn found_runs(warden: &Warden) -> Vec<FoundRun> {
    let runs = warden.runs.iter();
    runs.map(|(run, model)| FoundRun {
        run: *run,
        pid: model.pid,
        ended: model.ended,
    })
    .collect()
}
