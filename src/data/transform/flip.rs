//! `RandomFlip`: mirrors image and label map with a probability.

use std::fmt;

use rand::Rng;
use rand_pcg::Pcg64;
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::Frame;
use crate::data::{DataError, FlipDirection, LabelMap};

/// Mirrors along one of `direction`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomFlip {
    /// Of a flip at all, shared evenly by the directions; or a list with one for each direction.
    pub prob: Probability,
    #[serde(default)]
    pub direction: Directions,
    /// Pairs of classes that change places when the image is flipped, such as left and right arm.
    #[serde(default)]
    pub swap_seg_labels: Option<Vec<(u8, u8)>>,
}

/// One probability, or one for each direction.
#[derive(Debug, Clone, PartialEq)]
pub enum Probability {
    OfAny(f64),
    OfEach(Vec<f64>),
}

/// One direction, or several; a config may write one without a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Directions(pub Vec<FlipDirection>);

impl Default for Directions {
    fn default() -> Self {
        Self(vec![FlipDirection::Horizontal])
    }
}

impl RandomFlip {
    pub(super) fn check(&self) -> Result<(), DataError> {
        let refuse = |reason: &str| Err(DataError::transform("RandomFlip", reason));
        let valid = |prob: f64| (0.0..=1.0).contains(&prob);
        if self.direction.0.is_empty() {
            return refuse("direction is empty");
        }
        match &self.prob {
            Probability::OfAny(prob) if !valid(*prob) => refuse("prob has to be from 0 to 1"),
            Probability::OfEach(probs) if probs.len() != self.direction.0.len() => {
                refuse("a list of prob needs a list of direction of the same length")
            }
            Probability::OfEach(probs) if !probs.iter().all(|&prob| valid(prob)) || probs.iter().sum::<f64>() > 1.0 => {
                refuse("prob has to be from 0 to 1, and together at most 1")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn apply(&self, frame: &mut Frame, rng: &mut Pcg64) -> Result<(), DataError> {
        let direction = self.draw(rng);
        frame.meta.flip = direction.is_some();
        frame.meta.flip_direction = direction;
        let Some(direction) = direction else {
            return Ok(());
        };
        frame.image("RandomFlip")?.flip(direction);
        if let Some(label) = &mut frame.label {
            label.flip(direction);
            if let Some(pairs) = &self.swap_seg_labels {
                let mut pixels = label.render()?;
                swap(&mut pixels, pairs);
                *label = pixels.into();
            }
        }
        Ok(())
    }

    fn draw(&self, rng: &mut Pcg64) -> Option<FlipDirection> {
        let mut rest = rng.random::<f64>();
        let directions = &self.direction.0;
        for (index, &direction) in directions.iter().enumerate() {
            rest -= match &self.prob {
                Probability::OfAny(prob) => prob / directions.len() as f64,
                Probability::OfEach(probs) => probs[index],
            };
            if rest < 0.0 {
                return Some(direction);
            }
        }
        None
    }
}

fn swap(label: &mut LabelMap, pairs: &[(u8, u8)]) {
    let mut map: [u8; 256] = std::array::from_fn(|value| value as u8);
    for &(a, b) in pairs {
        map[usize::from(a)] = b;
        map[usize::from(b)] = a;
    }
    label.data.iter_mut().for_each(|value| *value = map[usize::from(*value)]);
}

impl<'de> Deserialize<'de> for Probability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Probability;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a probability, or a list with one for each direction")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Probability, E> {
                Ok(Probability::OfAny(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Probability, E> {
                self.visit_f64(value as f64)
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Probability, E> {
                self.visit_f64(value as f64)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Probability, A::Error> {
                Deserialize::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(Probability::OfEach)
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

impl<'de> Deserialize<'de> for Directions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Directions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("horizontal, vertical or diagonal, or a list of these")
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Directions, E> {
                let one = FlipDirection::deserialize(de::value::StrDeserializer::new(value))?;
                Ok(Directions(vec![one]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Directions, A::Error> {
                Deserialize::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(Directions)
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}
