//! Who am I: from Slurm's variables to rank, world and device, all or an error.
//!
//! SLURM_PROCID alone proves nothing: a batch shell has it without being a task, a shell of
//! `salloc` lacks it, and a job submitted from inside another job's step inherits that step's
//! variables. What settles it is the daemon that started the process: every task and batch shell
//! descends from a `slurmstepd: [JOB.STEP]`. Where that cannot be seen (a container's own process
//! ids), the variables must agree with each other.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::excerpt::line;
use crate::variables::{self, VariableError, Variables};

use super::hostlist::{self, HostlistError};
use super::tasks::{self, CountsError};

/// Why the variables give no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error("{name} is not set, but {because}; start the ranks with srun")]
    Missing { name: &'static str, because: String },
    #[error(transparent)]
    NotANumber(#[from] VariableError),
    #[error("{name}: {source}")]
    Hosts { name: &'static str, source: HostlistError },
    #[error("{name}: {source}")]
    Counts { name: &'static str, source: CountsError },
    #[error("{} contradicts {}: {}", line(.first), line(.second), line(.why))]
    Contradiction { first: String, second: String, why: String },
    #[error("--launcher slurm, but this is {place}: {instead}")]
    NotAStep { place: String, instead: String },
    #[error("{ranks} ranks on {host} share {devices} GPU{}: give every rank its own with \
             --gpus-per-node={ranks} (or gres), or start fewer tasks", if *.devices == 1 { "" } else { "s" })]
    SharedDevice { host: String, ranks: usize, devices: usize },
    #[error(
        "which node runs rank 0 cannot be told: {}; name it with MASTER_ADDR=NODE (the first line \
         of SLURM_HOSTFILE), or leave the layout to Slurm", line(.why)
    )]
    NoAddress { why: String },
}

/// Where a process stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Context {
    /// A task of a job step: srun started it.
    Step(Box<Step>),
    /// The shell of a batch script: inside an allocation, but one process, not a rank.
    BatchShell(Allocation),
    /// A shell that `salloc` started: likewise.
    AllocationShell(Allocation),
    /// No Slurm job around.
    Outside,
}

/// A context, and the variables that were found and not believed because they belong to another job
/// or step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub context: Context,
    pub stale: Vec<&'static str>,
}

/// The job as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub id: u64,
    pub name: Option<String>,
    /// How Slurm's programs are to be told of it: `12`, or `10_3` for an element of an array (whose
    /// bare id means all of it).
    pub address: String,
    pub array: Option<ArrayElement>,
    /// Ids of the parts of a heterogeneous job, whose tasks all have the first one's in
    /// SLURM_JOB_ID.
    pub parts: Vec<u64>,
    /// How often the job was started before: 0 on the first run.
    pub restart: u64,
    /// When Slurm will end it, if it says so (it does from 23.02 on).
    pub end: Option<SystemTime>,
}

/// One element of a job array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayElement {
    pub job: u64,
    pub task: u64,
}

/// An allocation seen from a shell in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    pub job: Job,
    pub hosts: Vec<String>,
    /// Tasks that a plain `srun` would start, where that is said.
    pub tasks: Option<usize>,
}

/// One task of a job step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub job: Job,
    /// The step's number; srun counts from 0.
    pub step: u64,
    pub rank: usize,
    pub world: usize,
    pub local_rank: usize,
    pub local_world: usize,
    pub node_rank: usize,
    /// The step's nodes, in Slurm's order.
    pub hosts: Vec<String>,
    pub tasks_per_node: Vec<usize>,
    /// This node.
    pub host: String,
    /// The ranks on this node, by local rank (SLURM_GTIDS), where Slurm lists them.
    pub ranks_here: Vec<usize>,
    pub layout: Layout,
    /// CUDA_VISIBLE_DEVICES, entry by entry; `None` where it is not set.
    pub visible_devices: Option<Vec<String>>,
    /// GPUs that the job holds on this node.
    pub gpus_on_node: Option<usize>,
    /// Ports that slurmctld set aside for this step (`MpiParams=ports=…`).
    pub reserved_ports: Vec<u16>,
    /// First and last port that the site profile lets nodes use among each other (SEGSLURM_PORTS).
    pub site_ports: Option<(u16, u16)>,
    /// Whether a terminal is attached (`srun --pty`).
    pub pty: bool,
    /// MASTER_ADDR, if the user set it.
    pub named_address: Option<String>,
}

/// How Slurm lays ranks out over the step's nodes (`--distribution`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A node is filled before the next one. Also what Slurm does where nothing is said.
    Block,
    /// Round robin.
    Cyclic,
    /// Blocks of a size that the environment does not tell.
    Plane,
    /// As a file on the submitting machine says.
    Arbitrary,
}

