//! Opening the log: what a crash left is told from damage.
//!
//! | found | verdict |
//! |---|---|
//! | zeros after the last whole record | the end of the log |
//! | a broken record, not acknowledged, nothing of a later group behind it | cut off: removed |
//! | a broken record that was acknowledged, or with a later group behind it | damage: refused |
//! | the log ends before what was acknowledged | damage: refused |
//! | a record that does not follow the one before | damage: refused |
//! | anything behind where the log was being cut, as the mark says | removed: the cut is ended |
//!
//! Nothing is changed before all of it was read and understood.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::frame::{self, Found, Frame};
use super::marks::{self, Mark, Marks};
use super::segment::{self, HEADER, Header, Segment};
use super::writer::{QUEUE, Writer};
use super::{Index, LogStore, Record, Shared, Sizes};
use crate::disk;
use crate::error::OpenError;
use crate::files::{self, Kind, Lock};
use crate::planted::{self, Planted};
use crate::types::{LogId, Vote, log_id, term_of};

pub(super) const VOTE: &str = "vote";
pub(super) const PURGED: &str = "purged";

/// The vote as it is stored.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct StoredVote {
    pub(super) term: u64,
    pub(super) voted_for: u64,
    pub(super) committed: bool,
}

/// The id of a record as it is stored.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct StoredId {
    pub(super) term: u64,
    pub(super) index: u64,
}

/// What the scan of all segments found.
#[derive(Debug, Default)]
struct Scan {
    segments: VecDeque<Segment>,
    /// Term of each record from the first segment's first on.
    terms: VecDeque<u64>,
    /// Checksum of the last record.
    crc: u32,
    /// Checksum of the record that the last mark names, if it is there.
    marked: Option<(u64, u32)>,
    /// Where the last segment has bytes that were never acknowledged, or are being removed.
    torn: bool,
    /// Segments of which every record was being removed.
    withdrawn: Vec<PathBuf>,
}

/// Opens the log of a folder, or begins one; the lock is held until the log is closed.
pub(crate) fn open(dir: &Path, sizes: Sizes, lock: Lock) -> Result<LogStore, OpenError> {
    let vote = load_vote(dir)?;
    let purged = load_purged(dir)?;
    let paths = segments(dir)?;
    let mut marks = match Marks::open(dir)? {
        Some(marks) => marks,
        None if paths.is_empty() && vote.is_none() && purged.is_none() => {
            Marks::make(dir).map_err(OpenError::disk("write", &dir.join(marks::FILE)))?
        }
        None => {
            let what = "is missing: it says which records were acknowledged";
            return Err(OpenError::damaged(&dir.join(marks::FILE), what));
        }
    };
    let mut scan = scan(&paths, marks.last())?;
    check(dir, &scan, marks.last(), vote, purged)?;
    mend(dir, &mut scan, purged)?;
    end_withdrawal(dir, &mut marks)?;
    tracing::debug!(
        records = scan.terms.len(),
        segments = scan.segments.len(),
        "the log was opened"
    );
    start(dir, sizes, scan, (vote, purged, marks), lock)
}

/// Makes the files of a log that goes on behind a record that is not in it, as if everything up to that one
/// had been purged. `node` has voted for itself in its term.
pub(crate) fn begin_behind(
    dir: &Path,
    (term, index): (u64, u64),
    node: u64,
) -> std::io::Result<()> {
    let put = |name: &str, kind: Kind, payload: Vec<u8>| {
        files::replace(dir, name, &files::seal(kind, &[&payload]))
    };
    let vote = StoredVote {
        term,
        voted_for: node,
        committed: false,
    };
    let behind = StoredId { term, index };
    let encode = std::io::Error::other;
    put(
        VOTE,
        Kind::Vote,
        rmp_serde::to_vec_named(&vote).map_err(encode)?,
    )?;
    put(
        PURGED,
        Kind::Purged,
        rmp_serde::to_vec_named(&behind).map_err(encode)?,
    )?;
    Marks::make(dir).map(drop)
}

fn load<T: for<'de> Deserialize<'de>>(path: &Path, kind: Kind) -> Result<Option<T>, OpenError> {
    let Some(payload) = files::read_sealed(path, kind)? else {
        return Ok(None);
    };
    rmp_serde::from_slice(&payload)
        .map(Some)
        .map_err(|error| OpenError::damaged(path, format!("cannot be read: {error}")))
}

fn load_vote(dir: &Path) -> Result<Option<Vote>, OpenError> {
    let stored: Option<StoredVote> = load(&dir.join(VOTE), Kind::Vote)?;
    Ok(stored.map(|stored| match stored.committed {
        true => Vote::new_committed(stored.term, stored.voted_for),
        false => Vote::new(stored.term, stored.voted_for),
    }))
}

fn load_purged(dir: &Path) -> Result<Option<LogId>, OpenError> {
    let stored: Option<StoredId> = load(&dir.join(PURGED), Kind::Purged)?;
    Ok(stored.map(|stored| log_id(stored.term, stored.index)))
}

