//! BiSeNet (Yu et al. 2018): a shallow path at an eighth of the size, and a backbone that sees far.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::Backbone;
use super::resnet::{AnyResNetConfig, ResNet};
use crate::config::{OneOrMany, default};
use crate::models::contract::{BackboneSpec, Feature, Nested, RunBackbone};
use crate::models::layer::{
    ActConfig, AdaptiveAvgPool, AttentionRefinement, ConvConfig, ConvModule, ConvModuleConfig,
    NormConfig, square,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops::{self, Activation};

/// The keys of `type: BiSeNetV1`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct BiSeNetV1Config {
    /// The backbone that sees far: a ResNet.
    pub backbone_cfg: AnyResNetConfig,
    #[serde(default = "default::n::<3>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: usize,
    /// Channels of the shallow path's four layers.
    #[serde(default = "default_spatial")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub spatial_channels: Vec<usize>,
    /// Channels of the backbone's last three maps.
    #[serde(default = "default_context")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub context_channels: Vec<usize>,
    /// Which of the joined map and of those of the context path, at an eighth and a sixteenth, the
    /// heads see.
    #[serde(default = "default_out_indices")]
    pub out_indices: Vec<usize>,
    /// Without effect, as in mmseg, whose maps are enlarged to the nearest pixel.
    #[serde(default)]
    pub align_corners: bool,
    /// Channels of the joined map.
    #[serde(default = "default::n::<256>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub out_channels: usize,
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

fn default_spatial() -> Vec<usize> {
    vec![64, 64, 64, 128]
}
fn default_context() -> Vec<usize> {
    vec![128, 256, 512]
}
fn default_out_indices() -> Vec<usize> {
    vec![0, 1, 2]
}

impl BackboneSpec for BiSeNetV1Config {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        image.matches(self.in_channels)?;
        let inner = self.backbone_cfg.spec().check(image);
        let inner = inner.map_err(|it| it.within("backbone_cfg"))?;
        super::one_for_each_layer("spatial_channels", &self.spatial_channels, 4)?;
        super::one_for_each_layer("context_channels", &self.context_channels, 3)?;
        let found: Vec<usize> = inner.iter().map(|it| it.channels).collect();
        if found.len() != 4 || found[2..] != self.context_channels[1..] {
            let problem = format!(
                "are {:?}, and the backbone gives maps of {found:?} channels, of which it takes \
                 the last two of four",
                self.context_channels
            );
            return Err(ModelError::config("context_channels", problem));
        }
        let [first, middle] = [self.context_channels[0], self.context_channels[1]];
        if self.spatial_channels[3] + first != middle {
            let problem = format!(
                "the shallow path's {} channels and {first} have to be {middle} together",
                self.spatial_channels[3]
            );
            return Err(ModelError::config("context_channels", problem));
        }
        super::stages_that_are("out_indices", &self.out_indices, 3)?;
        let maps = [(self.out_channels, 8), (first, 8), (first, 16)]
            .map(|(channels, stride)| Feature { channels, stride: image.stride * stride });
        Ok(self.out_indices.iter().map(|&it| maps[it]).collect())
    }

    fn build(&self, _: Feature, builder: &Builder) -> Result<Backbone, ModelError> {
        let plain = ConvModuleConfig::batch_relu();
        let of = |channels, kernel: usize, stride| {
            plain.init(channels, kernel, square(stride, kernel / 2, 1), builder)
        };
        let backbone = self.backbone_cfg.network(builder);
        let backbone = backbone.map_err(|it| it.within("backbone_cfg"))?;
        let [first, middle, last] = [0, 1, 2].map(|it: usize| self.context_channels[it]);
        let context_path = ContextPath {
            backbone,
            arm16: AttentionRefinement::new([middle, first], builder),
            arm32: AttentionRefinement::new([last, first], builder),
            conv_head32: of([first; 2], 3, 1),
            conv_head16: of([first; 2], 3, 1),
            gap_conv: (AdaptiveAvgPool { size: 1 }, of([last, first], 1, 1)),
        };
        let [a, b, c, d] = [0, 1, 2, 3].map(|it: usize| self.spatial_channels[it]);
        let spatial_path = SpatialPath {
            layer1: of([self.in_channels, a], 7, 2),
            layer2: of([a, b], 3, 2),
            layer3: of([b, c], 3, 2),
            layer4: of([c, d], 1, 1),
        };
        let output = self.out_channels;
        let ffm = FeatureFusion {
            conv1: of([middle, output], 1, 1),
            conv_atten: [of([output; 2], 1, 1)],
        };
        let out_indices = self.out_indices.clone();
        Ok(BiSeNetV1 { context_path, spatial_path, ffm, out_indices }.into())
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.init_cfg.as_deref()
    }

    fn nested(&self) -> Option<Nested<'_>> {
        let spec = self.backbone_cfg.spec();
        Some(Nested { key: "backbone_cfg", place: "context_path.backbone", spec })
    }
}

