//! What is wrong between the values of a file, all of it at once, each with its next step.
//!
//! Pure: whether a program, a folder or a user exists is the agent's to find out, because it is the
//! agent's machine. Must never let through what would only fail at the start of a run and could be
//! told here.
//!
//! `LD_PRELOAD` and its like are allowed in `env`: who writes a specification already says which
//! program runs as that user, and only that program's own start reads the variable, behind all of
//! quorate's processes.

mod command;
mod partitions;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::backoff::BackoffRange;
use super::constraint::Constraint;
use super::rate::Rate;
use super::values::Span;
use super::{File, Isolation, Ready, Restart, ServiceSpec, signal};
use crate::ids::ServiceName;
use crate::lease::LeaseTimes;
use crate::record::ENTRY_BYTES_MAX;
pub use partitions::{EXTENSIONS, extension};

/// T of R17: how long a change of leader takes at most over the embedded ledger: loyalty to the last one and
/// the longest wait of an election, 0.4 s each, and two rounds with their writes. The shortest lease follows
/// from it, 3 s.
pub const TAKEOVER_MAX: Duration = Duration::from_millis(1100);

/// Most bytes of an encoded specification: one entry of the ledger with room for its header.
pub const SPEC_BYTES_MAX: usize = ENTRY_BYTES_MAX - 4 * 1024;

/// Most distinct leases in use, because every agent keeps one warden for each.
pub const LEASES_MAX: usize = 4;

/// Something wrong, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it stands: `service.feeds.lease`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// The next step.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without a hint yet.
    #[must_use]
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
            hint: None,
        }
    }

    /// The same with the next step.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// Everything that is wrong with a file, in the order of the services and of their fields. Nothing
/// means that it may be applied.
#[must_use]
pub fn validate(file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    if file.service.is_empty() {
        problems.push(
            Problem::new("service", "the file has no service")
                .hint("write a table such as [service.feeds] with a command"),
        );
    }
    let leases = file.service.values().map(ServiceSpec::lease_class);
    problems.extend(too_many_leases("the services", leases.collect()));
    for (name, spec) in &file.service {
        problems.extend(service(name, spec));
    }
    problems
}

/// What is wrong when services have these lease classes: every agent keeps a warden for each.
#[must_use]
pub fn too_many_leases(whose: &str, leases: BTreeSet<Duration>) -> Option<Problem> {
    let count = leases.len();
    let shown: Vec<String> = leases
        .into_iter()
        .map(|one| Span(one).to_string())
        .collect();
    let too_many = || {
        let message = format!(
            "{whose} have {count} different leases: {}",
            shown.join(", ")
        );
        Problem::new("service", message).hint(format!(
            "use at most {LEASES_MAX}; every agent keeps one warden for each"
        ))
    };
    (count > LEASES_MAX).then(too_many)
}

/// Everything that is wrong with one service.
#[must_use]
pub fn service(name: &ServiceName, spec: &ServiceSpec) -> Vec<Problem> {
    let mut found = Found {
        at: format!("service.{name}"),
        problems: Vec::new(),
    };
    command::check(&mut found, spec);
    run_settings(&mut found, spec);
    restart(&mut found, &spec.restart);
    lease(&mut found, spec.lease);
    isolation(&mut found, spec);
    partitions::check(&mut found, name, spec);
    placement(&mut found, spec);
    ramp(&mut found, spec);
    size(&mut found, spec);
    found.problems
}

/// Collects the problems of one service.
struct Found {
    at: String,
    problems: Vec<Problem>,
}

impl Found {
    fn add(&mut self, field: &str, message: impl Into<String>, hint: impl Into<String>) {
        let path = format!("{}.{field}", self.at);
        self.problems.push(Problem::new(path, message).hint(hint));
    }
}

fn run_settings(found: &mut Found, spec: &ServiceSpec) {
    // Below this a program cannot even open its own libraries and the sockets it is handed.
    const FILES_MIN: u64 = 16;
    const LOG_MIN: u64 = 4096;
    if let Some(files) = spec.limits.files
        && files < FILES_MIN
    {
        found.add(
            "limits.files",
            format!("a program cannot run with {files} open files"),
            format!("write at least {FILES_MIN}, or leave it out for the agent's own limit"),
        );
    }
    if spec.logs.max_size.0 < LOG_MIN {
        found.add(
            "logs.max_size",
            format!("{} is too little for a log file", spec.logs.max_size),
            "write at least 4K, such as 10M",
        );
    }
    if spec.logs.keep > 1000 {
        found.add(
            "logs.keep",
            format!("{} rotated files are too many to keep", spec.logs.keep),
            "write at most 1000",
        );
    }
    stop_signal(found, &spec.stop.signal);
    if spec.ready.notify && spec.ready.after != Ready::default().after {
        found.add(
            "ready.after",
            "with notify = true a run is ready when it says so, and not after a time",
            "leave one of them out; timeout limits how long a start may take",
        );
    }
    if spec.ready.notify && spec.ready.timeout.0.is_zero() {
        found.add(
            "ready.timeout",
            "no run can be ready within 0s",
            "write how long a start may take, such as 30s",
        );
    }
}

fn stop_signal(found: &mut Found, name: &str) {
    match signal::number(name) {
        None => {
            let hint = match signal::nearest(name) {
                Some(near) => format!("did you mean {near}?"),
                None => "write a name such as TERM, INT, QUIT, HUP or USR1".to_owned(),
            };
            found.add("stop.signal", format!("{name:?} is no signal"), hint);
        }
        // It cannot be caught, and a frozen program never ends.
        Some(19) => found.add(
            "stop.signal",
            "STOP freezes a program and never ends it",
            "write a signal on which the program ends, such as TERM",
        ),
        Some(_) => {}
    }
}

