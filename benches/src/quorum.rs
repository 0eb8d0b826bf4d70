//! Three directors of the shipped program on this machine, with certificates and tokens as in production.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use quorate_api::client::{Client, Options};
use quorate_api::resources::DirectorRole;
use quorate_pki::{Authority, ClientTls, FOLDER, TRUST, Trust};
use rustix::process::{Pid, Signal, kill_process};

/// Their names; the first founds the cluster.
pub const NAMES: [&str; 3] = ["d1", "d2", "d3"];

/// Longest wait for anything that must come.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked for; nothing is measured by it.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Lines of each log that are told when something has failed.
const LAST_LINES: usize = 10;
/// How long one director may take to say who leads.
const ASK_TIME: Duration = Duration::from_secs(1);

/// Three directors that all vote. They end when this is dropped.
#[derive(Debug)]
pub struct Quorum {
    program: PathBuf,
    folder: PathBuf,
    /// Of each director: the port of its API, and that for the others.
    ports: BTreeMap<&'static str, (u16, u16)>,
    running: BTreeMap<&'static str, Child>,
    token: String,
    trust: Trust,
}

impl Quorum {
    /// Founds them in a folder that is there and empty, and waits until all vote.
    ///
    /// # Errors
    /// When one does not come up.
    pub async fn found(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let ports = ports()?;
        let [first, others @ ..] = NAMES;
        let mut init = command(program, folder);
        init.args(["init", "--name", first, "--data-dir", first]);
        let token = said(init.args(listens(&ports, first)?))?;
        keep_secret(&folder.join("admin"), &token)?;
        let mut quorum = Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            ports,
            running: BTreeMap::new(),
            token: token.trim().to_owned(),
            trust: Trust::load(&folder.join(first).join(FOLDER).join(TRUST))?,
        };
        quorum.start(first)?;
        quorum.until_voters(1).await?;
        let mut create = command(program, folder);
        create
            .args(["join-token", "create", "--role", "director", "--uses", "2"])
            .env("QUORATE_ADDRESS", quorum.address(first))
            .env("QUORATE_CA_FILE", Path::new(first).join(FOLDER).join(TRUST))
            .env("QUORATE_API_TOKEN_FILE", "admin");
        keep_secret(&folder.join("director"), &said(&mut create)?)?;
        for (name, voters) in others.into_iter().zip(2..) {
            let mut join = command(program, folder);
            join.args(["join", &quorum.address(first)])
                .args(["--join-token-file", "director"])
                .args(["--name", name, "--data-dir", name])
                .args(listens(&quorum.ports, name)?);
            said(&mut join)?;
            quorum.start(name)?;
            quorum.until_voters(voters).await?;
        }
        Ok(quorum)
    }

    /// Starts a director, or starts it again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, name: &'static str) -> anyhow::Result<()> {
        let mut start = command(&self.program, &self.folder);
        start
            .args(["director", "--log-level", "warn", "--config"])
            .arg(Path::new(name).join("quorate.toml"))
            .stderr(self.log(name)?);
        let child = start.stdout(Stdio::null()).spawn()?;
        self.running.insert(name, child);
        Ok(())
    }

    /// Kills a director, as SIGKILL does it; it is dead when this returns.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let mut child = self.running.remove(name).context("it does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Lets a director stand still, as one does whose machine hangs: its connections stay open.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop(&self, name: &str) -> anyhow::Result<Stopped> {
        let pid = i32::try_from(self.pid(name)?)?;
        let pid = Pid::from_raw(pid).context("no process id is 0")?;
        kill_process(pid, Signal::STOP)?;
        Ok(Stopped(pid))
    }

    /// Those that run, by their names.
    #[must_use]
    pub fn running(&self) -> Vec<&'static str> {
        self.running.keys().copied().collect()
    }

    /// Process id of a director.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self, name: &str) -> anyhow::Result<u32> {
        let child = self.running.get(name).context("it does not run")?;
        Ok(child.id())
    }

    /// Where a director's API is, `host:port`.
    #[must_use]
    pub fn address(&self, name: &str) -> String {
        let port = self.ports.get(name).map_or(0, |(api, _)| *api);
        format!("127.0.0.1:{port}")
    }

    /// The addresses of all, that of one first.
    #[must_use]
    pub fn addresses_from(&self, first: &str) -> Vec<String> {
        let others = NAMES.into_iter().filter(|name| *name != first);
        let all = std::iter::once(first).chain(others);
        all.map(|name| self.address(name)).collect()
    }

    /// The certificates that clients trust.
    #[must_use]
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The authority of the cluster, which signs for agents.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn authority(&self) -> anyhow::Result<Authority> {
        Ok(Authority::load(&self.folder.join("d1").join(FOLDER))?)
    }

    /// The token of the first admin.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A client of the first admin, which asks these directors, in this order.
    ///
    /// # Errors
    /// When it cannot be set up.
    pub fn admin(&self, addresses: Vec<String>) -> anyhow::Result<Client> {
        let options = Options {
            token: Some(self.token.clone()),
            tls: Some(ClientTls::new(&self.trust, None)?.config()),
            ..Options::default()
        };
        Ok(Client::with(addresses, options)?)
    }

    /// The same that asks all, in any order.
    ///
    /// # Errors
    /// When it cannot be set up.
    pub fn admin_of_all(&self) -> anyhow::Result<Client> {
        self.admin(self.addresses_from("d1"))
    }

    /// Who leads and runs; waits for one.
    ///
    /// # Errors
    /// When nobody does for long.
    pub async fn leader(&self) -> anyhow::Result<&'static str> {
        let client = self.admin_of_all()?.impatient(ASK_TIME);
        let mut found = None;
        until("somebody leads", async || {
            let Ok(all) = client.directors().await else {
                return Ok(false);
            };
            let mut all = all.value.into_iter();
            let leader = all.find(|director| director.role == DirectorRole::Leader);
            let name = |leader: &str| self.running.keys().copied().find(|name| *name == leader);
            found = leader.and_then(|leader| name(&leader.name));
            Ok(found.is_some())
        })
        .await?;
        found.context("somebody leads")
    }

    /// Waits until so many vote.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn until_voters(&self, count: u32) -> anyhow::Result<()> {
        let client = self.admin_of_all()?.impatient(ASK_TIME);
        until("so many directors vote", async || {
            let cluster = client.cluster().await;
            Ok(cluster.is_ok_and(|cluster| cluster.voters == count))
        })
        .await
    }

    /// Waits until every director that runs answers from a fold that has caught up.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn until_caught_up(&self) -> anyhow::Result<()> {
        for name in self.running() {
            let client = self.admin(vec![self.address(name)])?.impatient(ASK_TIME);
            until("a director follows", async || {
                let ready = client.ready().await.is_ok();
                Ok(ready && client.agents(None).await.is_ok())
            })
            .await?;
        }
        Ok(())
    }

    /// The last lines that the directors have logged, for whoever looks for the reason of a failure.
    #[must_use]
    pub fn last_words(&self) -> String {
        let mut told = String::new();
        for name in NAMES {
            let log = std::fs::read_to_string(self.folder.join(format!("{name}.log")));
            let log = log.unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            for line in lines.iter().skip(lines.len().saturating_sub(LAST_LINES)) {
                told.push_str(&format!("{name}: {line}\n"));
            }
        }
        told
    }

    fn log(&self, name: &str) -> anyhow::Result<std::fs::File> {
        let path = self.folder.join(format!("{name}.log"));
        let mut options = std::fs::File::options();
        Ok(options.create(true).append(true).open(path)?)
    }
}

