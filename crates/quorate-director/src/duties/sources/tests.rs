//! Every format, read as people and programs write it, and what is told when it is wrong.

use proptest::prelude::*;
use quorate_core::spec::PartitionSource;
use serde_json::json;

use super::*;

fn source() -> PartitionSource {
    serde_json::from_value(json!({ "file": "/x", "key": "id" })).unwrap()
}

fn keys(name: &str, bytes: &[u8]) -> Vec<String> {
    let found = parse(name, bytes, &source()).unwrap();
    found.iter().map(|found| found.key.to_string()).collect()
}

fn data(name: &str, text: &str) -> String {
    let found = parse(name, text.as_bytes(), &source()).unwrap();
    found[0].data.clone().unwrap()
}

#[test]
fn every_format_says_the_same() {
    let expected = r#"{"id":"a b","n":9007199254740993,"o":{"x":[1,2.5,true]}}"#;
    for (name, text) in [
        (
            "f.jsonl",
            r#"{"n": 9007199254740993, "id": "a b", "o": {"x": [1, 2.5, true]}}"#,
        ),
        (
            "f.json",
            "[\n {\"o\": {\"x\": [1, 2.5, true]}, \"id\": \"a b\",\n \"n\": 9007199254740993}\n]",
        ),
        (
            "f.toml",
            "[[partition]]\nid = 'a b'\nn = 9007199254740993\no = { x = [1, 2.5, true] }\n",
        ),
    ] {
        assert_eq!(data(name, text), expected, "{name}");
    }
    assert_eq!(
        data("f.csv", "id,n\n\"a b\",9007199254740993\n"),
        r#"{"id":"a b","n":"9007199254740993"}"#
    );
}

#[test]
fn marks_and_line_ends_of_other_systems_are_taken() {
    let mark = "\u{feff}";
    for (name, text) in [
        ("f.jsonl", "{\"id\":\"a\"}\r\n\r\n{\"id\":\"b\"}\r\n"),
        ("f.jsonl", "{\"id\":\"a\"}\n  \n{\"id\":\"b\"}"),
        ("f.json", "[{\"id\":\"a\"},\r\n{\"id\":\"b\"}]\r\n"),
        ("f.csv", "id,x\r\na,1\r\nb,2\r\n"),
        ("f.csv", "id,x\na,1\n\nb,2"),
        (
            "f.toml",
            "[[partition]]\r\nid = \"a\"\r\n[[partition]]\r\nid = \"b\"\r\n",
        ),
    ] {
        assert_eq!(keys(name, text.as_bytes()), ["a", "b"], "{name} {text:?}");
        assert_eq!(
            keys(name, format!("{mark}{text}").as_bytes()),
            ["a", "b"],
            "{name} marked"
        );
    }
}

#[test]
fn quoting_in_csv_is_taken_and_stays_text() {
    let text = "id,note\n\"a, \"\"x\"\"\",\"two\nlines\"\n007,\n";
    let found = parse("f.csv", text.as_bytes(), &source()).unwrap();
    assert_eq!(found[0].key.as_str(), "a, \"x\"");
    assert_eq!(
        found[0].data.as_deref().unwrap(),
        r#"{"id":"a, \"x\"","note":"two\nlines"}"#
    );
    assert_eq!(found[1].key.as_str(), "007");
}

#[test]
fn a_list_of_nothing_is_a_list() {
    for (name, text) in [
        ("f.jsonl", ""),
        ("f.jsonl", "\n\n"),
        ("f.json", " [] "),
        ("f.csv", "id,x\n"),
        ("f.toml", "# none\n"),
    ] {
        assert_eq!(
            parse(name, text.as_bytes(), &source()),
            Ok(Vec::new()),
            "{name} {text:?}"
        );
    }
}