/// The `slurmstepd` that a process descends from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepDaemon {
    pub job: u64,
    /// `None` for a batch shell.
    pub step: Option<u64>,
}

impl StepDaemon {
    /// Reads the process title that the daemon gives itself: `slurmstepd: [12.0]`, `slurmstepd:
    /// [12.batch]`.
    pub fn parse(title: &str) -> Option<Self> {
        let inside = title.trim_start().strip_prefix("slurmstepd: [")?.split(']').next()?;
        let (job, step) = inside.split_once('.')?;
        let job = job.split('+').next()?.parse().ok()?;
        match step.split('+').next()? {
            "batch" => Some(Self { job, step: None }),
            step => Some(Self { job, step: Some(step.parse().ok()?) }),
        }
    }

    /// Walks this process's ancestors up to the first daemon; `None` where there is none or `/proc`
    /// does not show it.
    pub fn of_this_process() -> Option<Self> {
        let mut pid = std::process::id();
        for _ in 0..256 {
            let folder = Path::new("/proc").join(pid.to_string());
            let title = std::fs::read(folder.join("cmdline")).ok()?;
            if let Some(daemon) = Self::parse(&String::from_utf8_lossy(&title)) {
                return Some(daemon);
            }
            let status = std::fs::read_to_string(folder.join("status")).ok()?;
            pid =
                status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
            if pid == 0 {
                return None;
            }
        }
        None
    }
}

/// Variables of a step, which only srun's tasks should have.
const STEP_VARIABLES: [&str; 5] = [
    "SLURM_STEP_ID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_STEP_NODELIST",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_STEP_RESV_PORTS",
];
/// Variables of a task, a batch shell among them.
const TASK_VARIABLES: [&str; 4] = ["SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_GTIDS"];

impl Place {
    /// The place of this very process.
    #[expect(clippy::disallowed_methods, reason = "it is about this process")]
    pub fn here() -> Result<Self, EnvError> {
        let var = |name: &str| std::env::var(name).ok();
        Self::derive(&var, StepDaemon::of_this_process().as_ref())
    }

    /// Derives the place from variables and, where known, the daemon that started the process.
    pub fn derive(var: Variables<'_>, daemon: Option<&StepDaemon>) -> Result<Self, EnvError> {
        let read = |name: &str| variables::text(var, name);
        let read: Variables<'_> = &read;
        let set = |names: &[&'static str]| {
            names.iter().copied().filter(|name| read(name).is_some()).collect::<Vec<_>>()
        };
        let task_and_step = || [set(&TASK_VARIABLES), set(&STEP_VARIABLES)].concat();
        let Some(job) = Job::derive(read)? else {
            return Ok(Self { context: Context::Outside, stale: task_and_step() });
        };
        let allocation = |job| Allocation::derive(read, job);
        let step_says = || Step::derive(read, job.clone());
        match daemon {
            Some(daemon) if job.is(daemon.job) && daemon.step.is_none() => Ok(Self {
                context: Context::BatchShell(allocation(job)?),
                stale: set(&STEP_VARIABLES),
            }),
            Some(daemon) if job.is(daemon.job) => {
                Ok(Self { context: Context::Step(Box::new(step_says()?)), stale: Vec::new() })
            }
            // A shell of salloc, itself started inside a step of another job.
            Some(_) => Ok(Self {
                context: Context::AllocationShell(allocation(job)?),
                stale: task_and_step(),
            }),
            _ if read("SLURM_PROCID").is_none() => Ok(Self {
                context: Context::AllocationShell(allocation(job)?),
                stale: set(&STEP_VARIABLES),
            }),
            _ if read("SLURM_STEP_ID").is_none() => {
                Ok(Self { context: Context::BatchShell(allocation(job)?), stale: Vec::new() })
            }
            _ => Ok(Self { context: Context::Step(Box::new(step_says()?)), stale: Vec::new() }),
        }
    }

    /// The job around this process, if there is one.
    pub fn job(&self) -> Option<&Job> {
        match &self.context {
            Context::Step(step) => Some(&step.job),
            Context::BatchShell(allocation) | Context::AllocationShell(allocation) => {
                Some(&allocation.job)
            }
            Context::Outside => None,
        }
    }

