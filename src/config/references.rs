//! References in a config's text. `{{_base_.a.b}}` is the value that the bases give to `a.b`, taken
//! when the file is merged, as mmengine does. `{{name.a}}` is the value that the finished config
//! has there, after every merge and override: a name such as `crop_size` or `train_pipeline` is
//! written once, and whoever changes it changes every place that refers to it.
//!
//! In the tree a reference is a string between two private characters, put there before the text is
//! parsed as YAML.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{ConfigError, nearest};
use super::node::{MAX_DEPTH, Node, Origin, Value};
use super::predefined;

const OPEN: char = '\u{e000}';
const CLOSE: char = '\u{e001}';
const BASE: &str = "_base_.";

/// mmengine's overrides spell null so, and nobody means the word, wherever it stands.
pub(super) const NONE: &str = "None";

/// References lead through no more than so many others.
const MAX_CHAIN: usize = 64;
/// The values that all references of a config may bring, and the steps on the way to them. Where
/// `a` is `{{b}} {{b}}`, `b` is `{{c}} {{c}}` and so on, there are more with every line.
const MAX_BROUGHT: usize = 1_000_000;
/// The same while one place is merged.
const MAX_STEPS: usize = 10_000;
/// So many faults are told at once.
const MAX_FAULTS: usize = 20;

/// What is left of a limit.
struct Budget(usize);

impl Budget {
    fn spend(&mut self, weight: usize, at: &Node) -> Result<(), ConfigError> {
        match self.0.checked_sub(weight) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => Err(ConfigError::text(
                &at.origin,
                "the references of this config bring more values than a config has",
            )),
        }
    }
}

/// Replaces every `{{path}}` of a text by its marked form. The number of lines stays.
pub(super) fn mark(text: &str) -> String {
    let mut marked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let (before, inside) = rest.split_at(start);
        marked.push_str(before);
        let inside = &inside[2..];
        // Looked for no further than a path reaches: of a text of nothing but braces every one
        // would be followed to the end.
        let open = inside.trim_start_matches([' ', '\t']);
        let (path, behind) = open.split_at(open.find(|it| !in_path(it)).unwrap_or(open.len()));
        let close = behind.trim_start_matches([' ', '\t']).strip_prefix("}}");
        if let Some(behind) = close.filter(|_| is_path(path)) {
            marked.extend([OPEN]);
            marked.push_str(path);
            marked.extend([CLOSE]);
            rest = behind;
        } else {
            marked.push_str("{{");
            rest = inside;
        }
    }
    marked.push_str(rest);
    marked
}

fn is_path(text: &str) -> bool {
    text.starts_with(|it: char| it.is_ascii_alphabetic() || it == '_') && text.chars().all(in_path)
}

fn in_path(it: char) -> bool {
    it.is_ascii_alphanumeric() || matches!(it, '_' | '.' | '-')
}

/// Whether there are references in a text.
pub(super) fn is_marked(text: &str) -> bool {
    text.contains([OPEN, CLOSE])
}

