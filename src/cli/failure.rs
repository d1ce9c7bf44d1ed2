//! Panics that became errors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use crate::dist::DistError;
use crate::exit::{Exit, Failure};
use crate::ops::OperationError;

/// Runs `work`; a panic in it becomes an error that says what happened and where, without a
/// backtrace. Operations inside the model cannot return errors: where one of them missed another
/// rank, the panic carries the [`DistError`]; where libtorch refused it, an [`OperationError`].
/// What is left is a fault of segslurm's own.
pub(super) fn caught(work: impl FnOnce() -> Result<Exit, Failure>) -> Result<Exit, Failure> {
    let said = Arc::new(Mutex::new(None));
    let hook = Arc::clone(&said);
    std::panic::set_hook(Box::new(move |info| {
        if let Ok(mut said) = hook.lock() {
            *said = Some(info.to_string());
        }
    }));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        if let Some(error) = OperationError::of_panic(&*payload) {
            return Err(error.into());
        }
        if let Ok(error) = payload.downcast::<DistError>() {
            return Err((*error).into());
        }
        let what = said.lock().ok().and_then(|it| it.clone()).unwrap_or_default();
        Err(Failure::fault(what.replace('\n', " ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_that_libtorch_is_behind_is_no_fault_of_ours() {
        let value = "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. \
                     Tried to allocate 2 GiB\")";
        let error = caught(|| panic!("{value}")).expect_err("it panics");
        // The hook that `caught` leaves would swallow what other tests say.
        let _ = std::panic::take_hook();
        assert_eq!(
            (error.message.as_str(), error.exit),
            ("CUDA out of memory. Tried to allocate 2 GiB", Exit::OutOfMemory)
        );
    }
}
