//! The shape of a job: every setting resolved once, with where it came from, and what it becomes on
//! Slurm's command lines.
//!
//! A flag wins over an environment variable, that over the site profile, and that over the default.
//! Whatever is wrong is an error that names the flag or the variable; nothing is submitted then.

use std::collections::BTreeMap;
use std::fmt;

use crate::excerpt::{line, quoted};
use crate::exit::{Exit, Exits};

use super::options::{self, OPTIONS, Row, Stage};
use super::shape::{Note, Shape};
use super::site::{Dialect, GpuRequest, Site};
use super::time::TimeLimit;
use crate::variables::Variables;

/// What the ranks of a job do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    Train,
    Test,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A positional argument, by its name.
    Positional(&'static str),
    Flag(&'static str),
    Variable(&'static str),
    Site(String),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Positional(name) => write!(f, "the command line's {name}"),
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Variable(name) => write!(f, "the variable {name}"),
            Self::Site(path) => write!(f, "the site profile {path}"),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// One resolved setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The flag's name.
    pub name: &'static str,
    pub value: String,
    pub origin: Origin,
}

/// A setting that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", line(.place), line(.what))]
pub struct JobError {
    pub place: String,
    pub what: String,
}

impl Exits for JobError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

impl JobError {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }

    fn at(setting: &Setting, what: impl Into<String>) -> Self {
        let Setting { name, value, origin } = setting;
        let place = match origin {
            Origin::Positional(name) => format!("{name} {}", quoted(value)),
            Origin::Flag(name) => format!("--{name}={}", quoted(value)),
            Origin::Variable(name) => format!("{name}={}", quoted(value)),
            Origin::Site(path) => format!("{path}: {}: {}", name.replace('-', "_"), quoted(value)),
            Origin::Default => format!("--{name}={}", quoted(value)),
        };
        Self::new(place, what)
    }
}

/// What was said on the command line: values by flag name; a switch has an empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    pub values: BTreeMap<&'static str, String>,
    /// `--slurm KEY=VALUE`, in order.
    pub slurm: Vec<String>,
}

/// An option of Slurm's that is passed on as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmOption {
    pub name: String,
    pub value: Option<String>,
    /// For sbatch alone: srun does not know it, or it means nothing there.
    pub batch_only: bool,
}

impl SlurmOption {
    fn new(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: Some(value.into()), batch_only: false }
    }
}

impl fmt::Display for SlurmOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "--{}={value}", self.name),
            None => write!(f, "--{}", self.name),
        }
    }
}

/// Everything about a job but the command that its ranks run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSpec {
    pub kind: JobKind,
    /// `None` for Slurm's default partition.
    pub partition: Option<String>,
    pub name: String,
    pub shape: Shape,
    pub gpu: GpuRequest,
    pub cpus_per_task: usize,
    /// Options with a flag, and those of `--slurm`.
    pub options: Vec<SlurmOption>,
    /// Options of srun alone: containers.
    pub step_options: Vec<SlurmOption>,
    pub array: bool,
    pub requeue: bool,
    pub srun_args: Vec<String>,
    pub sbatch_args: Vec<String>,
    /// Variables that the ranks get.
    pub exports: Vec<(String, String)>,
    /// Shell lines that come first.
    pub setup: Vec<String>,
    /// Every setting with its origin, for people.
    pub settings: Vec<Setting>,
    /// What a user should know.
    pub notes: Vec<Note>,
}

struct Resolver<'a> {
    flags: &'a Flags,
    var: Variables<'a>,
    site: Option<&'a Site>,
    settings: Vec<Setting>,
}

