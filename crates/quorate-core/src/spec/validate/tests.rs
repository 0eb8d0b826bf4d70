//! A table of bad files with the message that a person sees.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A service that is right, with one field replaced.
fn file_with(field: &str, value: Value) -> File {
    let mut service = json!({ "command": ["/bin/stream", "{{key}}"] });
    let mut at = &mut service;
    for step in field.split('.') {
        at = &mut at[step];
    }
    *at = value;
    serde_json::from_value(json!({ "service": { "feeds": service } })).unwrap()
}

fn told(field: &str, value: Value) -> Vec<String> {
    validate(&file_with(field, value))
        .iter()
        .map(Problem::to_string)
        .collect()
}

#[test]
fn every_bad_value_is_told_with_its_place_and_its_next_step() {
    let feed = |extra: Value| {
        let mut source = json!({ "file": "/etc/feeds.jsonl" });
        for (name, value) in extra.as_object().unwrap() {
            source[name] = value.clone();
        }
        source
    };
    let table: Vec<(&str, Value, &str)> = vec![
        (
            "command",
            json!([]),
            "command: there is no command; write the program",
        ),
        (
            "command",
            json!([""]),
            "command[0]: the program has no name; write its absolute path",
        ),
        (
            "command",
            json!(["  "]),
            "command[0]: the program has no name",
        ),
        (
            "command",
            json!(["bin/x"]),
            "command[0]: \"bin/x\" depends on the folder it is started in; write the absolute path",
        ),
        ("command", json!(["./x"]), "command[0]: \"./x\" depends on"),
        (
            "command",
            json!(["sleep 10; rm -rf $(x)"]),
            "command[0]: \"sleep 10; rm -rf $(x)\" is one name, and no shell splits it; write each argument",
        ),
        (
            "command",
            json!(["/bin/a\u{0}b"]),
            "command[0]: it holds a NUL character, which no argument or variable can have; remove it",
        ),
        (
            "command",
            json!(["a", "{{foo}}"]),
            "command[1]: {{foo}} is not known; there are key, data, data.FIELD, token and agent; did you mean {{data.foo}}?",
        ),
        (
            "command",
            json!(["a", "{{tokn}}"]),
            "did you mean {{token}}?",
        ),
        (
            "command",
            json!(["a", "{{key"]),
            "command[1]: \"{{\" at byte 0 is never closed; write \"}}\"",
        ),
        (
            "command",
            json!(["a", "{{data.url}}"]),
            "command[1]: {{data.url}} has no value: only partitions from a file have data; use {{key}}, or name a file",
        ),
        (
            "command",
            json!(["a", "x".repeat(2 << 20)]),
            "command[1]: it has 2097152 bytes, and Linux takes at most 131071; put it into a file",
        ),
        (
            "command",
            json!(["a", "x".repeat(70_000), "x".repeat(70_000)]),
            "command: command and env have 140004 bytes together, and at most 131072 are taken",
        ),
        (
            "working_dir",
            json!("data"),
            "working_dir: \"data\" is not an absolute path; write it from the root on",
        ),
        (
            "user",
            json!(""),
            "user: \"\" is not a user; write a name such as feeds",
        ),
        ("user", json!("-1"), "user: \"-1\" is not a user"),
        (
            "user",
            json!("4294967295"),
            "user: \"4294967295\" is not a user",
        ),
        ("user", json!("a b"), "user: \"a b\" is not a user"),
        ("user", json!("feeds:"), "user: \"feeds:\" is not a user"),
        (
            "env",
            json!({ "": "x" }),
            "env: a variable has no name; name it or remove it",
        ),
        (
            "env",
            json!({ "A=B": "x" }),
            "env.A=B: a variable's name cannot hold \"=\" or NUL; write the name alone",
        ),
        (
            "env",
            json!({ "A\u{0}": "x" }),
            "a variable's name cannot hold",
        ),
        (
            "env",
            json!({ "A": "x\u{0}" }),
            "env.A: it holds a NUL character",
        ),
        (
            "env",
            json!({ "QUORATE_KEY": "x" }),
            "env.QUORATE_KEY: this variable is reserved for quorate; choose another name",
        ),
        (
            "env",
            json!({ "NOTIFY_SOCKET": "x" }),
            "env.NOTIFY_SOCKET: this variable is reserved for quorate",
        ),
        (
            "env",
            json!({ "A": "{{nothing}}" }),
            "env.A: {{nothing}} is not known",
        ),
        (
            "limits.files",
            json!(3),
            "limits.files: a program cannot run with 3 open files; write at least 16",
        ),
        (
            "logs.max_size",
            json!("0"),
            "logs.max_size: 0 is too little for a log file; write at least 4K",
        ),
        (
            "logs.keep",
            json!(100_000),
            "logs.keep: 100000 rotated files are too many",
        ),
        (
            "stop.signal",
            json!("term"),
            "stop.signal: \"term\" is no signal; did you mean TERM?",
        ),
        (
            "stop.signal",
            json!("15"),
            "stop.signal: \"15\" is no signal; did you mean TERM?",
        ),
        (
            "stop.signal",
            json!("PLEASE"),
            "stop.signal: \"PLEASE\" is no signal; write a name such as TERM",
        ),
        (
            "stop.signal",
            json!("STOP"),
            "stop.signal: STOP freezes a program and never ends it; write a signal",
        ),
        (
            "ready",
            json!({ "notify": true, "timeout": "0s" }),
            "ready.timeout: no run can be ready within 0s; write how long",
        ),
        (
            "ready",
            json!({ "notify": true, "after": "2s" }),
            "ready.after: with notify = true a run is ready when it says so, and not after a time; leave one",
        ),
        (
            "restart.backoff",
            json!("1m..1s"),
            "restart.backoff: \"1m..1s\" is not a back-off; write the shortest and the longest wait, such as 1s..1m",
        ),
        (
            "restart.backoff",
            json!("0s..1s"),
            "restart.backoff: \"0s..1s\" is not a back-off",
        ),
        (
            "restart.reset_after",
            json!("0s"),
            "restart.reset_after: with 0s every start counts as a success",
        ),
        (
            "restart.on",
            json!({ "interrupted_codes": [0] }),
            "restart.on.interrupted_codes: exit code 0 is a clean exit; remove the 0",
        ),
        (
            "restart",
            json!({ "move_after": 9, "give_up_after": 3 }),
            "restart.move_after: it would be given up after 3 failures and so never move after 9; write at most 3",
        ),
        (
            "lease",
            json!("0s"),
            "lease: 0s is too short: a mere change of leader would stop the work; write 3s or more",
        ),
        (
            "lease",
            json!("2s900ms"),
            "lease: 2s900ms is too short: a mere change of leader would stop the work; write 3s or more",
        ),
        (
            "partitions",
            json!({}),
            "partitions: no source of partitions is named; write one of list, range and file",
        ),
        (
            "partitions",
            json!({ "list": ["a"], "range": "0..2" }),
            "partitions: it has list and range; keep one of them",
        ),
        (
            "partitions",
            json!({ "list": [] }),
            "partitions: it has no partition at all; name at least one key",
        ),
        (
            "partitions",
            json!({ "range": "3..3" }),
            "partitions: it has no partition at all",
        ),
        (
            "partitions",
            json!({ "list": ["a", "b", "a"] }),
            "partitions.list[2]: the key \"a\" is already at service.feeds.partitions.list[0]; a key names one partition",
        ),
        (
            "partitions",
            json!({ "list": ["a", ".."] }),
            "partitions.list[1]: a partition key has visible characters",
        ),
        (
            "partitions",
            json!({ "list": [""] }),
            "partitions.list[0]: a partition key cannot be empty",
        ),
        (
            "partitions",
            json!({ "list": ["a"], "weight": "w" }),
            "partitions.weight: it names a field of the records of a file",
        ),
        (
            "partitions",
            json!({ "range": "5..2" }),
            "partitions.range: \"5..2\" ends before it begins; write \"2..5\"",
        ),
        (
            "partitions",
            json!({ "range": "-1..2" }),
            "partitions.range: \"-1..2\" is not a range; write the first number and the one after the last",
        ),
        ("partitions", json!({ "range": "16" }), "is not a range"),
        (
            "partitions",
            json!({ "range": "0..${N}" }),
            "is not a range",
        ),
        (
            "partitions",
            json!({ "range": "0..99999999999999999999999" }),
            "is not a range",
        ),
        (
            "partitions",
            json!({ "range": "0..10000000" }),
            "partitions.range: 10000000 partitions are more than the 1000000 that a service may have; spread them",
        ),
        (
            "partitions",
            feed(json!({ "file": "feeds.jsonl" })),
            "partitions.file: \"feeds.jsonl\" is not an absolute path; write it from the root on",
        ),
        (
            "partitions",
            feed(json!({ "file": "/etc/feeds.xml" })),
            "partitions.file: \"/etc/feeds.xml\" does not tell its format; let its name end in .jsonl, .json, .csv or .toml",
        ),
        (
            "partitions",
            feed(json!({ "file": "" })),
            "partitions.file: it is not the path of a file",
        ),
        (
            "partitions",
            feed(json!({ "shrink_guard": "20" })),
            "partitions.shrink_guard: \"20\" is not a share; write whole percent from 0% to 100%, such as 20%",
        ),
        (
            "partitions",
            feed(json!({ "every": "0s" })),
            "partitions.every: 0s is too often; write 100ms or more",
        ),
        (
            "partitions",
            feed(json!({ "key": "" })),
            "partitions.key: a field has no name",
        ),
        (
            "placement.require",
            json!(["zone in"]),
            "placement.require[0]: \"zone in\" is not a rule; write zone in (a, b)",
        ),
        (
            "placement.require",
            json!(["gpu", "containment = strong"]),
            "placement.require[1]: containment \"strong\" does not exist; its values are kernel",
        ),
        (
            "placement.spread",
            json!(["customer"]),
            "placement.spread[0]: partitions of a list or range have no labels to spread by",
        ),
        (
            "ramp.per_agent",
            json!(0),
            "ramp.per_agent: with 0 nothing would ever start; write 1 or more",
        ),
        (
            "ramp.cluster",
            json!(0),
            "ramp.cluster: with 0 nothing would ever start",
        ),
        (
            "ramp.expect_agents",
            json!(0),
            "ramp.expect_agents: 0 agents are no agents",
        ),
        (
            "ramp.rate",
            json!("20"),
            "ramp.rate: \"20\" is not a rate; write a whole number per second",
        ),
    ];
    for (field, value, expected) in table {
        let shown = value.to_string();
        let shown: String = shown.chars().take(80).collect();
        let told = told(field, value);
        assert!(
            told.iter()
                .any(|told| told.starts_with("service.feeds.") && told.contains(expected)),
            "{field} = {shown}\n expected {expected}\n told {told:#?}"
        );
        for problem in &told {
            assert!(
                problem.contains("; ") || problem.contains("partition key"),
                "no next step: {problem}"
            );
        }
    }
}

