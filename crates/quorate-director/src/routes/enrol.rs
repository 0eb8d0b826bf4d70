//! Letting machines in: a join token and a request go in, a certificate comes out.
//!
//! A use of the token is committed before anything is signed, and what the machine may be is what the
//! token says. Nothing of the request but its key gets into the certificate.

use axum::extract::State;
use quorate_api::access::{EnrolAnswer, EnrolRequest};
use quorate_api::problem::{Code, Problem};
use quorate_api::routes;
use quorate_core::access::{Admission, JoinToken, Refused};
use quorate_core::audit::Who;
use quorate_core::director::call::{AccessCall, Call};
use quorate_core::ids::{NodeName, Position};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::certificates::{authority, sign, unsigned};
use super::sessions::wrong;
use crate::access::secret::{self, Kind};
use crate::clock;
use crate::engine::{secret_hash, secret_matches};
use crate::http::App;
use crate::http::access::known_join_token;
use crate::http::answer::{Failure, Indexed};
use crate::http::extract::JsonBody;
use crate::http::peer::Source;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(enrol))
}

/// A machine asks to be let in. The same request again takes no further use of the join token.
#[utoipa::path(
    post, path = routes::ENROL, tag = "access", operation_id = "enrol",
    request_body = EnrolRequest,
    responses(
        (status = 200, body = EnrolAnswer),
        (status = 403, body = Problem, description = "The join token lets in nobody more"),
        (status = 409, body = Problem, description = "Another machine has this name"),
        (status = "default", body = Problem),
    )
)]
async fn enrol(
    State(app): State<App>,
    source: Source,
    JsonBody(request): JsonBody<EnrolRequest>,
) -> Result<Indexed<EnrolAnswer>, Failure> {
    let EnrolRequest {
        join_token,
        name,
        csr,
        machine_id,
    } = request;
    let name = NodeName::new(&name).map_err(|e| wrong("name", &e.to_string()))?;
    let token = authorized(&app, join_token.trim()).await?;
    let node = token.grant.admits;
    let digest = secret_hash(&csr);
    // Told before the ledger is asked, in better words; what counts is what the ledger says.
    let admits = token.admits(clock::now().wall, node, &name, &digest);
    admits.map_err(|refused| closed(&token, refused))?;
    let authority = authority(&app)?;
    authority.check(&csr).map_err(|error| unsigned(&error))?;
    let admission = Admission {
        token: token.grant.id,
        node,
        name: name.clone(),
        request: digest,
    };
    let who = Who::JoinToken {
        id: admission.token.clone(),
    };
    let call = Call::Access(Box::new(AccessCall::Admit {
        admission,
        machine: machine_id,
    }));
    // A repeat is known by what is to be signed, whatever key it has.
    let call = source.asks(who, None, call);
    let Indexed(index, _) = app.change(call).await?;
    let signed = sign(&app, authority, csr, (node, &name, Position(index))).await?;
    tracing::info!(%node, %name, "a machine was let in");
    let answer = EnrolAnswer {
        index,
        role: node.to_string(),
        name: name.to_string(),
        certificate: signed.certificate,
        authorities: signed.authorities,
        expires: signed.expires,
    };
    Ok(Indexed(index, answer))
}

/// The join token that was shown, if its secret is right.
async fn authorized(app: &App, text: &str) -> Result<JoinToken, Failure> {
    let unknown = |detail: &str| {
        Failure::new(Code::Unauthenticated, detail)
            .next_step("ask an admin for another one: `quorate join-token create --role agent`")
    };
    let given = secret::parse(Kind::Join, text);
    let given =
        given.ok_or_else(|| unknown("this is no join token, or a part of it is missing"))?;
    let token = known_join_token(app, &given.id).await;
    // As much is done for one that nobody knows.
    let hash = token.as_ref().map_or("", |token| token.grant.hash.as_str());
    let right = secret_matches(hash, given.secret);
    let token = token.filter(|_| right);
    token.ok_or_else(|| unknown("this join token is not known here"))
}

fn closed(token: &JoinToken, refused: Refused) -> Failure {
    let role = token.grant.admits;
    Failure::new(Code::Forbidden, refused.to_string()).next_step(format!(
        "ask an admin for another one: `quorate join-token create --role {role}`"
    ))
}