impl Resolver<'_> {
    /// The value of an option, noted down with its origin. An empty variable is absent, except
    /// where it is a number.
    fn choose(&mut self, row: &'static Row, default: Option<String>) -> Option<Setting> {
        let Row { flag: name, variable, kind, .. } = *row;
        let read = self.var;
        let meant = |value: &String| {
            !value.is_empty()
                || matches!(kind, options::ValueKind::Number(_) | options::ValueKind::SwitchOr(_))
        };
        let from_flag = || Some((self.flags.values.get(name)?.clone(), Origin::Flag(name)));
        let from_variable =
            || variable.and_then(|it| Some((read(it).filter(meant)?, Origin::Variable(it))));
        let from_site = || {
            self.site.and_then(|it| {
                Some((it.option(name)?, Origin::Site(it.path.display().to_string())))
            })
        };
        let found = from_flag()
            .or_else(from_variable)
            .or_else(from_site)
            .or_else(|| Some((default?, Origin::Default)))?;
        let setting = Setting { name, value: found.0, origin: found.1 };
        self.settings.push(setting.clone());
        Some(setting)
    }

    /// A number; an empty variable is a mistake here (`GPUS= segslurm …`).
    fn number(&mut self, name: &str, default: usize) -> Result<(usize, Setting), JobError> {
        let row = options::row(name);
        let setting = self.choose(row, Some(default.to_string()));
        let setting = setting.unwrap_or(Setting {
            name: row.flag,
            value: default.to_string(),
            origin: Origin::Default,
        });
        let digits = setting.value.trim();
        let number = Some(digits)
            .filter(|it| it.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|it| it.parse().ok());
        match number {
            Some(number) if number <= 100_000 => Ok((number, setting)),
            _ if digits.is_empty() => {
                Err(JobError::at(&setting, "it is empty; give a whole number, or unset it"))
            }
            _ => Err(JobError::at(&setting, "expected a whole number up to 100000")),
        }
    }

    fn words(&mut self, name: &str) -> Result<Vec<String>, JobError> {
        let Some(setting) = self.choose(options::row(name), None) else { return Ok(Vec::new()) };
        if setting.value.contains(['\n', '\r', '\0']) {
            return Err(JobError::at(
                &setting,
                "it has a line break; give the options on one line",
            ));
        }
        shlex::split(&setting.value)
            .ok_or_else(|| JobError::at(&setting, "a quote is not closed, or a backslash ends it"))
    }
}

impl JobSpec {
    /// Resolves a job on `partition` (`-` for the site's or Slurm's default) called `name`.
    pub fn resolve(
        kind: JobKind,
        partition: &str,
        name: &str,
        flags: &Flags,
        var: Variables<'_>,
        site: Option<&Site>,
    ) -> Result<Self, JobError> {
        let mut it = Resolver { flags, var, site, settings: Vec::new() };
        let partition = it.partition(partition)?;
        it.settings.push(Setting {
            name: "job-name",
            value: name.to_owned(),
            origin: Origin::Positional("JOB_NAME"),
        });
        check_name(name)?;

        let default_gpus = if kind == JobKind::Train { 8 } else { 4 };
        let (gpus, gpus_from) = it.number("gpus", default_gpus)?;
        let gpu = site.map(|it| it.gpu.clone()).unwrap_or_default();
        let (shape, mut notes) = it.shape(gpus, &gpus_from)?;
        let (cpus_per_task, cpus_from) = it.number("cpus-per-task", 5)?;
        if cpus_per_task == 0 {
            return Err(JobError::at(&cpus_from, "a rank needs at least one CPU"));
        }
        if gpu.dialect == Dialect::GpusPerTask {
            // Such a request is met exactly.
            notes.retain(|note| !matches!(note, Note::Idle { .. }));
        }

        let (options, step_options) = it.options(kind)?;
        let requeue = it.requeue(kind)?;
        let srun_args = it.words("srun-args")?;
        let sbatch_args = it.words("sbatch-args")?;
        let extra = it.extra(gpus)?;
        if gpus == 0 {
            for (place, args) in [("SRUN_ARGS", &srun_args), ("SBATCH_ARGS", &sbatch_args)] {
                if let Some(request) = args.iter().find(|it| asks_for_gpus(it)) {
                    return Err(JobError::at(
                        &gpus_from,
                        format!(
                            "a CPU job, but {place} asks for GPUs with {request}: drop one of them"
                        ),
                    ));
                }
            }
        }
        let exports = it.exports(gpus, &gpu, &shape, cpus_per_task, &mut notes)?;
        let array = options.iter().any(|it| it.name == "array");
        let setup = site.map(|it| it.setup.clone()).unwrap_or_default();
        let options = [options, extra].concat();
        Ok(Self {
            kind,
            partition,
            name: name.to_owned(),
            shape,
            gpu,
            cpus_per_task,
            options,
            step_options,
            array,
            requeue,
            srun_args,
            sbatch_args,
            exports,
            setup,
            settings: it.settings,
            notes,
        })
    }

