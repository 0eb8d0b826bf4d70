//! What is wrong with the source of the partitions.

use std::time::Duration;

use super::{Found, Problem};
use crate::ids::ServiceName;
use crate::spec::rate::Percent;
use crate::spec::{PartitionSource, ServiceSpec, expand};

/// Extensions of a file of partitions, which tell its format.
pub const EXTENSIONS: [&str; 4] = ["jsonl", "json", "csv", "toml"];

/// A file is not read more often than this.
const EVERY_MIN: Duration = Duration::from_millis(100);

pub(super) fn check(found: &mut Found, name: &ServiceName, spec: &ServiceSpec) {
    let Some(source) = &spec.partitions else {
        return;
    };
    let given: Vec<&str> = [
        ("list", source.list.is_some()),
        ("range", source.range.is_some()),
        ("file", source.file.is_some()),
    ]
    .into_iter()
    .filter_map(|(field, given)| given.then_some(field))
    .collect();
    match given.as_slice() {
        [] => {
            let path = format!("{}.partitions", found.at);
            found.problems.push(expand::no_source(path));
        }
        ["file"] => file(found, source),
        [_] => {
            expanded(found, name, spec);
            only_for_a_file(found, source);
        }
        several => found.add(
            "partitions",
            format!("it has {}", several.join(" and ")),
            "keep one of them",
        ),
    }
    if let Err(error) = Percent::parse(&source.shrink_guard) {
        found.add(
            "partitions.shrink_guard",
            format!("{:?} is not a share", error.given),
            format!("write {}", error.example),
        );
    }
    if source.every.0 < EVERY_MIN {
        found.add(
            "partitions.every",
            format!("{} is too often", source.every),
            "write 100ms or more, such as 1s",
        );
    }
}

fn expanded(found: &mut Found, name: &ServiceName, spec: &ServiceSpec) {
    match expand::partitions(name, spec) {
        Ok(Some(keys)) if keys.is_empty() => found.add(
            "partitions",
            "it has no partition at all",
            "name at least one key; `quorate stop` stops a service and keeps it",
        ),
        Ok(_) => {}
        Err(problem) => match spec.partitions.as_ref().and_then(|of| of.list.as_ref()) {
            Some(list) => {
                let path = format!("{}.partitions.list", found.at);
                found.problems.extend(expand::list_problems(&path, list));
            }
            None => found.problems.push(problem),
        },
    }
}

fn only_for_a_file(found: &mut Found, source: &PartitionSource) {
    let fields: [(&str, bool); 4] = [
        ("key", source.key.is_some()),
        ("weight", source.weight.is_some()),
        ("labels", !source.labels.is_empty()),
        ("priority", source.priority.is_some()),
    ];
    for (field, given) in fields {
        if given {
            found.add(
                &format!("partitions.{field}"),
                "it names a field of the records of a file, and a list or range has none",
                "remove it, or name a file",
            );
        }
    }
}

fn file(found: &mut Found, source: &PartitionSource) {
    let path = source.file.as_deref().unwrap_or_default();
    let field = "partitions.file";
    if path.is_empty() || path.contains('\0') {
        found.add(
            field,
            "it is not the path of a file",
            "write a path such as /etc/quorate/feeds.jsonl",
        );
        return;
    }
    if !path.starts_with('/') {
        found.add(
            field,
            format!("{path:?} is not an absolute path"),
            "write it from the root on; only the command line resolves relative paths, against the file's own folder",
        );
    }
    if extension(path).is_none() {
        found.add(
            field,
            format!("{path:?} does not tell its format"),
            "let its name end in .jsonl, .json, .csv or .toml",
        );
    }
    for (what, name) in [
        ("key", source.key.as_deref()),
        ("weight", source.weight.as_deref()),
        ("priority", source.priority.as_deref()),
    ]
    .into_iter()
    .chain(
        source
            .labels
            .iter()
            .map(|label| ("labels", Some(label.as_str()))),
    ) {
        if name == Some("") {
            found.problems.push(
                Problem::new(
                    format!("{}.partitions.{what}", found.at),
                    "a field has no name",
                )
                .hint("name the field of the records, or remove it"),
            );
        }
    }
}

/// The format of a file of partitions, told by its name.
#[must_use]
pub fn extension(path: &str) -> Option<&'static str> {
    let (_, last) = path.rsplit_once('.')?;
    EXTENSIONS.into_iter().find(|known| *known == last)
}
