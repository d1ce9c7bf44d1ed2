//! One step: forward, backward, reduce over ranks, clip, update.
//!
//! With several ranks the gradients that reach the optimizer are averages, the same bits on every
//! rank: what clipping and mixed precision's overflow check decide from them, all ranks decide
//! alike.

use burn::tensor::{Device, Tensor};

use super::mishap;
use crate::data::{Batch, LabelMap, Sample};
use crate::ddp::{self, Ddp, WrapperConfig};
use crate::dist::Group;
use crate::exit::{Exit, Failure, Within};
use crate::models::{Forward, Pixels, SegDataPreProcessor, Segmentor, SegmentorConfig};
use crate::ops::{self, Autocast, CopyStream, GradScaler, Handle, MemoryFormat};
use crate::optim::{Accumulation, AmpDtype, OptimWrapperConfig, Optimizer, accumulate};
use crate::weights::{PerWeight, Weights};

/// The model in training, and what changes it.
pub struct Learner {
    pub segmentor: Segmentor,
    /// The model's tensors, which everybody but the forward pass speaks of.
    pub weights: Weights,
    pub optimizer: Optimizer,
    pub preprocessor: SegDataPreProcessor,
    pub device: Device,
    /// Brings losses back beside the device's computations. (Batches go up on the preprocessor's.)
    pub copies: CopyStream,
    pub group: Group,
    /// Averages gradients over the ranks; `None` for one rank.
    pub ddp: Option<Ddp>,
    /// Seeds dropout; every rank has its own.
    pub seed: u64,
    /// Over how many batches gradients are summed before an update.
    pub accumulation: Accumulation,
    /// What activations are computed in, where not in full precision. Weights, statistics and
    /// losses always are.
    pub half: Option<AmpDtype>,
    /// Keeps small gradients of half precision from vanishing, and skips steps that overflowed.
    pub scaler: Option<GradScaler>,
    /// The sums so far, for one rank: with several they wait in `ddp`.
    pub pending: PerWeight<Handle>,
}

impl Learner {
    /// The model on `device` (an autodiff device) with weights drawn from `seed`, and its
    /// optimizer. Weights that are read later go into the same storage. Convolution weights and
    /// images lie in memory as `format` says.
    pub fn new(
        model: &SegmentorConfig,
        optim_wrapper: &OptimWrapperConfig,
        device: &Device,
        group: &Group,
        seed: u64,
        max_iterations: u64,
        format: MemoryFormat,
    ) -> Result<Self, Failure> {
        let segmentor = format.arrange(model.init(device, seed)?);
        let weights = segmentor.weights();
        let on_gpu = ops::gpu_index(device).is_some();
        let amp = optim_wrapper.amp();
        let half = amp.as_ref().map(|it| it.dtype(on_gpu));
        if half == Some(AmpDtype::Float16) && !on_gpu {
            let message = "optim_wrapper.dtype is float16, which needs CUDA; on the CPU leave it \
                           out or write bfloat16";
            return Err(Failure::new(Exit::Config, message));
        }
        let optimizer = Optimizer::new(optim_wrapper, &weights)?;
        if !on_gpu {
            ops::keep_freed_pages();
        }
        let mut preprocessor = model.preprocessor()?;
        preprocessor.set_memory_format(format);
        let pending = PerWeight::new(&weights);
        Ok(Self {
            segmentor,
            weights,
            optimizer,
            preprocessor,
            device: device.clone(),
            copies: CopyStream::new(ops::place(device))?,
            group: group.clone(),
            ddp: None,
            seed: dropout_seed(seed, group),
            accumulation: Accumulation::new(
                optim_wrapper.accumulative_counts(),
                max_iterations as usize,
            ),
            half,
            scaler: amp.and_then(|it| it.scaler(device)),
            pending,
        })
    }

    /// Makes one model of all ranks': they are checked to be the same, then filled with rank 0's
    /// weights, and from then on gradients are averaged. All ranks come here together, once their
    /// weights are loaded; one rank alone has nothing to do.
    pub fn join_ranks(&mut self, wrapper: &WrapperConfig) -> Result<(), Failure> {
        if self.group.world() == 1 {
            return Ok(());
        }
        self.group.agree(&[("the model's tensors", ddp::describe(&self.weights))])?;
        ddp::broadcast(&self.group, &self.weights)?;
        self.ddp = Some(Ddp::new(&self.group, &self.weights, wrapper.options())?);
        Ok(())
    }

    /// Trains on one batch; `iteration` counts the steps before it. Returns the losses by name,
    /// `loss` first, as means over the ranks.
    pub fn step(
        &mut self,
        batch: &Batch,
        iteration: u64,
        rates: &[f64],
    ) -> Result<Vec<(String, f64)>, Failure> {
        mishap::of_batch(&batch.samples, mishap::TRAINING, || self.learn(batch, iteration, rates))
    }

