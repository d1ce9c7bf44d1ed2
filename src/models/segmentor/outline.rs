//! What each part of a model makes of an image, and what that costs: found by a pass over zeros.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::Segmentor;
use crate::models::Forward;
use crate::models::contract::Seen;
use crate::ops;

/// A part of a model at work on one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its key in the config, such as `backbone` or `auxiliary_head.0`.
    pub name: String,
    /// The shapes of what it gives, `[n, c, h, w]`.
    pub outputs: Vec<[usize; 4]>,
    pub parameters: usize,
    /// Those that training changes.
    pub trained: usize,
    /// As mmengine's complexity analysis counts them (mmseg's `tools/analysis_tools/get_flops.py`).
    pub multiply_adds: u64,
    /// Whether tests run it too: auxiliary heads only help to train.
    pub in_tests: bool,
}

impl Segmentor {
    /// Every part at work on one image of this size (height, width).
    pub fn outline(&self, [height, width]: [usize; 2]) -> Vec<Part> {
        let model = self.valid();
        let device = model.devices().into_iter().next().unwrap_or_else(Device::libtorch);
        let ctx = Forward::default();
        let weights = self.weights();
        let part = |name: String, outputs: &[Tensor<4>], multiply_adds: u64, in_tests: bool| {
            let prefix = format!("{name}.");
            let own = || weights.parameters().filter(|it| it.name.starts_with(&prefix));
            let parameters = own().map(|it| it.tensor.numel()).sum();
            let trained = own().filter(|it| it.trained).map(|it| it.tensor.numel()).sum();
            let outputs = outputs.iter().map(Tensor::dims).collect();
            Part { name, outputs, parameters, trained, multiply_adds, in_tests }
        };
        let image = Tensor::zeros([1, 3, height, width], &device);
        let (mut features, cost) = ops::multiply_adds(|| model.backbone.forward(image, &ctx));
        let mut parts = vec![part("backbone".to_owned(), &features, cost, true)];
        if let Some(neck) = &model.neck {
            let (levels, cost) = ops::multiply_adds(|| neck.forward(features, &ctx));
            parts.push(part("neck".to_owned(), &levels, cost, true));
            features = levels;
        }
        let mut logits: Option<Tensor<4>> = None;
        for (name, head) in model.decode_head.keyed("decode_head") {
            let seen = Seen { features: &features, previous: logits.as_ref() };
            let (made, cost) = ops::multiply_adds(|| head.forward(seen, &ctx));
            parts.push(part(name, std::slice::from_ref(&made), cost, true));
            logits = Some(made);
        }
        for (name, head) in model.auxiliary_head.iter().flat_map(|it| it.keyed("auxiliary_head")) {
            let seen = Seen { features: &features, previous: None };
            let (made, cost) = ops::multiply_adds(|| head.forward(seen, &ctx));
            parts.push(part(name, &[made], cost, false));
        }
        parts
    }
}
