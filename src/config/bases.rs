//! `_base_`: a config starts from one or several other files and is merged over them, mapping by
//! mapping, as mmengine does.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::error::{ConfigError, nearest};
use super::node::{Map, Node, Origin, Value};
use super::predefined::{self, Environment};
use super::python::Program;
use super::references::Uses;
use super::{deserialize, references, yaml};
use crate::{shipped, text};

pub(super) const BASE: &str = "_base_";
/// Longer chains of files are a mistake.
const MAX_BASES: usize = 64;
const DELETE: &str = "_delete_";

/// Top-level key that lists names a config keeps although no value refers to them any more, as a
/// printed config does.
pub(super) const VARIABLES: &str = "_variables_";

/// Loads a file and everything that it is based on, merged; adds to `uses` the names that the files
/// refer to, and to `refused` what is wrong and leaves a rest to be looked at.
pub(super) fn load(
    path: &Path,
    uses: &mut Uses,
    environment: &Environment<'_>,
    refused: &mut Vec<ConfigError>,
) -> Result<Node, ConfigError> {
    Loading { uses, environment, refused, stack: Vec::new() }.file(path)
}

/// A file that is being loaded.
struct Loading<'a> {
    uses: &'a mut Uses,
    environment: &'a Environment<'a>,
    refused: &'a mut Vec<ConfigError>,
    /// The files that lead here.
    stack: Vec<PathBuf>,
}

impl Loading<'_> {
    fn file(&mut self, path: &Path) -> Result<Node, ConfigError> {
        let bytes = fs::read(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
            hint: hint(path),
        })?;
        let name: Arc<str> = tidy(path).to_string_lossy().into();
        let text = text::decode(&bytes)
            .map_err(|it| ConfigError::text(&Origin::file(&name, it.line), it.to_string()))?;
        let whole = std::path::absolute(path).map_or_else(|_| path.to_owned(), |it| tidy(&it));
        let text = predefined::replace(text, &whole, &name, self.environment)?;
        let file = File::parse(path, &text, &name)?;
        let origin = Origin::file(&name, 1);
        let mut bases = Node::new(Value::Map(Map::new()), origin);
        if let Some(entry) = file.bases()? {
            self.stack.push(fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()));
            let directory = path.parent().unwrap_or(Path::new(""));
            for base in base_names(&entry)? {
                let node = self.base(&find_base(directory, base)?, base)?;
                join(&mut bases, node, &entry.origin)?;
            }
            self.stack.pop();
        }
        let has_bases = bases.as_map().is_some_and(|it| !it.is_empty());
        if matches!(file, File::Python(_)) {
            // In Python a name's value is taken where the name is used: what this file sets changes
            // nothing in its bases.
            let whole = bases.clone();
            let taken = references::resolve(&mut bases, &Uses::new())?;
            taken.names.iter().for_each(|name| references::take(name, &whole, self.uses));
        }
        let mut own = file.evaluate(&mut bases, self.uses, self.refused)?;
        if has_bases {
            references::resolve_bases(&mut own, &bases)?;
        }
        Ok(merged(bases, own, ListKeys::Refused, self.uses, self.refused))
    }

    /// A base, which `named` names.
    fn base(&mut self, path: &Path, named: &Node) -> Result<Node, ConfigError> {
        let canonical = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if self.stack.len() > MAX_BASES {
            return Err(ConfigError::at(
                &named.origin,
                BASE,
                format!("files are based on more than {MAX_BASES} others, one on the next"),
            ));
        }
        if self.stack.contains(&canonical) {
            let message = format!("{} is based on itself through this file", tidy(path).display());
            return Err(ConfigError::at(&named.origin, BASE, message));
        }
        self.file(path).map_err(|error| match error {
            // A folder, or no text: whoever names it is to be mended.
            ConfigError::Read { path: unread, source, .. } if unread == path => ConfigError::at(
                &named.origin,
                BASE,
                format!("cannot read {}: {source}", tidy(path).display()),
            ),
            other => other,
        })
    }
}

/// A file, read but not yet put over its bases.
enum File {
    Yaml(Node, Option<Node>),
    Python(Program),
}

