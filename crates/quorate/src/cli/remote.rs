//! The cluster as the commands see it: a client, and its errors in a person's words.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use quorate_api::client::{Client, Error, Options, PartitionFilter, Trouble};
use quorate_api::problem::{self, Problem as ApiProblem};
use quorate_core::spec::suggest::closest;
use quorate_pki::{ClientTls, Trust};

use super::args::{Global, Target};
use crate::failure::{Code, Failure, Problem, chain, root};
use crate::output::Output;

/// Where directors are when nobody says.
pub(crate) const DEFAULT_ADDRESS: &str = "127.0.0.1:7400";

/// A file with more than this is no token.
const TOKEN_BYTES_MAX: u64 = 4096;

/// A cluster and where its answers go.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) client: Client,
    pub(crate) output: Output,
}

impl Remote {
    /// The cluster that the command line names. `stale_reads`: when nobody leads, what one director knows
    /// is better than nothing.
    ///
    /// # Errors
    /// When the address is none.
    pub(crate) fn new(global: &Global, output: Output, stale_reads: bool) -> Result<Self, Failure> {
        let mut addresses = addresses(global);
        if addresses.is_empty() {
            addresses.push(DEFAULT_ADDRESS.to_owned());
        }
        let options = Options {
            stale_reads,
            ..options(global)?
        };
        let client = Client::with(addresses, options).map_err(|error| {
            Failure::new(
                Code::Usage,
                chain(&error),
                "write --address HOST:PORT, or several with commas",
            )
        })?;
        Ok(Self { client, output })
    }

    /// The failure of a call about a service or partition, with the name that was probably meant.
    pub(crate) async fn about(&self, target: &Target, error: Error) -> Failure {
        let mut failure = failure_of(error);
        if failure.first.code == Code::NotFound
            && let Some(near) = self.near(target).await
        {
            failure.first.next = format!("did you mean {near}?");
        }
        failure
    }

    /// The same about an agent.
    pub(crate) async fn about_agent(&self, name: &str, error: Error) -> Failure {
        let mut failure = failure_of(error);
        if failure.first.code == Code::NotFound
            && let Ok(agents) = self.client.agents(None).await
        {
            let names = agents.value.iter().map(|agent| agent.name.as_str());
            if let Some(near) = closest(name, names) {
                failure.first.next = format!("did you mean {near}?");
            }
        }
        failure
    }

    /// The name nearest to one that does not exist.
    async fn near(&self, target: &Target) -> Option<String> {
        let services = self.client.services(None).await.ok()?.value;
        let names = || services.iter().map(|service| service.name.as_str());
        let service = target.service.as_str();
        if !names().any(|name| name == service) {
            let near = closest(service, names())?;
            return Some(match &target.key {
                None => near.to_owned(),
                Some(key) => format!("{near}/{key}"),
            });
        }
        let key = target.key.as_ref()?;
        let filter = PartitionFilter {
            service: Some(service.to_owned()),
            ..PartitionFilter::default()
        };
        let partitions = self.client.partitions(&filter, None).await.ok()?.value;
        let keys = partitions.iter().map(|partition| partition.key.as_str());
        let near = closest(key.as_str(), keys)?;
        Some(format!("{service}/{near}"))
    }
}

/// The same with the API token of the file, when a file was named and no token was given. The file is read
/// only by commands that may need it.
///
/// # Errors
/// When it cannot be read, or others may read it too.
pub(super) fn with_token(mut global: Global) -> Result<Global, Failure> {
    let Some(path) = global
        .token_file
        .as_ref()
        .filter(|_| global.token.is_none())
    else {
        return Ok(global);
    };
    let unusable = |why: String| {
        Failure::new(
            Code::Usage,
            format!(
                "the API token cannot be read from {}: {why}",
                path.display()
            ),
            "write the token into a file of mode 0600 that is yours, and name it with --token-file or QUORATE_API_TOKEN_FILE",
        )
    };
    let text = secret_file(path).map_err(unusable)?;
    let token = text.trim();
    if token.is_empty() || token.contains(char::is_whitespace) {
        return Err(unusable(
            "it does not hold one token and nothing else".to_owned(),
        ));
    }
    global.token = Some(token.to_owned());
    Ok(global)
}

/// What is in a file that holds a secret, which nobody but its owner may read; why not, as a fragment.
pub(super) fn secret_file(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let about = file.metadata().map_err(|error| error.to_string())?;
    if about.is_file() && about.permissions().mode() & 0o077 != 0 {
        return Err("other users may read it".to_owned());
    }
    short_text(file).map_err(|error| error.to_string())
}

