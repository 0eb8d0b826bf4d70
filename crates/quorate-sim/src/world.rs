//! The world: one queue of happenings in true time, and everybody who takes part.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher};

use quorate_core::agent::{Effect as AgentEffect, Event as AgentEvent, RunId, WardenId};
use quorate_core::director::call::{Answer, Call, Renewal, RenewalAnswer};
use quorate_core::director::effect::Effect as DirectorEffect;
use quorate_core::director::event::{AppendId, AppendOutcome, Event as DirectorEvent, ProofId};
use quorate_core::ids::{Epoch, Position, SessionId, Token};
use quorate_core::time::Moment;

use crate::bug::Bug;
use crate::clock::{Instant, MILLI, SECOND};
use crate::directors::{DirectorNode, Poll, PollAnswer};
use crate::disaster::Disasters;
use crate::faults::Profile;
use crate::hooks::Hook;
use crate::hosts::Host;
use crate::ledger::Ledger;
use crate::liveness::Closing;
use crate::operator::Operator;
use crate::oracle::{Oracle, Violation, Word};
use crate::queue::Queue;
use crate::random::Random;
use crate::settings::{Schedule, Settings, Size};
use crate::wardens::Order;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Hash of what happened, in order.
    pub trace_hash: u64,
    /// How much happened.
    pub happenings: u64,
    /// Nanoseconds of true time that passed.
    pub nanos: u64,
    /// Entries in the ledger, since it was last restored.
    pub entries: u64,
    /// Processes that started.
    pub starts: u64,
    /// Faults that were made.
    pub faults: u64,
    /// Faults and operations that were drawn: each has a number below this one.
    pub drawn: u64,
    /// The first thing that went wrong.
    pub violation: Option<Violation>,
    /// What happened, when it was to be kept.
    pub trace: Vec<String>,
}

/// Who sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    Director(usize),
    Host(usize),
    Ledger,
    Operator,
}

/// For whom a call is made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    Agent {
        host: usize,
        generation: u64,
        warden: WardenId,
        what: What,
    },
    LastWill {
        host: usize,
        session: SessionId,
        tries: u32,
    },
    Operator,
}

/// What an agent called for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Open,
    Resume,
    Report(u64),
    Checkpoints(u64),
    Close,
}

/// A call that was made. It may reach a director long after its answer, or after whoever made it has gone.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) origin: Origin,
    pub(crate) call: Call,
    pub(crate) hops: u32,
    /// Whether somebody waits for the answer.
    pub(crate) awaited: bool,
}

/// A renewal that was sent, which may be as late.
#[derive(Clone, Debug)]
pub(crate) struct PendingRenewal {
    /// Whether somebody waits for the answer.
    pub(crate) awaited: bool,
    pub(crate) host: usize,
    pub(crate) generation: u64,
    pub(crate) renewal: Renewal,
    /// Directors that were asked.
    pub(crate) tries: usize,
    pub(crate) sent: Moment,
    /// When it first reached a director; a repeat of it tells nothing new.
    pub(crate) arrived: Option<Instant>,
    pub(crate) sessions: BTreeMap<SessionId, WardenId>,
}

