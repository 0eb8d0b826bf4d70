//! The OpenAPI document, put together from what each route says of itself.

use std::sync::Arc;

use quorate_api::problem::MEDIA_TYPE;
use quorate_api::routes::{CLUSTER_TRANSFER, PARTITION_CHECKPOINT, PLAN};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::{Object, OpenApi, RefOr, Required, Response, Type};

use crate::access::needs::{Need, need};

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
    for (name, path) in &mut document.paths.paths {
        for (method, operation) in [
            ("PUT", &mut path.put),
            ("POST", &mut path.post),
            ("DELETE", &mut path.delete),
        ] {
            if let Some(operation) = operation.as_mut().filter(|_| takes_key(method, name)) {
                let parameters = operation.parameters.get_or_insert_default();
                parameters.push(RefOr::T(idempotency_key()));
            }
        }
        for operation in operations(path) {
            for (status, answer) in &mut operation.responses.responses {
                if let RefOr::T(answer) = answer {
                    complete_answer(status, answer);
                }
            }
        }
    }
}

/// Whether a write carries its idempotency key into the ledger: those of people do. A plan changes nothing, a
/// checkpoint has a number, and the quorum knows itself who leads.
fn takes_key(method: &str, path: &str) -> bool {
    let of_people = matches!(need(method, path), Some(Need::May(..)));
    of_people && ![PLAN, PARTITION_CHECKPOINT, CLUSTER_TRANSFER].contains(&path)
}

fn idempotency_key() -> Parameter {
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "1 to 200 bytes, new for each request, such as a random number. The same request of the same \
             caller under the same key is done once: for an hour, or 4,096 further changes with keys, a repeat \
             is answered like the first time, whichever director leads by then. Another request under the key \
             is a conflict, and so is the repeat of one that created a token, when the director that told its \
             secret leads no longer",
        ))
        .schema(Some(Object::with_type(Type::String)))
        .build()
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
