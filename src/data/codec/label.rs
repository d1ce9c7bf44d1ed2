//! Label maps: the stored class indices, as `numpy.array(PIL.Image.open(path))` gives them.

use std::path::Path;

use png::ColorType;

use super::{Format, format, jpeg, png as png_file, read, tiff};
use crate::data::{DataError, LabelMap};

const LABEL: &str = "label map";

/// Reads a label map: a palette PNG's indices, a grey PNG's values. A picture of several channels
/// is an error.
pub fn read_label(path: &Path) -> Result<LabelMap, DataError> {
    let bytes = read(LABEL, path)?;
    match format(LABEL, path, &bytes)? {
        Format::Jpeg => {
            jpeg::grey(&bytes).map(|(height, width, data)| LabelMap { height, width, data })
        }
        Format::Png => png_file::samples(&bytes).and_then(indices),
        Format::Tiff => {
            tiff::indices(&bytes).map(|(height, width, data)| LabelMap { height, width, data })
        }
        Format::Whole(kind) => {
            kind.indices(&bytes).map(|(height, width, data)| LabelMap { height, width, data })
        }
    }
    .map_err(|reason| DataError::undecodable(LABEL, path, reason))
}

fn indices(samples: png_file::Samples) -> Result<LabelMap, String> {
    let png_file::Samples { height, width, colours, bits, data } = samples;
    let scale = match colours {
        // Pillow stretches 2 and 4 bits of grey to the whole range of a byte, but not palette
        // indices and not single bits.
        ColorType::Grayscale if bits == 2 => 85,
        ColorType::Grayscale if bits == 4 => 17,
        ColorType::Grayscale | ColorType::Indexed => 1,
        _ => {
            return Err(format!(
                "it is a picture of {} channels; expected one channel of class indices (a grey or \
                 palette PNG)",
                colours.samples()
            ));
        }
    };
    let data = match bits {
        8 => data,
        16 => {
            if let Some(high) = data.chunks_exact(2).find(|pair| pair[0] != 0) {
                let value = u16::from_be_bytes([high[0], high[1]]);
                return Err(format!(
                    "it has 16 bits a pixel and the label {value}; expected labels from 0 to 255"
                ));
            }
            data.chunks_exact(2).map(|pair| pair[1]).collect()
        }
        bits => {
            let (per_byte, mask) = (8 / bits, (1_u8 << bits) - 1);
            let stride = width.div_ceil(per_byte);
            let value = |row: &[u8], x: usize| {
                (row[x / per_byte] >> (8 - bits * (x % per_byte + 1))) & mask
            };
            data.chunks_exact(stride)
                .flat_map(|row| (0..width).map(move |x| value(row, x) * scale))
                .collect()
        }
    };
    Ok(LabelMap { height, width, data })
}
