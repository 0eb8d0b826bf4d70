//! The connection to the agent: one at a time, frames in, frames out, never waiting for either.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::super::nanos;
use super::super::protocol::{Order, PROTOCOL, Reply};
use super::super::wire::{self, Inbox, WireError};
use super::super::{CGROUP, KERNEL, SCAN, say};
use super::{GUESTS_MAX, Holder};
use crate::sys::{boot_nanos, peer_uid};

/// Frames that wait for a slow agent; while there are more, its orders are not read.
const OUTBOX_FRAMES: usize = 1024;

/// One connection, of the agent or of somebody who has not said Hello yet.
#[derive(Debug)]
pub(super) struct Agent {
    key: u64,
    socket: UnixStream,
    inbox: Inbox,
    outbox: VecDeque<Outgoing>,
    /// What the loop waits for on the socket.
    interest: EventFlags,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

impl Agent {
    /// Queues a frame; descriptors are copied, so that the run keeps its own.
    fn push(&mut self, reply: &Reply, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = wire::encode(reply).map_err(io::Error::other)?;
        let descriptors = descriptors
            .iter()
            .map(BorrowedFd::try_clone_to_owned)
            .collect::<io::Result<_>>()?;
        self.outbox.push_back(Outgoing {
            bytes,
            sent: 0,
            descriptors,
        });
        Ok(())
    }

    /// Sends what the socket takes.
    fn flush(&mut self) -> io::Result<()> {
        while let Some(frame) = self.outbox.front_mut() {
            match frame.send(&self.socket) {
                Ok(()) => {
                    self.outbox.pop_front();
                }
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(())
    }

    fn is_slow(&self) -> bool {
        self.outbox.len() >= OUTBOX_FRAMES
    }

    /// What the loop shall wait for now.
    fn wanted(&self) -> EventFlags {
        let mut wanted = EventFlags::empty();
        if !self.is_slow() {
            wanted |= EventFlags::IN;
        }
        if !self.outbox.is_empty() {
            wanted |= EventFlags::OUT;
        }
        wanted
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }
}

impl Outgoing {
    /// Sends the rest of the frame; the descriptors go with its first byte.
    fn send(&mut self, socket: &UnixStream) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            let rest = self.bytes.get(self.sent..).unwrap_or_default();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let descriptors: Vec<_> = self.descriptors.iter().map(AsFd::as_fd).collect();
            if !descriptors.is_empty()
                && !control.push(SendAncillaryMessage::ScmRights(&descriptors))
            {
                return Err(io::Error::other("too many descriptors for one frame"));
            }
            self.sent += sendmsg(
                socket,
                &[IoSlice::new(rest)],
                &mut control,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            )?;
            self.descriptors.clear();
        }
        Ok(())
    }
}

impl Holder {
    pub(super) fn accept(&mut self) {
        while let Ok((socket, _)) = self.born.listener.accept() {
            if let Err(cause) = self.admit(socket) {
                say(format_args!("a connection is refused: {cause}"));
            }
        }
    }

