//! What a session has to tell the directors: gathered while a report is under way, sent as one.
//!
//! Must never change a report that was sent: a repeat has the same number and the same content, so
//! that the directors may have folded the first one already.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Opened, Report, retry_wait};
use crate::director::call::Release;
use crate::ids::{PartitionId, Token};
use crate::record::{ReleaseOutcome, RunReport};
use crate::time::Moment;

/// Most lines of one kind in a report: it must fit one entry of the ledger.
const LINES_MAX: usize = 500;

/// Things to tell, and the one report that is under way.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    assume: BTreeMap<Token, PartitionId>,
    release: BTreeMap<Token, Release>,
    observed: BTreeMap<Token, (PartitionId, RunReport)>,
    sequence: u64,
    sent: Option<Report>,
    tries: u32,
    again_at: Option<Moment>,
}

impl Outbox {
    pub(super) fn assume(&mut self, partition: PartitionId, token: Token) {
        self.assume.insert(token, partition);
    }

    /// What was seen of a run that ended for good goes with its end: it may have ended before anything of
    /// it was told. Of one that was stopped there is nothing more to know.
    pub(super) fn release(&mut self, release: Release) {
        match release.outcome {
            ReleaseOutcome::Stopped | ReleaseOutcome::Move => {
                self.observed.remove(&release.token);
            }
            ReleaseOutcome::Done | ReleaseOutcome::Failed => {}
        }
        self.assume.remove(&release.token);
        self.release.insert(release.token, release);
    }

    /// Only the latest of each run is told.
    pub(super) fn observe(&mut self, partition: PartitionId, token: Token, run: RunReport) {
        self.observed.insert(token, (partition, run));
    }

    /// Nothing more is to be said about a token.
    pub(super) fn drop(&mut self, token: Token) {
        self.assume.remove(&token);
        self.release.remove(&token);
        self.observed.remove(&token);
    }

    /// Takes back a claim that was not sent yet. Says whether that was in time.
    pub(super) fn withdraw(&mut self, token: Token) -> bool {
        self.assume.remove(&token).is_some()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.sent.is_none()
            && self.assume.is_empty()
            && self.release.is_empty()
            && self.observed.is_empty()
    }

    /// When the report under way is to be repeated.
    pub(super) const fn wake_at(&self) -> Option<Moment> {
        self.again_at
    }

    /// The next report to send: the one without an answer again when its time has come, otherwise a
    /// new one if none is under way and there is something to tell.
    pub(super) fn next(&mut self, now: Moment, opened: Opened, claims: bool) -> Option<Report> {
        if let Some(sent) = &self.sent {
            if self.again_at.is_some_and(|at| now >= at) {
                self.again_at = None;
                return Some(sent.clone());
            }
            return None;
        }
        let nothing = self.release.is_empty() && self.observed.is_empty();
        if nothing && (!claims || self.assume.is_empty()) {
            return None;
        }
        self.sequence += 1;
        let report = Report {
            session: opened.session,
            incarnation: opened.incarnation,
            sequence: self.sequence,
            assume: if claims {
                take(&mut self.assume)
                    .map(|(token, partition)| (partition, token))
                    .collect()
            } else {
                Vec::new()
            },
            release: take(&mut self.release)
                .map(|(_, release)| release)
                .collect(),
            observed: take(&mut self.observed)
                .map(|(token, (partition, run))| (partition, token, run))
                .collect(),
        };
        self.sent = Some(report.clone());
        Some(report)
    }

    /// The report with this sequence was answered; `None` when it is not the one under way.
    pub(super) fn answered(&mut self, sequence: u64) -> Option<Report> {
        self.sent
            .take_if(|sent| sent.sequence == sequence)
            .inspect(|_| {
                self.tries = 0;
                self.again_at = None;
            })
    }

    /// The report with this sequence had no answer.
    pub(super) fn unanswered(&mut self, now: Moment, sequence: u64) {
        if self
            .sent
            .as_ref()
            .is_some_and(|sent| sent.sequence == sequence)
        {
            self.tries = self.tries.saturating_add(1);
            let wait = retry_wait(sequence, self.tries).min(Duration::from_secs(1));
            self.again_at = Some(now + wait);
        }
    }
}

fn take<V>(map: &mut BTreeMap<Token, V>) -> impl Iterator<Item = (Token, V)> {
    let rest = match map.keys().nth(LINES_MAX).copied() {
        Some(first) => map.split_off(&first),
        None => BTreeMap::new(),
    };
    std::mem::replace(map, rest).into_iter()
}
