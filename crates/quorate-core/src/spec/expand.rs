//! The partitions that a specification itself names: a list, a range, or none of them.

use std::collections::BTreeMap;

use super::validate::Problem;
use super::{PartitionSource, PartitionSpec, ServiceSpec};
use crate::ids::{NameError, PartitionKey, ServiceName};

/// Most partitions of one service.
pub const PARTITIONS_MAX: usize = 1_000_000;

/// So many things that are wrong with one list are told at once.
const LIST_PROBLEMS_MAX: usize = 20;

/// The partitions of a service whose specification names them; `None` when a file does.
///
/// # Errors
/// With the first thing that is wrong with the list or the range.
pub fn partitions(
    name: &ServiceName,
    spec: &ServiceSpec,
) -> Result<Option<Vec<PartitionSpec>>, Problem> {
    let path = format!("service.{name}.partitions");
    let keys = match &spec.partitions {
        None => vec![key(&path, name.as_str())?],
        Some(PartitionSource {
            list: Some(list), ..
        }) => list_keys(&format!("{path}.list"), list)?,
        Some(PartitionSource {
            range: Some(range), ..
        }) => range_keys(&format!("{path}.range"), range)?,
        Some(PartitionSource { file: Some(_), .. }) => return Ok(None),
        Some(_) => return Err(no_source(path)),
    };
    Ok(Some(keys.into_iter().map(plain).collect()))
}

/// A partition of which only the key is known.
fn plain(key: PartitionKey) -> PartitionSpec {
    PartitionSpec {
        key,
        data: None,
        weight: 1,
        labels: BTreeMap::new(),
        priority: 0,
    }
}

pub(super) fn no_source(path: String) -> Problem {
    Problem::new(path, "no source of partitions is named")
        .hint("write one of list, range and file, or leave the table out for a single partition")
}

fn key(path: &str, text: &str) -> Result<PartitionKey, Problem> {
    PartitionKey::new(text).map_err(|error| bad_key(path.to_owned(), &error))
}

fn bad_key(path: String, error: &NameError) -> Problem {
    Problem::new(path, error.to_string()).hint("write another key, such as \"eu-1\"")
}

pub(super) fn too_many(path: &str, count: u64) -> Problem {
    Problem::new(
        path,
        format!("{count} partitions are more than the {PARTITIONS_MAX} that a service may have"),
    )
    .hint("spread them over several services")
}

fn list_keys(path: &str, list: &[String]) -> Result<Vec<PartitionKey>, Problem> {
    let (keys, problems) = read_list(path, list, 1);
    problems.into_iter().next().map_or(Ok(keys), Err)
}

/// What is wrong with a list: the first so many, each with its place.
pub(super) fn list_problems(path: &str, list: &[String]) -> Vec<Problem> {
    read_list(path, list, LIST_PROBLEMS_MAX).1
}

fn read_list(path: &str, list: &[String], most: usize) -> (Vec<PartitionKey>, Vec<Problem>) {
    let mut problems = Vec::new();
    if list.len() > PARTITIONS_MAX {
        problems.push(too_many(path, list.len() as u64));
        return (Vec::new(), problems);
    }
    let mut seen = BTreeMap::new();
    let mut keys = Vec::with_capacity(list.len());
    for (at, text) in list.iter().enumerate() {
        if problems.len() == most {
            break;
        }
        let here = || format!("{path}[{at}]");
        let key = match PartitionKey::new(text) {
            Ok(key) => key,
            Err(error) => {
                problems.push(bad_key(here(), &error));
                continue;
            }
        };
        if let Some(first) = seen.insert(key.clone(), at) {
            let message = format!("the key {text:?} is already at {path}[{first}]");
            let hint = "a key names one partition; remove one of the two";
            problems.push(Problem::new(here(), message).hint(hint));
        }
        keys.push(key);
    }
    (keys, problems)
}

fn range_keys(path: &str, range: &str) -> Result<Vec<PartitionKey>, Problem> {
    let (first, end) = parse_range(path, range)?;
    (first..end).map(|n| key(path, &n.to_string())).collect()
}

/// First number, and the one after the last.
fn parse_range(path: &str, range: &str) -> Result<(u64, u64), Problem> {
    let misread = || {
        Problem::new(path, format!("{range:?} is not a range"))
            .hint("write the first number and the one after the last, such as \"0..16\"")
    };
    let number = |text: &str| -> Result<u64, Problem> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(misread());
        }
        text.parse().map_err(|_| misread())
    };
    let (first, end) = range.trim().split_once("..").ok_or_else(misread)?;
    let (first, end) = (number(first.trim())?, number(end.trim())?);
    if first > end {
        return Err(
            Problem::new(path, format!("{range:?} ends before it begins"))
                .hint(format!("write \"{end}..{first}\"")),
        );
    }
    if end - first > PARTITIONS_MAX as u64 {
        return Err(too_many(path, end - first));
    }
    Ok((first, end))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(source: serde_json::Value) -> Option<Vec<String>> {
        let spec = serde_json::from_value(json!({ "command": ["x"], "partitions": source }));
        let name = ServiceName::new("feeds").unwrap();
        let found = partitions(&name, &spec.unwrap()).unwrap()?;
        Some(found.iter().map(|found| found.key.to_string()).collect())
    }

    #[test]
    fn each_source_names_its_keys_in_order() {
        assert_eq!(keys(json!({ "list": ["b", "a"] })).unwrap(), ["b", "a"]);
        assert_eq!(
            keys(json!({ "range": "9..12" })).unwrap(),
            ["9", "10", "11"]
        );
        assert_eq!(keys(json!({ "range": " 0 .. 1 " })).unwrap(), ["0"]);
        assert_eq!(keys(json!(null)).unwrap(), ["feeds"]);
        assert_eq!(keys(json!({ "file": "/x.csv" })), None);
    }

    #[test]
    fn the_largest_range_is_taken_and_one_more_is_not() {
        assert_eq!(
            keys(json!({ "range": "5..1000005" })).unwrap().len(),
            PARTITIONS_MAX
        );
        assert!(parse_range("p", "5..1000006").is_err());
        assert!(parse_range("p", "0..18446744073709551615").is_err());
    }
}
