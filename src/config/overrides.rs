//! `--cfg-options a.b.0.c=value …`, with the rules of mmengine's `DictAction`: the command lines that people have keep working.

use super::bases::{ListKeys, merge};
use super::error::ConfigError;
use super::node::{Map, Node, Origin, Value};

/// What errors call the command line.
const SOURCE: &str = "--cfg-options";

/// Merges `key=value` arguments over a config. A later argument wins over an earlier one with the same key.
pub(super) fn apply(root: Node, arguments: &[String]) -> Result<Node, ConfigError> {
    if arguments.is_empty() {
        return Ok(root);
    }
    let origin = Origin::named(SOURCE);
    let mut tree = Node::new(Value::Map(Map::new()), origin.clone());
    for argument in arguments {
        let error = |message: String| ConfigError::Override { argument: argument.clone(), message };
        let (key, value) = argument.split_once('=').ok_or_else(|| error("expected key=value".into()))?;
        if key.split('.').any(str::is_empty) {
            return Err(error("expected a key before `=`, such as model.backbone.depth".into()));
        }
        let value = parse(value, &origin).map_err(error)?;
        insert(&mut tree, key, value).map_err(error)?;
    }
    merge(root, tree, ListKeys::Allowed)
}

fn insert(tree: &mut Node, key: &str, value: Node) -> Result<(), String> {
    let (parents, last) = key.rsplit_once('.').map_or(("", key), |(parents, last)| (parents, last));
    let mut node = tree;
    for step in parents.split('.').filter(|it| !it.is_empty()) {
        let origin = node.origin.clone();
        node = entries(node, step)?.entry(step.to_owned()).or_insert_with(|| Node::new(Value::Map(Map::new()), origin));
    }
    entries(node, last)?.insert(last.to_owned(), value);
    Ok(())
}

fn entries<'a>(node: &'a mut Node, key: &str) -> Result<&'a mut Map, String> {
    match &mut node.value {
        Value::Map(map) => Ok(map),
        other => Err(format!("an earlier argument sets the parent of `{key}` to {}", other.describe())),
    }
}

/// Parses a value: `a,b`, `[a,b]`, `(a,b)`, nested ones, or a single one.
fn parse(text: &str, origin: &Origin) -> Result<Node, String> {
    let text = text.trim_matches(['\'', '"']).trim();
    let inner = match text.as_bytes() {
        [b'(', .., b')'] | [b'[', .., b']'] => &text[1..text.len() - 1],
        _ if !text.contains(',') => return Ok(Node::new(single(text), origin.clone())),
        _ => text,
    };
    let mut items = Vec::new();
    let mut rest = inner.trim();
    while !rest.is_empty() {
        let end = next_comma(rest)?;
        // An element that is the whole text again, such as `(a),(b` in brackets, has no end.
        if end == text.len() {
            return Err(format!("unbalanced brackets in `{text}`"));
        }
        items.push(parse(&rest[..end], origin)?);
        rest = rest.get(end + 1..).unwrap_or_default().trim();
    }
    Ok(Node::new(Value::List(items), origin.clone()))
}

/// The position of the first comma outside of brackets, or the end.
fn next_comma(text: &str) -> Result<usize, String> {
    let (mut round, mut square) = (0, 0);
    let mut end = None;
    for (index, character) in text.char_indices() {
        match character {
            '(' => round += 1,
            ')' => round -= 1,
            '[' => square += 1,
            ']' => square -= 1,
            ',' if round == 0 && square == 0 && end.is_none() => end = Some(index),
            _ => {}
        }
    }
    if round == 0 && square == 0 { Ok(end.unwrap_or(text.len())) } else { Err(format!("unbalanced brackets in `{text}`")) }
}

/// An integer, a float, a boolean in any case, `None`, or else a string.
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
        _ => Value::String(text.to_owned()),
    }
}

/// Python allows single underscores between digits: `80_000`.
fn without_underscores(text: &str) -> String {
    let bytes = text.as_bytes();
    let between =
        |index: usize| index > 0 && bytes[index - 1].is_ascii_digit() && bytes.get(index + 1).is_some_and(u8::is_ascii_digit);
    if text.bytes().enumerate().all(|(index, byte)| byte != b'_' || between(index)) {
        text.replace('_', "")
    } else {
        text.to_owned()
    }
}
