//! segslurm with components of one's own: a program that depends on this library registers them and
//! hands over.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::cli;
use crate::config::{Both, register};
use crate::data::{BaseSegDataset, DatasetKind, OwnDataset, RunTransform};
use crate::models::Loss;
use crate::models::contract::{BackboneSpec, HeadKeys, HeadSpec, NeckSpec};
use crate::models::head::DecodeConfig;

/// The program, and what it knows beside segslurm's own components. A `type:` that segslurm has too
/// is then the registered one's.
///
/// ```no_run
/// # #[derive(Debug, serde::Deserialize)] struct Grey {}
/// # impl segslurm::data::RunTransform for Grey {
/// #     fn apply(&self, _: &mut segslurm::data::Frame, _: &mut segslurm::data::Pcg64) -> Result<(), segslurm::data::DataError> { Ok(()) }
/// # }
/// fn main() -> std::process::ExitCode {
///     segslurm::Program::new().transform::<Grey>("Grey").run(std::env::args_os())
/// }
/// ```
#[derive(Debug, Default)]
pub struct Program(());

impl Program {
    pub fn new() -> Self {
        Self::default()
    }

    /// A step of pipelines, `type: NAME`, whose other keys are `T`'s.
    #[must_use]
    pub fn transform<T: RunTransform + DeserializeOwned + 'static>(
        self,
        name: &'static str,
    ) -> Self {
        register::<T, dyn RunTransform>(name, |it| Arc::new(it));
        self
    }

    /// A loss for `loss_decode`, `type: NAME`, whose other keys are `T`'s.
    #[must_use]
    pub fn loss<T: Loss + DeserializeOwned + 'static>(self, name: &'static str) -> Self {
        register::<T, dyn Loss>(name, |it| Arc::new(it));
        self
    }

    /// A head for `decode_head` and `auxiliary_head`, `type: NAME`, whose keys are those of every
    /// head and `K`'s.
    #[must_use]
    pub fn head<K: HeadKeys + DeserializeOwned>(self, name: &'static str) -> Self {
        register::<Both<DecodeConfig, K>, dyn HeadSpec>(name, |it| Arc::new(it));
        self
    }

    /// A backbone, `type: NAME`, whose other keys are `T`'s.
    #[must_use]
    pub fn backbone<T: BackboneSpec + DeserializeOwned + 'static>(
        self,
        name: &'static str,
    ) -> Self {
        register::<T, dyn BackboneSpec>(name, |it| Arc::new(it));
        self
    }

    /// A neck, `type: NAME`, whose other keys are `T`'s.
    #[must_use]
    pub fn neck<T: NeckSpec + DeserializeOwned + 'static>(self, name: &'static str) -> Self {
        register::<T, dyn NeckSpec>(name, |it| Arc::new(it));
        self
    }

    /// A folder dataset whose classes and suffixes are known by its `type`; it has the keys of
    /// `BaseSegDataset`.
    #[must_use]
    pub fn dataset(self, kind: DatasetKind) -> Self {
        register::<BaseSegDataset, OwnDataset>(kind.name, move |config| {
            Arc::new(OwnDataset { kind, config })
        });
        self
    }

    /// Runs the command line and returns the process's exit code. Ranks are started from the same
    /// program.
    pub fn run(self, args: impl IntoIterator<Item = OsString>) -> ExitCode {
        cli::run(args)
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::tensor::{Device, Distribution, Int, Tensor};
    use serde::Deserialize;

    use super::*;
    use crate::config::parse_str;
    use crate::data::DatasetConfig;
    use crate::models::backbone::Backbone;
    use crate::models::contract::{Feature, RunBackbone, RunNeck};
    use crate::models::layer::Conv2d;
    use crate::models::neck::Neck;
    use crate::models::{Builder, Compared, Forward, InitConfig, ModelError, SegmentorConfig};
    use crate::ops::{self, Conv};

    /// One convolution of stride 4.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Patches {
        channels: usize,
    }

    impl BackboneSpec for Patches {
        fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
            Ok(vec![Feature { channels: self.channels, stride: image.stride * 4 }])
        }

        fn build(&self, image: Feature, builder: &Builder) -> Result<Backbone, ModelError> {
            let conv = Conv { stride: [4; 2], ..Conv::default() };
            let embed =
                Conv2d::new([image.channels, self.channels], 4, conv, builder).with_bias(builder);
            Ok(Backbone::own(Embedding { embed }))
        }

        fn init_cfg(&self) -> Option<&[InitConfig]> {
            None
        }
    }

    #[derive(Module, Debug)]
    struct Embedding {
        embed: Conv2d,
    }

    impl RunBackbone for Embedding {
        fn forward(&self, x: Tensor<4>, _: &Forward) -> Vec<Tensor<4>> {
            vec![self.embed.forward(x)]
        }
    }

    /// Doubles what it is given.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Twice {}

    impl NeckSpec for Twice {
        fn check(&self, inputs: &[Feature]) -> Result<Vec<Feature>, ModelError> {
            Ok(inputs.to_vec())
        }

        fn build(&self, _: &[Feature], _: &Builder) -> Result<Neck, ModelError> {
            Ok(Neck::own(Doubling {}))
        }

        fn init_cfg(&self) -> Option<&[InitConfig]> {
            None
        }
    }

    #[derive(Module, Debug)]
    struct Doubling {}

    impl RunNeck for Doubling {
        fn forward(&self, features: Vec<Tensor<4>>, _: &Forward) -> Vec<Tensor<4>> {
            features.into_iter().map(|it| it * 2.0).collect()
        }
    }

    /// How far logits are from zero.
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Quiet {
        loss_weight: f64,
    }

    impl Loss for Quiet {
        fn loss_name(&self) -> &'static str {
            "loss_quiet"
        }

        fn verify(&self, _: usize, _: bool) -> Result<(), ModelError> {
            Ok(())
        }

        fn forward(&self, compared: Compared, _: Option<&Tensor<3>>) -> Tensor<1> {
            compared.logits.clone().abs().mean() * self.loss_weight
        }
    }

    const MODEL: &str = "
