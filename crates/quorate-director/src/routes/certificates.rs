//! Certificates of machines: signing them, renewing them before they end, and the authority that does.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Extension;
use axum::extract::State;
use quorate_api::access::{AuthorityFiles, Certificate, CertificateRequest};
use quorate_api::problem::{Code, Problem};
use quorate_api::routes;
use quorate_core::access::Node;
use quorate_core::ids::{NodeName, Position};
use quorate_core::time::WallTime;
use quorate_pki::{Authority, Error, Identity, Role, Validity};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::sessions::wrong;
use crate::clock;
use crate::engine::Reading;
use crate::http::App;
use crate::http::answer::{Failure, Indexed};
use crate::http::extract::JsonBody;
use crate::http::peer::PeerIdentity;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(renew))
        .routes(routes!(hand_on))
}

/// A machine asks for the next certificate, with the one that it has: for itself, and only while it
/// belongs to the cluster.
#[utoipa::path(
    post, path = routes::CERTIFICATES, tag = "access", operation_id = "renew_certificate",
    request_body = CertificateRequest,
    responses(
        (status = 200, body = Certificate),
        (status = 403, body = Problem, description = "It does not belong to the cluster any more"),
        (status = "default", body = Problem),
    )
)]
async fn renew(
    State(app): State<App>,
    machine: Option<Extension<PeerIdentity>>,
    JsonBody(request): JsonBody<CertificateRequest>,
) -> Result<Indexed<Certificate>, Failure> {
    let Some(Extension(PeerIdentity { node, name, since })) = machine else {
        let detail = "the next certificate is given to a machine that shows the one it has";
        return Err(Failure::new(Code::Forbidden, detail)
            .next_step("a machine without one is let in by a join token: `quorate join`"));
    };
    let authority = authority(&app)?;
    let asked = name.clone();
    let belongs = app.query(move |reading| belongs(reading, node, &asked));
    if !belongs.await? {
        let detail = format!("{node} {name} does not belong to this cluster any more");
        return Err(Failure::new(Code::Forbidden, detail)
            .next_step("let it in again with a join token: `quorate join`"));
    }
    // A machine that was forgotten in this moment keeps what makes the certificate worthless.
    let signed = sign(&app, authority, request.csr, (node, &name, since)).await?;
    tracing::info!(%node, %name, expires = signed.expires, "a certificate was renewed");
    Ok(Indexed(app.handle.seen().position.0, signed))
}

/// Whether the cluster knows a machine. Who was removed gets no further certificate.
fn belongs(reading: &Reading<'_>, node: Node, name: &NodeName) -> bool {
    let cluster = reading.cluster();
    match node {
        Node::Agent => cluster.agents().contains_key(name.as_str()),
        Node::Director => cluster.directors().contains_key(name.as_str()),
    }
}

/// The authority with its key, for a director that was let in: each of them signs while it leads.
#[utoipa::path(
    get, path = routes::CLUSTER_AUTHORITY, tag = "access", operation_id = "get_authority",
    responses((status = 200, body = AuthorityFiles), (status = "default", body = Problem))
)]
async fn hand_on(
    State(app): State<App>,
    machine: Option<Extension<PeerIdentity>>,
) -> Result<Indexed<AuthorityFiles>, Failure> {
    let director = machine.filter(|Extension(machine)| machine.node == Node::Director);
    // Not for an admin: a key goes from machine to machine and through nobody's hands.
    let Some(Extension(director)) = director else {
        let detail = "the key of the authority is given to directors alone, by their certificate";
        return Err(Failure::new(Code::Forbidden, detail));
    };
    let authority = authority(&app)?;
    tracing::info!(director = %director.name, "the authority was handed to a director");
    let files = AuthorityFiles {
        authorities: authority.trust().pem().to_owned(),
        key: authority.key_pem().to_owned(),
    };
    Ok(Indexed(app.handle.seen().position.0, files))
}

/// Who signs here.
pub(super) fn authority(app: &App) -> Result<Arc<Authority>, Failure> {
    let authority = app.authority.clone();
    authority.ok_or_else(|| {
        let next = if app.authentication {
            "copy pki/ca.key into it from another director, and start it again; or let another one lead: \
             `quorate cluster transfer-leader`"
        } else {
            "on loopback without TLS nobody needs a certificate; a cluster of several machines begins with \
             `quorate init`"
        };
        let detail = "this director has no certificate authority, so it can let nobody in and renew nothing";
        Failure::new(Code::Unavailable, detail).next_step(next)
    })
}

/// Signs a request for what the cluster says that the machine is, and since when.
pub(super) async fn sign(
    app: &App,
    authority: Arc<Authority>,
    csr: String,
    (node, name, since): (Node, &NodeName, Position),
) -> Result<Certificate, Failure> {
    let role = match node {
        Node::Agent => Role::Agent,
        Node::Director => Role::Director,
    };
    let identity = Identity::new(app.cluster, role, name.as_str());
    let identity = identity.map_err(|error| wrong("name", &error.to_string()))?;
    let identity = identity.let_in_at(since);
    let validity = Validity::usual(SystemTime::now());
    let authorities = authority.trust().pem().to_owned();
    let signed =
        tokio::task::spawn_blocking(move || authority.sign(&csr, &identity, &[], validity));
    match signed.await {
        Ok(Ok(certificate)) => Ok(Certificate {
            certificate,
            authorities,
            expires: clock::text(wall(validity.expires)),
        }),
        Ok(Err(error)) => Err(unsigned(&error)),
        Err(error) => Err(Failure::new(Code::Internal, error.to_string())),
    }
}

fn wall(time: SystemTime) -> WallTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.map_or(0, |since| since.as_millis());
    WallTime(i64::try_from(since).unwrap_or(i64::MAX))
}

pub(super) fn unsigned(error: &Error) -> Failure {
    wrong("csr", &error.to_string())
}
