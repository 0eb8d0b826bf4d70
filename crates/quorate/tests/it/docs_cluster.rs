//! The pages about several machines, typed as they stand: each machine is a folder and an address of loopback.
//!
//! `d1$ ` is a shell on the machine d1. A line that ends with `& echo $! > FILE` starts a daemon, `scp` copies
//! between folders, `export` stays for the machine. A file that says on which machine it is, is written
//! there. A command that finds no director or no leader (exit code 6), or whose outcome is not known (9), is
//! typed again, as a person would.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::docs::{document, missing};
use crate::support::{Done, Machine, done, eventually, signal};

/// What the page asks for.
#[derive(Debug)]
enum Step {
    Type {
        machine: String,
        line: String,
        shown: Vec<String>,
    },
    Write {
        machine: String,
        name: String,
        text: String,
    },
}

fn steps(document: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else {
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match kind {
            "console" => console(&block, &mut steps),
            "toml" => steps.push(file(&block)),
            _ => {}
        }
    }
    steps
}

fn console(block: &[&str], steps: &mut Vec<Step>) {
    for line in block {
        match line.split_once("$ ") {
            Some((machine, line)) if !machine.contains(' ') => steps.push(Step::Type {
                machine: machine.to_owned(),
                line: line.to_owned(),
                shown: Vec::new(),
            }),
            Some(_) | None => {
                let Some(Step::Type { shown, .. }) = steps.last_mut() else {
                    panic!("nothing was typed before {line:?}");
                };
                shown.push((*line).to_owned());
            }
        }
    }
}

fn file(block: &[&str]) -> Step {
    let first = block.first().expect("a line");
    let told = first.strip_prefix("# ").expect("a name");
    let (name, machine) = told.split_once(", on ").expect("a machine");
    Step::Write {
        machine: machine.to_owned(),
        name: name.to_owned(),
        text: block.join("\n"),
    }
}

/// That of the page.
const CLUSTER: &str = "0001af6e4de0f3a2";