#[test]
fn what_is_right_passes() {
    for (field, value) in [
        (
            "command",
            json!(["python3", "{{key}}", "{{token}}@{{agent}}"]),
        ),
        (
            "command",
            json!(["/bin/sh", "-c", "exec $(which x); 'quoted' \"{{key}}\""]),
        ),
        ("command", json!(["/opt/{{key}}/run"])),
        (
            "env",
            json!({ "LD_PRELOAD": "/lib/x.so", "EMPTY": "", "PATH": "/bin" }),
        ),
        ("user", json!("feeds")),
        ("user", json!("root")),
        ("user", json!("1000:1000")),
        ("user", json!("_www-data.x")),
        ("stop.timeout", json!("0s")),
        ("stop.signal", json!("SIGRTMIN+3")),
        ("lease", json!("3s")),
        ("lease", json!("6h")),
        (
            "restart",
            json!({ "move_after": 0, "give_up_after": 3, "backoff": "100ms" }),
        ),
        ("restart", json!({ "give_up_after": 3 })),
        ("partitions", json!({ "list": ["größe", "Kunde 7", "😀"] })),
        ("partitions", json!({ "range": "0..1000000" })),
        (
            "partitions",
            json!({ "file": "/etc/feeds.csv", "key": "id", "labels": ["customer"] }),
        ),
        (
            "placement.require",
            json!(["zone in (a, b)", "!gpu", "containment = kernel"]),
        ),
        (
            "ramp",
            json!({ "per_agent": 1, "cluster": 1, "rate": "20/s", "settle": "0s", "expect_agents": 1 }),
        ),
    ] {
        let shown = value.to_string();
        assert_eq!(
            told(field, value),
            Vec::<String>::new(),
            "{field} = {shown}"
        );
    }
}

