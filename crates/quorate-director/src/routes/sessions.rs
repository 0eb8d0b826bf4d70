//! The sessions of agents. Each call but the first carries the session's secret; renewals have a way
//! to the loop of their own.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use quorate_api::problem::{Code, FieldError, Problem};
use quorate_api::resources::Done;
use quorate_api::routes;
use quorate_api::session as wire;
use quorate_api::session::{
    CloseRequest, LostSession, PassedAnswer, PassedAnswers, PassedRenewal, PassedRenewals,
    RegisterRequest, RenewRequest, RenewResponse, ReportRequest, ReportResponse, ResumeRequest,
    SessionOpened, WorkResponse,
};
use quorate_core::director::WorkDelta;
use quorate_core::director::call::{Answer, Call, Release, Renewal, RenewalAnswer, Report};
use quorate_core::ids::{AgentName, Incarnation, PartitionId, Position, SessionId, Token};
use quorate_core::lease::{KEPT, LeaseTimes};
use quorate_core::record::{
    AgentInfo, Cause, CloseReason, Containment, Exit, ExitClass, Place, ReleaseOutcome, RunPhase,
    RunReport,
};
use serde::Deserialize;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::clock::millis;
use crate::engine::{Checked, Led, Message, WorkAsk, secret_hash};
use crate::http::App;
use crate::http::access::Caller;
use crate::http::answer::{Failure, Indexed, not_leader, unexpected};
use crate::http::extract::{JsonBody, Names, Params};
use crate::http::relay::unproven;
use crate::views;

/// How long a renewal may wait for the proof of leadership: longer, and the agent has given it up.
const RENEWAL_TIME: Duration = Duration::from_secs(5);
/// How many sessions one renewal may carry: one for each lease class, and as many older ones.
const ALSO_MAX: usize = 16;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(resume))
        .routes(routes!(renew))
        .routes(routes!(renewals))
        .routes(routes!(report))
        .routes(routes!(close))
        .routes(routes!(work))
}

/// A warden begins a session.
#[utoipa::path(
    post, path = routes::SESSIONS, tag = "sessions", operation_id = "register",
    request_body = RegisterRequest,
    responses((status = 200, body = SessionOpened), (status = "default", body = Problem))
)]
async fn register(
    State(app): State<App>,
    caller: Caller,
    JsonBody(request): JsonBody<RegisterRequest>,
) -> Result<Indexed<SessionOpened>, Failure> {
    let hex = request.secret.bytes().all(|byte| byte.is_ascii_hexdigit());
    if request.secret.len() != 64 || !hex {
        return Err(wrong("secret", "it must be 256 random bits in hexadecimal"));
    }
    let name = AgentName::new(&request.agent).map_err(|e| wrong("agent", &e.to_string()))?;
    caller.may_register(&name)?;
    let span = Duration::from_millis(request.lease_ms);
    let lease = LeaseTimes::of(span.min(KEPT));
    let call = Call::Register {
        agent: AgentInfo {
            name,
            id: request.agent_id,
            place: Place {
                machine: bounded("machine_id", request.machine_id)?,
                boot: bounded("boot_id", request.boot_id)?,
                folder: request.folder,
            },
            labels: request.labels,
            capacity: request.capacity,
            containment: word::<Containment>("containment", &request.containment)?,
            version: request.version,
        },
        lease,
        secret_hash: secret_hash(&request.secret),
        process: request.process,
    };
    opened(&app, call).await
}

/// A new agent process speaks for a living warden.
#[utoipa::path(
    post, path = routes::SESSION_RESUME, tag = "sessions", operation_id = "resume",
    params(("id" = u64, Path)), request_body = ResumeRequest,
    responses((status = 200, body = SessionOpened), (status = "default", body = Problem))
)]
async fn resume(
    State(app): State<App>,
    Names(id): Names<u64>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<ResumeRequest>,
) -> Result<Indexed<SessionOpened>, Failure> {
    let session = authorize(&app, id, &headers).await?;
    let process = request.process;
    opened(&app, Call::Resume { session, process }).await
}

async fn opened(app: &App, call: Call) -> Result<Indexed<SessionOpened>, Failure> {
    let answer = app.call(call).await?;
    let Answer::Opened {
        session,
        incarnation,
        lease,
    } = answer
    else {
        return Err(unexpected(&answer));
    };
    let opened = SessionOpened {
        session: session.0,
        incarnation: incarnation.0,
        cluster: app.cluster.0,
        lease_ms: millis(lease.lease),
        renew_every_ms: millis(lease.renew_every),
        grace_ms: millis(lease.grace),
        kill_ms: millis(lease.kill),
    };
    Ok(Indexed(app.handle.seen().position.0, opened))
}