    /// The step, or what to do instead, in one sentence.
    pub fn step(self) -> Result<Step, EnvError> {
        let not_a_step = |place: &str, instead: String| {
            Err(EnvError::NotAStep { place: place.to_owned(), instead })
        };
        let with_srun = |allocation: &Allocation| match allocation.tasks {
            Some(1) => {
                "put srun in front of the command, or leave --launcher out for its one process"
                    .to_owned()
            }
            Some(tasks) => {
                format!("put srun in front of the command, so that all {tasks} ranks start")
            }
            None => "put srun with --ntasks in front of the command, so that every rank starts"
                .to_owned(),
        };
        match self.context {
            Context::Step(step) => Ok(*step),
            Context::BatchShell(it) => not_a_step(
                &format!("the batch shell of job {}, not a step of it", it.job.address),
                with_srun(&it),
            ),
            Context::AllocationShell(it) => not_a_step(
                &format!("a shell in the allocation of job {}", it.job.address),
                with_srun(&it),
            ),
            Context::Outside if self.stale.is_empty() => not_a_step(
                "outside of any Slurm job",
                "start it with srun, or as `segslurm train PARTITION JOB_NAME CONFIG`".to_owned(),
            ),
            Context::Outside => not_a_step(
                &format!(
                    "outside of any Slurm job (SLURM_JOB_ID is not set; {} left over)",
                    self.stale.join(", ")
                ),
                "start it with srun, or as `segslurm train PARTITION JOB_NAME CONFIG`".to_owned(),
            ),
        }
    }
}

impl Job {
    fn derive(read: Variables<'_>) -> Result<Option<Self>, EnvError> {
        let Some(id) = variables::number::<u64>(read, "SLURM_JOB_ID")? else { return Ok(None) };
        let array = match (
            variables::number::<u64>(read, "SLURM_ARRAY_JOB_ID")?,
            variables::number::<u64>(read, "SLURM_ARRAY_TASK_ID")?,
        ) {
            (Some(job), Some(task)) => Some(ArrayElement { job, task }),
            _ => None,
        };
        let end = variables::number::<u64>(read, "SLURM_JOB_END_TIME")?
            .map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds.min(1 << 40)));
        let address =
            array.as_ref().map_or_else(|| id.to_string(), |it| format!("{}_{}", it.job, it.task));
        let restart = variables::number::<u64>(read, "SLURM_RESTART_COUNT")?.unwrap_or(0);
        let size = variables::number::<u64>(read, "SLURM_HET_SIZE")?.unwrap_or(0).min(1024);
        let parts = (0..size)
            .filter_map(|part| read(&format!("SLURM_JOB_ID_HET_GROUP_{part}"))?.parse().ok())
            .collect();
        Ok(Some(Self { id, name: read("SLURM_JOB_NAME"), address, array, parts, restart, end }))
    }

    /// Whether `id` is this job's, or that of a part of it.
    fn is(&self, id: u64) -> bool {
        self.id == id || self.parts.contains(&id)
    }
}

impl Allocation {
    fn derive(read: Variables<'_>, job: Job) -> Result<Self, EnvError> {
        let hosts = match read("SLURM_JOB_NODELIST") {
            Some(_) => hosts(read, "SLURM_JOB_NODELIST")?,
            None => Vec::new(),
        };
        let tasks = match variables::number::<u64>(read, "SLURM_NTASKS")? {
            Some(tasks) => Some(tasks as usize),
            None => read("SLURM_TASKS_PER_NODE")
                .map(|_| counts(read, "SLURM_TASKS_PER_NODE"))
                .transpose()?
                .map(|it| it.iter().sum()),
        };
        Ok(Self { job, hosts, tasks })
    }
}

