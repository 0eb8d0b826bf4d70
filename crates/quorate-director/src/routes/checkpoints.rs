//! How far the owners of partitions have come: kept for the next one, by way of their agents or on
//! their own word.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use quorate_api::checkpoint::{CheckpointView, Content as WireContent};
use quorate_api::problem::{Code, Problem};
use quorate_api::resources::Done;
use quorate_api::routes;
use quorate_api::session::{CheckpointsRequest, CheckpointsResponse, Refusal};
use quorate_core::checkpoint::Content;
use quorate_core::director::call::{Answer, Call, Checkpoints, Written};
use quorate_core::ids::{Incarnation, PartitionId, PartitionKey, ServiceName, Token};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::partitions::look;
use super::sessions::authorize;
use crate::http::App;
use crate::http::answer::{Failure, Indexed, unexpected};
use crate::http::extract::{JsonBody, Names, Params, bad};
use crate::views;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get, put))
        .routes(routes!(of_session))
}

/// The last checkpoint of a partition, with an ETag.
#[utoipa::path(
    get, path = routes::PARTITION_CHECKPOINT, tag = "partitions", operation_id = "get_checkpoint",
    params(("name" = String, Path), ("key" = String, Path)),
    responses(
        (status = 200, body = CheckpointView),
        (status = 304, description = "It is still the one of `If-None-Match`"),
        (status = "default", body = Problem),
    )
)]
async fn get(
    State(app): State<App>,
    Names(names): Names<(ServiceName, PartitionKey)>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Failure> {
    params.end()?;
    let name = format!("{}/{}", names.0, names.1);
    let found = app.query(move |reading| {
        look(reading, &names, |_, partition| {
            partition.checkpoint().map(views::checkpoint)
        })
    });
    let Indexed(index, found) = found.await??;
    let Some(view) = found else {
        let detail = format!("partition {name} has no checkpoint yet");
        return Err(Failure::new(Code::NotFound, detail)
            .next_step("its run writes one with PUT /self/checkpoint on $QUORATE_SOCKET"));
    };
    let etag = view.etag();
    let known = headers.get(header::IF_NONE_MATCH);
    let mut response = if known.is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Indexed(index, view).into_response()
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}

/// Keeps a checkpoint for an owner that speaks for itself: it proves so by its fencing token.
#[utoipa::path(
    put, path = routes::PARTITION_CHECKPOINT, tag = "partitions", operation_id = "put_checkpoint",
    params(
        ("name" = String, Path), ("key" = String, Path),
        ("token" = u64, Query, description = "The fencing token under which the partition is held"),
        ("number" = Option<u64>, Query, description = "Higher than that of the last one under this token, so that one that comes late replaces nothing newer; without: the next one"),
    ),
    request_body = WireContent,
    responses(
        (status = 200, body = Done),
        (status = 409, body = Problem, description = "A later one of this token is kept"),
        (status = "default", body = Problem),
    )
)]
async fn put(
    State(app): State<App>,
    Names((service, key)): Names<(ServiceName, PartitionKey)>,
    mut params: Params,
    JsonBody(given): JsonBody<WireContent>,
) -> Result<Indexed<Done>, Failure> {
    let token = params.number("token")?;
    let number = params.number("number")?;
    params.end()?;
    let token = token.ok_or_else(|| bad("token", "it is missing"));
    let token = token.map_err(|failure| failure.next_step("a run finds it in $QUORATE_TOKEN"))?;
    let call = Call::PutCheckpoint {
        service,
        key,
        token: Token(token),
        number,
        content: content(&given)?,
    };
    app.change(call).await
}

/// Keeps checkpoints of runs of a session, many at once. May be repeated.
#[utoipa::path(
    post, path = routes::SESSION_CHECKPOINTS, tag = "sessions", operation_id = "checkpoints",
    params(("id" = u64, Path)), request_body = CheckpointsRequest,
    responses((status = 200, body = CheckpointsResponse), (status = "default", body = Problem))
)]
async fn of_session(
    State(app): State<App>,
    Names(id): Names<u64>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<CheckpointsRequest>,
) -> Result<Indexed<CheckpointsResponse>, Failure> {
    let session = authorize(&app, id, &headers).await?;
    let given = request.checkpoints.iter().map(|written| {
        Ok(Written {
            partition: PartitionId(written.partition),
            token: Token(written.token),
            number: written.number,
            content: content(&written.content)?,
        })
    });
    let checkpoints = Checkpoints {
        session,
        incarnation: Incarnation(request.incarnation),
        given: given.collect::<Result<_, Failure>>()?,
    };
    let answer = app.call(Call::Checkpoints(checkpoints)).await?;
    let Answer::Checkpoints { kept, refused } = answer else {
        return Err(unexpected(&answer));
    };
    let refused = refused.into_iter().map(|(token, reason)| Refusal {
        token: token.0,
        reason,
    });
    let answer = CheckpointsResponse {
        kept: kept.into_iter().map(|token| token.0).collect(),
        refused: refused.collect(),
    };
    Ok(Indexed(app.handle.seen().position.0, answer))
}

fn content(given: &WireContent) -> Result<Content, Failure> {
    let bytes = given
        .bytes()
        .map_err(|error| Failure::new(Code::MalformedRequest, format!("base64: {error}")))?;
    Content::new(&bytes).map_err(|error| {
        Failure::new(Code::TooLarge, error.to_string())
            .next_step("keep the work itself elsewhere and only its name here")
    })
}
