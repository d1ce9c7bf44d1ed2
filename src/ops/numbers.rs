//! Single numbers of a pass, of all ranks: one exchange and one copy to the host for all of them.

use segslurm_native::NativeError;
use tch::{Kind, Tensor};

use super::border::Handle;
use crate::dist::{DistError, Group, Pending};

/// Numbers of one element each, stacked and on their way: `[n]` in double on every rank becomes
/// `[world, n]`.
pub fn gather_numbers(group: &Group, numbers: &[Handle]) -> Result<Pending, DistError> {
    let stacked = Tensor::stack(&numbers.iter().map(|it| it.reshape([])).collect::<Vec<_>>(), 0);
    group.all_gather_async(&stacked.to_kind(Kind::Double))
}

/// The numbers of [`gather_numbers`], by rank.
pub fn numbers(gathered: Tensor) -> Result<Vec<Vec<f64>>, NativeError> {
    Vec::try_from(gathered).map_err(|error: tch::TchError| NativeError(error.to_string()))
}
