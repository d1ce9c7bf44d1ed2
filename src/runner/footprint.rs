//! How much memory a training step will take, found before it is queued: by real steps on small
//! images.
//!
//! Tensors are counted on the CPU. A step makes the same tensors in the same order whatever its
//! images' size, so three small steps give for each moment how what is held then grows with the
//! pixels; the peak of the whole step is the largest of all moments carried on to its size. (The
//! peaks alone would not do: that of a small step is in the backward pass's last layers, that of a
//! large one in its first.) A GPU takes some more: CUDA's context, cuDNN's workspaces, and what its
//! allocator keeps.

use std::fmt;

use burn::tensor::Device;

use super::learner::Learner;
use crate::data::{Batch, Image, LabelMap, Meta, Sample};
use crate::dist::Group;
use crate::exit::{Exit, Failure};
use crate::experiment::Experiment;
use crate::models::SegDataPreProcessorConfig;
use crate::ops::{CountedMemory, Handle, MemoryFormat};
use crate::weights::Weight;

/// The shorter side of the smallest image that steps are taken with, in units: below, libtorch
/// computes some layers in other ways.
const FROM: usize = 5;

/// Sides are multiples of this, so that every model's features grow in step.
const UNIT: usize = 32;

/// How many steps of different sizes give the trend.
const STEPS: usize = 3;

/// Images of the small steps: batch normalisation has no statistics of one value, which one image
/// may leave.
const IMAGES: usize = 2;

/// A moment bends (attention's matrices grow with the square of the pixels) where its second
/// difference is more than this part of what is held; less is scratch space that libtorch rounds.
const BENT: f64 = 0.01;

const GIB: f64 = (1 << 30) as f64;

/// What CUDA's context, cuDNN's workspaces and the rounding of torch's allocator take on a GPU,
/// besides a twentieth of the rest.
const BESIDE: u64 = 1 << 30;

/// Bytes of a training step of one rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// Parameters and buffers.
    pub weights: u64,
    pub gradients: u64,
    pub optimizer: u64,
    /// What the pixels cost at the step's peak.
    pub activations: u64,
    /// Images of a step, and their height and width.
    pub batch: usize,
    pub size: [usize; 2],
}

impl Footprint {
    /// That of a step on `batch` images of `size` (height, width), of the model and optimizer of
    /// `experiment`.
    pub(crate) fn estimate(
        experiment: &Experiment,
        batch: usize,
        size: [usize; 2],
    ) -> Result<Self, Failure> {
        let mut steps = Steps::new(experiment)?;
        // The first step makes the optimizer's state.
        steps.course(IMAGES, [UNIT, UNIT])?;
        let largest = steps.trend(batch, size)?;
        let learner = &steps.learner;
        let bytes = |it: &Weight| it.tensor.size_in_bytes();
        let weights = learner.weights.iter().map(bytes).sum();
        let gradients = learner.weights.trained().map(|(_, it)| bytes(it)).sum();
        let state = learner.optimizer.state();
        let optimizer = state.values().map(Handle::size_in_bytes).sum();
        let activations = largest.saturating_sub(weights + gradients + optimizer);
        Ok(Self { weights, gradients, optimizer, activations, batch, size })
    }

    /// That of a step as `experiment` trains, or of one on images of another size.
    pub(crate) fn of(experiment: &Experiment, size: Option<[usize; 2]>) -> Result<Self, Failure> {
        let batch = experiment.train_dataloader.as_ref().map_or(1, |it| it.batch_size);
        Self::estimate(experiment, batch, size.unwrap_or_else(|| experiment.trained_size()))
    }

    /// What to say before it is run on a GPU with `memory` bytes, if it will hardly fit.
    pub(crate) fn misfit(&self, memory: u64) -> Option<String> {
        let needed = self.total() + self.total() / 20 + BESIDE;
        (needed > memory).then(|| {
            let gib = |bytes: u64| bytes as f64 / GIB;
            format!(
                "a training step takes about {:.1} GiB on each rank, {:.1} GiB with what CUDA \
                 itself needs, and a GPU here has {:.1} GiB: it will hardly fit; a smaller \
                 train_dataloader.batch_size, AmpOptimWrapper, or backbone.with_cp take less",
                gib(self.total()),
                gib(needed),
                gib(memory)
            )
        })
    }

