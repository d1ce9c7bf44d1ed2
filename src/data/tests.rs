//! Data as a whole: from files to batches.

#![expect(clippy::expect_used, reason = "tests")]

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::transform::{Entry, LabelRule};
use super::{
    Batch, DataError, DataloaderConfig, Dataset, DatasetConfig, Loader, LoaderOptions, Pipeline,
    Position, sample_rng,
};
use crate::config::parse_str;

const HEIGHT: usize = 24;
const WIDTH: usize = 32;

fn png(path: &Path, color: png::ColorType, data: &[u8]) {
    let mut encoder =
        png::Encoder::new(File::create(path).expect("creates"), WIDTH as u32, HEIGHT as u32);
    encoder.set_color(color);
    encoder.write_header().and_then(|mut it| it.write_image_data(data)).expect("writes");
}

/// Seven entries. Blue is the column, green the row, red the entry, and the label is the entry's
/// number everywhere but in the first row, which is nobody's.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["images", "labels"] {
        fs::create_dir(folder.path().join(name)).expect("a folder");
    }
    for entry in 0..7_u8 {
        let pixels =
            (0..HEIGHT * WIDTH).flat_map(|it| [entry * 30, (it / WIDTH) as u8, (it % WIDTH) as u8]);
        png(
            &folder.path().join(format!("images/{entry}.png")),
            png::ColorType::Rgb,
            &pixels.collect::<Vec<_>>(),
        );
        let labels = (0..HEIGHT * WIDTH).map(|it| if it < WIDTH { 255 } else { entry });
        png(
            &folder.path().join(format!("labels/{entry}.png")),
            png::ColorType::Grayscale,
            &labels.collect::<Vec<_>>(),
        );
    }
    folder
}

fn loader(folder: &Path, pipeline: &str, more: &str) -> DataloaderConfig {
    let text = format!(
        "{more}
dataset:
  type: BaseSegDataset
  data_root: {}
  data_prefix: {{img_path: images, seg_map_path: labels}}
  img_suffix: .png
  metainfo: {{classes: [a, b, c, d, e, f, g]}}
  pipeline: [{{type: LoadImageFromFile}}, {{type: LoadAnnotations}}, {pipeline} {{type: PackSegInputs}}]
",
        folder.display()
    );
    parse_str(&text).expect("a valid config")
}

fn dataset(config: &DatasetConfig) -> Arc<Dataset> {
    Arc::new(config.init().expect("a dataset"))
}

fn batches(config: &DataloaderConfig, options: &LoaderOptions, count: usize) -> Vec<Batch> {
    let loader = Loader::new(dataset(&config.dataset), config, options).expect("a loader");
    loader.take(count).collect::<Result<_, _>>().expect("batches")
}

const RANDOM: &str = "{type: RandomResize, scale: [48, 36], ratio_range: [0.5, 2.0], keep_ratio: true},
    {type: RandomCrop, crop_size: [16, 20], cat_max_ratio: 0.75}, {type: RandomFlip, prob: 0.5}, {type: PhotoMetricDistortion},";
const ENDLESS: &str = "sampler: {type: InfiniteSampler, shuffle: true}\nbatch_size: 3";

#[test]
fn neither_workers_nor_a_new_start_change_what_comes() {
    let folder = folder();
    let config = loader(folder.path(), RANDOM, ENDLESS);
    let options = LoaderOptions { seed: 5, repeat: true, ..LoaderOptions::default() };
    let expected = batches(&config, &options, 12);
    for num_workers in [1, 4] {
        assert_eq!(
            batches(&DataloaderConfig { num_workers, ..config.clone() }, &options, 12),
            expected,
            "{num_workers} workers"
        );
    }
    let later = LoaderOptions { start: Position { epoch: 0, batch: 7 }, ..options };
    assert_eq!(
        batches(&DataloaderConfig { num_workers: 2, ..config.clone() }, &later, 5),
        expected[7..]
    );
    assert_ne!(batches(&config, &LoaderOptions { seed: 6, ..options }, 12), expected);
}