/// A string, taken apart into text and references.
enum Piece<'a> {
    Text(&'a str),
    Path(&'a str),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let Some((path, after)) = after.split_once(CLOSE) else { break };
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(Piece::Path(path));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

/// Names at the top of a config that need not be sections, because values refer to them:
/// `crop_size`, `train_pipeline`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Variables {
    pub names: BTreeSet<String>,
    /// Those of them that a file or the command line sets without effect: the values that referred
    /// to them have been replaced.
    pub(super) stale: BTreeMap<String, Origin>,
}

/// Which files refer to a name.
pub(super) type Uses = BTreeMap<String, BTreeSet<String>>;

/// Adds the names that `tree`, read from one file, refers to.
pub(super) fn collect_uses(tree: &Node, uses: &mut Uses) {
    match &tree.value {
        Value::String(text) => {
            for piece in pieces(text) {
                if let Piece::Path(path) = piece
                    && !path.starts_with(BASE)
                {
                    let name = path.split('.').next().unwrap_or(path);
                    uses.entry(name.to_owned())
                        .or_default()
                        .insert(tree.origin.source().to_owned());
                }
            }
        }
        Value::List(items) => items.iter().for_each(|item| collect_uses(item, uses)),
        Value::Map(map) => map.values().for_each(|item| collect_uses(item, uses)),
        _ => {}
    }
}

/// A place in `tree` that the command line set or `file`, the one that was asked for, and none of
/// `files`. What its bases do among themselves is not its reader's to mend.
fn set_in_vain<'a>(tree: &'a Node, file: &str, files: &BTreeSet<String>) -> Option<&'a Origin> {
    let origin = &tree.origin;
    if !files.contains(origin.source()) && (origin.is_command_line() || origin.source() == file) {
        return Some(origin);
    }
    match &tree.value {
        Value::List(items) => items.iter().find_map(|item| set_in_vain(item, file, files)),
        Value::Map(map) => map.values().find_map(|item| set_in_vain(item, file, files)),
        _ => None,
    }
}

/// Puts the bases' values where `tree` says `{{_base_.a.b}}`.
pub(super) fn resolve_bases(tree: &mut Node, bases: &Node) -> Result<(), ConfigError> {
    let mut budget = Budget(MAX_BROUGHT);
    each_string(tree, &mut |node, text| {
        let pieces = pieces(text);
        if !pieces.iter().any(|it| matches!(it, Piece::Path(path) if path.starts_with(BASE))) {
            return Ok(None);
        }
        let mut find = |path: &str| {
            let below = &path[BASE.len()..];
            let found = bases.get(below).ok_or_else(|| {
                let hint = hint(bases, below);
                ConfigError::text(
                    &node.origin,
                    format!("`{{{{{path}}}}}`: the bases set nothing at `{below}`{hint}"),
                )
            })?;
            budget.spend(found.size().weight, node).map(|()| found)
        };
        if let [Piece::Path(path)] = pieces[..] {
            return find(path).map(|it| Some(it.clone()));
        }
        let mut joined = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => joined.push_str(text),
                Piece::Path(path) if path.starts_with(BASE) => {
                    joined.push_str(&inline(find(path)?, path, node)?);
                }
                Piece::Path(path) => joined.extend([&OPEN.to_string(), path, &CLOSE.to_string()]),
            }
        }
        Ok(Some(Node::new(Value::String(joined), node.origin.clone())))
    })
}

/// Puts the finished config's values where it says `{{name.a}}`.
pub(super) fn resolve(root: &mut Node, uses: &Uses) -> Result<Variables, ConfigError> {
    let whole = root.clone();
    let mut names = BTreeSet::new();
    resolve_below(root, &whole, &mut Vec::new(), &mut names, &mut Budget(MAX_BROUGHT))?;
    let mut stale = BTreeMap::new();
    for (name, files) in uses {
        if let (false, Some(node)) = (names.contains(name), whole.get(name)) {
            stale.extend(
                set_in_vain(node, whole.origin.source(), files)
                    .map(|origin| (name.clone(), origin.clone())),
            );
            names.insert(name.clone());
        }
    }
    Ok(Variables { names, stale })
}

