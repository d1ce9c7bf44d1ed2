//! `segslurm convert`: a checkpoint's weights in the other format, for mmseg and every tool that
//! reads torch's files.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::checkpoint::Checkpoint;
use crate::exit::{Exit, Failure};
use crate::terminal;

/// Write a checkpoint's weights and classes as .pth for mmseg, or as .safetensors
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "A .pth is read by torch.load with its default weights_only=True, and by mmseg's \
                  tools. The state of a training (optimizer, progress) stays behind: go on from \
                  the original. Environment variables have no effect."
)]
pub(crate) struct Args {
    /// A checkpoint of segslurm's or a .pth of mmseg's
    checkpoint: PathBuf,

    /// The file to write; its name ends in .pth or .safetensors. One that is there is replaced
    #[arg(value_name = "OUT")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let Args { checkpoint: path, out } = args;
    let extension = out.extension().map(|it| it.to_string_lossy().to_lowercase());
    let write = match extension.as_deref() {
        Some("pth") => Checkpoint::write_pth,
        Some("safetensors") => Checkpoint::write,
        _ => {
            let message = format!(
                "{}: its name ends in neither .pth nor .safetensors, which say what to write",
                out.display()
            );
            return Err(Failure::new(Exit::Usage, message));
        }
    };
    if let (Ok(from), Ok(to)) = (path.canonicalize(), out.canonicalize())
        && from == to
    {
        let message = format!(
            "{} would be replaced by its own weights, without the training's state",
            out.display()
        );
        return Err(Failure::new(Exit::Usage, message + "; name another file"));
    }
    let checkpoint = Checkpoint::read(path)?.into_weights();
    write(&checkpoint, out)?;
    let (tensors, classes) = (checkpoint.model.len(), checkpoint.meta.dataset_meta.classes.len());
    terminal::print(format!("wrote {}: {tensors} tensors, {classes} classes\n", out.display()))?;
    Ok(Exit::Done)
}
