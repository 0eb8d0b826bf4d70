//! The connection to one warden: one task writes orders, one reads replies.
//!
//! ```text
//! machine ── orders (bounded) ──► writer ──► warden
//!         ◄──────── inputs ────── reader ◄──
//! ```

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quorate_core::agent::{Event, FoundRun, RunEnd, RunId, WardenId};
use quorate_core::ids::Token;
use quorate_core::record::Cause;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Input;
use crate::warden::client::{Client, Proof, Receiver, Sender, State, TalkError};
use crate::warden::group::Leftover;
use crate::warden::protocol::{self, Order, Reply};

/// Orders that wait to be written: a few for each of a few thousand runs. A warden that is so far
/// behind is frozen.
const ORDERS_MAX: usize = 32 * 1024;
/// A warden that was told to end, or is gone, kills and proves within this, or its deadline does.
pub(crate) const PROOF_WITHIN: Duration = Duration::from_secs(5);
/// Emptying the control group of a dead warden takes milliseconds, unless its processes wait for a device.
const CLEAR_WITHIN: Duration = Duration::from_secs(2);
/// Writing the last orders to a socket on this machine takes milliseconds.
const WRITE_WITHIN: Duration = Duration::from_secs(1);
/// Longer than any lease: the deadline is what ends runs whose agent does not come back.
const HAND_OVER_MS: u64 = 24 * 3600 * 1000;
/// Telling what it holds is a matter of milliseconds.
const TELL_WITHIN: Duration = Duration::from_secs(5);

/// A connected warden.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) dir: PathBuf,
    pub(crate) state: State,
    orders: mpsc::Sender<Order>,
    /// Closed when every order was written.
    written: oneshot::Receiver<()>,
    proof: Arc<Proof>,
}

/// A run that came with its descriptors.
#[derive(Debug)]
pub(crate) struct Descriptors {
    pub(crate) run: RunId,
    pub(crate) output: Option<OwnedFd>,
    pub(crate) notify: Option<OwnedFd>,
    pub(crate) api: Option<OwnedFd>,
}

impl Link {
    /// Starts the tasks of a connection.
    pub(crate) fn new(
        warden: WardenId,
        dir: PathBuf,
        client: Client,
        inputs: &mpsc::Sender<Input>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let Client {
            state,
            sender,
            receiver,
            proof,
        } = client;
        let proof = Arc::new(proof);
        let (orders, waiting) = mpsc::channel(ORDERS_MAX);
        let (writing, written) = oneshot::channel();
        tasks.spawn(write(sender, waiting, writing));
        tasks.spawn(read(warden, receiver, Arc::clone(&proof), inputs.clone()));
        Self {
            dir,
            state,
            orders,
            written,
            proof,
        }
    }

    /// Sends an order, in order. `false` when so many wait already that the warden cannot be working,
    /// and this one is lost. One that is gone loses everything, of which the reader tells.
    pub(crate) fn send(&self, order: Order) -> bool {
        let full = matches!(self.orders.try_send(order), Err(TrySendError::Full(_)));
        if full {
            tracing::error!(warden = %self.dir.display(), "a warden takes no orders any more");
        }
        !full
    }

    /// Tells the warden to keep its runs for the next agent process, as far as their deadline allows.
    pub(crate) async fn hand_over(self) {
        self.send(Order::Await {
            within_ms: HAND_OVER_MS,
        });
        let Self {
            orders, written, ..
        } = self;
        drop(orders);
        // A warden that takes nothing ends its runs, which is safe.
        let _late = timeout(WRITE_WITHIN, written).await;
    }

    /// Lets the warden kill everything and end; the folder goes when it is proven.
    pub(crate) fn end(self, tasks: &mut JoinSet<()>) {
        self.send(Order::End);
        let Self { dir, proof, .. } = self;
        tasks.spawn(async move {
            match proof.proven_dead(PROOF_WITHIN).await {
                Ok(()) => remove_folder(dir).await,
                Err(error) => {
                    tracing::error!(warden = %dir.display(), %error, "left to its deadline")
                }
            }
        });
    }
}

/// Removes the folder of a dead warden, and before it what the warden left in its control group. The
/// folder stays as long as something is left there, so that it is tried again at the next start.
async fn remove_folder(dir: PathBuf) {
    let removed = tokio::task::spawn_blocking(move || {
        if clear_group(&dir).is_ok() {
            // Left behind it would only be in the way of people.
            let _left = std::fs::remove_dir_all(&dir);
        }
    });
    // It cannot panic, and without a result there is nothing else to do.
    let _done = removed.await;
}

/// Something of a dead warden still executes.
#[derive(Debug)]
pub(crate) struct StillThere;

