//! What can go wrong between a config's `dataset` and a batch, said to the person who has to mend
//! it.

use std::path::{Path, PathBuf};

use segslurm_native::words;

use crate::excerpt;
use crate::exit::{Exit, Exits};

/// An error of a dataset, a file of it, a transform or the loader.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or folder that the dataset names is not there.
    #[error("{what} {} does not exist: {hint}", path.display())]
    Missing { what: &'static str, path: PathBuf, hint: String },

    /// Lines of a list that name nothing.
    #[error("{what} {}:{line}: {}", path.display(), excerpt::line(reason))]
    Text { what: &'static str, path: PathBuf, line: usize, reason: String },

    /// A folder that cannot be listed.
    #[error("{what}: {} {}", excerpt::line(&path.to_string_lossy()), excerpt::line(reason))]
    Listing { what: &'static str, path: PathBuf, reason: String },

    /// Files that a dataset needs and that are not there, counted.
    #[error("{}", .0.iter().map(|it| excerpt::line(it)).collect::<Vec<_>>().join("\n"))]
    Absent(Vec<String>),

    /// Files of one folder that cannot be used, and at how many of its entries was looked.
    #[error("{}{}", by_reason(found), rest(*looked_at, *entries))]
    Unusable { found: Vec<DataError>, looked_at: usize, entries: usize },

    /// What is wrong with several datasets or in several ways.
    #[error("{}", lines(.0))]
    Several(Vec<DataError>),

    /// It is there, but the system does not let us read it.
    #[error("failed to read {what} {}: {source}", path.display())]
    Unreadable { what: &'static str, path: PathBuf, source: std::io::Error },

    /// Its bytes are not a picture that we can decode.
    #[error("failed to decode {what} {}: {reason}", path.display())]
    Undecodable { what: &'static str, path: PathBuf, reason: String },

    /// Its pixels, or those that a transform asks for, find no room in memory.
    #[error(
        "{what} {} does not fit into memory: {reason}; crop or resize to less (crop_size, scale), \
         set fewer num_workers, or cut the picture into parts", path.display()
    )]
    OutOfMemory { what: &'static str, path: PathBuf, reason: String },

    /// Image and label map do not lie on top of each other.
    #[error(
        "label map {} is {}x{} but its image {} is {}x{} (width x height): expected equal sizes; \
         {hint}",
        label.display(), label_shape.1, label_shape.0, image.display(), image_shape.1, image_shape.0
    )]
    SizeMismatch {
        label: PathBuf,
        label_shape: (usize, usize),
        image: PathBuf,
        image_shape: (usize, usize),
        hint: &'static str,
    },

    /// A label that no class has.
    #[error(
        "label map {} has label {value} at row {row}, column {column}: expected 0 to {} \
         ({num_classes} classes) or ignore_index {ignore_index}{hint}", path.display(), num_classes - 1
    )]
    LabelOutOfRange {
        path: PathBuf,
        value: u8,
        row: usize,
        column: usize,
        num_classes: usize,
        ignore_index: u8,
        hint: String,
    },

    /// The dataset's own settings contradict themselves or find nothing.
    #[error("dataset {name}: {reason}")]
    Dataset { name: String, reason: String },

    /// A transform's settings, or its place in the pipeline, are wrong.
    #[error("transform {name}: {reason}")]
    Transform { name: &'static str, reason: String },

    /// The dataloader's settings are wrong.
    #[error("dataloader: {0}")]
    Loader(String),

    /// A fault of our own while a sample was made.
    #[error("a fault in the data pipeline at sample {index} ({}): {message}; please report it with \
             this file", path.display())]
    Panicked { index: usize, path: PathBuf, message: String },
}

/// How the decoders say that there is less in a file than its header says.
fn is_cut_off(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["fill whole buffer", "unexpected end of file", "unexpected end of data", "unexpected eof"]
        .iter()
        .any(|it| reason.contains(it))
}

