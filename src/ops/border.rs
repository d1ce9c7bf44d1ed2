//! The border between Burn's tensors and libtorch's: the same storage seen from both sides, and the devices to put it on.

use burn::backend::{BackendTensor, DispatchTensorKind, LibTorch};
use burn::tensor::kind::Basic;
use burn::tensor::{BackendPrimitive, Device, Gradients, Tensor};
use burn_tch::TchTensor;

/// The libtorch tensor behind `x`, sharing its storage; the value only, without `x`'s place in the graph.
pub fn to_tch<const D: usize, K: Basic>(x: &Tensor<D, K>) -> tch::Tensor {
    primitive(x.clone()).tensor
}

/// The libtorch primitive behind `x`, a handle that Burn counts.
pub(super) fn primitive<const D: usize, K: Basic>(x: Tensor<D, K>) -> TchTensor {
    fn open(kind: DispatchTensorKind) -> TchTensor {
        match kind {
            DispatchTensorKind::LibTorch(
                BackendTensor::Float(it) | BackendTensor::Int(it) | BackendTensor::Bool(it) | BackendTensor::Quantized(it),
            ) => it,
            DispatchTensorKind::LibTorch(BackendTensor::Autodiff(it)) => it.into_primitive(),
            DispatchTensorKind::Autodiff(inner) => open(*inner),
        }
    }
    open(x.into_dispatch().kind)
}

/// `x` as a Burn tensor that shares its storage, for `device`'s side of autodiff: on an autodiff device it is a constant
/// until `require_grad` makes it a leaf. The data stays where it is: `device` does not move it.
pub fn from_tch<const D: usize, K>(x: tch::Tensor, device: &Device) -> Tensor<D, K>
where
    K: burn::tensor::kind::Autodiff + BackendPrimitive<LibTorch, Primitive = TchTensor>,
{
    assert_eq!(x.dim(), D, "from_tch: expected {D} dimensions, got a tensor of shape {:?}", x.size());
    let tensor = Tensor::from_primitive::<LibTorch>(TchTensor::new(x));
    if device.is_autodiff() { tensor.autodiff() } else { tensor }
}

/// Takes the gradient of the leaf `x` out of `grads`, sharing its storage; `None` if nothing reached `x`.
pub fn gradient<const D: usize>(x: &Tensor<D>, grads: &mut Gradients) -> Option<tch::Tensor> {
    x.grad_remove(grads).map(|grad| to_tch(&grad))
}

/// Where libtorch puts what Burn puts on `device`.
pub fn place(device: &Device) -> tch::Device {
    to_tch(&Tensor::<1>::zeros([1], device)).device()
}

/// The CUDA device of that index, or the CPU.
pub fn device(gpu: Option<usize>) -> Device {
    gpu.map_or_else(Device::libtorch, Device::libtorch_cuda)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Int;

    use super::*;

    #[test]
    fn both_sides_of_the_border_share_storage() {
        for device in [Device::libtorch(), Device::libtorch().autodiff()] {
            let x: Tensor<2> = from_tch(tch::Tensor::zeros([2, 3], (tch::Kind::Float, tch::Device::Cpu)), &device);
            assert_eq!(x.device().is_autodiff(), device.is_autodiff());
            let _ = to_tch(&x).fill_(4.0);
            assert_eq!(x.clone().sum().into_scalar::<f32>(), 24.0);
        }
        let leaf = Tensor::<1>::zeros([3], &Device::libtorch().autodiff()).require_grad();
        let _ = to_tch(&leaf).fill_(2.0);
        assert_eq!(leaf.sum().into_scalar::<f32>(), 6.0);
        let labels: Tensor<1, Int> = from_tch(tch::Tensor::from_slice(&[1_i64, 2]), &Device::libtorch().autodiff());
        assert_eq!(Vec::<i64>::try_from(to_tch(&labels)).expect("labels"), [1, 2]);
    }

    #[test]
    fn the_gradient_shares_storage_and_can_be_taken_once() {
        let device = Device::libtorch().autodiff();
        let x = Tensor::<1>::ones([3], &device).require_grad();
        let unused = Tensor::<1>::ones([3], &device).require_grad();
        let mut grads = (x.clone() * 3.0).sum().backward();
        let grad = gradient(&x, &mut grads).expect("a gradient");
        assert_eq!(Vec::<f32>::try_from(grad).expect("values"), [3.0; 3]);
        assert!(gradient(&x, &mut grads).is_none());
        assert!(gradient(&unused, &mut grads).is_none());
    }
}
