//! The Slurm form of the commands without a Slurm: scripts as text, bad input, fakes of Slurm's
//! programs, and the run here.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::harness::{CONFIG, dataset, ends_in, segslurm, small, steps, text};

/// The program on a login node whose PATH holds these programs of Slurm, as shell scripts, and no
/// others.
fn login_node(folder: &Path, programs: &[(&str, &str)]) -> Command {
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).expect("makes a folder");
    for (name, script) in programs {
        let path = bin.join(name);
        fs::write(&path, format!("#!/bin/bash\n{script}\n")).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("makes it executable");
    }
    // Ordinary programs without Slurm's.
    for name in ["bash", "sleep", "cat", "env"] {
        let found = ["/bin", "/usr/bin"]
            .iter()
            .map(|it| Path::new(it).join(name))
            .find(|it| it.exists())
            .expect("a program");
        let _ = std::os::unix::fs::symlink(found, bin.join(name));
    }
    let mut command = segslurm();
    command
        .env("PATH", &bin)
        .env_remove("CUDA_VISIBLE_DEVICES")
        .env("XDG_CONFIG_HOME", folder.join("config"));
    command
}

const ANSWERS: (&str, &str) = ("scontrol", "echo 'Slurmctld(primary) at n1 is UP'");
const PARTITIONS: (&str, &str) = ("sinfo", "echo 'dev|infinite|gpu:8'");

/// A folder whose name wants quoting, with a config in it.
fn nasty(folder: &Path) -> std::path::PathBuf {
    let folder = folder.join("it's a \"nasty\", $HOME #1 & (50%) folder");
    fs::create_dir_all(&folder).expect("makes a folder");
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join(CONFIG);
    fs::write(folder.join("my config.yaml"), format!("_base_: {}\n", base.display()))
        .expect("writes");
    folder
}

fn shellcheck(script: &Path) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|it| it.join("shellcheck").is_file()) {
        ends_in(Command::new("shellcheck").arg(script), 0);
    } else {
        crate::harness::skip("shellcheck is not installed: scripts/test-tools.sh installs it");
    }
    ends_in(Command::new("bash").arg("-n").arg(script), 0);
}

#[test]
fn scripts_are_clean_for_shellcheck_whatever_the_paths() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let nasty = nasty(folder.path());
    let script = folder.path().join("script.sh");
    for more in
        [&[][..], &["--array", "0-3"], &["--no-requeue"], &["--comment", "it's $5, \"50 %\" # off"]]
    {
        let mut command = segslurm();
        command.env_remove("CUDA_VISIBLE_DEVICES").args([
            "slurm_train",
            "dev",
            "my job's",
            "my config.yaml",
            "--work-dir",
        ]);
        command.arg(nasty.join("work $dir")).args(["--force", "--output"]).arg(&script).args(more);
        command.args(["--cfg-options", "experiment_name=it's $here \"quoted\"", "data_root=a b"]);
        ends_in(command.current_dir(&nasty), 0);
        shellcheck(&script);
        let text = fs::read_to_string(&script).expect("a script");
        assert!(text.contains("#SBATCH --job-name=\"my job's\"\n"), "{text}");
        // The shell reads back what was said.
        let line = text
            .lines()
            .find(|it| it.contains("my config.yaml"))
            .expect("the command")
            .trim_end_matches('\\');
        let words = shlex::split(line).expect("whole quotes");
        assert!(words.contains(&"experiment_name=it's $here \"quoted\"".to_owned()), "{words:?}");
    }
    let checkpoint = nasty.join("a checkpoint.pth");
    fs::write(&checkpoint, "").expect("writes");
    let mut command = segslurm();
    command.env_remove("CUDA_VISIBLE_DEVICES").args([
        "slurm_test",
        "dev",
        "t",
        "my config.yaml",
        "a checkpoint.pth",
        "--force",
        "--output",
    ]);
    ends_in(command.arg(&script).args(["--out", "maps of it"]).current_dir(&nasty), 0);
    shellcheck(&script);
}

