//! The files that come with the program: they lie beside it, wherever it is installed.

use std::path::PathBuf;

/// The folders of this name that come with the program, the nearest first.
pub(crate) fn folders(name: &str) -> Vec<PathBuf> {
    let Ok(program) = std::env::current_exe().and_then(std::fs::canonicalize) else {
        return Vec::new();
    };
    let above = program.ancestors().skip(1);
    above
        .take(5)
        .flat_map(|it| [it.join("share/segslurm").join(name), it.join(name)])
        .filter(|it| it.is_dir())
        .collect()
}
