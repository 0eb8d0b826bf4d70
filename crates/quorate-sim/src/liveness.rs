//! The second phase: all faults have stopped, people say what they want in the end, and everything that
//! is to run must run, evenly, and stay where it is (L1, L2, L4). Then one thing more is changed, and
//! nothing may start, stop or move that this change does not need (L2).

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::cluster::State;
use quorate_core::director::Role;
use quorate_core::director::call::{Answer, Call};
use quorate_core::ids::{AgentName, ServiceName};
use quorate_core::record::{Desired, Schedulable};

use crate::clock::{MILLI, SECOND};
use crate::directors::UNHEARD;
use crate::operator::SERVICES;
use crate::oracle::Motion;
use crate::random::Random;
use crate::world::{Happening, Origin, World};

/// The service of the last phase.
const FINAL: &str = "final";
/// How long it may take until everything runs: machines that were suspended or boot come late, then an
/// expiry, the longest back-off, settle windows, and stops and starts one after the other.
const CONVERGE: u64 = 100 * SECOND;
/// How long one start after the other takes on an agent, where no more are allowed at a time.
const EACH: u64 = 400 * MILLI;
/// So many of them fit into the times that are given anyway.
const COME_UP: u64 = 40 * SECOND;
/// Nothing may start in the last seconds.
const STABLE: u64 = 20 * SECOND;
/// How long the last change may take: an expiry, a settle window, stops and starts.
const CHANGE: u64 = 40 * SECOND;
/// The same where leases are long and leaders change all the time.
const PATIENT_CHANGE: u64 = 110 * SECOND;
/// How long each of those leads: a little longer than the step at which silence is recorded.
const LEADS: u64 = 8_500 * MILLI;
/// When a person gives up a machine that is lost.
const GIVEN_UP: u64 = 15 * SECOND;
/// How long it may take to find a clock that runs at another rate: three minutes, a new session, and the
/// stops and starts that follow.
const CLOCKS: u64 = 260 * SECOND;

/// How it ends.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    /// There is no other service than the last one: then the least number of moves is known.
    alone: bool,
    partitions: u64,
    /// How much longer it may take until very many partitions have come up, should one agent have them all.
    patience: u64,
    /// Starts at the beginning of the last seconds.
    starts_noted: Option<u64>,
    change: Option<Change>,
}

/// What is changed in the end, and what that may move.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// The same is asked for once more: nothing.
    Same,
    /// Another director leads: nothing.
    Leader,
    /// The leader is killed and starts again: nothing.
    LeaderCrash,
    /// An agent process is killed and the next one finds its wardens: nothing.
    AgentCrash,
    /// A machine joins: its share moves to it, and nothing else.
    Join(usize),
    /// A machine is drained: what it held moves, and nothing else.
    Drain(usize),
    /// A machine is lost: what it held starts elsewhere, and nothing else.
    Loss(usize),
    /// A partition is added: it starts, and nothing else.
    More,
    /// A partition is removed: it stops, and one other may move.
    Less,
    /// Everything is restarted where it is.
    Restart,
}

impl World {
    /// What people want in the end, one call after the other, each until it is done.
    pub(crate) fn final_call(&mut self, at: usize) {
        if at == 0 && self.operator.finals.is_empty() {
            self.operator.finals = self.final_calls().unwrap_or_default();
        }
        let Some(call) = self.operator.finals.get(at).cloned() else {
            if !self.profile.clocks_within {
                return self.after(CLOCKS, Happening::JudgeClocks);
            }
            self.after(CONVERGE, Happening::NoteStarts);
            self.after(CONVERGE + STABLE, Happening::JudgeLiveness);
            return;
        };
        self.operator.asked = Some(at);
        self.call(Origin::Operator, call);
    }

    pub(crate) fn operator_answered(&mut self, answer: &Answer) {
        let Some(at) = self.operator.asked else {
            return;
        };
        if !self.quiet {
            let done = matches!(answer, Answer::Done { .. });
            if !done {
                self.after(100 * MILLI, Happening::Operate);
            }
            return;
        }
        let next = match answer {
            Answer::Done { .. } | Answer::Refused(_) => at + 1,
            Answer::Opened { .. }
            | Answer::Reported { .. }
            | Answer::Checkpoints { .. }
            | Answer::Unknown
            | Answer::NotLeader { .. } => at,
        };
        // An answer to a call of the phase before counts as well: then this one is made once more.
        self.operator.asked = None;
        self.after(100 * MILLI, Happening::FinalCall(next));
    }

