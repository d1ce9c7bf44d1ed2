//! What can be seen of a dataset before the first step: files without their partners, and label
//! maps that hardly mean what the config says. Masks of 0 and 255 are the most frequent mistake of
//! all: 255 is ignored, so nothing is learned, and nothing else would say so.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::folder::with_suffix;
use super::{Dataset, Folder, listing};
use crate::data::loader::message;
use crate::data::transform::{check_range, check_size};
use crate::data::{DataError, LabelMap, Raster, View, is_jpeg, read_label};

/// How many files are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// A few, spread evenly: what every run can afford before its first step.
    Some,
    /// Every image and every label map.
    EveryFile,
}

/// How many entries are a few; how many pixels of them are, and may be in memory at once, but for
/// two entries.
const ENTRIES: usize = 16;
const PIXELS: usize = 1 << 26;

/// So many classes are expected in every handful of label maps.
const FEW_CLASSES: usize = 4;

/// What was seen of datasets.
#[derive(Debug, Default)]
pub struct Survey {
    /// What people should know before they train.
    pub told: Vec<String>,
    /// Files that are missing.
    pub absent: Vec<String>,
    /// Files that cannot be used: [`DataError::Unusable`] for each folder that has some.
    pub unusable: Vec<DataError>,
}

impl Survey {
    /// Takes over the faults that another one found.
    pub fn take_faults(&mut self, other: Self) {
        self.absent.extend(other.absent);
        self.unusable.extend(other.unusable);
    }

    /// Everything that is wrong, as one error.
    pub fn outcome(self) -> Result<(), DataError> {
        let absent = (!self.absent.is_empty()).then_some(DataError::Absent(self.absent));
        let mut all: Vec<DataError> = absent.into_iter().chain(self.unusable).collect();
        match all.len() {
            0 => Ok(()),
            1 => Err(all.remove(0)),
            _ => Err(DataError::Several(all)),
        }
    }
}

impl Dataset {
    /// Looks at the files before they are needed. `Err` is a folder that cannot be listed.
    pub fn survey(&self, look: Look) -> Result<Survey, DataError> {
        let mut folders = Vec::new();
        self.collect(&mut folders);
        let mut survey = Survey::default();
        for folder in &folders {
            let entries = match look {
                Look::Some => (ENTRIES / folders.len()).max(2),
                Look::EveryFile => usize::MAX,
            };
            folder.survey(entries, &mut survey)?;
        }
        Ok(survey)
    }

    fn collect<'a>(&'a self, folders: &mut Vec<&'a Folder>) {
        match self {
            Self::Folder(folder) => folders.push(folder),
            Self::Repeat(dataset, _) => dataset.collect(folders),
            Self::Concat(parts) => parts.iter().for_each(|part| part.collect(folders)),
        }
    }
}

impl Folder {
    fn survey(&self, entries: usize, survey: &mut Survey) -> Result<(), DataError> {
        let absent = survey.absent.len();
        self.partners(survey)?;
        if survey.absent.len() == absent {
            let mut sample = self.sample(entries);
            let found: Vec<_> =
                std::mem::take(&mut sample.found).into_iter().map(|(_, it)| it).collect();
            if !found.is_empty() {
                survey.unusable.push(DataError::Unusable {
                    found,
                    looked_at: sample.entries,
                    entries: self.len(),
                });
            }
            survey.told.extend(sample.told(self));
        }
        Ok(())
    }

