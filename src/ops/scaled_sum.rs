//! A residual branch whose channels are scaled (Touvron et al. 2021, "layer scale"), in one pass.

use burn::tensor::Tensor;

use super::border::Handle;
use super::error::computed;
use super::function::{Function, apply};

/// `x + scale · y`, with `scale` `[c]` along the channels, which are `axis` of both.
pub fn scaled_sum<const D: usize>(
    x: Tensor<D>,
    y: Tensor<D>,
    scale: Tensor<1>,
    axis: usize,
) -> Tensor<D> {
    assert!(
        x.dims() == y.dims() && x.dims()[axis] == scale.dims()[0],
        "scaled_sum: {:?} and {:?} with {:?} factors along axis {axis}",
        x.dims(),
        y.dims(),
        scale.dims()
    );
    apply([x.into(), y.into(), scale.into()], ScaledSum { axis: axis as i64 })
}

#[derive(Debug, Clone, Copy)]
struct ScaledSum {
    axis: i64,
}

impl ScaledSum {
    /// `scale` in a shape that broadcasts over `like`.
    fn broad(self, scale: &tch::Tensor, like: &tch::Tensor) -> tch::Tensor {
        let mut shape = vec![1; like.dim()];
        shape[self.axis as usize] = -1;
        scale.reshape(&shape[..])
    }
}

impl Function<3> for ScaledSum {
    const NAME: &'static str = "scaled_sum";

    /// `y` and the scale.
    type Saved = [Handle; 2];

    fn forward(&self, [x, y, scale]: [Handle; 3], _: [bool; 3]) -> (Handle, Self::Saved) {
        let sum = x.f_addcmul(&y, &self.broad(&scale, &x));
        (Handle::new(computed("scaled_sum", [&x, &y], sum)), [y, scale])
    }

    fn backward(
        &self,
        [y, scale]: Self::Saved,
        grad: Handle,
        tracked: [bool; 3],
    ) -> [Option<Handle>; 3] {
        let others: Vec<i64> = (0..grad.dim() as i64).filter(|it| *it != self.axis).collect();
        let made = |result| Handle::new(computed("scaled_sum backward", [&grad], result));
        let of_y = tracked[1].then(|| made(grad.f_mul(&self.broad(&scale, &grad))));
        let of_scale = tracked[2].then(|| {
            made(grad.f_mul(&y).and_then(|it| it.f_sum_dim_intlist(&others[..], false, None)))
        });
        [tracked[0].then_some(grad.clone()), of_y, of_scale]
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{check, values};
    use super::*;

    #[test]
    fn channels_are_scaled_along_either_axis() {
        for (axis, count) in [(1, 3), (3, 5)] {
            let shape = [2, 3, 4, 5];
            check(
                &[values(120, 1), values(120, 2), values(count, 3)],
                |x| {
                    let [a, b] = [0, 1].map(|it| x[it].clone().reshape(shape));
                    scaled_sum(a, b, x[2].clone(), axis)
                },
                |x| {
                    let [a, b]: [Tensor<4>; 2] = [0, 1].map(|it| x[it].clone().reshape(shape));
                    let mut broad = [1; 4];
                    broad[axis] = count;
                    a + b * x[2].clone().reshape(broad)
                },
            );
        }
    }
}
