//! Notices that the process of the leader has ended, and elects at once instead of after its time.
//!
//! A process that ends closes all its connections, and its port refuses new ones; a machine that is lost, a
//! network that is cut and a process that stands still do neither, and for those the usual time is waited. Both
//! signs together can be false only where something between the two forges them, and then they cost an election
//! that nobody needed: who may lead is decided by votes, as ever.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use tokio::sync::mpsc;

use crate::log::LogStore;
use crate::options::Timing;
use crate::peer::{Client, Target, Ties};
use crate::types::{Raft, Vote};
use crate::watch::is_stuck;

/// A port that refuses does so within a round trip; what takes longer is no sign.
const REFUSED_WITHIN: Duration = Duration::from_millis(200);
/// A process that is killed may lose its connections a moment before its port.
const LOOKS: u32 = 5;
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// The other followers notice in the same moment, or a little later.
const OTHERS_NOTICE: Duration = Duration::from_millis(5);
/// After so many tries it is left to the usual time.
const TRIES: u32 = 6;

/// What the task works with.
#[derive(Debug)]
pub(crate) struct Orphaned {
    pub(crate) raft: Raft,
    pub(crate) log: LogStore,
    pub(crate) client: Arc<Client>,
    pub(crate) ties: Arc<Ties>,
    pub(crate) timing: Timing,
}

/// A leader that was followed until now.
#[derive(Clone, Debug)]
struct Followed {
    target: Target,
    vote: Vote,
    /// How many voters stand before this director.
    before: u32,
}

impl Orphaned {
    /// Works until nobody tells of lost connections any more.
    pub(crate) async fn run(self, mut lost: mpsc::Receiver<u64>) {
        while let Some(node) = lost.recv().await {
            let Some(followed) = self.followed(node) else {
                continue;
            };
            if !self.is_gone(&followed).await {
                continue;
            }
            let leader = &followed.target.member.name;
            tracing::warn!(
                leader,
                "the process of the leader has ended; another one is elected"
            );
            if let Err(error) = self.elect(&followed).await {
                tracing::warn!(%error, "nobody is elected before the usual time");
            }
        }
    }

    /// Whether its port refuses, nothing of it is connected, and nobody has stood for election since.
    async fn is_gone(&self, followed: &Followed) -> bool {
        let target = &followed.target;
        for _ in 0..LOOKS {
            if self.ties.has(target.id) || !self.still_follows(followed) {
                return false;
            }
            if self.client.is_refused(target, REFUSED_WITHIN).await {
                return !self.ties.has(target.id) && self.still_follows(followed);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        false
    }

    /// The leader that this voter follows, if it is this one.
    fn followed(&self, node: u64) -> Option<Followed> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let own = metrics.id;
        if metrics.current_leader != Some(node) || node == own {
            return None;
        }
        let members = &metrics.membership_config;
        let member = members.get_node(&node)?.clone();
        let others = members.voter_ids().filter(|voter| *voter != node);
        let others: Vec<u64> = others.collect();
        others.contains(&own).then(|| Followed {
            target: Target { id: node, member },
            vote: metrics.vote,
            before: others.iter().map(|voter| u32::from(*voter < own)).sum(),
        })
    }

    /// Whether nobody has stood for election since.
    fn still_follows(&self, followed: &Followed) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.vote == followed.vote
    }

    /// Ends this director's loyalty to a leader that is gone, and stands for election after those that come
    /// first, until somebody else is followed.
    async fn elect(
        &self,
        followed: &Followed,
    ) -> Result<(), openraft::errors::Fatal<crate::types::Types>> {
        // To the Raft library it is as if the leader had handed over to nobody that is there.
        let released = TransferLeaderRequest::new(followed.vote, followed.target.id, None);
        let _none_takes_over = self.raft.handle_transfer_leader(released).await?;
        let turn = self.timing.heartbeat * 2;
        let own = turn * followed.before + self.timing.stand_back();
        tokio::time::sleep(OTHERS_NOTICE + own).await;
        for _ in 0..TRIES {
            // What is asked for here does not ask whether this director may be elected.
            if !self.still_follows(followed) || is_stuck(&self.log) {
                break;
            }
            // Who cannot win disturbs nobody with a new term.
            self.raft.trigger().elect(true).await?;
            tokio::time::sleep(self.timing.heartbeat).await;
        }
        Ok(())
    }
}
