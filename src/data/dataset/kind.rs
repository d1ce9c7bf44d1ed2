//! What the `type` of a dataset implies: one file of `kinds/` for each that mmseg registers.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_yaml::Mapping;

/// What a dataset's `type` implies, beside the keys of `BaseSegDataset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatasetKind {
    /// Its `type`.
    pub name: &'static str,
    /// What the names of images end in.
    pub img_suffix: &'static str,
    /// What stands in its place in the names of label maps.
    pub seg_map_suffix: &'static str,
    /// Whether 0 in a label file is no label, and classes are counted from 1.
    pub reduce_zero_label: bool,
    /// Whether `ann_file` has to name the entries.
    pub needs_ann_file: bool,
    /// In the order of their labels.
    pub classes: &'static [&'static str],
    /// A red, green, blue for each class.
    pub palette: &'static [[u8; 3]],
}

pub(super) const BASE: DatasetKind = DatasetKind {
    name: "BaseSegDataset",
    img_suffix: ".jpg",
    seg_map_suffix: ".png",
    reduce_zero_label: false,
    needs_ann_file: false,
    classes: &[],
    palette: &[],
};

/// A file of `kinds/`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    img_suffix: String,
    seg_map_suffix: String,
    #[serde(default)]
    reduce_zero_label: bool,
    #[serde(default)]
    needs_ann_file: bool,
    classes: ClassesOf,
}

/// Each class with its colour, or the dataset whose classes they are.
#[derive(Deserialize)]
#[serde(untagged)]
enum ClassesOf {
    Own(Mapping),
    Of(String),
}

/// Declares `DatasetConfig`: each `type` with its file.
macro_rules! dataset_types {
    (
        $(#[$meta:meta])* $config:ident {
            $($name:ident: $file:literal,)*
            -- $($(#[$other_meta:meta])* $other:ident($other_config:ty),)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Deserialize)]
        #[expect(non_camel_case_types, reason = "the names are mmseg's")]
        pub enum $config {
            /// Any folder dataset.
            BaseSegDataset($crate::data::BaseSegDataset),
            $($name($crate::data::BaseSegDataset),)*
            $($(#[$other_meta])* $other($other_config),)*
        }

        impl $config {
            /// A folder dataset, and what its `type` implies.
            pub(super) fn folder(
                &self,
            ) -> Option<(&$crate::data::BaseSegDataset, &$crate::data::DatasetKind)> {
                match self {
                    Self::BaseSegDataset(it) => Some((it, &kind::BASE)),
                    $(Self::$name(it) => Some((it, kind::of(stringify!($name)))),)*
                    Self::Own(it) => Some((&it.config, &it.kind)),
                    _ => None,
                }
            }

            fn folder_mut(&mut self) -> Option<&mut $crate::data::BaseSegDataset> {
                match self {
                    Self::BaseSegDataset(it) => Some(it),
                    $(Self::$name(it) => Some(it),)*
                    Self::Own(it) => Some(&mut std::sync::Arc::make_mut(&mut it.0).config),
                    _ => None,
                }
            }
        }

        /// Every `type` that has a file, with the file's text.
        pub(super) const KINDS: &[(&str, &str)] =
            &[$((stringify!($name), include_str!(concat!("kinds/", $file))),)*];
    };
}
pub(super) use dataset_types;

/// What a `type` that has a file implies.
pub(super) fn of(name: &str) -> &'static DatasetKind {
    static READ: LazyLock<HashMap<&str, DatasetKind>> = LazyLock::new(|| {
        super::KINDS.iter().map(|(name, text)| (*name, read(name, text))).collect()
    });
    &READ[name]
}

/// # Panics
/// Where a file of `kinds/` is wrong: a test reads them all.
fn read(name: &'static str, text: &str) -> DatasetKind {
    let parsed =
        |text| serde_yaml::from_str::<File>(text).unwrap_or_else(|it| panic!("{name}: {it}"));
    let file = parsed(text);
    let classes = match &file.classes {
        ClassesOf::Own(classes) => classes.clone(),
        ClassesOf::Of(other) => {
            let (_, text) = super::KINDS.iter().find(|(name, _)| name == other).expect("a dataset");
            let ClassesOf::Own(classes) = parsed(text).classes else { panic!("{name}: {other}") };
            classes
        }
    };
    let (names, palette): (Vec<&'static str>, Vec<[u8; 3]>) = classes
        .into_iter()
        .map(|(class, colour)| {
            let class: String = serde_yaml::from_value(class).expect("a class's name");
            let colour: [u8; 3] = serde_yaml::from_value(colour).expect("red, green and blue");
            (&*class.leak(), colour)
        })
        .unzip();
    DatasetKind {
        name,
        img_suffix: file.img_suffix.leak(),
        seg_map_suffix: file.seg_map_suffix.leak(),
        reduce_zero_label: file.reduce_zero_label,
        needs_ann_file: file.needs_ann_file,
        classes: names.leak(),
        palette: palette.leak(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_can_be_read_and_has_a_colour_for_each_class() {
        for (name, _) in super::super::KINDS {
            let kind = of(name);
            assert!(kind.classes.len() > 1 && kind.classes.len() == kind.palette.len(), "{name}");
            assert!(kind.classes.len() <= 255, "{name}: labels are bytes");
            assert!(!kind.img_suffix.is_empty() && !kind.seg_map_suffix.is_empty(), "{name}");
        }
    }
}
