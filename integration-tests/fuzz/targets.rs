//! The parsers, one line each in [`TARGETS`]. A target takes an input apart with the very functions
//! that the program uses, and checks what has to hold: what is printed is read back, an error is
//! one line that names its place.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use segslurm::data::{DatasetConfig, read_image, read_label};
use segslurm::testing::checkpoint::Checkpoint;
use segslurm::testing::config::{self, Config};
use segslurm::testing::dist::{DistConfig, Launched, Launcher, overheard};
use segslurm::testing::experiment::Experiment;
use segslurm::testing::port::Port;
use segslurm::testing::slurm::env::StepDaemon;
use segslurm::testing::slurm::job::{Flags, JobKind, JobSpec};
use segslurm::testing::slurm::script::{RankCommand, Template};
use segslurm::testing::slurm::site::Site;
use segslurm::testing::slurm::time::TimeLimit;
use segslurm::testing::slurm::{JobState, Place, client, hostlist, tasks};

use crate::corpus;
use crate::mutate::Form::{self, Bytes, Text};

/// An input, in memory and in a file of its own; `folder` holds what the corpus put there.
pub(crate) struct Case<'a> {
    pub bytes: &'a [u8],
    pub path: &'a Path,
    pub folder: &'a Path,
}

impl Case<'_> {
    fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes).into_owned()
    }
}

/// What was answered, or what must not be.
type Verdict = Result<String, String>;

