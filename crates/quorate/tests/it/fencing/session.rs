//! A program that is spoken to line by line: a client of a database, or a Python program.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How long one answer may take; a machine under load answers within a second.
const LIMIT: Duration = Duration::from_secs(60);
/// What a program says behind its last line of an answer.
pub(crate) const END: &str = "@end";

/// The running program. It ends when this is dropped.
pub(crate) struct Session {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    /// What makes the program say [`END`].
    asks_for_end: String,
}

impl Session {
    /// Starts a program, with both its outputs in one.
    pub(crate) fn start(program: &Command, asks_for_end: &str) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"exec "$0" "$@" 2>&1"#])
            .arg(program.get_program())
            .args(program.get_args());
        for (name, value) in program.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (told, lines) = channel();
        // Ends with the program.
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            input,
            lines,
            asks_for_end: asks_for_end.to_owned(),
        }
    }

    /// Says something and returns the lines of the answer.
    pub(crate) fn ask(&mut self, text: &str) -> Vec<String> {
        let text = format!("{text}\n{}\n", self.asks_for_end);
        self.input.write_all(text.as_bytes()).expect("it listens");
        let mut answer = Vec::new();
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) if line == END => return answer,
                Ok(line) => answer.push(line),
                Err(error) => panic!("{text}\nhad no whole answer ({error}): {answer:#?}"),
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