/// Something that happens at its time.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// A fact reaches a director of this generation.
    Director(usize, u64, Box<DirectorEvent>),
    /// The time may have come at which a director wants to be woken.
    DirectorAlarm(usize, u64),
    /// A director that was stopped in the middle of a step carries out the rest of its orders.
    DirectorActs(usize, u64, Vec<DirectorEffect>),
    DirectorStarts(usize),
    Append {
        director: usize,
        generation: u64,
        append: AppendId,
        position: Position,
        epoch: Epoch,
        bytes: Vec<u8>,
        answered: bool,
    },
    Tail(usize, u64, ProofId),
    Read(usize, u64, Position),
    LoadSnapshot(usize, u64),
    SaveSnapshot(usize, u64, Position, Vec<u8>),
    CallArrives(usize, u64),
    CallAnswered(u64, Box<Answer>),
    CallTimedOut(u64),
    RenewalArrives(usize, u64, Renewal),
    RenewalAnswered(u64, RenewalAnswer),
    /// The director that was asked has not answered in time.
    RenewalUnanswered(u64, usize),
    RenewalDue(usize, u64, u64),
    PollArrives(usize, Poll),
    PollHeld(usize, u64),
    PollAnswered(Poll, Box<PollAnswer>),
    PollTimedOut(Poll),
    Agent(usize, u64, Box<AgentEvent>),
    /// The time may have come at which an agent wants to be woken.
    AgentAlarm(usize, u64),
    /// An agent that was stopped in the middle of a step carries out the rest of its orders.
    AgentActs(usize, u64, Vec<AgentEffect>),
    AgentStarts(usize),
    HostBoots(usize),
    /// A suspended machine goes on.
    HostResumes(usize),
    /// A machine that is to leave for ever does so.
    HostGoes(usize),
    WardenUp(usize, u64, WardenId, std::time::Duration),
    Warden(usize, WardenId, Box<Order>),
    Deadline(usize, WardenId),
    Orphaned(usize, WardenId, u64),
    RunExits(usize, WardenId, RunId, u8),
    RunDies(usize, WardenId, RunId),
    WardenEmpty(usize, WardenId),
    LastWill(usize, SessionId, u32),
    /// A run says how far it has come, and will so often in all.
    RunSays(usize, WardenId, RunId, u64),
    /// A fence hook that a director of this generation has begun does its work.
    Hook(usize, u64, Box<Hook>),
    /// A write of a run reaches the resource that it works on.
    Write(String, Token),
    Fault,
    Heal(Party, Party),
    /// A link that comes and goes changes once more, so often.
    Flap(usize, usize, u32),
    /// The ledger tells who should lead, once or from now on.
    ChooseLeader(bool),
    Operate,
    Quiet,
    FinalCall(usize),
    NoteStarts,
    JudgeLiveness,
    /// Leaders change one after the other, so often.
    NextLeader(u32),
    /// A person gives a lost machine up.
    GiveUp(usize),
    JudgeChange,
    JudgeClocks,
}

/// Everything.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) random: Random,
    pub(crate) ledger: Ledger,
    pub(crate) directors: Vec<DirectorNode>,
    /// The wall clock of some director has jumped.
    pub(crate) clocks_were_set: bool,
    pub(crate) hosts: Vec<Host>,
    pub(crate) oracle: Oracle,
    pub(crate) profile: Profile,
    pub(crate) operator: Operator,
    pub(crate) disasters: Disasters,
    pub(crate) cuts: BTreeSet<(Party, Party)>,
    pub(crate) calls: BTreeMap<u64, Pending>,
    pub(crate) arrivals: BTreeMap<u64, Arrival>,
    pub(crate) renewals: BTreeMap<u64, PendingRenewal>,
    /// What runs have said and not been answered.
    pub(crate) asks: BTreeMap<u64, (RunId, Word)>,
    pub(crate) numbers: u64,
    pub(crate) size: Size,
    pub(crate) bug: Option<Bug>,
    pub(crate) quiet: bool,
    /// The ledger answers slowly until then.
    pub(crate) ledger_slow_until: Instant,
    pub(crate) faults: u64,
    pub(crate) closing: Closing,
    /// Draws when faults and operations happen, so that leaving one out moves no other.
    pub(crate) pauses: [Random; 2],
    seed: u64,
    schedule: Schedule,
    drawn: u64,
    queue: Queue<Happening>,
    happenings: u64,
    /// Happenings since time last went on.
    stalls: u64,
    hash: Fnv,
    trace: Option<Vec<String>>,
    pub(crate) spare: Spare,
    pub(crate) ended: bool,
}

/// Room for the orders of one step, empty between two.
#[derive(Default)]
pub(crate) struct Spare {
    pub(crate) director: Vec<DirectorEffect>,
    pub(crate) agent: Vec<AgentEffect>,
}

/// Where a call or renewal waits for its answer, and what the oracle noted when it arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) number: u64,
    pub(crate) noted: crate::oracle::Noted,
}

/// How late a message may come, so that none is left over when it is judged what people wanted in the end.
const HELD_MAX: u64 = 18 * SECOND;
/// Most happenings at one moment.
const STALLS_MAX: u64 = 20_000;

