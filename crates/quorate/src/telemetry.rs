//! Log lines of the daemons, on standard error.

use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;
use crate::failure::{Code, Failure};

/// Libraries whose words are none for those who run quorate, unless they name them: what is wrong with a
/// director is told once by our own code, not with every heartbeat.
const QUIET: [&str; 2] = ["openraft", "zookeeper_client"];

/// The filter that a level stands for.
fn filter(level: &str) -> String {
    let mut filter = level.to_owned();
    for library in QUIET.iter().filter(|library| !level.contains(**library)) {
        filter.push_str(&format!(",{library}=error"));
    }
    filter
}

/// Starts logging, once in the life of a process.
///
/// # Errors
/// When the level cannot be read.
pub(crate) fn start(level: &str, format: LogFormat) -> Result<(), Failure> {
    let filter = EnvFilter::builder().parse(filter(level)).map_err(|error| {
        Failure::new(
            Code::Usage,
            format!("{level:?} is not a log level: {error}"),
            "write error, warn, info, debug, trace, or TARGET=LEVEL,...",
        )
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A line that cannot be written, on a full disk or to a reader that left, is lost. Telling of it on
        // the same standard error would panic.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_ansi(crate::output::stderr_color());
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| {
        Failure::new(
            Code::Failed,
            format!("logging cannot be started: {error}"),
            "report this as a defect",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_of_ledgers_are_quiet_unless_they_are_named() {
        assert_eq!(filter("info"), "info,openraft=error,zookeeper_client=error");
        assert_eq!(
            filter("warn,openraft=debug"),
            "warn,openraft=debug,zookeeper_client=error"
        );
        assert!(EnvFilter::builder().parse(filter("info")).is_ok());
    }
}
