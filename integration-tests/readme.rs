//! What the README tells a newcomer to do with a dataset of one's own, done to the letter.

use std::fs::{self, File};
use std::path::Path;

use crate::harness::{dataset, ends_in, segslurm, text};

/// The first YAML block under `heading`, without its indentation in the list.
fn block(heading: &str) -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"))
        .expect("the README");
    let section = readme.split(heading).nth(1).expect("the heading");
    let block = section
        .split("```yaml\n")
        .nth(1)
        .and_then(|it| it.split("```").next())
        .expect("a YAML block");
    let indent = block.len() - block.trim_start().len();
    block.lines().map(|line| line.get(indent..).unwrap_or_default().to_owned() + "\n").collect()
}

/// The demo's images in the layout of ADE20K, with label maps of three classes: 0 is no label.
fn three_classes(folder: &Path) {
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(dataset())
        .arg(folder)
        .status()
        .expect("cp starts");
    assert!(copied.success());
    for mode in ["training", "validation"] {
        for entry in
            fs::read_dir(folder.join("annotations").join(mode)).expect("label maps").flatten()
        {
            let mut reader = png::Decoder::new(std::io::BufReader::new(
                File::open(entry.path()).expect("opens"),
            ))
            .read_info()
            .expect("a PNG");
            let mut labels = vec![0; reader.output_buffer_size().expect("its size")];
            let info = reader.next_frame(&mut labels).expect("a label map");
            labels.iter_mut().for_each(|label| *label %= 4);
            let mut encoder = png::Encoder::new(
                File::create(entry.path()).expect("creates"),
                info.width,
                info.height,
            );
            encoder.set_color(info.color_type);
            encoder.write_header().and_then(|mut it| it.write_image_data(&labels)).expect("writes");
        }
    }
}

#[test]
fn the_example_of_a_dataset_of_ones_own_trains_and_tests() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir(folder.path().join("data")).expect("a folder");
    three_classes(&folder.path().join("data/mine"));
    std::os::unix::fs::symlink(root.join("configs"), folder.path().join("configs"))
        .expect("a link");
    let example = block("## Your own dataset");
    fs::write(folder.path().join("my_pspnet.yaml"), &example).expect("writes");

    let here = || {
        let mut command = segslurm();
        command.current_dir(folder.path());
        command
    };
    let merged = text(&ends_in(here().args(["config", "my_pspnet.yaml"]), 0).stdout);
    assert_eq!(merged.matches("num_classes: 3").count(), 2, "{merged}");

    // A smaller network and two steps; everything else is the example's.
    let small = [
        "model.backbone.depth=18",
        "model.decode_head.in_channels=512",
        "model.auxiliary_head.in_channels=256",
        "crop_size=[32,32]",
        "train_dataloader.batch_size=2",
        "train_cfg.max_iters=2",
        "train_cfg.val_interval=2",
    ];
    ends_in(here().args(["train", "my_pspnet.yaml", "--cfg-options"]).args(small), 0);
    let mut test = here();
    test.args([
        "test",
        "my_pspnet.yaml",
        "work_dirs/my_pspnet/iter_2.safetensors",
        "--show-dir",
        "painted",
        "--cfg-options",
    ]);
    let table = text(&ends_in(test.args(small), 0).stdout);
    for class in ["road", "car", "person"] {
        assert!(table.contains(class), "{table}");
    }

    // Other folders, and labels that begin at 0: what the text below the example says.
    let root = folder.path().join("data/mine");
    for (mode, short) in [("training", "train"), ("validation", "val")] {
        fs::create_dir(root.join(short)).expect("a folder");
        fs::rename(root.join("images").join(mode), root.join(short).join("rgb")).expect("moves");
        fs::rename(root.join("annotations").join(mode), root.join(short).join("masks"))
            .expect("moves");
    }
    let others = example
        .replace(
            "dataset: &mine\n",
            "dataset: &mine\n    data_prefix: {img_path: train/rgb, seg_map_path: train/masks}\n",
        )
        .replace(
            "dataset: *mine",
            "dataset: {<<: *mine, data_prefix: {img_path: val/rgb, seg_map_path: val/masks}}",
        )
        .replace("num_classes: 3", "num_classes: 4")
        .replace("[road, car", "[void, road, car")
        .replace("palette: [", "palette: [[0, 0, 0], ")
        .replace("reduce_zero_label: true", "reduce_zero_label: false");
    fs::write(folder.path().join("others.yaml"), others).expect("writes");
    let checked = ends_in(here().args(["train", "others.yaml", "--dry-run=every-file"]), 0);
    let said = text(&checked.stdout);
    assert!(
        said.contains("train_dataloader: 10 images, 4 classes")
            && said.contains("val_dataloader: 2 images, 4"),
        "{said}"
    );
    let notes = text(&checked.stderr);
    assert!(
        notes.contains("train_dataloader.dataset.reduce_zero_label is false, and so it is read"),
        "{notes}"
    );
    // Folders in the shared part alone are the training's in every set.
    let mistaken = example.replace(
        "dataset: &mine\n",
        "dataset: &mine\n    data_prefix: {img_path: train/rgb, seg_map_path: train/masks}\n",
    );
    fs::write(folder.path().join("mistaken.yaml"), mistaken).expect("writes");
    let notes = text(&ends_in(here().args(["config", "mistaken.yaml"]), 0).stderr);
    assert!(
        notes.contains(
            "val_dataloader.dataset has the images that train_dataloader.dataset is trained with"
        ),
        "{notes}"
    );
}