fn resolve_below(
    tree: &mut Node,
    whole: &Node,
    stack: &mut Vec<String>,
    names: &mut BTreeSet<String>,
    budget: &mut Budget,
) -> Result<(), ConfigError> {
    each_string(tree, &mut |node, text| {
        if !text.contains(OPEN) {
            return Ok((text == NONE).then(|| Node::new(Value::Null, node.origin.clone())));
        }
        let mut find = |path: &str| -> Result<Node, ConfigError> {
            if stack.iter().any(|it| it == path) {
                let chain =
                    stack.iter().map(String::as_str).chain([path]).collect::<Vec<_>>().join(" -> ");
                return Err(ConfigError::text(
                    &node.origin,
                    format!("references go in a circle: {chain}"),
                ));
            }
            if stack.len() >= MAX_CHAIN {
                let message = format!(
                    "references lead through more than {MAX_CHAIN} others, the last is `{path}`"
                );
                return Err(ConfigError::text(&node.origin, message));
            }
            let found = follow(whole, path, node, stack.len(), budget)?;
            budget.spend(found.size().weight, node)?;
            let mut found = found.clone();
            names.extend(path.split('.').next().map(str::to_owned));
            stack.push(path.to_owned());
            resolve_below(&mut found, whole, stack, names, budget)?;
            stack.pop();
            if found.size().depth > MAX_DEPTH {
                let message =
                    format!("what `{path}` refers to nests more than {MAX_DEPTH} levels deep");
                return Err(ConfigError::text(&node.origin, message));
            }
            Ok(found)
        };
        let pieces = pieces(text);
        if let [Piece::Path(path)] = pieces[..] {
            return find(path).map(Some);
        }
        let mut joined = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => joined.push_str(text),
                Piece::Path(path) => joined.push_str(&inline(&find(path)?, path, node)?),
            }
        }
        let value = if joined == NONE { Value::Null } else { Value::String(joined) };
        Ok(Some(Node::new(value, node.origin.clone())))
    })
}

/// The node at `path`, which may lead through other references; it does so already through `depth`
/// of them.
fn follow<'a>(
    whole: &'a Node,
    path: &str,
    from: &Node,
    depth: usize,
    budget: &mut Budget,
) -> Result<&'a Node, ConfigError> {
    let unknown = || {
        if path.starts_with(BASE) {
            return ConfigError::text(
                &from.origin,
                format!("`{{{{{path}}}}}`: this file has no `_base_`"),
            );
        }
        let hint = match predefined::meant(path) {
            Some(name) => format!("; did you mean `{{{{ {name} }}}}`?"),
            None => hint(whole, path),
        };
        ConfigError::text(
            &from.origin,
            format!("`{{{{{path}}}}}`: the config sets nothing at `{path}`{hint}"),
        )
    };
    let mut node = whole;
    for step in path.split('.') {
        budget.spend(1, from)?;
        if let Some([Piece::Path(inner)]) = node.as_str().map(pieces).as_deref() {
            if depth > MAX_CHAIN {
                return Err(ConfigError::text(
                    &from.origin,
                    format!("references go in a circle at `{inner}`"),
                ));
            }
            node = follow(whole, inner, from, depth + 1, budget)?;
        }
        node = node.get(step).ok_or_else(unknown)?;
    }
    Ok(node)
}

/// The node that a reference node stands for at this point of merging, and the name that it begins
/// with, if it is one.
pub(super) fn target(node: &Node, whole: &Node) -> Result<Option<(Node, String)>, ConfigError> {
    match node.as_str().map(pieces).as_deref() {
        Some([Piece::Path(path)]) => {
            let found = follow(whole, path, node, 0, &mut Budget(MAX_STEPS))?;
            Ok(Some((found.clone(), path.split('.').next().unwrap_or(path).to_owned())))
        }
        _ => Ok(None),
    }
}

/// Takes note that a name's value was copied: what has set it so far had an effect, though nothing
/// may refer to it any more.
pub(super) fn take(name: &str, whole: &Node, uses: &mut Uses) {
    fn sources(node: &Node, files: &mut BTreeSet<String>) {
        files.insert(node.origin.source().to_owned());
        match &node.value {
            Value::List(items) => items.iter().for_each(|it| sources(it, files)),
            Value::Map(map) => map.values().for_each(|it| sources(it, files)),
            _ => {}
        }
    }
    if let Some(node) = whole.get(name) {
        sources(node, uses.entry(name.to_owned()).or_default());
    }
}

