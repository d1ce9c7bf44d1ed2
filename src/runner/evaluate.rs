//! A pass over a dataset: every image once, predicted, compared, painted. Files are written and
//! pixels counted on a second thread, so that the model does not wait for them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Device, Tensor};
use crossbeam_channel::bounded;
use indicatif::ProgressBar;

use super::interrupt::Interrupt;
use super::journal::{Timing, duration};
use super::mishap;
use super::outputs::Outputs;
use super::survey::Survey;
use crate::data::dataset::Source;
use crate::data::transform::unlabelled;
use crate::data::{Batch, DataloaderConfig, Dataset, Loader, LoaderOptions, Sample};
use crate::dist::{Answer, Group};
use crate::exit::{Exit, Failure};
use crate::experiment::Experiment;
use crate::metrics::{Counts, IoUMetricConfig, Metrics};
use crate::models::{Forward, Geometry, Pixels, SegDataPreProcessor, Segmentation, Segmentor};
use crate::rundir::{writable, write_atomically};
use crate::visualization;

/// What a pass leaves on disk besides metrics.
#[derive(Debug, Clone, Default)]
pub(super) struct Leaves {
    /// Label maps as PNG.
    pub out_dir: Option<PathBuf>,
    /// Overlays, the labels' beside the prediction's.
    pub show_dir: Option<PathBuf>,
    /// Paint one image in so many.
    pub interval: usize,
    /// The weight of the colours.
    pub alpha: f64,
}

/// A pass's place in a run, and what watches it.
#[derive(Default)]
pub(super) struct Watch {
    pub bar: Option<ProgressBar>,
    /// Batches between two log lines, and how they begin.
    pub log: Option<(u64, String)>,
    /// The iteration of the training, for the names of painted pictures.
    pub iteration: Option<u64>,
}

/// The dataset of a validation or a test, and how its images are compared.
pub(super) struct Evaluation {
    pub dataset: Arc<Dataset>,
    pub loader: DataloaderConfig,
    pub metrics: Vec<IoUMetricConfig>,
    pub leaves: Leaves,
    /// Whether predictions are compared with labels.
    pub measured: bool,
    outputs: Outputs,
}

/// Which of a config's passes this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Val,
    Test,
}

/// Metrics of a whole pass, and how long an image took.
pub(super) struct Evaluated {
    pub metrics: Option<Metrics>,
    pub images: usize,
    pub timing: Timing,
}

/// A prediction on its way to the second thread.
struct Predicted {
    sample: Sample,
    labels: Segmentation,
}

