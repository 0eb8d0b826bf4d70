//! What this machine lets be run on it. The agent has the last word, whatever the directors say: whoever takes
//! them over still runs nothing here that is not allowed.

use std::path::{Component, Path, PathBuf};

use crate::warden::protocol::StartRun;

/// What may be run here. What is `None` is not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// Services, by name; one that ends with `*` is for all names that begin so.
    pub services: Option<Vec<String>>,
    /// Programs, by their whole path; one that ends with `/` is for all below that folder. A program that runs
    /// other programs (a shell, an interpreter) can be told to run anything.
    pub commands: Option<Vec<PathBuf>>,
    /// Users that runs may have; each service must then name one of them.
    pub users: Option<Vec<String>>,
    /// Folders that runs may begin in, with all below them.
    pub directories: Option<Vec<PathBuf>>,
    /// Whether a run may have the user 0.
    pub root: bool,
}

impl Default for Allow {
    fn default() -> Self {
        Self {
            services: None,
            commands: None,
            users: None,
            directories: None,
            root: true,
        }
    }
}

/// Why a run is not started here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this agent does not allow {what}; its own file has the last word ([agent.allow] {key})")]
pub(crate) struct NotAllowed {
    what: String,
    key: &'static str,
}

impl Allow {
    /// Whether a run may be started. It looks at files, so it is for a thread that nobody waits for.
    ///
    /// What was looked at is what the order says from then on: a link may lead elsewhere by the time the run
    /// starts, and those below `/proc/self` do so for each process.
    pub(crate) fn check(&self, service: &str, start: &mut StartRun) -> Result<(), NotAllowed> {
        let refuse = |key, what: String| Err(NotAllowed { what, key });
        if let Some(services) = &self.services
            && !services.iter().any(|known| is_named(known, service))
        {
            return refuse("services", format!("the service {service}"));
        }
        if let Some(users) = &self.users {
            match &start.user {
                Some(user) if users.contains(user) => {}
                Some(user) => return refuse("users", format!("the user {user}")),
                None => return refuse("users", "a service that names no user".to_owned()),
            }
        }
        if let Some(folders) = &self.directories {
            let real = real(Path::new(&start.working_dir));
            let within = |real: &String| {
                folders
                    .iter()
                    .any(|known| Path::new(real).starts_with(known))
            };
            match real.filter(within) {
                Some(real) => start.working_dir = real,
                None => return refuse("directories", format!("the folder {}", start.working_dir)),
            }
        }
        if let Some(commands) = &self.commands {
            let program = start.command.first().map_or("", String::as_str);
            let allowed = real(Path::new(program)).filter(|real| {
                let (real, named) = (Path::new(real), Path::new(program));
                commands.iter().any(|known| {
                    if known.as_os_str().as_encoded_bytes().ends_with(b"/") {
                        real.starts_with(known)
                    } else {
                        real == known || named == known
                    }
                })
            });
            match allowed {
                Some(real) => start.program = Some(real),
                None => return refuse("commands", format!("the program {program:?}")),
            }
            // They would load other code into a program that is allowed.
            if let Some((name, _)) = start.env.iter().find(|(name, _)| name.starts_with("LD_")) {
                return refuse("commands", format!("the variable {name}"));
            }
        }
        Ok(())
    }
}

fn is_named(known: &str, service: &str) -> bool {
    match known.strip_suffix('*') {
        Some(beginning) => service.starts_with(beginning),
        None => known == service,
    }
}

