//! Checks that span sections: names and numbers of classes, the one label that means "no class",
//! outputs that need a place, steps of pipelines.
//!
//! A config whose sections contradict each other trains and ends well, with wrong numbers. So
//! everything that can be known without files is compared as soon as the config is typed, before
//! any queue or device, and all of it is told at once.

use std::fmt::Write as _;

use super::{CustomHook, EmaType, EvaluatorConfig, Experiment, Rule, TrainLoopConfig};
use crate::config::{Node, nearest};
use crate::data::dataset::Source;
use crate::data::{Transform, transform};
use crate::exit::{Exit, Failure};
use crate::metrics::{Counts, IoUMetricConfig};
use crate::optim::{Horizon, Schedule};

/// Refuses an experiment whose sections do not go together.
pub(super) fn check(experiment: &Experiment) -> Result<(), Failure> {
    let sources = sources(experiment);
    let mut problems = heads(experiment);
    problems.extend(model(experiment, &problems));
    problems.extend(learning(experiment));
    problems.extend(classes(experiment, &sources));
    problems.extend(ignored(experiment, &sources));
    problems.extend(pipelines(experiment, &sources));
    problems.extend(names_of_metrics(experiment));
    refused(experiment, &problems)
}

/// What is odd and no contradiction.
pub(super) fn remarks(experiment: &Experiment) -> Vec<String> {
    let (mut odd, sources) = (Vec::new(), sources(experiment));
    for source in sources.iter().filter(|it| it.says_reduce_zero_label()) {
        let (key, value) = (&source.key, source.reduce_zero_label());
        odd.extend(source.reduces_otherwise().into_iter().map(|step| {
            format!(
                "{step} is {}, but the dataset has the word: {key}.reduce_zero_label is {value}, \
                 and so it is read",
                !value
            )
        }));
    }
    let (training, measuring): (Vec<_>, Vec<_>) =
        sources.into_iter().partition(|it| it.key.starts_with("train_"));
    let Some(first) = training.first() else { return told(experiment, &odd) };
    let (key, value) = (format!("{}.reduce_zero_label", first.key), first.reduce_zero_label());
    for other in
        training.iter().skip(1).chain(&measuring).filter(|it| it.reduce_zero_label() != value)
    {
        odd.push(format!(
            "{}.reduce_zero_label is {}, but {key} is {value}: label 1 is another class in the one \
             than in the other, which is right only where their files count differently",
            other.key, !value
        ));
    }
    for other in &measuring {
        odd.extend(training.iter().find(|it| it.same_files(other)).map(|it| {
            format!(
                "{} has the images that {} is trained with: it measures what was learned by heart",
                other.key, it.key
            )
        }));
    }
    told(experiment, &odd)
}

/// Refuses what only a training asks of an experiment: labels, and a place for what a validation
/// writes.
pub(super) fn check_training(experiment: &Experiment) -> Result<(), Failure> {
    let mut problems = labelled(experiment);
    problems.extend(nowhere("val_evaluator", &experiment.val_evaluator, ""));
    problems.extend(hooks(experiment));
    refused(experiment, &problems)
}

/// Refuses a test that is to write its predictions and nothing else, and has no place for them.
pub(super) fn check_test(experiment: &Experiment, out: bool) -> Result<(), Failure> {
    let evaluators = if out { &[] } else { &experiment.test_evaluator[..] };
    refused(
        experiment,
        &nowhere("test_evaluator", evaluators, ", and --out is not given")
            .into_iter()
            .collect::<Vec<_>>(),
    )
}

/// Texts that begin with a key, with the places in the files where these keys stand in front.
fn told(experiment: &Experiment, texts: &[String]) -> Vec<String> {
    texts.iter().map(|it| format!("{}{it}", place(experiment.tree.as_ref(), it))).collect()
}

/// Where the key stands that a text begins with; of one that is left out, the section that lacks
/// it.
fn place(tree: Option<&Node>, text: &str) -> String {
    let Some(tree) = tree else { return String::new() };
    let mut key = text.split([' ', ':', ',']).next().unwrap_or_default();
    loop {
        if key.is_empty() {
            return String::new();
        }
        if let Some(node) = tree.get(key) {
            return format!("{}: ", node.origin);
        }
        key = key.rsplit_once('.').map_or("", |(above, _)| above);
    }
}

