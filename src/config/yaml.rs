//! YAML text to a tree with lines. `serde_yaml` decides what the text means: syntax, scalars,
//! anchors, merge keys. It does not say on which line a value stands, so a second pass over the
//! text's events (saphyr-parser) collects the lines, and the two are laid over each other; where
//! they should ever disagree, only a line number is lost.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, Span, StrInput};

use super::error::ConfigError;
use super::node::{Map, Node, Origin, Value};
use super::references;
use crate::excerpt;

/// Parses one YAML document. `source` names the text in errors. An empty text is an empty mapping.
pub(super) fn parse(text: &str, source: &Arc<str>) -> Result<Node, ConfigError> {
    control_characters(text, source)?;
    let text = references::mark(text);
    let mut value: serde_yaml::Value =
        serde_yaml::from_str(&text).map_err(|error| syntax_error(&error, &text, source))?;
    value.apply_merge().map_err(|error| syntax_error(&error, &text, source))?;
    if value.is_null() {
        return Ok(Node::new(Value::Map(Map::new()), Origin::file(source, 1)));
    }
    let lines = Lines::of(&text);
    build(value, lines.as_deref(), 1, source)
}

/// Refuses characters that no YAML file can hold, which its parser would place on line 1 wherever
/// they are.
fn control_characters(text: &str, source: &Arc<str>) -> Result<(), ConfigError> {
    let control =
        |it: char| matches!(it, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}');
    let Some(at) = text.find(control) else { return Ok(()) };
    let line = 1 + text[..at].bytes().filter(|it| *it == b'\n').count();
    let what = match text.as_bytes()[at] {
        0 => "a NUL: is the file whole?".to_owned(),
        0x1a => "a Ctrl-Z (0x1a), as old editors end a file: remove it".to_owned(),
        it => format!("the control character 0x{it:02x}: remove it"),
    };
    Err(ConfigError::text(&Origin::file(source, line), what))
}

fn syntax_error(error: &serde_yaml::Error, text: &str, source: &Arc<str>) -> ConfigError {
    let told = error.to_string();
    if told.contains("duplicate entry") {
        let repeated = Reader::repeated(text).into_iter().map(|(key, first, line)| {
            ConfigError::text(
                &Origin::file(source, line),
                format!("{} is set already on line {first}", excerpt::quoted(&key)),
            )
        });
        let repeated: Vec<_> = repeated.collect();
        if !repeated.is_empty() {
            return ConfigError::all(repeated);
        }
    }
    let message = told.split(" at line ").next().unwrap_or(&told);
    let origin = match error.location() {
        Some(location) => Origin::file(source, location.line()),
        None => Origin::named(source),
    };
    ConfigError::text(&origin, message)
}

fn build(
    value: serde_yaml::Value,
    lines: Option<&Lines>,
    line: usize,
    source: &Arc<str>,
) -> Result<Node, ConfigError> {
    use serde_yaml::Value as Yaml;
    let origin = Origin::file(source, line);
    let value = match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(value),
        Yaml::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::Int(integer),
            (None, Some(float)) if number.is_f64() => Value::Float(float),
            _ => {
                return Err(ConfigError::text(
                    &origin,
                    format!("the integer {number} is too large"),
                ));
            }
        },
        Yaml::String(text) if text == references::NONE => Value::Null,
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(items) => {
            let list = items.into_iter().enumerate().map(|(index, item)| {
                let below = lines.and_then(|it| it.item(index));
                build(item, below, below.map_or(line, |it| it.line), source)
            });
            Value::List(list.collect::<Result<_, _>>()?)
        }
        Yaml::Mapping(mapping) => {
            let mut map = Map::with_capacity(mapping.len());
            for (key, item) in mapping {
                let key = key_text(key).ok_or_else(|| {
                    ConfigError::text(
                        &origin,
                        "a key of a mapping has to be a word or a number (a text with braces needs \
                         quotes)",
                    )
                })?;
                let below = lines.and_then(|it| it.entry(&key));
                let node = build(
                    item,
                    below.map(|(_, it)| it),
                    below.map_or(line, |(line, _)| line),
                    source,
                )?;
                if let Some(first) = map.get(&key) {
                    let first: &Node = first;
                    return Err(ConfigError::text(
                        &node.origin,
                        format!("`{key}` is set already at {}", first.origin),
                    ));
                }
                map.insert(key, node);
            }
            Value::Map(map)
        }
        // What PyYAML writes for a tuple.
        Yaml::Tagged(tagged) if tagged.tag.to_string().ends_with("python/tuple") => {
            return build(tagged.value, lines, line, source);
        }
        Yaml::Tagged(tagged) => {
            return Err(ConfigError::text(
                &origin,
                format!("the tag {} has no meaning here", tagged.tag),
            ));
        }
    };
    Ok(Node::new(value, origin))
}

