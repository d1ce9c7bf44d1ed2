//! A state dict goes into a model: in place, with every difference reported.

use super::{CheckpointError, StateDict};

/// A tensor of the model that a checkpoint's may be written into.
#[derive(Debug)]
pub struct Destination<'a> {
    pub name: &'a str,
    pub tensor: &'a tch::Tensor,
}

/// Names that only one side has.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the model, not in the checkpoint: they keep their values.
    pub missing: Vec<String>,
    /// In the checkpoint, not in the model: they are not used.
    pub unexpected: Vec<String>,
}

/// Copies every tensor of `state` into the model's of the same name. A shape that differs is an error before anything is
/// written, and so is a state dict of which no tensor is the model's.
pub fn load_into(destinations: &[Destination<'_>], state: &StateDict) -> Result<Report, CheckpointError> {
    let mut pairs = Vec::with_capacity(destinations.len());
    let mut report = Report::default();
    for Destination { name, tensor } in destinations {
        match state.get(*name) {
            None => report.missing.push((*name).to_owned()),
            Some(source) if source.size() != tensor.size() => {
                return Err(CheckpointError::Shape { name: (*name).to_owned(), expected: tensor.size(), found: source.size() });
            }
            Some(source) => pairs.push((tensor, source)),
        }
    }
    if pairs.is_empty() {
        let first = |names: Option<&str>| names.map_or("none".to_owned(), |name| format!("`{name}` and so on"));
        return Err(CheckpointError::Foreign {
            found: first(state.keys().next().map(String::as_str)),
            expected: first(destinations.first().map(|it| it.name)),
        });
    }
    report.unexpected = state.keys().filter(|name| !destinations.iter().any(|it| it.name == name.as_str())).cloned().collect();
    tch::no_grad(|| {
        for (destination, source) in pairs {
            // A shallow clone is a second handle to the same storage, which is what copying into it needs.
            destination.shallow_clone().copy_(source);
        }
    });
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    fn zeros(shape: &[i64]) -> Tensor {
        Tensor::zeros(shape, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn tensors_are_written_in_place_and_differences_reported() {
        let (weight, bias) = (zeros(&[2]), zeros(&[1]));
        let destinations = [Destination { name: "weight", tensor: &weight }, Destination { name: "bias", tensor: &bias }];
        let state = StateDict::from([("weight".to_owned(), zeros(&[2]) + 3.0), ("extra".to_owned(), zeros(&[1]))]);
        let report = load_into(&destinations, &state).expect("loads");
        assert_eq!(report, Report { missing: vec!["bias".to_owned()], unexpected: vec!["extra".to_owned()] });
        assert_eq!(weight.double_value(&[1]), 3.0);
    }

    #[test]
    fn another_shape_is_named_and_nothing_is_written() {
        let (first, second) = (zeros(&[2]), zeros(&[2, 3]));
        let destinations = [Destination { name: "a", tensor: &first }, Destination { name: "b", tensor: &second }];
        let state = StateDict::from([("a".to_owned(), zeros(&[2]) + 1.0), ("b".to_owned(), zeros(&[3, 2]))]);
        let message = load_into(&destinations, &state).expect_err("shapes differ").to_string();
        assert!(message.contains("b has shape [3, 2] in the checkpoint and [2, 3] in the model"), "{message}");
        assert_eq!(first.double_value(&[0]), 0.0);
    }

    #[test]
    fn a_foreign_state_dict_is_refused() {
        let weight = zeros(&[2]);
        let state = StateDict::from([("other".to_owned(), zeros(&[2]))]);
        let message = load_into(&[Destination { name: "weight", tensor: &weight }], &state).expect_err("foreign").to_string();
        assert!(message.contains("`other`") && message.contains("`weight`"), "{message}");
    }
}
