//! A new director asks the others to let it in, and for a vote once it has caught up.

use std::sync::Arc;
use std::time::Duration;

use quorate_api::client::Client;
use quorate_api::resources::AddMember;
use quorate_core::ids::DirectorName;
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
    name: DirectorName,
    quorum: Arc<dyn Quorum>,
    shutdown: CancellationToken,
) {
    let mut wait = AGAIN.0;
    loop {
        let own = quorum.id();
        let known = quorum.members().into_iter().find(|member| member.id == own);
        let asked = match known {
            Some(member) if member.voter || joining.learner => {
                tracing::info!(voter = member.voter, "this director is in the quorum");
                return;
            }
            Some(_) => joining.client.promote_member(name.as_str()).await,
            None => {
                let member = AddMember {
                    name: name.to_string(),
                    id: format!("{own:x}"),
                    peer_address: quorum.peer_address().unwrap_or_default(),
                };
                joining.client.add_member(&member).await
            }
        };
        match asked {
            Ok(_) => wait = AGAIN.0,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::info!(%error, cause, "not in the quorum yet");
                wait = (wait * 2).min(AGAIN.1);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
    }
}
