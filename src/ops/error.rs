//! Why an operation was not computed. The operations of a model cannot return errors, so they panic
//! with this as the payload; whoever runs the model turns it back into an error and knows which
//! images it was about.

use std::any::Any;
use std::fmt::{self, Display};

use segslurm_native::{NativeError, words};

use crate::exit::{Exit, Exits};

/// An operation that libtorch did not carry out, or whose inputs no result exists for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationError {
    /// The operation with its inputs' shapes; empty for one of Burn's own.
    operation: String,
    /// libtorch's words, on one line.
    said: String,
}

impl OperationError {
    /// The error behind a panic, if libtorch is behind it: one of an operation of ours, or of
    /// Burn's and tch's own, which panic with libtorch's words.
    pub fn of_panic(payload: &(dyn Any + Send)) -> Option<Self> {
        if let Some(error) = payload.downcast_ref::<Self>() {
            return Some(error.clone());
        }
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())?;
        Self::of_text(text)
    }

    /// The error that a panic's message tells of, if it is one of libtorch's: tch unwraps its
    /// results, so that the message holds libtorch's as Rust prints a value.
    fn of_text(text: &str) -> Option<Self> {
        let (_, quoted) = text.split_once("Torch(\"")?;
        let said = quoted
            .strip_suffix("\")")
            .unwrap_or(quoted)
            .replace("\\n", "\n")
            .replace("\\\"", "\"")
            .replace("\\'", "'");
        Some(Self { operation: String::new(), said: words::sentence(&said) })
    }

    /// Whether it was memory that lacked.
    pub fn lacks_memory(&self) -> bool {
        words::lacks_memory(&self.said)
    }
}

impl Exits for OperationError {
    /// That of a lack of memory, or of input whose shapes do not fit.
    fn exit(&self) -> Exit {
        if self.lacks_memory() { Exit::OutOfMemory } else { Exit::Data }
    }
}

/// libtorch refused something that nobody asked of it.
impl Exits for NativeError {
    fn exit(&self) -> Exit {
        Exit::Software
    }
}

/// As [`NativeError`].
impl Exits for tch::TchError {
    fn exit(&self) -> Exit {
        Exit::Software
    }
}

impl Display for OperationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation.as_str() {
            "" => f.write_str(&self.said),
            operation => write!(f, "{operation}: {}", self.said),
        }
    }
}

impl std::error::Error for OperationError {}

/// What libtorch computed from `inputs`, or a panic that carries an [`OperationError`].
pub(super) fn computed<T, const N: usize>(
    operation: &str,
    inputs: [&tch::Tensor; N],
    result: Result<T, impl Display>,
) -> T {
    result.unwrap_or_else(|error| {
        refuse(operation, &inputs.map(tch::Tensor::size), &words::sentence(&error.to_string()))
    })
}

/// Ends an operation for which inputs of these shapes have no result.
pub(crate) fn refuse(operation: &str, shapes: &[Vec<i64>], why: &str) -> ! {
    let shapes: Vec<String> = shapes.iter().map(|shape| format!("{shape:?}")).collect();
    let operation = if shapes.is_empty() {
        operation.to_owned()
    } else {
        format!("{operation} of {}", shapes.join(", "))
    };
    std::panic::panic_any(OperationError { operation, said: why.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::ops::max_pool2d;

    fn of(work: impl FnOnce() + std::panic::UnwindSafe) -> OperationError {
        OperationError::of_panic(&*catch_unwind(work).expect_err("it fails"))
            .expect("libtorch is behind it")
    }

    #[test]
    fn an_operation_that_fails_is_told_with_its_shapes_and_without_libtorchs_trace() {
        let error = of(|| {
            let device = Device::libtorch();
            max_pool2d(Tensor::zeros([1, 3, 2, 2], &device), [5, 5], [1, 1], [0, 0]);
        });
        let text = error.to_string();
        assert!(text.starts_with("max_pool2d of [1, 3, 2, 2]: Given input size"), "{text}");
        assert!(text.contains("Output size is too small"), "{text}");
        assert!(
            !text.contains('\n') && !text.contains("frame") && !text.contains("raised from"),
            "{text}"
        );
        assert_eq!(error.exit(), Exit::Data);
    }

    #[test]
    fn what_burn_and_tch_unwrap_is_understood_too() {
        let error = of(|| drop(Tensor::<1>::zeros([1_usize << 45], &Device::libtorch())));
        let text = error.to_string();
        assert!(text.contains("you tried to allocate 140737488355328 bytes"), "{text}");
        assert!(!text.contains('\n') && !text.contains("raised from"), "{text}");
        assert_eq!(error.exit(), Exit::OutOfMemory);
        let other = catch_unwind(|| panic!("an index of ours")).expect_err("it panics");
        assert_eq!(OperationError::of_panic(&*other), None);
    }
}
