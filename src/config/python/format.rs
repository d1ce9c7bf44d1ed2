//! How Python writes values: `str`, `repr`, f-strings' specifications, `format` and `%`.

use super::heap::{Heap, Key, Kind, Number, Object, Outcome, level, number};

/// Wider fields are a mistake.
const MAX_WIDTH: usize = 10_000;

/// A float's shortest text that is read back as the same number.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.into();
    }
    let exponential = format!("{value:e}");
    let (digits, exponent) = exponential.split_once('e').unwrap_or((&exponential, "0"));
    match exponent.parse::<i32>() {
        Ok(power @ -4..16) => {
            let plain = if power < 0 { format!("{value}") } else { format!("{value:?}") };
            if plain.contains('.') { plain } else { format!("{plain}.0") }
        }
        Ok(power) => format!("{digits}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs()),
        Err(_) => exponential,
    }
}

/// `str(object)`.
pub(super) fn text(heap: &mut Heap, object: &Object) -> Outcome<String> {
    match object {
        Object::Text(text) => {
            heap.spend(text.len() / 32)?;
            Ok(text.to_string())
        }
        other => repr(heap, other),
    }
}

/// `repr(object)`.
pub(super) fn repr(heap: &mut Heap, object: &Object) -> Outcome<String> {
    let mut out = String::new();
    write(heap, object, 0, &mut out)?;
    Ok(out)
}

fn write(heap: &mut Heap, object: &Object, depth: usize, out: &mut String) -> Outcome<()> {
    level(depth)?;
    heap.spend(1)?;
    match object {
        Object::None => out.push_str("None"),
        Object::Bool(value) => out.push_str(if *value { "True" } else { "False" }),
        Object::Int(value) => out.push_str(&value.to_string()),
        Object::Float(value) => out.push_str(&float(*value)),
        Object::Text(text) => {
            heap.spend(text.len() / 32)?;
            quote(text, out);
        }
        Object::Sequence(kind @ (Kind::List | Kind::Tuple), id) => {
            let items = heap.items(*id).clone();
            out.push(if *kind == Kind::List { '[' } else { '(' });
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write(heap, &item.object, depth + 1, out)?;
            }
            out.push_str(match kind {
                Kind::List => "]",
                _ if items.len() == 1 => ",)",
                _ => ")",
            });
        }
        Object::Dict(id) => {
            let items = heap.entries(*id).items.clone();
            out.push('{');
            for (index, (key, item)) in items.into_iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_key(key, out);
                out.push_str(": ");
                write(heap, &item.object, depth + 1, out)?;
            }
            out.push('}');
        }
        other => return Err(format!("{} has no text in a config", heap.describe(other))),
    }
    Ok(())
}

fn write_key(key: Key, out: &mut String) {
    match key {
        Key::None => out.push_str("None"),
        Key::Bool(value) => out.push_str(if value { "True" } else { "False" }),
        Key::Int(value) => out.push_str(&value.to_string()),
        Key::Float(bits) => out.push_str(&float(f64::from_bits(bits))),
        Key::Text(text) => quote(&text, out),
        Key::Tuple(keys) => {
            let one = keys.len() == 1;
            out.push('(');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_key(key, out);
            }
            out.push_str(if one { ",)" } else { ")" });
        }
    }
}

fn quote(text: &str, out: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            it if it == mark => out.extend(['\\', it]),
            it if it.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(it))),
            it => out.push(it),
        }
    }
    out.push(mark);
}

/// `[[fill]align][sign][#][0][width][grouping][.precision][type]`.
#[derive(Debug, Clone, Default)]
pub(super) struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

