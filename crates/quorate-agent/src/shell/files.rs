//! The files of runs and sessions: one thread makes, changes and removes them, in the order in which it
//! was told.
//!
//! The task of the machine must never wait for a disk, because it arms the deadlines (R18). A disk that
//! does not answer delays starts, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::agent::{Item, Latest, RunId, WardenId};
use quorate_core::ids::{AgentName, ClusterId, Token};
use tokio::sync::{mpsc, oneshot};

use super::Input;
use super::allow::Allow;
use super::config::RunError;
use super::data_dir::write_whole;
use super::launch::{self, LaunchError, LogTarget, Places};
use crate::warden::protocol::{Order, StartRun};

/// Jobs that wait: a few for each of several thousand runs. A disk that is so far behind does not
/// answer, and what would wait for it is refused.
const WAITING_MAX: usize = 32 * 1024;

/// Something to do with files.
#[derive(Debug)]
pub(crate) enum Job {
    /// Make what a run needs. Answered by [`Done::Prepared`].
    Prepare {
        warden: WardenId,
        run: RunId,
        item: Arc<Item>,
        checkpoint: Option<Latest>,
        agent: AgentName,
        cluster: ClusterId,
        run_dir: PathBuf,
        sockets: PathBuf,
        lease_file: PathBuf,
    },
    /// Write new data where a run finds it. Answered by [`Done::Written`].
    Data {
        token: Token,
        item: Arc<Item>,
        run_dir: PathBuf,
    },
    /// Write a small file that nobody waits for.
    Write {
        what: &'static str,
        path: PathBuf,
        mode: u32,
        bytes: Vec<u8>,
    },
    /// Remove a file or a folder that is not used any more.
    Remove(PathBuf),
}

/// What was done.
#[derive(Debug)]
pub(crate) enum Done {
    Prepared {
        warden: WardenId,
        run: RunId,
        target: LogTarget,
        start: Result<Box<StartRun>, LaunchError>,
    },
    Written(Token),
}

/// The thread.
#[derive(Debug)]
pub(crate) struct Files {
    jobs: mpsc::Sender<Job>,
    /// Closed when the thread has done everything and ended.
    ended: oneshot::Receiver<()>,
}

impl Files {
    /// Starts the thread.
    pub(crate) fn start(inputs: mpsc::Sender<Input>, allow: Allow) -> Result<Self, RunError> {
        const NAME: &str = "files";
        let (jobs, mut waiting) = mpsc::channel(WAITING_MAX);
        let (ending, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || {
                // Dropped with the thread, however it ends.
                let _ending: oneshot::Sender<()> = ending;
                let mut failing = BTreeSet::new();
                while let Some(job) = waiting.blocking_recv() {
                    if let Some(done) = carry_out(job, &allow, &mut failing) {
                        // Nobody listens when the agent has left meanwhile.
                        let _left = inputs.blocking_send(Input::Filed(done));
                    }
                }
            })
            .map_err(|cause| RunError::Thread { name: NAME, cause })?;
        Ok(Self { jobs, ended })
    }

    /// Hands a job over; `false` when too many wait.
    pub(crate) fn hand(&self, job: Job) -> bool {
        self.jobs.try_send(job).is_ok()
    }

    /// Lets what waits be done, as far as that goes within a time.
    pub(crate) async fn finish(self, within: Duration) {
        let Self { jobs, ended } = self;
        drop(jobs);
        if tokio::time::timeout(within, ended).await.is_err() {
            tracing::warn!("the data folder does not answer; files of ended runs are left");
        }
    }
}

/// `failing`: what could not be written the last time, and was told.
fn carry_out(job: Job, allow: &Allow, failing: &mut BTreeSet<&'static str>) -> Option<Done> {
    match job {
        Job::Prepare {
            warden,
            run,
            item,
            checkpoint,
            agent,
            cluster,
            run_dir,
            sockets,
            lease_file,
        } => {
            let places = Places {
                agent: &agent,
                cluster,
                run_dir: &run_dir,
                sockets: &sockets,
                lease_file: &lease_file,
            };
            let target = LogTarget::of(&item);
            let order = launch::Order {
                run,
                item: &item,
                checkpoint: checkpoint.as_ref(),
                target: &target,
            };
            let start = launch::prepare(places, order, allow).map(Box::new);
            Some(Done::Prepared {
                warden,
                run,
                target,
                start,
            })
        }
        Job::Data {
            token,
            item,
            run_dir,
        } => {
            if let Err(error) = launch::write_data(&run_dir, &item) {
                tracing::error!(key = %item.key, %error, "new data cannot be written");
            }
            Some(Done::Written(token))
        }
        Job::Write {
            what,
            path,
            mode,
            bytes,
        } => {
            match write_whole(&path, mode, &bytes) {
                Ok(()) => {
                    failing.remove(what);
                }
                // Once, not with every renewal.
                Err(error) if failing.insert(what) => {
                    tracing::warn!(what, path = %path.display(), %error, "cannot be written");
                }
                Err(_) => {}
            }
            None
        }
        Job::Remove(path) => {
            let _left = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
            None
        }
    }
}

/// Orders for runs whose files are being made or changed: they must not overtake that.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    tokens: BTreeMap<Token, Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: u32,
    /// The run that is to be started as soon as its files are there.
    wanted: Option<RunId>,
    orders: Vec<(WardenId, Order)>,
}

impl Pending {
    /// A job about a token was handed over.
    pub(crate) fn began(&mut self, token: Token, starts: Option<RunId>) {
        let waiting = self.tokens.entry(token).or_default();
        waiting.jobs += 1;
        waiting.wanted = starts.or(waiting.wanted);
    }

    /// Takes a run from those that are to be started. `false` when it is none of them: its start was
    /// ordered, or it was withdrawn.
    pub(crate) fn withdraw(&mut self, run: RunId) -> bool {
        let waiting = self.tokens.get_mut(&run.token);
        waiting.is_some_and(|waiting| waiting.wanted.take_if(|wanted| *wanted == run).is_some())
    }

    /// Keeps an order back while there is a job about its token, otherwise returns it.
    pub(crate) fn hold(&mut self, token: Token, warden: WardenId, order: Order) -> Option<Order> {
        match self.tokens.get_mut(&token) {
            Some(waiting) => {
                waiting.orders.push((warden, order));
                None
            }
            None => Some(order),
        }
    }

    /// A job about a token was done; the orders that waited for it.
    pub(crate) fn ended(&mut self, token: Token) -> Vec<(WardenId, Order)> {
        let Some(waiting) = self.tokens.get_mut(&token) else {
            return Vec::new();
        };
        waiting.jobs = waiting.jobs.saturating_sub(1);
        if waiting.jobs > 0 {
            return Vec::new();
        }
        self.tokens
            .remove(&token)
            .map(|waiting| waiting.orders)
            .unwrap_or_default()
    }
}
