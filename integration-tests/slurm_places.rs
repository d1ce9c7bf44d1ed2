//! Every way in which a process finds itself on a Slurm cluster, on the real one: who it is, or
//! what to do, decided at once.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::cluster;
use crate::harness::{CONFIG, ends_in, program, text};

/// What `segslurm env` says, in every place where it was asked.
struct Asking {
    folder: TempDir,
}

/// One process's answers.
#[derive(Debug)]
struct Answer {
    seconds: f64,
    /// The exit code of `segslurm env`.
    code: i32,
    env: Value,
    error: String,
}

/// Runs `segslurm env` and keeps what it says, how it ends, and how long it takes: the best of
/// three, since the machine is shared with other tests.
const ASK: &str = r#"place=$(mktemp -d "$ASK_FOLDER/XXXXXX")
for try in 1 2 3; do
    start=$(date +%s%N)
    "$ASK_PROGRAM" env --format json >"$place/out" 2>"$place/error"
    echo "$? $(( $(date +%s%N) - start ))" >>"$place/ends"
done
mv "$place/ends" "$place/done""#;

impl Asking {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// Adds to `command`, which starts processes, the shell that asks.
    fn ask<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        self.told(command).args(["bash", "-c", ASK])
    }

    /// `command` knows where to put answers.
    fn told<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("ASK_FOLDER", self.folder.path())
            .env("ASK_PROGRAM", env!("CARGO_BIN_EXE_segslurm"))
    }

    /// All answers, by rank.
    #[track_caller]
    fn answers(&self, expected: usize) -> Vec<Answer> {
        let places = std::fs::read_dir(self.folder.path())
            .expect("the folder")
            .flatten()
            .map(|it| it.path());
        let mut answers: Vec<Answer> =
            places.filter(|it| it.join("done").exists()).map(|it| Answer::read(&it)).collect();
        answers.sort_by_key(|it| it.env["rank"]["value"].as_u64());
        assert_eq!(answers.len(), expected, "{answers:?}");
        for answer in &answers {
            assert!(answer.seconds < 2.0, "{answer:?}");
        }
        answers
    }

    #[track_caller]
    fn answer(&self) -> Answer {
        self.answers(1).remove(0)
    }
}

impl Answer {
    fn read(place: &Path) -> Self {
        let read = |name: &str| std::fs::read_to_string(place.join(name)).expect(name);
        let ends: Vec<(i32, f64)> = read("done")
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(code, time)| {
                (code.parse().expect("a code"), time.parse::<f64>().expect("nanoseconds") / 1e9)
            })
            .collect();
        let seconds = ends.iter().map(|it| it.1).fold(f64::INFINITY, f64::min);
        Self {
            seconds,
            code: ends[0].0,
            env: serde_json::from_str(&read("out")).expect("JSON"),
            error: read("error"),
        }
    }

    fn context(&self) -> &str {
        self.env["context"].as_str().unwrap_or("none")
    }

    fn value(&self, name: &str) -> &Value {
        &self.env[name]["value"]
    }

    /// Rank, world, local rank, local world, node rank.
    fn place(&self) -> [u64; 5] {
        ["rank", "world", "local_rank", "local_world", "node_rank"]
            .map(|it| self.value(it).as_u64().expect("a number"))
    }
}

#[test]
fn tasks_of_srun_know_their_ranks() {
    let Some(cluster) = cluster() else { return };
    let srun = |options: &[&str], expected: usize| {
        let asking = Asking::new();
        ends_in(asking.ask(cluster.command("srun").args(options)), 0);
        asking.answers(expected)
    };

    let one = srun(&["-n1"], 1).remove(0);
    assert_eq!((one.context(), one.place()), ("step", [0, 1, 0, 1, 0]));

    let two = srun(&["-N2", "-n2"], 2);
    assert_eq!((two[0].place(), two[1].place()), ([0, 2, 0, 1, 0], [1, 2, 0, 1, 1]));
    assert!(
        two.iter()
            .all(|it| it.value("address") == "n1" && it.value("hosts") == &json!(["n1", "n2"])),
        "{two:?}"
    );
    assert_eq!(
        (two[0].value("port"), two[0].value("node"), two[1].value("node")),
        (two[1].value("port"), &json!("n1"), &json!("n2"))
    );

    let uneven = srun(&["-N2", "-n4"], 4);
    let places: Vec<[u64; 5]> = uneven.iter().map(Answer::place).collect();
    assert_eq!(places, [[0, 4, 0, 3, 0], [1, 4, 1, 3, 0], [2, 4, 2, 3, 0], [3, 4, 0, 1, 1]]);

    let cyclic = srun(&["-N2", "-n3", "-m", "cyclic"], 3);
    assert_eq!((cyclic[1].place(), cyclic[2].place()), ([1, 3, 0, 1, 1], [2, 3, 1, 2, 0]));
    assert_eq!(cyclic[2].value("host_of_each_rank"), &json!(["n1", "n2", "n1"]));

    let bound = srun(&["-N1", "-n2", "--gpus-per-task=1"], 2);
    assert!(
        bound.iter().all(|it| it.value("device") == &json!(0)),
        "each sees its own GPU alone: {bound:?}"
    );
    let shared = srun(&["-N1", "-n2", "--gres=gpu:2"], 2);
    assert_eq!((shared[0].value("device"), shared[1].value("device")), (&json!(0), &json!(1)));
    let short = srun(&["-N1", "-n2", "--gres=gpu:1"], 2);
    assert!(
        short.iter().all(|it| it.code == 2 && it.error.contains("2 ranks on n1 share 1 GPU")),
        "{short:?}"
    );
}

