//! What is told of the kill path of a new warden.

use quorate_core::agent::WardenId;

use crate::warden::client as warden_client;

/// Says what the kill path of a new warden was proven to be, and why it is not better.
pub(super) fn tell_containment(warden: WardenId, state: &warden_client::State) {
    let grade = &state.containment;
    let kernel = grade == crate::warden::KERNEL;
    for why in &state.shortfalls {
        if kernel {
            tracing::info!(
                warden = warden.0,
                grade,
                why,
                "containment has no second line"
            );
        } else {
            tracing::warn!(warden = warden.0, grade, why, "containment is weaker");
        }
    }
    tracing::info!(warden = warden.0, grade, "the kill path is proven");
}
