//! The train loop, on one screen.

use std::time::Instant;

use super::build::Training;
use super::outcome::Outcome;
use crate::exit::Failure;

/// Trains until the plan is done or somebody asks to stop.
pub(crate) fn train(run: &mut Training) -> Result<Outcome, Failure> {
    if run.progress.validation_due && run.validate()? == Outcome::Interrupted {
        return run.leave();
    }
    while run.goes_on() {
        let started = Instant::now();
        let batch = run
            .batches
            .next()
            .ok_or_else(|| Failure::fault("the data loader ended before the training"))??;
        let data_time = started.elapsed();
        let interrupted = run.interrupt.agree(&run.group)?;

        let rates = run.schedule.rates(run.progress.iteration);
        let losses = run.learner.step(&batch, run.progress.iteration, &rates)?;
        run.progress.iteration += 1;
        run.follow();
        run.begun();
        run.log(&losses, &rates, started.elapsed(), data_time)?;

        run.progress.validation_due = run.plan.validation_due(run.progress.iteration);
        if interrupted.wait()? {
            return run.leave();
        }
        if run.plan.checkpoint_due(run.progress.iteration) {
            run.save()?;
        }
        if run.progress.validation_due && run.validate()? == Outcome::Interrupted {
            return run.leave();
        }
    }
    run.finish()
}
