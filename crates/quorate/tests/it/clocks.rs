//! Wall clocks that jump (C3), under real processes: director, agent and wardens ask a clock that the
//! test moves. Leases know nothing of it, so nothing may notice but the times that people are shown.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::one::One;
use crate::support::eventually;

const HOUR: i64 = 3_600;
const YEAR: i64 = 365 * 24 * HOUR;
/// More than the lease of the job below with all its margins.
const LONGER_THAN_A_LEASE: Duration = Duration::from_millis(11_500);

const JOB: &str = "[service.s]\ncommand = ['/bin/sleep', 'inf']\nlease = '10s'\n\
                   [service.s.ready]\nafter = '50ms'\n[service.s.partitions]\nrange = '0..6'\n";

/// A wall clock that can be moved.
struct WallClock {
    file: File,
    _dir: tempfile::TempDir,
    library: String,
    path: String,
}

impl WallClock {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/wall_clock.c");
        let (library, path) = (dir.path().join("wall_clock.so"), dir.path().join("moved"));
        // What links Rust programs compiles this, too.
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([&library, &source])
            .status();
        assert!(compiled.expect("cc starts").success());
        std::fs::write(&path, [0; 8]).expect("written");
        let text = |path: &Path| path.to_str().expect("text").to_owned();
        Self {
            file: File::options().write(true).open(&path).expect("opened"),
            library: text(&library),
            path: text(&path),
            _dir: dir,
        }
    }

    /// From now on it is so many seconds off.
    fn jump_to(&self, seconds: i64) {
        let bytes = seconds.to_ne_bytes();
        self.file.write_all_at(&bytes, 0).expect("written");
    }
}

/// Token and process of each partition, when all are ready.
fn ready(one: &One) -> BTreeMap<String, (u64, u64)> {
    eventually("all six are ready", || {
        let all = one.ok(&["ls", "partitions", "-o", "json"]);
        let all: Vec<Value> = serde_json::from_str(&all).expect("JSON");
        let ready = all.iter().filter(|seen| seen["health"] == "ready");
        let ready: BTreeMap<_, _> = ready
            .filter_map(|seen| {
                let key = seen["key"].as_str()?.to_owned();
                Some((key, (seen["token"].as_u64()?, seen["pid"].as_u64()?)))
            })
            .collect();
        (ready.len() == 6).then_some(ready)
    })
}

#[test]
fn wall_clocks_that_jump_by_hours_and_years_disturb_nothing() {
    let wall = WallClock::new();
    let one = One::start_with(
        JOB,
        &[("LD_PRELOAD", &wall.library), ("WALL_CLOCK", &wall.path)],
    );
    let before = ready(&one);
    for seconds in [YEAR, -YEAR, 20 * YEAR, HOUR, -HOUR] {
        wall.jump_to(seconds);
        // New work begins as usual on the far side of the jump.
        one.ok(&["stop", "s/5"]);
        one.ok(&["start", "s/5"]);
        let mut now = ready(&one);
        now.insert("5".to_owned(), before["5"]);
        assert_eq!(now, before, "{seconds} s: the others are the same runs");
    }
    let jumped = Instant::now();
    eventually("a lease would be over", || {
        (jumped.elapsed() > LONGER_THAN_A_LEASE).then_some(())
    });
    wall.jump_to(0);
    let mut now = ready(&one);
    now.insert("5".to_owned(), before["5"]);
    assert_eq!(now, before, "leases went on");
    let told = one.ok(&["events", "-o", "ndjson"]);
    for word in ["expired", "silent", "drift"] {
        assert!(!told.contains(word), "{word}: {told}");
    }
    // The times that people see did follow.
    assert!(told.contains(&format!("\"{}", year_of(YEAR))), "{told}");
}

/// The year in which a wall clock is that is so far off.
fn year_of(seconds: i64) -> String {
    let then = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    then.to_string()[..4].to_owned()
}
