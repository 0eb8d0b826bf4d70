//! What agents may do. For a grade below `kernel` everything is taken away that a better one takes, in the way in which a
//! careful operator takes it away: another user, no capability and no way to get one, and no namespaces. Nobody asks the
//! agents to pretend; what they then prove is looked at.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::grade::Grade;
use crate::process::run;
use crate::stage::{Stage, command};

/// A user that nobody is.
const USER: u32 = 65_533;
/// Becomes that user.
const OTHER_USER: [&str; 4] = [
    "setpriv",
    "--reuid=65533",
    "--regid=65533",
    "--clear-groups",
];
/// A namespace of users in which no other can be made: else that would give every other namespace, and with them the
/// grade `kernel`, to everybody. Whoever is in it is the same user as before, and not its root.
const NO_NAMESPACES: [&str; 8] = [
    "unshare",
    "--user",
    "--map-user=65533",
    "--map-group=65533",
    "--keep-caps",
    "sh",
    "-c",
    "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\"",
];
/// No capability, and none ever.
const NOTHING: [&str; 5] = [
    "setpriv",
    "--ambient-caps=-all",
    "--inh-caps=-all",
    "--bounding-set=-all",
    "--no-new-privs",
];
/// The same where there is no capability to begin with.
const NOTHING_NEW: [&str; 2] = ["setpriv", "--no-new-privs"];
/// Files of a control group that whoever it is given to must be able to write to.
const OF_GROUP: [&str; 4] = [
    "",
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.subtree_control",
];

/// What agents are started with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Privileges {
    /// Words before a command that is to have no more than these.
    words: Vec<OsString>,
    /// Whose everything must be that they use.
    user: Option<u32>,
}

impl Privileges {
    /// Those that a grade takes, and no more.
    pub(crate) fn of(grade: Grade, stage: &Stage) -> Result<Self> {
        if !grade.is_lower() {
            return Ok(Self::default());
        }
        if grade == Grade::Cgroup && stage.group.is_none() {
            bail!(
                "no agent can earn the grade {grade} here: this host has no control groups of version 2 that can be used"
            );
        }
        // As root; as root where nobody may make namespaces of users; as root of one in which nobody else is; as
        // somebody who may do nothing anyway.
        let ways: [(&[&[&str]], Option<u32>); 4] = [
            (&[&OTHER_USER, &NO_NAMESPACES, &NOTHING], Some(USER)),
            (&[&OTHER_USER, &NOTHING], Some(USER)),
            (&[&NO_NAMESPACES, &NOTHING], None),
            (&[&NOTHING_NEW], None),
        ];
        for (words, user) in ways {
            let words: Vec<OsString> = words.concat().into_iter().map(OsString::from).collect();
            let mut tried = command(&words)?;
            tried.arg("true").stdin(Stdio::null()).stderr(Stdio::null());
            if tried.status().is_ok_and(|status| status.success()) {
                let privileges = Self { words, user };
                // They reach what is given to them in it, and list nothing.
                if user.is_some() {
                    fs::set_permissions(&stage.folder, fs::Permissions::from_mode(0o711))?;
                }
                return Ok(privileges);
            }
        }
        bail!("no privilege can be taken away here, which takes setpriv")
    }

    /// Words before a command that is to have no more.
    pub(crate) fn words(&self) -> impl Iterator<Item = OsString> {
        self.words.iter().cloned()
    }

    /// Gives a file or a folder to whoever has them.
    pub(crate) fn give(&self, path: &Path) -> Result<()> {
        if let Some(user) = self.user {
            chown(path, Some(user), Some(user)).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// Gives it a control group, for others below that.
    pub(crate) fn give_group(&self, group: &Path) -> Result<()> {
        OF_GROUP
            .iter()
            .try_for_each(|file| self.give(&group.join(file)))
    }

    /// A program at a place where whoever has them can reach it.
    pub(crate) fn reachable(&self, program: &Path, stage: &Stage) -> Result<PathBuf> {
        let name = program.file_name().filter(|_| self.user.is_some());
        let Some(name) = name.filter(|_| stage.private) else {
            return Ok(program.to_owned());
        };
        let place = stage.folder.join(name);
        fs::File::create(&place)?;
        let mut mount = Command::new("mount");
        run(mount.arg("--bind").args([program, &place]))?;
        Ok(place)
    }
}