/// Renews the leases of a session and of others of the same agent.
#[utoipa::path(
    post, path = routes::SESSION_RENEW, tag = "sessions", operation_id = "renew",
    params(("id" = u64, Path)), request_body = RenewRequest,
    responses((status = 200, body = RenewResponse), (status = "default", body = Problem))
)]
async fn renew(
    State(app): State<App>,
    Names(id): Names<u64>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<RenewRequest>,
) -> Result<Indexed<RenewResponse>, Failure> {
    let renewal = PassedRenewal {
        session: id,
        secret: secret_of(&headers)?.to_owned(),
        request,
    };
    let mut led = app.handle.watch_led();
    let renewed = loop {
        let leader = match &*led.borrow_and_update() {
            // The machine tells who leads, when it is nobody here.
            Led::Here | Led::Nobody => None,
            Led::By { address, .. } => Some(address.clone()),
        };
        let Some(leader) = leader else {
            break renew_here(&app, renewal).await?;
        };
        check(&renewal)?;
        // A leader that was stopped or cut off never answers, and the lease does not wait for it: the next one is
        // told the same, which by its counter and nonce is one renewal.
        tokio::select! {
            passed = app.renewals.pass(renewal.clone()) => break passed?,
            () = another_leads(&mut led, &leader) => {}
        }
    };
    Ok(Indexed(app.handle.seen().position.0, renewed))
}

/// Renewals that another director passes on.
#[utoipa::path(
    post, path = routes::SESSION_RENEWALS, tag = "sessions", operation_id = "renewals",
    request_body = PassedRenewals,
    responses((status = 200, body = PassedAnswers), (status = "default", body = Problem))
)]
async fn renewals(
    State(app): State<App>,
    JsonBody(request): JsonBody<PassedRenewals>,
) -> Result<Indexed<PassedAnswers>, Failure> {
    let each = request.renewals.into_iter();
    let each = each.map(|renewal| renew_here(&app, renewal));
    let answers = futures::future::join_all(each).await.into_iter();
    let answers = answers.map(|answer| match answer {
        Ok(renewed) => PassedAnswer {
            renewed: Some(renewed),
            problem: None,
        },
        Err(Failure(problem)) => PassedAnswer {
            renewed: None,
            problem: Some(problem),
        },
    });
    let answers = PassedAnswers {
        answers: answers.collect(),
    };
    Ok(Indexed(app.handle.seen().position.0, answers))
}

/// Returns when another director than the one at this address leads, as far as this one knows.
async fn another_leads(led: &mut watch::Receiver<Led>, leader: &str) {
    let other = led.wait_for(|led| match led {
        Led::By { address, .. } => address != leader,
        Led::Here => true,
        Led::Nobody => false,
    });
    if other.await.is_err() {
        // The loop has ended, and with it this director.
        std::future::pending::<()>().await;
    }
}

fn check(renewal: &PassedRenewal) -> Result<(), Failure> {
    if renewal.request.also.len() > ALSO_MAX {
        let message = format!("at most {ALSO_MAX} further sessions");
        return Err(wrong("also", &message));
    }
    Ok(())
}

/// Renews as the leader, or tells who leads.
async fn renew_here(app: &App, renewal: PassedRenewal) -> Result<RenewResponse, Failure> {
    check(&renewal)?;
    let PassedRenewal {
        session: id,
        secret,
        request,
    } = renewal;
    let mut sessions = Vec::new();
    let mut unknown = Vec::new();
    let mut sort = |id: u64, secret: &str| {
        let session = SessionId(id);
        let checked = app.handle.secrets().check(session, secret);
        match checked {
            Checked::Right => sessions.push(session),
            Checked::Unknown => unknown.push((session, secret.to_owned())),
            Checked::Wrong => {}
        }
        checked
    };
    if sort(id, &secret) == Checked::Wrong {
        return Err(wrong_secret(id));
    }
    for proof in &request.also {
        // Each is answered for itself: a wrong one is neither renewed nor lost.
        sort(proof.session, &proof.secret);
    }
    let renewal = Renewal {
        sessions,
        incarnation: Incarnation(request.incarnation),
        counter: request.counter,
        nonce: request.nonce,
        sent_ms: request.sent_ms,
    };
    let asked = app.handle.renew(renewal, unknown);
    match tokio::time::timeout(RENEWAL_TIME, asked).await {
        Err(_) => Err(unproven()),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(RenewalAnswer::NotLeader { leader })) => Err(not_leader(leader)),
        Ok(Ok(RenewalAnswer::Answered { renewed, lost })) => {
            let lost = lost.into_iter().map(|(session, reason)| LostSession {
                session: session.0,
                reason,
            });
            Ok(RenewResponse {
                counter: request.counter,
                renewed: renewed.into_iter().map(|session| session.0).collect(),
                lost: lost.collect(),
            })
        }
    }
}

