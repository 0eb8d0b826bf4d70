//! etcd: one member or several.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Server, bound, find, folder, free_ports, lacks};

/// How often to look for other ports when somebody else has taken one.
const TRIES: usize = 5;

/// How a cluster is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many members.
    pub members: usize,
    /// Further arguments of each member.
    pub arguments: Vec<String>,
    /// Clients are spoken to over TLS.
    pub tls: Option<Tls>,
}

impl Options {
    /// So many members, in the clear.
    #[must_use]
    pub const fn members(members: usize) -> Self {
        Self {
            members,
            arguments: Vec::new(),
            tls: None,
        }
    }

    /// With a further argument.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }
}

/// Certificates, in PEM files.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Of the authority that has signed the others.
    pub ca: PathBuf,
    /// Of each member: it serves clients and, within etcd, is one.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whether clients must show a certificate of the authority.
    pub asks_clients: bool,
}

#[derive(Debug)]
struct Member {
    name: String,
    clients: u16,
    peers: u16,
    data: PathBuf,
    server: Server,
}

impl Member {
    fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peers)
    }
}

/// A cluster of our own. It ends with this guard, and with the thread that started it.
#[derive(Debug)]
pub struct EtcdCluster {
    options: Options,
    members: Vec<Member>,
    /// What the root user is asked for, once there is one.
    password: Option<String>,
    restored: usize,
    folder: tempfile::TempDir,
}

/// Whether etcd can be started here; if not, says so as the test that asks.
///
/// # Panics
/// Where everything is asked for, as [`lacks`] does.
#[must_use]
pub fn is_installed() -> bool {
    let found = find("etcd").is_some() && find("etcdctl").is_some();
    if !found {
        lacks("etcd is not installed (Debian: etcd-server, etcd-client)");
    }
    found
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        // What they have goes with their folder: no member need hand anything over.
        for member in &mut self.members {
            drop(member.server.kill());
        }
    }
}

impl EtcdCluster {
    /// Starts so many members; `None`, and a word why, where etcd is not installed.
    ///
    /// # Errors
    /// When it does not come up.
    #[must_use]
    pub fn start(members: usize) -> Option<io::Result<Self>> {
        Self::start_with(Options::members(members))
    }

    /// The same, in some other way.
    ///
    /// # Errors
    /// When it does not come up.
    #[must_use]
    pub fn start_with(options: Options) -> Option<io::Result<Self>> {
        if !is_installed() {
            return None;
        }
        let mut started = Self::try_start(&options);
        for _ in 1..TRIES {
            if started.is_ok() {
                break;
            }
            started = Self::try_start(&options);
        }
        Some(started)
    }

    fn try_start(options: &Options) -> io::Result<Self> {
        let folder = folder()?;
        let program = find("etcd").ok_or_else(|| io::Error::other("etcd is gone"))?;
        let ports = free_ports(options.members * 2)?;
        let mut members: Vec<Member> = Vec::new();
        for (number, ports) in ports.chunks_exact(2).enumerate() {
            let &[clients, peers] = ports else { continue };
            let name = format!("member{number}");
            let log = folder.path().join(format!("{name}.log"));
            members.push(Member {
                data: folder.path().join(&name),
                server: Server::new(program.clone(), Vec::new(), log),
                name,
                clients,
                peers,
            });
        }
        let mut cluster = Self {
            options: options.clone(),
            members,
            password: None,
            restored: 0,
            folder,
        };
        cluster.write_arguments();
        for member in 0..cluster.count() {
            cluster.begin(member)?;
        }
        for member in 0..cluster.count() {
            cluster.wait_for(member)?;
        }
        Ok(cluster)
    }

