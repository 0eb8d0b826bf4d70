//! The directors of a cluster, founded and joined as people do it, and the commands that they are asked by.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::director::Director;
use crate::machine::Place;
use crate::net::swallow;
use crate::process::{run, within};

/// How long a director may take to be in the quorum.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// A member that has been silent for longer does not follow.
const SILENT_MAX: u64 = 1000;

/// The directors.
#[derive(Debug)]
pub(crate) struct Quorum {
    place: Place,
    pub(crate) directors: Vec<Director>,
}

impl Quorum {
    /// Founds a cluster with so many directors, the last of which has a small disk.
    pub(crate) fn found(place: &Place, first: u8) -> Result<Self> {
        let count = u8::try_from(place.directors.len())?;
        let small_disk = |at| place.store.is_none() && count > 1 && at + 1 == count;
        let all = (0..count).map(|at| Director::new(place, first, at, small_disk(at)));
        let mut quorum = Self {
            place: place.clone(),
            directors: all.collect::<Result<_>>()?,
        };
        let founder = quorum.directors.first_mut().context("no director")?;
        let mut init = founder.command()?;
        init.args(["init", "--name", &founder.name]);
        founder.settles(&mut init);
        let token = run(&mut init)?;
        let authority = founder.folder().join("pki/ca.pem");
        founder.start()?;
        // Its folder may be emptied later.
        fs::copy(authority, quorum.authority())?;
        quorum.secret("admin", &token)?;
        for at in 1..quorum.directors.len() {
            quorum.let_in(at)?;
        }
        quorum.until_in()?;
        Ok(quorum)
    }

    fn authority(&self) -> PathBuf {
        self.place.folder.join("ca.pem")
    }

    fn token_file(&self, name: &str) -> PathBuf {
        self.place.folder.join(format!("{name}.token"))
    }

    /// Keeps a token in a file for its owner alone.
    fn secret(&self, name: &str, token: &str) -> Result<PathBuf> {
        let path = self.token_file(name);
        let mut file = fs::File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(token.as_bytes())?;
        Ok(path)
    }

    /// A file with a token that lets in so many of a role.
    pub(crate) fn join_token(&self, role: &str, uses: usize) -> Result<PathBuf> {
        let uses = uses.to_string();
        let create = ["join-token", "create", "--role", role, "--uses", &uses];
        // The founder may not lead yet.
        let token = within(READY_WITHIN, "a join token is made", || {
            self.quorate(&create).ok()
        })?;
        self.secret(role, &token)
    }

    /// Makes the folder of a director that joins, and starts it.
    fn let_in(&mut self, at: usize) -> Result<()> {
        let token = self.join_token("director", 1)?;
        let others: Vec<String> = self.directors.iter().map(of).collect();
        let director = self.directors.get_mut(at).context("no such director")?;
        let others: Vec<String> = others
            .into_iter()
            .filter(|other| *other != of(director))
            .collect();
        let mut join = director.command()?;
        join.args(["join", &others.join(","), "--name", &director.name])
            .arg("--join-token-file")
            .arg(token);
        director.settles(&mut join);
        run(&mut join)?;
        director.start()
    }

    /// Removes a director from the quorum for ever, and lets another one in that has its name and its address,
    /// and nothing of what it knew.
    pub(crate) fn replace(&mut self, at: usize) -> Result<()> {
        let director = self.directors.get_mut(at).context("no such director")?;
        let name = director.name.clone();
        self.quorate(&["cluster", "remove", &name])?;
        if let Some(director) = self.directors.get_mut(at) {
            director.kill();
            director.empty()?;
        }
        self.let_in(at)?;
        self.until_in()
    }

    /// Waits until every director is in: it votes, or has told of itself over a store, where nobody votes.
    fn until_in(&self) -> Result<()> {
        within(READY_WITHIN, "every director is in", || {
            let cluster = self.json(&["cluster", "status"]).ok()?;
            self.all_in(&cluster).then_some(())
        })
    }

    fn all_in(&self, cluster: &Value) -> bool {
        let count = self.directors.len();
        let members = cluster.get("members").and_then(Value::as_array);
        let voters = cluster.get("voters").and_then(Value::as_u64);
        let has_ledger = cluster.get("ledger").is_some();
        let votes = has_ledger || voters == Some(count as u64);
        // It says so exactly where they were told of one.
        votes
            && has_ledger == self.place.store.is_some()
            && members.is_some_and(|all| all.len() == count)
    }