/// A bilateral segmentation network.
#[derive(Module, Debug)]
pub struct BiSeNetV1 {
    context_path: ContextPath,
    spatial_path: SpatialPath,
    ffm: FeatureFusion,
    #[module(skip)]
    out_indices: Vec<usize>,
}

#[derive(Module, Debug)]
struct ContextPath {
    backbone: ResNet,
    arm16: AttentionRefinement,
    arm32: AttentionRefinement,
    conv_head32: ConvModule,
    conv_head16: ConvModule,
    gap_conv: (AdaptiveAvgPool, ConvModule),
}

#[derive(Module, Debug)]
struct SpatialPath {
    layer1: ConvModule,
    layer2: ConvModule,
    layer3: ConvModule,
    layer4: ConvModule,
}

/// mmseg's `FeatureFusionModule`.
#[derive(Module, Debug)]
struct FeatureFusion {
    conv1: ConvModule,
    conv_atten: [ConvModule; 1],
}

impl RunBackbone for BiSeNetV1 {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let (eighth, sixteenth) = self.context_path.forward(x.clone(), ctx);
        let spatial = self.spatial_path.forward(x, ctx);
        let joined = self.ffm.forward(spatial, eighth.clone(), ctx);
        let maps = [joined, eighth, sixteenth];
        self.out_indices.iter().map(|&it| maps[it].clone()).collect()
    }
}

impl ContextPath {
    /// The maps at an eighth and at a sixteenth.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> (Tensor<4>, Tensor<4>) {
        let maps = self.backbone.forward(x, ctx);
        let [middle, last] = [maps[2].clone(), maps[3].clone()];
        let size = |x: &Tensor<4>| [x.dims()[2], x.dims()[3]];
        let (pool, conv) = &self.gap_conv;
        let mean = conv.forward(pool.forward(last.clone()), ctx);
        let x = self.arm32.forward(last, ctx) + mean;
        let x = ops::resize_nearest(x, size(&middle));
        let sixteenth = self.conv_head32.forward(x, ctx);
        let x = self.arm16.forward(middle, ctx) + sixteenth.clone();
        let x = ops::resize_nearest(x, size(&maps[1]));
        (self.conv_head16.forward(x, ctx), sixteenth)
    }
}

impl SpatialPath {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let layers = [&self.layer1, &self.layer2, &self.layer3, &self.layer4];
        layers.into_iter().fold(x, |x, layer| layer.forward(x, ctx))
    }
}

impl FeatureFusion {
    fn forward(&self, spatial: Tensor<4>, context: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let x = self.conv1.forward(ops::concat(vec![spatial, context]), ctx);
        let mean = ops::adaptive_avg_pool2d(x.clone(), [1, 1]);
        let [conv] = &self.conv_atten;
        let weights = ops::activate(conv.forward(mean, ctx), Activation::Sigmoid);
        x.clone() * weights + x
    }
}