    fn write_arguments(&mut self) {
        let all = self.initial_cluster();
        let scheme = self.scheme();
        let options = &self.options;
        for member in &mut self.members {
            let clients = format!("{scheme}://127.0.0.1:{}", member.clients);
            let peers = member.peer_url();
            let mut arguments: Vec<String> = [
                ("--name", member.name.as_str()),
                ("--data-dir", &member.data.to_string_lossy()),
                ("--listen-client-urls", &clients),
                ("--advertise-client-urls", &clients),
                ("--listen-peer-urls", &peers),
                ("--initial-advertise-peer-urls", &peers),
                ("--initial-cluster", &all),
                ("--log-level", "warn"),
                // Machines that run tests are slow at times; that is no reason to elect.
                ("--heartbeat-interval", "200"),
                ("--election-timeout", "2000"),
            ]
            .map(|(name, value)| format!("{name}={value}"))
            .to_vec();
            if let Some(tls) = &options.tls {
                arguments.push(format!("--cert-file={}", tls.certificate.display()));
                arguments.push(format!("--key-file={}", tls.key.display()));
                arguments.push(format!("--trusted-ca-file={}", tls.ca.display()));
                arguments.push(format!("--client-cert-auth={}", tls.asks_clients));
            }
            arguments.extend(options.arguments.iter().cloned());
            member.server.set_arguments(arguments);
        }
    }

    fn initial_cluster(&self) -> String {
        let members = self.members.iter();
        let members = members.map(|member| format!("{}={}", member.name, member.peer_url()));
        members.collect::<Vec<_>>().join(",")
    }