/// A value as a part of a longer string.
fn inline(value: &Node, path: &str, node: &Node) -> Result<String, ConfigError> {
    Ok(match &value.value {
        Value::Null => NONE.into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => format!("{value:?}"),
        Value::String(text) => text.clone(),
        Value::List(_) | Value::Map(_) => {
            let message = format!(
                "`{{{{{path}}}}}` is {} and cannot be a part of a string",
                value.value.describe()
            );
            return Err(ConfigError::text(&node.origin, message));
        }
    })
}

fn hint(tree: &Node, path: &str) -> String {
    let (parent, last) = path.rsplit_once('.').unwrap_or(("", path));
    let keys = tree
        .get(parent)
        .and_then(Node::as_map)
        .into_iter()
        .flat_map(|it| it.keys().map(String::as_str));
    nearest(last, keys).map(|it| format!("; did you mean `{it}`?")).unwrap_or_default()
}

/// What takes a string's place, or nothing.
type Change = Result<Option<Node>, ConfigError>;

/// Calls `change` on every string of a tree; what it returns takes the string's place. What is
/// wrong with them is told at once.
fn each_string(
    tree: &mut Node,
    change: &mut dyn FnMut(&Node, &str) -> Change,
) -> Result<(), ConfigError> {
    let mut faults = Vec::new();
    visit(tree, change, &mut faults);
    if faults.is_empty() { Ok(()) } else { Err(ConfigError::all(faults)) }
}

