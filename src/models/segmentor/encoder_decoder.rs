//! mmseg's `EncoderDecoder`: a backbone, a neck, a head that decodes (or a cascade of heads), and
//! heads that only help to train.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde::Deserialize;

use super::heads::{self, Heads, HeadsConfig};
use super::inference::Inference;
use super::inference::InferenceMode;
use super::{InferenceConfig, SegmentorSpec};
use crate::config::{Both, NotOffered, OneOrMany, Only, Pair};
use crate::dist::Group;
use crate::models::backbone::{Backbone, BackboneConfig};
use crate::models::builder::{Builder, Registry};
use crate::models::contract::{BackboneSpec, Feature, Initial, Seen};
use crate::models::forward::{Scalars, Starved};
use crate::models::head::{DecodeConfig, Head, HeadConfig};
use crate::models::init::InitPlan;
use crate::models::neck::{Neck, NeckConfig};
use crate::models::{
    Forward, InitConfig, Losses, ModelError, PretrainedSource, SegDataPreProcessorConfig,
};
use crate::weights::Weights;

/// The images that the data preprocessor hands over.
const IMAGE: Feature = Feature { channels: 3, stride: 1 };

/// The keys of `type: EncoderDecoder`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct EncoderDecoderConfig {
    #[serde(default)]
    pub data_preprocessor: Option<Only<SegDataPreProcessorConfig>>,
    /// Weights for the backbone: a path, `open-mmlab://NAME`, `torchvision://NAME` or an `https://`
    /// address.
    #[serde(default)]
    pub pretrained: Option<String>,
    pub backbone: BackboneConfig,
    #[serde(default)]
    pub neck: Option<NeckConfig>,
    pub decode_head: HeadsConfig,
    #[serde(default)]
    pub auxiliary_head: Option<HeadsConfig>,
    #[serde(default)]
    pub train_cfg: Option<TrainConfig>,
    #[serde(default)]
    pub test_cfg: Option<InferenceConfig>,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
    /// Every batch norm takes the statistics of all ranks' batches: mmengine's `sync_bn`, which is
    /// no key of the model.
    #[serde(skip)]
    pub(crate) sync_bn: bool,
}

/// The keys of `type: CascadeEncoderDecoder`, whose `decode_head` is a list: each head sees the
/// logits of the one before.
pub type CascadeConfig = Both<EncoderDecoderConfig, CascadeKeys>;

/// Its own keys.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct CascadeKeys {
    /// How many heads there are.
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_stages: usize,
}

/// `model.train_cfg`.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Heads have samplers of their own; null here.
    pub sampler: Option<NotOffered>,
}

impl SegmentorSpec for EncoderDecoderConfig {
    fn problems(&self) -> Vec<ModelError> {
        let mut problems = self.problems_of_parts();
        if let HeadsConfig::Many(_) = self.decode_head {
            let problem = "a list of heads is a cascade: write `type: CascadeEncoderDecoder`";
            problems.push(ModelError::config("decode_head", problem));
        }
        problems
    }

    fn init(&self, device: &Device, seed: u64) -> Result<Segmentor, ModelError> {
        self.check()?;
        self.build(device, seed)
    }

    fn data_preprocessor(&self) -> Option<&SegDataPreProcessorConfig> {
        self.data_preprocessor.as_deref()
    }

    fn heads(&self) -> Vec<(String, &DecodeConfig)> {
        let heads = self.all_heads().filter(|(_, head)| head.takes_labels());
        heads.map(|(key, head)| (key, head.shared())).collect()
    }

    fn synchronize_norms(&mut self) {
        self.sync_bn = true;
    }

    fn backbone(&self) -> &dyn BackboneSpec {
        &*self.backbone
    }

    fn decode_head(&self) -> &DecodeConfig {
        let heads = self.decode_head.list();
        heads[heads.len() - 1].shared()
    }
}

impl SegmentorSpec for CascadeConfig {
    fn problems(&self) -> Vec<ModelError> {
        let mut problems = self.shared.problems_of_parts();
        match &self.shared.decode_head {
            HeadsConfig::One(_) => {
                problems.push(ModelError::config("decode_head", "a cascade has a list of heads"));
            }
            HeadsConfig::Many(heads) if heads.len() != self.num_stages => {
                let problem =
                    format!("is {}, and decode_head has {} heads", self.num_stages, heads.len());
                problems.push(ModelError::config("num_stages", problem));
            }
            HeadsConfig::Many(_) => {}
        }
        problems
    }

