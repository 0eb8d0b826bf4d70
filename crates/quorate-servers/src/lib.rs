//! Real servers of the stores that can keep a ledger, for tests and benchmarks: each in a folder of its own, on free
//! ports of this machine, ended with whoever started it. It knows nothing of quorate.

pub mod etcd;
pub mod postgres;
pub mod process;
pub mod zookeeper;
