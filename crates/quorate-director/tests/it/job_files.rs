//! Job files as text: whatever somebody writes, the answer is a file or a reason, never a panic.

use proptest::prelude::*;
use quorate_core::spec::{self, File};

/// A right file, to be bent.
const RIGHT: &str = r#"
[service.feeds]
command = ["/opt/feeds/stream", "--feed", "{{key}}", "--url", "{{data.url}}"]
env     = { RUST_LOG = "info" }
limits  = { files = 4096 }
logs    = { max_size = "50M", keep = 3 }
stop    = { signal = "TERM", timeout = "20s" }
restart = { backoff = "1s..1m", move_after = 5, give_up_after = 50 }
ready   = { notify = true, timeout = "30s" }
lease   = "10s"
on_change = "restart"

[service.feeds.partitions]
file   = "/etc/feeds.jsonl"
key    = "feed_id"
weight = "msgs_per_second"
labels = ["customer"]
shrink_guard = "20%"

[service.feeds.placement]
require = ["zone in (eu-1a, eu-1b)", "containment = kernel"]
spread  = ["customer"]

[service.feeds.ramp]
rate    = "20/s"
"#;

fn check(text: &str) {
    for file in [
        toml::from_str::<File>(text).ok(),
        serde_json::from_str::<File>(text).ok(),
    ]
    .into_iter()
    .flatten()
    {
        for problem in spec::validate(&file) {
            assert!(!problem.message.is_empty() && problem.path.starts_with("service"));
        }
    }
}

#[test]
fn the_file_to_be_bent_is_right() {
    let file: File = toml::from_str(RIGHT).unwrap();
    assert_eq!(spec::validate(&file), []);
}

#[test]
fn values_of_the_wrong_kind_and_unknown_names_are_refused() {
    for (text, expected) in [
        ("service = []", "expected a table"),
        ("service = 1", "expected a table"),
        (
            "services = {}",
            "unknown field `services`, expected `service`",
        ),
        ("[service.a]\ncomand = ['x']", "unknown field `comand`"),
        ("[service.a]\ncommand = 'x'", "expected a sequence"),
        ("[service.a]\nlease = '10s'", "missing field `command`"),
        (
            "[service.a]\ncommand = ['x']\nlease = 10",
            "expected a string",
        ),
        (
            "[service.a]\ncommand = ['x']\nlease = '10'",
            "\"10\" is not a span of time; write 500ms",
        ),
        (
            "[service.a]\ncommand = ['x']\nlease = '-5s'",
            "is not a span of time",
        ),
        (
            "[service.a]\ncommand = ['x']\nlease = '1y'",
            "is not a span of time",
        ),
        (
            "[service.a]\ncommand = ['x']\nlease = '5m30'",
            "is not a span of time",
        ),
        (
            "[service.a]\ncommand = ['x']\nramp = { per_agent = -1 }",
            "invalid value: integer `-1`",
        ),
        (
            "[service.a]\ncommand = ['x']\nramp = { per_agent = 9007199254740993 }",
            "invalid value",
        ),
        (
            "[service.a]\ncommand = ['x']\nramp = { per_agent = nan }",
            "invalid type: floating point",
        ),
        (
            "[service.a]\ncommand = ['x']\nramp = { per_agent = '10' }",
            "invalid type: string \"10\"",
        ),
        (
            "[service.a]\ncommand = ['x']\nlogs = { max_size = '20T' }",
            "is not a number of bytes; write 4096",
        ),
        (
            "[service.a]\ncommand = ['x']\non_change = 'maybe'",
            "unknown variant `maybe`, expected one of",
        ),
        (
            "[service.a]\ncommand = ['x']\n[service.a]\ncommand = ['y']",
            "duplicate key",
        ),
        (
            "[service.'-a']\ncommand = ['x']",
            "a service name has letters",
        ),
        (
            "[service.'']\ncommand = ['x']",
            "a service name cannot be empty",
        ),
        (
            "[service.'..']\ncommand = ['x']",
            "a service name has letters",
        ),
        (
            "[service.\"a\\u202eb\"]\ncommand = ['x']",
            "a service name has letters",
        ),
        (
            "[service.'%2e%2e']\ncommand = ['x']",
            "a service name has letters",
        ),
    ] {
        let told = toml::from_str::<File>(text).unwrap_err().to_string();
        assert!(
            told.contains(expected),
            "{text}\nexpected {expected}\ntold {told}"
        );
    }
    for text in [
        "",
        "null",
        "[]",
        "{\"service\":null}",
        "{\"service\":[]}",
        "1",
        "\"\"",
    ] {
        assert!(serde_json::from_str::<File>(text).is_err(), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        check(&text);
    }

    #[test]
    fn no_slip_in_a_right_file_makes_it_panic(
        at in 0..RIGHT.len(), length in 0usize..12, instead in "[\\[\\]{}=\"',.0-9a-z%\n /$-]{0,8}",
    ) {
        let end = (at + length).min(RIGHT.len());
        let (before, after) = (RIGHT.get(..at).unwrap(), RIGHT.get(end..).unwrap());
        check(&format!("{before}{instead}{after}"));
    }
}
