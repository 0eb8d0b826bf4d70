//! The directors: where each is, and what it does.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use quorate_api::problem::Problem;
use quorate_api::resources::{DirectorAnnouncement, DirectorRole, DirectorView, Done, Page};
use quorate_api::routes;
use quorate_core::director::Role;
use quorate_core::director::call::Call;
use quorate_core::format::Format;
use quorate_core::ids::DirectorName;
use quorate_core::record::DirectorInfo;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::engine::Reading;
use crate::http::App;
use crate::http::access::Caller;
use crate::http::answer::{Failure, Indexed};
use crate::http::extract::{JsonBody, Names, Params};
use crate::quorum::Member;

/// A member of the quorum that has not answered for so long does not.
const SILENT: Duration = Duration::from_secs(3);

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(announce))
}

/// The directors, as the leader sees them.
#[utoipa::path(
    get, path = routes::DIRECTORS, tag = "directors", operation_id = "list_directors",
    params(("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<DirectorView>), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    mut params: Params,
) -> Result<Indexed<Page<DirectorView>>, Failure> {
    params.limit()?;
    params.text("cursor")?;
    params.end()?;
    let own = (app.name.to_string(), app.address.to_string());
    let members = app.quorum.as_ref().map(|quorum| quorum.members());
    let page = app.query(move |reading| {
        let index = reading.index();
        let items = all(reading, own, &members.unwrap_or_default());
        let next = None;
        Indexed(index, Page { index, items, next })
    });
    page.await
}

/// Those that have told of themselves, those of the quorum, and this one.
fn all(reading: &Reading<'_>, own: (String, String), members: &[Member]) -> Vec<DirectorView> {
    let cluster = reading.cluster();
    let view = |name: &str, address: String, version: Option<String>| DirectorView {
        name: name.to_owned(),
        address,
        role: DirectorRole::Follower,
        epoch: cluster.epoch().0,
        position: None,
        version,
    };
    let known = cluster.directors().values().map(|director| {
        let (address, version) = (director.address.clone(), director.version.clone());
        let name = director.name.to_string();
        let seen = view(&name, address, Some(version));
        (name, seen)
    });
    let mut all: BTreeMap<String, DirectorView> = known.collect();
    for member in members {
        let new = || view(&member.name, String::new(), None);
        let seen = all.entry(member.name.clone()).or_insert_with(new);
        if !member.voter {
            seen.role = DirectorRole::Learner;
        }
        if member.silent_for.is_some_and(|silent| silent > SILENT) {
            seen.role = DirectorRole::Unreachable;
        }
    }
    if let (Some(address), Some(leader)) = (reading.director.leader_address(), cluster.leader()) {
        let name = leader.name.as_str();
        let new = || view(name, address, None);
        let seen = all.entry(name.to_owned()).or_insert_with(new);
        seen.role = DirectorRole::Leader;
    }
    let (name, address) = own;
    let new = || view(&name, address, None);
    let seen = all.entry(name.clone()).or_insert_with(new);
    seen.position = Some(reading.index());
    match reading.director.role() {
        Role::Leader => seen.role = DirectorRole::Leader,
        Role::Follower | Role::Candidate => {}
        Role::Halted(_) => seen.role = DirectorRole::Unreachable,
    }
    all.into_values().collect()
}

/// A director tells where it is reached and what it can read.
#[utoipa::path(
    put, path = routes::DIRECTOR, tag = "directors", operation_id = "announce_director",
    params(("name" = String, Path)), request_body = DirectorAnnouncement,
    responses((status = 200, body = Done), (status = "default", body = Problem))
)]
async fn announce(
    State(app): State<App>,
    caller: Caller,
    Names(name): Names<DirectorName>,
    JsonBody(told): JsonBody<DirectorAnnouncement>,
) -> Result<Indexed<Done>, Failure> {
    caller.may_speak_as(&name)?;
    if let Some(quorum) = &app.quorum {
        let members = quorum.members();
        // One that was removed does not come back by telling of itself.
        if !members.iter().any(|member| member.name == name.as_str()) {
            let names = members.iter().map(|member| member.name.as_str());
            return Err(Failure::not_found("director", name.as_str(), names));
        }
    }
    let director = DirectorInfo {
        name,
        id: told.id,
        address: told.address,
        version: told.version,
        format: Format(told.format),
        oldest_format: Format(told.oldest_format),
    };
    app.change(Call::Announce { director }).await
}
