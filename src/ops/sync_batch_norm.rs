//! Batch norm over the batches of all ranks, as torch's `SyncBatchNorm` computes it.
//!
//! Forward: every rank's mean, variance and count are gathered and combined by counts (ranks may have batches of different
//! sizes), then each normalises its own part by the combined ones. Backward: the two sums that make a batch norm's gradient
//! depend on the whole batch are summed over the ranks. The gradients of weight and bias stay each rank's own; averaging
//! those is data-parallel training's business.

use burn_tch::TchTensor;
use segslurm_native::aten;
use tch::{Kind, Tensor};

use super::error::computed;
use super::function::Function;
use super::relu::rectify_grad;
use crate::dist::{DistError, Group, Reduce};

/// The operation, in training.
#[derive(Debug, Clone)]
pub(super) struct SyncNorm {
    pub(super) running_mean: TchTensor,
    pub(super) running_var: TchTensor,
    pub(super) momentum: f64,
    pub(super) eps: f64,
    pub(super) relu: bool,
    pub(super) group: Group,
}

#[derive(Debug, Clone)]
pub(super) struct Saved {
    x: TchTensor,
    weight: TchTensor,
    bias: TchTensor,
    rectified: Option<TchTensor>,
    /// Of the whole batch, `[c]`.
    mean: TchTensor,
    var: TchTensor,
    state: [TchTensor; 3],
    implementation: i64,
    /// Values per channel on all ranks, `[1]`. On the device, as all of it: nothing here makes the host wait for a GPU.
    count: TchTensor,
}

/// What the ranks computed together, or a panic that carries why they could not.
fn dist<T>(result: Result<T, DistError>) -> T {
    result.unwrap_or_else(|error| std::panic::panic_any(error))
}

impl SyncNorm {
    /// Mean, variance (without Bessel's correction) and count of the whole batch, per channel; `f64`, on the device.
    fn statistics(&self, x: &Tensor) -> (Tensor, Tensor, Tensor) {
        let channels = x.size()[1];
        // Statistics of half-precision values are computed in the type of the running ones, which nothing moves here.
        let running = Tensor::zeros([channels], (self.running_mean.tensor.kind(), x.device()));
        let scratch = (x.kind() != running.kind()).then(|| (&running, running.copy()));
        let (mean, var) = match &scratch {
            Some((mean, var)) => computed("batch_norm", [x], x.f_batch_norm_update_stats(Some(*mean), Some(var), 0.0)),
            None => computed("batch_norm", [x], x.f_batch_norm_update_stats(None::<&Tensor>, None::<&Tensor>, 0.0)),
        };
        let (mean, var) = (mean.to_kind(Kind::Double), var.to_kind(Kind::Double));
        let own = (x.numel() as i64 / channels) as f64;
        let count = Tensor::full([1], own, (Kind::Double, x.device()));
        let all = dist(self.group.all_gather(&Tensor::cat(&[mean, var, count], 0)));
        let (means, vars) = (all.narrow(1, 0, channels), all.narrow(1, channels, channels));
        let counts = all.narrow(1, 2 * channels, 1);
        let count = counts.sum(Kind::Double);
        let shares = &counts / &count;
        let mean = (&means * &shares).sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
        let spread = vars + (means - &mean).square();
        let var = (spread * shares).sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
        (mean, var, count)
    }

    fn move_running(&self, mean: &Tensor, var: &Tensor, count: &Tensor) {
        let unbiased = var * (count / (count - 1.0).clamp_min(1.0));
        for (running, now) in [(&self.running_mean, mean), (&self.running_var, &unbiased)] {
            let mut running = running.tensor.shallow_clone();
            let now = now.to_kind(running.kind());
            let _ = running.lerp_(&now, self.momentum);
        }
    }

    fn native<'a>(&self, weight: &'a TchTensor, bias: &'a TchTensor, mean: &'a Tensor, var: &'a Tensor) -> aten::BatchNorm<'a> {
        let (weight, bias) = (&weight.tensor, &bias.tensor);
        // "Not training": the statistics are given, and no gradient flows through them.
        aten::BatchNorm { weight, bias, running_mean: mean, running_var: var, training: false, momentum: 0.0, eps: self.eps }
    }
}