/// Runs a seed.
#[must_use]
pub fn run(settings: &Settings) -> Outcome {
    let mut world = World::new(settings);
    while !world.ended && world.oracle.violation().is_none() {
        let Some((at, happening)) = world.queue.pop() else {
            break;
        };
        world.stalls = if at > world.now { 0 } else { world.stalls + 1 };
        if world.stalls > STALLS_MAX {
            let seen =
                format!("{at}: something happens again and again without end: {happening:?}");
            world.oracle.blame("L4", seen);
        }
        world.now = at;
        world.note(&happening);
        world.happen(happening);
    }
    Outcome {
        seed: settings.seed,
        trace_hash: world.hash.0,
        happenings: world.happenings,
        nanos: world.now.0,
        entries: world.ledger.count(),
        starts: world.oracle.starts,
        faults: world.faults,
        drawn: world.drawn,
        violation: world.oracle.violation().cloned(),
        trace: world.trace.unwrap_or_default(),
    }
}

impl World {
    fn new(settings: &Settings) -> Self {
        let mut random = Random::new(settings.seed);
        let size = Size::draw(&mut random);
        let size = settings.size.unwrap_or(size);
        let profile = Profile::draw(&mut random);
        let mut world = Self {
            now: Instant::default(),
            ledger: Ledger::default(),
            directors: Vec::new(),
            clocks_were_set: false,
            hosts: Vec::new(),
            oracle: Oracle::new(profile.clocks_within),
            operator: Operator::default(),
            disasters: Disasters::default(),
            cuts: BTreeSet::new(),
            calls: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            renewals: BTreeMap::new(),
            asks: BTreeMap::new(),
            numbers: 0,
            size,
            bug: settings.bug,
            quiet: false,
            ledger_slow_until: Instant::default(),
            faults: 0,
            closing: Closing::default(),
            pauses: [
                Random::stream(settings.seed, 1),
                Random::stream(settings.seed, 2),
            ],
            seed: settings.seed,
            schedule: settings.schedule.clone(),
            drawn: 0,
            queue: Queue::default(),
            happenings: 0,
            stalls: 0,
            hash: Fnv::default(),
            trace: settings.trace.then(Vec::new),
            spare: Spare::default(),
            ended: false,
            profile,
            random,
        };
        for n in 0..size.directors {
            let node = DirectorNode::new(&mut world.random, &world.profile);
            world.oracle.director_has(node.clock);
            world.directors.push(node);
            world.after(
                0,
                Happening::DirectorStarts(usize::try_from(n).unwrap_or(0)),
            );
        }
        for n in 0..size.agents {
            let host = Host::new(n, format!("a{n}"), &mut world.random, &world.profile);
            world.oracle.agent_has(&host.name, host.clock);
            world.hosts.push(host);
            let delay = world.random.below(3 * SECOND);
            let n = usize::try_from(n).unwrap_or(0);
            world.after(delay, Happening::AgentStarts(n));
        }
        let first = if world.profile.gentle {
            25 * SECOND
        } else {
            SECOND
        };
        world.after(20 * MILLI, Happening::ChooseLeader(true));
        world.after(100 * MILLI, Happening::Operate);
        world.after(first, Happening::Fault);
        let lasts = settings.fault_seconds * world.profile.lasts();
        world.after(lasts * SECOND, Happening::Quiet);
        world
    }

    /// The next fault or operation: what it is drawn from, unless it is to be left out.
    pub(crate) fn next_drawn(&mut self) -> Option<(u64, Random)> {
        let number = self.drawn;
        self.drawn += 1;
        let happens = self.schedule.has(number);
        happens.then(|| (number, Random::stream(self.seed, 16 + number)))
    }

    /// Whether this bug of what the simulator models is planted.
    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Lets something happen after so many nanoseconds.
    pub(crate) fn after(&mut self, nanos: u64, happening: Happening) {
        self.at(self.now + nanos, happening);
    }

    /// Lets something happen then.
    pub(crate) fn at(&mut self, at: Instant, happening: Happening) {
        self.queue.push(at.max(self.now), happening);
    }

    /// A fresh number.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Sends something over the network, which may lose, delay and repeat it.
    pub(crate) fn send(&mut self, from: Party, to: Party, happening: Happening) {
        if self.cuts.contains(&(from, to)) || self.random.permille(self.profile.loss(self.quiet)) {
            return;
        }
        if self.random.permille(self.profile.repeats(self.quiet)) {
            let delay = self.delay_of_repeat(from);
            self.after(delay, happening.clone());
        }
        let delay = self.delay();
        self.after(delay, happening);
    }

