//! Weights that follow the trained ones slowly, with mmengine's arithmetic (its
//! `averaged_model.py`): an exponential moving average, one whose momentum anneals, or stochastic
//! weight averaging (Izmailov et al., 2018).

use crate::ops::Handle;

/// How averages move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Averaging {
    /// `average += momentum (weight - average)`; with `gamma` the momentum is at least `gamma /
    /// (gamma + steps)`.
    Exponential { momentum: f64, gamma: Option<u64> },
    /// The mean of all weights seen.
    Stochastic,
}

/// A tensor of the model, and its average.
#[derive(Debug)]
pub(super) struct Averaged {
    pub name: String,
    /// The model's own storage.
    pub source: Handle,
    pub average: Handle,
    /// A running statistic or a counter, not a weight.
    pub is_buffer: bool,
}

/// The averages of a model.
#[derive(Debug)]
pub(crate) struct Average {
    averaging: Averaging,
    /// Iterations between two updates.
    interval: u64,
    /// Whether buffers are averaged too; otherwise they are the model's.
    update_buffers: bool,
    tensors: Vec<Averaged>,
    /// Iterations since the averages began.
    steps: u64,
}

impl Average {
    /// Averages of tensors, each with its name and whether it is a buffer; they begin as copies.
    pub(crate) fn new(
        averaging: Averaging,
        interval: u64,
        update_buffers: bool,
        tensors: impl IntoIterator<Item = (String, Handle, bool)>,
    ) -> Self {
        let averaged = |(name, source, is_buffer): (String, Handle, bool)| {
            let average = source.duplicate();
            Averaged { name, source, average, is_buffer }
        };
        Self {
            averaging,
            interval,
            update_buffers,
            tensors: tensors.into_iter().map(averaged).collect(),
            steps: 0,
        }
    }

    /// Follows the weights as they are after a step. Before the averages have `begun` they are
    /// copies.
    pub(crate) fn update(&mut self, begun: bool) {
        if !begun {
            self.tensors.iter_mut().for_each(Averaged::copy);
            return;
        }
        let moves = self.steps.is_multiple_of(self.interval);
        for it in &mut self.tensors {
            if it.is_buffer && !self.update_buffers || self.steps == 0 {
                it.copy();
            } else if moves && it.average.is_float() {
                match self.averaging {
                    Averaging::Exponential { momentum, gamma } => {
                        let annealed =
                            gamma.map_or(0.0, |gamma| gamma as f64 / (gamma + self.steps) as f64);
                        it.average.approach(&it.source, momentum.max(annealed));
                    }
                    Averaging::Stochastic => {
                        it.average.add_difference(
                            &it.source,
                            1.0 / (self.steps / self.interval + 1) as f64,
                        );
                    }
                }
            }
        }
        self.steps += 1;
    }

    /// Exchanges the model's tensors and their averages, in place: a second time takes it back.
    pub(crate) fn swap(&mut self) {
        for it in self.tensors.iter_mut().filter(|it| !it.is_buffer || self.update_buffers) {
            let kept = it.source.duplicate();
            it.source.assign(&it.average);
            it.average.assign(&kept);
        }
    }

    /// The averages by name, as a checkpoint's weights.
    pub(crate) fn averages(&self) -> impl Iterator<Item = (&str, &Handle)> {
        self.tensors.iter().map(|it| (it.name.as_str(), &it.average))
    }

    /// Iterations since the averages began.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Begins as a copy of the model, as a new training does.
    pub(crate) fn begin(&mut self) {
        self.tensors.iter_mut().for_each(Averaged::copy);
        self.steps = 0;
    }

    /// Goes on with a checkpoint's averages; those that it does not have are copies of the model's
    /// tensors.
    pub(crate) fn restore(&mut self, saved: impl Fn(&str) -> Option<Handle>, steps: u64) {
        self.begin();
        for it in &mut self.tensors {
            if let Some(tensor) =
                saved(&it.name).filter(|tensor| tensor.shape() == it.average.shape())
            {
                it.average.assign(&tensor);
            }
        }
        self.steps = steps;
    }
}

