//! What a step says of its losses, and when.

use segslurm::data::{Batch, Image, LabelMap};
use segslurm::ops::MemoryFormat;
use segslurm::testing::config;
use segslurm::testing::dist::Group;
use segslurm::testing::exit::Exit;
use segslurm::testing::experiment::Experiment;
use segslurm::testing::runner::Learner;
use segslurm::weights::Role;

use crate::harness::CONFIG;
use crate::learning;

fn learner(changes: &[&str]) -> Learner {
    let changes: Vec<String> =
        ["crop_size=[32,32]"].iter().chain(changes).map(ToString::to_string).collect();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(CONFIG);
    let experiment = Experiment::from_config(&config::load(&path, &changes).expect("loads"))
        .expect("an experiment");
    let wrapper = experiment.optim_wrapper.as_ref().expect("an optimizer");
    let device = learning::cpu().autodiff();
    Learner::new(
        &experiment.model,
        wrapper,
        &device,
        &Group::alone(),
        1,
        10,
        MemoryFormat::Contiguous,
    )
    .expect("a learner")
}

fn batch() -> Batch {
    let (height, width) = (32, 32);
    let image = |first: usize| Image {
        height,
        width,
        data: (0..height * width * 3).map(|it| (first + it * 7) as u8).collect(),
    };
    let labels = || LabelMap {
        height,
        width,
        data: (0..height * width).map(|it| u8::from(it % 5 == 0)).collect(),
    };
    learning::batch(vec![image(0), image(90)], vec![labels(), labels()])
}

fn weights(learner: &Learner) -> Vec<tch::Tensor> {
    let all = learner.segmentor.weights().into_iter().filter(|it| it.role == Role::Parameter);
    all.map(|it| it.tensor.copy()).collect()
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_before_the_weights_change() {
    let mut learner = learner(&["model.decode_head.loss_decode.loss_weight=1e39"]);
    let before = weights(&learner);
    let error = learner.step(&batch(), 6, &[0.01]).expect_err("an infinite loss");
    let said = error.to_string();
    assert!(
        said.contains("the loss is not finite at iteration 7: loss inf, decode.loss_ce inf"),
        "{said}"
    );
    assert!(said.contains("the batch was image 0, image 1"), "{said}");
    assert!(error.exit == Exit::Data, "{error:?}");
    assert!(before.iter().zip(weights(&learner)).all(|(before, after)| before.equal(&after)));
}

#[test]
fn the_total_comes_first_and_is_the_sum_of_the_losses() {
    let mut learner = learner(&[]);
    let before = weights(&learner);
    let told = learner.step(&batch(), 0, &[0.01]).expect("a step");
    let names: Vec<&str> = told.iter().map(|it| it.0.as_str()).collect();
    assert_eq!(names, ["loss", "decode.loss_ce", "decode.acc_seg", "aux.loss_ce", "aux.acc_seg"]);
    assert!((told[0].1 - told[1].1 - told[3].1).abs() < 1e-6, "{told:?}");
    assert!(
        !before.iter().zip(weights(&learner)).all(|(before, after)| before.equal(&after)),
        "nothing was learnt"
    );
}
