//! A tree to any serde type. The rules that make it ours:
//!
//! - `type:` selects an enum's variant, and the rest of the mapping is the variant's payload; a
//!   plain string selects a variant without payload.
//! - A key that a struct does not have is an error everywhere, whether or not the struct asks for
//!   it.
//! - An integer is accepted where a float is expected, never the reverse. Nothing else is
//!   converted.
//! - An error names the key path, the place that set the value, what was expected, and the nearest
//!   valid name.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use indexmap::IndexMap;
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::absent;
use super::both::BOTH;
use super::error::{ConfigError, nearest, suggest};
use super::field::VALUE_OR_LIST;
use super::node::{Map, Node, Origin, Value};
use super::own;
use super::references::Variables;
use super::stand_in::Anything;

const TYPE: &str = "type";

/// mmengine's key for the registry that a type is looked for in.
const SCOPE: &str = "_scope_";

/// The packages whose components are segslurm's under the same names.
pub(super) const SCOPES: [&str; 4] = ["mmseg", "mmengine", "mmcv", "torch"];

/// A name that is a key but for so many letters is a slip; a name of one's own may be further away
/// by chance.
const SLIP: usize = 2;

/// A config with more faults than this is another kind of file.
const MAX_FAULTS: usize = 200;

/// Why a tree is not a `T`: every fault in it, in the order of files and lines.
#[derive(Debug)]
pub struct Faulty<T> {
    pub errors: Vec<ConfigError>,
    /// What can be read nevertheless, where unknown keys are the only faults.
    pub value: Option<T>,
}

impl<T> From<Faulty<T>> for ConfigError {
    fn from(faulty: Faulty<T>) -> Self {
        Self::all(faulty.errors)
    }
}

/// Reads `node`, which stands at `path` in its config.
pub(super) fn from_node<T: DeserializeOwned>(node: &Node, path: &str) -> Result<T, ConfigError> {
    Ok(from_root(node, path, None).map(|(value, _)| value)?)
}

/// Like [`from_node`]; at a config's root stand `names` too, which need not be keys of `T`. What
/// people should know of them is returned.
///
/// Faults are told all at once. A pass ends at the first wrong value; the next pass reads something
/// that fits in its place, so it ends at the second.
pub(super) fn from_root<T: DeserializeOwned>(
    node: &Node,
    path: &str,
    names: Option<&Names>,
) -> Result<(T, Vec<String>), Faulty<T>> {
    let mut reading = Reading {
        names,
        stand_ins: BTreeSet::new(),
        unknown: RefCell::default(),
        remarks: RefCell::default(),
    };
    let mut faults: Vec<(String, Origin, ConfigError)> = Vec::new();
    let mut value = None;
    for _ in 0..MAX_FAULTS {
        let root = Deserializer {
            node,
            path: &Path::Root(path),
            typed: false,
            root: names.is_some(),
            part: None,
            reading: &reading,
        };
        let fault = match T::deserialize(root) {
            Ok(read) => {
                value = Some(read).filter(|_| reading.stand_ins.is_empty());
                break;
            }
            Err(fault) => fault,
        };
        let (at, origin) = fault.place.unwrap_or_else(|| (path.to_owned(), node.origin.clone()));
        let mut spot = match fault.missing {
            Some(key) => join(&at, key),
            None => fault.spoils.unwrap_or_else(|| at.clone()),
        };
        // What stands in for a wrong value may be wrong for whoever reads it together with others.
        let below = format!("{spot}.");
        let follows = reading.stand_ins.iter().any(|it| *it == spot || it.starts_with(&below));
        let misspelt = |key: &&str| {
            let unknown = reading.unknown.borrow();
            let mut beside = unknown
                .keys()
                .filter_map(|it| it.strip_prefix(&at))
                .map(|it| it.trim_start_matches('.'));
            beside.any(|it| nearest(it, [*key]).is_some())
        };
        if !follows && !fault.missing.as_ref().is_some_and(misspelt) {
            let error = ConfigError::at(&origin, &at, fault.message);
            faults.push((at, origin, error));
        }
        while reading.stand_ins.contains(&spot) && spot != path {
            spot.truncate(spot.rfind('.').unwrap_or(0));
        }
        if spot == path || spot.is_empty() || !reading.stand_ins.insert(spot) {
            break;
        }
    }
    faults.extend(reading.unknown.take().into_iter().map(|(path, (origin, message))| {
        let error = ConfigError::at(&origin, &path, message);
        (path, origin, error)
    }));
    match (value, faults.is_empty()) {
        (Some(value), true) => Ok((value, reading.told())),
        (value, _) => Err(Faulty { errors: in_order(faults), value }),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Faults by file and line. What one line sets in several places, through a name or an anchor, is
/// told once.
fn in_order(mut faults: Vec<(String, Origin, ConfigError)>) -> Vec<ConfigError> {
    faults.sort_by(|(_, a, _), (_, b, _)| (a.source(), a.line()).cmp(&(b.source(), b.line())));
    let mut told = BTreeSet::new();
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    faults.retain(|(path, origin, error)| {
        let message =
            if let ConfigError::Value { message, .. } | ConfigError::Text { message, .. } = error {
                message
            } else {
                ""
            };
        origin.line() == 0 || told.insert((origin.to_string(), last(path), message.to_owned()))
    });
    faults.into_iter().map(|(_, _, error)| error).collect()
}

/// What is not a key of the root, and may stand there all the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names<'a> {
    /// What values refer to.
    pub(super) variables: &'a Variables,
    /// What configs call their parts before they use them; in a config that was printed nothing
    /// refers to them any more.
    pub(super) usual: &'a [&'a str],
}

