//! API tokens and join tokens: created with their secret for the first and last time, listed, taken back.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use quorate_api::access::{
    JoinTokenCreated, JoinTokenRequest, JoinTokenView, TokenCreated, TokenRequest, TokenState,
    TokenView,
};
use quorate_api::problem::Problem;
use quorate_api::resources::{Done, Page};
use quorate_api::routes;
use quorate_core::access::{
    ApiToken, Credentials, JOIN_TTL, JOIN_TTL_MAX, JoinGrant, JoinToken, Node, Record, Role,
    TokenGrant, USES_MAX,
};
use quorate_core::director::call::{AccessCall, Call};
use quorate_core::ids::{CredentialId, ServicePrefix, TokenName};
use quorate_core::spec::Span;
use quorate_core::time::WallTime;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::sessions::wrong;
use crate::access::secret::{self, Kind};
use crate::clock;
use crate::http::App;
use crate::http::access::Caller;
use crate::http::answer::{Failure, Indexed};
use crate::http::extract::{JsonBody, Names, Params, bad};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(revoke))
        .routes(routes!(list_join, create_join))
        .routes(routes!(revoke_join))
}

/// API tokens without their secrets, those that ended lately included.
#[utoipa::path(
    get, path = routes::TOKENS, tag = "access", operation_id = "list_tokens",
    params(("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<TokenView>), (status = "default", body = Problem))
)]
async fn list(State(app): State<App>, params: Params) -> Result<Indexed<Page<TokenView>>, Failure> {
    let asked = Asked::of(params)?;
    let wall = clock::now().wall;
    let page = app.query(move |reading| {
        let tokens = reading.cluster().credentials().tokens();
        let tokens = tokens.iter();
        let views = tokens.map(|(id, token)| (id, view(token, wall)));
        asked.page(reading.index(), views)
    });
    page.await
}

/// Which page of a list of tokens.
struct Asked {
    limit: usize,
    after: Option<CredentialId>,
}

impl Asked {
    fn of(mut params: Params) -> Result<Self, Failure> {
        let limit = params.limit()?;
        let cursor = params.text("cursor")?;
        params.end()?;
        let after = cursor.map(|cursor| {
            let id = cursor.strip_prefix("token:").map(CredentialId::new);
            id.and_then(Result::ok)
                .ok_or_else(|| bad("cursor", "it is not from this list"))
        });
        let after = after.transpose()?;
        Ok(Self { limit, after })
    }

    fn page<'a, T>(
        self,
        index: u64,
        all: impl Iterator<Item = (&'a CredentialId, T)>,
    ) -> Indexed<Page<T>> {
        let Self { limit, after } = self;
        let later = all.filter(|(id, _)| after.as_ref().is_none_or(|after| *id > after));
        let mut later = later.peekable();
        let (mut items, mut last) = (Vec::new(), None);
        for (id, item) in later.by_ref().take(limit) {
            items.push(item);
            last = Some(id);
        }
        let next = last.filter(|_| later.peek().is_some());
        let next = next.map(|id| format!("token:{id}"));
        Indexed(index, Page { index, items, next })
    }
}

fn view(token: &ApiToken, wall: WallTime) -> TokenView {
    let ApiToken {
        grant,
        created,
        at: _,
        revoked,
    } = token;
    TokenView {
        id: grant.id.to_string(),
        name: grant.name.to_string(),
        role: grant.role.to_string(),
        scope: grant.scope.as_ref().map(ToString::to_string),
        state: match revoked {
            Some(_) => TokenState::Revoked,
            None if token.expired(wall) => TokenState::Expired,
            None => TokenState::Active,
        },
        created: clock::text(*created),
        expires: grant.expires.map(clock::text),
        revoked: revoked.map(clock::text),
    }
}

