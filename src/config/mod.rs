//! Configs: text in, typed sections out, with mmengine's rules for inheritance and overrides.
//!
//! [`load`] reads a file, merges it over its bases (`bases`) and the command line over both (`overrides`), puts values where
//! references stand (`references`), and returns one tree (`node`) in which every value knows the line that set it. Sections
//! are plain serde types: `deserialize` reads them from the tree, and its errors point back at that line.

mod bases;
mod deserialize;
mod error;
mod node;
mod overrides;
mod references;
mod yaml;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;

pub use error::{ConfigError, nearest};
pub use node::{Map, Node, Origin, Value};

/// A finished config: bases, file and command line merged, references resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub root: Node,
    /// Top-level keys that some value refers to as `{{name}}`. They need not be sections.
    pub names: BTreeSet<String>,
}

/// Loads a config file and applies `key=value` overrides to it.
pub fn load(path: &Path, overrides: &[String]) -> Result<Config, ConfigError> {
    finish(bases::load(path, &mut Vec::new())?, overrides)
}

/// Reads YAML text as `T`: a component's section, without bases.
pub fn parse_str<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    let root = yaml::parse(text, &Arc::from("text"))?;
    finish(root, &[])?.root.parse()
}

fn finish(root: Node, overrides: &[String]) -> Result<Config, ConfigError> {
    let mut root = overrides::apply(root, overrides)?;
    let names = references::resolve(&mut root)?;
    Ok(Config { root, names })
}

impl Config {
    /// Reads the whole config as `T`. A top-level key that is not a section of `T` is an error, unless other values refer to it.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        deserialize::from_root(&self.root, "", &self.names)
    }

    /// The merged config as YAML text.
    pub fn to_yaml(&self) -> String {
        self.root.to_yaml()
    }

    /// The merged config as indented JSON text.
    pub fn to_json(&self) -> String {
        self.root.to_json()
    }
}
