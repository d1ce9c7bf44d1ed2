//! A state dict goes into a model: in place, with every difference reported.

use std::collections::HashSet;
use std::fmt;

use indexmap::IndexMap;

use super::{CheckpointError, StateDict};
use crate::weights::{Weight, Weights};

/// What becomes of tensors that have another shape in the checkpoint than in the model, as those of
/// a head for other classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// They keep the model's values, which a training changes anyway.
    Trained,
    /// They are an error: the weights are used as they are, or a training goes on with them.
    Exact,
}

/// A tensor with two shapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reshaped {
    pub name: String,
    /// The model's.
    pub expected: Vec<i64>,
    /// The checkpoint's.
    pub found: Vec<i64>,
}

impl fmt::Display for Reshaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} has shape {:?} in the checkpoint and {:?} in the model",
            self.name, self.found, self.expected
        )
    }
}

/// What of a checkpoint and a model does not meet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the model, not in the checkpoint: they keep their values.
    pub missing: Vec<String>,
    /// In the checkpoint, not in the model: they are not used.
    pub unexpected: Vec<String>,
    /// In both, with different shapes: they keep the model's values.
    pub reshaped: Vec<Reshaped>,
}

/// Copies every tensor of `state` into the model's of the same name and shape. Before anything is
/// written it is an error where not one tensor is the model's, and where shapes differ that have to
/// be [exact](Fit::Exact).
pub fn load_into(
    weights: &Weights,
    state: &StateDict,
    fit: Fit,
) -> Result<Report, CheckpointError> {
    let mut pairs = Vec::new();
    let mut report = Report::default();
    for Weight { name, tensor, .. } in weights {
        match state.get(name) {
            None => report.missing.push(name.clone()),
            Some(source) if source.size() != tensor.size() => {
                report.reshaped.push(Reshaped {
                    name: name.clone(),
                    expected: tensor.size(),
                    found: source.size(),
                });
            }
            Some(source) => pairs.push((tensor, source)),
        }
    }
    if !report.reshaped.is_empty() && (fit == Fit::Exact || pairs.is_empty()) {
        return Err(CheckpointError::Shapes { tensors: report.reshaped });
    }
    if pairs.is_empty() {
        return Err(foreign(weights, state));
    }
    let known: HashSet<&str> = weights.iter().map(|it| it.name.as_str()).collect();
    report.unexpected =
        state.keys().filter(|name| !known.contains(name.as_str())).cloned().collect();
    tch::no_grad(|| {
        for (destination, source) in pairs {
            let mut destination = destination.clone();
            destination.copy_(source);
        }
    });
    Ok(report)
}

fn foreign(weights: &Weights, state: &StateDict) -> CheckpointError {
    let first =
        |names: Option<&str>| names.map_or("none".to_owned(), |name| format!("`{name}` and so on"));
    let backbone = weights
        .iter()
        .any(|it| it.name.strip_prefix("backbone.").is_some_and(|name| state.contains_key(name)));
    CheckpointError::Foreign {
        found: first(state.keys().next().map(String::as_str)),
        expected: first(weights.iter().next().map(|it| it.name.as_str())),
        hint: if backbone {
            "; these are weights of a backbone alone: name the file in model.pretrained"
        } else {
            ""
        },
    }
}