fn refused(experiment: &Experiment, problems: &[String]) -> Result<(), Failure> {
    match &told(experiment, problems)[..] {
        [] => Ok(()),
        [one] => Err(Failure::new(Exit::Config, one)),
        many => {
            let mut text = format!("the config contradicts itself in {} places:", many.len());
            many.iter().for_each(|it| {
                let _ = write!(text, "\n  {it}");
            });
            Err(Failure::new(Exit::Config, text))
        }
    }
}

/// The folder datasets of all dataloaders, those of the training first.
fn sources(experiment: &Experiment) -> Vec<Source<'_>> {
    let loaders = [
        ("train_dataloader.dataset", &experiment.train_dataloader),
        ("val_dataloader.dataset", &experiment.val_dataloader),
        ("test_dataloader.dataset", &experiment.test_dataloader),
    ];
    let there = loaders.into_iter().filter_map(|(key, loader)| Some((key, loader.as_ref()?)));
    there.flat_map(|(key, loader)| loader.dataset.sources(key)).collect()
}

/// The heads by themselves and beside each other.
fn heads(experiment: &Experiment) -> Vec<String> {
    let mut problems = Vec::new();
    let heads = experiment.model.heads();
    let (first, classes) = (&heads[0].0, heads[0].1.num_classes);
    for (key, head) in &heads {
        let own = head.num_classes;
        if own == 1 {
            problems.push(format!(
                "model.{key}.num_classes is 1, which leaves nothing to tell apart: to find one \
                 thing before a background write num_classes: 2, out_channels: 1 and the names of \
                 both in metainfo.classes"
            ));
        }
        if own != classes {
            problems.push(format!(
                "model.{key}.num_classes is {own}, but model.{first}.num_classes is {classes}: \
                 heads tell the same classes apart"
            ));
        }
    }
    problems
}

/// The model's parts and how they go together; not of a head again that has been refused already.
fn model(experiment: &Experiment, known: &[String]) -> Vec<String> {
    let told: Vec<String> = experiment.model.problems().iter().map(ToString::to_string).collect();
    let head = |text: &str| {
        known.iter().any(|it| {
            it.split(".num_classes is 1,").next().is_some_and(|key| text.starts_with(key))
        })
    };
    told.into_iter().filter(|it| !head(it)).collect()
}

/// The optimizer, and the schedule against how long the training is.
fn learning(experiment: &Experiment) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(wrapper) = &experiment.optim_wrapper {
        problems.extend(wrapper.validate().err().map(|it| it.to_string()));
        if wrapper.decays_by_layer() && !experiment.model.backbone().has_ordered_layers() {
            let problem = "optim_wrapper.constructor: rates decay from layer to layer, and \
                           model.backbone has no layers that mmseg counts; expected \
                           mmpretrain.ConvNeXt";
            problems.push(problem.to_owned());
        }
    }
    if let Some(loops) = &experiment.train_cfg {
        // How long an epoch is, only the data know: what is wrong whatever that is, is told here.
        let errors = [7, 100, 5000].map(|epoch_length| {
            let horizon = match loops {
                TrainLoopConfig::IterBasedTrainLoop(it) => {
                    Horizon { max_iters: it.max_iters, epoch_length, max_epochs: None }
                }
                TrainLoopConfig::EpochBasedTrainLoop(it) => {
                    let max_iters = it.max_epochs.saturating_mul(epoch_length);
                    Horizon { max_iters, epoch_length, max_epochs: Some(it.max_epochs) }
                }
            };
            Schedule::new(&experiment.param_scheduler, &[0.01], horizon).err()
        });
        if let [Some(error), Some(_), Some(_)] = errors {
            problems.push(error.to_string());
        }
    }
    problems
}

/// Names against the number that the model tells apart, and against those of the first dataset.
fn classes(experiment: &Experiment, sources: &[Source]) -> Vec<String> {
    let mut problems: Vec<String> = sources.iter().flat_map(Source::problems).collect();
    let number = experiment.model.num_classes();
    let wanted = format!("model.decode_head.num_classes is {number}");
    let mut reference: Option<(String, Vec<String>)> = None;
    for source in sources {
        let key = source.classes_key();
        let Some(names) = source.classes() else { continue };
        if names.is_empty() {
            let name = source.name();
            problems.push(format!(
                "{key} has no names, but {wanted}: {name} has no classes of its own, so list them, \
                 such as [road, car]"
            ));
            continue;
        }
        let count = names.len();
        if count != number {
            problems.push(format!(
                "{key} has {count} {}, but {wanted}",
                if count == 1 { "name" } else { "names" }
            ));
        }
        match &reference {
            None => reference = Some((key, names)),
            Some((first, known)) => problems.extend(difference(&key, &names, first, known)),
        }
    }
    problems
}

