//! A test on two ranks: it starts itself again, once a rank, and they meet over real Gloo.

use std::process::{Command, Stdio};

use segslurm::testing::dist::{Accelerator, Backend, DistConfig, Group, Launched, Launcher, join};

use crate::harness::{free_port, text};

/// Runs `work` on two ranks. `test` is the test's own path, as `group::name`.
pub(crate) fn on_two_ranks(test: &str, work: impl FnOnce(&Group)) {
    let variable = |name: &str| std::env::var(format!("SEGSLURM_TEST_{name}")).ok();
    if variable("RANK").is_none() {
        let port = free_port().to_string();
        let ranks = ["0", "1"].map(|rank| {
            let mut command = Command::new(std::env::current_exe().expect("this test"));
            command
                .args(["--exact", test, "--nocapture", "--include-ignored"])
                .env("OMP_NUM_THREADS", "1")
                .env("CUDA_VISIBLE_DEVICES", "-1");
            for (name, value) in [
                ("RANK", rank),
                ("LOCAL_RANK", rank),
                ("WORLD_SIZE", "2"),
                ("MASTER_ADDR", "127.0.0.1"),
                ("MASTER_PORT", &port),
            ] {
                command.env(format!("SEGSLURM_TEST_{name}"), value);
            }
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the test starts")
        });
        for (rank, child) in ranks.into_iter().enumerate() {
            let output = child.wait_with_output().expect("it ends");
            assert!(
                output.status.success(),
                "rank {rank}: {}{}",
                text(&output.stdout),
                text(&output.stderr)
            );
            assert!(
                text(&output.stdout).contains("1 passed"),
                "rank {rank} ran the test: {}",
                text(&output.stdout)
            );
        }
        return;
    }
    let config = DistConfig {
        backend: Some(Backend::Gloo),
        rendezvous_timeout: 30.0,
        ..DistConfig::default()
    };
    let launched =
        Launched::read(Launcher::Pytorch, &variable, None, &config, 0).expect("complete");
    let group = join(&launched, &config, None, &Accelerator::default()).expect("the ranks meet");
    work(&group);
    group.finish().expect("all are done");
}
