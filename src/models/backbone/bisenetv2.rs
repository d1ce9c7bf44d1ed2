//! BiSeNetV2 (Yu et al. 2020): a branch for details and a narrow one for meaning, each of which
//! gates the other.

#![expect(non_snake_case, reason = "names are mmseg's")]

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::Backbone;
use crate::config::{OneOrMany, default};
use crate::models::contract::{BackboneSpec, Feature, Initial, RunBackbone};
use crate::models::layer::{
    ActConfig, AdaptiveAvgPool, ConvConfig, ConvModule, ConvModuleConfig, Norm, NormConfig,
    SeparableConvModule, square,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops::{self, Activation};

/// The keys of `type: BiSeNetV2`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct BiSeNetV2Config {
    #[serde(default = "default::n::<3>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: usize,
    /// Channels of the three stages of the branch for details.
    #[serde(default = "default_detail")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub detail_channels: Vec<usize>,
    /// Channels of the four stages of the branch for meaning.
    #[serde(default = "default_semantic")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub semantic_channels: Vec<usize>,
    /// How many times wider its layers are inside.
    #[serde(default = "default::n::<6>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub semantic_expansion_ratio: usize,
    /// Channels of the joined map: those at the end of both branches.
    #[serde(default = "default::n::<128>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub bga_channels: usize,
    /// Which of the joined map and of the four stages the heads see.
    #[serde(default = "default_out_indices")]
    pub out_indices: Vec<usize>,
    /// Whether resizing keeps the corner pixels' centres at the corners.
    #[serde(default)]
    pub align_corners: bool,
    #[serde(default)]
    pub conv_cfg: Option<ConvConfig>,
    /// Without effect, as in mmseg: the parts have batch norms.
    #[serde(default = "NormConfig::batch")]
    pub norm_cfg: NormConfig,
    /// Without effect, as in mmseg: the parts have a ReLU.
    #[serde(default)]
    pub act_cfg: ActConfig,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

fn default_detail() -> Vec<usize> {
    vec![64, 64, 128]
}
fn default_semantic() -> Vec<usize> {
    vec![16, 32, 64, 128]
}
fn default_out_indices() -> Vec<usize> {
    vec![0, 1, 2, 3, 4]
}

impl BackboneSpec for BiSeNetV2Config {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        image.matches(self.in_channels)?;
        super::one_for_each_layer("detail_channels", &self.detail_channels, 3)?;
        super::one_for_each_layer("semantic_channels", &self.semantic_channels, 4)?;
        super::stages_that_are("out_indices", &self.out_indices, 5)?;
        let ends = [self.detail_channels[2], self.semantic_channels[3]];
        if ends != [self.bga_channels; 2] {
            let problem = format!(
                "is {}, and the branches end in {} and {} channels",
                self.bga_channels, ends[0], ends[1]
            );
            return Err(ModelError::config("bga_channels", problem));
        }
        let stages = self.semantic_channels.iter().enumerate();
        let maps: Vec<Feature> = std::iter::once((self.bga_channels, 8))
            .chain(stages.map(|(stage, &channels)| (channels, 4 << stage)))
            .map(|(channels, stride)| Feature { channels, stride: image.stride * stride })
            .collect();
        Ok(self.out_indices.iter().map(|&it| maps[it]).collect())
    }

    fn build(&self, _: Feature, builder: &Builder) -> Result<Backbone, ModelError> {
        let parts = Parts { builder, ratio: self.semantic_expansion_ratio };
        let mut input = self.in_channels;
        let detail_branch = self.detail_channels.iter().enumerate().map(|(stage, &output)| {
            let mut convs = vec![parts.conv([input, output], 3, 2)];
            convs.extend((0..=stage.min(1)).map(|_| parts.conv([output; 2], 3, 1)));
            input = output;
            convs
        });
        let detail = DetailBranch { detail_branch: detail_branch.collect() };
        let [a, b, c, d] = [0, 1, 2, 3].map(|it: usize| self.semantic_channels[it]);
        let stage = |channels: [usize; 2], count: usize| {
            let first = std::iter::once(parts.gather(channels, 2));
            first.chain((1..count).map(|_| parts.gather([channels[1]; 2], 1))).collect()
        };
        let semantic = SemanticBranch {
            stage1: parts.stem([self.in_channels, a]),
            stage2: stage([a, b], 2),
            stage3: stage([b, c], 2),
            stage4: stage([c, d], 4),
            stage4_CEBlock: parts.context(d),
        };
        let bga = parts.aggregation(self.bga_channels, self.align_corners);
        let out_indices = self.out_indices.clone();
        Ok(BiSeNetV2 { detail, semantic, bga, out_indices }.into())
    }

    fn initial(&self) -> Initial {
        Initial { rules: vec![InitConfig::kaiming()], zeros: None }
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.init_cfg.as_deref()
    }
}

