//! The methods of strings, lists and dicts.

use indexmap::IndexMap;

use super::super::error::nearest;
use super::super::node::Origin;
use super::arguments::Arguments;
use super::format::{self, Piece};
use super::functions::{pairs, sorted};
use super::heap::{Heap, Item, Key, Kind, Number, Object, Outcome, number};
use super::operators::{index, item, missing, position, slice};

/// Calls `of.name(…)`.
pub(super) fn call(
    heap: &mut Heap,
    of: &Object,
    name: &str,
    arguments: Arguments,
    here: &Origin,
) -> Outcome<Object> {
    let known: &[&str] = match of {
        Object::Text(text) => {
            if let Some(result) = string(heap, text, name, arguments, here)? {
                return Ok(result);
            }
            &STRING
        }
        Object::Sequence(kind, id) => {
            if let Some(result) = sequence(heap, *kind, *id, name, arguments, here)? {
                return Ok(result);
            }
            if *kind == Kind::Tuple { &["index", "count"] } else { &LIST }
        }
        Object::Dict(id) => {
            if let Some(result) = dict(heap, *id, name, arguments, here)? {
                return Ok(result);
            }
            &DICT
        }
        Object::Function("dict") if name == "fromkeys" => {
            let [keys, value] = arguments.bind(name, ["iterable", "value"], 1)?;
            let value = Item::new(value.unwrap_or(Object::None), here);
            let keys = heap.iterate(&keys.unwrap_or(Object::None), here)?;
            let entries = keys
                .iter()
                .map(|it| Ok((heap.key(&it.object)?, value.clone())))
                .collect::<Outcome<_>>()?;
            return heap.dict(entries);
        }
        _ => &[],
    };
    let hint = nearest(name, known.iter().copied())
        .map(|it| format!("; did you mean `{it}`?"))
        .unwrap_or_default();
    Err(format!("`{name}` of {} is not understood{hint}", heap.describe(of)))
}

const STRING: [&str; 36] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isdigit",
    "islower",
    "isspace",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];
const LIST: [&str; 11] = [
    "append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse",
    "sort",
];
const DICT: [&str; 11] = [
    "clear",
    "copy",
    "get",
    "items",
    "keys",
    "pop",
    "popitem",
    "setdefault",
    "to_dict",
    "update",
    "values",
];

fn text(heap: &Heap, name: &str, object: Option<Object>) -> Outcome<std::rc::Rc<str>> {
    match object {
        Some(Object::Text(text)) => Ok(text),
        other => Err(format!(
            "`{name}` expects a string, found {}",
            heap.describe(&other.unwrap_or(Object::None))
        )),
    }
}

fn whole(heap: &Heap, name: &str, object: Option<Object>, default: i64) -> Outcome<i64> {
    match object.as_ref().map(number) {
        None => Ok(default),
        Some(Some(Number::Int(value))) => Ok(value),
        _ => Err(format!(
            "`{name}` expects a whole number, found {}",
            heap.describe(&object.unwrap_or(Object::None))
        )),
    }
}

