//! `segslurm dist_test`: test with several ranks on this machine, and on others that are started
//! alike.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser};

use super::machines::{ENVIRONMENT, Ranks};
use super::slurm_args::CheckArgs;
use super::test::Testing;
use crate::exit::{Exit, Failure};
use crate::variables::Variables;

/// Test on several GPUs: CONFIG, CHECKPOINT, the number of GPUs, and options of `segslurm test`
#[derive(Debug, ClapArgs)]
#[command(after_help = ENVIRONMENT)]
pub(crate) struct Args {
    /// The config file
    config: PathBuf,

    /// A checkpoint of segslurm's or a .pth of mmseg's
    checkpoint: PathBuf,

    #[command(flatten)]
    ranks: Ranks,
}

/// The ranks' own command line, to see that it is right before they are started.
#[derive(Debug, Parser)]
#[command(
    name = "segslurm dist_test",
    override_usage = "segslurm dist_test CONFIG CHECKPOINT GPUS [OPTIONS of segslurm test]"
)]
struct Rank {
    #[command(flatten)]
    testing: Testing,

    #[command(flatten)]
    check: CheckArgs,
}

pub(crate) fn run(args: &Args, variables: Variables) -> Result<Exit, Failure> {
    let mut line = vec![
        "test".into(),
        args.config.clone().into_os_string(),
        args.checkpoint.clone().into_os_string(),
    ];
    line.extend(args.ranks.options.iter().cloned());
    match Rank::try_parse_from(&line) {
        Ok(Rank { testing, check: CheckArgs { dry_run: Some(files) } }) => {
            testing.check(files, variables)
        }
        Ok(rank) => args.ranks.start(line, &rank.testing.here()?.0, variables),
        Err(error) => {
            let line: Vec<_> = std::iter::once("segslurm".into()).chain(line).collect();
            Ok(super::refused(&error, &line))
        }
    }
}
