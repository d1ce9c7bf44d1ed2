//! Batch norm over the batches of all ranks, as torch's `SyncBatchNorm` computes it.
//!
//! Forward: every rank's mean, variance and count are gathered and combined by counts (ranks may
//! have batches of different sizes), then each normalises its own part by the combined ones.
//! Backward: the two sums that make a batch norm's gradient depend on the whole batch are summed
//! over the ranks. The gradients of weight and bias stay each rank's own; averaging those is
//! data-parallel training's business.

use tch::{Kind, Tensor};

use super::activation::Activation;
use super::batch_norm::{Computed, Kernel};
use super::border::Handle;
use super::error::computed;
use super::function::Function;
use crate::dist::{DistError, Group, Reduce};

/// The operation, in training.
#[derive(Debug, Clone)]
pub(super) struct SyncNorm {
    pub(super) running_mean: Handle,
    pub(super) running_var: Handle,
    pub(super) momentum: f64,
    pub(super) eps: f64,
    pub(super) activation: Activation,
    pub(super) group: Group,
}

#[derive(Debug, Clone)]
pub(super) struct Saved {
    x: Handle,
    weight: Handle,
    bias: Handle,
    activated: Option<Handle>,
    /// Of the whole batch, `[c]`.
    mean: Handle,
    var: Handle,
    computed: Computed,
    /// Values per channel on all ranks, `[1]`. On the device, as all of it: nothing here makes the
    /// host wait for a GPU.
    count: Handle,
}

/// What the ranks computed together, or a panic that carries why they could not.
fn dist<T>(result: Result<T, DistError>) -> T {
    result.unwrap_or_else(|error| std::panic::panic_any(error))
}

impl SyncNorm {
    /// Mean, variance (without Bessel's correction) and count of the whole batch, per channel;
    /// `f64`, on the device.
    fn statistics(&self, x: &Tensor) -> (Tensor, Tensor, Tensor) {
        let channels = x.size()[1];
        // Statistics of half-precision values are computed in the type of the running ones, which
        // nothing moves here.
        let running = Tensor::zeros([channels], (self.running_mean.kind(), x.device()));
        let scratch = (x.kind() != running.kind()).then(|| (&running, running.copy()));
        let (mean, var) = match &scratch {
            Some((mean, var)) => computed(
                "batch_norm",
                [x],
                x.f_batch_norm_update_stats(Some(*mean), Some(var), 0.0),
            ),
            None => computed(
                "batch_norm",
                [x],
                x.f_batch_norm_update_stats(None::<&Tensor>, None::<&Tensor>, 0.0),
            ),
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
            let mut running = running.clone();
            let now = now.to_kind(running.kind());
            let _ = running.lerp_(&now, self.momentum);
        }
    }

    fn kernel<'a>(
        &self,
        weight: &'a Tensor,
        bias: &'a Tensor,
        mean: &'a Tensor,
        var: &'a Tensor,
    ) -> Kernel<'a> {
        // "Not training": the statistics are given, and no gradient flows through them.
        Kernel {
            weight,
            bias,
            running_mean: mean,
            running_var: var,
            training: false,
            momentum: 0.0,
            eps: self.eps,
        }
    }
}

impl Function<3> for SyncNorm {
    const NAME: &'static str = "batch_norm";

    type Saved = Saved;

    fn forward(&self, [x, weight, bias]: [Handle; 3], _: [bool; 3]) -> (Handle, Saved) {
        let (mean, var, count) = self.statistics(&x);
        self.move_running(&mean, &var, &count);
        let kind = self.running_mean.kind();
        let (mean, var) = (mean.to_kind(kind), var.to_kind(kind));
        let normed = self.kernel(&weight, &bias, &mean, &var).forward(&x, self.activation);
        let (y, found) = computed("batch_norm", [&x], normed);
        let saved = Saved {
            x,
            weight,
            bias,
            activated: (self.activation != Activation::None).then(|| y.clone()),
            mean: Handle::new(mean),
            var: Handle::new(var),
            computed: found,
            count: Handle::new(count),
        };
        (y, saved)
    }

    fn backward(&self, saved: Saved, grad: Handle, tracked: [bool; 3]) -> [Option<Handle>; 3] {
        let Saved { x, weight, bias, activated, mean, var, computed: found, count } = saved;
        let grad = match activated {
            Some(y) => self.activation.grad(grad, &y),
            None => grad,
        };
        let kernel = self.kernel(&weight, &bias, &mean, &var);
        // With given statistics the gradients of weight and bias are the very sums that are wanted:
        // of dy * x̂ and of dy. A half-precision input's gradient is made below, in one piece that
        // is rounded once.
        let half = x.kind() != mean.kind();
        let grads = kernel.backward(&grad, &x, &found, [tracked[0] && !half, true, true]);
        let [input_grad, weight_grad, bias_grad] =
            computed("batch_norm backward", [&grad, &x], grads);
        let sums = weight_grad.zip(bias_grad);
        let input = sums.as_ref().filter(|_| tracked[0]).map(|(dy_xhat, dy)| {
            let both = Tensor::cat(&[dy, dy_xhat], 0).to_kind(Kind::Double);
            dist(self.group.all_reduce(&both, Reduce::Sum));
            let means = (both / &*count).chunk(2, 0);
            let invstd = (var.to_kind(Kind::Double) + self.eps).rsqrt();
            let scale = weight.to_kind(Kind::Double) * &invstd;
            // dx = scale * (dy - mean(dy) - x̂ * mean(dy * x̂)), where x̂ = (x - mean) * invstd: a
            // line in dy and x.
            let slope = -(&scale * invstd * &means[1]);
            let offset = -(&scale * &means[0]) - &slope * mean.to_kind(Kind::Double);
            let mut shape = vec![1; x.dim()];
            shape[1] = -1;
            let shaped = |it: Tensor| it.to_kind(mean.kind()).view(&shape[..]);
            let (scale, slope, offset) = (shaped(scale), shaped(slope), shaped(offset));
            let mut dx = input_grad.unwrap_or_else(|| &*grad * scale);
            let _ = dx.addcmul_(&x, &slope);
            dx += offset;
            dx.to_kind(x.kind())
        });
        let (weight_grad, bias_grad) = sums.unzip();
        let wanted =
            |grad: Option<Tensor>, tracked: bool| grad.filter(|_| tracked).map(Handle::new);
        [input.map(Handle::new), wanted(weight_grad, tracked[1]), wanted(bias_grad, tracked[2])]
    }
}
