//! A real Slurm for the tests: the throwaway cluster of `scripts/cluster.sh`, started once for all
//! of them.
//!
//! It lies in a folder of its own, on ports of its own, and ends with this process, however that
//! ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::harness::{ends_in, program, skip, text};

/// Two nodes, `n1` and `n2`, of 8 GPUs each; partitions `dev` and `short` (10 minutes).
pub(crate) struct Cluster {
    conf: PathBuf,
}

/// The cluster, or `None` where there is none: the test is then skipped, and that has been said.
#[track_caller]
pub(crate) fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
    match CLUSTER.get_or_init(Cluster::start) {
        Ok(cluster) => Some(cluster),
        Err(why) => {
            skip(why);
            None
        }
    }
}

/// `scripts/cluster.sh` with a folder of its own.
fn script(order: &str, folder: &Path) -> Command {
    let mut command = program("scripts/cluster.sh");
    command.arg(order).arg("--dir").arg(folder);
    command
}

/// A short path: sockets lie in it.
fn folder(name: &str) -> PathBuf {
    Path::new("/tmp").join(format!("segslurm-{}-{name}", std::process::id()))
}

impl Cluster {
    fn start() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err(
                "a Slurm cluster with GPUs can be made by root alone (device files)".to_owned()
            );
        }
        let folder = folder("slurm");
        let output = script("up", &folder)
            .args(["--while", &std::process::id().to_string()])
            .output()
            .expect("scripts/cluster.sh starts");
        match output.status.code() {
            Some(0) => Ok(Self { conf: folder.join("slurm.conf") }),
            Some(69) => Err(text(&output.stderr).trim().to_owned()),
            _ => panic!("scripts/cluster.sh up: {}\n{}", output.status, text(&output.stderr)),
        }
    }

    /// One of Slurm's programs, or any other, on a login node of the cluster.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = program(name);
        command.env("SLURM_CONF", &self.conf);
        command
    }

    /// Submits a script with `sbatch` and gives the job's id.
    #[track_caller]
    pub(crate) fn submit(&self, options: &[&str], script: &str) -> u64 {
        let mut child = self
            .command("sbatch")
            .arg("--parsable")
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sbatch starts");
        std::io::Write::write_all(&mut child.stdin.take().expect("piped"), script.as_bytes())
            .expect("sbatch reads");
        let output = child.wait_with_output().expect("sbatch ends");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
            .trim()
            .split(';')
            .next()
            .and_then(|id| id.parse().ok())
            .expect("a job's id")
    }

    /// `KEY=value` of `scontrol show job`; empty once slurmctld has forgotten the job.
    pub(crate) fn field(&self, job: u64, key: &str) -> String {
        let output = self
            .command("scontrol")
            .args(["--oneliner", "show", "job", &job.to_string()])
            .output()
            .expect("scontrol");
        let said = text(&output.stdout);
        said.split_whitespace()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or_default()
            .to_owned()
    }

    /// Waits until the job is in one of these states, and gives it.
    #[track_caller]
    pub(crate) fn wait_for(&self, job: u64, states: &[&str], within: Duration) -> String {
        let deadline = Instant::now() + within;
        loop {
            let state = self.field(job, "JobState");
            if states.contains(&state.as_str()) {
                return state;
            }
            assert!(
                Instant::now() < deadline,
                "job {job} is {state} and not {states:?} after {within:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the job has ended.
    #[track_caller]
    pub(crate) fn ended(&self, job: u64, within: Duration) -> String {
        self.wait_for(
            job,
            &["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"],
            within,
        )
    }
}

#[test]
fn the_cluster_has_two_nodes_with_eight_gpus_that_slurm_hands_out() {
    let Some(cluster) = cluster() else { return };
    let show = "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES";
    let output = ends_in(
        cluster.command("srun").args([
            "-N2",
            "--ntasks-per-node=1",
            "--gres=gpu:3",
            "--label",
            "sh",
            "-c",
            show,
        ]),
        0,
    );
    let mut lines: Vec<_> = text(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    let devices = |line: &str| line.rsplit(' ').next().map_or(0, |it| it.split(',').count());
    assert!(
        lines.len() == 2 && lines[0].starts_with("0: n1") && lines[1].starts_with("1: n2"),
        "{lines:?}"
    );
    assert!(lines.iter().all(|line| devices(line) == 3), "{lines:?}");
}

/// The processes whose command line names this folder.
fn processes(folder: &Path) -> usize {
    let wanted = folder.to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter(|it| {
            std::fs::read(it.path().join("cmdline")).is_ok_and(|line| text(&line).contains(&wanted))
        })
        .count()
}

#[test]
fn a_cluster_ends_with_the_process_it_was_started_for_and_leaves_nothing() {
    let Some(_) = cluster() else { return };
    let folder = folder("watch");
    let mut owner: Child = Command::new("sleep").arg("600").spawn().expect("sleep starts");
    ends_in(script("up", &folder).args(["--nodes", "1", "--while", &owner.id().to_string()]), 0);
    assert!(processes(&folder) >= 3, "munged, slurmctld and a slurmd");
    owner.kill().expect("it is there");
    owner.wait().expect("it ends");
    let deadline = Instant::now() + Duration::from_mins(1);
    while folder.exists() || processes(&folder) > 0 {
        assert!(
            Instant::now() < deadline,
            "{} processes of {} are left",
            processes(&folder),
            folder.display()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A host list of the grammar that every version of Slurm reads: no text after the last bracket.
fn host_list(random: &mut impl rand::Rng) -> String {
    let mut list = String::new();
    for item in 0..random.random_range(1..5) {
        if item > 0 {
            list.push(',');
        }
        for _ in 0..random.random_range(1..3) {
            list.push_str(
                ["n", "gpu-", "rack", "a0b", "dgx-a-", "x.y", "N_"][random.random_range(0..7)],
            );
            let ranges: Vec<String> = (0..random.random_range(1..4))
                .map(|_| {
                    let (first, more, width) = (
                        random.random_range(0..200_u32),
                        random.random_range(0..6),
                        random.random_range(0..5),
                    );
                    let low = format!("{first:0width$}");
                    if more == 0 { low } else { format!("{low}-{}", first + more) }
                })
                .collect();
            list.push_str(&format!("[{}]", ranges.join(",")));
        }
        if random.random_range(0..4) == 0 {
            list.push_str(",login");
            list.push_str(&random.random_range(0..30_u32).to_string());
        }
    }
    list
}

#[test]
fn host_lists_expand_as_scontrol_expands_them() {
    use rand::{RngCore, SeedableRng};
    let Some(cluster) = cluster() else { return };
    let seed = rand::rngs::StdRng::from_os_rng().next_u64();
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let lists: Vec<String> = (0..3000).map(|_| host_list(&mut random)).collect();
    // One scontrol for all: it reads orders line by line, and a host named `@` ends each answer.
    let orders = lists
        .iter()
        .map(|list| format!("show hostnames {list}\nshow hostnames @\n"))
        .collect::<String>();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("orders");
    std::fs::write(&file, orders).expect("writes");
    let mut command = cluster.command("scontrol");
    let output = ends_in(command.stdin(std::fs::File::open(&file).expect("opens")), 0);
    let said = text(&output.stdout);
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("scontrol:")).collect();
    let answers: Vec<&[&str]> = lines.split(|line| *line == "@").collect();
    assert_eq!(
        answers.len(),
        lists.len() + 1,
        "an answer to each list, seed {seed}: {}",
        text(&output.stderr)
    );
    for (list, answer) in lists.iter().zip(answers) {
        let ours = segslurm::testing::slurm::hostlist::expand(list)
            .unwrap_or_else(|error| panic!("{error}, seed {seed}"));
        assert_eq!(ours, answer, "{list}, seed {seed}");
    }
}
