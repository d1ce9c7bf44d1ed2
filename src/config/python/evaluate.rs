//! The values of a Python config's expressions. Values are copied where Python would share them, so a change to a name after
//! another value has taken it is refused.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::super::error::{ConfigError, nearest};
use super::super::node::{MAX_DEPTH, Map, Node, Origin, Value};
use super::super::references;
use super::BASE;
use super::syntax::{Argument, Clause, Expression, Kind, Statement};

/// More steps than any config takes: a comprehension over a huge range is a mistake.
const MAX_STEPS: usize = 100_000;
/// More values than any config copies or joins, all together: `a = [a, a]` doubles with every line.
const MAX_COPIES: usize = 1_000_000;

pub(super) struct Evaluator<'a> {
    pub(super) source: &'a Arc<str>,
    pub(super) bases: Option<&'a Node>,
    pub(super) names: Map,
    /// The variables of the comprehensions around an expression.
    pub(super) locals: HashMap<String, Node>,
    /// The names that expressions have used.
    pub(super) used: BTreeSet<String>,
    pub(super) steps: usize,
    /// The weight of what was copied or joined so far.
    pub(super) copies: usize,
}

type Result<T> = std::result::Result<T, ConfigError>;

impl Evaluator<'_> {
    pub(super) fn execute(&mut self, statement: &Statement) -> Result<()> {
        match statement {
            Statement::Assign { targets, value } => {
                if let [Expression { kind: Kind::Name(name), .. }] = &targets[..]
                    && name == BASE
                {
                    return Ok(());
                }
                let node = self.value(value)?;
                for target in targets {
                    self.charge(&node, target.line)?;
                    self.assign(target, node.clone())?;
                }
                Ok(())
            }
            // A docstring.
            Statement::Expression(Expression { kind: Kind::Text(_), .. }) => Ok(()),
            Statement::Expression(Expression { line, kind: Kind::Call { function, arguments }, .. }) => {
                match &function.kind {
                    Kind::Attribute(of, method) if method == "update" => {
                        let changes = self.dict(arguments)?;
                        let Value::Map(changes) = changes else { return Ok(()) };
                        let source = self.source;
                        match &mut self.place(of)?.value {
                            Value::Map(map) => map.extend(changes),
                            other => return Err(fault(source, *line, format!("{} has no `update`", other.describe()))),
                        }
                        Ok(())
                    }
                    _ => Err(self
                        .error(*line, "a call outside of an assignment is not understood: Python configs are read, never run")),
                }
            }
            Statement::Expression(other) => Err(self.error(other.line, "expected an assignment")),
        }
    }

    fn error(&self, line: usize, message: impl Into<String>) -> ConfigError {
        fault(self.source, line, message)
    }

    fn node(&self, line: usize, value: Value) -> Node {
        Node::new(value, Origin::file(self.source, line))
    }

    fn assign(&mut self, target: &Expression, mut value: Node) -> Result<()> {
        match &target.kind {
            Kind::Name(name) => {
                value.origin = Origin::file(self.source, target.line);
                self.names.insert(name.clone(), value);
                Ok(())
            }
            Kind::Index(of, key) => {
                let key = self.key(key)?;
                value.origin = Origin::file(self.source, target.line);
                let (source, line) = (self.source, target.line);
                match &mut self.place(of)?.value {
                    Value::Map(map) => {
                        map.insert(key, value);
                    }
                    Value::List(items) => match key.parse::<usize>().ok().and_then(|index| items.get_mut(index)) {
                        Some(slot) => *slot = value,
                        None => return Err(fault(source, line, format!("the list has no item {key}"))),
                    },
                    other => return Err(fault(source, line, format!("{} has no items", other.describe()))),
                }
                Ok(())
            }
            Kind::List(targets) => {
                let Value::List(values) = value.value else {
                    return Err(self.error(target.line, "expected as many values as names"));
                };
                if values.len() != targets.len() {
                    return Err(self.error(target.line, format!("{} values for {} names", values.len(), targets.len())));
                }
                targets.iter().zip(values).try_for_each(|((_, target), value)| self.assign(target, value))
            }
            _ => Err(self.error(target.line, "this cannot be assigned to")),
        }
    }

    /// The node that an expression such as `model['backbone']` names, to be changed.
    fn place(&mut self, target: &Expression) -> Result<&mut Node> {
        let (source, line) = (self.source, target.line);
        match &target.kind {
            Kind::Name(name) => {
                if self.used.contains(name) {
                    let message = format!("`{name}` is changed after another value has used it; change it before");
                    return Err(self.error(line, message));
                }
                self.names.get_mut(name).ok_or_else(|| fault(source, line, format!("`{name}` is not set")))
            }
            Kind::Index(of, key) => {
                let key = self.key(key)?;
                let node = self.place(of)?;
                let found = match &mut node.value {
                    Value::Map(map) => map.get_mut(&key),
                    Value::List(items) => key.parse::<usize>().ok().and_then(|index| items.get_mut(index)),
                    _ => None,
                };
                found.ok_or_else(|| fault(source, line, format!("there is no item `{key}`")))
            }
            _ => Err(self.error(line, "this cannot be changed")),
        }
    }

    pub(super) fn value(&mut self, expression: &Expression) -> Result<Node> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(self.error(expression.line, "this computes too much for a config"));
        }
        let node = self.computed(expression)?;
        let literal = matches!(
            expression.kind,
            Kind::None | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Text(_) | Kind::List(_) | Kind::Dict(_)
        );
        if !literal {
            self.charge(&node, expression.line)?;
        }
        Ok(node)
    }

    /// Counts what is about to be there once more.
    fn charge(&mut self, node: &Node, line: usize) -> Result<()> {
        let size = node.size();
        if size.depth > MAX_DEPTH {
            return Err(self.error(line, format!("values nest more than {MAX_DEPTH} levels deep")));
        }
        self.copies += size.weight;
        if self.copies > MAX_COPIES { Err(self.error(line, "this computes too much for a config")) } else { Ok(()) }
    }

    fn computed(&mut self, expression: &Expression) -> Result<Node> {
        let line = expression.line;
        let value = match &expression.kind {
            Kind::None => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Int(value) => Value::Int(*value),
            Kind::Float(value) => Value::Float(*value),
            Kind::Text(text) => Value::String(references::mark(text)),
            Kind::Format(parts) => {
                let mut text = String::new();
                for part in parts {
                    match &part.kind {
                        Kind::Text(literal) => text.push_str(literal),
                        _ => text.push_str(&self.text(part)?),
                    }
                }
                Value::String(text)
            }
            Kind::Name(name) => return self.name(name, line),
            Kind::List(items) => {
                let mut list = Vec::new();
                for (star, item) in items {
                    match (star, self.value(item)?) {
                        (false, node) => list.push(node),
                        (true, Node { value: Value::List(items), .. }) => list.extend(items),
                        (true, node) => {
                            return Err(self.error(line, format!("`*` expects a list, found {}", node.value.describe())));
                        }
                    }
                }
                Value::List(list)
            }
            Kind::Dict(entries) => {
                let mut map = Map::new();
                for (key, item) in entries {
                    match key {
                        Some(key) => {
                            let name = self.key(key)?;
                            let node = self.entry(key.line, item)?;
                            map.insert(name, node);
                        }
                        None => map.extend(self.map(item)?),
                    }
                }
                Value::Map(map)
            }
            Kind::Comprehension { key: None, element, clauses } => {
                let mut list = Vec::new();
                self.each(clauses, &mut |this| {
                    let node = this.value(element)?;
                    list.push(node);
                    Ok(())
                })?;
                Value::List(list)
            }
            Kind::Comprehension { key: Some(key), element, clauses } => {
                let mut map = Map::new();
                self.each(clauses, &mut |this| {
                    let name = this.key(key)?;
                    let node = this.value(element)?;
                    map.insert(name, node);
                    Ok(())
                })?;
                Value::Map(map)
            }
            Kind::Call { function, arguments } => match &function.kind {
                Kind::Name(name) => self.call(name, line, arguments)?,
                _ => return Err(self.error(line, "this call is not understood: Python configs are read, never run")),
            },
            Kind::Attribute(of, name) => return self.item(of, name, line),
            Kind::Index(of, key) => {
                let key = self.key(key)?;
                return self.item(of, &key, line);
            }
            Kind::Negative(of) => match self.value(of)?.value {
                Value::Int(value) => Value::Int(value.wrapping_neg()),
                Value::Float(value) => Value::Float(-value),
                other => return Err(self.error(line, format!("`-` expects a number, found {}", other.describe()))),
            },
            Kind::Binary(operator, left, right) => {
                let (left, right) = (self.value(left)?.value, self.value(right)?.value);
                let described = (left.describe(), right.describe());
                binary(operator, left, right)
                    .ok_or_else(|| self.error(line, format!("`{operator}` of {} and {}", described.0, described.1)))?
            }
        };
        Ok(self.node(line, value))
    }

    /// The value of a dict's entry. What is written there belongs to the key's line; a name's value to where the name was set.
    fn entry(&mut self, line: usize, item: &Expression) -> Result<Node> {
        let mut node = self.value(item)?;
        if !matches!(item.kind, Kind::Name(_) | Kind::Attribute(..) | Kind::Index(..)) {
            node.origin = Origin::file(self.source, line);
        }
        Ok(node)
    }

    fn name(&mut self, name: &str, line: usize) -> Result<Node> {
        if let Some(node) = self.locals.get(name) {
            return Ok(node.clone());
        }
        if let Some(node) = self.names.get(name) {
            if !self.used.contains(name) {
                self.used.insert(name.to_owned());
            }
            return Ok(node.clone());
        }
        if name == BASE {
            return self.bases.cloned().ok_or_else(|| self.error(line, "`_base_` cannot refer to itself"));
        }
        let hint = nearest(name, self.names.keys().map(String::as_str)).map(|it| format!("; did you mean `{it}`?"));
        Err(self.error(line, format!("`{name}` is not set above{}", hint.unwrap_or_default())))
    }

    fn item(&mut self, of: &Expression, key: &str, line: usize) -> Result<Node> {
        let node = self.value(of)?;
        let found = match &node.value {
            Value::Map(map) => map.get(key).cloned(),
            Value::List(items) => {
                let index = key.parse::<i64>().ok().map(|it| if it < 0 { it + items.len() as i64 } else { it });
                index.and_then(|it| items.get(usize::try_from(it).ok()?).cloned())
            }
            _ => None,
        };
        found.ok_or_else(|| {
            let keys = node.as_map().into_iter().flat_map(|it| it.keys().map(String::as_str));
            let hint = nearest(key, keys).map(|it| format!("; did you mean `{it}`?")).unwrap_or_default();
            self.error(line, format!("there is no `{key}` in {}{hint}", node.value.describe()))
        })
    }

    fn key(&mut self, expression: &Expression) -> Result<String> {
        self.text(expression)
    }

    fn text(&mut self, expression: &Expression) -> Result<String> {
        let line = expression.line;
        match self.value(expression)?.value {
            Value::String(text) => Ok(text),
            Value::Int(value) => Ok(value.to_string()),
            Value::Bool(value) => Ok(if value { "True".into() } else { "False".into() }),
            Value::Float(value) => Ok(format!("{value:?}")),
            other => Err(self.error(line, format!("expected a string or a number, found {}", other.describe()))),
        }
    }

    fn map(&mut self, expression: &Expression) -> Result<Map> {
        match self.value(expression)?.value {
            Value::Map(map) => Ok(map),
            other => Err(self.error(expression.line, format!("expected a dict, found {}", other.describe()))),
        }
    }

    fn list(&mut self, expression: &Expression) -> Result<Vec<Node>> {
        match self.value(expression)?.value {
            Value::List(items) => Ok(items),
            Value::Map(map) => Ok(map.into_keys().map(|it| self.node(expression.line, Value::String(it))).collect()),
            other => Err(self.error(expression.line, format!("expected a list, found {}", other.describe()))),
        }
    }

    /// Runs `body` once for every combination of the clauses' items.
    fn each(&mut self, clauses: &[Clause], body: &mut dyn FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let Some((clause, inner)) = clauses.split_first() else { return body(self) };
        let hidden: Vec<_> = clause.targets.iter().map(|it| (it.clone(), self.locals.get(it).cloned())).collect();
        for item in self.list(&clause.iterable)? {
            match &clause.targets[..] {
                [name] => {
                    self.locals.insert(name.clone(), item);
                }
                names => {
                    let values = item.as_list().filter(|it| it.len() == names.len()).map(<[Node]>::to_vec);
                    let values =
                        values.ok_or_else(|| self.error(clause.iterable.line, "an item does not fit the names after `for`"))?;
                    self.locals.extend(names.iter().cloned().zip(values));
                }
            }
            self.each(inner, body)?;
        }
        for (name, value) in hidden {
            match value {
                Some(value) => self.locals.insert(name, value),
                None => self.locals.remove(&name),
            };
        }
        Ok(())
    }

    fn dict(&mut self, arguments: &[Argument]) -> Result<Value> {
        let mut map = Map::new();
        for argument in arguments {
            match argument {
                Argument::Keyword(name, value) => {
                    let node = self.entry(value.line, value)?;
                    map.insert(name.clone(), node);
                }
                Argument::Spread(other) | Argument::Positional(other) => map.extend(self.map(other)?),
            }
        }
        Ok(Value::Map(map))
    }

    fn call(&mut self, name: &str, line: usize, arguments: &[Argument]) -> Result<Value> {
        if name == "dict" {
            return self.dict(arguments);
        }
        let mut positional = Vec::new();
        for argument in arguments {
            match argument {
                Argument::Positional(expression) => positional.push(expression),
                _ => return Err(self.error(line, format!("`{name}` takes no keywords here"))),
            }
        }
        let wrong = |this: &Self, node: &Value| this.error(line, format!("`{name}` of {}", node.describe()));
        Ok(match (name, &positional[..]) {
            ("list" | "tuple", []) => Value::List(Vec::new()),
            ("list" | "tuple", [of]) => Value::List(self.list(of)?),
            ("len", [of]) => Value::Int(self.list(of)?.len() as i64),
            ("enumerate", [of]) => {
                let items = self.list(of)?.into_iter().enumerate();
                let pair = |(index, item)| Value::List(vec![self.node(line, Value::Int(index as i64)), item]);
                Value::List(items.map(pair).map(|it| self.node(line, it)).collect())
            }
            ("sum", [of]) => {
                let zero = Value::Int(0);
                self.list(of)?.into_iter().try_fold(zero, |sum, item| {
                    let described = item.value.describe();
                    binary("+", sum, item.value).ok_or_else(|| self.error(line, format!("`sum` over {described}")))
                })?
            }
            ("range", [_] | [_, _] | [_, _, _]) => {
                let mut bounds = Vec::new();
                for expression in &positional {
                    match self.value(expression)?.value {
                        Value::Int(value) => bounds.push(value),
                        other => return Err(wrong(self, &other)),
                    }
                }
                let (start, end, step) = match bounds[..] {
                    [end] => (0, end, 1),
                    [start, end] => (start, end, 1),
                    _ => (bounds[0], bounds[1], bounds[2]),
                };
                let mut items = Vec::new();
                let mut at = start;
                while step != 0 && (if step > 0 { at < end } else { at > end }) {
                    if items.len() >= MAX_STEPS {
                        return Err(self.error(line, "this range is too long for a config"));
                    }
                    items.push(self.node(line, Value::Int(at)));
                    at = at.saturating_add(step);
                }
                Value::List(items)
            }
            ("int", [of]) => match self.value(of)?.value {
                Value::Int(value) => Value::Int(value),
                Value::Float(value) if value.is_finite() => Value::Int(value as i64),
                Value::Bool(value) => Value::Int(value.into()),
                other => return Err(wrong(self, &other)),
            },
            ("float", [of]) => match self.value(of)?.value {
                Value::Int(value) => Value::Float(value as f64),
                Value::Float(value) => Value::Float(value),
                Value::String(text) => Value::Float(text.parse().map_err(|_| wrong(self, &Value::String(text)))?),
                other => return Err(wrong(self, &other)),
            },
            ("str", [of]) => Value::String(self.text(of)?),
            _ => return Err(self.error(line, format!("`{name}(…)` is not understood: Python configs are read, never run"))),
        })
    }
}

