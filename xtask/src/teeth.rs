//! Whether the tests find bugs that somebody plants in what is below the machines: in the warden, on the
//! disks of directors and in the shells. Those of the machines are the simulator's to find.
//!
//! For each bug one test is run that must fail, and say why in words of its own (`xtask/teeth.toml`). Before,
//! the same build without a bug must pass all of them. A test that a host cannot run passes, and its bug counts
//! as not found.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

const TABLE: &str = include_str!("../teeth.toml");
/// The variable that names the bug to plant.
const VARIABLE: &str = "QUORATE_PLANTED";
/// Each of the tests has limits of its own, far below this.
const TESTS_WITHIN: Duration = Duration::from_secs(300);
/// Between two looks at tests that run.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How a test program ends that has found something.
const FOUND: i32 = 101;

/// The bugs of each crate.
type Teeth = BTreeMap<String, Vec<Tooth>>;

/// A planted bug.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tooth {
    bug: String,
    /// The test that finds it, behind `it::` when it is in `tests/it`.
    test: String,
    /// What that says then.
    says: String,
}

impl Tooth {
    /// The name of the test program, and of the test in it.
    fn program(&self) -> (Program, &str) {
        match self.test.strip_prefix("it::") {
            Some(test) => (Program::Integration, test),
            None => (Program::Unit, &self.test),
        }
    }
}

/// Which tests of a crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Program {
    /// Those beside the code.
    Unit,
    /// Those in `tests/it`.
    Integration,
}

/// The test programs, by the name of their crate.
type Programs = BTreeMap<(String, Program), PathBuf>;

/// The crates whose bugs are tried with every change. To build the tests of the director's shell anew for its one
/// bug is left to whoever changes it.
pub(crate) const QUICK: [&str; 2] = ["quorate-agent", "quorate-raft"];

/// Tries the bugs of these names and crates, or all if none is named, and prints the table of docs/proof.md.
pub(crate) fn run(root: &Path, only: &[&str]) -> Result<()> {
    let mut teeth = table()?;
    let wanted = |name: &str| only.is_empty() || only.contains(&name);
    for (name, some) in &mut teeth {
        some.retain(|tooth| wanted(name) || wanted(&tooth.bug));
    }
    teeth.retain(|_, some| !some.is_empty());
    ensure!(!teeth.is_empty(), "no bug and no crate has this name");
    let programs = build(root, &teeth)?;
    pass_without(root, &teeth, &programs)?;
    let mut missed = Vec::new();
    eprintln!("| bug | by | seconds |\n| --- | --- | --- |");
    for (name, tooth) in all(&teeth) {
        let (program, test) = tooth.program();
        let began = Instant::now();
        let (status, told) = tests(root, &programs, (name, program), &[test], Some(&tooth.bug))?;
        let seconds = began.elapsed().as_secs_f64();
        let found = status.code() == Some(FOUND) && told.contains(&tooth.says);
        if found {
            let short = test.rsplit("::").next().unwrap_or(test);
            eprintln!("| `{}` | `{short}` | {seconds:.1} |", tooth.bug);
        } else {
            eprintln!("{told}");
            missed.push(tooth.bug.as_str());
        }
    }
    ensure!(missed.is_empty(), "not found: {}", missed.join(", "));
    Ok(())
}

fn table() -> Result<Teeth> {
    toml::from_str(TABLE).context("xtask/teeth.toml")
}

fn all(teeth: &Teeth) -> impl Iterator<Item = (&str, &Tooth)> {
    teeth
        .iter()
        .flat_map(|(name, some)| some.iter().map(|tooth| (name.as_str(), tooth)))
}

/// Bugs that no test is to find, and those in the table that do not exist.
pub(crate) fn unlisted(root: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (name, some) in table()? {
        let listed: BTreeSet<String> = some.into_iter().map(|tooth| tooth.bug).collect();
        let path = root.join("crates").join(&name).join("src/planted.rs");
        let source = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        // As `planted_bugs!` has them: `Name = "name",`.
        let names = source.lines().filter_map(|line| {
            let (_, rest) = line.trim().split_once(" = \"")?;
            rest.strip_suffix("\",").map(str::to_owned)
        });
        let planted: BTreeSet<String> = names.collect();
        let apart = planted.symmetric_difference(&listed);
        problems.extend(apart.map(|bug| {
            format!(
                "{name}: the planted bug {bug} must be in src/planted.rs and in xtask/teeth.toml"
            )
        }));
    }
    Ok(problems)
}

