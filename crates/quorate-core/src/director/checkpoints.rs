//! What owners say of their progress: by way of their agents, many at once, or each for itself.
//! Everything here may be repeated.

use crate::checkpoint::Content;
use crate::cluster::{Partition, State};
use crate::ids::{PartitionId, PartitionKey, ServiceName, Token};
use crate::planted::Planted;
use crate::record::Record;

use super::Director;
use super::batch::Reply;
use super::call::{Answer, Checkpoints, Refusal};
use super::calls::{Decided, fenced, not_found, over};

impl Director {
    pub(super) fn decide_checkpoints(&self, checkpoints: Checkpoints) -> Decided {
        let Checkpoints {
            session,
            incarnation,
            given,
        } = checkpoints;
        let agent = self.agent_heard(session).ok_or_else(over)?;
        if incarnation != agent.incarnation() {
            return Err(fenced());
        }
        let mut records = Vec::new();
        let mut asked = Vec::new();
        for written in given {
            let (id, token, number) = (written.partition, written.token, written.number);
            asked.push((id, token, number));
            let partition = self.cluster.partition(id);
            let held = partition.and_then(Partition::running_under);
            let may = held.is_some_and(|held| held.session == session && held.token == token)
                || self.plants.has(Planted::TokenlessCheckpoints);
            // Of a token that has ended nothing is written, and the answer says so.
            if may && !self.has_checkpoint(id, token, number) {
                records.push(Record::CheckpointPut {
                    partition: id,
                    token,
                    number,
                    content: written.content,
                    tell: false,
                });
            }
        }
        Ok((records, Reply::Checkpoints { asked }))
    }

    /// Of an owner that speaks for itself: there is no number to tell a repeat by, the key of the call
    /// does that.
    pub(super) fn decide_checkpoint(
        &self,
        service: &ServiceName,
        key: &PartitionKey,
        (token, number): (Token, Option<u64>),
        content: Content,
    ) -> Decided {
        self.known_service(service)?;
        let id = self.cluster.partition_id(service, key);
        let found = id.and_then(|id| Some((id, self.cluster.partition(id)?)));
        let (id, partition) =
            found.ok_or_else(|| not_found("partition", &format!("{service}/{key}")))?;
        let held = partition.running_under();
        let held = held.filter(|holder| self.cluster.session(holder.session).is_some());
        let tokenless = self.plants.has(Planted::TokenlessCheckpoints);
        if held.map(|holder| holder.token) != Some(token) && !tokenless {
            return Err(Refusal::Fenced(self.ended(partition, token)));
        }
        let last = partition.checkpoint().filter(|last| last.token == token);
        let number = match (last, number) {
            (None, None) => 1,
            (None, Some(number)) => number,
            (Some(last), None) => last.number.saturating_add(1),
            (Some(last), Some(number)) if number > last.number => number,
            // It was kept, and the answer was lost.
            (Some(last), Some(number)) if number == last.number && content == last.content => {
                return Ok((Vec::new(), Reply::done()));
            }
            (Some(last), Some(number)) => {
                return Err(Refusal::Conflict(format!(
                    "checkpoint {number} is not later than number {} of this token, which is kept",
                    last.number
                )));
            }
        };
        let record = Record::CheckpointPut {
            partition: id,
            token,
            number,
            content,
            tell: true,
        };
        Ok((vec![record], Reply::done()))
    }

    /// Whether this or a later one under the same or a later token is there.
    fn has_checkpoint(&self, id: PartitionId, token: Token, number: u64) -> bool {
        let partition = self.cluster.partition(id);
        let last = partition.and_then(Partition::checkpoint);
        last.is_some_and(|last| last.token == token && last.number >= number)
    }

    /// Which of them the fold holds, or a later one in their place.
    pub(super) fn checkpoints_kept(&self, asked: &[(PartitionId, Token, u64)]) -> Answer {
        let mut kept = Vec::new();
        let mut refused = Vec::new();
        for &(id, token, number) in asked {
            if self.has_checkpoint(id, token, number) {
                kept.push(token);
            } else {
                let partition = self.cluster.partition(id);
                let why = partition.map_or_else(
                    || "the partition was removed".to_owned(),
                    |partition| self.ended(partition, token),
                );
                refused.push((token, why));
            }
        }
        Answer::Checkpoints { kept, refused }
    }

    /// Why a token may not write, for people.
    fn ended(&self, partition: &Partition, token: Token) -> String {
        match partition.state() {
            State::Assumed(holder) | State::Stopping(holder, _) | State::Assigned(holder)
                if holder.token > token =>
            {
                format!(
                    "token {token} has ended: the partition is held under token {}",
                    holder.token
                )
            }
            State::Assigned(holder) if holder.token == token => {
                format!("token {token} is assigned and not assumed yet")
            }
            State::Assumed(holder) | State::Stopping(holder, _)
                if holder.token == token && self.cluster.session(holder.session).is_none() =>
            {
                format!("the session that held token {token} has expired")
            }
            State::Stopping(..) | State::Assumed(_) | State::Assigned(_) | State::Unassigned(_) => {
                format!("the partition is not held under token {token}")
            }
        }
    }
}