impl Step {
    #[expect(
        clippy::too_many_lines,
        reason = "one check after another of what the variables say together"
    )]
    fn derive(read: Variables<'_>, job: Job) -> Result<Self, EnvError> {
        let because = format!("SLURM_JOB_ID={} and SLURM_PROCID say that this is a task", job.id);
        let number = |name| {
            variables::number::<u64>(read, name)?
                .ok_or_else(|| EnvError::Missing { name, because: because.clone() })
        };
        let size = |name| number(name).map(|it| it as usize);
        let (rank, local_rank, node_rank) =
            (size("SLURM_PROCID")?, size("SLURM_LOCALID")?, size("SLURM_NODEID")?);
        let world = size("SLURM_STEP_NUM_TASKS")?;
        let hosts_of_step = hosts(read, "SLURM_STEP_NODELIST")?;
        let tasks_per_node = counts(read, "SLURM_STEP_TASKS_PER_NODE")?;
        let said = |name: &str| format!("{name}={}", read(name).unwrap_or_default());
        let contradiction = |first: &str, second: &str, why: String| {
            Err(EnvError::Contradiction { first: said(first), second: said(second), why })
        };

        if rank >= world {
            return contradiction(
                "SLURM_PROCID",
                "SLURM_STEP_NUM_TASKS",
                format!("ranks run from 0 to {}", world.saturating_sub(1)),
            );
        }
        // Absent where a batch script did not set it; other values are those of an enclosing job.
        if let Some(tasks) = variables::number::<u64>(read, "SLURM_NTASKS")?
            && tasks as usize != world
        {
            return contradiction(
                "SLURM_NTASKS",
                "SLURM_STEP_NUM_TASKS",
                "they are one number in a task of srun's".to_owned(),
            );
        }
        if tasks_per_node.iter().sum::<usize>() != world {
            return contradiction(
                "SLURM_STEP_TASKS_PER_NODE",
                "SLURM_STEP_NUM_TASKS",
                "its sum is not the number of tasks".to_owned(),
            );
        }
        if tasks_per_node.len() != hosts_of_step.len() {
            let why = format!("{} counts for {} nodes", tasks_per_node.len(), hosts_of_step.len());
            return contradiction("SLURM_STEP_TASKS_PER_NODE", "SLURM_STEP_NODELIST", why);
        }
        let Some(&local_world) = tasks_per_node.get(node_rank) else {
            return contradiction(
                "SLURM_NODEID",
                "SLURM_STEP_NODELIST",
                format!("the step has {} nodes", hosts_of_step.len()),
            );
        };
        if local_rank >= local_world {
            return contradiction(
                "SLURM_LOCALID",
                "SLURM_STEP_TASKS_PER_NODE",
                format!("this node has {local_world} tasks"),
            );
        }
        let host = read("SLURMD_NODENAME").unwrap_or_else(|| hosts_of_step[node_rank].clone());
        if !hosts_of_step.contains(&host) {
            return contradiction(
                "SLURMD_NODENAME",
                "SLURM_STEP_NODELIST",
                "this node is not one of the step's".to_owned(),
            );
        }
        if read("SLURM_JOB_NODELIST").is_some() && read("SLURM_HET_SIZE").is_none() {
            let hosts_of_job = hosts(read, "SLURM_JOB_NODELIST")?;
            if let Some(outside) = hosts_of_step.iter().find(|host| !hosts_of_job.contains(host)) {
                return contradiction(
                    "SLURM_STEP_NODELIST",
                    "SLURM_JOB_NODELIST",
                    format!("{outside} is not one of the job's nodes"),
                );
            }
        }
        let mut ranks_here = Vec::new();
        if let Some(global) = read("SLURM_GTIDS") {
            let ranks: Option<Vec<usize>> =
                global.split(',').map(|text| text.parse().ok()).collect();
            let Some(ranks) = ranks else {
                return Err(VariableError { name: "SLURM_GTIDS".to_owned(), text: global }.into());
            };
            if ranks.len() != local_world {
                let why = format!(
                    "{} ranks listed on a node of {local_world}; a batch shell always lists rank 0 \
                     alone",
                    ranks.len()
                );
                return contradiction("SLURM_GTIDS", "SLURM_STEP_TASKS_PER_NODE", why);
            }
            if ranks.get(local_rank) != Some(&rank) {
                return contradiction(
                    "SLURM_GTIDS",
                    "SLURM_PROCID",
                    format!("local rank {local_rank} has another rank there"),
                );
            }
            ranks_here = ranks;
        }
        // torchrun's names, when something exported them, must say the same.
        for (name, value, ours) in [
            ("RANK", rank, "SLURM_PROCID"),
            ("WORLD_SIZE", world, "SLURM_STEP_NUM_TASKS"),
            ("LOCAL_RANK", local_rank, "SLURM_LOCALID"),
        ] {
            if let Some(given) = variables::number::<u64>(read, name)?
                && given as usize != value
            {
                return contradiction(
                    name,
                    ours,
                    format!("unset {name}, or start with --launcher pytorch if torchrun set it"),
                );
            }
        }
        let visible_devices = read("CUDA_VISIBLE_DEVICES").map(|text| match text.as_str() {
            "NoDevFiles" | "-1" => Vec::new(),
            list => {
                list.split(',').map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()).collect()
            }
        });
        Ok(Self {
            job,
            step: number("SLURM_STEP_ID")?,
            rank,
            world,
            local_rank,
            local_world,
            node_rank,
            ranks_here,
            layout: match read("SLURM_DISTRIBUTION") {
                // srun takes a host file for `arbitrary` where no distribution is named.
                None if read("SLURM_HOSTFILE").is_some() => Layout::Arbitrary,
                Some(it) if it.starts_with("arbitrary") => Layout::Arbitrary,
                Some(it) if it.starts_with("cyclic") => Layout::Cyclic,
                Some(it) if it.starts_with("plane") => Layout::Plane,
                _ => Layout::Block,
            },
            hosts: hosts_of_step,
            tasks_per_node,
            host,
            visible_devices,
            gpus_on_node: variables::number::<u64>(read, "SLURM_GPUS_ON_NODE")?
                .map(|it| it as usize),
            reserved_ports: read("SLURM_STEP_RESV_PORTS")
                .map_or_else(Vec::new, |text| reserved(&text)),
            site_ports: read("SEGSLURM_PORTS").and_then(|text| super::site::port_range(&text).ok()),
            pty: read("SLURM_PTY_PORT").is_some(),
            named_address: read("MASTER_ADDR"),
        })
    }

    /// The node of each rank, from layout and counts; `None` where they do not tell, or where they
    /// disagree with the ranks that Slurm lists for this node.
    pub fn host_of_each(&self) -> Option<Vec<&str>> {
        let nodes = self.hosts.iter().map(String::as_str).zip(self.tasks_per_node.iter().copied());
        let hosts: Vec<&str> = match self.layout {
            _ if self.local_world == self.world => vec![&self.host; self.world],
            Layout::Block => {
                nodes.flat_map(|(host, tasks)| std::iter::repeat_n(host, tasks)).collect()
            }
            Layout::Cyclic => {
                let mut turns: Vec<_> = nodes
                    .flat_map(|(host, tasks)| (0..tasks).map(move |turn| (turn, host)))
                    .collect();
                turns.sort_by_key(|(turn, _)| *turn);
                turns.into_iter().map(|(_, host)| host).collect()
            }
            Layout::Plane | Layout::Arbitrary => return None,
        };
        let here = |rank: usize| hosts.get(rank) == Some(&self.host.as_str());
        (here(self.rank) && self.ranks_here.iter().all(|&rank| here(rank))).then_some(hosts)
    }

    /// Where the ranks meet: MASTER_ADDR, else the node that runs rank 0. All ranks give the same
    /// answer, or all the same error.
    pub fn address(&self) -> Result<String, EnvError> {
        if let Some(address) = &self.named_address {
            return Ok(address.clone());
        }
        match self.layout {
            _ if self.world == self.local_world => Ok(self.host.clone()),
            Layout::Arbitrary => Err(EnvError::NoAddress {
                why: "SLURM_DISTRIBUTION is arbitrary, so the order of SLURM_STEP_NODELIST is not \
                      that of the ranks"
                    .to_owned(),
            }),
            // All others start on the first node that has a task.
            _ => {
                let first = self.tasks_per_node.iter().position(|tasks| *tasks > 0).unwrap_or(0);
                let address = &self.hosts[first];
                if self.ranks_here.contains(&0) != (*address == self.host)
                    && !self.ranks_here.is_empty()
                {
                    let (host, ranks) = (&self.host, &self.ranks_here);
                    return Err(EnvError::NoAddress {
                        why: format!(
                            "SLURM_GTIDS lists ranks {ranks:?} for {host}, and SLURM_STEP_NODELIST \
                             begins with {address}"
                        ),
                    });
                }
                Ok(address.clone())
            }
        }
    }

    /// This rank's device, as an index into the `found` devices that CUDA shows it; `None` where it
    /// shows none.
    pub fn device(&self, found: usize) -> Result<Option<usize>, EnvError> {
        match found {
            0 => Ok(None),
            // --gpus-per-task and --gpu-bind show each task its own GPU alone, always under index
            // 0.
            1 if self.local_world == 1
                || self.gpus_on_node.is_some_and(|held| held >= self.local_world) =>
            {
                Ok(Some(0))
            }
            found if found >= self.local_world => Ok(Some(self.local_rank)),
            found => Err(EnvError::SharedDevice {
                host: self.host.clone(),
                ranks: self.local_world,
                devices: found,
            }),
        }
    }
}

