//! Softmax, and scaled dot-product attention by libtorch's fused kernels where they can do it.

use burn::tensor::Tensor;
use segslurm_native::NativeError;
use segslurm_native::call::{Arg, call, call1};

use super::border::Handle;
use super::count;
use super::error::computed;
use super::function::{Function, apply};

/// `exp(x)` over its sum along `axis`.
pub fn softmax<const D: usize>(x: Tensor<D>, axis: usize) -> Tensor<D> {
    assert!(axis < D, "softmax: there is no axis {axis} of {D}");
    apply([x.into()], Softmax { axis: axis as i64 })
}

/// Attention (Vaswani et al. 2017): `softmax(query · keyᵀ · scale + bias) · value`, over `query`
/// `[n, heads, l, d]`, `key` `[n, heads, s, d]` and `value` `[n, heads, s, e]`. `bias` broadcasts
/// to `[n, heads, l, s]`; minus infinity masks a place. `scale` is `1 / √d` unless given.
/// Differentiable in all four.
pub fn attention(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    bias: Option<Tensor<4>>,
    scale: Option<f64>,
) -> Tensor<4> {
    let ([n, heads, _, width], keys, values) = (query.dims(), key.dims(), value.dims());
    assert!(
        keys[..2] == [n, heads] && values[..3] == keys[..3] && keys[3] == width,
        "attention: query {:?}, key {keys:?} and value {values:?} do not belong together",
        query.dims()
    );
    let function = Attention { scale: scale.unwrap_or(1.0 / (width as f64).sqrt()) };
    match bias {
        None => apply([query.into(), key.into(), value.into()], function),
        Some(bias) => apply([query.into(), key.into(), value.into(), bias.into()], function),
    }
}

#[derive(Debug, Clone, Copy)]
struct Softmax {
    axis: i64,
}

fn softmax_backward(
    grad: &tch::Tensor,
    output: &tch::Tensor,
    axis: i64,
) -> Result<tch::Tensor, NativeError> {
    call1(
        c"aten::_softmax_backward_data",
        &[grad.into(), output.into(), axis.into(), output.kind().into()],
    )
}

impl Function<1> for Softmax {
    const NAME: &'static str = "softmax";

    /// The output.
    type Saved = Handle;

    fn forward(&self, [x]: [Handle; 1], _: [bool; 1]) -> (Handle, Handle) {
        let y = call1(c"aten::_softmax", &[(&*x).into(), self.axis.into(), false.into()]);
        let y = Handle::new(computed("softmax", [&x], y));
        (y.clone(), y)
    }

