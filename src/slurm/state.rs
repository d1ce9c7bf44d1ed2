//! Every job state that Slurm documents, and what each means for a run of ours.

use std::str::FromStr;

use crate::excerpt::quoted;

/// A job's state, as `squeue`, `sacct` and `scontrol` name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    BootFail,
    Cancelled,
    Completed,
    Completing,
    Configuring,
    Deadline,
    Expediting,
    Failed,
    LaunchFailed,
    NodeFail,
    OutOfMemory,
    Pending,
    PowerUpNode,
    Preempted,
    ReconfigFail,
    Requeued,
    RequeueFed,
    RequeueHold,
    ResvDelHold,
    Resizing,
    Revoked,
    Running,
    Signaling,
    SpecialExit,
    StageOut,
    Stopped,
    Suspended,
    Timeout,
    UpdateDb,
}

/// What a state means for the run that the job carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// It has not started, or will start again.
    Waiting,
    /// It holds nodes.
    Active,
    /// It ended well.
    Done,
    /// It ended by itself, badly: starting it again without a change would fail again.
    Failed,
    /// Somebody ended it on purpose.
    Cancelled,
    /// Its surroundings ended it: starting it again with `--resume` goes on where it stopped.
    Interrupted,
}

/// A word that is no job state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is no job state of Slurm", quoted(.text))]
pub struct StateError {
    pub text: String,
}

/// Long name, short name, state.
const NAMES: [(&str, &str, JobState); 29] = [
    ("BOOT_FAIL", "BF", JobState::BootFail),
    ("CANCELLED", "CA", JobState::Cancelled),
    ("COMPLETED", "CD", JobState::Completed),
    ("COMPLETING", "CG", JobState::Completing),
    ("CONFIGURING", "CF", JobState::Configuring),
    ("DEADLINE", "DL", JobState::Deadline),
    ("EXPEDITING", "EX", JobState::Expediting),
    ("FAILED", "F", JobState::Failed),
    ("LAUNCH_FAILED", "LF", JobState::LaunchFailed),
    ("NODE_FAIL", "NF", JobState::NodeFail),
    ("OUT_OF_MEMORY", "OOM", JobState::OutOfMemory),
    ("PENDING", "PD", JobState::Pending),
    ("POWER_UP_NODE", "PN", JobState::PowerUpNode),
    ("PREEMPTED", "PR", JobState::Preempted),
    ("RECONFIG_FAIL", "RC", JobState::ReconfigFail),
    ("REQUEUED", "RQ", JobState::Requeued),
    ("REQUEUE_FED", "RF", JobState::RequeueFed),
    ("REQUEUE_HOLD", "RH", JobState::RequeueHold),
    ("RESV_DEL_HOLD", "RD", JobState::ResvDelHold),
    ("RESIZING", "RS", JobState::Resizing),
    ("REVOKED", "RV", JobState::Revoked),
    ("RUNNING", "R", JobState::Running),
    ("SIGNALING", "SI", JobState::Signaling),
    ("SPECIAL_EXIT", "SE", JobState::SpecialExit),
    ("STAGE_OUT", "SO", JobState::StageOut),
    ("STOPPED", "ST", JobState::Stopped),
    ("SUSPENDED", "S", JobState::Suspended),
    ("TIMEOUT", "TO", JobState::Timeout),
    ("UPDATE_DB", "UD", JobState::UpdateDb),
];

impl FromStr for JobState {
    type Err = StateError;

    /// Reads long and short names, and what `sacct` makes of them: `CANCELLED by 1000`,
    /// `CANCELLED+`.
    fn from_str(text: &str) -> Result<Self, StateError> {
        let word =
            text.split_whitespace().next().unwrap_or("").trim_end_matches('+').to_ascii_uppercase();
        let found = NAMES.iter().find(|(long, short, _)| word == *long || word == *short);
        found.map(|(_, _, state)| *state).ok_or_else(|| StateError { text: text.to_owned() })
    }
}

impl JobState {
    /// Slurm's long name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, _, state)| *state == self).map_or("UNKNOWN", |(long, _, _)| long)
    }

    pub fn meaning(self) -> Meaning {
        match self {
            Self::Pending
            | Self::Configuring
            | Self::PowerUpNode
            | Self::Requeued
            | Self::RequeueFed
            | Self::RequeueHold
            | Self::ResvDelHold
            | Self::SpecialExit
            | Self::Expediting => Meaning::Waiting,
            Self::Running
            | Self::Suspended
            | Self::Stopped
            | Self::Signaling
            | Self::Resizing
            | Self::Completing
            | Self::StageOut
            | Self::UpdateDb => Meaning::Active,
            Self::Completed => Meaning::Done,
            Self::Failed | Self::OutOfMemory | Self::Deadline => Meaning::Failed,
            Self::Cancelled | Self::Revoked => Meaning::Cancelled,
            Self::Timeout
            | Self::Preempted
            | Self::NodeFail
            | Self::BootFail
            | Self::LaunchFailed
            | Self::ReconfigFail => Meaning::Interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_short_names_are_read_and_printed_back() {
        for (long, short, state) in NAMES {
            assert_eq!(long.parse(), Ok(state));
            assert_eq!(short.parse(), Ok(state));
            assert_eq!(state.name(), long);
        }
    }

    #[test]
    fn the_forms_of_sacct_are_read() {
        assert_eq!("CANCELLED by 1000".parse(), Ok(JobState::Cancelled));
        assert_eq!("CANCELLED+".parse(), Ok(JobState::Cancelled));
        assert_eq!("".parse::<JobState>(), Err(StateError { text: String::new() }));
    }

    #[test]
    fn only_what_the_surroundings_ended_is_worth_another_start() {
        let again: Vec<_> = NAMES
            .iter()
            .filter(|(_, _, state)| state.meaning() == Meaning::Interrupted)
            .map(|(long, _, _)| *long)
            .collect();
        assert_eq!(
            again,
            ["BOOT_FAIL", "LAUNCH_FAILED", "NODE_FAIL", "PREEMPTED", "RECONFIG_FAIL", "TIMEOUT"]
        );
    }
}