    fn scheme(&self) -> &'static str {
        if self.options.tls.is_some() {
            "https"
        } else {
            "http"
        }
    }

    fn member(&mut self, member: usize) -> io::Result<&mut Member> {
        let none = || io::Error::other(format!("there is no member {member}"));
        self.members.get_mut(member).ok_or_else(none)
    }

    /// How many members it has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// Where the members listen for clients, in their order.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        let hosts = self.members.iter();
        hosts
            .map(|member| format!("127.0.0.1:{}", member.clients))
            .collect()
    }

    /// The folder of all; it is deleted with this guard.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a member that was killed, and waits until it answers, which takes a quorum.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self, member: usize) -> io::Result<()> {
        self.begin(member)?;
        self.wait_for(member)
    }

    /// Starts a member, without waiting for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn begin(&mut self, member: usize) -> io::Result<()> {
        self.member(member)?.server.start()
    }

    /// Waits until a member answers. While it is ended, somebody may hold its port for a moment: then it is started
    /// again.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn wait_for(&mut self, member: usize) -> io::Result<()> {
        let mut waited = Ok(());
        for _ in 0..TRIES {
            let asking = self.asking(&[member])?;
            let server = &mut self.member(member)?.server;
            waited = server.wait_until(|| asking.tells(&["endpoint", "health"]).is_ok());
            if waited.is_ok() {
                break;
            }
            server.kill()?;
            server.start()?;
        }
        waited
    }

    /// Kills a member, as a machine that loses power.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn kill(&mut self, member: usize) -> io::Result<()> {
        self.member(member)?.server.kill()
    }

    /// Makes a member stand still, with its connections open.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&mut self, member: usize) -> io::Result<()> {
        self.member(member)?.server.signal(Signal::STOP)
    }

    /// Lets one that stands still go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&mut self, member: usize) -> io::Result<()> {
        self.member(member)?.server.signal(Signal::CONT)
    }

    /// Who leads, as the members say that answer; one that was killed is not asked.
    ///
    /// # Errors
    /// When nobody answers, or nobody leads.
    pub fn leader(&self) -> io::Result<usize> {
        let runs = |(_, member): &(usize, &Member)| member.server.pid().is_some();
        for (member, _) in self.members.iter().enumerate().filter(runs) {
            let told = self.asking(&[member])?;
            let Ok(told) = told.tells(&["endpoint", "status", "--write-out=json"]) else {
                continue;
            };
            let told: Value = serde_json::from_str(&told).map_err(io::Error::other)?;
            let leader = told.pointer("/0/Status/leader");
            if leader.is_some() && leader == told.pointer("/0/Status/header/member_id") {
                return Ok(member);
            }
        }
        Err(io::Error::other("nobody leads"))
    }

    /// Runs `etcdctl`, at all members.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn etcdctl(&self, arguments: &[&str]) -> io::Result<String> {
        let all: Vec<usize> = (0..self.count()).collect();
        self.asking(&all)?.tells(arguments)
    }

    /// The revision that etcd is at.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn revision(&self) -> io::Result<u64> {
        let told = self.asking(&[0])?;
        let told = told.tells(&["endpoint", "status", "--write-out=json"])?;
        let told: Value = serde_json::from_str(&told).map_err(io::Error::other)?;
        let revision = told.pointer("/0/Status/header/revision");
        let revision = revision.and_then(Value::as_u64);
        revision.ok_or_else(|| io::Error::other("it tells no revision"))
    }

    /// Asks everybody who they are from now on, and has a root user for [`etcdctl`](Self::etcdctl).
    ///
    /// # Errors
    /// When it does not answer.
    pub fn turn_on_users(&mut self, password: &str) -> io::Result<()> {
        self.etcdctl(&["user", "add", &format!("root:{password}")])?;
        self.etcdctl(&["user", "grant-role", "root", "root"])?;
        self.etcdctl(&["auth", "enable"])?;
        self.password = Some(password.to_owned());
        Ok(())
    }

    /// Keeps what it has now; tells where.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn snapshot(&self) -> io::Result<PathBuf> {
        let file = self.folder.path().join("snapshot.db");
        let asking = self.asking(&[0])?;
        asking.tells(&["snapshot", "save", &file.to_string_lossy()])?;
        Ok(file)
    }

    /// Ends all members and starts them with what a snapshot has, as after a disaster.
    ///
    /// # Errors
    /// When they do not come up.
    pub fn restore(&mut self, snapshot: &Path) -> io::Result<()> {
        self.restored += 1;
        let all = self.initial_cluster();
        for member in &mut self.members {
            member.server.kill()?;
        }
        for member in &mut self.members {
            let data = format!("{}-{}", member.name, self.restored);
            member.data = self.folder.path().join(data);
            let asking = Asking {
                arguments: Vec::new(),
            };
            asking.tells(&[
                "snapshot",
                "restore",
                &snapshot.to_string_lossy(),
                &format!("--name={}", member.name),
                &format!("--data-dir={}", member.data.display()),
                &format!("--initial-cluster={all}"),
                &format!("--initial-advertise-peer-urls={}", member.peer_url()),
            ])?;
        }
        self.write_arguments();
        for member in 0..self.count() {
            self.begin(member)?;
        }
        for member in 0..self.count() {
            self.wait_for(member)?;
        }
        Ok(())
    }

    fn asking(&self, members: &[usize]) -> io::Result<Asking> {
        let scheme = self.scheme();
        let members = members.iter().filter_map(|at| self.members.get(*at));
        let endpoints: Vec<String> = members
            .map(|member| format!("{scheme}://127.0.0.1:{}", member.clients))
            .collect();
        if endpoints.is_empty() {
            return Err(io::Error::other("there is no such member"));
        }
        let mut arguments = vec![format!("--endpoints={}", endpoints.join(","))];
        if let Some(tls) = &self.options.tls {
            arguments.push(format!("--cacert={}", tls.ca.display()));
            arguments.push(format!("--cert={}", tls.certificate.display()));
            arguments.push(format!("--key={}", tls.key.display()));
        }
        if let Some(password) = &self.password {
            arguments.push(format!("--user=root:{password}"));
        }
        Ok(Asking { arguments })
    }
}

/// `etcdctl` for some members.
#[derive(Debug)]
struct Asking {
    arguments: Vec<String>,
}

impl Asking {
    fn tells(&self, arguments: &[&str]) -> io::Result<String> {
        let program = find("etcdctl").ok_or_else(|| io::Error::other("etcdctl is gone"))?;
        let mut command: Command = bound(&program, None);
        command.env("ETCDCTL_API", "3").args(&self.arguments);
        let output = command.args(arguments).output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(io::Error::other(format!("etcdctl {arguments:?}: {said}")))
    }
}
