//! Who belongs to the quorum, and changing it.
//!
//! A member is its random id; names and addresses are for finding it. Voters change by joint consensus,
//! or directly where any majority before meets any majority after. It must never let a new folder take
//! the place of a voter: what that voter acknowledged is not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, ForwardToLeader, RaftError};
use openraft::{ChangeMembers, Instant};
use quorate_core::ids::DirectorName;
use quorate_ledger::{Cause, Leader};

use crate::embedded::Embedded;
use crate::link::LinkedPeers;
use crate::peer::Target;
use crate::types::{Member, Raft, StoredMembership, Types};

/// A change that takes longer has an unknown outcome.
pub(crate) const CHANGE_LIMIT: Duration = Duration::from_secs(10);
/// Handing over takes a round and an election; what takes longer was not done.
const TRANSFER_LIMIT: Duration = Duration::from_secs(3);
/// A learner that lacks more records than this is not made a voter yet: until it has them, a majority
/// that needs it waits for it.
const BEHIND_MAX: u64 = 1000;

/// One member of the quorum, as this director knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its random identity.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where the others reach it.
    pub address: String,
    /// Whether it votes; a learner only follows.
    pub voter: bool,
    /// Whether it leads.
    pub leads: bool,
    /// The last record that it is known to have; only the leader knows.
    pub matched: Option<u64>,
    /// How long ago it last answered; only the leader knows. Zero for itself.
    pub silent_for: Option<Duration>,
}

