//! `RandomFlip`: mirrors image and label map with a probability.

use rand::Rng;
use rand_pcg::Pcg64;
use serde::Deserialize;

use super::Frame;
use crate::config::OneOrMany;
use crate::data::{DataError, FlipDirection, LabelMap};

/// Mirrors along one of `direction`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomFlip {
    /// Of a flip at all, shared evenly by the directions; or a list with one for each direction.
    #[serde(deserialize_with = "crate::config::share")]
    pub prob: OneOrMany<f64>,
    /// One or several.
    #[serde(default = "horizontal")]
    pub direction: OneOrMany<FlipDirection>,
    /// Pairs of classes that change places when the image is flipped, such as left and right arm.
    #[serde(default)]
    pub swap_seg_labels: Option<Vec<(u8, u8)>>,
}

fn horizontal() -> OneOrMany<FlipDirection> {
    OneOrMany(vec![FlipDirection::Horizontal])
}

impl RandomFlip {
    pub(super) fn check(&self) -> Result<(), DataError> {
        let refuse = |reason: &str| Err(DataError::transform("RandomFlip", reason));
        if self.direction.is_empty() {
            return refuse("direction is empty");
        }
        if self.prob.len() != 1 && self.prob.len() != self.direction.len() {
            return refuse("a list of prob needs a list of direction of the same length");
        }
        if !self.prob.iter().all(|prob| (0.0..=1.0).contains(prob))
            || self.prob.iter().sum::<f64>() > 1.0
        {
            return refuse("prob has to be from 0 to 1, and together at most 1");
        }
        Ok(())
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
        for (index, &direction) in self.direction.iter().enumerate() {
            rest -= match self.prob[..] {
                [prob] => prob / self.direction.len() as f64,
                ref probs => probs[index],
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
