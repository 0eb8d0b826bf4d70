//! Hands the readings of sources to the loop, and tells the reader whether they are decided.
//!
//! Decides nothing itself: a reading that was refused by the core is decided, too.

use quorate_core::director::call::Call;
use tokio::sync::mpsc;

use super::sources::Reading;
use crate::engine::Handle;

/// Hands in every reading until there are no more readers.
pub(crate) async fn hand_in(handle: Handle, mut readings: mpsc::Receiver<Reading>) {
    while let Some(reading) = readings.recv().await {
        let Reading {
            service,
            partitions,
            decided,
        } = reading;
        let call = Call::Partitions {
            service: service.clone(),
            reading: partitions,
        };
        let outcome = match handle.decide(call).await {
            Some(Ok(made)) => {
                for note in made.notes {
                    tracing::info!(%service, note, "partitions were read");
                }
                true
            }
            Some(Err(refusal)) => {
                tracing::warn!(%service, reason = %refusal, "partitions were refused");
                true
            }
            None => false,
        };
        // Its reader may have ended because the service is gone.
        let _ = decided.send(outcome);
    }
}
