//! Rates that decay with the distance from the head: mmseg's
//! `LearningRateDecayOptimizerConstructor` (Bao et al. 2021, Clark et al. 2020).

use serde::Deserialize;

use super::param_groups::ParamGroup;
use crate::weights::{Weight, Weights};

/// How layers are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayType {
    #[default]
    LayerWise,
    StageWise,
    /// The name that mmseg's older constructor gives.
    LayerWiseVit,
}

/// Rates that decay from layer to layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LayerDecay {
    pub(super) num_layers: usize,
    pub(super) decay_rate: f64,
    pub(super) decay_type: DecayType,
}

/// The number in a name after `prefix`, and the one after that.
fn numbers(name: &str, prefix: &str) -> Option<[usize; 2]> {
    let mut parts = name.strip_prefix(prefix)?.split('.');
    let first = parts.next()?.parse().ok()?;
    Some([first, parts.next().and_then(|it| it.parse().ok()).unwrap_or_default()])
}

impl LayerDecay {
    /// Layers in all: the heads are the last, and what is before the backbone's layers the first.
    fn layers(self) -> usize {
        self.num_layers + 2
    }

    /// Which layer a parameter of a ConvNeXt, or of its heads, belongs to.
    fn layer(self, name: &str) -> usize {
        if ["cls_token", "mask_token", "pos_embed"]
            .iter()
            .any(|it| name == format!("backbone.{it}"))
        {
            return 0;
        }
        let last = self.num_layers;
        let downsample = numbers(name, "backbone.downsample_layers.");
        let stage = numbers(name, "backbone.stages.");
        match (self.decay_type, downsample, stage) {
            (DecayType::StageWise, Some(_), _) => 0,
            (DecayType::StageWise, _, Some([stage, _])) => stage + 1,
            (_, Some([stage, _]), _) => [0, 2, 3].get(stage).copied().unwrap_or(last),
            (_, _, Some([2, block])) => 3 + block / 3,
            (_, _, Some([stage, _])) => [1, 2].get(stage).copied().unwrap_or(last),
            _ => last + 1,
        }
    }

    /// Neither norms nor biases decay, nor what has one dimension.
    fn decays(weight: &Weight) -> bool {
        weight.tensor.dim() != 1 && weight.leaf_name() != "bias"
    }

    /// Sorts parameters into groups, in the order in which their settings first appear.
    pub(super) fn group(self, weights: &Weights, lr: f64, decay: f64) -> Vec<ParamGroup> {
        let mut groups: Vec<ParamGroup> = Vec::new();
        for (id, weight) in weights.trained() {
            let above = self.layers() as i32 - self.layer(&weight.name) as i32 - 1;
            let lr = lr * self.decay_rate.powi(above);
            let weight_decay = if Self::decays(weight) { decay } else { 0.0 };
            let alike = |it: &&mut ParamGroup| it.lr == lr && it.weight_decay == weight_decay;
            match groups.iter_mut().find(alike) {
                Some(group) => group.params.push(id),
                None => groups.push(ParamGroup { params: vec![id], lr, weight_decay }),
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What mmseg's get_layer_id_for_convnext and get_stage_id_for_convnext say with `num_layers:
    /// 6`.
    #[test]
    fn layers_are_counted_as_mmseg_counts_them() {
        let of = |decay_type, name: &str| {
            LayerDecay { num_layers: 6, decay_rate: 0.9, decay_type }.layer(name)
        };
        for (name, layer, stage) in [
            ("backbone.downsample_layers.0.0.weight", 0, 0),
            ("backbone.downsample_layers.1.1.bias", 2, 0),
            ("backbone.downsample_layers.2.1.weight", 3, 0),
            ("backbone.downsample_layers.3.1.weight", 6, 0),
            ("backbone.stages.0.2.gamma", 1, 1),
            ("backbone.stages.1.0.norm.weight", 2, 2),
            ("backbone.stages.2.8.norm.weight", 5, 3),
            ("backbone.stages.3.1.gamma", 6, 4),
            ("backbone.norm3.weight", 7, 7),
            ("decode_head.conv_seg.weight", 7, 7),
        ] {
            assert_eq!(of(DecayType::LayerWise, name), layer, "{name}");
            assert_eq!(of(DecayType::StageWise, name), stage, "{name}");
        }
    }
}
