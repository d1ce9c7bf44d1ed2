//! The user's mistakes, and machines that are too small: each is told as what it is, with what to
//! change, before the first step where that can be known; a terminal or a reader that goes away is
//! none.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{self, CONFIG, dataset, ends_in, segslurm, small, text};
use crate::ranks::{dist_train, outcome, start};

/// What it says on standard error, which must be told in these words, once each, without a panic's
/// or C++'s.
#[track_caller]
fn told(command: &mut Command, code: i32, words: &[&str]) -> String {
    let message = text(&ends_in(command, code).stderr);
    for word in words {
        assert!(message.contains(word), "{word} is not in:\n{message}");
    }
    for word in ["panicked", "segslurm's own", "frame #", "Exception raised", "called `Result"] {
        assert!(!message.contains(word), "{word} is in:\n{message}");
    }
    said_once(&message);
    message
}

/// No clause of some length stands in the error twice.
#[track_caller]
fn said_once(message: &str) {
    let error = message.split("error: ").last().unwrap_or_default();
    for clause in error.split(": ").filter(|it| it.len() > 12) {
        assert!(error.matches(clause).count() == 1, "{clause} is said twice in:\n{message}");
    }
}

fn train(work_dir: &Path, iterations: u32, options: &[&str]) -> Command {
    let mut command = harness::train(work_dir, iterations);
    command.args(options);
    command
}

/// The same with so little address space that a large batch finds none. Its size is what the
/// program needs by itself, and more.
fn within(gibibytes: u32, command: &Command) -> Command {
    let mut limited = harness::program("bash");
    let line = format!("ulimit -v {}; exec \"$@\"", gibibytes << 20);
    limited.args(["-c", &line, "bash"]).arg(command.get_program()).args(command.get_args());
    limited
}

const EPOCHS: [&str; 2] =
    ["train_dataloader.sampler.type=DefaultSampler", "train_dataloader.batch_size=3"];

#[test]
fn a_batch_of_one_under_batch_norm_is_found_before_the_first_step() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let words = [
        "batch_size is 1",
        "model.decode_head.psp_modules.0.1.bn",
        "SyncBN",
        "train_dataloader.batch_size",
    ];
    let message = told(
        &mut train(&folder.path().join("a"), 4, &["train_dataloader.batch_size=1"]),
        78,
        &words,
    );
    assert!(!message.contains("drop_last"), "it would not help: {message}");
    assert!(harness::steps(&folder.path().join("a")).is_empty(), "nothing was trained");

    // Ten images in batches of three: the fourth batch has one.
    let words =
        ["last batch of an epoch", "10 images in batches of 3", "train_dataloader.drop_last: true"];
    told(&mut train(&folder.path().join("b"), 4, &EPOCHS), 78, &words);
}

#[test]
fn a_batch_of_one_that_harms_nothing_trains() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let trains = |name: &str, iterations, options: &[&str]| {
        ends_in(&mut train(&folder.path().join(name), iterations, options), 0);
    };
    trains("never reached", 3, &EPOCHS);
    trains("dropped", 4, &[EPOCHS[0], EPOCHS[1], "train_dataloader.drop_last=true"]);
    trains(
        "no cell alone",
        2,
        &["train_dataloader.batch_size=1", "model.decode_head.pool_scales=[2,3]"],
    );
    let mut ranks = dist_train(&folder.path().join("ranks"), 2, 2);
    ends_in(ranks.args(["train_dataloader.batch_size=1", "norm_cfg.type=SyncBN"]), 0);
}

#[test]
fn numbers_that_no_run_can_use_are_named_together_with_their_keys() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = [
        "train_dataloader.batch_size=0",
        "train_dataloader.num_workers=-1",
        "train_cfg.max_iters=0",
        "train_cfg.val_interval=0",
        "default_hooks.logger.interval=0",
        "default_hooks.checkpoint.interval=0",
        "crop_size=[0,32]",
        "optimizer.lr=-1",
        "model.decode_head.dropout_ratio=1.5",
        "param_scheduler.1.power=-1",
    ];
    let words = [
        "train_dataloader.batch_size: expected a whole number, 1 or more, found the integer 0",
        "train_dataloader.num_workers: expected a whole number, 0 or more, found the integer -1",
        "train_cfg.max_iters:",
        "train_cfg.val_interval:",
        "default_hooks.logger.interval:",
        "default_hooks.checkpoint.interval: expected a whole number, 1 or more, or -1 for never",
        "train_dataloader.dataset.pipeline.3.crop_size: expected a whole number of pixels",
        "optim_wrapper.optimizer.lr: expected a finite number, 0 or more, found the integer -1",
        "model.decode_head.dropout_ratio: expected a number from 0 to 1",
        "param_scheduler.1.power: expected a finite number, 0 or more",
    ];
    let output = ends_in(&mut train(&folder.path().join("work"), 4, &options), 78);
    let message = text(&output.stderr);
    for word in words {
        assert!(message.contains(word), "{word} is not in:\n{message}");
    }
    assert!(!folder.path().join("work").exists(), "nothing was begun");
}

