//! mmengine's hooks in whole trainings: averaged weights, early ends, what checkpoints are called
//! and which are kept, evaluators, and what a run tells.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use segslurm::testing::checkpoint::Checkpoint;

use crate::harness::{self, dataset, ends_in, exact, segslurm, small, steps, text};
use crate::ranks::{outcome, start, wait_for_steps};

/// The demo config with something put over it, as a child in Python.
fn config(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("hooked.py");
    fs::write(&path, format!("_base_ = 'mmseg::demo/pspnet_r18-d8_demo-128x128.py'\n{text}\n"))
        .expect("writes");
    path
}

fn train(config: &Path, work_dir: &Path, iterations: u32, more: &[&str]) -> Command {
    let mut command = segslurm();
    command.arg("train").arg(config).arg("--work-dir").arg(work_dir);
    // crop_size is a name that a Python child's base has used already.
    command
        .args(small(dataset(), iterations).iter().filter(|it| !it.starts_with("crop_size")))
        .args(more);
    command
}

fn files(folder: &Path, end: &str) -> BTreeSet<String> {
    let names = fs::read_dir(folder)
        .expect("a folder")
        .flatten()
        .map(|it| it.file_name().to_string_lossy().into_owned());
    names.filter(|it| it.ends_with(end)).collect()
}

fn values(tensors: &std::collections::BTreeMap<String, tch::Tensor>, name: &str) -> Vec<f32> {
    Vec::try_from(tensors[name].flatten(0, -1)).expect("numbers")
}

const WEIGHT: &str = "decode_head.conv_seg.weight";
const MEAN: &str = "backbone.layer1.0.bn1.running_mean";

#[test]
fn averaged_weights_follow_the_trained_ones_and_are_what_a_checkpoint_holds() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let every = ["default_hooks.checkpoint.interval=1"];
    let plain = config(folder.path(), "");
    ends_in(&mut train(&plain, &folder.path().join("plain"), 5, &every), 0);
    let hook = "custom_hooks = [dict(type='EMAHook', momentum=0.25, begin_iter=2)]";
    let averaging = config(folder.path(), hook);
    ends_in(&mut train(&averaging, &folder.path().join("ema"), 5, &every), 0);
    let read = |run: &str, iteration: u64| {
        Checkpoint::read(&folder.path().join(run).join(format!("iter_{iteration}.safetensors")))
            .expect("a checkpoint")
    };
    let mut expected: Vec<f32> = Vec::new();
    for iteration in 1..=5 {
        let (plain, averaged) = (read("plain", iteration), read("ema", iteration));
        assert_eq!(
            values(&averaged.trained, WEIGHT),
            values(&plain.model, WEIGHT),
            "training goes its own way"
        );
        let raw = values(&plain.model, WEIGHT);
        if iteration <= 2 {
            expected.clone_from(&raw);
        } else {
            expected
                .iter_mut()
                .zip(&raw)
                .for_each(|(average, raw)| *average += 0.25 * (raw - *average));
        }
        let found = values(&averaged.model, WEIGHT);
        let apart = found
            .iter()
            .zip(&expected)
            .map(|(found, expected)| (found - expected).abs())
            .fold(0.0, f32::max);
        assert!(apart < 1e-7, "iteration {iteration}: {apart}");
        assert_eq!(
            values(&averaged.model, MEAN),
            values(&plain.model, MEAN),
            "statistics are the model's"
        );
    }

    // A test of the checkpoint gives what the validation of the averages gave.
    let log = harness::log(&folder.path().join("ema")).expect("a log");
    let validated = log.lines().rfind(|it| it.contains("mIoU: ")).expect("a validation").to_owned();
    let mut test = segslurm();
    test.arg("test").arg(&averaging).arg(folder.path().join("ema/iter_5.safetensors"));
    test.args(small(dataset(), 5).iter().filter(|it| !it.starts_with("crop_size")))
        .arg("--work-dir")
        .arg(folder.path().join("test"));
    let tested = text(&ends_in(&mut test, 0).stdout);
    let miou = |line: &str| {
        line.split("mIoU: ").nth(1).and_then(|it| it.split(' ').next()).map(str::to_owned)
    };
    assert_eq!(
        miou(tested.lines().rfind(|it| it.contains("mIoU: ")).expect("a result")),
        miou(&validated)
    );
}

