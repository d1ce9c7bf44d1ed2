//! One step: forward, backward, reduce over ranks, clip, update.

use anyhow::{Context, bail};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};

use crate::data::Batch;
use crate::dist::Group;
use crate::exit::{Exit, Failure};
use crate::models::{
    Forward, LayerKind, NamedTensor, Pixels, SegDataPreProcessor, Segmentor, SegmentorConfig, TensorKind, named_tensors,
};
use crate::ops;
use crate::optim::{Accumulation, Layer, OptimWrapperConfig, Optimizer, Parameter, accumulate};

/// The model in training, and what changes it.
pub struct Learner {
    pub segmentor: Segmentor,
    pub optimizer: Optimizer,
    pub preprocessor: SegDataPreProcessor,
    pub device: Device,
    pub group: Group,
    /// Seeds dropout; every rank has its own.
    pub seed: u64,
    /// Over how many batches gradients are summed before an update.
    pub accumulation: Accumulation,
    /// The sums so far.
    pub pending: Vec<Option<tch::Tensor>>,
}

impl Learner {
    /// The model on `device` (an autodiff device) with weights drawn from `seed`, and its optimizer. Weights that are read
    /// later go into the same storage.
    pub fn new(
        model: &SegmentorConfig,
        optim_wrapper: &OptimWrapperConfig,
        device: &Device,
        group: &Group,
        seed: u64,
        max_iterations: u64,
    ) -> anyhow::Result<Self> {
        let segmentor = model.init(device, seed)?;
        let optimizer = Optimizer::new(optim_wrapper, parameters(&named_tensors(&segmentor)))?;
        Ok(Self {
            segmentor,
            optimizer,
            preprocessor: model.preprocessor()?,
            device: device.clone(),
            group: group.clone(),
            seed: dropout_seed(seed, group),
            accumulation: Accumulation::new(optim_wrapper.accumulative_counts(), max_iterations as usize),
            pending: Vec::new(),
        })
    }

    /// Trains on one batch; `iteration` counts the steps before it. Returns the losses by name, `loss` first.
    pub fn step(&mut self, batch: &Batch, iteration: u64, rates: &[f64]) -> anyhow::Result<Vec<(String, f64)>> {
        let images: Vec<_> = batch.samples.iter().map(|it| pixels(it.image.height, it.image.width, &it.image.data)).collect();
        let mut labels = Vec::with_capacity(images.len());
        for sample in &batch.samples {
            let Some(label) = &sample.label else {
                bail!(Failure::new(Exit::Config, "the train pipeline loads no labels: it needs LoadAnnotations"));
            };
            labels.push(pixels(label.height, label.width, &label.data));
        }
        let (images, labels) = self.preprocessor.training(&images, &labels, &self.device)?;

        let seed = splitmix(self.seed ^ splitmix(iteration));
        let group = (self.group.world() > 1).then_some(&self.group);
        let losses = self.segmentor.loss(images, &labels, &Forward { training: true, group, seed });
        let mut names = vec!["loss".to_owned()];
        let mut values = vec![ops::to_tch(&losses.total)];
        for (name, value) in &losses.items {
            names.push(name.clone());
            values.push(ops::to_tch(value));
        }
        // One copy to the host for all of them.
        let values = tch::Tensor::stack(&values.iter().map(|it| it.reshape([])).collect::<Vec<_>>(), 0);

        let divisor = self.accumulation.divisor(iteration as usize);
        let total = if divisor > 1 { losses.total / divisor as f64 } else { losses.total };
        let grads = gradients(&self.segmentor, total.backward());
        let losses: Vec<(String, f64)> =
            names.into_iter().zip(Vec::<f64>::try_from(values.to_kind(tch::Kind::Double))?).collect();
        refuse_infinite(&losses, iteration, batch)?;
        accumulate(&mut self.pending, grads)?;
        if self.accumulation.steps(iteration as usize) {
            let grads = std::mem::take(&mut self.pending);
            self.optimizer.step(&grads, rates, None).context("the optimizer's step failed")?;
        }
        Ok(losses)
    }
}

/// The run's seed as this rank's dropout uses it.
pub(super) fn dropout_seed(seed: u64, group: &Group) -> u64 {
    splitmix(seed.wrapping_add(group.rank() as u64))
}

fn parameters(tensors: &[NamedTensor]) -> Vec<Parameter> {
    let trained = tensors.iter().filter(|it| it.kind == TensorKind::Parameter && it.requires_grad);
    trained
        .map(|it| Parameter {
            name: it.name.clone(),
            tensor: it.tensor.shallow_clone(),
            layer: match it.layer {
                LayerKind::Conv2d => Layer::Other,
                LayerKind::BatchNorm => Layer::Norm,
            },
        })
        .collect()
}

fn pixels(height: usize, width: usize, data: &[u8]) -> Pixels<'_> {
    Pixels { height, width, data }
}

/// A loss that is not finite ends the run: weights that it has reached are lost.
fn refuse_infinite(losses: &[(String, f64)], iteration: u64, batch: &Batch) -> anyhow::Result<()> {
    if losses.iter().filter(|(name, _)| name.contains("loss")).all(|(_, value)| value.is_finite()) {
        return Ok(());
    }
    let values: Vec<_> = losses.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let files: Vec<_> = batch.samples.iter().map(|it| it.meta.img_path.display().to_string()).collect();
    bail!(Failure::new(
        Exit::Data,
        format!(
            "the loss is not finite at iteration {}: {}; the batch was {}; lower the learning rate, clip gradients \
             (optim_wrapper.clip_grad), or look at these files",
            iteration + 1,
            values.join(", "),
            files.join(", ")
        )
    ))
}

/// The gradient of every parameter that training changes, in the order of `named_tensors`; `None` where none arrived.
fn gradients(module: &impl Module, grads: Gradients) -> Vec<Option<tch::Tensor>> {
    struct Collector {
        grads: Gradients,
        found: Vec<Option<tch::Tensor>>,
    }
    impl ModuleVisitor for Collector {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let value = param.val();
            if value.is_require_grad() {
                self.found.push(ops::gradient(&value, &mut self.grads));
            }
        }
    }
    let mut collector = Collector { grads, found: Vec::new() };
    module.visit(&mut collector);
    collector.found
}

/// A seed from a place, as well mixed as a drawn one.
fn splitmix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
