//! Which learning rate and weight decay each parameter has: `paramwise_cfg`, by the rules of
//! mmengine 0.10's `DefaultOptimWrapperConstructor`.
//!
//! mmengine makes one group a parameter; here parameters with equal settings share one, so that a
//! step is one kernel a group.

use indexmap::IndexMap;
use serde::Deserialize;

use super::layer_decay::DecayType;
use crate::weights::{Weight, WeightId, Weights};

/// `paramwise_cfg`: factors on the base rate and the base weight decay.
///
/// A parameter that a custom key matches (the longest that is part of its name) follows that key
/// alone. For the others the weight decay is that of the first rule that is set: norm, bias,
/// depth-wise convolution, one-dimensional.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ParamwiseConfig {
    pub custom_keys: IndexMap<String, CustomKey>,
    /// Of biases that are not a norm's.
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub bias_lr_mult: Option<f64>,
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub bias_decay_mult: Option<f64>,
    /// Of weights and biases of norms.
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub norm_decay_mult: Option<f64>,
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub dwconv_decay_mult: Option<f64>,
    /// Of the offsets of deformable convolutions, which no model here has: without effect.
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub dcn_offset_lr_mult: Option<f64>,
    /// Of one-dimensional parameters that no other rule takes.
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub flat_decay_mult: Option<f64>,
    /// Accepted for mmengine's configs. No model here has a parameter twice.
    pub bypass_duplicate: bool,
    /// Layers of the backbone, where rates decay from layer to layer.
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_layers: Option<usize>,
    /// What a layer's rate is of the next one's.
    #[serde(deserialize_with = "crate::config::above_zero")]
    pub decay_rate: Option<f64>,
    /// How layers are counted.
    pub decay_type: Option<DecayType>,
}

/// What `custom_keys` says of the parameters whose names contain the key.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct CustomKey {
    #[serde(default = "crate::config::default::f::<1>")]
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub lr_mult: f64,
    #[serde(default = "crate::config::default::f::<1>")]
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub decay_mult: f64,
}

/// Parameters that share a learning rate and a weight decay.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamGroup {
    pub params: Vec<WeightId>,
    /// Before any schedule.
    pub lr: f64,
    pub weight_decay: f64,
}

/// Sorts parameters into groups, in the order in which their settings first appear. `decay` is the
/// optimizer's own weight decay and `default_decay` what holds where none is written.
pub(super) fn group(
    weights: &Weights,
    config: &ParamwiseConfig,
    lr: f64,
    decay: Option<f64>,
    default_decay: f64,
) -> Vec<ParamGroup> {
    // Longest first, then by alphabet: the most particular key wins.
    let mut keys: Vec<(&str, &CustomKey)> =
        config.custom_keys.iter().map(|(key, value)| (key.as_str(), value)).collect();
    keys.sort_by(|(left, _), (right, _)| right.len().cmp(&left.len()).then(left.cmp(right)));

    let mut groups: Vec<ParamGroup> = Vec::new();
    for (id, weight) in weights.trained() {
        let (lr_mult, decay_mult) = factors(weight, config, &keys);
        let (lr, weight_decay) =
            (lr * lr_mult, decay.map_or(default_decay, |decay| decay * decay_mult));
        match groups.iter_mut().find(|group| group.lr == lr && group.weight_decay == weight_decay) {
            Some(group) => group.params.push(id),
            None => groups.push(ParamGroup { params: vec![id], lr, weight_decay }),
        }
    }
    groups
}

fn factors(param: &Weight, config: &ParamwiseConfig, keys: &[(&str, &CustomKey)]) -> (f64, f64) {
    // A parameter of the model itself has an empty prefix and a dot before its name.
    let name =
        if param.name.contains('.') { param.name.clone() } else { format!(".{}", param.name) };
    if let Some((_, custom)) = keys.iter().find(|(key, _)| name.contains(key)) {
        return (custom.lr_mult, custom.decay_mult);
    }
    let bias = name.ends_with(".bias");
    let norm = param.layer.is_norm();
    let lr_mult = config.bias_lr_mult.filter(|_| bias && !norm);
    let decay_mult = config
        .norm_decay_mult
        .filter(|_| norm)
        .or(config.bias_decay_mult.filter(|_| bias))
        .or(config.dwconv_decay_mult.filter(|_| param.depthwise))
        .or(config.flat_decay_mult.filter(|_| param.tensor.dim() == 1));
    (lr_mult.unwrap_or(1.0), decay_mult.unwrap_or(1.0))
}

