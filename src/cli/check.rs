//! `--dry-run`: everything that can be known of a training or a test before it runs, without a
//! device, a queue or a file written.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use burn::tensor::Device;

use crate::checkpoint::{Checkpoint, Places, Source};
use crate::data::dataset::{Look, Survey};
use crate::exit::{Exit, Failure};
use crate::experiment::Experiment;
use crate::slurm::job::JobKind;
use crate::terminal;
use crate::variables::Variables;

/// What a check looked at.
pub(super) struct Checked {
    /// A line for each part.
    pub lines: Vec<String>,
}

/// Lists and surveys the datasets, finds the files of weights, builds the model. Files of all
/// datasets that are missing or cannot be used are told together, any other fault ends it, as it
/// would end the run; what is odd is noted on standard error.
pub(super) fn check(
    kind: JobKind,
    experiment: &Experiment,
    checkpoint: Option<&Path>,
    look: Look,
    variables: Variables,
) -> Result<Checked, Failure> {
    let parts = match kind {
        JobKind::Train => [
            ("train_dataloader", &experiment.train_dataloader),
            ("val_dataloader", &experiment.val_dataloader),
        ],
        JobKind::Test => [("test_dataloader", &experiment.test_dataloader), ("", &None)],
    };
    if let (JobKind::Train, Some(missing)) = (kind, experiment.lacks_for_training()) {
        return Err(Failure::new(
            Exit::Config,
            format!("the config has no {missing}, which a training needs"),
        ));
    }
    let (mut lines, mut faults) = (Vec::new(), Survey::default());
    for (key, loader) in parts.into_iter().filter_map(|(key, loader)| Some((key, loader.as_ref()?)))
    {
        let model = &experiment.model;
        let dataset = loader.dataset.init()?.for_model(model.num_classes(), model.ignore_index());
        let survey = dataset.survey(look)?;
        survey
            .told
            .iter()
            .for_each(|told| terminal::note(format!("segslurm: {key}.dataset: {told}")));
        faults.take_faults(survey);
        lines.push(format!(
            "{key}: {} images, {} classes",
            dataset.len(),
            dataset.metainfo().classes.len()
        ));
    }
    faults.outcome()?;
    for (what, path) in weights(kind, experiment, checkpoint) {
        let source = Source::parse(&path, &Places::of(variables))?;
        lines.push(match source.local()? {
            Some(file) => {
                let tensors = Checkpoint::read(&file)?.model.len();
                format!("{what}: {}, {tensors} tensors", file.display())
            }
            None => format!("{what}: {}, which the run fetches", path.display()),
        });
    }
    lines.push(model(experiment)?);
    Ok(Checked { lines })
}

/// Files of weights that the run begins with. The backbone's pretrained ones are found when the
/// model is built.
fn weights(
    kind: JobKind,
    experiment: &Experiment,
    checkpoint: Option<&Path>,
) -> Vec<(&'static str, PathBuf)> {
    let load_from =
        experiment.load_from.as_ref().filter(|_| kind == JobKind::Train && !experiment.resume);
    let checkpoint = checkpoint.map(|it| ("checkpoint", it.to_owned()));
    checkpoint.into_iter().chain(load_from.map(|it| ("load_from", it.clone()))).collect()
}

/// Builds the model on the CPU, where most contradictions in its shapes show.
fn model(experiment: &Experiment) -> Result<String, Failure> {
    let segmentor = experiment.model.init(&Device::libtorch(), 0)?;
    experiment.model.preprocessor()?;
    let parameters: usize = segmentor.weights().parameters().map(|it| it.tensor.numel()).sum();
    let mut line = format!("model: {:.2} million parameters", parameters as f64 / 1e6);
    if let Some(source) = segmentor.pretrained() {
        let _ = write!(line, ", pretrained from {}", source.checkpoint);
    }
    Ok(line)
}

/// Prints what was looked at, and where the run would leave its files.
pub(super) fn report(
    kind: JobKind,
    config: &Path,
    checked: &Checked,
    experiment: &Experiment,
    work_dir: &Path,
) -> Result<Exit, Failure> {
    let mut text = String::new();
    for line in &checked.lines {
        let _ = writeln!(text, "{line}");
    }
    if let (JobKind::Train, Some(length)) =
        (kind, experiment.train_cfg.as_ref().map(ToString::to_string))
    {
        let batch = experiment.train_dataloader.as_ref().map_or(0, |it| it.batch_size);
        let _ = writeln!(text, "{length}, {batch} images a step and rank");
    }
    let _ = writeln!(text, "work dir: {}", work_dir.display());
    let _ = writeln!(
        text,
        "nothing is wrong with {} as far as can be seen before it runs; nothing was written",
        config.display()
    );
    terminal::print(text)?;
    Ok(Exit::Done)
}
