//! Intersection over union, Dice and F-score from areas summed over all images, as mmseg's
//! IoUMetric computes them.
//!
//! Only counts are kept: they add up over images and over ranks, so a metric never depends on the
//! number of ranks.

use std::path::PathBuf;

use comfy_table::{CellAlignment, Table};
use indexmap::IndexMap;
use serde::Deserialize;

use crate::config::OneOrMany;

/// The `val_evaluator` and `test_evaluator` sections, `type: IoUMetric`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IoUMetricConfig {
    /// Which metrics: `mIoU`, `mDice`, `mFscore`; one or a list.
    pub iou_metrics: OneOrMany<IoUKind>,
    /// Pixels with this label are not compared; 255 unless given.
    pub ignore_index: Option<u8>,
    /// Replaces a metric that is not a number (a class without a pixel) before the mean.
    pub nan_to_num: Option<f64>,
    /// The weight of precision against recall in the F-score.
    #[serde(deserialize_with = "crate::config::above_zero")]
    pub beta: f64,
    /// Label maps are written here as PNG.
    pub output_dir: Option<PathBuf>,
    /// Only write label maps, compute nothing.
    pub format_only: bool,
    /// Prepended to each metric's name, with a slash.
    pub prefix: Option<String>,
    /// Where mmengine gathers the results of ranks. Only counts travel here: without effect.
    pub collect_device: Option<CollectDevice>,
}

/// `collect_device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CollectDevice {
    Cpu,
    Gpu,
}

impl IoUMetricConfig {
    /// What stands before each metric's name; an empty prefix is none.
    pub fn prefix(&self) -> String {
        self.prefix
            .as_ref()
            .filter(|it| !it.is_empty())
            .map_or(String::new(), |it| format!("{it}/"))
    }

    /// The label whose pixels are not compared.
    pub fn ignored(&self) -> u8 {
        self.ignore_index.unwrap_or(255)
    }
}

impl Default for IoUMetricConfig {
    fn default() -> Self {
        Self {
            iou_metrics: OneOrMany(vec![IoUKind::MIoU]),
            ignore_index: None,
            nan_to_num: None,
            beta: 1.0,
            output_dir: None,
            format_only: false,
            prefix: None,
            collect_device: None,
        }
    }
}

/// One of the metrics that IoUMetric can compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum IoUKind {
    #[serde(rename = "mIoU")]
    MIoU,
    #[serde(rename = "mDice")]
    MDice,
    #[serde(rename = "mFscore")]
    MFscore,
}

/// Pixel counts of each class: predicted and right, predicted, labelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    pub intersect: Vec<i64>,
    pub predicted: Vec<i64>,
    pub labelled: Vec<i64>,
}

impl Counts {
    pub(crate) fn new(classes: usize) -> Self {
        Self {
            intersect: vec![0; classes],
            predicted: vec![0; classes],
            labelled: vec![0; classes],
        }
    }

    /// Adds an image's pixels: `predicted` and `labels` of the same length; pixels labelled
    /// `ignore_index` do not count. Labels at or above the number of classes count as predicted
    /// pixels only, as in mmseg.
    pub(crate) fn add(&mut self, predicted: &[u8], labels: &[u8], ignore_index: u8) {
        let classes = self.intersect.len();
        // One pass over the pixels into a joint table; the three vectors are its diagonal and its
        // sums.
        let mut joint = vec![0_u32; 256 * 256];
        for (&class, &label) in predicted.iter().zip(labels) {
            joint[usize::from(label) * 256 + usize::from(class)] += 1;
        }
        for label in (0..256).filter(|&label| label != usize::from(ignore_index)) {
            let row = &joint[label * 256..][..256];
            for (class, &count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
                let count = i64::from(count);
                if class < classes {
                    self.predicted[class] += count;
                }
                if label < classes {
                    self.labelled[label] += count;
                    if class == label {
                        self.intersect[label] += count;
                    }
                }
            }
        }
    }

    /// The counts as one list, for an all-reduce over ranks.
    pub(crate) fn to_list(&self) -> Vec<i64> {
        [&self.intersect[..], &self.predicted[..], &self.labelled[..]].concat()
    }

    /// The reverse of [`Counts::to_list`]; the length must be three times the number of classes.
    pub(crate) fn from_list(list: &[i64]) -> Self {
        let classes = list.len() / 3;
        let part = |index: usize| list[index * classes..][..classes].to_vec();
        Self { intersect: part(0), predicted: part(1), labelled: part(2) }
    }

