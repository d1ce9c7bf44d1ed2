//! Attention of several heads over projections as they come out of one product: queries, keys and
//! values side by side. They are looked at where they lie, and their gradients are written there.

use burn::tensor::Tensor;

use super::attention::{Attention, Saved};
use super::border::Handle;
use super::error::computed;
use super::function::{Function, apply};

/// Self-attention: `qkv` `[n, l, 3 c]` holds queries, keys and values, each of `heads` heads, to
/// `[n, l, c]`. `bias` `[w, heads or 1, l, l]` is added to the scores of every `w` samples in turn;
/// minus infinity hides a place. `scale` is `1 / √(c / heads)` unless given.
pub fn self_attention(
    qkv: Tensor<3>,
    heads: usize,
    bias: Option<Tensor<4>>,
    scale: Option<f64>,
) -> Tensor<3> {
    let [n, length, channels] = qkv.dims();
    assert!(
        channels % (3 * heads) == 0,
        "self_attention: {channels} channels of queries, keys and values in {heads} heads"
    );
    let windows = bias.as_ref().map_or(1, |it| it.dims()[0]);
    if let Some(bias) = &bias {
        let [_, of, rows, columns] = bias.dims();
        assert!(
            n % windows == 0 && [rows, columns] == [length; 2] && (of == heads || of == 1),
            "self_attention: a bias of {:?} for {n} samples of {length} in {heads} heads",
            bias.dims()
        );
    }
    let width = channels / (3 * heads);
    let function = SelfAttention {
        heads: heads as i64,
        windows: windows as i64,
        scale: scale.unwrap_or(1.0 / (width as f64).sqrt()),
    };
    match bias {
        None => apply([qkv.into()], function),
        Some(bias) => apply([qkv.into(), bias.into()], function),
    }
}

/// Attention to other places: `query` `[n, l, c]`, and `key_value` `[n, s, 2 c]` that holds keys
/// and values, to `[n, l, c]`.
pub fn cross_attention(query: Tensor<3>, key_value: Tensor<3>, heads: usize) -> Tensor<3> {
    let ([n, _, channels], others) = (query.dims(), key_value.dims());
    assert!(
        others[0] == n && others[2] == 2 * channels && channels % heads == 0,
        "cross_attention: queries {:?} and keys and values {others:?} in {heads} heads",
        query.dims()
    );
    let scale = 1.0 / ((channels / heads) as f64).sqrt();
    apply([query.into(), key_value.into()], CrossAttention { heads: heads as i64, scale })
}

/// The parts of `[n, l, parts · heads · d]`, each as `[n, heads, l, d]`, or `[n / windows, windows,
/// heads, l, d]`.
fn parts<const P: usize>(x: &Handle, heads: i64, windows: i64) -> [Handle; P] {
    let size = x.size();
    let (n, length, width) = (size[0], size[1], size[2] / (heads * P as i64));
    let whole = if windows == 1 {
        x.reshape([n, length, P as i64, heads, width])
    } else {
        x.reshape([n / windows, windows, length, P as i64, heads, width])
    };
    std::array::from_fn(|part| Handle::new(whole.select(-3, part as i64).transpose(-3, -2)))
}

/// `[…, heads, l, d]` as `[n, l, heads · d]`.
fn joined(x: &Handle) -> Handle {
    let size = x.size();
    let (length, channels) = (size[size.len() - 2], size[size.len() - 3] * size[size.len() - 1]);
    x.derive(x.transpose(-3, -2).reshape([-1, length, channels]))
}

/// The gradients of parts in the shape of the whole, `[n, l, parts · heads · d]`.
fn whole<const P: usize>(grads: [Option<Handle>; P], like: &[i64]) -> Handle {
    let grads = grads.map(|it| it.expect("asked for"));
    let first = &grads[0];
    let mut size = first.size();
    let (heads, length, width) = (size[size.len() - 3], size[size.len() - 2], size[size.len() - 1]);
    size.truncate(size.len() - 3);
    size.extend([length, P as i64, heads, width]);
    let assembled = || -> Result<tch::Tensor, tch::TchError> {
        let found = tch::Tensor::f_empty(&size, (first.kind(), first.device()))?;
        for (part, grad) in grads.iter().enumerate() {
            let mut to = found.f_select(-3, part as i64)?;
            to.f_copy_(&grad.f_transpose(-3, -2)?)?;
        }
        found.f_reshape(like)
    };
    Handle::new(computed("attention backward", [first], assembled()))
}

