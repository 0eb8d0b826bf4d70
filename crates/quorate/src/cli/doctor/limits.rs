//! What this process may have: open files, and an address to listen on.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quorate_api::client::{Client, Options};
use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::cli::remote::options;
use crate::cli::{DEFAULT_ADDRESS, Global};

const FILES: &str = "open files";
const PORT: &str = "port";
/// Fewer are not enough for a hundred runs.
const FILES_MIN: u64 = 1024;
/// A run takes a handful; this is enough for about a thousand.
const FILES_WARN: u64 = 8192;
/// Whoever listens on this machine answers at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Wardens raise the soft limit to the hard one by themselves, so that is what counts.
pub(super) fn open_files() -> Vec<Finding> {
    let limit = getrlimit(Resource::Nofile);
    vec![files(limit.maximum.unwrap_or(u64::MAX))]
}

fn files(most: u64) -> Finding {
    let found = if most == u64::MAX {
        "no limit".to_owned()
    } else {
        format!("at most {most}")
    };
    let next = "raise the hard limit (ulimit -Hn; systemd: LimitNOFILE=65536)";
    if most < FILES_MIN {
        Finding::bad(FILES, found, next)
    } else if most < FILES_WARN {
        Finding::warn(
            FILES,
            format!("{found}, enough for some {} runs", most / 8),
            next,
        )
    } else {
        Finding::ok(FILES, found)
    }
}

/// Whether a director could listen, or does. Who did not ask for an address may want none.
pub(super) async fn port(asked: Option<SocketAddr>, global: &Global) -> Vec<Finding> {
    let address = match asked.map_or_else(|| DEFAULT_ADDRESS.parse(), Ok) {
        Ok(address) => address,
        // The address is a constant of this program.
        Err(_) => return Vec::new(),
    };
    vec![match std::net::TcpListener::bind(address) {
        Ok(_listener) => Finding::ok(PORT, format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if is_director(address, global).await {
                Finding::ok(PORT, format!("{address} is a director's"))
            } else {
                let found = format!("{address} is taken by {}", who(address));
                let next = "stop it, or choose another address with --listen";
                match asked {
                    Some(_) => Finding::bad(PORT, found, next),
                    None => Finding::warn(PORT, found, next),
                }
            }
        }
        Err(error) => Finding::bad(
            PORT,
            format!("{address} cannot be listened on: {error}"),
            "choose an address of this machine",
        ),
    }]
}

async fn is_director(address: SocketAddr, global: &Global) -> bool {
    let Ok(options) = options(global) else {
        return false;
    };
    let options = Options {
        call_time: ANSWER_WITHIN,
        leader_time: ANSWER_WITHIN,
        ..options
    };
    match Client::with(vec![address.to_string()], options) {
        Ok(client) => client.directors().await.is_ok(),
        Err(_) => false,
    }
}

/// The process that listens there, as far as this user may see it.
fn who(address: SocketAddr) -> String {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let socket = tables.iter().find_map(|table| {
        let text = std::fs::read_to_string(table).ok()?;
        listener(&text, address.port())
    });
    let holder = socket.and_then(|inode| holder(&format!("socket:[{inode}]")));
    holder.unwrap_or_else(|| "a process that this user cannot see".to_owned())
}

/// The socket that listens on a port, in the kernel's table.
fn listener(table: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, own_port) = fields.get(1)?.rsplit_once(':')?;
        let matches =
            u16::from_str_radix(own_port, 16) == Ok(port) && fields.get(3) == Some(&LISTEN);
        matches.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

fn holder(socket: &str) -> Option<String> {
    std::fs::read_dir("/proc").ok()?.find_map(|entry| {
        let entry = entry.ok()?;
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let mut files = std::fs::read_dir(entry.path().join("fd")).ok()?;
        let holds = files.any(|file| {
            file.is_ok_and(|file| {
                std::fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == socket)
            })
        });
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        holds.then(|| format!("{} (pid {pid})", name.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn few_open_files_are_told_with_what_they_are_enough_for() {
        assert_eq!(files(u64::MAX).state, State::Ok);
        assert_eq!(files(512).state, State::Bad);
        let some = files(4096);
        assert_eq!(some.state, State::Warn);
        assert!(some.found.contains("512 runs"), "{some:?}");
    }

    #[test]
    fn who_listens_is_found_in_the_kernels_table() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let own = format!("(pid {})", std::process::id());
        assert!(who(address).ends_with(&own), "{}", who(address));
        assert_eq!(listener("sl local_address\n", 80), None);
        assert_eq!(listener("", 80), None);
    }
}
