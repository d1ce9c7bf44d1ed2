//! What is said to be saved is there and is what `--resume` takes: in used work dirs, with
//! `load_from`, with two runs at once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{self, CONFIG, dataset, ends_in, exact, segslurm, small, steps, text};
use crate::ranks::{dist_train, outcome, start};

fn checkpoints(folder: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(folder)
        .expect("a folder")
        .flatten()
        .map(|it| it.file_name().to_string_lossy().into_owned());
    names.filter_map(|it| it.strip_suffix(".safetensors").map(str::to_owned)).collect()
}

fn numbered(folder: &Path) -> BTreeSet<String> {
    checkpoints(folder)
        .into_iter()
        .filter(|it| !it.starts_with("best_") && !it.contains('-'))
        .collect()
}

/// Checkpoints of other runs whose names a run needed.
fn set_aside(folder: &Path) -> Vec<String> {
    checkpoints(folder)
        .into_iter()
        .filter(|it| !it.starts_with("best_") && it.contains('-'))
        .collect()
}

fn last_checkpoint(work_dir: &Path) -> String {
    fs::read_to_string(work_dir.join("last_checkpoint")).expect("last_checkpoint")
}

fn starts(work_dir: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(work_dir).into_iter().flatten().flatten().map(|it| it.path());
    entries.filter(|it| it.join("vis_data").is_dir()).collect()
}

/// Waits until the start that is not among `before` has logged `count` steps.
fn wait_for_new_steps(work_dir: &Path, before: &BTreeSet<PathBuf>, count: usize) {
    let deadline = Instant::now() + Duration::from_mins(2);
    loop {
        let new = starts(work_dir).into_iter().find(|it| !before.contains(it));
        let lines = new.and_then(|it| fs::read_to_string(it.join("vis_data/scalars.json")).ok());
        if lines.is_some_and(|it| it.lines().count() >= count) {
            return;
        }
        assert!(Instant::now() < deadline, "no {count} steps after two minutes");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Starts the command, interrupts it after `count` steps, and returns what it printed.
fn interrupted(command: &mut Command, work_dir: &Path, count: usize) -> String {
    let before = starts(work_dir);
    let child = start(command);
    wait_for_new_steps(work_dir, &before, count);
    signal(&child, Signal::SIGINT);
    let (code, said) = outcome(child, Duration::from_mins(1));
    assert_eq!(code, Some(75), "{said}");
    said
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).expect("the process is there");
}

/// Weights alone, as a `.pth`.
fn weights(folder: &Path) -> PathBuf {
    let (work, weights) = (folder.join("weights"), folder.join("weights.pth"));
    ends_in(harness::train(&work, 2).arg("randomness.seed=11"), 0);
    ends_in(segslurm().arg("convert").arg(work.join("iter_2.safetensors")).arg(&weights), 0);
    weights
}

#[test]
fn a_second_run_in_a_used_work_dir_keeps_what_it_saves_and_resume_goes_on_with_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work = folder.path().join("work");
    ends_in(&mut harness::train(&work, 8), 0);
    let keep_one = "default_hooks.checkpoint.max_keep_ckpts=1";
    let said =
        text(&ends_in(harness::train(&work, 6).args([keep_one, "randomness.seed=8"]), 0).stdout);
    let note = said
        .lines()
        .find(|it| it.contains("another run"))
        .unwrap_or_else(|| panic!("no line tells of it: {said}"));
    assert!(
        note.contains("iter_8.safetensors") && note.contains("--resume --cfg-options load_from="),
        "{note}"
    );
    assert_eq!(last_checkpoint(&work), "iter_6.safetensors");
    // The older run's 8 is not the second run's to remove, nor are its 2, 4 and 6, whose names the
    // second run needed.
    assert_eq!(numbered(&work), BTreeSet::from(["iter_6".to_owned(), "iter_8".to_owned()]));
    let older = set_aside(&work);
    let names: Vec<&str> = older.iter().filter_map(|it| it.split('-').next()).collect();
    assert_eq!(names, ["iter_2", "iter_4", "iter_6"]);

    let resumed = text(&ends_in(harness::train(&work, 7).args([keep_one, "--resume"]), 0).stdout);
    assert!(
        resumed.contains("iter_6.safetensors") && resumed.contains("resumed at iteration 6"),
        "{resumed}"
    );
    assert!(!resumed.contains("another run"), "{resumed}");
    assert_eq!(numbered(&work), BTreeSet::from(["iter_7".to_owned(), "iter_8".to_owned()]));

    // A run that passes the older one keeps that one's newest too, and what was set aside can be
    // gone on from.
    let aside = format!("load_from={}", work.join(&older[2]).display());
    let other = folder.path().join("other");
    let said = text(&ends_in(harness::train(&other, 7).args(["resume=true", &aside]), 0).stdout);
    assert!(said.contains("resumed at iteration 6"), "{said}");

    // The line's own words lead back to the older run.
    let back = format!("load_from={}", work.join("iter_8.safetensors").display());
    let said = text(
        &ends_in(harness::train(&work, 10).args(["--resume", "--cfg-options", &back]), 0).stdout,
    );
    assert!(said.contains("resumed at iteration 8"), "{said}");
    let said = text(&ends_in(harness::train(&work, 12).arg("--resume"), 0).stdout);
    assert!(said.contains("resumed at iteration 10"), "{said}");
}