/// What is learned from and measured by needs labels. (A test may be asked for its files alone.)
fn labelled(experiment: &Experiment) -> Vec<String> {
    let mut evaluators = experiment.val_evaluator.iter();
    let formats = !experiment.val_evaluator.is_empty()
        && evaluators.all(|EvaluatorConfig::IoUMetric(it)| it.format_only);
    let validated = experiment.val_dataloader.as_ref().filter(|_| !formats);
    let needy = [
        ("train_dataloader.dataset", experiment.train_dataloader.as_ref()),
        ("val_dataloader.dataset", validated),
    ];
    let sources =
        needy.into_iter().filter_map(|(key, loader)| Some(loader?.dataset.sources(key))).flatten();
    sources
        .filter_map(|it| {
            Some(format!(
                "{} has no labels, which a training and its validation need: {}",
                it.key,
                it.unlabelled()?
            ))
        })
        .collect()
}

/// Where two lists of names part.
fn difference(key: &str, here: &[String], other: &str, there: &[String]) -> Option<String> {
    if here.len() != there.len() {
        let (names, others) = (here.len(), there.len());
        return Some(format!(
            "{key} has {names} names, but {other} has {others}: one model learns and is measured \
             by the same classes"
        ));
    }
    let (label, (name, instead)) = here.iter().zip(there).enumerate().find(|(_, (a, b))| a != b)?;
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort_unstable();
        names
    };
    let what = if sorted(here) == sorted(there) {
        format!("the names of {other} in another order")
    } else {
        format!("other names than {other}")
    };
    Some(format!("{key} has {what}: label {label} is `{name}` here and `{instead}` there"))
}

/// Everything that takes a label for "no class" has to take the same. What is left out follows:
/// padding and crops the dataset, the dataset the heads; heads and metrics have mmseg's 255.
fn ignored(experiment: &Experiment, sources: &[Source]) -> Vec<String> {
    let mut said: Vec<(String, i64, bool)> = Vec::new();
    let heads = experiment.model.heads();
    said.extend(
        heads
            .iter()
            .map(|(key, head)| (format!("model.{key}.ignore_index"), head.ignore_index, true)),
    );
    said.extend(
        experiment
            .model
            .seg_pad_val()
            .map(|it| ("model.data_preprocessor.seg_pad_val".to_owned(), i64::from(it), true)),
    );
    for source in sources {
        said.extend(
            source.ignore_index().into_iter().map(|(key, value)| (key, i64::from(value), true)),
        );
        steps(&format!("{}.pipeline", source.key), source.pipeline(), &mut said);
    }
    steps("tta_pipeline", experiment.tta_pipeline.as_deref().unwrap_or_default(), &mut said);
    for (key, metric) in
        evaluators(experiment).into_iter().filter(|(_, metric)| !metric.format_only)
    {
        said.push((
            format!("{key}.ignore_index"),
            i64::from(metric.ignored()),
            metric.ignore_index.is_some(),
        ));
    }
    if said.windows(2).all(|pair| pair[0].1 == pair[1].1) {
        return Vec::new();
    }
    let each = said.iter().map(|(key, value, given)| {
        format!("{key} is {value}{}", if *given { "" } else { " (left out)" })
    });
    let told: String = told(experiment, &each.collect::<Vec<_>>())
        .iter()
        .map(|it| format!("\n    {it}"))
        .collect();
    vec![format!("one label alone can mean \"no class\", but the config says several:{told}")]
}

fn steps(key: &str, pipeline: &[Transform], said: &mut Vec<(String, i64, bool)>) {
    for (at, step) in transform::steps(pipeline) {
        said.extend(
            step.ignore_index()
                .map(|(name, value)| (format!("{key}.{at}.{name}"), i64::from(value), true)),
        );
    }
}