#[expect(clippy::too_many_lines, reason = "one arm a method of Python")]
fn string(
    heap: &mut Heap,
    of: &str,
    name: &str,
    arguments: Arguments,
    here: &Origin,
) -> Outcome<Option<Object>> {
    heap.spend(1 + of.len() / 32)?;
    let plain = |change: &dyn Fn(&str) -> String, arguments: Arguments| {
        let [] = arguments.bind(name, [], 0)?;
        Ok::<_, String>(change(of))
    };
    let every = |test: fn(char) -> bool, arguments: Arguments| {
        let [] = arguments.bind(name, [], 0)?;
        Ok::<_, String>(Some(Object::Bool(!of.is_empty() && of.chars().all(test))))
    };
    let result = match name {
        "upper" => plain(&str::to_uppercase, arguments)?,
        "lower" | "casefold" => plain(&str::to_lowercase, arguments)?,
        "capitalize" => plain(&|it| cased(it, |at, _| at == 0), arguments)?,
        "title" => {
            plain(&|it| cased(it, |_, before| !before.is_some_and(char::is_alphabetic)), arguments)?
        }
        "swapcase" => plain(
            &|it| {
                let swap = |it: char| -> String {
                    if it.is_uppercase() {
                        it.to_lowercase().collect()
                    } else {
                        it.to_uppercase().collect()
                    }
                };
                it.chars().map(swap).collect()
            },
            arguments,
        )?,
        "isdigit" => return every(|it| it.is_ascii_digit(), arguments),
        "isalpha" => return every(char::is_alphabetic, arguments),
        "isalnum" => return every(char::is_alphanumeric, arguments),
        "isspace" => return every(char::is_whitespace, arguments),
        "isupper" | "islower" => {
            let [] = arguments.bind(name, [], 0)?;
            let [wanted, other]: [fn(char) -> bool; 2] = if name == "isupper" {
                [char::is_uppercase, char::is_lowercase]
            } else {
                [char::is_lowercase, char::is_uppercase]
            };
            return Ok(Some(Object::Bool(of.chars().any(wanted) && !of.chars().any(other))));
        }
        "strip" | "lstrip" | "rstrip" => {
            let [characters] = arguments.bind(name, ["chars"], 0)?;
            let characters = match characters {
                None | Some(Object::None) => None,
                other => Some(text(heap, name, other)?),
            };
            let cut =
                |it: char| characters.as_ref().map_or(it.is_whitespace(), |all| all.contains(it));
            let left = if name == "rstrip" { of } else { of.trim_start_matches(cut) };
            (if name == "lstrip" { left } else { left.trim_end_matches(cut) }).to_owned()
        }
        "removeprefix" | "removesuffix" => {
            let [part] = arguments.bind(name, ["part"], 1)?;
            let part = text(heap, name, part)?;
            let rest = if name == "removeprefix" {
                of.strip_prefix(&*part)
            } else {
                of.strip_suffix(&*part)
            };
            rest.unwrap_or(of).to_owned()
        }
        "startswith" | "endswith" => {
            let [part, start, end] = arguments.bind(name, ["prefix", "start", "end"], 1)?;
            let parts = match part {
                Some(Object::Sequence(_, id)) => {
                    heap.items(id).iter().map(|it| it.object.clone()).collect()
                }
                other => vec![other.unwrap_or(Object::None)],
            };
            let (_, of) = window(heap, of, start.as_ref(), end.as_ref())?;
            for part in parts {
                let part = text(heap, name, Some(part))?;
                if if name == "startswith" { of.starts_with(&*part) } else { of.ends_with(&*part) }
                {
                    return Ok(Some(Object::Bool(true)));
                }
            }
            return Ok(Some(Object::Bool(false)));
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let [part, start, end] = arguments.bind(name, ["sub", "start", "end"], 1)?;
            let part = text(heap, name, part)?;
            let (before, of) = window(heap, of, start.as_ref(), end.as_ref())?;
            if name == "count" {
                let count = if part.is_empty() {
                    of.chars().count() + 1
                } else {
                    of.matches(&*part).count()
                };
                return Ok(Some(Object::Int(count as i64)));
            }
            let found = if name.starts_with('r') { of.rfind(&*part) } else { of.find(&*part) };
            return match found {
                Some(at) => Ok(Some(Object::Int((before + of[..at].chars().count()) as i64))),
                None if name.ends_with("find") => Ok(Some(Object::Int(-1))),
                None => Err(format!("the string has no {part:?} in it")),
            };
        }
        "replace" => {
            let [old, new, count] = arguments.bind(name, ["old", "new", "count"], 2)?;
            let (old, new) = (text(heap, name, old)?, text(heap, name, new)?);
            let most = usize::try_from(whole(heap, name, count, -1)?).unwrap_or(usize::MAX);
            let times =
                (if old.is_empty() { of.chars().count() + 1 } else { of.matches(&*old).count() })
                    .min(most);
            heap.spend(times.saturating_mul(new.len()) / 32)?;
            of.replacen(&*old, &new, times)
        }
        "join" => {
            let [parts] = arguments.bind(name, ["iterable"], 1)?;
            let mut joined = String::new();
            for (at, part) in
                heap.iterate(&parts.unwrap_or(Object::None), here)?.into_iter().enumerate()
            {
                if at > 0 {
                    joined.push_str(of);
                }
                let part = text(heap, name, Some(part.object))?;
                heap.spend((part.len() + of.len()) / 32)?;
                joined.push_str(&part);
            }
            joined
        }
        "split" | "rsplit" => {
            let [mark, most] = arguments.bind(name, ["sep", "maxsplit"], 0)?;
            let most = usize::try_from(whole(heap, name, most, -1)?).unwrap_or(usize::MAX);
            let parts = match mark {
                None | Some(Object::None) => words(of, most, name == "rsplit"),
                other => {
                    let mark = text(heap, name, other)?;
                    if mark.is_empty() {
                        return Err(format!("`{name}` at an empty string"));
                    }
                    let pieces = most.saturating_add(1);
                    if name == "split" {
                        of.splitn(pieces, &*mark).collect()
                    } else {
                        let mut parts: Vec<&str> = of.rsplitn(pieces, &*mark).collect();
                        parts.reverse();
                        parts
                    }
                }
            };
            return list_of(heap, Kind::List, &parts, here).map(Some);
        }
        "splitlines" => {
            let [] = arguments.bind(name, [], 0)?;
            return list_of(heap, Kind::List, &of.lines().collect::<Vec<_>>(), here).map(Some);
        }
        "partition" | "rpartition" => {
            let [mark] = arguments.bind(name, ["sep"], 1)?;
            let mark = text(heap, name, mark)?;
            if mark.is_empty() {
                return Err(format!("`{name}` at an empty string"));
            }
            let found =
                if name == "partition" { of.split_once(&*mark) } else { of.rsplit_once(&*mark) };
            let parts = match found {
                Some((left, right)) => [left, &*mark, right],
                None if name == "partition" => [of, "", ""],
                None => ["", "", of],
            };
            return list_of(heap, Kind::Tuple, &parts, here).map(Some);
        }
        "zfill" | "center" | "ljust" | "rjust" => {
            let [width, fill] = arguments.bind(name, ["width", "fillchar"], 1)?;
            let width = whole(heap, name, width, 0)?.max(0);
            let fill = fill.map(|it| text(heap, name, Some(it))).transpose()?;
            let fill = fill.as_deref().unwrap_or(if name == "zfill" { "0" } else { " " });
            let missing = usize::try_from(width).unwrap_or(0).saturating_sub(of.chars().count());
            heap.spend(missing / 32)?;
            let (sign, body) = match of.chars().next() {
                Some('+' | '-') if name == "zfill" => of.split_at(1),
                _ => ("", of),
            };
            let left = match name {
                "ljust" => 0,
                "center" => missing / 2 + (missing & width as usize & 1),
                _ => missing,
            };
            format!("{sign}{}{body}{}", fill.repeat(left), fill.repeat(missing - left))
        }
        "format" => formatted(heap, of, &arguments, here)?,
        _ => return Ok(None),
    };
    heap.text(result).map(Some)
}

