//! A device's settings and queues, which `tch` does not expose.
//!
//! CUDA works through queues (streams), one after the other within a queue. Computations have one;
//! copies that must not wait for them have another, the [`CopyStream`]. On the CPU it is no queue
//! at all: the same calls then copy at once.

use std::ptr::null_mut;

use tch::{Device, Tensor};

use crate::ffi::{self, RawEvent, RawStream, RawTensor};
use crate::{NativeError, check};

/// Whether products of `f32` may be computed in TF32 on CUDA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tf32 {
    /// In cuDNN's convolutions; PyTorch's default is true.
    pub convolutions: bool,
    /// In cuBLAS's matrix products; PyTorch's default is false.
    pub matmuls: bool,
}

/// Allows TF32 in convolutions and matrix products, or forbids it in both.
pub fn allow_tf32(allow: bool) -> Result<(), NativeError> {
    // SAFETY: takes a number, touches no memory of ours.
    check(unsafe { ffi::segslurm_allow_tf32(allow.into()) })
}

/// Where TF32 is allowed now.
pub fn tf32() -> Result<Tf32, NativeError> {
    let (mut convolutions, mut matmuls) = (0, 0);
    // SAFETY: the outputs are valid places.
    check(unsafe { ffi::segslurm_tf32(&raw mut convolutions, &raw mut matmuls) })?;
    Ok(Tf32 { convolutions: convolutions != 0, matmuls: matmuls != 0 })
}

/// Makes it an error to let the host wait for a CUDA device, except through [`Readback`]: for
/// finding hidden waits. Of the whole process; without the `cuda` feature nothing is noticed.
pub fn forbid_waiting(forbid: bool) -> Result<(), NativeError> {
    // SAFETY: takes a number, touches no memory of ours.
    check(unsafe { ffi::segslurm_forbid_waiting(forbid.into()) })
}

fn raw(tensor: &Tensor) -> *const RawTensor {
    tensor.as_ptr().cast()
}

fn own(raw: *mut RawTensor) -> Tensor {
    // SAFETY: called with what a successful call of the shim left: a fresh `new at::Tensor`, which
    // nobody else holds.
    unsafe { Tensor::from_ptr(raw.cast()) }
}

fn index(device: Device) -> Option<i32> {
    match device {
        Device::Cuda(index) => Some(index as i32),
        _ => None,
    }
}

/// A small host tensor on `device`. To CUDA it goes from pinned memory, in the queue of the
/// computations; the host does not wait.
pub fn send(host: &Tensor, device: Device) -> Result<Tensor, NativeError> {
    let Some(index) = index(device) else { return Ok(host.to_device(device)) };
    let mut sent = null_mut();
    // SAFETY: the tensor outlives the call and the output is a valid place.
    check(unsafe { ffi::segslurm_send(raw(host), index, &raw mut sent) })?;
    Ok(own(sent))
}

/// A queue of a device for copies beside its computations.
#[derive(Debug)]
pub struct CopyStream {
    /// Null where copies have no queue of their own.
    raw: *mut RawStream,
    device: Device,
}

// SAFETY: a CUDA stream may be used from any thread; what is behind the pointer never changes.
unsafe impl Send for CopyStream {}
// SAFETY: as above.
unsafe impl Sync for CopyStream {}

impl CopyStream {
    pub fn new(device: Device) -> Result<Self, NativeError> {
        let mut raw = null_mut();
        if let Some(index) = index(device) {
            // SAFETY: the output is a valid place.
            check(unsafe { ffi::segslurm_stream_new(index, &raw mut raw) })?;
        }
        Ok(Self { raw, device })
    }

    pub fn device(&self) -> Device {
        self.device
    }

    /// Does `work` with this queue as the thread's current one: what it queues comes after the
    /// copies, not after the computations.
    pub fn on<T>(&self, work: impl FnOnce() -> T) -> Result<T, NativeError> {
        struct Restore(*mut RawStream);
        impl Drop for Restore {
            fn drop(&mut self) {
                if !self.0.is_null() {
                    // SAFETY: made by `segslurm_stream_enter`, given back once.
                    unsafe { ffi::segslurm_stream_restore(self.0) }
                }
            }
        }
        let mut restore = Restore(null_mut());
        if !self.raw.is_null() {
            // SAFETY: the stream is alive and the output is a valid place.
            check(unsafe { ffi::segslurm_stream_enter(self.raw, &raw mut restore.0) })?;
        }
        Ok(work())
    }