    /// Waits until a director answers for the cluster.
    pub(crate) fn ready(&self) -> Result<()> {
        within(READY_WITHIN, "a director answers", || {
            self.quorate(&["cluster", "status"]).ok().map(drop)
        })
    }

    /// Which director leads, as those that can be asked say.
    pub(crate) fn leader(&self) -> Result<usize> {
        within(READY_WITHIN, "a director leads", || {
            let cluster = self.json(&["cluster", "status"]).ok()?;
            let members = cluster.get("members")?.as_array()?;
            let leads = members
                .iter()
                .find(|member| member.get("role").is_some_and(|role| role == "leader"))?;
            let name = leads.get("name")?.as_str()?;
            let all = &self.directors;
            all.iter().position(|director| director.name == name)
        })
    }

    /// Whether every director votes and follows, or leads.
    pub(crate) fn all_here(&self) -> bool {
        let Ok(cluster) = self.json(&["cluster", "status"]) else {
            return false;
        };
        if self.place.store.is_some() {
            return self.all_in(&cluster) && self.all_follow(&cluster);
        }
        let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_u64);
        let here = |member: &&Value| {
            member
                .get("role")
                .is_some_and(|role| role == "leader" || role == "follower")
                && number(member, "silent_ms").is_none_or(|silent| silent < SILENT_MAX)
        };
        let members = cluster.get("members").and_then(Value::as_array);
        let count = self.directors.len();
        self.all_in(&cluster) && members.is_some_and(|all| all.iter().filter(here).count() == count)
    }

    /// Whether every director over a store, asked itself, says that the same one leads, and has seen what was seen when
    /// another one was asked: nobody else knows whether it follows.
    fn all_follow(&self, seen: &Value) -> bool {
        let index = |cluster: &Value| cluster.get("index").and_then(Value::as_u64);
        let leader = |cluster: &Value| {
            let members = cluster.get("members")?.as_array()?;
            let leads = |member: &&Value| member.get("role").is_some_and(|role| role == "leader");
            let name = members.iter().find(leads)?.get("name")?;
            Some((cluster.get("epoch")?.as_u64()?, name.as_str()?.to_owned()))
        };
        leader(seen).is_some()
            && self.directors.iter().all(|director| {
                let told = self.json(&["cluster", "status", "--address", &of(director)]);
                told.is_ok_and(|told| leader(&told) == leader(seen) && index(&told) >= index(seen))
            })
    }

    /// Directors that have ended though nobody ended them.
    pub(crate) fn fallen(&mut self) -> Vec<String> {
        let all = self.directors.iter_mut();
        let ended = all.filter_map(|director| {
            let how = director.ended()?;
            Some(format!(
                "director {} has ended by itself: {how}",
                director.name
            ))
        });
        ended.collect()
    }

    /// Swallows what one director sends another, or no longer does.
    pub(crate) fn swallow(&self, from: usize, to: usize, cut: bool) -> Result<()> {
        let ip = |at: usize| self.directors.get(at).map(Director::ip);
        let (from, to) = ip(from).zip(ip(to)).context("no such directors")?;
        swallow(from, to, cut)
    }

    /// The tokens under which a partition has been assumed, as far as the directors that answer have kept that.
    pub(crate) fn assumed(&self, partition: &str, at: Option<usize>) -> Result<BTreeSet<u64>> {
        let mut args = vec!["history", partition];
        let address = at.and_then(|at| self.directors.get(at)).map(of);
        if let Some(address) = &address {
            args.extend(["--address", address]);
        }
        let entries = self.json(&args)?;
        let entries = entries.as_array().context("a history has entries")?;
        let assumed = entries
            .iter()
            .filter(|entry| entry.get("kind").is_some_and(|kind| kind == "assumed"));
        Ok(assumed
            .filter_map(|entry| entry.get("token")?.as_u64())
            .collect())
    }

    /// What a command prints as JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.quorate(&[args, &["-o", "json"]].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Runs a command of the program to its end; it must succeed.
    pub(crate) fn quorate(&self, args: &[&str]) -> Result<String> {
        let output = self.command(args).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "quorate {}: {}: {}",
                args.join(" "),
                output.status,
                said.trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A command of the program that asks the directors, not started yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.place.program);
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("QUORATE_ADDRESS", self.place.addresses())
            .env("QUORATE_CA_FILE", self.authority())
            .env("QUORATE_API_TOKEN_FILE", self.token_file("admin"))
            .stdin(Stdio::null());
        command
    }
}

fn of(director: &Director) -> String {
    let address: SocketAddr = director.address;
    address.to_string()
}
