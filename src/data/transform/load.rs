//! `LoadImageFromFile` and `LoadAnnotations`: files become views, stored labels become classes.

use std::path::Path;

use serde::Deserialize;

use super::{Frame, LabelRule};
use crate::data::codec::Encoded;
use crate::data::{DataError, LabelMap, View, read_label};

/// Where files are read from. Only the local file system is offered.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendArgs {
    backend: Backend,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Backend {
    Local,
    /// mmcv's name for it.
    Disk,
}

/// Reads the image as 8-bit blue, green, red.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoadImageFromFile {
    /// Images stay 8-bit until the data preprocessor; `true` is refused.
    pub to_float32: bool,
    pub color_type: ColorType,
    pub imdecode_backend: ImageBackend,
    /// A missing or broken image is always an error; `true` is refused.
    pub ignore_empty: bool,
    pub backend_args: Option<BackendArgs>,
    /// The older name of `backend_args`.
    pub file_client_args: Option<BackendArgs>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColorType {
    /// Three channels, turned by the file's EXIF orientation.
    #[default]
    Color,
    /// Three channels, as stored.
    ColorIgnoreOrientation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageBackend {
    #[default]
    Cv2,
}

impl Default for LoadImageFromFile {
    fn default() -> Self {
        Self {
            to_float32: false,
            color_type: ColorType::Color,
            imdecode_backend: ImageBackend::Cv2,
            ignore_empty: false,
            backend_args: None,
            file_client_args: None,
        }
    }
}

impl LoadImageFromFile {
    pub(super) fn check(&self) -> Result<(), DataError> {
        let refuse = |reason: &str| Err(DataError::transform("LoadImageFromFile", reason));
        if self.to_float32 {
            return refuse(
                "to_float32: true is not offered: images stay 8-bit until the data_preprocessor; \
                 leave it out",
            );
        }
        if self.ignore_empty {
            return refuse(
                "ignore_empty: true is not offered: an image that cannot be read is an error; \
                 leave it out",
            );
        }
        Ok(())
    }

    /// The image behind its header.
    pub(super) fn image(&self, path: &Path) -> Result<View<3>, DataError> {
        Encoded::open(path, self.color_type == ColorType::Color)
    }

    pub(super) fn apply(&self, frame: &mut Frame) -> Result<(), DataError> {
        let image = self.image(&frame.meta.img_path)?;
        frame.meta.ori_shape = image.shape();
        frame.meta.img_shape = image.shape();
        frame.image = Some(image);
        Ok(())
    }
}

/// Reads the label map and turns stored labels into classes.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoadAnnotations {
    /// The dataset has the word: another value here is told, and refused where the dataset's `type`
    /// alone says otherwise.
    pub reduce_zero_label: Option<bool>,
    pub imdecode_backend: LabelBackend,
    pub backend_args: Option<BackendArgs>,
    /// The older name of `backend_args`.
    pub file_client_args: Option<BackendArgs>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelBackend {
    /// Palette PNGs give their indices.
    #[default]
    Pillow,
}

impl LoadAnnotations {
    #[expect(clippy::unused_self, reason = "every transform is applied alike")]
    pub(super) fn apply(&self, frame: &mut Frame) -> Result<(), DataError> {
        let path = frame.meta.seg_map_path.as_deref().ok_or_else(|| {
            DataError::transform(
                "LoadAnnotations",
                "the dataset has no label maps: set data_prefix.seg_map_path",
            )
        })?;
        let mut label = read_label(path)?;
        if frame.image.is_some() {
            check_size(&label, path, frame.meta.ori_shape, &frame.meta.img_path)?;
        }
        to_classes(&mut label, frame.rule);
        check_range(&label, frame.rule, path)?;
        frame.label = Some(label.into());
        Ok(())
    }
}

fn reduce(value: u8) -> u8 {
    match value.wrapping_sub(1) {
        254 => 255,
        value => value,
    }
}

impl LabelRule {
    /// What a stored label means.
    pub(in crate::data) fn class(&self, stored: u8) -> u8 {
        let value = if self.reduce_zero_label { reduce(stored) } else { stored };
        self.label_map.as_ref().map_or(value, |map| map[usize::from(value)])
    }
}

/// Applies `reduce_zero_label` (0 becomes 255, the others one less, 255 stays) and the map of
/// chosen classes.
fn to_classes(label: &mut LabelMap, rule: &LabelRule) {
    match (&rule.label_map, rule.reduce_zero_label) {
        (None, false) => {}
        (None, true) => label.data.iter_mut().for_each(|value| *value = reduce(*value)),
        (Some(map), false) => {
            label.data.iter_mut().for_each(|value| *value = map[usize::from(*value)]);
        }
        (Some(map), true) => {
            label.data.iter_mut().for_each(|value| *value = map[usize::from(reduce(*value))]);
        }
    }
}

/// Refuses a label map that does not lie on its image.
pub(in crate::data) fn check_size(
    label: &LabelMap,
    path: &Path,
    image_shape: (usize, usize),
    image: &Path,
) -> Result<(), DataError> {
    let (height, width) = label.shape();
    if (height, width) == image_shape {
        return Ok(());
    }
    let turned = || Encoded::orientation(image).is_ok_and(|it| it > 4);
    let hint = if (width, height) == image_shape && turned() {
        "the image is turned as its EXIF orientation says, and its label map is not: with \
         color_type: color_ignore_orientation LoadImageFromFile reads the image as it is stored"
    } else {
        "is the label map of another image, or was only one of the two resized?"
    };
    Err(DataError::SizeMismatch {
        label: path.to_owned(),
        label_shape: (height, width),
        image: image.to_owned(),
        image_shape,
        hint,
    })
}

/// Refuses a label that no class has, in a label map that was turned into classes.
pub(in crate::data) fn check_range(
    label: &LabelMap,
    rule: &LabelRule,
    path: &Path,
) -> Result<(), DataError> {
    let LabelRule { num_classes: Some(num_classes), ignore_index, reduce_zero_label, .. } = *rule
    else {
        return Ok(());
    };
    let Ok(limit) = u8::try_from(num_classes) else {
        return Ok(());
    };
    let outside = |&value: &u8| value >= limit && value != ignore_index;
    if !label.data.iter().fold(false, |found, value| found | outside(value)) {
        return Ok(());
    }
    let at = label.data.iter().position(outside).unwrap_or_default();
    let hint = if reduce_zero_label {
        let stored = label.data[at].wrapping_add(1);
        format!(
            " after reduce_zero_label, where the file has {stored}; do the dataset's classes fit \
             these files?"
        )
    } else {
        "; do the dataset's classes fit these files, or is reduce_zero_label: true missing?"
            .to_owned()
    };
    Err(DataError::LabelOutOfRange {
        path: path.to_owned(),
        value: label.data[at],
        row: at / label.width,
        column: at % label.width,
        num_classes,
        ignore_index,
        hint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(reduce_zero_label: bool) -> LabelRule {
        LabelRule { reduce_zero_label, label_map: None, ignore_index: 255, num_classes: Some(3) }
    }

    #[test]
    fn reducing_zero_ignores_it_and_keeps_what_was_ignored() {
        let mut label = LabelMap { height: 1, width: 4, data: vec![0, 1, 254, 255] };
        to_classes(&mut label, &rule(true));
        assert_eq!(label.data, [255, 0, 253, 255]);
    }

    #[test]
    fn chosen_classes_are_mapped_after_reducing() {
        let mut map = Box::new(std::array::from_fn(|value| value as u8));
        map[0] = 255;
        map[1] = 0;
        let mut label = LabelMap { height: 1, width: 4, data: vec![0, 1, 2, 3] };
        to_classes(&mut label, &LabelRule { label_map: Some(map), ..rule(true) });
        assert_eq!(label.data, [255, 255, 0, 2]);
    }
}
