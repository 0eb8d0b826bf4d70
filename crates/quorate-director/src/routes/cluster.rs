//! The quorum of directors: who belongs to it, how far each has come, and changing it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use quorate_api::problem::{Code, Problem};
use quorate_api::resources::{
    AddMember, ClusterView, DirectorRole, Done, FormatRange, MemberView, TransferLeader,
};
use quorate_api::routes;
use quorate_core::cluster::{Cluster, LOST};
use quorate_core::director::call::{Answer, Call, Membership};
use quorate_core::ids::DirectorName;
use quorate_core::record::DirectorInfo;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::sessions::wrong;
use super::upgrade::{Newcomer, half_done, reads_the_ledger};
use crate::backup;
use crate::clock;
use crate::engine::{Led, Reading};
use crate::http::App;
use crate::http::access::Caller;
use crate::http::answer::{Failure, Indexed, not_leader};
use crate::http::extract::{JsonBody, Names, NoBody, Params};
use crate::quorum::{Member, Quorum, QuorumError, heir};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(add))
        .routes(routes!(promote))
        .routes(routes!(remove))
        .routes(routes!(transfer))
        .routes(routes!(backup))
}

/// The members of the quorum as the leader sees them.
#[utoipa::path(
    get, path = routes::CLUSTER, tag = "directors", operation_id = "get_cluster",
    responses((status = 200, body = ClusterView), (status = "default", body = Problem))
)]
async fn show(State(app): State<App>, params: Params) -> Result<Indexed<ClusterView>, Failure> {
    params.end()?;
    let members = app.quorum.as_ref().map(|quorum| quorum.members());
    let cluster = app.cluster;
    let keyless = keyless(&app);
    let store = app.store.clone();
    let known = app.clone();
    let view = app.query(move |reading| {
        let state = reading.cluster();
        let view = |member: &Member| {
            let known = state.directors().get(member.name.as_str());
            member_view(member, known)
        };
        let voters = members.iter().flatten().filter(|member| member.voter);
        let voters = voters.count();
        let shown = match &members {
            Some(members) => members.iter().map(view).collect(),
            None => announced(&known, state),
        };
        let members = members.unwrap_or_default();
        ClusterView {
            index: reading.index(),
            cluster: cluster.to_string(),
            epoch: state.epoch().0,
            era: state.era().0,
            recovering: state.lost().is_some(),
            format: state.format().0,
            voters: u32::try_from(voters).unwrap_or(u32::MAX),
            losses: u32::try_from(voters.saturating_sub(1) / 2).unwrap_or(u32::MAX),
            ledger: store.as_deref().map(str::to_owned),
            members: shown,
            warnings: recovering(reading)
                .into_iter()
                .chain(warnings(&members))
                .chain(half_done(state, &members))
                .chain(keyless)
                .collect(),
        }
    });
    let view = view.await?;
    Ok(Indexed(view.index, view))
}

/// That this director can sign nothing.
fn keyless(app: &App) -> Option<String> {
    (app.authentication && app.authority.is_none()).then(|| {
        format!(
            "director {} has no pki/ca.key: while it leads no machine is let in and no certificate is renewed; copy \
             it from another director and start this one again",
            app.name
        )
    })
}

/// That a restored cluster gives nothing away yet.
fn recovering(reading: &Reading<'_>) -> Option<String> {
    reading.cluster().lost()?;
    let over = reading.director.expires(LOST);
    let left = over.map(|over| over.since(reading.now.moment).as_secs_f64().ceil());
    let left = left.map_or_else(String::new, |left| format!(", in about {left} s"));
    Some(format!(
        "restored from a backup: nothing starts before every lease of before is over{left}"
    ))
}

/// Whether a director leads, as far as this one knows.
fn leads(app: &App, name: &DirectorName) -> bool {
    match app.handle.led() {
        Led::Here => app.name == *name,
        Led::By { name: leader, .. } => leader == *name,
        Led::Nobody => false,
    }
}

/// The directors over a store: each that has told of itself.
fn announced(app: &App, state: &Cluster) -> Vec<MemberView> {
    let view = |director: &DirectorInfo| MemberView {
        name: director.name.to_string(),
        id: format!("{:x}", director.id),
        role: if leads(app, &director.name) {
            DirectorRole::Leader
        } else {
            DirectorRole::Follower
        },
        address: Some(director.address.clone()),
        peer_address: String::new(),
        version: Some(director.version.clone()),
        formats: Some(FormatRange {
            oldest: director.oldest_format.0,
            newest: director.format.0,
        }),
        behind: None,
        silent_ms: None,
    };
    state.directors().values().map(view).collect()
}

