//! Who asks: turns what a request shows into a principal, and lets it through to what it may do.
//!
//! The right is decided by the core, from the table of the routes and the name in the path. Where a request
//! speaks of several services, its route asks for each of them by the [`Caller`]. A token is taken from
//! its header alone, is compared in constant time, and is neither logged nor kept.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use quorate_api::problem::Code;
use quorate_api::routes::RELAYED_HEADER;
use quorate_core::access::{
    self, ApiToken, Credentials, Denied, JoinToken, Node, Object, Principal, Verb, decide,
};
use quorate_core::audit::Who;
use quorate_core::director::call::Call;
use quorate_core::ids::{AgentName, CredentialId, DirectorName, ServiceName};
use quorate_core::repeats::Key;

use super::App;
use super::answer::Failure;
use super::peer::{PeerIdentity, Source, stand_in};
use crate::access::needs::{self, Need, On};
use crate::access::secret::{self, Kind};
use crate::clock;
use crate::engine::{Reading, secret_matches};
use crate::planted::{self, Planted};

/// How long a director that does not lead waits for a token that it has not heard of yet: it may have been
/// created a moment ago.
const NEWS_TIME: Duration = Duration::from_secs(1);

/// Who asks, for the routes.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    principal: Arc<Principal>,
    source: Source,
    /// The idempotency key of the request, if it has one.
    key: Option<Key>,
}

impl Caller {
    /// The call, told with who has asked for it and with the key of the request.
    pub(crate) fn asks(&self, call: Call) -> Call {
        let key = self.key.filter(|_| !planted::has(Planted::LostKeys));
        self.source.asks(Who::from(&*self.principal), key, call)
    }

    /// The request came with this idempotency key.
    pub(crate) fn keyed(&mut self, key: Key) {
        self.key = Some(key);
    }

    /// Whether something was done under the key of this request before.
    pub(crate) fn has_asked_before(&self, reading: &Reading<'_>) -> bool {
        let repeats = reading.cluster().repeats();
        let before = self
            .key
            .and_then(|key| repeats.before(key.of, reading.now.wall));
        before.is_some()
    }

    /// Whether it may do something to an object.
    pub(crate) fn may(&self, verb: Verb, object: Object<'_>) -> Result<(), Failure> {
        decide(&self.principal, verb, object).map_err(denied)
    }

    /// Whether it may do something to each of several services.
    pub(crate) fn may_all<'a>(
        &self,
        verb: Verb,
        services: impl IntoIterator<Item = &'a ServiceName>,
    ) -> Result<(), Failure> {
        let mut services = services.into_iter();
        services.try_for_each(|name| self.may(verb, Object::Service(name)))
    }

    /// Whether a list may show it something of a service.
    pub(crate) fn sees(&self, service: &ServiceName) -> bool {
        self.principal.sees(service)
    }

    /// Whether it sees every service.
    pub(crate) fn sees_all(&self) -> bool {
        !matches!(&*self.principal, Principal::Token { scope: Some(_), .. })
    }

    /// Whether an agent of this name may register.
    pub(crate) fn may_register(&self, agent: &AgentName) -> Result<(), Failure> {
        if let Principal::Machine {
            node: Node::Agent,
            name,
        } = &*self.principal
        {
            if name.as_str() == agent.as_str() {
                return Ok(());
            }
            let detail = format!("the certificate is of agent {name}, not of agent {agent}");
            return Err(Failure::new(Code::Forbidden, detail)
                .next_step("start the agent with the name that it was enrolled with"));
        }
        self.may(Verb::Administer, Object::Cluster)
    }

    /// Whether a director of this name may tell of itself, or be let into the quorum. A certificate is for its
    /// own name; who else gets here is an admin.
    pub(crate) fn may_speak_as(&self, director: &DirectorName) -> Result<(), Failure> {
        match &*self.principal {
            Principal::Machine { name, .. } if name.as_str() != director.as_str() => {
                let detail =
                    format!("the certificate is of director {name}, not of director {director}");
                Err(Failure::new(Code::Forbidden, detail)
                    .next_step("start the director with the name that it was let in with"))
            }
            Principal::Machine { .. } | Principal::Token { .. } | Principal::Local => Ok(()),
        }
    }

    /// Tells two callers apart, so that none is given the answer of another.
    pub(crate) fn apart(&self) -> String {
        match &*self.principal {
            Principal::Local => "local".to_owned(),
            Principal::Token { id, .. } => format!("token {id}"),
            Principal::Machine { node, name } => format!("{node} {name}"),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        // Without it nobody was asked who he is: a defect, and nothing is done.
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Failure::new(Code::Internal, "nobody was asked who asks"))
    }
}

