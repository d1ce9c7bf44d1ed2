//! What a rank computes on: the GPUs that it was given and can use, or the CPU because somebody
//! said so.
//!
//! A job that holds GPUs and trains on the CPU wastes days before anybody looks. So whoever was
//! given GPUs, by Slurm, by `CUDA_VISIBLE_DEVICES` or by a launcher on a machine that has some,
//! gets them or an error that says why not; and whoever means the CPU says so with
//! `SEGSLURM_DEVICE=cpu`, `GPUS=0` or `CUDA_VISIBLE_DEVICES=-1`.

use std::path::Path;

use segslurm_native::collective::libtorch_version;
use segslurm_native::cuda::{self, Card, Versions};

use super::{DistError, Launcher};
use crate::variables;

/// The variables by which Slurm says that a job or step holds GPUs of this node.
const HELD: [&str; 3] = ["SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE"];

/// How one says that the CPU is meant.
const ON_PURPOSE: &str =
    "whoever means the CPU says so: SEGSLURM_DEVICE=cpu (a Slurm job without GPUs: GPUS=0)";

/// The GPUs of a process, as it was given them and as it found them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accelerator {
    /// CUDA devices that this process may use; 0 for the CPU.
    pub gpus: usize,
    /// Why it is the CPU, for the log.
    pub reason: Option<String>,
    /// GPUs were given and cannot be used: who gave them, why, and what to do.
    pub trouble: Option<String>,
    /// Nobody gave this process GPUs expressly, but the machine has some and they cannot be used.
    pub missed: Option<String>,
}

/// What the machine and libtorch say.
struct Probe {
    /// How many devices CUDA shows, or why none.
    shown: Result<usize, String>,
    /// The machine has NVIDIA GPUs, usable or not.
    present: bool,
}

/// Why this very program can use no GPU on any machine, unless the variables say that the CPU is
/// meant: a job that asks for GPUs need not wait in a queue to find out.
pub(crate) fn never_uses_gpus(
    var: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, DistError> {
    let meant = matches!(Wish::read(var)?, Wish::Cpu(_));
    Ok((!meant && !cuda::is_built()).then(|| format!("{}; {ON_PURPOSE}", explain(""))))
}

impl Accelerator {
    /// Reads the variables through `var` and asks CUDA. An error where `SEGSLURM_DEVICE` is none of
    /// its values.
    pub fn find(
        var: &dyn Fn(&str) -> Option<String>,
        launcher: Launcher,
    ) -> Result<Self, DistError> {
        let wish = Wish::read(var)?;
        if let Wish::Cpu(reason) = wish {
            return Ok(Self { reason: Some(reason), ..Self::default() });
        }
        let probe = Probe {
            shown: cuda::count().map_err(|error| explain(&error.to_string())),
            present: gpus_present(),
        };
        Ok(Self::decide(&wish, var, launcher, &probe))
    }

    fn decide(
        wish: &Wish,
        var: &dyn Fn(&str) -> Option<String>,
        launcher: Launcher,
        probe: &Probe,
    ) -> Self {
        let set = |name: &str| variables::text(var, name);
        let said = |name: &str, value: &str| format!("{name}={value}");
        let visible = set("CUDA_VISIBLE_DEVICES").filter(|it| it != "NoDevFiles");
        let held = HELD
            .iter()
            .find_map(|name| set(name).filter(|it| it != "0").map(|value| said(name, &value)));
        let given = match wish {
            Wish::Cuda => Some("SEGSLURM_DEVICE=cuda".to_owned()),
            _ => held.filter(|_| set("SLURM_JOB_ID").is_some()).or_else(|| {
                let by_list = visible.as_ref().map(|list| said("CUDA_VISIBLE_DEVICES", list));
                by_list.or_else(|| {
                    (launcher != Launcher::None && probe.present).then(|| {
                        format!("--launcher {} on a machine with NVIDIA GPUs", launcher.name())
                    })
                })
            }),
        };
        match (&probe.shown, given) {
            (Ok(shown), given) => {
                let listed = visible.as_ref().map_or(*shown, |list| {
                    list.split(',').filter(|it| !it.trim().is_empty()).count()
                });
                let trouble = given.filter(|_| listed > *shown).map(|_| {
                    format!(
                        "CUDA_VISIBLE_DEVICES={} names {listed} GPUs, but CUDA shows {shown}: it \
                         stops at the first that is not there (`nvidia-smi -L` lists them)",
                        visible.unwrap_or_default()
                    )
                });
                Self { gpus: *shown, trouble, ..Self::default() }
            }
            (Err(why), Some(given)) => {
                let trouble = format!(
                    "{given} gives this process GPUs, but it can use none: {why}; {ON_PURPOSE}"
                );
                Self { trouble: Some(trouble), ..Self::default() }
            }
            (Err(why), None) if probe.present && var("CUDA_VISIBLE_DEVICES").is_none() => Self {
                missed: Some(format!(
                    "this machine has NVIDIA GPUs, but segslurm can use none: {why}; {ON_PURPOSE}"
                )),
                ..Self::default()
            },
            (Err(why), None) => Self { reason: Some(why.clone()), ..Self::default() },
        }
    }
}

/// The libtorch of this process in a line: its version and what its CUDA half is made of.
pub(crate) fn libtorch() -> String {
    let version = libtorch_version();
    match cuda::versions() {
        Some(Versions { cuda, cudnn, nccl }) => {
            let cudnn = cudnn.map_or_else(String::new, |it| format!("cuDNN {it}, "));
            format!("libtorch {version} (CUDA {cuda}, {cudnn}NCCL {nccl})")
        }
        None => format!("libtorch {version} (CPU build)"),
    }
}

/// The card of that index among those that this process may use.
pub(crate) fn card(index: usize) -> Result<Card, DistError> {
    cuda::card(index)
        .map_err(|error| DistError::Accelerator(format!("cuda:{index} does not answer: {error}")))
}

/// What somebody asked for expressly.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Any,
    Cuda,
    /// With the variable that says so.
    Cpu(String),
}

