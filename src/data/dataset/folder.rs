//! The folder dataset: images in one tree, label maps of the same names in another, or a file that
//! lists the names.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rand_pcg::Pcg64;
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::listing::{self, listed};
use super::{DatasetKind, MetaInfo, entry, palette};
use crate::data::transform::{BackendArgs, Entry, LabelRule};
use crate::data::{DataError, Pipeline, Sample, Transform};
use crate::text;

/// mmseg's `BaseSegDataset`: any folder dataset. What is left out takes the default of the
/// dataset's `type`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BaseSegDataset {
    /// The folder that `data_prefix` and `ann_file` are relative to.
    pub data_root: Option<PathBuf>,
    pub data_prefix: DataPrefix,
    pub img_suffix: Option<String>,
    pub seg_map_suffix: Option<String>,
    /// A file with one name a line, without suffix. Without it all images of the folder are taken,
    /// in the order of their paths.
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
    /// Names, or the path of a file with one a line. For a dataset that has classes: a subset; the
    /// others are ignored.
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

/// A folder dataset with its files listed.
#[derive(Debug, Clone, PartialEq)]
pub struct Folder {
    pub(super) metainfo: MetaInfo,
    pub(super) rule: LabelRule,
    pub(super) img_dir: PathBuf,
    /// `None` where there are no label maps, or nothing in the pipeline reads them.
    pub(super) seg_map_dir: Option<PathBuf>,
    pub(super) img_suffix: String,
    pub(super) seg_map_suffix: String,
    /// Paths below `img_dir` without suffix.
    pub(super) names: Vec<OsString>,
    /// Pictures in `img_dir` that are no entries for the end of their names.
    pub(super) overlooked: Vec<PathBuf>,
    /// Whether `names` are all images of the folder.
    pub(super) whole: bool,
    /// The list that names the entries.
    pub(super) list: Option<PathBuf>,
    pub(super) pipeline: Pipeline,
}

impl BaseSegDataset {
    /// `path` below the dataset's root.
    fn below_root(&self, path: &Path) -> PathBuf {
        self.data_root.as_ref().map_or_else(|| path.to_owned(), |root| root.join(path))
    }

    pub(super) fn img_dir(&self) -> PathBuf {
        self.below_root(&self.data_prefix.img_path)
    }

    pub(super) fn seg_map_dir(&self) -> Option<PathBuf> {
        self.data_prefix.seg_map_path.as_deref().map(|path| self.below_root(path))
    }
}

