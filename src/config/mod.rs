//! Configs: text in, typed sections out, with mmengine's rules for inheritance and overrides.
//!
//! [`load`] reads a file (YAML, JSON or mmengine's Python), puts the file's name and the
//! environment in where it says so (`predefined`), merges it over its bases (`bases`) and the
//! command line over both (`overrides`), puts values where references stand (`references`), and
//! returns one tree (`node`) in which every value knows the line that set it. Sections are plain
//! serde types: `deserialize` reads them from the tree, and its errors point back at that line.

mod absent;
mod bases;
mod both;
pub(crate) mod default;
mod deserialize;
mod error;
mod field;
mod node;
mod only;
#[cfg(test)]
mod outline;
mod overrides;
mod own;
mod places;
mod predefined;
mod python;
mod range;
mod references;
mod stand_in;
mod yaml;

use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;

pub(crate) use both::Both;
pub(crate) use deserialize::Faulty;
use deserialize::Names;
pub(crate) use error::{ConfigError, nearest};
pub(crate) use field::VALUE_OR_LIST;
pub(crate) use field::{OneOrMany, Pair};
pub(crate) use node::{Map, Node, Origin, Value};
pub(crate) use only::{Only, Typed};
#[cfg(test)]
pub(crate) use outline::outline;
pub(crate) use own::{Own, Slot, register};
pub(crate) use places::expand;
use predefined::Environment;
pub(crate) use range::{
    NotOffered, above_zero, all_false, below_one, finite, not_negative, only_false, positive,
    positive_or_all, positive_or_never, share, share_or_none, side,
};
use references::Uses;
pub(crate) use references::Variables;

/// A finished config: bases, file and command line merged, references resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub root: Node,
    /// Top-level keys that need not be sections.
    pub variables: Variables,
    /// What is odd about how it was found.
    pub remarks: Vec<String>,
}

/// Loads a config file and applies `key=value` overrides to it. One that is not there is looked for
/// among those that come with the program. The file may take values from this process's
/// environment.
#[expect(clippy::disallowed_methods, reason = "configs name variables of the environment")]
pub fn load(path: &Path, overrides: &[String]) -> Result<Config, ConfigError> {
    load_in(path, overrides, &|name| {
        std::env::var_os(name).map(|it| it.to_string_lossy().into_owned())
    })
}

/// The same with an environment of one's own.
fn load_in(
    path: &Path,
    overrides: &[String],
    environment: &Environment<'_>,
) -> Result<Config, ConfigError> {
    let mut uses = Uses::new();
    let found =
        bases::find(Path::new(""), &path.to_string_lossy()).unwrap_or_else(|| path.to_owned());
    let mut refused = Vec::new();
    let root = bases::load(&found, &mut uses, environment, &mut refused)?;
    let config = finish(root, overrides, &mut uses);
    if !refused.is_empty() {
        let faults = ConfigError::all(refused);
        return Err(match config {
            Ok(rest) => ConfigError::Partly { faults: Box::new(faults), rest: Box::new(rest) },
            // It may follow from those.
            Err(_) => faults,
        });
    }
    let mut config = config?;
    if found != path {
        config.remarks.push(format!("there is no {}: read {}", path.display(), found.display()));
    }
    Ok(config)
}

/// What the command line and the references make of the merged files.
fn finish(root: Node, overrides: &[String], uses: &mut Uses) -> Result<Config, ConfigError> {
    let mut root = overrides::apply(root, overrides, uses)?;
    check(&root, &mut Vec::new())?;
    let variables = references::resolve(&mut root, uses)?;
    check(&root, &mut Vec::new())?;
    Ok(Config { root, variables, remarks: Vec::new() })
}

/// YAML's keys end at 1024 characters, escapes included.
const LONGEST_KEY: usize = 160;

