//! Groups of arguments that several commands share.

use std::io::ErrorKind;
use std::path::PathBuf;

use clap::Args;

use crate::config::{self, Config, ConfigError};
use crate::exit::{Exit, Failure};

/// A config file and changes to it.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigArgs {
    /// The config file
    pub config: PathBuf,
    /// Change settings of the config: `model.backbone.depth=101`, `train_pipeline.0.type=X`, `a.b=1,2` or `"a.b=[(1,2),(3,4)]"`
    #[arg(long, value_name = "KEY=VALUE", num_args = 1..)]
    pub cfg_options: Vec<String>,
}

impl ConfigArgs {
    /// Loads the config with its changes; a failure carries the exit code.
    pub(crate) fn load(&self) -> anyhow::Result<Config> {
        config::load(&self.config, &self.cfg_options).map_err(|error| config_failure(&error).into())
    }
}

/// A config's error with its exit code.
pub(crate) fn config_failure(error: &ConfigError) -> Failure {
    let exit = match error {
        ConfigError::Read { source, .. } if source.kind() == ErrorKind::NotFound => Exit::NoInput,
        _ => Exit::Config,
    };
    Failure::new(exit, error.to_string())
}
