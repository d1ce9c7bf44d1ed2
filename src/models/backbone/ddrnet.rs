//! DDRNet (Hong et al. 2021): a branch of high resolution beside one that sees far, which exchange
//! what they found twice.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::Backbone;
use crate::config::{OneOrMany, default};
use crate::models::contract::{BackboneSpec, Feature, RunBackbone};
use crate::models::layer::{
    Act, ActConfig, Conv2d, ConvModule, ConvModuleConfig, DAPPM, Norm, NormConfig, ReLU, square,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops::{self, Activation};

/// The keys of `type: DDRNet`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct DDRNetConfig {
    #[serde(default = "default::n::<3>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: usize,
    /// Channels of the first layers.
    #[serde(default = "default::n::<32>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub channels: usize,
    /// Channels of the pyramid pooling.
    #[serde(default = "default::n::<128>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub ppm_channels: usize,
    /// Whether resizing keeps the corner pixels' centres at the corners.
    #[serde(default)]
    pub align_corners: bool,
    /// Of all but the first block of each layer and the pooling, which have plain batch norms.
    #[serde(default = "NormConfig::batch")]
    pub norm_cfg: NormConfig,
    #[serde(default)]
    pub act_cfg: ActConfig,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

impl BackboneSpec for DDRNetConfig {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        image.matches(self.in_channels)?;
        self.norm_cfg.check(self.channels)?;
        let map = |channels| Feature { channels, stride: image.stride * 8 };
        Ok(vec![map(2 * self.channels), map(4 * self.channels)])
    }

    fn build(&self, _: Feature, builder: &Builder) -> Result<Backbone, ModelError> {
        let c = self.channels;
        let parts = Parts { config: self, builder };
        let stem = (
            parts.conv([self.in_channels, c], 3, 2, true),
            parts.conv([c; 2], 3, 2, true),
            parts.basics([c; 2], 2, 1),
            ReLU {},
            parts.basics([c, 2 * c], 2, 2),
            ReLU {},
        );
        let context_branch_layers = vec![
            parts.basics([2 * c, 4 * c], 2, 2),
            parts.basics([4 * c, 8 * c], 2, 2),
            parts.bottleneck([8 * c, 8 * c], 2),
        ];
        let compression_1 = parts.conv([4 * c, 2 * c], 1, 1, false);
        let down_1 = parts.conv([2 * c, 4 * c], 3, 2, false);
        let compression_2 = parts.conv([8 * c, 2 * c], 1, 1, false);
        let down_2 =
            (parts.conv([2 * c, 4 * c], 3, 2, true), parts.conv([4 * c, 8 * c], 3, 2, false));
        let spatial_branch_layers = vec![
            parts.basics([2 * c; 2], 2, 1),
            parts.basics([2 * c; 2], 2, 1),
            parts.bottleneck([2 * c; 2], 1),
        ];
        let spp = DAPPM::new([16 * c, self.ppm_channels, 4 * c], builder);
        let align_corners = self.align_corners;
        Ok(DDRNet {
            stem,
            context_branch_layers,
            compression_1,
            down_1,
            compression_2,
            down_2,
            spatial_branch_layers,
            spp,
            align_corners,
        }
        .into())
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.init_cfg.as_deref()
    }
}

/// Makes the parts.
struct Parts<'a> {
    config: &'a DDRNetConfig,
    builder: &'a Builder,
}

impl Parts<'_> {
    fn module(&self, norm_cfg: NormConfig, active: bool) -> ConvModuleConfig {
        let act_cfg = active.then(|| self.config.act_cfg.clone());
        ConvModuleConfig { norm_cfg: Some(norm_cfg), act_cfg }
    }

    fn conv(&self, channels: [usize; 2], kernel: usize, stride: usize, active: bool) -> ConvModule {
        let module = self.module(self.config.norm_cfg.clone(), active);
        module.init(channels, kernel, square(stride, kernel / 2, 1), self.builder)
    }

    fn projection(&self, [input, output]: [usize; 2], stride: usize) -> Option<(Conv2d, Norm)> {
        (stride != 1 || input != output).then(|| {
            let conv = Conv2d::new([input, output], 1, square(stride, 0, 1), self.builder);
            (conv, self.config.norm_cfg.init(output, self.builder))
        })
    }

    /// Blocks of two convolutions; the last has no activation. As in mmseg, the first has plain
    /// batch norms and a ReLU.
    fn basics(&self, [input, output]: [usize; 2], count: usize, stride: usize) -> Vec<DDRBlock> {
        let block = |index: usize| {
            let first = index == 0;
            let norm_cfg = if first { NormConfig::batch() } else { self.config.norm_cfg.clone() };
            let act_cfg = Some(ActConfig::default());
            let active = ConvModuleConfig { norm_cfg: Some(norm_cfg), act_cfg };
            let linear = ConvModuleConfig { act_cfg: None, ..active.clone() };
            let (from, stride) = if first { (input, stride) } else { (output, 1) };
            let conv1 = active.init([from, output], 3, square(stride, 1, 1), self.builder);
            let conv2 = linear.init([output; 2], 3, square(1, 1, 1), self.builder);
            let downsample = self.projection([from, output], stride);
            let act = (first || index + 1 != count).then(|| {
                let given = if first { &ActConfig::default() } else { &self.config.act_cfg };
                given.init(self.builder)
            });
            DDRBlock::Basic(Basic { conv1, conv2, downsample, act })
        };
        (0..count).map(block).collect()
    }

    /// A block of three convolutions without an activation behind, to twice `inner` channels.
    fn bottleneck(&self, [input, inner]: [usize; 2], stride: usize) -> Vec<DDRBlock> {
        let active = ConvModuleConfig::batch_relu();
        let linear = ConvModuleConfig { act_cfg: None, ..active.clone() };
        let one = square(1, 0, 1);
        let conv1 = active.init([input, inner], 1, one, self.builder);
        let conv2 = active.init([inner; 2], 3, square(stride, 1, 1), self.builder);
        let conv3 = linear.init([inner, 2 * inner], 1, one, self.builder);
        let downsample = self.projection([input, 2 * inner], stride);
        vec![DDRBlock::Bottleneck(Bottleneck { conv1, conv2, conv3, downsample })]
    }
}