    /// Starts to copy `tensor`, as what was queued until now leaves it, to the host. It must not be
    /// written to meanwhile.
    pub fn download(&self, tensor: &Tensor) -> Result<Readback, NativeError> {
        if self.raw.is_null() || index(tensor.device()).is_none() {
            return Ok(Readback { tensor: tensor.shallow_clone(), done: None });
        }
        let (mut host, mut done) = (null_mut(), null_mut());
        // SAFETY: stream and tensor outlive the call and the outputs are valid places.
        check(unsafe {
            ffi::segslurm_download(self.raw, raw(tensor), &raw mut host, &raw mut done)
        })?;
        Ok(Readback { tensor: own(host), done: Some(Event(done)) })
    }

    /// Starts to copy `parts`, one after the other as one tensor of bytes, to the device. They are
    /// read before this returns.
    pub fn upload(&self, parts: &[&[u8]]) -> Result<Upload, NativeError> {
        let (starts, sizes): (Vec<*const u8>, Vec<usize>) =
            parts.iter().map(|it| (it.as_ptr(), it.len())).unzip();
        let pinned = index(self.device).is_some();
        let mut packed = null_mut();
        // SAFETY: the lists hold `parts.len()` places and lengths of slices that outlive the call;
        // the output is a valid place.
        check(unsafe {
            ffi::segslurm_pack(
                starts.as_ptr(),
                sizes.as_ptr(),
                parts.len(),
                pinned.into(),
                &raw mut packed,
            )
        })?;
        let packed = own(packed);
        if self.raw.is_null() {
            return Ok(Upload { tensor: send(&packed, self.device)?, done: None });
        }
        let (mut tensor, mut done) = (null_mut(), null_mut());
        // SAFETY: stream and tensor outlive the call (libtorch keeps pinned memory until the copy
        // is done); the outputs are valid places.
        check(unsafe {
            ffi::segslurm_upload(self.raw, raw(&packed), &raw mut tensor, &raw mut done)
        })?;
        Ok(Upload { tensor: own(tensor), done: Some(Event(done)) })
    }
}

impl Drop for CopyStream {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once; null is no stream.
        unsafe { ffi::segslurm_stream_free(self.raw) }
    }
}

/// A mark in a queue.
#[derive(Debug)]
struct Event(*mut RawEvent);

// SAFETY: a CUDA event may be waited for from any thread; methods take `&self` one at a time, as
// `Event` is not `Sync`.
unsafe impl Send for Event {}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by the shim, freed once.
        unsafe { ffi::segslurm_event_free(self.0) }
    }
}

/// A tensor on its way to the host.
#[derive(Debug)]
#[must_use = "the values are not there until `wait`"]
pub struct Readback {
    tensor: Tensor,
    done: Option<Event>,
}

impl Readback {
    /// The tensor on the host. Waits for the copy and what came before it, not for what was queued
    /// since.
    pub fn wait(self) -> Result<Tensor, NativeError> {
        match &self.done {
            // SAFETY: the event is alive.
            Some(done) => check(unsafe { ffi::segslurm_event_wait(done.0) }).map(|()| self.tensor),
            None => Ok(self.tensor.to_device(Device::Cpu)),
        }
    }
}

/// Bytes on their way to the device.
#[derive(Debug)]
#[must_use = "the bytes are not there until `ready`"]
pub struct Upload {
    tensor: Tensor,
    done: Option<Event>,
}

impl Upload {
    /// The bytes `[n]` on the device, for computations that are queued from now on. They wait for
    /// the copy; the host does not.
    pub fn ready(self) -> Result<Tensor, NativeError> {
        if let Some(done) = &self.done {
            // SAFETY: event and tensor are alive.
            check(unsafe { ffi::segslurm_event_before(done.0, raw(&self.tensor)) })?;
        }
        Ok(self.tensor)
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn on_the_cpu_copies_need_no_queue() {
        let copies = CopyStream::new(Device::Cpu).expect("no stream");
        let mut values = Tensor::from_slice(&[1.0_f64, 2.0]);
        let readback = copies.download(&values).expect("a copy");
        assert_eq!(
            Vec::<f64>::try_from(readback.wait().expect("values")).expect("flat"),
            [1.0, 2.0]
        );
        let nested =
            copies.on(|| copies.on(|| values.fill_(3.0).size()).expect("inner")).expect("outer");
        assert_eq!(nested, [2]);
        let bytes = copies.upload(&[&[1, 2], &[], &[3]]).expect("a copy").ready().expect("bytes");
        assert_eq!(
            (bytes.kind(), Vec::<u8>::try_from(bytes).expect("flat")),
            (Kind::Uint8, vec![1, 2, 3])
        );
        assert_eq!(copies.upload(&[]).expect("a copy").ready().expect("bytes").size(), [0]);
        assert_eq!(send(&values, Device::Cpu).expect("a copy").size(), [2]);
    }
}
