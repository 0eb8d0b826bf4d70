//! The commands of the documents, run as they stand there.
//!
//! In a block that is marked `console`, a line that begins with `$ ` is typed on a terminal, and what
//! follows is what it must show; a block without such a line is what `up` goes on to show, and `^C` is
//! for `up`. In a block that is marked `sh` every line is typed. Numbers, times, agents and keys may be
//! others than in the document, and `...` stands for any lines. A command ends with 0 unless the
//! document says `# exit code N` behind it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{eventually, free_port, signal};

/// A document with everything that it runs takes at most this.
const LIMIT: Duration = Duration::from_secs(60);

/// What a block asks for.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Typed, with what it must show and how it must end.
    Type(String, Vec<String>, i32),
    /// What `up` goes on to show.
    Shows(Vec<String>),
    /// Ctrl-C for `up`.
    Interrupt,
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
            "sh" => steps.extend(block.iter().map(|line| typed(line))),
            "console" => console(&block, &mut steps),
            _ => {}
        }
    }
    steps
}

fn typed(line: &str) -> Step {
    let (command, code) = line.split_once("# exit code ").unwrap_or((line, "0"));
    let code = code.trim().parse().expect("a number");
    Step::Type(command.trim().to_owned(), Vec::new(), code)
}

fn console(block: &[&str], steps: &mut Vec<Step>) {
    let first = steps.len();
    for line in block {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(typed(command));
        } else if *line == "^C" {
            steps.push(Step::Interrupt);
        } else if let Some(Step::Type(_, shown, _) | Step::Shows(shown)) =
            steps.get_mut(first..).and_then(<[Step]>::last_mut)
        {
            shown.push((*line).to_owned());
        } else {
            steps.push(Step::Shows(vec![(*line).to_owned()]));
        }
    }
}

/// A line in which everything that may differ is the same.
fn plain(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let mut plain = String::new();
        for c in word.chars() {
            let digit = c.is_ascii_digit();
            if !(digit && plain.ends_with('0')) {
                plain.push(if digit { '0' } else { c });
            }
        }
        let time = ["0ms", "0s", "0m", "0h"].contains(&plain.as_str());
        // A person at a terminal sees the clock; what is read here was written to a file.
        if plain.starts_with("0-0-0T0:0:0") && plain.ends_with('Z') {
            return "0:0:0".to_owned();
        }
        match plain.split_once("feeds/") {
            // A key, and not a folder.
            Some((before, key)) if key.trim_end_matches(',').len() == 2 => {
                format!("{before}feeds/KEY")
            }
            _ if time => "0s".to_owned(),
            // What the machine of the tests allows.
            _ if ["cgroup", "scan", "cooperative"].contains(&word) => "kernel".to_owned(),
            _ => plain,
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The first line that is not shown, in the order of the document.
pub(crate) fn missing<'a>(expected: &'a [String], shown: &str) -> Option<&'a str> {
    let mut shown = shown.lines().map(plain);
    expected
        .iter()
        .filter(|line| line.trim() != "...")
        .find(|line| !shown.any(|shown| shown == plain(line)))
        .map(String::as_str)
}

/// A folder that looks like the root of the repository, and whoever reads the document in it.
struct Reader {
    dir: tempfile::TempDir,
    address: String,
    begun: Instant,
    up: Option<Child>,
}

