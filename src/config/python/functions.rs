//! Those of Python's own functions that a config may call.

use std::cmp::Ordering;

use indexmap::{IndexMap, IndexSet};
use ruff_python_ast::Operator;

use super::super::node::Origin;
use super::arguments::Arguments;
use super::format;
use super::heap::{Heap, Item, Key, Kind, Number, Object, Outcome, number};
use super::operators::binary;

const NAMES: [&str; 26] = [
    "abs",
    "all",
    "any",
    "bool",
    "dict",
    "divmod",
    "enumerate",
    "float",
    "format",
    "int",
    "len",
    "list",
    "map",
    "max",
    "min",
    "pow",
    "range",
    "repr",
    "reversed",
    "round",
    "set",
    "sorted",
    "str",
    "sum",
    "tuple",
    "zip",
];

/// The function of this name.
pub(super) fn find(name: &str) -> Option<Object> {
    NAMES.iter().find(|it| **it == name).map(|it| Object::Function(it))
}

#[expect(clippy::too_many_lines, reason = "one arm a function of Python")]
pub(super) fn call(
    heap: &mut Heap,
    name: &'static str,
    arguments: Arguments,
    here: &Origin,
) -> Outcome<Object> {
    let wrong =
        |heap: &Heap, object: &Object| format!("`{name}` does not take {}", heap.describe(object));
    match name {
        "dict" => dict(heap, arguments, here),
        "list" | "tuple" | "set" => {
            let [of] = arguments.bind(name, ["iterable"], 0)?;
            let items = of.map(|it| heap.iterate(&it, here)).transpose()?.unwrap_or_default();
            match name {
                "set" => {
                    let keys = items
                        .iter()
                        .map(|it| heap.key(&it.object))
                        .collect::<Outcome<IndexSet<_>>>()?;
                    heap.set(keys)
                }
                "list" => heap.sequence(Kind::List, items),
                _ => heap.sequence(Kind::Tuple, items),
            }
        }
        "len" => {
            let [Some(of)] = arguments.bind(name, ["obj"], 1)? else { return Ok(Object::None) };
            Ok(Object::Int(match &of {
                Object::Text(text) => text.chars().count(),
                Object::Sequence(kind, id) if *kind != Kind::Stream => heap.items(*id).len(),
                Object::Dict(id) => heap.entries(*id).items.len(),
                Object::Set(id) => heap.keys(*id).len(),
                other => return Err(wrong(heap, other)),
            } as i64))
        }
        "bool" => {
            let [of] = arguments.bind(name, ["object"], 0)?;
            Ok(Object::Bool(of.is_some_and(|it| heap.truth(&it))))
        }
        "int" => {
            let [of, base] = arguments.bind(name, ["x", "base"], 0)?;
            integer(heap, of.as_ref().unwrap_or(&Object::Int(0)), base.as_ref())
        }
        "float" => {
            let [of] = arguments.bind(name, ["x"], 0)?;
            let of = of.unwrap_or(Object::Float(0.0));
            let parsed = match &of {
                Object::Text(text) => digits(text.trim()).and_then(|it| it.parse().ok()),
                other => number(other).map(Number::float),
            };
            parsed.map(Object::Float).ok_or_else(|| wrong(heap, &of))
        }
        "str" | "repr" => {
            let [of] = arguments.bind(name, ["object"], 0)?;
            let text = match of {
                None => String::new(),
                Some(of) if name == "str" => format::text(heap, &of)?,
                Some(of) => format::repr(heap, &of)?,
            };
            heap.text(text)
        }
        "format" => {
            let [of, spec] = arguments.bind(name, ["value", "format_spec"], 1)?;
            let spec = match spec {
                None => String::new(),
                Some(Object::Text(text)) => text.to_string(),
                Some(other) => return Err(wrong(heap, &other)),
            };
            let text = format::format(heap, &of.unwrap_or(Object::None), &spec)?;
            heap.text(text)
        }
        "abs" => {
            let [of] = arguments.bind(name, ["x"], 1)?;
            let of = of.unwrap_or(Object::None);
            let size = match number(&of) {
                Some(Number::Int(value)) => value.checked_abs().map(Object::Int),
                Some(Number::Float(value)) => Some(Object::Float(value.abs())),
                None => None,
            };
            size.ok_or_else(|| wrong(heap, &of))
        }
        "round" => {
            let [of, digits] = arguments.bind(name, ["number", "ndigits"], 1)?;
            round(heap, &of.unwrap_or(Object::None), digits.as_ref())
        }
        "pow" | "divmod" => {
            let [left, right] = arguments.bind(name, ["base", "exp"], 2)?;
            let (left, right) = (left.unwrap_or(Object::None), right.unwrap_or(Object::None));
            if name == "pow" {
                return binary(heap, Operator::Pow, &left, &right);
            }
            let quotient = binary(heap, Operator::FloorDiv, &left, &right)?;
            let rest = binary(heap, Operator::Mod, &left, &right)?;
            heap.sequence(Kind::Tuple, vec![Item::new(quotient, here), Item::new(rest, here)])
        }
        "all" | "any" => {
            let [of] = arguments.bind(name, ["iterable"], 1)?;
            let items = heap.iterate(&of.unwrap_or(Object::None), here)?;
            let mut truths = items.iter().map(|it| heap.truth(&it.object));
            Ok(Object::Bool(if name == "all" { truths.all(|it| it) } else { truths.any(|it| it) }))
        }
        "sum" => {
            let [of, start] = arguments.bind(name, ["iterable", "start"], 1)?;
            let start = start.unwrap_or(Object::Int(0));
            if matches!(start, Object::Text(_)) {
                return Err("`sum` of strings; write `''.join(…)`".into());
            }
            let items = heap.iterate(&of.unwrap_or(Object::None), here)?;
            sum(heap, start, &items)
        }
        "max" | "min" => {
            let (given, [key, default]) = arguments.split(name, ["key", "default"])?;
            let items = match &given[..] {
                [] => return Err(format!("`{name}` lacks its value")),
                [one] => heap.iterate(&one.object.clone(), here)?,
                _ => given,
            };
            let wanted = if name == "max" { Ordering::Greater } else { Ordering::Less };
            let mut best: Option<(Object, Object)> = None;
            for item in items {
                let rank = ranked(heap, key.as_ref(), &item, here)?;
                let better = match &best {
                    None => true,
                    Some((_, top)) => heap.order(&rank, top)? == wanted,
                };
                if better {
                    best = Some((item.object, rank));
                }
            }
            best.map(|(it, _)| it).or(default).ok_or_else(|| format!("`{name}` of an empty list"))
        }
        "sorted" => {
            let (given, [key, reverse]) = arguments.split(name, ["key", "reverse"])?;
            let [of] =
                Arguments { positional: given, named: Vec::new() }.bind(name, ["iterable"], 1)?;
            let items = heap.iterate(&of.unwrap_or(Object::None), here)?;
            let items = sorted(heap, items, key.as_ref(), reverse.as_ref(), here)?;
            heap.sequence(Kind::List, items)
        }
        "reversed" => {
            let [of] = arguments.bind(name, ["sequence"], 1)?;
            let mut items = heap.iterate(&of.unwrap_or(Object::None), here)?;
            items.reverse();
            heap.sequence(Kind::Stream, items)
        }
        "enumerate" => {
            let [of, start] = arguments.bind(name, ["iterable", "start"], 1)?;
            let Some(Number::Int(start)) = start.as_ref().map_or(Some(Number::Int(0)), number)
            else {
                return Err("`enumerate` starts at a whole number".into());
            };
            let items = heap.iterate(&of.unwrap_or(Object::None), here)?;
            let pairs = items.into_iter().zip(start..).map(|(item, at)| {
                let pair =
                    heap.sequence(Kind::Tuple, vec![Item::new(Object::Int(at), here), item])?;
                Ok(Item::new(pair, here))
            });
            let pairs = pairs.collect::<Outcome<_>>()?;
            heap.sequence(Kind::Stream, pairs)
        }
        "zip" => {
            let (given, [strict]) = arguments.split(name, ["strict"])?;
            let columns = given
                .iter()
                .map(|it| heap.iterate(&it.object, here))
                .collect::<Outcome<Vec<_>>>()?;
            let length = columns.iter().map(Vec::len).min().unwrap_or(0);
            if strict.is_some_and(|it| heap.truth(&it))
                && columns.iter().any(|it| it.len() != length)
            {
                return Err("`zip` of lists of different lengths".into());
            }
            let mut rows = Vec::new();
            for at in 0..length {
                let row = columns.iter().map(|it| it[at].clone()).collect();
                rows.push(Item::new(heap.sequence(Kind::Tuple, row)?, here));
            }
            heap.sequence(Kind::Stream, rows)
        }
        "map" => {
            let (given, []) = arguments.split(name, [])?;
            let Some((function, lists)) = given.split_first() else {
                return Err("`map` lacks its function".into());
            };
            let Object::Function(function) = function.object else {
                return Err(wrong(heap, &function.object));
            };
            let columns = lists
                .iter()
                .map(|it| heap.iterate(&it.object, here))
                .collect::<Outcome<Vec<_>>>()?;
            let mut results = Vec::new();
            for at in 0..columns.iter().map(Vec::len).min().unwrap_or(0) {
                heap.spend(10)?;
                let positional = columns.iter().map(|it| it[at].clone()).collect();
                results.push(Item::new(
                    call(heap, function, Arguments { positional, named: Vec::new() }, here)?,
                    here,
                ));
            }
            heap.sequence(Kind::Stream, results)
        }
        "range" => {
            let (given, []) = arguments.split(name, [])?;
            let bounds = given.iter().map(|it| match number(&it.object) {
                Some(Number::Int(value)) => Ok(value),
                _ => Err(wrong(heap, &it.object)),
            });
            let (start, end, step) = match bounds.collect::<Outcome<Vec<_>>>()?[..] {
                [end] => (0, end, 1),
                [start, end] => (start, end, 1),
                [start, end, step] if step != 0 => (start, end, step),
                [_, _, _] => return Err("the step of `range` cannot be 0".into()),
                _ => return Err("`range` takes one to three values".into()),
            };
            let mut items = Vec::new();
            let mut at = start;
            while if step > 0 { at < end } else { at > end } {
                heap.spend(1).map_err(|_| "this range is too long for a config")?;
                items.push(Item::new(Object::Int(at), here));
                at = at.saturating_add(step);
            }
            heap.sequence(Kind::View, items)
        }
        _ => Err(format!("`{name}(…)` is not understood: Python configs are read, never run")),
    }
}

