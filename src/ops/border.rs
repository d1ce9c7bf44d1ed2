//! The border between Burn's tensors and libtorch's: the same storage seen from both sides, and the
//! devices to put it on.
//!
//! Burn writes over a tensor that it consumes when it counts one owner of its storage. libtorch's
//! handles are not in that count, so a storage that both sides know may cross here alone, and only
//! as a [`Handle`], which is.

use std::ffi::c_void;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;

use burn::backend::{BackendTensor, DispatchTensorKind, LibTorch};
use burn::tensor::kind::Basic;
use burn::tensor::{BackendPrimitive, Device, Gradients, Tensor};
use burn_tch::{Storage, StorageRef, TchTensor};
use segslurm_native::aten;

use super::device::place;

/// A libtorch tensor that Burn counts among the owners of its storage: as long as one exists, no
/// operation of Burn's writes over what it shows. Reading goes through `Deref`; writing through it
/// is seen by every other owner, which is how weights change.
#[derive(Debug, Clone)]
pub struct Handle(TchTensor);

thread_local! {
    /// Part of every storage whose owners are not all known. One owner of it is never given back,
    /// so it never has a last one.
    static SHARED: StorageRef = {
        let shared = counted(std::ptr::null_mut());
        std::mem::forget(Arc::clone(&shared));
        shared
    };
}

/// A place as burn-tch counts its owners.
#[expect(
    clippy::arc_with_non_send_sync,
    reason = "burn-tch's own type, which it sends between threads"
)]
fn counted(place: *mut c_void) -> StorageRef {
    Arc::new(place)
}

impl Handle {
    /// Takes a tensor over. If it is not the only handle to its storage, Burn will never write over
    /// it: it cannot know who else reads there.
    pub fn new(tensor: tch::Tensor) -> Self {
        if aten::is_exclusive(&tensor) {
            return Self(TchTensor::new(tensor));
        }
        let storage = Storage::View {
            buffer_ref: SHARED.with(Arc::clone),
            view_ref: counted(tensor.data_ptr()),
        };
        Self(TchTensor { tensor, storage })
    }

    /// The tensor behind `x`: the value only, without `x`'s place in the graph.
    pub fn of<const D: usize, K: Basic>(x: Tensor<D, K>) -> Self {
        fn open(kind: DispatchTensorKind) -> TchTensor {
            match kind {
                DispatchTensorKind::LibTorch(
                    BackendTensor::Float(it)
                    | BackendTensor::Int(it)
                    | BackendTensor::Bool(it)
                    | BackendTensor::Quantized(it),
                ) => it,
                DispatchTensorKind::LibTorch(BackendTensor::Autodiff(it)) => it.into_primitive(),
                DispatchTensorKind::Autodiff(inner) => open(*inner),
            }
        }
        Self(open(x.into_dispatch().kind))
    }

    /// `tensor`, made of this one: it may be a view, and then counts as an owner of the same
    /// storage.
    pub(super) fn derive(&self, tensor: tch::Tensor) -> Self {
        if aten::is_exclusive(&tensor) {
            Self::new(tensor)
        } else {
            Self(TchTensor::partial(tensor, self.0.storage.clone()))
        }
    }

    /// The same values in another shape; a view where that is possible.
    #[must_use]
    pub fn reshaped(&self, shape: &[i64]) -> Self {
        self.derive(self.reshape(shape))
    }

    /// Height, width and whatever else there is, as sizes.
    pub fn shape(&self) -> Vec<usize> {
        self.size().into_iter().map(|it| it as usize).collect()
    }

    /// Zeros of the same shape and type, at the same places in memory.
    #[must_use]
    pub fn zeros(&self) -> Self {
        Self::new(self.zeros_like())
    }

    /// The zero from which steps are counted: `[]` float32 on the same device.
    #[must_use]
    pub fn step_counter(&self) -> Self {
        Self::new(tch::Tensor::zeros([], (tch::Kind::Float, self.device())))
    }