type: EncoderDecoder
backbone: {type: Patches, channels: 8}
neck: {type: Twice}
decode_head:
  type: FCNHead
  in_channels: 8
  in_index: 0
  channels: 8
  num_convs: 1
  num_classes: 3
  norm_cfg: {type: BN}
  loss_decode: [{type: CrossEntropyLoss}, {type: Quiet, loss_weight: 0.5}]
test_cfg: {mode: whole}
";

    #[test]
    fn a_model_of_ones_own_parts_is_built_and_trained() {
        let _ = Program::new()
            .backbone::<Patches>("Patches")
            .neck::<Twice>("Twice")
            .loss::<Quiet>("Quiet");
        let config: SegmentorConfig = parse_str(MODEL).expect("a config");
        let device = Device::libtorch().autodiff();
        let model = config.init(&device, 0).expect("a model");
        let weights = model.weights();
        let names: Vec<_> = weights.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names[..2], ["backbone.embed.weight", "backbone.embed.bias"]);
        let bias = weights.iter().find(|it| it.name == "backbone.embed.bias").expect("one");
        assert!(bias.tensor.abs().max().double_value(&[]) < 1.0 && bias.trained);

        let images = Tensor::<4>::random([2, 3, 32, 32], Distribution::Default, &device);
        let labels = Tensor::<3, Int>::zeros([2, 32, 32], &device);
        let losses = model.loss(images, &labels, &Forward::training(1, None));
        let told: Vec<_> = losses.items.iter().map(|it| it.name.as_str()).collect();
        assert!(told.contains(&"decode.loss_quiet"), "{told:?}");
        let total = ops::to_tch(&losses.total).double_value(&[0]);
        let grads = weights.gradients(losses.total.backward());
        assert!(total.is_finite() && grads.iter().count() == weights.parameters().count());
    }

    #[test]
    fn a_dataset_of_ones_own_has_its_kinds_classes() {
        let palette = &[[255, 0, 0], [0, 255, 0]];
        let (classes, img_suffix, seg_map_suffix) = (&["weed", "crop"][..], ".tif", ".png");
        let kind = DatasetKind {
            name: "FieldDataset",
            img_suffix,
            seg_map_suffix,
            reduce_zero_label: false,
            needs_ann_file: false,
            classes,
            palette,
        };
        let _ = Program::new().dataset(kind);
        let text = "{type: FieldDataset, data_root: nowhere, data_prefix: {img_path: a, seg_map_path: b}, pipeline: []}";
        let mut config: DatasetConfig = parse_str(text).expect("a config");
        assert_eq!(
            config.sources("d")[0].classes(),
            Some(vec!["weed".to_owned(), "crop".to_owned()])
        );
        assert_eq!(config.pipelines().len(), 1);
        assert!(config.init().expect_err("no folder").to_string().contains("nowhere/a"));
    }
}
