//! Other people's launchers, the real ones, and two machines: each must give the training that
//! `dist_train` gives.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::harness::{self, CONFIG, Steps, dataset, ends_in, exact, segslurm, small, steps, text};
use crate::ranks::dist_train;

/// Where a program is. An absent one fails the test: as root `scripts/test-tools.sh` installs it.
/// Only where nobody could install it, the test is skipped, and says so.
#[track_caller]
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.map(|it| it.join(name)).find(|it| it.is_file());
    assert!(
        found.is_some() || !nix::unistd::geteuid().is_root(),
        "{name} is missing: run scripts/test-tools.sh"
    );
    if found.is_none() {
        harness::skip(&format!(
            "{name} is not installed; as root, scripts/test-tools.sh installs it"
        ));
    }
    found
}

/// What two ranks of `dist_train` log.
fn expected() -> &'static Steps {
    static STEPS: OnceLock<Steps> = OnceLock::new();
    STEPS.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        ends_in(&mut dist_train(folder.path(), 2, 3), 0);
        exact(&steps(folder.path()))
    })
}

/// Adds `segslurm train` on the small config, started by `launcher`, to a launcher's command line.
fn train(command: &mut Command, launcher: &str, work_dir: &Path) {
    let mut program = segslurm();
    program
        .args(["train", CONFIG, "--launcher", launcher, "--work-dir"])
        .arg(work_dir)
        .args(small(dataset(), 3));
    copy(&program, command);
}

#[test]
fn the_real_torchrun_starts_ranks() {
    let peer = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/parity/venv/bin/torchrun");
    let newer = peer.exists().then_some(peer);
    let programs: Vec<PathBuf> = program("torchrun").into_iter().chain(newer).collect();
    for torchrun in programs {
        // Standalone: the ranks serve their own store. Otherwise torchrun serves it, which an older
        // one than ours cannot.
        let modern =
            text(&ends_in(Command::new(&torchrun).arg("--help"), 0).stdout).contains("--no-python");
        for standalone in [true, false].into_iter().filter(|&it| it || modern) {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let mut command = Command::new(&torchrun);
            let port = harness::free_port().to_string();
            if standalone {
                command.arg("--standalone");
            } else {
                command.args(["--master_addr", "127.0.0.1", "--master_port", &port]);
            }
            // The redirections mean nothing here: Debian's torchrun fails without them on the
            // Python beside it.
            command.args([
                "--redirects",
                "1",
                "--tee",
                "1",
                "--no_python",
                "--nproc_per_node",
                "2",
            ]);
            train(&mut command, "pytorch", folder.path());
            ends_in(&mut command, 0);
            assert_eq!(
                &exact(&steps(folder.path())),
                expected(),
                "{}, standalone {standalone}",
                torchrun.display()
            );
        }
    }
}

#[test]
fn the_real_mpirun_starts_ranks() {
    let Some(mpirun) = program("mpirun") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(mpirun);
    command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", "2"]);
    train(&mut command, "mpi", folder.path());
    command.env("MASTER_PORT", harness::free_port().to_string());
    ends_in(&mut command, 0);
    assert_eq!(&exact(&steps(folder.path())), expected());
}

/// Two network namespaces joined by a virtual cable: two machines, as far as sockets can tell.
struct Cable {
    names: [String; 2],
}

impl Cable {
    const ADDRESSES: [&str; 2] = ["10.213.77.1", "10.213.77.2"];

    /// `None`, said aloud, where namespaces cannot be made.
    fn lay() -> Option<Self> {
        let ip = program("ip")?;
        let names = [0, 1].map(|it| format!("sgt{}-{it}", std::process::id()));
        let cable = Self { names };
        let ends = [0, 1].map(|it| format!("sg{}v{it}", std::process::id() % 1_000_000));
        let run = |line: &str| Command::new(&ip).args(line.split(' ')).output().expect("ip starts");
        for (name, number) in cable.names.iter().zip(1..) {
            let output = run(&format!("netns add {name}"));
            if !output.status.success() {
                harness::skip(&format!(
                    "no network namespace can be made here ({}): machine {number} of 2 is this \
                     one, over loopback",
                    text(&output.stderr).trim()
                ));
                return None;
            }
        }
        let made = run(&format!(
            "link add {} netns {} type veth peer name {} netns {}",
            ends[0], cable.names[0], ends[1], cable.names[1]
        ));
        assert!(made.status.success(), "{}", text(&made.stderr));
        for ((name, end), address) in cable.names.iter().zip(&ends).zip(Self::ADDRESSES) {
            for line in [
                format!("-n {name} address add {address}/24 dev {end}"),
                format!("-n {name} link set {end} up"),
                format!("-n {name} link set lo up"),
            ] {
                let done = run(&line);
                assert!(done.status.success(), "{line}: {}", text(&done.stderr));
            }
        }
        Some(cable)
    }

