//! Applying and planning.

use std::collections::BTreeMap;
use std::path::Path;

use axum::extract::State;
use quorate_api::problem::{Code, FieldError, Problem};
use quorate_api::resources::{ApplyAnswer, ApplyRequest, Plan, ServiceChange, ServiceChangeKind};
use quorate_api::routes;
use quorate_core::director::call::{Answer, Call};
use quorate_core::ids::ServiceName;
use quorate_core::spec::{self, File, ServiceSpec, expand};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::engine::Reading;
use crate::http::App;
use crate::http::answer::{Failure, Indexed, unexpected};
use crate::http::extract::JsonBody;
use crate::http::json;
use crate::views;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(apply))
        .routes(routes!(plan))
}

/// [`ApplyRequest`] with the specification as it was written, so that what is wrong with it can be told.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
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
    JsonBody(request): JsonBody<Request>,
) -> Result<Indexed<ApplyAnswer>, Failure> {
    put(&app, file(&request)?).await
}

/// What an apply would change.
#[utoipa::path(
    post, path = routes::PLAN, tag = "services", operation_id = "plan",
    request_body = ApplyRequest,
    responses((status = 200, body = Plan), (status = "default", body = Problem))
)]
async fn plan(
    State(app): State<App>,
    JsonBody(request): JsonBody<Request>,
) -> Result<Indexed<Plan>, Failure> {
    let file = file(&request)?;
    valid(&file)?;
    app.query(move |reading| Indexed(reading.index(), planned(reading, &file)))
        .await
}

fn file(request: &Request) -> Result<File, Failure> {
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

/// Validates a file and puts its services.
pub(super) async fn put(app: &App, file: File) -> Result<Indexed<ApplyAnswer>, Failure> {
    valid(&file)?;
    let names = file.service.keys().map(ToString::to_string).collect();
    let services = file.service.into_iter().collect();
    let answer = app.call(Call::Apply { services }).await?;
    let Answer::Done { position, notes } = answer else {
        return Err(unexpected(&answer));
    };
    let applied = ApplyAnswer {
        index: position.0,
        services: names,
        notes,
    };
    Ok(Indexed(position.0, applied))
}

fn valid(file: &File) -> Result<(), Failure> {
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

/// What would change about the services themselves.
fn planned(reading: &Reading<'_>, file: &File) -> Plan {
    let services = file.service.iter();
    let services = services.map(|(name, spec)| change(reading, name, spec));
    Plan {
        services: services.collect(),
        ..Plan::default()
    }
}

fn change(reading: &Reading<'_>, name: &ServiceName, spec: &ServiceSpec) -> ServiceChange {
    let before = reading.cluster().service(name);
    let fields = before.map_or_else(Vec::new, |before| differing(before.spec(), spec));
    let mut change = ServiceChange {
        service: name.to_string(),
        change: ServiceChangeKind::Unchanged,
        fields,
        partitions_added: 0,
        partitions_removed: 0,
        partitions_changed: 0,
    };
    // The partitions of a file are not known before it is read.
    if let Ok(Some(listed)) = expand::partitions(name, spec) {
        let known = before.map(quorate_core::cluster::Service::partitions);
        let cluster = reading.cluster();
        let mut kept = 0;
        for partition in &listed {
            let id = known.and_then(|known| known.get(&partition.key));
            match id.and_then(|id| cluster.partition(*id)) {
                None => change.partitions_added += 1,
                Some(before) => {
                    kept += 1;
                    change.partitions_changed += u64::from(!before.described_by(partition));
                }
            }
        }
        let before = known.map_or(0, |known| known.len() as u64);
        change.partitions_removed = before.saturating_sub(kept);
    }
    let moved = change.partitions_added + change.partitions_removed + change.partitions_changed;
    change.change = match before {
        None => ServiceChangeKind::Added,
        Some(_) if !change.fields.is_empty() || moved > 0 => ServiceChangeKind::Changed,
        Some(_) => ServiceChangeKind::Unchanged,
    };
    change
}

/// Paths of the fields in which two specifications differ.
fn differing(before: &ServiceSpec, after: &ServiceSpec) -> Vec<String> {
    let mut fields = Vec::new();
    let values = (views::spec(before), views::spec(after));
    differ("", &values.0, &values.1, &mut fields);
    fields
}

fn differ(
    at: &str,
    before: &serde_json::Value,
    after: &serde_json::Value,
    fields: &mut Vec<String>,
) {
    use serde_json::Value::Object;
    match (before, after) {
        (before, after) if before == after => {}
        (Object(before), Object(after)) => {
            let names: std::collections::BTreeSet<&String> =
                before.keys().chain(after.keys()).collect();
            for name in names {
                let path = if at.is_empty() {
                    name.clone()
                } else {
                    format!("{at}.{name}")
                };
                let none = serde_json::Value::Null;
                let of = |map: &serde_json::Map<_, _>| map.get(name).unwrap_or(&none).clone();
                differ(&path, &of(before), &of(after), fields);
            }
        }
        _ => fields.push(at.to_owned()),
    }
}