    /// All of it.
    pub(crate) fn total(&self) -> u64 {
        self.weights + self.gradients + self.optimizer + self.activations
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { weights, gradients, optimizer, activations, batch, size: [height, width] } =
            self;
        let images = if *batch == 1 { "image" } else { "images" };
        writeln!(
            f,
            "a training step of one rank on {batch} {images} of {height}x{width} pixels takes \
             about:"
        )?;
        for (what, bytes) in [
            ("weights and buffers", *weights),
            ("gradients", *gradients),
            ("optimizer", *optimizer),
            ("activations", *activations),
            ("in all", self.total()),
        ] {
            writeln!(f, "{what:<20} {:>9.3} GiB", bytes as f64 / GIB)?;
        }
        Ok(())
    }
}

/// A model that takes steps on grey images, and how much memory they take.
struct Steps {
    learner: Learner,
    taken: u64,
    // Last, so that what the model took is counted off.
    memory: CountedMemory,
}

impl Steps {
    fn new(experiment: &Experiment) -> Result<Self, Failure> {
        let memory = CountedMemory::begin()?;
        let wrapper = experiment.optim_wrapper.clone().ok_or_else(|| {
            Failure::new(Exit::Config, "the config has no optim_wrapper, which a training needs")
        })?;
        let (device, group) = (Device::libtorch().autodiff(), Group::alone());
        let (wrapper, format) = (wrapper.for_cpu(), MemoryFormat::Contiguous);
        let learner =
            Learner::new(&experiment.model, &wrapper, &device, &group, 0, u64::MAX, format)?;
        // Images keep the size that they are made with.
        let preprocessor = SegDataPreProcessorConfig::default().init()?;
        Ok(Self { learner: Learner { preprocessor, ..learner }, taken: 0, memory })
    }

    /// The largest moment of a step on `batch` images of `size`: measured where that is small, else
    /// carried on from small ones.
    fn trend(&mut self, batch: usize, size: [usize; 2]) -> Result<u64, Failure> {
        let shorter = size[0].min(size[1]);
        let sides = |units: usize| {
            size.map(|it| ((it * units) as f64 / shorter as f64).round() as usize * UNIT)
        };
        let pixels = |[height, width]: [usize; 2]| height * width;
        let mut points: Vec<Point> = Vec::new();
        for units in FROM.. {
            if batch.max(IMAGES) * pixels(size) <= IMAGES * pixels(sides(units)) {
                return Ok(self
                    .course(batch.max(IMAGES), size)?
                    .into_iter()
                    .max()
                    .unwrap_or_default());
            }
            let course = self.course(IMAGES, sides(units))?;
            // Where another number of tensors was made, libtorch went another way: moments would
            // not be the same.
            points.retain(|it| it.course.len() == course.len());
            points.push(Point { pixels: pixels(sides(units)) as f64, course });
            if points.len() == STEPS {
                break;
            }
        }
        let moments = 0..points[0].course.len();
        let images = batch as f64 / IMAGES as f64;
        let whole = moments.map(|at| carried_on(&points, at, pixels(size) as f64, images));
        Ok(whole.fold(0.0, f64::max) as u64)
    }

    /// What is held after each allocation of a step on `count` images of a size, in bytes.
    fn course(&mut self, count: usize, [height, width]: [usize; 2]) -> Result<Vec<u64>, Failure> {
        let batch = Batch { samples: (0..count).map(|_| grey(height, width)).collect() };
        let rates = self.learner.optimizer.initial_rates();
        let (stepped, course) =
            self.memory.course_of(|| self.learner.step(&batch, self.taken, &rates))?;
        stepped?;
        self.taken += 1;
        Ok(course)
    }
}

/// A small step: the pixels of each of its images, and what was held at each moment.
struct Point {
    pixels: f64,
    course: Vec<u64>,
}

