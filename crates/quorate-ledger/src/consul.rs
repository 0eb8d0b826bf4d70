//! The ledger in Consul's store of keys and values, through its HTTP interface (Consul 1.0 or later).
//!
//! An append is one transaction: the entry before and the key of the log are there (`get`), the new key is not (`cas` at
//! index 0), `tail` is set.
//! Reads are consistent ones, except that whoever waits for news takes what a server knows. Sessions and locks of Consul
//! are not used.
//!
//! Limits that are kept: a value of 512 KiB (`kv_max_value_size`), the body of a transaction of as much
//! (`txn_max_req_len`), and 64 operations in one.

mod sort;
mod wire;

use std::convert::Infallible;
use std::time::Duration;

use quorate_core::ids::Position;
use reqwest::Method;
use tokio::time::Instant;

use crate::address::{Address, Secret};
use crate::http::{Ask, Http, Repeat};
use crate::keyed::{
    After, Change, Done, KeyValue, NewEntry, StoreError, TAIL, Versioned, entry_key,
};
use crate::shared::OpenError;

use wire::{Found, Op, Pair};

/// Most operations of a transaction.
const OPERATIONS_MAX: usize = 64;

/// How long Consul may hold back an answer while nothing changes. It adds up to a sixteenth.
const WAIT: Duration = Duration::from_secs(30);
const WAIT_MAX: Duration = Duration::from_secs(32);

/// Shortest time between two answers without news: where `tail` is not there yet, Consul answers after every change of
/// anything.
const PACE: Duration = Duration::from_millis(500);

/// A Consul, and the keys of one cluster in it.
#[derive(Debug)]
pub(crate) struct Consul {
    http: Http,
    prefix: String,
    token: Option<Secret>,
}

impl Consul {
    /// Does not connect. Reads the files that the address names.
    pub(crate) fn new(address: &Address) -> Result<Self, OpenError> {
        if address.user.is_some() && address.password.is_none() {
            return Err(OpenError::Unfit(format!(
                "Consul knows tokens and no users: name a file that has the token with password_file=, or set {}",
                crate::address::PASSWORD_VARIABLE
            )));
        }
        Ok(Self {
            http: Http::new(address)?,
            prefix: address.prefix.clone(),
            token: address.password.clone(),
        })
    }

    fn key(&self, key: &str) -> String {
        format!("{}/{key}", self.prefix)
    }

    fn ask(&self, repeat: Repeat, method: Method, path: String) -> Ask {
        let token = self.token.as_ref().map(|token| token.expose().to_owned());
        Ask::new(repeat, method, path).header("x-consul-token", token)
    }

    /// A call on `/v1/kv`.
    fn kv(&self, repeat: Repeat, method: Method, key: &str, query: &str) -> Ask {
        let path = format!("/v1/kv/{}{query}", self.key(key));
        self.ask(repeat, method, path)
    }

    async fn find(&self, key: &str, query: &str) -> Result<Vec<Pair>, StoreError> {
        let ask = self.kv(Repeat::Read, Method::GET, key, query);
        let Found { told, .. } = self.http.call(&ask, sort::found).await?;
        Ok(told)
    }

    async fn txn(&self, operations: &[Op]) -> Result<Done, StoreError> {
        let ask = self
            .ask(Repeat::Write, Method::PUT, String::from("/v1/txn"))
            .header("content-type", Some(String::from("application/json")))
            .body(wire::to_bytes(operations));
        self.http.call(&ask, sort::txn).await
    }

    /// A write that is answered by whether it was done.
    async fn write(
        &self,
        method: Method,
        key: &str,
        query: &str,
        value: &[u8],
    ) -> Result<Done, StoreError> {
        let ask = self.kv(Repeat::Write, method, key, query);
        self.http
            .call(&ask.body(value.to_vec()), sort::written)
            .await
    }

    async fn followed(
        &self,
        told: &(dyn Fn(&[u8]) + Send + Sync),
    ) -> Result<Infallible, StoreError> {
        let mut index = 0;
        let mut seen = None;
        loop {
            let began = Instant::now();
            let query = if index == 0 {
                String::new()
            } else {
                format!("?index={index}&wait={}s", WAIT.as_secs())
            };
            let mut ask = self.kv(Repeat::Read, Method::GET, TAIL, &query);
            if index > 0 {
                ask.wait = WAIT_MAX;
            }
            let found: Found<Pair> = self.http.call(&ask, sort::found).await?;
            index = next_index(index, found.index);
            let pair = found.told.into_iter().next();
            let version = pair.as_ref().map_or(0, |pair| pair.modify_index);
            if let Some(pair) = pair {
                told(&pair.value.0);
            }
            if seen.replace(version) == Some(version) {
                tokio::time::sleep_until(began + PACE).await;
            }
        }
    }
}

/// What to wait from on. An index that goes back is that of another history, say a restored one: wait from its begin. One
/// of 0 would not wait at all.
fn next_index(before: u64, told: u64) -> u64 {
    if told < before { 0 } else { told.max(1) }
}

/// Consul lists what begins with something: keys that differ in their last digit only are read together.
fn together(keys: &[String]) -> Vec<&str> {
    let mut stems: Vec<&str> = Vec::new();
    for key in keys {
        let stem = key.char_indices().next_back();
        let stem = stem
            .and_then(|(last, _)| key.get(..last))
            .unwrap_or_default();
        if !stems.contains(&stem) {
            stems.push(stem);
        }
    }
    stems
}

