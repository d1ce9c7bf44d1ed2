//! The shape of a job: every setting resolved once, with where it came from, and what it becomes on Slurm's command lines.
//!
//! A flag wins over an environment variable, that over the site profile, and that over the default. Whatever is wrong is an
//! error that names the flag or the variable; nothing is submitted then.

use std::collections::BTreeMap;
use std::fmt;

use crate::excerpt::{line, quoted};
use crate::exit::{Exit, Exits};

use super::env::Variables;
use super::hostlist;
use super::shape::Shape;
use super::site::{Dialect, GpuRequest, Site};
use super::time::TimeLimit;

/// What the ranks of a job do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
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

/// An option with a flag of its own.
struct Known {
    name: &'static str,
    /// sbatch's own variable for it.
    variable: Option<&'static str>,
    check: fn(&str) -> Result<(), String>,
    batch_only: bool,
}

const fn known(name: &'static str, variable: Option<&'static str>, check: fn(&str) -> Result<(), String>) -> Known {
    Known { name, variable, check, batch_only: false }
}

const KNOWN: [Known; 16] = [
    known("account", Some("SBATCH_ACCOUNT"), word),
    known("qos", Some("SBATCH_QOS"), word),
    known("time", Some("SBATCH_TIMELIMIT"), time),
    known("reservation", Some("SBATCH_RESERVATION"), word),
    known("constraint", Some("SBATCH_CONSTRAINT"), text),
    known("nodelist", None, hosts),
    known("exclude", None, hosts),
    known("exclusive", Some("SBATCH_EXCLUSIVE"), exclusive),
    known("mem", Some("SBATCH_MEM_PER_NODE"), memory),
    known("mail-type", None, text),
    known("mail-user", None, text),
    known("comment", Some("SBATCH_COMMENT"), text),
    known("dependency", None, text),
    Known { name: "array", variable: Some("SBATCH_ARRAY_INX"), check: array, batch_only: true },
    known("signal", Some("SBATCH_SIGNAL"), signal),
    known("container-image", None, text),
];

/// sbatch's variables that would change what was decided here; they are read where they have a flag, and kept from sbatch.
pub const SBATCH_VARIABLES: [&str; 24] = [
    "SBATCH_ACCOUNT",
    "SBATCH_QOS",
    "SBATCH_TIMELIMIT",
    "SBATCH_RESERVATION",
    "SBATCH_CONSTRAINT",
    "SBATCH_EXCLUSIVE",
    "SBATCH_MEM_PER_NODE",
    "SBATCH_COMMENT",
    "SBATCH_ARRAY_INX",
    "SBATCH_SIGNAL",
    "SBATCH_REQUEUE",
    "SBATCH_NO_REQUEUE",
    "SBATCH_PARTITION",
    "SBATCH_JOB_NAME",
    "SBATCH_GRES",
    "SBATCH_GPUS",
    "SBATCH_GPUS_PER_NODE",
    "SBATCH_GPUS_PER_TASK",
    "SBATCH_EXPORT",
    "SBATCH_OPEN_MODE",
    "SBATCH_INPUT",
    "SBATCH_OUTPUT",
    "SBATCH_ERROR",
    "SBATCH_CPUS_PER_TASK",
];

/// Options that the job's shape decides.
const OWN: [&str; 20] = [
    "partition",
    "job-name",
    "ntasks",
    "nodes",
    "ntasks-per-node",
    "gres",
    "gpus",
    "gpus-per-node",
    "gpus-per-task",
    "gpus-per-socket",
    "cpus-per-task",
    "output",
    "error",
    "input",
    "open-mode",
    "chdir",
    "export",
    "wrap",
    "test-only",
    "parsable",
];

/// Everything about a job but the command that its ranks run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSpec {
    pub kind: Kind,
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
    pub notes: Vec<String>,
}

struct Resolver<'a> {
    flags: &'a Flags,
    var: Variables<'a>,
    site: Option<&'a Site>,
    settings: Vec<Setting>,
}

