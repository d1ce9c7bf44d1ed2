//! What the parts of a model promise each other, and how a slot's types become one.
//!
//! A component is a config that can say what it makes of its inputs before anything exists
//! ([`BackboneSpec`] and its kin), and a module that runs ([`RunBackbone`] and its kin). It stands
//! in its own file and in one line of its slot.

use std::fmt::Debug;

use burn::tensor::{Int, Tensor};

use super::ModelError;
use super::backbone::Backbone;
use super::builder::Builder;
use super::forward::{Forward, Scalars};
use super::head::{Decode, DecodeConfig, Head, InputTransform};
use super::init::InitConfig;
use super::neck::Neck;
use crate::config::Both;
use crate::ops;

/// A feature map, before there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    pub channels: usize,
    /// How many pixels of the image one of its own is wide.
    pub stride: usize,
}

impl Feature {
    /// An error for a backbone that takes images of other channels; it names `in_channels`.
    pub fn matches(self, in_channels: usize) -> Result<(), ModelError> {
        if in_channels == self.channels {
            return Ok(());
        }
        let problem = format!("is {in_channels}, but images have {} channels", self.channels);
        Err(ModelError::config("in_channels", problem))
    }
}

/// What a component begins as where no weights are read and its config has no `init_cfg`.
#[derive(Debug, Clone, Default)]
pub struct Initial {
    pub rules: Vec<InitConfig>,
    /// Layers whose names end in this begin at zero.
    pub zeros: Option<&'static str>,
}

/// The config of a backbone. Errors name keys below it.
pub trait BackboneSpec: Debug + Send + Sync {
    /// The feature maps that it makes of an image, without making anything.
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError>;

    fn build(&self, image: Feature, builder: &Builder) -> Result<Backbone, ModelError>;

    /// What height and width of an image have to be multiples of.
    fn divisor(&self) -> usize {
        1
    }

    fn initial(&self) -> Initial {
        Initial::default()
    }

    /// Its `pretrained`, the old way to name weights.
    fn pretrained(&self) -> Option<&str> {
        None
    }

    fn init_cfg(&self) -> Option<&[InitConfig]>;

    /// Whether its layers have an order by which rates may decay.
    fn has_ordered_layers(&self) -> bool {
        false
    }

    /// The backbone within it, if it has one.
    fn nested(&self) -> Option<Nested<'_>> {
        None
    }
}

/// A backbone within another one.
#[derive(Debug, Clone, Copy)]
pub struct Nested<'a> {
    /// The key of its config.
    pub key: &'static str,
    /// Where its parameters are, such as `context_path.backbone`.
    pub place: &'static str,
    pub spec: &'a dyn BackboneSpec,
}

/// A backbone at work.
pub trait RunBackbone {
    /// `[n, c, h, w]` to the feature maps that its spec told of.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>>;
}

/// The config of a neck: from feature maps to feature maps.
pub trait NeckSpec: Debug + Send + Sync {
    fn check(&self, inputs: &[Feature]) -> Result<Vec<Feature>, ModelError>;

    fn build(&self, inputs: &[Feature], builder: &Builder) -> Result<Neck, ModelError>;

    fn initial(&self) -> Initial {
        Initial::default()
    }

    fn init_cfg(&self) -> Option<&[InitConfig]>;
}

/// A neck at work.
pub trait RunNeck {
    fn forward(&self, features: Vec<Tensor<4>>, ctx: &Forward) -> Vec<Tensor<4>>;
}

/// The config of a head, the keys that every head has among its own ([`Both`]).
pub trait HeadSpec: Debug + Send + Sync + AsRef<DecodeConfig> {
    /// The keys that every head has.
    fn shared(&self) -> &DecodeConfig {
        self.as_ref()
    }

    /// The settings of its norms, for `sync_bn`.
    /// What becomes of several feature maps: heads that take them as they are say so themselves.
    fn transform(&self) -> Option<InputTransform> {
        self.shared().input_transform
    }

    /// Whether it needs the logits of a head before it, in a cascade.
    fn sees_previous(&self) -> bool {
        false
    }

    /// Whether its labels are the dataset's; else it makes its own of them.
    fn takes_labels(&self) -> bool {
        true
    }

    /// Whether the head's own settings go together and fit the feature maps; those of every head
    /// are checked besides.
    fn check(&self, inputs: &[Feature]) -> Result<(), ModelError>;

    fn build(&self, inputs: &[Feature], builder: &Builder) -> Result<Head, ModelError>;

    fn initial(&self) -> Initial {
        Initial { rules: vec![InitConfig::classifier("conv_seg")], zeros: None }
    }
}

/// A head of one's own, seen from the keys that it has beside those of every head, `shared`; with
/// these it is a [`HeadSpec`].
pub trait HeadKeys: Debug + Clone + Send + Sync + 'static {
    /// Whether the head needs the logits of a head before it, in a cascade.
    const SEES_PREVIOUS: bool = false;

    /// Whether its labels are the dataset's; else it makes its own of them.
    const TAKES_LABELS: bool = true;

    /// Whether the settings go together and fit the feature maps; those of every head are checked
    /// besides.
    fn check(&self, shared: &DecodeConfig, inputs: &[Feature]) -> Result<(), ModelError> {
        let _ = inputs;
        shared.one_map()
    }

    fn build(
        &self,
        shared: &DecodeConfig,
        inputs: &[Feature],
        builder: &Builder,
    ) -> Result<Head, ModelError>;

    /// What becomes of several feature maps: heads that take them as they are say so here.
    fn transform(&self, shared: &DecodeConfig) -> Option<InputTransform> {
        shared.input_transform
    }

    fn initial(&self) -> Initial {
        Initial { rules: vec![InitConfig::classifier("conv_seg")], zeros: None }
    }
}