struct Site {
    dir: tempfile::TempDir,
    /// What the addresses of the page begin with here.
    net: String,
    exported: BTreeMap<String, BTreeMap<String, String>>,
    cluster: String,
    daemons: Vec<(String, Child)>,
    _machine: Machine,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("q")
            .tempdir()
            .expect("a folder");
        // Other processes of these tests use the same ports at other addresses.
        let own = std::process::id();
        Self {
            dir,
            net: format!("127.{}.{}.", 2 + own % 250, own / 250 % 250),
            exported: BTreeMap::new(),
            cluster: String::new(),
            daemons: Vec::new(),
            _machine: Machine::shared(),
        }
    }

    fn folder(&self, machine: &str) -> PathBuf {
        let folder = self.dir.path().join(machine);
        std::fs::create_dir_all(&folder).expect("made");
        folder
    }

    /// What stands in the page, as it is here.
    fn here(&self, machine: &str, text: &str) -> String {
        let data = self.folder(machine).join("data");
        let text = text.replace("/var/lib/quorate", &data.to_string_lossy());
        text.replace("10.0.0.", &self.net)
    }

    fn shell(&self, machine: &str, line: &str) -> Command {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_quorate"));
        let bin = program.parent().expect("a folder");
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", line])
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .envs(self.exported.get(machine).into_iter().flatten())
            .current_dir(self.folder(machine))
            .stdin(Stdio::null());
        command
    }

    fn read(&mut self, document: &str) {
        for step in steps(document) {
            match step {
                Step::Write {
                    machine,
                    name,
                    text,
                } => std::fs::write(self.folder(&machine).join(name), text).expect("written"),
                Step::Type {
                    machine,
                    line,
                    shown,
                } => self.type_line(&machine, &self.here(&machine, &line), &shown),
            }
        }
    }

    fn type_line(&mut self, machine: &str, line: &str, shown: &[String]) {
        if let Some(pairs) = line.strip_prefix("export ") {
            let known = self.exported.entry(machine.to_owned()).or_default();
            for pair in pairs.split(' ') {
                let (name, value) = pair.split_once('=').expect("NAME=VALUE");
                known.insert(name.to_owned(), value.to_owned());
            }
        } else if let Some(copied) = line.strip_prefix("scp -p ") {
            let (name, to) = copied.split_once(' ').expect("a machine");
            let to = self.folder(to.trim_end_matches(':'));
            std::fs::copy(self.folder(machine).join(name), to.join(name)).expect("copied");
        } else if let Some((command, pid)) = line.split_once(" & echo $! > ") {
            self.start(machine, command, pid);
        } else {
            let answer = eventually(&format!("{machine}: {line}"), || {
                let answer = self.answer(machine, line);
                // Some of what it shows takes a moment to be so.
                let reads = line.contains(" status") || line.contains(" ls ");
                let shown = self.theirs(machine, shown);
                let again = matches!(answer.code, Some(6 | 9));
                let wrong = again || (reads && lacks(&answer, &shown).is_some());
                (!wrong).then_some(answer)
            });
            assert_eq!(answer.code, Some(0), "{machine}: {line}\n{}", answer.err);
            if line.starts_with("kill ") {
                self.gone(machine, line);
            }
            self.learn(&answer);
            let shown = &self.theirs(machine, shown);
            if let Some(missing) = lacks(&answer, shown) {
                panic!(
                    "{machine}: {line}\ndoes not show: {missing}\nbut: {}{}",
                    answer.out, answer.err
                );
            }
        }
    }

    /// What the page shows, with what is drawn here.
    fn theirs(&self, machine: &str, shown: &[String]) -> Vec<String> {
        let own = |line: &String| self.here(machine, line).replace(CLUSTER, &self.cluster);
        shown.iter().map(own).collect()
    }

    /// Waits for the end of a daemon that was told to end. It is no job of the shell in which that was typed here.
    fn gone(&mut self, machine: &str, line: &str) {
        let file = line
            .split_once("$(cat ")
            .and_then(|(_, rest)| rest.split_once(')'));
        let (file, _) = file.expect("the file with its process id");
        let pid = std::fs::read_to_string(self.folder(machine).join(file)).expect("written");
        let daemons = self.daemons.iter();
        let at = daemons
            .map(|(_, child)| child.id().to_string())
            .position(|id| id == pid);
        let (_, mut child) = self.daemons.remove(at.expect("it was started"));
        child.wait().expect("it ends");
    }

    /// The cluster is drawn when it is founded.
    fn learn(&mut self, answer: &Done) {
        let told = answer.err.strip_prefix("cluster ");
        if let Some((cluster, _)) = told.and_then(|told| told.split_once(" is made")) {
            cluster.clone_into(&mut self.cluster);
        }
    }

    fn answer(&self, machine: &str, line: &str) -> Done {
        // As on a terminal.
        let line = line.replace("quorate ls ", "quorate -o table ls ");
        done(&self.shell(machine, &line).output().expect("it starts"))
    }

    fn start(&mut self, machine: &str, command: &str, pid: &str) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("{machine}.log")))
            .expect("a log");
        let child = self
            .shell(machine, &format!("exec {command}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it starts");
        let path = self.folder(machine).join(pid);
        std::fs::write(path, child.id().to_string()).expect("written");
        self.daemons.push((machine.to_owned(), child));
    }
}

/// The first line of the page that is not shown.
fn lacks<'a>(answer: &Done, shown: &'a [String]) -> Option<&'a str> {
    missing(shown, &format!("{}\n{}", answer.err, answer.out))
        .filter(|_| missing(shown, &format!("{}\n{}", answer.out, answer.err)).is_some())
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (machine, _) in &self.daemons {
                let log = std::fs::read_to_string(self.dir.path().join(format!("{machine}.log")));
                eprintln!("--- {machine}\n{}", log.unwrap_or_default());
            }
        }
        // The last ones are agents, or directors that nobody needs any more.
        self.daemons
            .sort_by_key(|(machine, _)| !machine.starts_with('a'));
        for (_, child) in &mut self.daemons {
            signal(child.id(), Signal::TERM);
            child.wait().expect("it ends");
        }
    }
}

#[test]
fn a_cluster_of_several_machines_is_made_and_recovered_as_described() {
    let mut site = Site::new();
    site.read(&document("docs/cluster.md"));
    // The same machines go on.
    site.read(&document("docs/recovery.md"));
}