#[test]
fn after_ctrl_c_in_a_used_work_dir_everything_is_where_it_is_said_to_be() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work = folder.path().join("work");
    ends_in(&mut harness::train(&work, 8), 0);
    let said = interrupted(
        harness::train(&work, 100_000).arg("default_hooks.checkpoint.max_keep_ckpts=1"),
        &work,
        3,
    );
    let path = said
        .split("everything is in ")
        .nth(1)
        .and_then(|it| it.split(": start again").next())
        .expect("a path");
    assert!(Path::new(path).is_file(), "{path} is not there");
    assert!(path.ends_with(&last_checkpoint(&work)), "{path}");
    let said = interrupted(harness::train(&work, 100_000).arg("--resume"), &work, 1);
    assert!(said.contains(&format!("resuming from {path}")), "{said}");
}

#[test]
fn a_run_killed_before_its_first_checkpoint_begins_again_and_never_ends_up_in_an_older_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (work, alone) = (folder.path().join("work"), folder.path().join("alone"));
    ends_in(&mut harness::train(&alone, 4), 0);
    ends_in(harness::train(&work, 8).arg("randomness.seed=8"), 0);
    let never = "default_hooks.checkpoint.interval=100000";
    let before = starts(&work);
    let mut child = start(harness::train(&work, 100_000).arg(never));
    wait_for_new_steps(&work, &before, 2);
    child.kill().expect("it is there");
    child.wait().expect("it ends");
    let said = text(&ends_in(harness::train(&work, 4).arg("--resume"), 0).stdout);
    assert!(
        said.contains("has no checkpoint yet: it begins again")
            && said.contains("iter_8.safetensors"),
        "{said}"
    );
    assert_eq!(exact(&steps(&work))[..4], exact(&steps(&alone))[..]);
}

#[test]
fn a_run_killed_before_its_first_checkpoint_begins_again_where_its_command_line_had_it_begin() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = format!("load_from={}", weights(folder.path()).display());
    let (work, alone) = (folder.path().join("work"), folder.path().join("alone"));
    ends_in(harness::train(&alone, 2).arg(&weights), 0);
    let mut child = start(
        harness::train(&work, 100_000).args([&weights, "default_hooks.checkpoint.interval=100000"]),
    );
    wait_for_new_steps(&work, &BTreeSet::new(), 2);
    child.kill().expect("it is there");
    child.wait().expect("it ends");
    ends_in(harness::train(&work, 2).arg("--resume"), 0);
    assert_eq!(exact(&steps(&work))[..2], exact(&steps(&alone))[..]);
}

