//! How `up` starts and ends: on a terminal with Ctrl-C, beside another that has its port, from
//! configuration files.

use std::io::BufRead as _;
use std::process::Stdio;
use std::time::Instant;

use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::Value;

use crate::one::{One, Terminal};
use crate::support::{eventually, signal};

/// A job that writes down that it runs and does not end when it is asked to.
const STUBBORN: &str = r#"
[service.s]
command = ["sh", "-c", "trap '' TERM; touch ${PWD}/begun; while :; do sleep 1; done"]
lease   = "3s"
stop    = { timeout = "5m" }
"#;

/// The same, and it ends when it is asked to.
const OBEDIENT: &str = r#"
[service.s]
command = ["sh", "-c", "touch ${PWD}/begun; sleep 1000; true"]
lease   = "3s"
"#;

fn job(text: &str) -> One {
    let one = One::folder("");
    let dir = one.dir().to_str().expect("text");
    let job = text.replace("${PWD}", dir);
    std::fs::write(one.dir().join("job.toml"), job).expect("written");
    one
}

fn up(one: &One) -> Terminal {
    let line = format!(
        "exec {} up job.toml --listen {}",
        env!("CARGO_BIN_EXE_quorate"),
        one.address()
    );
    Terminal::start(&line, one.dir())
}

/// Waits until the job has begun.
fn job_runs(one: &One) {
    eventually("the job runs", || {
        one.dir().join("begun").exists().then_some(())
    });
}

#[test]
fn in_a_folder_with_a_long_path_runs_tell_that_they_are_ready_and_reach_their_agent() {
    let job = r#"
[service.s]
command = ["python3", "-c", '''
import os, socket, time
own = socket.socket(socket.AF_UNIX)
own.connect(os.environ["QUORATE_SOCKET"])
own.sendall(b"GET /self HTTP/1.0\r\nHost: self\r\n\r\n")
assert b" 200 " in own.recv(100)
ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
ready.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(1000)
''']
ready = { notify = true, timeout = "20s" }
partitions = { range = "0..11" }
"#;
    let one = One::folder_named(&"long".repeat(40), job).up();
    let rows = one.ok(&["ls", "partitions", "-o", "json"]);
    let rows: Value = serde_json::from_str(&rows).expect("JSON");
    let rows = rows.as_array().expect("a list");
    assert_eq!(rows.len(), 11);
    for row in rows {
        assert_eq!(
            (&row["running"], &row["attempt"]),
            (&true.into(), &1.into()),
            "{row}"
        );
    }
}

#[test]
fn ctrl_c_on_the_terminal_of_up_stops_everything_in_order() {
    let one = job(OBEDIENT);
    let mut up = up(&one);
    up.until("in another terminal");
    // The hints name the program so that they can be pasted.
    let pasted = format!("  {} status", env!("CARGO_BIN_EXE_quorate"));
    assert!(up.text().contains(&pasted), "{}", up.text());
    job_runs(&one);
    up.ctrl_c();
    assert_eq!(up.ended(), Some(0), "{}", up.text());
    assert!(up.text().contains("everything is stopped"), "{}", up.text());
    assert_eq!(
        job_is_gone(&one),
        Some(()),
        "it was stopped before up ended"
    );
}

#[test]
fn a_second_ctrl_c_leaves_at_once_and_what_runs_ends_with_its_lease() {
    let one = job(STUBBORN);
    let mut up = up(&one);
    up.until("in another terminal");
    job_runs(&one);
    let agent = agent(&one);
    up.ctrl_c();
    up.until("Ctrl-C again leaves at once");
    let pressed = Instant::now();
    up.ctrl_c();
    assert_eq!(up.ended(), Some(130), "{}", up.text());
    assert!(pressed.elapsed().as_secs() < 60, "the stop takes 5 minutes");
    assert!(up.text().contains("left at once"), "{}", up.text());
    eventually("its agent ends", || {
        test_kill_process(agent).is_err().then_some(())
    });
    eventually("the job ends with its lease", || job_is_gone(&one));
}

#[test]
fn a_command_that_cannot_be_started_is_told_at_its_first_failure() {
    let one = job("[service.miss]\ncommand = [\"/nosuch/prog\"]\n");
    let mut up = up(&one);
    up.until("! miss/miss failed");
    up.until(": not started: /nosuch/prog does not exist on this host");
    assert!(
        !up.text().contains("in another terminal"),
        "the summary comes when nothing more comes up: {}",
        up.text()
    );
    up.ctrl_c();
    assert_eq!(up.ended(), Some(0), "{}", up.text());
}

/// An agent that ends with its test, also with one that failed.
struct Apart(std::process::Child);

