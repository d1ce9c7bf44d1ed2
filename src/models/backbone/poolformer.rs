//! PoolFormer (Yu et al. 2022), as mmpretrain has it: a transformer whose attention is a mean over
//! neighbours.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::Deserialize;

use super::Backbone;
use super::arch::{Arch, ArchTable};
use crate::config::{OneOrMany, default};
use crate::models::contract::{BackboneSpec, Feature, Initial, RunBackbone};
use crate::models::layer::{
    Act, ActConfig, Conv2d, DropPath, Dropout, GroupNormConfig, Norm, NormConfig, add_scaled,
    drop_path_rates, layer_scale, square,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops::{self, Activation};

/// The keys of `type: mmpretrain.PoolFormer`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct PoolFormerConfig {
    /// A name, or `layers` and `embed_dims` of each stage.
    #[serde(default = "default_arch")]
    pub arch: Arch<PoolFormerArch>,
    /// Side of the windows of neighbours.
    #[serde(default = "default::n::<3>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub pool_size: usize,
    #[serde(default = "default_norm")]
    pub norm_cfg: NormConfig,
    #[serde(default = "ActConfig::gelu")]
    pub act_cfg: ActConfig,
    #[serde(default = "default::n::<7>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_patch_size: usize,
    #[serde(default = "default::n::<4>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_stride: usize,
    #[serde(default = "default::n::<2>")]
    pub in_pad: usize,
    #[serde(default = "default::n::<3>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub down_patch_size: usize,
    #[serde(default = "default::n::<2>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub down_stride: usize,
    #[serde(default = "default::n::<1>")]
    pub down_pad: usize,
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::below_one")]
    pub drop_rate: f64,
    /// That of the last block; those before have less.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::below_one")]
    pub drop_path_rate: f64,
    /// Places of stages among the parts of the network, which patches stand between: 0, 2, 4, 6;
    /// negative numbers count from the last.
    #[serde(default = "last")]
    pub out_indices: OneOrMany<i64>,
    /// The patches (from 0 on) and the first so many parts of the network are not trained.
    #[serde(default)]
    pub frozen_stages: i64,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

/// Blocks and channels of each stage.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct PoolFormerArch {
    #[serde(deserialize_with = "crate::config::positive")]
    pub layers: Vec<usize>,
    #[serde(deserialize_with = "crate::config::positive")]
    pub embed_dims: Vec<usize>,
    /// How many times wider a block is inside.
    #[serde(default = "default_ratios")]
    #[serde(deserialize_with = "crate::config::above_zero")]
    pub mlp_ratios: Vec<f64>,
    /// What the factors of residual branches begin as.
    #[serde(default = "default::ratio::<1, 100000>")]
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub layer_scale_init_value: f64,
}

impl ArchTable for PoolFormerArch {
    const NAMES: &'static [&'static str] = &["s12", "s24", "s36", "m36", "m48"];

    fn named(name: &str) -> Option<Self> {
        let (small, medium) = ([64, 128, 320, 512], [96, 192, 384, 768]);
        let (sixth, widths, scale) = match name {
            "s12" => (2, small, 1e-5),
            "s24" => (4, small, 1e-5),
            "s36" => (6, small, 1e-6),
            "m36" => (6, medium, 1e-6),
            "m48" => (8, medium, 1e-6),
            _ => return None,
        };
        Some(Self {
            layers: vec![sixth, sixth, 3 * sixth, sixth],
            embed_dims: widths.to_vec(),
            mlp_ratios: default_ratios(),
            layer_scale_init_value: scale,
        })
    }
}

fn default_arch() -> Arch<PoolFormerArch> {
    Arch::Named("s12".to_owned())
}
fn default_norm() -> NormConfig {
    NormConfig::GN(GroupNormConfig { num_groups: 1, requires_grad: true, eps: 1e-5 })
}
fn default_ratios() -> Vec<f64> {
    vec![4.0; 4]
}
fn last() -> OneOrMany<i64> {
    OneOrMany(vec![-1])
}

impl BackboneSpec for PoolFormerConfig {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        image.matches(3)?;
        let arch = self.arch.get()?;
        let (stages, widths) = (arch.layers.len(), &arch.embed_dims);
        if stages != 4 || widths.len() != 4 || arch.mlp_ratios.len() != 4 {
            return Err(ModelError::config("arch", "expected numbers for each of 4 stages"));
        }
        if widths.windows(2).any(|it| it[0] == it[1]) {
            return Err(ModelError::config("arch", "each stage has other channels than the last"));
        }
        if self.pool_size.is_multiple_of(2) {
            let problem = format!("expected an odd number, got {}", self.pool_size);
            return Err(ModelError::config("pool_size", problem));
        }
        if !(-1..=7).contains(&self.frozen_stages) {
            let problem = format!("expected -1 to 7, got {}", self.frozen_stages);
            return Err(ModelError::config("frozen_stages", problem));
        }
        widths.iter().try_for_each(|&it| self.norm_cfg.check(it))?;
        let mut stride = image.stride * self.in_stride;
        let maps = widths.iter().enumerate().map(|(stage, &channels)| {
            stride *= if stage == 0 { 1 } else { self.down_stride };
            Feature { channels, stride }
        });
        let maps: Vec<Feature> = maps.collect();
        Ok(super::chosen(maps, &self.stages()?))
    }

    fn build(&self, _: Feature, builder: &Builder) -> Result<Backbone, ModelError> {
        let arch = self.arch.get()?;
        let stages = self.stages()?;
        let embed = |channels, kernel, stride, padding| PatchEmbed {
            proj: Conv2d::new(channels, kernel, square(stride, padding, 1), builder)
                .with_bias(builder),
        };
        let patch_embed = builder.frozen(self.frozen_stages >= 0, || {
            embed([3, arch.embed_dims[0]], self.in_patch_size, self.in_stride, self.in_pad)
        });
        let frozen = |place: usize| self.frozen_stages > place as i64;
        let mut rates = drop_path_rates(self.drop_path_rate, arch.layers.iter().sum()).into_iter();
        let part = |place: usize| {
            let stage = place / 2;
            builder.frozen(frozen(place), || {
                if place % 2 == 1 {
                    let channels = [arch.embed_dims[stage], arch.embed_dims[stage + 1]];
                    return Part::Smaller(embed(
                        channels,
                        self.down_patch_size,
                        self.down_stride,
                        self.down_pad,
                    ));
                }
                let block = |_| self.block(&arch, stage, rates.next().unwrap_or_default(), builder);
                Part::Stage((0..arch.layers[stage]).map(block).collect())
            })
        };
        let network = (0..7).map(part).collect();
        let norm = |stage: usize| {
            stages.contains(&stage).then(|| {
                builder.frozen(frozen(2 * stage), || {
                    self.norm_cfg.init(arch.embed_dims[stage], builder)
                })
            })
        };
        Ok(PoolFormer {
            patch_embed,
            network,
            norm0: norm(0),
            norm2: norm(1),
            norm4: norm(2),
            norm6: norm(3),
        }
        .into())
    }

    fn initial(&self) -> Initial {
        Initial::default()
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.init_cfg.as_deref()
    }
}

