//! Lists of partitions that the directors refuse, as the commands tell of them.

use crate::one::One;
use crate::support::{Done, eventually};

const JOB: &str = "[service.feeds]\ncommand = [\"/bin/sleep\", \"1000\"]\n\
                   partitions = { file = \"feeds.jsonl\" }\n";

fn list(keys: usize) -> String {
    let lines = (0..keys).map(|n| format!("{{\"key\": \"k{n}\"}}\n"));
    lines.collect()
}

fn tells(done: &Done, parts: &[&str]) {
    for part in parts {
        assert!(done.err.contains(part), "{part:?} in {done:?}");
    }
}

#[test]
fn whoever_waits_asks_or_plans_is_told_that_a_list_is_refused() {
    let one = One::folder(JOB);
    let file = one.dir().join("feeds.jsonl");
    std::fs::write(&file, list(6)).expect("written");
    let one = one.up();
    one.ok(&["wait", "--settled", "--timeout", "30s"]);
    std::fs::write(&file, list(2)).expect("written");
    let why = [
        "feeds",
        "it would drop 4 of 6 partitions",
        "shrink_guard = \"67%\"",
    ];

    let applied = one.run(&["apply", "job.toml"]);
    assert_eq!(applied.code, Some(0), "{applied:?}");
    tells(&applied, &why);
    let applied = one.run(&["apply", "job.toml", "--wait", "30s"]);
    assert_eq!(applied.code, Some(8), "{applied:?}");
    tells(&applied, &why);
    eventually("the directors have read it", || {
        let services = one.ok(&["ls", "services", "--problems"]);
        services.contains("drop 4 of 6").then_some(())
    });
    let waited = one.run(&["wait", "--settled", "--timeout", "30s"]);
    assert_eq!(waited.code, Some(8), "{waited:?}");
    tells(&waited, &why);
    assert_eq!(waited.out, "6 of 6 run, 1 list refused\n");
    tells(&one.run(&["ls", "partitions", "--problems"]), &why);
    let plan = one.run(&["plan", "job.toml", "--exit-code"]);
    assert_eq!(plan.code, Some(10), "{plan:?}");
    let refused = "! its list would be refused: it would drop 4 of 6 partitions";
    assert!(plan.out.contains(refused), "{plan:?}");
    assert!(!plan.out.contains("stop"), "{plan:?}");

    // What the message says is what helps.
    let open = JOB.replace("\" }", "\", shrink_guard = \"67%\" }");
    std::fs::write(one.dir().join("job.toml"), open).expect("written");
    one.ok(&["apply", "job.toml", "--wait", "30s"]);
    eventually("the short list is taken", || {
        let progress = one.ok(&["wait", "--settled", "--timeout", "30s"]);
        progress.starts_with("2 of 2 run").then_some(())
    });
}

#[test]
fn an_apply_that_waits_for_a_list_in_a_folder_nobody_may_read_ends_with_the_reason() {
    let one = One::start("[service.s]\ncommand = [\"/bin/sleep\", \"1000\"]\n");
    let other = tempfile::tempdir().expect("a folder");
    std::fs::write(other.path().join("feeds.jsonl"), list(3)).expect("written");
    let job = other.path().join("job.toml");
    std::fs::write(&job, JOB).expect("written");
    let applied = one.run(&["apply", job.to_str().expect("text"), "--wait", "30s"]);
    assert_eq!(applied.code, Some(8), "{applied:?}");
    tells(
        &applied,
        &[
            "the list of service feeds is refused",
            "outside the folders",
        ],
    );
}
