//! What a machine can do for an agent, for people who look before they start one.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::shell::identity;
pub use crate::sys::{Discipline, discipline};
use crate::warden::client::{Client, ConnectError, Terms};
use crate::warden::group::Leftover;
use crate::warden::protocol::Order;

/// A warden that holds nothing ends in milliseconds.
const ENDED_WITHIN: Duration = Duration::from_secs(5);

/// Which machine this is, as it says of itself when it is let into a cluster and when it registers.
#[must_use]
pub fn id() -> String {
    identity::machine_id()
}

/// How surely this machine ends a process tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillPath {
    /// The grade of containment that was proven.
    pub containment: String,
    /// Why it is not better, a sentence each.
    pub shortfalls: Vec<String>,
    /// How long it took to start a warden, with its proof.
    pub took: Duration,
}

/// Proves the kill path as each warden does at its start (R19): with a real one, in a folder of its own,
/// which is made and removed again.
///
/// # Errors
/// When no warden can be started here.
pub async fn prove_kill_path(program: &Path, dir: &Path) -> Result<KillPath, ConnectError> {
    let began = Instant::now();
    let spawned = Client::spawn(program, dir, Terms::of_a_trial(Duration::ZERO)).await;
    let took = began.elapsed();
    let proven = match spawned {
        Ok(mut client) => {
            // One that does not take it ends with its connection.
            let _gone = client.sender.send(&Order::End).await;
            let _late = client.proof.proven_dead(ENDED_WITHIN).await;
            Ok(KillPath {
                containment: client.state.containment,
                shortfalls: client.state.shortfalls,
                took,
            })
        }
        Err(error) => Err(error),
    };
    let left = Leftover::of(dir);
    if left.is_none_or(|left| left.clear(ENDED_WITHIN)) {
        // What stays is an empty folder of temporary files.
        let _left = std::fs::remove_dir_all(dir);
    }
    proven
}
