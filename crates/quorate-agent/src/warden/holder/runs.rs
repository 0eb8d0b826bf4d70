//! The runs that a holder holds: forked, told, signalled, reaped, forgotten.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait,
};

use super::super::init::{self, MESSAGE_BYTES_MAX, Message, Outcome, SignalOrder};
use super::super::job::Job;
use super::super::nanos;
use super::super::protocol::{Reply, RunId, StartRun};
use super::super::say;
use super::{Holder, LOOK_EVERY};
use crate::planted::{self, Planted};
use crate::sys::boot_nanos;

/// One run.
#[derive(Debug)]
pub(super) struct Run {
    key: u64,
    stage: Stage,
    /// Process id of the command; unknown while it is being launched.
    command: Option<u32>,
    /// Why it could not be launched.
    failure: Option<String>,
    /// How the command ended, told by init.
    outcome: Option<Outcome>,
    /// The line to init; closed when it is gone.
    control: Option<OwnedFd>,
    /// Read end of the output, for the agent and those after it.
    output: OwnedFd,
    notify: Option<(UnixDatagram, PathBuf)>,
    /// Whether its processes are in a control group of their own.
    grouped: bool,
    /// Connections that come while there is no agent wait in it for the next one.
    api: Option<UnixListener>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its init lives.
    Lives(Pid),
    /// Its init is reaped, but it is still to be shown that nothing else is left.
    Drains {
        /// Looks in a row that found nothing.
        empty_passes: u8,
    },
    /// Nothing of it executes any more.
    Ended,
}

impl Run {
    /// Tells that the command executes or has executed.
    pub(super) fn started(&self, run: RunId) -> Option<(Reply, Vec<BorrowedFd<'_>>)> {
        let pid = self.command?;
        let notify = self.notify.as_ref().map(|(socket, _)| socket.as_fd());
        let api = self.api.as_ref().map(AsFd::as_fd);
        let reply = Reply::Started {
            run,
            pid,
            notify: notify.is_some(),
            api: api.is_some(),
        };
        let descriptors = [self.output.as_fd()].into_iter();
        let descriptors = descriptors.chain(notify).chain(api).collect();
        Some((reply, descriptors))
    }

    /// Tells that nothing of it executes any more.
    pub(super) fn ended(&self, run: RunId) -> Option<Reply> {
        if self.stage != Stage::Ended {
            return None;
        }
        let outcome = self.outcome.unwrap_or_default();
        Some(Reply::Ended {
            run,
            code: outcome.code,
            signal: outcome.signal,
        })
    }

    /// Kills init, and so what the kernel contains with it.
    fn kill_init(&self) {
        if planted::has(Planted::GroupKill)
            && let Some(command) = self
                .command
                .and_then(|pid| Pid::from_raw(pid.cast_signed()))
        {
            let _gone = kill_process_group(command, Signal::KILL);
        }
        if let Stage::Lives(init) = self.stage {
            // Not reaped yet, so the number is still its own.
            let _gone = kill_process(init, Signal::KILL);
        }
    }

    /// Reads what init says. Only the first end counts.
    fn read_messages(&mut self) -> bool {
        let Some(control) = &self.control else {
            return false;
        };
        let mut executes = false;
        let mut bytes = [0; MESSAGE_BYTES_MAX];
        while let Ok((_, count)) = recv(control, &mut bytes, RecvFlags::DONTWAIT) {
            if count == 0 {
                break;
            }
            match bytes.get(..count).and_then(Message::decode) {
                Some(Message::Executes(pid)) => {
                    self.command = Some(pid);
                    executes = true;
                }
                Some(Message::Failed(reason)) => self.failure = Some(reason),
                Some(Message::Ended(outcome)) => self.outcome = Some(outcome),
                None => {}
            }
        }
        executes
    }
}

/// What a fork needs, made before it.
struct Parts {
    job: Job,
    near: OwnedFd,
    far: OwnedFd,
    output: OwnedFd,
    write: OwnedFd,
    notify: Option<(UnixDatagram, PathBuf)>,
    api: Option<UnixListener>,
}

impl Parts {
    fn new(start: &StartRun, cookie: Option<&str>) -> Result<Self, String> {
        let job = Job::new(start, cookie)?;
        let (near, far) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|cause| format!("the line to init cannot be made: {cause}"))?;
        let (output, write) = pipe_with(PipeFlags::CLOEXEC)
            .map_err(|cause| format!("the pipe for the output cannot be made: {cause}"))?;
        // The flag belongs to this end alone; commands expect the other to wait.
        rustix::io::ioctl_fionbio(&output, true)
            .map_err(|cause| format!("the pipe for the output cannot be set up: {cause}"))?;
        let notify = match &start.notify_socket {
            None => None,
            Some(path) => Some(
                bind_notify(Path::new(path), start.user.is_some())
                    .map_err(|cause| format!("the notify socket {path} cannot be made: {cause}"))?,
            ),
        };
        let api = start.api_socket.as_deref().map(|path| {
            bind_api(Path::new(path))
                .map_err(|cause| format!("the socket {path} cannot be made: {cause}"))
        });
        let api = api.transpose()?;
        Ok(Self {
            job,
            near,
            far,
            output,
            write,
            notify,
            api,
        })
    }
}