impl PoolFormerConfig {
    /// The stages whose output the heads see.
    fn stages(&self) -> Result<Vec<usize>, ModelError> {
        let places = super::counted_from_either_end("out_indices", &self.out_indices, 7)?;
        let stage = |place: usize| {
            place.is_multiple_of(2).then_some(place / 2).ok_or_else(|| {
                let problem = format!("expected places of stages (0, 2, 4, 6), got {place}");
                ModelError::config("out_indices", problem)
            })
        };
        places.into_iter().map(stage).collect()
    }

    fn block(
        &self,
        arch: &PoolFormerArch,
        stage: usize,
        drop_path: f64,
        builder: &Builder,
    ) -> PoolFormerBlock {
        let channels = arch.embed_dims[stage];
        let inner = (channels as f64 * arch.mlp_ratios[stage]) as usize;
        let pointwise =
            |channels| Conv2d::new(channels, 1, square(1, 0, 1), builder).with_bias(builder);
        let scale = || layer_scale(channels, arch.layer_scale_init_value, builder);
        PoolFormerBlock {
            layer_scale_1: scale(),
            layer_scale_2: scale(),
            norm1: self.norm_cfg.init(channels, builder),
            norm2: self.norm_cfg.init(channels, builder),
            mlp: Mlp {
                fc1: pointwise([channels, inner]),
                act: self.act_cfg.init(builder),
                fc2: pointwise([inner, channels]),
                drop: Dropout::new(self.drop_rate),
            },
            pool_size: self.pool_size,
            drop_path: DropPath::new(drop_path),
        }
    }
}

/// A PoolFormer.
#[derive(Module, Debug)]
pub struct PoolFormer {
    patch_embed: PatchEmbed,
    network: Vec<Part>,
    norm0: Option<Norm>,
    norm2: Option<Norm>,
    norm4: Option<Norm>,
    norm6: Option<Norm>,
}

#[derive(Module, Debug)]
struct PatchEmbed {
    proj: Conv2d,
}

#[derive(Module, Debug)]
enum Part {
    Stage(Vec<PoolFormerBlock>),
    Smaller(PatchEmbed),
}

#[derive(Module, Debug)]
struct PoolFormerBlock {
    layer_scale_1: Param<Tensor<1>>,
    layer_scale_2: Param<Tensor<1>>,
    norm1: Norm,
    norm2: Norm,
    mlp: Mlp,
    pool_size: usize,
    drop_path: DropPath,
}

#[derive(Module, Debug)]
struct Mlp {
    fc1: Conv2d,
    act: Act,
    fc2: Conv2d,
    drop: Dropout,
}

impl RunBackbone for PoolFormer {
    /// `[n, c, h, w]` to the maps of the stages in `out_indices`.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let norms = [&self.norm0, &self.norm2, &self.norm4, &self.norm6];
        let mut x = self.patch_embed.proj.forward(x);
        let mut maps = Vec::with_capacity(norms.len());
        for (place, part) in self.network.iter().enumerate() {
            x = match part {
                Part::Smaller(embed) => embed.proj.forward(x),
                Part::Stage(blocks) => blocks.iter().fold(x, |x, it| it.forward(x, ctx)),
            };
            if let (true, Some(norm)) = (place % 2 == 0, norms[place / 2]) {
                maps.push(norm.forward(x.clone(), Activation::None, ctx));
            }
        }
        maps
    }
}

impl PoolFormerBlock {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let normed = self.norm1.forward(x.clone(), Activation::None, ctx);
        let (side, around) = ([self.pool_size; 2], [self.pool_size / 2; 2]);
        let mean = ops::avg_pool2d(normed.clone(), side, [1, 1], around, false, false);
        let x = add_scaled(x, mean - normed, &self.layer_scale_1, &self.drop_path, ctx);
        let made = self.mlp.forward(self.norm2.forward(x.clone(), Activation::None, ctx), ctx);
        add_scaled(x, made, &self.layer_scale_2, &self.drop_path, ctx)
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let x = self.drop.forward(self.act.forward(self.fc1.forward(x)), ctx);
        self.drop.forward(self.fc2.forward(x), ctx)
    }
}
