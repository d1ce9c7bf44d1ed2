//! What the tests of this repository and its benchmarks reach into. This is no interface: it
//! changes as the program does.

pub mod checkpoint {
    pub use crate::checkpoint::{Checkpoint, DatasetMeta, Fit, Report, StateDict, load_into};
}

pub mod config {
    pub use crate::config::{Config, load, parse_str};
}

pub mod ddp {
    pub use crate::ddp::WrapperConfig;
}

pub mod dist {
    pub use crate::dist::{
        Accelerator, Backend, DistConfig, Group, Launched, Launcher, Reduce, join, overheard,
    };
}

pub mod exit {
    pub use crate::exit::Exit;
}

pub mod experiment {
    pub use crate::experiment::{EnvConfig, Experiment, MemoryFormatChoice};
}

pub mod optim {
    pub use crate::optim::{Horizon, OptimWrapperConfig, ParamSchedulerConfig, Schedule};
}

pub mod port {
    pub use crate::port::Port;
}

pub mod runner {
    pub use crate::runner::{Learner, decide_memory_format};
}

pub mod slurm {
    pub use crate::slurm::{JobState, Place};

    pub mod client {
        pub use crate::slurm::client::{
            address, cluster_of, estimate, job_id, misfit, parse_partitions, refused,
        };
    }
    pub mod env {
        pub use crate::slurm::env::StepDaemon;
    }
    pub mod hostlist {
        pub use crate::slurm::hostlist::expand;
    }
    pub mod job {
        pub use crate::slurm::job::{Flags, JobKind, JobSpec};
    }
    pub mod script {
        pub use crate::slurm::script::{RankCommand, Template};
    }
    pub mod site {
        pub use crate::slurm::site::Site;
    }
    pub mod tasks {
        pub use crate::slurm::tasks::expand;
    }
    pub mod time {
        pub use crate::slurm::time::TimeLimit;
    }
}