/// What all passes over a tree have in common.
struct Reading<'a> {
    names: Option<&'a Names<'a>>,
    /// Places where something that fits is read in place of a value that does not, or that is
    /// missing.
    stand_ins: BTreeSet<String>,
    /// Keys that nothing has, by their paths.
    unknown: RefCell<IndexMap<String, (Origin, String)>>,
    /// What is odd and no error.
    remarks: RefCell<Vec<(Origin, String)>>,
}

impl Reading<'_> {
    fn stands_in(&self, path: &Path<'_>) -> bool {
        !self.stand_ins.is_empty() && self.stand_ins.contains(&path.to_string())
    }

    fn unknown(&self, path: &Path<'_>, origin: &Origin, message: String) {
        self.unknown.borrow_mut().insert(path.to_string(), (origin.clone(), message));
    }

    fn remark(&self, origin: &Origin, remark: String) {
        let mut remarks = self.remarks.borrow_mut();
        if !remarks.iter().any(|(_, known)| *known == remark) {
            remarks.push((origin.clone(), remark));
        }
    }

    fn told(self) -> Vec<String> {
        let mut remarks = self.remarks.into_inner();
        remarks.sort_by(|(a, _), (b, _)| (a.source(), a.line()).cmp(&(b.source(), b.line())));
        remarks.into_iter().map(|(origin, remark)| format!("{origin}: {remark}")).collect()
    }
}

/// An error on its way up; the first place that knows where it is fills in `place`.
#[derive(Debug)]
pub(super) struct Fault {
    message: String,
    place: Option<(String, Origin)>,
    /// The key that is not there.
    missing: Option<&'static str>,
    /// The path of what cannot be read for it, where that is more than its place.
    spoils: Option<String>,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None, missing: None, spoils: None }
    }

    fn at(mut self, path: &Path<'_>, origin: &Origin) -> Self {
        self.place.get_or_insert_with(|| (path.to_string(), origin.clone()));
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {}, found {}", wanted(expected), found_text(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn invalid_length(length: usize, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {}, found a list of {length}", wanted(expected)))
    }

    fn unknown_variant(name: &str, valid: &'static [&'static str]) -> Self {
        Self::new(format!("unknown value `{name}`{}", suggest(name, "values", valid)))
    }

    fn unknown_field(name: &str, valid: &'static [&'static str]) -> Self {
        Self::new(format!("unknown key `{name}`{}", suggest(name, "keys", valid)))
    }

    fn missing_field(name: &'static str) -> Self {
        Self { missing: Some(name), ..Self::new(format!("the key `{name}` is missing")) }
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::new(format!("the key `{name}` is set twice"))
    }
}

