//! How long a command takes from its start to its end, beside a program that does nothing.
//!
//! `cargo run --release -p quorate-benches --bin commands [-- COUNT]`
//!
//! In each round every command runs once, so that whatever else the machine does hits all of them alike.

#![expect(
    clippy::print_stdout,
    reason = "a measurement is read on standard output"
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use quorate_benches::program::beside_us;

/// What is run: the commands that need no director, from the smallest on.
const COMMANDS: [&[&str]; 4] = [
    &["version"],
    &["--help"],
    &["explain", "restart.backoff"],
    &["completion", "bash"],
];

fn main() -> anyhow::Result<()> {
    let rounds = match std::env::args().nth(1) {
        Some(word) => word.parse().context("how many rounds?")?,
        None => 200,
    };
    anyhow::ensure!(rounds > 0, "at least one round");
    let quorate = beside_us()?;
    let nothing = Path::new("/bin/true");
    let mut took = vec![Vec::with_capacity(rounds); COMMANDS.len() + 1];
    for _ in 0..rounds {
        let own = COMMANDS.iter().map(|words| (quorate.as_path(), *words));
        let all = std::iter::once((nothing, &[][..])).chain(own);
        for ((program, words), took) in all.zip(&mut took) {
            took.push(once(program, words)?);
        }
    }
    println!("{rounds} rounds, in milliseconds\n");
    println!("{:28} {:>7} {:>7} {:>7}", "", "p50", "p99", "worst");
    let names = COMMANDS.iter().map(|words| words.join(" "));
    let names = std::iter::once("/bin/true".to_owned()).chain(names);
    for (name, took) in names.zip(&mut took) {
        took.sort_unstable();
        let at = |percent: usize| {
            let place = (took.len() * percent / 100).min(took.len() - 1);
            took.get(place).copied().unwrap_or_default().as_secs_f64() * 1000.0
        };
        println!("{name:28} {:7.2} {:7.2} {:7.2}", at(50), at(99), at(100));
    }
    Ok(())
}

/// Runs it to its end.
fn once(program: &Path, words: &[&str]) -> anyhow::Result<Duration> {
    let mut command = Command::new(program);
    command
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let begun = Instant::now();
    let status = command.status();
    let took = begun.elapsed();
    let status = status.with_context(|| program.display().to_string())?;
    anyhow::ensure!(
        status.success(),
        "{} {words:?}: {status}",
        program.display()
    );
    Ok(took)
}