#[derive(Debug, Clone, Copy)]
struct SelfAttention {
    heads: i64,
    /// Biases that take turns.
    windows: i64,
    scale: f64,
}

#[derive(Debug, Clone)]
struct Kept {
    saved: Saved,
    /// Of the inputs.
    size: Vec<i64>,
}

impl SelfAttention {
    fn run(&self, qkv: &Handle, bias: Option<Handle>, bias_tracked: bool) -> (Handle, Kept) {
        let inputs = parts::<3>(qkv, self.heads, self.windows);
        let (output, saved) = Attention { scale: self.scale }.run(inputs, bias, bias_tracked);
        (joined(&output), Kept { saved, size: qkv.size() })
    }

    fn grads(&self, kept: &Kept, grad: &Handle, [qkv, bias]: [bool; 2]) -> [Option<Handle>; 2] {
        let [grad] = parts::<1>(grad, self.heads, self.windows);
        let found =
            Attention { scale: self.scale }.grads(&kept.saved, &grad, [qkv, qkv, qkv, bias]);
        let [query, key, value, bias] = found;
        [qkv.then(|| whole([query, key, value], &kept.size)), bias]
    }
}

/// Multiplications of `length` queries with `others` keys and values of `channels` channels.
fn products(n: i64, length: i64, others: i64, channels: i64) -> u64 {
    (2 * n * length * others * channels).unsigned_abs()
}

impl Function<1> for SelfAttention {
    const NAME: &'static str = "self_attention";

    type Saved = Kept;

    fn multiply_adds(&self, [qkv]: [&[i64]; 1], _: &[i64]) -> u64 {
        products(qkv[0], qkv[1], qkv[1], qkv[2] / 3)
    }

    fn forward(&self, [qkv]: [Handle; 1], _: [bool; 1]) -> (Handle, Kept) {
        self.run(&qkv, None, false)
    }

    fn backward(&self, kept: Kept, grad: Handle, [qkv]: [bool; 1]) -> [Option<Handle>; 1] {
        let [qkv, _] = self.grads(&kept, &grad, [qkv, false]);
        [qkv]
    }
}

impl Function<2> for SelfAttention {
    const NAME: &'static str = "self_attention";

    type Saved = Kept;

    fn multiply_adds(&self, [qkv, _]: [&[i64]; 2], _: &[i64]) -> u64 {
        products(qkv[0], qkv[1], qkv[1], qkv[2] / 3)
    }

    fn forward(&self, [qkv, bias]: [Handle; 2], tracked: [bool; 2]) -> (Handle, Kept) {
        self.run(&qkv, Some(bias), tracked[1])
    }

    fn backward(&self, kept: Kept, grad: Handle, tracked: [bool; 2]) -> [Option<Handle>; 2] {
        self.grads(&kept, &grad, tracked)
    }
}

#[derive(Debug, Clone, Copy)]
struct CrossAttention {
    heads: i64,
    scale: f64,
}

impl Function<2> for CrossAttention {
    const NAME: &'static str = "cross_attention";

    /// What attention kept, and the sizes of both inputs.
    type Saved = (Saved, [Vec<i64>; 2]);

    fn multiply_adds(&self, [query, key_value]: [&[i64]; 2], _: &[i64]) -> u64 {
        products(query[0], query[1], key_value[1], query[2])
    }

