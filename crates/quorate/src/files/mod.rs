//! Job files: read, put together, made absolute and checked, before anything is asked of a cluster.
//!
//! Everything that is wrong is told at once, each problem with its line. **Never** changes a cluster.

mod shape;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File as Opened, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use quorate_core::ids::ServiceName;
use quorate_core::spec::{self, File, ServiceSpec};
use quorate_director::duties::sources;

use crate::failure::{Code, Failure, Problem};
use shape::Shaped;
pub(crate) use shape::explain_in;
pub(crate) use text::Text;

/// More than this is no job file.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What the files say together.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// All services, with absolute paths.
    pub(crate) file: File,
    /// The folders of the files, absolute.
    pub(crate) folders: Vec<PathBuf>,
    /// How many partitions the files outside list now.
    counts: BTreeMap<ServiceName, u64>,
}

impl Loaded {
    /// How many partitions a service has, as its list says now.
    pub(crate) fn partitions(&self, name: &ServiceName) -> u64 {
        let spec = self.file.service.get(name);
        let named = spec.and_then(|spec| spec::expand::partitions(name, spec).ok()?);
        match named {
            Some(all) => u64::try_from(all.len()).unwrap_or(u64::MAX),
            None => self.counts.get(name).copied().unwrap_or(0),
        }
    }
}

/// Reads and checks files; `-` is standard input.
///
/// # Errors
/// With everything that is wrong with them.
pub(crate) fn load(paths: &[PathBuf]) -> Result<Loaded, Failure> {
    let env = |name: &str| std::env::var(name).ok();
    let mut all = Merged::default();
    for path in paths {
        if let Err(problems) = all.add(path, &env) {
            all.problems.extend(problems);
        }
    }
    match Failure::of(all.problems) {
        Some(failure) => Err(failure),
        None => Ok(Loaded {
            file: all.file,
            folders: all.folders,
            counts: all.counts,
        }),
    }
}

#[derive(Default)]
struct Merged {
    file: File,
    folders: Vec<PathBuf>,
    counts: BTreeMap<ServiceName, u64>,
    /// Which file a service came from.
    from: BTreeMap<ServiceName, String>,
    problems: Vec<Problem>,
}

