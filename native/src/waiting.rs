//! How libgomp's threads wait for one another. By itself a thread spins for milliseconds before it
//! sleeps, which costs nothing where every thread has a core, and a core of somebody else's where
//! it has not: two processes on one machine, a job with fewer cores than threads. A short spin is
//! as fast alone and much faster beside others (docs/benchmarks.md).
//!
//! libgomp reads its environment while the program is loaded, and the loader hands every library
//! the environment that the process was started with. So the process starts itself anew with one
//! variable more, before any library has begun: that costs 3 ms, where it would cost 200 from
//! `main`.

use std::ffi::{CStr, c_char, c_int, c_ulong};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, ptr};

unsafe extern "C" {
    fn execve(
        path: *const c_char,
        arguments: *const *const c_char,
        environment: *const *const c_char,
    ) -> c_int;
    fn getauxval(kind: c_ulong) -> c_ulong;
}

/// The path that the process was started by, of `getauxval`.
const AT_EXECFN: c_ulong = 31;

/// Turns of the loop in which a thread waits before it sleeps: some microseconds.
const BRIEFLY: &CStr = c"GOMP_SPINCOUNT=1000";

/// How users say themselves how threads wait.
const SAID: [&str; 2] = ["GOMP_SPINCOUNT=", "OMP_WAIT_POLICY="];

/// Starts the program anew unless somebody has said how threads wait. Where that is not possible,
/// it goes on as it is.
extern "C" fn wait_briefly(
    _: c_int,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) {
    let mut variables = Vec::new();
    // SAFETY: the loader passes what the kernel put on the stack: arrays of NUL-terminated strings
    // that end in a null pointer, and the address of one such string under AT_EXECFN. Nothing else
    // runs yet that could change them.
    unsafe {
        let mut next = environment;
        while !(*next).is_null() {
            let variable = CStr::from_ptr(*next).to_bytes();
            if SAID.iter().any(|it| variable.starts_with(it.as_bytes())) {
                return;
            }
            variables.push(*next);
            next = next.add(1);
        }
        let path = getauxval(AT_EXECFN) as *const c_char;
        if path.is_null() || !is_this_program(CStr::from_ptr(path)) {
            return;
        }
        variables.extend([BRIEFLY.as_ptr(), ptr::null()]);
        execve(path, arguments, variables.as_ptr());
    }
}

/// Whether a path leads to the running program: not where a loader or an emulator was started in
/// its place.
fn is_this_program(path: &CStr) -> bool {
    let file = |path: &Path| fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
    let path = path.to_str().ok().and_then(|it| file(Path::new(it)));
    path.is_some() && path == file(Path::new("/proc/self/exe"))
}

/// Read by the loader before it begins any library.
// SAFETY: the section holds pointers to functions of this shape.
#[used]
#[unsafe(link_section = ".preinit_array")]
static BEFORE_LIBRARIES: extern "C" fn(c_int, *const *const c_char, *const *const c_char) =
    wait_briefly;
