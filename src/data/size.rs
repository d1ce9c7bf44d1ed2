//! The arithmetic that turns a scale into a size, as mmcv does it.

/// `(width, height)` times a factor each, rounded half up: mmcv's `_scale_size`.
pub(super) fn scaled((width, height): (usize, usize), factor: (f64, f64)) -> (usize, usize) {
    ((width as f64 * factor.0 + 0.5) as usize, (height as f64 * factor.1 + 0.5) as usize)
}

/// The largest size of `(width, height)`'s ratio whose long edge and short edge lie within those of
/// `scale`: mmcv's `rescale_size`.
pub fn rescaled((width, height): (usize, usize), scale: (usize, usize)) -> (usize, usize) {
    let long = scale.0.max(scale.1) as f64 / width.max(height) as f64;
    let short = scale.0.min(scale.1) as f64 / width.min(height) as f64;
    let factor = long.min(short);
    scaled((width, height), (factor, factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Reference values from mmcv 2.1's rescale_size.
    #[test]
    fn a_scale_bounds_the_long_and_the_short_edge() {
        assert_eq!(rescaled((683, 512), (2048, 512)), (683, 512));
        assert_eq!(rescaled((2048, 1024), (1024, 4096)), (2048, 1024));
        assert_eq!(rescaled((500, 375), (1331, 332)), (443, 332));
        assert_eq!(rescaled((375, 500), (1331, 332)), (332, 443));
        assert_eq!(rescaled((100, 10), (200, 200)), (200, 20));
    }
}
