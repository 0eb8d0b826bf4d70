//! Log lines of the daemons, on standard error.

use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;
use crate::failure::{Code, Failure};

/// Starts logging, once in the life of a process.
///
/// # Errors
/// When the level cannot be read.
pub(crate) fn start(level: &str, format: LogFormat) -> Result<(), Failure> {
    let filter = EnvFilter::builder().parse(level).map_err(|error| {
        Failure::new(
            Code::Usage,
            format!("{level:?} is not a log level: {error}"),
            "write error, warn, info, debug, trace, or TARGET=LEVEL,...",
        )
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
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
