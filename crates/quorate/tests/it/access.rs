//! Tokens as a person handles them: shown once, on standard output alone; taken from a file that is his.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::one::One;

const JOB: &str =
    "[service.s]\ncommand = ['/bin/sleep', 'inf']\n[service.s.partitions]\nlist = ['a']\n";

#[test]
fn a_token_is_shown_once_and_its_id_from_then_on() {
    let one = One::start(JOB);
    let create = ["token", "create", "--name", "the CI", "--role", "definer"];
    let created = one.run(&[&create[..], &["--scope", "feeds-", "--ttl", "90d"]].concat());
    assert_eq!(created.code, Some(0), "{}", created.err);
    let token = created.out.trim_end();
    assert!(token.starts_with("qr_") && !token.contains('\n'), "{token}");
    assert!(!created.err.contains(token), "{}", created.err);
    let id = token.split('_').nth(1).expect("an id");

    let listed: Value =
        serde_json::from_str(&one.ok(&["token", "ls", "-o", "json"])).expect("JSON");
    let listed = listed.as_array().expect("a list");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["id"], id);
    assert_eq!(
        (&listed[0]["role"], &listed[0]["scope"]),
        (&"definer".into(), &"feeds-".into())
    );
    assert_eq!(
        one.ok(&["token", "ls", "-o", "name"]),
        format!("token/{id}\n")
    );
    let whole = one.run(&["token", "revoke", token]);
    assert_eq!(whole.code, Some(2), "the token itself is no id");
    assert!(!whole.err.contains(token), "{}", whole.err);
    assert_eq!(
        one.ok(&["token", "revoke", &format!("token/{id}")]),
        format!("token/{id} is revoked\n")
    );
    assert_eq!(
        one.ok(&["token", "revoke", id]),
        format!("token/{id} was revoked before\n")
    );
    let unknown = one.run(&["token", "revoke", "0000000000"]);
    assert_eq!(unknown.code, Some(3), "{}", unknown.err);

    let join = one.ok(&["join-token", "create", "--role", "agent", "--uses", "3"]);
    assert!(join.starts_with("qrj_"), "{join}");
    let table = one.ok(&["join-token", "ls", "-o", "table"]);
    assert!(
        table.contains("3 of 3") && table.contains("active"),
        "{table}"
    );
    for (args, word) in [
        (&["token", "create", "--name", "n"][..], "--role"),
        (
            &["token", "create", "--name", "n", "--role", "root"],
            "root",
        ),
        (
            &["token", "create", "--name", "", "--role", "viewer"],
            "empty",
        ),
        (
            &[
                "token", "create", "--name", "n", "--role", "viewer", "--ttl", "9",
            ],
            "span of time",
        ),
        (
            &["join-token", "create", "--role", "agent", "--uses", "0"],
            "0",
        ),
        (&["join-token", "revoke", "../x"], "id of a token"),
    ] {
        let done = one.run(args);
        assert_eq!(done.code, Some(2), "{args:?}: {}", done.err);
        assert!(done.err.contains(word), "{args:?}: {}", done.err);
    }
    let scoped = ["--role", "admin", "--scope", "s"];
    let scoped = one.run(&[&["token", "create", "--name", "n"][..], &scoped].concat());
    assert!(
        scoped.code == Some(2) && scoped.err.contains("admin"),
        "{}",
        scoped.err
    );
    let audit = one.ok(&["audit", "-o", "json"]);
    let audit: Value = serde_json::from_str(&audit).expect("JSON");
    let audit = audit.as_array().expect("a list").iter();
    let told: Vec<_> = audit
        .map(|e| (e["by"].as_str(), e["action"].as_str()))
        .collect();
    let local = |action| (Some("local"), Some(action));
    let all = ["apply", "create", "revoke", "create"].map(local);
    assert_eq!(told, all);
}

#[test]
fn a_token_is_taken_from_a_file_that_nobody_else_may_read() {
    let one = One::start(JOB);
    let file = one.dir().join("token");
    let shown = file.display().to_string();
    let ls = ["ls", "services", "-o", "name", "--token-file", &shown];
    let missing = one.run(&ls);
    assert_eq!(missing.code, Some(2), "{}", missing.err);
    assert!(missing.err.contains(&shown), "{}", missing.err);
    std::fs::write(&file, "qr_1\n").expect("written");
    for (mode, text, code) in [
        (0o644, "qr_1\n", 2),
        (0o600, "\n", 2),
        (0o600, "two words\n", 2),
        (0o600, "qr_1\n", 0),
    ] {
        std::fs::write(&file, text).expect("written");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("set");
        let done = one.run(&ls);
        assert_eq!(done.code, Some(code), "{mode:o} {text:?}: {}", done.err);
        assert!(!done.err.contains("qr_1"), "{}", done.err);
    }
    // What asks no cluster does not look for it.
    let mut validate = one.command(&["validate", "job.toml"]);
    validate.env("QUORATE_API_TOKEN_FILE", "/nowhere");
    assert!(validate.status().expect("it runs").success());
}