    /// What the allocation is: for sbatch's directives and, without those that only a batch job
    /// has, for srun.
    pub fn allocation(&self, batch: bool) -> Vec<SlurmOption> {
        let Shape { ranks, nodes, ranks_per_node, gpus_per_node } = &self.shape;
        let mut all = vec![SlurmOption::new("job-name", &self.name)];
        all.extend(self.partition.as_ref().map(|it| SlurmOption::new("partition", it)));
        if let Some(nodes) = nodes {
            all.push(SlurmOption::new("nodes", nodes.to_string()));
        }
        all.push(SlurmOption::new("ntasks", ranks.to_string()));
        if nodes.is_some() {
            all.push(SlurmOption::new("ntasks-per-node", ranks_per_node.to_string()));
        }
        let kind = self.gpu.kind.as_ref().map(|it| format!("{it}:")).unwrap_or_default();
        match self.gpu.dialect {
            _ if *gpus_per_node == 0 => {}
            Dialect::Gres => {
                all.push(SlurmOption::new("gres", format!("gpu:{kind}{gpus_per_node}")));
            }
            Dialect::GpusPerNode => {
                all.push(SlurmOption::new("gpus-per-node", format!("{kind}{gpus_per_node}")));
            }
            Dialect::GpusPerTask => all.push(SlurmOption::new("gpus-per-task", format!("{kind}1"))),
            Dialect::None => {}
        }
        all.push(SlurmOption::new("cpus-per-task", self.cpus_per_task.to_string()));
        all.extend(self.options.iter().cloned());
        if batch {
            let requeue = if self.requeue { "requeue" } else { "no-requeue" };
            all.push(SlurmOption { name: requeue.to_owned(), value: None, batch_only: true });
            all.push(SlurmOption { batch_only: true, ..SlurmOption::new("open-mode", "append") });
        }
        all.retain(|it| batch || !it.batch_only);
        all
    }

    /// How the ranks are started inside the allocation.
    ///
    /// `--kill-on-bad-exit` stays off, whatever the site's default: the ranks watch each other and
    /// stop together, and killing the slower ones of those that end with 75 would turn "saved, go
    /// on later" into a failure. `--wait` ends what is left.
    pub fn step(&self) -> Vec<SlurmOption> {
        let mut all = vec![
            SlurmOption::new("export", "ALL"),
            SlurmOption::new("kill-on-bad-exit", "0"),
            SlurmOption::new("wait", "60"),
        ];
        if self.gpu.dialect == Dialect::GpusPerTask && self.shape.gpus_per_node > 0 {
            // Ranks that see each other's GPUs can copy between them directly.
            all.push(SlurmOption::new("gpu-bind", "none"));
        }
        all.extend(self.step_options.iter().cloned());
        all
    }

    /// The time limit that was asked for.
    pub fn time_limit(&self) -> Option<TimeLimit> {
        let value = self.options.iter().find(|it| it.name == "time")?.value.as_ref()?;
        value.parse().ok()
    }
}

