//! What lives of earlier agent processes: their wardens are asked what they hold, all at once, before
//! anything else begins.

use std::collections::BTreeSet;
use std::path::PathBuf;

use quorate_core::agent::{Event, FoundRun, WardenId};
use quorate_core::ids::Token;
use quorate_core::time::Moment;

use super::data_dir::warden_of;
use super::files::Job;
use super::last_will::LastWill;
use super::link::{self, Descriptors, Link};
use super::{Blob, Holder, Shell};
use crate::warden::PROVEN_DEAD;
use crate::warden::client::{self as warden_client, TalkError};
use crate::warden::group;

/// A living warden and what it holds.
struct Living {
    warden: WardenId,
    dir: PathBuf,
    client: warden_client::Client,
    told: Result<(Vec<FoundRun>, Vec<Descriptors>), TalkError>,
}

/// `None` when it does not answer; its deadline ends it.
async fn ask(dir: PathBuf) -> Option<Living> {
    let warden = warden_of(&dir)?;
    match warden_client::Client::connect(&dir).await {
        Ok(mut client) => {
            let told = link::told(&mut client).await;
            Some(Living {
                warden,
                dir,
                client,
                told,
            })
        }
        Err(error) => {
            tracing::warn!(%error, "a warden is left to its deadline");
            None
        }
    }
}

/// Ends what a dead warden has left, and removes its folder; answers with that and its last will where it
/// is proven that nothing of it executes and the directors may not know yet.
async fn end(dir: PathBuf) -> Option<(PathBuf, LastWill)> {
    let ended = tokio::task::spawn_blocking(move || {
        let emptied = link::clear_group(&dir).ok()?;
        let proof = dir.join(PROVEN_DEAD);
        // The group is gone: what it proved has to be noted for a process after this one.
        let proven = proof.exists() || (emptied && std::fs::write(proof, []).is_ok());
        match LastWill::read(&dir) {
            Ok(will) if proven => Some((dir, will)),
            Ok(_) | Err(_) => {
                // Left behind it would only be in the way of people.
                let _left = std::fs::remove_dir_all(&dir);
                None
            }
        }
    });
    // It cannot panic.
    ended.await.ok().flatten()
}

impl Shell {
    /// Closes the session of a dead warden in the background. Until that is done its folder stays.
    fn execute(&mut self, dir: PathBuf, will: LastWill) {
        let client = self.client.clone();
        self.tasks.spawn(async move {
            match will.execute(&client, "warden_died").await {
                Ok(()) => {
                    tracing::info!(session = will.session, "a dead warden's session is closed");
                    let _left = tokio::fs::remove_dir_all(dir).await;
                }
                // The next process tries again, with the proof that is in the folder.
                Err(error) => tracing::warn!(session = will.session, %error),
            }
        });
    }

    /// Takes over what lives of earlier agent processes.
    pub(super) async fn adopt(&mut self) {
        let dir = self.data.wardens();
        let living = warden_client::find(&dir);
        let stale = std::fs::read_dir(&dir)
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| !living.contains(path));
        // Before any work is taken: what a dead warden left executes without a right.
        let ended = futures::future::join_all(stale.map(end)).await;
        for (dir, will) in ended.into_iter().flatten() {
            self.execute(dir, will);
        }
        // Of other agents, too: beside what follows, which it is never in the way of. Not before, because an
        // own group that is gone proves nothing any more.
        let swept = tokio::task::spawn_blocking(group::sweep);
        // Each has its time limits: one that is frozen must not hold up the others.
        let asked = futures::future::join_all(living.into_iter().map(ask)).await;
        let all = asked.iter().all(Option::is_some);
        let mut held = BTreeSet::new();
        for living in asked.into_iter().flatten() {
            held.extend(living.told.iter().flat_map(|(runs, _)| {
                let tokens = runs.iter().map(|found| found.run.token);
                tokens.collect::<Vec<_>>()
            }));
            self.adopt_one(living);
        }
        // One that did not answer may hold runs that still use their files.
        if all {
            self.sweep(&held);
        }
        // It cannot panic, and gives nothing.
        let _done = swept.await;
    }

    /// Removes what runs and sessions have left that ended with an agent process or a machine.
    fn sweep(&mut self, held: &BTreeSet<Token>) {
        let folders = std::fs::read_dir(self.data.runs()).into_iter().flatten();
        for path in folders.filter_map(Result::ok).map(|entry| entry.path()) {
            let token = path.file_name().and_then(|name| name.to_str());
            let token = token.and_then(|name| name.parse().ok()).map(Token);
            if token.is_none_or(|token| !held.contains(&token)) {
                self.do_later(Job::Remove(path));
            }
        }
        let holders = &self.holders;
        let lives = |warden| holders.contains_key(&warden);
        for job in self.leases.forget_gone(lives) {
            self.do_later(job);
        }
    }

    fn adopt_one(&mut self, living: Living) {
        let Living {
            warden,
            dir,
            client,
            told,
        } = living;
        let blob = client
            .state
            .blob
            .as_deref()
            .and_then(|blob| rmp_serde::from_slice::<Blob>(blob).ok());
        let deadline = client.state.deadline.map(Moment::from_nanos);
        let link = Link::new(warden, dir, client, &self.inputs, &mut self.tasks);
        let (Some(Blob { secret, kept }), Ok((runs, descriptors))) = (blob, told) else {
            // Nothing says whose its runs are.
            tracing::warn!(warden = warden.0, "a warden without a session is ended");
            link.end(&mut self.tasks);
            return;
        };
        tracing::info!(
            warden = warden.0,
            session = kept.session.0,
            runs = runs.len(),
            "adopted a living warden"
        );
        let holder = Holder {
            secret,
            link: Some(link),
            ..Holder::new()
        };
        self.holders.insert(warden, holder);
        for descriptors in descriptors {
            self.attach(warden, descriptors);
        }
        self.step(Event::Found {
            warden,
            kept,
            deadline,
            runs,
        });
    }
}
