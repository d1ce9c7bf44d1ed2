//! A person's first day: checks before anything runs, slips of the fingers, scripts and jobs.

use std::fs;
use std::path::Path;

use crate::cluster::cluster;
use crate::harness::{CONFIG, dataset, ends_in, segslurm, small, text};

fn told(words: &[&str], code: i32) -> String {
    text(&ends_in(segslurm().args(words), code).stderr)
}

#[test]
fn a_dry_run_says_what_would_be_trained_and_writes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work = folder.path().join("work");
    let check = |more: &[&str], code: i32| {
        let mut command = segslurm();
        command
            .args(["train", CONFIG, "--dry-run", "--work-dir"])
            .arg(&work)
            .args(small(dataset(), 7))
            .args(more);
        let output = ends_in(&mut command, code);
        (text(&output.stdout), text(&output.stderr))
    };
    let (said, _) = check(&[], 0);
    for words in [
        "train_dataloader: 10 images, 6 classes",
        "val_dataloader: 2 images",
        "million parameters",
        "7 iterations, 2 images",
    ] {
        assert!(said.contains(words), "{words} is not in:\n{said}");
    }
    assert!(!work.exists());
    let (_, error) = check(&["model.decode_head.channels=0"], 78);
    assert!(error.contains("model.decode_head.channels"), "{error}");
    let (_, error) = check(&["train_dataloader.dataset.data_root=/no/such"], 66);
    assert!(error.contains("/no/such/images/training does not exist"), "{error}");
    let (_, error) = check(&["load_from=/no/such.pth"], 66);
    assert!(error.contains("/no/such.pth"), "{error}");

    let mut test = segslurm();
    test.args(["test", CONFIG, "/no/such.pth", "--dry-run"]).args(small(dataset(), 7));
    assert!(text(&ends_in(&mut test, 66).stderr).contains("/no/such.pth"));
}

#[test]
fn a_home_folder_behind_an_option_is_the_home_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = |words: &[&str]| {
        let mut command = segslurm();
        command
            .current_dir(folder.path())
            .env("HOME", folder.path().join("me"))
            .args(words)
            .args(small(dataset(), 1));
        ends_in(&mut command, 0);
    };
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join(CONFIG).display().to_string();
    run(&["train", &config, "--work-dir=~/runs"]);
    let checkpoint = folder.path().join("me/runs/iter_1.safetensors");
    run(&[
        "test",
        &config,
        &checkpoint.display().to_string(),
        "--work-dir=~/tested",
        "--out=~/labels",
        "--show-dir=~/painted",
    ]);
    for made in [
        "runs/last_checkpoint",
        "tested",
        "labels/demo_validation_00001.png",
        "painted/demo_validation_00001.png",
    ] {
        assert!(folder.path().join("me").join(made).exists(), "{made}");
    }
    assert!(!folder.path().join("~").exists());
    let mut homeless = segslurm();
    homeless.env_remove("HOME").args(["train", &config, "--work-dir=~/runs"]);
    assert!(
        text(&ends_in(&mut homeless, 2).stderr)
            .contains("the environment variable HOME, which is not set")
    );
}

#[test]
fn several_ranks_are_checked_as_one_is() {
    let checked = |words: &[&str], code: i32| {
        let output = ends_in(
            segslurm().args(words).args(small(dataset(), 7)).arg("model.decode_head.channels=8"),
            code,
        );
        text(&output.stdout) + &text(&output.stderr)
    };
    let said = checked(&["dist_train", CONFIG, "2", "--dry-run"], 0);
    assert!(said.contains("7 iterations, 2 images a step and rank"), "{said}");
    assert!(
        checked(&["dist_test", CONFIG, "/no/such.pth", "2", "--dry-run"], 66)
            .contains("/no/such.pth")
    );
}

#[test]
fn a_config_from_windows_is_read_and_one_in_another_encoding_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let python = "_base_ = 'mmseg::demo/pspnet_r18-d8_demo-128x128.py'\r\nwork_dir = 'C\u{e4}'\r\n";
    let yaml = "_base_: mmseg::demo/pspnet_r18-d8_demo-128x128.yaml\r\nwork_dir: C\u{e4}\r\n";
    for (name, content) in [("a.py", python), ("a.yaml", yaml)] {
        fs::write(path(name), format!("\u{feff}{content}")).expect("writes");
        let printed = text(&ends_in(segslurm().arg("config").arg(path(name)), 0).stdout);
        assert!(printed.contains("work_dir: C\u{e4}"), "{name}: {printed}");
        let wide: Vec<u8> =
            format!("\u{feff}{content}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        fs::write(path(name), wide).expect("writes");
        let refused = text(&ends_in(segslurm().arg("config").arg(path(name)), 78).stderr);
        assert!(refused.contains(&format!("{name}:1:")) && refused.contains("UTF-16"), "{refused}");
        fs::write(
            path(name),
            [content.as_bytes(), b"# \xb1\xb3\xbe\xb0 \xb5\xc0\xc2\xb7\r\n"].concat(),
        )
        .expect("writes");
        let refused = text(&ends_in(segslurm().arg("config").arg(path(name)), 78).stderr);
        assert!(refused.contains(&format!("{name}:3:")) && refused.contains("GBK"), "{refused}");
    }
}

