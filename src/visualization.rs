//! Painted pictures: label maps in their palette, laid over the image.

/// mmseg's default weight of the colours against the image.
pub(crate) const ALPHA: f64 = 0.8;

/// Lays `labels` over an image: each pixel is `alpha` of its class's colour and the rest of the
/// image. Pixels whose label has no colour (255, say) stay as they are.
///
/// `image` is `[height, width, 3]` in BGR, as the readers give it; the result is RGB, of the same
/// size.
pub(crate) fn overlay(image: &[u8], labels: &[u8], palette: &[[u8; 3]], alpha: f64) -> Vec<u8> {
    debug_assert_eq!(image.len(), 3 * labels.len());
    let mut painted = Vec::with_capacity(image.len());
    for (pixel, &label) in image.chunks_exact(3).zip(labels) {
        let rgb = [pixel[2], pixel[1], pixel[0]];
        match palette.get(usize::from(label)) {
            Some(colour) => painted.extend(rgb.iter().zip(colour).map(|(&under, &over)| {
                (f64::from(under) * (1.0 - alpha) + f64::from(over) * alpha) as u8
            })),
            None => painted.extend(rgb),
        }
    }
    painted
}

/// Two RGB pictures of the same height, side by side.
pub(crate) fn beside(left: &[u8], right: &[u8], width: usize) -> Vec<u8> {
    let rows = left.chunks_exact(3 * width).zip(right.chunks_exact(3 * width));
    rows.flat_map(|(left, right)| left.iter().chain(right).copied()).collect()
}

/// A PNG of RGB pixels (`colours` 3) or of one byte a pixel (`colours` 1).
pub(crate) fn png(
    pixels: &[u8],
    width: usize,
    height: usize,
    colours: usize,
) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(if colours == 3 { png::ColorType::Rgb } else { png::ColorType::Grayscale });
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_cover_labelled_pixels_and_leave_the_others() {
        let image = [10, 20, 30, 10, 20, 30];
        let painted = overlay(&image, &[0, 255], &[[200, 100, 0]], 0.5);
        assert_eq!(painted, [115, 60, 5, 30, 20, 10]);
    }

    #[test]
    fn pictures_stand_side_by_side_row_by_row() {
        let (left, right) = ([1, 1, 1, 2, 2, 2], [3, 3, 3, 4, 4, 4]);
        assert_eq!(beside(&left, &right, 1), [1, 1, 1, 3, 3, 3, 2, 2, 2, 4, 4, 4]);
    }

    #[test]
    fn a_label_map_survives_its_png() {
        let labels: Vec<u8> = (0..12).collect();
        let bytes = png(&labels, 4, 3, 1).expect("encodes");
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().expect("a PNG");
        let mut back = vec![0; 12];
        reader.next_frame(&mut back).expect("a frame");
        assert_eq!(back, labels);
    }
}
