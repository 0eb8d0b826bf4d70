//! Every way a file can be wrong, with the message that a person sees. No cluster is asked.

use std::fmt::Write as _;

use crate::support::run;

/// Checks files that are wrong and gives all that is said, the file before the answer.
fn told(name: &str, files: &[&str]) -> String {
    let mut all = String::new();
    for content in files {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join(name), content).expect("the file is written");
        let done = run(&["validate", name], dir.path());
        assert_eq!(done.code, Some(2), "{content:?}\n{}", done.err);
        assert_eq!(
            done.out, "",
            "results only when there are some: {content:?}"
        );
        let here = dir.path().display().to_string();
        let err = done.err.replace(&here, "DIR");
        let _ = writeln!(all, "#### {content}\n{err}");
    }
    all
}

#[test]
fn files_that_say_nothing_are_told_what_a_file_needs() {
    insta::assert_snapshot!(told("f.toml", &["", "# only a comment\n", "[service]\n"]));
    insta::assert_snapshot!(told(
        "f.json",
        &[
            "",
            "{}",
            "null",
            "[]",
            "[{}]",
            "\"service\"",
            "7",
            "{\"service\": []}",
            "{\"service\": null}"
        ]
    ));
}

#[test]
fn syntax_errors_show_their_line() {
    insta::assert_snapshot!(told(
        "f.toml",
        &[
            "[service.feeds\ncommand = ['x']\n",
            "[service.feeds]\ncommand = ['x'\nlease = '5s'\n",
            "[service.feeds]\ncommand = x\n",
            "[service.feeds]\ncommand = ['x']\ncommand = ['y']\n",
            "[service.feeds]\ncommand = ['x']\n[service.feeds]\ncommand = ['y']\n",
        ]
    ));
    insta::assert_snapshot!(told(
        "f.json",
        &[
            "{\"service\": {\"feeds\": {\"command\": [\"x\"]}}",
            "{\"service\": {\"a\": {\"command\": [\"x\"]},\n \"a\": {\"command\": [\"y\"]}}}",
            "{\"service\": {}} trailing",
            "{'service': 1}",
            "{\"service\": {\"a\": {\"command\": [\"x\"], \"lease\": NaN}}}",
        ]
    ));
}

#[test]
fn unknown_keys_are_errors_with_the_key_that_was_meant() {
    insta::assert_snapshot!(told(
        "f.toml",
        &[
            "[service.feeds]\ncomand = ['x']\nlease = '10s'\n",
            "[service.feeds]\ncommand = ['x']\nrestart = { backof = '1s' }\n[service.feeds.ramp]\nper_agents = 2\n",
            "[services.feeds]\ncommand = ['x']\n",
            "[service.feeds]\ncommand = ['x']\nsecrets = { A = 'b' }\n",
            "[service.feeds]\ncommand = ['x']\nzebra = 1\n",
        ]
    ));
}

#[test]
fn values_of_the_wrong_kind_are_told_with_what_to_write() {
    insta::assert_snapshot!(told(
        "f.toml",
        &[
            "[service.feeds]\ncommand = 'x --y'\n",
            "[service.feeds]\ncommand = ['x']\nlimits = { files = '10' }\n",
            "[service.feeds]\ncommand = ['x']\nlimits = { files = -1 }\n",
            "[service.feeds]\ncommand = ['x']\nlimits = { files = nan }\n",
            "[service.feeds]\ncommand = ['x']\nramp = { per_agent = 1e309 }\n",
            "[service.feeds]\ncommand = ['x']\nramp = { per_agent = 4294967296 }\n",
            "[service.feeds]\ncommand = ['x']\nlease = 10\n",
            "[service.feeds]\ncommand = ['x']\non_change = 'restrat'\n",
            "[service.feeds]\ncommand = ['x']\nready = { notify = 'yes' }\n",
            "[service.feeds]\ncommand = ['x']\nenv = ['A=B']\n",
            "[service.feeds]\nlease = '10s'\n",
            "service = ['feeds']\n",
        ]
    ));
}

#[test]
fn spans_that_could_be_misread_are_refused() {
    let files: Vec<String> = ["", "0", "-5s", "10", "1y", "5m30", "99999999999999999999s"]
        .iter()
        .map(|span| format!("[service.feeds]\ncommand = ['x']\nlease = '{span}'\n"))
        .collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    insta::assert_snapshot!(told("f.toml", &files));
}