/// Where a whole path leads, through every link. `None` for any other path, or when nothing is there that an
/// order could name.
fn real(path: &Path) -> Option<String> {
    let whole = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    let real = whole.then(|| std::fs::canonicalize(path).ok()).flatten()?;
    real.into_os_string().into_string().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warden::protocol::RunId;

    fn start(program: &str, folder: &Path, user: Option<&str>) -> StartRun {
        StartRun {
            run: RunId {
                token: 1,
                attempt: 1,
            },
            command: vec![program.to_owned()],
            program: None,
            env: Vec::new(),
            working_dir: folder.to_string_lossy().into_owned(),
            user: user.map(str::to_owned),
            root: true,
            files_max: None,
            notify_socket: None,
            api_socket: None,
            handed_over: Vec::new(),
        }
    }

    fn refused(allow: &Allow, service: &str, start: &StartRun) -> &'static str {
        allow
            .check(service, &mut start.clone())
            .err()
            .map_or("", |error| error.key)
    }

    #[test]
    fn what_is_not_said_is_not_looked_at() {
        let mut any = start("anything", Path::new("/"), None);
        assert_eq!(Allow::default().check("s", &mut any), Ok(()));
        assert_eq!(any, start("anything", Path::new("/"), None));
    }

    #[test]
    fn services_and_users_are_those_that_are_named() {
        let allow = Allow {
            services: Some(vec!["feeds-*".to_owned(), "one".to_owned()]),
            users: Some(vec!["feeds".to_owned()]),
            ..Allow::default()
        };
        let as_user = |user| start("/bin/true", Path::new("/"), user);
        for (service, user, expected) in [
            ("feeds-eu", Some("feeds"), ""),
            ("one", Some("feeds"), ""),
            ("one1", Some("feeds"), "services"),
            ("feeds", Some("feeds"), "services"),
            ("one", Some("root"), "users"),
            // Whoever names none runs as the agent's own user.
            ("one", None, "users"),
        ] {
            assert_eq!(
                refused(&allow, service, &as_user(user)),
                expected,
                "{service} {user:?}"
            );
        }
    }

    #[test]
    fn programs_and_folders_count_where_they_lead() {
        let dir = tempfile::tempdir().unwrap();
        let dir = std::fs::canonicalize(dir.path()).unwrap();
        let (good, bad) = (dir.join("good"), dir.join("bad"));
        for folder in [&good, &bad] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("run"), "").unwrap();
        }
        std::os::unix::fs::symlink(bad.join("run"), good.join("link")).unwrap();
        std::os::unix::fs::symlink(&bad, good.join("way")).unwrap();
        std::os::unix::fs::symlink(good.join("run"), dir.join("named")).unwrap();
        let mut folder = good.clone().into_os_string();
        folder.push("/");
        let allow = Allow {
            commands: Some(vec![folder.into(), dir.join("named")]),
            directories: Some(vec![good.clone()]),
            ..Allow::default()
        };
        let run = |program: &Path, folder: &Path| {
            let start = start(&program.to_string_lossy(), folder, None);
            refused(&allow, "s", &start)
        };
        assert_eq!(run(&good.join("run"), &good), "");
        assert_eq!(run(&dir.join("named"), &good), "");
        assert_eq!(run(&good.join("link"), &good), "commands");
        assert_eq!(run(&good.join("../bad/run"), &good), "commands");
        assert_eq!(run(&good.join("nothing"), &good), "commands");
        assert_eq!(run(Path::new("run"), &good), "commands");
        assert_eq!(run(&good.join("run"), &good.join("way")), "directories");
        assert_eq!(run(&good.join("run"), &dir), "directories");
        // A folder whose name only begins the same is another one.
        std::fs::create_dir(dir.join("good2")).unwrap();
        assert_eq!(run(&good.join("run"), &dir.join("good2")), "directories");
        let mut loaded = start(&good.join("run").to_string_lossy(), &good, None);
        loaded
            .env
            .push(("LD_PRELOAD".to_owned(), "x.so".to_owned()));
        assert_eq!(refused(&allow, "s", &loaded), "commands");
    }

    #[test]
    fn a_link_leads_nowhere_else_once_it_was_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let good = std::fs::canonicalize(dir.path()).unwrap();
        std::fs::write(good.join("run"), "").unwrap();
        let mut folder = good.clone().into_os_string();
        folder.push("/");
        let allow = Allow {
            commands: Some(vec![folder.into()]),
            directories: Some(vec![good.clone()]),
            ..Allow::default()
        };
        // What this is depends on who asks: the agent here, the run in its own folder later.
        let here = Path::new("/proc/self/root");
        let through = |path: &Path| here.join(path.strip_prefix("/").unwrap());
        let program = through(&good.join("run"));
        let program = program.to_string_lossy();
        let mut order = start(&program, &through(&good), None);
        assert_eq!(allow.check("s", &mut order), Ok(()));
        assert_eq!(order.command, [program.as_ref()]);
        let pinned = good.join("run").to_string_lossy().into_owned();
        assert_eq!(order.program, Some(pinned));
        assert_eq!(Path::new(&order.working_dir), good);
    }
}
