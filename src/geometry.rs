//! What is said of images' places in a file, a batch and a pass alike.

use serde::Deserialize;

/// Along which axes an image was mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlipDirection {
    /// Left and right change places.
    Horizontal,
    /// Top and bottom change places.
    Vertical,
    /// Both.
    Diagonal,
}