impl Resolver<'_> {
    fn partition(&mut self, given: &str) -> Result<Option<String>, JobError> {
        let by_site = || {
            self.site.and_then(|it| {
                Some((it.partition.clone()?, Origin::Site(it.path.display().to_string())))
            })
        };
        let (value, origin) = match given {
            "-" => match by_site() {
                Some(found) => found,
                None => {
                    let value = "(Slurm's default)".to_owned();
                    self.settings.push(Setting {
                        name: "partition",
                        value,
                        origin: Origin::Positional("PARTITION"),
                    });
                    return Ok(None);
                }
            },
            given => (given.to_owned(), Origin::Positional("PARTITION")),
        };
        let setting = Setting { name: "partition", value, origin };
        let plain = |it: char| it.is_ascii_alphanumeric() || "_-.+,".contains(it);
        if setting.value.is_empty() || !setting.value.chars().all(plain) {
            let what = "no name of a partition; the order is PARTITION JOB_NAME CONFIG, and \
                        `sinfo` lists the partitions";
            return Err(JobError::at(&setting, what));
        }
        self.settings.push(setting.clone());
        Ok(Some(setting.value))
    }

    fn shape(&mut self, gpus: usize, gpus_from: &Setting) -> Result<(Shape, Vec<Note>), JobError> {
        if gpus == 0 {
            let (ranks, from) = self.number("ntasks", 1)?;
            if ranks == 0 {
                return Err(JobError::at(&from, "a job needs at least one rank"));
            }
            let by_flag =
                self.flags.values.get("gpus-per-node").map(|it| format!("--gpus-per-node={it}"));
            let asked = by_flag
                .or_else(|| (self.var)("GPUS_PER_NODE").map(|it| format!("GPUS_PER_NODE={it}")));
            if let Some(asked) = asked.filter(|it| !it.ends_with("=0") && !it.ends_with('=')) {
                return Err(JobError::at(
                    gpus_from,
                    format!("a CPU job, but {asked} asks for GPUs: drop one of them"),
                ));
            }
            return Ok((Shape::of_cpus(ranks), Vec::new()));
        }
        // What a site says its nodes have is a limit, not a request.
        let by_site = self
            .site
            .and_then(|it| it.option("gpus-per-node")?.parse().ok())
            .filter(|it: &usize| *it > 0);
        let said = self.flags.values.contains_key("gpus-per-node")
            || (self.var)("GPUS_PER_NODE").is_some();
        let asked = if said {
            let (asked, from) = self.number("gpus-per-node", 8)?;
            if asked == 0 {
                return Err(JobError::at(
                    &from,
                    format!("GPUS is {gpus}: a node needs at least one GPU"),
                ));
            }
            asked
        } else {
            let (limit, origin) = match (by_site, self.site) {
                (Some(limit), Some(site)) => (limit, Origin::Site(site.path.display().to_string())),
                _ => (8, Origin::Default),
            };
            let value = limit.min(gpus);
            self.settings.push(Setting { name: "gpus-per-node", value: value.to_string(), origin });
            value
        };
        if let Some(tasks) =
            self.flags.values.get("ntasks").filter(|it| it.trim() != gpus.to_string())
        {
            let what = format!(
                "GPUS is {gpus}, and every GPU has one rank; --ntasks is for CPU jobs (GPUS=0)"
            );
            return Err(JobError::new(format!("--ntasks={tasks:?}"), what));
        }
        let shape = Shape::of_gpus(gpus, asked);
        let notes = shape.notes(asked);
        Ok((shape, notes))
    }

    /// Options with a flag: those of the allocation, and those of the step alone.
    fn options(&mut self, kind: JobKind) -> Result<(Vec<SlurmOption>, Vec<SlurmOption>), JobError> {
        let (mut options, mut step_options) = (Vec::new(), Vec::new());
        for row in OPTIONS.iter().filter(|it| it.stage != Stage::Shape) {
            // Two minutes before the time limit the ranks are told to save.
            let default =
                (row.flag == "signal" && kind == JobKind::Train).then(|| "USR1@120".to_owned());
            let Some(setting) = self.choose(row, default) else { continue };
            if setting.value.contains(['\n', '\r', '\0']) {
                return Err(JobError::at(&setting, "it has a line break"));
            }
            (row.check)(&setting.value).map_err(|what| JobError::at(&setting, what))?;
            let value = Some(setting.value.clone()).filter(|it| !it.is_empty());
            let option = SlurmOption {
                name: row.flag.to_owned(),
                value,
                batch_only: row.stage == Stage::Batch,
            };
            if row.stage == Stage::Step { step_options.push(option) } else { options.push(option) }
        }
        Ok((options, step_options))
    }

    fn requeue(&mut self, kind: JobKind) -> Result<bool, JobError> {
        let flags = |name: &str| self.flags.values.contains_key(name);
        let (var, site) = (self.var, self.site);
        let of_site = |it: &Site| {
            let says = |flag: &str| it.option(flag).is_some();
            (says("requeue") || says("no-requeue"))
                .then(|| (says("requeue"), Origin::Site(it.path.display().to_string())))
        };
        let site_says = site.and_then(of_site);
        let (yes, origin) = match (flags("requeue"), flags("no-requeue")) {
            (true, true) => {
                return Err(JobError::new(
                    "--requeue, --no-requeue",
                    "they contradict each other: give one of them",
                ));
            }
            (true, false) => (true, Origin::Flag("requeue")),
            (false, true) => (false, Origin::Flag("no-requeue")),
            _ if var("SBATCH_NO_REQUEUE").is_some() => {
                (false, Origin::Variable("SBATCH_NO_REQUEUE"))
            }
            _ if var("SBATCH_REQUEUE").is_some() => (true, Origin::Variable("SBATCH_REQUEUE")),
            _ => site_says.unwrap_or((kind == JobKind::Train, Origin::Default)),
        };
        self.settings.push(Setting {
            name: "requeue",
            value: if yes { "yes" } else { "no" }.to_owned(),
            origin,
        });
        Ok(yes)
    }

    /// Options of `--slurm`, and the site's.
    fn extra(&mut self, gpus: usize) -> Result<Vec<SlurmOption>, JobError> {
        let mut all: Vec<(SlurmOption, Origin)> = Vec::new();
        for (name, value) in self.site.map(|it| it.slurm.clone()).unwrap_or_default() {
            let origin =
                Origin::Site(self.site.map(|it| it.path.display().to_string()).unwrap_or_default());
            all.push((
                SlurmOption {
                    name,
                    value: Some(value).filter(|it| !it.is_empty()),
                    batch_only: false,
                },
                origin,
            ));
        }
        for text in &self.flags.slurm {
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (text.as_str(), None),
            };
            let name = name.trim_start_matches("--").to_owned();
            all.retain(|(it, _)| it.name != name);
            all.push((SlurmOption { name, value, batch_only: false }, Origin::Flag("slurm")));
        }
        for (option, origin) in &all {
            let fail = |what: String| Err(JobError::new(format!("{option} from {origin}"), what));
            let name = option.name.as_str();
            if name.is_empty()
                || !name
                    .bytes()
                    .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-')
            {
                return fail(
                    "expected KEY=VALUE, with the long name of an option of sbatch and srun"
                        .to_owned(),
                );
            }
            if option.value.as_ref().is_some_and(|it| it.contains(['\n', '\r', '\0'])) {
                return fail("it has a line break".to_owned());
            }
            if gpus == 0 && asks_for_gpus(&option.to_string()) {
                return fail(
                    "GPUS is 0, a CPU job, but this asks for GPUs: drop one of them".to_owned(),
                );
            }
            let free = gpus == 0 && ["nodes", "ntasks-per-node", "gres"].contains(&name);
            if options::DECIDED.contains(&name) {
                if free {
                    continue;
                }
                return fail(format!(
                    "segslurm decides --{name} itself, from PARTITION, JOB_NAME, GPUS, \
                     GPUS_PER_NODE and CPUS_PER_TASK"
                ));
            }
            if OPTIONS.iter().any(|it| it.flag == name) {
                return fail(format!("segslurm has --{name} itself: use that"));
            }
        }
        for (option, origin) in &all {
            self.settings.push(Setting {
                name: "slurm",
                value: option.to_string(),
                origin: origin.clone(),
            });
        }
        Ok(all.into_iter().map(|(option, _)| option).collect())
    }

    /// Variables for the ranks.
    fn exports(
        &mut self,
        gpus: usize,
        gpu: &GpuRequest,
        shape: &Shape,
        cpus_per_task: usize,
        notes: &mut Vec<Note>,
    ) -> Result<Vec<(String, String)>, JobError> {
        let mut exports = Vec::new();
        let mut export =
            |name: &str, value: &str| exports.push((name.to_owned(), value.to_owned()));
        let set = |it: &Setting| !it.value.is_empty();
        let port = options::row("master-port");
        if let Some(chosen) = self.choose(port, None).filter(set) {
            (port.check)(&chosen.value).map_err(|what| JobError::at(&chosen, what))?;
            export("MASTER_PORT", chosen.value.trim());
        } else if let Some(ports) = self.site.and_then(|it| it.ports.clone()) {
            export("SEGSLURM_PORTS", &ports);
        }
        let devices = self.choose(options::row("cuda-visible-devices"), None).filter(set);
        match devices {
            _ if gpus == 0 => export("CUDA_VISIBLE_DEVICES", "-1"),
            Some(devices) if devices.value.trim() == "-1" => {
                return Err(JobError::at(
                    &devices,
                    format!("no GPU is to be used, but GPUS is {gpus}: give GPUS=0 for a CPU job"),
                ));
            }
            Some(devices) if gpu.dialect == Dialect::None => {
                let listed = devices.value.split(',').count();
                if listed < shape.ranks_per_node {
                    let what =
                        format!("{listed} GPUs for {} ranks on a node", shape.ranks_per_node);
                    return Err(JobError::at(&devices, what));
                }
                export("CUDA_VISIBLE_DEVICES", &devices.value);
            }
            Some(devices) => notes.push(Note::SlurmChooses { devices: devices.value }),
            None => {}
        }
        for name in ["GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"] {
            if let Some(interface) = self.site.and_then(|it| it.network_interface.clone())
                && (self.var)(name).is_none()
            {
                export(name, &interface);
            }
        }
        if (self.var)("OMP_NUM_THREADS").is_none() {
            export("OMP_NUM_THREADS", &cpus_per_task.to_string());
        }
        Ok(exports)
    }
}

