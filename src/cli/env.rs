//! `segslurm env`: what Slurm's variables make of this process, and which of them say so. In a job
//! it is the first thing to ask.

use std::fmt::Write as _;
use std::time::SystemTime;

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::exit::{Exit, Failure};
use crate::port::Port;
use crate::slurm::env::{Allocation, Job, StepDaemon};
use crate::slurm::{Context, Place, Step};
use crate::terminal;
use crate::variables::Variables;

/// Show who this process is to Slurm: rank, world, nodes, meeting place, GPU, and from which
/// variable each is known
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The form to print it in
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(crate) fn run(args: &Args, variables: Variables) -> Result<Exit, Failure> {
    let report = Report::of(variables, StepDaemon::of_this_process().as_ref());
    let text = match args.format {
        Format::Text => report.text(),
        Format::Json => format!("{:#}\n", report.json()),
    };
    terminal::print(text)?;
    match &report.errors[..] {
        [] => Ok(Exit::Done),
        errors => Err(Failure::new(Exit::Usage, errors.join("; "))),
    }
}

/// What is known, line by line.
struct Report<'a> {
    variables: Variables<'a>,
    /// One word for scripts; none where the variables contradict each other.
    context: Option<&'static str>,
    sentence: String,
    facts: Vec<Fact>,
    stale: Vec<&'static str>,
    /// Why `--launcher slurm` would not start here although it should.
    errors: Vec<String>,
}

struct Fact {
    name: &'static str,
    value: Value,
    /// The variables that say it, with their values.
    from: String,
}

impl<'a> Report<'a> {
    fn of(variables: Variables<'a>, daemon: Option<&StepDaemon>) -> Self {
        let mut report = Self {
            variables,
            context: None,
            sentence: String::new(),
            facts: Vec::new(),
            stale: Vec::new(),
            errors: Vec::new(),
        };
        match Place::derive(variables, daemon) {
            Err(error) => {
                "the variables of Slurm do not fit together".clone_into(&mut report.sentence);
                report.errors.push(error.to_string());
            }
            Ok(place) => {
                report.sentence = place.to_string();
                report.stale.clone_from(&place.stale);
                let (word, instead) = match &place.context {
                    Context::Step(_) => ("step", None),
                    Context::BatchShell(_) => ("batch-shell", place.clone().step().err()),
                    Context::AllocationShell(_) => ("allocation-shell", place.clone().step().err()),
                    Context::Outside => ("outside", None),
                };
                report.context = Some(word);
                match place.context {
                    Context::Step(step) => report.step(&step),
                    Context::BatchShell(it) | Context::AllocationShell(it) => {
                        report.allocation(&it);
                    }
                    Context::Outside => {}
                }
                if let Some(error) = instead {
                    report.fact("to_train", json!(error.to_string()), &[]);
                }
            }
        }
        report
    }

    /// Adds a line; of `names` those that are set are shown with their values.
    fn fact(&mut self, name: &'static str, value: Value, names: &[&str]) {
        let shown = |name: &&str| {
            (self.variables)(name).filter(|it| !it.is_empty()).map(|it| format!("{name}={it}"))
        };
        let from = names.iter().filter_map(shown).collect::<Vec<_>>().join(" ");
        self.facts.push(Fact { name, value, from });
    }

    fn job(&mut self, job: &Job) {
        let array: &[&str] = if job.array.is_some() {
            &["SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"]
        } else {
            &["SLURM_JOB_ID"]
        };
        self.fact("job", json!(job.address), array);
        self.fact("job_id", json!(job.id), &["SLURM_JOB_ID"]);
        self.fact("job_name", json!(job.name), &["SLURM_JOB_NAME"]);
        if let Some(array) = &job.array {
            self.fact("array_element", json!(array.task), &["SLURM_ARRAY_TASK_ID"]);
        }
        self.fact("restart", json!(job.restart), &["SLURM_RESTART_COUNT"]);
        self.fact("end", json!(job.end.map(moment)), &["SLURM_JOB_END_TIME"]);
    }

    fn allocation(&mut self, allocation: &Allocation) {
        self.job(&allocation.job);
        self.fact("hosts", json!(allocation.hosts), &["SLURM_JOB_NODELIST"]);
        self.fact("tasks", json!(allocation.tasks), &["SLURM_NTASKS", "SLURM_TASKS_PER_NODE"]);
    }

