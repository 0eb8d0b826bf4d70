//! The program of docs/checkpoints.md under a real cluster: its agent is killed, and killed again, and the
//! next owner goes on after the last step that was saved.

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::support::{eventually, signal};

/// The program as the document shows it.
fn program() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/checkpoints.md");
    let document = std::fs::read_to_string(path).expect("the document");
    let (_, rest) = document.split_once("```python\n").expect("a program");
    let (program, _) = rest.split_once("\n```").expect("its end");
    program.to_owned()
}

/// Each step that was done: its number, and the token under which.
fn steps(out: &Path) -> Vec<(u64, u64)> {
    let text = std::fs::read_to_string(out).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let numbers = lines.map(|(step, token)| (step.parse(), token.parse()));
    numbers
        .map(|(step, token)| (step.expect("a number"), token.expect("a number")))
        .collect()
}

/// What `status` knows of the partition.
fn status(cluster: &Cluster) -> Option<Value> {
    let done = cluster.run(&["status", "count/a", "-o", "json"]);
    let value: Value = serde_json::from_str(&done.out).ok()?;
    value["checkpoint"]["token"].is_u64().then_some(value)
}

#[test]
fn the_next_owner_goes_on_where_the_one_that_was_killed_had_saved() {
    let cluster = Cluster::of(|dir| {
        let (program_file, out) = (dir.join("count.py"), dir.join("out"));
        std::fs::write(&program_file, program()).expect("written");
        format!(
            "[service.count]\ncommand = ['/usr/bin/python3', '{}', '{}']\nlease = '3s'\n\
             [service.count.ready]\nafter = '100ms'\n[service.count.ramp]\nsettle = '0s'\n\
             [service.count.partitions]\nlist = ['a']\n",
            program_file.display(),
            out.display()
        )
    });
    let out = cluster.dir().join("out");
    let mut token = 0;
    for _ in 0..2 {
        let seen = eventually("an owner has saved some steps", || {
            let under = |of: &u64| steps(&out).iter().filter(|(_, token)| token == of).count();
            status(&cluster).filter(|seen| {
                let now = seen["checkpoint"]["token"].as_u64().expect("a token");
                now > token && under(&now) >= 3
            })
        });
        token = seen["token"].as_u64().expect("a token");
        let shown = cluster.run(&["status", "count/a"]).out;
        let line = shown.lines().find(|line| line.contains("  checkpoint "));
        let line = line.expect("status shows it");
        assert!(
            line.contains("bytes, written ") && line.contains("under token"),
            "{line}"
        );
        let agent = seen["agent"].as_str().expect("an agent");
        signal(cluster.agent_pid(agent), Signal::KILL);
    }
    eventually("a third owner has done some steps", || {
        let done = steps(&out);
        (done.iter().filter(|(_, of)| *of > token).count() >= 3).then_some(())
    });

    let done = steps(&out);
    let mut owners: Vec<u64> = done.iter().map(|(_, token)| *token).collect();
    owners.dedup();
    assert!(owners.len() >= 3 && owners.is_sorted(), "{owners:?}");
    for pair in done.windows(2) {
        let ((before, old), (after, new)) = (pair[0], pair[1]);
        // The step that was done and not yet saved may be done again by the next owner.
        let again = old != new && after == before;
        assert!(
            after == before + 1 || again,
            "{after} under {new} after {before} under {old}"
        );
    }
}