    fn init(&self, device: &Device, seed: u64) -> Result<Segmentor, ModelError> {
        self.check()?;
        self.shared.build(device, seed)
    }

    fn data_preprocessor(&self) -> Option<&SegDataPreProcessorConfig> {
        self.shared.data_preprocessor()
    }

    fn heads(&self) -> Vec<(String, &DecodeConfig)> {
        self.shared.heads()
    }

    fn synchronize_norms(&mut self) {
        self.shared.synchronize_norms();
    }

    fn backbone(&self) -> &dyn BackboneSpec {
        &*self.shared.backbone
    }

    fn decode_head(&self) -> &DecodeConfig {
        self.shared.decode_head()
    }
}

impl EncoderDecoderConfig {
    /// Every head with the key at which it stands, those that decode first.
    fn all_heads(&self) -> impl Iterator<Item = (String, &HeadConfig)> {
        let auxiliary = self.auxiliary_head.iter().flat_map(|it| it.named("auxiliary_head"));
        self.decode_head.named("decode_head").chain(auxiliary)
    }

    /// What is wrong with each part; where there are no feature maps for it, heads are looked at by
    /// themselves.
    fn problems_of_parts(&self) -> Vec<ModelError> {
        let features = self.features();
        let mut problems: Vec<ModelError> = self.pretrained_source().err().into_iter().collect();
        problems.extend(self.inference().err());
        problems.extend(self.preprocessor().err());
        for (key, head) in self.all_heads() {
            let checked = heads::check(&**head, features.as_deref().ok());
            problems.extend(checked.err().map(|it| it.within(&key)));
            let before = key.strip_prefix("decode_head.").is_some_and(|place| place != "0");
            if head.sees_previous() && !before {
                let problem = "this head sees the logits of one before it; write `type: \
                               CascadeEncoderDecoder` and a list of heads in decode_head";
                problems.push(ModelError::config(key, problem));
            }
        }
        if features.is_ok() {
            problems.extend(self.sizes());
        }
        problems.extend(features.err());
        problems
    }

    /// Sizes of images that the backbone cannot take.
    fn sizes(&self) -> Vec<ModelError> {
        let divisor = self.backbone.divisor();
        let padded = self.data_preprocessor.as_ref().and_then(|it| it.size);
        let window = match self.test_cfg.clone().unwrap_or_default() {
            InferenceConfig { mode: InferenceMode::Slide, crop_size, .. } => crop_size,
            _ => None,
        };
        let sizes =
            [("data_preprocessor.size", padded), ("test_cfg.crop_size", window.map(|Pair(it)| it))];
        let wrong = |(key, size): (&str, Option<[usize; 2]>)| {
            let [height, width] = size.filter(|it| it.iter().any(|it| it % divisor != 0))?;
            let problem = format!(
                "is {height}x{width}, and the backbone takes sides that are multiples of {divisor}"
            );
            Some(ModelError::config(key, problem))
        };
        sizes.into_iter().filter_map(wrong).collect()
    }

    fn features(&self) -> Result<Vec<Feature>, ModelError> {
        let features = self.backbone.check(IMAGE).map_err(|it| it.within("backbone"))?;
        match &self.neck {
            None => Ok(features),
            Some(neck) => neck.check(&features).map_err(|it| it.within("neck")),
        }
    }

    fn inference(&self) -> Result<Inference, ModelError> {
        self.test_cfg.clone().unwrap_or_default().init().map_err(|it| it.within("test_cfg"))
    }

    fn build(&self, device: &Device, seed: u64) -> Result<Segmentor, ModelError> {
        let builder = Builder::new(device, self.sync_bn);
        let maps = self.backbone.check(IMAGE).map_err(|it| it.within("backbone"))?;
        let features = self.features()?;
        let backbone = self.backbone.build(IMAGE, &builder).map_err(|it| it.within("backbone"))?;
        let neck = self
            .neck
            .as_ref()
            .map(|it| it.build(&maps, &builder))
            .transpose()
            .map_err(|it| it.within("neck"))?;
        let decode_head =
            self.decode_head.build(&features, &builder).map_err(|it| it.within("decode_head"))?;
        let auxiliary = self.auxiliary_head.as_ref().map(|it| it.build(&features, &builder));
        let auxiliary_head = auxiliary.transpose().map_err(|it| it.within("auxiliary_head"))?;
        let (inference, pretrained, registry) =
            (self.inference()?, self.pretrained_source()?, builder.finish());
        let settings = Settings { inference, pretrained, registry };
        let segmentor = Segmentor { backbone, neck, decode_head, auxiliary_head, settings };
        self.draw(&segmentor, seed)?;
        Ok(segmentor)
    }