impl Averaged {
    fn copy(&mut self) {
        self.average.assign(&self.source);
    }
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;

    /// What the average of a weight that takes these values is after each.
    fn follow(averaging: Averaging, interval: u64, values: &[f64]) -> Vec<f64> {
        let mut weight = Tensor::from_slice(&[0.0_f64]);
        let mut average = Average::new(
            averaging,
            interval,
            false,
            [("w".to_owned(), Handle::new(weight.shallow_clone()), false)],
        );
        let mut seen = Vec::new();
        for value in values {
            let _ = weight.fill_(*value);
            average.update(true);
            seen.push(average.averages().map(|(_, it)| it.double_value(&[0])).sum());
        }
        seen
    }

    #[test]
    fn averages_move_as_mmengines() {
        let exponential = |gamma| Averaging::Exponential { momentum: 0.25, gamma };
        assert_eq!(follow(exponential(None), 1, &[4.0, 8.0, 8.0]), [4.0, 5.0, 5.75]);
        assert_eq!(follow(exponential(None), 2, &[4.0, 8.0, 8.0, 8.0]), [4.0, 4.0, 5.0, 5.0]);
        // max(0.25, 1 / (1 + steps)): one half, then one third.
        let annealed = follow(exponential(Some(1)), 1, &[4.0, 8.0, 9.0]);
        assert!(
            (annealed[2] - 7.0).abs() < 1e-12 && (annealed[1] - 6.0).abs() < 1e-12,
            "{annealed:?}"
        );
        let mean = follow(Averaging::Stochastic, 1, &[3.0, 5.0, 10.0]);
        assert!((mean[2] - 6.0).abs() < 1e-12, "{mean:?}");
    }

    #[test]
    fn buffers_are_the_models_unless_they_are_averaged() {
        let build = |update_buffers| {
            let tensors = [
                ("w".to_owned(), Handle::new(Tensor::from_slice(&[1.0_f32])), false),
                ("mean".to_owned(), Handle::new(Tensor::from_slice(&[1.0_f32])), true),
                ("count".to_owned(), Handle::new(Tensor::from_slice(&[1_i64])), true),
            ];
            Average::new(
                Averaging::Exponential { momentum: 0.5, gamma: None },
                1,
                update_buffers,
                tensors,
            )
        };
        for (update_buffers, expected) in [(false, [2.0, 3.0, 3.0]), (true, [2.0, 2.0, 1.0])] {
            let mut average = build(update_buffers);
            average.update(true);
            tch::no_grad(|| {
                average
                    .tensors
                    .iter_mut()
                    .for_each(|it| it.source.copy_(&Tensor::from_slice(&[3_i64])));
            });
            average.update(true);
            let values: Vec<f64> =
                average.averages().map(|(_, it)| it.double_value(&[0])).collect();
            assert_eq!(values, expected);
            average.swap();
            let swapped: Vec<f64> =
                average.tensors.iter().map(|it| it.source.double_value(&[0])).collect();
            assert_eq!(swapped, if update_buffers { expected } else { [2.0, 3.0, 3.0] });
            average.swap();
            assert_eq!(
                average.averages().map(|(_, it)| it.double_value(&[0])).collect::<Vec<_>>(),
                expected
            );
        }
    }

    #[test]
    fn averages_that_have_not_begun_are_copies() {
        let mut weight = Tensor::from_slice(&[1.0_f32]);
        let tensors = [("w".to_owned(), Handle::new(weight.shallow_clone()), false)];
        let mut average = Average::new(Averaging::Stochastic, 1, false, tensors);
        let _ = weight.fill_(5.0);
        average.update(false);
        assert_eq!(
            (average.averages().map(|(_, it)| it.double_value(&[0])).sum::<f64>(), average.steps()),
            (5.0, 0)
        );
    }
}
