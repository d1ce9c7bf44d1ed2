//! Groups of arguments that several commands share.

use std::path::PathBuf;

use clap::Args;

use crate::config::Config;
use crate::experiment::Experiment;

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
        Ok(Experiment::load_config(&self.config, &self.cfg_options)?)
    }
}
