//! The embedded ledger's members, as the director shows and changes them.

use std::sync::Arc;

use futures::FutureExt as _;
use quorate_core::ids::DirectorName;
use quorate_director::quorum::{Changed, Member, Quorum, QuorumError};
use quorate_raft::{ChangeError, Embedded, MemberStatus};

use crate::failure::chain;

/// The quorum of an open ledger.
#[derive(Debug)]
pub(crate) struct EmbeddedQuorum {
    pub(crate) ledger: Arc<Embedded>,
    /// Where the other directors reach this one.
    pub(crate) address: Option<String>,
}

impl Quorum for EmbeddedQuorum {
    fn id(&self) -> u64 {
        self.ledger.node_id()
    }

    fn peer_address(&self) -> Option<String> {
        self.address.clone()
    }

    fn members(&self) -> Vec<Member> {
        let members = self.ledger.members();
        let last = members.iter().find(|member| member.leads);
        let last = last.and_then(|leader| leader.matched);
        members
            .iter()
            .map(|member| member_of(member, last))
            .collect()
    }

    fn add<'a>(&'a self, id: u64, name: &'a DirectorName, peer_address: &'a str) -> Changed<'a> {
        async move {
            let added = self.ledger.add_learner(id, name, peer_address).await;
            added.map_err(|error| told(&error))
        }
        .boxed()
    }

    fn promote(&self, id: u64) -> Changed<'_> {
        async move { self.ledger.promote(id).await.map_err(|error| told(&error)) }.boxed()
    }

    fn remove(&self, id: u64) -> Changed<'_> {
        async move { self.ledger.remove(id).await.map_err(|error| told(&error)) }.boxed()
    }

    fn transfer(&self, to: u64) -> Changed<'_> {
        async move {
            let moved = self.ledger.transfer_leadership(to).await;
            moved.map_err(|error| told(&error))
        }
        .boxed()
    }
}

fn member_of(member: &MemberStatus, last: Option<u64>) -> Member {
    let behind = last.zip(member.matched);
    Member {
        id: member.id,
        name: member.name.clone(),
        peer_address: member.address.clone(),
        voter: member.voter,
        leads: member.leads,
        behind: behind.map(|(last, matched)| last.saturating_sub(matched)),
        silent_for: member.silent_for,
    }
}

fn told(error: &ChangeError) -> QuorumError {
    let text = chain(error);
    match error {
        ChangeError::NotLeading { .. } => QuorumError::NotLeading,
        ChangeError::Behind { .. } | ChangeError::InProgress => QuorumError::NotYet(text),
        ChangeError::NameTaken { .. }
        | ChangeError::NoMember { .. }
        | ChangeError::Voters { .. }
        | ChangeError::Refused(_) => QuorumError::Refused(text),
        ChangeError::Unknown(_) => QuorumError::Unknown(text),
    }
}
