//! The tree that every config becomes, whatever it was written in. Each node remembers the file and
//! line that set it, so that an error found much later, in a typed section, can still point at the
//! line to edit.

use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer};
use serde::ser::{Serialize, Serializer};

use super::error::ConfigError;
use super::{deserialize, predefined, references};

/// What stands for the command line as a source.
pub(super) const COMMAND_LINE: &str = "--cfg-options";

/// Where a value was set: a file and a line, or the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    source: Arc<str>,
    /// Counted from 1; 0 where there are no lines.
    line: usize,
}

impl Origin {
    /// A line of a file, counted from 1.
    pub fn file(source: &Arc<str>, line: usize) -> Self {
        Self { source: Arc::clone(source), line }
    }

    /// Whether it is a line of a config in Python.
    pub(super) fn is_python(&self) -> bool {
        std::path::Path::new(&*self.source).extension().is_some_and(|it| it == "py")
    }

    /// A source without lines, such as `--cfg-options`.
    pub fn named(source: &str) -> Self {
        Self { source: source.into(), line: 0 }
    }

    /// Whether the command line set this.
    pub fn is_command_line(&self) -> bool {
        &*self.source == COMMAND_LINE
    }

    /// Counted from 1; 0 where there are no lines.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The file, or what stands for it.
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.source),
            line => write!(f, "{}:{line}", self.source),
        }
    }
}

/// Deeper trees are not configs. Those who read a printed one give up at 128.
pub(super) const MAX_DEPTH: usize = 100;

/// How much there is of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Values, a long string counted as several.
    pub(super) weight: usize,
    /// Levels.
    pub(super) depth: usize,
}

/// A mapping, in the order it was written.
pub(crate) type Map = IndexMap<String, Node>;

/// What a node holds: JSON's kinds, with integers apart from floats.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(String),
    List(Vec<Node>),
    Map(Map),
}

impl Value {
    /// The value as an error message shows it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(value) => format!("the boolean {value}"),
            Self::Int(value) => format!("the integer {value}"),
            Self::Float(value) => format!("the number {value:?}"),
            Self::String(value) if value.chars().count() > 60 => {
                format!("the string {:?}…", value.chars().take(50).collect::<String>())
            }
            Self::String(value) => format!("the string {value:?}"),
            Self::List(items) => format!("a list of {}", items.len()),
            Self::Map(_) => "a mapping".into(),
        }
    }
}

/// A value and where it was set. Two nodes are equal when their values are.
#[derive(Debug, Clone)]
pub struct Node {
    pub value: Value,
    pub origin: Origin,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Node {
    pub fn new(value: Value, origin: Origin) -> Self {
        Self { value, origin }
    }

    pub fn as_map(&self) -> Option<&Map> {
        if let Value::Map(map) = &self.value { Some(map) } else { None }
    }

    pub fn as_list(&self) -> Option<&[Node]> {
        if let Value::List(items) = &self.value { Some(items) } else { None }
    }

    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(text) = &self.value { Some(text) } else { None }
    }

    pub(super) fn size(&self) -> Size {
        let below = |sizes: &mut dyn Iterator<Item = Size>| {
            sizes.fold(Size { weight: 1, depth: 1 }, |all, it| Size {
                weight: all.weight.saturating_add(it.weight),
                depth: all.depth.max(1 + it.depth),
            })
        };
        match &self.value {
            Value::String(text) => Size { weight: 1 + text.len() / 32, depth: 1 },
            Value::List(items) => below(&mut items.iter().map(Self::size)),
            Value::Map(map) => below(&mut map.values().map(Self::size)),
            _ => Size { weight: 1, depth: 1 },
        }
    }

    /// The node at a dotted path of keys and list indices, such as `train_pipeline.0.type`; the
    /// node itself for an empty path.
    pub fn get(&self, path: &str) -> Option<&Node> {
        if path.is_empty() {
            return Some(self);
        }
        path.split('.').try_fold(self, |node, step| match &node.value {
            Value::Map(map) => map.get(step),
            Value::List(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Reads the node as `T`. Keys that `T` does not have are errors; see [`deserialize`] for the
    /// rules.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        deserialize::from_node(self, "")
    }

    /// Reads the node at `path` as `T`; errors carry the whole key path.
    pub fn parse_at<T: DeserializeOwned>(&self, path: &str) -> Result<T, ConfigError> {
        match self.get(path) {
            Some(node) => deserialize::from_node(node, path),
            None => Err(ConfigError::at(&self.origin, path, "is missing")),
        }
    }

    /// The node as YAML text, which is read back as the same node.
    pub fn to_yaml(&self) -> String {
        let text = serde_yaml::to_string(self).expect("a tree of plain values has a YAML form");
        // YAML's plain strings have no escapes, JSON's do, and JSON is YAML.
        if references::mark(&text) == text && !predefined::is_in(&text) {
            text
        } else {
            self.to_json()
        }
    }

    /// The node as indented JSON text, which is YAML too. JSON has no infinity and no NaN: they
    /// become null.
    pub fn to_json(&self) -> String {
        let text =
            serde_json::to_string_pretty(self).expect("a tree of plain values has a JSON form");
        // Two braces stand beside each other only inside of strings, where they are no reference
        // any more; and so do the characters that YAML takes for line ends, or for nothing.
        let mut escaped = String::with_capacity(text.len());
        for character in text.replace("{{", "{\\u007b").chars() {
            match character {
                '\n' => escaped.push('\n'),
                '\u{7f}'..='\u{9f}'
                | '\u{2028}'
                | '\u{2029}'
                | '\u{e000}'
                | '\u{e001}'
                | '\u{feff}'
                | '\u{fffe}'
                | '\u{ffff}' => {
                    escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
                }
                it => escaped.push(it),
            }
        }
        escaped
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(value) => serializer.serialize_i64(*value),
            Value::Float(value) => serializer.serialize_f64(*value),
            Value::String(value) => serializer.serialize_str(value),
            Value::List(items) => serializer.collect_seq(items),
            Value::Map(map) => serializer.collect_map(map),
        }
    }
}

/// For a field that keeps any value as it is. Lines are not carried over.
impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(plain)
    }
}

fn plain(value: Value) -> Node {
    Node::new(value, Origin::named("value"))
}

struct AnyValue;

impl<'de> de::Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value)
            .map(Value::Int)
            .map_err(|_| E::custom(format!("the integer {value} is too large")))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Node>()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, value)) = access.next_entry::<String, Node>()? {
            map.insert(key, value);
        }
        Ok(Value::Map(map))
    }
}
