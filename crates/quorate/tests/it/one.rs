//! One `quorate up` in a folder of its own, on a free port, as a person starts it.

use std::io::{BufRead as _, BufReader, Read as _, Seek as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;

use rustix::process::Signal;

use crate::support::{Done, Machine, done, eventually, free_port, signal};

/// A folder with `job.toml`, and the `up` that runs it.
pub(crate) struct One {
    dir: tempfile::TempDir,
    port: u16,
    up: Option<Child>,
    _machine: Machine,
}

impl One {
    /// A folder with a job file, in which nothing runs yet.
    pub(crate) fn folder(job: &str) -> Self {
        Self::folder_named("q", job)
    }

    /// The same with a name that begins so.
    pub(crate) fn folder_named(name: &str, job: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix(name)
            .tempdir()
            .expect("a folder");
        std::fs::write(dir.path().join("job.toml"), job).expect("written");
        Self {
            dir,
            port: free_port(),
            up: None,
            _machine: Machine::shared(),
        }
    }

    /// A folder with a job file, in which `up` runs it.
    pub(crate) fn start(job: &str) -> Self {
        Self::folder(job).up_with(&[])
    }

    /// The same with variables of the environment.
    pub(crate) fn start_with(job: &str, variables: &[(&str, &str)]) -> Self {
        Self::folder(job).up_with(variables)
    }

    /// Starts `up` with one agent and waits until its summary is there.
    pub(crate) fn up(self) -> Self {
        self.up_with(&[])
    }

    fn up_with(self, variables: &[(&str, &str)]) -> Self {
        let mut one = self;
        let mut command = one.command(&["up", "job.toml", "--listen", &one.address()]);
        command.envs(variables.iter().copied());
        let error = std::fs::File::create(one.dir().join("up.err")).expect("a file");
        let out = std::fs::File::create(one.dir().join("up.out")).expect("a file");
        command.stdout(out).stderr(error);
        one.up = Some(command.spawn().expect("up starts"));
        eventually("the summary of up", || {
            let out = std::fs::read_to_string(one.dir().join("up.out")).ok()?;
            out.contains("in another terminal").then_some(())
        });
        one
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process of `up`.
    pub(crate) fn up_pid(&self) -> u32 {
        self.up.as_ref().expect("it was started").id()
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A process with this word and this folder in its command line.
    pub(crate) fn process_with(&self, word: &str) -> Option<i32> {
        let folder = self.dir().to_str().expect("text");
        let all = std::fs::read_dir("/proc").expect("/proc");
        all.filter_map(Result::ok).find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8(line).ok()?;
            let has = line.split('\0').any(|part| part == word);
            (has && line.contains(folder)).then_some(pid)
        })
    }

    /// A command of this folder's cluster, not started yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("QUORATE_ADDRESS", self.address())
            .current_dir(self.dir())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        done(&self.command(args).output().expect("it starts"))
    }

    /// Runs a command that must work, and gives what it printed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, Some(0), "{args:?}: {}", done.err);
        done.out
    }

    /// Starts a command that goes on, and gives its lines.
    pub(crate) fn follow(&self, args: &[&str]) -> Following {
        let mut command = self.command(args);
        let err = tempfile::tempfile().expect("a file");
        command.stderr(err.try_clone().expect("a file"));
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let out = child.stdout.take().expect("a pipe");
        Following {
            lines: lines(out),
            child,
            err,
        }
    }
}

impl Drop for One {
    fn drop(&mut self) {
        if let Some(up) = &mut self.up {
            // A test may have stopped it and failed then.
            signal(up.id(), Signal::CONT);
            signal(up.id(), Signal::TERM);
            up.wait().expect("it ends");
        }
    }
}

/// A command that goes on until it is ended.
pub(crate) struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
    err: std::fs::File,
}

impl Following {
    /// Waits for a line with this text.
    pub(crate) fn until(&self, text: &str) -> String {
        self.until_one(&format!("a line with {text:?}"), |line| line.contains(text))
    }

    /// Waits for a line that is as it is asked for.
    pub(crate) fn until_one(&self, what: &str, mut is: impl FnMut(&str) -> bool) -> String {
        eventually(what, || self.lines.try_iter().find(|line| is(line)))
    }

    /// Whether a line with this text has come since the last look.
    pub(crate) fn seen(&self, text: &str) -> Option<()> {
        let mut lines = self.lines.try_iter();
        lines.any(|line| line.contains(text)).then_some(())
    }

    /// Ends it with Ctrl-C; how it ended, and what it has said on standard error.
    pub(crate) fn interrupt(mut self) -> (Option<i32>, String) {
        signal(self.child.id(), Signal::INT);
        let code = self.child.wait().expect("it ends").code();
        (code, said(&mut self.err))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // It has ended already where the test has waited for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that is in a file.
fn said(file: &mut std::fs::File) -> String {
    let mut text = String::new();
    file.rewind().expect("it can be read");
    file.read_to_string(&mut text).expect("it can be read");
    text
}

/// The lines of a pipe as they come; ends with it.
fn lines(out: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A command line of a shell on a terminal of its own, with a person at its keyboard.
pub(crate) struct Terminal {
    child: Child,
    seen: mpsc::Receiver<u8>,
    text: String,
}

impl Terminal {
    /// Starts it in a folder.
    pub(crate) fn start(line: &str, dir: &Path) -> Self {
        let mut child = Command::new("script")
            .args(["-qec", line, "/dev/null"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("TERM", "xterm")
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`script` of util-linux is there");
        let out = child.stdout.take().expect("a pipe");
        let (sender, seen) = mpsc::channel();
        std::thread::spawn(move || {
            for byte in BufReader::new(out).bytes().map_while(Result::ok) {
                if sender.send(byte).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            seen,
            text: String::new(),
        }
    }

    /// Waits until the terminal shows this.
    pub(crate) fn until(&mut self, text: &str) {
        let Self {
            seen, text: all, ..
        } = self;
        eventually(&format!("{text:?} on the terminal"), || {
            all.extend(seen.try_iter().map(char::from));
            all.contains(text).then_some(())
        });
    }

    /// What it has shown so far.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Presses Ctrl-C.
    pub(crate) fn ctrl_c(&mut self) {
        let keyboard = self.child.stdin.as_mut().expect("a keyboard");
        std::io::Write::write_all(keyboard, &[3]).expect("the key is taken");
        std::io::Write::flush(keyboard).expect("the key is taken");
    }

    /// Waits until the command has ended; its exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let child = &mut self.child;
        let status = eventually("the command ends", || child.try_wait().expect("it is ours"));
        self.text.extend(self.seen.iter().map(char::from));
        status.code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.text.extend(self.seen.try_iter().map(char::from));
            eprintln!("--- the terminal\n{}", self.text);
        }
        // It has ended already where the test has waited for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
