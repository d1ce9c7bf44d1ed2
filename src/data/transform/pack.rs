//! `PackSegInputs`: the end of a pipeline, where planned geometry is carried out and the sample
//! leaves.

use serde::Deserialize;

/// Hands the sample over. Its meta always holds everything: `meta_keys` chooses nothing, and may
/// name, as in mmseg, what no sample has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PackSegInputs {
    pub meta_keys: Vec<String>,
}
