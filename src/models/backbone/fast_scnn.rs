//! Fast-SCNN (Poudel et al. 2019): a few layers that learn to shrink the image, and a deep branch
//! whose map is joined with theirs.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::Backbone;
use crate::config::{OneOrMany, default};
use crate::models::contract::{BackboneSpec, Feature, Initial, RunBackbone};
use crate::models::layer::{
    ActConfig, ConvConfig, ConvModule, ConvModuleConfig, InvertedConfig, InvertedResidual,
    NormConfig, PyramidPooling, SeparableConvModule, square,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops;

/// The keys of `type: FastSCNN`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct FastSCNNConfig {
    #[serde(default = "default::n::<3>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: usize,
    /// Channels of the first two layers.
    #[serde(default = "default_downsample")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub downsample_dw_channels: Vec<usize>,
    /// Channels of the third, which the deep branch begins with.
    #[serde(default = "default::n::<64>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub global_in_channels: usize,
    #[serde(default = "default_blocks")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub global_block_channels: Vec<usize>,
    #[serde(default = "default_strides")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub global_block_strides: Vec<usize>,
    /// Channels of the deep branch's map.
    #[serde(default = "default::n::<128>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub global_out_channels: usize,
    /// As `global_in_channels`.
    #[serde(default = "default::n::<64>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub higher_in_channels: usize,
    /// As `global_out_channels`.
    #[serde(default = "default::n::<128>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub lower_in_channels: usize,
    /// Channels of the joined map.
    #[serde(default = "default::n::<128>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub fusion_out_channels: usize,
    /// Which of the first layers' map, the deep branch's and the joined one the heads see.
    #[serde(default = "default_out_indices")]
    pub out_indices: Vec<usize>,
    #[serde(default)]
    pub conv_cfg: Option<ConvConfig>,
    #[serde(default = "NormConfig::batch")]
    pub norm_cfg: NormConfig,
    #[serde(default)]
    pub act_cfg: ActConfig,
    /// Whether resizing keeps the corner pixels' centres at the corners.
    #[serde(default)]
    pub align_corners: bool,
    /// After the depthwise convolutions of the first layers.
    #[serde(default)]
    pub dw_act_cfg: Option<ActConfig>,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

fn default_downsample() -> Vec<usize> {
    vec![32, 48]
}
fn default_blocks() -> Vec<usize> {
    vec![64, 96, 128]
}
fn default_strides() -> Vec<usize> {
    vec![2, 2, 1]
}
fn default_out_indices() -> Vec<usize> {
    vec![0, 1, 2]
}

/// Blocks of each stage of the deep branch.
const DEPTH: usize = 3;

/// How many times wider they are inside.
const EXPANSION: usize = 6;

impl BackboneSpec for FastSCNNConfig {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        image.matches(self.in_channels)?;
        super::one_for_each_layer("downsample_dw_channels", &self.downsample_dw_channels, 2)?;
        super::one_for_each_layer("global_block_channels", &self.global_block_channels, 3)?;
        super::one_for_each_layer("global_block_strides", &self.global_block_strides, 3)?;
        super::stages_that_are("out_indices", &self.out_indices, 3)?;
        for (key, found, other, expected) in [
            (
                "higher_in_channels",
                self.higher_in_channels,
                "global_in_channels",
                self.global_in_channels,
            ),
            (
                "lower_in_channels",
                self.lower_in_channels,
                "global_out_channels",
                self.global_out_channels,
            ),
        ] {
            if found != expected {
                let problem = format!("is {found}, and {other} is {expected}: they are the same");
                return Err(ModelError::config(key, problem));
            }
        }
        if !self.global_out_channels.is_multiple_of(self.fusion_out_channels) {
            let problem = format!(
                "has to divide global_out_channels, {}, whose channels are convolved in so many \
                 groups",
                self.global_out_channels
            );
            return Err(ModelError::config("fusion_out_channels", problem));
        }
        self.norm_cfg.check(self.fusion_out_channels)?;
        let shrunk: usize = self.global_block_strides.iter().product();
        let maps = [
            (self.global_in_channels, 8),
            (self.global_out_channels, 8 * shrunk),
            (self.fusion_out_channels, 8),
        ]
        .map(|(channels, stride)| Feature { channels, stride: image.stride * stride });
        Ok(self.out_indices.iter().map(|&it| maps[it]).collect())
    }

    fn build(&self, _: Feature, builder: &Builder) -> Result<Backbone, ModelError> {
        let norm_cfg = Some(self.norm_cfg.clone());
        let with = |act_cfg| ConvModuleConfig { norm_cfg: norm_cfg.clone(), act_cfg };
        let (module, linear) = (with(Some(self.act_cfg.clone())), with(None));
        let [first, second] = [0, 1].map(|it: usize| self.downsample_dw_channels[it]);
        let (plain, depthwise) = (with(Some(ActConfig::default())), with(self.dw_act_cfg.clone()));
        let separable =
            |channels| plain.separable_with(&depthwise, channels, 3, square(2, 1, 1), builder);
        let learning_to_downsample = LearningToDownsample {
            conv: module.init([self.in_channels, first], 3, square(2, 1, 1), builder),
            dsconv1: separable([first, second]),
            dsconv2: separable([second, self.global_in_channels]),
        };
        let stage = |index: usize| -> Vec<InvertedResidual> {
            let output = self.global_block_channels[index];
            let input = if index == 0 {
                self.global_in_channels
            } else {
                self.global_block_channels[index - 1]
            };
            let block = |place| {
                let first = place == 0;
                let config = InvertedConfig {
                    channels: [if first { input } else { output }, output],
                    stride: if first { self.global_block_strides[index] } else { 1 },
                    expand_ratio: EXPANSION,
                    dilation: 1,
                    module: &module,
                };
                InvertedResidual::new(config, builder)
            };
            (0..DEPTH).map(block).collect()
        };
        let last = self.global_block_channels[2];
        let pooled = [last, last / 4];
        let global_feature_extractor = GlobalFeatureExtractor {
            bottleneck1: stage(0),
            bottleneck2: stage(1),
            bottleneck3: stage(2),
            ppm: PyramidPooling::new(&PyramidPooling::default_scales(), pooled, &module, builder),
            out: module.init([2 * last, self.global_out_channels], 3, square(1, 1, 1), builder),
        };
        let output = self.fusion_out_channels;
        let grouped = ops::Conv { groups: output, ..square(1, 1, 1) };
        let feature_fusion = FeatureFusion {
            dwconv: module.init([self.lower_in_channels, output], 3, grouped, builder),
            conv_lower_res: linear.init([output; 2], 1, square(1, 0, 1), builder),
            conv_higher_res: linear.init(
                [self.higher_in_channels, output],
                1,
                square(1, 0, 1),
                builder,
            ),
        };
        Ok(FastSCNN {
            learning_to_downsample,
            global_feature_extractor,
            feature_fusion,
            align_corners: self.align_corners,
            out_indices: self.out_indices.clone(),
        }
        .into())
    }

    fn initial(&self) -> Initial {
        Initial { rules: vec![InitConfig::kaiming()], zeros: None }
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.init_cfg.as_deref()
    }
}