    fn learn(
        &mut self,
        batch: &Batch,
        iteration: u64,
        rates: &[f64],
    ) -> Result<Vec<(String, f64)>, Failure> {
        let images: Vec<_> = batch
            .samples
            .iter()
            .map(|it| pixels(it.image.height, it.image.width, &it.image.data))
            .collect();
        let mut labels = Vec::with_capacity(images.len());
        for sample in &batch.samples {
            let Some(label) = &sample.label else {
                return Err(Failure::new(
                    Exit::Config,
                    "the train pipeline loads no labels: it needs LoadAnnotations",
                ));
            };
            self.refuse_unknown(sample, label)?;
            labels.push(pixels(label.height, label.width, &label.data));
        }
        let (images, labels) = self.preprocessor.training(&images, &labels, &self.device)?;
        let half = self.half.map(AmpDtype::half);
        let images = ops::in_half(images, half, &self.device);
        let _precision = Autocast::new(half);

        let seed = splitmix(self.seed ^ splitmix(iteration));
        let group = (self.group.world() > 1).then_some(&self.group);
        let losses = self.segmentor.loss(images, &labels, &Forward::training(seed, group));
        let mut names = vec![("loss".to_owned(), true)];
        let mut values = vec![ops::to_tch(&losses.total)];
        for it in &losses.items {
            names.push((it.name.clone(), it.trained));
            values.push(ops::to_tch(&it.value));
        }
        // One exchange between ranks and one copy to the host for all of them, while the backward
        // pass goes on. The copy waits for the forward pass alone, so the device still has the
        // backward to compute when the host knows the losses.
        let values = ops::gather_numbers(&self.group, &values)?.read_back(&self.copies)?;

        let divisor = self.accumulation.divisor(iteration as usize);
        let total = if divisor > 1 { losses.total / divisor as f64 } else { losses.total };
        let total = match &self.scaler {
            Some(scaler) => total * scaler.scale(&self.device),
            None => total,
        };
        let grads = self.backward(&total, self.accumulation.steps(iteration as usize))?;
        let values = ops::numbers(values.wait()?)?;
        self.refuse_infinite(&names, &values, iteration, batch)?;
        if let Some(grads) = grads {
            self.optimizer
                .step(&grads, rates, self.scaler.as_mut())
                .within("the optimizer's step failed")?;
        }
        let mean =
            |place: usize| values.iter().map(|it| it[place]).sum::<f64>() / values.len() as f64;
        Ok(names.into_iter().enumerate().map(|(place, (name, _))| (name, mean(place))).collect())
    }

    /// The backward pass; with `last` the gradients for the update that follows. Between updates
    /// nothing is sent.
    fn backward(
        &mut self,
        total: &Tensor<1>,
        last: bool,
    ) -> Result<Option<PerWeight<Handle>>, Failure> {
        if let Some(ddp) = &self.ddp {
            ddp.backward(total, last)?;
            return Ok(if last { Some(ddp.finish()?) } else { None });
        }
        accumulate(&mut self.pending, self.weights.gradients(total.backward()))?;
        Ok(last.then(|| std::mem::replace(&mut self.pending, PerWeight::new(&self.weights))))
    }

    /// A label that a head has no class for. The loader has checked what it read, by the dataset's
    /// rules; this is about what came after (padding) and what the heads think of it. On a GPU such
    /// a label would end in an assertion of a kernel's, after which nothing works any more and
    /// nobody knows which file it was.
    fn refuse_unknown(&self, sample: &Sample, label: &LabelMap) -> Result<(), Failure> {
        for (classes, ignored) in self.segmentor.labels() {
            // What is no byte is no label's value; nor is one of a class, 0, ignored then.
            // Of 256 classes every byte is one.
            let Ok(limit) = u8::try_from(classes) else { continue };
            // A class is never left out: an ignore_index that is no byte leaves out nothing.
            let left_out = u8::try_from(ignored).unwrap_or(0);
            let unknown = |&value: &u8| value >= limit && value != left_out;
            if label.data.iter().fold(false, |found, value| found | unknown(value)) {
                let at = label.data.iter().position(unknown).unwrap_or_default();
                let file = sample.meta.seg_map_path.as_deref().unwrap_or(&sample.meta.img_path);
                return Err(Failure::new(
                    Exit::Data,
                    format!(
                        "label map {} has label {} at row {}, column {} as it left the train \
                         pipeline: expected 0 to {} ({classes} classes) or the heads' ignore_index \
                         {ignored}; do the dataset's and the heads' ignore_index and Pad's pad_val \
                         agree?",
                        file.display(),
                        label.data[at],
                        at / label.width,
                        at % label.width,
                        classes.saturating_sub(1),
                    ),
                ));
            }
        }
        Ok(())
    }

    /// A loss that is not finite, on any rank, ends the run on all of them: weights that it has
    /// reached are lost.
    fn refuse_infinite(
        &self,
        names: &[(String, bool)],
        values: &[Vec<f64>],
        iteration: u64,
        batch: &Batch,
    ) -> Result<(), Failure> {
        let finite = |values: &[f64]| {
            names.iter().zip(values).all(|((_, trained), it)| !trained || it.is_finite())
        };
        let bad: Vec<usize> = (0..values.len()).filter(|&rank| !finite(&values[rank])).collect();
        if bad.is_empty() {
            return Ok(());
        }
        let files: Vec<_> =
            batch.samples.iter().map(|it| it.meta.img_path.display().to_string()).collect();
        let files = self.group.all_gather_text(&files.join(", "))?;
        let told = bad.iter().map(|&rank| {
            let losses: Vec<_> = names
                .iter()
                .zip(&values[rank])
                .map(|((name, _), value)| format!("{name} {value}"))
                .collect();
            let who = if values.len() > 1 {
                format!("on {}: ", self.group.name(rank))
            } else {
                String::new()
            };
            format!("{who}{}; the batch was {}", losses.join(", "), files[rank])
        });
        Err(Failure::new(
            Exit::Data,
            format!(
                "the loss is not finite at iteration {}: {}; lower the learning rate, clip \
                 gradients (optim_wrapper.clip_grad), or look at these files",
                iteration + 1,
                told.collect::<Vec<_>>().join("; "),
            ),
        ))
    }
}

/// The run's seed as this rank's dropout uses it.
pub(super) fn dropout_seed(seed: u64, group: &Group) -> u64 {
    splitmix(seed.wrapping_add(group.rank() as u64))
}

fn pixels(height: usize, width: usize, data: &[u8]) -> Pixels<'_> {
    Pixels { height, width, data }
}

/// A seed from a place, as well mixed as a drawn one.
fn splitmix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
