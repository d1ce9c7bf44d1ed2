//! The port on which the ranks of a job meet, and who chose it.

use std::fmt;

use super::env::{EnvError, Step};

/// A port and its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    pub number: u16,
    pub origin: PortOrigin,
}

/// Who chose a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortOrigin {
    /// `--cfg-options env_cfg.dist_cfg.port=…` or the config's `env_cfg.dist_cfg.port`.
    Config,
    /// The environment variable.
    MasterPort,
    /// SLURM_STEP_RESV_PORTS: slurmctld set it aside for this step.
    Reserved,
    /// Computed from job and step.
    Job,
}

/// Ports that are computed lie here: above the well-known ones, below the range from which systems give out ports by themselves.
const FIRST: u64 = 20_000;
/// How many; a prime, so that neighbouring jobs and steps do not meet.
const COUNT: u64 = 12_281;

impl Port {
    /// Chooses, in this order: the config's port (`--cfg-options` is part of it), MASTER_PORT, a port that Slurm reserved for the
    /// step, and else one computed from the ids of job and step, which jobs that run at the same time do not share.
    pub fn choose(config: Option<u16>, master_port: Option<&str>, step: &Step) -> Result<Self, EnvError> {
        if let Some(number) = config {
            return Ok(Self { number, origin: PortOrigin::Config });
        }
        if let Some(text) = master_port.filter(|text| !text.is_empty()) {
            let number = text.parse().ok().filter(|port| *port > 0);
            let number = number.ok_or_else(|| EnvError::NotANumber { name: "MASTER_PORT", text: text.to_owned() })?;
            return Ok(Self { number, origin: PortOrigin::MasterPort });
        }
        if let Some(number) = step.reserved_ports.first() {
            return Ok(Self { number: *number, origin: PortOrigin::Reserved });
        }
        let (first, count) = match step.site_ports {
            Some((first, last)) => (u64::from(first), u64::from(last - first) + 1),
            None => (FIRST, COUNT),
        };
        let number = first + (step.job.id % count + step.step % count * 4099) % count;
        Ok(Self { number: number as u16, origin: PortOrigin::Job })
    }
}

impl fmt::Display for PortOrigin {
    /// To be read after `set by`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "env_cfg.dist_cfg.port",
            Self::MasterPort => "MASTER_PORT",
            Self::Reserved => "SLURM_STEP_RESV_PORTS",
            Self::Job => "the ids of job and step",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::env::{Place, StepDaemon};
    use super::*;

    fn step(job: u64, id: u64, reserved: &str) -> Step {
        let var = |name: &str| {
            Some(match name {
                "SLURM_JOB_ID" => job.to_string(),
                "SLURM_STEP_ID" => id.to_string(),
                "SLURM_PROCID" | "SLURM_LOCALID" | "SLURM_NODEID" => "0".to_owned(),
                "SLURM_STEP_NUM_TASKS" | "SLURM_STEP_TASKS_PER_NODE" => "1".to_owned(),
                "SLURM_STEP_NODELIST" => "n1".to_owned(),
                "SLURM_STEP_RESV_PORTS" => reserved.to_owned(),
                "SEGSLURM_PORTS" if job == 8 => "30000-30009".to_owned(),
                _ => return None,
            })
        };
        Place::derive(&var, Some(&StepDaemon { job, step: Some(id) })).and_then(Place::step).expect("a step")
    }

    #[test]
    fn the_config_wins_over_the_variable_over_the_reservation_over_the_job() {
        let step = step(7, 0, "12000-12001");
        let choose = |config, variable| Port::choose(config, variable, &step).expect("a port");
        assert_eq!(choose(Some(1234), Some("5678")), Port { number: 1234, origin: PortOrigin::Config });
        assert_eq!(choose(None, Some("5678")), Port { number: 5678, origin: PortOrigin::MasterPort });
        assert_eq!(choose(None, Some("")), Port { number: 12000, origin: PortOrigin::Reserved });
        assert!(Port::choose(None, Some("70000"), &step).is_err());
        let of_site = Port::choose(None, None, &self::step(8, 0, "")).expect("a port");
        assert_eq!(of_site, Port { number: 30_008, origin: PortOrigin::Job }, "a site's range holds the computed ones");
    }

    #[test]
    fn ids_of_any_size_give_a_port() {
        let port = |job, id| Port::choose(None, None, &step(job, id, "")).expect("a port").number;
        assert!((20_000..32_768).contains(&port(u64::MAX, u64::MAX)));
        assert_eq!(port(COUNT + 7, COUNT + 1), port(7, 1));
    }

    #[test]
    fn jobs_and_steps_alive_together_get_different_ports() {
        let mut ports = HashSet::new();
        for job in 1_000_000..1_000_400 {
            for id in 0..3 {
                assert!(ports.insert(Port::choose(None, None, &step(job, id, "")).expect("a port").number), "{job}.{id}");
            }
        }
        assert!(ports.iter().all(|port| (20_000..32_768).contains(port)));
    }
}
