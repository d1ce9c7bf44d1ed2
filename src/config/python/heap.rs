//! The values that a Python config computes. Lists and dicts are shared by everyone who took them,
//! as in Python, so they lie in one place and are named by number. Whatever is made is paid for
//! from one budget: `a = [a, a]` doubles with every line.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use indexmap::{IndexMap, IndexSet};

use super::super::node::{self, MAX_DEPTH, Map, Node, Origin};
use super::format;

/// What a config may compute, in steps, values and pieces of text.
const BUDGET: usize = 1_000_000;

/// A value, or what is wrong; whoever asked knows the line.
pub(super) type Outcome<T> = Result<T, String>;

#[derive(Debug, Clone)]
pub(super) enum Object {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<str>),
    Sequence(Kind, usize),
    Dict(usize),
    Set(usize),
    /// One of Python's own functions.
    Function(&'static str),
}

/// What Python calls a sequence of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    List,
    Tuple,
    /// A base does not tell lists from tuples.
    Either,
    /// `range(…)`, or the keys of a dict: read like a list.
    View,
    /// `zip(…)` and its kind: gone once it was read.
    Stream,
}

/// A value in its place, and the line that put it there.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) object: Object,
    pub(super) origin: Origin,
}

impl Item {
    pub(super) fn new(object: Object, origin: &Origin) -> Self {
        Self { object, origin: origin.clone() }
    }
}

/// What finds a value in a dict. `True`, `1` and `1.0` find the same.
#[derive(Debug, Clone)]
pub(super) enum Key {
    None,
    Bool(bool),
    Int(i64),
    /// Its bits.
    Float(u64),
    Text(Rc<str>),
    Tuple(Vec<Key>),
}

