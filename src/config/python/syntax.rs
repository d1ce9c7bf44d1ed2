//! Python text to statements, by ruff's parser. What is handed to it, and what comes out of it, has
//! bounds: the parser takes any depth, but whoever walks or drops a tree recurses.

use ruff_python_ast::Suite;
use ruff_python_ast::token::{TokenKind, Tokens};
use ruff_python_parser::lexer::lex;
use ruff_python_parser::{LexicalErrorType, Mode, ParseError, ParseErrorType, parse_unchecked};
use ruff_text_size::{Ranged, TextSize};

/// A line, and what is wrong there.
pub(super) type Fault = (usize, String);

/// Longer texts are not configs.
const MAX_LENGTH: usize = 16 << 20;
/// What the parser may nest. It is what the tokens allow for; the exact levels of an expression are
/// looked at afterwards.
const MAX_NESTING: usize = 1000;
/// A text that is torn (a string does not end, a character has no meaning) is read in the parser's
/// own way, so its tokens promise nothing; it is explained only if it is short.
const MAX_TORN: usize = 400_000;

/// Where the lines of a text begin.
#[derive(Debug)]
pub(super) struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at + 1).collect())
    }

    /// The line of a place, counted from 1.
    pub(super) fn line(&self, at: TextSize) -> usize {
        1 + self.0.partition_point(|start| *start <= at.to_usize())
    }
}

/// A file's statements.
pub(super) fn parse(text: &str) -> Result<(Suite, Lines), Fault> {
    let text = text.trim_start_matches('\u{feff}');
    if text.len() > MAX_LENGTH {
        return Err((
            1,
            format!("this file has {} bytes; expected at most {MAX_LENGTH}", text.len()),
        ));
    }
    let lines = Lines::of(text);
    match outline(text) {
        Outline::Shallow => {}
        Outline::Torn if text.len() <= MAX_TORN => {}
        Outline::Torn => {
            let what = "somewhere in this file a bracket or a string does not end, or a character \
                        has no meaning";
            return Err((
                1,
                format!("{what}; with {} bytes it is too long to say where", text.len()),
            ));
        }
        Outline::Deep => {
            let ends: Vec<usize> = lines.0.iter().copied().chain([text.len()]).collect();
            let line = 1 + ends.partition_point(|end| outline(&text[..*end]) != Outline::Deep);
            return Err((line, format!("this nests more than {MAX_NESTING} levels deep")));
        }
    }
    let parsed = parse_unchecked(text, Mode::Module.into());
    match parsed.errors().first() {
        None => {
            let module =
                parsed.try_into_module().ok_or_else(|| (1, "this is not Python".to_owned()))?;
            Ok((module.into_syntax().body, lines))
        }
        Some(error) => {
            let told = (lines.line(error.location.start()), explain(error));
            Err(match bracket(parsed.tokens(), text, &lines) {
                Some(fault) if fault.0 <= told.0 => fault,
                _ => told,
            })
        }
    }
}

/// What the tokens of a text promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outline {
    Shallow,
    /// More levels than the parser is to see.
    Deep,
    /// A string or a bracket does not end, or a character has no meaning.
    Torn,
}

/// One pass over the tokens: how many levels could the parser find? Brackets are levels, and so is
/// every link of a chain such as `a.b.c` or `1 + 2 + 3` up to the comma that ends it.
fn outline(text: &str) -> Outline {
    let mut tokens = lex(text, Mode::Module);
    let (mut torn, mut blocks) = (false, 0usize);
    // The links in each open bracket around the current one, in the current one, and their sum.
    let (mut around, mut links, mut sum) = (Vec::new(), 0usize, 0usize);
    // The commas between a lambda's parameters end nothing.
    let mut lambda = false;
    loop {
        let kind = tokens.next_token();
        match kind {
            TokenKind::EndOfFile => break,
            TokenKind::Unknown => torn = true,
            TokenKind::Indent => blocks += 1,
            TokenKind::Dedent => blocks = blocks.saturating_sub(1),
            TokenKind::Newline => {
                around.clear();
                (links, sum, lambda) = (0, 0, false);
            }
            TokenKind::Lpar
            | TokenKind::Lsqb
            | TokenKind::Lbrace
            | TokenKind::FStringStart
            | TokenKind::TStringStart => {
                around.push(links + 1);
                (links, sum) = (0, sum + 1);
            }
            TokenKind::Rpar
            | TokenKind::Rsqb
            | TokenKind::Rbrace
            | TokenKind::FStringEnd
            | TokenKind::TStringEnd => {
                if let Some(outer) = around.pop() {
                    (links, sum) = (outer, sum - links);
                }
            }
            TokenKind::Comma if !around.is_empty() && !lambda => (links, sum) = (0, sum - links),
            TokenKind::Name
            | TokenKind::Int
            | TokenKind::Float
            | TokenKind::String
            | TokenKind::FStringMiddle
            | TokenKind::TStringMiddle
            | TokenKind::Comment
            | TokenKind::NonLogicalNewline
            | TokenKind::Comma
            | TokenKind::Equal => {}
            _ => (links, sum) = (links + 1, sum + 1),
        }
        lambda |= kind == TokenKind::Lambda;
        if sum + blocks > MAX_NESTING {
            return Outline::Deep;
        }
    }
    if torn { Outline::Torn } else { Outline::Shallow }
}

