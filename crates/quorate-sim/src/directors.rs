//! Directors: the machine, the model of what its shell does, and the calls that reach it.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::agent::WardenId;
use quorate_core::director::effect::Effect;
use quorate_core::director::event::{AppendOutcome, Event, Now, ProofId, ReadOutcome};
use quorate_core::director::{
    Config, Director, GATHER_OVER_STORE, GATHER_RENEWALS, Role, SILENCE, Shared, TAKEOVER,
    WorkDelta,
};
use quorate_core::format::FORMATS;
use quorate_core::ids::{DirectorName, Epoch, HookName, Position, SessionId};
use quorate_core::planner::PlannerConfig;
use quorate_core::spec::validate::TAKEOVER_MAX;
use quorate_core::time::WallTime;

use crate::bug::Bug;
use crate::calls::party;
use crate::clock::{Clock, Instant, MILLI, SECOND};
use crate::hooks::HOOKS;
use crate::profile::Profile;
use crate::random::Random;
use crate::trip::Trip;
use crate::world::{Arrival, Happening, Party, World};

/// Certainly longer than others wait for it.
pub(crate) const UNHEARD: u64 = 3 * SECOND;

/// One director.
pub(crate) struct DirectorNode {
    pub(crate) machine: Option<Director>,
    /// Rises with every process; what was meant for an earlier one is lost.
    pub(crate) generation: u64,
    /// Processes before this one have used a ledger that is lost: what they want of it reaches nobody.
    pub(crate) reaches_from: u64,
    pub(crate) clock: Clock,
    /// What its wall clock shows beside the true time, in milliseconds.
    pub(crate) wall_offset: i64,
    /// Its process is stopped until then.
    pub(crate) frozen_until: Instant,
    trip: Option<Trip>,
    /// When it wants to be woken: the last order counts.
    wake: Option<Instant>,
    /// Polls that wait for news.
    pub(crate) polls: BTreeMap<u64, HeldPoll>,
    /// Whether the ledger believes that it should lead.
    pub(crate) leads: bool,
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

/// One that a director holds back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldPoll {
    pub(crate) poll: Poll,
    /// As of this position there was nothing new for it.
    pub(crate) looked: Position,
}

/// Its answer.
#[derive(Clone, Debug)]
pub(crate) struct PollAnswer {
    pub(crate) work: Option<WorkDelta>,
    pub(crate) leases: Vec<Duration>,
}

impl DirectorNode {
    pub(crate) fn new(random: &mut Random, profile: &Profile) -> Self {
        Self {
            machine: None,
            generation: 0,
            reaches_from: 0,
            clock: profile.director_clock(random),
            wall_offset: 0,
            frozen_until: Instant::default(),
            trip: None,
            wake: None,
            polls: BTreeMap::new(),
            leads: false,
        }
    }
}

fn address(n: usize) -> String {
    format!("d{n}:7400")
}

impl World {
    pub(crate) fn node(&mut self, n: usize) -> Option<&mut DirectorNode> {
        self.directors.get_mut(n)
    }

    pub(crate) fn start_director(&mut self, n: usize) {
        let writer = self.random.any();
        let Ok(name) = DirectorName::new(&format!("d{n}")) else {
            return;
        };
        let shared = self.profile.shared.then_some(Shared {
            silence: SILENCE,
            folded: None,
            stopped: false,
        });
        let config = Config {
            name,
            id: n as u64 + 1,
            writer,
            address: address(n),
            formats: FORMATS,
            queue_max: 1_000,
            snapshot_every: self.profile.snapshot_every,
            shared,
            takeover: self.takeover(),
            gather_renewals: if self.profile.shared {
                GATHER_OVER_STORE
            } else {
                GATHER_RENEWALS
            },
            planner: PlannerConfig {
                settle: Duration::from_secs(1),
                ..PlannerConfig::default()
            },
            // Elsewhere clocks differ by as much as the model allows, all the time.
            drain_drifting: !self.profile.clocks_within,
            fences: HOOKS.into_iter().flat_map(HookName::new).collect(),
        };
        let plants = self.bug.map(Bug::plants).unwrap_or_default();
        let hinted = !self.profile.shared;
        // One that has nothing finds the beginning trimmed away, and has a snapshot sent.
        let fresh = self.random.permille(300);
        let snapshot = self.ledger.snapshot().filter(|_| !fresh);
        let Some(node) = self.node(n).filter(|node| node.machine.is_none()) else {
            return;
        };
        node.machine = Some(Director::new(config).with_plants(plants));
        node.generation += 1;
        node.leads = false;
        if let Some((next, bytes)) = snapshot {
            self.step_director(n, Event::Reset { next, bytes });
        }
        let occupied = self.ledger.last();
        let should_lead = hinted.then_some(false);
        self.step_director(
            n,
            Event::Hint {
                should_lead,
                occupied,
            },
        );
    }

