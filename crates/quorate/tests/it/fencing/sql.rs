//! Owners that write into PostgreSQL and MariaDB, with the statements of the document.

use super::blocks::{Statement, block, statements};
use super::servers::{Maria, Postgres};
use super::session::Session;
use super::{CLUSTER, FEED, Owner, Resource};

/// How a statement with parameters is told to a client program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Postgres,
    Maria,
}

/// How an owner writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// One statement.
    Statement,
    /// A transaction, whose first row is the right to go on.
    Transaction,
    /// A plain insert that knows nothing of fencing.
    Trigger,
}

struct SqlOwner {
    session: Session,
    dialect: Dialect,
    way: Way,
    token: u64,
    cluster: String,
    take_over: Vec<Statement>,
    write: Vec<Statement>,
}

impl SqlOwner {
    fn quoted(text: &str) -> String {
        format!("'{}'", text.replace('\'', "''"))
    }

    fn value(&self, name: &str, line: &str) -> String {
        match name {
            "feed" => Self::quoted(FEED),
            "token" => self.token.to_string(),
            "cluster" => Self::quoted(&self.cluster),
            "line" => Self::quoted(line),
            other => panic!("no parameter is called {other}"),
        }
    }

    /// Prepares and executes one statement, as a driver does, and returns the lines that came.
    fn execute(&mut self, statement: &Statement, line: &str) -> Vec<String> {
        let names = &statement.parameters;
        let values: Vec<String> = names.iter().map(|name| self.value(name, line)).collect();
        let text = &statement.text;
        let said = match self.dialect {
            _ if values.is_empty() => format!("{text};"),
            Dialect::Postgres => {
                let values = values.join(", ");
                format!("prepare p as {text};\nexecute p({values});\ndeallocate p;")
            }
            Dialect::Maria => {
                let text = Self::quoted(text);
                let values = values.join(", ");
                format!("prepare p from {text};\nexecute p using {values};\ndeallocate prepare p;")
            }
        };
        let mut lines = self.session.ask(&said);
        lines.retain(|line| !["PREPARE", "DEALLOCATE"].contains(&line.as_str()));
        lines
    }

    /// Whether the last of these statements gave a row.
    fn rows(&mut self, statements: &[Statement]) -> bool {
        let mut lines = Vec::new();
        for statement in statements {
            lines = self.execute(statement, "");
            fine(&lines);
        }
        lines.iter().any(|line| line.parse::<u64>().is_ok())
    }

    fn transaction(&mut self, line: &str) -> bool {
        let write = self.write.clone();
        let [begin, guard, rest @ ..] = write.as_slice() else {
            panic!("a transaction has more statements");
        };
        self.execute(begin, "");
        if !self.rows(std::slice::from_ref(guard)) {
            self.session.ask("rollback;");
            return false;
        }
        for statement in rest {
            fine(&self.execute(statement, line));
        }
        true
    }

    /// What a program does that was never told of fencing.
    fn plainly(&mut self, line: &str) -> bool {
        let (token, line) = (self.token, Self::quoted(line));
        let said = format!(
            "begin;
            insert into arrivals (feed, position, token, line)
                select feed, next, {token}, {line} from feeds where feed = '{FEED}';
            update feeds set next = next + 1 where feed = '{FEED}';
            commit;"
        );
        let answer = self.session.ask(&said);
        let refused = answer.iter().any(|line| line == "ERROR:  QF001");
        if !refused {
            fine(&answer);
        }
        !refused
    }
}

/// Neither client has said that something is wrong.
fn fine(lines: &[String]) {
    let wrong = lines.iter().any(|line| line.starts_with("ERROR"));
    assert!(!wrong, "{lines:#?}");
}

impl Owner for SqlOwner {
    fn take_over(&mut self) -> bool {
        let take_over = self.take_over.clone();
        self.rows(&take_over)
    }

    fn write(&mut self, line: &str) -> bool {
        match self.way {
            Way::Statement => {
                let write = self.write.clone();
                let [statement] = write.as_slice() else {
                    panic!("it is one statement");
                };
                let answer = self.execute(statement, line);
                fine(&answer);
                match answer.as_slice() {
                    [count] if count == "INSERT 0 1" => true,
                    [count] if count == "INSERT 0 0" => false,
                    other => panic!("{other:#?}"),
                }
            }
            Way::Transaction => self.transaction(line),
            Way::Trigger => self.plainly(line),
        }
    }
}

fn tokens(session: &mut Session) -> Vec<u64> {
    let lines = session.ask("select token from arrivals order by number;");
    let all = lines.iter().map(|line| line.parse().expect("a token"));
    all.collect()
}

/// A database of PostgreSQL.
pub(crate) struct InPostgres<'a> {
    server: &'a Postgres,
    way: Way,
    database: String,
}

