//! How images and convolution weights lie in memory: `[n, c, h, w]` in that order, or with the
//! channels of a pixel side by side.
//!
//! Nothing but speed depends on it. ATen's convolutions give what they were given; every operation
//! here takes both.

use burn::module::{Module, ModuleMapper, Param};
use tch::{Device, Kind, Tensor};

use super::border::{from_tch, to_tch};

/// The order in memory of tensors with four dimensions, whose shape is `[n, c, h, w]` in either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryFormat {
    #[default]
    Contiguous,
    /// `n`, `h`, `w`, `c`: torch's `channels_last`.
    ChannelsLast,
}

impl MemoryFormat {
    /// A tensor `[n, c, h, w]` that holds anything.
    pub fn empty(self, [n, c, h, w]: [i64; 4], options: (Kind, Device)) -> Tensor {
        match self {
            Self::Contiguous => Tensor::empty([n, c, h, w], options),
            Self::ChannelsLast => Tensor::empty([n, h, w, c], options).permute([0, 3, 1, 2]),
        }
    }

    /// A copy of `tensor` `[n, c, h, w]` in this format.
    pub fn copied(self, tensor: &Tensor) -> Tensor {
        let (n, c, h, w) = tensor.size4().expect("four dimensions");
        let mut copy = self.empty([n, c, h, w], (tensor.kind(), tensor.device()));
        copy.copy_(tensor);
        copy
    }

    /// `tensor` `[n, c, h, w]` without gaps in this format: itself where it lies so already.
    pub(super) fn dense(self, tensor: &Tensor) -> Tensor {
        match self {
            Self::Contiguous => tensor.contiguous(),
            Self::ChannelsLast => tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]),
        }
    }

    /// `module` with its weights `[out, in, h, w]` moved into this format: to storage of their own,
    /// so it has to come before anybody takes a handle to them.
    pub fn arrange<M: Module>(self, module: M) -> M {
        module.map(&mut Arrange(self))
    }
}

struct Arrange(MemoryFormat);

impl ModuleMapper for Arrange {
    fn map_float<const D: usize>(
        &mut self,
        param: Param<burn::tensor::Tensor<D>>,
    ) -> Param<burn::tensor::Tensor<D>> {
        if D != 4 {
            return param;
        }
        let value = param.val();
        let trained = value.is_require_grad();
        let moved = from_tch(self.0.copied(&to_tch(&value)), &value.device());
        Param::initialized(param.id, moved.set_require_grad(trained))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device as BurnDevice, Int, Tensor as BurnTensor};
    use tch::Tensor;

    use super::super::reference::{assert_close, labels, values};
    use super::super::*;
    use super::*;

    const SHAPE: [i64; 4] = [2, 4, 6, 5];

    /// Inputs of these shapes (those with four dimensions in `format`) through `run`: the output
    /// and every gradient.
    fn differentiate(
        shapes: &[&[i64]],
        format: MemoryFormat,
        run: impl Fn(&[BurnTensor<4>]) -> BurnTensor<4>,
    ) -> Vec<Vec<f64>> {
        let device = BurnDevice::libtorch().autodiff();
        let leaves: Vec<BurnTensor<4>> = (1..)
            .zip(shapes)
            .map(|(seed, shape)| {
                let numel = shape.iter().product::<i64>();
                let made = Tensor::from_slice(&values(numel as usize, seed)).view(*shape);
                from_tch(format.copied(&made), &device).require_grad()
            })
            .collect();
        let output = run(&leaves);
        let flat = |it: &Tensor| {
            Vec::<f64>::try_from(it.to_kind(Kind::Double).contiguous().view(-1)).expect("flat")
        };
        let mut found = vec![flat(&to_tch(&output))];
        let weights =
            Tensor::from_slice(&values(found[0].len(), 99)).view(to_tch(&output).size().as_slice());
        let mut grads =
            (output * from_tch::<4, _>(format.copied(&weights), &device)).sum().backward();
        found.extend(leaves.iter().map(|it| flat(&gradient(it, &mut grads).expect("a gradient"))));
        found
    }

    fn alike(what: &str, shapes: &[&[i64]], run: impl Fn(&[BurnTensor<4>]) -> BurnTensor<4>) {
        let plain = differentiate(shapes, MemoryFormat::Contiguous, &run);
        let last = differentiate(shapes, MemoryFormat::ChannelsLast, &run);
        for (place, (last, plain)) in last.iter().zip(&plain).enumerate() {
            assert_close(&format!("{what}, place {place}"), last, plain, 1e-10);
        }
    }

    fn line(x: &BurnTensor<4>) -> BurnTensor<1> {
        let count = x.shape().num_elements();
        x.clone().reshape([count])
    }

    fn target(size: [usize; 2]) -> BurnTensor<3, Int> {
        let made: Vec<i64> = (0..2 * size[0] * size[1])
            .map(|it| if it % 7 == 3 { 255 } else { (it % 4) as i64 })
            .collect();
        labels(&made, [2, size[0], size[1]], &BurnDevice::libtorch().autodiff())
    }

