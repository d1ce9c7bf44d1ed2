//! The command line: one file per command, each with its arguments and its `run`.

mod args;
mod check;
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
mod old_options;
mod outline;
mod slurm_args;
mod slurm_test;
mod slurm_train;
mod test;
mod train;
mod version;

use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::exit::Exit;
use crate::terminal;

/// Train and test semantic-segmentation models, on this machine or on a Slurm cluster.
#[derive(Debug, Parser)]
#[command(name = "segslurm", version, max_term_width = 110, infer_long_args = true)]
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
fn refused(error: &clap::Error, arguments: &[OsString]) -> Exit {
    if let Some(line) = old_options::hint(arguments).filter(|_| error.use_stderr()) {
        terminal::note(format!("error: {line}"));
        return Exit::Usage;
    }
    let printed = error.print();
    if error.use_stderr() {
        return Exit::Usage;
    }
    // Help that was asked for; a reader that has gone away has seen enough.
    match printed.and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Exit::CannotWrite,
        _ => Exit::Done,
    }
}

#[expect(clippy::disallowed_methods, reason = "the reader of variables that everything is handed")]
pub(crate) fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let variables = |name: &str| std::env::var(name).ok();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        // clap's own text is a constant, and what libtorch and the cards are is not.
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayVersion => {
            let long = args.iter().any(|it| it == "--version");
            let text =
                if long { version::long(&variables) } else { format!("{}\n", version::short()) };
            return match terminal::print(text) {
                Ok(()) => Exit::Done.into(),
                Err(failure) => {
                    terminal::note(format!("error: {failure}"));
                    failure.exit.into()
                }
            };
        }
        Err(error) => return refused(&error, &args).into(),
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
        Err(failure) if failure.exit == Exit::Usage && old_options::hint(&args).is_some() => {
            terminal::note(format!("error: {}", old_options::hint(&args).unwrap_or_default()));
            Exit::Usage.into()
        }
        Err(failure) => {
            terminal::note(format!("error: {failure}"));
            failure.exit.into()
        }
    }
}