impl Drop for Apart {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn an_agent_that_was_started_apart_is_told_and_outlives_up() {
    let one = job(OBEDIENT);
    let mut first = up(&one);
    first.until("in another terminal");
    rustix::process::kill_process(agent(&one), Signal::KILL).expect("it is there");
    first.until("what it held waits for another agent");
    let folder = one.dir().join("quorate-data/agents/a1");
    let folder = folder.to_str().expect("text");
    let address = one.address();
    let typed = [
        "agent",
        "--name",
        "a1",
        "--data-dir",
        folder,
        "--join",
        &address,
    ];
    let said = one.dir().join("apart.err");
    let mut apart = one.command(&typed);
    let apart = apart.stderr(std::fs::File::create(&said).expect("a file"));
    let mut apart = Apart(apart.spawn().expect("it starts"));
    eventually(
        "it speaks for the agent, also where it took a warden over",
        || {
            let said = std::fs::read_to_string(&said).ok()?;
            said.contains("session is open").then_some(())
        },
    );
    first.ctrl_c();
    assert_eq!(first.ended(), Some(0), "{}", first.text());
    let told = first.text();
    assert!(
        told.contains("agent a1 was started apart and goes on"),
        "{told}"
    );
    assert!(!told.contains("everything is stopped"), "{told}");