fn dict(heap: &mut Heap, arguments: Arguments, here: &Origin) -> Outcome<Object> {
    let mut positional = arguments.positional.into_iter();
    let mut items = match positional.next() {
        None => IndexMap::new(),
        Some(Item { object: Object::Dict(id), .. }) => heap.entries(id).items.clone(),
        Some(other) => pairs(heap, &other.object, here)?,
    };
    if positional.next().is_some() {
        return Err("`dict` takes one value at most, and names".into());
    }
    items.extend(arguments.named.into_iter().map(|(name, item)| (Key::Text(name.into()), item)));
    heap.dict(items)
}

/// The entries that a list of pairs gives.
pub(super) fn pairs(heap: &mut Heap, of: &Object, here: &Origin) -> Outcome<IndexMap<Key, Item>> {
    let mut entries = IndexMap::new();
    for pair in heap.iterate(of, here)? {
        match &heap.iterate(&pair.object, here)?[..] {
            [key, value] => {
                let key = heap.key(&key.object)?;
                entries.insert(key, value.clone());
            }
            _ => return Err("a dict is made from pairs of a key and a value".into()),
        }
    }
    Ok(entries)
}

/// The values in order; what is alike stays as it was.
pub(super) fn sorted(
    heap: &mut Heap,
    items: Vec<Item>,
    key: Option<&Object>,
    reverse: Option<&Object>,
    here: &Origin,
) -> Outcome<Vec<Item>> {
    let descending = reverse.is_some_and(|it| heap.truth(it));
    let mut pairs = Vec::with_capacity(items.len());
    for item in items {
        pairs.push((ranked(heap, key, &item, here)?, item));
    }
    Ok(merge_sort(heap, pairs, descending)?.into_iter().map(|(_, it)| it).collect())
}

