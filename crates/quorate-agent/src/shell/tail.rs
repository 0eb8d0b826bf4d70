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
use super::logs;
use super::times::{self, Begins};

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
/// The most that the last lines may come to. What was printed since a moment may be more.
const TAIL_BYTES_MAX: u64 = 4 << 20;
/// No number of lines was named.
const ALL_LINES: u32 = u32::MAX;
/// The most rotated files that a service may keep.
const FILES_MAX: u32 = 1000;
/// When files are rotated while they are opened, they are opened again; not for ever.
const TRIES: usize = 3;

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
    let (parts, mut tail) = match last(&folder, &request, times::now_ms()) {
        Ok(last) => last,
        Err(error) => {
            let problem = format!("the log cannot be read: {error}");
            send(String::new(), true, Some(problem)).await;
            return;
        }
    };
    for mut part in parts {
        // A file that cannot be read on has no more to show.
        while let Some(piece) = part.piece().ok().flatten() {
            if !send(String::from_utf8_lossy(&piece).into_owned(), false, None).await {
                return;
            }
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

/// What is asked for, from the oldest to the newest, and the file that goes on.
fn last(folder: &Path, request: &LogRequest, now: u64) -> io::Result<(Vec<Part>, Tail)> {
    let mut left = Left::of(request.lines);
    let mut parts = match request.since_ms {
        Some(ago) => since(folder, now.saturating_sub(ago))?,
        None if request.previous => {
            let (log, _) = logs::names(1);
            Vec::from_iter(Part::open(&folder.join(log))?)
        }
        None => newest(folder, left)?,
    };
    let (current, _) = logs::names(0);
    let mut tail = Tail::open(folder.join(current));
    if let Some(newest) = parts.last().filter(|_| !request.previous) {
        tail.open = Some((newest.file.try_clone()?, newest.end));
    }
    if request.lines != ALL_LINES {
        for part in parts.iter_mut().rev() {
            left.keep(part)?;
        }
    }
    Ok((parts, tail))
}

/// So many of the newest files that the last lines are in them, from the oldest to the newest; the current
/// one, if it is there, in any case.
fn newest(folder: &Path, left: Left) -> io::Result<Vec<Part>> {
    for _ in 1..TRIES {
        if let Some(parts) = try_newest(folder, left)? {
            return Ok(parts);
        }
    }
    Ok(try_newest(folder, left)?.unwrap_or_default())
}

/// Nothing when files were rotated meanwhile, so that one of them may be there twice.
fn try_newest(folder: &Path, mut left: Left) -> io::Result<Option<Vec<Part>>> {
    let mut parts = Vec::new();
    for number in 0..=FILES_MAX {
        let path = folder.join(logs::names(number).0);
        let Some(mut part) = Part::open(&path)? else {
            break;
        };
        if !is_file(&path, &part.file)? {
            return Ok(None);
        }
        left.keep(&mut part)?;
        parts.push(part);
        if left.is_nothing() {
            break;
        }
    }
    parts.reverse();
    Ok(Some(parts))
}

/// The files with what was printed since a moment, from the oldest to the newest; the current one, if it
/// is there, even when all of it is older.
fn since(folder: &Path, moment: u64) -> io::Result<Vec<Part>> {
    for _ in 1..TRIES {
        if let Some(parts) = try_since(folder, moment)? {
            return Ok(parts);
        }
    }
    Ok(try_since(folder, moment)?.unwrap_or_default())
}

/// Nothing when files were rotated meanwhile, so that marks and logs may not belong together.
fn try_since(folder: &Path, moment: u64) -> io::Result<Option<Vec<Part>>> {
    let mut parts = Vec::new();
    for number in 0..=FILES_MAX {
        let (log, marks) = logs::names(number);
        let path = folder.join(log);
        let Some(mut part) = Part::open(&path)? else {
            break;
        };
        let begins = times::begins(&folder.join(marks), moment);
        if !is_file(&path, &part.file)? {
            return Ok(None);
        }
        match begins {
            Begins::Before => {}
            Begins::At(offset) => part.start = part.line_start(offset)?,
            Begins::After => part.start = part.end,
        }
        if begins != Begins::After || number == 0 {
            parts.push(part);
        }
        if begins != Begins::Before {
            break;
        }
    }
    parts.reverse();
    Ok(Some(parts))
}

/// So many of the last lines are still to be taken, and not more bytes than that may come to.
#[derive(Clone, Copy, Debug)]
struct Left {
    lines: usize,
    bytes: u64,
}

impl Left {
    fn of(lines: u32) -> Self {
        Self {
            lines: usize::try_from(lines).unwrap_or(usize::MAX),
            bytes: TAIL_BYTES_MAX,
        }
    }

    const fn is_nothing(self) -> bool {
        self.lines == 0 || self.bytes == 0
    }

    /// Leaves of the next older piece what is to be taken of it.
    fn keep(&mut self, part: &mut Part) -> io::Result<()> {
        part.start = part.start.max(part.end.saturating_sub(self.bytes));
        let bytes = part.bytes()?;
        let from = start_of_last(&bytes, self.lines);
        let kept = bytes.get(from..).unwrap_or_default();
        part.start += from as u64;
        let lines = kept.split_inclusive(|&byte| byte == b'\n').count();
        self.lines = self.lines.saturating_sub(lines);
        self.bytes -= kept.len() as u64;
        Ok(())
    }
}

/// Whether this path leads to the file that is open.
fn is_file(path: &Path, file: &File) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(present) => Ok(present.ino() == file.metadata()?.ino()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A piece of a file.
#[derive(Debug)]
struct Part {
    file: File,
    start: u64,
    end: u64,
}

impl Part {
    /// The whole of what is there now; nothing when the file is not there.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let end = file.metadata()?.len();
        let start = 0;
        Ok(Some(Self { file, start, end }))
    }

    fn read(&self, from: u64, count: u64) -> io::Result<Vec<u8>> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(count).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&self) -> io::Result<Vec<u8>> {
        self.read(self.start, self.end.saturating_sub(self.start))
    }

    /// Where the line begins in which this offset stands. A line longer than a chunk is cut.
    fn line_start(&self, offset: u64) -> io::Result<u64> {
        let offset = offset.min(self.end);
        let from = offset.saturating_sub(CHUNK_BYTES as u64);
        let before = self.read(from, offset - from)?;
        let line_break = before.iter().rposition(|&byte| byte == b'\n');
        Ok(match line_break {
            Some(at) => from + at as u64 + 1,
            None => from,
        })
    }

    /// Takes the next chunk from the front: whole lines if it has any. Nothing at the end.
    fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        let left = self.end.saturating_sub(self.start);
        let mut bytes = self.read(self.start, left.min(CHUNK_BYTES as u64))?;
        if bytes.len() as u64 != left {
            let line_break = bytes.iter().rposition(|&byte| byte == b'\n');
            bytes.truncate(line_break.map_or_else(|| whole_letters(&bytes), |at| at + 1));
        }
        self.start += bytes.len() as u64;
        Ok((!bytes.is_empty()).then_some(bytes))
    }
}

