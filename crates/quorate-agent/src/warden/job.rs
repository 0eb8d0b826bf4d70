//! An order to start, checked and made ready for the kernel before anything is forked.

use std::ffi::CString;

use super::protocol::StartRun;
use crate::sys::{Failure, Step};

/// Searched when the run's environment has no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// What init needs to launch the command. Made by the holder, used after the fork.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) candidates: Vec<CString>,
    pub(crate) arguments: Vec<CString>,
    pub(crate) environment: Vec<CString>,
    pub(crate) folder: CString,
    pub(crate) files_max: Option<u64>,
    pub(crate) user: Option<String>,
    /// Whether that may be the user 0.
    pub(crate) root: bool,
    /// What is to belong to that user.
    pub(crate) handed_over: Vec<CString>,
}

impl Job {
    /// Checks an order; `cookie` is added to the environment where the tree is found by scanning.
    pub(crate) fn new(start: &StartRun, cookie: Option<&str>) -> Result<Self, String> {
        let Some(program) = start.command.first().filter(|program| !program.is_empty()) else {
            return Err("the command is empty".to_owned());
        };
        let arguments = start
            .command
            .iter()
            .map(|argument| c_text("an argument", argument))
            .collect::<Result<_, _>>()?;
        let mut environment = start
            .env
            .iter()
            .map(|(name, value)| variable(name, value))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(cookie) = cookie {
            environment.push(c_text("the cookie", cookie)?);
        }
        if !start.working_dir.starts_with('/') {
            return Err(format!(
                "the working directory {:?} is not absolute",
                start.working_dir
            ));
        }
        let path = start
            .env
            .iter()
            .find(|(name, _)| name == "PATH")
            .map_or(PATH_DEFAULT, |(_, value)| value);
        Ok(Self {
            candidates: candidates(start.program.as_ref().unwrap_or(program), path)?,
            arguments,
            environment,
            folder: c_text("the working directory", &start.working_dir)?,
            files_max: start.files_max,
            user: start.user.clone(),
            root: start.root,
            handed_over: start
                .handed_over
                .iter()
                .chain(&start.api_socket)
                .map(|path| c_text("a path", path))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Why the command does not execute, for people, with the next step.
    pub(crate) fn explain(&self, failure: Failure) -> String {
        let told = rustix::io::Errno::from_raw_os_error(failure.errno);
        let folder = self.folder.to_string_lossy();
        let user = self.user.as_deref().unwrap_or_default();
        match (failure.step, told) {
            (Step::Folder, rustix::io::Errno::NOENT) => {
                format!("the working directory {folder} does not exist; create it on this host")
            }
            (Step::Folder, rustix::io::Errno::NOTDIR) => {
                format!("the working directory {folder} is not a directory")
            }
            (Step::Folder, _) => {
                format!("the working directory {folder} cannot be entered: {told}")
            }
            (Step::User, rustix::io::Errno::PERM) => only_root(user),
            (Step::User, _) => format!("the command cannot run as {user}: {told}"),
            (Step::Files, _) => format!(
                "at most {} open files cannot be set: {told}",
                self.files_max.unwrap_or_default()
            ),
            (Step::Session, _) => format!("a session cannot be begun: {told}"),
            (Step::Execute, _) => self.explain_execute(told),
        }
    }

    fn explain_execute(&self, told: rustix::io::Errno) -> String {
        let name = self
            .arguments
            .first()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        // Relative to the working directory, as the kernel took it.
        let folder = std::path::PathBuf::from(self.folder.to_string_lossy().as_ref());
        let there = self
            .candidates
            .iter()
            .map(|candidate| folder.join(candidate.to_string_lossy().as_ref()))
            .find(|path| path.exists());
        match (told, there) {
            (rustix::io::Errno::NOENT, None) if name.contains('/') => {
                format!("{name} does not exist on this host")
            }
            (rustix::io::Errno::NOENT, None) => {
                format!("{name} is not found in PATH; write its absolute path")
            }
            (rustix::io::Errno::NOENT, Some(path)) => format!(
                "{} exists, but the interpreter or loader that it names (its #! line) does not",
                path.display()
            ),
            (rustix::io::Errno::ACCESS, Some(path)) if path.is_dir() => {
                format!("{} is a directory, not a program", path.display())
            }
            (rustix::io::Errno::ACCESS, Some(path)) => format!(
                "{} is not executable for the user of the run; chmod +x it",
                path.display()
            ),
            (rustix::io::Errno::NOEXEC, _) => format!(
                "{name} is not a program: it has no #! line, or was built for another kind of machine"
            ),
            (rustix::io::Errno::TOOBIG, _) => format!(
                "the arguments and environment of {name} are longer than the system allows; \
                 pass them in a file"
            ),
            (_, _) => format!("{name} cannot be executed: {told}"),
        }
    }
}

fn c_text(what: &str, text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_nul| format!("{what} contains a NUL byte: {text:?}"))
}

fn variable(name: &str, value: &str) -> Result<CString, String> {
    if name.is_empty() || name.contains('=') {
        return Err(format!("{name:?} cannot be the name of a variable"));
    }
    CString::new(format!("{name}={value}"))
        .map_err(|_nul| format!("the variable {name:?} contains a NUL byte"))
}

fn candidates(program: &str, path: &str) -> Result<Vec<CString>, String> {
    if program.contains('/') {
        return Ok(vec![c_text("the command", program)?]);
    }
    path.split(':')
        .filter(|folder| !folder.is_empty())
        .map(|folder| c_text("PATH", &format!("{folder}/{program}")))
        .collect()
}

/// The agent may not become this user.
pub(crate) fn only_root(user: &str) -> String {
    format!("only root can run a command as {user}; start the agent as root or as {user}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warden::protocol::RunId;

    fn start(command: &[&str]) -> StartRun {
        StartRun {
            run: RunId {
                token: 1,
                attempt: 1,
            },
            command: command.iter().map(|&text| text.to_owned()).collect(),
            program: None,
            env: Vec::new(),
            working_dir: "/".to_owned(),
            user: None,
            root: true,
            files_max: None,
            notify_socket: None,
            api_socket: None,
            handed_over: Vec::new(),
        }
    }

    #[test]
    fn orders_that_the_kernel_could_misread_are_refused_before_a_fork() {
        assert!(Job::new(&start(&[]), None).is_err());
        assert!(Job::new(&start(&[""]), None).is_err());
        assert!(Job::new(&start(&["a", "b\0c"]), None).is_err());
        for (name, value) in [("", "x"), ("A=B", "x"), ("A", "x\0y"), ("A\0", "x")] {
            let mut order = start(&["true"]);
            order.env.push((name.to_owned(), value.to_owned()));
            assert!(Job::new(&order, None).is_err(), "{name:?}={value:?}");
        }
        let mut order = start(&["true"]);
        order.working_dir = "relative".to_owned();
        assert!(Job::new(&order, None).is_err());
    }

    #[test]
    fn a_bare_name_is_looked_for_in_the_path_of_the_run() {
        let mut order = start(&["feed"]);
        order.env.push(("PATH".to_owned(), "/a::/b".to_owned()));
        let job = Job::new(&order, None).unwrap();
        assert_eq!(
            job.candidates,
            [c"/a/feed".to_owned(), c"/b/feed".to_owned()]
        );
    }

    #[test]
    fn what_was_looked_at_is_executed_under_the_name_that_was_asked_for() {
        let mut order = start(&["/opt/feeds/link", "x"]);
        order.program = Some("/opt/feeds/v1/run".to_owned());
        let job = Job::new(&order, None).unwrap();
        assert_eq!(job.candidates, [c"/opt/feeds/v1/run".to_owned()]);
        assert_eq!(
            job.arguments,
            [c"/opt/feeds/link".to_owned(), c"x".to_owned()]
        );
    }
}
