//! Tests of the ledgers of this crate.

#[cfg(feature = "consul")]
mod consul;
#[cfg(feature = "etcd")]
mod etcd;
mod faulty;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(
    feature = "etcd",
    feature = "zookeeper",
    feature = "consul",
    feature = "postgres"
))]
#[cfg_attr(
    not(any(feature = "etcd", feature = "postgres")),
    expect(dead_code, reason = "tests of the other stores need less of it")
)]
mod support;
#[cfg(feature = "zookeeper")]
mod zookeeper;
