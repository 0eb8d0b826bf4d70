//! Where output goes and how it looks: pipes, closed pipes, terminals, colours, odd environments.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};

use crate::one::One;
use crate::support::{done, free_port, quorate, run};

fn here() -> &'static std::path::Path {
    std::path::Path::new("/")
}

#[test]
fn without_a_server_it_says_where_it_looked_and_what_to_do() {
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    for args in [
        &["status"][..],
        &["ls", "partitions"],
        &["why", "feeds/a"],
        &["drain", "a1"],
        &["events"],
        &["api", "GET", "/v1/agents"],
    ] {
        let output = quorate()
            .args(args)
            .env("QUORATE_ADDRESS", &address)
            .output()
            .expect("the program starts");
        let done = done(&output);
        assert_eq!(done.code, Some(6), "{args:?}: {}", done.err);
        assert_eq!(done.out, "");
        let first = format!(
            "error[unreachable]: no director answers at http://{address}: Connection refused (os error 111)\n"
        );
        assert!(done.err.starts_with(&first), "{}", done.err);
        assert!(
            done.err.contains("next: start one with `quorate up FILE`"),
            "{}",
            done.err
        );
    }
}

#[test]
fn another_server_at_the_address_is_not_taken_for_a_director() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = server.local_addr().expect("an address").to_string();
    let serving = std::thread::spawn(move || {
        let (mut client, _) = server.accept().expect("a connection");
        let mut seen = [0; 1024];
        let _ = client.read(&mut seen).expect("a request");
        let body = "<html>hello</html>";
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        std::io::Write::write_all(&mut client, answer.as_bytes()).expect("answered");
    });
    let done = run(&["ls", "agents", "--address", &address], here());
    serving.join().expect("the server ends");
    assert_eq!(done.code, Some(6), "{}", done.err);
    assert!(done.err.starts_with("error[not_quorate]"), "{}", done.err);
}

#[test]
fn addresses_that_are_none_are_usage_errors() {
    for (address, why) in [
        ("ftp://d1", "write host:port"),
        ("a b", "write host:port"),
        ("d1:99999", "write host:port"),
        ("d1/v1", "write host:port"),
    ] {
        let done = run(&["status", "--address", address], here());
        assert_eq!(done.code, Some(2), "{address:?}: {}", done.err);
        let told = format!("error[usage]: {address:?} is not the address of a director: {why}\n");
        let next = "  next: write --address HOST:PORT, or several with commas\n";
        assert_eq!(done.err, told + next);
    }
}

#[test]
fn a_reader_that_has_had_enough_ends_it_in_silence() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["completion", "bash"])
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    let done = done(&output);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
}

#[test]
fn a_cluster_whose_first_token_nobody_has_is_not_made() {
    let dir = tempfile::tempdir().expect("a folder");
    let found = |out: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command.args(["init", "--name", "d1", "--data-dir", "d1"]);
        let output = command.current_dir(dir.path()).env_clear().stdout(out);
        done(&output.stderr(Stdio::piped()).output().expect("it starts"))
    };
    let full = std::fs::File::options().write(true).open("/dev/full");
    let refused = found(full.expect("a full device").into());
    assert_eq!(refused.code, Some(1));
    assert!(!refused.err.contains("is made"), "{}", refused.err);
    assert_eq!(found(Stdio::piped()).code, Some(0));
}

#[test]
fn results_that_cannot_be_written_are_an_error() {
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("a full device");
    let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .arg("explain")
        .env_clear()
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .expect("the program starts");
    let done = done(&output);
    assert_eq!(done.code, Some(1));
    assert!(done.err.starts_with("error[output]"), "{}", done.err);
}

#[test]
fn verbs_are_suggested_and_no_command_shows_the_help() {
    let slip = run(&["aply", "x.toml"], here());
    assert_eq!(slip.code, Some(2));
    assert_eq!(
        slip.err,
        "error[usage]: there is no command \"aply\"\n  next: did you mean apply?\n"
    );
    assert_eq!(slip.out, "");
    let nothing = run(&[], here());
    assert_eq!(nothing.code, Some(2));
    assert!(nothing.err.contains("Usage: quorate"), "{}", nothing.err);
    let help = run(&["--help"], here());
    assert_eq!((help.code, help.err.as_str()), (Some(0), ""));
}