fn lines(errors: &[DataError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// One line for each reason: the first file in full, then the names of the others.
fn by_reason(errors: &[DataError]) -> String {
    let mut reasons: Vec<(&DataError, Vec<String>)> = Vec::new();
    for error in errors {
        match reasons.iter_mut().find(|(first, _)| first.has_reason_of(error)) {
            Some((_, others)) => {
                others.extend(error.path().map(|it| excerpt::line(&it.to_string_lossy())));
            }
            None => reasons.push((error, Vec::new())),
        }
    }
    let told = reasons.into_iter().map(|(first, others)| {
        let (many, names) = (
            others.len(),
            others.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", "),
        );
        let more = if many > NAMED { ", …" } else { "" };
        if many == 0 {
            first.to_string()
        } else {
            format!("{first}; so are {many} more: {names}{more}")
        }
    });
    told.collect::<Vec<_>>().join("\n")
}

/// So many files are named for one reason.
const NAMED: usize = 100;

/// What nobody looked at.
fn rest(looked_at: usize, entries: usize) -> String {
    if looked_at == entries {
        return String::new();
    }
    format!(
        "\nof {entries} entries {looked_at} were looked at: --dry-run=every-file looks at all of \
         them"
    )
}

impl DataError {
    /// Reading failed: missing when the system says so, else unreadable.
    pub(super) fn io(what: &'static str, path: &Path, source: std::io::Error, hint: &str) -> Self {
        if source.kind() == std::io::ErrorKind::OutOfMemory {
            Self::OutOfMemory { what, path: path.to_owned(), reason: source.to_string() }
        } else if source.kind() == std::io::ErrorKind::NotFound {
            Self::Missing { what, path: path.to_owned(), hint: hint.to_owned() }
        } else {
            Self::Unreadable { what, path: path.to_owned(), source }
        }
    }

    pub(super) fn undecodable(what: &'static str, path: &Path, reason: impl ToString) -> Self {
        let reason = excerpt::line(&reason.to_string());
        if words::lacks_memory(&reason) {
            return Self::OutOfMemory { what, path: path.to_owned(), reason };
        }
        let reason = if is_cut_off(&reason) {
            "it ends before the picture does: the file is truncated".to_owned()
        } else {
            reason
        };
        Self::Undecodable { what, path: path.to_owned(), reason }
    }

    /// A setting of the transform `name` that cannot be.
    pub fn transform(name: &'static str, reason: impl Into<String>) -> Self {
        Self::Transform { name, reason: reason.into() }
    }

    /// The file that cannot be used.
    fn path(&self) -> Option<&Path> {
        match self {
            Self::Missing { path, .. }
            | Self::Unreadable { path, .. }
            | Self::Undecodable { path, .. }
            | Self::OutOfMemory { path, .. }
            | Self::LabelOutOfRange { path, .. }
            | Self::SizeMismatch { label: path, .. } => Some(path),
            _ => None,
        }
    }

    /// Whether both files cannot be used for one reason, so that one of them tells enough.
    fn has_reason_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::LabelOutOfRange { .. }, Self::LabelOutOfRange { .. }) => true,
            (Self::Missing { what, .. }, Self::Missing { what: other, .. }) => what == other,
            (
                Self::Unreadable { what, source, .. },
                Self::Unreadable { what: other, source: as_well, .. },
            ) => what == other && source.kind() == as_well.kind(),
            (Self::SizeMismatch { hint: a, .. }, Self::SizeMismatch { hint: b, .. }) => a == b,
            (
                Self::Undecodable { what, reason, .. },
                Self::Undecodable { what: other, reason: as_well, .. },
            )
            | (
                Self::OutOfMemory { what, reason, .. },
                Self::OutOfMemory { what: other, reason: as_well, .. },
            ) => what == other && reason == as_well,
            _ => false,
        }
    }
}

impl Exits for DataError {
    fn exit(&self) -> Exit {
        match self {
            Self::Missing { .. } | Self::Absent(_) => Exit::NoInput,
            Self::Dataset { .. } | Self::Transform { .. } | Self::Loader(_) => Exit::Config,
            Self::Unusable { found: errors, .. } | Self::Several(errors) => {
                errors.first().map_or(Exit::Data, Self::exit)
            }
            Self::Panicked { .. } => Exit::Software,
            Self::OutOfMemory { .. } => Exit::OutOfMemory,
            Self::Text { .. }
            | Self::Listing { .. }
            | Self::Unreadable { .. }
            | Self::Undecodable { .. }
            | Self::SizeMismatch { .. }
            | Self::LabelOutOfRange { .. } => Exit::Data,
        }
    }
}
