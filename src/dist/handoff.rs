//! What a launcher of ours tells the ranks that it starts: torchrun's variables, and three of our
//! own. Both ends read this file.

use super::DistError;
use super::launcher::{Launched, Launcher};
use crate::variables::{Variables, number, text};

/// The launcher's process id: a rank ends when that process does.
pub(crate) const LAUNCHER: &str = "SEGSLURM_LAUNCHER";
/// Who chose the port, for messages.
const PORT_FROM: &str = "SEGSLURM_PORT_FROM";
/// A listening socket that rank 0 inherits, to serve at.
const LISTENING: &str = "SEGSLURM_LISTEN_FD";

/// One rank's part of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handoff<'a> {
    pub rank: usize,
    pub world: usize,
    /// The place on this machine.
    pub local_rank: usize,
    /// Ranks on this machine.
    pub local_world: usize,
    /// Name or address of rank 0's machine.
    pub address: &'a str,
    pub port: u16,
    /// Who chose the port.
    pub port_from: &'a str,
    /// The launcher's process id.
    pub launcher: u32,
    pub listening: Option<i32>,
}

impl Handoff<'_> {
    /// The variables of the rank. `None`: one that it must not inherit, since a torchrun around
    /// this process may have set it.
    pub(crate) fn variables(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("TORCHELASTIC_USE_AGENT_STORE", None),
            ("TORCHELASTIC_RUN_ID", None),
            ("TORCHELASTIC_RESTART_COUNT", None),
            ("RANK", Some(self.rank.to_string())),
            ("WORLD_SIZE", Some(self.world.to_string())),
            ("LOCAL_RANK", Some(self.local_rank.to_string())),
            ("LOCAL_WORLD_SIZE", Some(self.local_world.to_string())),
            ("MASTER_ADDR", Some(self.address.to_owned())),
            ("MASTER_PORT", Some(self.port.to_string())),
            (PORT_FROM, Some(self.port_from.to_owned())),
            (LAUNCHER, Some(self.launcher.to_string())),
            (LISTENING, self.listening.map(|it| it.to_string())),
        ]
    }
}

/// Adds what only a launcher of ours says to what torchrun's variables said.
pub(super) fn read(launched: Launched, variables: Variables<'_>) -> Result<Launched, DistError> {
    if text(variables, LAUNCHER).is_none() {
        return Ok(launched);
    }
    let port_from = text(variables, PORT_FROM).unwrap_or(launched.port_from);
    let listening = if launched.rank == 0 { number(variables, LISTENING)? } else { None };
    Ok(Launched { port_from, listening, ..launched })
}

/// How ranks that get a [`Handoff`] are told to read it.
pub(crate) const READER: Launcher = Launcher::Pytorch;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::DistConfig;

    #[test]
    fn what_is_handed_over_is_what_the_rank_reads() {
        for (rank, listening) in [(0, Some(7)), (3, None)] {
            let handoff = Handoff {
                rank,
                world: 4,
                local_rank: rank % 2,
                local_world: 2,
                address: "n1",
                port: 29512,
                port_from: "PORT",
                launcher: 99,
                listening,
            };
            let variables = handoff.variables();
            let around = [
                ("TORCHELASTIC_USE_AGENT_STORE", "True"),
                ("TORCHELASTIC_RUN_ID", "outer"),
                (LISTENING, "5"),
            ];
            let read = |name: &str| match variables.iter().find(|it| it.0 == name) {
                Some((_, value)) => value.clone(),
                None => around.iter().find(|it| it.0 == name).map(|it| it.1.to_owned()),
            };
            let launched =
                Launched::read(READER, &read, None, &DistConfig::default(), 0).expect("a rank");
            let Launched {
                world, local_rank, local_world, address, port, port_from, served, ..
            } = launched;
            assert_eq!((launched.rank, world, local_rank, local_world), (rank, 4, rank % 2, 2));
            assert_eq!((address.as_str(), port, port_from.as_str()), ("n1", 29512, "PORT"));
            assert_eq!((launched.listening, served, launched.id.as_str()), (listening, false, "/"));
        }
    }
}