impl Resolver<'_> {
    /// The value of a setting, noted down with its origin. An empty variable is absent.
    fn choose(&mut self, name: &'static str, variable: Option<&'static str>, default: Option<String>) -> Option<Setting> {
        let from_flag = || Some((self.flags.values.get(name)?.clone(), Origin::Flag(name)));
        let from_variable = || variable.and_then(|it| Some(((self.var)(it)?, Origin::Variable(it))));
        let from_site = || self.site.and_then(|it| Some((it.option(name)?, Origin::Site(it.path.display().to_string()))));
        let found = from_flag().or_else(from_variable).or_else(from_site).or_else(|| Some((default?, Origin::Default)))?;
        let setting = Setting { name, value: found.0, origin: found.1 };
        self.settings.push(setting.clone());
        Some(setting)
    }

    /// A number; an empty variable is a mistake here (`GPUS= segslurm …`).
    fn number(
        &mut self,
        name: &'static str,
        variable: Option<&'static str>,
        default: usize,
    ) -> Result<(usize, Setting), JobError> {
        let setting = self.choose(name, variable, Some(default.to_string()));
        let setting = setting.unwrap_or(Setting { name, value: default.to_string(), origin: Origin::Default });
        let digits = setting.value.trim();
        let number = Some(digits).filter(|it| it.bytes().all(|byte| byte.is_ascii_digit())).and_then(|it| it.parse().ok());
        match number {
            Some(number) if number <= 100_000 => Ok((number, setting)),
            _ if digits.is_empty() => Err(JobError::at(&setting, "it is empty; give a whole number, or unset it")),
            _ => Err(JobError::at(&setting, "expected a whole number up to 100000")),
        }
    }

    fn words(&mut self, name: &'static str, variable: &'static str) -> Result<Vec<String>, JobError> {
        let Some(setting) = self.choose(name, Some(variable), None) else { return Ok(Vec::new()) };
        if setting.value.contains(['\n', '\r', '\0']) {
            return Err(JobError::at(&setting, "it has a line break; give the options on one line"));
        }
        shlex::split(&setting.value).ok_or_else(|| JobError::at(&setting, "a quote is not closed, or a backslash ends it"))
    }
}

