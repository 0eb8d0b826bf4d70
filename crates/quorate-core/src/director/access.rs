//! Calls that change who may do what.

use crate::access::{self, Admission, Node, Record as Access, TokenGrant};
use crate::cluster::Leader;
use crate::record::Record;
use crate::time::WallTime;

use super::Director;
use super::batch::Reply;
use super::call::{AccessCall, Refusal};
use super::calls::Decided;

impl Director {
    pub(super) fn decide_access(&self, wall: WallTime, call: AccessCall) -> Decided {
        match call {
            AccessCall::Change(record) => self.decide_change(wall, record),
            AccessCall::Bootstrap(grant) => Ok(self.decide_bootstrap(wall, grant)),
            AccessCall::Admit { admission, machine } => {
                self.decide_admission(wall, admission, machine.as_deref())
            }
        }
    }

    fn decide_change(&self, wall: WallTime, record: Access) -> Decided {
        let credentials = self.cluster.credentials();
        credentials.check(wall, &record).map_err(refusal)?;
        let is_so = match &record {
            Access::TokenRevoked { id } => {
                let token = credentials.tokens().get(id);
                token.is_some_and(|token| token.revoked.is_some())
            }
            Access::JoinTokenRevoked { id } => {
                let token = credentials.join_tokens().get(id);
                token.is_some_and(|token| token.revoked.is_some())
            }
            Access::TokenCreated(_) | Access::JoinTokenCreated(_) | Access::Admitted(_) => false,
        };
        let records = (!is_so).then_some(Record::Access(record));
        Ok((records.into_iter().collect(), Reply::done()))
    }

    /// Only a cluster that nobody may administer takes an admin token from a director's folder, and each
    /// one once: what was revoked stays so, though its file is still there.
    fn decide_bootstrap(&self, wall: WallTime, mut grant: TokenGrant) -> (Vec<Record>, Reply) {
        let credentials = self.cluster.credentials();
        grant.bootstrap = true;
        let record = Access::TokenCreated(Box::new(grant));
        let wanted = !credentials.has_admin(wall) && credentials.check(wall, &record).is_ok();
        let records = wanted.then_some(Record::Access(record));
        (records.into_iter().collect(), Reply::done())
    }

    /// Nobody is let in under the name of another one that is known.
    fn decide_admission(
        &self,
        wall: WallTime,
        admission: Admission,
        machine: Option<&str>,
    ) -> Decided {
        let name = &admission.name;
        let again = self.cluster.credentials().has_let_in(&admission);
        let taken = match admission.node {
            Node::Agent => match self.cluster.agents().get(name.as_str()) {
                Some(known) if machine != Some(known.info().place.machine.as_str()) => {
                    Some(format!(
                        "another machine is the agent {name}; choose another name, or forget it when it is gone for good: `quorate rm agent/{name}`"
                    ))
                }
                // What it has would count no longer, with all that it runs.
                Some(known) if !known.sessions().is_empty() && !again => Some(format!(
                    "the agent {name} of this machine is alive, or was a moment ago; stop it and wait until its lease is over"
                )),
                Some(_) | None => None,
            },
            Node::Director => {
                let known = self.cluster.directors().contains_key(name.as_str());
                let leads = |leader: &Leader| leader.name.as_str() == name.as_str();
                (known || self.cluster.leader().is_some_and(leads)).then(|| format!(
                    "another machine is the director {name}; choose another name, or remove it when it is gone for good: `quorate cluster remove {name}`"
                ))
            }
        };
        if let Some(taken) = taken {
            return Err(Refusal::Conflict(taken));
        }
        let record = Access::Admitted(Box::new(admission));
        let checked = self.cluster.credentials().check(wall, &record);
        checked.map_err(refusal)?;
        let records = (!again).then_some(Record::Access(record));
        Ok((records.into_iter().collect(), Reply::done()))
    }
}

fn refusal(refused: access::Refused) -> Refusal {
    Refusal::Conflict(refused.to_string())
}
