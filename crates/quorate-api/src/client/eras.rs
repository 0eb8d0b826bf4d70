//! The highest era that a client has seen. A cluster that is restored begins a new era; a director of an earlier
//! one belongs to a quorum that is given up, and nothing that it says may be believed.

use std::sync::Arc;

use reqwest::Response;
use tokio::sync::watch;

use crate::routes::ERA_HEADER;

/// The highest era seen. Clones share it.
#[derive(Clone, Debug)]
pub struct Eras {
    highest: Arc<watch::Sender<u16>>,
}

impl Eras {
    /// Beginning with what was seen before.
    #[must_use]
    pub fn seen(highest: u16) -> Self {
        Self {
            highest: Arc::new(watch::Sender::new(highest)),
        }
    }

    /// Tells when a higher one is seen.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u16> {
        self.highest.subscribe()
    }

    /// Takes note of the era of an answer. Of one that is too low: it, and the highest.
    pub(super) fn note(&self, response: &Response) -> Result<(), (u16, u16)> {
        let told = response.headers().get(ERA_HEADER);
        let told = told.and_then(|era| era.to_str().ok()?.parse().ok());
        // A director that does not tell is of a version from before there was anything to tell.
        let era: u16 = told.unwrap_or_default();
        let highest = *self.highest.borrow();
        if era < highest {
            return Err((era, highest));
        }
        // What refuses may be no director of the cluster at all.
        if era > highest && response.status().is_success() {
            self.highest.send_if_modified(|known| {
                let rises = era > *known;
                *known = era.max(*known);
                rises
            });
        }
        Ok(())
    }
}