impl<K: HeadKeys> HeadSpec for Both<DecodeConfig, K> {
    fn sees_previous(&self) -> bool {
        K::SEES_PREVIOUS
    }

    fn takes_labels(&self) -> bool {
        K::TAKES_LABELS
    }

    fn check(&self, inputs: &[Feature]) -> Result<(), ModelError> {
        self.own.check(&self.shared, inputs)
    }

    fn build(&self, inputs: &[Feature], builder: &Builder) -> Result<Head, ModelError> {
        self.own.build(&self.shared, inputs, builder)
    }

    fn transform(&self) -> Option<InputTransform> {
        self.own.transform(&self.shared)
    }

    fn initial(&self) -> Initial {
        self.own.initial()
    }
}

/// What a head sees.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The feature maps of the backbone, or of the neck.
    pub features: &'a [Tensor<4>],
    /// In a cascade, the logits of the head before.
    pub previous: Option<&'a Tensor<4>>,
}

/// A head at work. What it keeps beyond [`forward`](Self::forward), such as further outputs, is its
/// own affair: it says what they cost in [`loss`](Self::loss).
pub trait RunHead {
    /// Logits `[n, out_channels, h, w]`, of any size.
    fn forward(&self, seen: Seen, ctx: &Forward) -> Tensor<4>;

    fn decode(&self) -> &Decode;

    /// How many labels its losses know, and the one that they leave out; none for a head that makes
    /// labels of its own.
    fn labels(&self) -> Option<(usize, i64)> {
        Some((self.decode().num_classes(), self.decode().ignore_index()))
    }

    /// Losses and accuracy against `labels` `[n, h, w]`.
    fn loss(&self, seen: Seen, labels: &Tensor<3, Int>, ctx: &Forward) -> Scalars {
        self.decode().losses(self.forward(seen, ctx), labels)
    }

    /// Logits at `size` (height, width), for label maps.
    fn predict(&self, seen: Seen, size: [usize; 2], ctx: &Forward) -> Tensor<4> {
        ops::resize_bilinear(self.forward(seen, ctx), size, self.decode().align_corners())
    }
}

/// Declares a slot: the enum of its configs, which a `type:` selects, and that of its modules, each
/// usable as its contract.
///
/// ```ignore
/// slot! {
///     /// `decode_head`, `auxiliary_head`.
///     HeadConfig: HeadSpec => Head: RunHead {
///         FCNHead(FCNHeadConfig => FCNHead),
///     }
/// }
/// ```
macro_rules! slot {
    ($(#[$meta:meta])* $config:ident: $spec:ident => $module:ident: $run:ident {
        $($(#[$variant_meta:meta])* $variant:ident($variant_config:ty => $variant_module:ident),)*
    }) => {
        $crate::models::contract::slot! {
            $(#[$meta])* $config: $spec, own { $($(#[$variant_meta])* $variant($variant_config),)* }
        }

        $crate::models::contract::modules! { $module: $run { $($variant_module,)* } }
    };
    ($(#[$meta:meta])* $config:ident: $spec:ident, own {
        $($(#[$variant_meta:meta])* $variant:ident($variant_config:ty),)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, serde::Deserialize, PartialEq)]
        pub enum $config {
            $($(#[$variant_meta])* $variant($variant_config),)*
            /// One of a user's own.
            #[serde(rename = "segslurm::config::Own")]
            Own($crate::config::Own<dyn $spec>),
        }

        impl std::ops::Deref for $config {
            type Target = dyn $spec;

            fn deref(&self) -> &Self::Target {
                match self { $(Self::$variant(it) => it,)* Self::Own(it) => &**it }
            }
        }

        impl $crate::config::Slot for dyn $spec {
            const NAME: &'static str = concat!("segslurm::config::Own ", stringify!($config));
        }
    };
    ($(#[$meta:meta])* $config:ident: $spec:ident {
        $($(#[$variant_meta:meta])* $variant:ident($variant_config:ty),)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, serde::Deserialize, PartialEq)]
        pub enum $config {
            $($(#[$variant_meta])* $variant($variant_config),)*
        }

        impl std::ops::Deref for $config {
            type Target = dyn $spec;

            fn deref(&self) -> &Self::Target {
                match self { $(Self::$variant(it) => it,)* }
            }
        }

        impl std::ops::DerefMut for $config {
            fn deref_mut(&mut self) -> &mut Self::Target {
                match self { $(Self::$variant(it) => it,)* }
            }
        }
    };
}
pub(super) use slot;

/// The modules of a slot. Several configs may make one kind of module, so it has a list of its own.
macro_rules! modules {
    ($(#[$meta:meta])* $module:ident: $run:ident { $($variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(burn::module::Module, Debug)]
        pub enum $module {
            $($variant($variant),)*
            /// One of a user's own.
            Own($crate::models::OwnModule<dyn $run>),
        }

        impl $module {
            /// A module of one's own.
            pub fn own<M: burn::module::Module + $run + 'static>(module: M) -> Self {
                Self::Own($crate::models::OwnModule::new(module, |it| it))
            }
        }

        $(
            impl From<$variant> for $module {
                fn from(module: $variant) -> Self {
                    Self::$variant(module)
                }
            }
        )*

        impl std::ops::Deref for $module {
            type Target = dyn $run;

            fn deref(&self) -> &Self::Target {
                match self { $(Self::$variant(it) => it,)* Self::Own(it) => it.run() }
            }
        }
    };
}
pub(super) use modules;
