//! The program that the tests start as a warden: what `quorate warden` and `quorate agent --last-will` do.

use std::path::Path;
use std::process::ExitCode;

use quorate_agent::warden::{Options, run};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Ok(program) = std::env::current_exe() else {
        return ExitCode::FAILURE;
    };
    match arguments.next().as_deref().and_then(|word| word.to_str()) {
        Some("warden") => match Options::from_args(program, arguments) {
            Ok(options) => run(&options),
            Err(_) => ExitCode::from(2),
        },
        Some("agent") => {
            let Some(dir) = arguments.nth(1) else {
                return ExitCode::from(2);
            };
            let told = std::fs::rename(
                Path::new(&dir).join("last-will.json"),
                Path::new(&dir).join("last-will.told"),
            );
            ExitCode::from(u8::from(told.is_err()))
        }
        Some(_) | None => ExitCode::from(2),
    }
}
