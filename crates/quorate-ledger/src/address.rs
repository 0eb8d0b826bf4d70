//! Where a shared ledger is: `etcd://user@host:2379,other:2379/prefix?ca=ca.pem`.
//!
//! A password need not be in the address, where others can read it: it may be in a file (`password_file=`) or in
//! the environment ([`PASSWORD_VARIABLE`]).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The password of the store's user, when the address has none.
pub const PASSWORD_VARIABLE: &str = "QUORATE_LEDGER_PASSWORD";

/// Where the keys of a cluster are when the address does not say.
const PREFIX: &str = "quorate";

/// Longest prefix: keys have limits, too (`ZooKeeper` and etcd count them into a request).
const PREFIX_BYTES_MAX: usize = 200;

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `PostgreSQL`.
    Postgres,
    /// etcd 3.4 or later.
    Etcd,
    /// `ZooKeeper` 3.5 or later.
    Zookeeper,
    /// Consul.
    Consul,
}

impl Scheme {
    const ALL: [Self; 4] = [Self::Postgres, Self::Etcd, Self::Zookeeper, Self::Consul];

    /// As addresses have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Etcd => "etcd",
            Self::Zookeeper => "zookeeper",
            Self::Consul => "consul",
        }
    }

    /// Where such a store listens when nothing else is said.
    const fn port(self) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::Etcd => 2379,
            Self::Zookeeper => 2181,
            Self::Consul => 8500,
        }
    }

    fn of(name: &str) -> Option<Self> {
        let name = if name == "postgresql" {
            "postgres"
        } else {
            name
        };
        Self::ALL.into_iter().find(|scheme| scheme.name() == name)
    }
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// To hand to the store.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// One server of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Name or address, an IPv6 one without brackets.
    pub name: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// How the store is known, and who we are to it. PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of the authorities that are trusted; those of the system when there is none.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The address of a shared ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Which store.
    pub scheme: Scheme,
    /// Its servers, at least one.
    pub hosts: Vec<Host>,
    /// What this cluster's keys begin with, without slashes at the ends; of `PostgreSQL` the database.
    pub prefix: String,
    /// Of `PostgreSQL` the schema of this cluster's tables.
    pub schema: Option<String>,
    /// Who we are to the store.
    pub user: Option<String>,
    /// And the proof.
    pub password: Option<Secret>,
    /// `None`: the store is spoken to in the clear.
    pub tls: Option<Tls>,
}

/// Why text is no address of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; an address of a ledger is like {example}")]
pub struct AddressError {
    what: String,
    example: &'static str,
}

fn wrong(what: impl Into<String>) -> AddressError {
    AddressError {
        what: what.into(),
        example: "postgres://user@host/database or etcd://host:2379,other:2379/prefix",
    }
}

/// Without the password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.name())?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        for (at, host) in self.hosts.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{host}")?;
        }
        write!(f, "/{}", self.prefix)?;
        match &self.schema {
            Some(schema) => write!(f, "?schema={schema}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| wrong("it has no ://"))?;
        let scheme = Scheme::of(scheme).ok_or_else(|| {
            let names: Vec<&str> = Scheme::ALL.iter().map(|scheme| scheme.name()).collect();
            wrong(format!(
                "there is no store {scheme:?}, only {}",
                names.join(", ")
            ))
        })?;
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if path.contains('@') {
            // What is before it may be a part of a password: nothing of it is shown.
            return Err(wrong(
                "it has an @ behind a /; in a password / is written as %2F, ? as %3F and @ as %40",
            ));
        }
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let mut address = Self {
            scheme,
            hosts: hosts
                .split(',')
                .map(|host| parse_host(host, scheme))
                .collect::<Result<_, _>>()?,
            prefix: parse_prefix(path)?,
            schema: None,
            user: None,
            password: None,
            tls: None,
        };
        if let Some(user) = user {
            let (user, password) = match user.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (user, None),
            };
            address.user = Some(decoded(user)?);
            address.password = password.map(decoded).transpose()?.map(Secret);
        }
        address.take_options(options)?;
        if address.password.is_none() && address.user.is_some() {
            address.password = std::env::var(PASSWORD_VARIABLE).ok().map(Secret);
        }
        Ok(address)
    }
}

