//! `decode_head` and `auxiliary_head`: one head, or a list whose places count in names.

use std::fmt;

use burn::module::Module;
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use crate::config::VALUE_OR_LIST;
use crate::models::contract::{Feature, HeadSpec};
use crate::models::head::{Head, HeadConfig};
use crate::models::{Builder, ModelError};

/// A list of heads is numbered in names of tensors and losses, even a list of one.
#[derive(Debug, Clone, PartialEq)]
pub enum HeadsConfig {
    One(Box<HeadConfig>),
    Many(Vec<HeadConfig>),
}

impl<'de> Deserialize<'de> for HeadsConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrList;
        impl<'de> Visitor<'de> for OneOrList {
            type Value = HeadsConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a head or a list of heads")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Self::Value, D::Error> {
                HeadConfig::deserialize(deserializer).map(|it| HeadsConfig::One(Box::new(it)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut heads = Vec::new();
                while let Some(head) = access.next_element()? {
                    heads.push(head);
                }
                if heads.is_empty() {
                    Err(de::Error::invalid_length(0, &self))
                } else {
                    Ok(HeadsConfig::Many(heads))
                }
            }
        }
        deserializer.deserialize_newtype_struct(VALUE_OR_LIST, OneOrList)
    }
}

impl HeadsConfig {
    pub(super) fn list(&self) -> &[HeadConfig] {
        match self {
            Self::One(head) => std::slice::from_ref(head),
            Self::Many(heads) => heads,
        }
    }

    /// Each head with its place: the key `name` itself for one, with a number for a list.
    pub(super) fn named<'a>(
        &'a self,
        name: &'a str,
    ) -> impl Iterator<Item = (String, &'a HeadConfig)> {
        let place = move |index: usize| match self {
            Self::One(_) => name.to_owned(),
            Self::Many(_) => format!("{name}.{index}"),
        };
        self.list().iter().enumerate().map(move |(index, head)| (place(index), head))
    }

    pub(super) fn build(&self, inputs: &[Feature], builder: &Builder) -> Result<Heads, ModelError> {
        match self {
            Self::One(head) => head.build(inputs, builder).map(Heads::One),
            Self::Many(heads) => heads
                .iter()
                .map(|it| it.build(inputs, builder))
                .collect::<Result<_, _>>()
                .map(Heads::Many),
        }
    }
}

/// What every head is checked for, and its own, where the feature maps are known. Errors name keys
/// below the head.
pub(super) fn check(head: &dyn HeadSpec, inputs: Option<&[Feature]>) -> Result<(), ModelError> {
    head.shared().verify()?;
    let Some(inputs) = inputs else { return Ok(()) };
    head.shared().select(inputs, head.transform())?;
    head.check(inputs)
}

/// Heads, numbered if they came as a list.
#[derive(Module, Debug)]
pub(super) enum Heads {
    One(Head),
    Many(Vec<Head>),
}

impl Heads {
    pub(super) fn list(&self) -> &[Head] {
        match self {
            Self::One(head) => std::slice::from_ref(head),
            Self::Many(heads) => heads,
        }
    }

    /// Each head with its place in the config: the key `name` itself for one, with a number for a
    /// list.
    pub(super) fn keyed<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (String, &'a Head)> {
        let key = move |index: usize| match self {
            Self::One(_) => name.to_owned(),
            Self::Many(_) => format!("{name}.{index}"),
        };
        self.list().iter().enumerate().map(move |(index, head)| (key(index), head))
    }

    /// Each head with the prefix of its losses: `decode`, or `decode_0` in a list.
    pub(super) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (String, &'a Head)> {
        let prefix = move |index: usize| match self {
            Self::One(_) => name.to_owned(),
            Self::Many(_) => format!("{name}_{index}"),
        };
        self.list().iter().enumerate().map(move |(index, head)| (prefix(index), head))
    }
}
