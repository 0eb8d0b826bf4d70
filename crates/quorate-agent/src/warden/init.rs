//! Init of a run: a fork of the holder, without a new program, that launches the command, tells what
//! became of it, and ends with it.
//!
//! With a PID namespace its end is the end of every process in it: the kernel kills them and lets
//! init become a zombie only after the last is gone. It forwards no signals of its own accord, and
//! must never start the command unless the holder lives.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{Pid, Signal, WaitOptions, wait};

use super::job::{Job, only_root};
use crate::sys::{
    Isolation, Launch, Launched, User, block_signals, exit_now, find_user, forget_heap, keep_only,
    launch, signal_everyone, signal_process, standard_streams, take_signals,
};

/// Longest message between init and holder; a longer reason is cut.
pub(crate) const MESSAGE_BYTES_MAX: usize = 2048;

/// What init tells the holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The command executes under this process id of the host; zero when it cannot be known.
    Executes(u32),
    /// The command could not be executed.
    Failed(String),
    /// The command has ended.
    Ended(Outcome),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: Option<u8>,
    pub(crate) signal: Option<u8>,
}

impl Message {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Executes(pid) => [b"S".as_slice(), &pid.to_le_bytes()].concat(),
            Self::Failed(reason) => {
                let mut end = reason.len().min(MESSAGE_BYTES_MAX - 1);
                while !reason.is_char_boundary(end) {
                    end -= 1;
                }
                [
                    b"F".as_slice(),
                    reason.get(..end).unwrap_or_default().as_bytes(),
                ]
                .concat()
            }
            Self::Ended(outcome) => encode_outcome(*outcome).to_vec(),
        }
    }

    /// `None` for what init never says.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match (kind, rest) {
            (b'S', &[a, b, c, d]) => Some(Self::Executes(u32::from_le_bytes([a, b, c, d]))),
            (b'F', reason) => Some(Self::Failed(String::from_utf8_lossy(reason).into_owned())),
            (b'E', &[by_signal, number]) => Some(Self::Ended(if by_signal == 1 {
                Outcome {
                    code: None,
                    signal: Some(number),
                }
            } else {
                Outcome {
                    code: Some(number),
                    signal: None,
                }
            })),
            (_, _) => None,
        }
    }
}

/// Without the heap, which init has given up by then.
fn encode_outcome(outcome: Outcome) -> [u8; 3] {
    match outcome.signal {
        Some(signal) => [b'E', 1, signal],
        None => [b'E', 0, outcome.code.unwrap_or_default()],
    }
}

/// What the holder orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SignalOrder {
    pub(crate) signal: i32,
    pub(crate) whole_tree: bool,
}

impl SignalOrder {
    pub(crate) fn encode(self) -> [u8; 5] {
        let [a, b, c, d] = self.signal.to_le_bytes();
        [u8::from(self.whole_tree), a, b, c, d]
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [whole, a, b, c, d] => Some(Self {
                signal: i32::from_le_bytes([a, b, c, d]),
                whole_tree: whole != 0,
            }),
            _ => None,
        }
    }
}

/// What is the same for all runs of a warden.
#[derive(Debug)]
pub(crate) struct Common {
    /// Read end of nothing: standard input of runs.
    pub(crate) null: OwnedFd,
    /// The `oom_score_adj` that the warden was started with.
    pub(crate) oom_score: Option<Vec<u8>>,
    /// The limit of open files that the warden was started with: soft and hard.
    pub(crate) files: (u64, u64),
    /// How runs are contained.
    pub(crate) isolation: Isolation,
    /// Where the heap of the holder begins; zero when unknown.
    pub(crate) heap: usize,
}

/// The life of init. `control` is its end of the line to the holder, `output` the write end of the
/// run's pipe.
pub(crate) fn run(
    job: &Job,
    common: &Common,
    control: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
) -> i32 {
    if rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        return 1;
    }
    let prepared = standard_streams(common.null.as_fd(), output).and_then(|()| {
        keep_only(&[control]);
        block_signals()
    });
    let signals = match prepared {
        Ok(signals) => signals,
        Err(cause) => {
            tell(
                control,
                &Message::Failed(format!("init of the run: {cause}")),
            );
            return 1;
        }
    };
    // A holder that dies after this point takes init with it by the signal set above; one that died
    // before it has closed its end of the line, which happens before that signal is sent.
    if !holder_lives(control) {
        return 1;
    }
    match start(job, common) {
        Err(reason) => {
            tell(control, &Message::Failed(reason));
            0
        }
        Ok(launched) => {
            tell(control, &Message::Executes(host_pid(&launched.pidfd)));
            let pid = launched.pid;
            drop(launched);
            let null = common.null_again();
            forget_heap(common.heap);
            // Its own copy of the write end must not keep the pipe open after the command.
            if let Some(null) = null {
                let _unchanged = standard_streams(null.as_fd(), null.as_fd());
            }
            exit_now(attend(control, signals.as_fd(), pid))
        }
    }
}