impl Address {
    fn take_options(&mut self, options: &str) -> Result<(), AddressError> {
        let mut certificate = None;
        let mut key = None;
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option
                .split_once('=')
                // Not shown: it may be a part of a password.
                .ok_or_else(|| {
                    wrong("an option has no value; in a password ? is written as %3F")
                })?;
            let value = decoded(value)?;
            match name {
                "tls" => self.take_tls(&value)?,
                "ca" => self.tls().ca = Some(PathBuf::from(value)),
                "cert" => certificate = Some(PathBuf::from(value)),
                "key" => key = Some(PathBuf::from(value)),
                "password_file" => self.password = Some(read_password(&value)?),
                "schema" if self.scheme == Scheme::Postgres => {
                    self.schema = Some(parse_schema(value)?);
                }
                _ => {
                    return Err(wrong(format!(
                        "there is no option {name:?}, only tls, ca, cert, key, password_file, and schema for postgres"
                    )));
                }
            }
        }
        match (certificate, key) {
            (None, None) => Ok(()),
            (Some(certificate), Some(key)) => {
                self.tls().identity = Some((certificate, key));
                Ok(())
            }
            (Some(_), None) | (None, Some(_)) => {
                Err(wrong("cert and key belong together, and one is missing"))
            }
        }
    }

    fn take_tls(&mut self, value: &str) -> Result<(), AddressError> {
        match value {
            "true" => {
                self.tls();
                Ok(())
            }
            "false" if self.tls.is_none() => Ok(()),
            _ => Err(wrong(
                "option tls is true or false, and true with ca, cert and key",
            )),
        }
    }

    fn tls(&mut self) -> &mut Tls {
        self.tls.get_or_insert_default()
    }
}

fn parse_host(text: &str, scheme: Scheme) -> Result<Host, AddressError> {
    let port = |text: &str| {
        let port = text.parse().ok().filter(|port| *port != 0);
        port.ok_or_else(|| wrong(format!("{text:?} is no port")))
    };
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, after) = rest
                .split_once(']')
                .ok_or_else(|| wrong(format!("host {text:?} has no ]")))?;
            match after.strip_prefix(':') {
                Some(after) => (name, port(after)?),
                None if after.is_empty() => (name, scheme.port()),
                None => return Err(wrong(format!("host {text:?} goes on after its ]"))),
            }
        }
        None => match text.split_once(':') {
            Some((name, after)) => (name, port(after)?),
            None => (text, scheme.port()),
        },
    };
    if name.is_empty() {
        return Err(wrong("a host is missing"));
    }
    let name = name.to_owned();
    Ok(Host { name, port })
}

fn parse_prefix(path: &str) -> Result<String, AddressError> {
    let path = path.trim_matches('/');
    if path.is_empty() {
        return Ok(PREFIX.to_owned());
    }
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./".contains(letter);
    let odd = |name: &str| name.is_empty() || name == "." || name == "..";
    if path.len() > PREFIX_BYTES_MAX || !path.chars().all(plain) || path.split('/').any(odd) {
        return Err(wrong(format!(
            "prefix {path:?} is not of letters, digits, - _ . and / alone, at most {PREFIX_BYTES_MAX}, with names \
             between the slashes"
        )));
    }
    Ok(path.to_owned())
}

fn parse_schema(value: String) -> Result<String, AddressError> {
    let plain =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    let starts = value.starts_with(|first: char| first.is_ascii_lowercase());
    if !starts || value.len() > 60 || !value.chars().all(plain) {
        return Err(wrong(format!(
            "schema {value:?} is not a small letter with at most 59 small letters, digits and _ after it"
        )));
    }
    Ok(value)
}

fn read_password(file: &str) -> Result<Secret, AddressError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| wrong(format!("password_file {file} cannot be read: {error}")))?;
    Ok(Secret(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Percent-encoding undone.
fn decoded(text: &str) -> Result<String, AddressError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()];
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let value = digit(digits[0]).zip(digit(digits[1]));
        let value = value.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        // What could not be decoded may be a password: it is not shown.
        bytes.push(value.ok_or_else(|| wrong("a % is not followed by two hexadecimal digits"))?);
    }
    String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8"))
}
