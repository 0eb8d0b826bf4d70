//! Backups, restores and drills with real processes: a quorum that is lost while its agents go on, and what
//! becomes of what they run.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::quorum::Quorum;
use crate::support::eventually;

/// The upper part of the first token of era 1.
const ERA: u64 = 1 << 40;

/// Restores into a new folder with the papers of `d1`, and starts that director.
fn restore(quorum: &mut Quorum, file: &str, folder: &str) {
    quorum.papers_in(folder, "d1");
    let peer = format!("127.0.0.1:{}", quorum.ports["d1"].1);
    let args = [
        "cluster",
        "restore",
        file,
        "--data-dir",
        folder,
        "--name",
        "d1",
        "--peer-advertise",
        &peer,
    ];
    let done = quorum.at("d1", &args);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.out.contains("begins era"), "{}", done.out);
    quorum.director_in(folder, "d1");
}

fn kill_all(quorum: &mut Quorum) {
    let all: Vec<String> = quorum.directors.keys().cloned().collect();
    for name in all {
        quorum.kill(&name);
    }
}

#[test]
fn a_lost_quorum_is_restored_from_a_backup_while_its_agents_go_on_and_nothing_runs_twice() {
    let mut quorum = Quorum::of_three();
    for (agent, director) in [("a1", "d1"), ("a2", "d2"), ("a3", "d3")] {
        quorum.agent(agent, director);
    }
    quorum.apply(9);

    // While others write.
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let quorum = &quorum;
        let over = &over;
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                quorum.at("d2", &["cordon", "a3"]);
                quorum.at("d3", &["uncordon", "a3"]);
            }
        });
        let made = quorum.at("d3", &["cluster", "backup", "--to", "b"]);
        over.store(true, Ordering::Relaxed);
        assert_eq!(made.code, Some(0), "{}", made.err);
        assert!(made.out.contains("9 partitions, 3 agents"), "{}", made.out);
    });
    quorum.done("d1", &["uncordon", "a3"]);
    let file = quorum.dir.path().join("b");
    let mode = std::fs::metadata(&file).expect("it is there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let again = quorum.at("d1", &["cluster", "backup", "--check", "b", "-o", "json"]);
    assert!(again.out.contains("\"era\": 0"), "{}", again.out);

    // What the backup does not know: other holders, under other tokens.
    quorum.done("d1", &["drain", "a1"]);
    eventually("a1 has nothing", || {
        let rows = quorum.json("d1", &["ls", "partitions"])?;
        let mut rows = rows.as_array()?.iter();
        rows.all(|row| row["agent"] != "a1" && row["running"] == true)
            .then_some(())
    });
    let before = quorum.all_run("d1", 9);
    let begun = quorum.runs();

    kill_all(&mut quorum);
    restore(&mut quorum, "b", "r1");
    let status = quorum.done("d1", &["cluster", "status"]);
    assert!(status.out.contains("era 1,"), "{}", status.out);
    let after = quorum.all_run("d1", 9);
    for (key, token) in &after {
        assert!(*token > ERA && token > &before[key], "{key}: {token}");
    }
    // Nothing was executed twice, and tokens rose for each, says the referee, which knows every beat.
    assert!(quorum.runs() >= begun + 9);

    // Who waits with an index of before is told so, and so is who follows the events.
    for path in ["/v1/services?index=5&wait=1s", "/v1/events?after=5.0"] {
        let gone = quorum.at("d1", &["api", "GET", path]);
        assert_ne!(gone.code, Some(0), "{path}: {}", gone.out);
        assert!(
            gone.err.contains("410")
                || gone.err.contains("of before")
                || gone.err.contains("no longer"),
            "{}",
            gone.err
        );
    }

    // A director of before, with its folder, is nobody here: it leads nothing and comes into nothing.
    let standing = quorum.runs();
    quorum.director("d3");
    eventually("it is told whom it does not reach", || {
        let log = std::fs::read_to_string(quorum.dir.path().join("d1.log")).ok()?;
        log.contains("one folder was made anew").then_some(())
    });
    let old = eventually("it answers", || {
        let old = quorum.at("d3", &["api", "GET", "/v1/cluster?stale=true"]);
        (old.code == Some(0)).then_some(old)
    });
    assert!(old.out.contains("\"era\": 0"), "{}", old.out);
    let status = quorum
        .json("d1", &["cluster", "status"])
        .expect("it answers");
    assert_eq!((&status["voters"], &status["era"]), (&1.into(), &1.into()));
    quorum.kill("d3");

    // New ones come in as ever.
    quorum.papers_in("r2", "d2");
    quorum.director_in("r2", "d2");
    quorum.until_voters("d1", 2);
    assert_eq!(quorum.all_run("d1", 9), after, "nobody has moved");
    assert_eq!(quorum.runs(), standing, "nothing was started anew");
    let agent = std::fs::read_to_string(quorum.dir.path().join("a1/era"));
    assert_eq!(agent.expect("what it has seen"), "1\n");
}