/// The steps of every pipeline by themselves, in their order, and beside their dataset.
fn pipelines(experiment: &Experiment, sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    let of_datasets = sources.iter().map(|it| (format!("{}.pipeline", it.key), it.pipeline()));
    let of_tta = experiment.tta_pipeline.iter().map(|it| ("tta_pipeline".to_owned(), &it[..]));
    for (key, steps) in of_datasets.chain(of_tta) {
        problems.extend(
            transform::problems(steps)
                .into_iter()
                .map(|(at, problem)| format!("{key}.{at}: {problem}")),
        );
    }
    for source in sources.iter().filter(|it| !it.says_reduce_zero_label()) {
        let value = source.reduce_zero_label();
        problems.extend(source.reduces_otherwise().into_iter().map(|step| {
            format!(
                "{step} is {}, but {} is {value} ({}'s own): set it in the dataset, which is \
                 enough",
                !value,
                format_args!("{}.reduce_zero_label", source.key),
                source.name()
            )
        }));
    }
    problems
}

/// Every evaluator with its key, that of the validation first.
fn evaluators(experiment: &Experiment) -> Vec<(String, &IoUMetricConfig)> {
    let both = [
        ("val_evaluator", &experiment.val_evaluator),
        ("test_evaluator", &experiment.test_evaluator),
    ];
    let numbered = |(key, evaluators): (&str, &'_ [EvaluatorConfig])| -> Vec<String> {
        (0..evaluators.len())
            .map(
                |index| {
                    if evaluators.len() == 1 { key.to_owned() } else { format!("{key}.{index}") }
                },
            )
            .collect()
    };
    both.into_iter()
        .flat_map(|(key, all)| {
            let keys = numbered((key, &all[..]));
            keys.into_iter().zip(all.iter().map(|EvaluatorConfig::IoUMetric(metric)| metric))
        })
        .collect()
}

/// Evaluators beside each other whose metrics would have the same names.
fn names_of_metrics(experiment: &Experiment) -> Vec<String> {
    let mut problems = Vec::new();
    for (key, all) in [
        ("val_evaluator", &experiment.val_evaluator),
        ("test_evaluator", &experiment.test_evaluator),
    ] {
        let measuring = all.iter().map(|EvaluatorConfig::IoUMetric(metric)| metric);
        let prefixes: Vec<_> =
            measuring.clone().filter(|it| !it.format_only).map(IoUMetricConfig::prefix).collect();
        let folders: Vec<_> = measuring.filter_map(|it| it.output_dir.as_ref()).collect();
        if let Some(pair) = folders.windows(2).find(|it| it[0] != it[1]) {
            problems.push(format!(
                "{key} names two folders for one pass, {} and {}: label maps go into one \
                 output_dir",
                pair[0].display(),
                pair[1].display()
            ));
        }
        let twice = (1..prefixes.len()).find(|&index| prefixes[..index].contains(&prefixes[index]));
        problems.extend(twice.map(|index| {
            format!(
                "{key} gives {}aAcc more than once: give each evaluator a prefix of its own",
                prefixes[index]
            )
        }));
    }
    problems
}

/// The names of what a validation measures; none where nothing is.
fn metrics(evaluators: &[EvaluatorConfig]) -> Option<Vec<String>> {
    let measuring = evaluators
        .iter()
        .map(|EvaluatorConfig::IoUMetric(metric)| metric)
        .filter(|it| !it.format_only);
    let names: Vec<String> = measuring
        .flat_map(|it| {
            Counts::new(1)
                .metrics(it, &["class".to_owned()])
                .summary
                .into_keys()
                .collect::<Vec<_>>()
        })
        .collect();
    (!names.is_empty()).then_some(names)
}

