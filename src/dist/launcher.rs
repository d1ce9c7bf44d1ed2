//! Who started this process, and what its variables say: rank, world, and where to meet.
//!
//! Which variables count is said by `--launcher`, never guessed: shells inside an allocation carry
//! `SLURM_*` too. The variables come in through a closure, so that every case is a test.

use clap::ValueEnum;
use serde::Deserialize;

use super::{DistConfig, DistError, handoff};
use crate::port::{self, Port};
use crate::slurm::env::{Place, StepDaemon};
use crate::variables;

/// More ranks than any cluster starts: whoever makes a list of them can.
const MOST_RANKS: usize = 1 << 20;

/// Who started this process, as mmengine's `--launcher` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Launcher {
    /// One process
    #[default]
    None,
    /// torchrun or `segslurm dist_train`: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT
    Pytorch,
    /// A Slurm job step: the SLURM_* variables
    Slurm,
    /// mpirun: OMPI_COMM_WORLD_*, PMI_* or PMIX_*
    Mpi,
}

impl Launcher {
    /// As `--launcher` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pytorch => "pytorch",
            Self::Slurm => "slurm",
            Self::Mpi => "mpi",
        }
    }
}

/// A process's place in its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    pub rank: usize,
    pub world: usize,
    /// The place on this machine, which chooses the GPU.
    pub local_rank: usize,
    /// Ranks on this machine.
    pub local_world: usize,
    /// Host name or address of rank 0's machine.
    pub address: String,
    pub port: u16,
    /// Who set the port: a variable or a config key, for messages.
    pub port_from: String,
    /// What somebody said of the port that is not looked at.
    pub port_remark: Option<String>,
    /// A listening socket inherited from the launcher, for rank 0 to serve at.
    pub listening: Option<i32>,
    /// The launcher itself serves the store (torchrun), so that every rank is a client.
    pub served: bool,
    /// Tells this start from others that meet at the same place.
    pub id: String,
    /// The machine of each rank, as far as the launcher knows it before the ranks come; else empty.
    pub hosts: Vec<String>,
    /// Slurm's name of this machine. Where it is set, `address` is such a name too unless somebody
    /// chose another.
    pub node: Option<String>,
    /// GPUs that this process may use.
    pub gpus: usize,
    /// This rank's among them, where the launcher settles that.
    pub gpu: Option<usize>,
}

impl Launched {
    /// One process on its own, which may use so many GPUs.
    pub fn alone(gpus: usize) -> Self {
        Self {
            rank: 0,
            world: 1,
            local_rank: 0,
            local_world: 1,
            address: "127.0.0.1".into(),
            port: 0,
            port_from: "nobody".into(),
            port_remark: None,
            listening: None,
            served: false,
            id: String::new(),
            hosts: Vec::new(),
            node: None,
            gpus,
            gpu: None,
        }
    }

    /// The index of this rank's GPU among those that it may use, starting over where they are fewer
    /// than ranks; `None` for the CPU.
    pub fn gpu_index(&self) -> Option<usize> {
        (self.gpus > 0).then(|| self.gpu.unwrap_or(self.local_rank) % self.gpus)
    }

    /// Whether a GPU is there for this rank and no other.
    pub fn has_own_gpu(&self) -> bool {
        self.gpu.unwrap_or(self.local_rank) < self.gpus
    }

    /// Reads the variables of `launcher` through `var`. `local_rank` is the flag that old launchers
    /// pass; `gpus` is how many this process may use.
    pub fn read(
        launcher: Launcher,
        var: &dyn Fn(&str) -> Option<String>,
        local_rank: Option<usize>,
        config: &DistConfig,
        gpus: usize,
    ) -> Result<Self, DistError> {
        let variables = Launching { var, config, gpus };
        let launched = match launcher {
            Launcher::None => return Ok(Self::alone(gpus)),
            Launcher::Pytorch => variables.pytorch(local_rank)?,
            Launcher::Mpi => variables.mpi()?,
            Launcher::Slurm => variables.slurm(StepDaemon::of_this_process().as_ref())?,
        };
        let Self { rank, world, local_rank, local_world, .. } = launched;
        if rank >= world {
            return Err(DistError::Launcher(format!(
                "rank {rank} is outside a world of {world}: ranks go from 0 to {}",
                world - 1
            )));
        }
        if local_rank >= local_world || local_world > world {
            return Err(DistError::Launcher(format!(
                "local rank {local_rank} of {local_world} on this machine does not fit a world of \
                 {world}"
            )));
        }
        let port_remark = match config.port {
            Some(port) if port != launched.port => Some(format!(
                "the ranks meet at port {}, set by {}: env_cfg.dist_cfg.port is not looked at",
                launched.port, launched.port_from
            )),
            port => Port::chosen(port, var, &["MASTER_PORT"])?.and_then(|it| it.remark()),
        };
        Ok(Self { port_remark, ..launched })
    }
}

