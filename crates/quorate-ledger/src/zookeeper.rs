//! The ledger in `ZooKeeper` 3.5 or later.
//!
//! Keys are znodes below `/prefix`, all of them persistent: no ephemeral node, no lock and no session is evidence of
//! anything. The parents are made when a session begins and finds them missing:
//!
//! | znode | what |
//! | --- | --- |
//! | `/prefix/entries`, `/prefix/log`, `/prefix/parts` | parents of the entries, of the key of the log, and of the parts of snapshots |
//! | `/prefix/probe` | empty; written to, so that what is read after it is current |
//! | `/prefix/tail`, `/prefix/snapshot`, … | the keys of [`keyed`](crate::keyed) |
//!
//! **An append** is one `multi`: the entry before and the key of the log exist, the entry is created, `tail` is set, or
//! nothing of it. The first entry creates `tail` and the key of the log instead.
//!
//! **Linearizable reads.** Whichever server a client speaks to answers reads from what it has applied itself, which
//! may lag, and `sync` is answered by a leader that may be deposed without knowing it. Writes are decided by a quorum,
//! though, in one order, and a server answers what a session asks in the order in which it was asked: a read that
//! follows a write of the same session is answered only when that server has applied the write. So [`KeyValue::get`]
//! writes to `probe` and reads right after it. The write is proposed after the call began, hence ordered after all that
//! was answered before; the read shows the state at that write or later. This holds for what is not there as well. If
//! the connection is lost in between, the client reconnects to a server only if that one has applied all that the
//! client has seen; if the write's answer is lost, so is the read.
//!
//! **Other reads** go to the server that the session has, and each session begins with a write to `probe`: they are not
//! behind what was seen in a session before.
//!
//! **Versions** are those of znodes, 32 bits that start again at the lowest number after 2³¹ writes, and of which one
//! means any. `snapshot` and `owner` alone are written with a version, once for each snapshot: no cluster gets that far.

mod errors;
mod link;

use std::time::Duration;

use futures::future::{join, join_all};
use quorate_core::ids::Position;
use zookeeper_client::{Acls, CreateMode, CreateOptions, Error, MultiWriteError, MultiWriter};

use crate::address::Address;
use crate::keyed::{
    After, Change, Done, KeyValue, NewEntry, StoreError, TAIL, Versioned, entry_key,
};
use crate::shared::OpenError;

use errors::refused;
use link::{Link, Step, Target};

/// How long a step may take.
const STEP_LIMIT: Duration = Duration::from_secs(5);

/// How many entries are deleted at once.
const DELETED_AT_ONCE: u64 = 100;

/// How many nodes below a folder are deleted without waiting for answers.
const DELETED_IN_FLIGHT: usize = 16;

/// Whatever version there is.
const ANY: i32 = -1;

/// A cluster's part of a `ZooKeeper` store.
#[derive(Debug)]
pub(crate) struct Zookeeper {
    link: Link,
    layout: Layout,
}

/// Where things are, and who may touch them.
#[derive(Clone, Debug)]
struct Layout {
    /// `/prefix`.
    root: String,
    probe: String,
    /// Whether what is made is for our user alone.
    private: bool,
}

impl Layout {
    fn of(address: &Address) -> Self {
        let root = format!("/{}", address.prefix);
        Self {
            probe: format!("{root}/probe"),
            private: address.user.is_some(),
            root,
        }
    }

    fn path(&self, key: &str) -> String {
        format!("{}/{key}", self.root)
    }

    fn created(&self) -> CreateOptions<'static> {
        CreateMode::Persistent.with_acls(if self.private {
            Acls::creator_all()
        } else {
            Acls::anyone_all()
        })
    }
}

impl Zookeeper {
    /// The store at this address. It is connected to in a task of the Tokio runtime within which this must be called.
    ///
    /// # Errors
    /// When the address asks for what this store cannot do.
    pub(crate) fn new(address: &Address) -> Result<Self, OpenError> {
        let target = Target::of(address)?;
        let layout = Layout::of(address);
        Ok(Self {
            link: Link::spawn(target, layout.clone()),
            layout,
        })
    }

