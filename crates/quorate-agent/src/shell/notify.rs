//! `READY=1` on the notify socket of a run (the protocol of sd_notify).

use std::io;
use std::os::fd::OwnedFd;

use tokio::net::UnixDatagram;

/// Longer messages are none of ours: the protocol's are a few short lines.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Waits until the run says that it is ready.
pub(crate) async fn ready(socket: OwnedFd) -> io::Result<()> {
    let socket = std::os::unix::net::UnixDatagram::from(socket);
    socket.set_nonblocking(true)?;
    let socket = UnixDatagram::from_std(socket)?;
    let mut message = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let length = socket.recv(&mut message).await?;
        let lines = message.get(..length).unwrap_or_default();
        if lines
            .split(|&byte| byte == b'\n')
            .any(|line| line == b"READY=1")
        {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn other_messages_do_not_make_a_run_ready() {
        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let task = tokio::spawn(ready(ours.into()));
        theirs.send(b"STATUS=READY=1\nX=1").unwrap();
        theirs.send(b"MAINPID=4\nREADY=1\n").unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(10), task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}
