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
    pub(crate) fn check(&self, service: &str, start: &StartRun) -> Result<(), NotAllowed> {
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
            let folder = Path::new(&start.working_dir);
            let real = real(folder);
            let within =
                |known: &PathBuf| real.as_ref().is_some_and(|real| real.starts_with(known));
            if !folders.iter().any(within) {
                return refuse("directories", format!("the folder {}", folder.display()));
            }
        }
        if let Some(commands) = &self.commands {
            let program = start.command.first().map_or("", String::as_str);
            let path = real(Path::new(program));
            let named = Path::new(program);
            let fits = |known: &PathBuf| {
                let folder = known.as_os_str().as_encoded_bytes().ends_with(b"/");
                path.as_ref().is_some_and(|path| {
                    if folder {
                        path.starts_with(known)
                    } else {
                        path == known || named == known
                    }
                })
            };
            if !commands.iter().any(fits) {
                return refuse("commands", format!("the program {program:?}"));
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

/// Where a whole path leads, through every link. `None` for any other path, or when nothing is there.
fn real(path: &Path) -> Option<PathBuf> {
    let whole = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    whole.then(|| std::fs::canonicalize(path).ok()).flatten()
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
            .check(service, start)
            .err()
            .map_or("", |error| error.key)
    }

    #[test]
    fn what_is_not_said_is_not_looked_at() {
        let any = start("anything", Path::new("/"), None);
        assert_eq!(Allow::default().check("s", &any), Ok(()));
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
}
