//! Measurements of quorate beside its peers and beside what the machine can do at best. Each is a binary
//! of its own that prints one table; none is a test, since a shared machine passes and fails by luck.
//!
//! Here is what several of them use.

pub mod claiming;
pub mod etcd;
pub mod fleet;
pub mod load;
pub mod program;
pub mod quorum;
pub mod renewing;
pub mod times;
pub mod warden;
