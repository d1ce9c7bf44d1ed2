//! The folder dataset: images in one tree, label maps of the same names in another, or a file that lists the names.

use std::fs;
use std::path::{Path, PathBuf};

use rand_pcg::Pcg64;
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::{MetaInfo, palette};
use crate::data::transform::{BackendArgs, Entry, LabelRule};
use crate::data::{DataError, Pipeline, Sample, Transform};

/// mmseg's `BaseSegDataset`: any folder dataset. What is left out takes the default of the dataset's `type`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BaseSegDataset {
    /// The folder that `data_prefix` and `ann_file` are relative to.
    pub data_root: Option<PathBuf>,
    pub data_prefix: DataPrefix,
    pub img_suffix: Option<String>,
    pub seg_map_suffix: Option<String>,
    /// A file with one name a line, without suffix. Without it all images of the folder are taken, in the order of their paths.
    pub ann_file: Option<PathBuf>,
    pub metainfo: Option<MetaInfoConfig>,
    /// Stored 0 means "no label", stored 1 is class 0.
    pub reduce_zero_label: Option<bool>,
    pub ignore_index: Option<u8>,
    pub pipeline: Vec<Transform>,
    /// Only the first so many entries (the last, if negative), or these.
    pub indices: Option<Indices>,
    /// The classes have to be known.
    pub test_mode: bool,
    pub backend_args: Option<BackendArgs>,
    /// Without effect: files are always listed at the start.
    pub lazy_init: bool,
    /// Without effect: worker threads share one list.
    pub serialize_data: Option<bool>,
    /// Without effect: an entry that cannot be read is an error, not replaced by another.
    pub max_refetch: Option<usize>,
    /// Nothing can be filtered in mmseg either; anything but null is refused.
    pub filter_cfg: Option<Never>,
}

/// A value that no config can give.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Never {}

/// Folders of images and label maps.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, from = "GivenPrefix")]
pub struct DataPrefix {
    pub img_path: PathBuf,
    /// `None`: there are no label maps.
    pub seg_map_path: Option<PathBuf>,
}

/// As mmseg: where `data_prefix` is given at all, what it leaves out is not there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenPrefix {
    img_path: PathBuf,
    #[serde(default)]
    seg_map_path: Option<PathBuf>,
}

impl From<GivenPrefix> for DataPrefix {
    fn from(given: GivenPrefix) -> Self {
        Self { img_path: given.img_path, seg_map_path: given.seg_map_path }
    }
}

impl Default for DataPrefix {
    fn default() -> Self {
        Self { img_path: PathBuf::new(), seg_map_path: Some(PathBuf::new()) }
    }
}

/// Classes and colours in place of the dataset's own.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetaInfoConfig {
    /// Names, or the path of a file with one a line. For a dataset that has classes: a subset; the others are ignored.
    #[serde(default)]
    pub classes: Option<Classes>,
    #[serde(default)]
    pub palette: Option<Vec<[u8; 3]>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Classes {
    Names(Vec<String>),
    File(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Indices {
    Count(i64),
    These(Vec<usize>),
}

/// What a dataset's `type` implies.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) img_suffix: &'static str,
    pub(super) seg_map_suffix: &'static str,
    pub(super) reduce_zero_label: bool,
    pub(super) needs_ann_file: bool,
    pub(super) classes: &'static [&'static str],
    pub(super) palette: &'static [[u8; 3]],
}

pub(super) const BASE: Kind = Kind {
    name: "BaseSegDataset",
    img_suffix: ".jpg",
    seg_map_suffix: ".png",
    reduce_zero_label: false,
    needs_ann_file: false,
    classes: &[],
    palette: &[],
};

/// A folder dataset with its files listed.
#[derive(Debug, Clone, PartialEq)]
pub struct Folder {
    pub(super) metainfo: MetaInfo,
    pub(super) rule: LabelRule,
    img_dir: PathBuf,
    seg_map_dir: Option<PathBuf>,
    img_suffix: String,
    seg_map_suffix: String,
    /// Paths below `img_dir` without suffix.
    names: Vec<String>,
    pipeline: Pipeline,
}