/// The bracket that is never closed, or closes nothing.
fn bracket(tokens: &Tokens, text: &str, lines: &Lines) -> Option<Fault> {
    let mut open = Vec::new();
    for token in tokens {
        let line = lines.line(token.start());
        let shown = &text[token.range()];
        let opens = match token.kind() {
            TokenKind::Lpar | TokenKind::Lsqb | TokenKind::Lbrace => {
                open.push((token.kind(), line, shown));
                continue;
            }
            TokenKind::Rpar => TokenKind::Lpar,
            TokenKind::Rsqb => TokenKind::Lsqb,
            TokenKind::Rbrace => TokenKind::Lbrace,
            _ => continue,
        };
        match open.pop() {
            None => return Some((line, format!("this `{shown}` closes no bracket"))),
            Some((kind, opened, bracket)) if kind != opens => {
                return Some((
                    line,
                    format!("this `{shown}` does not close the `{bracket}` of line {opened}"),
                ));
            }
            Some(_) => {}
        }
    }
    let (_, line, bracket) = open.first()?;
    Some((*line, format!("this `{bracket}` is never closed")))
}

/// An error of the parser for those who do not know its words.
fn explain(error: &ParseError) -> String {
    match &error.error {
        ParseErrorType::ExpectedToken { expected, found } => {
            format!("expected {}, found {}", token(*expected), token(*found))
        }
        ParseErrorType::Lexical(
            LexicalErrorType::UnclosedStringError | LexicalErrorType::StringError,
        ) => "a string that does not end".into(),
        ParseErrorType::Lexical(LexicalErrorType::UnicodeError) => {
            "an escape in this string is not complete".into()
        }
        ParseErrorType::Lexical(LexicalErrorType::UnrecognizedToken { tok }) => {
            format!("`{tok}` has no meaning here")
        }
        ParseErrorType::Lexical(LexicalErrorType::Eof) => "the file ends too early".into(),
        ParseErrorType::UnexpectedIndentation => {
            "this line is indented, but belongs to no block".into()
        }
        ParseErrorType::ExpectedExpression => "expected a value here".into(),
        ParseErrorType::InvalidAssignmentTarget => "this cannot be assigned to".into(),
        ParseErrorType::SimpleStatementsOnSameLine => "expected the end of the line here".into(),
        other => {
            let text = other.to_string();
            let mut characters = text.chars();
            let first = characters.next().map(|it| it.to_lowercase().to_string());
            format!("{}{}", first.unwrap_or_default(), characters.as_str())
        }
    }
}

fn token(kind: TokenKind) -> String {
    match kind {
        TokenKind::Newline | TokenKind::NonLogicalNewline => "the end of the line".into(),
        TokenKind::EndOfFile => "the end of the file".into(),
        TokenKind::Indent => "an indented block".into(),
        TokenKind::Dedent => "the end of the block".into(),
        TokenKind::Name => "a name".into(),
        TokenKind::Int | TokenKind::Float | TokenKind::Complex => "a number".into(),
        TokenKind::String | TokenKind::FStringStart => "a string".into(),
        TokenKind::FStringMiddle | TokenKind::FStringEnd => "the rest of an f-string".into(),
        TokenKind::Unknown => "a character without meaning".into(),
        other => other.to_string(),
    }
}
