//! Applying: all services of a file, or none.

use std::collections::BTreeMap;
use std::path::Path;

use axum::extract::State;
use quorate_api::problem::{Code, FieldError, Problem};
use quorate_api::resources::{AppliedKind, AppliedService, ApplyAnswer, ApplyRequest};
use quorate_api::routes;
use quorate_core::access::Verb;
use quorate_core::director::call::{Answer, Applied, Call};
use quorate_core::ids::ServiceName;
use quorate_core::spec::{self, File, ServiceSpec};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::lists;
use crate::http::App;
use crate::http::access::Caller;
use crate::http::answer::{Failure, Indexed, unexpected};
use crate::http::condition::Unconditional;
use crate::http::extract::JsonBody;
use crate::http::json;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(apply))
}

/// [`ApplyRequest`] with the specification as it was written, so that what is wrong with it can be told.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    spec: Box<RawValue>,
    #[serde(default)]
    base: Option<String>,
}

/// Puts services, all or nothing. Services that are not named stay as they are.
#[utoipa::path(
    post, path = routes::APPLY, tag = "services", operation_id = "apply",
    request_body = ApplyRequest,
    responses((status = 200, body = ApplyAnswer), (status = "default", body = Problem))
)]
async fn apply(
    State(app): State<App>,
    caller: Caller,
    _: Unconditional,
    JsonBody(request): JsonBody<Request>,
) -> Result<Indexed<ApplyAnswer>, Failure> {
    let file = file(&request)?;
    caller.may_all(Verb::Define, file.service.keys())?;
    put(&app, &caller, file, |call| call).await
}

pub(super) fn file(request: &Request) -> Result<File, Failure> {
    let mut file: File = serde_json::from_str(request.spec.get())
        .map_err(|error| json::malformed("the specification", &error))?;
    if let Some(base) = &request.base {
        let base = Path::new(base);
        if !base.is_absolute() {
            return Err(Failure::new(
                Code::MalformedRequest,
                "`base` is not an absolute path",
            ));
        }
        for spec in file.service.values_mut() {
            make_absolute(spec, base);
        }
    }
    Ok(file)
}

/// One service as a file.
pub(super) fn file_of_service(name: &ServiceName, spec: &RawValue) -> Result<File, Failure> {
    let spec = serde_json::from_str(spec.get())
        .map_err(|error| json::malformed("the specification", &error))?;
    let service = BTreeMap::from([(name.clone(), spec)]);
    Ok(File { service })
}

/// What is relative to the file is relative to its folder.
fn make_absolute(spec: &mut ServiceSpec, base: &Path) {
    let join = |path: &mut String| {
        if let Some(joined) = base.join(path.as_str()).to_str() {
            *path = joined.to_owned();
        }
    };
    spec.working_dir.as_mut().map(join);
    let source = spec.partitions.as_mut();
    source.and_then(|source| source.file.as_mut()).map(join);
}

/// Validates a file and puts its services, on the condition that `on` adds to the call.
pub(super) async fn put(
    app: &App,
    caller: &Caller,
    file: File,
    on: impl FnOnce(Call) -> Call,
) -> Result<Indexed<ApplyAnswer>, Failure> {
    valid(&file)?;
    let names = file.service.keys().map(ToString::to_string).collect();
    let lists = lists::sourced(&file);
    let services = file.service.into_iter().collect();
    let answer = app.call(caller.asks(on(Call::Apply { services }))).await?;
    let Answer::Done {
        position,
        mut notes,
        applied,
        ..
    } = answer
    else {
        return Err(unexpected(&answer));
    };
    let changes = applied.iter().map(|(name, applied)| AppliedService {
        service: name.to_string(),
        change: match applied {
            Applied::Created => AppliedKind::Created,
            Applied::Changed => AppliedKind::Changed,
            Applied::Unchanged => AppliedKind::Unchanged,
        },
    });
    let (refused, late) = lists::refused(app, lists).await?;
    notes.extend(refused.iter().map(ToString::to_string));
    notes.extend(late.iter().map(|name| {
        format!("the list of service {name} is not read yet; `quorate status {name}` tells what becomes of it")
    }));
    let applied = ApplyAnswer {
        index: position.0,
        services: names,
        changes: changes.collect(),
        notes,
        refused,
    };
    Ok(Indexed(position.0, applied))
}

pub(super) fn valid(file: &File) -> Result<(), Failure> {
    let mut errors: Vec<FieldError> = spec::validate(file)
        .into_iter()
        .map(|problem| FieldError {
            at: problem.path,
            message: problem.message,
            hint: problem.hint,
        })
        .collect();
    errors.extend(file.service.iter().filter_map(relative_file));
    let detail = match errors.as_slice() {
        [] => return Ok(()),
        [only] => format!("{}: {}", only.at, only.message),
        [first, ..] => format!(
            "{} things are wrong; the first: {}: {}",
            errors.len(),
            first.at,
            first.message
        ),
    };
    let mut failure = Failure::new(Code::InvalidSpecification, detail);
    if let Some(hint) = errors.first().and_then(|first| first.hint.clone()) {
        failure = failure.next_step(hint);
    }
    failure.0.errors = errors;
    Err(failure)
}

/// Only who wrote the file knows what a relative path is relative to.
fn relative_file((name, spec): (&ServiceName, &ServiceSpec)) -> Option<FieldError> {
    let file = spec.partitions.as_ref()?.file.as_ref()?;
    (!Path::new(file).is_absolute()).then(|| FieldError {
        at: format!("service.{name}.partitions.file"),
        message: format!("{file:?} is not an absolute path"),
        hint: Some("send the folder of the specification as `base`".to_owned()),
    })
}
