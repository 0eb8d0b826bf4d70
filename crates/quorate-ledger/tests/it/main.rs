//! Tests of the ledgers of this crate.

#[cfg(feature = "consul")]
mod consul;
#[cfg(feature = "etcd")]
mod etcd;
mod faulty;
mod memory;
