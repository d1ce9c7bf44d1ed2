//! Atrous spatial pyramid pooling (Chen et al. 2017), which the heads of DeepLabV3 and DeepLabV3+
//! share.

use burn::module::Module;
use burn::tensor::Tensor;

use super::{AdaptiveAvgPool, ConvModule, ConvModuleConfig, SeparableConvModule, square};
use crate::models::{Builder, Forward};
use crate::ops;

/// What a pyramid is made of.
#[derive(Debug, Clone, Copy)]
pub struct AtrousConfig<'a> {
    /// The dilation of each branch; one of 1 is a 1×1 convolution.
    pub dilations: &'a [usize],
    /// Channels of the input, and of each branch and the output.
    pub channels: [usize; 2],
    /// Whether dilated branches are depthwise separable.
    pub separable: bool,
    pub module: &'a ConvModuleConfig,
}

/// Convolutions of several dilations and the image's mean, joined and convolved.
#[derive(Module, Debug)]
pub struct AtrousPyramid {
    image_pool: (AdaptiveAvgPool, ConvModule),
    aspp_modules: Vec<Branch>,
    bottleneck: ConvModule,
}

#[derive(Module, Debug)]
enum Branch {
    Plain(ConvModule),
    Separable(SeparableConvModule),
}

impl AtrousPyramid {
    /// mmseg's `dilations`.
    pub(crate) fn default_dilations() -> Vec<usize> {
        vec![1, 6, 12, 18]
    }

    pub fn new(config: AtrousConfig, builder: &Builder) -> Self {
        let AtrousConfig { dilations, channels, separable, module } = config;
        let branch = |&dilation: &usize| match dilation {
            1 => Branch::Plain(module.init(channels, 1, square(1, 0, 1), builder)),
            _ if separable => Branch::Separable(module.separable(
                channels,
                3,
                square(1, dilation, dilation),
                builder,
            )),
            _ => Branch::Plain(module.init(channels, 3, square(1, dilation, dilation), builder)),
        };
        let [_, output] = channels;
        let joined = [(dilations.len() + 1) * output, output];
        Self {
            image_pool: (
                AdaptiveAvgPool { size: 1 },
                module.init(channels, 1, square(1, 0, 1), builder),
            ),
            aspp_modules: dilations.iter().map(branch).collect(),
            bottleneck: module.init(joined, 3, square(1, 1, 1), builder),
        }
    }

    /// `[n, in, h, w]` to `[n, out, h, w]`.
    pub fn forward(&self, x: Tensor<4>, align_corners: bool, ctx: &Forward) -> Tensor<4> {
        let [.., height, width] = x.dims();
        let (pool, conv) = &self.image_pool;
        let mean = conv.forward(pool.forward(x.clone()), ctx);
        let mut joined = vec![ops::resize_bilinear(mean, [height, width], align_corners)];
        joined.extend(self.aspp_modules.iter().map(|branch| match branch {
            Branch::Plain(conv) => conv.forward(x.clone(), ctx),
            Branch::Separable(conv) => conv.forward(x.clone(), ctx),
        }));
        self.bottleneck.forward(ops::concat(joined), ctx)
    }
}