impl Function<3> for SyncNorm {
    type Saved = Saved;

    fn forward(&self, [x, weight, bias]: [TchTensor; 3], _: [bool; 3]) -> (TchTensor, Saved) {
        let (mean, var, count) = self.statistics(&x.tensor);
        self.move_running(&mean, &var, &count);
        let kind = self.running_mean.tensor.kind();
        let (mean, var) = (mean.to_kind(kind), var.to_kind(kind));
        let normed = aten::batch_norm(&x.tensor, &self.native(&weight, &bias, &mean, &var), self.relu);
        let (y, state) = computed("batch_norm", [&x.tensor], normed);
        let y = TchTensor::new(y);
        let saved = Saved {
            x,
            weight,
            bias,
            rectified: self.relu.then(|| y.clone()),
            mean: TchTensor::new(mean),
            var: TchTensor::new(var),
            state: [state.mean, state.invstd, state.reserve].map(TchTensor::new),
            implementation: state.implementation,
            count: TchTensor::new(count),
        };
        (y, saved)
    }

    fn backward(&self, saved: Saved, grad: TchTensor, tracked: [bool; 3]) -> [Option<TchTensor>; 3] {
        let Saved { x, weight, bias, rectified, mean, var, state, implementation, count } = saved;
        let grad = match rectified {
            Some(y) => rectify_grad(&grad, &y),
            None => grad,
        };
        let [saved_mean, saved_invstd, reserve] = state.map(|it| it.tensor);
        let state = aten::BatchNormState { mean: saved_mean, invstd: saved_invstd, reserve, implementation };
        let native = self.native(&weight, &bias, &mean.tensor, &var.tensor);
        // With given statistics the gradients of weight and bias are the very sums that are wanted: of dy * x̂ and of dy.
        // A half-precision input's gradient is made below, in one piece that is rounded once.
        let half = x.tensor.kind() != mean.tensor.kind();
        let grads = aten::batch_norm_backward(&grad.tensor, &x.tensor, &native, &state, [tracked[0] && !half, true, true]);
        let grads = computed("batch_norm backward", [&grad.tensor, &x.tensor], grads);
        let sums = grads.weight.zip(grads.bias);
        let input = sums.as_ref().filter(|_| tracked[0]).map(|(dy_xhat, dy)| {
            let both = Tensor::cat(&[dy, dy_xhat], 0).to_kind(Kind::Double);
            dist(self.group.all_reduce(&both, Reduce::Sum));
            let means = (both / &count.tensor).chunk(2, 0);
            let invstd = (var.tensor.to_kind(Kind::Double) + self.eps).rsqrt();
            let scale = weight.tensor.to_kind(Kind::Double) * &invstd;
            // dx = scale * (dy - mean(dy) - x̂ * mean(dy * x̂)), where x̂ = (x - mean) * invstd: a line in dy and x.
            let slope = -(&scale * invstd * &means[1]);
            let offset = -(&scale * &means[0]) - &slope * mean.tensor.to_kind(Kind::Double);
            let shaped = |it: Tensor| it.to_kind(mean.tensor.kind()).view([1, -1, 1, 1]);
            let (scale, slope, offset) = (shaped(scale), shaped(slope), shaped(offset));
            let mut dx = grads.input.unwrap_or_else(|| &grad.tensor * scale);
            let _ = dx.addcmul_(&x.tensor, &slope);
            dx += offset;
            dx.to_kind(x.tensor.kind())
        });
        let (weight_grad, bias_grad) = sums.unzip();
        let wanted = |grad: Option<Tensor>, tracked: bool| grad.filter(|_| tracked).map(TchTensor::new);
        [input.map(TchTensor::new), wanted(weight_grad, tracked[1]), wanted(bias_grad, tracked[2])]
    }
}
