//! mmengine's Python configs to a tree. The file is read, never run: `syntax` has it parsed, `refusal` finds what would have to be
//! run, and `evaluate` follows the rest, which are assignments, loops and conditions over plain values, as Python would.

mod arguments;
mod evaluate;
mod expression;
mod format;
mod functions;
mod heap;
mod methods;
mod operators;
mod refusal;
mod syntax;

use std::sync::Arc;

use ruff_python_ast::Suite;

use self::evaluate::{Evaluator, Fault, sets_bases};
use self::heap::Item;
use self::syntax::Lines;
use super::error::ConfigError;
use super::node::{Map, Node, Origin, Value};
use super::references::Uses;

const BASE: &str = "_base_";
/// Faults of one file that are told at once.
const MOST_FAULTS: usize = 20;

/// A file's statements.
pub(super) struct Program {
    source: Arc<str>,
    body: Suite,
    lines: Lines,
}

impl Program {
    pub(super) fn parse(text: &str, source: &Arc<str>) -> Result<Self, ConfigError> {
        let told = |(line, message): syntax::Fault| ConfigError::text(&Origin::file(source, line), message);
        let (body, lines) = syntax::parse(text).map_err(told)?;
        if let Some(line) = refusal::new_style(&body, &lines) {
            let into = source.strip_suffix(".py").unwrap_or(source);
            let message = format!(
                "this is one of mmengine's new-style configs, which import their bases and types and would have to be run; where \
                 mmengine is installed, convert it: python -c \"from mmengine import Config; \
                 Config.fromfile('{source}').dump('{into}.yaml')\""
            );
            return Err(told((line, message)));
        }
        Ok(Self { source: Arc::clone(source), body, lines })
    }

    /// What the file assigns to `_base_`. It is read before everything else, so it knows no name of the file.
    pub(super) fn bases(&self) -> Result<Option<Node>, ConfigError> {
        let Some((at, value)) = self.body.iter().enumerate().find_map(|(at, it)| Some((at, sets_bases(it)?))) else {
            return Ok(None);
        };
        let refused = refusal::refusals(&self.body[at], &self.lines);
        if !refused.is_empty() {
            return Err(self.faults(refused));
        }
        let mut evaluator = Evaluator::new(&self.source, &self.lines, None);
        let item = evaluator.value(value).and_then(|it| evaluator.told(value, |this| this.heap.node(&it, 0)));
        match item {
            Ok(node) => Ok(Some(node)),
            Err(Fault::Told(line, message)) => Err(self.faults(vec![(line, message)])),
            Err(Fault::Follows) => Ok(None),
        }
    }

    /// The names that the file assigns, over what it leaves of `bases`. Adds to `uses` the names that expressions use.
    pub(super) fn evaluate(&self, bases: &mut Node, uses: &mut Uses) -> Result<Node, ConfigError> {
        let given = bases.clone();
        let mut evaluator = Evaluator::new(&self.source, &self.lines, Some(&given));
        let skipped = self.body.iter().position(|it| sets_bases(it).is_some());
        let mut faults = evaluator.file(&self.body, skipped);
        let mut names = Map::new();
        for (name, item) in std::mem::take(&mut evaluator.names) {
            if name.starts_with("__") {
                continue;
            }
            match evaluator.heap.node(&item, 0) {
                Ok(node) => {
                    names.insert(name, node);
                }
                Err(message) => faults.push((item.origin.line(), format!("{name}: {message}"))),
            }
            if evaluator.heap.is_spent() {
                break;
            }
        }
        if let Some(object) = evaluator.bases_left() {
            match evaluator.heap.node(&Item::new(object, &given.origin), 0) {
                Ok(node) => *bases = node,
                Err(message) => faults.push((1, format!("{BASE}: {message}"))),
            }
        }
        if !faults.is_empty() {
            return Err(self.faults(faults));
        }
        for name in evaluator.used {
            uses.entry(name).or_default().insert(self.source.to_string());
        }
        Ok(Node::new(Value::Map(names), Origin::file(&self.source, 1)))
    }

