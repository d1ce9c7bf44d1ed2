//! The floors of `docs/architecture.md`, as a test: a module names only modules of lower floors.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Module → floor, read off the groups of `pub mod` lines in `src/lib.rs`.
fn floors(root: &Path) -> BTreeMap<String, u32> {
    let text = fs::read_to_string(root.join("src/lib.rs")).expect("src/lib.rs");
    let mut floors = BTreeMap::new();
    let mut floor = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("// Floor ") {
            floor = rest.split(':').next().and_then(|number| number.parse().ok());
        } else if let Some(name) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) {
            floors.insert(name.to_owned(), floor.unwrap_or_else(|| panic!("`{name}` stands before the first floor")));
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

/// The modules that a text names as `crate::module`, also inside `use crate::{a, b::c}`, with their lines.
fn named<'a>(text: &'a str, modules: &BTreeMap<String, u32>) -> Vec<(usize, &'a str)> {
    let mut names = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
        for (start, _) in line.match_indices("crate::") {
            let rest = &line[start + "crate::".len()..];
            let candidates = match rest.strip_prefix('{') {
                Some(list) => list.split([',', '}']).collect(),
                None => vec![rest],
            };
            for candidate in candidates {
                let word = candidate.trim().split(|it: char| !it.is_alphanumeric() && it != '_').next().unwrap_or_default();
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
                wrong.push(format!("src/{}:{line}: `{module}` may not use `{name}`", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_check_sees_a_use() {
    let floors = BTreeMap::from([("slurm".to_owned(), 1), ("models".to_owned(), 4)]);
    assert_eq!(
        named("use crate::{exit, models::Head};\n// crate::models\nlet x = crate::slurm::Job;", &floors),
        [(1, "models"), (3, "slurm")]
    );
}
