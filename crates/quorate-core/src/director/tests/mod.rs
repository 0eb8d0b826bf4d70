//! Scripts of the director's machine: several directors over a model ledger, every answer in the hands
//! of the script.

mod access;
mod calls;
mod checkpoints;
mod conditions;
mod eras;
mod fences;
mod formats;
mod joining;
mod leading;
mod leases;
mod planning;
mod repeats;
mod silence;
mod standing;
mod table;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::call::{Answer, Call, CallId, Renewal, RenewalAnswer, Report};
use super::effect::{Effect, Why};
use super::event::{AppendOutcome, Event, Now, ReadOutcome};
use super::{Config, Director, Role};
use crate::format::{FORMATS, Formats};
use crate::history::Change;
use crate::ids::{
    AgentName, DirectorName, Epoch, HookName, Incarnation, PartitionId, PartitionKey, Position,
    ServiceName, SessionId, Token,
};
use crate::lease::LeaseTimes;
use crate::planner::PlannerConfig;
use crate::record::{AgentInfo, Containment, Entry, Place, Record};
use crate::spec::validate::TAKEOVER_MAX;
use crate::time::{Moment, WallTime};

/// What the ledger does with the next append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Append {
    /// Does it and says so.
    Works,
    /// Does it, and the answer is lost.
    LandsUnknown,
    /// Does not do it, and the answer is lost.
    LostUnknown,
    /// Says that it did nothing, truly.
    Refuses,
    /// Does not answer before the script says so.
    Held,
}

/// One director and what it has ordered.
pub(super) struct Node {
    pub(super) director: Director,
    orders: VecDeque<Effect>,
    pub(super) held: Vec<Effect>,
    pub(super) answers: BTreeMap<u64, Answer>,
    pub(super) renewals: BTreeMap<u64, RenewalAnswer>,
    pub(super) wake: Option<Moment>,
    pub(super) snapshots: Vec<(Position, Vec<u8>)>,
    pub(super) appends: usize,
    pub(super) fenced: Vec<(SessionId, HookName)>,
    pub(super) changes: Vec<Change>,
    pub(super) stopped: Option<Why>,
}

/// The ledger, the clock and the directors.
pub(super) struct World {
    pub(super) ledger: Vec<(Epoch, Vec<u8>)>,
    /// Position and epoch before its first entry.
    base: (Position, Epoch),
    pub(super) trimmed: usize,
    pub(super) nodes: Vec<Node>,
    pub(super) now: Now,
    pub(super) append: Append,
    pub(super) proofs_held: bool,
    /// Directors that do not reach the ledger.
    pub(super) cut: BTreeSet<usize>,
    /// The ledger has less than directors have folded.
    pub(super) lost_history: bool,
    calls: u64,
}

impl World {
    pub(super) fn new(directors: u64) -> Self {
        let nodes = (1..=directors).map(Node::new).collect();
        Self {
            ledger: Vec::new(),
            base: (Position(0), Epoch(0)),
            trimmed: 0,
            nodes,
            now: Now {
                moment: Moment::from_millis(1_000_000),
                wall: WallTime(0),
            },
            append: Append::Works,
            proofs_held: false,
            cut: BTreeSet::new(),
            lost_history: false,
            calls: 0,
        }
    }

    /// One director that leads.
    pub(super) fn led() -> Self {
        let mut world = Self::new(1);
        world.lead(0);
        world
    }

    pub(super) fn lead(&mut self, node: usize) {
        self.hint(node, Some(true));
        assert_eq!(*self.nodes[node].director.role(), Role::Leader);
    }

    /// The same director loses its leadership and is elected once more.
    pub(super) fn lead_again(&mut self) {
        self.hint(0, Some(false));
        self.lead(0);
    }

    pub(super) fn hint(&mut self, node: usize, should_lead: Option<bool>) {
        let occupied = self.occupied();
        self.tell(
            node,
            Event::Hint {
                should_lead,
                occupied,
            },
        );
    }

