//! The project's own checks and chores: `cargo xtask verify | fix | tidy | simulate | teeth | chaos`.
//!
//! `verify` never changes a file; `fix` may.

mod teeth;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
usage: cargo xtask <command>

  verify   everything that must hold before a change lands: format, lints, tidy, docs, tests, simulate, teeth
  lint     the part of verify that runs no test
  tidy     the project's own rules only: arrows between crates, sizes, dead files
  simulate the simulator at release speed: fixed seeds, fresh ones, and whether planted bugs are found
  teeth    whether the tests find bugs that are planted below the machines: [BUG or CRATE ...]
  chaos    real processes under faults at release speed: [--minutes M] [--seed N] [--report FILE]
  fix      formats and applies what clippy can mend by itself
";

fn main() -> ExitCode {
    let command = std::env::args().nth(1);
    let done = match command.as_deref() {
        Some("verify") => verify(),
        Some("lint") => lint(),
        Some("tidy") => run_tidy(),
        Some("simulate") => simulate(),
        Some("teeth") => teeth(&std::env::args().skip(2).collect::<Vec<_>>()),
        Some("chaos") => chaos(&std::env::args().skip(2).collect::<Vec<_>>()),
        Some("fix") => fix(),
        Some(_) | None => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn verify() -> Result<()> {
    lint()?;
    let test = ["test", "--workspace", "--locked", "--no-fail-fast"];
    cargo(&[&test[..], &["--exclude", "quorate-ledger"]].concat())?;
    ledgers()?;
    simulate()?;
    teeth(&teeth::QUICK.map(str::to_owned))
}

/// Ledgers, those in the stores of others against their servers. More at once than there are processors: they wait for
/// servers that stand still most of the time.
fn ledgers() -> Result<()> {
    let test = ["test", "--locked", "-p", "quorate-ledger", "--all-features"];
    cargo(&[&test[..], &["--", "--test-threads=6"]].concat())
}

/// Two thousand clusters, most of them always the same ones and some that nobody has seen before, whose
/// seeds are printed; and every planted bug. One build serves both.
fn simulate() -> Result<()> {
    let build = [
        "--profile",
        "ci",
        "--locked",
        "-p",
        "quorate-sim",
        "--features",
        "planted",
    ];
    let seeds = [
        "--bin",
        "quorate-sim",
        "--",
        "--seeds",
        "0..1500",
        "--fresh",
        "500",
    ];
    cargo(&[&["run"], &build[..], &seeds[..]].concat())?;
    cargo(&[&["test"], &build[..]].concat())
}

/// Bugs in the warden, on disks and in the shells; those of the machines are the simulator's.
fn teeth(only: &[String]) -> Result<()> {
    let only: Vec<&str> = only.iter().map(String::as_str).collect();
    teeth::run(&root()?, &only)
}

/// A real cluster under faults for as long as is asked for. The tests have a minute of it, in their build.
fn chaos(arguments: &[String]) -> Result<()> {
    let build = ["--profile", "ci", "--locked", "-p", "quorate-chaos"];
    // It runs the program that is beside it.
    cargo(&[&["build"], &build[..], &["-p", "quorate"]].concat())?;
    let arguments = arguments.iter().map(String::as_str);
    let run: Vec<&str> = ["--", "run"].into_iter().chain(arguments).collect();
    cargo(&[&["run"], &build[..], &run[..]].concat())
}

fn lint() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    run_tidy()?;
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--features",
        "quorate-ledger/etcd,quorate-ledger/zookeeper,quorate-ledger/consul,quorate-ledger/postgres",
        "--locked",
        "--",
        "-D",
        "warnings",
    ])?;
    cargo_with(
        &["doc", "--workspace", "--no-deps", "--locked"],
        &[("RUSTDOCFLAGS", "-D warnings")],
    )
}

fn fix() -> Result<()> {
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--fix",
        "--allow-dirty",
        "--allow-staged",
    ])?;
    cargo(&["fmt", "--all"])
}

fn run_tidy() -> Result<()> {
    let found = tidy::check(&root()?)?;
    if found.is_empty() {
        return Ok(());
    }
    for problem in &found {
        eprintln!("tidy: {problem}");
    }
    bail!("tidy found {} problems", found.len())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    cargo_with(arguments, &[])
}

fn cargo_with(arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    eprintln!("+ cargo {}", arguments.join(" "));
    let begun = Instant::now();
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    // Where everything is compiled once, what would help to compile it again is in the way.
    if std::env::var_os("CI").is_some() {
        command.env("CARGO_INCREMENTAL", "0");
    }
    let status = command
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(root()?)
        .status()
        .context("cannot start cargo")?;
    eprintln!("  {} s", begun.elapsed().as_secs());
    if !status.success() {
        bail!(
            "cargo {} failed",
            arguments.first().copied().unwrap_or_default()
        );
    }
    Ok(())
}

/// The workspace, which is the folder above this crate.
fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here
        .parent()
        .context("xtask has no parent folder")?
        .to_owned())
}