#[test]
fn targets_that_are_no_names_are_refused_before_anybody_is_asked() {
    for (args, word) in [
        (&["why", "feeds"][..], "SERVICE/KEY"),
        (&["why", "feeds/.."], "partition key"),
        (&["status", "a b"], "service name"),
        (&["rm", "feeds/ci"], "is a partition"),
        (&["rm", "service/feeds/ci"], "is a partition"),
        (&["status", "a\nb"], "\"a\\nb\""),
        (&["drain", "../a"], "agent name"),
        (&["ls", "services", "-l", "zone"], "NAME=VALUE"),
        (&["ls", "agents", "--service", "feeds"], "--service"),
        (&["wait", "--settled", "--timeout", "5"], "span of time"),
        (&["restart", "feeds", "--max", "2"], "--rolling"),
        (&["api", "GET", "v1/agents"], "begins with a slash"),
        (&["explain", "no_leadr"], "no_leader"),
    ] {
        let done = run(args, here());
        let expected = if args.first() == Some(&"explain") {
            3
        } else {
            2
        };
        assert_eq!(done.code, Some(expected), "{args:?}: {}", done.err);
        assert!(done.err.contains(word), "{args:?}: {}", done.err);
        assert_eq!(done.out, "", "{args:?}");
    }
}

#[test]
fn arguments_that_are_not_text_are_refused_and_file_names_may_be_anything() {
    let odd = OsStr::from_bytes(b"feeds\xff");
    let name = quorate().arg("status").arg(odd).output().expect("starts");
    assert_eq!(done(&name).code, Some(2));
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join(odd), "[service.a]\ncommand = ['x']\n").expect("written");
    let file = quorate()
        .arg("validate")
        .arg(odd)
        .current_dir(dir.path())
        .output()
        .expect("starts");
    assert_eq!(done(&file).code, Some(0));
}

#[test]
fn a_line_break_in_a_name_does_not_look_like_a_line_of_ours() {
    let dir = tempfile::tempdir().expect("a folder");
    let job = "[service.\"a\\nerror: b\"]\ncommand = ['x']\nlease = 3\n";
    std::fs::write(dir.path().join("job.toml"), job).expect("written");
    let done = run(&["validate", "job.toml"], dir.path());
    assert_eq!(done.code, Some(2));
    assert!(!done.err.contains("\nerror: b"), "{}", done.err);
    assert!(done.err.contains("a\\nerror: b"), "{}", done.err);
}

#[test]
fn what_is_wrong_in_a_configuration_is_shown_with_its_line() {
    let dir = tempfile::tempdir().expect("a folder");
    for (text, shown) in [
        ("[agent]\nnmae = 'a1'\n", "2 | nmae = 'a1'\n"),
        ("[agent]\ncapacity = 'x'\n", "2 | capacity = 'x'\n"),
        ("[agent\n", "1 | [agent\n"),
    ] {
        std::fs::write(dir.path().join("agent.toml"), text).expect("written");
        let done = run(&["agent", "--config", "agent.toml"], dir.path());
        assert_eq!(done.code, Some(2), "{}", done.err);
        assert!(
            done.err.starts_with("error[config]: agent.toml: "),
            "{}",
            done.err
        );
        assert!(done.err.contains(shown), "{}", done.err);
        assert!(
            done.err
                .contains("; every key but director.fence is also a flag"),
            "{}",
            done.err
        );
    }
}

#[test]
fn every_exit_code_and_error_code_is_explained() {
    let all = run(&["explain"], here());
    assert_eq!(all.code, Some(0));
    for code in [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
        "8",
        "9",
        "10",
        "130",
        "no_leader",
    ] {
        let one = run(&["explain", code], here());
        assert_eq!(one.code, Some(0), "{code}");
        assert!(
            all.out
                .lines()
                .any(|line| line.starts_with(&format!("{code}\t"))),
            "{code}"
        );
    }
    let shown = run(&["explain", "error[unreachable]"], here());
    insta::assert_snapshot!(shown.out);
}

#[test]
fn pages_and_completions_are_made_for_every_command() {
    let dir = tempfile::tempdir().expect("a folder");
    let done = run(&["man", "pages"], dir.path());
    assert_eq!(
        (done.code, done.out.as_str()),
        (Some(0), ""),
        "{}",
        done.err
    );
    assert!(dir.path().join("pages/quorate-apply.1").is_file());
    for shell in ["bash", "zsh", "fish"] {
        let done = run(&["completion", shell], dir.path());
        assert!(done.out.contains("QUORATE_COMPLETE"), "{shell}");
    }
}