fn visit(
    tree: &mut Node,
    change: &mut dyn FnMut(&Node, &str) -> Change,
    faults: &mut Vec<ConfigError>,
) {
    if faults.len() >= MAX_FAULTS {
        return;
    }
    match &mut tree.value {
        Value::String(_) => match change(tree, tree.as_str().unwrap_or_default()) {
            Ok(Some(node)) => *tree = node,
            Ok(None) => {}
            Err(fault) => faults.push(fault),
        },
        Value::List(items) => items.iter_mut().for_each(|item| visit(item, change, faults)),
        Value::Map(map) => map.values_mut().for_each(|item| visit(item, change, faults)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::config;

    #[derive(Debug, Deserialize)]
    struct Run {
        size: [usize; 2],
        #[serde(default)]
        data: Option<Data>,
    }

    #[derive(Debug, Deserialize)]
    struct Data {
        pipeline: Vec<usize>,
    }

    fn load(text: &str, overrides: &[&str]) -> Result<config::Config, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.yaml");
        std::fs::write(&path, text).expect("a file");
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        config::load(&path, &overrides)
            .map_err(|it| it.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    fn run(text: &str, overrides: &[&str]) -> Result<Run, String> {
        load(text, overrides)?.parse().map_err(|it| {
            it.to_string().rsplit_once('/').map_or(it.to_string(), |(_, it)| it.to_owned())
        })
    }

    const NAMES: &str = "crop: [1, 2]\npipe: [3, 4]\nsize: {{crop}}\ndata: {pipeline: '{{pipe}}'}";

    #[test]
    fn a_text_of_braces_is_read_once() {
        let braces = "{{".repeat(1_000_000);
        assert_eq!(mark(&braces), braces);
        assert_eq!(
            mark("{{ a.b-c\t}} {{ a b }} {{a}"),
            format!("{OPEN}a.b-c{CLOSE} {{{{ a b }}}} {{{{a}}")
        );
    }

    #[test]
    fn a_name_is_changed_everywhere_at_once() {
        let changed = run(NAMES, &["crop=5,6", "pipe.1=7"]).expect("parses");
        assert_eq!((changed.size, changed.data.expect("data").pipeline), ([5, 6], vec![3, 7]));
    }

    #[test]
    fn a_place_is_changed_without_changing_the_name() {
        let config = load(NAMES, &["data.pipeline.0=9"]).expect("loads");
        let json = serde_json::to_string(&config.root).expect("has a JSON form");
        assert_eq!(json, r#"{"crop":[1,2],"pipe":[3,4],"size":[1,2],"data":{"pipeline":[9,4]}}"#);
    }

    #[test]
    fn references_reach_through_references_and_into_strings() {
        let config =
            load("a: {x: {y: 5}}\nb: {{a.x}}\nc: {{b.y}}\nd: v{{b.y}}-{{c}}\ne: {{d}}", &[])
                .expect("loads");
        assert_eq!(config.root.get("c").map(|it| &it.value), Some(&Value::Int(5)));
        assert_eq!(config.root.get("e").and_then(Node::as_str), Some("v5-5"));
    }

    #[test]
    fn a_printed_config_loads_as_itself() {
        let config = load(NAMES, &[]).expect("loads");
        for text in [config.to_yaml(), config.to_json()] {
            let again = load(&text, &[]).expect("loads");
            assert_eq!(
                (&again.root, &again.variables.names),
                (&config.root, &config.variables.names)
            );
            again.parse::<Run>().expect("parses");
        }
    }

    #[test]
    fn a_reference_on_the_command_line_is_one() {
        let config = load(NAMES, &["size={{pipe}}", "name=v{{crop.0}}"]).expect("loads");
        assert_eq!(config.root.get("size"), config.root.get("pipe"));
        assert_eq!(config.root.get("name").and_then(Node::as_str), Some("v1"));
    }

    #[test]
    fn braces_and_line_ends_that_are_text_are_printed_as_text() {
        for text in [
            "a: lr\nb: '{{{{a}}}}'",
            "a: lr\nb: 'x{{{{a}}}} {{{a}}}'",
            r#"a: "x\N\L\P\_\x7f\ufeff\u0001""#,
        ] {
            let config = load(text, &[]).expect(text);
            for printed in [config.to_yaml(), config.to_json()] {
                assert_eq!(load(&printed, &[]).expect(&printed).root, config.root, "{printed}");
            }
        }
    }

    #[test]
    fn what_grows_with_every_reference_is_refused_before_memory_ends() {
        let lines = |count: usize, value: &dyn Fn(usize) -> String| {
            (0..count).map(|at| format!("a{at}: {}\n", value(at + 1))).collect::<String>()
                + &format!("a{count}: x\n")
        };
        let error = load(&lines(40, &|next| format!("'{{{{a{next}}}}} {{{{a{next}}}}}'")), &[])
            .expect_err("doubles");
        assert!(error.contains("bring more values than a config has"), "{error}");
        let error = load(&lines(40, &|next| format!("[{{{{a{next}}}}}, {{{{a{next}}}}}]")), &[])
            .expect_err("doubles");
        assert!(error.contains("bring more values than a config has"), "{error}");
        let error = load(&lines(5000, &|next| format!("[{{{{a{next}}}}}]")), &[])
            .expect_err("a long chain");
        assert!(
            error.starts_with("a.yaml:65: references lead through more than 64 others"),
            "{error}"
        );
    }

    #[test]
    fn errors_say_what_a_name_lacks() {
        let errors = [
            load("a: {{b}}", &[]).expect_err("is wrong"),
            load("crop_size: 1\na: {{crop_sise}}", &[]).expect_err("is wrong"),
            load("a: {{b}}\nb: {{a}}", &[]).expect_err("is wrong"),
            load("a: {{b.x}}\nb: {{a.x}}", &[]).expect_err("is wrong"),
            load("a: {x: '{{a}}'}", &[]).expect_err("is wrong"),
            load("a: [1]\nb: x{{a}}", &[]).expect_err("is wrong"),
            run("size: [1, 2]\ncrop: [1, 2]", &[]).expect_err("is wrong"),
            run("size: [1, 2]\ncrop: [1, 2]\n_variables_: [crop]", &["crop=3,4"])
                .expect_err("is wrong"),
            run(NAMES, &["size=3,4", "crop=7"]).expect_err("is wrong"),
        ];
        insta::assert_snapshot!(errors.join("\n"));
    }
}