impl Spec {
    fn parse(text: &str) -> Outcome<Self> {
        let wrong = || format!("`{text}` is no format specification");
        let mut spec = Self::default();
        let characters: Vec<char> = text.chars().collect();
        let mut at = 0;
        let is_align = |it: Option<&char>| it.is_some_and(|it| "<>=^".contains(*it));
        if is_align(characters.get(1)) {
            (spec.fill, spec.align) = (characters.first().copied(), characters.get(1).copied());
            at = 2;
        } else if is_align(characters.first()) {
            spec.align = characters.first().copied();
            at = 1;
        }
        let mut take = |wanted: &str| {
            let found = characters.get(at).copied().filter(|it| wanted.contains(*it));
            at += usize::from(found.is_some());
            found
        };
        spec.sign = take("+- ");
        spec.alternate = take("#").is_some();
        spec.zero = take("0").is_some();
        let whole = |take: &mut dyn FnMut(&str) -> Option<char>| {
            let mut digits = String::new();
            while let Some(digit) = take("0123456789") {
                digits.push(digit);
            }
            if digits.is_empty() {
                return Ok(None);
            }
            digits
                .parse::<usize>()
                .ok()
                .filter(|it| *it <= MAX_WIDTH)
                .map(Some)
                .ok_or_else(|| format!("a field of {digits} characters is too wide"))
        };
        spec.width = whole(&mut take)?.unwrap_or(0);
        spec.grouping = take(",_");
        if take(".").is_some() {
            spec.precision = Some(whole(&mut take)?.ok_or_else(wrong)?);
        }
        spec.kind = take("bcdeEfFgGnosxX%");
        if at < characters.len() {
            return Err(wrong());
        }
        Ok(spec)
    }

    fn pad(&self, body: &str, default: char) -> String {
        let missing = self.width.saturating_sub(body.chars().count());
        let fill = |count: usize| self.fill.unwrap_or(' ').to_string().repeat(count);
        match self.align.unwrap_or(default) {
            '<' => format!("{body}{}", fill(missing)),
            '^' => format!("{}{body}{}", fill(missing / 2), fill(missing - missing / 2)),
            _ => format!("{}{body}", fill(missing)),
        }
    }

    /// A number's sign, prefix and digits, in its field.
    fn field(&self, negative: bool, prefix: &str, digits: &str, group: usize) -> String {
        let sign = match (negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            _ => "",
        };
        let end = digits
            .find(|it: char| !it.is_ascii_alphanumeric() || (group == 3 && !it.is_ascii_digit()))
            .unwrap_or(digits.len());
        let (whole, rest) = digits.split_at(end);
        let fill = self.fill.or(self.zero.then_some('0'));
        let inside = self.align == Some('=') || (self.align.is_none() && self.zero);
        let room = self.width.saturating_sub(sign.len() + prefix.len() + rest.len());
        let mut whole = whole.to_owned();
        if let Some(mark) = self.grouping {
            let zeros = inside && fill == Some('0');
            let mut grouped = grouped(&whole, mark, group);
            while zeros && grouped.len() < room {
                whole.insert(0, '0');
                grouped = self::grouped(&whole, mark, group);
            }
            whole = grouped;
        }
        if inside {
            let missing = room.saturating_sub(whole.len());
            return format!(
                "{sign}{prefix}{}{whole}{rest}",
                fill.unwrap_or(' ').to_string().repeat(missing)
            );
        }
        self.pad(&format!("{sign}{prefix}{whole}{rest}"), '>')
    }
}

fn grouped(digits: &str, mark: char, group: usize) -> String {
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(group) {
            out.push(mark);
        }
        out.push(digit);
    }
    out
}

/// `format(object, spec)`.
pub(super) fn format(heap: &mut Heap, object: &Object, spec: &str) -> Outcome<String> {
    if spec.is_empty() {
        return text(heap, object);
    }
    let parsed = Spec::parse(spec)?;
    heap.spend(parsed.width / 32)?;
    apply(heap, object, &parsed)?
        .ok_or_else(|| format!("the format `{spec}` does not fit {}", heap.describe(object)))
}

fn apply(heap: &mut Heap, object: &Object, spec: &Spec) -> Outcome<Option<String>> {
    if let Object::Text(text) = object {
        if !matches!(spec.kind, None | Some('s'))
            || spec.sign.is_some()
            || spec.grouping.is_some()
            || spec.align == Some('=')
        {
            return Ok(None);
        }
        let cut: String = text.chars().take(spec.precision.unwrap_or(usize::MAX)).collect();
        let zero = Spec { fill: spec.fill.or(spec.zero.then_some('0')), ..spec.clone() };
        return Ok(Some(zero.pad(&cut, '<')));
    }
    let Some(value) = number(object) else { return Ok(None) };
    if let (Object::Bool(_), None) = (object, spec.kind) {
        let name = text(heap, object)?;
        return apply(heap, &Object::Text(name.into()), &Spec { kind: None, ..spec.clone() });
    }
    Ok(match (value, spec.kind) {
        (Number::Int(value), None | Some('d' | 'n' | 'b' | 'o' | 'x' | 'X' | 'c'))
            if spec.precision.is_none() =>
        {
            integer(value, spec)
        }
        (Number::Int(_), Some('b' | 'c' | 'd' | 'n' | 'o' | 'x' | 'X' | 's'))
        | (Number::Float(_), Some('b' | 'c' | 'd' | 'o' | 'x' | 'X' | 's')) => None,
        (value, _) => Some(real(value.float(), spec)),
    })
}