    fn final_calls(&mut self) -> Option<Vec<Call>> {
        let mut calls = Vec::new();
        for host in self.hosts.iter().filter(|host| host.stays()) {
            calls.push(Call::SetAgent {
                agent: AgentName::new(&host.name).ok()?,
                schedulable: Schedulable::Active,
            });
        }
        // Nothing takes over by itself what is kept on a machine that is gone.
        let hosts = (0..self.hosts.len()).filter(|_| !self.profile.gentle);
        calls.extend(hosts.filter_map(|host| self.eviction(host)));
        self.closing.alone = self.random.permille(500);
        self.closing.partitions = self.random.between(1, self.size.partitions);
        let come_up = self.closing.partitions * EACH;
        self.closing.patience = come_up.saturating_sub(COME_UP);
        calls.push(self.final_service(self.closing.partitions)?);
        for service in SERVICES {
            let service = ServiceName::new(service).ok()?;
            calls.push(if self.closing.alone {
                Call::Remove {
                    services: vec![service],
                }
            } else {
                Call::SetDesired {
                    service,
                    key: None,
                    desired: Desired::Running,
                }
            });
        }
        Some(calls)
    }

    /// The service of the last phase with so many partitions.
    pub(crate) fn final_service(&self, count: u64) -> Option<Call> {
        let list: Vec<_> = (0..count).map(|n| format!("f{n:03}")).collect();
        let (isolation, lease) = match (self.profile.kept, self.profile.patient) {
            (true, _) => ("keep", "10s"),
            (false, true) => ("stop", "48s"),
            (false, false) => ("stop", "10s"),
        };
        let spec = serde_json::json!({
            "command": ["run"],
            "isolation": isolation,
            "lease": lease,
            "restart": { "backoff": "100ms..2s" },
            "stop": { "timeout": "1s" },
            "ready": { "after": "300ms" },
            "partitions": { "list": list },
        });
        let services = vec![(
            ServiceName::new(FINAL).ok()?,
            serde_json::from_value(spec).ok()?,
        )];
        Some(Call::Apply { services })
    }

    /// From here on nothing may start any more.
    pub(crate) fn note_starts(&mut self) {
        self.closing.starts_noted = Some(self.oracle.starts);
    }

    /// Long after the last fault: everything that is to run runs, evenly, and nothing moves any more.
    pub(crate) fn judge_liveness(&mut self) {
        if self.still_comes_up() {
            return;
        }
        self.judge_rest();
        if self.oracle.violation().is_some() {
            self.ended = true;
            return;
        }
        self.begin_change();
        let lasts = if self.profile.patient {
            PATIENT_CHANGE / SECOND * self.leads() / LEADS * SECOND
        } else {
            CHANGE
        };
        let come_up = (self.closing.partitions * EACH).saturating_sub(COME_UP);
        self.after(lasts + come_up, Happening::JudgeChange);
    }

    /// Whether something has started lately, and that may be one of very many that come up one after the other.
    /// Then it is judged later, but not for ever.
    fn still_comes_up(&mut self) -> bool {
        let started = self.closing.starts_noted != Some(self.oracle.starts);
        let waits = started && self.closing.patience > 0;
        if waits {
            self.closing.patience = self.closing.patience.saturating_sub(STABLE);
            self.note_starts();
            self.after(STABLE, Happening::JudgeLiveness);
        }
        waits
    }

    /// Where clocks are beyond the model: whoever bears no lease holds nothing, and what people want runs
    /// on those that do.
    pub(crate) fn judge_clocks(&mut self) {
        self.ended = true;
        let staying = self.hosts.iter().enumerate();
        let staying = staying.filter(|(_, host)| host.stays());
        let staying = staying.map(|(n, host)| (n, host.name.as_str()));
        self.oracle.judge_clocks(staying.clone(), is_final);
        let some = staying
            .into_iter()
            .any(|(_, name)| self.oracle.keeps_time(name));
        let running = self.running();
        let wanted = self.closing.partitions;
        if some && running != wanted {
            let seen = format!("{running} of {wanted} partitions run where clocks are right");
            self.oracle.blame("L1", seen);
        }
    }

    /// How many partitions of the last service run.
    fn running(&self) -> u64 {
        let running = self.oracle.executing().filter(|(name, _)| is_final(name));
        running.count() as u64
    }

    /// Another director leads, and soon the next one.
    pub(crate) fn next_leader(&mut self, left: u32) {
        let leader = self.leading();
        self.lead_instead_of(leader.unwrap_or(0));
        if let Some(left) = left.checked_sub(1) {
            self.after(self.leads(), Happening::NextLeader(left));
        }
    }

    /// How long each leader leads: over a store the next one has to find out first.
    const fn leads(&self) -> u64 {
        if self.profile.shared {
            LEADS + UNHEARD
        } else {
            LEADS
        }
    }

    /// A person is sure that a machine is lost.
    pub(crate) fn give_up(&mut self, host: usize) {
        if let Some(call) = self.eviction(host) {
            self.call(Origin::Operator, call);
        }
    }