/// Lets a request through to what its sender may do, or tells why not.
pub(crate) async fn access(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    for (name, value) in &mut parts.headers {
        // Whatever prints the headers does not print this one.
        value.set_sensitive(value.is_sensitive() || name == header::AUTHORIZATION);
    }
    match admit(&app, &mut parts).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(failure) => {
            let asks = failure.0.code == Code::Unauthenticated;
            let mut response = failure.into_response();
            if asks {
                let bearer = HeaderValue::from_static("Bearer");
                let headers = response.headers_mut();
                headers.insert(header::WWW_AUTHENTICATE, bearer);
            }
            response
        }
    }
}

fn is_director(principal: &Principal) -> bool {
    let director = Node::Director;
    matches!(principal, Principal::Machine { node, .. } if *node == director)
}

/// Says why the certificate of a machine counts no longer, though it is not over; `None` when it counts.
fn barred(app: &App, machine: Option<&PeerIdentity>) -> Option<String> {
    let PeerIdentity { node, name, since } = machine?;
    let credentials = app.handle.secrets().credentials();
    if !credentials.bars().bar(*node, name, *since) {
        return None;
    }
    let gone = match node {
        Node::Agent => "forgotten",
        Node::Director => "removed",
    };
    Some(format!(
        "the certificate of {node} {name} counts no longer: it was {gone}, or let in again"
    ))
}

fn let_in_anew(why: String) -> Failure {
    Failure::new(Code::Forbidden, why)
        .next_step("let it in with a join token and an empty data folder: `quorate join`")
}

async fn admit(app: &App, parts: &mut Parts) -> Result<(), Failure> {
    if let Some(why) = barred(app, parts.extensions.get()) {
        return Err(if parts.headers.contains_key(RELAYED_HEADER) {
            // What somebody else asks is not refused for it: another director will take it.
            Failure::new(Code::Unavailable, why)
        } else {
            let_in_anew(why)
        });
    }
    if stand_in(parts)
        && let Some(why) = barred(app, parts.extensions.get())
    {
        return Err(let_in_anew(why));
    }
    let principal = if app.authentication {
        match needed(parts)? {
            Some(Need::Open | Need::Session | Need::JoinToken) => return Ok(()),
            // What there is not is told to those who are known.
            None | Some(Need::Register) => identify(app, parts).await?,
            Some(Need::Machine) => match identify(app, parts).await? {
                machine @ Principal::Machine { .. } => machine,
                Principal::Local | Principal::Token { .. } => return Err(no_machine()),
            },
            Some(Need::Director) => {
                let principal = identify(app, parts).await?;
                if !is_director(&principal) {
                    decide(&principal, Verb::Administer, Object::Cluster).map_err(denied)?;
                }
                principal
            }
            Some(Need::May(verb, on)) => {
                let principal = identify(app, parts).await?;
                let name = name_in_path(parts).await;
                allowed(&principal, verb, on, name.as_deref()).map_err(denied)?;
                principal
            }
        }
    } else {
        Principal::Local
    };
    let caller = Caller {
        principal: Arc::new(principal),
        source: Source::of(parts),
        key: None,
    };
    parts.extensions.insert(caller);
    Ok(())
}