/// Hooks by themselves and beside the rest.
fn hooks(experiment: &Experiment) -> Vec<String> {
    let mut problems = Vec::new();
    let hook = experiment.checkpoint_hook();
    let key = "default_hooks.checkpoint";
    let best = &hook.save_best;
    let names = metrics(&experiment.val_evaluator);
    let saved =
        best.iter().filter(|it| *it != "auto").map(|it| (format!("{key}.save_best"), it.clone()));
    for (key, name) in saved.chain(experiment.watched_metrics()) {
        let Some(names) = names.as_ref().filter(|names| !names.contains(&name)) else { continue };
        let hint = nearest(&name, names.iter().map(String::as_str))
            .map(|it| format!("; did you mean {it}?"))
            .unwrap_or_default();
        problems.push(format!("{key} is {name}, but the metrics are {}{hint}", names.join(", ")));
    }
    if best.len() > 1 && best.iter().any(|it| it == "auto") {
        problems
            .push(format!("{key}.save_best names auto beside other metrics: auto stands alone"));
    }
    if hook.rule.len() > 1 && hook.rule.len() != best.len() {
        problems.push(format!(
            "{key}.rule has {} entries for {} of save_best",
            hook.rule.len(),
            best.len()
        ));
    } else {
        let named = best.iter().enumerate().filter(|(_, it)| {
            *it != "auto" && names.as_ref().is_none_or(|names| names.contains(it))
        });
        problems.extend(
            named
                .filter_map(|(index, it)| hook.rule_of(index, it).err())
                .map(|it| format!("{key}.{it}")),
        );
    }
    let averages =
        experiment.custom_hooks.iter().filter(|it| matches!(it, CustomHook::EMAHook(_))).count();
    if averages > 1 {
        problems.push(format!("custom_hooks has {averages} EMAHooks: one averages the weights"));
    }
    if let Some(ema) = experiment.ema_hook() {
        if ema.begin_iter > 0 && ema.begin_epoch > 0 {
            problems.push(
                "custom_hooks: EMAHook has begin_iter and begin_epoch: give one of them".to_owned(),
            );
        }
        if ema.momentum.is_some() && ema.ema_type == EmaType::StochasticWeightAverage {
            problems.push(
                "custom_hooks: EMAHook has a momentum, which ema_type: StochasticWeightAverage has \
                 not"
                    .to_owned(),
            );
        }
        if ema.gamma.is_some() && ema.ema_type != EmaType::MomentumAnnealingEMA {
            problems.push(
                "custom_hooks: EMAHook has gamma, which only ema_type: MomentumAnnealingEMA has"
                    .to_owned(),
            );
        }
    }
    for stopping in experiment.early_stopping() {
        let known = names.as_ref().is_none_or(|names| names.contains(&stopping.monitor));
        if known && stopping.rule.or_else(|| Rule::of(&stopping.monitor, None, None)).is_none() {
            let monitor = &stopping.monitor;
            problems.push(format!(
                "custom_hooks: EarlyStoppingHook: whether more or less of {monitor} is better does \
                 not follow from its name; say rule: greater or rule: less"
            ));
        }
    }
    if experiment.auto_scale_lr.enable && experiment.auto_scale_lr.base_batch_size.is_none() {
        problems.push(
            "auto_scale_lr.enable is true, but base_batch_size, the batch of all ranks that the \
             learning rates are for, is missing"
                .to_owned(),
        );
    }
    problems
}