impl File {
    fn parse(path: &Path, text: &str, name: &Arc<str>) -> Result<Self, ConfigError> {
        if path.extension().is_some_and(|it| it == "py") {
            return Program::parse(text, name).map(Self::Python);
        }
        let mut own = yaml::parse(text, name)?;
        let Value::Map(map) = &mut own.value else {
            return Err(ConfigError::text(
                &own.origin,
                format!("a config is a mapping, found {}", own.value.describe()),
            ));
        };
        let bases = map.shift_remove(BASE);
        Ok(Self::Yaml(own, bases))
    }

    fn bases(&self) -> Result<Option<Node>, ConfigError> {
        match self {
            Self::Yaml(_, bases) => Ok(bases.clone()),
            Self::Python(program) => program.bases(),
        }
    }

    /// The file's own settings; a Python file may change what its bases gave, too. Adds to `uses`
    /// the names that they refer to.
    fn evaluate(
        self,
        bases: &mut Node,
        uses: &mut Uses,
        refused: &mut Vec<ConfigError>,
    ) -> Result<Node, ConfigError> {
        let mut own = match self {
            Self::Yaml(own, _) => own,
            Self::Python(program) => program.evaluate(bases, uses, refused),
        };
        references::collect_uses(&own, uses);
        if let Value::Map(map) = &mut own.value
            && let Some(listed) = map.shift_remove(VARIABLES)
        {
            for variable in deserialize::from_node::<Vec<String>>(&listed, VARIABLES)? {
                uses.entry(variable).or_default().insert(listed.origin.source().to_owned());
            }
        }
        Ok(own)
    }
}

/// The entries of `_base_`: one string or a list of them.
fn base_names(entry: &Node) -> Result<Vec<&Node>, ConfigError> {
    let wrong = |node: &Node| {
        ConfigError::at(
            &node.origin,
            BASE,
            format!("expected a file or a list of files, found {}", node.value.describe()),
        )
    };
    match &entry.value {
        Value::String(_) => Ok(vec![entry]),
        Value::List(items) => items
            .iter()
            .map(|it| if it.as_str().is_some() { Ok(it) } else { Err(wrong(it)) })
            .collect(),
        _ => Err(wrong(entry)),
    }
}

/// The config that a path stands for, seen from `directory`: the file of that name, or the YAML in
/// place of Python, or one of those that come with the program, wherever the path begins
/// (`../_base_/models/x.py`, `mmseg::_base_/models/x.py`).
pub(super) fn find(directory: &Path, path: &str) -> Option<PathBuf> {
    let there = |path: PathBuf| {
        let other =
            path.extension().is_some_and(|it| it == "py").then(|| path.with_extension("yaml"));
        std::iter::once(path).chain(other).find(|it| it.exists())
    };
    let (scope, below) =
        path.split_once("::").map_or((None, path), |(scope, below)| (Some(scope), below));
    match scope {
        None => {
            if let Some(found) = there(directory.join(below)) {
                return Some(found);
            }
        }
        Some("mmseg" | "segslurm") => {}
        Some(_) => return None,
    }
    if Path::new(below).is_absolute() {
        return None;
    }
    let steps = Path::new(below).components().skip_while(|it| !matches!(it, Component::Normal(_)));
    let below: PathBuf = steps.collect();
    let below = below.strip_prefix("configs").unwrap_or(&below);
    shipped::folders("configs").into_iter().find_map(|folder| there(folder.join(below)))
}

/// The file of one entry of `_base_`.
fn find_base(directory: &Path, named: &Node) -> Result<PathBuf, ConfigError> {
    let path = named.as_str().unwrap_or_default();
    find(directory, path).ok_or_else(|| {
        let message = match path.split_once("::") {
            Some((scope, _)) if !["mmseg", "segslurm"].contains(&scope) => {
                format!(
                    "`{path}`: the configs of {scope} are not here; only those of mmseg come with \
                     the program, as mmseg::…"
                )
            }
            Some((_, below)) => format!("no config `{below}` comes with the program"),
            None => {
                let shown = tidy(&directory.join(path));
                format!(
                    "there is no file {}, and none of the configs that come with the program{}",
                    shown.display(),
                    hint(&shown)
                )
            }
        };
        ConfigError::at(&named.origin, BASE, message)
    })
}