fn segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>, OpenError> {
    let names = files::names(dir)?;
    Ok(names
        .iter()
        .filter_map(|name| Some((segment::first_of(name)?, dir.join(name))))
        .collect())
}

fn scan(paths: &[(u64, PathBuf)], mark: Mark) -> Result<Scan, OpenError> {
    let mut scan = Scan::default();
    // Its first record may be one that is being removed, but the log needs a segment to go on.
    let withdrawn = |at: usize, first: u64| mark.withdrawing && at > 0 && first >= mark.next;
    let count = (0..).zip(paths);
    let count = count
        .filter(|(at, (first, _))| !withdrawn(*at, *first))
        .count();
    let (kept, gone) = paths.split_at(count);
    scan.withdrawn = gone.iter().map(|(_, path)| path.clone()).collect();
    for (at, (first, path)) in kept.iter().enumerate() {
        let bytes = fs::read(path).map_err(OpenError::disk("read", path))?;
        let (before, size) = match segment::read_header(&bytes) {
            Header::Whole {
                first: found,
                before,
                size,
            } if found == *first && bytes.len() as u64 == u64::from(size) => (before, size),
            Header::Whole { .. } => {
                return Err(OpenError::damaged(
                    path,
                    "has another name or size than it was given",
                ));
            }
            Header::Damaged => return Err(OpenError::damaged(path, "has a damaged header")),
            Header::Newer(found) => {
                return Err(OpenError::Newer {
                    path: path.clone(),
                    found,
                    known: segment::FORMAT,
                });
            }
        };
        let expected = scan.segments.back().map_or(*first, Segment::next);
        if *first != expected || (at > 0 && before != scan.crc) {
            let what = format!("does not follow the segment before, which ends before {expected}");
            return Err(OpenError::damaged(path, what));
        }
        scan.crc = before;
        let file = disk::open(path);
        let mut segment = Segment {
            first: *first,
            file: Arc::new(file.map_err(OpenError::disk("open for writing", path))?),
            path: path.clone(),
            offsets: Vec::new(),
            end: HEADER,
            size,
        };
        let last = at + 1 == kept.len();
        scan_segment(&mut scan, &mut segment, &bytes, mark, last)?;
        scan.segments.push_back(segment);
    }
    Ok(scan)
}

/// Takes the records of one segment, up to its end or to what was cut off.
fn scan_segment(
    scan: &mut Scan,
    segment: &mut Segment,
    bytes: &[u8],
    mark: Mark,
    last: bool,
) -> Result<(), OpenError> {
    let path = segment.path.clone();
    let damaged = |what: String| Err(OpenError::damaged(&path, what));
    let mut rest = bytes.get(HEADER as usize..).unwrap_or_default();
    loop {
        let next = segment.next();
        if mark.withdrawing && next == mark.next {
            scan.torn = true;
            return Ok(());
        }
        match frame::look(rest) {
            Found::Frame(frame) if frame.index == next && frame.stand.before == scan.crc => {
                take(scan, segment, frame, mark);
                rest = rest.get(frame.size..).unwrap_or_default();
            }
            Found::Frame(frame) => {
                return damaged(format!(
                    "has record {} where record {next} belongs",
                    frame.index
                ));
            }
            Found::Nothing if written(rest).is_empty() => return Ok(()),
            Found::Nothing | Found::Broken => {
                if next < mark.next {
                    return damaged(format!(
                        "has a damaged record {next}, which was acknowledged"
                    ));
                }
                // The next segment is made only after this one was synced.
                if !last || later_group(rest, next) {
                    return damaged(format!(
                        "has a damaged record {next} with later ones behind it"
                    ));
                }
                scan.torn = true;
                return Ok(());
            }
        }
    }
}

fn take(scan: &mut Scan, segment: &mut Segment, frame: Frame<'_>, mark: Mark) {
    segment.offsets.push(segment.end);
    segment.end += u32::try_from(frame.size).unwrap_or(0);
    scan.crc = frame.crc;
    scan.terms.push_back(frame.term);
    if frame.index + 1 == mark.next {
        scan.marked = Some((frame.term, frame.crc));
    }
}

/// Whether a record follows, at any byte, that was written after record `broken` had been synced.
fn later_group(bytes: &[u8], broken: u64) -> bool {
    (1..written(bytes).len()).any(|at| {
        matches!(
            frame::look(bytes.get(at..).unwrap_or_default()),
            Found::Frame(frame) if frame.index > broken && frame.stand.group > broken
        )
    })
}

/// The bytes without the zeros at their end, about.
fn written(bytes: &[u8]) -> &[u8] {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut end = bytes.len();
    while end > 0 {
        let start = end.saturating_sub(ZEROS.len());
        let block = bytes.get(start..end).unwrap_or_default();
        if ZEROS.get(..block.len()) != Some(block) {
            break;
        }
        end = start;
    }
    bytes.get(..end).unwrap_or_default()
}