#[test]
fn a_start_that_fails_before_its_first_step_leaves_the_latest_run_as_it_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work = folder.path().join("work");
    ends_in(&mut harness::train(&work, 4), 0);
    ends_in(harness::train(&work, 4).arg("load_from=/no/such/file.pth"), 66);
    let said = text(&ends_in(harness::train(&work, 6).arg("--resume"), 0).stdout);
    assert!(said.contains("resumed at iteration 4"), "{said}");
}

#[test]
fn load_from_in_the_config_is_where_a_run_begins_and_resume_goes_on_from_its_own_checkpoint() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = weights(folder.path());
    let config = harness::with_load_from(folder.path(), &weights);
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    ends_in(&mut harness::train_on(&config, &whole, 8), 0);
    // With --resume from the first start on, as scripts have it: it begins from the weights all the
    // same.
    let said = interrupted(harness::train_on(&config, &broken, 8).arg("--resume"), &broken, 3);
    assert!(said.contains("loading weights from"), "{said}");
    let said = text(&ends_in(harness::train_on(&config, &broken, 8).arg("--resume"), 0).stdout);
    assert!(said.contains("resumed at iteration") && !said.contains("weights.pth"), "{said}");
    assert_eq!(exact(&steps(&broken)), exact(&steps(&whole)));
}

#[test]
fn load_from_on_the_command_line_is_that_file_and_weights_alone_are_told_with_what_to_write() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work = folder.path().join("work");
    ends_in(&mut harness::train(&work, 8), 0);
    let four = format!("load_from={}", work.join("iter_4.safetensors").display());
    let said = text(
        &ends_in(harness::train(&work, 6).args(["--resume", "--cfg-options", &four]), 0).stdout,
    );
    assert!(said.contains("resumed at iteration 4"), "{said}");
    // It went back, so its own later checkpoints are not the newest any more.
    let said = text(&ends_in(harness::train(&work, 7).arg("--resume"), 0).stdout);
    assert!(said.contains("resumed at iteration 6"), "{said}");

    let weights = weights(folder.path());
    let weights = format!("load_from={}", weights.display());
    let said = text(
        &ends_in(harness::train(&work, 8).args(["--resume", "--cfg-options", &weights]), 65).stderr,
    );
    for part in [
        "weights alone",
        &format!("--cfg-options {weights} without --resume"),
        "iter_7.safetensors",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

#[test]
fn a_job_that_slurm_starts_again_goes_on_with_its_own_newest_checkpoint() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let other = folder.path().join("other");
    ends_in(harness::train(&other, 4).arg("randomness.seed=8"), 0);
    let file = format!("load_from={}", other.join("iter_4.safetensors").display());
    // A shell in a job, which Slurm has started so many times before.
    let job = |command: &mut Command, id: &str, restarts: u32| {
        command.env("SLURM_JOB_ID", id).env("SLURM_RESTART_COUNT", restarts.to_string());
    };
    for (name, resume) in [("new", false), ("resumed", true)] {
        let work = folder.path().join(name);
        // A used work dir: an older run is never what the job goes on with.
        ends_in(&mut harness::train(&work, 12), 0);
        let mut again = harness::train(&work, 100_000);
        again.arg(&file).args(resume.then_some("--resume"));
        job(&mut again, "77", 0);
        let said = interrupted(&mut again, &work, 3);
        let path = said
            .split("everything is in ")
            .nth(1)
            .and_then(|it| it.split(": start").next())
            .expect("a path")
            .to_owned();
        job(&mut again, "77", 1);
        let said = interrupted(&mut again, &work, 1);
        assert!(said.contains(&format!("resuming from {path}")), "{said}");
    }
    // One that Slurm ended before it began anything begins what it was asked for.
    let work = folder.path().join("new");
    let mut late = harness::train(&work, 2);
    job(&mut late, "78", 1);
    let said = text(&ends_in(&mut late, 0).stdout);
    assert!(!said.contains("resuming from") && !said.contains("resumed at"), "{said}");
}

