//! What goes wrong while a batch is computed, told with the batch: operations of a model cannot
//! return errors, and they do not know of which images they are.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::data::Sample;
use crate::exit::{Exit, Exits, Failure};
use crate::ops::OperationError;

/// What to change when memory runs out in training.
pub(super) const TRAINING: &str = "lower train_dataloader.batch_size \
                                   (optim_wrapper.accumulative_counts makes up for it) or the crop \
                                   size, set model.backbone.with_cp: true, or optim_wrapper.type: \
                                   AmpOptimWrapper";

/// What to change when memory runs out in a validation or a test.
pub(super) const TESTING: &str = "set model.test_cfg to \
                                  {mode: slide, crop_size: [h, w], stride: [h, w]}, lower the \
                                  dataloader's batch_size, or resize images in its pipeline";

/// Files that are named.
const NAMED: usize = 4;

/// Computes something of `samples`. Where that fails for lack of memory, or because libtorch
/// refuses their shapes, the error names them, and `remedies` what to change.
pub(super) fn of_batch<T>(
    samples: &[Sample],
    remedies: &str,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Err(failure)) if failure.exit == Exit::OutOfMemory => {
            Err(out_of_memory(&failure.message, samples, remedies))
        }
        Ok(result) => result,
        Err(payload) => match OperationError::of_panic(&*payload) {
            Some(error) if error.lacks_memory() => {
                Err(out_of_memory(&error.to_string(), samples, remedies))
            }
            Some(error) => {
                Err(Failure::new(error.exit(), format!("{error}; this was {}", described(samples))))
            }
            None => resume_unwind(payload),
        },
    }
}

fn out_of_memory(said: &str, samples: &[Sample], remedies: &str) -> Failure {
    Failure::new(
        Exit::OutOfMemory,
        format!("memory ran out over {}: {said}; {remedies}", described(samples)),
    )
}

/// How many images of which size (height x width), and their files.
fn described(samples: &[Sample]) -> String {
    let Some(first) = samples.first() else { return "an empty batch".to_owned() };
    let size = |it: &Sample| format!("{}x{}", it.image.height, it.image.width);
    let alike = samples.iter().all(|it| it.image.shape() == first.image.shape());
    let what = match samples {
        [one] => format!("an image of {}", size(one)),
        _ if alike => format!("a batch of {} images of {}", samples.len(), size(first)),
        _ => format!(
            "a batch of {} images of {}",
            samples.len(),
            samples.iter().map(size).collect::<Vec<_>>().join(", ")
        ),
    };
    let mut files: Vec<_> =
        samples.iter().take(NAMED).map(|it| it.meta.img_path.display().to_string()).collect();
    if samples.len() > NAMED {
        files.push(format!("{} more", samples.len() - NAMED));
    }
    format!("{what} (height x width; {})", files.join(", "))
}