impl Key {
    fn number(&self) -> Option<Number> {
        match self {
            Self::Bool(value) => Some(Number::Int((*value).into())),
            Self::Int(value) => Some(Number::Int(*value)),
            Self::Float(bits) => match f64::from_bits(*bits) {
                value if value.fract() == 0.0 && value.abs() < 9e18 => {
                    Some(Number::Int(value as i64))
                }
                value => Some(Number::Float(value)),
            },
            _ => None,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Text(left), Self::Text(right)) => left == right,
            (Self::Tuple(left), Self::Tuple(right)) => left == right,
            _ => self.number().is_some_and(|left| other.number() == Some(left)),
        }
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match (self, self.number()) {
            (_, Some(Number::Int(value))) => value.hash(state),
            (_, Some(Number::Float(value))) => value.to_bits().hash(state),
            (Self::Text(text), _) => text.hash(state),
            (Self::Tuple(keys), _) => keys.hash(state),
            _ => {}
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Dict {
    pub(super) items: IndexMap<Key, Item>,
    /// A dict of the bases, whose values are attributes too. It copies what is put into it.
    pub(super) of_bases: bool,
}

#[derive(Debug)]
pub(super) struct Heap {
    sequences: Vec<Vec<Item>>,
    dicts: Vec<Dict>,
    sets: Vec<IndexSet<Key>>,
    left: usize,
}

impl Heap {
    pub(super) fn new() -> Self {
        Self { sequences: Vec::new(), dicts: Vec::new(), sets: Vec::new(), left: BUDGET }
    }

    pub(super) fn spend(&mut self, weight: usize) -> Outcome<()> {
        let left = self.left.checked_sub(weight);
        self.left = left.unwrap_or(0);
        left.map(|_| ()).ok_or_else(|| "this computes too much for a config".into())
    }

    /// Whether nothing more can be computed.
    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }

    pub(super) fn text(&mut self, text: impl Into<Rc<str>>) -> Outcome<Object> {
        let text = text.into();
        self.spend(1 + text.len() / 32)?;
        Ok(Object::Text(text))
    }

    pub(super) fn sequence(&mut self, kind: Kind, items: Vec<Item>) -> Outcome<Object> {
        self.spend(1 + items.len())?;
        self.sequences.push(items);
        Ok(Object::Sequence(kind, self.sequences.len() - 1))
    }

    pub(super) fn dict(&mut self, items: IndexMap<Key, Item>) -> Outcome<Object> {
        self.spend(1 + items.len())?;
        Ok(self.push_dict(Dict { items, of_bases: false }))
    }

    pub(super) fn set(&mut self, keys: IndexSet<Key>) -> Outcome<Object> {
        self.spend(1 + keys.len())?;
        self.sets.push(keys);
        Ok(Object::Set(self.sets.len() - 1))
    }

    fn push_dict(&mut self, dict: Dict) -> Object {
        self.dicts.push(dict);
        Object::Dict(self.dicts.len() - 1)
    }

    pub(super) fn items(&self, id: usize) -> &Vec<Item> {
        &self.sequences[id]
    }

    pub(super) fn items_mut(&mut self, id: usize) -> &mut Vec<Item> {
        &mut self.sequences[id]
    }

    pub(super) fn entries(&self, id: usize) -> &Dict {
        &self.dicts[id]
    }

    pub(super) fn entries_mut(&mut self, id: usize) -> &mut Dict {
        &mut self.dicts[id]
    }

    pub(super) fn keys(&self, id: usize) -> &IndexSet<Key> {
        &self.sets[id]
    }

    /// Puts a value into a dict.
    pub(super) fn insert(&mut self, id: usize, key: Key, mut item: Item) -> Outcome<()> {
        self.spend(1)?;
        if self.dicts[id].of_bases {
            item.object = self.adopted(&item.object, 0)?;
        }
        self.dicts[id].items.insert(key, item);
        Ok(())
    }

    /// What a dict of the bases holds in place of a value: its own copy of lists and of dicts that
    /// are not of the bases yet.
    pub(super) fn adopted(&mut self, object: &Object, depth: usize) -> Outcome<Object> {
        level(depth)?;
        match *object {
            Object::Sequence(kind, id) => {
                let mut items = self.sequences[id].clone();
                for item in &mut items {
                    item.object = self.adopted(&item.object, depth + 1)?;
                }
                self.sequence(kind, items)
            }
            Object::Dict(id) if !self.dicts[id].of_bases => {
                let mut items = self.dicts[id].items.clone();
                for item in items.values_mut() {
                    item.object = self.adopted(&item.object, depth + 1)?;
                }
                self.spend(1 + items.len())?;
                Ok(self.push_dict(Dict { items, of_bases: true }))
            }
            _ => Ok(object.clone()),
        }
    }

    pub(super) fn truth(&self, object: &Object) -> bool {
        match object {
            Object::None => false,
            Object::Bool(value) => *value,
            Object::Int(value) => *value != 0,
            Object::Float(value) => *value != 0.0,
            Object::Text(text) => !text.is_empty(),
            Object::Sequence(Kind::Stream, _) | Object::Function(_) => true,
            Object::Sequence(_, id) => !self.sequences[*id].is_empty(),
            Object::Dict(id) => !self.dicts[*id].items.is_empty(),
            Object::Set(id) => !self.sets[*id].is_empty(),
        }
    }

    /// How an error names a value.
    pub(super) fn describe(&self, object: &Object) -> String {
        let count = |one: &str, count: usize| format!("{one} of {count}");
        match object {
            Object::None => "None".into(),
            Object::Bool(value) => format!("the boolean {}", if *value { "True" } else { "False" }),
            Object::Int(value) => format!("the integer {value}"),
            Object::Float(value) => format!("the number {}", format::float(*value)),
            Object::Text(text) if text.chars().count() > 60 => {
                format!("the string {:?}…", text.chars().take(50).collect::<String>())
            }
            Object::Text(text) => format!("the string {text:?}"),
            Object::Sequence(Kind::List | Kind::Either, id) => {
                count("a list", self.sequences[*id].len())
            }
            Object::Sequence(Kind::Tuple, id) => count("a tuple", self.sequences[*id].len()),
            Object::Sequence(Kind::View, id) => count("a range or view", self.sequences[*id].len()),
            Object::Sequence(Kind::Stream, _) => "an iterator".into(),
            Object::Dict(_) => "a dict".into(),
            Object::Set(_) => "a set".into(),
            Object::Function(name) => format!("the function `{name}`"),
        }
    }

    /// The values that a loop over `object` meets.
    pub(super) fn iterate(&mut self, object: &Object, here: &Origin) -> Outcome<Vec<Item>> {
        let items = match object {
            Object::Sequence(Kind::Stream, id) => std::mem::take(&mut self.sequences[*id]),
            Object::Sequence(_, id) => self.sequences[*id].clone(),
            Object::Text(text) => {
                self.spend(text.len())?;
                text.chars()
                    .map(|it| Item::new(Object::Text(it.to_string().into()), here))
                    .collect()
            }
            Object::Dict(id) => {
                let keys: Vec<Key> = self.dicts[*id].items.keys().cloned().collect();
                self.key_items(keys, here)?
            }
            Object::Set(id) => {
                let keys: Vec<Key> = self.sets[*id].iter().cloned().collect();
                self.key_items(keys, here)?
            }
            other => return Err(format!("expected a list, found {}", self.describe(other))),
        };
        self.spend(items.len())?;
        Ok(items)
    }

    fn key_items(&mut self, keys: Vec<Key>, here: &Origin) -> Outcome<Vec<Item>> {
        keys.into_iter().map(|key| Ok(Item::new(self.key_object(key, here)?, here))).collect()
    }

    pub(super) fn key(&mut self, object: &Object) -> Outcome<Key> {
        self.key_below(object, 0)
    }

    fn key_below(&mut self, object: &Object, depth: usize) -> Outcome<Key> {
        level(depth)?;
        self.spend(1)?;
        Ok(match object {
            Object::None => Key::None,
            Object::Bool(value) => Key::Bool(*value),
            Object::Int(value) => Key::Int(*value),
            Object::Float(value) if !value.is_nan() => Key::Float(value.to_bits()),
            Object::Text(text) => Key::Text(Rc::clone(text)),
            Object::Sequence(Kind::Tuple | Kind::Either, id) => {
                let items = self.sequences[*id].clone();
                Key::Tuple(
                    items
                        .iter()
                        .map(|it| self.key_below(&it.object, depth + 1))
                        .collect::<Outcome<_>>()?,
                )
            }
            other => return Err(format!("{} cannot be a key", self.describe(other))),
        })
    }

    pub(super) fn key_object(&mut self, key: Key, here: &Origin) -> Outcome<Object> {
        Ok(match key {
            Key::None => Object::None,
            Key::Bool(value) => Object::Bool(value),
            Key::Int(value) => Object::Int(value),
            Key::Float(bits) => Object::Float(f64::from_bits(bits)),
            Key::Text(text) => Object::Text(text),
            Key::Tuple(keys) => {
                let items = self.key_items(keys, here)?;
                self.sequence(Kind::Tuple, items)?
            }
        })
    }

    pub(super) fn equal(&mut self, left: &Object, right: &Object) -> Outcome<bool> {
        self.equal_below(left, right, 0)
    }

    fn equal_below(&mut self, left: &Object, right: &Object, depth: usize) -> Outcome<bool> {
        level(depth)?;
        self.spend(1)?;
        if let (Some(left), Some(right)) = (number(left), number(right)) {
            return Ok(left.order(right) == Some(Ordering::Equal));
        }
        Ok(match (left, right) {
            (Object::None, Object::None) => true,
            (Object::Text(left), Object::Text(right)) => left == right,
            (Object::Function(left), Object::Function(right)) => left == right,
            (Object::Sequence(one, left), Object::Sequence(other, right)) => {
                let alike = one == other
                    || matches!(
                        (one, other),
                        (Kind::Either, Kind::List | Kind::Tuple)
                            | (Kind::List | Kind::Tuple, Kind::Either)
                    );
                if !alike || self.sequences[*left].len() != self.sequences[*right].len() {
                    return Ok(false);
                }
                for index in 0..self.sequences[*left].len() {
                    let (one, other) = (
                        self.sequences[*left][index].object.clone(),
                        self.sequences[*right][index].object.clone(),
                    );
                    if !self.equal_below(&one, &other, depth + 1)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Object::Dict(left), Object::Dict(right)) => {
                if self.dicts[*left].items.len() != self.dicts[*right].items.len() {
                    return Ok(false);
                }
                for (key, item) in self.dicts[*left].items.clone() {
                    let Some(other) =
                        self.dicts[*right].items.get(&key).map(|it| it.object.clone())
                    else {
                        return Ok(false);
                    };
                    if !self.equal_below(&item.object, &other, depth + 1)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Object::Set(left), Object::Set(right)) => self.sets[*left] == self.sets[*right],
            _ => false,
        })
    }

    /// Which of two values comes first; those of different kinds have no order.
    pub(super) fn order(&mut self, left: &Object, right: &Object) -> Outcome<Ordering> {
        self.order_below(left, right, 0)
    }

    fn order_below(&mut self, left: &Object, right: &Object, depth: usize) -> Outcome<Ordering> {
        level(depth)?;
        self.spend(1)?;
        let order = match (left, right) {
            (Object::Text(left), Object::Text(right)) => Some(left.chars().cmp(right.chars())),
            (Object::Sequence(_, left), Object::Sequence(_, right)) => {
                let (left, right) = (self.sequences[*left].clone(), self.sequences[*right].clone());
                for (one, other) in left.iter().zip(&right) {
                    if !self.equal_below(&one.object, &other.object, depth + 1)? {
                        return self.order_below(&one.object, &other.object, depth + 1);
                    }
                }
                Some(left.len().cmp(&right.len()))
            }
            _ => number(left).zip(number(right)).and_then(|(left, right)| left.order(right)),
        };
        order.ok_or_else(|| {
            format!("{} and {} have no order", self.describe(left), self.describe(right))
        })
    }

    /// The bases, as the dicts that `_base_` gives access to.
    pub(super) fn bases(&mut self, bases: &Node) -> Object {
        match &bases.value {
            node::Value::Null => Object::None,
            node::Value::Bool(value) => Object::Bool(*value),
            node::Value::Int(value) => Object::Int(*value),
            node::Value::Float(value) => Object::Float(*value),
            node::Value::String(text) => Object::Text(text.as_str().into()),
            node::Value::List(nodes) => {
                let items = nodes.iter().map(|it| Item::new(self.bases(it), &it.origin)).collect();
                self.sequences.push(items);
                Object::Sequence(Kind::Either, self.sequences.len() - 1)
            }
            node::Value::Map(map) => {
                let entries = map.iter().map(|(key, it)| {
                    (Key::Text(key.as_str().into()), Item::new(self.bases(it), &it.origin))
                });
                let items = entries.collect();
                self.push_dict(Dict { items, of_bases: true })
            }
        }
    }

    /// A value as a part of a config.
    pub(super) fn node(&mut self, item: &Item, depth: usize) -> Outcome<Node> {
        level(depth)?;
        let value = match &item.object {
            Object::None => node::Value::Null,
            Object::Bool(value) => node::Value::Bool(*value),
            Object::Int(value) => node::Value::Int(*value),
            Object::Float(value) => node::Value::Float(*value),
            Object::Text(text) => {
                self.spend(text.len() / 32)?;
                node::Value::String(text.to_string())
            }
            Object::Sequence(Kind::Stream, _) => {
                return Err("an iterator is no value of a config; write `list(…)` around it".into());
            }
            Object::Sequence(_, id) => {
                let items = self.sequences[*id].clone();
                node::Value::List(
                    items.iter().map(|it| self.node(it, depth + 1)).collect::<Outcome<_>>()?,
                )
            }
            Object::Dict(id) => node::Value::Map(self.map(*id, depth + 1)?),
            Object::Set(_) => {
                return Err("a set has no order, so it is no value of a config; write a list, or \
                            `sorted(…)`"
                    .into());
            }
            Object::Function(name) => {
                return Err(format!("`{name}` is a function and no value of a config"));
            }
        };
        self.spend(1)?;
        Ok(Node::new(value, item.origin.clone()))
    }

    fn map(&mut self, id: usize, depth: usize) -> Outcome<Map> {
        let mut map = Map::new();
        for (key, item) in self.dicts[id].items.clone() {
            let name = match key {
                Key::Text(text) => text.to_string(),
                Key::Int(value) => value.to_string(),
                Key::Bool(value) => if value { "True" } else { "False" }.to_owned(),
                Key::Float(bits) => format::float(f64::from_bits(bits)),
                Key::None | Key::Tuple(_) => {
                    return Err("a key of a config is a word or a number".into());
                }
            };
            map.insert(name, self.node(&item, depth)?);
        }
        Ok(map)
    }
}

/// Whoever walks values recurses.
pub(super) fn level(depth: usize) -> Outcome<()> {
    if depth > MAX_DEPTH {
        Err(format!("values nest more than {MAX_DEPTH} levels deep"))
    } else {
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
}

/// A value that Python computes with; its booleans are numbers.
pub(super) fn number(object: &Object) -> Option<Number> {
    match object {
        Object::Bool(value) => Some(Number::Int((*value).into())),
        Object::Int(value) => Some(Number::Int(*value)),
        Object::Float(value) => Some(Number::Float(*value)),
        _ => None,
    }
}

impl Number {
    pub(super) fn float(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    /// Exact, where a large integer would be rounded to a float.
    fn order(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(left), Self::Int(right)) => Some(left.cmp(&right)),
            (Self::Float(left), Self::Float(right)) => left.partial_cmp(&right),
            (Self::Float(_), Self::Int(_)) => other.order(self).map(Ordering::reverse),
            (Self::Int(left), Self::Float(right)) => {
                if right.is_nan() {
                    None
                } else if right >= i64::MAX as f64 {
                    Some(Ordering::Less)
                } else if right < i64::MIN as f64 {
                    Some(Ordering::Greater)
                } else {
                    Some(left.cmp(&(right as i64)).then(0.0.partial_cmp(&right.fract())?))
                }
            }
        }
    }
}