    /// How long a message takes.
    pub(crate) fn delay(&mut self) -> u64 {
        let usual = self.random.between(MILLI / 5, 5 * MILLI);
        if self.quiet || !self.random.permille(self.profile.slow) {
            return usual;
        }
        self.random.between(5 * MILLI, self.profile.slow_max)
    }

    /// How long a repeat takes: what a relay holds back of a machine may come when that has long been started
    /// anew. People do not go on after so long as if they had asked for nothing.
    fn delay_of_repeat(&mut self, from: Party) -> u64 {
        let held = match from {
            Party::Host(_) => self.random.permille(self.profile.held),
            Party::Director(_) | Party::Ledger | Party::Operator => false,
        };
        if held {
            self.random.between(SECOND, HELD_MAX)
        } else {
            self.delay()
        }
    }

    /// Adds to the trace what is no happening of its own.
    pub(crate) fn remark(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    fn note(&mut self, happening: &Happening) {
        self.happenings += 1;
        // The numbers that were drawn so far stand for all that was decided by them.
        self.hash.write_u64(self.now.0);
        self.hash.write_u64(self.random.state());
        std::mem::discriminant(happening).hash(&mut self.hash);
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{} {happening:?}", self.now));
        }
    }

    /// The suspended machine on which this would happen, and when it goes on.
    fn suspended(&self, happening: &Happening) -> Option<Instant> {
        let host = match happening {
            Happening::AgentActs(host, ..)
            | Happening::Agent(host, ..)
            | Happening::AgentAlarm(host, ..)
            | Happening::AgentStarts(host)
            | Happening::RenewalDue(host, ..)
            | Happening::WardenUp(host, ..)
            | Happening::Warden(host, ..)
            | Happening::Deadline(host, ..)
            | Happening::Orphaned(host, ..)
            | Happening::RunExits(host, ..)
            | Happening::RunDies(host, ..)
            | Happening::WardenEmpty(host, ..)
            | Happening::RunSays(host, ..)
            | Happening::LastWill(host, ..) => *host,
            Happening::PollAnswered(poll, _) | Happening::PollTimedOut(poll) => poll.host,
            Happening::Director(..)
            | Happening::DirectorAlarm(..)
            | Happening::DirectorActs(..)
            | Happening::DirectorStarts(_)
            | Happening::Append { .. }
            | Happening::Tail(..)
            | Happening::Read(..)
            | Happening::LoadSnapshot(..)
            | Happening::SaveSnapshot(..)
            | Happening::CallArrives(..)
            | Happening::CallAnswered(..)
            | Happening::CallTimedOut(_)
            | Happening::RenewalArrives(..)
            | Happening::RenewalAnswered(..)
            | Happening::RenewalUnanswered(..)
            | Happening::PollArrives(..)
            | Happening::PollHeld(..)
            | Happening::HostBoots(_)
            | Happening::HostResumes(_)
            | Happening::HostGoes(_)
            | Happening::Write(..)
            | Happening::Hook(..)
            | Happening::NextLeader(_)
            | Happening::GiveUp(_)
            | Happening::JudgeClocks
            | Happening::Fault
            | Happening::Heal(..)
            | Happening::Flap(..)
            | Happening::ChooseLeader(_)
            | Happening::Operate
            | Happening::Quiet
            | Happening::FinalCall(_)
            | Happening::NoteStarts
            | Happening::JudgeLiveness
            | Happening::JudgeChange => return None,
        };
        let until = self.hosts.get(host)?.suspended_until;
        (until > self.now).then_some(until)
    }

