//! The agent's shell: one task owns the [agent machine](quorate_core::agent); everything else feeds it
//! or carries out what it orders.
//!
//! ```text
//!             renewal thread ──┐                       ┌── warden writers
//! work polls, call tasks ──────┼──► inputs ► machine ──┼── call tasks
//!             warden readers ──┤    (bounded)          ├── logs thread
//!               files thread ──┘                       └── files thread
//! ```
//!
//! It chooses nothing. It must never block: orders to wardens, pipes to the logs and work on files are
//! handed over without waiting, and every call is a task with a time limit.

mod adopt;
mod allow;
mod asks;
mod calls;
mod clock;
mod config;
mod containment;
mod data_dir;
mod eras;
mod files;
pub(crate) mod identity;
mod last_will;
mod launch;
mod leases;
mod link;
mod local;
mod logs;
mod near;
mod notify;
mod renewal;
mod secret;
mod short;
mod spawn;
mod tail;
mod times;
mod tls;
mod translate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_api::client::Client;
use quorate_api::session::RegisterRequest;
use quorate_core::agent::{
    Agent, AskId, Effect, Event, Item, Kept, Latest, Opened, RunId, WardenId,
};
use quorate_core::ids::Token;
use quorate_core::record::Cause;
use quorate_core::time::Moment;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::files_limit::raise_files_limit;
use crate::warden::protocol::{Order, StartRun};
use crate::warden::{self, client as warden_client};
use calls::Caller;
pub use config::{Allow, Config, RunError};
use data_dir::DataDir;
pub use data_dir::is_running;
use files::{Done, Files, Job, Pending};
use last_will::LastWill;
pub use last_will::{LastWillError, last_will};
use launch::{LaunchError, LogTarget};
use leases::{Lease, LeaseFiles};
use link::{Descriptors, Link, wire_id};
use local::{Local, Reply};
use logs::Logs;
use near::Near;
use renewal::Renewed;
use secret::secret;
use tls::Tls;

/// The class that every agent has a session for, in use or not, so that it is known.
const FIRST_LEASE: Duration = Duration::from_secs(10);
/// Inputs that wait for the machine. It takes one in within microseconds; whoever feeds it waits.
const INPUTS_MAX: usize = 1024;
/// How long the last orders may take to be carried out when the agent leaves.
const LEAVE_WITHIN: Duration = Duration::from_secs(7);

/// What the machine's task hears.
#[derive(Debug)]
pub(crate) enum Input {
    Event(Event),
    /// A warden was started and is connected.
    Linked {
        warden: WardenId,
        client: Box<warden_client::Client>,
    },
    /// A run executes; with its descriptors.
    Started {
        warden: WardenId,
        pid: u32,
        descriptors: Descriptors,
    },
    /// Work on files was done.
    Filed(Done),
    /// Where the directors are, all that are known.
    Directors(Vec<String>),
}

/// What a warden keeps for the next agent process.
#[derive(Debug, Serialize, Deserialize)]
struct Blob {
    secret: String,
    kept: Kept,
}

/// A warden as the shell knows it.
#[derive(Debug)]
struct Holder {
    /// Random, drawn once: a repeat of `register` is told by it.
    secret: String,
    /// `None` while it is being started.
    link: Option<Link>,
    opened: Option<Opened>,
    /// Cancelled with the session: ends its polls.
    dropped: CancellationToken,
}

impl Holder {
    fn new() -> Self {
        Self {
            secret: secret(),
            link: None,
            opened: None,
            dropped: CancellationToken::new(),
        }
    }
}