impl Evaluation {
    /// Lists the files. Whatever would make the pass worthless or harmful is an error here, before
    /// it begins.
    pub(super) fn new(
        pass: Pass,
        mut loader: DataloaderConfig,
        metrics: Vec<IoUMetricConfig>,
        mut leaves: Leaves,
        experiment: &Experiment,
        survey: &mut Survey<'_>,
    ) -> Result<Self, Failure> {
        let name = if pass == Pass::Test { "test" } else { "val" };
        let key = format!("{name}_dataloader.dataset");
        let asked = if leaves.out_dir.is_some() {
            "--out".to_owned()
        } else {
            format!("{name}_evaluator.output_dir")
        };
        leaves.out_dir =
            leaves.out_dir.or_else(|| metrics.iter().find_map(|it| it.output_dir.clone()));
        let format_only = metrics.iter().all(|it| it.format_only);

        let unlabelled_for = loader.dataset.sources(&key).iter().find_map(Source::unlabelled);
        let leaves_files = leaves.out_dir.is_some() || leaves.show_dir.is_some();
        if let Some(why) = unlabelled_for
            && !format_only
            && !leaves_files
        {
            let message = format!(
                "{key} has no labels to measure by: {why}; for a set without labels give --out DIR \
                 or --show-dir DIR, which need none"
            );
            return Err(Failure::new(Exit::Config, message));
        }
        let measured = unlabelled_for.is_none() && !format_only;
        if !measured {
            loader
                .dataset
                .pipelines()
                .into_iter()
                .for_each(|pipeline| *pipeline = unlabelled(pipeline));
        }
        let model = &experiment.model;
        let dataset = loader.dataset.init()?.for_model(model.num_classes(), model.ignore_index());
        let mut outputs = Outputs::default();
        if leaves_files {
            outputs = Outputs::of(&dataset)?;
        }
        for (asked, folder) in [(asked.as_str(), &leaves.out_dir), ("--show-dir", &leaves.show_dir)]
        {
            if let Some(folder) = folder {
                outputs.spare(asked, folder, &dataset, experiment)?;
                writable(
                    folder,
                    &format!("the folder of {asked}"),
                    "choose another folder or change its permissions",
                )?;
            }
        }
        let whole = |folder: &Option<PathBuf>| {
            folder.as_ref().and_then(|it| std::fs::canonicalize(it).ok())
        };
        if let (Some(one), Some(two)) = (whole(&leaves.out_dir), whole(&leaves.show_dir))
            && one == two
        {
            let message = format!(
                "{asked} and --show-dir are one folder, {}: label maps and painted pictures of one \
                 name would overwrite each other; name two",
                one.display()
            );
            return Err(Failure::new(Exit::CannotWrite, message));
        }
        survey.look(&key, &dataset)?;
        Ok(Self { dataset: Arc::new(dataset), loader, metrics, leaves, measured, outputs })
    }

    /// Holds the classes that a checkpoint was trained for against those of the dataset: the same
    /// names in another order make every row of the table a lie, which is an error; other names may
    /// be new names of the same classes, which is a warning.
    pub(super) fn refuse_other_classes(
        &self,
        trained: &[String],
        path: &Path,
    ) -> Result<(), Failure> {
        let here = &self.dataset.metainfo().classes;
        match meet(trained, here) {
            Meeting::Alike => Ok(()),
            Meeting::OtherOrder(at) => Err(Failure::new(
                Exit::Data,
                format!(
                    "{} was trained for the same classes in another order: class {at} is `{}` \
                     there and `{}` in metainfo.classes here; give the order of its training",
                    path.display(),
                    trained[at],
                    here[at]
                ),
            )),
            Meeting::OtherNames(at) => {
                tracing::warn!(
                    "{} was trained for other classes than metainfo.classes names: class {at} is \
                     `{}` there and `{}` here; the table bears the names here",
                    path.display(),
                    trained[at],
                    here[at]
                );
                Ok(())
            }
        }
    }