fn key_text(key: serde_yaml::Value) -> Option<String> {
    match key {
        serde_yaml::Value::String(text) => Some(text),
        serde_yaml::Value::Number(number) => Some(number.to_string()),
        serde_yaml::Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

/// The lines of a value: its own, and those below it.
struct Lines {
    line: usize,
    items: Vec<Rc<Lines>>,
    entries: HashMap<String, (usize, Rc<Lines>)>,
}

impl Lines {
    /// Of a text that `serde_yaml` has accepted; `None` where the event parser does not.
    fn of(text: &str) -> Option<Rc<Self>> {
        Reader::new(text).document()
    }

    fn item(&self, index: usize) -> Option<&Self> {
        self.items.get(index).map(Rc::as_ref)
    }

    /// The line of a key, and the lines of its value.
    fn entry(&self, key: &str) -> Option<(usize, &Self)> {
        self.entries.get(key).map(|(line, below)| (*line, below.as_ref()))
    }

    /// Takes over what `<<` brings in: a mapping, or a list of them, earlier ones first.
    fn inherit(&mut self, from: &Self) {
        for (key, (line, below)) in &from.entries {
            self.entries.entry(key.clone()).or_insert_with(|| (*line, Rc::clone(below)));
        }
        for item in &from.items {
            self.inherit(item);
        }
    }
}

struct Reader<'input> {
    parser: Parser<'input, StrInput<'input>>,
    anchors: HashMap<usize, Rc<Lines>>,
    /// Keys that a mapping has twice, with the lines of both.
    repeated: Vec<(String, usize, usize)>,
}

impl<'input> Reader<'input> {
    fn new(text: &'input str) -> Self {
        Self { parser: Parser::new_from_str(text), anchors: HashMap::new(), repeated: Vec::new() }
    }

    /// Keys that a mapping has twice, with the lines of both, as far as the text can be read.
    fn repeated(text: &str) -> Vec<(String, usize, usize)> {
        let mut reader = Reader::new(text);
        reader.document();
        reader.repeated
    }

    fn document(&mut self) -> Option<Rc<Lines>> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
                (event, span) => return self.value(&event, span),
            }
        }
    }

    fn next(&mut self) -> Option<(Event<'input>, Span)> {
        self.parser.next_event()?.ok()
    }

    fn value(&mut self, event: &Event<'input>, span: Span) -> Option<Rc<Lines>> {
        let mut lines =
            Lines { line: span.start.line(), items: Vec::new(), entries: HashMap::new() };
        let anchor = match event {
            Event::Alias(id) => return self.anchors.get(id).cloned(),
            Event::Scalar(_, _, anchor, _) => *anchor,
            Event::SequenceStart(anchor, _) => {
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => lines.items.push(self.value(&event, span)?),
                    }
                }
                *anchor
            }
            Event::MappingStart(anchor, _) => {
                let mut merged = None;
                loop {
                    let (key, span) = match self.next()? {
                        (Event::MappingEnd, _) => break,
                        it => it,
                    };
                    let line = span.start.line();
                    let text = if let Event::Scalar(text, ..) = &key {
                        text.to_string()
                    } else {
                        String::new()
                    };
                    self.value(&key, span)?;
                    let (event, span) = self.next()?;
                    let below = self.value(&event, span)?;
                    if text == "<<" {
                        merged = Some(below);
                    } else if let Some((first, _)) =
                        lines.entries.insert(text.clone(), (line, below))
                        && !text.is_empty()
                    {
                        self.repeated.push((text, first, line));
                    }
                }
                if let Some(merged) = merged {
                    lines.inherit(&merged);
                }
                *anchor
            }
            _ => return None,
        };
        let lines = Rc::new(lines);
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&lines));
        }
        Some(lines)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Node, String> {
        parse(text, &"a.yaml".into()).map_err(|it| it.to_string())
    }

    fn line(root: &Node, path: &str) -> String {
        root.get(path).unwrap_or_else(|| panic!("nothing at {path}")).origin.to_string()
    }

    #[test]
    fn every_value_knows_its_line() {
        let text = "\
# comment
model: &m
  depth: 50

  heads:
    - {type: A,
       size: 3}
    -
      type: B
  text: |
    two
    lines
copy: *m
merged:
  <<: *m
  depth: 18
'quoted key': {flow: [1,
  2]}
";
        let root = read(text).expect("parses");
        let expected = [
            ("model", 2),
            ("model.depth", 3),
            ("model.heads", 5),
            ("model.heads.0.type", 6),
            ("model.heads.0.size", 7),
            ("model.heads.1.type", 9),
            ("model.text", 10),
            ("copy", 13),
            ("copy.heads.1.type", 9),
            ("merged.depth", 16),
            ("merged.heads.0.size", 7),
            ("quoted key.flow.1", 18),
        ];
        for (path, number) in expected {
            assert_eq!(line(&root, path), format!("a.yaml:{number}"), "{path}");
        }
        assert_eq!(root.get("merged.depth").map(|it| &it.value), Some(&Value::Int(18)));
    }

    #[test]
    fn scalars_have_yaml_1_2_types() {
        let root = read(
            "[1, 1.0, 1e-4, -2.5e+3, true, yes, null, ~, None, 'None ', 0x10, 1_000, .inf, \
             !!python/tuple [1]]",
        )
        .expect("parses");
        let expected =
            "[1,1.0,0.0001,-2500.0,true,\"yes\",null,null,null,\"None \",16,\"1_000\",null,[1]]";
        assert_eq!(serde_json::to_string(&root).expect("has a JSON form"), expected);
        assert_eq!(read("").expect("parses").as_map().map(Map::len), Some(0));
        assert_eq!(
            read("{0: a, 1.5: b, true: c}").expect("parses").get("0").and_then(Node::as_str),
            Some("a")
        );
    }

    #[test]
    fn errors_name_the_line() {
        let error = |text: &str| read(text).expect_err("is wrong");
        let errors = [
            error("a: 1\nb: [1, 2\nc: 3"),
            error("a: 1\nb:\n\t- 2"),
            error("a: 1\na: 2"),
            error("a: {x: 1,\n  x: 2}"),
            error("a: 1\nb: *nothing"),
            error("a: 1\nb: {[1]: 2}"),
            error("a: 1\nb: {{x, y}}"),
            error("a: 1\nb: 99999999999999999999"),
            error("a: 1\nb: 18446744073709551615"),
            error("a: !custom x"),
            error("a: 1\n---\nb: 2"),
            error("<<: 5"),
            error("1: a\n'1': b"),
            error("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\ne: 1\na: 5"),
            error("a: 1\nb: 'x\0y'"),
            error("a: 1\nb: 2\n\x1a"),
            error("a: \x1b[1m"),
        ];
        insta::assert_snapshot!(errors.join("\n"));
    }

    fn any_node() -> impl Strategy<Value = Node> {
        let node = |value| Node::new(value, Origin::named("test"));
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            prop::num::f64::NORMAL.prop_map(Value::Float),
            "[ -z~é\n]{0,12}".prop_map(Value::String),
        ]
        .prop_map(node);
        leaf.prop_recursive(4, 24, 4, move |below| {
            prop_oneof![
                prop::collection::vec(below.clone(), 0..4)
                    .prop_map(move |it| node(Value::List(it))),
                // `<<` is YAML's merge: nothing in a config can have that name.
                prop::collection::hash_map(
                    "[ -z]{1,6}".prop_filter("a merge", |key| key != "<<"),
                    below,
                    0..4
                )
                .prop_map(move |it| node(Value::Map(it.into_iter().collect()))),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}", yaml in "[-:{}\\[\\],&*!?|>'\"%#a1 \
                                                                   \n\t<]{0,40}") {
            let _ = read(&text);
            let _ = read(&yaml);
        }

        #[test]
        fn what_is_printed_comes_back(node in any_node()) {
            let root = Node::new(Value::Map(std::iter::once(("root".to_owned(), node)).collect()), Origin::named("test"));
            prop_assert_eq!(read(&root.to_yaml()).expect("parses"), root.clone());
            prop_assert_eq!(read(&root.to_json()).expect("parses"), root);
        }
    }
}