    /// Where weights come from, if not from the seed; at most one place may be named.
    fn pretrained_source(&self) -> Result<Option<PretrainedSource>, ModelError> {
        let named = |rules: Option<&[InitConfig]>| {
            rules.into_iter().flatten().find_map(|it| match it {
                InitConfig::Pretrained(it) => Some(it.clone()),
                _ => None,
            })
        };
        let path = |checkpoint: &str, target: &str| PretrainedSource::new(checkpoint, None, target);
        let nested = self.backbone.nested().map(|it| {
            let (key, target) = (format!("backbone.{}", it.key), format!("backbone.{}.", it.place));
            let old = it.spec.pretrained().map(|it| path(it, &target));
            let new = named(it.spec.init_cfg())
                .map(|it| PretrainedSource::new(&it.checkpoint, it.prefix, &target));
            [(format!("{key}.pretrained"), old), (format!("{key}.init_cfg"), new)]
        });
        let candidates = [
            ("pretrained", self.pretrained.as_deref().map(|it| path(it, "backbone."))),
            ("backbone.pretrained", self.backbone.pretrained().map(|it| path(it, "backbone."))),
            (
                "backbone.init_cfg",
                named(self.backbone.init_cfg())
                    .map(|it| PretrainedSource::new(&it.checkpoint, it.prefix, "backbone.")),
            ),
            (
                "init_cfg",
                named(self.init_cfg.as_deref())
                    .map(|it| PretrainedSource::new(&it.checkpoint, it.prefix, "")),
            ),
        ];
        let candidates = candidates.map(|(key, source)| (key.to_owned(), source));
        let candidates = candidates.into_iter().chain(nested.into_iter().flatten());
        let mut found = candidates.filter_map(|(key, source)| Some((key, source?)));
        match (found.next(), found.next()) {
            (Some((first, _)), Some((second, _))) => Err(ModelError::config(
                second,
                format!("names weights, but so does {first}; keep one of them"),
            )),
            (first, _) => Ok(first.map(|(_, source)| source)),
        }
    }

