//! What Consul says and is told: JSON, with values in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// An operation of a transaction.
#[derive(Debug, Serialize)]
pub(super) struct Op {
    #[serde(rename = "KV")]
    kv: Kv,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Kv {
    verb: &'static str,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
}

impl Op {
    fn new(verb: &'static str, key: String) -> Self {
        Self {
            kv: Kv {
                verb,
                key,
                value: None,
                index: None,
            },
        }
    }

    /// Fails if the key is not there.
    pub(super) fn get(key: String) -> Self {
        Self::new("get", key)
    }

    pub(super) fn delete(key: String) -> Self {
        Self::new("delete", key)
    }

    pub(super) fn set(key: String, value: &[u8]) -> Self {
        let mut op = Self::new("set", key);
        op.kv.value = Some(STANDARD.encode(value));
        op
    }

    /// Fails if the key was changed since this index; 0: if it is there.
    pub(super) fn cas(key: String, index: u64, value: &[u8]) -> Self {
        let mut op = Self::new("cas", key);
        op.kv.value = Some(STANDARD.encode(value));
        op.kv.index = Some(index);
        op
    }
}

pub(super) fn to_bytes(operations: &[Op]) -> Vec<u8> {
    match serde_json::to_vec(operations) {
        Ok(json) => json,
        Err(error) => unreachable!("text and numbers are always JSON: {error}"),
    }
}

/// Bytes that are written in base64; null when there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(text)?.unwrap_or_default();
        STANDARD.decode(text).map(Self).map_err(D::Error::custom)
    }
}

/// A key and what it has.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) value: Bytes,
    pub(super) modify_index: u64,
}

/// What was found, and the index to wait from on.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) told: Vec<T>,
    pub(super) index: u64,
}

/// Why a transaction was rolled back.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RolledBack {
    pub(super) errors: Vec<OpError>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct OpError {
    pub(super) what: String,
}

/// What a transaction that was done tells; of no interest beside that.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Committed {
    #[expect(dead_code, reason = "it must be there")]
    results: serde::de::IgnoredAny,
}
