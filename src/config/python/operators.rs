//! Python's operators: arithmetic, comparisons, items and slices.

use std::cmp::Ordering;

use indexmap::IndexSet;
use ruff_python_ast::{CmpOp, Operator, UnaryOp};

use super::super::error::nearest;
use super::super::node::Origin;
use super::format;
use super::heap::{Heap, Item, Key, Kind, Number, Object, Outcome, number};

pub(super) fn binary(
    heap: &mut Heap,
    operator: Operator,
    left: &Object,
    right: &Object,
) -> Outcome<Object> {
    let found = match (operator, left, right) {
        (Operator::Mod, Object::Text(template), values) => {
            let text = format::percent(heap, template, values)?;
            return heap.text(text);
        }
        (Operator::Add, Object::Text(one), Object::Text(other)) => {
            return heap.text(format!("{one}{other}"));
        }
        (Operator::Add, Object::Sequence(one, left), Object::Sequence(other, right)) => {
            match joined(*one, *other) {
                Some(kind) => {
                    let items =
                        heap.items(*left).iter().chain(heap.items(*right)).cloned().collect();
                    return heap.sequence(kind, items);
                }
                None => None,
            }
        }
        (Operator::Mult, sequence @ (Object::Sequence(..) | Object::Text(_)), times)
        | (Operator::Mult, times, sequence @ (Object::Sequence(..) | Object::Text(_))) => {
            match number(times) {
                Some(Number::Int(times)) => {
                    return repeat(heap, sequence, usize::try_from(times).unwrap_or(0));
                }
                _ => None,
            }
        }
        (Operator::BitOr, Object::Dict(left), Object::Dict(right)) => {
            let mut items = heap.entries(*left).items.clone();
            items.extend(heap.entries(*right).items.clone());
            return heap.dict(items);
        }
        (_, Object::Set(left), Object::Set(right)) => {
            let (left, right) = (heap.keys(*left), heap.keys(*right));
            let keys: Option<IndexSet<Key>> = match operator {
                Operator::BitOr => Some(left.union(right).cloned().collect()),
                Operator::BitAnd => Some(left.intersection(right).cloned().collect()),
                Operator::BitXor => Some(left.symmetric_difference(right).cloned().collect()),
                Operator::Sub => Some(left.difference(right).cloned().collect()),
                _ => None,
            };
            match keys {
                Some(keys) => return heap.set(keys),
                None => None,
            }
        }
        _ => match (number(left), number(right)) {
            (Some(Number::Int(one)), Some(Number::Int(other))) => {
                let logical = matches!((left, right), (Object::Bool(_), Object::Bool(_)));
                integers(operator, one, other)?.map(|it| match it {
                    Object::Int(value)
                        if logical
                            && matches!(
                                operator,
                                Operator::BitAnd | Operator::BitOr | Operator::BitXor
                            ) =>
                    {
                        Object::Bool(value != 0)
                    }
                    it => it,
                })
            }
            (Some(one), Some(other)) => floats(operator, one.float(), other.float())?,
            _ => None,
        },
    };
    found.ok_or_else(|| {
        format!("`{}` of {} and {}", operator.as_str(), heap.describe(left), heap.describe(right))
    })
}

/// What two sequences give together; Python adds only those of one kind.
fn joined(one: Kind, other: Kind) -> Option<Kind> {
    match (one, other) {
        (Kind::List, Kind::List | Kind::Either) | (Kind::Either, Kind::List) => Some(Kind::List),
        (Kind::Tuple, Kind::Tuple | Kind::Either) | (Kind::Either, Kind::Tuple) => {
            Some(Kind::Tuple)
        }
        (Kind::Either, Kind::Either) => Some(Kind::Either),
        _ => None,
    }
}

fn repeat(heap: &mut Heap, sequence: &Object, times: usize) -> Outcome<Object> {
    match sequence {
        Object::Text(text) => {
            heap.spend(text.len().saturating_mul(times) / 32)?;
            heap.text(text.repeat(times))
        }
        Object::Sequence(kind, id) => {
            heap.spend(heap.items(*id).len().saturating_mul(times))?;
            let items = heap.items(*id).clone();
            let times = if items.is_empty() { 0 } else { times };
            heap.sequence(*kind, (0..times).flat_map(|_| items.iter().cloned()).collect())
        }
        other => Err(format!("`*` of {}", heap.describe(other))),
    }
}

