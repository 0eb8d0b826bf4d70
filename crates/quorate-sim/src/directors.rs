//! Directors: the machine, the model of what its shell does, and the calls that reach it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_core::agent::WardenId;
use quorate_core::director::call::{Answer, Call, CallId, Refusal, Renewal, RenewalAnswer};
use quorate_core::director::effect::Effect;
use quorate_core::director::event::{AppendOutcome, Event, Now, ProofId, ReadOutcome};
use quorate_core::director::{Config, Director, WorkDelta};
use quorate_core::ids::{DirectorName, Epoch, Position, SessionId};
use quorate_core::planner::PlannerConfig;
use quorate_core::spec::validate::TAKEOVER_MAX;
use quorate_core::time::WallTime;

use crate::clock::{Clock, MILLI, SECOND};
use crate::random::Random;
use crate::world::{Happening, Origin, Party, Pending, What, World};

/// How long a caller waits for the answer to a call.
const CALL_WITHIN: u64 = 2 * SECOND;
/// How long a director holds a poll back.
const POLL_HELD: u64 = SECOND;
/// Directors that one call asks, at most.
const HOPS_MAX: u32 = 5;

/// One director.
pub(crate) struct DirectorNode {
    pub(crate) machine: Option<Director>,
    /// Rises with every process; what was meant for an earlier one is lost.
    pub(crate) generation: u64,
    pub(crate) clock: Clock,
    /// Polls that wait for news.
    polls: BTreeMap<u64, Poll>,
    leads: bool,
}

/// A long poll for work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Poll {
    pub(crate) number: u64,
    pub(crate) host: usize,
    pub(crate) generation: u64,
    pub(crate) warden: WardenId,
    pub(crate) session: SessionId,
    pub(crate) since: Position,
}

/// Its answer.
#[derive(Clone, Debug)]
pub(crate) struct PollAnswer {
    pub(crate) work: Option<WorkDelta>,
    pub(crate) leases: Vec<Duration>,
}

impl DirectorNode {
    pub(crate) fn new(random: &mut Random) -> Self {
        Self {
            machine: None,
            generation: 0,
            clock: draw_clock(random),
            polls: BTreeMap::new(),
            leads: false,
        }
    }
}

/// A clock within what model M allows: the bound is one percent.
pub(crate) fn draw_clock(random: &mut Random) -> Clock {
    Clock {
        offset: random.between(SECOND, 1_000_000 * SECOND),
        rate_millionths: random.between(990_100, 1_009_900),
    }
}

fn address(n: usize) -> String {
    format!("d{n}:7400")
}

fn at_address(address: &str) -> Option<usize> {
    let digits = address.strip_prefix('d')?.strip_suffix(":7400")?;
    digits.parse().ok()
}

impl World {
    fn node(&mut self, n: usize) -> Option<&mut DirectorNode> {
        self.directors.get_mut(n)
    }

    pub(crate) fn start_director(&mut self, n: usize) {
        let writer = self.random.any();
        let Ok(name) = DirectorName::new(&format!("d{n}")) else {
            return;
        };
        let config = Config {
            name,
            id: n as u64 + 1,
            writer,
            address: address(n),
            queue_max: 1_000,
            snapshot_every: 60,
            takeover: TAKEOVER_MAX,
            planner: PlannerConfig {
                settle: Duration::from_secs(1),
                ..PlannerConfig::default()
            },
            fences: BTreeSet::new(),
        };
        let snapshot = self.ledger.snapshot();
        let Some(node) = self.node(n).filter(|node| node.machine.is_none()) else {
            return;
        };
        node.machine = Some(Director::new(config));
        node.generation += 1;
        node.leads = false;
        if let Some((next, bytes)) = snapshot {
            self.step_director(n, Event::Reset { next, bytes });
        }
        let occupied = self.ledger.last();
        let should_lead = Some(false);
        self.step_director(
            n,
            Event::Hint {
                should_lead,
                occupied,
            },
        );
    }

    pub(crate) fn crash_director(&mut self, n: usize) {
        let Some(node) = self.node(n) else {
            return;
        };
        node.machine = None;
        node.generation += 1;
        node.polls.clear();
        let pause = self.random.between(50 * MILLI, 5 * SECOND);
        self.after(pause, Happening::DirectorStarts(n));
        let election = self.random.between(150 * MILLI, SECOND);
        self.after(election, Happening::ChooseLeader);
    }

