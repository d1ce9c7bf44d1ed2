//! Where a model's parameters are made, each with what it begins as and the layer that it belongs
//! to.
//!
//! Only a component knows what a parameter of its is: nothing is guessed from names or shapes, and
//! a parameter that was made elsewhere is an error, not a convolution.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor};

use super::init::Fill;
use super::state;
use crate::ops;
use crate::weights::{Layer, Role, Weights};

/// What a parameter or a buffer is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) role: Role,
    pub(super) layer: Layer,
    pub(super) depthwise: bool,
    /// Its values before any rule of the config; buffers keep those that they were made with.
    pub(super) fill: Option<Fill>,
}

/// All that a builder made, by the parameters' ids, which a module's copies share.
#[derive(Debug, Clone, Default)]
pub(super) struct Registry(Arc<HashMap<ParamId, Made>>);

impl Registry {
    pub(super) fn get(&self, id: ParamId) -> Option<&Made> {
        self.0.get(&id)
    }

    /// Every tensor of `module` and what each begins as.
    pub(super) fn weights(&self, module: &impl Module) -> (Weights, Vec<Option<Fill>>) {
        state::weights(module, self)
    }
}

/// Makes parameters on a device.
#[derive(Debug)]
pub struct Builder {
    device: Device,
    made: RefCell<HashMap<ParamId, Made>>,
    sync_bn: bool,
    /// Of what is made now: whether batch norms use their running statistics in training too, and
    /// whether nothing is trained.
    norm_eval: Cell<bool>,
    frozen: Cell<bool>,
}

impl Builder {
    /// `sync_bn` makes every batch norm one over all ranks.
    pub fn new(device: &Device, sync_bn: bool) -> Self {
        Self {
            device: device.clone(),
            made: RefCell::default(),
            sync_bn,
            norm_eval: Cell::new(false),
            frozen: Cell::new(false),
        }
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The batch norms of what `build` makes use their running statistics in training too, and
    /// leave them alone, where `on` says so: `norm_eval`, torch's `eval()`.
    pub fn norm_eval<T>(&self, on: bool, build: impl FnOnce() -> T) -> T {
        let outside = self.norm_eval.replace(self.norm_eval.get() || on);
        let made = build();
        self.norm_eval.set(outside);
        made
    }

    /// What `build` makes is not trained, where `on` says so; batch norms take part as ever.
    pub fn untrained<T>(&self, on: bool, build: impl FnOnce() -> T) -> T {
        let outside = self.frozen.replace(self.frozen.get() || on);
        let made = build();
        self.frozen.set(outside);
        made
    }

    /// What `build` makes is neither trained nor changed by training, where `on` says so:
    /// `frozen_stages`.
    pub fn frozen<T>(&self, on: bool, build: impl FnOnce() -> T) -> T {
        self.untrained(on, || self.norm_eval(on, build))
    }

    /// Whether every batch norm is one over all ranks.
    pub(super) fn is_sync_bn(&self) -> bool {
        self.sync_bn
    }

    /// Whether batch norms that are made now use their running statistics in training too.
    pub(super) fn is_norm_eval(&self) -> bool {
        self.norm_eval.get()
    }

    /// A parameter of zeros, trained unless it is frozen.
    fn zeros<const D: usize>(&self, shape: [usize; D]) -> Param<Tensor<D>> {
        Param::from_tensor(Tensor::zeros(shape, &self.device)).set_require_grad(!self.frozen.get())
    }

    fn note(&self, id: ParamId, made: Made) {
        self.made.borrow_mut().insert(id, made);
    }

    /// A trained parameter; its values are drawn when the whole model is there.
    pub fn parameter<const D: usize>(
        &self,
        shape: [usize; D],
        layer: Layer,
        fill: Fill,
    ) -> Param<Tensor<D>> {
        let param = self.zeros(shape);
        let depthwise = layer == Layer::Conv2d && shape.get(1) == Some(&1);
        self.note(param.id, Made { role: Role::Parameter, layer, depthwise, fill: Some(fill) });
        param
    }

    /// The bias of a layer with this weight.
    pub fn bias<const D: usize>(
        &self,
        weight: &Param<Tensor<D>>,
        length: usize,
        fill: Fill,
    ) -> Param<Tensor<1>> {
        let param = self.zeros([length]);
        let of = self
            .made
            .borrow()
            .get(&weight.id)
            .copied()
            .expect("the weight was made by this builder");
        self.note(param.id, Made { fill: Some(fill), ..of });
        param
    }

    /// A parameter with values of its own that is never trained.
    pub fn fixed<const D: usize>(&self, values: Tensor<D>, layer: Layer) -> Param<Tensor<D>> {
        let param = Param::from_tensor(values).set_require_grad(false);
        let made = Made { role: Role::Parameter, layer, depthwise: false, fill: None };
        self.note(param.id, made);
        param
    }

    /// A tensor that is saved with the model and never trained.
    pub fn buffer<const D: usize>(&self, values: Tensor<D>, layer: Layer) -> Param<Tensor<D>> {
        let param = Param::initialized(ParamId::new(), values);
        self.note(param.id, Made { role: Role::Buffer, layer, depthwise: false, fill: None });
        param
    }

    /// Whole numbers that are saved with the model, such as the places of a table.
    pub fn index<const D: usize>(&self, values: Tensor<D, Int>) -> Param<Tensor<D, Int>> {
        let param = Param::initialized(ParamId::new(), values);
        let made = Made { role: Role::Buffer, layer: Layer::Own, depthwise: false, fill: None };
        self.note(param.id, made);
        param
    }

    /// A count of 64 bits, `[1]` here and `[]` in a state dict.
    pub fn counter(&self, layer: Layer) -> Param<Tensor<1, Int>> {
        let param = Param::initialized(ParamId::new(), ops::counter(&self.device));
        self.note(param.id, Made { role: Role::Buffer, layer, depthwise: false, fill: None });
        param
    }

    /// What was made.
    pub(super) fn finish(self) -> Registry {
        Registry(Arc::new(self.made.into_inner()))
    }
}
