//! Watches the Raft library and the disk: whether this director should lead, whether it may be elected,
//! and whether the ledger is still alive. What it does about leadership costs time at worst, never
//! safety, which is the Raft library's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant as _, ReadPolicy, ServerState};
use quorate_ledger::Leader;
use tokio::sync::oneshot;

use crate::log::LogStore;
use crate::machine::View;
use crate::members;
use crate::options::Timing;
use crate::peer::{Client, Contact};
use crate::types::Raft;

/// A write that takes longer means that this disk is not fit to lead (R15, `T_disk` of R17).
const DISK_LIMIT: Duration = Duration::from_secs(2);

/// How often the disk is looked at; well within its limit.
const LOOK: Duration = Duration::from_millis(250);

/// A change of the voters that is half done for longer has nobody any more who finishes it.
const HALF_DONE_LIMIT: Duration = members::CHANGE_LIMIT.saturating_add(Duration::from_secs(2));

/// What the task works with.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) view: Arc<View>,
    pub(crate) log: LogStore,
    pub(crate) raft: Raft,
    pub(crate) contact: Arc<Contact>,
    pub(crate) timing: Timing,
    pub(crate) client: Option<Arc<Client>>,
}

/// Whether the disk owes an answer for too long: then this director neither leads nor stands for election (R15).
pub(crate) fn is_stuck(log: &LogStore) -> bool {
    let since = log.busy_since();
    since.is_some_and(|since| since.elapsed() > DISK_LIMIT)
}

impl Watcher {
    /// Watches until `stop` is dropped or the Raft library ends.
    pub(crate) async fn run(self, mut stop: oneshot::Receiver<()>) {
        let mut servers = self.raft.server_metrics();
        // Alone, nobody else is waited for.
        let pause = self.client.as_ref().map_or(LOOK, |_| self.timing.heartbeat);
        let mut look = tokio::time::interval(LOOK.min(pause));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut deserted = false;
        let mut half_done = None;
        loop {
            let stuck = is_stuck(&self.log);
            if stuck != deserted {
                deserted = stuck;
                self.desert(stuck).await;
            }
            self.raft.runtime_config().elect(!stuck && self.may_stand());
            self.tell_client();
            self.finish_change(&mut half_done).await;
            let should_lead = self.fit_to_lead(stuck).await;
            self.hint(should_lead, members::leader_of(&self.raft));
            let alive = tokio::select! {
                biased;
                _ = &mut stop => return,
                changed = servers.changed() => changed.is_ok(),
                _ = look.tick() => true,
            };
            let running = self.raft.metrics().borrow_watched().running_state.clone();
            if let Err(fatal) = running {
                self.log
                    .fail(format!("the replicated log stopped: {fatal}"));
            }
            if !alive {
                self.hint(false, None);
                return;
            }
        }
    }

    /// Leaves leadership to one whose disk works (R15): it is handed over, and should nobody take it, no
    /// heartbeat keeps the others from electing.
    async fn desert(&self, stuck: bool) {
        self.raft.runtime_config().heartbeat(!stuck);
        if !stuck {
            tracing::info!("the disk answers again");
            return;
        }
        tracing::error!(limit = ?DISK_LIMIT, "the disk does not answer; this director does not lead");
        if self.leads()
            && let Some(heir) = self.heir()
            && let Err(error) = self.raft.trigger().transfer_leader(heir).await
        {
            tracing::warn!(%error, "leadership was not handed over");
        }
    }

    /// The voter that has the most of the log.
    fn heir(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref()?;
        let voters = metrics.membership_config.voter_ids();
        voters
            .filter(|voter| *voter != metrics.id)
            .max_by_key(|voter| matched.get(voter).copied().flatten())
    }

    /// Whether this director may stand for election: not just after the start, since others may have
    /// promised something to a leader that they forgot when they started with it, and not before those who
    /// are preferred had their chance.
    fn may_stand(&self) -> bool {
        let voters: Vec<u64> = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.voter_ids().collect()
        };
        if voters.len() <= 1 {
            return true;
        }
        let loyalty = self.timing.loyalty();
        let back = self.timing.stand_back();
        self.contact.up() > loyalty && (back.is_zero() || self.contact.silence() > loyalty + back)
    }

    /// Finishes a change of the voters whose caller or leader died in the middle of it: as long as two sets
    /// of voters count, a majority of each is needed.
    async fn finish_change(&self, half_done: &mut Option<Instant>) {
        let joint = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.get_joint_config().len() > 1
        };
        if !joint || !self.leads() {
            *half_done = None;
            return;
        }
        if half_done.get_or_insert_with(Instant::now).elapsed() < HALF_DONE_LIMIT {
            return;
        }
        *half_done = None;
        tracing::warn!("a change of the voters was left half done and is finished now");
        let finishing = members::finish(&self.raft);
        if let Err(error) = finishing.await {
            tracing::warn!(%error, "the change of the voters is still half done");
        }
    }

    /// Who dials knows where everybody is, and that a director with a log is not new any more.
    fn tell_client(&self) {
        let Some(client) = &self.client else { return };
        if self.log.last().is_some() {
            client.not_empty();
        }
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.nodes();
        client.know(members.map(|(id, member)| (*id, member.clone())).collect());
    }

    /// Leadership counts only once a round with a majority confirmed it and all before was applied, and
    /// as long as a majority answers.
    async fn fit_to_lead(&self, stuck: bool) -> bool {
        if stuck || self.log.failed().borrow().is_some() || !self.leads() {
            return false;
        }
        if self.view.hints().borrow().should_lead == Some(true) {
            return self.heard_by_majority();
        }
        let confirmed = tokio::time::timeout(
            DISK_LIMIT,
            self.raft.ensure_linearizable(ReadPolicy::ReadIndex),
        );
        matches!(confirmed.await, Ok(Ok(_))) && self.leads()
    }

    /// Whether a majority answered lately: twice as long as others stay loyal to a leader that they do
    /// not hear, so that no short pause ends a reign that nobody else has begun.
    fn heard_by_majority(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let alone = metrics.membership_config.voter_ids().eq([metrics.id]);
        let answered = metrics.last_quorum_acked;
        alone || answered.is_some_and(|at| at.elapsed() < self.timing.loyalty() * 2)
    }

    fn leads(&self) -> bool {
        let servers = self.raft.server_metrics();
        let server = servers.borrow_watched();
        server.state == ServerState::Leader && server.current_leader == Some(server.id)
    }

    fn hint(&self, should_lead: bool, leader: Option<Leader>) {
        self.view.hints().send_if_modified(|hints| {
            let changed = hints.should_lead != Some(should_lead) || hints.leader != leader;
            hints.should_lead = Some(should_lead);
            hints.leader = leader;
            changed
        });
    }
}