/// Open to this user alone, as everything that a warden makes; init hands it to that of the run before the
/// command executes. Its name goes with the folder of the run: the fewer changes of a disk this process
/// waits for, the better.
fn bind_api(path: &Path) -> io::Result<UnixListener> {
    remove_if_there(path)?;
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(cause),
    }
}

/// The kernel adds the sender to each message, so that the agent can tell a command from a stranger.
fn bind_notify(path: &Path, for_other_user: bool) -> io::Result<(UnixDatagram, PathBuf)> {
    remove_if_there(path)?;
    let socket = UnixDatagram::bind(path)?;
    let mode = if for_other_user { 0o666 } else { 0o600 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.set_nonblocking(true)?;
    rustix::net::sockopt::set_socket_passcred(&socket, true)?;
    Ok((socket, path.to_owned()))
}

impl Holder {
    /// Forks the init of a run, which launches the command while this process goes on.
    pub(super) fn fork_run(&mut self, start: &StartRun) -> Result<(), String> {
        let id = start.run;
        let cookie = self.born.scan.as_ref().map(|scan| scan.cookie(id));
        let parts = Parts::new(start, cookie.as_deref())?;
        let group = self.make_group(id)?;
        let common = &self.born.common;
        let forked =
            self.born
                .alone
                .fork_into(common.isolation, group.as_ref().map(AsFd::as_fd), || {
                    init::run(&parts.job, common, parts.far.as_fd(), parts.write.as_fd())
                });
        let pid = forked.map_err(|cause| {
            self.is_group_gone(id);
            format!("the run cannot be forked: {cause}")
        })?;
        let key = self.next_run;
        self.next_run += 1;
        let run = Run {
            key,
            stage: Stage::Lives(pid),
            command: None,
            failure: None,
            outcome: None,
            control: Some(parts.near),
            output: parts.output,
            notify: parts.notify,
            grouped: group.is_some(),
            api: parts.api,
        };
        if let Some(control) = &run.control
            && let Err(cause) = self.watch(control.as_fd(), key)
        {
            // It is told by its end, which is noticed all the same.
            say(format_args!("the init of a run cannot be watched: {cause}"));
        }
        self.run_by_key.insert(key, id);
        self.run_by_pid.insert(pid.as_raw_nonzero().get(), id);
        self.runs.insert(id, run);
        Ok(())
    }

    /// A group for a run. Where the kernel contains it anyway, one that cannot be made is done without.
    fn make_group(&self, id: RunId) -> Result<Option<OwnedFd>, String> {
        let Some(groups) = &self.born.groups else {
            return Ok(None);
        };
        match groups.make_run(id) {
            Ok(group) => Ok(Some(group)),
            Err(cause) if self.born.scan.is_none() => {
                say(format_args!("a run goes without a control group: {cause}"));
                Ok(None)
            }
            Err(cause) => Err(format!(
                "the control group of the run cannot be made: {cause}"
            )),
        }
    }

    fn is_group_gone(&self, id: RunId) -> bool {
        let groups = self.born.groups.as_ref();
        groups.is_none_or(|groups| groups.is_run_gone(id))
    }

    /// Init said something.
    pub(super) fn take_messages(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        let executes = run.read_messages();
        if executes {
            self.tell(id);
        }
        // Its end of the line is closed with its descriptors, before it can be reaped: waiting for
        // that here would spin.
        if self.hung_up(id) {
            self.close_line(id);
        }
        self.settle(Ok(()));
    }

    fn hung_up(&self, id: RunId) -> bool {
        let control = self.runs.get(&id).and_then(|run| run.control.as_ref());
        control.is_some_and(|control| {
            let mut byte = [0; 1];
            matches!(
                recv(control, &mut byte, RecvFlags::DONTWAIT | RecvFlags::PEEK),
                Ok((_, 0))
            )
        })
    }

    fn close_line(&mut self, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.control = None;
            let key = run.key;
            self.run_by_key.remove(&key);
        }
    }

    /// Sends a signal to the command or to the whole tree.
    pub(super) fn signal(&mut self, id: RunId, signal: i32, whole_tree: bool) {
        if !(1..=64).contains(&signal) {
            return;
        }
        if whole_tree && let Some(scan) = &self.born.scan {
            scan.signal(id, signal);
            return;
        }
        if let Some(control) = self.runs.get(&id).and_then(|run| run.control.as_ref()) {
            let order = SignalOrder { signal, whole_tree };
            // A stopped init may leave its line full: then there is no need for more signals.
            let _full = send(
                control,
                &order.encode(),
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            );
        }
    }

    /// Kills every process of a run. Its end is told once it is proven.
    pub(super) fn kill(&mut self, id: RunId) {
        if let Some(run) = self.runs.get(&id)
            && let Stage::Lives(_) = run.stage
        {
            if run.grouped
                && let Some(groups) = &self.born.groups
            {
                groups.kill_run(id);
            }
            if let Some(scan) = &self.born.scan {
                scan.signal(id, libc::SIGKILL);
            }
            run.kill_init();
        }
    }

    pub(super) fn kill_all(&mut self) {
        if let Some(groups) = &self.born.groups {
            groups.kill_all();
        }
        if let Some(scan) = &self.born.scan {
            // One pass for all of them; those that follow kill what it missed.
            scan.kill_found();
        }
        for run in self.runs.values() {
            run.kill_init();
        }
    }

    /// The end of a run was taken in.
    pub(super) fn forget(&mut self, id: RunId) {
        if self
            .runs
            .get(&id)
            .is_some_and(|run| run.stage == Stage::Ended)
        {
            self.runs.remove(&id);
        }
    }

    /// Whether nothing executes any more.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.values().all(|run| run.stage == Stage::Ended)
    }

    pub(super) fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(id) = self.run_by_pid.remove(&pid.as_raw_nonzero().get()) {
                self.init_ended(id, status);
            }
        }
        self.settle(Ok(()));
    }

    fn init_ended(&mut self, id: RunId, status: WaitStatus) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        let mut executes = run.read_messages();
        if run.command.is_none() && run.failure.is_none() {
            // Killed in the middle: the command may have executed for a moment, so it counts.
            run.command = Some(0);
            executes = true;
        }
        if run.outcome.is_none() {
            run.outcome = Some(Outcome {
                code: None,
                signal: status
                    .terminating_signal()
                    .and_then(|signal| u8::try_from(signal).ok())
                    .or(Some(9)),
            });
        }
        if executes {
            self.tell(id);
        }
        self.close_line(id);
        let told_early = planted::has(Planted::EarlyEnd);
        if told_early || self.born.scan.is_none() && self.is_emptied(id) {
            self.finish(id);
        } else if let Some(run) = self.runs.get_mut(&id) {
            run.stage = Stage::Drains { empty_passes: 0 };
            self.look_at = Some(boot_nanos());
        }
    }

    /// Whether nothing is left in the group of a run; what is, is killed.
    fn is_emptied(&self, id: RunId) -> bool {
        let grouped = self.runs.get(&id).is_some_and(|run| run.grouped);
        let (true, Some(groups)) = (grouped, &self.born.groups) else {
            return true;
        };
        let gone = groups.is_run_gone(id);
        if !gone {
            groups.kill_run(id);
        }
        gone
    }

    /// The tree is proven empty.
    fn finish(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        run.stage = Stage::Ended;
        if let Some((_, path)) = &run.notify {
            let _gone = std::fs::remove_file(path);
        }
        // Nobody is there to be answered any more.
        run.api = None;
        if let Some(reason) = run.failure.take() {
            self.runs.remove(&id);
            self.refuse(id, reason);
        } else if let Some(reply) = self.runs.get(&id).and_then(|run| run.ended(id)) {
            self.reply(&reply);
        }
    }

    /// One look at all runs that drain: what is found is killed. Nothing in the group of a run and,
    /// where the kernel does not contain it, two passes over the process table in a row that find
    /// nothing, are the proof.
    pub(super) fn look_at_draining(&mut self, now: u64) {
        self.look_at = None;
        let draining: Vec<RunId> = self
            .runs
            .iter()
            .filter(|(_, run)| matches!(run.stage, Stage::Drains { .. }))
            .map(|(&id, _)| id)
            .collect();
        if draining.is_empty() {
            return;
        }
        let mut left: BTreeSet<RunId> = draining
            .iter()
            .copied()
            .filter(|&id| !self.is_emptied(id))
            .collect();
        let inits: Vec<i32> = self.run_by_pid.keys().copied().collect();
        let passes = match &mut self.born.scan {
            Some(scan) => {
                let groups = self.born.groups.as_ref();
                let is_held = |pid| groups.is_some_and(|groups| groups.holds(pid));
                left.extend(scan.kill_left(&draining, &inits, is_held));
                2
            }
            None => 1,
        };
        let mut proven = Vec::new();
        for id in draining {
            if let Some(run) = self.runs.get_mut(&id)
                && let Stage::Drains { empty_passes } = &mut run.stage
            {
                *empty_passes = if left.contains(&id) {
                    0
                } else {
                    *empty_passes + 1
                };
                if *empty_passes >= passes {
                    proven.push(id);
                } else {
                    self.look_at = Some(now.saturating_add(nanos(LOOK_EVERY)));
                }
            }
        }
        for id in proven {
            self.finish(id);
        }
        self.settle(Ok(()));
    }
}