/// Creates an API token. The answer is the only one that has its secret.
#[utoipa::path(
    post, path = routes::TOKENS, tag = "access", operation_id = "create_token",
    request_body = TokenRequest,
    responses(
        (status = 200, body = TokenCreated),
        (status = 409, body = Problem, description = "There are as many as there may be"),
        (status = "default", body = Problem),
    )
)]
async fn create(
    State(app): State<App>,
    caller: Caller,
    JsonBody(request): JsonBody<TokenRequest>,
) -> Result<Indexed<TokenCreated>, Failure> {
    let name = TokenName::new(&request.name).map_err(|e| wrong("name", &e.to_string()))?;
    let role = role(&request.role)?;
    let scope = request.scope.as_deref().map(ServicePrefix::new);
    let scope = scope.transpose();
    let scope = scope.map_err(|e| wrong("scope", &e.to_string()))?;
    if role == Role::Admin && scope.is_some() {
        return Err(wrong("scope", "an admin has none: he gives out tokens"));
    }
    let ttl = ttl(request.ttl.as_deref())?;
    let drawn = secret::draw(Kind::Api);
    let expires = ttl.map(|ttl| later(clock::now().wall, ttl));
    let grant = TokenGrant {
        id: drawn.id.clone(),
        hash: drawn.hash,
        name,
        role,
        scope,
        expires,
        bootstrap: false,
    };
    let record = Record::TokenCreated(Box::new(grant));
    let Indexed(index, _) = app.change(caller.asks(changes(record))).await?;
    let created = TokenCreated {
        index,
        id: drawn.id.to_string(),
        token: drawn.text,
        expires: expires.map(clock::text),
    };
    Ok(Indexed(index, created))
}

fn role(given: &str) -> Result<Role, Failure> {
    let found = Role::ALL.into_iter().find(|role| role.as_str() == given);
    found.ok_or_else(|| {
        let all = Role::ALL.map(Role::as_str).join(", ");
        wrong("role", &format!("{given:?} is none of {all}"))
    })
}

fn ttl(given: Option<&str>) -> Result<Option<Duration>, Failure> {
    let Some(given) = given else { return Ok(None) };
    let span: Span = given.parse().map_err(|e| wrong("ttl", &format!("{e}")))?;
    if span.0.is_zero() {
        return Err(wrong("ttl", "it would end before it begins"));
    }
    Ok(Some(span.0))
}

fn later(wall: WallTime, ttl: Duration) -> WallTime {
    let millis = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    WallTime(wall.0.saturating_add(millis))
}

fn changes(record: Record) -> Call {
    Call::Access(Box::new(AccessCall::Change(record)))
}

/// Takes an API token back.
#[utoipa::path(
    delete, path = routes::TOKEN, tag = "access", operation_id = "revoke_token",
    params(("id" = String, Path)),
    responses((status = 200, body = Done), (status = "default", body = Problem))
)]
async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Names(id): Names<CredentialId>,
) -> Result<Indexed<Done>, Failure> {
    must_exist(&app, "token", &id, Credentials::tokens).await?;
    app.change(caller.asks(changes(Record::TokenRevoked { id })))
        .await
}

/// Whether there is a token of a kind with this id, in better words than the ledger has.
async fn must_exist<T: 'static>(
    app: &App,
    what: &'static str,
    id: &CredentialId,
    of_kind: fn(&Credentials) -> &BTreeMap<CredentialId, T>,
) -> Result<(), Failure> {
    let asked = id.clone();
    let known = app.query(move |reading| {
        let tokens = of_kind(reading.cluster().credentials());
        if tokens.contains_key(&asked) {
            return Ok(());
        }
        let ids = tokens.keys().map(CredentialId::as_str);
        Err(unknown(what, &asked, ids))
    });
    known.await?
}

fn unknown<'a>(what: &str, id: &CredentialId, ids: impl Iterator<Item = &'a str>) -> Failure {
    let failure = Failure::not_found(what, id.as_str(), ids);
    let lists = format!("`quorate {what} ls` shows those that exist");
    if failure
        .0
        .next_step
        .as_ref()
        .is_some_and(|step| step.starts_with("did"))
    {
        failure
    } else {
        failure.next_step(lists)
    }
}

