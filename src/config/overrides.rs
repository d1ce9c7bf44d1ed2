//! `--cfg-options a.b.0.c=value …`, with the rules of mmengine's `DictAction`: the command lines
//! that people have keep working.

use super::bases::{ListKeys, merge};
use super::error::ConfigError;
use super::node::{COMMAND_LINE, MAX_DEPTH, Map, Node, Origin, Value};
use super::references::{self, Uses};

/// Merges `key=value` arguments over a config. A later argument wins over an earlier one with the
/// same key.
pub(super) fn apply(
    root: Node,
    arguments: &[String],
    uses: &mut Uses,
) -> Result<Node, ConfigError> {
    if arguments.is_empty() {
        return Ok(root);
    }
    let origin = Origin::named(COMMAND_LINE);
    let mut tree = Node::new(Value::Map(Map::new()), origin.clone());
    let mut faults = Vec::new();
    for argument in arguments {
        if let Err(message) = set(&mut tree, argument, &origin) {
            faults.push(ConfigError::Override { argument: argument.clone(), message });
        }
    }
    if !faults.is_empty() {
        return Err(ConfigError::all(faults));
    }
    merge(root, tree, ListKeys::Allowed, uses)
}

/// Takes one argument into the tree of all.
fn set(tree: &mut Node, argument: &str, origin: &Origin) -> Result<(), String> {
    let (key, value) = argument.split_once('=').ok_or("expected key=value")?;
    if key.split('.').count() > MAX_DEPTH {
        return Err(format!("the key has more than {MAX_DEPTH} parts"));
    }
    if key.split('.').any(str::is_empty) {
        return Err("expected a key before `=`, such as model.backbone.depth".into());
    }
    insert(tree, key, parse(value, origin, 0)?)
}

fn insert(tree: &mut Node, key: &str, value: Node) -> Result<(), String> {
    let (parents, last) = key.rsplit_once('.').map_or(("", key), |(parents, last)| (parents, last));
    let mut node = tree;
    for step in parents.split('.').filter(|it| !it.is_empty()) {
        let origin = node.origin.clone();
        node = entries(node, step)?
            .entry(step.to_owned())
            .or_insert_with(|| Node::new(Value::Map(Map::new()), origin));
    }
    entries(node, last)?.insert(last.to_owned(), value);
    Ok(())
}

fn entries<'a>(node: &'a mut Node, key: &str) -> Result<&'a mut Map, String> {
    match &mut node.value {
        Value::Map(map) => Ok(map),
        other => {
            Err(format!("an earlier argument sets the parent of `{key}` to {}", other.describe()))
        }
    }
}

/// Parses a value: `a,b`, `[a,b]`, `(a,b)`, nested ones, or a single one. Unlike mmengine, which
/// takes every space out, spaces inside a string stay: a path with a space is not another path.
/// `depth` is how many lists are around it.
fn parse(text: &str, origin: &Origin, depth: usize) -> Result<Node, String> {
    if depth > MAX_DEPTH {
        return Err(format!("lists nest more than {MAX_DEPTH} levels deep"));
    }
    let text = text.trim().trim_matches(['\'', '"']).trim();
    let inner = match text.as_bytes() {
        [b'(', .., b')'] | [b'[', .., b']'] => &text[1..text.len() - 1],
        _ if !text.contains(',') => return Ok(Node::new(single(text), origin.clone())),
        _ => text,
    };
    let mut items = Vec::new();
    let mut rest = inner.trim();
    if !is_balanced(rest) {
        return Err(unbalanced(text));
    }
    while !rest.is_empty() {
        let end = next_comma(rest);
        // An element that is the whole text again, such as `(a),(b` in brackets, has no end.
        if end == text.len() {
            return Err(unbalanced(text));
        }
        items.push(parse(&rest[..end], origin, depth + 1)?);
        rest = rest.get(end + 1..).unwrap_or_default().trim();
    }
    Ok(Node::new(Value::List(items), origin.clone()))
}

/// The position of the first comma outside of brackets, or the end.
fn next_comma(text: &str) -> usize {
    let mut open = Open::default();
    text.bytes()
        .position(|byte| open.after(byte) == Open::default() && byte == b',')
        .unwrap_or(text.len())
}

/// Whether as many brackets close as open. What follows a comma outside of brackets is balanced
/// where the whole is.
fn is_balanced(text: &str) -> bool {
    let mut open = Open::default();
    text.bytes().fold(open, |_, byte| open.after(byte)) == Open::default()
}

/// Brackets that are open, as mmengine counts them: each kind for itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Open {
    round: isize,
    square: isize,
}

impl Open {
    fn after(&mut self, byte: u8) -> Self {
        match byte {
            b'(' => self.round += 1,
            b')' => self.round -= 1,
            b'[' => self.square += 1,
            b']' => self.square -= 1,
            _ => {}
        }
        *self
    }
}

fn unbalanced(text: &str) -> String {
    format!("unbalanced brackets at `{text}` (a list of lists is written [(a,b),(c,d)])")
}

/// An integer, a float, a boolean in any case, `None`, or else a string, which may refer to the
/// config's values as a file's may.
fn single(text: &str) -> Value {
    let digits = without_underscores(text);
    if let Ok(integer) = digits.parse() {
        return Value::Int(integer);
    }
    if let Ok(float) = digits.parse() {
        return Value::Float(float);
    }
    match text.to_lowercase().as_str() {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ if text == "None" => Value::Null,
        _ => Value::String(references::mark(text)),
    }
}

