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
use quorate_benches::times::Times;

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
        None => 200_u32,
    };
    anyhow::ensure!(rounds > 0, "at least one round");
    let quorate = beside_us()?;
    let nothing = Path::new("/bin/true");
    let mut took: [Times; COMMANDS.len() + 1] = Default::default();
    for _ in 0..rounds {
        let own = COMMANDS.iter().map(|words| (quorate.as_path(), *words));
        let all = std::iter::once((nothing, &[][..])).chain(own);
        for ((program, words), took) in all.zip(&mut took) {
            took.add(once(program, words)?);
        }
    }
    println!("{rounds} rounds, in milliseconds\n");
    println!("{:28} {:>7} {:>7} {:>7}", "", "p50", "p99", "worst");
    let names = COMMANDS.iter().map(|words| words.join(" "));
    let names = std::iter::once("/bin/true".to_owned()).chain(names);
    for (name, took) in names.zip(&took) {
        let [p50, p99, worst] = [50, 99, 100].map(|of_a_hundred| took.quantile(of_a_hundred));
        println!("{name:28} {p50:7.2} {p99:7.2} {worst:7.2}");
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
