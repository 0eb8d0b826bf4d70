//! The world: one queue of happenings in true time, and everybody who takes part.

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::agent::{Event as AgentEvent, WardenId};
use quorate_core::director::call::{Answer, Call, Renewal, RenewalAnswer};
use quorate_core::director::event::{AppendId, Event as DirectorEvent, ProofId};
use quorate_core::ids::{Epoch, Position, SessionId};
use quorate_core::time::Moment;

use crate::clock::{Instant, MILLI, SECOND};
use crate::directors::{DirectorNode, Poll, PollAnswer};
use crate::faults::Profile;
use crate::hosts::Host;
use crate::ledger::Ledger;
use crate::operator::Operator;
use crate::oracle::{Oracle, Violation};
use crate::random::Random;
use crate::wardens::Order;

/// What a run is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Everything is drawn from this.
    pub seed: u64,
    /// How long faults happen, in seconds of true time.
    pub fault_seconds: u64,
    /// Whether to keep what happened, line by line.
    pub trace: bool,
}

impl Settings {
    /// The usual run of a seed.
    #[must_use]
    pub const fn of(seed: u64) -> Self {
        Self {
            seed,
            fault_seconds: 40,
            trace: false,
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Hash of everything that happened, in order.
    pub trace_hash: u64,
    /// How much happened.
    pub happenings: u64,
    /// Entries in the ledger.
    pub entries: u64,
    /// Processes that started.
    pub starts: u64,
    /// Faults that were made.
    pub faults: u64,
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
    Close,
}

/// A call on its way.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) origin: Origin,
    pub(crate) call: Call,
    pub(crate) hops: u32,
}

/// A renewal on its way.
#[derive(Clone, Debug)]
pub(crate) struct PendingRenewal {
    pub(crate) host: usize,
    pub(crate) generation: u64,
    pub(crate) sent: Moment,
    pub(crate) sessions: BTreeMap<SessionId, WardenId>,
}

/// Something that happens at its time.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// A fact reaches a director of this generation.
    Director(usize, u64, Box<DirectorEvent>),
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
    SaveSnapshot(Position, Vec<u8>),
    CallArrives(usize, u64),
    CallAnswered(u64, Box<Answer>),
    CallTimedOut(u64),
    RenewalArrives(usize, u64, Renewal),
    RenewalAnswered(u64, RenewalAnswer),
    RenewalTimedOut(u64),
    RenewalDue(usize, u64, u64),
    PollArrives(usize, Poll),
    PollHeld(usize, u64),
    PollAnswered(Poll, Box<PollAnswer>),
    PollTimedOut(Poll),
    Agent(usize, u64, Box<AgentEvent>),
    AgentStarts(usize),
    HostBoots(usize),
    WardenUp(usize, u64, WardenId),
    Warden(usize, WardenId, Box<Order>),
    Deadline(usize, WardenId),
    Orphaned(usize, WardenId, u64),
    RunExits(usize, WardenId, quorate_core::agent::RunId, u8),
    RunDies(usize, WardenId, quorate_core::agent::RunId),
    WardenEmpty(usize, WardenId),
    LastWill(usize, SessionId, u32),
    Fault,
    Heal(Party, Party),
    ChooseLeader,
    Operate,
    Quiet,
    FinalCall(usize),
    NoteStarts,
    End,
}

/// Everything.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) random: Random,
    pub(crate) ledger: Ledger,
    pub(crate) directors: Vec<DirectorNode>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) oracle: Oracle,
    pub(crate) profile: Profile,
    pub(crate) operator: Operator,
    pub(crate) cuts: BTreeSet<(Party, Party)>,
    pub(crate) calls: BTreeMap<u64, Pending>,
    pub(crate) arrivals: BTreeMap<u64, u64>,
    pub(crate) renewals: BTreeMap<u64, PendingRenewal>,
    pub(crate) numbers: u64,
    pub(crate) quiet: bool,
    pub(crate) faults: u64,
    /// Starts at the beginning of the last seconds: nothing may start any more.
    pub(crate) starts_noted: Option<u64>,
    queue: BTreeMap<(Instant, u64), Happening>,
    ordinal: u64,
    happenings: u64,
    /// Happenings since time last went on.
    stalls: u64,
    hash: u64,
    trace: Option<Vec<String>>,
    ended: bool,
}

/// Most happenings at one moment.
const STALLS_MAX: u64 = 10_000;

