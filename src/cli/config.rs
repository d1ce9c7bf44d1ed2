//! `segslurm config`: what a config says once its bases, its references and the command line are merged.

use clap::{Args as ClapArgs, ValueEnum};

use super::args::ConfigArgs;
use crate::exit::Exit;
use crate::experiment::Experiment;
use crate::terminal;

/// Print the merged config
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// The form to print it in
    #[arg(long, value_enum, default_value_t = Format::Yaml)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let config = args.config.load()?;
    let text = match args.format {
        Format::Yaml => config.to_yaml(),
        Format::Json => config.to_json() + "\n",
    };
    terminal::print(text)?;
    for remark in Experiment::check_config(&config)? {
        terminal::note(format!("segslurm: {remark}"));
    }
    Ok(Exit::Done)
}
