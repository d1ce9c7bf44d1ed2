//! What mmengine replaces in a config's text before it is read: the names of the file itself, `{{
//! fileDirname }}` and its kind, and environment variables, `{{$NAME:default}}`. What is put in
//! becomes text of the config, so outside of quotes it is a number, a list, whatever it looks like;
//! inside of quotes it cannot end them.

use std::path::Path;
use std::sync::Arc;

use super::error::{ConfigError, nearest};
use super::node::Origin;

/// Gives the value of an environment variable.
pub(super) type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Defaults are no longer than this.
const LONGEST: usize = 1000;
const FILE: [&str; 4] = ["fileDirname", "fileBasename", "fileBasenameNoExtension", "fileExtname"];

/// A config's text with its predefined variables in place; `path` is the whole one. The number of
/// lines stays.
pub(super) fn replace(
    text: &str,
    path: &Path,
    source: &Arc<str>,
    environment: &Environment<'_>,
) -> Result<String, ConfigError> {
    let mut faults = Vec::new();
    let mut out = String::with_capacity(text.len());
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if !line.contains("{{") {
            out.push_str(line);
            continue;
        }
        let origin = Origin::file(source, index + 1);
        let (mut rest, mut place) = (line, Place::START);
        while let Some(start) = rest.find("{{") {
            let (before, inside) = rest.split_at(start);
            out.push_str(before);
            place.pass(before);
            let inside = &inside[2..];
            let found = if place.within == Within::Comment { None } else { variable(inside) };
            let Some((variable, length)) = found else {
                out.push_str("{{");
                place.pass("{{");
                rest = inside;
                continue;
            };
            match variable.value(path, environment).and_then(|it| place.fit(&it, &variable)) {
                Ok(value) => out.push_str(&value),
                Err(message) => faults.push(ConfigError::text(&origin, message)),
            }
            rest = &inside[length..];
        }
        out.push_str(rest);
    }
    if faults.is_empty() { Ok(out) } else { Err(ConfigError::all(faults)) }
}

/// Whether a text has something that would be replaced.
pub(super) fn is_in(text: &str) -> bool {
    text.match_indices("{{").any(|(at, braces)| variable(&text[at + braces.len()..]).is_some())
}

enum Variable<'a> {
    File(&'a str),
    Environment { name: &'a str, default: &'a str },
}

/// The variable that a text behind `{{` begins with, and the length of what names it, `}}`
/// included.
fn variable(inside: &str) -> Option<(Variable<'_>, usize)> {
    // Looked for no further than a name reaches: of a text of nothing but braces every one would be
    // followed to the end.
    let open = inside.trim_start();
    let name = &open[..open.find(|it: char| !it.is_ascii_alphanumeric()).unwrap_or(open.len())];
    if let Some(file) = FILE.iter().find(|it| **it == name) {
        let behind = open[name.len()..].trim_start().strip_prefix("}}")?;
        return Some((Variable::File(file), inside.len() - behind.len()));
    }
    // mmengine takes quotes inside of the braces too, so that editors take the line for Python.
    let quote = inside.chars().next().filter(|it| matches!(it, '\'' | '"'));
    let open = quote.map_or(inside, |it| &inside[it.len_utf8()..]);
    let open = open.trim_start().strip_prefix('$')?;
    let end = open.find(|it: char| !it.is_ascii_alphanumeric() && it != '_').unwrap_or(open.len());
    let (name, behind) = open.split_at(end);
    if name.is_empty() {
        return None;
    }
    let close = behind
        .bytes()
        .take(LONGEST)
        .zip(behind.bytes().skip(1))
        .position(|it| it == (b'}', b'}'))?;
    let (said, behind) = (&behind[..close], &behind[close + 2..]);
    let said = said.trim();
    let said = quote.map_or(said, |it| said.strip_suffix(it).unwrap_or(said).trim_end());
    let default = match said.strip_prefix(':') {
        Some(default) => default.trim(),
        None if said.is_empty() => "",
        None => return None,
    };
    Some((Variable::Environment { name, default }, inside.len() - behind.len()))
}