#[test]
fn a_lack_of_memory_in_training_names_the_batch_and_what_to_change() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let large = [
        "crop_size=[6000,6000]",
        "train_dataloader.batch_size=4",
        "train_pipeline.2.ratio_range=[1,1]",
    ];
    let command = train(&folder.path().join("work"), 4, &large);
    let words = [
        "memory ran out over a batch of 4 images",
        ".jpg",
        "can't allocate memory",
        "train_dataloader.batch_size",
    ];
    told(&mut within(4, &command), 71, &words);
}

#[test]
fn a_lack_of_memory_in_a_test_names_the_picture_and_windows_that_fit() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    ends_in(&mut harness::train(&folder.path().join("work"), 2), 0);
    let mut command = segslurm();
    command.args(["test", CONFIG]).arg(folder.path().join("work/iter_2.safetensors"));
    command.arg("--work-dir").arg(folder.path().join("test")).args(small(dataset(), 2));
    command.args(["test_pipeline.1.scale=[9000,6000]", "test_pipeline.1.keep_ratio=false"]);
    let words = ["memory ran out over an image of 6000x9000", ".jpg", "model.test_cfg", "slide"];
    told(&mut within(4, &command), 71, &words);
}

#[test]
fn a_picture_that_does_not_fit_into_memory_is_named_with_its_size() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let command = train(
        &folder.path().join("a"),
        4,
        &[
            "train_pipeline.2.scale=[60000,60000]",
            "train_pipeline.3.cat_max_ratio=1",
            "crop_size=[60000,60000]",
        ],
    );
    told(
        &mut within(4, &command),
        71,
        &["image", ".jpg does not fit into memory", "GB", "crop_size"],
    );

    // A label map of a hundred bytes whose header promises 3.6 gigabytes is none that memory would
    // be taken for.
    let data = folder.path().join("demo");
    let status =
        Command::new("cp").arg("-r").arg(dataset()).arg(&data).status().expect("cp starts");
    assert!(status.success());
    for entry in fs::read_dir(data.join("annotations/training")).expect("label maps").flatten() {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 60_000, 60_000);
        encoder.set_color(png::ColorType::Grayscale);
        let mut writer = encoder.write_header().expect("a header");
        writer.write_chunk(png::chunk::IDAT, &[0x78, 0x9c, 0x03, 0, 0, 0, 0, 1]).expect("a chunk");
        writer.finish().expect("an end");
        fs::write(entry.path(), bytes).expect("writes");
    }
    let mut command = segslurm();
    command
        .args(["train", CONFIG, "--work-dir"])
        .arg(folder.path().join("b"))
        .args(small(&data, 4));
    told(&mut within(3, &command), 65, &["label map", ".png: its header says 60000x60000 pixels"]);
}

#[test]
fn labels_out_of_range_are_named_in_training_and_in_validation() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let three = [
        "model.decode_head.num_classes=3",
        "model.auxiliary_head.num_classes=3",
        "metainfo.classes=[a,b,c]",
        "metainfo.palette=[[0,0,0],[1,1,1],[2,2,2]]",
    ];
    let words = ["label map", ".png has label", "row", "3 classes"];
    let message = told(&mut train(&folder.path().join("a"), 4, &three), 65, &words);
    assert!(message.contains("annotations/training"), "{message}");
    // The same in a validation alone: the training's labels are all of the first class.
    let validation =
        ["train_dataloader.dataset.data_prefix.seg_map_path=ignored", "train_cfg.val_interval=1"];
    let data = folder.path().join("demo");
    let status =
        Command::new("cp").arg("-r").arg(dataset()).arg(&data).status().expect("cp starts");
    assert!(status.success());
    fs::create_dir(data.join("ignored")).expect("a folder");
    for entry in fs::read_dir(data.join("annotations/training")).expect("label maps").flatten() {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 96, 64);
        encoder.set_color(png::ColorType::Grayscale);
        let mut writer = encoder.write_header().expect("a header");
        writer.write_image_data(&[1; 96 * 64]).expect("pixels");
        writer.finish().expect("an end");
        fs::write(data.join("ignored").join(entry.file_name()), bytes).expect("writes");
    }
    let mut command = segslurm();
    command
        .args(["train", CONFIG, "--work-dir"])
        .arg(folder.path().join("b"))
        .args(small(&data, 4))
        .args(three)
        .args(validation);
    let message = told(&mut command, 65, &words);
    assert!(message.contains("annotations/validation"), "{message}");
}

#[test]
fn log_levels_have_pythons_names_and_a_wrong_filter_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let quiet = ends_in(&mut train(&folder.path().join("a"), 2, &["log_level=WARNING"]), 0);
    assert!(!text(&quiet.stdout).contains("INFO"), "{}", text(&quiet.stdout));
    told(
        &mut train(&folder.path().join("b"), 2, &["log_level=LOUD"]),
        78,
        &["log_level", "`LOUD`", "CRITICAL"],
    );
    let mut command = train(&folder.path().join("c"), 2, &[]);
    told(command.env("SEGSLURM_LOG", "info,debgu"), 2, &["SEGSLURM_LOG", "`debgu`", "DEBUG"]);
    let mut command = train(&folder.path().join("d"), 2, &[]);
    told(command.env("SEGSLURM_LOG", "segslurm=loud"), 2, &["SEGSLURM_LOG", "segslurm=loud"]);
}

