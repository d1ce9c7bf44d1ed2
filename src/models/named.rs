//! The tensors of a model by mmseg's state-dict names.
//!
//! Loading, optimizing and the running statistics change weights in place, through libtorch tensors that share the
//! module's storage; the module itself is never rebuilt.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Int, Tensor};

use crate::ops::{self, MemoryFormat};

/// Whether an optimizer may touch a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorKind {
    /// A weight or a bias.
    Parameter,
    /// Running statistics and counters.
    Buffer,
}

/// The layer that a tensor belongs to, as far as initialisation and parameter-wise rules tell layers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    Conv2d,
    BatchNorm,
}

/// One entry of a state dict.
#[derive(Debug)]
pub struct NamedTensor {
    /// Such as `backbone.layer1.0.downsample.1.running_mean`.
    pub name: String,
    /// The module's own storage.
    pub tensor: tch::Tensor,
    pub kind: TensorKind,
    /// Whether training gives it a gradient; frozen stages and buffers have none. As the model was built for training:
    /// a model that left autodiff says `false` everywhere.
    pub requires_grad: bool,
    pub param_id: ParamId,
    pub layer: LayerKind,
}

/// Every tensor of `module`, in the order of torch's `state_dict`.
pub fn named_tensors(module: &impl Module) -> Vec<NamedTensor> {
    let mut visitor = Visitor::default();
    module.visit(&mut visitor);
    visitor.found
}

/// Puts the convolution weights of `module` into a memory format, for all who have a handle to them.
pub fn arrange(module: &impl Module, format: MemoryFormat) {
    named_tensors(module).iter().filter(|it| it.tensor.dim() == 4).for_each(|it| format.arrange(&it.tensor));
}

#[derive(Default)]
struct Visitor {
    /// Name of each level, and the type of the container that has it.
    path: Vec<(String, String)>,
    found: Vec<NamedTensor>,
}

impl Visitor {
    fn add(&mut self, tensor: tch::Tensor, requires_grad: bool, param_id: ParamId) {
        // An enum's variant says which module stands in a place; it is no level of the state dict.
        let levels = self.path.iter().filter(|(_, container)| !container.starts_with("Enum:"));
        let name = levels.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(".");
        let (field, container) = self.path.last().map_or(("", ""), |(field, container)| (field, container));
        let kind = match field {
            "running_mean" | "running_var" | "num_batches_tracked" => TensorKind::Buffer,
            _ => TensorKind::Parameter,
        };
        let layer = match container {
            "Struct:BatchNorm" => LayerKind::BatchNorm,
            _ => LayerKind::Conv2d,
        };
        self.found.push(NamedTensor { name, tensor, kind, requires_grad, param_id, layer });
    }
}

impl ModuleVisitor for Visitor {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push((name.to_owned(), container.to_owned()));
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        self.add(ops::to_tch(&value), value.is_require_grad(), param.id);
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        // Burn has no tensor without dimensions: a counter of shape [1] stands for torch's of shape [].
        let tensor = ops::to_tch(&param.val());
        let tensor = if D == 1 && tensor.size() == [1] { tensor.squeeze() } else { tensor };
        self.add(tensor, false, param.id);
    }
}