#[test]
fn bad_names_commands_and_partitions_show_their_line() {
    insta::assert_snapshot!(told(
        "f.toml",
        &[
            "[service.'']\ncommand = ['x']\n",
            "[service.'-a']\ncommand = ['x']\n",
            "[service.'a/b']\ncommand = ['x']\n",
            "[service.'..']\ncommand = ['x']\n",
            "[service.a]\ncommand = []\n",
            "[service.a]\ncommand = ['']\n",
            "[service.a]\ncommand = ['/bin/run --all']\n",
            "[service.a]\ncommand = ['x', \"nul\\u0000\"]\n",
            "[service.a]\ncommand = ['x', '{{kye}}']\n",
            "[service.a]\ncommand = ['x']\nenv = { 'A=B' = 'c' }\n",
            "[service.a]\ncommand = ['x']\nuser = ''\n",
            "[service.a]\ncommand = ['x']\nstop = { signal = 'TREM' }\n",
            "[service.a]\ncommand = ['x']\n[service.a.partitions]\nlist = []\n",
            "[service.a]\ncommand = ['x']\n[service.a.partitions]\nlist = ['k', 'l', 'k']\n",
            "[service.a]\ncommand = ['x']\n[service.a.partitions]\nlist = ['..', '-x', \"a\\u202eb\"]\n",
            "[service.a]\ncommand = ['x']\n[service.a.partitions]\nlist = ['k']\nrange = '0..4'\n",
            "[service.a]\ncommand = ['x']\n[service.a.partitions]\nrange = '0..0'\n",
            "[service.a]\ncommand = ['x']\n[service.a.partitions]\nrange = '0..10000000'\n",
            "[service.a]\ncommand = ['x']\n[service.a.partitions]\nkey = 'id'\n",
        ]
    ));
}

#[test]
fn partition_files_are_read_before_they_are_applied() {
    let dir = tempfile::tempdir().expect("a folder");
    let job =
        "[service.a]\ncommand = ['x', '{{key}}']\n[service.a.partitions]\nfile = 'list.jsonl'\n";
    std::fs::write(dir.path().join("job.toml"), job).expect("written");
    let mut all = String::new();
    for list in [
        None,
        Some("{\"key\": \"a\"}\n{\"key\": \"a\"}\n"),
        Some("{\"id\": \"a\"}\n"),
        Some("{\"key\": \"a\"\n"),
        Some("{\"key\": 2.5}\n"),
    ] {
        if let Some(list) = list {
            std::fs::write(dir.path().join("list.jsonl"), list).expect("written");
        }
        let done = run(&["validate", "job.toml"], dir.path());
        assert_eq!(done.code, Some(2), "{list:?}\n{}", done.err);
        let here = dir.path().display().to_string();
        let _ = writeln!(all, "#### {list:?}\n{}", done.err.replace(&here, "DIR"));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn a_partition_file_whose_name_tells_no_format_is_told_once() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("list.txt"), "a\n").expect("written");
    let job = "[service.a]\ncommand = ['x']\npartitions = { file = 'list.txt' }\n";
    std::fs::write(dir.path().join("job.toml"), job).expect("written");
    let done = run(&["validate", "job.toml"], dir.path());
    assert_eq!(done.code, Some(2), "{}", done.err);
    assert_eq!(done.err.matches("error[").count(), 1, "{}", done.err);
    assert!(done.err.contains("next: let its name end in .jsonl"));
}

#[test]
fn a_good_file_is_told_with_its_partitions_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("list.csv"), "key,url\na,u\nb,v\n").expect("written");
    let job = "[service.a]\ncommand = ['./x', '{{data.url}}']\npartitions = { file = 'list.csv' }\n\
               [service.b]\ncommand = ['x']\npartitions = { range = '0..${N}' }\n";
    std::fs::write(dir.path().join("job.toml"), job).expect("written");
    let output = crate::support::quorate()
        .args(["validate", "job.toml", "-o", "json"])
        .env("N", "16")
        .current_dir(dir.path())
        .output()
        .expect("the program starts");
    let done = crate::support::done(&output);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let seen: serde_json::Value = serde_json::from_str(&done.out).expect("JSON");
    let here = dir.path().display().to_string();
    assert_eq!(
        seen,
        serde_json::json!([
            {"name": "a", "partitions": 2, "source": format!("{here}/list.csv"),
             "command": [format!("{here}/x"), "{{data.url}}"]},
            {"name": "b", "partitions": 16, "source": "0..16", "command": ["x"]},
        ])
    );
}

#[test]
fn every_undefined_variable_is_told_at_once() {
    insta::assert_snapshot!(told(
        "f.toml",
        &[
            "[service.feeds]\ncommand = ['x', '${FEEDS_URL}', '${FEEDS_USER}']\nlease = '${LEASE}'\n"
        ]
    ));
}

#[test]
fn a_service_in_two_files_is_an_error_and_two_services_are_not() {
    let dir = tempfile::tempdir().expect("a folder");
    for (file, name) in [("a.toml", "one"), ("b.toml", "two"), ("c.toml", "one")] {
        let job = format!("[service.{name}]\ncommand = ['x']\n");
        std::fs::write(dir.path().join(file), job).expect("written");
    }
    let both = run(&["validate", "a.toml", "b.toml"], dir.path());
    assert_eq!(
        (both.code, both.err.as_str()),
        (Some(0), "valid: 2 services\n")
    );
    let twice = run(&["validate", "a.toml", "b.toml", "c.toml"], dir.path());
    assert_eq!(twice.code, Some(2));
    insta::assert_snapshot!(twice.err);
}

