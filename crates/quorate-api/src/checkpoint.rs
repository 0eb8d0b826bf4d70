//! Checkpoints: what a run wants the next owner of its partition to know.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Bytes that only the program understands: `{"text": "…"}` when they are text, otherwise
/// `{"base64": "…"}`. Either is taken.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Content {
    /// The bytes, which are UTF-8.
    Text(String),
    /// The bytes in base64 (RFC 4648, with padding).
    Base64(String),
}

/// It is not base64.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not base64: {0}")]
pub struct NotBase64(base64::DecodeError);

impl Content {
    /// These bytes, in the form in which people can read them if there is one.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        // Escaped control characters would be up to six times as long.
        let plain = |text: &&str| {
            let mut letters = text.chars();
            letters.all(|letter| !letter.is_control() || matches!(letter, '\n' | '\t' | '\r'))
        };
        match std::str::from_utf8(bytes).ok().filter(plain) {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Base64(STANDARD.encode(bytes)),
        }
    }

    /// The bytes.
    ///
    /// # Errors
    /// When they are said to be base64 and are not.
    pub fn bytes(&self) -> Result<Vec<u8>, NotBase64> {
        match self {
            Self::Text(text) => Ok(text.as_bytes().to_vec()),
            Self::Base64(text) => STANDARD.decode(text).map_err(NotBase64),
        }
    }
}

/// Its size only: a checkpoint may be secret.
impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Base64(text) => write!(f, "Base64({} letters)", text.len()),
        }
    }
}

/// The last checkpoint of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointView {
    /// Under which fencing token it was written.
    pub token: u64,
    /// Rises with every checkpoint under one token.
    pub number: u64,
    /// When it was written, RFC 3339.
    pub at: String,
    /// What was written.
    pub content: Content,
}

impl CheckpointView {
    /// Its entity tag: another checkpoint has another one.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"{}.{}\"", self.token, self.number)
    }
}

/// That a partition has a checkpoint, without what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointSummary {
    /// Under which fencing token it was written.
    pub token: u64,
    /// Rises with every checkpoint under one token.
    pub number: u64,
    /// When it was written, RFC 3339.
    pub at: String,
    /// How long it is.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_text_where_people_can_read_it_and_always_the_same_bytes() {
        let cases: [(&[u8], &str); 5] = [
            (b"", r#"{"text":""}"#),
            (
                "offset 4711\ngrün".as_bytes(),
                "{\"text\":\"offset 4711\\ngrün\"}",
            ),
            (b"\x00", r#"{"base64":"AA=="}"#),
            (b"\xff\xfe", r#"{"base64":"//4="}"#),
            (b"\x1b[31m", r#"{"base64":"G1szMW0="}"#),
        ];
        for (bytes, json) in cases {
            let content = Content::of(bytes);
            assert_eq!(serde_json::to_string(&content).unwrap(), json);
            let read: Content = serde_json::from_str(json).unwrap();
            assert_eq!(read.bytes().unwrap(), bytes);
        }
        assert!(Content::Base64("?".to_owned()).bytes().is_err());
        for wrong in ["{}", r#"{"text":"a","base64":""}"#, r#"{"txt":"a"}"#, "7"] {
            assert!(serde_json::from_str::<Content>(wrong).is_err(), "{wrong}");
        }
    }
}
