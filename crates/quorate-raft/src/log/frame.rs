//! One record of the log as bytes.
//!
//! ```text
//!  length u32 · crc32 u32 · before u32 · index u64 · term u64 · group u64 · kind u8 · payload
//! ```
//! `length` counts what follows the checksum, which covers all but itself. `before` is the checksum of
//! the record before, so that a record in the wrong place is noticed. `group` is the index of the first
//! record of the group that was synced together: a record of a later group proves that an earlier one
//! was synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use openraft::{EntryPayload, Membership};
use quorate_core::ids::{Epoch, Position};
use serde::{Deserialize, Serialize};

use crate::files::number;
use crate::types::{Entry, LogId, Member, Proposal, StoredMembership, log_id, term_of};

/// Bytes before the checksummed rest.
pub(super) const HEAD: usize = 8;
const FIXED: usize = 4 + 8 + 8 + 8 + 1;
/// More than the largest entry and any membership need: a longer length is damage.
const BODY_MAX: usize = 1024 * 1024;

const BLANK: u8 = 0;
const PROPOSAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// A membership as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Members {
    /// One set of voters, or two while they change.
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, Member>,
}

impl Members {
    pub(crate) fn of(membership: &Membership<u64, Member>) -> Self {
        Self {
            configs: membership.get_joint_config().clone(),
            nodes: membership
                .nodes()
                .map(|(id, member)| (*id, member.clone()))
                .collect(),
        }
    }

    pub(crate) fn membership(self) -> io::Result<Membership<u64, Member>> {
        Membership::new(self.configs, self.nodes).map_err(io::Error::other)
    }

    /// The membership together with the record that brought it.
    pub(crate) fn stored(self, log_id: Option<LogId>) -> io::Result<StoredMembership> {
        if self.configs.is_empty() && self.nodes.is_empty() {
            return Ok(StoredMembership::default());
        }
        Ok(StoredMembership::new(log_id, self.membership()?))
    }
}

/// What an entry weighs in memory, about.
pub(super) fn weight(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        EntryPayload::Normal(proposal) => proposal.entry.len(),
    };
    payload + 128
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stand {
    /// Checksum of the record before.
    pub(super) before: u32,
    /// Index of the first record of its group.
    pub(super) group: u64,
}

/// Adds the frame of an entry to `bytes` and gives its checksum.
pub(super) fn encode(entry: &Entry, stand: Stand, bytes: &mut Vec<u8>) -> io::Result<u32> {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; HEAD]);
    bytes.extend_from_slice(&stand.before.to_le_bytes());
    bytes.extend_from_slice(&entry.log_id.index.to_le_bytes());
    bytes.extend_from_slice(&term_of(&entry.log_id).to_le_bytes());
    bytes.extend_from_slice(&stand.group.to_le_bytes());
    match &entry.payload {
        EntryPayload::Blank => bytes.push(BLANK),
        EntryPayload::Normal(proposal) => {
            bytes.push(PROPOSAL);
            bytes.extend_from_slice(&proposal.at.0.to_le_bytes());
            bytes.extend_from_slice(&proposal.epoch.0.to_le_bytes());
            bytes.extend_from_slice(&proposal.entry);
        }
        EntryPayload::Membership(membership) => {
            bytes.push(MEMBERSHIP);
            let stored = rmp_serde::to_vec_named(&Members::of(membership));
            bytes.extend_from_slice(&stored.map_err(io::Error::other)?);
        }
    }
    let body = bytes.get(start + HEAD..).unwrap_or_default();
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= BODY_MAX)
        .ok_or_else(|| io::Error::other(format!("a record of {} bytes is too large", body.len())))?
        .to_le_bytes();
    let crc = checksum(length, body);
    if let Some(head) = bytes.get_mut(start..start + HEAD) {
        let (first, second) = head.split_at_mut(4);
        first.copy_from_slice(&length);
        second.copy_from_slice(&crc.to_le_bytes());
    }
    Ok(crc)
}

fn checksum(length: [u8; 4], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&length);
    crc.update(body);
    crc.finalize()
}

/// A frame that passed its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) stand: Stand,
    pub(super) crc: u32,
    /// Bytes of the whole frame.
    pub(super) size: usize,
    kind: u8,
    payload: &'a [u8],
}

/// What begins at some offset of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Frame(Frame<'a>),
    /// Zeros: nothing was written here.
    Nothing,
    /// Something, but no whole frame.
    Broken,
}

