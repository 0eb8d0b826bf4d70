//! Owners that are Python programs: a block of the document, and behind it [a loop](LOOP) that does what
//! it is told.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use super::blocks::block;
use super::session::Session;
use super::{CLUSTER, FEED, Owner, Resource};
use crate::support::eventually;

/// Obeys: `take`, `write LINE`, and what else a stand has.
const LOOP: &str = include_str!("python/loop.py");
const SQLITE: &str = include_str!("python/sqlite.py");
const S3: &str = include_str!("python/s3.py");
/// Before the block: what it imports of the library that speaks to S3, over the stand-in.
const S3_CLIENT: &str = include_str!("python/s3_client.py");
const S3_SERVER: &str = include_str!("python/s3_server.py");
const HTTP: &str = include_str!("python/http.py");
const HTTP_SERVER: &str = include_str!("python/http_server.py");
const FILES: &str = include_str!("python/files.py");

/// A program in a folder of its own, and what it talks to.
pub(crate) struct Stand {
    dir: tempfile::TempDir,
    /// Where the rows are: a path or an address.
    place: String,
    keeps: bool,
    /// Reads only.
    reader: Mutex<Session>,
    _server: Option<Mutex<Session>>,
}

fn python(dir: &Path, program: &str, place: &str, token: u64, cluster: &str) -> Session {
    let mut command = Command::new("python3");
    command
        .arg("-u")
        .arg(dir.join(program))
        .args([place, FEED])
        .env("QUORATE_TOKEN", token.to_string())
        .env("QUORATE_CLUSTER", cluster);
    Session::start(&command, "end")
}

impl Stand {
    /// A folder with the owners' program; `place` is a name in it.
    fn new(parts: &[&str], place: &str, keeps: bool) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let place = dir.path().join(place).display().to_string();
        Self::in_folder(dir, parts, place, keeps, None)
    }

    fn in_folder(
        dir: tempfile::TempDir,
        parts: &[&str],
        place: String,
        keeps: bool,
        server: Option<Session>,
    ) -> Self {
        let program = [parts, &[LOOP]].concat().join("\n\n");
        std::fs::write(dir.path().join("owner.py"), program).expect("written");
        let reader = python(dir.path(), "owner.py", &place, 0, CLUSTER);
        Self {
            dir,
            place,
            keeps,
            reader: Mutex::new(reader),
            _server: server.map(Mutex::new),
        }
    }

    /// With a server, which tells its address when it is asked.
    fn with_server(server: &[&str], parts: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let program = server.join("\n\n");
        std::fs::write(dir.path().join("server.py"), program).expect("written");
        let folder = dir.path().display().to_string();
        let mut server = python(dir.path(), "server.py", &folder, 0, CLUSTER);
        let place = server.ask("address").concat();
        Self::in_folder(dir, parts, place, true, Some(server))
    }

    pub(crate) fn sqlite() -> Self {
        Self::new(&[&block("python sqlite"), SQLITE], "feeds.sqlite", true)
    }

    pub(crate) fn s3() -> Self {
        Self::with_server(&[S3_SERVER], &[S3_CLIENT, &block("python s3"), S3])
    }

    pub(crate) fn http() -> Self {
        let server = [&block("python http server"), HTTP_SERVER];
        Self::with_server(&server, &[&block("python http client"), HTTP])
    }

    pub(crate) fn files() -> Self {
        let stand = Self::new(&[&block("python files"), FILES], "feed", false);
        std::fs::create_dir(&stand.place).expect("made");
        stand
    }

    fn program(&self, token: u64, cluster: &str) -> PythonOwner {
        let program = python(self.dir.path(), "owner.py", &self.place, token, cluster);
        PythonOwner(program)
    }
}

impl Resource for Stand {
    fn owner(&self, token: u64, cluster: &str) -> Box<dyn Owner> {
        Box::new(self.program(token, cluster))
    }

    fn tokens(&self) -> Vec<u64> {
        let mut reader = self.reader.lock().expect("nobody failed");
        let tokens = reader.ask("tokens").concat();
        let tokens = tokens.split_whitespace().map(str::parse);
        tokens.map(|token| token.expect("a token")).collect()
    }

    fn keeps_what_it_accepts(&self) -> bool {
        self.keeps
    }
}

struct PythonOwner(Session);

impl PythonOwner {
    fn tell(&mut self, text: &str) -> bool {
        match self.0.ask(text).concat().as_str() {
            "done" => true,
            "fenced" => false,
            other => panic!("{text}: {other}"),
        }
    }
}

impl Owner for PythonOwner {
    fn take_over(&mut self) -> bool {
        self.tell("take")
    }

    fn write(&mut self, line: &str) -> bool {
        self.tell(&format!("write {line}"))
    }
}

/// The content is the same before and after, and so would be an ETag that is made from the data alone.
pub(crate) fn a_take_over_without_a_change_is_seen(stand: &Stand) {
    let (mut old, mut new) = (stand.program(31, CLUSTER), stand.program(32, CLUSTER));
    assert!(old.take_over());
    let before = stand.tokens();
    // It has looked, and sleeps before it writes.
    assert!(old.tell("look"));
    assert!(new.take_over());
    assert!(!old.tell("late row"));
    assert_eq!(stand.tokens(), before);
}

/// Reads without a token are for everybody, writes for nobody.
pub(crate) fn no_token_is_answered_as_the_document_says(stand: &Stand) {
    let mut client = stand.program(33, CLUSTER);
    let before = stand.tokens();
    for (said, status) in [
        ("bare GET", "200"),
        ("bare POST", "428"),
        ("bare POST x 00000000000000c1", "428"),
        ("bare POST -1 00000000000000c1", "428"),
        ("bare POST 99", "428"),
        ("bare POST 1 00000000000000c1", "412"),
    ] {
        assert_eq!(client.0.ask(said), [status], "{said}");
    }
    assert_eq!(stand.tokens(), before);
}

/// The application waits, for as long as it takes a newer owner to come, and tells whether it got in.
pub(crate) fn nobody_takes_over_while_a_request_is_being_served(stand: &Stand) {
    let (mut old, mut new) = (stand.program(41, CLUSTER), stand.program(42, CLUSTER));
    assert!(old.take_over());
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(old.write("hold")));
        eventually("the request is being served", || {
            stand.dir.path().join("held").exists().then_some(())
        });
        assert!(new.take_over());
    });
    let rows = std::fs::read_to_string(stand.dir.path().join("rows")).expect("rows");
    assert_eq!(rows.lines().last(), Some("41 undisturbed"));
}

/// As if the owner had slept between its look and its write.
pub(crate) fn a_write_that_nothing_could_refuse_is_never_seen(stand: &Stand) {
    let (mut old, mut new) = (stand.program(31, CLUSTER), stand.program(32, CLUSTER));
    assert!(old.take_over());
    assert!(new.take_over());
    let before = stand.tokens();
    assert!(old.tell("blindly row"));
    assert_eq!(stand.tokens(), before);
    assert!(new.write("row"));
    assert_eq!(stand.tokens().last(), Some(&32));
}
