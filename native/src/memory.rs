//! How the process gets its memory from the system.

use std::ffi::c_int;

use crate::ffi;

/// Lets the allocator keep what is freed, and take large blocks from its heap too. A train step allocates the same activations
/// as the one before: given back to the system in between, every page of them would be fetched and zeroed anew.
///
/// Of the whole process, for what its first thread allocates (glibc's heaps of other threads are not covered); glibc's defaults stay where it refuses. Settings of the user's (`MALLOC_TRIM_THRESHOLD_`,
/// `MALLOC_MMAP_MAX_`) win.
pub fn keep_freed_pages() {
    const M_TRIM_THRESHOLD: c_int = -1;
    const M_MMAP_MAX: c_int = -4;
    for (parameter, value, variable) in [(M_TRIM_THRESHOLD, -1, "MALLOC_TRIM_THRESHOLD_"), (M_MMAP_MAX, 0, "MALLOC_MMAP_MAX_")] {
        if std::env::var_os(variable).is_none() {
            // SAFETY: takes two numbers; glibc's allocator may be set at any time and from any thread.
            unsafe { ffi::mallopt(parameter, value) };
        }
    }
}
