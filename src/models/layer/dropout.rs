//! Layers that drop at random in training, each pass by its own seed and place.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::models::Forward;
use crate::ops;

/// Drops whole channels (torch's `Dropout2d`).
#[derive(Module, Debug)]
pub struct ChannelDropout {
    p: f64,
}

impl ChannelDropout {
    /// With probability `p`; 0 or less for none.
    pub fn new(p: f64) -> Self {
        Self { p: p.max(0.0) }
    }

    pub fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        if ctx.training && self.p > 0.0 { ops::dropout2d(x, self.p, ctx.next_seed()) } else { x }
    }
}

/// Drops single values (torch's `Dropout`).
#[derive(Module, Debug)]
pub struct Dropout {
    p: f64,
}

impl Dropout {
    /// With probability `p`; 0 or less for none.
    pub fn new(p: f64) -> Self {
        Self { p: p.max(0.0) }
    }

    pub fn forward<const D: usize>(&self, x: Tensor<D>, ctx: &Forward) -> Tensor<D> {
        if ctx.training && self.p > 0.0 { ops::dropout(x, self.p, ctx.next_seed()) } else { x }
    }
}

/// Drops all of a sample's values in a residual branch (Huang et al. 2016; timm's and mmcv's
/// `DropPath`).
#[derive(Module, Debug)]
pub struct DropPath {
    p: f64,
}

impl DropPath {
    /// With probability `p`; 0 or less for none.
    pub fn new(p: f64) -> Self {
        Self { p: p.max(0.0) }
    }

    pub fn forward<const D: usize>(&self, x: Tensor<D>, ctx: &Forward) -> Tensor<D> {
        if ctx.training && self.p > 0.0 { ops::drop_path(x, self.p, ctx.next_seed()) } else { x }
    }
}