    fn step(&mut self, step: &Step) {
        self.job(&step.job);
        self.fact("step", json!(step.step), &["SLURM_STEP_ID"]);
        self.fact("rank", json!(step.rank), &["SLURM_PROCID"]);
        self.fact("world", json!(step.world), &["SLURM_STEP_NUM_TASKS"]);
        self.fact("local_rank", json!(step.local_rank), &["SLURM_LOCALID"]);
        self.fact(
            "local_world",
            json!(step.local_world),
            &["SLURM_STEP_TASKS_PER_NODE", "SLURM_GTIDS"],
        );
        self.fact("node_rank", json!(step.node_rank), &["SLURM_NODEID"]);
        self.fact("node", json!(step.host), &["SLURMD_NODENAME"]);
        self.fact("hosts", json!(step.hosts), &["SLURM_STEP_NODELIST"]);
        let layout = ["SLURM_STEP_TASKS_PER_NODE", "SLURM_DISTRIBUTION", "SLURM_HOSTFILE"];
        self.fact("host_of_each_rank", json!(step.host_of_each()), &layout);
        let place =
            if step.named_address.is_some() { "MASTER_ADDR" } else { "SLURM_STEP_NODELIST" };
        match step.address() {
            Ok(address) => self.fact("address", json!(address), &[place]),
            Err(error) => self.refused("address", &layout, error.to_string()),
        }
        match Port::chosen(None, self.variables, &["MASTER_PORT"]) {
            Ok(chosen) => {
                let port = chosen.unwrap_or_else(|| step.port());
                self.fact("port", json!(port.number), &[]);
                let from = format!("{}; env_cfg.dist_cfg.port goes before it", port.origin);
                self.facts.last_mut().into_iter().for_each(|it| it.from.clone_from(&from));
            }
            Err(error) => self.refused("port", &["MASTER_PORT"], error.to_string()),
        }
        let visible = step.visible_devices.as_ref().map_or(0, Vec::len);
        match step.device(visible) {
            Ok(device) => {
                self.fact("device", json!(device), &["CUDA_VISIBLE_DEVICES", "SLURM_GPUS_ON_NODE"]);
            }
            Err(error) => self.refused(
                "device",
                &["CUDA_VISIBLE_DEVICES", "SLURM_GPUS_ON_NODE"],
                error.to_string(),
            ),
        }
    }

    fn refused(&mut self, name: &'static str, names: &[&str], error: String) {
        self.fact(name, Value::Null, names);
        self.errors.push(error);
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.sentence);
        if !self.stale.is_empty() {
            let _ = writeln!(
                text,
                "not believed, since they are another job's or step's: {}",
                self.stale.join(", ")
            );
        }
        let shown: Vec<_> =
            self.facts.iter().map(|fact| (fact.name, plain(&fact.value), &fact.from)).collect();
        let width = shown.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        let column = shown
            .iter()
            .map(|(_, value, _)| value.chars().count())
            .filter(|it| *it <= 40)
            .max()
            .unwrap_or(0);
        for (name, value, from) in shown {
            let _ = writeln!(
                text,
                "{}",
                format!("  {name:width$}  {value:column$}  {from}").trim_end()
            );
        }
        text
    }

    fn json(&self) -> Value {
        let mut object = Map::new();
        object.insert("context".to_owned(), json!(self.context));
        object.insert("sentence".to_owned(), json!(self.sentence));
        object.insert("stale".to_owned(), json!(self.stale));
        object.insert("errors".to_owned(), json!(self.errors));
        for fact in &self.facts {
            object.insert(fact.name.to_owned(), json!({ "value": fact.value, "from": fact.from }));
        }
        Value::Object(object)
    }
}

