//! `up`: everything on this machine. One director in this process, N agents as processes of their own.
//!
//! ```text
//!   up ── director (tasks of this process, ledger on disk)
//!    ├── agent a1 ── wardens ── runs          each agent as if it were a machine
//!    └── agent a2 ── wardens ── runs
//! ```
//!
//! Agents end with `up`. Their wardens do not: when `up` itself is killed they keep the runs until
//! their deadline, and the next `up` on the same folder takes them over. An agent that is killed is
//! told and not started again: it stands for a machine, and machines fail.

mod agents;
mod failing;
mod tell;

use std::time::{Duration, Instant};

use quorate_api::client::{Client, EventFilter, Followed, PartitionFilter, Wait};
use quorate_api::resources::{AgentState, AgentView, PartitionView, Progress};
use quorate_core::ids::DirectorName;
use tokio_util::sync::CancellationToken;

use crate::cli::{Global, Goal, UpArgs, event_line, failure_of, request, warn_at_start};
use crate::daemon;
use crate::director::{Director, Home};
use crate::failure::{Code, Exit, Failure, chain};
use crate::files::{self, Loaded};
use crate::output::{Bar, Output, say};
use agents::{Agents, Ended};
use failing::Failing;

/// Name of the only director.
const DIRECTOR: &str = "d1";
/// A director of one is ready in well under a second; a large ledger takes its time to be read.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks whether it is ready.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// When nothing more has come up for so long, the bar gives way to the summary, which says what waits.
const STALL: Duration = Duration::from_secs(20);
/// One blocking query at most, so that the time that is left is shown as it shrinks.
const ROUND: Duration = Duration::from_secs(1);
/// Partitions that are looked at for why they fail.
const LOOKED_AT: u32 = 100;
/// The director is in this process, and answers at once or not at all.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// After a director that ended by itself, agents can only wait for their leases.
const LEAVE_WITHOUT_DIRECTOR: Duration = Duration::from_secs(15);

/// Runs until Ctrl-C.
///
/// # Errors
/// When it cannot start, or the director must end.
pub(crate) fn run(args: &UpArgs, global: &Global, output: Output) -> Result<Exit, Failure> {
    let loaded = files::load(&args.files.files)?;
    let level = global.log_level.as_deref().unwrap_or("warn");
    crate::telemetry::start(level, global.log_format.unwrap_or_default())?;
    let runtime = daemon::threads()?;
    let ended = runtime.block_on(everything(args, &loaded, output));
    runtime.shutdown_background();
    ended
}

/// What runs, and what it takes to watch it.
struct Up<'a> {
    args: &'a UpArgs,
    loaded: &'a Loaded,
    output: Output,
    client: Client,
    address: String,
    data_dir: std::path::PathBuf,
    agents: Agents,
}

async fn everything(args: &UpArgs, loaded: &Loaded, output: Output) -> Result<Exit, Failure> {
    let data_dir = daemon::absolute(&args.data_dir)?;
    let leave = daemon::leave_on_signal(|| {
        say("left at once; what still runs ends by itself when its lease is over");
    })?;
    let director = open_director(args, loaded, &data_dir).await?;
    warn_at_start(&data_dir);
    let address = director.address().to_string();
    let client = Client::new(vec![address.clone()], None).map_err(|error| {
        Failure::new(
            Code::Usage,
            chain(&error),
            "choose another address with --listen",
        )
    })?;
    let stop = CancellationToken::new();
    let mut director = tokio::spawn(director.run(stop.clone()));
    let agents = Agents::start(args.agents, &data_dir, &address);
    let mut up = match agents {
        Ok(agents) => Up {
            args,
            loaded,
            output,
            client,
            address,
            data_dir,
            agents,
        },
        Err(failure) => {
            stop.cancel();
            finished(director.await)?;
            return Err(failure);
        }
    };
    let worked = tokio::select! {
        worked = up.work() => worked,
        () = leave.cancelled() => Ok(()),
        ended = &mut director => {
            up.leave(Some(LEAVE_WITHOUT_DIRECTOR)).await;
            return finished(ended).and(Err(Failure::new(
                Code::Failed,
                "the director ended by itself",
                "start `up` again: it goes on from its folder",
            )));
        }
    };
    up.leave(None).await;
    let apart = up.still_there().await;
    stop.cancel();
    finished(director.await)?;
    say(&tell::farewell(apart.as_deref()));
    worked.map(|()| Exit::Done)
}

