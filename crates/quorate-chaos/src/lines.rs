//! Lines over a unix socket that never waits: how workers talk to the referee and to the register.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// A longer line is none of ours.
const LINE_MAX: usize = 4096;

/// One connection.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: UnixStream,
    unread: Vec<u8>,
}

impl Lines {
    /// Takes a connection over.
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            unread: Vec::new(),
        })
    }

    /// The whole lines that are there; `None` when there will be no more.
    pub(crate) fn read(&mut self) -> Option<Vec<String>> {
        let mut bytes = [0; LINE_MAX];
        let open = loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => break false,
                Ok(count) => self.unread.extend(bytes.iter().take(count)),
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => break true,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(_reset) => break false,
            }
        };
        let mut lines = Vec::new();
        while let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        // What a process wrote right before it died still counts.
        let more = !lines.is_empty() || (open && self.unread.len() < LINE_MAX);
        more.then_some(lines)
    }

    /// Sends a line. A peer that is gone, or reads nothing, does not get it.
    pub(crate) fn tell(&self, line: &str) {
        let _gone = (&self.stream).write_all(format!("{line}\n").as_bytes());
    }

    /// Whose it is.
    pub(crate) const fn stream(&self) -> &UnixStream {
        &self.stream
    }
}

impl AsFd for Lines {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
