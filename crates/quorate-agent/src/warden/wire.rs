//! Frames on the socket between agent and warden: length, MessagePack, and the descriptors beside it.
//!
//! Must never take a frame longer than [`FRAME_BYTES_MAX`] into memory, and never panic on what it reads.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::protocol::{FRAME_BYTES_MAX, Reply};

/// Bytes of the length before each frame.
const LENGTH_BYTES: usize = 4;
/// Bytes asked for by one read.
const READ_BYTES: usize = 64 * 1024;
/// Most descriptors that come with one frame.
const DESCRIPTORS_MAX: usize = 3;
/// Most descriptors that may wait for their frame; more is a peer that does not speak the protocol.
const DESCRIPTORS_WAITING_MAX: usize = 4096;

/// Why the bytes of the other side are not taken.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A frame says that it is longer than allowed.
    #[error("a frame of {length} bytes is longer than {FRAME_BYTES_MAX}")]
    TooLong {
        /// Bytes announced or needed.
        length: usize,
    },
    /// A frame is not what the protocol knows.
    #[error("a frame cannot be read")]
    Malformed {
        /// What the decoder says.
        #[source]
        cause: rmp_serde::decode::Error,
    },
    /// A frame cannot be written.
    #[error("a frame cannot be written")]
    Unwritable {
        /// What the encoder says.
        #[source]
        cause: rmp_serde::encode::Error,
    },
    /// A frame came without the descriptors that belong to it.
    #[error("a frame came without its descriptors")]
    DescriptorsMissing,
    /// Descriptors came that belong to no frame.
    #[error("descriptors came that belong to no frame")]
    DescriptorsUnasked,
}

/// The bytes of one frame.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let mut frame = vec![0; LENGTH_BYTES];
    let mut serializer = rmp_serde::Serializer::new(&mut frame).with_struct_map();
    message
        .serialize(&mut serializer)
        .map_err(|cause| WireError::Unwritable { cause })?;
    let length = frame.len() - LENGTH_BYTES;
    match u32::try_from(length) {
        Ok(short) if short <= FRAME_BYTES_MAX => {
            for (slot, byte) in frame.iter_mut().zip(short.to_le_bytes()) {
                *slot = byte;
            }
            Ok(frame)
        }
        Ok(_) | Err(_) => Err(WireError::TooLong { length }),
    }
}

/// How many descriptors come with a reply.
pub(crate) fn descriptors_of(reply: &Reply) -> usize {
    match reply {
        Reply::State { .. } => 2,
        Reply::Started { notify, api, .. } => 1 + usize::from(*notify) + usize::from(*api),
        Reply::Busy | Reply::NotStarted { .. } | Reply::Ended { .. } | Reply::Empty => 0,
    }
}

/// What was read and not yet taken: at most a frame and one read.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    taken: usize,
    descriptors: VecDeque<OwnedFd>,
}

impl Inbox {
    /// Reads once, without waiting if the socket is so set. Zero bytes is the end.
    pub(crate) fn read(&mut self, socket: impl AsFd) -> io::Result<usize> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        let before = self.bytes.len();
        self.bytes.resize(before + READ_BYTES, 0);
        let result = self.read_into(socket, before);
        self.bytes
            .truncate(before + result.as_ref().map_or(0, |&count| count));
        result
    }

    fn read_into(&mut self, socket: impl AsFd, before: usize) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let free = self.bytes.get_mut(before..).unwrap_or_default();
        let received = recvmsg(
            socket,
            &mut [IoSliceMut::new(free)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if self.descriptors.len() > DESCRIPTORS_WAITING_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                WireError::DescriptorsUnasked,
            ));
        }
        Ok(received.bytes)
    }

    /// The next whole frame, if it is there.
    pub(crate) fn frame<T: DeserializeOwned>(&mut self) -> Result<Option<T>, WireError> {
        let rest = self.bytes.get(self.taken..).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let announced = u32::from_le_bytes(*length);
        let length = usize::try_from(announced).unwrap_or(usize::MAX);
        if announced > FRAME_BYTES_MAX {
            return Err(WireError::TooLong { length });
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let message =
            rmp_serde::from_slice(body).map_err(|cause| WireError::Malformed { cause })?;
        self.taken += LENGTH_BYTES + length;
        Ok(Some(message))
    }

    /// The descriptors that came with the frame last taken.
    pub(crate) fn descriptors(&mut self, count: usize) -> Result<Vec<OwnedFd>, WireError> {
        if self.descriptors.len() < count {
            return Err(WireError::DescriptorsMissing);
        }
        Ok(self.descriptors.drain(..count).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::warden::protocol::{Order, RunId};

    fn inbox_of(bytes: &[u8]) -> Inbox {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(bytes).unwrap();
        let mut inbox = Inbox::default();
        inbox.read(&far).unwrap();
        inbox
    }

    #[test]
    fn frames_that_arrive_together_are_taken_one_by_one() {
        let run = RunId {
            token: 7,
            attempt: 1,
        };
        let mut bytes = encode(&Order::Kill { run }).unwrap();
        bytes.extend(encode(&Order::Arm { deadline: u64::MAX }).unwrap());
        bytes.extend([9, 0]);
        let mut inbox = inbox_of(&bytes);
        assert_eq!(inbox.frame().unwrap(), Some(Order::Kill { run }));
        assert_eq!(
            inbox.frame().unwrap(),
            Some(Order::Arm { deadline: u64::MAX })
        );
        assert_eq!(inbox.frame::<Order>().unwrap(), None);
    }

    #[test]
    fn a_frame_that_claims_to_be_huge_is_refused_before_its_body_is_read() {
        let mut inbox = inbox_of(&u32::MAX.to_le_bytes());
        assert!(matches!(
            inbox.frame::<Order>(),
            Err(WireError::TooLong { .. })
        ));
    }

    #[test]
    fn any_bytes_are_refused_or_waited_for_and_never_panic() {
        for seed in 0..2_000_u32 {
            let noise: Vec<u8> = (0..seed % 40)
                .map(|at| {
                    seed.wrapping_mul(2_654_435_761)
                        .rotate_left(at)
                        .to_le_bytes()[0]
                })
                .collect();
            let mut bytes = u32::try_from(noise.len()).unwrap().to_le_bytes().to_vec();
            bytes.extend(&noise);
            let _: Result<Option<Order>, WireError> = inbox_of(&bytes).frame();
        }
    }

    #[test]
    fn a_message_too_long_for_a_frame_is_not_sent() {
        let order = Order::Keep {
            blob: vec![1; 9 << 20],
        };
        assert!(matches!(encode(&order), Err(WireError::TooLong { .. })));
    }
}