/// The file beside a missing one whose name is the closest.
fn hint(path: &Path) -> String {
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names: Vec<String> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|it| it.ok()?.file_name().into_string().ok())
        .collect();
    let wanted = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
    match nearest(wanted, names.iter().map(String::as_str)) {
        Some(name) if name != wanted => format!("; did you mean `{name}`?"),
        _ => String::new(),
    }
}

/// Adds one more base beside the others. A key may come from one base only: the order of bases
/// shall not matter.
fn join(bases: &mut Node, base: Node, listed: &Origin) -> Result<(), ConfigError> {
    let mut faults = Vec::new();
    if let (Value::Map(into), Value::Map(from)) = (&mut bases.value, base.value) {
        for (key, node) in from {
            if let Some(first) = into.get(&key) {
                let message = format!(
                    "two bases set `{key}`: {} and {}; keep it in one of them",
                    first.origin, node.origin
                );
                faults.push(ConfigError::at(listed, BASE, message));
            } else {
                into.insert(key, node);
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(ConfigError::all(faults)) }
}

/// Whether the keys `0`, `1`, … of a mapping reach into a list: on the command line they do, in a
/// file they do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListKeys {
    Allowed,
    Refused,
}

/// Merges `child` over `base`: mappings key by key, everything else by replacing. A mapping with
/// `_delete_: true` replaces too. What cannot be merged is told all at once.
pub(super) fn merge(
    base: Node,
    child: Node,
    list_keys: ListKeys,
    uses: &mut Uses,
) -> Result<Node, ConfigError> {
    let mut faults = Vec::new();
    let merged = merged(base, child, list_keys, uses, &mut faults);
    if faults.is_empty() { Ok(merged) } else { Err(ConfigError::all(faults)) }
}

/// The same; what cannot be merged is added to `faults` and stays as it is in the base.
fn merged(
    base: Node,
    child: Node,
    list_keys: ListKeys,
    uses: &mut Uses,
    faults: &mut Vec<ConfigError>,
) -> Node {
    let whole = base.clone();
    Merge { whole: &whole, list_keys, uses, faults }.at(base, child, "")
}

struct Merge<'a> {
    /// The base from its root, for references.
    whole: &'a Node,
    list_keys: ListKeys,
    uses: &'a mut Uses,
    faults: &'a mut Vec<ConfigError>,
}

