//! Configs: text in, typed sections out, with mmengine's rules for inheritance and overrides.
//!
//! [`load`] reads a file (YAML, JSON or mmengine's Python), merges it over its bases (`bases`) and the command line over both (`overrides`), puts values where
//! references stand (`references`), and returns one tree (`node`) in which every value knows the line that set it. Sections
//! are plain serde types: `deserialize` reads them from the tree, and its errors point back at that line.

mod bases;
mod deserialize;
mod error;
mod field;
mod node;
mod overrides;
mod python;
mod range;
mod references;
mod yaml;

use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;

pub use error::{ConfigError, nearest};
pub(crate) use field::VALUE_OR_LIST;
pub use field::{OneOrMany, Pair};
pub use node::{Map, Node, Origin, Value};
pub use range::{above_zero, below_one, finite, not_negative, positive, positive_or_all, positive_or_never, share, side};
use references::Uses;
pub use references::Variables;

/// A finished config: bases, file and command line merged, references resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub root: Node,
    /// Top-level keys that need not be sections.
    pub variables: Variables,
}

/// Loads a config file and applies `key=value` overrides to it.
pub fn load(path: &Path, overrides: &[String]) -> Result<Config, ConfigError> {
    let mut uses = Uses::new();
    let root = bases::load(path, &mut uses)?;
    let mut root = overrides::apply(root, overrides)?;
    let variables = references::resolve(&mut root, &uses)?;
    Ok(Config { root, variables })
}

/// Reads YAML text as `T`: a component's section, without bases.
pub fn parse_str<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    let mut root = yaml::parse(text, &Arc::from("text"))?;
    let variables = references::resolve(&mut root, &Uses::new())?;
    Config { root, variables }.parse()
}

impl Config {
    /// Reads the whole config as `T`. A top-level key that is not a section of `T` is an error, unless it is a variable.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        deserialize::from_root(&self.root, "", &self.variables)
    }

    /// The merged config as YAML text, which loads as the same config.
    pub fn to_yaml(&self) -> String {
        self.printed().to_yaml()
    }

    /// The merged config as indented JSON text, which loads as the same config.
    pub fn to_json(&self) -> String {
        self.printed().to_json()
    }

    fn printed(&self) -> Node {
        let mut root = self.root.clone();
        if let (Value::Map(map), false) = (&mut root.value, self.variables.names.is_empty()) {
            let origin = root.origin.clone();
            let names = self.variables.names.iter().map(|it| Node::new(Value::String(it.clone()), origin.clone()));
            map.insert(bases::VARIABLES.to_owned(), Node::new(Value::List(names.collect()), origin.clone()));
        }
        root
    }
}
