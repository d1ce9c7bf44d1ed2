//! The values of expressions.

use std::collections::HashMap;

use indexmap::{IndexMap, IndexSet};
use ruff_python_ast::{
    BoolOp, Comprehension, ConversionFlag, DictItem, Expr, ExprCall, ExprName, ExprSubscript,
    FString, FStringPart, InterpolatedStringElement, Number as Literal,
};
use ruff_text_size::Ranged;

use super::super::error::nearest;
use super::super::node::Origin;
use super::super::{predefined, references};
use super::arguments::Arguments;
use super::evaluate::{Evaluator, Fault, Result};
use super::heap::{Item, Key, Kind, Object};
use super::refusal::{dotted, instead};
use super::{BASE, format, functions, methods, operators};

/// What one step costs of the budget of values.
const STEP: usize = 10;

impl Evaluator<'_> {
    #[expect(clippy::too_many_lines, reason = "one arm an expression of Python")]
    pub(super) fn value(&mut self, expression: &Expr) -> Result<Item> {
        let here = self.origin(expression);
        self.told(expression, |this| this.heap.spend(STEP))?;
        let object = match expression {
            Expr::Name(name) => return self.name(name, true),
            Expr::Attribute(_) | Expr::Subscript(_) => return self.part(expression, true),
            Expr::NoneLiteral(_) => Object::None,
            Expr::BooleanLiteral(it) => Object::Bool(it.value),
            Expr::NumberLiteral(it) => match &it.value {
                Literal::Int(value) => match value.as_i64() {
                    Some(value) => Object::Int(value),
                    None => {
                        return Err(self
                            .fault(expression, "this integer is larger than a config's numbers"));
                    }
                },
                Literal::Float(value) => Object::Float(*value),
                Literal::Complex { .. } => {
                    return Err(self.fault(expression, "a complex number is no value of a config"));
                }
            },
            Expr::StringLiteral(it) => {
                let text = self.literal(expression, it.value.to_str())?;
                self.told(expression, |this| this.heap.text(text))?
            }
            Expr::FString(it) => {
                let mut text = String::new();
                for part in &it.value {
                    match part {
                        FStringPart::Literal(literal) => {
                            text.push_str(&self.literal(expression, &literal.value)?);
                        }
                        FStringPart::FString(f_string) => {
                            self.f_string(expression, f_string, &mut text)?;
                        }
                    }
                }
                self.told(expression, |this| this.heap.text(text))?
            }
            Expr::List(it) => {
                let items = self.items(&it.elts)?;
                self.told(expression, |this| this.heap.sequence(Kind::List, items))?
            }
            Expr::Tuple(it) => {
                let items = self.items(&it.elts)?;
                self.told(expression, |this| this.heap.sequence(Kind::Tuple, items))?
            }
            Expr::Set(it) => {
                // `{{_base_.a.b}}`, which mmengine replaces before it runs the file.
                if let [Expr::Set(inner)] = &it.elts[..]
                    && let [value] = &inner.elts[..]
                {
                    let name = dotted(value);
                    return match name.split_once('.') {
                        Some((BASE, _)) => self.value(value),
                        _ => Err(self.fault(expression, braces(&name))),
                    };
                }
                let mut keys = IndexSet::new();
                for item in self.items(&it.elts)? {
                    keys.insert(self.told(expression, |this| this.heap.key(&item.object))?);
                }
                self.told(expression, |this| this.heap.set(keys))?
            }
            Expr::Dict(it) => {
                let entries = self.entries(&it.items)?;
                self.told(expression, |this| this.heap.dict(entries))?
            }
            Expr::ListComp(it) => {
                let items = self.comprehended(&it.generators, &it.elt)?;
                self.told(expression, |this| this.heap.sequence(Kind::List, items))?
            }
            Expr::Generator(it) => {
                let items = self.comprehended(&it.generators, &it.elt)?;
                self.told(expression, |this| this.heap.sequence(Kind::Stream, items))?
            }
            Expr::SetComp(it) => {
                let mut keys = IndexSet::new();
                for item in self.comprehended(&it.generators, &it.elt)? {
                    keys.insert(self.told(expression, |this| this.heap.key(&item.object))?);
                }
                self.told(expression, |this| this.heap.set(keys))?
            }
            Expr::DictComp(it) => {
                let mut entries = IndexMap::new();
                self.scoped(&it.generators, &mut |this| {
                    let Some(key) = &it.key else {
                        return Err(this.fault(expression, "this comprehension is not understood"));
                    };
                    let name = this.key(key)?;
                    let item = this.entry(&**key, &it.value)?;
                    entries.insert(name, item);
                    Ok(())
                })?;
                self.told(expression, |this| this.heap.dict(entries))?
            }
            Expr::BoolOp(it) => {
                let mut last = Object::None;
                for part in &it.values {
                    last = self.value(part)?.object;
                    if self.heap.truth(&last) == (it.op == BoolOp::Or) {
                        break;
                    }
                }
                last
            }
            Expr::If(it) => {
                let test = self.value(&it.test)?.object;
                let chosen = if self.heap.truth(&test) { &it.body } else { &it.orelse };
                return self.value(chosen);
            }
            Expr::UnaryOp(it) => {
                let of = self.value(&it.operand)?.object;
                self.told(expression, |this| operators::unary(&this.heap, it.op, &of))?
            }
            Expr::BinOp(it) => {
                let (left, right) = (self.value(&it.left)?.object, self.value(&it.right)?.object);
                self.told(expression, |this| {
                    operators::binary(&mut this.heap, it.op, &left, &right)
                })?
            }
            Expr::Compare(it) => {
                let mut left = self.value(&it.left)?.object;
                let mut holds = true;
                for (operator, right) in it.ops.iter().zip(&it.comparators) {
                    let right = self.value(right)?.object;
                    holds = self.told(expression, |this| {
                        operators::compare(&mut this.heap, *operator, &left, &right)
                    })?;
                    if !holds {
                        break;
                    }
                    left = right;
                }
                Object::Bool(holds)
            }
            Expr::Call(it) => self.call(it, true)?,
            Expr::Starred(_) => return Err(self.fault(expression, "`*` is not understood here")),
            Expr::Slice(_) => return Err(self.fault(expression, "a slice is not understood here")),
            Expr::EllipsisLiteral(_) => {
                return Err(self.fault(expression, "`...` is no value of a config"));
            }
            _ => {
                return Err(self.fault(
                    expression,
                    "this is not understood: Python configs are read, never run",
                ));
            }
        };
        Ok(Item { object, origin: here })
    }

    /// The text of a literal, with its references. Their marks are private characters, which nobody
    /// else may write.
    fn literal(&mut self, at: &Expr, text: &str) -> Result<String> {
        if references::is_marked(text) {
            return Err(
                self.fault(at, "the characters U+E000 and U+E001 have no meaning in a config")
            );
        }
        Ok(references::mark(text))
    }

    fn f_string(&mut self, at: &Expr, f_string: &FString, out: &mut String) -> Result<()> {
        f_string.elements.iter().try_for_each(|it| self.f_string_element(at, it, out))
    }

    fn f_string_element(
        &mut self,
        at: &Expr,
        element: &InterpolatedStringElement,
        out: &mut String,
    ) -> Result<()> {
        let part = match element {
            InterpolatedStringElement::Literal(literal) => {
                out.push_str(&literal.value);
                return Ok(());
            }
            InterpolatedStringElement::Interpolation(part) => part,
        };
        let value = self.value(&part.expression)?.object;
        let mut spec = String::new();
        for element in part.format_spec.iter().flat_map(|it| it.elements.iter()) {
            self.f_string_element(at, element, &mut spec)?;
        }
        let mut conversion = part.conversion;
        if let Some(shown) = &part.debug_text {
            out.push_str(shown.as_str());
            if conversion == ConversionFlag::None && part.format_spec.is_none() {
                conversion = ConversionFlag::Repr;
            }
        }
        let text = self.told(at, |this| {
            let converted = match conversion {
                ConversionFlag::None => value,
                ConversionFlag::Str => Object::Text(format::text(&mut this.heap, &value)?.into()),
                ConversionFlag::Repr | ConversionFlag::Ascii => {
                    Object::Text(format::repr(&mut this.heap, &value)?.into())
                }
            };
            format::format(&mut this.heap, &converted, &spec)
        })?;
        out.push_str(&text);
        Ok(())
    }

    /// The values of a list's elements, `*others` spread among them.
    fn items(&mut self, elements: &[Expr]) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        for element in elements {
            match element {
                Expr::Starred(it) => items.extend(self.iterated(&it.value)?),
                _ => items.push(self.value(element)?),
            }
        }
        Ok(items)
    }

    /// The values that a loop over `expression` meets.
    pub(super) fn iterated(&mut self, expression: &Expr) -> Result<Vec<Item>> {
        let here = self.origin(expression);
        let object = self.value(expression)?.object;
        self.told(expression, |this| this.heap.iterate(&object, &here))
    }

    fn entries(&mut self, parts: &[DictItem]) -> Result<IndexMap<Key, Item>> {
        let mut entries = IndexMap::new();
        for part in parts {
            match &part.key {
                Some(key) => {
                    let name = self.key(key)?;
                    let item = self.entry(key, &part.value)?;
                    entries.insert(name, item);
                }
                None => entries.extend(self.spread(&part.value)?),
            }
        }
        Ok(entries)
    }

    /// What `**expression` brings.
    fn spread(&mut self, expression: &Expr) -> Result<IndexMap<Key, Item>> {
        match self.value(expression)?.object {
            Object::Dict(id) => {
                let items = self.heap.entries(id).items.clone();
                self.told(expression, |this| this.heap.spend(items.len()))?;
                Ok(items)
            }
            other => Err(self.fault(
                expression,
                format!("expected a dict, found {}", self.heap.describe(&other)),
            )),
        }
    }

    /// The value of a dict's entry. What is written there belongs to the key's line; a name's value
    /// to where the name was set.
    fn entry(&mut self, key: &impl Ranged, value: &Expr) -> Result<Item> {
        let mut item = self.value(value)?;
        if !matches!(value, Expr::Name(_) | Expr::Attribute(_) | Expr::Subscript(_)) {
            item.origin = self.origin(key);
        }
        Ok(item)
    }

    pub(super) fn key(&mut self, expression: &Expr) -> Result<Key> {
        let object = self.value(expression)?.object;
        self.told(expression, |this| this.heap.key(&object))
    }

    /// `asked` is whether the name is read here, and not only changed.
    fn name(&mut self, name: &ExprName, asked: bool) -> Result<Item> {
        if let Some(item) = self.scopes.iter().rev().find_map(|it| it.get(name.id.as_str())) {
            return Ok(item.clone());
        }
        if let Some(item) = self.names.get(name.id.as_str()) {
            if asked && !self.used.contains(name.id.as_str()) {
                self.used.insert(name.id.to_string());
            }
            return Ok(item.clone());
        }
        if self.broken.contains(name.id.as_str()) {
            return Err(Fault::Follows);
        }
        if name.id.as_str() == BASE {
            return match self.bases() {
                Some(object) => Ok(Item { object, origin: self.origin(name) }),
                None => Err(self.fault(name, "`_base_` cannot refer to itself")),
            };
        }
        if let Some(function) = functions::find(&name.id) {
            return Ok(Item { object: function, origin: self.origin(name) });
        }
        if let Some(message) = instead(&name.id) {
            return Err(self.fault(name, message));
        }
        if self.reads_bases() {
            let message = format!(
                "`_base_` is read before the rest of the file, so it cannot use `{}`",
                name.id
            );
            return Err(self.fault(name, message));
        }
        let hint = nearest(&name.id, self.names.keys().map(String::as_str))
            .map(|it| format!("; did you mean `{it}`?"));
        Err(self.fault(name, format!("`{}` is not set above{}", name.id, hint.unwrap_or_default())))
    }

    /// `a`, `a.b` or `a[b]`: the item itself, not a copy.
    pub(super) fn part(&mut self, expression: &Expr, asked: bool) -> Result<Item> {
        match expression {
            Expr::Name(name) => self.name(name, asked),
            Expr::Attribute(it) => {
                let foreign = dotted(expression);
                let root = foreign.split('.').next().unwrap_or_default();
                if !self.names.contains_key(root)
                    && let Some(message) = instead_of_call(&foreign, &[])
                {
                    return Err(self.fault(expression, message));
                }
                let of = self.part(&it.value, asked)?.object;
                match &of {
                    Object::Dict(id) if self.heap.entries(*id).of_bases => {
                        let key = Key::Text(it.attr.as_str().into());
                        let entries = &self.heap.entries(*id).items;
                        let found = entries.get(&key).cloned();
                        let message = || {
                            operators::missing(&key, entries.keys())
                                .replace("in the dict", "in the bases' dict")
                        };
                        found.ok_or_else(|| self.fault(expression, message()))
                    }
                    Object::Dict(_) => {
                        let message = format!("a dict has no attributes; write `…['{}']`", it.attr);
                        Err(self.fault(expression, message))
                    }
                    other => Err(self.fault(
                        expression,
                        format!("there is no `{}` in {}", it.attr, self.heap.describe(other)),
                    )),
                }
            }
            Expr::Subscript(it) => {
                let of = self.part(&it.value, asked)?.object;
                let here = self.origin(expression);
                if let Expr::Slice(_) = &*it.slice {
                    let bounds = self.bounds(it)?;
                    let bounds = [bounds[0].as_ref(), bounds[1].as_ref(), bounds[2].as_ref()];
                    let object = self
                        .told(expression, |this| operators::sliced(&mut this.heap, &of, bounds))?;
                    return Ok(Item { object, origin: here });
                }
                let key = self.value(&it.slice)?.object;
                self.told(expression, |this| operators::item(&mut this.heap, &of, &key, &here))
            }
            _ => self.value(expression),
        }
    }

    /// The three values of a slice.
    pub(super) fn bounds(&mut self, subscript: &ExprSubscript) -> Result<[Option<Object>; 3]> {
        let mut bounds = [const { None }; 3];
        if let Expr::Slice(slice) = &*subscript.slice {
            for (bound, part) in bounds.iter_mut().zip([&slice.lower, &slice.upper, &slice.step]) {
                *bound = part.as_ref().map(|it| self.value(it)).transpose()?.map(|it| it.object);
            }
        }
        Ok(bounds)
    }

    pub(super) fn call(&mut self, call: &ExprCall, asked: bool) -> Result<Object> {
        let here = self.origin(call);
        if let Expr::Attribute(method) = &*call.func {
            let foreign = dotted(&call.func);
            let root = foreign.split('.').next().unwrap_or_default();
            if !self.names.contains_key(root)
                && let Some(message) = instead_of_call(&foreign, &call.arguments.args)
            {
                return Err(self.fault(call, message));
            }
            let of = self.part(&method.value, asked)?.object;
            let arguments = self.arguments(call)?;
            return self.told(&method.attr, |this| {
                methods::call(&mut this.heap, &of, &method.attr, arguments, &here)
            });
        }
        let function = self.value(&call.func)?.object;
        let Object::Function(name) = function else {
            return Err(
                self.fault(call, format!("{} cannot be called", self.heap.describe(&function)))
            );
        };
        let arguments = self.arguments(call)?;
        self.told(call, |this| functions::call(&mut this.heap, name, arguments, &here))
    }

    fn arguments(&mut self, call: &ExprCall) -> Result<Arguments> {
        let mut arguments =
            Arguments { positional: self.items(&call.arguments.args)?, named: Vec::new() };
        for keyword in &call.arguments.keywords {
            let Some(name) = &keyword.arg else {
                for (key, item) in self.spread(&keyword.value)? {
                    let Key::Text(name) = key else {
                        return Err(self.fault(keyword, "`**` in a call expects names as keys"));
                    };
                    self.unique(keyword, &arguments, &name)?;
                    arguments.named.push((name.to_string(), item));
                }
                continue;
            };
            self.unique(keyword, &arguments, name)?;
            let item = self.entry(&keyword.value, &keyword.value)?;
            arguments.named.push((name.to_string(), item));
        }
        Ok(arguments)
    }

    fn unique(&self, at: &impl Ranged, arguments: &Arguments, name: &str) -> Result<()> {
        if arguments.named.iter().any(|(it, _)| it == name) {
            return Err(self.fault(at, format!("`{name}` is given twice")));
        }
        Ok(())
    }

    fn comprehended(&mut self, clauses: &[Comprehension], element: &Expr) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        self.scoped(clauses, &mut |this| {
            items.push(this.value(element)?);
            Ok(())
        })?;
        Ok(items)
    }

    /// Runs `body` for every combination of the clauses' items, in a scope of its own.
    fn scoped(
        &mut self,
        clauses: &[Comprehension],
        body: &mut dyn FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        self.scopes.push(HashMap::new());
        let result = self.each(clauses, body);
        self.scopes.pop();
        result
    }

    fn each(
        &mut self,
        clauses: &[Comprehension],
        body: &mut dyn FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let Some((clause, inner)) = clauses.split_first() else { return body(self) };
        for item in self.iterated(&clause.iter)? {
            self.bind(&clause.target, item)?;
            let mut holds = true;
            for condition in &clause.ifs {
                let object = self.value(condition)?.object;
                holds = holds && self.heap.truth(&object);
            }
            if holds {
                self.each(inner, body)?;
            }
        }
        Ok(())
    }

    pub(super) fn origin(&self, at: &impl Ranged) -> Origin {
        Origin::file(self.source, self.lines.line(at.start()))
    }

    pub(super) fn fault(&self, at: &impl Ranged, message: impl Into<String>) -> Fault {
        Fault::Told(self.lines.line(at.start()), message.into())
    }

    /// Gives what is wrong its line.
    pub(super) fn told<T>(
        &mut self,
        at: &impl Ranged,
        run: impl FnOnce(&mut Self) -> std::result::Result<T, String>,
    ) -> Result<T> {
        run(self).map_err(|message| self.fault(at, message))
    }
}