    pub(super) fn cluster(&self) -> &crate::cluster::Cluster {
        self.nodes[0].director.cluster()
    }

    /// One fact, and everything that follows from it.
    pub(super) fn tell(&mut self, node: usize, event: Event) {
        self.step(node, event);
        self.run(node);
    }

    /// One fact; its orders wait.
    pub(super) fn step(&mut self, node: usize, event: Event) {
        let mut effects = Vec::new();
        let node = &mut self.nodes[node];
        node.director.step(self.now, event, &mut effects);
        assert_eq!(node.director.cluster().check(), Vec::<String>::new());
        node.orders.extend(effects);
    }

    pub(super) fn run(&mut self, node: usize) {
        for _ in 0..10_000 {
            let Some(order) = self.nodes[node].orders.pop_front() else {
                return;
            };
            if let Some(event) = self.carry_out(node, order) {
                self.step(node, event);
            }
        }
        panic!("director {node} does not come to rest");
    }

    fn carry_out(&mut self, node: usize, order: Effect) -> Option<Event> {
        match order {
            Effect::Append { append, .. } => {
                self.nodes[node].appends += 1;
                let outcome = match self.append {
                    _ if self.cut.contains(&node) => AppendOutcome::Unknown,
                    Append::Works => self.land(&order),
                    Append::LandsUnknown => {
                        self.land(&order);
                        AppendOutcome::Unknown
                    }
                    Append::LostUnknown => AppendOutcome::Unknown,
                    Append::Refuses => AppendOutcome::Refused,
                    Append::Held => {
                        self.nodes[node].held.push(order);
                        return None;
                    }
                };
                Some(Event::AppendAnswered { append, outcome })
            }
            Effect::ProveTail { .. } if self.proofs_held => {
                self.nodes[node].held.push(order);
                None
            }
            Effect::ProveTail { proof } => {
                let tail = (!self.cut.contains(&node)).then(|| self.tail());
                Some(Event::TailAnswered { proof, tail })
            }
            Effect::Read { from } => {
                let skip = usize::try_from(from.0 - 1 - self.base.0.0).unwrap();
                let outcome = if self.cut.contains(&node) {
                    ReadOutcome::Failed
                } else if skip < self.trimmed {
                    ReadOutcome::Trimmed
                } else {
                    let entries = self.ledger.iter().skip(skip).take(3);
                    ReadOutcome::Entries(entries.map(|(_, bytes)| bytes.clone()).collect())
                };
                Some(Event::ReadAnswered { from, outcome })
            }
            Effect::LoadSnapshot => {
                let kept = self.nodes.iter().flat_map(|node| node.snapshots.last());
                let (next, bytes) = kept.max_by_key(|(next, _)| *next).unwrap().clone();
                Some(Event::Reset { next, bytes })
            }
            Effect::SaveSnapshot { next, bytes } => {
                self.nodes[node].snapshots.push((next, bytes));
                None
            }
            Effect::Answer { id, answer } => {
                let before = self.nodes[node].answers.insert(id.0, answer);
                assert_eq!(before, None, "call {} answered twice", id.0);
                None
            }
            Effect::AnswerRenewal { id, answer } => {
                let before = self.nodes[node].renewals.insert(id.0, answer);
                assert_eq!(before, None, "renewal {} answered twice", id.0);
                None
            }
            Effect::WakeAt(moment) => {
                self.nodes[node].wake = Some(moment);
                None
            }
            Effect::Fence { session, hook, .. } => {
                self.nodes[node].fenced.push((session, hook));
                None
            }
            Effect::Changed { changes, .. } => {
                self.nodes[node].changes.extend(changes);
                None
            }
            Effect::Halt { why, .. } => {
                self.nodes[node].stopped = Some(why);
                None
            }
            Effect::Replaced { .. } => None,
        }
    }

    fn occupied(&self) -> Position {
        Position(self.base.0.0 + self.ledger.len() as u64)
    }