fn restart(found: &mut Found, restart: &Restart) {
    if let Err(error) = BackoffRange::parse(&restart.backoff) {
        found.add(
            "restart.backoff",
            format!("{:?} is not a back-off", error.given),
            format!("write {}", error.example),
        );
    }
    if restart.reset_after.0.is_zero() {
        found.add(
            "restart.reset_after",
            "with 0s every start counts as a success, so no limit would ever be reached",
            "write how long a run must stay up to count as a success, such as 1m",
        );
    }
    if restart.on.interrupted_codes.contains(&0) {
        found.add(
            "restart.on.interrupted_codes",
            "exit code 0 is a clean exit",
            "remove the 0; restart.on.clean says what follows a clean exit",
        );
    }
    let (move_after, give_up_after) = (restart.move_after, restart.give_up_after);
    if give_up_after > 0 && move_after > give_up_after {
        found.add(
            "restart.move_after",
            format!("it would be given up after {give_up_after} failures and so never move after {move_after}"),
            format!("write at most {give_up_after}, or 0 to never move"),
        );
    }
}

fn lease(found: &mut Found, lease: Span) {
    let path = format!("{}.lease", found.at);
    let short = short_lease(&path, lease, TAKEOVER_MAX);
    found.problems.extend(short);
}

/// What is wrong with a lease under which work would not survive a change of leader that takes
/// `takeover` (R17); nothing when it is long enough.
#[must_use]
pub fn short_lease(path: &str, lease: Span, takeover: Duration) -> Option<Problem> {
    let long_enough = LeaseTimes::of(lease.0).survives(takeover);
    (!long_enough).then(|| {
        Problem::new(
            path,
            format!("{lease} is too short: a mere change of leader would stop the work"),
        )
        .hint(format!("write {} or more", shortest_lease(takeover)))
    })
}

fn isolation(found: &mut Found, spec: &ServiceSpec) {
    if spec.isolation == Isolation::Stop {
        return;
    }
    if spec.lease != ServiceSpec::default_lease() {
        found.add(
            "lease",
            "work that is kept has no lease: it goes on however long no director answers",
            "remove it, or write isolation = \"stop\"",
        );
    }
    if spec.fence.is_none() && !spec.takeover_delay.0.is_zero() {
        found.add(
            "takeover_delay",
            "nothing takes over by itself what is kept, so there is nothing to delay",
            "remove it, or name a fence hook",
        );
    }
}

/// The shortest lease, in steps of 100 ms, whose work survives a change of leader.
#[must_use]
pub fn shortest_lease(takeover: Duration) -> Span {
    let step = Duration::from_millis(100);
    let mut lease = step;
    // The graceful stop and the renewals take less than a third of a lease, so this ends soon.
    while !LeaseTimes::of(lease).survives(takeover) {
        lease += step;
    }
    Span(lease)
}

fn placement(found: &mut Found, spec: &ServiceSpec) {
    for (at, rule) in spec.placement.require.iter().enumerate() {
        if let Err(error) = Constraint::parse(rule) {
            let text = error.to_string();
            let (message, hint) = text.split_once("; ").unwrap_or((&text, "correct the rule"));
            found.add(&format!("placement.require[{at}]"), message, hint);
        }
    }
    let source = spec.partitions.as_ref();
    let from_file = source.is_some_and(|source| source.file.is_some());
    for (at, label) in spec.placement.spread.iter().enumerate() {
        let known = source.is_some_and(|source| source.labels.contains(label));
        if known {
            continue;
        }
        let field = format!("placement.spread[{at}]");
        if from_file {
            found.add(
                &field,
                format!("no partition has the label {label:?}"),
                format!("add {label:?} to partitions.labels"),
            );
        } else {
            found.add(
                &field,
                "partitions of a list or range have no labels to spread by",
                "name a file with a field for each label, or remove it",
            );
        }
    }
}

fn ramp(found: &mut Found, spec: &ServiceSpec) {
    let ramp = &spec.ramp;
    for (field, limit) in [
        ("ramp.per_agent", ramp.per_agent),
        ("ramp.cluster", ramp.cluster),
    ] {
        if limit == Some(0) {
            found.add(
                field,
                "with 0 nothing would ever start",
                "write 1 or more, or leave it out for no limit",
            );
        }
    }
    if ramp.expect_agents == Some(0) {
        found.add(
            "ramp.expect_agents",
            "0 agents are no agents",
            "write how many agents there will be, or leave it out",
        );
    }
    if let Some(Err(error)) = ramp.rate.as_deref().map(Rate::parse) {
        found.add(
            "ramp.rate",
            format!("{:?} is not a rate", error.given),
            format!("write {}", error.example),
        );
    }
}

fn size(found: &mut Found, spec: &ServiceSpec) {
    #[expect(
        clippy::expect_used,
        reason = "writing to memory cannot fail and all fields encode"
    )]
    let bytes = rmp_serde::to_vec_named(spec)
        .expect("specification encodes")
        .len();
    if bytes > SPEC_BYTES_MAX {
        let message =
            format!("the service has {bytes} bytes, and at most {SPEC_BYTES_MAX} are kept");
        found
            .problems
            .push(Problem::new(found.at.clone(), message).hint(
            "put a long list of partitions into a file, and large values into the program's own",
        ));
    }
}

#[cfg(test)]
mod tests;