#[test]
fn a_run_with_averages_resumes_as_if_it_had_never_stopped() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hooks = "custom_hooks = [dict(type='EMAHook', momentum=0.25, interval=2), \
                 dict(type='EarlyStoppingHook', monitor='mIoU', patience=50)]";
    let config = config(folder.path(), hooks);
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    ends_in(&mut train(&config, &whole, 6, &[]), 0);
    let child = start(&mut train(&config, &broken, 6, &["train_dataloader.num_workers=0"]));
    wait_for_steps(&broken, 3);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGHUP).expect("the process is there");
    let (code, said) = outcome(child, Duration::from_mins(1));
    if code == Some(75) {
        assert!(said.contains("stopped by SIGHUP"), "{said}");
        let resumed = text(&ends_in(train(&config, &broken, 6, &[]).arg("--resume"), 0).stdout);
        assert!(
            resumed.contains("resumed at iteration ") && resumed.contains(", seed 7"),
            "{resumed}"
        );
    } else {
        assert_eq!(code, Some(0), "{said}");
    }
    assert_eq!(exact(&steps(&whole)), exact(&steps(&broken)));
    let read =
        |run: &Path| Checkpoint::read(&run.join("iter_6.safetensors")).expect("a checkpoint");
    let (whole, broken) = (read(&whole), read(&broken));
    assert_eq!(values(&whole.model, WEIGHT), values(&broken.model, WEIGHT));
    assert_eq!(values(&whole.trained, WEIGHT), values(&broken.trained, WEIGHT));
}

#[test]
fn a_training_that_improves_no_more_ends_early_and_well() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hook = "custom_hooks = [dict(type='EarlyStoppingHook', monitor='mIoU', patience=2, \
                min_delta=100.0)]";
    let config = config(folder.path(), hook);
    let work = folder.path().join("work");
    let told = text(
        &ends_in(
            &mut train(&config, &work, 20, &["train_cfg.val_interval=1", "train_cfg.val_begin=2"]),
            0,
        )
        .stdout,
    );
    // The validations of 2, 3 and 4: the first is the best, the other two do not improve.
    assert!(
        told.contains("the training ends early, after iteration 4: mIoU has not improved by 100"),
        "{told}"
    );
    assert_eq!(steps(&work).len(), 4);
    assert_eq!(
        fs::read_to_string(work.join("last_checkpoint")).expect("last_checkpoint"),
        "iter_4.safetensors"
    );
    let again = text(
        &ends_in(
            train(&config, &work, 20, &["train_cfg.val_interval=1", "train_cfg.val_begin=2"])
                .arg("--resume"),
            0,
        )
        .stdout,
    );
    assert!(again.contains("the training ends early, after iteration 4"), "{again}");
    let unknown = "custom_hooks = [dict(type='EarlyStoppingHook', monitor='mIou')]";
    let refused = ends_in(
        &mut train(&self::config(folder.path(), unknown), &folder.path().join("no"), 2, &[]),
        78,
    );
    assert!(
        text(&refused.stderr)
            .contains("EarlyStoppingHook.monitor is mIou, but the metrics are aAcc, mIoU, mAcc")
    );
}

