//! One mapping that is read as two structs: what components of a kind share, and what one of them
//! has for itself.
//!
//! serde's own way, `flatten`, would lose the lines of errors and what is unknown.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

/// The name by which [`Both`] asks the tree's deserializer for one mapping twice. A key that
/// neither half has is unknown.
pub(super) const BOTH: &str = "segslurm::config::Both";

/// The keys of `S` and of `O` in one mapping. It reads as `O`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Both<S, O> {
    pub shared: S,
    pub own: O,
}

impl<S, O> Deref for Both<S, O> {
    type Target = O;

    fn deref(&self) -> &O {
        &self.own
    }
}

impl<S, O> DerefMut for Both<S, O> {
    fn deref_mut(&mut self) -> &mut O {
        &mut self.own
    }
}

impl<S, O> AsRef<S> for Both<S, O> {
    fn as_ref(&self) -> &S {
        &self.shared
    }
}

impl<'de, S: Deserialize<'de>, O: Deserialize<'de>> Deserialize<'de> for Both<S, O> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Halves<S, O>(PhantomData<(S, O)>);
        impl<'de, S: Deserialize<'de>, O: Deserialize<'de>> Visitor<'de> for Halves<S, O> {
            type Value = Both<S, O>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut halves: A) -> Result<Self::Value, A::Error> {
                let shared =
                    halves.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let own =
                    halves.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
                Ok(Both { shared, own })
            }
        }
        deserializer.deserialize_tuple_struct(BOTH, 2, Halves(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::config::parse_str;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Shared {
        channels: usize,
    }

    #[derive(Debug, Deserialize, PartialEq, Default)]
    #[serde(deny_unknown_fields, default)]
    struct Own {
        scales: Vec<usize>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    enum Part {
        Pyramid(Both<Shared, Own>),
    }

    #[test]
    fn a_mapping_fills_two_structs_and_what_neither_has_is_unknown() {
        let read =
            parse_str::<Part>("{type: Pyramid, scales: [1, 2], channels: 4}").expect("a part");
        let Part::Pyramid(both) = &read;
        assert_eq!((both.shared.channels, &both.scales[..]), (4, &[1, 2][..]));
        let error = parse_str::<Part>("{type: Pyramid, channel: 4, scale: [1]}")
            .expect_err("refused")
            .to_string();
        for words in ["did you mean `channels`?", "did you mean `scales`?", "channels"] {
            assert!(error.contains(words), "{error}");
        }
        let error = parse_str::<Part>("{type: Pyramid, channels: four, scales: 1}")
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("channels: expected a whole number")
                && error.contains("scales: expected a list"),
            "{error}"
        );
    }
}