fn member_view(member: &Member, known: Option<&DirectorInfo>) -> MemberView {
    MemberView {
        name: member.name.clone(),
        id: format!("{:x}", member.id),
        role: match (member.leads, member.voter) {
            (true, _) => DirectorRole::Leader,
            (false, true) => DirectorRole::Follower,
            (false, false) => DirectorRole::Learner,
        },
        address: known.map(|director| director.address.clone()),
        peer_address: member.peer_address.clone(),
        version: known.map(|director| director.version.clone()),
        formats: known.map(|director| FormatRange {
            oldest: director.oldest_format.0,
            newest: director.format.0,
        }),
        behind: member.behind,
        silent_ms: member.silent_for.map(clock::millis),
    }
}

/// What a person should know about who votes.
fn warnings(members: &[Member]) -> Vec<String> {
    let voters = members.iter().filter(|member| member.voter).count();
    if voters < 2 || voters % 2 == 1 {
        return Vec::new();
    }
    let bears = (voters - 1) / 2;
    vec![format!(
        "{voters} directors vote, which bears the loss of {bears}, no more than {} would; add one or remove one",
        voters - 1
    )]
}

/// Adds a director that waits to be added. It follows, and does not vote yet.
#[utoipa::path(
    post, path = routes::CLUSTER_MEMBERS, tag = "directors", operation_id = "add_member",
    request_body = AddMember,
    responses((status = 200, body = Done), (status = "default", body = Problem))
)]
async fn add(
    State(app): State<App>,
    caller: Caller,
    JsonBody(member): JsonBody<AddMember>,
) -> Result<Indexed<Done>, Failure> {
    let name = DirectorName::new(&member.name).map_err(|e| wrong("name", &e.to_string()))?;
    caller.may_speak_as(&name)?;
    let id = u64::from_str_radix(&member.id, 16)
        .map_err(|_| wrong("id", "it is a number in hexadecimal"))?;
    if member.peer_address.is_empty() || member.peer_address.len() > 300 {
        return Err(wrong("peer_address", "write host:port"));
    }
    let quorum = quorum(&app)?;
    let ledger = app.query(|reading| reading.cluster().format()).await?;
    let newcomer = Newcomer {
        name: &name,
        formats: member.formats,
        version: member.version.as_deref(),
    };
    reads_the_ledger(&newcomer, ledger)?;
    let known = find(&*quorum, &name).is_ok_and(|known| known.id == id);
    let added = quorum.add(id, &name, &member.peer_address).await;
    let done = changed(&app, added)?;
    if !known {
        tell(&app, &caller, Membership::Added, name).await;
    }
    Ok(done)
}

/// Writes down who has changed the members. The change itself is done and stays so.
async fn tell(app: &App, caller: &Caller, change: Membership, director: DirectorName) {
    let call = caller.asks(Call::Membership {
        change,
        director: director.clone(),
    });
    if let Err(failure) = app.call(call).await {
        let why = failure.0.detail;
        tracing::warn!(?change, %director, why, "a change of the members is not in the audit log");
    }
}

/// The whole state as one file, to be restored from. It holds secrets as hashes only.
#[utoipa::path(
    get, path = routes::CLUSTER_BACKUP, tag = "directors", operation_id = "backup",
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = Problem),
    )
)]
async fn backup(State(app): State<App>, params: Params) -> Result<Response, Failure> {
    params.end()?;
    let (cluster, name) = (app.cluster, app.name.clone());
    let file = app.query(move |reading| {
        let state = reading.cluster();
        (reading.index(), backup::write(cluster, &name, state))
    });
    let (index, file) = file.await?;
    tracing::info!(index, bytes = file.len(), "a backup is handed out");
    let mut response = file.into_response();
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(routes::INDEX_HEADER, HeaderValue::from(index));
    Ok(response)
}

/// Gives a director that has caught up a vote.
#[utoipa::path(
    post, path = routes::CLUSTER_PROMOTE, tag = "directors", operation_id = "promote_member",
    params(("name" = String, Path)),
    responses((status = 200, body = Done), (status = "default", body = Problem))
)]
async fn promote(
    State(app): State<App>,
    caller: Caller,
    Names(name): Names<DirectorName>,
    _: NoBody,
) -> Result<Indexed<Done>, Failure> {
    caller.may_speak_as(&name)?;
    let quorum = quorum(&app)?;
    let member = find(&*quorum, &name)?;
    let done = changed(&app, quorum.promote(member.id).await)?;
    if !member.voter {
        tell(&app, &caller, Membership::Promoted, name).await;
    }
    Ok(done)
}