/// Reports what has happened on the agent, many things at once.
#[utoipa::path(
    post, path = routes::SESSION_REPORT, tag = "sessions", operation_id = "report",
    params(("id" = u64, Path)), request_body = ReportRequest,
    responses((status = 200, body = ReportResponse), (status = "default", body = Problem))
)]
async fn report(
    State(app): State<App>,
    Names(id): Names<u64>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<ReportRequest>,
) -> Result<Indexed<ReportResponse>, Failure> {
    let session = authorize(&app, id, &headers).await?;
    let report = translate(session, request)?;
    let answer = app.call(Call::Report(Box::new(report))).await?;
    let Answer::Reported {
        sequence,
        assumed,
        refused,
    } = answer
    else {
        return Err(unexpected(&answer));
    };
    let refused = refused.into_iter().map(|(token, reason)| wire::Refusal {
        token: token.0,
        reason,
    });
    let answer = ReportResponse {
        sequence,
        assumed: assumed.into_iter().map(|token| token.0).collect(),
        refused: refused.collect(),
    };
    Ok(Indexed(app.handle.seen().position.0, answer))
}

fn translate(session: SessionId, request: ReportRequest) -> Result<Report, Failure> {
    let assume = request.assume.iter();
    let assume = assume.map(|claim| (PartitionId(claim.partition), Token(claim.token)));
    let release = request.release.into_iter().map(|release| {
        Ok(Release {
            partition: PartitionId(release.partition),
            token: Token(release.token),
            outcome: word::<ReleaseOutcome>("release.outcome", &release.outcome)?,
            exit: release.exit.as_ref().map(exit).transpose()?,
            failures: release.failures,
        })
    });
    let observed = request.observed.into_iter().map(|seen| {
        let run = RunReport {
            phase: word::<RunPhase>("observed.phase", &seen.phase)?,
            attempt: seen.attempt,
            pid: seen.pid,
            exit: seen.exit.as_ref().map(exit).transpose()?.map(Box::new),
        };
        Ok((PartitionId(seen.partition), Token(seen.token), run))
    });
    Ok(Report {
        session,
        incarnation: Incarnation(request.incarnation),
        sequence: request.sequence,
        assume: assume.collect(),
        release: release.collect::<Result<_, Failure>>()?,
        observed: observed.collect::<Result<_, Failure>>()?,
    })
}

fn exit(report: &wire::ExitReport) -> Result<Exit, Failure> {
    Ok(Exit {
        class: word::<ExitClass>("exit.class", &report.class)?,
        code: report.code,
        signal: report.signal,
        cause: report.cause.as_deref().map(Cause::new),
    })
}

/// Ends a session: everything of it is proven dead.
#[utoipa::path(
    post, path = routes::SESSION_CLOSE, tag = "sessions", operation_id = "close",
    params(("id" = u64, Path)), request_body = CloseRequest,
    responses((status = 200, body = Done), (status = "default", body = Problem))
)]
async fn close(
    State(app): State<App>,
    Names(id): Names<u64>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<CloseRequest>,
) -> Result<Indexed<Done>, Failure> {
    let session = authorize(&app, id, &headers).await?;
    let reason = match word::<CloseReason>("reason", &request.reason)? {
        reason @ (CloseReason::Left | CloseReason::AgentDied | CloseReason::WardenDied) => reason,
        CloseReason::Rebooted | CloseReason::Evicted => {
            return Err(wrong("reason", "that is for the directors to say"));
        }
    };
    let incarnation = request.incarnation.map(Incarnation);
    if reason == CloseReason::Left && incarnation.is_none() {
        return Err(wrong("incarnation", "say which process leaves"));
    }
    app.change(Call::Close {
        session,
        incarnation,
        reason,
    })
    .await
}