#[test]
fn an_arbitrary_layout_is_refused_on_every_rank_unless_the_address_is_said() {
    let Some(cluster) = cluster() else { return };
    let asking = Asking::new();
    let hosts = asking.folder.path().join("hosts");
    std::fs::write(&hosts, "n2\nn1\nn2\n").expect("writes");
    ends_in(
        asking.ask(
            cluster.command("srun").args(["-n3", "-m", "arbitrary"]).env("SLURM_HOSTFILE", &hosts),
        ),
        0,
    );
    let answers = asking.answers(3);
    assert!(
        answers.iter().all(|it| it.code == 2 && it.error.contains("MASTER_ADDR=NODE")),
        "{answers:?}"
    );

    let asking = Asking::new();
    let mut command = cluster.command("srun");
    command.args(["-n3", "-m", "arbitrary"]).env("SLURM_HOSTFILE", &hosts).env("MASTER_ADDR", "n2");
    std::fs::write(&hosts, "n2\nn1\nn2\n").expect("writes");
    ends_in(asking.ask(&mut command), 0);
    assert!(asking.answers(3).iter().all(|it| it.code == 0 && it.value("address") == "n2"));
}

#[test]
fn shells_of_an_allocation_are_no_ranks_and_srun_in_them_makes_some() {
    let Some(cluster) = cluster() else { return };
    let asking = Asking::new();
    ends_in(asking.ask(cluster.command("salloc").args(["-N2", "-n2"])), 0);
    let shell = asking.answer();
    assert_eq!((shell.context(), shell.code), ("allocation-shell", 0));
    assert!(
        shell.value("to_train").as_str().is_some_and(|it| it.contains("all 2 ranks")),
        "{shell:?}"
    );

    let asking = Asking::new();
    ends_in(asking.ask(cluster.command("salloc").args(["-N2", "-n2", "srun"])), 0);
    assert_eq!(asking.answers(2)[1].place(), [1, 2, 0, 1, 1]);

    // A small step in a bigger job: its own node, not the job's first.
    let asking = Asking::new();
    ends_in(
        asking
            .ask(cluster.command("salloc").args(["-N2", "-n2", "srun", "-N1", "-n1", "-w", "n2"])),
        0,
    );
    let small = asking.answer();
    assert_eq!((small.place(), small.value("address")), ([0, 1, 0, 1, 0], &json!("n2")));

    // Two parts of a heterogeneous job are one world.
    let asking = Asking::new();
    let parts = ["-w", "n1", "-n1", ":", "-w", "n2", "-n1", "srun", "--het-group=0,1"];
    ends_in(asking.ask(cluster.command("salloc").args(parts)), 0);
    assert!(
        asking.answers(2).iter().all(|it| it.context() == "step" && it.value("world") == &json!(2))
    );

    // Steps that overlap in time meet on different ports.
    let asking = Asking::new();
    let both = format!(
        "srun -n1 --overlap bash -c {0} & srun -n1 --overlap bash -c {0} & wait",
        shlex::try_quote(ASK).expect("text")
    );
    ends_in(asking.told(cluster.command("salloc").args(["-n2"])).args(["bash", "-c", &both]), 0);
    let steps = asking.answers(2);
    assert_ne!(steps[0].value("step"), steps[1].value("step"));
    assert_ne!(steps[0].value("port"), steps[1].value("port"));
}

