//! Messages on a stream: a length of four bytes, big-endian, and that many bytes.
//!
//! Nothing here may reserve memory for a length that was not checked against a limit first. Time limits
//! are set by who calls.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Most bytes of a message. A batch of entries has up to about 1 MiB and one entry more.
pub(crate) const FRAME_MAX: usize = 2 * 1024 * 1024;

/// Most bytes of a message from somebody who has not said yet who it is.
pub(crate) const GREETING_MAX: usize = 4 * 1024;

/// Bytes of a snapshot in one message.
pub(crate) const CHUNK: usize = 256 * 1024;

/// A message as bytes, with its length before it.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    rmp_serde::encode::write_named(&mut frame, message).map_err(io::Error::other)?;
    let body = frame.len() - 4;
    if body > FRAME_MAX {
        return Err(io::Error::other(format!(
            "a message of {body} bytes is too large"
        )));
    }
    let length = u32::try_from(body).map_err(io::Error::other)?;
    if let Some(head) = frame.first_chunk_mut() {
        *head = length.to_be_bytes();
    }
    Ok(frame)
}

/// Writes a message.
pub(crate) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> io::Result<()> {
    stream.write_all(&encode(message)?).await?;
    stream.flush().await
}

/// Writes bytes as they are; none at all end a row of them.
pub(crate) async fn write_bytes(
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Reads bytes as they are, at most `limit`.
pub(crate) async fn read_bytes(
    stream: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    let length = usize::try_from(length).map_err(io::Error::other)?;
    if length > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message of {length} bytes is longer than the {limit} that are allowed"),
        ));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Reads a message of at most `limit` bytes.
pub(crate) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> io::Result<T> {
    let bytes = read_bytes(stream, limit).await?;
    rmp_serde::from_slice(&bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_comes_back_as_it_was_sent() {
        let (mut one, mut other) = tokio::io::duplex(64);
        let sent = vec![7_u64; 100];
        let (written, read) = tokio::join!(write(&mut one, &sent), async {
            read::<Vec<u64>>(&mut other, FRAME_MAX).await
        });
        written.unwrap();
        assert_eq!(read.unwrap(), sent);
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_is_refused_before_anything_is_read() {
        let mut claims: &[u8] = &u32::MAX.to_be_bytes();
        let refused = read_bytes(&mut claims, GREETING_MAX).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn garbage_and_a_message_that_is_cut_short_are_errors() {
        let mut garbage: &[u8] = &[0, 0, 0, 3, 0xc1, 0xc1, 0xc1];
        assert!(read::<String>(&mut garbage, GREETING_MAX).await.is_err());
        let whole = encode(&"some text").unwrap();
        for size in 0..whole.len() {
            let mut cut = &whole[..size];
            assert!(read::<String>(&mut cut, GREETING_MAX).await.is_err());
        }
    }
}