/// What the session is to hold, as changes since `index`; waits for one.
#[utoipa::path(
    get, path = routes::SESSION_WORK, tag = "sessions", operation_id = "work",
    params(
        ("id" = u64, Path),
        ("index" = Option<u64>, Query, description = "`index` of the answer before; 0: everything"),
        ("wait" = Option<String>, Query, description = "How long to wait for a change, `60s`"),
    ),
    responses((status = 200, body = WorkResponse), (status = "default", body = Problem))
)]
async fn work(
    State(app): State<App>,
    Names(id): Names<u64>,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Indexed<WorkResponse>, Failure> {
    let blocking = params.blocking()?;
    params.end()?;
    let session = authorize(&app, id, &headers).await?;
    let since = Position(blocking.index.unwrap_or_default());
    let until = Instant::now() + blocking.wait;
    let (answer, answered) = oneshot::channel();
    let ask = WorkAsk {
        session,
        since,
        answer,
    };
    app.handle.send(Message::Work(ask))?;
    let nothing = WorkDelta {
        index: since,
        whole: false,
        items: Vec::new(),
        gone: Vec::new(),
        services: Vec::new(),
    };
    let delta = tokio::select! {
        answered = answered => match answered {
            Ok(Some(delta)) => delta,
            Ok(None) => return Err(over(id)),
            // A newer question of this session took its place, or the director ends.
            Err(_) => nothing,
        },
        () = tokio::time::sleep_until(until) => nothing,
        () = app.shutdown.cancelled() => nothing,
        // One that is cut off from the others must not keep the agent from asking them.
        () = led_anew(&app) => nothing,
    };
    let leases = app.query(|reading| {
        let services = reading.cluster().services();
        let in_use = services.filter(|(_, service)| !service.removed());
        let mut leases: Vec<u64> = in_use
            .map(|(_, s)| millis(s.spec().lease_class()))
            .collect();
        leases.sort_unstable();
        leases.dedup();
        let directors = reading.cluster().directors().values();
        let directors = directors.map(|director| director.address.clone());
        (leases, directors.collect())
    });
    let (leases, directors) = leases.await?;
    let response = views::work(delta, leases, directors);
    Ok(Indexed(response.index, response))
}

/// Returns when another director leads than now, or none.
async fn led_anew(app: &App) {
    let mut led = app.handle.watch_led();
    led.mark_unchanged();
    if led.changed().await.is_err() {
        // The loop has ended, which is told otherwise.
        std::future::pending::<()>().await;
    }
}

/// Checks that whoever asks speaks for the session. One that is not known here is let through: the
/// machine says what became of it.
pub(super) async fn authorize(
    app: &App,
    id: u64,
    headers: &HeaderMap,
) -> Result<SessionId, Failure> {
    let session = SessionId(id);
    let secret = secret_of(headers)?;
    let right = match app.handle.secrets().check(session, secret) {
        Checked::Right => true,
        Checked::Wrong => false,
        Checked::Unknown => {
            let hash = secret_hash(secret);
            let right = app.query(move |reading| {
                let cluster = reading.cluster();
                let open = cluster.session(session);
                let open = open.or_else(|| cluster.expired().get(&session));
                open.is_none_or(|open| open.secret_hash() == hash)
            });
            right.await?
        }
    };
    if right {
        Ok(session)
    } else {
        Err(wrong_secret(id))
    }
}

fn secret_of(headers: &HeaderMap) -> Result<&str, Failure> {
    let given = headers.get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok());
    let secret = given.and_then(|value| value.strip_prefix("Session "));
    secret.map(str::trim).ok_or_else(|| {
        Failure::new(
            Code::Unauthenticated,
            "the secret of the session is missing",
        )
        .next_step("send it as Authorization: Session <secret>")
    })
}

fn wrong_secret(id: u64) -> Failure {
    let detail = format!("this is not the secret of session {id}");
    Failure::new(Code::Unauthenticated, detail)
}

pub(super) fn over(id: u64) -> Failure {
    Failure::new(Code::Fenced, format!("session {id} is over"))
        .next_step("stop what ran under it and register anew")
}

/// A name that a machine gives itself: long enough for any, and no more is kept of it.
fn bounded(at: &str, given: String) -> Result<String, Failure> {
    const MAX: usize = 256;
    let fits = given.len() <= MAX;
    fits.then_some(given)
        .ok_or_else(|| wrong(at, &format!("it has more than {MAX} bytes")))
}

/// A word of the protocol, as the core writes it.
fn word<T: for<'de> Deserialize<'de>>(at: &str, given: &str) -> Result<T, Failure> {
    let value = serde_json::Value::String(given.to_owned());
    serde_json::from_value(value).map_err(|error| wrong(at, &error.to_string()))
}

pub(super) fn wrong(at: &str, message: &str) -> Failure {
    let mut failure = Failure::new(Code::MalformedRequest, format!("{at}: {message}"));
    failure.0.errors = vec![FieldError {
        at: at.to_owned(),
        message: message.to_owned(),
        hint: None,
    }];
    failure
}
