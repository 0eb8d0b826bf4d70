//! The demonstration in `examples/feeds`: its file is right, and its list gives its commands.

use std::fs;
use std::path::PathBuf;

use quorate_core::ids::{AgentName, Token};
use quorate_core::spec::{self, File, template};
use quorate_director::duties::sources;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/feeds")
}

/// The file as the command line hands it on: relative paths are absolute.
fn file() -> File {
    let text = fs::read_to_string(folder().join("feeds.toml")).unwrap();
    let mut file: File = toml::from_str(&text).unwrap();
    for service in file.service.values_mut() {
        let program = service.command.first_mut().unwrap();
        *program = program.replacen("./", "/example/", 1);
        if let Some(source) = &mut service.partitions {
            source.file = source.file.as_ref().map(|name| format!("/example/{name}"));
        }
    }
    file
}

#[test]
fn the_example_is_valid_and_gives_twelve_commands() {
    let file = file();
    assert_eq!(spec::validate(&file), []);
    let feeds = &file.service["feeds"];
    let source = feeds.partitions.as_ref().unwrap();
    let list = fs::read(folder().join("feeds.jsonl")).unwrap();
    let partitions = sources::parse("feeds.jsonl", &list, source).unwrap();
    assert_eq!(partitions.len(), 12);
    assert!(
        partitions
            .iter()
            .all(|partition| partition.labels.contains_key("customer"))
    );
    let agent = AgentName::new("a1").unwrap();
    let first = &partitions[0];
    let context =
        template::Context::new(&first.key, first.data.as_deref(), Token(7), &agent).unwrap();
    let command = template::expand(feeds, &context).unwrap().command;
    assert_eq!(
        command,
        [
            "/example/ingest.py",
            "--feed",
            "ci",
            "--host",
            "127.0.0.1",
            "--port",
            "7480"
        ]
    );
    assert_eq!(first.weight, 6);
}
