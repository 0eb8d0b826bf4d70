//! What `apply` and the reading of a source become: the difference to what is in force, as records.

use std::collections::BTreeSet;

use crate::cluster::Service;
use crate::ids::{HookName, PartitionKey, ServiceName};
use crate::record::{ENTRY_BYTES_MAX, Record};
use crate::spec::{self, PartitionSpec, ServiceSpec, Shrink};

use super::Director;
use super::batch::{Reply, weigh, weigh_key, weigh_partition};
use super::call::{Applied, Refusal};
use super::calls::Decided;

/// Most bytes of the records in one part of a staged change. The rest of the entry stays free for
/// reports, so that a large change does not keep agents waiting.
const PART_BYTES: usize = ENTRY_BYTES_MAX / 4 * 3;
/// Most bytes of partitions in one record, so that records can be spread over parts.
const RECORD_BYTES: usize = ENTRY_BYTES_MAX / 8;
/// Most bytes of one specification or partition: it must fit one entry.
const ITEM_BYTES_MAX: usize = ENTRY_BYTES_MAX / 2;

impl Director {
    /// All services are put, or none.
    pub(super) fn decide_apply(&self, services: Vec<(ServiceName, ServiceSpec)>) -> Decided {
        self.may_put(&services)?;
        let mut records = Vec::new();
        let mut notes = Vec::new();
        let mut applied = Vec::new();
        for (name, spec) in services {
            let before = records.len();
            notes.extend(self.stopped_note(&name));
            let listed = spec::expand::partitions(&name, &spec);
            let listed = listed.map_err(|problem| Refusal::Conflict(problem.to_string()))?;
            let known = self.cluster.service(&name);
            if known.is_none_or(|known| **known.spec() != spec) {
                records.push(Record::ServicePut {
                    name: name.clone(),
                    spec: Box::new(spec),
                });
            }
            if let Some(listed) = listed {
                let difference = self.difference(known, &listed);
                notes.extend(stopping_note(&name, difference.running_removed));
                records.extend(difference.records(&name));
            }
            let became = match known {
                None => Applied::Created,
                Some(_) if records.len() > before => Applied::Changed,
                Some(_) => Applied::Unchanged,
            };
            applied.push((name, became));
        }
        let reply = Reply::Done {
            notes,
            applied,
            changed: true,
        };
        Ok((self.staged(records)?, reply))
    }

    /// Whether these services may be in force beside all others, for a plan and for an apply.
    ///
    /// # Errors
    /// Why not.
    pub fn may_put(&self, services: &[(ServiceName, ServiceSpec)]) -> Result<(), Refusal> {
        let put = services.iter().map(|(name, spec)| (name, spec));
        if let Some(problem) = self.cluster.too_many_leases(put) {
            return Err(Refusal::Invalid(problem));
        }
        for (name, spec) in services {
            self.long_enough(&format!("service.{name}.lease"), spec.lease)?;
            self.known_hook(name, spec)?;
        }
        Ok(())
    }

    fn known_hook(&self, name: &ServiceName, spec: &ServiceSpec) -> Result<(), Refusal> {
        let known = &self.config.fences;
        let Some(hook) = spec.fence.as_ref().filter(|hook| !known.contains(*hook)) else {
            return Ok(());
        };
        let known: Vec<&str> = known.iter().map(HookName::as_str).collect();
        let known = match known.as_slice() {
            [] => "no hook at all".to_owned(),
            names => names.join(", "),
        };
        Err(Refusal::Conflict(format!(
            "service {name} names the fence hook {hook}, and the directors' own file describes {known}"
        )))
    }