    pub(super) fn tail(&self) -> (Position, Epoch) {
        let epoch = self.ledger.last().map_or(self.base.1, |(epoch, _)| *epoch);
        (self.occupied().next(), epoch)
    }

    /// A new cluster of one director that leads, restored from the fold of the first one here, some time later.
    pub(super) fn restored(&self, new: crate::cluster::NewEra) -> Self {
        let cluster = self.cluster().clone().in_new_era(new).unwrap().cluster;
        let mut world = Self::new(1);
        world.now.moment = self.now.moment + Duration::from_secs(1_000);
        world.base = (cluster.position(), cluster.epoch());
        let next = cluster.position().next();
        let bytes = cluster.encode();
        world.tell(0, Event::Reset { next, bytes });
        world.lead(0);
        world
    }

    /// What a ledger does with an append.
    pub(super) fn land(&mut self, order: &Effect) -> AppendOutcome {
        let Effect::Append {
            position,
            epoch,
            bytes,
            ..
        } = order
        else {
            panic!("not an append: {order:?}");
        };
        assert!(bytes.len() <= crate::record::ENTRY_BYTES_MAX);
        let next = self.occupied().0 + 1;
        if self.lost_history && position.0 > next {
            return AppendOutcome::Refused;
        }
        assert!(position.0 <= next, "append with a gap");
        if position.0 < next {
            return AppendOutcome::PositionTaken;
        }
        self.ledger.push((*epoch, bytes.clone()));
        AppendOutcome::Appended
    }

    /// Takes the only order that is held back.
    pub(super) fn held(&mut self, node: usize) -> Effect {
        assert_eq!(self.nodes[node].held.len(), 1);
        self.nodes[node].held.remove(0)
    }

    /// Lets time pass, waking directors when they ordered it.
    pub(super) fn pass(&mut self, span: Duration) {
        let end = self.now.moment + span;
        for _ in 0..1000 {
            let wakes = self.nodes.iter().enumerate();
            let wakes = wakes.filter_map(|(at, node)| Some((node.wake?, at)));
            let Some((moment, node)) = wakes.min().filter(|(moment, _)| *moment <= end) else {
                self.now.moment = end;
                return;
            };
            self.now.moment = self.now.moment.max(moment);
            self.nodes[node].wake = None;
            self.tell(node, Event::Woke);
        }
        panic!("a director wants to be woken all the time");
    }

    pub(super) fn ask_later(&mut self, node: usize, call: Call) -> u64 {
        self.calls += 1;
        let id = CallId(self.calls);
        self.step(node, Event::Asked { id, call });
        self.calls
    }

    pub(super) fn ask(&mut self, call: Call) -> Answer {
        let id = self.ask_later(0, call);
        self.run(0);
        let answer = self.nodes[0].answers.get(&id);
        answer
            .unwrap_or_else(|| panic!("no answer to call {id}"))
            .clone()
    }

    pub(super) fn renew_later(&mut self, node: usize, renewal: Renewal) -> u64 {
        self.calls += 1;
        let id = CallId(self.calls);
        self.step(node, Event::Renewed { id, renewal });
        self.calls
    }

    pub(super) fn renew(&mut self, counter: u64) -> RenewalAnswer {
        let id = self.renew_later(0, renewal(counter));
        self.run(0);
        self.nodes[0].renewals[&id].clone()
    }

    /// Every record in the ledger, in order.
    pub(super) fn records(&self) -> Vec<Record> {
        let entries = self.ledger.iter();
        let entries = entries.map(|(_, bytes)| Entry::decode(bytes).unwrap().records);
        entries.flatten().collect()
    }

    /// Writes records past every director, as the leader would.
    pub(super) fn decree(&mut self, records: Vec<Record>) {
        let header = crate::record::Header {
            format: crate::format::Format::FIRST,
            epoch: self.cluster().epoch(),
            batch: crate::ids::BatchId {
                writer: 999,
                sequence: self.ledger.len() as u64,
            },
            predecessor: self.cluster().last_hash(),
            wall: self.now.wall,
        };
        let bytes = Entry { header, records }.encode();
        self.ledger.push((header.epoch, bytes));
        self.hint(0, None);
    }