    pub(crate) fn crash_director(&mut self, n: usize, rest: u64) {
        let Some(node) = self.node(n) else {
            return;
        };
        let led = node.leads;
        node.machine = None;
        node.generation += 1;
        node.frozen_until = Instant::default();
        node.trip = None;
        node.wake = None;
        node.leads = false;
        node.polls.clear();
        self.after(rest, Happening::DirectorStarts(n));
        if led {
            let election = self.random.between(150 * MILLI, SECOND);
            self.after(election, Happening::ChooseLeader(false));
        }
    }

    pub(crate) fn freeze_director(&mut self, n: usize, until: Instant) {
        let now = self.now;
        let awake = |node: &&mut DirectorNode| node.machine.is_some() && node.frozen_until <= now;
        let Some(node) = self.node(n).filter(awake) else {
            return;
        };
        node.frozen_until = until;
        // Others notice that it is silent and choose another one.
        if node.leads {
            let election = self.random.between(150 * MILLI, SECOND);
            self.after(election, Happening::ChooseLeader(false));
        }
    }

    pub(crate) fn trip_director(&mut self, n: usize, trip: Option<Trip>) {
        if let Some(node) = self.node(n) {
            node.trip = trip;
        }
    }

    pub(crate) fn tell_director(&mut self, n: usize, generation: u64, event: Event) {
        let same = self
            .node(n)
            .is_some_and(|node| node.generation == generation);
        if same {
            self.step_director(n, event);
        }
    }

    /// The time may have come at which a director wants to be woken, unless it has ordered another one since.
    pub(crate) fn director_alarm(&mut self, n: usize, generation: u64) {
        let now = self.now;
        let node = self.node(n).filter(|node| node.generation == generation);
        if node.is_some_and(|node| node.wake.take_if(|at| *at <= now).is_some()) {
            self.step_director(n, Event::Woke);
        }
    }

    /// One fact, and the orders that follow.
    pub(crate) fn step_director(&mut self, n: usize, event: Event) {
        let now = self.now;
        let Some(node) = self.directors.get_mut(n) else {
            return;
        };
        let generation = node.generation;
        if node.frozen_until > now {
            let thaw = node.frozen_until;
            return self.at(thaw, Happening::Director(n, generation, Box::new(event)));
        }
        let Some(machine) = &mut node.machine else {
            return;
        };
        let mut effects = std::mem::take(&mut self.spare.director);
        let wall = i64::try_from(now.0 / MILLI).unwrap_or(i64::MAX);
        let wall = WallTime(wall.saturating_add(node.wall_offset));
        let moment = node.clock.read(now);
        machine.step(Now { moment, wall }, event, &mut effects);
        let folded = effects
            .iter()
            .any(|effect| matches!(effect, Effect::Changed { .. } | Effect::Replaced { .. }));
        if folded {
            self.look_at_fold(n);
        }
        let Some(node) = self.directors.get_mut(n) else {
            return;
        };
        let tripped = Trip::split(&mut node.trip, &mut effects);
        for effect in effects.drain(..) {
            self.obey_director(n, generation, effect);
        }
        self.spare.director = effects;
        match tripped {
            Some((Trip { freeze: None, .. }, _)) => {
                let rest = self.random.between(50 * MILLI, 5 * SECOND);
                return self.crash_director(n, rest);
            }
            Some((
                Trip {
                    freeze: Some(lasts),
                    ..
                },
                rest,
            )) => {
                let until = now + lasts;
                self.at(until, Happening::DirectorActs(n, generation, rest));
                self.freeze_director(n, until);
            }
            None => {}
        }
        if folded {
            self.tell_news(n);
        }
    }

    /// Compares what a director has folded with the others. In a large cluster not after every entry.
    fn look_at_fold(&mut self, n: usize) {
        let node = self.directors.get(n);
        let Some(machine) = node.and_then(|node| node.machine.as_ref()) else {
            return;
        };
        let cluster = machine.cluster();
        let position = cluster.position();
        let every = (cluster.partition_count() as u64 / 8).max(1);
        // By the position alone, so that all directors are looked at in the same ones.
        if !position.0.is_multiple_of(every.next_power_of_two()) {
            return;
        }
        let hash = cluster.state_hash();
        if !self.oracle.folded(n, position, hash) {
            return;
        }
        // Whoever has the same hash there has the same state, so one look at it is enough.
        let broken = cluster.check();
        if let Some(first) = broken.first() {
            let seen = format!("director {n} at {position}: {first}");
            self.oracle.blame("S8", seen);
        }
    }

    /// What a stopped director had decided is carried out now, however late that is.
    pub(crate) fn director_acts(&mut self, n: usize, generation: u64, effects: Vec<Effect>) {
        if self
            .node(n)
            .is_some_and(|node| node.generation == generation)
        {
            for effect in effects {
                self.obey_director(n, generation, effect);
            }
        }
    }

