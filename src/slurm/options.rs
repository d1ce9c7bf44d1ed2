//! Every option of a job, one row each: the command line, the variables, the site profile, the help
//! and the documentation are made from this table or held to it.

use super::hostlist;
use super::time::TimeLimit;

/// One option.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// The flag without its dashes, which is Slurm's long name where the option is passed on. A
    /// site profile has it with `_`.
    pub flag: &'static str,
    /// The variable that says the same.
    pub variable: Option<&'static str>,
    /// Whether a site profile may say it.
    pub site: bool,
    pub kind: ValueKind,
    pub stage: Stage,
    pub help: &'static str,
    /// What holds where nobody says anything, for people.
    pub default: &'static str,
    /// What is wrong with a value.
    pub check: fn(&str) -> Result<(), String>,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueKind {
    /// A whole number.
    Number(&'static str),
    /// A text, called so in the help.
    Text(&'static str),
    /// Said or not; there may be a row `no-…` that says the contrary.
    Switch,
    /// A switch that may have a text.
    SwitchOr(&'static str),
}

/// What becomes of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The job's shape and its environment are made of it.
    Shape,
    /// sbatch and srun get it.
    Job,
    /// sbatch gets it: srun does not know it, or it means nothing there.
    Batch,
    /// The srun inside the job gets it.
    Step,
}

impl Row {
    const fn new(
        flag: &'static str,
        variable: Option<&'static str>,
        kind: ValueKind,
        stage: Stage,
        help: &'static str,
    ) -> Self {
        let check = match kind {
            ValueKind::Switch => anything,
            _ => text,
        };
        Self { flag, variable, site: true, kind, stage, help, default: "", check }
    }

    const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    const fn checked(self, check: fn(&str) -> Result<(), String>) -> Self {
        Self { check, ..self }
    }

    /// Said for one job, never for a whole cluster.
    const fn of_one_job(self) -> Self {
        Self { site: false, ..self }
    }

    /// Its variable, if that is one of sbatch's own; SBATCH_ARGS only looks like one.
    pub(crate) fn of_sbatch(&self) -> Option<&'static str> {
        self.variable.filter(|it| it.starts_with("SBATCH_") && self.flag != "sbatch-args")
    }

    /// The key of a site profile.
    pub(crate) fn key(&self) -> String {
        self.flag.replace('-', "_")
    }

    /// The help with what else decides: `Time limit [SBATCH_TIMELIMIT]`.
    pub(crate) fn described(&self) -> String {
        let sources = match (self.variable, self.default) {
            (None, "") => return self.help.to_owned(),
            (Some(variable), "") => variable.to_owned(),
            (None, default) => default.to_owned(),
            (Some(variable), default) => format!("{variable}, else {default}"),
        };
        format!("{} [{sources}]", self.help)
    }
}

use Stage::{Batch, Job, Shape, Step};
use ValueKind::{Number, Switch, SwitchOr, Text};

/// All options, in the order of the help.
pub(crate) const OPTIONS: [Row; 27] = [
    Row::new("gpus", Some("GPUS"), Number("N"), Shape, "GPUs, and ranks; 0 for a job on the CPU")
        .default("8 for training, 4 for a test")
        .of_one_job(),
    Row::new("gpus-per-node", Some("GPUS_PER_NODE"), Number("N"), Shape, "GPUs of one node")
        .default("8, or GPUS if that is less"),
    Row::new("cpus-per-task", Some("CPUS_PER_TASK"), Number("N"), Shape, "CPUs of one rank")
        .default("5"),
    Row::new("ntasks", None, Number("N"), Shape, "Ranks of a job on the CPU, with GPUS=0")
        .default("1")
        .of_one_job(),
    Row::new(
        "srun-args",
        Some("SRUN_ARGS"),
        Text("ARGS"),
        Shape,
        "More options for srun, in one argument",
    )
    .checked(anything),
    Row::new(
        "sbatch-args",
        Some("SBATCH_ARGS"),
        Text("ARGS"),
        Shape,
        "More options for sbatch, in one argument; they count with --batch",
    )
    .checked(anything),
    Row::new(
        "master-port",
        Some("MASTER_PORT"),
        Text("PORT"),
        Shape,
        "The port where the ranks meet",
    )
    .default("one of the job's own")
    .checked(port)
    .of_one_job(),
    Row::new(
        "cuda-visible-devices",
        Some("CUDA_VISIBLE_DEVICES"),
        Text("LIST"),
        Shape,
        "GPUs to use where the cluster does not manage them, as `gpu: {dialect: none}` of its \
         profile says",
    )
    .of_one_job(),
    Row::new(
        "time",
        Some("SBATCH_TIMELIMIT"),
        Text("TIME"),
        Job,
        "Time limit: minutes, HH:MM:SS or D-HH:MM:SS",
    )
    .checked(time),
    Row::new("qos", Some("SBATCH_QOS"), Text("NAME"), Job, "Quality of service").checked(word),
    Row::new("account", Some("SBATCH_ACCOUNT"), Text("NAME"), Job, "The account that pays")
        .checked(word),
    Row::new("reservation", Some("SBATCH_RESERVATION"), Text("NAME"), Job, "Reserved nodes to use")
        .checked(word),
    Row::new(
        "constraint",
        Some("SBATCH_CONSTRAINT"),
        Text("LIST"),
        Job,
        "Features that nodes must have",
    ),
    Row::new("nodelist", None, Text("HOSTS"), Job, "Nodes to use, such as gpu[01-03]")
        .checked(hosts),
    Row::new("exclude", None, Text("HOSTS"), Job, "Nodes to avoid").checked(hosts),
    Row::new(
        "exclusive",
        Some("SBATCH_EXCLUSIVE"),
        SwitchOr("WHOM"),
        Job,
        "Share nodes with no other job",
    )
    .checked(exclusive),
    Row::new(
        "mem",
        Some("SBATCH_MEM_PER_NODE"),
        Text("SIZE"),
        Job,
        "Memory of a node, such as 64G",
    )
    .checked(memory),
    Row::new("mail-type", None, Text("EVENTS"), Job, "When to send mail: END, FAIL, …"),
    Row::new("mail-user", None, Text("ADDRESS"), Job, "Whom to send it to"),
    Row::new(
        "comment",
        Some("SBATCH_COMMENT"),
        Text("TEXT"),
        Job,
        "A remark that Slurm keeps with the job",
    ),
    Row::new("dependency", None, Text("LIST"), Job, "Jobs to wait for, such as afterok:123")
        .of_one_job(),
    Row::new(
        "array",
        Some("SBATCH_ARRAY_INX"),
        Text("INDICES"),
        Batch,
        "Several jobs at once, such as 0-7; each has its own folder in the work dir",
    )
    .checked(array)
    .of_one_job(),
    Row::new(
        "requeue",
        Some("SBATCH_REQUEUE"),
        Switch,
        Shape,
        "Put the job back into the queue when its time ends",
    )
    .default("for training"),
    Row::new(
        "no-requeue",
        Some("SBATCH_NO_REQUEUE"),
        Switch,
        Shape,
        "End for good when the time ends",
    )
    .default("for a test")
    .of_one_job(),
    Row::new(
        "signal",
        Some("SBATCH_SIGNAL"),
        Text("SIGNAL@SECONDS"),
        Job,
        "When the ranks are told to save",
    )
    .default("USR1@120, two minutes before the time limit, for training")
    .checked(signal),
    Row::new(
        "container-image",
        None,
        Text("IMAGE"),
        Step,
        "A container for the ranks, where the cluster has pyxis",
    ),
    Row::new(
        "container-mounts",
        None,
        Text("LIST"),
        Step,
        "Folders to mount in it, such as /data:/data",
    ),
];

/// The row of a flag.
///
/// # Panics
/// For a flag without a row, which only code of this module's neighbours can name.
pub(crate) fn row(flag: &str) -> &'static Row {
    OPTIONS.iter().find(|it| it.flag == flag).unwrap_or_else(|| panic!("no row for --{flag}"))
}

