//! Founding a cluster and letting machines in, as an admin does, with mistakes; and certificates that end.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use quorate_pki::{Authority, PAPERS, Papers, Validity};

use crate::quorum::Quorum;
use crate::support::{done, eventually};

fn args(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn papers(quorum: &Quorum, name: &str) -> Papers {
    let path = quorum.dir.path().join(name).join("pki").join(PAPERS);
    Papers::load(&path).expect("papers")
}

/// Puts other papers of the same machine into its folder.
fn replace(quorum: &Quorum, name: &str, begins: SystemTime, expires: SystemTime) {
    let authority = Authority::load(&quorum.dir.path().join("d1/pki")).expect("an authority");
    let old = papers(quorum, name);
    let hosts = old.hosts().expect("hosts");
    let validity = Validity { begins, expires };
    let new = authority.papers(old.identity(), &hosts, validity);
    let path = quorum.dir.path().join(name).join("pki").join(PAPERS);
    new.expect("signed").store(&path).expect("written");
}

fn uses_left(quorum: &Quorum) -> u64 {
    let tokens = quorum.json("d1", &["join-token", "ls"]).expect("tokens");
    let all = tokens.as_array().expect("a list");
    let agents = all.iter().find(|token| token["role"] == "agent");
    agents.expect("one for agents")["left"]
        .as_u64()
        .expect("a number")
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("a file").permissions().mode() & 0o777
}

#[test]
fn a_cluster_is_founded_once_and_its_secrets_are_for_their_owner() {
    let quorum = Quorum::found();
    let again = quorum.run(&args(&["init", "--name", "d1", "--data-dir", "d1"]));
    assert_eq!(again.code, Some(1), "{}", again.err);
    assert!(again.err.contains("in use already"), "{}", again.err);
    let folder = quorum.dir.path().join("d1");
    for (name, wanted) in [
        ("pki", 0o700),
        ("pki/ca.key", 0o600),
        ("pki/papers.pem", 0o600),
        ("bootstrap-token.json", 0o600),
        ("pki/ca.pem", 0o644),
    ] {
        assert_eq!(mode(&folder.join(name)) & !0o022, wanted & !0o022, "{name}");
    }
    // Nobody may do anything without the token, and another name does not get the folder.
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["ls", "agents"])
        .env("QUORATE_ADDRESS", quorum.address("d1"))
        .env("QUORATE_CA_FILE", folder.join("pki/ca.pem"))
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(5));
    // Who speaks plain HTTP to it is told what to write, and nothing was asked.
    let plain = std::process::Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["ls", "agents", "--address"])
        .arg(format!("http://{}", quorum.address("d1")))
        .env_clear()
        .output()
        .expect("it starts");
    let plain = done(&plain);
    assert_eq!(plain.code, Some(6), "{}", plain.err);
    assert_eq!(
        plain.err,
        "error[tls]: this port speaks TLS\n  \
         next: write https:// before the address, and name the cluster's CA file\n"
    );
    let other = quorum.run(&args(&["director", "--name", "d9", "--data-dir", "d1"]));
    assert!(
        other.err.contains("those of director \"d1\""),
        "{}",
        other.err
    );
    // Without papers nothing listens beyond this machine.
    let bare = [
        "director",
        "--name",
        "x",
        "--data-dir",
        "x",
        "--listen",
        "0.0.0.0:0",
    ];
    let bare = quorum.run(&args(&bare));
    assert_eq!(bare.code, Some(2), "{}", bare.err);
    assert!(bare.err.contains("quorate init"), "{}", bare.err);
}