/// serde's name for what it expected, in the words of a config.
fn wanted(expected: &dyn de::Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "usize" | "u64" | "u32" | "u16" => "a whole number, 0 or more".into(),
        "u8" => "a whole number from 0 to 255".into(),
        "isize" | "i64" | "i32" | "i16" | "i8" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list".into(),
        "a map" => "a mapping".into(),
        "unit" => "null".into(),
        text => {
            if text.starts_with("struct ") || text.starts_with("enum ") {
                return "a mapping".into();
            }
            let size = text
                .strip_prefix("a tuple of size ")
                .or_else(|| text.strip_prefix("an array of length "));
            size.map_or_else(|| text.to_owned(), |size| format!("a list of {size}"))
        }
    }
}

fn found_text(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => Value::Bool(value).describe(),
        Unexpected::Signed(value) => Value::Int(value).describe(),
        Unexpected::Unsigned(value) => format!("the integer {value}"),
        Unexpected::Float(value) => Value::Float(value).describe(),
        Unexpected::Str(value) => Value::String(value.to_owned()).describe(),
        Unexpected::Unit | Unexpected::Option => "null".into(),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a mapping".into(),
        other => other.to_string(),
    }
}

/// The key path of a node, linked from the inside out.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root(&'a str),
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parent, step): (_, &dyn fmt::Display) = match self {
            Self::Root(path) => return f.write_str(path),
            Self::Key(parent, key) => (parent, key),
            Self::Index(parent, index) => (parent, index),
        };
        match parent {
            Self::Root("") => write!(f, "{step}"),
            _ => write!(f, "{parent}.{step}"),
        }
    }
}