    fn admit(&mut self, socket: UnixStream) -> io::Result<()> {
        let uid = peer_uid(socket.as_fd())?;
        if uid != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other(format!("it comes from user {uid}")));
        }
        socket.set_nonblocking(true)?;
        let key = self.next_connection;
        self.next_connection += 1;
        self.watch(socket.as_fd(), key)?;
        if self.guests.len() >= GUESTS_MAX {
            self.guests.remove(0);
        }
        self.guests.push(Agent {
            key,
            socket,
            inbox: Inbox::default(),
            outbox: VecDeque::new(),
            interest: EventFlags::IN,
        });
        Ok(())
    }

    pub(super) fn take_connection(&mut self, key: u64, flags: EventFlags) {
        if let Some(at) = self.guests.iter().position(|guest| guest.key == key) {
            let guest = self.guests.swap_remove(at);
            self.take_guest(guest);
        } else if self.agent.as_ref().is_some_and(|agent| agent.key == key) {
            let result = self.take_agent(flags);
            self.settle(result);
        }
    }

    /// The first frame must be Hello; whoever says anything else is dropped.
    fn take_guest(&mut self, mut guest: Agent) {
        match guest.inbox.read(&guest.socket) {
            Ok(0) => return,
            Ok(_) => {}
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {
                self.guests.push(guest);
                return;
            }
            Err(_) => return,
        }
        match guest.inbox.frame::<Order>() {
            Ok(None) => self.guests.push(guest),
            Ok(Some(Order::Hello { .. })) if self.agent.is_some() => {
                let _gone = guest.push(&Reply::Busy, &[]).and_then(|()| guest.flush());
            }
            Ok(Some(Order::Hello { .. })) => {
                self.adopt_until = None;
                self.agent = Some(guest);
                let result = self.greet().and_then(|()| self.take_orders());
                self.settle(result);
            }
            Ok(Some(_)) | Err(_) => {}
        }
    }

    fn greet(&mut self) -> io::Result<()> {
        let state = Reply::State {
            protocol: PROTOCOL,
            pid: self.born.timekeeper_pid,
            containment: match (&self.born.scan, &self.born.groups) {
                (None, _) => KERNEL,
                (Some(_), Some(_)) => CGROUP,
                (Some(_), None) => SCAN,
            }
            .to_owned(),
            shortfalls: self.born.shortfalls.clone(),
            blob: self.blob.clone(),
            deadline: self.deadline,
            // Those that are being launched tell of themselves in a moment.
            runs: u32::try_from(self.runs.len()).unwrap_or(u32::MAX),
        };
        let Some(agent) = &mut self.agent else {
            return Ok(());
        };
        let [holder, scanned] = &self.born.proof;
        agent.push(&state, &[holder.as_fd(), scanned.as_fd()])?;
        for (&id, run) in &self.runs {
            if let Some((reply, descriptors)) = run.started(id) {
                agent.push(&reply, &descriptors)?;
            }
            if let Some(reply) = run.ended(id) {
                agent.push(&reply, &[])?;
            }
        }
        Ok(())
    }

    fn take_agent(&mut self, flags: EventFlags) -> io::Result<()> {
        if let Some(agent) = &mut self.agent {
            agent.flush()?;
            if flags.contains(EventFlags::IN) && !agent.is_slow() {
                match agent.inbox.read(&agent.socket) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(_) => {}
                    Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
                    Err(cause) => return Err(cause),
                }
            } else if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.take_orders()
    }

    fn take_orders(&mut self) -> io::Result<()> {
        while let Some(agent) = &mut self.agent {
            if agent.is_slow() {
                break;
            }
            match agent.inbox.frame::<Order>().map_err(refuse)? {
                Some(order) => self.obey(order)?,
                None => break,
            }
        }
        Ok(())
    }

    /// Queues a reply for the agent, if there is one.
    pub(super) fn reply(&mut self, reply: &Reply) {
        if let Some(agent) = &mut self.agent
            && let Err(cause) = agent.push(reply, &[])
        {
            self.lose(&cause);
        }
    }

    /// Tells what a run is: started, ended, or both.
    pub(super) fn tell(&mut self, id: super::RunId) {
        let (Some(agent), Some(run)) = (&mut self.agent, self.runs.get(&id)) else {
            return;
        };
        let started = match run.started(id) {
            Some((reply, descriptors)) => agent.push(&reply, &descriptors),
            None => Ok(()),
        };
        let ended = match run.ended(id) {
            Some(reply) => agent.push(&reply, &[]),
            None => Ok(()),
        };
        if let Err(cause) = started.and(ended) {
            self.lose(&cause);
        }
    }

    /// After every change: sends what can be sent, and waits for the right thing.
    pub(super) fn settle(&mut self, result: io::Result<()>) {
        let settled = result.and_then(|()| {
            let Some(agent) = &mut self.agent else {
                return Ok(());
            };
            agent.flush()?;
            let wanted = agent.wanted();
            if wanted != agent.interest {
                epoll::modify(
                    &self.epoll,
                    &agent.socket,
                    EventData::new_u64(agent.key),
                    wanted,
                )?;
                agent.interest = wanted;
            }
            Ok(())
        });
        if let Err(cause) = settled {
            self.lose(&cause);
        }
    }

    fn lose(&mut self, cause: &io::Error) {
        if self.agent.take().is_some() {
            if cause.kind() != io::ErrorKind::UnexpectedEof {
                say(format_args!(
                    "the connection to the agent is closed: {cause}"
                ));
            }
            if self.ending.is_none() {
                let announced = self.await_next.take();
                let within = match self.deadline {
                    Some(_) => nanos(announced.unwrap_or(self.born.adopt_within)),
                    // Nothing was ever started under it, so there is nothing to keep, and no deadline
                    // that would end the wait for an agent that never comes.
                    None => 0,
                };
                self.adopt_until = Some(boot_nanos().saturating_add(within));
            }
        }
    }
}

fn refuse(cause: WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause)
}
