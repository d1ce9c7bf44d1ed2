//! Groups of arguments that several commands share.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::config::Config;
use crate::exit::Failure;
use crate::experiment::Experiment;

/// A config file and changes to it.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigArgs {
    /// The config file
    pub config: PathBuf,
    /// Change settings of the config: `model.backbone.depth=101`, `train_pipeline.0.type=X`,
    /// `a.b=1,2` or `"a.b=[(1,2),(3,4)]"`
    #[arg(long, value_name = "KEY=VALUE", num_args = 1..)]
    pub cfg_options: Vec<String>,
}

/// The path of an option. In `--work-dir=~/runs` a shell leaves the `~` as it is, though everybody
/// means the home folder.
#[expect(
    clippy::disallowed_methods,
    reason = "the command line is read before anything is handed down"
)]
pub(super) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|given: OsString| match given.as_bytes() {
        [b'~'] | [b'~', b'/', ..] => match std::env::var_os("HOME").filter(|it| !it.is_empty()) {
            Some(home) => {
                let bytes = [home.as_bytes(), &given.as_bytes()[1..]].concat();
                Ok(PathBuf::from(OsString::from_vec(bytes)))
            }
            None => Err("it needs the environment variable HOME, which is not set"),
        },
        _ => Ok(PathBuf::from(given)),
    })
}

impl ConfigArgs {
    /// Loads the config with its changes; a failure carries the exit code.
    pub(crate) fn load(&self) -> Result<Config, Failure> {
        Experiment::load_config(&self.config, &self.cfg_options)
    }
}