#[test]
fn where_nobody_says_when_to_move_giving_up_comes_first() {
    let after = |restart: Value| {
        let file = file_with("restart", restart);
        assert_eq!(validate(&file), []);
        let restart = &file.service.values().next().unwrap().restart;
        // As the ledger and the API have it: nothing depends on who reads it.
        let again = serde_json::to_value(restart).unwrap();
        assert_eq!(serde_json::from_value::<Restart>(again).unwrap(), *restart);
        (restart.move_after, restart.give_up_after)
    };
    assert_eq!(after(json!({})), (5, 0));
    assert_eq!(after(json!({ "give_up_after": 3 })), (3, 3));
    assert_eq!(after(json!({ "give_up_after": 50 })), (5, 50));
    assert_eq!(
        after(json!({ "give_up_after": 3, "move_after": 0 })),
        (0, 3)
    );
    assert_eq!(
        after(json!({ "give_up_after": 9, "move_after": 7 })),
        (7, 9)
    );
}

#[test]
fn data_and_spread_need_a_file_with_those_fields() {
    let file = |labels: Value| -> File {
        serde_json::from_value(json!({ "service": { "feeds": {
            "command": ["/bin/x", "{{data.url}}"],
            "partitions": { "file": "/etc/x.json", "labels": labels },
            "placement": { "spread": ["customer"] },
        }}}))
        .unwrap()
    };
    assert_eq!(validate(&file(json!(["customer"]))), []);
    let problems = validate(&file(json!([])));
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].to_string(),
        "service.feeds.placement.spread[0]: no partition has the label \"customer\"; add \"customer\" to partitions.labels"
    );
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_services_and_fields() {
    let file: File = serde_json::from_value(json!({ "service": {
        "b": { "command": [], "lease": "1s" },
        "a": { "command": ["x"], "stop": { "signal": "NO" } },
    }}))
    .unwrap();
    let paths: Vec<String> = validate(&file)
        .into_iter()
        .map(|problem| problem.path)
        .collect();
    assert_eq!(
        paths,
        [
            "service.a.stop.signal",
            "service.b.command",
            "service.b.lease"
        ]
    );
}