    #[test]
    fn every_operation_computes_the_same_in_both_formats() {
        let x: &[i64] = &SHAPE;
        for (dilation, groups) in [(1, 1), (2, 1), (1, 2)] {
            let conv =
                Conv { padding: [dilation; 2], dilation: [dilation; 2], groups, ..Conv::default() };
            alike("conv2d", &[x, &[6, 4 / groups as i64, 3, 3], &[6, 1, 1, 1]], |x| {
                conv2d(x[0].clone(), x[1].clone(), Some(line(&x[2])), conv)
            });
        }
        alike("conv2d, 1x1", &[x, &[6, 4, 1, 1]], |x| {
            conv2d(x[0].clone(), x[1].clone(), None, Conv::default())
        });
        for (training, activation) in
            [(true, Activation::None), (true, Activation::ReLU), (false, Activation::ReLU)]
        {
            alike("batch_norm", &[x, &[4, 1, 1, 1], &[4, 1, 1, 1]], |x| {
                let running = |fill: f64| {
                    from_tch(Tensor::full([4], fill, (Kind::Double, Device::Cpu)), &x[0].device())
                };
                let options = BatchNorm { training, activation, ..BatchNorm::default() };
                batch_norm(
                    x[0].clone(),
                    line(&x[1]),
                    line(&x[2]),
                    &running(0.5),
                    &running(2.0),
                    options,
                )
            });
        }
        alike("relu", &[x], |x| relu(x[0].clone() * 2.0));
        alike("add_relu", &[x, x], |x| add_relu(x[0].clone() * 2.0, x[1].clone()));
        alike("max_pool2d", &[x], |x| max_pool2d(x[0].clone(), [3, 3], [2, 2], [1, 1]));
        alike("avg_pool2d", &[x], |x| {
            avg_pool2d(x[0].clone(), [2, 2], [2, 2], [0, 0], true, false)
        });
        for size in [[1, 1], [2, 3]] {
            alike("adaptive_avg_pool2d", &[x], |x| adaptive_avg_pool2d(x[0].clone(), size));
        }
        for align_corners in [false, true] {
            alike("resize_bilinear", &[x], |x| {
                resize_bilinear(x[0].clone(), [9, 13], align_corners)
            });
        }
        alike("dropout2d", &[x], |x| dropout2d(x[0].clone() * 2.0, 0.5, 7));
        alike("concat", &[x, &[2, 3, 6, 5]], |x| concat(vec![x[0].clone(), x[1].clone()]));
    }

    #[test]
    fn every_loss_and_label_map_is_the_same_in_both_formats() {
        let x: &[i64] = &SHAPE;
        let one = |loss: BurnTensor<1>| loss.reshape([1, 1, 1, 1]);
        let weighted = CrossEntropy {
            class_weight: Some(Constant::from([0.5, 2.0, 1.25, 1.0])),
            reduction: Reduction::MeanNonIgnored,
            ..CrossEntropy::default()
        };
        alike("cross_entropy", &[x], |x| {
            one(cross_entropy(x[0].clone(), target([6, 5]), &weighted))
        });
        alike("resized_cross_entropy", &[x], |x| {
            one(resized_cross_entropy(x[0].clone(), target([13, 9]), &weighted, false).0)
        });
        alike("binary_cross_entropy", &[x], |x| {
            let options = BinaryCrossEntropy {
                class_weight: None,
                ignore_index: 255,
                reduction: Reduction::Mean,
            };
            one(binary_cross_entropy(x[0].clone(), target([6, 5]), &options))
        });
        let device = BurnDevice::libtorch();
        let logits = Tensor::from_slice(&values(240, 1)).view(SHAPE).to_kind(Kind::Float);
        let found = [MemoryFormat::Contiguous, MemoryFormat::ChannelsLast].map(|format| {
            let logits: BurnTensor<4> = from_tch(format.copied(&logits), &device);
            let percent = accuracy(&logits, &target([6, 5]).inner(), Some(255));
            (
                to_tch(&resized_label_map(&logits, [13, 9], false)),
                to_tch(&percent).double_value(&[0]),
            )
        });
        assert!(found[0].0.equal(&found[1].0));
        assert_eq!(found[0].1, found[1].1);
    }

    #[test]
    fn a_module_keeps_its_values_and_its_parameters_in_another_format() {
        let device = BurnDevice::libtorch().autodiff();
        for size in [[3, 4, 2, 2], [3, 4, 1, 1]] {
            let numel = size.iter().product::<i64>();
            let made = Tensor::from_slice(&values(numel as usize, 1)).view(size);
            let trained =
                Param::from_tensor(from_tch::<4, burn::tensor::Float>(made.copy(), &device));
            let id = trained.id;
            let weights = MemoryFormat::ChannelsLast
                .arrange(vec![trained.clone(), trained.set_require_grad(false)]);
            let handle = to_tch(&weights[0].val());
            assert_eq!(
                handle.stride(),
                [size[1] * size[2] * size[3], 1, size[1] * size[3], size[1]]
            );
            assert!(handle.equal(&made));
            assert_eq!((weights[0].id, weights[0].val().is_require_grad()), (id, true));
            assert!(!weights[1].val().is_require_grad());
            let back = MemoryFormat::Contiguous.arrange(weights);
            assert!(to_tch(&back[0].val()).is_contiguous() && to_tch(&back[0].val()).equal(&made));
        }
    }

    #[test]
    fn a_view_of_a_weight_is_not_written_over_after_its_format_changed() {
        let weight =
            Param::from_tensor(BurnTensor::<4>::ones([2, 4, 3, 3], &BurnDevice::libtorch()) * 3.0);
        let weight = MemoryFormat::ChannelsLast.arrange(MemoryFormat::Contiguous.arrange(weight));
        let rows = weight.val().reshape([2, 36]);
        let centred = rows.clone() - rows.mean_dim(1);
        let scaled = weight.val().reshape([72]) * 2.0;
        assert_eq!(
            (centred.sum().into_scalar::<f32>(), scaled.sum().into_scalar::<f32>()),
            (0.0, 432.0)
        );
        assert_eq!(weight.val().sum().into_scalar::<f32>(), 216.0);
    }
}