impl Wish {
    fn read(var: &dyn Fn(&str) -> Option<String>) -> Result<Self, DistError> {
        match var("SEGSLURM_DEVICE").as_deref().map(str::trim) {
            None | Some("" | "auto") => {}
            Some("cpu") => return Ok(Self::Cpu("SEGSLURM_DEVICE=cpu".to_owned())),
            Some("cuda") => return Ok(Self::Cuda),
            Some(other) => {
                let message = format!(
                    "SEGSLURM_DEVICE is {other:?}: expected cpu, cuda or auto (which GPUs: \
                     CUDA_VISIBLE_DEVICES)"
                );
                return Err(DistError::Launcher(message));
            }
        }
        let says = |name: &str, value: &str| {
            var(name)
                .is_some_and(|it| it.trim() == value)
                .then(|| Self::Cpu(format!("{name}={value}")))
        };
        Ok(says("GPUS", "0").or_else(|| says("CUDA_VISIBLE_DEVICES", "-1")).unwrap_or(Self::Any))
    }
}

/// Why CUDA shows no device, for a person who expected one.
fn explain(said: &str) -> String {
    let folder =
        cuda::libtorch_folder().map_or_else(String::new, |it| format!(" in {}", it.display()));
    let Some(versions) = cuda::versions() else {
        return format!(
            "this segslurm is linked against libtorch's CPU build{folder}; build it with `make \
             build CUDA=1` (docs/installation.md)"
        );
    };
    // libtorch's sentence, without its advice for Python.
    let sentence = said
        .lines()
        .next()
        .unwrap_or_default()
        .split(". ")
        .next()
        .unwrap_or_default()
        .trim_end_matches('.');
    let driver = driver().map_or_else(
        || "no NVIDIA driver is loaded".to_owned(),
        |it| format!("the NVIDIA driver is {it}"),
    );
    format!("{sentence} ({driver}, libtorch is built for CUDA {})", versions.cuda)
}

/// The version of the machine's NVIDIA driver, as the kernel tells.
fn driver() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    parse_driver(&text)
}

fn parse_driver(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let number =
        |word: &&str| word.contains('.') && word.chars().all(|it| it.is_ascii_digit() || it == '.');
    line.split_whitespace().find(number).map(str::to_owned)
}

