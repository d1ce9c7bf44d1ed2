//! Norms over a part of each sample, which know no batch: layer norm and group norm. An instance
//! norm is a group norm with as many groups as channels.

use burn::tensor::Tensor;
use segslurm_native::call::{Arg, call};

use super::border::Handle;
use super::count;
use super::error::computed;
use super::function::{Function, apply};

/// Normalises `x` over its last axis (Ba et al. 2016), then scales by `weight` and shifts by
/// `bias`, both of that axis's length.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    let length = x.dims()[D - 1];
    let sizes = [weight.dims(), bias.dims()];
    assert!(
        sizes == [[length]; 2],
        "layer_norm: the last axis has {length} values, but weight and bias have {sizes:?}"
    );
    apply([x.into(), weight.into(), bias.into()], LayerNorm { eps })
}

/// Normalises `x` `[n, c, h, w]` over the channels and pixels of each of `groups` groups (Wu and He
/// 2018), then scales and shifts each channel by `weight` and `bias` `[c]`.
pub fn group_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
) -> Tensor<4> {
    let [_, channels, ..] = x.dims();
    let sizes = [weight.dims(), bias.dims()];
    assert!(
        groups > 0 && channels % groups == 0 && sizes == [[channels]; 2],
        "group_norm: {channels} channels in {groups} groups, with weight and bias of {sizes:?}"
    );
    apply([x.into(), weight.into(), bias.into()], GroupNorm { groups: groups as i64, eps })
}

#[derive(Debug, Clone)]
struct Saved {
    x: Handle,
    weight: Handle,
    bias: Handle,
    mean: Handle,
    rstd: Handle,
}

#[derive(Debug, Clone, Copy)]
struct LayerNorm {
    eps: f64,
}

impl Function<3> for LayerNorm {
    const NAME: &'static str = "layer_norm";

    fn multiply_adds(&self, _: [&[i64]; 3], output: &[i64]) -> u64 {
        5 * count::values(output)
    }

    type Saved = Saved;

    fn forward(&self, [x, weight, bias]: [Handle; 3], _: [bool; 3]) -> (Handle, Saved) {
        let shape = [x.size().last().copied().unwrap_or_default()];
        let arguments: [Arg; 5] =
            [(&*x).into(), (&shape).into(), (&*weight).into(), (&*bias).into(), self.eps.into()];
        let found = call(c"aten::native_layer_norm", &arguments)
            .and_then(|mut it| Ok([it.tensor()?, it.tensor()?, it.tensor()?]));
        let [y, mean, rstd] = computed("layer_norm", [&x], found).map(Handle::new);
        (y, Saved { x, weight, bias, mean, rstd })
    }

    fn backward(&self, saved: Saved, grad: Handle, mask: [bool; 3]) -> [Option<Handle>; 3] {
        let Saved { x, weight, bias, mean, rstd } = saved;
        let shape = [x.size().last().copied().unwrap_or_default()];
        let grad = grad.contiguous();
        let arguments: [Arg; 8] = [
            (&grad).into(),
            (&*x).into(),
            (&shape).into(),
            (&*mean).into(),
            (&*rstd).into(),
            (&*weight).into(),
            (&*bias).into(),
            (&mask).into(),
        ];
        let found = call(c"aten::native_layer_norm_backward", &arguments)
            .and_then(|mut it| Ok([it.optional()?, it.optional()?, it.optional()?]));
        computed("layer_norm backward", [&grad, &x], found).map(|it| it.map(Handle::new))
    }
}

#[derive(Debug, Clone, Copy)]
struct GroupNorm {
    groups: i64,
    eps: f64,
}

/// Samples, channels and pixels, as ATen wants them told.
fn sizes(x: &tch::Tensor) -> [i64; 3] {
    let size = x.size();
    [size[0], size[1], size[2] * size[3]]
}

impl Function<3> for GroupNorm {
    const NAME: &'static str = "group_norm";

    fn multiply_adds(&self, _: [&[i64]; 3], output: &[i64]) -> u64 {
        5 * count::values(output)
    }

    type Saved = Saved;

    fn forward(&self, [x, weight, bias]: [Handle; 3], _: [bool; 3]) -> (Handle, Saved) {
        let [n, channels, pixels] = sizes(&x);
        let x = x.derive(x.contiguous());
        let arguments: [Arg; 8] = [
            (&*x).into(),
            (&*weight).into(),
            (&*bias).into(),
            n.into(),
            channels.into(),
            pixels.into(),
            self.groups.into(),
            self.eps.into(),
        ];
        let found = call(c"aten::native_group_norm", &arguments)
            .and_then(|mut it| Ok([it.tensor()?, it.tensor()?, it.tensor()?]));
        let [y, mean, rstd] = computed("group_norm", [&x], found).map(Handle::new);
        (y, Saved { x, weight, bias, mean, rstd })
    }

    fn backward(&self, saved: Saved, grad: Handle, mask: [bool; 3]) -> [Option<Handle>; 3] {
        let Saved { x, weight, mean, rstd, .. } = saved;
        let [n, channels, pixels] = sizes(&x);
        let grad = grad.contiguous();
        let arguments: [Arg; 10] = [
            (&grad).into(),
            (&*x).into(),
            (&*mean).into(),
            (&*rstd).into(),
            (&*weight).into(),
            n.into(),
            channels.into(),
            pixels.into(),
            self.groups.into(),
            (&mask).into(),
        ];
        let found = call(c"aten::native_group_norm_backward", &arguments)
            .and_then(|mut it| Ok([it.optional()?, it.optional()?, it.optional()?]));
        computed("group_norm backward", [&grad, &x], found).map(|it| it.map(Handle::new))
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{check, values};
    use super::*;

    fn normalized<const D: usize>(x: Tensor<2>, eps: f64, shape: [usize; D]) -> Tensor<D> {
        let centred = x.clone() - x.mean_dim(1);
        let var = centred.clone().powi_scalar(2).mean_dim(1);
        (centred / (var + eps).sqrt()).reshape(shape)
    }

    #[test]
    fn a_layer_norm_matches_its_formula() {
        check(
            &[values(2 * 3 * 5, 1), values(5, 2), values(5, 3)],
            |x| layer_norm(x[0].clone().reshape([2, 3, 5]), x[1].clone(), x[2].clone(), 1e-5),
            |x| {
                let y = normalized(x[0].clone().reshape([6, 5]), 1e-5, [2, 3, 5]);
                y * x[1].clone().reshape([1, 1, 5]) + x[2].clone().reshape([1, 1, 5])
            },
        );
    }

    #[test]
    fn a_group_norm_matches_its_formula_from_one_group_to_one_for_each_channel() {
        for groups in [1, 2, 4] {
            check(
                &[values(2 * 4 * 6, 1), values(4, 2), values(4, 3)],
                |x| {
                    group_norm(
                        x[0].clone().reshape([2, 4, 2, 3]),
                        x[1].clone(),
                        x[2].clone(),
                        groups,
                        1e-5,
                    )
                },
                |x| {
                    let y = normalized(
                        x[0].clone().reshape([2 * groups, 24 / groups]),
                        1e-5,
                        [2, 4, 2, 3],
                    );
                    y * x[1].clone().reshape([1, 4, 1, 1]) + x[2].clone().reshape([1, 4, 1, 1])
                },
            );
        }
    }
}
