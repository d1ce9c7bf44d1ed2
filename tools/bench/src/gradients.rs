//! When the gradients of a step come: what there is to send at each moment of the backward pass.
//! `scripts/bench/scaling.py` makes of it how far data-parallel training goes.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Instant;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use segslurm::models::{Forward, Pixels};
use segslurm::ops::{self, LeafId};
use segslurm::testing::dist::Group;
use serde_json::json;

use crate::{model, report};

/// The parameters that want gradients.
#[derive(Default)]
struct Leaves(HashSet<LeafId>);

impl ModuleVisitor for Leaves {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.extend(ops::leaf(&param.val()));
    }
}

pub(crate) fn run(name: &str, images: Option<usize>) -> anyhow::Result<()> {
    let learner = model::learner(name, Group::alone(), model::default_gpu()?)?;
    let batch = model::batch(name, images)?;
    let pixels: Vec<_> = batch
        .samples
        .iter()
        .map(|it| Pixels { height: it.image.height, width: it.image.width, data: &it.image.data })
        .collect();
    let labels: Vec<_> = batch
        .samples
        .iter()
        .filter_map(|it| it.label.as_ref())
        .map(|it| Pixels { height: it.height, width: it.width, data: &it.data })
        .collect();
    let mut leaves = Leaves::default();
    learner.segmentor.visit(&mut leaves);
    let leaves = Rc::new(leaves.0);
    let mut figures = json!(null);
    // The first pass warms up; the second counts.
    for _ in 0..2 {
        let start = Instant::now();
        let (images, labels) = learner.preprocessor.training(&pixels, &labels, &learner.device)?;
        let loss = learner.segmentor.loss(images, &labels, &Forward::training(1, None)).total;
        let forward = start.elapsed().as_secs_f64();
        let came: Rc<RefCell<Vec<(f64, usize)>>> = Rc::default();
        let (start, seen, leaves) = (Instant::now(), Rc::clone(&came), Rc::clone(&leaves));
        drop(ops::backward_with(&loss, move |leaf, gradient| {
            let wanted = leaves.contains(&leaf);
            if wanted {
                seen.borrow_mut().push((start.elapsed().as_secs_f64(), 4 * gradient.numel()));
            }
            wanted
        }));
        let backward = start.elapsed().as_secs_f64();
        figures = json!({ "forward": forward, "backward": backward, "came": *came.borrow() });
    }
    report::print(figures)
}