fn cased(text: &str, upper: impl Fn(usize, Option<char>) -> bool) -> String {
    let mut out = String::new();
    let mut before = None;
    for (at, character) in text.chars().enumerate() {
        if upper(at, before) {
            out.extend(character.to_uppercase());
        } else {
            out.extend(character.to_lowercase());
        }
        before = Some(character);
    }
    out
}

/// The part of a string from `start` to `end`, and how many characters stand before it.
fn window<'a>(
    heap: &Heap,
    of: &'a str,
    start: Option<&Object>,
    end: Option<&Object>,
) -> Outcome<(usize, &'a str)> {
    if start.is_none() && end.is_none() {
        return Ok((0, of));
    }
    let places = slice(heap, of.chars().count(), [start, end, None])?;
    let first = places.first().copied().unwrap_or(0);
    let byte = |at: usize| of.char_indices().nth(at).map_or(of.len(), |(at, _)| at);
    Ok((first, &of[byte(first)..byte(first + places.len())]))
}

/// The words between white space; the last one, or the first one, holds what is left after `most`
/// cuts.
fn words(of: &str, most: usize, from_end: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = if from_end { of.trim_end() } else { of.trim_start() };
    while !rest.is_empty() {
        let cut = if parts.len() >= most {
            None
        } else if from_end {
            rest.rsplit_once(char::is_whitespace).map(|(before, word)| (word, before.trim_end()))
        } else {
            rest.split_once(char::is_whitespace).map(|(word, after)| (word, after.trim_start()))
        };
        let (word, after) = cut.unwrap_or((rest, ""));
        if !word.is_empty() {
            parts.push(word);
        }
        rest = after;
    }
    if from_end {
        parts.reverse();
    }
    parts
}

