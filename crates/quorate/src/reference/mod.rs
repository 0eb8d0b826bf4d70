//! The reference of the service file: what every key means, for `quorate explain` and for the document
//! that is made from the same words.
//!
//! **Never** what decides: the parser and the validator do, and a test holds this against them.

mod keys;
mod schema;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use serde::Serialize;

pub(crate) use schema::{document as schema_document, schema};

/// One table of a service.
struct Section {
    /// Its name below `service.NAME`; empty for the service itself.
    table: &'static str,
    /// What it is for.
    meaning: &'static str,
    keys: &'static [Key],
}

/// One key.
struct Key {
    name: &'static str,
    /// What is written there.
    kind: &'static str,
    /// As TOML; `none` when absent means nothing, `required` when it must be there.
    default: &'static str,
    /// What is taken; may be empty.
    limits: &'static str,
    meaning: &'static str,
    /// A value as TOML.
    example: &'static str,
    /// Values just beyond the limits.
    #[cfg_attr(not(test), expect(dead_code, reason = "tried by a test"))]
    refused: &'static [&'static str],
}

/// What `explain` says of one key.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    /// Below `service.NAME`: `restart.backoff`.
    pub(crate) key: String,
    #[serde(rename = "type")]
    kind: &'static str,
    default: &'static str,
    limits: &'static str,
    meaning: &'static str,
    example: String,
}

impl Entry {
    fn of(section: &Section, key: &Key) -> Self {
        Self {
            key: path(section, key),
            kind: key.kind,
            default: key.default,
            limits: key.limits,
            meaning: key.meaning,
            example: line(section, key),
        }
    }

    /// For people. Writing to a string cannot fail.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{} (key of a service)\n  {}\n", self.key, self.meaning);
        let lines = [
            ("type", self.kind),
            ("default", self.default),
            ("limits", self.limits),
            ("example", &self.example),
        ];
        for (name, value) in lines {
            if !value.is_empty() {
                let _ = writeln!(text, "  {name:<8} {}", value.replace('`', ""));
            }
        }
        text
    }
}

/// All keys in the order of the document.
pub(crate) fn entries() -> impl Iterator<Item = Entry> {
    let pairs = |section: &'static Section| section.keys.iter().map(move |key| (section, key));
    keys::SECTIONS
        .iter()
        .flat_map(pairs)
        .map(|(section, key)| Entry::of(section, key))
}

