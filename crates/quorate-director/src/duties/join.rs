//! A new director asks the others to let it in, and for a vote once it has caught up.

use std::sync::Arc;
use std::time::Duration;

use quorate_api::client::{Client, Error};
use quorate_api::problem::Code;
use quorate_api::resources::{AddMember, FormatRange};
use quorate_core::record::DirectorInfo;
use tokio_util::sync::CancellationToken;

use crate::quorum::Quorum;

/// First and longest wait between two tries.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// How a director that is new comes into the quorum.
#[derive(Clone, Debug)]
pub struct Joining {
    /// Where directors are reached that are in it.
    pub client: Client,
    /// It is to follow without a vote.
    pub learner: bool,
}

/// Asks until it is in.
pub(crate) async fn join(
    joining: Joining,
    own: DirectorInfo,
    quorum: Arc<dyn Quorum>,
    shutdown: CancellationToken,
) {
    let mut wait = AGAIN.0;
    let mut refused = None;
    loop {
        let id = quorum.id();
        let known = quorum.members().into_iter().find(|member| member.id == id);
        let asked = match known {
            Some(member) if member.voter || joining.learner => {
                tracing::info!(voter = member.voter, "this director is in the quorum");
                return;
            }
            Some(_) => joining.client.promote_member(own.name.as_str()).await,
            None => {
                let member = AddMember {
                    name: own.name.to_string(),
                    id: format!("{id:x}"),
                    peer_address: quorum.peer_address().unwrap_or_default(),
                    formats: FormatRange {
                        oldest: own.oldest_format.0,
                        newest: own.format.0,
                    },
                    version: Some(own.version.clone()),
                };
                joining.client.add_member(&member).await
            }
        };
        match asked {
            Ok(_) => (wait, refused) = (AGAIN.0, None),
            Err(error) => {
                tell(&error, &mut refused);
                wait = (wait * 2).min(AGAIN.1);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Says why it is not in yet; what a person must do something about, as an error, once.
fn tell(error: &Error, refused: &mut Option<String>) {
    let for_a_person = match error {
        Error::Problem(problem) if problem.code == Code::Conflict => Some(problem),
        Error::Problem(_)
        | Error::Unreachable { .. }
        | Error::EarlierEra { .. }
        | Error::NoLeader
        | Error::OutcomeUnknown { .. }
        | Error::Unreadable { .. } => None,
    };
    let Some(problem) = for_a_person else {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        tracing::info!(%error, cause, "not in the quorum yet");
        return;
    };
    if refused.as_ref() != Some(&problem.detail) {
        let next = problem.next_step.as_deref();
        tracing::error!(
            why = problem.detail,
            next,
            "the other directors do not let this one in"
        );
        *refused = Some(problem.detail.clone());
    }
}
