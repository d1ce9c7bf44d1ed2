//! `segslurm --version`: the program, the libtorch under it, and the GPUs that it would use.

use std::fmt::Write as _;

use crate::dist::{self, Accelerator, Launcher};
use crate::variables::Variables;

/// The long form; `-V` gives its first line alone.
pub(super) fn long(variables: Variables) -> String {
    let mut text = format!("{}\n{}\n", short(), dist::libtorch());
    if let Some(folder) = dist::libtorch_folder() {
        let _ = writeln!(text, "from {}", folder.display());
    }
    match Accelerator::find(variables, Launcher::None) {
        Ok(Accelerator { gpus: 0, reason, trouble, missed }) => {
            let why = trouble.or(missed).or(reason).unwrap_or_default();
            let _ = writeln!(text, "no GPU is used: {why}");
        }
        Ok(Accelerator { gpus, trouble, .. }) => {
            for index in 0..gpus {
                let card =
                    dist::card(index).map_or_else(|error| error.to_string(), |it| it.to_string());
                let _ = writeln!(text, "cuda:{index} {card}");
            }
            trouble.into_iter().for_each(|it| text.push_str(&format!("{it}\n")));
        }
        Err(error) => {
            let _ = writeln!(text, "{error}");
        }
    }
    text
}

pub(super) fn short() -> String {
    format!("segslurm {}", env!("CARGO_PKG_VERSION"))
}
