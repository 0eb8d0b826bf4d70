//! Faults for real clusters of real processes, judged by a referee that knows every true exit and shares no
//! code with the product: `quorate-chaos run --minutes 60 --report report.md`, or `cargo xtask chaos`.
//! What is injected, what is judged and what is not is in `docs/chaos.md`.

mod clock;
mod cluster;
mod deck;
mod desk;
mod director;
mod drama;
mod faults;
mod figures;
mod grade;
mod judge;
mod lines;
mod link;
mod machine;
mod measure;
mod net;
mod outage;
mod privileges;
mod process;
mod pulse;
mod quorum;
mod random;
mod records;
mod register;
mod report;
mod scene;
mod stage;
mod store;
mod teeth;
mod times;
mod upheaval;
mod wire;
mod worker;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow};
use clap::{Args, Parser, Subcommand};

use crate::cluster::Size;
use crate::drama::{Asked, Drama};
use crate::grade::Grade;
use crate::report::About;
use crate::stage::Stage;
use crate::teeth::Broken;
use crate::worker::WorkerArgs;

/// Real clusters under faults, and a referee.
#[derive(Debug, Parser)]
#[command(name = "quorate-chaos")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a cluster under faults for a while
    Run(RunArgs),
    /// Breaks a cluster on purpose and waits until the referee has found out
    Teeth(TeethArgs),
    /// The first process of the namespaces that `run` makes
    #[command(hide = true)]
    Inside {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// What the cluster runs
    #[command(hide = true)]
    Worker(WorkerArgs),
}

#[derive(Clone, Debug, Args)]
struct RunArgs {
    /// How long, in minutes
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Draws the faults; another one each time when not given
    #[arg(long)]
    seed: Option<u64>,
    /// Only faults whose number is this, or whose text has it; may be given several times
    #[arg(long, value_name = "WORDS")]
    only: Vec<String>,
    /// The grade of containment that agents are to earn; for a lower one privileges are taken from them
    #[arg(long, value_enum, default_value_t = Grade::Kernel)]
    grade: Grade,
    /// Where the report goes, beside standard output
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// A store that the directors share for their ledger, which is started as well; they keep it themselves when not
    /// given
    #[arg(long, value_name = "STORE")]
    ledger: Option<store::Kind>,
    #[command(flatten)]
    size: Size,
    #[command(flatten)]
    program: ProgramArgs,
}

#[derive(Clone, Debug, Args)]
struct TeethArgs {
    /// What is broken
    broken: Broken,
    #[command(flatten)]
    program: ProgramArgs,
}

#[derive(Clone, Debug, Args)]
struct ProgramArgs {
    /// The program quorate; the one beside this program when not given
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

impl ProgramArgs {
    fn path(&self) -> Result<PathBuf> {
        let beside = || Ok(std::env::current_exe()?.with_file_name("quorate"));
        let path = self
            .program
            .clone()
            .map_or_else(beside, Ok::<_, anyhow::Error>)?;
        let path = std::path::absolute(path)?;
        path.exists()
            .then_some(())
            .ok_or_else(|| anyhow!("{} is not there: build it first", path.display()))?;
        Ok(path)
    }
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(args) => {
            with_stage(&args.program, |stage, program| run(&args, stage, program))
        }
        Command::Teeth(args) => with_stage(&args.program, |stage, program| {
            let found = teeth::bite(args.broken, program, stage)?;
            writeln!(std::io::stdout(), "found: {found}")?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::Inside { arguments } => stage::inside(&arguments),
        Command::Worker(args) => worker::run(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("chaos: {error:#}");
        ExitCode::from(2)
    })
}

/// Does it with the program on the stage that this process is on, or makes one first.
fn with_stage(
    program: &ProgramArgs,
    work: impl FnOnce(&Stage, &Path) -> Result<ExitCode>,
) -> Result<ExitCode> {
    let program = program.path()?;
    match Stage::here() {
        Some(stage) => work(&stage, &program),
        None => stage::enter(),
    }
}

fn run(args: &RunArgs, stage: &Stage, program: &Path) -> Result<ExitCode> {
    let drawn = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(1, |since| u64::from(since.subsec_nanos()))
    };
    let seed = args.seed.unwrap_or_else(drawn);
    eprintln!(
        "seed {seed}; the same faults again: --seed {seed} (when they hit cannot be repeated)"
    );
    let asked = Asked {
        program: program.to_owned(),
        folder: stage.folder.clone(),
        seed,
        time: Duration::from_secs_f64(args.minutes * 60.0),
        size: args.size,
        ledger: args.ledger,
        only: args.only.clone(),
        grade: args.grade,
    };
    let begun = Instant::now();
    let mut drama = Drama::begin(asked, stage)?;
    let played = drama.play();
    let build = program
        .parent()
        .and_then(Path::file_name)
        .unwrap_or_default();
    let about = About {
        seed,
        grade: args.grade,
        size: args.size,
        ledger: args.ledger,
        partitions: drama.scene.cluster.wanted().len(),
        took: begun.elapsed(),
        private: stage.private,
        failed: played.is_err(),
        ahead: cluster::offsets(args.size).any(|(_, offset)| offset != 0),
        build: &build.to_string_lossy(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let text = report::report(about, &drama.told, &drama.scene.desk, &drama.register);
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if let Some(path) = &args.report {
        std::fs::write(path, &text).with_context(|| path.display().to_string())?;
    }
    let fine = played.is_ok() && !drama.is_broken();
    if !fine {
        // Before anything is ended, so that it is as it was.
        drama.keep(&stage.folder)?;
        std::fs::write(stage.folder.join("report.md"), &text)?;
        let schedule = drama.told.schedule.join("\n");
        std::fs::write(stage.folder.join("schedule.txt"), schedule)?;
    }
    drama.scene.desk.kill_all();
    drop(drama);
    played?;
    Ok(if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
