//! Watches the Raft library and the disk: whether this director should lead, and whether the ledger is
//! still alive. It only hints and reports; it decides nothing.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{ReadPolicy, ServerState};
use tokio::sync::oneshot;

use crate::log::LogStore;
use crate::machine::View;
use crate::types::Raft;

/// A write that takes longer means that this disk is not fit to lead (R15, `T_disk` of R17).
const DISK_LIMIT: Duration = Duration::from_secs(2);

/// How often the disk is looked at; well within its limit.
const LOOK: Duration = Duration::from_millis(250);

/// What the task works with.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) view: Arc<View>,
    pub(crate) log: LogStore,
    pub(crate) raft: Raft,
}

impl Watcher {
    /// Watches until `stop` is dropped or the Raft library ends.
    pub(crate) async fn run(self, mut stop: oneshot::Receiver<()>) {
        let mut servers = self.raft.server_metrics();
        let mut look = tokio::time::interval(LOOK);
        loop {
            self.hint(self.fit_to_lead().await);
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
                self.hint(false);
                return;
            }
        }
    }

    /// Leadership counts only once a round with a majority confirmed it and all before was applied.
    async fn fit_to_lead(&self) -> bool {
        let stuck = self
            .log
            .busy_since()
            .is_some_and(|since| since.elapsed() > DISK_LIMIT);
        if stuck || self.log.failed().borrow().is_some() || !self.leads() {
            return false;
        }
        if self.view.hints().borrow().should_lead == Some(true) {
            return true;
        }
        let confirmed = tokio::time::timeout(
            DISK_LIMIT,
            self.raft.ensure_linearizable(ReadPolicy::ReadIndex),
        );
        matches!(confirmed.await, Ok(Ok(_))) && self.leads()
    }

    fn leads(&self) -> bool {
        let servers = self.raft.server_metrics();
        let server = servers.borrow_watched();
        server.state == ServerState::Leader && server.current_leader == Some(server.id)
    }

    fn hint(&self, should_lead: bool) {
        self.view.hints().send_if_modified(|hints| {
            let changed = hints.should_lead != Some(should_lead);
            hints.should_lead = Some(should_lead);
            changed
        });
    }
}
