//! The log after a power cut at any moment: what was acknowledged is there, and nothing that was never
//! appended. The power goes while the log works, while it is being opened again, and after a process
//! that was killed had left to the system what no sync had made durable.

use std::collections::BTreeMap;
use std::path::Path;

use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use super::tests::{entry, opened};
use super::{LogStore, open};
use crate::disk::watched::{Drive, Watched, lay_out};
use crate::files;
use crate::types::{Entry, LogId, Vote, log_id, term_of};

/// What somebody was told.
#[derive(Clone, Debug, Default, PartialEq)]
struct Told {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

impl Told {
    fn next(&self) -> u64 {
        let behind_purged = self.purged.map_or(0, |purged| purged.index + 1);
        let last = self.entries.last_key_value();
        last.map_or(behind_purged, |(last, _)| last + 1)
    }

    fn id(&self, index: u64) -> Option<LogId> {
        let entry = self.entries.get(&index).map(|entry| entry.log_id);
        entry.or(self.purged.filter(|purged| purged.index == index))
    }

    /// Whether a log may show `found` if it was working from this state towards `then`.
    fn allows(&self, then: &Self, found: &Self) -> Result<(), String> {
        if ![self.vote, then.vote].contains(&found.vote) {
            return Err(format!("the vote is {:?}", found.vote));
        }
        let Some(purged) = [self, then]
            .into_iter()
            .find(|told| told.purged == found.purged)
        else {
            return Err(format!("purged is {:?}", found.purged));
        };
        let first = purged.purged.map_or(0, |purged| purged.index + 1);
        let least = self.next().min(then.next()).max(first);
        let most = self.next().max(then.next());
        if !(least..=most).contains(&found.next()) {
            let next = found.next();
            return Err(format!("it ends before {next}, not {least} to {most}"));
        }
        // One of them goes on where the other ends, or begins where the other has been purged.
        let mut expected = self.entries.clone();
        expected.extend(then.entries.clone());
        expected.retain(|index, _| (first..found.next()).contains(index));
        if found.entries == expected {
            return Ok(());
        }
        Err(format!("other records than {first} to {}", found.next()))
    }
}

async fn found(log: &mut LogStore) -> Told {
    let entries = log.try_get_log_entries(..).await.unwrap();
    Told {
        vote: log.read_vote().await.unwrap(),
        purged: log.purged(),
        entries: entries
            .into_iter()
            .map(|entry| (entry.log_id.index, entry))
            .collect(),
    }
}

/// A stretch of the recording in which one thing was done.
struct Step {
    /// Up to here only what came before was done.
    from: usize,
    before: Told,
    after: Told,
    what: String,
}

/// Does something to the log, as the Raft library would.
async fn work(log: &mut LogStore, told: &mut Told, chance: &mut StdRng) -> String {
    let term = told.vote.map_or(0, |vote| vote.leader_id().term);
    match chance.random_range(0..10) {
        0 => {
            let vote = Vote::new(term + 1, chance.random_range(1..4));
            log.save_vote(&vote).await.unwrap();
            told.vote = Some(vote);
            format!("vote {vote}")
        }
        1 | 2 => {
            let first = told.purged.map_or(0, |purged| purged.index + 1);
            let keep = chance.random_range(first..=told.next());
            let last = keep.checked_sub(1).and_then(|last| told.id(last));
            log.truncate_after(last).await.unwrap();
            told.entries.split_off(&keep);
            format!("truncate from {keep}")
        }
        3 if told.next() > 0 => {
            let jump = chance.random_range(0..8) == 0;
            let first = told.purged.map_or(0, |purged| purged.index + 1);
            let upto = match jump {
                true => log_id(term, told.next() + 5),
                false if first < told.next() => {
                    told.id(chance.random_range(first..told.next())).unwrap()
                }
                false => return "nothing".to_owned(),
            };
            log.purge(upto).await.unwrap();
            told.entries = told.entries.split_off(&(upto.index + 1));
            told.purged = Some(upto);
            format!("purge to {upto}")
        }
        _ => {
            let last = told.next().checked_sub(1).and_then(|last| told.id(last));
            let term = term.max(last.map_or(0, |last| term_of(&last)));
            let count = chance.random_range(1..8);
            let added: Vec<Entry> = (told.next()..)
                .take(count)
                .map(|index| entry(term, index, chance.random_range(0..700)))
                .collect();
            log.blocking_append(added.clone()).await.unwrap();
            let ids = added.into_iter().map(|entry| (entry.log_id.index, entry));
            told.entries.extend(ids);
            format!("append {count}")
        }
    }
}

/// A log that did some things in a watched folder.
async fn worked(dir: &Path, chance: &mut StdRng) -> (Watched, Vec<Step>) {
    let watched = Watched::new(dir, Drive::default());
    let mut told = Told::default();
    let mut steps = vec![Step {
        from: 0,
        before: told.clone(),
        after: told.clone(),
        what: "open".to_owned(),
    }];
    let mut log = opened(dir);
    let from = watched.done();
    log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    let before = told.clone();
    told.vote = Some(Vote::new_committed(1, 1));
    steps.push(Step {
        from,
        before,
        after: told.clone(),
        what: "first vote".to_owned(),
    });
    for _ in 0..25 {
        let (from, before) = (watched.done(), told.clone());
        let what = work(&mut log, &mut told, chance).await;
        steps.push(Step {
            from,
            before,
            after: told.clone(),
            what,
        });
        if chance.random_range(0..6) == 0 {
            log.close().await.unwrap();
            log = opened(dir);
        }
    }
    log.close().await.unwrap();
    (watched, steps)
}

/// A folder with these files.
fn folder(files: &BTreeMap<String, Vec<u8>>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    lay_out(dir.path(), files);
    dir
}

/// Opens what is left and says what it shows; `None` while there is nothing that makes it a log.
async fn recovered(dir: &Path) -> Result<(LogStore, Told), String> {
    let lock = files::lock(dir).map_err(|error| error.to_string())?;
    let mut log = open(dir, super::tests::SIZES, lock).map_err(|error| error.to_string())?;
    let told = found(&mut log).await;
    Ok((log, told))
}

struct Case<'a> {
    step: &'a Step,
    name: String,
}