/// The key with this name: `restart.backoff`, `service.NAME.restart.backoff`; all keys of a table
/// (`restart`); or those with this last part, which several tables may have.
pub(crate) fn named(name: &str) -> Vec<Entry> {
    let whole = name
        .strip_prefix("service.")
        .and_then(|rest| rest.split_once('.'))
        .map_or(name, |(_, key)| key);
    let exact: Vec<Entry> = entries().filter(|entry| entry.key == whole).collect();
    if !exact.is_empty() {
        return exact;
    }
    let inside = |entry: &Entry| {
        let rest = entry.key.strip_prefix(whole);
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    let table: Vec<Entry> = entries().filter(inside).collect();
    if !table.is_empty() {
        return table;
    }
    let last = |entry: &Entry| entry.key.rsplit('.').next() == Some(whole);
    entries().filter(last).collect()
}

fn path(section: &Section, key: &Key) -> String {
    if section.table.is_empty() {
        key.name.to_owned()
    } else {
        format!("{}.{}", section.table, key.name)
    }
}

/// The example as it stands in the table `[service.NAME]`.
fn line(section: &Section, key: &Key) -> String {
    format!("{} = {}", path(section, key), key.example)
}

/// Before the tables.
const HEAD: &str = r#"# The service file

<!-- Made by `quorate explain service-file`, from crates/quorate/src/reference; a test keeps it true. -->

One TOML file, or JSON of the same shape, describes any number of services. `quorate validate FILE` checks
it without a cluster, `quorate explain KEY` shows an entry of this page (`quorate explain restart.backoff`),
and a key that is not on this page is an error with a suggestion, never ignored. `quorate explain schema` prints a
[JSON Schema](service-file.schema.json) of it, for editors that complete and check while you write.

```toml
[service.feeds]
command = ["./stream", "--feed", "{{key}}", "--url", "{{data.url}}"]
lease   = "3s"
ready   = { notify = true }

[service.feeds.partitions]
file = "feeds.jsonl"
key  = "feed_id"
```

| written | is |
| --- | --- |
| time | text with units, largest first: `"500ms"`, `"10s"`, `"1m30s"`, `"2h"`, `"2d"`; at most 100 years |
| size | text: `"4096"`, `"64K"`, `"50M"`, `"2G"`; powers of 1024 |
| `${NAME}` | the environment variable NAME where the command line runs; undefined is an error; `$${` stands for `${` |
| `{{key}}` `{{data}}` `{{data.FIELD}}` `{{token}}` `{{agent}}` | of the partition when it starts, in `command`, `env` and `working_dir`; `{{{{` stands for `{{` |

A run finds in its environment:

| variable | meaning |
| --- | --- |
| `QUORATE_SERVICE`, `QUORATE_KEY` | what it is |
| `QUORATE_DATA` | its record as JSON; with `on_change = "signal"` also the newest one in the file `QUORATE_DATA_FILE` |
| `QUORATE_TOKEN` | its [fencing](fencing.md) token, higher than that of every owner before |
| `QUORATE_CLUSTER` | the cluster that gave the token: tokens of two clusters compare with nothing |
| `QUORATE_TOKEN_FILE` | file with both, for a program whose environment is not passed on |
| `QUORATE_AGENT` | the agent that holds it |
| `QUORATE_RUN`, `QUORATE_ATTEMPT` | token and attempt as `17.2`; the how-manieth start under this token |
| `QUORATE_LEASE_FILE` | file with the moment by which it must be dead unless the lease is renewed: see [fencing](fencing.md) |
| `QUORATE_SOCKET` | its own socket with the [local API](checkpoints.md#the-local-api) |
| `QUORATE_CHECKPOINT_FILE` | file with the last [checkpoint](checkpoints.md) of its partition; not there when there is none |
| `NOTIFY_SOCKET` | with `ready.notify`: takes `READY=1` |
"#;

/// After the tables.
const TAIL: &str = r#"
## Lists in a file

What `partitions.file` names is a list of records, each of which is one partition. Its format is told by the end
of its name, and the same list is written so in each of the four. The fields are yours; `key`, `weight`, `labels`
and `priority` say which of them mean something here.

`feeds.jsonl`, one object a line:

```jsonl
{"feed_id": "acme-eu", "url": "wss://eu.acme.example/feed", "weight": 12}
{"feed_id": "globex", "url": "wss://globex.example/v2", "weight": 3}
```

`feeds.json`, one list of objects:

```json
[
  {"feed_id": "acme-eu", "url": "wss://eu.acme.example/feed", "weight": 12},
  {"feed_id": "globex", "url": "wss://globex.example/v2", "weight": 3}
]
```

`feeds.csv`, whose first line names the fields (RFC 4180: commas, and quotes around what holds one). Every value is
text in the data of a partition; `weight` and `priority` are read as numbers:

```csv
feed_id,url,weight
acme-eu,wss://eu.acme.example/feed,12
globex,wss://globex.example/v2,3
```

`feeds.toml`, a table `[[partition]]` for each. Dates become text:

```toml
[[partition]]
feed_id = "acme-eu"
url     = "wss://eu.acme.example/feed"
weight  = 12

[[partition]]
feed_id = "globex"
url     = "wss://globex.example/v2"
weight  = 3
```

A list is taken whole or not at all. A line that is wrong, a key that comes twice, a file that is cut, gone or
closed: the list is refused, everything keeps running as it was, and `quorate status`, `quorate ls services
--problems` and the events say why, as does `apply`; whoever waits for it to settle ends with exit code 8. An empty
list is written as an empty `.jsonl` or `.toml` file, as `[]`, or as the first line alone.

So is a list that has lost more than `shrink_guard`, because it is more likely cut than meant. One partition may always
go, also out of two; the last one, and all at once, only with `shrink_guard = "100%"`. With the usual 20%, of up to 9
partitions one may go at a time, of 10 to 14 two. If more is meant, apply the service with the share that the message
names, wait for the list (`--wait`), and apply it with the old share again.
"#;

/// The whole document, as it stands in `docs/service-file.md`. Writing to a string cannot fail.
pub(crate) fn document() -> String {
    let mut text = HEAD.to_owned();
    for section in keys::SECTIONS {
        let name = match section.table {
            "" => "service.NAME".to_owned(),
            table => format!("service.NAME.{table}"),
        };
        let _ = writeln!(text, "\n## [{name}]\n\n{}\n", section.meaning);
        text.push_str("| key | type | default | meaning | limits | example |\n");
        text.push_str("| --- | --- | --- | --- | --- | --- |\n");
        for key in section.keys {
            let default = match key.default {
                plain @ ("none" | "required") => plain.to_owned(),
                value => format!("`{value}`"),
            };
            let _ = writeln!(
                text,
                "| `{}` | {} | {default} | {} | {} | `{}` |",
                key.name, key.kind, key.meaning, key.limits, key.example
            );
        }
    }
    text.push_str(TAIL);
    text
}
