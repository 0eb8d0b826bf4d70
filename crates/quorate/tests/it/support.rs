//! Runs the program in a clean environment and keeps what it printed.

use std::path::Path;

use assert_cmd::Command;

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The program with an environment in which nothing of the machine shows.
pub(crate) fn quorate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str], dir: &Path) -> Done {
    let output = quorate()
        .args(args)
        .current_dir(dir)
        .output()
        .expect("the program starts");
    done(&output)
}

/// What an ended process printed.
pub(crate) fn done(output: &std::process::Output) -> Done {
    Done {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A port on which nobody listens now.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}