#[test]
fn checkpoints_have_the_names_that_a_template_gives_and_the_best_ones_are_kept_and_published() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hook = "default_hooks = dict(checkpoint=dict(filename_tmpl='step_{:04d}.pth', \
                save_best=['mIoU', 'mDice'], rule='greater', published_keys=['meta', \
                'state_dict']))\nval_evaluator = dict(iou_metrics=['mIoU', 'mDice'])";
    let config = config(folder.path(), hook);
    let work = folder.path().join("work");
    let kept = ["default_hooks.checkpoint.max_keep_ckpts=2"];
    fs::create_dir(&work).expect("a folder");
    ends_in(&mut train(&config, &work, 6, &kept), 0);
    let names = files(&work, ".safetensors");
    assert!(
        names.contains("step_0004.safetensors") && names.contains("step_0006.safetensors"),
        "{names:?}"
    );
    assert!(!names.contains("step_0002.safetensors"), "{names:?}");
    let best = |metric: &str| {
        names.iter().filter(|it| it.starts_with(&format!("best_{metric}_step_000"))).count()
    };
    assert_eq!((best("mIoU"), best("mDice")), (1, 1), "{names:?}");

    let published = files(&work, ".pth");
    assert_eq!(published.len(), 3, "{published:?}");
    for name in &published {
        let digest = ends_in(harness::program("sha256sum").arg(work.join(name)), 0);
        let (_, end) =
            name.trim_end_matches(".pth").rsplit_once('-').expect("a checksum in the name");
        assert!(text(&digest.stdout).starts_with(end), "{name}");
    }
    let published = |folder: &Path| {
        let name = files(folder, ".pth")
            .into_iter()
            .find(|it| it.starts_with("step_"))
            .expect("published");
        Checkpoint::read(&folder.join(name)).expect("a checkpoint").meta.dataset_meta.classes.len()
    };
    let lean = folder.path().join("lean");
    ends_in(
        &mut train(&config, &lean, 2, &["default_hooks.checkpoint.published_keys=[state_dict]"]),
        0,
    );
    assert_eq!((published(&work), published(&lean)), (6, 0));
    // What somebody copied is nobody's to remove, and a resume finds the newest under the
    // template's name.
    fs::copy(work.join("step_0006.safetensors"), work.join("mine.safetensors")).expect("copies");
    let resumed = text(&ends_in(train(&config, &work, 8, &kept).arg("--resume"), 0).stdout);
    assert!(resumed.contains("resumed at iteration 6"), "{resumed}");
    let names = files(&work, ".safetensors");
    assert!(
        names.contains("mine.safetensors") && names.contains("step_0008.safetensors"),
        "{names:?}"
    );
    assert!(!names.contains("step_0004.safetensors"), "{names:?}");
}

#[test]
fn the_best_by_itself_is_the_first_metric_and_what_no_validation_gives_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let auto = config(
        folder.path(),
        "default_hooks = dict(checkpoint=dict(save_best='auto', save_optimizer=False))",
    );
    let work = folder.path().join("work");
    ends_in(&mut train(&auto, &work, 4, &[]), 0);
    assert!(files(&work, ".safetensors").contains("best_aAcc_iter_4.safetensors"));
    let lean = Checkpoint::read(&work.join("iter_4.safetensors")).expect("a checkpoint");
    assert!(lean.optimizer.is_empty());
    let wrong = config(
        folder.path(),
        "default_hooks = dict(checkpoint=dict(save_best=['mIoU', 'mFscore']))",
    );
    let refused = text(&ends_in(&mut train(&wrong, &folder.path().join("no"), 2, &[]), 78).stderr);
    assert!(
        refused.contains("save_best is mFscore, but the metrics are aAcc, mIoU, mAcc"),
        "{refused}"
    );
}

#[test]
fn evaluators_beside_each_other_need_names_of_their_own() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let two = "val_evaluator = [dict(type='IoUMetric', prefix='a'), dict(type='IoUMetric', \
               iou_metrics=['mDice'], prefix='b')]\ndefault_hooks = \
               dict(checkpoint=dict(save_best='b/mDice'))";
    let told = text(
        &ends_in(&mut train(&config(folder.path(), two), &folder.path().join("work"), 4, &[]), 0)
            .stdout,
    );
    let line = told.lines().rfind(|it| it.contains("a/mIoU: ")).expect("a result");
    assert!(
        ["a/aAcc: ", "a/mAcc: ", "b/aAcc: ", "b/mDice: "].iter().all(|it| line.contains(it)),
        "{line}"
    );
    assert!(told.contains("a/IoU") && told.contains("b/Dice"), "{told}");
    let alike =
        "val_evaluator = [dict(type='IoUMetric'), dict(type='IoUMetric', iou_metrics=['mDice'])]";
    let refused = text(
        &ends_in(&mut train(&config(folder.path(), alike), &folder.path().join("no"), 4, &[]), 78)
            .stderr,
    );
    assert!(refused.contains("val_evaluator gives aAcc more than once"), "{refused}");
}