impl Reader {
    /// With the example, whose rows come within so many seconds.
    fn new(seconds: u32) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("q")
            .tempdir()
            .expect("a folder");
        let bin = dir.path().join("target/release");
        std::fs::create_dir_all(&bin).expect("made");
        let program = env!("CARGO_BIN_EXE_quorate");
        std::os::unix::fs::symlink(program, bin.join("quorate")).expect("made");
        copy(
            &root().join("examples/feeds"),
            &dir.path().join("examples/feeds"),
        );
        // Others on this machine may run the example, too.
        let port = free_port().to_string();
        for name in ["feeds.toml", "feeds.jsonl"] {
            let path = dir.path().join("examples/feeds").join(name);
            let text = std::fs::read_to_string(&path).expect("read");
            let text = text.replace("7480", &port);
            let env = format!("env     = {{ FEEDS_SECONDS = \"{seconds}\",");
            std::fs::write(&path, text.replace("env     = {", &env)).expect("written");
        }
        Self {
            dir,
            address: format!("127.0.0.1:{}", free_port()),
            begun: Instant::now(),
            up: None,
        }
    }

    /// A command line of a shell on a terminal, in the folder.
    fn shell(&self, line: &str) -> Command {
        let path = format!("{}/target/release:/usr/bin:/bin", self.dir.path().display());
        let left = LIMIT.saturating_sub(self.begun.elapsed()).as_secs().max(1);
        let mut command = Command::new("timeout");
        command
            .args([&left.to_string(), "script", "-qec"])
            .args([&format!("stty cols 200; {line}"), "/dev/null"])
            .env_clear()
            .env("PATH", path)
            .env("TERM", "dumb")
            .env("QUORATE_ADDRESS", &self.address)
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    fn read(&mut self, document: &str) {
        for step in steps(document) {
            assert!(
                self.begun.elapsed() < LIMIT,
                "not within {LIMIT:?}: {step:?}"
            );
            match step {
                // That is what runs this.
                Step::Type(line, ..) if line == "cargo xtask verify" => {}
                Step::Type(line, shown, _)
                    if line.contains("quorate up ") || line.contains("-- up ") =>
                {
                    let line = line.replace("cargo run --release --", "target/release/quorate");
                    self.start(&line);
                    self.up_shows(&["try, in another terminal:".to_owned()]);
                    self.up_shows(&shown);
                }
                Step::Type(line, shown, code) => self.type_line(&line, &shown, code),
                Step::Shows(shown) => self.up_shows(&shown),
                Step::Interrupt => assert_eq!(self.end(Signal::INT), Some(0)),
            }
        }
    }

    fn start(&mut self, line: &str) {
        assert!(self.up.is_none(), "{line}: another one runs");
        let out = std::fs::File::create(self.out()).expect("a file");
        let mut words = line.split(' ');
        let program = words.next().expect("a program");
        // Not on a terminal, so that Ctrl-C can be sent to this process.
        let mut up = Command::new("/usr/bin/env");
        let up = up
            .arg(format!(
                "PATH={}/target/release:/usr/bin:/bin",
                self.dir.path().display()
            ))
            .arg(program)
            .args(words)
            .env_clear()
            .env("QUORATE_UP__LISTEN", &self.address)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(Stdio::null());
        self.up = Some(up.spawn().expect("it starts"));
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("up.out")
    }

    fn up_shows(&self, expected: &[String]) {
        eventually(&format!("up shows {expected:#?}"), || {
            let shown = std::fs::read_to_string(self.out()).expect("read");
            missing(expected, &shown).is_none().then_some(())
        });
    }

    fn type_line(&self, line: &str, expected: &[String], code: i32) {
        let output = self.shell(&self.with_victim(line)).output();
        let output = output.expect("`script` of util-linux is there");
        // Lines that were drawn over are lines, too.
        let shown = String::from_utf8_lossy(&output.stdout);
        let shown = shown.replace('\r', "\n").replace("\x1b[K", "");
        assert_eq!(output.status.code(), Some(code), "{line}\n{shown}");
        if let Some(missing) = missing(expected, &shown) {
            panic!("{line}\ndoes not show: {missing}\nbut: {shown}");
        }
    }

    /// `kill -9 NUMBER` is for the process that `up` has named.
    fn with_victim(&self, line: &str) -> String {
        let Some(number) = line.strip_prefix("kill -9 ") else {
            return line.to_owned();
        };
        assert!(number.parse::<u32>().is_ok(), "{line}");
        let shown = std::fs::read_to_string(self.out()).expect("read");
        let (_, rest) = shown.split_once("  kill -9 ").expect("up has named one");
        let pid = rest.split(' ').next().expect("a number");
        format!("kill -9 {pid}")
    }

    fn end(&mut self, with: Signal) -> Option<i32> {
        let mut up = self.up.take()?;
        signal(up.id(), with);
        up.wait().expect("it ends").code()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.end(Signal::TERM);
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Copies what belongs to the example, and not what running it has left there.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let name = entry.file_name();
        if name == "out" || name == "__pycache__" {
            continue;
        }
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copied");
        }
    }
}

pub(crate) fn document(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).expect("a document")
}

#[test]
fn the_readme_does_what_it_says() {
    Reader::new(8).read(&document("README.md"));
}

#[test]
fn the_example_does_what_it_says() {
    Reader::new(8).read(&document("examples/feeds/README.md"));
}

#[test]
fn daily_work_is_as_described() {
    Reader::new(300).read(&document("docs/operations.md"));
}

#[test]
fn blocks_are_read_as_they_are_meant() {
    let document = "```sh\na b\n```\ntext\n```console\n$ c   # exit code 3\nerror\n^C\n$ d\n```\n```\nno\n```\n```console\nmore\nand more\n```\n";
    let typed = |line: &str, shown: &[&str], code| {
        let shown = shown.iter().map(|line| (*line).to_owned()).collect();
        Step::Type(line.to_owned(), shown, code)
    };
    assert_eq!(
        steps(document),
        [
            typed("a b", &[], 0),
            typed("c", &["error"], 3),
            Step::Interrupt,
            typed("d", &[], 0),
            Step::Shows(vec!["more".to_owned(), "and more".to_owned()]),
        ]
    );
    let expected = [
        "a1  is  up,  42s".to_owned(),
        "...".to_owned(),
        "feeds/mb ok".to_owned(),
    ];
    assert_eq!(
        missing(&expected, "x\na3 is up, 7s\ny\nfeeds/ci ok\n"),
        None
    );
    assert_eq!(
        missing(&expected, "feeds/ci ok\na3 is up, 7s\n"),
        Some("feeds/mb ok")
    );
    assert_eq!(
        missing(&expected, "a3 is down, 7s\n"),
        Some("a1  is  up,  42s")
    );
}
