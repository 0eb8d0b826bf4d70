//! What runs have printed, for people far away: requests are polled from the directors, and the
//! answers sent there. Nothing on an agent listens.
//!
//! Must never read outside the folder of logs: names are checked before they become a path.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_api::logs::{LogChunk, LogRequest};
use quorate_core::ids::{PartitionKey, ServiceName, SessionId};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::calls::Caller;
use super::logs::CURRENT;

const POLL_FOR: Duration = Duration::from_secs(30);
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How often a file that is followed is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// While nothing is printed, an empty chunk asks whether anybody still waits.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// Answers at once for one session; further ones wait.
const ANSWERS_MAX: usize = 16;
/// Bytes of a chunk, and of what is read of a file at once.
const CHUNK_BYTES: usize = 128 * 1024;
/// The most that the last lines of a file may come to.
const TAIL_BYTES_MAX: u64 = 4 << 20;

/// Answers the requests for a session's logs until it is dropped.
pub(crate) async fn serve(caller: Caller, session: SessionId, logs: PathBuf) {
    let answers = Arc::new(Semaphore::new(ANSWERS_MAX));
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let poll = caller
            .client
            .log_requests(session.0, &caller.secret, POLL_FOR);
        let requests = match poll.await {
            Ok(answer) => answer.requests,
            Err(error) => {
                tracing::debug!(%error, "no requests for logs");
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
        };
        for request in requests {
            let Ok(permit) = Arc::clone(&answers).acquire_owned().await else {
                return;
            };
            let (caller, logs) = (caller.clone(), logs.clone());
            tasks.spawn(async move {
                let _permit = permit;
                answer(&caller, session, &logs, request).await;
            });
        }
    }
}

async fn answer(caller: &Caller, session: SessionId, logs: &Path, request: LogRequest) {
    let id = request.id;
    let follow = request.follow && !request.previous;
    let send = |text: String, end: bool, problem: Option<String>| async move {
        let chunk = LogChunk {
            id,
            text,
            end,
            problem,
        };
        let sent = caller.client.log_chunk(session.0, &caller.secret, &chunk);
        sent.await.is_ok()
    };
    let folder = match folder_of(logs, &request) {
        Ok(folder) => folder,
        Err(problem) => {
            send(String::new(), true, Some(problem)).await;
            return;
        }
    };
    let lines = usize::try_from(request.lines).unwrap_or(usize::MAX);
    let name = if request.previous { "1.log" } else { CURRENT };
    let mut tail = Tail::open(folder.join(name));
    let last = match tail.last(lines) {
        Ok(last) => last,
        Err(error) => {
            let problem = format!("the log cannot be read: {error}");
            send(String::new(), true, Some(problem)).await;
            return;
        }
    };
    for part in last.chunks(CHUNK_BYTES) {
        if !send(String::from_utf8_lossy(part).into_owned(), false, None).await {
            return;
        }
    }
    if !follow {
        send(String::new(), true, None).await;
        return;
    }
    let mut asked = Instant::now();
    loop {
        let more = tail.more().unwrap_or_default();
        if more.is_empty() && asked.elapsed() < ASK_EVERY {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        asked = Instant::now();
        if !send(String::from_utf8_lossy(&more).into_owned(), false, None).await {
            return;
        }
    }
}

fn folder_of(logs: &Path, request: &LogRequest) -> Result<PathBuf, String> {
    let service = ServiceName::new(&request.service).map_err(|error| error.to_string())?;
    let key = PartitionKey::new(&request.key).map_err(|error| error.to_string())?;
    Ok(logs.join(service.as_str()).join(key.as_str()))
}

/// A file that grows and is rotated under its reader.
#[derive(Debug)]
struct Tail {
    path: PathBuf,
    /// The file that is read, and up to where.
    open: Option<(File, u64)>,
}

impl Tail {
    fn open(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// The last lines that are there now; nothing when the file is not there yet.
    fn last(&mut self, lines: usize) -> io::Result<Vec<u8>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        let start = length.saturating_sub(TAIL_BYTES_MAX);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        (&file).take(length - start).read_to_end(&mut bytes)?;
        self.open = Some((file, length));
        let from = start_of_last(&bytes, lines);
        Ok(bytes.split_off(from))
    }

    /// What has come since, at most a chunk.
    fn more(&mut self) -> io::Result<Vec<u8>> {
        if self.open.is_none() {
            self.open = File::open(&self.path).ok().map(|file| (file, 0));
        }
        let Some((file, position)) = &mut self.open else {
            return Ok(Vec::new());
        };
        file.seek(SeekFrom::Start(*position))?;
        let mut bytes = Vec::new();
        let count = (&*file).take(CHUNK_BYTES as u64).read_to_end(&mut bytes)?;
        *position += count as u64;
        if count == 0 && self.rotated()? {
            // Nothing is written to the old one any more, and all of it was read.
            self.open = None;
        }
        Ok(bytes)
    }

    fn rotated(&self) -> io::Result<bool> {
        let Some((file, _)) = &self.open else {
            return Ok(false);
        };
        let present = match std::fs::metadata(&self.path) {
            Ok(present) => present,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        Ok(present.ino() != file.metadata()?.ino())
    }
}

/// Where the last so many lines begin. A line break at the very end ends the last line.
fn start_of_last(bytes: &[u8], lines: usize) -> usize {
    if lines == 0 {
        return bytes.len();
    }
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let breaks = body.iter().enumerate().rev();
    breaks
        .filter(|&(_, &byte)| byte == b'\n')
        .nth(lines - 1)
        .map_or(0, |(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_whole() {
        let cut = |text: &'static str, lines| &text[start_of_last(text.as_bytes(), lines)..];
        assert_eq!(cut("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(cut("a\nb\nc", 2), "b\nc");
        assert_eq!(cut("a\n", 5), "a\n");
        assert_eq!(cut("a\nb\n", 0), "");
        assert_eq!(cut("", 3), "");
    }

    #[test]
    fn a_file_is_followed_through_its_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(CURRENT);
        let mut tail = Tail::open(path.clone());
        assert_eq!(tail.last(10).unwrap(), b"");
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(tail.more().unwrap(), b"one\n");
        std::fs::rename(&path, dir.path().join("1.log")).unwrap();
        std::fs::write(&path, "two\n").unwrap();
        assert_eq!(tail.more().unwrap(), b"");
        assert_eq!(tail.more().unwrap(), b"two\n");
    }

    #[test]
    fn names_that_lead_out_of_the_folder_are_refused() {
        let request = |service: &str, key: &str| LogRequest {
            id: 1,
            service: service.to_owned(),
            key: key.to_owned(),
            lines: 1,
            follow: false,
            previous: false,
        };
        let logs = Path::new("/logs");
        assert!(folder_of(logs, &request("..", "k")).is_err());
        assert!(folder_of(logs, &request("s", "../../etc/passwd")).is_err());
        assert!(folder_of(logs, &request("s", "k 1")).is_ok());
    }
}