fn integer(value: i64, spec: &Spec) -> Option<String> {
    let size = value.unsigned_abs();
    let (prefix, digits, group) = match spec.kind {
        Some('b') => ("0b", format!("{size:b}"), 4),
        Some('o') => ("0o", format!("{size:o}"), 4),
        Some('x') => ("0x", format!("{size:x}"), 4),
        Some('X') => ("0X", format!("{size:X}"), 4),
        Some('c') => {
            return Some(spec.pad(&char::from_u32(u32::try_from(value).ok()?)?.to_string(), '<'));
        }
        _ => ("", size.to_string(), 3),
    };
    if group == 4 && spec.grouping == Some(',') {
        return None;
    }
    Some(spec.field(value < 0, if spec.alternate { prefix } else { "" }, &digits, group))
}

fn real(value: f64, spec: &Spec) -> String {
    let size = value.abs();
    let digits = if value.is_finite() {
        match spec.kind {
            Some('e' | 'E') => exponential(size, spec.precision.unwrap_or(6)),
            Some('f' | 'F') => format!("{size:.*}", spec.precision.unwrap_or(6)),
            Some('%') => format!("{:.*}%", spec.precision.unwrap_or(6), size * 100.0),
            Some(_) => general(size, spec.precision.unwrap_or(6), spec.alternate, false),
            None => match spec.precision {
                Some(precision) => general(size, precision, spec.alternate, true),
                None => float(size),
            },
        }
    } else {
        let name = if value.is_nan() { "nan" } else { "inf" };
        if matches!(spec.kind, Some('E' | 'F' | 'G')) { name.to_uppercase() } else { name.into() }
    };
    let digits = if matches!(spec.kind, Some('E' | 'G')) { digits.to_uppercase() } else { digits };
    spec.field(value.is_sign_negative() && !value.is_nan(), "", &digits, 3)
}

