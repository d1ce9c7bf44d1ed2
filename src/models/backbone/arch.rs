//! `arch` of mmpretrain's backbones: a name, or the numbers that it stands for.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::models::ModelError;

/// Numbers that have names.
pub trait ArchTable: Sized + Clone {
    const NAMES: &'static [&'static str];

    fn named(name: &str) -> Option<Self>;
}

/// A name, or the numbers themselves.
#[derive(Debug, Clone, PartialEq)]
pub enum Arch<T> {
    Named(String),
    Given(T),
}

impl<T: ArchTable> Arch<T> {
    /// The numbers; the error names `arch`.
    pub fn get(&self) -> Result<T, ModelError> {
        match self {
            Self::Given(it) => Ok(it.clone()),
            Self::Named(name) => T::named(name).ok_or_else(|| {
                let problem = format!("there is no {name}; expected {}", T::NAMES.join(", "));
                ModelError::config("arch", problem)
            }),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Arch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrNumbers<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for NameOrNumbers<T> {
            type Value = Arch<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a mapping")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Arch::Named(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Arch::Given)
            }
        }
        deserializer.deserialize_any(NameOrNumbers(PhantomData))
    }
}