/// The row of a site profile's key.
pub(crate) fn of_site(key: &str) -> Option<&'static Row> {
    OPTIONS.iter().find(|it| it.site && it.key() == key)
}

/// Options of Slurm's that the job's shape decides.
pub(crate) const DECIDED: [&str; 20] = [
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

/// Whether sbatch must not see this variable: it would change what was decided here, and is read
/// here where it has a row.
pub(crate) fn kept_from_sbatch(variable: &str) -> bool {
    const DECIDED: [&str; 12] = [
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
    DECIDED.contains(&variable) || OPTIONS.iter().any(|it| it.of_sbatch() == Some(variable))
}

#[expect(clippy::unnecessary_wraps, reason = "one of the checks of a row")]
fn anything(_: &str) -> Result<(), String> {
    Ok(())
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

fn port(value: &str) -> Result<(), String> {
    match value.trim().parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => Err("expected a port, 1 to 65535".to_owned()),
    }
}

fn time(value: &str) -> Result<(), String> {
    value.parse::<TimeLimit>().map(drop).map_err(|_| {
        "expected minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS or UNLIMITED".to_owned()
    })
}

fn hosts(value: &str) -> Result<(), String> {
    hostlist::expand(value)
        .map(drop)
        .map_err(|error| format!("malformed host list: {}", error.reason))
}

fn exclusive(value: &str) -> Result<(), String> {
    if ["", "user", "mcs", "topo"].contains(&value) {
        Ok(())
    } else {
        Err("expected nothing, user, mcs or topo".to_owned())
    }
}

fn memory(value: &str) -> Result<(), String> {
    let digits = value.trim_end_matches(|it: char| "KMGTkmgt".contains(it));
    let number = !digits.is_empty()
        && digits.bytes().all(|it| it.is_ascii_digit())
        && value.len() - digits.len() <= 1;
    if number {
        Ok(())
    } else {
        Err("expected a number with K, M, G or T, such as 64G; 0 for all of a node".to_owned())
    }
}

fn array(value: &str) -> Result<(), String> {
    let plain = value.chars().all(|it| it.is_ascii_digit() || "-,:%".contains(it));
    let ends = value.starts_with(|it: char| it.is_ascii_digit())
        && value.ends_with(|it: char| it.is_ascii_digit());
    if plain && ends {
        Ok(())
    } else {
        Err("expected indices such as 0-7, 1,3,5 or 0-15%4".to_owned())
    }
}

fn signal(value: &str) -> Result<(), String> {
    let expected = || "expected SIGNAL@SECONDS, such as USR1@120".to_owned();
    let (flags, rest) = value.split_once(':').map_or(("", value), |(flags, rest)| (flags, rest));
    let (name, seconds) =
        rest.split_once('@').map_or((rest, None), |(name, seconds)| (name, Some(seconds)));
    if seconds.is_some_and(|it| it.parse::<u16>().is_err())
        || name.is_empty()
        || !flags.chars().all(|it| "RB".contains(it))
    {
        return Err(expected());
    }
    if flags.contains('B') {
        return Err("B: signals the batch shell alone, and the ranks would not save; leave it out"
            .to_owned());
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

    /// The table of docs/slurm.md.
    fn documented() -> String {
        let row = |it: &Row| {
            let name = |name: &str| format!("`{name}`");
            let flag = match it.kind {
                Switch => format!("--{}", it.flag),
                Number(value) | Text(value) => format!("--{} {value}", it.flag),
                SwitchOr(value) => format!("--{}[={value}]", it.flag),
            };
            let variable = it.variable.map(name).unwrap_or_default();
            let key = if it.site { name(&it.key()) } else { String::new() };
            format!(
                "| {} | {variable} | {key} | {} | {} |",
                name(&flag),
                it.help.replace('|', "\\|"),
                it.default
            )
        };
        let head = "| option | variable | site profile | what | default |\n|---|---|---|---|---|"
            .to_owned();
        std::iter::once(head).chain(OPTIONS.iter().map(row)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_documentation_has_every_row() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let page = std::fs::read_to_string(root.join("docs/slurm.md")).expect("the page");
        assert!(
            page.contains(&documented()),
            "docs/slurm.md should have this table:\n{}",
            documented()
        );
        let example =
            std::fs::read_to_string(root.join("slurm/sites/example.yaml")).expect("the example");
        let absent: Vec<_> = OPTIONS.iter().filter(|it| it.site).map(Row::key).collect();
        let absent: Vec<_> =
            absent.into_iter().filter(|it| !example.contains(it.as_str())).collect();
        assert!(absent.is_empty(), "slurm/sites/example.yaml does not name {absent:?}");
    }

    #[test]
    fn no_two_rows_share_a_flag_or_a_variable() {
        for (index, it) in OPTIONS.iter().enumerate() {
            let clash = |other: &&Row| {
                other.flag == it.flag || (it.variable.is_some() && other.variable == it.variable)
            };
            assert_eq!(OPTIONS[..index].iter().find(clash).map(|it| it.flag), None, "{}", it.flag);
        }
    }

    #[test]
    fn sbatch_sees_nothing_that_was_decided_here() {
        assert!(
            ["SBATCH_QOS", "SBATCH_GRES", "SBATCH_NO_REQUEUE"].into_iter().all(kept_from_sbatch)
        );
        assert!(!["SBATCH_ARGS", "SBATCH_WAIT", "GPUS", "PATH"].into_iter().any(kept_from_sbatch));
    }
}
