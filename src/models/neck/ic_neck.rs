//! The neck of ICNet (Zhao et al. 2017): "cascade feature fusion" of three maps, the smallest
//! first.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use crate::config::{OneOrMany, default};
use crate::models::contract::{Feature, NeckSpec, RunNeck};
use crate::models::layer::{
    ActConfig, ConvConfig, ConvModule, ConvModuleConfig, NormConfig, square,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops;

/// The keys of `type: ICNeck`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ICNeckConfig {
    /// Channels of the three maps, the largest first.
    #[serde(default = "default_in_channels")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: Vec<usize>,
    #[serde(default = "default::n::<128>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub out_channels: usize,
    #[serde(default)]
    pub conv_cfg: Option<ConvConfig>,
    #[serde(default = "NormConfig::batch")]
    pub norm_cfg: NormConfig,
    #[serde(default)]
    pub act_cfg: ActConfig,
    /// Whether resizing keeps the corner pixels' centres at the corners.
    #[serde(default)]
    pub align_corners: bool,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

fn default_in_channels() -> Vec<usize> {
    vec![64, 256, 256]
}

impl NeckSpec for ICNeckConfig {
    fn check(&self, inputs: &[Feature]) -> Result<Vec<Feature>, ModelError> {
        let found: Vec<usize> = inputs.iter().map(|it| it.channels).collect();
        if found.len() != 3 || found != self.in_channels {
            let problem = format!(
                "is {:?}, and the backbone's maps have {found:?} channels; expected three",
                self.in_channels
            );
            return Err(ModelError::config("in_channels", problem));
        }
        self.norm_cfg.check(self.out_channels)?;
        let of = |level: usize| Feature { channels: self.out_channels, ..inputs[level] };
        Ok(vec![of(1), of(0), of(0)])
    }

    fn build(&self, _: &[Feature], builder: &Builder) -> Result<super::Neck, ModelError> {
        let module = ConvModuleConfig {
            norm_cfg: Some(self.norm_cfg.clone()),
            act_cfg: Some(self.act_cfg.clone()),
        };
        let fusion = |low, high| CascadeFusion {
            conv_low: module.init([low, self.out_channels], 3, square(1, 2, 2), builder),
            conv_high: module.init([high, self.out_channels], 1, square(1, 0, 1), builder),
        };
        Ok(ICNeck {
            cff_24: fusion(self.in_channels[2], self.in_channels[1]),
            cff_12: fusion(self.out_channels, self.in_channels[0]),
            align_corners: self.align_corners,
        }
        .into())
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.init_cfg.as_deref()
    }
}

/// The two enlarged maps that only help to train, and the last fusion.
#[derive(Module, Debug)]
pub struct ICNeck {
    cff_24: CascadeFusion,
    cff_12: CascadeFusion,
    align_corners: bool,
}

/// mmseg's `CascadeFeatureFusion`.
#[derive(Module, Debug)]
struct CascadeFusion {
    conv_low: ConvModule,
    conv_high: ConvModule,
}

impl RunNeck for ICNeck {
    fn forward(&self, features: Vec<Tensor<4>>, ctx: &Forward) -> Vec<Tensor<4>> {
        let [large, middle, small] =
            <[_; 3]>::try_from(features).expect("checked: there are three maps");
        let (fused, low) = self.cff_24.forward(small, middle, self.align_corners, ctx);
        let (last, middle) = self.cff_12.forward(fused, large, self.align_corners, ctx);
        vec![low, middle, last]
    }
}

impl CascadeFusion {
    /// The fusion, and the smaller map enlarged.
    fn forward(
        &self,
        low: Tensor<4>,
        high: Tensor<4>,
        align_corners: bool,
        ctx: &Forward,
    ) -> (Tensor<4>, Tensor<4>) {
        let [.., height, width] = high.dims();
        let low = ops::resize_bilinear(low, [height, width], align_corners);
        let low = self.conv_low.forward(low, ctx);
        let high = self.conv_high.forward(high, ctx);
        (ops::add_relu(high, low.clone()), low)
    }
}