/// What a shell is offered at the end of a line, without what it means.
fn offered(words: &[&str], address: &str) -> Vec<String> {
    let output = quorate()
        .arg("--")
        .args(words)
        .env("QUORATE_COMPLETE", "fish")
        .env("QUORATE_ADDRESS", address)
        .output()
        .expect("starts");
    let done = done(&output);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{words:?}");
    let names = done.out.lines().map(|line| line.split('\t').next());
    names.flatten().map(str::to_owned).collect()
}

#[test]
fn a_shell_is_offered_commands_options_and_values_and_nothing_hidden() {
    let nobody = "127.0.0.1:1";
    let offer = |words: &[&str]| offered(words, nobody);
    assert!(offer(&["quorate", "dr"]).contains(&"drain".to_owned()));
    assert_eq!(
        offer(&["quorate", "ls", ""])[..4],
        ["services", "partitions", "agents", "directors"]
    );
    assert_eq!(offer(&["quorate", "-o", "nd"]), ["ndjson"]);
    assert_eq!(offer(&["quorate", "ls", "agents", "--outp"]), ["--output"]);
    assert_eq!(offer(&["quorate", "help", "histo"]), ["history"]);
    let of_agent = offer(&["quorate", "agent", "--"]);
    assert!(of_agent.contains(&"--join".to_owned()), "{of_agent:?}");
    assert!(!of_agent.contains(&"--tied".to_owned()), "{of_agent:?}");
    // With nobody to ask there are no names, and no error in the line that is being typed.
    assert!(
        !offer(&["quorate", "drain", ""])
            .iter()
            .any(|name| !name.starts_with('-'))
    );
}

#[test]
fn a_shell_is_offered_the_names_of_the_cluster() {
    let job =
        "[service.s]\ncommand = ['sleep', '1000']\npartitions = { list = ['a1', 'a2', 'b'] }\n";
    let one = One::start(job);
    let offer = |words: &[&str]| {
        let mut names = offered(words, &one.address());
        names.retain(|name| !name.starts_with('-'));
        names
    };
    assert_eq!(offer(&["quorate", "drain", ""]), ["a1"]);
    assert_eq!(offer(&["quorate", "status", ""]), ["s", "s/"]);
    assert_eq!(offer(&["quorate", "why", ""]), ["s/"]);
    assert_eq!(offer(&["quorate", "why", "s/a"]), ["s/a1", "s/a2"]);
    assert_eq!(offer(&["quorate", "rm", ""]), ["s"]);
    let elsewhere = ["quorate", "--address", "127.0.0.1:1", "rm", ""];
    assert!(
        offer(&elsewhere).is_empty(),
        "the line says another cluster"
    );
}

/// Runs a command line of a shell on a terminal of its own and gives what the terminal saw.
fn on_terminal(command: &str, env: &[(&str, &str)]) -> String {
    let line = format!(
        "stty cols 1 2>/dev/null; {} {command}",
        env!("CARGO_BIN_EXE_quorate")
    );
    let output = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TERM", "xterm")
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("`script` of util-linux is there");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn colours_come_on_a_terminal_only_and_can_be_switched_off() {
    let missing = "validate /missing.toml";
    assert!(on_terminal(missing, &[]).contains("\x1b[31merror[file_unreadable]"));
    assert!(!on_terminal(missing, &[("NO_COLOR", "1")]).contains('\x1b'));
    assert!(!on_terminal(missing, &[("TERM", "dumb")]).contains('\x1b'));
    assert!(
        !run(&["validate", "/missing.toml"], here())
            .err
            .contains('\x1b')
    );
}

#[test]
fn a_terminal_one_column_wide_breaks_nothing() {
    let table = on_terminal("explain", &[("NO_COLOR", "1")]);
    assert!(table.contains("no_leader  "), "{table}");
    let help = on_terminal("--help", &[("NO_COLOR", "1")]);
    assert!(help.contains("apply"), "{help}");
}

#[test]
fn a_closed_standard_output_is_an_error_and_the_null_device_is_none() {
    for (to, code) in [(">&-", 1), (">/dev/null", 0), ("<>/dev/null >&0", 0)] {
        let line = format!("exec {} explain {to}", env!("CARGO_BIN_EXE_quorate"));
        let output = Command::new("sh")
            .args(["-c", &line])
            .env_clear()
            .stderr(Stdio::piped())
            .output()
            .expect("the shell starts");
        let done = done(&output);
        assert_eq!(done.code, Some(code), "{to}: {}", done.err);
        assert_eq!(done.err.contains("standard output is closed"), code != 0);
    }
}
