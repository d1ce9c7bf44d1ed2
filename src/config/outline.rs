//! What may stand in a section: every key and every `type`, asked of the serde types themselves.
//! The documentation is held to it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use super::own::VARIANT;
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

/// Types and keys by their places: `model.backbone` has types, `model.backbone(ResNet)` has keys.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Outline {
    pub(crate) types: BTreeMap<String, &'static [&'static str]>,
    pub(crate) keys: BTreeMap<String, Vec<&'static str>>,
}

/// The outline of `T`.
pub(crate) fn outline<T: DeserializeOwned>() -> Outline {
    let mut outline = Outline::default();
    let mut waiting: Vec<BTreeMap<String, usize>> = vec![BTreeMap::new()];
    let mut shapes = BTreeMap::new();
    while let Some(choices) = waiting.pop() {
        let found = loop {
            let state = State { choices: &choices, shapes: &shapes, found: RefCell::default() };
            let root = Explorer { path: String::new(), above: Vec::new(), state: &state };
            match T::deserialize(root) {
                Ok(_) => break state.found.into_inner(),
                // Another kind of value may be what is wanted there.
                Err(Stuck { path, message }) => {
                    let shape = shapes.entry(path.clone()).or_insert(0);
                    *shape += 1;
                    assert!(*shape < SHAPES, "nothing fits at {path}: {message}");
                }
            }
        };
        for (path, types) in found.types {
            if outline.types.insert(path.clone(), types).is_none() {
                // What lies on the way to this place was chosen; the place's own further types are
                // to be looked at.
                waiting.extend((1..types.len()).map(|index| {
                    let mut choices = choices.clone();
                    choices.insert(path.clone(), index);
                    choices
                }));
            }
        }
        outline.keys.extend(found.keys);
    }
    outline
}

/// So many kinds of values are tried where a type asks for any.
const SHAPES: usize = 7;

struct State<'a> {
    /// Which of the types at a place is looked at, where it is not the first.
    choices: &'a BTreeMap<String, usize>,
    /// Which kind of value is handed to a type that takes any.
    shapes: &'a BTreeMap<String, usize>,
    found: RefCell<Outline>,
}

/// A value that no type took.
#[derive(Debug)]
struct Stuck {
    path: String,
    message: String,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl std::error::Error for Stuck {}

impl de::Error for Stuck {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { path: String::new(), message: message.to_string() }
    }
}

#[derive(Clone)]
struct Explorer<'a> {
    path: String,
    /// The lists of types that lead here: a dataset of datasets is not entered again.
    above: Vec<&'static [&'static str]>,
    state: &'a State<'a>,
}

impl Explorer<'_> {
    fn below(&self, step: &str) -> Self {
        let path =
            if self.path.is_empty() { step.to_owned() } else { format!("{}.{step}", self.path) };
        Self { path, ..self.clone() }
    }

    fn place<T>(&self, result: Result<T, Stuck>) -> Result<T, Stuck> {
        result.map_err(|it| {
            if it.path.is_empty() { Stuck { path: self.path.clone(), ..it } } else { it }
        })
    }
}

impl<'de> de::Deserializer<'de> for Explorer<'_> {
    type Error = Stuck;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stuck> {
        let shape = self.state.shapes.get(&self.path).copied().unwrap_or(0);
        let result = match shape {
            0 => visitor.visit_i64(1),
            1 => visitor.visit_f64(0.5),
            2 => visitor.visit_bool(false),
            3 => visitor.visit_str("a"),
            4 => visitor.visit_unit(),
            5 => visitor.visit_seq(One(Some(self.clone()))),
            _ => visitor.visit_map(Fields { names: &[], of: self.clone(), next: None }),
        };
        self.place(result)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stuck> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stuck> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stuck> {
        // Some texts have to have a place for a number.
        let shape = self.state.shapes.get(&self.path).copied().unwrap_or(0);
        let result = visitor.visit_str(if shape == 0 { "" } else { "{}" });
        self.place(result)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stuck> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stuck> {
        visitor.visit_bool(false)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stuck> {
        visitor.visit_f64(0.5)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stuck> {
        visitor.visit_seq(One(Some(self)))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Stuck> {
        visitor.visit_seq(Several { left: length, of: self })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Stuck> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stuck> {
        visitor.visit_map(Fields { names: &["1"], of: self, next: None })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stuck> {
        let mut found = self.state.found.borrow_mut();
        let keys = found.keys.entry(self.path.clone()).or_default();
        // One mapping may be read as two structs.
        keys.extend(names.iter().filter(|it| !keys.contains(it)).copied().collect::<Vec<_>>());
        drop(found);
        let result = visitor.visit_map(Fields { names, of: self.clone(), next: None });
        self.place(result)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        types: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stuck> {
        // What people bring themselves is in no document of ours; it stands last.
        let types = types.strip_suffix(&[VARIANT]).unwrap_or(types);
        let mut chosen = 0;
        if !self.above.contains(&types) {
            self.state.found.borrow_mut().types.insert(self.path.clone(), types);
            chosen = self.state.choices.get(&self.path).copied().unwrap_or(0);
        }
        let name = types[chosen];
        let mut payload = Self { path: format!("{}({name})", self.path), ..self.clone() };
        payload.above.push(types);
        visitor.visit_enum(Variant { name, payload })
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 char bytes byte_buf unit unit_struct identifier ignored_any
    }
}

/// A list of one.
struct One<'a>(Option<Explorer<'a>>);

impl<'de> de::SeqAccess<'de> for One<'_> {
    type Error = Stuck;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stuck> {
        self.0.take().map(|it| seed.deserialize(it)).transpose()
    }
}

struct Several<'a> {
    left: usize,
    of: Explorer<'a>,
}

impl<'de> de::SeqAccess<'de> for Several<'_> {
    type Error = Stuck;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stuck> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(self.of.clone()).map(Some)
    }
}

struct Fields<'a> {
    names: &'static [&'static str],
    of: Explorer<'a>,
    next: Option<&'static str>,
}

impl<'de> de::MapAccess<'de> for Fields<'_> {
    type Error = Stuck;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stuck> {
        let Some((first, rest)) = self.names.split_first() else { return Ok(None) };
        (self.names, self.next) = (rest, Some(*first));
        let key: StrDeserializer<'_, Stuck> = first.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stuck> {
        let value = self.of.below(self.next.unwrap_or_default());
        value.place(seed.deserialize(value.clone()))
    }
}

struct Variant<'a> {
    name: &'static str,
    payload: Explorer<'a>,
}

impl<'de, 'a> de::EnumAccess<'de> for Variant<'a> {
    type Error = Stuck;
    type Variant = Explorer<'a>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Explorer<'a>), Stuck> {
        let name: StrDeserializer<'_, Stuck> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self.payload))
    }
}

impl<'de> de::VariantAccess<'de> for Explorer<'_> {
    type Error = Stuck;

    fn unit_variant(self) -> Result<(), Stuck> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Stuck> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Stuck> {
        de::Deserializer::deserialize_tuple(self, length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stuck> {
        de::Deserializer::deserialize_struct(self, "", names, visitor)
    }
}
