//! `segslurm dist_train`: train with several ranks on this machine, and on others that are started
//! alike.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser};

use super::machines::{ENVIRONMENT, Ranks};
use super::slurm_args::CheckArgs;
use super::train::Training;
use crate::exit::{Exit, Failure};
use crate::variables::Variables;

/// Train on several GPUs: CONFIG, the number of GPUs, and options of `segslurm train`
#[derive(Debug, ClapArgs)]
#[command(after_help = ENVIRONMENT)]
pub(crate) struct Args {
    /// The config file
    config: PathBuf,

    #[command(flatten)]
    ranks: Ranks,
}

/// The ranks' own command line, to see that it is right before they are started.
#[derive(Debug, Parser)]
#[command(
    name = "segslurm dist_train",
    override_usage = "segslurm dist_train CONFIG GPUS [OPTIONS of segslurm train]"
)]
struct Rank {
    #[command(flatten)]
    training: Training,

    #[command(flatten)]
    check: CheckArgs,
}

pub(crate) fn run(args: &Args, variables: Variables) -> Result<Exit, Failure> {
    let mut line = vec!["train".into(), args.config.clone().into_os_string()];
    line.extend(args.ranks.options.iter().cloned());
    match Rank::try_parse_from(&line) {
        Ok(Rank { training, check: CheckArgs { dry_run: Some(files) } }) => {
            training.check(files, variables)
        }
        Ok(rank) => args.ranks.start(line, &rank.training.here()?, variables),
        Err(error) => {
            let line: Vec<_> = std::iter::once("segslurm".into()).chain(line).collect();
            Ok(super::refused(&error, &line))
        }
    }
}