    /// Pictures that are left out, images without a label map, label maps without an image.
    fn partners(&self, survey: &mut Survey) -> Result<(), DataError> {
        let Survey { told, absent, .. } = survey;
        let images = self.img_dir.display();
        if !self.overlooked.is_empty() {
            let suffix = &self.img_suffix;
            let overlooked = some(&self.overlooked);
            told.push(format!(
                "left out: {overlooked} in {images}, not ending in {suffix} (img_suffix) to the \
                 letter; rename them, or change img_suffix"
            ));
        }
        if !self.whole {
            let found = listing::found(
                "image folder",
                &self.img_dir,
                self.img_suffix.as_ref(),
                None,
                None,
            )?;
            let missing = self.without(&found.names, &self.img_dir, &self.img_suffix);
            if !missing.is_empty() {
                let remedy =
                    remedy_of_ends(&missing, &self.img_dir, &self.img_suffix, "img_suffix");
                let list = self
                    .list
                    .as_ref()
                    .map(|it| format!(" of {}", it.display()))
                    .unwrap_or_default();
                absent.push(format!(
                    "{} of {} listed images{list} are not in {images}: {}; {remedy}",
                    missing.len(),
                    self.len(),
                    names(&missing)
                ));
            }
        }
        let Some(dir) = &self.seg_map_dir else { return Ok(()) };
        let suffix = &self.seg_map_suffix;
        let apart = Some(self.img_dir.as_path()).filter(|it| it != dir);
        let found = listing::found("label map folder", dir, suffix.as_ref(), None, apart)?;
        let missing = self.without(&found.names, dir, suffix);
        let folder = dir;
        let dir = dir.display();
        if !missing.is_empty() {
            let remedy = remedy_of_ends(&missing, folder, suffix, "seg_map_suffix");
            absent.push(format!(
                "{} of {} images have no label map in {dir}: {}; {remedy}",
                missing.len(),
                self.len(),
                names(&missing)
            ));
        }
        if !absent.is_empty() {
            return Ok(());
        }
        let small = suffix.to_ascii_lowercase();
        let cased = |path: &&PathBuf| path.to_string_lossy().to_ascii_lowercase().ends_with(&small);
        let cased: Vec<PathBuf> = found.overlooked.iter().filter(cased).cloned().collect();
        if !cased.is_empty() {
            told.push(format!(
                "left out: {} in {dir}, not ending in {suffix} (seg_map_suffix) to the letter",
                some(&cased)
            ));
        }
        if self.whole {
            let known: HashSet<&OsStr> = self.names.iter().map(OsString::as_os_str).collect();
            let alone = found.names.iter().filter(|name| !known.contains(name.as_os_str()));
            let alone = alone.map(|name| PathBuf::from(with_suffix(name, suffix)));
            // Images may lie below the label maps and end alike.
            let image =
                |path: &PathBuf| apart.is_some_and(|images| self.label(path).starts_with(images));
            let alone: Vec<PathBuf> = alone.filter(|path| !image(path)).collect();
            if !alone.is_empty() {
                told.push(format!(
                    "label maps without an image of their name in {images}: {} in {dir}",
                    some(&alone)
                ));
            }
        }
        Ok(())
    }

    /// A path below the folder of label maps.
    fn label(&self, below: &Path) -> PathBuf {
        self.seg_map_dir.as_deref().unwrap_or(&self.img_dir).join(below)
    }

    /// Entries whose file in `dir` is neither in the listing nor there after all (a list may write
    /// a path its own way).
    fn without(&self, listed: &[OsString], dir: &Path, suffix: &str) -> Vec<PathBuf> {
        let listed: HashSet<&OsStr> = listed.iter().map(OsString::as_os_str).collect();
        let unlisted = self.names.iter().filter(|name| !listed.contains(name.as_os_str()));
        unlisted
            .map(|name| PathBuf::from(with_suffix(name, suffix)))
            .filter(|path| !dir.join(path).exists())
            .collect()
    }