/// A file of each format that has one record with this weight, as that format writes it.
fn weighing(weight: &str) -> [(&'static str, String); 4] {
    [
        ("f.jsonl", format!("{{\"id\":\"a\",\"w\":{weight}}}\n")),
        ("f.json", format!("[{{\"id\":\"a\",\"w\":{weight}}}]")),
        ("f.csv", format!("id,w\na,{weight}\n")),
        (
            "f.toml",
            format!("[[partition]]\nid = \"a\"\nw = {weight}\n"),
        ),
    ]
}

#[test]
fn a_weight_is_above_nothing_and_rounded_up_in_every_format() {
    let mut source = source();
    source.weight = Some("w".to_owned());
    for (weight, expected) in [
        ("1", Ok(1)),
        ("0.5", Ok(1)),
        ("2.1", Ok(3)),
        ("4294967295", Ok(u32::MAX)),
        (
            "0",
            Err("is 0, and must be above 0; leave it out for a weight of 1"),
        ),
        (
            "0.0",
            Err("must be above 0; leave it out for a weight of 1"),
        ),
        (
            "-3",
            Err("is -3, and must be above 0; leave it out for a weight of 1"),
        ),
        (
            "4294967296",
            Err("is 4294967296, and at most 4294967295 is taken; choose a larger unit"),
        ),
        (
            "1e20",
            Err("and at most 4294967295 is taken; choose a larger unit"),
        ),
        ("true", Err("and must be a number, such as 12 or 3.5")),
    ] {
        for (name, text) in weighing(weight) {
            let found = parse(name, text.as_bytes(), &source);
            match (expected, &found) {
                (Ok(expected), Ok(found)) => {
                    assert_eq!(found[0].weight, expected, "{name} {weight}")
                }
                (Err(expected), Err(error)) => {
                    // CSV has only text.
                    let told = error.to_string().replace(&format!("{weight:?}"), weight);
                    assert!(told.contains(expected), "{name} {weight}: {told}");
                }
                (Ok(_), Err(_)) | (Err(_), Ok(_)) => panic!("{name} {weight}: {found:?}"),
            }
        }
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (name, bytes, expected) in [
        (
            "f.jsonl",
            &b"{\"id\":\"a\"}\n{\"id\":\"b\",\"x"[..],
            "f.jsonl: line 2: EOF while parsing",
        ),
        (
            "f.jsonl",
            b"{\"id\":\"a\"}\nid: b\n",
            "f.jsonl: line 2: expected value",
        ),
        (
            "f.jsonl",
            b"{\"id\":\"a\"}\n[]\n",
            "f.jsonl: line 2: each record is an object such as {\"key\": \"a\"}, this is a list",
        ),
        (
            "f.jsonl",
            b"null\n",
            "f.jsonl: line 1: each record is an object such as {\"key\": \"a\"}, this is null",
        ),
        (
            "f.jsonl",
            b"{\"id\":\"a\"}{\"id\":\"b\"}\n",
            "f.jsonl: line 1: trailing characters",
        ),
        (
            "f.jsonl",
            b"{\"id\":\"a\",\"id\":\"b\"}\n",
            "f.jsonl: line 1: the field \"id\" comes twice",
        ),
        (
            "f.jsonl",
            b"{\"id\":\"a\",\"o\":{\"x\":1,\"x\":1}}\n",
            "f.jsonl: line 1: the field \"x\" comes twice",
        ),
        (
            "f.jsonl",
            b"{\"id\":\"a\"}\n{\"id\":\"a\"}\n",
            "f.jsonl: line 2: the key \"a\" is already at line 1",
        ),
        (
            "f.jsonl",
            b"\n{\"id\":1e309}\n",
            "f.jsonl: line 2: number out of range",
        ),
        (
            "f.jsonl",
            b"{\"id\":NaN}\n",
            "f.jsonl: line 1: expected value",
        ),
        (
            "f.jsonl",
            b"{\"s\":\"1\\\"9\",\"id\":18446744073709551616}",
            "f.jsonl: line 1: the number 18446744073709551616 is too large to be kept exactly; write it in quotes",
        ),
        (
            "f.jsonl",
            b"{\"id\":\"a\"}\n\xff\xfe\n",
            "f.jsonl: line 2: it is not UTF-8 text",
        ),
        (
            "f.jsonl",
            b"\xff\xfe{\0",
            "f.jsonl: line 1: the file is UTF-16; save it as UTF-8",
        ),
        ("f.jsonl", b"\0\0\0", "f.jsonl: line 1: expected value"),
        (
            "f.json",
            b"",
            "f.json: line 1: the file is empty; write [] for no partitions",
        ),
        (
            "f.json",
            b"{\"id\":\"a\"}",
            "f.json: line 1: the file is one list of objects",
        ),
        (
            "f.json",
            b"[\n{\"id\":\"a\"},\n",
            "f.json: line 3: EOF while parsing a",
        ),
        (
            "f.json",
            b"[\n{\"id\":\"a\"},\n7]",
            "f.json: line 3: each record is an object",
        ),
        (
            "f.json",
            b"[\n\n{\"id\":\"a\",\n\"id\":1}]",
            "f.json: line 4: the field \"id\" comes twice",
        ),
        (
            "f.json",
            b"[{\"id\":\n-9223372036854775809}]",
            "f.json: line 2: the number -9223372036854775809 is too large",
        ),
        (
            "f.json",
            b"[{\"id\":\"a\"}]\n[]",
            "f.json: line 2: trailing characters",
        ),
        (
            "f.json",
            b"[{\"x\":\"a\"}]",
            "f.json: line 1: the key \"id\" is missing; its fields are x",
        ),
        (
            "f.csv",
            b"",
            "f.csv: line 1: the file is empty; its first line names the fields",
        ),
        (
            "f.csv",
            b"id,id\na,b\n",
            "f.csv: line 1: the column \"id\" comes twice",
        ),
        (
            "f.csv",
            b"id,\na,b\n",
            "f.csv: line 1: column 2 has no name",
        ),
        (
            "f.csv",
            b"id,x\na,1\nb\n",
            "f.csv: line 3: it has 1 values, and the first line names 2 fields",
        ),
        (
            "f.csv",
            b"id,x\na,\"1\nb,2\n",
            "f.csv: a quote is opened and never closed; inside a field write it twice",
        ),
        (
            "f.csv",
            b"id,x\n,1\n",
            "f.csv: line 2: the key \"id\" is refused: a partition key cannot be empty",
        ),
        (
            "f.toml",
            b"[[partition]]\nid = 'a'\n[[partition]]\nid = \n",
            "f.toml: line 4: ",
        ),
        (
            "f.toml",
            b"[[feed]]\nid = 'a'\n",
            "f.toml: line 1: unknown field `feed`, expected `partition`; each record is a table [[partition]]",
        ),
        (
            "f.toml",
            b"[[partition]]\nid = 'a'\nid = 'b'\n",
            "f.toml: line 3: duplicate key",
        ),
        (
            "f.toml",
            b"[[partition]]\nid = 'a'\n[[partition]]\nid = nan\n",
            "f.toml: line 3: NaN is not a number that JSON can hold",
        ),
        (
            "f.toml",
            b"[[partition]]\nid = 99999999999999999999\n",
            "f.toml: line 2: ",
        ),
        (
            "f.xml",
            b"<a/>",
            "f.xml: its name does not tell its format; let it end in .jsonl",
        ),
    ] {
        let told = parse(name, bytes, &source()).unwrap_err();
        assert!(
            told.starts_with(expected),
            "expected {expected}\n    told {told}"
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200),
        name in prop::sample::select(vec!["f.jsonl", "f.json", "f.csv", "f.toml"])) {
        parse(name, &bytes, &source()).ok();
    }

    #[test]
    fn no_text_of_the_right_letters_makes_a_reader_panic(
        text in "[\\[\\]{}\",:=\n\r\\\\ 0-9ae.-]{0,60}",
        name in prop::sample::select(vec!["f.jsonl", "f.json", "f.csv", "f.toml"])) {
        parse(name, text.as_bytes(), &source()).ok();
    }

    #[test]
    fn every_integer_of_64_bits_stays_exact(number in any::<u64>(), negative in any::<i64>()) {
        let text = format!("{{\"id\":{number},\"n\":{negative}}}");
        let expected = format!("{{\"id\":{number},\"n\":{negative}}}");
        prop_assert_eq!(data("f.jsonl", &text), expected);
    }

    #[test]
    fn a_list_cut_anywhere_inside_its_last_line_is_refused_as_a_whole(cut in 1usize..29) {
        let whole = "{\"id\":\"a\"}\n{\"id\":\"b\",\"port\":40001,\"x\":[]}";
        let cut = whole.get(..11 + cut).unwrap();
        let told = parse("f.jsonl", cut.as_bytes(), &source()).unwrap_err();
        prop_assert!(told.starts_with("f.jsonl: line 2: "), "{}", told);
    }
}
