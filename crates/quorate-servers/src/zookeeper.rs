//! `ZooKeeper`: one server, or an ensemble whose members can be lost one by one.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{Server, find, folder, free_ports, lacks};

/// Where Debian has it.
const JAR: &str = "/usr/share/java/zookeeper.jar";

/// How often to try other ports: between finding a free one and using it, anybody may take it.
const TRIES: usize = 3;

/// Longest wait for the answer to a question of four letters.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// Warnings go where the rest of what a server says goes.
const LOG: &str = "log4j.rootLogger=WARN, CONSOLE
log4j.appender.CONSOLE=org.apache.log4j.ConsoleAppender
log4j.appender.CONSOLE.layout=org.apache.log4j.PatternLayout
log4j.appender.CONSOLE.layout.ConversionPattern=%d %p %c{1} - %m%n
";

/// Servers of one store. They end with this, and with the thread that started them.
#[derive(Debug)]
pub struct ZookeeperCluster {
    members: Vec<Member>,
    folder: TempDir,
}

/// One server.
#[derive(Debug)]
struct Member {
    server: Server,
    port: u16,
}

/// Whether it is; where not, that is told.
#[must_use]
pub fn is_installed() -> bool {
    let found = find("java").is_some() && Path::new(JAR).is_file();
    if !found {
        lacks("ZooKeeper is not installed (Debian: zookeeperd)");
    }
    found
}

impl ZookeeperCluster {
    /// Starts so many members and waits until each serves; `None`, said with [`lacks`], where `ZooKeeper` is not
    /// installed.
    ///
    /// # Errors
    /// When they do not come up.
    pub fn start(members: usize) -> io::Result<Option<Self>> {
        let Some(java) = find("java").filter(|_| is_installed()) else {
            return Ok(None);
        };
        let mut last = io::Error::other("not tried");
        for _ in 0..TRIES {
            match Self::try_to_start(&java, members) {
                Ok(cluster) => return Ok(Some(cluster)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn try_to_start(java: &Path, members: usize) -> io::Result<Self> {
        let folder = folder()?;
        let mut ports = free_ports(3 * members)?.into_iter();
        let mut three = || Some([ports.next()?, ports.next()?, ports.next()?]);
        let ports: Vec<[u16; 3]> = (0..members).map_while(|_| three()).collect();
        let mut quorum = String::new();
        if members > 1 {
            for (id, [_, peers, election]) in (1..).zip(&ports) {
                // Writing to text cannot fail.
                let _ = writeln!(quorum, "server.{id}=127.0.0.1:{peers}:{election}");
            }
        }
        let members = (1..).zip(&ports).map(|(id, [port, ..])| {
            let home = folder.path().join(format!("{id}"));
            let server = set_up(java, &home, id, *port, &quorum)?;
            Ok(Member {
                server,
                port: *port,
            })
        });
        let mut cluster = Self {
            members: members.collect::<io::Result<Vec<_>>>()?,
            folder,
        };
        for member in &mut cluster.members {
            member.server.start()?;
        }
        for member in &mut cluster.members {
            let port = member.port;
            member.server.wait_until(|| mode(port).is_some())?;
        }
        Ok(cluster)
    }

    /// How many there are, running or not.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// Where a member takes clients: `127.0.0.1:PORT`.
    ///
    /// # Panics
    /// When there is no such member.
    #[must_use]
    pub fn host(&self, member: usize) -> String {
        let member = self.members.get(member).expect("a member");
        format!("127.0.0.1:{}", member.port)
    }

    /// All of them, with commas between.
    #[must_use]
    pub fn hosts(&self) -> String {
        let hosts: Vec<String> = (0..self.members())
            .map(|member| self.host(member))
            .collect();
        hosts.join(",")
    }

    /// The folder of all; it is deleted with this.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Who leads, as far as a member says so of itself.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let mut modes = self.members.iter().map(|member| mode(member.port));
        modes.position(|mode| matches!(mode.as_deref(), Some("leader" | "standalone")))
    }

    /// Whether a member serves: it is alone, or part of a quorum.
    #[must_use]
    pub fn serves(&self, member: usize) -> bool {
        let member = self.members.get(member);
        member.is_some_and(|member| mode(member.port).is_some())
    }

    /// What a member answers to a question of four letters, such as `mntr`; empty when it does not.
    ///
    /// # Panics
    /// When there is no such member.
    #[must_use]
    pub fn ask(&self, member: usize, question: &str) -> String {
        let member = self.members.get(member).expect("a member");
        ask(member.port, question).unwrap_or_default()
    }

    /// Starts a member again that was killed; that it serves is for [`serves`](Self::serves) to tell.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self, member: usize) -> io::Result<()> {
        self.server(member)?.start()
    }

    /// Kills a member at once.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn kill(&mut self, member: usize) -> io::Result<()> {
        self.server(member)?.kill()
    }

    /// Makes a member stand still.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&mut self, member: usize) -> io::Result<()> {
        self.server(member)?.signal(Signal::STOP)
    }

    /// Lets a member go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&mut self, member: usize) -> io::Result<()> {
        self.server(member)?.signal(Signal::CONT)
    }

    fn server(&mut self, member: usize) -> io::Result<&mut Server> {
        let member = self.members.get_mut(member);
        let member = member.ok_or_else(|| io::Error::other("there is no such member"))?;
        Ok(&mut member.server)
    }
}

/// Writes what a member needs; it is not started yet.
fn set_up(java: &Path, home: &Path, id: u64, port: u16, quorum: &str) -> io::Result<Server> {
    let data = home.join("data");
    std::fs::create_dir_all(&data)?;
    std::fs::write(data.join("myid"), format!("{id}\n"))?;
    std::fs::write(home.join("log4j.properties"), LOG)?;
    // A tick is short, so that a lost leader is noticed in seconds; the limits in ticks are long, so that a busy
    // machine is not taken for a lost one.
    let text = format!(
        "tickTime=500\ninitLimit=40\nsyncLimit=8\nmaxSessionTimeout=20000\ndataDir={}\nclientPort={port}\n\
         clientPortAddress=127.0.0.1\nadmin.enableServer=false\n4lw.commands.whitelist=*\nmaxClientCnxns=0\n{quorum}",
        data.display()
    );
    let config = home.join("zoo.cfg");
    std::fs::write(&config, text)?;
    let arguments = [
        // Small, and soon up: the compiler that takes its time pays off only later.
        "-Xmx128m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:-UsePerfData",
        "-Dzookeeper.preAllocSize=1024",
        "-Dzookeeper.jmx.log4j.disable=true",
        "-cp",
        &format!("{}:{JAR}", home.display()),
        "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        &config.display().to_string(),
    ];
    let arguments = arguments.iter().map(ToString::to_string).collect();
    let log: PathBuf = home.join("log");
    // Nothing here is to be kept longer than the folder.
    Ok(Server::new(java.to_owned(), arguments, log).ended_by(Signal::KILL))
}

/// `leader`, `follower` or `standalone`; `None` from who does not serve.
fn mode(port: u16) -> Option<String> {
    let said = ask(port, "srvr").ok()?;
    let mode = said.lines().find_map(|line| line.strip_prefix("Mode: "))?;
    Some(mode.to_owned())
}

fn ask(port: u16, question: &str) -> io::Result<String> {
    let address = ([127, 0, 0, 1], port).into();
    let mut stream = TcpStream::connect_timeout(&address, ASK_LIMIT)?;
    stream.set_read_timeout(Some(ASK_LIMIT))?;
    stream.write_all(question.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
