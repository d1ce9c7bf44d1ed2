//! The lines that users of mmseg work by, from its tutorial on training and testing, in our
//! spelling: each is typed as it stands there, on a small dataset. Where there it says `python
//! tools/train.py`, `sh tools/dist_train.sh` or `sh tools/slurm_train.sh`, here it says `segslurm
//! train`, `segslurm dist_train` and `segslurm train PARTITION JOB_NAME`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cluster::cluster;
use crate::harness::{dataset, ends_in, free_port, program, text};
use crate::ranks::{outcome, start};

/// A folder to type in: a config of one's own and a second one, small enough to train in a second.
fn place() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = dataset().display();
    for name in ["config.py", "config1.py", "config2.py"] {
        let config = format!(
            "_base_ = 'mmseg::demo/pspnet_r18-d8_demo-128x128.py'\nnorm = dict(type='SyncBN', \
             requires_grad=True)\nmodel = dict(data_preprocessor=dict(size=(32, 32)), \
             backbone=dict(norm_cfg=norm), \
             decode_head=dict(norm_cfg=norm),\nauxiliary_head=dict(norm_cfg=norm))\ntrain_pipeline \
             = [step if step['type'] != 'RandomCrop' else dict(type='RandomCrop', crop_size=(32, \
             32))\nfor step in _base_.train_pipeline]\ntrain_dataloader = dict(batch_size=2, \
             num_workers=0, dataset=dict(data_root='{data}', \
             pipeline=train_pipeline))\nval_dataloader = dict(num_workers=0, \
             dataset=dict(data_root='{data}'))\ntest_dataloader = dict(num_workers=0, \
             dataset=dict(data_root='{data}'))\ntrain_cfg = dict(max_iters=2, \
             val_interval=2)\ndefault_hooks = dict(logger=dict(interval=1), \
             checkpoint=dict(interval=1))\n"
        );
        fs::write(folder.path().join(name), config).expect("writes");
    }
    folder
}

/// A line as it is typed in a shell, in `folder`.
fn typed(folder: &Path, line: &str) -> Command {
    let mut command = program("bash");
    command
        .current_dir(folder)
        .args(["-c", &line.replace("segslurm", env!("CARGO_BIN_EXE_segslurm"))]);
    command
}

#[track_caller]
fn works(folder: &Path, line: &str) -> String {
    let output = ends_in(&mut typed(folder, line), 0);
    text(&output.stdout) + &text(&output.stderr)
}

fn trained(folder: &Path, work_dir: &str) -> PathBuf {
    let checkpoint = folder.join(work_dir).join("iter_2.safetensors");
    assert!(checkpoint.exists(), "{work_dir} has no iter_2.safetensors");
    checkpoint
}

#[test]
fn one_process_trains_and_tests() {
    let folder = place();
    let here = folder.path();
    works(here, "segslurm train config.py");
    let checkpoint = trained(here, "work_dirs/config").display().to_string();
    works(
        here,
        "segslurm train config.py --work-dir elsewhere --amp --launcher none --local_rank 0",
    );
    trained(here, "elsewhere");
    let resumed = works(
        here,
        "segslurm train config.py --resume --cfg-options train_cfg.max_iters=3 \
         model.backbone.in_channels=3",
    );
    assert!(resumed.contains("resumed at iteration 2"), "{resumed}");
    let from = works(
        here,
        &format!(
            "segslurm train config.py --work-dir on --resume --cfg-options load_from={checkpoint} \
             train_cfg.max_iters=3"
        ),
    );
    assert!(from.contains("resumed at iteration 2"), "{from}");
    works(here, "export CUDA_VISIBLE_DEVICES=-1; segslurm train config.py --work-dir cpu");

    works(here, &format!("segslurm test config.py {checkpoint}"));
    works(
        here,
        &format!(
            "segslurm test config.py {checkpoint} --work-dir tested --show-dir painted --wait-time \
             2"
        ),
    );
    let painted = fs::read_dir(here.join("tested"))
        .expect("results")
        .flatten()
        .find(|it| it.path().join("painted").is_dir());
    assert!(painted.is_some(), "the pictures are in work_dir/<time>/painted");
    works(
        here,
        &format!(
            "segslurm test config.py {checkpoint} --cfg-options test_evaluator.iou_metrics=mDice"
        ),
    );
    // Weights may lie elsewhere.
    works(here, "mkdir other && ln -s other linked && segslurm train config.py --work-dir linked");
    trained(here, "other");
}