type Stem = (ConvModule, ConvModule, Vec<DDRBlock>, ReLU, Vec<DDRBlock>, ReLU);

/// A deep dual-resolution network.
#[derive(Module, Debug)]
pub struct DDRNet {
    stem: Stem,
    context_branch_layers: Vec<Vec<DDRBlock>>,
    compression_1: ConvModule,
    down_1: ConvModule,
    compression_2: ConvModule,
    down_2: (ConvModule, ConvModule),
    spatial_branch_layers: Vec<Vec<DDRBlock>>,
    spp: DAPPM,
    align_corners: bool,
}

#[derive(Module, Debug)]
enum DDRBlock {
    Basic(Basic),
    Bottleneck(Bottleneck),
}

#[derive(Module, Debug)]
struct Basic {
    conv1: ConvModule,
    conv2: ConvModule,
    downsample: Option<(Conv2d, Norm)>,
    act: Option<Act>,
}

#[derive(Module, Debug)]
struct Bottleneck {
    conv1: ConvModule,
    conv2: ConvModule,
    conv3: ConvModule,
    downsample: Option<(Conv2d, Norm)>,
}

impl DDRBlock {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let short = |downsample: &Option<(Conv2d, Norm)>, x: Tensor<4>| match downsample {
            None => x,
            Some((conv, norm)) => norm.forward(conv.forward(x), Activation::None, ctx),
        };
        match self {
            Self::Basic(Basic { conv1, conv2, downsample, act }) => {
                let y = conv2.forward(conv1.forward(x.clone(), ctx), ctx);
                let sum = y + short(downsample, x);
                act.iter().fold(sum, |x, act| act.forward(x))
            }
            Self::Bottleneck(Bottleneck { conv1, conv2, conv3, downsample }) => {
                let y = conv2.forward(conv1.forward(x.clone(), ctx), ctx);
                conv3.forward(y, ctx) + short(downsample, x)
            }
        }
    }
}

fn run(blocks: &[DDRBlock], x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
    blocks.iter().fold(x, |x, block| block.forward(x, ctx))
}

impl RunBackbone for DDRNet {
    /// `[n, c, h, w]` to the map that the branches first share, which only helps to train, and the
    /// last one, both at an eighth of the size.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let (first, second, third, _, fourth, _) = &self.stem;
        let x = second.forward(first.forward(x, ctx), ctx);
        let x = ops::relu(run(third, x, ctx));
        let x = ops::relu(run(fourth, x, ctx));
        let (context, spatial) = (&self.context_branch_layers, &self.spatial_branch_layers);

        let far = run(&context[0], x.clone(), ctx);
        let near = run(&spatial[0], x, ctx);
        let given = self.compression_1.forward(ops::relu(far.clone()), ctx);
        let far = far + self.down_1.forward(ops::relu(near.clone()), ctx);
        let near = near.clone() + self.enlarged(given, &near);
        let shared = near.clone();

        let far = run(&context[1], ops::relu(far), ctx);
        let near = run(&spatial[1], ops::relu(near), ctx);
        let given = self.compression_2.forward(ops::relu(far.clone()), ctx);
        let down = self.down_2.0.forward(ops::relu(near.clone()), ctx);
        let far = far + self.down_2.1.forward(down, ctx);
        let near = near.clone() + self.enlarged(given, &near);

        let near = run(&spatial[2], ops::relu(near), ctx);
        let far = self.spp.forward(run(&context[2], ops::relu(far), ctx), ctx);
        let far = self.enlarged(far, &near);
        vec![shared, near + far]
    }
}

impl DDRNet {
    fn enlarged(&self, x: Tensor<4>, like: &Tensor<4>) -> Tensor<4> {
        ops::resize_bilinear(x, [like.dims()[2], like.dims()[3]], self.align_corners)
    }
}