#[test]
fn a_file_without_services_or_with_too_many_leases_is_told() {
    let empty = validate(&File::default());
    assert_eq!(
        empty[0].to_string(),
        "service: the file has no service; write a table such as [service.feeds] with a command"
    );
    let services: serde_json::Map<String, Value> = (1..=5)
        .map(|n| {
            (
                format!("s{n}"),
                json!({ "command": ["x"], "lease": format!("{n}0s") }),
            )
        })
        .collect();
    let file: File = serde_json::from_value(json!({ "service": services })).unwrap();
    let problems = validate(&file);
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0]
            .message
            .contains("5 different leases: 10s, 20s, 30s, 40s, 50s")
    );
}

#[test]
fn a_service_larger_than_an_entry_of_the_ledger_is_told() {
    let keys: Vec<String> = (0..100_000).map(|n| format!("key-{n}")).collect();
    let told = told("partitions", json!({ "list": keys }));
    assert_eq!(told.len(), 1);
    assert!(
        told[0].contains("and at most 258048 are kept; put a long list of partitions into a file"),
        "{told:?}"
    );
}

#[test]
fn the_shortest_lease_is_really_the_shortest() {
    let shortest = shortest_lease(TAKEOVER_MAX).0;
    assert!(LeaseTimes::of(shortest).survives(TAKEOVER_MAX));
    assert!(!LeaseTimes::of(shortest - Duration::from_millis(100)).survives(TAKEOVER_MAX));
}

/// JSON of the kinds that a file may hold, mostly under names that it knows.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "0..16",
            "1s..1m",
            "20%",
            "10s",
            "{{data.a}}",
            "TERM",
            "/a.csv",
            "zone in (a)"
        ])
        .prop_map(Value::from),
    ];
    let name = prop_oneof![
        prop::sample::select(vec![
            "service",
            "feeds",
            "command",
            "env",
            "partitions",
            "list",
            "range",
            "file",
            "placement",
            "require",
            "spread",
            "ramp",
            "rate",
            "lease",
            "stop",
            "signal",
            "restart",
            "backoff",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,6}",
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_file_makes_it_panic_and_what_passes_expands(value in any_json(), field in prop::sample::select(vec![
        "command", "env", "partitions", "placement", "ramp", "restart", "lease", "user", "stop", "working_dir",
    ])) {
        let mut service = json!({ "command": ["x"] });
        service[field] = value.clone();
        for file in [value, json!({ "service": { "feeds": service } })] {
            let Ok(file) = serde_json::from_value::<File>(file) else { continue };
            let problems = validate(&file);
            for (name, spec) in &file.service {
                let expanded = crate::spec::expand::partitions(name, spec);
                prop_assert!(!problems.is_empty() || expanded.is_ok());
            }
            let text = serde_json::to_string(&file).unwrap();
            prop_assert_eq!(serde_json::from_str::<File>(&text).unwrap(), file);
        }
    }
}