impl KeyValue for Consul {
    async fn create_entry(&self, entry: NewEntry<'_>) -> Result<Done, StoreError> {
        let (key, tail) = (self.key(entry.key), self.key(TAIL));
        let create = Op::cas(key, 0, entry.value);
        let log = self.key(entry.log);
        match entry.after {
            After::Key(before) => {
                let (before, log) = (Op::get(self.key(before)), Op::get(log));
                self.txn(&[before, log, create, Op::set(tail, entry.tail)])
                    .await
            }
            After::Begin(empty) => {
                let (empty, end) = (self.key(empty), Op::delete(self.key(empty)));
                let (tail, log) = (Op::set(tail, entry.tail), Op::set(log, b""));
                self.txn(&[Op::get(empty), end, create, tail, log]).await
            }
            After::Nothing => {
                let (tail, log) = (Op::cas(tail, 0, entry.tail), Op::set(log, b""));
                self.txn(&[create, tail, log]).await
            }
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let found = self.find(key, "?consistent").await?;
        Ok(found.into_iter().next().map(|pair| Versioned {
            value: pair.value.0,
            version: pair.modify_index,
        }))
    }

    async fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let mut found = Vec::new();
        for stem in together(keys) {
            found.extend(self.find(stem, "?recurse&consistent").await?);
        }
        let values = keys.iter().map(|key| {
            let key = self.key(key);
            let pair = found.iter_mut().find(|pair| pair.key == key);
            pair.map(|pair| std::mem::take(&mut pair.value.0))
        });
        Ok(values.collect())
    }

    async fn put(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.write(Method::PUT, key, "", value).await.map(drop)
    }

    async fn swap(
        &self,
        key: &str,
        version: Option<u64>,
        value: &[u8],
    ) -> Result<Done, StoreError> {
        // At index 0 it is done if the key is not there.
        let query = format!("?cas={}", version.unwrap_or(0));
        self.write(Method::PUT, key, &query, value).await
    }

    async fn change(&self, changes: &[Change<'_>]) -> Result<Done, StoreError> {
        let mut operations = Vec::new();
        for change in changes {
            match *change {
                Change::Swap {
                    key,
                    version,
                    value,
                } => operations.push(Op::cas(self.key(key), version.unwrap_or(0), value)),
                Change::Set { key, value } => operations.push(Op::set(self.key(key), value)),
                // To delete what is not there is no error.
                Change::Delete { key } => {
                    operations.extend([Op::get(self.key(key)), Op::delete(self.key(key))]);
                }
                // No version of Consul that is supported is without these two.
                Change::Free { key } => {
                    operations.extend([Op::cas(self.key(key), 0, b""), Op::delete(self.key(key))]);
                }
            }
        }
        self.txn(&operations).await
    }

    async fn delete_entries(&self, from: Position, to: Position) -> Result<(), StoreError> {
        let mut next = from.0;
        // One after the other, from the oldest on: whatever is cut short leaves no gap before what is left.
        while next < to.0 {
            let end = to.0.min(next.saturating_add(OPERATIONS_MAX as u64));
            let keys = (next..end).map(|at| self.key(&entry_key(Position(at))));
            let operations: Vec<Op> = keys.map(Op::delete).collect();
            if self.txn(&operations).await? == Done::NotSo {
                let cause = "Consul did not delete what has no condition";
                return Err(StoreError::Refused(cause.into()));
            }
            next = end;
        }
        Ok(())
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let folder = format!("{folder}/");
        let query = "?keys&separator=/&consistent";
        let ask = self.kv(Repeat::Read, Method::GET, &folder, query);
        let found: Found<String> = self.http.call(&ask, sort::found).await?;
        let folder = self.key(&folder);
        let names = found.told.into_iter().filter_map(|key| {
            let name = key.strip_prefix(&folder)?.trim_end_matches('/');
            (!name.is_empty()).then(|| name.to_owned())
        });
        Ok(names.collect())
    }

    async fn delete_folder(&self, folder: &str, name: &str) -> Result<(), StoreError> {
        let folder = format!("{folder}/{name}/");
        self.write(Method::DELETE, &folder, "?recurse", &[])
            .await
            .map(drop)
    }

    async fn follow(&self, told: &(dyn Fn(&[u8]) + Send + Sync)) -> StoreError {
        match self.followed(told).await {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_with_their_neighbours() {
        let keys: Vec<String> = (8..24).map(|at| entry_key(Position(at))).collect();
        let stems = together(&keys);
        assert_eq!(
            stems,
            [
                "entries/0000000000000000000",
                "entries/0000000000000000001",
                "entries/0000000000000000002"
            ]
        );
    }

    #[test]
    fn an_index_that_goes_back_begins_again_and_one_of_nought_is_not_waited_for() {
        assert_eq!(next_index(0, 12), 12);
        assert_eq!(next_index(12, 12), 12);
        assert_eq!(next_index(12, 13), 13);
        assert_eq!(next_index(12, 3), 0);
        assert_eq!(next_index(0, 0), 1);
    }
}