    pub(crate) fn tell_director(&mut self, n: usize, generation: u64, event: Event) {
        let same = self
            .node(n)
            .is_some_and(|node| node.generation == generation);
        if same {
            self.step_director(n, event);
        }
    }

    /// One fact, and the orders that follow.
    fn step_director(&mut self, n: usize, event: Event) {
        let now = self.now;
        let Some(node) = self.directors.get_mut(n) else {
            return;
        };
        let (clock, generation) = (node.clock, node.generation);
        let Some(machine) = &mut node.machine else {
            return;
        };
        let mut effects = Vec::new();
        let wall = WallTime(i64::try_from(now.0 / MILLI).unwrap_or(i64::MAX));
        let moment = clock.read(now);
        machine.step(Now { moment, wall }, event, &mut effects);
        let folded = effects
            .iter()
            .any(|effect| matches!(effect, Effect::Changed { .. } | Effect::Replaced { .. }));
        if folded {
            let (position, hash) = (machine.cluster().position(), machine.cluster().state_hash());
            let broken = machine.cluster().check();
            if let Some(first) = broken.first() {
                let seen = format!("director {n} at {position}: {first}");
                self.oracle.blame("S8", seen);
            }
            self.oracle.folded(n, position, hash);
        }
        for effect in effects {
            self.obey_director(n, generation, clock, effect);
        }
        if folded {
            self.tell_news(n);
        }
    }

    fn obey_director(&mut self, n: usize, generation: u64, clock: Clock, effect: Effect) {
        match effect {
            Effect::Append {
                append,
                position,
                epoch,
                bytes,
            } => {
                let fate = self.fate(n);
                let answered = fate == Fate::Works;
                let order = Happening::Append {
                    director: n,
                    generation,
                    append,
                    position,
                    epoch,
                    bytes,
                    answered,
                };
                let unanswered = if fate == Fate::Refused {
                    AppendOutcome::Refused
                } else {
                    AppendOutcome::Unknown
                };
                let event = Event::AppendAnswered {
                    append,
                    outcome: unanswered,
                };
                self.with_fate(fate, n, generation, Some(order), event);
            }
            Effect::ProveTail { proof } => {
                let fate = self.fate(n);
                let order = Happening::Tail(n, generation, proof);
                let event = Event::TailAnswered { proof, tail: None };
                let order = (fate == Fate::Works).then_some(order);
                self.with_fate(fate, n, generation, order, event);
            }
            Effect::Read { from } => {
                let fate = self.fate(n);
                let order = Happening::Read(n, generation, from);
                let outcome = ReadOutcome::Failed;
                let event = Event::ReadAnswered { from, outcome };
                let order = (fate == Fate::Works).then_some(order);
                self.with_fate(fate, n, generation, order, event);
            }
            // No service of the simulation names a hook.
            Effect::Fence { .. } => {}
            Effect::LoadSnapshot => {
                let delay = self.delay();
                self.after(delay, Happening::LoadSnapshot(n, generation));
            }
            Effect::SaveSnapshot { next, bytes } => {
                let delay = self.delay();
                self.after(delay, Happening::SaveSnapshot(next, bytes));
            }
            Effect::Answer { id, answer } => {
                if let Answer::Done { position, .. } = &answer {
                    self.oracle.acknowledged(*position);
                }
                let Some(number) = self.arrivals.remove(&id.0) else {
                    return;
                };
                let Some(to) = self.calls.get(&number).map(|call| party(&call.origin)) else {
                    return;
                };
                let answered = Happening::CallAnswered(number, Box::new(answer));
                self.send(Party::Director(n), to, answered);
            }
            Effect::AnswerRenewal { id, answer } => {
                let Some(number) = self.arrivals.remove(&id.0) else {
                    return;
                };
                let Some(host) = self.renewals.get(&number).map(|renewal| renewal.host) else {
                    return;
                };
                let answered = Happening::RenewalAnswered(number, answer);
                self.send(Party::Director(n), Party::Host(host), answered);
            }
            Effect::WakeAt(moment) => {
                let at = clock.when(moment, self.now);
                let woke = Happening::Director(n, generation, Box::new(Event::Woke));
                self.at(at, woke);
            }
            Effect::Changed { .. } | Effect::Replaced { .. } => {}
            Effect::Halt { reason } => {
                let seen = format!("director {n} stopped for ever: {reason}");
                self.oracle.blame("L1", seen);
            }
        }
    }