/// The text of something that holds a token and not much more.
pub(super) fn short_text(from: impl Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Where the directors are, as `--address` or `QUORATE_ADDRESS` says; empty when neither does.
pub(super) fn addresses(global: &Global) -> Vec<String> {
    let mut addresses = global.address.clone();
    addresses.retain(|address| !address.trim().is_empty());
    addresses
}

/// What a client of the directors is made with, as the command line says.
///
/// # Errors
/// When the file of the cluster's authority cannot be used.
pub(super) fn options(global: &Global) -> Result<Options, Failure> {
    let tls = global.ca_file.as_deref().map(|path| {
        let tls = Trust::load(path).and_then(|trust| ClientTls::new(&trust, None));
        tls.map_err(|error| {
            Failure::new(
                Code::Config,
                format!("{}: {}", path.display(), chain(&error)),
                "name the cluster's own file: ca.pem in the folder of a director",
            )
        })
    });
    Ok(Options {
        token: global.token.clone(),
        tls: tls.transpose()?.map(|tls| tls.config()),
        ..Options::default()
    })
}

/// What went wrong with TLS, and what to do about it.
fn of_tls(trouble: Trouble, error: &Error) -> Failure {
    let at = match error {
        Error::Unreachable { addresses, .. } => addresses.join(", "),
        Error::OutcomeUnknown { .. }
        | Error::Problem(_)
        | Error::NoLeader
        | Error::EarlierEra { .. }
        | Error::Unreadable { .. } => "the director".to_owned(),
    };
    let (what, next) = match trouble {
        Trouble::NotTls => (
            format!("{at} does not speak TLS"),
            "write http:// before the address, or check the port".to_owned(),
        ),
        Trouble::Untrusted => (
            format!("the certificate of {at} is not signed by an authority that is trusted here"),
            "name the cluster's ca.pem with --ca-file FILE or QUORATE_CA_FILE".to_owned(),
        ),
        Trouble::Expired => (
            format!("the certificate of {at} has expired"),
            "a director renews its own as long as it runs: look at its log, and at the clocks of both machines"
                .to_owned(),
        ),
        Trouble::NotYetValid => (
            format!("the certificate of {at} is not valid yet"),
            "look at the clocks of both machines".to_owned(),
        ),
        Trouble::Stranger(why) => (
            format!("{at} is not a director of this cluster: {why}"),
            "check the address".to_owned(),
        ),
        Trouble::Refused(why) => (
            format!("{at} refuses the certificate of this machine ({why})"),
            "it may have expired, or be that of another cluster: `quorate join` gets another one".to_owned(),
        ),
        Trouble::Other(why) => (
            format!("no TLS with {at}: {why}"),
            "check the address, and that both are of this version".to_owned(),
        ),
    };
    Failure::new(Code::Tls, what, next)
}

/// A client's error in a person's words.
pub(crate) fn failure_of(error: Error) -> Failure {
    if let Some(trouble) = error.tls() {
        return of_tls(trouble, &error);
    }
    match error {
        Error::Problem(problem) => refused(&problem),
        Error::NoLeader => Failure::new(
            Code::NoLeader,
            "the directors answer, and none of them leads at the moment",
            "try again in a moment; what runs goes on running",
        ),
        Error::EarlierEra { .. } => Failure::new(
            Code::Unreachable,
            chain(&error),
            "ask a director of the restored cluster, and stop this one for good",
        ),
        Error::Unreachable { ref cause, .. } => Failure::new(
            Code::Unreachable,
            match cause {
                // What is between is how the HTTP library got there.
                Some(cause) => format!("{error}: {}", root(cause)),
                None => error.to_string(),
            },
            "start one with `quorate up FILE`, or say where it is with --address",
        ),
        Error::OutcomeUnknown { .. } => Failure::new(
            Code::OutcomeUnknown,
            chain(&error),
            "look with `quorate status`, or run the command again: it is safe to repeat",
        ),
        Error::Unreadable { ref address, .. } => Failure::new(
            Code::NotQuorate,
            chain(&error),
            format!("check that {address} is a director of this version of quorate"),
        ),
    }
}

/// What a director refused.
fn refused(problem: &ApiProblem) -> Failure {
    let code = code_of(problem);
    let next = problem.next_step.clone().unwrap_or_else(|| {
        if code == Code::NotFound {
            "`quorate ls services` and `quorate ls partitions` list what exists".to_owned()
        } else {
            format!("`quorate explain {}` tells more", code.name())
        }
    });
    let mut failure = Failure::new(code, problem, next);
    failure.more = problem
        .errors
        .iter()
        .map(|error| Problem {
            code,
            sentence: format!("{}: {}", error.at, error.message),
            place: None,
            next: error.hint.clone().unwrap_or_default(),
        })
        .collect();
    failure
}

/// What a problem of the API becomes here.
pub(super) fn code_of(problem: &ApiProblem) -> Code {
    match problem.code {
        problem::Code::InvalidSpecification
        | problem::Code::MalformedRequest
        | problem::Code::BadParameter
        | problem::Code::TooLarge
        | problem::Code::MethodNotAllowed
        | problem::Code::UriTooLong
        | problem::Code::HeadTooLarge
        | problem::Code::UnsupportedMediaType => Code::Invalid,
        problem::Code::Unauthenticated | problem::Code::Forbidden => Code::NotAllowed,
        problem::Code::TlsRequired => Code::Tls,
        problem::Code::NotFound | problem::Code::UnknownPath | problem::Code::Gone => {
            Code::NotFound
        }
        problem::Code::Conflict | problem::Code::Fenced => Code::Conflict,
        problem::Code::PreconditionFailed => Code::PreconditionFailed,
        problem::Code::TooManyRequests
        | problem::Code::SlowRequest
        | problem::Code::Unavailable
        | problem::Code::TimedOut => Code::Overloaded,
        problem::Code::NotLeader => Code::NoLeader,
        problem::Code::OutcomeUnknown => Code::OutcomeUnknown,
        problem::Code::Internal => Code::Failed,
        problem::Code::Other => match problem.status {
            // The client makes these of answers that are not a director's.
            _ if problem.title == "not an answer of a director" => Code::NotQuorate,
            401 | 403 => Code::NotAllowed,
            404 | 410 => Code::NotFound,
            409 | 412 => Code::Conflict,
            400..=499 => Code::Invalid,
            503 => Code::Overloaded,
            _ => Code::Failed,
        },
    }
}
