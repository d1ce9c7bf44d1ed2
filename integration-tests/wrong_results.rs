//! What would end well with wrong numbers: contradicting sections, labels that mean nothing,
//! outputs in each other's place.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::harness::{self, CONFIG, dataset, ends_in, says, segslurm, small, text};

const SIZE: [u32; 2] = [96, 64];

fn grey(path: &Path, value: impl Fn(u32) -> u8) {
    let mut encoder = png::Encoder::new(fs::File::create(path).expect("creates"), SIZE[0], SIZE[1]);
    encoder.set_color(png::ColorType::Grayscale);
    let pixels: Vec<u8> = (0..SIZE[0] * SIZE[1]).map(|at| value(at % SIZE[0])).collect();
    encoder.write_header().and_then(|mut it| it.write_image_data(&pixels)).expect("writes");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// A copy of the dataset in which label maps are halves of two values.
fn masks(to: &Path, left: u8, right: u8) -> PathBuf {
    let data = to.join("masks");
    let status = std::process::Command::new("cp")
        .arg("-r")
        .arg(dataset())
        .arg(&data)
        .status()
        .expect("cp starts");
    assert!(status.success());
    for split in ["training", "validation"] {
        for path in files(&data.join("annotations").join(split)) {
            grey(&path, |x| if x < SIZE[0] / 2 { left } else { right });
        }
    }
    data
}

const TWO: [&str; 4] = [
    "metainfo.classes=[background,road]",
    "metainfo.palette=None",
    "model.decode_head.num_classes=2",
    "model.auxiliary_head.num_classes=2",
];

/// What a short training on `data` prints.
fn trained(data: &Path, work_dir: &Path, extra: &[&str], code: i32) -> String {
    let mut command = segslurm();
    command
        .args(["train", CONFIG, "--work-dir"])
        .arg(work_dir)
        .args(small(data, 4))
        .args(TWO)
        .args(extra);
    let output = ends_in(&mut command, code);
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn masks_of_0_and_255_are_told_at_the_start_and_with_the_table() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = masks(folder.path(), 0, 255);
    let printed = trained(&data, &folder.path().join("work"), &["reduce_zero_label=false"], 0);
    says(
        &printed,
        &[
            "train_dataloader.dataset: 1 of 2 classes have no pixel in all 10 label maps: `road` \
             (1)",
            "0 = `background` (50.0 %), 255 = ignored (50.0 %)",
            "write 1 in place of 255 in the files",
            "val_dataloader.dataset: 1 of 2 classes",
            "val: 1 of 2 classes have no labelled pixel: road",
            "left out of",
        ],
    );
}

#[test]
fn labels_that_are_all_ignored_and_a_loss_of_0_are_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = masks(folder.path(), 0, 255);
    let printed = trained(&data, &folder.path().join("work"), &["reduce_zero_label=true"], 0);
    says(
        &printed,
        &[
            "no pixel of any class in all 10 label maps",
            "leave reduce_zero_label out",
            "the loss was exactly 0 in all 1 steps",
            "no pixel is labelled with any class",
        ],
    );
}

#[test]
fn good_labels_are_not_warned_of() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = masks(folder.path(), 0, 1);
    let printed = trained(&data, &folder.path().join("work"), &["reduce_zero_label=false"], 0);
    assert!(!printed.contains("WARN"), "{printed}");
}

#[test]
fn a_label_beyond_the_classes_is_named_in_validation_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = masks(folder.path(), 0, 1);
    let victim = files(&data.join("annotations/validation")).remove(0);
    grey(&victim, |_| 7);
    let printed = trained(&data, &folder.path().join("work"), &["reduce_zero_label=false"], 65);
    says(&printed, &["label 7", &victim.display().to_string(), "2 classes"]);
}

