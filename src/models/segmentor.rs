//! mmseg's `EncoderDecoder`: a backbone, a head that decodes, and heads that only help to train.

use std::fmt;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::backbone::{Backbone, BackboneConfig};
use super::forward::Starved;
use super::head::{DecodeConfig, Head, HeadConfig};
use super::inference::Inference;
use super::init::{self, Plan};
use super::{
    Forward, InferenceConfig, InitConfig, Losses, ModelError, PretrainedSource, SegDataPreProcessor, SegDataPreProcessorConfig,
    named_tensors,
};
use crate::config::{NotOffered, OneOrMany, VALUE_OR_LIST};
use crate::dist::Group;
use crate::ops;

/// `model`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum SegmentorConfig {
    EncoderDecoder(EncoderDecoderConfig),
}

/// `model.data_preprocessor`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum PreprocessorConfig {
    SegDataPreProcessor(SegDataPreProcessorConfig),
}

/// The keys of `type: EncoderDecoder`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct EncoderDecoderConfig {
    #[serde(default)]
    pub data_preprocessor: Option<PreprocessorConfig>,
    /// Weights for the backbone: a path, `open-mmlab://NAME`, `torchvision://NAME` or an `https://` address.
    #[serde(default)]
    pub pretrained: Option<String>,
    pub backbone: BackboneConfig,
    #[serde(default)]
    pub neck: Option<NotOffered>,
    pub decode_head: HeadConfig,
    #[serde(default)]
    pub auxiliary_head: Option<AuxiliaryHeadConfig>,
    /// Has no keys.
    #[serde(default)]
    pub train_cfg: Option<TrainConfig>,
    #[serde(default)]
    pub test_cfg: Option<InferenceConfig>,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

/// `model.train_cfg` has no keys.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {}

/// `auxiliary_head`: a list of heads is numbered in names of tensors and losses, even a list of one.
#[derive(Debug, Clone, PartialEq)]
pub enum AuxiliaryHeadConfig {
    One(Box<HeadConfig>),
    Many(Vec<HeadConfig>),
}

impl<'de> Deserialize<'de> for AuxiliaryHeadConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrList;
        impl<'de> Visitor<'de> for OneOrList {
            type Value = AuxiliaryHeadConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a head or a list of heads")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
                HeadConfig::deserialize(deserializer).map(|it| AuxiliaryHeadConfig::One(Box::new(it)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut heads = Vec::new();
                while let Some(head) = access.next_element()? {
                    heads.push(head);
                }
                if heads.is_empty() { Err(de::Error::invalid_length(0, &self)) } else { Ok(AuxiliaryHeadConfig::Many(heads)) }
            }
        }
        deserializer.deserialize_newtype_struct(VALUE_OR_LIST, OneOrList)
    }
}

impl SegmentorConfig {
    /// Builds the model on `device` (an autodiff device to train it) and draws its weights from `seed`. Weights that
    /// [`Segmentor::pretrained`] names are still to be read.
    pub fn init(&self, device: &Device, seed: u64) -> Result<Segmentor, ModelError> {
        let Self::EncoderDecoder(config) = self;
        config.init(device, seed)
    }

    /// How images become batches.
    pub fn preprocessor(&self) -> Result<SegDataPreProcessor, ModelError> {
        let Self::EncoderDecoder(config) = self;
        let mut preprocessor = match &config.data_preprocessor {
            Some(PreprocessorConfig::SegDataPreProcessor(it)) => it.clone(),
            None => SegDataPreProcessorConfig::default(),
        };
        preprocessor.seg_pad_val = preprocessor.seg_pad_val.or_else(|| u8::try_from(self.ignore_index()).ok());
        preprocessor.init().map_err(|it| it.within("data_preprocessor"))
    }

    /// The label that padding of the data preprocessor has, where the config says so.
    pub fn seg_pad_val(&self) -> Option<u8> {
        let Self::EncoderDecoder(config) = self;
        let Some(PreprocessorConfig::SegDataPreProcessor(it)) = &config.data_preprocessor else { return None };
        it.seg_pad_val
    }

    /// Every head with the key below `model` at which it stands, the decode head first.
    pub fn heads(&self) -> Vec<(String, DecodeConfig)> {
        let Self::EncoderDecoder(config) = self;
        let mut heads = vec![("decode_head".to_owned(), config.decode_head.decode())];
        match &config.auxiliary_head {
            None => {}
            Some(AuxiliaryHeadConfig::One(head)) => heads.push(("auxiliary_head".to_owned(), head.decode())),
            Some(AuxiliaryHeadConfig::Many(many)) => {
                heads.extend(many.iter().enumerate().map(|(index, head)| (format!("auxiliary_head.{index}"), head.decode())));
            }
        }
        heads
    }