#[test]
fn of_a_lost_majority_the_folder_that_is_left_is_enough() {
    let mut quorum = Quorum::of_three();
    quorum.agent("a1", "d1");
    quorum.apply(2);
    let held = quorum.at(
        "d1",
        &["cluster", "backup", "--data-dir", "d3", "--to", "b"],
    );
    assert_eq!(held.code, Some(1), "{} {}", held.out, held.err);
    assert!(held.err.contains("in use by another"), "{}", held.err);
    kill_all(&mut quorum);
    let made = quorum.at(
        "d1",
        &["cluster", "backup", "--data-dir", "d3", "--to", "b"],
    );
    assert_eq!(made.code, Some(0), "{}", made.err);
    assert!(made.out.contains("2 partitions"), "{}", made.out);

    refused_files(&quorum);

    // A folder with a ledger is never written to.
    let used = quorum.at(
        "d1",
        &[
            "cluster",
            "restore",
            "b",
            "--data-dir",
            "d1",
            "--name",
            "d1",
        ],
    );
    assert_eq!(used.code, Some(4), "{}", used.err);
    assert!(used.err.contains("is in use"), "{}", used.err);
    restore(&mut quorum, "b", "r1");
    let after = quorum.all_run("d1", 2);
    assert!(after.values().all(|token| *token > ERA), "{after:?}");
    quorum.runs();
}

/// What is no whole backup is refused by those who check and by those who restore, and leaves nothing behind.
fn refused_files(quorum: &Quorum) {
    let whole = std::fs::read(quorum.dir.path().join("b")).expect("the backup");
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 4;
    let newer = [b"quorate backup 9".as_slice(), &whole[16..]].concat();
    let files: [(&[u8], &str); 4] = [
        (&whole[..whole.len() - 100], "100 bytes are missing"),
        (&flipped, "its checksum is another"),
        (b"PK\x03\x04 something else", "it is no backup"),
        (&newer, "newer"),
    ];
    for (bytes, why) in files {
        std::fs::write(quorum.dir.path().join("bad"), bytes).expect("written");
        let checked = quorum.at("d1", &["cluster", "backup", "--check", "bad"]);
        let restored = quorum.at(
            "d1",
            &[
                "cluster",
                "restore",
                "bad",
                "--data-dir",
                "x",
                "--name",
                "d1",
            ],
        );
        for done in [checked, restored] {
            assert_eq!(done.code, Some(2), "{}", done.err);
            assert!(done.err.contains(why), "{}", done.err);
            assert!(done.err.contains("backup_invalid"), "{}", done.err);
        }
        assert!(!Path::new(&quorum.dir.path().join("x")).exists());
    }
}

#[test]
fn a_drill_changes_the_leader_and_nothing_else() {
    let mut quorum = Quorum::of_three();
    quorum.agent("a1", "d1");
    quorum.agent("a2", "d2");
    quorum.apply(6);
    quorum.done("d1", &["wait", "--settled"]);
    let before = (quorum.all_run("d1", 6), quorum.runs());
    let leader = quorum.leader();
    let drilled = quorum.at(
        &leader,
        &["cluster", "drill", "--report", "drill.md", "-o", "json"],
    );
    assert_eq!(drilled.code, Some(0), "{} {}", drilled.out, drilled.err);
    let report: serde_json::Value = serde_json::from_str(&drilled.out).expect("JSON");
    assert_eq!(report["leader_before"], leader.as_str());
    assert_ne!(report["leader_after"], leader.as_str());
    assert_eq!(report["passed"], true);
    assert!(report["probes"].as_u64() > Some(10), "{report}");
    assert!(report["unavailable_ms"].as_u64() < Some(10_000), "{report}");
    eprintln!(
        "without a leader that answers for {} ms",
        report["unavailable_ms"]
    );
    let text = std::fs::read_to_string(quorum.dir.path().join("drill.md"));
    assert!(
        text.expect("the report")
            .starts_with("# Failover drill: passed")
    );
    assert_eq!((quorum.all_run("d1", 6), quorum.runs()), before);

    // Two of three could not bear that one fails.
    let left = quorum.leader();
    let other = ["d1", "d2", "d3"].into_iter().find(|name| *name != left);
    quorum.kill(other.expect("another"));
    let refused = eventually("it is missed", || {
        let refused = quorum.at(&left, &["cluster", "drill"]);
        (refused.code == Some(8)).then_some(refused)
    });
    assert!(
        refused.err.contains("2 healthy directors vote"),
        "{}",
        refused.err
    );
}