    /// What becomes of a question to the ledger.
    fn fate(&mut self, n: usize) -> Fate {
        let cut = self.cuts.contains(&(Party::Director(n), Party::Ledger));
        if cut {
            return Fate::Lost;
        }
        if self.quiet || !self.random.permille(self.profile.ledger) {
            return Fate::Works;
        }
        let fates = [Fate::Lost, Fate::Unanswered, Fate::Late, Fate::Refused];
        self.random.pick(&fates).unwrap_or(Fate::Works)
    }

    fn with_fate(
        &mut self,
        fate: Fate,
        n: usize,
        generation: u64,
        order: Option<Happening>,
        unanswered: Event,
    ) {
        let arrives = self.delay();
        let gives_up = self.random.between(50 * MILLI, SECOND);
        let failed = Happening::Director(n, generation, Box::new(unanswered));
        match fate {
            Fate::Works => {
                if let Some(order) = order {
                    self.after(arrives, order);
                }
                return;
            }
            Fate::Unanswered => {
                if let Some(order) = order {
                    self.after(arrives, order);
                }
            }
            Fate::Late => {
                let late = gives_up + self.random.below(3 * SECOND);
                if let Some(order) = order {
                    self.after(late, order);
                }
            }
            Fate::Lost | Fate::Refused => {}
        }
        self.after(gives_up, failed);
    }

    pub(crate) fn append(&mut self, at: Position, epoch: Epoch, bytes: Vec<u8>) -> AppendOutcome {
        let outcome = self.ledger.append(at, epoch, bytes.clone());
        if outcome == AppendOutcome::Appended {
            self.oracle.committed(at, &bytes);
            for n in 0..self.directors.len() {
                self.hint(n, None);
            }
        }
        outcome
    }

    fn hint(&mut self, n: usize, should_lead: Option<bool>) {
        let occupied = self.ledger.last();
        let Some(generation) = self.node(n).map(|node| node.generation) else {
            return;
        };
        let event = Event::Hint {
            should_lead,
            occupied,
        };
        let hint = Happening::Director(n, generation, Box::new(event));
        self.send(Party::Ledger, Party::Director(n), hint);
    }

    pub(crate) fn answer_tail(&mut self, n: usize, generation: u64, proof: ProofId) {
        let tail = Some(self.ledger.tail());
        let event = Box::new(Event::TailAnswered { proof, tail });
        let delay = self.delay();
        self.after(delay, Happening::Director(n, generation, event));
    }

    pub(crate) fn answer_read(&mut self, n: usize, generation: u64, from: Position) {
        let outcome = self.ledger.read(from);
        let event = Box::new(Event::ReadAnswered { from, outcome });
        let delay = self.delay();
        self.after(delay, Happening::Director(n, generation, event));
    }

    pub(crate) fn answer_load(&mut self, n: usize, generation: u64) {
        let delay = self.delay();
        match self.ledger.snapshot() {
            Some((next, bytes)) => {
                let event = Box::new(Event::Reset { next, bytes });
                self.after(delay, Happening::Director(n, generation, event));
            }
            None => self.after(200 * MILLI, Happening::LoadSnapshot(n, generation)),
        }
    }

    /// Tells the directors who should lead. While faults happen some do not hear it, and two may
    /// believe it at once.
    pub(crate) fn choose_leader(&mut self) {
        let alive: Vec<usize> = (0..self.directors.len())
            .filter(|n| {
                self.directors
                    .get(*n)
                    .is_some_and(|node| node.machine.is_some())
            })
            .collect();
        let present = alive
            .iter()
            .copied()
            .find(|n| self.directors.get(*n).is_some_and(|node| node.leads));
        let chosen = if self.quiet && present.is_some() {
            present
        } else {
            self.random.pick(&alive)
        };
        for n in 0..self.directors.len() {
            let leads = Some(n) == chosen;
            if let Some(node) = self.node(n) {
                node.leads = leads;
            }
            self.hint(n, Some(leads));
        }
        let again = if self.quiet {
            2 * SECOND
        } else {
            self.random.between(SECOND / 2, self.profile.leader_stays)
        };
        self.after(again, Happening::ChooseLeader);
    }

