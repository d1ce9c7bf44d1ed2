//! mmengine's Python configs to a tree. The file is read, never run: `syntax` has it parsed,
//! `refusal` finds what would have to be run, and `evaluate` follows the rest, which are
//! assignments, loops and conditions over plain values, as Python would.

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
#[cfg(test)]
mod tests;

use std::sync::Arc;

use indexmap::IndexMap;
use ruff_python_ast::Suite;

use self::evaluate::{Evaluator, Fault, sets_bases};
use self::heap::{Item, Object};
use self::syntax::Lines;
use super::error::ConfigError;
use super::node::{Map, Node, Origin, Value};
use super::references::Uses;

const BASE: &str = "_base_";
/// How much of a file's faults is told at once, in characters, and how much one of them adds.
const LONGEST_TOLD: usize = 2500;
const LONGEST_FAULT: usize = 1200;
/// Lines that are named for one fault.
const MOST_LINES: usize = 8;

/// A file's statements.
pub(super) struct Program {
    source: Arc<str>,
    body: Suite,
    lines: Lines,
}

impl Program {
    pub(super) fn parse(text: &str, source: &Arc<str>) -> Result<Self, ConfigError> {
        let told = |(line, message): syntax::Fault| {
            ConfigError::text(&Origin::file(source, line), message)
        };
        let (body, lines) = syntax::parse(text).map_err(told)?;
        if let Some(line) = refusal::new_style(&body, &lines) {
            let into = source.strip_suffix(".py").unwrap_or(source);
            let message = format!(
                "this is one of mmengine's new-style configs, which import their bases and types \
                 and would have to be run; where mmengine is installed, convert it: python -c \
                 \"from mmengine import Config; Config.fromfile('{source}').dump('{into}.yaml')\""
            );
            return Err(told((line, message)));
        }
        Ok(Self { source: Arc::clone(source), body, lines })
    }

    /// What the file assigns to `_base_`. It is read before everything else, so it knows no name of
    /// the file.
    pub(super) fn bases(&self) -> Result<Option<Node>, ConfigError> {
        let Some((at, value)) =
            self.body.iter().enumerate().find_map(|(at, it)| Some((at, sets_bases(it)?)))
        else {
            return Ok(None);
        };
        let refused = refusal::refusals(&self.body[at], &self.lines);
        if !refused.is_empty() {
            return Err(self.faults(refused));
        }
        let mut evaluator = Evaluator::new(&self.source, &self.lines, None);
        let item = evaluator
            .value(value)
            .and_then(|it| evaluator.told(value, |this| this.heap.node(&it, 0)));
        match item {
            Ok(node) => Ok(Some(node)),
            Err(Fault::Told(line, message)) => Err(self.faults(vec![(line, message)])),
            Err(Fault::Follows) => Ok(None),
        }
    }

    /// The names that the file assigns, over what it leaves of `bases`. Adds to `uses` the names
    /// that expressions use, and to `refused` what is wrong: the names that such lines set are left
    /// out, or stay as they were before.
    pub(super) fn evaluate(
        &self,
        bases: &mut Node,
        uses: &mut Uses,
        refused: &mut Vec<ConfigError>,
    ) -> Node {
        let given = bases.clone();
        let mut evaluator = Evaluator::new(&self.source, &self.lines, Some(&given));
        let skipped = self.body.iter().position(|it| sets_bases(it).is_some());
        let mut faults = evaluator.file(&self.body, skipped);
        let mut names = Map::new();
        for (name, item) in std::mem::take(&mut evaluator.names) {
            // A set is a help to the file itself: no setting is one.
            if name.starts_with("__") || matches!(item.object, Object::Set(_)) {
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
            refused.push(self.faults(faults));
        }
        for name in evaluator.used {
            uses.entry(name).or_default().insert(self.source.to_string());
        }
        Node::new(Value::Map(names), Origin::file(&self.source, 1))
    }

    /// What is wrong, from the top of the file on; the same fault of several lines is told once.
    fn faults(&self, mut faults: Vec<syntax::Fault>) -> ConfigError {
        faults.sort_by_key(|(line, _)| *line);
        let mut lines_of: IndexMap<String, Vec<usize>> = IndexMap::new();
        for (line, message) in faults {
            let lines = lines_of.entry(message).or_default();
            if lines.last() != Some(&line) {
                lines.push(line);
            }
        }
        let (mut told, mut length, mut left) = (Vec::new(), 0, lines_of.len());
        for (mut message, lines) in lines_of {
            if let [_, others @ ..] = &lines[..]
                && !others.is_empty()
            {
                let shown: Vec<String> =
                    others.iter().take(MOST_LINES).map(ToString::to_string).collect();
                let more = if others.len() > MOST_LINES {
                    format!(" and {} more", others.len() - MOST_LINES)
                } else {
                    String::new()
                };
                message.push_str(&format!(" (also in line {}{more})", shown.join(", ")));
            }
            left -= 1;
            length += self.source.len() + message.len().min(LONGEST_FAULT);
            let last = length > LONGEST_TOLD && left > 0;
            if last {
                message.push_str(&format!(" (and {left} more faults of this file)"));
            }
            told.push(ConfigError::text(&Origin::file(&self.source, lines[0]), message));
            if last {
                break;
            }
        }
        ConfigError::all(told)
    }
}