    /// The metrics that `config` asks for.
    pub(crate) fn metrics(&self, config: &IoUMetricConfig, classes: &[String]) -> Metrics {
        let mut per_class: IndexMap<String, Vec<f64>> = IndexMap::new();
        let ratio = |over: &dyn Fn(usize) -> f64, under: &dyn Fn(usize) -> f64| -> Vec<f64> {
            (0..self.intersect.len()).map(|class| over(class) / under(class)).collect()
        };
        let intersect = |class: usize| self.intersect[class] as f64;
        let predicted = |class: usize| self.predicted[class] as f64;
        let labelled = |class: usize| self.labelled[class] as f64;
        for kind in config.iou_metrics.iter() {
            match kind {
                IoUKind::MIoU => {
                    per_class.insert(
                        "IoU".to_owned(),
                        ratio(&intersect, &|class| {
                            predicted(class) + labelled(class) - intersect(class)
                        }),
                    );
                    per_class.insert("Acc".to_owned(), ratio(&intersect, &labelled));
                }
                IoUKind::MDice => {
                    per_class.insert(
                        "Dice".to_owned(),
                        ratio(&|class| 2.0 * intersect(class), &|class| {
                            predicted(class) + labelled(class)
                        }),
                    );
                    per_class.insert("Acc".to_owned(), ratio(&intersect, &labelled));
                }
                IoUKind::MFscore => {
                    let precision = ratio(&intersect, &predicted);
                    let recall = ratio(&intersect, &labelled);
                    let beta = config.beta * config.beta;
                    let score = precision
                        .iter()
                        .zip(&recall)
                        .map(|(p, r)| (1.0 + beta) * p * r / (beta * p + r))
                        .collect();
                    per_class.insert("Fscore".to_owned(), score);
                    per_class.insert("Precision".to_owned(), precision);
                    per_class.insert("Recall".to_owned(), recall);
                }
            }
        }
        let absent = Absent::of(self, classes, &per_class, config.nan_to_num);
        let number = |value: f64| config.nan_to_num.filter(|_| value.is_nan()).unwrap_or(value);
        per_class.values_mut().flatten().for_each(|value| *value = number(*value));
        let total = |counts: &[i64]| counts.iter().sum::<i64>() as f64;
        let prefix = config.prefix();
        let mut summary = IndexMap::new();
        summary.insert(
            format!("{prefix}aAcc"),
            percent(number(total(&self.intersect) / total(&self.labelled))),
        );
        for (name, values) in &per_class {
            // The field calls the mean of IoU "mIoU", of accuracy "mAcc", and so on.
            summary.insert(format!("{prefix}m{name}"), percent(mean_of_numbers(values)));
        }
        let per_class = per_class
            .into_iter()
            .map(|(name, values)| (name, values.into_iter().map(percent).collect()))
            .collect();
        Metrics { summary, classes: classes.to_vec(), prefix, per_class, absent: vec![absent] }
    }
}

/// As mmseg reports: percent, rounded to two decimals.
fn percent(share: f64) -> f64 {
    (share * 10_000.0).round_ties_even() / 100.0
}

/// The mean of those that are numbers; NaN when none is.
fn mean_of_numbers(values: &[f64]) -> f64 {
    let numbers = values.iter().filter(|value| !value.is_nan());
    numbers.clone().sum::<f64>() / numbers.count() as f64
}

/// The lines that Python's prettytable draws, which mmseg's users know, in comfy-table's notation.
const PRETTY_TABLE: &str = "||--+-++|    ++++++";

/// An evaluation's result, in percent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Metrics {
    /// `aAcc`, `mIoU`, `mAcc`, …
    pub summary: IndexMap<String, f64>,
    classes: Vec<String>,
    prefix: String,
    per_class: IndexMap<String, Vec<f64>>,
    absent: Vec<Absent>,
}

/// What means were not taken over: classes whose value is not a number, for want of pixels.
#[derive(Debug, Clone, PartialEq)]
struct Absent {
    /// Classes without a labelled pixel, of so many.
    unlabelled: Vec<String>,
    classes: usize,
    /// Of each mean, the classes without a number.
    left_out: IndexMap<String, Vec<String>>,
    nan_to_num: Option<f64>,
}

impl Absent {
    fn of(
        counts: &Counts,
        names: &[String],
        per_class: &IndexMap<String, Vec<f64>>,
        nan_to_num: Option<f64>,
    ) -> Self {
        let named = |which: &dyn Fn(usize) -> bool| -> Vec<String> {
            names
                .iter()
                .enumerate()
                .filter(|(class, _)| which(*class))
                .map(|(_, name)| name.clone())
                .collect()
        };
        let left_out = per_class
            .iter()
            .map(|(name, values)| (name.clone(), named(&|class| values[class].is_nan())));
        Self {
            unlabelled: named(&|class| counts.labelled[class] == 0),
            classes: names.len(),
            left_out: left_out.filter(|(_, names)| !names.is_empty()).collect(),
            nan_to_num,
        }
    }

