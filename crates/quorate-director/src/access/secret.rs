//! How a token is written: `qr_<id>_<secret>`, a join token `qrj_<id>_<secret>_<authority>`.
//!
//! The beginning is there for scanners of source code to find one that was committed by mistake. The secret
//! is 256 random bits and a checksum, in hexadecimal, so that a slip is told from a wrong token without
//! looking anything up. What is kept of a token is the SHA-256 of its first three parts.

use std::fmt;

use quorate_core::ids::CredentialId;
use sha2::{Digest as _, Sha256};

use crate::engine::secret_hash;

/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;
/// Random bytes of an id: it only has to be unused.
const ID_BYTES: usize = 5;
/// Hexadecimal digits of the checksum.
const CHECK_DIGITS: usize = 8;

/// Which kind of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// For people and programs that ask.
    Api,
    /// For machines that join.
    Join,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Api => "qr",
            Self::Join => "qrj",
        }
    }
}

/// A new token. It is shown once.
pub(crate) struct Drawn {
    /// What it is called in public.
    pub(crate) id: CredentialId,
    /// The token itself.
    pub(crate) text: String,
    /// What is kept of it.
    pub(crate) hash: String,
}

/// Says nothing of the secret.
impl fmt::Debug for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drawn")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Draws a new token.
pub(crate) fn draw(kind: Kind) -> Drawn {
    let id = hex(&rand::random::<[u8; ID_BYTES]>());
    let secret = hex(&rand::random::<[u8; SECRET_BYTES]>());
    let text = format!("{}_{id}_{secret}", kind.prefix());
    let text = format!("{text}{}", check(&text));
    #[expect(clippy::expect_used, reason = "digits and letters are an id")]
    let id = CredentialId::new(&id).expect("hexadecimal digits are an id");
    Drawn {
        id,
        hash: secret_hash(&text),
        text,
    }
}

/// A token as somebody gives it.
pub(crate) struct Given<'a> {
    /// Which it says that it is.
    pub(crate) id: CredentialId,
    /// What its hash is of.
    pub(crate) secret: &'a str,
}

/// Takes a token apart; `None` when it is none, or was not written as it was shown.
pub(crate) fn parse(kind: Kind, text: &str) -> Option<Given<'_>> {
    let mut parts = text.splitn(4, '_');
    let (prefix, id, secret) = (parts.next()?, parts.next()?, parts.next()?);
    let more = parts.next();
    if prefix != kind.prefix() || (more.is_some() && kind == Kind::Api) {
        return None;
    }
    let (random, written) = secret.split_at_checked(SECRET_BYTES * 2)?;
    let digits = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !digits(random) || id.len() != ID_BYTES * 2 || !digits(id) {
        return None;
    }
    let head = prefix.len() + 1 + id.len() + 1 + random.len();
    if check(text.get(..head)?) != written {
        return None;
    }
    Some(Given {
        id: CredentialId::new(id).ok()?,
        secret: text.get(..head + CHECK_DIGITS)?,
    })
}

/// Tells a slip of the hand, and nothing about whether the token is known.
fn check(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let digest: Vec<u8> = digest.iter().copied().take(CHECK_DIGITS / 2).collect();
    hex(&digest)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_shown_and_not_otherwise() {
        for kind in [Kind::Api, Kind::Join] {
            let drawn = draw(kind);
            let given = parse(kind, &drawn.text).unwrap();
            assert_eq!(given.id, drawn.id);
            assert_eq!(secret_hash(given.secret), drawn.hash);
            let other = match kind {
                Kind::Api => Kind::Join,
                Kind::Join => Kind::Api,
            };
            assert!(parse(other, &drawn.text).is_none(), "of another kind");
            // Each letter counts.
            for at in 0..drawn.text.len() {
                let mut bytes = drawn.text.clone().into_bytes();
                bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
                let slip = String::from_utf8(bytes).unwrap();
                assert!(parse(kind, &slip).is_none(), "{at}");
                assert!(parse(kind, &drawn.text[..at]).is_none(), "{at}");
            }
        }
        for nothing in [
            "",
            "_",
            "qr",
            "qr__",
            "qr_é_é",
            "Bearer x",
            "qr_0123456789_",
        ] {
            assert!(parse(Kind::Api, nothing).is_none(), "{nothing:?}");
        }
    }

    #[test]
    fn a_join_token_may_carry_the_authority_that_is_to_be_trusted() {
        let drawn = draw(Kind::Join);
        let text = format!("{}_{}", drawn.text, "ab".repeat(32));
        let given = parse(Kind::Join, &text).unwrap();
        assert_eq!(secret_hash(given.secret), drawn.hash);
        let drawn = draw(Kind::Api);
        assert!(parse(Kind::Api, &format!("{}_ab", drawn.text)).is_none());
    }

    #[test]
    fn nothing_prints_a_token() {
        let drawn = draw(Kind::Api);
        let shown = format!("{drawn:?}");
        assert!(!shown.contains(&drawn.text) && !shown.contains(&drawn.hash));
        assert!(drawn.text.starts_with("qr_") && drawn.text.len() == 3 + 10 + 1 + 72);
    }
}
