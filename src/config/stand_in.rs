//! A value that fits wherever it is read: what stands in for a wrong one, so that reading goes on
//! to the next fault. What comes of it is thrown away.

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use super::both::BOTH;
use super::deserialize::Fault;
use super::field::VALUE_OR_LIST;

/// Types that hold themselves would be read without an end.
const MAX_DEPTH: usize = 32;

#[derive(Clone, Copy)]
pub(super) struct Anything {
    depth: usize,
}

impl Anything {
    pub(super) fn new() -> Self {
        Self { depth: 0 }
    }

    fn below(self) -> Result<Self, Fault> {
        if self.depth > MAX_DEPTH {
            return Err(Fault::new("this type holds itself"));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

/// Hands over one plain value for each of serde's methods.
macro_rules! plain {
    ($($method:ident: $visit:ident($value:expr);)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.$visit($value)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Anything {
    type Error = Fault;

    plain! {
        deserialize_bool: visit_bool(false);
        deserialize_i8: visit_i64(1);
        deserialize_i16: visit_i64(1);
        deserialize_i32: visit_i64(1);
        deserialize_i64: visit_i64(1);
        deserialize_i128: visit_i64(1);
        deserialize_u8: visit_u64(1);
        deserialize_u16: visit_u64(1);
        deserialize_u32: visit_u64(1);
        deserialize_u64: visit_u64(1);
        deserialize_u128: visit_u64(1);
        deserialize_f32: visit_f64(0.5);
        deserialize_f64: visit_f64(0.5);
        deserialize_char: visit_char('a');
        deserialize_str: visit_str("");
        deserialize_string: visit_str("");
        deserialize_bytes: visit_bytes(&[]);
        deserialize_byte_buf: visit_bytes(&[]);
        deserialize_identifier: visit_str("");
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_none()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match name {
            VALUE_OR_LIST => visitor.visit_newtype_struct(self.below()?),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_tuple(0, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_seq(Several { left: length, value: self.below()? })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        // The halves of one mapping are no level of their own.
        let value = if name == BOTH { self } else { self.below()? };
        visitor.visit_seq(Several { left: length, value })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(Fields { names: &[], value: self })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_map(Fields { names, value: self.below()? })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let first = variants.first().copied().unwrap_or_default();
        visitor.visit_enum(Variant { name: first, value: self.below()? })
    }
}

/// So many values.
struct Several {
    left: usize,
    value: Anything,
}

impl<'de> de::SeqAccess<'de> for Several {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(self.value).map(Some)
    }
}

/// A struct's fields.
struct Fields {
    names: &'static [&'static str],
    value: Anything,
}

impl<'de> de::MapAccess<'de> for Fields {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        let Some((first, rest)) = self.names.split_first() else { return Ok(None) };
        self.names = rest;
        let key: StrDeserializer<'_, Fault> = first.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(self.value)
    }
}

/// An enum's first variant.
struct Variant {
    name: &'static str,
    value: Anything,
}

impl<'de> de::EnumAccess<'de> for Variant {
    type Error = Fault;
    type Variant = Anything;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Anything), Fault> {
        let name: StrDeserializer<'_, Fault> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self.value))
    }
}

impl<'de> de::VariantAccess<'de> for Anything {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        de::Deserializer::deserialize_tuple(self, length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        de::Deserializer::deserialize_struct(self, "", fields, visitor)
    }
}