/// `max_iters / 10` is a float in Python, and 4000.0 iterations are 4000.
macro_rules! whole_numbers {
    ($($name:ident)*) => {$(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self.node.value {
                Value::Float(value) if value.fract() == 0.0 && value.abs() < MOST_EXACT => self.place(visitor.visit_i64(value as i64)),
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

/// Floats are whole numbers one by one up to here.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;

#[derive(Clone, Copy)]
pub(super) struct Deserializer<'a> {
    node: &'a Node,
    path: &'a Path<'a>,
    /// The node is the payload of a variant: its `type` has been read.
    typed: bool,
    /// The node is the config's root.
    root: bool,
    /// The struct that is read has a part of the node's keys: it adds them to these.
    part: Option<&'a RefCell<Vec<&'static str>>>,
    reading: &'a Reading<'a>,
}

impl<'a> Deserializer<'a> {
    /// Where the node as a whole was set: for a payload, the line that chose its type.
    fn origin(&self) -> &'a Origin {
        let chosen = self.node.as_map().and_then(|it| it.get(TYPE)).filter(|_| self.typed);
        &chosen.unwrap_or(self.node).origin
    }

    fn place<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|fault| fault.at(self.path, self.origin()))
    }

    fn unexpected(&self) -> Unexpected<'a> {
        match &self.node.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Int(value) => Unexpected::Signed(*value),
            Value::Float(value) => Unexpected::Float(*value),
            Value::String(value) => Unexpected::Str(value),
            Value::List(_) => Unexpected::Seq,
            Value::Map(_) => Unexpected::Map,
        }
    }

    fn entries(&self, map: &'a Map, fields: Option<&'static [&'static str]>) -> Entries<'a> {
        let (path, reading) = (self.path, self.reading);
        let absent = fields.filter(|_| !reading.stand_ins.is_empty()).unwrap_or_default().iter();
        Entries {
            map,
            iter: map.iter(),
            absent,
            path,
            fields,
            typed: self.typed,
            root: self.root,
            reading,
            value: None,
        }
    }

    fn visit_list<'de, V: Visitor<'de>>(
        self,
        items: &'a [Node],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let mut access =
            Items { iter: items.iter().enumerate(), path: self.path, reading: self.reading };
        let result = visitor.visit_seq(&mut access).and_then(|value| match access.iter.next() {
            None => Ok(value),
            Some((taken, _)) => Err(Fault::new(format!(
                "expected a list of {taken}, found a list of {}",
                items.len()
            ))),
        });
        self.place(result)
    }

    /// Takes note of the keys of a struct that the struct does not have.
    fn check_keys(&self, map: &'a Map, fields: &[&'static str]) {
        for (key, node) in map {
            if fields.contains(&key.as_str()) || (self.typed && key == TYPE) {
                continue;
            }
            let path = Path::Key(self.path, key);
            match self.reading.names.filter(|_| self.root) {
                Some(names) => self.check_name(names, key, node, fields),
                None if key == SCOPE => match node.as_str() {
                    Some(scope) if SCOPES.contains(&scope) => {}
                    _ => self.reading.unknown(
                        &path,
                        &node.origin,
                        format!("expected one of {}", SCOPES.join(", ")),
                    ),
                },
                None => self.reading.unknown(
                    &path,
                    &node.origin,
                    format!("unknown key{}", suggest(key, "keys", fields)),
                ),
            }
        }
    }

    /// A name at the root that is not a key. In a Python config it is as good as any; elsewhere
    /// something has to refer to it.
    fn check_name(&self, names: &Names, key: &str, node: &Node, fields: &[&'static str]) {
        let Names { variables, usual } = names;
        let stale = variables.stale.get(key);
        let used = variables.names.contains(key);
        if used && stale.is_none() {
            return;
        }
        let path = Path::Key(self.path, key);
        let origin = stale.unwrap_or(&node.origin);
        let python = origin.source().ends_with(".py");
        if used || origin.is_command_line() && usual.contains(&key) {
            let text = "no value refers to this name any more; set the values themselves";
            if python {
                self.reading.remark(origin, format!("{key}: {text}"));
            } else {
                self.reading.unknown(&path, origin, text.to_owned());
            }
            return;
        }
        if usual.contains(&key) {
            return;
        }
        if !python {
            return self.reading.unknown(
                &path,
                origin,
                format!("unknown key{}", suggest(key, "keys", fields)),
            );
        }
        let near = nearest(key, fields.iter().copied())
            .filter(|it| strsim::damerau_levenshtein(key, it) <= SLIP);
        if let Some(meant) = near {
            self.reading.remark(origin, format!("nothing uses `{key}`; did you mean `{meant}`?"));
        }
    }
}

impl<'de> de::Deserializer<'de> for Deserializer<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let result = match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(value) => visitor.visit_str(value),
            Value::List(items) => return self.visit_list(items, visitor),
            Value::Map(map) => visitor.visit_map(self.entries(map, None)),
        };
        self.place(result)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.value {
            Value::Null => self.place(visitor.visit_none()),
            _ => self.place(visitor.visit_some(self)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name.starts_with(own::VARIANT) {
            let of = self
                .node
                .as_map()
                .and_then(|it| it.get(TYPE))
                .and_then(Node::as_str)
                .unwrap_or_default();
            return own::read(name, without_scope(of), self)
                .and_then(|()| self.place(visitor.visit_unit()));
        }
        match &self.node.value {
            Value::List(items) if name == VALUE_OR_LIST => self.visit_list(items, visitor),
            Value::Null if name == VALUE_OR_LIST => self.place(visitor.visit_unit()),
            _ => self.place(visitor.visit_newtype_struct(self)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::List(items) if items.len() != length => self.place(Err(Fault::new(format!(
                "expected a list of {length}, found a list of {}",
                items.len()
            )))),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name != BOTH {
            return self.deserialize_tuple(length, visitor);
        }
        let Value::Map(map) = &self.node.value else {
            return self.place(Err(de::Error::invalid_type(self.unexpected(), &"a mapping")));
        };
        let keys = RefCell::default();
        let part = Some(self.part.unwrap_or(&keys));
        let result = visitor.visit_seq(Halves { of: Deserializer { part, ..self }, left: length });
        // Where a half was not read to its end, the other's keys are not known yet.
        if self.part.is_none() && result.is_ok() {
            self.check_keys(map, &keys.borrow());
        }
        self.place(result)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Map(map) => {
                match self.part {
                    Some(keys) => keys.borrow_mut().extend(fields),
                    None => self.check_keys(map, fields),
                }
                self.place(visitor.visit_map(self.entries(map, Some(fields))))
            }
            // A list would fill a struct by position, which no config means.
            _ => self.place(Err(de::Error::invalid_type(self.unexpected(), &"a mapping"))),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        slot: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let names = || own::names(slot, variants).join(", ");
        let result = match &self.node.value {
            Value::Map(map) => match map.get(TYPE) {
                None => {
                    Err(Fault::new(format!("the key `type` is missing (valid types: {})", names())))
                }
                Some(name) => visitor.visit_enum(Choice {
                    payload: self,
                    name,
                    path: &Path::Key(self.path, TYPE),
                    slot,
                    variants,
                }),
            },
            Value::String(_) => visitor.visit_enum(Choice {
                payload: self,
                name: self.node,
                path: self.path,
                slot,
                variants,
            }),
            other => {
                Err(Fault::new(format!("expected one of {}, found {}", names(), other.describe())))
            }
        };
        self.place(result)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.value {
            Value::Float(value) if value.is_nan() => self.place(Err(de::Error::invalid_value(
                self.unexpected(),
                &"a number other than NaN",
            ))),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_f64(visitor)
    }

    whole_numbers! { deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 }

    forward_to_deserialize_any! {
        bool i128 u128 char str string bytes byte_buf unit unit_struct seq map identifier
    }
}

/// The same mapping for each of the structs that share it.
struct Halves<'a> {
    of: Deserializer<'a>,
    left: usize,
}

impl<'de> de::SeqAccess<'de> for Halves<'_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(self.of).map(Some)
    }
}