/// What is held at the moment `at` with images of `pixels` pixels, `images` times as many as in
/// `points`: the line through the outer points, or the parabola through all where the moment bends.
fn carried_on(points: &[Point], at: usize, pixels: f64, images: f64) -> f64 {
    let value = |it: &Point| (it.pixels, it.course[at] as f64);
    let ((x0, y0), (x1, y1), (x2, y2)) = (value(&points[0]), value(&points[1]), value(&points[2]));
    let (first, whole) = ((y1 - y0) / (x1 - x0), (y2 - y0) / (x2 - x0));
    let bend = (whole - first) / (x2 - x1);
    let bends = bend * (x2 - x0) * (x2 - x1) > BENT * y2;
    let at = |x: f64| {
        if bends {
            y0 + first * (x - x0) + bend * (x - x0) * (x - x1)
        } else {
            y0 + whole * (x - x0)
        }
    };
    // What does not grow with the pixels is held once, whatever the number of images.
    let fixed = at(0.0).max(0.0);
    fixed + (at(pixels) - fixed) * images
}

fn grey(height: usize, width: usize) -> Sample {
    let shape = (height, width);
    let meta = Meta {
        img_path: "a grey image".into(),
        seg_map_path: None,
        ori_shape: shape,
        img_shape: shape,
        pad_shape: shape,
        scale_factor: None,
        flip: false,
        flip_direction: None,
        reduce_zero_label: false,
        sample_idx: 0,
        padding: false,
    };
    let image = Image { height, width, data: vec![128; height * width * 3] };
    Sample { image, label: Some(LabelMap { height, width, data: vec![0; height * width] }), meta }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    /// The peak of a real step, the second: by then the optimizer has its state.
    fn measured(experiment: &Experiment, batch: usize, size: [usize; 2]) -> u64 {
        let mut steps = Steps::new(experiment).expect("a model");
        steps.course(IMAGES, [UNIT, UNIT]).expect("a step");
        steps.course(batch, size).expect("a step").into_iter().max().expect("it takes memory")
    }

    #[test]
    fn what_hardly_fits_is_told() {
        let (weights, gradients, optimizer, activations) = (1 << 30, 1 << 30, 1 << 30, 7 << 30);
        let footprint =
            Footprint { weights, gradients, optimizer, activations, batch: 2, size: [512, 512] };
        assert_eq!(footprint.misfit(12 << 30), None);
        let told = footprint.misfit(11 << 30).expect("11.5 GiB are needed");
        assert!(
            told.contains("about 10.0 GiB on each rank, 11.5 GiB with")
                && told.contains("has 11.0 GiB"),
            "{told}"
        );
    }

    #[test]
    fn a_moment_is_carried_on_along_its_line_or_its_parabola() {
        let of = |bytes: fn(f64) -> f64, images: f64| {
            let point = |pixels: f64| Point { pixels, course: vec![bytes(pixels) as u64] };
            carried_on(&[point(100.0), point(200.0), point(300.0)], 0, 1000.0, images)
        };
        assert_eq!(of(|it| 500.0 + 8.0 * it, 1.0), 8500.0);
        assert_eq!(of(|it| 500.0 + 8.0 * it, 2.0), 16500.0);
        assert_eq!(of(|it| it * it, 1.0), 1e6);
    }

    #[test]
    fn the_estimate_is_near_the_peak_of_a_real_step() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (config, changes, batch, size) in [
            ("demo/pspnet_r18-d8_demo-128x128", vec![], 4, [384, 448]),
            (
                "demo/pspnet_r18-d8_demo-128x128",
                vec!["model.backbone.frozen_stages=2"],
                3,
                [160, 160],
            ),
            ("demo/pspnet_r18-d8_demo-128x128", vec!["model.backbone.with_cp=true"], 2, [512, 512]),
            (
                "demo/pspnet_r18-d8_demo-128x128",
                vec!["optim_wrapper.type=AmpOptimWrapper"],
                3,
                [352, 512],
            ),
            ("fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024", vec![], 1, [320, 640]),
            ("pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512", vec![], 3, [288, 288]),
        ] {
            let changes: Vec<String> = changes.into_iter().map(str::to_owned).collect();
            let config_file = root.join(format!("configs/{config}.yaml"));
            let read = config::load(&config_file, &changes).expect("a config");
            let experiment = Experiment::from_config(&read).expect("an experiment");
            let found =
                Footprint::estimate(&experiment, batch, size).expect("an estimate").total() as f64;
            let real = measured(&experiment, batch, size) as f64;
            // The figures in docs/models.md are within 1 %; a libtorch that chooses other kernels
            // may be further off.
            assert!(
                (found - real).abs() < 0.05 * real,
                "{config} {changes:?}: {found} estimated, {real} measured"
            );
        }
    }
}