    let mut second = up(&one);
    second.until("another process is this agent");
    second.until("in another terminal");
    signal(apart.0.id(), Signal::TERM);
    assert!(apart.0.wait().expect("it ends").success());
    second.ctrl_c();
    assert_eq!(second.ended(), Some(0), "{}", second.text());
    assert!(second.text().contains("everything is stopped"));
}

#[test]
fn up_goes_on_when_nobody_reads_what_it_shows() {
    let one = job(OBEDIENT);
    let said = one.dir().join("up.err");
    let mut command = one.command(&["up", "job.toml", "--listen", &one.address()]);
    command.stdout(Stdio::piped());
    command.stderr(std::fs::File::create(&said).expect("a file"));
    let mut up = Apart(command.spawn().expect("it starts"));
    let out = up.0.stdout.take().expect("a pipe");
    let mut lines = std::io::BufReader::new(out).lines();
    let told = lines.next().expect("something is shown");
    told.expect("text");
    drop(lines);
    job_runs(&one);
    one.ok(&["restart", "s"]);
    eventually("it says that it shows nothing more", || {
        let said = std::fs::read_to_string(&said).ok()?;
        said.contains("standard output is gone").then_some(())
    });
    assert!(up.0.try_wait().expect("a child").is_none(), "it goes on");
    eventually("the job runs again", || one.process_with("-c"));
    signal(up.0.id(), Signal::TERM);
    assert!(up.0.wait().expect("it ends").success());
}

#[test]
fn up_leaves_in_order_when_its_terminal_is_closed_unless_it_was_started_to_outlive_it() {
    let one = job(OBEDIENT);
    let start = |before: &str| {
        let said = std::fs::File::create(one.dir().join("up.err")).expect("a file");
        // What the terminal was is nowhere to be written to.
        let line = format!(
            "{before} exec {} up job.toml --listen {} >/dev/full",
            env!("CARGO_BIN_EXE_quorate"),
            one.address()
        );
        // Who started these tests may have done so with `nohup`, which is passed on.
        let mut shell = std::process::Command::new("env");
        shell.args(["--default-signal=HUP", "sh", "-c", &line]);
        shell.current_dir(one.dir());
        Apart(shell.stderr(said).spawn().expect("it starts"))
    };
    let runs = || {
        eventually("the job runs", || {
            let done = one.run(&["wait", "--settled", "--timeout", "5s"]);
            (done.code == Some(0)).then(|| one.process_with("-c"))?
        })
    };

    let ends = |up: &mut Apart| eventually("it ends", || up.0.try_wait().expect("a child")).code();

    let mut up = start("");
    runs();
    signal(up.0.id(), Signal::HUP);
    assert_eq!(ends(&mut up), Some(0));
    let said = std::fs::read_to_string(one.dir().join("up.err")).expect("text");
    assert!(said.contains("everything is stopped"), "{said}");
    assert_eq!(one.process_with("-c"), None);

    let mut up = start("trap '' HUP;");
    let run = runs();
    signal(up.0.id(), Signal::HUP);
    // It is asked to leave after that, and goes by the second one alone.
    one.ok(&["status"]);
    assert!(up.0.try_wait().expect("a child").is_none(), "it goes on");
    assert_eq!(one.process_with("-c"), Some(run));
    signal(up.0.id(), Signal::TERM);
    assert_eq!(ends(&mut up), Some(0));
}

#[test]
fn a_daemon_whose_log_cannot_be_written_goes_on() {
    let one = job(OBEDIENT);
    let full = || std::fs::File::options().write(true).open("/dev/full");
    let start = |args: &[&str]| {
        let mut command = one.command(args);
        command.stderr(full().expect("every Linux has one"));
        Apart(command.spawn().expect("it starts"))
    };
    let address = one.address();
    let mut director = start(&[
        "director",
        "--name",
        "d1",
        "--data-dir",
        "d",
        "--listen",
        &address,
    ]);
    let mut agent = start(&[
        "agent",
        "--name",
        "a1",
        "--data-dir",
        "a",
        "--join",
        &address,
    ]);
    eventually("the agent is there", || {
        let done = one.run(&["ls", "agents", "-o", "name"]);
        done.out.contains("a1").then_some(())
    });
    one.ok(&["apply", "job.toml", "--wait"]);
    for daemon in [&mut agent, &mut director] {
        signal(daemon.0.id(), Signal::TERM);
        assert!(daemon.0.wait().expect("it ends").success());
    }
}

/// The agent that `up` has started in this folder.
fn agent(one: &One) -> Pid {
    let pid = one.process_with("agent").expect("its agent runs");
    Pid::from_raw(pid).expect("not zero")
}

/// No process of the job is left: it was the only one with this folder in its command line.
fn job_is_gone(one: &One) -> Option<()> {
    one.process_with("-c").is_none().then_some(())
}

#[test]
fn a_data_folder_that_cannot_be_one_is_told_as_that() {
    let one = job(OBEDIENT);
    for (folder, file) in [("/dev/null", "/dev/null"), ("job.toml/data", "job.toml")] {
        let up = one.run(&[
            "up",
            "job.toml",
            "--data-dir",
            folder,
            "--listen",
            &one.address(),
        ]);
        assert_eq!(up.code, Some(1), "{up:?}");
        assert!(up.err.starts_with("error[data_dir]"), "{up:?}");
        assert!(up.err.contains(&format!("{file} is no folder")), "{up:?}");
    }
}

#[test]
fn a_port_that_somebody_uses_is_told_with_what_to_do() {
    let one = job(OBEDIENT);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("an address").to_string();
    let data = one.dir().join("d1").display().to_string();
    for args in [
        &["up", "job.toml", "--listen", &address][..],
        &[
            "director",
            "--name",
            "d1",
            "--data-dir",
            &data,
            "--listen",
            &address,
        ],
    ] {
        let done = one.run(args);
        assert_eq!(done.code, Some(1), "{args:?}: {}", done.err);
        assert!(done.err.contains("error[port_in_use]: "), "{}", done.err);
        assert!(done.err.contains(&address), "{}", done.err);
        let next = "next: stop what listens there, or choose another address with --listen";
        assert!(done.err.contains(next), "{}", done.err);
        assert_eq!(done.out, "");
    }
    assert!(!one.dir().join("begun").exists(), "nothing was started");
    for left in ["d1", "quorate-data"] {
        assert!(!one.dir().join(left).exists(), "{left} was left behind");
    }
}

#[test]
fn daemons_read_their_files_and_what_is_typed_wins() {
    let one = job(OBEDIENT);
    let config = format!(
        "[director]\nname = 'd7'\ndata_dir = 'd'\nlisten = '{0}'\n\
         [agent]\nname = 'wrong'\ndata_dir = 'a'\njoin = ['{0}']\ncapacity = 5\n\
         label = {{ zone = 'eu-1a' }}\n[log]\nlevel = 'warn'\n",
        one.address()
    );
    std::fs::write(one.dir().join("q.toml"), config).expect("written");
    let start = |args: &[&str]| {
        let mut command = one.command(args);
        command.stderr(Stdio::null());
        command.spawn().expect("it starts")
    };
    let mut director = start(&["director", "--config", "q.toml"]);
    let mut agent = start(&["agent", "--config", "q.toml", "--name", "a7"]);
    eventually("the agent is there", || {
        let done = one.run(&["ls", "agents", "-o", "json"]);
        let agents: serde_json::Value = serde_json::from_str(&done.out).ok()?;
        let agent = agents.as_array()?.first()?.clone();
        assert_eq!(agent["name"], "a7");
        assert_eq!(agent["capacity"], 5);
        assert_eq!(agent["labels"]["zone"], "eu-1a");
        Some(())
    });
    let directors = one.ok(&["ls", "directors", "-o", "name"]);
    assert_eq!(directors, "director/d7\n");
    signal(agent.id(), Signal::TERM);
    assert!(agent.wait().expect("it ends").success());
    signal(director.id(), Signal::TERM);
    assert!(director.wait().expect("it ends").success());
}