fn list_of(heap: &mut Heap, kind: Kind, parts: &[&str], here: &Origin) -> Outcome<Object> {
    let items =
        parts.iter().map(|it| Ok(Item::new(heap.text(*it)?, here))).collect::<Outcome<_>>()?;
    heap.sequence(kind, items)
}

fn formatted(
    heap: &mut Heap,
    template: &str,
    arguments: &Arguments,
    here: &Origin,
) -> Outcome<String> {
    let mut next = 0;
    filled(heap, template, arguments, &mut next, here, 0)
}

fn filled(
    heap: &mut Heap,
    template: &str,
    arguments: &Arguments,
    next: &mut usize,
    here: &Origin,
    depth: usize,
) -> Outcome<String> {
    if depth > 2 {
        return Err("a format nests too deep".into());
    }
    let mut out = String::new();
    for piece in format::template(template)? {
        let (name, conversion, spec) = match piece {
            Piece::Text(text) => {
                out.push_str(&text);
                continue;
            }
            Piece::Field { name, conversion, spec } => (name, conversion, spec),
        };
        heap.spend(10)?;
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let given = if first.is_empty() {
            *next += 1;
            arguments.positional.get(*next - 1)
        } else if let Ok(at) = first.parse::<usize>() {
            arguments.positional.get(at)
        } else {
            arguments.named.iter().find(|(name, _)| name == first).map(|(_, it)| it)
        };
        let mut value =
            given.cloned().ok_or_else(|| format!("`format` is given no value for `{{{name}}}`"))?;
        while !rest.is_empty() {
            let (key, after) = match rest.strip_prefix('[').and_then(|it| it.split_once(']')) {
                Some((key, after)) => (key, after),
                None => {
                    let of = rest.strip_prefix('.').unwrap_or(rest);
                    of.split_at(of.find(['.', '[']).unwrap_or(of.len()))
                }
            };
            let key = if rest.starts_with('[') {
                key.parse().map_or_else(|_| Object::Text(key.into()), Object::Int)
            } else {
                Object::Text(key.into())
            };
            if rest.starts_with('.')
                && !matches!(&value.object, Object::Dict(id) if heap.entries(*id).of_bases)
            {
                return Err(format!(
                    "`{{{name}}}` asks for an attribute, which values of a config do not have"
                ));
            }
            value = item(heap, &value.object, &key, here)?;
            rest = after;
        }
        let spec = if spec.contains('{') {
            filled(heap, &spec, arguments, next, here, depth + 1)?
        } else {
            spec
        };
        let object = match conversion {
            None => value.object,
            Some('s') => Object::Text(format::text(heap, &value.object)?.into()),
            Some('r') => Object::Text(format::repr(heap, &value.object)?.into()),
            Some(other) => return Err(format!("`!{other}` is not understood in a format")),
        };
        out.push_str(&format::format(heap, &object, &spec)?);
        heap.spend(out.len() / 1024)?;
    }
    Ok(out)
}

