//! Rules that no compiler checks: which crate may use which, where unsafe code may stand, that every
//! source file is reached by a `mod`, says what it is for, and fits in one sitting.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::teeth;

/// A crate and the crates of this workspace that it may use. An arrow that is not here is a wall.
const ARROWS: [(&str, &[&str]); 13] = [
    ("quorate-core", &[]),
    ("quorate-api", &[]),
    ("quorate-ledger", &["quorate-core"]),
    ("quorate-raft", &["quorate-core", "quorate-ledger"]),
    ("quorate-pki", &["quorate-core"]),
    // Servers of others, for tests and benches.
    ("quorate-servers", &[]),
    (
        "quorate-director",
        &[
            "quorate-core",
            "quorate-ledger",
            "quorate-api",
            "quorate-pki",
        ],
    ),
    (
        "quorate-agent",
        &["quorate-core", "quorate-api", "quorate-pki"],
    ),
    ("quorate-sim", &["quorate-core"]),
    // It states the rules again: shared code would make them agree by construction.
    ("quorate-model", &[]),
    // Its referee must know only what can be seen from outside.
    ("quorate-chaos", &["quorate-servers"]),
    (
        "quorate",
        &[
            "quorate-core",
            "quorate-ledger",
            "quorate-raft",
            "quorate-api",
            "quorate-pki",
            "quorate-director",
            "quorate-agent",
        ],
    ),
    (
        "quorate-benches",
        &[
            "quorate-core",
            "quorate-ledger",
            "quorate-raft",
            "quorate-api",
            "quorate-pki",
            "quorate-director",
            "quorate-agent",
            "quorate-servers",
        ],
    ),
];

/// Crates of others that the core may use: none of them has a clock, a socket or a thread.
const CORE_MAY_USE: [&str; 7] = [
    "ecow",
    "rmp-serde",
    "serde",
    "serde_json",
    "thiserror",
    "toml",
    "xxhash-rust",
];

/// What is wrong with a manifest that names planted bugs in another way than it may.
const PLANTED_ELSEWHERE: &str =
    "planted bugs must be out of reach of every build but those of the tests that find them";

/// A file longer than this hides a second idea.
const LINES_MAX: usize = 800;

/// Checks the tree and returns what is wrong, a line each.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let sources = rust_files(root)?;
    let mut reached = reached_files(&sources)?;
    for manifest in manifests(root)? {
        let text = fs::read_to_string(&manifest).with_context(|| manifest.display().to_string())?;
        let table: toml::Table = text.parse()?;
        check_arrows(&table, &mut problems)?;
        check_planted(&text, &table, &mut problems)?;
        reached.extend(named_targets(&table, manifest.parent().unwrap_or(root)));
    }
    for manifest in ["Cargo.toml", "xtask/Cargo.toml"] {
        let text = fs::read_to_string(root.join(manifest)).context(manifest)?;
        if without_comments(&text).any(|line| line.contains("planted")) {
            problems.push(format!("{manifest}: {PLANTED_ELSEWHERE}"));
        }
    }
    problems.extend(teeth::unlisted(root)?);
    for path in &sources {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let shown = path
            .strip_prefix(root)
            .unwrap_or(path)
            .display()
            .to_string();
        check_file(&shown, &text, &mut problems);
        if !is_root_file(path) && !reached.contains(path) {
            problems.push(format!(
                "{shown}: no `mod` leads here; delete it or declare it"
            ));
        }
    }
    check_adrs(root, &mut problems)?;
    Ok(problems)
}

fn manifests(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    for entry in fs::read_dir(root.join("crates"))? {
        found.push(entry?.path().join("Cargo.toml"));
    }
    let benches = root.join("benches/Cargo.toml");
    if benches.exists() {
        found.push(benches);
    }
    found.sort();
    Ok(found)
}

/// The files that a manifest names as programs and tests of their own.
fn named_targets(manifest: &toml::Table, folder: &Path) -> Vec<PathBuf> {
    let kinds = ["bin", "test", "bench", "example"].into_iter();
    let targets = kinds.filter_map(|kind| manifest.get(kind)?.as_array());
    let paths = targets
        .flatten()
        .filter_map(|target| target.get("path")?.as_str());
    paths.map(|path| folder.join(path)).collect()
}

fn check_arrows(table: &toml::Table, problems: &mut Vec<String>) -> Result<()> {
    let name = table
        .get("package")
        .and_then(|package| package.get("name"))
        .and_then(toml::Value::as_str)
        .context("manifest without a name")?;
    let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
        problems.push(format!(
            "{name}: a new crate needs a line in xtask's ARROWS"
        ));
        return Ok(());
    };
    let used = table.get("dependencies").and_then(toml::Value::as_table);
    for used in used.into_iter().flat_map(toml::Table::keys) {
        if used.starts_with("quorate") && !allowed.contains(&used.as_str()) {
            problems.push(format!("{name}: must not use {used}"));
        }
        if name == "quorate-core" && !CORE_MAY_USE.contains(&used.as_str()) {
            problems.push(format!("{name}: the pure core must not use {used}"));
        }
    }
    Ok(())
}

/// Bugs are planted for tests alone, and never unless somebody asks for it: the manifests of the crates
/// that have them declare the feature, and nothing turns it on, by default or for another crate, but the
/// simulator for the machines in it.
fn check_planted(text: &str, table: &toml::Table, problems: &mut Vec<String>) -> Result<()> {
    let name = table
        .get("package")
        .and_then(|package| package.get("name"))
        .and_then(toml::Value::as_str)
        .context("manifest without a name")?;
    let allowed: &[&str] = match name {
        "quorate-core" | "quorate-agent" | "quorate-raft" | "quorate-director" => &["planted = []"],
        "quorate-sim" => &["planted = [\"quorate-core/planted\"]"],
        _ => &[],
    };
    let found: Vec<&str> = without_comments(text)
        .filter(|line| line.contains("planted"))
        .collect();
    let features = table.get("features").and_then(toml::Value::as_table);
    let by_default = features.is_some_and(|features| features.contains_key("default"));
    if found != allowed || (!allowed.is_empty() && by_default) {
        problems.push(format!("{name}: {PLANTED_ELSEWHERE}"));
    }
    Ok(())
}

