//! From a job and a command to the text that is submitted: templates in `slurm/`, or a user's own.

use std::path::PathBuf;

use minijinja::{Environment, UndefinedBehavior, context};
use serde::Serialize;

use crate::exit::{Exit, Exits};

use super::job::{JobKind, JobSpec};

/// A template that cannot be read or rendered, or a value that no shell could take.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    #[error("cannot read the template {}: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{name}:{line}: {message}")]
    Template { name: String, line: usize, message: String },
    #[error("{what} {text:?} cannot stand in a script: it has a line break or a backslash")]
    Text { what: &'static str, text: String },
}

impl Exits for ScriptError {
    fn exit(&self) -> Exit {
        match self {
            Self::Read { .. } => Exit::NoInput,
            Self::Template { .. } => Exit::Config,
            Self::Text { .. } => Exit::Usage,
        }
    }
}

/// A template's text and where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub name: String,
    pub text: String,
}

impl Template {
    /// The built-in batch script.
    pub fn batch(kind: JobKind) -> Self {
        let (name, text) = match kind {
            JobKind::Train => {
                ("slurm/train.sbatch.j2", include_str!("../../slurm/train.sbatch.j2"))
            }
            JobKind::Test => ("slurm/test.sbatch.j2", include_str!("../../slurm/test.sbatch.j2")),
        };
        Self { name: name.to_owned(), text: text.to_owned() }
    }

    /// The built-in command line of srun.
    pub fn srun() -> Self {
        Self {
            name: "slurm/srun.j2".to_owned(),
            text: include_str!("../../slurm/srun.j2").to_owned(),
        }
    }

    /// A user's own.
    pub fn load(path: PathBuf) -> Result<Self, ScriptError> {
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self { name: path.display().to_string(), text }),
            Err(source) => Err(ScriptError::Read { path, source }),
        }
    }
}

/// What every rank runs, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankCommand {
    pub program: String,
    /// A command of segslurm's and its options, without `--launcher`.
    pub arguments: Vec<String>,
    /// Where the command was given; relative paths start here.
    pub directory: String,
    pub work_dir: String,
    /// The folder of the job's log.
    pub log_dir: String,
}

#[derive(Serialize)]
struct Variable<'a> {
    name: &'a str,
    value: &'a str,
}

impl RankCommand {
    /// The job's log with Slurm's placeholders for its number.
    pub fn log(&self, spec: &JobSpec) -> String {
        let number = if spec.array { "%A_%a" } else { "%j" };
        format!("{}/{number}.log", self.log_dir.replace('%', "%%"))
    }

    /// srun and its arguments for a job in the foreground.
    pub fn srun(&self, spec: &JobSpec) -> Vec<String> {
        let mut line = vec!["srun".to_owned()];
        line.extend(spec.allocation(false).iter().chain(&spec.step()).map(ToString::to_string));
        line.extend(spec.srun_args.iter().cloned());
        if !spec.setup.is_empty() {
            let script = format!("{}\nexec \"$@\"", spec.setup.join("\n"));
            line.extend(["bash".to_owned(), "-c".to_owned(), script, "bash".to_owned()]);
        }
        line.push(self.program.clone());
        line.extend(self.arguments.iter().cloned());
        line.extend(["--launcher".to_owned(), "slurm".to_owned()]);
        line
    }

    /// Renders a template; a variable that it uses and nobody sets is an error with its line.
    pub fn render(&self, spec: &JobSpec, template: &Template) -> Result<String, ScriptError> {
        // Slurm takes a file name with a backslash literally, placeholders included; directives end
        // with their line.
        if self.log_dir.contains(['\n', '\r', '\\']) {
            return Err(ScriptError::Text { what: "the work dir", text: self.log_dir.clone() });
        }
        if self.directory.contains(['\n', '\r']) {
            return Err(ScriptError::Text {
                what: "the current folder",
                text: self.directory.clone(),
            });
        }
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_keep_trailing_newline(true);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.add_filter("sh", quote);
        environment.add_filter("directive", directive);
        let failed = |error: minijinja::Error| {
            let line = error.line().unwrap_or(1);
            let text = template.text.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim();
            let what = error
                .detail()
                .map_or_else(|| error.kind().to_string(), |it| format!("{}: {it}", error.kind()));
            let message =
                format!("{what}, in `{text}`; docs/slurm.md lists the variables of a template");
            ScriptError::Template { name: template.name.clone(), line, message }
        };
        environment.add_template(&template.name, &template.text).map_err(failed)?;
        let lines = |options: Vec<super::job::SlurmOption>| {
            options.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let exports: Vec<_> =
            spec.exports.iter().map(|(name, value)| Variable { name, value }).collect();
        let variables = context! {
            version => env!("CARGO_PKG_VERSION"),
            shape => spec.shape.describe(),
            job_name => spec.name,
            partition => spec.partition,
            ranks => spec.shape.ranks,
            nodes => spec.shape.nodes,
            gpus_per_node => spec.shape.gpus_per_node,
            allocation => lines(spec.allocation(true)),
            step => lines(spec.step()),
            cpus_per_task => spec.cpus_per_task,
            array => spec.array,
            requeue => spec.requeue,
            srun_args => spec.srun_args,
            sbatch_args => spec.sbatch_args,
            setup => spec.setup,
            exports => exports,
            program => self.program,
            arguments => self.arguments,
            directory => self.directory,
            work_dir => self.work_dir,
            log => self.log(spec),
            srun => self.srun(spec),
        };
        environment.get_template(&template.name).and_then(|it| it.render(variables)).map_err(failed)
    }
}

/// Quotes for a shell, where it is needed.
fn quote(text: &str) -> Result<String, minijinja::Error> {
    if text.starts_with("--")
        && text.chars().all(|it| it.is_ascii_alphanumeric() || "-_=./,:@%+".contains(it))
    {
        return Ok(text.to_owned());
    }
    let refused = |error: shlex::QuoteError| {
        minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, error.to_string())
    };
    shlex::try_quote(text).map(|it| it.into_owned()).map_err(refused)
}

