//! Learning rates at every iteration, beside mmengine's.

use segslurm::testing::optim::{Horizon, ParamSchedulerConfig, Schedule};

use crate::peer::{self, Figures};

#[test]
#[ignore = "compares with the peer's results: make parity"]
fn learning_rates_are_mmengines() {
    let mut figures = Figures::new("schedules");
    let rates = peer::tensors("schedules/rates.safetensors");
    for case in peer::list(&peer::json("schedules/index.json")) {
        let name = peer::text(&case["name"]);
        let configs: Vec<ParamSchedulerConfig> = peer::section(&case["param_scheduler"]);
        let (iterations, epoch_length) =
            (peer::size(&case["iterations"]) as u64, peer::size(&case["epoch_length"]) as u64);
        let lr = peer::number(&case["lr"]);
        // The peer's script steps every scheduler that counts in epochs at each epoch's end.
        let horizon = Horizon {
            max_iters: iterations,
            epoch_length,
            max_epochs: Some(iterations.div_ceil(epoch_length)),
        };
        let mut schedule = Schedule::new(&configs, &[lr, 10.0 * lr], horizon).expect("a schedule");
        let theirs = Vec::<f64>::try_from(rates[name].flatten(0, -1)).expect("rates");
        assert_eq!(theirs.len() as u64, 2 * iterations);
        let mut worst = 0.0_f64;
        for (iteration, theirs) in theirs.chunks(2).enumerate() {
            for (ours, theirs) in schedule.rates(iteration as u64).iter().zip(theirs) {
                worst = worst.max((ours - theirs).abs() / theirs.abs());
            }
        }
        figures.at_most(&format!("{name}, {iterations} iterations"), worst, 1e-9);
    }
    figures.done();
}