    /// The same values in storage of its own.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::new(self.copy())
    }

    /// Another owner of a tensor that lies in a checkpoint.
    pub fn sharing(tensor: &tch::Tensor) -> Self {
        Self::new(tensor.shallow_clone())
    }

    /// Writes the values of `other`, of one shape, over its own.
    pub fn assign(&mut self, other: &Self) {
        self.copy_(other);
    }

    /// Moves `share` of the way to `other`: `self + share (other - self)`, as `lerp` computes it.
    pub fn approach(&mut self, other: &Self, share: f64) {
        let _ = self.lerp_(other, share);
    }

    /// Adds `share (other - self)`.
    pub fn add_difference(&mut self, other: &Self, share: f64) {
        let difference = (&**other - &self.0.tensor) * share;
        let _ = self.g_add_(&difference);
    }

    /// Whether it holds fractions.
    pub fn is_float(&self) -> bool {
        self.is_floating_point()
    }

    /// The number in a tensor of one element. Waits for the device.
    pub fn number(&self) -> f64 {
        self.double_value(&vec![0; self.dim()])
    }

    /// Bytes of its values.
    pub fn size_in_bytes(&self) -> u64 {
        (self.numel() * self.kind().elt_size_in_bytes()) as u64
    }

    /// Writes one value everywhere.
    pub fn fill_with(&mut self, value: f64) {
        let _ = self.fill_(value);
    }

    /// Writes these values, row by row.
    pub fn write(&mut self, values: &[f32]) {
        let size = self.size();
        self.copy_(&tch::Tensor::from_slice(values).view(&size[..]));
    }

    /// Where its first value is, for comparing.
    pub fn address(&self) -> usize {
        self.data_ptr() as usize
    }

    /// The values as bytes, on the host; for tensors of bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let line = self.to_device(tch::Device::Cpu).contiguous().flatten(0, -1);
        let mut bytes = vec![0; line.numel()];
        line.copy_data_u8(&mut bytes, line.numel());
        bytes
    }

    /// Whether writing over it goes unnoticed: it is the last handle to a storage without repeated
    /// elements.
    pub(super) fn is_exclusive(&self) -> bool {
        aten::is_exclusive(&self.0.tensor)
    }

    pub(super) fn from_primitive(primitive: TchTensor) -> Self {
        Self(primitive)
    }

    pub(super) fn into_primitive(self) -> TchTensor {
        self.0
    }

    /// The tensor alone, out of Burn's count; a copy where somebody else owns its storage too.
    pub fn into_tensor(self) -> tch::Tensor {
        if self.0.storage.can_mut() { self.0.tensor } else { self.0.tensor.copy() }
    }

    /// As a Burn tensor on `device`'s side of autodiff: on an autodiff device it is a constant
    /// until `require_grad` makes it a leaf. The data stays where it is: `device` does not move it.
    pub fn into_burn<const D: usize, K>(self, device: &Device) -> Tensor<D, K>
    where
        K: burn::tensor::kind::Autodiff + BackendPrimitive<LibTorch, Primitive = TchTensor>,
    {
        assert_eq!(
            self.dim(),
            D,
            "expected {D} dimensions, got a tensor of shape {:?}",
            self.size()
        );
        let tensor = Tensor::from_primitive::<LibTorch>(self.0);
        if device.is_autodiff() { tensor.autodiff() } else { tensor }
    }
}

impl PartialEq for Handle {
    /// Whether the values are the same.
    fn eq(&self, other: &Self) -> bool {
        self.0.tensor == other.0.tensor
    }
}

impl Deref for Handle {
    type Target = tch::Tensor;

    fn deref(&self) -> &tch::Tensor {
        &self.0.tensor
    }
}

impl DerefMut for Handle {
    fn deref_mut(&mut self) -> &mut tch::Tensor {
        &mut self.0.tensor
    }
}

/// The libtorch tensor behind `x`, sharing its storage; the value only, without `x`'s place in the
/// graph.
pub fn to_tch<const D: usize, K: Basic>(x: &Tensor<D, K>) -> Handle {
    Handle::of(x.clone())
}

/// `x` as a Burn tensor that shares its storage, for `device`'s side of autodiff
/// ([`Handle::into_burn`]).
pub fn from_tch<const D: usize, K>(x: tch::Tensor, device: &Device) -> Tensor<D, K>
where
    K: burn::tensor::kind::Autodiff + BackendPrimitive<LibTorch, Primitive = TchTensor>,
{
    Handle::new(x).into_burn(device)
}

/// Takes the gradient of the leaf `x` out of `grads`; `None` if nothing reached `x`.
pub fn gradient<const D: usize>(x: &Tensor<D>, grads: &mut Gradients) -> Option<Handle> {
    x.grad_remove(grads).map(Handle::of)
}

