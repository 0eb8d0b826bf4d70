//! What requests with an idempotency key were answered, as far as the ledger keeps it: a repeat is answered
//! like the first time by whoever leads then, and nothing is done twice.
//!
//! A change carries its key into its own entry, so there is never one without the other. The fold remembers
//! the newest [`KEPT_MAX`] of the last [`KEPT_FOR`]. It must never hold a secret: what the first answer had of
//! that is told to nobody again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::director::call::Applied;
use crate::ids::{CredentialId, Position};
use crate::time::WallTime;

/// How many are remembered; the oldest go first.
pub const KEPT_MAX: usize = 4096;
/// How long one is remembered, by the wall times of the entries: who uses a key again much later means
/// something new. A wrong clock makes it too long or too short, and nothing worse.
pub const KEPT_FOR: Duration = Duration::from_secs(60 * 60);
/// Most bytes of what was told, in every snapshot and every director's memory.
const TOLD_BYTES_MAX: usize = 512;
/// Bytes of one word about a service.
const WORD_BYTES: usize = 10;
/// What stands for what was too long to be kept.
const CUT: &str =
    "this was done before, under the same idempotency key; what else was told of it is not kept";

/// Sixteen bytes of a SHA-256 that the shell has made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub u128);

/// The idempotency key of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Of who asks and of the key that he gave: nobody meets the keys of another.
    pub of: Digest,
    /// Of the whole request: another one under the same key is a mistake.
    pub request: Digest,
}

/// The record of an answer: it stands behind its change, in the same entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The key that the request came with.
    pub key: Key,
    /// How many records of the entry before this one are its change. Only if all of them are accepted is
    /// there anything to remember.
    pub records: usize,
    /// What is told.
    pub told: Told,
}

/// What was told of a change, beside the position of its entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The notes for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    /// What became of each service of an apply, in the order of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    applied: Vec<Applied>,
    /// The token whose secret the answer had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<CredentialId>,
}

impl Told {
    /// What of an answer is kept. What is too long is left out, and that is told instead.
    pub(crate) fn of(notes: &[String], applied: impl Iterator<Item = Applied>) -> Self {
        let (notes, applied) = (notes.to_vec(), applied.collect::<Vec<_>>());
        let bytes: usize = notes.iter().map(|note| note.len() + 3).sum();
        if bytes + applied.len() * WORD_BYTES > TOLD_BYTES_MAX {
            return Self {
                notes: vec![CUT.to_owned()],
                ..Self::default()
            };
        }
        Self {
            notes,
            applied,
            created: None,
        }
    }

    /// The same of an answer with the secret of a token.
    pub(crate) fn with_secret_of(self, created: Option<CredentialId>) -> Self {
        Self { created, ..self }
    }

    /// The notes for people.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What became of each service of an apply, in the order of the request; empty when it is not kept.
    #[must_use]
    pub fn applied(&self) -> &[Applied] {
        &self.applied
    }

    /// The token whose secret the answer had.
    #[must_use]
    pub fn created(&self) -> Option<&CredentialId> {
        self.created.as_ref()
    }
}

/// A request that was done, and how it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The key that it came with.
    pub key: Key,
    /// Where its change is.
    pub at: Position,
    /// When, by the leader's wall time.
    pub wall: WallTime,
    /// What was told.
    pub told: Told,
}

impl Before {
    fn is_over(&self, now: WallTime) -> bool {
        let long = i64::try_from(KEPT_FOR.as_millis()).unwrap_or(i64::MAX);
        now.0.saturating_sub(self.wall.0) >= long
    }
}

/// Those that are remembered: a part of the replicated state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repeats {
    by_key: BTreeMap<Digest, Before>,
    /// The oldest first; each of the others exactly once.
    order: VecDeque<Digest>,
}

impl Repeats {
    /// The request that was done under this key, unless it is too long ago at this wall time.
    #[must_use]
    pub fn before(&self, of: Digest, now: WallTime) -> Option<&Before> {
        let before = self.by_key.get(&of);
        before.filter(|before| !before.is_over(now))
    }

    /// How many are remembered, those that are over and not yet forgotten included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// All of them, in the order in which they came.
    pub fn in_order(&self) -> impl Iterator<Item = &Before> {
        self.order.iter().filter_map(|of| self.by_key.get(of))
    }

    /// Remembers one more, the newest of all.
    pub(crate) fn keep(&mut self, before: Before) {
        let of = before.key.of;
        if self.by_key.remove(&of).is_some() {
            // It was over: while it counts, nothing is done under its key.
            self.order.retain(|known| *known != of);
        }
        while let Some(oldest) = self.order.front() {
            let over = self.by_key.get(oldest);
            let over = over.is_none_or(|oldest| oldest.is_over(before.wall));
            if !over && self.order.len() < KEPT_MAX {
                break;
            }
            if let Some(oldest) = self.order.pop_front() {
                self.by_key.remove(&oldest);
            }
        }
        self.order.push_back(of);
        self.by_key.insert(of, before);
    }

    /// Every contradiction found, as sentences.
    pub(crate) fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.len() > KEPT_MAX || self.order.len() != self.len() {
            found.push(format!("{} answers are remembered", self.order.len()));
        }
        let known = self.order.iter().filter_map(|of| self.by_key.get(of));
        if known
            .zip(&self.order)
            .any(|(before, of)| before.key.of != *of)
        {
            found.push("an answer is remembered under another key".to_owned());
        }
        found
    }
}

/// In the order in which they came: that decides which goes first.
impl Serialize for Repeats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.in_order().collect::<Vec<_>>())
    }
}

impl<'de> Deserialize<'de> for Repeats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut repeats = Self::default();
        for before in Vec::<Before>::deserialize(deserializer)? {
            let of = before.key.of;
            if repeats.by_key.insert(of, before).is_none() {
                repeats.order.push_back(of);
            }
        }
        Ok(repeats)
    }
}