impl JobSpec {
    /// Resolves a job on `partition` (`-` for the site's or Slurm's default) called `name`.
    pub fn resolve(
        kind: Kind,
        partition: &str,
        name: &str,
        flags: &Flags,
        var: Variables<'_>,
        site: Option<&Site>,
    ) -> Result<Self, JobError> {
        let mut it = Resolver { flags, var, site, settings: Vec::new() };
        let partition = it.partition(partition)?;
        it.settings.push(Setting { name: "job-name", value: name.to_owned(), origin: Origin::Positional("JOB_NAME") });
        check_name(name)?;

        let default_gpus = if kind == Kind::Train { 8 } else { 4 };
        let (gpus, gpus_from) = it.number("gpus", Some("GPUS"), default_gpus)?;
        let gpu = site.map(|it| it.gpu.clone()).unwrap_or_default();
        let (shape, mut notes) = it.shape(gpus, &gpus_from)?;
        let (cpus_per_task, cpus_from) = it.number("cpus-per-task", Some("CPUS_PER_TASK"), 5)?;
        if cpus_per_task == 0 {
            return Err(JobError::at(&cpus_from, "a rank needs at least one CPU"));
        }
        if gpu.dialect == Dialect::GpusPerTask {
            // Such a request is met exactly.
            notes.retain(|note| !note.contains("does not divide evenly"));
        }

        let (options, step_options) = it.options(kind)?;
        let requeue = it.requeue(kind)?;
        let srun_args = it.words("srun-args", "SRUN_ARGS")?;
        let sbatch_args = it.words("sbatch-args", "SBATCH_ARGS")?;
        let extra = it.extra(gpus)?;
        if gpus == 0 {
            for (place, args) in [("SRUN_ARGS", &srun_args), ("SBATCH_ARGS", &sbatch_args)] {
                if let Some(request) = args.iter().find(|it| asks_for_gpus(it)) {
                    return Err(JobError::at(
                        &gpus_from,
                        format!("a CPU job, but {place} asks for GPUs with {request}: drop one of them"),
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

    /// What the allocation is: for sbatch's directives and, without those that only a batch job has, for srun.
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
            Dialect::Gres => all.push(SlurmOption::new("gres", format!("gpu:{kind}{gpus_per_node}"))),
            Dialect::GpusPerNode => all.push(SlurmOption::new("gpus-per-node", format!("{kind}{gpus_per_node}"))),
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
    /// `--kill-on-bad-exit` stays off, whatever the site's default: the ranks watch each other and stop together, and killing
    /// the slower ones of those that end with 75 would turn "saved, go on later" into a failure. `--wait` ends what is left.
    pub fn step(&self) -> Vec<SlurmOption> {
        let mut all =
            vec![SlurmOption::new("export", "ALL"), SlurmOption::new("kill-on-bad-exit", "0"), SlurmOption::new("wait", "60")];
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
        let by_site = || self.site.and_then(|it| Some((it.partition.clone()?, Origin::Site(it.path.display().to_string()))));
        let (value, origin) = match given {
            "-" => match by_site() {
                Some(found) => found,
                None => {
                    let value = "(Slurm's default)".to_owned();
                    self.settings.push(Setting { name: "partition", value, origin: Origin::Positional("PARTITION") });
                    return Ok(None);
                }
            },
            given => (given.to_owned(), Origin::Positional("PARTITION")),
        };
        let setting = Setting { name: "partition", value, origin };
        let plain = |it: char| it.is_ascii_alphanumeric() || "_-.+,".contains(it);
        if setting.value.is_empty() || !setting.value.chars().all(plain) {
            let what = "no name of a partition; the order is PARTITION JOB_NAME CONFIG, and `sinfo` lists the partitions";
            return Err(JobError::at(&setting, what));
        }
        self.settings.push(setting.clone());
        Ok(Some(setting.value))
    }

    fn shape(&mut self, gpus: usize, gpus_from: &Setting) -> Result<(Shape, Vec<String>), JobError> {
        if gpus == 0 {
            let (ranks, from) = self.number("ntasks", None, 1)?;
            if ranks == 0 {
                return Err(JobError::at(&from, "a job needs at least one rank"));
            }
            let by_flag = self.flags.values.get("gpus-per-node").map(|it| format!("--gpus-per-node={it}"));
            let asked = by_flag.or_else(|| (self.var)("GPUS_PER_NODE").map(|it| format!("GPUS_PER_NODE={it}")));
            if let Some(asked) = asked.filter(|it| !it.ends_with("=0") && !it.ends_with('=')) {
                return Err(JobError::at(gpus_from, format!("a CPU job, but {asked} asks for GPUs: drop one of them")));
            }
            return Ok((Shape::of_cpus(ranks), Vec::new()));
        }
        // What a site says its nodes have is a limit, not a request.
        let by_site = self.site.and_then(|it| it.gpus_per_node).filter(|it| *it > 0);
        let said = self.flags.values.contains_key("gpus-per-node") || (self.var)("GPUS_PER_NODE").is_some();
        let asked = if said {
            let (asked, from) = self.number("gpus-per-node", Some("GPUS_PER_NODE"), 8)?;
            if asked == 0 {
                return Err(JobError::at(&from, format!("GPUS is {gpus}: a node needs at least one GPU")));
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
        if let Some(tasks) = self.flags.values.get("ntasks").filter(|it| it.trim() != gpus.to_string()) {
            let what = format!("GPUS is {gpus}, and every GPU has one rank; --ntasks is for CPU jobs (GPUS=0)");
            return Err(JobError::new(format!("--ntasks={tasks:?}"), what));
        }
        let shape = Shape::of_gpus(gpus, asked);
        let notes = shape.notes(asked);
        Ok((shape, notes))
    }

    /// Options with a flag: those of the allocation, and those of the step alone.
    fn options(&mut self, kind: Kind) -> Result<(Vec<SlurmOption>, Vec<SlurmOption>), JobError> {
        let (mut options, mut step_options) = (Vec::new(), Vec::new());
        for Known { name, variable, check, batch_only } in KNOWN {
            // Two minutes before the time limit the ranks are told to save.
            let default = (name == "signal" && kind == Kind::Train).then(|| "USR1@120".to_owned());
            let read = self.var;
            let set = variable.filter(|it| read(it).is_some_and(|value| !value.is_empty() || name == "exclusive"));
            let Some(setting) = self.choose(name, set, default) else { continue };
            if setting.value.contains(['\n', '\r', '\0']) {
                return Err(JobError::at(&setting, "it has a line break"));
            }
            check(&setting.value).map_err(|what| JobError::at(&setting, what))?;
            let value = Some(setting.value.clone()).filter(|it| !it.is_empty());
            let option = SlurmOption { name: name.to_owned(), value, batch_only };
            if name == "container-image" { step_options.push(option) } else { options.push(option) }
        }
        if let Some(mounts) = self.choose("container-mounts", None, None) {
            step_options.push(SlurmOption::new("container-mounts", mounts.value));
        }
        Ok((options, step_options))
    }

    fn requeue(&mut self, kind: Kind) -> Result<bool, JobError> {
        let flags = |name: &str| self.flags.values.contains_key(name);
        let (var, site) = (self.var, self.site);
        let site_says = site.and_then(|it| it.requeue.map(|yes| (yes, Origin::Site(it.path.display().to_string()))));
        let (yes, origin) = match (flags("requeue"), flags("no-requeue")) {
            (true, true) => return Err(JobError::new("--requeue, --no-requeue", "they contradict each other: give one of them")),
            (true, false) => (true, Origin::Flag("requeue")),
            (false, true) => (false, Origin::Flag("no-requeue")),
            _ if var("SBATCH_NO_REQUEUE").is_some() => (false, Origin::Variable("SBATCH_NO_REQUEUE")),
            _ if var("SBATCH_REQUEUE").is_some() => (true, Origin::Variable("SBATCH_REQUEUE")),
            _ => site_says.unwrap_or((kind == Kind::Train, Origin::Default)),
        };
        self.settings.push(Setting { name: "requeue", value: if yes { "yes" } else { "no" }.to_owned(), origin });
        Ok(yes)
    }

    /// Options of `--slurm`, and the site's.
    fn extra(&mut self, gpus: usize) -> Result<Vec<SlurmOption>, JobError> {
        let mut all: Vec<(SlurmOption, Origin)> = Vec::new();
        for (name, value) in self.site.map(|it| it.slurm.clone()).unwrap_or_default() {
            let origin = Origin::Site(self.site.map(|it| it.path.display().to_string()).unwrap_or_default());
            all.push((SlurmOption { name, value: Some(value).filter(|it| !it.is_empty()), batch_only: false }, origin));
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
            if name.is_empty() || !name.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-') {
                return fail("expected KEY=VALUE, with the long name of an option of sbatch and srun".to_owned());
            }
            if option.value.as_ref().is_some_and(|it| it.contains(['\n', '\r', '\0'])) {
                return fail("it has a line break".to_owned());
            }
            if gpus == 0 && asks_for_gpus(&option.to_string()) {
                return fail("GPUS is 0, a CPU job, but this asks for GPUs: drop one of them".to_owned());
            }
            let free = gpus == 0 && ["nodes", "ntasks-per-node", "gres"].contains(&name);
            if KNOWN.iter().any(|it| it.name == name) || ["requeue", "no-requeue"].contains(&name) {
                return fail(format!("segslurm has --{name} itself: use that"));
            }
            if OWN.contains(&name) && !free {
                return fail(format!(
                    "segslurm decides --{name} itself, from PARTITION, JOB_NAME, GPUS, GPUS_PER_NODE and CPUS_PER_TASK"
                ));
            }
        }
        for (option, origin) in &all {
            self.settings.push(Setting { name: "slurm", value: option.to_string(), origin: origin.clone() });
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
        notes: &mut Vec<String>,
    ) -> Result<Vec<(String, String)>, JobError> {
        let mut exports = Vec::new();
        let mut export = |name: &str, value: &str| exports.push((name.to_owned(), value.to_owned()));
        let set = |it: &Setting| !it.value.is_empty();
        if let Some(port) = self.choose("master-port", Some("MASTER_PORT"), None).filter(set) {
            if port.value.trim().parse::<u16>().unwrap_or(0) == 0 {
                return Err(JobError::at(&port, "expected a port, 1 to 65535"));
            }
            export("MASTER_PORT", port.value.trim());
        } else if let Some(ports) = self.site.and_then(|it| it.ports.clone()) {
            export("SEGSLURM_PORTS", &ports);
        }
        let devices = self.choose("cuda-visible-devices", Some("CUDA_VISIBLE_DEVICES"), None).filter(set);
        match devices {
            _ if gpus == 0 => export("CUDA_VISIBLE_DEVICES", "-1"),
            Some(devices) if devices.value.trim() == "-1" => {
                return Err(JobError::at(&devices, format!("no GPU is to be used, but GPUS is {gpus}: give GPUS=0 for a CPU job")));
            }
            Some(devices) if gpu.dialect == Dialect::None => {
                let listed = devices.value.split(',').count();
                if listed < shape.ranks_per_node {
                    let what = format!("{listed} GPUs for {} ranks on a node", shape.ranks_per_node);
                    return Err(JobError::at(&devices, what));
                }
                export("CUDA_VISIBLE_DEVICES", &devices.value);
            }
            Some(devices) => notes.push(format!(
                "CUDA_VISIBLE_DEVICES={}: in a job Slurm chooses the GPUs and sets this variable itself; it counts only where a site \
                 profile says `gpu: {{dialect: none}}`",
                devices.value
            )),
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
        _ if name.chars().any(char::is_control) => fail("it has a line break or another control character"),
        _ if [".yaml", ".yml", ".py"].iter().any(|it| name.ends_with(it)) => {
            fail("that looks like a config; the order is PARTITION JOB_NAME CONFIG")
        }
        _ => Ok(()),
    }
}

fn asks_for_gpus(argument: &str) -> bool {
    let argument = argument.trim_start_matches("--");
    argument.starts_with("gpus") || argument.starts_with("-G") || (argument.starts_with("gres=") && argument.contains("gpu"))
}

fn text(value: &str) -> Result<(), String> {
    if value.is_empty() { Err("it is empty".to_owned()) } else { Ok(()) }
}

fn word(value: &str) -> Result<(), String> {
    if value.is_empty() || value.contains(char::is_whitespace) {
        Err("expected a name without blanks".to_owned())
    } else {
        Ok(())
    }
}

fn time(value: &str) -> Result<(), String> {
    value
        .parse::<TimeLimit>()
        .map(drop)
        .map_err(|_| "expected minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS or UNLIMITED".to_owned())
}

fn hosts(value: &str) -> Result<(), String> {
    hostlist::expand(value).map(drop).map_err(|error| format!("malformed host list: {}", error.reason))
}

fn exclusive(value: &str) -> Result<(), String> {
    if ["", "user", "mcs", "topo"].contains(&value) { Ok(()) } else { Err("expected nothing, user, mcs or topo".to_owned()) }
}

fn memory(value: &str) -> Result<(), String> {
    let digits = value.trim_end_matches(|it: char| "KMGTkmgt".contains(it));
    let number = !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit()) && value.len() - digits.len() <= 1;
    if number { Ok(()) } else { Err("expected a number with K, M, G or T, such as 64G; 0 for all of a node".to_owned()) }
}

fn array(value: &str) -> Result<(), String> {
    let plain = value.chars().all(|it| it.is_ascii_digit() || "-,:%".contains(it));
    let ends = value.starts_with(|it: char| it.is_ascii_digit()) && value.ends_with(|it: char| it.is_ascii_digit());
    if plain && ends { Ok(()) } else { Err("expected indices such as 0-7, 1,3,5 or 0-15%4".to_owned()) }
}

fn signal(value: &str) -> Result<(), String> {
    let expected = || "expected SIGNAL@SECONDS, such as USR1@120".to_owned();
    let (flags, rest) = value.split_once(':').map_or(("", value), |(flags, rest)| (flags, rest));
    let (name, seconds) = rest.split_once('@').map_or((rest, None), |(name, seconds)| (name, Some(seconds)));
    if seconds.is_some_and(|it| it.parse::<u16>().is_err()) || name.is_empty() || !flags.chars().all(|it| "RB".contains(it)) {
        return Err(expected());
    }
    if flags.contains('B') {
        return Err("B: signals the batch shell alone, and the ranks would not save; leave it out".to_owned());
    }
    match name.trim_start_matches("SIG") {
        "USR1" | "TERM" | "INT" | "10" | "15" | "2" => Ok(()),
        _ => Err("the ranks save on USR1, TERM and INT; give one of these".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn spec(
        kind: Kind,
        flags: &[(&'static str, &str)],
        variables: &[(&str, &str)],
        site: Option<&Site>,
    ) -> Result<JobSpec, String> {
        let values =
            flags.iter().filter(|(name, _)| *name != "slurm").map(|(name, value)| (*name, (*value).to_owned())).collect();
        let slurm = flags.iter().filter(|(name, _)| *name == "slurm").map(|(_, value)| (*value).to_owned()).collect();
        let var = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        JobSpec::resolve(kind, "dev", "pspnet", &Flags { values, slurm }, &var, site).map_err(|error| error.to_string())
    }

    fn lines(options: &[SlurmOption]) -> Vec<String> {
        options.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn mmsegs_defaults_hold() {
        let train = spec(Kind::Train, &[], &[], None).expect("a job");
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
        let test = spec(Kind::Test, &[], &[], None).expect("a job");
        assert_eq!((test.shape.ranks, test.requeue), (4, false));
        assert!(lines(&train.allocation(true)).contains(&"--requeue".to_owned()));
        assert!(lines(&test.allocation(true)).contains(&"--no-requeue".to_owned()));
    }

    #[test]
    fn a_flag_wins_over_a_variable_over_the_site_over_the_default() {
        let site = Site::parse("account: s\nqos: s\ntime: '10'\ngpus_per_node: 4\ncpus_per_task: 7\n", Path::new("s.yaml"))
            .expect("a site");
        let spec = spec(
            Kind::Train,
            &[("qos", "f"), ("gpus", "16")],
            &[("SBATCH_QOS", "v"), ("GPUS", "2"), ("SBATCH_ACCOUNT", "v")],
            Some(&site),
        )
        .expect("a job");
        let said: Vec<String> = spec.settings.iter().map(|it| format!("{} {} {}", it.name, it.value, it.origin)).collect();
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
            let spec = spec(Kind::Train, &[("gpus", "4")], &[], Some(&site)).expect("a job");
            lines(&spec.allocation(true)).into_iter().find(|it| it.contains("gres") || it.contains("gpu"))
        };
        assert_eq!(request("gpu: {type: a100}"), Some("--gres=gpu:a100:4".to_owned()));
        assert_eq!(request("gpu: {dialect: gpus-per-node}"), Some("--gpus-per-node=4".to_owned()));
        assert_eq!(request("gpu: {dialect: gpus-per-task, type: h100}"), Some("--gpus-per-task=h100:1".to_owned()));
        assert_eq!(request("gpu: {dialect: none}"), None);
    }

    #[test]
    fn no_gpus_is_a_cpu_job() {
        let spec = spec(Kind::Train, &[("gpus", "0"), ("ntasks", "3"), ("slurm", "nodes=2")], &[], None).expect("a job");
        let lines = lines(&spec.allocation(false));
        assert!(lines.contains(&"--ntasks=3".to_owned()) && lines.contains(&"--nodes=2".to_owned()), "{lines:?}");
        assert!(!lines.iter().any(|it| it.contains("gres")), "{lines:?}");
        assert!(spec.exports.contains(&("CUDA_VISIBLE_DEVICES".to_owned(), "-1".to_owned())));
    }

    #[test]
    fn whatever_is_wrong_is_named() {
        for (flags, variables, expected) in [
            (&[][..], &[("GPUS", "")][..], "GPUS=\"\": it is empty; give a whole number, or unset it"),
            (&[], &[("GPUS", "four")], "GPUS=\"four\": expected a whole number"),
            (&[], &[("GPUS", "-1")], "GPUS=\"-1\": expected a whole number"),
            (&[], &[("GPUS", "4.5")], "GPUS=\"4.5\": expected a whole number"),
            (&[], &[("GPUS_PER_NODE", "0")], "GPUS_PER_NODE=\"0\": GPUS is 8: a node needs at least one GPU"),
            (&[], &[("CPUS_PER_TASK", "0")], "CPUS_PER_TASK=\"0\": a rank needs at least one CPU"),
            (&[], &[("GPUS", "0"), ("GPUS_PER_NODE", "8")], "GPUS=\"0\": a CPU job, but GPUS_PER_NODE=8 asks for GPUs"),
            (&[], &[("GPUS", "0"), ("SRUN_ARGS", "--gres=gpu:1")], "a CPU job, but SRUN_ARGS asks for GPUs with --gres=gpu:1"),
            (&[("slurm", "gpus=2")], &[("GPUS", "0")], "--gpus=2 from --slurm: GPUS is 0, a CPU job"),
            (&[("slurm", "gres=gpu:2")], &[], "segslurm decides --gres itself"),
            (&[("slurm", "time=5")], &[], "segslurm has --time itself"),
            (&[("slurm", "Foo")], &[], "expected KEY=VALUE"),
            (&[("ntasks", "3")], &[], "--ntasks=\"3\": GPUS is 8, and every GPU has one rank"),
            (&[], &[("SRUN_ARGS", "--comment 'a")], "SRUN_ARGS=\"--comment 'a\": a quote is not closed"),
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
            let error = spec(Kind::Train, flags, variables, None).expect_err(expected);
            assert!(error.contains(expected), "{error}\n  is not\n{expected}");
        }
        let named = |partition: &str, name: &str| {
            JobSpec::resolve(Kind::Train, partition, name, &Flags::default(), &|_| None, None).expect_err("refused").to_string()
        };
        assert!(named("configs/a.yaml", "b").contains("the order is PARTITION JOB_NAME CONFIG"));
        assert!(named("dev", "a.yaml").contains("that looks like a config"));
        assert!(named("dev", "a\nb").contains("line break"));
        assert!(named("dev", "").contains("it is empty"));
        assert!(named("", "a").contains("no name of a partition"));
        assert!(JobSpec::resolve(Kind::Train, "dev", "it's a \"name\"", &Flags::default(), &|_| None, None).is_ok());
    }
}