impl Drop for Quorum {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            // It may have ended by itself.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// A director that stands still. It goes on when it is told to, or ends with the others.
#[derive(Debug)]
#[must_use]
pub struct Stopped(Pid);

impl Stopped {
    /// Lets it go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn go_on(self) -> anyhow::Result<()> {
        Ok(kill_process(self.0, Signal::CONT)?)
    }
}

/// Waits until something is so.
///
/// # Errors
/// When it is not for long, or cannot be told.
pub async fn until(
    what: &str,
    mut met: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !met().await? {
        anyhow::ensure!(Instant::now() < end, "waited too long until {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// The program in the folder of the quorum.
fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// What a command that succeeds writes.
fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let args: Vec<&OsStr> = command.get_args().collect();
    anyhow::ensure!(output.status.success(), "{args:?}: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Writes a token for its owner alone.
fn keep_secret(path: &Path, token: &str) -> anyhow::Result<()> {
    let mut options = std::fs::File::options();
    let mut file = options
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(token.as_bytes())?)
}

fn listens(ports: &BTreeMap<&'static str, (u16, u16)>, name: &str) -> anyhow::Result<[String; 4]> {
    let (api, peer) = ports.get(name).context("it has ports")?;
    let at = |port: &u16| format!("127.0.0.1:{port}");
    Ok(["--listen".into(), at(api), "--peer-listen".into(), at(peer)])
}

/// Free ports, all found before the first is let go.
fn ports() -> anyhow::Result<BTreeMap<&'static str, (u16, u16)>> {
    let mut held = Vec::new();
    let mut free = || -> anyhow::Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        held.push(listener);
        Ok(port)
    };
    let pairs = NAMES
        .into_iter()
        .map(|name| anyhow::Ok((name, (free()?, free()?))));
    pairs.collect()
}
