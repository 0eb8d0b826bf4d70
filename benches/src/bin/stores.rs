//! How fast a ledger is in PostgreSQL, etcd and ZooKeeper, beside what one client of the same server writes without it.
//!
//! `cargo run --profile ci -p quorate-benches --bin stores [-- SECONDS ROUNDS]`
//!
//! Each store is one server with its files in a temporary folder. In every round each kind of call is made for SECONDS, one
//! after the other on one connection, as a leader does. *peer* is a new key or row of the same size by the store's own
//! means, without a condition; *append* is one entry of a ledger; *end* is a look at the end of the ledger, which is what
//! proves that a leader leads. The rounds are interleaved, and what is told is the median of them.

#![expect(
    clippy::print_stdout,
    reason = "a measurement is read on standard output"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use quorate_benches::load::{Measured, median};
use quorate_core::ids::{Epoch, Position};
use quorate_ledger::shared::SharedLedger;
use quorate_ledger::{Appended, Ledger as _};
use quorate_servers::etcd::EtcdCluster;
use quorate_servers::postgres::Postgres;
use quorate_servers::zookeeper::ZookeeperCluster;
use serde_json::json;
use zookeeper_client::{Acls, CreateMode};

/// Sizes of an entry: a few records, and the largest that fits every store.
const SIZES: [usize; 2] = [1024, 250 * 1024];

fn main() -> ExitCode {
    let mut numbers = std::env::args()
        .skip(1)
        .filter_map(|word| word.parse().ok());
    let seconds = Duration::from_secs(numbers.next().unwrap_or(3));
    let rounds = usize::try_from(numbers.next().unwrap_or(5_u64)).unwrap_or(5);
    let runtime = tokio::runtime::Runtime::new();
    let measured = runtime
        .context("no threads")
        .and_then(|runtime| runtime.block_on(measure(seconds, rounds)));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            println!("{cause:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(time: Duration, rounds: usize) -> anyhow::Result<()> {
    println!("a second (p50, p99 in ms), one call outstanding");
    println!("| store | bytes | peer | append | append/peer | end |");
    println!("| --- | --- | --- | --- | --- | --- |");
    if let Some(server) = Postgres::start() {
        let server = server?;
        let url = format!("postgres://postgres@127.0.0.1:{}/quorate", server.port());
        let peer = Peer::postgres(server.port()).await?;
        rows("postgres", &url, &peer, time, rounds).await?;
    }
    if let Some(server) = EtcdCluster::start(1) {
        let server = server?;
        let host = server.hosts().join(",");
        let peer = Peer::etcd(&host)?;
        rows(
            "etcd",
            &format!("etcd://{host}/quorate"),
            &peer,
            time,
            rounds,
        )
        .await?;
    }
    if let Some(server) = ZookeeperCluster::start(1)? {
        let host = server.hosts();
        let peer = Peer::zookeeper(&host).await?;
        rows(
            "zookeeper",
            &format!("zookeeper://{host}/quorate"),
            &peer,
            time,
            rounds,
        )
        .await?;
    }
    Ok(())
}

async fn rows(
    name: &str,
    url: &str,
    peer: &Peer,
    time: Duration,
    rounds: usize,
) -> anyhow::Result<()> {
    let ledger = SharedLedger::open(&url.parse()?)?;
    let mut next = ledger.tail().await?.next;
    // ZooKeeper keeps all of it in memory: some seconds of large entries, and there is none left.
    let sizes = if name == "zookeeper" { 1 } else { SIZES.len() };
    for bytes in SIZES.into_iter().take(sizes) {
        let (mut peers, mut appends, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            peers.push(repeat(time, async |number| peer.put(number, bytes).await).await?);
            let append = async |_| {
                let appended = ledger.append(next, Epoch(1), vec![7; bytes]).await?;
                anyhow::ensure!(appended == Appended::Appended, "position {next} is taken");
                next = Position(next.0 + 1);
                Ok(())
            };
            appends.push(repeat(time, append).await?);
            let end = async |_| {
                ledger.tail().await?;
                Ok(())
            };
            ends.push(repeat(time, end).await?);
        }
        let (peer, append) = (median(&peers), median(&appends));
        println!(
            "| {name} | {bytes} | {peer} | {append} | {:.2} | {} |",
            append.per_second / peer.per_second,
            median(&ends)
        );
    }
    Ok(())
}

/// The same call, one after the other, for so long.
async fn repeat(
    time: Duration,
    mut call: impl AsyncFnMut(u64) -> anyhow::Result<()>,
) -> anyhow::Result<Measured> {
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < time {
        let asked = Instant::now();
        call(times.len() as u64).await?;
        times.push(asked.elapsed());
    }
    Ok(Measured::of(times, 1, began.elapsed()))
}

/// A client of the store that writes without a ledger.
enum Peer {
    Postgres(tokio_postgres::Client),
    Etcd(reqwest::Client, String),
    Zookeeper(zookeeper_client::Client),
}

impl Peer {
    async fn postgres(port: u16) -> anyhow::Result<Self> {
        let config = format!("host=127.0.0.1 port={port} user=postgres dbname=quorate");
        let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        let table = "create table peer (id bigint generated always as identity primary key, value bytea not null); \
             alter table peer alter column value set storage external";
        client.batch_execute(table).await?;
        Ok(Self::Postgres(client))
    }

    fn etcd(host: &str) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(quorate_api::client::distrusting())
            .build()?;
        Ok(Self::Etcd(client, format!("http://{host}/v3/kv/put")))
    }

    async fn zookeeper(host: &str) -> anyhow::Result<Self> {
        let client = zookeeper_client::Client::connect(host).await?;
        let open = CreateMode::Persistent.with_acls(Acls::anyone_all());
        client.create("/peer", b"", &open).await?;
        Ok(Self::Zookeeper(client))
    }

    async fn put(&self, number: u64, bytes: usize) -> anyhow::Result<()> {
        let value = vec![7_u8; bytes];
        match self {
            Self::Postgres(client) => {
                client
                    .execute("insert into peer (value) values ($1)", &[&value])
                    .await?;
            }
            Self::Etcd(client, put) => {
                let key = BASE64_STANDARD.encode(format!("peer/{bytes}/{number:016}"));
                let body = json!({"key": key, "value": BASE64_STANDARD.encode(&value)});
                let answer = client.post(put).json(&body).send().await?;
                answer.error_for_status()?.bytes().await?;
            }
            Self::Zookeeper(client) => {
                let open = CreateMode::PersistentSequential.with_acls(Acls::anyone_all());
                client.create("/peer/", &value, &open).await?;
            }
        }
        Ok(())
    }
}
