//! The declarations in `src/ffi.rs` are those of `cpp/shim.h`: a mismatch would link, and be
//! undefined behaviour.

use std::collections::BTreeMap;

/// Function → types of its arguments and of its result, in C's words without names and blanks.
type Prototypes = BTreeMap<String, Vec<String>>;

fn without_name(argument: &str) -> String {
    let argument = argument.trim();
    let array =
        argument.strip_suffix(']').and_then(|it| it.rsplit_once('[')).map(|(before, _)| before);
    let named = array.unwrap_or(argument);
    let start = named.rfind(|it: char| !it.is_alphanumeric() && it != '_').map_or(0, |it| it + 1);
    let pointer = if array.is_some() { "*" } else { "" };
    (named[..start].to_owned() + pointer).replace("at::", "").replace(' ', "")
}

/// C's prototypes: `int segslurm_x(const Tensor* a, int b);`
fn of_c(header: &str) -> Prototypes {
    let text: String = header
        .lines()
        .filter(|it| !it.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join(" ");
    let found =
        text.split([';', '{', '}']).filter(|it| it.contains(" segslurm_") && it.contains('('));
    let of_one = |it: &str| {
        let (head, arguments) = it.split_once('(')?;
        let (result, name) = head.trim().rsplit_once(' ')?;
        let result = result.replace(' ', "");
        let arguments =
            arguments.trim().trim_end_matches(')').split(',').filter(|it| !it.trim().is_empty());
        let mut types: Vec<String> = arguments.map(without_name).collect();
        types.push(result);
        Some((name.trim().to_owned(), types))
    };
    found.filter_map(of_one).collect()
}

/// A type of Rust's in C's words.
fn in_c(of_rust: &str) -> String {
    let of_rust = of_rust.trim();
    if let Some(inner) = of_rust.strip_prefix("*const ") {
        return match inner.strip_prefix("*const ") {
            Some(innermost) => format!("const{}*const*", plain(innermost)),
            None => format!("const{}*", in_c(inner)),
        };
    }
    match of_rust.strip_prefix("*mut ") {
        Some(inner) => format!("{}*", in_c(inner)),
        None => plain(of_rust),
    }
}

fn plain(of_rust: &str) -> String {
    let of_c = match of_rust.trim() {
        "c_int" => "int",
        "c_char" => "char",
        "i64" => "int64_t",
        "u64" => "uint64_t",
        "u16" => "uint16_t",
        "u8" => "uint8_t",
        "f64" => "double",
        "usize" => "size_t",
        "RawTensor" => "Tensor",
        "RawStore" => "SegslurmStore",
        "RawGroup" => "SegslurmGroup",
        "RawWork" => "SegslurmWork",
        "RawStream" => "SegslurmStream",
        "RawEvent" => "SegslurmEvent",
        "RawArgument" => "SegslurmArgument",
        "RawResult" => "SegslurmResult",
        "!" | "" => "void",
        other => other,
    };
    of_c.to_owned()
}

/// Rust's declarations: `pub(crate) fn segslurm_x(a: *const RawTensor, b: c_int) -> c_int;`
fn of_rust(text: &str) -> Prototypes {
    let found = text.split("pub(crate) fn ").skip(1).filter(|it| it.starts_with("segslurm_"));
    let of_one = |it: &str| {
        let (declared, _) = it.split_once(';')?;
        let (name, rest) = declared.split_once('(')?;
        let (arguments, result) = rest.rsplit_once(')')?;
        let arguments = arguments.split(',').filter_map(|it| it.split_once(':'));
        let mut types: Vec<String> = arguments.map(|(_, kind)| in_c(kind)).collect();
        types.push(in_c(result.trim().trim_start_matches("->")));
        Some((name.to_owned(), types))
    };
    found.filter_map(of_one).collect()
}

#[test]
fn rust_declares_what_the_header_declares() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a source file");
    let (header, declared) = (of_c(&read("cpp/shim.h")), of_rust(&read("src/ffi.rs")));
    assert!(header.len() > 40, "{} prototypes were found", header.len());
    let wrong: Vec<String> = declared
        .iter()
        .filter(|(name, types)| header.get(*name) != Some(types))
        .map(|(name, types)| {
            format!("{name}: {types:?} in src/ffi.rs, {:?} in cpp/shim.h", header.get(name))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let unused: Vec<_> = header.keys().filter(|it| !declared.contains_key(*it)).collect();
    assert!(unused.is_empty(), "nobody calls {unused:?}");
}

#[test]
fn every_definition_sees_the_header() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cpp");
    for entry in std::fs::read_dir(folder).expect("the sources").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|it| it == "cpp") {
            let text = std::fs::read_to_string(&path).expect("a source file");
            assert!(
                text.contains("#include \"shim.h\""),
                "{} does not include shim.h",
                path.display()
            );
        }
    }
}
