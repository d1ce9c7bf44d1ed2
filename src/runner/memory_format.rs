//! Which memory format a run computes in: the config's, or the one that is faster on the device.

use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use tch::Kind;

use crate::dist::Group;
use crate::exit::Failure;
use crate::experiment::{EnvConfig, MemoryFormatChoice};
use crate::ops::{self, Activation, BatchNorm, Conv, MemoryFormat};

/// On the CPU the choice is fixed: as fast for PSPNet-R18, a little faster for R50 (docs/benchmarks.md).
const ON_THE_CPU: MemoryFormat = MemoryFormat::Contiguous;

/// The same on all ranks: that of the config, else rank 0's. From here on cuDNN looks for its fastest algorithms if the config says so;
/// during the measurement it does not, since its search takes ten seconds for a layer or two.
pub fn decide(env: &EnvConfig, device: &Device, kind: Kind, group: &Group) -> anyhow::Result<MemoryFormat> {
    tch::Cuda::cudnn_set_benchmark(false);
    let format = choose(env.memory_format, device, kind, group);
    tch::Cuda::cudnn_set_benchmark(env.cudnn_benchmark);
    format
}

fn choose(choice: MemoryFormatChoice, device: &Device, kind: Kind, group: &Group) -> anyhow::Result<MemoryFormat> {
    match choice {
        MemoryFormatChoice::Contiguous => return Ok(MemoryFormat::Contiguous),
        MemoryFormatChoice::ChannelsLast => return Ok(MemoryFormat::ChannelsLast),
        MemoryFormatChoice::Auto => {}
    }
    let tch::Device::Cuda(index) = ops::place(device) else { return Ok(ON_THE_CPU) };
    let mut chosen = MemoryFormat::Contiguous;
    if group.is_main() {
        let finish = || tch::Cuda::synchronize(index as i64);
        let [plain, last] = [MemoryFormat::Contiguous, MemoryFormat::ChannelsLast].map(|it| time(it, device, kind, &finish));
        if last < plain {
            chosen = MemoryFormat::ChannelsLast;
        }
        tracing::info!("memory format: {chosen:?}; a bottleneck takes {plain:.1?} contiguous and {last:.1?} channels-last");
    }
    let told = group.broadcast_text(&format!("{chosen:?}")).map_err(Failure::from)?;
    Ok(if told == format!("{:?}", MemoryFormat::ChannelsLast) { MemoryFormat::ChannelsLast } else { MemoryFormat::Contiguous })
}

/// How long a bottleneck of ResNet takes, forward and backward, on 64x64 pixels and after it has warmed up.
fn time(format: MemoryFormat, device: &Device, kind: Kind, finish: &dyn Fn()) -> Duration {
    const PASSES: u32 = 10;
    let (wide, narrow) = (256, 64);
    let place = ops::place(device);
    let made = |size: [i64; 4], kind: Kind| -> Tensor<4> {
        let drawn = tch::Tensor::rand(size, (Kind::Float, place)) - 0.5;
        ops::from_tch(format.copied(&drawn.to_kind(kind)), &device.clone().autodiff()).require_grad()
    };
    let x = made([2, wide, 64, 64], kind);
    let weights = [[narrow, wide, 1, 1], [narrow, narrow, 3, 3], [wide, narrow, 1, 1]].map(|size| made(size, Kind::Float));
    let pass = || {
        let mut y = x.clone();
        for weight in &weights {
            let [channels, _, kernel, _] = weight.dims();
            let line = |fill: f64| -> Tensor<1> {
                let line = tch::Tensor::full([channels as i64], fill, (Kind::Float, place));
                ops::from_tch(line, &device.clone().autodiff())
            };
            let conv = Conv { padding: [kernel / 2; 2], ..Conv::default() };
            let norm = BatchNorm { training: true, activation: Activation::ReLU, ..BatchNorm::default() };
            y = ops::batch_norm(
                ops::conv2d(y, weight.clone(), None, conv),
                line(1.0).require_grad(),
                line(0.0).require_grad(),
                &line(0.0),
                &line(1.0),
                norm,
            );
        }
        drop(y.sum().backward());
    };
    (0..3).for_each(|_| pass());
    finish();
    let started = Instant::now();
    (0..PASSES).for_each(|_| pass());
    finish();
    started.elapsed() / PASSES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_decides_and_else_the_device() {
        let (device, group) = (Device::libtorch(), Group::alone());
        let decide = |memory_format| {
            let env = EnvConfig { memory_format, ..EnvConfig::default() };
            decide(&env, &device, Kind::Float, &group).expect("a format")
        };
        assert_eq!(decide(MemoryFormatChoice::Contiguous), MemoryFormat::Contiguous);
        assert_eq!(decide(MemoryFormatChoice::ChannelsLast), MemoryFormat::ChannelsLast);
        assert_eq!(decide(MemoryFormatChoice::Auto), ON_THE_CPU);
    }

    #[test]
    fn the_probe_runs_in_either_format_and_type() {
        for format in [MemoryFormat::Contiguous, MemoryFormat::ChannelsLast] {
            for kind in [Kind::Float, Kind::BFloat16] {
                assert!(time(format, &Device::libtorch(), kind, &|| ()) > Duration::ZERO);
            }
        }
    }
}
