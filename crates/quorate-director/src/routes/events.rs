//! Events as they happen, as server-sent events that can be resumed.
//!
//! A stream reads from the ring of the history at its own pace, so a slow client costs nothing but its
//! connection; one that has fallen out of the ring is told so.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{self, KeepAlive, Sse};
use futures::Stream;
use quorate_api::problem::{Code, Problem};
use quorate_api::resources::Event;
use quorate_api::routes;
use quorate_core::access::{Object, Verb};
use quorate_core::history::Change;
use quorate_core::ids::{AgentName, PartitionKey, ServiceName};
use quorate_core::spec::Span;
use quorate_core::time::WallTime;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::clock;
use crate::history::{EventId, Gone, History, Recorded};
use crate::http::App;
use crate::http::access::Caller;
use crate::http::answer::Failure;
use crate::http::extract::{Params, bad};
use crate::planted::{self, Planted};

/// Something is said at least this often, so that both sides notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Changes that are taken from the ring at once.
const BATCH: usize = 256;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(events))
}

/// What happens, as it happens. Resumes after the `Last-Event-ID` or `after`.
#[utoipa::path(
    get, path = routes::EVENTS, tag = "events", operation_id = "events",
    params(
        ("service" = Option<String>, Query, description = "Of this service only"),
        ("key" = Option<String>, Query, description = "Of this partition only"),
        ("agent" = Option<String>, Query, description = "Of this agent only"),
        ("after" = Option<String>, Query, description = "`id` of an event, or a ledger index: first what came later"),
        ("since" = Option<String>, Query, description = "First what came in the last `10m`; not with `after`"),
        ("Last-Event-ID" = Option<String>, Header, description = "The same, as browsers send it"),
    ),
    responses(
        (status = 200, body = Event, content_type = "text/event-stream"),
        (status = 410, body = Problem, description = "What came later is no longer kept"),
        (status = "default", body = Problem),
    )
)]
async fn events(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Failure> {
    let filter = Filter {
        service: params.value("service")?,
        key: params.value("key")?,
        agent: params.value("agent")?,
        caller,
    };
    filter.caller.may_all(Verb::Read, &filter.service)?;
    let after = params.text("after")?;
    let since = params.value::<Span>("since")?;
    params.end()?;
    if after.is_some() && since.is_some() {
        return Err(bad("since", "after says already where to begin"));
    }
    let last = headers.get("last-event-id");
    let last = last.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    let history = app.handle.history().clone();
    let newer = history.watch();
    let after = match (last.or(after), since) {
        (None, None) => history.newest(),
        (None, Some(since)) => begin(&history, since)?,
        (Some(id), _) => {
            let id = id.trim().parse();
            id.map_err(|()| bad("after", "it is not the id of an event, written 812.3"))?
        }
    };
    history
        .after(after, 1)
        .map_err(|gone| too_old(after, gone))?;
    let held = app.hold()?;
    let permit = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| {
        Failure::new(Code::TooManyRequests, "too many streams of events are open")
            .next_step("close one, or ask another director")
    })?;
    let reader = Reader {
        history,
        newer,
        after,
        filter,
        waiting: VecDeque::new(),
        ended: false,
        shutdown: app.shutdown.clone(),
        _permits: (permit, held),
    };
    let stream = futures::stream::unfold(reader, |mut reader| async {
        let event = reader.next().await?;
        Some((Ok(event), reader))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Where the events of the last so long begin.
fn begin(history: &History, since: Span) -> Result<EventId, Failure> {
    let ago = i64::try_from(since.0.as_millis()).unwrap_or(i64::MAX);
    let wall = WallTime(clock::now().wall.0.saturating_sub(ago));
    history.before(wall).map_err(|gone| {
        let from = gone.known_after;
        let kept = history.after(from, 1).unwrap_or_default();
        let at = kept.first().map_or_else(String::new, |first| {
            format!(", which was at {}", clock::text(first.wall))
        });
        Failure::new(
            Code::Gone,
            format!(
                "events of the last {since} are no longer all kept; they are from {from} on{at}"
            ),
        )
        .next_step("ask for less, or without a time for all that are kept")
    })
}

fn too_old(after: EventId, gone: Gone) -> Failure {
    Failure::new(
        Code::Gone,
        format!(
            "events after {after} are no longer all kept; they are from {} on",
            gone.known_after
        ),
    )
    .next_step("list the state, then follow from its index")
}

struct Filter {
    service: Option<ServiceName>,
    key: Option<PartitionKey>,
    agent: Option<AgentName>,
    caller: Caller,
}

/// One client's place in the history.
struct Reader {
    history: History,
    newer: watch::Receiver<EventId>,
    after: EventId,
    filter: Filter,
    waiting: VecDeque<Recorded>,
    ended: bool,
    shutdown: CancellationToken,
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Reader {
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            while let Some(recorded) = self.waiting.pop_front() {
                self.after = recorded.id;
                if self.filter.lets_through(&recorded.change) {
                    return Some(event(&recorded));
                }
            }
            if self.ended {
                return None;
            }
            // Noted before looking, so that nothing that comes in between is missed.
            self.newer.mark_unchanged();
            match self.history.after(self.after, BATCH) {
                Ok(found) if !found.is_empty() => self.waiting.extend(found),
                Ok(_) => tokio::select! {
                    changed = self.newer.changed() => changed.ok()?,
                    () = self.shutdown.cancelled() => return None,
                },
                Err(gone) if planted::has(Planted::SilentGap) => self.after = gone.known_after,
                Err(gone) => {
                    self.ended = true;
                    let problem = too_old(self.after, gone).0;
                    let event = sse::Event::default().event("gone");
                    return event.json_data(&*problem).ok();
                }
            }
        }
    }
}

impl Filter {
    /// Who may do what is for those who administer, and what services do for those who may see them.
    fn may_show(&self, change: &Change) -> bool {
        if let Change::Audited(_) = change {
            // The change itself is told; who has asked for it is shown by the audit.
            return false;
        }
        if let Change::Access(_) = change {
            return self.caller.may(Verb::Administer, Object::Cluster).is_ok();
        }
        let service = change.service();
        service.is_none_or(|service| self.caller.sees(service))
    }

    fn lets_through(&self, change: &Change) -> bool {
        if !self.may_show(change) {
            return false;
        }
        let key = change.subject().map(|subject| &subject.key);
        self.service
            .as_ref()
            .is_none_or(|wanted| change.service() == Some(wanted))
            && self.key.as_ref().is_none_or(|wanted| key == Some(wanted))
            && self
                .agent
                .as_ref()
                .is_none_or(|wanted| change.agent() == Some(wanted))
    }
}

fn event(recorded: &Recorded) -> sse::Event {
    let change = &recorded.change;
    let key = change.subject().map(|subject| subject.key.to_string());
    let event = Event {
        index: recorded.id.position.0,
        at: clock::text(recorded.wall),
        kind: change.name().to_owned(),
        service: change.service().map(ToString::to_string),
        key,
        agent: change.agent().map(ToString::to_string),
        token: change.token().map(|token| token.0),
        text: change.to_string(),
    };
    let text = serde_json::to_string(&event).unwrap_or_default();
    sse::Event::default()
        .id(recorded.id.to_string())
        .event(change.name())
        .data(text)
}