    /// Makes a call.
    pub(crate) fn call(&mut self, origin: Origin, call: Call) {
        let number = self.number();
        let pending = Pending {
            origin,
            call,
            hops: 0,
        };
        self.calls.insert(number, pending);
        let n = self.favourite(&origin);
        self.ask(number, n);
        self.after(CALL_WITHIN, Happening::CallTimedOut(number));
    }

    fn ask(&mut self, number: u64, n: usize) {
        let Some(from) = self.calls.get(&number).map(|call| party(&call.origin)) else {
            return;
        };
        let arrives = Happening::CallArrives(n, number);
        self.send(from, Party::Director(n), arrives);
    }

    fn favourite(&mut self, origin: &Origin) -> usize {
        match origin {
            Origin::Agent { host, .. } | Origin::LastWill { host, .. } => {
                self.hosts.get(*host).map_or(0, |host| host.favourite)
            }
            Origin::Operator => self.any_director(),
        }
    }

    pub(crate) fn any_director(&mut self) -> usize {
        let n = self.random.below(self.directors.len() as u64);
        usize::try_from(n).unwrap_or(0)
    }

    pub(crate) fn call_arrives(&mut self, n: usize, number: u64) {
        let Some(call) = self.calls.get(&number).map(|pending| pending.call.clone()) else {
            return;
        };
        let id = self.number();
        self.arrivals.insert(id, number);
        let id = CallId(id);
        self.step_director(n, Event::Asked { id, call });
    }

    pub(crate) fn call_answered(&mut self, number: u64, answer: Answer) {
        let Some(pending) = self.calls.get_mut(&number) else {
            return;
        };
        if let Answer::NotLeader { leader } = &answer {
            pending.hops += 1;
            let (origin, hops) = (pending.origin, pending.hops);
            if hops > HOPS_MAX {
                return self.call_failed(number);
            }
            let known = leader.as_deref().and_then(at_address);
            let next = match known {
                Some(next) => next,
                None => self.any_director(),
            };
            self.prefer(&origin, next);
            return self.ask(number, next);
        }
        let Some(pending) = self.calls.remove(&number) else {
            return;
        };
        match pending.origin {
            Origin::Agent {
                host,
                generation,
                warden,
                what,
            } => self.agent_answered(host, generation, warden, what, answer),
            Origin::LastWill {
                host,
                session,
                tries,
            } => match answer {
                Answer::Done { .. } | Answer::Refused(_) => {}
                Answer::Opened { .. }
                | Answer::Reported { .. }
                | Answer::Checkpoints { .. }
                | Answer::Unknown
                | Answer::NotLeader { .. } => {
                    self.after(SECOND, Happening::LastWill(host, session, tries + 1));
                }
            },
            Origin::Operator => self.operator_answered(&answer),
        }
    }

    fn prefer(&mut self, origin: &Origin, n: usize) {
        if let Origin::Agent { host, .. } | Origin::LastWill { host, .. } = origin
            && let Some(host) = self.hosts.get_mut(*host)
        {
            host.favourite = n;
        }
    }

    pub(crate) fn call_failed(&mut self, number: u64) {
        let Some(pending) = self.calls.remove(&number) else {
            return;
        };
        let n = self.any_director();
        self.prefer(&pending.origin, n);
        match pending.origin {
            Origin::Agent {
                host,
                generation,
                warden,
                what,
            } => self.agent_unanswered(host, generation, warden, what),
            Origin::LastWill {
                host,
                session,
                tries,
            } => {
                self.after(SECOND / 2, Happening::LastWill(host, session, tries + 1));
            }
            Origin::Operator => self.operator_answered(&Answer::Unknown),
        }
    }

    pub(crate) fn renewal_arrives(&mut self, n: usize, number: u64, renewal: Renewal) {
        let id = self.number();
        self.arrivals.insert(id, number);
        let id = CallId(id);
        self.step_director(n, Event::Renewed { id, renewal });
    }