fn fault(source: &Arc<str>, line: usize, message: impl Into<String>) -> ConfigError {
    ConfigError::text(&Origin::file(source, line), message)
}

/// Python's arithmetic on two values, where it has a meaning.
fn binary(operator: &str, left: Value, right: Value) -> Option<Value> {
    Some(match (operator, left, right) {
        ("+", Value::String(left), Value::String(right)) => Value::String(left + &right),
        ("+", Value::List(mut left), Value::List(right)) => {
            left.extend(right);
            Value::List(left)
        }
        ("*", Value::List(items), Value::Int(times)) | ("*", Value::Int(times), Value::List(items)) => {
            let weight: usize = items.iter().map(|it| it.size().weight).sum();
            let times = usize::try_from(times.max(0)).ok().filter(|it| it.saturating_mul(weight) <= MAX_STEPS)?;
            Value::List((0..times).flat_map(|_| items.iter().cloned()).collect())
        }
        (_, Value::Int(left), Value::Int(right)) => match operator {
            "+" => Value::Int(left.checked_add(right)?),
            "-" => Value::Int(left.checked_sub(right)?),
            "*" => Value::Int(left.checked_mul(right)?),
            "//" if right != 0 => Value::Int(floor_division(left, right)?),
            "%" if right != 0 => Value::Int(left.checked_sub(floor_division(left, right)?.checked_mul(right)?)?),
            "/" if right != 0 => Value::Float(left as f64 / right as f64),
            "**" => match u32::try_from(right) {
                Ok(exponent) => Value::Int(left.checked_pow(exponent)?),
                Err(_) => Value::Float((left as f64).powf(right as f64)),
            },
            _ => return None,
        },
        (_, left, right) => {
            let (left, right) = (float(&left)?, float(&right)?);
            Value::Float(match operator {
                "+" => left + right,
                "-" => left - right,
                "*" => left * right,
                "/" if right != 0.0 => left / right,
                "//" if right != 0.0 => (left / right).floor(),
                "**" => left.powf(right),
                _ => return None,
            })
        }
    })
}

/// Rounded down, as Python does, where Rust's `/` rounds towards zero.
fn floor_division(left: i64, right: i64) -> Option<i64> {
    let quotient = left.checked_div(right)?;
    let inexact = left.checked_rem(right)? != 0;
    Some(quotient - i64::from(inexact && (left < 0) != (right < 0)))
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        _ => None,
    }
}
