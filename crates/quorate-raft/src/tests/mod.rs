//! Real quorums: several directors in one process, each with its own folder, reaching each other over TLS
//! on loopback through proxies that can cut any pair.
//!
//! They are here and not beside the crate because a disk that hangs is made inside it.

mod ages;
mod cluster;
mod conformance;
mod disk;
mod elections;
mod kills;
mod membership;
mod papers;
mod partitions;
mod proxy;
mod snapshots;
mod strangers;
