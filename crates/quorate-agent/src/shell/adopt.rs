//! What lives of earlier agent processes: their wardens are asked what they hold, all at once, before
//! anything else begins.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_api::client::Client;
use quorate_core::agent::{Event, FoundRun, WardenId};
use quorate_core::ids::Token;
use quorate_core::time::Moment;

use super::data_dir::warden_of;
use super::files::Job;
use super::last_will::LastWill;
use super::link::{self, Descriptors, Link};
use super::{Blob, Holder, Shell};
use crate::warden::client::{self as warden_client, TalkError};
use crate::warden::{LAST_WILL, PROVEN_DEAD, group, timekeeper};

/// Between two looks at a warden that is about to end.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// A living warden and what it holds.
struct Living {
    warden: WardenId,
    dir: PathBuf,
    client: warden_client::Client,
    told: Result<(Vec<FoundRun>, Vec<Descriptors>), TalkError>,
}

/// `None` when it does not answer: it ends what it holds as if no agent had come.
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
            tracing::warn!(%error, "a warden does not answer; it ends what it holds, as if no agent had come");
            None
        }
    }
}

/// What is found in the folder of a warden in which nobody listens.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Nothing of it executes, and the directors may not know yet.
    Will(Box<LastWill>),
    /// Its processes still end what it held, or tell of that.
    Ending,
    /// Something of it cannot be killed: the next agent process looks again.
    StillThere,
    /// It was removed.
    Nothing,
}

/// Ends what a dead warden has left. Its folder is removed once nobody needs it: what is in it may be the only proof
/// that nothing executes any more, and the only word of that.
fn look(dir: &Path) -> Found {
    // First: who ends after this has noted its proof by the next look.
    let alone = timekeeper::lock(dir).ok();
    let Ok(emptied) = link::clear_group(dir) else {
        return Found::StillThere;
    };
    let proof = dir.join(PROVEN_DEAD);
    // The group is gone: what it proved has to be noted for a process after this one.
    let proven = proof.exists() || (emptied && std::fs::write(proof, []).is_ok());
    match (LastWill::read(dir), alone) {
        (Ok(will), _) if proven => Found::Will(Box::new(will)),
        (Ok(_) | Err(_), None) => Found::Ending,
        (Ok(_) | Err(_), Some(_lock)) => {
            // Left behind it would only be in the way of people.
            let _left = std::fs::remove_dir_all(dir);
            Found::Nothing
        }
    }
}

async fn looked(dir: PathBuf) -> Found {
    let found = tokio::task::spawn_blocking(move || look(&dir));
    // It cannot panic.
    found.await.unwrap_or(Found::StillThere)
}

/// Sees to a warden that nobody can speak to any more, until its folder is gone: closes its session when its end is
/// proven. That may be as late as whatever it waits for, say a disk.
async fn settle(dir: PathBuf, client: Client) {
    loop {
        match looked(dir.clone()).await {
            Found::Nothing | Found::StillThere => return,
            Found::Ending => {}
            Found::Will(will) => match will.execute(&client, "warden_died").await {
                Ok(()) => {
                    tracing::info!(session = will.session, "a dead warden's session is closed");
                    let _told = tokio::fs::remove_file(dir.join(LAST_WILL)).await;
                    continue;
                }
                // The next process tries again, with the proof that is in the folder.
                Err(error) => {
                    tracing::warn!(session = will.session, %error);
                    return;
                }
            },
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

impl Shell {
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
        let stale: Vec<PathBuf> = stale.collect();
        let ended = futures::future::join_all(stale.iter().cloned().map(looked)).await;
        for (dir, found) in stale.into_iter().zip(ended) {
            if matches!(found, Found::Will(_) | Found::Ending) {
                self.tasks.spawn(settle(dir, self.client.clone()));
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn will(dir: &Path) -> LastWill {
        let will = LastWill {
            session: 7,
            secret: "s".to_owned(),
            directors: Vec::new(),
            token: None,
            tls: None,
            expiry_ms: 1000,
        };
        std::fs::write(dir.join(LAST_WILL), serde_json::to_vec(&will).unwrap()).unwrap();
        will
    }

    #[test]
    fn the_folder_of_a_warden_that_still_kills_stays_until_it_has_proven_its_end() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("3");
        std::fs::create_dir(&dir).unwrap();
        let will = Box::new(will(&dir));
        let killing = timekeeper::lock(&dir).unwrap();
        assert_eq!(look(&dir), Found::Ending);
        assert!(dir.join(LAST_WILL).exists());
        std::fs::write(dir.join(PROVEN_DEAD), []).unwrap();
        assert_eq!(look(&dir), Found::Will(will.clone()));
        // Closing it would leave it to a process that another test has just forked.
        killing.unlock().unwrap();
        assert_eq!(look(&dir), Found::Will(will));
        std::fs::remove_file(dir.join(LAST_WILL)).unwrap();
        assert_eq!(look(&dir), Found::Nothing);
        assert!(!dir.exists());
    }

    #[test]
    fn a_warden_that_died_without_a_proof_leaves_its_session_to_the_lease() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("3");
        std::fs::create_dir(&dir).unwrap();
        will(&dir);
        assert_eq!(look(&dir), Found::Nothing);
        assert!(!dir.exists());
    }
}
