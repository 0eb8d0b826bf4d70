//! Where it all happens: namespaces of its own for processes, mounts and the network, so that the kernel ends
//! and removes everything when the one process inside ends, however that comes. Where this machine does not
//! allow them it happens outside, with fewer faults, and the report says so.
//!
//! ```text
//! quorate-chaos run ── unshare ── quorate-chaos inside (pid 1) ── quorate-chaos run (acts)
//!                                                                   ├── directors, agents, wardens, runs
//!                                                                   └── referee, register, relays (threads)
//! ```

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitOptions, wait};
use tokio::signal::unix::{SignalKind, signal};

use crate::process::within;

/// Tells the process that acts where it is.
const STAGE: &str = "CHAOS_STAGE";
/// Tells it its folder.
const FOLDER: &str = "CHAOS_STAGE_FOLDER";
/// Tells it its control group.
const GROUP: &str = "CHAOS_GROUP";
const PRIVATE: &str = "private";
const SHARED: &str = "shared";
/// Between two looks whether whoever started it is still there.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the kernel may take to empty the control groups.
pub(crate) const EMPTY_WITHIN: Duration = Duration::from_secs(10);

/// What `unshare` is asked for: as root, and as somebody who may become root in a namespace of users.
const FLAGS: [&[&str]; 2] = [
    &[
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ],
    &[
        "--user",
        "--map-root-user",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ],
];

/// Makes a network the one in the middle, which passes on what machines send each other, and shows that it can
/// swallow some of that.
const MIDDLE: &str = "ip link set lo up && echo 1 >/proc/sys/net/ipv4/ip_forward && \
     ip rule add from 192.0.2.1 to 192.0.2.2 blackhole && ip rule del from 192.0.2.1 to 192.0.2.2 blackhole";

/// Where this process is.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// Whether processes, mounts and the network are its own.
    pub(crate) private: bool,
    /// A folder for everything. It is kept only when this process says that something is wrong.
    pub(crate) folder: PathBuf,
    /// A control group of version 2 for everything.
    pub(crate) group: Option<PathBuf>,
}

impl Stage {
    /// The stage that this process was put on; `None` when it has to make one.
    pub(crate) fn here() -> Option<Self> {
        let stage = std::env::var(STAGE).ok()?;
        Some(Self {
            private: stage == PRIVATE,
            folder: std::env::var_os(FOLDER)?.into(),
            group: std::env::var_os(GROUP).map(PathBuf::from),
        })
    }
}

/// Makes a stage and runs this program again on it with the same arguments.
pub(crate) fn enter() -> Result<ExitCode> {
    let program = std::env::current_exe()?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let group = make_group();
    // A short name: sockets have short paths.
    let folder = tempfile::Builder::new().prefix("qc").tempdir();
    let mut folder = folder.context("a folder for everything")?;
    // Servers of stores may run under an account of their own and have their folders in it.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))?;
    let allowed = FLAGS.into_iter().find(|flags| is_allowed(flags));
    let mut words: Vec<OsString> = Vec::new();
    if let Some(group) = &group {
        words.extend(inside_group(group));
    }
    if let Some(flags) = allowed {
        words.push("unshare".into());
        words.extend(flags.iter().map(OsString::from));
        words.extend(["--".into(), program.into(), "inside".into()]);
    } else {
        words.push(program.into());
    }
    words.extend(arguments);
    let mut command = command(&words)?;
    command.env(STAGE, if allowed.is_some() { PRIVATE } else { SHARED });
    command.env(FOLDER, folder.path());
    // What is temporary goes with it, however it comes to its end.
    command.env("TMPDIR", folder.path());
    if let Some(group) = &group {
        command.env(GROUP, group);
    }
    let ended = watched(command);
    if let Some(group) = &group {
        let cleared = within(EMPTY_WITHIN, "the control groups are empty", || {
            remove_groups(group).ok()
        });
        if let Err(cause) = cleared {
            eprintln!("chaos: {}: {cause}", group.display());
        }
    }
    let ended = ended?;
    if !ended.success() {
        folder.disable_cleanup(true);
        eprintln!("everything is kept in {}", folder.path().display());
    }
    let code = ended.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// A command of these words.
pub(crate) fn command(words: &[OsString]) -> Result<Command> {
    let (program, arguments) = words.split_first().context("a command without words")?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// Words before a command that put it into a control group.
pub(crate) fn inside_group(group: &Path) -> [OsString; 4] {
    let script = "echo $$ >\"$0/cgroup.procs\" && exec \"$@\"";
    ["sh".into(), "-c".into(), script.into(), group.into()]
}

fn is_allowed(flags: &[&str]) -> bool {
    let mut command = Command::new("unshare");
    command.args(flags).args(["--", "sh", "-c", MIDDLE]);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs the stage until it ends, or until this process is told to end.
fn watched(command: Command) -> Result<ExitStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut command = tokio::process::Command::from(command);
        // Its end tells the stage that this process is gone.
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        let life = child.stdin.take();
        tokio::select! {
            ended = child.wait() => return Ok(ended?),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        drop(life);
        child.wait().await?;
        Err(anyhow!("interrupted"))
    })
}

/// As the first process of the stage: runs the program that acts, reaps what is left to it, and ends when
/// that one does or when whoever made the stage is gone. With it the kernel ends everything.
pub(crate) fn inside(arguments: &[OsString]) -> Result<ExitCode> {
    let program = std::env::current_exe()?;
    // Only now, in this namespace.
    crate::process::run(Command::new("sh").args(["-c", MIDDLE]))?;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()?;
    let acting = Pid::from_child(&child);
    let life = io::stdin();
    let pause = Timespec::try_from(LOOK_EVERY)?;
    loop {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == acting {
                let code = status
                    .exit_status()
                    .and_then(|code| u8::try_from(code).ok());
                return Ok(ExitCode::from(code.unwrap_or(1)));
            }
        }
        let mut waits = [PollFd::new(&life, PollFlags::IN)];
        if poll(&mut waits, Some(&pause)).is_ok_and(|ready| ready > 0) {
            return Ok(ExitCode::FAILURE);
        }
    }
}

/// A control group below the one that this process is in, where that is possible.
fn make_group() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let at = words.next()?;
        (words.next()? == "cgroup2").then_some(at)
    })?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let group = Path::new(mount).join(own);
    let group = group.join(format!("quorate-chaos-{}", std::process::id()));
    fs::create_dir(&group).ok()?;
    if group.join("cgroup.freeze").exists() {
        return Some(group);
    }
    let _empty = fs::remove_dir(&group);
    None
}

/// Removes a group with those below it, which fails while something is in one of them.
pub(crate) fn remove_groups(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_groups(&path)?;
        }
    }
    fs::remove_dir(group)
}
