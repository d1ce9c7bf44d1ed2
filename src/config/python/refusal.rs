//! What a config cannot say in Python, because it would have to be run: told for the whole file at
//! once, with what to write instead.

use std::collections::BTreeSet;

use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{Expr, ExprContext, Number, Stmt};
use ruff_text_size::Ranged;

use super::syntax::{Fault, Lines};

/// Expressions with more levels, links of a chain included, are not configs.
const MAX_LEVELS: usize = 200;

const NEVER_RUN: &str = "Python configs are read, never run";
const PATHS: &str = "write `'{{$NAME:default}}'` for an environment variable, `'{{ fileDirname \
                     }}'` for the config's folder, f-strings for paths";

/// What in a statement is not understood.
pub(super) fn refusals(statement: &Stmt, lines: &Lines) -> Vec<Fault> {
    let mut finder = Finder { lines, level: 0, faults: Vec::new() };
    finder.visit_stmt(statement);
    finder.faults
}

/// The line that makes a file one of mmengine's new-style configs, which import their bases and
/// types.
pub(super) fn new_style(body: &[Stmt], lines: &Lines) -> Option<usize> {
    let found = body.iter().find(|statement| match statement {
        Stmt::With(with) => {
            with.items.iter().any(|it| matches!(&it.context_expr, Expr::Call(call) if dotted(&call.func).ends_with("read_base")))
        }
        Stmt::ImportFrom(import) => import.level > 0 || import.module.as_ref().is_some_and(|it| is_openmmlab(it)),
        Stmt::Import(import) => import.names.iter().any(|it| is_openmmlab(&it.name)),
        _ => false,
    });
    found.map(|it| lines.line(it.start()))
}

fn is_openmmlab(module: &str) -> bool {
    let package = module.split('.').next().unwrap_or(module);
    [
        "mmengine",
        "mmcv",
        "mmseg",
        "mmdet",
        "mmcls",
        "mmpretrain",
        "mmdet3d",
        "mmpose",
        "mmrazor",
        "mmagic",
    ]
    .contains(&package)
}

/// The names that a statement sets or changes.
pub(super) fn changed(statement: &Stmt) -> BTreeSet<String> {
    let mut names = Names(BTreeSet::new());
    names.visit_stmt(statement);
    names.0
}

/// `os.path.join` of an expression of names and dots; empty for another one.
pub(super) fn dotted(expression: &Expr) -> String {
    match expression {
        Expr::Name(name) => name.id.to_string(),
        Expr::Attribute(attribute) => match dotted(&attribute.value) {
            of if of.is_empty() => of,
            of => format!("{of}.{}", attribute.attr),
        },
        _ => String::new(),
    }
}

/// What to write instead of a name that Python knows and a config does not.
pub(super) fn instead(name: &str) -> Option<String> {
    let package = name.split('.').next().unwrap_or(name);
    Some(match package {
        "__file__" => "`__file__` is not known here: write `'{{ fileDirname }}'` for the config's \
                       own folder"
            .into(),
        "os" | "osp" | "sys" | "getenv" | "environ" | "pathlib" | "Path" => {
            format!("`{name}` is not understood: {NEVER_RUN}; {PATHS}")
        }
        "copy" | "deepcopy" => format!(
            "`{name}` is not understood: {NEVER_RUN}; write `dict(…)`, `list(…)` or `….copy()`"
        ),
        "print" => {
            "`print(…)` is not understood: a config says nothing while it is read; `segslurm \
             config FILE` prints what it sets"
                .into()
        }
        "__import__" | "breakpoint" | "callable" | "chr" | "classmethod" | "compile"
        | "delattr" | "dir" | "eval" | "exec" | "filter" | "frozenset" | "getattr" | "globals"
        | "hasattr" | "hash" | "help" | "hex" | "id" | "input" | "isinstance" | "issubclass"
        | "iter" | "locals" | "next" | "object" | "oct" | "open" | "ord" | "property"
        | "setattr" | "slice" | "staticmethod" | "super" | "type" | "vars" => {
            format!("`{name}` is not understood: {NEVER_RUN}")
        }
        _ if name.starts_with("__") && name.ends_with("__") => {
            format!("`{name}` is not known here: {NEVER_RUN}")
        }
        _ => return None,
    })
}

struct Finder<'a> {
    lines: &'a Lines,
    level: usize,
    faults: Vec<Fault>,
}

impl Finder<'_> {
    fn refuse(&mut self, at: &impl Ranged, what: &str, hint: &str) {
        let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
        self.faults.push((
            self.lines.line(at.start()),
            format!("{what} is not understood: {NEVER_RUN}{hint}"),
        ));
    }

    fn deeper(&mut self, at: &impl Ranged, walk: impl FnOnce(&mut Self)) {
        self.level += 1;
        if self.level <= MAX_LEVELS {
            walk(self);
        } else if self.level == MAX_LEVELS + 1 {
            let fault = (
                self.lines.line(at.start()),
                format!("this expression has more than {MAX_LEVELS} levels"),
            );
            if self.faults.last() != Some(&fault) {
                self.faults.push(fault);
            }
        }
        self.level -= 1;
    }
}