/// Whether the machine has NVIDIA GPUs, as its device files tell.
fn gpus_present() -> bool {
    let listed =
        |folder: &str| std::fs::read_dir(Path::new(folder)).into_iter().flatten().flatten();
    let numbered = |name: &str| {
        name.strip_prefix("nvidia")
            .is_some_and(|it| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit()))
    };
    listed("/proc/driver/nvidia/gpus").next().is_some()
        || listed("/dev").any(|it| it.file_name().to_str().is_some_and(numbered))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: &str = "no NVIDIA driver";

    type Set = [(&'static str, &'static str)];

    fn decide(
        variables: &[(&str, &str)],
        launcher: Launcher,
        shown: Result<usize, &str>,
        present: bool,
    ) -> Result<Accelerator, String> {
        let var = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let wish = Wish::read(&var).map_err(|error| error.to_string())?;
        if let Wish::Cpu(reason) = wish {
            return Ok(Accelerator { reason: Some(reason), ..Accelerator::default() });
        }
        let probe = Probe { shown: shown.map_err(str::to_owned), present };
        Ok(Accelerator::decide(&wish, &var, launcher, &probe))
    }

    #[test]
    fn who_was_given_gpus_and_cannot_use_them_is_in_trouble() {
        let cases: [(&Set, Launcher, bool, &str); 7] = [
            (
                &[("CUDA_VISIBLE_DEVICES", "0,1")],
                Launcher::None,
                false,
                "CUDA_VISIBLE_DEVICES=0,1 gives",
            ),
            (
                &[("SLURM_JOB_ID", "7"), ("SLURM_GPUS_ON_NODE", "4")],
                Launcher::Slurm,
                false,
                "SLURM_GPUS_ON_NODE=4 gives",
            ),
            (
                &[("SLURM_JOB_ID", "7"), ("SLURM_STEP_GPUS", "2,3")],
                Launcher::Slurm,
                false,
                "SLURM_STEP_GPUS=2,3 gives",
            ),
            (
                &[("SLURM_JOB_ID", "7"), ("SLURM_JOB_GPUS", "0"), ("SLURM_GPUS_ON_NODE", "1")],
                Launcher::None,
                false,
                "SLURM_GPUS_ON_NODE=1 gives",
            ),
            (
                &[
                    ("SLURM_JOB_ID", "7"),
                    ("SLURM_GPUS_ON_NODE", "4"),
                    ("CUDA_VISIBLE_DEVICES", "NoDevFiles"),
                ],
                Launcher::Slurm,
                false,
                "SLURM_GPUS_ON_NODE=4 gives",
            ),
            (
                &[],
                Launcher::Pytorch,
                true,
                "--launcher pytorch on a machine with NVIDIA GPUs gives",
            ),
            (&[("SEGSLURM_DEVICE", "cuda")], Launcher::None, false, "SEGSLURM_DEVICE=cuda gives"),
        ];
        for (variables, launcher, present, start) in cases {
            let found = decide(variables, launcher, Err(NONE), present).expect("known values");
            let trouble = found.trouble.unwrap_or_default();
            assert!(
                trouble.starts_with(start)
                    && trouble.contains(NONE)
                    && trouble.contains("SEGSLURM_DEVICE=cpu"),
                "{trouble}"
            );
            assert_eq!(
                decide(variables, launcher, Ok(4), present).expect("known values"),
                Accelerator { gpus: 4, ..Accelerator::default() }
            );
        }
    }

    #[test]
    fn who_says_the_cpu_gets_it_without_a_question() {
        let slurm = [
            ("SLURM_JOB_ID", "7"),
            ("SLURM_GPUS_ON_NODE", "4"),
            ("CUDA_VISIBLE_DEVICES", "0,1,2,3"),
        ];
        for (name, value) in
            [("SEGSLURM_DEVICE", "cpu"), ("GPUS", "0"), ("CUDA_VISIBLE_DEVICES", "-1")]
        {
            let variables: Vec<_> = [(name, value)].into_iter().chain(slurm).collect();
            let found = decide(&variables, Launcher::Slurm, Err(NONE), true).expect("known values");
            assert_eq!(
                found,
                Accelerator { reason: Some(format!("{name}={value}")), ..Accelerator::default() }
            );
        }
        let refused = decide(&[("SEGSLURM_DEVICE", "gpu0")], Launcher::None, Err(NONE), false)
            .expect_err("no such value");
        assert!(
            refused.contains("SEGSLURM_DEVICE is \"gpu0\": expected cpu, cuda or auto"),
            "{refused}"
        );
    }

    #[test]
    fn without_gpus_nobody_is_in_trouble_and_those_of_the_machine_are_missed() {
        let found = decide(&[("CUDA_VISIBLE_DEVICES", "")], Launcher::None, Err(NONE), true)
            .expect("known values");
        assert_eq!(
            (found.trouble, found.missed, found.reason.as_deref()),
            (None, None, Some(NONE))
        );
        let found = decide(&[], Launcher::Pytorch, Err(NONE), false).expect("known values");
        assert_eq!(
            (found.trouble, found.missed, found.reason.as_deref()),
            (None, None, Some(NONE))
        );
        let found = decide(&[("SLURM_GPUS_ON_NODE", "4")], Launcher::None, Err(NONE), false)
            .expect("known values");
        assert_eq!(found.trouble, None, "left over from another shell: there is no job");
        let missed = decide(&[], Launcher::None, Err(NONE), true)
            .expect("known values")
            .missed
            .unwrap_or_default();
        assert!(
            missed.starts_with(
                "this machine has NVIDIA GPUs, but segslurm can use none: no NVIDIA driver"
            ),
            "{missed}"
        );
    }

    #[test]
    fn a_listed_gpu_that_is_not_there_is_told() {
        let found = decide(&[("CUDA_VISIBLE_DEVICES", "0,1,9")], Launcher::None, Ok(2), true)
            .expect("known values");
        let trouble = found.trouble.unwrap_or_default();
        assert!(
            trouble.contains("CUDA_VISIBLE_DEVICES=0,1,9 names 3 GPUs, but CUDA shows 2"),
            "{trouble}"
        );
    }

    #[test]
    fn the_drivers_version_is_read_as_the_kernel_writes_it() {
        let text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release \
                    Build  (dvs-builder)\nGCC version: gcc 12.2.0\n";
        assert_eq!(parse_driver(text).as_deref(), Some("580.159.04"));
        assert_eq!(parse_driver("nothing"), None);
    }
}