struct Shell {
    config: Config,
    data: DataDir,
    machine: Agent,
    client: Client,
    /// The client of the renewals, which have connections of their own.
    renews: Client,
    near: Near,
    tls: Option<Tls>,
    /// Random number of this process.
    process: u64,
    inputs: mpsc::Sender<Input>,
    holders: BTreeMap<WardenId, Holder>,
    renewed: watch::Sender<renewal::Sessions>,
    logs: Logs,
    local: Local,
    /// Runs that wait until their checkpoint is kept. Each has a connection open, of which there are few.
    keeping: BTreeMap<AskId, oneshot::Sender<Reply>>,
    last_ask: AskId,
    files: Files,
    leases: LeaseFiles,
    /// Open files that a run may have.
    files_of_runs: u64,
    pending: Pending,
    targets: BTreeMap<Token, LogTarget>,
    /// Tasks that wait for a run to become ready.
    notified: BTreeMap<RunId, AbortHandle>,
    tasks: JoinSet<()>,
    alarm: Option<Moment>,
    done: bool,
}

/// The two ways in which an agent is told to end.
#[derive(Clone, Debug, Default)]
pub struct Stops {
    /// Stop everything, give it back, and end.
    pub leave: CancellationToken,
    /// End at once and let the wardens keep the runs for the next process, until their deadline.
    pub hand_over: CancellationToken,
}

/// Runs an agent until it is told to leave and has left: everything stopped and given back, or its
/// leases over. Or until it is told to hand over, which touches no run.
///
/// # Errors
/// When its folder or its configuration cannot be used. Nothing that happens later ends it.
pub async fn run(config: Config, stops: Stops) -> Result<(), RunError> {
    let data = DataDir::open(&config.data_dir)?;
    let tls = Tls::find(config.ca_file.as_deref(), &config.data_dir);
    let loaded = tls.as_ref().map(Tls::load).transpose()?;
    let options = tls::options(loaded.as_ref(), config.token.as_deref());
    let options = eras::followed(options, &data);
    let client = Client::with(config.join.clone(), options.clone())?;
    let logs = Logs::start(data.logs())?;
    let (inputs, mut heard) = mpsc::channel(INPUTS_MAX);
    let (asks, mut asked) = mpsc::channel(local::ASKS_MAX);
    let local = Local::start(config.name.to_string(), data.runs(), asks);
    let local = local.map_err(|cause| RunError::Thread {
        name: "local API",
        cause,
    })?;
    let files = Files::start(inputs.clone(), config.allow.clone())?;
    let (renewed, sessions) = watch::channel(renewal::Sessions::new());
    let (renewal, renews) = renewal::start(config.join.clone(), options, sessions, inputs.clone())?;
    let clients = [client.clone(), renews.clone()];
    let near = Near::start(clients, &data.directors(), data.agent_id());
    let leases = LeaseFiles::open(&data);
    let mut shell = Shell {
        machine: Agent::new(&[FIRST_LEASE], data.first_warden()),
        config,
        data,
        client,
        renews,
        near,
        tls,
        process: rand::random::<u64>() >> 11,
        inputs,
        holders: BTreeMap::new(),
        renewed,
        logs,
        local,
        keeping: BTreeMap::new(),
        last_ask: AskId(0),
        files,
        leases,
        files_of_runs: raise_files_limit().0,
        pending: Pending::default(),
        targets: BTreeMap::new(),
        notified: BTreeMap::new(),
        tasks: JoinSet::new(),
        alarm: None,
        done: false,
    };
    // It ends with this function.
    let _papers = tls::Renewal::of(shell.tls.as_ref(), loaded, shell.client.clone())
        .map(|renewal| AbortOnDropHandle::new(tokio::spawn(renewal.run())));
    tracing::info!(agent = %shell.config.name, id = shell.data.agent_id(), "agent begins");
    shell.adopt().await;
    shell.step(Event::Began);
    let mut leaving = false;
    while !shell.done {
        tokio::select! {
            Some(input) = heard.recv() => shell.take(input),
            Some(ask) = asked.recv() => shell.asked(ask),
            () = clock::until_some(shell.alarm) => {
                shell.alarm = None;
                shell.step(Event::Woke);
            }
            () = stops.hand_over.cancelled() => {
                shell.hand_over().await;
                return Ok(());
            }
            () = stops.leave.cancelled(), if !leaving => {
                leaving = true;
                tracing::info!("agent leaves");
                shell.step(Event::Shutdown);
            }
            Some(ended) = shell.tasks.join_next() => report_panic(ended),
        }
    }
    drop((heard, asked));
    shell.end(renewal).await;
    Ok(())
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a task of the agent has failed");
    }
}

