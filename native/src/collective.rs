//! c10d's collectives: a key-value store to meet at, and process groups over Gloo or NCCL.
//!
//! A collective in flight owns the tensors it works on ([`Pending`]): they come back when it is
//! done. All ranks of a group must start the same collectives in the same order; a peer's death
//! ends those in flight with an error.

use std::ffi::{CStr, CString, c_int};
use std::os::fd::RawFd;
use std::ptr::{null, null_mut};
use std::time::Duration;

use tch::Tensor;

use crate::ffi::{self, RawGroup, RawStore, RawTensor, RawWork};
use crate::{NativeError, check};

/// Ends the process at once: no destructors, so no waiting for threads that a dead peer keeps
/// blocked.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: takes a number, touches no memory of ours.
    unsafe { ffi::segslurm_exit_now(c_int::from(code)) }
}

/// The version of the libtorch that this was compiled against.
pub fn libtorch_version() -> &'static str {
    // SAFETY: the shim returns a string literal.
    unsafe { CStr::from_ptr(ffi::segslurm_libtorch_version()) }.to_str().unwrap_or("?")
}

fn milliseconds(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX)
}

fn text(of: &str) -> Result<CString, NativeError> {
    CString::new(of).map_err(|_| NativeError(format!("{of:?} holds a NUL byte")))
}

fn raw(tensor: &Tensor) -> *mut RawTensor {
    tensor.as_ptr().cast_mut().cast()
}

/// A connection to a `TCPStore`: bytes under names, shared by all ranks. One call runs at a time;
/// others wait.
#[derive(Debug)]
pub struct Store(*mut RawStore);

