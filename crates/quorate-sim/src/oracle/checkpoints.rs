//! How far runs have come: what was told as kept is found by whoever comes next, in the order of tokens,
//! and nobody whose right has ended changes it.

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::director::call::Checkpoints;
use quorate_core::ids::{PartitionId, PartitionKey, ServiceName, Token};
use quorate_core::record::Record;

use super::Oracle;
use crate::clock::Instant;

/// What a run says: its token, and a number that rises with everything that anybody says.
pub(crate) type Word = (Token, u64);

/// What is in the ledger of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    /// The last that counts for each slot, with the number that its agent gave it.
    last: BTreeMap<PartitionId, (Word, u64)>,
    /// What there was when a token's right began.
    found: BTreeMap<Token, Option<Word>>,
    /// Everything under a token that has counted, with the numbers of the agent.
    counted: BTreeMap<Token, BTreeMap<u64, u64>>,
    /// The last that a living run was told as kept.
    told: BTreeMap<PartitionId, Word>,
    /// Where each name was last seen to run, and the name that was last seen in each slot.
    slots: BTreeMap<String, PartitionId>,
    names: BTreeMap<PartitionId, String>,
    /// Counts records, to tell what came after what.
    ordinal: u64,
    /// When each token was given, and each name or service, as `name/`, removed.
    given_at: BTreeMap<Token, u64>,
    removed_at: BTreeMap<String, u64>,
    /// Tokens whose partition was removed: nothing of theirs outlives that.
    removed: BTreeSet<Token>,
}

impl Words {
    /// A name runs in a slot now, and no other one does.
    fn runs_in(&mut self, name: &str, slot: PartitionId) {
        if self.names.get(&slot).is_some_and(|known| known == name) {
            return;
        }
        if let Some(before) = self.slots.insert(name.to_owned(), slot) {
            self.names.remove(&before);
        }
        if let Some(other) = self.names.insert(slot, name.to_owned()) {
            self.slots.remove(&other);
        }
    }

    /// The slot of a name that is gone.
    fn leaves(&mut self, name: &str) -> Option<PartitionId> {
        let slot = self.slots.remove(name)?;
        self.names.remove(&slot);
        Some(slot)
    }
}

/// What a run says, as bytes.
pub(crate) fn written((token, number): Word) -> [u8; 16] {
    let mut bytes = [0; 16];
    let (first, second) = bytes.split_at_mut(8);
    first.copy_from_slice(&token.0.to_be_bytes());
    second.copy_from_slice(&number.to_be_bytes());
    bytes
}

/// What was said, from its bytes.
pub(crate) fn read(bytes: &[u8]) -> Option<Word> {
    let (first, second) = bytes.split_at_checked(8)?;
    let token = u64::from_be_bytes(first.try_into().ok()?);
    Some((Token(token), u64::from_be_bytes(second.try_into().ok()?)))
}

impl Oracle {
    /// What a record says about how far somebody has come.
    pub(super) fn follow_words(&mut self, record: &Record) {
        self.words.ordinal += 1;
        let ordinal = self.words.ordinal;
        match record {
            Record::Assigned { token, .. } => {
                self.words.given_at.insert(*token, ordinal);
            }
            Record::CheckpointPut {
                partition,
                token,
                number,
                content,
                ..
            } => match read(content.as_bytes()) {
                Some(word) => self.said(*partition, *token, *number, word),
                None => self.blame("S4", format!("what {token} said is not what is written")),
            },
            Record::PartitionsRemoved { service, keys } => {
                for key in keys {
                    let name = name_of(service, key);
                    self.words_removed(&name);
                    self.words.removed_at.insert(name, ordinal);
                }
            }
            Record::ServiceRemoved { name } => {
                let of_it = format!("{name}/");
                let names = self.words.slots.keys();
                let names = names.filter(|name| name.starts_with(&of_it)).cloned();
                for name in names.collect::<Vec<_>>() {
                    self.words_removed(&name);
                }
                self.words.removed_at.insert(of_it, ordinal);
            }
            Record::Elected { .. }
            | Record::Beat
            | Record::DirectorKnown { .. }
            | Record::DirectorForgotten { .. }
            | Record::Format { .. }
            | Record::ServicePut { .. }
            | Record::PartitionsPut { .. }
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
            | Record::Withdrawn { .. }
            | Record::Assumed { .. }
            | Record::Revoked { .. }
            | Record::Released { .. }
            | Record::Observed { .. }
            | Record::Access(_)
            | Record::Audited(_)
            | Record::Answered(_) => {}
        }
    }