/// Makes the parts.
struct Parts<'a> {
    builder: &'a Builder,
    ratio: usize,
}

impl Parts<'_> {
    fn conv(&self, channels: [usize; 2], kernel: usize, stride: usize) -> ConvModule {
        let conv = square(stride, kernel / 2, 1);
        ConvModuleConfig::batch_relu().init(channels, kernel, conv, self.builder)
    }

    /// Without an activation, in so many groups.
    fn linear(
        &self,
        channels: [usize; 2],
        kernel: usize,
        stride: usize,
        groups: usize,
    ) -> ConvModule {
        let conv = ops::Conv { groups, ..square(stride, kernel / 2, 1) };
        ConvModuleConfig { act_cfg: None, ..ConvModuleConfig::batch_relu() }.init(
            channels,
            kernel,
            conv,
            self.builder,
        )
    }

    /// A depthwise convolution with a norm, and a pointwise one with `norm_cfg`.
    fn separable(
        &self,
        channels: [usize; 2],
        stride: usize,
        norm_cfg: Option<NormConfig>,
    ) -> SeparableConvModule {
        let depthwise = ConvModuleConfig { act_cfg: None, ..ConvModuleConfig::batch_relu() };
        ConvModuleConfig { norm_cfg, act_cfg: None }.separable_with(
            &depthwise,
            channels,
            3,
            square(stride, 1, 1),
            self.builder,
        )
    }

    fn stem(&self, [input, output]: [usize; 2]) -> StemBlock {
        let half = output / 2;
        StemBlock {
            conv_first: self.conv([input, output], 3, 2),
            convs: (self.conv([output, half], 1, 1), self.conv([half, output], 3, 2)),
            fuse_last: self.conv([2 * output, output], 3, 1),
        }
    }

    fn gather(&self, [input, output]: [usize; 2], stride: usize) -> GELayer {
        let inner = input * self.ratio;
        let conv1 = self.conv([input; 2], 3, 1);
        let grouped = |channels: [usize; 2], groups| {
            let conv = ops::Conv { groups, ..square(1, 1, 1) };
            ConvModuleConfig::batch_relu().init(channels, 3, conv, self.builder)
        };
        let (dwconv, shortcut) = if stride == 1 {
            (vec![grouped([input, inner], input)], None)
        } else {
            let first = self.linear([input, inner], 3, stride, input);
            let short = self.separable([input, output], stride, Some(NormConfig::batch()));
            (vec![first, grouped([inner; 2], inner)], Some([short]))
        };
        GELayer { conv1, dwconv, shortcut, conv2: [self.linear([inner, output], 1, 1, 1)] }
    }

    fn context(&self, channels: usize) -> CEBlock {
        CEBlock {
            gap: (AdaptiveAvgPool { size: 1 }, NormConfig::batch().init(channels, self.builder)),
            conv_gap: self.conv([channels; 2], 1, 1),
            conv_last: self.conv([channels; 2], 3, 1),
        }
    }

    fn aggregation(&self, channels: usize, align_corners: bool) -> BGALayer {
        let both = [channels; 2];
        BGALayer {
            detail_dwconv: [self.separable(both, 1, None)],
            detail_down: [self.linear(both, 3, 2, 1)],
            semantic_conv: [self.linear(both, 3, 1, 1)],
            semantic_dwconv: [self.separable(both, 1, None)],
            conv: self.conv(both, 3, 1),
            align_corners,
        }
    }
}

/// A bilateral network with guided aggregation.
#[derive(Module, Debug)]
pub struct BiSeNetV2 {
    detail: DetailBranch,
    semantic: SemanticBranch,
    bga: BGALayer,
    #[module(skip)]
    out_indices: Vec<usize>,
}

