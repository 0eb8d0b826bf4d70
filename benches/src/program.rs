//! The shipped program as a process of its own, and what the kernel says that it has used.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use quorate_api::client::Client;

/// How long a director may take until it leads.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// Unit of processor time in `/proc` on every kernel that Linux programs meet.
const TICKS_PER_SECOND: f64 = 100.0;

/// A director that leads alone. It ends when this is dropped.
#[derive(Debug)]
pub struct Director {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Speaks with it.
    pub client: Client,
}

/// The program that was built with this one.
///
/// # Errors
/// When it is not there.
pub fn beside_us() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("quorate");
    anyhow::ensure!(
        path.is_file(),
        "{} is not there: build it first with `cargo build -p quorate` and the same profile",
        path.display()
    );
    Ok(path)
}

impl Director {
    /// Starts one with its data in `folder`, and waits until it leads.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new(program)
            .args(["director", "--name", "d1", "--log-level", "error"])
            .arg("--listen")
            .arg(address.to_string())
            .arg("--data-dir")
            .arg(folder)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("{} does not start", program.display()))?;
        let client = Client::new(vec![address.to_string()], None)?;
        let director = Self {
            child,
            address,
            client,
        };
        let began = Instant::now();
        while let Err(cause) = director.client.ready().await {
            if began.elapsed() > READY_LIMIT {
                return Err(cause).context("the director does not become ready");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(director)
    }

    /// Processor time that it has used.
    ///
    /// # Errors
    /// When it is gone.
    pub fn processor_time(&self) -> anyhow::Result<Duration> {
        processor_time(self.child.id())
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resident(&self) -> anyhow::Result<u64> {
        resident(self.child.id())
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Processor time that a process has used, in itself and for it in the kernel.
///
/// # Errors
/// When it is gone.
pub fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything.
    let (_, rest) = stat.rsplit_once(')').context("no name in stat")?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = 0.0;
    for _ in 0..2 {
        let field = fields.next().context("stat is too short")?;
        ticks += field.parse::<f64>()?;
    }
    Ok(Duration::from_secs_f64(ticks / TICKS_PER_SECOND))
}

/// Resident memory of a process in bytes.
///
/// # Errors
/// When it is gone.
pub fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes: u64 = kilobytes.context("no VmRSS in status")?.parse()?;
    Ok(kilobytes * 1024)
}

/// Bytes that a process has given the kernel to be written to a disk.
///
/// # Errors
/// When it is gone.
pub fn written(pid: u32) -> anyhow::Result<u64> {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.context("no write_bytes in io")?.parse()?)
}