/// What is wrong with `{{name}}` outside of strings.
fn braces(name: &str) -> String {
    match predefined::meant(name) {
        Some(meant) => format!("`{{{{{name}}}}}` is not known; did you mean `{{{{ {meant} }}}}`?"),
        None => "only `{{_base_.…}}` is known outside of strings; write the name without braces"
            .to_owned(),
    }
}

/// What to write instead of a call of a module's function, such as `os.environ.get('DATA',
/// 'data')`.
fn instead_of_call(function: &str, values: &[Expr]) -> Option<String> {
    let texts: Vec<&str> = values
        .iter()
        .map_while(|it| {
            if let Expr::StringLiteral(text) = it { Some(text.value.to_str()) } else { None }
        })
        .collect();
    let exact = texts.len() == values.len();
    match function {
        "os.environ.get" | "os.getenv" | "environ.get" if exact && !texts.is_empty() => {
            let default = texts.get(1).unwrap_or(&"default");
            Some(format!(
                "`{function}(…)` is not understood: Python configs are read, never run; write \
                 `'{{{{${}:{default}}}}}'`",
                texts[0]
            ))
        }
        "os.path.join" | "osp.join" if exact && !texts.is_empty() => Some(format!(
            "`{function}(…)` is not understood: Python configs are read, never run; write `'{}'`",
            texts.join("/")
        )),
        "os.path.join" | "osp.join" => Some(format!(
            "`{function}(…)` is not understood: Python configs are read, never run; join paths by \
             an f-string: `f'{{a}}/{{b}}'`"
        )),
        _ => instead(function),
    }
}
