//! What an agent reports: claims, ends, and what became of its runs. Everything here may be repeated.

use crate::cluster::{Holder, Run, State};
use crate::ids::{PartitionId, SessionId, Token};
use crate::record::{MoveReason, Record, RunReport};

use super::Director;
use super::batch::Reply;
use super::call::{Release, Report};
use super::calls::{Decided, fenced, over};

impl Director {
    pub(super) fn decide_report(&mut self, report: Report) -> Decided {
        let session = report.session;
        let agent = self.agent_heard(session).ok_or_else(over)?;
        if report.incarnation != agent.incarnation() {
            return Err(fenced());
        }
        let newest = self.is_newest(&report);
        let mut records = Vec::new();
        if newest {
            // Before the ends, so that a run that is given back was seen before.
            let seen = report.observed.into_iter();
            records.extend(seen.filter_map(|(id, token, run)| self.seen(session, id, token, run)));
        }
        let releases = report.release.into_iter();
        records.extend(releases.filter_map(|release| self.given_back(session, release)));
        let claims = report.assume.iter();
        records.extend(claims.filter_map(|(id, token)| self.assumed(session, *id, *token)));
        let reply = Reply::Reported {
            session,
            sequence: report.sequence,
            claims: report.assume,
        };
        Ok((records, reply))
    }

    /// Whether no later report of the session has come: what an older one saw is no longer so.
    fn is_newest(&mut self, report: &Report) -> bool {
        let this = (report.incarnation, report.sequence);
        let last = self.reports.entry(report.session).or_insert(this);
        *last = this.max(*last);
        *last == this
    }

    /// The state of a partition, if this session holds it under this token.
    fn held(&self, session: SessionId, id: PartitionId, token: Token) -> Option<&State> {
        let partition = self.cluster.partition(id)?;
        let holder = Holder { session, token };
        (partition.holder() == Some(holder)).then(|| partition.state())
    }

    fn assumed(&self, session: SessionId, id: PartitionId, token: Token) -> Option<Record> {
        let assigned = match self.held(session, id, token)? {
            State::Assigned(_) => true,
            State::Assumed(_) | State::Stopping(..) | State::Unassigned(_) => false,
        };
        assigned.then_some(Record::Assumed {
            partition: id,
            session,
            token,
        })
    }

    fn given_back(&self, session: SessionId, release: Release) -> Option<Record> {
        let Release {
            partition,
            token,
            outcome,
            exit,
            failures,
        } = release;
        let (session, token) = self.ended_right(session, partition, token);
        match self.held(session, partition, token)? {
            State::Unassigned(_) => None,
            // Nothing ran yet, and the agent does not want it: another one may.
            State::Assigned(_) => Some(Record::Withdrawn {
                partition,
                token,
                reason: MoveReason::Unacknowledged,
            }),
            State::Assumed(_) | State::Stopping(..) => Some(Record::Released {
                partition,
                token,
                outcome,
                exit,
                failures,
            }),
        }
    }

    fn seen(
        &self,
        session: SessionId,
        id: PartitionId,
        token: Token,
        run: RunReport,
    ) -> Option<Record> {
        self.held(session, id, token)?;
        let partition = self.cluster.partition(id)?;
        let known = partition.running_under().is_some() && partition.run() == Some(Run::from(&run));
        (!known).then_some(Record::Observed {
            partition: id,
            token,
            run,
        })
    }
}