struct Launching<'a> {
    var: &'a dyn Fn(&str) -> Option<String>,
    config: &'a DistConfig,
    gpus: usize,
}

impl Launching<'_> {
    fn text(&self, name: &str) -> Option<String> {
        variables::text(self.var, name)
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, DistError> {
        Ok(variables::number(self.var, name)?)
    }

    fn required<T: std::str::FromStr>(&self, name: &str, hint: &str) -> Result<T, DistError> {
        self.number(name)?.ok_or_else(|| DistError::Launcher(format!("{name} is not set: {hint}")))
    }

    /// The first of `names` that is set, with its name.
    fn first(&self, names: &[&str]) -> Result<Option<usize>, DistError> {
        for name in names {
            if let Some(value) = self.number(name)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn world(world: usize, name: &str) -> Result<usize, DistError> {
        match world {
            0 => Err(DistError::Launcher(format!("{name} is 0: expected at least 1 rank"))),
            1..=MOST_RANKS => Ok(world),
            _ => Err(DistError::Launcher(format!(
                "{name} is {world}: expected at most {MOST_RANKS} ranks"
            ))),
        }
    }

    /// The port that was chosen, with the config's as `config`.
    fn port(&self, config: Option<u16>) -> Result<Option<Port>, DistError> {
        Ok(Port::chosen(config, self.var, &["MASTER_PORT"])?)
    }

    fn pytorch(&self, flag: Option<usize>) -> Result<Launched, DistError> {
        let hint = "was this started by torchrun or `segslurm dist_train`? for one process leave \
                    --launcher out";
        let rank = self.required("RANK", hint)?;
        let world = Self::world(self.required("WORLD_SIZE", hint)?, "WORLD_SIZE")?;
        let Some(local_rank) = self.number("LOCAL_RANK")?.or(flag) else {
            return Err(DistError::Launcher(format!(
                "LOCAL_RANK is not set: {hint}, or pass --local_rank"
            )));
        };
        let address = self
            .text("MASTER_ADDR")
            .ok_or_else(|| DistError::Launcher(format!("MASTER_ADDR is not set: {hint}")))?;
        // torchrun serves at its own port, whatever a config says.
        let port = self.port(None)?.or(self.port(self.config.port)?).unwrap_or(port::USUAL);
        let attempt = self.text("TORCHELASTIC_RESTART_COUNT").unwrap_or_default();
        let local_world = self.number("LOCAL_WORLD_SIZE")?.unwrap_or(world.max(1));
        let launched = Launched {
            rank,
            world,
            local_rank,
            local_world,
            address,
            port: port.number,
            port_from: port.origin.to_string(),
            port_remark: None,
            listening: None,
            served: self
                .text("TORCHELASTIC_USE_AGENT_STORE")
                .is_some_and(|it| it.eq_ignore_ascii_case("true")),
            id: format!("{}/{attempt}", self.text("TORCHELASTIC_RUN_ID").unwrap_or_default()),
            hosts: Vec::new(),
            node: None,
            gpus: self.gpus,
            gpu: None,
        };
        handoff::read(launched, self.var)
    }

    fn mpi(&self) -> Result<Launched, DistError> {
        let missing = |what: &str, names: &[&str]| {
            let names = names.join(", ");
            DistError::Launcher(format!(
                "no {what} from MPI (looked for {names}): was this started by mpirun or mpiexec?"
            ))
        };
        let find =
            |what: &str, names: &[&str]| self.first(names)?.ok_or_else(|| missing(what, names));
        let rank = find("rank", &["OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"])?;
        let world = Self::world(
            find("world size", &["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])?,
            "MPI's world size",
        )?;
        let local_rank =
            self.first(&["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PMI_LOCAL_RANK"])?;
        let local_world =
            self.first(&["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "PMI_LOCAL_SIZE"])?;
        let one_machine = local_world == Some(world) || world == 1;
        let address = match self.text("MASTER_ADDR") {
            Some(address) => address,
            None if one_machine => "127.0.0.1".into(),
            None => {
                return Err(DistError::Launcher(format!(
                    "MASTER_ADDR is not set, and the {world} ranks are on several machines: pass \
                     the first machine's name or address to all, as in `mpirun -x MASTER_ADDR=n1 \
                     …`"
                )));
            }
        };
        let port = self.port(self.config.port)?.unwrap_or(port::USUAL);
        Ok(Launched {
            rank,
            world,
            // MPI libraries that tell no local rank: right on one machine.
            local_rank: local_rank.unwrap_or(rank),
            local_world: local_world.unwrap_or(world),
            address,
            port: port.number,
            port_from: port.origin.to_string(),
            port_remark: None,
            listening: None,
            served: false,
            id: self.text("PMIX_NAMESPACE").unwrap_or_default(),
            hosts: Vec::new(),
            node: None,
            gpus: self.gpus,
            gpu: None,
        })
    }

    fn slurm(&self, daemon: Option<&StepDaemon>) -> Result<Launched, DistError> {
        let refused = |error: crate::slurm::EnvError| DistError::Launcher(error.to_string());
        let step = Place::derive(self.var, daemon).and_then(Place::step).map_err(refused)?;
        let port = self.port(self.config.port)?.unwrap_or_else(|| step.port());
        let hosts = step.host_of_each().unwrap_or_else(|| vec![""; step.world]);
        Ok(Launched {
            rank: step.rank,
            world: step.world,
            local_rank: step.local_rank,
            local_world: step.local_world,
            address: step.address().map_err(refused)?,
            port: port.number,
            port_from: port.origin.to_string(),
            port_remark: None,
            listening: None,
            served: false,
            id: format!("{}.{}.{}", step.job.id, step.step, step.job.restart),
            hosts: hosts.into_iter().map(str::to_owned).collect(),
            gpus: self.gpus,
            gpu: step.device(self.gpus).map_err(refused)?,
            node: Some(step.host),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        launcher: Launcher,
        variables: &[(&str, &str)],
        flag: Option<usize>,
    ) -> Result<Launched, String> {
        let var = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Launched::read(
            launcher,
            &var,
            flag,
            &DistConfig { port: Some(4242), ..DistConfig::default() },
            0,
        )
        .map_err(|error| error.to_string())
    }

    const TORCHRUN: [(&str, &str); 5] = [
        ("RANK", "3"),
        ("WORLD_SIZE", "4"),
        ("LOCAL_RANK", "1"),
        ("MASTER_ADDR", "n1"),
        ("MASTER_PORT", "29501"),
    ];

    #[test]
    fn torchruns_variables_say_rank_world_and_meeting_place() {
        let launched = read(Launcher::Pytorch, &TORCHRUN, None).expect("complete");
        assert_eq!((launched.rank, launched.world, launched.local_rank), (3, 4, 1));
        assert_eq!(
            (launched.address.as_str(), launched.port, launched.port_from.as_str()),
            ("n1", 29501, "MASTER_PORT")
        );
        assert!(!launched.served);
    }

    #[test]
    fn a_port_that_is_not_looked_at_is_told() {
        let torchrun = read(Launcher::Pytorch, &TORCHRUN, None).expect("complete").port_remark;
        let expected = "the ranks meet at port 29501, set by MASTER_PORT: env_cfg.dist_cfg.port is not looked at";
        assert_eq!(torchrun.as_deref(), Some(expected), "the config's is 4242");
        let mpi =
            [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1"), ("MASTER_PORT", "1234")];
        let mpi = read(Launcher::Mpi, &mpi, None).expect("complete").port_remark;
        let expected = "the ranks meet at port 4242, set by env_cfg.dist_cfg.port: MASTER_PORT is not looked at";
        assert_eq!(mpi.as_deref(), Some(expected));
    }

    #[test]
    fn the_local_rank_may_be_a_flag_and_the_port_the_configs() {
        let launched = read(Launcher::Pytorch, &[TORCHRUN[0], TORCHRUN[1], TORCHRUN[3]], Some(1))
            .expect("complete");
        assert_eq!(
            (launched.local_rank, launched.port, launched.port_from.as_str()),
            (1, 4242, "env_cfg.dist_cfg.port")
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let error =
            |variables: &[_]| read(Launcher::Pytorch, variables, None).expect_err("incomplete");
        assert!(
            error(&[]).starts_with("RANK is not set: was this started by torchrun"),
            "{}",
            error(&[])
        );
        assert!(error(&TORCHRUN[..2]).starts_with("LOCAL_RANK is not set"));
        assert!(error(&[("RANK", "x")]).contains("RANK=\"x\": expected a whole number"));
        let mut outside = TORCHRUN;
        outside[0] = ("RANK", "4");
        assert_eq!(error(&outside), "rank 4 is outside a world of 4: ranks go from 0 to 3");
        let mut huge = TORCHRUN;
        huge[1] = ("WORLD_SIZE", "18446744073709551615");
        assert_eq!(
            error(&huge),
            "WORLD_SIZE is 18446744073709551615: expected at most 1048576 ranks"
        );
    }

    #[test]
    fn mpi_libraries_differ_in_names_and_one_machine_needs_no_address() {
        let open = [
            ("OMPI_COMM_WORLD_RANK", "1"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
        ];
        let launched = read(Launcher::Mpi, &open, None).expect("complete");
        assert_eq!(
            (launched.rank, launched.world, launched.local_rank, launched.local_world),
            (1, 2, 1, 2)
        );
        assert_eq!(launched.address, "127.0.0.1");
        let intel = [
            ("PMI_RANK", "3"),
            ("PMI_SIZE", "4"),
            ("MPI_LOCALRANKID", "1"),
            ("MPI_LOCALNRANKS", "2"),
        ];
        let error = read(Launcher::Mpi, &intel, None).expect_err("two machines");
        assert!(
            error.contains("MASTER_ADDR is not set, and the 4 ranks are on several machines"),
            "{error}"
        );
        let error = read(Launcher::Mpi, &[], None).expect_err("no mpirun");
        assert!(error.contains("OMPI_COMM_WORLD_RANK, PMI_RANK, PMIX_RANK"), "{error}");
    }

    /// Rank 1 of 3, alone on the second of two nodes, in the first run of job 7.
    const STEP: &str = "SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_PROCID=2 SLURM_LOCALID=0 \
                        SLURM_NODEID=1 SLURM_STEP_NUM_TASKS=3 SLURM_STEP_NODELIST=n[1-2] \
                        SLURM_STEP_TASKS_PER_NODE=2,1 SLURM_GTIDS=2 SLURMD_NODENAME=n2 \
                        MASTER_PORT=";

    fn slurm(changes: &str, port: Option<u16>, daemon: Option<&str>) -> Result<Launched, String> {
        let find = |text: &str, name: &str| {
            text.split(' ').find_map(|it| {
                it.split_once('=')
                    .filter(|(key, _)| *key == name)
                    .map(|(_, value)| value.to_owned())
            })
        };
        let var = |name: &str| find(changes, name).or_else(|| find(STEP, name));
        let config = DistConfig { port, ..DistConfig::default() };
        let daemon = daemon.and_then(StepDaemon::parse);
        Launching { var: &var, config: &config, gpus: 0 }
            .slurm(daemon.as_ref())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_job_step_says_rank_world_and_meeting_place() {
        let launched = slurm("", None, Some("slurmstepd: [7.0]")).expect("a step");
        assert_eq!(
            (launched.rank, launched.world, launched.local_rank, launched.local_world),
            (2, 3, 0, 1)
        );
        assert_eq!(
            (launched.address.as_str(), launched.port_from.as_str()),
            ("n1", "the ids of job and step")
        );
        assert_eq!(
            (launched.hosts.join(" ").as_str(), launched.node.as_deref()),
            ("n1 n1 n2", Some("n2"))
        );
        assert_eq!(launched.id, "7.0.0");
        assert_eq!(
            slurm("SLURM_RESTART_COUNT=2", None, None).expect("a step").id,
            "7.0.2",
            "a requeued job meets itself alone"
        );
    }

    #[test]
    fn the_port_is_the_configs_then_the_variables_then_the_jobs() {
        let port = |changes: &str, port| {
            slurm(changes, port, None).map(|it| (it.port, it.port_from)).expect("a step")
        };
        assert_eq!(
            port("MASTER_PORT=1234", Some(4242)),
            (4242, "env_cfg.dist_cfg.port".to_owned())
        );
        assert_eq!(port("MASTER_PORT=1234", None), (1234, "MASTER_PORT".to_owned()));
        assert_ne!(port("", None).0, port("SLURM_JOB_ID=8", None).0);
    }

    #[test]
    fn what_is_no_task_of_a_step_is_refused_in_a_sentence() {
        let batch = slurm("", None, Some("slurmstepd: [7.batch]")).expect_err("a batch shell");
        assert!(
            batch.starts_with(
                "--launcher slurm, but this is the batch shell of job 7, not a step of it: put srun"
            ),
            "{batch}"
        );
        let stale = slurm("SLURM_PROCID=5", None, None).expect_err("a contradiction");
        assert!(stale.starts_with("SLURM_PROCID=5 contradicts SLURM_STEP_NUM_TASKS=3"), "{stale}");
    }

    #[test]
    fn without_a_launcher_the_environment_is_not_read() {
        assert_eq!(read(Launcher::None, &TORCHRUN, None), Ok(Launched::alone(0)));
    }
}