    fn forward(&self, [query, key_value]: [Handle; 2], _: [bool; 2]) -> (Handle, Self::Saved) {
        let [queries] = parts::<1>(&query, self.heads, 1);
        let [keys, values] = parts::<2>(&key_value, self.heads, 1);
        let (output, saved) =
            Attention { scale: self.scale }.run([queries, keys, values], None, false);
        (joined(&output), (saved, [query.size(), key_value.size()]))
    }

    fn backward(
        &self,
        (saved, [of_query, of_others]): Self::Saved,
        grad: Handle,
        [query, others]: [bool; 2],
    ) -> [Option<Handle>; 2] {
        let [grad] = parts::<1>(&grad, self.heads, 1);
        let found =
            Attention { scale: self.scale }.grads(&saved, &grad, [query, others, others, false]);
        let [queries, keys, values, _] = found;
        [
            query.then(|| whole([queries], &of_query)),
            others.then(|| whole([keys, values], &of_others)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::activation;

    use super::super::reference::{check, values};
    use super::*;

    /// `[n, l, heads · d]` as `[n, heads, l, d]`.
    fn split(x: Tensor<3>, heads: usize) -> Tensor<4> {
        let [n, length, channels] = x.dims();
        x.reshape([n, length, heads, channels / heads]).swap_dims(1, 2)
    }

    fn formula(
        query: Tensor<3>,
        key: Tensor<3>,
        value: Tensor<3>,
        bias: Option<Tensor<4>>,
    ) -> Tensor<3> {
        let ([n, length, channels], heads) = (query.dims(), 2);
        let scale = 1.0 / ((channels / heads) as f64).sqrt();
        let scores = split(query, heads).matmul(split(key, heads).transpose()) * scale;
        let scores = match bias {
            None => scores,
            Some(bias) => {
                let windows = bias.dims()[0];
                scores + bias.repeat_dim(0, n / windows)
            }
        };
        let mixed = activation::softmax(scores, 3).matmul(split(value, heads));
        mixed.swap_dims(1, 2).reshape([n, length, channels])
    }

    fn thirds(x: &Tensor<1>, shape: [usize; 3]) -> [Tensor<3>; 3] {
        let x: Tensor<3> = x.clone().reshape(shape);
        let width = shape[2] / 3;
        [0, 1, 2]
            .map(|it| x.clone().slice([0..shape[0], 0..shape[1], it * width..(it + 1) * width]))
    }

    #[test]
    fn self_attention_matches_its_formula() {
        let shape = [4, 5, 3 * 8];
        check(
            &[values(4 * 5 * 24, 1)],
            |x| self_attention(x[0].clone().reshape(shape), 2, None, None),
            |x| {
                let [query, key, value] = thirds(&x[0], shape);
                formula(query, key, value, None)
            },
        );
    }

    #[test]
    fn a_bias_is_learnt_and_takes_turns_by_windows() {
        let shape = [4, 3, 3 * 8];
        for (windows, heads) in [(1, 2), (2, 2), (4, 1)] {
            let bias = |x: &Tensor<1>| x.clone().reshape([windows, heads, 3, 3]);
            check(
                &[values(4 * 3 * 24, 1), values(windows * heads * 9, 2)],
                |x| self_attention(x[0].clone().reshape(shape), 2, Some(bias(&x[1])), None),
                |x| {
                    let [query, key, value] = thirds(&x[0], shape);
                    let bias = bias(&x[1]).repeat_dim(1, 2 / heads);
                    formula(query, key, value, Some(bias))
                },
            );
        }
    }

    #[test]
    fn cross_attention_matches_its_formula() {
        check(
            &[values(2 * 3 * 8, 1), values(2 * 5 * 16, 2)],
            |x| {
                let key_value = x[1].clone().reshape([2, 5, 16]);
                cross_attention(x[0].clone().reshape([2, 3, 8]), key_value, 2)
            },
            |x| {
                let both: Tensor<3> = x[1].clone().reshape([2, 5, 16]);
                let part = |from: usize| both.clone().slice([0..2, 0..5, from..from + 8]);
                formula(x[0].clone().reshape([2, 3, 8]), part(0), part(8), None)
            },
        );
    }
}
