//! The identifiers of the cluster. Each is a type of its own, never a bare number or string, so that
//! a position cannot be passed where a token is meant.

use std::fmt;

use ecow::EcoString;
use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

/// Declares a number that is only ever compared, counted up and shown.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The next higher one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Index of an entry in the ledger. The first entry has position 1; 0 means "before the first".
    Position(u64)
}
number! {
    /// Number of a leader's term, strictly increasing; 0 means "no leader yet".
    Epoch(u64)
}
number! {
    /// The life of one warden, as the directors know it.
    SessionId(u64)
}
number! {
    /// Which process of an agent speaks for it now; a higher one fences all lower ones (S7).
    Incarnation(u64)
}
number! {
    /// Slot of a partition in the fold. Slots are used again, so a record that names one also carries
    /// the token, which never is.
    PartitionId(u32)
}
number! {
    /// Slot of a service in the fold; never leaves the directors.
    ServiceId(u32)
}

/// Fencing token of one assumption: strictly increasing over the whole cluster (S3).
///
/// `era (12 bits) · counter (40 bits)`, so it stays below 2^53 and is exact in JSON numbers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Token(pub u64);

impl Token {
    /// Bits of the counter below the era.
    pub const COUNTER_BITS: u32 = 40;

    /// The token with this era and counter.
    ///
    /// # Panics
    /// When either part does not fit: a cluster that has used up its tokens must stop, not wrap.
    #[must_use]
    pub fn new(era: Era, counter: u64) -> Self {
        assert!(era.0 < 1 << 12, "era {} does not fit 12 bits", era.0);
        assert!(
            counter < 1 << Self::COUNTER_BITS,
            "token counter {counter} does not fit 40 bits"
        );
        Self(u64::from(era.0) << Self::COUNTER_BITS | counter)
    }

    /// The era in its upper part.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the upper part has 12 bits"
    )]
    pub const fn era(self) -> Era {
        Era((self.0 >> Self::COUNTER_BITS) as u16)
    }

    /// The counter in its lower part.
    #[must_use]
    pub const fn counter(self) -> u64 {
        self.0 & ((1 << Self::COUNTER_BITS) - 1)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Rises only by restore, migration between ledgers, or a lost history; the upper part of every token.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Era(pub u16);

impl Era {
    /// The highest that fits the upper part of a token.
    pub const LAST: Self = Self((1 << 12) - 1);

    /// The number below the first of this era, of whatever is counted: positions, epochs, sessions and
    /// incarnations have it in their upper part as tokens have, so that none is of two eras.
    #[must_use]
    pub fn first(self) -> u64 {
        u64::from(self.0) << Token::COUNTER_BITS
    }

    /// The era that a position, an epoch, or a number of a session or an incarnation is of.
    #[must_use]
    pub fn of(number: u64) -> Self {
        let era = number >> Token::COUNTER_BITS;
        Self(u16::try_from(era).unwrap_or(u16::MAX))
    }
}

impl fmt::Display for Era {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Random identity of a cluster, below 2^53: two clusters count their tokens independently, so a
/// resource that remembers a token remembers with it whose it is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ClusterId(pub u64);

/// As people and fences see it: 16 hexadecimal digits.
impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Names one batch of records for ever: who wrote it and the how-manieth of that writer it was.
///
/// A leader that finds its own batch at a position knows that its append of unknown outcome succeeded.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct BatchId {
    /// Random number of a director process, drawn by its shell at start.
    pub writer: u64,
    /// Counts the batches of that writer from 1.
    pub sequence: u64,
}

/// Why a name or key is refused; the text says what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("{what} cannot be empty")]
    Empty {
        /// What was to be named.
        what: &'static str,
    },
    /// More bytes than allowed.
    #[error("{what} has at most {limit} bytes, this one has {length}")]
    TooLong {
        /// What was to be named.
        what: &'static str,
        /// Most bytes allowed.
        limit: usize,
        /// Bytes given.
        length: usize,
    },
    /// A character that is not allowed there.
    #[error("{what} {rule}; {found:?} at byte {at} of {name:?} is not allowed")]
    Character {
        /// What was to be named.
        what: &'static str,
        /// What is allowed.
        rule: &'static str,
        /// The name as given.
        name: String,
        /// The first offending character.
        found: char,
        /// Its byte offset.
        at: usize,
    },
}

/// Most bytes of a service, agent or director name: that of a DNS label, since hosts are named so.
pub const NAME_BYTES_MAX: usize = 63;
/// Most bytes of a partition key.
pub const KEY_BYTES_MAX: usize = 200;
/// Most bytes of the id of a token.
pub const CREDENTIAL_BYTES_MAX: usize = 32;

const NAME_RULE: &str = "has letters, digits, '-', '_' and '.', and starts with a letter or digit";
const CREDENTIAL_RULE: &str = "has lower-case letters and digits";
const KEY_RULE: &str = "has visible characters, no '/' or '\\', and does not start with '-' or '.'";