#[derive(Module, Debug)]
struct DetailBranch {
    detail_branch: Vec<Vec<ConvModule>>,
}

#[derive(Module, Debug)]
struct SemanticBranch {
    stage1: StemBlock,
    stage2: Vec<GELayer>,
    stage3: Vec<GELayer>,
    stage4: Vec<GELayer>,
    stage4_CEBlock: CEBlock,
}

#[derive(Module, Debug)]
struct StemBlock {
    conv_first: ConvModule,
    convs: (ConvModule, ConvModule),
    fuse_last: ConvModule,
}

/// "Gather and expansion".
#[derive(Module, Debug)]
struct GELayer {
    conv1: ConvModule,
    dwconv: Vec<ConvModule>,
    shortcut: Option<[SeparableConvModule; 1]>,
    conv2: [ConvModule; 1],
}

/// "Context embedding".
#[derive(Module, Debug)]
struct CEBlock {
    gap: (AdaptiveAvgPool, Norm),
    conv_gap: ConvModule,
    conv_last: ConvModule,
}

/// "Bilateral guided aggregation".
#[derive(Module, Debug)]
struct BGALayer {
    detail_dwconv: [SeparableConvModule; 1],
    detail_down: [ConvModule; 1],
    semantic_conv: [ConvModule; 1],
    semantic_dwconv: [SeparableConvModule; 1],
    conv: ConvModule,
    align_corners: bool,
}

impl RunBackbone for BiSeNetV2 {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let stages = self.detail.detail_branch.iter();
        let detail = stages.flatten().fold(x.clone(), |x, conv| conv.forward(x, ctx));
        let (mut maps, semantic) = self.semantic.forward(x, ctx);
        maps.insert(0, self.bga.forward(detail, semantic, ctx));
        self.out_indices.iter().map(|&it| maps[it].clone()).collect()
    }
}

impl SemanticBranch {
    /// The maps of its stages, and the last with the image's mean in it.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> (Vec<Tensor<4>>, Tensor<4>) {
        let mut maps = vec![self.stage1.forward(x, ctx)];
        for stage in [&self.stage2, &self.stage3, &self.stage4] {
            let x = maps[maps.len() - 1].clone();
            maps.push(stage.iter().fold(x, |x, layer| layer.forward(x, ctx)));
        }
        let CEBlock { gap: (pool, norm), conv_gap, conv_last } = &self.stage4_CEBlock;
        let x = maps[3].clone();
        let mean = norm.forward(pool.forward(x.clone()), Activation::None, ctx);
        let embedded = conv_last.forward(x + conv_gap.forward(mean, ctx), ctx);
        (maps, embedded)
    }
}

impl StemBlock {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let x = self.conv_first.forward(x, ctx);
        let left = self.convs.1.forward(self.convs.0.forward(x.clone(), ctx), ctx);
        let right = ops::max_pool2d(x, [3, 3], [2, 2], [1, 1]);
        self.fuse_last.forward(ops::concat(vec![left, right]), ctx)
    }
}

impl GELayer {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let [last] = &self.conv2;
        let y = self.conv1.forward(x.clone(), ctx);
        let y = self.dwconv.iter().fold(y, |y, conv| conv.forward(y, ctx));
        let short = self.shortcut.iter().fold(x, |x, [conv]| conv.forward(x, ctx));
        ops::add_relu(last.forward(y, ctx), short)
    }
}

impl BGALayer {
    fn forward(&self, detail: Tensor<4>, semantic: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let [detail_dwconv] = &self.detail_dwconv;
        let [detail_down] = &self.detail_down;
        let [semantic_conv] = &self.semantic_conv;
        let [semantic_dwconv] = &self.semantic_dwconv;
        let fine = detail_dwconv.forward(detail.clone(), ctx);
        let down = detail_down.forward(detail, ctx);
        let down = ops::avg_pool2d(down, [3, 3], [2, 2], [1, 1], false, true);
        let [.., height, width] = fine.dims();
        let resize = |x| ops::resize_bilinear(x, [height, width], self.align_corners);
        let gate = |x| ops::activate(x, Activation::Sigmoid);
        let large = resize(semantic_conv.forward(semantic.clone(), ctx));
        let first = fine * gate(large);
        let second = down * gate(semantic_dwconv.forward(semantic, ctx));
        self.conv.forward(first + resize(second), ctx)
    }
}
