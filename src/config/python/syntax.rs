//! Tokens to statements: assignments of expressions made of literals, names, arithmetic, comprehensions and calls.

use super::token::{Fault, Token, tokenize};

/// A statement and its line.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Statement {
    /// `a = b = value`, `a['b'] = value`, `a += value` (as the sum).
    Assign { targets: Vec<Expression>, value: Expression },
    /// A call for its effect, or a docstring.
    Expression(Expression),
}

/// An expression and the line where it starts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expression {
    pub(super) line: usize,
    pub(super) kind: Kind,
    /// Levels, itself included.
    height: usize,
}

impl Expression {
    /// Whoever walks an expression recurses, so too many levels are an error: `a.b.b.b…` and `1+1+1…` have one a link.
    fn new(line: usize, kind: Kind) -> Result<Self, Fault> {
        let height = 1 + kind.height();
        if height > MAX_HEIGHT {
            return Err((line, format!("this expression has more than {MAX_HEIGHT} levels")));
        }
        Ok(Self { line, kind, height })
    }
}

impl Kind {
    /// Levels of what is below.
    fn height(&self) -> usize {
        let highest = |all: &mut dyn Iterator<Item = &Expression>| all.map(|it| it.height).max().unwrap_or(0);
        match self {
            Self::None | Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Text(_) | Self::Name(_) => 0,
            Self::Format(parts) => highest(&mut parts.iter()),
            Self::List(items) => highest(&mut items.iter().map(|(_, it)| it)),
            Self::Dict(entries) => highest(&mut entries.iter().flat_map(|(key, value)| key.iter().chain([value]))),
            Self::Comprehension { key, element, clauses } => {
                let parts = clauses.iter().map(|it| &it.iterable).chain(key.as_deref()).chain([&**element]);
                clauses.len() + highest(&mut { parts })
            }
            Self::Call { function, arguments } => {
                let values =
                    arguments.iter().map(|(Argument::Positional(it) | Argument::Keyword(_, it) | Argument::Spread(it))| it);
                highest(&mut values.chain([&**function]))
            }
            Self::Attribute(of, _) | Self::Negative(of) => of.height,
            Self::Index(left, right) | Self::Binary(_, left, right) => left.height.max(right.height),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// An f-string: literal text and expressions.
    Format(Vec<Expression>),
    Name(String),
    /// A list or a tuple; an item may be `*other`.
    List(Vec<(Star, Expression)>),
    /// A dict; an entry without a key is `**other`.
    Dict(Vec<(Option<Expression>, Expression)>),
    /// `[element for …]`, or `{key: element for …}`.
    Comprehension {
        key: Option<Box<Expression>>,
        element: Box<Expression>,
        clauses: Vec<Clause>,
    },
    Call {
        function: Box<Expression>,
        arguments: Vec<Argument>,
    },
    Attribute(Box<Expression>, String),
    Index(Box<Expression>, Box<Expression>),
    Negative(Box<Expression>),
    Binary(&'static str, Box<Expression>, Box<Expression>),
}

/// Whether an item is spread into what holds it.
pub(super) type Star = bool;

/// `for targets in iterable`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Clause {
    pub(super) targets: Vec<String>,
    pub(super) iterable: Expression,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Argument {
    Positional(Expression),
    Keyword(String, Expression),
    Spread(Expression),
}

/// Brackets deeper than this are not a config.
const MAX_DEPTH: usize = 64;
/// Expressions with more levels, links of a chain included, are not either.
const MAX_HEIGHT: usize = 200;

pub(super) fn parse(text: &str) -> Result<Vec<Statement>, Fault> {
    let mut parser = Parser { tokens: tokenize(text)?, position: 0, depth: 0 };
    let mut statements = Vec::new();
    loop {
        while parser.accept(&Token::Newline) {}
        if parser.position >= parser.tokens.len() {
            return Ok(statements);
        }
        statements.push(parser.statement()?);
        if !parser.accept(&Token::Newline) {
            return Err(parser.unexpected());
        }
    }
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    position: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.position).map(|(token, _)| token)
    }

    fn line(&self) -> usize {
        self.tokens.get(self.position).or(self.tokens.last()).map_or(1, |(_, line)| *line)
    }

    fn accept(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.position += usize::from(found);
        found
    }

    fn operator(&mut self, text: &'static str) -> bool {
        self.accept(&Token::Operator(text))
    }

    fn word(&mut self, text: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Name(name)) if name == text);
        self.position += usize::from(found);
        found
    }

    fn expect(&mut self, text: &'static str) -> Result<(), Fault> {
        if self.operator(text) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> Fault {
        let found = match self.peek() {
            None | Some(Token::Newline) => "the end of the line".to_owned(),
            Some(Token::Name(name)) => format!("`{name}`"),
            Some(Token::Operator(text)) => format!("`{text}`"),
            Some(Token::Int(_) | Token::Float(_)) => "a number".to_owned(),
            Some(Token::Text(_) | Token::Format(_)) => "a string".to_owned(),
        };
        (self.line(), format!("did not expect {found} here"))
    }

    fn name(&mut self) -> Result<String, Fault> {
        let Some(Token::Name(name)) = self.peek() else { return Err(self.unexpected()) };
        let name = name.clone();
        self.position += 1;
        Ok(name)
    }

    fn statement(&mut self) -> Result<Statement, Fault> {
        const BLOCKS: [&str; 13] =
            ["import", "from", "if", "for", "while", "def", "class", "with", "try", "del", "assert", "return", "raise"];
        if let Some(Token::Name(name)) = self.peek()
            && BLOCKS.contains(&name.as_str())
        {
            return Err((self.line(), format!("`{name}` is not understood: Python configs are read, never run")));
        }
        let line = self.line();
        let mut value = self.tuple()?;
        if self.operator("+=") {
            let sum = Kind::Binary("+", Box::new(value.clone()), Box::new(self.tuple()?));
            return Ok(Statement::Assign { targets: vec![value], value: Expression::new(line, sum)? });
        }
        let mut targets = Vec::new();
        while self.operator("=") {
            targets.push(std::mem::replace(&mut value, self.tuple()?));
        }
        Ok(if targets.is_empty() { Statement::Expression(value) } else { Statement::Assign { targets, value } })
    }

    /// An expression, or several with commas between them.
    fn tuple(&mut self) -> Result<Expression, Fault> {
        let first = self.expression()?;
        if self.peek() != Some(&Token::Operator(",")) {
            return Ok(first);
        }
        let line = first.line;
        let mut items = vec![(false, first)];
        while self.operator(",") {
            if matches!(self.peek(), None | Some(Token::Newline | Token::Operator("="))) {
                break;
            }
            items.push((false, self.expression()?));
        }
        Expression::new(line, Kind::List(items))
    }

    fn expression(&mut self) -> Result<Expression, Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err((self.line(), format!("brackets nest more than {MAX_DEPTH} levels deep")));
        }
        let result = self.binary(0);
        self.depth -= 1;
        result
    }

    /// Sums (level 0), then products, then powers.
    fn binary(&mut self, level: usize) -> Result<Expression, Fault> {
        const LEVELS: [&[&str]; 2] = [&["+", "-"], &["*", "//", "/", "%"]];
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        while let Some(operator) = self.one_of(operators) {
            let right = self.binary(level + 1)?;
            left = Expression::new(left.line, Kind::Binary(operator, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn one_of(&mut self, operators: &[&'static str]) -> Option<&'static str> {
        operators.iter().copied().find(|it| self.operator(it))
    }

    fn unary(&mut self) -> Result<Expression, Fault> {
        let line = self.line();
        let mut negative = false;
        while let Some(sign) = self.one_of(&["-", "+"]) {
            negative ^= sign == "-";
        }
        let base = self.postfix()?;
        let value = if self.operator("**") {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err((line, format!("powers nest more than {MAX_DEPTH} levels deep")));
            }
            let exponent = self.unary()?;
            self.depth -= 1;
            Expression::new(line, Kind::Binary("**", Box::new(base), Box::new(exponent)))?
        } else {
            base
        };
        if negative { Expression::new(line, Kind::Negative(Box::new(value))) } else { Ok(value) }
    }

    fn postfix(&mut self) -> Result<Expression, Fault> {
        let mut value = self.primary()?;
        loop {
            let line = value.line;
            let kind = if self.operator(".") {
                Kind::Attribute(Box::new(value), self.name()?)
            } else if self.operator("[") {
                let index = self.expression()?;
                self.expect("]")?;
                Kind::Index(Box::new(value), Box::new(index))
            } else if self.operator("(") {
                Kind::Call { function: Box::new(value), arguments: self.arguments()? }
            } else {
                return Ok(value);
            };
            value = Expression::new(line, kind)?;
        }
    }

    fn arguments(&mut self) -> Result<Vec<Argument>, Fault> {
        let mut arguments = Vec::new();
        while !self.operator(")") {
            let keyword = matches!(self.tokens.get(self.position + 1), Some((Token::Operator("="), _)));
            arguments.push(if self.operator("**") {
                Argument::Spread(self.expression()?)
            } else if keyword {
                let name = self.name()?;
                self.expect("=")?;
                Argument::Keyword(name, self.expression()?)
            } else {
                let element = self.expression()?;
                Argument::Positional(self.comprehension(None, element)?)
            });
            if !self.operator(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(arguments)
    }

    /// `element`, or the comprehension that it begins.
    fn comprehension(&mut self, key: Option<Expression>, element: Expression) -> Result<Expression, Fault> {
        let mut clauses = Vec::new();
        while self.word("for") {
            let bracket = self.operator("(");
            let mut targets = vec![self.name()?];
            while self.operator(",") {
                targets.push(self.name()?);
            }
            if bracket {
                self.expect(")")?;
            }
            if !self.word("in") {
                return Err(self.unexpected());
            }
            clauses.push(Clause { targets, iterable: self.expression()? });
        }
        if clauses.is_empty() {
            return Ok(element);
        }
        let line = element.line;
        let kind = Kind::Comprehension { key: key.map(Box::new), element: Box::new(element), clauses };
        Expression::new(line, kind)
    }

    fn primary(&mut self) -> Result<Expression, Fault> {
        let line = self.line();
        let Some(token) = self.peek().cloned() else { return Err(self.unexpected()) };
        if token == Token::Newline {
            return Err(self.unexpected());
        }
        self.position += 1;
        let kind = match token {
            Token::Int(value) => Kind::Int(value),
            Token::Float(value) => Kind::Float(value),
            Token::Text(_) | Token::Format(_) => {
                self.position -= 1;
                self.strings()?
            }
            Token::Name(name) => match name.as_str() {
                "None" => Kind::None,
                "True" => Kind::Bool(true),
                "False" => Kind::Bool(false),
                "lambda" | "not" | "await" | "yield" => {
                    return Err((line, format!("`{name}` is not understood: Python configs are read, never run")));
                }
                _ => Kind::Name(name),
            },
            Token::Operator("(") => return self.list(line, ")"),
            Token::Operator("[") => return self.list(line, "]"),
            Token::Operator("{") => return self.dict(line),
            Token::Operator(_) | Token::Newline => {
                self.position -= 1;
                return Err(self.unexpected());
            }
        };
        Expression::new(line, kind)
    }

    /// One string or several beside each other.
    fn strings(&mut self) -> Result<Kind, Fault> {
        let mut parts: Vec<Expression> = Vec::new();
        loop {
            let line = self.line();
            match self.peek().cloned() {
                Some(Token::Text(text)) => parts.push(Expression::new(line, Kind::Text(text))?),
                Some(Token::Format(text)) => parts.extend(format_parts(&text, line, self.depth)?),
                _ => break,
            }
            self.position += 1;
        }
        if parts.iter().all(|it| matches!(it.kind, Kind::Text(_))) {
            let texts = parts.into_iter().map(|it| if let Kind::Text(text) = it.kind { text } else { String::new() });
            return Ok(Kind::Text(texts.collect()));
        }
        Ok(Kind::Format(parts))
    }

    /// What follows `(` or `[`: a list, a tuple, a comprehension, or one expression in parentheses.
    fn list(&mut self, line: usize, close: &'static str) -> Result<Expression, Fault> {
        let mut items = Vec::new();
        let mut comma = false;
        while !self.operator(close) {
            let star = self.operator("*");
            let item = self.expression()?;
            let item = self.comprehension(None, item)?;
            let comprehension = matches!(item.kind, Kind::Comprehension { .. });
            items.push((star, item));
            comma = self.operator(",");
            if !comma {
                self.expect(close)?;
                if comprehension && items.len() == 1 && close == "]" {
                    return Ok(items.remove(0).1);
                }
                break;
            }
        }
        if close == ")" && items.len() == 1 && !comma && !items[0].0 {
            return Ok(items.remove(0).1);
        }
        Expression::new(line, Kind::List(items))
    }

    fn dict(&mut self, line: usize) -> Result<Expression, Fault> {
        // `{{_base_.a.b}}`, which mmengine replaces before it runs the file.
        if self.operator("{") {
            let value = self.expression()?;
            self.expect("}")?;
            self.expect("}")?;
            let mut root = &value;
            while let Kind::Attribute(inner, _) = &root.kind {
                root = inner;
            }
            return if root.kind == Kind::Name("_base_".into()) {
                Ok(value)
            } else {
                Err((line, "only `{{_base_.…}}` is known".into()))
            };
        }
        let mut entries = Vec::new();
        while !self.operator("}") {
            if self.operator("**") {
                entries.push((None, self.expression()?));
            } else {
                let key = self.expression()?;
                self.expect(":")?;
                let value = self.expression()?;
                let value_line = key.line;
                let value = self.comprehension(Some(key.clone()), value)?;
                if matches!(&value.kind, Kind::Comprehension { key: Some(of), .. } if **of == key) {
                    self.expect("}")?;
                    return Expression::new(value_line, value.kind);
                }
                entries.push((Some(key), value));
            }
            if !self.operator(",") {
                self.expect("}")?;
                break;
            }
        }
        Expression::new(line, Kind::Dict(entries))
    }
}

/// The literal text and the expressions of an f-string.
fn format_parts(text: &str, line: usize, depth: usize) -> Result<Vec<Expression>, Fault> {
    let literal = |text: &str| Expression::new(line, Kind::Text(text.to_owned()));
    let mut parts = vec![literal("")?];
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        parts.push(literal(&rest[..at])?);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            parts.push(literal(brace)?);
            rest = after;
            continue;
        }
        let Some((inside, after)) = rest.split_once('}').filter(|_| brace == "{") else {
            return Err((line, "unbalanced braces in an f-string".into()));
        };
        let mut parser = Parser { tokens: tokenize(inside.trim()).map_err(|(_, message)| (line, message))?, position: 0, depth };
        let mut value = parser.expression().map_err(|(_, message)| (line, message))?;
        if !parser.accept(&Token::Newline) || parser.position < parser.tokens.len() {
            return Err((line, format!("`{{{inside}}}` in an f-string is not understood")));
        }
        value.line = line;
        parts.push(value);
        rest = after;
    }
    parts.push(literal(rest)?);
    Ok(parts)
}