/// What the route takes; `None` for a path that there is not, or a method that it has not.
fn needed(parts: &Parts) -> Result<Option<Need>, Failure> {
    let Some(path) = parts.extensions.get::<MatchedPath>() else {
        return Ok(None);
    };
    let need = needs::need(parts.method.as_str(), path.as_str());
    if need.is_none() && !needs::knows(path.as_str()) {
        let detail = "nobody may ask this: the route does not say what it takes";
        return Err(Failure::new(Code::Forbidden, detail));
    }
    Ok(need)
}

/// `{name}` of the path.
async fn name_in_path(parts: &mut Parts) -> Option<String> {
    let params = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    let mut params = params.iter();
    let (_, value) = params.find(|(name, _)| *name == "name")?;
    Some(value.to_owned())
}

/// Decides by the object that the path names. A name that can be none is refused by its route; what is
/// decided of it here is the same as of everything.
fn allowed(principal: &Principal, verb: Verb, on: On, name: Option<&str>) -> Result<(), Denied> {
    match on {
        // Each service is decided by its route.
        On::Several => principal.may(verb),
        On::Cluster => decide(principal, verb, Object::Cluster),
        On::Agent => match name.map(AgentName::new) {
            Some(Ok(agent)) => decide(principal, verb, Object::Agent(&agent)),
            Some(Err(_)) | None => decide(principal, verb, Object::Cluster),
        },
        On::Service => match name.map(ServiceName::new) {
            Some(Ok(service)) => decide(principal, verb, Object::Service(&service)),
            Some(Err(_)) | None => decide(principal, verb, Object::Cluster),
        },
    }
}

async fn identify(app: &App, parts: &Parts) -> Result<Principal, Failure> {
    if let Some(text) = bearer(&parts.headers)? {
        let given = secret::parse(Kind::Api, text)
            .ok_or_else(|| unauthenticated("this is no API token, or a part of it is missing"))?;
        let token = known(app, &given.id).await;
        // As much is done for one that nobody knows.
        let hash = token.as_ref().map_or("", |token| token.grant.hash.as_str());
        let right = secret_matches(hash, given.secret);
        let Some(token) = token.filter(|_| right) else {
            return Err(unauthenticated("this API token is not known here"));
        };
        return counting(token);
    }
    match parts.extensions.get::<PeerIdentity>() {
        Some(PeerIdentity { node, name, .. }) => Ok(Principal::Machine {
            node: *node,
            name: name.clone(),
        }),
        None => Err(unauthenticated("this director asks for an API token")),
    }
}

/// Only who has the secret hears what became of the token.
fn counting(token: ApiToken) -> Result<Principal, Failure> {
    let ended = |how: &str| {
        let detail = format!("the API token {:?} {how}", token.grant.name);
        Err(unauthenticated(&detail))
    };
    if token.revoked.is_some() {
        return ended("was revoked");
    }
    if token.expired(clock::now().wall) {
        return ended("has expired");
    }
    let access::TokenGrant {
        id,
        name,
        role,
        scope,
        ..
    } = token.grant;
    Ok(Principal::Token {
        id,
        name,
        role,
        scope,
    })
}

/// The API token with this id.
async fn known(app: &App, id: &CredentialId) -> Option<ApiToken> {
    look(app, |credentials| credentials.tokens().get(id).cloned()).await
}

/// The join token with this id.
pub(crate) async fn known_join_token(app: &App, id: &CredentialId) -> Option<JoinToken> {
    look(app, |credentials| {
        credentials.join_tokens().get(id).cloned()
    })
    .await
}