fn sequence(
    heap: &mut Heap,
    kind: Kind,
    id: usize,
    name: &str,
    arguments: Arguments,
    here: &Origin,
) -> Outcome<Option<Object>> {
    match name {
        "index" => {
            let [wanted] = arguments.bind(name, ["value"], 1)?;
            let wanted = wanted.unwrap_or(Object::None);
            let found = position(heap, id, &wanted)?;
            return found
                .map(|it| Some(Object::Int(it as i64)))
                .ok_or_else(|| format!("{} is not in the list", heap.describe(&wanted)));
        }
        "count" => {
            let [wanted] = arguments.bind(name, ["value"], 1)?;
            let wanted = wanted.unwrap_or(Object::None);
            let mut count = 0;
            for item in heap.items(id).clone() {
                count += i64::from(heap.equal(&item.object, &wanted)?);
            }
            return Ok(Some(Object::Int(count)));
        }
        _ if !matches!(kind, Kind::List | Kind::Either) => return Ok(None),
        _ => {}
    }
    // What moves the items behind a place.
    heap.spend(1 + heap.items(id).len() / 64)?;
    match name {
        "append" => {
            let [item] = arguments.bind(name, ["object"], 1)?;
            heap.items_mut(id).push(Item::new(item.unwrap_or(Object::None), here));
        }
        "extend" => {
            let [of] = arguments.bind(name, ["iterable"], 1)?;
            let items = heap.iterate(&of.unwrap_or(Object::None), here)?;
            heap.items_mut(id).extend(items);
        }
        "insert" => {
            let [at, item] = arguments.bind(name, ["index", "object"], 2)?;
            let length = heap.items(id).len() as i64;
            let at = whole(heap, name, at, 0)?;
            let at = if at < 0 { at.saturating_add(length).max(0) } else { at.min(length) };
            heap.items_mut(id).insert(at as usize, Item::new(item.unwrap_or(Object::None), here));
        }
        "remove" => {
            let [wanted] = arguments.bind(name, ["value"], 1)?;
            let wanted = wanted.unwrap_or(Object::None);
            let Some(at) = position(heap, id, &wanted)? else {
                return Err(format!("{} is not in the list", heap.describe(&wanted)));
            };
            heap.items_mut(id).remove(at);
        }
        "pop" => {
            let [at] = arguments.bind(name, ["index"], 0)?;
            let at = index(heap, &at.unwrap_or(Object::Int(-1)), heap.items(id).len())?;
            return Ok(Some(heap.items_mut(id).remove(at).object));
        }
        "reverse" => {
            let [] = arguments.bind(name, [], 0)?;
            heap.items_mut(id).reverse();
        }
        "clear" => {
            let [] = arguments.bind(name, [], 0)?;
            heap.items_mut(id).clear();
        }
        "sort" => {
            let (given, [key, reverse]) = arguments.split(name, ["key", "reverse"])?;
            if !given.is_empty() {
                return Err("`sort` takes `key=` and `reverse=` only".into());
            }
            let items = heap.items(id).clone();
            heap.spend(items.len())?;
            let items = sorted(heap, items, key.as_ref(), reverse.as_ref(), here)?;
            *heap.items_mut(id) = items;
        }
        "copy" => {
            let [] = arguments.bind(name, [], 0)?;
            let items = heap.items(id).clone();
            return heap.sequence(kind, items).map(Some);
        }
        _ => return Ok(None),
    }
    Ok(Some(Object::None))
}