/// A line of bash in which `$SEGSLURM` is the program.
fn bash(line: &str) -> Command {
    let mut command = harness::program("bash");
    command
        .args(["-c", line])
        .env("SEGSLURM", env!("CARGO_BIN_EXE_segslurm"))
        .env("CONFIG", CONFIG);
    command
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    for line in [
        "$SEGSLURM config $CONFIG | head -c 1 >/dev/null",
        "$SEGSLURM --help | head -c 1 >/dev/null",
        "$SEGSLURM train --help | true",
        "$SEGSLURM env | true",
        "$SEGSLURM train no-such.yaml 2>&1 | true",
    ] {
        let output =
            bash(&format!("{line}; echo ${{PIPESTATUS[0]}}")).output().expect("bash starts");
        let (code, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(["0\n", "66\n"].contains(&code.as_str()), "{line} ended in {code}{errors}");
        assert!(
            !errors.contains("panicked") && !errors.contains("Broken pipe"),
            "{line}: {errors}"
        );
    }
    let full = ends_in(&mut bash("$SEGSLURM config $CONFIG >/dev/full"), 73);
    assert!(
        text(&full.stderr).contains("cannot write to standard output"),
        "{}",
        text(&full.stderr)
    );
}

/// Starts a training of which the first lines are read, and hangs its terminal up after a step; its
/// exit code.
fn hung_up(command: &mut Command, work_dir: &Path) -> Option<i32> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("starts");
    let mut first = [0_u8; 64];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut first).expect("its first line");
    while harness::steps_so_far(work_dir) == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    // Nobody reads any more.
    drop((child.stdout.take(), child.stderr.take()));
    kill(Pid::from_raw(-(child.id() as i32)), Signal::SIGHUP).expect("a signal");
    child.wait().expect("it ends").code()
}

#[test]
fn a_training_saves_and_stops_when_its_terminal_goes_away_unless_it_was_started_to_stay() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work_dir = folder.path().join("work");
    assert_eq!(hung_up(&mut train(&work_dir, 60, &[]), &work_dir), Some(75));
    let steps = harness::steps(&work_dir).len();
    assert!(work_dir.join(format!("iter_{steps}.safetensors")).exists());
    let work_dir = folder.path().join("stays");
    let plain = train(&work_dir, 12, &[]);
    let mut stays = harness::program("nohup");
    stays.arg(plain.get_program()).args(plain.get_args());
    assert_eq!(hung_up(&mut stays, &work_dir), Some(0));
    assert_eq!(harness::steps(&work_dir).len(), 12);
}

#[test]
fn ranks_save_and_stop_when_the_launchers_terminal_goes_away() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work_dir = folder.path().join("work");
    let child = start(dist_train(&work_dir, 2, 60).process_group(0));
    while harness::steps_so_far(&work_dir) == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    kill(Pid::from_raw(-(child.id() as i32)), Signal::SIGHUP).expect("a signal");
    let (code, said) = outcome(child, Duration::from_mins(5));
    assert_eq!(code, Some(75), "{said}");
    assert!(
        work_dir.join(format!("iter_{}.safetensors", harness::steps(&work_dir).len())).exists()
    );
}

#[test]
fn a_cause_is_told_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let missing = folder.path().join("missing.safetensors");
    let missing = missing.to_string_lossy();
    let broken = folder.path().join("broken.yaml");
    fs::write(&broken, "model: [").expect("writes");
    let option = |text: &str| train(&folder.path().join("work"), 2, &[text]);
    let test = |checkpoint: &str| {
        let mut command = segslurm();
        command.args(["test", CONFIG, checkpoint]).args(small(dataset(), 2));
        command
    };
    let plain = |arguments: &[&str]| {
        let mut command = segslurm();
        command.args(arguments);
        command
    };
    let broken = broken.to_string_lossy();
    for (mut command, code) in [
        (option(&format!("load_from={missing}")), 66),
        (option("load_from=/dev/null/x.pth"), 65),
        (option(&format!("load_from={}", folder.path().display())), 65),
        (option("model.pretrained=/no/such/file.pth"), 66),
        (option("train_dataloader.dataset.ann_file=/proc/1/mem"), 65),
        (test(&missing), 66),
        (plain(&["config", "/no/such/config.yaml"]), 66),
        (plain(&["config", &broken]), 78),
        (plain(&["convert", &missing, "out.pth"]), 66),
        (plain(&["train", CONFIG, "--work-dir", "/proc/nothing/here"]), 73),
        (plain(&["demo-data", "/proc/nothing"]), 73),
    ] {
        let output = command.output().expect("the program starts");
        let message = text(&output.stderr);
        assert!(
            output.status.code().is_some_and(|it| it == code || it != 0),
            "{command:?}: {message}"
        );
        assert!(
            !message.contains("panicked") && !message.contains("segslurm's own"),
            "{command:?}: {message}"
        );
        said_once(&message);
    }
}
