//! The floors of `docs/architecture.md`, as a test: a module names only modules of lower floors.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Module → floor, read off the groups of `mod` lines in `src/lib.rs`.
fn floors(root: &Path) -> BTreeMap<String, u32> {
    let text = fs::read_to_string(root.join("src/lib.rs")).expect("src/lib.rs");
    let mut floors = BTreeMap::new();
    let mut floor = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("// Floor ") {
            floor = rest.split(':').next().and_then(|number| number.parse().ok());
        } else if let Some(name) = line
            .trim_start_matches("pub ")
            .strip_prefix("mod ")
            .and_then(|rest| rest.strip_suffix(';'))
        {
            floors.insert(
                name.to_owned(),
                floor.unwrap_or_else(|| panic!("`{name}` stands before the first floor")),
            );
        }
    }
    floors
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).expect("a source folder").flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

/// The modules that a text names as `crate::module`, also inside `use crate::{a, b::c}`, with their
/// lines.
fn named<'a>(text: &'a str, modules: &BTreeMap<String, u32>) -> Vec<(usize, &'a str)> {
    let mut names = Vec::new();
    for (index, line) in
        text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
    {
        for (start, _) in line.match_indices("crate::") {
            let rest = &line[start + "crate::".len()..];
            let candidates = match rest.strip_prefix('{') {
                Some(list) => list.split([',', '}']).collect(),
                None => vec![rest],
            };
            for candidate in candidates {
                let word = candidate
                    .trim()
                    .split(|it: char| !it.is_alphanumeric() && it != '_')
                    .next()
                    .unwrap_or_default();
                if modules.contains_key(word) {
                    names.push((index + 1, word));
                }
            }
        }
    }
    names
}

#[test]
fn modules_name_only_lower_floors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let floors = floors(root);
    assert!(floors.len() >= 15, "the floors of src/lib.rs were read: {floors:?}");
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(root.join("src")).expect("below src");
        let first = relative.components().next().expect("a name").as_os_str().to_string_lossy();
        let module = first.trim_end_matches(".rs").to_owned();
        let Some(floor) = floors.get(&module) else { continue };
        let text = fs::read_to_string(&file).expect("a source file");
        for (line, name) in named(&text, &floors) {
            if name != module && floors[name] >= *floor {
                wrong.push(format!(
                    "src/{}:{line}: `{module}` may not use `{name}`",
                    relative.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_check_sees_a_use() {
    let floors = BTreeMap::from([("slurm".to_owned(), 1), ("models".to_owned(), 4)]);
    assert_eq!(
        named(
            "use crate::{exit, models::Head};\n// crate::models\nlet x = crate::slurm::Job;",
            &floors
        ),
        [(1, "models"), (3, "slurm")]
    );
}

/// Modules that may name libtorch's tensors and our own layer above it: where they meet Burn's,
/// where files become tensors, and below both the process groups, which know no Burn.
const NAMES_TCH: [&str; 3] = ["ops", "checkpoint", "dist"];

/// A module's own text, without its tests and comments.
fn own_text(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().filter(|it| !it.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn names_tch(text: &str) -> bool {
    let starts = |(at, _): (usize, &str)| {
        !text[..at].ends_with(|it: char| it.is_alphanumeric() || it == '_')
    };
    // `words` is about texts.
    let native = text.replace("segslurm_native::words", "");
    text.match_indices("tch::").any(starts) || native.contains("segslurm_native")
}

#[test]
fn libtorchs_tensors_are_named_where_they_may_be() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let wrong: Vec<_> = files
        .iter()
        .filter(|file| {
            let relative = file.strip_prefix(&root).expect("below src");
            let module =
                relative.components().next().expect("a name").as_os_str().to_string_lossy();
            let tests = relative.ends_with("tests.rs");
            !tests && !NAMES_TCH.contains(&module.trim_end_matches(".rs"))
        })
        .filter(|file| names_tch(&own_text(&fs::read_to_string(file).expect("a source file"))))
        .collect();
    assert!(wrong.is_empty(), "these name tch: {wrong:?}");
    assert!(names_tch("let x = tch::Tensor::new();") && !names_tch("use batch::Layout;"));
}

/// The types that a slot's lines name: configs and modules.
fn slot_types(face: &str) -> Vec<String> {
    let inside = face.split_once("slot! {").map(|(_, rest)| rest).unwrap_or_default();
    let lines = inside.lines().map(str::trim).filter(|it| it.ends_with("),"));
    let types = lines.flat_map(|line| {
        let (_, types) = line.trim_end_matches("),").split_once('(').expect("a variant's types");
        types.split(" => ").map(|it| it.trim().to_owned()).collect::<Vec<_>>()
    });
    types.collect()
}

#[test]
fn a_component_names_no_other_component_of_its_slot() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/models");
    let mut wrong = Vec::new();
    for slot in ["backbone", "neck", "head", "loss", "sampler"] {
        let types =
            slot_types(&fs::read_to_string(models.join(slot).join("mod.rs")).expect("a slot"));
        assert!(!types.is_empty(), "the slot {slot} has no line");
        let mut files = Vec::new();
        rust_files(&models.join(slot), &mut files);
        for file in files.iter().filter(|it| !it.ends_with("mod.rs")) {
            let text = own_text(&fs::read_to_string(file).expect("a source file"));
            let defined = |name: &str| {
                ["struct", "type"].iter().any(|it| text.contains(&format!("pub {it} {name}")))
            };
            let words: Vec<&str> =
                text.split(|it: char| !it.is_alphanumeric() && it != '_').collect();
            let others = types.iter().filter(|it| !defined(it) && words.contains(&it.as_str()));
            wrong.extend(others.map(|it| format!("{} names {it}", file.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