    /// A source was read. A reading that is refused changes nothing but what people are told.
    pub(super) fn decide_partitions(
        &self,
        name: ServiceName,
        reading: Result<Vec<PartitionSpec>, String>,
    ) -> Decided {
        self.known_service(&name)?;
        let Some(service) = self.cluster.service(&name) else {
            return Ok((Vec::new(), Reply::done()));
        };
        let listed = match reading {
            Ok(listed) => listed,
            Err(problem) => return Ok(problem_status(service, problem)),
        };
        let difference = self.difference(Some(service), &listed);
        if let Some(problem) = shrunk(service, &listed, difference.removed.len()) {
            return Ok(problem_status(service, problem));
        }
        let mut records = difference.records(&name);
        if service.problem().is_some() {
            records.push(Record::SourceStatus {
                service: name.clone(),
                problem: None,
            });
        }
        let reply = Reply::Listed {
            service: name,
            refusal: None,
        };
        Ok((self.staged(records)?, reply))
    }

    fn difference<'a>(
        &self,
        service: Option<&Service>,
        listed: &'a [PartitionSpec],
    ) -> Difference<'a> {
        let mut difference = Difference::default();
        let mut new: Vec<&PartitionSpec> = listed.iter().collect();
        new.sort_by_key(|spec| &spec.key);
        // Of those with the same key the last one counts.
        new.dedup_by(|later, earlier| {
            let same = later.key == earlier.key;
            if same {
                *earlier = *later;
            }
            same
        });
        let known = service.map(Service::partitions);
        for spec in &new {
            let id = known.and_then(|known| known.get(&spec.key));
            let partition = id.and_then(|id| self.cluster.partition(*id));
            if partition.is_none_or(|partition| !partition.described_by(spec)) {
                difference.put.push(spec);
            }
        }
        // Both are in the order of the keys.
        let mut listed = new.iter().peekable();
        for (key, id) in known.into_iter().flatten() {
            while listed.next_if(|spec| spec.key < *key).is_some() {}
            let partition = self.cluster.partition(*id);
            let Some(partition) = partition.filter(|partition| !partition.doomed()) else {
                continue;
            };
            if listed.peek().is_none_or(|spec| spec.key != *key) {
                difference.removed.insert(key.clone());
                difference.running_removed += usize::from(partition.running_under().is_some());
            }
        }
        difference
    }

    /// Records that fit one entry as they are, or in parts that count with the last one.
    fn staged(&self, records: Vec<Record>) -> Result<Vec<Record>, Refusal> {
        let weights: Vec<usize> = records.iter().map(weigh).collect();
        for (record, weight) in records.iter().zip(&weights) {
            if *weight > ITEM_BYTES_MAX {
                return Err(too_large(record, *weight));
            }
        }
        if weights.iter().sum::<usize>() <= PART_BYTES {
            return Ok(records);
        }
        let mut parts: Vec<Vec<Record>> = Vec::new();
        let mut bytes = PART_BYTES;
        for (record, weight) in records.into_iter().zip(weights) {
            if bytes + weight > PART_BYTES {
                parts.push(Vec::new());
                bytes = 0;
            }
            bytes += weight;
            if let Some(part) = parts.last_mut() {
                part.push(record);
            }
        }
        // The name of the next batch is never used again: its sequence goes up with every entry.
        let change = self.log.next_batch();
        let last = parts.len();
        let parts = (1..).zip(parts);
        Ok(parts
            .map(|(number, records)| Record::Staged {
                change,
                records,
                last: number == last,
            })
            .collect())
    }
}

/// What a list changes.
#[derive(Default)]
struct Difference<'a> {
    put: Vec<&'a PartitionSpec>,
    removed: BTreeSet<PartitionKey>,
    running_removed: usize,
}

impl Difference<'_> {
    fn records(self, service: &ServiceName) -> Vec<Record> {
        let mut records = Vec::new();
        let removed = chunks(self.removed.into_iter(), weigh_key);
        records.extend(removed.into_iter().map(|keys| Record::PartitionsRemoved {
            service: service.clone(),
            keys,
        }));
        let put = chunks(self.put.into_iter().cloned(), weigh_partition);
        records.extend(put.into_iter().map(|partitions| Record::PartitionsPut {
            service: service.clone(),
            partitions,
        }));
        records
    }
}