/// The standard library's sort panics where values have no order between them; this one stops.
fn merge_sort(
    heap: &mut Heap,
    mut left: Vec<(Object, Item)>,
    descending: bool,
) -> Outcome<Vec<(Object, Item)>> {
    if left.len() < 2 {
        return Ok(left);
    }
    let right = left.split_off(left.len() / 2);
    let (left, right) = (merge_sort(heap, left, descending)?, merge_sort(heap, right, descending)?);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some((one, _)), Some((other, _))) = (left.peek(), right.peek()) {
        let order = heap.order(other, one)?;
        let other_first = order == if descending { Ordering::Greater } else { Ordering::Less };
        merged.extend(if other_first { right.next() } else { left.next() });
    }
    merged.extend(left.chain(right));
    Ok(merged)
}

fn ranked(heap: &mut Heap, key: Option<&Object>, item: &Item, here: &Origin) -> Outcome<Object> {
    match key {
        None | Some(Object::None) => Ok(item.object.clone()),
        Some(Object::Function(name)) => {
            heap.spend(10)?;
            call(heap, name, Arguments { positional: vec![item.clone()], named: Vec::new() }, here)
        }
        Some(other) => Err(format!("`key` expects a function, found {}", heap.describe(other))),
    }
}

fn sum(heap: &mut Heap, start: Object, items: &[Item]) -> Outcome<Object> {
    let mut total = start;
    for item in items {
        total = binary(heap, Operator::Add, &total, &item.object)?;
    }
    Ok(total)
}