fn integers(operator: Operator, left: i64, right: i64) -> Outcome<Option<Object>> {
    let zero = matches!(operator, Operator::Div | Operator::FloorDiv | Operator::Mod) && right == 0;
    if zero || (operator == Operator::Pow && left == 0 && right < 0) {
        return Err("a division by zero".into());
    }
    let whole = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Sub => left.checked_sub(right),
        Operator::Mult => left.checked_mul(right),
        Operator::FloorDiv => floor_division(left, right),
        Operator::Mod => {
            floor_division(left, right).and_then(|it| left.checked_sub(it.checked_mul(right)?))
        }
        Operator::Div => return Ok(Some(Object::Float(left as f64 / right as f64))),
        Operator::Pow if right < 0 => return floats(operator, left as f64, right as f64),
        Operator::Pow => match (left, u32::try_from(right)) {
            (0 | 1, _) => Some(if right == 0 { 1 } else { left }),
            (-1, _) => Some(if right % 2 == 0 { 1 } else { -1 }),
            (_, Ok(exponent)) => left.checked_pow(exponent),
            (_, Err(_)) => None,
        },
        Operator::LShift | Operator::RShift if right < 0 => {
            return Err("a shift by a negative number".into());
        }
        Operator::LShift if left == 0 => Some(0),
        Operator::LShift => {
            u32::try_from(right).ok().filter(|it| *it < 63).and_then(|it| left.checked_mul(1 << it))
        }
        Operator::RShift => Some(left >> right.min(63)),
        Operator::BitOr => Some(left | right),
        Operator::BitXor => Some(left ^ right),
        Operator::BitAnd => Some(left & right),
        Operator::MatMult => return Ok(None),
    };
    whole.map(|it| Some(Object::Int(it))).ok_or_else(|| {
        format!(
            "`{}` of the integer {left} and the integer {right} is larger than a config's numbers",
            operator.as_str()
        )
    })
}

/// Rounded down, as Python does, where Rust's `/` rounds towards zero.
fn floor_division(left: i64, right: i64) -> Option<i64> {
    let quotient = left.checked_div(right)?;
    let inexact = left.checked_rem(right)? != 0;
    Some(quotient - i64::from(inexact && (left < 0) != (right < 0)))
}

fn floats(operator: Operator, left: f64, right: f64) -> Outcome<Option<Object>> {
    if right == 0.0 && matches!(operator, Operator::Div | Operator::FloorDiv | Operator::Mod) {
        return Err("a division by zero".into());
    }
    Ok(Some(Object::Float(match operator {
        Operator::Add => left + right,
        Operator::Sub => left - right,
        Operator::Mult => left * right,
        Operator::Div => left / right,
        Operator::FloorDiv => divided(left, right).0,
        Operator::Mod => divided(left, right).1,
        Operator::Pow if left == 0.0 && right < 0.0 => return Err("a division by zero".into()),
        Operator::Pow
            if left < 0.0 && left.is_finite() && right.is_finite() && right.fract() != 0.0 =>
        {
            return Err("a power of a negative number with a fraction is complex".into());
        }
        Operator::Pow => {
            let power = left.powf(right);
            if power.is_infinite() && left.is_finite() && right.is_finite() {
                return Err("this power is larger than a config's numbers".into());
            }
            power
        }
        _ => return Ok(None),
    })))
}

/// The quotient rounded down and the rest, which has the divisor's sign.
fn divided(left: f64, right: f64) -> (f64, f64) {
    let mut rest = left % right;
    let mut quotient = (left - rest) / right;
    if rest == 0.0 {
        rest = 0f64.copysign(right);
    } else if (right < 0.0) != (rest < 0.0) {
        rest += right;
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return (0f64.copysign(left / right), rest);
    }
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }, rest)
}