impl Common {
    /// The device again: `keep_only` has closed the holder's descriptor, but not standard input.
    fn null_again(&self) -> Option<OwnedFd> {
        rustix::fs::open(
            c"/dev/null",
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .ok()
    }
}

fn holder_lives(control: BorrowedFd<'_>) -> bool {
    let mut byte = [0; 8];
    !matches!(
        recv(control, &mut byte, RecvFlags::DONTWAIT | RecvFlags::PEEK),
        Ok((_, 0))
    )
}

fn tell(control: BorrowedFd<'_>, message: &Message) {
    // A holder that is gone takes init with it; nobody else could be told.
    let _gone = send(control, &message.encode(), SendFlags::NOSIGNAL);
}

fn start(job: &Job, common: &Common) -> Result<Launched, String> {
    let user = match &job.user {
        None => None,
        Some(name) => become_whom(name)?,
    };
    if !job.root {
        not_root(user.as_ref())?;
    }
    if let Some(user) = &user {
        hand_over(job, user)?;
    }
    let files = match job.files_max {
        Some(most) => (most, most),
        None => common.files,
    };
    let order = Launch {
        candidates: &job.candidates,
        arguments: &job.arguments,
        environment: &job.environment,
        folder: &job.folder,
        files: Some(files),
        user: user.as_ref(),
        oom_score: common.oom_score.as_deref(),
        dies_with_parent: !common.isolation.pids,
    };
    launch(&order)
        .map_err(|cause| format!("the command cannot be forked: {cause}"))?
        .map_err(|failure| job.explain(failure))
}

/// What was made for the run belongs to its user, so that nobody else can use it.
fn hand_over(job: &Job, user: &User) -> Result<(), String> {
    for path in &job.handed_over {
        let owner = rustix::fs::Uid::from_raw(user.uid);
        let group = rustix::fs::Gid::from_raw(user.gid);
        rustix::fs::chown(path.as_c_str(), Some(owner), Some(group)).map_err(|cause| {
            let path = path.to_string_lossy();
            let name = job.user.as_deref().unwrap_or_default();
            if matches!(cause, Errno::PERM | Errno::INVAL) {
                return only_root(name);
            }
            format!("{path} cannot be given to the user {name}: {cause}")
        })?;
    }
    Ok(())
}

/// Only here it is known which user a name means.
fn not_root(user: Option<&User>) -> Result<(), String> {
    let own = || rustix::process::geteuid().as_raw();
    if user.map_or_else(own, |user| user.uid) == 0 {
        return Err("this agent does not allow runs of root; its own file has the last word ([agent.allow] root), so name another user".to_owned());
    }
    Ok(())
}

/// `None` when the run's user is the warden's own.
fn become_whom(name: &str) -> Result<Option<User>, String> {
    match find_user(name) {
        Ok(Some(user)) if user.uid == rustix::process::geteuid().as_raw() && user.uid != 0 => {
            Ok(None)
        }
        Ok(Some(user)) => Ok(Some(user)),
        Ok(None) => Err(format!("the user {name} does not exist on this host")),
        Err(cause) => Err(format!("the user {name} cannot be looked up: {cause}")),
    }
}

/// Process id as the mounted `/proc` sees it, which is that of the host.
fn host_pid(pidfd: &OwnedFd) -> u32 {
    use std::os::fd::AsRawFd;
    std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))
        .ok()
        .and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("Pid:"))
                .and_then(|pid| pid.trim().parse().ok())
        })
        .unwrap_or(0)
}

/// Reaps and passes signals on until the command or the holder ends. Uses no heap.
fn attend(control: BorrowedFd<'_>, signals: BorrowedFd<'_>, command: Pid) -> i32 {
    loop {
        let mut waits = [
            PollFd::from_borrowed_fd(control, PollFlags::IN),
            PollFd::from_borrowed_fd(signals, PollFlags::IN),
        ];
        match poll(&mut waits, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return 1,
        }
        if take_signals(signals, |_| ()).is_err() {
            return 1;
        }
        if let Some(outcome) = reap(command) {
            let _gone = send(control, &encode_outcome(outcome), SendFlags::NOSIGNAL);
            return 0;
        }
        let mut bytes = [0; 8];
        match recv(control, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return 1,
            Ok((_, count)) => {
                if let Some(order) = bytes.get(..count).and_then(SignalOrder::decode) {
                    pass_on(order, command);
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return 1,
        }
    }
}

fn pass_on(order: SignalOrder, command: Pid) {
    if order.whole_tree {
        signal_everyone(order.signal);
    } else {
        // Not yet reaped, so the number is still the command's.
        signal_process(command, order.signal);
    }
}

/// Reaps whatever ended; tells how the command did, if it is among them.
fn reap(command: Pid) -> Option<Outcome> {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == command {
            return Some(Outcome {
                code: status
                    .exit_status()
                    .and_then(|code| u8::try_from(code).ok()),
                signal: status
                    .terminating_signal()
                    .and_then(|signal| u8::try_from(signal).ok()),
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_and_holder_understand_each_other() {
        let ended = |code, signal| Message::Ended(Outcome { code, signal });
        for message in [
            Message::Executes(4_000_000),
            Message::Failed("größe".to_owned()),
            ended(Some(3), None),
            ended(None, Some(9)),
        ] {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
        assert_eq!(Message::decode(b""), None);
        assert_eq!(Message::decode(b"S1"), None);
        let order = SignalOrder {
            signal: 15,
            whole_tree: true,
        };
        assert_eq!(SignalOrder::decode(&order.encode()), Some(order));
    }

    #[test]
    fn a_reason_too_long_for_a_message_is_cut_between_characters() {
        let bytes = Message::Failed("ü".repeat(MESSAGE_BYTES_MAX)).encode();
        assert!(bytes.len() <= MESSAGE_BYTES_MAX);
        assert!(std::str::from_utf8(&bytes).is_ok());
    }
}