impl Folder {
    pub(super) fn init(config: &BaseSegDataset, kind: &DatasetKind) -> Result<Self, DataError> {
        let refuse = |reason: String| DataError::Dataset { name: kind.name.into(), reason };
        let img_dir = config.img_dir();
        let img_suffix = config.img_suffix.clone().unwrap_or_else(|| kind.img_suffix.into());
        let seg_map_suffix =
            config.seg_map_suffix.clone().unwrap_or_else(|| kind.seg_map_suffix.into());

        let (metainfo, label_map) = classes(config.metainfo.as_ref(), kind)
            .map_err(|problems| refuse(problems.join("; ")))?;
        if config.test_mode && metainfo.classes.is_empty() {
            return Err(refuse("test_mode needs metainfo.classes".into()));
        }
        let rule = LabelRule {
            reduce_zero_label: config.reduce_zero_label.unwrap_or(kind.reduce_zero_label),
            label_map,
            ignore_index: config.ignore_index.unwrap_or(255),
            num_classes: (!metainfo.classes.is_empty()).then_some(metainfo.classes.len()),
        };
        let pipeline = Pipeline::init(config.pipeline.clone())?;
        let seg_map_dir = config.seg_map_dir().filter(|_| pipeline.loads_labels());

        for (what, dir, hint) in [
            ("image folder", Some(&img_dir), ""),
            (
                "label map folder",
                seg_map_dir.as_ref(),
                "; a set without labels has no data_prefix.seg_map_path",
            ),
        ] {
            if let Some(dir) = dir
                && !dir.is_dir()
            {
                let hint = format!("check data_root and data_prefix{hint}");
                return Err(DataError::Missing { what, path: dir.clone(), hint });
            }
        }
        let ann_file = config
            .ann_file
            .as_deref()
            .filter(|path| !path.as_os_str().is_empty())
            .map(|path| config.below_root(path));
        let list = ann_file.filter(|path| !path.is_dir());
        let (mut names, overlooked, whole) = match &list {
            Some(path) => {
                let lines = listed(path)?;
                if lines.is_empty() {
                    return Err(refuse(format!(
                        "the list {} (ann_file) names no image",
                        path.display()
                    )));
                }
                let places = entry::Places {
                    img_dir: &img_dir,
                    prefixes: [
                        Some(config.data_prefix.img_path.as_path()),
                        config.data_prefix.seg_map_path.as_deref(),
                    ]
                    .map(|it| it.filter(|it| !it.as_os_str().is_empty())),
                    img_suffix: &img_suffix,
                    seg_map_suffix: &seg_map_suffix,
                };
                (entry::names(path, lines, &places)?, Vec::new(), false)
            }
            _ if kind.needs_ann_file => {
                return Err(refuse("needs ann_file, a list of names".into()));
            }
            _ => {
                // Label maps that lie among the images are not overlooked images.
                let labels = config.seg_map_dir();
                let among = (labels.as_ref() == Some(&img_dir)).then_some(seg_map_suffix.as_str());
                let apart = labels.filter(|dir| *dir != img_dir);
                let found = listing::found(
                    "image folder",
                    &img_dir,
                    img_suffix.as_ref(),
                    among,
                    apart.as_deref(),
                )?;
                if !found.dangling.is_empty() {
                    let (links, images) = (super::survey::some(&found.dangling), img_dir.display());
                    let told = format!(
                        "links to nothing among the images in {images}: {links}; restore what they \
                         point to, or remove them"
                    );
                    return Err(DataError::Absent(vec![told]));
                }
                (found.names, found.overlooked, true)
            }
        };
        if names.is_empty() {
            let others = match &overlooked[..] {
                [] => String::new(),
                overlooked => format!("; there are {}", super::survey::some(overlooked)),
            };
            return Err(refuse(format!(
                "no image in {} ends in {img_suffix}: check data_root, data_prefix and \
                 img_suffix{others}",
                img_dir.display()
            )));
        }
        if let Some(indices) = &config.indices {
            names = chosen(names, indices).map_err(refuse)?;
        }
        let whole = whole && config.indices.is_none();
        Ok(Self {
            metainfo,
            rule,
            img_dir,
            seg_map_dir,
            img_suffix,
            seg_map_suffix,
            names,
            overlooked,
            whole,
            list,
            pipeline,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// The paths of entry `index`: its image and its label map.
    pub fn paths(&self, index: usize) -> (PathBuf, Option<PathBuf>) {
        let name = &self.names[index];
        let path = |dir: &Path, suffix: &str| dir.join(with_suffix(name, suffix));
        (
            path(&self.img_dir, &self.img_suffix),
            self.seg_map_dir.as_deref().map(|dir| path(dir, &self.seg_map_suffix)),
        )
    }

    /// The path of entry `index`'s image below the image folder.
    pub(super) fn below(&self, index: usize) -> PathBuf {
        with_suffix(&self.names[index], &self.img_suffix).into()
    }

    pub(super) fn samples(&self, index: usize, rng: &mut Pcg64) -> Result<Vec<Sample>, DataError> {
        let (img_path, seg_map_path) = self.paths(index);
        let entry = Entry {
            index,
            img_path: &img_path,
            seg_map_path: seg_map_path.as_deref(),
            rule: &self.rule,
        };
        self.pipeline.run(entry, rng)
    }
}

/// A name with something behind it.
pub(super) fn with_suffix(name: &OsStr, suffix: &str) -> OsString {
    let mut name = name.to_owned();
    name.push(suffix);
    name
}

type LabelMapTable = Option<Box<[u8; 256]>>;

/// The classes and colours in force, and the table from the dataset's own labels where only some
/// classes were chosen; or everything that is wrong with them, each beginning with its key.
pub(super) fn classes(
    config: Option<&MetaInfoConfig>,
    kind: &DatasetKind,
) -> Result<(MetaInfo, LabelMapTable), Vec<String>> {
    let mut problems = Vec::new();
    let chosen = names(config, kind).map_err(|problem| vec![problem])?;
    for (label, name) in chosen.iter().enumerate() {
        if let Some(first) = chosen[..label].iter().position(|it| it == name) {
            problems.push(format!(
                "metainfo.classes has `{name}` twice, as label {first} and as label {label}"
            ));
        }
    }
    let mut label_map = None;
    if !kind.classes.is_empty() && chosen != kind.classes {
        let unknown: Vec<&str> =
            chosen.iter().map(String::as_str).filter(|name| !kind.classes.contains(name)).collect();
        if !unknown.is_empty() {
            problems.push(format!(
                "metainfo.classes has {}, which {} does not have",
                unknown.join(", "),
                kind.name
            ));
        }
        let mut map = Box::new(std::array::from_fn(|label| label as u8));
        for (old, name) in kind.classes.iter().enumerate() {
            map[old] = chosen.iter().position(|chosen| chosen == name).map_or(255, |new| new as u8);
        }
        label_map = Some(map);
    }
    // Of the dataset's own colours those of the chosen classes.
    let some = |palette: &[[u8; 3]]| -> Vec<[u8; 3]> {
        let of = |name| kind.classes.iter().position(|class| class == name);
        chosen.iter().filter_map(of).map(|old| palette[old]).collect()
    };
    let given =
        config.and_then(|config| config.palette.as_deref()).filter(|palette| !palette.is_empty());
    let palette = match given {
        Some(palette) if palette.len() == chosen.len() => palette.to_vec(),
        Some(palette) if label_map.is_some() && palette.len() == kind.classes.len() => {
            some(palette)
        }
        Some(palette) => {
            let (colours, names) = (palette.len(), chosen.len());
            problems.push(format!(
                "metainfo.palette has {colours} colours, but metainfo.classes has {names} names"
            ));
            Vec::new()
        }
        None if kind.palette.is_empty() => palette::generate(chosen.len()),
        None => some(kind.palette),
    };
    if problems.is_empty() {
        Ok((MetaInfo { classes: chosen, palette }, label_map))
    } else {
        Err(problems)
    }
}

/// The names of the classes in force, in the order of their labels.
pub(super) fn names(
    config: Option<&MetaInfoConfig>,
    kind: &DatasetKind,
) -> Result<Vec<String>, String> {
    match config.and_then(|config| config.classes.as_ref()) {
        Some(Classes::Names(names)) => Ok(names.clone()),
        Some(Classes::File(path)) => named_in(path),
        None => Ok(kind.classes.iter().map(ToString::to_string).collect()),
    }
}

/// Class names from a file with one a line. A string that is no file is most likely a name without
/// its brackets.
fn named_in(path: &Path) -> Result<Vec<String>, String> {
    let key = "metainfo.classes";
    let expected = "expected a list of names, or the path of a file with one name a line";
    if !path.is_file() {
        let given = path.display();
        return Err(format!(
            "{key} is the string `{given}`, and there is no file of that name; {expected}; did you \
             mean [{given}]?"
        ));
    }
    let bytes = std::fs::read(path)
        .map_err(|error| format!("{key}: cannot read {}: {error}", path.display()))?;
    let text = text::decode(&bytes)
        .map_err(|error| format!("{key}: {}:{}: {error}", path.display(), error.line))?;
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect();
    if names.is_empty() {
        Err(format!("{key}: {} names no class", path.display()))
    } else {
        Ok(names)
    }
}

fn chosen(names: Vec<OsString>, indices: &Indices) -> Result<Vec<OsString>, String> {
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
                Deserialize::deserialize(de::value::SeqAccessDeserializer::new(seq))
                    .map(Classes::Names)
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
                Deserialize::deserialize(de::value::SeqAccessDeserializer::new(seq))
                    .map(Indices::These)
            }
        }
        deserializer.deserialize_any(CountOrList)
    }
}
