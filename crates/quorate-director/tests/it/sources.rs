//! Files of partitions on a real disk, changed as editors, scripts and orchestrators change them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quorate_core::ids::ServiceName;
use quorate_core::spec::PartitionSource;
use quorate_director::duties::sources::{self, Follow, Reading, Roots, Wanted};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// A new feed in the file must run within 2 s; a reading is only a part of that.
const READ_WITHIN: Duration = Duration::from_millis(1500);

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(20);

struct Desk {
    folder: TempDir,
    wanted: watch::Sender<Wanted>,
    readings: mpsc::Receiver<Reading>,
    duty: JoinHandle<()>,
}

fn name() -> ServiceName {
    ServiceName::new("feeds").unwrap()
}

fn follow(path: &Path, every: &str) -> Follow {
    let source: PartitionSource =
        serde_json::from_value(json!({ "file": path, "key": "id", "every": every })).unwrap();
    Follow {
        generation: 1,
        source,
    }
}

impl Desk {
    /// A duty that may read below a temporary folder, and follows nothing yet.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (wanted, watching) = watch::channel(Wanted::new());
        // One at a time is enough: the duty waits for each decision.
        let (hand_in, readings) = mpsc::channel(1);
        let roots = Roots::new(vec![folder.path().to_owned()]);
        let duty = tokio::spawn(sources::run(roots, watching, hand_in));
        Self {
            folder,
            wanted,
            readings,
            duty,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn follow(&self, path: &Path) {
        self.wanted
            .send(Wanted::from([(name(), follow(path, "1s"))]))
            .unwrap();
    }

    async fn raw(&mut self) -> Reading {
        tokio::time::timeout(PATIENCE, self.readings.recv())
            .await
            .expect("a reading comes in time")
            .expect("the duty runs")
    }

    /// The next reading, decided.
    async fn next(&mut self) -> Result<Vec<String>, String> {
        let reading = self.raw().await;
        assert_eq!(reading.service, name());
        reading.decided.send(true).unwrap();
        let partitions = reading.partitions?;
        Ok(partitions
            .iter()
            .map(|found| found.key.to_string())
            .collect())
    }

    /// The next reading must be this list, soon.
    async fn expect(&mut self, keys: &[&str]) {
        let begun = Instant::now();
        assert_eq!(self.next().await.unwrap(), keys);
        assert!(begun.elapsed() < READ_WITHIN, "took {:?}", begun.elapsed());
    }

    /// The next reading must be a problem that says this.
    async fn expect_problem(&mut self, part: &str) {
        let problem = self.next().await.unwrap_err();
        assert!(
            problem.contains(part),
            "expected {part:?}, told {problem:?}"
        );
    }

    async fn end(self) {
        drop(self.wanted);
        tokio::time::timeout(PATIENCE, self.duty)
            .await
            .expect("the duty ends")
            .unwrap();
    }
}

fn lines(keys: &[&str]) -> String {
    keys.iter()
        .map(|key| format!("{{\"id\":\"{key}\"}}\n"))
        .collect()
}

#[tokio::test]
async fn what_is_added_changed_and_removed_in_the_file_is_read() {
    let mut desk = Desk::new();
    let path = desk.path("feeds.jsonl");
    fs::write(&path, lines(&["a", "b"])).unwrap();
    desk.follow(&path);
    desk.expect(&["a", "b"]).await;
    fs::write(&path, lines(&["a", "b", "c"])).unwrap();
    desk.expect(&["a", "b", "c"]).await;
    fs::write(&path, "{\"id\":\"a\",\"port\":1}\n").unwrap();
    let reading = desk.raw().await;
    reading.decided.send(true).unwrap();
    let found = reading.partitions.unwrap();
    assert_eq!(found[0].data.as_deref(), Some("{\"id\":\"a\",\"port\":1}"));
    fs::write(&path, "").unwrap();
    desk.expect(&[]).await;
    desk.end().await;
}

#[tokio::test]
async fn a_file_renamed_over_the_old_one_is_read() {
    let mut desk = Desk::new();
    let path = desk.path("feeds.jsonl");
    fs::write(&path, lines(&["a"])).unwrap();
    desk.follow(&path);
    desk.expect(&["a"]).await;
    for key in ["b", "c"] {
        let new = desk.path("feeds.jsonl.new");
        fs::write(&new, lines(&[key])).unwrap();
        fs::rename(&new, &path).unwrap();
        desk.expect(&[key]).await;
    }
    desk.end().await;
}

/// How Kubernetes changes a mounted ConfigMap: the file is a link through a link to a folder, and
/// the link to the folder is replaced in one step.
#[tokio::test]
async fn a_swapped_link_to_a_folder_is_read() {
    let mut desk = Desk::new();
    for (folder, key) in [("v1", "a"), ("v2", "b"), ("v3", "c")] {
        fs::create_dir(desk.path(folder)).unwrap();
        fs::write(desk.path(folder).join("feeds.jsonl"), lines(&[key])).unwrap();
    }
    symlink("v1", desk.path("..data")).unwrap();
    symlink("..data/feeds.jsonl", desk.path("feeds.jsonl")).unwrap();
    let path = desk.path("feeds.jsonl");
    desk.follow(&path);
    desk.expect(&["a"]).await;
    for (folder, key) in [("v2", "b"), ("v3", "c")] {
        symlink(folder, desk.path("..tmp")).unwrap();
        fs::rename(desk.path("..tmp"), desk.path("..data")).unwrap();
        desk.expect(&[key]).await;
    }
    desk.end().await;
}

/// No watched folder changes here, as on a network file system: only the regular look can tell.
#[tokio::test]
async fn a_change_without_any_hint_is_read() {
    let mut desk = Desk::new();
    for (folder, key) in [("v1", "a"), ("v2", "b")] {
        fs::create_dir(desk.path(folder)).unwrap();
        fs::write(desk.path(folder).join("feeds.jsonl"), lines(&[key])).unwrap();
    }
    symlink("v1", desk.path("current")).unwrap();
    desk.follow(&desk.path("current/feeds.jsonl"));
    desk.expect(&["a"]).await;
    symlink("v2", desk.path("next")).unwrap();
    fs::rename(desk.path("next"), desk.path("current")).unwrap();
    desk.expect(&["b"]).await;
    desk.end().await;
}

#[tokio::test]
async fn a_change_in_the_folder_that_a_link_leads_to_is_read() {
    let mut desk = Desk::new();
    fs::create_dir(desk.path("elsewhere")).unwrap();
    let real = desk.path("elsewhere").join("list.jsonl");
    fs::write(&real, lines(&["a"])).unwrap();
    symlink(&real, desk.path("feeds.jsonl")).unwrap();
    let path = desk.path("feeds.jsonl");
    // Only a hint can tell within the time of this test.
    desk.wanted
        .send(Wanted::from([(name(), follow(&path, "1h"))]))
        .unwrap();
    desk.expect(&["a"]).await;
    fs::write(&real, lines(&["a", "b"])).unwrap();
    desk.expect(&["a", "b"]).await;
    desk.end().await;
}

#[tokio::test]
async fn a_file_that_goes_and_comes_back_is_a_problem_and_then_a_reading_again() {
    let mut desk = Desk::new();
    let path = desk.path("feeds.jsonl");
    desk.follow(&path);
    desk.expect_problem("feeds.jsonl cannot be read: it does not exist")
        .await;
    fs::write(&path, lines(&["a"])).unwrap();
    desk.expect(&["a"]).await;
    fs::remove_file(&path).unwrap();
    desk.expect_problem("it does not exist").await;
    fs::write(&path, lines(&["a"])).unwrap();
    desk.expect(&["a"]).await;
    desk.end().await;
}

#[tokio::test]
async fn garbage_is_a_problem_with_its_line_and_what_is_right_again_is_a_reading() {
    let mut desk = Desk::new();
    let path = desk.path("feeds.jsonl");
    fs::write(&path, lines(&["a", "b"])).unwrap();
    desk.follow(&path);
    desk.expect(&["a", "b"]).await;
    fs::write(&path, "{\"id\":\"a\"}\n{\"id\":\"b").unwrap();
    desk.expect_problem("feeds.jsonl: line 2: EOF while parsing")
        .await;
    fs::write(&path, lines(&["a", "b"])).unwrap();
    desk.expect(&["a", "b"]).await;
    desk.end().await;
}

/// Half a list of whole lines looks like a list, so it must not be read while it is being written.
#[tokio::test]
async fn a_list_written_line_by_line_is_read_once_it_is_whole() {
    let mut desk = Desk::new();
    let path = desk.path("feeds.jsonl");
    let keys: Vec<String> = (0..30).map(|n| format!("k{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    fs::write(&path, lines(&keys)).unwrap();
    desk.follow(&path);
    desk.expect(&keys).await;
    // The writer empties the file and appends a line every 20 ms for 0.6 s.
    let writer = tokio::task::spawn_blocking({
        let path = path.clone();
        let keys: Vec<String> = keys.iter().map(|key| format!("{key}x")).collect();
        move || {
            use std::io::Write;
            let mut file = fs::File::create(path).unwrap();
            for key in keys {
                file.write_all(lines(&[&key]).as_bytes()).unwrap();
                // Part of the scene, not a wait for anything: this is how slowly it writes.
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    let read = desk.next().await.unwrap();
    writer.await.unwrap();
    assert_eq!(read.len(), 30, "{read:?}");
    desk.end().await;
}

#[tokio::test]
async fn the_same_contents_are_not_handed_in_twice() {
    let mut desk = Desk::new();
    let path = desk.path("feeds.jsonl");
    fs::write(&path, lines(&["a"])).unwrap();
    desk.follow(&path);
    desk.expect(&["a"]).await;
    fs::write(&path, lines(&["a"])).unwrap();
    // The next reading is that of the next change, not one of the rewrite.
    fs::write(desk.path("other"), "x").unwrap();
    fs::write(&path, lines(&["a", "b"])).unwrap();
    desk.expect(&["a", "b"]).await;
    desk.end().await;
}

#[tokio::test]
async fn a_reading_that_was_not_decided_is_handed_in_again() {
    let mut desk = Desk::new();
    let path = desk.path("feeds.jsonl");
    fs::write(&path, lines(&["a"])).unwrap();
    desk.follow(&path);
    desk.raw().await.decided.send(false).unwrap();
    drop(desk.raw().await);
    desk.expect(&["a"]).await;
    desk.end().await;
}

#[tokio::test]
async fn a_director_that_leads_again_and_a_service_made_anew_are_told_everything() {
    let mut desk = Desk::new();
    let path = desk.path("feeds.jsonl");
    fs::write(&path, lines(&["a"])).unwrap();
    desk.follow(&path);
    desk.expect(&["a"]).await;
    let anew = Follow {
        generation: 2,
        ..follow(&path, "1s")
    };
    desk.wanted
        .send(Wanted::from([(name(), anew.clone())]))
        .unwrap();
    desk.expect(&["a"]).await;
    desk.wanted.send(Wanted::new()).unwrap();
    // Nothing is followed; the file changes unseen until this director leads again.
    fs::write(&path, lines(&["b"])).unwrap();
    desk.wanted.send(Wanted::from([(name(), anew)])).unwrap();
    desk.expect(&["b"]).await;
    desk.end().await;
}

#[tokio::test]
async fn only_files_below_the_named_folders_are_read_whatever_links_say() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret.jsonl");
    fs::write(&secret, lines(&["secret"])).unwrap();
    let mut desk = Desk::new();
    let told = "is outside the folders that this director may read";
    desk.follow(&secret);
    desk.expect_problem(told).await;
    let link = desk.path("link.jsonl");
    symlink(&secret, &link).unwrap();
    desk.follow(&link);
    desk.expect_problem(told).await;
    symlink(outside.path(), desk.path("folder")).unwrap();
    desk.follow(&desk.path("folder/secret.jsonl"));
    desk.expect_problem(told).await;
    let dots = desk.path("..").join(outside.path().file_name().unwrap());
    desk.follow(&dots.join("secret.jsonl"));
    desk.expect_problem(told).await;
    desk.end().await;
}

#[tokio::test]
async fn what_is_no_file_or_too_large_is_a_problem() {
    let mut desk = Desk::new();
    fs::create_dir(desk.path("folder.json")).unwrap();
    desk.follow(&desk.path("folder.json"));
    desk.expect_problem("folder.json is not a file").await;
    let pipe = desk.path("pipe.jsonl");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    assert!(made.success());
    desk.follow(&pipe);
    desk.expect_problem("pipe.jsonl is not a file").await;
    let large = desk.path("large.csv");
    fs::File::create(&large)
        .unwrap()
        .set_len((64 << 20) + 1)
        .unwrap();
    desk.follow(&large);
    desk.expect_problem("large.csv has 67108865 bytes, and at most 67108864 are read")
        .await;
    desk.end().await;
}

#[tokio::test]
async fn without_any_folder_nothing_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("feeds.jsonl");
    fs::write(&path, lines(&["a"])).unwrap();
    let (_wanted, watching) = watch::channel(Wanted::from([(name(), follow(&path, "1s"))]));
    let (hand_in, mut readings) = mpsc::channel(1);
    let duty = tokio::spawn(sources::run(Roots::default(), watching, hand_in));
    let reading = tokio::time::timeout(PATIENCE, readings.recv())
        .await
        .unwrap()
        .unwrap();
    let problem = reading.partitions.unwrap_err();
    assert!(problem.contains("(none are configured)"), "{problem}");
    duty.abort();
}
