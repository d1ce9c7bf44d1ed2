//! STDC (Fan et al. 2021): modules that join ever narrower convolutions, and the context path that
//! brings their last maps up again.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::Backbone;
use crate::config::{NotOffered, OneOrMany, Only, Typed, default};
use crate::models::contract::{BackboneSpec, Feature, Nested, RunBackbone};
use crate::models::layer::{
    ActConfig, AdaptiveAvgPool, AttentionRefinement, ConvModule, ConvModuleConfig,
    InterpolationMode, NormConfig, square,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops::{self, Activation};

/// The keys of `type: STDCNet`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct STDCNetConfig {
    pub stdc_type: STDCType,
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: usize,
    /// Of the two first convolutions, and of the three stages.
    #[serde(deserialize_with = "crate::config::positive")]
    pub channels: Vec<usize>,
    pub bottleneck_type: BottleneckType,
    pub norm_cfg: NormConfig,
    pub act_cfg: ActConfig,
    /// Of each module.
    #[serde(default = "default::n::<4>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_convs: usize,
    /// Whether the last map is convolved once more, to at least 1024 channels.
    #[serde(default)]
    pub with_final_conv: bool,
    /// Without effect, as in mmseg.
    #[serde(default)]
    pub pretrained: Option<NotOffered>,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

impl Typed for STDCNetConfig {
    const TYPES: &'static [&'static str] = &["STDCNet"];
}

/// How many modules there are.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
pub enum STDCType {
    STDCNet1,
    STDCNet2,
}

/// How a module's convolutions become one map; mmseg's `add` is not offered.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum BottleneckType {
    Cat,
}

impl STDCNetConfig {
    /// Modules of each stage, the first of which halves the size.
    fn depths(&self) -> [usize; 3] {
        match self.stdc_type {
            STDCType::STDCNet1 => [2, 2, 2],
            STDCType::STDCNet2 => [4, 5, 3],
        }
    }

    fn module(&self) -> ConvModuleConfig {
        let act_cfg = Some(self.act_cfg.clone());
        ConvModuleConfig { norm_cfg: Some(self.norm_cfg.clone()), act_cfg }
    }

    /// Channels of the last convolution, where there is one.
    fn last(&self) -> usize {
        self.channels[4].max(1024)
    }

    fn network(&self, builder: &Builder) -> STDCNet {
        let widths = &self.channels;
        let conv = |channels| self.module().init(channels, 3, square(2, 1, 1), builder);
        let mut stages = vec![
            STDCStage::Conv(conv([self.in_channels, widths[0]])),
            STDCStage::Conv(conv([widths[0], widths[1]])),
        ];
        for (stage, depth) in self.depths().into_iter().enumerate() {
            let (input, output) = (widths[stage + 1], widths[stage + 2]);
            let module = |index| {
                let first = index == 0;
                self.block([if first { input } else { output }, output], first, builder)
            };
            stages.push(STDCStage::Modules((0..depth).map(module).collect()));
        }
        let final_conv = self
            .with_final_conv
            .then(|| self.module().init([widths[4], self.last()], 1, square(1, 0, 1), builder));
        STDCNet { stages, final_conv }
    }

    fn block(&self, [input, output]: [usize; 2], halves: bool, builder: &Builder) -> STDCModule {
        let (half, count) = (output / 2, self.num_convs);
        let norm_cfg = Some(self.norm_cfg.clone());
        // mmseg's first convolution has a ReLU whatever the others have.
        let first =
            ConvModuleConfig { norm_cfg: norm_cfg.clone(), act_cfg: Some(ActConfig::default()) };
        let mut layers = vec![first.init([input, half], 1, square(1, 0, 1), builder)];
        layers.extend((1..count).map(|index| {
            let narrower = if index + 1 == count { index } else { index + 1 };
            let channels = [output >> index, output >> narrower];
            self.module().init(channels, 3, square(1, 1, 1), builder)
        }));
        let linear = ConvModuleConfig { norm_cfg, act_cfg: None };
        let depthwise = ops::Conv { groups: half, ..square(2, 1, 1) };
        let downsample = halves.then(|| linear.init([half; 2], 3, depthwise, builder));
        STDCModule { layers, downsample }
    }
}

