//! The last stop of every error: which exit code it ends in, and panics that became errors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use anyhow::anyhow;
use segslurm_native::words;

use crate::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::dist::DistError;
use crate::exit::{Exit, Failure, told};
use crate::models::ModelError;
use crate::ops::OperationError;
use crate::optim::StateError;

/// The exit code of an error: that of the outermost cause which knows one. Where memory ran out it is that, whatever was being
/// done.
pub(super) fn exit(error: &anyhow::Error) -> Exit {
    match error.chain().find_map(known) {
        None | Some(Exit::Software | Exit::Data) if words::lacks_memory(&told(error)) => Exit::OutOfMemory,
        known => known.unwrap_or(Exit::Software),
    }
}

fn known(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(failure.exit);
    }
    if let Some(error) = cause.downcast_ref::<DistError>() {
        return Some(error.exit());
    }
    if let Some(error) = cause.downcast_ref::<DataError>() {
        return Some(error.exit());
    }
    if let Some(error) = cause.downcast_ref::<OperationError>() {
        return Some(error.exit());
    }
    if let Some(error) = cause.downcast_ref::<CheckpointError>() {
        return Some(match error {
            CheckpointError::Open { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Exit::NoInput,
            CheckpointError::Missing { .. } => Exit::NoInput,
            CheckpointError::Write { .. } => Exit::CannotWrite,
            _ => Exit::Data,
        });
    }
    if let Some(error) = cause.downcast_ref::<ModelError>() {
        return Some(match error {
            ModelError::Config { .. } => Exit::Config,
            ModelError::Input(_) => Exit::Data,
        });
    }
    cause.downcast_ref::<StateError>().map(|_| Exit::Data)
}

/// Runs `work`; a panic in it becomes an error that says what happened and where, without a backtrace. Operations inside the
/// model cannot return errors: where one of them missed another rank, the panic carries the [`DistError`]; where libtorch refused
/// it, an [`OperationError`]. What is left is a fault of segslurm's own.
pub(super) fn caught(work: impl FnOnce() -> anyhow::Result<Exit>) -> anyhow::Result<Exit> {
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
        Err(anyhow!("a fault of segslurm's own: {}; please report it with the command line", what.replace('\n', " ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_that_knows_decides() {
        let error = anyhow::Error::from(Failure::new(Exit::Config, "x")).context("y");
        assert_eq!(exit(&error), Exit::Config);
        assert_eq!(exit(&anyhow!("z")), Exit::Software);
    }

    #[test]
    fn a_lack_of_memory_has_a_code_of_its_own_whatever_was_being_done() {
        let batch = ModelError::Input("a batch cannot be copied to Cuda(0): CUDA out of memory. Tried to allocate 2 GiB".into());
        assert_eq!(exit(&anyhow::Error::from(batch)), Exit::OutOfMemory);
        assert_eq!(exit(&anyhow!("the optimizer's step failed").context("not enough memory: you tried")), Exit::OutOfMemory);
        // What another rank said of itself is not this one's reason.
        let elsewhere = Failure::new(Exit::Unavailable, "rank 1 failed: CUDA out of memory");
        assert_eq!(exit(&elsewhere.into()), Exit::Unavailable);
    }

    #[test]
    fn a_panic_that_libtorch_is_behind_is_no_fault_of_ours() {
        let value = "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. Tried to allocate 2 GiB\")";
        let error = caught(|| panic!("{value}")).expect_err("it panics");
        // The hook that `caught` leaves would swallow what other tests say.
        let _ = std::panic::take_hook();
        assert_eq!((told(&error).as_str(), exit(&error)), ("CUDA out of memory. Tried to allocate 2 GiB", Exit::OutOfMemory));
    }
}