/// The lines of a manifest as they count.
fn without_comments(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines();
    lines.map(|line| line.split('#').next().unwrap_or_default().trim())
}

fn check_file(shown: &str, text: &str, problems: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        problems.push(format!(
            "{shown}: {lines} lines; look for the second idea ({LINES_MAX} at most)"
        ));
    }
    let opens_with_purpose = text
        .lines()
        .find(|line| !line.trim().is_empty())
        .is_some_and(|line| line.starts_with("//!"));
    if !opens_with_purpose {
        problems.push(format!("{shown}: does not open with `//!` and its purpose"));
    }
    let outside_sys = !shown.contains("quorate-agent/src/sys");
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        // Spelt in two parts so that this file does not find itself.
        if outside_sys && code.contains(concat!("unsa", "fe {")) {
            problems.push(format!(
                "{shown}:{}: unsafe code outside quorate-agent/src/sys",
                index + 1
            ));
        }
        if code.contains(concat!("#[ign", "ore")) {
            problems.push(format!("{shown}:{}: no test is ignored", index + 1));
        }
    }
}

/// Every rust file of the workspace, sorted.
fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![
        root.join("crates"),
        root.join("xtask"),
        root.join("benches"),
    ];
    while let Some(folder) = folders.pop() {
        if !folder.exists() {
            continue;
        }
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether cargo itself finds the file: roots of crates, programs and test binaries.
fn is_root_file(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let parent = path
        .parent()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str());
    matches!(name, "lib.rs" | "main.rs" | "build.rs") || parent == Some("bin")
}

/// The files that some `mod name;` declares.
fn reached_files(sources: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut reached = BTreeSet::new();
    for path in sources {
        let text = fs::read_to_string(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let own = match name {
            "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
            _ if folder.ends_with("bin") => folder.to_owned(),
            other => folder.join(other.trim_end_matches(".rs")),
        };
        for line in text.lines() {
            let line = line.trim();
            if let Some(module) = declared_module(line) {
                reached.insert(own.join(format!("{module}.rs")));
                reached.insert(own.join(module).join("mod.rs"));
            }
            if let Some(at) = line
                .strip_prefix("#[path = \"")
                .and_then(|rest| rest.split('"').next())
            {
                reached.insert(folder.join(at));
            }
        }
    }
    Ok(reached)
}

/// The name in `mod name;`, whatever its visibility.
fn declared_module(line: &str) -> Option<&str> {
    let declaration = line.strip_suffix(';')?;
    let (visibility, module) = match declaration.split_once("mod ") {
        Some((before, module)) => (before.trim(), module.trim()),
        None => return None,
    };
    let visible = visibility.is_empty() || visibility.starts_with("pub");
    let is_name = module
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '_');
    (visible && is_name).then_some(module)
}

/// Decisions are numbered without gaps and have the four parts that make them worth reading.
fn check_adrs(root: &Path, problems: &mut Vec<String>) -> Result<()> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(root.join("docs/adr"))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    for (index, name) in names.iter().enumerate() {
        let expected = format!("{:04}-", index + 1);
        if !name.starts_with(&expected) {
            problems.push(format!("docs/adr/{name}: expected a number {expected}"));
        }
        let text = fs::read_to_string(root.join("docs/adr").join(name))?;
        for part in [
            "## Context",
            "## Decision",
            "## Consequences",
            "## Rejected",
        ] {
            if !text.contains(part) {
                problems.push(format!("docs/adr/{name}: lacks `{part}`"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_declaration_is_told_from_prose_and_blocks() {
        assert_eq!(declared_module("pub(crate) mod tidy;"), Some("tidy"));
        assert_eq!(declared_module("mod tests {"), None);
        assert_eq!(declared_module("use a mod b;"), None);
    }

    #[test]
    fn unsafe_code_outside_its_room_is_found() {
        let mut problems = Vec::new();
        let code = concat!("//! Purpose.\nfn f() { unsa", "fe { g() } }\n");
        check_file("crates/quorate-core/src/x.rs", code, &mut problems);
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems.clear();
        check_file("crates/quorate-agent/src/sys/x.rs", code, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn a_program_that_turns_planted_bugs_on_is_found() {
        let found = |text: &str| {
            let mut problems = Vec::new();
            check_planted(text, &text.parse().unwrap(), &mut problems).unwrap();
            problems.len()
        };
        let program = "[package]\nname = \"quorate\"\n[dependencies]\n";
        let with = "quorate-core = { workspace = true, features = [\"planted\"] }\n";
        assert_eq!(found(program), 0);
        assert_eq!(found(&format!("{program}{with}")), 1);
        let core = "[package]\nname = \"quorate-core\"\n[features]\nplanted = []\n";
        assert_eq!(found(core), 0);
        assert_eq!(found(&format!("{core}default = [\"planted\"]\n")), 1);
        let shell = "[package]\nname = \"quorate-agent\"\n[features]\nplanted = []\n";
        assert_eq!(found(shell), 0);
        let also = shell.replace("[]", "[\"quorate-core/planted\"]");
        assert_eq!(found(&also), 1);
    }

    #[test]
    fn this_tree_is_tidy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let problems = check(root).unwrap();
        assert!(problems.is_empty(), "{problems:#?}");
    }
}
