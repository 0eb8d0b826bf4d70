//! People: what they ask for while faults happen. Each operation is drawn from a stream of its own, so
//! that one can be left out.

use std::collections::BTreeSet;

use quorate_core::director::call::Call;
use quorate_core::format::{FORMATS, Format};
use quorate_core::ids::{AgentName, DirectorName, PartitionKey, ServiceName};
use quorate_core::record::{Cause, Desired, DirectorInfo, Schedulable};
use quorate_core::spec::validate::shortest_lease;
use quorate_core::spec::{PartitionSpec, ServiceSpec};

use crate::clock::{MILLI, SECOND};
use crate::hooks::HOOKS;
use crate::random::Random;
use crate::world::{Happening, Origin, World};

pub(crate) const SERVICES: [&str; 5] = ["feeds", "fast", "solo", "filed", "kept"];

/// What people know.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    /// The call of the last phase that is being made.
    pub(crate) asked: Option<usize>,
    pub(crate) finals: Vec<Call>,
}

impl World {
    /// Somebody asks for something.
    pub(crate) fn operate(&mut self) {
        if self.quiet {
            return;
        }
        let pause = self.pauses[1].between(300 * MILLI, 4 * SECOND);
        if !self.profile.gentle {
            self.after(pause, Happening::Operate);
        }
        let Some((number, mut random)) = self.next_drawn() else {
            return;
        };
        if self.profile.gentle {
            return self.operate_gently(&mut random);
        }
        if let Some(call) = self.any_call(&mut random) {
            let now = self.now;
            self.remark(|| format!("{now} operation {number}: {call:?}"));
            self.call(Origin::Operator, call);
        }
    }

    /// Asks once, early and until it is done; everything must run before the first fault, and go on.
    fn operate_gently(&mut self, random: &mut Random) {
        if self.operator.finals.is_empty() {
            let count = random.between(1, self.size.partitions);
            let call = self.final_service(count);
            self.operator.finals.extend(call);
            self.oracle.still_from = Some(self.now + 22 * SECOND);
        }
        self.operator.asked = Some(0);
        if let Some(call) = self.operator.finals.first().cloned() {
            self.call(Origin::Operator, call);
        }
    }

    fn any_call(&mut self, random: &mut Random) -> Option<Call> {
        let service = ServiceName::new(random.pick(&SERVICES)?).ok()?;
        let key = random.permille(600).then(|| {
            let n = random.below(self.size.partitions);
            PartitionKey::new(&format!("p{n:02}"))
        });
        let key = key.transpose().ok()?;
        Some(match random.below(20) {
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
            5..=8 => {
                let hosts: Vec<usize> = (0..self.hosts.len()).collect();
                let host = random.pick(&hosts)?;
                let all = [
                    Schedulable::Active,
                    Schedulable::Active,
                    Schedulable::Cordoned,
                    Schedulable::Draining,
                ];
                Call::SetAgent {
                    agent: AgentName::new(&self.hosts.get(host)?.name).ok()?,
                    schedulable: random.pick(&all)?,
                }
            }
            // Whoever does that may be wrong: the agent may be alive after all.
            15 | 16 => {
                let hosts: Vec<usize> = (0..self.hosts.len()).collect();
                self.eviction(random.pick(&hosts)?)?
            }
            17 | 18 => self.any_announcement(random)?,
            // A shared store has no members: it goes by those who have told of themselves.
            19 => Call::Members {
                directors: BTreeSet::new(),
            },
            9 | 10 => Call::Partitions {
                service: ServiceName::new("filed").ok()?,
                reading: self.any_reading(random),
            },
            _ => {
                let spec = self.any_spec(random, service.as_str())?;
                Call::Apply {
                    services: vec![(service, spec)],
                }
            }
        })
    }

    /// A director tells what it reads: mostly everything, now and then as a version before this one.
    fn any_announcement(&self, random: &mut Random) -> Option<Call> {
        let n = usize::try_from(random.below(self.directors.len() as u64)).ok()?;
        let formats = [
            FORMATS.newest,
            FORMATS.newest,
            FORMATS.newest,
            Format::FIRST,
        ];
        Some(Call::Announce {
            director: DirectorInfo {
                name: DirectorName::new(&format!("d{n}")).ok()?,
                id: n as u64 + 1,
                address: format!("d{n}:7400"),
                version: String::new(),
                format: random.pick(&formats)?,
                oldest_format: Format::FIRST,
            },
        })
    }