/// The settings that multiply a weight decay, where the optimizer has none written: mmengine
/// refuses those.
pub(super) fn multiplies_decay(config: &ParamwiseConfig) -> Option<&'static str> {
    let rules = [
        (config.bias_decay_mult.is_some(), "bias_decay_mult"),
        (config.norm_decay_mult.is_some(), "norm_decay_mult"),
        (config.dwconv_decay_mult.is_some(), "dwconv_decay_mult"),
        (config.custom_keys.values().any(|key| key.decay_mult != 1.0), "custom_keys.decay_mult"),
    ];
    rules.into_iter().find_map(|(set, name)| set.then_some(name))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::config::parse_str;
    use crate::ops::Handle;
    use crate::weights::Layer;

    fn param(name: &str, layer: Layer, shape: &[i64]) -> Weight {
        Weight::new(name, Handle::new(Tensor::zeros(shape, (Kind::Float, Device::Cpu))), layer)
    }

    fn model() -> Weights {
        let mut weights = vec![
            param("backbone.conv.weight", Layer::Conv2d, &[4, 3, 3, 3]),
            param("backbone.conv.bias", Layer::Conv2d, &[4]),
            param("backbone.norm.weight", Layer::LayerNorm, &[4]),
            param("backbone.norm.bias", Layer::LayerNorm, &[4]),
            param("backbone.dw.weight", Layer::Conv2d, &[4, 1, 3, 3]),
            param("backbone.pos_block.scale", Layer::Own, &[4]),
            param("decode_head.conv_seg.weight", Layer::Conv2d, &[2, 4, 1, 1]),
        ];
        weights[4].depthwise = true;
        weights.into_iter().collect()
    }

    /// (lr, weight decay) of each parameter, from lr 0.1 and weight decay 0.01.
    fn settings(config: &str) -> Vec<(f64, f64)> {
        let config: ParamwiseConfig = parse_str(config).expect("a paramwise_cfg");
        let weights = model();
        let groups = group(&weights, &config, 0.1, Some(0.01), 0.0);
        let of = |id| {
            groups
                .iter()
                .find(|group| group.params.contains(&id))
                .expect("every parameter has a group")
        };
        weights.trained().map(|(id, _)| (of(id).lr, of(id).weight_decay)).collect()
    }

    #[test]
    fn without_rules_there_is_one_group() {
        assert_eq!(group(&model(), &ParamwiseConfig::default(), 0.1, Some(0.01), 0.0).len(), 1);
    }

    #[test]
    fn norm_comes_before_bias_and_bias_before_flat() {
        let found = settings(
            "{norm_decay_mult: 0.0, bias_decay_mult: 2.0, flat_decay_mult: 3.0, dwconv_decay_mult: 4.0, bias_lr_mult: 2.0}",
        );
        let decays: Vec<f64> = found.iter().map(|it| it.1 / 0.01).collect();
        assert_eq!(decays, [1.0, 2.0, 0.0, 0.0, 4.0, 3.0, 1.0]);
        // The bias of a norm keeps the base rate.
        assert_eq!(
            found.iter().map(|it| it.0).collect::<Vec<_>>(),
            [0.1, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1]
        );
    }

    #[test]
    fn the_longest_custom_key_wins_and_switches_other_rules_off() {
        let text = "{bias_lr_mult: 5.0, custom_keys: {backbone: {lr_mult: 0.1}, backbone.conv: {decay_mult: 0.5}, head: {lr_mult: 10.0}}}";
        let found = settings(text);
        assert_eq!(found[0], (0.1, 0.005));
        assert_eq!(found[1], (0.1, 0.005));
        assert_eq!(found[2], (0.1 * 0.1, 0.01));
        assert_eq!(found[6], (1.0, 0.01));
    }
}