impl Shell {
    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => {
                self.look(&event);
                self.step(event);
            }
            Input::Linked { warden, client } => self.linked(warden, *client),
            Input::Started {
                warden,
                pid,
                descriptors,
            } => {
                let run = descriptors.run;
                self.attach(warden, descriptors);
                self.step(Event::Started { warden, run, pid });
            }
            Input::Filed(Done::Prepared {
                warden,
                run,
                target,
                start,
            }) => self.prepared(warden, run, target, start),
            Input::Filed(Done::Written(token)) => self.filed(token),
            Input::Directors(directors) => {
                let seed = self.data.agent_id();
                self.renews.learn(&directors, seed);
                if self.client.learn(&directors, seed) {
                    tracing::info!(?directors, "the directors are these");
                    self.near.changed();
                    self.do_later(self.data.keep_directors(&directors));
                }
            }
        }
    }

    /// What the shell itself has to do when something happens.
    fn look(&mut self, event: &Event) {
        match event {
            Event::Ended { warden, run, .. } => {
                self.forget_notify(*run);
                self.local.detach(*warden, *run);
            }
            Event::NotStarted { run, cause, .. } => {
                self.forget_notify(*run);
                if let Some(target) = self.targets.remove(&run.token) {
                    self.tell_in_log(&target, run.attempt, cause);
                }
            }
            Event::Found { .. }
            | Event::Began
            | Event::Classes(_)
            | Event::Spawned { .. }
            | Event::WardenGone { .. }
            | Event::Opened { .. }
            | Event::OpenFailed { .. }
            | Event::Lost { .. }
            | Event::Renewed { .. }
            | Event::Work { .. }
            | Event::Reported { .. }
            | Event::ReportUnanswered { .. }
            | Event::Closed { .. }
            | Event::CloseUnanswered { .. }
            | Event::Started { .. }
            | Event::Notified { .. }
            | Event::CheckpointAsked { .. }
            | Event::CheckpointsAnswered { .. }
            | Event::CheckpointsUnanswered { .. }
            | Event::Shutdown
            | Event::Woke => {}
        }
    }

    fn step(&mut self, event: Event) {
        // What an effect turns into at once is taken in after all effects of the step before.
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut effects = Vec::new();
            self.machine.step(clock::now(), event, &mut effects);
            for effect in effects {
                events.extend(self.carry_out(effect));
            }
        }
    }

    /// Carries out one effect; the answer is an event that follows from it at once.
    fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::SpawnWarden { warden, lease } => self.spawn_warden(warden, lease),
            Effect::Open { warden, lease } => self.open(warden, lease),
            Effect::Resume { warden, session } => {
                let process = self.process;
                self.call(warden, |caller| caller.resume(session, process));
            }
            Effect::Follow { warden, opened } => self.follow(warden, opened),
            Effect::Keep { warden, kept } => return self.keep(warden, kept),
            Effect::Arm { warden, deadline } => return self.arm(warden, deadline),
            Effect::Start {
                warden,
                run,
                item,
                checkpoint,
            } => return self.start(warden, run, item, checkpoint),
            Effect::Signal {
                warden,
                run,
                signal,
            } => {
                let order = Order::Signal {
                    run: wire_id(run),
                    signal: i32::from(signal),
                    whole_tree: false,
                };
                return self.order_run(warden, run, order);
            }
            Effect::WriteData { run, item, .. } => self.write_data(run, item),
            Effect::Kill { warden, run } => {
                if self.pending.withdraw(run) {
                    let cause = Cause::new("stopped before its files were made");
                    return Some(Event::NotStarted { warden, run, cause });
                }
                let order = Order::Kill { run: wire_id(run) };
                return self.order_run(warden, run, order);
            }
            Effect::Forget { warden, run } => {
                // The next attempt makes it anew.
                self.do_later(Job::Remove(self.data.run(run.token)));
                let order = Order::Forget { run: wire_id(run) };
                return self.order_run(warden, run, order);
            }
            Effect::Report { warden, report } => {
                self.call(warden, |caller| caller.report(report));
            }
            Effect::Checkpoints {
                warden,
                call,
                checkpoints,
            } => self.call(warden, |caller| caller.checkpoints(call, checkpoints)),
            Effect::AnswerCheckpoint { ask, outcome } => self.answer(ask, outcome),
            Effect::Close { warden, reason } => {
                let opened = self.holders.get(&warden)?.opened?;
                self.call(warden, |caller| caller.close(opened, reason));
            }
            Effect::Discard { warden, why } => self.discard(warden, why),
            Effect::WakeAt(moment) => self.alarm = Some(moment),
            Effect::Done => self.done = true,
        }
        None
    }

    fn open(&mut self, warden: WardenId, lease: Duration) {
        let holder = self.holders.get(&warden);
        let Some(holder) = holder.filter(|one| one.link.is_some()) else {
            return;
        };
        let secret = holder.secret.clone();
        // One grade is told of an agent, and whatever requires it may be given to any of its wardens: each
        // has proven its own, and on a busy host not all of them the same.
        let links = self.holders.values().filter_map(|one| one.link.as_ref());
        let grades = links.map(|link| link.state.containment.as_str());
        let Some(containment) = warden::weakest(grades).map(str::to_owned) else {
            return;
        };
        let request = RegisterRequest {
            agent: self.config.name.to_string(),
            agent_id: self.data.agent_id(),
            boot_id: identity::boot_id(),
            machine_id: identity::machine_id(),
            folder: self.data.folder(),
            labels: self.config.labels.clone(),
            capacity: self.config.capacity,
            containment,
            lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
            secret,
            process: self.process,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.call(warden, |caller| caller.register(request));
    }

    fn follow(&mut self, warden: WardenId, opened: Opened) {
        let Some(holder) = self.holders.get_mut(&warden) else {
            return;
        };
        holder.opened = Some(opened);
        let (secret, dropped) = (holder.secret.clone(), holder.dropped.clone());
        let warden_dir = holder.link.as_ref().map(|link| link.dir.clone());
        tracing::info!(
            warden = warden.0,
            session = opened.session.0,
            incarnation = opened.incarnation.0,
            "session is open"
        );
        let will = LastWill {
            session: opened.session.0,
            secret: secret.clone(),
            directors: self.client.addresses().to_vec(),
            token: self.config.token.clone(),
            tls: self.tls.clone(),
            expiry_ms: u64::try_from(opened.times.expiry().as_millis()).unwrap_or(u64::MAX),
        };
        if let Some(dir) = warden_dir {
            self.do_later(will.job(&dir));
        }
        self.renewed.send_modify(|sessions| {
            sessions.insert(
                warden,
                Renewed {
                    opened,
                    secret: secret.clone(),
                },
            );
        });
        let caller = Caller {
            client: self.client.clone(),
            warden,
            secret,
        };
        let logs = tail::serve(caller.clone(), opened.session, self.data.logs());
        let work = caller.follow_work(opened, dropped.clone(), self.inputs.clone());
        self.tasks.spawn(work);
        self.tasks.spawn(async move {
            let _dropped = dropped.run_until_cancelled(logs).await;
        });
    }

    fn keep(&mut self, warden: WardenId, kept: Kept) -> Option<Event> {
        let secret = self.holders.get(&warden)?.secret.clone();
        match rmp_serde::to_vec_named(&Blob { secret, kept }) {
            Ok(blob) => self.order(warden, Order::Keep { blob }),
            Err(error) => {
                tracing::error!(%error, "what a warden is to keep cannot be encoded");
                None
            }
        }
    }

    fn arm(&mut self, warden: WardenId, deadline: Moment) -> Option<Event> {
        // The warden first: a run should not read a deadline that is not armed. It is only asked for here;
        // a warden that is slow may still have the earlier one when a run reads this.
        let lost = self.order(
            warden,
            Order::Arm {
                deadline: deadline.as_nanos(),
            },
        );
        let cluster = self.holders.get(&warden)?.opened?.cluster;
        if let Some(job) = self.leases.write(warden, Lease { deadline, cluster }) {
            self.do_later(job);
        }
        lost
    }

    fn start(
        &mut self,
        warden: WardenId,
        run: RunId,
        item: Arc<Item>,
        checkpoint: Option<Latest>,
    ) -> Option<Event> {
        let Some(opened) = self.holders.get(&warden).and_then(|holder| holder.opened) else {
            let cause = Cause::new("its session is not open");
            return Some(Event::NotStarted { warden, run, cause });
        };
        let job = Job::Prepare {
            warden,
            run,
            item,
            checkpoint,
            agent: self.config.name.clone(),
            cluster: opened.cluster,
            run_dir: self.data.run(run.token),
            sockets: self.data.sockets(run.token),
            lease_file: self.leases.path(warden),
        };
        if self.files.hand(job) {
            self.pending.began(run.token, Some(run));
            return None;
        }
        let cause = Cause::new("the agent's data folder does not answer");
        Some(Event::NotStarted { warden, run, cause })
    }

    /// The files of a run are there, or cannot be made.
    fn prepared(
        &mut self,
        warden: WardenId,
        run: RunId,
        target: LogTarget,
        start: Result<Box<StartRun>, LaunchError>,
    ) {
        // Otherwise it was killed meanwhile, and that was answered.
        let event = if self.pending.withdraw(run) {
            self.targets.insert(run.token, target);
            match start {
                Ok(start) => self.order(warden, Order::Start(start)),
                Err(error) => {
                    let cause = Cause::new(&error.to_string());
                    Some(Event::NotStarted { warden, run, cause })
                }
            }
        } else {
            None
        };
        self.filed(run.token);
        if let Some(event) = event {
            self.look(&event);
            self.step(event);
        }
    }

    fn write_data(&mut self, run: RunId, item: Arc<Item>) {
        let (token, run_dir) = (run.token, self.data.run(run.token));
        let job = Job::Data {
            token,
            item,
            run_dir,
        };
        if self.files.hand(job) {
            self.pending.began(token, None);
        } else {
            tracing::error!(
                token = token.0,
                "new data cannot be written: the disk does not answer"
            );
        }
    }

    /// A job about a token was done: the orders that waited for it go out.
    fn filed(&mut self, token: Token) {
        let orders = self.pending.ended(token);
        let lost: Vec<Event> = orders
            .into_iter()
            .filter_map(|(warden, order)| self.order(warden, order))
            .collect();
        for event in lost {
            self.step(event);
        }
    }

    fn do_later(&self, job: Job) {
        if !self.files.hand(job) {
            tracing::warn!("the data folder does not answer; files are not kept up to date");
        }
    }

    /// Who looks at the output of a partition finds there why there is none.
    fn tell_in_log(&self, target: &LogTarget, attempt: u32, cause: &Cause) {
        let (service, key) = (&target.service, &target.key);
        let cause = cause.as_str();
        tracing::warn!(service, key, attempt, cause, "not started");
        self.logs.note(
            target,
            format!("quorate: attempt {attempt} could not be started: {cause}\n"),
        );
    }

    fn attach(&mut self, warden: WardenId, descriptors: Descriptors) {
        let Descriptors {
            run,
            output,
            notify,
            api,
        } = descriptors;
        let target = self
            .targets
            .remove(&run.token)
            .or_else(|| LogTarget::read(&self.data.run(run.token)));
        match (output, target) {
            (Some(output), Some(target)) => self.logs.attach(output, &target),
            (Some(_) | None, _) => {
                tracing::warn!(token = run.token.0, "output of a run is lost");
            }
        }
        if let Some(listener) = api
            && let Err(error) = self.local.attach(warden, run, listener)
        {
            tracing::warn!(token = run.token.0, %error, "no local API for a run");
        }
        if let Some(socket) = notify {
            let inputs = self.inputs.clone();
            let task = self.tasks.spawn(async move {
                match notify::ready(socket).await {
                    Ok(()) => {
                        let ready = Input::Event(Event::Notified { warden, run });
                        let _left = inputs.send(ready).await;
                    }
                    Err(error) => tracing::warn!(token = run.token.0, %error, "notify socket"),
                }
            });
            self.notified.insert(run, task);
        }
    }

    fn forget_notify(&mut self, run: RunId) {
        if let Some(task) = self.notified.remove(&run) {
            task.abort();
        }
    }

    fn discard(&mut self, warden: WardenId, why: &'static str) {
        tracing::info!(warden = warden.0, why, "a session ends");
        self.renewed.send_modify(|sessions| {
            sessions.remove(&warden);
        });
        if let Some(job) = self.leases.remove(warden) {
            self.do_later(job);
        }
        self.local.detach_all(warden);
        if let Some(holder) = self.holders.remove(&warden) {
            holder.dropped.cancel();
            if let Some(link) = holder.link {
                link.end(&mut self.tasks);
            }
        }
    }

    async fn hand_over(self) {
        tracing::info!("agent hands over to the next process");
        self.local.end().await;
        let links = self.holders.into_values().filter_map(|holder| holder.link);
        futures::future::join_all(links.map(Link::hand_over)).await;
    }

    /// Sends an order; a warden that takes none any more is given up.
    fn order(&self, warden: WardenId, order: Order) -> Option<Event> {
        let link = self.holders.get(&warden)?.link.as_ref()?;
        (!link.send(order)).then_some(Event::WardenGone {
            warden,
            proven: false,
        })
    }

    /// Sends an order about a run, after the work on its files.
    fn order_run(&mut self, warden: WardenId, run: RunId, order: Order) -> Option<Event> {
        let order = self.pending.hold(run.token, warden, order)?;
        self.order(warden, order)
    }

    /// Makes a call whose answer is one event.
    fn call<F>(&mut self, warden: WardenId, call: impl FnOnce(Caller) -> F)
    where
        F: Future<Output = Event> + Send + 'static,
    {
        let Some(holder) = self.holders.get(&warden) else {
            return;
        };
        let answer = call(Caller {
            client: self.client.clone(),
            warden,
            secret: holder.secret.clone(),
        });
        let dropped = holder.dropped.clone();
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            if let Some(event) = dropped.run_until_cancelled(answer).await {
                let _left = inputs.send(Input::Event(event)).await;
            }
        });
    }

    /// Lets the last orders be carried out.
    async fn end(mut self, renewal: std::thread::JoinHandle<()>) {
        self.holders.clear();
        self.local.end().await;
        let tasks = &mut self.tasks;
        let rest = async move {
            while let Some(ended) = tasks.join_next().await {
                report_panic(ended);
            }
        };
        let rest = tokio::time::timeout(LEAVE_WITHIN, rest);
        let (ended, ()) = tokio::join!(rest, self.files.finish(LEAVE_WITHIN));
        if ended.is_err() {
            tracing::warn!("left before everything had ended");
        }
        drop(self.renewed);
        // It waits for nothing but the channel that was just closed and one bounded call.
        let joined = tokio::task::spawn_blocking(move || renewal.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the renewal thread has failed");
        }
        tracing::info!("agent has left");
    }
}
