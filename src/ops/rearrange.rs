//! Values taken from other places: rolled, padded, cut into windows, gathered, sampled.

use burn::tensor::{Int, Tensor};
use segslurm_native::NativeError;
use segslurm_native::call::{Arg, call, call1};
use tch::Kind;

use super::border::{Handle, from_tch, to_tch};
use super::count;
use super::error::computed;
use super::function::{Function, apply};

/// Moves the values of `x` by `shifts` along `axes`; what leaves on one side comes in on the other.
pub fn roll<const D: usize, const N: usize>(
    x: Tensor<D>,
    shifts: [i64; N],
    axes: [usize; N],
) -> Tensor<D> {
    let axes = axes.map(|it| it as i64);
    apply([x.into()], Roll { shifts: shifts.to_vec(), axes: axes.to_vec() })
}

/// Surrounds the last two axes of `x` with `value`: so many places on the left, right, top and
/// bottom; a negative number cuts.
pub fn pad2d<const D: usize>(
    x: Tensor<D>,
    [left, right, top, bottom]: [i64; 4],
    value: f64,
) -> Tensor<D> {
    if [left, right, top, bottom] == [0; 4] {
        return x;
    }
    apply([x.into()], Pad { around: [left, right, top, bottom], value })
}

/// Windows of `kernel` of `x` `[n, c, h, w]` as columns `[n, c · kernel, places]`, sizes as
/// (height, width): torch's `unfold`.
pub fn unfold(
    x: Tensor<4>,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
) -> Tensor<3> {
    let [kernel, stride, padding, dilation] =
        [kernel, stride, padding, dilation].map(|it| it.map(|it| it as i64));
    apply([x.into()], Unfold { kernel, stride, padding, dilation })
}

/// The values of `x` at `index` along `axis`; `index` has the shape of the result.
pub fn gather<const D: usize>(x: Tensor<D>, axis: usize, index: &Tensor<D, Int>) -> Tensor<D> {
    let index = to_tch(index);
    apply([x.into()], Gather { axis: axis as i64, index: index.derive(index.to_kind(Kind::Int64)) })
}

/// The `k` largest values of `x` along `axis`, largest first, and where they are.
pub fn topk<const D: usize>(x: Tensor<D>, k: usize, axis: usize) -> (Tensor<D>, Tensor<D, Int>) {
    let values = to_tch(&x);
    let (_, index) = computed("topk", [&values], values.f_topk(k as i64, axis as i64, true, true));
    let index: Tensor<D, Int> = from_tch(index, &x.device());
    (gather(x, axis, &index), index)
}

/// `x` `[n, c, h, w]` at the places `grid` `[n, h', w', 2]` (x before y, each from -1 to 1),
/// bilinearly, zero outside: torch's `grid_sample`. Differentiable in both.
pub fn grid_sample(x: Tensor<4>, grid: Tensor<4>, align_corners: bool) -> Tensor<4> {
    let ([n, ..], [rows, _, _, two]) = (x.dims(), grid.dims());
    assert!(n == rows && two == 2, "grid_sample: a grid of shape {:?} for {n} images", grid.dims());
    apply([x.into(), grid.into()], GridSample { align_corners })
}

#[derive(Debug, Clone)]
struct Roll {
    shifts: Vec<i64>,
    axes: Vec<i64>,
}

impl Function<1> for Roll {
    const NAME: &'static str = "roll";

    type Saved = ();

    fn forward(&self, [x]: [Handle; 1], _: [bool; 1]) -> (Handle, ()) {
        (Handle::new(computed("roll", [&x], x.f_roll(&self.shifts[..], &self.axes[..]))), ())
    }

    fn backward(&self, (): (), grad: Handle, _: [bool; 1]) -> [Option<Handle>; 1] {
        let back: Vec<i64> = self.shifts.iter().map(|it| -it).collect();
        [Some(Handle::new(computed(
            "roll backward",
            [&grad],
            grad.f_roll(&back[..], &self.axes[..]),
        )))]
    }
}

#[derive(Debug, Clone, Copy)]
struct Pad {
    around: [i64; 4],
    value: f64,
}

impl Function<1> for Pad {
    const NAME: &'static str = "pad";

    type Saved = ();

    fn forward(&self, [x]: [Handle; 1], _: [bool; 1]) -> (Handle, ()) {
        let y = call1(
            c"aten::constant_pad_nd",
            &[(&*x).into(), (&self.around).into(), self.value.into()],
        );
        (Handle::new(computed("pad", [&x], y)), ())
    }