#[test]
fn files_that_cannot_be_read_are_told_apart() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("folder")).expect("made");
    std::fs::write(dir.path().join("latin1.toml"), b"# gr\xfc\xdfe\n").expect("written");
    let mut all = String::new();
    for name in ["missing.toml", "folder", "latin1.toml"] {
        let done = run(&["validate", name], dir.path());
        assert_eq!(done.code, Some(2));
        all.push_str(&done.err);
    }
    insta::assert_snapshot!(all);
}

#[test]
fn a_file_may_come_from_standard_input_as_toml_or_json() {
    for text in [
        "[service.a]\ncommand = ['x']\n",
        "{\"service\": {\"a\": {\"command\": [\"x\"]}}}",
        "\u{feff}[service.a]\ncommand = ['x']\n",
    ] {
        let output = crate::support::quorate()
            .args(["validate", "-", "-o", "name"])
            .write_stdin(text)
            .output()
            .expect("the program starts");
        let done = crate::support::done(&output);
        assert_eq!(
            (done.code, done.out.as_str()),
            (Some(0), "service/a\n"),
            "{}",
            done.err
        );
    }
}

#[test]
fn a_pipe_is_no_list_of_partitions_but_may_be_a_service_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let list = dir.path().join("list.jsonl");
    let made = std::process::Command::new("mkfifo").arg(&list).status();
    assert!(made.expect("mkfifo is there").success());
    let file = "[service.a]\ncommand = ['true']\npartitions = { file = 'list.jsonl' }\n";
    std::fs::write(dir.path().join("f.toml"), file).expect("written");
    let done = run(&["validate", "f.toml"], dir.path());
    assert_eq!(done.code, Some(2), "{}", done.err);
    assert!(
        done.err.contains("list.jsonl is not a file"),
        "{}",
        done.err
    );

    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    std::io::Write::write_all(&mut writer, b"[service.a]\ncommand = ['true']\n").expect("it fits");
    drop(writer);
    let piped = std::process::Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["validate", "/dev/stdin"])
        .stdin(reader)
        .output()
        .expect("it starts");
    assert_eq!(piped.status.code(), Some(0), "{piped:?}");
}

#[test]
fn a_file_that_is_too_large_says_so_and_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = std::fs::File::create(dir.path().join("f.toml")).expect("made");
    file.set_len((16 << 20) + 1).expect("sparse");
    let done = run(&["validate", "f.toml"], dir.path());
    assert_eq!(done.code, Some(2), "{}", done.err);
    assert!(
        done.err.starts_with("error[file_too_large]"),
        "{}",
        done.err
    );
    assert!(done.err.contains("partitions.file"), "{}", done.err);
}

#[test]
fn what_is_meant_for_the_shell_of_a_run_is_told_how_to_get_there() {
    let dir = tempfile::tempdir().expect("a folder");
    for (written, told) in [
        ("${#QUORATE_DATA}", "write $${#QUORATE_DATA} to leave it"),
        ("${QUORATE_KEY}", "write $${QUORATE_KEY} to leave it"),
        (
            "${NO_SUCH}",
            "define it: NO_SUCH=… quorate …; or write $${NO_SUCH}",
        ),
    ] {
        let file = format!("[service.a]\ncommand = ['sh', '-c', 'echo {written}']\n");
        std::fs::write(dir.path().join("f.toml"), file).expect("written");
        let done = run(&["validate", "f.toml"], dir.path());
        assert!(done.err.contains(told), "{written}: {}", done.err);
    }
}

#[test]
fn numbers_out_of_range_are_told_the_range() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = "[service.a]\ncommand = ['x']\nplacement.priority = 9007199254740993\n";
    std::fs::write(dir.path().join("f.toml"), file).expect("written");
    let done = run(&["validate", "f.toml"], dir.path());
    assert!(
        done.err.contains("from -2147483648 to 2147483647"),
        "{}",
        done.err
    );
    let done = run(&["up", "f.toml", "--agents", "0"], dir.path());
    assert!(
        done.err.contains("--agents: 0 is not from 1 to 256"),
        "{}",
        done.err
    );
    let file = "[service.a]\ncommand = ['x']\nready = { notify = true, after = '1s' }\n";
    std::fs::write(dir.path().join("f.toml"), file).expect("written");
    let done = run(&["validate", "f.toml"], dir.path());
    assert_eq!(done.code, Some(2), "{}", done.err);
    assert!(done.err.contains("service.a.ready.after: "), "{}", done.err);
    std::fs::write(dir.path().join("q.toml"), "[director]\nlisten = 5\n").expect("written");
    let done = run(&["director", "--config", "q.toml"], dir.path());
    assert!(
        done.err.contains("5 is not an address and a port"),
        "{}",
        done.err
    );
    let done = run(&["agent", "--label", "containment=x"], dir.path());
    assert!(done.err.contains("by itself"), "{}", done.err);
}