#[test]
fn ranks_draw_what_one_rank_of_a_larger_batch_draws() {
    let folder = folder();
    let config = loader(folder.path(), RANDOM, ENDLESS);
    let options = LoaderOptions { seed: 5, repeat: true, ..LoaderOptions::default() };
    let whole = batches(&DataloaderConfig { batch_size: 6, ..config.clone() }, &options, 4);
    for rank in 0..2 {
        for (part, whole) in
            batches(&config, &LoaderOptions { rank, world: 2, ..options }, 4).iter().zip(&whole)
        {
            let expected: Vec<_> = whole.samples.iter().skip(rank).step_by(2).cloned().collect();
            assert_eq!(part.samples, expected, "rank {rank}");
        }
    }
}

#[test]
fn an_image_and_its_label_map_go_the_same_way() {
    let folder = folder();
    let pipeline = "{type: RandomCrop, crop_size: [16, 20]}, \
                    {type: RandomFlip, prob: 0.5, direction: [horizontal, vertical]},";
    let config = loader(folder.path(), pipeline, ENDLESS);
    let options = LoaderOptions { seed: 1, repeat: true, ..LoaderOptions::default() };
    let mut flips = std::collections::BTreeSet::new();
    for sample in batches(&config, &options, 20).iter().flat_map(|it| &it.samples) {
        let label = sample.label.as_ref().expect("a label map");
        assert_eq!((sample.image.shape(), label.shape()), ((16, 20), (16, 20)));
        let corner = |y, x| sample.image.pixel(y, x);
        for y in 0..16 {
            let [_, row, red] = corner(y, 0);
            assert_eq!(label.pixel(y, 0)[0], if row == 0 { 255 } else { red / 30 }, "row {row}");
        }
        flips.insert((corner(0, 0)[0] > corner(0, 19)[0], corner(0, 0)[1] > corner(15, 0)[1]));
    }
    // Left as it was, mirrored in one direction, mirrored in the other.
    assert_eq!(flips.len(), 3, "{flips:?}");
}

#[test]
fn a_crop_avoids_parts_that_one_class_fills_and_takes_what_there_is_after_ten_tries() {
    let folder = folder();
    let pipeline = "{type: RandomCrop, crop_size: [16, 20], cat_max_ratio: 0.75},";
    let config = loader(folder.path(), pipeline, ENDLESS);
    let options = LoaderOptions { seed: 1, repeat: true, ..LoaderOptions::default() };
    let batch = &batches(&config, &options, 1)[0];
    assert!(
        batch.samples.iter().all(|it| it.image.shape() == (16, 20)),
        "one class is everywhere here"
    );
}

#[test]
fn padding_fills_image_and_label_map_with_their_own_values() {
    let folder = folder();
    let config = loader(
        folder.path(),
        "{type: Pad, size: [40, 30], pad_val: {img: 9, seg: 255}},",
        "sampler: {type: DefaultSampler, shuffle: false}",
    );
    let sample = &batches(&config, &LoaderOptions::default(), 1)[0].samples[0];
    let label = sample.label.as_ref().expect("a label map");
    assert_eq!((sample.image.shape(), label.shape()), ((30, 40), (30, 40)));
    assert_eq!((sample.image.pixel(29, 39), label.pixel(29, 39)), ([9; 3], [255]));
    assert_eq!((sample.image.pixel(23, 31), label.pixel(23, 31)), ([31, 23, 0], [0]));
}

#[test]
fn an_epoch_ends_with_a_smaller_batch_or_none() {
    let folder = folder();
    for (more, sizes) in [("", vec![3, 3, 1]), ("\ndrop_last: true", vec![3, 3])] {
        let more = format!(
            "batch_size: 3\nnum_workers: 2\nsampler: {{type: DefaultSampler, shuffle: false}}{more}"
        );
        let config = loader(folder.path(), "", &more);
        let found: Vec<_> = batches(&config, &LoaderOptions::default(), 9)
            .iter()
            .map(|it| it.samples.len())
            .collect();
        assert_eq!(found, sizes);
    }
}

#[test]
fn an_error_of_a_worker_names_the_file_and_ends_the_loader() {
    let folder = folder();
    fs::write(folder.path().join("images/4.png"), "no picture").expect("writes");
    let config = loader(
        folder.path(),
        "",
        "num_workers: 3\nsampler: {type: DefaultSampler, shuffle: false}",
    );
    let mut loader = Loader::new(dataset(&config.dataset), &config, &LoaderOptions::default())
        .expect("a loader");
    let results: Vec<_> = loader.by_ref().collect();
    assert_eq!(results.len(), 5);
    let error = results[4].as_ref().expect_err("entry 4 is no picture");
    assert!(error.to_string().contains("images/4.png"), "{error}");
    assert!(loader.next().is_none());
}

