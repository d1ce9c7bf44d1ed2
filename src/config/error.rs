//! What can be wrong with a config. Every message starts with the place to edit and says what was
//! expected there.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use super::Config;
use super::node::Origin;
use crate::excerpt::line;
use crate::exit::{Exit, Exits};

/// Why a config could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was asked for cannot be read.
    #[error("cannot read the config {}: {source}{hint}", path.display())]
    Read { path: PathBuf, source: io::Error, hint: String },
    /// A file is not written correctly, or its bases do not fit together.
    #[error("{origin}: {}", line(.message))]
    Text { origin: Origin, message: String },
    /// A value is not what its place expects.
    #[error("{origin}: {}: {}", line(.path), line(.message))]
    Value { origin: Origin, path: String, message: String },
    /// Several of these, one a line.
    #[error("{}", several(.0))]
    Several(Vec<ConfigError>),
    /// Faults that leave a rest, in which whoever knows what a config is may find more.
    #[error("{faults}")]
    Partly { faults: Box<ConfigError>, rest: Box<Config> },
    /// An argument of `--cfg-options` is not `key=value`, or its value does not parse.
    #[error("--cfg-options {}: {}", line(.argument), line(.message))]
    Override { argument: String, message: String },
}

impl Exits for ConfigError {
    fn exit(&self) -> Exit {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::NoInput,
            _ => Exit::Config,
        }
    }
}

/// So many faults are told of one config.
const TOLD: usize = 100;

fn several(errors: &[ConfigError]) -> String {
    let mut lines: Vec<String> = errors.iter().take(TOLD).map(ToString::to_string).collect();
    if errors.len() > TOLD {
        lines.push(format!("and {} more", errors.len() - TOLD));
    }
    lines.join("\n")
}

impl ConfigError {
    pub(super) fn text(origin: &Origin, message: impl Into<String>) -> Self {
        Self::Text { origin: origin.clone(), message: message.into() }
    }

    /// All of them, of which there is one at least. What is wrong once and seen from several places
    /// is told once.
    pub fn all(errors: Vec<Self>) -> Self {
        let mut told = BTreeSet::new();
        let each = errors
            .into_iter()
            .flat_map(|it| if let Self::Several(inner) = it { inner } else { vec![it] });
        let mut errors: Vec<Self> = each.filter(|it| told.insert(it.to_string())).collect();
        if errors.len() == 1 { errors.swap_remove(0) } else { Self::Several(errors) }
    }

    /// Whether something is missing, which may follow from another fault.
    pub fn is_lack(&self) -> bool {
        let (Self::Text { message, .. } | Self::Value { message, .. }) = self else { return false };
        message.starts_with("the key `") && message.contains("is missing")
    }

    /// An error at a key path; the root has none.
    pub(super) fn at(origin: &Origin, path: &str, message: impl Into<String>) -> Self {
        if path.is_empty() {
            return Self::text(origin, message);
        }
        Self::Value { origin: origin.clone(), path: path.to_owned(), message: message.into() }
    }
}

/// Names longer than this are like no other: comparing takes time and memory by the product of the
/// lengths.
const COMPARABLE: usize = 100;

/// The candidate that `name` was most likely meant to be, if any is close.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if name.len() > COMPARABLE {
        return None;
    }
    let wanted = name.to_lowercase();
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= COMPARABLE)
        .map(|candidate| {
            (strsim::damerau_levenshtein(&wanted, &candidate.to_lowercase()), candidate)
        })
        .filter(|(distance, candidate)| {
            *distance <= (name.len().max(candidate.len()) / 3).max(1) && *distance < name.len()
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The end of a message about an unknown name: the nearest valid one, and all of them.
pub(super) fn suggest(name: &str, kind: &str, valid: &[&str]) -> String {
    let hint = nearest(name, valid.iter().copied())
        .map(|it| format!("; did you mean `{it}`?"))
        .unwrap_or_default();
    match valid {
        [] => format!("; there are no {kind} here"),
        _ => format!("{hint} (valid {kind}: {})", valid.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_page_of_text_is_like_no_name() {
        let page = "x".repeat(1_000_000);
        assert_eq!(nearest(&page, ["x", page.as_str()]), None);
        assert_eq!(nearest("depht", ["width", page.as_str(), "depth"]), Some("depth"));
    }
}