/// A list's items.
struct Items<'a> {
    iter: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
    path: &'a Path<'a>,
    reading: &'a Reading<'a>,
}

impl<'de> de::SeqAccess<'de> for &mut Items<'_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        let Some((index, node)) = self.iter.next() else { return Ok(None) };
        read(node, &Path::Index(self.path, index), self.reading, seed).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.iter.len())
    }
}

/// Reads the value at `path`, or what stands in for it.
fn read<'de, S: DeserializeSeed<'de>>(
    node: &Node,
    path: &Path<'_>,
    reading: &Reading<'_>,
    seed: S,
) -> Result<S::Value, Fault> {
    let deserializer = Deserializer { node, path, typed: false, root: false, part: None, reading };
    deserializer.place(if reading.stands_in(path) {
        seed.deserialize(Anything::new())
    } else {
        seed.deserialize(deserializer)
    })
}

/// A mapping's entries, without `type` where it has been read.
struct Entries<'a> {
    map: &'a Map,
    iter: indexmap::map::Iter<'a, String, Node>,
    /// Fields that may have to be made up.
    absent: std::slice::Iter<'static, &'static str>,
    path: &'a Path<'a>,
    /// A struct's keys; any others have been looked at, and are left out.
    fields: Option<&'static [&'static str]>,
    typed: bool,
    root: bool,
    reading: &'a Reading<'a>,
    /// The entry whose value comes next; no node where it is made up.
    value: Option<(&'a str, Option<&'a Node>)>,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        let (fields, typed, root) = (self.fields, self.typed, self.root);
        let wanted = |key: &str, node: &Node| match fields {
            // As mmengine's runner has it, a section that is null is one that is left out.
            Some(fields) => fields.contains(&key) && !(root && node.value == Value::Null),
            None => !(typed && (key == TYPE || key == SCOPE)),
        };
        if let Some((key, node)) = self.iter.find(|(key, node)| wanted(key, node)) {
            self.value = Some((key, Some(node)));
            return seed
                .deserialize(Key(key))
                .map(Some)
                .map_err(|fault| fault.at(&Path::Key(self.path, key), &node.origin));
        }
        let (map, path, reading) = (self.map, self.path, self.reading);
        let missing = self
            .absent
            .find(|key| !map.contains_key(**key) && reading.stands_in(&Path::Key(path, key)));
        let Some(key) = missing else { return Ok(None) };
        self.value = Some((key, None));
        seed.deserialize(Key(key)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let (key, node) =
            self.value.take().ok_or_else(|| Fault::new("a value was asked for before its key"))?;
        match node {
            Some(node) => read(node, &Path::Key(self.path, key), self.reading, seed),
            None => seed.deserialize(Anything::new()),
        }
    }
}