    /// A person gives an agent up.
    pub(crate) fn eviction(&self, host: usize) -> Option<Call> {
        let agent = AgentName::new(&self.hosts.get(host)?.name).ok()?;
        let reason = Cause::new("it seems dead");
        Some(Call::Evict { agent, reason })
    }

    /// What a source may say: a list, a very short one, or that it cannot be read.
    fn any_reading(&self, random: &mut Random) -> Result<Vec<PartitionSpec>, String> {
        if random.permille(150) {
            return Err("no such file".to_owned());
        }
        let count = random.below(self.size.partitions + 1);
        let skip = random.below(4);
        let version = random.below(3);
        let list = (skip..skip + count).filter_map(|n| {
            let spec = serde_json::json!({
                "key": format!("p{n:02}"),
                "data": format!("{{\"v\":{version}}}"),
                "weight": 1 + n % 3,
                "priority": n % 2,
            });
            serde_json::from_value(spec).ok()
        });
        Ok(list.collect())
    }

    fn any_spec(&self, random: &mut Random, service: &str) -> Option<ServiceSpec> {
        let isolation = match service {
            "kept" if !self.profile.restores => random.pick(&["keep", "keep", "keep", "stop"])?,
            _ => "stop",
        };
        let short = if self.profile.shared {
            shortest_lease(self.takeover()).to_string()
        } else {
            "3s".to_owned()
        };
        let lease = match service {
            _ if isolation == "keep" => "10s",
            _ if self.profile.patient => random.pick(&["48s", "60s"])?,
            "fast" => random.pick(&[&*short, &*short, &*short, "10s"])?,
            _ => "10s",
        };
        let [one, other] = HOOKS;
        let fence = match service {
            "kept" | "filed" => random.pick(&[None, Some(one), Some(other)])?,
            _ => random.pick(&[None, None, None, None, None, Some(one)])?,
        };
        // Nothing takes over by itself what is kept, so there is nothing to delay.
        let delays = isolation == "stop" || fence.is_some();
        let takeover_delay = random.pick(&["0s", "0s", "2s"])?;
        let mut spec = serde_json::json!({
            "command": ["run"],
            "lease": lease,
            "isolation": isolation,
            "restart": {
                "backoff": "100ms..2s",
                "move_after": random.below(4),
                "on": {
                    "clean": random.pick(&["restart", "restart", "stop"])?,
                    "interrupted": random.pick(&["restart", "move"])?,
                    "crash": random.pick(&["restart", "restart", "move", "fail"])?,
                    "killed": random.pick(&["restart", "move"])?,
                },
            },
            "on_change": random.pick(&["restart", "signal", "ignore"])?,
            "takeover_delay": if delays { takeover_delay } else { "0s" },
            "stop": { "timeout": "1s" },
            "ready": { "after": "300ms" },
            "placement": {
                "strategy": random.pick(&["balanced", "balanced", "balanced", "static"])?,
                "max_per_agent": random.pick(&[0, 0, 0, 6])?,
                "priority": random.below(3),
                "require": random.pick(&[None, None, None, Some("zone = even")])?.into_iter().collect::<Vec<_>>(),
            },
            "ramp": {
                "per_agent": random.pick(&[1, 2, 5])?,
                "cluster": random.pick(&[None, None, Some(3)])?,
            },
        });
        if let Some(fence) = fence {
            let spec = spec.as_object_mut()?;
            spec.insert("fence".to_owned(), fence.into());
        }
        let give_up = random.pick(&[0, 0, 6])?;
        *spec
            .get_mut("restart")?
            .get_mut("give_up_after")
            .unwrap_or(&mut serde_json::Value::Null) = give_up.into();
        let count = random.between(1, self.size.partitions);
        let skip = random.below(4);
        let list: Vec<_> = (skip..skip + count).map(|n| format!("p{n:02}")).collect();
        let partitions = match service {
            "solo" => None,
            "filed" => Some(serde_json::json!({ "file": "list.jsonl", "key": "key" })),
            _ => Some(serde_json::json!({ "list": list })),
        };
        if let Some(partitions) = partitions {
            spec.as_object_mut()?
                .insert("partitions".to_owned(), partitions);
        }
        serde_json::from_value(spec).ok()
    }
}
