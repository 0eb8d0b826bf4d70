//! What the Raft library sends to other directors, put into our own messages.
//!
//! It must never grant a vote or a pre-vote on behalf of somebody it did not reach: whatever went wrong
//! is told as *unreachable*, which grants nothing and makes the library wait before it tries again.

use std::fs::File;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::alias::{SnapshotOf, VoteOf};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, RaftNetworkFactory, RaftNetworkV2};

use crate::peer::{Answer, Append, Ballot, Client, Request, SnapshotHead, Target, Transfer};
use crate::types::{Member, Types};

/// How long an answer to entries is waited for. The library's own limit is that of a heartbeat, which a
/// follower's disk may exceed without being lost; heartbeats and votes keep the library's limit.
const ENTRIES_LIMIT: Duration = Duration::from_secs(1);

/// The network of this director; nobody is reached when it is alone.
#[derive(Debug)]
pub(crate) struct Network(pub(crate) Option<Arc<Client>>);

/// The way to one peer.
#[derive(Debug)]
pub(crate) struct Peer {
    client: Option<Arc<Client>>,
    target: Target,
}

fn unreachable(why: &str) -> Unreachable<Types> {
    Unreachable::new(&AnyError::error(why))
}

impl Peer {
    async fn ask(&self, request: Request, limit: Duration) -> Result<Answer, Unreachable<Types>> {
        let Some(client) = &self.client else {
            let Member { name, .. } = &self.target.member;
            return Err(unreachable(&format!("no way to director {name:?}")));
        };
        let answer = client.ask(&self.target, &request, limit).await;
        answer.map_err(|why| unreachable(&why))
    }
}

/// An answer that is not what was asked for.
fn other(answer: &Answer) -> Unreachable<Types> {
    match answer {
        Answer::Failed(why) => unreachable(why),
        Answer::Append(_)
        | Answer::Vote(_)
        | Answer::Snapshot(_)
        | Answer::Transfer(_)
        | Answer::ReadIndex(_) => unreachable("the answer is to another question"),
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Member) -> Peer {
        Peer {
            client: self.0.clone(),
            target: Target {
                id: target,
                member: node.clone(),
            },
        }
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = File;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let limit = if rpc.entries.is_empty() {
            option.soft_ttl()
        } else {
            option.soft_ttl().max(ENTRIES_LIMIT)
        };
        let answer = self.ask(Request::Append(Append::from(rpc)), limit).await?;
        let Answer::Append(appended) = answer else {
            return Err(other(&answer).into());
        };
        Ok(appended.into())
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let request = Request::Vote(Ballot::from(rpc));
        let answer = self.ask(request, option.soft_ttl()).await?;
        let Answer::Vote(voted) = answer else {
            return Err(other(&answer).into());
        };
        Ok(voted.into())
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let request = Request::PreVote(Ballot::from(rpc));
        let answer = self.ask(request, option.soft_ttl()).await?;
        let Answer::Vote(voted) = answer else {
            return Err(other(&answer).into());
        };
        Ok(voted.into())
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, File>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let Some(client) = &self.client else {
            return Err(unreachable("this director is alone").into());
        };
        let file = snapshot.snapshot;
        let bytes = file
            .metadata()
            .map_err(|e| unreachable(&e.to_string()))?
            .len();
        let head = SnapshotHead::new(vote, bytes, &snapshot.meta);
        // Its limits are those of each chunk: how long the whole takes depends on its size.
        let answer = tokio::select! {
            answer = client.send_snapshot(&self.target, head, file) => answer,
            closed = cancel => return Err(closed.into()),
        };
        let answer = answer.map_err(|why| unreachable(&why))?;
        let Answer::Snapshot(vote) = answer else {
            return Err(other(&answer).into());
        };
        Ok(SnapshotResponse::new(vote.into()))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let request = Request::Transfer(Transfer::from(request));
        let answer = self.ask(request, option.soft_ttl()).await?;
        let Answer::Transfer(transferred) = answer else {
            return Err(other(&answer).into());
        };
        Ok(transferred.into())
    }
}