/// Ends what a dead warden left in its control group, and removes that; tells whether there was one,
/// which is then proven empty.
pub(crate) fn clear_group(dir: &Path) -> Result<bool, StillThere> {
    let Some(left) = Leftover::of(dir) else {
        return Ok(false);
    };
    if left.clear(CLEAR_WITHIN) {
        tracing::info!(warden = %dir.display(), "the control group of a dead warden is removed");
        return Ok(true);
    }
    tracing::error!(
        warden = %dir.display(),
        group = %left,
        "processes of a dead warden cannot be killed; they wait for a device, or are frozen"
    );
    Err(StillThere)
}

/// What a living warden tells of its runs at first.
pub(crate) async fn told(
    client: &mut Client,
) -> Result<(Vec<FoundRun>, Vec<Descriptors>), TalkError> {
    let mut runs: Vec<FoundRun> = Vec::new();
    let mut descriptors = Vec::new();
    let expected = usize::try_from(client.state.runs).unwrap_or(usize::MAX);
    let mut told = 0;
    while told < expected {
        let reply = timeout(TELL_WITHIN, client.receiver.recv()).await;
        let (reply, fds) = reply.map_err(|_elapsed| TalkError::Closed)??;
        match reply {
            Reply::Started {
                run,
                pid,
                notify,
                api,
            } => {
                told += 1;
                let run = run_id(run);
                descriptors.push(described(run, notify, api, fds));
                runs.push(FoundRun {
                    run,
                    pid,
                    ended: None,
                });
            }
            Reply::Ended { run, code, signal } => {
                let run = run_id(run);
                if let Some(found) = runs.iter_mut().find(|found| found.run == run) {
                    found.ended = Some(RunEnd { code, signal });
                }
            }
            // It was being launched when the agent before ended.
            Reply::NotStarted { .. } => told += 1,
            Reply::Busy | Reply::State { .. } | Reply::Empty => {}
        }
    }
    Ok((runs, descriptors))
}

/// `_writing` is dropped with this task, which tells that nothing is left to be written.
async fn write(
    mut sender: Sender,
    mut orders: mpsc::Receiver<Order>,
    _writing: oneshot::Sender<()>,
) {
    while let Some(order) = orders.recv().await {
        if let Err(error) = sender.send(&order).await {
            tracing::debug!(%error, "a warden takes no orders any more");
            return;
        }
    }
}

async fn read(
    warden: WardenId,
    mut receiver: Receiver,
    proof: Arc<Proof>,
    inputs: mpsc::Sender<Input>,
) {
    loop {
        let input = match receiver.recv().await {
            Ok((reply, fds)) => match input_of(warden, reply, fds) {
                Some(input) => input,
                None => continue,
            },
            Err(error) => {
                let proven = proof.proven_dead(PROOF_WITHIN).await.is_ok();
                tracing::debug!(warden = warden.0, %error, proven, "a warden is gone");
                let gone = Event::WardenGone { warden, proven };
                // The agent may have left before its warden.
                let _left = inputs.send(Input::Event(gone)).await;
                return;
            }
        };
        if inputs.send(input).await.is_err() {
            return;
        }
    }
}

fn input_of(warden: WardenId, reply: Reply, fds: Vec<OwnedFd>) -> Option<Input> {
    match reply {
        Reply::Started {
            run,
            pid,
            notify,
            api,
        } => {
            let run = run_id(run);
            Some(Input::Started {
                warden,
                pid,
                descriptors: described(run, notify, api, fds),
            })
        }
        Reply::NotStarted { run, reason } => {
            let run = run_id(run);
            let cause = Cause::new(&reason);
            Some(Input::Event(Event::NotStarted { warden, run, cause }))
        }
        Reply::Ended { run, code, signal } => Some(Input::Event(Event::Ended {
            warden,
            run: run_id(run),
            code,
            signal,
        })),
        Reply::Busy | Reply::State { .. } | Reply::Empty => None,
    }
}

/// In the order in which a warden sends them.
fn described(run: RunId, notify: bool, api: bool, fds: Vec<OwnedFd>) -> Descriptors {
    let mut fds = fds.into_iter();
    Descriptors {
        run,
        output: fds.next(),
        notify: notify.then(|| fds.next()).flatten(),
        api: api.then(|| fds.next()).flatten(),
    }
}

pub(crate) const fn run_id(run: protocol::RunId) -> RunId {
    RunId {
        token: Token(run.token),
        attempt: run.attempt,
    }
}

pub(crate) const fn wire_id(run: RunId) -> protocol::RunId {
    protocol::RunId {
        token: run.token.0,
        attempt: run.attempt,
    }
}