#[test]
fn datasets_are_repeated_and_joined_and_must_agree_on_classes() {
    let folder = folder();
    let DataloaderConfig { dataset: part, .. } = loader(folder.path(), "", "");
    let twice = DatasetConfig::RepeatDataset(super::dataset::RepeatDataset {
        dataset: Box::new(part.clone()),
        times: 2,
        lazy_init: false,
    });
    let joined = DatasetConfig::ConcatDataset(super::dataset::ConcatDataset {
        datasets: vec![part.clone(), twice],
        lazy_init: false,
    });
    let joined = joined.init().expect("a dataset");
    assert_eq!(joined.len(), 21);
    assert_eq!(joined.paths(20).0.file_name(), joined.paths(6).0.file_name());
    assert_eq!((joined.below(6), joined.below(20)), ((0, "6.png".into()), (1, "6.png".into())));
    let survey = joined.survey(super::dataset::Look::EveryFile).expect("lists");
    assert!(survey.told.is_empty() && survey.outcome().is_ok());

    let DatasetConfig::BaseSegDataset(mut other) = part.clone() else { panic!("a folder dataset") };
    other.metainfo = parse_str("{classes: [a, b]}").expect("metainfo");
    let differing = DatasetConfig::ConcatDataset(super::dataset::ConcatDataset {
        datasets: vec![part, DatasetConfig::BaseSegDataset(other)],
        lazy_init: false,
    });
    let error = differing.init().expect_err("two lists of classes");
    assert!(
        matches!(error, DataError::Dataset { .. })
            && error.to_string().contains("different classes"),
        "{error}"
    );
}

/// What a pipeline of one transform after loading makes of an image of 24x32 pixels (height x
/// width): its size, or why it is refused.
fn resized(transform: &str) -> Result<(usize, usize), String> {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("a.png");
    png(&path, png::ColorType::Grayscale, &[7; HEIGHT * WIDTH]);
    let steps =
        parse_str(&format!("[{{type: LoadImageFromFile}}, {transform}, {{type: PackSegInputs}}]"))
            .expect("a pipeline");
    let rule = LabelRule {
        reduce_zero_label: false,
        label_map: None,
        ignore_index: 255,
        num_classes: None,
    };
    let pipeline = Pipeline::init(steps).map_err(|error| error.to_string())?;
    let entry = Entry { index: 0, img_path: &path, seg_map_path: None, rule: &rule };
    let sample = pipeline.run(entry, &mut sample_rng(0, 0, 0, 0)).expect("runs").remove(0);
    assert_eq!(sample.image.shape(), sample.meta.img_shape);
    Ok(sample.image.shape())
}

#[test]
fn resizes_come_to_mmsegs_sizes_and_refuse_what_cannot_be() {
    for (transform, size) in [
        ("{type: ResizeToMultiple}", (32, 32)),
        ("{type: ResizeToMultiple, size_divisor: 10}", (30, 40)),
        ("{type: ResizeShortestEdge, scale: 12, max_size: 100}", (12, 16)),
        ("{type: ResizeShortestEdge, scale: [500, 12], max_size: 8}", (6, 8)),
        (
            "{type: RandomChoiceResize, scales: [12], resize_type: ResizeShortestEdge, max_size: 8}",
            (6, 8),
        ),
        ("{type: RandomChoiceResize, scales: [[64, 12]], keep_ratio: true}", (12, 16)),
    ] {
        assert_eq!(resized(transform), Ok(size), "{transform}");
    }
    for (transform, why) in [
        ("{type: RandomChoiceResize, scales: [35], max_size: 40}", "max_size belongs to"),
        (
            "{type: RandomChoiceResize, scales: [35], resize_type: ResizeShortestEdge}",
            "needs a positive max_size",
        ),
        (
            "{type: RandomResize, scale: [9, 9], ratio_range: [1, 2], resize_type: ResizeShortestEdge}",
            "has to be Resize",
        ),
    ] {
        let error = resized(transform).expect_err(transform);
        assert!(error.contains(why), "{transform}: {error}");
    }
}