    fn obey_director(&mut self, n: usize, generation: u64, effect: Effect) {
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
            Effect::Fence {
                session,
                agent,
                hook,
            } => self.run_hook(n, generation, (session, agent, hook)),
            Effect::LoadSnapshot => {
                let delay = self.delay();
                self.after(delay, Happening::LoadSnapshot(n, generation));
            }
            Effect::SaveSnapshot { next, bytes } => {
                let delay = self.delay();
                self.after(delay, Happening::SaveSnapshot(n, generation, next, bytes));
            }
            Effect::Answer { id, answer } => {
                let Some(Arrival { number, noted }) = self.arrivals.remove(&id.0) else {
                    return;
                };
                let Some(pending) = self.calls.get(&number) else {
                    return;
                };
                let (to, agent) = (party(&pending.origin), self.agent_of(&pending.origin));
                let agent = agent.map(str::to_owned);
                let call = &pending.call;
                self.oracle.answered(agent.as_deref(), noted, call, &answer);
                let answered = Happening::CallAnswered(number, Box::new(answer));
                self.send(Party::Director(n), to, answered);
            }
            Effect::AnswerRenewal { id, answer } => {
                let Some(Arrival { number, noted }) = self.arrivals.remove(&id.0) else {
                    return;
                };
                let Some(renewal) = self.renewals.get(&number) else {
                    return;
                };
                let host = renewal.host;
                let attempt = (renewal.renewal.incarnation, renewal.renewal.counter);
                self.oracle.renewed(noted, attempt, &answer);
                let answered = Happening::RenewalAnswered(number, answer);
                self.send(Party::Director(n), Party::Host(host), answered);
            }
            Effect::WakeAt(moment) => {
                let now = self.now;
                let Some(node) = self.node(n) else {
                    return;
                };
                let at = node.clock.when(moment, now);
                node.wake = Some(at);
                self.at(at, Happening::DirectorAlarm(n, generation));
            }
            Effect::Changed { .. } | Effect::Replaced { .. } => {}
            Effect::Halt { reason, why: _ } => {
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
        let mut arrives = self.delay();
        if self.ledger_slow_until > self.now {
            arrives += self.random.below(2 * SECOND);
        }
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
            let now = self.now;
            self.remark(|| format!("{now} entry {at}: {}", told(&bytes)));
            self.oracle.committed(now, at, &bytes);
            for n in 0..self.directors.len() {
                self.hint(n, None);
            }
        }
        outcome
    }

    /// Whether what a process wants of the ledger reaches the one that there is.
    pub(crate) fn reaches(&self, n: usize, generation: u64) -> bool {
        let node = self.directors.get(n);
        node.is_some_and(|node| generation >= node.reaches_from)
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
        // What it says to whoever leads proves that it does at this moment.
        self.oracle.leader_proven(self.now, n);
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
    pub(crate) fn choose_leader(&mut self, again: bool) {
        if self.profile.shared {
            return;
        }
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
        if alive.is_empty() && !again {
            return self.after(200 * MILLI, Happening::ChooseLeader(false));
        }
        let stays = (self.quiet || self.profile.gentle) && present.is_some();
        let chosen = if stays {
            present
        } else {
            self.random.pick(&alive)
        };
        self.choose(chosen);
        if !again {
            return;
        }
        let again = if self.quiet {
            2 * SECOND
        } else {
            self.random.between(SECOND / 2, self.profile.leader_stays)
        };
        self.after(again, Happening::ChooseLeader(true));
    }

    fn choose(&mut self, chosen: Option<usize>) {
        for n in 0..self.directors.len() {
            let leads = Some(n) == chosen;
            if let Some(node) = self.node(n) {
                node.leads = leads;
            }
            self.hint(n, Some(leads));
        }
    }

    /// How long a change of leader takes at most.
    pub(crate) const fn takeover(&self) -> Duration {
        if self.profile.shared {
            TAKEOVER
        } else {
            TAKEOVER_MAX
        }
    }

    /// Who leads, or is believed to.
    pub(crate) fn leading(&self) -> Option<usize> {
        let shared = self.profile.shared;
        self.directors.iter().position(|node| {
            let machine = node.machine.as_ref();
            node.leads || shared && machine.is_some_and(|machine| *machine.role() == Role::Leader)
        })
    }

    /// Another director is to lead, if there is one. The former hears of it if it can.
    pub(crate) fn lead_instead_of(&mut self, former: usize) {
        if self.profile.shared {
            // Nobody can tell a store's directors who should lead. One that does not reach the store does not.
            self.cut_both(Party::Director(former), Party::Ledger, UNHEARD);
            return;
        }
        let others = self.directors.iter().enumerate();
        let others: Vec<usize> = others
            .filter(|(n, node)| *n != former && node.machine.is_some())
            .map(|(n, _)| n)
            .collect();
        if let Some(other) = self.random.pick(&others) {
            self.choose(Some(other));
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

/// An entry for the trace.
fn told(bytes: &[u8]) -> String {
    match quorate_core::record::Entry::decode(bytes) {
        Ok(entry) => format!("epoch {}: {:?}", entry.header.epoch, entry.records),
        Err(error) => error.to_string(),
    }
}