    /// Makes every batch norm a synchronised one, as mmengine's `sync_bn` does.
    pub fn synchronize_norms(&mut self) {
        let Self::EncoderDecoder(config) = self;
        config.backbone.norm_cfg().synchronize();
        let auxiliary = match &mut config.auxiliary_head {
            None => &mut [],
            Some(AuxiliaryHeadConfig::One(head)) => std::slice::from_mut(&mut **head),
            Some(AuxiliaryHeadConfig::Many(heads)) => &mut heads[..],
        };
        for head in std::iter::once(&mut config.decode_head).chain(auxiliary) {
            if let Some(norm) = head.norm_cfg() {
                norm.synchronize();
            }
        }
    }

    /// The label that the decode head's losses leave out.
    pub fn ignore_index(&self) -> i64 {
        let Self::EncoderDecoder(config) = self;
        config.decode_head.decode().ignore_index
    }

    /// The classes that the model tells apart.
    pub fn num_classes(&self) -> usize {
        let Self::EncoderDecoder(config) = self;
        config.decode_head.decode().num_classes
    }
}

impl EncoderDecoderConfig {
    fn init(&self, device: &Device, seed: u64) -> Result<Segmentor, ModelError> {
        let pretrained = self.pretrained_source()?;
        let inference = self.test_cfg.clone().unwrap_or_default().init().map_err(|it| it.within("test_cfg"))?;
        let backbone = self.backbone.init(device).map_err(|it| it.within("backbone"))?;
        let channels = backbone.out_channels().to_vec();
        let decode_head = self.decode_head.init(&channels, 0, device).map_err(|it| it.within("decode_head"))?;
        let auxiliary_head = match &self.auxiliary_head {
            None => None,
            Some(AuxiliaryHeadConfig::One(head)) => {
                let head = head.init(&channels, 1, device).map_err(|it| it.within("auxiliary_head"))?;
                Some(AuxiliaryHead::One(head))
            }
            Some(AuxiliaryHeadConfig::Many(heads)) => {
                let build = |(index, head): (usize, &HeadConfig)| {
                    let head = head.init(&channels, 1 + index as u64, device);
                    head.map_err(|it| it.within(&format!("auxiliary_head.{index}")))
                };
                Some(AuxiliaryHead::Many(heads.iter().enumerate().map(build).collect::<Result<_, _>>()?))
            }
        };
        let settings = Settings { inference, pretrained };
        let segmentor = Segmentor { backbone, decode_head, auxiliary_head, settings };
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
        let candidates = [
            ("pretrained", self.pretrained.as_deref().map(|it| path(it, "backbone."))),
            ("backbone.pretrained", self.backbone.pretrained().map(|it| path(it, "backbone."))),
            (
                "backbone.init_cfg",
                named(self.backbone.init_cfg()).map(|it| PretrainedSource::new(&it.checkpoint, it.prefix, "backbone.")),
            ),
            ("init_cfg", named(self.init_cfg.as_deref()).map(|it| PretrainedSource::new(&it.checkpoint, it.prefix, ""))),
        ];
        let mut found = candidates.into_iter().filter_map(|(key, source)| Some((key, source?)));
        match (found.next(), found.next()) {
            (Some((first, _)), Some((second, _))) => {
                Err(ModelError::config(second, format!("names weights, but so does {first}; keep one of them")))
            }
            (first, _) => Ok(first.map(|(_, source)| source)),
        }
    }