impl BackboneSpec for STDCNetConfig {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        image.matches(self.in_channels)?;
        super::one_for_each_layer("channels", &self.channels, 5)?;
        if self.num_convs < 2 {
            return Err(ModelError::config("num_convs", "expected at least 2, got 1"));
        }
        let divisor = 1 << (self.num_convs - 1);
        for &channels in &self.channels[2..] {
            if !channels.is_multiple_of(divisor) {
                let problem = format!("{channels} cannot be halved {} times", self.num_convs - 1);
                return Err(ModelError::config("channels", problem));
            }
        }
        self.channels.iter().try_for_each(|&it| self.norm_cfg.check(it))?;
        let last = if self.with_final_conv { self.last() } else { self.channels[4] };
        let widths = [self.channels[2], self.channels[3], last].into_iter().enumerate();
        Ok(widths
            .map(|(stage, channels)| Feature { channels, stride: image.stride * (8 << stage) })
            .collect())
    }

    fn build(&self, _: Feature, builder: &Builder) -> Result<Backbone, ModelError> {
        Ok(self.network(builder).into())
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.init_cfg.as_deref()
    }
}

/// The keys of `type: STDCContextPathNet`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct STDCContextPathNetConfig {
    /// The backbone: an STDCNet.
    pub backbone_cfg: Only<STDCNetConfig>,
    /// Channels of its last two maps, the last first.
    #[serde(default = "default_last")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub last_in_channels: Vec<usize>,
    /// Channels that they are brought to.
    #[serde(default = "default::n::<128>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub out_channels: usize,
    #[serde(default)]
    pub ffm_cfg: FeatureFusionConfig,
    /// How maps are enlarged.
    #[serde(default)]
    pub upsample_mode: InterpolationMode,
    #[serde(default)]
    pub align_corners: Option<bool>,
    #[serde(default = "NormConfig::batch")]
    pub norm_cfg: NormConfig,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

fn default_last() -> Vec<usize> {
    vec![1024, 512]
}

/// `ffm_cfg`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct FeatureFusionConfig {
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: usize,
    #[serde(deserialize_with = "crate::config::positive")]
    pub out_channels: usize,
    /// How many times narrower its attention is inside.
    #[serde(default = "default::n::<4>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub scale_factor: usize,
    #[serde(default = "NormConfig::batch")]
    pub norm_cfg: NormConfig,
    #[serde(default)]
    pub act_cfg: ActConfig,
}

impl Default for FeatureFusionConfig {
    fn default() -> Self {
        Self {
            in_channels: 512,
            out_channels: 256,
            scale_factor: 4,
            norm_cfg: NormConfig::batch(),
            act_cfg: ActConfig::default(),
        }
    }
}

impl BackboneSpec for STDCContextPathNetConfig {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        let inner = self.backbone_cfg.check(image).map_err(|it| it.within("backbone_cfg"))?;
        let found: Vec<usize> = inner.iter().rev().map(|it| it.channels).collect();
        if found[..2] != self.last_in_channels {
            let problem = format!(
                "is {:?}, and the backbone's last two maps have {:?} channels, the last first",
                self.last_in_channels,
                &found[..2]
            );
            return Err(ModelError::config("last_in_channels", problem));
        }
        let joined = inner[0].channels + self.out_channels;
        if self.ffm_cfg.in_channels != joined {
            let problem = format!(
                "is {}, and the first map and out_channels are {joined}",
                self.ffm_cfg.in_channels
            );
            return Err(ModelError::config("ffm_cfg.in_channels", problem));
        }
        if self.ffm_cfg.scale_factor > self.ffm_cfg.out_channels {
            let problem = format!("expected at most out_channels, {}", self.ffm_cfg.out_channels);
            return Err(ModelError::config("ffm_cfg.scale_factor", problem));
        }
        let map = |channels, of: usize| Feature { channels, stride: inner[of].stride };
        Ok(vec![
            inner[0],
            map(self.out_channels, 1),
            map(self.out_channels, 0),
            map(self.ffm_cfg.out_channels, 0),
        ])
    }

    fn build(&self, _: Feature, builder: &Builder) -> Result<Backbone, ModelError> {
        let module = ConvModuleConfig {
            norm_cfg: Some(self.norm_cfg.clone()),
            act_cfg: Some(ActConfig::default()),
        };
        let output = self.out_channels;
        let backbone = self.backbone_cfg.network(builder);
        let arm = |&input: &usize| AttentionRefinement::new([input, output], builder);
        let conv = |_: &usize| module.init([output; 2], 3, square(1, 1, 1), builder);
        let arms = self.last_in_channels.iter().map(arm).collect();
        let convs = self.last_in_channels.iter().map(conv).collect();
        let average = [self.last_in_channels[0], output];
        let conv_avg = module.init(average, 1, square(1, 0, 1), builder);
        let ffm = self.ffm_cfg.init(builder);
        let mode = (self.upsample_mode, self.align_corners.unwrap_or_default());
        Ok(STDCContextPathNet { backbone, arms, convs, conv_avg, ffm, mode }.into())
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.init_cfg.as_deref()
    }

    fn nested(&self) -> Option<Nested<'_>> {
        Some(Nested { key: "backbone_cfg", place: "backbone", spec: &*self.backbone_cfg })
    }
}