/// A key: text, or a number where the mapping's keys are numbers.
struct Key<'a>(&'a str);

impl<'de> de::Deserializer<'de> for Key<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(self.0)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.parse() {
            Ok(number) => visitor.visit_i64(number),
            Err(_) => visitor.visit_str(self.0),
        }
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let key: StrDeserializer<'_, Fault> = self.0.into_deserializer();
        key.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i128 u16 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

/// A type's name alone: without the registry in front (`mmseg.PSPHead`), or the module
/// (`mmseg.models.decode_heads.PSPHead`).
fn without_scope(name: &str) -> &str {
    match (name.split_once('.'), name.rsplit_once('.')) {
        (Some((scope, _)), Some((_, own))) if SCOPES.contains(&scope) => own,
        _ => name,
    }
}

/// An enum's variant: chosen by `name`, filled from `payload`.
struct Choice<'a> {
    payload: Deserializer<'a>,
    name: &'a Node,
    path: &'a Path<'a>,
    slot: &'static str,
    variants: &'static [&'static str],
}

impl<'a> Choice<'a> {
    /// The payload as a mapping; a bare name has none.
    fn mapping(&self) -> Result<(&'a Map, Deserializer<'a>), Fault> {
        let payload = Deserializer { typed: true, root: false, ..self.payload };
        match &self.payload.node.value {
            Value::Map(map) => Ok((map, payload)),
            other => Err(Fault::new(format!(
                "expected a mapping with `type`, found {}",
                other.describe()
            ))),
        }
    }
}

impl<'de, 'a> de::EnumAccess<'de> for Choice<'a> {
    type Error = Fault;
    type Variant = Choice<'a>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Fault> {
        let valid = || own::names(self.slot, self.variants);
        let Some(name) = self.name.as_str() else {
            let text = format!(
                "expected a name, found {} (valid types: {})",
                self.name.value.describe(),
                valid().join(", ")
            );
            return Err(Fault {
                spoils: Some(self.payload.path.to_string()),
                ..Fault::new(text).at(self.path, &self.name.origin)
            });
        };
        let own = without_scope(name);
        let variant = match own {
            // No name for a config to write.
            own::VARIANT => "",
            own if own::has(self.slot, own) => own::VARIANT,
            own => own,
        };
        let chosen = seed.deserialize(Key(variant)).map_err(|_| {
            let valid = valid();
            let kind = if self.payload.node.as_map().is_some() {
                ("type", "types")
            } else {
                ("value", "values")
            };
            let last = own.rsplit('.').next().unwrap_or(own);
            let text = match absent::note(last) {
                Some(note) => format!(
                    "segslurm has no `{last}`{note} (valid {}: {})",
                    kind.1,
                    valid.join(", ")
                ),
                None if kind.0 == "type" && nearest(last, valid.iter().copied()).is_none() => {
                    let (instead, valid) = (absent::instead(&valid), valid.join(", "));
                    format!("unknown type `{name}`{instead} (valid types: {valid})")
                }
                None => format!("unknown {} `{name}`{}", kind.0, suggest(last, kind.1, &valid)),
            };
            Fault {
                spoils: Some(self.payload.path.to_string()),
                ..Fault::new(text).at(self.path, &self.name.origin)
            }
        })?;
        Ok((chosen, self))
    }
}

