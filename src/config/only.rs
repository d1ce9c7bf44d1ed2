//! A section of which there is one `type:`, read as what that type has.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, Visitor};

/// What a `type:` names.
pub trait Typed {
    /// The name, alone in a list.
    const TYPES: &'static [&'static str];
}

/// `{type: …, …}` with the one type that there is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Only<T>(pub T);

impl<T> Deref for Only<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T: Typed + Deserialize<'de>> Deserialize<'de> for Only<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_enum("Only", T::TYPES, OnlyVisitor(PhantomData))
    }
}

struct OnlyVisitor<T>(PhantomData<T>);

impl<'de, T: Typed + Deserialize<'de>> Visitor<'de> for OnlyVisitor<T> {
    type Value = Only<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", T::TYPES.join(" or "))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Only<T>, A::Error> {
        let ((), content) = data.variant_seed(Name(T::TYPES))?;
        de::VariantAccess::newtype_variant(content).map(Only)
    }
}

/// The name of a type, which has to be one of these.
struct Name(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("variant identifier")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<(), E> {
        if self.0.contains(&name) { Ok(()) } else { Err(E::unknown_variant(name, self.0)) }
    }

    fn visit_u64<E: de::Error>(self, index: u64) -> Result<(), E> {
        if (index as usize) < self.0.len() {
            Ok(())
        } else {
            Err(E::invalid_value(de::Unexpected::Unsigned(index), &self))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::config::parse_str;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Hook {
        interval: u64,
    }

    impl Typed for Hook {
        const TYPES: &'static [&'static str] = &["Hook"];
    }

    #[derive(Debug, Deserialize)]
    struct Section {
        hook: Only<Hook>,
    }

    #[test]
    fn the_type_has_to_be_the_one_and_its_keys_its_own() {
        let read = |text: &str| {
            parse_str::<Section>(text).map(|it| it.hook.interval).map_err(|it| it.to_string())
        };
        assert_eq!(read("hook: {type: Hook, interval: 3}"), Ok(3));
        let error = read("hook: {type: Hok}").expect_err("another type");
        assert!(error.contains("unknown type `Hok`") && error.contains("Hook"), "{error}");
        let error = read("hook: {type: Hook, intervall: 3}").expect_err("another key");
        assert!(error.contains("hook.intervall: unknown key"), "{error}");
        let error = read("hook: {interval: 3}").expect_err("no type");
        assert!(error.contains("hook") && error.contains("type"), "{error}");
    }
}