    fn happen(&mut self, happening: Happening) {
        if let Some(until) = self.suspended(&happening) {
            return self.at(until, happening);
        }
        match happening {
            Happening::Director(n, generation, event) => self.tell_director(n, generation, *event),
            Happening::DirectorAlarm(n, generation) => self.director_alarm(n, generation),
            Happening::DirectorActs(n, generation, effects) => {
                self.director_acts(n, generation, effects);
            }
            Happening::DirectorStarts(n) => self.start_director(n),
            Happening::Append {
                director,
                generation,
                append,
                position,
                epoch,
                bytes,
                answered,
            } => {
                if !self.reaches(director, generation) {
                    return;
                }
                let outcome = self.append(position, epoch, bytes);
                if outcome == AppendOutcome::Appended {
                    self.oracle.leader_proven(self.now, director);
                }
                if answered {
                    let event = DirectorEvent::AppendAnswered { append, outcome };
                    let event = Happening::Director(director, generation, Box::new(event));
                    let delay = self.delay();
                    self.after(delay, event);
                }
            }
            Happening::Tail(n, generation, proof) => self.answer_tail(n, generation, proof),
            Happening::Read(n, generation, from) => self.answer_read(n, generation, from),
            Happening::LoadSnapshot(n, generation) => self.answer_load(n, generation),
            Happening::SaveSnapshot(n, generation, next, bytes) => {
                if self.reaches(n, generation) {
                    self.ledger.save(next, bytes);
                }
            }
            Happening::CallArrives(n, number) => self.call_arrives(n, number),
            Happening::CallAnswered(number, answer) => self.call_answered(number, *answer),
            Happening::CallTimedOut(number) => self.call_failed(number),
            Happening::RenewalArrives(n, number, renewal) => {
                self.renewal_arrives(n, number, renewal);
            }
            Happening::RenewalAnswered(number, answer) => self.renewal_answered(number, answer),
            Happening::RenewalUnanswered(number, n) => self.renewal_unanswered(number, n),
            Happening::RenewalDue(host, generation, tick) => self.renew(host, generation, tick),
            Happening::PollArrives(n, poll) => self.poll_arrives(n, poll),
            Happening::PollHeld(n, number) => self.poll_held(n, number),
            Happening::PollAnswered(poll, answer) => self.poll_answered(poll, *answer),
            Happening::PollTimedOut(poll) => self.poll_timed_out(poll),
            Happening::Agent(host, generation, event) => {
                self.tell_agent(host, generation, *event);
            }
            Happening::AgentAlarm(host, generation) => self.agent_alarm(host, generation),
            Happening::AgentActs(host, generation, effects) => {
                self.agent_acts(host, generation, effects);
            }
            Happening::AgentStarts(host) => self.start_agent(host),
            Happening::HostBoots(host) => self.boot(host),
            Happening::HostResumes(host) => self.resume_host(host),
            Happening::HostGoes(host) => self.lose_host(host),
            Happening::WardenUp(host, generation, warden, lease) => {
                self.warden_up(host, generation, warden, lease);
            }
            Happening::Warden(host, warden, order) => self.order_warden(host, warden, *order),
            Happening::Deadline(host, warden) => self.deadline(host, warden),
            Happening::Orphaned(host, warden, generation) => {
                self.orphaned(host, warden, generation);
            }
            Happening::RunExits(host, warden, run, code) => {
                self.run_exits(host, warden, run, code);
            }
            Happening::RunDies(host, warden, run) => self.run_dies(host, warden, run),
            Happening::WardenEmpty(host, warden) => self.warden_empty(host, warden),
            Happening::LastWill(host, session, tries) => self.last_will(host, session, tries),
            Happening::RunSays(host, warden, run, left) => self.run_says(host, warden, run, left),
            Happening::Hook(n, generation, hook) => self.hook(n, generation, &hook),
            Happening::Write(name, token) => self.oracle.written(self.now, &name, token),
            Happening::Fault => self.fault(),
            Happening::Heal(from, to) => {
                self.cuts.remove(&(from, to));
            }
            Happening::Flap(host, director, left) => self.flap(host, director, left),
            Happening::ChooseLeader(again) => self.choose_leader(again),
            Happening::Operate => self.operate(),
            Happening::Quiet => self.become_quiet(),
            Happening::FinalCall(at) => self.final_call(at),
            Happening::NoteStarts => self.note_starts(),
            Happening::JudgeLiveness => self.judge_liveness(),
            Happening::NextLeader(left) => self.next_leader(left),
            Happening::GiveUp(host) => self.give_up(host),
            Happening::JudgeChange => self.judge_change(),
            Happening::JudgeClocks => self.judge_clocks(),
        }
    }
}

/// FNV-1a, the same on every machine.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x0100_0000_01b3);
    }
}
