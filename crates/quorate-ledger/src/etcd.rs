//! The ledger in etcd, through the JSON gateway of its v3 interface (etcd 3.4 or later).
//!
//! An append is one transaction: the entry before and the key of the log exist, the new key does not, so both the entry
//! and `tail` are put. Reads are linearizable. Leases, locks and elections of etcd are not used.
//!
//! etcd keeps the old revisions of a key until they are compacted, and `tail` gets one with each append: an etcd under a
//! ledger must compact by itself (`--auto-compaction-mode=periodic --auto-compaction-retention=1h`), or it runs into its
//! quota however much the ledger is trimmed.

mod login;
mod sort;
mod watch;
mod wire;

use std::time::Duration;

use quorate_core::ids::Position;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Cause;
use crate::address::Address;
use crate::http::{Ask, Http, Repeat};
use crate::keyed::{
    After, Change, Done, KeyValue, NewEntry, StoreError, TAIL, Versioned, entry_key,
};
use crate::shared::OpenError;

use login::Login;
use sort::Heard;
use wire::{Deleted, Put, Range, Txn, base64};

const RANGE: &str = "/v3/kv/range";
const PUT: &str = "/v3/kv/put";
const DELETE: &str = "/v3/kv/deleterange";
const TXN: &str = "/v3/kv/txn";
const WATCH: &str = "/v3/watch";

/// How long a watch may say nothing before it is asked whether there was nothing to say: a connection may be dead, and a
/// member may be cut off from the others, without a word.
const QUIET: Duration = Duration::from_secs(5);

/// An etcd, and the keys of one cluster in it.
#[derive(Debug)]
pub(crate) struct Etcd {
    http: Http,
    prefix: String,
    login: Option<Login>,
}

/// Why a request gave no answer.
#[derive(Debug)]
enum Trouble {
    /// Its quota is reached. Whether the request was done is not known: etcd says so, too, of the one that it has done
    /// and that made it full.
    NoSpace(Cause),
    Other(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Other(error)
    }
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::NoSpace(cause) => Self::Unknown(cause),
            Trouble::Other(error) => error,
        }
    }
}

/// The first key after all that begin with `folder`, which ends in a slash.
fn after_folder(folder: &str) -> String {
    let name = folder.strip_suffix('/').unwrap_or(folder);
    // What comes after the slash in ASCII.
    format!("{name}0")
}

impl Etcd {
    /// Does not connect. Reads the files that the address names.
    pub(crate) fn new(address: &Address) -> Result<Self, OpenError> {
        Ok(Self {
            http: Http::new(address)?,
            prefix: address.prefix.clone(),
            login: Login::of(address)?,
        })
    }

    fn key(&self, key: &str) -> String {
        base64(format!("{}/{key}", self.prefix).as_bytes())
    }

    /// Asks once; a second time if the token was too old, for then nothing was done.
    async fn ask<T: DeserializeOwned>(
        &self,
        repeat: Repeat,
        path: &str,
        body: &Value,
    ) -> Result<T, Trouble> {
        let body = wire::to_bytes(body);
        let mut token = self.token(None).await?;
        let mut renewed = false;
        loop {
            let ask = Ask::new(repeat, Method::POST, path.to_owned())
                .header("content-type", Some(String::from("application/json")))
                .header("authorization", token.clone())
                .body(body.clone());
            match self.http.call(&ask, sort::judge::<T>).await? {
                Heard::Told(told) => return Ok(told),
                Heard::NoSpace => return Err(Trouble::NoSpace(sort::no_space())),
                Heard::OldToken if renewed || self.login.is_none() => {
                    return Err(StoreError::Refused(sort::token_refused()).into());
                }
                Heard::OldToken => {
                    token = self.token(token.as_deref()).await?;
                    renewed = true;
                }
            }
        }
    }

    /// What shows who we are, if that must be shown; another one than `bad`.
    async fn token(&self, bad: Option<&str>) -> Result<Option<String>, StoreError> {
        match &self.login {
            Some(login) => login.token(&self.http, bad).await.map(Some),
            None => Ok(None),
        }
    }

    async fn range(&self, body: &Value) -> Result<Range, StoreError> {
        Ok(self.ask(Repeat::Read, RANGE, body).await?)
    }

    async fn txn(&self, compare: Value, success: Value) -> Result<Done, Trouble> {
        let body = json!({"compare": compare, "success": success});
        let txn: Txn = self.ask(Repeat::Write, TXN, &body).await?;
        Ok(if txn.succeeded {
            Done::Done
        } else {
            Done::NotSo
        })
    }

    fn put_of(&self, key: &str, value: &[u8]) -> Value {
        json!({"request_put": {"key": self.key(key), "value": base64(value)}})
    }

    fn delete_of(&self, key: &str) -> Value {
        json!({"request_delete_range": {"key": self.key(key)}})
    }

