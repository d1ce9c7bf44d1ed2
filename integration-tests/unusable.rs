//! Files that no training can use: found before its first step, all at once, with what to do about
//! each.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{CONFIG, dataset, ends_in, says, segslurm, small, text};

/// The project's small dataset, to be damaged.
struct Data {
    folder: tempfile::TempDir,
}

impl Data {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let copied = std::process::Command::new("cp")
            .arg("-r")
            .arg(dataset())
            .arg(folder.path().join("data"))
            .status();
        assert!(copied.expect("cp starts").success());
        Self { folder }
    }

    /// The files of `kind` (images, annotations) and `split`, in order.
    fn files(&self, kind: &str, split: &str) -> Vec<PathBuf> {
        let entries =
            fs::read_dir(self.folder.path().join("data").join(kind).join(split)).expect("a folder");
        let mut files: Vec<_> = entries.flatten().map(|it| it.path()).collect();
        files.sort();
        files
    }

    /// What `segslurm train` with these words says.
    fn train(&self, words: &[&str], options: &[&str], code: i32) -> String {
        let mut command = segslurm();
        command
            .args(["train", CONFIG])
            .args(words)
            .arg("--work-dir")
            .arg(self.folder.path().join("work"));
        command.args(small(&self.folder.path().join("data"), 2)).args(options);
        let output = ends_in(&mut command, code);
        assert!(!self.folder.path().join("work/last_checkpoint").exists(), "nothing was trained");
        text(&output.stdout) + &text(&output.stderr)
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("writes");
}

fn grey(path: &Path, [width, height]: [u32; 2], value: u8) {
    let mut encoder = png::Encoder::new(fs::File::create(path).expect("creates"), width, height);
    encoder.set_color(png::ColorType::Grayscale);
    let pixels = vec![value; (width * height) as usize];
    encoder.write_header().and_then(|mut it| it.write_image_data(&pixels)).expect("writes");
}

#[test]
fn files_of_both_sets_that_cannot_be_used_are_told_at_once_before_the_first_step() {
    let data = Data::new();
    let (labels, images) =
        (data.files("annotations", "training"), data.files("images", "training"));
    let cut = fs::read(&labels[0]).expect("a label map");
    write(&labels[0], &cut[..cut.len() / 2]);
    grey(&labels[1], [48, 32], 1);
    write(&labels[2], b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n");
    write(&labels[3], b"");
    grey(&labels[4], [96, 64], 77);
    write(&images[5], b"<!DOCTYPE html><html><body>404</body></html>");
    let cut = fs::read(&images[6]).expect("an image");
    write(&images[6], &cut[..cut.len() * 2 / 3]);
    write(&data.files("images", "validation")[0], &[0; 500]);
    let wrong = [
        "the file is truncated",
        "is 48x32 but its image",
        "a pointer of git-LFS and not the file itself: git lfs pull fetches it",
        "the file is empty",
        "has label 76 at row 0, column 0: expected 0 to 5 (6 classes)",
        "a page of HTML or XML, as a failed download leaves it: fetch it again",
        "nothing but zeros",
    ];
    for words in [&[][..], &["--dry-run"], &["--dry-run=every-file"]] {
        let said = data.train(words, &[], 65);
        says(&said, &wrong);
        assert_eq!(said.lines().filter(|it| it.contains("failed to decode")).count(), 6, "{said}");
        for path in [&labels[..5], &images[5..7]].concat() {
            says(&said, &[path.file_name().and_then(|it| it.to_str()).expect("a name")]);
        }
    }
}

#[test]
fn a_dry_run_of_every_file_finds_what_a_look_at_a_few_passes_by() {
    let data = Data::new();
    let list = data.folder.path().join("data/list.txt");
    let name =
        |path: &Path| path.file_stem().and_then(|it| it.to_str()).expect("a name").to_owned();
    let images = data.files("images", "training");
    let (bad, good) = (name(&images[0]), name(&images[1]));
    let lines: Vec<_> =
        (0..40).map(|line| if line == 21 { bad.clone() } else { good.clone() }).collect();
    write(&list, lines.join("\n").as_bytes());
    let label = &data.files("annotations", "training")[0];
    let kept = fs::read(label).expect("a label map");
    write(label, &kept[..kept.len() / 2]);
    let listed = ["train_dataloader.dataset.ann_file=list.txt"];
    says(
        &data.train(&["--dry-run"], &listed, 0),
        &["train_dataloader: 40 images", "nothing is wrong"],
    );
    let said = data.train(&["--dry-run=every-file"], &listed, 65);
    says(&said, &["failed to decode label map", &name(label)]);
    // A few of many: where something is found, the rest is spoken of.
    write(&list, vec![bad; 40].join("\n").as_bytes());
    let said = data.train(&["--dry-run"], &listed, 65);
    says(&said, &["of 40 entries 16 were looked at: --dry-run=every-file looks at all of them"]);
}

#[test]
fn an_image_that_is_turned_beside_its_label_map_is_told_with_the_key_that_leaves_it() {
    let data = Data::new();
    for path in data.files("images", "training") {
        let bytes = fs::read(&path).expect("an image");
        // A block of EXIF whose only entry says: turn by 90 degrees.
        let exif = b"\xff\xe1\x00\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        write(&path, &[&bytes[..2], exif, &bytes[2..]].concat());
    }
    let said = data.train(&["--dry-run"], &[], 65);
    says(
        &said,
        &[
            "is 96x64 but its image",
            "is 64x96",
            "EXIF orientation",
            "color_type: color_ignore_orientation",
        ],
    );
    data.train(&["--dry-run"], &["train_pipeline.0.color_type=color_ignore_orientation"], 0);
}

#[test]
fn label_maps_that_are_jpeg_are_warned_of_whatever_their_names() {
    let data = Data::new();
    let (images, labels) =
        (data.files("images", "training"), data.files("annotations", "training"));
    for (image, label) in images.iter().zip(&labels) {
        let picture = segslurm::data::read_image(image).expect("an image");
        let (width, height) = (picture.width as u16, picture.height as u16);
        let values = vec![1; picture.width * picture.height];
        jpeg_encoder::Encoder::new_file(label, 90)
            .and_then(|it| it.encode(&values, width, height, jpeg_encoder::ColorType::Luma))
            .expect("writes");
    }
    let said = data.train(&["--dry-run"], &[], 0);
    says(&said, &["10 of the 10 label maps looked at are JPEG", "write PNG"]);
}

#[test]
fn a_list_that_names_nothing_is_told_by_its_own_name() {
    let data = Data::new();
    let list = data.folder.path().join("data/list.txt");
    let listed = ["train_dataloader.dataset.ann_file=list.txt"];
    write(&list, b"gone_1\ngone_2\n");
    let said = data.train(&["--dry-run"], &listed, 66);
    says(&said, &["2 of 2 listed images of", "list.txt", "gone_1.jpg, gone_2.jpg"]);
    write(&list, b"a b c d\n");
    says(
        &data.train(&["--dry-run"], &listed, 65),
        &["list.txt:1: `a b c d` has more than two columns"],
    );
}
