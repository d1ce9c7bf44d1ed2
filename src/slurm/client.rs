//! The one place that runs Slurm's programs: each with a limit of time, their answers read whatever
//! banners stand around them, and their errors shown with what to do about them.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::excerpt::{line, quoted};
use crate::exit::{Exit, Exits};

use super::job::JobSpec;
use super::options::kept_from_sbatch;
use super::state::{JobState, Meaning};
use super::time::TimeLimit;

/// How long the controller may take to answer before it counts as absent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// How long it may take to say where a node is, which every rank of a large job asks at once.
const LOOKUP: Duration = Duration::from_secs(5);
/// How long a submission may take: busy controllers answer late, and a submission that was given up
/// may still happen.
const SUBMISSION: Duration = Duration::from_mins(2);

/// Whether there is a Slurm to talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    Answers,
    /// These programs are not on PATH.
    NotInstalled(Vec<&'static str>),
    /// No controller answered; what was said instead.
    Silent(String),
}

/// Why Slurm did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlurmError {
    #[error("{program} is not on PATH")]
    Missing { program: String },
    #[error("cannot start {program}: {reason}")]
    Start { program: String, reason: String },
    #[error("{program} gave no answer within {} s", .after.as_secs())]
    Silent { program: String, after: Duration },
    /// The controller was lost in the middle.
    #[error("Slurm did not take the job: {}; try again once `scontrol ping` answers", line(.0))]
    NoContact(String),
    #[error("Slurm refuses the job: {}; {}", line(.said), line(.fix))]
    Refused { said: String, fix: String },
    #[error("scontrol knows no node {}", line(.0))]
    NoNode(String),
    #[error("sbatch took the job, but printed no job id that can be read: {}; look for the job \
             with `squeue --me`", quoted(.said))]
    NoJobId { said: String },
}

impl Exits for SlurmError {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused { .. } => Exit::Refused,
            Self::Start { .. }
            | Self::Missing { .. }
            | Self::Silent { .. }
            | Self::NoNode(_)
            | Self::NoContact(_) => Exit::Unavailable,
            Self::NoJobId { .. } => Exit::Software,
        }
    }
}

/// A job that sbatch took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    pub id: u64,
    /// Where sbatch names one.
    pub cluster: Option<String>,
}

/// A partition, as `sinfo` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub name: String,
    pub time_limit: Option<TimeLimit>,
    /// The most GPUs on one of its nodes; `None` where Slurm lists none at all.
    pub gpus_per_node: Option<usize>,
    /// Nodes in all, where Slurm says so.
    pub nodes: Option<usize>,
}

struct Answer {
    success: bool,
    stdout: String,
    stderr: String,
}

/// Whether `name` is on PATH.
#[expect(clippy::disallowed_methods, reason = "the system's own search path")]
fn installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|it| it.join(name).is_file())
}

