//! What a Python config's statements do.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use indexmap::IndexMap;
use ruff_python_ast::{Expr, ExprContext, Operator, Stmt, StmtFor, Suite};

use super::super::node::{Node, Origin};
use super::heap::{Heap, Item, Key, Kind, Object};
use super::operators::{binary, index, slice};
use super::syntax::Lines;
use super::{BASE, refusal};

const SET_ONCE: &str = "`_base_` is set once, by `_base_ = …` at the top of the file";

/// Why a statement cannot be followed.
#[derive(Debug)]
pub(super) enum Fault {
    /// A line, and what is wrong there.
    Told(usize, String),
    /// It needs a value of another statement, whose fault is told already.
    Follows,
}

pub(super) type Result<T> = std::result::Result<T, Fault>;

/// What `_base_` is.
enum Bases<'a> {
    /// It is about to be read.
    Unread,
    Given(&'a Node),
    Used(Object),
}

pub(super) struct Evaluator<'a> {
    pub(super) source: &'a Arc<str>,
    pub(super) lines: &'a Lines,
    pub(super) heap: Heap,
    pub(super) names: IndexMap<String, Item>,
    /// The variables of the comprehensions around an expression.
    pub(super) scopes: Vec<HashMap<String, Item>>,
    /// The names that expressions have used.
    pub(super) used: BTreeSet<String>,
    /// The names that have no value because of a fault.
    pub(super) broken: BTreeSet<String>,
    bases: Bases<'a>,
}

/// Where a block goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

impl<'a> Evaluator<'a> {
    /// Without `bases` it is `_base_` itself that is read.
    pub(super) fn new(source: &'a Arc<str>, lines: &'a Lines, bases: Option<&'a Node>) -> Self {
        Self {
            source,
            lines,
            heap: Heap::new(),
            names: IndexMap::new(),
            scopes: Vec::new(),
            used: BTreeSet::new(),
            broken: BTreeSet::new(),
            bases: bases.map_or(Bases::Unread, Bases::Given),
        }
    }

    pub(super) fn reads_bases(&self) -> bool {
        matches!(self.bases, Bases::Unread)
    }

    /// The bases' values, to be read and changed.
    pub(super) fn bases(&mut self) -> Option<Object> {
        if let Bases::Given(node) = self.bases {
            self.bases = Bases::Used(self.heap.bases(node));
        }
        match &self.bases {
            Bases::Used(object) => Some(object.clone()),
            _ => None,
        }
    }

    /// The bases as the file leaves them, if it looked at them.
    pub(super) fn bases_left(&self) -> Option<Object> {
        if let Bases::Used(object) = &self.bases { Some(object.clone()) } else { None }
    }

    /// Follows a file's statements, `skipped` left out. All that is wrong is told.
    pub(super) fn file(&mut self, body: &Suite, skipped: Option<usize>) -> Vec<(usize, String)> {
        let mut faults = Vec::new();
        for (at, statement) in body.iter().enumerate() {
            if Some(at) == skipped {
                continue;
            }
            let refused = refusal::refusals(statement, self.lines);
            if refused.is_empty() {
                match self.statement(statement) {
                    Ok(_) => continue,
                    Err(Fault::Told(line, message)) => faults.push((line, message)),
                    Err(Fault::Follows) => {}
                }
            }
            faults.extend(refused);
            if self.heap.is_spent() {
                break;
            }
            self.scopes.clear();
            self.broken.extend(refusal::changed(statement));
            for name in &self.broken {
                self.names.shift_remove(name);
            }
        }
        faults
    }

