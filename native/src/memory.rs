//! How the process gets its memory from the system, and how much of it tensors take.

use std::ffi::c_int;
use std::marker::PhantomData;
use std::ptr::null_mut;

use crate::{NativeError, check, ffi};

/// Lets the allocator keep what is freed, and take large blocks from its heap too. A train step
/// allocates the same activations as the one before: given back to the system in between, every
/// page of them would be fetched and zeroed anew.
///
/// Of the whole process, for what its first thread allocates (glibc's heaps of other threads are
/// not covered); glibc's defaults stay where it refuses. Settings of the user's
/// (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_MAX_`) win.
#[expect(
    clippy::disallowed_methods,
    reason = "glibc's own settings, which only the environment has"
)]
pub fn keep_freed_pages() {
    const M_TRIM_THRESHOLD: c_int = -1;
    const M_MMAP_MAX: c_int = -4;
    for (parameter, value, variable) in
        [(M_TRIM_THRESHOLD, -1, "MALLOC_TRIM_THRESHOLD_"), (M_MMAP_MAX, 0, "MALLOC_MMAP_MAX_")]
    {
        if std::env::var_os(variable).is_none() {
            // SAFETY: takes two numbers; glibc's allocator may be set at any time and from any
            // thread.
            unsafe { ffi::mallopt(parameter, value) };
        }
    }
}

/// Counts the bytes that this thread's tensors take on the CPU, for as long as it lives; one at a
/// time on a thread.
#[derive(Debug)]
pub struct Counted(PhantomData<*const ()>);

impl Counted {
    /// Begins to count; tensors that are there already are not.
    pub fn begin() -> Result<Self, NativeError> {
        // SAFETY: takes a number. The allocator that it sets lives as long as the process.
        check(unsafe { ffi::segslurm_count_memory(1) })?;
        Ok(Self(PhantomData))
    }

    /// The bytes that counted tensors take now.
    pub fn now(&self) -> Result<u64, NativeError> {
        let mut now = 0;
        // SAFETY: the output is a valid place.
        check(unsafe { ffi::segslurm_memory(&raw mut now) })?;
        Ok(now.unsigned_abs())
    }

    /// What `work` returned, and the bytes that were taken after each of its allocations.
    pub fn course_of<T>(&self, work: impl FnOnce() -> T) -> Result<(T, Vec<u64>), NativeError> {
        course()?;
        let result = work();
        Ok((result, course()?))
    }
}

/// What this thread's counter has seen since the last call.
fn course() -> Result<Vec<u64>, NativeError> {
    let mut count = 0;
    // SAFETY: with no capacity nothing but the count is written, unless there is nothing to write.
    check(unsafe { ffi::segslurm_memory_course(null_mut(), 0, &raw mut count) })?;
    let mut course = vec![0; count];
    // SAFETY: `course` has as many places as are said to be there, and this thread allocates no
    // tensor in between.
    check(unsafe {
        ffi::segslurm_memory_course(course.as_mut_ptr(), course.len(), &raw mut count)
    })?;
    Ok(course.into_iter().map(i64::unsigned_abs).collect())
}

impl Drop for Counted {
    fn drop(&mut self) {
        // SAFETY: takes a number; blocks that were counted carry what frees them.
        unsafe { ffi::segslurm_count_memory(0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_of_this_thread_are_counted_until_they_are_freed() {
        let bytes = |count: i64| tch::Tensor::zeros([count], (tch::Kind::Uint8, tch::Device::Cpu));
        let before = bytes(1 << 20);
        let memory = Counted::begin().expect("counts");
        let kept = bytes(1 << 21);
        drop(before);
        std::thread::spawn(move || drop(bytes(1 << 24))).join().expect("the thread ends");
        let ((), course) = memory.course_of(|| drop((bytes(1 << 22), bytes(1)))).expect("counts");
        let (first, both) = ((1 << 21) + (1 << 22), (1 << 21) + (1 << 22) + 1);
        assert_eq!((memory.now().expect("counts"), course), (1 << 21, vec![first, both]));
        std::thread::spawn(move || drop(kept)).join().expect("the thread ends");
        assert_eq!(memory.now().expect("counts"), 0);
        let late = bytes(1 << 20);
        drop(memory);
        drop(late);
        let again = Counted::begin().expect("counts");
        assert_eq!(again.now().expect("counts"), 0);
    }
}