#[test]
fn a_terminal_in_a_step_is_a_rank() {
    let Some(cluster) = cluster() else { return };
    let asking = Asking::new();
    let line = format!("srun --pty bash -c {}", shlex::try_quote(ASK).expect("text"));
    ends_in(asking.told(cluster.command("script").args(["-qec", &line, "/dev/null"])), 0);
    let answer = asking.answer();
    assert_eq!((answer.context(), answer.place()), ("step", [0, 1, 0, 1, 0]));
    assert!(
        answer.env["sentence"].as_str().is_some_and(|it| it.contains("interactive step")),
        "{answer:?}"
    );
}

/// A batch script that asks; `before` stands in front of the asking shell.
fn script(before: &str) -> String {
    format!("#!/bin/bash\n{before} bash -c {}\n", shlex::try_quote(ASK).expect("text"))
}

#[test]
fn batch_shells_steps_arrays_and_nested_jobs_are_told_apart() {
    let Some(cluster) = cluster() else { return };
    let submit = |options: &[&str], script: &str, asking: &Asking| {
        let export = format!(
            "--export=ALL,ASK_FOLDER={},ASK_PROGRAM={}",
            asking.folder.path().display(),
            env!("CARGO_BIN_EXE_segslurm")
        );
        let options = [&["-o", "/dev/null", &export], options].concat();
        let job = cluster.submit(&options, script);
        assert_eq!(cluster.ended(job, Duration::from_mins(1)), "COMPLETED");
        job
    };

    let asking = Asking::new();
    submit(&["-N2", "-n4"], &script(""), &asking);
    let batch = asking.answer();
    assert_eq!(batch.context(), "batch-shell");
    assert!(
        batch.value("to_train").as_str().is_some_and(|it| it.contains("all 4 ranks")),
        "{batch:?}"
    );

    let asking = Asking::new();
    submit(&["-N2", "-n2"], &script("srun"), &asking);
    assert_eq!(asking.answers(2)[1].place(), [1, 2, 0, 1, 1]);

    let asking = Asking::new();
    let job = submit(&["-n1", "--array=3"], &script("srun"), &asking);
    let element = asking.answer();
    assert_eq!(
        (element.value("job"), element.value("array_element")),
        (&json!(format!("{job}_3")), &json!(3))
    );

    // Submitted from inside a step of as many tasks, the batch shell inherits that step's
    // variables.
    let asking = Asking::new();
    let inner = asking.folder.path().join("inner");
    std::fs::write(&inner, script("")).expect("writes");
    let nested =
        format!("[ $SLURM_PROCID = 1 ] || sbatch --wait -N2 -n2 -o /dev/null {}", inner.display());
    ends_in(
        asking.told(cluster.command("srun").args(["-N2", "-n2"])).args(["bash", "-c", &nested]),
        0,
    );
    let inside = asking.answer();
    assert_eq!(inside.context(), "batch-shell");
    assert!(
        inside.env["stale"].as_array().is_some_and(|it| it.contains(&json!("SLURM_STEP_ID"))),
        "{inside:?}"
    );
}

#[test]
fn a_plain_shell_with_leftovers_is_outside() {
    let asking = Asking::new();
    ends_in(asking.ask(program("env").env("SLURM_PROCID", "3").env("SLURM_NTASKS", "4")), 0);
    let answer = asking.answer();
    assert_eq!((answer.context(), answer.code), ("outside", 0));
    assert_eq!(answer.env["stale"], json!(["SLURM_PROCID"]));
}

#[test]
fn a_rank_that_cannot_be_one_ends_at_once_and_says_why() {
    let Some(cluster) = cluster() else { return };
    let train = [env!("CARGO_BIN_EXE_segslurm"), "train", CONFIG, "--launcher", "slurm"];
    let output = ends_in(cluster.command("salloc").args(["-N2", "-n2"]).args(train), 2);
    let said = text(&output.stderr);
    assert!(
        said.contains("error: --launcher slurm, but this is a shell in the allocation of job"),
        "{said}"
    );
    let output = ends_in(program(train[0]).args(&train[1..]), 2);
    assert!(text(&output.stderr).contains("outside of any Slurm job"), "{}", text(&output.stderr));
    // A variable that somebody else set.
    let output =
        ends_in(cluster.command("srun").args(["-n2", "env", "WORLD_SIZE=3"]).args(train), 2);
    assert!(
        text(&output.stderr).contains("WORLD_SIZE=3 contradicts SLURM_STEP_NUM_TASKS=2"),
        "{}",
        text(&output.stderr)
    );
}
