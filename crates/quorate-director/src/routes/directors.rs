//! The directors, as far as this one knows them.

use axum::extract::State;
use quorate_api::problem::Problem;
use quorate_api::resources::{DirectorRole, DirectorView, Page};
use quorate_api::routes;
use quorate_core::director::Role;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::App;
use crate::http::answer::{Failure, Indexed};
use crate::http::extract::Params;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// This director, and the leader if it is another.
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
    let (name, address) = (app.name.to_string(), app.address.to_string());
    let page = app.query(move |reading| {
        let cluster = reading.cluster();
        let role = match reading.director.role() {
            Role::Leader => DirectorRole::Leader,
            Role::Follower | Role::Candidate => DirectorRole::Follower,
            Role::Halted(_) => DirectorRole::Unreachable,
        };
        let index = reading.index();
        let epoch = cluster.epoch().0;
        let mut items = vec![DirectorView {
            name,
            address,
            role,
            epoch,
            position: index,
        }];
        if let (Some(address), Some(leader)) = (reading.director.leader_address(), cluster.leader())
        {
            items.push(DirectorView {
                name: leader.name.to_string(),
                address,
                role: DirectorRole::Leader,
                epoch,
                position: index,
            });
        }
        items.sort_by(|a, b| a.name.cmp(&b.name));
        let next = None;
        Indexed(index, Page { index, items, next })
    });
    page.await
}