impl Merged {
    fn add(
        &mut self,
        path: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), Vec<Problem>> {
        let (text, folder) = read(path).map_err(|problem| vec![problem])?;
        let Shaped { mut file, spans } = shape::read(&text, env)?;
        if file.service.is_empty() {
            return Err(vec![Problem {
                code: Code::FileEmpty,
                sentence: format!("{} describes no service", text.name),
                place: None,
                next: "add a table such as [service.feeds] with command = [\"PROGRAM\"]".to_owned(),
            }]);
        }
        for spec in file.service.values_mut() {
            make_absolute(spec, &folder);
        }
        let place = |path: &str| spans.find(path).map(|range| text.place(range));
        let found = spec::validate(&file);
        let known: BTreeSet<String> = found.iter().map(|problem| problem.path.clone()).collect();
        let mut problems: Vec<Problem> = found
            .into_iter()
            .map(|problem| Problem {
                code: Code::FileInvalid,
                sentence: format!("{}: {}", problem.path, problem.message),
                place: place(&problem.path),
                next: problem.hint.unwrap_or_default(),
            })
            .collect();
        for (name, spec) in &file.service {
            let at = format!("service.{name}.partitions.file");
            match check_source(spec) {
                Ok(None) => {}
                Ok(Some(count)) => {
                    self.counts.insert(name.clone(), count);
                }
                // Its name alone tells that it cannot be read.
                Err(_) if known.contains(&at) => {}
                Err(sentence) => problems.push(Problem {
                    code: Code::FileInvalid,
                    sentence,
                    place: place(&at),
                    next: "correct that file; the directors read it whenever it changes".to_owned(),
                }),
            }
            if let Some(other) = self.from.get(name) {
                problems.push(Problem {
                    code: Code::FileDuplicate,
                    sentence: format!("service {name} is described in {other} already"),
                    place: place(&format!("service.{name}")),
                    next: "give one of them another name, or leave one file out".to_owned(),
                });
            }
        }
        for name in file.service.keys() {
            self.from
                .entry(name.clone())
                .or_insert_with(|| text.name.clone());
        }
        self.file.service.append(&mut file.service);
        if !self.folders.contains(&folder) {
            self.folders.push(folder);
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }
}

fn read(path: &Path) -> Result<(Text, PathBuf), Problem> {
    let name = path.display().to_string();
    let fail = |sentence: String, next: &str| Problem {
        code: Code::FileUnreadable,
        sentence,
        place: None,
        next: next.to_owned(),
    };
    let check = "check the path and its permissions";
    let (bytes, folder) = if path == Path::new("-") {
        let bytes = read_limited(std::io::stdin().lock(), FILE_BYTES_MAX);
        (bytes, std::env::current_dir())
    } else {
        // A pipe is as good as a file: `quorate validate <(make-service-file)`.
        let bytes = Opened::open(path).and_then(|file| {
            if file.metadata()?.is_dir() {
                return Err(io::Error::from(io::ErrorKind::IsADirectory));
            }
            read_limited(file, FILE_BYTES_MAX)
        });
        let folder = std::path::absolute(path)
            .map(|path| path.parent().map_or_else(PathBuf::new, Path::to_owned));
        (bytes, folder)
    };
    let bytes = bytes.map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            fail(format!("{name} does not exist"), "check the path")
        } else if error.kind() == io::ErrorKind::FileTooLarge {
            Problem {
                code: Code::FileTooLarge,
                ..fail(
                    format!("{name} is {error}"),
                    "put a long list into a file of its own and name it with partitions.file; or spread the \
                     services over several files and apply one after the other",
                )
            }
        } else if error.kind() == io::ErrorKind::IsADirectory {
            fail(format!("{name} is a folder"), "name the file in it")
        } else {
            fail(format!("{name} cannot be read: {error}"), check)
        }
    })?;
    let folder = folder.map_err(|error| {
        fail(
            format!("the folder of {name} cannot be found: {error}"),
            check,
        )
    })?;
    let mut content = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        fail(
            format!("{name} is not UTF-8 text: byte {at} does not belong to any letter"),
            "save it as UTF-8",
        )
    })?;
    // Some editors put a byte-order mark in front, which no format knows.
    if content.starts_with('\u{feff}') {
        content.remove(0);
    }
    Ok((Text { name, content }, folder))
}

fn read_limited(reader: impl io::Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut reader = reader.take(most + 1);
    io::Read::read_to_end(&mut reader, &mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > most) {
        let said = format!("larger than the {} MiB that are read", most >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, said));
    }
    Ok(bytes)
}

/// Paths in a file are meant from its own folder, wherever the command runs.
fn make_absolute(spec: &mut ServiceSpec, folder: &Path) {
    let absolute = |text: &mut String| {
        if let Some(path) = resolve(folder, text) {
            *text = path;
        }
    };
    if let Some(source) = &mut spec.partitions
        && let Some(file) = &mut source.file
    {
        absolute(file);
    }
    if let Some(working_dir) = &mut spec.working_dir {
        absolute(working_dir);
    }
    // A program without a slash is looked for in PATH.
    if let Some(program) = spec.command.first_mut()
        && program.contains('/')
    {
        absolute(program);
    }
}

fn resolve(folder: &Path, text: &str) -> Option<String> {
    if text.is_empty() || text.starts_with("{{") {
        return None;
    }
    let path = std::path::absolute(folder.join(text)).ok()?;
    path.to_str().map(str::to_owned)
}

/// Reads the partition file once, so that what is wrong with it is told before it is applied.
/// Gives how many partitions it has.
fn check_source(spec: &ServiceSpec) -> Result<Option<u64>, String> {
    let Some(source) = &spec.partitions else {
        return Ok(None);
    };
    let Some(path) = source
        .file
        .as_deref()
        .filter(|path| Path::new(path).is_absolute())
    else {
        return Ok(None);
    };
    let opened = OpenOptions::new()
        .read(true)
        // Opening a pipe would otherwise wait for somebody to write to it.
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path);
    let unreadable = |error: io::Error| format!("{path} cannot be read: {error}");
    let file = opened.map_err(unreadable)?;
    // What a pipe holds is gone once it is read, and the directors read it again and again.
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(format!("{path} is not a file"));
    }
    let bytes = read_limited(file, sources::FILE_BYTES_MAX).map_err(unreadable)?;
    let all = sources::parse(path, &bytes, source)?;
    Ok(u64::try_from(all.len()).ok())
}