#[test]
fn a_work_dir_has_one_training_at_a_time_and_a_dead_ones_lock_is_replaced() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work = folder.path().join("work");
    let mut first = start(&mut harness::train(&work, 100_000));
    wait_for_new_steps(&work, &BTreeSet::new(), 3);
    let said = text(&ends_in(&mut harness::train(&work, 2), 69).stderr);
    for part in [
        &format!("process {}", first.id()),
        "in use by another training",
        "--work-dir",
        "training.lock",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert_eq!(starts(&work).len(), 1, "nothing was written");
    // Every rank of a second one says so, and a test is no training.
    let (code, said) = outcome(start(&mut dist_train(&work, 2, 2)), Duration::from_mins(1));
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("in use by another training"), "{said}");
    let checkpoint = work.join(last_checkpoint(&work));
    let kept = folder.path().join("kept.safetensors");
    fs::copy(checkpoint, &kept).expect("copies");
    ends_in(
        segslurm()
            .args(["test", CONFIG])
            .arg(&kept)
            .arg("--work-dir")
            .arg(&work)
            .args(small(dataset(), 2)),
        0,
    );

    first.kill().expect("it is there");
    first.wait().expect("it ends");
    assert!(work.join("training.lock").exists());
    let said = text(&ends_in(&mut harness::train(&work, 2), 0).stdout);
    assert!(said.contains("took over") && said.contains("no such process"), "{said}");
    assert!(!work.join("training.lock").exists());
    // An error gives it back as well.
    ends_in(harness::train(&work, 4).arg("load_from=/no/such/file.pth"), 66);
    assert!(!work.join("training.lock").exists());
}

#[test]
fn checkpoints_in_a_shared_folder_have_one_training_at_a_time_and_last_checkpoint_leads_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("deep/out");
    let option = format!("default_hooks.checkpoint.out_dir={}", out.display());
    // Work dirs of one name meet in it; others have folders of their own.
    let (one, two) = (folder.path().join("one/work"), folder.path().join("two/work"));
    let first = start(harness::train(&one, 100_000).arg(&option));
    wait_for_new_steps(&one, &BTreeSet::new(), 1);
    let said = text(&ends_in(harness::train(&two, 2).arg(&option), 69).stderr);
    assert!(
        said.contains("deep/out") && said.contains("default_hooks.checkpoint.out_dir"),
        "{said}"
    );
    signal(&first, Signal::SIGTERM);
    let (code, said) = outcome(first, Duration::from_mins(1));
    assert_eq!(code, Some(75), "{said}");
    assert!(
        last_checkpoint(&one).starts_with("../../deep/out/work/iter_"),
        "{}",
        last_checkpoint(&one)
    );
    assert!(one.join(last_checkpoint(&one)).is_file());
    // Another work dir's run is not this one's to go on with, nor to prune.
    ends_in(
        harness::train(&two, 2).args([&option, "default_hooks.checkpoint.max_keep_ckpts=1"]),
        0,
    );
    let said = interrupted(harness::train(&one, 100_000).args([&option, "--resume"]), &one, 1);
    assert!(said.contains("resumed at iteration"), "{said}");
}

#[test]
fn tests_of_one_second_keep_the_metrics_of_each() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work = folder.path().join("work");
    ends_in(&mut harness::train(&work, 2), 0);
    let trained = starts(&work).len();
    let test = || {
        let mut command = segslurm();
        command
            .args(["test", CONFIG])
            .arg(work.join("iter_2.safetensors"))
            .arg("--work-dir")
            .arg(&work);
        command
            .args(small(dataset(), 2))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts")
    };
    let running: Vec<_> = (0..4).map(|_| test()).collect();
    for mut child in running {
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
    }
    let tested = starts(&work).into_iter().filter(|it| {
        let name = it.file_name().expect("a name").to_string_lossy().into_owned();
        it.join(format!("{name}.json")).is_file()
    });
    assert_eq!((tested.count(), starts(&work).len()), (4, trained + 4));
}

