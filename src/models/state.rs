//! The tensors of a model by mmseg's state-dict names.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Int, Tensor};

use super::builder::Registry;
use super::init::Fill;
use crate::ops::{self, Handle, Leaf};
use crate::weights::{Role, Weight, Weights};

/// Every tensor of `module`, in the order of torch's `state_dict`, and what each begins as.
///
/// # Panics
/// Where a parameter is none of `registry`'s: a fault of the component that has it.
pub(super) fn weights(module: &impl Module, registry: &Registry) -> (Weights, Vec<Option<Fill>>) {
    let mut visitor = Visitor { registry, path: Vec::new(), found: Vec::new(), fills: Vec::new() };
    module.visit(&mut visitor);
    (visitor.found.into_iter().collect(), visitor.fills)
}

/// A level of a module: a field with the type that has it, or the variant of an enum.
type Level = (String, String);

/// mmcv names a norm's attribute after its kind: `bn`, `gn2`, …; here it is the field `bn` or
/// `bn2`, whatever stands in it.
fn renamed(field: &str, next: Option<&Level>) -> Option<String> {
    let (variant, _) = next.filter(|(_, container)| container == "Enum:Norm")?;
    let digits = field.strip_prefix("bn").filter(|it| it.bytes().all(|it| it.is_ascii_digit()))?;
    let kind = match variant.as_str() {
        "Group" => "gn",
        "Layer" => "ln",
        "Instance" => "in",
        _ => "bn",
    };
    Some(format!("{kind}{digits}"))
}

/// The name of a tensor at `path`. An enum's variant says which module stands in a place and is no
/// level of the state dict; a field whose name is a word of Rust's is written `r#in`. What is
/// inline is called as its owner's.
fn state_name(path: &[Level]) -> String {
    let inline =
        |at: usize| path.get(at + 1).is_some_and(|(_, container)| container == "Enum:Inline");
    let levels = path
        .iter()
        .enumerate()
        .filter(|(at, (_, container))| !container.starts_with("Enum:") && !inline(*at));
    let names = levels.map(|(at, (field, _))| {
        let field = field.strip_prefix("r#").unwrap_or(field);
        renamed(field, path.get(at + 1)).unwrap_or_else(|| field.to_owned())
    });
    names.collect::<Vec<_>>().join(".")
}

struct Visitor<'a> {
    registry: &'a Registry,
    path: Vec<Level>,
    found: Vec<Weight>,
    fills: Vec<Option<Fill>>,
}

impl Visitor<'_> {
    fn add(&mut self, id: ParamId, tensor: Handle, leaf: Option<Leaf>) {
        let name = state_name(&self.path);
        let made = self
            .registry
            .get(id)
            .copied()
            .unwrap_or_else(|| panic!("`{name}` was not made by the model's builder"));
        let trained = leaf.is_some() && made.role == Role::Parameter;
        let (role, layer, depthwise) = (made.role, made.layer, made.depthwise);
        self.found.push(Weight { name, tensor, role, layer, depthwise, trained, leaf });
        self.fills.push(made.fill);
    }
}

impl ModuleVisitor for Visitor<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push((name.to_owned(), container.to_owned()));
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        self.add(param.id, ops::to_tch(&value), Leaf::of(&value));
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        // Burn has no tensor without dimensions: a counter of shape [1] stands for torch's of shape
        // [].
        let tensor = ops::to_tch(&param.val());
        let tensor = if D == 1 && tensor.size() == [1] { tensor.reshaped(&[]) } else { tensor };
        self.add(param.id, tensor, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_mmcvs_whatever_norm_stands_in_a_place() {
        let name = |levels: &[(&str, &str)]| {
            let path: Vec<Level> = levels
                .iter()
                .map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned()))
                .collect();
            state_name(&path)
        };
        let module = ("convs", "Struct:Head");
        for (variant, expected) in [
            ("Batch", "convs.bn.weight"),
            ("Group", "convs.gn.weight"),
            ("Instance", "convs.in.weight"),
        ] {
            assert_eq!(
                name(&[
                    module,
                    ("bn", "Struct:ConvModule"),
                    (variant, "Enum:Norm"),
                    ("weight", "Struct:N")
                ]),
                expected
            );
        }
        assert_eq!(
            name(&[("bn2", "Struct:Block"), ("Layer", "Enum:Norm"), ("bias", "Struct:LayerNorm")]),
            "ln2.bias"
        );
        assert_eq!(
            name(&[("1", "Tuple"), ("Group", "Enum:Norm"), ("weight", "Struct:GroupNorm")]),
            "1.weight"
        );
        let inline = [
            ("pyramid", "Struct:Head"),
            ("Here", "Enum:Inline"),
            ("pool", "Struct:Pyramid"),
            ("weight", "Struct:Conv2d"),
        ];
        assert_eq!(name(&inline), "pool.weight");
        assert_eq!(name(&[("r#in", "Struct:Own"), ("weight", "Struct:Linear")]), "in.weight");
    }
}
