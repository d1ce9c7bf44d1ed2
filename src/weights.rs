//! A model's tensors, with one owner: what each is called, which layer it belongs to, and whether
//! training changes it.
//!
//! Loading, optimizing, averaging over ranks and the running statistics change them in place,
//! through handles that share the module's storage; the module itself is never rebuilt. Whoever
//! speaks of a tensor of the model speaks of it by its [`WeightId`].

use std::ops::Index;
use std::sync::Arc;

use burn::tensor::Gradients;

use crate::ops::{Handle, Leaf};

/// The kinds of layers that initial values and parameter-wise rules tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Linear,
    Embedding,
    BatchNorm,
    InstanceNorm,
    GroupNorm,
    LayerNorm,
    PReLU,
    /// A parameter that a component holds itself, such as a position embedding.
    Own,
}

impl Layer {
    /// Whether `norm_decay_mult` is meant for it.
    pub fn is_norm(self) -> bool {
        matches!(self, Self::BatchNorm | Self::InstanceNorm | Self::GroupNorm | Self::LayerNorm)
    }
}

/// Whether an optimizer may touch a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A weight or a bias.
    Parameter,
    /// Running statistics, counters, and constants that are saved.
    Buffer,
}

/// One entry of a state dict.
#[derive(Debug, Clone)]
pub struct Weight {
    /// Such as `backbone.layer1.0.downsample.1.running_mean`.
    pub name: String,
    /// The module's own storage, in torch's shape.
    pub tensor: Handle,
    pub role: Role,
    pub layer: Layer,
    /// Of a convolution with as many groups as input channels.
    pub depthwise: bool,
    /// Whether training gives it a gradient; frozen stages and buffers have none. As the model was
    /// built for training: a model that left autodiff says `false` everywhere.
    pub trained: bool,
    /// Its place in the graph.
    pub leaf: Option<Leaf>,
}

impl Weight {
    /// A trained parameter outside of any graph.
    pub fn new(name: impl Into<String>, tensor: Handle, layer: Layer) -> Self {
        Self {
            name: name.into(),
            tensor,
            role: Role::Parameter,
            layer,
            depthwise: false,
            trained: true,
            leaf: None,
        }
    }

    /// The name of the layer that it belongs to.
    pub fn owner(&self) -> &str {
        self.name.rsplit_once('.').map_or("", |(owner, _)| owner)
    }

    /// What it is to its layer: `weight`, `bias`, ….
    pub fn leaf_name(&self) -> &str {
        self.name.rsplit_once('.').map_or(&self.name, |(_, name)| name)
    }
}

/// Which of a model's tensors is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(usize);

/// All tensors of a model, in the order of torch's `state_dict`.
#[derive(Debug, Clone)]
pub struct Weights(Arc<[Weight]>);

impl Weights {
    pub fn iter(&self) -> std::slice::Iter<'_, Weight> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that training changes.
    pub fn trained(&self) -> impl Iterator<Item = (WeightId, &Weight)> {
        self.0.iter().enumerate().filter(|(_, it)| it.trained).map(|(at, it)| (WeightId(at), it))
    }

    /// The weights and biases.
    pub fn parameters(&self) -> impl Iterator<Item = &Weight> {
        self.0.iter().filter(|it| it.role == Role::Parameter)
    }

    /// The gradients that a backward pass left for what is trained.
    pub fn gradients(&self, mut grads: Gradients) -> PerWeight<Handle> {
        let mut found = PerWeight::new(self);
        for (id, weight) in self.trained() {
            found.set(id, weight.leaf.as_ref().and_then(|it| it.gradient(&mut grads)));
        }
        found
    }
}

impl FromIterator<Weight> for Weights {
    fn from_iter<I: IntoIterator<Item = Weight>>(weights: I) -> Self {
        Self(weights.into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a Weights {
    type Item = &'a Weight;
    type IntoIter = std::slice::Iter<'a, Weight>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Weights {
    type Item = Weight;
    type IntoIter = std::vec::IntoIter<Weight>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter().cloned().collect::<Vec<_>>().into_iter()
    }
}

impl Index<WeightId> for Weights {
    type Output = Weight;

    fn index(&self, id: WeightId) -> &Weight {
        &self.0[id.0]
    }
}

/// Something for each of a model's tensors, or for some of them.
#[derive(Debug)]
pub struct PerWeight<T>(Vec<Option<T>>);

impl<T> PerWeight<T> {
    /// A place for each of `weights`, all empty.
    pub fn new(weights: &Weights) -> Self {
        Self((0..weights.0.len()).map(|_| None).collect())
    }

    pub fn get(&self, id: WeightId) -> Option<&T> {
        self.0[id.0].as_ref()
    }

    pub fn set(&mut self, id: WeightId, value: Option<T>) {
        self.0[id.0] = value;
    }

    pub fn place(&mut self, id: WeightId) -> &mut Option<T> {
        &mut self.0[id.0]
    }

    /// What there is, in the order of the tensors.
    pub fn iter(&self) -> impl Iterator<Item = (WeightId, &T)> {
        self.0.iter().enumerate().filter_map(|(at, it)| Some((WeightId(at), it.as_ref()?)))
    }
}

impl<T> IntoIterator for PerWeight<T> {
    type Item = (WeightId, T);
    type IntoIter = std::vec::IntoIter<(WeightId, T)>;

    fn into_iter(self) -> Self::IntoIter {
        let filled =
            self.0.into_iter().enumerate().filter_map(|(at, it)| Some((WeightId(at), it?)));
        filled.collect::<Vec<_>>().into_iter()
    }
}