impl<'a> InPostgres<'a> {
    pub(crate) fn new(server: &'a Postgres, way: Way) -> Self {
        let database = format!("fencing_{way:?}").to_lowercase();
        server.database(&database);
        let mut session = server.session(&database, "");
        let mut made = session.ask(&block("sql postgresql table"));
        if way == Way::Trigger {
            made.extend(session.ask(&block("sql postgresql trigger")));
        }
        fine(&made);
        Self {
            server,
            way,
            database,
        }
    }

    /// A connection that says nothing of tokens.
    pub(crate) fn forgetful(&self) -> Session {
        self.server.session(&self.database, "")
    }
}

impl Resource for InPostgres<'_> {
    fn owner(&self, token: u64, cluster: &str) -> Box<dyn Owner> {
        let settings = match self.way {
            Way::Statement | Way::Transaction => String::new(),
            Way::Trigger => format!("-c quorate.token={token} -c quorate.cluster={cluster}"),
        };
        Box::new(SqlOwner {
            session: self.server.session(&self.database, &settings),
            dialect: Dialect::Postgres,
            way: self.way,
            token,
            cluster: cluster.to_owned(),
            take_over: statements("sql postgresql take-over"),
            write: match self.way {
                Way::Statement => statements("sql postgresql write"),
                Way::Transaction => statements("sql postgresql transaction"),
                Way::Trigger => Vec::new(),
            },
        })
    }

    fn tokens(&self) -> Vec<u64> {
        tokens(&mut self.forgetful())
    }
}

/// The database of MariaDB.
pub(crate) struct InMaria(Maria);

impl InMaria {
    pub(crate) fn new(server: Maria) -> Self {
        let made = server.session().ask(&block("sql mariadb table"));
        fine(&made);
        Self(server)
    }
}

impl Resource for InMaria {
    fn owner(&self, token: u64, cluster: &str) -> Box<dyn Owner> {
        Box::new(SqlOwner {
            session: self.0.session(),
            dialect: Dialect::Maria,
            way: Way::Transaction,
            token,
            cluster: cluster.to_owned(),
            take_over: statements("sql mariadb take-over"),
            write: statements("sql mariadb write"),
        })
    }

    fn tokens(&self) -> Vec<u64> {
        tokens(&mut self.0.session())
    }
}

/// A trigger also refuses who has forgotten the token, and who wants to lower it.
pub(crate) fn nothing_gets_past_the_trigger(resource: &InPostgres<'_>) {
    let before = resource.tokens();
    let mut session = resource.forgetful();
    let inserts = format!(
        "insert into arrivals (feed, position, token, line) values ('{FEED}', 0, 999, 'x');"
    );
    for statement in [
        inserts.as_str(),
        "update feeds set next = 0;",
        "update feeds set token = 1;",
        "delete from arrivals;",
        "delete from feeds;",
    ] {
        let answer = session.ask(statement);
        assert_eq!(answer, ["ERROR:  42704"], "{statement}");
    }
    // What `set local` has left behind after its transaction is no token either.
    session.ask("begin; set local quorate.token = '999'; commit;");
    let answer = session.ask("update feeds set next = 0;");
    assert_eq!(answer, ["ERROR:  22P02"]);
    session.ask(&format!("set quorate.cluster = '{CLUSTER}';"));
    session.ask("set quorate.token = 1;");
    for statement in [
        inserts.as_str(),
        "update feeds set token = 999;",
        "delete from arrivals;",
    ] {
        let answer = session.ask(statement);
        assert_eq!(answer, ["ERROR:  QF001"], "{statement}");
    }
    // Not even the owner may be forgotten.
    let newest = before.last().expect("somebody wrote");
    session.ask(&format!("set quorate.token = {newest};"));
    assert_eq!(session.ask("delete from feeds;"), ["ERROR:  QF001"]);
    assert_eq!(resource.tokens(), before);
    nobody_takes_over_from_under_a_transaction(resource, &mut session, newest + 1);
}

/// What was checked before a write is still true when it is committed.
fn nobody_takes_over_from_under_a_transaction(
    resource: &InPostgres<'_>,
    writer: &mut Session,
    token: u64,
) {
    let answer = writer.ask(&format!(
        "begin; insert into arrivals (feed, position, token, line) values ('{FEED}', 0, 1, 'x');"
    ));
    fine(&answer);
    let mut newer = resource.forgetful();
    newer.ask(&format!(
        "set quorate.cluster = '{CLUSTER}'; set quorate.token = {token};"
    ));
    newer.ask("set lock_timeout = '100ms';");
    let takes_over = "update feeds set next = next;";
    assert_eq!(newer.ask(takes_over), ["ERROR:  55P03"]);
    writer.ask("rollback;");
    assert_eq!(newer.ask(takes_over), ["UPDATE 1"]);
}