    fn judge_rest(&mut self) {
        if let Some(noted) = self.closing.starts_noted
            && noted != self.oracle.starts
        {
            let more = self.oracle.starts - noted;
            let seen = format!("{more} processes started though nothing had happened for long");
            self.oracle.blame("L2", seen);
        }
        let leaders = self.directors.iter().enumerate().filter(|(_, node)| {
            let role = node.machine.as_ref().map(|machine| machine.role());
            role == Some(&Role::Leader)
        });
        let leaders: Vec<usize> = leaders.map(|(n, _)| n).collect();
        let [leader] = leaders.as_slice() else {
            let seen = format!("leaders in the end: {leaders:?}");
            return self.oracle.blame("L1", seen);
        };
        let leader = *leader;
        let Some(machine) = self
            .directors
            .get(leader)
            .and_then(|node| node.machine.as_ref())
        else {
            return;
        };
        let cluster = machine.cluster();
        let now = self
            .directors
            .get(leader)
            .map(|node| node.clock.read(self.now));
        let mut idle = Vec::new();
        let staying = self
            .hosts
            .iter()
            .enumerate()
            .filter(|(_, host)| host.stays());
        let mut counts: BTreeMap<usize, usize> = staying.map(|(n, _)| (n, 0)).collect();
        let mut finals = 0;
        let mut wanted: BTreeMap<String, bool> = BTreeMap::new();
        for (id, partition) in cluster.partitions() {
            let Some(service) = cluster.service_of(partition) else {
                continue;
            };
            let name = format!("{}/{}", service.name(), partition.key());
            let host = self.oracle.host_of(&name);
            let runs = cluster.wanted(partition);
            wanted.insert(name.clone(), runs);
            if service.name().as_str() == FINAL {
                finals += 1;
                if let Some(count) = host.and_then(|host| counts.get_mut(&host)) {
                    *count += 1;
                }
            }
            let why = machine
                .planner()
                .zip(now)
                .and_then(|(planner, now)| planner.waiting(now, cluster, id));
            let excused = why
                .as_ref()
                .is_some_and(|why| why.contains("max_per_agent") || why.contains("requires"));
            let held = matches!(partition.state(), State::Assumed(_));
            if runs && !excused && (host.is_none() || !held) {
                idle.push(format!(
                    "{name}: {:?}, {:?}, {why:?}",
                    partition.state(),
                    partition.run()
                ));
            }
        }
        let example = cluster.partitions().find(|(_, partition)| {
            let service = cluster.service_of(partition);
            service.is_some_and(|service| service.name().as_str() == FINAL)
        });
        let why = machine.planner().zip(now).zip(example);
        let why = why.and_then(|((planner, now), (id, _))| planner.why(now, cluster, id));
        let odd: Vec<String> = self
            .oracle
            .executing()
            .filter(|(name, _)| wanted.get(*name) != Some(&true))
            .map(|(name, _)| name.to_owned())
            .collect();
        let (low, high) = counts.values().fold((usize::MAX, 0), |(low, high), count| {
            (low.min(*count), high.max(*count))
        });
        if !idle.is_empty() {
            let seen = format!("to run and not running in the end: {idle:?}");
            self.oracle.blame("L1", seen);
        } else if !odd.is_empty() {
            let seen = format!("running in the end and not wanted: {odd:?}");
            self.oracle.blame("L1", seen);
        } else if finals == 0 {
            self.oracle
                .blame("L1", "what people asked for last is not there".to_owned());
        } else if high > low + 1 {
            let seen = format!("uneven in the end: {counts:?}; {why:?}");
            self.oracle.blame("L1", seen);
        }
    }