// SAFETY: c10d's TCPStore and PrefixStore guard every operation with a mutex.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Serves a store on `listening`, a listening TCP socket that the store owns from now on, and
    /// connects to it.
    pub fn serve(listening: RawFd, port: u16, timeout: Duration) -> Result<Self, NativeError> {
        Self::new("localhost", port, listening, timeout)
    }

    /// Connects to the store at `host:port`.
    pub fn connect(host: &str, port: u16, timeout: Duration) -> Result<Self, NativeError> {
        Self::new(host, port, -1, timeout)
    }

    fn new(
        host: &str,
        port: u16,
        listening: c_int,
        timeout: Duration,
    ) -> Result<Self, NativeError> {
        let (host, mut out) = (text(host)?, null_mut());
        // SAFETY: `host` outlives the calls, `out` is a valid place.
        check(unsafe {
            ffi::segslurm_quiet_c10d();
            ffi::segslurm_store_new(
                host.as_ptr(),
                port,
                listening,
                milliseconds(timeout),
                &raw mut out,
            )
        })?;
        Ok(Self(out))
    }

    /// The same store with `prefix` before every key.
    pub fn prefixed(&self, prefix: &str) -> Result<Self, NativeError> {
        let (prefix, mut out) = (text(prefix)?, null_mut());
        // SAFETY: `prefix` outlives the call, `out` is a valid place.
        check(unsafe { ffi::segslurm_store_prefixed(self.0, prefix.as_ptr(), &raw mut out) })?;
        Ok(Self(out))
    }

    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), NativeError> {
        let key = text(key)?;
        // SAFETY: `value` is read up to its length during the call.
        check(unsafe { ffi::segslurm_store_set(self.0, key.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// The value under `key`, as soon as somebody has set it.
    pub fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, NativeError> {
        let (key, mut value, mut size) = (text(key)?, null_mut(), 0);
        // SAFETY: the outputs are valid places.
        check(unsafe {
            ffi::segslurm_store_get(
                self.0,
                key.as_ptr(),
                milliseconds(timeout),
                &raw mut value,
                &raw mut size,
            )
        })?;
        // SAFETY: the shim hands over `size` bytes at `value`, freed right here, once.
        unsafe {
            let bytes = std::slice::from_raw_parts(value, size).to_vec();
            ffi::segslurm_free(value);
            Ok(bytes)
        }
    }

    /// Adds to the number under `key` (0 if there is none) and gives the sum.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64, NativeError> {
        let (key, mut sum) = (text(key)?, 0);
        // SAFETY: `sum` is a valid place.
        check(unsafe { ffi::segslurm_store_add(self.0, key.as_ptr(), amount, &raw mut sum) })?;
        Ok(sum)
    }

    /// Whether somebody has set `key`; does not wait.
    pub fn has(&self, key: &str) -> Result<bool, NativeError> {
        let (key, mut found) = (text(key)?, 0);
        // SAFETY: `found` is a valid place.
        check(unsafe { ffi::segslurm_store_has(self.0, key.as_ptr(), &raw mut found) })?;
        Ok(found != 0)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once; groups hold their own reference to what is inside.
        unsafe { ffi::segslurm_store_free(self.0) }
    }
}

/// How values of different ranks become one. The numbers are c10d's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Reduce {
    Sum = 0,
    Min = 3,
    Max = 4,
}

/// Where Gloo listens.
#[derive(Debug, Clone, Copy)]
pub enum GlooDevice<'a> {
    /// A network interface by name, as `eth0`.
    Interface(&'a str),
    /// The interface that has this address.
    Address(&'a str),
}

/// A process group of c10d.
#[derive(Debug)]
pub struct ProcessGroup {
    raw: *mut RawGroup,
    world: i64,
}

// SAFETY: c10d's backends may be used from any thread, one call at a time; `&self` methods only
// enqueue under its own locks.
unsafe impl Send for ProcessGroup {}
// SAFETY: enqueueing is guarded by mutexes inside ProcessGroupGloo and ProcessGroupNCCL. Order
// between threads is the caller's.
unsafe impl Sync for ProcessGroup {}

impl ProcessGroup {
    /// Meets the other `world - 1` ranks over Gloo. Every group on a store needs a prefix of its
    /// own.
    pub fn gloo(
        store: &Store,
        rank: usize,
        world: usize,
        timeout: Duration,
        device: GlooDevice,
    ) -> Result<Self, NativeError> {
        let (interface, address) = match device {
            GlooDevice::Interface(name) => (Some(text(name)?), None),
            GlooDevice::Address(address) => (None, Some(text(address)?)),
        };
        let pointer = |text: &Option<CString>| text.as_deref().map_or(null(), CStr::as_ptr);
        let mut raw = null_mut();
        // SAFETY: the strings outlive the call, one of them is not null, `raw` is a valid place.
        check(unsafe {
            ffi::segslurm_group_gloo(
                store.0,
                rank as c_int,
                world as c_int,
                milliseconds(timeout),
                pointer(&interface),
                pointer(&address),
                &raw mut raw,
            )
        })?;
        Ok(Self { raw, world: world as i64 })
    }

    /// Meets the other ranks over NCCL, this one with the CUDA device of that index.
    pub fn nccl(
        store: &Store,
        rank: usize,
        world: usize,
        timeout: Duration,
        device: usize,
    ) -> Result<Self, NativeError> {
        let mut raw = null_mut();
        let (rank, ranks) = (rank as c_int, world as c_int);
        // SAFETY: `raw` is a valid place.
        check(unsafe {
            ffi::segslurm_group_nccl(
                store.0,
                rank,
                ranks,
                milliseconds(timeout),
                device as c_int,
                &raw mut raw,
            )
        })?;
        Ok(Self { raw, world: world as i64 })
    }

    /// Reduces `tensor` elementwise over the ranks, in place on all of them.
    pub fn all_reduce(&self, tensor: Tensor, operation: Reduce) -> Result<Pending, NativeError> {
        let mut work = null_mut();
        // SAFETY: c10d keeps its own reference to the tensor; `work` is a valid place.
        check(unsafe {
            ffi::segslurm_all_reduce(self.raw, raw(&tensor), operation as c_int, &raw mut work)
        })?;
        Ok(Pending { work: Work(work), tensor })
    }

    /// Overwrites `tensor` with that of rank `root`.
    pub fn broadcast(&self, tensor: Tensor, root: usize) -> Result<Pending, NativeError> {
        let mut work = null_mut();
        // SAFETY: as above.
        check(unsafe {
            ffi::segslurm_broadcast(self.raw, raw(&tensor), root as c_int, &raw mut work)
        })?;
        Ok(Pending { work: Work(work), tensor })
    }

    /// `[world, …]`: the tensors of all ranks, which have one shape `[…]` and one type.
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Pending, NativeError> {
        let input = tensor.f_contiguous().map_err(told)?;
        let shape: Vec<i64> = std::iter::once(self.world).chain(input.size()).collect();
        let output = Tensor::f_empty(&shape, (input.kind(), input.device())).map_err(told)?;
        let mut work = null_mut();
        // SAFETY: as above, for both tensors.
        check(unsafe {
            ffi::segslurm_all_gather(self.raw, raw(&input), raw(&output), &raw mut work)
        })?;
        Ok(Pending { work: Work(work), tensor: output })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn told(error: tch::TchError) -> NativeError {
    NativeError(error.to_string())
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once.
        unsafe { ffi::segslurm_group_free(self.raw) }
    }
}

#[derive(Debug)]
struct Work(*mut RawWork);

// SAFETY: c10d's Work guards its state with a mutex.
unsafe impl Send for Work {}
// SAFETY: as above.
unsafe impl Sync for Work {}

impl Drop for Work {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once; c10d holds the tensors until the operation is over.
        unsafe { ffi::segslurm_work_free(self.0) }
    }
}

/// A collective in flight, with the tensor that it works on.
#[derive(Debug)]
#[must_use = "the result is not there until `wait`"]
pub struct Pending {
    work: Work,
    tensor: Tensor,
}

impl Pending {
    /// The tensor, once the collective is done. On CUDA the current stream waits, not the caller.
    pub fn wait(self) -> Result<Tensor, NativeError> {
        // SAFETY: `work` is alive.
        check(unsafe { ffi::segslurm_work_wait(self.work.0) })?;
        Ok(self.tensor)
    }

    /// Whether `wait` would return at once.
    pub fn is_done(&self) -> bool {
        let mut completed = 0;
        // SAFETY: `work` is alive, `completed` a valid place.
        check(unsafe { ffi::segslurm_work_is_completed(self.work.0, &raw mut completed) }).is_err()
            || completed != 0
    }
}
