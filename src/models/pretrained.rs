//! Which pretrained weights a model wants to start from, and where they belong in it.

/// Weights that a model wants to start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PretrainedSource {
    /// As the config names them: a path, `open-mmlab://NAME`, `torchvision://NAME` or an `https://`
    /// address.
    pub checkpoint: String,
    /// Only the file's keys that start with this are meant, and without it.
    pub prefix: Option<String>,
    /// What to put before the file's keys to get the model's: `backbone.`, or nothing for a whole
    /// model.
    pub target: String,
}

impl PretrainedSource {
    pub(super) fn new(checkpoint: &str, prefix: Option<String>, target: &str) -> Self {
        // A prefix is a level of the state dict, with or without its dot.
        let prefix = prefix.map(|it| format!("{}.", it.trim_end_matches('.')));
        Self { checkpoint: checkpoint.to_owned(), prefix, target: target.to_owned() }
    }
}