/// How many of these bytes there are without a letter that is cut off at their end.
fn whole_letters(bytes: &[u8]) -> usize {
    // Nothing is cut off when even the longest letter would have come to its end.
    let last = bytes
        .iter()
        .rev()
        .take(4)
        .position(|&byte| byte & 0xc0 != 0x80);
    let Some(back) = last else { return bytes.len() };
    let start = bytes.len() - back - 1;
    let cut = match std::str::from_utf8(bytes.get(start..).unwrap_or_default()) {
        Ok(_) => false,
        Err(error) => error.error_len().is_none(),
    };
    if cut && start > 0 { start } else { bytes.len() }
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
        Ok(!is_file(&self.path, file)?)
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

    fn request(service: &str, key: &str) -> LogRequest {
        LogRequest {
            id: 1,
            service: service.to_owned(),
            key: key.to_owned(),
            lines: ALL_LINES,
            follow: false,
            previous: false,
            since_ms: None,
        }
    }

    /// What a request shows at a moment.
    fn shown(folder: &Path, request: &LogRequest, now: u64) -> String {
        let (parts, _) = last(folder, request, now).unwrap();
        let mut all = Vec::new();
        for mut part in parts {
            while let Some(piece) = part.piece().unwrap() {
                all.extend(piece);
            }
        }
        String::from_utf8(all).unwrap()
    }

    /// Three files: `1` to `6`, two lines each, a line every ten seconds from the tenth on.
    fn three_files(folder: &Path) {
        for (number, lines) in [(2, ["1", "2"]), (1, ["3", "4"]), (0, ["5", "6"])] {
            let (log, marks) = logs::names(number);
            let mut text = String::new();
            for line in lines {
                let second: u64 = line.parse().unwrap();
                times::mark(&folder.join(&marks), second * 10_000, text.len() as u64).unwrap();
                text.push_str(line);
                text.push('\n');
            }
            std::fs::write(folder.join(log), text).unwrap();
        }
    }

    #[test]
    fn what_was_printed_since_a_moment_is_shown_from_all_files_that_have_some_of_it() {
        let dir = tempfile::tempdir().unwrap();
        three_files(dir.path());
        let since = |seconds: u64, lines| {
            let since_ms = Some(seconds * 1000);
            let request = LogRequest {
                since_ms,
                lines,
                ..request("s", "k")
            };
            shown(dir.path(), &request, 65_000)
        };
        assert_eq!(since(1, ALL_LINES), "");
        assert_eq!(since(5, ALL_LINES), "6\n");
        assert_eq!(since(16, ALL_LINES), "5\n6\n");
        assert_eq!(since(40, ALL_LINES), "3\n4\n5\n6\n");
        assert_eq!(since(1_000_000, ALL_LINES), "1\n2\n3\n4\n5\n6\n");
        assert_eq!(since(1_000_000, 3), "4\n5\n6\n");
        assert_eq!(since(1_000_000, 0), "");
    }

    #[test]
    fn the_last_lines_are_taken_from_as_many_files_as_they_are_in() {
        let dir = tempfile::tempdir().unwrap();
        three_files(dir.path());
        let last = |lines, previous| {
            let request = LogRequest {
                lines,
                previous,
                ..request("s", "k")
            };
            shown(dir.path(), &request, 65_000)
        };
        assert_eq!(last(0, false), "");
        assert_eq!(last(1, false), "6\n");
        assert_eq!(last(2, false), "5\n6\n");
        assert_eq!(last(3, false), "4\n5\n6\n");
        assert_eq!(last(100, false), "1\n2\n3\n4\n5\n6\n");
        assert_eq!(last(100, true), "3\n4\n", "one file was named");
        std::fs::remove_file(dir.path().join("current.log")).unwrap();
        assert_eq!(last(3, false), "", "nothing is known of what follows");
    }

    #[test]
    fn a_line_that_was_begun_before_the_moment_is_shown_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (log, marks) = logs::names(0);
        std::fs::write(dir.path().join(log), "old\nlong line\nnew\n").unwrap();
        times::mark(&dir.path().join(&marks), 10_000, 0).unwrap();
        times::mark(&dir.path().join(&marks), 20_000, 9).unwrap();
        let since = LogRequest {
            since_ms: Some(5_000),
            ..request("s", "k")
        };
        assert_eq!(shown(dir.path(), &since, 21_000), "long line\nnew\n");
    }

    #[test]
    fn what_is_followed_goes_on_behind_what_was_shown() {
        let dir = tempfile::tempdir().unwrap();
        three_files(dir.path());
        let request = LogRequest {
            since_ms: Some(1_000),
            follow: true,
            ..request("s", "k")
        };
        let (_, mut tail) = last(dir.path(), &request, 65_000).unwrap();
        assert_eq!(tail.more().unwrap(), b"");
        let mut file = std::fs::File::options()
            .append(true)
            .open(dir.path().join("current.log"))
            .unwrap();
        std::io::Write::write_all(&mut file, b"7\n").unwrap();
        assert_eq!(tail.more().unwrap(), b"7\n");
    }

    #[test]
    fn long_logs_come_in_pieces_of_whole_lines_and_letters() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("current.log");
        let line = format!("{}\n", "ä".repeat(60));
        let text = line.repeat(5_000) + &"ä".repeat(100_000);
        std::fs::write(&path, &text).unwrap();
        let mut part = Part::open(&path).unwrap().unwrap();
        let mut all = String::new();
        while let Some(piece) = part.piece().unwrap() {
            assert!(piece.len() <= CHUNK_BYTES);
            all.push_str(std::str::from_utf8(&piece).unwrap());
        }
        assert_eq!(all, text);
        assert_eq!(whole_letters(b"a\xc3"), 1);
        assert_eq!(whole_letters(b"a\xff"), 2);
        assert_eq!(whole_letters(b"\x80\x80\x80\x80\x80"), 5);
    }

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
        let path = dir.path().join("current.log");
        let (parts, mut tail) = last(dir.path(), &request("s", "k"), 0).unwrap();
        assert!(parts.is_empty());
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(tail.more().unwrap(), b"one\n");
        std::fs::rename(&path, dir.path().join("1.log")).unwrap();
        std::fs::write(&path, "two\n").unwrap();
        assert_eq!(tail.more().unwrap(), b"");
        assert_eq!(tail.more().unwrap(), b"two\n");
    }

    #[test]
    fn names_that_lead_out_of_the_folder_are_refused() {
        let logs = Path::new("/logs");
        assert!(folder_of(logs, &request("..", "k")).is_err());
        assert!(folder_of(logs, &request("s", "../../etc/passwd")).is_err());
        assert!(folder_of(logs, &request("s", "k 1")).is_ok());
    }
}