/// Join tokens without their secrets, those that ended lately included.
#[utoipa::path(
    get, path = routes::JOIN_TOKENS, tag = "access", operation_id = "list_join_tokens",
    params(("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<JoinTokenView>), (status = "default", body = Problem))
)]
async fn list_join(
    State(app): State<App>,
    params: Params,
) -> Result<Indexed<Page<JoinTokenView>>, Failure> {
    let asked = Asked::of(params)?;
    let wall = clock::now().wall;
    let page = app.query(move |reading| {
        let tokens = reading.cluster().credentials().join_tokens();
        let tokens = tokens.iter();
        let views = tokens.map(|(id, token)| (id, join_view(token, wall)));
        asked.page(reading.index(), views)
    });
    page.await
}

fn join_view(token: &JoinToken, wall: WallTime) -> JoinTokenView {
    let JoinToken {
        grant,
        created,
        at: _,
        revoked,
        used,
    } = token;
    JoinTokenView {
        id: grant.id.to_string(),
        role: grant.admits.to_string(),
        state: match revoked {
            Some(_) => TokenState::Revoked,
            None if token.left() == 0 => TokenState::UsedUp,
            None if token.counts(wall) => TokenState::Active,
            None => TokenState::Expired,
        },
        left: token.left(),
        uses: grant.uses,
        used_by: used.iter().map(|used| used.name.to_string()).collect(),
        created: clock::text(*created),
        expires: clock::text(grant.expires),
        revoked: revoked.map(clock::text),
    }
}

/// Creates a join token. The answer is the only one that has its secret.
#[utoipa::path(
    post, path = routes::JOIN_TOKENS, tag = "access", operation_id = "create_join_token",
    request_body = JoinTokenRequest,
    responses(
        (status = 200, body = JoinTokenCreated),
        (status = 409, body = Problem, description = "There are as many as there may be"),
        (status = "default", body = Problem),
    )
)]
async fn create_join(
    State(app): State<App>,
    caller: Caller,
    JsonBody(request): JsonBody<JoinTokenRequest>,
) -> Result<Indexed<JoinTokenCreated>, Failure> {
    let admits = match request.role.as_str() {
        "agent" => Node::Agent,
        "director" => Node::Director,
        other => {
            let message = format!("{other:?} is neither agent nor director");
            return Err(wrong("role", &message));
        }
    };
    let uses = request.uses.unwrap_or(1);
    if !(1..=USES_MAX).contains(&uses) {
        return Err(wrong("uses", &format!("1 to {USES_MAX} are possible")));
    }
    let ttl = ttl(request.ttl.as_deref())?.unwrap_or(JOIN_TTL);
    if ttl > JOIN_TTL_MAX {
        let longest = Span(JOIN_TTL_MAX);
        return Err(wrong(
            "ttl",
            &format!("a join token counts for at most {longest}"),
        ));
    }
    let drawn = secret::draw(Kind::Join);
    let expires = later(clock::now().wall, ttl);
    let grant = JoinGrant {
        id: drawn.id.clone(),
        hash: drawn.hash,
        admits,
        uses,
        expires,
    };
    let record = Record::JoinTokenCreated(Box::new(grant));
    let Indexed(index, _) = app.change(caller.asks(changes(record))).await?;
    let token = match &app.authority {
        Some(authority) => format!("{}_{}", drawn.text, authority.fingerprint()),
        None => drawn.text,
    };
    let created = JoinTokenCreated {
        index,
        id: drawn.id.to_string(),
        token,
        expires: clock::text(expires),
    };
    Ok(Indexed(index, created))
}

/// Takes a join token back. Whom it has let in stays.
#[utoipa::path(
    delete, path = routes::JOIN_TOKEN, tag = "access", operation_id = "revoke_join_token",
    params(("id" = String, Path)),
    responses((status = 200, body = Done), (status = "default", body = Problem))
)]
async fn revoke_join(
    State(app): State<App>,
    caller: Caller,
    Names(id): Names<CredentialId>,
) -> Result<Indexed<Done>, Failure> {
    must_exist(&app, "join-token", &id, Credentials::join_tokens).await?;
    app.change(caller.asks(changes(Record::JoinTokenRevoked { id })))
        .await
}