impl Case<'_> {
    fn check(&self, found: &Told) {
        if let Err(wrong) = self.step.before.allows(&self.step.after, found) {
            self.fail(&wrong);
        }
    }

    fn fail(&self, wrong: &str) -> ! {
        panic!("{}, during {}: {wrong}", self.name, self.step.what)
    }

    /// The power goes, now, while the log works.
    async fn cut(&self, drive: &Drive, chance: &mut StdRng) {
        let left = drive.after_cut(chance);
        let dir = folder(&left);
        let watched = Watched::new(dir.path(), Drive::holding(&left));
        let (mut log, told) = match recovered(dir.path()).await {
            Ok(recovered) => recovered,
            Err(wrong) => self.fail(&wrong),
        };
        self.check(&told);
        // It goes again while the log is opened: that must not have made anything worse.
        let at = chance.random_range(0..=watched.done());
        let again = folder(&watched.drive(at).after_cut(chance));
        match recovered(again.path()).await {
            Ok((log, told)) => {
                self.check(&told);
                log.close().await.unwrap();
            }
            Err(wrong) => self.fail(&format!("cut again while being opened: {wrong}")),
        }
        // And it goes on from there.
        let term = told.vote.map_or(0, |vote| vote.leader_id().term);
        let added = entry(term, told.next(), 100);
        log.blocking_append([added.clone()]).await.unwrap();
        log.close().await.unwrap();
        let (log, later) = recovered(dir.path()).await.unwrap();
        assert_eq!(later.entries.last_key_value(), Some((&told.next(), &added)));
        log.close().await.unwrap();
    }

    /// The process is killed; after another was started and told somebody what it has, the power goes.
    async fn kill_then_cut(&self, drive: Drive, chance: &mut StdRng) {
        let dir = folder(&drive.seen());
        let watched = Watched::new(dir.path(), drive);
        let (log, told) = match recovered(dir.path()).await {
            Ok(recovered) => recovered,
            Err(wrong) => self.fail(&format!("killed: {wrong}")),
        };
        self.check(&told);
        let left = watched.drive(watched.done()).after_cut(chance);
        log.close().await.unwrap();
        match recovered(folder(&left).path()).await {
            Ok((_, later)) if later == told => {}
            Ok((_, later)) => self.fail(&format!("told {told:?}, later {later:?}")),
            Err(wrong) => self.fail(&format!("killed, then cut: {wrong}")),
        }
    }
}

async fn power_is_cut(seed: u64) {
    let mut chance = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let (watched, steps) = worked(dir.path(), &mut chance).await;
    for at in 0..=watched.done() {
        let step = steps.iter().rev().find(|step| step.from <= at).unwrap();
        let case = Case {
            step,
            name: format!("seed {seed}, cut after {at} of {}", watched.done()),
        };
        case.cut(&watched.drive(at), &mut chance).await;
        case.kill_then_cut(watched.drive(at), &mut chance).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_power_cut_at_any_moment() {
    for seed in 0..3 {
        power_is_cut(seed).await;
    }
}