#[test]
fn the_line_of_srun_has_mmsegs_shape() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = login_node(folder.path(), &[]);
    command.env("GPUS", "12").env("SRUN_ARGS", "--quiet").args([
        "slurm_train",
        "dev",
        "pspnet",
        CONFIG,
        "--srun",
        "--work-dir",
    ]);
    let output = ends_in(command.arg(folder.path().join("work")), 0);
    let line = text(&output.stdout);
    for part in [
        "srun --job-name=pspnet --partition=dev --nodes=2 --ntasks=12 --ntasks-per-node=6 \
         --gres=gpu:6 --cpus-per-task=5",
        " --quiet ",
        "--launcher slurm\n",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(
        text(&output.stderr).contains("would hold 16 GPUs on 2 nodes"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_template_of_the_users_own_is_used_and_its_mistakes_have_a_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let template = folder.path().join("mine.j2");
    fs::write(&template, "#!/bin/sh\n# {{ ranks }} for {{ job_name | sh }}\n").expect("writes");
    let work = folder.path().join("work");
    let train = |template: &Path| {
        let mut command = login_node(folder.path(), &[]);
        command
            .args(["slurm_train", "dev", "a b", CONFIG, "--template"])
            .arg(template)
            .arg("--work-dir")
            .arg(&work);
        command
    };
    assert_eq!(text(&ends_in(&mut train(&template), 0).stdout), "#!/bin/sh\n# 8 for 'a b'\n");
    fs::write(&template, "#!/bin/sh\n\n{{ rnaks }}\n").expect("writes");
    let said = text(&ends_in(&mut train(&template), 78).stderr);
    assert!(said.contains("mine.j2:3: undefined value") && said.contains("{{ rnaks }}"), "{said}");
    let said = text(&ends_in(&mut train(&folder.path().join("none.j2")), 66).stderr);
    assert!(said.contains("cannot read the template"), "{said}");
}

#[test]
fn bad_input_is_one_line_and_nothing_is_submitted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let trace = format!("touch {}", folder.path().join("submitted").display());
    let programs = [ANSWERS, PARTITIONS, ("sbatch", trace.as_str()), ("srun", trace.as_str())];
    let work = folder.path().join("work").display().to_string();
    for (variables, arguments, code, expected) in [
        (&[("GPUS", "")][..], &["dev", "x", CONFIG][..], 2, "GPUS=\"\": it is empty"),
        (&[("GPUS", "four")], &["dev", "x", CONFIG], 2, "GPUS=\"four\": expected a whole number"),
        (
            &[("GPUS", "0"), ("GPUS_PER_NODE", "8")],
            &["dev", "x", CONFIG],
            2,
            "a CPU job, but GPUS_PER_NODE=8 asks for GPUs",
        ),
        (
            &[("GPUS", "9"), ("GPUS_PER_NODE", "9")],
            &["dev", "x", CONFIG],
            77,
            "no node of partition dev has 9 GPUs, the most is 8",
        ),
        (
            &[],
            &["nope", "x", CONFIG],
            77,
            "there is no partition \"nope\"; the partitions here are dev",
        ),
        (&[], &["dev", "a\nb", CONFIG], 2, "JOB_NAME \"a\\nb\": it has a line break"),
        (&[], &["dev x", "x", CONFIG], 2, "PARTITION \"dev x\": no name of a partition"),
        (
            &[],
            &["x", CONFIG],
            2,
            "expected CONFIG to train here, or PARTITION JOB_NAME CONFIG [WORK_DIR] to train on \
             Slurm, but got 2",
        ),
        (&[], &["dev", "x", CONFIG, "work"], 2, "two work dirs are given, work and --work-dir"),
        (&[], &["dev", "x", "none.yaml"], 66, "none.yaml"),
        (&[], &["dev", "x", CONFIG, "--nodelist", "n[1-"], 2, "malformed host list"),
        (&[], &["dev", "x", CONFIG, "--array", "0-3"], 2, "give --batch as well"),
        (&[], &["dev", "x", CONFIG, "--site", "none"], 66, "no site profile \"none\""),
        (&[], &["dev", "x", CONFIG, "--launcher", "slurm"], 2, "which the job starts"),
        (&[], &[CONFIG, "--gpus", "4"], 2, "--gpus is for jobs on Slurm"),
    ] {
        let mut command = login_node(folder.path(), &programs);
        command
            .arg("train")
            .args(arguments)
            .args(["--work-dir", &work])
            .envs(variables.iter().copied());
        let said = text(&ends_in(&mut command, code).stderr);
        assert!(said.contains(expected), "{expected} is not in {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
    assert!(!folder.path().join("submitted").exists(), "something was submitted");
}

#[test]
fn a_training_that_will_hardly_fit_on_a_gpu_of_the_site_is_told_of_before_it_waits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sbatch = ("sbatch", "cat >/dev/null; echo 'Submitted batch job 42'");
    let said = |memory: &str, command: &str, last: &[&str]| {
        let site = folder.path().join("small.yaml");
        fs::write(&site, format!("gpu: {{memory: {memory}}}\n")).expect("writes");
        let mut order = login_node(folder.path(), &[ANSWERS, PARTITIONS, ("srun", ""), sbatch]);
        order.args([command, "dev", "x", CONFIG, "--site"]).arg(site).args(last);
        let output = ends_in(order.arg("--work-dir").arg(folder.path().join("work")), 0);
        text(&output.stderr) + &text(&output.stdout)
    };
    let warning = "a GPU here has 1.0 GiB: it will hardly fit";
    for (command, last) in [("train", &["--batch"][..]), ("slurm_train", &["--submit"])] {
        let told = said("1G", command, last);
        assert!(told.contains(warning), "{command} {last:?}: {told}");
    }
    assert!(!said("80G", "train", &["--batch"]).contains("hardly fit"));
}

#[test]
fn job_ids_are_found_between_banners() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let submit = |answer: &str| {
        let script = format!("cat >{}\necho '{answer}'", folder.path().join("script").display());
        let mut command =
            login_node(folder.path(), &[ANSWERS, PARTITIONS, ("srun", ""), ("sbatch", &script)]);
        command
            .args(["train", "dev", "x", CONFIG, "--batch", "--work-dir"])
            .arg(folder.path().join("work"));
        command
    };
    let said = text(
        &ends_in(
            &mut submit("*** Welcome ***\nSubmitted batch job 42 on cluster big\nBudget: 7 h\n"),
            0,
        )
        .stderr,
    );
    assert!(
        said.contains("submitted job 42 on cluster big") && said.contains("slurm/42.log"),
        "{said}"
    );
    let said = text(&ends_in(&mut submit("job accepted"), 70).stderr);
    assert!(said.contains("squeue --me"), "{said}");
    let script = fs::read_to_string(folder.path().join("script")).expect("what was submitted");
    assert!(script.starts_with("#!/usr/bin/env bash\n"), "{script}");
}

#[test]
fn where_there_is_no_slurm_the_same_line_trains_here_and_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let silent = [("srun", ""), ("sbatch", ""), ("scontrol", "sleep 30")];
    for (name, programs, why) in [
        ("none", &[][..], "no Slurm here (srun, sbatch not on PATH)"),
        ("silent", &silent, "no Slurm controller answers"),
    ] {
        let work = folder.path().join(name);
        let train = || {
            let mut command = login_node(&folder.path().join(format!("{name}-node")), programs);
            command
                .env("GPUS", "4")
                .args(["train", "dev", "pspnet", CONFIG, "--work-dir"])
                .arg(&work);
            command
        };
        let output = ends_in(train().args(small(dataset(), 2)), 0);
        let said = text(&output.stderr);
        assert!(said.contains(why), "{said}");
        assert!(said.contains("a step sees 2 images instead of 8 (4 ranks with 2 each)"), "{said}");
        assert_eq!(steps(&work).len(), 2);
        assert!(work.join("iter_2.safetensors").exists());
        let said = text(&ends_in(train().arg("--no-fallback"), 69).stderr);
        assert!(said.contains(why), "{said}");
    }
}