    fn backward(&self, (): (), grad: Handle, _: [bool; 1]) -> [Option<Handle>; 1] {
        let back = self.around.map(|it| -it);
        let found = call1(c"aten::constant_pad_nd", &[(&*grad).into(), (&back).into(), 0.0.into()]);
        [Some(Handle::new(computed("pad backward", [&grad], found)))]
    }
}

#[derive(Debug, Clone, Copy)]
struct Unfold {
    kernel: [i64; 2],
    stride: [i64; 2],
    padding: [i64; 2],
    dilation: [i64; 2],
}

impl Function<1> for Unfold {
    const NAME: &'static str = "unfold";

    /// Height and width of the input.
    type Saved = [i64; 2];

    fn forward(&self, [x]: [Handle; 1], _: [bool; 1]) -> (Handle, [i64; 2]) {
        let Self { kernel, stride, padding, dilation } = self;
        let y = x.f_im2col(kernel, dilation, padding, stride);
        let size = x.size();
        (Handle::new(computed("unfold", [&x], y)), [size[2], size[3]])
    }

    fn backward(&self, size: [i64; 2], grad: Handle, _: [bool; 1]) -> [Option<Handle>; 1] {
        let Self { kernel, stride, padding, dilation } = self;
        let found = grad.f_col2im(size, kernel, dilation, padding, stride);
        [Some(Handle::new(computed("unfold backward", [&grad], found)))]
    }
}

#[derive(Debug, Clone)]
struct Gather {
    axis: i64,
    index: Handle,
}

impl Function<1> for Gather {
    const NAME: &'static str = "gather";

    /// The input's shape.
    type Saved = Vec<i64>;

    fn forward(&self, [x]: [Handle; 1], _: [bool; 1]) -> (Handle, Vec<i64>) {
        (Handle::new(computed("gather", [&x], x.f_gather(self.axis, &self.index, false))), x.size())
    }

    fn backward(&self, shape: Vec<i64>, grad: Handle, _: [bool; 1]) -> [Option<Handle>; 1] {
        let mut whole = tch::Tensor::zeros(&shape[..], (grad.kind(), grad.device()));
        let found = whole.f_scatter_add_(self.axis, &self.index, &grad).map(drop);
        computed("gather backward", [&grad], found);
        [Some(Handle::new(whole))]
    }
}

#[derive(Debug, Clone, Copy)]
struct GridSample {
    align_corners: bool,
}

impl GridSample {
    /// Bilinear, with zeros outside, as ATen numbers them.
    fn arguments<'a>(self, x: &'a tch::Tensor, grid: &'a tch::Tensor) -> [Arg<'a>; 5] {
        [x.into(), grid.into(), Arg::Int(0), Arg::Int(0), self.align_corners.into()]
    }

    fn grads(
        self,
        x: &Handle,
        grid: &Handle,
        grad: &Handle,
        mask: [bool; 2],
    ) -> Result<[Option<tch::Tensor>; 2], NativeError> {
        let [x, grid, mode, outside, align] = self.arguments(x, grid);
        let mut found = call(
            c"aten::grid_sampler_2d_backward",
            &[(&**grad).into(), x, grid, mode, outside, align, (&mask).into()],
        )?;
        Ok([found.optional()?, found.optional()?])
    }
}

impl Function<2> for GridSample {
    const NAME: &'static str = "grid_sample";

    fn multiply_adds(&self, _: [&[i64]; 2], output: &[i64]) -> u64 {
        4 * count::values(output)
    }

    type Saved = [Handle; 2];

    fn forward(&self, [x, grid]: [Handle; 2], _: [bool; 2]) -> (Handle, [Handle; 2]) {
        let y = call1(c"aten::grid_sampler_2d", &self.arguments(&x, &grid));
        (Handle::new(computed("grid_sample", [&x, &grid], y)), [x, grid])
    }