fn check_name(what: &'static str, name: &str) -> Result<(), NameError> {
    check_length(what, name, NAME_BYTES_MAX)?;
    let allowed =
        |at: usize, c: char| c.is_ascii_alphanumeric() || (at > 0 && matches!(c, '-' | '_' | '.'));
    check_characters(what, NAME_RULE, name, allowed)
}

fn check_key(what: &'static str, key: &str) -> Result<(), NameError> {
    check_length(what, key, KEY_BYTES_MAX)?;
    let last = key.char_indices().next_back().map_or(0, |(at, _)| at);
    let allowed = |at: usize, c: char| match c {
        '/' | '\\' => false,
        '-' | '.' if at == 0 => false,
        ' ' => at > 0 && at < last,
        // Zero-width, bidirectional and byte-order marks make two keys look alike in a terminal.
        '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{feff}' => false,
        other => !other.is_control() && !other.is_whitespace(),
    };
    check_characters(what, KEY_RULE, key, allowed)
}

fn check_credential(what: &'static str, id: &str) -> Result<(), NameError> {
    check_length(what, id, CREDENTIAL_BYTES_MAX)?;
    let allowed = |_: usize, c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    check_characters(what, CREDENTIAL_RULE, id, allowed)
}

fn check_length(what: &'static str, name: &str, limit: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    if name.len() > limit {
        return Err(NameError::TooLong {
            what,
            limit,
            length: name.len(),
        });
    }
    Ok(())
}

fn check_characters(
    what: &'static str,
    rule: &'static str,
    name: &str,
    allowed: impl Fn(usize, char) -> bool,
) -> Result<(), NameError> {
    match name.char_indices().find(|&(at, c)| !allowed(at, c)) {
        None => Ok(()),
        Some((at, found)) => Err(NameError::Character {
            what,
            rule,
            name: name.to_owned(),
            found,
            at,
        }),
    }
}

/// Declares a checked name: cheap to clone, ordered by its bytes. Short ones, as nearly all are, need no
/// memory of their own, since there may be a million of them and they are copied everywhere.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(EcoString);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// When it is empty, too long, or has a character that is not allowed.
            pub fn new(name: &str) -> Result<Self, NameError> {
                $check($what, name)?;
                Ok(Self(EcoString::from(name)))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(&name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let read = deserializer.deserialize_str(Read(Self::new))?;
                read.map_err(D::Error::custom)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

/// Reads a name from a text without a copy in between. What is wrong with it is told by whoever asked,
/// as some decoders put words of their own around what is found here.
struct Read<T>(fn(&str) -> Result<T, NameError>);

impl<T> Visitor<'_> for Read<T> {
    type Value = Result<T, NameError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok((self.0)(name))
    }
}

name! {
    /// Name of a fence hook that the directors' own file describes.
    HookName, "hook name", check_name
}
name! {
    /// Name of a service.
    ServiceName, "a service name", check_name
}
name! {
    /// Name of an agent, unique in the cluster.
    AgentName, "an agent name", check_name
}
name! {
    /// Name of a director, unique in the cluster.
    DirectorName, "a director name", check_name
}
name! {
    /// Name of a partition, unique in its service.
    PartitionKey, "a partition key", check_key
}
name! {
    /// What an API token or a join token is called in public; it tells nothing of the secret.
    CredentialId, "the id of a token", check_credential
}
name! {
    /// What a person calls an API token: who or what it is for.
    TokenName, "the name of a token", check_key
}
name! {
    /// How the names of all services begin that an API token is for.
    ServicePrefix, "a scope", check_name
}
name! {
    /// Name of an agent or a director that asks to be let into the cluster.
    NodeName, "a name", check_name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_keeps_its_era_and_counter_and_stays_exact_in_json() {
        let token = Token::new(Era(4095), (1 << 40) - 1);
        assert_eq!((token.era(), token.counter()), (Era(4095), (1 << 40) - 1));
        assert!(token.0 < 1 << 53);
        assert!(Token::new(Era(1), 0) > Token::new(Era(0), (1 << 40) - 1));
    }

    #[test]
    fn names_that_could_be_mistaken_for_options_paths_or_each_other_are_refused() {
        for bad in ["", "-a", ".a", "a b", "a/b", "ä", &"a".repeat(64), "a\n"] {
            assert!(ServiceName::new(bad).is_err(), "{bad:?}");
        }
        for bad in [
            "",
            "-a",
            "..",
            "a/b",
            "a\\b",
            " a",
            "a ",
            "a\u{202e}b",
            "a\0",
            &"k".repeat(201),
        ] {
            assert!(PartitionKey::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "eu-1", "Kunde 7", "größe", "a=b&c", "0"] {
            assert!(PartitionKey::new(good).is_ok(), "{good:?}");
        }
    }
}