/// A parser.
pub(crate) struct Target {
    pub name: &'static str,
    pub form: Form,
    /// Inputs of the short round.
    pub short: u64,
    /// Real inputs. They may put files into the folder that they get.
    pub seeds: fn(&Path) -> Vec<Vec<u8>>,
    /// What makes a changed input look whole again, such as checksums.
    pub mend: Option<fn(&mut [u8])>,
    pub run: fn(&Case<'_>) -> Verdict,
}

const fn target(
    name: &'static str,
    form: Form,
    short: u64,
    seeds: fn(&Path) -> Vec<Vec<u8>>,
    run: fn(&Case<'_>) -> Verdict,
) -> Target {
    Target { name, form, short, seeds, mend: None, run }
}

pub(crate) const TARGETS: [Target; 23] = [
    target("yaml", Text, 400, corpus::yaml, |case| config(case, "yaml")),
    target("python", Text, 400, corpus::python, |case| config(case, "py")),
    target("overrides", Text, 400, corpus::overrides, overrides),
    target("experiment", Text, 150, corpus::experiments, |case| config(case, "yaml")),
    target("hostlist", Text, 3000, corpus::hostlists, hosts),
    target("task-counts", Text, 3000, corpus::counts, counts),
    target("time", Text, 3000, corpus::times, time),
    target("slurm-variables", Text, 2000, corpus::slurm_variables, slurm_variables),
    target("launchers", Text, 2000, corpus::launchers, launchers),
    target("site", Text, 1000, corpus::sites, site),
    target("job", Text, 1000, corpus::jobs, job),
    target("slurm-answers", Text, 2000, corpus::answers, answers),
    target("messages", Text, 2000, corpus::messages, |case| Ok(overheard(case.bytes, 2))),
    target("image-list", Text, 500, corpus::image_lists, image_list),
    target("safetensors", Bytes, 500, corpus::safetensors, checkpoint),
    target("safetensors-head", Text, 500, corpus::safetensors_heads, safetensors_head),
    target("pth", Bytes, 300, corpus::pths, checkpoint),
    target("pickle", Bytes, 500, corpus::pickles, pickle),
    Target { mend: Some(corpus::mend_png), ..target("png", Bytes, 500, corpus::pngs, picture) },
    target("png-raw", Bytes, 300, corpus::pngs, picture),
    target("jpeg", Bytes, 300, corpus::jpegs, picture),
    target("pictures", Bytes, 200, corpus::pictures, picture),
    target("tiff-bmp-webp", Bytes, 500, corpus::whole_pictures, picture),
];

/// An error as people see it: a plain line for each thing that is wrong, and nothing about us.
fn told(error: &impl Display) -> Verdict {
    let text = error.to_string();
    if text.trim().is_empty() || text.lines().any(|it| it.trim().is_empty()) {
        return Err("an error, or a line of it, says nothing".into());
    }
    if let Some(character) = text.chars().find(|it| it.is_control() && *it != '\n') {
        return Err(format!("an error has the character {character:?}: {}", cut(&text)));
    }
    if text.contains("fault of segslurm") {
        return Err(format!("an error blames segslurm: {}", cut(&text)));
    }
    // Everything that is wrong is told at once, a line for each, as far as anybody would read.
    let (length, lines) =
        (text.lines().map(|it| it.chars().count()).max().unwrap_or_default(), text.lines().count());
    if length > 4000 || lines > 101 {
        return Err(format!(
            "an error has {lines} lines of up to {length} characters: {}",
            cut(&text)
        ));
    }
    Ok(text)
}

/// An error that begins with its place.
fn told_at(error: &impl Display, places: &[&str]) -> Verdict {
    let text = told(error)?;
    if places.iter().any(|it| text.contains(it)) {
        Ok(text)
    } else {
        Err(format!("an error without its place: {}", cut(&text)))
    }
}

fn cut(text: &str) -> String {
    text.chars().take(300).flat_map(char::escape_debug).collect()
}

/// The answer of a parser, with what it read in few words.
fn answer<T, E: Display>(result: Result<T, E>, read: impl FnOnce(T) -> Verdict) -> Verdict {
    match result {
        Ok(value) => read(value),
        Err(error) => told(&error),
    }
}

/// How large, roughly.
fn size(count: usize) -> u32 {
    count.checked_ilog2().unwrap_or(0)
}

fn config(case: &Case<'_>, extension: &str) -> Verdict {
    let path = case.folder.join(format!("input.{extension}"));
    fs::write(&path, case.bytes).map_err(|error| error.to_string())?;
    match config::load(&path, &[]) {
        Ok(config) => {
            let typed = match Experiment::from_config(&config) {
                Ok(_) => "an experiment".to_owned(),
                Err(error) => told(&error)?,
            };
            printed(case, &config)?;
            Ok(format!("{typed} of {} bytes", "x".repeat(size(config.to_yaml().len()) as usize)))
        }
        Err(error) => told_at(&error, &["input.", "base.", "--cfg-options"]),
    }
}

/// A printed config loads as itself.
fn printed(case: &Case<'_>, config: &Config) -> Result<(), String> {
    let json_lacks = config.to_yaml().contains(".nan") || config.to_yaml().contains(".inf");
    for (name, text) in [("printed.yaml", config.to_yaml()), ("printed.json", config.to_json())] {
        if json_lacks {
            continue;
        }
        let path = case.folder.join(name);
        fs::write(&path, &text).map_err(|error| error.to_string())?;
        match config::load(&path, &[]) {
            Ok(again) if again.root == config.root => {}
            Ok(again) => {
                return Err(format!(
                    "{name} loads as something else: {} is {}",
                    cut(&text),
                    cut(&again.to_json())
                ));
            }
            Err(error) => {
                return Err(format!(
                    "{name} does not load: {}: {}",
                    cut(&error.to_string()),
                    cut(&text)
                ));
            }
        }
    }
    Ok(())
}

fn overrides(case: &Case<'_>) -> Verdict {
    let arguments: Vec<String> = case.text().split('\n').map(str::to_owned).collect();
    match config::load(&case.folder.join("base.yaml"), &arguments) {
        Ok(config) => {
            printed(case, &config)?;
            Ok(format!("a config of {}", "x".repeat(size(config.to_json().len()) as usize)))
        }
        Err(error) => told_at(&error, &["--cfg-options", "base.yaml"]),
    }
}

fn hosts(case: &Case<'_>) -> Verdict {
    answer(hostlist::expand(&case.text()), |hosts| {
        let again = hostlist::expand(&hosts.join(","));
        if again.as_ref() == Ok(&hosts) {
            Ok(format!("{} hosts", size(hosts.len())))
        } else {
            Err(format!("read again: {again:?}").chars().take(500).collect())
        }
    })
}

fn counts(case: &Case<'_>) -> Verdict {
    answer(tasks::expand(&case.text()), |counts| {
        let again =
            tasks::expand(&counts.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
        if again.as_ref() == Ok(&counts) {
            Ok(format!("{} counts", size(counts.len())))
        } else {
            Err("the counts written out differ".into())
        }
    })
}

fn time(case: &Case<'_>) -> Verdict {
    answer(case.text().parse::<TimeLimit>(), |limit| {
        if limit.to_string().parse() == Ok(limit) {
            Ok("a time".into())
        } else {
            Err(format!("{limit} is another time"))
        }
    })
}

/// `NAME=value` lines as variables.
fn variables(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn slurm_variables(case: &Case<'_>) -> Verdict {
    let variables = variables(&case.text());
    let var = |name: &str| variables.get(name).cloned();
    let daemon = variables.get("DAEMON").and_then(|title| StepDaemon::parse(title));
    answer(Place::derive(&var, daemon.as_ref()), |place| {
        let sentence = place.to_string();
        answer(place.step(), |step| {
            let chosen = Port::chosen(None, &var, &["MASTER_PORT"]);
            let port =
                answer(chosen, |it| Ok(it.unwrap_or_else(|| step.port()).origin.to_string()))?;
            let address = answer(step.address(), |_| Ok("an address".into()))?;
            let device = answer(step.device(2), |it| Ok(format!("{it:?}")))?;
            let hosts = step.host_of_each().map_or(0, |it| it.len());
            if hosts != 0 && hosts != step.world {
                return Err(format!("{hosts} hosts for {} ranks", step.world));
            }
            Ok(format!("{sentence}; {port}; {address}; {device}; {:?}", step.layout))
        })
    })
}

fn launchers(case: &Case<'_>) -> Verdict {
    let variables = variables(&case.text());
    let var = |name: &str| variables.get(name).cloned();
    let flag = variables.get("FLAG").and_then(|it| it.parse().ok());
    let mut said = Vec::new();
    for launcher in [Launcher::Pytorch, Launcher::Mpi, Launcher::Slurm] {
        said.push(answer(Launched::read(launcher, &var, flag, &DistConfig::default(), 8), |it| {
            if it.rank < it.world && it.local_rank < it.local_world && it.local_world <= it.world {
                Ok(format!("{launcher:?}"))
            } else {
                Err(format!("{it:?}"))
            }
        })?);
    }
    Ok(said.join("; "))
}

fn site(case: &Case<'_>) -> Verdict {
    match Site::parse(&case.text(), Path::new("site.yaml")) {
        Ok(site) => Ok(format!("{:?}", site.gpu.dialect)),
        Err(error) => told_at(&error, &["site.yaml"]),
    }
}

/// The flags, by lines `--name=value`; other lines are variables.
fn job(case: &Case<'_>) -> Verdict {
    const NAMES: [&str; 23] = [
        "gpus",
        "gpus-per-node",
        "cpus-per-task",
        "ntasks",
        "nodes",
        "time",
        "account",
        "qos",
        "mem",
        "array",
        "signal",
        "nodelist",
        "exclude",
        "comment",
        "requeue",
        "no-requeue",
        "exclusive",
        "srun-args",
        "sbatch-args",
        "dependency",
        "container-image",
        "constraint",
        "mail-user",
    ];
    let text = case.text();
    let mut flags = Flags::default();
    for line in text.lines().filter_map(|it| it.strip_prefix("--")) {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        if name == "slurm" {
            flags.slurm.push(value.to_owned());
        } else if let Some(name) = NAMES.iter().find(|it| **it == name) {
            flags.values.insert(name, value.to_owned());
        }
    }
    let variables = variables(&text);
    let var = |name: &str| variables.get(name).filter(|it| !it.is_empty()).cloned();
    let positional =
        |name: &str, default: &str| variables.get(name).map_or(default, String::as_str).to_owned();
    let (partition, name) = (positional("PARTITION", "dev"), positional("JOB_NAME", "job"));
    answer(JobSpec::resolve(JobKind::Train, &partition, &name, &flags, &var, None), |spec| {
        let ranks = RankCommand {
            program: "segslurm".into(),
            arguments: vec!["train".into(), positional("CONFIG", "a.yaml")],
            directory: "/home/me".into(),
            work_dir: "work_dirs/a".into(),
            log_dir: positional("LOG_DIR", "logs"),
        };
        let script = answer(ranks.render(&spec, &Template::batch(JobKind::Train)), |it| {
            Ok(format!("{} lines", size(it.lines().count())))
        })?;
        let misfit = client::misfit(&spec, &client::parse_partitions("dev|10:00|gpu:4\n"))
            .map_or(Ok("fits".into()), |it| told(&it))?;
        Ok(format!("{} {script} {misfit} {}", spec.shape.describe(), ranks.srun(&spec).len()))
    })
}

fn answers(case: &Case<'_>) -> Verdict {
    let text = case.text();
    let id = client::job_id(&text)
        .map_or("no id", |it| if it.cluster.is_some() { "an id and a cluster" } else { "an id" });
    let partitions = client::parse_partitions(&text);
    let state = answer(text.parse::<JobState>(), |it| {
        if it.name().parse() == Ok(it) { Ok(it.name().into()) } else { Err(it.name().into()) }
    })?;
    let spec = JobSpec::resolve(JobKind::Train, "dev", "job", &Flags::default(), &|_| None, None)
        .map_err(|it| it.to_string())?;
    let refused = told(&client::refused(&spec, &text))?;
    let misfit = client::misfit(&spec, &partitions).map_or(Ok("fits".into()), |it| told(&it))?;
    let estimate = client::estimate(&text);
    let daemon = StepDaemon::parse(&text).map_or("no daemon", |_| "a daemon");
    let node = client::address(&text).is_some();
    let cluster = client::cluster_of(&text).is_some();
    Ok(format!(
        "{id} {} {state} {refused} {misfit} {estimate} {daemon} {node} {cluster}",
        size(partitions.len())
    ))
}

fn image_list(case: &Case<'_>) -> Verdict {
    let text = format!(
        "type: BaseSegDataset\nann_file: '{}'\ndata_root: '{}'\n",
        case.path.display(),
        case.folder.display()
    );
    let dataset: DatasetConfig = config::parse_str(&text).map_err(|error| error.to_string())?;
    answer(dataset.init(), |dataset| {
        let last = dataset.paths(dataset.len() - 1);
        Ok(format!("{} names {}", size(dataset.len()), last.1.is_some()))
    })
}

fn read(path: &Path) -> Verdict {
    answer(Checkpoint::read(path), |it| {
        Ok(format!(
            "{} tensors, {} classes, {}",
            it.model.len(),
            it.meta.dataset_meta.classes.len(),
            it.optimizer.len()
        ))
    })
}

fn checkpoint(case: &Case<'_>) -> Verdict {
    read(case.path)
}

/// The head of a safetensors file, with its length before it and tensors behind it.
fn safetensors_head(case: &Case<'_>) -> Verdict {
    let path = case.folder.join("input.safetensors");
    let file = [&(case.bytes.len() as u64).to_le_bytes(), case.bytes, &[1; 64]].concat();
    fs::write(&path, file).map_err(|error| error.to_string())?;
    read(&path)
}

fn pickle(case: &Case<'_>) -> Verdict {
    let path: PathBuf = case.folder.join("input.pth");
    fs::write(&path, corpus::archive(case.bytes)).map_err(|error| error.to_string())?;
    read(&path)
}

fn picture(case: &Case<'_>) -> Verdict {
    let image =
        answer(read_image(case.path), |it| Ok(format!("{}x{}", size(it.height), size(it.width))))?;
    let label = answer(read_label(case.path), |it| {
        if it.data.len() == it.height * it.width {
            Ok("labels".into())
        } else {
            Err(format!("{} labels", it.data.len()))
        }
    })?;
    Ok(format!("{image}; {label}"))
}
