//! `events`: what has happened, and what happens.

use std::time::Duration;

use quorate_api::client::{Error, EventFilter, Followed};
use quorate_api::resources::Event;

use super::args::{EventsArgs, Since};
use super::remote::{Remote, failure_of};
use crate::failure::{Exit, Failure};
use crate::output::{Format, Output, Style, say};

/// Without `-f`, past events end when none has come for this long: the stream itself never ends.
const SILENCE: Duration = Duration::from_millis(500);
/// `id` before the first event there can be: the director tells all that it has kept.
const BEGINNING: &str = "0.0";

pub(super) async fn events(args: &EventsArgs, remote: &Remote) -> Result<Exit, Failure> {
    let target = args.target.as_ref();
    let filter = EventFilter {
        service: target.map(|target| target.service.to_string()),
        key: target.and_then(|target| target.key.as_ref().map(ToString::to_string)),
        agent: args.agent.as_ref().map(ToString::to_string),
        since: match &args.since {
            Some(Since::Ago(ago)) => Some(ago.to_string()),
            Some(Since::After(_)) | None => None,
        },
    };
    let after = match &args.since {
        Some(Since::After(after)) => Some(after.clone()),
        Some(Since::Ago(_)) | None => None,
    };
    if args.follow {
        exist(args, remote).await?;
        follow(&filter, after, remote).await
    } else {
        let all = args.since.is_none();
        let after = after.or_else(|| all.then(|| BEGINNING.to_owned()));
        let all = past(&filter, after, remote).await?;
        // What was removed may still have events; what has none may never have been.
        if all.is_empty() {
            exist(args, remote).await?;
        }
        show(&all, remote.output)
    }
}

/// Whether what is named is there: a misspelt name would be silent for ever.
async fn exist(args: &EventsArgs, remote: &Remote) -> Result<(), Failure> {
    if let Some(target) = &args.target {
        let service = target.service.as_str();
        let found = match &target.key {
            None => remote.client.service(service).await.map(drop),
            Some(key) => {
                let found = remote.client.partition(service, key.as_str(), None).await;
                found.map(drop)
            }
        };
        if let Err(error) = found {
            return Err(remote.about(target, error).await);
        }
    }
    if let Some(agent) = &args.agent
        && let Err(error) = remote.client.agent(agent.as_str(), None).await
    {
        return Err(remote.about_agent(agent.as_str(), error).await);
    }
    Ok(())
}

async fn follow(
    filter: &EventFilter,
    after: Option<String>,
    remote: &Remote,
) -> Result<Exit, Failure> {
    let mut stream = remote
        .client
        .events(filter, after)
        .await
        .map_err(failure_of)?;
    loop {
        match stream.follow().await.map_err(failure_of)? {
            Followed::Event(event) => print(&event, remote.output)?,
            Followed::Skipped(problem) => say(&format!("skipped: {}", problem.detail)),
        }
    }
}

async fn past(
    filter: &EventFilter,
    after: Option<String>,
    remote: &Remote,
) -> Result<Vec<Event>, Failure> {
    let now = remote
        .client
        .progress(None, None)
        .await
        .map_err(failure_of)?;
    let mut stream = remote
        .client
        .events(filter, after)
        .await
        .map_err(failure_of)?;
    let mut all = Vec::new();
    loop {
        match tokio::time::timeout(SILENCE, stream.next()).await {
            Ok(Ok(event)) => {
                let last = event.index > now.index;
                if !last {
                    all.push(event);
                    continue;
                }
                break;
            }
            Ok(Err(error @ Error::Problem(_))) => return Err(failure_of(error)),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    Ok(all)
}

fn show(all: &[Event], output: Output) -> Result<Exit, Failure> {
    if output.format == Some(Format::Json) {
        output.one(&all, "events", String::new)?;
        return Ok(Exit::Done);
    }
    for event in all {
        print(event, output)?;
    }
    Ok(Exit::Done)
}

/// One event: a short line for people, a JSON object a line for programs.
fn print(event: &Event, output: Output) -> Result<(), Failure> {
    let format = match output.format {
        Some(Format::Json) => Some(Format::Ndjson),
        other => other,
    };
    Output { format, ..output }.one(event, &event.kind, || {
        let mut text = line(event, output);
        text.push('\n');
        text
    })
}

/// An event as a short line.
pub(crate) fn line(event: &Event, output: Output) -> String {
    let color = output.color;
    let time = if output.terminal {
        clock_time(&event.at, &jiff::Zoned::now())
    } else {
        // Elsewhere it is kept, sent on and compared with other machines' lines.
        event.at.clone()
    };
    let subject = match (&event.service, &event.key, &event.agent) {
        (Some(service), Some(key), _) => format!("{service}/{key} "),
        (Some(service), None, _) => format!("{service} "),
        (None, _, Some(agent)) => format!("{agent} "),
        (None, _, None) => String::new(),
    };
    // Sentences that name their subject themselves are left as they are.
    let subject = if event.text.contains(subject.trim_end()) {
        ""
    } else {
        &subject
    };
    let style = if event.kind.ends_with("failed") || event.kind.ends_with("expired") {
        Style::Bad
    } else {
        Style::Plain
    };
    let text = crate::output::one_line(&format!("{subject}{}", event.text));
    format!(
        "{} {}",
        Style::Faint.paint(&time, color),
        style.paint(&text, color)
    )
}

/// A moment in RFC 3339 as a clock on the wall shows it here and now, with the day unless it is today.
fn clock_time(at: &str, now: &jiff::Zoned) -> String {
    let Ok(moment) = at.parse::<jiff::Timestamp>() else {
        return at.to_owned();
    };
    let there = moment.to_zoned(now.time_zone().clone());
    let form = if there.date() == now.date() {
        "%H:%M:%S"
    } else {
        "%Y-%m-%d %H:%M:%S"
    };
    there.strftime(form).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_its_day_unless_it_is_today_and_its_zone_where_no_person_reads_it() {
        let now: jiff::Zoned = "2026-11-28T03:00:00+09:00[Asia/Tokyo]"
            .parse()
            .expect("a time");
        assert_eq!(clock_time("2026-11-27T16:00:01Z", &now), "01:00:01");
        assert_eq!(
            clock_time("2026-11-27T14:59:59Z", &now),
            "2026-11-27 23:59:59"
        );
        assert_eq!(clock_time("no time", &now), "no time");
        let event: Event = serde_json::from_value(serde_json::json!({
            "index": 1, "at": "2026-11-27T16:00:01Z", "kind": "agent.joined", "agent": "a1",
            "text": "agent a1 joined",
        }))
        .expect("an event");
        let piped = Output {
            format: None,
            terminal: false,
            color: false,
        };
        assert_eq!(line(&event, piped), "2026-11-27T16:00:01Z agent a1 joined");
    }
}