async fn open_director(
    args: &UpArgs,
    loaded: &Loaded,
    data_dir: &std::path::Path,
) -> Result<Director, Failure> {
    let name = DirectorName::new(DIRECTOR)
        .map_err(|error| Failure::new(Code::Failed, error, "report this as a defect"))?;
    let mut config = quorate_director::Config::new(name, data_dir.join("director"), args.listen);
    config.source_roots.clone_from(&loaded.folders);
    config.source_roots.extend_from_slice(&args.source_root);
    config.expect_agents = Some(args.agents);
    Director::open(config, Home::Alone).await
}

/// How the director's task ended.
fn finished(ended: Result<Result<(), Failure>, tokio::task::JoinError>) -> Result<(), Failure> {
    ended.unwrap_or_else(|error| {
        Err(Failure::new(
            Code::Failed,
            format!("the director failed: {error}"),
            "start `up` again: it goes on from its folder",
        ))
    })
}

impl Up<'_> {
    /// Applies the files, shows how everything comes up, then what happens, for ever.
    async fn work(&mut self) -> Result<(), Failure> {
        self.ready().await?;
        let applied = self.client.apply(&request(self.loaded)?).await;
        let applied = applied.map_err(failure_of)?;
        for note in &applied.notes {
            say(note);
        }
        // From here on everything runs, whatever becomes of the display.
        self.display(applied.index).await;
        loop {
            let ended = self.agents.ended().await;
            self.agents.told(&ended);
        }
    }

    /// Shows how everything comes up and then what happens, for as long as there is somebody to show it to.
    async fn display(&mut self, index: u64) {
        let mut after = match self.show_start(index).await {
            Ok(index) => Some(index.to_string()),
            Err(failure) => {
                crate::output::report(&failure);
                None
            }
        };
        while let Err(failure) = self.watch(after.take()).await {
            if failure.is_of_output() {
                say("standard output is gone: nothing more is shown there, and everything goes on");
                return;
            }
            say("what happens cannot be shown; it is tried again:");
            crate::output::report(&failure);
            tokio::time::sleep(ROUND).await;
        }
    }

    /// Shows how everything comes up; where to go on from.
    async fn show_start(&mut self, index: u64) -> Result<u64, Failure> {
        let progress = self.come_up(index).await?;
        let text = tell::summary(self, &progress).await?;
        self.output.text(&text)?;
        Ok(progress.index)
    }

    async fn ready(&self) -> Result<(), Failure> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            match self.client.ready().await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= until => return Err(failure_of(error)),
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Shows progress until all runs, or nothing more comes up.
    async fn come_up(&mut self, index: u64) -> Result<Progress, Failure> {
        let services = self.loaded.file.service.keys();
        let goal = Goal {
            service: None,
            index,
            at_least: services.map(|name| self.loaded.partitions(name)).sum(),
            refused: None,
        };
        let mut bar = Bar::new("starting");
        let mut best = (0, Instant::now());
        let mut failing = Failing::default();
        let (mut wait, mut refused) = (None, None);
        loop {
            // Asked first: an agent that comes after what is told next is not counted in it.
            let here = self.agents_here().await? >= self.args.agents;
            let progress = tokio::select! {
                progress = self.client.settling(None, wait) => progress.map_err(failure_of)?,
                ended = self.agents.ended() => {
                    bar.pause(|| self.agents.told(&ended));
                    continue;
                }
            };
            if progress.running > best.0 {
                best = (progress.running, Instant::now());
            }
            // Before all agents are here, nothing that has no place is known to have none.
            let all_here = progress.unplaceable == 0 || here;
            if (goal.ended(&progress, Instant::now(), &mut refused) && all_here)
                || best.1.elapsed() > STALL
            {
                return Ok(progress);
            }
            bar.show(&if all_here {
                progress
            } else {
                Progress {
                    unplaceable: 0,
                    ..progress
                }
            });
            if progress.failing + progress.failed > 0 && failing.listens() {
                let lines = failing.news(&self.not_running().await?);
                bar.pause(|| lines.iter().for_each(|line| say(line)));
            }
            wait = Some(Wait {
                index: progress.index,
                wait: ROUND,
            });
        }
    }

    /// Some of what should run and does not.
    async fn not_running(&self) -> Result<Vec<PartitionView>, Failure> {
        let filter = PartitionFilter {
            problems: true,
            ..PartitionFilter::default()
        };
        let page = self.client.partitions_page(&filter, LOOKED_AT, None);
        Ok(page.await.map_err(failure_of)?.items)
    }

    /// How many of the agents of this `up` the director knows to be there.
    async fn agents_here(&self) -> Result<u32, Failure> {
        let agents = self.client.agents(None).await.map_err(failure_of)?.value;
        let here = agents
            .iter()
            .filter(|agent| agent.state != AgentState::Gone);
        Ok(u32::try_from(here.count()).unwrap_or(u32::MAX))
    }

    /// Tells what happens, each in a line: after an index, or from now on.
    async fn watch(&mut self, after: Option<String>) -> Result<(), Failure> {
        let filter = EventFilter::default();
        let opened = self.client.events(&filter, after).await;
        let mut events = opened.map_err(failure_of)?;
        loop {
            tokio::select! {
                followed = events.follow() => match followed.map_err(failure_of)? {
                    Followed::Event(event) => {
                        let line = event_line(&event, self.output);
                        self.output.text(&(line + "\n"))?;
                    }
                    // More happened at once than is kept for those who watch.
                    Followed::Skipped(problem) => say(&format!("skipped: {}", problem.detail)),
                },
                ended = self.agents.ended() => self.agents.told(&ended),
            }
        }
    }

    /// The agents that are there though all of this `up` have left; `None` when that cannot be known.
    async fn still_there(&self) -> Option<Vec<AgentView>> {
        let asked = tokio::time::timeout(ASK_WITHIN, self.client.agents(None)).await;
        let mut agents = asked.ok()?.ok()?.value;
        agents.retain(|agent| agent.state != AgentState::Gone);
        for agent in &mut agents {
            // One that was killed a moment ago is still believed to be there.
            let folder = agents::folder(&self.data_dir).join(&agent.name);
            if folder.exists() && !quorate_agent::is_running(&folder) {
                agent.state = AgentState::Silent;
            }
        }
        Some(agents)
    }

    /// Tells every agent to leave and waits until all have; at most for `limit`.
    async fn leave(&mut self, limit: Option<Duration>) {
        if self.agents.count() == 0 {
            return;
        }
        let mut bar = Bar::new("stopping");
        self.agents.ask_to_leave();
        let gone = async {
            while self.agents.count() > 0 {
                let left = self.agents.names().join(", ");
                bar.note(&format!("waiting for {left}; Ctrl-C again leaves at once"));
                let ended: Ended = self.agents.ended().await;
                if !ended.status.is_some_and(|status| status.success()) {
                    bar.pause(|| self.agents.told(&ended));
                }
            }
        };
        match limit {
            None => gone.await,
            Some(limit) => {
                if tokio::time::timeout(limit, gone).await.is_err() {
                    say(
                        "some agents did not leave in time and are killed; their runs end with their leases",
                    );
                }
            }
        }
    }
}