    /// `command` on one of the machines, whose host name does not resolve.
    fn on(&self, machine: usize, command: &Command) -> Command {
        let mut there = Command::new("ip");
        let script = format!("hostname nowhere-{machine} && exec \"$@\"");
        there.args([
            "netns",
            "exec",
            &self.names[machine],
            "unshare",
            "--uts",
            "sh",
            "-c",
            &script,
            "sh",
        ]);
        copy(command, &mut there);
        there
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

fn copied(command: &Command) -> Command {
    let mut other = Command::new("env");
    copy(command, &mut other);
    other
}

/// Appends a command to another, which runs it.
fn copy(from: &Command, to: &mut Command) {
    to.arg(from.get_program()).args(from.get_args()).current_dir(env!("CARGO_MANIFEST_DIR"));
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
}

#[test]
fn two_machines_whose_names_do_not_resolve_train_as_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let port = harness::free_port().to_string();
    let cable = Cable::lay();
    let address = if cable.is_some() { Cable::ADDRESSES[0] } else { "127.0.0.1" };
    let machine = |number: usize| {
        let command = on_machine(folder.path(), 3, number, address, &port);
        let mut there =
            cable.as_ref().map_or_else(|| copied(&command), |it| it.on(number, &command));
        there.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    };
    for (number, child) in [1, 0].map(|it| (it, machine(it))) {
        let output = child.wait_with_output().expect("it ends");
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "machine {number}: {said}");
        if number == 0 && cable.is_some() {
            assert!(said.contains("2 ranks over gloo on nowhere-0, nowhere-1"), "{said}");
        }
    }
    assert_eq!(&exact(&steps(folder.path())), expected());
}

/// What a user types on each of two machines.
fn on_machine(
    work_dir: &Path,
    iterations: u32,
    number: usize,
    address: &str,
    port: &str,
) -> Command {
    let mut command = dist_train(work_dir, 1, iterations);
    command
        .env("NNODES", "2")
        .env("NODE_RANK", number.to_string())
        .env("MASTER_ADDR", address)
        .env("PORT", port);
    command
}

#[test]
fn a_machine_that_dies_is_named_on_the_other() {
    let Some(cable) = Cable::lay() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let port = harness::free_port().to_string();
    let mut children = [0, 1].map(|number| {
        let command = on_machine(folder.path(), 100_000, number, Cable::ADDRESSES[0], &port);
        cable
            .on(number, &command)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts")
    });
    crate::ranks::wait_for_steps(folder.path(), 2);
    // The cable is cut: no socket is closed, the other side just falls silent.
    let ip = |line: &str| Command::new("ip").args(line.split(' ')).status().expect("ip starts");
    let end = format!("sg{}v1", std::process::id() % 1_000_000);
    assert!(ip(&format!("-n {} link set {end} down", cable.names[1])).success());
    let cut = std::time::Instant::now();
    for (child, name) in
        children.iter_mut().zip(["rank 1 (host nowhere-1)", "rank 0 (host nowhere-0)"])
    {
        let status = child.wait().expect("it ends");
        assert!(cut.elapsed().as_secs() < 12, "after {:?}", cut.elapsed());
        assert_eq!(status.code(), Some(69), "{name}");
        let mut said = String::new();
        std::io::Read::read_to_string(child.stderr.as_mut().expect("piped"), &mut said)
            .expect("text");
        assert!(said.contains(&format!("{name} died")), "{said}");
    }
}