impl<'de> de::VariantAccess<'de> for Choice<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.mapping() {
            Ok((map, payload)) => {
                payload.check_keys(map, &[]);
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        let (_, payload) = self.mapping()?;
        payload.place(seed.deserialize(payload))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Fault> {
        Err(Fault::new("a type with a list of values cannot be written in a config"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let (_, payload) = self.mapping()?;
        de::Deserializer::deserialize_struct(payload, "", fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use crate::config::parse_str;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct ResNetConfig {
        depth: usize,
        strides: [usize; 4],
        norm_eval: bool,
        momentum: f64,
        pretrained: Option<String>,
    }

    impl Default for ResNetConfig {
        fn default() -> Self {
            Self {
                depth: 50,
                strides: [1, 2, 2, 2],
                norm_eval: false,
                momentum: 0.1,
                pretrained: None,
            }
        }
    }

    #[derive(Debug, Deserialize, PartialEq)]
    enum Act {
        ReLU(NoKeys),
        Identity,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct NoKeys {}

    #[derive(Debug, Deserialize, PartialEq)]
    enum Backbone {
        ResNet(ResNetConfig),
        ResNetV1c(ResNetConfig),
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        Whole,
        Slide,
    }

    // No `deny_unknown_fields` on purpose.
    #[derive(Debug, Deserialize, PartialEq)]
    struct Model {
        backbone: Backbone,
        mode: Option<Mode>,
        act: Option<Act>,
        label_map: Option<std::collections::BTreeMap<u8, u8>>,
    }

    fn error(text: &str) -> String {
        parse_str::<Model>(text).expect_err("the text is wrong").to_string()
    }

    #[test]
    fn a_float_that_is_whole_is_a_whole_number() {
        let model = |text: &str| parse_str::<Model>(text);
        let text = "{backbone: {type: ResNet, depth: 5e1, strides: [1.0, 2, 2, 2]}}";
        assert_eq!(
            model(text).expect("whole"),
            model("{backbone: {type: ResNet, depth: 50, strides: [1, 2, 2, 2]}}").expect("whole")
        );
        assert!(model("{backbone: {type: ResNet, depth: 1e300}}").is_err());
    }

    #[test]
    fn type_picks_the_variant_and_the_rest_is_its_payload() {
        let text = "backbone:\n  depth: 18\n  type: ResNetV1c\n  momentum: 1\nmode: slide\nact: \
                    {type: ReLU}\nlabel_map: {0: 1}";
        let model: Model = parse_str(text).expect("parses");
        let backbone = Backbone::ResNetV1c(ResNetConfig {
            depth: 18,
            momentum: 1.0,
            ..ResNetConfig::default()
        });
        let label_map = Some(std::iter::once((0, 1)).collect());
        assert_eq!(
            model,
            Model { backbone, mode: Some(Mode::Slide), act: Some(Act::ReLU(NoKeys {})), label_map }
        );
        let text = "backbone: {type: ResNet, pretrained: None}\nmode: null\nact: {type: Identity}";
        let model: Model = parse_str(text).expect("parses");
        assert_eq!(model.backbone, Backbone::ResNet(ResNetConfig::default()));
        assert_eq!((model.mode, model.act), (None, Some(Act::Identity)));
    }

    #[test]
    fn errors_name_the_line_the_path_the_expected_and_the_nearest() {
        let wrong = [
            "backbone:\n  type: ResNet\n  depht: 50",
            "backbone:\n  type: ResNett",
            "backbone:\n  depth: 50",
            "backbone:\n  type: 5",
            "backbone: ResNet",
            "backbone: [1]",
            "backbone:\n  type: ResNet\n  depth: fifty",
            "backbone:\n  type: ResNet\n  depth: 50.5",
            "backbone:\n  type: ResNet\n  depth: -1",
            "backbone:\n  type: ResNet\n  norm_eval: 1",
            "backbone:\n  type: ResNet\n  momentum: true",
            "backbone:\n  type: ResNet\n  strides: [1, 2]",
            "backbone:\n  type: ResNet\n  strides: [1, 2, 2, 2, 2]",
            "backbone:\n  type: ResNet\n  strides:\n  - 1\n  - 2\n  - two\n  - 2",
            "backbone:\n  type: ResNet\n  strides: 1",
            "backbone:\n  type: ResNet\n  pretrained: {}",
            "backbone: {type: ResNet}\nmode: slid",
            "backbone: {type: ResNet}\nact: {type: Identity, inplace: true}",
            "backbone: {type: ResNet}\nact: {type: ReLU, inplace: true}",
            "backbone: {type: ResNet}\nlabel_map: {a: 1}",
            "backbone: {type: ResNet}\nbackbon: 1",
            "mode: whole",
        ];
        let report: Vec<String> = wrong.iter().map(|it| error(it)).collect();
        insta::assert_snapshot!(report.join("\n"));
    }
}