impl fmt::Display for Place {
    /// One sentence for `segslurm env`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.context {
            Context::Step(it) => {
                let what = if it.pty {
                    "task of an interactive step (srun --pty)"
                } else {
                    "task of a job step"
                };
                write!(
                    f,
                    "{what}: rank {} of {} in step {}.{}",
                    it.rank, it.world, it.job.address, it.step
                )
            }
            Context::BatchShell(it) => {
                write!(f, "batch shell of job {}: one process, not a rank", it.job.address)
            }
            Context::AllocationShell(it) => {
                write!(
                    f,
                    "shell in the allocation of job {}: one process, not a rank",
                    it.job.address
                )
            }
            Context::Outside => f.write_str("outside of any Slurm job"),
        }
    }
}

fn hosts(read: Variables<'_>, name: &'static str) -> Result<Vec<String>, EnvError> {
    let because = "this is a step".to_owned();
    let list = read(name).ok_or(EnvError::Missing { name, because })?;
    hostlist::expand(&list).map_err(|source| EnvError::Hosts { name, source })
}

fn counts(read: Variables<'_>, name: &'static str) -> Result<Vec<usize>, EnvError> {
    let because = "this is a step".to_owned();
    let text = read(name).ok_or(EnvError::Missing { name, because })?;
    tasks::expand(&text).map_err(|source| EnvError::Counts { name, source })
}