fn exponential(size: f64, precision: usize) -> String {
    let text = format!("{size:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs())
}

/// As many digits as `precision` says, with an exponent where the number is far from one. `point`:
/// a float without a type letter keeps its point.
fn general(size: f64, precision: usize, alternate: bool, point: bool) -> String {
    let precision = precision.max(1);
    let text = format!("{size:.*e}", precision - 1);
    let power: i32 = text.split_once('e').and_then(|(_, it)| it.parse().ok()).unwrap_or(0);
    let limit = precision as i32 - i32::from(point);
    let trim = |digits: &str| {
        if alternate || !digits.contains('.') {
            digits.to_owned()
        } else {
            digits.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    };
    if power < -4 || power >= limit {
        let exponential = exponential(size, precision - 1);
        let (digits, exponent) = exponential.split_once('e').unwrap_or((&exponential, "+00"));
        return format!("{}e{exponent}", trim(digits));
    }
    let plain = trim(&format!("{size:.*}", (precision as i32 - 1 - power).max(0) as usize));
    if point && !plain.contains('.') { format!("{plain}.0") } else { plain }
}

/// `template % values`.
pub(super) fn percent(heap: &mut Heap, template: &str, values: &Object) -> Outcome<String> {
    let mut given: Vec<Object> = match values {
        Object::Sequence(Kind::Tuple | Kind::Either, id) => {
            heap.items(*id).iter().map(|it| it.object.clone()).collect()
        }
        other => vec![other.clone()],
    };
    given.reverse();
    let named = matches!(values, Object::Dict(_));
    let mut used_names = false;
    let mut out = String::new();
    let mut characters = template.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let mut name = None;
        if characters.next_if_eq(&'(').is_some() {
            name = Some(characters.by_ref().take_while(|it| *it != ')').collect::<String>());
        }
        let mut spec = Spec::default();
        let mut left = false;
        while let Some(flag) = characters.next_if(|it| "-+ #0".contains(*it)) {
            match flag {
                '-' => left = true,
                '#' => spec.alternate = true,
                '0' => spec.zero = true,
                other => spec.sign = Some(other),
            }
        }
        let mut whole =
            |characters: &mut std::iter::Peekable<std::str::Chars<'_>>| -> Outcome<usize> {
                if characters.next_if_eq(&'*').is_some() {
                    return match given.pop() {
                        Some(Object::Int(value)) if (0..=MAX_WIDTH as i64).contains(&value) => {
                            Ok(value as usize)
                        }
                        _ => {
                            Err("`*` in a `%` format expects a number that is not too large".into())
                        }
                    };
                }
                let mut digits = String::new();
                while let Some(digit) = characters.next_if(char::is_ascii_digit) {
                    digits.push(digit);
                }
                let width = if digits.is_empty() {
                    Some(0)
                } else {
                    digits.parse().ok().filter(|it| *it <= MAX_WIDTH)
                };
                width.ok_or_else(|| format!("a field of {digits} characters is too wide"))
            };
        spec.width = whole(&mut characters)?;
        if characters.next_if_eq(&'.').is_some() {
            spec.precision = Some(whole(&mut characters)?);
        }
        let Some(kind) = characters.next() else {
            return Err("a `%` format ends after its `%`".into());
        };
        if kind == '%' {
            out.push('%');
            continue;
        }
        heap.spend(1 + spec.width / 32)?;
        let value = match name {
            Some(name) => {
                used_names = true;
                let Object::Dict(id) = values else {
                    return Err("`%(name)…` expects a dict".into());
                };
                let found = heap
                    .entries(*id)
                    .items
                    .get(&Key::Text(name.as_str().into()))
                    .map(|it| it.object.clone());
                found.ok_or_else(|| format!("there is no `{name}` in the dict after `%`"))?
            }
            None => given.pop().ok_or("there are fewer values than `%` formats")?,
        };
        if left {
            (spec.align, spec.zero) = (Some('<'), false);
        }
        let formatted = match kind {
            's' | 'r' => {
                let shown = if kind == 's' { text(heap, &value)? } else { repr(heap, &value)? };
                let plain = Spec {
                    kind: None,
                    sign: None,
                    zero: false,
                    align: spec.align.or(Some('>')),
                    ..spec
                };
                apply(heap, &Object::Text(shown.into()), &plain)?
            }
            'd' | 'i' | 'u' => match number(&value) {
                Some(Number::Int(value)) => integer(value, &spec),
                Some(Number::Float(value)) if value.abs() < 9e18 => integer(value as i64, &spec),
                _ => None,
            },
            'x' | 'X' | 'o' | 'c' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                apply(heap, &value, &Spec { kind: Some(kind), ..spec })?
            }
            other => return Err(format!("`%{other}` is no format")),
        };
        out.push_str(
            &formatted
                .ok_or_else(|| format!("`%{kind}` does not fit {}", heap.describe(&value)))?,
        );
    }
    if !given.is_empty() && !used_names && !named {
        return Err("there are more values than `%` formats".into());
    }
    Ok(out)
}

/// A piece of a template of `str.format`.
pub(super) enum Piece {
    Text(String),
    /// What stands before `!`, the letter behind it, and the specification.
    Field {
        name: String,
        conversion: Option<char>,
        spec: String,
    },
}

/// Takes a template of `str.format` apart.
pub(super) fn template(text: &str) -> Outcome<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '{' | '}' if characters.next_if_eq(&character).is_some() => literal.push(character),
            '{' => {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
                let (mut inside, mut depth) = (String::new(), 1);
                for character in characters.by_ref() {
                    match character {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                    inside.push(character);
                }
                if depth > 0 {
                    return Err("unbalanced braces in a format".into());
                }
                let (field, spec) = inside.split_once(':').unwrap_or((&inside, ""));
                let (name, conversion) = match field.split_once('!') {
                    Some((name, letter)) => (name, letter.chars().next()),
                    None => (field, None),
                };
                pieces.push(Piece::Field {
                    name: name.to_owned(),
                    conversion,
                    spec: spec.to_owned(),
                });
            }
            '}' => return Err("unbalanced braces in a format".into()),
            it => literal.push(it),
        }
    }
    pieces.push(Piece::Text(literal));
    Ok(pieces)
}
