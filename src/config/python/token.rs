//! Python text to tokens with lines: what config files are made of, and nothing else.

/// A piece of a program.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Name(String),
    Int(i64),
    Float(f64),
    Text(String),
    /// The inside of an f-string, its braces not yet read.
    Format(String),
    Operator(&'static str),
    Newline,
}

/// A fault of the text, with its line.
pub(super) type Fault = (usize, String);

/// Longer ones first, so that `//` is not two `/`.
const OPERATORS: [&str; 24] = [
    "**", "//", "+=", "==", "<=", ">=", "!=", "(", ")", "[", "]", "{", "}", ",", ":", ".", "=", "+", "-", "*", "/", "%", "<", ">",
];

/// Takes a program apart. Line ends inside brackets are dropped.
pub(super) fn tokenize(text: &str) -> Result<Vec<(Token, usize)>, Fault> {
    let mut tokens = Vec::new();
    let (mut rest, mut line, mut depth) = (text.trim_start_matches('\u{feff}'), 1, 0usize);
    let mut fresh = true;
    while let Some(first) = rest.chars().next() {
        let mut length = first.len_utf8();
        match first {
            '\n' | ';' => {
                if depth == 0 {
                    tokens.push((Token::Newline, line));
                    fresh = first == '\n';
                }
                line += usize::from(first == '\n');
            }
            '\\' if rest[1..].trim_start_matches('\r').starts_with('\n') => {
                length = rest.find('\n').map_or(rest.len(), |end| end + 1);
                line += 1;
            }
            '#' => length = rest.find('\n').unwrap_or(rest.len()),
            ' ' | '\t' | '\r' | '\x0c' => {
                length = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\x0c']).len();
                if fresh && !matches!(rest[length..].chars().next(), None | Some('\n' | '#')) {
                    return Err((line, "an indented block is not understood: Python configs are read, never run".into()));
                }
            }
            _ => {
                let (token, taken) = token(rest, line)?;
                match token {
                    Token::Operator("(" | "[" | "{") => depth += 1,
                    Token::Operator(")" | "]" | "}") => depth = depth.saturating_sub(1),
                    _ => {}
                }
                tokens.push((token, line));
                line += rest[..taken].matches('\n').count();
                length = taken;
                fresh = false;
            }
        }
        rest = &rest[length..];
    }
    tokens.push((Token::Newline, line));
    Ok(tokens)
}

/// The token at the start of a text, and its length.
fn token(rest: &str, line: usize) -> Result<(Token, usize), Fault> {
    let word = rest.find(|it: char| !it.is_alphanumeric() && it != '_').unwrap_or(rest.len());
    let prefix = &rest[..word];
    if rest[word..].starts_with(['"', '\'']) && prefix.chars().all(|it| "rRbBuUfF".contains(it)) {
        return string(rest, prefix, line);
    }
    let starts_number = rest.starts_with(|it: char| it.is_ascii_digit())
        || (rest.starts_with('.') && rest[1..].starts_with(|it: char| it.is_ascii_digit()));
    if starts_number {
        return number(rest, line);
    }
    if word > 0 {
        return Ok((Token::Name(prefix.to_owned()), word));
    }
    match OPERATORS.iter().find(|it| rest.starts_with(**it)) {
        Some(operator) => Ok((Token::Operator(operator), operator.len())),
        None => Err((line, format!("unexpected `{}`", rest.chars().next().unwrap_or(' ')))),
    }
}

fn number(rest: &str, line: usize) -> Result<(Token, usize), Fault> {
    let mut end = 0;
    let bytes = rest.as_bytes();
    while let Some(&byte) = bytes.get(end) {
        let sign = matches!(byte, b'+' | b'-') && matches!(bytes[end - 1], b'e' | b'E') && !rest.starts_with("0x");
        if !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') || sign) {
            break;
        }
        end += 1;
    }
    let text = rest[..end].replace('_', "");
    let token = match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok().map(Token::Int),
        None => text.parse().ok().map(Token::Int).or_else(|| text.parse().ok().map(Token::Float)),
    };
    token.map(|it| (it, end)).ok_or_else(|| (line, format!("`{}` is not a number", &rest[..end])))
}

fn string(rest: &str, prefix: &str, line: usize) -> Result<(Token, usize), Fault> {
    let body = &rest[prefix.len()..];
    let quote = if body.starts_with("\"\"\"") || body.starts_with("'''") { &body[..3] } else { &body[..1] };
    let raw = prefix.contains(['r', 'R']);
    let mut text = String::new();
    let mut characters = body[quote.len()..].char_indices();
    let open = || (line, "a string that does not end".to_owned());
    while let Some((index, character)) = characters.next() {
        if body[quote.len() + index..].starts_with(quote) {
            let length = prefix.len() + quote.len() + index + quote.len();
            let token = if prefix.contains(['f', 'F']) { Token::Format(text) } else { Token::Text(text) };
            return Ok((token, length));
        }
        match character {
            '\n' if quote.len() == 1 => return Err(open()),
            '\\' => {
                let (_, escaped) = characters.next().ok_or_else(open)?;
                match escaped {
                    _ if raw => text.extend(['\\', escaped]),
                    '\n' => {}
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    '\\' | '\'' | '"' => text.push(escaped),
                    'x' | 'u' | 'U' | 'N' | 'a' | 'b' | 'f' | 'v' | '0'..='7' => {
                        return Err((line, format!("the escape `\\{escaped}` is not understood here: write the character")));
                    }
                    _ => text.extend(['\\', escaped]),
                }
            }
            _ => text.push(character),
        }
    }
    Err(open())
}