    /// A condition: nothing is there.
    fn is_free(&self, key: &str) -> Value {
        json!({"key": self.key(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"})
    }

    /// A condition: something is.
    fn is_there(&self, key: &str) -> Value {
        json!({"key": self.key(key), "target": "CREATE", "result": "GREATER", "create_revision": "0"})
    }

    /// A condition: what is there has this version.
    fn is_at(&self, key: &str, version: Option<u64>) -> Value {
        // What is not there was modified at revision 0.
        let version = version.unwrap_or(0).to_string();
        json!({"key": self.key(key), "target": "MOD", "result": "EQUAL", "mod_revision": version})
    }

    /// Whether the entry was certainly not created: it is not there, and what makes it right still is, which would have
    /// been trimmed first.
    async fn is_certainly_not_created(&self, entry: NewEntry<'_>) -> Result<bool, StoreError> {
        let guard = match entry.after {
            After::Key(before) | After::Begin(before) => before,
            After::Nothing => TAIL,
        };
        let found = self
            .get_all(&[entry.key.to_owned(), guard.to_owned()])
            .await?;
        let [created, guard] = found.as_slice() else {
            return Ok(false);
        };
        Ok(match entry.after {
            After::Key(_) | After::Begin(_) => created.is_none() && guard.is_some(),
            After::Nothing => created.is_none() && guard.is_none(),
        })
    }

    async fn delete(&self, from: String, to: String) -> Result<(), StoreError> {
        let body = json!({"key": from, "range_end": to});
        let _: Deleted = self.ask(Repeat::Write, DELETE, &body).await?;
        Ok(())
    }
}

impl KeyValue for Etcd {
    async fn create_entry(&self, entry: NewEntry<'_>) -> Result<Done, StoreError> {
        let mut compare = vec![self.is_free(entry.key)];
        let mut success = vec![
            self.put_of(entry.key, entry.value),
            self.put_of(TAIL, entry.tail),
        ];
        match entry.after {
            After::Key(before) => {
                compare.extend([self.is_there(before), self.is_there(entry.log)]);
            }
            After::Begin(empty) => {
                compare.push(self.is_there(empty));
                success.extend([self.put_of(entry.log, b""), self.delete_of(empty)]);
            }
            After::Nothing => {
                compare.push(self.is_free(TAIL));
                success.push(self.put_of(entry.log, b""));
            }
        }
        match self.txn(json!(compare), json!(success)).await {
            // The answer came after whatever it did, so a look shows it.
            Err(Trouble::NoSpace(cause)) => {
                if matches!(self.is_certainly_not_created(entry).await, Ok(true)) {
                    Err(StoreError::Refused(cause))
                } else {
                    Err(StoreError::Unknown(cause))
                }
            }
            done => Ok(done?),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let range = self.range(&json!({"key": self.key(key)})).await?;
        Ok(range.kvs.into_iter().next().map(|kv| Versioned {
            value: kv.value.0,
            version: kv.mod_revision.0,
        }))
    }

    async fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let ranges = keys
            .iter()
            .map(|key| json!({"request_range": {"key": self.key(key)}}));
        let body = json!({"success": ranges.collect::<Vec<_>>()});
        let txn: Txn = self.ask(Repeat::Read, TXN, &body).await?;
        if txn.responses.len() != keys.len() {
            let (asked, told) = (keys.len(), txn.responses.len());
            let cause = format!("etcd was asked for {asked} keys and told of {told}");
            return Err(StoreError::Unknown(cause.into()));
        }
        let found = txn.responses.into_iter().map(|response| {
            let kv = response.range.kvs.into_iter().next();
            kv.map(|kv| kv.value.0)
        });
        Ok(found.collect())
    }

    async fn put(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        let body = json!({"key": self.key(key), "value": base64(value)});
        let _: Put = self.ask(Repeat::Write, PUT, &body).await?;
        Ok(())
    }

    async fn swap(
        &self,
        key: &str,
        version: Option<u64>,
        value: &[u8],
    ) -> Result<Done, StoreError> {
        self.change(&[Change::Swap {
            key,
            version,
            value,
        }])
        .await
    }

    async fn change(&self, changes: &[Change<'_>]) -> Result<Done, StoreError> {
        let (mut compare, mut success) = (Vec::new(), Vec::new());
        for change in changes {
            match *change {
                Change::Swap {
                    key,
                    version,
                    value,
                } => {
                    compare.push(self.is_at(key, version));
                    success.push(self.put_of(key, value));
                }
                Change::Set { key, value } => success.push(self.put_of(key, value)),
                Change::Delete { key } => {
                    compare.push(self.is_there(key));
                    success.push(self.delete_of(key));
                }
                Change::Free { key } => compare.push(self.is_free(key)),
            }
        }
        Ok(self.txn(json!(compare), json!(success)).await?)
    }

    async fn delete_entries(&self, from: Position, to: Position) -> Result<(), StoreError> {
        // One request is one step.
        let (from, to) = (self.key(&entry_key(from)), self.key(&entry_key(to)));
        self.delete(from, to).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let folder = format!("{folder}/");
        let body = json!({
            "key": self.key(&folder),
            "range_end": self.key(&after_folder(&folder)),
            "keys_only": true,
        });
        let range = self.range(&body).await?;
        let folder = format!("{}/{folder}", self.prefix);
        let mut names: Vec<String> = Vec::new();
        for kv in range.kvs {
            let key = String::from_utf8_lossy(&kv.key.0);
            let rest = key.strip_prefix(&folder).unwrap_or_default();
            let name = rest.split('/').next().unwrap_or_default();
            // They come in order.
            if !name.is_empty() && names.last().is_none_or(|last| last != name) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    async fn delete_folder(&self, folder: &str, name: &str) -> Result<(), StoreError> {
        let folder = format!("{folder}/{name}/");
        self.delete(self.key(&folder), self.key(&after_folder(&folder)))
            .await
    }

    async fn follow(&self, told: &(dyn Fn(&[u8]) + Send + Sync)) -> StoreError {
        loop {
            if let Err(error) = self.watch(told).await {
                return error;
            }
        }
    }
}
