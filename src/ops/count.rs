//! How many multiplications a pass takes, as mmengine's complexity analysis counts them
//! (`mmengine/analysis`): one for each product of a convolution or a matrix, two for each value of
//! a batch norm, none for plain sums.

use std::cell::Cell;

thread_local! {
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The multiplications of the operations that `work` runs on this thread.
pub fn multiply_adds<T>(work: impl FnOnce() -> T) -> (T, u64) {
    /// Stops counting, also when the work panics.
    struct Counting(Option<u64>);
    impl Drop for Counting {
        fn drop(&mut self) {
            COUNT.set(self.0);
        }
    }
    let counting = Counting(COUNT.replace(Some(0)));
    let result = work();
    let count = COUNT.get().unwrap_or_default();
    drop(counting);
    (result, count)
}

/// Whether somebody counts on this thread.
pub(super) fn on() -> bool {
    COUNT.get().is_some()
}

/// Adds those of an operation.
pub(super) fn add(cost: u64) {
    COUNT.set(COUNT.get().map(|count| count + cost));
}

/// How many values a tensor of this shape has.
pub(super) fn values(shape: &[i64]) -> u64 {
    shape.iter().map(|it| it.unsigned_abs()).product()
}