#[test]
fn a_machine_is_let_in_by_its_token_once_however_often_it_is_interrupted() {
    let quorum = Quorum::found();
    let here = quorum.address("d1");
    assert_eq!(uses_left(&quorum), 3);
    // The director is not there yet; then another authority is asked for. Neither costs anything.
    let nobody = quorum.joining("a1", "agent", "127.0.0.1:1");
    let refused = quorum.run(&nobody);
    assert_eq!(refused.code, Some(6), "{}", refused.err);
    let token = std::fs::read_to_string(quorum.dir.path().join("agent")).expect("a token");
    let (secret, _) = token.trim().rsplit_once('_').expect("parts");
    quorum.secret("other", &format!("{secret}_{}", "0".repeat(64)));
    let refused = quorum.run(&quorum.joining("a1", "other", &here));
    assert_eq!(refused.code, Some(6), "{}", refused.err);
    assert!(
        refused.err.contains("not signed by an authority"),
        "{}",
        refused.err
    );
    assert_eq!(uses_left(&quorum), 3);

    let joined = quorum.run(&quorum.joining("a1", "agent", &here));
    assert_eq!(joined.code, Some(0), "{}", joined.err);
    assert_eq!(uses_left(&quorum), 2);
    assert_eq!(mode(&quorum.dir.path().join("a1/pki/papers.pem")), 0o600);
    assert!(!quorum.dir.path().join("a1/pki/request.pem").exists());
    let again = quorum.run(&quorum.joining("a1", "agent", &here));
    assert_eq!(again.code, Some(1), "{}", again.err);
    assert!(again.err.contains("need not join again"), "{}", again.err);

    // Others may read it, or it is another kind of token.
    let path = quorum.dir.path().join("agent");
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&path, open).expect("changed");
    let refused = quorum.run(&quorum.joining("a2", "agent", &here));
    assert!(
        refused.err.contains("other users may read it"),
        "{}",
        refused.err
    );
    let refused = quorum.run(&quorum.joining("a2", "admin", &here));
    assert!(refused.err.contains("no join token"), "{}", refused.err);
    // A director that is there is nobody else's name.
    let refused = quorum.run(&quorum.joining("d1x", "director", &here));
    assert_eq!(refused.code, Some(0), "{}", refused.err);
    let mut named = quorum.joining("d1y", "director", &here);
    let at = named
        .iter()
        .position(|word| word == "--name")
        .expect("a name")
        + 1;
    "d1".clone_into(&mut named[at]);
    let refused = quorum.run(&named);
    assert_eq!(refused.code, Some(4), "{}", refused.err);
    assert!(refused.err.contains("cluster remove d1"), "{}", refused.err);
}

#[test]
fn certificates_are_renewed_before_they_end_and_nobody_is_disturbed() {
    let mut quorum = Quorum::found();
    quorum.agent("a1", "d1");
    let active = |quorum: &Quorum| {
        let agents = quorum.json("d1", &["ls", "agents"])?;
        let agents = agents.as_array()?;
        let active = agents.iter().any(|agent| agent["state"] == "active");
        active.then_some(())
    };
    eventually("the agent is there", || active(&quorum));
    quorum.end("a1");
    quorum.end("d1");
    // The director was off until its certificate had ended; the agent has a few seconds left.
    let second = Duration::from_secs(1);
    let now = SystemTime::now();
    replace(&quorum, "d1", now - 90 * second, now - 30 * second);
    replace(&quorum, "a1", now - 8 * second, now + 20 * second);
    quorum.director("d1");
    quorum.agent_again("a1");
    eventually("the agent is there again", || active(&quorum));
    let day = Duration::from_hours(24);
    for name in ["d1", "a1"] {
        eventually("it has new papers", || {
            let left = papers(&quorum, name).expires().duration_since(now);
            left.is_ok_and(|left| left > 6 * day).then_some(())
        });
    }
    // The director in the middle of its work, too.
    quorum.end("d1");
    let now = SystemTime::now();
    replace(&quorum, "d1", now - 2 * second, now + 16 * second);
    quorum.director("d1");
    eventually("the director has new papers", || {
        let left = papers(&quorum, "d1").expires().duration_since(now);
        left.is_ok_and(|left| left > 6 * day).then_some(())
    });
    eventually("what it had has ended", || {
        (SystemTime::now() > now + 17 * second).then_some(())
    });
    active(&quorum).expect("everybody is believed after the first certificates have ended");

    // Who was off for too long joins again, in the folder that it has.
    quorum.end("a1");
    let now = SystemTime::now();
    replace(&quorum, "a1", now - 90 * second, now - 30 * second);
    let joined = quorum.run(&quorum.joining("a1", "agent", &quorum.address("d1")));
    assert_eq!(joined.code, Some(0), "{}", joined.err);
    quorum.agent_again("a1");
    eventually("the agent is back", || active(&quorum));
}