    /// Service `s` with these partitions, and agent `a` with session 1.
    pub(super) fn with_session(keys: &[&str]) -> Self {
        let mut world = Self::led();
        world.ask(apply("s", keys));
        let answer = world.ask(register("a", 1, "secret"));
        assert!(matches!(answer, Answer::Opened { .. }), "{answer:?}");
        world
    }

    pub(super) fn id(&self, name: &str) -> PartitionId {
        let cluster = self.cluster();
        let key = PartitionKey::new(name).unwrap();
        cluster.partition_id(&service("s"), &key).unwrap()
    }

    pub(super) fn assign(&mut self, name: &str) -> (PartitionId, Token) {
        let partition = self.id(name);
        let token = self.cluster().next_token();
        self.decree(vec![Record::Assigned {
            partition,
            session: SessionId(1),
            token,
        }]);
        (partition, token)
    }
}

impl Node {
    fn new(number: u64) -> Self {
        Self::of(number, FORMATS)
    }

    /// A director that reads these formats.
    pub(super) fn of(number: u64, formats: Formats) -> Self {
        Self::with(Self::config(number, formats))
    }

    pub(super) fn config(number: u64, formats: Formats) -> Config {
        Config {
            name: DirectorName::new(&format!("d{number}")).unwrap(),
            id: number,
            writer: 1000 + number,
            address: format!("address of d{number}"),
            formats,
            queue_max: 8,
            snapshot_every: 1000,
            shared: None,
            takeover: TAKEOVER_MAX,
            gather_renewals: Duration::ZERO,
            planner: PlannerConfig::default(),
            drain_drifting: true,
            fences: [HookName::new("power-off").unwrap()].into(),
        }
    }

    pub(super) fn with(config: Config) -> Self {
        Self {
            director: Director::new(config),
            orders: VecDeque::new(),
            held: Vec::new(),
            answers: BTreeMap::new(),
            renewals: BTreeMap::new(),
            wake: None,
            snapshots: Vec::new(),
            appends: 0,
            fenced: Vec::new(),
            changes: Vec::new(),
            stopped: None,
        }
    }
}

pub(super) fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

pub(super) fn apply(name: &str, keys: &[&str]) -> Call {
    let spec = serde_json::json!({ "command": ["x"], "partitions": { "list": keys } });
    Call::Apply {
        services: vec![(service(name), serde_json::from_value(spec).unwrap())],
    }
}

pub(super) fn register(agent: &str, id: u64, secret: &str) -> Call {
    Call::Register {
        agent: AgentInfo {
            name: AgentName::new(agent).unwrap(),
            id,
            place: Place::default(),
            labels: BTreeMap::new(),
            capacity: None,
            containment: Containment::Kernel,
            version: String::new(),
        },
        lease: LeaseTimes::of(Duration::from_secs(10)),
        secret_hash: secret.to_owned(),
        process: id,
    }
}

pub(super) fn renewal(counter: u64) -> Renewal {
    Renewal {
        sessions: vec![SessionId(1)],
        incarnation: Incarnation(1),
        counter,
        nonce: counter,
        sent_ms: 0,
    }
}

pub(super) fn report(sequence: u64) -> Report {
    Report {
        session: SessionId(1),
        incarnation: Incarnation(1),
        sequence,
        assume: Vec::new(),
        release: Vec::new(),
        observed: Vec::new(),
    }
}

pub(super) fn renewed() -> RenewalAnswer {
    RenewalAnswer::Answered {
        renewed: vec![SessionId(1)],
        lost: Vec::new(),
    }
}

pub(super) fn not_leader(address: Option<&str>) -> RenewalAnswer {
    RenewalAnswer::NotLeader {
        leader: address.map(str::to_owned),
    }
}