/// Why the quorum was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Only the leader changes it.
    #[error("this director does not lead{}", led_by(leader.as_ref()))]
    NotLeading {
        /// Who does, if known.
        leader: Option<Leader>,
    },
    /// The name belongs to a member with another id.
    #[error(
        "director {name:?} is a member with the id {id}; if its folder was made anew, remove the old id \
         first"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        id: u64,
    },
    /// Nobody has this id.
    #[error("no member has the id {id}; add it as a learner first")]
    NoMember {
        /// The id.
        id: u64,
    },
    /// It does not follow closely enough.
    #[error("director {name:?} has not caught up yet; try again when it has")]
    Behind {
        /// The name of the director.
        name: String,
    },
    /// A quorum has one to seven voters.
    #[error("{count} voters are not possible, only one to seven")]
    Voters {
        /// How many there would be.
        count: usize,
    },
    /// Another change is not finished.
    #[error("another change of the members is not finished; try again in a moment")]
    InProgress,
    /// It was not done, and nothing changed.
    #[error("the members were not changed")]
    Refused(#[source] Cause),
    /// It may be done now or later; look at the members.
    #[error("whether the members were changed is unknown; look at them")]
    Unknown(#[source] Cause),
}

fn led_by(leader: Option<&Leader>) -> String {
    leader.map_or_else(String::new, |leader| format!("; {:?} does", leader.name))
}

/// Most voters; more would only slow every write down.
const VOTERS_MAX: usize = 7;

impl Embedded {
    /// The members as this director knows them, by id.
    #[must_use]
    pub fn members(&self) -> Vec<MemberStatus> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = &metrics.membership_config;
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let leading = metrics.current_leader == Some(metrics.id) && metrics.replication.is_some();
        let status = |(id, member): (&u64, &Member)| {
            let own = *id == metrics.id;
            let replicated = metrics.replication.as_ref();
            let matched = replicated.and_then(|all| all.get(id).copied().flatten());
            let answered = metrics.heartbeat.as_ref();
            let answered = answered.and_then(|all| all.get(id).copied().flatten());
            MemberStatus {
                id: *id,
                name: member.name.clone(),
                address: member.address.clone(),
                voter: voters.contains(id),
                leads: metrics.current_leader == Some(*id),
                matched: if own && leading {
                    metrics.last_log_index
                } else {
                    matched.map(|log_id| log_id.index)
                },
                silent_for: if own {
                    Some(Duration::ZERO)
                } else {
                    answered.map(|at| at.elapsed())
                },
            }
        };
        membership.nodes().map(status).collect()
    }

    /// Adds a director that waits to be added, as a learner: it follows and does not vote. Adding it
    /// again with another address changes the address.
    ///
    /// # Errors
    /// When its name belongs to another member, and those of every change.
    pub async fn add_learner(
        &self,
        id: u64,
        name: &DirectorName,
        address: &str,
    ) -> Result<(), ChangeError> {
        let membership = self.membership();
        let taken = |(other, member): (&u64, &Member)| {
            (*other != id && member.name == name.as_str()).then_some(*other)
        };
        if let Some(other) = membership.nodes().find_map(taken) {
            return Err(ChangeError::NameTaken {
                name: name.to_string(),
                id: other,
            });
        }
        let member = Member {
            name: name.to_string(),
            address: address.to_owned(),
        };
        let known = membership.get_node(&id);
        if let Some(known) = known.filter(|known| known.name != member.name) {
            let why = format!("the id {id} is that of director {:?}", known.name);
            return Err(ChangeError::Refused(why.into()));
        }
        let nodes = BTreeMap::from([(id, member)]);
        let change = if known.is_some() {
            ChangeMembers::SetNodes(nodes)
        } else {
            ChangeMembers::AddNodes(nodes)
        };
        self.change(change, true).await
    }

    /// Makes a learner that has caught up a voter.
    ///
    /// # Errors
    /// Those of [`change_voters`](Self::change_voters).
    pub async fn promote(&self, id: u64) -> Result<(), ChangeError> {
        let mut voters: BTreeSet<u64> = self.membership().voter_ids().collect();
        voters.insert(id);
        self.change_voters(voters).await
    }

    /// Makes exactly these members the voters, by joint consensus; who votes no more becomes a learner.
    /// An even number is allowed on the way to an odd one, though it bears no more losses than one less.
    ///
    /// # Errors
    /// When one of them is no member or has not caught up, when they are too many or none, and those of
    /// every change.
    pub async fn change_voters(&self, voters: BTreeSet<u64>) -> Result<(), ChangeError> {
        if !(1..=VOTERS_MAX).contains(&voters.len()) {
            return Err(ChangeError::Voters {
                count: voters.len(),
            });
        }
        let before: BTreeSet<u64> = self.membership().voter_ids().collect();
        for id in voters.difference(&before) {
            self.check_follows(*id)?;
        }
        self.change(ChangeMembers::ReplaceAllVoters(voters), true)
            .await
    }

    /// Removes a member. Its id never comes back; a director that is to be added again needs a new folder.
    ///
    /// # Errors
    /// When it is the only voter, and those of every change.
    pub async fn remove(&self, id: u64) -> Result<(), ChangeError> {
        let membership = self.membership();
        if membership.get_node(&id).is_none() {
            return Err(ChangeError::NoMember { id });
        }
        let mut voters: BTreeSet<u64> = membership.voter_ids().collect();
        if !voters.remove(&id) {
            return self
                .change(ChangeMembers::RemoveNodes(BTreeSet::from([id])), false)
                .await;
        }
        if voters.is_empty() {
            return Err(ChangeError::Voters { count: 0 });
        }
        self.change(ChangeMembers::ReplaceAllVoters(voters), false)
            .await
    }

    /// Hands leadership over to another voter and waits until it leads.
    ///
    /// # Errors
    /// When this director does not lead, and when the other is no voter, has not caught up, or did not
    /// take over in time; then whoever is elected leads.
    pub async fn transfer_leadership(&self, to: u64) -> Result<(), ChangeError> {
        let unknown = |cause: Cause| ChangeError::Unknown(cause);
        if self.raft.metrics().borrow_watched().current_leader != Some(self.identity.node) {
            return Err(ChangeError::NotLeading {
                leader: self.leader(),
            });
        }
        if !self.membership().voter_ids().any(|voter| voter == to) {
            return Err(ChangeError::NoMember { id: to });
        }
        if to == self.identity.node {
            return Ok(());
        }
        self.check_follows(to)?;
        let asked = self.raft.trigger().transfer_leader(to).await;
        asked.map_err(|stopped| unknown(stopped.into()))?;
        let wait = self.raft.wait(Some(TRANSFER_LIMIT));
        let leads = wait.current_leader(to, "it took over").await;
        leads.map_err(|error| unknown(error.into()))?;
        Ok(())
    }

    /// Who leads, as far as this director knows.
    #[must_use]
    pub fn leader(&self) -> Option<Leader> {
        leader_of(&self.raft)
    }

    /// Another director that leads, and the way to it.
    pub(crate) fn other_leader(&self) -> Option<(Target, &LinkedPeers)> {
        let peers = self.peers.as_ref()?;
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let id = metrics.current_leader.filter(|id| *id != metrics.id)?;
        let member = metrics.membership_config.get_node(&id)?.clone();
        Some((Target { id, member }, peers))
    }

    fn membership(&self) -> StoredMembership {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        StoredMembership::clone(&metrics.membership_config)
    }

    /// Who becomes a voter must follow closely: it counts from the moment that the change is in the log.
    /// So must who is to lead: nothing is appended until it has everything.
    fn check_follows(&self, id: u64) -> Result<(), ChangeError> {
        let members = self.members();
        let last = members.iter().find(|member| member.leads);
        let last = last.and_then(|leader| leader.matched);
        let member = members.iter().find(|member| member.id == id);
        let member = member.ok_or(ChangeError::NoMember { id })?;
        let close = match (last, member.matched) {
            (Some(last), Some(matched)) => last.saturating_sub(matched) <= BEHIND_MAX,
            // Who does not lead does not know, and is told so by the change itself.
            (None, _) => true,
            (Some(_), None) => false,
        };
        let silence_max = self.timing.loyalty() * 2;
        let heard = member.silent_for.is_none_or(|silent| silent <= silence_max);
        if close && heard {
            Ok(())
        } else {
            Err(ChangeError::Behind {
                name: member.name.clone(),
            })
        }
    }

    async fn change(
        &self,
        change: ChangeMembers<u64, Member>,
        retain: bool,
    ) -> Result<(), ChangeError> {
        let changed = self.raft.change_membership(change, retain);
        match tokio::time::timeout(CHANGE_LIMIT, changed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.not_changed(error)),
            Err(elapsed) => Err(ChangeError::Unknown(elapsed.into())),
        }
    }

    fn not_changed(&self, error: RaftError<Types, ClientWriteError<Types>>) -> ChangeError {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(ForwardToLeader { .. })) => {
                ChangeError::NotLeading {
                    leader: self.leader(),
                }
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
                ChangeMembershipError::InProgress(_)
                | ChangeMembershipError::UncommittedLeaderLog(_) => ChangeError::InProgress,
                ChangeMembershipError::LearnerNotFound(missing) => ChangeError::NoMember {
                    id: missing.node_id,
                },
                error @ (ChangeMembershipError::EmptyMembership(_)
                | ChangeMembershipError::UnsupportedMembershipTransition(_)
                | ChangeMembershipError::NodeMetadataChanged(_)) => {
                    ChangeError::Refused(error.into())
                }
            },
            RaftError::APIError(error @ ClientWriteError::PreconditionFailed(_)) => {
                ChangeError::Refused(error.into())
            }
            error @ (RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))
            | RaftError::Fatal(_)) => ChangeError::Unknown(error.into()),
        }
    }
}

/// The second step of a change of voters: only the new ones count from then on.
pub(crate) async fn finish(raft: &Raft) -> Result<(), Cause> {
    let nobody_more = ChangeMembers::AddVoterIds(BTreeSet::new());
    // Who votes no more stays as a learner; removing it is another change.
    let finished = raft.change_membership(nobody_more, true);
    tokio::time::timeout(CHANGE_LIMIT, finished).await??;
    Ok(())
}

/// Who leads, as far as the Raft library of this director knows.
pub(crate) fn leader_of(raft: &Raft) -> Option<Leader> {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let member = metrics
        .membership_config
        .get_node(&metrics.current_leader?)?;
    Some(Leader {
        name: member.name.clone(),
        address: member.address.clone(),
    })
}