    /// Initial values: those that each layer asks for, then the rules of the whole, of the neck, of
    /// each head and of the backbone.
    fn draw(&self, segmentor: &Segmentor, seed: u64) -> Result<(), ModelError> {
        let (weights, fills) = segmentor.settings.registry.weights(segmentor);
        let mut plan = InitPlan::new(&weights, fills);
        if let Some(own) = &self.init_cfg {
            plan.follow(own, "")?;
        }
        if let Some(neck) = &self.neck {
            plan.begin("neck", neck.init_cfg(), neck.initial())?;
        }
        for (key, head) in self.all_heads() {
            plan.begin(&key, head.shared().init_cfg.as_deref(), head.initial())?;
        }
        let read = |target: &str| {
            segmentor.settings.pretrained.as_ref().is_some_and(|it| it.target == target)
        };
        let initial = |spec: &dyn BackboneSpec, target: &str| {
            if read(target) { Initial::default() } else { spec.initial() }
        };
        let whole = initial(&*self.backbone, "backbone.");
        plan.begin("backbone", self.backbone.init_cfg(), whole)?;
        if let Some(nested) = self.backbone.nested() {
            let place = format!("backbone.{}", nested.place);
            let inner = initial(nested.spec, &format!("{place}."));
            plan.begin(&place, nested.spec.init_cfg(), inner)?;
        }
        plan.execute(seed);
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct Settings {
    inference: Inference,
    pretrained: Option<PretrainedSource>,
    registry: Registry,
}

/// A whole model, ready to train and to test.
#[derive(Module, Debug)]
pub struct Segmentor {
    pub(super) backbone: Backbone,
    pub(super) neck: Option<Neck>,
    pub(super) decode_head: Heads,
    pub(super) auxiliary_head: Option<Heads>,
    #[module(skip)]
    settings: Settings,
}

impl Segmentor {
    /// Every tensor of the model.
    pub fn weights(&self) -> Weights {
        self.settings.registry.weights(self).0
    }

    /// Losses of `images` `[n, 3, h, w]` against `labels` `[n, h, w]`.
    pub fn loss(&self, images: Tensor<4>, labels: &Tensor<3, Int>, ctx: &Forward) -> Losses {
        let features = self.features(images, ctx);
        let mut scalars = Scalars::default();
        let mut previous: Option<&Head> = None;
        let mut logits: Option<Tensor<4>> = None;
        for (prefix, head) in self.decode_head.named("decode") {
            // As in mmseg, a head of a cascade runs once for its losses and once more for the next.
            logits = previous
                .map(|it| it.forward(Seen { features: &features, previous: logits.as_ref() }, ctx));
            let seen = Seen { features: &features, previous: logits.as_ref() };
            scalars.extend(&prefix, head.loss(seen, labels, ctx));
            previous = Some(head);
        }
        for (prefix, head) in self.auxiliary_head.iter().flat_map(|it| it.named("aux")) {
            scalars.extend(
                &prefix,
                head.loss(Seen { features: &features, previous: None }, labels, ctx),
            );
        }
        Losses::new(scalars)
    }

    fn features(&self, images: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let features = self.backbone.forward(images, ctx);
        match &self.neck {
            None => features,
            Some(neck) => neck.forward(features, ctx),
        }
    }

    /// Logits of the head that decodes, resized to the images' size.
    pub(in crate::models) fn encode_decode(&self, images: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let [.., height, width] = images.dims();
        let features = self.features(images, ctx);
        let mut logits = None;
        let heads = self.decode_head.list();
        for head in &heads[..heads.len() - 1] {
            logits =
                Some(head.forward(Seen { features: &features, previous: logits.as_ref() }, ctx));
        }
        let seen = Seen { features: &features, previous: logits.as_ref() };
        self.last_head().predict(seen, [height, width], ctx)
    }

    /// The weights that are to be read into this model before training from scratch.
    pub fn pretrained(&self) -> Option<&PretrainedSource> {
        self.settings.pretrained.as_ref()
    }

    /// Channels of the logits.
    pub fn out_channels(&self) -> usize {
        self.last_head().decode().out_channels()
    }

    /// Whether logits are resized with aligned corners.
    pub fn align_corners(&self) -> bool {
        self.last_head().decode().align_corners()
    }

    /// With one output channel, the probability above which a pixel is foreground.
    pub fn threshold(&self) -> f64 {
        self.last_head().decode().threshold()
    }

    /// For every head that takes a dataset's labels, how many its losses know, and the one that
    /// they leave out.
    pub fn labels(&self) -> impl Iterator<Item = (usize, i64)> {
        self.heads().filter_map(|head| head.labels())
    }

    /// The norms that would see a single value per channel in training on a batch `[n, 3, h, w]` of
    /// this shape, by name: of one value there is no variance. SyncBN counts those of all ranks of
    /// `group`.
    ///
    /// Found by a pass over zeros, in which norms use their running statistics: nothing changes.
    pub fn starved_norms(&self, shape: [usize; 4], group: Option<&Group>) -> Vec<String> {
        let model = self.valid();
        let device = model.devices().into_iter().next().unwrap_or_else(Device::libtorch);
        let starved = Starved::default();
        let ctx = Forward::probing(group, &starved);
        let features = model.features(Tensor::zeros(shape, &device), &ctx);
        let mut logits = None;
        for head in model.decode_head.list() {
            logits =
                Some(head.forward(Seen { features: &features, previous: logits.as_ref() }, &ctx));
        }
        for head in model.auxiliary_head.iter().flat_map(Heads::list) {
            head.forward(Seen { features: &features, previous: None }, &ctx);
        }
        let weights = model.weights();
        weights
            .iter()
            .filter(|it| starved.has(&it.tensor))
            .map(|it| it.owner().to_owned())
            .collect()
    }

    /// All heads, those that decode first.
    fn heads(&self) -> impl Iterator<Item = &Head> {
        self.decode_head.list().iter().chain(self.auxiliary_head.iter().flat_map(Heads::list))
    }

    fn last_head(&self) -> &Head {
        let heads = self.decode_head.list();
        &heads[heads.len() - 1]
    }

    /// The label that the losses of the head that decodes leave out.
    pub fn ignore_index(&self) -> i64 {
        self.last_head().decode().ignore_index()
    }

    pub(super) fn inference(&self) -> Inference {
        self.settings.inference
    }
}