    fn backward(&self, y: Handle, grad: Handle, _: [bool; 1]) -> [Option<Handle>; 1] {
        [Some(Handle::new(computed(
            "softmax backward",
            [&grad],
            softmax_backward(&grad, &y, self.axis),
        )))]
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Attention {
    pub(super) scale: f64,
}

/// How the forward pass went, and what its backward needs of it.
#[derive(Debug, Clone)]
enum Kept {
    /// The probabilities `[n, heads, l, s]`.
    Plain(Handle),
    /// The output and the logarithms of the sums: the probabilities never exist.
    Fused { output: Handle, log_sums: Handle },
    /// The same of the CUDA kernel, with the state of its random numbers.
    FusedOnCuda { output: Handle, log_sums: Handle, random: [Handle; 2] },
}

#[derive(Debug, Clone)]
pub(super) struct Saved {
    inputs: [Handle; 3],
    bias: Option<Handle>,
    kept: Kept,
}

impl Attention {
    /// Whether libtorch would choose a fused kernel; none of those gives the gradient of a bias.
    fn fused(inputs: &[Handle; 3], bias: Option<&Handle>, bias_tracked: bool) -> bool {
        const MATH: i64 = 0;
        let [query, key, value] = inputs;
        let windows = query.dim() > 4;
        if bias_tracked || windows || query.device().is_cuda() && bias.is_some() {
            return false;
        }
        let arguments =
            [(&**query).into(), (&**key).into(), (&**value).into(), bias.map(|it| &**it).into()];
        call(c"aten::_fused_sdp_choice", &arguments)
            .and_then(|mut it| it.int())
            .is_ok_and(|it| it > MATH)
    }

    pub(super) fn run(
        self,
        inputs: [Handle; 3],
        bias: Option<Handle>,
        bias_tracked: bool,
    ) -> (Handle, Saved) {
        let found = if Self::fused(&inputs, bias.as_ref(), bias_tracked) {
            self.run_fused(&inputs, bias.as_ref())
        } else {
            self.run_plain(&inputs, bias.as_ref())
        };
        let [query, key, _] = &inputs;
        let (output, kept) = computed("attention", [query, key], found);
        (output, Saved { inputs, bias, kept })
    }

    fn run_plain(
        self,
        [query, key, value]: &[Handle; 3],
        bias: Option<&Handle>,
    ) -> Result<(Handle, Kept), NativeError> {
        let told = |error: tch::TchError| NativeError(error.to_string());
        let mut scores = query
            .f_mul_scalar(self.scale)
            .and_then(|it| it.f_matmul(&key.transpose(-2, -1)))
            .map_err(told)?;
        if let Some(bias) = bias {
            scores = scores.f_add_(bias).map_err(told)?;
        }
        let probabilities =
            call1(c"aten::_softmax", &[(&scores).into(), Arg::Int(-1), false.into()])?;
        let output = probabilities.f_matmul(value).map_err(told)?;
        Ok((Handle::new(output), Kept::Plain(Handle::new(probabilities))))
    }

    fn run_fused(
        self,
        [query, key, value]: &[Handle; 3],
        bias: Option<&Handle>,
    ) -> Result<(Handle, Kept), NativeError> {
        let (q, k, v) = (Arg::from(&**query), Arg::from(&**key), Arg::from(&**value));
        let bias = Arg::from(bias.map(|it| &**it));
        if query.device().is_cuda() {
            let arguments =
                [q, k, v, bias, true.into(), 0.0.into(), false.into(), self.scale.into()];
            let mut found = call(c"aten::_scaled_dot_product_efficient_attention", &arguments)?;
            let mut next = || found.tensor().map(Handle::new);
            let (output, log_sums, random) = (next()?, next()?, [next()?, next()?]);
            return Ok((output.clone(), Kept::FusedOnCuda { output, log_sums, random }));
        }
        let arguments = [q, k, v, 0.0.into(), false.into(), bias, self.scale.into()];
        let mut found = call(c"aten::_scaled_dot_product_flash_attention_for_cpu", &arguments)?;
        let (output, log_sums) = (Handle::new(found.tensor()?), Handle::new(found.tensor()?));
        Ok((output.clone(), Kept::Fused { output, log_sums }))
    }

    /// Gradients of query, key, value and bias.
    pub(super) fn grads(
        self,
        saved: &Saved,
        grad: &Handle,
        tracked: [bool; 4],
    ) -> [Option<Handle>; 4] {
        let Saved { inputs: [query, key, value], bias, kept } = saved;
        let (g, q, k, v) =
            (Arg::from(&**grad), Arg::from(&**query), Arg::from(&**key), Arg::from(&**value));
        let given = Arg::from(bias.as_ref().map(|it| &**it));
        let found = match kept {
            Kept::Plain(probabilities) => self.plain_grads(saved, grad, probabilities, tracked),
            Kept::Fused { output, log_sums } => {
                let kept = [(&**output).into(), (&**log_sums).into()];
                let arguments = [
                    g,
                    q,
                    k,
                    v,
                    kept[0],
                    kept[1],
                    0.0.into(),
                    false.into(),
                    given,
                    self.scale.into(),
                ];
                call(c"aten::_scaled_dot_product_flash_attention_for_cpu_backward", &arguments)
                    .and_then(|mut it| Ok([it.optional()?, it.optional()?, it.optional()?, None]))
            }
            Kept::FusedOnCuda { output, log_sums, random: [seed, offset] } => {
                let mask = [tracked[0], tracked[1], tracked[2], false];
                let arguments = [
                    g,
                    q,
                    k,
                    v,
                    given,
                    (&**output).into(),
                    (&**log_sums).into(),
                    (&**seed).into(),
                    (&**offset).into(),
                    0.0.into(),
                    (&mask).into(),
                    false.into(),
                    self.scale.into(),
                ];
                call(c"aten::_scaled_dot_product_efficient_attention_backward", &arguments)
                    .and_then(|mut it| Ok([it.optional()?, it.optional()?, it.optional()?, None]))
            }
        };
        let mut wanted = tracked.into_iter();
        computed("attention backward", [grad, query], found)
            .map(|it| it.filter(|_| wanted.next().unwrap_or_default()).map(Handle::new))
    }

    fn plain_grads(
        self,
        saved: &Saved,
        grad: &Handle,
        probabilities: &Handle,
        tracked: [bool; 4],
    ) -> Result<[Option<tch::Tensor>; 4], NativeError> {
        let Saved { inputs: [query, key, value], bias, .. } = saved;
        let scores = softmax_backward(&grad.matmul(&value.transpose(-2, -1)), probabilities, -1)?;
        let of_bias = |bias: &Handle| scores.sum_to_size(bias.size());
        Ok([
            tracked[0].then(|| scores.matmul(key) * self.scale),
            tracked[1].then(|| scores.transpose(-2, -1).matmul(query) * self.scale),
            tracked[2].then(|| probabilities.transpose(-2, -1).matmul(grad)),
            bias.as_ref().filter(|_| tracked[3]).map(of_bias),
        ])
    }
}

impl Function<3> for Attention {
    const NAME: &'static str = "attention";

    fn multiply_adds(&self, [query, key, value]: [&[i64]; 3], _: &[i64]) -> u64 {
        count::values(query) * (key[2] * (query[3] + value[3]) / query[3].max(1)).unsigned_abs()
    }

    type Saved = Saved;

    fn forward(&self, inputs: [Handle; 3], _: [bool; 3]) -> (Handle, Saved) {
        self.run(inputs, None, false)
    }

    fn backward(
        &self,
        saved: Saved,
        grad: Handle,
        [query, key, value]: [bool; 3],
    ) -> [Option<Handle>; 3] {
        let [query, key, value, _] = self.grads(&saved, &grad, [query, key, value, false]);
        [query, key, value]
    }
}

impl Function<4> for Attention {
    const NAME: &'static str = "attention";

    fn multiply_adds(&self, [query, key, value, _]: [&[i64]; 4], _: &[i64]) -> u64 {
        count::values(query) * (key[2] * (query[3] + value[3]) / query[3].max(1)).unsigned_abs()
    }

    type Saved = Saved;

    fn forward(
        &self,
        [query, key, value, bias]: [Handle; 4],
        tracked: [bool; 4],
    ) -> (Handle, Saved) {
        self.run([query, key, value], Some(bias), tracked[3])
    }

    fn backward(&self, saved: Saved, grad: Handle, tracked: [bool; 4]) -> [Option<Handle>; 4] {
        self.grads(&saved, &grad, tracked)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, activation};

    use super::super::reference::{check, constant, values};
    use super::super::to_tch;
    use super::*;

    #[test]
    fn a_softmax_matches_burns_along_every_axis() {
        for axis in 0..3 {
            check(
                &[values(24, 1)],
                |x| softmax(x[0].clone().reshape([2, 3, 4]), axis),
                |x| activation::softmax(x[0].clone().reshape([2, 3, 4]), axis),
            );
        }
    }

    fn shaped(x: &[Tensor<1>]) -> [Tensor<4>; 3] {
        [0, 1, 2].map(|it| x[it].clone().reshape(if it == 0 { [2, 2, 3, 4] } else { [2, 2, 5, 4] }))
    }

    fn formula(x: &[Tensor<1>], bias: Option<Tensor<4>>, scale: f64) -> Tensor<4> {
        let [query, key, value] = shaped(x);
        let scores = query.matmul(key.transpose()) * scale;
        let scores = match bias {
            None => scores,
            Some(bias) => scores + bias,
        };
        activation::softmax(scores, 3).matmul(value)
    }

    fn inputs() -> [Vec<f64>; 3] {
        [values(48, 1), values(80, 2), values(80, 3)]
    }

    #[test]
    fn attention_matches_its_formula_without_a_bias() {
        for scale in [None, Some(0.3)] {
            check(
                &inputs(),
                |x| {
                    let [query, key, value] = shaped(x);
                    attention(query, key, value, None, scale)
                },
                |x| formula(x, None, scale.unwrap_or(0.5)),
            );
        }
    }

    #[test]
    fn a_bias_is_learnt_where_it_broadcasts_and_a_mask_hides_places() {
        let [query, key, value] = inputs();
        check(
            &[query, key, value, values(30, 4)],
            |x| {
                let [query, key, value] = shaped(x);
                attention(query, key, value, Some(x[3].clone().reshape([1, 2, 3, 5])), None)
            },
            |x| formula(x, Some(x[3].clone().reshape([1, 2, 3, 5])), 0.5),
        );
        let hidden: Vec<f64> =
            (0..30).map(|it| if it % 5 == 3 { f64::NEG_INFINITY } else { 0.0 }).collect();
        let mask = |x: &[Tensor<1>]| constant(&hidden, [2, 1, 3, 5], &x[0].device());
        check(
            &inputs(),
            |x| {
                let [query, key, value] = shaped(x);
                attention(query, key, value, Some(mask(x)), None)
            },
            |x| formula(x, Some(mask(x)), 0.5),
        );
    }

    #[test]
    fn libtorch_fuses_what_it_can() {
        let made = |length: usize| {
            let x: Tensor<4> =
                constant(&values(2 * length * 8, 1), [1, 2, length, 8], &Device::libtorch());
            Handle::of(x)
        };
        let inputs = [made(16), made(16), made(16)];
        assert!(Attention::fused(&inputs, None, false));
        assert!(!Attention::fused(
            &inputs,
            Some(&to_tch(&Tensor::<4>::zeros([1, 2, 16, 16], &Device::libtorch()))),
            true
        ));
    }
}
