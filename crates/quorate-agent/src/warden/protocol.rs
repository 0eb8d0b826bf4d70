//! What an agent and its warden say to each other over a unix socket: small, versioned, additive.
//!
//! Frames are a 4-byte little-endian length and MessagePack with field names, 8 MiB at most. The
//! warden takes one agent at a time; a second connection is answered [`Reply::Busy`] and closed.
//! Descriptors travel beside a frame as SCM_RIGHTS.
//!
//! The warden decides nothing but the kill: it starts what it is told, holds it, tells what became
//! of it until that is acknowledged, and ends everything at the deadline (R3).

use serde::{Deserialize, Serialize};

/// Version of this protocol; a warden of another one is left to its runs until they end.
pub const PROTOCOL: u32 = 1;

/// Most bytes of a frame.
pub const FRAME_BYTES_MAX: u32 = 8 << 20;

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// First frame of a connection. Answered by [`Reply::State`].
    Hello {
        /// Protocol of the agent.
        protocol: u32,
    },
    /// Keeps an opaque blob (session, secret, tokens) for the next agent process, and for the last will.
    Keep {
        /// Opaque to the warden.
        blob: Vec<u8>,
    },
    /// Moves the deadline forward, never back; before the first one nothing is started.
    Arm {
        /// CLOCK_BOOTTIME in nanoseconds.
        deadline: u64,
    },
    /// Starts a run. Answered by [`Reply::Started`] or [`Reply::NotStarted`]; for a run that is held
    /// already, by what became of it: nothing is started twice.
    Start(Box<StartRun>),
    /// Sends a signal to the command, or to every process of the run.
    Signal {
        /// The run.
        run: RunId,
        /// Signal number.
        signal: i32,
        /// To every process of the run, not only to the command.
        whole_tree: bool,
    },
    /// Kills every process of the run (SIGKILL). Its end is told by [`Reply::Ended`].
    Kill {
        /// The run.
        run: RunId,
    },
    /// An [`Reply::Ended`] was taken in: the warden may forget the run.
    Forget {
        /// The run.
        run: RunId,
    },
    /// This agent process ends and another is to come: once the connection is lost, wait this long for
    /// it instead of `adopt_within`. The deadline holds all the same.
    Await {
        /// Milliseconds.
        within_ms: u64,
    },
    /// Kill everything, prove it, answer [`Reply::Empty`], and end.
    End,
}

/// One process tree: a partition's token and the attempt under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId {
    /// Fencing token.
    pub token: u64,
    /// The how-manieth start under it, from 1.
    pub attempt: u32,
}

/// How to start a run. All text is final: nothing is substituted here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartRun {
    /// The run.
    pub run: RunId,
    /// Program and arguments.
    pub command: Vec<String>,
    /// What is executed in the place of the first of them, by its whole path; the program still finds that
    /// one in its arguments.
    #[serde(default)]
    pub program: Option<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// Folder to run in.
    pub working_dir: String,
    /// User to run as; the warden's own when absent.
    pub user: Option<String>,
    /// Whether that may be the user 0.
    #[serde(default = "yes")]
    pub root: bool,
    /// Most open files.
    pub files_max: Option<u64>,
    /// Make a notify socket at this path before the start.
    pub notify_socket: Option<String>,
    /// Make a socket of the local API at this path before the start, for the run's user alone.
    #[serde(default)]
    pub api_socket: Option<String>,
    /// Files that are to belong to the run's user, when that is another one.
    #[serde(default)]
    pub handed_over: Vec<String>,
}

/// What agents mean that know no other.
const fn yes() -> bool {
    true
}

/// What a warden says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Another agent is connected.
    Busy,
    /// First answer: what the warden holds. Followed, for each run that is not forgotten, by
    /// [`Reply::Started`] with its descriptors (the output may still hold unread lines) and, when it
    /// has ended, by [`Reply::Ended`].
    ///
    /// With the frame come two descriptors, the proof of death for the day the warden is gone: a
    /// pidfd of the process whose end empties every run (containment `kernel`), and the read end of a
    /// pipe on which one byte tells that nothing was found any more (all other grades).
    State {
        /// Protocol of the warden.
        protocol: u32,
        /// Process id of the holder of the kill timer: what the agent started.
        pid: u32,
        /// `kernel`, `cgroup`, `scan` or `cooperative`: what it could prove of its kill path.
        containment: String,
        /// Why that is not better, a sentence each, for people.
        #[serde(default)]
        shortfalls: Vec<String>,
        /// The blob last kept.
        blob: Option<Vec<u8>>,
        /// The deadline as armed; `None` before the first.
        deadline: Option<u64>,
        /// How many runs are told next, each by one [`Reply::Started`], or by one
        /// [`Reply::NotStarted`] if it was being launched just then and that fails: only after them does an agent
        /// know everything that is held, and may compare it with what it should hold.
        runs: u32,
    },
    /// The run's command executes. With the frame come the read end of its output pipe and, if they
    /// were asked for, its notify socket and the listener of its local API.
    Started {
        /// The run.
        run: RunId,
        /// Process id of the command, as seen by the agent; zero when it cannot be known.
        pid: u32,
        /// Whether a notify socket follows the pipe.
        notify: bool,
        /// Whether the listener of the local API follows these.
        #[serde(default)]
        api: bool,
    },
    /// The command could not be executed; nothing of it lives and the warden has forgotten the run.
    NotStarted {
        /// The run.
        run: RunId,
        /// Why, for people, with the next step where there is one.
        reason: String,
    },
    /// Nothing of the run executes any more: its tree is empty and reaped (R10). Repeated to each new
    /// agent until [`Order::Forget`].
    Ended {
        /// The run.
        run: RunId,
        /// Exit code of the command.
        code: Option<u8>,
        /// Signal that ended the command, or the whole run at once.
        signal: Option<u8>,
    },
    /// Nothing of any run executes any more.
    Empty,
}
