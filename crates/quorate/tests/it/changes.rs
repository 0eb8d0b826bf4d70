//! What people apply, remove and wait for, with a real cluster.

use serde_json::Value;

use crate::one::One;
use crate::support::eventually;

const JOB: &str = r#"
[service.steady]
command = ["/bin/sleep", "1000"]

[service.gpus]
command = ["/bin/sleep", "1000"]
partitions = { list = ["g1", "g2"] }
placement = { require = ["gpu"] }

[service.slow]
command = ["/bin/sh", "-c", "trap '' TERM; while :; do /bin/sleep 1; done"]
stop = { timeout = "5s" }
"#;

fn state(one: &One, name: &str) -> Option<String> {
    let all: Value =
        serde_json::from_str(&one.ok(&["ls", "services", "-o", "json"])).expect("json");
    let mut all = all.as_array().expect("a list").iter();
    let found = all.find(|service| service["name"] == name)?;
    found["state"].as_str().map(str::to_owned)
}

#[test]
fn what_is_waited_for_applied_again_and_removed_is_told_as_it_is() {
    let one = One::start(JOB);

    // What no agent may hold is named with its reason, and is no reason to wait.
    let settled = one.run(&["wait", "--settled", "--timeout", "60s"]);
    assert_eq!(settled.code, Some(8), "{}", settled.err);
    assert_eq!(settled.out, "2 of 4 run, 2 without a place\n");
    assert!(
        settled.err.contains("gpus/g1 not running") && settled.err.contains("requires: gpu"),
        "{}",
        settled.err
    );
    assert_eq!(
        one.run(&["wait", "--settled", "--service", "steady"]).code,
        Some(0)
    );

    assert_eq!(
        one.ok(&["apply", "job.toml"]),
        "service/gpus unchanged\nservice/slow unchanged\nservice/steady unchanged\n"
    );
    let other = JOB.replace("[\"gpu\"]", "[]");
    std::fs::write(one.dir().join("other.toml"), other).expect("written");
    let applied = one.ok(&["apply", "other.toml", "-o", "json"]);
    let applied: Value = serde_json::from_str(&applied).expect("json");
    let change = |at: usize| applied["changes"][at]["change"].as_str();
    assert_eq!((change(0), change(1)), (Some("changed"), Some("unchanged")));

    // One unknown name, and nothing happens.
    let none = one.run(&["rm", "steady", "stedy", "slow"]);
    assert_eq!(none.code, Some(3), "{}", none.err);
    assert!(
        none.err.contains("nothing was removed") && none.err.contains("did you mean steady"),
        "{}",
        none.err
    );
    assert_eq!(state(&one, "steady").as_deref(), Some("active"));
    assert_eq!(
        one.ok(&["rm", "service/slow", "gpus"]),
        "service/gpus removed; its runs are stopped\nservice/slow removed; its runs are stopped\n"
    );
    assert_eq!(state(&one, "slow").as_deref(), Some("removing"));
    assert!(one.ok(&["status", "slow"]).contains("being removed"));
    assert!(
        one.ok(&["status"])
            .contains("slow: 0 of 0 run, 1 stopping; it is being removed")
    );

    // Applied again meanwhile, it starts behind its old run.
    let back = one.run(&["apply", "job.toml", "--wait", "60s"]);
    assert_eq!(back.code, Some(8), "gpus: {}", back.err);
    assert!(back.out.contains("service/slow created"), "{}", back.out);
    let history = one.ok(&["history", "slow/slow", "-o", "name"]);
    assert!(!history.is_empty());
    one.ok(&["rm", "slow"]);
    eventually("it is gone", || state(&one, "slow").is_none().then_some(()));
}
