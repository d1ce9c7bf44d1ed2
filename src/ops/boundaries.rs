//! Where classes meet in label maps. Nothing here has a gradient.

use burn::tensor::{Int, Tensor};
use tch::{Kind, TchError};

use super::border::{from_tch, to_tch};
use super::error::computed;

/// 1 where a boundary of `labels` `[n, h, w]` passes, else 0: responses to the `laplacian` `[1, 1,
/// 3, 3]` at the whole size, a half and a quarter, cut at `threshold`, and added by `fusion` `[1,
/// 3, 1, 1]` (Fan et al. 2021, as mmseg's `STDCHead` computes it).
pub fn boundaries(
    labels: &Tensor<3, Int>,
    [laplacian, fusion]: &[Tensor<4>; 2],
    threshold: f64,
) -> Tensor<3, Int> {
    let given = to_tch(labels);
    let (laplacian, fusion) = (to_tch(laplacian), to_tch(fusion));
    let found = || -> Result<tch::Tensor, TchError> {
        let labels = given.f_to_kind(Kind::Float)?.f_unsqueeze(1)?;
        let (height, width) = (labels.size()[2], labels.size()[3]);
        let cut = |x: tch::Tensor| x.f_gt(threshold)?.f_to_kind(Kind::Float);
        let at = |stride: i64| {
            let edges = labels.f_conv2d(
                &laplacian,
                None::<&tch::Tensor>,
                [stride; 2],
                [1, 1],
                [1, 1],
                1,
            )?;
            cut(edges.f_clamp_min(0.0)?.f_upsample_nearest2d([height, width], None, None)?)
        };
        let levels = tch::Tensor::f_cat(&[at(1)?, at(2)?, at(4)?], 1)?;
        let sum = levels.f_conv2d(&fusion, None::<&tch::Tensor>, [1, 1], [0, 0], [1, 1], 1)?;
        cut(sum)?.f_squeeze_dim(1)?.f_to_kind(Kind::Int64)
    };
    from_tch(computed("boundaries", [&given], found()), &labels.device())
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    #[test]
    fn a_boundary_passes_where_labels_change_upwards() {
        let device = Device::libtorch();
        let labels: Tensor<3, Int> = Tensor::from_data(
            TensorData::new(
                (0..64).map(|it| i64::from(it % 8 >= 4)).collect::<Vec<_>>(),
                [1, 8, 8],
            ),
            &device,
        );
        let kernel = |values: &[f32], shape: [usize; 4]| {
            Tensor::<4>::from_data(TensorData::new(values.to_vec(), shape), &device)
        };
        let kernels = [
            kernel(&[-1.0, -1.0, -1.0, -1.0, 8.0, -1.0, -1.0, -1.0, -1.0], [1, 1, 3, 3]),
            kernel(&[0.6, 0.3, 0.1], [1, 3, 1, 1]),
        ];
        let found = to_tch(&boundaries(&labels, &kernels, 0.1));
        let row = Vec::<i64>::try_from(found.select(0, 0).select(0, 4)).expect("numbers");
        assert_eq!(row[4], 1);
        assert_eq!(row[..3], [0, 0, 0]);
    }
}
