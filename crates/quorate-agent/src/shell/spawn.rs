//! A new warden: started, and connected to.

use std::time::Duration;

use quorate_core::agent::{Event, WardenId};

use super::containment::tell_containment;
use super::link::Link;
use super::{Holder, Input, Shell};
use crate::warden::client as warden_client;

impl Shell {
    pub(super) fn spawn_warden(&mut self, warden: WardenId, lease: Duration) {
        self.holders.insert(warden, Holder::new());
        let dir = self.data.warden(warden);
        let program = self.config.program.clone();
        let terms = warden_client::Terms {
            adopt_within: self.config.adopt_within,
            lease,
            files: Some(self.files_of_runs),
        };
        let inputs = self.inputs.clone();
        let note = self.data.note_warden(warden);
        self.tasks.spawn(async move {
            // It cannot panic.
            let _noted = tokio::task::spawn_blocking(note).await;
            let spawned = warden_client::Client::spawn(&program, &dir, terms).await;
            let input = match spawned {
                Ok(client) => Input::Linked {
                    warden,
                    client: Box::new(client),
                },
                Err(error) => {
                    tracing::error!(%error, "no warden");
                    Input::Event(Event::WardenGone {
                        warden,
                        proven: false,
                    })
                }
            };
            // Nobody listens when the agent has left meanwhile; the warden ends by itself.
            let _left = inputs.send(input).await;
        });
    }

    pub(super) fn linked(&mut self, warden: WardenId, client: warden_client::Client) {
        let dir = self.data.warden(warden);
        tell_containment(warden, &client.state);
        let link = Link::new(warden, dir, client, &self.inputs, &mut self.tasks);
        match self.holders.get_mut(&warden) {
            Some(holder) => {
                holder.link = Some(link);
                self.step(Event::Spawned { warden });
            }
            // It was given up before it was up.
            None => link.end(&mut self.tasks),
        }
    }
}
