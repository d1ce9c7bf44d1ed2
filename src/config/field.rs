//! Types for fields that mmseg lets be written in two ways.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

/// The name by which these types ask the tree's deserializer to hand over a list as a list and
/// anything else as one value. (serde's own way, an untagged enum, would lose the lines and the
/// reasons of errors.)
pub(crate) const VALUE_OR_LIST: &str = "segslurm::config::ValueOrList";

/// One `T`, or a list of them, or null for none: `auxiliary_head`, `val_evaluator`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for OneOrMany<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(VALUE_OR_LIST, OneOrManyVisitor(PhantomData))
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one value or a list")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(OneOrMany(Vec::new()))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        T::deserialize(deserializer).map(|it| OneOrMany(vec![it]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(OneOrMany(items))
    }
}

/// Two `T`, or one that stands for both: `crop_size: 512`, `crop_size: [512, 1024]`, `dilation: 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<T>(pub [T; 2]);

impl<T> From<[T; 2]> for Pair<T> {
    fn from(values: [T; 2]) -> Self {
        Self(values)
    }
}

impl<T> Deref for Pair<T> {
    type Target = [T; 2];

    fn deref(&self) -> &[T; 2] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de> + Clone> Deserialize<'de> for Pair<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(VALUE_OR_LIST, PairVisitor(PhantomData))
    }
}

struct PairVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Clone> Visitor<'de> for PairVisitor<T> {
    type Value = Pair<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one value or a list of 2")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        T::deserialize(deserializer).map(|it| Pair([it.clone(), it]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let first = access.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
        let second = access.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
        Ok(Pair([first, second]))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::{OneOrMany, Pair};
    use crate::config::parse_str;

    #[derive(Debug, Deserialize, PartialEq)]
    enum Head {
        FCNHead(FcnHead),
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct FcnHead {
        channels: usize,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Model {
        auxiliary_head: OneOrMany<Head>,
        crop_size: Option<Pair<usize>>,
    }

    fn heads(channels: &[usize]) -> OneOrMany<Head> {
        OneOrMany(channels.iter().map(|&channels| Head::FCNHead(FcnHead { channels })).collect())
    }

    #[test]
    fn one_value_or_a_list_are_both_read() {
        let model: Model = parse_str("auxiliary_head: {type: FCNHead, channels: 1}\ncrop_size: 5")
            .expect("parses");
        assert_eq!(model, Model { auxiliary_head: heads(&[1]), crop_size: Some(Pair([5, 5])) });
        let text = "auxiliary_head: [{type: FCNHead, channels: 1}, \
                    {type: FCNHead, channels: 2}]\ncrop_size: [5, 6]";
        let model: Model = parse_str(text).expect("parses");
        assert_eq!(model, Model { auxiliary_head: heads(&[1, 2]), crop_size: Some(Pair([5, 6])) });
    }

    #[test]
    fn errors_point_into_the_list() {
        let error = |text: &str| parse_str::<Model>(text).expect_err("is wrong").to_string();
        insta::assert_snapshot!(
            [
                error(
                    "auxiliary_head:\n- {type: FCNHead, channels: 1}\n- type: FCNHead\n  chanels: 2"
                ),
                error("auxiliary_head: {type: FcnHead}"),
                error("auxiliary_head: []\ncrop_size: [1, 2, 3]"),
                error("auxiliary_head: []\ncrop_size: [1]"),
                error("auxiliary_head: []\ncrop_size: big"),
            ]
            .join("\n")
        );
    }
}