    fn draw(&self, segmentor: &Segmentor, seed: u64) -> Result<(), ModelError> {
        let tensors = named_tensors(segmentor);
        let mut plan = Plan::new(&tensors);
        // The convolutions of ConvModules are the ones that are called `conv`.
        plan.apply(&init::kaiming(), "", |owner| owner.ends_with(".conv"));

        let mut rules = |rules: &[InitConfig], prefix: &str| {
            plan.check(rules, prefix).map_err(|it| it.within(prefix.trim_end_matches('.')))?;
            for rule in rules {
                plan.apply(rule, prefix, |_| true);
            }
            Ok::<_, ModelError>(())
        };
        if let Some(own) = &self.init_cfg {
            rules(own, "").map_err(|it| match it {
                ModelError::Config { problem, .. } => ModelError::config("init_cfg", problem),
                other @ ModelError::Input(_) => other,
            })?;
        }
        let mut heads = vec![("decode_head.".to_owned(), &self.decode_head)];
        match &self.auxiliary_head {
            None => {}
            Some(AuxiliaryHeadConfig::One(head)) => heads.push(("auxiliary_head.".to_owned(), head)),
            Some(AuxiliaryHeadConfig::Many(many)) => {
                heads.extend(many.iter().enumerate().map(|(index, head)| (format!("auxiliary_head.{index}."), head)));
            }
        }
        for (prefix, head) in heads {
            match head.decode().init_cfg {
                Some(own) => rules(&own, &prefix)?,
                None => rules(&[init::classifier()], &prefix)?,
            }
        }
        let drawn = segmentor.settings.pretrained.as_ref().is_none_or(|it| it.target != "backbone.");
        match self.backbone.init_cfg() {
            Some(own) => rules(own, "backbone.")?,
            None if drawn => {
                rules(&[init::kaiming()], "backbone.")?;
                if let Some(suffix) = self.backbone.zero_initialised() {
                    plan.zero("backbone.", suffix);
                }
            }
            None => {}
        }
        plan.execute(seed);
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct Settings {
    inference: Inference,
    pretrained: Option<PretrainedSource>,
}

/// Auxiliary heads, numbered if they came as a list.
#[derive(Module, Debug)]
enum AuxiliaryHead {
    One(Head),
    Many(Vec<Head>),
}

/// An encoder-decoder, ready to train and to test.
#[derive(Module, Debug)]
pub struct Segmentor {
    backbone: Backbone,
    decode_head: Head,
    auxiliary_head: Option<AuxiliaryHead>,
    #[module(skip)]
    settings: Settings,
}

impl Segmentor {
    /// Losses of `images` `[n, 3, h, w]` against `labels` `[n, h, w]`.
    pub fn loss(&self, images: Tensor<4>, labels: &Tensor<3, Int>, ctx: &Forward) -> Losses {
        let features = self.backbone.forward(images, ctx);
        let mut items = Vec::new();
        let mut add = |prefix: &str, head: &Head| {
            let named = head.loss(&features, labels, ctx).into_iter();
            items.extend(named.map(|(name, value)| (format!("{prefix}.{name}"), value)));
        };
        add("decode", &self.decode_head);
        match &self.auxiliary_head {
            None => {}
            Some(AuxiliaryHead::One(head)) => add("aux", head),
            Some(AuxiliaryHead::Many(heads)) => {
                heads.iter().enumerate().for_each(|(index, head)| add(&format!("aux_{index}"), head));
            }
        }
        Losses::new(items)
    }

    /// Logits of the decode head `[n, c, h / stride, w / stride]`.
    pub fn logits(&self, images: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        self.decode_head.forward(&self.backbone.forward(images, ctx), ctx)
    }

    /// Logits of the decode head, resized to the images' size.
    pub(super) fn encode_decode(&self, images: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let [.., height, width] = images.dims();
        ops::resize_bilinear(self.logits(images, ctx), [height, width], self.align_corners())
    }

    /// The weights that are to be read into this model before training from scratch.
    pub fn pretrained(&self) -> Option<&PretrainedSource> {
        self.settings.pretrained.as_ref()
    }

    /// Channels of the logits.
    pub fn out_channels(&self) -> usize {
        self.decode_head.decode().out_channels()
    }

    /// Whether logits are resized with aligned corners.
    pub fn align_corners(&self) -> bool {
        self.decode_head.decode().align_corners()
    }

    /// With one output channel, the probability above which a pixel is foreground.
    pub fn threshold(&self) -> f64 {
        self.decode_head.decode().threshold()
    }

    /// For every head, how many labels its losses know, and the one that they leave out.
    pub fn labels(&self) -> impl Iterator<Item = (usize, i64)> {
        self.heads().map(|head| (head.decode().num_classes(), head.decode().ignore_index()))
    }

    /// The norms that would see a single value per channel in training on a batch `[n, 3, h, w]` of this shape, by name: of one
    /// value there is no variance. SyncBN counts those of all ranks of `group`.
    ///
    /// Found by a pass over zeros, in which norms use their running statistics: nothing changes.
    pub fn starved_norms(&self, shape: [usize; 4], group: Option<&Group>) -> Vec<String> {
        let model = self.valid();
        let device = model.devices().into_iter().next().unwrap_or_else(Device::libtorch);
        let starved = Starved::default();
        let ctx = Forward { training: true, group, seed: 0, probe: Some(&starved) };
        let features = model.backbone.forward(Tensor::zeros(shape, &device), &ctx);
        for head in model.heads() {
            head.forward(&features, &ctx);
        }
        let norms = starved.norms();
        let tensors = named_tensors(&model).into_iter().filter(|it| norms.contains(&it.param_id));
        tensors.map(|it| it.name.trim_end_matches(".weight").to_owned()).collect()
    }

    /// All heads, the one that decodes first.
    fn heads(&self) -> impl Iterator<Item = &Head> {
        let auxiliary = match &self.auxiliary_head {
            None => &[][..],
            Some(AuxiliaryHead::One(head)) => std::slice::from_ref(head),
            Some(AuxiliaryHead::Many(heads)) => heads.as_slice(),
        };
        std::iter::once(&self.decode_head).chain(auxiliary)
    }

    /// The label that the decode head's losses leave out.
    pub fn ignore_index(&self) -> i64 {
        self.decode_head.decode().ignore_index()
    }

    pub(super) fn inference(&self) -> Inference {
        self.settings.inference
    }
}
