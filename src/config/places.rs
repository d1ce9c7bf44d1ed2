//! `~` and `$NAME` in the paths of a config, which a shell would have put in if it had seen them.
//! They stay in what is printed.

use super::error::ConfigError;
use super::node::{Node, Value};

/// Keys whose strings are paths.
const PATHS: [&str; 14] = [
    "ann_file",
    "checkpoint",
    "class_weight",
    "classes",
    "data_root",
    "img_path",
    "load_from",
    "out_dir",
    "output_dir",
    "pretrained",
    "save_dir",
    "seg_map_path",
    "work_dir",
    "cityscapes_path",
];

/// Puts the environment's values into every path of a tree; what is not set is told at once.
pub(crate) fn expand(
    root: &mut Node,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(), ConfigError> {
    let mut faults = Vec::new();
    below(root, &mut Vec::new(), environment, &mut faults);
    if faults.is_empty() { Ok(()) } else { Err(ConfigError::all(faults)) }
}

fn below(
    node: &mut Node,
    path: &mut Vec<String>,
    environment: &dyn Fn(&str) -> Option<String>,
    faults: &mut Vec<ConfigError>,
) {
    let is_path = path.last().is_some_and(|it| PATHS.contains(&it.as_str()));
    match &mut node.value {
        Value::String(text) if is_path => match expanded(text, environment) {
            Ok(None) => {}
            Ok(Some(expanded)) => *text = expanded,
            Err(message) => faults.push(ConfigError::at(&node.origin, &path.join("."), message)),
        },
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                path.push(index.to_string());
                below(item, path, environment, faults);
                path.pop();
            }
        }
        Value::Map(map) => {
            for (key, item) in map.iter_mut() {
                path.push(key.clone());
                below(item, path, environment, faults);
                path.pop();
            }
        }
        _ => {}
    }
}

/// A path with the values of its variables; `None` where it has none.
fn expanded(
    path: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, String> {
    let home = path == "~" || path.starts_with("~/");
    if !home && !path.contains('$') {
        return Ok(None);
    }
    let value = |name: &str| {
        let set = environment(name).filter(|it| !it.is_empty());
        set.ok_or_else(|| {
            format!("`{path}` needs the environment variable {name}, which is not set")
        })
    };
    let mut text = String::new();
    let mut rest = path;
    if home {
        text.push_str(&value("HOME")?);
        rest = &rest[1..];
    }
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        let (name, behind) = match after.strip_prefix('{').and_then(|it| it.split_once('}')) {
            Some(braced) => braced,
            None => after.split_at(
                after
                    .find(|it: char| !it.is_ascii_alphanumeric() && it != '_')
                    .unwrap_or(after.len()),
            ),
        };
        if name.is_empty() || name.starts_with(|it: char| it.is_ascii_digit()) {
            // A dollar in a file's name.
            text.push('$');
            rest = after;
            continue;
        }
        text.push_str(&value(name)?);
        rest = behind;
    }
    text.push_str(rest);
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;

    fn environment(name: &str) -> Option<String> {
        [("HOME", "/home/me"), ("DATA", "/data")]
            .iter()
            .find(|it| it.0 == name)
            .map(|it| it.1.to_owned())
    }

    #[test]
    fn paths_have_the_values_that_a_shell_would_put_in() {
        for (path, expected) in [
            ("~/data", Some("/home/me/data")),
            ("~", Some("/home/me")),
            ("$DATA/ade", Some("/data/ade")),
            ("${DATA}2/$HOME", Some("/data2//home/me")),
            ("a/~b", None),
            ("price$", Some("price$")),
            ("~you/data", None),
        ] {
            assert_eq!(
                expanded(path, &environment).expect("is set").as_deref(),
                expected,
                "{path}"
            );
        }
    }

    #[test]
    fn variables_that_are_not_set_are_told_with_their_keys_and_only_of_paths() {
        let mut root = yaml::parse(
            "a:\n  data_root: $NOWHERE/x\n  work_dir: ~/w\nb: $NOWHERE\nc: [{ann_file: '${GONE}'}]",
            &"a.yaml".into(),
        )
        .expect("parses");
        let error = expand(&mut root, &environment).expect_err("is not set").to_string();
        assert_eq!(error.lines().count(), 2, "{error}");
        assert!(
            error.starts_with(
                "a.yaml:2: a.data_root: `$NOWHERE/x` needs the environment variable NOWHERE"
            ),
            "{error}"
        );
        assert_eq!(root.get("a.work_dir").and_then(Node::as_str), Some("/home/me/w"));
    }
}