#[test]
fn learning_rates_follow_the_batch_of_all_ranks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rate = |work: &Path| steps(work)[0].1["base_lr"].as_f64().expect("a rate");
    let plain = config(folder.path(), "param_scheduler = None");
    ends_in(&mut train(&plain, &folder.path().join("plain"), 1, &[]), 0);
    let scaled = config(
        folder.path(),
        "param_scheduler = None\nauto_scale_lr = dict(enable=True, base_batch_size=8)",
    );
    let one = folder.path().join("one");
    let told = text(&ends_in(&mut train(&scaled, &one, 1, &[]), 0).stdout);
    assert!(told.contains("a batch of 8, this one has 2: they are 0.25 times those"), "{told}");
    assert_eq!(rate(&one), rate(&folder.path().join("plain")) * 0.25);
    let lacking = config(folder.path(), "auto_scale_lr = dict(enable=True)");
    let refused =
        text(&ends_in(&mut train(&lacking, &folder.path().join("no"), 1, &[]), 78).stderr);
    assert!(refused.contains("base_batch_size"), "{refused}");
}

#[test]
fn a_run_tells_its_size_and_its_validations_in_the_log_and_paints_by_iteration() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let draw = config(
        folder.path(),
        "default_hooks = dict(visualization=dict(type='SegVisualizationHook', draw=True, \
         interval=1))",
    );
    let work = folder.path().join("work");
    let more = ["train_cfg.val_interval=2"];
    let told = text(&ends_in(&mut train(&draw, &work, 4, &more), 0).stdout);
    for words in [
        "10 images to train, 2 to validate, 6 classes",
        "million parameters; 4 iterations",
        "Iter(val) [1/2]    eta: ",
    ] {
        assert!(told.contains(words), "{words} is not in:\n{told}");
    }
    let runs = fs::read_dir(&work)
        .expect("the work dir")
        .flatten()
        .map(|it| it.path().join("vis_data/vis_image"));
    let painted =
        runs.filter(|it| it.is_dir()).map(|it| files(&it, ".png")).next().expect("pictures");
    assert_eq!(painted.len(), 4, "{painted:?}");
    assert!(
        painted.iter().any(|it| it.ends_with("_2.png"))
            && painted.iter().any(|it| it.ends_with("_4.png")),
        "{painted:?}"
    );
}

#[test]
fn averages_are_alike_on_all_ranks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = config(folder.path(), "custom_hooks = [dict(type='EMAHook', momentum=0.25)]");
    let work = folder.path().join("work");
    let mut command = segslurm();
    command.arg("dist_train").arg(&config).arg("2").arg("--work-dir").arg(&work);
    command.args(small(dataset(), 4).iter().filter(|it| !it.starts_with("crop_size")));
    command.args(["model.backbone.norm_cfg.type=SyncBN", "model.decode_head.norm_cfg.type=SyncBN"]);
    command.arg("model.auxiliary_head.norm_cfg.type=SyncBN");
    let (code, said) = outcome(start(&mut command), Duration::from_mins(2));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        !Checkpoint::read(&work.join("iter_4.safetensors"))
            .expect("a checkpoint")
            .trained
            .is_empty()
    );
}

/// The share that a step's weights have in the average, by the averages before.
type Share = fn(f64) -> f64;

#[test]
fn the_other_averages_are_their_formulas_and_statistics_are_averaged_where_that_is_asked() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let every = ["default_hooks.checkpoint.interval=1"];
    ends_in(&mut train(&config(folder.path(), ""), &folder.path().join("plain"), 5, &every), 0);
    let read = |run: &str, iteration: u64| {
        Checkpoint::read(&folder.path().join(run).join(format!("iter_{iteration}.safetensors")))
            .expect("a checkpoint")
    };
    let kinds: [(&str, &str, Share); 2] = [
        ("stochastic", "ema_type='StochasticWeightAverage'", |steps| 1.0 / (steps + 1.0)),
        ("annealing", "ema_type='MomentumAnnealingEMA', momentum=0.2, gamma=2", |steps| {
            f64::max(0.2, 2.0 / (2.0 + steps))
        }),
    ];
    for (name, settings, share) in kinds {
        let hook =
            format!("custom_hooks = [dict(type='EMAHook', {settings}, update_buffers=True)]");
        ends_in(&mut train(&config(folder.path(), &hook), &folder.path().join(name), 5, &every), 0);
        for tensor in [WEIGHT, MEAN] {
            let mut expected = values(&read("plain", 1).model, tensor);
            for iteration in 1..=5_u64 {
                let raw = values(&read("plain", iteration).model, tensor);
                if iteration > 1 {
                    let share = share((iteration - 1) as f64) as f32;
                    expected
                        .iter_mut()
                        .zip(&raw)
                        .for_each(|(average, raw)| *average += share * (raw - *average));
                }
                let found = values(&read(name, iteration).model, tensor);
                let apart = found
                    .iter()
                    .zip(&expected)
                    .map(|(found, expected)| (found - expected).abs())
                    .fold(0.0, f32::max);
                assert!(apart < 1e-6, "{name}, {tensor}, iteration {iteration}: {apart}");
            }
        }
    }
}

