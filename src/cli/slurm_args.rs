//! The options of every command that can run on Slurm.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueEnum};

use super::args::path;
use crate::data::dataset::Look;
use crate::exit::{Exit, Failure};
use crate::slurm::job::Flags;
use crate::slurm::options::{OPTIONS, Row, ValueKind};

/// The end of a command's help: a process's variables, then a job's.
pub(super) fn help_end(process: &str) -> String {
    let mut text =
        format!("{process}\n\nEnvironment of a Slurm job (an option of the same name wins):\n");
    for row in OPTIONS.iter().filter(|it| it.of_sbatch().is_none()) {
        let Some(variable) = row.variable else { continue };
        let default = Some(row.default)
            .filter(|it| !it.is_empty())
            .map(|it| format!(" [{it}]"))
            .unwrap_or_default();
        let _ = writeln!(text, "  {variable:<21} {}{default}", row.help);
    }
    text += "  SBATCH_*              sbatch's own variables, such as SBATCH_ACCOUNT\n";
    text += "  SEGSLURM_SITE         the site profile";
    text
}

/// The options of [`OPTIONS`] that were given, by their flags; a switch has an empty value.
#[derive(Debug, Clone, Default)]
struct Given(BTreeMap<&'static str, String>);

impl Given {
    fn argument(row: &Row) -> Arg {
        let argument = Arg::new(row.flag).long(row.flag).help(row.described());
        match row.kind {
            ValueKind::Switch => argument.action(ArgAction::SetTrue),
            ValueKind::Number(value) | ValueKind::Text(value) => {
                argument.value_name(value).allow_hyphen_values(true)
            }
            ValueKind::SwitchOr(value) => argument
                .value_name(value)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value(""),
        }
    }
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        command.args(OPTIONS.iter().map(Self::argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Self::default();
        given.update_from_arg_matches(matches)?;
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for Row { flag, kind, .. } in &OPTIONS {
            let value = match kind {
                ValueKind::Switch => matches.get_flag(flag).then(String::new),
                _ => matches.get_one::<String>(flag).cloned(),
            };
            self.0.extend(value.map(|it| (*flag, it)));
        }
        Ok(())
    }
}

/// A name of a profile, or its file.
fn name() -> impl TypedValueParser<Value = String> {
    path().try_map(|it| it.into_os_string().into_string().map_err(|_| "it is not UTF-8"))
}

/// The shape of a job.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Slurm")]
pub(crate) struct SlurmArgs {
    #[command(flatten)]
    given: Given,
    /// Any other option of sbatch and srun
    #[arg(long, value_name = "KEY=VALUE")]
    slurm: Vec<String>,
    /// A profile of the cluster: a name in slurm/sites or ~/.config/segslurm/sites, or a file
    /// [SEGSLURM_SITE, else by ClusterName]
    #[arg(long, value_name = "NAME", value_parser = name())]
    pub(super) site: Option<String>,
    /// A script template of your own
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub(super) template: Option<PathBuf>,
}

/// What is looked at in place of a run.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CheckArgs {
    /// Check config, data and model and start nothing; a few images and label maps are decoded, or
    /// every-file. Of a job on Slurm also when it would start, and every value and where it came
    /// from
    #[arg(long, value_name = "FILES", num_args = 0..=1, require_equals = true, default_missing_value = "some")]
    pub(super) dry_run: Option<Files>,
}

/// How many files `--dry-run` decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Files {
    Some,
    EveryFile,
}

impl From<Files> for Look {
    fn from(files: Files) -> Self {
        match files {
            Files::Some => Self::Some,
            Files::EveryFile => Self::EveryFile,
        }
    }
}

/// How a job is run: in the foreground unless one of these says otherwise.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Slurm")]
pub(crate) struct SubmitArgs {
    /// Submit with sbatch and return
    #[arg(long)]
    pub(super) batch: bool,
    #[command(flatten)]
    pub(super) check: CheckArgs,
    /// Fail where there is no Slurm, instead of running here
    #[arg(long)]
    pub(super) no_fallback: bool,
    /// Ranks where there is no Slurm [GPUS or the visible GPUs, whichever is less; one on the CPU]
    #[arg(long, value_name = "N")]
    pub(super) nproc: Option<std::num::NonZeroUsize>,
}

impl SlurmArgs {
    /// What was said of the job.
    pub(super) fn flags(&self) -> Flags {
        Flags { values: self.given.0.clone(), slurm: self.slurm.clone() }
    }

    /// Without PARTITION and JOB_NAME no option of a job has a meaning: none is dropped in silence.
    pub(super) fn refuse(&self, submit: &SubmitArgs) -> Result<(), Failure> {
        let flags = self.flags();
        let given = flags.values.keys().copied().next();
        let switches = [
            ("slurm", !flags.slurm.is_empty()),
            ("site", self.site.is_some()),
            ("template", self.template.is_some()),
            ("batch", submit.batch),
            ("dry-run", submit.check.dry_run.is_some()),
            ("no-fallback", submit.no_fallback),
            ("nproc", submit.nproc.is_some()),
        ];
        match given.or_else(|| switches.iter().find(|it| it.1).map(|it| it.0)) {
            None => Ok(()),
            Some(flag) => {
                let message = format!(
                    "--{flag} is for jobs on Slurm: put PARTITION and JOB_NAME in front of the \
                     config"
                );
                Err(Failure::new(Exit::Usage, message))
            }
        }
    }
}
