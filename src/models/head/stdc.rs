//! The head of STDC that learns where classes meet (Fan et al. 2021, "detail guidance").

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};
use serde::Deserialize;

use super::fcn::{FCNHead, FCNKeys};
use super::{Decode, DecodeConfig, Head};
use crate::config::{Both, default};
use crate::models::contract::{Feature, HeadKeys, RunHead, Seen};
use crate::models::forward::Scalars;
use crate::models::layer::Inline;
use crate::models::{Builder, Forward, ModelError};
use crate::ops;
use crate::weights::Layer;

/// The keys of `type: STDCHead`: those of an `FCNHead`, and its own.
pub type STDCHeadConfig = Both<DecodeConfig, Both<FCNKeys, STDCKeys>>;

/// Its own keys.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct STDCKeys {
    /// Above it a response to an edge is a boundary.
    #[serde(default = "default::ratio::<1, 10>")]
    #[serde(deserialize_with = "crate::config::finite")]
    pub boundary_threshold: f64,
}

/// A filter that responds to edges.
const LAPLACIAN: [f32; 9] = [-1.0, -1.0, -1.0, -1.0, 8.0, -1.0, -1.0, -1.0, -1.0];

/// How much the boundaries at the whole size, a half and a quarter count.
const FUSION: [f32; 3] = [0.6, 0.3, 0.1];

impl HeadKeys for Both<FCNKeys, STDCKeys> {
    const TAKES_LABELS: bool = false;

    fn check(&self, shared: &DecodeConfig, inputs: &[Feature]) -> Result<(), ModelError> {
        if shared.num_classes != 2 {
            let problem =
                format!("a pixel is a boundary or none: expected 2, got {}", shared.num_classes);
            return Err(ModelError::config("num_classes", problem));
        }
        self.shared.check(shared, inputs)
    }

    fn build(
        &self,
        shared: &DecodeConfig,
        inputs: &[Feature],
        builder: &Builder,
    ) -> Result<Head, ModelError> {
        let buffer = |values: &[f32], shape: [usize; 4]| {
            Tensor::from_data(TensorData::new(values.to_vec(), shape), builder.device())
        };
        let laplacian_kernel = builder.buffer(buffer(&LAPLACIAN, [1, 1, 3, 3]), Layer::Own);
        let fusion_kernel = builder.fixed(buffer(&FUSION, [1, 3, 1, 1]), Layer::Own);
        let fcn = Inline::Here(self.shared.plain_head(shared, inputs, builder)?);
        let threshold = self.boundary_threshold;
        Ok(STDCHead { fusion_kernel, laplacian_kernel, fcn, threshold }.into())
    }
}

/// Convolutions that learn boundaries.
#[derive(Module, Debug)]
pub struct STDCHead {
    /// A parameter that is never trained.
    fusion_kernel: Param<Tensor<4>>,
    laplacian_kernel: Param<Tensor<4>>,
    fcn: Inline<FCNHead>,
    threshold: f64,
}

impl RunHead for STDCHead {
    fn forward(&self, seen: Seen, ctx: &Forward) -> Tensor<4> {
        self.fcn.forward(seen, ctx)
    }

    fn decode(&self) -> &Decode {
        self.fcn.decode()
    }

    fn labels(&self) -> Option<(usize, i64)> {
        None
    }

    /// Against the boundaries of `labels`.
    fn loss(&self, seen: Seen, labels: &Tensor<3, Int>, ctx: &Forward) -> Scalars {
        let kernels = [self.laplacian_kernel.val(), self.fusion_kernel.val()];
        let boundaries = ops::boundaries(labels, &kernels, self.threshold);
        self.fcn.decode().losses(self.fcn.forward(seen, ctx), &boundaries)
    }
}