fn chunks<T>(items: impl Iterator<Item = T>, bytes_of: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut chunks: Vec<Vec<T>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        let more = bytes_of(&item);
        match chunks.last_mut() {
            Some(chunk) if bytes + more <= RECORD_BYTES => {
                chunk.push(item);
                bytes += more;
            }
            Some(_) | None => {
                chunks.push(vec![item]);
                bytes = more;
            }
        }
    }
    chunks
}

/// A problem may quote the line of a file, which may be of any length.
const PROBLEM_CHARS_MAX: usize = 500;

/// Everything keeps running as it was; people are told once.
fn problem_status(service: &Service, mut problem: String) -> (Vec<Record>, Reply) {
    if let Some((end, _)) = problem.char_indices().nth(PROBLEM_CHARS_MAX) {
        problem.truncate(end);
        problem.push('…');
    }
    let refusal = format!(
        "the list of service {} is refused: {problem}; everything keeps running as it was",
        service.name()
    );
    let told = service.problem() == Some(&problem);
    let record = (!told).then(|| Record::SourceStatus {
        service: service.name().clone(),
        problem: Some(problem),
    });
    let reply = Reply::Listed {
        service: service.name().clone(),
        refusal: Some(Refusal::Conflict(refusal)),
    };
    (record.into_iter().collect(), reply)
}

/// Why a list that lost so many is refused.
fn shrunk(service: &Service, listed: &[PartitionSpec], removed: usize) -> Option<String> {
    let source = service.spec().partitions.as_ref()?;
    source.shrunk(Shrink {
        before: service.listed(),
        removed,
        emptied: listed.is_empty(),
    })
}

fn stopping_note(service: &ServiceName, running: usize) -> Option<String> {
    match running {
        0 => None,
        1 => Some(format!(
            "1 partition of {service} is no longer listed and is being stopped"
        )),
        n => Some(format!(
            "{n} partitions of {service} are no longer listed and are being stopped"
        )),
    }
}

fn too_large(record: &Record, bytes: usize) -> Refusal {
    let what = match record {
        Record::ServicePut { name, .. } => format!("the specification of service {name}"),
        Record::PartitionsPut { partitions, .. } => match partitions.first() {
            Some(partition) => format!("partition {:?}", partition.key.as_str()),
            None => "a partition".to_owned(),
        },
        Record::Elected { .. }
        | Record::Beat
        | Record::DirectorKnown { .. }
        | Record::DirectorForgotten { .. }
        | Record::ServiceRemoved { .. }
        | Record::PartitionsRemoved { .. }
        | Record::Staged { .. }
        | Record::SourceStatus { .. }
        | Record::DesiredSet { .. }
        | Record::RestartAsked { .. }
        | Record::AgentSet { .. }
        | Record::AgentForgotten { .. }
        | Record::SessionOpened { .. }
        | Record::SessionResumed { .. }
        | Record::SessionClosed { .. }
        | Record::SessionExpired { .. }
        | Record::Evicted { .. }
        | Record::Silent { .. }
        | Record::Heard { .. }
        | Record::Fenced { .. }
        | Record::Drifts { .. }
        | Record::Assigned { .. }
        | Record::Withdrawn { .. }
        | Record::Assumed { .. }
        | Record::Revoked { .. }
        | Record::Released { .. }
        | Record::Observed { .. }
        | Record::CheckpointPut { .. }
        | Record::Access(_)
        | Record::Format { .. }
        | Record::Audited(_)
        | Record::Answered(_) => "a part of the change".to_owned(),
    };
    Refusal::Conflict(format!(
        "{what} has {bytes} bytes, at most {ITEM_BYTES_MAX} are possible; keep large data elsewhere and name it here"
    ))
}