impl FeatureFusionConfig {
    fn init(&self, builder: &Builder) -> FeatureFusion {
        let (output, inner) = (self.out_channels, self.out_channels / self.scale_factor);
        let (norm_cfg, act_cfg) = (Some(self.norm_cfg.clone()), Some(self.act_cfg.clone()));
        let with = |norm_cfg, act_cfg| ConvModuleConfig { norm_cfg, act_cfg };
        let one = square(1, 0, 1);
        let conv0 =
            with(norm_cfg, act_cfg.clone()).init([self.in_channels, output], 1, one, builder);
        let narrow = with(None, act_cfg).init_without_bias([output, inner], 1, one, builder);
        let wide = with(None, None).init_without_bias([inner, output], 1, one, builder);
        FeatureFusion { conv0, attention: (AdaptiveAvgPool { size: 1 }, narrow, wide) }
    }
}

/// A short-term dense concatenate network.
#[derive(Module, Debug)]
pub struct STDCNet {
    stages: Vec<STDCStage>,
    final_conv: Option<ConvModule>,
}

#[derive(Module, Debug)]
enum STDCStage {
    Conv(ConvModule),
    Modules(Vec<STDCModule>),
}

#[derive(Module, Debug)]
struct STDCModule {
    layers: Vec<ConvModule>,
    downsample: Option<ConvModule>,
}

impl RunBackbone for STDCNet {
    /// `[n, c, h, w]` to the maps of the three stages.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let mut x = x;
        let mut maps = Vec::with_capacity(3);
        for stage in &self.stages {
            match stage {
                STDCStage::Conv(conv) => x = conv.forward(x, ctx),
                STDCStage::Modules(modules) => {
                    x = modules.iter().fold(x, |x, module| module.forward(x, ctx));
                    maps.push(x.clone());
                }
            }
        }
        if let (Some(conv), Some(last)) = (&self.final_conv, maps.pop()) {
            maps.push(conv.forward(last, ctx));
        } else {
            maps.push(x);
        }
        maps
    }
}

impl STDCModule {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let first = self.layers[0].forward(x, ctx);
        let mut x = match &self.downsample {
            None => first.clone(),
            Some(conv) => conv.forward(first.clone(), ctx),
        };
        let skipped = match &self.downsample {
            None => first,
            Some(_) => ops::avg_pool2d(first, [3, 3], [2, 2], [1, 1], false, true),
        };
        let mut joined = vec![skipped];
        for layer in &self.layers[1..] {
            x = layer.forward(x, ctx);
            joined.push(x.clone());
        }
        ops::concat(joined)
    }
}

/// An STDC network and its context path.
#[derive(Module, Debug)]
pub struct STDCContextPathNet {
    backbone: STDCNet,
    arms: Vec<AttentionRefinement>,
    convs: Vec<ConvModule>,
    conv_avg: ConvModule,
    ffm: FeatureFusion,
    #[module(skip)]
    mode: (InterpolationMode, bool),
}

/// mmseg's `FeatureFusionModule`.
#[derive(Module, Debug)]
struct FeatureFusion {
    conv0: ConvModule,
    attention: (AdaptiveAvgPool, ConvModule, ConvModule),
}

impl RunBackbone for STDCContextPathNet {
    /// `[n, c, h, w]` to the backbone's first map, those of the context path, the smaller first,
    /// and the joined one.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let maps = self.backbone.forward(x, ctx);
        let (mode, align_corners) = self.mode;
        let enlarged = |x: Tensor<4>, like: &Tensor<4>| {
            mode.resize(x, [like.dims()[2], like.dims()[3]], align_corners)
        };
        let mean = ops::adaptive_avg_pool2d(maps[2].clone(), [1, 1]);
        let mut above = enlarged(self.conv_avg.forward(mean, ctx), &maps[2]);
        let mut path = Vec::with_capacity(2);
        for (level, (arm, conv)) in self.arms.iter().zip(&self.convs).enumerate() {
            let x = arm.forward(maps[2 - level].clone(), ctx) + above;
            above = conv.forward(enlarged(x, &maps[1 - level]), ctx);
            path.push(above.clone());
        }
        let joined = self.ffm.forward(maps[0].clone(), above, ctx);
        std::iter::once(maps[0].clone()).chain(path).chain([joined]).collect()
    }
}

impl FeatureFusion {
    fn forward(&self, spatial: Tensor<4>, context: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let x = self.conv0.forward(ops::concat(vec![spatial, context]), ctx);
        let (pool, narrow, wide) = &self.attention;
        let weights = wide.forward(narrow.forward(pool.forward(x.clone()), ctx), ctx);
        x.clone() * ops::activate(weights, Activation::Sigmoid) + x
    }
}