/// Builds the tests with the feature; only with debug assertions can that be done at all.
fn build(root: &Path, teeth: &Teeth) -> Result<Programs> {
    let mut words = vec![
        "test".to_owned(),
        "--locked".to_owned(),
        "--no-run".to_owned(),
    ];
    for (name, _) in all(teeth) {
        let feature = format!("{name}/planted");
        if !words.contains(&feature) {
            words.extend([
                "-p".to_owned(),
                name.to_owned(),
                "--features".to_owned(),
                feature,
            ]);
        }
    }
    // No more than is used: building is most of the time that this takes.
    let used: BTreeSet<Program> = all(teeth).map(|(_, tooth)| tooth.program().0).collect();
    for program in used {
        words.extend(match program {
            Program::Unit => vec!["--lib".to_owned()],
            Program::Integration => vec!["--test".to_owned(), "it".to_owned()],
        });
    }
    eprintln!("+ cargo {}", words.join(" "));
    words.push("--message-format=json-render-diagnostics".to_owned());
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(words)
        .current_dir(root)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(built.status.success(), "cargo test failed");
    let lines = String::from_utf8(built.stdout)?;
    let messages = lines
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    Ok(messages
        .filter_map(|message| program_of(&message))
        .collect())
}

/// The test program that a message of cargo tells of.
fn program_of(message: &Value) -> Option<((String, Program), PathBuf)> {
    let path = PathBuf::from(message.pointer("/executable")?.as_str()?);
    let test = message.pointer("/profile/test")?.as_bool()?;
    let program = match message.pointer("/target/kind/0")?.as_str()? {
        "test" => Program::Integration,
        "lib" if test => Program::Unit,
        _ => return None,
    };
    let manifest = Path::new(message.pointer("/manifest_path")?.as_str()?);
    let name = manifest.parent()?.file_name()?.to_str()?;
    Some(((name.to_owned(), program), path))
}

/// What finds the bugs must find nothing where none is planted.
fn pass_without(root: &Path, teeth: &Teeth, programs: &Programs) -> Result<()> {
    let mut by_program: BTreeMap<(&str, Program), BTreeSet<&str>> = BTreeMap::new();
    for (name, tooth) in all(teeth) {
        let (program, test) = tooth.program();
        by_program.entry((name, program)).or_default().insert(test);
    }
    for (program, names) in by_program {
        let names: Vec<&str> = names.into_iter().collect();
        let (status, told) = tests(root, programs, program, &names, None)?;
        let passed = format!("{} passed; 0 failed", names.len());
        if !status.success() || !told.contains(&passed) {
            bail!("{told}\nof {names:?} not all pass though no bug is planted");
        }
    }
    Ok(())
}

/// Runs tests of a program: how it ended, and what it said.
fn tests(
    root: &Path,
    programs: &Programs,
    (name, program): (&str, Program),
    names: &[&str],
    bug: Option<&str>,
) -> Result<(ExitStatus, String)> {
    let path = programs.get(&(name.to_owned(), program));
    let path = path.with_context(|| format!("cargo built no such tests of {name}"))?;
    let log = path.with_extension("teeth");
    let output = File::create(&log)?;
    let mut command = Command::new(path);
    command
        .arg("--exact")
        .args(names)
        .current_dir(root.join("crates").join(name))
        .env_remove(VARIABLE)
        .envs(bug.map(|bug| (VARIABLE, bug)))
        .env("RUST_BACKTRACE", "0")
        .stdout(output.try_clone()?)
        .stderr(output);
    let mut child = command.spawn()?;
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if began.elapsed() > TESTS_WITHIN {
            child.kill()?;
            child.wait()?;
            bail!("{names:?} took longer than {TESTS_WITHIN:?}, with {bug:?} planted");
        }
        thread::sleep(LOOK_EVERY);
    };
    let told = fs::read(&log)?;
    fs::remove_file(&log)?;
    Ok((status, String::from_utf8_lossy(&told).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bug_is_in_the_table_twice_and_each_says_something_of_its_own() {
        let teeth = table().unwrap();
        let names: BTreeSet<&str> = all(&teeth).map(|(_, tooth)| tooth.bug.as_str()).collect();
        assert_eq!(names.len(), all(&teeth).count());
        assert!(all(&teeth).all(|(_, tooth)| !tooth.says.is_empty()));
    }
}