    /// Whether there is a node, as the server that we speak to has it.
    async fn exists(&self, step: &Step, path: &str) -> Result<bool, StoreError> {
        let stat = step.limited(step.client.check_stat(path)).await?;
        Ok(stat.map_err(|error| step.sorted(error, path))?.is_some())
    }

    /// The first of these positions that has an entry, `to` when none has. Whoever deletes does it in the order of
    /// positions, so those that have none come before those that have one.
    async fn first_present(&self, from: Position, to: Position) -> Result<Position, StoreError> {
        let (mut absent_below, mut present) = (from.0, to.0);
        // Most often all is there, or all was deleted already.
        let mut probed = [to.0.saturating_sub(1), from.0].into_iter();
        while absent_below < present {
            let middle = absent_below + (present - absent_below) / 2;
            let at = probed.next().unwrap_or(middle);
            let at = at.clamp(absent_below, present - 1);
            let step = self.link.step().await?;
            let path = self.layout.path(&entry_key(Position(at)));
            if self.exists(&step, &path).await? {
                present = at;
            } else {
                absent_below = at + 1;
            }
        }
        Ok(Position(present))
    }

    /// Deletes these entries, all or none. `Some`: none, because that one of them is not there.
    async fn delete_at_once(
        &self,
        from: Position,
        to: Position,
    ) -> Result<Option<Position>, StoreError> {
        let step = self.link.step().await?;
        let mut multi = step.client.new_multi_writer();
        for at in from.0..to.0 {
            let path = self.layout.path(&entry_key(Position(at)));
            multi
                .add_delete(&path, None)
                .map_err(|error| refused(error, &path))?;
        }
        match step.limited(multi.commit()).await? {
            Ok(_) => Ok(None),
            Err(MultiWriteError::OperationFailed {
                index,
                source: Error::NoNode,
            }) => Ok(Some(Position(from.0.saturating_add(index as u64)))),
            Err(error) => Err(step.sorted(error.into(), &self.layout.root)),
        }
    }

    /// Makes several changes.
    async fn done(&self, step: &Step, all: Several<'_>, path: &str) -> Result<Done, StoreError> {
        let Several {
            mut writer, not_so, ..
        } = all;
        match step.limited(writer.commit()).await? {
            Ok(_) => Ok(Done::Done),
            Err(MultiWriteError::OperationFailed { index, source }) => {
                if not_so
                    .get(index)
                    .is_some_and(|errors| errors.contains(&source))
                {
                    return Ok(Done::NotSo);
                }
                // None of them was done.
                Err(refused(source, path))
            }
            Err(MultiWriteError::RequestFailed { source }) => Err(step.sorted(source, path)),
        }
    }

    /// Creates a node; whether it was not there.
    async fn create(&self, step: &Step, path: &str, value: &[u8]) -> Result<Done, Error> {
        let options = self.layout.created();
        match step.client.create(path, value, &options).await {
            Ok(_) => Ok(Done::Done),
            Err(Error::NodeExists) => Ok(Done::NotSo),
            Err(error) => Err(error),
        }
    }

    /// Sets a node, which is created with its parent where they are missing.
    async fn set_or_create(&self, step: &Step, path: &str, value: &[u8]) -> Result<(), Error> {
        let created = match self.create(step, path, value).await {
            Err(Error::NoNode) => {
                let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                step.client.mkdir(parent, &self.layout.created()).await?;
                self.create(step, path, value).await?
            }
            created => created?,
        };
        match created {
            Done::Done => Ok(()),
            Done::NotSo => step.client.set_data(path, value, None).await.map(drop),
        }
    }
}