    fn block(&mut self, body: &[Stmt]) -> Result<Flow> {
        for statement in body {
            let flow = self.statement(statement)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, statement: &Stmt) -> Result<Flow> {
        self.told(statement, |this| this.heap.spend(10))?;
        match statement {
            Stmt::Assign(it) => {
                let item = self.value(&it.value)?;
                it.targets.iter().try_for_each(|target| self.bind(target, item.clone()))?;
            }
            Stmt::AnnAssign(it) => {
                let Some(value) = &it.value else {
                    return Err(self.fault(
                        statement,
                        "this sets nothing: an annotation is no value; write `=` in place of `:`",
                    ));
                };
                let item = self.value(value)?;
                self.bind(&it.target, item)?;
            }
            Stmt::AugAssign(it) if matches!(&*it.target, Expr::Name(name) if name.id.as_str() == BASE) =>
            {
                return Err(self.fault(statement, SET_ONCE));
            }
            Stmt::AugAssign(it) => {
                let old = self.part(&it.target, false)?.object;
                let right = self.value(&it.value)?.object;
                let object = self.changed_by(statement, it.op, &old, &right)?;
                let item = Item { object, origin: self.origin(statement) };
                self.bind(&it.target, item)?;
            }
            Stmt::Delete(it) => it.targets.iter().try_for_each(|target| self.delete(target))?,
            Stmt::Expr(it) => self.effect(&it.value)?,
            Stmt::If(it) => {
                let test = self.value(&it.test)?.object;
                if self.heap.truth(&test) {
                    return self.block(&it.body);
                }
                for clause in &it.elif_else_clauses {
                    let holds = match &clause.test {
                        None => true,
                        Some(test) => {
                            let test = self.value(test)?.object;
                            self.heap.truth(&test)
                        }
                    };
                    if holds {
                        return self.block(&clause.body);
                    }
                }
            }
            Stmt::For(it) => return self.repeat(it),
            Stmt::Assert(it) => {
                let test = self.value(&it.test)?.object;
                if !self.heap.truth(&test) {
                    let said = match &it.msg {
                        Some(message) => {
                            let object = self.value(message)?.object;
                            format!(
                                ": {}",
                                self.told(statement, |this| super::format::text(
                                    &mut this.heap,
                                    &object
                                ))?
                            )
                        }
                        None => String::new(),
                    };
                    return Err(self.fault(
                        statement,
                        format!("the config's own `assert` does not hold{said}"),
                    ));
                }
            }
            Stmt::Pass(_) => {}
            Stmt::Break(_) => return Ok(Flow::Break),
            Stmt::Continue(_) => return Ok(Flow::Continue),
            _ => {
                return Err(self.fault(
                    statement,
                    "this is not understood: Python configs are read, never run",
                ));
            }
        }
        Ok(Flow::Next)
    }

    /// A statement that is an expression: a docstring, or a call for what it changes.
    fn effect(&mut self, expression: &Expr) -> Result<()> {
        match expression {
            Expr::StringLiteral(_) | Expr::EllipsisLiteral(_) => Ok(()),
            Expr::Call(call) => self.call(call, false).map(|_| ()),
            Expr::ListComp(_) | Expr::If(_) | Expr::BoolOp(_) => self.value(expression).map(|_| ()),
            Expr::Compare(_) => {
                Err(self.fault(expression, "a comparison alone sets nothing; did you mean `=`?"))
            }
            _ => Err(self.fault(
                expression,
                "this sets nothing: expected an assignment such as `name = value`",
            )),
        }
    }

    fn repeat(&mut self, it: &StmtFor) -> Result<Flow> {
        self.used.extend(refusal::changed(&Stmt::For(StmtFor {
            body: Suite::new(),
            orelse: Suite::new(),
            ..it.clone()
        })));
        let here = self.origin(it);
        let object = self.value(&it.iter)?.object;
        // A list is followed as it changes.
        let live = if let Object::Sequence(Kind::List | Kind::Either, id) = object {
            Some(id)
        } else {
            None
        };
        let fixed = if live.is_some() {
            Vec::new()
        } else {
            self.told(it, |this| this.heap.iterate(&object, &here))?
        };
        let keys = if let Object::Dict(id) = object { Some((id, fixed.len())) } else { None };
        let mut at = 0;
        loop {
            if let Some((id, length)) = keys
                && self.heap.entries(id).items.len() != length
            {
                return Err(self.fault(
                    it,
                    "the dict changes its size while this loop goes over it; loop over `list(…)`",
                ));
            }
            let next =
                live.map_or_else(|| fixed.get(at), |id| self.heap.items(id).get(at)).cloned();
            let Some(item) = next else { return self.block(&it.orelse) };
            at += 1;
            self.told(it, |this| this.heap.spend(10))?;
            self.bind(&it.target, item)?;
            if self.block(&it.body)? == Flow::Break {
                return Ok(Flow::Next);
            }
        }
    }

    /// `old += right` and its kind; lists, sets and dicts change in place.
    fn changed_by(
        &mut self,
        at: &Stmt,
        operator: Operator,
        old: &Object,
        right: &Object,
    ) -> Result<Object> {
        let here = self.origin(at);
        self.told(at, |this| match (operator, old, right) {
            (Operator::Add, Object::Sequence(Kind::List | Kind::Either, id), _) => {
                let more = this.heap.iterate(right, &here)?;
                this.heap.items_mut(*id).extend(more);
                Ok(old.clone())
            }
            (Operator::Mult, Object::Sequence(Kind::List, id), _) => {
                let Object::Sequence(_, product) = binary(&mut this.heap, operator, old, right)?
                else {
                    return Ok(old.clone());
                };
                *this.heap.items_mut(*id) = this.heap.items(product).clone();
                Ok(old.clone())
            }
            (Operator::BitOr, Object::Dict(id), Object::Dict(other)) => {
                for (key, item) in this.heap.entries(*other).items.clone() {
                    this.heap.insert(*id, key, item)?;
                }
                Ok(old.clone())
            }
            _ => binary(&mut this.heap, operator, old, right),
        })
    }

    /// Puts a value where a target says.
    pub(super) fn bind(&mut self, target: &Expr, mut item: Item) -> Result<()> {
        let here = self.origin(target);
        match target {
            Expr::Name(name) if name.id.as_str() == BASE => Err(self.fault(target, SET_ONCE)),
            Expr::Name(name) => {
                if let Some(scope) = self.scopes.last_mut() {
                    scope.insert(name.id.to_string(), item);
                } else {
                    item.origin = here;
                    self.broken.remove(name.id.as_str());
                    self.names.insert(name.id.to_string(), item);
                }
                Ok(())
            }
            Expr::Attribute(it) => {
                item.origin = here;
                let of = self.part(&it.value, false)?.object;
                match of {
                    Object::Dict(id) if self.heap.entries(id).of_bases => self
                        .told(target, |this| {
                            this.heap.insert(id, Key::Text(it.attr.as_str().into()), item)
                        }),
                    Object::Dict(_) => Err(self.fault(
                        target,
                        format!("a dict has no attributes; write `…['{}'] = …`", it.attr),
                    )),
                    other => Err(self.fault(
                        target,
                        format!("{} has no attributes", self.heap.describe(&other)),
                    )),
                }
            }
            Expr::Subscript(it) => {
                item.origin = here.clone();
                let of = self.part(&it.value, false)?.object;
                if let Expr::Slice(_) = &*it.slice {
                    let bounds = self.bounds(it)?;
                    return self.told(target, |this| {
                        this.replace(&of, &bounds, Some(&item.object), &here)
                    });
                }
                match of {
                    Object::Dict(id) => {
                        let key = self.key(&it.slice)?;
                        self.told(target, |this| this.heap.insert(id, key, item))
                    }
                    Object::Sequence(Kind::List | Kind::Either, id) => {
                        let key = self.value(&it.slice)?.object;
                        self.told(target, |this| {
                            let at = index(&this.heap, &key, this.heap.items(id).len())?;
                            this.heap.items_mut(id)[at] = item;
                            Ok(())
                        })
                    }
                    other => Err(self.fault(
                        target,
                        format!("{} cannot be changed", self.heap.describe(&other)),
                    )),
                }
            }
            Expr::Tuple(it) => self.unpack(target, &it.elts, &item),
            Expr::List(it) => self.unpack(target, &it.elts, &item),
            _ => Err(self.fault(target, "this cannot be assigned to")),
        }
    }

    fn unpack(&mut self, at: &Expr, targets: &[Expr], item: &Item) -> Result<()> {
        let values = self.told(at, |this| this.heap.iterate(&item.object, &item.origin))?;
        let star = targets.iter().position(|it| matches!(it, Expr::Starred(_)));
        let fits = match star {
            Some(_) => values.len() + 1 >= targets.len(),
            None => values.len() == targets.len(),
        };
        if !fits {
            return Err(
                self.fault(at, format!("{} values for {} names", values.len(), targets.len()))
            );
        }
        let spare = (values.len() + 1).saturating_sub(targets.len());
        let mut values = values.into_iter();
        for target in targets {
            if let Expr::Starred(it) = target {
                let rest = values.by_ref().take(spare).collect();
                let object = self.told(at, |this| this.heap.sequence(Kind::List, rest))?;
                self.bind(&it.value, Item { object, origin: item.origin.clone() })?;
            } else if let Some(value) = values.next() {
                self.bind(target, value)?;
            }
        }
        Ok(())
    }

    /// `of[bounds] = with`; without values the slice is deleted.
    fn replace(
        &mut self,
        of: &Object,
        bounds: &[Option<Object>; 3],
        with: Option<&Object>,
        here: &Origin,
    ) -> std::result::Result<(), String> {
        let Object::Sequence(Kind::List | Kind::Either, id) = *of else {
            return Err(format!("{} cannot be changed", self.heap.describe(of)));
        };
        let length = self.heap.items(id).len();
        let places = slice(
            &self.heap,
            length,
            [bounds[0].as_ref(), bounds[1].as_ref(), bounds[2].as_ref()],
        )?;
        let values = with.map(|it| self.heap.iterate(it, here)).transpose()?;
        self.heap.spend(length)?;
        let stepped = !matches!(bounds[2], None | Some(Object::None | Object::Int(1)));
        match values {
            Some(values) if stepped => {
                if values.len() != places.len() {
                    return Err(format!("{} values for a slice of {}", values.len(), places.len()));
                }
                for (at, value) in places.into_iter().zip(values) {
                    self.heap.items_mut(id)[at] = value;
                }
            }
            Some(values) => {
                let start = match places.first() {
                    Some(at) => *at,
                    // An empty slice is a place all the same.
                    None => slice(&self.heap, length, [None, bounds[0].as_ref(), None])?.len(),
                };
                let start = if bounds[0].is_none() || matches!(bounds[0], Some(Object::None)) {
                    0
                } else {
                    start
                };
                self.heap.items_mut(id).splice(start..start + places.len(), values);
            }
            None => {
                let gone: std::collections::HashSet<usize> = places.into_iter().collect();
                let mut at = 0;
                self.heap.items_mut(id).retain(|_| {
                    at += 1;
                    !gone.contains(&(at - 1))
                });
            }
        }
        Ok(())
    }

    fn delete(&mut self, target: &Expr) -> Result<()> {
        let here = self.origin(target);
        match target {
            Expr::Name(name) => match self.names.shift_remove(name.id.as_str()) {
                Some(_) => Ok(()),
                None if self.broken.contains(name.id.as_str()) => Err(Fault::Follows),
                None => Err(self.fault(target, format!("`{}` is not set above", name.id))),
            },
            Expr::Attribute(it) => {
                let of = self.part(&it.value, false)?.object;
                match of {
                    Object::Dict(id) if self.heap.entries(id).of_bases => {
                        self.remove(target, id, &Key::Text(it.attr.as_str().into()))
                    }
                    other => Err(self.fault(
                        target,
                        format!("{} has no attributes", self.heap.describe(&other)),
                    )),
                }
            }
            Expr::Subscript(it) => {
                let of = self.part(&it.value, false)?.object;
                if let Expr::Slice(_) = &*it.slice {
                    let bounds = self.bounds(it)?;
                    return self.told(target, |this| this.replace(&of, &bounds, None, &here));
                }
                match of {
                    Object::Dict(id) => {
                        let key = self.key(&it.slice)?;
                        self.remove(target, id, &key)
                    }
                    Object::Sequence(Kind::List | Kind::Either, id) => {
                        let key = self.value(&it.slice)?.object;
                        self.told(target, |this| {
                            let length = this.heap.items(id).len();
                            let at = index(&this.heap, &key, length)?;
                            this.heap.spend(1 + length / 64)?;
                            this.heap.items_mut(id).remove(at);
                            Ok(())
                        })
                    }
                    other => Err(self.fault(
                        target,
                        format!("{} cannot be changed", self.heap.describe(&other)),
                    )),
                }
            }
            Expr::Tuple(it) => it.elts.iter().try_for_each(|it| self.delete(it)),
            Expr::List(it) => it.elts.iter().try_for_each(|it| self.delete(it)),
            _ => Err(self.fault(target, "this cannot be deleted")),
        }
    }

    fn remove(&mut self, at: &Expr, id: usize, key: &Key) -> Result<()> {
        self.told(at, |this| {
            this.heap.spend(1 + this.heap.entries(id).items.len() / 64)?;
            match this.heap.entries_mut(id).items.shift_remove(key) {
                Some(_) => Ok(()),
                None => Err(super::operators::missing(key, this.heap.entries(id).items.keys())),
            }
        })
    }
}

/// Whether a statement is `_base_ = …`, as mmengine looks for it.
pub(super) fn sets_bases(statement: &Stmt) -> Option<&Expr> {
    match statement {
        Stmt::Assign(it) => match it.targets.first() {
            Some(Expr::Name(name))
                if name.id.as_str() == BASE && name.ctx == ExprContext::Store =>
            {
                Some(&it.value)
            }
            _ => None,
        },
        _ => None,
    }
}