    /// What is wrong, from the top of the file on.
    fn faults(&self, mut faults: Vec<syntax::Fault>) -> ConfigError {
        faults.sort_by_key(|(line, _)| *line);
        faults.dedup();
        let more = faults.len().saturating_sub(MOST_FAULTS);
        faults.truncate(MOST_FAULTS);
        if let (true, Some((_, last))) = (more > 0, faults.last_mut()) {
            last.push_str(&format!(" (and {more} more faults of this file)"));
        }
        let told = |(line, message)| ConfigError::text(&Origin::file(&self.source, line), message);
        ConfigError::all(faults.into_iter().map(told).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Node, String> {
        let program = Program::parse(text, &"a.py".into()).map_err(|it| it.to_string())?;
        let mut bases = super::super::yaml::parse("model: {depth: 50, heads: [{type: A}]}", &"b.yaml".into()).expect("parses");
        program.evaluate(&mut bases, &mut Uses::new()).map_err(|it| it.to_string())
    }

    /// What Python gives for the expression, as JSON.
    fn value(text: &str) -> Result<String, String> {
        read(&format!("x = {text}\n")).map(|it| serde_json::to_string(it.get("x").expect("x is set")).expect("has a JSON form"))
    }

    #[test]
    fn expressions_have_the_values_that_python_gives() {
        let cases = [
            ("(1, 2.5, -3, 1e-4, 1_000, 0x10, .5, 2.)", "[1,2.5,-3,0.0001,1000,16,0.5,2.0]"),
            ("(5)", "5"),
            ("(5,)", "[5]"),
            ("()", "[]"),
            ("1, 2", "[1,2]"),
            ("dict(a=1, b=dict(type='X', c=None, d=True))", r#"{"a":1,"b":{"type":"X","c":null,"d":true}}"#),
            ("dict({'a': 1}, b=2, **{'c': 3})", r#"{"a":1,"b":2,"c":3}"#),
            ("{'a.b': 1, 2: [3], **dict(c=4)}", r#"{"a.b":1,"2":[3],"c":4}"#),
            ("[0, *[1, 2], 3]", "[0,1,2,3]"),
            ("'a' 'b' \"c\"", "\"abc\""),
            (r"'it\'s' r'\d' '\n'", r#""it's\\d\n""#),
            ("'''two\nlines'''", r#""two\nlines""#),
            ("f'stage{1 + 1}.{{x}}.{_base_.model.depth}'", "\"stage2.{x}.50\""),
            ("1 + 2 * 3 - 4", "3"),
            ("(1 + 2) * 3", "9"),
            ("-2 ** 2", "-4"),
            ("2 ** -1", "0.5"),
            ("7 // 2, -7 // 2, 7 % 3, -7 % 3, 7 / 2", "[3,-4,1,2,3.5]"),
            ("1024 // 8 * 0.5", "64.0"),
            ("[1] * 3 + [2]", "[1,1,1,2]"),
            ("[i * 2 for i in range(3)]", "[0,2,4]"),
            ("[[i, j] for i, n in enumerate([1, 2]) for j in range(n)]", "[[0,0],[1,0],[1,1]]"),
            ("{f'k{i}': dict(v=i) for i in range(2)}", r#"{"k0":{"v":0},"k1":{"v":1}}"#),
            ("sum([18, 36]), len([1, 2]), int(2.9), float(3), str(4), list(range(4, 0, -2))", r#"[54,2,2,3.0,"4",[4,2]]"#),
            ("_base_.model.heads[0]['type']", "\"A\""),
            ("{{_base_.model.depth}}", "50"),
            ("[\n  1,  # one\n  2,\n]", "[1,2]"),
        ];
        for (text, expected) in cases {
            assert_eq!(value(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn names_take_values_and_know_their_lines() {
        let text = "\
'''What this is.'''
norm = dict(
    type='BN')
model = dict(
    norm=norm,
    depth=50)
model['depth'] = 18
model.update(extra=[1])
lr = rate = 0.1
lr += 1
";
        let root = read(text).expect("parses");
        let json = serde_json::to_string(&root).expect("has a JSON form");
        let expected = r#"{"norm":{"type":"BN"},"model":{"norm":{"type":"BN"},"depth":18,"extra":[1]},"lr":1.1,"rate":0.1}"#;
        assert_eq!(json, expected);
        for (path, line) in [("norm", 2), ("norm.type", 3), ("model.norm", 2), ("model.depth", 7), ("model.extra", 8)] {
            assert_eq!(root.get(path).expect(path).origin.to_string(), format!("a.py:{line}"), "{path}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error_with_its_line() {
        let wrong = [
            "x = 1\nimport os",
            "with read_base():\n    from a import *",
            "x = 1\n  y = 2",
            "x = open('/etc/passwd')",
            "x = ''.__class__",
            "os.remove('x')",
            "crop_size = (1, 2)\nx = crop_sise",
            "x = dict(a=1\ny = 2",
            "x = 'open",
            "x = [1, 2))",
            "x = [i for i in range(10 ** 9)]",
            "x = 'a' + 1",
            "x = 1 // 0",
            "x = 99999999999999999999 * 9223372036854775807 + (9223372036854775807 + 1)",
            "x = _base_.model.dept",
            "a = dict(b=1)\nc = a\na.update(b=2)",
            "x = y = (lambda: 1)",
            "x = 1 if True else 2",
            "a, b = 1, 2, 3",
        ];
        let errors: Vec<String> = wrong.iter().map(|it| read(it).expect_err(it)).collect();
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn chains_of_any_length_are_refused_with_their_line() {
        for link in [".b", "[0]", "()", "+1", "*1", "-1", " for a in b"] {
            let error = read(&format!("\nx = [a{}]", link.repeat(50_000))).expect_err(link);
            assert_eq!(error, "a.py:2: this expression has more than 200 levels", "{link}");
        }
        for (open, close) in [("(", ")"), ("[", "]"), ("{1: ", "}"), ("f(", ")"), ("f'{", "}'"), ("2 ** ", "")] {
            let text = format!("\nx = {}1{}", open.repeat(5000), close.repeat(5000));
            assert!(read(&text).expect_err(open).starts_with("a.py:2: "), "{open}");
        }
        assert!(read(&format!("x = 1{}", "+1".repeat(150))).is_ok());
    }

    #[test]
    fn what_grows_with_every_line_is_refused_before_memory_ends() {
        let doubled = |first: &str, next: &str| {
            format!("a0 = {first}\n")
                + &(0..60).map(|at| format!("a{} = {}\n", at + 1, next.replace('a', &format!("a{at}")))).collect::<String>()
        };
        for text in [
            doubled("[1]", "[a, a]"),
            doubled("'text'", "a + a"),
            doubled("[1]", "a + a"),
            doubled("'x'", "f'{a}{a}'"),
            doubled("[1]", "a * 99"),
        ] {
            let error = read(&text).expect_err(&text);
            assert!(error.contains("this computes too much for a config") || error.contains("`*` of a list"), "{error}");
        }
        let nested = "a0 = [1]\n".to_owned() + &(0..5000).map(|at| format!("a{} = [a{at}]\n", at + 1)).collect::<String>();
        assert_eq!(read(&nested).expect_err("deep"), "a.py:100: values nest more than 100 levels deep");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}", python in "[a-c0-9=(){}\\[\\]:,.'\"*+/ \n#-]{0,50}") {
            let _ = read(&text);
            let _ = read(&python);
            let _ = read(&format!("x = {python}"));
        }
    }
}