/// Removes a director for good. One that leads hands over first, and the next leader removes it.
#[utoipa::path(
    delete, path = routes::CLUSTER_MEMBER, tag = "directors", operation_id = "remove_member",
    params(("name" = String, Path)),
    responses((status = 200, body = Done), (status = "default", body = Problem))
)]
async fn remove(
    State(app): State<App>,
    caller: Caller,
    Names(name): Names<DirectorName>,
) -> Result<Indexed<Done>, Failure> {
    if app.store.is_some() {
        if leads(&app, &name) {
            let detail = format!("director {name} leads, and nobody can keep it from that");
            return Err(Failure::new(Code::Conflict, detail)
                .next_step("stop it for good first; then another one leads"));
        }
        return forget(&app, &caller, name).await;
    }
    let quorum = quorum(&app)?;
    match find(&*quorum, &name) {
        Ok(member) if member.id == quorum.id() && app.handle.led() == Led::Here => {
            let heir = next_leader(&*quorum)?;
            quorum.transfer(heir.id).await.map_err(failure)?;
            return Err(not_leader(None));
        }
        Ok(member) => quorum.remove(member.id).await.map_err(failure)?,
        Err(unknown) => {
            // A removal that lost its leader half-way is gone on with: only its name is left. One that lost
            // its answer is answered.
            let (told, again) = (name.clone(), caller.clone());
            let told = app.query(move |reading| {
                let known = reading.cluster().directors().contains_key(&told);
                known || again.has_asked_before(reading)
            });
            if !told.await? {
                return Err(unknown);
            }
        }
    }
    match forget(&app, &caller, name).await {
        // It never told of itself.
        Err(failure) if failure.0.code == Code::NotFound => changed(&app, Ok(())),
        told => told,
    }
}

/// Forgets what a director has told of itself. Over a store that is all that there is of it.
async fn forget(
    app: &App,
    caller: &Caller,
    director: DirectorName,
) -> Result<Indexed<Done>, Failure> {
    let forget = Call::ForgetDirector { director };
    let answer = app.call(caller.asks(forget)).await?;
    let Answer::Done { .. } = answer else {
        return Err(crate::http::answer::unexpected(&answer));
    };
    changed(app, Ok(()))
}

/// Who leads after this director.
fn next_leader(quorum: &dyn Quorum) -> Result<Member, Failure> {
    let members = quorum.members();
    let heir = heir(&members, quorum.id()).cloned();
    heir.ok_or_else(|| {
        let detail = "it is the only director that votes, and the cluster is in it";
        Failure::new(Code::Conflict, detail).next_step("add another director first")
    })
}

/// Hands leadership over.
#[utoipa::path(
    post, path = routes::CLUSTER_TRANSFER, tag = "directors", operation_id = "transfer_leader",
    request_body = TransferLeader,
    responses((status = 200, body = Done), (status = "default", body = Problem))
)]
async fn transfer(
    State(app): State<App>,
    caller: Caller,
    JsonBody(to): JsonBody<TransferLeader>,
) -> Result<Indexed<Done>, Failure> {
    let quorum = quorum(&app)?;
    let heir = match to.to {
        Some(name) => {
            let name = DirectorName::new(&name).map_err(|e| wrong("to", &e.to_string()))?;
            find(&*quorum, &name)?
        }
        None => next_leader(&*quorum)?,
    };
    let hands_over = app.handle.led() == Led::Here && heir.voter && !heir.leads;
    if hands_over && let Ok(name) = DirectorName::new(&heir.name) {
        tell(&app, &caller, Membership::Leads, name).await;
    }
    changed(&app, quorum.transfer(heir.id).await)
}

fn quorum(app: &App) -> Result<Arc<dyn Quorum>, Failure> {
    app.quorum.clone().ok_or_else(|| {
        let detail = "the ledger of this cluster is a shared store, which has no members";
        Failure::new(Code::Conflict, detail)
            .next_step(
                "start another director with the same --ledger, or stop one: when the leader ends, another one leads",
            )
    })
}

fn find(quorum: &dyn Quorum, name: &DirectorName) -> Result<Member, Failure> {
    let members = quorum.members();
    let found = members.iter().find(|member| member.name == name.as_str());
    found.cloned().ok_or_else(|| {
        let names = members.iter().map(|member| member.name.as_str());
        Failure::not_found("director", name.as_str(), names)
    })
}

fn changed(app: &App, outcome: Result<(), QuorumError>) -> Result<Indexed<Done>, Failure> {
    outcome.map_err(failure)?;
    let index = app.handle.seen().position.0;
    let members = app.quorum.as_ref().map(|quorum| quorum.members());
    let done = Done {
        index,
        notes: warnings(&members.unwrap_or_default()),
        changed: true,
    };
    Ok(Indexed(index, done))
}

fn failure(error: QuorumError) -> Failure {
    match error {
        QuorumError::NotLeading => not_leader(None),
        QuorumError::NotYet(why) => {
            Failure::new(Code::Unavailable, why).next_step("try again in a moment")
        }
        QuorumError::Refused(why) => Failure::new(Code::Conflict, why),
        QuorumError::Unknown(why) => Failure::new(Code::OutcomeUnknown, why)
            .next_step("`quorate cluster status` shows whether it was done"),
    }
}
