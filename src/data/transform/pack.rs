//! `PackSegInputs`: the end of a pipeline, where planned geometry is carried out and the sample leaves.

use serde::Deserialize;

/// Hands the sample over. Its meta always holds everything; `meta_keys` is checked, and chooses nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PackSegInputs {
    pub meta_keys: Vec<MetaKey>,
}

/// The keys that a sample's meta has in mmseg; our [`Meta`](crate::data::Meta) has them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetaKey {
    ImgPath,
    SegMapPath,
    OriShape,
    ImgShape,
    PadShape,
    ScaleFactor,
    Flip,
    FlipDirection,
    ReduceZeroLabel,
    SampleIdx,
}