#[test]
fn a_metric_that_is_no_number_is_never_the_best() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("demo");
    assert!(
        Command::new("cp")
            .arg("-r")
            .arg(dataset())
            .arg(&data)
            .status()
            .expect("cp starts")
            .success()
    );
    for entry in fs::read_dir(data.join("annotations/validation")).expect("label maps").flatten() {
        let file = fs::File::create(entry.path()).expect("writes");
        let mut encoder = png::Encoder::new(file, 96, 64);
        encoder.set_color(png::ColorType::Grayscale);
        // With reduce_zero_label, 0 is what does not count.
        let mut writer = encoder.write_header().expect("a header");
        writer.write_image_data(&[0; 96 * 64]).expect("pixels");
    }
    let work = folder.path().join("work");
    let train = |data: &Path, iterations: u32| {
        let mut command = segslurm();
        command.args(["train", CONFIG, "--work-dir"]).arg(&work).args(small(data, iterations));
        command.args(["default_hooks.checkpoint.save_best=mAcc", "train_cfg.val_interval=2"]);
        command
    };
    let said = text(&ends_in(&mut train(&data, 4), 0).stdout);
    assert!(said.contains("mAcc is NaN, so this validation gives no best checkpoint"), "{said}");
    assert!(
        !checkpoints(&work).iter().any(|it| it.starts_with("best")),
        "{:?}",
        checkpoints(&work)
    );
    let said = text(&ends_in(train(dataset(), 6).arg("--resume"), 0).stdout);
    assert!(
        said.contains("resumed at iteration 4") && said.contains("the best mAcc so far"),
        "{said}"
    );
}

#[test]
fn a_best_checkpoint_has_a_safe_name_and_another_runs_best_stays() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work = folder.path().join("work");
    let best = ["val_evaluator.prefix=val", "default_hooks.checkpoint.save_best=val/mIoU"];
    ends_in(harness::train(&work, 4).args(best), 0);
    let first = work.join("best_val_mIoU_iter_4.safetensors");
    let bytes = fs::read(&first).expect("the first run's best");
    ends_in(
        harness::train(&work, 12)
            .args(best)
            .args(["randomness.seed=8", "train_cfg.val_interval=4"]),
        0,
    );
    assert_eq!(fs::read(&first).expect("it is there"), bytes, "the second run left it alone");
    assert_eq!(
        checkpoints(&work).iter().filter(|it| it.starts_with("best")).count(),
        2,
        "{:?}",
        checkpoints(&work)
    );
}

#[test]
fn what_a_run_writes_into_is_made_and_proven_before_the_first_step() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("taken");
    fs::write(&file, "a file").expect("writes");
    let below = file.join("below");
    let steps_made = |work: &Path| {
        starts(work).iter().any(|it| fs::metadata(it.join("vis_data/scalars.json")).is_ok())
    };
    for (name, key) in
        [("out", "default_hooks.checkpoint.out_dir"), ("maps", "val_evaluator.output_dir")]
    {
        let work = folder.path().join(name);
        let said = text(
            &ends_in(harness::train(&work, 4).arg(format!("{key}={}", below.display())), 73).stderr,
        );
        assert!(said.contains("taken/below") && said.contains(name_of(key)), "{said}");
        assert!(!steps_made(&work), "{name}");
    }
    let said = text(
        &ends_in(
            harness::train(folder.path(), 4).arg("default_hooks.checkpoint.save_best=mIuo"),
            78,
        )
        .stderr,
    );
    assert!(
        said.contains("save_best is mIuo") && said.contains("mIoU") && !steps_made(folder.path()),
        "{said}"
    );

    let (work, maps) = (folder.path().join("work"), folder.path().join("a/b/maps"));
    ends_in(
        harness::train(&work, 4).arg(format!("val_evaluator.output_dir={}", maps.display())),
        0,
    );
    assert!(fs::read_dir(&maps).expect("the folder").count() > 0);
    let test = |option: &str, folder: &Path| {
        let mut command = segslurm();
        command
            .args(["test", CONFIG])
            .arg(work.join("iter_4.safetensors"))
            .arg("--work-dir")
            .arg(&work)
            .arg(option)
            .arg(folder);
        command.args(small(dataset(), 2));
        command
    };
    for option in ["--out", "--show-dir"] {
        let said = text(&ends_in(&mut test(option, &below), 73).stderr);
        assert!(said.contains("taken/below"), "{said}");
    }
}

fn name_of(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}
