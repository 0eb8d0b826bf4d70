//! What surrounds the program is not as it should be, or a person changes his mind: what is told then.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::one::One;
use crate::support::{Done, done, eventually, free_port, quorate, run, signal};

/// One that says what it was started with, and one that prints more than a pipe holds, so that its log is
/// rotated however slowly it is read.
const JOB: &str = r#"
[service.s]
command = ["sh", "-c", "for word in \"$@\"; do printf '[%s]\\n' \"$word\"; done; exec sleep 1000", "sh",
           "$(touch pwned)", "`touch pwned`", "; touch pwned", "a'b\"c\\d", "$HOME *", "--", ""]
lease   = "3s"
ready   = { after = "50ms" }
[service.loud]
command = ["sh", "-c", "i=0; while [ $i -lt 6000 ]; do i=$((i+1)); echo this is line $i; done; exec sleep 1000"]
lease   = "3s"
ready   = { after = "50ms" }
logs    = { max_size = "4K", keep = 2 }
"#;

#[test]
fn a_run_gets_its_words_as_they_are_written_and_people_see_what_it_has_printed() {
    let one = One::start(JOB);
    let words = [
        "[$(touch pwned)]",
        "[`touch pwned`]",
        "[; touch pwned]",
        "[a'b\"c\\d]",
        "[$HOME *]",
        "[--]",
        "[]",
    ];
    let logs = eventually("it has printed its words", || {
        let logs = one.ok(&["logs", "s"]);
        logs.contains("[]\n").then_some(logs)
    });
    assert_eq!(logs.lines().collect::<Vec<_>>(), words);
    assert!(!one.dir().join("pwned").exists());

    // The last five of them are on the screen of the partition, and none where nothing can be had.
    let shown = one.ok(&["status", "s/s"]);
    let last = words[2..].iter().map(|line| format!("    {line}\n"));
    let last = format!("  last log lines\n{}", last.collect::<String>());
    assert!(shown.contains(&last), "{shown}");
    assert!(
        shown.ends_with("  output     quorate logs s/s\n"),
        "{shown}"
    );
    let told: Value =
        serde_json::from_str(&one.ok(&["status", "s/s", "-o", "json"])).expect("JSON");
    assert_eq!(told["last_log_lines"], serde_json::json!(words[2..]));

    let previous = eventually("the log is rotated", || {
        let previous = one.run(&["logs", "loud", "--previous", "-n", "10000"]);
        (previous.code == Some(0) && !previous.out.is_empty()).then_some(previous.out)
    });
    eventually("the current one has the end", || {
        let current = one.ok(&["logs", "loud", "-n", "3"]);
        current.ends_with("this is line 6000\n").then_some(())
    });
    let last = previous.lines().last().expect("a line");
    assert!(
        last.starts_with("this is line ") && !last.ends_with(" 6000"),
        "{last}"
    );

    // An event is shown as it happens.
    let followed = one.follow(&["events", "-f", "loud"]);
    eventually("it follows", || {
        one.ok(&["restart", "loud"]);
        followed.seen("loud/loud")
    });
    assert_eq!(followed.interrupt(), (Some(130), String::new()));

    // One that lives is not forgotten.
    let alive = one.run(&["rm", "agent/a1"]);
    assert_eq!(alive.code, Some(4), "{}", alive.err);
    assert!(alive.err.starts_with("error[conflict]: "), "{}", alive.err);
    assert!(one.ok(&["ls", "agents", "-o", "name"]).contains("agent/a1"));

    // A drain that cannot end, because no other agent is there: Ctrl-C takes nothing back.
    let drain = one.follow(&["drain", "a1", "--wait", "5m"]);
    let state = || -> Value {
        let agents = one.ok(&["ls", "agents", "-o", "json"]);
        let agents: Value = serde_json::from_str(&agents).expect("JSON");
        agents[0]["state"].clone()
    };
    eventually("it drains", || (state() == "draining").then_some(()));
    let (code, said) = drain.interrupt();
    assert_eq!(code, Some(130), "{said}");
    let told = "error[interrupted]: interrupted; what was asked of the cluster goes on there\n  \
                next: `quorate status` shows how far it is\n";
    assert!(said.ends_with(told), "{said}");
    assert_eq!(state(), "draining");
    one.ok(&["uncordon", "a1"]);
}

/// Runs a daemon that does not get far.
fn daemon(args: &[&str], env: &[(&str, &str)], dir: &Path) -> Done {
    let mut command = quorate();
    command
        .args(args)
        .envs(env.iter().copied())
        .current_dir(dir);
    done(&command.output().expect("it starts"))
}

#[test]
fn a_configuration_that_cannot_be_read_is_told_with_its_reason() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("folder.toml")).expect("made");
    let next = "  next: every key but director.fence is also a flag: quorate director --help, quorate agent --help\n";
    for (file, why) in [
        ("missing.toml", "No such file or directory (os error 2)"),
        ("folder.toml", "Is a directory (os error 21)"),
        ("folder.toml/x", "No such file or directory (os error 2)"),
    ] {
        for role in ["director", "agent"] {
            let told = run(&[role, "--config", file], dir.path());
            assert_eq!(told.code, Some(2), "{}", told.err);
            let expected = format!("error[config]: {file} cannot be read: {why}\n{next}");
            assert_eq!(told.err, expected);
        }
    }
}

