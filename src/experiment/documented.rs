//! The reference in docs/ is held to the code: every key of every section has its row there, and no
//! row has a key that is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Experiment;
use crate::config::outline;

/// The sections of a page by the names in their headings, with the names in the first column of
/// their tables, and of those of the sections whose keys they have `Also`.
fn sections(page: &str) -> Vec<(BTreeSet<String>, BTreeSet<String>)> {
    let quoted = |text: &str| -> BTreeSet<String> {
        text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let mut sections: Vec<(BTreeSet<String>, BTreeSet<String>)> = Vec::new();
    let mut also: Vec<(usize, BTreeSet<String>)> = Vec::new();
    for line in page.lines() {
        if line.starts_with('#') {
            sections.push((quoted(line), BTreeSet::new()));
        } else if let (Some(row), Some((_, rows))) = (line.strip_prefix("| "), sections.last_mut())
        {
            rows.extend(quoted(row.split(" | ").next().unwrap_or_default()));
        } else if line.starts_with("Also the keys of") {
            also.push((sections.len() - 1, quoted(line)));
        }
    }
    for (section, others) in also {
        let named = |it: &&(BTreeSet<String>, BTreeSet<String>)| {
            it.0.intersection(&others).next().is_some()
        };
        let rows = sections
            .iter()
            .find(named)
            .unwrap_or_else(|| panic!("no section {others:?}"))
            .1
            .clone();
        sections[section].1.extend(rows);
    }
    sections
}

/// `train_dataloader.dataset(ConcatDataset).datasets(BaseSegDataset).metainfo` is called
/// `BaseSegDataset.metainfo`.
fn name(path: &str) -> String {
    match path.rsplit_once('(') {
        Some((_, tail)) => tail.replace(')', ""),
        None => path.to_owned(),
    }
}

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_key_stands_in_the_reference() {
    let mut wanted: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (path, keys) in outline::<Experiment>().keys {
        wanted.entry(name(&path)).or_default().extend(keys);
    }
    let sections = sections(&page("reference.md"));
    let mut wrong = Vec::new();
    for (name, keys) in wanted.iter().filter(|(_, keys)| !keys.is_empty()) {
        let tail = name.split_once('.').map_or("", |(_, tail)| tail);
        let title = if name.is_empty() { "root" } else { name };
        let titled = |title: &str| sections.iter().find(|(names, _)| names.contains(title));
        let Some((_, rows)) = titled(title).or_else(|| titled(tail)) else {
            wrong.push(format!("no section `{title}`: {keys:?}"));
            continue;
        };
        let missing: Vec<_> = keys.iter().filter(|it| !rows.contains(**it)).collect();
        let more: Vec<_> = rows.iter().filter(|it| !keys.contains(it.as_str())).collect();
        if !missing.is_empty() || !more.is_empty() {
            wrong.push(format!(
                "`{title}` lacks rows for {missing:?} and has rows for {more:?}, which are no keys"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "docs/reference.md is not what the code reads:\n{}",
        wrong.join("\n")
    );
}

/// Slots whose types mmseg has too, as docs/mmseg.md calls them, with their places.
const SLOTS: [(&str, &str); 16] = [
    ("Segmentors", "model"),
    ("Necks", "model(EncoderDecoder).neck"),
    ("Data preprocessors", "model(EncoderDecoder).data_preprocessor"),
    ("Backbones", "model(EncoderDecoder).backbone"),
    ("Upsampling", "model(EncoderDecoder).backbone(UNet).upsample_cfg"),
    ("Heads", "model(EncoderDecoder).decode_head"),
    ("Losses", "model(EncoderDecoder).decode_head(FCNHead).loss_decode"),
    ("Datasets", "train_dataloader.dataset"),
    ("Transforms", "train_dataloader.dataset(BaseSegDataset).pipeline"),
    ("Samplers", "train_dataloader.sampler"),
    ("Optimizers", "optim_wrapper(OptimWrapper).optimizer"),
    ("Schedules", "param_scheduler"),
    ("Loops", "train_cfg"),
    ("Hooks", "custom_hooks"),
    ("Evaluators", "val_evaluator"),
    ("Visualizer backends", "visualizer(SegLocalVisualizer).vis_backends"),
];

#[test]
fn the_table_of_what_mmseg_has_says_what_is_here() {
    let outline = outline::<Experiment>();
    let page = page("mmseg.md");
    let mut wrong = Vec::new();
    for (slot, path) in SLOTS {
        let Some(here) = outline.types.get(path) else {
            wrong.push(format!("nothing has types at {path}"));
            continue;
        };
        let Some(section) = page.split("\n## ").find(|it| it.starts_with(slot)) else {
            wrong.push(format!("no section {slot}"));
            continue;
        };
        // | `PSPHead` | yes |
        let rows = section.lines().filter_map(|it| it.strip_prefix("| `")?.split_once("` | "));
        let said: BTreeMap<&str, bool> =
            rows.map(|(name, rest)| (name, rest.starts_with("yes"))).collect();
        for name in here.iter().filter(|it| said.get(**it) != Some(&true)) {
            wrong.push(format!("{slot}: `{name}` is here, and the table does not say so"));
        }
        for name in
            said.iter().filter(|(name, yes)| **yes && !here.contains(name)).map(|(name, _)| name)
        {
            wrong.push(format!("{slot}: `{name}` is not here, and the table says that it is"));
        }
    }
    assert!(wrong.is_empty(), "docs/mmseg.md is not what the code reads:\n{}", wrong.join("\n"));
}