/// Python allows single underscores between digits: `80_000`.
fn without_underscores(text: &str) -> String {
    let bytes = text.as_bytes();
    let between = |index: usize| {
        index > 0
            && bytes[index - 1].is_ascii_digit()
            && bytes.get(index + 1).is_some_and(u8::is_ascii_digit)
    };
    if text.bytes().enumerate().all(|(index, byte)| byte != b'_' || between(index)) {
        text.replace('_', "")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::yaml;

    fn value(text: &str) -> Result<String, String> {
        parse(text, &Origin::named(COMMAND_LINE), 0)
            .map(|it| serde_json::to_string(&it).expect("has a JSON form"))
    }

    #[test]
    fn values_are_read_as_mmengine_reads_them() {
        // The right column is what mmengine's DictAction gives, tuples written as lists.
        let cases = [
            ("18", "18"),
            ("-1", "-1"),
            ("+2", "2"),
            ("80_000", "80000"),
            ("1.", "1.0"),
            ("1e-4", "0.0001"),
            ("1_0.5", "10.5"),
            ("True", "true"),
            ("fAlSe", "false"),
            ("None", "null"),
            ("none", "\"none\""),
            ("null", "\"null\""),
            ("", "\"\""),
            ("x", "\"x\""),
            ("'x'", "\"x\""),
            ("a,b", "[\"a\",\"b\"]"),
            ("1,2.5,true,None", "[1,2.5,true,null]"),
            ("[a, b]", "[\"a\",\"b\"]"),
            ("[1]", "[1]"),
            ("(1,)", "[1]"),
            ("1,", "[1]"),
            ("[]", "[]"),
            ("()", "[]"),
            ("[(a,b),(c,d)]", "[[\"a\",\"b\"],[\"c\",\"d\"]]"),
            ("[(1,2,3),[a,b],c]", "[[1,2,3],[\"a\",\"b\"],\"c\"]"),
            ("[[1,[2,3]],4]", "[[1,[2,3]],4]"),
            ("['a',\"b\"]", "[\"a\",\"b\"]"),
            ("a=b", "\"a=b\""),
            ("__1", "\"__1\""),
            ("1_", "\"1_\""),
        ];
        for (text, expected) in cases {
            assert_eq!(value(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(value("/my data/ade").as_deref(), Ok("\"/my data/ade\""));
        for text in ["[(a,b)", "(a,b),(c,d)", "a),(b", "[a],b]"] {
            assert!(value(text).is_err(), "{text}");
        }
    }

    fn changed(text: &str, arguments: &[&str]) -> Result<String, String> {
        let root = yaml::parse(text, &"a.yaml".into()).expect("parses");
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        apply(root, &arguments, &mut Uses::new())
            .map(|it| serde_json::to_string(&it).expect("has a JSON form"))
            .map_err(|it| it.to_string())
    }

    const CONFIG: &str =
        "model: {depth: 50, type: A}\npipeline: [{type: Load}, {type: Pack}]\nlr: 1";

    #[test]
    fn keys_reach_into_mappings_and_lists() {
        let arguments = [
            "model.depth=18",
            "pipeline.0.type=X",
            "pipeline.1=None",
            "work_dir=w",
            "model.depth=34",
        ];
        let expected = r#"{"model":{"depth":34,"type":"A"},"pipeline":[{"type":"X"},null],"lr":1,"work_dir":"w"}"#;
        assert_eq!(changed(CONFIG, &arguments).as_deref(), Ok(expected));
        let expected = r#"{"model":{"type":"B"},"pipeline":[1],"lr":1}"#;
        assert_eq!(
            changed(CONFIG, &["model._delete_=true", "model.type=B", "pipeline=[1]"]).as_deref(),
            Ok(expected)
        );
        assert_eq!(changed("a: {'0': 1}", &["a.0=2"]).as_deref(), Ok(r#"{"a":{"0":2}}"#));
    }

    #[test]
    fn what_cannot_be_changed_is_an_error() {
        let error = |argument: &str| changed(CONFIG, &[argument]).expect_err("is wrong");
        let two = changed(CONFIG, &["lr=1", "lr.x=2"]).expect_err("is wrong");
        let errors = [
            error("depth"),
            error("=5"),
            error("model..depth=5"),
            error("pipeline.2.type=X"),
            error("pipeline.-1.type=X"),
            error("pipeline.first.type=X"),
            error("lr.x=1"),
            error("model.depth=[1,2"),
            error("model=(1,2),(3,4)"),
            two,
        ];
        insta::assert_snapshot!(errors.join("\n"));
    }

    proptest! {
        #[test]
        fn any_argument_is_read_or_refused(text in ".{0,40}", brackets in "[\\[\\](),'\"a1. \
                                                                           ]{0,24}") {
            let _ = value(&text);
            let _ = value(&brackets);
        }

        #[test]
        fn printed_values_come_back(
            numbers in prop::collection::vec((any::<i64>(), any::<bool>(), "[a-z]{1,5}x"), 0..5),
        ) {
            let item = |(number, flag, word): &(i64, bool, String)| format!("({number}, {flag}, {word})");
            let items: Vec<String> = numbers.iter().map(item).collect();
            let expected = serde_json::to_string(&numbers).expect("has a JSON form");
            prop_assert_eq!(value(&format!("[{}]", items.join(","))), Ok(expected));
        }
    }
}
