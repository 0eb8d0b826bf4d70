//! `PostgreSQL`: a primary, and standbys that follow it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::process::{Server, bound, find, folder, free_ports, lacks};

/// The account that runs it when we are root, and the role that may do everything in it.
const SUPERUSER: &str = "postgres";

/// How a standby follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Following {
    /// What the primary has said to be committed is on the disk of the standby, too.
    Synchronous,
    /// It may be behind.
    Asynchronous,
}

/// One server and its data. Connections need no password, but those of role `guarded`.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    programs: Programs,
    port: u16,
    folder: TempDir,
}

#[derive(Clone, Debug)]
struct Programs {
    initdb: PathBuf,
    basebackup: PathBuf,
    postgres: PathBuf,
    psql: PathBuf,
}

impl Programs {
    fn find() -> Option<Self> {
        Some(Self {
            initdb: find("initdb")?,
            basebackup: find("pg_basebackup")?,
            postgres: find("postgres")?,
            psql: find("psql")?,
        })
    }
}

/// Runs a command that must work.
fn must(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(io::Error::other(format!("{command:?}: {said}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether it is; where not, that is told.
#[must_use]
pub fn is_installed() -> bool {
    let found = Programs::find().is_some();
    if !found {
        lacks("PostgreSQL is not installed");
    }
    found
}

impl Postgres {
    /// A primary with a database `quorate`. `None` where it is not installed, which is told.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start() -> Option<io::Result<Self>> {
        is_installed().then(|| {
            let programs = Programs::find();
            Self::primary(programs.ok_or(io::ErrorKind::NotFound)?)
        })
    }

    fn primary(programs: Programs) -> io::Result<Self> {
        let folder = Self::folder()?;
        let data = folder.path().join("data");
        let initial = ["--auth=trust", "--username=postgres", "--no-sync", "-D"];
        must(
            bound(&programs.initdb, Some(SUPERUSER))
                .args(initial)
                .arg(&data),
        )?;
        let rules = "host all guarded 127.0.0.1/32 scram-sha-256\n\
                     host all all 127.0.0.1/32 trust\n\
                     host replication all 127.0.0.1/32 trust\n";
        std::fs::write(data.join("pg_hba.conf"), rules)?;
        let mut postgres = Self::serving(programs, folder)?;
        postgres.start_again()?;
        postgres.sql("postgres", "create database quorate")?;
        Ok(postgres)
    }

    /// A standby of this server.
    ///
    /// # Errors
    /// When it does not come up, or does not follow.
    pub fn standby(&self, following: Following) -> io::Result<Self> {
        let folder = Self::folder()?;
        let data = folder.path().join("data");
        let from = format!(
            "host=127.0.0.1 port={} user={SUPERUSER} application_name=standby",
            self.port
        );
        must(
            bound(&self.programs.basebackup, Some(SUPERUSER))
                .args([
                    "--write-recovery-conf",
                    "--no-sync",
                    "--checkpoint=fast",
                    "-D",
                ])
                .arg(&data)
                .args(["-d", &from]),
        )?;
        let mut standby = Self::serving(self.programs.clone(), folder)?;
        standby.start_again()?;
        let names = match following {
            Following::Synchronous => "standby",
            Following::Asynchronous => "",
        };
        let set = format!("alter system set synchronous_standby_names = '{names}'");
        self.sql("postgres", &set)?;
        self.sql("postgres", "select pg_reload_conf()")?;
        let state = match following {
            Following::Synchronous => "sync",
            Following::Asynchronous => "async",
        };
        let asks = format!("select 1 from pg_stat_replication where sync_state = '{state}'");
        standby
            .server
            .wait_until(|| self.sql("postgres", &asks).is_ok_and(|told| told == "1"))?;
        Ok(standby)
    }

    fn folder() -> io::Result<TempDir> {
        let folder = folder()?;
        if rustix::process::geteuid().is_root() {
            must(Command::new("chown").arg(SUPERUSER).arg(folder.path()))?;
        }
        Ok(folder)
    }

    /// The server of a data folder that is there.
    fn serving(programs: Programs, folder: TempDir) -> io::Result<Self> {
        let port = *free_ports(1)?.first().ok_or(io::ErrorKind::AddrInUse)?;
        let data = folder.path().join("data");
        let mut arguments = vec!["-D".to_owned(), data.display().to_string()];
        for setting in [
            format!("port={port}").as_str(),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "shared_buffers=16MB",
            "max_connections=300",
            "hot_standby=on",
            // A walsender of a connection that was cut ends soon.
            "wal_sender_timeout=5s",
        ] {
            arguments.extend(["-c".to_owned(), setting.to_owned()]);
        }
        let log = folder.path().join("log");
        let server = Server::new(programs.postgres.clone(), arguments, log)
            .as_account(SUPERUSER)
            // It waits for no client.
            .ended_by(Signal::INT);
        Ok(Self {
            server,
            programs,
            port,
            folder,
        })
    }

    /// Starts it after it was ended, and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_again(&mut self) -> io::Result<()> {
        self.server.start()?;
        let (programs, port) = (self.programs.clone(), self.port);
        self.server
            .wait_until(|| ask(&programs.psql, port, "postgres", "select 1").is_ok())
    }

    /// Where it listens on this machine.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its folder.
    #[must_use]
    pub fn folder_path(&self) -> &Path {
        self.folder.path()
    }

    /// Asks a question as the superuser, and tells the answer: a line for each row.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub fn sql(&self, database: &str, sql: &str) -> io::Result<String> {
        ask(&self.programs.psql, self.port, database, sql)
    }

    /// Makes a standby the primary.
    ///
    /// # Errors
    /// When it does not become one.
    pub fn promote(&self) -> io::Result<()> {
        match self.sql("postgres", "select pg_promote()")?.as_str() {
            "t" => Ok(()),
            other => Err(io::Error::other(format!("not promoted: {other}"))),
        }
    }

    /// Its process and those of its sessions, to stop and to kill.
    pub fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Sends a signal to the server and to every process of it: to stop only the first would stop nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal_all(&self, signal: Signal) -> io::Result<()> {
        let children = self.children()?;
        self.server.signal(signal)?;
        for child in children {
            // It may have ended by itself.
            let _ended = rustix::process::kill_process(child, signal);
        }
        Ok(())
    }

    fn children(&self) -> io::Result<Vec<Pid>> {
        let first = self.server.pid().ok_or(io::ErrorKind::NotFound)?;
        let children = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children"))?;
        let children = children.split_whitespace();
        let children = children.filter_map(|pid| pid.parse().ok());
        Ok(children.filter_map(Pid::from_raw).collect())
    }

    /// Kills it and all its processes at once, as a machine that loses power does; returns when they are gone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> io::Result<()> {
        let children = self.children()?;
        self.signal_all(Signal::KILL)?;
        self.server.kill()?;
        // What it shared with them is in use until the last one is gone, and would keep the next one from starting.
        while children
            .iter()
            .any(|child| rustix::process::test_kill_process(*child).is_ok())
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

fn ask(psql: &Path, port: u16, database: &str, sql: &str) -> io::Result<String> {
    let mut command = Command::new(psql);
    // No settings of a person, no headings.
    command
        .args(["-X", "-A", "-t", "-q", "-h", "127.0.0.1", "-U", SUPERUSER])
        .args(["-d", database, "-p", &port.to_string(), "-c", sql])
        .env("PGCONNECT_TIMEOUT", "5");
    must(&mut command)
}

/// A pooler before a server, that gives each transaction whichever session is free.
#[derive(Debug)]
pub struct Pooler {
    _server: Server,
    port: u16,
    _folder: TempDir,
}

impl Pooler {
    /// `None` where `PgBouncer` is not installed, which is told.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(before: &Postgres) -> Option<io::Result<Self>> {
        Self::is_installed().then(|| {
            let program = find("pgbouncer");
            Self::run(program.ok_or(io::ErrorKind::NotFound)?, before)
        })
    }

    /// Whether it can be started; where not, that is told.
    #[must_use]
    pub fn is_installed() -> bool {
        let found = find("pgbouncer").is_some();
        if !found {
            lacks("PgBouncer is not installed");
        }
        found
    }

    fn run(program: PathBuf, before: &Postgres) -> io::Result<Self> {
        let folder = Postgres::folder()?;
        let port = *free_ports(1)?.first().ok_or(io::ErrorKind::AddrInUse)?;
        let settings = format!(
            "[databases]\nquorate = host=127.0.0.1 port={} user={SUPERUSER}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n",
            before.port
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, settings)?;
        let arguments = vec![file.display().to_string()];
        let mut server =
            Server::new(program, arguments, folder.path().join("log")).as_account(SUPERUSER);
        server.start()?;
        let psql = before.programs.psql.clone();
        server.wait_until(|| ask(&psql, port, "quorate", "select 1").is_ok())?;
        Ok(Self {
            _server: server,
            port,
            _folder: folder,
        })
    }

    /// Where it listens on this machine.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}
