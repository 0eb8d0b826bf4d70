//! The state hash: two directors that folded the same entries have the same one (S8).
//!
//! Everything that decides is in it; what is only for people (wall times but those that end tokens,
//! process ids, exits, addresses, versions) is not, and neither are revisions, by which only the leader
//! decides, once. Structs are taken apart by name, so that a new field must be placed here.

use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use crate::access::{ApiToken, Credentials, JoinToken};
use crate::checkpoint::Checkpoint;
use crate::ids::PartitionId;
use crate::lease::LeaseTimes;
use crate::record::{AgentInfo, DirectorInfo, Place};
use crate::repeats::{Before, Repeats};

use super::partition::{Extra, Freed, Partition, State};
use super::run::Told;
use super::service::Service;
use super::session::{Agent, Session};
use super::slab::Slab;
use super::{Cluster, Leader, Staged};

/// What is to be hashed is gathered until there is so much of it: a state is made of many small numbers.
const GATHERED: usize = 4096;

struct Sum {
    hash: Xxh3,
    gathered: Vec<u8>,
}

impl Sum {
    fn new() -> Self {
        Self {
            hash: Xxh3::new(),
            gathered: Vec::with_capacity(GATHERED),
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        if self.gathered.len() + bytes.len() > GATHERED {
            self.hash.update(&self.gathered);
            self.gathered.clear();
        }
        if bytes.len() > GATHERED {
            self.hash.update(bytes);
        } else {
            self.gathered.extend_from_slice(bytes);
        }
    }

    fn digest(mut self) -> u64 {
        self.hash.update(&self.gathered);
        self.hash.digest()
    }

    fn number(&mut self, number: impl Into<u64>) {
        self.bytes(&number.into().to_le_bytes());
    }

    fn span(&mut self, span: Duration) {
        self.number(span.as_secs());
        self.number(span.subsec_nanos());
    }

    fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.bytes(text.as_bytes());
    }

    /// By its stored form: for values that are small or rare.
    fn stored(&mut self, value: &impl serde::Serialize) {
        let text = serde_json::to_string(value);
        assert!(text.is_ok(), "state encodes: {text:?}");
        self.text(text.as_deref().unwrap_or_default());
    }
}

impl Cluster {
    /// Hash of all state that decides.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        let Self {
            position,
            last_hash,
            format,
            epoch,
            leader,
            directors,
            era,
            lost,
            last_token,
            last_session,
            last_incarnation,
            spec_changed,
            services,
            service_ids,
            partitions,
            agents,
            sessions,
            expired,
            staged,
            credentials,
            repeats,
        } = self;
        let mut sum = Sum::new();
        for number in [
            position.0,
            *last_hash,
            epoch.0,
            u64::from(era.0),
            last_token.0,
            last_session.0,
            last_incarnation.0,
            spec_changed.0,
        ] {
            sum.number(number);
        }
        // Of a ledger that has its first format, and of a cluster that never lost anything, the hash stays
        // what it was.
        if !format.is_first() {
            sum.number(format.0);
        }
        if let Some(lost) = lost {
            sum.stored(lost);
        }
        if let Some(Leader {
            name: _,
            id,
            address: _,
            elected_by,
        }) = leader
        {
            sum.number(*id);
            sum.number(elected_by.writer);
            sum.number(elected_by.sequence);
        }
        for DirectorInfo {
            name,
            id,
            address: _,
            version: _,
            format,
            oldest_format: _,
        } in directors.values()
        {
            sum.text(name.as_str());
            sum.number(*id);
            sum.number(format.0);
        }
        slab(&mut sum, services, service);
        service_ids.values().for_each(|id| sum.number(id.0));
        slab(&mut sum, partitions, partition);
        agents.values().for_each(|one| agent(&mut sum, one));
        sessions.values().for_each(|one| session(&mut sum, one));
        expired.values().for_each(|one| session(&mut sum, one));
        if let Some(Staged { change, records }) = staged {
            sum.number(change.writer);
            sum.number(change.sequence);
            sum.stored(records);
        }
        tokens(&mut sum, credentials);
        answers(&mut sum, repeats);
        sum.digest()
    }
}

/// When one expires decides, and so does the order in which they are forgotten.
fn tokens(sum: &mut Sum, credentials: &Credentials) {
    for ApiToken {
        grant,
        created: _,
        at,
        revoked,
    } in credentials.tokens().values()
    {
        sum.stored(grant);
        sum.number(at.0);
        sum.number(revoked.is_some());
    }
    for JoinToken {
        grant,
        created: _,
        at,
        revoked,
        used,
    } in credentials.join_tokens().values()
    {
        sum.stored(grant);
        sum.number(at.0);
        sum.number(revoked.is_some());
        sum.stored(used);
    }
    sum.stored(credentials.bars());
}

/// In the order in which they came, which decides what is forgotten next; and when, which decides it too.
fn answers(sum: &mut Sum, repeats: &Repeats) {
    for Before {
        key,
        at,
        wall,
        told,
    } in repeats.in_order()
    {
        sum.bytes(&key.of.0.to_le_bytes());
        sum.bytes(&key.request.0.to_le_bytes());
        sum.number(at.0);
        sum.number(wall.0.cast_unsigned());
        sum.stored(told);
    }
}