impl KeyValue for Zookeeper {
    async fn create_entry(&self, entry: NewEntry<'_>) -> Result<Done, StoreError> {
        let (tail, log) = (self.layout.path(TAIL), self.layout.path(entry.log));
        let path = self.layout.path(entry.key);
        let step = self.link.step().await?;
        let mut all = Several::new(step.client.new_multi_writer(), self.layout.created());
        let put_together = match entry.after {
            After::Key(before) => {
                let before = self.layout.path(before);
                all.exists(&before)
                    .and_then(|()| all.exists(&log))
                    .and_then(|()| all.create(&path, entry.value))
                    .and_then(|()| all.set(&tail, entry.tail))
            }
            After::Begin(empty) => all
                .delete(&self.layout.path(empty))
                .and_then(|()| all.create(&log, b""))
                .and_then(|()| all.create(&path, entry.value))
                .and_then(|()| all.set(&tail, entry.tail)),
            After::Nothing => all
                .create(&tail, entry.tail)
                .and_then(|()| all.create(&log, b""))
                .and_then(|()| all.create(&path, entry.value)),
        };
        put_together.map_err(|error| refused(error, &path))?;
        self.done(&step, all, &path).await
    }

    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let path = self.layout.path(key);
        let step = self.link.step().await?;
        // They are sent now, in this order, without waiting for each other's answers.
        let written = step.client.set_data(&self.layout.probe, b"", None);
        let read = step.client.get_data(&path);
        let (written, read) = step.limited(join(written, read)).await?;
        written.map_err(|error| step.sorted(error, &self.layout.probe))?;
        match read {
            Ok((value, stat)) => Ok(Some(Versioned {
                value,
                version: u64::from(stat.version.cast_unsigned()),
            })),
            Err(Error::NoNode) => Ok(None),
            Err(error) => Err(step.sorted(error, &path)),
        }
    }

    async fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let paths: Vec<String> = keys.iter().map(|key| self.layout.path(key)).collect();
        let step = self.link.step().await?;
        let reads = join_all(paths.iter().map(|path| step.client.get_data(path)));
        let read = step.limited(reads).await?;
        let values = paths.iter().zip(read).map(|(path, read)| match read {
            Ok((value, _)) => Ok(Some(value)),
            Err(Error::NoNode) => Ok(None),
            Err(error) => Err(step.sorted(error, path)),
        });
        values.collect()
    }

    async fn put(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        let path = self.layout.path(key);
        let step = self.link.step().await?;
        let set = step.limited(self.set_or_create(&step, &path, value));
        set.await?.map_err(|error| step.sorted(error, &path))
    }

    async fn swap(
        &self,
        key: &str,
        version: Option<u64>,
        value: &[u8],
    ) -> Result<Done, StoreError> {
        let path = self.layout.path(key);
        let step = self.link.step().await?;
        let Some(version) = version else {
            let created = step.limited(self.create(&step, &path, value)).await?;
            return created.map_err(|error| step.sorted(error, &path));
        };
        // One that this store did not tell is none that a node has.
        let Ok(version) = u32::try_from(version) else {
            return Ok(Done::NotSo);
        };
        let set = step
            .client
            .set_data(&path, value, Some(version.cast_signed()));
        match step.limited(set).await? {
            Ok(_) => Ok(Done::Done),
            Err(Error::BadVersion | Error::NoNode) => Ok(Done::NotSo),
            Err(error) => Err(step.sorted(error, &path)),
        }
    }

    async fn change(&self, changes: &[Change<'_>]) -> Result<Done, StoreError> {
        let step = self.link.step().await?;
        let mut all = Several::new(step.client.new_multi_writer(), self.layout.created());
        for change in changes {
            let (Change::Swap { key, .. }
            | Change::Set { key, .. }
            | Change::Delete { key }
            | Change::Free { key }) = *change;
            let path = self.layout.path(key);
            let put_together = match *change {
                Change::Swap {
                    version: None,
                    value,
                    ..
                } => all.create(&path, value),
                Change::Swap {
                    version: Some(version),
                    value,
                    ..
                } => {
                    // One that this store did not tell is none that a node has.
                    let Ok(version) = u32::try_from(version) else {
                        return Ok(Done::NotSo);
                    };
                    all.set_at(&path, version.cast_signed(), value)
                }
                Change::Set { value, .. } => all.set(&path, value),
                Change::Delete { .. } => all.delete(&path),
                // There is no check for what is not there.
                Change::Free { .. } => all.create(&path, b"").and_then(|()| all.delete(&path)),
            };
            put_together.map_err(|error| refused(error, &path))?;
        }
        self.done(&step, all, &self.layout.root).await
    }

    async fn delete_entries(&self, from: Position, to: Position) -> Result<(), StoreError> {
        let end_of = |next: Position| Position(next.0.saturating_add(DELETED_AT_ONCE).min(to.0));
        let mut next = self.first_present(from, to).await?;
        let mut end = end_of(next);
        while next < to {
            match self.delete_at_once(next, end).await? {
                None => next = end,
                // Those before it are there.
                Some(missing) if missing > next => {
                    end = missing;
                    continue;
                }
                // Somebody else deletes the same ones, and is further.
                Some(_) => next = self.first_present(Position(next.0 + 1), to).await?,
            }
            end = end_of(next);
        }
        Ok(())
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let path = self.layout.path(folder);
        let step = self.link.step().await?;
        match step.limited(step.client.list_children(&path)).await? {
            Ok(names) => Ok(names),
            Err(Error::NoNode) => Ok(Vec::new()),
            Err(error) => Err(step.sorted(error, &path)),
        }
    }

    async fn delete_folder(&self, folder: &str, name: &str) -> Result<(), StoreError> {
        let folder = format!("{folder}/{name}");
        let names = self.list(&folder).await?;
        let mut paths: Vec<String> = names
            .iter()
            .map(|name| self.layout.path(&format!("{folder}/{name}")))
            .collect();
        paths.push(self.layout.path(&folder));
        for paths in paths.chunks(DELETED_IN_FLIGHT) {
            let step = self.link.step().await?;
            // In this order: the folder comes last.
            let deleted = join_all(paths.iter().map(|path| step.client.delete(path, None)));
            for (path, deleted) in paths.iter().zip(step.limited(deleted).await?) {
                match deleted {
                    Ok(()) | Err(Error::NoNode) => {}
                    Err(error) => return Err(step.sorted(error, path)),
                }
            }
        }
        Ok(())
    }

    async fn follow(&self, told: &(dyn Fn(&[u8]) + Send + Sync)) -> StoreError {
        let path = self.layout.path(TAIL);
        loop {
            if let Err(error) = self.follow_once(&path, told).await {
                return error;
            }
        }
    }
}

