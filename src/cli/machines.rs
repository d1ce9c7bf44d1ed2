//! What `dist_train` and `dist_test` share: the machines and ranks of a run, from the command line
//! and mmseg's variables.

use std::ffi::OsString;
use std::num::NonZeroUsize;

use clap::Args as ClapArgs;

use crate::dist::Launcher;
use crate::exit::{Exit, Failure};
use crate::experiment::Experiment;
use crate::launch::local::{Local, Machines};
use crate::port::{self, Port};
use crate::rundir::{RunDir, stamp_now};
use crate::variables::{Variables, number, text};
use crate::worker::Task;

/// For the commands' help.
pub(super) const ENVIRONMENT: &str = "Environment:
  NNODES                machines of the run (1); each of them is given the same command
  NODE_RANK             this machine's place among them, from 0
  MASTER_ADDR           name or address of machine 0, needed with NNODES above 1
  PORT                  where the ranks meet on machine 0, unless env_cfg.dist_cfg.port says it; without both MASTER_PORT, else
                        a free one (with NNODES above 1: 29500)
  CUDA_VISIBLE_DEVICES  the GPUs to use; -1 for none
  SEGSLURM_DEVICE       cpu or cuda; GPUs that are given and cannot be used are an error unless it is cpu
  OMP_NUM_THREADS       threads of one rank on the CPU; without it the machine's cores are shared out
  GLOO_SOCKET_IFNAME    the network interface for ranks without GPUs, where a machine has several";

/// Ranks, and the options that they are given.
#[derive(Debug, ClapArgs)]
pub(super) struct Ranks {
    /// GPUs of this machine to use, with one rank each; without GPUs the number of ranks
    gpus: NonZeroUsize,

    /// Options of the command that the ranks run
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    pub(super) options: Vec<OsString>,
}

impl Ranks {
    /// Starts this machine's ranks on `arguments` and waits for them. `task` is what each will make
    /// of them.
    pub(super) fn start(
        &self,
        arguments: Vec<OsString>,
        task: &Task,
        variables: Variables,
    ) -> Result<Exit, Failure> {
        if task.launcher != Launcher::None || task.local_rank.is_some() {
            let message = "--launcher and --local_rank are for the ranks, which this command \
                           starts: leave them out";
            return Err(Failure::new(Exit::Usage, message));
        }
        // Read here first: a mistake in the config is told once, before anything is started.
        let config = Experiment::load_config(&task.config, &task.overrides)?;
        let experiment = Experiment::from_config(&config)?;
        let machines = machines(variables)?;
        let port = port(variables, experiment.env_cfg.dist_cfg.port, machines.count)?;
        let work_dir =
            RunDir::choose(task.work_dir.as_deref(), experiment.work_dir.as_deref(), &task.config);
        let output = RunDir::output(&work_dir, &stamp_now());
        Local { arguments, ranks: self.gpus.get(), machines, port, output }.execute()
    }
}

fn usage(message: String) -> Failure {
    Failure::new(Exit::Usage, message)
}

fn machines(variables: Variables) -> Result<Machines, Failure> {
    let count = number(variables, "NNODES")?.unwrap_or(1);
    let own = number(variables, "NODE_RANK")?.unwrap_or(0);
    if own >= count {
        return Err(usage(format!(
            "NODE_RANK is {own} and NNODES is {count}: machines are counted from 0 to NNODES - 1"
        )));
    }
    let address = match text(variables, "MASTER_ADDR") {
        Some(address) => address,
        None if count == 1 => return Ok(Machines::default()),
        None => {
            let message = format!(
                "NNODES is {count}, but MASTER_ADDR is not set: give all machines the address of \
                 machine 0"
            );
            return Err(usage(message));
        }
    };
    Ok(Machines { count, own, address })
}

/// The port that was chosen; several machines
/// cannot agree on a free one.
fn port(
    variables: Variables,
    config: Option<u16>,
    machines: usize,
) -> Result<Option<Port>, Failure> {
    let chosen = Port::chosen(config, variables, &["PORT", "MASTER_PORT"])?;
    Ok(chosen.or((machines > 1).then_some(port::USUAL)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(variables: &[(&str, &str)], read: impl Fn(Variables) -> T) -> T {
        read(&|name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn one_machine_needs_nothing_and_several_need_an_address() {
        assert_eq!(with(&[], machines).expect("one"), Machines::default());
        let two = [("NNODES", "2"), ("NODE_RANK", "1"), ("MASTER_ADDR", "n1")];
        assert_eq!(
            with(&two, machines).expect("two"),
            Machines { count: 2, own: 1, address: "n1".to_owned() }
        );
        let error = with(&two[..2], machines).expect_err("no address").message;
        assert!(error.contains("MASTER_ADDR is not set"), "{error}");
        let error = with(&[("NODE_RANK", "1")], machines).expect_err("outside").message;
        assert!(error.contains("NODE_RANK is 1 and NNODES is 1"), "{error}");
        let error = with(&[("NNODES", "two")], machines).expect_err("no number").message;
        assert_eq!(error, "NNODES=\"two\": expected a whole number");
    }

    #[test]
    fn the_port_is_the_configs_then_the_users_then_free() {
        let chosen = |variables: &[_], config, machines| {
            let port = with(variables, |it| port(it, config, machines)).expect("a number");
            port.map(|it| (it.number, it.origin.to_string()))
        };
        assert_eq!(
            chosen(&[("PORT", "1")], Some(3), 1),
            Some((3, "env_cfg.dist_cfg.port".to_owned()))
        );
        assert_eq!(
            chosen(&[("MASTER_PORT", "2"), ("PORT", "1")], None, 1),
            Some((1, "PORT".to_owned()))
        );
        assert_eq!(chosen(&[], None, 2), Some((29500, "the default".to_owned())));
        assert_eq!(chosen(&[("PORT", "")], None, 1), None);
    }
}