    /// Runs the pass on this rank's share; the metrics are of all ranks' images. `None` when
    /// somebody asked to stop.
    pub(super) fn run(
        &self,
        segmentor: &Segmentor,
        preprocessor: &SegDataPreProcessor,
        device: &Device,
        group: &Group,
        interrupt: &Interrupt,
        watch: Watch,
    ) -> Result<Option<Evaluated>, Failure> {
        use burn::module::Module as _;
        let model = segmentor.valid();
        let device = device.clone();
        let options =
            LoaderOptions { rank: group.rank(), world: group.world(), ..LoaderOptions::default() };
        let loader = Loader::new(Arc::clone(&self.dataset), &self.loader, &options)?;

        let Watch { bar, log, iteration } = watch;
        let batches = self.dataset.len().div_ceil(group.world()).div_ceil(self.loader.batch_size);
        let mut pace = log.map(|(interval, place)| Pace::new(interval, place, batches));
        let started = Instant::now();
        let mut waited = 0.0;
        let mut stopped = false;
        let mut images = 0_usize;
        let counts = std::thread::scope(|scope| -> Result<Counts, Failure> {
            let (sender, receiver) = bounded::<Predicted>(4);
            let scribe = scope.spawn(move || -> Result<Counts, Failure> {
                let mut counts = Counts::new(self.dataset.metainfo().classes.len());
                for (index, predicted) in receiver.into_iter().enumerate() {
                    self.take_in(&predicted, index, iteration, &mut counts)?;
                }
                Ok(counts)
            });
            // All ranks have at least so many batches. With each they ask each other whether to
            // stop, and hear it with the next.
            let common = self.dataset.len() / group.world() / self.loader.batch_size;
            let mut answer: Option<Answer> = None;
            let mut asked = Instant::now();
            for (number, batch) in loader.enumerate() {
                let batch = batch?;
                waited += asked.elapsed().as_secs_f64();
                images += batch.samples.len();
                #[expect(clippy::result_large_err, reason = "what could not be sent comes back")]
                let sent = predict(&model, preprocessor, &device, batch)?
                    .into_iter()
                    .try_for_each(|it| sender.send(it));
                if sent.is_err() {
                    // The second thread ended early; its error comes out of the join below.
                    break;
                }
                if let Some(bar) = &bar {
                    bar.set_position((images * group.world()) as u64);
                }
                if let Some(pace) = &mut pace {
                    pace.tell(number + 1, started.elapsed().as_secs_f64(), waited);
                }
                if let Some(answer) = answer.take()
                    && answer.wait()?
                {
                    stopped = true;
                    break;
                }
                if number < common {
                    answer = Some(interrupt.agree(group)?);
                }
                asked = Instant::now();
            }
            drop(sender);
            scribe.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        if group.any(stopped)? {
            return Ok(None);
        }
        let counts = summed(&counts, group)?;
        let timing = Timing {
            time: started.elapsed().as_secs_f64() / images.max(1) as f64,
            data_time: waited / images.max(1) as f64,
        };
        let metrics = if self.measured { self.measure(&counts) } else { None };
        Ok(Some(Evaluated { metrics, images: self.dataset.len(), timing }))
    }

    /// What the evaluators make of counts.
    pub(super) fn measure(&self, counts: &Counts) -> Option<Metrics> {
        let classes = &self.dataset.metainfo().classes;
        Metrics::join(
            self.metrics
                .iter()
                .filter(|it| !it.format_only)
                .map(|it| counts.metrics(it, classes))
                .collect(),
        )
    }

    fn take_in(
        &self,
        Predicted { sample, labels }: &Predicted,
        index: usize,
        iteration: Option<u64>,
        counts: &mut Counts,
    ) -> Result<(), Failure> {
        let meta = &sample.meta;
        if meta.padding {
            return Ok(());
        }
        if self.measured {
            let Some(truth) = &sample.label else {
                return Err(Failure::new(
                    Exit::Config,
                    "the test pipeline loads no labels: it needs LoadAnnotations",
                ));
            };
            if (truth.height, truth.width) != (labels.height, labels.width) {
                return Err(Failure::new(
                    Exit::Data,
                    format!(
                        "{}: its label map is {}x{} where the prediction is {}x{} (height x \
                         width): load annotations after resizing",
                        meta.img_path.display(),
                        truth.height,
                        truth.width,
                        labels.height,
                        labels.width
                    ),
                ));
            }
            counts.add(&labels.data, &truth.data, self.dataset.ignore_index());
        }
        if let Some(folder) = &self.leaves.out_dir {
            // A dataset whose label 0 means "none" counts its classes from 1 in files, as mmseg
            // writes them.
            let shifted: Vec<u8> = if self.dataset.reduce_zero_label() {
                labels.data.iter().map(|it| it.wrapping_add(1)).collect()
            } else {
                labels.data.clone()
            };
            write_png(
                folder,
                self.outputs.name(meta.sample_idx),
                &shifted,
                [labels.width, labels.height],
                1,
            )?;
        }
        if let Some(folder) = &self.leaves.show_dir
            && index.is_multiple_of(self.leaves.interval.max(1))
        {
            self.paint(folder, sample, labels, iteration)?;
        }
        Ok(())
    }

    /// The labels' overlay on the left, where there are labels, and the prediction's on the right.
    fn paint(
        &self,
        folder: &Path,
        sample: &Sample,
        labels: &Segmentation,
        iteration: Option<u64>,
    ) -> Result<(), Failure> {
        let image = crate::data::read_image(&sample.meta.img_path)?;
        let palette = &self.dataset.metainfo().palette;
        let mut picture =
            visualization::overlay(&image.data, &labels.data, palette, self.leaves.alpha);
        let mut width = image.width;
        if let Some(truth) = sample.label.as_ref().filter(|it| it.data.len() == labels.data.len()) {
            let left = visualization::overlay(&image.data, &truth.data, palette, self.leaves.alpha);
            picture = visualization::beside(&left, &picture, width);
            width *= 2;
        }
        let name = self.outputs.name(sample.meta.sample_idx);
        let name = match iteration {
            // Pictures of a later validation stand beside those of an earlier one, in order.
            Some(iteration) => {
                let stem = name.file_stem().unwrap_or_default().to_string_lossy();
                &name.with_file_name(format!("{stem}_{iteration}.png"))
            }
            None => name,
        };
        write_png(folder, name, &picture, [width, image.height], 3)
    }
}

/// Log lines of a pass, as mmengine writes them: for files, where no bar is seen.
struct Pace {
    interval: usize,
    place: String,
    batches: usize,
}

impl Pace {
    fn new(interval: u64, place: String, batches: usize) -> Self {
        Self { interval: usize::try_from(interval).unwrap_or(usize::MAX), place, batches }
    }

    /// `done` batches took `time` seconds, `waited` of which for data. The last line is the
    /// result's.
    fn tell(&mut self, done: usize, time: f64, waited: f64) {
        if !done.is_multiple_of(self.interval) || done >= self.batches {
            return;
        }
        let (time, data_time) = (time / done as f64, waited / done as f64);
        let eta = duration(Duration::from_secs_f64(time * (self.batches - done) as f64));
        let width = self.batches.to_string().len();
        let (place, batches) = (&self.place, self.batches);
        tracing::info!(
            "{place}[{done:>width$}/{batches}]    eta: {eta}  time: {time:.4}  data_time: \
             {data_time:.4}"
        );
    }
}

/// How two lists of class names meet, with the first class that differs.
#[derive(Debug, PartialEq, Eq)]
enum Meeting {
    Alike,
    OtherOrder(usize),
    OtherNames(usize),
}

/// Lists of which one is not known, or of other lengths (which the shapes of the weights tell), say
/// nothing.
fn meet(trained: &[String], here: &[String]) -> Meeting {
    let Some(at) = trained
        .iter()
        .zip(here)
        .position(|(one, two)| one != two)
        .filter(|_| trained.len() == here.len())
    else {
        return Meeting::Alike;
    };
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort();
        list
    };
    if sorted(trained) == sorted(here) { Meeting::OtherOrder(at) } else { Meeting::OtherNames(at) }
}

fn make(folder: &Path) -> Result<(), Failure> {
    let refuse = |error| {
        Failure::new(
            Exit::CannotWrite,
            format!("cannot make the folder {}: {error}", folder.display()),
        )
    };
    std::fs::create_dir_all(folder).map_err(refuse)
}

fn write_png(
    folder: &Path,
    name: &Path,
    pixels: &[u8],
    [width, height]: [usize; 2],
    colours: usize,
) -> Result<(), Failure> {
    let path = folder.join(name);
    if name.components().count() > 1 {
        path.parent().map_or(Ok(()), make)?;
    }
    let bytes = visualization::png(pixels, width, height, colours).map_err(|error| {
        Failure::new(Exit::CannotWrite, format!("cannot encode {}: {error}", path.display()))
    })?;
    write_atomically(&path, &bytes).map_err(|error| {
        Failure::new(Exit::CannotWrite, format!("cannot write {}: {error}", path.display()))
    })?;
    Ok(())
}

/// Label maps of a batch. Samples that share an entry of the dataset (test-time augmentation) give
/// one label map: the class with the highest mean probability, as mmseg's SegTTAModel decides.
fn predict(
    model: &Segmentor,
    preprocessor: &SegDataPreProcessor,
    device: &Device,
    batch: Batch,
) -> Result<Vec<Predicted>, Failure> {
    let mut predicted = Vec::new();
    let augmented =
        batch.samples.windows(2).any(|pair| pair[0].meta.sample_idx == pair[1].meta.sample_idx);
    if augmented {
        let mut views: Vec<Vec<Sample>> = Vec::new();
        for sample in batch.samples {
            match views.last_mut().filter(|it| it[0].meta.sample_idx == sample.meta.sample_idx) {
                Some(view) => view.push(sample),
                None => views.push(vec![sample]),
            }
        }
        let binary = model.out_channels() == 1;
        for view in views {
            let mut sum: Option<Tensor<4>> = None;
            for sample in &view {
                let samples = std::slice::from_ref(sample);
                sum = Some(mishap::of_batch(samples, mishap::TESTING, || {
                    let (images, geometry) = prepared(preprocessor, device, samples)?;
                    let logits = model.seg_logits(images, &geometry, &Forward::default()).remove(0);
                    let probability = if binary { sigmoid(logits) } else { softmax(logits, 1) }
                        / view.len() as f64;
                    Ok(match sum.take() {
                        Some(sum) => sum + probability,
                        None => probability,
                    })
                })?);
            }
            let lacks_view = || Failure::fault("an entry without a view");
            let sample = view.into_iter().next().ok_or_else(lacks_view)?;
            let mean = sum.ok_or_else(lacks_view)?;
            // One channel is classified by its logit; of several the largest wins, whatever their
            // scale.
            let mean = if binary { (mean.clone() / (-mean + 1.0)).log() } else { mean };
            let labels = model.classify(&mean);
            predicted.push(Predicted { sample, labels });
        }
        return Ok(predicted);
    }
    let labels = mishap::of_batch(&batch.samples, mishap::TESTING, || {
        let (images, geometry) = prepared(preprocessor, device, &batch.samples)?;
        Ok(model.label_maps(images, &geometry, &Forward::default()))
    })?;
    Ok(batch
        .samples
        .into_iter()
        .zip(labels)
        .map(|(sample, labels)| Predicted { sample, labels })
        .collect())
}

fn prepared(
    preprocessor: &SegDataPreProcessor,
    device: &Device,
    samples: &[Sample],
) -> Result<(Tensor<4>, Vec<Geometry>), Failure> {
    let pixels: Vec<_> = samples
        .iter()
        .map(|it| Pixels { height: it.image.height, width: it.image.width, data: &it.image.data })
        .collect();
    let images = preprocessor.testing(&pixels, device)?.without_autodiff();
    Ok((images, samples.iter().map(geometry).collect()))
}

fn geometry(sample: &Sample) -> Geometry {
    let meta = &sample.meta;
    let flip = meta.flip_direction.filter(|_| meta.flip);
    Geometry { img_shape: meta.img_shape.into(), ori_shape: meta.ori_shape.into(), flip }
}

/// Counts of all ranks together.
fn summed(counts: &Counts, group: &Group) -> Result<Counts, Failure> {
    let list: Vec<f64> = counts.to_list().iter().map(|&it| it as f64).collect();
    let sums = group.sums(&list)?;
    Ok(Counts::from_list(&sums.iter().map(|&it| it as i64).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_in_another_order_are_told_from_classes_of_other_names() {
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(meet(&list("a b c"), &list("a b c")), Meeting::Alike);
        assert_eq!(meet(&list("a b c"), &list("a c b")), Meeting::OtherOrder(1));
        assert_eq!(meet(&list("a b c"), &list("a b d")), Meeting::OtherNames(2));
        assert_eq!(meet(&[], &list("a")), Meeting::Alike);
    }
}