#[test]
fn several_ranks_of_a_machine_and_of_two_train_and_test() {
    let folder = place();
    let here = folder.path();
    works(here, "segslurm dist_train config.py 2 --work-dir work_dirs/two");
    let checkpoint = trained(here, "work_dirs/two").display().to_string();
    works(here, &format!("segslurm dist_test config.py {checkpoint} 2"));
    let ports = [free_port(), free_port()];
    let lines = [
        format!("CUDA_VISIBLE_DEVICES=-1 PORT={} segslurm dist_train config1.py 2", ports[0]),
        format!("CUDA_VISIBLE_DEVICES=-1 PORT={} segslurm dist_train config2.py 2", ports[1]),
    ];
    let runs = lines.map(|line| start(&mut typed(here, &line)));
    for run in runs {
        let (code, said) = outcome(run, Duration::from_mins(2));
        assert_eq!(code, Some(0), "{said}");
    }
    trained(here, "work_dirs/config1");
    trained(here, "work_dirs/config2");
    let port = free_port();
    let machines = [0, 1].map(|rank| {
        let line = format!(
            "NNODES=2 NODE_RANK={rank} PORT={port} MASTER_ADDR=127.0.0.1 segslurm dist_train \
             config.py 1 --work-dir machines"
        );
        start(&mut typed(here, &line))
    });
    for machine in machines {
        let (code, said) = outcome(machine, Duration::from_mins(2));
        assert_eq!(code, Some(0), "{said}");
    }
    trained(here, "machines");
}

#[test]
fn a_cluster_trains_and_tests() {
    let Some(cluster) = cluster() else { return };
    let folder = place();
    let here = folder.path();
    let typed = |line: &str| {
        let mut command = cluster.command("bash");
        command
            .env_remove("CUDA_VISIBLE_DEVICES")
            .current_dir(here)
            .args(["-c", &line.replace("segslurm", env!("CARGO_BIN_EXE_segslurm"))]);
        command
    };
    let works = |line: &str| {
        let output = ends_in(&mut typed(line), 0);
        text(&output.stdout) + &text(&output.stderr)
    };
    works("GPUS=2 CPUS_PER_TASK=1 segslurm train dev pspnet config.py --work-dir work_dir/pspnet");
    let checkpoint = trained(here, "work_dir/pspnet").display().to_string();
    works(&format!("GPUS=2 CPUS_PER_TASK=1 segslurm test dev pspnet config.py {checkpoint}"));

    // Two jobs at once, each with its port: on the command line, in the config (misspelt as the
    // tutorial has it), in a variable.
    let ports = [free_port(), free_port()];
    let pairs: [[String; 2]; 3] = [
        [0, 1].map(|job| {
            let (number, port) = (job + 1, ports[job]);
            format!(
                "GPUS=2 GPUS_PER_NODE=2 CPUS_PER_TASK=1 segslurm train dev job{number} \
                 config{number}.py a{number} --cfg-options env_cfg.dist_cfg.port={port}"
            )
        }),
        [1, 2].map(|number| {
            format!(
                "GPUS=2 CPUS_PER_TASK=1 segslurm train dev job{number} config{number}.py \
                 b{number}"
            )
        }),
        [0, 1].map(|job| {
            let (number, port) = (job + 1, ports[job]);
            format!(
                "GPUS=2 CPUS_PER_TASK=1 MASTER_PORT={port} segslurm train dev job{number} \
                 config{number}.py c{number}"
            )
        }),
    ];
    for (pair, name) in pairs.iter().zip(["a", "b", "c"]) {
        if name == "b" {
            for (number, port) in [(1, ports[0]), (2, ports[1])] {
                let path = here.join(format!("config{number}.py"));
                let line = format!("enf_cfg = dict(dist_cfg=dict(backend='nccl', port={port}))\n");
                fs::write(&path, fs::read_to_string(&path).expect("the config") + &line)
                    .expect("writes");
            }
        }
        let runs = pair.each_ref().map(|line| start(&mut typed(line)));
        for run in runs {
            let (code, said) = outcome(run, Duration::from_mins(2));
            assert_eq!(code, Some(0), "{said}");
            assert_eq!(
                said.contains("nothing uses `enf_cfg`; did you mean `env_cfg`?"),
                name != "a",
                "{said}"
            );
        }
        trained(here, &format!("{name}1"));
        trained(here, &format!("{name}2"));
    }
    let script = works(
        "segslurm slurm_train dev pspnet config.py written --cfg-options \
         env_cfg.dist_cfg.port=29500",
    );
    assert!(script.contains("#SBATCH") && script.contains("--work-dir written"), "{script}");
}