/// A fast segmentation network.
#[derive(Module, Debug)]
pub struct FastSCNN {
    learning_to_downsample: LearningToDownsample,
    global_feature_extractor: GlobalFeatureExtractor,
    feature_fusion: FeatureFusion,
    align_corners: bool,
    #[module(skip)]
    out_indices: Vec<usize>,
}

#[derive(Module, Debug)]
struct LearningToDownsample {
    conv: ConvModule,
    dsconv1: SeparableConvModule,
    dsconv2: SeparableConvModule,
}

#[derive(Module, Debug)]
struct GlobalFeatureExtractor {
    bottleneck1: Vec<InvertedResidual>,
    bottleneck2: Vec<InvertedResidual>,
    bottleneck3: Vec<InvertedResidual>,
    ppm: PyramidPooling,
    out: ConvModule,
}

/// mmseg's `FeatureFusionModule`.
#[derive(Module, Debug)]
struct FeatureFusion {
    dwconv: ConvModule,
    conv_lower_res: ConvModule,
    conv_higher_res: ConvModule,
}

impl RunBackbone for FastSCNN {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let LearningToDownsample { conv, dsconv1, dsconv2 } = &self.learning_to_downsample;
        let large = dsconv2.forward(dsconv1.forward(conv.forward(x, ctx), ctx), ctx);
        let GlobalFeatureExtractor { bottleneck1, bottleneck2, bottleneck3, ppm, out } =
            &self.global_feature_extractor;
        let blocks = bottleneck1.iter().chain(bottleneck2).chain(bottleneck3);
        let x = blocks.fold(large.clone(), |x, block| block.forward(x, ctx));
        let pooled = ops::concat(ppm.forward(x, self.align_corners, ctx));
        let small = out.forward(pooled, ctx);
        let FeatureFusion { dwconv, conv_lower_res, conv_higher_res } = &self.feature_fusion;
        let [.., height, width] = large.dims();
        let enlarged = ops::resize_bilinear(small.clone(), [height, width], self.align_corners);
        let low = conv_lower_res.forward(dwconv.forward(enlarged, ctx), ctx);
        let joined = ops::add_relu(conv_higher_res.forward(large.clone(), ctx), low);
        let maps = [large, small, joined];
        self.out_indices.iter().map(|&it| maps[it].clone()).collect()
    }
}