/// A zero `[1]` of 64 bits.
pub fn counter(device: &Device) -> Tensor<1, burn::tensor::Int> {
    from_tch(tch::Tensor::zeros([1], (tch::Kind::Int64, place(device))), device)
}

/// Whole numbers `[n]` of 64 bits.
pub fn indices(values: &[i64], device: &Device) -> Tensor<1, burn::tensor::Int> {
    from_tch(tch::Tensor::from_slice(values).to_device(place(device)), device)
}

/// The shape and the values of an array in NumPy's format.
pub fn read_npy(path: &Path) -> Result<(Vec<usize>, Vec<f32>), String> {
    let array = tch::Tensor::read_npy(path).map_err(|error| error.to_string())?;
    let values = Vec::try_from(array.to_kind(tch::Kind::Float).flatten(0, -1))
        .map_err(|error: tch::TchError| error.to_string())?;
    Ok((array.size().into_iter().map(|it| it as usize).collect(), values))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Int;

    use super::*;

    #[test]
    fn both_sides_of_the_border_share_storage() {
        for device in [Device::libtorch(), Device::libtorch().autodiff()] {
            let x: Tensor<2> =
                from_tch(tch::Tensor::zeros([2, 3], (tch::Kind::Float, tch::Device::Cpu)), &device);
            assert_eq!(x.device().is_autodiff(), device.is_autodiff());
            let _ = to_tch(&x).fill_(4.0);
            assert_eq!(x.clone().sum().into_scalar::<f32>(), 24.0);
        }
        let leaf = Tensor::<1>::zeros([3], &Device::libtorch().autodiff()).require_grad();
        let _ = to_tch(&leaf).fill_(2.0);
        assert_eq!(leaf.sum().into_scalar::<f32>(), 6.0);
        let labels: Tensor<1, Int> =
            from_tch(tch::Tensor::from_slice(&[1_i64, 2]), &Device::libtorch().autodiff());
        assert_eq!(Vec::<i64>::try_from(&*to_tch(&labels)).expect("labels"), [1, 2]);
    }

    #[test]
    fn a_view_that_is_read_after_its_tensor_was_consumed_shows_what_it_showed() {
        let threes = || Tensor::<2>::ones([2, 3], &Device::libtorch()) * 3.0;
        let all = |view: &tch::Tensor, value: f64| {
            assert!(view.eq(value).all().int64_value(&[]) == 1, "{view}");
        };
        let x = threes();
        let view = to_tch(&x);
        let doubled = (x * 2.0).reshape([6]) + 1.0;
        all(&view, 3.0);
        all(&to_tch(&doubled), 7.0);
        // A handle of libtorch's that Burn has never seen.
        let own = to_tch(&threes()).copy();
        let seen: Tensor<2> = from_tch(own.shallow_clone(), &Device::libtorch());
        let _ = seen.clone().reshape([3, 2]) * 2.0;
        let _ = seen.slice([0..1, 0..3]) + 5.0;
        all(&own, 3.0);
        let row: Tensor<1> = from_tch(own.select(0, 1), &Device::libtorch());
        let _ = row.exp();
        all(&own, 3.0);
        // What only one of the two sides knows may be written over, and is.
        let alone: Tensor<2> = from_tch(own.copy(), &Device::libtorch());
        let place = to_tch(&alone).data_ptr();
        assert_eq!(to_tch(&(alone * 2.0)).data_ptr(), place);
    }

    #[test]
    fn a_tensor_that_leaves_the_count_is_nobody_elses() {
        let x = Tensor::<1>::ones([3], &Device::libtorch());
        let mut copied = to_tch(&x).into_tensor();
        let _ = copied.fill_(7.0);
        assert_eq!(x.clone().sum().into_scalar::<f32>(), 3.0);
        let place = to_tch(&x).data_ptr();
        assert_eq!(Handle::of(x).into_tensor().data_ptr(), place);
    }

    #[test]
    fn the_gradient_shares_storage_and_can_be_taken_once() {
        let device = Device::libtorch().autodiff();
        let x = Tensor::<1>::ones([3], &device).require_grad();
        let unused = Tensor::<1>::ones([3], &device).require_grad();
        let mut grads = (x.clone() * 3.0).sum().backward();
        let grad = gradient(&x, &mut grads).expect("a gradient");
        assert_eq!(Vec::<f32>::try_from(&*grad).expect("values"), [3.0; 3]);
        assert!(gradient(&x, &mut grads).is_none());
        assert!(gradient(&unused, &mut grads).is_none());
    }
}