fn check_name(name: &str) -> Result<(), JobError> {
    let fail = |what: &str| Err(JobError::new(format!("JOB_NAME {name:?}"), what));
    match name {
        "" => fail("it is empty"),
        _ if name.chars().any(char::is_control) => {
            fail("it has a line break or another control character")
        }
        _ if [".yaml", ".yml", ".py"].iter().any(|it| name.ends_with(it)) => {
            fail("that looks like a config; the order is PARTITION JOB_NAME CONFIG")
        }
        _ => Ok(()),
    }
}

fn asks_for_gpus(argument: &str) -> bool {
    let argument = argument.trim_start_matches("--");
    argument.starts_with("gpus")
        || argument.starts_with("-G")
        || (argument.starts_with("gres=") && argument.contains("gpu"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn spec(
        kind: JobKind,
        flags: &[(&'static str, &str)],
        variables: &[(&str, &str)],
        site: Option<&Site>,
    ) -> Result<JobSpec, String> {
        let values = flags
            .iter()
            .filter(|(name, _)| *name != "slurm")
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        let slurm = flags
            .iter()
            .filter(|(name, _)| *name == "slurm")
            .map(|(_, value)| (*value).to_owned())
            .collect();
        let var = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        JobSpec::resolve(kind, "dev", "pspnet", &Flags { values, slurm }, &var, site)
            .map_err(|error| error.to_string())
    }

    fn lines(options: &[SlurmOption]) -> Vec<String> {
        options.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn mmsegs_defaults_hold() {
        let train = spec(JobKind::Train, &[], &[], None).expect("a job");
        assert_eq!(
            lines(&train.allocation(false)),
            [
                "--job-name=pspnet",
                "--partition=dev",
                "--nodes=1",
                "--ntasks=8",
                "--ntasks-per-node=8",
                "--gres=gpu:8",
                "--cpus-per-task=5",
                "--signal=USR1@120"
            ]
        );
        let test = spec(JobKind::Test, &[], &[], None).expect("a job");
        assert_eq!((test.shape.ranks, test.requeue), (4, false));
        assert!(lines(&train.allocation(true)).contains(&"--requeue".to_owned()));
        assert!(lines(&test.allocation(true)).contains(&"--no-requeue".to_owned()));
    }

    #[test]
    fn a_flag_wins_over_a_variable_over_the_site_over_the_default() {
        let site = Site::parse(
            "account: s\nqos: s\ntime: '10'\ngpus_per_node: 4\ncpus_per_task: 7\n",
            Path::new("s.yaml"),
        )
        .expect("a site");
        let spec = spec(
            JobKind::Train,
            &[("qos", "f"), ("gpus", "16")],
            &[("SBATCH_QOS", "v"), ("GPUS", "2"), ("SBATCH_ACCOUNT", "v")],
            Some(&site),
        )
        .expect("a job");
        let said: Vec<String> = spec
            .settings
            .iter()
            .map(|it| format!("{} {} {}", it.name, it.value, it.origin))
            .collect();
        for line in [
            "qos f --qos",
            "gpus 16 --gpus",
            "account v the variable SBATCH_ACCOUNT",
            "time 10 the site profile s.yaml",
            "gpus-per-node 4 the site profile s.yaml",
            "cpus-per-task 7 the site profile s.yaml",
            "signal USR1@120 the default",
            "requeue yes the default",
        ] {
            assert!(said.iter().any(|it| it == line), "{line} is not in {said:#?}");
        }
        assert_eq!(spec.shape.layout(), [4, 4, 4, 4]);
    }

    #[test]
    fn gpus_are_asked_for_in_the_sites_dialect() {
        let request = |yaml: &str| {
            let site = Site::parse(yaml, Path::new("s.yaml")).expect("a site");
            let spec = spec(JobKind::Train, &[("gpus", "4")], &[], Some(&site)).expect("a job");
            lines(&spec.allocation(true))
                .into_iter()
                .find(|it| it.contains("gres") || it.contains("gpu"))
        };
        assert_eq!(request("gpu: {type: a100}"), Some("--gres=gpu:a100:4".to_owned()));
        assert_eq!(request("gpu: {dialect: gpus-per-node}"), Some("--gpus-per-node=4".to_owned()));
        assert_eq!(
            request("gpu: {dialect: gpus-per-task, type: h100}"),
            Some("--gpus-per-task=h100:1".to_owned())
        );
        assert_eq!(request("gpu: {dialect: none}"), None);
    }

    #[test]
    fn no_gpus_is_a_cpu_job() {
        let spec = spec(
            JobKind::Train,
            &[("gpus", "0"), ("ntasks", "3"), ("slurm", "nodes=2")],
            &[],
            None,
        )
        .expect("a job");
        let lines = lines(&spec.allocation(false));
        assert!(
            lines.contains(&"--ntasks=3".to_owned()) && lines.contains(&"--nodes=2".to_owned()),
            "{lines:?}"
        );
        assert!(!lines.iter().any(|it| it.contains("gres")), "{lines:?}");
        assert!(spec.exports.contains(&("CUDA_VISIBLE_DEVICES".to_owned(), "-1".to_owned())));
    }

    #[test]
    fn whatever_is_wrong_is_named() {
        for (flags, variables, expected) in [
            (
                &[][..],
                &[("GPUS", "")][..],
                "GPUS=\"\": it is empty; give a whole number, or unset it",
            ),
            (&[], &[("GPUS", "four")], "GPUS=\"four\": expected a whole number"),
            (&[], &[("GPUS", "-1")], "GPUS=\"-1\": expected a whole number"),
            (&[], &[("GPUS", "4.5")], "GPUS=\"4.5\": expected a whole number"),
            (
                &[],
                &[("GPUS_PER_NODE", "0")],
                "GPUS_PER_NODE=\"0\": GPUS is 8: a node needs at least one GPU",
            ),
            (&[], &[("CPUS_PER_TASK", "0")], "CPUS_PER_TASK=\"0\": a rank needs at least one CPU"),
            (
                &[],
                &[("GPUS", "0"), ("GPUS_PER_NODE", "8")],
                "GPUS=\"0\": a CPU job, but GPUS_PER_NODE=8 asks for GPUs",
            ),
            (
                &[],
                &[("GPUS", "0"), ("SRUN_ARGS", "--gres=gpu:1")],
                "a CPU job, but SRUN_ARGS asks for GPUs with --gres=gpu:1",
            ),
            (
                &[("slurm", "gpus=2")],
                &[("GPUS", "0")],
                "--gpus=2 from --slurm: GPUS is 0, a CPU job",
            ),
            (&[("slurm", "gres=gpu:2")], &[], "segslurm decides --gres itself"),
            (&[("slurm", "time=5")], &[], "segslurm has --time itself"),
            (&[("slurm", "Foo")], &[], "expected KEY=VALUE"),
            (&[("ntasks", "3")], &[], "--ntasks=\"3\": GPUS is 8, and every GPU has one rank"),
            (
                &[],
                &[("SRUN_ARGS", "--comment 'a")],
                "SRUN_ARGS=\"--comment 'a\": a quote is not closed",
            ),
            (&[], &[("SBATCH_ARGS", "a\nb")], "it has a line break"),
            (&[("time", "1h")], &[], "--time=\"1h\": expected minutes, MM:SS"),
            (&[("nodelist", "n[1-")], &[], "--nodelist=\"n[1-\": malformed host list"),
            (&[("mem", "lots")], &[], "--mem=\"lots\": expected a number with K, M, G or T"),
            (&[("array", "x")], &[], "--array=\"x\": expected indices"),
            (&[("signal", "B:USR1@60")], &[], "signals the batch shell alone"),
            (&[("signal", "KILL@60")], &[], "the ranks save on USR1, TERM and INT"),
            (&[("comment", "a\nb")], &[], "it has a line break"),
            (&[("requeue", ""), ("no-requeue", "")], &[], "they contradict each other"),
            (&[], &[("MASTER_PORT", "70000")], "MASTER_PORT=\"70000\": expected a port"),
            (&[], &[("CUDA_VISIBLE_DEVICES", "-1")], "give GPUS=0 for a CPU job"),
        ] {
            let error = spec(JobKind::Train, flags, variables, None).expect_err(expected);
            assert!(error.contains(expected), "{error}\n  is not\n{expected}");
        }
        let named = |partition: &str, name: &str| {
            JobSpec::resolve(JobKind::Train, partition, name, &Flags::default(), &|_| None, None)
                .expect_err("refused")
                .to_string()
        };
        assert!(named("configs/a.yaml", "b").contains("the order is PARTITION JOB_NAME CONFIG"));
        assert!(named("dev", "a.yaml").contains("that looks like a config"));
        assert!(named("dev", "a\nb").contains("line break"));
        assert!(named("dev", "").contains("it is empty"));
        assert!(named("", "a").contains("no name of a partition"));
        assert!(
            JobSpec::resolve(
                JobKind::Train,
                "dev",
                "it's a \"name\"",
                &Flags::default(),
                &|_| None,
                None
            )
            .is_ok()
        );
    }
}
