//! What the agent orders.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::super::protocol::{Order, Reply, RunId, StartRun};
use super::super::reachable;
use super::Holder;
use crate::planted::{self, Planted};
use crate::sys::boot_nanos;

/// The timekeeper answers in microseconds. One that does not is frozen: nothing may be started, and
/// its timer kills this process when it is due.
const ARMED_WITHIN: Duration = Duration::from_secs(2);
/// Bytes kept for the next agent: room for the tokens of about 60,000 runs, and below a frame.
const BLOB_BYTES_MAX: usize = 4 << 20;

impl Holder {
    /// An error closes the connection.
    pub(super) fn obey(&mut self, order: Order) -> io::Result<()> {
        match order {
            Order::Hello { .. } => Err(invalid("Hello is only the first frame")),
            Order::Keep { blob } if blob.len() > BLOB_BYTES_MAX => {
                Err(invalid("the blob to keep is too long"))
            }
            Order::Keep { blob } => {
                self.blob = Some(blob);
                Ok(())
            }
            Order::Arm { deadline } => self.arm(deadline),
            Order::Start(start) => {
                self.start(&start);
                Ok(())
            }
            Order::Signal {
                run,
                signal,
                whole_tree,
            } => {
                self.signal(run, signal, whole_tree);
                Ok(())
            }
            Order::Kill { run } => {
                self.kill(run);
                Ok(())
            }
            Order::Forget { run } => {
                self.forget(run);
                Ok(())
            }
            Order::Await { within_ms } => {
                self.await_next = Some(Duration::from_millis(within_ms));
                Ok(())
            }
            Order::End => {
                self.end("its agent told it to");
                Ok(())
            }
        }
    }

    /// Forward only: what an agent says can never lengthen a life that it shortened before, nor the
    /// other way round.
    fn arm(&mut self, deadline: u64) -> io::Result<()> {
        let deadline = reachable(deadline, self.born.lease);
        let backward = self.deadline.is_some_and(|armed| armed >= deadline);
        if backward && !planted::has(Planted::BackwardDeadline) {
            return Ok(());
        }
        if let Some(timer) = &self.born.timer {
            timer.arm(deadline)?;
        }
        self.born.alarm.set(deadline)?;
        send(
            &self.born.timekeeper,
            &deadline.to_le_bytes(),
            SendFlags::NOSIGNAL,
        )?;
        // Later ones may arrive late: that shortens a life and never lengthens it. Before the first
        // fork the timer must be known to be armed.
        if self.deadline.is_none() && !planted::has(Planted::HastyStart) {
            self.await_first_arming()?;
        }
        self.deadline = Some(deadline);
        Ok(())
    }

    fn await_first_arming(&self) -> io::Result<()> {
        let mut waits = [PollFd::new(&self.born.timekeeper, PollFlags::IN)];
        let within = Timespec::try_from(ARMED_WITHIN).ok();
        let mut bytes = [0; 8];
        if poll(&mut waits, within.as_ref())? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match recv(&self.born.timekeeper, &mut bytes, RecvFlags::DONTWAIT)? {
            (_, 8) => Ok(()),
            (_, _) => Err(io::Error::other("the kill timer cannot be armed")),
        }
    }

    fn start(&mut self, start: &StartRun) {
        if self.runs.contains_key(&start.run) {
            self.tell(start.run);
            return;
        }
        if let Err(reason) = self.may_start().and_then(|()| self.fork_run(start)) {
            self.refuse(start.run, reason);
        }
    }

    fn may_start(&self) -> Result<(), String> {
        if self.ending.is_some() {
            return Err("the warden ends".to_owned());
        }
        match self.deadline {
            None if planted::has(Planted::UnarmedStart) => Ok(()),
            None => Err("no deadline is armed yet".to_owned()),
            Some(deadline) if deadline <= boot_nanos() => Err("the deadline has passed".to_owned()),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn refuse(&mut self, run: RunId, reason: String) {
        self.reply(&Reply::NotStarted { run, reason });
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