impl Folder {
    pub(super) fn init(config: &BaseSegDataset, kind: &Kind) -> Result<Self, DataError> {
        let refuse = |reason: String| DataError::Dataset { name: kind.name.into(), reason };
        let join = |path: &Path| config.data_root.as_ref().map_or_else(|| path.to_owned(), |root| root.join(path));
        let img_dir = join(&config.data_prefix.img_path);
        let seg_map_dir = config.data_prefix.seg_map_path.as_deref().map(join);
        let img_suffix = config.img_suffix.clone().unwrap_or_else(|| kind.img_suffix.into());
        let seg_map_suffix = config.seg_map_suffix.clone().unwrap_or_else(|| kind.seg_map_suffix.into());

        let (metainfo, label_map) = classes(config.metainfo.as_ref(), kind)?;
        if config.test_mode && metainfo.classes.is_empty() {
            return Err(refuse("test_mode needs metainfo.classes".into()));
        }
        let rule = LabelRule {
            reduce_zero_label: config.reduce_zero_label.unwrap_or(kind.reduce_zero_label),
            label_map,
            ignore_index: config.ignore_index.unwrap_or(255),
            num_classes: (!metainfo.classes.is_empty()).then_some(metainfo.classes.len()),
        };
        let pipeline = Pipeline::init(config.pipeline.clone(), &rule)?;

        for (what, dir) in [("image folder", Some(&img_dir)), ("label map folder", seg_map_dir.as_ref())] {
            if let Some(dir) = dir
                && !dir.is_dir()
            {
                let hint = "check data_root and data_prefix".to_owned();
                return Err(DataError::Missing { what, path: dir.clone(), hint });
            }
        }
        let ann_file = config.ann_file.as_deref().filter(|path| !path.as_os_str().is_empty()).map(join);
        let mut names = match ann_file {
            Some(path) if !path.is_dir() => listed(&path)?,
            _ if kind.needs_ann_file => return Err(refuse("needs ann_file, a list of names".into())),
            _ => found(&img_dir, &img_suffix)?,
        };
        if names.is_empty() {
            return Err(refuse(format!(
                "no image in {} ends in {img_suffix}: check data_root, data_prefix and img_suffix",
                img_dir.display()
            )));
        }
        if let Some(indices) = &config.indices {
            names = chosen(names, indices).map_err(refuse)?;
        }
        Ok(Self { metainfo, rule, img_dir, seg_map_dir, img_suffix, seg_map_suffix, names, pipeline })
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// The paths of entry `index`: its image and its label map.
    pub fn paths(&self, index: usize) -> (PathBuf, Option<PathBuf>) {
        let name = &self.names[index];
        let path = |dir: &Path, suffix: &str| dir.join(format!("{name}{suffix}"));
        (path(&self.img_dir, &self.img_suffix), self.seg_map_dir.as_deref().map(|dir| path(dir, &self.seg_map_suffix)))
    }

    pub(super) fn samples(&self, index: usize, rng: &mut Pcg64) -> Result<Vec<Sample>, DataError> {
        let (img_path, seg_map_path) = self.paths(index);
        let entry = Entry { index, img_path: &img_path, seg_map_path: seg_map_path.as_deref(), rule: &self.rule };
        self.pipeline.run(entry, rng)
    }
}

type LabelMapTable = Option<Box<[u8; 256]>>;

/// The classes and colours in force, and the table from the dataset's own labels where only some classes were chosen.
fn classes(config: Option<&MetaInfoConfig>, kind: &Kind) -> Result<(MetaInfo, LabelMapTable), DataError> {
    let refuse = |reason: String| DataError::Dataset { name: kind.name.into(), reason };
    let chosen = match config.and_then(|config| config.classes.as_ref()) {
        Some(Classes::Names(names)) => names.clone(),
        Some(Classes::File(path)) => listed(path)?,
        None => kind.classes.iter().map(ToString::to_string).collect(),
    };
    let subset = !kind.classes.is_empty() && chosen != kind.classes;
    let mut label_map = None;
    if subset {
        let unknown: Vec<&str> = chosen.iter().map(String::as_str).filter(|name| !kind.classes.contains(name)).collect();
        if !unknown.is_empty() {
            return Err(refuse(format!("metainfo.classes has {}, which the dataset does not", unknown.join(", "))));
        }
        let mut map = Box::new(std::array::from_fn(|label| label as u8));
        for (old, name) in kind.classes.iter().enumerate() {
            map[old] = chosen.iter().position(|chosen| chosen == name).map_or(255, |new| new as u8);
        }
        label_map = Some(map);
    }
    let given = config.and_then(|config| config.palette.clone());
    let palette = match given {
        Some(palette) if palette.len() == chosen.len() => palette,
        Some(palette) => {
            return Err(refuse(format!("metainfo.palette has {} colours for {} classes", palette.len(), chosen.len())));
        }
        None if kind.palette.is_empty() => palette::generate(chosen.len()),
        None => chosen
            .iter()
            .filter_map(|name| kind.classes.iter().position(|class| class == name))
            .map(|old| kind.palette[old])
            .collect(),
    };
    Ok((MetaInfo { classes: chosen, palette }, label_map))
}

/// The lines of a file, without the space around them; empty ones are left out.
fn listed(path: &Path) -> Result<Vec<String>, DataError> {
    let text = fs::read_to_string(path).map_err(|source| DataError::io("list", path, source, "check data_root and ann_file"))?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// The files below `dir` that end in `suffix`, without it, in the order of their paths. Hidden ones are left out.
fn found(dir: &Path, suffix: &str) -> Result<Vec<String>, DataError> {
    let mut names = Vec::new();
    let mut pending = vec![String::new()];
    while let Some(below) = pending.pop() {
        let folder = dir.join(&below);
        let unreadable = |source| DataError::io("image folder", &folder, source, "check data_root and data_prefix");
        for entry in fs::read_dir(&folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if name.starts_with('.') {
                continue;
            }
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            let kind = entry.file_type().map_err(unreadable)?;
            // A link is what it points to.
            let is_dir = kind.is_dir() || kind.is_symlink() && entry.path().is_dir();
            if is_dir {
                pending.push(path);
            } else if path.ends_with(suffix) {
                names.push(path);
            }
        }
    }
    names.sort_unstable();
    names.iter_mut().for_each(|name| name.truncate(name.len() - suffix.len()));
    Ok(names)
}

fn chosen(names: Vec<String>, indices: &Indices) -> Result<Vec<String>, String> {
    match indices {
        Indices::Count(count) => {
            let many = (count.unsigned_abs() as usize).min(names.len());
            let from = if *count < 0 { names.len() - many } else { 0 };
            if many == 0 {
                return Err("indices leaves no entry".into());
            }
            Ok(names.into_iter().skip(from).take(many).collect())
        }
        Indices::These(these) if these.is_empty() => Err("indices leaves no entry".into()),
        Indices::These(these) => these
            .iter()
            .map(|&index| names.get(index).cloned().ok_or(index))
            .collect::<Result<_, _>>()
            .map_err(|index| format!("indices has {index}, but there are {} entries", names.len())),
    }
}

impl<'de> Deserialize<'de> for Classes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamesOrFile;
        impl<'de> Visitor<'de> for NamesOrFile {
            type Value = Classes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of class names, or the path of a file with one a line")
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Classes, E> {
                Ok(Classes::File(value.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Classes, A::Error> {
                Deserialize::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(Classes::Names)
            }
        }
        deserializer.deserialize_any(NamesOrFile)
    }
}

impl<'de> Deserialize<'de> for Indices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountOrList;
        impl<'de> Visitor<'de> for CountOrList {
            type Value = Indices;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number of entries, or a list of indices")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Indices, E> {
                Ok(Indices::Count(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Indices, E> {
                Ok(Indices::Count(i64::try_from(value).unwrap_or(i64::MAX)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Indices, A::Error> {
                Deserialize::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(Indices::These)
            }
        }
        deserializer.deserialize_any(CountOrList)
    }
}