/// A number's text without its underscores, which stand between digits only.
fn digits(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digit =
        |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_alphanumeric);
    let placed = (0..bytes.len())
        .filter(|at| bytes[*at] == b'_')
        .all(|at| digit(at.checked_sub(1)) && digit(Some(at + 1)));
    placed.then(|| text.replace('_', ""))
}

fn integer(heap: &Heap, of: &Object, base: Option<&Object>) -> Outcome<Object> {
    let wrong = || format!("`int` does not take {}", heap.describe(of));
    let base = match base.map(number) {
        None => None,
        Some(Some(Number::Int(base))) if base == 0 || (2..=36).contains(&base) => Some(base as u32),
        Some(_) => return Err("the base of `int` is 0, or 2 to 36".into()),
    };
    let Object::Text(text) = of else {
        return match (number(of), base) {
            (Some(Number::Int(value)), None) => Ok(Object::Int(value)),
            (Some(Number::Float(value)), None) if value.abs() < 9.2e18 => {
                Ok(Object::Int(value as i64))
            }
            _ => Err(wrong()),
        };
    };
    let trimmed = text.trim();
    let (sign, body) = match trimmed.strip_prefix('-') {
        Some(body) => ("-", body),
        None => ("", trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    let prefixed = |prefix: &str| {
        body.get(..2).filter(|it| it.eq_ignore_ascii_case(prefix)).map(|_| &body[2..])
    };
    let (radix, body) = match (base.unwrap_or(10), prefixed("0x"), prefixed("0o"), prefixed("0b")) {
        (0 | 16, Some(body), _, _) => (16, body),
        (0 | 8, _, Some(body), _) => (8, body),
        (0 | 2, _, _, Some(body)) => (2, body),
        (0, ..) => (10, body),
        (base, ..) => (base, body),
    };
    let plain = digits(body).filter(|it| it.starts_with(|it: char| it.is_ascii_alphanumeric()));
    let value = plain.and_then(|it| i64::from_str_radix(&format!("{sign}{it}"), radix).ok());
    value.map(Object::Int).ok_or_else(wrong)
}

/// Halves go to the even neighbour.
fn round(heap: &Heap, of: &Object, digits: Option<&Object>) -> Outcome<Object> {
    let wrong = || format!("`round` does not take {}", heap.describe(of));
    let digits = match digits {
        None | Some(Object::None) => None,
        Some(object) => match number(object) {
            Some(Number::Int(digits)) => Some(digits),
            _ => {
                return Err(format!(
                    "`round` takes a whole number of digits, found {}",
                    heap.describe(object)
                ));
            }
        },
    };
    match (number(of).ok_or_else(wrong)?, digits) {
        (Number::Int(value), None) => Ok(Object::Int(value)),
        (Number::Int(value), Some(digits)) if digits >= 0 => Ok(Object::Int(value)),
        (Number::Int(value), Some(digits)) => {
            let Some(unit) = u32::try_from(-digits).ok().and_then(|it| 10i64.checked_pow(it))
            else {
                return Ok(Object::Int(0));
            };
            let (quotient, rest) = (value.div_euclid(unit), value.rem_euclid(unit));
            let up = rest > unit - rest || (rest == unit - rest && quotient % 2 != 0);
            (quotient + i64::from(up)).checked_mul(unit).map(Object::Int).ok_or_else(wrong)
        }
        (Number::Float(value), None) => {
            let whole = value.round_ties_even();
            if whole.abs() < 9.2e18 { Ok(Object::Int(whole as i64)) } else { Err(wrong()) }
        }
        (Number::Float(value), Some(_)) if !value.is_finite() => Ok(Object::Float(value)),
        (Number::Float(value), Some(digits)) if digits > 330 => Ok(Object::Float(value)),
        (Number::Float(value), Some(digits)) if digits >= 0 => {
            format!("{value:.*}", digits as usize).parse().map(Object::Float).map_err(|_| wrong())
        }
        (Number::Float(value), Some(digits)) => {
            let unit = 10f64.powi((-digits).min(330) as i32);
            let rounded = if unit.is_finite() {
                (value / unit).round_ties_even() * unit
            } else {
                0f64.copysign(value)
            };
            Ok(Object::Float(rounded))
        }
    }
}