fn slab<T>(sum: &mut Sum, slab: &Slab<T>, each: impl Fn(&mut Sum, &T)) {
    for (slot, value) in slab.iter() {
        sum.number(slot);
        each(sum, value);
    }
    sum.count(slab.slots());
    // The order decides which slot is used next.
    slab.free().iter().for_each(|slot| sum.number(*slot));
}

fn service(sum: &mut Sum, service: &Service) {
    let Service {
        name,
        spec,
        spec_version,
        desired,
        removed,
        problem,
        partitions,
        doomed,
        revision: _,
        list_revision: _,
    } = service;
    sum.text(name.as_str());
    sum.stored(spec);
    sum.number(spec_version.0);
    sum.number(*desired as u8);
    sum.number(*removed);
    sum.text(problem.as_deref().unwrap_or_default());
    for PartitionId(id) in partitions.values() {
        sum.number(*id);
    }
    sum.count(*doomed);
}

fn partition(sum: &mut Sum, partition: &Partition) {
    let Partition {
        key,
        service,
        weight,
        state,
        since: _,
        changed,
        data_version,
        run,
        desired,
        doomed,
        troubles: _,
        extra,
        revision: _,
    } = partition;
    sum.text(key.as_str());
    sum.number(service.0);
    sum.number(*weight);
    sum.number(changed.0);
    sum.number(data_version.0);
    sum.number(partition.restarts_asked());
    sum.number(partition.failures());
    sum.number(*desired as u8);
    sum.number(*doomed);
    rights(sum, state);
    if let Some(Told {
        phase,
        attempt,
        pid: _,
    }) = run
    {
        sum.number(*phase as u8);
        sum.number(*attempt);
    }
    if let Some(extra) = extra {
        let Extra {
            data,
            labels,
            priority,
            checkpoint,
        } = &**extra;
        sum.text(data.as_deref().unwrap_or_default());
        labels.iter().for_each(|(name, value)| {
            sum.text(name);
            sum.text(value);
        });
        sum.number(u64::from(priority.cast_unsigned()));
        if let Some(Checkpoint {
            token,
            number,
            at: _,
            content,
        }) = checkpoint.as_deref()
        {
            sum.number(token.0);
            sum.number(*number);
            sum.count(content.as_bytes().len());
            sum.bytes(content.as_bytes());
        }
    }
}

fn rights(sum: &mut Sum, state: &State) {
    let (kind, holder) = match state {
        State::Unassigned(freed) => {
            sum.number(match freed {
                Freed::New => 0u8,
                Freed::Taken { reason, .. } => 16 + *reason as u8,
                Freed::GivenBack { outcome, .. } => 32 + *outcome as u8,
                Freed::Expired { .. } => 48,
                Freed::Closed { reason, .. } => 64 + *reason as u8,
            });
            sum.text(freed.from().map_or("", |agent| agent.as_str()));
            (0u8, None)
        }
        State::Assigned(holder) => (1, Some(holder)),
        State::Assumed(holder) => (2, Some(holder)),
        State::Stopping(holder, reason) => {
            sum.number(*reason as u8);
            (3, Some(holder))
        }
    };
    sum.number(kind);
    if let Some(holder) = holder {
        sum.number(holder.session.0);
        sum.number(holder.token.0);
    }
}

fn agent(sum: &mut Sum, agent: &Agent) {
    let Agent {
        info,
        schedulable,
        incarnation,
        process,
        sessions,
        expired,
        last_seen: _,
        joined,
        revision: _,
    } = agent;
    let AgentInfo {
        name,
        id,
        place: _,
        labels,
        capacity,
        containment,
        version: _,
    } = info;
    sum.text(name.as_str());
    sum.number(*id);
    sum.stored(labels);
    sum.stored(capacity);
    sum.number(*containment as u8);
    sum.number(*schedulable as u8);
    sum.number(incarnation.0);
    sum.number(*process);
    sessions.iter().for_each(|id| sum.number(id.0));
    expired.iter().for_each(|id| sum.number(id.0));
    sum.number(joined.0);
}

fn session(sum: &mut Sum, session: &Session) {
    let Session {
        id,
        agent,
        place,
        lease,
        secret_hash,
        incarnation,
        opened,
        held,
        gone,
        gone_known_from,
        changed,
        silent_ms,
    } = session;
    sum.number(id.0);
    sum.text(agent.as_str());
    let Place {
        machine,
        boot,
        folder,
    } = &**place;
    sum.text(machine);
    sum.text(boot);
    sum.number(*folder);
    let LeaseTimes {
        lease,
        renew_every,
        grace,
        kill,
    } = lease;
    [lease, renew_every, grace, kill]
        .into_iter()
        .for_each(|span| sum.span(*span));
    sum.text(secret_hash);
    sum.number(incarnation.0);
    sum.number(opened.0);
    held.iter().for_each(|id| sum.number(id.0));
    for (at, token) in gone {
        sum.number(at.0);
        sum.number(token.0);
    }
    sum.number(gone_known_from.0);
    sum.number(changed.0);
    sum.number(*silent_ms);
}
