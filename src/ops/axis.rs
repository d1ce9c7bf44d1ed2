//! Linear maps along one axis as matrices, made on the device that uses them: resizing and pooling
//! become products of matrices.
//!
//! ATen's own CUDA kernels for the backward of resizing add with atomics, one addition a pixel (in
//! half precision two thirds of a train step of PSPNet), and those for pooling channels-last images
//! give each cell to few threads (docs/benchmarks.md). A product of matrices is what the card is
//! fastest at, and gives the same from run to run. The host never waits.

use tch::{Device, Kind, TchError, Tensor};

fn places(count: i64, device: Device) -> Result<Tensor, TchError> {
    Tensor::f_arange(count, (Kind::Float, device))
}

/// `[to, from]`: each row says how one place of a bilinearly resized axis is made of the old ones.
pub(super) fn bilinear(
    from: i64,
    to: i64,
    align_corners: bool,
    options: (Kind, Device),
) -> Result<Tensor, TchError> {
    let (kind, device) = options;
    let at = places(to, device)?;
    let source = match (align_corners, to) {
        (true, 1) => at.f_mul_scalar(0.0)?,
        (true, _) => at.f_mul_scalar(f64::from((from - 1) as f32 / (to - 1) as f32))?,
        (false, _) => at
            .f_add_scalar(0.5)?
            .f_mul_scalar(f64::from(from as f32 / to as f32))?
            .f_sub_scalar(0.5)?
            .f_clamp_min(0.0)?,
    };
    let left = source.f_floor()?.f_clamp_max((from - 1) as f64)?;
    let right = left.f_add_scalar(1.0)?.f_clamp_max((from - 1) as f64)?;
    let weight = source.f_sub(&left)?.f_clamp(0.0, 1.0)?.f_unsqueeze(1)?;
    let columns = places(from, device)?.f_unsqueeze(0)?;
    let here = |place: &Tensor| columns.f_eq_tensor(&place.f_unsqueeze(1)?)?.f_to_kind(Kind::Float);
    let matrix = here(&left)?
        .f_mul(&weight.f_neg()?.f_add_scalar(1.0)?)?
        .f_add(&here(&right)?.f_mul(&weight)?)?;
    matrix.f_to_kind(kind)
}

/// `[to, from]`: each row takes the mean over one of the cells that cover an axis, as adaptive
/// pooling cuts it.
fn cells(from: i64, to: i64, device: Device) -> Result<Tensor, TchError> {
    // From floor(i * from / to) to ceil((i + 1) * from / to), in whole numbers: a float may round
    // across one.
    let at = Tensor::f_arange(to, (Kind::Int64, device))?;
    let start = at.f_mul_scalar(from)?.f_floor_divide_scalar(to)?;
    let end =
        at.f_add_scalar(1)?.f_mul_scalar(from)?.f_add_scalar(to - 1)?.f_floor_divide_scalar(to)?;
    let columns = Tensor::f_arange(from, (Kind::Int64, device))?.f_unsqueeze(0)?;
    let inside = columns
        .f_ge_tensor(&start.f_unsqueeze(1)?)?
        .f_logical_and(&columns.f_lt_tensor(&end.f_unsqueeze(1)?)?)?;
    inside
        .f_to_kind(Kind::Float)?
        .f_div(&end.f_sub(&start)?.f_to_kind(Kind::Float)?.f_unsqueeze(1)?)
}

/// `[to height · to width, from height · from width]`: the same for both axes at once.
pub(super) fn grid(
    from: [i64; 2],
    to: [i64; 2],
    options: (Kind, Device),
) -> Result<Tensor, TchError> {
    let (kind, device) = options;
    let (rows, columns) = (cells(from[0], to[0], device)?, cells(from[1], to[1], device)?);
    let product =
        rows.f_view([to[0], 1, from[0], 1])?.f_mul(&columns.f_view([1, to[1], 1, from[1]])?)?;
    product.f_view([to[0] * to[1], from[0] * from[1]])?.f_to_kind(kind)
}

/// Whether the channels of a pixel of `x` `[n, c, h, w]` lie side by side, and only so.
pub(super) fn is_channels_last(x: &Tensor) -> bool {
    x.dim() == 4 && x.permute([0, 2, 3, 1]).is_contiguous() && !x.is_contiguous()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: (Kind, Device) = (Kind::Double, Device::Cpu);

    fn close(a: &Tensor, b: &Tensor) {
        let apart = (a - b).abs().max().double_value(&[]);
        assert!(a.size() == b.size() && apart < 1e-6, "{apart}");
    }

    #[test]
    fn a_bilinear_matrix_resizes_as_libtorch_does() {
        for (from, to) in [(5, 9), (5, 40), (7, 3), (1, 4), (4, 1), (6, 6)] {
            for align_corners in [false, true] {
                let x = Tensor::rand([1, 1, from, from], CPU);
                let matrix = bilinear(from, to, align_corners, CPU).expect("a matrix");
                close(
                    &matrix.matmul(&x).matmul(&matrix.transpose(0, 1)),
                    &x.upsample_bilinear2d([to, to], align_corners, None, None),
                );
            }
        }
    }

    #[test]
    fn a_grid_takes_means_as_libtorch_does() {
        for (from, to) in [
            ([6, 9], [2, 3]),
            ([7, 5], [3, 2]),
            ([64, 128], [6, 6]),
            ([2, 3], [4, 3]),
            ([5, 5], [1, 1]),
        ] {
            let x = Tensor::rand([2, 3, from[0], from[1]], CPU);
            let means =
                x.flatten(2, 3).matmul(&grid(from, to, CPU).expect("a matrix").transpose(0, 1));
            close(&means.view([2, 3, to[0], to[1]]), &x.internal_adaptive_avg_pool2d(to));
        }
    }
}