impl<'a> Visitor<'a> for Finder<'_> {
    fn visit_stmt(&mut self, statement: &'a Stmt) {
        match statement {
            Stmt::Import(import) => {
                let module = import.names.first().map_or("", |it| it.name.as_str());
                self.refuse(import, &format!("`import {module}`"), import_hint(module));
            }
            Stmt::ImportFrom(import) => {
                let module = import.module.as_ref().map_or("", |it| it.as_str());
                self.refuse(import, &format!("`from {module} import …`"), import_hint(module));
            }
            Stmt::FunctionDef(it) => {
                self.refuse(it, &format!("`def {}`", it.name), "write its values");
            }
            Stmt::ClassDef(it) => {
                self.refuse(it, &format!("`class {}`", it.name), "write its values");
            }
            Stmt::While(it) => {
                self.refuse(it, "`while`", "a `for` over a list or `range(…)` is understood");
            }
            Stmt::With(it) => self.refuse(it, "`with`", ""),
            Stmt::Try(it) => self.refuse(it, "`try`", ""),
            Stmt::Raise(it) => self.refuse(it, "`raise`", ""),
            Stmt::Match(it) => self.refuse(it, "`match`", "`if`, `elif` and `else` are understood"),
            Stmt::Global(it) => self.refuse(it, "`global`", ""),
            Stmt::Nonlocal(it) => self.refuse(it, "`nonlocal`", ""),
            Stmt::Return(it) => self.refuse(it, "`return`", ""),
            Stmt::TypeAlias(it) => self.refuse(it, "`type`", ""),
            Stmt::For(it) if it.is_async => self.refuse(it, "`async for`", ""),
            // An annotation says nothing to a config.
            Stmt::AnnAssign(it) => {
                self.visit_expr(&it.target);
                if let Some(value) = &it.value {
                    self.visit_expr(value);
                }
            }
            _ => self.deeper(statement, |this| walk_stmt(this, statement)),
        }
    }

    fn visit_expr(&mut self, expression: &'a Expr) {
        match expression {
            Expr::Lambda(it) => self.refuse(it, "`lambda`", "write its values"),
            Expr::Named(it) => self.refuse(it, "`:=`", "set the name in a line of its own"),
            Expr::Await(it) => self.refuse(it, "`await`", ""),
            Expr::Yield(it) => self.refuse(it, "`yield`", ""),
            Expr::YieldFrom(it) => self.refuse(it, "`yield from`", ""),
            Expr::TString(it) => self.refuse(it, "a t-string", "write an f-string"),
            Expr::BytesLiteral(it) => self.refuse(it, "a bytes literal", "write a string"),
            Expr::NumberLiteral(it) if matches!(it.value, Number::Complex { .. }) => {
                self.refuse(it, "a complex number", "");
            }
            _ => self.deeper(expression, |this| walk_expr(this, expression)),
        }
    }
}

fn import_hint(module: &str) -> &'static str {
    match module.split('.').next().unwrap_or(module) {
        "os" | "sys" | "pathlib" => PATHS,
        "copy" => "write `dict(…)`, `list(…)` or `….copy()`",
        _ => "write its values",
    }
}

struct Names(BTreeSet<String>);

impl Names {
    fn root(&mut self, mut expression: &Expr) {
        loop {
            expression = match expression {
                Expr::Attribute(it) => &it.value,
                Expr::Subscript(it) => &it.value,
                Expr::Name(name) => {
                    self.0.insert(name.id.to_string());
                    return;
                }
                _ => return,
            };
        }
    }
}

impl<'a> Visitor<'a> for Names {
    fn visit_stmt(&mut self, statement: &'a Stmt) {
        match statement {
            Stmt::FunctionDef(it) => {
                self.0.insert(it.name.to_string());
            }
            Stmt::ClassDef(it) => {
                self.0.insert(it.name.to_string());
            }
            Stmt::Import(import) => self.0.extend(import.names.iter().map(|it| {
                let name = it.asname.as_ref().unwrap_or(&it.name);
                name.split('.').next().unwrap_or(name).to_owned()
            })),
            Stmt::ImportFrom(import) => {
                self.0.extend(
                    import
                        .names
                        .iter()
                        .map(|it| it.asname.as_ref().unwrap_or(&it.name).to_string()),
                );
            }
            _ => walk_stmt(self, statement),
        }
    }

    fn visit_expr(&mut self, expression: &'a Expr) {
        match expression {
            Expr::Name(it) if it.ctx != ExprContext::Load => {
                self.0.insert(it.id.to_string());
            }
            Expr::Attribute(it) if it.ctx != ExprContext::Load => self.root(expression),
            Expr::Subscript(it) if it.ctx != ExprContext::Load => self.root(expression),
            Expr::Call(call) => {
                if let Expr::Attribute(method) = &*call.func {
                    self.root(&method.value);
                }
                walk_expr(self, expression);
            }
            _ => walk_expr(self, expression),
        }
    }
}
