//! What a run wants the next owner of its partition to know: how far it has come.
//!
//! The bytes mean something to the program alone. They are kept in the ledger, so they are few: a
//! position, an offset, the name of a file, never the work itself.

use std::fmt;
use std::sync::Arc;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::Token;
use crate::time::WallTime;

/// The last thing that a partition's owners have said of its progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Under which token it was written.
    pub token: Token,
    /// Rises with every checkpoint under one token.
    pub number: u64,
    /// When its entry was written, as the leader's wall clock said: for people.
    pub at: WallTime,
    /// What was written.
    pub content: Content,
}

impl Checkpoint {
    /// Whether this one was written after another: a higher token always was.
    #[must_use]
    pub fn is_after(&self, token: Token, number: u64) -> bool {
        (self.token, self.number) > (token, number)
    }
}

/// At most [`Content::MAX`] bytes that only the program understands.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(Arc<[u8]>);

/// More bytes than a checkpoint may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a checkpoint has at most {most} bytes, this one has {bytes}", most = Content::MAX)]
pub struct TooLarge {
    /// How many it has.
    pub bytes: usize,
}

impl Content {
    /// Most bytes: the ledger, every snapshot and every director's memory hold one for each partition
    /// that has a checkpoint.
    pub const MAX: usize = 16 * 1024;

    /// Takes bytes over.
    ///
    /// # Errors
    /// When they are too many.
    pub fn new(bytes: &[u8]) -> Result<Self, TooLarge> {
        if bytes.len() > Self::MAX {
            return Err(TooLarge { bytes: bytes.len() });
        }
        Ok(Self(Arc::from(bytes)))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Their number only: they may be secret, and are often not text.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.0.len())
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {} bytes", Content::MAX)
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Content, E> {
                Content::new(bytes).map_err(E::custom)
            }

            // Formats without bytes of their own write a list of numbers.
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = list.next_element()? {
                    bytes.push(byte);
                    if bytes.len() > Content::MAX {
                        break;
                    }
                }
                Content::new(&bytes).map_err(serde::de::Error::custom)
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_keeps_every_byte_and_not_more_than_it_may_have() {
        let most: Vec<u8> = (0..Content::MAX)
            .map(|n| u8::try_from(n % 256).unwrap())
            .collect();
        let content = Content::new(&most).unwrap();
        let stored = rmp_serde::to_vec(&content).unwrap();
        assert_eq!(stored.len(), Content::MAX + 3, "one byte is one byte");
        let read: Content = rmp_serde::from_slice(&stored).unwrap();
        assert_eq!(read, content);
        let text = serde_json::to_string(&content).unwrap();
        assert_eq!(serde_json::from_str::<Content>(&text).unwrap(), content);

        let more = [most, vec![0]].concat();
        assert_eq!(
            Content::new(&more),
            Err(TooLarge {
                bytes: Content::MAX + 1
            })
        );
        let stored = rmp_serde::to_vec(&serde_json::json!(more)).unwrap();
        assert!(rmp_serde::from_slice::<Content>(&stored).is_err());
    }

    #[test]
    fn a_higher_token_is_always_later() {
        let checkpoint = Checkpoint {
            token: Token(5),
            number: 1,
            at: WallTime(0),
            content: Content::new(b"x").unwrap(),
        };
        assert!(checkpoint.is_after(Token(4), 9));
        assert!(checkpoint.is_after(Token(5), 0));
        assert!(!checkpoint.is_after(Token(5), 1));
        assert!(!checkpoint.is_after(Token(6), 0));
    }
}