    /// Counts only from whoever has the right to run, and above all that it said before.
    fn said(&mut self, slot: PartitionId, token: Token, number: u64, word: Word) {
        let session = self.assumed.get(&token);
        let over = session.is_none_or(|session| self.ended.contains_key(session));
        let last = self.words.last.get(&slot).copied();
        let late = last.is_some_and(|((by, _), before)| by == token && before >= number);
        if over || late || !self.rights.is_open(slot, token) || self.words.removed.contains(&token)
        {
            return;
        }
        self.words.last.insert(slot, (word, number));
        let counted = self.words.counted.entry(token).or_default();
        counted.insert(number, word.1);
    }

    fn words_removed(&mut self, name: &str) {
        let Some(slot) = self.words.leaves(name) else {
            return;
        };
        self.words.last.remove(&slot);
        self.words.told.remove(&slot);
        let open: Vec<Token> = self.rights.open_tokens(slot).collect();
        self.words.removed.extend(open);
    }

    /// Whether a partition was removed after it was given under a token.
    fn removed_since(&self, name: &str, token: Token) -> bool {
        let service = name
            .split_once('/')
            .map(|(service, _)| format!("{service}/"));
        let removed = |name: &str| self.words.removed_at.get(name).copied();
        let last = removed(name).max(service.as_deref().and_then(removed));
        last > self.words.given_at.get(&token).copied()
    }

    /// The right of a token begins: this is what its runs find.
    pub(super) fn checkpoint_found(&mut self, slot: PartitionId, token: Token) {
        let last = self.words.last.get(&slot).map(|(word, _)| *word);
        self.words.found.insert(token, last);
    }

    /// A director answers that it keeps what was said under these tokens.
    pub(super) fn kept(&mut self, asked: &Checkpoints, kept: &[Token]) {
        for written in asked.given.iter().filter(|one| kept.contains(&one.token)) {
            let counted = self.words.counted.get(&written.token);
            let last = counted.and_then(|counted| counted.keys().next_back());
            if last.is_none_or(|last| *last < written.number) {
                let seen = format!(
                    "checkpoint {} of {} was told as kept and is not in the ledger",
                    written.number, written.token
                );
                self.blame("S4", seen);
            }
        }
    }

    /// A living run hears that what it said is kept.
    pub(crate) fn told_as_kept(&mut self, now: Instant, word: Word) {
        let (token, number) = word;
        let Some(slot) = self.assigned.get(&token).copied() else {
            return;
        };
        if !self.executes(token) || self.words.removed.contains(&token) || self.lost.has(token) {
            return;
        }
        let counted = self.words.counted.get(&token);
        let last = counted.and_then(|counted| counted.values().max());
        if last.is_none_or(|last| *last < number) {
            let seen = format!(
                "{now}: {token} was told that its word {number} is kept, the last one is {last:?}"
            );
            self.blame("S4", seen);
        }
        let told = self.words.told.entry(slot).or_default();
        *told = (*told).max(word);
    }

    /// A run starts and reads how far the ones before have come.
    pub(crate) fn reads(&mut self, now: Instant, name: &str, token: Token, given: Option<Word>) {
        let Some(slot) = self.assigned.get(&token).copied() else {
            return;
        };
        if self.words.removed.contains(&token) || self.lost.has(token) {
            return;
        }
        if self.removed_since(name, token) {
            self.words.removed.insert(token);
            return;
        }
        self.words.runs_in(name, slot);
        let found = self.words.found.get(&token).copied().flatten();
        let told = self.words.told.get(&slot).copied();
        let told = told.filter(|(by, _)| *by <= token);
        let own = given.filter(|(by, _)| *by == token);
        let right = match own {
            Some((_, number)) => {
                let counted = self.words.counted.get(&token);
                counted.is_some_and(|counted| counted.values().any(|one| *one == number))
            }
            None => given == found,
        };
        if !right {
            let seen = format!("{now}: {name} under {token} reads {given:?}, there was {found:?}");
            self.blame("S2", seen);
        }
        if given < told {
            let seen =
                format!("{now}: {name} under {token} reads {given:?}, {told:?} was told as kept");
            self.blame("S4", seen);
        }
    }
}

fn name_of(service: &ServiceName, key: &PartitionKey) -> String {
    format!("{service}/{key}")
}