/// `12000-12003,12010` as ports; what cannot be read is nothing that one could use.
fn reserved(text: &str) -> Vec<u16> {
    let range = |item: &str| {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    };
    // Ports may be named twice, but there are no more than these.
    text.split(',').filter_map(range).flatten().take(1 << 16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rank 1 of 4, on two nodes of 2, as Slurm 22.05 sets it.
    const STEP: &str = "SLURMD_NODENAME=n1 SLURM_GPUS_ON_NODE=2 SLURM_GTIDS=0,1 SLURM_JOB_ID=7 \
                        SLURM_JOB_NAME=pspnet SLURM_JOB_NODELIST=n[1-2] SLURM_LOCALID=1 \
                        SLURM_NODEID=0 SLURM_NODELIST=n[1-2] SLURM_NTASKS=4 SLURM_PROCID=1 \
                        SLURM_STEP_ID=0 SLURM_STEP_NODELIST=n[1-2] SLURM_STEP_NUM_TASKS=4 \
                        SLURM_STEP_TASKS_PER_NODE=2(x2) SLURM_TASKS_PER_NODE=2(x2) \
                        CUDA_VISIBLE_DEVICES=0,1";
    const BATCH: &str = "ENVIRONMENT=BATCH SLURMD_NODENAME=n1 SLURM_GTIDS=0 SLURM_JOB_ID=8 \
                         SLURM_JOB_NAME=batch SLURM_JOB_NODELIST=n[1-2] SLURM_LOCALID=0 \
                         SLURM_NODEID=0 SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_TASKS_PER_NODE=3,1";
    const SALLOC: &str = "SLURM_JOB_ID=9 SLURM_JOB_NAME=interactive SLURM_JOB_NODELIST=n[1-2] \
                          SLURM_NTASKS=4 SLURM_TASKS_PER_NODE=3,1";
    /// A batch script submitted by a task of a step with as many tasks on as many nodes: the
    /// variables alone look like a step.
    const INNER: &str = "SLURMD_NODENAME=n1 SLURM_GTIDS=0 SLURM_JOB_ID=6 SLURM_JOB_NODELIST=n[1-2] \
                         SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_NTASKS=2 SLURM_PROCID=0 \
                         SLURM_STEP_ID=0 SLURM_STEP_NODELIST=n[1-2] SLURM_STEP_NUM_TASKS=2 \
                         SLURM_STEP_TASKS_PER_NODE=1(x2)";

    /// The place that these variables give, with some changed (`NAME=value`) or taken away
    /// (`NAME=`).
    fn place(variables: &str, changes: &str, daemon: Option<&str>) -> Result<Place, EnvError> {
        let find = |text: &str, name: &str| {
            text.split_whitespace().find_map(|it| {
                it.split_once('=')
                    .filter(|(key, _)| *key == name)
                    .map(|(_, value)| value.to_owned())
            })
        };
        let var = |name: &str| find(changes, name).or_else(|| find(variables, name));
        Place::derive(&var, daemon.map(|it| StepDaemon::parse(it).expect(it)).as_ref())
    }

    fn step(changes: &str) -> Step {
        place(STEP, changes, None).and_then(Place::step).expect("a step")
    }

    #[track_caller]
    fn refused(variables: &str, changes: &str, daemon: Option<&str>, parts: &[&str]) {
        let error =
            place(variables, changes, daemon).and_then(Place::step).expect_err(changes).to_string();
        for part in parts {
            assert!(error.contains(part), "{changes}: {error}");
        }
    }

    #[test]
    fn a_task_of_srun_knows_its_rank() {
        let step = step("");
        assert_eq!(
            (step.rank, step.world, step.local_rank, step.local_world, step.node_rank),
            (1, 4, 1, 2, 0)
        );
        assert_eq!((step.hosts.join(" ").as_str(), step.host.as_str()), ("n1 n2", "n1"));
        assert_eq!(step.address().as_deref(), Ok("n1"));
        assert_eq!((step.job.address.as_str(), step.job.restart), ("7", 0));
        assert!(!step.pty);
    }

    #[test]
    fn the_daemon_decides_where_the_variables_are_alike() {
        assert!(
            matches!(place(INNER, "", None).map(|it| it.context), Ok(Context::Step(_))),
            "alone they look like a step"
        );
        let inner = place(INNER, "", Some("slurmstepd: [6.batch]")).expect("a batch shell");
        assert!(matches!(inner.context, Context::BatchShell(_)));
        assert_eq!(
            inner.stale,
            [
                "SLURM_STEP_ID",
                "SLURM_STEP_NUM_TASKS",
                "SLURM_STEP_NODELIST",
                "SLURM_STEP_TASKS_PER_NODE"
            ]
        );
        let salloc_in_step =
            place(SALLOC, "SLURM_PROCID=0 SLURM_STEP_ID=0", Some("slurmstepd: [3.0]"))
                .expect("a shell");
        assert!(matches!(salloc_in_step.context, Context::AllocationShell(_)));
        assert_eq!(salloc_in_step.stale, ["SLURM_PROCID", "SLURM_STEP_ID"]);
    }

    #[test]
    fn shells_are_told_to_use_srun() {
        refused(
            BATCH,
            "",
            None,
            &[
                "the batch shell of job 8",
                "put srun in front of the command, so that all 4 ranks start",
            ],
        );
        refused(BATCH, "", Some("slurmstepd: [8.batch]"), &["the batch shell of job 8"]);
        refused(BATCH, "SLURM_NTASKS= SLURM_TASKS_PER_NODE=1(x2)", None, &["all 2 ranks"]);
        refused(SALLOC, "", None, &["a shell in the allocation of job 9", "all 4 ranks"]);
        refused(SALLOC, "SLURM_NTASKS=1", None, &["leave --launcher out"]);
        refused(
            "",
            "",
            None,
            &["outside of any Slurm job", "segslurm train PARTITION JOB_NAME CONFIG"],
        );
        refused(
            "",
            "SLURM_PROCID=0 SLURM_NTASKS=4",
            None,
            &["SLURM_JOB_ID is not set; SLURM_PROCID left over"],
        );
    }

    #[test]
    fn contradictions_name_both_variables() {
        for (changes, first, second) in [
            ("SLURM_PROCID=5", "SLURM_PROCID=5", "SLURM_STEP_NUM_TASKS=4"),
            ("SLURM_NTASKS=8", "SLURM_NTASKS=8", "SLURM_STEP_NUM_TASKS=4"),
            (
                "SLURM_STEP_TASKS_PER_NODE=2,1",
                "SLURM_STEP_TASKS_PER_NODE=2,1",
                "SLURM_STEP_NUM_TASKS=4",
            ),
            (
                "SLURM_STEP_TASKS_PER_NODE=4",
                "SLURM_STEP_TASKS_PER_NODE=4",
                "SLURM_STEP_NODELIST=n[1-2]",
            ),
            ("SLURM_NODEID=2", "SLURM_NODEID=2", "SLURM_STEP_NODELIST=n[1-2]"),
            ("SLURM_LOCALID=2", "SLURM_LOCALID=2", "SLURM_STEP_TASKS_PER_NODE=2(x2)"),
            ("SLURMD_NODENAME=n7", "SLURMD_NODENAME=n7", "SLURM_STEP_NODELIST=n[1-2]"),
            ("SLURM_JOB_NODELIST=n1", "SLURM_STEP_NODELIST=n[1-2]", "SLURM_JOB_NODELIST=n1"),
            ("SLURM_GTIDS=0", "SLURM_GTIDS=0", "SLURM_STEP_TASKS_PER_NODE=2(x2)"),
            ("SLURM_GTIDS=1,0", "SLURM_GTIDS=1,0", "SLURM_PROCID=1"),
            ("RANK=0", "RANK=0", "SLURM_PROCID=1"),
            ("WORLD_SIZE=1", "WORLD_SIZE=1", "SLURM_STEP_NUM_TASKS=4"),
        ] {
            refused(STEP, changes, None, &[first, "contradicts", second]);
        }
    }

    #[test]
    fn missing_and_malformed_variables_are_named() {
        refused(STEP, "SLURM_LOCALID=", None, &["SLURM_LOCALID is not set"]);
        refused(STEP, "SLURM_STEP_NODELIST=", None, &["SLURM_STEP_NODELIST is not set"]);
        refused(STEP, "SLURM_PROCID=one", None, &["SLURM_PROCID=\"one\": expected a whole number"]);
        refused(
            STEP,
            "SLURM_STEP_NODELIST=n[1-2",
            None,
            &["SLURM_STEP_NODELIST: malformed host list \"n[1-2\""],
        );
        refused(
            STEP,
            "SLURM_STEP_TASKS_PER_NODE=2(x",
            None,
            &["SLURM_STEP_TASKS_PER_NODE: \"2(x\""],
        );
    }

    #[test]
    fn a_sub_step_meets_on_its_own_first_node() {
        let changes = "SLURM_STEP_NODELIST=n2 SLURM_STEP_NUM_TASKS=1 SLURM_NTASKS=1 \
                       SLURM_STEP_TASKS_PER_NODE=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_GTIDS=0 \
                       SLURMD_NODENAME=n2";
        assert_eq!(step(changes).address().as_deref(), Ok("n2"));
    }

    #[test]
    fn an_arbitrary_layout_needs_the_address_said() {
        for far in [
            "SLURM_DISTRIBUTION=arbitrary",
            "SLURM_HOSTFILE=hosts",
            "SLURM_GTIDS=0,1 SLURMD_NODENAME=n2",
        ] {
            assert!(matches!(step(far).address(), Err(EnvError::NoAddress { .. })), "{far}");
            // Rank 0 as well: it would wait for the others.
            assert!(matches!(
                step(&format!("SLURM_PROCID=0 SLURM_LOCALID=0 {far}")).address(),
                Err(EnvError::NoAddress { .. })
            ));
        }
        assert_eq!(
            step("SLURM_DISTRIBUTION=arbitrary MASTER_ADDR=n2").address().as_deref(),
            Ok("n2")
        );
    }

    #[test]
    fn ranks_are_placed_as_slurm_lays_them_out() {
        let uneven = "SLURM_STEP_TASKS_PER_NODE=3,1";
        let hosts = |changes: &str| step(changes).host_of_each().map(|it| it.join(" "));
        assert_eq!(hosts("").as_deref(), Some("n1 n1 n2 n2"));
        assert_eq!(hosts(&format!("{uneven} SLURM_GTIDS=0,1,2")).as_deref(), Some("n1 n1 n1 n2"));
        let cyclic = format!("{uneven} SLURM_DISTRIBUTION=cyclic SLURM_PROCID=2 SLURM_GTIDS=0,2,3");
        assert_eq!(hosts(&cyclic).as_deref(), Some("n1 n2 n1 n1"));
        assert_eq!(hosts("SLURM_DISTRIBUTION=plane"), None);
        assert_eq!(hosts("SLURM_GTIDS=0,1 SLURMD_NODENAME=n2"), None);
    }

    #[test]
    fn a_task_of_a_heterogeneous_job_belongs_to_it_by_its_parts_id() {
        let parts = "SLURM_HET_SIZE=2 SLURM_JOB_ID_HET_GROUP_0=7 SLURM_JOB_ID_HET_GROUP_1=8";
        let place = place(STEP, parts, Some("slurmstepd: [8.0]")).expect("a place");
        assert!(matches!(place.context, Context::Step(_)), "{place}");
    }

    #[test]
    fn an_array_element_is_addressed_by_both_numbers() {
        let step = step(
            "SLURM_ARRAY_JOB_ID=5 SLURM_ARRAY_TASK_ID=3 SLURM_RESTART_COUNT=2 \
             SLURM_JOB_END_TIME=1700000000",
        );
        assert_eq!((step.job.address.as_str(), step.job.restart), ("5_3", 2));
        assert_eq!(step.job.end, Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
    }

    #[test]
    fn every_rank_has_a_device_of_its_own_or_it_is_an_error() {
        assert_eq!(step("").device(2), Ok(Some(1)));
        assert_eq!(step("").device(0), Ok(None));
        assert_eq!(
            step("CUDA_VISIBLE_DEVICES=1").device(1),
            Ok(Some(0)),
            "--gpus-per-task=1 shows one GPU a task"
        );
        let shared = step("CUDA_VISIBLE_DEVICES=0 SLURM_GPUS_ON_NODE=1")
            .device(1)
            .expect_err("shared")
            .to_string();
        assert!(shared.starts_with("2 ranks on n1 share 1 GPU:"), "{shared}");
    }

    #[test]
    fn reserved_ports_are_read() {
        assert_eq!(
            step("SLURM_STEP_RESV_PORTS=12000-12002,12010").reserved_ports,
            [12000, 12001, 12002, 12010]
        );
    }

    #[test]
    fn titles_of_the_daemon_are_read() {
        assert_eq!(
            StepDaemon::parse("slurmstepd: [12.0]    "),
            Some(StepDaemon { job: 12, step: Some(0) })
        );
        assert_eq!(
            StepDaemon::parse("slurmstepd: [12.batch]"),
            Some(StepDaemon { job: 12, step: None })
        );
        assert_eq!(
            StepDaemon::parse("slurmstepd: [12+1.0+1]"),
            Some(StepDaemon { job: 12, step: Some(0) })
        );
        assert_eq!(StepDaemon::parse("/bin/bash slurmstepd"), None);
    }
}