#[test]
fn two_ranks_end_early_together() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hook = "custom_hooks = [dict(type='EarlyStoppingHook', monitor='mIoU', patience=1, \
                min_delta=100.0)]";
    let work = folder.path().join("work");
    let mut command = segslurm();
    command
        .arg("dist_train")
        .arg(config(folder.path(), hook))
        .arg("2")
        .arg("--work-dir")
        .arg(&work);
    command
        .args(small(dataset(), 20).iter().filter(|it| !it.starts_with("crop_size")))
        .arg("train_cfg.val_interval=2");
    let (code, said) = outcome(start(&mut command), Duration::from_mins(2));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("the training ends early, after iteration 4: mIoU has not improved by 100"),
        "{said}"
    );
    assert_eq!(
        fs::read_to_string(work.join("last_checkpoint")).expect("last_checkpoint"),
        "iter_4.safetensors"
    );
}

#[test]
fn a_rate_falls_where_a_metric_stays_and_a_resumed_run_knows_since_when() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let schedule = "param_scheduler = [dict(type='LinearLR', start_factor=0.5, by_epoch=False, \
                    end=3), dict(type='ReduceOnPlateauLR', monitor='mIoU', rule='greater', \
                    threshold=100.0, patience=1, factor=0.5)]";
    let config = config(folder.path(), schedule);
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let often = ["train_cfg.val_interval=1"];
    ends_in(&mut train(&config, &whole, 6, &often), 0);
    let rates: Vec<f64> =
        steps(&whole).iter().map(|it| it.1["base_lr"].as_f64().expect("a rate")).collect();
    // 20 % better than nothing is the first validation; the third and the fifth are the second
    // without improvement.
    let expected = [0.5, 0.75, 1.0, 0.5, 0.5, 0.25].map(|it| it * rates[2]);
    assert!(
        rates.iter().zip(expected).all(|(rate, expected)| (rate - expected).abs() < 1e-12),
        "{rates:?}"
    );
    ends_in(&mut train(&config, &broken, 2, &often), 0);
    ends_in(train(&config, &broken, 6, &often).arg("--resume"), 0);
    assert_eq!(exact(&steps(&whole)), exact(&steps(&broken)));

    let unknown = "param_scheduler = [dict(type='ReduceOnPlateauLR', patience=1)]";
    let refused = ends_in(
        &mut train(&self::config(folder.path(), unknown), &folder.path().join("no"), 2, &[]),
        78,
    );
    assert!(
        text(&refused.stderr)
            .contains("param_scheduler.0.monitor is loss, but the metrics are aAcc, mIoU, mAcc")
    );
}

#[test]
fn validations_come_at_the_intervals_that_change_on_the_way() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work = folder.path().join("work");
    let config = config(folder.path(), "train_cfg = dict(dynamic_intervals=[(5, 1)])");
    ends_in(&mut train(&config, &work, 8, &["train_cfg.val_interval=3"]), 0);
    // mmengine looks one iteration ahead.
    assert_eq!(harness::validations(&work), [3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_test_tells_its_progress_in_the_log() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = config(folder.path(), "");
    let work = folder.path().join("work");
    ends_in(&mut train(&config, &work, 2, &[]), 0);
    let mut test = segslurm();
    test.arg("test")
        .arg(&config)
        .arg(work.join("iter_2.safetensors"))
        .arg("--work-dir")
        .arg(folder.path().join("test"));
    test.args(small(dataset(), 2).iter().filter(|it| !it.starts_with("crop_size")));
    ends_in(&mut test, 0);
    let log = harness::log(&folder.path().join("test")).expect("a log");
    assert!(log.contains("Iter(test) [1/2]    eta: ") && log.contains("Iter(test) [2/2]"), "{log}");
}