/// A pass that only writes files needs a place for them.
fn nowhere(key: &str, evaluators: &[EvaluatorConfig], besides: &str) -> Option<String> {
    let metrics = || evaluators.iter().map(|EvaluatorConfig::IoUMetric(metric)| metric);
    let formats = !evaluators.is_empty() && metrics().all(|it| it.format_only);
    let nowhere = formats && metrics().all(|it| it.output_dir.is_none());
    nowhere.then(|| {
        format!("{key}.format_only is true, but there is no {key}.output_dir to write to{besides}")
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    /// Why the demo config with these changes is refused, if it is.
    fn told(changes: &[&str]) -> String {
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("configs/demo/pspnet_r18-d8_demo-128x128.yaml");
        let config = config::load(&path, &changes).expect("a config");
        match Experiment::from_config(&config).and_then(|it| it.check_training()) {
            Ok(()) => String::new(),
            Err(failure) => {
                assert_eq!(failure.exit, Exit::Config);
                failure.message
            }
        }
    }

    #[track_caller]
    fn names(changes: &[&str], words: &[&str]) {
        let told = told(changes);
        for word in words {
            assert!(told.contains(word), "{word} is not in: {told}");
        }
    }

    #[test]
    fn names_and_numbers_of_classes_are_held_together() {
        assert_eq!(told(&[]), "");
        names(
            &["metainfo.classes=[]", "metainfo.palette=[]"],
            &["train_dataloader.dataset.metainfo.classes has no names", "num_classes is 6"],
        );
        names(
            &["metainfo.classes=road"],
            &["metainfo.classes is the string `road`", "list of names", "[road]"],
        );
        names(
            &["metainfo.classes=[a,b]", "metainfo.palette=None"],
            &[
                "train_dataloader.dataset.metainfo.classes has 2 names, but \
                 model.decode_head.num_classes is 6",
                "val_dataloader",
            ],
        );
        names(&["metainfo.classes=[a,b,c,d,e,a]"], &["`a` twice", "label 0", "label 5"]);
        names(
            &["metainfo.palette=[[1,2,3]]"],
            &["metainfo.palette has 1 colours", "metainfo.classes has 6 names"],
        );
        names(
            &["model.auxiliary_head.num_classes=7"],
            &["model.auxiliary_head.num_classes is 7, but model.decode_head.num_classes is 6"],
        );
        names(
            &[
                "val_dataloader.dataset.metainfo.classes=[stripes,checker,dots,gradient,noise,smooth]",
            ],
            &[
                "val_dataloader.dataset.metainfo.classes",
                "train_dataloader.dataset.metainfo.classes in another order",
                "label 1 is `checker` here and `dots` there",
            ],
        );
        names(
            &["test_dataloader.dataset.metainfo.classes=[a,b,c,d,e,f]"],
            &["test_dataloader", "other names", "`a` here and `stripes` there"],
        );
    }

    /// The same, and its remarks where it is not refused.
    fn remarks(changes: &[&str]) -> Vec<String> {
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("configs/demo/pspnet_r18-d8_demo-128x128.yaml");
        let config = config::load(&path, &changes).expect("a config");
        Experiment::from_config(&config).expect("goes together").remarks
    }

    #[test]
    fn places_stand_in_front_and_every_step_of_every_pipeline_is_held_to_them() {
        let said = told(&[
            "model.auxiliary_head.num_classes=7",
            "train_pipeline.2.ratio_range=[0.5,2]",
            "train_pipeline.0.to_float32=true",
        ]);
        assert!(said.starts_with("the config contradicts itself in "), "{said}");
        assert!(
            said.contains("\n  --cfg-options: model.auxiliary_head.num_classes is 7, but"),
            "{said}"
        );
        let step = "pspnet_r18-d8_demo-128x128.yaml:25: train_dataloader.dataset.pipeline.0: \
                    transform LoadImageFromFile: to_float32";
        assert!(said.contains(step), "{said}");
        let all = told(&["test_pipeline.0.to_float32=true"]);
        for key in ["val_dataloader.dataset.pipeline.0: ", "test_dataloader.dataset.pipeline.0: "] {
            assert!(all.contains(key), "{all}");
        }
    }

    #[test]
    fn the_dataset_has_the_word_of_reduce_zero_label() {
        // The demo's datasets say true.
        let otherwise = "train_pipeline.1.reduce_zero_label=false";
        let said = remarks(&[otherwise]);
        assert_eq!(
            said,
            ["--cfg-options: train_dataloader.dataset.pipeline.1.reduce_zero_label is false, but \
              the dataset has the word: train_dataloader.dataset.reduce_zero_label is true, and so \
              it is read"]
        );
        let alone = [
            "val_dataloader.dataset.reduce_zero_label=None",
            "val_dataloader.dataset.pipeline.2.reduce_zero_label=true",
        ];
        names(
            &alone,
            &["val_dataloader.dataset.pipeline.2.reduce_zero_label is true, but \
               val_dataloader.dataset.reduce_zero_label is false (BaseSegDataset's own)"],
        );
        let apart = remarks(&["val_dataloader.dataset.reduce_zero_label=false"]);
        assert_eq!(apart.len(), 2, "{apart:?}");
        assert!(apart[1].contains(
            "val_dataloader.dataset.reduce_zero_label is false, but \
             train_dataloader.dataset.reduce_zero_label is true"
        ));
    }

    #[test]
    fn what_is_measured_on_the_images_of_the_training_is_told() {
        let same = "val_dataloader.dataset.data_prefix.img_path=images/training";
        let said = remarks(&[same]);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].contains(
                "val_dataloader.dataset has the images that train_dataloader.dataset is trained \
                 with"
            ),
            "{said:?}"
        );
        assert!(remarks(&[]).is_empty());
    }

    #[test]
    fn two_classes_may_have_one_channel_and_one_class_is_none() {
        let two = ["metainfo.classes=[background,road]", "metainfo.palette=None"];
        let heads = ["model.decode_head.num_classes=2", "model.auxiliary_head.num_classes=2"];
        let binary =
            ["model.decode_head.out_channels=1", "model.decode_head.loss_decode.use_sigmoid=true"];
        assert_eq!(told(&[&two[..], &heads].concat()), "");
        assert_eq!(told(&[&two[..], &heads, &binary].concat()), "");
        names(
            &[&two[..], &heads, &["model.decode_head.out_channels=3"]].concat(),
            &["model.decode_head.out_channels", "3"],
        );
        let one = [
            "metainfo.classes=[road]",
            "metainfo.palette=None",
            "model.decode_head.num_classes=1",
            "model.auxiliary_head.num_classes=1",
        ];
        names(&one, &["num_classes is 1", "num_classes: 2, out_channels: 1"]);
    }

    #[test]
    fn a_training_without_labels_is_refused_and_a_test_is_not() {
        names(
            &["train_dataloader.dataset.data_prefix.seg_map_path=None"],
            &["train_dataloader.dataset has no labels", "data_prefix.seg_map_path"],
        );
        names(
            &["val_dataloader.dataset.pipeline=[]"],
            &["val_dataloader.dataset has no labels", "LoadAnnotations"],
        );
        assert_eq!(told(&["test_dataloader.dataset.data_prefix.seg_map_path=None"]), "");
    }

    #[test]
    fn what_only_writes_needs_a_place_to_write_to() {
        let format_only = "val_evaluator.format_only=true";
        names(&[format_only], &["val_evaluator.format_only is true", "val_evaluator.output_dir"]);
        assert_eq!(told(&[format_only, "val_evaluator.output_dir=out"]), "");
        assert_eq!(
            told(&["test_evaluator.format_only=true"]),
            "",
            "a test may be told the place later"
        );
    }

    #[test]
    fn every_config_of_the_project_agrees_with_itself() {
        let mut seen = 0;
        for family in ["demo", "fcn", "pspnet"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(family);
            for entry in std::fs::read_dir(folder).expect("configs").flatten() {
                let config = config::load(&entry.path(), &[]).expect("a config");
                let failure = Experiment::from_config(&config).err();
                assert!(failure.is_none(), "{}: {failure:?}", entry.path().display());
                seen += 1;
            }
        }
        assert!(seen > 30, "{seen} configs");
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let changes = [
            "model.decode_head.num_classes=5",
            "model.auxiliary_head.num_classes=4",
            "val_evaluator.ignore_index=3",
        ];
        names(
            &changes,
            &["auxiliary_head.num_classes is 4", "has 6 names", "val_evaluator.ignore_index is 3"],
        );
    }

    #[test]
    fn one_label_alone_means_no_class() {
        let reduced = ["reduce_zero_label=false"];
        names(
            &[&reduced[..], &["train_dataloader.dataset.ignore_index=254"]].concat(),
            &[
                "train_dataloader.dataset.ignore_index is 254",
                "model.decode_head.ignore_index is 255",
                "seg_pad_val is 255",
            ],
        );
        names(
            &["data_preprocessor.seg_pad_val=0"],
            &["model.data_preprocessor.seg_pad_val is 0", "model.decode_head.ignore_index is 255"],
        );
        names(
            &["train_pipeline.3.ignore_index=0"],
            &["train_dataloader.dataset.pipeline.3.ignore_index is 0"],
        );
        names(
            &["test_evaluator.ignore_index=0"],
            &["test_evaluator.ignore_index is 0", "val_evaluator.ignore_index is 255 (left out)"],
        );
        names(
            &["model.decode_head.ignore_index=0"],
            &["model.auxiliary_head.ignore_index is 255", "reduce_zero_label"],
        );
        let zero = [
            "model.decode_head.ignore_index=0",
            "model.auxiliary_head.ignore_index=0",
            "data_preprocessor.seg_pad_val=0",
            "val_evaluator.ignore_index=0",
            "test_evaluator.ignore_index=0",
        ];
        assert_eq!(
            told(&[&reduced[..], &zero].concat()),
            "",
            "datasets, crops and padding follow where they say nothing"
        );
    }
}