/// Quotes for a `#SBATCH` line, which sbatch reads by rules of its own: blanks only inside quotes,
/// a backslash before a quote, and before `#`, which else may end the line.
fn directive(text: &str) -> String {
    let plain = |it: char| it.is_alphanumeric() || "-_=./,:@%+[]".contains(it);
    if text.chars().all(plain) {
        return text.to_owned();
    }
    let escape = |it: char| if "\\\"#".contains(it) { vec!['\\', it] } else { vec![it] };
    let quoted = |text: &str| format!("\"{}\"", text.chars().flat_map(escape).collect::<String>());
    match text.split_once('=') {
        Some((name, value)) if name.chars().all(plain) => format!("{name}={}", quoted(value)),
        _ => quoted(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::job::Flags;
    use super::*;

    fn rendered(template: &Template) -> Result<String, String> {
        let spec = JobSpec::resolve(
            template_kind(template),
            "dev",
            "a b",
            &Flags::default(),
            &|_| None,
            None,
        )
        .expect("a job");
        let command = RankCommand {
            program: "/opt/it's/segslurm".to_owned(),
            arguments: ["train", "a b.yaml", "--cfg-options", "x=$HOME,'q'"]
                .map(str::to_owned)
                .to_vec(),
            directory: "/data/#1 $x".to_owned(),
            work_dir: "w".to_owned(),
            log_dir: "w/50%/slurm".to_owned(),
        };
        command.render(&spec, template).map_err(|error| error.to_string())
    }

    fn template_kind(template: &Template) -> JobKind {
        if template.name.contains("test") { JobKind::Test } else { JobKind::Train }
    }

    #[test]
    fn every_value_is_quoted_for_its_place() {
        let text = rendered(&Template::batch(JobKind::Train)).expect("renders");
        for line in [
            "#SBATCH --job-name=\"a b\"",
            "#SBATCH --chdir=\"/data/\\#1 $x\"",
            "#SBATCH --output=w/50%%/slurm/%j.log",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\nis not in\n{text}");
        }
        let command = text
            .lines()
            .find(|it| it.contains("a b.yaml"))
            .expect("the command")
            .trim_end_matches('\\');
        let words = ["/opt/it's/segslurm", "train", "a b.yaml", "--cfg-options", "x=$HOME,'q'"]
            .map(str::to_owned);
        assert_eq!(shlex::split(command), Some(words.to_vec()), "{command}");
        assert!(text.contains("scontrol requeue"));
        assert!(
            rendered(&Template::batch(JobKind::Test))
                .expect("renders")
                .contains("#SBATCH --no-requeue")
        );
        let srun = rendered(&Template::srun()).expect("renders");
        assert!(
            srun.contains("srun '--job-name=a b' --partition=dev --nodes=1")
                && srun.ends_with("--launcher slurm\n"),
            "{srun}"
        );
    }

    #[test]
    fn a_wrong_template_is_an_error_with_its_line() {
        let own = |text: &str| Template { name: "mine.j2".to_owned(), text: text.to_owned() };
        let error = rendered(&own("#!/bin/sh\n\n{{ nonsense }}\n")).expect_err("undefined");
        assert!(
            error.starts_with("mine.j2:3: undefined value") && error.contains("{{ nonsense }}"),
            "{error}"
        );
        let error = rendered(&own("{% if %}\n")).expect_err("syntax");
        assert!(error.starts_with("mine.j2:1: syntax error"), "{error}");
    }
}
