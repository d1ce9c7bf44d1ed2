//! `RandomCrop`: a window at a random place, drawn again while one class fills too much of it.

use rand::Rng;
use rand_pcg::Pcg64;
use serde::Deserialize;

use super::Frame;
use crate::config::Pair;
use crate::data::{DataError, LabelMap, Rect};

/// Cuts image and label map to `crop_size`, or to what there is where they are smaller.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomCrop {
    /// (height, width), or one number for both.
    #[serde(deserialize_with = "crate::config::side")]
    pub crop_size: Pair<usize>,
    /// The largest share of the crop's labelled pixels that one class may have. Up to ten times
    /// another place is tried.
    #[serde(default = "crate::config::default::f::<1>")]
    #[serde(deserialize_with = "crate::config::above_zero")]
    pub cat_max_ratio: f64,
    /// Not counted as a class; the dataset's unless given.
    #[serde(default)]
    pub ignore_index: Option<u8>,
}

impl RandomCrop {
    pub(super) fn check(&self) -> Result<(), DataError> {
        if self.crop_size.contains(&0) {
            return Err(DataError::transform("RandomCrop", "crop_size has to be positive"));
        }
        if self.cat_max_ratio.is_nan() || self.cat_max_ratio <= 0.0 {
            return Err(DataError::transform(
                "RandomCrop",
                "cat_max_ratio has to be above 0; 1 switches it off",
            ));
        }
        Ok(())
    }

    pub(super) fn apply(&self, frame: &mut Frame, rng: &mut Pcg64) -> Result<(), DataError> {
        let shape = frame.image("RandomCrop")?.shape();
        let mut rect = self.draw(shape, rng);
        let ignored = self.ignore_index.unwrap_or(frame.rule.ignore_index);
        if self.cat_max_ratio < 1.0 {
            let Some(label) = &frame.label else {
                let reason = "cat_max_ratio needs label maps: put LoadAnnotations before it, or \
                              leave cat_max_ratio out";
                return Err(DataError::transform("RandomCrop", reason));
            };
            // The last place drawn is taken unseen. One that was seen has been rendered, and stays
            // so.
            let mut rendered = None;
            for _ in 0..10 {
                let candidate = label.render_crop(rect)?;
                if self.is_mixed(&candidate, ignored) {
                    rendered = Some(candidate);
                    break;
                }
                rect = self.draw(shape, rng);
            }
            if let Some(candidate) = rendered {
                frame.label = Some(candidate.into());
            } else if let Some(label) = &mut frame.label {
                label.crop(rect);
            }
        } else if let Some(label) = &mut frame.label {
            label.crop(rect);
        }
        let image = frame.image("RandomCrop")?;
        image.crop(rect);
        frame.meta.img_shape = image.shape();
        Ok(())
    }

    fn draw(&self, (height, width): (usize, usize), rng: &mut Pcg64) -> Rect {
        let [crop_height, crop_width] = *self.crop_size;
        let top = rng.random_range(0..=height.saturating_sub(crop_height));
        let left = rng.random_range(0..=width.saturating_sub(crop_width));
        Rect { top, left, height: crop_height, width: crop_width }
    }

    /// Whether there are two classes at least and none has more than its share.
    fn is_mixed(&self, label: &LabelMap, ignored: u8) -> bool {
        let mut counts = histogram(&label.data);
        counts[usize::from(ignored)] = 0;
        let classes = counts.iter().filter(|&&count| count > 0).count();
        let most = counts.iter().copied().max().unwrap_or(0);
        classes > 1 && f64::from(most) / f64::from(counts.iter().sum::<u32>()) < self.cat_max_ratio
    }
}

/// How often each value occurs. Label maps are long runs of one value, so eight at a time are
/// looked at.
fn histogram(values: &[u8]) -> [u32; 256] {
    let mut counts = [0; 256];
    let (words, rest) = values.as_chunks::<8>();
    for word in words {
        if u64::from_le_bytes(*word) == u64::from(word[0]).wrapping_mul(0x0101_0101_0101_0101) {
            counts[usize::from(word[0])] += 8;
        } else {
            word.iter().for_each(|&value| counts[usize::from(value)] += 1);
        }
    }
    rest.iter().for_each(|&value| counts[usize::from(value)] += 1);
    counts
}