    fn told(&self) -> Option<String> {
        let mut parts = Vec::new();
        if self.unlabelled.len() == self.classes {
            parts.push("no pixel is labelled with any class, so nothing was measured".to_owned());
        } else if !self.unlabelled.is_empty() {
            parts.push(format!(
                "{} of {} classes have no labelled pixel: {}",
                self.unlabelled.len(),
                self.classes,
                listed(&self.unlabelled)
            ));
        }
        let fate = self
            .nan_to_num
            .map_or("left out of".to_owned(), |it| format!("counted as {it} (nan_to_num) in"));
        // Means that leave out the same classes are told together.
        let mut groups: IndexMap<&Vec<String>, Vec<String>> = IndexMap::new();
        self.left_out.iter().for_each(|(name, classes)| {
            groups.entry(classes).or_default().push(format!("m{name}"));
        });
        parts.extend(
            groups.into_iter().map(|(classes, means)| {
                format!("{fate} {}: {}", means.join(", "), listed(classes))
            }),
        );
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// The first names, and how many there are where that is not all.
fn listed(names: &[String]) -> String {
    let most = 20;
    let first = names.iter().take(most).map(|it| it.trim()).collect::<Vec<_>>().join(", ");
    if names.len() > most { format!("{first}, … ({} in all)", names.len()) } else { first }
}

impl Metrics {
    /// Which classes had no pixels and what that did to the means; `None` where every mean is over
    /// all classes.
    pub(crate) fn absent(&self) -> Option<String> {
        // Several evaluators see the same pixels.
        let mut told: Vec<String> = self.absent.iter().filter_map(Absent::told).collect();
        told.dedup();
        (!told.is_empty()).then(|| told.join("; "))
    }

    /// The results of several evaluators as one; columns of the table have their evaluator's
    /// prefix.
    pub(crate) fn join(mut all: Vec<Self>) -> Option<Self> {
        if all.len() < 2 {
            return all.pop();
        }
        let mut all = all.into_iter().map(|mut it| {
            let prefix = std::mem::take(&mut it.prefix);
            it.per_class = it
                .per_class
                .into_iter()
                .map(|(name, values)| (format!("{prefix}{name}"), values))
                .collect();
            it
        });
        let mut joined = all.next()?;
        for other in all {
            joined.summary.extend(other.summary);
            joined.per_class.extend(other.per_class);
            joined.absent.extend(other.absent);
        }
        Some(joined)
    }

    /// The table of every class, as mmseg prints it.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(PRETTY_TABLE);
        table.set_header(std::iter::once("Class".to_owned()).chain(self.per_class.keys().cloned()));
        for (index, class) in self.classes.iter().enumerate() {
            let values = self.per_class.values().map(|values| trimmed(values[index]));
            table.add_row(std::iter::once(class.clone()).chain(values));
        }
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Center);
        }
        table.to_string()
    }

    /// `aAcc: 78.0200  mIoU: 36.7100  mAcc: 47.1000`, the line mmengine logs.
    pub(crate) fn line(&self) -> String {
        let parts: Vec<_> =
            self.summary.iter().map(|(name, value)| format!("{name}: {value:.4}")).collect();
        parts.join("  ")
    }

    /// The summary and every class's values, for a JSON file. NaN becomes null.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let number = |value: f64| {
            serde_json::Number::from_f64(value).map_or(serde_json::Value::Null, Into::into)
        };
        let mut object: serde_json::Map<_, _> =
            self.summary.iter().map(|(name, value)| (name.clone(), number(*value))).collect();
        let classes = self.classes.iter().enumerate().map(|(index, class)| {
            let values =
                self.per_class.iter().map(|(name, values)| (name.clone(), number(values[index])));
            (class.clone(), serde_json::Value::Object(values.collect()))
        });
        object.insert("classes".to_owned(), serde_json::Value::Object(classes.collect()));
        serde_json::Value::Object(object)
    }
}

