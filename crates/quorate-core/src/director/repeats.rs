//! Calls of people and programs: who asked is told with the change, and a call that was done before, under the
//! same idempotency key, is answered as it was then and done no second time.
//!
//! A key is looked up in a fold that holds everything that was decided before, so a call must never be decided
//! while the entry in the making holds an answer under its key: it waits for the next entry.

use crate::access;
use crate::audit::Audit;
use crate::ids::{CredentialId, ServiceName};
use crate::record::Record;
use crate::repeats::{Answered, Before, Key, Told};

use super::Director;
use super::batch::{Batch, Reply};
use super::call::{AccessCall, Attributed, Call, Refusal};
use super::calls::Decided;
use super::event::Now;

impl Director {
    /// Who asked stands behind what he has changed, in the same entry, and behind that what he is answered;
    /// where nothing changes, nothing is told and nothing need be remembered.
    pub(super) fn decide_attributed(
        &mut self,
        now: Now,
        batch: &mut Batch,
        Attributed { by, key, call }: Attributed,
    ) -> Decided {
        let elsewhere = matches!(call, Call::Membership { .. });
        // That it is told says nothing of whether the quorum was changed.
        let key = key.filter(|_| !elsewhere);
        if let Some(key) = key
            && let Some(before) = self.cluster.repeats().before(key.of, now.wall)
        {
            return answer_again(before, key, &call);
        }
        let audit = Audit::of(by, &call);
        let created = created(&call).map(|(_, id)| id.clone());
        let (mut records, reply) = self.decide_call(now, batch, call)?;
        if records.is_empty() && !elsewhere {
            return Ok((records, reply));
        }
        let mut its_own = of_last_entry(&records);
        if let Some(mut audit) = audit {
            audit.records = its_own;
            its_own += 1;
            records.push(Record::Audited(Box::new(audit)));
        }
        if let (Some(key), Some(told)) = (key, told(&reply)) {
            records.push(Record::Answered(Box::new(Answered {
                key,
                records: its_own,
                told: told.with_secret_of(created),
            })));
        }
        Ok((records, reply))
    }
}

/// Whether the entry in the making holds an answer under the key of a call.
pub(super) fn is_done_in(batch: &Batch, call: &Call) -> bool {
    let Call::Attributed(attributed) = call else {
        return false;
    };
    let Some(key) = attributed.key else {
        return false;
    };
    let mut records = batch.records().iter();
    records.any(|record| matches!(record, Record::Answered(answered) if answered.key.of == key.of))
}

/// As the first time, as far as that is known.
fn answer_again(before: &Before, key: Key, call: &Call) -> Decided {
    let Before {
        key: known,
        at,
        wall: _,
        told,
    } = before;
    if key.request != known.request {
        return Err(Refusal::OtherRequest);
    }
    if let (Some((what, _)), Some(id)) = (created(call), told.created()) {
        let id = id.clone();
        return Err(Refusal::ShownOnce { what, id });
    }
    let applied = applied_to(call).zip(told.applied());
    let reply = Reply::Again {
        position: *at,
        notes: told.notes().to_vec(),
        applied: applied
            .map(|(name, applied)| (name.clone(), *applied))
            .collect(),
    };
    Ok((Vec::new(), reply))
}

/// How many records of a change are in its last entry. One that is spread over several counts with its last
/// part, and those before it cannot be refused.
fn of_last_entry(records: &[Record]) -> usize {
    match records.last() {
        Some(Record::Staged { .. }) => 1,
        Some(_) | None => records.len(),
    }
}

fn told(reply: &Reply) -> Option<Told> {
    let Reply::Done { notes, applied, .. } = reply else {
        return None;
    };
    Some(Told::of(notes, applied.iter().map(|(_, applied)| *applied)))
}

/// The services of an apply, in the order of its answer.
fn applied_to(call: &Call) -> impl Iterator<Item = &ServiceName> {
    let call = if let Call::Conditional(conditional) = call {
        &conditional.call
    } else {
        call
    };
    let services = if let Call::Apply { services } = call {
        services.as_slice()
    } else {
        &[]
    };
    services.iter().map(|(name, _)| name)
}

/// The token that a call creates: only the shell that has drawn its secret can tell it.
fn created(call: &Call) -> Option<(&'static str, &CredentialId)> {
    let Call::Access(call) = call else {
        return None;
    };
    match &**call {
        AccessCall::Change(access::Record::TokenCreated(grant)) => Some(("token", &grant.id)),
        AccessCall::Change(access::Record::JoinTokenCreated(grant)) => {
            Some(("join-token", &grant.id))
        }
        AccessCall::Change(
            access::Record::TokenRevoked { .. }
            | access::Record::JoinTokenRevoked { .. }
            | access::Record::Admitted(_),
        )
        | AccessCall::Bootstrap(_)
        | AccessCall::Admit { .. } => None,
    }
}