/// A value as people read it.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// UTC, to the second.
fn moment(time: SystemTime) -> Option<String> {
    OffsetDateTime::from(time).format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: &str = "SLURMD_NODENAME=n1 SLURM_GPUS_ON_NODE=2 SLURM_GTIDS=0,1 SLURM_JOB_ID=7 \
                        SLURM_JOB_NAME=pspnet SLURM_JOB_NODELIST=n[1-2] SLURM_LOCALID=1 \
                        SLURM_NODEID=0 SLURM_NTASKS=4 SLURM_PROCID=1 SLURM_STEP_ID=0 \
                        SLURM_STEP_NODELIST=n[1-2] SLURM_STEP_NUM_TASKS=4 \
                        SLURM_STEP_TASKS_PER_NODE=2(x2) CUDA_VISIBLE_DEVICES=4,5 \
                        SLURM_JOB_END_TIME=1700000000 SLURM_RESTART_COUNT=1";

    fn report(variables: &str, changes: &str, read: impl Fn(&Report<'_>) -> String) -> String {
        let find = |text: &str, name: &str| {
            text.split_whitespace().find_map(|it| {
                it.split_once('=')
                    .filter(|(key, _)| *key == name)
                    .map(|(_, value)| value.to_owned())
            })
        };
        let var = |name: &str| find(changes, name).or_else(|| find(variables, name));
        read(&Report::of(&var, None))
    }

    #[test]
    fn a_task_is_shown_with_the_variables_that_say_so() {
        insta::assert_snapshot!(report(STEP, "", |it| it.text()), @r"
        task of a job step: rank 1 of 4 in step 7.0
          job                7                     SLURM_JOB_ID=7
          job_id             7                     SLURM_JOB_ID=7
          job_name           pspnet                SLURM_JOB_NAME=pspnet
          restart            1                     SLURM_RESTART_COUNT=1
          end                2023-11-14T22:13:20Z  SLURM_JOB_END_TIME=1700000000
          step               0                     SLURM_STEP_ID=0
          rank               1                     SLURM_PROCID=1
          world              4                     SLURM_STEP_NUM_TASKS=4
          local_rank         1                     SLURM_LOCALID=1
          local_world        2                     SLURM_STEP_TASKS_PER_NODE=2(x2) SLURM_GTIDS=0,1
          node_rank          0                     SLURM_NODEID=0
          node               n1                    SLURMD_NODENAME=n1
          hosts              n1 n2                 SLURM_STEP_NODELIST=n[1-2]
          host_of_each_rank  n1 n1 n2 n2           SLURM_STEP_TASKS_PER_NODE=2(x2)
          address            n1                    SLURM_STEP_NODELIST=n[1-2]
          port               20007                 the ids of job and step; env_cfg.dist_cfg.port goes before it
          device             1                     CUDA_VISIBLE_DEVICES=4,5 SLURM_GPUS_ON_NODE=2
        ");
    }

    #[test]
    fn shells_are_told_what_to_do_and_strangers_that_they_are_outside() {
        let batch = "SLURM_JOB_ID=8 SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_JOB_NODELIST=n[1-2]";
        let said = report(batch, "", |it| it.text());
        assert!(said.starts_with("batch shell of job 8: one process, not a rank\n"), "{said}");
        assert!(
            said.contains("put srun in front of the command, so that all 4 ranks start"),
            "{said}"
        );
        assert_eq!(report("", "", |it| it.text()), "outside of any Slurm job\n");
        assert!(
            report("", "SLURM_PROCID=3", |it| it.text()).contains("SLURM_PROCID"),
            "what is left over is named"
        );
    }

    #[test]
    fn what_would_be_refused_is_an_error() {
        let errors = |changes: &str| report(STEP, changes, |it| it.errors.join("\n"));
        assert_eq!(errors(""), "");
        assert!(
            errors("SLURM_PROCID=9").contains("SLURM_PROCID=9 contradicts SLURM_STEP_NUM_TASKS=4")
        );
        assert!(errors("SLURM_DISTRIBUTION=arbitrary").contains("MASTER_ADDR"));
        assert!(errors("MASTER_PORT=http").contains("MASTER_PORT"));
        assert!(
            errors("CUDA_VISIBLE_DEVICES=0 SLURM_GPUS_ON_NODE=1")
                .contains("2 ranks on n1 share 1 GPU")
        );
    }

    #[test]
    fn scripts_read_json() {
        let value: Value =
            serde_json::from_str(&report(STEP, "", |it| it.json().to_string())).expect("JSON");
        assert_eq!(
            (&value["context"], &value["rank"]["value"], &value["device"]["value"]),
            (&json!("step"), &json!(1), &json!(1))
        );
        assert_eq!(value["end"]["value"], "2023-11-14T22:13:20Z");
    }
}
