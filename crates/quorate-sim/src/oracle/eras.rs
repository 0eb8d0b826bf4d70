//! What a restore makes of all that was seen. What the backup did not know has not happened for the cluster,
//! and everything that executes goes on.

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::ids::{AgentName, Epoch, HookName, Position, ServiceName, SessionId, Token};
use quorate_core::record::Schedulable;

use super::Oracle;
use super::checkpoints::Words;

/// What the ledger says at some moment, as far as it is judged by it later.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    agents: BTreeMap<AgentName, Vec<(Position, Schedulable)>>,
    words: Words,
    fences: BTreeMap<ServiceName, Option<HookName>>,
    /// Tokens whose right had begun and not ended.
    open: BTreeSet<Token>,
}

/// What was before the last restore.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Every session that was ever opened: all that are finite must be over when the new era begins.
    sessions: BTreeSet<SessionId>,
    /// The highest token that was ever given.
    highest: Token,
    /// Tokens that the backup did not know to be in force, and which may be.
    unknown: BTreeSet<Token>,
}

impl Lost {
    /// Whether a token is of before: what its runs say and read is not judged any more.
    pub(super) fn has(&self, token: Token) -> bool {
        token <= self.highest
    }
}

impl Oracle {
    /// What is to count again when the cluster is restored to this moment.
    pub(crate) fn known(&self) -> Known {
        Known {
            agents: self.agents.clone(),
            words: self.words.clone(),
            fences: self.rights.fences().clone(),
            open: self.rights.all_open(),
        }
    }

    /// All directors were lost, and restored to an earlier moment. The ledger goes on behind `position`.
    pub(crate) fn restored(&mut self, known: Known, (position, epoch): (Position, Epoch)) {
        let Known {
            agents,
            words,
            fences,
            open,
        } = known;
        // What an earlier backup did not know and was still waited for, this one does not know either.
        let mut unknown = std::mem::take(&mut self.lost.unknown);
        unknown.extend(self.rights.all_open().difference(&open));
        self.lost = Lost {
            sessions: self.opened.clone(),
            highest: self.highest,
            unknown,
        };
        self.agents = agents;
        self.words = words;
        self.rights.set_fences(fences);
        self.last = position;
        self.epoch = epoch;
        self.hashes.clear();
        self.staged.clear();
        self.speaks.clear();
        self.told_sessions.clear();
    }

    /// Everything from before is said to be over: nothing of it executes. What the backup did not know asked
    /// for no hook, because nobody knew of it.
    pub(super) fn era_begins(&mut self, position: Position) {
        for session in std::mem::take(&mut self.lost.sessions) {
            if self.ended.contains_key(&session) {
                continue;
            }
            if self.timed {
                self.session_is_over(position, session);
            }
            self.ended.entry(session).or_insert(position);
            self.lease_over(session);
        }
        let unknown = std::mem::take(&mut self.lost.unknown);
        self.rights.end_all(&unknown);
    }
}