    fn backward(
        &self,
        [x, grid]: [Handle; 2],
        grad: Handle,
        tracked: [bool; 2],
    ) -> [Option<Handle>; 2] {
        let [of_x, of_grid] =
            computed("grid_sample backward", [&grad], self.grads(&x, &grid, &grad, tracked));
        [
            of_x.filter(|_| tracked[0]).map(Handle::new),
            of_grid.filter(|_| tracked[1]).map(Handle::new),
        ]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::reference::{check, constant, flat, labels, values};
    use super::*;

    fn cube(x: &[Tensor<1>]) -> Tensor<3> {
        x[0].clone().reshape([2, 3, 4])
    }

    #[test]
    fn rolled_values_come_in_on_the_other_side() {
        check(
            &[values(24, 1)],
            |x| roll(cube(x), [1, -1], [1, 2]),
            |x| {
                let down = Tensor::cat(
                    vec![cube(x).slice([0..2, 2..3, 0..4]), cube(x).slice([0..2, 0..2, 0..4])],
                    1,
                );
                Tensor::cat(
                    vec![down.clone().slice([0..2, 0..3, 1..4]), down.slice([0..2, 0..3, 0..1])],
                    2,
                )
            },
        );
    }

    #[test]
    fn a_border_is_added_and_cut() {
        check(
            &[values(24, 1)],
            |x| pad2d(cube(x), [1, 0, 0, 2], 0.5),
            |x| {
                let device = x[0].device();
                let below = Tensor::cat(vec![cube(x), constant(&[0.5; 16], [2, 2, 4], &device)], 1);
                Tensor::cat(vec![constant(&[0.5; 10], [2, 5, 1], &device), below], 2)
            },
        );
        check(
            &[values(24, 1)],
            |x| pad2d(cube(x), [-1, 0, 0, -1], 0.0),
            |x| cube(x).slice([0..2, 0..2, 1..4]),
        );
    }

    #[test]
    fn windows_become_columns() {
        check(
            &[values(2 * 3 * 4, 1)],
            |x| unfold(x[0].clone().reshape([1, 2, 3, 4]), [1, 2], [1, 2], [0, 0], [1, 1]),
            |x| x[0].clone().reshape([2, 3, 2, 2]).permute([0, 3, 1, 2]).reshape([1, 4, 6]),
        );
    }

    #[test]
    fn gathered_values_send_their_gradients_back_and_the_largest_come_first() {
        let index = |x: &[Tensor<1>]| labels(&[2, 0, 0, 1, 1, 2, 2, 0], [2, 1, 4], &x[0].device());
        check(&[values(24, 1)], |x| gather(cube(x), 1, &index(x)), |x| cube(x).gather(1, index(x)));
        let (largest, at) =
            topk(constant(&[1.0, 5.0, 3.0, 4.0], [1, 4], &Device::libtorch()), 2, 1);
        assert_eq!(flat(&largest), [5.0, 4.0]);
        assert_eq!(Vec::<i64>::try_from(to_tch(&at).view(-1)).expect("places"), [1, 3]);
    }

    #[test]
    fn sampling_on_the_grid_of_the_pixels_gives_the_pixels_and_between_them_their_mixture() {
        let grid = |shift: f64| -> Vec<f64> {
            let at =
                |place: usize, count: usize| (2 * place + 1) as f64 / count as f64 - 1.0 + shift;
            (0..12).flat_map(|it| [at(it % 4, 4), at(it / 4, 3)]).collect()
        };
        // A quarter of a pixel to the right and 0.1875 down.
        let shifted = grid(0.125);
        check(
            &[values(24, 1), shifted],
            |x| {
                grid_sample(
                    x[0].clone().reshape([1, 2, 3, 4]),
                    x[1].clone().reshape([1, 3, 4, 2]),
                    false,
                )
            },
            |x| {
                let device = x[0].device();
                let zeros = |shape: [usize; 4]| {
                    constant(&vec![0.0; shape.iter().product()], shape, &device)
                };
                let image = x[0].clone().reshape([1, 2, 3, 4]);
                let wide = Tensor::cat(vec![image, zeros([1, 2, 3, 1])], 3);
                let image = Tensor::cat(vec![wide, zeros([1, 2, 1, 5])], 2);
                let grid = x[1].clone().reshape([12, 2]);
                let place = |axis: usize, count: f64| {
                    (grid.clone().slice([0..12, axis..axis + 1]) + 1.0) * (count / 2.0) - 0.5
                };
                let whole = |modulo: fn(usize) -> usize| -> Tensor<4> {
                    constant(
                        &(0..12).map(|it| modulo(it) as f64).collect::<Vec<_>>(),
                        [1, 1, 3, 4],
                        &device,
                    )
                };
                let right = place(0, 4.0).reshape([1, 1, 3, 4]) - whole(|it| it % 4);
                let down = place(1, 3.0).reshape([1, 1, 3, 4]) - whole(|it| it / 4);
                let part = |top: usize, left: usize| {
                    image.clone().slice([0..1, 0..2, top..top + 3, left..left + 4])
                };
                let above = part(0, 0) * (-right.clone() + 1.0) + part(0, 1) * right.clone();
                let below = part(1, 0) * (-right.clone() + 1.0) + part(1, 1) * right;
                above * (-down.clone() + 1.0) + below * down
            },
        );
    }
}