    /// Opens the files of so many entries, spread evenly, on all cores.
    fn sample(&self, entries: usize) -> Sample {
        // The others are taken to be as large as the first.
        let first =
            self.pipeline.image(&self.paths(0).0).map_or(1, |it| it.shape().0 * it.shape().1);
        let affordable = (PIXELS / first.max(1)).max(2);
        let entries = if entries < self.len() { entries.min(affordable) } else { self.len() };
        let (next, sample) = (AtomicUsize::new(0), Mutex::new(Sample::default()));
        let work = || {
            let mut own = Sample::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= entries {
                    break;
                }
                let index = (number as u128 * self.len() as u128 / entries as u128) as usize;
                own.entries += 1;
                // A worker of the loader catches the panics of its work as well.
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.look_at(index, &mut own)))
                {
                    let (path, message) = (self.paths(index).0, message(&*panic));
                    own.found.push((index, DataError::Panicked { index, path, message }));
                }
            }
            sample.lock().unwrap_or_else(PoisonError::into_inner).add(own);
        };
        let threads =
            thread::available_parallelism().map_or(1, usize::from).min(entries).min(affordable);
        thread::scope(|scope| {
            (1..threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        let mut sample = sample.into_inner().unwrap_or_else(PoisonError::into_inner);
        sample.found.sort_by_key(|(index, _)| *index);
        sample.blank.sort_unstable();
        sample.lossy.sort_unstable();
        sample
    }

    /// Decodes an entry's image and its label map, and holds them beside each other.
    fn look_at(&self, index: usize, sample: &mut Sample) {
        let (img_path, seg_map_path) = self.paths(index);
        let image = self.pipeline.image(&img_path).and_then(View::into_raster);
        let shape = image.as_ref().ok().map(Raster::shape);
        sample.found.extend(image.err().map(|it| (index, it)));
        let Some(path) = seg_map_path else { return };
        sample.lossy.extend(is_jpeg(&path).then(|| path.clone()));
        match read_label(&path).and_then(|label| {
            self.count(label, &path, shape.map(|it| (it, img_path.as_path())), sample)
        }) {
            Ok(()) => {}
            Err(error) => sample.found.push((index, error)),
        }
    }

    fn count(
        &self,
        mut label: LabelMap,
        path: &Path,
        image: Option<((usize, usize), &Path)>,
        sample: &mut Sample,
    ) -> Result<(), DataError> {
        if let Some((shape, image)) = image {
            check_size(&label, path, shape, image)?;
        }
        let mut stored = [0_u64; 256];
        label.data.iter().for_each(|&value| stored[usize::from(value)] += 1);
        label.data.iter_mut().for_each(|value| *value = self.rule.class(*value));
        check_range(&label, &self.rule, path)?;
        sample.maps += 1;
        let mut counted = stored.iter().zip(0..=u8::MAX).filter(|(count, _)| **count > 0);
        if counted.all(|(_, value)| self.rule.class(value) == self.rule.ignore_index) {
            sample.blank.push(path.to_owned());
        }
        sample.stored.iter_mut().zip(stored).for_each(|(sum, count)| *sum += count);
        Ok(())
    }
}

/// What some entries hold.
struct Sample {
    entries: usize,
    /// Label maps that can be used.
    maps: usize,
    /// Pixels of each value stored in them.
    stored: [u64; 256],
    /// Label maps without a pixel of any class.
    blank: Vec<PathBuf>,
    /// Label maps that are JPEG, whatever their names.
    lossy: Vec<PathBuf>,
    /// What cannot be used, with the entries' indices.
    found: Vec<(usize, DataError)>,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            entries: 0,
            maps: 0,
            stored: [0; 256],
            blank: Vec::new(),
            lossy: Vec::new(),
            found: Vec::new(),
        }
    }
}

impl Sample {
    fn add(&mut self, other: Self) {
        self.entries += other.entries;
        self.maps += other.maps;
        self.stored.iter_mut().zip(other.stored).for_each(|(sum, count)| *sum += count);
        self.blank.extend(other.blank);
        self.lossy.extend(other.lossy);
        self.found.extend(other.found);
    }

    fn told(&self, folder: &Folder) -> Vec<String> {
        let mut told = Vec::new();
        if !self.lossy.is_empty() {
            told.push(format!(
                "{} of the {} label maps looked at are JPEG, which changes values a little, so \
                 that labels come out that nobody gave: {}; write PNG",
                self.lossy.len(),
                self.entries,
                names(&self.lossy)
            ));
        }
        let Some(num_classes) = folder.rule.num_classes.filter(|_| self.maps > 0) else {
            return told;
        };
        let looked = match (self.maps == folder.len(), self.maps) {
            (true, 1) => "the one label map".to_owned(),
            (true, maps) => format!("all {maps} label maps"),
            (false, maps) => format!("{maps} of {} label maps", folder.len()),
        };
        if self.blank.len() == self.maps {
            told.push(format!(
                "no pixel of any class in {looked}: {}; nothing can be learned or measured with \
                 such labels; {}",
                self.values(folder),
                self.remedy(folder)
            ));
            return told;
        }
        let mut pixels = vec![0; 256];
        self.stored
            .iter()
            .zip(0..=u8::MAX)
            .for_each(|(count, value)| pixels[usize::from(folder.rule.class(value))] += count);
        let absent: Vec<usize> =
            (0..num_classes.min(256)).filter(|&class| pixels[class] == 0).collect();
        let present = num_classes - absent.len();
        if !absent.is_empty()
            && (self.maps == folder.len() || num_classes <= FEW_CLASSES || present <= 1)
        {
            let named = |&class: &usize| {
                folder
                    .metainfo
                    .classes
                    .get(class)
                    .map_or_else(|| class.to_string(), |name| format!("`{name}` ({class})"))
            };
            let names: Vec<_> = absent.iter().take(10).map(named).collect();
            let more = if absent.len() > names.len() { ", …" } else { "" };
            told.push(format!(
                "{} of {num_classes} classes have no pixel in {looked}: {}{more}; {}; {}",
                absent.len(),
                names.join(", "),
                self.values(folder),
                self.remedy(folder)
            ));
        }
        if !self.blank.is_empty() {
            let share = format!(
                "{} of the {} label maps looked at hold nothing but",
                self.blank.len(),
                self.maps
            );
            let blank = some(&self.blank);
            told.push(format!("{share} ignore_index {}: {blank}", folder.rule.ignore_index));
        }
        told
    }

