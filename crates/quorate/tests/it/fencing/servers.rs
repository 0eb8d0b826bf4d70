//! Real servers, each in a folder of its own and on a free port, ended with the test.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::session::Session;
use crate::support::{eventually, free_port, lacks, signal};

/// How long a server may take to end when it is asked to, before it is killed.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// What asks it to end without waiting for its clients.
    end_with: Signal,
    pub(crate) port: u16,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        signal(self.child.id(), self.end_with);
        let begun = Instant::now();
        while begun.elapsed() < END_WITHIN {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A program in PATH or in one of the folders where Debian puts what only administrators type.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let versions = versions.into_iter().flatten().filter_map(Result::ok);
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push(PathBuf::from("/usr/sbin"));
    folders.extend(versions.map(|version| version.path().join("bin")));
    let mut paths = folders.into_iter().map(|folder| folder.join(program));
    paths.find(|path| path.is_file())
}

/// All of these programs, or none after having told which is missing.
fn find_all<const N: usize>(programs: [&str; N]) -> Option<[PathBuf; N]> {
    let found = programs.map(find);
    for (path, program) in found.iter().zip(programs) {
        if path.is_none() {
            lacks(&format!("{program} is not installed"));
            return None;
        }
    }
    Some(found.map(Option::unwrap_or_default))
}

fn folder() -> tempfile::TempDir {
    let mut named = tempfile::Builder::new();
    named.prefix("q").tempdir().expect("a folder")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a command that must work.
fn must(command: &mut Command) {
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// Starts a server that ends even if these tests are killed.
fn bound(program: &Path, options: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command
        .arg("--pdeathsig=KILL")
        .args(options)
        .arg(program)
        .current_dir("/");
    command
}

fn start(command: &mut Command, dir: tempfile::TempDir, port: u16) -> Server {
    let log = std::fs::File::create(dir.path().join("log")).expect("a file");
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file"))
        .stderr(log);
    Server {
        child: command.spawn().expect("it starts"),
        end_with: Signal::TERM,
        port,
        dir,
    }
}

impl Server {
    fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Waits until it answers; says what it said when it never does.
    fn answers(self, mut ask: impl FnMut() -> bool) -> Self {
        let mut server = self;
        eventually("the server answers", || {
            if let Ok(Some(status)) = server.child.try_wait() {
                let log = std::fs::read_to_string(server.dir().join("log"));
                panic!("{status}: {}", log.unwrap_or_default());
            }
            ask().then_some(())
        });
        server
    }
}

fn works(command: &mut Command) -> bool {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// PostgreSQL and its client.
pub(crate) struct Postgres {
    server: Server,
    client: PathBuf,
}

impl Postgres {
    pub(crate) fn start() -> Option<Self> {
        let [initdb, postgres, client] = find_all(["initdb", "postgres", "psql"])?;
        let dir = folder();
        let data = dir.path().join("data");
        // It refuses to run as root.
        let user: &[&str] = if is_root() {
            &["--reuid=postgres", "--regid=postgres", "--clear-groups"]
        } else {
            &[]
        };
        if is_root() {
            must(Command::new("chown").arg("postgres").arg(dir.path()));
        }
        let initial = ["--auth=trust", "--username=postgres", "--no-sync", "-D"];
        must(bound(&initdb, user).args(initial).arg(&data));
        let port = free_port();
        let mut command = bound(&postgres, user);
        command.arg("-D").arg(&data);
        for setting in [
            &format!("port={port}"),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "shared_buffers=16MB",
        ] {
            command.args(["-c", setting]);
        }
        let mut server = start(&mut command, dir, port);
        server.end_with = Signal::INT;
        let asks = |client: &Path| {
            let mut command = psql(client, port, "postgres");
            works(command.args(["-c", "select 1"]))
        };
        let server = server.answers(|| asks(&client));
        Some(Self { server, client })
    }

    /// A database that is empty.
    pub(crate) fn database(&self, name: &str) {
        let mut command = psql(&self.client, self.server.port, "postgres");
        must(command.args(["-c", &format!("create database {name}")]));
    }

    /// A connection, with these settings.
    pub(crate) fn session(&self, database: &str, settings: &str) -> Session {
        let mut command = psql(&self.client, self.server.port, database);
        command.env("PGOPTIONS", settings);
        let mut session = Session::start(&command, r"\echo @end");
        session.ask(r"\set VERBOSITY sqlstate");
        session
    }
}

fn psql(client: &Path, port: u16, database: &str) -> Command {
    let mut command = Command::new(client);
    // No settings of a person, no headings.
    command
        .args(["-X", "-A", "-t", "-h", "127.0.0.1", "-U", "postgres", "-d"])
        .args([database, "-p", &port.to_string()]);
    command
}

/// MariaDB and its client.
pub(crate) struct Maria {
    server: Server,
    client: PathBuf,
}

impl Maria {
    pub(crate) fn start() -> Option<Self> {
        let programs = find_all(["mariadb-install-db", "mariadbd", "mariadb"])?;
        let [install, mariadbd, client] = programs;
        let dir = folder();
        let data = dir.path().join("data");
        // A root that nobody else can be in this folder is user enough.
        let user: &[&str] = if is_root() { &["--user=root"] } else { &[] };
        let mut command = Command::new(install);
        let empty = ["--auth-root-authentication-method=normal", "--skip-test-db"];
        must(
            command
                .arg("--no-defaults")
                .arg(option("--datadir=", &data))
                .args(empty)
                .args(user),
        );
        let port = free_port();
        let mut command = bound(&mariadbd, &[]);
        command
            .args([
                "--no-defaults",
                "--bind-address=127.0.0.1",
                "--skip-name-resolve",
                "--innodb-buffer-pool-size=16M",
                "--innodb-flush-log-at-trx-commit=0",
                &format!("--port={port}"),
            ])
            .arg(option("--datadir=", &data))
            .arg(option("--socket=", &dir.path().join("socket")))
            .arg(option("--pid-file=", &dir.path().join("pid")))
            .args(user);
        let server = start(&mut command, dir, port);
        let server = server.answers(|| works(maria(&client, port).args(["-e", "select 1"])));
        Some(Self { server, client })
    }

    /// A connection.
    pub(crate) fn session(&self) -> Session {
        let mut command = maria(&self.client, self.server.port);
        command.args(["--batch", "--skip-column-names", "--unbuffered", "--force"]);
        let mut session = Session::start(&command, "select '@end';");
        session.ask("create database if not exists fencing; use fencing;");
        session
    }
}

fn maria(client: &Path, port: u16) -> Command {
    let mut command = Command::new(client);
    command
        .args(["--no-defaults", "-h", "127.0.0.1", "-u", "root", "-P"])
        .arg(port.to_string());
    command
}

fn option(name: &str, path: &Path) -> std::ffi::OsString {
    let mut option = OsStr::new(name).to_owned();
    option.push(path);
    option
}

/// Redis; whoever speaks to it connects to the port.
pub(crate) fn redis() -> Option<Server> {
    let [redis] = find_all(["redis-server"])?;
    let (dir, port) = (folder(), free_port());
    let mut command = bound(&redis, &[]);
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(dir.path());
    let server = start(&mut command, dir, port);
    Some(server.answers(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()))
}