/// Looks at what begins with `bytes`.
pub(super) fn look(bytes: &[u8]) -> Found<'_> {
    let Some((head, rest)) = bytes.split_at_checked(HEAD) else {
        return if bytes.iter().all(|byte| *byte == 0) {
            Found::Nothing
        } else {
            Found::Broken
        };
    };
    if head == [0; HEAD] {
        return Found::Nothing;
    }
    let (length, crc) = head.split_at(4);
    let body = usize::try_from(number(length))
        .ok()
        .filter(|size| (FIXED..=BODY_MAX).contains(size))
        .and_then(|size| rest.get(..size));
    let (Some(body), Ok(length)) = (body, length.try_into()) else {
        return Found::Broken;
    };
    let crc = u32::from_le_bytes(crc.try_into().unwrap_or_default());
    if checksum(length, body) != crc {
        return Found::Broken;
    }
    let (before, rest) = body.split_at(4);
    let (index, rest) = rest.split_at(8);
    let (term, rest) = rest.split_at(8);
    let (group, rest) = rest.split_at(8);
    let Some((kind, payload)) = rest.split_first() else {
        return Found::Broken;
    };
    Found::Frame(Frame {
        index: number(index),
        term: number(term),
        stand: Stand {
            before: u32::from_le_bytes(before.try_into().unwrap_or_default()),
            group: number(group),
        },
        crc,
        size: HEAD + body.len(),
        kind: *kind,
        payload,
    })
}

impl Frame<'_> {
    /// The entry within.
    pub(super) fn entry(&self) -> io::Result<Entry> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let payload = match self.kind {
            BLANK => EntryPayload::Blank,
            PROPOSAL => {
                let parts = self.payload.split_at_checked(16);
                let (head, entry) = parts.ok_or_else(|| invalid("a proposal is short".into()))?;
                let (at, epoch) = head.split_at(8);
                EntryPayload::Normal(Proposal {
                    at: Position(number(at)),
                    epoch: Epoch(number(epoch)),
                    entry: Arc::from(entry),
                })
            }
            MEMBERSHIP => {
                let members: Members = rmp_serde::from_slice(self.payload)
                    .map_err(|error| invalid(format!("a membership cannot be read: {error}")))?;
                EntryPayload::Membership(members.membership()?)
            }
            kind => {
                let what = format!(
                    "record {} is of kind {kind}, unknown to this version",
                    self.index
                );
                return Err(invalid(what));
            }
        };
        Ok(Entry {
            log_id: log_id(self.term, self.index),
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            log_id: log_id(3, 9),
            payload: EntryPayload::Normal(Proposal {
                at: Position(7),
                epoch: Epoch(2),
                entry: Arc::from(&b"hello"[..]),
            }),
        }
    }

    #[test]
    fn a_frame_with_any_bit_changed_or_any_byte_missing_is_not_a_frame() {
        let stand = Stand {
            before: 5,
            group: 8,
        };
        let mut bytes = Vec::new();
        let crc = encode(&entry(), stand, &mut bytes).unwrap();
        let Found::Frame(frame) = look(&bytes) else {
            panic!("the frame is whole")
        };
        assert_eq!(
            (frame.crc, frame.stand, frame.size),
            (crc, stand, bytes.len())
        );
        assert_eq!(frame.entry().unwrap(), entry());
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(look(&changed), Found::Broken, "bit {bit}");
        }
        for size in HEAD..bytes.len() {
            assert_eq!(look(&bytes[..size]), Found::Broken, "{size} bytes");
        }
        assert_eq!(look(&[0; 100]), Found::Nothing);
        assert_eq!(look(&[0; 3]), Found::Nothing);
    }

    #[test]
    fn a_membership_keeps_its_voters_learners_and_addresses() {
        let member = |name: &str| Member {
            name: name.to_owned(),
            address: format!("{name}:7401"),
        };
        let nodes = BTreeMap::from([(1, member("d1")), (2, member("d2")), (3, member("d3"))]);
        let configs = vec![BTreeSet::from([1]), BTreeSet::from([1, 2])];
        let entry = Entry {
            log_id: log_id(1, 0),
            payload: EntryPayload::Membership(Membership::new(configs, nodes).unwrap()),
        };
        let mut bytes = Vec::new();
        encode(
            &entry,
            Stand {
                before: 0,
                group: 0,
            },
            &mut bytes,
        )
        .unwrap();
        let Found::Frame(frame) = look(&bytes) else {
            panic!("the frame is whole")
        };
        assert_eq!(frame.entry().unwrap(), entry);
    }
}
