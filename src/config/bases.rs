//! `_base_`: a config starts from one or several other files and is merged over them, mapping by mapping, as mmengine does.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::error::{ConfigError, nearest};
use super::node::{Map, Node, Origin, Value};
use super::references::Uses;
use super::{deserialize, references, yaml};

const BASE: &str = "_base_";
const DELETE: &str = "_delete_";

/// Top-level key that lists names a config keeps although no value refers to them any more, as a printed config does.
pub(super) const VARIABLES: &str = "_variables_";

/// Loads a file and everything that it is based on, merged; adds to `uses` the names that the files refer to.
pub(super) fn load(path: &Path, uses: &mut Uses) -> Result<Node, ConfigError> {
    load_file(path, uses, &mut Vec::new())
}

/// `stack` holds the files that lead here.
fn load_file(path: &Path, uses: &mut Uses, stack: &mut Vec<PathBuf>) -> Result<Node, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let name: Arc<str> = tidy(path).to_string_lossy().into();
    let mut own = yaml::parse(&text, &name)?;
    references::collect_uses(&own, uses);
    let Value::Map(map) = &mut own.value else {
        return Err(ConfigError::text(&own.origin, format!("a config is a mapping, found {}", own.value.describe())));
    };
    if let Some(listed) = map.shift_remove(VARIABLES) {
        for variable in deserialize::from_node::<Vec<String>>(&listed, VARIABLES)? {
            uses.entry(variable).or_default().insert(name.to_string());
        }
    }
    let Some(entry) = map.shift_remove(BASE) else {
        return merge(Node::new(Value::Map(Map::new()), own.origin.clone()), own, ListKeys::Refused);
    };
    stack.push(fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()));
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut bases = Node::new(Value::Map(Map::new()), own.origin.clone());
    for name in base_names(&entry)? {
        let base = load_base(&directory.join(name.as_str().unwrap_or_default()), name, uses, stack)?;
        join(&mut bases, base, &entry.origin)?;
    }
    stack.pop();
    references::resolve_bases(&mut own, &bases)?;
    merge(bases, own, ListKeys::Refused)
}

/// The entries of `_base_`: one string or a list of them.
fn base_names(entry: &Node) -> Result<Vec<&Node>, ConfigError> {
    let wrong = |node: &Node| {
        ConfigError::at(&node.origin, BASE, format!("expected a file or a list of files, found {}", node.value.describe()))
    };
    match &entry.value {
        Value::String(_) => Ok(vec![entry]),
        Value::List(items) => items.iter().map(|it| if it.as_str().is_some() { Ok(it) } else { Err(wrong(it)) }).collect(),
        _ => Err(wrong(entry)),
    }
}

fn load_base(path: &Path, named: &Node, uses: &mut Uses, stack: &mut Vec<PathBuf>) -> Result<Node, ConfigError> {
    let Ok(canonical) = fs::canonicalize(path) else {
        let shown = tidy(path);
        let hint = neighbour(&shown).map(|it| format!("; did you mean `{it}`?")).unwrap_or_default();
        return Err(ConfigError::at(&named.origin, BASE, format!("there is no file {}{hint}", shown.display())));
    };
    if stack.contains(&canonical) {
        let message = format!("{} is based on itself through this file", tidy(path).display());
        return Err(ConfigError::at(&named.origin, BASE, message));
    }
    load_file(path, uses, stack)
}

/// The file beside a missing one whose name is the closest.
fn neighbour(path: &Path) -> Option<String> {
    let names: Vec<String> =
        fs::read_dir(path.parent()?).ok()?.filter_map(|it| it.ok()?.file_name().into_string().ok()).collect();
    nearest(path.file_name()?.to_str()?, names.iter().map(String::as_str)).map(str::to_owned)
}

