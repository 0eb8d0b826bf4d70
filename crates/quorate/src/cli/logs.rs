//! `logs`: what runs have printed.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_api::client::{Client, LogFilter, PartitionFilter};
use quorate_api::resources::PartitionState;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::args::{LogsArgs, Target};
use super::remote::{Remote, failure_of};
use crate::failure::{Code, Exit, Failure};
use crate::output::{Format, Output, Style, report};

/// Logs of more partitions at once would only scroll by; each is a connection.
const PARTITIONS_MAX: usize = 64;
/// Before the log of a run that has moved is asked for at its new agent.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Lines of a new agent's log, which begins with the run that moved there.
const LINES_AFTER_MOVE: u32 = 1000;
/// Pieces that wait to be printed; a slow terminal slows the readers.
const PIECES_MAX: usize = 64;

/// Of several partitions, a line that is longer is shown in pieces.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// How long `status` waits for the last lines: whoever looks at a partition may do so because its agent does not
/// answer.
const LAST_LINES_WITHIN: Duration = Duration::from_secs(2);
/// What `status` keeps of them.
const LAST_LINES_BYTES: usize = 16 * 1024;

/// A piece of one partition's log, or why there is none.
type Piece = (String, Result<Vec<u8>, Failure>);

pub(super) async fn logs(args: &LogsArgs, remote: &Remote) -> Result<Exit, Failure> {
    let service = args.target.service.as_str();
    let keys = keys(&args.target, remote).await?;
    let filter = LogFilter {
        lines: args.lines,
        follow: args.follow,
        previous: args.previous,
        since: args.since.map(|since| since.0),
    };
    let mut printer = Printer::new(service, &keys, remote.output);
    let (sender, mut pieces) = mpsc::channel::<Piece>(PIECES_MAX);
    let mut readers = JoinSet::new();
    for key in keys {
        let client = remote.client.clone();
        let (service, sender) = (service.to_owned(), sender.clone());
        readers.spawn(async move { read(&client, &service, &key, filter, &sender).await });
    }
    drop(sender);
    let mut exit = Exit::Done;
    while let Some((key, piece)) = pieces.recv().await {
        match piece {
            Ok(bytes) => printer.take(&key, &bytes)?,
            Err(failure) => {
                exit = failure.exit();
                report(&failure);
            }
        }
    }
    readers.join_all().await;
    printer.end()?;
    Ok(exit)
}

/// How lines are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// As they were printed.
    Bare,
    /// With the key before each, in a column of this width.
    Keyed(usize),
    /// One JSON object for each.
    Objects,
}

/// One line for a program. When it was printed, and to which of the two outputs, is not kept.
#[derive(Serialize)]
struct Line<'a> {
    service: &'a str,
    key: &'a str,
    line: &'a str,
}

/// Puts the logs of partitions on standard output.
struct Printer<'a> {
    service: &'a str,
    shown: Shown,
    output: Output,
    /// Lines of several partitions must not mix, and pieces end anywhere.
    begun: BTreeMap<String, Vec<u8>>,
}

impl<'a> Printer<'a> {
    fn new(service: &'a str, keys: &[String], output: Output) -> Self {
        let width = keys.iter().map(|key| key.chars().count()).max();
        let shown = if output.is_json() {
            Shown::Objects
        } else if keys.len() > 1 {
            Shown::Keyed(width.unwrap_or_default())
        } else {
            Shown::Bare
        };
        Self {
            service,
            shown,
            output,
            begun: BTreeMap::new(),
        }
    }

    fn take(&mut self, key: &str, bytes: &[u8]) -> Result<(), Failure> {
        if self.shown == Shown::Bare {
            return self.output.bytes(bytes);
        }
        let begun = self.begun.entry(key.to_owned()).or_default();
        begun.extend(bytes);
        let whole = whole_lines(begun);
        self.lines(key, &whole)
    }

    /// Shows what has no line break at its end.
    fn end(mut self) -> Result<(), Failure> {
        for (key, mut line) in std::mem::take(&mut self.begun) {
            if !line.is_empty() {
                line.push(b'\n');
                self.lines(&key, &line)?;
            }
        }
        Ok(())
    }

    fn lines(&self, key: &str, whole: &[u8]) -> Result<(), Failure> {
        for line in whole.split_inclusive(|&byte| byte == b'\n') {
            match self.shown {
                Shown::Bare => self.output.bytes(line)?,
                Shown::Keyed(width) => {
                    let head = format!("{key:<width$} | ");
                    let head = Style::Faint.paint(&head, self.output.color);
                    self.output.text(&head)?;
                    self.output.bytes(line)?;
                }
                Shown::Objects => {
                    let text = String::from_utf8_lossy(line);
                    let line = Line {
                        service: self.service,
                        key,
                        line: text.strip_suffix('\n').unwrap_or(&text),
                    };
                    let format = Some(Format::Ndjson);
                    let output = Output {
                        format,
                        ..self.output
                    };
                    output.one(&line, key, String::new)?;
                }
            }
        }
        Ok(())
    }
}