#[test]
fn sections_that_contradict_each_other_are_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work_dir = folder.path().join("work");
    let order = "val_dataloader.dataset.metainfo.classes=[road,background]";
    let more =
        ["val_dataloader.dataset.metainfo.palette=[[1,2,3]]", "model.auxiliary_head.num_classes=3"];
    let printed = trained(
        dataset(),
        &work_dir,
        &[order, more[0], more[1], "val_evaluator.ignore_index=0"],
        78,
    );
    says(
        &printed,
        &[
            "model.auxiliary_head.num_classes is 3, but model.decode_head.num_classes is 2",
            "val_dataloader.dataset.metainfo.palette has 1 colours",
            "in another order: label 0 is `road` here and `background` there",
            "val_evaluator.ignore_index is 0",
        ],
    );
    assert!(!work_dir.exists(), "nothing was begun");
}

/// A dataset whose images share names in several folders, with odd names beside, and a checkpoint
/// to test on it.
struct Nested {
    folder: tempfile::TempDir,
    checkpoint: PathBuf,
}

impl Nested {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let trained = folder.path().join("trained");
        ends_in(&mut harness::train(&trained, 2), 0);
        let (images, labels) =
            (folder.path().join("data/images"), folder.path().join("data/labels"));
        let from = files(&dataset().join("images/validation")).remove(0);
        let label = files(&dataset().join("annotations/validation")).remove(0);
        let latin = OsStr::from_bytes(b"b/caf\xe9");
        for name in [OsStr::new("a/1"), OsStr::new("b/1"), latin] {
            let file = |root: &Path, end: &str| {
                let mut name = name.to_owned();
                name.push(end);
                root.join(name)
            };
            for (from, to) in [(&from, file(&images, ".jpg")), (&label, file(&labels, ".png"))] {
                fs::create_dir_all(to.parent().expect("a folder")).expect("makes");
                fs::copy(from, to).expect("copies");
            }
        }
        fs::copy(&from, images.join("c.JPG")).expect("copies");
        fs::copy(&label, labels.join("alone.png")).expect("copies");
        Self { checkpoint: trained.join("iter_2.safetensors"), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn test(&self, arguments: &[&str], options: &[&str], code: i32) -> String {
        let mut command = segslurm();
        command
            .args(["test", CONFIG])
            .arg(&self.checkpoint)
            .arg("--work-dir")
            .arg(self.path("tested"))
            .args(arguments);
        command.args(small(&self.path("data"), 2));
        command.args(["test_dataloader.dataset.data_prefix.img_path=images"]);
        command.args(["test_dataloader.dataset.data_prefix.seg_map_path=labels"]).args(options);
        let output = ends_in(&mut command, code);
        text(&output.stdout) + &text(&output.stderr)
    }
}

#[test]
fn a_tests_files_are_named_by_the_path_below_the_image_folder_and_overwrite_nothing() {
    let nested = Nested::new();
    let written = [
        nested.path("out/a/1.png"),
        nested.path("out/b/1.png"),
        nested.path("out/b").join(OsStr::from_bytes(b"caf\xe9.png")),
    ];
    let out = nested.path("out").display().to_string();

    let printed = nested.test(&["--out", &out, "--show-dir", "painted"], &[], 0);
    says(
        &printed,
        &["1 file (c.JPG)", "img_suffix", "1 file (alone.png)", "without an image", "mIoU"],
    );
    assert!(written.iter().all(|it| it.exists()), "{:?}", files(&nested.path("out")));
    let start =
        files(&nested.path("tested")).into_iter().find(|it| it.is_dir()).expect("a start's folder");
    assert!(start.join("painted/b/1.png").exists());

    let labels = nested.path("data/labels");
    let before = fs::read(labels.join("a/1.png")).expect("a label map");
    let printed = nested.test(&["--out", &labels.display().to_string()], &[], 73);
    says(&printed, &["--out", "label map folder of test_dataloader.dataset", "another folder"]);
    // The images' names begin with the folder of label maps here.
    let root = nested.path("data").display().to_string();
    let below = [
        "test_dataloader.dataset.data_prefix.img_path=.",
        "test_dataloader.dataset.data_prefix.seg_map_path=.",
    ];
    fs::rename(nested.path("data/images/c.JPG"), nested.path("data/c.jpg")).expect("moves");
    fs::write(nested.path("data/c.png"), "precious").expect("writes");
    let list = "test_dataloader.dataset.ann_file=list.txt";
    fs::write(nested.path("data/list.txt"), "c\n").expect("writes");
    nested.test(&["--out", &root], &[below[0], below[1], list], 73);
    assert_eq!(fs::read(nested.path("data/c.png")).expect("still there"), b"precious");
    assert_eq!(fs::read(labels.join("a/1.png")).expect("a label map"), before);
}

#[test]
fn a_set_without_labels_is_tested_for_its_files_alone() {
    let nested = Nested::new();
    let unlabelled = "test_dataloader.dataset.data_prefix.seg_map_path=None";
    let out = nested.path("out").display().to_string();
    let printed = nested.test(&["--out", &out], &[unlabelled], 0);
    says(
        &printed,
        &["no metrics are computed: the test set has no label maps", "label maps are in"],
    );
    assert!(nested.path("out/a/1.png").exists() && nested.path("out/b/1.png").exists());
    let metrics = files(&nested.path("tested")).into_iter().filter(|it| it.is_dir());
    assert!(
        metrics.flat_map(|it| files(&it)).all(|it| it.extension() != Some(OsStr::new("json"))),
        "nothing was measured"
    );
    says(&nested.test(&[], &[unlabelled], 78), &["test_dataloader.dataset has no labels", "--out"]);

    says(
        &nested.test(&[], &["test_evaluator.format_only=true"], 78),
        &["test_evaluator.format_only", "output_dir", "--out"],
    );
    fs::remove_dir_all(nested.path("data/labels")).expect("removes");
    let formatted = format!("test_evaluator.output_dir={}", nested.path("formatted").display());
    let printed = nested.test(&[], &["test_evaluator.format_only=true", &formatted], 0);
    says(&printed, &["no metrics are computed: test_evaluator.format_only is true"]);
    assert!(nested.path("formatted/a/1.png").exists());
}

#[test]
fn images_and_label_maps_without_their_partners_are_counted_and_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = masks(folder.path(), 0, 1);
    let labels = data.join("annotations/validation");
    let victim = files(&labels).remove(0);
    fs::rename(&victim, victim.with_extension("PNG")).expect("renames");
    let gone = files(&data.join("annotations/training")).remove(0);
    fs::remove_file(&gone).expect("removes");
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    let printed = trained(&data, &folder.path().join("work"), &["reduce_zero_label=false"], 66);
    says(
        &printed,
        &[
            "1 of 2 images have no label map in",
            &format!("annotations/training: {}; check", name(&gone)),
            &format!("annotations/validation: {}; seg_map_suffix", name(&victim)),
            "seg_map_suffix: .PNG would fit 1 of the 1",
        ],
    );
}

#[test]
fn links_to_nothing_and_label_maps_that_cannot_be_read_are_told_before_the_first_step() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = masks(folder.path(), 0, 1);
    let work = folder.path().join("work");
    let run = |code: i32| trained(&data, &work, &["reduce_zero_label=false"], code);
    let gone = |path: &Path| {
        fs::remove_file(path).expect("removes");
        std::os::unix::fs::symlink("/gone/elsewhere.png", path).expect("links");
    };
    let label = files(&data.join("annotations/validation")).remove(0);
    let kept = fs::read(&label).expect("a label map");
    fs::write(&label, &kept[..kept.len() / 2]).expect("writes");
    says(&run(65), &["failed to decode label map", "annotations/validation"]);
    gone(&label);
    says(&run(66), &["1 of 2 images have no label map in", "annotations/validation"]);
    fs::remove_file(&label).expect("removes");
    fs::write(&label, &kept).expect("writes");
    gone(&files(&data.join("images/training")).remove(0));
    says(&run(66), &["links to nothing among the images in", "images/training", "1 file"]);
    assert!(!work.join("last_checkpoint").exists(), "nothing was trained");
}
