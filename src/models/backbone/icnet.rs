//! ICNet (Zhao et al. 2017): most layers see a small image, and shallow ones the larger.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::Backbone;
use super::resnet::{AnyResNetConfig, ResNet};
use crate::config::{OneOrMany, default};
use crate::models::contract::{BackboneSpec, Feature, Initial, Nested, RunBackbone};
use crate::models::layer::{
    ActConfig, ConvConfig, ConvModule, ConvModuleConfig, NormConfig, PyramidPooling, square,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops;

/// The keys of `type: ICNet`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ICNetConfig {
    /// The layers that see the small image: those of a ResNet.
    pub backbone_cfg: AnyResNetConfig,
    #[serde(default = "default::n::<3>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: usize,
    /// Channels of the backbone's second and last stage.
    #[serde(default = "default_layers")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub layer_channels: Vec<usize>,
    /// Channels of the layers that see the whole image.
    #[serde(default = "default::n::<32>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub light_branch_middle_channels: usize,
    #[serde(default = "default::n::<512>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub psp_out_channels: usize,
    /// Channels of the three maps, the largest first.
    #[serde(default = "default_out")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub out_channels: Vec<usize>,
    /// Sides of the grids that the last map is averaged over.
    #[serde(default = "PyramidPooling::default_scales")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub pool_scales: Vec<usize>,
    #[serde(default)]
    pub conv_cfg: Option<ConvConfig>,
    #[serde(default = "NormConfig::batch")]
    pub norm_cfg: NormConfig,
    /// Of the pooling; the other layers have a ReLU.
    #[serde(default)]
    pub act_cfg: ActConfig,
    /// Whether resizing keeps the corner pixels' centres at the corners.
    #[serde(default)]
    pub align_corners: bool,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

fn default_layers() -> Vec<usize> {
    vec![512, 2048]
}
fn default_out() -> Vec<usize> {
    vec![64, 256, 256]
}

impl BackboneSpec for ICNetConfig {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        image.matches(self.in_channels)?;
        let stages = self.backbone_cfg.stages(image).map_err(|it| it.within("backbone_cfg"))?;
        super::one_for_each_layer("layer_channels", &self.layer_channels, 2)?;
        super::one_for_each_layer("out_channels", &self.out_channels, 3)?;
        let found: Vec<usize> = stages.iter().map(|it| it.channels).collect();
        if found.len() != 4 || [found[1], found[3]] != self.layer_channels[..] {
            let problem = format!(
                "is {:?}, and the backbone's stages have {found:?} channels, of which it takes \
                 the second and the fourth",
                self.layer_channels
            );
            return Err(ModelError::config("layer_channels", problem));
        }
        self.norm_cfg.check(self.psp_out_channels)?;
        let maps = self.out_channels.iter().enumerate();
        Ok(maps
            .map(|(level, &channels)| Feature { channels, stride: image.stride * (8 << level) })
            .collect())
    }

    fn build(&self, _: Feature, builder: &Builder) -> Result<Backbone, ModelError> {
        let backbone = self.backbone_cfg.network(builder);
        let backbone = backbone.map_err(|it| it.within("backbone_cfg"))?;
        let norm_cfg = Some(self.norm_cfg.clone());
        let pooled =
            ConvModuleConfig { norm_cfg: norm_cfg.clone(), act_cfg: Some(self.act_cfg.clone()) };
        let plain = ConvModuleConfig { norm_cfg, act_cfg: Some(ActConfig::default()) };
        let ([middle, last], inner) =
            ([0, 1].map(|it: usize| self.layer_channels[it]), self.psp_out_channels);
        let psp_modules = PyramidPooling::new(&self.pool_scales, [last, inner], &pooled, builder);
        let joined = last + self.pool_scales.len() * inner;
        let psp_bottleneck = pooled.init([joined, inner], 3, square(1, 1, 1), builder);
        let half = |channels| plain.init(channels, 3, square(2, 1, 1), builder);
        let one = |channels| plain.init(channels, 1, square(1, 0, 1), builder);
        let light = self.light_branch_middle_channels;
        Ok(ICNet {
            backbone,
            psp_modules,
            psp_bottleneck,
            conv_sub1: (
                half([self.in_channels, light]),
                half([light; 2]),
                half([light, self.out_channels[0]]),
            ),
            conv_sub2: one([middle, self.out_channels[1]]),
            conv_sub4: one([inner, self.out_channels[2]]),
            align_corners: self.align_corners,
        }
        .into())
    }

    fn initial(&self) -> Initial {
        Initial { rules: vec![InitConfig::kaiming()], zeros: None }
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.init_cfg.as_deref()
    }

    fn nested(&self) -> Option<Nested<'_>> {
        let spec = self.backbone_cfg.spec();
        Some(Nested { key: "backbone_cfg", place: "backbone", spec })
    }
}

/// An image cascade network.
#[derive(Module, Debug)]
pub struct ICNet {
    backbone: ResNet,
    psp_modules: PyramidPooling,
    psp_bottleneck: ConvModule,
    conv_sub1: (ConvModule, ConvModule, ConvModule),
    conv_sub2: ConvModule,
    conv_sub4: ConvModule,
    align_corners: bool,
}

impl RunBackbone for ICNet {
    /// `[n, c, h, w]` to maps at an eighth, a sixteenth and a thirty-second of the size.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let (first, second, third) = &self.conv_sub1;
        let large = first.forward(x.clone(), ctx);
        let large = third.forward(second.forward(large, ctx), ctx);
        let x = self.backbone.stem(self.halved(x), ctx);
        let x = ops::max_pool2d_with(x, [3, 3], [2, 2], [1, 1], true);
        let x = self.backbone.stage(1, self.backbone.stage(0, x, ctx), ctx);
        let middle = self.conv_sub2.forward(x.clone(), ctx);
        let x = self.backbone.stage(2, self.halved(x), ctx);
        let x = self.backbone.stage(3, x, ctx);
        let mut pooled = self.psp_modules.forward(x, self.align_corners, ctx);
        pooled.rotate_left(1);
        let x = self.psp_bottleneck.forward(ops::concat(pooled), ctx);
        vec![large, middle, self.conv_sub4.forward(x, ctx)]
    }
}

impl ICNet {
    /// torch's `interpolate` by a factor of a half: without aligned corners it sees two by two
    /// pixels at a time, and never a last odd one.
    fn halved(&self, x: Tensor<4>) -> Tensor<4> {
        let [.., height, width] = x.dims();
        let half = [height / 2, width / 2];
        if self.align_corners {
            return ops::resize_bilinear(x, half, true);
        }
        let even = x.narrow(2, 0, 2 * half[0]).narrow(3, 0, 2 * half[1]);
        ops::resize_bilinear(even, half, false)
    }
}
