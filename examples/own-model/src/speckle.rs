//! `Speckle`: turns some pixels white.

use rand::Rng;
use segslurm::data::{DataError, Frame, Pcg64, RunTransform};
use serde::Deserialize;

/// The keys of `type: Speckle`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Speckle {
    /// The share of pixels, 0 to 1.
    share: f64,
}

impl RunTransform for Speckle {
    fn check(&self) -> Result<(), DataError> {
        if (0.0..=1.0).contains(&self.share) {
            Ok(())
        } else {
            Err(DataError::transform("Speckle", "share has to be from 0 to 1"))
        }
    }

    fn apply(&self, frame: &mut Frame, rng: &mut Pcg64) -> Result<(), DataError> {
        frame.change_image("Speckle", |mut image| {
            image
                .data
                .chunks_exact_mut(3)
                .filter(|_| rng.random_bool(self.share))
                .for_each(|it| it.fill(255));
            image
        })
    }
}