#[test]
fn for_daemons_the_flag_comes_before_the_variable_and_the_variable_before_the_file() {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["flag", "variable", "file"] {
        std::fs::write(dir.path().join(name), "no folder").expect("written");
    }
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    for role in ["director", "agent"] {
        let config = format!("[{role}]\nname = 'n1'\ndata_dir = 'file'\n");
        std::fs::write(dir.path().join("c.toml"), config).expect("written");
        let variable = format!("QUORATE_{}__DATA_DIR", role.to_uppercase());
        let place = if role == "agent" {
            "--join"
        } else {
            "--listen"
        };
        let line = [role, "--config", "c.toml", place, &listen];
        let with_flag = [&line[..], &["--data-dir", "flag"]].concat();
        let env = [(variable.as_str(), "variable")];
        for (args, env, wins) in [
            (&with_flag[..], &env[..], "flag"),
            (&line[..], &env[..], "variable"),
            (&line[..], &[], "file"),
        ] {
            let told = daemon(args, env, dir.path());
            assert_eq!(told.code, Some(1), "{role}: {}", told.err);
            assert!(told.err.contains("error[data_dir]: "), "{}", told.err);
            let named = dir.path().join(wins).display().to_string();
            assert!(told.err.contains(&named), "{role}, {wins}: {}", told.err);
        }
    }
}

#[test]
fn no_home_and_one_that_cannot_be_written_to_are_not_missed() {
    let dir = tempfile::tempdir().expect("a folder");
    let home = dir.path().join("home");
    std::fs::create_dir(&home).expect("made");
    let mut mode = std::fs::metadata(&home).expect("there").permissions();
    mode.set_readonly(true);
    std::fs::set_permissions(&home, mode).expect("set");
    let job = "[service.a]\ncommand = ['x']\n";
    std::fs::write(dir.path().join("job.toml"), job).expect("written");
    let nobody = format!("127.0.0.1:{}", free_port());
    for home in [None, home.to_str(), Some("/nowhere")] {
        for (args, code) in [
            (&["validate", "job.toml"][..], 0),
            (&["status", "--address", &nobody], 6),
            (&["completion", "bash"], 0),
            (&["doctor", "--data-dir", "new"], 0),
        ] {
            let mut command = quorate();
            command.args(args).current_dir(dir.path());
            if let Some(home) = home {
                command.env("HOME", home);
            }
            let told = done(&command.output().expect("it starts"));
            // A machine that is not fit for a daemon is not what this is about.
            let fits = told.code == Some(code) || (args[0] == "doctor" && told.code == Some(8));
            assert!(fits, "{home:?} {args:?}: {}", told.err);
            assert!(!told.err.contains("HOME"), "{}", told.err);
        }
    }
    assert_eq!(std::fs::read_dir(&home).expect("a folder").count(), 0);
}

#[test]
fn a_write_whose_answer_is_lost_is_told_as_unknown_and_a_read_as_nobody_there() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = server.local_addr().expect("an address");
    let serving = std::thread::spawn(move || {
        let mut writes = 0;
        loop {
            let (mut client, _) = server.accept().expect("a connection");
            let mut seen = [0; 4096];
            let count = client.read(&mut seen).expect("a request");
            // The test itself says nothing at its end.
            if count == 0 {
                return writes;
            }
            writes += usize::from(seen.starts_with(b"POST "));
        }
    });
    let told = run(
        &["cordon", "a1", "--address", &address.to_string()],
        Path::new("/"),
    );
    assert_eq!(told.code, Some(9), "{}", told.err);
    assert!(
        told.err
            .starts_with("error[outcome_unknown]: it is not known whether this was done"),
        "{}",
        told.err
    );
    assert!(told.err.contains("it is safe to repeat"), "{}", told.err);
    let read = run(
        &["ls", "agents", "--address", &address.to_string()],
        Path::new("/"),
    );
    assert_eq!(read.code, Some(6), "{}", read.err);
    drop(std::net::TcpStream::connect(address).expect("it serves"));
    assert!(serving.join().expect("it ends") >= 1, "it was sent");
}

/// A daemon that is ended with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            signal(self.0.id(), Signal::TERM);
            let _ = self.0.wait();
        }
    }
}

#[test]
fn a_director_that_starts_where_nothing_lasts_logs_a_warning() {
    let dir = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    let log = dir.path().join("log");
    let folder = dir.path().join("d1");
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command
        .args(["director", "--name", "d1", "--listen", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(&folder)
        .env_clear()
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(&log).expect("a file"));
    let _daemon = Daemon(command.spawn().expect("it starts"));
    let warned = format!(
        "{} is on tmpfs: it is gone when the machine restarts",
        folder.display()
    );
    eventually("the warning", || {
        let log = std::fs::read_to_string(&log).expect("text");
        let mut lines = log.lines();
        lines.find(|line| line.contains("WARN") && line.contains(&warned))?;
        Some(())
    });
}

#[test]
fn the_version_is_told_to_programs_too() {
    let told = run(&["version", "-o", "json"], Path::new("/"));
    assert_eq!(told.code, Some(0), "{}", told.err);
    let told: Value = serde_json::from_str(&told.out).expect("JSON");
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    for number in ["ledger_format", "oldest_ledger_format", "warden_protocol"] {
        assert!(told[number].as_u64() >= Some(1), "{told}");
    }
}