pub(super) fn unary(heap: &Heap, operator: UnaryOp, of: &Object) -> Outcome<Object> {
    if operator == UnaryOp::Not {
        return Ok(Object::Bool(!heap.truth(of)));
    }
    let found = match (operator, number(of)) {
        (UnaryOp::USub, Some(Number::Int(value))) => value.checked_neg().map(Object::Int),
        (UnaryOp::USub, Some(Number::Float(value))) => Some(Object::Float(-value)),
        (UnaryOp::UAdd, Some(Number::Int(value))) => Some(Object::Int(value)),
        (UnaryOp::UAdd, Some(Number::Float(value))) => Some(Object::Float(value)),
        (UnaryOp::Invert, Some(Number::Int(value))) => Some(Object::Int(!value)),
        _ => None,
    };
    found.ok_or_else(|| {
        format!("`{}` expects a number, found {}", operator.as_str(), heap.describe(of))
    })
}

pub(super) fn compare(
    heap: &mut Heap,
    operator: CmpOp,
    left: &Object,
    right: &Object,
) -> Outcome<bool> {
    match operator {
        CmpOp::Eq => heap.equal(left, right),
        CmpOp::NotEq => Ok(!heap.equal(left, right)?),
        CmpOp::In => contains(heap, right, left),
        CmpOp::NotIn => Ok(!contains(heap, right, left)?),
        CmpOp::Is => same(heap, left, right),
        CmpOp::IsNot => Ok(!same(heap, left, right)?),
        CmpOp::Lt | CmpOp::LtE | CmpOp::Gt | CmpOp::GtE => {
            if let (Object::Set(left), Object::Set(right)) = (left, right) {
                let (left, right) = (heap.keys(*left), heap.keys(*right));
                return Ok(match operator {
                    CmpOp::Lt => left.is_subset(right) && left.len() < right.len(),
                    CmpOp::LtE => left.is_subset(right),
                    CmpOp::Gt => right.is_subset(left) && right.len() < left.len(),
                    _ => right.is_subset(left),
                });
            }
            // NaN is neither less nor more than any number.
            let nan = |it: &Object| matches!(it, Object::Float(value) if value.is_nan());
            if (nan(left) && number(right).is_some()) || (nan(right) && number(left).is_some()) {
                return Ok(false);
            }
            let order = heap.order(left, right).map_err(|_| {
                format!(
                    "`{}` of {} and {}",
                    operator.as_str(),
                    heap.describe(left),
                    heap.describe(right)
                )
            })?;
            Ok(match operator {
                CmpOp::Lt => order == Ordering::Less,
                CmpOp::LtE => order != Ordering::Greater,
                CmpOp::Gt => order == Ordering::Greater,
                _ => order != Ordering::Less,
            })
        }
    }
}

/// `is`: which strings and numbers are the same object is Python's own affair.
fn same(heap: &Heap, left: &Object, right: &Object) -> Outcome<bool> {
    Ok(match (left, right) {
        (Object::None, other) | (other, Object::None) => matches!(other, Object::None),
        (Object::Bool(left), Object::Bool(right)) => left == right,
        (Object::Bool(_), _) | (_, Object::Bool(_)) => false,
        (Object::Sequence(_, left), Object::Sequence(_, right))
        | (Object::Dict(left), Object::Dict(right))
        | (Object::Set(left), Object::Set(right)) => left == right,
        (Object::Function(left), Object::Function(right)) => left == right,
        _ => {
            return Err(format!(
                "`is` of {} and {}; write `==`",
                heap.describe(left),
                heap.describe(right)
            ));
        }
    })
}

pub(super) fn contains(heap: &mut Heap, holder: &Object, wanted: &Object) -> Outcome<bool> {
    match holder {
        Object::Text(text) => match wanted {
            Object::Text(part) => Ok(text.contains(&**part)),
            other => Err(format!("`in` a string expects a string, found {}", heap.describe(other))),
        },
        Object::Dict(id) => {
            let key = heap.key(wanted)?;
            Ok(heap.entries(*id).items.contains_key(&key))
        }
        Object::Set(id) => {
            let key = heap.key(wanted)?;
            Ok(heap.keys(*id).contains(&key))
        }
        Object::Sequence(_, id) => Ok(position(heap, *id, wanted)?.is_some()),
        other => {
            Err(format!("`in` expects a list, a dict or a string, found {}", heap.describe(other)))
        }
    }
}