/// A program of Slurm's, without the variables of a job around us: a job that is submitted from
/// inside another one must not take over its shape. Which cluster to talk to stays.
#[expect(
    clippy::disallowed_methods,
    reason = "here programs of Slurm's are started, with this process's variables"
)]
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let kept = [
        "SLURM_CONF",
        "SLURM_CLUSTERS",
        "SLURM_JWT",
        "SLURM_CONF_SERVER",
        "SLURM_TIME_FORMAT",
        "SLURM_BITSTR_LEN",
    ];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let of_a_job = (text.starts_with("SLURM") && !kept.contains(&text.as_ref()))
            || text.starts_with("PMI");
        if of_a_job || kept_from_sbatch(&text) {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a program with `input`, for at most `limit`.
fn ask(
    program: &str,
    arguments: &[&str],
    input: &str,
    exports: &[(String, String)],
    limit: Duration,
) -> Result<Answer, SlurmError> {
    let start = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => SlurmError::Missing { program: program.to_owned() },
        _ => SlurmError::Start { program: program.to_owned(), reason: error.to_string() },
    };
    let mut command = command(program);
    command.args(arguments).envs(exports.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(start)?;
    let (mut stdin, stdout, stderr) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let input = input.to_owned();
    std::thread::spawn(move || {
        // A program that reads nothing closes its end, which is no fault.
        stdin.take().map(|mut it| it.write_all(input.as_bytes()))
    });
    let streams = [reader(stdout), reader(stderr)];
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(start)? {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(SlurmError::Silent { program: program.to_owned(), after: limit });
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let [stdout, stderr] =
        streams.map(|it| it.recv_timeout(Duration::from_secs(1)).unwrap_or_default());
    Ok(Answer { success: status.success(), stdout, stderr })
}

fn reader(stream: Option<impl Read + Send + 'static>) -> std::sync::mpsc::Receiver<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// Whether the programs are here and a controller answers within two seconds.
pub(crate) fn reach() -> Reach {
    let missing: Vec<_> = ["srun", "sbatch"].into_iter().filter(|it| !installed(it)).collect();
    if !missing.is_empty() {
        return Reach::NotInstalled(missing);
    }
    // The lightest question there is; sinfo where scontrol is missing.
    let (program, arguments): (_, &[&str]) =
        if installed("scontrol") { ("scontrol", &["ping"]) } else { ("sinfo", &["-h", "-s"]) };
    match ask(program, arguments, "", &[], PATIENCE) {
        Ok(answer) if answer.success => Reach::Answers,
        Ok(answer) => Reach::Silent(first_line(&(answer.stdout + &answer.stderr))),
        Err(error) => Reach::Silent(error.to_string()),
    }
}

/// The cluster's name, if it can be asked for.
pub(crate) fn cluster_name() -> Option<String> {
    let answer = ask("scontrol", &["show", "config"], "", &[], PATIENCE).ok()?;
    cluster_of(&answer.stdout)
}

/// `ClusterName` among the lines of `scontrol show config`.
pub fn cluster_of(said: &str) -> Option<String> {
    let line = said.lines().find(|it| it.trim_start().starts_with("ClusterName"))?;
    Some(line.split_once('=')?.1.trim().to_owned())
}

/// Where a node is in the network: Slurm's name for it need not be one that resolves, and the
/// controller knows its address.
pub(crate) fn node_address(node: &str) -> Result<String, SlurmError> {
    let answer = ask("scontrol", &["--oneliner", "show", "node", node], "", &[], LOOKUP)?;
    address(&answer.stdout).ok_or_else(|| SlurmError::NoNode(node.to_owned()))
}

/// `NodeAddr` in a line of `scontrol --oneliner show node`.
pub fn address(said: &str) -> Option<String> {
    let address = said.split_whitespace().find_map(|word| word.strip_prefix("NodeAddr="))?;
    (!address.is_empty()).then(|| address.to_owned())
}

/// Whether a job, `12` or `10_3`, runs; `None` where Slurm does not say.
pub(crate) fn job_runs(address: &str) -> Option<bool> {
    let arguments = ["--noheader", "--states=all", "--format=%T", "--jobs", address];
    let answer = ask("squeue", &arguments, "", &[], LOOKUP).ok()?;
    if answer.success {
        Some(any_runs(&answer.stdout))
    } else {
        answer.stderr.contains("Invalid job id").then_some(false)
    }
}

/// Whether one of the states that squeue printed is that of a job that holds nodes.
fn any_runs(said: &str) -> bool {
    said.lines()
        .filter_map(|line| line.trim().parse::<JobState>().ok())
        .any(|it| it.meaning() == Meaning::Active)
}

/// The cluster's partitions; none where sinfo does not say.
pub(crate) fn partitions() -> Vec<Partition> {
    let answer = ask("sinfo", &["-h", "-o", "%R|%l|%G|%D"], "", &[], PATIENCE);
    answer.map(|it| parse_partitions(&it.stdout)).unwrap_or_default()
}

/// Asks Slurm whether it would take the script, and when it would start. Nothing is submitted.
pub(crate) fn test_only(spec: &JobSpec, script: &str) -> Result<String, SlurmError> {
    let answer = ask("sbatch", &["--test-only"], script, &[], SUBMISSION)?;
    let said = answer.stdout + &answer.stderr;
    if answer.success { Ok(estimate(&said)) } else { Err(refused(spec, &said)) }
}

/// Submits a script.
pub(crate) fn submit(spec: &JobSpec, script: &str) -> Result<Submitted, SlurmError> {
    let answer = ask("sbatch", &["--parsable"], script, &spec.exports, SUBMISSION)?;
    if !answer.success {
        return Err(refused(spec, &(answer.stdout + &answer.stderr)));
    }
    job_id(&answer.stdout).ok_or(SlurmError::NoJobId { said: answer.stdout })
}

/// Reads the job's number from what sbatch prints: `12`, `12;cluster`, `Submitted batch job 12 on
/// cluster c`, with banners of the site around it.
pub fn job_id(text: &str) -> Option<Submitted> {
    text.lines().rev().find_map(|line| {
        let line = line.trim();
        let (number, cluster) = match line.strip_prefix("Submitted batch job ") {
            Some(rest) => match rest.split_once(" on cluster ") {
                Some((number, cluster)) => (number, Some(cluster)),
                None => (rest, None),
            },
            None => line
                .split_once(';')
                .map_or((line, None), |(number, cluster)| (number, Some(cluster))),
        };
        let id = number
            .trim()
            .parse()
            .ok()
            .filter(|_| number.trim().bytes().all(|it| it.is_ascii_digit()))?;
        Some(Submitted {
            id,
            cluster: cluster.map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()),
        })
    })
}

/// Reads what sinfo prints for `%R|%l|%G`.
pub fn parse_partitions(text: &str) -> Vec<Partition> {
    let mut found: Vec<Partition> = Vec::new();
    for line in text.lines() {
        let mut fields = line.split('|').map(str::trim);
        let (Some(name), Some(limit), Some(gres)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let gpus = gpus(gres);
        let nodes = fields.next().and_then(|it| it.parse::<usize>().ok());
        match found.iter_mut().find(|it| it.name == name) {
            Some(partition) => {
                partition.gpus_per_node = partition.gpus_per_node.max(gpus);
                partition.nodes =
                    partition.nodes.zip(nodes).map(|(one, more)| one.saturating_add(more));
            }
            None => {
                found.push(Partition {
                    name: name.to_owned(),
                    time_limit: limit.parse().ok(),
                    gpus_per_node: gpus,
                    nodes,
                });
            }
        }
    }
    found
}

/// GPUs in a node's gres: `gpu:a100:8(S:0-1),nvme:1` has 8.
fn gpus(gres: &str) -> Option<usize> {
    let items = gres.split(',').filter(|it| it.starts_with("gpu"));
    let counts =
        items.filter_map(|it| it.split('(').next()?.rsplit(':').next()?.parse::<usize>().ok());
    counts.reduce(usize::saturating_add)
}

/// What is wrong with a job before Slurm sees it, by what its partition has: Slurm itself lets some
/// of these wait for ever.
pub fn misfit(spec: &JobSpec, partitions: &[Partition]) -> Option<SlurmError> {
    // Names in a list may each be right; only a single one is judged.
    let wanted = spec.partition.as_deref().filter(|it| !it.contains(','))?;
    let refuse = |said: String, fix: String| Some(SlurmError::Refused { said, fix });
    let Some(partition) = partitions.iter().find(|it| it.name == wanted) else {
        return if partitions.is_empty() {
            None
        } else {
            refuse(format!("there is no partition {wanted:?}"), partition_fix(wanted, partitions))
        };
    };
    let asked = spec.shape.gpus_per_node;
    if let Some(most) = partition.gpus_per_node.filter(|most| asked > *most) {
        let said = format!("no node of partition {wanted} has {asked} GPUs, the most is {most}");
        return refuse(
            said,
            format!("give GPUS_PER_NODE={most}, and the ranks spread over more nodes"),
        );
    }
    if let (Some(asked), Some(there)) = (spec.shape.nodes, partition.nodes)
        && asked > there
    {
        let (ranks, each) = (spec.shape.ranks, spec.shape.gpus_per_node);
        let missing = asked - there;
        let plural = if missing == 1 { "" } else { "s" };
        let said = format!(
            "{ranks} GPUs with {each} on a node take {asked} nodes, and partition {wanted} has \
             {there}: {missing} node{plural} more would be needed"
        );
        let most = partition.gpus_per_node.unwrap_or(each) * there;
        return refuse(
            said,
            format!("give GPUS={} or less, or another partition", most.min(each * there)),
        );
    }
    match (spec.time_limit(), partition.time_limit) {
        (Some(TimeLimit::Of(asked)), Some(TimeLimit::Of(most))) if asked > most => {
            let (asked, most) = (TimeLimit::Of(asked), TimeLimit::Of(most));
            let said = format!("--time={asked} is more than partition {wanted} allows, {most}");
            refuse(said, format!("give --time={most}; a training goes on by itself after it"))
        }
        _ => None,
    }
}

fn partition_fix(wanted: &str, partitions: &[Partition]) -> String {
    let names: Vec<&str> = partitions.iter().map(|it| it.name.as_str()).collect();
    let alike = names.iter().filter(|it| it.len().abs_diff(wanted.len()) <= 2 && it.len() <= 100);
    let near =
        alike.map(|it| (strsim::damerau_levenshtein(it, wanted), it)).min().filter(|it| it.0 <= 2);
    let near = near.map(|(_, it)| format!(" (did you mean {it}?)")).unwrap_or_default();
    format!("the partitions here are {}{near}", names.join(", "))
}

/// Slurm's own message, with what to do about it.
pub fn refused(spec: &JobSpec, said: &str) -> SlurmError {
    let line = said
        .lines()
        .map(str::trim)
        .rfind(|it| it.contains("rror") || it.contains("ailure"))
        .unwrap_or_else(|| said.trim());
    let line = [
        "sbatch: error: ",
        "srun: error: ",
        "Batch job submission failed: ",
        "allocation failure: ",
    ]
    .iter()
    .fold(line, |line, prefix| line.strip_prefix(prefix).unwrap_or(line));
    let text = said.to_ascii_lowercase();
    let fixes: [(&str, String); 14] = [
        (
            "partition name",
            format!(
                "`sinfo` lists the partitions; PARTITION is {:?}",
                spec.partition.as_deref().unwrap_or("-")
            ),
        ),
        (
            "node configuration is not available",
            match spec.shape.gpus_per_node {
                0 => "lower --ntasks, CPUS_PER_TASK or --mem (`sinfo -o '%P %c %m'` shows the \
                      nodes)"
                    .to_owned(),
                asked => format!(
                    "no node has {asked} GPUs with {} CPUs: lower GPUS_PER_NODE or CPUS_PER_TASK \
                     (`sinfo -o '%P %G %c %m'` shows the nodes)",
                    spec.shape.ranks_per_node * spec.cpus_per_task
                ),
            },
        ),
        (
            "invalid account",
            "name one of yours with --account (`sacctmgr show associations user=$USER` lists \
             them)"
                .to_owned(),
        ),
        ("invalid qos", "name one of yours with --qos (`sacctmgr show qos` lists them)".to_owned()),
        ("time limit", "lower --time (`sinfo -o '%P %l'` shows the limits)".to_owned()),
        (
            "qos",
            "a limit of your account or QOS is reached: fewer GPUs, another --qos, or wait for \
             your other jobs"
                .to_owned(),
        ),
        (
            "generic resource",
            "ask for GPUs in the cluster's way with a site profile, `gpu: {dialect: …, type: …}`"
                .to_owned(),
        ),
        (
            "feature",
            "name features of nodes with --constraint (`sinfo -o '%P %f'` lists them)".to_owned(),
        ),
        (
            "reservation",
            "name a reservation of yours with --reservation (`scontrol show reservation` lists \
             them)"
                .to_owned(),
        ),
        ("dependency", "name jobs that exist with --dependency".to_owned()),
        (
            "node name",
            "name nodes of the partition with --nodelist and --exclude (`sinfo -N` lists them)"
                .to_owned(),
        ),
        (
            "node count",
            "lower GPUS or raise GPUS_PER_NODE: the partition allows fewer nodes".to_owned(),
        ),
        ("memory", "lower --mem (`sinfo -o '%P %m'` shows what nodes have)".to_owned()),
        (
            "unrecognized option",
            "sbatch does not know this option: look at --slurm, SBATCH_ARGS and the site profile"
                .to_owned(),
        ),
    ];
    if text.contains("contact") {
        return SlurmError::NoContact(line.to_owned());
    }
    let fix = fixes.into_iter().find(|(key, _)| text.contains(key)).map(|(_, fix)| fix);
    let fix = fix.unwrap_or_else(|| {
        "`segslurm train … --dry-run` shows everything that was asked for".to_owned()
    });
    SlurmError::Refused { said: line.to_owned(), fix }
}

/// `sbatch: Job 4 to start at 2026-… using 8 processors on nodes n1 in partition dev`, without the
/// number, which nobody has.
pub fn estimate(said: &str) -> String {
    let line = said.lines().find(|it| it.contains("to start at")).unwrap_or_default();
    line.split_once("to start at").map_or_else(
        || "Slurm would take the job".to_owned(),
        |(_, rest)| format!("would start at{rest}"),
    )
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|it| !it.is_empty()).unwrap_or("no answer").to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::job::{Flags, JobKind};
    use super::*;

    fn spec(flags: &[(&'static str, &str)]) -> JobSpec {
        let values = flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        JobSpec::resolve(
            JobKind::Train,
            "dve",
            "x",
            &Flags { values, slurm: Vec::new() },
            &|_| None,
            None,
        )
        .expect("a job")
    }

    #[test]
    fn a_job_runs_where_one_of_its_states_holds_nodes() {
        assert!(any_runs("RUNNING\n") && any_runs("COMPLETED\nCOMPLETING\n"));
        assert!(!any_runs("") && !any_runs("PENDING\n") && !any_runs("COMPLETED\nTIMEOUT\n"));
    }

    #[test]
    fn a_nodes_address_is_read_from_its_line() {
        let said = "NodeName=n1 Arch=x86_64 Gres=gpu:8 NodeAddr=10.0.0.7 NodeHostName=gpu7 \
                    Port=16576 Version=22.05.8 State=IDLE\n";
        assert_eq!(address(said).as_deref(), Some("10.0.0.7"));
        assert_eq!(address("Node zz not found"), None);
    }

    #[test]
    fn job_ids_are_read_through_banners_and_cluster_names() {
        let id = |text: &str| job_id(text).map(|it| (it.id, it.cluster.unwrap_or_default()));
        assert_eq!(id("12\n"), Some((12, String::new())));
        assert_eq!(id("12;big\n"), Some((12, "big".to_owned())));
        assert_eq!(id("*** Welcome ***\nBudget: 1000 h left\n\n12\n"), Some((12, String::new())));
        assert_eq!(
            id("Submitted batch job 7 on cluster big\nHave a nice day\n"),
            Some((7, "big".to_owned()))
        );
        assert_eq!(id("Submitted batch job 7\n"), Some((7, String::new())));
        for text in ["", "welcome", "job accepted: +5", "-3"] {
            assert_eq!(id(text), None, "{text:?}");
        }
    }

    #[test]
    fn partitions_say_their_limits_and_gpus() {
        let found = parse_partitions(
            "dev|infinite|gpu:8\ndev|infinite|gpu:a100:4(S:0-1),nvme:2\nshort|10:00|(null)\n",
        );
        assert_eq!(found[0].gpus_per_node, Some(8));
        assert_eq!(
            parse_partitions("a|1|gpu:18446744073709551615,gpu:1")[0].gpus_per_node,
            Some(usize::MAX)
        );
        assert_eq!(
            found[1],
            Partition {
                name: "short".to_owned(),
                time_limit: "10:00".parse().ok(),
                gpus_per_node: None,
                nodes: None
            }
        );
        let counted = parse_partitions("dev|infinite|gpu:8|2\ndev|infinite|gpu:4|1\n");
        assert_eq!((counted[0].gpus_per_node, counted[0].nodes), (Some(8), Some(3)));
    }

    #[test]
    fn what_no_partition_can_hold_is_told_with_its_fix() {
        let partitions = parse_partitions("dev|10:00|gpu:4\n");
        let mut job = spec(&[]);
        let error = misfit(&job, &partitions).expect("unknown").to_string();
        assert!(
            error.contains("no partition \"dve\"; the partitions here are dev (did you mean dev?)"),
            "{error}"
        );
        job.partition = Some("dev".to_owned());
        let error = misfit(&job, &partitions).expect("too many").to_string();
        assert!(
            error.contains(
                "no node of partition dev has 8 GPUs, the most is 4; give GPUS_PER_NODE=4"
            ),
            "{error}"
        );
        let mut job = spec(&[("gpus", "4"), ("time", "20")]);
        job.partition = Some("dev".to_owned());
        let error = misfit(&job, &partitions).expect("too long").to_string();
        assert!(
            error.contains("--time=00:20:00 is more than partition dev allows, 00:10:00"),
            "{error}"
        );
        assert_eq!(misfit(&job, &[]), None);
        let two = parse_partitions("dev|infinite|gpu:8|2\n");
        let mut job = spec(&[("gpus", "24")]);
        job.partition = Some("dev".to_owned());
        let error = misfit(&job, &two).expect("too many nodes").to_string();
        assert!(
            error.contains(
                "24 GPUs with 8 on a node take 3 nodes, and partition dev has 2: 1 node more"
            ),
            "{error}"
        );
        assert!(error.contains("GPUS=16"), "{error}");
    }

    #[test]
    fn slurms_own_words_come_with_a_fix() {
        let error = refused(
            &spec(&[]),
            "sbatch: error: invalid partition specified: dve\nsbatch: error: Batch job submission \
             failed: Invalid partition name specified\n",
        );
        let error = error.to_string();
        assert!(
            error.starts_with(
                "Slurm refuses the job: Invalid partition name specified; `sinfo` lists"
            ),
            "{error}"
        );
        assert_eq!(
            estimate(
                "sbatch: Job 4 to start at 2026-11-25T11:08:32 using 1 processors on nodes n1 in \
                 partition dev"
            ),
            "would start at 2026-11-25T11:08:32 using 1 processors on nodes n1 in partition dev"
        );
    }
}
