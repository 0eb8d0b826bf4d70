//! What the gateway says: JSON as protobuf maps to it, with numbers of 64 bits as text, bytes in base64, and nothing
//! where a value is zero.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn to_bytes(body: &Value) -> Vec<u8> {
    body.to_string().into_bytes()
}

/// A number that is written as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Number(pub(super) u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        let text = String::deserialize(text)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

/// Bytes that are written in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        let text = String::deserialize(text)?;
        STANDARD.decode(text).map(Self).map_err(D::Error::custom)
    }
}

/// Every answer has one, with a revision: what has none is not from etcd, and must not pass for an empty store.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Header {
    pub(super) revision: Number,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Kv {
    #[serde(default)]
    pub(super) key: Bytes,
    #[serde(default)]
    pub(super) value: Bytes,
    #[serde(default)]
    pub(super) mod_revision: Number,
}

#[derive(Debug, Deserialize)]
pub(super) struct Range {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) kvs: Vec<Kv>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Txn {
    #[expect(dead_code, reason = "it must be there")]
    header: Header,
    #[serde(default)]
    pub(super) succeeded: bool,
    #[serde(default)]
    pub(super) responses: Vec<Response>,
}

/// What came of one step of a transaction.
#[derive(Debug, Deserialize)]
pub(super) struct Response {
    #[serde(rename = "response_range", default)]
    pub(super) range: Found,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Found {
    #[serde(default)]
    pub(super) kvs: Vec<Kv>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Put {
    #[expect(dead_code, reason = "it must be there")]
    header: Header,
}

#[derive(Debug, Deserialize)]
pub(super) struct Deleted {
    #[expect(dead_code, reason = "it must be there")]
    header: Header,
}

#[derive(Debug, Deserialize)]
pub(super) struct Authenticated {
    pub(super) token: String,
}

/// One line of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub(super) result: Option<Watched>,
    pub(super) error: Option<WatchError>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Watched {
    #[serde(default)]
    pub(super) canceled: bool,
    #[serde(default)]
    pub(super) cancel_reason: String,
    /// Not 0: what the watch was to begin with is gone.
    #[serde(default)]
    pub(super) compact_revision: Number,
    #[serde(default)]
    pub(super) events: Vec<Event>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Event {
    /// Nothing when it is a put.
    #[serde(rename = "type", default)]
    pub(super) kind: Option<String>,
    pub(super) kv: Option<Kv>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WatchError {
    #[serde(default)]
    pub(super) message: String,
}