impl Zookeeper {
    /// Tells what `tail` has and waits until it has something else.
    async fn follow_once(
        &self,
        path: &str,
        told: &(dyn Fn(&[u8]) + Send + Sync),
    ) -> Result<(), StoreError> {
        let step = self.link.step().await?;
        let read = step.limited(step.client.get_and_watch_data(path)).await?;
        let watcher = match read {
            Ok((tail, _, watcher)) => {
                told(&tail);
                watcher
            }
            Err(Error::NoNode) => {
                let looked = step.limited(step.client.check_and_watch_stat(path)).await?;
                let (stat, watcher) = looked.map_err(|error| step.sorted(error, path))?;
                if stat.is_some() {
                    // Created meanwhile.
                    return Ok(());
                }
                watcher
            }
            Err(error) => return Err(step.sorted(error, path)),
        };
        let event = watcher.changed().await;
        if event.session_state.is_terminated() {
            let why = format!(
                "the session with the servers ended ({})",
                event.session_state
            );
            return Err(StoreError::Unknown(why.into()));
        }
        Ok(())
    }
}

/// Several changes, all or none, and what each says when what it asks for is not so.
struct Several<'a> {
    writer: MultiWriter<'a>,
    options: CreateOptions<'static>,
    not_so: Vec<&'static [Error]>,
}

impl<'a> Several<'a> {
    fn new(writer: MultiWriter<'a>, options: CreateOptions<'static>) -> Self {
        Self {
            writer,
            options,
            not_so: Vec::new(),
        }
    }

    fn exists(&mut self, path: &str) -> Result<(), Error> {
        self.not_so.push(&[Error::NoNode]);
        self.writer.add_check_version(path, ANY)
    }

    fn create(&mut self, path: &str, value: &[u8]) -> Result<(), Error> {
        self.not_so.push(&[Error::NodeExists]);
        self.writer.add_create(path, value, &self.options)
    }

    /// What is there, as nobody deletes it.
    fn set(&mut self, path: &str, value: &[u8]) -> Result<(), Error> {
        self.not_so.push(&[]);
        self.writer.add_set_data(path, value, None)
    }

    fn set_at(&mut self, path: &str, version: i32, value: &[u8]) -> Result<(), Error> {
        self.not_so.push(&[Error::BadVersion, Error::NoNode]);
        self.writer.add_set_data(path, value, Some(version))
    }

    fn delete(&mut self, path: &str) -> Result<(), Error> {
        self.not_so.push(&[Error::NoNode]);
        self.writer.add_delete(path, None)
    }
}
