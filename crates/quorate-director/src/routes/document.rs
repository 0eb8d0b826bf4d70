//! The OpenAPI document, put together from what each route says of itself.

use std::sync::Arc;

use quorate_api::problem::MEDIA_TYPE;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{OpenApi, RefOr, Response};

/// What a JSON body is called unless something else is said of it.
const JSON: &str = "application/json";

/// The document as it is served.
pub(crate) fn document() -> Arc<str> {
    let (_, mut document) = super::described().split_for_parts();
    complete(&mut document);
    // The document is built of texts and numbers only.
    Arc::from(document.to_pretty_json().unwrap_or_default())
}

/// Adds what is the same for all routes, so that none can lack it: every answer is described, which
/// OpenAPI requires, and what is wrong is always told as a problem.
fn complete(document: &mut OpenApi) {
    for path in document.paths.paths.values_mut() {
        for operation in operations(path) {
            for (status, answer) in &mut operation.responses.responses {
                if let RefOr::T(answer) = answer {
                    complete_answer(status, answer);
                }
            }
        }
    }
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let methods = [
        &mut path.get,
        &mut path.put,
        &mut path.post,
        &mut path.delete,
        &mut path.options,
        &mut path.head,
        &mut path.patch,
        &mut path.trace,
    ];
    methods.into_iter().flatten()
}

fn complete_answer(status: &str, answer: &mut Response) {
    let refused = status == "default" || status.starts_with(['4', '5']);
    if answer.description.is_empty() {
        let description = if refused {
            "It was not done; why, and what to do next"
        } else {
            "Success"
        };
        description.clone_into(&mut answer.description);
    }
    if refused && let Some(body) = answer.content.shift_remove(JSON) {
        answer.content.insert(MEDIA_TYPE.to_owned(), body);
    }
}