/// Looks for a token. A director that does not lead waits a moment for it.
async fn look<T>(app: &App, find: impl Fn(&Credentials) -> Option<T>) -> Option<T> {
    let mut seen = app.handle.watch();
    let news = async {
        loop {
            let leading = seen.borrow_and_update().leading;
            let found = find(&app.handle.secrets().credentials());
            if found.is_some() || leading || seen.changed().await.is_err() {
                return found;
            }
        }
    };
    tokio::time::timeout(NEWS_TIME, news).await.ok().flatten()
}

/// The token that a request shows, if it shows any.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Failure> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = given.next() else {
        return Ok(None);
    };
    if given.next().is_some() {
        return Err(unauthenticated("the request shows two tokens"));
    }
    let text = value.to_str().unwrap_or_default();
    let token = text
        .split_once(' ')
        .and_then(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()));
    match token {
        Some(token) => Ok(Some(token)),
        None => Err(unauthenticated(
            "the Authorization header shows no API token",
        )),
    }
}

fn unauthenticated(detail: &str) -> Failure {
    Failure::new(Code::Unauthenticated, detail).next_step(
        "send Authorization: Bearer TOKEN; the command line takes it from QUORATE_API_TOKEN or QUORATE_API_TOKEN_FILE",
    )
}

fn no_machine() -> Failure {
    let detail = "this is for machines of the cluster, by their certificate";
    Failure::new(Code::Forbidden, detail)
        .next_step("a machine gets one when a join token lets it in: `quorate join`")
}

fn denied(denied: Denied) -> Failure {
    Failure::new(Code::Forbidden, denied.to_string()).next_step(denied.next_step())
}

#[cfg(test)]
mod tests {
    use quorate_core::ids::NodeName;

    use super::*;

    fn caller(principal: Principal) -> Caller {
        let (parts, ()) = axum::http::Request::new(()).into_parts();
        Caller {
            principal: Arc::new(principal),
            source: Source::of(&parts),
            key: None,
        }
    }

    fn machine(node: Node, name: &str) -> Caller {
        let name = NodeName::new(name).unwrap();
        caller(Principal::Machine { node, name })
    }

    #[test]
    fn an_agent_registers_under_the_name_of_its_certificate_alone() {
        let a1 = AgentName::new("a1").unwrap();
        assert!(machine(Node::Agent, "a1").may_register(&a1).is_ok());
        let other = machine(Node::Agent, "a2").may_register(&a1).unwrap_err();
        assert_eq!(other.0.code, Code::Forbidden);
        assert!(other.0.detail.contains("a2"), "{}", other.0.detail);
        // A director's certificate is no agent's, whatever it is called.
        let director = machine(Node::Director, "a1").may_register(&a1);
        assert_eq!(director.unwrap_err().0.code, Code::Forbidden);
        let local = caller(Principal::Local);
        assert!(local.may_register(&a1).is_ok());
    }

    #[test]
    fn a_director_speaks_of_itself_and_of_no_other() {
        let d1 = DirectorName::new("d1").unwrap();
        assert!(machine(Node::Director, "d1").may_speak_as(&d1).is_ok());
        let other = machine(Node::Director, "d2").may_speak_as(&d1).unwrap_err();
        assert_eq!(other.0.code, Code::Forbidden);
        assert!(other.0.detail.contains("d2"), "{}", other.0.detail);
        assert!(caller(Principal::Local).may_speak_as(&d1).is_ok());
    }

    #[test]
    fn a_token_is_taken_from_one_header_of_its_kind() {
        let headers = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            headers
        };
        assert_eq!(bearer(&headers(&[])).unwrap(), None);
        for good in ["Bearer qr_1", "bearer  qr_1"] {
            assert_eq!(bearer(&headers(&[good])).unwrap(), Some("qr_1"), "{good}");
        }
        for bad in [
            &["Session x"][..],
            &["Bearer"],
            &["qr_1"],
            &["Bearer a", "Bearer a"],
        ] {
            assert!(bearer(&headers(bad)).is_err(), "{bad:?}");
        }
    }
}