    /// The values in the files, how often they are and what each stands for.
    fn values(&self, folder: &Folder) -> String {
        let all: u64 = self.stored.iter().sum();
        let mut seen: Vec<(u8, u64)> =
            (0..=u8::MAX).zip(self.stored).filter(|(_, count)| *count > 0).collect();
        let many = seen.len();
        seen.sort_by_key(|(value, count)| (std::cmp::Reverse(*count), *value));
        seen.truncate(6);
        seen.sort_unstable();
        let text = seen.iter().map(|&(value, count)| {
            let class = folder.rule.class(value);
            let meaning = match folder.metainfo.classes.get(usize::from(class)) {
                Some(_) | None if class == folder.rule.ignore_index => "ignored".to_owned(),
                Some(name) => format!("`{name}`"),
                None => format!("class {class}"),
            };
            format!("{value} = {meaning} ({:.1} %)", 100.0 * count as f64 / all as f64)
        });
        let more = if many > seen.len() {
            format!(" and {} more", many - seen.len())
        } else {
            String::new()
        };
        format!("their values are {}{more}", text.collect::<Vec<_>>().join(", "))
    }

    fn remedy(&self, folder: &Folder) -> &'static str {
        let there = |value: usize| self.stored[value] > 0;
        let others = (1..255).any(there);
        // Classes counted from 0 are one short when 0 is taken away.
        let short = folder.rule.num_classes.is_some_and(|it| it < 255 && !there(it));
        match (folder.rule.reduce_zero_label, there(0), others, there(255)) {
            (true, _, false, true) => {
                "if 0 and 255 are two classes, leave reduce_zero_label out and write 1 in place of \
                 255 in the files"
            }
            (false, _, false, true) => {
                "if 255 is meant to be a class, write 1 in place of 255 in the files"
            }
            (true, true, ..) if short => {
                "if 0 in the files is a class, leave reduce_zero_label out"
            }
            (false, false, true, _) => {
                "if labels are counted from 1 in the files, set reduce_zero_label: true"
            }
            _ => "if they are in the images, metainfo.classes does not fit these files",
        }
    }
}

/// So many missing names are compared with what is there.
const LOOKED_AT: usize = 1000;

/// Whether what stands behind a name is the end of a file's name, and not another name's.
fn is_end(end: &[u8]) -> bool {
    let small = end.to_ascii_lowercase();
    !end.first().is_some_and(u8::is_ascii_alphanumeric)
        && listing::PICTURES.iter().any(|it| small.ends_with(it))
}

/// How many, and the first few by name.
pub(super) fn some(paths: &[PathBuf]) -> String {
    let files = if paths.len() == 1 { "file" } else { "files" };
    format!("{} {files} ({})", paths.len(), names(paths))
}

/// The first few by name.
fn names(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().take(4).map(|it| it.display().to_string()).collect();
    let more = if paths.len() > names.len() { ", …" } else { "" };
    format!("{}{more}", names.join(", "))
}

/// What would help where files are not there under their names: another end that the files in the
/// folder have.
fn remedy_of_ends(missing: &[PathBuf], dir: &Path, suffix: &str, key: &str) -> String {
    let mut ends: HashMap<OsString, usize> = HashMap::new();
    let looked = &missing[..missing.len().min(LOOKED_AT)];
    let mut folders: HashMap<PathBuf, Vec<OsString>> = HashMap::new();
    for path in looked {
        let below = path.parent().unwrap_or(Path::new(""));
        let files = folders.entry(below.to_owned()).or_insert_with(|| {
            let entries = std::fs::read_dir(dir.join(below)).into_iter().flatten().flatten();
            entries.map(|it| it.file_name()).collect()
        });
        let name = path.file_name().unwrap_or_default().as_bytes();
        let stem = name.strip_suffix(suffix.as_bytes()).unwrap_or(name);
        let alike =
            files.iter().filter_map(|it| it.as_bytes().strip_prefix(stem)).filter(|it| is_end(it));
        alike.for_each(|end| *ends.entry(OsStr::from_bytes(end).to_owned()).or_default() += 1);
    }
    match ends.into_iter().max_by(|a, b| (a.1, &b.0).cmp(&(b.1, &a.0))) {
        Some((end, count)) => {
            let all =
                if looked.len() == missing.len() { String::new() } else { " looked at".to_owned() };
            format!("{key}: {} would fit {count} of the {}{all}", end.display(), looked.len())
        }
        None => format!("check data_root, data_prefix, {key} and ann_file"),
    }
}
