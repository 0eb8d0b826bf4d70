//! Certificates as their users see them: files, requests, and handshakes over loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod files;
mod handshakes;
mod requests;

use std::time::{Duration, SystemTime};

use quorate_core::ids::ClusterId;
use quorate_pki::{Authority, Host, Identity, Papers, Role, Validity};

const CLUSTER: ClusterId = ClusterId(0x1234_5678_9abc_def0);

fn authority() -> Authority {
    Authority::new(CLUSTER, SystemTime::now()).unwrap()
}

fn identity(role: Role, name: &str) -> Identity {
    Identity::new(CLUSTER, role, name).unwrap()
}

fn papers(authority: &Authority, role: Role, name: &str) -> Papers {
    let identity = Identity::new(authority.trust().cluster(), role, name).unwrap();
    let validity = Validity::usual(SystemTime::now());
    authority.papers(&identity, &[], validity).unwrap()
}

fn hosts(names: &[&str]) -> Vec<Host> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

const HOUR: Duration = Duration::from_hours(1);
