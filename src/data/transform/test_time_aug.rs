//! `TestTimeAug`: several versions of one image, one for every way through its lists of transforms.

use rand_pcg::Pcg64;
use serde::Deserialize;

use super::{Frame, Transform};
use crate::data::{DataError, Sample};

/// A list of stages, each a list of alternatives; every combination makes a sample.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestTimeAug {
    pub transforms: Vec<Vec<Transform>>,
}

impl TestTimeAug {
    /// Checks the lists, and not what is in them.
    pub(super) fn check(&self) -> Result<(), DataError> {
        if self.transforms.is_empty() || self.transforms.iter().any(Vec::is_empty) {
            return Err(DataError::transform(
                "TestTimeAug",
                "transforms has to be a list of lists that are not empty",
            ));
        }
        if self
            .transforms
            .iter()
            .flatten()
            .any(|transform| matches!(transform, Transform::TestTimeAug(_)))
        {
            return Err(DataError::transform("TestTimeAug", "cannot hold another TestTimeAug"));
        }
        Ok(())
    }

    /// The samples, the last stage's alternatives changing fastest. The image is decoded once.
    pub(super) fn run(&self, mut frame: Frame, rng: &mut Pcg64) -> Result<Vec<Sample>, DataError> {
        if let Some(image) = frame.image.take() {
            frame.image = Some(image.into_raster()?.into());
        }
        let mut frames = vec![frame];
        for stage in &self.transforms {
            let mut next = Vec::with_capacity(frames.len() * stage.len());
            for frame in &frames {
                for transform in stage {
                    let mut frame = frame.clone();
                    transform.apply(&mut frame, rng)?;
                    next.push(frame);
                }
            }
            frames = next;
        }
        frames.into_iter().map(Frame::pack).collect()
    }
}