/// Refuses what could not be printed and read again: whoever goes on with a run reads the config
/// that it printed. `path` is where the node stands.
fn check<'a>(node: &'a Node, path: &mut Vec<&'a str>) -> Result<(), ConfigError> {
    if path.len() > node::MAX_DEPTH {
        let message = format!("values nest more than {} levels deep", node::MAX_DEPTH);
        return Err(ConfigError::at(&node.origin, &path.join("."), message));
    }
    let mut below = |key: &'a str, item: &'a Node| {
        path.push(key);
        let refused = match key {
            "<<" => Some("this key is YAML's merge and no name".to_owned()),
            _ if key.len() > LONGEST_KEY => {
                Some(format!("this key has {} bytes; expected at most {LONGEST_KEY}", key.len()))
            }
            _ if references::is_marked(key) => {
                Some("a reference cannot be a part of a key".to_owned())
            }
            bases::BASE | bases::VARIABLES if path.len() == 1 => {
                Some("this can only be set by a file, for itself".to_owned())
            }
            _ => None,
        };
        if let Some(reason) = refused {
            return Err(ConfigError::at(&item.origin, &path.join("."), reason));
        }
        check(item, path)?;
        path.pop();
        Ok(())
    };
    match &node.value {
        Value::List(items) => items.iter().try_for_each(|item| below("-", item)),
        Value::Map(map) => map.iter().try_for_each(|(key, item)| below(key, item)),
        _ => Ok(()),
    }
}

/// Reads YAML text as `T`: a component's section, without bases.
pub fn parse_str<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    let mut root = yaml::parse(text, &Arc::from("text"))?;
    let variables = references::resolve(&mut root, &Uses::new())?;
    Config { root, variables, remarks: Vec::new() }.parse()
}

impl Config {
    /// Reads the whole config as `T`. A top-level key that is not a section of `T` is an error,
    /// unless it is a variable.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        Ok(self.read(&[]).map(|(value, _)| value)?)
    }

    /// Reads the whole config as `T`, and says what is odd in it and no error. Names in `usual` may
    /// stand at the top though nothing refers to them, and any name may in a Python config.
    pub fn read<T: DeserializeOwned>(&self, usual: &[&str]) -> Result<(T, Vec<String>), Faulty<T>> {
        deserialize::from_root(&self.root, "", Some(&Names { variables: &self.variables, usual }))
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
            let names = self
                .variables
                .names
                .iter()
                .map(|it| Node::new(Value::String(it.clone()), origin.clone()));
            map.insert(
                bases::VARIABLES.to_owned(),
                Node::new(Value::List(names.collect()), origin.clone()),
            );
        }
        root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(file: &str, text: &str, overrides: &[&str]) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(file);
        std::fs::write(&path, text).expect("a file");
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let error = load(&path, &overrides).expect_err("is refused").to_string();
        error.replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn what_could_not_be_read_again_is_refused_at_its_place() {
        let deep = |file: &str| {
            let lists = format!("a: 1\nx: {}1{}", "[".repeat(101), "]".repeat(101));
            refused(file, &lists, &[])
        };
        assert!(deep("a.yaml").starts_with("a.yaml:2: x.-.-.-"), "{}", deep("a.yaml"));
        assert!(
            deep("a.yaml").ends_with("values nest more than 100 levels deep"),
            "{}",
            deep("a.yaml")
        );
        assert_eq!(
            refused("a.py", "x = dict()\nx['<<'] = 1", &[]),
            "a.py:2: x.<<: this key is YAML's merge and no name"
        );
        assert!(
            refused("a.yaml", "x: {'{{y}}': 1}", &[])
                .ends_with("a reference cannot be a part of a key")
        );
        assert!(
            refused("a.py", &format!("{} = 1", "x".repeat(5000)), &[])
                .ends_with("this key has 5000 bytes; expected at most 160")
        );
        assert_eq!(
            refused("a.yaml", "x: 1", &["a.<<=1"]),
            "--cfg-options: a.<<: this key is YAML's merge and no name"
        );
        for name in ["_base_", "_variables_"] {
            let error = refused("a.yaml", "x: 1", &[&format!("{name}=b.yaml")]);
            assert_eq!(
                error,
                format!("--cfg-options: {name}: this can only be set by a file, for itself")
            );
        }
    }

    #[test]
    fn arguments_of_any_depth_are_refused_in_one_line() {
        for argument in
            ["a.".repeat(50_000) + "b=1", format!("a={}1{}", "[".repeat(5000), "]".repeat(5000))]
        {
            let error = refused("a.yaml", "x: 1", &[&argument]);
            assert!(error.len() < 4000 && error.starts_with("--cfg-options a"), "{error}");
        }
        let error = refused("a.yaml", "x: 1", &["a\nb=[1,2"]);
        assert!(error.starts_with("--cfg-options a\\nb=[1,2: unbalanced brackets"), "{error}");
    }
}
