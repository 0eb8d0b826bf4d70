//! Owners that write into Redis with the script of the document.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::blocks::block;
use super::servers::{self, Server};
use super::{Owner, Resource};

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(60);
const FENCE: &str = "{feeds/mb}:fence";
const ROWS: &str = "{feeds/mb}:rows";

/// The server.
pub(crate) struct InRedis(Server);

impl InRedis {
    pub(crate) fn start() -> Option<Self> {
        servers::redis().map(Self)
    }
}

/// One connection, in the protocol of Redis.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.set_read_timeout(Some(LIMIT)).expect("set");
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, words: &[&str]) -> Vec<String> {
        let mut said = format!("*{}\r\n", words.len());
        for word in words {
            said += &format!("${}\r\n{word}\r\n", word.len());
        }
        let stream = self.0.get_mut();
        stream.write_all(said.as_bytes()).expect("it listens");
        let first = self.line();
        // A list of texts, each behind a line with its length.
        match first.strip_prefix('*') {
            None => vec![first],
            Some(count) => (0..count.parse().expect("a number"))
                .map(|_: usize| {
                    self.line();
                    self.line()
                })
                .collect(),
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer in time");
        line.trim_end().to_owned()
    }
}

struct RedisOwner {
    connection: Connection,
    script: String,
    token: String,
    cluster: String,
}

impl RedisOwner {
    fn run(&mut self, value: Option<&str>) -> bool {
        let mut words = vec!["EVAL", &self.script, "2", FENCE, ROWS];
        words.extend([self.token.as_str(), self.cluster.as_str()]);
        words.extend(value);
        let answer = self.connection.ask(&words).concat();
        assert!(
            answer == "+OK" || answer.starts_with("-FENCED by token "),
            "{answer}"
        );
        answer == "+OK"
    }
}

impl Owner for RedisOwner {
    fn take_over(&mut self) -> bool {
        self.run(None)
    }

    fn write(&mut self, line: &str) -> bool {
        let value = format!("{} {line}", self.token);
        self.run(Some(&value))
    }
}

impl Resource for InRedis {
    fn owner(&self, token: u64, cluster: &str) -> Box<dyn Owner> {
        Box::new(RedisOwner {
            connection: Connection::open(self.0.port),
            script: block("lua redis guard"),
            token: token.to_string(),
            cluster: cluster.to_owned(),
        })
    }

    fn tokens(&self) -> Vec<u64> {
        let rows = Connection::open(self.0.port).ask(&["LRANGE", ROWS, "0", "-1"]);
        let tokens = rows.iter().map(|row| row.split(' ').next());
        tokens
            .map(|token| token.and_then(|token| token.parse().ok()).expect("a token"))
            .collect()
    }
}

/// What is no number, or too small, is no token.
pub(crate) fn no_token_is_refused(resource: &InRedis) {
    let mut connection = Connection::open(resource.0.port);
    let script = block("lua redis guard");
    for token in ["", "x", "-1"] {
        let words = [
            "EVAL",
            &script,
            "2",
            FENCE,
            ROWS,
            token,
            super::CLUSTER,
            "y",
        ];
        let answer = connection.ask(&words).concat();
        assert!(answer.starts_with("-FENCED"), "{token:?}: {answer}");
    }
}