fn dict(
    heap: &mut Heap,
    id: usize,
    name: &str,
    arguments: Arguments,
    here: &Origin,
) -> Outcome<Option<Object>> {
    let of_bases = heap.entries(id).of_bases;
    Ok(Some(match name {
        "get" => {
            let [key, default] = arguments.bind(name, ["key", "default"], 1)?;
            let key = heap.key(&key.unwrap_or(Object::None))?;
            let found = heap.entries(id).items.get(&key).map(|it| it.object.clone());
            found.or(default).unwrap_or(Object::None)
        }
        "pop" => {
            let [key, default] = arguments.bind(name, ["key", "default"], 1)?;
            let key = heap.key(&key.unwrap_or(Object::None))?;
            heap.spend(1 + heap.entries(id).items.len() / 64)?;
            let taken = heap.entries_mut(id).items.shift_remove(&key).map(|it| it.object);
            let default = default.or(of_bases.then_some(Object::None));
            taken.or(default).ok_or_else(|| missing(&key, heap.entries(id).items.keys()))?
        }
        "popitem" => {
            let [] = arguments.bind(name, [], 0)?;
            let (key, item) =
                heap.entries_mut(id).items.pop().ok_or("`popitem` of an empty dict")?;
            let key = heap.key_object(key, here)?;
            heap.sequence(Kind::Tuple, vec![Item::new(key, here), item])?
        }
        "setdefault" => {
            let [key, default] = arguments.bind(name, ["key", "default"], 1)?;
            let key = heap.key(&key.unwrap_or(Object::None))?;
            if let Some(item) = heap.entries(id).items.get(&key) {
                return Ok(Some(item.object.clone()));
            }
            let default = default.unwrap_or(Object::None);
            heap.insert(id, key, Item::new(default.clone(), here))?;
            default
        }
        "keys" | "values" | "items" => {
            let [] = arguments.bind(name, [], 0)?;
            let mut parts = Vec::new();
            for (key, item) in heap.entries(id).items.clone() {
                parts.push(match name {
                    "values" => item,
                    "keys" => Item::new(heap.key_object(key, here)?, here),
                    _ => {
                        let key = Item::new(heap.key_object(key, here)?, here);
                        Item::new(heap.sequence(Kind::Tuple, vec![key, item])?, here)
                    }
                });
            }
            heap.sequence(Kind::View, parts)?
        }
        "update" => {
            let mut positional = arguments.positional.into_iter();
            let mut changes = match positional.next() {
                None => IndexMap::new(),
                Some(Item { object: Object::Dict(other), .. }) => heap.entries(other).items.clone(),
                Some(other) => pairs(heap, &other.object, here)?,
            };
            if positional.next().is_some() {
                return Err("`update` takes one dict at most, and names".into());
            }
            changes.extend(
                arguments.named.into_iter().map(|(name, item)| (Key::Text(name.into()), item)),
            );
            update(heap, id, changes, 0)?;
            Object::None
        }
        "copy" => {
            let [] = arguments.bind(name, [], 0)?;
            let items = heap.entries(id).items.clone();
            let copy = heap.dict(items)?;
            if let Object::Dict(copy) = copy {
                heap.entries_mut(copy).of_bases = of_bases;
            }
            copy
        }
        "clear" => {
            let [] = arguments.bind(name, [], 0)?;
            heap.entries_mut(id).items.clear();
            Object::None
        }
        "to_dict" if of_bases => {
            let [] = arguments.bind(name, [], 0)?;
            plain(heap, &Object::Dict(id), 0)?
        }
        _ => return Ok(None),
    }))
}

/// Sets the entries of `changes`. A dict of the bases merges dicts into those that it has.
fn update(heap: &mut Heap, id: usize, changes: IndexMap<Key, Item>, depth: usize) -> Outcome<()> {
    super::heap::level(depth)?;
    for (key, item) in changes {
        let old = heap.entries(id).items.get(&key).map(|it| it.object.clone());
        match (heap.entries(id).of_bases, old, &item.object) {
            (true, Some(Object::Dict(old)), Object::Dict(new)) => {
                let below = heap.entries(*new).items.clone();
                heap.spend(1 + below.len())?;
                update(heap, old, below, depth + 1)?;
            }
            _ => heap.insert(id, key, item)?,
        }
    }
    Ok(())
}

/// A copy of a dict of the bases that is a dict like any other.
fn plain(heap: &mut Heap, object: &Object, depth: usize) -> Outcome<Object> {
    super::heap::level(depth)?;
    match object {
        Object::Dict(id) => {
            let mut items = heap.entries(*id).items.clone();
            for item in items.values_mut() {
                item.object = plain(heap, &item.object, depth + 1)?;
            }
            heap.dict(items)
        }
        Object::Sequence(kind, id) => {
            let mut items = heap.items(*id).clone();
            for item in &mut items {
                item.object = plain(heap, &item.object, depth + 1)?;
            }
            heap.sequence(*kind, items)
        }
        other => Ok(other.clone()),
    }
}
