//! The lease file and the token file of a run, read with the blocks of the document.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::blocks::block;
use crate::one::One;
use crate::support::eventually;

const LEASE_MS: i64 = 3_000;
const JOB: &str = r#"
[service.look]
command     = ["./look"]
working_dir = "."
lease       = "3s"
"#;

/// Everything that a run can see of its right to run, in a line.
const LOOK: &str = r#"
echo "$(lease_left_ms) $(python3 lease.py) $token $QUORATE_TOKEN $cluster $QUORATE_CLUSTER $(head -1 "$QUORATE_LEASE_FILE")"
"#;

fn write_programs(dir: &Path) {
    let python = block("python lease") + "\n\nprint(round(lease_left() * 1000))\n";
    std::fs::write(dir.join("lease.py"), python).expect("written");
    let (lease, token) = (block("sh lease"), block("sh token-file"));
    let look = format!("#!/bin/sh\n{token}{lease}while :; do{LOOK}done >looks\n");
    std::fs::write(dir.join("look"), look).expect("written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.join("look"), mode).expect("set");
    let left = format!("#!/bin/sh\n{lease}lease_left_ms\n");
    std::fs::write(dir.join("left.sh"), left).expect("written");
}

#[test]
fn a_run_sees_until_when_it_may_execute_and_under_which_token() {
    let one = One::folder(JOB);
    write_programs(one.dir());
    let one = one.up();
    let looks = || std::fs::read_to_string(one.dir().join("looks")).unwrap_or_default();
    eventually("the deadline moves on three times", || {
        let looks = looks();
        let deadlines: BTreeSet<&str> = looks
            .lines()
            .filter_map(|look| look.split(' ').nth(6))
            .collect();
        (deadlines.len() > 3).then_some(())
    });
    let looks = looks();
    // The last one may be on its way.
    let whole = looks.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for look in whole.lines() {
        let words: Vec<&str> = look.split(' ').collect();
        let [
            shell,
            python,
            token,
            own_token,
            cluster,
            own_cluster,
            deadline,
        ] = words[..]
        else {
            panic!("{look}");
        };
        for left in [shell, python] {
            let left: i64 = left.parse().expect("a number");
            assert!((1..=LEASE_MS).contains(&left), "{look}");
        }
        assert_eq!((token, cluster), (own_token, own_cluster));
        assert!(token.parse::<u64>().expect("a number") > 0);
        assert_eq!(cluster.len(), 16);
        assert_ne!(cluster, "0000000000000000", "the directors have told none");
        assert!(deadline.starts_with("deadline_boottime_ms="), "{look}");
    }
}

#[test]
fn a_lease_that_is_over_or_gone_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    write_programs(dir.path());
    let over = dir.path().join("over");
    std::fs::write(&over, "deadline_boottime_ms=1\ncluster=00000000000000c1\n").expect("written");
    for file in [over, dir.path().join("gone")] {
        for [program, argument] in [["python3", "lease.py"], ["sh", "left.sh"]] {
            let output = Command::new(program)
                .arg(argument)
                .env("QUORATE_LEASE_FILE", &file)
                .current_dir(dir.path())
                .output()
                .expect("it starts");
            let left = String::from_utf8_lossy(&output.stdout);
            let left: i64 = left.trim().parse().expect("a number");
            assert!(left <= 0, "{program}, {}: {left}", file.display());
        }
    }
}
