//! The blocks of `docs/fencing.md`, as they stand there.

use std::path::PathBuf;

/// Every block of the document, by the words behind its three backticks. A test compares the list with
/// the document, so a block cannot be added without something that runs it.
pub(crate) const BLOCKS: [&str; 17] = [
    "sh token-file",
    "sql postgresql table",
    "sql postgresql take-over",
    "sql postgresql write",
    "sql postgresql transaction",
    "sql postgresql trigger",
    "python sqlite",
    "sql mariadb table",
    "sql mariadb take-over",
    "sql mariadb write",
    "lua redis guard",
    "python s3",
    "python http client",
    "python http server",
    "python files",
    "python lease",
    "sh lease",
];

/// The blocks of the document with their words, in order.
pub(crate) fn all() -> Vec<(String, String)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/fencing.md");
    let document = std::fs::read_to_string(path).expect("the document");
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some(words) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push((words.to_owned(), block.join("\n") + "\n"));
        }
    }
    blocks
}

/// The text of one block.
pub(crate) fn block(words: &str) -> String {
    assert!(BLOCKS.contains(&words), "{words} is not in the list");
    let found = all().into_iter().find(|(present, _)| present == words);
    found.expect("the document has it").1
}

/// One statement of a block, and what its parameters are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) text: String,
    /// From the comment behind it, in order.
    pub(crate) parameters: Vec<String>,
}

/// The statements of a block; each ends a line, with its parameters in a comment behind it.
pub(crate) fn statements(words: &str) -> Vec<Statement> {
    let text = block(words);
    let mut statements = Vec::new();
    let mut begun = Vec::new();
    for line in text.lines() {
        let Some((last, behind)) = line.split_once(';') else {
            begun.push(line);
            continue;
        };
        begun.push(last);
        let names = behind.trim().trim_start_matches("-- ").split(", ");
        statements.push(Statement {
            text: begun.join("\n"),
            parameters: names
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
        });
        begun.clear();
    }
    assert!(begun.is_empty(), "{words}: a statement has no end");
    statements
}