    /// Changes one thing.
    fn begin_change(&mut self) {
        let mut random = Random::stream(self.random.state(), 3);
        let hosts: Vec<usize> = (0..self.hosts.len())
            .filter(|n| self.hosts.get(*n).is_some_and(|host| host.stays()))
            .collect();
        let host = random.pick(&hosts).unwrap_or(0);
        self.oracle.motions = Some(Vec::new());
        let more = self.closing.partitions + 1;
        let change = match random.below(10) {
            1 => Change::Leader,
            2 => Change::LeaderCrash,
            3 => Change::AgentCrash,
            4 => Change::Join(self.add_host(&mut random)),
            5 if hosts.len() > 1 => Change::Drain(host),
            6 if hosts.len() > 1 => Change::Loss(host),
            7 => Change::More,
            8 if self.closing.partitions > 1 => Change::Less,
            9 => Change::Restart,
            _ => Change::Same,
        };
        let now = self.now;
        self.remark(|| format!("{now} the last change: {change:?}"));
        self.closing.change = Some(change.clone());
        let leader = self.leading().unwrap_or(0);
        let call = match change {
            Change::Same => self.final_service(self.closing.partitions),
            Change::More => self.final_service(more),
            Change::Less => self.final_service(self.closing.partitions - 1),
            Change::Restart => ServiceName::new(FINAL)
                .ok()
                .map(|service| Call::Restart { service, key: None }),
            Change::Drain(host) => self.hosts.get(host).and_then(|host| {
                Some(Call::SetAgent {
                    agent: AgentName::new(&host.name).ok()?,
                    schedulable: Schedulable::Draining,
                })
            }),
            Change::Leader => {
                self.lead_instead_of(leader);
                None
            }
            Change::LeaderCrash => {
                self.crash_director(leader, SECOND);
                None
            }
            Change::AgentCrash => {
                self.crash_agent_to_be_adopted(host);
                None
            }
            Change::Loss(host) => {
                self.lose_host(host);
                if self.profile.kept {
                    self.after(GIVEN_UP, Happening::GiveUp(host));
                }
                if self.profile.patient {
                    // A chain of new leaders must not keep a dead machine's lease alive for ever.
                    self.after(self.leads(), Happening::NextLeader(20));
                }
                None
            }
            Change::Join(_) => None,
        };
        if let Some(call) = call {
            self.call(Origin::Operator, call);
        }
    }

    fn crash_agent_to_be_adopted(&mut self, n: usize) {
        if let Some(host) = self.host(n) {
            host.adopt_within = std::time::Duration::from_secs(3);
        }
        self.end_agent(n);
        self.after(SECOND / 2, Happening::AgentStarts(n));
    }

    /// Whether the last change moved only what it had to.
    pub(crate) fn judge_change(&mut self) {
        self.ended = true;
        let motions = self.oracle.motions.take().unwrap_or_default();
        let Some(change) = self.closing.change.clone() else {
            return;
        };
        let running = self.running();
        let wanted = match change {
            Change::More => self.closing.partitions + 1,
            Change::Less => self.closing.partitions - 1,
            Change::Same
            | Change::Leader
            | Change::LeaderCrash
            | Change::AgentCrash
            | Change::Join(_)
            | Change::Drain(_)
            | Change::Loss(_)
            | Change::Restart => self.closing.partitions,
        };
        if running != wanted {
            let seen = format!("{running} of {wanted} partitions run after {change:?}");
            return self.oracle.blame("L1", seen);
        }
        let Closing {
            alone, partitions, ..
        } = self.closing;
        // With clocks that were set, two leaders may not agree on how long what fled counts apart.
        let agreed = !(self.oracle.failed_somewhere && self.clocks_were_set);
        let led = matches!(change, Change::Leader | Change::LeaderCrash);
        let seen = needless(&change, &motions, self.staying(), partitions, alone);
        let seen = seen.filter(|_| agreed || !led);
        if let Some(seen) = seen {
            self.oracle.blame("L2", format!("after {change:?}: {seen}"));
        }
    }
}

fn is_final(name: &str) -> bool {
    name.strip_prefix(FINAL)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// What moved though the change did not need it. The least number of moves is known where the service is `alone`:
/// several are balanced one after the other, and what one of them makes room for another may take.
fn needless(
    change: &Change,
    motions: &[Motion],
    hosts: usize,
    partitions: u64,
    alone: bool,
) -> Option<String> {
    let of = |started| {
        let motions = motions.iter();
        motions.filter(move |motion| motion.started == started)
    };
    let (starts, ends) = (of(true).count(), of(false).count());
    let here: BTreeSet<usize> = of(false).map(|motion| motion.host).collect();
    let told = || format!("{starts} starts, {ends} ends on {here:?}");
    let only_from = |host: usize| here.iter().all(|one| *one == host);
    let fine = match *change {
        Change::Same | Change::AgentCrash => starts == 0 && ends == 0,
        Change::Leader | Change::LeaderCrash => starts == 0 && ends == 0,
        Change::Drain(host) | Change::Loss(host) => {
            (!alone || (only_from(host) && starts <= ends))
                && of(true).all(|motion| motion.host != host)
        }
        Change::Join(host) => {
            // Among other services there may be some that waited for just such a machine.
            let share = partitions.div_ceil(hosts.max(1) as u64);
            let only_there = of(true).all(|motion| motion.host == host);
            starts >= ends && (!alone || (only_there && starts == ends && starts as u64 <= share))
        }
        Change::More => starts == 1 + ends && (!alone || ends == 0),
        Change::Less => ends == 1 + starts && (!alone || starts <= 1),
        Change::Restart => starts == ends && starts as u64 == partitions,
    };
    (!fine).then(told)
}