/// Takes out all whole lines; a line that is too long to wait for its end is cut.
fn whole_lines(begun: &mut Vec<u8>) -> Vec<u8> {
    if begun.len() > LINE_BYTES_MAX && !begun.contains(&b'\n') {
        begun.push(b'\n');
    }
    let end = begun.iter().rposition(|&byte| byte == b'\n');
    let rest = begun.split_off(end.map_or(0, |at| at + 1));
    std::mem::replace(begun, rest)
}

/// The partitions whose logs are wanted.
async fn keys(target: &Target, remote: &Remote) -> Result<Vec<String>, Failure> {
    let service = target.service.as_str();
    if let Some(key) = &target.key {
        return match remote.client.partition(service, key.as_str(), None).await {
            Ok(partition) => Ok(vec![partition.value.key]),
            Err(error) => Err(remote.about(target, error).await),
        };
    }
    if let Err(error) = remote.client.service(service).await {
        return Err(remote.about(target, error).await);
    }
    let filter = PartitionFilter {
        service: Some(service.to_owned()),
        ..PartitionFilter::default()
    };
    let partitions = remote.client.partitions(&filter, None).await;
    let partitions = partitions.map_err(failure_of)?.value;
    if partitions.len() > PARTITIONS_MAX {
        return Err(Failure::new(
            Code::Usage,
            format!(
                "{service} has {} partitions, and logs of at most {PARTITIONS_MAX} are shown at once",
                partitions.len()
            ),
            format!("name one: quorate logs {service}/KEY"),
        ));
    }
    // One that no agent has ever had has printed nothing; one that was given up tells why.
    Ok(partitions
        .into_iter()
        .filter(|partition| partition.token.is_some() || partition.state == PartitionState::Failed)
        .map(|partition| partition.key)
        .collect())
}

/// Passes on one partition's log. With `follow`, goes on at its new agent when it has moved.
async fn read(
    client: &Client,
    service: &str,
    key: &str,
    mut filter: LogFilter,
    sender: &mpsc::Sender<Piece>,
) {
    let mut agent = agent_of(client, service, key).await;
    let mut opened = false;
    loop {
        match client.logs(service, key, filter).await {
            Ok(mut stream) => {
                opened = true;
                while let Some(bytes) = stream.next().await {
                    if sender.send((key.to_owned(), Ok(bytes))).await.is_err() {
                        return;
                    }
                }
            }
            // While it moves nobody has its log; that is no failure once it was shown.
            Err(_) if opened => {}
            Err(error) => {
                let failure = failure_of(error);
                // Whoever prints has ended when nobody takes it.
                let _ = sender.send((key.to_owned(), Err(failure))).await;
                return;
            }
        }
        if !filter.follow {
            return;
        }
        tokio::time::sleep(AGAIN_AFTER).await;
        let now = agent_of(client, service, key).await;
        filter.lines = Some(if now == agent { 0 } else { LINES_AFTER_MOVE });
        filter.since = None;
        agent = now;
    }
}

/// The last lines that a partition has printed; nothing when its log cannot be had soon.
pub(super) async fn last_lines(
    client: &Client,
    service: &str,
    key: &str,
    lines: u32,
) -> Vec<String> {
    let filter = LogFilter {
        lines: Some(lines),
        ..LogFilter::default()
    };
    let read = async {
        let mut stream = client.logs(service, key, filter).await.ok()?;
        let mut kept = Vec::new();
        while let Some(bytes) = stream.next().await {
            kept.extend(bytes);
            let beyond = kept.len().saturating_sub(LAST_LINES_BYTES);
            kept.drain(..beyond);
        }
        Some(kept)
    };
    let read = tokio::time::timeout(LAST_LINES_WITHIN, read).await;
    let kept = read.ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&kept);
    text.lines().map(str::to_owned).collect()
}

async fn agent_of(client: &Client, service: &str, key: &str) -> Option<String> {
    let partition = client.partition(service, key, None).await.ok()?;
    partition.value.agent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_shown_when_they_are_whole() {
        let mut begun = b"one\ntwo\nthr".to_vec();
        assert_eq!(whole_lines(&mut begun), b"one\ntwo\n");
        assert_eq!(whole_lines(&mut begun), b"");
        begun.extend(b"ee\n");
        assert_eq!(whole_lines(&mut begun), b"three\n");
        assert_eq!(begun, b"");
        let mut long = vec![b'x'; LINE_BYTES_MAX + 1];
        assert_eq!(whole_lines(&mut long).len(), LINE_BYTES_MAX + 2);
    }
}