#[test]
fn what_is_printed_is_checked() {
    let output = ends_in(segslurm().args(["config", CONFIG, "--cfg-options", "model.foo=1"]), 78);
    assert!(text(&output.stdout).contains("EncoderDecoder"), "it is printed all the same");
    assert!(text(&output.stderr).contains("model.foo: unknown key"));
    for piece in [
        "models/pspnet_r50-d8.yaml",
        "datasets/ade20k.yaml",
        "schedules/schedule_20k.yaml",
        "default_runtime.yaml",
    ] {
        ends_in(segslurm().arg("config").arg(Path::new("configs/_base_").join(piece)), 0);
    }
    let wrong = told(
        &[
            "config",
            "configs/_base_/schedules/schedule_20k.yaml",
            "--cfg-options",
            "train_cfg.max_iter=3",
        ],
        78,
    );
    assert!(
        wrong.contains("train_cfg.max_iter: unknown key; did you mean `max_iters`?"),
        "{wrong}"
    );
}

#[test]
fn slips_and_old_options_are_one_line() {
    for (words, line) in [
        (
            &["train", CONFIG, "--seed", "3"][..],
            "--seed of mmseg 0.x is written --cfg-options randomness.seed=N",
        ),
        (&["train", CONFIG, "--work_dir", "w"], "--work_dir is written --work-dir DIR"),
        (
            &["train", CONFIG, "--resume", "w/iter_4.pth"],
            "--resume takes no file: write --resume --cfg-options load_from=w/iter_4.pth",
        ),
        (
            &["train", CONFIG, "--no-validate"],
            "--no-validate of mmseg 0.x is written --cfg-options val_dataloader=None",
        ),
        (
            &["dist_train", CONFIG, "2", "--deterministic"],
            "--deterministic of mmseg 0.x is written",
        ),
        (&["test", CONFIG, "a.pth", "--eval", "mIoU"], "--eval of mmseg 0.x is written"),
        (&["train", "--cfg-options", "a.b=1", CONFIG], "the config first"),
    ] {
        let said = told(words, 2);
        assert!(said.starts_with("error: ") && said.contains(line), "{words:?}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
    let two = told(&["train", "dev", "psp", CONFIG, "a", "--work-dir", "b"], 2);
    assert!(two.contains("two work dirs are given, a and --work-dir b"), "{two}");
}

#[test]
fn a_launcher_that_nobody_named_is_noticed() {
    for (variables, name) in [
        (
            &[("WORLD_SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0")][..],
            "torchrun started 2 of this",
        ),
        (
            &[("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_RANK", "0")],
            "mpirun started 4 of this",
        ),
    ] {
        let mut command = segslurm();
        command.args(["train", CONFIG]).args(small(dataset(), 1)).envs(variables.iter().copied());
        let said = text(&ends_in(&mut command, 2).stderr);
        assert!(said.contains(name) && said.contains("--launcher"), "{said}");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut meant = segslurm();
        meant.args(["train", CONFIG, "--launcher", "none", "--work-dir"]).arg(folder.path());
        ends_in(meant.args(small(dataset(), 1)).envs(variables.iter().copied()), 0);
    }
}

#[test]
fn an_edited_script_is_not_written_over() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("job.sh");
    let script = |more: &[&str], code: i32| {
        let mut command = segslurm();
        command
            .env_remove("CUDA_VISIBLE_DEVICES")
            .args(["slurm_train", "dev", "psp", CONFIG, "--output"])
            .arg(&path)
            .args(more);
        text(&ends_in(command.arg("--work-dir").arg(folder.path().join("work")), code).stderr)
    };
    script(&[], 0);
    script(&[], 0);
    let edited = fs::read_to_string(&path).expect("the script") + "# mine\n";
    fs::write(&path, &edited).expect("writes");
    let said = script(&[], 73);
    assert!(
        said.contains("job.sh is there and says something else") && said.contains("--force"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&path).expect("the script"), edited);
    script(&["--force"], 0);
    assert_ne!(fs::read_to_string(&path).expect("the script"), edited);
}

#[test]
fn a_jobs_number_stands_alone_and_a_missing_node_is_counted() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let order = |gpus: &str, more: &[&str]| {
        let mut command = cluster.command(env!("CARGO_BIN_EXE_segslurm"));
        command
            .env_remove("CUDA_VISIBLE_DEVICES")
            .env("GPUS", gpus)
            .env("CPUS_PER_TASK", "1")
            .args(["train", "dev", "number", CONFIG])
            .arg(folder.path().join("work"));
        command.args(more).args(small(dataset(), 1));
        command
    };
    let output = ends_in(&mut order("1", &["--batch"]), 0);
    let number = text(&output.stdout);
    assert!(number.trim_end().parse::<u64>().is_ok() && number.lines().count() == 1, "{number}");
    ends_in(cluster.command("scancel").arg(number.trim_end()), 0);
    let refused = text(&ends_in(&mut order("24", &[]), 77).stderr);
    assert!(refused.contains("take 3 nodes, and partition dev has 2: 1 node more"), "{refused}");
}