/// Compares what is there with what was acknowledged.
fn check(
    dir: &Path,
    scan: &Scan,
    mark: Mark,
    vote: Option<Vote>,
    purged: Option<LogId>,
) -> Result<(), OpenError> {
    let purged_next = purged.map_or(0, |purged| purged.index + 1);
    let first = scan
        .segments
        .front()
        .map_or(purged_next, |first| first.first);
    let next = scan.segments.back().map_or(purged_next, Segment::next);
    let place = scan.segments.back().map_or_else(
        || dir.join(segment::name(purged_next)),
        |last| last.path.clone(),
    );
    if first > purged_next {
        let what = format!("is missing: the log begins with record {first}");
        return Err(OpenError::damaged(
            &dir.join(segment::name(purged_next)),
            what,
        ));
    }
    if next.max(purged_next) < mark.next {
        let what = format!(
            "ends before record {next}, and record {} was acknowledged",
            mark.next - 1
        );
        return Err(OpenError::damaged(&place, what));
    }
    if let Some(found) = scan.marked
        && found != (mark.term, mark.crc)
    {
        let what = format!("has another record {} than was acknowledged", mark.next - 1);
        return Err(OpenError::damaged(&place, what));
    }
    let term = scan
        .terms
        .back()
        .copied()
        .or(purged.map(|purged| term_of(&purged)));
    let voted = vote.map_or(0, |vote| vote.leader_id().term);
    if term.unwrap_or(0) > voted {
        let path = dir.join(VOTE);
        let what = match vote {
            Some(_) => "is older than the log",
            None => "is missing although the log has records",
        };
        return Err(OpenError::damaged(&path, what));
    }
    Ok(())
}

/// Makes durable what was read, removes what was cut off, and segments that a purge did not get to.
fn mend(dir: &Path, scan: &mut Scan, purged: Option<LogId>) -> Result<(), OpenError> {
    for path in scan.withdrawn.iter().rev() {
        disk::remove(path).map_err(OpenError::disk("remove", path))?;
    }
    if scan.torn
        && let Some(last) = scan.segments.back()
    {
        tracing::warn!(
            segment = %last.path.display(),
            record = last.next(),
            "removing records that were not acknowledged, or that a crash left over from a removal"
        );
        last.clear_from(last.end)
            .map_err(OpenError::disk("write", &last.path))?;
    }
    // A process that was killed may have left names, too, that no sync of the folder has covered: a vote
    // that was read here must not be an earlier one after a power cut.
    disk::sync_dir(dir).map_err(OpenError::disk("sync the folder", dir))?;
    // Every group is synced before the next one is written, so only the last segment can hold one that
    // was not.
    if let Some(last) = scan.segments.back()
        && !planted::has(Planted::UnsyncedRestart)
    {
        last.write_again()
            .map_err(OpenError::disk("write", &last.path))?;
    }
    while let Some(purged) = purged
        && let Some(first) = scan.segments.front()
        && first.next() <= purged.index + 1
        && (scan.segments.len() > 1 || first.next() <= purged.index)
    {
        let Some(first) = scan.segments.pop_front() else {
            break;
        };
        disk::remove(&first.path).map_err(OpenError::disk("remove", &first.path))?;
        scan.terms.drain(..first.offsets.len());
    }
    disk::sync_dir(dir).map_err(OpenError::disk("sync the folder", dir))
}

/// Says that nothing is left of what was being removed.
fn end_withdrawal(dir: &Path, marks: &mut Marks) -> Result<(), OpenError> {
    let mark = marks.last();
    if !mark.withdrawing {
        return Ok(());
    }
    let ended = Mark {
        withdrawing: false,
        ..mark
    };
    marks
        .write(ended)
        .and_then(|()| marks.sync())
        .map_err(OpenError::disk("write", &dir.join(marks::FILE)))
}

fn start(
    dir: &Path,
    sizes: Sizes,
    scan: Scan,
    (vote, purged, marks): (Option<Vote>, Option<LogId>, Marks),
    lock: Lock,
) -> Result<LogStore, OpenError> {
    let purged_next = purged.map_or(0, |purged| purged.index + 1);
    let first = scan
        .segments
        .front()
        .map_or(purged_next, |first| first.first);
    let mut records: VecDeque<Record> = scan
        .terms
        .into_iter()
        .map(|term| Record { term, entry: None })
        .collect();
    // A purge may end within a segment: what it covers is not shown.
    let hidden = usize::try_from(purged_next.saturating_sub(first)).unwrap_or(usize::MAX);
    records.drain(..hidden.min(records.len()));
    let committed = match marks.last().committed {
        (0, _) => None,
        (next, term) => Some(log_id(term, next - 1)),
    };
    let index = Index {
        purged,
        base: purged_next,
        records,
        segments: scan.segments,
        cached_bytes: 0,
        evicted: 0,
        vote,
        committed,
    };
    let shared = Arc::new(Shared {
        dir: dir.to_owned(),
        sizes,
        index: Mutex::new(index),
        failed: watch::Sender::new(None),
        busy: Mutex::new(None),
    });
    let (sender, work) = mpsc::channel(QUEUE);
    Writer::new(Arc::clone(&shared), marks, scan.crc, lock)
        .spawn(work)
        .map_err(OpenError::disk("start the thread that writes", dir))?;
    Ok(LogStore {
        shared,
        writer: sender,
    })
}
