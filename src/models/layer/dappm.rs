//! The deep aggregation pyramid pooling of DDRNet (Hong et al. 2021): means over ever larger
//! windows, each joined with the one before.

use burn::module::Module;
use burn::tensor::Tensor;

use super::{ActConfig, AdaptiveAvgPool, NormConfig, PreActConfig, PreActConv, square};
use crate::models::{Builder, Forward};
use crate::ops;

/// Means over windows of several sizes and over the whole map.
#[derive(Module, Debug)]
pub struct DAPPM {
    scales: Vec<Scale>,
    processes: Vec<PreActConv>,
    compression: PreActConv,
    shortcut: PreActConv,
}

#[derive(Module, Debug)]
enum Scale {
    Whole(PreActConv),
    Windows((Window, PreActConv)),
    Image((AdaptiveAvgPool, PreActConv)),
}

/// The mean over windows of `kernel` × `kernel`; padding counts as zeros.
#[derive(Module, Debug)]
struct Window {
    kernel: usize,
    stride: usize,
}

impl DAPPM {
    /// Windows of 5, 9 and 17 pixels, at strides of 2, 4 and 8.
    const WINDOWS: [Window; 3] = [
        Window { kernel: 5, stride: 2 },
        Window { kernel: 9, stride: 4 },
        Window { kernel: 17, stride: 8 },
    ];

    /// From `input` to `output` channels, with `branch` in between; plain batch norms, as mmseg's.
    pub fn new([input, branch, output]: [usize; 3], builder: &Builder) -> Self {
        let module =
            PreActConfig { norm_cfg: NormConfig::batch(), act_cfg: Some(ActConfig::default()) };
        let one = |channels| module.init(channels, 1, square(1, 0, 1), builder);
        let mut scales = vec![Scale::Whole(one([input, branch]))];
        scales.extend(Self::WINDOWS.map(|it| Scale::Windows((it, one([input, branch])))));
        scales.push(Scale::Image((AdaptiveAvgPool { size: 1 }, one([input, branch]))));
        let process = |_| module.init([branch; 2], 3, square(1, 1, 1), builder);
        let processes = (1..scales.len()).map(process).collect();
        let compression = one([branch * scales.len(), output]);
        Self { scales, processes, compression, shortcut: one([input, output]) }
    }

    /// `[n, in, h, w]` to `[n, out, h, w]`.
    pub fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let [.., height, width] = x.dims();
        let mut maps: Vec<Tensor<4>> = Vec::with_capacity(self.scales.len());
        for (place, scale) in self.scales.iter().enumerate() {
            let mean = scale.forward(x.clone(), ctx);
            let map = match maps.last() {
                None => mean,
                Some(before) => {
                    let sum = ops::resize_bilinear(mean, [height, width], false) + before.clone();
                    self.processes[place - 1].forward(sum, ctx)
                }
            };
            maps.push(map);
        }
        self.compression.forward(ops::concat(maps), ctx) + self.shortcut.forward(x, ctx)
    }
}

impl Scale {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        match self {
            Self::Whole(conv) => conv.forward(x, ctx),
            Self::Windows((Window { kernel, stride }, conv)) => {
                let around = [kernel / 2; 2];
                let mean = ops::avg_pool2d(x, [*kernel; 2], [*stride; 2], around, false, true);
                conv.forward(mean, ctx)
            }
            Self::Image((pool, conv)) => conv.forward(pool.forward(x), ctx),
        }
    }
}
