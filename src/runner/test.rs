//! Testing: a checkpoint, a dataset, a table.

use std::path::PathBuf;

use super::build::Setting;
use super::evaluate::{Evaluation, Leaves, Pass, Watch};
use super::interrupt::Interrupt;
use super::journal::{evaluation_bar, report};
use super::memory_format;
use super::survey::Survey;
use super::weights;
use crate::checkpoint::{Checkpoint, Fit};
use crate::exit::{Exit, Failure, Within};
use crate::experiment::EvaluatorConfig;
use crate::rundir::write_atomically;

/// What `segslurm test` was asked for besides the metrics.
#[derive(Debug, Clone, Default)]
pub(crate) struct TestOptions {
    pub checkpoint: PathBuf,
    /// Label maps as PNG go here.
    pub out_dir: Option<PathBuf>,
    /// Painted pictures go here.
    pub show_dir: Option<PathBuf>,
    /// Test-time augmentation.
    pub tta: bool,
}

/// Tests a checkpoint and writes the metrics into the work dir.
pub(crate) fn test(setting: &Setting, options: &TestOptions) -> Result<(), Failure> {
    let experiment = &setting.experiment;
    let mut loader = experiment.test_dataloader.clone().ok_or_else(|| {
        Failure::new(
            Exit::Config,
            "the config has no test_dataloader, so there is nothing to test on",
        )
    })?;
    if experiment.test_evaluator.is_empty() {
        return Err(Failure::new(Exit::Config, "the config has no test_evaluator"));
    }
    let metrics = experiment
        .test_evaluator
        .iter()
        .map(|EvaluatorConfig::IoUMetric(metric)| metric.clone())
        .collect();
    if options.tta {
        let pipeline = experiment.tta_pipeline.clone().ok_or_else(|| {
            Failure::new(Exit::Config, "--tta needs a tta_pipeline in the config")
        })?;
        loader.dataset.pipelines().into_iter().for_each(|it| it.clone_from(&pipeline));
    }

    experiment.check_test(options.out_dir.is_some())?;
    let leaves = Leaves {
        out_dir: options.out_dir.clone(),
        show_dir: options.show_dir.as_deref().map(|it| setting.rundir.show_dir(it)),
        interval: 1,
        alpha: experiment.visualizer().alpha,
    };
    let mut survey = Survey::new(&setting.group);
    let evaluation = Evaluation::new(Pass::Test, loader, metrics, leaves, experiment, &mut survey)?;
    survey.end()?;
    if !evaluation.measured {
        let why = if evaluation.metrics.iter().all(|it| it.format_only) {
            "test_evaluator.format_only is true"
        } else {
            "the test set has no label maps"
        };
        tracing::warn!("no metrics are computed: {why}");
    }

    let format = memory_format::decide(&experiment.env_cfg, &setting.device)?;
    let segmentor = format.arrange(experiment.model.init(&setting.device, 0)?);
    let path = weights::obtain(&options.checkpoint, setting)?;
    let checkpoint = Checkpoint::read(&path)?;
    weights::load(&segmentor.weights(), &checkpoint.model, &path, Fit::Exact).within(
        "a test needs every weight: give the config that the checkpoint was trained with, or its \
         num_classes",
    )?;
    tracing::info!("loaded {}", path.display());
    evaluation.refuse_other_classes(&checkpoint.meta.dataset_meta.classes, &path)?;

    let bar = evaluation_bar(&setting.console, evaluation.dataset.len());
    let watch = Watch {
        bar,
        log: Some((experiment.logger().interval, "Iter(test) ".to_owned())),
        iteration: None,
    };
    let mut preprocessor = experiment.model.preprocessor()?;
    preprocessor.set_memory_format(format);
    // A test has nothing to save: signals end it the usual way.
    let interrupt = Interrupt::never();
    let evaluated = evaluation
        .run(&segmentor, &preprocessor, &setting.device, &setting.group, &interrupt, watch)?
        .ok_or_else(|| Failure::fault("a test that nobody stopped has no result"))?;
    if !setting.group.is_main() {
        return Ok(());
    }
    if let Some(metrics) = &evaluated.metrics {
        let place = format!("Iter(test) [{}/{}]", evaluated.images, evaluated.images);
        report("test", &place, metrics, &evaluated.timing);
        let path = setting.rundir.metrics();
        write_atomically(&path, format!("{:#}\n", metrics.to_json()).as_bytes()).map_err(
            |error| {
                Failure::new(Exit::CannotWrite, format!("cannot write {}: {error}", path.display()))
            },
        )?;
        tracing::info!("metrics are in {}", path.display());
    }
    for (what, folder) in [
        ("label maps", &evaluation.leaves.out_dir),
        ("painted pictures", &evaluation.leaves.show_dir),
    ] {
        if let Some(folder) = folder {
            tracing::info!("{what} are in {}", folder.display());
        }
    }
    Ok(())
}