#[test]
fn a_director_that_can_sign_nothing_says_so() {
    let mut quorum = Quorum::found();
    let told = |quorum: &Quorum| {
        let status = quorum.done("d1", &["cluster", "status"]);
        format!("{}{}", status.out, status.err)
    };
    assert!(!told(&quorum).contains("ca.key"));
    quorum.end("d1");
    let key = quorum.dir.path().join("d1/pki/ca.key");
    std::fs::rename(&key, quorum.dir.path().join("ca.key")).expect("moved");
    quorum.director("d1");
    let status = told(&quorum);
    assert!(status.contains("director d1 has no pki/ca.key"), "{status}");
}

#[test]
fn an_agent_that_was_forgotten_comes_back_by_a_join_token_alone() {
    let mut quorum = Quorum::found();
    quorum.agent("a1", "d1");
    let known = |quorum: &Quorum| {
        let agents = quorum.json("d1", &["ls", "agents"])?;
        Some(agents.as_array()?.len())
    };
    eventually("the agent is there", || {
        (known(&quorum)? == 1).then_some(())
    });
    quorum.end("a1");
    quorum.done("d1", &["rm", "agent/a1"]);
    // Its certificate is good for days, and still nobody believes it.
    quorum.agent_again("a1");
    eventually("the agent is told", || {
        let log = std::fs::read_to_string(quorum.dir.path().join("a1.log")).ok()?;
        log.contains("counts no longer").then_some(())
    });
    assert_eq!(known(&quorum), Some(0));
    quorum.end("a1");
    std::fs::remove_dir_all(quorum.dir.path().join("a1")).expect("removed");
    quorum.agent("a1", "d1");
    eventually("the agent is back", || (known(&quorum)? == 1).then_some(()));
}

#[test]
fn an_agent_runs_nothing_that_its_own_file_does_not_allow() {
    let mut quorum = Quorum::found();
    let joined = quorum.run(&quorum.joining("a1", "agent", &quorum.address("d1")));
    assert_eq!(joined.code, Some(0), "{}", joined.err);
    let config = quorum.dir.path().join("a1/quorate.toml");
    let mut text = std::fs::read_to_string(&config).expect("a file");
    text.push_str("\n[agent.allow]\nservices = ['good*']\ncommands = ['/bin/sleep']\n");
    std::fs::write(&config, text).expect("written");
    quorum.agent_again("a1");
    let service = |name: &str, command: &str| {
        format!(
            "[service.{name}]\ncommand = ['{command}', 'inf']\nrestart = {{ give_up_after = 2, backoff = '10ms' }}\n\
             [service.{name}.ramp]\nsettle = '1s'\n[service.{name}.partitions]\nlist = ['k']\n"
        )
    };
    let job = [
        service("good", "/bin/sleep"),
        service("good-name", "/bin/cat"),
        service("bad", "/bin/sleep"),
    ];
    std::fs::write(quorum.dir.path().join("job.toml"), job.concat()).expect("written");
    quorum.done("d1", &["apply", "job.toml"]);
    let told = |partition: &str, what: &str| {
        eventually(&format!("{partition} is told why it does not run"), || {
            let history = quorum.at("d1", &["history", partition]);
            history.out.contains(what).then_some(())
        });
    };
    told("good-name/k", "does not allow the program \"/bin/cat\"");
    told("bad/k", "does not allow the service bad");
    eventually("what is allowed runs", || {
        let rows = quorum.json("d1", &["ls", "partitions", "--service", "good"])?;
        (rows[0]["running"] == true).then_some(())
    });
}