/// Names for a message: all where they are few, else how many there are below each prefix.
pub(crate) fn listed(names: &[String]) -> String {
    const FEW: usize = 12;
    if names.len() <= FEW {
        return names.join(", ");
    }
    let by_prefix = |levels: usize| {
        let mut counts: IndexMap<String, usize> = IndexMap::new();
        for name in names {
            let parts: Vec<_> = name.split('.').collect();
            let prefix = if parts.len() > levels {
                format!("{}.*", parts[..levels].join("."))
            } else {
                name.clone()
            };
            *counts.entry(prefix).or_default() += 1;
        }
        counts
    };
    // As particular as it can be without becoming long.
    let counts = [3, 2]
        .into_iter()
        .map(by_prefix)
        .find(|it| it.len() <= FEW)
        .unwrap_or_else(|| by_prefix(1));
    let mut parts: Vec<_> =
        counts.iter().take(FEW).map(|(prefix, count)| format!("{prefix} ({count})")).collect();
    if counts.len() > FEW {
        parts.push("and others".to_owned());
    }
    format!("{} tensors: {}", names.len(), parts.join(", "))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::ops::Handle;
    use crate::weights::Layer;

    fn zeros(shape: &[i64]) -> Tensor {
        Tensor::zeros(shape, (Kind::Float, Device::Cpu))
    }

    fn model(names: &[(&str, &[i64])]) -> Weights {
        names
            .iter()
            .map(|(name, shape)| Weight::new(*name, Handle::new(zeros(shape)), Layer::Own))
            .collect()
    }

    fn at(weights: &Weights, which: usize) -> f64 {
        weights.iter().nth(which).expect("a tensor").tensor.double_value(&[0])
    }

    #[test]
    fn tensors_are_written_in_place_and_differences_reported() {
        let destinations = model(&[("weight", &[2]), ("bias", &[1])]);
        let state = StateDict::from([
            ("weight".to_owned(), zeros(&[2]) + 3.0),
            ("extra".to_owned(), zeros(&[1])),
        ]);
        let report = load_into(&destinations, &state, Fit::Exact).expect("loads");
        let (missing, unexpected) = (vec!["bias".to_owned()], vec!["extra".to_owned()]);
        assert_eq!(report, Report { missing, unexpected, reshaped: Vec::new() });
        assert_eq!(at(&destinations, 0), 3.0);
    }

    #[test]
    fn other_shapes_are_all_named_and_nothing_is_written_where_they_must_fit() {
        let destinations = model(&[("a", &[2]), ("b", &[2, 3]), ("c", &[4])]);
        let state = [("a", zeros(&[2]) + 1.0), ("b", zeros(&[3, 2])), ("c", zeros(&[5]))];
        let state: StateDict =
            state.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
        let message =
            load_into(&destinations, &state, Fit::Exact).expect_err("shapes differ").to_string();
        for words in
            ["b has shape [3, 2] in the checkpoint and [2, 3] in the model", "c has shape [5]"]
        {
            assert!(message.contains(words), "{message}");
        }
        assert_eq!(at(&destinations, 0), 0.0);

        let report = load_into(&destinations, &state, Fit::Trained).expect("loads the rest");
        assert_eq!(
            report.reshaped.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(),
            ["b", "c"]
        );
        assert!(report.missing.is_empty() && report.unexpected.is_empty());
        assert_eq!((at(&destinations, 0), at(&destinations, 2)), (1.0, 0.0));
    }

    #[test]
    fn a_checkpoint_of_which_nothing_fits_is_refused_in_every_case() {
        let destinations = model(&[("backbone.weight", &[2])]);
        let message = |name: &str, shape: &[i64], fit: Fit| {
            let state = StateDict::from([(name.to_owned(), zeros(shape))]);
            load_into(&destinations, &state, fit).expect_err("foreign").to_string()
        };
        for fit in [Fit::Trained, Fit::Exact] {
            let text = message("other", &[2], fit);
            assert!(text.contains("`other`") && text.contains("`backbone.weight`"), "{text}");
            assert!(message("backbone.weight", &[3], fit).contains("[3]"));
            assert!(message("weight", &[2], fit).contains("model.pretrained"));
        }
    }

    #[test]
    fn many_names_are_told_by_their_prefixes() {
        let names = |prefix: &str, count: usize| {
            (0..count).map(|at| format!("{prefix}.{at}.weight")).collect::<Vec<_>>()
        };
        assert_eq!(listed(&names("head", 2)), "head.0.weight, head.1.weight");
        let many = [
            names("backbone.layer1", 30),
            names("backbone.layer2", 40),
            vec!["head.bias".to_owned()],
        ]
        .concat();
        assert_eq!(
            listed(&many),
            "71 tensors: backbone.layer1.* (30), backbone.layer2.* (40), head.bias (1)"
        );
        let wide: Vec<_> = (0..40).map(|at| format!("part{at}.weight")).collect();
        assert!(listed(&wide).ends_with("part11.* (1), and others"), "{}", listed(&wide));
    }
}