impl Merge<'_> {
    /// What cannot be merged leaves the base as it is.
    fn at(&mut self, mut base: Node, mut child: Node, path: &str) -> Node {
        let Value::Map(changes) = &mut child.value else {
            return without_delete(child);
        };
        match delete(changes, path) {
            Ok(false) => {}
            Ok(true) => return without_delete(child),
            Err(fault) => self.faults.push(fault),
        }
        match references::target(&base, self.whole) {
            Ok(Some((target, name))) => {
                references::take(&name, self.whole, self.uses);
                base = target;
            }
            Ok(None) => {}
            Err(fault) => {
                self.faults.push(fault);
                return base;
            }
        }
        match (&mut base.value, child.value) {
            (Value::Map(into), Value::Map(changes)) => {
                for (key, change) in changes {
                    let path = join_path(path, &key);
                    let merged = match into.get_mut(&key) {
                        Some(old) => self.at(take(old), change, &path),
                        None => without_delete(change),
                    };
                    into.insert(key, merged);
                }
            }
            (Value::List(items), Value::Map(changes)) if self.list_keys == ListKeys::Allowed => {
                for (key, change) in changes {
                    let path = join_path(path, &key);
                    let length = items.len();
                    let digits = key.bytes().all(|it| it.is_ascii_digit());
                    let Some(slot) = key
                        .parse::<usize>()
                        .ok()
                        .filter(|_| digits)
                        .and_then(|index| items.get_mut(index))
                    else {
                        let message = match length {
                            0 => "the list is empty".to_owned(),
                            _ => format!(
                                "not an index of the list, which has {length} items (0 to {})",
                                length - 1
                            ),
                        };
                        self.faults.push(ConfigError::at(&change.origin, &path, message));
                        continue;
                    };
                    *slot = self.at(take(slot), change, &path);
                }
            }
            (old, Value::Map(changes)) => {
                let origin = changes.values().next().map_or(&child.origin, |it| &it.origin);
                let delete = if origin.is_python() { "_delete_=True" } else { "_delete_: true" };
                let message = format!(
                    "a mapping cannot be merged into {}, set at {}; add `{delete}` to replace it",
                    old.describe(),
                    base.origin
                );
                self.faults.push(ConfigError::at(origin, path, message));
            }
            (_, value) => return Node::new(value, child.origin),
        }
        base
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
            Err(ConfigError::at(
                &node.origin,
                &path,
                format!("expected true or false, found {}", node.value.describe()),
            ))
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
            Component::ParentDir
                if matches!(tidy.components().next_back(), Some(Component::Normal(_))) =>
            {
                tidy.pop();
            }
            it => tidy.push(it),
        }
    }
    tidy
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{self, Config};

    fn merged(base: Node, child: Node) -> Result<Node, ConfigError> {
        merge(base, child, ListKeys::Refused, &mut Uses::new())
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        folder
    }

    fn load_in(folder: &tempfile::TempDir, name: &str) -> Result<Config, String> {
        config::load(&folder.path().join(name), &[])
            .map_err(|it| it.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    fn json(files: &[(&str, &str)]) -> String {
        let config = load_in(&folder(files), "top/a.yaml").expect("loads");
        serde_json::to_string(&config.root).expect("has a JSON form")
    }

    fn error(files: &[(&str, &str)]) -> String {
        load_in(&folder(files), "top/a.yaml").expect_err("is wrong")
    }

    #[test]
    fn bases_merge_key_by_key_and_lists_replace() {
        let merged = json(&[
            ("models/m.yaml", "model: {backbone: {type: R, depth: 50}, heads: [1, 2]}"),
            ("run/deep.yaml", "log: INFO\nlr: 1"),
            ("run/r.yaml", "_base_: ./deep.yaml\nlr: 2"),
            (
                "top/a.yaml",
                "_base_: [../models/m.yaml, ../run/r.yaml]\nmodel: \
                 {backbone: {depth: 18}, heads: [3]}\nextra: 1",
            ),
        ]);
        let expected = r#"{"model":{"backbone":{"type":"R","depth":18},"heads":[3]},"log":"INFO","lr":2,"extra":1}"#;
        assert_eq!(merged, expected);
    }

    #[test]
    fn a_base_that_cannot_be_read_is_named_with_the_line_that_names_it() {
        let error = error(&[("models/m.yaml", ""), ("top/a.yaml", "x: 1\n_base_: ../models")]);
        assert!(error.starts_with("top/a.yaml:2: _base_: cannot read "), "{error}");
    }

    #[test]
    fn delete_in_a_list_is_not_kept() {
        let merged = json(&[
            ("top/b.yaml", "a: [1]"),
            ("top/a.yaml", "_base_: b.yaml\na: [{_delete_: true, x: 1}]"),
        ]);
        assert_eq!(merged, r#"{"a":[{"x":1}]}"#);
    }

    #[test]
    fn delete_replaces_the_mapping_of_the_base() {
        let merged = json(&[
            ("top/b.yaml", "a: {x: 1, y: {z: 1}}\nb: {x: 1}"),
            (
                "top/a.yaml",
                "_base_: b.yaml\na: {_delete_: true, y: {w: 2}}\nb: {_delete_: false, y: 2}\nc: \
                 {_delete_: true, q: 1}",
            ),
        ]);
        assert_eq!(merged, r#"{"a":{"y":{"w":2}},"b":{"x":1,"y":2},"c":{"q":1}}"#);
    }

    #[test]
    fn references_take_the_values_of_the_bases_before_this_file_changes_them() {
        let merged = json(&[
            ("top/b.yaml", "a: {x: 1, y: [5, {z: w}]}\nname: psp"),
            (
                "top/a.yaml",
                "_base_: b.yaml\na: {x: 2}\nold: {{_base_.a.x}}\nlist: '{{ _base_.a.y }}'\nitem: \
                 {{_base_.a.y.1.z}}\ntext: run-{{_base_.name}}-{{_base_.a.x}}",
            ),
        ]);
        let expected = r#"{"a":{"x":2,"y":[5,{"z":"w"}]},"name":"psp","old":1,"list":[5,{"z":"w"}],"item":"w","text":"run-psp-1"}"#;
        assert_eq!(merged, expected);
    }

    #[test]
    fn errors_name_the_file_and_line() {
        let errors = [
            error(&[("top/a.yaml", "x: 1\n_base_: b.yml"), ("top/b.yaml", "")]),
            error(&[("top/a.yaml", "_base_: 5")]),
            error(&[("top/a.yaml", "_base_:\n  - a.yaml")]),
            error(&[("top/a.yaml", "_base_: b.yaml"), ("top/b.yaml", "\n_base_: ../top/a.yaml")]),
            error(&[
                ("top/a.yaml", "_base_:\n  - b.yaml\n  - c.yaml"),
                ("top/b.yaml", "x: 1"),
                ("top/c.yaml", "\nx: 1"),
            ]),
            error(&[
                ("top/a.yaml", "_base_: b.yaml\nx:\n  y:\n    z: 1"),
                ("top/b.yaml", "x: {y: 1}"),
            ]),
            error(&[
                ("top/a.yaml", "_base_: b.yaml\nx:\n  '0': {y: 1}"),
                ("top/b.yaml", "x: [{y: 0}]"),
            ]),
            error(&[
                ("top/a.yaml", "_base_: b.yaml\nx:\n  _delete_: 1"),
                ("top/b.yaml", "x: {y: 1}"),
            ]),
            error(&[
                ("top/a.yaml", "_base_: b.yaml\ny: {{_base_.xx.z}}"),
                ("top/b.yaml", "x: {z: 1}"),
            ]),
            error(&[
                ("top/a.yaml", "_base_: b.yaml\ny: a-{{_base_.x}}"),
                ("top/b.yaml", "x: {z: 1}"),
            ]),
            error(&[("top/a.yaml", "y: {{_base_.x}}")]),
            error(&[("top/a.yaml", "- 1")]),
            error(&[("top/a.yaml", "x: 1\ny: [1\nz: 2")]),
            error(&[]),
        ];
        insta::assert_snapshot!(errors.join("\n"));
    }

    fn any_node() -> impl Strategy<Value = Node> {
        let origin = Origin::named("test");
        let leaf = {
            let origin = origin.clone();
            prop_oneof![
                Just(Value::Null),
                any::<bool>().prop_map(Value::Bool),
                any::<i64>().prop_map(Value::Int)
            ]
            .prop_map(move |it| Node::new(it, origin.clone()))
        };
        leaf.prop_recursive(4, 24, 4, move |below| {
            let (list, map) = (origin.clone(), origin.clone());
            prop_oneof![
                prop::collection::vec(below.clone(), 0..4)
                    .prop_map(move |it| Node::new(Value::List(it), list.clone())),
                prop::collection::hash_map("[a-d]", below, 0..4).prop_map(move |it| Node::new(
                    Value::Map(it.into_iter().collect()),
                    map.clone()
                )),
            ]
        })
    }

    fn any_map() -> impl Strategy<Value = Node> {
        prop::collection::hash_map("[a-d]", any_node(), 0..4)
            .prop_map(|it| Node::new(Value::Map(it.into_iter().collect()), Origin::named("test")))
    }

    proptest! {
        #[test]
        fn merging_nothing_changes_nothing(base in any_map()) {
            let empty = Node::new(Value::Map(Map::new()), Origin::named("test"));
            prop_assert_eq!(merged(base.clone(), empty.clone()).expect("merges"), base.clone());
            prop_assert_eq!(merged(empty, base.clone()).expect("merges"), base);
        }

        #[test]
        fn merging_twice_is_merging_once(base in any_map(), child in any_map()) {
            if let Ok(once) = merged(base, child.clone()) {
                prop_assert_eq!(merged(once.clone(), child).expect("merges"), once);
            }
        }

        #[test]
        fn every_value_of_the_child_wins(base in any_map(), child in any_map()) {
            if let Ok(merged) = merged(base, child.clone()) {
                for (key, node) in child.as_map().expect("a mapping") {
                    if node.as_map().is_none() {
                        prop_assert_eq!(merged.get(key), Some(node));
                    }
                }
            }
        }
    }
}