    pub(crate) fn renewal_answered(&mut self, number: u64, answer: RenewalAnswer) {
        let Some(pending) = self.renewals.remove(&number) else {
            return;
        };
        match answer {
            RenewalAnswer::Answered { renewed, lost } => {
                self.agent_renewed(&pending, &renewed, &lost);
            }
            RenewalAnswer::NotLeader { leader } => {
                let known = leader.as_deref().and_then(at_address);
                let next = match known {
                    Some(next) => next,
                    None => self.any_director(),
                };
                if let Some(host) = self.hosts.get_mut(pending.host) {
                    host.favourite = next;
                }
                self.renew_soon(pending.host, pending.generation);
            }
        }
    }

    pub(crate) fn renewal_failed(&mut self, number: u64) {
        let Some(pending) = self.renewals.remove(&number) else {
            return;
        };
        let n = self.any_director();
        if let Some(host) = self.hosts.get_mut(pending.host) {
            host.favourite = n;
        }
        self.renew_soon(pending.host, pending.generation);
    }

    pub(crate) fn poll_arrives(&mut self, n: usize, poll: Poll) {
        if !self.answer_poll(n, &poll, false)
            && let Some(node) = self.node(n).filter(|node| node.machine.is_some())
        {
            node.polls.insert(poll.number, poll);
            self.after(POLL_HELD, Happening::PollHeld(n, poll.number));
        }
    }

    pub(crate) fn poll_held(&mut self, n: usize, number: u64) {
        let poll = self.node(n).and_then(|node| node.polls.remove(&number));
        if let Some(poll) = poll {
            self.answer_poll(n, &poll, true);
        }
    }

    /// Answers a poll when there is news, or it has waited for long enough.
    fn answer_poll(&mut self, n: usize, poll: &Poll, anyway: bool) -> bool {
        let machine = self.directors.get(n).and_then(|node| node.machine.as_ref());
        let Some(machine) = machine else {
            return false;
        };
        let work = machine.work(poll.session, poll.since);
        if work.is_none() && !anyway {
            return false;
        }
        let services = machine.cluster().services();
        let leases: BTreeSet<Duration> = services
            .filter(|(_, service)| !service.removed())
            .map(|(_, service)| service.spec().lease_class())
            .collect();
        let leases = leases.into_iter().collect();
        let answer = Box::new(PollAnswer { work, leases });
        let answered = Happening::PollAnswered(*poll, answer);
        self.send(Party::Director(n), Party::Host(poll.host), answered);
        true
    }

    fn tell_news(&mut self, n: usize) {
        let polls = self.node(n).map(|node| std::mem::take(&mut node.polls));
        for (number, poll) in polls.into_iter().flatten() {
            if !self.answer_poll(n, &poll, false)
                && let Some(node) = self.node(n)
            {
                node.polls.insert(number, poll);
            }
        }
    }
}

/// What becomes of a question to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is done and answered.
    Works,
    /// It never arrives.
    Lost,
    /// It is done and the answer is lost.
    Unanswered,
    /// It is done after nobody waits any more.
    Late,
    /// It is refused.
    Refused,
}

fn party(origin: &Origin) -> Party {
    match origin {
        Origin::Agent { host, .. } | Origin::LastWill { host, .. } => Party::Host(*host),
        Origin::Operator => Party::Operator,
    }
}

/// Whether an answer means that a session is over for this process.
pub(crate) fn is_over(answer: &Answer) -> bool {
    match answer {
        Answer::Refused(Refusal::Fenced(_) | Refusal::NotFound { .. }) => true,
        Answer::Refused(
            Refusal::Conflict(_)
            | Refusal::Condition(_)
            | Refusal::Invalid(_)
            | Refusal::Overloaded,
        )
        | Answer::Done { .. }
        | Answer::Opened { .. }
        | Answer::Reported { .. }
        | Answer::Checkpoints { .. }
        | Answer::Unknown
        | Answer::NotLeader { .. } => false,
    }
}

/// Whether a call of an agent may be answered by this.
pub(crate) fn fits(what: What, answer: &Answer) -> bool {
    match (what, answer) {
        (What::Open | What::Resume, Answer::Opened { .. })
        | (What::Report(_), Answer::Reported { .. })
        | (What::Close, Answer::Done { .. }) => true,
        (What::Open | What::Resume | What::Report(_) | What::Close, _) => false,
    }
}