/// Runs a seed.
#[must_use]
pub fn run(settings: Settings) -> Outcome {
    let mut world = World::new(settings);
    while !world.ended && world.oracle.violation().is_none() {
        let Some(((at, _), happening)) = world.queue.pop_first() else {
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
        trace_hash: world.hash,
        happenings: world.happenings,
        entries: world.ledger.last().0,
        starts: world.oracle.starts,
        faults: world.faults,
        violation: world.oracle.violation().cloned(),
        trace: world.trace.unwrap_or_default(),
    }
}

impl World {
    fn new(settings: Settings) -> Self {
        let mut random = Random::new(settings.seed);
        let profile = Profile::draw(&mut random);
        let directors = random.pick(&[1, 2, 3, 3]).unwrap_or(3);
        let hosts = random.between(2, 5);
        let mut world = Self {
            now: Instant::default(),
            ledger: Ledger::default(),
            directors: Vec::new(),
            hosts: Vec::new(),
            oracle: Oracle::default(),
            profile,
            operator: Operator::default(),
            cuts: BTreeSet::new(),
            calls: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            renewals: BTreeMap::new(),
            numbers: 0,
            quiet: false,
            faults: 0,
            starts_noted: None,
            queue: BTreeMap::new(),
            ordinal: 0,
            happenings: 0,
            stalls: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            trace: settings.trace.then(Vec::new),
            ended: false,
            random,
        };
        for n in 0..directors {
            let node = DirectorNode::new(&mut world.random);
            world.directors.push(node);
            world.after(0, Happening::DirectorStarts(n));
        }
        for n in 0..hosts {
            let host = Host::new(n, &mut world.random);
            world.hosts.push(host);
            let delay = world.random.below(3 * SECOND);
            let n = usize::try_from(n).unwrap_or(0);
            world.after(delay, Happening::AgentStarts(n));
        }
        world.after(20 * MILLI, Happening::ChooseLeader);
        world.after(100 * MILLI, Happening::Operate);
        world.after(SECOND, Happening::Fault);
        world.after(settings.fault_seconds * SECOND, Happening::Quiet);
        world
    }

    /// Lets something happen after so many nanoseconds.
    pub(crate) fn after(&mut self, nanos: u64, happening: Happening) {
        self.at(self.now + nanos, happening);
    }

    /// Lets something happen then.
    pub(crate) fn at(&mut self, at: Instant, happening: Happening) {
        self.ordinal += 1;
        self.queue
            .insert((at.max(self.now), self.ordinal), happening);
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
            let delay = self.delay();
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

    /// Adds to the trace what is no happening of its own.
    pub(crate) fn remark(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    fn note(&mut self, happening: &Happening) {
        self.happenings += 1;
        let line = format!("{} {happening:?}", self.now);
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(trace) = &mut self.trace {
            trace.push(line);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Director(n, generation, event) => self.tell_director(n, generation, *event),
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
                let outcome = self.append(position, epoch, bytes);
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
            Happening::SaveSnapshot(next, bytes) => self.ledger.save(next, bytes),
            Happening::CallArrives(n, number) => self.call_arrives(n, number),
            Happening::CallAnswered(number, answer) => self.call_answered(number, *answer),
            Happening::CallTimedOut(number) => self.call_failed(number),
            Happening::RenewalArrives(n, number, renewal) => {
                self.renewal_arrives(n, number, renewal);
            }
            Happening::RenewalAnswered(number, answer) => self.renewal_answered(number, answer),
            Happening::RenewalTimedOut(number) => self.renewal_failed(number),
            Happening::RenewalDue(host, generation, tick) => self.renew(host, generation, tick),
            Happening::PollArrives(n, poll) => self.poll_arrives(n, poll),
            Happening::PollHeld(n, number) => self.poll_held(n, number),
            Happening::PollAnswered(poll, answer) => self.poll_answered(poll, *answer),
            Happening::PollTimedOut(poll) => self.poll_timed_out(poll),
            Happening::Agent(host, generation, event) => {
                self.tell_agent(host, generation, *event);
            }
            Happening::AgentStarts(host) => self.start_agent(host),
            Happening::HostBoots(host) => self.start_agent(host),
            Happening::WardenUp(host, generation, warden) => {
                self.warden_up(host, generation, warden);
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
            Happening::Fault => self.fault(),
            Happening::Heal(from, to) => {
                self.cuts.remove(&(from, to));
            }
            Happening::ChooseLeader => self.choose_leader(),
            Happening::Operate => self.operate(),
            Happening::Quiet => self.become_quiet(),
            Happening::FinalCall(at) => self.final_call(at),
            Happening::NoteStarts => self.starts_noted = Some(self.oracle.starts),
            Happening::End => {
                self.judge_liveness();
                self.ended = true;
            }
        }
    }
}
