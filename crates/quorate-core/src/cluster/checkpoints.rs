//! Folding how far the owners of a partition have come: a fenced write (S2). Only the token under which
//! something may execute now is taken, and only while its session is open, so whatever the next owner
//! finds was written before it was chosen.

use crate::checkpoint::{Checkpoint, Content};
use crate::ids::{PartitionId, Token};
use crate::record::MoveReason;

use super::apply::Fold;
use super::partition::State;
use super::{Cluster, Refused};

/// A checkpoint as it was written.
pub(super) struct Written {
    pub(super) token: Token,
    pub(super) number: u64,
    pub(super) content: Content,
    pub(super) tell: bool,
}

impl Cluster {
    pub(super) fn put_checkpoint(
        &mut self,
        fold: &Fold,
        id: PartitionId,
        written: Written,
    ) -> Result<(), Refused> {
        let sessions = &self.sessions;
        let partition = self.partitions.get_mut(id.0);
        let partition = partition.ok_or(Refused::NoPartition)?;
        let holder = match partition.state {
            // What it had is gone with it, and the next life under this key begins without.
            State::Stopping(_, MoveReason::Removed) => return Err(Refused::NotHolder),
            // Also on its way out: the last one is what the next owner needs most.
            State::Assumed(holder) | State::Stopping(holder, _) if !partition.doomed => holder,
            State::Assumed(_) | State::Stopping(..) | State::Assigned(_) | State::Unassigned(_) => {
                return Err(Refused::NotHolder);
            }
        };
        let Written {
            token,
            number,
            content,
            tell,
        } = written;
        // One that has expired and waits for a fence hook still holds, and must not be heard any more.
        if holder.token != token || !sessions.contains_key(&holder.session) {
            return Err(Refused::NotHolder);
        }
        let before = partition.checkpoint();
        if before.is_some_and(|before| before.token == token && before.number >= number) {
            return Err(Refused::Superseded);
        }
        let extra = partition.extra.get_or_insert_default();
        extra.checkpoint = Some(Box::new(Checkpoint {
            token,
            number,
            at: fold.wall,
            content,
        }));
        if tell {
            self.tell_holder(fold, id);
        }
        Ok(())
    }
}