impl Variable<'_> {
    fn value(&self, path: &Path, environment: &Environment<'_>) -> Result<String, String> {
        match self {
            Self::File(name) => {
                let part = match *name {
                    "fileDirname" => path.parent().map(|it| it.to_string_lossy().into_owned()),
                    "fileBasename" => path.file_name().map(|it| it.to_string_lossy().into_owned()),
                    "fileBasenameNoExtension" => {
                        path.file_stem().map(|it| it.to_string_lossy().into_owned())
                    }
                    _ => path.extension().map(|it| format!(".{}", it.to_string_lossy())),
                };
                Ok(part.unwrap_or_default().replace('\\', "/"))
            }
            Self::Environment { name, default } => {
                let found = environment(name).filter(|it| !it.is_empty());
                match found {
                    Some(value) => Ok(value),
                    None if default.is_empty() => Err(format!(
                        "the environment variable {name} is not set, or empty; set it, or give it \
                         a default: `{{{{${name}:default}}}}`"
                    )),
                    None => Ok((*default).to_owned()),
                }
            }
        }
    }

    fn said(&self) -> String {
        match self {
            Self::File(name) => format!("{{{{{name}}}}}"),
            Self::Environment { name, .. } => format!("{{{{${name}}}}}"),
        }
    }
}

/// What a place of a line is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Nothing,
    Quotes(char),
    Comment,
}

/// A place of a line, found by reading the line up to it.
struct Place {
    within: Within,
    escaped: bool,
    last: char,
}

impl Place {
    const START: Self = Self { within: Within::Nothing, escaped: false, last: ' ' };

    /// Goes on behind a part of the line.
    fn pass(&mut self, part: &str) {
        for character in part.chars() {
            match (self.within, character) {
                (Within::Comment, _) => return,
                (Within::Quotes(_), _) if self.escaped => self.escaped = false,
                (Within::Quotes(_), '\\') => self.escaped = true,
                (Within::Quotes(quote), it) if it == quote => self.within = Within::Nothing,
                (Within::Nothing, '#') if self.last.is_whitespace() => {
                    self.within = Within::Comment;
                }
                (Within::Nothing, '\'' | '"') => self.within = Within::Quotes(character),
                _ => {}
            }
            self.last = character;
        }
    }

    /// The value, if it stays what it is in this place.
    fn fit(&self, value: &str, variable: &Variable<'_>) -> Result<String, String> {
        let refused = |what: &str| {
            let said = variable.said();
            Err(format!(
                "`{said}` is {}, and {what} cannot stand here",
                crate::excerpt::quoted(value)
            ))
        };
        if value.contains(|it: char| {
            it.is_control() || matches!(it, '\u{2028}' | '\u{2029}' | '\u{fffd}')
        }) {
            return refused("a line end or a character that is not text");
        }
        if value.contains("{{") || super::references::is_marked(value) {
            return refused("a reference");
        }
        match self.within {
            Within::Quotes(quote) if value.contains(quote) => refused("this quote"),
            Within::Quotes(_) if value.contains('\\') => refused("a backslash"),
            _ => Ok(value.to_owned()),
        }
    }
}

