//! What is wrong with the command, its environment, its folder and its user.

use std::collections::BTreeSet;

use super::Found;
use crate::spec::ServiceSpec;
use crate::spec::template::{ARGUMENT_BYTES_MAX, Template};

/// Most bytes of a command and its environment together, as written.
pub(super) const COMMAND_BYTES_MAX: usize = 128 * 1024;

/// Variables that quorate sets for runs, or may one day: a specification that had one now would change its
/// meaning then.
const OWN_VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "TRACEPARENT"];

pub(super) fn check(found: &mut Found, spec: &ServiceSpec) {
    program(found, spec);
    for (at, argument) in spec.command.iter().enumerate() {
        text(found, spec, &format!("command[{at}]"), argument);
    }
    total(found, spec);
    if let Some(folder) = &spec.working_dir {
        working_dir(found, folder);
        text(found, spec, "working_dir", folder);
    }
    if let Some(name) = &spec.user {
        user(found, name);
    }
    for (name, value) in &spec.env {
        variable(found, name);
        text(found, spec, &format!("env.{}", shown(name)), value);
    }
}

fn program(found: &mut Found, spec: &ServiceSpec) {
    let Some(program) = spec.command.first() else {
        found.add(
            "command",
            "there is no command",
            "write the program and its arguments, such as [\"/opt/feeds/stream\", \"{{key}}\"]",
        );
        return;
    };
    if program.trim().is_empty() {
        found.add(
            "command[0]",
            "the program has no name",
            "write its absolute path, or a name that is found in PATH",
        );
        return;
    }
    if program.contains('/') && !program.starts_with('/') {
        found.add(
            "command[0]",
            format!("{:?} depends on the folder it is started in", shown(program)),
            "write the absolute path; ./ and ../ are resolved only by the command line, against the file's own folder",
        );
    } else if spec.command.len() == 1 && program.contains(char::is_whitespace) {
        found.add(
            "command[0]",
            format!("{:?} is one name, and no shell splits it", shown(program)),
            "write each argument as a text of its own, or [\"/bin/sh\", \"-c\", \"…\"] for a shell",
        );
    }
}

/// Checks that hold for every text with placeholders.
fn text(found: &mut Found, spec: &ServiceSpec, field: &str, value: &str) {
    if value.contains('\0') {
        found.add(
            field,
            "it holds a NUL character, which no argument or variable can have",
            "remove it",
        );
    }
    if value.len() > ARGUMENT_BYTES_MAX {
        found.add(
            field,
            format!(
                "it has {} bytes, and Linux takes at most {ARGUMENT_BYTES_MAX}",
                value.len()
            ),
            "put it into a file and pass the file's path",
        );
    }
    match Template::parse(value) {
        Err(error) => {
            let message = error.to_string();
            let (message, hint) = message
                .split_once("; ")
                .unwrap_or((&message, "correct the placeholder"));
            found.add(field, message, hint);
        }
        Ok(template) => {
            let from_file = spec
                .partitions
                .as_ref()
                .is_some_and(|source| source.file.is_some());
            if let Some(name) = template.data_name().filter(|_| !from_file) {
                found.add(
                    field,
                    format!("{{{{{name}}}}} has no value: only partitions from a file have data"),
                    "use {{key}}, or name a file in partitions.file",
                );
            }
        }
    }
}

fn total(found: &mut Found, spec: &ServiceSpec) {
    let arguments: usize = spec.command.iter().map(|text| text.len() + 1).sum();
    let variables: usize = spec
        .env
        .iter()
        .map(|(name, value)| name.len() + value.len() + 2)
        .sum();
    let bytes = arguments + variables;
    if bytes > COMMAND_BYTES_MAX {
        found.add(
            "command",
            format!("command and env have {bytes} bytes together, and at most {COMMAND_BYTES_MAX} are taken"),
            "put large values into a file and pass the file's path",
        );
    }
}

fn working_dir(found: &mut Found, folder: &str) {
    if !folder.starts_with('/') {
        found.add(
            "working_dir",
            format!("{:?} is not an absolute path", shown(folder)),
            "write it from the root on, such as /opt/feeds; only the command line resolves relative paths, against the file's own folder",
        );
    }
}

/// `name`, `name:group`, or numbers in place of either.
fn user(found: &mut Found, user: &str) {
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    if !account(name) || group.is_some_and(|group| !account(group)) {
        found.add(
            "user",
            format!("{:?} is not a user", shown(user)),
            "write a name such as feeds, feeds:media, or a number from 0 to 4294967294",
        );
    }
}

fn account(name: &str) -> bool {
    const NAME_BYTES_MAX: usize = 32;
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        // The last number means "no change" to the kernel, which would leave the agent's own user.
        return name.parse::<u32>().is_ok_and(|id| id < u32::MAX);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    name.len() <= NAME_BYTES_MAX && !name.starts_with(['-', '.']) && name.chars().all(allowed)
}

fn variable(found: &mut Found, name: &str) {
    let field = format!("env.{}", shown(name));
    if name.is_empty() {
        found.add("env", "a variable has no name", "name it or remove it");
    } else if name.contains(['=', '\0']) {
        found.add(
            &field,
            "a variable's name cannot hold \"=\" or NUL",
            "write the name alone; its value stands on the other side",
        );
    } else if name.starts_with("QUORATE_") || BTreeSet::from(OWN_VARIABLES).contains(name) {
        found.add(
            &field,
            "this variable is reserved for quorate",
            "choose another name",
        );
    }
}

/// Enough of a text to recognise it in a message.
fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    if text.chars().count() <= SHOWN_MAX {
        return text.to_owned();
    }
    let mut head: String = text.chars().take(SHOWN_MAX).collect();
    head.push('…');
    head
}
