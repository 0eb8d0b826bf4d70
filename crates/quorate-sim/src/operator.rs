//! People: what they ask for while faults happen, and what they want in the end.

use std::collections::BTreeMap;

use quorate_core::cluster::State;
use quorate_core::director::Role;
use quorate_core::director::call::{Answer, Call};
use quorate_core::ids::{AgentName, PartitionKey, ServiceName};
use quorate_core::record::{Desired, Schedulable};
use quorate_core::spec::ServiceSpec;

use crate::clock::{MILLI, SECOND};
use crate::world::{Happening, Origin, World};

/// The service of the last phase.
const FINAL: &str = "final";
const SERVICES: [&str; 3] = ["feeds", "fast", "solo"];
/// How long it may take until everything runs: an expiry, the longest back-off, a settle window and
/// the stops on the way.
const CONVERGE: u64 = 60 * SECOND;
/// Nothing may start in the last seconds.
const STABLE: u64 = 20 * SECOND;

/// What people know.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    /// The call of the last phase that is being made, and whether it was answered.
    asked: Option<usize>,
    finals: Vec<Call>,
}

impl World {
    /// Somebody asks for something.
    pub(crate) fn operate(&mut self) {
        if self.quiet {
            return;
        }
        let pause = self.random.between(300 * MILLI, 4 * SECOND);
        self.after(pause, Happening::Operate);
        if let Some(call) = self.any_call() {
            self.call(Origin::Operator, call);
        }
    }

    fn any_call(&mut self) -> Option<Call> {
        let service = ServiceName::new(self.random.pick(&SERVICES)?).ok()?;
        let key = self.random.permille(600).then(|| {
            let n = self.random.below(12);
            PartitionKey::new(&format!("p{n:02}"))
        });
        let key = key.transpose().ok()?;
        Some(match self.random.below(12) {
            0 => Call::Remove {
                services: vec![service],
            },
            1 => Call::SetDesired {
                service,
                key,
                desired: Desired::Stopped,
            },
            2 | 3 => Call::SetDesired {
                service,
                key,
                desired: Desired::Running,
            },
            4 => Call::Restart { service, key },
            5..=7 => {
                let hosts: Vec<usize> = (0..self.hosts.len()).collect();
                let host = self.random.pick(&hosts)?;
                let all = [
                    Schedulable::Active,
                    Schedulable::Active,
                    Schedulable::Cordoned,
                    Schedulable::Draining,
                ];
                Call::SetAgent {
                    agent: AgentName::new(&self.hosts.get(host)?.name).ok()?,
                    schedulable: self.random.pick(&all)?,
                }
            }
            _ => {
                let spec = self.any_spec(service.as_str())?;
                Call::Apply {
                    services: vec![(service, spec)],
                }
            }
        })
    }

    fn any_spec(&mut self, service: &str) -> Option<ServiceSpec> {
        let lease = match service {
            "fast" => self.random.pick(&["3s", "3s", "3s", "10s"])?,
            _ => "10s",
        };
        let mut spec = serde_json::json!({
            "command": ["run"],
            "lease": lease,
            "restart": { "backoff": "100ms..2s", "move_after": self.random.below(4) },
            "stop": { "timeout": "1s" },
            "ready": { "after": "300ms" },
            "placement": {
                "max_per_agent": self.random.pick(&[0, 0, 0, 6])?,
                "require": self.random.pick(&[None, None, None, Some("zone = even")])?.into_iter().collect::<Vec<_>>(),
            },
            "ramp": {
                "per_agent": self.random.pick(&[1, 2, 5])?,
            },
        });
        let give_up = self.random.pick(&[0, 0, 6])?;
        *spec
            .get_mut("restart")?
            .get_mut("give_up_after")
            .unwrap_or(&mut serde_json::Value::Null) = give_up.into();
        if service != "solo" {
            let count = self.random.between(1, 14);
            let skip = self.random.below(4);
            let list: Vec<_> = (skip..skip + count).map(|n| format!("p{n:02}")).collect();
            spec.as_object_mut()?
                .insert("partitions".to_owned(), serde_json::json!({ "list": list }));
        }
        serde_json::from_value(spec).ok()
    }

    /// What people want in the end, one call after the other, each until it is done.
    pub(crate) fn final_call(&mut self, at: usize) {
        if at == 0 && self.operator.finals.is_empty() {
            self.operator.finals = self.final_calls().unwrap_or_default();
        }
        let Some(call) = self.operator.finals.get(at).cloned() else {
            self.after(CONVERGE, Happening::NoteStarts);
            self.after(CONVERGE + STABLE, Happening::End);
            return;
        };
        self.operator.asked = Some(at);
        self.call(Origin::Operator, call);
    }

    pub(crate) fn operator_answered(&mut self, answer: &Answer) {
        let Some(at) = self.operator.asked else {
            return;
        };
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
        for host in &self.hosts {
            calls.push(Call::SetAgent {
                agent: AgentName::new(&host.name).ok()?,
                schedulable: Schedulable::Active,
            });
        }
        let count = self.random.between(1, 24);
        let list: Vec<_> = (0..count).map(|n| format!("f{n:02}")).collect();
        let spec = serde_json::json!({
            "command": ["run"],
            "restart": { "backoff": "100ms..2s" },
            "stop": { "timeout": "1s" },
            "ready": { "after": "300ms" },
            "partitions": { "list": list },
        });
        calls.push(Call::Apply {
            services: vec![(
                ServiceName::new(FINAL).ok()?,
                serde_json::from_value(spec).ok()?,
            )],
        });
        for service in SERVICES {
            calls.push(Call::SetDesired {
                service: ServiceName::new(service).ok()?,
                key: None,
                desired: Desired::Running,
            });
        }
        Some(calls)
    }

    /// Long after the last fault: everything that is to run runs, evenly, and nothing moves any more.
    pub(crate) fn judge_liveness(&mut self) {
        if let Some(noted) = self.starts_noted
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
        let mut counts: BTreeMap<usize, usize> = (0..self.hosts.len()).map(|n| (n, 0)).collect();
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
}