/// Where a value stands in a sequence.
pub(super) fn position(heap: &mut Heap, id: usize, wanted: &Object) -> Outcome<Option<usize>> {
    for index in 0..heap.items(id).len() {
        let object = heap.items(id)[index].object.clone();
        if heap.equal(&object, wanted)? {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// `of[key]`.
pub(super) fn item(heap: &mut Heap, of: &Object, key: &Object, here: &Origin) -> Outcome<Item> {
    match of {
        Object::Dict(id) => {
            let wanted = heap.key(key)?;
            let entries = &heap.entries(*id).items;
            entries.get(&wanted).cloned().ok_or_else(|| missing(&wanted, entries.keys()))
        }
        Object::Sequence(kind, id) if *kind != Kind::Stream => {
            let length = heap.items(*id).len();
            let index = index(heap, key, length)?;
            Ok(heap.items(*id)[index].clone())
        }
        Object::Text(text) => {
            let index = index(heap, key, text.chars().count())?;
            let character = text.chars().nth(index).map(String::from).unwrap_or_default();
            Ok(Item::new(heap.text(character)?, here))
        }
        other => Err(format!("{} has no items", heap.describe(other))),
    }
}

/// The message for a key that a dict lacks.
pub(super) fn missing<'a>(wanted: &Key, keys: impl Iterator<Item = &'a Key>) -> String {
    let Key::Text(wanted) = wanted else { return "the dict does not have this key".into() };
    let keys = keys.filter_map(|it| if let Key::Text(text) = it { Some(&**text) } else { None });
    let hint =
        nearest(wanted, keys).map(|it| format!("; did you mean `{it}`?")).unwrap_or_default();
    format!("there is no `{wanted}` in the dict{hint}")
}

/// A place in a sequence; a negative one counts from the end.
pub(super) fn index(heap: &Heap, key: &Object, length: usize) -> Outcome<usize> {
    let Some(Number::Int(value)) = number(key) else {
        return Err(format!("an index is a whole number, found {}", heap.describe(key)));
    };
    let index = if value < 0 { value.checked_add(length as i64) } else { Some(value) };
    let index = index.and_then(|it| usize::try_from(it).ok()).filter(|it| *it < length);
    index.ok_or_else(|| format!("there is no item {value}: the length is {length}"))
}

/// The places that a slice takes, in its order.
pub(super) fn slice(
    heap: &Heap,
    length: usize,
    bounds: [Option<&Object>; 3],
) -> Outcome<Vec<usize>> {
    let whole = |object: Option<&Object>| match object {
        None | Some(Object::None) => Ok(None),
        Some(object) => match number(object) {
            Some(Number::Int(value)) => Ok(Some(value)),
            _ => Err(format!("a slice takes whole numbers, found {}", heap.describe(object))),
        },
    };
    let [lower, upper, step] = [whole(bounds[0])?, whole(bounds[1])?, whole(bounds[2])?];
    let (length, step) = (length as i64, step.unwrap_or(1));
    if step == 0 {
        return Err("the step of a slice cannot be 0".into());
    }
    let (least, most) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let place = |value: Option<i64>, default: i64| match value {
        None => default,
        Some(value) if value < 0 => value.saturating_add(length).clamp(least, most),
        Some(value) => value.clamp(least, most),
    };
    let (mut at, end) = if step > 0 {
        (place(lower, 0), place(upper, length))
    } else {
        (place(lower, length - 1), place(upper, -1))
    };
    let mut places = Vec::new();
    while if step > 0 { at < end } else { at > end } {
        places.push(at as usize);
        at = at.saturating_add(step);
    }
    Ok(places)
}

/// `of[lower:upper:step]`.
pub(super) fn sliced(
    heap: &mut Heap,
    of: &Object,
    bounds: [Option<&Object>; 3],
) -> Outcome<Object> {
    match of {
        Object::Text(text) => {
            let characters: Vec<char> = text.chars().collect();
            heap.spend(characters.len() / 32)?;
            let places = slice(heap, characters.len(), bounds)?;
            heap.text(places.into_iter().map(|it| characters[it]).collect::<String>())
        }
        Object::Sequence(kind, id) if *kind != Kind::Stream => {
            let places = slice(heap, heap.items(*id).len(), bounds)?;
            let items = places.into_iter().map(|it| heap.items(*id)[it].clone()).collect();
            heap.sequence(*kind, items)
        }
        other => Err(format!("a slice of {}", heap.describe(other))),
    }
}
