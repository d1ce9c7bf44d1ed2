//! Our side of `make bench`: one case a process, its figures one line of JSON at the end, as the
//! peer's scripts in `scripts/bench/` print theirs. `scripts/bench/compare.py` runs both and makes
//! the table.

#![allow(clippy::disallowed_methods, reason = "it looks at the program from outside")]

mod gpu;
mod gradients;
mod ground;
mod loader;
mod model;
mod ranks;
mod report;
mod startup;
mod train_step;
mod transforms;

use anyhow::bail;

const USAGE: &str = "usage: bench train-step MODEL[:channels_last] STEPS | startup MODEL | \
                     transforms RECIPE FOLDER IMAGES | loader RECIPE FOLDER IMAGES | ground FOLDER \
                     | gradients MODEL [IMAGES] | rank STEPS overlap|after | gpu-check | gpu-speed \
                     IMAGES fp32|amp STEPS";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["train-step", model, steps] => train_step::run(model, steps.parse()?),
        ["startup", model] => startup::run(model),
        ["transforms", recipe, folder, images] => {
            transforms::run(recipe, folder.as_ref(), images.parse()?)
        }
        ["loader", recipe, folder, images] => loader::run(recipe, folder.as_ref(), images.parse()?),
        ["gradients", model] => gradients::run(model, None),
        ["gradients", model, images] => gradients::run(model, Some(images.parse()?)),
        ["rank", steps, overlap] => ranks::run(steps.parse()?, overlap),
        ["gpu-check"] => gpu::check(),
        ["gpu-speed", images, precision, steps] => {
            gpu::speed(images.parse()?, precision, steps.parse()?)
        }
        ["ground", folder] => ground::run(folder.as_ref()),
        _ => bail!(USAGE),
    }
}
