//! The port of a job step for which nobody chose one.

use super::env::Step;
use crate::port::{Port, PortOrigin};

/// Ports that are computed lie here: above the well-known ones, below the range from which systems
/// give out ports by themselves.
const FIRST: u64 = 20_000;
/// How many; a prime, so that neighbouring jobs and steps do not meet.
const COUNT: u64 = 12_281;

impl Step {
    /// A port that Slurm reserved for the step, else one computed from the ids of job and step,
    /// which jobs that run at the same time do not share.
    pub fn port(&self) -> Port {
        if let Some(number) = self.reserved_ports.first() {
            return Port { number: *number, origin: PortOrigin::Reserved };
        }
        let (first, count) = match self.site_ports {
            Some((first, last)) => (u64::from(first), u64::from(last - first) + 1),
            None => (FIRST, COUNT),
        };
        let number = first + (self.job.id % count + self.step % count * 4099) % count;
        Port { number: number as u16, origin: PortOrigin::Job }
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
        Place::derive(&var, Some(&StepDaemon { job, step: Some(id) }))
            .and_then(Place::step)
            .expect("a step")
    }

    #[test]
    fn a_reserved_port_wins_over_the_sites_range_and_that_over_ours() {
        assert_eq!(
            step(7, 0, "12000-12001").port(),
            Port { number: 12000, origin: PortOrigin::Reserved }
        );
        assert_eq!(step(8, 0, "").port(), Port { number: 30_008, origin: PortOrigin::Job });
        assert_eq!(step(7, 0, "").port(), Port { number: 20_007, origin: PortOrigin::Job });
    }

    #[test]
    fn ids_of_any_size_give_a_port() {
        let port = |job, id| step(job, id, "").port().number;
        assert!((20_000..32_768).contains(&port(u64::MAX, u64::MAX)));
        assert_eq!(port(COUNT + 7, COUNT + 1), port(7, 1));
    }

    #[test]
    fn jobs_and_steps_alive_together_get_different_ports() {
        let mut ports = HashSet::new();
        for job in 1_000_000..1_000_400 {
            for id in 0..3 {
                assert!(ports.insert(step(job, id, "").port().number), "{job}.{id}");
            }
        }
        assert!(ports.iter().all(|port| (20_000..32_768).contains(port)));
    }
}