/// Adds one more base beside the others. A key may come from one base only: the order of bases shall not matter.
fn join(bases: &mut Node, base: Node, listed: &Origin) -> Result<(), ConfigError> {
    if let (Value::Map(into), Value::Map(from)) = (&mut bases.value, base.value) {
        for (key, node) in from {
            if let Some(first) = into.get(&key) {
                let message = format!("two bases set `{key}`: {} and {}; keep it in one of them", first.origin, node.origin);
                return Err(ConfigError::at(listed, BASE, message));
            }
            into.insert(key, node);
        }
    }
    Ok(())
}

/// Whether the keys `0`, `1`, … of a mapping reach into a list: on the command line they do, in a file they do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListKeys {
    Allowed,
    Refused,
}

/// Merges `child` over `base`: mappings key by key, everything else by replacing. A mapping with `_delete_: true` replaces too.
pub(super) fn merge(base: Node, child: Node, list_keys: ListKeys) -> Result<Node, ConfigError> {
    let whole = base.clone();
    merge_at(base, child, &Merge { whole: &whole, list_keys }, "")
}

struct Merge<'a> {
    /// The base from its root, for references.
    whole: &'a Node,
    list_keys: ListKeys,
}

fn merge_at(mut base: Node, mut child: Node, context: &Merge<'_>, path: &str) -> Result<Node, ConfigError> {
    let Value::Map(changes) = &mut child.value else {
        return Ok(child);
    };
    if delete(changes, path)? {
        return Ok(without_delete(child));
    }
    if let Some(target) = references::target(&base, context.whole)? {
        base = target;
    }
    match (&mut base.value, child.value) {
        (Value::Map(into), Value::Map(changes)) => {
            for (key, change) in changes {
                let path = join_path(path, &key);
                let merged = match into.get_mut(&key) {
                    Some(old) => merge_at(take(old), change, context, &path)?,
                    None => without_delete(change),
                };
                into.insert(key, merged);
            }
            Ok(base)
        }
        (Value::List(items), Value::Map(changes)) if context.list_keys == ListKeys::Allowed => {
            for (key, change) in changes {
                let path = join_path(path, &key);
                let length = items.len();
                let Some(slot) = key.parse::<usize>().ok().and_then(|index| items.get_mut(index)) else {
                    let message = match length {
                        0 => "the list is empty".to_owned(),
                        _ => format!("not an index of the list, which has {length} items (0 to {})", length - 1),
                    };
                    return Err(ConfigError::at(&change.origin, &path, message));
                };
                *slot = merge_at(take(slot), change, context, &path)?;
            }
            Ok(base)
        }
        (old, Value::Map(changes)) => {
            let origin = changes.values().next().map_or(&child.origin, |it| &it.origin);
            let message = format!(
                "a mapping cannot be merged into {}, set at {}; add `_delete_: true` to replace it",
                old.describe(),
                base.origin
            );
            Err(ConfigError::at(origin, path, message))
        }
        (_, value) => Ok(Node::new(value, child.origin)),
    }
}

fn take(node: &mut Node) -> Node {
    let origin = node.origin.clone();
    std::mem::replace(node, Node::new(Value::Null, origin))
}

/// Removes `_delete_` from a mapping and says whether it was set.
fn delete(map: &mut Map, path: &str) -> Result<bool, ConfigError> {
    match map.shift_remove(DELETE) {
        None => Ok(false),
        Some(Node { value: Value::Bool(delete), .. }) => Ok(delete),
        Some(node) => {
            let path = join_path(path, DELETE);
            Err(ConfigError::at(&node.origin, &path, format!("expected true or false, found {}", node.value.describe())))
        }
    }
}

/// A subtree that has nothing below it to delete.
fn without_delete(mut node: Node) -> Node {
    match &mut node.value {
        Value::Map(map) => {
            map.shift_remove(DELETE);
            for item in map.values_mut() {
                *item = without_delete(take(item));
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| *item = without_delete(take(item))),
        _ => {}
    }
    node
}

pub(super) fn join_path(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A path without `.` and `..`, for people to read.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(tidy.components().next_back(), Some(Component::Normal(_))) => {
                tidy.pop();
            }
            it => tidy.push(it),
        }
    }
    tidy
}
