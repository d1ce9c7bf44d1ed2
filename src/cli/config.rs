//! `segslurm config`: what a config says once its bases, its references and the command line are
//! merged.

use clap::{Args as ClapArgs, ValueEnum};

use super::args::ConfigArgs;
use super::outline;
use crate::exit::{Exit, Failure};
use crate::experiment::Experiment;
use crate::runner::Footprint;
use crate::terminal;

/// Print the merged config
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// The form to print it in
    #[arg(long, value_enum, default_value_t = Format::Yaml)]
    format: Format,
    /// In place of the config, print what each part of its model gives and costs, once nothing is
    /// found to be wrong
    #[arg(long)]
    check: bool,
    /// Height and width of the image that --check is about; the size that the model is trained
    /// with, unless given
    #[arg(long, num_args = 1..=2, value_names = ["HEIGHT", "WIDTH"], requires = "check", value_parser = clap::value_parser!(u32).range(1..=65536))]
    shape: Vec<u32>,
    /// Also print about how much memory a training step takes, found by steps on small images
    #[arg(long, requires = "check")]
    memory: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let config = args.config.load()?;
    if args.check {
        let experiment = Experiment::from_config(&config)?;
        experiment.remarks.iter().for_each(|it| terminal::note(format!("segslurm: {it}")));
        let shape = args
            .shape
            .first()
            .map(|&height| [height, *args.shape.last().unwrap_or(&height)].map(|it| it as usize));
        terminal::print(outline::table(&experiment, shape)?)?;
        if args.memory {
            terminal::print(format!("\n{}", Footprint::of(&experiment, shape)?))?;
        }
        return Ok(Exit::Done);
    }
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