/// Two decimals without trailing zeros, as Python prints a rounded float (`87.5`, `90.0`, `nan`).
fn trimmed(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    format!("{value:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("class{index}")).collect()
    }

    #[test]
    fn counts_follow_the_definition_on_a_small_image() {
        let mut counts = Counts::new(3);
        counts.add(&[0, 0, 1, 1, 2, 2, 0], &[0, 1, 1, 1, 0, 255, 255], 255);
        assert_eq!(counts.intersect, [1, 2, 0]);
        assert_eq!(counts.predicted, [2, 2, 1]);
        assert_eq!(counts.labelled, [2, 3, 0]);
        let metrics = counts.metrics(&IoUMetricConfig::default(), &names(3));
        // IoU: 1/3, 2/3, 0/1; accuracy: 1/2, 2/3, undefined.
        assert_eq!(metrics.summary["aAcc"], 60.0);
        assert_eq!(metrics.summary["mIoU"], 33.33);
        assert_eq!(metrics.summary["mAcc"], 58.33);
    }

    #[test]
    fn counts_add_up_over_images_and_survive_the_list_form() {
        let (first, second) = (vec![0_u8, 1, 1, 0], vec![1_u8, 1, 0, 0]);
        let mut whole = Counts::new(2);
        whole.add(&[&first[..], &second].concat(), &[&second[..], &first].concat(), 255);
        let mut parts = Counts::new(2);
        parts.add(&first, &second, 255);
        parts.add(&second, &first, 255);
        assert_eq!(whole, parts);
        assert_eq!(Counts::from_list(&whole.to_list()), whole);
    }

    #[test]
    fn nan_to_num_takes_the_place_of_an_absent_class() {
        let mut counts = Counts::new(2);
        counts.add(&[0, 0], &[0, 0], 255);
        let plain = counts.metrics(&IoUMetricConfig::default(), &names(2));
        assert_eq!(plain.summary["mIoU"], 100.0);
        let config = IoUMetricConfig { nan_to_num: Some(0.0), ..IoUMetricConfig::default() };
        assert_eq!(counts.metrics(&config, &names(2)).summary["mIoU"], 50.0);
    }

    #[test]
    fn classes_without_pixels_are_told_with_the_means_that_they_are_left_out_of() {
        let told = |predicted: &[u8], labels: &[u8], config: &IoUMetricConfig| {
            let mut counts = Counts::new(3);
            counts.add(predicted, labels, 255);
            counts.metrics(config, &names(3)).absent().unwrap_or_default()
        };
        let config = IoUMetricConfig::default();
        assert_eq!(told(&[0, 1, 2], &[0, 1, 2], &config), "");
        assert_eq!(
            told(&[0, 1], &[0, 1], &config),
            "1 of 3 classes have no labelled pixel: class2; left out of mIoU, mAcc: class2"
        );
        assert_eq!(
            told(&[0, 2], &[0, 1], &config),
            "1 of 3 classes have no labelled pixel: class2; left out of mAcc: class2",
            "a class that was predicted in vain has an IoU of 0"
        );
        assert!(
            told(&[0, 1], &[255, 255], &config).starts_with("no pixel is labelled with any class")
        );
        let zero = IoUMetricConfig { nan_to_num: Some(0.0), ..config.clone() };
        assert!(
            told(&[0, 1], &[0, 1], &zero)
                .contains("counted as 0 (nan_to_num) in mIoU, mAcc: class2")
        );
        let fscore = IoUMetricConfig { iou_metrics: OneOrMany(vec![IoUKind::MFscore]), ..config };
        assert!(
            told(&[0, 0, 0], &[0, 1, 2], &fscore)
                .contains("left out of mFscore, mPrecision: class1, class2"),
            "labelled, never predicted"
        );
    }

    #[test]
    fn mmsegs_keys_are_read_and_one_metric_needs_no_list() {
        let text = "{iou_metrics: mDice, ignore_index: 0, nan_to_num: 0, beta: 2, output_dir: out, format_only: true, prefix: a, collect_device: cpu}";
        let config: IoUMetricConfig = crate::config::parse_str(text).expect("parses");
        assert_eq!(
            (config.iou_metrics, config.ignore_index, config.beta),
            (OneOrMany(vec![IoUKind::MDice]), Some(0), 2.0)
        );
    }

    #[test]
    fn dice_and_fscore_have_their_columns() {
        let mut counts = Counts::new(2);
        counts.add(&[0, 0, 1, 1], &[0, 1, 1, 1], 255);
        let config = IoUMetricConfig {
            iou_metrics: OneOrMany(vec![IoUKind::MDice, IoUKind::MFscore]),
            ..IoUMetricConfig::default()
        };
        let metrics = counts.metrics(&config, &names(2));
        let keys: Vec<_> = metrics.summary.keys().map(String::as_str).collect();
        assert_eq!(keys, ["aAcc", "mDice", "mAcc", "mFscore", "mPrecision", "mRecall"]);
        // With beta 1 the F-score is Dice: 2/3 and 4/5.
        assert_eq!(metrics.summary["mDice"], 73.33);
        assert_eq!(metrics.summary["mFscore"], 73.33);
    }

    #[test]
    fn the_table_reads_as_mmsegs() {
        let mut counts = Counts::new(2);
        counts.add(&[0, 0, 1, 1], &[0, 1, 1, 1], 255);
        let table = counts
            .metrics(&IoUMetricConfig::default(), &["wall".to_owned(), "sky".to_owned()])
            .table();
        insta::assert_snapshot!(table, @r"
        +-------+-------+-------+
        | Class |  IoU  |  Acc  |
        +-------+-------+-------+
        |  wall |  50.0 | 100.0 |
        |  sky  | 66.67 | 66.67 |
        +-------+-------+-------+
        ");
    }
}
