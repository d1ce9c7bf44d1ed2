//! The command line: one file per command, each with its arguments and its `run`.

mod args;
mod config;
mod convert;
mod demo_data;
mod dist_test;
mod dist_train;
mod env;
mod failure;
mod job;
mod launch_args;
mod machines;
mod slurm_args;
mod slurm_test;
mod slurm_train;
mod test;
mod train;
mod version;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::exit::{Exit, told};
use crate::terminal;

/// Train and test semantic-segmentation models, on this machine or on a Slurm cluster.
#[derive(Debug, Parser)]
#[command(name = "segslurm", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::Args),
    Test(test::Args),
    #[command(name = "dist_train", alias = "dist-train")]
    DistTrain(dist_train::Args),
    #[command(name = "dist_test", alias = "dist-test")]
    DistTest(dist_test::Args),
    #[command(name = "slurm_train", alias = "slurm-train")]
    SlurmTrain(slurm_train::Args),
    #[command(name = "slurm_test", alias = "slurm-test")]
    SlurmTest(slurm_test::Args),
    Config(config::Args),
    Convert(convert::Args),
    Env(env::Args),
    DemoData(demo_data::Args),
}

/// Prints why a command line was not taken, or the help that it asked for.
fn refused(error: &clap::Error) -> Exit {
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Done }
}

pub(crate) fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let variables = |name: &str| std::env::var(name).ok();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        // clap's own text is a constant, and what libtorch and the cards are is not.
        Err(error) if error.kind() == ErrorKind::DisplayVersion => {
            let long = args.iter().any(|it| it == "--version");
            let text = if long { version::long(&variables) } else { format!("{}\n", version::short()) };
            // A reader that has gone away has seen enough.
            let _ = std::io::stdout().lock().write_all(text.as_bytes());
            return Exit::Done.into();
        }
        Err(error) => return refused(&error).into(),
    };
    let work = move || match cli.command {
        Command::Train(args) => train::run(&args, &variables),
        Command::Test(args) => test::run(&args, &variables),
        Command::DistTrain(args) => dist_train::run(&args, &variables),
        Command::DistTest(args) => dist_test::run(&args, &variables),
        Command::SlurmTrain(args) => slurm_train::run(&args, &variables),
        Command::SlurmTest(args) => slurm_test::run(&args, &variables),
        Command::Config(args) => config::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Env(args) => env::run(&args, &variables),
        Command::DemoData(args) => demo_data::run(&args),
    };
    match failure::caught(work) {
        Ok(exit) => exit.into(),
        Err(error) => {
            terminal::note(format!("error: {}", told(&error)));
            failure::exit(&error).into()
        }
    }
}