/// The predefined variable that a name was most likely meant to be.
pub(super) fn meant(name: &str) -> Option<&'static str> {
    nearest(name, FILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn replaced(text: &str) -> Result<String, String> {
        let environment = |name: &str| match name {
            "ROOT" => Some("/data/ade 20k".to_owned()),
            "COUNT" => Some("19".to_owned()),
            "EMPTY" => Some(String::new()),
            "QUOTE" => Some("it's \"x\"".to_owned()),
            "LINES" => Some("a\nb: c".to_owned()),
            _ => None,
        };
        replace(text, Path::new("/runs/my exp/a.b.py"), &"a.py".into(), &environment)
            .map_err(|it| it.to_string())
    }

    #[test]
    fn the_names_of_the_file_and_the_environment_are_put_in() {
        let cases = [
            ("'{{ fileDirname }}|{{fileBasename}}'", "'/runs/my exp|a.b.py'"),
            ("{{  fileBasenameNoExtension}} {{fileExtname  }}", "a.b .py"),
            ("'{{$ROOT:/x}}/{{ $COUNT }}'", "'/data/ade 20k/19'"),
            ("{{$NONE:3}} {{'$NONE:80'}} {{\"$COUNT:80\"}} {{ $NONE : 1e-3 }}", "3 80 19 1e-3"),
            ("{{$EMPTY:7}} {{$NONE:[1, 2]}} {{$NONE:'a'}}", "7 [1, 2] 'a'"),
            (
                "# {{$NONE}}\nx = 1  # {{$NONE:}} '{{ fileDirname }}'",
                "# {{$NONE}}\nx = 1  # {{$NONE:}} '{{ fileDirname }}'",
            ),
            (
                "{{_base_.a}} {{name}} {{fileName}} {{$}} {{$A-B}} {{ fileDirname",
                "{{_base_.a}} {{name}} {{fileName}} {{$}} {{$A-B}} {{ fileDirname",
            ),
            ("x = {{$QUOTE}}", "x = it's \"x\""),
        ];
        for (text, expected) in cases {
            assert_eq!(replaced(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_missing_or_would_leave_its_quotes_is_told_at_once() {
        let text = "a = '{{$NONE}}'\nb = {{$EMPTY:}}\nc = '{{$QUOTE}}' + \"{{ $QUOTE }}\"\nd = \
                    '{{$LINES:1}}'";
        insta::assert_snapshot!(replaced(text).expect_err("is wrong"));
    }

    #[test]
    fn configs_of_all_kinds_and_their_bases_know_themselves_and_the_environment() {
        let folder = tempfile::tempdir().expect("a folder");
        let environment = |name: &str| (name == "WORKERS").then(|| "2".to_owned());
        let load = |files: &[(&str, &str)]| {
            for (name, text) in files {
                let path = folder.path().join(name);
                std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
                std::fs::write(path, text).expect("a file");
            }
            let config = config::load_in(&folder.path().join(files[0].0), &[], &environment)
                .map_err(|it| it.to_string());
            let plain = |it: String| it.replace(&*folder.path().to_string_lossy(), "DIR");
            config
                .map(|it| plain(serde_json::to_string(&it.root).expect("has a JSON form")))
                .map_err(plain)
        };
        let yaml = [
            (
                "top/run.yaml",
                "_base_: ../base/b.json\nwork_dir: work/{{ fileBasenameNoExtension }}\nworkers: \
                 {{$WORKERS:4}}\nlr: {{$LR:1e-3}}\ndirs: ['{{fileDirname}}', \
                 \"{{$DATA:/data}}/x\"]\nb: {{_base_.name}}",
            ),
            (
                "base/b.json",
                "{\"name\": \"{{fileBasename}}\", \"n\": {{$WORKERS:4}}, \"s\": \"{{ $WORKERS \
                 }}\"}",
            ),
        ];
        assert_eq!(
            load(&yaml).as_deref(),
            Ok(
                r#"{"name":"b.json","n":2,"s":"2","work_dir":"work/run","workers":2,"lr":0.001,"dirs":["DIR/top","/data/x"],"b":"b.json"}"#
            )
        );
        let python = [
            (
                "top/p.py",
                "_base_ = '../base/{{ fileBasenameNoExtension }}.py'\nn = {{'$WORKERS:80'}} * \
                 {{$NONE:1}}\nw = f'{n}{{ fileExtname }}'\n",
            ),
            ("base/p.py", "where = '{{ fileDirname }}'\n"),
        ];
        assert_eq!(load(&python).as_deref(), Ok(r#"{"where":"DIR/base","n":2,"w":"2.py"}"#));
        assert_eq!(
            load(&[("a.yaml", "x: 1\ny: {{ fileDirnam }}")]).expect_err("is wrong"),
            "DIR/a.yaml:2: `{{fileDirnam}}`: the config sets nothing at `fileDirnam`; did you mean \
             `{{ fileDirname }}`?"
        );
        assert_eq!(
            load(&[("a.py", "x = 1\ny = {{ fileDirnam }}")]).expect_err("is wrong"),
            "DIR/a.py:2: `{{fileDirnam}}` is not known; did you mean `{{ fileDirname }}`?"
        );
        let computed = load(&[("a.py", "x = '{' + '{$WORKERS:1}}'\ny = '{' + '{ fileDirname }}'")])
            .expect("is read");
        assert_eq!(computed, r#"{"x":"{{$WORKERS:1}}","y":"{{ fileDirname }}"}"#);
        let config =
            config::load_in(&folder.path().join("a.py"), &[], &environment).expect("is read");
        for text in [config.to_yaml(), config.to_json()] {
            assert_eq!(load(&[("printed.yaml", &text)]), Ok(computed.clone()));
        }
    }

    #[test]
    fn a_text_of_braces_is_read_once() {
        let braces = "{{".repeat(300_000);
        assert_eq!(replaced(&braces).as_deref(), Ok(&*braces));
    }
}
