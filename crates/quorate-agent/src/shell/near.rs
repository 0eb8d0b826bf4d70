//! Keeps asking a near director first: also after another one had to answer for a while, and when directors
//! come and go.

use std::sync::Arc;
use std::time::Duration;

use quorate_api::client::Client;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

/// So often it is looked which ones are near.
const EVERY: Duration = Duration::from_secs(600);

/// The task that does so. It ends with this.
#[derive(Debug)]
pub(super) struct Near {
    changed: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

impl Near {
    /// Begins with the directors that were known before. The clients ask the same ones: one for all calls, one
    /// for renewals.
    pub(super) fn start(clients: [Client; 2], known: &[String], seed: u64) -> Self {
        for client in &clients {
            client.learn(known, seed);
        }
        let changed = Arc::new(Notify::new());
        let task = tokio::spawn(keep(clients, seed, Arc::clone(&changed)));
        Self {
            changed,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Looks again: there are other directors.
    pub(super) fn changed(&self) {
        self.changed.notify_one();
    }
}

async fn keep(clients: [Client; 2], seed: u64, changed: Arc<Notify>) {
    let [first, _] = &clients;
    loop {
        if let Some(near) = first.nearest(seed).await {
            for client in &clients {
                client.prefer(&near);
            }
        }
        // Not all agents at once.
        let pause = EVERY.mul_f64(rand::random_range(0.5..1.5));
        tokio::select! {
            () = changed.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
